// Plugs for the page: a small household with an hour behind it, and any number of others.
'use strict';

/** Repeats itself, so that pictures of one fleet are alike. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
}

const round = (value) => Math.round(value * 10) / 10;
const hour = (load) => Array.from({ length: 60 }, (_, minute) => load(minute));

function outlet(number, name, changes = {}) {
  return { number, name, on: false, power: null, energy_today: null, history: [], ...changes };
}

function plug(index, alias, changes = {}) {
  return {
    id: `50c7bf01${index.toString(16).padStart(4, '0')}`,
    name: alias.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 40) || `plug-${index}`,
    alias, model: 'HS110(EU)', address: `192.168.${1 + (index >> 8)}.${index & 255}:9999`, protocol: 'xor', rssi: -54,
    availability: 'online', reason: null, last_error: null, errors: 0,
    outlets: [outlet(0, alias)],
    ...changes,
  };
}

function household() {
  const noise = random(7);
  const jitter = (size) => (noise() - 0.5) * size;
  const metered = (number, name, on, history, energy_today) =>
    outlet(number, name, { on, history, power: history.at(-1), energy_today });
  const freezer = hour((minute) => round(minute % 26 < 9 ? 62 + 30 * Math.exp(-(minute % 26)) + jitter(2) : 1.4));
  const washer = hour((minute) => {
    if (minute < 17) return 0.6;
    return round(minute < 34 ? 1960 + jitter(60) : minute > 55 ? 380 + jitter(80) : 140 + 70 * Math.sin(minute) + jitter(40));
  });
  const desk = hour((minute) => (minute < 21 ? 0 : round(minute < 44 ? 12.2 + jitter(0.4) : 18.4 + jitter(0.4))));
  const screen = hour((minute) => round(minute < 12 ? 0.5 : 96 + 28 * Math.sin(minute / 2.3) + jitter(14)));
  const sound = hour((minute) => round(minute < 12 ? 2.1 : 21 + jitter(9)));
  const console_ = hour((minute) => (minute < 30 ? 0.9 : round(74 + jitter(22))));
  const router = hour(() => round(8.6 + jitter(0.8)));
  return [
    plug(20, 'Desk lamp', { address: '192.168.1.20:9999', outlets: [metered(0, 'Desk lamp', true, desk, 0.09)] }),
    plug(21, 'Freezer', { model: 'KP115(EU)', protocol: 'klap v2', address: '192.168.1.21:80', rssi: -61,
      outlets: [metered(0, 'Freezer', true, freezer, 0.41)] }),
    plug(31, 'Living room', { model: 'HS300(US)', address: '192.168.1.31:9999', rssi: -47, outlets: [
      metered(1, 'Television', true, screen, 0.38), metered(2, 'Amplifier', true, sound, 0.11),
      metered(3, 'Console', true, console_, 0.06), metered(4, 'Router', true, router, 0.16)] }),
    plug(24, 'Garden pump', { model: 'KP401(US)', address: '192.168.1.24:9999', availability: 'offline', rssi: -83,
      reason: 'No answer for 4 minutes: timed out', errors: 7, last_error: 'no answer within 3 s',
      outlets: [outlet(0, 'Garden pump', { on: null })] }),
    plug(22, 'Hall light', { model: 'HS220(US)', address: '192.168.1.22:9999', rssi: -58,
      outlets: [outlet(0, 'Hall light', { on: false })] }),
    plug(23, 'Washing machine', { rssi: -66, address: '192.168.1.23:9999', errors: 1, last_error: 'connection reset',
      outlets: [metered(0, 'Washing machine', true, washer, 1.27)] }),
  ];
}

function crowd(size) {
  const noise = random(3);
  return Array.from({ length: size }, (_, index) => {
    const history = hour(() => round(noise() * 60));
    const name = `Plug ${index + 1}`;
    return plug(index, name, { outlets: [outlet(0, name, { on: true, power: history[59], energy_today: 0.1, history })] });
  });
}

module.exports = { crowd, household, outlet, plug };

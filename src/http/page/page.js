// The status page: what the bridge says by server-sent events, drawn with as few touches of the document as it takes.
// Names and errors come from the network: they are text and never markup.

const HOUR = 60; // minutes, as history counts
const FILTER_ABOVE = 12; // plugs; fewer are found by eye
const LEAST_PEAK = 2; // W; so that a standby's ripple does not look like a mountain
const SILENCE = 60_000; // ms without an event before the bridge is asked whether it is there
const PATIENCE = 10_000; // ms for an answer
const PAUSES = [500, 1000, 2000, 5000]; // ms between attempts to connect

const $ = (id) => document.getElementById(id);
const names = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const cards = new Map(); // by the plug's id
const rights = { control: false, needsToken: false, connected: false };
let bridge = null;

// ---- Text ----

const decimals = [0, 1, 2].map((digits) =>
  new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const number = (value, digits) => decimals[digits].format(value).replace(/,/g, "\u202f").replace("-", "\u2212");
const amount = (watts) => number(watts, watts !== 0 && Math.abs(watts) < 99.95 ? 1 : 0);
const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);
const list = (...words) => words.filter((word) => word).join(" · ");
const stateOf = (on) => (on === null ? "Unknown" : on ? "On" : "Off");
const clock = () => new Date().toLocaleTimeString("en-GB");

function span(seconds) {
  const minutes = Math.floor(seconds / 60);
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24];
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// ---- The document; untouched where nothing changed ----

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function writeOrHide(node, text) {
  write(node, text ?? "");
  hide(node, !text);
}

function hide(node, hidden) {
  // SVG has the attribute, but not the property.
  if (node.hasAttribute("hidden") !== hidden) node.toggleAttribute("hidden", hidden);
}

function mark(node, attribute, value) {
  if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
}

/** A copy of a template, and its parts by name. */
function stamp(template) {
  const root = $(template).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const node of root.querySelectorAll("[data-part]")) parts[node.dataset.part] = node;
  return { root, parts };
}

let count = 0;
function identify(node) {
  node.id = `n${(count += 1)}`;
  return node.id;
}

// ---- Power of the last hour ----

/** The paths of a curve that ends now. What is not known is left out, not drawn as nothing. */
function draw(history, now) {
  const values = [...history.slice(-HOUR), now];
  const known = values.filter((value) => value !== null);
  const peak = Math.max(LEAST_PEAK, ...known);
  const height = (value) => (19 - (18 * Math.max(0, value)) / peak).toFixed(2);
  const left = HOUR + 1 - values.length;
  let [line, area, run] = ["", "", []];
  [...values, null].forEach((value, at) => {
    if (value !== null) return run.push(`${left + at} ${height(value)}`);
    if (run.length === 0) return;
    line += `M${run[0]}L${run.join("L")}`;
    area += `M${left + at - run.length} 20L${run.join("L")}L${left + at - 1} 20Z`;
    run = [];
  });
  const dot = now === null ? "" : `M${HOUR} ${height(now)}h0`;
  if (known.length === 0) return { line, area, dot, peak: "", range: "" };
  const [least, most] = [Math.min(...known), Math.max(...known)].map(amount);
  return { line, area, dot, peak: `peak ${most} W`, range: `${least} to ${most} W` };
}

// ---- Cards ----

class Outlet {
  constructor(card, number) {
    this.card = card;
    this.number = number;
    this.wanted = null; // what was asked for and is not confirmed
    const { root, parts } = stamp("outlet-template");
    this.root = root;
    this.parts = parts;
    mark(parts.switch, "aria-labelledby", list(card.label, identify(parts.name)).replace(" · ", " "));
    parts.switch.addEventListener("click", () => this.press());
  }

  /** `minutes` have passed since then, and nothing changed. */
  update(outlet, plug, minutes) {
    const { parts } = this;
    const online = plug.availability === "online";
    const power = online ? outlet.power : null;
    const on = online ? outlet.on : null;
    // What went wrong with a command is of interest until the state is another one.
    if (on !== this.on) writeOrHide(parts.problem, "");
    if (on === this.wanted) this.wanted = null;
    this.on = on;
    const state = online ? stateOf(this.on) : "";
    writeOrHide(parts.name, plug.outlets.length > 1 ? outlet.name : "");
    write(parts.number, power === null ? state || "–" : amount(power));
    write(parts.unit, power === null ? "" : "W");
    const today = outlet.energy_today;
    write(parts.state, list(power === null ? "" : state, today === null ? "" : `${number(today, 2)} kWh today`));
    mark(this.root, "data-on", String(this.on));
    const { line, area, dot, peak, range } = draw([...outlet.history, ...Array(minutes).fill(power)], power);
    write(parts.peak, peak);
    hide(parts.curve, range === "");
    mark(parts.line, "d", line);
    mark(parts.area, "d", area);
    mark(parts.now, "d", dot);
    mark(parts.curve, "aria-label", `Power in the last hour: ${range}`);
    this.online = online;
    this.permit();
  }

  /** A switch that cannot be used keeps its place and the focus. */
  permit() {
    const { parts } = this;
    hide(parts.switch, !rights.control);
    mark(parts.switch, "aria-checked", String(this.on === true));
    mark(parts.switch, "aria-disabled", String(!this.online || !rights.connected));
    mark(parts.switch, "aria-busy", String(this.wanted !== null));
  }

  /** Asks for the other state; it is shown when the plug has confirmed it. */
  async press() {
    if (!this.online || !rights.connected || this.wanted !== null) return;
    const wanted = (this.wanted = !this.on);
    this.permit();
    const problem = await set(this.card.id, this.number, wanted);
    writeOrHide(this.parts.problem, problem && capital(problem));
    if (problem) say(`${this.card.title}: ${problem}`);
    // A confirmation comes with the plug's next event, which may be on its way.
    if (!problem) await new Promise((resolve) => setTimeout(resolve, 2000));
    if (this.wanted === wanted) this.wanted = null;
    this.permit();
  }
}

class Card {
  constructor(id) {
    this.id = id;
    this.outlets = new Map();
    const { root, parts } = stamp("plug-template");
    this.root = root;
    this.parts = parts;
    this.label = identify(parts.name);
    mark(root.firstElementChild, "aria-labelledby", this.label);
  }

  /** Returns whether its place among the others may have changed. */
  update(plug) {
    const { parts } = this;
    this.plug = plug;
    this.heard = performance.now();
    this.minutes = 0;
    write(parts.name, plug.alias || plug.name || plug.id);
    write(parts.availability, capital(plug.availability));
    write(parts.model, plug.model ? ` · ${plug.model}` : "");
    writeOrHide(parts.reason, plug.availability === "online" ? "" : plug.reason);
    const address = (plug.address ?? "").replace(/:(9999|80)$/, "");
    const signal = plug.rssi === null ? "" : `${number(plug.rssi, 0)} dBm`;
    const errors = plug.errors === 0 ? "" : plug.errors === 1 ? "1 error" : `${number(plug.errors, 0)} errors`;
    write(parts.where, list(address, plug.protocol, signal, errors) || "Details");
    write(parts.topic, plug.name ?? "–");
    // Before its MAC is known a plug's id is its address.
    write(parts.mac, /^[0-9a-f]{12}$/.test(plug.id) ? plug.id.replace(/(..)(?=.)/g, "$1:") : "–");
    write(parts.address, plug.address ?? "–");
    write(parts.protocol, plug.protocol ?? "–");
    write(parts.signal, signal || "–");
    write(parts.errors, number(plug.errors, 0));
    write(parts.error, plug.last_error ?? "–");
    mark(this.root, "data-availability", plug.availability);
    this.updateOutlets();
    this.words = [plug.alias, plug.name, plug.id, plug.model, plug.address, plug.protocol, plug.availability]
      .concat(plug.outlets.map((outlet) => outlet.name))
      .join(" ")
      .toLowerCase();
    const [title, before] = [parts.name.textContent, this.title];
    this.title = title;
    return title !== before;
  }

  /** The last hour moves on, whether or not a plug has news. */
  age() {
    const minutes = Math.min(HOUR, Math.floor((performance.now() - this.heard) / 60_000));
    if (minutes === this.minutes) return;
    this.minutes = minutes;
    this.updateOutlets();
  }

  updateOutlets() {
    const { plug } = this;
    mark(this.root, "data-outlets", plug.outlets.length > 2 ? "many" : "few");
    const seen = new Set(plug.outlets.map((outlet) => outlet.number));
    for (const [number, outlet] of this.outlets) {
      if (seen.has(number)) continue;
      outlet.root.remove();
      this.outlets.delete(number);
    }
    for (const outlet of plug.outlets) {
      let view = this.outlets.get(outlet.number);
      if (!view) {
        view = new Outlet(this, outlet.number);
        this.outlets.set(outlet.number, view);
        this.parts.outlets.append(view.root);
      }
      view.update(outlet, plug, this.minutes);
    }
  }
}

// ---- The whole, once a frame ----

const waiting = new Map(); // plugs that changed since the last frame, by id; null for those that are gone
let frame = 0;

function later() {
  frame ||= requestAnimationFrame(redraw);
}

function redraw() {
  frame = 0;
  let moved = false;
  for (const [id, plug] of waiting) {
    const card = cards.get(id) ?? new Card(id);
    if (plug === null) {
      card.root.remove();
      cards.delete(id);
    } else {
      cards.set(id, card);
      moved = card.update(plug) || moved;
    }
  }
  waiting.clear();
  if (moved) sort();
  filter();
  summarize();
}

function sort() {
  const focused = document.activeElement;
  const compare = (a, b) => names.compare(a.title, b.title) || names.compare(a.id, b.id);
  let next = $("plugs").firstElementChild;
  for (const { root } of [...cards.values()].sort(compare)) {
    if (root === next) next = next.nextElementSibling;
    else $("plugs").insertBefore(root, next);
  }
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function filter() {
  const asked = cards.size > FILTER_ABOVE;
  hide($("filter-box"), !asked);
  const words = asked ? $("filter").value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  let shown = 0;
  for (const card of cards.values()) {
    const fits = words.every((word) => card.words.includes(word));
    hide(card.root, !fits);
    shown += fits;
  }
  write($("filter-said"), words.length ? `${shown} of ${cards.size}` : "");
}

function summarize() {
  const online = [...cards.values()].map((card) => card.plug).filter((plug) => plug.availability === "online");
  const outlets = online.flatMap((plug) => plug.outlets);
  const powers = outlets.map((outlet) => outlet.power).filter((power) => power !== null);
  const total = powers.reduce((sum, power) => sum + power, 0);
  write($("power"), powers.length ? `${amount(total)} W` : "–");
  write($("online"), `${online.length} of ${cards.size}`);
  write($("on"), String(outlets.filter((outlet) => outlet.on).length));
  hide($("empty"), cards.size > 0 || !rights.connected);
  if (!bridge) return;
  write($("broker"), bridge.broker.connected ? "Connected" : "Away");
  mark($("broker"), "data-well", String(bridge.broker.connected));
  const sessions = bridge.broker.sessions;
  const uptime = bridge.uptime + (performance.now() - bridge.heard) / 1000;
  write(
    $("bridge"),
    list(`kasa2mqtt ${bridge.version}`, `up ${span(uptime)}`, `${sessions} broker session${sessions === 1 ? "" : "s"}`),
  );
}

// ---- Commands ----

/** Returns what went wrong, or nothing. */
async function set(id, outlet, on) {
  const headers = { "Content-Type": "application/json" };
  if (rights.needsToken) {
    const token = $("token").value;
    if (!token) return refuse("Switching needs the token.");
    headers.Authorization = `Bearer ${token}`;
  }
  const body = JSON.stringify({ id, outlet, state: on ? "ON" : "OFF" });
  try {
    const answer = await fetch("api/set", { method: "POST", headers, body, signal: AbortSignal.timeout(PATIENCE) });
    if (answer.status === 401) return refuse("The token is not the right one.");
    if (answer.status === 403) return "The bridge takes no commands from this page's address.";
    if (!answer.ok) return `The bridge refused (${answer.status}).`;
    if (rights.needsToken) write($("token-said"), "");
    const result = await answer.json();
    return result.ok ? null : result.error.message;
  } catch (error) {
    return error.name === "TimeoutError" ? "The bridge did not answer." : "The bridge cannot be reached.";
  }
}

function refuse(why) {
  write($("token-said"), why);
  $("token").focus();
  return why;
}

/** For screen readers; the eye sees it where it happened. */
function say(text) {
  $("said").textContent = text;
}

// A browser that keeps nothing for this page throws.
function kept(action) {
  try {
    return action(window.sessionStorage);
  } catch {
    return null;
  }
}

$("token").value = kept((storage) => storage.getItem("kasa2mqtt-token")) ?? "";
$("token").addEventListener("input", () => kept((storage) => storage.setItem("kasa2mqtt-token", $("token").value)));
$("token-form").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", later);

// ---- The bridge's events ----

let source = null;
let attempts = 0;
let pause = 0;
let heard = 0;

function connect() {
  clearTimeout(pause);
  source?.close();
  source = new EventSource("api/events");
  const on = (name, action) =>
    source.addEventListener(name, (event) => {
      heard = performance.now();
      action(JSON.parse(event.data));
      later();
    });
  on("state", takeState);
  on("bridge", takeBridge);
  on("plug", (plug) => waiting.set(plug.id, plug));
  on("gone", ({ id }) => waiting.set(id, null));
  source.addEventListener("error", lost);
}

function takeState(state) {
  const present = new Set(state.plugs.map((plug) => plug.id));
  for (const id of cards.keys()) if (!present.has(id)) waiting.set(id, null);
  for (const plug of state.plugs) waiting.set(plug.id, plug);
  takeBridge(state.bridge);
  rights.control = state.may_control;
  rights.needsToken = state.may_control && state.needs_token;
  hide($("token-form"), !rights.needsToken);
  attempts = 0;
  connection(true);
}

function takeBridge(said) {
  bridge = { ...said, heard: performance.now() };
}

/** A browser gives up after an HTTP error, such as a proxy's while the bridge restarts. We do not. */
function lost() {
  source.close();
  if (rights.connected || attempts === 0) {
    write($("connection"), `No connection to the bridge since ${clock()}. Trying again …`);
    connection(false);
  }
  clearTimeout(pause);
  pause = setTimeout(connect, PAUSES[Math.min(attempts, PAUSES.length - 1)]);
  attempts += 1;
}

function connection(connected) {
  if (connected && $("connection").textContent) {
    write($("connection"), "");
    say("The bridge is there again.");
  }
  rights.connected = connected;
  document.documentElement.dataset.connected = String(connected);
  for (const card of cards.values()) for (const outlet of card.outlets.values()) outlet.permit();
}

// A network that vanishes closes nothing: after a silence the bridge is asked, and a lost one is noticed.
setInterval(async () => {
  for (const card of cards.values()) card.age();
  later(); // the time it is up
  if (!rights.connected || document.hidden || performance.now() - heard < SILENCE) return;
  try {
    const answer = await fetch("api/state", { signal: AbortSignal.timeout(PATIENCE) });
    if (answer.ok) takeState(await answer.json());
    else lost();
  } catch {
    lost();
  }
}, SILENCE / 2);

// A browser has few connections for one address, and tabs that nobody looks at would use them up.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return connect();
  source.close();
  clearTimeout(pause);
});
addEventListener("online", connect);
connect();

// The page in a real browser: what it shows, what it does, and for whom it works.
'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { open, until } = require('./browser.js');
const { crowd, household, outlet, plug } = require('./fleet.js');
const { Mock } = require('./mock.js');

/** A page on a server of its own; both end with the test, and the browser must have had nothing to complain of. */
async function visit(t, settings = {}, options = {}) {
  const mock = await new Mock({ plugs: household(), ...settings }).start();
  const page = await open(mock.url, options);
  await page.locator('html[data-connected=true]').waitFor();
  t.after(async () => {
    await page.context().close();
    await mock.stop();
  });
  return { mock, page };
}

const card = (page, name) => page.getByRole('article', { name, exact: true });
const toggle = (page, name) => page.getByRole('switch', { name, exact: true });
const shows = (locator, text) => until(`"${text}"`, async () => (await locator.innerText()).includes(text));
const checked = (locator, value) => until(`checked ${value}`, async () => (await locator.getAttribute('aria-checked')) === String(value));
const changed = (mock, name, change) => {
  const next = structuredClone([...mock.plugs.values()].find(({ alias }) => alias === name));
  change(next);
  mock.change(next);
};

test('every plug and outlet is shown with what is known of it', async (t) => {
  const { page } = await visit(t);
  const titles = await page.getByRole('heading', { level: 3 }).allInnerTexts();
  assert.deepStrictEqual(titles, ['Desk lamp', 'Freezer', 'Garden pump', 'Hall light', 'Living room', 'Washing machine']);
  await shows(card(page, 'Freezer'), '192.168.1.21 · klap v2 · \u221261 dBm');
  await shows(card(page, 'Freezer'), 'On · 0.41 kWh today');
  await shows(card(page, 'Hall light'), 'Off');
  await shows(card(page, 'Garden pump'), 'Offline · KP401(US)');
  await shows(card(page, 'Garden pump'), 'No answer for 4 minutes: timed out');
  await shows(card(page, 'Garden pump'), '7 errors');
  await card(page, 'Garden pump').locator('summary').click();
  await shows(card(page, 'Garden pump'), 'no answer within 3 s');
  await shows(card(page, 'Garden pump'), '50:c7:bf:01:00:18');
  const outlets = await card(page, 'Living room').getByRole('heading', { level: 4 }).allInnerTexts();
  assert.deepStrictEqual(outlets, ['Television', 'Amplifier', 'Console', 'Router']);
  const powers = household().filter(({ availability }) => availability === 'online')
    .flatMap(({ outlets }) => outlets).map(({ power }) => power ?? 0);
  const total = Math.round(powers.reduce((sum, power) => sum + power, 0));
  assert.strictEqual(await page.locator('#power').innerText(), `${total} W`);
  assert.strictEqual(await page.locator('#online').innerText(), '5 of 6');
  assert.strictEqual(await page.locator('#broker').innerText(), 'Connected');
  assert.strictEqual(await page.locator('#bridge').innerText(), 'kasa2mqtt 0.1.0 · up 3 d 4 h · 1 broker session');
  assert.deepStrictEqual(page.complaints, []);
});

test('the curve has a point for each minute and gaps where nothing is known', async (t) => {
  const history = [5, 10, null, null, 20, 10];
  const { page } = await visit(t, { plugs: [plug(1, 'Kettle', { outlets: [outlet(0, 'Kettle', { on: true, power: 15, history })] })] });
  const path = (part) => card(page, 'Kettle').locator(`[data-part=${part}]`).getAttribute('d');
  await shows(card(page, 'Kettle'), 'peak 20.0 W');
  assert.strictEqual(await path('line'), 'M54 14.50L54 14.50L55 10.00M58 1.00L58 1.00L59 10.00L60 5.50');
  assert.strictEqual(await path('now'), 'M60 5.50h0');
  await page.getByRole('img', { name: 'Power in the last hour: 5.0 to 20.0 W' }).waitFor();
  assert.deepStrictEqual(page.complaints, []);
});

test('the hour moves on where nothing changes', async (t) => {
  const history = [30, 30, 30];
  const still = plug(1, 'Still', { outlets: [outlet(0, 'Still', { on: true, power: 20, history })] });
  const { mock, page } = await visit(t, { plugs: [still, plug(2, 'Busy')] }, { clock: true });
  const line = () => card(page, 'Still').locator('[data-part=line]').getAttribute('d');
  assert.strictEqual((await line()).split('L')[1], '57 1.00');
  for (let half = 0; half < 5; half += 1) {
    // Somebody has news, so the bridge is not asked for everything.
    changed(mock, 'Busy', (plug) => (plug.rssi = half));
    await shows(card(page, 'Busy'), `${half} dBm`);
    await page.clock.fastForward(30_000);
  }
  await until('two minutes more', async () => (await line()).split('L')[1] === '55 1.00');
  assert.ok((await line()).endsWith('L58 7.00L59 7.00L60 7.00'), await line());
  assert.deepStrictEqual(page.complaints, []);
});

test('a connection that is silent is tried', async (t) => {
  const { mock, page } = await visit(t, {}, { clock: true });
  const serve = mock.serve;
  let asked = 0;
  mock.serve = (request, response) => {
    if (request.url === '/api/state') asked += 1;
    serve.call(mock, request, response);
  };
  await page.clock.fastForward(59_000);
  await page.clock.fastForward(31_000);
  await until('the question', async () => asked === 1);
  assert.strictEqual(await page.locator('#connection').isVisible(), false);
  mock.serve = (request, response) => response.writeHead(502).end();
  await page.clock.fastForward(91_000);
  await shows(page.locator('#connection'), 'No connection');
});

test('what changes is shown at once, and nothing else is touched', async (t) => {
  const { mock, page } = await visit(t);
  await page.evaluate(() => {
    window.touched = new Set();
    new MutationObserver((changes) => {
      for (const { target } of changes) {
        const element = target.nodeType === 1 ? target : target.parentElement;
        const card = element?.closest('.plug')?.querySelector('h3').textContent;
        window.touched.add(card ? `${card}: ${element.dataset.part ?? element.className}` : 'summary');
      }
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  changed(mock, 'Freezer', (freezer) => Object.assign(freezer.outlets[0], { power: 1500, on: true }));
  await shows(card(page, 'Freezer'), '1\u202f500');
  const parts = ['area', 'curve', 'line', 'now', 'number', 'peak'].map((part) => `Freezer: ${part}`);
  assert.deepStrictEqual(await page.evaluate(() => [...window.touched].sort()), [...parts, 'summary']);
  changed(mock, 'Freezer', (freezer) => Object.assign(freezer, { availability: 'offline', reason: 'timed out' }));
  await shows(card(page, 'Freezer'), 'Offline');
  await shows(page.locator('#online'), '4 of 6');
  mock.change(plug(99, 'Attic fan'));
  await until('the new plug to be first', async () => (await page.getByRole('heading', { level: 3 }).first().innerText()) === 'Attic fan');
  mock.remove(plug(99, '').id);
  await card(page, 'Attic fan').waitFor({ state: 'detached' });
  mock.broker = { connected: false, sessions: 4 };
  mock.say('bridge', mock.bridge);
  await shows(page.locator('#broker'), 'Away');
  await shows(page.locator('#bridge'), '4 broker sessions');
  assert.deepStrictEqual(page.complaints, []);
});

test('a toggle shows what the plug confirmed, never what was asked', async (t) => {
  const { mock, page } = await visit(t);
  const television = toggle(page, 'Living room Television');
  await checked(television, true);
  await television.click();
  await checked(television, false);
  assert.deepStrictEqual(mock.commands, [{ id: plug(31, '').id, outlet: 1, state: 'OFF' }]);
  await shows(page.locator('#on'), '6');

  let answer;
  mock.answer = () => new Promise((resolve) => (answer = resolve));
  const lamp = toggle(page, 'Desk lamp');
  await lamp.click();
  await until('the command', async () => answer);
  assert.strictEqual(await lamp.getAttribute('aria-busy'), 'true');
  assert.strictEqual(await lamp.getAttribute('aria-checked'), 'true');
  await lamp.click();
  answer({ ok: false, error: { code: 'timeout', message: 'the plug did not answer within 3 s' } });
  await shows(card(page, 'Desk lamp'), 'The plug did not answer within 3 s');
  await shows(page.locator('#said'), 'Desk lamp: the plug did not answer within 3 s');
  assert.strictEqual(await lamp.getAttribute('aria-checked'), 'true');
  assert.strictEqual(await lamp.getAttribute('aria-busy'), 'false');
  assert.strictEqual(mock.commands.length, 2, 'an impatient second click is no second command');
  changed(mock, 'Desk lamp', (plug) => (plug.outlets[0].on = false));
  await checked(lamp, false);
  assert.ok(!(await card(page, 'Desk lamp').innerText()).includes('did not answer'), 'what is over is not shown');

  const pump = toggle(page, 'Garden pump');
  assert.strictEqual(await pump.getAttribute('aria-disabled'), 'true');
  await pump.click({ force: true });
  assert.strictEqual(mock.commands.length, 2, 'a plug that is away is not switched');
  assert.deepStrictEqual(page.complaints, []);
});

test('no switches where the page may not control', async (t) => {
  const { page } = await visit(t, { control: false, token: 'unused' });
  await shows(card(page, 'Freezer'), 'On');
  assert.strictEqual(await page.getByRole('switch').count(), 0);
  assert.strictEqual(await page.getByLabel('Token').isVisible(), false);
});

test('a token is asked for, sent, refused in words, and kept for the session only', async (t) => {
  const { mock, page } = await visit(t, { token: 'correct horse' });
  const token = page.getByLabel('Token');
  await toggle(page, 'Hall light').click();
  await shows(page.locator('#token-said'), 'Switching needs the token.');
  assert.ok(await token.evaluate((field) => field === document.activeElement));
  await token.fill('battery');
  await toggle(page, 'Hall light').click();
  await shows(page.locator('#token-said'), 'not the right one');
  assert.deepStrictEqual(mock.commands, []);
  await token.fill('correct horse');
  await page.reload();
  assert.strictEqual(await token.inputValue(), 'correct horse');
  await toggle(page, 'Hall light').click();
  await checked(toggle(page, 'Hall light'), true);
  const kept = await page.evaluate(() => [localStorage.length, document.cookie]);
  assert.deepStrictEqual(kept, [0, '']);
});

test('names are text, whatever they say', async (t) => {
  const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script><b>bold</b>';
  const names = [markup, '\u202eesrever', 'a'.repeat(300), '', '☃ \u0000 &lt;&#x27; "quoted"', "'; alert(1) //"];
  const plugs = names.map((name, index) =>
    plug(index + 1, name, { model: markup, reason: markup, last_error: markup, availability: index ? 'online' : 'offline',
      outlets: [outlet(1, name), outlet(2, markup)] }));
  const { page } = await visit(t, { plugs }, { viewport: { width: 360, height: 740 } });
  await page.getByRole('heading', { level: 3, name: markup, exact: true }).waitFor();
  const titles = await page.locator('h3').evaluateAll((all) => all.map((title) => title.textContent));
  for (const name of names.filter(Boolean)) assert.ok(titles.includes(name), name);
  assert.ok(titles.includes('plug-4'), 'a plug without an alias has its topic name');
  assert.strictEqual(await page.locator('main img, main b, main script').count(), 0);
  assert.strictEqual(await page.title(), 'kasa2mqtt');
  await assertNoSidewaysScroll(page);
  assert.deepStrictEqual(page.complaints, []);
});

test('the keyboard alone will do, and live changes leave the focus where it is', async (t) => {
  const { mock, page } = await visit(t);
  const lamp = toggle(page, 'Desk lamp');
  await page.keyboard.press('Tab');
  assert.ok(await lamp.evaluate((node) => node === document.activeElement), 'the first stop is the first switch');
  const outline = await lamp.evaluate((node) => {
    const style = getComputedStyle(node, '::before');
    return [style.outlineStyle, parseFloat(style.outlineWidth)];
  });
  assert.deepStrictEqual(outline, ['solid', 2]);
  await page.keyboard.press('Space');
  await checked(lamp, false);
  await page.keyboard.press('Enter');
  await checked(lamp, true);
  changed(mock, 'Desk lamp', (plug) => Object.assign(plug, { availability: 'offline', reason: 'timed out' }));
  await shows(card(page, 'Desk lamp'), 'Offline');
  changed(mock, 'Desk lamp', (plug) => Object.assign(plug, { availability: 'online', alias: 'Zebra lamp' }));
  await until('the card to move', async () => (await page.getByRole('heading', { level: 3 }).last().innerText()) === 'Zebra lamp');
  assert.ok(await toggle(page, 'Zebra lamp').evaluate((node) => node === document.activeElement), 'the focus stayed');
  for (const [before, name, place] of [['Zebra lamp', 'A lamp', 0], ['A lamp', 'Zebra lamp', 5]]) {
    changed(mock, before, (plug) => (plug.alias = name));
    await until('the card to move', async () => (await page.getByRole('heading', { level: 3 }).nth(place).innerText()) === name);
    assert.ok(await toggle(page, name).evaluate((node) => node === document.activeElement), 'the focus went along');
  }
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.ok(await card(page, 'Zebra lamp').locator('details').evaluate((details) => details.open));
  assert.deepStrictEqual(page.complaints, []);
});

test('a screen reader finds its way', async (t) => {
  const { page } = await visit(t, { plugs: crowd(20) });
  for (const role of ['banner', 'main', 'contentinfo', 'search']) assert.strictEqual(await page.getByRole(role).count(), 1, role);
  await page.getByRole('heading', { level: 1, name: 'kasa2mqtt' }).waitFor();
  await page.getByRole('heading', { level: 2, name: 'Plugs' }).waitFor();
  assert.strictEqual(await page.getByRole('listitem').count(), 20);
  assert.strictEqual(await page.getByRole('switch', { checked: true }).count(), 20);
  const tree = await page.locator('#plugs li').first().ariaSnapshot();
  for (const expected of ['article "Plug 1"', 'heading "Plug 1" [level=3]', 'switch "Plug 1" [checked]', 'img "Power in the last hour: ']) {
    assert.ok(tree.includes(expected), `${expected} is not in\n${tree}`);
  }
  const names = await page.locator('button, input').evaluateAll((all) =>
    all.filter((node) => node.checkVisibility()).map((node) => node.getAttribute('aria-label') ?? node.getAttribute('aria-labelledby')));
  assert.ok(names.length > 20 && names.every(Boolean));
  assert.deepStrictEqual(page.complaints, []);
});

test('it says that the bridge is away, and goes on by itself when it is back', async (t) => {
  const { mock, page } = await visit(t);
  const notice = page.locator('#connection');
  assert.strictEqual(await notice.getAttribute('role'), 'status');
  assert.strictEqual(await notice.isVisible(), false);
  await mock.stop();
  await shows(notice, 'No connection to the bridge since');
  assert.strictEqual(await toggle(page, 'Freezer').getAttribute('aria-disabled'), 'true');
  mock.plugs.delete(plug(20, '').id);
  const freezer = mock.plugs.get(plug(21, '').id);
  freezer.alias = 'Chest freezer';
  await mock.start();
  await toggle(page, 'Chest freezer').waitFor();
  await notice.waitFor({ state: 'hidden' });
  await shows(page.locator('#said'), 'The bridge is there again.');
  assert.strictEqual(await card(page, 'Desk lamp').count(), 0, 'a plug that was forgotten meanwhile is gone');
  assert.strictEqual(await toggle(page, 'Chest freezer').getAttribute('aria-disabled'), 'false');
  changed(mock, 'Chest freezer', (plug) => (plug.outlets[0].on = false));
  await checked(toggle(page, 'Chest freezer'), false);
});

test('a proxy that answers 502 while the bridge restarts is outlasted', async (t) => {
  const { mock, page } = await visit(t);
  const serve = mock.serve;
  let refused = 0;
  mock.serve = (request, response) => {
    refused += 1;
    response.writeHead(502).end();
  };
  for (const listener of mock.listeners) listener.end();
  await until('two attempts', async () => refused >= 2);
  await shows(page.locator('#connection'), 'No connection');
  mock.serve = serve;
  await page.locator('html[data-connected=true]').waitFor();
});

test('it works below the path of an ingress', async (t) => {
  const { mock, page } = await visit(t, { below: '/api/hassio_ingress/abc/' });
  await toggle(page, 'Hall light').click();
  await checked(toggle(page, 'Hall light'), true);
  assert.strictEqual(mock.commands.length, 1);
  assert.deepStrictEqual(page.complaints, []);
});

test('many plugs can be filtered, few need it not', async (t) => {
  const { mock, page } = await visit(t, { plugs: [...crowd(12), plug(600, 'Odd one', { availability: 'offline', reason: 'timed out' })] });
  const field = page.getByRole('searchbox', { name: 'Filter plugs' });
  await field.fill('OFFLINE odd');
  await shows(page.locator('#filter-said'), '1 of 13');
  assert.deepStrictEqual(await page.getByRole('article').locator('h3').allInnerTexts(), ['Odd one']);
  changed(mock, 'Odd one', (plug) => (plug.availability = 'online'));
  await shows(page.locator('#filter-said'), '0 of 13');
  await field.fill('');
  await until('all of them', async () => (await page.getByRole('article').count()) === 13);
  mock.remove(plug(600, '').id);
  await field.waitFor({ state: 'hidden' });
});

test('a plug that was never heard of is shown as far as it is known', async (t) => {
  const unheard = { id: '192.168.1.77:9999', name: null, alias: null, model: null, address: '192.168.1.77:9999', protocol: null,
    rssi: null, availability: 'unknown', reason: 'connection refused', last_error: 'connection refused', errors: 1, outlets: [] };
  const { mock, page } = await visit(t, { plugs: [unheard] });
  await shows(card(page, '192.168.1.77:9999'), 'Unknown');
  await shows(card(page, '192.168.1.77:9999'), 'connection refused');
  await card(page, '192.168.1.77:9999').locator('summary').click();
  assert.strictEqual(await page.locator('[data-part=mac]').innerText(), '–');
  mock.remove(unheard.id);
  mock.change(plug(77, 'Kettle'));
  await toggle(page, 'Kettle').waitFor();
  assert.strictEqual(await page.getByRole('article').count(), 1);
  assert.deepStrictEqual(page.complaints, []);
});

test('without plugs it says so', async (t) => {
  const { mock, page } = await visit(t, { plugs: [] });
  await page.getByText('No plugs yet.').waitFor();
  mock.change(plug(1, 'First'));
  await page.getByText('No plugs yet.').waitFor({ state: 'hidden' });
  assert.strictEqual(await page.locator('#power').innerText(), '–');
});

for (const width of [320, 375, 414, 768, 1280]) {
  test(`nothing hangs over the edge at ${width} px`, async (t) => {
    const { page } = await visit(t, { token: 'x', plugs: [...household(), ...crowd(10)] }, { viewport: { width, height: 800 } });
    await page.locator('summary').first().click();
    await assertNoSidewaysScroll(page);
    const box = await toggle(page, 'Desk lamp').boundingBox();
    assert.ok(box.width >= 44 && box.height >= 44, `a finger needs 44 px: ${box.width} x ${box.height}`);
  });
}

for (const colorScheme of ['light', 'dark']) {
  test(`text stands out from its ground, ${colorScheme}`, async (t) => {
    const { mock, page } = await visit(t, { token: 'x', plugs: [...household(), ...crowd(10)] }, { colorScheme });
    await page.locator('summary').first().click();
    const connected = await page.evaluate(contrasts);
    assert.ok(connected.length > 60, `${connected.length} texts`);
    await mock.stop();
    await shows(page.locator('#connection'), 'No connection');
    for (const { text, ratio } of [...connected, ...(await page.evaluate(contrasts))]) {
      assert.ok(ratio >= 4.5, `"${text}" has a contrast of ${ratio.toFixed(2)}`);
    }
    const [ground] = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/));
    assert.ok(colorScheme === 'dark' ? ground < 60 : ground > 200, `the ground is ${ground}`);
  });
}

test('whoever wants no motion gets none', async (t) => {
  const duration = (page) => toggle(page, 'Freezer').evaluate((node) => getComputedStyle(node, '::after').transitionDuration);
  assert.strictEqual(await duration((await visit(t, {}, { reducedMotion: 'reduce' })).page), '0s');
  assert.notStrictEqual(await duration((await visit(t)).page), '0s');
});

async function assertNoSidewaysScroll(page) {
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= seen, `${wide} px on a screen of ${seen}`);
}

/** The contrast of each visible text with the nearest opaque ground, as WCAG 2 reckons it. Runs in the page. */
function contrasts() {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => {
    const linear = (part) => (part <= 0.04045 * 255 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const ground = (node) => {
    const color = channels(getComputedStyle(node).backgroundColor);
    return color.length < 4 || color[3] === 1 || !node.parentElement ? color : ground(node.parentElement);
  };
  const texts = [...document.querySelectorAll('body *')].filter(
    (node) => node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return texts.map((node) => {
    const [light, dark] = [luminance(channels(getComputedStyle(node).color)), luminance(ground(node))].sort((a, b) => b - a);
    return { text: node.textContent, ratio: (light + 0.05) / (dark + 0.05) };
  });
}

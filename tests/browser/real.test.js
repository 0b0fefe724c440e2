// The page of the program itself, at KASA2MQTT_PAGE: its plugs are simulated ones, whose buttons the caller presses when
// this asks for it.
'use strict';
const assert = require('node:assert');
const { mkdirSync } = require('node:fs');
const { join } = require('node:path');
const { test } = require('node:test');
const { open, until } = require('./browser.js');

const FOLDER = join(__dirname, '../../target/screenshots');

test('the program shows its plugs, follows their buttons, and switches them', async (t) => {
  mkdirSync(FOLDER, { recursive: true });
  const page = await open(process.env.KASA2MQTT_PAGE);
  t.after(() => page.context().close());
  const toggle = (name) => page.getByRole('switch', { name, exact: true });
  const article = (name) => page.getByRole('article', { name, exact: true });
  const shows = (name, text) => until(`${name}: ${text}`, async () => (await article(name).innerText()).includes(text));
  const checked = (name, value) =>
    until(`${name} is ${value}`, async () => (await toggle(name).getAttribute('aria-checked')) === String(value));
  const lamp = toggle('Plug 0');
  await lamp.waitFor();
  await shows('Plug 0', 'Online · HS110');
  await shows('Plug 0', 'xor');
  await checked('Plug 0', false);
  await until('the broker', async () => (await page.locator('#broker').innerText()) === 'Connected');
  await until('all plugs', async () => (await page.locator('#online').innerText()) === '3 of 4');
  assert.strictEqual(await article('Plug 1').getByRole('switch').count(), 6);
  // Whatever a plug is called, it is called so.
  const hostile = '<img src=x onerror=document.title="x">';
  await shows(hostile, 'Online');
  assert.strictEqual(await page.locator('#plugs img').count(), 0);
  assert.strictEqual(await page.title(), 'kasa2mqtt');
  // The one that nobody has ever heard of.
  const silent = page.locator('[data-availability=offline], [data-availability=unknown]');
  await until('a reason', async () => /clos|connect|refuse/i.test(await silent.locator('article > header [data-part=reason]').innerText()));

  console.log('PRESS THE BUTTON');
  await checked('Plug 0', true);
  await shows('Plug 0', 'On');
  await until('power', async () => /\d W/.test(await page.locator('#power').innerText()));

  // The keyboard alone will do: from the one switch to the next.
  await lamp.focus();
  await page.keyboard.press('Space');
  await checked('Plug 0', false);
  assert.ok(await lamp.evaluate((node) => node === document.activeElement));
  const outlet = article('Plug 1').getByRole('switch').nth(2);
  await outlet.focus();
  await page.keyboard.press('Enter');
  await until('the third outlet', async () => (await outlet.getAttribute('aria-checked')) === 'true');
  assert.strictEqual(await article('Plug 1').locator('[role=switch][aria-checked=true]').count(), 1);
  for (const node of await page.getByRole('switch').all()) {
    const name = await node.evaluate((it) => it.getAttribute('aria-labelledby').split(' ').map((id) => document.getElementById(id).textContent).join(' '));
    assert.ok(name.trim(), 'a switch without a name');
  }
  for (const role of ['banner', 'main', 'contentinfo']) assert.strictEqual(await page.getByRole(role).count(), 1, role);

  for (const [name, size] of [['real-desk', [1180, 900]], ['real-phone', [390, 844]]]) {
    await page.setViewportSize({ width: size[0], height: size[1] });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is too wide`);
    await page.screenshot({ path: join(FOLDER, `${name}.png`), fullPage: true });
  }
  assert.deepStrictEqual(page.complaints, []);
});

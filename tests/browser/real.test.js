// The page of the program itself, at KASA2MQTT_PAGE: its plug is a simulated one, whose button the caller presses when
// this asks for it.
'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { open, until } = require('./browser.js');

test('the program shows a plug, follows its button, and switches it', async (t) => {
  const page = await open(process.env.KASA2MQTT_PAGE);
  t.after(() => page.context().close());
  const lamp = page.getByRole('switch', { name: 'Plug 0', exact: true });
  const card = page.getByRole('article', { name: 'Plug 0', exact: true });
  const shows = (text) => until(text, async () => (await card.innerText()).includes(text));
  const checked = (value) => until(`checked ${value}`, async () => (await lamp.getAttribute('aria-checked')) === value);
  await lamp.waitFor();
  await shows('Online · HS110');
  await shows('xor');
  await checked('false');
  await until('the broker', async () => (await page.locator('#broker').innerText()) === 'Connected');
  assert.strictEqual(await page.locator('#online').innerText(), '2 of 2');
  assert.strictEqual(await page.getByRole('article', { name: 'Plug 1', exact: true }).getByRole('switch').count(), 6);

  console.log('PRESS THE BUTTON');
  await checked('true');
  await shows('On');
  await until('power', async () => /\d W/.test(await page.locator('#power').innerText()));

  await lamp.focus();
  await page.keyboard.press('Space');
  await checked('false');
  assert.ok(await lamp.evaluate((node) => node === document.activeElement));
  assert.deepStrictEqual(page.complaints, []);
});

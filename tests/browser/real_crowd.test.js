// The page of the program itself, at KASA2MQTT_PAGE, with five hundred plugs that are polled all the time.
'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { open, smoothness, until } = require('./browser.js');

const PLUGS = 500;
const SECONDS = 8;

test(`${PLUGS} plugs of the program leave the page smooth`, async (t) => {
  const page = await open(process.env.KASA2MQTT_PAGE);
  t.after(() => page.context().close());
  await until('all plugs', async () => (await page.locator('#online').innerText()) === `${PLUGS} of ${PLUGS}`);
  await page.evaluate(() => {
    window.touched = new Set();
    const note = (records) => records.forEach(({ target }) => window.touched.add(target.parentElement?.closest('.plug')));
    new MutationObserver(note).observe(document.getElementById('plugs'), { subtree: true, characterData: true, childList: true });
  });
  const figures = await smoothness(page, SECONDS);
  figures.changed = await page.evaluate(() => window.touched.size);
  console.log(`500 plugs of the program: ${JSON.stringify(figures)} (ms)`);
  assert.ok(figures.changed > PLUGS / 2, 'nothing changed meanwhile');
  // A pause of 200 ms is what a hand notices; a test shares its machine with others.
  assert.ok(figures.median <= 50, 'the page stutters');
  assert.ok(figures.p95 <= 200, 'the page stops again and again');

  const first = page.getByRole('switch').first();
  const before = await first.getAttribute('aria-checked');
  await first.click();
  await until('the switch', async () => (await first.getAttribute('aria-checked')) !== before);
  assert.deepStrictEqual(page.complaints, []);
});

// Pictures of the page, to be looked at: in target/screenshots, and with KASA2MQTT_PICTURE the one of the README.
'use strict';
const assert = require('node:assert');
const { mkdirSync, statSync } = require('node:fs');
const { join } = require('node:path');
const { test } = require('node:test');
const { open } = require('./browser.js');
const { household } = require('./fleet.js');
const { Mock } = require('./mock.js');

const ROOT = join(__dirname, '../..');
const FOLDER = join(ROOT, 'target/screenshots');
const LIMIT = 150_000; // bytes of a picture in the repository

test('pictures of a household', async (t) => {
  mkdirSync(FOLDER, { recursive: true });
  const mock = await new Mock({ plugs: household() }).start();
  t.after(() => mock.stop());
  const desk = { viewport: { width: 1180, height: 900 } };
  const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  for (const [name, options] of [['desk-light', desk], ['desk-dark', { ...desk, colorScheme: 'dark' }],
    ['phone-light', phone], ['phone-dark', { ...phone, colorScheme: 'dark' }]]) {
    const page = await open(mock.url, options);
    await page.getByRole('switch').first().waitFor();
    // A card that nobody has seen is not drawn: everything is in view at once.
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ ...options.viewport, height });
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    const path = join(FOLDER, `${name}.png`);
    await page.screenshot({ path, fullPage: true });
    assert.ok(statSync(path).size > 10_000, `${name} is empty`);
    if (name === 'desk-light' && process.env.KASA2MQTT_PICTURE) {
      await page.screenshot({ path: join(ROOT, 'docs/status-page.png'), fullPage: true });
    }
    await page.context().close();
  }
  assert.ok(statSync(join(ROOT, 'docs/status-page.png')).size < LIMIT, 'the README loads slowly');
});

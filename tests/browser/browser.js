// Debian's chromium, driven by playwright-core; it reaches nothing but loopback.
'use strict';
const { after } = require('node:test');
const { chromium } = require('playwright-core');

const DEADLINE = 20_000;
let browser = null;

/** A page of its own at `url`. It fails the test that opened it when the console has an error, CSP's included. */
async function open(url, options = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-background-networking', '--proxy-server=direct://',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') page.complaints.push(message.text());
  });
  await page.goto(url);
  return page;
}

after(async () => browser?.close());

module.exports = { DEADLINE, open };

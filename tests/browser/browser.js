// Debian's chromium, driven by playwright-core; it reaches nothing but loopback.
'use strict';
const { after } = require('node:test');
const { chromium } = require('playwright-core');

const DEADLINE = 20_000;
let browser = null;

/** A page of its own at `url`; `complaints` are what the browser had to say against it, broken policies included. */
async function open(url, { clock = false, ...options } = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-background-networking', '--proxy-server=direct://',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  // A clock that tests can put forward.
  if (clock) await page.clock.install();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') page.complaints.push(message.text());
  });
  await page.goto(url);
  return page;
}

/** Waits until `holds` does; a test that waits for so long has failed. */
async function until(what, holds) {
  const deadline = Date.now() + DEADLINE;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

after(async () => browser?.close());

module.exports = { open, until };

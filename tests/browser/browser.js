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

/** How smooth the page is for so many seconds, in ms between frames. */
async function smoothness(page, seconds) {
  await page.evaluate(() => {
    window.intervals = [];
    window.tasks = [];
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: 'longtask' });
    let before = performance.now();
    const next = (now) => {
      window.intervals.push(now - before);
      before = now;
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const { frames, tasks } = await page.evaluate(() => ({ frames: window.intervals.slice(2).sort((a, b) => a - b), tasks: window.tasks }));
  const share = (part) => Math.round(frames[Math.floor((frames.length - 1) * part)]);
  return { frames: frames.length, median: share(0.5), p95: share(0.95), p99: share(0.99), worst: share(1),
    longTasks: tasks.length, longest: Math.round(Math.max(0, ...tasks)) };
}

after(async () => browser?.close());

module.exports = { open, smoothness, until };

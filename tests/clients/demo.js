// The checkboxes in two pages of Chromium, with redis-cli: node demo.js PORT CHROMIUM FOLDER. It
// prints `kill` for a restart of the server, and waits for a line. The folder gets a screenshot.
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const readline = require("node:readline");
const { execFileSync } = require("node:child_process");
const { chromium } = require("playwright-core");

const [port, executablePath, folder] = process.argv.slice(2);
const home = `http://127.0.0.1:${port}/`;
const axe = fs.readFileSync(require.resolve("axe-core"), "utf8");
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const publish = (index, checked) => execFileSync("redis-cli",
  ["-p", port, "publish", "checkboxes", JSON.stringify({ index, checked })]);
const rows = Array.from({ length: 2000 }, (_, at) => 1000 + at);
const box = (page, index) => page.locator(`[data-index="${index}"]`);
const checked = (page) =>
  page.$$eval(":checked", (all) => all.map((one) => Number(one.dataset.index)));

// Waits until a page shows exactly these checkboxes as checked.
const shows = async (page, expected) => {
  const text = expected.length.toLocaleString("en");
  await page.waitForFunction((text) => document.getElementById("count").textContent === text, text);
  assert.deepEqual(await checked(page), expected);
};

const open = async (context) => {
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  await page.goto(home);
  await page.getByText("Connected.").waitFor();
  return page;
};

// Returns the longest time between two frames of a page while 2,000 checkboxes change in a second.
const longestFrame = async (page) => {
  await page.bringToFront();
  await page.evaluate(() => {
    window.times = [];
    const note = (time) => { window.times.push(time); requestAnimationFrame(note); };
    requestAnimationFrame(note);
  });
  const redis = net.connect(port, "127.0.0.1");
  for (let round = 0; round < 40; round++) {
    for (let step = 0; step < 50; step++) {
      const message = JSON.stringify({ index: 1000 + 50 * round + step, checked: true });
      const head = "*3\r\n$7\r\nPUBLISH\r\n$10\r\ncheckboxes\r\n";
      redis.write(`${head}$${message.length}\r\n${message}\r\n`);
    }
    await page.waitForTimeout(25);
  }
  redis.destroy();
  const times = await page.evaluate(() => window.times);
  return Math.round(Math.max(...times.slice(1).map((time, at) => time - times[at])));
};

const main = async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  // Pages in windows of their own: a browser draws no others.
  const window = () => browser.newContext({ viewport: { width: 1280, height: 720 } });
  const [one, two] = [await open(await window()), await open(await window())];
  assert.equal(await one.locator("input").count(), 10000);

  // A click shows in the other page, a publish by Redis in both.
  await box(one, 3).click();
  await shows(two, [3]);
  await box(two, 9999).click();
  publish(5, true);
  for (const page of [one, two]) await shows(page, [3, 5, 9999]);
  publish(3, false);
  publish(10000, true);
  for (const page of [one, two]) await shows(page, [5, 9999]);

  // A newcomer sees the state. A change while a page is offline shows when it is back.
  await shows(await open(await window()), [5, 9999]);
  await one.evaluate(() => socket.io.engine.close());
  publish(7, true);
  await shows(one, [5, 7, 9999]);

  // The page is usable by keyboard and with a reader of screens.
  await box(one, 0).focus();
  await one.keyboard.press("Space");
  await shows(two, [0, 5, 7, 9999]);
  await one.evaluate(axe);
  const { violations } = await one.evaluate(() => axe.run("header"));
  assert.deepEqual(violations.map(({ id }) => id), []);
  await one.screenshot({ path: path.join(folder, "demo.png") });

  console.log(await longestFrame(one));
  for (const page of [one, two]) await shows(page, [0, 5, 7, ...rows, 9999]);

  // After a restart, the server has forgotten. The pages show what it has.
  console.log("kill");
  await input.next();
  for (const page of [one, two]) {
    await page.getByText("Connected.").waitFor();
    await shows(page, []);
  }
  await box(one, 8).click();
  await shows(two, [8]);
  // A lost server is no mistake of the page.
  const lost = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|WebSocket|ERR_EMPTY_RESPONSE/;
  for (const page of [one, two]) {
    assert.deepEqual(page.complaints.filter((text) => !lost.test(text)), []);
  }
  await browser.close();
  console.log("done");
  process.exit();
};

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

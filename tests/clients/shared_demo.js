// The checkboxes of two servers with one broker, in two windows of Chromium and with redis-cli at
// the broker: node shared_demo.js PORT PORT BROKER_PORT CHROMIUM FOLDER. It prints what shall be
// ended or started, and waits for a line. The folder gets a screenshot.
"use strict";
const assert = require("node:assert");
const path = require("node:path");
const readline = require("node:readline");
const { execFileSync, spawn } = require("node:child_process");
const { chromium } = require("playwright-core");

const [first, second, broker, executablePath, folder] = process.argv.slice(2);
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const ask = async (line) => {
  console.log(line);
  await input.next();
};
const publish = (index, checked) => execFileSync("redis-cli",
  ["-p", broker, "publish", "checkboxes", JSON.stringify({ index, checked })]);
const box = (page, index) => page.locator(`[data-index="${index}"]`);
const checked = (page) =>
  page.$$eval(":checked", (all) => all.map((one) => Number(one.dataset.index)));

// Waits until pages show exactly these checkboxes as checked.
const show = async (pages, expected) => {
  for (const page of pages) {
    await page.waitForFunction((expected) => {
      const all = [...document.querySelectorAll(":checked")].map((one) => one.dataset.index);
      return all.join() === expected;
    }, expected.join()).catch(async () => assert.deepEqual(await checked(page), expected));
  }
};

// A redis-cli that is subscribed at the broker, with the messages that it has got.
const listener = async () => {
  const child = spawn("redis-cli", ["-p", broker, "subscribe", "checkboxes"]);
  const lines = [];
  readline.createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
  const wait = async (text) => {
    for (let turn = 0; !lines.some((line) => line.includes(text)); turn++) {
      assert(turn < 500, `${text} is not among ${lines}`);
      await new Promise((resume) => setTimeout(resume, 20));
    }
  };
  await wait("checkboxes");
  return { wait, end: () => child.kill() };
};

const open = async (browser, port) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 } });
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  await page.goto(`http://127.0.0.1:${port}/`);
  await page.getByText("Connected.").waitFor();
  return page;
};

const main = async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const [one, two] = [await open(browser, first), await open(browser, second)];
  const both = [one, two];
  let cli = await listener();
  await box(one, 3).click();
  await show(both, [3]);
  await cli.wait('"index":3');
  publish(5, true);
  await show(both, [3, 5]);

  // The broker is away: each server goes on alone. Then they meet, though it has forgotten all.
  await ask("end the broker");
  await box(one, 7).click();
  await box(two, 9).click();
  await box(two, 3).click();
  await show([one], [3, 5, 7]);
  await show([two], [5, 9]);
  await ask("start the broker");
  await show(both, [5, 7, 9]);
  cli.end();
  cli = await listener();
  await box(two, 11).click();
  await show(both, [5, 7, 9, 11]);
  await cli.wait('"index":11');
  publish(5, false);
  await show(both, [7, 9, 11]);

  // Either server starts anew while values change.
  let expected = [7, 9, 11];
  for (const [page, other, name, index] of [[one, two, "first", 20], [two, one, "second", 30]]) {
    await ask(`end the ${name}`);
    await box(other, index).click();
    publish(index + 1, true);
    await ask(`start the ${name}`);
    expected = [...expected, index, index + 1];
    await page.getByText("Connected.").waitFor();
    await show(both, expected);
    await box(page, index + 2).click();
    expected.push(index + 2);
    await show(both, expected);
    await cli.wait(`"index":${index + 2}`);
  }
  const newcomer = await open(browser, second);
  await show([newcomer], expected);
  await one.screenshot({ path: path.join(folder, "shared-demo.png") });
  for (const page of [...both, newcomer]) assert.deepEqual(page.complaints, []);
  cli.end();
  await browser.close();
  console.log("done");
  process.exit();
};

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

// The checkboxes of slabd and of boxes_server.mjs beside it, in two windows of Chromium and with
// redis-cli at the broker: node boxes.mjs WAY SLABD_PORT NODE_PORT BROKER_PORT CHROMIUM FOLDER. The
// way is that of boxes_server.mjs. It prints what shall be ended or started, and waits for a line.
// It prints "saw …" for what it saw. The folder gets a screenshot.
import assert from "node:assert";
import { execFileSync, spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { chromium } = require("playwright-core");

const [way, slabd, node, broker, executablePath, folder] = process.argv.slice(2);
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const PATIENCE_MS = 10_000;

const ask = async (line) => {
  console.log(line);
  await input.next();
};
const box = (page, index) => page.locator(`[data-index="${index}"]`);
const checked = (page) =>
  page.$$eval(":checked", (all) => all.map((one) => Number(one.dataset.index)));

const until = async (what, condition) => {
  for (const end = Date.now() + PATIENCE_MS; !(await condition()); await sleep(20)) {
    assert(Date.now() < end, what());
  }
};

const redis = (...words) => {
  return execFileSync("redis-cli", ["-p", broker, ...words], { encoding: "utf8" });
};

// Waits until both servers are subscribed at the broker, and in one way the listener, too.
const linked = () => until(() => "the servers are not back", () => {
  if (way === "channel") return redis("pubsub", "numsub", "checkboxes").includes("\n3\n");
  return redis("client", "list").match(/ psub=1 /g)?.length === 2;
});

// Waits until both servers have written a value of the channel to the broker.
const written = (index, checked) => until(() => `${index} is not written`, () => {
  const values = ["boxes", "slabd:retained:checkboxes"].map((key) => redis("hget", key, index));
  return values.every((value) => value.includes(`{"index":${index},"checked":${checked}}`));
});

// Waits until pages show exactly these checkboxes as checked.
const show = async (pages, expected) => {
  for (const page of pages) {
    let now;
    await until(() => `${page.name} shows ${now}, not ${expected}`, async () => {
      now = await checked(page);
      return now.join() === expected.join();
    });
  }
};

// A redis-cli that is subscribed at the broker, with the lines that it has got.
const listener = async () => {
  const child = spawn("redis-cli", ["-p", broker, "subscribe", "checkboxes"]);
  const lines = [];
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(line));
  const wait = (text) => until(() => `${text} is not among ${lines}`, () => {
    return lines.some((line) => line.includes(text));
  });
  await wait("checkboxes");
  return { wait, end: () => child.kill() };
};

// Both pages come from the Node server. One of them connects to slabd.
const open = async (browser, name, port) => {
  const page = await (await browser.newContext()).newPage();
  Object.assign(page, { name, complaints: [] });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  await page.goto(`http://127.0.0.1:${node}/?server=http://127.0.0.1:${port}`);
  await page.getByText("Connected.").waitFor();
  return page;
};

const main = async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const ofSlabd = await open(browser, "the page of slabd", slabd);
  const ofNode = await open(browser, "the page of Node", node);
  const both = [ofSlabd, ofNode];
  let cli = await listener();
  const expected = [];
  // A change on either page arrives on the other. The listener sees those of slabd.
  const inStep = async (when, first) => {
    await box(ofSlabd, first).click();
    await show(both, [...expected, first]);
    await cli.wait(`{"index":${first},"checked":true}`);
    await box(ofNode, first + 1).click();
    expected.push(first, first + 1);
    await show(both, expected);
    await box(ofSlabd, first + 2).click();
    await show(both, [...expected, first + 2]);
    // By events, each server keeps only the changes of its own clients.
    await box(way === "channel" ? ofNode : ofSlabd, first + 2).click();
    await show(both, expected);
    console.log(`saw ${when}: both pages show ${expected}`);
    if (way === "channel") await written(first + 2, false);
  };
  // Returns what a new page shows when the server has told it the state.
  const newcomer = async (name, port) => {
    const page = await open(browser, name, port);
    await until(() => `${name} gets no state`, () => page.evaluate(() => window.states > 0));
    const shown = await checked(page);
    await page.context().close();
    return shown;
  };

  await inStep("at first", 0);

  await ask("end the broker");
  cli.end();
  await ask("start the broker");
  cli = await listener();
  await linked();
  await inStep("after the broker", 10);

  for (const [name, page, first] of [["slabd", ofSlabd, 20], ["Node", ofNode, 30]]) {
    await ask(`end ${name}`);
    await page.getByText("Alone.").waitFor();
    await ask(`start ${name}`);
    await page.getByText("Connected.").waitFor();
    await linked();
    await inStep(`after ${name}`, first);
  }
  const news = [await newcomer("slabd's", slabd), await newcomer("Node's", node)];
  console.log(`saw newcomers: slabd's shows ${news[0]}; Node's shows ${news[1]}`);
  const told = (at) => expected.filter((index) => way === "channel" || index % 10 === at);
  assert.deepEqual(news, [told(0), told(1)]);
  await ofSlabd.screenshot({ path: path.join(folder, `node-boxes-${way}.png`) });
  for (const page of both) assert.deepEqual(page.complaints, []);
  cli.end();
  await browser.close();
  console.log("done");
  process.exit();
};

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

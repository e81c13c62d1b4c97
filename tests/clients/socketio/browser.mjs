// Uses the hub with the official client in Chromium: node browser.mjs PORT CHROMIUM. Each tab has
// another kind of transport. Prints `terminate` and `kill` when the hub is to be ended that way,
// and waits for a line once it runs again.
import assert from "node:assert";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { chromium } = require("playwright-core");

const [port, executablePath] = process.argv.slice(2);
const home = `http://127.0.0.1:${port}`;
const KINDS = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };
const input = createInterface({ input: process.stdin });

// Opens a tab with a client that is subscribed to a channel, whenever it connects.
const open = async (context, transports) => {
  const page = await context.newPage();
  // The page is of the hub's own origin. Chromium lets no page that the driver makes up connect to
  // this machine.
  await page.goto(`${home}/healthz`);
  await page.addScriptTag({ content: script });
  await page.evaluate(async (transports) => {
    window.got = [];
    window.reasons = [];
    window.socket = io({ transports, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    socket.on("disconnect", (reason) => reasons.push(reason));
    socket.on("message", (channel, data) => got.push(data));
    socket.on("connect", async () => {
      await socket.emitWithAck("subscribe", "news");
      window.subscriptions = (window.subscriptions ?? 0) + 1;
    });
    while (!window.subscriptions) await new Promise((done) => setTimeout(done, 10));
  }, transports);
  return page;
};

// Every tab publishes, and every tab gets all of it.
const talk = async (pages, round) => {
  for (const [number, page] of pages.entries()) {
    await page.evaluate(() => { window.got = []; });
    const text = `${round} ${number}: Grüße 😀`;
    const ack = await page.evaluate(async (text) => {
      return socket.timeout(20_000).emitWithAck("publish", "news", text);
    }, text);
    assert.deepStrictEqual(ack, { published: "news", receivers: pages.length });
    for (const other of pages) {
      await other.waitForFunction((text) => window.got.includes(text), text);
    }
  }
};

// Values that only browsers have.
const binary = async (pages) => {
  const [page] = pages;
  for (const kind of ["ArrayBuffer", "Uint8Array", "Blob", "File"]) {
    for (const one of pages) await one.evaluate(() => { window.got = []; });
    await page.evaluate(async (kind) => {
      const bytes = new Uint8Array([0, 255, 128, 7]);
      const values = { ArrayBuffer: () => bytes.buffer, Uint8Array: () => bytes,
        Blob: () => new Blob([bytes]), File: () => new File([bytes], "name") };
      await socket.timeout(20_000).emitWithAck("publish", "news", values[kind]());
    }, kind);
    for (const one of pages) {
      await one.waitForFunction(() => window.got.length === 1);
      const got = await one.evaluate(() => {
        const [data] = window.got;
        return [data.constructor.name, ...new Uint8Array(data)];
      });
      assert.deepStrictEqual(got, ["ArrayBuffer", 0, 255, 128, 7], kind);
    }
  }
};

const others = async (page) => {
  const seen = await page.evaluate(async () => {
    const nowhere = socket.io.socket("/nowhere");
    const refused = new Promise((done) => nowhere.on("connect_error", (error) => {
      done(error.message);
    }));
    nowhere.connect();
    const unknown = await socket.emitWithAck("nobody knows", { a: new Uint8Array([1]) });
    const list = [await refused, Object.keys(unknown), socket.connected];
    window.got = [];
    // A poll that has no answer yet does not make the client unable to write.
    while (!socket.io.engine.transport.writable) await new Promise((done) => setTimeout(done, 5));
    socket.volatile.emit("publish", "news", { volatile: true });
    while (!window.got.length) await new Promise((done) => setTimeout(done, 10));
    return [...list, window.got];
  });
  assert.deepStrictEqual(seen, ["Invalid namespace", ["error"], true, [{ volatile: true }]]);
};

// Ends the hub and waits until it runs again, with all clients.
const restart = async (pages, how) => {
  const before = await Promise.all(pages.map((page) => page.evaluate(() => subscriptions)));
  const line = new Promise((done) => input.once("line", done));
  console.log(how);
  await line;
  for (const [number, page] of pages.entries()) {
    await page.waitForFunction((before) => window.subscriptions > before, before[number]);
    const reasons = await page.evaluate(() => window.reasons.splice(0));
    assert.match(reasons[0], /^transport (close|error)$/);
  }
};

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const context = await browser.newContext({ bypassCSP: true });
context.setDefaultTimeout(30_000);
const library = path.dirname(require.resolve("socket.io-client/package.json"));
const script = await readFile(path.join(library, "dist/socket.io.min.js"), "utf8");
const pages = [];
for (const transports of Object.values(KINDS)) pages.push(await open(context, transports));
await pages[2].waitForFunction(() => socket.io.engine.transport.name === "websocket");
await talk(pages, "first");
await binary(pages);
for (const page of pages) await others(page);
for (const how of ["terminate", "kill"]) {
  await restart(pages, how);
  await talk(pages, how);
}
await browser.close();
console.log("done");
process.exit();

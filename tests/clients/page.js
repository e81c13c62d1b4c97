// Uses the hub's page in Chromium: node page.js PORT CHROMIUM FOLDER LOCKED. Screenshots go into
// the folder. The hub at the port LOCKED has the password "open sesame". It prints `terminate` and
// `kill` for a restart of the other server, and waits for a line.
"use strict";
const assert = require("node:assert");
const dgram = require("node:dgram");
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const readline = require("node:readline");
const { spawn } = require("node:child_process");
const { chromium } = require("playwright-core");

const [port, executablePath, folder, locked] = process.argv.slice(2);
const home = `http://127.0.0.1:${port}/`;
const axe = fs.readFileSync(require.resolve("axe-core"), "utf8");
const LOG_MAX = 500;

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const restart = async (how) => {
  console.log(how);
  await input.next();
};

const datagram = (text) => new Promise((done) => {
  const socket = dgram.createSocket("udp4");
  socket.send(text, port, "127.0.0.1", () => socket.close(done));
});

// Opens the page, and waits until it is connected. Nothing but the page and its WebSocket may be
// requested, and nothing may be complained about.
const open = async (context, hash = "") => {
  const page = await context.newPage();
  page.seen = { requests: [], complaints: [] };
  page.on("request", (request) => page.seen.requests.push(request.url()));
  const subscribed = page.waitForEvent("websocket").then((socket) => {
    page.seen.requests.push(socket.url());
    page.socket = socket;
    return received(page, "pong");
  });
  page.on("pageerror", (error) => page.seen.complaints.push(String(error)));
  page.on("console", (message) => {
    const { [message.type()]: bad } = { error: true, warning: true };
    if (bad) page.seen.complaints.push(message.text());
  });
  await page.goto(home + hash);
  await state(page, "Connected");
  await subscribed;
  return page;
};

// Waits until the page's WebSocket receives a message with this member.
const received = (page, member) => page.socket.waitForEvent("framereceived",
  { predicate: ({ payload }) => member in JSON.parse(payload) });

// Gives the page's address another hash, and waits until the page has subscribed to its channel.
const follow = async (page, channel) => {
  const subscribed = received(page, "subscribed");
  await page.evaluate((hash) => { location.hash = hash; }, encodeURIComponent(channel));
  await subscribed;
};

const state = (page, text) => page.locator("#state", { hasText: text }).waitFor();
const notice = (page, text) => page.locator("#notice", { hasText: text }).waitFor();

// The messages in the log, each as [channel, text].
const messages = (page) => page.evaluate(() =>
  Array.from(document.getElementById("log").children, (entry) =>
    [entry.children[1].textContent, entry.children[2].textContent]));

const lastMessage = (page, text) => page.waitForFunction((text) =>
  document.getElementById("log").lastElementChild?.lastElementChild.textContent === text, text)
  .catch(async () => assert.fail(`no "${text}" after ${JSON.stringify(await messages(page))}`));

const accessible = async (page, what) => {
  const { violations } = await page.evaluate(`${axe}; axe.run()`);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
  assert.deepStrictEqual(found, [], what);
};

const narrow = async (page) => {
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.strictEqual(beyond, 0, "the narrow page scrolls sideways");
};

const shoot = (page, name) =>
  page.screenshot({ path: path.join(folder, `page-${name}.png`), fullPage: true });

const messagesArrive = async (page) => {
  await datagram("PUBLISH news hello");
  await lastMessage(page, "hello");
  // Text stays text, all digits stay, and bytes that are no text are shown as base64.
  const payloads = [
    ["<img src=x onerror=alert(1)>", '"<img src=x onerror=alert(1)>"'],
    ['{"n":12345678901234567890,"t":1.50}', `'{"n":12345678901234567890,"t":1.50}'`],
    ['"quoted"', `'"quoted"'`],
    ["base64 //4=", '"\\xff\\xfe"'],
    ["two\nlines", '"two\\nlines"'],
  ];
  for (const [shown, word] of payloads) {
    await datagram(`PUBLISH news ${word}`);
    await lastMessage(page, shown);
  }
  const expected = ["hello", ...payloads.map(([shown]) => shown)].map((text) => ["news", text]);
  assert.deepStrictEqual(await messages(page), expected);
};

const twoTabs = async (one, two) => {
  assert.match(one.url(), /#news$/);
  await one.fill("#channel", "sport.ski");
  await one.fill("#message", "from one");
  await one.click("#publish button");
  await notice(one, "Receivers: 1");
  await lastMessage(two, "from one");
  assert.deepStrictEqual(await messages(two), [["sport.ski (sport.*)", "from one"]]);
  // A page receives what it publishes.
  await two.fill("#channel", "news");
  await two.fill("#message", "to all");
  await two.keyboard.press("Enter");
  await notice(two, "Receivers: 2");
  await lastMessage(one, "to all");
  await lastMessage(two, "to all");
};

const keyboard = async (page) => {
  await page.focus("#name");
  await page.keyboard.type("a b&c");
  await page.keyboard.press("Enter");
  assert.match(page.url(), /#news&a%20b%26c$/);
  const focused = () => page.evaluate(() => document.activeElement.ariaLabel);
  for (const label of [null, "Unsubscribe from news", "Unsubscribe from a b&c"]) {
    await page.keyboard.press("Tab");
    assert.strictEqual(await focused(), label);
  }
  await page.keyboard.press("Enter");
  assert.strictEqual(await page.evaluate(() => document.activeElement.id), "name");
  assert.match(page.url(), /#news$/);
  // A hash that changes, changes the subscriptions.
  await follow(page, "a b&c");
  await datagram('PUBLISH "a b&c" odd');
  await lastMessage(page, "odd");
};

// Each line that the page shows does what it says.
const lines = async (page, context) => {
  await context.grantPermissions(["clipboard-read"]);
  const channel = `it's "5" o'clock`;
  await follow(page, channel);
  const line = async (name) => {
    await page.click(`[aria-label="Copy: ${name}"]`);
    await notice(page, "Copied");
    return page.evaluate(() => navigator.clipboard.readText());
  };
  for (const name of ["curl, publish", "nc", "UDP"]) {
    const before = (await messages(page)).length;
    const shell = spawn("bash", ["-c", await line(name)], { stdio: "ignore" });
    await page.waitForFunction((before) =>
      document.getElementById("log").childElementCount > before, before);
    shell.kill();
    assert.deepStrictEqual((await messages(page)).at(-1), [channel, "hello"], name);
  }
  for (const name of ["redis-cli", "curl"]) {
    const shell = spawn("bash", ["-c", `exec ${await line(name)}`]);
    let output = "";
    const got = (text) => new Promise((done) => {
      const look = () => output.includes(text) && done();
      shell.stdout.on("data", look);
      look();
    });
    shell.stdout.on("data", (data) => { output += data; });
    await got(name === "curl" ? "retry" : "subscribe");
    await page.fill("#message", "for a shell");
    await page.click("#publish button");
    await got("for a shell");
    shell.kill();
  }
  const script = await line("JavaScript");
  await page.evaluate(`console.log = (text) => { window.logged = text; }; ${script}`);
  await page.waitForFunction(() => {
    document.querySelector("#publish button").click();
    return window.logged === "for a shell";
  }, null, { polling: 100 });
  await follow(page, "news");
};

// The log keeps its last messages. It stays where the reader is, and follows at its end.
const flood = async (page) => {
  const many = (from, to) => new Promise((done) => {
    const hub = net.connect(port, "127.0.0.1").on("close", done).resume();
    for (let n = from; n < to; n++) hub.write(`PUBLISH news ${n}\r\n`);
    hub.end("QUIT\r\n");
  });
  await many(0, 3000);
  await lastMessage(page, "2999");
  const expected = Array.from({ length: LOG_MAX }, (_, n) => ["news", `${n + 2500}`]);
  assert.deepStrictEqual(await messages(page), expected);
  const bottom = () => page.evaluate(() => {
    const log = document.getElementById("log");
    return log.scrollHeight - log.clientHeight - log.scrollTop;
  });
  assert(await bottom() < 2);
  await page.evaluate(() => document.getElementById("log").scrollTo(0, 3000));
  await many(0, 3);
  await lastMessage(page, "2");
  assert(await bottom() > 500);
};

const events = async (page) => {
  await page.evaluate(() => new Promise((done) => {
    window.events = new EventSource("/events/news");
    window.got = [];
    for (const type of ["message", "base64"]) {
      window.events.addEventListener(type, ({ data }) => window.got.push([type, data]));
    }
    window.events.onopen = done;
  }));
  for (const word of ["1", '"two\\r\\nlines\\rthree\\n"', '" blank"', '"\\xff"', '""', "end"]) {
    await datagram(`PUBLISH news ${word}`);
  }
  await page.waitForFunction(() => window.got.some(([, data]) => data === "end"));
  assert.deepStrictEqual(await page.evaluate(() => window.got), [
    ["message", "1"], ["message", "two\nlines\nthree\n"], ["message", " blank"],
    ["base64", "/w=="], ["message", ""], ["message", "end"],
  ]);
};

// The page and its EventSource come back by themselves.
const restarts = async (page) => {
  for (const how of ["terminate", "kill"]) {
    await page.evaluate(() => { window.got = []; });
    await restart(how);
    await state(page, "Connected");
    const again = setInterval(() => datagram(`PUBLISH news ${how}`), 200);
    await lastMessage(page, how);
    await page.waitForFunction((how) => window.got.some(([, data]) => data === how), how);
    clearInterval(again);
  }
};

// The page asks for the password where there is one, again after a wrong one, and keeps it.
const password = async (context) => {
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${locked}/#news`);
  for (const text of ["wrong", "open sesame"]) {
    await state(page, "A password is needed.");
    assert.strictEqual(await page.evaluate(() => document.activeElement.id), "password");
    await accessible(page, "the form of the password");
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
    if (text === "wrong") await notice(page, "wrong password");
  }
  await state(page, "Connected");
  await page.fill("#message", "behind the password");
  await page.keyboard.press("Enter");
  await lastMessage(page, "behind the password");
  await page.close();
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 } });
  context.setDefaultTimeout(30000);
  const one = await open(context);
  await messagesArrive(one);
  await shoot(one, "light");
  await accessible(one, "light");
  const two = await open(context, "#news&sport.*");
  await twoTabs(one, two);
  await keyboard(one);
  await lines(one, context);
  await one.emulateMedia({ colorScheme: "dark" });
  await accessible(one, "dark");
  await shoot(one, "dark");
  await one.setViewportSize({ width: 360, height: 800 });
  await narrow(one);
  await accessible(one, "narrow");
  await shoot(one, "narrow");
  await flood(two);
  await password(context);
  await events(two);
  for (const page of [one, two]) assert.deepStrictEqual(page.seen.complaints, []);
  await restarts(two);
  for (const page of [one, two]) {
    const { requests } = page.seen;
    assert(requests.every((url) => url.replace("ws:", "http:").startsWith(home)), `${requests}`);
  }
  await browser.close();
  console.log("done");
  process.exit();
})();

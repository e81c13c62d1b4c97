// Opens pages of other origins in Chromium: node foreign.js CHROMIUM. They try to use a hub that
// does not know them, and one that allows the first. The program prints `origin URL`, and reads one
// line: the ports of both hubs.
"use strict";
const assert = require("node:assert");
const http = require("node:http");
const net = require("node:net");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [executablePath] = process.argv.slice(2);

// What a page can send to a hub, by name. Each returns what the page sees of the answer.
const attempts = {
  fetch: (hub) => fetch(`http://${hub}/publish/news`, { method: "POST", body: "fetch" })
    .then((answer) => answer.text(), () => "refused"),
  // The page of another origin may send this without asking, and sees nothing of the answer.
  blind: (hub) => fetch(`http://${hub}/publish/news`,
    { method: "POST", mode: "no-cors", body: "blind" }).then(({ type }) => type, () => "refused"),
  beacon: (hub) => navigator.sendBeacon(`http://${hub}/publish/news`, "beacon"),
  preflight: (hub) => fetch(`http://${hub}/publish/news`,
    { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } })
    .then((answer) => answer.text(), () => "refused"),
  image: (hub) => new Promise((done) => {
    const image = new Image();
    image.onload = () => done("loaded");
    image.onerror = () => done("refused");
    image.src = `http://${hub}/publish/news?image`;
  }),
  polling: (hub) => fetch(`http://${hub}/socket.io/?EIO=4&transport=polling`)
    .then((answer) => answer.text().then((text) => text.slice(0, 8)), () => "refused"),
  socketio: (hub) => new Promise((done) => {
    const socket = new WebSocket(`ws://${hub}/socket.io/?EIO=4&transport=websocket`);
    socket.onmessage = ({ data }) => done(data.slice(0, 8));
    socket.onclose = () => done("refused");
  }),
  events: (hub) => new Promise((done) => {
    const source = new EventSource(`http://${hub}/events/news`);
    source.onopen = () => done("open");
    source.onerror = () => done(source.readyState === EventSource.CLOSED ? "refused" : "broken");
  }),
  raw: (hub) => new Promise((done) => {
    const socket = new WebSocket(`ws://${hub}/ws/news`);
    socket.onopen = () => {
      socket.send("raw");
      done("open");
    };
    socket.onclose = () => done("refused");
  }),
  json: (hub) => new Promise((done) => {
    const socket = new WebSocket(`ws://${hub}/ws`);
    socket.onopen = () => {
      socket.send('{"publish":"news","data":"json"}');
      done("open");
    };
    socket.onclose = () => done("refused");
  }),
};

// A subscriber by the Redis protocol. `read` returns what it got until this payload.
const subscriber = async (port) => {
  const socket = net.connect(port, "127.0.0.1");
  let got = "";
  const reaches = (text) => new Promise((done) => {
    const look = () => got.includes(text) && done();
    socket.on("data", look);
    look();
  });
  socket.on("data", (data) => { got += data; });
  socket.write("SUBSCRIBE news\r\n");
  await reaches(":1\r\n");
  const read = async () => {
    net.connect(port, "127.0.0.1").resume().end("PUBLISH news last\r\nQUIT\r\n");
    await reaches("\r\nlast\r\n");
    socket.destroy();
    return Array.from(got.matchAll(/\$7\r\nmessage\r\n\$4\r\nnews\r\n\$\d+\r\n(.*?)\r\n/g),
      ([, payload]) => payload);
  };
  return { read };
};

// Makes a page try everything. Returns what it saw, and the statuses that the hub answered.
const tryAll = async (context, origin, hub) => {
  const page = await context.newPage();
  const statuses = [];
  page.on("response", (response) => {
    if (response.url().includes(hub)) statuses.push(response.status());
  });
  page.on("console", (message) => {
    const refused = /WebSocket.*response code: (\d+)/.exec(message.text());
    if (refused) statuses.push(Number(refused[1]));
  });
  await page.goto(origin);
  const seen = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    seen[name] = await page.evaluate(attempt, hub);
  }
  // A form is sent last, because the page ends with it.
  await page.evaluate((hub) => {
    document.body.innerHTML = `<form method="post" enctype="text/plain"
      action="http://${hub}/publish/news"><input name="form" value="form"></form>`;
    document.forms[0].submit();
  }, hub);
  await page.waitForURL(`http://${hub}/publish/news`);
  await page.close();
  return { seen, statuses };
};

(async () => {
  const site = http.createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>Another origin</title>");
  });
  await new Promise((done) => site.listen(0, "127.0.0.1", done));
  const origin = `http://127.0.0.1:${site.address().port}`;
  console.log(`origin ${origin}`);
  const input = readline.createInterface({ input: process.stdin });
  const ports = await new Promise((done) => input.once("line", done));
  const [strict, open] = ports.split(" ");

  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
  });
  const context = await browser.newContext();
  context.setDefaultTimeout(30000);

  // Nothing that a page of an unknown origin sends does anything.
  const watched = await subscriber(strict);
  const { seen, statuses } = await tryAll(context, `${origin}/`, `127.0.0.1:${strict}`);
  assert.deepStrictEqual(seen, {
    fetch: "refused", blind: "opaque", beacon: true, preflight: "refused", image: "refused",
    polling: "refused", socketio: "refused", events: "refused", raw: "refused", json: "refused",
  });
  assert.deepStrictEqual(await watched.read(), ["last"]);
  assert(statuses.length >= 5, `${statuses}`);
  assert(statuses.every((status) => status === 403 || status === 405), `${statuses}`);

  // A name that another site has pointed to this machine is no name of the hub.
  const rebound = await context.newPage();
  const answer = await rebound.goto(`http://rebound.example:${strict}/`);
  assert.strictEqual(answer.status(), 403);

  // The allowed origin may do all that a client may.
  const allowed = await subscriber(open);
  const permitted = await tryAll(context, `${origin}/`, `127.0.0.1:${open}`);
  const receivers = (json) => JSON.parse(json).receivers;
  assert.strictEqual(receivers(permitted.seen.fetch), 1);
  assert.strictEqual(receivers(permitted.seen.preflight), 1);
  for (const name of ["events", "raw", "json"]) assert.strictEqual(permitted.seen[name], "open");
  for (const name of ["polling", "socketio"]) {
    assert.strictEqual(permitted.seen[name], '0{"sid":');
  }
  const published = await allowed.read();
  const expected = ["fetch", "blind", "beacon", "{}", "raw", "json"];
  for (const payload of expected) assert(published.includes(payload), `${payload}: ${published}`);
  // An image is requested with GET, which publishes nothing.
  assert(!published.includes(""), `${published}`);

  await browser.close();
  console.log("done");
  process.exit();
})();

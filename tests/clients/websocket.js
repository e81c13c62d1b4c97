// Uses the hub with the library ws: node websocket.js PORT.
"use strict";
const assert = require("node:assert");
const { once } = require("node:events");
const { WebSocket } = require("ws");

const [port] = process.argv.slice(2);

// Opens a WebSocket that keeps what it receives until somebody asks.
const open = async (path, ...options) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, ...options);
  const waiting = [];
  const asked = [];
  socket.on("message", (data, binary) => {
    const message = binary ? data : data.toString();
    if (asked.length) asked.shift()(message);
    else waiting.push(message);
  });
  socket.next = () => waiting.length ? waiting.shift() : new Promise((done) => asked.push(done));
  await once(socket, "open");
  return socket;
};

const close = async (socket, code, reason) => {
  const closed = once(socket, "close");
  socket.close(code, reason);
  assert.strictEqual((await closed)[0], code);
};

const raw = async () => {
  const [one, two] = [await open("/ws/news"), await open("/ws/news")];
  // ws offers compression, and the hub declines.
  assert.strictEqual(one.extensions, "");
  const payloads = ["text", "ä€😀", "", Buffer.from([0, 255, 254]), Buffer.alloc(100_000, 255)];
  for (const payload of payloads) {
    one.send(payload);
    for (const socket of [one, two]) assert.deepStrictEqual(await socket.next(), payload);
  }
  // Bytes that are text arrive as text.
  one.send(Buffer.from("bytes"));
  assert.strictEqual(await two.next(), "bytes");
  // A message in fragments, with a ping between them. The pongs come first.
  const pongs = [];
  two.on("pong", (data) => pongs.push(data.toString()));
  two.ping("are you there");
  for (const part of ["one ", "two ", "three"]) {
    two.send(part, { fin: part === "three" });
    if (part === "two ") two.ping("still?");
  }
  assert.strictEqual(await two.next(), "one two three");
  assert.deepStrictEqual(pongs, ["are you there", "still?"]);
  for (const text of ["bytes", "one two three"]) assert.strictEqual(await one.next(), text);
  await close(one, 1000, "");
  await close(two, 4321, "the reason of an application");
};

const json = async () => {
  const socket = await open("/ws", "slabd.v1.json");
  assert.strictEqual(socket.protocol, "slabd.v1.json");
  const ask = async (request, ...answers) => {
    socket.send(JSON.stringify(request));
    for (const answer of answers) assert.deepStrictEqual(JSON.parse(await socket.next()), answer);
  };
  await ask({ ping: 1 }, { pong: 1 });
  await ask({ subscribe: "news", id: 1 }, { subscribed: "news", id: 1 });
  await ask({ psubscribe: "n*s", id: "two" }, { psubscribed: "n*s", id: "two" });
  const values = [{ a: [1, null, "x"] }, [true], 1.5, false, null];
  for (const data of values) {
    socket.send(JSON.stringify({ publish: "news", data, id: null }));
    const answers = [await socket.next(), await socket.next(), await socket.next()].map(JSON.parse);
    const without = (member) => answers.filter((answer) => !(member in answer));
    assert.deepStrictEqual(without("channel"), [{ published: "news", receivers: 2, id: null }]);
    // The two messages may come in either order.
    const messages = without("published");
    assert.deepStrictEqual(messages.sort((one, two) => ("pattern" in one) - ("pattern" in two)),
      [{ channel: "news", data }, { channel: "news", pattern: "n*s", data }]);
  }
  await ask({ punsubscribe: "n*s" }, { punsubscribed: "n*s" });
  socket.send('{"publish":"news","base64":"AP8="}');
  const both = [JSON.parse(await socket.next()), JSON.parse(await socket.next())];
  assert(both.some((answer) => answer.base64 === "AP8="), JSON.stringify(both));
  socket.send('{"publish":"news","data":"{\\"text\\":1}"}');
  const texts = [await socket.next(), await socket.next()];
  // The bytes are the text of an object, so they arrive as one.
  assert(texts.some((text) => text.includes('"data":{"text":1}')), texts.join());
  // Errors leave the connection open.
  for (const [request, id] of [['{"publish":"news","id":7}', 7], ['{"fly":"away"}', undefined]]) {
    socket.send(request);
    const refusal = JSON.parse(await socket.next());
    assert(refusal.error.length > 5 && refusal.id === id, JSON.stringify(refusal));
  }
  await ask({ unsubscribe: "news", id: 3 }, { unsubscribed: "news", id: 3 });
  await close(socket, 1000, "");
};

// The hub says with a status why it refuses to open a WebSocket.
const refusals = async () => {
  const cases = [
    ["/nowhere", {}, 404],
    ["/ws/news", { headers: { Origin: "http://elsewhere.example" } }, 403],
    ["/ws/news", { headers: { Host: "elsewhere.example" } }, 403],
    ["/ws/news", { protocolVersion: 8 }, 426],
  ];
  for (const [path, options, status] of cases) {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
    const [, response] = await once(socket, "unexpected-response");
    assert.strictEqual(response.statusCode, status, path);
    socket.on("error", () => {});
    socket.terminate();
  }
};

(async () => {
  await raw();
  await json();
  await refusals();
  console.log("done");
})();

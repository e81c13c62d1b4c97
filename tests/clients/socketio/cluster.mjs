// Compares a cluster of a Node server and slabd with one of two Node servers. In both, server A is
// Node's, and server B is the other one. Each observation must have the same result in both.
//
//     node cluster.mjs PATH_OF_SLABD ioredis [WORD…]   the Node servers use ioredis, or
//     node cluster.mjs PATH_OF_SLABD redis [WORD…]     node-redis
//     node cluster.mjs PATH_OF_SLABD as-broker         two Node servers over Redis, and over slabd
//
// What is not observed, because slabd differs by intent:
//
// | | Node's servers | slabd | because |
// |---|---|---|---|
// | a room that is a number | another than the text of its digits | the same | names are text |
// | integers of 2 ** 64 or more from server B | are garbled by notepack | arrive | |
// | volatile events to a client that polls | depend on the moment | | |
//
// Prints each difference, and "N observations, all equal" at the end.
import { isDeepStrictEqual } from "node:util";
import { sleep } from "./context.mjs";
import { Cluster, Round } from "./clusters.mjs";

const [program, client, ...words] = process.argv.slice(2);
const PATIENCE_MS = Number(process.env.PATIENCE_MS ?? 20_000);

// Server A emits a value to all. Returns what a client of each server gets. The source makes the
// value there, because a request would not carry each type.
const value = (source) => async (round) => {
  const sockets = await round.lasting(["a"], ["b"], ["b", "/", [], "polling"]);
  await round.run((io, source) => void io.emit("value", ...(0, eval)(source)), `[${source}]`);
  return round.logs(...sockets);
};

// A client of server B publishes a value to a room. Returns what a member on each server gets.
const published = (data) => async (round) => {
  const room = "published";
  const sockets = await round.lasting(["a", "/", [room]], ["b", "/", [room]], ["a"], ["b"]);
  await sockets[3].emitWithAck("publish", room, data);
  return round.logs(...sockets);
};

// Clients on both servers in rooms r, s, both, and none, and one of /chat in r. `emit` has server A
// or the emitter send something. Returns what each gets.
const inRooms = (emit, transport = "polling") => async (round) => {
  const [r, s] = ["r", "s"];
  const sockets = await round.lasting(...["a", "b"].flatMap((server) => [
    [server, "/", [r]], [server, "/", [s]], [server, "/", [r, s]], [server, "/"],
    [server, "/chat", [r]], [server, "/", [s, r], transport],
  ]));
  await emit(round, r, s, sockets.map(({ id }) => id));
  return round.logs(...sockets);
};

const ofServer = (source) => inRooms((round, ...values) => round.run(source, ...values));
const ofEmitter = (emit) => inRooms((round, ...values) => void emit(round.emitter, ...values));

const broadcasts = {
  "server: to all": ofServer((io) => void io.emit("e", 1)),
  "server: to all of a namespace": ofServer((io) => void io.of("/chat").emit("e", 1)),
  "server: to a room": ofServer((io, r) => void io.to(r).emit("e", 1)),
  "server: to a room of a namespace": ofServer((io, r) => void io.of("/chat").to(r).emit("e", 1)),
  "server: to two rooms, to each once": ofServer((io, r, s) => void io.to(r).to(s).emit("e", 1)),
  "server: to all except a room": ofServer((io, r) => void io.except(r).emit("e", 1)),
  "server: to a room except another": ofServer((io, r, s) => void io.to(r).except(s).emit("e", 1)),
  "server: to two rooms except one": ofServer((io, r, s) => {
    io.to([r, s]).except(s).emit("e", 1);
  }),
  "server: to a room with nobody": ofServer((io, r) => void io.to(`${r}?`).emit("e", 1)),
  "server: to a room and one with nobody": ofServer((io, r) => void io.to([`${r}?`, r]).emit("e")),
  "server: except a room with nobody": ofServer((io, r) => void io.except(`${r}?`).emit("e", 1)),
  "server: to a socket of A": ofServer((io, r, s, ids) => void io.to(ids[0]).emit("e", 1)),
  "server: to a socket of B": ofServer((io, r, s, ids) => void io.to(ids[6]).emit("e", 1)),
  "server: to a socket of B that polls": ofServer((io, r, s, ids) => void io.to(ids[11]).emit("e")),
  "server: to a socket of B in a namespace": ofServer((io, r, s, ids) => {
    io.of("/chat").to(ids[10]).emit("e", 1);
  }),
  "server: to a socket of B in the wrong namespace": ofServer((io, r, s, ids) => {
    io.to(ids[10]).emit("e", 1);
  }),
  "server: to two sockets of B": ofServer((io, r, s, ids) => {
    io.to([ids[6], ids[9]]).emit("e");
  }),
  "server: to a socket of B and its room, once": ofServer((io, r, s, ids) => {
    io.to([ids[6], r]).emit("e", 1);
  }),
  "server: except a socket of B": ofServer((io, r, s, ids) => void io.except(ids[6]).emit("e", 1)),
  "server: to a room except sockets of both": ofServer((io, r, s, ids) => {
    io.to(r).except([ids[0], ids[6]]).emit("e", 1);
  }),
  "server: to a socket and to its room in turn": ofServer((io, r, s, ids) => {
    for (let at = 0; at < 50; at += 1) io.to(at % 2 ? r : ids[6]).emit("e", at);
  }),
  "socket of A: to all others": ofServer((io, r, s, ids) => {
    io.sockets.sockets.get(ids[0]).broadcast.emit("e", 1);
  }),
  "socket of A: to a room": ofServer((io, r, s, ids) => {
    io.sockets.sockets.get(ids[0]).to(r).emit("e", 1);
  }),
  "server: volatile": inRooms((round, r) => round.run((io, r) => {
    io.volatile.to(r).emit("e", 1);
  }, r), "websocket"),
  "server: uncompressed": ofServer((io, r) => void io.compress(false).to(r).emit("e", 1)),
  "server: local": ofServer((io) => void io.local.emit("e", 1)),
  "server: binary to a room": ofServer((io, r) => void io.to(r).emit("e", Buffer.from("\0ÿ"))),
  "server: binary to two rooms except one": ofServer((io, r, s) => {
    io.to([r, `${r}?`]).except(s).emit("e", { a: [Buffer.from([1, 2]), Buffer.from([])] });
  }),
  "server: many events to rooms in turn": ofServer((io, r, s) => {
    for (let at = 0; at < 200; at += 1) io.to(at % 3 ? r : s).emit("e", at);
  }),
  "server: large events": ofServer((io, r, s) => {
    io.to(r).to(s).emit("e", "x".repeat(1 << 20));
    io.to(r).except(s).emit("e", Buffer.alloc(1 << 20, 7));
  }),
  "emitter: to all": ofEmitter((emitter) => emitter.emit("e", 1, "two", null)),
  "emitter: to a room": ofEmitter((emitter, r) => emitter.to(r).emit("e", 1)),
  "emitter: to two rooms": ofEmitter((emitter, r, s) => emitter.to(r).to(s).emit("e", 1)),
  "emitter: except a room": ofEmitter((emitter, r, s) => emitter.to(r).except(s).emit("e", 1)),
  "emitter: of a namespace": ofEmitter((emitter, r) => emitter.of("/chat").to(r).emit("e", 1)),
  "emitter: volatile": inRooms(({ emitter }, r) => {
    emitter.volatile.to(r).emit("e", 1);
  }, "websocket"),
  "emitter: binary": ofEmitter((emitter, r) => emitter.to(r).emit("e", Buffer.from([0, 255]))),
  "emitter: to a socket of B": ofEmitter((emitter, r, s, ids) => emitter.to(ids[6]).emit("e", 1)),
};

const values = {
  "value: none": value(""),
  "value: integers of each width": value(
    "0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740991"),
  "value: negative integers of each width": value(
    "-1, -32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649, -9007199254740991"),
  "value: fractions": value("0.5, -1.25, 3.141592653589793, 5e-324, 1.7976931348623157e308"),
  "value: huge integers": value("2 ** 53, 2 ** 63, 1e21, -(2 ** 63)"),
  "value: no numbers": value("NaN, Infinity, -Infinity"),
  "value: true, false, null": value("true, false, null"),
  "value: undefined": value("undefined, [undefined, 1], { a: undefined, b: 1 }"),
  "value: texts": value('"", "a", "x".repeat(31), "x".repeat(32), "x".repeat(256), '
    + '"x".repeat(65536)'),
  "value: unicode": value('"Grüße, 日本語, 😀👩‍👩‍👧", "\\u0000\\u001e\\u2028", "\\"\\\\"'),
  "value: arrays": value("[], [1, [2, [3]]], Array(20).fill(0), Array(70000).fill(1)"),
  "value: objects": value('{}, { a: { b: [1, { c: null }] } }, { "": 1, "ä\\"": 2, 5: 3 }'),
  "value: an object of many keys": value(
    "Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`k${at}`, at]))"),
  "value: a deep array": value("JSON.parse('['.repeat(60) + ']'.repeat(60))"),
  "value: dates": value("new Date(0), new Date(1700000000123), new Date(-1), new Date(8.64e15), "
    + "new Date(-8.64e15), new Date(253402300800000), new Date(-62198755200000), new Date(NaN)"),
  "value: a buffer": value("Buffer.from([0, 1, 254, 255])"),
  "value: an empty buffer": value("Buffer.alloc(0)"),
  "value: buffers of each width": value("Buffer.alloc(255, 1), Buffer.alloc(256, 2), "
    + "Buffer.alloc(65536, 3)"),
  "value: an array buffer and a typed array": value("new Uint8Array([1, 2]).buffer, "
    + "new Uint8Array([3, 4])"),
  "value: buffers inside": value("{ a: [Buffer.from('x'), { b: Buffer.from('y') }], c: 1 }, "
    + "Buffer.from('z')"),
  "value: what looks like a placeholder": value("{ _placeholder: true, num: 0 }"),
};

const publishes = {
  "publish: a text": published("hello"),
  "publish: a text of JSON": published('{"a":1}'),
  "publish: an object": published({ a: [1, 2.5, null, true, { b: "ä" }] }),
  "publish: a number": published(-17),
  "publish: null": published(null),
  "publish: an event": published(["chat", "hi", { a: 1 }]),
  "publish: an event without arguments": published(["chat"]),
  "publish: an event with a placeholder": published(["chat", { _placeholder: true, num: 0 }]),
  "publish: a reserved name": published(["disconnect", 1]),
  "publish: binary": published(Buffer.from([0, 255, 1])),
  "publish: large numbers": published([2 ** 63, -(2 ** 40), 5e-324]),
  "publish: by HTTP at B": async (round) => {
    const room = round.room("r");
    const sockets = await round.sockets(["a", "/", [room]], ["a", "/chat", [room]],
      ["b", "/chat", [room]]);
    await round.publish("b", room, '["said",{"by":"HTTP"}]');
    await round.publish("b", room, Buffer.from([255, 254]));
    return round.logs(...sockets);
  },
  "publish: by HTTP at A": async (round) => {
    const room = round.room("r");
    const sockets = await round.sockets(["b", "/", [room]], ["b", "/chat", [room]], ["b"]);
    await round.publish("a", room, '["said",{"by":"HTTP"}]');
    await round.publish("a", room, Buffer.from([255, 254]));
    return round.logs(...sockets);
  },
  "publish: many in order": async (round) => {
    const room = round.room("r");
    const sockets = await round.sockets(["a", "/", [room]], ["b", "/", [room]]);
    for (let at = 0; at < 200; at += 1) sockets[1].emit("publish", room, at);
    await sockets[1].emitWithAck("publish", room, "end");
    return round.logs(...sockets);
  },
  "route: all sockets of the namespace get the event": async (round) => {
    const sockets = await round.sockets(["a"], ["b"], ["a", "/chat"], ["b", "/chat"]);
    sockets[1].emit("client:checkbox:change", { index: 5, checked: true });
    await sockets[1].emitWithAck("client:checkbox:change", { index: 6, checked: false });
    return round.logs(...sockets);
  },
  "route: an event of a client of A": async (round) => {
    const sockets = await round.sockets(["a"], ["b"], ["b", "/chat"]);
    await sockets[0].emitWithAck("client:checkbox:change", { index: 7, checked: true });
    return round.logs(...sockets);
  },
  "route: others in a room of a namespace": async (round) => {
    const room = round.room("r");
    const sockets = await round.sockets(["a", "/chat"], ["b", "/chat"], ["b", "/chat"],
      ["a", "/chat"]);
    for (const socket of sockets.slice(0, 3)) await socket.emitWithAck("chat:join", { room });
    await sockets[1].emitWithAck("chat:say", { room, text: "from B" });
    await sockets[0].emitWithAck("chat:say", { room, text: "from A" });
    return round.logs(...sockets);
  },
};

const memberships = {
  "rooms: one that was left": async (round) => {
    const room = round.room("r");
    const sockets = await round.sockets(["a", "/", [room]], ["b", "/", [room]]);
    const emit = (number) => round.run((io, room, number) => {
      io.to(room).emit("e", number);
    }, room, number);
    await emit(1);
    await round.settle();
    for (const socket of sockets) await socket.emitWithAck("unsubscribe", room);
    await emit(2);
    await round.settle();
    for (const socket of sockets) await socket.emitWithAck("subscribe", room);
    await emit(3);
    return round.logs(...sockets);
  },
  "rooms: names of any characters": async (round) => {
    const names = ["#", "a#b", "a b", "ä/日本", "*", "[x]", "?", "12"].map((name) => {
      return name === "12" ? name : round.room(name);
    });
    const sockets = await round.sockets(["a", "/", names], ["b", "/", names]);
    await round.run((io, names) => names.forEach((name) => io.to(name).emit("e", name)), names);
    await round.run((io, names) => void io.to(names).emit("all"), names);
    await round.settle();
    for (const name of names) await sockets[1].emitWithAck("publish", name, "x");
    return round.logs(...sockets);
  },
  "sockets: one that has left its namespace": async (round) => {
    const [first, last] = await round.sockets(["b", "/chat"], ["b", "/"]);
    const { id } = first;
    first.disconnect();
    await sleep(100);
    await round.run((io, id) => {
      io.of("/chat").to(id).emit("e", 1);
      io.of("/chat").emit("e", 2);
      io.emit("e", 3);
    }, id);
    return round.logs(first, last);
  },
  "sockets: one that comes back has another sid": async (round) => {
    const [socket] = await round.sockets(["b"]);
    const { id } = socket;
    socket.disconnect();
    socket.connect();
    await new Promise((done) => socket.once("connect", done));
    await socket.emitWithAck("subscribe", "fence");
    await round.run((io, old, id) => void (io.to(old).emit("old"), io.to(id).emit("new")), id,
      socket.id);
    return round.logs(socket);
  },
};

const normal = (value) => {
  if (value instanceof ArrayBuffer) value = new Uint8Array(value);
  if (value instanceof Uint8Array) return { binary: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(normal);
  if (!(value instanceof Object)) return value ?? null;
  return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, normal(value)]));
};

const observed = async (cluster, number, observe) => {
  const round = new Round(cluster, number);
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`no result after ${PATIENCE_MS} ms; logs: `
      + JSON.stringify(round.opened.map(({ log }) => log)).slice(0, 600))), PATIENCE_MS);
  });
  try {
    return normal(await Promise.race([observe(round), late]));
  } catch (error) {
    return { failed: error.stack };
  } finally {
    clearTimeout(timer);
    await round.close();
  }
};

const asBroker = client === "as-broker";
const pair = asBroker
  ? [new Cluster("node", "ioredis", program), new Cluster("node", "ioredis", program, "slabd")]
  : [new Cluster("node", client, program), new Cluster("slabd", client, program)];
const clusters = await Promise.all(pair.map((cluster) => cluster.start()));
// The bytes of a value are the same by each client of Redis, and those of a publish by each broker.
const observations = Object.entries({
  ...broadcasts, ...memberships, ...(asBroker ? {} : publishes),
  ...(client === "ioredis" ? values : {}),
}).filter(([name]) => words.every((word) => name.includes(word)));
let different = 0;
for (const [number, [name, observe]] of observations.entries()) {
  const [expected, got] = await Promise.all(clusters.map((cluster) => {
    return observed(cluster, number, observe);
  }));
  if (isDeepStrictEqual(expected, got) && !expected?.failed) continue;
  different += 1;
  const shown = (result) => (result?.failed ?? JSON.stringify(result)).slice(0, 2000);
  console.log(`DIFFERENT ${name}\n  node:  ${shown(expected)}\n  slabd: ${shown(got)}`);
}
await Promise.all(clusters.map((cluster) => cluster.stop()));
const outcome = different ? `${different} different` : "all equal";
console.log(`${observations.length} observations, ${outcome}`);
process.exit(different ? 1 : 0);

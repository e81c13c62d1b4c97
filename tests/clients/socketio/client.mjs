// Observations of the official client on a server that it stays connected to: verbs, payloads,
// events, acknowledgements, binary.
import { KINDS, next, record, sleep } from "./context.mjs";

// Publishes a value in a channel that the publisher is subscribed to. Returns its acknowledgement,
// and the event that arrives.
const echo = (value) => async (context) => {
  const channel = context.channel("echo");
  const socket = await context.member(channel);
  const arrives = new Promise((done) => socket.onAny((...event) => done(event)));
  const ack = await socket.emitWithAck("publish", channel, value);
  return { ack, event: ack.error ? undefined : await arrives };
};

// Publishes a body by HTTP. Returns the event that arrives.
const fromHttp = (body) => async (context) => {
  const channel = context.channel("http");
  const socket = await context.member(channel);
  const arrives = new Promise((done) => socket.onAny((...event) => done(event)));
  return [await context.publish(channel, body), await arrives];
};

// Emits an event, and returns its acknowledgement.
const asked = (...event) => async (context) => {
  const socket = await context.client();
  return socket.emitWithAck(...event);
};

const nested = (levels) => JSON.parse("[".repeat(levels) + "]".repeat(levels));
const allBytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

// What a publish becomes. The name says what is published.
const payloads = {
  "a string arrives": echo("hello"),
  "an empty string arrives": echo(""),
  "a string of JSON in quotes arrives as a string": echo('"quoted"'),
  "a string that is nearly JSON arrives as a string": echo('{"a":1'),
  "a string of a number arrives as a number": echo("5"),
  "a string of an object arrives as an object": echo('{"a":[1,2]}'),
  "a string of true arrives as true": echo("true"),
  "a string of null arrives as null": echo("null"),
  "a string with blanks around a number arrives as a string": echo(" 5 "),
  "a string that ends in a line end arrives as a string": echo('{"a":1}\n'),
  "a string of several lines arrives": echo("one\ntwo\r\nthree\ttabs"),
  "quotes and backslashes arrive": echo('say "\\" and \\\\n'),
  "unicode arrives": echo("Grüße, Ελλάδα, 日本語, עברית"),
  "emoji arrive": echo("😀👩‍👩‍👧‍👦🏳️‍🌈"),
  "control characters arrive": echo("\u0000\u0001\u001e\u001f\u007f"),
  "line separators of JavaScript arrive": echo("\u2028\u2029"),
  "a byte order mark arrives": echo("\ufeffmark"),
  "half of a surrogate pair is refused": echo("\ud83d"),
  "an integer arrives": echo(42),
  "zero arrives": echo(0),
  "a negative number arrives": echo(-17),
  "a fraction arrives": echo(3.141592653589793),
  "a very large number arrives": echo(1.7976931348623157e308),
  "a very small number arrives": echo(5e-324),
  "an integer beyond 53 bits arrives": echo(2 ** 63),
  "true arrives": echo(true),
  "false arrives": echo(false),
  "null arrives": echo(null),
  "an object arrives": echo({ a: 1, b: [true, null], "": { "ä": "😀" } }),
  "an empty object arrives": echo({}),
  "an empty array arrives": echo([]),
  "an array of numbers arrives": echo([1, 2, 3]),
  "nested arrays arrive": echo([[["a"], []], [[[]]]]),
  "an array of 64 levels arrives": echo(nested(62)),
  "an object with a key __proto__ arrives": echo(JSON.parse('{"__proto__":{"a":1}}')),
  "a date arrives as a string": echo(new Date(0)),
  "NaN arrives as null": echo(NaN),
  "undefined in an array arrives as null": echo([undefined]),
  "an object without values arrives empty": echo({ a: undefined }),
  "a string of 100 KB arrives": echo("x".repeat(100_000)),
  "a string of 100 KB of emoji arrives": echo("😀".repeat(25_000)),
  "an array of 10,000 numbers arrives": echo(Array.from({ length: 10_000 }, (_, n) => n)),
};

// A JSON array that begins with a string is an event of its own.
const events = {
  "an array that begins with a string arrives as this event": echo(["chat", "hi"]),
  "an event without arguments arrives": echo(["chat"]),
  "an event with several arguments arrives": echo(["chat", 1, { a: [] }, [["b"]], null, true]),
  "an event with an empty name arrives": echo(["", 1]),
  "an event of unicode arrives": echo(["Grüße 😀", "x"]),
  "an event named message arrives": echo(["message", "mine"]),
  "an event named like a verb arrives": echo(["publish", "a", "b"]),
  "an event named error arrives": echo(["error", "x"]),
  "an event named ping arrives": echo(["ping"]),
  "a string of JSON of an event arrives as this event": echo('["chat",{"a":1}]'),
  "the name connect is reserved": echo(["connect", 1]),
  "the name connect_error is reserved": echo(["connect_error", 1]),
  "the name disconnect is reserved": echo(["disconnect", 1]),
  "the name disconnecting is reserved": echo(["disconnecting"]),
  "the name newListener is reserved": echo(["newListener"]),
  "the name removeListener is reserved": echo(["removeListener"]),
};

const binaries = {
  "bytes arrive as binary": echo(Buffer.from([0, 255, 254])),
  "all bytes arrive as binary": echo(allBytes),
  "bytes of text arrive as text": echo(Buffer.from("text")),
  "bytes of JSON arrive as a value": echo(Buffer.from('{"a":1}')),
  "no bytes arrive as an empty string": echo(Buffer.alloc(0)),
  "a Uint8Array arrives": echo(new Uint8Array([128, 1, 2])),
  "an ArrayBuffer arrives": echo(new Uint8Array([255, 0, 1, 2]).buffer),
  "100 KB of bytes arrive": echo(Buffer.alloc(100_000, 0xff)),
  "binary in an object is refused": echo({ a: Buffer.from([255]) }),
  "binary in an array is refused": echo([1, Buffer.from([255])]),
  "binary in place of a channel is refused": asked("publish", Buffer.from([255]), "x"),
  "more than two arguments with binary are refused":
    asked("publish", "a", Buffer.from([1]), Buffer.from([2])),
  "text and binary keep their order": async (context) => {
    const channel = context.channel("mixed");
    const socket = await context.member(channel);
    const got = record(socket, "message");
    const sent = ["a", Buffer.from([255, 1]), "b", Buffer.from([255, 2]), "c"];
    for (const value of sent) socket.emit("publish", channel, value);
    return got.until(sent.length);
  },
  "ten binary messages in a row arrive whole": async (context) => {
    const channel = context.channel("row");
    const socket = await context.member(channel);
    const got = record(socket, "message");
    for (let n = 0; n < 10; n += 1) {
      socket.emit("publish", channel, Buffer.alloc(1_000 + n, 0xf0 + n));
    }
    return got.until(10);
  },
};

const byHttp = {
  "text published by HTTP arrives": fromHttp("from HTTP"),
  "JSON published by HTTP arrives": fromHttp('{"a":[1,"b"]}'),
  "an event published by HTTP arrives": fromHttp('["chat","from HTTP",5]'),
  "bytes published by HTTP arrive": fromHttp(Buffer.from([0xc3, 0x28])),
  "an empty body published by HTTP arrives": fromHttp(""),
  "numbers published by HTTP keep their value": fromHttp("-0.10e2"),
};

const verbs = {
  "subscribe names its channel": asked("subscribe", "one"),
  "subscribe names all its channels": asked("subscribe", "one", "two", "three"),
  "subscribe names a channel that it names twice": asked("subscribe", "one", "one"),
  "subscribe without a channel is refused": asked("subscribe"),
  "subscribe to a number is refused": asked("subscribe", 5),
  "subscribe to an empty name is accepted": asked("subscribe", ""),
  "subscribe to an array is refused": asked("subscribe", ["a"]),
  "subscribe to an object is refused": asked("subscribe", { a: 1 }),
  "subscribe to null is refused": asked("subscribe", null),
  "subscribe to a name of unicode names it": asked("subscribe", "Grüße 😀 \"x\" \\"),
  "subscribe to nothing of what it names if one is refused": async (context) => {
    const channel = context.channel("partly");
    const socket = await context.client();
    const ack = await socket.emitWithAck("subscribe", channel, 5);
    return [ack, await socket.emitWithAck("publish", channel, "x")];
  },
  "unsubscribe names its channels": asked("unsubscribe", "one", "two"),
  "unsubscribe from a number is refused": asked("unsubscribe", 5),
  "publish without data is refused": asked("publish", "a"),
  "publish without arguments is refused": asked("publish"),
  "publish to a number is refused": asked("publish", 5, "x"),
  "publish to an empty name is accepted": asked("publish", "", "x"),
  "publish of two values is refused": asked("publish", "a", "b", "c"),
  "publish counts no receiver": async (context) => {
    const socket = await context.client();
    return socket.emitWithAck("publish", context.channel("nobody"), "x");
  },
  "publish counts its receivers": async (context) => {
    const channel = context.channel("three");
    const [socket] = await Promise.all([1, 2, 3].map(() => context.member(channel)));
    return socket.emitWithAck("publish", channel, "x");
  },
  "a channel that is named twice gives each message once": async (context) => {
    const channel = context.channel("twice");
    const socket = await context.member(channel);
    await socket.emitWithAck("subscribe", channel, channel);
    const got = record(socket, "message");
    for (const value of ["x", "y"]) await socket.emitWithAck("publish", channel, value);
    return [...await got.until(2)];
  },
  "nothing arrives from a channel after unsubscribe": async (context) => {
    const channel = context.channel("left");
    const socket = await context.member(channel);
    await socket.emitWithAck("unsubscribe", channel);
    const got = record(socket, "message");
    const ack = await socket.emitWithAck("publish", channel, "x");
    await socket.emitWithAck("subscribe", channel);
    await socket.emitWithAck("publish", channel, "y");
    return [ack, await got.until(1)];
  },
  "subscribe works without an acknowledgement": async (context) => {
    const channel = context.channel("silent");
    const socket = await context.client();
    const got = next(socket, "message");
    socket.emit("subscribe", channel);
    socket.emit("publish", channel, "x");
    return got;
  },
  "an event that nobody knows is answered with an error": asked("nobody knows", 1, { a: 2 }),
  "an event whose name is a number is answered with an error": asked(5, "x"),
  "an event with an empty name is answered with an error": asked("", "x"),
  "an event that looks like a property is answered with an error": asked("constructor"),
  "an event that nobody knows does not disturb": async (context) => {
    const socket = await context.client();
    socket.emit("nobody knows", "x");
    socket.send("a message of the client");
    return [await socket.emitWithAck("subscribe", "after"), socket.connected];
  },
  "a binary event that nobody knows is answered with an error":
    asked("nobody knows", Buffer.from([1]), { deep: [Buffer.from([2])] }),
};

const acknowledgements = {
  "an acknowledgement has one argument": async (context) => {
    const socket = await context.client();
    return new Promise((done) => socket.emit("subscribe", "a", (...values) => done(values)));
  },
  "100 acknowledgements come back to their events in order": async (context) => {
    const socket = await context.client();
    const acks = [];
    await Promise.all(Array.from({ length: 100 }, async (_, n) => {
      acks.push(await socket.emitWithAck("subscribe", `channel ${n}`));
    }));
    return acks;
  },
  "an acknowledgement within its timeout gives no error": async (context) => {
    const socket = await context.client();
    return new Promise((done) => {
      socket.timeout(10_000).emit("subscribe", "a", (...values) => done(values));
    });
  },
  "emitWithAck within its timeout resolves": async (context) => {
    const socket = await context.client();
    return socket.timeout(10_000).emitWithAck("subscribe", "a");
  },
  "an acknowledgement that a disconnect prevents is an error": async (context) => {
    const socket = await context.client();
    const answer = new Promise((done) => {
      socket.timeout(10_000).emit("subscribe", "a", (error) => done(error.message));
    });
    socket.disconnect();
    return answer;
  },
  "a timeout while there is no connection is an error": async (context) => {
    const socket = context.lazy();
    return new Promise((done) => {
      socket.timeout(50).emit("subscribe", "a", (error) => done(error.message));
    });
  },
  "the option ackTimeout holds for all events": async (context) => {
    const socket = await context.client({ ackTimeout: 10_000 });
    return socket.emitWithAck("subscribe", "a");
  },
  "the option retries sends events one after the other": async (context) => {
    const channel = context.channel("retries");
    const socket = await context.member(channel, { retries: 3, ackTimeout: 10_000 });
    const got = record(socket, "message");
    for (let n = 0; n < 20; n += 1) socket.emit("publish", channel, n);
    return got.until(20);
  },
  "the server's acknowledgement of a binary event is text": async (context) => {
    const socket = await context.client();
    return socket.emitWithAck("publish", "binary", Buffer.from([255]));
  },
};

const order = {
  "1,000 messages arrive in order": async (context) => {
    const channel = context.channel("many");
    const [reader, writer] = [await context.member(channel), await context.client()];
    const got = record(reader, "message");
    for (let n = 0; n < 1_000; n += 1) writer.emit("publish", channel, n);
    return (await got.until(1_000)).map(([, value]) => value);
  },
  "events before the connection are sent once there is one": async (context) => {
    const channel = context.channel("early");
    const socket = context.lazy();
    const got = record(socket, "message");
    socket.emit("subscribe", channel);
    for (const value of ["a", "b", "c"]) socket.emit("publish", channel, value);
    socket.connect();
    return got.until(3);
  },
  "all receivers see the messages of two publishers in one order": async (context) => {
    const channel = context.channel("order");
    const sockets = await Promise.all([1, 2, 3, 4].map(() => context.member(channel)));
    const got = sockets.map((socket) => record(socket, "message"));
    for (let n = 0; n < 50; n += 1) {
      for (const socket of sockets.slice(0, 2)) socket.emit("publish", channel, n);
    }
    const lists = await Promise.all(got.map((list) => list.until(100)));
    const texts = new Set(lists.map((list) => JSON.stringify(list)));
    return { orders: texts.size, messages: lists.map((list) => list.length) };
  },
  "two namespaces of one connection get each message in order": async (context) => {
    const channel = context.channel("both");
    const one = await context.member(channel, { multiplex: true, forceNew: false });
    const two = one.io.socket("/chat");
    context.opened.push(() => two.disconnect());
    two.connect();
    await two.emitWithAck("subscribe", channel);
    const lists = [one, two].map((socket) => record(socket, "message"));
    const ack = await one.emitWithAck("publish", channel, "first");
    await two.emitWithAck("publish", channel, "second");
    return [ack, ...await Promise.all(lists.map((list) => list.until(2)))];
  },
  "a volatile event arrives while there is a connection": async (context) => {
    const channel = context.channel("volatile");
    const socket = await context.member(channel);
    // By polling the client is writable only between two requests.
    while (!socket.io.engine.transport.writable) await sleep(5);
    const got = next(socket, "message");
    socket.volatile.emit("publish", channel, "x");
    return got;
  },
  "a volatile event without a connection is dropped": async (context) => {
    const channel = context.channel("dropped");
    const socket = context.lazy();
    const got = record(socket, "message");
    socket.emit("subscribe", channel);
    socket.volatile.emit("publish", channel, "volatile");
    socket.emit("publish", channel, "kept");
    socket.connect();
    return got.until(1);
  },
  "an event without compression arrives": async (context) => {
    const channel = context.channel("compress");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    socket.compress(false).emit("publish", channel, "x");
    return got;
  },
  "all listeners of any kind hear a message": async (context) => {
    const channel = context.channel("listeners");
    const socket = await context.member(channel);
    const heard = [];
    socket.prependAny((...event) => heard.push(["prepend", ...event]));
    socket.onAny((...event) => heard.push(["any", ...event]));
    socket.onAnyOutgoing((...event) => heard.push(["outgoing", ...event.slice(0, 3)]));
    socket.once("message", (...values) => heard.push(["once", ...values]));
    socket.on("message", (...values) => heard.push(["on", ...values]));
    const first = next(socket, "message");
    await socket.emitWithAck("publish", channel, "one");
    await first;
    const second = next(socket, "message");
    socket.emit("publish", channel, "two");
    await second;
    return heard;
  },
};

const large = {
  "a message of nearly the maximum payload arrives": async (context) => {
    const channel = context.channel("large");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    const value = "x".repeat(65_400 - channel.length);
    const ack = await socket.emitWithAck("publish", channel, value);
    const [, text] = await got;
    return [ack, text === value];
  },
  "ten messages that are more than the maximum payload together arrive": async (context) => {
    const channel = context.channel("together");
    const socket = await context.member(channel);
    const got = record(socket, "message");
    for (const letter of "abcdefghij") socket.emit("publish", channel, letter.repeat(30_000));
    return (await got.until(10)).map(([, text]) => [text.length, text[0]]);
  },
  "a message beyond the maximum payload ends the connection": async (context) => {
    const socket = await context.client({ reconnection: false });
    const why = next(socket, "disconnect");
    socket.emit("publish", "a", "x".repeat(90_000));
    return (await why)[0];
  },
  "binary beyond the maximum payload ends the connection": async (context) => {
    const socket = await context.client({ reconnection: false });
    const why = next(socket, "disconnect");
    socket.emit("publish", "a", Buffer.alloc(90_000, 255));
    return (await why)[0];
  },
  "the connection comes back after a message beyond the maximum": async (context) => {
    const socket = await context.client();
    const again = new Promise((done) => socket.once("disconnect", () => {
      socket.once("connect", done);
    }));
    socket.emit("publish", "a", "x".repeat(90_000));
    await again;
    return socket.emitWithAck("subscribe", "again");
  },
};

export default [
  { kinds: KINDS, ...payloads },
  { kinds: KINDS, ...events },
  { kinds: KINDS, ...binaries },
  { kinds: KINDS, ...byHttp },
  { kinds: KINDS, ...verbs },
  { kinds: KINDS, ...acknowledgements },
  { kinds: KINDS, ...order },
  { kinds: ["websocket", "polling"], variant: "small", ...large },
];

// Observations of Engine.IO by WebSocket: handshakes, pings, and upgrades from polling.
import { SEPARATOR, next, record, sleep } from "./context.mjs";
import { ORIGIN } from "./servers.mjs";

const WEBSOCKET = "/socket.io/?EIO=4&transport=websocket";

// Sends these messages on a WebSocket that has no client of Socket.IO yet. Returns the answers
// until the server closes it.
const fatal = (...messages) => async (context) => {
  const socket = await context.websocket();
  await socket.next();
  socket.send(...messages);
  const got = [];
  while (!got.at(-1)?.closed) got.push(await socket.next());
  return got.map((message) => message.closed ? "closed" : message);
};

const refused = (path, options) => async (context) => context.refused(path, options);

const opening = {
  "the open packet comes first and offers no upgrade": async (context) => {
    const socket = await context.websocket();
    const message = await socket.next();
    const open = JSON.parse(message.slice(1));
    return [message[0], Object.keys(open), { ...open, sid: /^[\w-]{20}$/.test(open.sid) }];
  },
  "a client connects": async (context) => {
    const socket = await context.websocket();
    socket.send("40");
    return (await socket.take(2)).slice(1);
  },
  "no compression is negotiated": async (context) => {
    return (await context.websocket()).socket.extensions;
  },
  "no subprotocol is needed": async (context) => (await context.websocket()).socket.protocol,
  "a ping of WebSocket is answered": async (context) => {
    const { socket } = await context.websocket();
    const pong = next(socket, "pong");
    socket.ping("are you there");
    return (await pong)[0].toString();
  },
  "a message in fragments is served": async (context) => {
    const socket = await context.connected();
    for (const part of ['427["sub', 'scribe",', '"a"]']) {
      socket.socket.send(part, { fin: part.endsWith("]") });
    }
    return socket.next();
  },
  "a pong that nobody asked for does not disturb": async (context) => {
    const socket = await context.connected();
    socket.send("3", "6", "5", "0");
    return socket.answer();
  },
  "a websocket of an unknown session is refused": refused(`${WEBSOCKET}&sid=AAAAAAAAAAAAAAAAAAAA`),
  "a websocket of a session of another length is refused": refused(`${WEBSOCKET}&sid=short`),
  "a websocket of an unknown transport is refused": refused("/socket.io/?EIO=4&transport=tcp"),
  "a websocket without a transport is refused": refused("/socket.io/?EIO=4"),
  "a websocket of another origin is refused": async (context) => {
    const answer = await context.refused(WEBSOCKET, { origin: "http://other.example" });
    return answer.status >= 400;
  },
  "a websocket of an allowed origin opens": refused(WEBSOCKET, { origin: ORIGIN }),
  "a client that closes leaves": async (context) => {
    const channel = context.channel("closes");
    const [socket, other] = [await context.connected(), await context.client()];
    socket.send(`421["subscribe","${channel}"]`);
    await socket.next();
    socket.send("1");
    socket.socket.close();
    for (;;) {
      const ack = await other.emitWithAck("publish", channel, "x");
      if (ack.receivers === 0) return [Boolean((await socket.next()).closed), ack];
      await sleep(10);
    }
  },
  "a client that ends its connection leaves": async (context) => {
    const channel = context.channel("ends");
    const [socket, other] = [await context.connected(), await context.client()];
    socket.send(`421["subscribe","${channel}"]`);
    await socket.next();
    socket.socket.terminate();
    for (;;) {
      const ack = await other.emitWithAck("publish", channel, "x");
      if (ack.receivers === 0) return ack;
      await sleep(10);
    }
  },
  "a ping of the client closes": fatal("2"),
  "a probe without a session to upgrade closes": fatal("2probe"),
  "an unknown packet closes": fatal("7"),
  "an empty packet closes": fatal(""),
  "text that is no packet closes": fatal("hello"),
  "binary without an event closes": fatal(Buffer.from([1, 2, 3])),
  "a message without Socket.IO in it closes": fatal("4"),
  "an event before a connect closes": fatal('42["subscribe","a"]'),
  "base64 is served as binary by WebSocket too": async (context) => {
    const socket = await context.connected();
    const channel = context.channel("base64");
    socket.send(`421["subscribe","${channel}"]`);
    await socket.next();
    socket.send(`451-["publish","${channel}",{"_placeholder":true,"num":0}]`, "b//79");
    return socket.take(2);
  },
};

// Begins the upgrade of a client of polling. Returns its session and its WebSocket.
const probed = async (context) => {
  const polls = await context.polling();
  const socket = await polls.upgrade();
  socket.send("2probe");
  return { polls, socket, answer: await socket.next() };
};

// Finishes an upgrade.
const upgraded = async (context) => {
  const { polls, socket, answer } = await probed(context);
  socket.send("5");
  return { polls, socket, answer };
};

const upgrades = {
  "a probe is answered": async (context) => (await probed(context)).answer,
  "a probe before a connect is answered": async (context) => {
    const polls = await context.polls();
    const socket = await polls.upgrade();
    socket.send("2probe");
    const answer = await socket.next();
    socket.send("5", "40");
    return [answer, await socket.next()];
  },
  "an upgraded client is served by WebSocket": async (context) => {
    const { socket } = await upgraded(context);
    socket.send('421["subscribe","a"]');
    return socket.next();
  },
  "a poll that waits is freed by the upgrade": async (context) => {
    const polls = await context.polling();
    const { answer } = await polls.pending();
    const socket = await polls.upgrade();
    socket.send("2probe");
    const probe = await socket.next();
    const freed = await answer;
    socket.send("5");
    return [probe, freed.status, freed.body, await socket.answer()];
  },
  "a poll that comes after the probe is freed too": async (context) => {
    const { polls, socket } = await probed(context);
    const { status, body } = await polls.get();
    socket.send("5");
    return [status, body, await socket.answer()];
  },
  "two polls in turn after the probe are freed": async (context) => {
    const { polls, socket } = await probed(context);
    const bodies = [(await polls.get()).body, (await polls.get()).body];
    socket.send("5");
    return [bodies, await socket.answer()];
  },
  "a POST between the probe and the upgrade is served": async (context) => {
    const { polls, socket } = await probed(context);
    const post = await polls.post('421["subscribe","a"]');
    const poll = await polls.get();
    socket.send("5");
    return [post.body, poll.body, await socket.answer()];
  },
  "what waits for a poll moves to the WebSocket": async (context) => {
    const { polls, socket } = await probed(context);
    await polls.post('421["subscribe","a"]');
    socket.send("5");
    return socket.next();
  },
  "binary that waits for a poll moves to the WebSocket as binary": async (context) => {
    const channel = context.channel("moves");
    const { polls, socket } = await probed(context);
    await polls.post(`421["subscribe","${channel}"]`);
    await polls.get();
    await context.publish(channel, Buffer.from([255, 254]));
    socket.send("5");
    return socket.take(2);
  },
  "the message of a poll is not sent again by WebSocket": async (context) => {
    const channel = context.channel("once");
    const { polls, socket } = await probed(context);
    await polls.post(`421["subscribe","${channel}"]`);
    await polls.get();
    await context.publish(channel, "first");
    const { body } = await polls.get();
    socket.send("5");
    await socket.answer();
    await context.publish(channel, "second");
    return [body, await socket.next()];
  },
  "an event between two halves of an upgrade keeps its binary": async (context) => {
    const channel = context.channel("halves");
    const reader = await context.member(channel);
    const got = next(reader, "message");
    const { polls, socket } = await probed(context);
    await polls.post(`451-["publish","${channel}",{"_placeholder":true,"num":0}]`);
    socket.send("5", Buffer.from([255, 1]));
    return got;
  },
  "polling after the upgrade is a bad request": async (context) => {
    const { polls, socket } = await upgraded(context);
    await socket.answer();
    const { status, body } = await polls.get();
    return [status, body, await socket.answer()];
  },
  "a POST after the upgrade is a bad request": async (context) => {
    const { polls, socket } = await upgraded(context);
    await socket.answer();
    const { status, body } = await polls.post("3");
    return [status, body, await socket.answer()];
  },
  "a second websocket during the upgrade is closed": async (context) => {
    const { polls, socket } = await probed(context);
    const second = await polls.upgrade();
    const end = await second.next();
    socket.send("5");
    return [Boolean(end.closed), await socket.answer()];
  },
  "a second websocket after the upgrade is closed": async (context) => {
    const { polls, socket } = await upgraded(context);
    await socket.answer();
    const end = await (await polls.upgrade()).next();
    return [Boolean(end.closed), await socket.answer()];
  },
  "a polling request for a client of WebSocket is a bad request": async (context) => {
    const socket = await context.websocket();
    const { sid } = JSON.parse((await socket.next()).slice(1));
    socket.send("40");
    await socket.next();
    const path = `/socket.io/?EIO=4&transport=polling&sid=${sid}`;
    const { status, body } = await context.request("GET", path);
    return [status, body, await socket.answer()];
  },
  "something else than a probe closes the websocket only": async (context) => {
    const polls = await context.polling();
    const socket = await polls.upgrade();
    socket.send("40");
    return [Boolean((await socket.next()).closed), await polls.state()];
  },
  "something else than the upgrade after the probe closes the websocket only":
    async (context) => {
      const { polls, socket } = await probed(context);
      socket.send('42["subscribe","a"]');
      return [Boolean((await socket.next()).closed), await polls.state()];
    },
  "an unknown packet in place of a probe closes the websocket only": async (context) => {
    const polls = await context.polling();
    const socket = await polls.upgrade();
    socket.send("x");
    return [Boolean((await socket.next()).closed), await polls.state()];
  },
  "the end of a websocket during its upgrade leaves the session": async (context) => {
    const { polls, socket } = await probed(context);
    socket.socket.terminate();
    await polls.post('421["subscribe","a"]');
    return [(await polls.get()).body.split(SEPARATOR).at(-1), await polls.state()];
  },
  "an upgrade may be tried again": async (context) => {
    const { polls, socket } = await probed(context);
    socket.socket.terminate();
    for (;;) {
      const again = await polls.upgrade();
      again.send("2probe");
      const answer = await again.next();
      if (answer.closed) continue;
      again.send("5");
      return [answer, await again.answer()];
    }
  },
  "a second probe is answered": async (context) => {
    const { socket } = await probed(context);
    socket.send("2probe");
    const answer = await socket.next();
    socket.send("5");
    return [answer, await socket.answer()];
  },
  "the upgrade without a probe is accepted": async (context) => {
    const polls = await context.polling();
    const socket = await polls.upgrade();
    socket.send("5");
    return socket.answer();
  },
  "the end of the session ends the websocket of its upgrade": async (context) => {
    const { polls, socket } = await probed(context);
    await polls.post("1");
    return Boolean((await socket.next()).closed);
  },
  "a websocket that never probes is closed, and the session stays": async (context) => {
    const polls = await context.polling();
    const socket = await polls.upgrade();
    return [Boolean((await socket.next()).closed), await polls.state()];
  },
  "an upgrade that is never finished ends the websocket only": async (context) => {
    const { polls, socket } = await probed(context);
    return [Boolean((await socket.next()).closed), await polls.state()];
  },
};

// While the server pings each 300 ms and waits for 200 ms.
const pings = {
  "the server pings": async (context) => {
    const socket = await context.connected();
    return socket.next();
  },
  "a client that answers each ping stays": async (context) => {
    const socket = await context.connected();
    const got = [];
    for (let n = 0; n < 4; n += 1) {
      got.push(await socket.next());
      socket.send("3");
    }
    return got;
  },
  "a client that does not answer is closed": async (context) => {
    const socket = await context.connected();
    return (await socket.take(2)).map((message) => message.closed ? "closed" : message);
  },
  "a client that answers late is closed": async (context) => {
    const socket = await context.connected();
    await socket.next();
    await sleep(400);
    socket.send("3");
    return Boolean((await socket.next()).closed);
  },
  "a client of a namespace alone is pinged": async (context) => {
    const socket = await context.websocket();
    socket.send("40/chat,");
    return (await socket.take(3)).slice(1);
  },
  "a client that has not connected is pinged": async (context) => {
    const socket = await context.websocket();
    return (await socket.take(2)).slice(1);
  },
  "an upgraded client is pinged by WebSocket": async (context) => {
    const polls = await context.polling();
    const socket = await polls.upgrade();
    socket.send("2probe", "5");
    const got = await socket.take(2);
    socket.send("3");
    return [...got, await socket.next()];
  },
  "pings go on while messages pass": async (context) => {
    const channel = context.channel("busy");
    const socket = await context.connected();
    const seen = record(socket.socket, "message");
    socket.send(`42["subscribe","${channel}"]`);
    const sender = setInterval(() => socket.send(`42["publish","${channel}","x"]`), 20);
    context.opened.push(() => clearInterval(sender));
    const isPing = ([data]) => data.toString() === "2";
    while (!seen.some(isPing)) await sleep(20);
    socket.send("3");
    return "pinged";
  },
};

const small = {
  "a message beyond the maximum payload closes": async (context) => {
    const socket = await context.connected();
    socket.send(`42["publish","a","${"x".repeat(90_000)}"]`);
    return socket.next();
  },
  "a message of exactly the maximum payload is served": async (context) => {
    const socket = await context.connected();
    const [head, tail] = ['420["publish","a","', '"]'];
    socket.send(head + "x".repeat(65_536 - head.length - tail.length) + tail);
    return socket.next();
  },
  "a message of one byte more than the maximum payload closes": async (context) => {
    const socket = await context.connected();
    const [head, tail] = ['420["publish","a","', '"]'];
    socket.send(head + "x".repeat(65_537 - head.length - tail.length) + tail);
    return socket.next();
  },
  "fragments beyond the maximum payload close": async (context) => {
    const socket = await context.connected();
    for (let n = 0; n < 5; n += 1) {
      socket.socket.send("x".repeat(30_000), { fin: false }, () => {});
    }
    return socket.next();
  },
};

export default [
  opening,
  upgrades,
  { variant: "quick", ...pings },
  { variant: "small", ...small },
];

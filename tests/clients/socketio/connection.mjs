// Observations of the official client as it connects and disconnects: transports, namespaces,
// passwords, restarts, and a server that cuts connections.
import { KINDS, next, reason, record, sleep } from "./context.mjs";
import { PASSWORD } from "./servers.mjs";

const transport = (socket) => socket.io.engine.transport.name;

const upgraded = async (socket) => {
  if (transport(socket) !== "websocket") await next(socket.io.engine, "upgrade");
};

// Returns a further socket of a client's connection.
const further = (context, socket, namespace, options) => {
  const other = socket.io.socket(namespace, options);
  context.opened.push(() => other.disconnect());
  return other;
};

const connecting = {
  "a client gets an id of its own": async (context) => {
    const [one, two] = [await context.client(), await context.client()];
    const ids = [one.id, two.id, one.io.engine.id, two.io.engine.id];
    return [ids.every((id) => /^[\w-]{20}$/.test(id)), new Set(ids).size, one.connected];
  },
  "a client is new, not recovered": async (context) => (await context.client()).recovered,
  "a client ends with its transport": async (context) => {
    const socket = await context.client();
    if (!context.transports) await upgraded(socket);
    return transport(socket);
  },
  "a client disconnects": async (context) => {
    const socket = await context.client();
    const why = reason(socket);
    socket.disconnect();
    return [await why, socket.connected, socket.id];
  },
  "a client that has disconnected can connect again": async (context) => {
    const channel = context.channel("again");
    const socket = await context.member(channel);
    const first = socket.id;
    socket.disconnect();
    const connected = next(socket, "connect");
    socket.connect();
    await connected;
    const ack = await socket.emitWithAck("publish", channel, "x");
    return [ack, socket.id !== first];
  },
  "the subscriptions of a client that disconnects end": async (context) => {
    const channel = context.channel("ends");
    const [socket, other] = [await context.member(channel), await context.client()];
    socket.disconnect();
    for (;;) {
      const ack = await other.emitWithAck("publish", channel, "x");
      if (ack.receivers === 0) return ack;
      await sleep(10);
    }
  },
  "the subscriptions of a client whose transport ends end": async (context) => {
    const channel = context.channel("cut");
    const other = await context.client();
    const socket = await context.member(channel, { reconnection: false });
    const why = reason(socket);
    socket.io.engine.close();
    for (;;) {
      const ack = await other.emitWithAck("publish", channel, "x");
      if (ack.receivers === 0) return [await why, ack];
      await sleep(10);
    }
  },
  "a client reconnects after its transport has ended, without its subscriptions":
    async (context) => {
      const channel = context.channel("back");
      const socket = await context.member(channel);
      const first = socket.id;
      const attempts = record(socket.io, "reconnect_attempt");
      const got = record(socket, "message");
      const back = next(socket, "connect");
      const why = reason(socket);
      // The engine of the client ends without a word to the server.
      socket.io.engine.transport.ws?.terminate();
      socket.io.engine.transport.onError("cut");
      await back;
      await socket.emitWithAck("publish", channel, "missed");
      await socket.emitWithAck("subscribe", channel);
      await socket.emitWithAck("publish", channel, "x");
      return [await why, attempts.length > 0, first !== socket.id, await got.until(1)];
    },
  "events between two connections wait for the second": async (context) => {
    const channel = context.channel("between");
    const socket = await context.client();
    const why = reason(socket);
    socket.io.engine.close();
    await why;
    socket.emit("subscribe", channel);
    socket.emit("publish", channel, "kept");
    return next(socket, "message");
  },
  "clients that force a new connection have one each": async (context) => {
    const [one, two] = [await context.client(), await context.client({}, "/chat")];
    return one.io !== two.io;
  },
  "a query of the application does not disturb": async (context) => {
    const socket = await context.client({ query: { name: "ä b&c=d", sid2: "x", "": "" } });
    return socket.emitWithAck("subscribe", "a");
  },
  "headers of the application do not disturb": async (context) => {
    const extraHeaders = { "X-Custom": "ä", Authorization: "x y" };
    const socket = await context.client({ extraHeaders });
    return socket.emitWithAck("subscribe", "a");
  },
  "the option timestampRequests does not disturb": async (context) => {
    const socket = await context.client({ timestampRequests: true, timestampParam: "ts" });
    return socket.emitWithAck("subscribe", "a");
  },
  "auth does not disturb where no password is set": async (context) => {
    const socket = await context.client({ auth: { user: "a", password: "b", deep: [{ a: 1 }] } });
    return socket.emitWithAck("subscribe", "a");
  },
  "auth of Socket.IO's recovery does not disturb": async (context) => {
    const socket = await context.client({ auth: { pid: "abc", offset: "def" } });
    return [socket.recovered, await socket.emitWithAck("subscribe", "a")];
  },
  "100 clients connect and leave": async (context) => {
    const channel = context.channel("hundred");
    const acks = await Promise.all(Array.from({ length: 100 }, async (_, n) => {
      const socket = await context.client();
      const ack = await socket.emitWithAck("publish", channel, n);
      socket.disconnect();
      return ack;
    }));
    return acks.every(({ published, receivers }) => published === channel && receivers === 0);
  },
};

const upgrades = {
  "a client begins with polling and upgrades": async (context) => {
    const socket = context.lazy();
    const names = [];
    socket.io.once("open", () => names.push(transport(socket)));
    socket.connect();
    await next(socket, "connect");
    await upgraded(socket);
    return [...names, transport(socket), socket.connected];
  },
  "no message is lost or doubled while a client upgrades": async (context) => {
    const channel = context.channel("upgrade");
    const socket = context.lazy();
    const writer = await context.client({ transports: ["websocket"] });
    const got = record(socket, "message");
    socket.connect();
    await socket.emitWithAck("subscribe", channel);
    for (let n = 0; n < 300; n += 1) await writer.emitWithAck("publish", channel, n);
    const list = await got.until(300);
    await upgraded(socket);
    return [transport(socket), list.map(([, value]) => value)];
  },
  "no event is lost or doubled while a client upgrades": async (context) => {
    const channel = context.channel("upgrades");
    const reader = await context.member(channel, { transports: ["websocket"] });
    const got = record(reader, "message");
    const socket = await context.client();
    for (let n = 0; n < 300; n += 1) await socket.emitWithAck("publish", channel, n);
    await upgraded(socket);
    return [transport(socket), (await got.until(300)).map(([, value]) => value)];
  },
  "binary messages survive an upgrade": async (context) => {
    const channel = context.channel("binary upgrade");
    const socket = context.lazy();
    const got = record(socket, "message");
    socket.connect();
    await socket.emitWithAck("subscribe", channel);
    for (let n = 0; n < 50; n += 1) {
      await socket.emitWithAck("publish", channel, Buffer.from([255, n]));
    }
    return got.until(50);
  },
  "a client may keep polling": async (context) => {
    const socket = await context.client({ upgrade: false });
    const acks = [];
    for (let n = 0; n < 5; n += 1) acks.push(await socket.emitWithAck("subscribe", "a"));
    return [acks, transport(socket)];
  },
  "a client that prefers websocket begins with it": async (context) => {
    const socket = await context.client({ transports: ["websocket", "polling"] });
    return transport(socket);
  },
  "a client that disconnects at once during its upgrade can come back": async (context) => {
    const socket = context.lazy();
    const acks = [];
    for (let n = 0; n < 5; n += 1) {
      const connected = next(socket, "connect");
      socket.connect();
      await connected;
      acks.push(await socket.emitWithAck("subscribe", "a"));
      socket.disconnect();
    }
    return acks;
  },
};

const namespaces = {
  "two namespaces share a connection": async (context) => {
    const one = await context.client();
    const two = further(context, one, "/chat");
    await context.outcome(two);
    return [one.io.engine === two.io.engine, one.id !== two.id, two.nsp];
  },
  "a namespace that does not exist is refused": async (context) => {
    return context.outcome(context.lazy({}, "/nowhere"));
  },
  "a namespace that does not exist does not disturb another": async (context) => {
    const socket = await context.client();
    const outcome = await context.outcome(further(context, socket, "/nowhere"));
    return [outcome, await socket.emitWithAck("subscribe", "a")];
  },
  "a namespace has a name in upper and lower case": async (context) => {
    return context.outcome(context.lazy({}, "/Chat"));
  },
  "a namespace alone is a client": async (context) => {
    const socket = await context.client({}, "/chat");
    return socket.emitWithAck("subscribe", "a");
  },
  "a socket that leaves one namespace stays in the other": async (context) => {
    const channel = context.channel("leave");
    const one = await context.member(channel);
    const two = further(context, one, "/chat");
    two.connect();
    await two.emitWithAck("subscribe", channel);
    const why = reason(two);
    two.disconnect();
    return [await why, await one.emitWithAck("publish", channel, "x"), one.connected];
  },
  "the first socket may leave before the second": async (context) => {
    const channel = context.channel("first");
    const one = await context.member(channel);
    const two = further(context, one, "/chat");
    two.connect();
    await two.emitWithAck("subscribe", channel);
    one.disconnect();
    for (;;) {
      const ack = await two.emitWithAck("publish", channel, "x");
      if (ack.receivers === 1) return [ack, two.connected];
      await sleep(10);
    }
  },
  "a socket may join a namespace again": async (context) => {
    const one = await context.client();
    const two = further(context, one, "/chat");
    const outcomes = [];
    for (let n = 0; n < 3; n += 1) {
      outcomes.push(await context.outcome(two));
      two.disconnect();
    }
    return [outcomes, await one.emitWithAck("subscribe", "a")];
  },
  "acknowledgements of two namespaces do not mix": async (context) => {
    const one = await context.client();
    const two = further(context, one, "/chat");
    two.connect();
    return Promise.all([1, 2, 3, 4].map((n) => {
      return (n % 2 ? one : two).emitWithAck("subscribe", `channel ${n}`);
    }));
  },
  "the end of a connection ends all its sockets": async (context) => {
    const one = await context.client({ reconnection: false });
    const two = further(context, one, "/chat");
    await context.outcome(two);
    const whys = Promise.all([one, two].map(reason));
    one.io.engine.close();
    return whys;
  },
  "a binary message reaches a socket of a namespace": async (context) => {
    const channel = context.channel("chat binary");
    const socket = await context.member(channel, {}, "/chat");
    const got = next(socket, "message");
    socket.emit("publish", channel, Buffer.from([255, 0]));
    return got;
  },
};

const locked = (auth) => async (context) => context.outcome(context.lazy({ auth }));

const passwords = {
  "a client without a password is refused": locked(undefined),
  "a client with a wrong password is refused": locked({ password: "wrong" }),
  "a client with an empty password is refused": locked({ password: "" }),
  "a client with a password that is a number is refused": locked({ password: 5 }),
  "a client with a password of null is refused": locked({ password: null }),
  "a client with auth of another kind is refused": locked({ user: "default" }),
  "a client with the password connects": locked({ password: PASSWORD }),
  "a client with the password as token connects": locked({ token: PASSWORD }),
  "a client with the password and more connects": locked({ password: PASSWORD, name: "a", n: [1] }),
  "a client with a function for auth connects": locked((give) => give({ password: PASSWORD })),
  "a client connects after its password has been corrected": async (context) => {
    const socket = context.lazy({ auth: { password: "wrong" } });
    const outcomes = [await context.outcome(socket)];
    socket.auth = { password: PASSWORD };
    outcomes.push(await context.outcome(socket));
    return [outcomes, await socket.emitWithAck("subscribe", "a")];
  },
  "a refused client does not try again by itself": async (context) => {
    const socket = context.lazy({ auth: { password: "wrong" } });
    const outcome = await context.outcome(socket);
    return [outcome, socket.active, socket.connected];
  },
  "a client with the password connects to two namespaces": async (context) => {
    const auth = { password: PASSWORD };
    const socket = await context.client({ auth });
    const other = further(context, socket, "/chat", { auth });
    return [await context.outcome(other), await other.emitWithAck("subscribe", "a")];
  },
  "a client is refused in one namespace and connects to another": async (context) => {
    const socket = context.lazy({ auth: { password: "wrong" } });
    const outcomes = [await context.outcome(socket)];
    const other = further(context, socket, "/chat", { auth: { password: PASSWORD } });
    return [...outcomes, await context.outcome(other), socket.connected];
  },
  "a namespace that does not exist is refused before the password": async (context) => {
    return context.outcome(context.lazy({}, "/nowhere"));
  },
};

// Waits until a client is connected again by its own attempts.
const back = (socket) => socket.connected || next(socket, "connect");

const restarts = (signal) => async (context) => {
  const channel = context.channel("restart");
  const socket = await context.client();
  if (!context.transports) await upgraded(socket);
  const [why, errors] = [reason(socket), record(socket, "connect_error")];
  // By polling, it takes a moment until a poll waits.
  await sleep(200);
  await context.server.stop(signal);
  const said = await why;
  await errors.until(2);
  const got = next(socket, "message");
  socket.emit("subscribe", channel);
  socket.emit("publish", channel, "sent while the server was away");
  await context.server.start();
  await back(socket);
  const [error] = errors[0];
  return [said, error.message, socket.active, await got];
};

const away = {
  "a client recovers from the end of the server": restarts("SIGTERM"),
  "a client recovers from a crash of the server": restarts("SIGKILL"),
  "a client gives up after the attempts that it was told": async (context) => {
    const socket = await context.client({ reconnectionAttempts: 2 });
    const [failed, attempts] = [next(socket.io, "reconnect_failed"),
      record(socket.io, "reconnect_attempt")];
    await context.server.stop("SIGTERM");
    await failed;
    return [attempts.map(([n]) => n), socket.active];
  },
};

// Ends the server at some moment of an upgrade, again and again.
const amidUpgrades = {
  "the server ends at once while a client upgrades": async (context) => {
    const results = [];
    for (const delay of [0, 4, 16]) {
      const socket = context.lazy({ reconnection: false });
      const connected = next(socket, "connect");
      socket.connect();
      await connected;
      const why = reason(socket);
      await sleep(delay);
      const start = Date.now();
      await context.server.stop("SIGTERM");
      results.push((await why).startsWith("transport"), Date.now() - start < 5_000);
      await context.server.start();
    }
    return results;
  },
};

const cuts = {
  "a client comes back when the server cuts its connection": async (context) => {
    const socket = await context.client({ transports: ["websocket"] });
    const [why, connected] = [reason(socket), record(socket, "connect")];
    await context.server.cut(socket.io.engine.transport.ws._socket.localPort);
    const said = await why;
    await connected.until(1);
    return [said, await socket.emitWithAck("subscribe", "a")];
  },
};

// While the server pings each 300 ms and waits for 200 ms.
const pings = {
  "a client that answers pings stays": async (context) => {
    const channel = context.channel("stays");
    const socket = await context.member(channel);
    const whys = record(socket, "disconnect");
    const [engine] = [socket.io.engine];
    const seen = record(engine, "ping");
    await Promise.race([seen.until(6), sleep(10_000)]);
    return [whys.length, seen.length >= 6, await socket.emitWithAck("publish", channel, "x")];
  },
  "the server ends a client that does not answer": async (context) => {
    const socket = await context.client({ reconnection: false });
    const why = reason(socket);
    const { engine } = socket.io;
    const send = engine._sendPacket.bind(engine);
    engine._sendPacket = (type, ...rest) => type === "pong" || send(type, ...rest);
    return why;
  },
};

const silence = {
  "a client notices the end of pings": async (context) => {
    const socket = await context.client({ reconnection: false });
    const why = reason(socket);
    // The client hears nothing further, and the server hears pongs.
    const { transport } = socket.io.engine;
    transport.onPacket = () => {};
    const pongs = setInterval(() => transport.ws.send("3"), 50);
    context.opened.push(() => clearInterval(pongs));
    return why;
  },
};

export default [
  { kinds: KINDS, ...connecting },
  { kinds: ["upgrade"], ...upgrades },
  { kinds: KINDS, ...namespaces },
  { kinds: KINDS, variant: "locked", ...passwords },
  { kinds: KINDS, variant: "own", ...away },
  { kinds: ["upgrade"], variant: "own", ...amidUpgrades },
  cuts,
  { kinds: KINDS, variant: "quick", ...pings },
  { variant: "quick", ...silence },
];

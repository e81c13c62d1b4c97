// The reference server of the observations: Socket.IO's own, with an application that does what
// slabd's verbs and the routes in routes.toml say. Its options are one object of JSON:
//
//     node node_server.mjs '{"port":0,"pingInterval":300,"password":"secret"}'
//
// With {"redis":{"port":6379,"client":"ioredis"}} it is part of a cluster. For observations of
// clusters, POST /run runs the function in the body with the server.
//
// Prints "ready PORT", and closes all clients at SIGTERM.
import { createServer } from "node:http";
import { createRequire } from "node:module";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { Server } = require("socket.io");

const options = JSON.parse(process.argv[2] ?? "{}");
const { port = 0, password, origin, redis, ...engine } = options;
const reserved = ["connect", "connect_error", "disconnect", "disconnecting", "newListener",
  "removeListener"];
const depthMax = 64;
const changed = "internal-server:checkbox:change";

const depth = (value) => value instanceof Object
  ? 1 + Math.max(0, ...Object.values(value).map(depth)) : 0;

// Returns the arguments of the event that carries a payload.
const event = (channel, payload) => {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload);
  } catch {
    return ["message", channel, payload];
  }
  if (!/^[[{\-0-9tfn]/.test(text) || /\s$/.test(text)) return ["message", channel, text];
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return ["message", channel, text];
  }
  if (depth(value) > depthMax) return ["message", channel, text];
  if (Array.isArray(value) && typeof value[0] === "string" && !reserved.includes(value[0])) {
    return value;
  }
  return ["message", channel, value];
};

const http = createServer();
const io = new Server(http, {
  ...engine,
  cors: origin && { origin: [origin] },
  allowRequest: (request, done) => {
    const { origin: from, host } = request.headers;
    done(null, [undefined, `http://${host}`, origin].includes(from));
  },
});
if (redis) {
  const { createAdapter } = require("@socket.io/redis-adapter");
  const clients = [1, 2].map(() => redis.client === "ioredis"
    ? new (require("ioredis").Redis)(redis.port)
    : require("redis").createClient({ url: `redis://127.0.0.1:${redis.port}` }));
  if (redis.client !== "ioredis") await Promise.all(clients.map((client) => client.connect()));
  io.adapter(createAdapter(...clients));
}
const namespaces = ["/", "/chat", "/alone"].map((name) => io.of(name));

// Gives a payload to the subscribers of a channel, and returns their number.
const publish = (channel, payload) => {
  let receivers = 0;
  for (const namespace of namespaces) {
    receivers += namespace.adapter.rooms.get(channel)?.size ?? 0;
    namespace.to(channel).emit(...event(channel, payload));
  }
  if (channel === changed) {
    const change = JSON.parse(payload);
    io.of("/").emit("server:checkbox:change", change);
    receivers += io.of("/").sockets.size;
  }
  return receivers;
};

const binary = (value) => Buffer.isBuffer(value)
  || (value instanceof Object && Object.values(value).some(binary));

const bytes = (data) => {
  if (Buffer.isBuffer(data)) return data;
  return Buffer.from(typeof data === "string" ? data : JSON.stringify(data));
};

const names = (channels) => channels.length > 0
  && channels.every((channel) => typeof channel === "string");

const verbs = {
  subscribe: (socket, channels) => {
    if (!names(channels)) return { error: "names" };
    socket.join(channels);
    return { subscribed: channels };
  },
  unsubscribe: (socket, channels) => {
    if (!names(channels)) return { error: "names" };
    for (const channel of channels) socket.leave(channel);
    return { unsubscribed: channels };
  },
  publish: (_, [channel, data, ...more]) => {
    if (!names([channel]) || data === undefined || more.length) return { error: "arguments" };
    if (!Buffer.isBuffer(data) && binary(data)) return { error: "binary" };
    if (typeof data === "string" && !data.isWellFormed()) return { error: "surrogate" };
    return { published: channel, receivers: publish(channel, bytes(data)) };
  },
};

// What `require` says.
const integer = (low, high) => (value) => Number.isInteger(value) && low <= value && value <= high;
const number = (low, high) => (value) => {
  return typeof value === "number" && low <= value && value <= high;
};
const boolean = (value) => typeof value === "boolean";
const string = (low, high) => (value) => {
  const length = typeof value === "string" ? Buffer.byteLength(value) : -1;
  return low <= length && length <= high;
};

const routes = {
  "/": {
    "client:checkbox:change": {
      require: { index: integer(0, 999_999), checked: boolean },
      run: (_, { index, checked }) => void publish(changed, bytes({ index, checked })),
    },
  },
  "/chat": {
    "chat:join": {
      require: { room: string(1, 32) },
      run: (socket, { room }) => {
        socket.join(`room.${room}`);
        return { joined: room };
      },
    },
    "chat:leave": {
      require: { room: string(1, 32) },
      run: (socket, { room }) => void socket.leave(`room.${room}`),
    },
    "chat:say": {
      require: { room: string(1, 32), text: string(1, 200) },
      run: (socket, { room, text }) => {
        for (const namespace of namespaces) {
          namespace.to(`room.${room}`).except(socket.id).emit("chat:said", { room, text });
        }
      },
    },
    "chat:ask": {
      require: { n: number(0, 10) },
      run: (socket, { n }) => void socket.emit("chat:answer", { n, text: `n is ${n}` }),
    },
  },
  "/alone": {},
};

// Runs a route with the arguments of an event. Returns its acknowledgement.
const routed = ({ require, run }, socket, [value, ...more]) => {
  const fields = Object.entries(require);
  const isObject = value instanceof Object && !Array.isArray(value) && !Buffer.isBuffer(value);
  const isFit = isObject && more.length === 0 && Object.keys(value).length === fields.length
    && fields.every(([name, is]) => is(value[name]));
  return isFit ? run(socket, value) ?? {} : { error: "arguments" };
};

for (const namespace of namespaces) {
  namespace.use((socket, next) => {
    const { password: first, token } = socket.handshake.auth;
    const given = first ?? token;
    if (!password || given === password) next();
    else if (typeof given === "string") next(new Error("wrong password"));
    else next(new Error('the password is missing; connect with auth: {password: "PASSWORD"}'));
  });
  namespace.on("connection", (socket) => socket.onAny((name, ...values) => {
    const ack = typeof values.at(-1) === "function" ? values.pop() : () => {};
    const known = routes[namespace.name];
    if (Object.hasOwn(verbs, name)) ack(verbs[name](socket, values));
    else if (Object.hasOwn(known, name)) ack(routed(known[name], socket, values));
    else ack({ error: "unknown" });
  }));
}

// What the other protocols of slabd do to clients of Socket.IO: a publish, and the end of a client.
http.on("request", (request, response) => {
  const [, verb, name] = request.url.split("/").map(decodeURIComponent);
  if (verb === "publish" && request.method === "POST") {
    const parts = [];
    request.on("data", (part) => parts.push(part)).on("end", () => {
      response.end(JSON.stringify({ receivers: publish(name, Buffer.concat(parts)) }));
    });
  } else if (verb === "run" && request.method === "POST") {
    const parts = [];
    request.on("data", (part) => parts.push(part)).on("end", async () => {
      const [source, ...values] = JSON.parse(Buffer.concat(parts));
      const run = (0, eval)(`(${source})`);
      response.end(JSON.stringify((await run(io, ...values)) ?? null));
    });
  } else if (verb === "kill") {
    connections.find((connection) => connection.remotePort === Number(name))?.destroy();
    response.end();
  }
});
const connections = [];
http.on("connection", (connection) => connections.push(connection));
http.listen({ host: "127.0.0.1", port }, () => console.log("ready", http.address().port));
// The last answers need a moment on their way.
process.on("SIGTERM", () => io.close(() => setTimeout(process.exit, 100)));

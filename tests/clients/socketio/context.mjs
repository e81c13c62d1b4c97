// What an observation can do: official clients, raw requests and raw WebSockets of one server.
import { once } from "node:events";
import http from "node:http";
import { createRequire } from "node:module";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { io } = require("socket.io-client");
const { WebSocket } = require("ws");

export const SEPARATOR = "\x1e";
const POLLING = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET = "/socket.io/?EIO=4&transport=websocket";

// Kinds of transport that a client may use.
export const KINDS = ["websocket", "polling", "upgrade"];

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Resolves with the arguments of the next event, of whatever kind of emitter.
export const next = (emitter, event) => new Promise((done) => {
  emitter.once(event, (...values) => done(values));
});

// Returns a list that grows with each event. `until` resolves once it has so many entries, with
// these.
export const record = (emitter, event) => {
  const list = [];
  const waiting = [];
  emitter.on(event, (...values) => {
    list.push(values);
    for (const look of waiting) look();
  });
  list.until = (count) => new Promise((done) => {
    const look = () => list.length >= count && done(list.slice(0, count));
    waiting.push(look);
    look();
  });
  return list;
};

// Returns the reason with which a client is disconnected.
export const reason = async (socket) => (await next(socket, "disconnect"))[0];

export class Context {
  // `transports` is undefined for a client that begins with polling and upgrades.
  constructor(server, transports, number) {
    Object.assign(this, { server, transports, number });
    this.opened = [];
    this.agent = new http.Agent({ keepAlive: true });
  }

  // Channels of observations that run at the same time have different names.
  channel(name) {
    return `${this.number}:${name}`;
  }

  // Returns an official client that has not connected yet.
  lazy(options = {}, namespace = "/") {
    const socket = io(this.server.url + namespace, {
      autoConnect: false, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200,
      ...(this.transports && { transports: this.transports }), ...options,
    });
    this.opened.push(() => socket.io.engine?.close());
    this.opened.push(() => socket.disconnect());
    return socket;
  }

  // Returns an official client that has connected.
  async client(options, namespace) {
    const socket = this.lazy(options, namespace);
    const connected = next(socket, "connect");
    socket.connect();
    await connected;
    return socket;
  }

  // Returns a client that has joined a channel.
  async member(channel, options, namespace) {
    const socket = await this.client(options, namespace);
    await socket.emitWithAck("subscribe", channel);
    return socket;
  }

  // Returns the first answer of a server to a client: "connect", or its error.
  async outcome(socket) {
    const outcome = Promise.race([
      next(socket, "connect").then(() => "connect"),
      next(socket, "connect_error").then(([{ message, data }]) => ({ message, data })),
    ]);
    socket.connect();
    return outcome;
  }

  // Publishes by HTTP.
  async publish(channel, body) {
    const path = `/publish/${encodeURIComponent(channel)}`;
    return JSON.parse((await this.request("POST", path, { body })).body);
  }

  // Sends a request, and returns the answer, or that there was none.
  request(method, path, { headers = {}, body, agent = this.agent } = {}) {
    const options = { method, headers, agent };
    return new Promise((done) => {
      const request = http.request(this.server.url + path, options, (response) => {
        const parts = [];
        response.on("data", (part) => parts.push(part)).on("end", () => done({
          status: response.statusCode,
          headers: response.headers,
          body: Buffer.concat(parts).toString(),
        })).on("error", () => done("cut off"));
      });
      request.on("error", () => done("no answer"));
      request.end(body);
      this.opened.push(() => request.destroy());
    });
  }

  // Begins a session of polling without Socket.IO on it.
  async polls() {
    const open = await this.request("GET", POLLING);
    return new Polls(this, JSON.parse(open.body.slice(1)).sid);
  }

  // Begins a session of polling with a client of the namespace /.
  async polling() {
    const polls = await this.polls();
    await polls.post("40");
    await polls.get();
    return polls;
  }

  // Opens a WebSocket. `query` is added to the address.
  async websocket(query = "", path = WEBSOCKET) {
    const socket = new Raw(this, path + query);
    await once(socket.socket, "open");
    return socket;
  }

  // Opens a WebSocket with a client of the namespace /.
  async connected() {
    const socket = await this.websocket();
    await socket.next();
    socket.send("40");
    await socket.next();
    return socket;
  }

  // Returns the answer to a WebSocket that is refused.
  refused(path, options = {}) {
    const socket = new WebSocket(this.server.url.replace("http", "ws") + path, options);
    return new Promise((done) => {
      socket.on("open", () => {
        socket.terminate();
        done("open");
      });
      socket.on("unexpected-response", (_, response) => {
        done({ status: response.statusCode });
        response.destroy();
      });
      socket.on("error", () => done("no answer"));
    });
  }

  async close() {
    for (const close of this.opened.reverse()) close();
    this.agent.destroy();
  }
}

// A session of polling, request by request.
class Polls {
  constructor(context, sid) {
    Object.assign(this, { context, sid, path: `${POLLING}&sid=${sid}` });
  }

  get(options) {
    return this.context.request("GET", this.path, options);
  }

  post(body, options) {
    return this.context.request("POST", this.path, { body, ...options });
  }

  // Polls until the packets have so many, and returns them.
  async packets(count) {
    const packets = [];
    while (packets.length < count) {
      const { status, body } = await this.get();
      if (status !== 200) return [...packets, status];
      packets.push(...body.split(SEPARATOR));
    }
    return packets;
  }

  // A poll that the server answers later: it begins before this returns.
  async pending() {
    const answer = this.get();
    await sleep(50);
    return { answer };
  }

  // Returns "open", or the error of a session that has ended. It must not have a pending poll.
  async state() {
    const { status, body } = await this.post("3");
    return status === 200 ? "open" : body;
  }

  upgrade() {
    return this.context.websocket(`&sid=${this.sid}`);
  }
}

// A WebSocket that keeps what it receives until somebody asks.
class Raw {
  constructor(context, path) {
    this.socket = new WebSocket(context.server.url.replace("http", "ws") + path);
    this.waiting = [];
    this.asked = [];
    this.socket.on("message", (data, isBinary) => this.give(isBinary ? data : data.toString()));
    this.socket.on("close", (code) => this.give({ closed: code }));
    this.socket.on("error", () => {});
    context.opened.push(() => this.socket.terminate());
  }

  give(message) {
    if (this.asked.length) this.asked.shift()(message);
    else this.waiting.push(message);
  }

  send(...messages) {
    for (const message of messages) this.socket.send(message);
  }

  // Returns the next message, or that the WebSocket has closed.
  next() {
    if (this.waiting.length) return this.waiting.shift();
    return new Promise((done) => this.asked.push(done));
  }

  // Returns the next `count` messages, fewer if it closes.
  async take(count) {
    const messages = [];
    while (messages.length < count && !messages.at(-1)?.closed) messages.push(await this.next());
    return messages;
  }

  // Returns what the server says until it closes, or until it has answered an event that is sent
  // now.
  async answer() {
    const channel = "answer of a raw client";
    this.send(`42987["subscribe","${channel}"]`);
    const messages = [];
    for (;;) {
      const message = await this.next();
      if (message.closed) return [...messages, "closed"];
      if (message.startsWith?.("43987")) return [...messages, "open"];
      messages.push(message);
    }
  }
}

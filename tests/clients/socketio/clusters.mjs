// Starts the clusters that the observations compare: two Node servers, or one and slabd, each with
// a Redis of its own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { sleep } from "./context.mjs";
import { Server } from "./servers.mjs";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { io } = require("socket.io-client");

const NAMESPACES = ["/", "/chat", "/alone"];
const FENCE = "fence";

const isFence = ([name, channel]) => {
  return name === FENCE || (name === "message" && channel === FENCE);
};

const freePort = async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
};

// Starts a program, and resolves once it prints a line with this text.
const started = (command, text) => new Promise((done, failed) => {
  const child = spawn("setpriv", ["--pdeathsig", "KILL", ...command],
    { stdio: ["ignore", "pipe", "inherit"] });
  createInterface({ input: child.stdout }).on("line", (line) => line.includes(text) && done(child));
  child.on("exit", () => failed(new Error(`${command.join(" ")} ends`)));
});

export class Cluster {
  // `second` is the kind of the second server: "node" or "slabd". `client` is the package by which
  // the Node servers speak to Redis. `broker` is "redis", or "slabd": a slabd takes its part.
  constructor(second, client, program, broker = "redis") {
    Object.assign(this, { second, client, program, broker, fence: 0, lasting: new Map() });
  }

  async start() {
    const port = await freePort();
    this.redis = this.broker === "redis"
      ? await started(["redis-server", "--port", `${port}`, "--bind", "127.0.0.1", "--save", ""],
        "Ready to accept connections")
      : (await new Server("slabd", [{}, ["--listen", `hub=127.0.0.1:${port}`]], this.program)
        .start()).child;
    this.folder = mkdtempSync(path.join(tmpdir(), "slabd-cluster-"));
    const routes = readFileSync(new URL("routes.toml", import.meta.url), "utf8");
    const config = path.join(this.folder, "cluster.toml");
    writeFileSync(config, routes.replace("[socketio]\n", '[socketio]\nadapter = "redis"\n'));
    const variant = [{ redis: { port, client: this.client }, maxHttpBufferSize: 16 << 20 },
      ["--broker", `redis://127.0.0.1:${port}`], config];
    this.a = await new Server("node", variant, this.program).start();
    this.b = await new Server(this.second, variant, this.program).start();
    const { Redis } = require("ioredis");
    this.publisher = new Redis(port);
    const { Emitter } = require("@socket.io/redis-emitter");
    this.emitter = new Emitter(this.publisher);
    // The servers are together once an event of each arrives at a client of the other.
    const round = new Round(this, "start");
    const [first, last] = await round.sockets(["a", "/", ["start"]], ["b", "/", ["start"]]);
    while (!(await this.joined(round, first, last))) await sleep(50);
    await round.close();
    return this;
  }

  async joined(round, first, last) {
    await this.publish("b", "start", "1");
    await this.run((server) => void server.emit("start"));
    await sleep(50);
    return first.log.some(([name]) => name === "message")
      && last.log.some(([name]) => name === "start");
  }

  // Runs a function with the Socket.IO server of the Node server A.
  async run(source, ...values) {
    const body = JSON.stringify([source.toString(), ...values]);
    return (await fetch(`${this.a.url}/run`, { method: "POST", body })).json();
  }

  // Publishes a body by HTTP.
  async publish(server, channel, body) {
    const url = `${this[server].url}/publish/${encodeURIComponent(channel)}`;
    await (await fetch(url, { method: "POST", body })).text();
  }

  async stop() {
    for (const socket of [...this.lasting.values()].flat()) socket.disconnect();
    this.publisher?.disconnect();
    await Promise.all([this.a?.stop(), this.b?.stop()]);
    this.redis?.removeAllListeners("exit");
    this.redis?.kill("SIGKILL");
    if (this.folder) rmSync(this.folder, { recursive: true });
  }
}

// One observation of a cluster.
export class Round {
  constructor(cluster, number) {
    Object.assign(this, { cluster, number, opened: [] });
    this.run = cluster.run.bind(cluster);
    this.publish = cluster.publish.bind(cluster);
    this.emitter = cluster.emitter;
  }

  // Rooms of different observations have different names.
  room(name) {
    return `${this.number}:${name}`;
  }

  // Connects clients, each given as server, namespace, rooms and transport. Their logs have all
  // events that they get.
  sockets(...places) {
    return Promise.all(places.map(async ([server, namespace = "/", rooms = [],
      transport = "websocket"]) => {
      const socket = io(this.cluster[server].url + namespace,
        { forceNew: true, reconnection: false, transports: [transport] });
      this.opened.push(socket);
      socket.log = [];
      socket.onAny((...event) => socket.log.push(event));
      await once(socket, "connect");
      await Promise.all([FENCE, ...rooms].map((room) => socket.emitWithAck("subscribe", room)));
      return socket;
    }));
  }

  // Returns clients that stay connected for further observations. Their logs are empty.
  async lasting(...places) {
    const key = JSON.stringify(places);
    const sockets = this.cluster.lasting.get(key) ?? (await this.sockets(...places));
    this.cluster.lasting.set(key, sockets);
    this.opened.push(...sockets.filter((socket) => !this.opened.includes(socket)));
    await this.settle();
    for (const socket of sockets) socket.log.length = 0;
    return sockets;
  }

  // Waits until the clients have got everything that either server or the emitter has sent.
  async settle() {
    this.cluster.fence += 1;
    const number = this.cluster.fence;
    await this.publish("b", FENCE, `${number}`);
    await this.run((server, names, number) => {
      for (const name of names) server.of(name).emit("fence", "a", number);
    }, NAMESPACES, number);
    for (const name of NAMESPACES) this.emitter.of(name).emit("fence", "emitter", number);
    const open = this.opened.filter((socket) => socket.connected);
    const isThere = ({ log }) => {
      return log.filter((event) => isFence(event) && event.at(-1) === number).length >= 3;
    };
    while (!open.every(isThere)) await sleep(5);
  }

  // Returns what each of the clients has got.
  async logs(...sockets) {
    await this.settle();
    return sockets.map(({ log }) => log.filter((event) => !isFence(event)));
  }

  async close() {
    const lasting = [...this.cluster.lasting.values()].flat();
    for (const socket of this.opened) if (!lasting.includes(socket)) socket.disconnect();
  }
}

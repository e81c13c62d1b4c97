// Starts the two servers that the observations compare.
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

export const ORIGIN = "http://allowed.example";
export const PASSWORD = "open sesame";

// The default of --max-message.
const MESSAGE_MAX = 16 << 20;

// The servers that observations ask for by name, each as options of Node's server and as arguments
// of slabd.
const variants = {
  plain: [{}, []],
  quick: [
    { pingInterval: 300, pingTimeout: 200 },
    ["--socketio-ping-interval", "300ms", "--socketio-ping-timeout", "200ms"],
  ],
  locked: [{ password: PASSWORD }, ["--requirepass", PASSWORD]],
  small: [{ maxHttpBufferSize: 65_536 }, ["--max-message", "65536"]],
};

const commands = {
  node: ([options], port) => [process.execPath, here("node_server.mjs"),
    JSON.stringify({ port, origin: ORIGIN, maxHttpBufferSize: MESSAGE_MAX, ...options })],
  slabd: ([, more, config = here("routes.toml")], port, program) => [program, "serve",
    "--config", config, "--listen", `hub=127.0.0.1:${port}`, "--allow-origin", ORIGIN, ...more],
};

export class Server {
  // `kind` is "node" or "slabd". `program` is the path of slabd. `variant` is a name, or the
  // options that a name stands for.
  constructor(kind, variant, program) {
    Object.assign(this, { kind, variant, program, port: 0 });
  }

  async start() {
    this.found = 0;
    const variant = variants[this.variant] ?? this.variant;
    const command = commands[this.kind](variant, this.port, this.program);
    // The kernel ends it when this process ends, however that happens.
    this.child = spawn("setpriv", ["--pdeathsig", "KILL", ...command],
      { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, RUST_LOG: "info" } });
    const lines = [];
    this.port = await new Promise((done, failed) => {
      for (const stream of [this.child.stdout, this.child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          lines.push(line);
          const port = /^ready (\d+)|listening on hub 127\.0\.0\.1:(\d+)/.exec(line);
          if (port) this.found = Number(port[1] ?? port[2]);
          if (this.found && line.includes("ready")) done(this.found);
        });
      }
      this.child.on("exit", () => {
        failed(new Error(`${command.join(" ")} ends:\n${lines.join("\n")}`));
      });
    });
    return this;
  }

  async stop(signal = "SIGKILL") {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill(signal);
    await ended;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  // Cuts a client's connection, as an operator would.
  async cut(localPort) {
    if (this.kind === "node") return fetch(`${this.url}/kill/${localPort}`);
    const socket = net.connect(this.port, "127.0.0.1");
    socket.end(`CLIENT KILL ADDR 127.0.0.1:${localPort}\r\nQUIT\r\n`);
    socket.resume();
    await once(socket, "close");
  }
}

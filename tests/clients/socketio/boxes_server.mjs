// The checkboxes as an application of Socket.IO's own server, with their state in a hash in the
// Redis. It prints "ready PORT". Its page connects to the server in its query, such as
// /?server=http://example.org.
//
//     node boxes_server.mjs PORT REDIS_PORT adapter    an event tells the others of a change
//     node boxes_server.mjs PORT REDIS_PORT channel    a publish does
import { createServer } from "node:http";
import { createRequire } from "node:module";

// An import would ignore NODE_PATH.
const require = createRequire(import.meta.url);
const { createAdapter } = require("@socket.io/redis-adapter");
const { Redis } = require("ioredis");
const { Server } = require("socket.io");

const [port, broker, way] = process.argv.slice(2);
const page = `<!doctype html>
<title>Checkboxes</title>
<p id="status"></p>
${Array.from({ length: 100 }, (_, at) => `<input type="checkbox" data-index="${at}">`).join("\n")}
<script src="/socket.io/socket.io.js"></script>
<script>
  const status = document.getElementById("status");
  const server = new URLSearchParams(location.search).get("server");
  const socket = io(server, { reconnectionDelay: 50, reconnectionDelayMax: 200 });
  const box = (index) => document.querySelector('[data-index="' + index + '"]');
  const show = ({ index, checked }) => { box(index).checked = checked; };
  window.states = 0;
  socket.on("connect", () => { status.textContent = "Connected."; });
  socket.on("disconnect", () => { status.textContent = "Alone."; });
  socket.on("server:checkbox:state", (all) => { all.forEach(show); states += 1; });
  socket.on("server:checkbox:change", show);
  document.addEventListener("change", ({ target }) => {
    const change = { index: Number(target.dataset.index), checked: target.checked };
    socket.emit("client:checkbox:change", change);
  });
</script>`;

const http = createServer((_, response) => {
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end(page);
});
const redis = new Redis(Number(broker));
const [publisher, subscriber] = [redis.duplicate(), redis.duplicate()];
// Each connection comes back by itself. The errors of the attempts are no news.
for (const client of [redis, publisher, subscriber]) client.on("error", () => {});

const byAdapter = () => {
  const io = new Server(http, { adapter: createAdapter(publisher, subscriber) });
  const change = async (data) => {
    await redis.hset("boxes", data.index, JSON.stringify(data));
    io.emit("server:checkbox:change", data);
  };
  return { io, change };
};

const byChannel = () => {
  const io = new Server(http);
  const change = (data) => publisher.publish("checkboxes", JSON.stringify(data));
  subscriber.subscribe("checkboxes");
  subscriber.on("message", async (channel, text) => {
    const data = JSON.parse(text);
    await redis.hset("boxes", data.index, text);
    io.emit("server:checkbox:change", data);
  });
  return { io, change };
};

const { io, change } = way === "channel" ? byChannel() : byAdapter();
io.on("connection", async (socket) => {
  socket.on("client:checkbox:change", change);
  const all = await redis.hvals("boxes");
  socket.emit("server:checkbox:state", all.map((text) => JSON.parse(text)));
});

http.listen(Number(port), "127.0.0.1", () => console.log("ready", http.address().port));

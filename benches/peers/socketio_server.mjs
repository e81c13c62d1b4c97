// The Socket.IO server of the benchmarks, by its reference implementation. It has slabd's verbs:
// `subscribe` and `unsubscribe` name rooms, and `publish` sends `message` to all of a room, the
// sender included. `echo` is acknowledged with its argument. Prints "ready PORT".
import { createServer } from "node:http";
import { createRequire } from "node:module";

// An import would ignore NODE_PATH.
const { Server } = createRequire(import.meta.url)("socket.io");

const DAY_MS = 86_400_000;

// Otherwise Node.js closes connections that are idle between polls, and the server sends pings.
const http = createServer({ keepAliveTimeout: DAY_MS });
const io = new Server(http, { serveClient: false, pingInterval: DAY_MS });
io.on("connection", (socket) => {
  socket.on("subscribe", (...rooms) => {
    const ack = rooms.pop();
    socket.join(rooms);
    ack({ subscribed: rooms });
  });
  socket.on("unsubscribe", (...rooms) => {
    const ack = rooms.pop();
    for (const room of rooms) socket.leave(room);
    ack({ unsubscribed: rooms });
  });
  socket.on("publish", (room, data, ack) => {
    io.to(room).emit("message", room, data);
    ack?.({ published: room, receivers: io.sockets.adapter.rooms.get(room)?.size ?? 0 });
  });
  socket.on("echo", (value, ack) => ack(value));
});
http.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.log("ready", http.address().port);
});

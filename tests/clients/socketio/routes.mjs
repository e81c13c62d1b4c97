// Observations of the routes in routes.toml.
import { KINDS, next, record } from "./context.mjs";

const change = "client:checkbox:change";

// Emits an event in a namespace, and returns its acknowledgement.
const asked = (namespace, ...event) => async (context) => {
  const socket = await context.client({}, namespace);
  return socket.emitWithAck(...event);
};

// Returns a client of a room, with all that it hears there.
const inRoom = async (context, room) => {
  const socket = await context.client({}, "/chat");
  const heard = record(socket, "chat:said");
  const joined = await socket.emitWithAck("chat:join", { room });
  return { socket, heard, joined };
};

const checkboxes = {
  "a route turns an event into events for all": async (context) => {
    const [one, two] = await Promise.all([context.client(), context.client()]);
    const index = 1_000 + context.number;
    const changes = [one, two].map((socket) => new Promise((done) => {
      socket.on("server:checkbox:change", (change) => change.index === index && done(change));
    }));
    one.emit(change, { index, checked: true });
    return Promise.all(changes);
  },
  "an event of a route for all comes without a subscription": async (context) => {
    const index = 100_000 + context.number;
    const socket = await context.client();
    const got = new Promise((done) => {
      socket.on("server:checkbox:change", (...values) => values[0].index === index && done(values));
    });
    const body = JSON.stringify({ index, checked: false, more: ["by HTTP"] });
    const { receivers } = await context.publish("internal-server:checkbox:change", body);
    return [receivers > 0, await got];
  },
  "an event of a route for all does not come in another namespace": async (context) => {
    const [one, two] = [await context.client(), await context.client({}, "/chat")];
    const heard = record(two, "server:checkbox:change");
    await one.emitWithAck(change, { index: 5, checked: true });
    await two.emitWithAck("subscribe", "a");
    return heard;
  },
  "a route acknowledges an event": asked("/", change, { index: 7, checked: true }),
  "the largest index is accepted": asked("/", change, { index: 999_999, checked: true }),
  "a route refuses a field beyond its range": asked("/", change, { index: 1e6, checked: true }),
  "a route refuses a negative number": asked("/", change, { index: -1, checked: true }),
  "a route refuses a field of another type": asked("/", change, { index: 1, checked: "yes" }),
  "a route refuses a number in quotes": asked("/", change, { index: "1", checked: true }),
  "a route refuses a fraction": asked("/", change, { index: 1.5, checked: true }),
  "a route refuses null": asked("/", change, { index: null, checked: true }),
  "a route refuses an event without its argument": asked("/", change),
  "a route refuses a field too few": asked("/", change, { index: 1 }),
  "a route refuses a field too many": asked("/", change, { index: 1, checked: true, more: 1 }),
  "a route refuses an argument that is no object": asked("/", change, 5),
  "a route refuses an argument that is an array": asked("/", change, [1, true]),
  "a route refuses an argument too many": asked("/", change, { index: 1, checked: true }, 5),
  "a route refuses binary": asked("/", change, Buffer.from([1])),
  "a route does not hold in another namespace":
    asked("/chat", change, { index: 1, checked: true }),
  "an event that a route publishes to is none of the clients'":
    asked("/", "server:checkbox:change", { index: 1, checked: true }),
};

const chat = {
  "a client joins a room": async (context) => (await inRoom(context, context.channel("a"))).joined,
  "all others of a room hear what one says": async (context) => {
    const room = context.channel("room");
    const [one, two, three] =
      await Promise.all([1, 2, 3].map(() => inRoom(context, room)));
    const ack = await one.socket.emitWithAck("chat:say", { room, text: "Grüße 😀" });
    const heard = await Promise.all([two, three].map(({ heard }) => heard.until(1)));
    two.socket.emit("chat:say", { room, text: "and to you" });
    return [ack, heard, await one.heard.until(1)];
  },
  "a client of another room hears nothing": async (context) => {
    const [one, two] = [await inRoom(context, context.channel("one")),
      await inRoom(context, context.channel("two"))];
    const room = context.channel("two");
    await one.socket.emitWithAck("chat:join", { room });
    await two.socket.emitWithAck("chat:say", { room: context.channel("one"), text: "for one" });
    await one.socket.emitWithAck("chat:say", { room, text: "for two" });
    return [await one.heard.until(1), await two.heard.until(1)];
  },
  "a client that leaves a room hears nothing more": async (context) => {
    const room = context.channel("left");
    const [one, two] = [await inRoom(context, room), await inRoom(context, room)];
    const ack = await two.socket.emitWithAck("chat:leave", { room });
    await one.socket.emitWithAck("chat:say", { room, text: "missed" });
    await two.socket.emitWithAck("chat:join", { room });
    await one.socket.emitWithAck("chat:say", { room, text: "heard" });
    return [ack, await two.heard.until(1)];
  },
  "a room is a channel": async (context) => {
    const room = context.channel("channel");
    const { heard } = await inRoom(context, room);
    const said = JSON.stringify(["chat:said", { by: "HTTP" }]);
    const ack = await context.publish(`room.${room}`, said);
    return [ack, await heard.until(1)];
  },
  "a subscriber of the channel hears the room": async (context) => {
    const room = context.channel("subscriber");
    const [one, two] = [await inRoom(context, room), await context.client()];
    const got = next(two, "chat:said");
    await two.emitWithAck("subscribe", `room.${room}`);
    one.socket.emit("chat:say", { room, text: "x" });
    return got;
  },
  "a client gets a reply and an acknowledgement": async (context) => {
    const socket = await context.client({}, "/chat");
    const answer = next(socket, "chat:answer");
    return [await socket.emitWithAck("chat:ask", { n: 2.5 }), await answer];
  },
  "a room of an empty name is refused": asked("/chat", "chat:join", { room: "" }),
  "a room of a name too long is refused": asked("/chat", "chat:join", { room: "x".repeat(33) }),
  "a room of a name of 32 bytes is accepted":
    asked("/chat", "chat:join", { room: "x".repeat(32) }),
  "a room that is a number is refused": asked("/chat", "chat:join", { room: 5 }),
  "a text too long is refused":
    asked("/chat", "chat:say", { room: "a", text: "x".repeat(201) }),
  "an event of another namespace is unknown": asked("/", "chat:join", { room: "a" }),
  "a namespace without routes has verbs": asked("/alone", "subscribe", "a"),
  "a namespace without routes has no other events": asked("/alone", "chat:join", { room: "a" }),
};

export default [{ kinds: KINDS, ...checkboxes }, { kinds: KINDS, ...chat }];

// Observations of packets of Socket.IO, good and bad, byte by byte.

import { next, sleep } from "./context.mjs";

// Sends messages on a WebSocket with a client of the namespace /, one after the other, because
// Node's server takes up some of them only later. Returns the answers, and whether the connection
// stays open.
const sent = (...messages) => async (context) => {
  const socket = await context.connected();
  await inTurn(socket, messages);
  return socket.answer();
};

const inTurn = async (socket, messages) => {
  for (const message of messages) {
    socket.send(message);
    await sleep(20);
  }
};

const PLACE = (num) => `{"_placeholder":true,"num":${num}}`;
const [A, B] = [Buffer.from([255, 1]), Buffer.from([255, 2])];

const good = {
  "an event without an acknowledgement is not answered": sent('42["subscribe","a"]'),
  "an event is acknowledged under its id": sent('4212["subscribe","a"]'),
  "an event is acknowledged under the id 0": sent('420["subscribe","a"]'),
  "an id with zeros in front is a number": sent('42007["subscribe","a"]'),
  "the largest exact id is acknowledged": sent('429007199254740991["subscribe","a"]'),
  "an id of the namespace / is acknowledged": sent('42/,5["subscribe","a"]'),
  "blanks in an event are accepted": sent('421[ "subscribe" , "a" ]'),
  "escapes in the name of an event are accepted": sent('421["\\u0073ubscribe","a"]'),
  "a channel with escapes is named": sent('421["subscribe","\\u00e4\\n\\""]'),
  "an event whose name is a number is answered": sent('421[5,"a"]'),
  "an event with a fraction for a name is answered": sent("421[1.5]"),
  "a placeholder in an event of text is an object": sent(`421["subscribe",${PLACE(0)}]`),
  "an object like a placeholder is published in an event of text": async (context) => {
    const channel = context.channel("object");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    const raw = await context.connected();
    raw.send(`42["publish","${channel}",${PLACE(0)}]`);
    return got;
  },
  "an acknowledgement of nothing does not disturb": sent('4399["x"]'),
  "an acknowledgement without values does not disturb": sent("431[]"),
  "an acknowledgement without an id does not disturb": sent('43["x"]'),
  "an acknowledgement with binary does not disturb": sent(`461-7[${PLACE(0)}]`, A),
  "a disconnect leaves the connection open for a connect": async (context) => {
    const socket = await context.connected();
    await inTurn(socket, ["41", "40"]);
    return [await socket.next(), await socket.answer()];
  },
  "a disconnect of the namespace / by name is accepted": async (context) => {
    const socket = await context.connected();
    await inTurn(socket, ["41/,", "40"]);
    return [await socket.next(), await socket.answer()];
  },
  "events behind a disconnect close": async (context) => {
    const socket = await context.connected();
    await inTurn(socket, ["41"]);
    return socket.answer();
  },
  "a connect of a namespace is answered with its name": sent("40/chat,"),
  "a connect of a namespace with auth is answered": sent('40/chat,{"a":1}'),
  "a connect of a namespace without a comma is answered": sent("40/chat"),
  "a connect of an unknown namespace is refused": sent("40/nowhere,"),
  "a connect of a namespace with a query is refused": sent("40/chat?a=b,"),
  "a connect of a namespace with a slash at its end is refused": sent("40/chat/,"),
  "a connect of a namespace of unicode is refused": sent("40/ä😀,"),
  "a connect of a namespace with quotes is refused": sent('40/"x"\\,'),
  "a connect of a namespace __proto__ is refused": sent("40/__proto__,"),
  "an event of a namespace is acknowledged with its name": async (context) => {
    const socket = await context.connected();
    await inTurn(socket, ["40/chat,", '42/chat,3["subscribe","a"]']);
    return socket.take(2);
  },
  "a disconnect of a namespace leaves the other": sent("40/chat,", "41/chat,"),
  "a disconnect of a namespace without a comma is accepted": sent("40/chat,", "41/chat"),
  "a namespace may be joined again": sent("40/chat,", "41/chat,", "40/chat,"),
  "a message names the namespace of its receiver": async (context) => {
    const channel = context.channel("names");
    const socket = await context.connected();
    await inTurn(socket, ["40/chat,", `42/chat,3["subscribe","${channel}"]`]);
    await socket.take(2);
    await context.publish(channel, "x");
    return socket.next();
  },
  "an event on a channel names the namespace of its receiver": async (context) => {
    const channel = context.channel("event");
    const socket = await context.connected();
    await inTurn(socket, ["40/chat,", `42/chat,3["subscribe","${channel}"]`]);
    await socket.take(2);
    await context.publish(channel, '["chat","x"]');
    return socket.next();
  },
  "a binary message names the namespace of its receiver": async (context) => {
    const channel = context.channel("binary");
    const socket = await context.connected();
    await inTurn(socket, ["40/chat,", `42/chat,3["subscribe","${channel}"]`]);
    await socket.take(2);
    await context.publish(channel, Buffer.from([255, 0]));
    return socket.take(2);
  },
  "a binary event is acknowledged": sent(`451-5["publish","nobody",${PLACE(0)}]`, A),
  "a binary event of a namespace is acknowledged":
    sent("40/chat,", `451-/chat,5["publish","nobody",${PLACE(0)}]`, A),
  "a binary event with an unused attachment is acknowledged":
    sent('451-5["publish","nobody","x"]', A),
  "a binary event that uses an attachment twice is answered":
    sent(`451-5["nobody knows",${PLACE(0)},${PLACE(0)}]`, A),
  "ten attachments are accepted":
    sent(`4510-5["nobody knows",${PLACE(9)}]`, ...Array.from({ length: 10 }, () => A)),
  "two binary events in a row are acknowledged":
    sent(`451-5["publish","nobody",${PLACE(0)}]`, A, `451-6["publish","nobody",${PLACE(0)}]`, B),
  "attachments of an event that uses the second are accepted": async (context) => {
    const channel = context.channel("second");
    const socket = await context.connected();
    socket.send(`421["subscribe","${channel}"]`);
    await socket.next();
    socket.send(`452-["publish","${channel}",${PLACE(1)}]`, A, B);
    return socket.take(2);
  },
  "an empty attachment is accepted": sent(`451-5["nobody knows",${PLACE(0)}]`, Buffer.alloc(0)),
};

const bad = {
  "an event that is an object": sent("42{}"),
  "an event that is a string": sent('42"subscribe"'),
  "an event that is null": sent("42null"),
  "an event that is true": sent("42true"),
  "an event that is an empty array": sent("42[]"),
  "an event whose name is null": sent("42[null]"),
  "an event whose name is an array": sent('42[["subscribe"],"a"]'),
  "an event whose name is an object": sent("42[{}]"),
  "an event whose name is true": sent("42[true]"),
  "an event that is not finished": sent('42["subscribe","a"'),
  "an event that is followed by text": sent('42["subscribe","a"]x'),
  "an event that is followed by an event": sent('42["subscribe","a"]["b"]'),
  "an event with a comma too many": sent('42["subscribe","a",]'),
  "an event in single quotes": sent("42['subscribe','a']"),
  "an event with a control character": sent('42["subscribe","a\u0001"]'),
  "an event with a bad escape": sent('42["subscribe","\\x41"]'),
  "an event with a minus in its id": sent('42-1["subscribe","a"]'),
  "an event with a fraction for an id": sent('421.5["subscribe","a"]'),
  "an event with the reserved name connect": sent('42["connect"]'),
  "an event with the reserved name connect_error": sent('42["connect_error"]'),
  "an event with the reserved name disconnect": sent('42["disconnect"]'),
  "an event with the reserved name disconnecting": sent('42["disconnecting"]'),
  "an event with the reserved name newListener": sent('42["newListener"]'),
  "an event with the reserved name removeListener": sent('42["removeListener"]'),
  "an event with a reserved name in escapes": sent('42["\\u0063onnect"]'),
  "a connect twice": sent("40"),
  "a connect of a namespace twice": sent("40/chat,", "40/chat,"),
  "a connect with an array": sent("40/chat,[]"),
  "a connect with a string": sent('40/chat,"x"'),
  "a connect with null": sent("40/chat,null"),
  "a connect with a number": sent("40/chat,5"),
  "a connect with bad JSON": sent('40/chat,{"a"'),
  "a disconnect with data": sent("41{}"),
  "a disconnect of a namespace that is not joined": sent("41/chat,"),
  "an event of a namespace that is not joined": sent('42/chat,["subscribe","a"]'),
  "an event of an unknown namespace": sent('42/nowhere,["subscribe","a"]'),
  "an acknowledgement of a namespace that is not joined": sent('43/chat,1["x"]'),
  "an acknowledgement that is an object": sent("431{}"),
  "an acknowledgement that is a string": sent('431"x"'),
  "a connect error of the client": sent('44{"message":"x"}'),
  "a connect error of the client with a number": sent("445"),
  "a packet of type 7": sent("47"),
  "a packet of type 9": sent('49["subscribe"]'),
  "a packet of a type that is a letter": sent("4x"),
  "a packet of a type that is a blank": sent('4 ["subscribe"]'),
  "a binary event without a number of attachments": sent('45["subscribe"]'),
  "a binary event of no number": sent('45-["subscribe"]'),
  "a binary event of 0 attachments": sent('450-["subscribe"]'),
  "a binary event of a negative number": sent('45-1-["subscribe"]'),
  "a binary event of a fraction": sent('451.5-["subscribe"]'),
  "a binary event of 11 attachments": sent('4511-["subscribe"]'),
  "a binary event of a huge number": sent('4599999999999999999999-["subscribe"]'),
  "a binary event that is not finished": sent("451-"),
  "a binary event with a bad name": sent(`451-["connect",${PLACE(0)}]`),
  "text amid attachments": sent(`452-["publish","a",${PLACE(0)}]`, A, '42["subscribe"]'),
  "a connect amid attachments": sent(`451-["publish","a",${PLACE(0)}]`, "40/chat,"),
  "an attachment too many": sent(`451-["publish","a",${PLACE(0)}]`, A, B),
  "an attachment without an event": sent(A),
  "a placeholder beyond the attachments": sent(`451-["publish","a",${PLACE(1)}]`, A),
  "a placeholder with a negative number": sent(`451-["publish","a",${PLACE(-1)}]`, A),
  "a placeholder whose number is a string": sent(`451-["publish","a",${PLACE('"0"')}]`, A),
  "a placeholder without a number": sent('451-["publish","a",{"_placeholder":true}]', A),
  "a placeholder in an object beyond the attachments":
    sent(`451-["nobody knows",{"a":[${PLACE(5)}]}]`, A),
  "a binary acknowledgement without attachments": sent("46[]"),
  "a ping of the client": sent("2"),
  "an unknown packet of Engine.IO": sent("8"),
  "an empty message": sent(""),
};

export default [good, bad];

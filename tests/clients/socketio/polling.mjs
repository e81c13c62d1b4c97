// Observations of Engine.IO by polling, request by request: handshakes, errors, bodies, headers.
import { SEPARATOR, next, sleep } from "./context.mjs";
import { ORIGIN } from "./servers.mjs";

const HANDSHAKE = "/socket.io/?EIO=4&transport=polling";

// The headers that the protocol and browsers need.
const HEADERS = ["content-type", "access-control-allow-origin"];

// Returns a status, a body and headers, those by name beside them.
const seen = ({ status, body, headers }, ...more) => {
  const names = [...HEADERS, ...more];
  return { status, body, ...Object.fromEntries(names.map((name) => [name, headers[name]])) };
};

const brief = ({ status, body }) => [status, body];

const asked = (method, path, options) => async (context) => {
  return brief(await context.request(method, path, options));
};

// Sends a body in an open session. Returns the status of the answer, and whether the session is
// still open.
const posted = (body, options) => async (context) => {
  const polls = await context.polling();
  const { status } = await polls.post(body, options);
  return [status, await polls.state()];
};

// The same with a poll that waits, and its answer.
const postedBesideAPoll = (body, options) => async (context) => {
  const polls = await context.polling();
  const { answer } = await polls.pending();
  const { status } = await polls.post(body, options);
  return [status, brief(await answer), await polls.state()];
};

const handshakes = {
  "the open packet has five keys": async (context) => {
    const { body } = await context.request("GET", HANDSHAKE);
    const open = JSON.parse(body.slice(1));
    return [body[0], Object.keys(open), { ...open, sid: /^[\w-]{20}$/.test(open.sid) }];
  },
  "the answer to a handshake has its headers": async (context) => {
    const answer = await context.request("GET", HANDSHAKE);
    return { ...seen(answer, "cache-control"), body: undefined };
  },
  "ids are different": async (context) => {
    const sids = await Promise.all([1, 2, 3].map(async () => (await context.polls()).sid));
    return new Set(sids).size;
  },
  "parameters in another order are accepted": async (context) => {
    const path = "/socket.io/?t=abc&transport=polling&b64=1&EIO=4&name=%C3%A4";
    return (await context.request("GET", path)).status;
  },
  "a percent-encoded parameter is accepted": async (context) => {
    return (await context.request("GET", "/socket.io/?EIO=%34&transport=poll%69ng")).status;
  },
  "an empty sid is a handshake": async (context) => {
    return (await context.request("GET", `${HANDSHAKE}&sid=`)).status;
  },
  "a transport that is missing is unknown": asked("GET", "/socket.io/?EIO=4"),
  "a request without parameters has an unknown transport": asked("GET", "/socket.io/"),
  "a transport of another name is unknown": asked("GET", "/socket.io/?EIO=4&transport=tcp"),
  "a transport in upper case is unknown": asked("GET", "/socket.io/?EIO=4&transport=POLLING"),
  "a transport constructor is unknown": asked("GET", "/socket.io/?EIO=4&transport=constructor"),
  "the transport webtransport is unknown": asked("GET", "/socket.io/?EIO=4&transport=webtransport"),
  "a websocket without an upgrade is a bad request":
    asked("GET", "/socket.io/?EIO=4&transport=websocket"),
  "version 3 is not supported": asked("GET", "/socket.io/?EIO=3&transport=polling"),
  "version 5 is not supported": asked("GET", "/socket.io/?EIO=5&transport=polling"),
  "a missing version is not supported": asked("GET", "/socket.io/?transport=polling"),
  "a version with a blank is not supported": asked("GET", "/socket.io/?EIO=4+&transport=polling"),
  "a handshake by POST is refused": asked("POST", HANDSHAKE, { body: "40" }),
  "a handshake by POST of an unknown transport has an unknown transport":
    asked("POST", "/socket.io/?EIO=4&transport=tcp", { body: "40" }),
  "a POST of version 3 without a session is refused by its method":
    asked("POST", "/socket.io/?EIO=3&transport=polling", { body: "40" }),
  "an unknown session is an error": asked("GET", `${HANDSHAKE}&sid=AAAAAAAAAAAAAAAAAAAA`),
  "a session of another length is unknown": asked("GET", `${HANDSHAKE}&sid=short`),
  "a session of other characters is unknown": asked("GET", `${HANDSHAKE}&sid=%C3%A4%00%2F..`),
  "a session constructor is unknown": asked("GET", `${HANDSHAKE}&sid=constructor`),
  "a POST to an unknown session is an error":
    asked("POST", `${HANDSHAKE}&sid=AAAAAAAAAAAAAAAAAAAA`, { body: "40" }),
  "an unknown session of version 3 is unknown":
    asked("GET", "/socket.io/?EIO=3&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA"),
  "an unknown session of an unknown transport has an unknown transport":
    asked("GET", "/socket.io/?EIO=4&transport=tcp&sid=AAAAAAAAAAAAAAAAAAAA"),
  "a session that is changed in its last character is unknown": async (context) => {
    const { sid } = await context.polls();
    const other = sid.slice(0, -1) + (sid.endsWith("A") ? "B" : "A");
    return brief(await context.request("GET", `${HANDSHAKE}&sid=${other}`));
  },
  "a session that is changed in its first character is unknown": async (context) => {
    const { sid } = await context.polls();
    const other = (sid.startsWith("A") ? "B" : "A") + sid.slice(1);
    return brief(await context.request("GET", `${HANDSHAKE}&sid=${other}`));
  },
  "the id of Socket.IO is no session": async (context) => {
    const socket = await context.client();
    return brief(await context.request("GET", `${HANDSHAKE}&sid=${socket.id}`));
  },
  "an open session of version 3 is a bad request": async (context) => {
    const { sid } = await context.polls();
    const path = `/socket.io/?EIO=3&transport=polling&sid=${sid}`;
    return brief(await context.request("GET", path));
  },
  "an open session asked for by websocket without an upgrade is a bad request":
    async (context) => {
      const { sid } = await context.polls();
      const path = `/socket.io/?EIO=4&transport=websocket&sid=${sid}`;
      return brief(await context.request("GET", path));
    },
  "an error has its headers": async (context) => {
    return seen(await context.request("GET", `${HANDSHAKE}&sid=AAAAAAAAAAAAAAAAAAAA`));
  },
};

const polls = {
  "a client connects by polling": async (context) => {
    const polls = await context.polls();
    return [brief(await polls.post("40")), brief(await polls.get())];
  },
  "a poll that waits gets the answer to a connect": async (context) => {
    const polls = await context.polls();
    const { answer } = await polls.pending();
    await polls.post("40");
    return brief(await answer);
  },
  "a client connects with auth that is empty": async (context) => {
    const polls = await context.polls();
    return [brief(await polls.post("40{}")), brief(await polls.get())];
  },
  "the answer to a poll has its headers": async (context) => {
    const polls = await context.polls();
    await polls.post("40");
    return seen(await polls.get(), "cache-control");
  },
  "the answer to a POST has its headers": async (context) => {
    const polls = await context.polls();
    return seen(await polls.post("40"), "cache-control");
  },
  "packets of one body are served in order": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("body");
    const packets = [`420["subscribe","${channel}"]`, `421["publish","${channel}","a"]`,
      `422["unsubscribe","${channel}"]`];
    const answer = brief(await polls.post(packets.join(SEPARATOR)));
    const got = await polls.packets(4);
    return [answer, got.filter((packet) => packet.startsWith("43")),
      got.filter((packet) => packet.startsWith("42"))];
  },
  "a poll brings all that waits": async (context) => {
    const polls = await context.polling();
    for (const id of [1, 2, 3]) await polls.post(`42${id}["subscribe","a"]`);
    return brief(await polls.get());
  },
  "binary arrives in base64 behind its event": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("base64");
    await polls.post(`42["subscribe","${channel}"]`);
    await context.publish(channel, Buffer.from([255, 254, 253, 252]));
    return brief(await polls.get());
  },
  "binary is sent in base64 behind its event": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("sent");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    const place = '{"_placeholder":true,"num":0}';
    await polls.post([`451-["publish","${channel}",${place}]`, "b//79"].join(SEPARATOR));
    return got;
  },
  "binary may come in a later POST than its event": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("later");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    const place = '{"_placeholder":true,"num":0}';
    await polls.post(`451-["publish","${channel}",${place}]`);
    await polls.post("b//79");
    return got;
  },
  "unicode passes by polling": async (context) => {
    const polls = await context.polling();
    await polls.post('420["subscribe","Grüße 😀"]');
    return brief(await polls.get());
  },
  "control characters pass by polling": async (context) => {
    const polls = await context.polling();
    await polls.post('420["subscribe","\\u001e\\u0000"]');
    return brief(await polls.get());
  },
  "the content type of a POST does not matter": async (context) => {
    const polls = await context.polling();
    const answers = [];
    for (const type of ["text/plain;charset=UTF-8", "text/plain", "application/json", ""]) {
      const headers = { "Content-Type": type };
      answers.push(brief(await polls.post('420["subscribe","a"]', { headers })));
      answers.push(brief(await polls.get()));
    }
    return answers;
  },
  "a body in chunks is accepted": async (context) => {
    const polls = await context.polling();
    const headers = { "Transfer-Encoding": "chunked" };
    return [brief(await polls.post('420["subscribe","a"]', { headers })),
      brief(await polls.get())];
  },
  "polls and POSTs share connections": async (context) => {
    const polls = await context.polling();
    for (let n = 0; n < 20; n += 1) {
      await polls.post('420["subscribe","a"]');
      await polls.get();
    }
    return context.agent.totalSocketCount;
  },
  "a pong that nobody asked for does not disturb": posted("3"),
  "a noop of the client does not disturb": posted("6"),
  "an upgrade of the client by polling does not disturb": posted("5"),
  "an open packet of the client does not disturb": posted("0"),
  "a message of the client without Socket.IO in it ends the session": postedBesideAPoll("4"),
  "a message for a namespace that is not joined ends the session":
    postedBesideAPoll('42/chat,["a"]'),
  "an event of a wrong form ends the session": postedBesideAPoll("42{}"),
  "binary without an event ends the session": postedBesideAPoll("bAAEC"),
  "packets behind an error are not served": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("behind");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    const body = ["42{}", `42["publish","${channel}","behind"]`].join(SEPARATOR);
    await polls.post(body);
    socket.emit("publish", channel, "later");
    return got;
  },
};

const ends = {
  "a second poll ends both and the session": async (context) => {
    const polls = await context.polling();
    const { answer } = await polls.pending();
    const { status } = await polls.get();
    return [brief(await answer), status, await polls.state()];
  },
  "a poll that is aborted ends the session": async (context) => {
    const polls = await context.polling();
    const agent = new (context.agent.constructor)();
    polls.get({ agent });
    await sleep(50);
    agent.destroy();
    for (;;) {
      const state = await polls.state();
      if (state !== "open") return state;
      await sleep(10);
    }
  },
  "a close packet frees the poll and ends the session": postedBesideAPoll("1"),
  "a close packet without a poll ends the session": posted("1"),
  "a close packet behind an event ends the session behind the event": async (context) => {
    const polls = await context.polling();
    const channel = context.channel("last");
    const socket = await context.member(channel);
    const got = next(socket, "message");
    await polls.post([`42["publish","${channel}","last words"]`, "1"].join(SEPARATOR));
    return [await got, await polls.state()];
  },
  "a disconnect leaves the session open": async (context) => {
    const polls = await context.polling();
    await polls.post("41");
    await polls.post("40");
    return [brief(await polls.get()), await polls.state()];
  },
  "a body of bytes ends the session":
    posted("40", { headers: { "Content-Type": "application/octet-stream" } }),
  "a body of bytes ends the poll":
    postedBesideAPoll("40", { headers: { "Content-Type": "application/octet-stream" } }),
};

const small = {
  "a body beyond the maximum payload is refused and the session stays":
    posted(`42["publish","a","${"x".repeat(90_000)}"]`),
  "a body beyond the maximum payload in chunks is refused": async (context) => {
    const polls = await context.polling();
    const headers = { "Transfer-Encoding": "chunked" };
    const answer = await polls.post(`42["publish","a","${"x".repeat(90_000)}"]`, { headers });
    return answer.status;
  },
  "a body of exactly the maximum payload is served": async (context) => {
    const polls = await context.polling();
    const [head, tail] = ['420["publish","a","', '"]'];
    const text = "x".repeat(65_536 - head.length - tail.length);
    return [brief(await polls.post(head + text + tail)), brief(await polls.get())];
  },
  "a body of one byte more than the maximum payload is refused": async (context) => {
    const polls = await context.polling();
    const [head, tail] = ['420["publish","a","', '"]'];
    const text = "x".repeat(65_537 - head.length - tail.length);
    return (await polls.post(head + text + tail)).status;
  },
  "a body of characters of several bytes counts bytes": async (context) => {
    const polls = await context.polling();
    return (await polls.post(`42["publish","a","${"ä".repeat(33_000)}"]`)).status;
  },
  "the maximum payload is in the open packet": async (context) => {
    const { body } = await context.request("GET", HANDSHAKE);
    return JSON.parse(body.slice(1)).maxPayload;
  },
};

const preflight = (method, headers) => ({ "Access-Control-Request-Method": method,
  "Access-Control-Request-Headers": headers });

const forbidden = (Origin) => async (context) => {
  const answer = await context.request("GET", HANDSHAKE, { headers: { Origin } });
  const { code } = JSON.parse(answer.body);
  return [answer.status, code, answer.headers["access-control-allow-origin"]];
};

const origins = {
  "a page of the server's own origin may poll": async (context) => {
    const headers = { Origin: context.server.url };
    return (await context.request("GET", HANDSHAKE, { headers })).status;
  },
  "a page of an allowed origin may poll": async (context) => {
    const headers = { Origin: ORIGIN };
    const answer = await context.request("GET", HANDSHAKE, { headers });
    return { ...seen(answer, "vary"), body: undefined };
  },
  "a page of an allowed origin may read errors": async (context) => {
    const headers = { Origin: ORIGIN };
    return seen(await context.request("GET", `${HANDSHAKE}&sid=unknown`, { headers }), "vary");
  },
  "a page of an allowed origin may post": async (context) => {
    const polls = await context.polling();
    return seen(await polls.post("3", { headers: { Origin: ORIGIN } }), "vary");
  },
  "a page of another origin is forbidden": forbidden("http://other.example"),
  "the same host on another port is another origin": forbidden("http://127.0.0.1:1"),
  "the origin null is forbidden": forbidden("null"),
  "a preflight of an allowed origin is answered": async (context) => {
    const headers = { Origin: ORIGIN, ...preflight("POST", "content-type") };
    const { status, headers: got } = await context.request("OPTIONS", HANDSHAKE, { headers });
    const methods = got["access-control-allow-methods"].split(/, ?/);
    return [status, got["access-control-allow-origin"], methods.includes("POST"),
      got["access-control-allow-headers"].toLowerCase().includes("content-type")];
  },
  "a preflight of another origin allows nothing": async (context) => {
    const headers = { Origin: "http://other.example", ...preflight("POST", "content-type") };
    const answer = await context.request("OPTIONS", HANDSHAKE, { headers });
    return answer.headers["access-control-allow-origin"] === "http://other.example";
  },
};

// While the server pings each 300 ms and waits for 200 ms.
const pings = {
  "a poll that waits gets a ping": async (context) => {
    const polls = await context.polling();
    return brief(await polls.get());
  },
  "a client that answers each ping stays": async (context) => {
    const polls = await context.polling();
    const got = [];
    for (let n = 0; n < 4; n += 1) {
      got.push((await polls.get()).body);
      got.push(brief(await polls.post("3")));
    }
    return got;
  },
  "a client that does not answer a ping ends": async (context) => {
    const polls = await context.polling();
    const got = [brief(await polls.get()), brief(await polls.get())];
    return [...got, await polls.state()];
  },
  "a client that does not poll ends": async (context) => {
    const polls = await context.polling();
    for (let n = 0; n < 300; n += 1) {
      const answer = await context.request("GET", `${polls.path}&EIO=3`);
      if (answer.body.includes("unknown")) break;
      await sleep(20);
    }
    return polls.state();
  },
};

export default [
  handshakes,
  polls,
  ends,
  origins,
  { variant: "small", ...small },
  { variant: "quick", ...pings },
];

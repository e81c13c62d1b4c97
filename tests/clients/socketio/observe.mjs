// Compares slabd with Socket.IO's own server: each observation uses an official client, or raw
// requests, and both servers must give the same result.
//
//     node observe.mjs PATH_OF_SLABD [WORD…]     those observations whose names have all words
//     node observe.mjs node [WORD…]              Node's server only: prints the results
//
// Most observations of the official client run once for each kind of transport. Prints each
// difference, and "N observations, M runs, all equal" at the end. What is not observed, because
// slabd differs by intent:
//
// | | Node's server | slabd | because |
// |---|---|---|---|
// | PUT and DELETE | 400 or 500 | 405 | the path takes GET and POST |
// | body of 400 without a code, of 413 | none | says why | people read it |
// | message of code 4, error of a verb | the application's | its own | |
// | packet that ends a client which is not polling | kept for the next poll | forgotten | memory |
// | packets sent before the answer to a connect | close | served | clients wait |
// | events without data, huge ids, numbers like 1e0 | accepted | close | no client sends them |
// | probe for a client of WebSocket | answered, then closed | closed | no client sends it |
// | Vary without an Origin, Cache-Control of errors | yes, no | no, yes | nothing is cached |
// | password for a further namespace | needed | not, if the client has given it | |
// | JSONP, webtransport, EIO=3 by choice | offered | not | out of use |
// | close codes of WebSocket but 1009 | 1005 | say why | people read them |
import { isDeepStrictEqual } from "node:util";
import { Context, sleep } from "./context.mjs";
import { Server } from "./servers.mjs";
import client from "./client.mjs";
import connection from "./connection.mjs";
import packets from "./packets.mjs";
import polling from "./polling.mjs";
import routes from "./routes.mjs";
import websocket from "./websocket.mjs";

const [program, ...words] = process.argv.slice(2);
const PARALLEL = 8;
const PATIENCE_MS = Number(process.env.PATIENCE_MS ?? 60_000);
const TRANSPORTS = { websocket: ["websocket"], polling: ["polling"], upgrade: undefined };

// Replaces what differs between two runs of one server: ids, and the texts of slabd's own errors.
const normal = (value) => {
  if (typeof value === "string") {
    return value.replace(/"(sid|pid)":"[\w-]{20}"/g, '"$1":"…"')
      .replace(/"error":"(?:[^"\\]|\\.)*"/g, '"error":"…"');
  }
  if (value instanceof Uint8Array) return { binary: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(normal);
  if (!(value instanceof Object)) return value ?? null;
  const entries = Object.entries(value).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries.map(([key, value]) => {
    return [key, key === "error" && typeof value === "string" ? "…" : normal(value)];
  }));
};

const bounded = async (promise) => {
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`no result after ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const servers = new Map();

// Observations share a server, but one that stops it has its own.
const serverOf = (kind, variant) => {
  const own = variant === "own";
  const key = `${kind} ${variant}`;
  if (!own && servers.has(key)) return servers.get(key);
  const server = new Server(kind, own ? "plain" : variant, program).start();
  if (!own) servers.set(key, server);
  return server;
};

const run = async ({ variant, observe, transports, number }, kind) => {
  const server = await serverOf(kind, variant);
  const context = new Context(server, transports, number);
  try {
    return normal(await bounded(observe(context)));
  } catch (error) {
    return { failed: error.stack };
  } finally {
    await context.close();
    if (variant === "own") await server.stop();
  }
};

const files = { client, connection, packets, polling, routes, websocket };
const observations = Object.entries(files).flatMap(([file, groups]) => {
  return groups.flatMap(({ variant = "plain", kinds = ["websocket"], ...observations }) => {
    return Object.entries(observations).map(([name, observe]) => {
      return { name: `${file}: ${name}`, variant, kinds, observe };
    });
  });
}).filter(({ name }) => words.every((word) => name.includes(word)));
const runs = observations.flatMap(({ kinds, name, ...rest }) => {
  return kinds.map((kind) => {
    return { name: `${name} (${kind})`, transports: TRANSPORTS[kind], ...rest };
  });
}).map((run, number) => ({ ...run, number }));

let different = 0;
const again = [];
const compare = async (one, isAgain = false) => {
  const [expected, got] = await Promise.all([
    run(one, "node"), program === "node" ? undefined : run(one, "slabd"),
  ]);
  if (program === "node") {
    console.log(`${one.name}: ${expected?.failed ?? JSON.stringify(expected).slice(0, 300)}`);
    different += expected?.failed ? 1 : 0;
  } else if (!isDeepStrictEqual(expected, got) || expected?.failed) {
    // Some depend on the moment while others run beside, so they are made again alone.
    if (!isAgain) return void again.push({ ...one, number: one.number + runs.length });
    different += 1;
    const shown = (result) => result?.failed ?? JSON.stringify(result);
    const [theirs, ours] = [expected, got].map(shown);
    console.log(`DIFFERENT ${one.name}\n  node:  ${theirs}\n  slabd: ${ours}`);
  }
};

const queue = [...runs];
await Promise.all(Array.from({ length: PARALLEL }, async () => {
  while (queue.length) await compare(queue.shift());
}));
for (const one of again) await compare(one, true);
for (const server of servers.values()) await (await server).stop();
const outcome = different ? `${different} different` : "all equal";
const repeated = again.length ? `, ${again.length} of them again alone` : "";
console.log(`${observations.length} observations, ${runs.length} runs${repeated}, ${outcome}`);
await sleep(0);
process.exit(different ? 1 : 0);

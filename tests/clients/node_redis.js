// Tests node-redis with the hub: node node_redis.js PORT PROTOCOL
'use strict';

const { createClient } = require('redis');
const { run } = require('./pubsub.js');

const [port, protocol] = process.argv.slice(2).map(Number);

async function connect() {
  const client = createClient({ RESP: protocol, socket: { port, reconnectStrategy: () => 20 } });
  // The test breaks connections. Without a listener, an error would end the program.
  client.on('error', () => {});
  await client.connect();
  return {
    subscribe: (name, listener) => client.subscribe(name, listener, true),
    psubscribe: (name, listener) => client.pSubscribe(name, listener, true),
    ssubscribe: (name, listener) => client.sSubscribe(name, listener, true),
    unsubscribe: (name) => client.unsubscribe(name),
    punsubscribe: (name) => client.pUnsubscribe(name),
    sunsubscribe: (name) => client.sUnsubscribe(name),
    publish: (channel, message) => client.publish(channel, message),
    spublish: (channel, message) => client.sPublish(channel, message),
    pubsub: (...words) => client.sendCommand(['PUBSUB', ...words]),
    ping: () => client.ping(),
    close: () => client.close(),
  };
}

run(connect, protocol);

// Tests ioredis with the hub: node ioredis.js PORT PROTOCOL
'use strict';

const { Redis } = require('ioredis');
const { run } = require('./pubsub.js');

const [port, protocol] = process.argv.slice(2).map(Number);

async function connect() {
  const redis = new Redis({ port, protocol, lazyConnect: true, retryStrategy: () => 20 });
  // The test breaks connections. Without a listener, ioredis would print each error.
  redis.on('error', () => {});
  await redis.connect();

  const listeners = new Map();
  redis.on('messageBuffer', (channel, message) => listeners.get(`${channel}`)?.(message, channel));
  redis.on('pmessageBuffer', (pattern, channel, message) =>
    listeners.get(`${pattern}`)?.(message, channel));
  redis.on('smessageBuffer', (channel, message) => listeners.get(`${channel}`)?.(message, channel));
  const listened = (name, listener) => {
    listeners.set(name, listener);
    return name;
  };
  return {
    subscribe: (name, listener) => redis.subscribe(listened(name, listener)),
    psubscribe: (name, listener) => redis.psubscribe(listened(name, listener)),
    ssubscribe: (name, listener) => redis.ssubscribe(listened(name, listener)),
    unsubscribe: (name) => redis.unsubscribe(name),
    punsubscribe: (name) => redis.punsubscribe(name),
    sunsubscribe: (name) => redis.sunsubscribe(name),
    publish: (channel, message) => redis.publish(channel, message),
    spublish: (channel, message) => redis.spublish(channel, message),
    pubsub: (...words) => redis.call('PUBSUB', ...words),
    ping: () => redis.ping(),
    close: () => redis.quit(),
  };
}

run(connect, protocol);

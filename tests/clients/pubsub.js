// The scenario that each client library runs: subscribe, publish, unsubscribe, and the same after a
// restart of the server. `run` takes a function that connects and returns these methods, all of
// which return promises.
//   subscribe, psubscribe, ssubscribe(name, listener)    calls listener(message, channel)
//   unsubscribe, punsubscribe, sunsubscribe(name)
//   publish, spublish(channel, message)                  returns the number of receivers
//   pubsub(...words)                                     returns the answer of PUBSUB
//   ping(), close()
'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');

// Long enough for a busy machine.
const PATIENCE_MS = 20_000;

// Calls `probe` until it returns true. Errors are ignored meanwhile, because clients reconnect.
async function until(what, probe) {
  const deadline = Date.now() + PATIENCE_MS;
  for (let failure = 'it returns false'; ; ) {
    try {
      if (await probe()) return;
    } catch (error) {
      failure = error;
    }
    assert(Date.now() < deadline, `${what}: ${failure}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Makes the test end the server in this way and start a new one.
async function restart(way) {
  console.log(way);
  const { value } = await input.next();
  assert.equal(value, 'restarted');
}

// The messages that the subscriber has received, in order.
class Received {
  messages = [];

  listener(name) {
    return (message, channel) =>
      this.messages.push(`${name}: ${channel} ${message.toString('latin1')}`);
  }

  async expect(messages) {
    await until('messages', () => this.messages.length >= messages.length);
    assert.deepEqual(this.messages, messages);
    this.messages.length = 0;
  }
}

async function subscriptionsAndMessages(subscriber, publisher, received) {
  await subscriber.subscribe('a', received.listener('a'));
  await subscriber.subscribe('b', received.listener('b'));
  await subscriber.psubscribe('news.*', received.listener('news.*'));
  await subscriber.ssubscribe('shard', received.listener('shard'));
  assert.equal(await publisher.publish('a', 'hello'), 1);
  assert.equal(await publisher.publish('news.sport', 'goal'), 1);
  assert.equal(await publisher.spublish('shard', 'part'), 1);
  assert.equal(await publisher.publish('shard', 'nobody'), 0);
  assert.equal(await publisher.publish('c', 'nobody'), 0);
  await received.expect(['a: a hello', 'news.*: news.sport goal', 'shard: shard part']);

  // If a channel and a pattern match, the message comes twice, first for the channel.
  await subscriber.psubscribe('[a]', received.listener('[a]'));
  assert.equal(await publisher.publish('a', 'twice'), 2);
  await received.expect(['a: a twice', '[a]: a twice']);
  await subscriber.punsubscribe('[a]');
  assert.equal(await publisher.publish('a', 'once'), 1);
  await received.expect(['a: a once']);

  // Messages of all byte values, of no bytes and of many bytes arrive unchanged.
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const messages = [bytes, Buffer.alloc(0), Buffer.from('\r\n*1\r\n'), Buffer.alloc(100_000, 'x')];
  for (const message of messages) {
    assert.equal(await publisher.publish('b', message), 1);
    await received.expect([`b: b ${message.toString('latin1')}`]);
  }
  await subscriber.unsubscribe('b');
  assert.equal(await publisher.publish('b', 'nobody'), 0);
  await subscriber.subscribe('b', received.listener('b'));
  assert.deepEqual((await publisher.pubsub('CHANNELS')).map(String).sort(), ['a', 'b']);
}

// In RESP3, a subscribed connection can send all other commands as well.
async function bothOnOneConnection(subscriber, received) {
  assert.equal(await subscriber.publish('a', 'to myself'), 1);
  assert.equal(await subscriber.ping(), 'PONG');
  await received.expect(['a: a to myself']);
}

// Many messages over all subscriptions arrive in the order of their publishes.
async function order(publisher, received) {
  const channels = [['a', 'a'], ['news.x', 'news.*'], ['b', 'b'], ['news.y', 'news.*']];
  const numbers = Array.from({ length: 2_000 }, (_, number) => number);
  const channel = (number) => channels[number % 4][0];
  const publishes = numbers.map((number) => publisher.publish(channel(number), `${number}`));
  assert.deepEqual(new Set(await Promise.all(publishes)), new Set([1]));
  const expected = numbers.map((number) => {
    const name = channels[number % 4][1];
    return `${name}: ${channel(number)} ${number}`;
  });
  await received.expect(expected);
}

// Waits until the library has restored all subscriptions and the publisher's connection.
async function restored(publisher) {
  await until('the subscriptions are restored', async () => {
    const [, channels] = await publisher.pubsub('NUMSUB', 'a');
    const [, again] = await publisher.pubsub('NUMSUB', 'b');
    const [, shards] = await publisher.pubsub('SHARDNUMSUB', 'shard');
    return channels + again + shards + (await publisher.pubsub('NUMPAT')) === 4;
  });
}

async function scenario(connect, protocol) {
  const [subscriber, publisher, received] = [await connect(), await connect(), new Received()];
  await subscriptionsAndMessages(subscriber, publisher, received);
  if (protocol === 3) await bothOnOneConnection(subscriber, received);
  await order(publisher, received);
  for (const way of ['terminate', 'kill']) {
    await restart(way);
    await restored(publisher);
    await order(publisher, received);
    assert.equal(await publisher.spublish('shard', way), 1);
    await received.expect([`shard: shard ${way}`]);
  }
  await subscriber.sunsubscribe('shard');
  assert.equal(await publisher.spublish('shard', 'nobody'), 0);
  assert.equal(await publisher.ping(), 'PONG');
  await subscriber.close();
  await publisher.close();
  console.log('done');
}

exports.run = (connect, protocol) =>
  scenario(connect, protocol).then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );

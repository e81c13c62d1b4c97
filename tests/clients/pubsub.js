// What every client library is put through: subscribe, publish, unsubscribe, and the same again after the server was restarted.
// Its program says how: `run` takes a function that connects and returns these methods, all of which return promises.
//   subscribe, psubscribe, ssubscribe(name, listener)    the listener gets (message, channel), the message as a Buffer
//   unsubscribe, punsubscribe, sunsubscribe(name)
//   publish, spublish(channel, message)                  gives the number of receivers
//   pubsub(...words)                                     PUBSUB, as it is answered
//   ping(), close()
'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');

// Long enough for a loaded machine; what waits this long has failed.
const PATIENCE_MS = 20_000;

// Calls `probe` until it gives true. What fails meanwhile is part of the wait: connections are being made again.
async function until(what, probe) {
  const deadline = Date.now() + PATIENCE_MS;
  for (let failure = 'it gives false'; ; ) {
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

// Has the server ended in this way and another one started in its place.
async function restart(way) {
  console.log(way);
  const { value } = await input.next();
  assert.equal(value, 'restarted');
}

// What the subscriber has received, in order.
class Received {
  messages = [];

  listener(name) {
    return (message, channel) => this.messages.push(`${name}: ${channel} ${message.toString('latin1')}`);
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

  // A channel and a pattern that both match: twice, the channel first.
  await subscriber.psubscribe('[a]', received.listener('[a]'));
  assert.equal(await publisher.publish('a', 'twice'), 2);
  await received.expect(['a: a twice', '[a]: a twice']);
  await subscriber.punsubscribe('[a]');
  assert.equal(await publisher.publish('a', 'once'), 1);
  await received.expect(['a: a once']);

  // Bytes of any kind, none at all, and many.
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  for (const message of [bytes, Buffer.alloc(0), Buffer.from('\r\n*1\r\n'), Buffer.alloc(100_000, 'x')]) {
    assert.equal(await publisher.publish('b', message), 1);
    await received.expect([`b: b ${message.toString('latin1')}`]);
  }
  await subscriber.unsubscribe('b');
  assert.equal(await publisher.publish('b', 'nobody'), 0);
  await subscriber.subscribe('b', received.listener('b'));
  assert.deepEqual((await publisher.pubsub('CHANNELS')).map(String).sort(), ['a', 'b']);
}

// In RESP3 a connection that is subscribed does everything else as well.
async function bothOnOneConnection(subscriber, received) {
  assert.equal(await subscriber.publish('a', 'to myself'), 1);
  assert.equal(await subscriber.ping(), 'PONG');
  await received.expect(['a: a to myself']);
}

// Many messages at once, over all subscriptions in turn, come in the order in which they were published.
async function order(publisher, received) {
  const channels = [['a', 'a'], ['news.x', 'news.*'], ['b', 'b'], ['news.y', 'news.*']];
  const numbers = Array.from({ length: 2_000 }, (_, number) => number);
  const publishes = numbers.map((number) => publisher.publish(channels[number % 4][0], `${number}`));
  assert.deepEqual(new Set(await Promise.all(publishes)), new Set([1]));
  await received.expect(numbers.map((number) => `${channels[number % 4][1]}: ${channels[number % 4][0]} ${number}`));
}

// The library has subscribed again to everything, and the publisher is back.
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

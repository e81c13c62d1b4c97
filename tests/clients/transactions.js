// Publishes with one client library: node transactions.js PORT LIBRARY PROTOCOL
// Prints the replies to all publishes. Message 5 is in a transaction that the server must refuse.
'use strict';

const assert = require('node:assert/strict');

const [port, library, protocol] = process.argv.slice(2).map((word) => Number(word) || word);
const unknown = ['NOSUCH'];

async function likeIoredis(Redis) {
  const client = new Redis({ port, db: 3, connectionName: 'tester', protocol });
  const values = (results) => results.map(([error, reply]) => assert.ifError(error) ?? reply);
  const replies = values(await client.multi().publish('c', '1').publish('c', '2').exec());
  replies.push(...values(await client.pipeline().publish('c', '3').exec()));
  await client.watch('key');
  // A transaction that is no pipeline sends each command at once.
  await client.multi({ pipeline: false });
  await client.publish('c', '4');
  replies.push(...values(await client.exec()));
  await assert.rejects(client.multi().publish('c', '5').call(...unknown).exec(), /EXECABORT/);
  replies.push(await client.publish('c', '6'));
  client.disconnect();
  return replies;
}

async function nodeRedis({ createClient }) {
  const client = createClient({ RESP: protocol, database: 3, name: 'tester', socket: { port } });
  await client.connect();
  const replies = await client.multi().publish('c', '1').publish('c', '2').exec();
  replies.push(...(await client.multi().publish('c', '3').execAsPipeline()));
  await client.watch('key');
  replies.push(...(await client.multi().publish('c', '4').exec()));
  await assert.rejects(client.multi().publish('c', '5').addCommand(unknown).exec());
  replies.push(await client.publish('c', '6'));
  client.destroy();
  return replies;
}

const run = library === 'redis' ? nodeRedis : likeIoredis;
run(require(library)).then(
  (replies) => {
    console.log(replies.join(' '));
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

// The uWebSockets server of the benchmarks. Each client of /echo gets its own messages back. Every
// other client is subscribed to one channel, and a message of one goes to all of them, the sender
// included. Prints "ready PORT".
const uws = require('uwebsockets');

const idleTimeout = 0; // Otherwise it sends pings.
const app = uws.App();
app.ws('/echo', {
  idleTimeout,
  message: (client, message, isBinary) => client.send(message, isBinary),
}).ws('/*', {
  idleTimeout,
  open: (client) => client.subscribe('news'),
  message: (client, message, isBinary) => app.publish('news', message, isBinary),
}).listen('127.0.0.1', 0, (socket) => console.log('ready', uws.us_socket_local_port(socket)));

// The uWebSockets server of benches/fanout.rs. It subscribes each client to one channel, and sends
// a client's message to all others. Prints "ready PORT".
const uws = require('uwebsockets');

uws.App().ws('/*', {
  idleTimeout: 0, // Otherwise it sends pings.
  open: (client) => client.subscribe('news'),
  message: (client, message, isBinary) => client.publish('news', message, isBinary),
}).listen('127.0.0.1', 0, (socket) => console.log('ready', uws.us_socket_local_port(socket)));

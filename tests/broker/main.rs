//! Several slabd processes as one hub, over a broker: redis-server, Valkey, or another slabd. The
//! tests start all of them. A test whose broker is missing prints SKIPPED.

mod circle;
mod engine;
mod failover;
mod faults;
mod load;
mod order;
mod protocols;
#[path = "../support/mod.rs"]
mod support;
mod values;

use std::net::SocketAddr;

use engine::Engine;
use support::{Client, Server};

/// Starts a slabd whose hub is shared over a broker, and waits until its link is up.
fn node(broker: SocketAddr, more: &[&str]) -> Server {
    let mut server = node_without_link(broker, more);
    server.wait_for_log("the link to the broker is up");
    server
}

/// Starts a slabd whose hub is shared over a broker.
fn node_without_link(broker: SocketAddr, more: &[&str]) -> Server {
    let url = format!("redis://{broker}");
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0", "--broker", &url];
    arguments.extend(more);
    Server::start(&arguments)
}

/// Returns a client of RESP that is subscribed to a channel.
fn subscriber(server: &Server, channel: &str) -> Client {
    subscribed(server.address("hub"), channel)
}

fn subscribed(address: SocketAddr, channel: &str) -> Client {
    let mut client = Client::connect(address);
    let length = channel.len();
    client
        .send(format!("SUBSCRIBE {channel}\r\n"))
        .expect(format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n"));
    client
}

/// Returns a message as RESP2 sends it.
fn message(channel: &str, payload: &str) -> String {
    let (length, size) = (channel.len(), payload.len());
    format!("*3\r\n$7\r\nmessage\r\n${length}\r\n{channel}\r\n${size}\r\n{payload}\r\n")
}

/// Waits until the broker has this many subscribers of a channel, which a node subscribes to in its
/// own time.
fn wait_for_subscribers(engine: &Engine, channel: &str, count: usize) {
    let mut client = Client::connect(engine.address);
    let deadline = std::time::Instant::now() + support::PATIENCE;
    loop {
        client.send(format!("PUBSUB NUMSUB {channel}\r\n"));
        client.expect(format!("*2\r\n${}\r\n{channel}\r\n", channel.len()));
        let line = client.read_line();
        if line == format!(":{count}") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{channel} has {line} subscribers");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

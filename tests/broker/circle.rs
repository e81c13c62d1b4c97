//! Servers that are brokers of one another: messages would go round without end.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::support::{Client, Server};
use crate::{message, subscribed};

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it has an address")
}

fn start(own: SocketAddr, broker: SocketAddr) -> Server {
    let url = format!("redis://{broker}");
    Server::start(&["--listen", &format!("hub={own}"), "--broker", &url])
}

/// Publishes, and checks that the message arrives and that little follows.
fn a_publish_ends(server: &mut Server) {
    let mut reader = subscribed(server.address("hub"), "news");
    let mut publisher = Client::connect(server.address("hub"));
    publisher.send("PUBLISH news once\r\n").expect(":1\r\n");
    reader.expect(message("news", "once"));
    let before = server.count("loop/bytes in");
    std::thread::sleep(Duration::from_millis(500));
    let more = server.count("loop/bytes in") - before;
    assert!(more < 20_000, "{more} bytes went round");
}

#[test]
fn a_server_that_is_its_own_broker_has_no_link() {
    let address = free_address();
    let mut server = start(address, address);
    server.wait_for_log("it leads back to this server");
    a_publish_ends(&mut server);
}

#[test]
fn two_servers_that_are_brokers_of_each_other_have_no_links() {
    let [one, two] = [free_address(), free_address()];
    let mut servers = [start(one, two), start(two, one)];
    for server in &mut servers {
        server.wait_for_log("it leads back to this server");
    }
    a_publish_ends(&mut servers[0]);
}

//! Two servers that could answer each other's datagrams for ever.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::Server;

/// Starts two servers. Sends the first a datagram that seems to come from the second.
fn pair(service: &str) -> (Server, Server) {
    let first = Server::start(&["--listen", &format!("{service}+udp=127.0.0.1:0")]);
    // While the first server is stopped, the second one takes over the sender's port.
    first.signal("STOP");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = sender.local_addr().unwrap().port();
    sender.send_to(b"around", first.address(service)).unwrap();
    drop(sender);
    let second = Server::start(&["--listen", &format!("{service}+udp=127.0.0.1:{port}")]);
    first.signal("CONT");
    (first, second)
}

#[test]
fn two_servers_end_a_loop_of_datagrams_by_themselves() {
    for (service, most) in [("echo", 2100), ("hello", 3), ("discard", 1)] {
        let (mut first, mut second) = pair(service);
        first.wait_for_count("datagrams/in", |count| count >= 1);
        let mut received = |_| first.count("datagrams/in") + second.count("datagrams/in");
        let mut before = 0;
        // The loop has ended when no more datagrams arrive.
        let total = (0..100)
            .map(|turn| {
                std::thread::sleep(Duration::from_millis(100));
                received(turn)
            })
            .find(|now| std::mem::replace(&mut before, *now) == *now)
            .unwrap_or_else(|| panic!("{service}: the loop goes on after 10 s"));
        assert!((1..=most).contains(&total), "{service}: {total} datagrams");
        if service == "echo" {
            let dropped = |server: &mut Server| server.count("datagrams/dropped, could loop");
            assert_eq!(dropped(&mut first) + dropped(&mut second), 1);
        }
    }
}

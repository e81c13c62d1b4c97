//! Experiments that show the difference between TCP and UDP: connection state and message
//! boundaries.

use std::time::Duration;

use crate::support::{Client, Server, ask, datagrams};

/// A connection is state on both ends. If the server loses its half, the client's half is useless.
/// A datagram needs no state, so its sender does not notice a restart.
#[test]
fn a_restart_ends_tcp_connections_but_not_udp_exchanges() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");
    let mut tcp = Client::connect(address);
    tcp.expect("Hello\r\n").send("before\n").expect("Hello, before!\r\n");
    let udp = datagrams(address);
    assert_eq!(ask(&udp, b"before"), b"Hello, before!");

    server.kill();
    let rest = tcp.read_to_end().unwrap_or_default();
    assert_eq!(rest, b"", "the connection is closed and has nothing to read");
    let _server = Server::start(&["--listen", &format!("hello={address}")]);

    assert_eq!(ask(&udp, b"after"), b"Hello, after!", "the same UDP socket still works");
    let write = std::io::Write::write_all(&mut tcp.0, b"after\n");
    let answer = write.and_then(|()| tcp.read_to_end());
    assert!(
        answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()),
        "the old connection is closed"
    );
    Client::connect(address).expect("Hello\r\n").send("again\n").expect("Hello, again!\r\n");
}

/// TCP delivers bytes in order, and a reader cannot see where a write ended. A datagram arrives
/// whole.
#[test]
fn a_byte_stream_has_no_message_boundaries_but_datagrams_have() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");

    let mut one_line_in_three_segments = Client::connect(address);
    one_line_in_three_segments.expect("Hello\r\n");
    for segment in ["one ", "line ", "only\r\n"] {
        one_line_in_three_segments.send(segment);
        std::thread::sleep(Duration::from_millis(20));
    }
    one_line_in_three_segments.expect("Hello, one line only!\r\n");

    let mut three_lines_in_one_segment = Client::connect(address);
    three_lines_in_one_segment.expect("Hello\r\n").send("a\nb\r\nc\n");
    three_lines_in_one_segment.expect("Hello, a!\r\nHello, b!\r\nHello, c!\r\n");

    let udp = datagrams(address);
    udp.send(b"half a ").unwrap();
    udp.send(b"line").unwrap();
    let mut bytes = [0; 64];
    for expected in [&b"Hello, half a !"[..], b"Hello, line!"] {
        let length = udp.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], expected);
    }
}

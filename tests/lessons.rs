//! Lessons of the field, each as an experiment: what TCP keeps and UDP does not, and what a stream is.

mod support;

use std::time::Duration;

use support::{Client, Server, ask, datagrams};

/// A connection is state on both ends: when the server's half is gone, the client's is worthless. A datagram carries all
/// it needs, so its sender never notices.
#[test]
fn a_restart_ends_tcp_connections_and_means_nothing_to_udp() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");
    let mut tcp = Client::connect(address);
    tcp.expect("Hello\r\n").send("before\n").expect("Hello, before!\r\n");
    let udp = datagrams(address);
    assert_eq!(ask(&udp, b"before"), b"Hello, before!");

    server.kill();
    let rest = tcp.read_to_end().unwrap_or_default();
    assert_eq!(rest, b"", "the connection is closed, with nothing more to read");
    let _server = Server::start(&["--listen", &format!("hello={address}")]);

    assert_eq!(ask(&udp, b"after"), b"Hello, after!", "the same socket goes on");
    let write = std::io::Write::write_all(&mut tcp.0, b"after\n");
    let answer = write.and_then(|()| tcp.read_to_end());
    assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()), "the old connection stays dead");
    Client::connect(address).expect("Hello\r\n").send("again\n").expect("Hello, again!\r\n");
}

/// TCP delivers bytes in order and nothing else: where one write ended, no reader can tell. A datagram is delivered whole.
#[test]
fn a_byte_stream_has_no_boundaries_and_datagrams_have() {
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

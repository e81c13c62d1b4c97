//! Bad input gets an error or is dropped, is counted by reason, and affects only its sender.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{Client, PATIENCE, Server, ask, datagrams};

#[test]
fn a_line_is_accepted_up_to_the_limit_and_refused_above() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");
    for ending in ["\n", "\r\n"] {
        for length in [4095, 4096] {
            let line = "x".repeat(length);
            let mut client = Client::connect(address);
            client
                .expect("Hello\r\n")
                .send(format!("{line}{ending}"))
                .expect(format!("Hello, {line}!\r\n"));
        }
    }
    let mut client = Client::connect(address);
    client.expect("Hello\r\n").send("first\n").expect("Hello, first!\r\n");
    client
        .send(format!("{}\n", "x".repeat(4097)))
        .expect("error: line longer than 4096 bytes\r\n")
        .expect_end();
    drop(client);
    server.wait_for_count("closed by reason/line-too-long", |count| count == 1);
}

/// A close with unread input would reset the connection, and the client would lose the error.
#[test]
fn the_error_arrives_while_the_client_is_still_sending_the_line() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n");
    for _ in 0..50 {
        if client.0.write_all(&[b'x'; 10_000]).is_err() {
            break;
        }
    }
    client.expect("error: line longer than 4096 bytes\r\n").expect_end();
    drop(client);
    server.wait_for_count("closed by reason/line-too-long", |count| count == 1);
}

#[test]
fn max_line_sets_the_limit_of_a_line() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0", "--max-line", "5"]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("12345\n").expect("Hello, 12345!\r\n");
    client.send("123456\n").expect("error: line longer than 5 bytes\r\n").expect_end();
}

#[test]
fn hello_returns_nul_and_invalid_utf8_bytes() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");
    let mut client = Client::connect(address);
    client
        .expect("Hello\r\n")
        .send(b"\0\xff\xc3\x28\x80\n")
        .expect(b"Hello, \0\xff\xc3\x28\x80!\r\n");
    assert_eq!(ask(&datagrams(address), b"\0\xff"), b"Hello, \0\xff!");
}

#[test]
fn empty_and_largest_datagrams_are_answered() {
    let mut server =
        Server::start(&["--listen", "echo=127.0.0.1:0", "--listen", "hello=127.0.0.1:0"]);
    let (echo, hello) = (datagrams(server.address("echo")), datagrams(server.address("hello")));
    assert_eq!(ask(&echo, b""), b"");
    assert_eq!(ask(&hello, b""), b"Hello, !");
    let largest = vec![b'x'; 65_507];
    assert_eq!(ask(&echo, &largest), largest);
    assert_eq!(ask(&echo, &largest[1..]), largest[1..]);
    // The answer is eight bytes longer than the name. The first answer is the largest possible
    // datagram, and the second would be one byte longer.
    assert_eq!(ask(&hello, &largest[8..]).len(), 65_507);
    hello.send(&largest[7..]).unwrap();
    server.wait_for_count("datagrams/dropped, too large", |count| count == 1);
    assert_eq!(ask(&hello, b"still here"), b"Hello, still here!");
}

#[test]
fn a_reset_in_the_middle_of_a_line_counts_as_one_close() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("half a li");
    server.wait_for_count("user memory, bytes/read-buffers", |bytes| bytes == 64);
    client.reset();
    server.wait_for_count("closed by reason/peer-reset", |count| count == 1);
    assert_eq!(server.count("connections/held"), 0);
    assert_eq!(server.count("user memory, bytes/read-buffers"), 0);
}

#[test]
fn a_peer_that_never_reads_is_closed_while_others_are_served() {
    let arguments = ["--listen", "echo=127.0.0.1:0", "--output-timeout", "1s"];
    let mut server = Server::start(&arguments);
    let address = server.address("echo");
    let mut deaf = Client::connect(address);
    deaf.stuff();
    // The output is at most the high watermark and the answer to one read. Its buffer has the next
    // power of two.
    let held = server.count("user memory, bytes/write-buffers");
    assert!(
        (1..=128 * 1024).contains(&held),
        "{held} bytes are pending for a peer that never reads"
    );
    let mut other = Client::connect(address);
    other.send("ping").expect("ping");
    server.wait_for_count("closed by reason/output-timeout", |count| count == 1);
    assert_eq!(server.count("user memory, bytes/write-buffers"), 0);
    other.send("pong").expect("pong");
}

/// The kernel reports writable space only when a third of its buffer is free. This reader takes
/// less than that within the timeout, so the server has to ask the kernel how much was taken.
///
/// The reader's kernel opens its window by some 130 KB at a time, after each seventh read. That is
/// a sixth of the timeout, so a busy machine may delay the reader several times as long.
#[test]
fn a_slow_reader_that_keeps_reading_is_not_closed() {
    let timeout = Duration::from_secs(2);
    let arguments =
        ["--listen", "echo=127.0.0.1:0", "--output-timeout", "2s", "--notsent-lowat", "0"];
    let mut server = Server::start(&arguments);
    let mut slow = Client::connect(server.address("echo"));
    slow.stuff();
    let started = Instant::now();
    while started.elapsed() < 2 * timeout {
        std::io::Read::read_exact(&mut slow.0, &mut [0; 20_000])
            .expect("the connection stays open");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.count("connections/held"), 1);
    server.wait_for_count("closed by reason/output-timeout", |count| count == 1);
}

/// A read stops at the mark of urgent data, so the server must read on after a short read. telnet
/// sends urgent data with its interrupt.
#[test]
fn input_behind_urgent_data_is_read() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    for _ in 0..20 {
        let mut client = Client::connect(server.address("hello"));
        client.expect("Hello\r\n");
        server.signal("STOP");
        client.send("abc");
        socket2::SockRef::from(&client.0).send_out_of_band(b"!").unwrap();
        client.send("def\n");
        server.signal("CONT");
        client.expect("Hello, abcdef!\r\n");
    }
}

#[test]
fn a_client_that_dribbles_a_message_is_closed_by_the_message_deadline() {
    let mut server =
        Server::start(&["--listen", "hello=127.0.0.1:0", "--message-timeout", "300ms"]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("a\n").expect("Hello, a!\r\n");
    let started = Instant::now();
    while client.0.write_all(b"x").is_ok() {
        assert!(started.elapsed() < PATIENCE, "each byte moves the deadline");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.wait_for_count("closed by reason/message-timeout", |count| count == 1);
}

#[test]
fn silent_and_idle_connections_are_closed_by_their_own_deadlines() {
    let arguments = [
        "--listen",
        "hello=127.0.0.1:0",
        "--first-message-timeout",
        "200ms",
        "--idle-timeout",
        "400ms",
        // One silent connection is half of the set.
        "--max-silent",
        "2",
    ];
    let mut server = Server::start(&arguments);
    let address = server.address("hello");
    let mut silent = Client::connect(address);
    let mut idle = Client::connect(address);
    idle.expect("Hello\r\n").send("a\n").expect("Hello, a!\r\n");
    silent.expect("Hello\r\n").expect_reset();
    idle.expect_end();
    let status = server.status();
    assert_eq!(status["closed by reason/first-message-timeout"], "1");
    assert_eq!(status["closed by reason/idle-timeout"], "1");
}

#[test]
fn a_datagram_from_the_services_own_port_is_not_answered() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let address = server.address("echo");
    let twin = std::net::UdpSocket::bind(("127.0.0.77", address.port())).unwrap();
    twin.send_to(b"around and around", address).unwrap();
    server.wait_for_count("datagrams/dropped, could loop", |count| count == 1);
    twin.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(twin.recv(&mut [0; 64]).is_err());
}

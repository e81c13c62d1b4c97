//! How the server closes connections. A connection without time or memory left is reset, so nothing
//! of it stays in the kernel. An idle peer, or one with an error message to read, gets a FIN.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::drill::{self, FIN_WAIT1};
use crate::support::{Client, PATIENCE, Server};

const RESETS: &str = "closed by reason/of all, by a reset";

/// Opens connections that send and never read, until the server has pending output for each.
fn zero_window_readers(server: &mut Server, count: usize) -> Vec<TcpStream> {
    let address = server.address("echo");
    let mut readers = drill::connect_from(Ipv4Addr::new(127, 0, 0, 77), address, count, Some(2304));
    let until = Instant::now() + PATIENCE;
    for reader in &mut readers {
        reader.set_nonblocking(true).unwrap();
    }
    while server.count("user memory, bytes/write-buffers") < 32 * 1024 * count as u64 {
        assert!(Instant::now() < until, "the peers' windows do not close");
        for reader in &mut readers {
            let _ = reader.write(&[b'x'; 65_536]);
        }
    }
    readers
}

#[test]
fn connections_closed_by_the_output_timeout_leave_no_socket_in_fin_wait1() {
    let arguments =
        ["--listen", "echo=127.0.0.1:0", "--output-timeout", "5s", "--user-timeout", "0"];
    let mut server = Server::start(&arguments);
    let port = server.address("echo").port();
    let readers = zero_window_readers(&mut server, 200);
    server.wait_for_count("closed by reason/output-timeout", |count| count == 200);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        drill::sockets_in_state(port, FIN_WAIT1),
        0,
        "sockets with unacknowledged output stay in the kernel"
    );
    assert_eq!(server.count(RESETS), 200);
    drop(readers);
}

/// A peer that has acknowledged all output gets a FIN. The other peers are reset, because the
/// kernel would keep their output after a FIN.
#[test]
fn the_idle_timeout_resets_only_connections_with_unacknowledged_output() {
    let arguments =
        ["--listen", "echo=127.0.0.1:0", "--idle-timeout", "4s", "--output-timeout", "0"];
    let mut server = Server::start(
        &[&arguments[..], &["--user-timeout", "0", "--high-watermark", "512KiB"]].concat(),
    );
    let port = server.address("echo").port();
    let mut quiet = Client::connect(server.address("echo"));
    quiet.send("x").expect("x");
    let readers = zero_window_readers(&mut server, 10);
    quiet.expect_end();
    server.wait_for_count("closed by reason/idle-timeout", |count| count == 11);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((drill::sockets_in_state(port, FIN_WAIT1), server.count(RESETS)), (0, 10));
    drop(readers);
}

#[test]
fn an_error_message_is_followed_by_a_fin_and_no_reset() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0", "--max-line", "10"]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("far too long a line\n").shutdown();
    assert!(
        String::from_utf8_lossy(
            &client.read_to_end().expect("the server sends a FIN and no reset")
        )
        .contains("long")
    );
    assert_eq!(server.count(RESETS), 0);
}

//! Too few files, no free slot, and a full accept queue: the loop does not spin, and open
//! connections are served.

use std::io::ErrorKind::ConnectionReset;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Client, Server, all_files};

/// Returns the number of turns in half a second without input.
fn turns_while_waiting(server: &mut Server) -> u64 {
    let before = server.count("loop/turns");
    std::thread::sleep(Duration::from_millis(500));
    server.count("loop/turns") - before
}

/// After EMFILE, the edge-triggered listener needs a retry, or it would stay silent. A retry
/// without a timer would spin. Without the spare file, waiting clients would hang.
#[test]
fn without_free_files_newcomers_are_reset_and_open_connections_are_served() {
    let mut server =
        Server::start(&["--listen", "hello=127.0.0.1:0", "--first-message-timeout", "0"]);
    let address = server.address("hello");
    let mut inside: Vec<Client> = (0..10).map(|_| Client::connect(address)).collect();
    inside.iter_mut().for_each(|client| {
        client.expect("Hello\r\n");
    });
    let limit = format!("--nofile={}", server.open_files() + 5);
    let status =
        Command::new("prlimit").args(["--pid", &server.process_id().to_string(), &limit]).status();
    assert!(status.expect("prlimit (util-linux) runs").success());

    let mut outside: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    server.wait_for_log("cannot accept");
    assert_eq!(server.status()["connections/accept gate"], "exhausted");
    let held = server.count("connections/held") as usize;
    assert!((10..30).contains(&held), "the server holds {held} of 30 connections");
    let (files, shed) = (server.open_files(), 30 - held);
    server.wait_for_count("connections/accept shed", |count| count == shed as u64);
    let outcomes = outside.iter_mut().map(|client| client.0.read(&mut [0; 7]));
    let (in_time, turned_away): (Vec<_>, Vec<_>) =
        outcomes.partition(|outcome| matches!(outcome, Ok(7)));
    assert_eq!((in_time.len(), turned_away.len()), (held - 10, shed), "{turned_away:?}");
    let reset = |outcome: &std::io::Result<usize>| {
        outcome.as_ref().is_err_and(|error| error.kind() == ConnectionReset)
    };
    assert!(turned_away.iter().all(reset), "{turned_away:?}");

    let (turns, busy) =
        (turns_while_waiting(&mut server), busy_share(&mut server, Duration::from_secs(2)));
    assert!(turns < 50, "{turns} turns in half a second: the loop spins");
    assert!(busy < 0.05, "{:.1} % of the processor taken without files", 100.0 * busy);
    assert_eq!(server.open_files(), files, "the spare file is open again");
    for client in &mut inside {
        client.send("still here\n").expect("Hello, still here!\r\n");
    }
    // With free files, the server accepts newcomers again.
    drop(inside);
    server.wait_for_count("connections/held", |count| count as usize == held - 10);
    let freed = Instant::now();
    Client::connect(address).expect("Hello\r\n");
    let took = freed.elapsed();
    assert!(
        took < Duration::from_secs(2),
        "a newcomer waited {took:?} for the retry, which comes within 100 ms"
    );
    assert!(server.count("connections/accept exhausted") >= 1);
}

/// Returns the server's share of one processor during this time.
fn busy_share(server: &mut Server, span: Duration) -> f64 {
    let before = server.count("loop/processor time, ms");
    std::thread::sleep(span);
    (server.count("loop/processor time, ms") - before) as f64 / span.as_millis() as f64
}

#[test]
fn connections_are_accepted_up_to_the_cap_and_refused_above() {
    let mut arguments = vec!["--listen", "hello=127.0.0.1:0", "--max-connections", "3"];
    arguments.extend(["--max-connections-per-source", "10", "--first-message-timeout", "0"]);
    let mut server = Server::start(&arguments);
    let address = server.address("hello");
    let mut first = Client::connect(address);
    first.expect("Hello\r\n");
    Client::connect(address).expect("Hello\r\n").shutdown().expect_end();
    let mut others: Vec<Client> = (0..2).map(|_| Client::connect(address)).collect();
    others.iter_mut().for_each(|client| {
        client.expect("Hello\r\n");
    });
    others.iter_mut().chain([&mut first]).for_each(|client| {
        client.send("x\n").expect("Hello, x!\r\n");
    });
    Client::connect(address).expect("error: max connections reached\r\n");
    let status = server.status();
    assert_eq!(
        (&status["connections/held"][..], &status["connections/accept gate"][..]),
        ("3", "full")
    );
    let turns = turns_while_waiting(&mut server);
    assert!(turns < 50, "{turns} turns in half a second: the loop spins");
    drop(others.pop());
    server.wait_for_count("connections/held", |count| count == 2);
    Client::connect(address).expect("Hello\r\n");
    first.send("x\n").expect("Hello, x!\r\n");
}

/// While the process is stopped, the kernel completes handshakes until the accept queue is full. It
/// drops the others, and their senders try again. The server serves all of them in the end.
#[test]
fn a_full_accept_queue_of_a_stopped_process_is_served_later() {
    let _all_files = all_files();
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0", "--backlog", "1024"]);
    let address = server.address("hello");
    server.signal("STOP");
    let flood = std::thread::spawn(move || {
        // A blocking connect would wait if the full queue drops its handshake.
        let connects = (0..1500).map(|index| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket
                .bind(&std::net::SocketAddr::from(([127, 0, 1, (index % 8) as u8 + 1], 0)).into())
                .unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        connects.collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_secs(2));
    server.signal("CONT");
    let sockets = flood.join().unwrap();
    for socket in sockets {
        socket.set_nonblocking(false).unwrap();
        let mut client = Client::from(std::net::TcpStream::from(socket));
        client.expect("Hello\r\n");
    }
    assert_eq!(server.count("connections/accepted"), 1500);
}

//! More connections than files, a full house, a full accept queue: nobody spins, and those inside go on.

mod support;

use std::io::ErrorKind::ConnectionReset;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Client, Server, all_files};

/// Turns of the loop in half a second in which nobody does anything but wait.
fn turns_while_waiting(server: &mut Server) -> u64 {
    let before = server.count("loop/turns");
    std::thread::sleep(Duration::from_millis(500));
    server.count("loop/turns") - before
}

/// Without a retry after EMFILE the edge-triggered listener would stay silent for ever; with a careless one it would spin; and without a
/// spare file those who wait would hang.
#[test]
fn when_files_run_out_those_inside_go_on_others_are_turned_away_and_accepting_resumes() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0", "--first-message-timeout", "0"]);
    let address = server.address("hello");
    let mut inside: Vec<Client> = (0..10).map(|_| Client::connect(address)).collect();
    inside.iter_mut().for_each(|client| {
        client.expect("Hello\r\n");
    });
    let limit = format!("--nofile={}", server.open_files() + 5);
    let status = Command::new("prlimit").args(["--pid", &server.process_id().to_string(), &limit]).status();
    assert!(status.expect("prlimit (util-linux) runs").success());

    let mut outside: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    server.wait_for_log("cannot accept");
    assert_eq!(server.status()["connections/accept gate"], "exhausted");
    let held = server.count("connections/held") as usize;
    assert!((10..30).contains(&held), "{held} of 30 are in");
    let (files, shed) = (server.open_files(), 30 - held);
    server.wait_for_count("connections/accept shed", |count| count == shed as u64);
    let outcomes = outside.iter_mut().map(|client| client.0.read(&mut [0; 7]));
    let (in_time, turned_away): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| matches!(outcome, Ok(7)));
    assert_eq!((in_time.len(), turned_away.len()), (held - 10, shed), "{turned_away:?}");
    let reset = |outcome: &std::io::Result<usize>| matches!(outcome, Err(error) if error.kind() == ConnectionReset);
    assert!(turned_away.iter().all(reset), "{turned_away:?}");

    let (turns, busy) = (turns_while_waiting(&mut server), busy_share(&mut server, Duration::from_secs(2)));
    assert!(turns < 50, "{turns} turns in half a second: it spins");
    assert!(busy < 0.05, "{:.1} % busy while it waits for files", 100.0 * busy);
    assert_eq!(server.open_files(), files, "the spare file is back");
    for client in &mut inside {
        client.send("still here\n").expect("Hello, still here!\r\n");
    }
    // Files are freed: whoever comes now gets in.
    drop(inside);
    server.wait_for_count("connections/held", |count| count as usize == held - 10);
    let freed = Instant::now();
    Client::connect(address).expect("Hello\r\n");
    let took = freed.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} after files were freed; the retry comes within 100 ms");
    assert!(server.count("connections/accept exhausted") >= 1);
}

/// Processor time that the server takes while it is left alone, as a share of one processor.
fn busy_share(server: &mut Server, span: Duration) -> f64 {
    let before = server.count("loop/processor time, ms");
    std::thread::sleep(span);
    (server.count("loop/processor time, ms") - before) as f64 / span.as_millis() as f64
}

#[test]
fn connections_at_the_cap_one_below_and_one_above() {
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
    assert_eq!((&status["connections/held"][..], &status["connections/accept gate"][..]), ("3", "full"));
    let turns = turns_while_waiting(&mut server);
    assert!(turns < 50, "{turns} turns in half a second: it spins");
    drop(others.pop());
    server.wait_for_count("connections/held", |count| count == 2);
    Client::connect(address).expect("Hello\r\n");
    first.send("x\n").expect("Hello, x!\r\n");
}

/// While the process is stopped the kernel completes handshakes until the accept queue is full, and drops the rest, whose
/// senders try again. All of them are served in the end.
#[test]
fn an_accept_queue_flooded_while_the_process_is_stopped_is_served_after() {
    let _all_files = all_files();
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0", "--backlog", "1024"]);
    let address = server.address("hello");
    server.signal("STOP");
    let flood = std::thread::spawn(move || {
        // Nonblocking, because a handshake that the full queue drops would otherwise hold up the next.
        let connects = (0..1500).map(|index| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::from(([127, 0, 1, (index % 8) as u8 + 1], 0)).into()).unwrap();
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

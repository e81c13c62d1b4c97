//! What a connection costs, and that all of it comes back. Prints what it measured.

mod support;

use std::time::Duration;

use support::{Client, Server, all_files};

/// `tests/run` measures a release build; a debug build's connections are larger.
fn is_release_build() -> bool {
    std::env::var("SLABD_PROGRAM").is_ok_and(|path| path.contains("release"))
}

const CONNECTIONS: usize = 15_000;

/// A server of one service that holds whoever comes, however silent.
fn start(service: &str) -> Server {
    let listen = format!("{service}=127.0.0.1:0");
    let mut arguments = vec!["--listen", &listen, "--idle-timeout", "0", "--first-message-timeout", "0"];
    arguments.extend(["--max-silent", "65535", "--max-silent-per-source", "65535"]);
    Server::start(&arguments)
}

/// The contract: at most 96 bytes of user memory per connection after traffic, and a ledger that tells the same.
#[test]
fn fifteen_thousand_connections_after_traffic() {
    let _all_files = all_files();
    for service in ["echo", "hello", "hub"] {
        let listen = format!("{service}=127.0.0.1:0");
        let mut server = Server::start(&["--listen", &listen, "--idle-timeout", "0"]);
        let address = server.address(service);
        let (greeting, question, answer) = match service {
            "hello" => ("Hello\r\n", "abc\r\n", "Hello, abc!\r\n"),
            "hub" => ("", "PING\r\n", "+PONG\r\n"),
            _ => ("", "abcdef", "abcdef"),
        };
        let connect = |index: usize| {
            let mut client = Client::connect_from(1 + (index % 16) as u8, address).expect("room for one more");
            client.expect(greeting).send(question).expect(answer);
            client
        };
        // What the first connection of each source touches is not what the next ones cost.
        for source in 0..16 {
            connect(source).shutdown().expect_end();
        }
        server.wait_for_count("connections/held", |count| count == 0);
        let before = server.resident_bytes();
        let ledger_before = server.count("user memory, bytes/ledger, without fixed");

        let mut clients: Vec<Client> = (0..CONNECTIONS).map(connect).collect();
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| {
                client.send(question).expect(answer);
            });
        }
        let grown = (server.resident_bytes() - before) as f64 / CONNECTIONS as f64;
        let status = server.status();
        let ledger: u64 = status["user memory, bytes/ledger, without fixed"].parse().unwrap();
        let ledger = (ledger - ledger_before) as f64 / CONNECTIONS as f64;
        let kernel = &status["kernel memory, bytes/structures per connection"];
        println!(
            "{service}: {CONNECTIONS} connections after 3 messages each: {grown:.1} B resident, {ledger:.1} B by the ledger, \
             {kernel} B of kernel structures"
        );
        assert_eq!(status["connections/open"], CONNECTIONS.to_string());
        assert_eq!(status["user memory, bytes/read-buffers"], "0");
        assert_eq!(status["user memory, bytes/write-buffers"], "0");
        assert!((ledger / grown - 1.0).abs() <= 0.10, "the ledger says {ledger:.1} B, the resident set {grown:.1} B");
        if is_release_build() {
            assert!(grown <= 96.0, "{grown:.1} B per connection");
        }
    }
}

/// The same of the hub: each subscribed to one channel and having received three messages.
#[test]
fn fifteen_thousand_subscribers() {
    let _all_files = all_files();
    let mut server = start("hub");
    let address = server.address("hub");
    let subscribe = |index: usize| {
        let mut client = Client::connect_from(1 + (index % 16) as u8, address).expect("room for one more");
        client.send("SUBSCRIBE ch1\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$3\r\nch1\r\n:1\r\n");
        client
    };
    let mut publisher = Client::connect(address);
    // What the first subscribers touch, the program's own pages above all, is not what the next ones cost.
    let mut first: Vec<Client> = (0..300).map(subscribe).collect();
    for _ in 0..3 {
        publisher.send("PUBLISH ch1 hello\r\n").expect(":300\r\n");
        for subscriber in &mut first {
            subscriber.expect("*3\r\n$7\r\nmessage\r\n$3\r\nch1\r\n$5\r\nhello\r\n");
        }
    }
    first.iter_mut().for_each(|subscriber| subscriber.shutdown().expect_end());
    drop(first);
    server.wait_for_count("connections/held", |count| count == 1);
    let before = server.resident_bytes();
    let mut subscribers: Vec<Client> = (0..CONNECTIONS).map(subscribe).collect();
    for _ in 0..3 {
        publisher.send("PUBLISH ch1 hello\r\n").expect(format!(":{CONNECTIONS}\r\n"));
        for subscriber in &mut subscribers {
            subscriber.expect("*3\r\n$7\r\nmessage\r\n$3\r\nch1\r\n$5\r\nhello\r\n");
        }
    }
    let grown = (server.resident_bytes() - before) as f64 / CONNECTIONS as f64;
    let ledger = server.count("user memory, bytes/ledger, without fixed") as f64 / CONNECTIONS as f64;
    println!(
        "hub: {CONNECTIONS} subscribers after 3 messages each: {grown:.1} B resident, {ledger:.1} B by the ledger"
    );
    assert!((ledger / grown - 1.0).abs() <= 0.10, "the ledger says {ledger:.1} B, the resident set {grown:.1} B");
    if is_release_build() {
        assert!(grown <= 128.0, "{grown:.1} B per subscriber");
    }
    drop((subscribers, publisher));
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
}

/// A hundred cycles of five thousand connections: every slot, file and byte comes back.
#[test]
fn churn_leaves_nothing_behind() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    let files = server.open_files();
    let (mut first, mut worst) = (0, 0);
    for cycle in 0..100 {
        let mut clients: Vec<Client> = (0..5000)
            .map(|index| Client::connect_from(1 + (index % 200) as u8, address).expect("room for one more"))
            .collect();
        clients.iter_mut().step_by(10).for_each(|client| {
            client.send("x").expect("x");
        });
        // Half of them end in order, half by a reset.
        for (index, client) in clients.into_iter().enumerate() {
            if index % 2 == 0 { drop(client) } else { client.reset() }
        }
        if cycle == 0 {
            server.wait_for_count("connections/accepted", |count| count == 5000);
            first = server.resident_bytes();
        }
        worst = worst.max(server.resident_bytes());
    }
    server.wait_for_count("connections/held", |count| count == 0);
    server.wait_for_count("loop/memory given back", |count| count > 0);
    std::thread::sleep(Duration::from_millis(100));
    server.wait_for_count("user memory, bytes/slab", |bytes| bytes == 0);
    let status = server.status();
    let last = server.resident_bytes();
    println!(
        "100 cycles of 5,000: resident {} KiB in the first, {} KiB at worst, {} KiB at the end; ledger at the end {} B",
        first / 1024,
        worst / 1024,
        last / 1024,
        status["user memory, bytes/ledger, without fixed"]
    );
    assert_eq!(status["connections/accepted"], "500000");
    assert_eq!(server.open_files(), files);
    assert_eq!(status["user memory, bytes/ledger, without fixed"], "0");
    assert!(worst as f64 <= 1.25 * first as f64 && last as f64 <= 1.25 * first as f64);
}

/// A load that goes in steps leaves nothing behind either: two thousand, then a hundred, then nobody.
#[test]
fn a_staged_load_drop_ends_at_nothing_too() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    let mut clients: Vec<Client> = (0..2000).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| {
        client.send("x").expect("x");
    });
    clients.truncate(100);
    server.wait_for_count("loop/memory given back", |count| count == 1);
    drop(clients);
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
}

/// A few peers that never read hold much: when they are gone, so is that.
#[test]
fn a_few_large_buffers_go_back_too() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    // What the first of them touches, code and all, is not what the next ones cost.
    Client::connect(address).stuff();
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
    let before = server.resident_bytes();
    let mut deaf: Vec<Client> = (0..30).map(|_| Client::connect(address)).collect();
    deaf.iter_mut().for_each(|client| {
        client.stuff();
    });
    let loaded = server.resident_bytes();
    drop(deaf);
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
    let after = server.resident_bytes();
    println!(
        "30 peers that never read: {} KiB more resident; without them: {} KiB",
        (loaded - before) / 1024,
        (after - before) / 1024
    );
    assert!(loaded - before >= 1 << 20);
    assert!(after - before <= (loaded - before) / 4);
}

/// Every connection with a part of a message and with unsent output has buffers; when they are gone, so is the memory.
#[test]
fn memory_goes_back_to_the_system_after_a_load_drop() {
    let _all_files = all_files();
    let mut server = start("hello");
    let address = server.address("hello");
    Client::connect(address).expect("Hello\r\n").shutdown().expect_end();
    let before = server.resident_bytes();
    let mut clients: Vec<Client> =
        (0..10_000).map(|index| Client::connect_from(1 + (index % 16) as u8, address).expect("room")).collect();
    clients.iter_mut().for_each(|client| {
        client.send([b'x'; 2000]);
    });
    server.wait_for_count("user memory, bytes/read-buffers", |bytes| bytes == 10_000 * 2048);
    let loaded = server.resident_bytes();
    // A tenth of them stays.
    clients.truncate(1000);
    server.wait_for_count("connections/held", |count| count == 1000);
    server.wait_for_count("loop/memory given back", |count| count > 0);
    let dropped = server.resident_bytes();
    println!(
        "10,000 connections holding 2,000 B each: {} KiB more resident; with 1,000 of them left: {} KiB more",
        (loaded - before) / 1024,
        (dropped - before) / 1024
    );
    assert!(loaded - before >= 10_000 * 2048);
    assert!(dropped - before <= (loaded - before) / 4, "memory is kept after the load drop");
}

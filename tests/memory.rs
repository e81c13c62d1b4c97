//! Memory per connection, and its return to the system. The tests print their measurements.

mod support;

use std::time::Duration;

use support::{Client, Server, all_files};

/// True for a release build, which `tests/run` measures. A debug build's connections are larger.
fn is_release_build() -> bool {
    std::env::var("SLABD_PROGRAM").is_ok_and(|path| path.contains("release"))
}

const CONNECTIONS: usize = 15_000;

/// Starts one service that keeps silent connections.
fn start(service: &str) -> Server {
    let listen = format!("{service}=127.0.0.1:0");
    let mut arguments =
        vec!["--listen", &listen, "--idle-timeout", "0", "--first-message-timeout", "0"];
    arguments.extend(["--max-silent", "65535", "--max-silent-per-source", "65535"]);
    Server::start(&arguments)
}

/// The ledger must agree with the growth of the resident set.
#[test]
fn a_connection_after_traffic_costs_at_most_96_bytes() {
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
            let mut client = Client::connect_from(1 + (index % 16) as u8, address)
                .expect("the server accepts the connection");
            client.expect(greeting).send(question).expect(answer);
            client
        };
        // The first connection of each source allocates memory that the next ones use again.
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
            "{service}: {CONNECTIONS} connections after 3 messages each: {grown:.1} B resident, \
             {ledger:.1} B by the ledger, {kernel} B of kernel structures"
        );
        assert_eq!(status["connections/open"], CONNECTIONS.to_string());
        assert_eq!(status["user memory, bytes/read-buffers"], "0");
        assert_eq!(status["user memory, bytes/write-buffers"], "0");
        assert!(
            (ledger / grown - 1.0).abs() <= 0.10,
            "the ledger says {ledger:.1} B, the resident set {grown:.1} B"
        );
        if is_release_build() {
            assert!(grown <= 96.0, "{grown:.1} B per connection");
        }
    }
}

/// Each client subscribes to one channel of the hub and receives three messages.
#[test]
fn a_subscriber_costs_at_most_128_bytes() {
    let _all_files = all_files();
    let mut server = start("hub");
    let address = server.address("hub");
    let subscribe = |index: usize| {
        let mut client = Client::connect_from(1 + (index % 16) as u8, address)
            .expect("the server accepts the connection");
        client.send("SUBSCRIBE ch1\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$3\r\nch1\r\n:1\r\n");
        client
    };
    let mut publisher = Client::connect(address);
    // The first subscribers touch pages of the program that the next ones use again.
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
    let ledger =
        server.count("user memory, bytes/ledger, without fixed") as f64 / CONNECTIONS as f64;
    println!(
        "hub: {CONNECTIONS} subscribers after 3 messages each: {grown:.1} B resident, \
         {ledger:.1} B by the ledger"
    );
    assert!(
        (ledger / grown - 1.0).abs() <= 0.10,
        "the ledger says {ledger:.1} B, the resident set {grown:.1} B"
    );
    if is_release_build() {
        assert!(grown <= 128.0, "{grown:.1} B per subscriber");
    }
    drop((subscribers, publisher));
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
}

/// A hundred cycles of five thousand connections each.
#[test]
fn connection_churn_leaves_no_slot_file_or_byte_behind() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    let files = server.open_files();
    let (mut first, mut worst) = (0, 0);
    for cycle in 0..100 {
        let mut clients: Vec<Client> = (0..5000)
            .map(|index| {
                Client::connect_from(1 + (index % 200) as u8, address)
                    .expect("the server accepts the connection")
            })
            .collect();
        clients.iter_mut().step_by(10).for_each(|client| {
            client.send("x").expect("x");
        });
        // Half of the clients close with a FIN, half with a reset.
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
        "100 cycles of 5,000: resident {} KiB in the first, {} KiB at worst, {} KiB at the end; \
         ledger at the end {} B",
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

/// The load drops from two thousand connections to a hundred, and then to none.
#[test]
fn a_load_drop_in_steps_frees_all_memory() {
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

/// A few peers that never read have large buffers.
#[test]
fn a_few_large_buffers_return_to_the_system() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    // The first peer touches pages of the program that the next ones use again.
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

/// Every connection has a buffer, because it has sent a part of a message.
#[test]
fn memory_returns_to_the_system_after_a_load_drop() {
    let _all_files = all_files();
    let mut server = start("hello");
    let address = server.address("hello");
    Client::connect(address).expect("Hello\r\n").shutdown().expect_end();
    let before = server.resident_bytes();
    let mut clients: Vec<Client> = (0..10_000)
        .map(|index| {
            Client::connect_from(1 + (index % 16) as u8, address)
                .expect("the server accepts the connection")
        })
        .collect();
    clients.iter_mut().for_each(|client| {
        client.send([b'x'; 2000]);
    });
    server.wait_for_count("user memory, bytes/read-buffers", |bytes| bytes == 10_000 * 2048);
    let loaded = server.resident_bytes();
    // A tenth of the connections stays open.
    clients.truncate(1000);
    server.wait_for_count("connections/held", |count| count == 1000);
    server.wait_for_count("loop/memory given back", |count| count > 0);
    let dropped = server.resident_bytes();
    println!(
        "10,000 connections with 2,000 B of input each: {} KiB more resident; with 1,000 of them \
         left: {} KiB more",
        (loaded - before) / 1024,
        (dropped - before) / 1024
    );
    assert!(loaded - before >= 10_000 * 2048);
    assert!(
        dropped - before <= (loaded - before) / 4,
        "the server keeps memory after the load drop"
    );
}

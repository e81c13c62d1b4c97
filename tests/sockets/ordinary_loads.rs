//! Ordinary loads at the default settings: no client is refused, and none is closed.
//!
//! docs/run.md names these loads where it says which load a default was measured with.

use crate::support::{Client, Server, run};

/// Checks that the server has refused nobody, and closed only connections that their clients ended.
#[track_caller]
fn expect_nobody_harmed(server: &mut Server, load: &str) {
    let harmless = ["peer-closed", "peer-reset", "done"];
    for (row, value) in server.status() {
        let harm = match row.rsplit_once('/') {
            Some(("closed by reason", reason)) => !harmless.contains(&reason),
            Some(("admission", row)) => row.starts_with("refused, ") || row == "recycled",
            Some(("connections", row)) => ["evicted", "accept over budget"].contains(&row),
            _ => false,
        };
        assert!(!harm || value == "0", "{load}: {row} is {value}");
    }
}

#[test]
fn loads_of_the_generator_close_nobody_at_the_default_settings() {
    for load in [
        // 50 clients, pipelines of 32, and large requests.
        "ping resp://HUB -c 50 -P 32 -d 1s",
        "ping resp://HUB -c 20 -P 4 -d 1s --size 100KiB",
        // Fan-out to many readers, and bulk to a few.
        "fanout resp://HUB -c 500 --messages 400 --in-flight 16",
        "fanout resp://HUB -c 20 --messages 100 --in-flight 4 --size 200KiB",
        // Many clients of one address, and clients that come and go.
        "ping resp://HUB -c 1000 --sources 1 -d 1s",
        "hold resp://HUB -c 3000 --sources 1 -d 1s",
        "churn resp://HUB -c 50 --sources 1 -d 1s",
    ] {
        let mut server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
        let load = load.replace("HUB", &server.address("hub").to_string());
        let mut arguments: Vec<&str> = vec!["stress"];
        arguments.extend(load.split(' '));
        arguments.extend(["--quiet", "--assert", "errors=0"]);
        let (code, output, error) = run(&arguments);
        assert_eq!(code, Some(0), "{load}: {output}{error}");
        expect_nobody_harmed(&mut server, &load);
    }
}

/// Several publishers in full pipelines on several channels, and readers of all of them.
#[test]
fn publishers_on_several_channels_close_no_reader() {
    const READERS: usize = 20;
    const PUBLISHERS: usize = 8;
    const MESSAGES: usize = 500;
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let address = server.address("hub");
    let mut readers: Vec<Client> = (0..READERS)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send("SUBSCRIBE c0 c1 c2 c3\r\n");
            for _ in 0..4 * 6 {
                client.read_line();
            }
            client
        })
        .collect();
    std::thread::scope(|scope| {
        for number in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let payload = "x".repeat(1000);
                let publishes: String = (0..MESSAGES)
                    .map(|_| format!("PUBLISH c{} {payload}\r\n", number % 4))
                    .collect();
                let mut writer = Client::from(client.0.try_clone().unwrap());
                scope.spawn(move || {
                    writer.send(publishes);
                });
                (0..MESSAGES).for_each(|_| {
                    client.expect(format!(":{READERS}\r\n"));
                });
            });
        }
        for reader in &mut readers {
            scope.spawn(|| {
                let each = "*3\r\n$7\r\nmessage\r\n$2\r\nc0\r\n$1000\r\n\r\n".len() + 1000;
                let mut all = vec![0; each * MESSAGES * PUBLISHERS];
                std::io::Read::read_exact(&mut reader.0, &mut all).expect("all messages arrive");
            });
        }
    });
    expect_nobody_harmed(&mut server, "publishers on four channels");
}

/// A person at a terminal types a character at a time, and a script sends a command in pieces.
#[test]
fn a_slow_typist_is_served_at_the_default_settings() {
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("hub"));
    for _ in 0..2 {
        for byte in b"PUBLISH news hello\r\n" {
            client.send([*byte]);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        client.expect(":0\r\n");
    }
    expect_nobody_harmed(&mut server, "a slow typist");
}

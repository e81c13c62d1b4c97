//! The memory budget and the machine: the number of connections announced at start is true, and no
//! client ends the process.

use std::time::Duration;

use crate::support::{Client, Server, all_files};

/// Returns the number of connections that the server announced, and what limits it.
fn announced(server: &mut Server) -> (usize, String) {
    let lines = server.log();
    let ready = lines.iter().find_map(|line| line.split("ready: up to ").nth(1));
    let (count, limit) =
        ready.expect("the server is ready").split_once(" connections (").expect("a limit");
    (count.replace(',', "").parse().expect("a number"), limit.trim_end_matches(')').into())
}

#[test]
fn as_many_connections_are_held_as_the_server_announces() {
    let _all_files = all_files();
    for (budget, least) in [("16MiB", 3000), ("1MiB", 190)] {
        // By default, those that were idle for two seconds make way, which a busy machine reaches.
        let listen = ["--listen", "hub=127.0.0.1:0", "--admission", "refuse"];
        let listen = [&listen[..], &["--memory-budget", budget]].concat();
        let mut server = Server::start(&listen);
        let (count, limit) = announced(&mut server);
        assert!((least..least * 3 / 2).contains(&count), "{count} in {budget}");
        assert_eq!(limit, format!("memory-budget {budget}; raise with --memory-budget"));
        let address = server.address("hub");
        let connect = |index: usize| {
            let mut client = Client::connect_from((index % 8) as u8 + 1, address).unwrap();
            // A refused client may be closed before it has sent this.
            let _ = std::io::Write::write_all(&mut client.0, b"PING\r\n");
            client
        };
        let mut held: Vec<Client> = Vec::new();
        let refusal = loop {
            let mut client = connect(held.len());
            match client.read_line() {
                pong if pong == "+PONG" => held.push(client),
                refusal => break refusal,
            }
        };
        assert_eq!(refusal, "-ERR max number of clients reached (memory-budget)");
        let share = held.len() as f64 / count as f64;
        assert!((0.97..1.03).contains(&share), "{} of {count} were held", held.len());
        for client in &mut held {
            client.send("PING\r\n").expect("+PONG\r\n");
        }
        assert_eq!(server.count("admission/refused, memory"), 1);
        assert_eq!(server.count("closed by reason/memory-budget"), 0);
    }
}

#[test]
fn the_limit_on_files_is_announced_where_it_is_the_lowest() {
    let mut server = Server::start_with_limit("--nofile=300", &["--listen", "hub=127.0.0.1:0"]);
    let limit = "open files; raise with ulimit -n or LimitNOFILE=";
    assert_eq!(announced(&mut server), (300 - 64, limit.into()));
    let flags = ["--listen", "hub=127.0.0.1:0", "--max-connections", "20"];
    assert_eq!(announced(&mut Server::start(&flags)), (20, "max-connections".into()));
    // Eight slots are the operator's.
    let flags = [&flags[..], &["--admin", "127.0.0.1:0"]].concat();
    assert_eq!(announced(&mut Server::start(&flags)).0, 12);
}

/// Without a lower budget, an allocation would fail and end the process.
#[test]
fn half_sent_commands_do_not_end_a_server_with_little_address_space() {
    const BYTES: usize = 48 << 20;
    for (limit, flags) in [
        (format!("--as={BYTES}"), vec![]),
        (format!("--as={BYTES}"), vec!["--memory-budget", "1GiB"]),
        (format!("--data={BYTES}"), vec![]),
    ] {
        let flags = [&["--listen", "hub=127.0.0.1:0"][..], &flags].concat();
        let mut server = Server::start_with_limit(&limit, &flags);
        let lowered = server.log().iter().any(|line| line.contains("memory-budget lowered from"));
        assert!(lowered, "{:?}", server.log());
        let address = server.address("hub");
        let mut half = Vec::new();
        for index in 0..60 {
            let mut client = Client::connect(address);
            let part = match index % 3 {
                0 => b"*2\r\n$4\r\nECHO\r\n$1048000\r\n".to_vec(),
                1 => b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1000000\r\n".to_vec(),
                _ => b"*1000\r\n$9\r\nSUBSCRIBE\r\n$900000\r\n".to_vec(),
            };
            // The server may evict the client while it sends.
            let _ = std::io::Write::write_all(&mut client.0, &part);
            let _ = std::io::Write::write_all(&mut client.0, &vec![b'a'; 600_000]);
            half.push(client);
        }
        std::thread::sleep(Duration::from_millis(200));
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
        assert!(server.count("connections/evicted") > 0);
    }
}

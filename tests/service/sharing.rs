//! Several processes on one port, and how evenly the kernel spreads their clients.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::support::{Client, Server, all_files, datagrams, run};

fn two(service: &str) -> [Server; 2] {
    let listen = |port: u16| format!("{service}=127.0.0.1:{port}");
    let first = Server::start(&["--reuse-port", "--listen", &listen(0)]);
    let port = first.addresses()[0].port();
    let second = Server::start(&["--reuse-port", "--listen", &listen(port)]);
    [first, second]
}

/// Checks that each of two processes has its half, give or take a tenth.
#[track_caller]
fn assert_even(counts: [u64; 2], total: u64, what: &str) {
    assert_eq!(counts[0] + counts[1], total, "{what}");
    let most = total / 2 + total / 20;
    assert!(counts.iter().all(|count| *count <= most), "{counts:?} {what}");
    eprintln!("{total} {what}: {counts:?}");
}

/// With 4,000 clients, a fair coin is off by a tenth once in a billion runs.
#[test]
fn two_processes_on_one_port_have_their_halves_of_the_connections() {
    let _files = all_files();
    for sources in [1, 200] {
        let mut servers = two("hub+tcp");
        let address = servers[0].addresses()[0];
        let connect = |number: u32| {
            let source = 1 + (number % sources) as u8;
            Client::connect_from(source, address).expect("a server accepts the connection")
        };
        let mut clients: Vec<Client> = (0..4000).map(connect).collect();
        clients.iter_mut().for_each(|client| {
            client.send("PING\r\n").expect("+PONG\r\n");
        });
        let counts = servers.each_mut().map(|server| server.count("connections/held"));
        assert_even(counts, 4000, &format!("connections from {sources} addresses"));
    }
}

#[test]
fn two_processes_on_one_port_have_their_halves_of_the_senders_of_datagrams() {
    let _files = all_files();
    let mut servers = two("echo+udp");
    let address = servers[0].addresses()[0];
    let senders: Vec<UdpSocket> = (0..4000).map(|_| datagrams(address)).collect();
    for sender in &senders {
        // All datagrams of a sender go to one process.
        for _ in 0..2 {
            sender.send(b"here").unwrap();
            assert_eq!(sender.recv(&mut [0; 9]).unwrap(), 4);
        }
    }
    let counts = servers.each_mut().map(|server| server.count("datagrams/in"));
    assert!(counts.iter().all(|count| count % 2 == 0), "{counts:?}");
    assert_even(counts.map(|count| count / 2), 4000, "senders of datagrams");
}

#[test]
fn a_process_that_stops_leaves_the_port_to_the_other() {
    let [mut first, second] = two("hub");
    let address = second.addresses()[0];
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    for _ in 0..50 {
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    }
}

#[test]
fn a_port_is_shared_only_if_both_processes_say_so() {
    let alone = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let [shared, _] = two("hub");
    for (flag, address, why) in [
        (&["--reuse-port"][..], alone.addresses()[0], "every process must have reuse-port and run"),
        (&[], shared.addresses()[0], "already in use; give another port"),
    ] {
        let listen = format!("hub={address}");
        let (code, _, error) = run(&[&["--listen", &listen], flag].concat());
        assert!(code == Some(1) && error.contains(why), "{error}");
    }
    // The operator's address belongs to one process.
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = ["--listen", "hub=127.0.0.1:0", "--reuse-port", "--admin"];
    let first = Server::start(&[&listen[..], &[&admin.to_string()]].concat());
    let admin = first.address("admin").to_string();
    let (code, _, error) = run(&[&listen[..], &[&admin]].concat());
    assert!(code == Some(1) && error.contains("for admin: the address is already"), "{error}");
}

//! Who may stay: pools that connect early, idle clients when slots run out, and clients of a
//! process that was stopped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Server, all_files};

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    socket.connect(&server.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

fn is_served(stream: &mut TcpStream) -> bool {
    let mut reply = [0; 7];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && reply == *b"+PONG\r\n"
}

/// The pool connects from one address and speaks after many times the timeout. Meanwhile, other
/// clients of that address and of another are served.
#[test]
fn a_pool_of_2000_early_connections_is_served_later() {
    let _all_files = all_files();
    let mut server =
        Server::start(&["--listen", "hub=127.0.0.1:0", "--first-message-timeout", "200ms"]);
    let address = server.address("hub");
    let mut pool: Vec<TcpStream> = (0..2000).map(|_| connect(address)).collect();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for source in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9)] {
            assert!(is_served(&mut connect_from(source, address)), "{source}");
        }
        sleep(Duration::from_millis(20));
    }
    assert!(pool.iter_mut().all(is_served));
    let status = server.status();
    for row in ["refused, full", "refused, source silent", "refused, source", "recycled"] {
        assert_eq!(status[&format!("admission/{row}")], "0", "{row}");
    }
}

/// Clients ask again as soon as they have their answer. A stop is longer than every timeout.
#[test]
fn a_stopped_process_closes_no_client_that_was_active() {
    let mut server = Server::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--idle-timeout",
        "1s",
        "--message-timeout",
        "1s",
        "--output-timeout",
        "1s",
        "--close-timeout",
        "1s",
    ]);
    let address = server.address("hub");
    let mut clients: Vec<TcpStream> = (0..60).map(|_| connect(address)).collect();
    let mut begun: Vec<TcpStream> = (0..10).map(|_| connect(address)).collect();
    for pause in [10, 300, 700] {
        assert!(clients.iter_mut().all(is_served));
        for client in &mut begun {
            client.write_all(b"PI").unwrap();
        }
        sleep(Duration::from_millis(pause));
        server.signal("STOP");
        for client in &mut clients {
            client.write_all(b"PING\r\n").unwrap();
        }
        sleep(Duration::from_millis(1800));
        server.signal("CONT");
        for client in clients.iter_mut() {
            let mut reply = [0; 7];
            client.read_exact(&mut reply).expect("the input of the stop is answered");
        }
        for client in &mut begun {
            let mut reply = [0; 7];
            client.write_all(b"NG\r\n").unwrap();
            client.read_exact(&mut reply).expect("a begun message has the rest of its time");
        }
    }
    assert!(server.count("timers/stops") >= 3);
    assert_eq!(server.count("closed by reason/idle-timeout"), 0);
}

#[test]
fn when_slots_run_out_the_longest_idle_connection_makes_way() {
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0", "--max-connections", "64"]);
    let address = server.address("hub");
    let mut listening = connect(address);
    listening.write_all(b"SUBSCRIBE a\r\n").unwrap();
    assert!(listening.read(&mut [0; 100]).unwrap() > 0);
    let large = Ipv4Addr::new(127, 0, 1, 1);
    let mut held: Vec<TcpStream> = (0..56).map(|_| connect_from(large, address)).collect();
    let mut small: Vec<TcpStream> =
        (0..7).map(|_| connect_from(Ipv4Addr::new(127, 0, 1, 2), address)).collect();
    assert!(held.iter_mut().chain(&mut small).all(is_served));
    sleep(Duration::from_millis(2500));
    for number in 3..13 {
        let mut newcomer = connect_from(Ipv4Addr::new(127, 0, 1, number), address);
        assert!(is_served(&mut newcomer), "{number}");
        held.push(newcomer);
    }
    assert_eq!(server.count("closed by reason/idle-evicted"), 10);
    assert!(small.iter_mut().all(is_served), "the small source keeps its connections");
    assert_eq!(held.iter_mut().filter_map(|client| is_served(client).then_some(())).count(), 56);
}

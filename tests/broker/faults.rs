//! A broker that dies, hangs, or sends nonsense harms only the link.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::support::{Client, PATIENCE, Server};
use crate::{message, node, node_without_link, subscriber, wait_for_subscribers};

/// Longest time from the return of the broker until messages cross it again.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Returns a client of RESP3 that is subscribed to a channel.
fn subscriber_of_resp3(server: &Server, channel: &str) -> Client {
    let mut client = Client::connect(server.address("hub"));
    client.send("HELLO 3\r\n");
    while client.read_line() != "$7" {}
    while client.read_line() != "*0" {}
    let length = channel.len();
    client
        .send(format!("SUBSCRIBE {channel}\r\n"))
        .expect(format!(">3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n"));
    client
}

/// The broker dies ten times. No client is closed, messages go on within the node, and the
/// subscribers are told of each gap.
#[test]
fn a_broker_that_is_killed_ten_times_costs_no_client_its_connection() {
    let Some(mut engine) = Engine::redis(&[]) else { return };
    let mut nodes = [(); 2].map(|()| node(engine.address, &[]));
    let mut random = fastrand::Rng::with_seed(7);
    let mut told = subscriber_of_resp3(&nodes[1], "news");
    let mut publisher = Client::connect(nodes[1].address("hub"));
    let mut other = Client::connect(nodes[0].address("hub"));
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        wait_for_subscribers(&engine, "news", 1);
        other.send(format!("PUBLISH news across{round}\r\n")).expect(":0\r\n");
        let payload = format!("across{round}");
        told.expect(format!(">{}", &message("news", &payload)[1..]));
        thread::sleep(Duration::from_millis(random.u64(0..200)));
        engine.kill();
        nodes.iter_mut().for_each(|node| drop(node.wait_for_log("the link to the broker is down")));
        publisher.send(format!("PUBLISH news local{round}\r\n")).expect(":1\r\n");
        let payload = format!("local{round}");
        told.expect(format!(">{}", &message("news", &payload)[1..]));
        thread::sleep(Duration::from_millis(random.u64(0..1500)));
        let back = Instant::now();
        engine.restart();
        nodes.iter_mut().for_each(|node| drop(node.wait_for_log("the link to the broker is up")));
        slowest = slowest.max(back.elapsed());
        told.expect(">2\r\n$3\r\ngap\r\n$4\r\nnews\r\n");
    }
    println!("the link was up at most {slowest:.1?} after the broker, of ten times");
    assert!(slowest <= BACK_WITHIN + Duration::from_secs(1), "{slowest:?}");
    told.send("PING\r\n").expect("+PONG\r\n");
}

/// A broker that is stopped for some seconds slows no other client, and little waits for it.
#[test]
fn a_broker_that_hangs_slows_no_client_and_little_waits_for_it() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let mut server = node(engine.address, &[]);
    let mut subscriber = subscriber(&server, "news");
    wait_for_subscribers(&engine, "news", 1);
    let ping = |address| {
        let mut client = Client::connect(address);
        let mut waits: Vec<Duration> = (0..2000)
            .map(|_| {
                let asked = Instant::now();
                client.send("PING\r\n").expect("+PONG\r\n");
                asked.elapsed()
            })
            .collect();
        waits.sort();
        waits[waits.len() * 99 / 100]
    };
    let address = server.address("hub");
    let quiet = ping(address);
    let before = server.resident_bytes();
    engine.signal("STOP");
    // A flood of publishes, of which each is answered or waits.
    let mut flood = Client::connect(address);
    flood.0.set_nonblocking(true).expect("it can be set");
    let payload = "x".repeat(1000);
    let command = format!("PUBLISH news {payload}\r\n").repeat(100);
    let until = Instant::now() + Duration::from_secs(3);
    let mut chunk = vec![0; 1 << 16];
    while Instant::now() < until {
        let _ = flood.0.write(command.as_bytes());
        let _ = flood.0.read(&mut chunk);
        thread::sleep(Duration::from_millis(1));
    }
    let hung = ping(address);
    // Publishers that wait for the broker do not keep the loop busy.
    let turns = server.count("loop/turns");
    thread::sleep(Duration::from_millis(500));
    let busy = server.count("loop/turns") - turns;
    assert!(busy < 1000, "{busy} turns in half a second");
    let grown = server.resident_bytes().saturating_sub(before);
    println!("PING beside a broker that hangs: p99 {hung:?}, quiet {quiet:?}; {grown} bytes more");
    assert!(grown <= 24 << 20, "{grown} bytes wait for the broker");
    // The link gives up, and messages stay here.
    server.wait_for_log("the link to the broker is down");
    drop(flood);
    engine.signal("CONT");
    server.wait_for_log("the link to the broker is up");
    let mut publisher = Client::connect(address);
    publisher.send("PUBLISH news after\r\n").expect(":1\r\n");
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let end = message("news", "after").into_bytes();
    while !seen.ends_with(&end) {
        assert!(Instant::now() < deadline, "the message does not arrive");
        let length = subscriber.0.read(&mut chunk).expect("the server sends");
        assert!(length > 0, "the subscriber was closed");
        seen.extend_from_slice(&chunk[..length]);
    }
}

/// What a broken broker sends, again and again.
const NONSENSE: [&[u8]; 7] = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"*1000000000\r\n",
    b"$99999999999\r\n",
    b"%1\r\n$6\r\nserver\r\n",
    b"-MOVED 1 127.0.0.1:1\r\n",
    b"\x00\xff\x00\xff\r\n",
    b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n",
];

#[test]
fn a_broker_that_sends_nonsense_resets_only_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let mut server = node_without_link(address, &[]);
    let mut subscriber = subscriber(&server, "news");
    let broken = thread::spawn(move || {
        for nonsense in NONSENSE.iter().chain(&NONSENSE) {
            let (mut stream, _) = listener.accept().expect("the link dials");
            let mut chunk = [0; 4096];
            let _ = stream.read(&mut chunk);
            let _ = stream.write_all(nonsense);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(6)));
            while stream.read(&mut chunk).is_ok_and(|length| length > 0) {}
        }
    });
    let mut publisher = Client::connect(server.address("hub"));
    while !broken.is_finished() {
        publisher.send("PUBLISH news x\r\n").expect(":1\r\n");
        subscriber.expect(message("news", "x"));
        thread::sleep(Duration::from_millis(5));
    }
    server.wait_for_log("there is no link to the broker");
    let resident = server.resident_bytes();
    assert!(resident < 64 << 20, "{resident} bytes");
}

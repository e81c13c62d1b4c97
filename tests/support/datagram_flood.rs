//! A flood of random datagrams, and how many bytes come back for it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Beginnings that the hub knows.
const HEADS: [&[u8]; 7] = [
    b"PING",
    b"PING            \r\n",
    b"ECHO ",
    b"PUBLISH a ",
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$3\r\n",
    b"TIME                                  \r\n",
];

/// A question that is long enough for its answer, which no other has.
const SENTINEL: &[u8] = b"ECHO that-was-all          \r\n";
const SENTINEL_ANSWER: &[u8] = b"$12\r\nthat-was-all\r\n";

/// What was sent, and what came back.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: u64,
    pub bytes_sent: u64,
    pub received: u64,
    pub bytes_received: u64,
}

/// One socket in each of eight networks, because the hub takes so many a second from each.
fn sockets(server: SocketAddr, first_network: u8) -> Vec<UdpSocket> {
    (first_network..first_network + 8)
        .map(|network| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 80, network, 1), 0)).expect("a port is free");
            socket.connect(server).expect("connect works");
            socket
        })
        .collect()
}

/// A datagram of random bytes, of which half begin with what the hub knows.
fn fill(datagram: &mut Vec<u8>, random: &mut fastrand::Rng) {
    datagram.clear();
    if random.bool() {
        datagram.extend_from_slice(HEADS[random.usize(..HEADS.len())]);
    }
    let tail = if random.u8(..4) == 0 { 0 } else { random.usize(..64) };
    datagram.extend(std::iter::repeat_with(|| random.u8(..)).take(tail));
}

/// So many a second, or as many as it can; what the server has no time for is lost on the way into it. Not as fast as it can at any
/// rate: senders that take every core are a load on the machine, which says nothing about the server.
pub fn flood(server: SocketAddr, first_network: u8, count: u64, rate: u32) -> Traffic {
    let mut random = fastrand::Rng::with_seed(u64::from(first_network));
    let sockets = sockets(server, first_network);
    for socket in &sockets {
        socket.set_nonblocking(true).expect("nonblocking can be set");
    }
    let (mut traffic, mut datagram) = (Traffic::default(), Vec::new());
    let began = Instant::now();
    for number in 0..count {
        if number % 128 == 0 {
            let due = Duration::from_secs(number) / rate;
            sleep(due.saturating_sub(began.elapsed()));
        }
        fill(&mut datagram, &mut random);
        let socket = &sockets[number as usize % sockets.len()];
        // A full queue refuses one now and then.
        if socket.send(&datagram).is_ok() {
            traffic.sent += 1;
            traffic.bytes_sent += datagram.len() as u64;
        }
        if number % 8 == 0 {
            receive(socket, &mut traffic);
        }
    }
    sleep(Duration::from_millis(300));
    sockets.iter().for_each(|socket| receive(socket, &mut traffic));
    traffic
}

fn receive(socket: &UdpSocket, traffic: &mut Traffic) {
    let mut answer = [0; 2048];
    while let Ok(length) = socket.recv(&mut answer) {
        traffic.received += 1;
        traffic.bytes_received += length as u64;
    }
}

/// One after the other, so that none is lost, each with the bytes that came back for it: a question whose answer is known
/// follows each, and what comes before that answer is for the datagram. Panics where that is more than was sent.
pub fn one_by_one(server: SocketAddr, first_network: u8, count: u64) -> Traffic {
    let mut random = fastrand::Rng::with_seed(u64::from(first_network));
    let sockets = sockets(server, first_network);
    let (mut traffic, mut datagram, mut answer) = (Traffic::default(), Vec::new(), [0; 2048]);
    for number in 0..count {
        fill(&mut datagram, &mut random);
        let socket = &sockets[number as usize % sockets.len()];
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        socket.send(&datagram).expect("sending works");
        socket.send(SENTINEL).expect("sending works");
        let (answers, bytes) = (traffic.received, traffic.bytes_received);
        loop {
            let length = socket.recv(&mut answer).unwrap_or_else(|error| {
                panic!("{error} after {} and the sentinel", datagram.escape_ascii());
            });
            if answer[..length] == *SENTINEL_ANSWER {
                break;
            }
            traffic.received += 1;
            traffic.bytes_received += length as u64;
        }
        let (answers, bytes) = (traffic.received - answers, traffic.bytes_received - bytes);
        let fits = answers <= 1 && bytes <= datagram.len() as u64;
        assert!(fits, "{answers} answers of {bytes} B for {} B: {}", datagram.len(), datagram.escape_ascii());
        traffic.sent += 1;
        traffic.bytes_sent += datagram.len() as u64;
    }
    traffic
}

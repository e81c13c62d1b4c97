//! A flood of random datagrams, and the bytes of its answers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Beginnings of commands that the hub knows.
const HEADS: [&[u8]; 7] = [
    b"PING",
    b"PING            \r\n",
    b"ECHO ",
    b"PUBLISH a ",
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$3\r\n",
    b"TIME                                  \r\n",
];

/// A command that is as long as its answer. No other datagram has this answer.
const SENTINEL: &[u8] = b"ECHO that-was-all          \r\n";
const SENTINEL_ANSWER: &[u8] = b"$12\r\nthat-was-all\r\n";

/// The datagrams and bytes that a flood has sent and received.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: u64,
    pub bytes_sent: u64,
    pub received: u64,
    pub bytes_received: u64,
}

/// Opens one socket in each of eight networks, because the hub limits the rate of each network.
fn sockets(server: SocketAddr, first_network: u8) -> Vec<UdpSocket> {
    (first_network..first_network + 8)
        .map(|network| {
            let socket =
                UdpSocket::bind((Ipv4Addr::new(127, 80, network, 1), 0)).expect("a port is free");
            socket.connect(server).expect("connect works");
            socket
        })
        .collect()
}

/// Fills a datagram with random bytes. Half of the datagrams begin like a command.
fn fill(datagram: &mut Vec<u8>, random: &mut fastrand::Rng) {
    datagram.clear();
    if random.bool() {
        datagram.extend_from_slice(HEADS[random.usize(..HEADS.len())]);
    }
    let tail = if random.u8(..4) == 0 { 0 } else { random.usize(..64) };
    datagram.extend(std::iter::repeat_with(|| random.u8(..)).take(tail));
}

/// Sends `count` datagrams at this rate per second, or more slowly if the machine is busy.
///
/// The server loses datagrams that it has no time for. The rate is bounded because senders at full
/// speed would take every core, and the drill would measure the machine.
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
        // A full queue sometimes refuses a datagram.
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

/// Sends datagrams one after the other, so none is lost, and counts the answer bytes of each.
///
/// [`SENTINEL`] follows each datagram, and all answers before the sentinel's belong to the
/// datagram. Panics if they are longer than the datagram.
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
        assert!(
            fits,
            "{answers} answers of {bytes} B for {} B: {}",
            datagram.len(),
            datagram.escape_ascii()
        );
        traffic.sent += 1;
        traffic.bytes_sent += datagram.len() as u64;
    }
    traffic
}

//! Measures publishers to several channels with the same subscribers: the publishes per second that
//! slabd and redis-server deliver, whether they close subscribers that read all the time, and the
//! waits of an honest client beside them.
//!
//!     cargo bench --bench channels                                  everything, some minutes
//!     cargo bench --bench channels -- spread --rounds 5             one section
//!     cargo bench --bench channels -- --skip redis                  without redis
//!
//! Sections:
//! - `spread`: 50 publishers to 1, 2, 4 or 8 channels in turn, with subscribers of all channels.
//! - `readers`: up to 1,000 publishers to one channel.
//! - `large`: one publisher with messages of 100 KB, and of 8 MiB to 100 subscribers.
//! - `broker`: redis-server with the subscribers, beside a slabd with the subscribers whose broker
//!   is a redis-server. All servers share one core.
//!
//! Each publisher has one PUBLISH in flight and sends the next when it has its reply. Each
//! subscriber has all channels. A round ends when all messages are delivered, after `--seconds`
//! ("slow"), or when the server closes a connection ("closed"). The benchmark checks every byte of
//! every message, and at the end the number of messages by channel. slabd runs with its default
//! settings, with a new process for each round.
//!
//! How to read it: the servers take turns, and each round gives one ratio of publishes per second
//! between neighbours in time. The tables show medians. PING is the wait of an honest client on its
//! own connection, in milliseconds. This client shares its core with publishers and subscribers. As
//! root it has priority over them; otherwise, they cause a part of its waits.

#![forbid(unsafe_code)]

mod support;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use slabd::net::mio::MioNet;
use slabd::net::{ConnectOptions, Net, Ready};
use slabd::token::{Generation, Token};
use support::load::{Honest, STALL_TIMEOUT, Stream, slot_of};
use support::server::{self, Server};
use support::{Options, Table, median};

/// The load of a round, and slabd's targets in it.
struct Load {
    subscribers: usize,
    publishers: usize,
    publishes: usize,
    channels: usize,
    payload: usize,
    /// Minimum ratio of slabd's publishes per second to those of redis-server.
    beside_redis: Option<f64>,
    /// Minimum ratio of slabd's publishes per second to its rate with one channel.
    beside_one: Option<f64>,
    /// Maximum of the 99th percentile of the honest client's waits, in milliseconds.
    ping: Option<f64>,
}

const LOAD: Load = Load {
    subscribers: 1000,
    publishers: 50,
    publishes: 8000,
    channels: 1,
    payload: 64,
    beside_redis: None,
    beside_one: None,
    ping: None,
};
const SPREAD: Load =
    Load { beside_redis: Some(2.0), beside_one: Some(0.5), ping: Some(5.0), ..LOAD };
const FEW: Load = Load { subscribers: 100, publishes: 40_000, ..LOAD };

/// The loads of `spread`. Each is compared with the last one before it that has one channel.
const SPREADS: [Load; 5] = [
    LOAD,
    Load { channels: 2, ..SPREAD },
    Load { channels: 8, ..SPREAD },
    FEW,
    Load { subscribers: FEW.subscribers, publishes: FEW.publishes, channels: 4, ..SPREAD },
];
const READERS: [Load; 4] = [
    Load { subscribers: 1, publishers: 1000, publishes: 300_000, beside_redis: Some(1.0), ..LOAD },
    Load { subscribers: 3, publishers: 400, publishes: 200_000, beside_redis: Some(1.1), ..LOAD },
    Load { subscribers: 20, publishers: 400, publishes: 200_000, beside_redis: Some(1.4), ..LOAD },
    Load { publishers: 1000, publishes: 20_000, beside_redis: Some(4.0), ping: Some(20.0), ..LOAD },
];
const BROKER: [Load; 2] = [
    Load { beside_redis: Some(0.8), ..LOAD },
    Load { beside_redis: Some(0.8), channels: 8, ..LOAD },
];
const LARGE: [Load; 2] = [
    Load { subscribers: 10, publishers: 1, publishes: 500, payload: 100_000, ..LOAD },
    Load {
        subscribers: 100,
        publishers: 1,
        publishes: 20,
        payload: 8 << 20,
        ping: Some(5.0),
        ..LOAD
    },
];

fn main() -> Result<()> {
    let sections =
        [("spread", &SPREADS[..]), ("readers", &READERS), ("large", &LARGE), ("broker", &BROKER)];
    let names = sections.map(|(name, _)| name);
    let Some(options) = Options::read(&names, &[("rounds", 3), ("seconds", 20)])? else {
        return Ok(());
    };
    support::prepare()?;
    server::print_versions(&["redis-server"])?;
    for (name, loads) in sections {
        if options.wants(name) {
            println!("## {name}: subscribers, publishers, publishes of bytes; channels\n");
            let labels = if name == "broker" { ["redis", BROKERED] } else { ["redis", "slabd"] };
            compare(&options, loads, labels)?;
        }
    }
    Ok(())
}

/// The measurements of one round.
struct Round {
    /// Publishes delivered per second.
    rate: f64,
    /// Processor time of the server per delivery, in microseconds.
    cost: f64,
    /// Median and 99th percentile of the honest client's waits, in milliseconds.
    ping: [f64; 2],
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Delivered,
    Slow,
    Closed,
}

/// A slabd whose broker is a redis-server.
const BROKERED: &str = "slabd broker";

/// Starts the server of a label, with its broker.
fn start(label: &str) -> Result<Option<(Server, Option<Server>)>> {
    if label == "redis" {
        return Ok(Server::redis()?.map(|redis| (redis, None)));
    }
    if label != BROKERED {
        return Ok(Some((Server::slabd_with_deadlines("hub", &[])?, None)));
    }
    let Some(broker) = Server::redis()? else { return Ok(None) };
    let url = format!("redis://{}", broker.address);
    let server = Server::slabd_with_deadlines("hub", &["--broker", &url])?;
    Ok(Some((server, Some(broker))))
}

fn compare(options: &Options, loads: &[Load], labels: [&'static str; 2]) -> Result<()> {
    let labels: Vec<&str> = labels.into_iter().filter(|label| options.includes(label)).collect();
    // The rounds, by load and server.
    let mut rounds: Vec<Vec<Vec<Round>>> =
        loads.iter().map(|_| labels.iter().map(|_| Vec::new()).collect()).collect();
    for _ in 0..options.number("rounds") {
        for (load, rounds) in loads.iter().zip(&mut rounds) {
            for (label, rounds) in labels.iter().zip(rounds) {
                if let Some((server, _broker)) = start(label)? {
                    let round = Crowd::connect(server.address, load)?
                        .run(&server, options.number("seconds"));
                    rounds.push(round.with_context(|| format!("{label}, {}", load.name()))?);
                }
            }
        }
    }
    report(loads, &labels, &rounds);
    Ok(())
}

fn report(loads: &[Load], labels: &[&str], rounds: &[Vec<Vec<Round>>]) {
    let header = [
        "load",
        "server",
        "end",
        "publishes/s",
        "÷ redis",
        "≥",
        "÷ one channel",
        "≥",
        "µs/dlv",
        "PING p50",
        "p99",
        "≤",
    ];
    let mut table = Table::new(&header);
    let mut one = 0;
    for (index, load) in loads.iter().enumerate() {
        if load.channels == 1 {
            one = index;
        }
        for (server, label) in labels.iter().enumerate() {
            let own = &rounds[index][server];
            let Some(end) = own.iter().map(|round| round.end).max() else { continue };
            let middle =
                |value: &dyn Fn(&Round) -> f64| median(&own.iter().map(value).collect::<Vec<_>>());
            let beside = |other: &[Round]| {
                let ratios = own
                    .iter()
                    .zip(other)
                    .map(|(own, other)| own.rate / other.rate)
                    .collect::<Vec<_>>();
                if end == End::Closed || ratios.is_empty() {
                    "–".into()
                } else {
                    format!("{:.2}", median(&ratios))
                }
            };
            let target = |target: Option<f64>| {
                target
                    .filter(|_| *label != "redis")
                    .map_or("–".into(), |target| target.to_string())
            };
            let redis = labels
                .iter()
                .position(|label| *label == "redis")
                .map_or(&[][..], |redis| &rounds[index][redis]);
            table.row(vec![
                load.name(),
                label.to_string(),
                match end {
                    End::Delivered => "all delivered",
                    End::Slow => "slow",
                    End::Closed => "closed",
                }
                .into(),
                format!("{:.0}", middle(&|round| round.rate)),
                beside(redis),
                target(load.beside_redis),
                if load.channels > 1 { beside(&rounds[one][server]) } else { "–".into() },
                target(load.beside_one),
                format!("{:.3}", middle(&|round| round.cost)),
                format!("{:.2}", middle(&|round| round.ping[0])),
                format!("{:.2}", middle(&|round| round.ping[1])),
                target(load.ping),
            ]);
        }
    }
    table.print();
}

impl Load {
    fn name(&self) -> String {
        let Load { subscribers, publishers, publishes, channels, payload, .. } = self;
        format!("{subscribers}, {publishers}, {publishes} of {payload}; {channels}")
    }
}

/// Returns the name of a channel, which is one letter.
fn letter(channel: usize) -> char {
    char::from(b'A' + channel as u8)
}

/// The position of the channel's letter in a message.
const LETTER_AT: usize = b"*3\r\n$7\r\nmessage\r\n$1\r\n".len();

/// The subscribers and publishers, in this order, with their requests and messages.
struct Crowd {
    net: MioNet,
    ready: Vec<Ready>,
    chunk: Box<[u8]>,
    clients: Vec<Client>,
    subscribers: usize,
    /// The publish to each channel.
    requests: Vec<Vec<u8>>,
    /// The resulting message of each channel.
    messages: Vec<Vec<u8>>,
    reply: Vec<u8>,
    publishes: usize,
    sent: usize,
    /// Number of messages received whole, by channel.
    delivered: Vec<usize>,
}

struct Client {
    stream: Stream,
    /// Bytes received of the current message or reply.
    received: usize,
    /// The channel of the current message, or of a publisher's request.
    channel: usize,
    /// Unsent bytes of a publisher's request.
    unsent: usize,
}

impl Crowd {
    /// Connects all clients, and subscribes the subscribers.
    fn connect(server: SocketAddr, load: &Load) -> Result<Crowd> {
        let mut net = MioNet::new()?;
        let mut clients = Vec::new();
        for slot in 0..load.subscribers + load.publishers {
            let source = Ipv4Addr::new(127, 0, 1, if slot < load.subscribers { 1 } else { 2 });
            let options =
                ConnectOptions { source: Some(source.into()), ..ConnectOptions::default() };
            let stream =
                net.connect(server, &options, Token::connection(slot as u32, Generation::FIRST))?;
            clients.push(Client { stream, received: 0, channel: 0, unsent: 0 });
        }
        let payload = "x".repeat(load.payload);
        let length = load.payload;
        let encode = |command: &str| -> Vec<Vec<u8>> {
            let head = format!("*3\r\n$7\r\n{command}\r\n$1\r\n");
            let whole = |channel| {
                format!("{head}{}\r\n${length}\r\n{payload}\r\n", letter(channel)).into_bytes()
            };
            (0..load.channels).map(whole).collect()
        };
        let mut crowd = Crowd {
            net,
            ready: Vec::new(),
            chunk: vec![0; 256 * 1024].into(),
            clients,
            subscribers: load.subscribers,
            requests: encode("PUBLISH"),
            messages: encode("message"),
            reply: format!(":{}\r\n", load.subscribers).into_bytes(),
            publishes: load.publishes,
            sent: 0,
            delivered: vec![0; load.channels],
        };
        crowd.subscribe(load.channels)?;
        Ok(crowd)
    }

    fn subscribe(&mut self, channels: usize) -> Result<()> {
        let (mut request, mut answer) =
            (format!("*{}\r\n$9\r\nSUBSCRIBE\r\n", channels + 1), String::new());
        for channel in 0..channels {
            request += &format!("$1\r\n{}\r\n", letter(channel));
            answer += &format!(
                "*3\r\n$9\r\nsubscribe\r\n$1\r\n{}\r\n:{}\r\n",
                letter(channel),
                channel + 1
            );
        }
        let mut connected = vec![false; self.clients.len()];
        let mut missing = self.clients.len();
        while missing > 0 {
            self.poll(STALL_TIMEOUT)?;
            ensure!(
                !self.ready.is_empty(),
                "{missing} clients are not connected or not subscribed"
            );
            for event in std::mem::take(&mut self.ready) {
                let slot = slot_of(event.token)?;
                let client = &mut self.clients[slot];
                if !connected[slot] && event.writable && self.net.connected(&client.stream)? {
                    connected[slot] = true;
                    if slot < self.subscribers {
                        ensure!(
                            self.net.write(&mut client.stream, request.as_bytes())?
                                == request.len(),
                            "the request was cut short"
                        );
                    } else {
                        missing -= 1;
                    }
                }
                if connected[slot] && event.readable {
                    let Ok(count) = self.net.read(&mut client.stream, &mut self.chunk) else {
                        continue;
                    };
                    let due = answer.as_bytes().get(client.received..client.received + count);
                    ensure!(
                        count > 0 && due == Some(&self.chunk[..count]),
                        "a wrong answer to SUBSCRIBE"
                    );
                    client.received += count;
                    if client.received == answer.len() {
                        client.received = 0;
                        missing -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes until all messages are delivered, the time has passed, or the server closes a
    /// client.
    fn run(mut self, server: &Server, seconds: u64) -> Result<Round> {
        let due = self.publishes * self.subscribers;
        let honest = Honest::start(server.address)?;
        let before = server.cpu()?;
        let began = Instant::now();
        let limit = Duration::from_secs(seconds);
        for slot in self.subscribers..self.clients.len() {
            self.publish(slot)?;
        }
        let mut end = End::Delivered;
        while end == End::Delivered && self.delivered.iter().sum::<usize>() < due {
            let Some(left) = limit.checked_sub(began.elapsed()) else {
                end = End::Slow;
                break;
            };
            self.poll(left)?;
            let mut ready = std::mem::take(&mut self.ready);
            for event in ready.drain(..) {
                let slot = slot_of(event.token)?;
                if event.writable {
                    self.send(slot)?;
                }
                if event.readable && !self.receive(slot)? {
                    end = End::Closed;
                }
            }
            self.ready = ready;
        }
        let took = began.elapsed().as_secs_f64();
        let used = server.cpu()?.since(before);
        let ping = honest.stop()?;
        if end == End::Delivered {
            for (channel, delivered) in self.delivered.iter().enumerate() {
                let publishes =
                    (0..self.publishes).skip(channel).step_by(self.delivered.len()).count();
                ensure!(
                    *delivered == publishes * self.subscribers,
                    "{delivered} deliveries of channel {}",
                    letter(channel)
                );
            }
        }
        let delivered = self.delivered.iter().sum::<usize>().max(1) as f64;
        Ok(Round {
            rate: delivered / self.subscribers as f64 / took,
            cost: used.nanos as f64 / 1e3 / delivered,
            ping,
            end,
        })
    }

    /// Starts the next publish, if one is left.
    fn publish(&mut self, slot: usize) -> Result<()> {
        if self.sent < self.publishes {
            let client = &mut self.clients[slot];
            client.channel = self.sent % self.requests.len();
            client.unsent = self.requests[client.channel].len();
            self.sent += 1;
        }
        self.send(slot)
    }

    /// Sends a publisher's request, as far as there is room.
    fn send(&mut self, slot: usize) -> Result<()> {
        let client = &mut self.clients[slot];
        while client.unsent > 0 {
            let request = &self.requests[client.channel];
            let rest = &request[request.len() - client.unsent..];
            match self.net.write(&mut client.stream, rest) {
                Ok(count) => client.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("publishing"),
            }
        }
        Ok(())
    }

    /// Reads and checks all bytes that have come to one client. Returns false when the server has
    /// closed the connection.
    fn receive(&mut self, slot: usize) -> Result<bool> {
        loop {
            let count = match self.net.read(&mut self.clients[slot].stream, &mut self.chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if slot < self.subscribers {
                self.check_messages(slot, count)?;
            } else {
                let client = &mut self.clients[slot];
                let due = self.reply.get(client.received..client.received + count);
                if due != Some(&self.chunk[..count]) {
                    // The reply counts fewer subscribers, because the server has closed some.
                    return Ok(false);
                }
                client.received += count;
                if client.received == self.reply.len() {
                    client.received = 0;
                    self.publish(slot)?;
                }
            }
            // A short read has drained the socket.
            if count < self.chunk.len() {
                return Ok(true);
            }
        }
    }

    /// Compares the first `count` bytes of the chunk with the messages due.
    fn check_messages(&mut self, slot: usize, count: usize) -> Result<()> {
        let client = &mut self.clients[slot];
        let mut bytes = &self.chunk[..count];
        while !bytes.is_empty() {
            if let Some(letter) =
                LETTER_AT.checked_sub(client.received).and_then(|at| bytes.get(at))
            {
                client.channel = usize::from(letter.wrapping_sub(b'A'));
            }
            let message =
                self.messages.get(client.channel).context("a message has an unknown channel")?;
            let piece = bytes.len().min(message.len() - client.received);
            ensure!(
                bytes[..piece] == message[client.received..client.received + piece],
                "a wrong message"
            );
            client.received += piece;
            bytes = &bytes[piece..];
            if client.received == message.len() {
                client.received = 0;
                self.delivered[client.channel] += 1;
            }
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<()> {
        self.ready.clear();
        Ok(self.net.poll(&mut self.ready, Some(timeout))?)
    }
}

//! Clients. Those that keep a server busy stand on the crate's own network seam; those that only hold connections
//! are plain blocking sockets, because they must come from many source addresses.
//!
//! Every client checks each reply byte by byte, counts them, and gives up at a deadline.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use slabd::net::mio::MioNet;
use slabd::net::{ConnectOptions, Net, Ready};
use slabd::sys::DatagramBatch;
use slabd::token::{Generation, Source, Token};
use socket2::{Domain, SockRef, Socket, Type};

use super::server::{Server, on_client_core, spawn};

pub type Stream = <MioNet as Net>::Stream;

/// Longest that one round, or opening the connections for it, may take.
pub(super) const ROUND_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest that anything may go without progress.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent and what must come back.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub request: &'static [u8],
    pub reply: &'static [u8],
}

pub const ECHO: Exchange = Exchange { request: b"PING\r\n", reply: b"PING\r\n" };
pub const REDIS_PING: Exchange = Exchange { request: b"PING\r\n", reply: b"+PONG\r\n" };

/// One reply in the making on one connection.
struct Pending {
    stream: Stream,
    token: Token,
    received: usize,
}

impl Pending {
    fn send(&mut self, net: &mut MioNet, exchange: Exchange) -> Result<()> {
        self.received = 0;
        let sent = net.write(&mut self.stream, exchange.request).context("sending a request")?;
        ensure!(sent == exchange.request.len(), "a request of a few bytes was cut short");
        Ok(())
    }

    /// Reads what has come; true when the reply is complete and right.
    fn receive(&mut self, net: &mut MioNet, exchange: Exchange) -> Result<bool> {
        let mut bytes = [0; 64];
        let count = match net.read(&mut self.stream, &mut bytes) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading a reply"),
        };
        let expected = exchange.reply.get(self.received..self.received + count).unwrap_or_default();
        ensure!(bytes[..count] == *expected, "a wrong reply: {:?}", String::from_utf8_lossy(&bytes[..count]));
        self.received += count;
        Ok(self.received == exchange.reply.len())
    }
}

/// Connections that each wait for a reply before they send again.
pub struct ClosedLoop {
    net: MioNet,
    clients: Vec<Pending>,
    exchange: Exchange,
    ready: Vec<Ready>,
}

impl ClosedLoop {
    pub fn connect(address: SocketAddr, clients: usize, exchange: Exchange) -> Result<ClosedLoop> {
        let mut net = MioNet::new()?;
        let mut pending = Vec::with_capacity(clients);
        for slot in 0..clients {
            let token = Token::connection(slot as u32, Generation::FIRST);
            pending.push(Pending {
                stream: net.connect(address, &ConnectOptions::default(), token)?,
                token,
                received: 0,
            });
        }
        let mut client = ClosedLoop { net, clients: pending, exchange, ready: Vec::new() };
        let deadline = Instant::now() + STALL_TIMEOUT;
        let mut missing = clients;
        let mut connected = vec![false; clients];
        while missing > 0 {
            ensure!(Instant::now() < deadline, "{missing} connections not made within {STALL_TIMEOUT:?}");
            client.poll()?;
            for event in std::mem::take(&mut client.ready) {
                let slot = slot_of(event.token)?;
                if event.writable && !connected[slot] && client.net.connected(&client.clients[slot].stream)? {
                    connected[slot] = true;
                    missing -= 1;
                }
            }
        }
        Ok(client)
    }

    /// Exchanges so many messages over all connections together.
    pub fn run(&mut self, messages: u64) -> Result<()> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let first = self.clients.len().min(messages as usize);
        for client in &mut self.clients[..first] {
            client.send(&mut self.net, self.exchange)?;
        }
        let (mut sent, mut received) = (first as u64, 0);
        while received < messages {
            self.poll()?;
            ensure!(!self.ready.is_empty(), "no reply for {STALL_TIMEOUT:?}: {received} of {messages} received");
            ensure!(Instant::now() < deadline, "{received} of {messages} replies within {ROUND_TIMEOUT:?}");
            for event in &self.ready {
                let client = &mut self.clients[slot_of(event.token)?];
                if event.readable && client.receive(&mut self.net, self.exchange)? {
                    received += 1;
                    if sent < messages {
                        client.send(&mut self.net, self.exchange)?;
                        sent += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<()> {
        self.ready.clear();
        Ok(self.net.poll(&mut self.ready, Some(STALL_TIMEOUT))?)
    }
}

pub fn slot_of(token: Token) -> Result<usize> {
    match token.source() {
        Source::Connection { slot, .. } => Ok(slot as usize),
        other => bail!("an event for {other:?}"),
    }
}

/// Makes so many connections, `at_once` of them at a time, each for one exchange. The client closes first.
pub fn churn(address: SocketAddr, at_once: usize, connections: u64, exchange: Exchange) -> Result<()> {
    let mut net = MioNet::new()?;
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let mut generation = Generation::FIRST;
    let mut open = |net: &mut MioNet, slot: usize| -> Result<Pending> {
        generation = generation.next();
        let token = Token::connection(slot as u32, generation);
        loop {
            match net.connect(address, &ConnectOptions::default(), token) {
                Ok(stream) => return Ok(Pending { stream, token, received: 0 }),
                // Every port waits out its TIME-WAIT; loopback reuses one after a second (net.ipv4.tcp_tw_reuse).
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error).context("connecting"),
            }
        }
    };
    let mut slots = Vec::with_capacity(at_once);
    for slot in 0..at_once.min(connections as usize) {
        slots.push(Some((open(&mut net, slot)?, false)));
    }
    let (mut opened, mut done) = (slots.len() as u64, 0);
    let mut ready = Vec::new();
    while done < connections {
        ready.clear();
        net.poll(&mut ready, Some(STALL_TIMEOUT))?;
        ensure!(!ready.is_empty(), "no progress for {STALL_TIMEOUT:?}: {done} of {connections} done");
        ensure!(Instant::now() < deadline, "{done} of {connections} done within {ROUND_TIMEOUT:?}");
        for event in &ready {
            let slot = slot_of(event.token)?;
            // An event of the slot's previous connection misses.
            let Some((pending, connected)) = slots[slot].as_mut().filter(|(pending, _)| pending.token == event.token)
            else {
                continue;
            };
            if !*connected && event.writable && net.connected(&pending.stream)? {
                *connected = true;
                pending.send(&mut net, exchange)?;
            }
            if !(*connected && event.readable && pending.receive(&mut net, exchange)?) {
                continue;
            }
            done += 1;
            if let Some((pending, _)) = slots[slot].take() {
                net.close(pending.stream);
            }
            if opened < connections {
                slots[slot] = Some((open(&mut net, slot)?, false));
                opened += 1;
            }
        }
    }
    Ok(())
}

/// Datagrams in flight between one socket and a server that echoes them.
pub struct DatagramLoop {
    net: MioNet,
    socket: <MioNet as Net>::Socket,
    server: SocketAddr,
    batch: DatagramBatch,
    /// The number the next datagram carries.
    next: u64,
}

/// Datagram size: a number, and the same number mixed over the rest, so that a wrong byte shows.
pub const DATAGRAM: usize = 64;

/// Datagrams that were sent, and those of them that never came back.
pub struct Delivery {
    pub received: u64,
    pub lost: u64,
}

impl DatagramLoop {
    pub fn new(server: SocketAddr) -> Result<DatagramLoop> {
        let mut net = MioNet::new()?;
        let socket = net.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Token::socket(0))?;
        Ok(DatagramLoop { net, socket, server, batch: DatagramBatch::new(), next: 0 })
    }

    /// Sends so many datagrams, `in_flight` of them at a time, and counts what comes back.
    pub fn run(&mut self, datagrams: u64, in_flight: usize) -> Result<Delivery> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let first = self.next;
        let mut seen = vec![false; datagrams as usize];
        let mut received = 0;
        let last = first + datagrams;
        self.batch.clear();
        for index in 0..in_flight.min(datagrams as usize) {
            ensure!(self.batch.push(self.server, b""), "{in_flight} in flight are more than a batch");
            self.answer(index);
        }
        self.send()?;
        let mut ready = Vec::new();
        while received < datagrams {
            let count = match self.net.receive(&self.socket, &mut self.batch) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready.clear();
                    self.net.poll(&mut ready, Some(Duration::from_secs(2)))?;
                    if ready.is_empty() {
                        // Whatever was in flight is gone, and with it this round.
                        return Ok(Delivery { received, lost: self.next - first - received });
                    }
                    continue;
                }
                Err(error) => return Err(error).context("receiving datagrams"),
            };
            ensure!(Instant::now() < deadline, "{received} of {datagrams} datagrams within {ROUND_TIMEOUT:?}");
            for index in 0..count {
                let (bytes, _) = self.batch.exchange(index);
                let number = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
                ensure!(*bytes == datagram(number) && (first..last).contains(&number), "a wrong datagram: {bytes:?}");
                let seen = &mut seen[(number - first) as usize];
                ensure!(!*seen, "datagram {number} came twice");
                *seen = true;
                received += 1;
                if self.next < last {
                    self.answer(index);
                }
            }
            self.send()?;
        }
        Ok(Delivery { received, lost: 0 })
    }

    /// Answers datagram `index` of the batch by the next one.
    fn answer(&mut self, index: usize) {
        let (_, answer) = self.batch.exchange(index);
        answer.extend_from_slice(&datagram(self.next));
        self.batch.answer(index);
        self.next += 1;
    }

    fn send(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.batch.answers_len() {
            sent += self.net.send(&self.socket, &mut self.batch, sent).context("sending datagrams")?;
        }
        Ok(())
    }
}

fn datagram(number: u64) -> [u8; DATAGRAM] {
    let mut bytes = [0; DATAGRAM];
    for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&(number.rotate_left(8 * index as u32) ^ (0x5555 * index as u64)).to_le_bytes());
    }
    bytes
}

/// How to tell that a reply is complete and right, when not all of it is known beforehand.
#[derive(Clone, Copy)]
pub struct Talk {
    /// What the server says first.
    pub greeting: &'static [u8],
    pub request: &'static [u8],
    pub reply_starts: &'static [u8],
    pub reply_ends: &'static [u8],
}

impl Talk {
    /// One request and its reply on a blocking connection.
    pub fn exchange(&self, mut stream: &TcpStream) -> Result<()> {
        stream.write_all(self.request)?;
        let mut reply = [0; 1024];
        let mut filled = 0;
        loop {
            let count = stream.read(&mut reply[filled..]).context("waiting for a reply")?;
            ensure!(count > 0, "the server closed the connection, or its reply has no end");
            filled += count;
            if self.is_complete(&reply[..filled])? {
                return Ok(());
            }
        }
    }

    /// Whether a reply of which this much has come is complete; an error if it is wrong.
    pub(super) fn is_complete(&self, reply: &[u8]) -> Result<bool> {
        let known = reply.len().min(self.reply_starts.len());
        ensure!(reply[..known] == self.reply_starts[..known], "a wrong reply: {:?}", String::from_utf8_lossy(reply));
        Ok(reply.len() >= self.reply_starts.len().max(self.reply_ends.len()) && reply.ends_with(self.reply_ends))
    }

    /// One exchange on a connection made for it.
    pub fn check(&self, server: &Server) -> Result<()> {
        let stream = TcpStream::connect_timeout(&server.address, STALL_TIMEOUT).context("connecting")?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        self.read_greeting(&stream)?;
        self.exchange(&stream).with_context(|| server.name.clone())
    }

    fn read_greeting(&self, mut stream: &TcpStream) -> Result<()> {
        let mut greeting = vec![0; self.greeting.len()];
        stream.read_exact(&mut greeting).context("waiting for the greeting")?;
        ensure!(greeting == self.greeting, "a wrong greeting: {:?}", String::from_utf8_lossy(&greeting));
        Ok(())
    }
}

/// The program of that name, of Debian's redis-tools, as a client.
pub struct RedisBenchmark {
    pub test: &'static str,
    pub clients: u64,
    /// Commands that each client sends at a time.
    pub pipeline: u64,
    /// Commands of all clients together.
    pub requests: u64,
}

impl RedisBenchmark {
    /// Runs it once, and returns the requests per second. Its exit status, and the line it ends
    /// with, say whether every reply came.
    pub fn run(&self, server: SocketAddr) -> Result<f64> {
        let mut command = on_client_core("redis-benchmark");
        command.args(["-h", &server.ip().to_string(), "-p", &server.port().to_string(), "-q", "-t", self.test]);
        for (flag, number) in [("-c", self.clients), ("-P", self.pipeline), ("-n", self.requests)] {
            command.args([flag, &number.to_string()]);
        }
        let (mut child, log) = spawn("redis-benchmark", command)?;
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            // Without a server it would try for ever.
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!("redis-benchmark has not ended within {ROUND_TIMEOUT:?}");
            }
            sleep(Duration::from_millis(10));
        };
        let said = fs::read_to_string(log)?;
        let summary = format!("{}: ", self.test.to_uppercase());
        let last = said.rsplit(['\r', '\n']).find(|line| !line.trim().is_empty()).unwrap_or_default();
        let rate = last.strip_prefix(&summary).and_then(|rest| rest.split_once(" requests per second"));
        let rate = rate.filter(|_| status.success()).and_then(|(rate, _)| rate.parse().ok());
        rate.with_context(|| format!("redis-benchmark: {status}; it said:\n{said}"))
    }
}

/// A blocking connection from this source address, which gives up when nothing comes.
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), STALL_TIMEOUT).context("connecting")?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An honest client beside whatever else goes on: it sends PING again 2 ms after the reply, from an
/// address of its own.
pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Honest {
    pub fn start(server: SocketAddr) -> Result<Honest> {
        let stream = connect_from(Ipv4Addr::new(127, 0, 1, 9), server)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut waits = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                HONEST_PING.exchange(&stream).context("the honest client")?;
                waits.push(began.elapsed());
                sleep(Duration::from_millis(2));
            }
            Ok(waits)
        });
        Ok(Honest { stop, thread })
    }

    /// The median and the 99th percentile of its waits, in milliseconds.
    pub fn stop(self) -> Result<[f64; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits = self.thread.join().map_err(|_| anyhow!("the honest client's thread failed"))??;
        waits.sort();
        ensure!(!waits.is_empty(), "the honest client has had no reply");
        Ok([50, 99].map(|percent| waits[waits.len() * percent / 100].as_secs_f64() * 1e3))
    }
}

const HONEST_PING: Talk =
    Talk { greeting: b"", request: b"*1\r\n$4\r\nPING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };

/// Connections on which nobody says anything unless told to.
pub struct Held {
    streams: Vec<TcpStream>,
}

/// Connections from one source address: a hundred addresses for 15,000.
const PER_SOURCE: usize = 150;

impl Held {
    /// Opens `count` connections from 127.0.0.2, 127.0.0.3, …, reads what the server says first, and waits until
    /// the server has accepted them all.
    pub fn open(server: &Server, count: usize, talk: &Talk) -> Result<Held> {
        let before = server.open_files()?;
        let mut streams = Vec::with_capacity(count);
        for index in 0..count {
            let source = u32::from(Ipv4Addr::LOCALHOST) + 1 + (index / PER_SOURCE) as u32;
            let stream = connect_from(Ipv4Addr::from(source), server.address)?;
            talk.read_greeting(&stream)?;
            streams.push(stream);
            // Never more of them in the accept queue than it takes.
            if index % 512 == 511 {
                server.until_open_files(|files| files > before + index)?;
            }
        }
        server.until_open_files(|files| files >= before + count)?;
        Ok(Held { streams })
    }

    /// Closes all by a reset, so that neither end leaves anything waiting in the kernel (TIME-WAIT).
    pub fn reset(self) -> Result<()> {
        for stream in &self.streams {
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Exchanges `times` messages on every connection.
    pub fn talk(&self, talk: &Talk, times: usize) -> Result<()> {
        for _ in 0..times {
            for stream in &self.streams {
                talk.exchange(stream)?;
            }
        }
        Ok(())
    }
}

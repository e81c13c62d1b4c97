//! The clients. Those that keep a server busy use the crate's own network seam. Those that only
//! hold connections use blocking sockets, because they need many source addresses.
//!
//! Each client checks its replies byte by byte, counts them, and fails at a deadline.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
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
use super::web;

pub type Stream = <MioNet as Net>::Stream;

/// Maximum duration of one round, and of opening its connections.
pub(super) const ROUND_TIMEOUT: Duration = Duration::from_secs(120);
/// Maximum time without progress.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A request and its exact reply.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub request: &'static [u8],
    pub reply: &'static [u8],
}

pub const ECHO: Exchange = Exchange { request: b"PING\r\n", reply: b"PING\r\n" };
pub const REDIS_PING: Exchange = Exchange { request: b"PING\r\n", reply: b"+PONG\r\n" };

/// A connection that waits for a reply.
struct Pending {
    stream: Stream,
    token: Token,
    received: usize,
}

impl Pending {
    fn send(&mut self, net: &mut MioNet, exchange: Exchange) -> Result<()> {
        self.received = 0;
        let sent =
            net.write(&mut self.stream, exchange.request).context("cannot send a request")?;
        ensure!(sent == exchange.request.len(), "a request was cut short");
        Ok(())
    }

    /// Reads and checks the bytes that have come. Returns true when the reply is complete.
    fn receive(&mut self, net: &mut MioNet, exchange: Exchange) -> Result<bool> {
        let mut bytes = [0; 512];
        let count = match net.read(&mut self.stream, &mut bytes) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("cannot read a reply"),
        };
        let expected = exchange.reply.get(self.received..self.received + count).unwrap_or_default();
        ensure!(
            bytes[..count] == *expected,
            "a wrong reply: {:?}",
            String::from_utf8_lossy(&bytes[..count])
        );
        self.received += count;
        Ok(self.received == exchange.reply.len())
    }
}

/// Connections in a closed loop: each sends again when it has its reply.
pub struct ClosedLoop {
    net: MioNet,
    clients: Vec<Pending>,
    exchange: Exchange,
    ready: Vec<Ready>,
}

impl ClosedLoop {
    /// Opens connections that begin with another exchange, such as an upgrade.
    pub fn connect_with(
        address: SocketAddr,
        clients: usize,
        opening: &Talk,
        exchange: Exchange,
    ) -> Result<ClosedLoop> {
        let mut client = ClosedLoop::connect(address, clients, exchange)?;
        for pending in &mut client.clients {
            let sent = client.net.write(&mut pending.stream, opening.request)?;
            ensure!(sent == opening.request.len(), "a request was cut short");
        }
        let mut answers = vec![Vec::new(); clients];
        let mut missing = clients;
        let mut chunk = [0; 1024];
        while missing > 0 {
            client.poll()?;
            ensure!(!client.ready.is_empty(), "{missing} connections have no answer");
            for event in std::mem::take(&mut client.ready) {
                let slot = slot_of(event.token)?;
                let stream = &mut client.clients[slot].stream;
                let count = match client.net.read(stream, &mut chunk) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    other => other?,
                };
                ensure!(count > 0, "the server closed the connection");
                answers[slot].extend_from_slice(&chunk[..count]);
                if opening.is_complete(&answers[slot])? {
                    missing -= 1;
                    client.net.write(stream, thanks(&answers[slot]))?;
                }
            }
        }
        Ok(client)
    }

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
            ensure!(
                Instant::now() < deadline,
                "{missing} connections are not open within {STALL_TIMEOUT:?}"
            );
            client.poll()?;
            for event in std::mem::take(&mut client.ready) {
                let slot = slot_of(event.token)?;
                if event.writable
                    && !connected[slot]
                    && client.net.connected(&client.clients[slot].stream)?
                {
                    connected[slot] = true;
                    missing -= 1;
                }
            }
        }
        Ok(client)
    }

    /// Exchanges this number of messages over all connections together. Returns the number.
    pub fn run(&mut self, messages: u64) -> Result<u64> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let first = self.clients.len().min(messages as usize);
        for client in &mut self.clients[..first] {
            client.send(&mut self.net, self.exchange)?;
        }
        let (mut sent, mut received) = (first as u64, 0);
        while received < messages {
            self.poll()?;
            ensure!(
                !self.ready.is_empty(),
                "no reply arrived for {STALL_TIMEOUT:?}, after {received} of {messages}"
            );
            ensure!(
                Instant::now() < deadline,
                "only {received} of {messages} replies arrived within {ROUND_TIMEOUT:?}"
            );
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
        Ok(messages)
    }

    fn poll(&mut self) -> Result<()> {
        self.ready.clear();
        Ok(self.net.poll(&mut self.ready, Some(STALL_TIMEOUT))?)
    }
}

/// Returns the slot in a token. Fails if the token does not belong to a connection.
pub fn slot_of(token: Token) -> Result<usize> {
    match token.source() {
        Source::Connection { slot, .. } => Ok(slot as usize),
        other => bail!("an event has the source {other:?}"),
    }
}

/// Opens `connections` connections, `at_once` at a time, each for one exchange. The client closes
/// first.
pub fn churn(
    address: SocketAddr,
    at_once: usize,
    connections: u64,
    exchange: Exchange,
) -> Result<()> {
    let mut net = MioNet::new()?;
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let mut generation = Generation::FIRST;
    let mut open = |net: &mut MioNet, slot: usize| -> Result<Pending> {
        generation = generation.next();
        let token = Token::connection(slot as u32, generation);
        loop {
            match net.connect(address, &ConnectOptions::default(), token) {
                Ok(stream) => return Ok(Pending { stream, token, received: 0 }),
                // All ports are in TIME-WAIT. Loopback reuses a port after a second
                // (net.ipv4.tcp_tw_reuse).
                Err(error)
                    if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error).context("cannot connect"),
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
        ensure!(
            !ready.is_empty(),
            "no progress for {STALL_TIMEOUT:?}, after {done} of {connections} connections"
        );
        ensure!(
            Instant::now() < deadline,
            "only {done} of {connections} connections finished within {ROUND_TIMEOUT:?}"
        );
        for event in &ready {
            let slot = slot_of(event.token)?;
            // An event of the slot's previous connection is ignored.
            let Some((pending, connected)) =
                slots[slot].as_mut().filter(|(pending, _)| pending.token == event.token)
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

/// A socket that keeps datagrams in flight to a server that echoes them.
pub struct DatagramLoop {
    net: MioNet,
    socket: <MioNet as Net>::Socket,
    server: SocketAddr,
    batch: DatagramBatch,
    /// The number in the next datagram.
    next: u64,
}

/// Size of a datagram in bytes. All its bytes follow from its number, so a wrong byte is found.
pub const DATAGRAM: usize = 64;

/// The result of a round of datagrams: those that came back, and those that did not.
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

    /// Sends this number of datagrams, with `in_flight` of them in flight, and counts their echoes.
    pub fn run(&mut self, datagrams: u64, in_flight: usize) -> Result<Delivery> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let first = self.next;
        let mut seen = vec![false; datagrams as usize];
        let mut received = 0;
        let last = first + datagrams;
        self.batch.clear();
        for index in 0..in_flight.min(datagrams as usize) {
            ensure!(
                self.batch.push(self.server, b""),
                "a batch has no room for {in_flight} datagrams"
            );
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
                        // All datagrams in flight are lost, so the round ends.
                        return Ok(Delivery { received, lost: self.next - first - received });
                    }
                    continue;
                }
                Err(error) => return Err(error).context("cannot receive datagrams"),
            };
            ensure!(
                Instant::now() < deadline,
                "only {received} of {datagrams} datagrams came back within {ROUND_TIMEOUT:?}"
            );
            for index in 0..count {
                let (bytes, _) = self.batch.exchange(index);
                let number = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
                ensure!(
                    *bytes == datagram(number) && (first..last).contains(&number),
                    "a datagram came back changed: {bytes:?}"
                );
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

    /// Answers datagram `index` of the batch with the next one.
    fn answer(&mut self, index: usize) {
        let (_, answer) = self.batch.exchange(index);
        answer.extend_from_slice(&datagram(self.next));
        self.batch.answer(index);
        self.next += 1;
    }

    fn send(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.batch.answers_len() {
            sent += self
                .net
                .send(&self.socket, &mut self.batch, sent)
                .context("cannot send datagrams")?;
        }
        Ok(())
    }
}

fn datagram(number: u64) -> [u8; DATAGRAM] {
    let mut bytes = [0; DATAGRAM];
    for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(
            &(number.rotate_left(8 * index as u32) ^ (0x5555 * index as u64)).to_le_bytes(),
        );
    }
    bytes
}

/// A request and the known beginning and end of its reply.
#[derive(Clone, Copy)]
pub struct Talk {
    /// The server's greeting.
    pub greeting: &'static [u8],
    pub request: &'static [u8],
    pub reply_starts: &'static [u8],
    pub reply_ends: &'static [u8],
}

/// A connection begins with nothing.
pub const NOTHING: Talk = Talk { greeting: b"", request: b"", reply_starts: b"", reply_ends: b"" };

impl Talk {
    /// Reads the greeting of a new connection, and makes the exchange if there is a request.
    fn open(&self, stream: &TcpStream) -> Result<()> {
        self.read_greeting(stream)?;
        if self.request.is_empty() { Ok(()) } else { self.exchange(stream) }
    }

    /// Sends the request on a blocking connection and reads the reply.
    pub fn exchange(&self, mut stream: &TcpStream) -> Result<()> {
        stream.write_all(self.request)?;
        let mut reply = [0; 1024];
        let mut filled = 0;
        loop {
            let count = stream.read(&mut reply[filled..]).context("no reply arrives")?;
            ensure!(count > 0, "the server closed the connection, or its reply has no end");
            filled += count;
            if self.is_complete(&reply[..filled])? {
                return Ok(stream.write_all(thanks(&reply[..filled]))?);
            }
        }
    }

    /// Returns true if the received part of a reply is the whole reply. Fails if it is wrong.
    pub(super) fn is_complete(&self, reply: &[u8]) -> Result<bool> {
        let known = reply.len().min(self.reply_starts.len());
        ensure!(
            reply[..known] == self.reply_starts[..known],
            "a wrong reply: {:?}",
            String::from_utf8_lossy(reply)
        );
        let reply = reply.strip_suffix(web::PING).unwrap_or(reply);
        Ok(reply.len() >= self.reply_starts.len().max(self.reply_ends.len())
            && reply.ends_with(self.reply_ends))
    }

    /// Makes one exchange on a new connection.
    pub fn check(&self, server: &Server) -> Result<()> {
        let stream =
            TcpStream::connect_timeout(&server.address, STALL_TIMEOUT).context("cannot connect")?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        self.read_greeting(&stream)?;
        self.exchange(&stream).with_context(|| server.name.clone())
    }

    fn read_greeting(&self, mut stream: &TcpStream) -> Result<()> {
        let mut greeting = vec![0; self.greeting.len()];
        stream.read_exact(&mut greeting).context("no greeting arrives")?;
        ensure!(
            greeting == self.greeting,
            "a wrong greeting: {:?}",
            String::from_utf8_lossy(&greeting)
        );
        Ok(())
    }
}

/// Returns what a client sends when it has the reply to its upgrade: the answer to a ping, if the
/// server sent one behind the reply.
pub(super) fn thanks(reply: &[u8]) -> &'static [u8] {
    if reply.ends_with(web::PING) { web::PONG } else { b"" }
}

/// The program redis-benchmark of Debian's redis-tools, as a client.
pub struct RedisBenchmark {
    pub test: &'static str,
    pub clients: u64,
    /// Number of commands that a client sends at a time.
    pub pipeline: u64,
    /// Number of commands of all clients together.
    pub requests: u64,
}

impl RedisBenchmark {
    /// Runs the program once. Returns the requests per second. Fails unless its exit status and its
    /// last line show that every reply came.
    pub fn run(&self, server: SocketAddr) -> Result<f64> {
        let mut command = on_client_core("redis-benchmark");
        command.args([
            "-h",
            &server.ip().to_string(),
            "-p",
            &server.port().to_string(),
            "-q",
            "-t",
            self.test,
        ]);
        for (flag, number) in [("-c", self.clients), ("-P", self.pipeline), ("-n", self.requests)] {
            command.args([flag, &number.to_string()]);
        }
        let (mut child, log) = spawn("redis-benchmark", command)?;
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            // Without a server, the program tries for ever.
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!("redis-benchmark does not end within {ROUND_TIMEOUT:?}");
            }
            sleep(Duration::from_millis(10));
        };
        let said = fs::read_to_string(log)?;
        let summary = format!("{}: ", self.test.to_uppercase());
        let last =
            said.rsplit(['\r', '\n']).find(|line| !line.trim().is_empty()).unwrap_or_default();
        let rate =
            last.strip_prefix(&summary).and_then(|rest| rest.split_once(" requests per second"));
        let rate = rate.filter(|_| status.success()).and_then(|(rate, _)| rate.parse().ok());
        rate.with_context(|| format!("redis-benchmark failed ({status}); its output:\n{said}"))
    }
}

/// Returns a blocking connection from this source address. Its reads time out.
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), STALL_TIMEOUT).context("cannot connect")?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An honest client beside another load. It sends PING again 2 ms after each reply, from an address
/// that no other client has.
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
            go_first()?;
            let mut waits = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                HONEST_PING.exchange(&stream).context("the honest client failed")?;
                waits.push(began.elapsed());
                sleep(Duration::from_millis(2));
            }
            Ok(waits)
        });
        Ok(Honest { stop, thread })
    }

    /// Stops the client. Returns the median and the 99th percentile of its waits, in milliseconds.
    pub fn stop(self) -> Result<[f64; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits =
            self.thread.join().map_err(|_| anyhow!("the honest client's thread failed"))??;
        waits.sort();
        ensure!(!waits.is_empty(), "the honest client got no reply");
        Ok([50, 99].map(|percent| waits[waits.len() * percent / 100].as_secs_f64() * 1e3))
    }
}

/// Lets this thread run before others that share its core, so that it waits only for the server. It
/// needs root; without, the waits include those for the core.
fn go_first() -> Result<()> {
    let thread = fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().context("/proc/thread-self names no thread")?;
    let output = Command::new("renice").args(["-n", "-15", "-p"]).arg(id).output();
    if !output.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RAISED: the honest client has no higher priority than the load");
    }
    Ok(())
}

const HONEST_PING: Talk = Talk {
    greeting: b"",
    request: b"*1\r\n$4\r\nPING\r\n",
    reply_starts: b"+PONG\r\n",
    reply_ends: b"",
};

/// Connections that stay idle except when [`Held::talk`] uses them.
pub struct Held {
    streams: Vec<TcpStream>,
}

/// A publisher to held connections.
pub struct Publisher {
    pub opening: Talk,
    pub publish: Talk,
    /// What each held connection receives.
    pub delivery: Vec<u8>,
}

/// Number of connections from one source address: a hundred addresses for 15,000 connections.
const PER_SOURCE: usize = 150;

impl Held {
    /// Opens `count` connections from 127.0.0.2, 127.0.0.3, … and begins each with this exchange.
    /// Waits until the server has accepted them all.
    pub fn open(server: &Server, count: usize, opening: &Talk) -> Result<Held> {
        let before = server.open_files()?;
        let mut streams = Vec::with_capacity(count);
        for index in 0..count {
            let source = u32::from(Ipv4Addr::LOCALHOST) + 1 + (index / PER_SOURCE) as u32;
            let stream = connect_from(Ipv4Addr::from(source), server.address)?;
            opening.open(&stream)?;
            streams.push(stream);
            // The pause keeps the accept queue from overflowing.
            if index % 512 == 511 {
                server.until_open_files(|files| files > before + index)?;
            }
        }
        server.until_open_files(|files| files >= before + count)?;
        Ok(Held { streams })
    }

    /// Closes all connections by a reset, which leaves none in TIME-WAIT.
    pub fn reset(self) -> Result<()> {
        for stream in &self.streams {
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Sends `times` messages by one more connection, which are delivered to all others.
    pub fn hear(&self, server: &Server, publisher: &Publisher, times: usize) -> Result<()> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, server.address)?;
        publisher.opening.open(&stream)?;
        let mut delivery = vec![0; publisher.delivery.len()];
        for _ in 0..times {
            publisher.publish.exchange(&stream)?;
            for mut stream in &self.streams {
                stream.read_exact(&mut delivery).context("no message arrives")?;
                ensure!(
                    delivery == publisher.delivery,
                    "a wrong message: {:?}",
                    String::from_utf8_lossy(&delivery)
                );
            }
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

//! An audience: the subscribers of one channel and their publisher.
//!
//! Each audience is a separate process, because ten thousand connections to each of several servers
//! are more files than one process may open. The benchmark starts its own program again with an
//! internal first argument, and sends it orders on standard input.
//!
//! The audience compares every received byte with the expected one. The payloads are numbered and
//! never repeat, so lost, repeated, damaged and reordered messages are found.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use slabd::net::mio::MioNet;
use slabd::net::{ConnectOptions, Net, Ready};
use slabd::token::{Generation, Token};
use socket2::SockRef;

use super::load::{ROUND_TIMEOUT, STALL_TIMEOUT, Stream, Talk, slot_of, thanks};
use super::protocols::{Mix, PROTOCOLS, Protocol};
use super::server::on_client_core;

/// The first argument of an audience's process. Its protocols, the server's address and the number
/// of subscribers follow.
const ROLE: &str = "audience";
const READY: &str = "ready";

/// Number of connections opened at a time. A server's accept queue has room for more.
const AT_ONCE: usize = 512;
/// Size of one read in bytes: more than a server usually has ready for one subscriber.
const READ_CHUNK: usize = 16 * 1024;

/// The publishes of a round, and their timing.
#[derive(Clone, Copy)]
pub struct Order {
    pub publishes: u64,
    /// Number of publishes in flight.
    pub in_flight: u64,
    pub until: Until,
}

/// The event after which a publish is no longer in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The publisher has the reply. The server decides whether it replies before or during its
    /// deliveries.
    Replied,
    /// The publisher has the reply, and every subscriber has the message. No server can get ahead
    /// of its deliveries.
    Delivered,
}

impl Order {
    fn to_line(self) -> String {
        let until = if self.until == Until::Delivered { "delivered" } else { "replied" };
        format!("{} {} {until}", self.publishes, self.in_flight)
    }

    fn from_line(line: &str) -> Result<Order> {
        let [publishes, in_flight, until] = line.split(' ').collect::<Vec<_>>()[..] else {
            bail!("\"{line}\" is not an order")
        };
        let until = if until == "delivered" { Until::Delivered } else { Until::Replied };
        Ok(Order { publishes: publishes.parse()?, in_flight: in_flight.parse()?, until })
    }
}

/// The benchmark's handle of an audience.
pub struct Audience {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Audience {
    fn drop(&mut self) {
        // Killing fails if the process has already ended. Waiting reaps it in both cases.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Audience {
    /// Starts an audience, and waits until all its subscribers are subscribed.
    pub fn start(mix: Mix, server: SocketAddr, subscribers: usize) -> Result<Audience> {
        let mut command = on_client_core(std::env::current_exe()?);
        command.args([ROLE, &mix.name(), &server.to_string(), &subscribers.to_string()]);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the audience")?;
        let orders = process.stdin.take().context("the audience has no standard input")?;
        let answers =
            BufReader::new(process.stdout.take().context("the audience has no standard output")?);
        let mut audience = Audience { process, orders, answers };
        ensure!(audience.answer()? == READY, "the audience is not ready");
        Ok(audience)
    }

    /// Runs one round, which ends when the publisher has every reply and every subscriber has every
    /// message. Returns the number of reads of all subscribers.
    pub fn run(&mut self, order: Order) -> Result<u64> {
        writeln!(self.orders, "{}", order.to_line())?;
        self.answer()?.parse().context("the audience does not answer with a number")
    }

    /// Reads one line of the audience. Fails if the audience ended, as it does at its deadlines.
    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the audience has ended; standard error has the reason");
        Ok(line.trim_end().to_string())
    }
}

/// Runs as an audience until its orders end, in a process started as one. Returns false in any
/// other process.
pub fn run_as_audience() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, mix, server, count] = arguments.as_slice() else { return Ok(false) };
    if role != ROLE {
        return Ok(false);
    }
    let (server, count) = (server.parse()?, count.parse()?);
    let mix = Mix::ALL
        .into_iter()
        .find(|known| known.name() == *mix)
        .context("the audience's protocol is unknown")?;
    let mut subscribers = Subscribers::connect(mix, server, count)?;
    let mut publisher = Publisher::connect(mix.of_publisher(), server, count)?;
    println!("{READY}");
    let mut first = 0;
    for line in std::io::stdin().lines() {
        let order = Order::from_line(&line?)?;
        println!("{}", round(&mut subscribers, &mut publisher, first, order)?);
        first += order.publishes;
    }
    Ok(true)
}

/// Runs one round with payloads numbered from `first`. The publisher runs in a separate thread, so
/// its next publish does not wait for ten thousand reads.
fn round(
    subscribers: &mut Subscribers,
    publisher: &mut Publisher,
    first: u64,
    order: Order,
) -> Result<u64> {
    let due = Protocol::ALL.map(|protocol| {
        (first..first + order.publishes).flat_map(|number| protocol.message(number)).collect()
    });
    let reads = subscribers.reads;
    let (progress, delivered) = mpsc::channel();
    let (published, received) = thread::scope(|scope| {
        let publishing = scope.spawn(move || publisher.run(first, order, &delivered));
        let received = subscribers.receive_all(&due, order.publishes as usize, &progress);
        // Ends the publisher's wait for progress.
        drop(progress);
        (
            publishing.join().unwrap_or_else(|_| Err(anyhow!("the publisher's thread failed"))),
            received,
        )
    });
    match (published, received) {
        (Ok(()), Ok(())) => Ok(subscribers.reads - reads),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        // Each error can be the cause of the other.
        (Err(published), Err(received)) => bail!("{received:#}; and the publisher: {published:#}"),
    }
}

struct Subscriber {
    stream: Stream,
    protocol: Protocol,
    /// Number of received bytes of the round.
    received: usize,
}

struct Subscribers {
    mix: Mix,
    net: MioNet,
    subscribers: Vec<Subscriber>,
    ready: Vec<Ready>,
    chunk: Box<[u8]>,
    reads: u64,
}

impl Subscribers {
    fn connect(mix: Mix, server: SocketAddr, count: usize) -> Result<Subscribers> {
        let mut all = Subscribers {
            mix,
            net: MioNet::new()?,
            subscribers: Vec::with_capacity(count),
            ready: Vec::new(),
            chunk: vec![0; READ_CHUNK].into(),
            reads: 0,
        };
        while all.subscribers.len() < count {
            let more = AT_ONCE.min(count - all.subscribers.len());
            all.connect_more(server, more)
                .with_context(|| format!("after {} subscribers", all.subscribers.len()))?;
        }
        Ok(all)
    }

    /// Opens `count` more connections and subscribes each.
    fn connect_more(&mut self, server: SocketAddr, count: usize) -> Result<()> {
        let first = self.subscribers.len();
        for slot in first..first + count {
            let stream = self.net.connect(
                server,
                &ConnectOptions::default(),
                Token::connection(slot as u32, Generation::FIRST),
            )?;
            // Closing by a reset leaves no connection in TIME-WAIT.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            let protocol = self.mix.of_subscriber(slot);
            self.subscribers.push(Subscriber { stream, protocol, received: 0 });
        }
        // The bytes of each answer so far, and the exchanges that are left. `None`: none has begun.
        let mut answers: Vec<Option<(Vec<u8>, &[Talk])>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            self.poll()?;
            for event in std::mem::take(&mut self.ready) {
                let slot = slot_of(event.token)?;
                let Some(answer) = slot.checked_sub(first).and_then(|index| answers.get_mut(index))
                else {
                    continue;
                };
                let Subscriber { stream, protocol, .. } = &mut self.subscribers[slot];
                if answer.is_none() && event.writable && self.net.connected(stream)? {
                    let exchanges = protocol.subscribe();
                    send(&mut self.net, stream, exchanges)?;
                    *answer = Some((Vec::new(), exchanges));
                }
                if let Some((answer, exchanges)) = answer
                    && let [exchange, more @ ..] = *exchanges
                    && event.readable
                {
                    let count = match self.net.read(stream, &mut self.chunk) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                        other => other?,
                    };
                    ensure!(count > 0, "the server closed the connection");
                    answer.extend_from_slice(&self.chunk[..count]);
                    if exchange.is_complete(answer)? {
                        self.net.write(stream, thanks(answer))?;
                        answer.clear();
                        *exchanges = more;
                        missing -= usize::from(more.is_empty());
                        send(&mut self.net, stream, more)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives until every subscriber has all messages. Sends the number of messages that every
    /// subscriber has, as it grows.
    /// `due` has the bytes of all messages in each protocol.
    fn receive_all(
        &mut self,
        due: &[Vec<u8>; PROTOCOLS],
        messages: usize,
        progress: &Sender<u64>,
    ) -> Result<()> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let mut missing_of = vec![self.subscribers.len(); messages];
        let (mut delivered, mut told) = (0, 0);
        for subscriber in &mut self.subscribers {
            subscriber.received = 0;
        }
        let mut missing = self.subscribers.len();
        while missing > 0 {
            self.poll()
                .with_context(|| format!("{missing} subscribers have not received everything"))?;
            ensure!(
                Instant::now() < deadline,
                "{missing} subscribers do not have everything within {ROUND_TIMEOUT:?}"
            );
            let mut ready = std::mem::take(&mut self.ready);
            for event in ready.drain(..) {
                if !event.readable {
                    continue;
                }
                let slot = slot_of(event.token)?;
                let due = &due[self.subscribers[slot].protocol as usize];
                // The messages of a protocol are equally long.
                let length = due.len() / messages;
                let before = self.subscribers[slot].received / length;
                if self.receive(slot, due)? {
                    missing -= 1;
                }
                let after = self.subscribers[slot].received / length;
                for missing in &mut missing_of[before..after] {
                    *missing -= 1;
                    // Each subscriber gets the messages in order, so this count is one of a prefix.
                    delivered += u64::from(*missing == 0);
                }
            }
            if delivered > told {
                told = delivered;
                // A failed publisher no longer receives this, and reports its own error.
                let _ = progress.send(delivered);
            }
            self.ready = ready;
        }
        Ok(())
    }

    /// Reads and checks the bytes of one subscriber. Returns true when these complete the round for
    /// it.
    fn receive(&mut self, slot: usize, due: &[u8]) -> Result<bool> {
        let Subscriber { stream, received, .. } = &mut self.subscribers[slot];
        let before = *received;
        loop {
            let count = match self.net.read(stream, &mut self.chunk) {
                Ok(0) => bail!("the server closed the connection of subscriber {slot}"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    return Err(error).with_context(|| format!("subscriber {slot} cannot read"));
                }
            };
            self.reads += 1;
            let bytes = &self.chunk[..count];
            ensure!(
                due.get(*received..*received + count) == Some(bytes),
                "subscriber {slot} received {received} correct bytes, then {:?}",
                String::from_utf8_lossy(&bytes[..count.min(256)])
            );
            *received += count;
            // A short read has drained the socket.
            if count < self.chunk.len() {
                break;
            }
        }
        Ok(before < due.len() && *received == due.len())
    }

    fn poll(&mut self) -> Result<()> {
        self.ready.clear();
        self.net.poll(&mut self.ready, Some(STALL_TIMEOUT))?;
        ensure!(!self.ready.is_empty(), "nothing arrived for {STALL_TIMEOUT:?}");
        Ok(())
    }
}

/// Sends the request of the first of these exchanges.
fn send(net: &mut MioNet, stream: &mut Stream, exchanges: &[Talk]) -> Result<()> {
    let Some(exchange) = exchanges.first() else { return Ok(()) };
    let sent = net.write(stream, exchange.request)?;
    ensure!(sent == exchange.request.len(), "a request was cut short");
    Ok(())
}

struct Publisher {
    protocol: Protocol,
    stream: TcpStream,
    subscribers: usize,
    /// The replies to all publishes of the round that are sent, and how much of them has come.
    due: Vec<u8>,
    received: usize,
}

impl Publisher {
    fn connect(protocol: Protocol, server: SocketAddr, subscribers: usize) -> Result<Publisher> {
        let stream = TcpStream::connect(server).context("cannot connect the publisher")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        for exchange in protocol.begin_publisher() {
            exchange.exchange(&stream).context("cannot begin the publisher's connection")?;
        }
        Ok(Publisher { protocol, stream, subscribers, due: Vec::new(), received: 0 })
    }

    /// Keeps `in_flight` publishes in flight until all have their replies. `delivered` gives the
    /// number of messages that all subscribers have.
    fn run(&mut self, first: u64, order: Order, delivered: &Receiver<u64>) -> Result<()> {
        (self.due, self.received) = (Vec::new(), 0);
        let (mut sent, mut replied, mut done) = (0, 0, 0);
        while replied < order.publishes {
            let ended = if order.until == Until::Delivered { replied.min(done) } else { replied };
            let due = order.publishes.min(ended + order.in_flight);
            if sent < due {
                let mut requests = Vec::new();
                for number in first + sent..first + due {
                    requests.extend(self.protocol.publish(number));
                    self.due.extend(self.protocol.reply(number, self.subscribers));
                }
                self.stream.write_all(&requests).context("cannot publish")?;
                sent = due;
            }
            if replied < sent {
                self.read_replies().with_context(|| format!("after {replied} replies"))?;
                // The replies of a protocol are equally long.
                replied = self.received as u64 * sent / self.due.len() as u64;
            } else {
                done = delivered.recv_timeout(STALL_TIMEOUT).context("no deliveries arrive")?;
            }
            while let Ok(more) = delivered.try_recv() {
                done = more;
            }
        }
        Ok(())
    }

    /// Waits for replies, and checks the bytes that have come.
    fn read_replies(&mut self) -> Result<()> {
        let mut chunk = [0; 1024];
        let count = self.stream.read(&mut chunk)?;
        ensure!(count > 0, "the server closed the connection");
        ensure!(
            self.due.get(self.received..self.received + count) == Some(&chunk[..count]),
            "a wrong reply: {:?}",
            String::from_utf8_lossy(&chunk[..count])
        );
        self.received += count;
        Ok(())
    }
}

//! Measures several servers as one: what a broker adds to the way of a message, what a broker that
//! hangs costs the clients of a server, and what a second process on the same port brings.
//!
//!     cargo bench --bench scale_out                          everything, some minutes
//!     cargo bench --bench scale_out -- latency --rounds 9    one section
//!
//! Sections:
//! - `latency`: a message from a publisher to a subscriber of one slabd, with a redis-server as its
//!   broker and without, beside a PING of the redis-server. Target: the broker adds at most two
//!   round trips to it.
//! - `hang`: PING beside a publisher, while the broker works and while it is stopped. Target: the
//!   99th percentile is at most twice as long.
//! - `processes`: PINGs a second of one slabd, and of two on one port with `--reuse-port`. All
//!   programs may use all cores. Target: 1.6 × with two cores, if the client takes less than a
//!   quarter of one.
//!
//! How to read it: the settings take turns, each round gives one ratio between neighbours in time,
//! and the tables show medians.

#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use support::load::{Honest, STALL_TIMEOUT};
use support::server::{Cpu, Server};
use support::{Options, Table, median, range};

/// Messages of a round of `latency`.
const MESSAGES: usize = 3000;
/// Time between two publishes in `hang`.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);
/// Connections of the client of `processes`, and the PINGs of each that are in flight. The client
/// serves them in turn, so both processes must have nearly as many, as they have of many.
const CONNECTIONS: usize = 128;
const PIPELINE: usize = 1024;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

fn main() -> Result<()> {
    let numbers = [("rounds", 5), ("seconds", 30)];
    let Some(options) = Options::read(&["latency", "hang", "processes"], &numbers)? else {
        return Ok(());
    };
    support::prepare()?;
    support::server::print_versions(&["slabd", "redis-server"])?;
    if options.wants("latency") {
        latency(options.number("rounds"))?;
    }
    if options.wants("hang") {
        hang(options.number("rounds"), Duration::from_secs(options.number("seconds")))?;
    }
    if options.wants("processes") {
        processes(options.number("rounds"))?;
    }
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    Ok(stream)
}

/// Reads exactly these bytes.
fn expect(stream: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).context("a reply does not come")?;
    ensure!(bytes == expected, "a wrong reply: {}", bytes.escape_ascii());
    Ok(())
}

/// Starts a redis-server, and a slabd with it as its broker.
fn start_with_broker() -> Result<Option<(Server, Server)>> {
    let Some(broker) = Server::redis()? else { return Ok(None) };
    let url = format!("redis://{}", broker.address);
    let server = Server::slabd("hub", &["--broker", &url])?;
    Ok(Some((server, broker)))
}

/// A publisher and a subscriber of one channel.
struct Pair {
    publisher: TcpStream,
    subscriber: TcpStream,
}

impl Pair {
    /// Connects both, and waits until a message goes the way of all others.
    fn connect(server: &Server, broker: Option<&Server>) -> Result<Pair> {
        let [publisher, mut subscriber] = [connect(server.address)?, connect(server.address)?];
        subscriber.write_all(b"SUBSCRIBE news\r\n")?;
        expect(&mut subscriber, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")?;
        if let Some(broker) = broker {
            let mut asker = connect(broker.address)?;
            let deadline = Instant::now() + STALL_TIMEOUT;
            loop {
                asker.write_all(b"PUBSUB NUMSUB news\r\n")?;
                expect(&mut asker, b"*2\r\n$4\r\nnews\r\n:")?;
                let mut count = [0; 3];
                asker.read_exact(&mut count)?;
                if count == *b"1\r\n" {
                    break;
                }
                ensure!(Instant::now() < deadline, "the server does not subscribe at the broker");
                sleep(Duration::from_millis(10));
            }
        }
        Ok(Pair { publisher, subscriber })
    }

    /// Publishes, and waits for the message and the reply.
    fn publish(&mut self) -> Result<()> {
        self.publisher.write_all(b"PUBLISH news 0123456789abcdef\r\n")?;
        let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$16\r\n0123456789abcdef\r\n";
        expect(&mut self.subscriber, message)?;
        expect(&mut self.publisher, b":1\r\n")
    }
}

/// Returns the median time of an action, in microseconds.
fn median_time(mut action: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let began = Instant::now();
        action()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}

fn latency(rounds: u64) -> Result<()> {
    let Some((server, broker)) = start_with_broker()? else { return Ok(()) };
    let alone = Server::slabd("hub", &[])?;
    let mut with = Pair::connect(&server, Some(&broker))?;
    let mut without = Pair::connect(&alone, None)?;
    let mut pinger = connect(broker.address)?;
    let (mut times, mut added) = ([vec![], vec![], vec![]], Vec::new());
    for _ in 0..rounds {
        let trip = median_time(|| {
            pinger.write_all(PING)?;
            expect(&mut pinger, PONG)
        })?;
        let [without, with] = [median_time(|| without.publish())?, median_time(|| with.publish())?];
        added.push((with - without) / trip);
        for (times, time) in times.iter_mut().zip([trip, without, with]) {
            times.push(time);
        }
    }
    println!("latency: median of {MESSAGES} in µs, {rounds} rounds\n");
    let mut table =
        Table::new(&["PING of the broker", "without broker", "with", "added ÷ PING", "target"]);
    let mut row: Vec<String> = times.iter().map(|times| format!("{:.1}", median(times))).collect();
    row.extend([format!("{:.2} ({})", median(&added), range(&added)), "≤ 2".into()]);
    table.row(row);
    table.print();
    Ok(())
}

/// Publishes at a steady pace until told to stop, whatever the replies are. Returns the number of
/// publishes.
fn keep_publishing(server: SocketAddr, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut stream = connect(server)?;
    let command = format!("PUBLISH news {}\r\n", "x".repeat(1000));
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(command.as_bytes())?;
        // The number of receivers, or an error. A publish that waits has neither.
        stream.set_read_timeout(Some(PUBLISH_EVERY))?;
        let _ = stream.read(&mut [0; 4096]);
        sleep(PUBLISH_EVERY);
        count += 1;
    }
    Ok(count)
}

fn hang(rounds: u64, length: Duration) -> Result<()> {
    let Some((server, broker)) = start_with_broker()? else { return Ok(()) };
    let signal = |name: &str| -> Result<()> {
        let process = broker.process_id().to_string();
        let status = Command::new("kill").args([name, &process]).status()?;
        ensure!(status.success(), "cannot send {name} to the broker");
        Ok(())
    };
    let mut subscriber = Pair::connect(&server, Some(&broker))?.subscriber;
    let reader =
        thread::spawn(move || while subscriber.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
    let mut waits = [Vec::new(), Vec::new()];
    let (mut ratios, mut published) = (Vec::new(), 0);
    let before = server.resident()?;
    let mut most = before;
    for _ in 0..rounds {
        let mut p99 = [0.0; 2];
        for (is_stopped, p99) in [false, true].into_iter().zip(&mut p99) {
            let stop = Arc::new(AtomicBool::new(false));
            let (stopped, address) = (stop.clone(), server.address);
            if is_stopped {
                signal("-STOP")?;
            }
            let publisher = thread::spawn(move || keep_publishing(address, stopped));
            let honest = Honest::start(server.address)?;
            sleep(length);
            let waits = honest.stop();
            most = most.max(server.resident()?);
            stop.store(true, Ordering::Relaxed);
            if is_stopped {
                signal("-CONT")?;
            }
            published +=
                publisher.join().map_err(|_| anyhow!("the publisher's thread failed"))??;
            *p99 = waits?[1];
            // The link comes back.
            sleep(Duration::from_secs(2));
        }
        ratios.push(p99[1] / p99[0]);
        waits.iter_mut().zip(p99).for_each(|(all, one)| all.push(one));
    }
    println!("\nhang: 99th percentile of PING in ms, {length:?} each, {published} publishes\n");
    let mut table = Table::new(&["broker works", "stopped", "ratio", "target", "memory, MiB more"]);
    table.row(vec![
        format!("{:.3}", median(&waits[0])),
        format!("{:.3}", median(&waits[1])),
        format!("{:.2} ({})", median(&ratios), range(&ratios)),
        "≤ 2".into(),
        format!("{:.1}", (most - before) as f64 / f64::from(1 << 20)),
    ]);
    table.print();
    drop(server);
    reader.join().map_err(|_| anyhow!("the subscriber's thread failed"))
}

/// The work of a client and the servers in a second.
struct Pinged {
    pings: f64,
    /// Processor time of the client and of all servers, in seconds.
    client: f64,
    servers: f64,
}

/// Keeps PINGs in flight on all connections to a port that these servers share, for a time.
fn ping(servers: &[Server], length: Duration) -> Result<Pinged> {
    let [request, reply] = [PING.repeat(PIPELINE), PONG.repeat(PIPELINE)];
    let mut streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| connect(servers[0].address)).collect::<Result<_>>()?;
    let mut bytes = vec![0; reply.len()];
    streams.iter_mut().try_for_each(|stream| stream.write_all(&request))?;
    let used = || -> Result<[u64; 2]> {
        let own = Cpu::read(std::process::id())?.nanos;
        let cpus: Vec<Cpu> = servers.iter().map(Server::cpu).collect::<Result<_>>()?;
        Ok([own, cpus.iter().map(|cpu| cpu.nanos).sum()])
    };
    let (began, before) = (Instant::now(), used()?);
    let mut batches = 0;
    while began.elapsed() < length {
        for stream in &mut streams {
            stream.read_exact(&mut bytes).context("a reply does not come")?;
            ensure!(bytes == reply, "a wrong reply");
            stream.write_all(&request)?;
            batches += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = used()?;
    let share = |at: usize| (after[at] - before[at]) as f64 / 1e9 / seconds;
    let pings = (batches * PIPELINE) as f64 / seconds;
    Ok(Pinged { pings, client: share(0), servers: share(1) })
}

fn processes(rounds: u64) -> Result<()> {
    support::use_all_cores()?;
    let (mut seen, mut ratios) = ([vec![], vec![]], Vec::new());
    for _ in 0..rounds {
        for (count, seen) in (1..).zip(&mut seen) {
            let mut servers = vec![Server::slabd_on_all_cores("127.0.0.1:0")?];
            let address = servers[0].address.to_string();
            for _ in 1..count {
                servers.push(Server::slabd_on_all_cores(&address)?);
            }
            seen.push(ping(&servers, Duration::from_secs(3))?);
        }
        let [one, two] = seen.each_ref().map(|seen| seen.last().map_or(0.0, |last| last.pings));
        ratios.push(two / one);
    }
    println!("\nprocesses: PINGs a second, {CONNECTIONS} clients of {PIPELINE} in flight\n");
    let mut table = Table::new(&["processes", "PINGs a second", "cores of them", "of the client"]);
    for (count, seen) in (1..).zip(&seen) {
        let middle = |of: fn(&Pinged) -> f64| median(&seen.iter().map(of).collect::<Vec<_>>());
        table.row(vec![
            format!("{count}"),
            format!("{:.0}", middle(|one| one.pings)),
            format!("{:.2}", middle(|one| one.servers)),
            format!("{:.2}", middle(|one| one.client)),
        ]);
    }
    table.print();
    println!("\ntwo ÷ one: {:.2} ({}), target ≥ 1.6", median(&ratios), range(&ratios));
    Ok(())
}

//! Measures how much the expensive commands of one client slow down others.
//!
//!     cargo bench --bench neighbours                                everything, a minute
//!     cargo bench --bench neighbours -- monitor --rounds 9          one section
//!
//! Sections:
//! - `monitor`: commands per second of redis-benchmark's PING with a pipeline of 32, while one
//!   connection monitors all commands and reads them. The ratio divides this rate by the rate
//!   without MONITOR. The table shows the ratios of redis-server and slabd.
//! - `inspect`: the wait of an honest client for PING, in milliseconds, while 64 others send
//!   `CLIENT LIST LADDR` without end beside 6,000 idle connections. redis-server does not have this
//!   command.
//! - `patterns`: the processor time of a PUBLISH that matches nothing, with a pipeline of 32.
//!   Others have 10,000 patterns that end with their only wildcard, such as `text00001*`. The ratio
//!   divides it by the time on a server without patterns.
//! - `newcomers`: the wait of an honest client for PING while newcomers get 1,000,000 retained
//!   values, and the longest turn.
//!
//! slabd runs with its default settings. In `inspect` it has no deadlines and no limit on silent
//! connections.

#![forbid(unsafe_code)]

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use support::load::{ClosedLoop, Exchange, Held, Honest, RedisBenchmark, STALL_TIMEOUT, Talk};
use support::rounds::{Contender, alternate, report};
use support::server::{self, Server};
use support::{Options, Table, median, range};

/// Minimum ratio of the rate with MONITOR to the rate without.
const MONITOR_TARGET: f64 = 0.37;
/// Maximum of the honest client's 99th percentile, in milliseconds.
const INSPECT_TARGET: f64 = 10.0;
/// Maximum ratio of the cost of a publish beside the patterns to the cost without them.
const PATTERNS_TARGET: f64 = 1.5;

/// Maximum ratio of the honest client's 99th percentile beside newcomers to that without.
const NEWCOMERS_TARGET: f64 = 2.0;
/// Longest turn beside newcomers, in milliseconds.
const TURN_TARGET: f64 = 5.0;

const CLIENTS: u64 = 50;
const PIPELINE: u64 = 32;
const ASKERS: usize = 64;
/// Number of patterns `literal*`, and how many of them one client has.
const PATTERNS: usize = 10_000;
const PATTERNS_EACH: usize = 1000;
/// A command that searches all connections and finds none.
const QUESTION: Exchange = Exchange {
    request: b"*4\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n$5\r\nLADDR\r\n$9\r\n1.2.3.4:5\r\n",
    reply: b"$0\r\n\r\n",
};
const PING: Talk =
    Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };

fn main() -> Result<()> {
    let numbers = [("rounds", 5), ("requests", 500_000), ("idle", 6000), ("keys", 1_000_000)];
    let sections = ["monitor", "inspect", "patterns", "newcomers"];
    let Some(options) = Options::read(&sections, &numbers)? else {
        return Ok(());
    };
    support::prepare()?;
    server::print_versions(&["redis-server"])?;
    if options.wants("monitor") && server::check_installed("redis-benchmark", "redis-tools") {
        monitor(&options)?;
    }
    if options.wants("inspect") {
        inspect(&options)?;
    }
    if options.wants("patterns") {
        patterns(&options)?;
    }
    if options.wants("newcomers") {
        newcomers(&options)?;
    }
    Ok(())
}

fn monitor(options: &Options) -> Result<()> {
    println!("## PING with pipeline {PIPELINE}, {CLIENTS} clients, beside one with MONITOR\n");
    let slabd =
        options.includes("slabd").then(|| Server::slabd_with_deadlines("hub", &[])).transpose()?;
    let redis = if options.includes("redis") { Server::redis()? } else { None };
    let servers = [("redis", redis), ("slabd", slabd)];
    let requests = options.number("requests");
    let benchmark =
        RedisBenchmark { test: "ping_mbulk", clients: CLIENTS, pipeline: PIPELINE, requests };
    let mut measured = servers.each_ref().map(|_| (Vec::new(), Vec::new(), 0));
    for _ in 0..options.number("rounds") {
        for ((_, server), (without, with, lines)) in servers.iter().zip(&mut measured) {
            let Some(server) = server else { continue };
            without.push(benchmark.run(server.address)?);
            let (rate, seen) = beside_monitor(server, || benchmark.run(server.address))?;
            with.push(rate);
            *lines += seen;
        }
    }
    let mut table = Table::new(&[
        "server",
        "requests/s without",
        "with",
        "ratio",
        "range",
        "target",
        "lines per request",
    ]);
    for ((label, _), (without, with, lines)) in
        servers.iter().zip(&measured).filter(|(_, (rates, ..))| !rates.is_empty())
    {
        let ratios: Vec<f64> =
            with.iter().zip(without).map(|(with, without)| with / without).collect();
        table.row(vec![
            label.to_string(),
            format!("{:.0}", median(without)),
            format!("{:.0}", median(with)),
            format!("{:.3}", median(&ratios)),
            range(&ratios),
            if *label == "slabd" { format!("≥ {MONITOR_TARGET}") } else { "–".into() },
            format!("{:.2}", *lines as f64 / (requests * with.len() as u64) as f64),
        ]);
    }
    table.print();
    Ok(())
}

/// Does the work while a connection monitors all commands. Also returns the number of lines that
/// this connection got.
fn beside_monitor(server: &Server, work: impl FnOnce() -> Result<f64>) -> Result<(f64, u64)> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.write_all(b"MONITOR\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).context("MONITOR")?;
    ensure!(answer == *b"+OK\r\n", "the server answers MONITOR with {answer:?}");
    thread::scope(|scope| {
        let mut reader = stream.try_clone()?;
        let reading = scope.spawn(move || {
            let (mut chunk, mut lines) = (vec![0; 256 * 1024], 0);
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                lines += chunk[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
            lines
        });
        let done = work();
        let closed = reading.is_finished();
        // Ends the reader's next read.
        let _ = stream.shutdown(Shutdown::Both);
        let lines = reading.join().map_err(|_| anyhow!("the thread that reads MONITOR failed"))?;
        if closed {
            println!("{} closed the connection with MONITOR\n", server.name);
        }
        Ok((done?, lines))
    })
}

fn inspect(options: &Options) -> Result<()> {
    let idle = options.number("idle") as usize;
    println!(
        "## PING beside {idle} idle connections and {ASKERS} clients that send CLIENT LIST LADDR\n"
    );
    let server = Server::slabd("hub", &[])?;
    let held = Held::open(&server, idle, &PING)?;
    let mut table = Table::new(&["askers", "PING p50", "p99", "target", "questions/s"]);
    for askers in [0, ASKERS] {
        let mut clients = ClosedLoop::connect(server.address, askers, QUESTION)?;
        let (stop, span) = (AtomicBool::new(false), Duration::from_secs(4));
        let (waits, asked) = thread::scope(|scope| {
            let asking = scope.spawn(|| -> Result<u64> {
                let mut asked = 0;
                while askers > 0 && !stop.load(Ordering::Relaxed) {
                    clients.run(4 * askers as u64)?;
                    asked += 4 * askers as u64;
                }
                Ok(asked)
            });
            let honest = Honest::start(server.address)?;
            thread::sleep(span);
            let waits = honest.stop();
            stop.store(true, Ordering::Relaxed);
            let asked = asking.join().map_err(|_| anyhow!("the askers' thread failed"))??;
            anyhow::Ok((waits?, asked))
        })?;
        table.row(vec![
            askers.to_string(),
            format!("{:.2}", waits[0]),
            format!("{:.2}", waits[1]),
            if askers > 0 { format!("≤ {INSPECT_TARGET}") } else { "–".into() },
            format!("{:.0}", asked as f64 / span.as_secs_f64()),
        ]);
    }
    table.print();
    held.reset()
}

fn patterns(options: &Options) -> Result<()> {
    println!(
        "## PUBLISH with pipeline {PIPELINE}, {CLIENTS} clients, beside {PATTERNS} patterns of \
         others\n"
    );
    let repeated = |text: &[u8]| &*text.repeat(PIPELINE as usize).leak();
    let exchange =
        Exchange { request: repeated(b"PUBLISH text12345 x\r\n"), reply: repeated(b":0\r\n") };
    let requests = options.number("requests");
    let slabd = || Server::slabd_with_deadlines("hub", &[]).map(Some);
    // redis-server tries each pattern, so it gets a hundredth of the publishes.
    let servers: [(_, &dyn Fn() -> Result<Option<Server>>, _); 2] =
        [("slabd", &slabd, requests), ("redis", &Server::redis, requests / 100)];
    for (label, start, requests) in servers {
        if !options.includes(label) {
            continue;
        }
        let (Some(alone), Some(beside)) = (start()?, start()?) else { continue };
        let subscribers: Vec<TcpStream> = (0..PATTERNS / PATTERNS_EACH)
            .map(|first| subscribe_to_patterns(&beside, first * PATTERNS_EACH))
            .collect::<Result<_>>()?;
        let mut contenders = Vec::new();
        for (what, server) in [("alone", &alone), ("beside them", &beside)] {
            let mut clients = ClosedLoop::connect(server.address, CLIENTS as usize, exchange)?;
            contenders.push(Contender::new(&format!("{label} {what}"), server, move || {
                let pipelines = (requests / PIPELINE).max(1);
                Ok(clients.run(pipelines)? * PIPELINE)
            }));
        }
        alternate(&mut contenders, options.number("rounds"))?;
        report(&contenders, "publish", Some(PATTERNS_TARGET));
        drop(subscribers);
    }
    Ok(())
}

/// Subscribes one connection to some patterns. Each has a number from `first` on.
fn subscribe_to_patterns(server: &Server, first: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    let patterns: String =
        (first..first + PATTERNS_EACH).map(|number| format!(" text{number:05}*")).collect();
    stream.write_all(format!("PSUBSCRIBE{patterns}\r\n").as_bytes())?;
    let last = format!(":{PATTERNS_EACH}\r\n");
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(last.as_bytes()) {
        let count = stream.read(&mut chunk).context("PSUBSCRIBE")?;
        answer.extend_from_slice(&chunk[..count]);
        ensure!(count > 0 && !answer.starts_with(b"-"), "{} refuses patterns", server.name);
    }
    Ok(stream)
}

/// Fills a channel with retained values, and lets newcomers read them for a second.
fn newcomers(options: &Options) -> Result<()> {
    let keys = options.number("keys");
    println!("## PING beside newcomers that get {keys} retained values\n");
    let rule = r#"{"channel":"cells","key":"index"}"#;
    let server = Server::slabd_with_deadlines("hub", &["--retain", rule])?;
    fill(&server, keys)?;
    let header = ["newcomers", "p50, ms", "p99, ms", "ratio", "target", "longest turn, ms", "MB/s"];
    let (mut table, mut quiet) = (Table::new(&header), 0.0);
    for count in [0, 1, 1000] {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(TcpStream::connect(server.address)?);
        }
        ask(&server, b"CONFIG RESETSTAT\r\n")?;
        let honest = Honest::start(server.address)?;
        let bytes = take_for_a_second(&streams)?;
        let [median, high] = honest.stop()?;
        if count == 0 {
            quiet = high;
        }
        let info = ask(&server, b"INFO loop\r\n")?;
        let longest = info.lines().find_map(|line| line.strip_prefix("longest_turn_us:"));
        let longest = longest.and_then(|text| text.parse::<f64>().ok());
        let longest = longest.with_context(|| format!("no longest_turn_us in {info}"))? / 1e3;
        table.row(vec![
            count.to_string(),
            format!("{median:.2}"),
            format!("{high:.2}"),
            format!("{:.2}", high / quiet),
            format!("≤ {NEWCOMERS_TARGET}, turns ≤ {TURN_TARGET} ms"),
            format!("{longest:.2}"),
            format!("{:.0}", bytes as f64 / 1e6),
        ]);
    }
    table.print();
    Ok(())
}

/// Publishes a value for each key.
fn fill(server: &Server, keys: u64) -> Result<()> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    for first in (0..keys).step_by(1000) {
        let last = keys.min(first + 1000);
        let publishes: String = (first..last)
            .map(|key| format!("{{\"index\":{key},\"checked\":true}}"))
            .map(|value| {
                let length = value.len();
                format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\ncells\r\n${length}\r\n{value}\r\n")
            })
            .collect();
        stream.write_all(publishes.as_bytes())?;
        let mut replies = vec![0; 4 * (last - first) as usize];
        stream.read_exact(&mut replies).context("PUBLISH")?;
    }
    Ok(())
}

/// Sends one command, and returns the answer: a line, or a bulk string.
fn ask(server: &Server, command: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.write_all(command)?;
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut head)?;
    let Some(length) = head.trim_end().strip_prefix('$') else { return Ok(head) };
    let mut answer = vec![0; length.parse()?];
    reader.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Subscribes all, and reads from all in turn for a second. Returns the bytes read.
fn take_for_a_second(streams: &[TcpStream]) -> Result<u64> {
    for mut stream in streams {
        stream.write_all(b"CLIENT RETAINED ON\r\nSUBSCRIBE cells\r\n")?;
        stream.set_nonblocking(true)?;
    }
    let (began, mut bytes, mut chunk) = (Instant::now(), 0, vec![0; 256 * 1024]);
    while began.elapsed() < Duration::from_secs(1) {
        for mut stream in streams {
            match stream.read(&mut chunk) {
                Ok(0) => bail!("the server has closed a newcomer"),
                Ok(count) => bytes += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a newcomer reads"),
            }
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(bytes)
}

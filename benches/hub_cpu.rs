//! What the hub costs: processor time of slabd's `hub` service beside redis-server's, for the work both do.
//!
//!     cargo bench --bench hub_cpu                                   everything, some minutes
//!     cargo bench --bench hub_cpu -- fanout --rounds 15             one section
//!     cargo bench --bench hub_cpu -- --skip redis                   without a server: then there is no ratio
//!
//! Sections:
//! - `ping`: 50 clients of redis-benchmark, the real program, each sending PING when it has its reply; as RESP
//!   (ping_mbulk) and as inline commands (ping_inline).
//! - `pipeline`: the same with 32 commands at a time.
//! - `fanout`: publishes of 64 bytes to 10,000 subscribers of one channel, 16 in flight and 1 in flight. Every byte
//!   that every subscriber receives is checked; a round ends when all have everything. Twice: a publish is in flight
//!   until its reply is back, or until every subscriber has the message as well.
//!
//! How to read it: the servers take turns, one round each (A B A B …), and every round gives one ratio between
//! neighbours in time; the tables show medians of these, and beside them what slabd's is to stay below. Compare
//! ratios, not microseconds, which change from machine to machine and from hour to hour. The total is exact (the
//! scheduler's own count, in nanoseconds). User and system are divided by the timer interrupt's samples over all
//! rounds together; the ± beside user is one standard deviation of that. "sleeps" is how often per operation the
//! server ran out of work: a server that is quicker than its clients sleeps more, and pays for it.
//!
//! slabd runs as people run it, so it gathers events under load (src/gather.rs); SLABD_GATHER=0 shows it without.
//!
//! Each run of redis-benchmark makes its 50 connections anew; that is in the cost, of both.
//!
//! Below the fan-out's tables stands how many messages one read of a subscriber brought. A write costs nearly the same
//! for one message as for sixteen, so who collects more of them is cheaper per delivery. A server that replies before
//! it delivers lets the publisher run ahead, and collects more than are in flight by the count of replies: its ratio
//! tells what that saves, not how good it is at the same work, and it changes with --publishes, because the longer a
//! round, the further ahead the publisher gets. Only "until delivered" do both have the same to collect.

#![forbid(unsafe_code)]

mod support;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use support::fanout::{self, Audience, Order, Until};
use support::load::{RedisBenchmark, Talk};
use support::rounds::{Contender, alternate, report};
use support::server::{self, Server};
use support::{Options, Table};

const CLIENTS: u64 = 50;
const PIPELINE: u64 = 32;

/// What slabd's processor time, divided by that of redis-server, is to stay below.
const PING_TARGET: f64 = 0.8;
const PIPELINE_TARGET: f64 = 0.5;
const FANOUT_TARGET: f64 = 0.65;
const SINGLE_TARGET: f64 = 1.0;

const PING: Talk =
    Talk { greeting: b"", request: b"*1\r\n$4\r\nPING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };
const PING_INLINE: Talk = Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };

fn main() -> Result<()> {
    if fanout::run_as_audience()? {
        return Ok(());
    }
    let numbers = [("rounds", 9), ("requests", 200_000), ("subscribers", 10_000), ("publishes", 160)];
    let Some(options) = Options::read(&["ping", "pipeline", "fanout"], &numbers)? else { return Ok(()) };
    support::prepare()?;
    print_versions()?;
    if options.wants("ping") {
        ping(&options)?;
    }
    if options.wants("pipeline") {
        pipeline(&options)?;
    }
    if options.wants("fanout") {
        fanout(&options)?;
    }
    Ok(())
}

/// Which programs these figures are of.
fn print_versions() -> Result<()> {
    for program in ["redis-server", "redis-benchmark"] {
        if server::is_installed(program) {
            let output = Command::new(program).arg("--version").output().context(program)?;
            println!("{program}: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
    }
    println!();
    Ok(())
}

/// The servers to compare, redis-server first, because it is what slabd is divided by.
fn servers(options: &Options) -> Result<Vec<(&'static str, Server)>> {
    let mut servers = Vec::new();
    if options.includes("redis")
        && let Some(redis) = Server::redis()?
    {
        servers.push(("redis", redis));
    }
    if options.includes("slabd") {
        let gather = std::env::var("SLABD_GATHER").unwrap_or_default();
        let arguments: &[&str] = if gather.is_empty() { &[] } else { &["--gather", &gather] };
        servers.push(("slabd", Server::slabd("hub", arguments)?));
    }
    Ok(servers)
}

fn ping(options: &Options) -> Result<()> {
    let requests = options.number("requests");
    for (test, talk) in [("ping_mbulk", PING), ("ping_inline", PING_INLINE)] {
        println!("## redis-benchmark -t {test} -c {CLIENTS}: server CPU per command\n");
        redis_benchmark(options, RedisBenchmark { test, clients: CLIENTS, pipeline: 1, requests }, &talk, PING_TARGET)?;
    }
    Ok(())
}

/// Ten times as many as without: each costs a tenth.
fn pipeline(options: &Options) -> Result<()> {
    let requests = 10 * options.number("requests");
    println!("## redis-benchmark -t ping_mbulk -c {CLIENTS} -P {PIPELINE}: server CPU per command\n");
    let benchmark = RedisBenchmark { test: "ping_mbulk", clients: CLIENTS, pipeline: PIPELINE, requests };
    redis_benchmark(options, benchmark, &PING, PIPELINE_TARGET)
}

fn redis_benchmark(options: &Options, benchmark: RedisBenchmark, talk: &Talk, target: f64) -> Result<()> {
    if !server::check_installed("redis-benchmark", "redis-tools") {
        return Ok(());
    }
    let servers = servers(options)?;
    let mut contenders = Vec::new();
    for (label, server) in &servers {
        // redis-benchmark counts replies and stops at errors, but does not look at what else a reply says.
        talk.check(server)?;
        contenders.push(Contender::new(label, server, || benchmark.run(server.address)));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, benchmark.requests, "cmd", Some(target));
    Ok(())
}

fn fanout(options: &Options) -> Result<()> {
    let (subscribers, publishes) = (options.number("subscribers"), options.number("publishes"));
    ensure!(subscribers > 0 && publishes >= 4, "--subscribers 1 or more, --publishes 4 or more");
    let servers = servers(options)?;
    let mut audiences = Vec::new();
    for (_, server) in &servers {
        let audience = Audience::start(server.address, subscribers as usize);
        audiences.push(audience.with_context(|| format!("subscribing to {}", server.name))?);
    }
    for until in [Until::Replied, Until::Delivered] {
        // One at a time is dearer, so a quarter of them takes a round of about the same length.
        for (in_flight, publishes, target) in [(16, publishes, FANOUT_TARGET), (1, publishes / 4, SINGLE_TARGET)] {
            let order = Order { publishes, in_flight, until };
            let what = if until == Until::Replied { "replied to" } else { "delivered to all" };
            println!("## {} bytes to {subscribers} subscribers, {in_flight} in flight until {what}", fanout::PAYLOAD);
            println!("\nServer CPU per delivery; {publishes} publishes a round.\n");
            compare_fanout(options, &servers, &mut audiences, order, target)?;
        }
    }
    Ok(())
}

fn compare_fanout(
    options: &Options,
    servers: &[(&str, Server)],
    audiences: &mut [Audience],
    order: Order,
    target: f64,
) -> Result<()> {
    let (subscribers, rounds) = (options.number("subscribers"), options.number("rounds"));
    let mut reads = vec![0; servers.len()];
    let mut contenders = Vec::new();
    for (((label, server), audience), reads) in servers.iter().zip(audiences).zip(&mut reads) {
        contenders.push(Contender::new(label, server, move || {
            *reads += audience.run(order).with_context(|| server.name.clone())?;
            Ok(())
        }));
    }
    alternate(&mut contenders, rounds)?;
    report(&contenders, order.publishes * subscribers, "dlv", Some(target));
    drop(contenders);
    let mut table = Table::new(&["server", "messages per read"]);
    // The round that is not counted above is in the reads.
    let received = order.publishes * subscribers * (rounds + 1);
    for ((label, _), reads) in servers.iter().zip(reads) {
        table.row(vec![label.to_string(), format!("{:.2}", received as f64 / reads as f64)]);
    }
    table.print();
    Ok(())
}

//! What the hub costs: processor time of slabd's `hub` service beside redis-server's, for commands.
//! Fan-out has a benchmark of its own, `fanout`.
//!
//!     cargo bench --bench hub_cpu                                   everything, some minutes
//!     cargo bench --bench hub_cpu -- ping --rounds 15               one section
//!     cargo bench --bench hub_cpu -- --skip redis                   without a server: then there is no ratio
//!
//! Sections:
//! - `ping`: 50 clients of redis-benchmark, the real program, each sending PING when it has its reply; as RESP
//!   (ping_mbulk) and as inline commands (ping_inline).
//! - `pipeline`: the same with 32 commands at a time.
//!
//! How to read it: the servers take turns, one round each (A B A B …), and every round gives one ratio between
//! neighbours in time; the tables show medians of these, and beside them what slabd's is to stay below. Compare
//! ratios, not microseconds, which change from machine to machine and from hour to hour. The total is exact (the
//! scheduler's own count, in nanoseconds). User and system are divided by the timer interrupt's samples over all
//! rounds together; the ± beside user is one standard deviation of that. "sleeps" is how often per operation the
//! server ran out of work: a server that is quicker than its clients sleeps more, and pays for it.
//!
//! Each run of redis-benchmark makes its 50 connections anew; that is in the cost, of both.

#![forbid(unsafe_code)]

mod support;

use std::process::Command;

use anyhow::{Context, Result};
use support::Options;
use support::load::{RedisBenchmark, Talk};
use support::rounds::{Contender, alternate, report};
use support::server::{self, Server};

const CLIENTS: u64 = 50;
const PIPELINE: u64 = 32;

/// What slabd's processor time, divided by that of redis-server, is to stay below.
const PING_TARGET: f64 = 0.8;
const PIPELINE_TARGET: f64 = 0.5;

const PING: Talk =
    Talk { greeting: b"", request: b"*1\r\n$4\r\nPING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };
const PING_INLINE: Talk = Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };

fn main() -> Result<()> {
    let numbers = [("rounds", 9), ("requests", 200_000)];
    let Some(options) = Options::read(&["ping", "pipeline"], &numbers)? else { return Ok(()) };
    support::prepare()?;
    print_versions()?;
    if options.wants("ping") {
        ping(&options)?;
    }
    if options.wants("pipeline") {
        pipeline(&options)?;
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
        servers.push(("slabd", Server::slabd("hub", &[])?));
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
        contenders.push(Contender::new(label, server, || benchmark.run(server.address).map(drop)));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, benchmark.requests, "cmd", Some(target));
    Ok(())
}

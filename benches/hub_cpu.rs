//! Measures the cost of commands: processor time of slabd's service `hub` beside redis-server. The
//! benchmark `fanout` measures fan-out.
//!
//!     cargo bench --bench hub_cpu                                   everything, some minutes
//!     cargo bench --bench hub_cpu -- ping --rounds 15               one section
//!     cargo bench --bench hub_cpu -- --skip redis                   without redis and ratios
//!
//! Sections:
//! - `ping`: 50 clients of the real redis-benchmark. Each sends PING when it has its reply, as RESP
//!   (ping_mbulk) and as inline commands (ping_inline).
//! - `pipeline`: the same with 32 commands at a time.
//!
//! How to read it: the servers take turns, one round each (A B A B …), and each round gives one
//! ratio between neighbours in time. The tables show the medians of these ratios, and slabd's
//! target beside them. Compare ratios, not microseconds, which differ between machines and hours.
//!
//! The total is exact, because the scheduler counts it in nanoseconds. It is split into user and
//! system by the samples of the timer interrupt over all rounds. The ± beside user is one standard
//! deviation of this split. "sleeps" is the number of times per operation that the server ran out
//! of work. A server faster than its clients sleeps more often, and sleeping costs time.
//!
//! Each run of redis-benchmark opens 50 new connections, which is part of the cost of both servers.

#![forbid(unsafe_code)]

mod support;

use anyhow::Result;
use support::Options;
use support::load::{RedisBenchmark, Talk};
use support::rounds::{Contender, alternate, report};
use support::server::{self, Server};

const CLIENTS: u64 = 50;
const PIPELINE: u64 = 32;

/// Maximum ratio of slabd's processor time to that of redis-server.
const PING_TARGET: f64 = 0.8;
const PIPELINE_TARGET: f64 = 0.5;

const PING: Talk = Talk {
    greeting: b"",
    request: b"*1\r\n$4\r\nPING\r\n",
    reply_starts: b"+PONG\r\n",
    reply_ends: b"",
};
const PING_INLINE: Talk =
    Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };

fn main() -> Result<()> {
    let numbers = [("rounds", 9), ("requests", 200_000)];
    let Some(options) = Options::read(&["ping", "pipeline"], &numbers)? else { return Ok(()) };
    support::prepare()?;
    server::print_versions(&["redis-server", "redis-benchmark"])?;
    if options.wants("ping") {
        ping(&options)?;
    }
    if options.wants("pipeline") {
        pipeline(&options)?;
    }
    Ok(())
}

/// Returns the servers to compare. The first, redis-server, is the base of the ratios.
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
        redis_benchmark(
            options,
            RedisBenchmark { test, clients: CLIENTS, pipeline: 1, requests },
            &talk,
            PING_TARGET,
        )?;
    }
    Ok(())
}

/// Sends ten times the requests of `ping`, because each costs about a tenth.
fn pipeline(options: &Options) -> Result<()> {
    let requests = 10 * options.number("requests");
    println!(
        "## redis-benchmark -t ping_mbulk -c {CLIENTS} -P {PIPELINE}: server CPU per command\n"
    );
    let benchmark =
        RedisBenchmark { test: "ping_mbulk", clients: CLIENTS, pipeline: PIPELINE, requests };
    redis_benchmark(options, benchmark, &PING, PIPELINE_TARGET)
}

fn redis_benchmark(
    options: &Options,
    benchmark: RedisBenchmark,
    talk: &Talk,
    target: f64,
) -> Result<()> {
    if !server::check_installed("redis-benchmark", "redis-tools") {
        return Ok(());
    }
    let servers = servers(options)?;
    let mut contenders = Vec::new();
    for (label, server) in &servers {
        // redis-benchmark counts replies and stops at errors, but does not check their text.
        talk.check(server)?;
        contenders.push(Contender::new(label, server, || {
            benchmark.run(server.address)?;
            Ok(benchmark.requests)
        }));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "cmd", Some(target));
    Ok(())
}

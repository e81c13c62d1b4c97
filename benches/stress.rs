//! Measures the load generator: the rate of `slabd stress` beside redis-benchmark, and the accuracy
//! of its memory figures.
//!
//!     cargo bench --bench stress                                    everything, some minutes
//!     cargo bench --bench stress -- rate --rounds 15                one section
//!     cargo bench --bench stress -- hold --skip nginx
//!
//! Sections:
//! - `rate`: requests per second of each generator against redis-server, with the same clients and
//!   pipeline. The generators take turns (A B A B …). The table shows medians, and the median of
//!   the ratios of neighbours. Generator and server each have a core.
//! - `http`: requests per second of `slabd stress` and wrk against nginx that closes a connection
//!   after 100 requests, in a closed loop; and at 2,000 requests per second, the p99 of `slabd
//!   stress` and hey. hey tells it to 100 us.
//! - `hold`: 15,000 connections held to each of redis-server, nginx, memcached and slabd. The
//!   benchmark also reads the growth of the resident set from outside. The two figures must agree
//!   within 5 %.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use support::load::RedisBenchmark;
use support::server::{self, Server};
use support::{Options, Table, generators, median, range};

/// Minimum ratio of the requests per second to those of redis-benchmark.
const RATE_TARGET: f64 = 0.9;

/// Maximum relative difference between the reported memory and the memory read from outside.
const MEMORY_TARGET: f64 = 0.05;

const CLIENTS: u64 = 50;

/// Minimum ratio of the requests per second to those of wrk.
const HTTP_TARGET: f64 = 0.9;

/// Maximum relative difference of the p99 at a rate to that of hey, upwards.
const P99_TARGET: f64 = 0.2;

/// Requests after which nginx closes a connection in the section `http`.
const KEPT_REQUESTS: u64 = 100;

const HTTP_CLIENTS: u64 = 10;
const HTTP_RATE: u64 = 2000;

fn main() -> Result<()> {
    let numbers = [("rounds", 7), ("requests", 500_000), ("connections", 15_000), ("seconds", 3)];
    let Some(options) = Options::read(&["rate", "http", "hold"], &numbers)? else { return Ok(()) };
    support::prepare()?;
    server::print_versions(&["redis-server", "redis-benchmark", "nginx", "memcached", "wrk"])?;
    if options.wants("rate") {
        rate(&options)?;
    }
    if options.wants("http") {
        http(&options)?;
    }
    if options.wants("hold") {
        hold(&options)?;
    }
    Ok(())
}

fn rate(options: &Options) -> Result<()> {
    let Some(redis) = Server::redis()? else { return Ok(()) };
    if !server::check_installed("redis-benchmark", "redis-tools") {
        return Ok(());
    }
    println!("\n## Requests per second against redis-server, {CLIENTS} clients\n");
    let mut table = Table::new(&[
        "pipeline",
        "redis-benchmark",
        "slabd stress",
        "ratio",
        "range",
        "not below",
        "",
    ]);
    for (pipeline, times) in [(1, 1), (32, 8)] {
        let requests = options.number("requests") * times;
        let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.number("rounds") {
            let benchmark =
                RedisBenchmark { test: "ping_mbulk", clients: CLIENTS, pipeline, requests };
            let their = benchmark.run(redis.address)?;
            let our = slabd_stress(redis.address, pipeline, requests)?;
            theirs.push(their);
            ours.push(our);
            ratios.push(our / their);
        }
        let ratio = median(&ratios);
        table.row(vec![
            pipeline.to_string(),
            format!("{:.0}", median(&theirs)),
            format!("{:.0}", median(&ours)),
            format!("{ratio:.2}"),
            range(&ratios),
            RATE_TARGET.to_string(),
            if ratio >= RATE_TARGET { "ok" } else { "SHORT" }.into(),
        ]);
    }
    table.print();
    Ok(())
}

fn slabd_stress(server: SocketAddr, pipeline: u64, requests: u64) -> Result<f64> {
    let target = format!("resp://{server}");
    let numbers = [pipeline, requests, CLIENTS].map(|number| number.to_string());
    let [pipeline, requests, clients] = numbers.each_ref().map(String::as_str);
    let words = [
        "ping", &target, "-c", clients, "-P", pipeline, "-n", requests, "-d", "60s", "--assert",
        "errors=0",
    ];
    let record = stress(&words)?.finish()?;
    ensure!(
        record["requests"]["answered"].as_u64() == requests.parse().ok(),
        "some requests have no answer: {record}"
    );
    record["requests"]["rate"].as_f64().context("the report has no rate")
}

fn http(options: &Options) -> Result<()> {
    let Some(nginx) = Server::nginx_with(512, KEPT_REQUESTS)? else { return Ok(()) };
    let seconds = options.number("seconds");
    let (target, span) = (format!("http://{}/", nginx.address), format!("{seconds}s"));
    let (clients, rate) = (HTTP_CLIENTS.to_string(), HTTP_RATE.to_string());
    let words = ["ping", &target, "-c", &clients, "-d", &span, "--assert", "errors=0"];
    println!(
        "\n## nginx with keepalive_requests {KEPT_REQUESTS}, {HTTP_CLIENTS} connections, \
         {seconds} s each\n"
    );
    let mut table = Table::new(&[
        "measured",
        "other",
        "theirs",
        "slabd stress",
        "ratio",
        "range",
        "target",
        "",
    ]);
    let mut row = |measured: &str, other: &str, theirs: &[f64], ours: &[f64], target: f64| {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(our, their)| our / their).collect();
        let ratio = median(&ratios);
        let is_least = target < 1.0;
        let holds = if is_least { ratio >= target } else { ratio <= target };
        table.row(vec![
            measured.into(),
            other.into(),
            format!("{:.0}", median(theirs)),
            format!("{:.0}", median(ours)),
            format!("{ratio:.2}"),
            range(&ratios),
            format!("{} {target}", if is_least { "≥" } else { "≤" }),
            if holds { "ok" } else { "SHORT" }.into(),
        ]);
    };
    if server::check_installed("wrk", "wrk") {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.number("rounds") {
            theirs.push(generators::wrk(nginx.address, "/", HTTP_CLIENTS, seconds)?.rate);
            let record = stress(&words)?.finish()?;
            ours.push(record["requests"]["rate"].as_f64().context("the report has no rate")?);
            let reconnects = record["connections"]["reconnects"].as_u64();
            ensure!(reconnects > Some(0), "nginx closed no connection: {record}");
        }
        row("requests/s, closed loop", "wrk", &theirs, &ours, HTTP_TARGET);
    }
    if server::check_installed("hey", "hey") {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.number("rounds") {
            let (p99_us, reached) =
                generators::hey(nginx.address, HTTP_CLIENTS, HTTP_RATE, seconds)?;
            ensure!(reached > 0.9 * HTTP_RATE as f64, "hey reached {reached} requests/s");
            theirs.push(p99_us);
            let record = stress(&[&words[..], &["--rate", &rate]].concat())?.finish()?;
            let p99 = record["latency"]["percentiles"].as_array().and_then(|percentiles| {
                percentiles.iter().find(|one| one["percent"] == 99.0)?["us"].as_f64()
            });
            ours.push(p99.context("the report has no p99")?);
        }
        row("p99 at 2,000/s, µs", "hey", &theirs, &ours, 1.0 + P99_TARGET);
    }
    table.print();
    Ok(())
}

/// A run of `slabd stress` in progress.
struct Run {
    child: std::process::Child,
    file: std::path::PathBuf,
}

fn stress(words: &[&str]) -> Result<Run> {
    let file = std::env::temp_dir().join(format!("slabd-bench-stress-{}.json", std::process::id()));
    let _ = fs::remove_file(&file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_slabd"));
    command.arg("stress").args(words).arg("--quiet").arg("--json").arg(&file).stdout(Stdio::null());
    Ok(Run { child: command.spawn()?, file })
}

impl Run {
    /// Waits for the end of the run. Also returns readings of the server's memory during the run:
    /// seconds since its start, and bytes.
    fn finish_beside(mut self, server: &Server) -> Result<(Value, Vec<(f64, u64)>)> {
        let began = Instant::now();
        let mut readings = Vec::new();
        while self.child.try_wait()?.is_none() {
            readings.push((began.elapsed().as_secs_f64(), server.resident()?));
            sleep(Duration::from_millis(50));
        }
        Ok((self.finish()?, readings))
    }

    fn finish(mut self) -> Result<Value> {
        let status = self.child.wait()?;
        let record = serde_json::from_str(&fs::read_to_string(&self.file)?)?;
        fs::remove_file(&self.file)?;
        ensure!(status.success(), "slabd stress: {status}: {record}");
        Ok(record)
    }
}

fn hold(options: &Options) -> Result<()> {
    let connections = options.number("connections");
    println!(
        "\n## Memory of {connections} connections: by `slabd stress hold`, and from outside\n"
    );
    let mut table = Table::new(&[
        "server",
        "user bytes each",
        "from outside",
        "difference",
        "kernel bytes each",
        "at most",
        "",
    ]);
    let servers: [(&str, &str, &[&str], Option<Server>); 4] = [
        ("slabd", "resp", &[], Some(Server::slabd("hub", &[])?)),
        ("redis", "resp", &[], Server::redis()?),
        ("nginx", "http", &[], Server::nginx()?),
        ("memcached", "tcp", &["--send", "version\\r\\n"], Server::memcached()?),
    ];
    for (name, scheme, words, server) in servers {
        let Some(server) = server.filter(|_| options.includes(name)) else { continue };
        let target = format!("{scheme}://{}", server.address);
        let count = connections.to_string();
        let before = server.resident()?;
        let run = stress(
            &[&["hold", &target, "-c", &count, "-d", "8s", "--assert", "errors=0"], words].concat(),
        )?;
        let (record, readings) = run.finish_beside(&server)?;
        ensure!(
            record["connections"]["open_at_peak"].as_u64() == Some(connections),
            "some connections were not open: {record}"
        );
        // Takes the reading nearest in time to that of the program, because the memory of
        // redis-server changes for seconds after traffic.
        let at = record["server"]["peak_at_s"]
            .as_f64()
            .context("the report has no time of its reading")?;
        let nearest = readings
            .iter()
            .min_by(|one, other| (one.0 - at).abs().total_cmp(&(other.0 - at).abs()));
        let outside = (nearest.context("the run ended before a reading")?.1 as f64 - before as f64)
            / connections as f64;
        let said = record["server"]["user_bytes_per_connection"]
            .as_f64()
            .context("the report has no user memory")?;
        let kernel = record["server"]["kernel_bytes_per_connection"]
            .as_f64()
            .context("the report has no kernel memory")?;
        let difference = (said - outside).abs() / outside.abs().max(1.0);
        table.row(vec![
            server.name.clone(),
            format!("{said:.1}"),
            format!("{outside:.1}"),
            format!("{:.1} %", 100.0 * difference),
            format!("{kernel:.0}"),
            format!("{:.0} %", 100.0 * MEMORY_TARGET),
            if difference <= MEMORY_TARGET { "ok" } else { "SHORT" }.into(),
        ]);
    }
    table.print();
    Ok(())
}

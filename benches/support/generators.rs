//! Load generators that are programs: wrk and hey for HTTP, and `slabd stress`. Each is pinned to
//! the clients' core.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::server::on_client_core;

/// What wrk reports of a run.
pub struct Wrk {
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
}

/// Runs wrk in a closed loop for this many seconds.
pub fn wrk(server: SocketAddr, path: &str, connections: u64, seconds: u64) -> Result<Wrk> {
    let mut command = on_client_core("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    let text = output(command.arg(format!("http://{server}{path}")))?;
    let failed = text.contains("Non-2xx") || text.contains("Socket errors");
    ensure!(!failed, "wrk got errors:\n{text}");
    let lines = || text.lines().map(str::trim);
    let rate = lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let requests =
        lines().find_map(|line| line.split_once(" requests in ").map(|(count, _)| count));
    Ok(Wrk {
        requests: requests.context("wrk gives no count")?.parse()?,
        rate: rate.context("wrk gives no rate")?.trim().parse().context("wrk gives no number")?,
    })
}

/// Runs hey at a rate of all connections together. Returns the 99th percentile in microseconds, to
/// 100 us, and the rate that it reached.
pub fn hey(server: SocketAddr, connections: u64, rate: u64, seconds: u64) -> Result<(f64, f64)> {
    let mut command = on_client_core("hey");
    let each = rate / connections;
    command.args(["-c", &connections.to_string(), "-q", &each.to_string()]);
    let text = output(command.args(["-z", &format!("{seconds}s"), &format!("http://{server}/")]))?;
    ensure!(!text.contains("Error distribution"), "hey got errors:\n{text}");
    let after = |begin: &str, end: &str| -> Result<f64> {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(begin));
        let found = found.with_context(|| format!("hey gives no {begin}\n{text}"))?;
        found.trim().trim_end_matches(end).trim().parse().context("hey gives no number")
    };
    Ok((after("99% in", "secs")? * 1e6, after("Requests/sec:", "")?))
}

/// Runs `slabd stress churn` for this many connections, each of which must get its answer. Returns
/// their number.
pub fn stress_churn(target: &str, at_once: usize, connections: u64) -> Result<u64> {
    let mut command = on_client_core(env!("CARGO_BIN_EXE_slabd"));
    command.args(["stress", "churn", target, "--quiet", "--assert", "errors=0"]);
    command.args(["-c", &at_once.to_string(), "-n", &connections.to_string(), "-d", "100s"]);
    let answered = format!("answered={connections}");
    output(command.args(["--assert", &answered, "--assert", "failed=0"]))?;
    Ok(connections)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Measures the cost of a datagram: the server's processor time for UDP echo of 64 bytes with 64 in
//! flight, beside a minimal C loop over recvmmsg and sendmmsg (benches/floor/udp.c).
//!
//!     cargo bench --bench udp_cpu
//!     cargo bench --bench udp_cpu -- --rounds 15 --datagrams 500000
//!
//! How to read it: the servers take turns, and the ratio is the median over all rounds. Each
//! datagram carries a number, and the client checks it when it comes back. "lost" must be 0. "per
//! sleep" is the mean number of datagrams that the server handles before it runs out of work. Its
//! batches cannot be larger than that for long, and larger batches cost less per datagram.

#![forbid(unsafe_code)]

mod support;

use anyhow::{Result, ensure};
use support::load::{DATAGRAM, DatagramLoop};
use support::server::{Cpu, Server};
use support::{Options, Table, median, range};

const IN_FLIGHT: usize = 64;

fn main() -> Result<()> {
    let Some(options) = Options::read(&[], &[("rounds", 9), ("datagrams", 400_000)])? else {
        return Ok(());
    };
    support::prepare()?;
    let datagrams = options.number("datagrams");
    println!("## UDP echo of {DATAGRAM} bytes, {IN_FLIGHT} in flight: server CPU per datagram\n");
    let mut servers = vec![Server::floor_udp()?];
    if options.includes("slabd") {
        servers.push(Server::slabd("echo", &["--datagram-rate", "0"])?);
    }
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(DatagramLoop::new(server.address)?);
    }
    let mut rounds = vec![Vec::new(); servers.len()];
    let mut lost = vec![0; servers.len()];
    // The first round counts only for its lost datagrams.
    for round in 0..=options.number("rounds") {
        for (index, server) in servers.iter().enumerate() {
            let before = server.cpu()?;
            let delivery = clients[index].run(datagrams, IN_FLIGHT)?;
            lost[index] += delivery.lost;
            ensure!(delivery.received > 0, "{}: no datagram came back", server.name);
            if round > 0 {
                rounds[index].push((server.cpu()?.since(before), delivery.received as f64));
            }
        }
    }
    let mut table = Table::new(&[
        "server",
        "µs/datagram",
        "user",
        "system",
        "÷ floor",
        "all rounds",
        "per sleep",
        "lost",
    ]);
    let costs: Vec<Vec<f64>> = rounds
        .iter()
        .map(|rounds| {
            rounds.iter().map(|(cpu, received)| cpu.nanos as f64 / 1e3 / received).collect()
        })
        .collect();
    for (index, server) in servers.iter().enumerate() {
        let ratios: Vec<f64> =
            costs[index].iter().zip(&costs[0]).map(|(own, floor)| own / floor).collect();
        let total = rounds[index].iter().fold(Cpu::default(), |sum, (cpu, _)| sum.plus(*cpu));
        let received: f64 = rounds[index].iter().map(|(_, received)| received).sum();
        let mean = total.nanos as f64 / 1e3 / received;
        table.row(vec![
            server.name.clone(),
            format!("{:.3}", median(&costs[index])),
            format!("{:.3}", mean * total.user_share()),
            format!("{:.3}", mean * (1.0 - total.user_share())),
            format!("{:.3}", median(&ratios)),
            range(&ratios),
            format!("{:.0}", received / total.sleeps.max(1) as f64),
            format!("{}", lost[index]),
        ]);
    }
    table.print();
    Ok(())
}

//! Measures the cost of a message: the server's processor time for TCP echo of 6 bytes, beside a
//! minimal C epoll loop (benches/floor/echo.c) and redis-server's PING.
//!
//!     cargo bench --bench echo_cpu                                  everything, some minutes
//!     cargo bench --bench echo_cpu -- echo --rounds 15              one section
//!     cargo bench --bench echo_cpu -- --skip redis                  without redis
//!
//! Sections:
//! - `echo`: 50 clients in a closed loop. Each sends when it has its reply.
//! - `idle`: the same, with and without 15,000 idle connections, on two processes of each server.
//! - `churn`: accept, one echo, close, for 50 connections at a time. The client closes first.
//! - `bulk`: 200 MB in pieces of 64 KiB over one connection, as fast as they come back, in
//!   megabytes per second. slabd has its default settings here.
//!
//! The C loop is level-triggered, as a minimal program is. A second row shows it edge-triggered, as
//! slabd and mio are. The machine and the load decide which of the two costs less. Compare slabd
//! with the lower one.
//!
//! How to read it: the servers take turns, one round each (A B C A B C …), and each round gives one
//! ratio between neighbours in time. The tables show the medians of these ratios. Compare ratios,
//! not microseconds, which differ between machines and hours. benches/hub_cpu.rs explains the
//! columns.

#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use support::load::{self, ClosedLoop, ECHO, Exchange, Held, NOTHING, REDIS_PING};
use support::rounds::{Contender, alternate, report};
use support::server::Server;
use support::{Options, Table, median, range};

const CLIENTS: usize = 50;

fn main() -> Result<()> {
    let numbers = [("rounds", 9), ("messages", 200_000), ("connections", 20_000), ("idle", 15_000)];
    let Some(options) = Options::read(&["echo", "idle", "churn", "bulk"], &numbers)? else {
        return Ok(());
    };
    support::prepare()?;
    if options.wants("echo") {
        echo(&options)?;
    }
    if options.wants("idle") {
        idle(&options)?;
    }
    if options.wants("churn") {
        churn(&options)?;
    }
    if options.wants("bulk") {
        bulk(&options)?;
    }
    Ok(())
}

fn closed_loop<'a>(
    label: &str,
    server: &'a Server,
    exchange: Exchange,
    messages: u64,
) -> Result<Contender<'a>> {
    let mut clients = ClosedLoop::connect(server.address, CLIENTS, exchange)?;
    Ok(Contender::new(label, server, move || clients.run(messages)))
}

fn echo(options: &Options) -> Result<()> {
    let messages = options.number("messages");
    println!("## TCP echo of 6 bytes, {CLIENTS} clients: server CPU per message\n");
    let (floor, edge) = (Server::floor_echo()?, Server::floor_echo_edge()?);
    let slabd = options.includes("slabd").then(|| Server::slabd("echo", &[])).transpose()?;
    let redis = if options.includes("redis") { Server::redis()? } else { None };
    let mut contenders = vec![
        closed_loop("C floor", &floor, ECHO, messages)?,
        closed_loop("C floor, edge", &edge, ECHO, messages)?,
    ];
    if let Some(slabd) = &slabd {
        contenders.push(closed_loop("slabd", slabd, ECHO, messages)?);
    }
    if let Some(redis) = &redis {
        contenders.push(closed_loop("redis PING", redis, REDIS_PING, messages)?);
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "msg", None);
    Ok(())
}

/// Measures one server after the other, because the idle connections of both need more files than
/// one process may open.
fn idle(options: &Options) -> Result<()> {
    let (messages, count) = (options.number("messages"), options.number("idle") as usize);
    println!("## The same beside {count} idle connections\n");
    let compare = |name: &str, start: &dyn Fn() -> Result<Server>| -> Result<()> {
        if !options.includes(name) {
            return Ok(());
        }
        let (alone, crowded) = (start()?, start()?);
        let _held = Held::open(&crowded, count, &NOTHING)?;
        let mut contenders = [
            closed_loop(&format!("{name} alone"), &alone, ECHO, messages)?,
            closed_loop(&format!("{name} + {count}"), &crowded, ECHO, messages)?,
        ];
        alternate(&mut contenders, options.number("rounds"))?;
        report(&contenders, "msg", None);
        Ok(())
    };
    compare("C floor", &Server::floor_echo)?;
    compare("slabd", &|| Server::slabd("echo", &[]))
}

fn churn(options: &Options) -> Result<()> {
    let connections = options.number("connections");
    println!("## Accept, one echo, close; {CLIENTS} at a time: server CPU per connection\n");
    let floor = Server::floor_echo()?;
    let slabd = options.includes("slabd").then(|| Server::slabd("echo", &[])).transpose()?;
    let edge = Server::floor_echo_edge()?;
    let mut contenders = Vec::new();
    for (label, server) in
        [("C floor", Some(&floor)), ("C floor, edge", Some(&edge)), ("slabd", slabd.as_ref())]
    {
        let Some(server) = server else { continue };
        let files = server.open_files()?;
        contenders.push(Contender::new(label, server, move || {
            load::churn(server.address, CLIENTS, connections, ECHO)?;
            // The server closes the last connections a moment later, which is part of the cost.
            server.until_open_files(|open| open <= files)?;
            Ok(connections)
        }));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "conn", None);
    Ok(())
}

/// Minimum ratio of slabd's megabytes per second to those of the C loop.
const BULK_TARGET: f64 = 0.95;
const PIECE: usize = 64 * 1024;
const PIECES: usize = 200_000_000 / PIECE;

fn bulk(options: &Options) -> Result<()> {
    println!("## Echo of 200 MB in pieces of 64 KiB over one connection, MB/s\n");
    let (floor, slabd) =
        (Server::floor_echo_waiting()?, Server::slabd_with_deadlines("echo", &[])?);
    let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.number("rounds") {
        let (their, our) = (echo_bulk(floor.address)?, echo_bulk(slabd.address)?);
        theirs.push(their);
        ours.push(our);
        ratios.push(our / their);
    }
    let mut table = Table::new(&["C floor, waiting", "slabd", "ratio", "all rounds", "target"]);
    let numbers = [&theirs, &ours].map(|rates| format!("{:.0}", median(rates)));
    let [theirs, ours] = numbers;
    table.row(vec![
        theirs,
        ours,
        format!("{:.3}", median(&ratios)),
        range(&ratios),
        format!("≥ {BULK_TARGET}"),
    ]);
    table.print();
    Ok(())
}

/// Sends in one thread, and receives and checks in another. Returns the megabytes per second.
fn echo_bulk(server: SocketAddr) -> Result<f64> {
    let mut receiver = TcpStream::connect(server)?;
    let mut sender = receiver.try_clone()?;
    let piece: Vec<u8> = (0..PIECE).map(|index| ((index * index) >> 7) as u8).collect();
    let began = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(|| (0..PIECES).try_for_each(|_| sender.write_all(&piece)));
        let mut received = vec![0; PIECE];
        for _ in 0..PIECES {
            receiver.read_exact(&mut received)?;
            ensure!(received == piece, "a wrong echo");
        }
        sending.join().map_err(|_| anyhow!("the sender's thread failed"))?.context("sending")
    })?;
    Ok((PIECES * PIECE) as f64 / 1e6 / began.elapsed().as_secs_f64())
}

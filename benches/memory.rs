//! What a connection costs in memory: growth of the server's resident memory with 15,000 connections, just
//! accepted, and after each has exchanged 3 messages. slabd beside a C loop that keeps nothing, memcached, nginx and
//! Redis.
//!
//!     cargo bench --bench memory
//!     cargo bench --bench memory -- slabd floor --connections 5000
//!
//! How to read it: "fresh" and "after 3 messages" are bytes of user memory per connection: what the process grew
//! by since before the connections came, divided by their number. Before that, one connection did the same traffic
//! and was closed, so what is allocated once is not counted; nginx sets its connection table aside at the start
//! (worker_connections 19,900), which therefore shows in "before" alone. All servers get 3 s to tidy up before
//! each reading. The clients come from a hundred addresses, 127.0.0.2 and up.
//!
//! "kernel" is the growth of the kernel's slab memory per connection. Both ends of every connection are on this
//! machine, so it is for two sockets; halve it for a server alone. The second table divides it by cache (needs root);
//! the kernel keeps objects of one size together, so a name there may stand for others too.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use support::load::{Held, Talk};
use support::server::Server;
use support::{Options, Table};

const MESSAGES: usize = 3;
/// Longer than slabd waits before it gives memory back (1 s), and than Redis lets an idle client keep its buffers
/// (2 s).
const SETTLE: Duration = Duration::from_secs(3);

const ECHO: Talk = Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"PING\r\n", reply_ends: b"" };
const HELLO: Talk =
    Talk { greeting: b"Hello\r\n", request: b"you\r\n", reply_starts: b"Hello, you!\r\n", reply_ends: b"" };
const REDIS: Talk = Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };
const MEMCACHED: Talk = Talk { greeting: b"", request: b"version\r\n", reply_starts: b"VERSION ", reply_ends: b"\r\n" };
const HTTP: Talk = Talk {
    greeting: b"",
    request: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    reply_starts: b"HTTP/1.1 200 OK\r\n",
    reply_ends: b"\r\n\r\nhello\n",
};

/// Starts a server, if it is installed.
type Start = fn() -> Result<Option<Server>>;

fn main() -> Result<()> {
    let sections = ["slabd", "floor", "memcached", "nginx", "redis"];
    let Some(options) = Options::read(&sections, &[("connections", 15_000)])? else { return Ok(()) };
    support::prepare()?;
    let connections = options.number("connections") as usize;
    let wants = |section: &str| options.wants(section) && options.includes(section);
    println!("## Memory per connection, {connections} connections, {MESSAGES} messages each\n");
    let rows: [(&str, Start, &Talk); 7] = [
        ("slabd", || Server::slabd("echo", &[]).map(Some), &ECHO),
        ("slabd", || Server::slabd("hello", &[]).map(Some), &HELLO),
        ("slabd", || Server::slabd("echo", &["--buffers", "fixed:4096"]).map(Some), &ECHO),
        ("floor", || Server::floor_echo().map(Some), &ECHO),
        ("memcached", Server::memcached, &MEMCACHED),
        ("nginx", Server::nginx, &HTTP),
        ("redis", Server::redis, &REDIS),
    ];
    let mut measured = Vec::new();
    let mut failed = 0;
    for (section, start, talk) in rows {
        if !wants(section) {
            continue;
        }
        match start().and_then(|server| server.map(|server| measure(server, talk, connections)).transpose()) {
            Ok(row) => measured.extend(row),
            // The others are still worth their row.
            Err(error) => {
                println!("FAILED {section}: {error:#}\n");
                failed += 1;
            }
        }
    }
    report(&measured, connections);
    ensure!(failed == 0, "{failed} servers could not be measured");
    Ok(())
}

struct Measured {
    name: String,
    before: Reading,
    fresh: Reading,
    after: Reading,
}

struct Reading {
    resident: u64,
    kernel: Kernel,
}

fn measure(server: Server, talk: &Talk, connections: usize) -> Result<Measured> {
    let files = server.open_files()?;
    let warm_up = Held::open(&server, 1, talk)?;
    warm_up.talk(talk, MESSAGES)?;
    drop(warm_up);
    server.until_open_files(|open| open <= files)?;
    let before = read(&server)?;
    let held = Held::open(&server, connections, talk)?;
    let fresh = read(&server)?;
    held.talk(talk, MESSAGES)?;
    let after = read(&server)?;
    let name = server.name.clone();
    // The server first: it closes its end at once, and no client's port has to wait.
    drop(server);
    drop(held);
    Ok(Measured { name, before, fresh, after })
}

fn read(server: &Server) -> Result<Reading> {
    sleep(SETTLE);
    Ok(Reading { resident: server.resident()?, kernel: Kernel::read()? })
}

fn report(measured: &[Measured], connections: usize) {
    let header = ["server", "connections", "before, MiB", "after, MiB", "fresh, B", "after 3 messages, B", "kernel, B"];
    let mut table = Table::new(&header);
    let per_connection = |from: u64, to: u64| format!("{:.0}", (to as f64 - from as f64) / connections as f64);
    let mebibytes = |bytes: u64| format!("{:.2}", bytes as f64 / f64::from(1 << 20));
    for Measured { name, before, fresh, after } in measured {
        table.row(vec![
            name.clone(),
            connections.to_string(),
            mebibytes(before.resident),
            mebibytes(after.resident),
            per_connection(before.resident, fresh.resident),
            per_connection(before.resident, after.resident),
            per_connection(before.kernel.slab, after.kernel.slab),
        ]);
    }
    table.print();
    let Some(one) = measured.iter().find(|measured| measured.name.contains("floor")).or(measured.first()) else {
        return;
    };
    if one.after.kernel.caches.is_empty() {
        println!("The kernel's memory by cache: not shown, /proc/slabinfo is for root.\n");
        return;
    }
    println!("The kernel's memory per connection by cache, both ends, while {} was measured:\n", one.name);
    let mut table = Table::new(&["cache", "B per connection", "objects per connection"]);
    for (cache, after) in &one.after.kernel.caches {
        let before = one.before.kernel.caches.get(cache).copied().unwrap_or_default();
        let objects = (after.objects as f64 - before.objects as f64) / connections as f64;
        if objects >= 0.1 {
            let bytes = per_connection(before.bytes, after.bytes);
            table.row(vec![cache.clone(), bytes, format!("{objects:.2}")]);
        }
    }
    table.print();
}

/// Slab memory of the whole machine.
struct Kernel {
    /// In bytes, from /proc/meminfo.
    slab: u64,
    /// By cache, from /proc/slabinfo; empty when that may not be read.
    caches: BTreeMap<String, Cache>,
}

#[derive(Clone, Copy, Default)]
struct Cache {
    objects: u64,
    /// Whole pages, as the kernel takes them.
    bytes: u64,
}

impl Kernel {
    fn read() -> Result<Kernel> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let slab = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")).context("Slab in /proc/meminfo")?;
        let slab = slab.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024;
        let mut caches = BTreeMap::new();
        // Two lines of heading, then: name active_objs num_objs objsize objperslab pagesperslab : … slabdata
        // active_slabs num_slabs sharedavail. slabinfo(5).
        for line in fs::read_to_string("/proc/slabinfo").unwrap_or_default().lines().skip(2) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            let bytes = number(14) * number(5) * slabd::sys::page_size();
            caches.insert(fields[0].to_string(), Cache { objects: number(2), bytes });
        }
        Ok(Kernel { slab, caches })
    }
}

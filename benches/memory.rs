//! Measures the memory of a connection: the growth of the server's resident memory with 15,000
//! connections, when they are just accepted and after each has exchanged 3 messages. Compares slabd
//! with a C loop that keeps nothing, memcached, nginx and Redis.
//!
//!     cargo bench --bench memory
//!     cargo bench --bench memory -- slabd floor --connections 5000
//!
//! How to read it: "fresh" and "after 3 messages" are bytes of user memory per connection, which is
//! the growth of the process divided by the number of connections. Before the first reading, one
//! connection does the same traffic and is closed, so memory that is allocated only once does not
//! count. nginx allocates its connection table at the start (worker_connections 19,900), so the
//! table shows only in "before". Each server gets 3 s to free memory before a reading. The clients
//! come from a hundred addresses, 127.0.0.2 and up.
//!
//! "kernel" is the growth of the kernel's tables per connection: sockets, files, inodes, names and
//! epoll entries, from /proc/slabinfo (needs root). Both ends of each connection are on this
//! machine, so the figure covers two sockets but only one epoll entry. Halve it for a server alone.
//! It does not include data queued in a socket, and here no data is queued. The second table
//! divides it by cache. The figures cover the whole machine, so other programs that open sockets
//! disturb them.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use support::load::{Held, Talk};
use support::server::Server;
use support::{Options, Table};

const MESSAGES: usize = 3;
/// Wait before a reading. slabd returns memory after 1 s, and Redis frees an idle client's buffers
/// after 2 s.
const SETTLE: Duration = Duration::from_secs(3);

const ECHO: Talk =
    Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"PING\r\n", reply_ends: b"" };
const HELLO: Talk = Talk {
    greeting: b"Hello\r\n",
    request: b"you\r\n",
    reply_starts: b"Hello, you!\r\n",
    reply_ends: b"",
};
const REDIS: Talk =
    Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"" };
const MEMCACHED: Talk =
    Talk { greeting: b"", request: b"version\r\n", reply_starts: b"VERSION ", reply_ends: b"\r\n" };
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
    let Some(options) = Options::read(&sections, &[("connections", 15_000)])? else {
        return Ok(());
    };
    support::prepare()?;
    let connections = options.number("connections") as usize;
    let wants = |section: &str| options.wants(section) && options.includes(section);
    until_quiet()?;
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
        match start()
            .and_then(|server| server.map(|server| measure(server, talk, connections)).transpose())
        {
            Ok(row) => measured.extend(row),
            // The benchmark goes on with the other servers.
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
    held.reset()?;
    Ok(Measured { name, before, fresh, after })
}

fn read(server: &Server) -> Result<Reading> {
    sleep(SETTLE);
    Ok(Reading { resident: server.resident()?, kernel: Kernel::read() })
}

/// Waits until earlier connections have left TIME-WAIT, because they share the kernel's caches with
/// the measured ones.
fn until_quiet() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(75);
    loop {
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let after = sockstat.split_once(" tw ").context("tw in /proc/net/sockstat")?.1;
        let waiting: u64 = after.split(' ').next().unwrap_or_default().parse()?;
        if waiting < 500 {
            return Ok(());
        }
        if Instant::now() > deadline {
            println!(
                "NOT QUIET: {waiting} earlier connections are in TIME-WAIT; the kernel figures \
                 are unreliable.\n"
            );
            return Ok(());
        }
        eprintln!("waiting for {waiting} earlier connections in TIME-WAIT");
        sleep(Duration::from_secs(5));
    }
}

fn report(measured: &[Measured], connections: usize) {
    let header = [
        "server",
        "connections",
        "before, MiB",
        "after, MiB",
        "fresh, B",
        "after 3 messages, B",
        "kernel, B",
    ];
    let mut table = Table::new(&header);
    let per_connection = |bytes: i64| format!("{:.0}", bytes as f64 / connections as f64);
    let mebibytes = |bytes: u64| format!("{:.2}", bytes as f64 / f64::from(1 << 20));
    for Measured { name, before, fresh, after } in measured {
        let kernel = after.kernel.since(&before.kernel);
        table.row(vec![
            name.clone(),
            connections.to_string(),
            mebibytes(before.resident),
            mebibytes(after.resident),
            per_connection(fresh.resident as i64 - before.resident as i64),
            per_connection(after.resident as i64 - before.resident as i64),
            if kernel.is_empty() {
                "root only".into()
            } else {
                per_connection(kernel.values().map(|cache| cache.bytes).sum())
            },
        ]);
    }
    table.print();
    let Some(one) =
        measured.iter().find(|measured| measured.name.contains("floor")).or(measured.first())
    else {
        return;
    };
    println!("Kernel memory by cache, both ends, during the run of {}:\n", one.name);
    let mut table = Table::new(&["cache", "B per connection", "objects per connection"]);
    for (cache, growth) in one.after.kernel.since(&one.before.kernel) {
        let objects = growth.objects as f64 / connections as f64;
        table.row(vec![cache.into(), per_connection(growth.bytes), format!("{objects:.2}")]);
    }
    table.print();
}

/// The kernel's caches of a connection: the socket, its inode and name, the file, and the epoll
/// entry.
const CACHES: [&str; 5] = ["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi"];
/// A reader of /proc creates one of these, and a dentry, for each file that it sees.
const PROC_INODES: &str = "proc_inode_cache";

/// The kernel's object caches of the whole machine. Empty if slabinfo cannot be read.
struct Kernel {
    caches: BTreeMap<String, Cache>,
}

#[derive(Clone, Copy, Default)]
struct Cache {
    objects: i64,
    object_bytes: i64,
    /// Size in whole pages, in bytes.
    bytes: i64,
}

impl Kernel {
    fn read() -> Kernel {
        let mut caches = BTreeMap::new();
        // After two heading lines, each line has: name active_objs num_objs objsize objperslab
        // pagesperslab : … slabdata active_slabs num_slabs sharedavail (slabinfo(5)).
        for line in fs::read_to_string("/proc/slabinfo").unwrap_or_default().lines().skip(2) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| {
                fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0)
            };
            let bytes = number(14) * number(5) * slabd::sys::page_size() as i64;
            caches.insert(
                fields[0].to_string(),
                Cache { objects: number(2), object_bytes: number(3), bytes },
            );
        }
        Kernel { caches }
    }

    /// Returns the growth of the caches that connections use.
    fn since(&self, earlier: &Kernel) -> BTreeMap<&'static str, Cache> {
        let growth = |name: &str| {
            let (now, before) = (self.caches.get(name)?, earlier.caches.get(name)?);
            Some(Cache {
                objects: now.objects - before.objects,
                bytes: now.bytes - before.bytes,
                ..*now
            })
        };
        let mut grown: BTreeMap<_, _> =
            CACHES.iter().filter_map(|&name| Some((name, growth(name)?))).collect();
        if let (Some(dentries), Some(of_proc)) = (grown.get_mut("dentry"), growth(PROC_INODES)) {
            dentries.objects -= of_proc.objects;
            dentries.bytes -= of_proc.objects * dentries.object_bytes;
        }
        grown
    }
}

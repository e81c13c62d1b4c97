//! Measures the memory of a connection: the growth of the server's resident memory with 15,000
//! connections, when they are just open and after each has exchanged or received 3 messages.
//! Compares slabd with a C loop that keeps nothing, memcached, nginx, Redis and uWebSockets.
//!
//!     cargo bench --bench memory
//!     cargo bench --bench memory -- hub uwebsockets --connections 5000
//!
//! Sections are the servers; `hub` is slabd's hub, and `slabd` its smaller services.
//!
//! How to read it: "fresh" and "after 3 messages" are bytes of user memory per connection, which is
//! the growth of the process divided by the number of connections. A WebSocket is fresh after its
//! upgrade, a subscriber after its subscription. A subscriber receives its messages from one
//! publisher. Before the first reading, a hundred connections do the same traffic and are closed.
//! So memory that is allocated only once does not count. nginx allocates its connection table at
//! the start (worker_connections 19,900), so the table shows only in "before". Each server gets 3 s
//! to free memory before a reading. The clients come from a hundred addresses, 127.0.0.2 and up.
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
use support::load::{Held, NOTHING, Publisher, Talk};
use support::server::{self, Server};
use support::{Options, Table, web};

const MESSAGES: usize = 3;
/// Wait before a reading. slabd returns memory after 1 s, and Redis frees an idle client's buffers
/// after 2 s.
const SETTLE: Duration = Duration::from_secs(3);

const ECHO: Talk =
    Talk { greeting: b"", request: b"PING\r\n", reply_starts: b"PING\r\n", reply_ends: b"" };
const GREETING: Talk = Talk { greeting: b"Hello\r\n", ..NOTHING };
const HELLO: Talk = Talk { request: b"you\r\n", reply_starts: b"Hello, you!\r\n", ..NOTHING };
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
const SUBSCRIBE: Talk = Talk {
    request: b"SUBSCRIBE news\r\n",
    reply_starts: b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
    ..NOTHING
};
const PUBLISH: Talk =
    Talk { request: b"PUBLISH news hello\r\n", reply_starts: b":", reply_ends: b"\r\n", ..NOTHING };
const RESP_MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
const TEXT: &str = "hello";

/// The messages of a connection.
enum Messages {
    Exchanged(Talk),
    Received(Publisher),
}

/// A server, and what its connections do.
struct Course {
    section: &'static str,
    /// What is added to the server's name.
    what: &'static str,
    /// Starts the server, if it is installed.
    start: fn() -> Result<Option<Server>>,
    opening: Talk,
    messages: Messages,
}

impl Course {
    fn exchange(
        section: &'static str,
        start: fn() -> Result<Option<Server>>,
        opening: Talk,
        talk: Talk,
    ) -> Course {
        Course { section, what: "", start, opening, messages: Messages::Exchanged(talk) }
    }

    /// A client of slabd's hub, with messages that a RESP client publishes.
    fn hub(what: &'static str, opening: Talk, delivery: &[u8]) -> Course {
        let publisher =
            Publisher { opening: NOTHING, publish: PUBLISH, delivery: delivery.to_vec() };
        let messages = Messages::Received(publisher);
        Course { section: "hub", what, start: hub, opening, messages }
    }
}

fn hub() -> Result<Option<Server>> {
    Server::slabd_for_web().map(Some)
}

fn courses() -> Vec<Course> {
    let frame: &[u8] = web::from_server(TEXT.as_bytes()).leak();
    let frame_exchange =
        Talk { request: web::from_client(TEXT.as_bytes()).leak(), reply_starts: frame, ..NOTHING };
    let echo = |section, start| Course {
        what: ", WebSocket, echo",
        ..Course::exchange(section, start, web::TO_ECHO, frame_exchange)
    };
    let publisher =
        Publisher { opening: web::TO_NEWS, publish: frame_exchange, delivery: frame.to_vec() };
    vec![
        Course::exchange("slabd", || Server::slabd("echo", &[]).map(Some), NOTHING, ECHO),
        Course::exchange("slabd", || Server::slabd("hello", &[]).map(Some), GREETING, HELLO),
        Course::exchange(
            "slabd",
            || Server::slabd("echo", &["--buffers", "fixed:4096"]).map(Some),
            NOTHING,
            ECHO,
        ),
        Course { what: ", RESP, PING", ..Course::exchange("hub", hub, NOTHING, REDIS) },
        Course::hub(", RESP, subscribed", SUBSCRIBE, RESP_MESSAGE),
        echo("hub", hub),
        Course::hub(", WebSocket, subscribed", web::TO_NEWS, frame),
        Course::hub(", events", web::NEWS_EVENTS, &web::event(TEXT)),
        echo("uwebsockets", Server::uwebsockets),
        Course {
            section: "uwebsockets",
            what: ", WebSocket, subscribed",
            start: Server::uwebsockets,
            opening: web::TO_NEWS,
            messages: Messages::Received(publisher),
        },
        Course::exchange("floor", || Server::floor_echo().map(Some), NOTHING, ECHO),
        Course::exchange("memcached", Server::memcached, NOTHING, MEMCACHED),
        Course::exchange("nginx", Server::nginx, NOTHING, HTTP),
        Course::exchange("redis", Server::redis, NOTHING, REDIS),
    ]
}

fn main() -> Result<()> {
    let sections = ["slabd", "hub", "uwebsockets", "floor", "memcached", "nginx", "redis"];
    let Some(options) = Options::read(&sections, &[("connections", 15_000)])? else {
        return Ok(());
    };
    support::prepare()?;
    server::print_versions(&["node", "memcached", "nginx", "redis-server"])?;
    let connections = options.number("connections") as usize;
    let wants = |section: &str| options.wants(section) && options.includes(section);
    until_quiet()?;
    println!("## Memory per connection, {connections} connections, {MESSAGES} messages each\n");
    let mut measured = Vec::new();
    let mut failed = 0;
    for course in courses().iter().filter(|course| wants(course.section)) {
        let Course { section, what, .. } = course;
        let server = (course.start)();
        match server.and_then(|server| {
            server.map(|server| measure(server, course, connections)).transpose()
        }) {
            Ok(row) => measured.extend(row),
            // The benchmark goes on with the other servers.
            Err(error) => {
                println!("FAILED {section}{what}: {error:#}\n");
                failed += 1;
            }
        }
    }
    report(&measured, connections);
    ensure!(failed == 0, "{failed} courses could not be measured");
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

/// Number of connections that do the same before the first reading.
const WARM_UP: usize = 100;

fn measure(server: Server, course: &Course, connections: usize) -> Result<Measured> {
    let Course { what, opening, messages, .. } = course;
    let run = |held: &Held| match messages {
        Messages::Exchanged(talk) => held.talk(talk, MESSAGES),
        Messages::Received(publisher) => held.hear(&server, publisher, MESSAGES),
    };
    let files = server.open_files()?;
    let warm_up = Held::open(&server, WARM_UP.min(connections), opening)?;
    run(&warm_up)?;
    warm_up.reset()?;
    server.until_open_files(|open| open <= files)?;
    let before = read(&server)?;
    let held = Held::open(&server, connections, opening)?;
    let fresh = read(&server)?;
    run(&held)?;
    let after = read(&server)?;
    let name = format!("{}{what}", server.name);
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

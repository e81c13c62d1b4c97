//! Measures the effect of a silent flood on honest clients. The flood opens ten times as many
//! connections as a server has slots. It attacks slabd with each of its admission policies, and
//! redis-server, memcached and nginx with the same number of slots.
//!
//!     cargo bench --bench flood                                     everything, some minutes
//!     cargo bench --bench flood -- slabd nginx --settle 5           some servers, a shorter wait
//!     cargo bench --bench flood -- --rate 0                         the flood as fast as possible
//!     cargo bench --bench flood -- --slots 4000 --rate 3200
//!
//! The load: forty honest clients, each from a different address, connect, pause for 80 ms on
//! average, ask one question, get the answer, leave and try again. The flood opens `rate` silent
//! connections per second from a thousand addresses. It goes on for at least 5 s, until it has
//! opened ten times the number of slots. It holds at most 15,000 connections. A server that neither
//! accepts nor closes connections therefore keeps the flood below its rate.
//!
//! How to read it: "served" is the percentage of tries that got their answer within 3 s, before the
//! flood and during it. "During" begins when the flood has opened as many connections as there are
//! slots. A try that is refused, reset or cut off was not served. p50 and p99 are the waits of
//! served tries, without the pause. A server that serves few tries may serve those quickly.
//!
//! The decisive figure is the age at eviction: slots divided by rate, 1.25 s by default. A server
//! that recycles the oldest silent connection serves every client that sends sooner than that. With
//! `--rate 0`, this age is some tens of milliseconds, and the rates differ, because a slow accept
//! slows the flood down. A client that waits long in the accept queue may have sent its question
//! before it is accepted, so a longer p50 can go together with more served tries.
//!
//! "Own core" is the time per try, before and during the flood, that honest clients waited for
//! their own core. This part of their waits is not the server's.
//!
//! "User" is the server's growth per connection held at the peak. "Kernel" is one end of a
//! connection: its structures and the bytes queued in its socket (needs root and ss). The last
//! columns compare memory and open files, `settle` seconds after the flood, with those before it.
//!
//! The servers run on one core, and the flood and the honest clients share another one. The flood
//! has the lowest priority there, `--nice 19`. It sends as much as before, because honest clients
//! use little of that core, but its time slices do not delay them. With `--nice 0`, the scheduler
//! of the clients' core adds some milliseconds to their p99 with any server.

#![forbid(unsafe_code)]

mod support;

#[path = "../tests/support/flood.rs"]
mod flood;
#[path = "../tests/support/gauge.rs"]
mod gauge;
#[path = "../tests/support/honest.rs"]
mod honest;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flood::{Attack, Attacker, Outcome, Sources, Way};
use gauge::{Reading, Watch};
use honest::{Honest, PING, Probe, Question, Tally, milliseconds};
use support::server::Server;
use support::{Options, Table};

/// Number of connections of the flood, as a multiple of the slots.
const TIMES: u64 = 10;
/// Maximum number of connections that the flood holds: enough to fill a server and its accept
/// queue, and fewer than one process may open.
const HOLD: usize = 15_000;
const QUIET: Duration = Duration::from_secs(5);
const FLOOD_AT_LEAST: Duration = Duration::from_secs(5);

const VERSION: Question =
    Question { request: b"version\r\n", reply_starts: b"VERSION ", reply_ends: b"\r\n" };
const GET: Question = Question {
    request: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    reply_starts: b"HTTP/1.1 200 OK\r\n",
    reply_ends: b"\r\n\r\nhello\n",
};

fn main() -> Result<()> {
    let sections = ["slabd", "redis", "memcached", "nginx"];
    let numbers = [("slots", 2000), ("rate", 1600), ("settle", 60), ("nice", 19)];
    let Some(options) = Options::read(&sections, &numbers)? else { return Ok(()) };
    support::prepare()?;
    let (slots, rate) = (options.number("slots"), options.number("rate"));
    let pace = if rate == 0 { "as fast as possible".into() } else { format!("{rate}/s") };
    println!("## Silent flood of {} connections, {pace}, against {slots} slots\n", TIMES * slots);
    let mut measured = Vec::new();
    let mut failed = 0;
    for section in sections {
        if !(options.wants(section) && options.includes(section)) {
            continue;
        }
        for (server, question) in contenders(section, slots) {
            match server.and_then(|server| {
                server.map(|server| measure(&server, question, &options)).transpose()
            }) {
                Ok(row) => measured.extend(row),
                // The benchmark goes on with the other servers.
                Err(error) => {
                    println!("FAILED {section}: {error:#}\n");
                    failed += 1;
                }
            }
        }
    }
    report(&measured, options.number("settle"));
    ensure!(failed == 0, "{failed} servers could not be measured");
    Ok(())
}

/// Returns the servers of a section and the request of their clients. Each server starts when the
/// iterator reaches it.
fn contenders(
    section: &str,
    slots: u64,
) -> impl Iterator<Item = (Result<Option<Server>>, Question)> {
    let ways: &[&str] =
        if section == "slabd" { &["recycle", "refuse", "random-drop"] } else { &[""] };
    ways.iter().map(move |way| match section {
        "slabd" => {
            let arguments = ["--max-silent", &slots.to_string(), "--admission", way];
            (Server::slabd_with_deadlines("hub", &arguments).map(Some), PING)
        }
        "redis" => (Server::redis_for(slots), PING),
        "memcached" => (Server::memcached_for(slots), VERSION),
        _ => (Server::nginx_for(slots), GET),
    })
}

struct Measured {
    name: String,
    before: Tally,
    during: Tally,
    /// Time per try that the honest clients waited for their own core, before and during the flood.
    own: [Duration; 2],
    outcome: Outcome,
    quiet: Reading,
    peak: Reading,
    kernel: Option<u64>,
    settled: Reading,
}

fn measure(server: &Server, question: Question, options: &Options) -> Result<Measured> {
    let (process, name) = (server.process_id(), server.name.clone());
    let rate = u32::try_from(options.number("rate"))?;
    let honest = Honest { question, ..Honest::forty(server.address) };
    eprintln!("{name}: quiet for {QUIET:?}, then the flood");
    let probe = Probe::start(honest);
    sleep(QUIET);
    let own_before = gauge::core_wait(honest::THREAD);
    let before = probe.stop();
    // Gives the server time to close the last connections.
    sleep(Duration::from_millis(200));
    let quiet = Reading::of(process);
    let watch = Watch::start(process);
    let attacker = Attacker::start(Attack {
        server: server.address,
        way: Way::Silent,
        sources: Sources { first: Ipv4Addr::new(127, 66, 0, 1), count: 1000 },
        burst: 0,
        rate: (rate > 0).then_some(rate),
        hold: HOLD,
    });
    let slots = options.number("slots");
    let filled = attacker.wait_until(FLOOD_AT_LEAST, |counts| counts.opened >= slots);
    ensure!(filled, "{name}: the flood does not fill the slots: {:?}", attacker.counts());
    give_way(options.number("nice"))?;
    let probe = Probe::start(honest);
    let enough = TIMES * slots;
    let planned = enough.checked_div(u64::from(rate)).map_or(Duration::ZERO, Duration::from_secs);
    let (began, least, most) =
        (Instant::now(), FLOOD_AT_LEAST, FLOOD_AT_LEAST + planned.mul_f64(1.25));
    while began.elapsed() < least || (attacker.counts().opened < enough && began.elapsed() < most) {
        sleep(Duration::from_millis(10));
    }
    let kernel = gauge::kernel_bytes_each(server.address.port());
    let own_during = gauge::core_wait(honest::THREAD);
    let during = probe.stop();
    let outcome = attacker.stop();
    let peak = watch.stop();
    sleep(Duration::from_secs(options.number("settle")));
    let settled = Reading::of(process);
    ensure!(settled.resident > 0, "{name} has not survived the flood");
    eprintln!("{name}: honest {during}; before: {before}; {:?}", outcome.counts);
    let own = [(own_before, &before), (own_during, &during)]
        .map(|(wait, tally)| wait / tally.tries().max(1) as u32);
    Ok(Measured { name, before, during, own, outcome, quiet, peak, kernel, settled })
}

/// Gives the honest clients priority on the core that they share with the flood. Otherwise the
/// flood's time slices would be part of their waits.
fn give_way(nice: u64) -> Result<()> {
    if nice == 0 {
        return Ok(());
    }
    let thread = gauge::thread_named(flood::THREAD).context("the flood has no thread")?;
    let mut command = Command::new("renice");
    command
        .args(["-n", &nice.to_string(), "-p"])
        .arg(thread.file_name().unwrap_or_default())
        .stdout(Stdio::null());
    let status = command
        .status()
        .context("cannot start renice; install it with apt-get install bsdutils")?;
    ensure!(status.success(), "renice of the flood failed: {status}");
    Ok(())
}

fn report(measured: &[Measured], settle: u64) {
    let (memory, files) = (format!("RSS after {settle} s, KiB"), format!("files after {settle} s"));
    let mut table = Table::new(&[
        "server",
        "tries",
        "served before, %",
        "served during, %",
        "p50, ms",
        "p99 before, ms",
        "p99 during, ms",
        "own core, µs",
        "flood, /s",
        "opened",
        "ended by server",
        "held at peak",
        "user, B",
        "kernel, B",
        &memory,
        &files,
    ]);
    for Measured { name, before, during, own, outcome, quiet, peak, kernel, settled } in measured {
        let bytes = |bytes: Option<u64>| bytes.map_or("–".into(), |bytes| bytes.to_string());
        let wait =
            |wait: Duration| if during.served > 0 { milliseconds(wait) } else { "–".into() };
        let growth = |now: u64, before: u64| now as i64 - before as i64;
        table.row(vec![
            name.clone(),
            during.tries().to_string(),
            format!("{:.2}", before.percent()),
            format!("{:.2}", during.percent()),
            wait(during.p50()),
            milliseconds(before.p99()),
            wait(during.p99()),
            format!("{} → {}", own[0].as_micros(), own[1].as_micros()),
            format!("{:.0}", outcome.opened_per_second()),
            outcome.counts.opened.to_string(),
            outcome.counts.closed.to_string(),
            peak.held_since(*quiet).to_string(),
            bytes(peak.user_bytes_each(*quiet)),
            bytes(*kernel),
            format!("{:+}", growth(settled.resident, quiet.resident) / 1024),
            format!("{:+}", growth(settled.files, quiet.files)),
        ]);
    }
    table.print();
}

//! What honest clients notice of a flood: silent connections, ten times as many as a server has slots, against slabd
//! with each of its ways to admit connections, and against redis-server, memcached and nginx with the same number of slots.
//!
//!     cargo bench --bench flood                                     everything, some minutes
//!     cargo bench --bench flood -- slabd nginx --settle 5           some servers; a shorter wait for what is left
//!     cargo bench --bench flood -- --rate 0                         the flood as fast as it can
//!     cargo bench --bench flood -- --slots 4000 --rate 3200
//!
//! How to read it: forty honest clients connect, each from its own address, think for 80 ms on average, ask one question,
//! get the answer, and leave; then the next try begins. "Served" is the percentage of tries that got their answer within
//! 3 s, before the flood and, from when it has opened as many as there are slots, during it; who is refused, reset or cut
//! off was not served. p50 and p99 are the waits of those that were, thinking not counted, so a server that serves few may
//! serve those quickly. The flood opens `rate` connections a second from a thousand addresses until there were ten times
//! as many as slots, at least for 5 s, and says nothing on them. It holds 15,000 at most; what a server neither accepts nor
//! ends keeps it below its rate.
//!
//! What governs is the eviction age: slots divided by rate, 1.25 s by default. Who recycles the oldest silent
//! connection serves everyone who speaks sooner than that. With `--rate 0` it is some tens of milliseconds, and the rates
//! differ: from a server that accepts slowly, the flood gets less. Who waits long in the accept queue may have
//! spoken when their turn comes, so there a longer p50 may go with more who are served.
//!
//! "Own core" is how long the honest waited for their own core for each try, before and during: what of their waits is not the server's.
//!
//! "User" is what the server grew by per connection that it held at the peak; "kernel" is one end of a connection: its
//! structures, and what waits in its socket (needs root and ss). The last columns compare memory and open files,
//! `settle` seconds after the flood, with before.
//! Servers have a core of their own; the flood and the honest share the other. There the flood has the lowest priority, `--nice 19`: it
//! sends as much as before, since the honest use little of that core, but they are not kept waiting by its time slices. With `--nice 0`
//! the scheduler of the clients' core shows in their p99: some milliseconds, whoever the server is.

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

/// The flood is so many times the slots.
const TIMES: u64 = 10;
/// More than it needs to fill a server and its accept queue, and less than one process may open.
const HOLD: usize = 15_000;
const QUIET: Duration = Duration::from_secs(5);
const FLOOD_AT_LEAST: Duration = Duration::from_secs(5);

const VERSION: Question = Question { request: b"version\r\n", reply_starts: b"VERSION ", reply_ends: b"\r\n" };
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
    let pace = if rate == 0 { "as fast as it can".into() } else { format!("{rate} a second") };
    println!("## Silent flood of {} connections, {pace}, against {slots} slots\n", TIMES * slots);
    let mut measured = Vec::new();
    let mut failed = 0;
    for section in sections {
        if !(options.wants(section) && options.includes(section)) {
            continue;
        }
        for (server, question) in contenders(section, slots) {
            match server.and_then(|server| server.map(|server| measure(&server, question, &options)).transpose()) {
                Ok(row) => measured.extend(row),
                // The others are still worth their row.
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

/// The servers of a section, each started when its turn comes, and what is asked of them.
fn contenders(section: &str, slots: u64) -> impl Iterator<Item = (Result<Option<Server>>, Question)> {
    let ways: &[&str] = if section == "slabd" { &["recycle", "refuse", "random-drop"] } else { &[""] };
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
    /// How long the honest had to wait for their own core, for each try, before and during.
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
    // Those who left last are gone from the server too.
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
    ensure!(filled, "{name}: the flood does not get going: {:?}", attacker.counts());
    give_way(options.number("nice"))?;
    let probe = Probe::start(honest);
    let enough = TIMES * slots;
    let planned = enough.checked_div(u64::from(rate)).map_or(Duration::ZERO, Duration::from_secs);
    let (began, least, most) = (Instant::now(), FLOOD_AT_LEAST, FLOOD_AT_LEAST + planned.mul_f64(1.25));
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
    ensure!(settled.resident > 0, "{name} has not survived it");
    eprintln!("{name}: honest {during}; before: {before}; {:?}", outcome.counts);
    let own = [(own_before, &before), (own_during, &during)].map(|(wait, tally)| wait / tally.tries().max(1) as u32);
    Ok(Measured { name, before, during, own, outcome, quiet, peak, kernel, settled })
}

/// Lets the honest clients, who share the flood's core, run before it. Else they would be measured with their own scheduler.
fn give_way(nice: u64) -> Result<()> {
    if nice == 0 {
        return Ok(());
    }
    let thread = gauge::thread_named(flood::THREAD).context("no thread of the flood")?;
    let mut command = Command::new("renice");
    command.args(["-n", &nice.to_string(), "-p"]).arg(thread.file_name().unwrap_or_default()).stdout(Stdio::null());
    let status = command.status().context("renice (apt-get install bsdutils)")?;
    ensure!(status.success(), "renice of the flood: {status}");
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
        let wait = |wait: Duration| if during.served > 0 { milliseconds(wait) } else { "–".into() };
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

//! Drills: floods of every kind against the program as people run it, with honest clients before, during and after.
//! Each prints one line of what it measured.
//!
//!     cargo test --test drill_flood -- --nocapture
//!
//! How to read a line: of all honest tries during the flood so many percent were served, and 99 of 100 of those waited
//! no longer than the p99 (thinking not counted). User bytes are what the server grew by at the peak, per connection that it
//! held more than before; the least it can grow by is a page, so of few connections they say little. Kernel bytes are of one end
//! of a connection: its structures, and what waits in its socket. "Back" is how long after the flood hung up all its files
//! were free. Then what the defences counted.
//!
//! No speed is asserted: the machine may be busy with something else. The steady p99, which is the median of the p99 of each
//! half second, may be twice the quiet one (before or after, whichever is longer), or 20 ms.

mod support;

#[path = "support/course.rs"]
mod course;
#[path = "support/datagram_flood.rs"]
mod datagram_flood;
#[path = "support/flood.rs"]
mod flood;
#[path = "support/gauge.rs"]
mod gauge;
#[path = "support/honest.rs"]
mod honest;
#[path = "support/syn_flood.rs"]
mod syn_flood;

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use course::{Course, Drill, SERVED, SLOTS, ask, judge, p99_holds};
use datagram_flood::Traffic;
use flood::{Attack, Attacker, Sources, Way};
use honest::{Honest, Probe, milliseconds};
use support::all_files;

/// How late after its deadline a connection may be seen to close here: a tick of the server (16 ms), and this machine's
/// other work.
const LATE: Duration = Duration::from_millis(500);

/// Lets the honest try a thousand times.
fn a_while(_: &Attacker) {
    sleep(Duration::from_millis(2700));
}

fn silent_flood(name: &'static str, admission: &str) -> Course {
    let slots = SLOTS.to_string();
    let drill = Drill::start(name, &["--max-silent", &slots, "--admission", admission]);
    drill.run(drill.attack(Way::Silent), a_while)
}

/// Ten times as many as there are slots come in one burst and stay silent; more come after them, so many that a silent
/// connection has more than a second.
#[test]
fn silent_flood_at_ten_times_the_slots() {
    let _all_files = all_files();
    let course = silent_flood("silent flood, recycle", "recycle");
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        (course.outcome.counts.opened >= 10 * SLOTS as u64, "the flood is ten times the slots"),
        (course.counted("recycled") > 0, "the oldest silent connections are recycled"),
        (course.counted("eviction_age_ms") >= 1000, "the eviction age is a second or more"),
        (course.peak.held_since(course.quiet) <= SLOTS as u64 + 100, "the silent keep to their slots"),
    ];
    course.judge("silent flood, recycle", &checks);
}

/// What others do. Only the direction is asserted: it locks the honest out.
#[test]
fn silent_flood_where_the_new_are_refused() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, refuse", "refuse");
}

#[test]
fn silent_flood_where_some_are_dropped_at_random() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, random-drop", "random-drop");
}

fn locks_the_honest_out(name: &'static str, admission: &str) {
    let course = silent_flood(name, admission);
    let worse = (course.during.percent() < 90.0, "much fewer of the honest are served than by recycling");
    course.judge(name, &[worse]);
}

/// Whatever dribbles in: the deadline of the first message stands.
#[test]
fn slowloris_from_the_first_byte() {
    let _all_files = all_files();
    slowloris("slowloris, first message", false);
}

/// And so does that of a later one.
#[test]
fn slowloris_after_a_whole_message() {
    let _all_files = all_files();
    slowloris("slowloris, later message", true);
}

fn slowloris(name: &'static str, greet: bool) {
    let deadline = Duration::from_secs(2);
    let drill = Drill::start(name, &["--first-message-timeout", "2s", "--message-timeout", "2s"]);
    let way = Way::Slowloris { every: Duration::from_millis(100), greet };
    let attack = Attack { burst: 1000, rate: Some(0), ..drill.attack(way) };
    let course = drill.run(attack, |attacker| {
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 1000 && counts.held == 0);
    });
    let lifetimes = &course.outcome.lifetimes;
    let shortest = lifetimes.iter().min().copied().unwrap_or_default();
    let longest = lifetimes.iter().max().copied().unwrap_or_default();
    let name = format!("{} ({} to {} ms)", drill.name, milliseconds(shortest), milliseconds(longest));
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        (lifetimes.len() == 1000, "all of them are closed"),
        (longest <= deadline + LATE, "closed by the deadline"),
        (shortest + LATE >= deadline, "not closed before the deadline"),
    ];
    course.judge(&name, &checks);
}

/// One address, however fast it comes, locks nobody out.
#[test]
fn one_source_against_the_rest() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill = Drill::start("one source", &["--max-silent", &slots, "--max-silent-per-source", "64"]);
    let sources = Sources::one(Ipv4Addr::new(127, 66, 0, 1));
    let course = drill.run(Attack { sources, rate: Some(2000), ..drill.attack(Way::Silent) }, a_while);
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        // Up to half of the slots anyone may have; from there on only the share of a source.
        (course.peak.held_since(course.quiet) <= SLOTS as u64 / 2 + 100, "it holds no more than half of the slots"),
        (course.acted() > 0, "what it had too many is counted"),
    ];
    course.judge(drill.name, &checks);
}

/// Who lets the deadline of a first message pass three times is refused for a while, whatever the rest may be doing.
#[test]
fn a_source_that_lets_deadlines_pass_is_refused() {
    let _all_files = all_files();
    let arguments = ["--first-message-timeout", "1s", "--penalty", "5s"];
    let drill = Drill::start("penalty", &arguments);
    let sources = Sources::one(Ipv4Addr::new(127, 66, 0, 1));
    let attack = Attack { sources, burst: 30, rate: Some(100), ..drill.attack(Way::Silent) };
    let course = drill.run(attack, a_while);
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        (course.counted("refused_penalty") > 0, "it is refused for its penalty"),
        (course.counted("sources_penalised") == 1, "and nobody else is"),
    ];
    course.judge(drill.name, &checks);
}

/// The server stands still for two seconds while 6,000 clients connect and ask. Whoever finds the accept queue full is told
/// nothing by the kernel and tries again by itself.
#[test]
fn accept_burst_after_a_stop() {
    let _all_files = all_files();
    let drill = Drill::start("accept burst after a stop", &[]);
    let before = drill.honest.run_for(Duration::from_millis(1200));
    let overflows = gauge::network_counter("ListenOverflows");
    drill.server.signal("STOP");
    let crowd = Honest {
        sources: Sources { first: Ipv4Addr::new(127, 78, 0, 1), count: 300 },
        at_once: 6000,
        tries: 6000,
        think: Duration::ZERO,
        patience: Duration::from_secs(8),
        ..drill.honest
    };
    let crowd = Probe::start(crowd);
    sleep(Duration::from_secs(2));
    drill.server.signal("CONT");
    let during = crowd.join();
    let overflows = gauge::network_counter("ListenOverflows") - overflows;
    let after = drill.honest.run_for(Duration::from_millis(700));
    let line = format!(
        "drill {}: 6,000 at once: {during}, longest {} ms; {overflows} overflows of the accept queue; before: {before}; after: {after}",
        drill.name,
        milliseconds(during.wait(1.0)),
    );
    let unserved = during.tries() - during.served;
    let checks = [
        (during.tries() == 6000, "all have tried"),
        (unserved <= overflows, "all are served, or counted as overflows"),
        (during.percent() >= SERVED, "in the end nearly all are served"),
        (after.percent() >= SERVED, "the honest are served after it"),
    ];
    judge(&line, &checks);
}

/// Twenty-five thousand connections come and go, half of them in order, half by a reset.
#[test]
fn connection_churn() {
    let _all_files = all_files();
    let drill = Drill::start("connection churn", &[]);
    let attack = Attack { burst: 5000, rate: Some(0), hold: 1000, ..drill.attack(Way::Churn) };
    // The first round touches what the later ones use again.
    drop(drill.run(attack, |attacker| {
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 5000);
    }));
    let first = gauge::resident(drill.server.process_id());
    let course = drill.run(Attack { burst: 20_000, ..attack }, a_while);
    let last = gauge::resident(drill.server.process_id());
    let name = format!("{} (resident {} KiB after 5,000, {} KiB after 25,000)", drill.name, first / 1024, last / 1024);
    let checks = [
        course.honest_are_served(),
        (course.outcome.counts.established == 20_000, "all of them got in"),
        (last as f64 <= 1.25 * first as f64, "memory is back where it was"),
    ];
    course.judge(&name, &checks);
}

/// A defence can be watched before it is let loose.
#[test]
fn dry_run_counts_and_closes_nothing() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill = Drill::start("dry run", &["--max-silent", &slots, "--admission-dry-run"]);
    let attack = Attack { burst: 2000, rate: Some(0), ..drill.attack(Way::Silent) };
    let course = drill.run(attack, |_| sleep(Duration::from_secs(1)));
    let checks = [
        course.honest_are_served(),
        (course.outcome.counts.held == 2000 && course.outcome.counts.closed == 0, "nothing is closed"),
        (course.acted() >= 2000 - SLOTS as u64, "what would have been closed is counted"),
    ];
    course.judge(drill.name, &checks);
}

/// Every slot is held by someone who has spoken, so there is nobody to recycle. The operator has a door of their own.
#[test]
fn the_operator_gets_in_when_all_is_full() {
    let _all_files = all_files();
    let drill = Drill::start("operator", &["--max-connections", "300"]);
    let operators = Honest { server: drill.admin, at_once: 4, ..drill.honest };
    let before = operators.run_for(Duration::from_secs(1));
    let attacker = Attacker::start(Attack { burst: 1000, rate: Some(0), ..drill.attack(Way::Idle) });
    assert!(attacker.wait_until(support::PATIENCE, |counts| counts.established == 1000), "{:?}", attacker.counts());
    let outside = Honest { patience: Duration::from_millis(500), ..drill.honest };
    let outside = Probe::start(outside);
    let during = operators.run_for(Duration::from_secs(2));
    let info = ask(drill.admin, "INFO");
    let outside = outside.stop();
    attacker.stop();
    let after = operators.run_for(Duration::from_millis(700));
    let line = format!("drill {}: by the front door {outside}; operators {during}; before: {before}", drill.name);
    let checks = [
        (during.percent() >= 100.0, "every operator is served"),
        p99_holds([&before, &after], &during),
        (info.contains("max_connections:300"), "INFO answers"),
        (outside.percent() < 50.0, "the house is full"),
    ];
    judge(&line, &checks);
}

/// Nobody gets more bytes out of the hub than they put in, so it is of no use against a third. That is checked of twenty
/// thousand datagrams one by one; then a million come in four seconds, and beside them the honest are served.
#[test]
fn datagram_flood_beside_honest_clients() {
    let _all_files = all_files();
    let drill = Drill::start("datagram flood", &[]);
    let address = drill.address;
    let each = datagram_flood::one_by_one(address, 32, 20_000);
    let before = drill.honest.run_for(Duration::from_millis(1200));
    let probe = Probe::start(drill.honest);
    let began = Instant::now();
    let threads =
        [0, 8].map(|network| std::thread::spawn(move || datagram_flood::flood(address, network, 500_000, 125_000)));
    let parts = threads.map(|thread| thread.join().expect("sending does not fail"));
    let lasted = began.elapsed();
    let during = probe.stop();
    let after = drill.honest.run_for(Duration::from_millis(700));
    let sum = |part: fn(&Traffic) -> u64| parts.iter().map(part).sum::<u64>();
    let (sent, received) = (sum(|part| part.sent), sum(|part| part.received));
    let (bytes_in, bytes_out) = (sum(|part| part.bytes_sent), sum(|part| part.bytes_received));
    let line = format!(
        "drill {}: one by one {} datagrams, {} B in, {} answers, {} B out; {sent} at once, {:.0}/s, {bytes_in} B in, \
         {received} answers, {bytes_out} B out; honest {during}; before: {before}; after: {after}",
        drill.name,
        each.sent,
        each.bytes_sent,
        each.received,
        each.bytes_received,
        sent as f64 / lasted.as_secs_f64(),
    );
    let checks = [
        (each.received > 0 && received > 0, "what is a command is answered"),
        (parts.iter().all(|part| part.bytes_received <= part.bytes_sent), "no more bytes out than in"),
        (during.percent() >= SERVED, "99.9 % of the honest are served"),
        p99_holds([&before, &after], &during),
        (after.percent() >= SERVED, "the honest are served after it"),
    ];
    judge(&line, &checks);
}

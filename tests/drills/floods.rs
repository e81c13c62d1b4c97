//! Drills with floods of every kind against the program, and honest clients before, during and
//! after. Each prints one line with its measurements.
//!
//!     cargo test --test drills floods -- --nocapture
//!
//! How to read a line: it begins with the share of honest tries that were served during the flood,
//! and their p99 without the think time. User bytes are the growth of the server's resident set at
//! the peak, per connection. It grows by whole pages, so the figure is inexact for few connections.
//! Kernel bytes are the structures and the buffers of one end of a connection. "Back" is the time
//! from the end of the flood until all its files were closed. The counts of the defences come last.
//!
//! No drill asserts a speed, because the machine can be busy. The steady p99 is the median of the
//! p99 of each half second. During a flood it is at most twice the quiet one, before or after the
//! flood, or 20 ms.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::course::{Control, Course, Drill, SERVED, SLOTS, ask, judge, p99_holds};
use crate::datagram_flood::{self, Traffic};
use crate::flood::{Attack, Attacker, Sources, Way};
use crate::gauge;
use crate::honest::{Honest, Probe, milliseconds};
use crate::support::{self, all_files};

/// Longest delay between a deadline and the close that the attacker sees. It allows for a tick of
/// the server (16 ms) and for other work of the machine.
const LATE: Duration = Duration::from_millis(500);

/// Waits while the honest clients make a thousand tries.
fn a_while(_: &Attacker) {
    sleep(Duration::from_millis(2700));
}

fn silent_flood(name: &'static str, admission: &str) -> Course {
    let slots = SLOTS.to_string();
    let drill = Drill::start(name, &["--max-silent", &slots, "--admission", admission]);
    drill.run(drill.attack(Way::Silent), a_while)
}

/// Connections for ten times the slots come in one burst and stay silent. More follow at a rate at
/// which a silent connection keeps its slot for more than a second.
#[test]
fn a_silent_flood_of_ten_times_the_slots_locks_no_client_out() {
    let _all_files = all_files();
    let course = silent_flood("silent flood, recycle", "recycle");
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        (course.outcome.counts.opened >= 10 * SLOTS as u64, "the flood is ten times the slots"),
        (course.counted("recycled") > 0, "the server recycles the oldest silent connections"),
        (course.counted("eviction_age_ms") >= 1000, "the eviction age is a second or more"),
        (
            course.peak.held_since(course.quiet) <= SLOTS as u64 + 100,
            "silent connections stay within their slots",
        ),
    ];
    course.judge("silent flood, recycle", &checks);
}

/// Many other servers refuse newcomers. The drill asserts only that honest clients suffer.
#[test]
fn a_silent_flood_locks_clients_out_if_newcomers_are_refused() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, refuse", "refuse");
}

#[test]
fn a_silent_flood_locks_clients_out_if_connections_are_dropped_at_random() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, random-drop", "random-drop");
}

fn locks_the_honest_out(name: &'static str, admission: &str) {
    let course = silent_flood(name, admission);
    let worse = (course.during.percent() < 90.0, "less than 90 % of the honest tries are served");
    course.judge(name, &[worse]);
}

/// Bytes that arrive do not move the deadline.
#[test]
fn a_slowloris_is_closed_by_the_deadline_of_its_first_message() {
    let _all_files = all_files();
    slowloris("slowloris, first message", false);
}

/// Bytes that arrive do not move this deadline either.
#[test]
fn a_slowloris_is_closed_by_the_deadline_of_a_later_message() {
    let _all_files = all_files();
    slowloris("slowloris, later message", true);
}

fn slowloris(name: &'static str, greet: bool) {
    let deadline = Duration::from_secs(2);
    let drill = Drill::start(name, &["--first-message-timeout", "2s", "--message-timeout", "2s"]);
    let way = Way::Slowloris { every: Duration::from_millis(100), greet };
    let attack = Attack { burst: 1000, rate: Some(0), ..drill.attack(way) };
    let course = drill.run(attack, |attacker| {
        attacker
            .wait_until(support::PATIENCE, |counts| counts.established == 1000 && counts.held == 0);
    });
    let lifetimes = &course.outcome.lifetimes;
    let shortest = lifetimes.iter().min().copied().unwrap_or_default();
    let longest = lifetimes.iter().max().copied().unwrap_or_default();
    let name =
        format!("{} ({} to {} ms)", drill.name, milliseconds(shortest), milliseconds(longest));
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        (lifetimes.len() == 1000, "the server closes every attacker"),
        (longest <= deadline + LATE, "no close is late"),
        (shortest + LATE >= deadline, "no close is early"),
    ];
    course.judge(&name, &checks);
}

/// A flood from one address does not affect clients from other addresses, at any rate.
#[test]
fn a_flood_from_one_source_locks_no_other_source_out() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill =
        Drill::start("one source", &["--max-silent", &slots, "--max-silent-per-source", "64"]);
    let sources = Sources::one(Ipv4Addr::new(127, 66, 0, 1));
    let course =
        drill.run(Attack { sources, rate: Some(2000), ..drill.attack(Way::Silent) }, a_while);
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        // Any source can fill half of the slots. Above that, only its own share applies.
        (
            course.peak.held_since(course.quiet) <= SLOTS as u64 / 2 + 100,
            "the source holds at most half of the slots",
        ),
        (course.acted() > 0, "the server counts the surplus connections"),
    ];
    course.judge(drill.name, &checks);
}

/// A flood and honest clients share one address of this machine. The flood's connections miss their
/// deadlines under pressure, which costs the honest clients nothing.
#[test]
fn honest_clients_at_the_address_of_a_flood_are_served() {
    let _all_files = all_files();
    let arguments =
        ["--first-message-timeout", "1s", "--max-silent", "400", "--max-silent-per-source", "1000"];
    let drill = Drill::start("same address", &arguments);
    let sources = Sources::one(Ipv4Addr::new(127, 66, 0, 1));
    let drill = Drill { honest: Honest { sources, ..drill.honest }, ..drill };
    let attack = Attack { sources, burst: 300, rate: Some(200), ..drill.attack(Way::Silent) };
    let course = drill.run(attack, a_while);
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        (course.outcome.counts.closed > 100, "the server closes late connections of the flood"),
        (course.counted("sources_penalised") == 0, "no address of this machine has a penalty"),
    ];
    course.judge(drill.name, &checks);
}

/// The server is stopped for two seconds while 6,000 clients connect and ask. If the accept queue
/// is full, the kernel drops the handshake without an answer, and the client's kernel tries again.
#[test]
fn a_burst_of_clients_is_served_after_the_server_was_stopped() {
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
        "drill {}: 6,000 at once: {during}, longest {} ms; {overflows} overflows of the accept \
         queue; before: {before}; after: {after}",
        drill.name,
        milliseconds(during.wait(1.0)),
    );
    let unserved = during.tries() - during.served;
    let checks = [
        (during.tries() == 6000, "all clients have tried"),
        (unserved <= overflows, "every unserved client is an overflow"),
        (during.percent() >= SERVED, "99.9 % of the clients are served in the end"),
        (after.percent() >= SERVED, "honest clients are served after the flood"),
    ];
    judge(&line, &checks);
}

/// 25,000 connections come and go. Half of them close with a FIN, half with a reset.
#[test]
fn connection_churn_leaves_no_memory_or_files_behind() {
    let _all_files = all_files();
    let drill = Drill::start("connection churn", &[]);
    let attack = Attack { burst: 5000, rate: Some(0), hold: 1000, ..drill.attack(Way::Churn) };
    // The first round allocates memory that the second one uses again.
    drop(drill.run(attack, |attacker| {
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 5000);
    }));
    let first = gauge::resident(drill.server.process_id());
    let course = drill.run(Attack { burst: 20_000, ..attack }, a_while);
    let last = gauge::resident(drill.server.process_id());
    let name = format!(
        "{} (resident {} KiB after 5,000, {} KiB after 25,000)",
        drill.name,
        first / 1024,
        last / 1024
    );
    let checks = [
        course.honest_are_served(),
        (course.outcome.counts.established == 20_000, "the server accepts all connections"),
        (last as f64 <= 1.25 * first as f64, "the resident set grows by at most a quarter"),
    ];
    course.judge(&name, &checks);
}

/// A dry run shows the effect of a defence before it is used.
#[test]
fn a_dry_run_counts_connections_and_closes_none() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill = Drill::start("dry run", &["--max-silent", &slots, "--admission-dry-run"]);
    let attack = Attack { burst: 2000, rate: Some(0), ..drill.attack(Way::Silent) };
    let course = drill.run(attack, |_| sleep(Duration::from_secs(1)));
    let checks = [
        course.honest_are_served(),
        (
            course.outcome.counts.held == 2000 && course.outcome.counts.closed == 0,
            "the server closes no connection",
        ),
        (course.acted() >= 2000 - SLOTS as u64, "the server counts what it would have closed"),
    ];
    course.judge(drill.name, &checks);
}

/// Every slot is held by a client that has sent a message, so the server cannot recycle any. The
/// operator has a separate address. Two seconds later, the idle clients make way for others.
#[test]
fn the_operator_is_served_when_all_slots_are_taken() {
    let _all_files = all_files();
    let drill = Drill::start("operator", &["--max-connections", "300"]);
    let operators = Honest { server: drill.admin, at_once: 4, ..drill.honest };
    let before = operators.run_for(Duration::from_secs(1));
    let attacker =
        Attacker::start(Attack { burst: 1000, rate: Some(0), ..drill.attack(Way::Idle) });
    assert!(
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 1000),
        "{:?}",
        attacker.counts()
    );
    let outside = Honest { patience: Duration::from_millis(500), ..drill.honest };
    let (control, outside) = (Control::start(), Probe::start(outside));
    let during = operators.run_for(Duration::from_secs(2));
    let info = ask(drill.admin, "INFO");
    let (outside, control) = (outside.stop(), control.stop());
    sleep(Duration::from_secs(1));
    let others = Honest { at_once: 20, ..drill.honest }.run_for(Duration::from_secs(1));
    attacker.stop();
    let after = operators.run_for(Duration::from_millis(700));
    let line = format!(
        "drill {}: public address {outside}, later {others}; operators {during}; control \
         {control}; before: {before}",
        drill.name
    );
    let checks = [
        (during.percent() >= 100.0, "every operator is served"),
        p99_holds([&before, &control, &after], &during),
        (info.contains("max_connections:300"), "the operator gets INFO"),
        (others.percent() >= SERVED, "idle clients make way for those at the public address"),
    ];
    judge(&line, &checks);
}

/// The hub never answers with more bytes than it gets, so it cannot amplify an attack on a third
/// party. The drill checks that for twenty thousand datagrams one by one. Then a million datagrams
/// come in four seconds, and the honest clients are served beside them.
#[test]
fn a_datagram_flood_gets_no_more_bytes_than_it_sends() {
    let _all_files = all_files();
    let drill = Drill::start("datagram flood", &[]);
    let address = drill.address;
    let each = datagram_flood::one_by_one(address, 32, 20_000);
    let before = drill.honest.run_for(Duration::from_millis(1200));
    let (control, probe) = (Control::start(), Probe::start(drill.honest));
    let began = Instant::now();
    let threads = [0, 8].map(|network| {
        std::thread::spawn(move || datagram_flood::flood(address, network, 500_000, 125_000))
    });
    let parts = threads.map(|thread| thread.join().expect("sending does not fail"));
    let lasted = began.elapsed();
    let (during, control) = (probe.stop(), control.stop());
    let after = drill.honest.run_for(Duration::from_millis(700));
    let sum = |part: fn(&Traffic) -> u64| parts.iter().map(part).sum::<u64>();
    let (sent, received) = (sum(|part| part.sent), sum(|part| part.received));
    let (bytes_in, bytes_out) = (sum(|part| part.bytes_sent), sum(|part| part.bytes_received));
    let line = format!(
        "drill {}: one by one {} datagrams, {} B in, {} answers, {} B out; {sent} at once, \
         {:.0}/s, {bytes_in} B in, {received} answers, {bytes_out} B out; honest {during}; \
         control {control}; before: {before}; after: {after}",
        drill.name,
        each.sent,
        each.bytes_sent,
        each.received,
        each.bytes_received,
        sent as f64 / lasted.as_secs_f64(),
    );
    let checks = [
        (each.received > 0 && received > 0, "the hub answers commands"),
        (
            parts.iter().all(|part| part.bytes_received <= part.bytes_sent),
            "the hub sends at most as many bytes as it gets",
        ),
        (during.percent() >= SERVED, "99.9 % of the honest tries are served"),
        p99_holds([&before, &control, &after], &during),
        (after.percent() >= SERVED, "honest clients are served after the flood"),
    ];
    judge(&line, &checks);
}

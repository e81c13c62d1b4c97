//! Torture: plays short scenarios on the simulated network again and again. In each run, one call
//! fails with one of its errors, until every call has failed with every error.
//!
//! No run may panic, spin or leave anything behind. Every listener and socket must serve on. No
//! client may notice a failure that hit another.

mod admission;
mod bounds;
mod commands;
mod compare;
mod datagrams;
mod errnos;
mod play;
mod scenario;
mod scenarios;
mod streams;
mod web;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use slabd::net::sim::SystemCall;

use compare::{A_FEW, Outcome};
use play::Broken;
use scenario::{Failure, Scenario};
use scenarios::SCENARIOS;

/// Number of threads that share the scenarios.
const THREADS: usize = 2;

/// Number of broken runs that are reported with their trace. The others are reported in one line.
const REPORTED_IN_FULL: usize = 5;

/// Number of failures in a row that is larger than the number of times that the loop repeats a call
/// at once.
const MANY: u32 = 40;

/// Errors that a call may return several times in a row without an effect.
const REPEATED: [i32; 3] = [libc::EAGAIN, libc::EINTR, libc::ENOMEM];

const ALL_CALLS: [SystemCall; 15] = [
    SystemCall::Listen,
    SystemCall::Configure,
    SystemCall::Accept,
    SystemCall::Read,
    SystemCall::Write,
    SystemCall::WatchWritable,
    SystemCall::Shutdown,
    SystemCall::Shed,
    SystemCall::Unacknowledged,
    SystemCall::BufferBytes,
    SystemCall::PeerAddress,
    SystemCall::AcceptQueue,
    SystemCall::Bind,
    SystemCall::Receive,
    SystemCall::Send,
];

/// `SLABD_TORTURE="ping 17 EINTR" cargo test --test simulated torture` replays one run. A number
/// behind the error says how often the call fails in a row.
#[test]
fn a_failing_call_breaks_no_rule_and_no_other_client_notices_it() {
    play::keep_panics_quiet();
    if let Ok(replay) = std::env::var("SLABD_TORTURE") {
        return replay_one(&replay);
    }
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(scenario) = SCENARIOS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = torment(scenario);
                    reports.lock().expect("no report panics").push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("no report panics");
    reports.sort_by_key(|report| {
        SCENARIOS.iter().position(|scenario| scenario.name == report.scenario)
    });
    for report in &reports {
        println!("{:<45} {:>5} calls {:>6} runs", report.scenario, report.calls, report.runs);
    }
    let runs: usize = reports.iter().map(|report| report.runs).sum();
    println!("{} scenarios, {runs} runs", reports.len());
    let broken: Vec<&String> = reports.iter().flat_map(|report| &report.broken).collect();
    for (number, text) in broken.iter().enumerate() {
        match number < REPORTED_IN_FULL {
            true => eprintln!("{text}\n"),
            false => eprintln!("{}", text.lines().next().unwrap_or_default()),
        }
    }
    assert!(broken.is_empty(), "{} of {runs} runs broke a rule", broken.len());
    assert!(reports.len() >= 40, "only {} scenarios", reports.len());
    let failed: BTreeSet<SystemCall> =
        reports.iter().flat_map(|report| &report.failed).copied().collect();
    assert_eq!(failed.into_iter().collect::<Vec<_>>(), ALL_CALLS, "every kind of call has failed");
}

struct Report {
    scenario: &'static str,
    calls: usize,
    runs: usize,
    failed: BTreeSet<SystemCall>,
    broken: Vec<String>,
}

/// Plays a scenario without a failure, and then with each failure.
fn torment(scenario: &'static Scenario) -> Report {
    let mut report = Report {
        scenario: scenario.name,
        calls: 0,
        runs: 0,
        failed: BTreeSet::new(),
        broken: Vec::new(),
    };
    let quiet = match play::run(scenario, None, |_| Ok(())) {
        Ok(quiet) => quiet,
        Err(broken) => {
            report.broken.push(format!(
                "{}: without a failure: {}\n{}",
                scenario.name,
                broken.rule.replace('\n', " "),
                broken.trace
            ));
            return report;
        }
    };
    let again = play::run(scenario, None, |again| match again.hash == quiet.hash {
        true => Ok(()),
        false => Err("two runs without a failure differ".into()),
    });
    if let Err(broken) = again {
        report.broken.push(format!("{}: {}", scenario.name, broken.rule));
    }
    report.calls = quiet.calls.len();
    let mut met = BTreeSet::new();
    for at in quiet.calls_to_fail() {
        let call = quiet.calls[at as usize].0;
        report.failed.insert(call);
        for errno in call.errnos() {
            let mut often = vec![1];
            if met.insert((call, *errno)) {
                // The first call of each kind also fails many times in a row.
                often.extend([A_FEW, MANY]);
            } else if REPEATED.contains(errno) {
                often.push(A_FEW);
            }
            for times in often {
                let failure = Failure { at, errno: *errno, times };
                report.runs += 1;
                if let Err(broken) = play(scenario, &quiet, failure) {
                    report.broken.push(describe(scenario, call, failure, &broken));
                }
            }
        }
    }
    report
}

fn play(scenario: &'static Scenario, quiet: &Outcome, failure: Failure) -> Result<(), Broken> {
    play::run(scenario, Some(failure), |outcome| compare::compare(quiet, outcome, failure))
        .map(drop)
}

fn describe(scenario: &Scenario, call: SystemCall, failure: Failure, broken: &Broken) -> String {
    let Failure { at, errno, times } = failure;
    let times = if times > 1 { format!(" {times}") } else { String::new() };
    format!(
        "SLABD_TORTURE=\"{} {at} {}{times}\" cargo test --test simulated torture   \
         # {call:?}: {}\n{}",
        scenario.name,
        errnos::errno_name(errno),
        broken.rule.replace('\n', " "),
        broken.trace,
    )
}

fn replay_one(replay: &str) {
    let words: Vec<&str> = replay.split_whitespace().collect();
    let [name, at, errno, ref times @ ..] = words[..] else {
        panic!("SLABD_TORTURE must be \"scenario call errno\", such as \"ping 17 EINTR\"")
    };
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .expect("SLABD_TORTURE: no scenario has this name");
    let failure = Failure {
        at: at.parse().expect("SLABD_TORTURE: the second word must be the number of a call"),
        errno: errnos::errno_of(errno)
            .expect("SLABD_TORTURE: the third word must be an error such as EINTR"),
        times: times.first().map_or(1, |times| {
            times.parse().expect("SLABD_TORTURE: the fourth word must be a number")
        }),
    };
    let quiet = match play::run(scenario, None, |_| Ok(())) {
        Ok(quiet) => quiet,
        Err(broken) => panic!("without a failure: {}\n{}", broken.rule, broken.trace),
    };
    let call = quiet.calls[failure.at as usize].0;
    if let Err(broken) = play(scenario, &quiet, failure) {
        eprintln!("{}", describe(scenario, call, failure, &broken));
        panic!("the run breaks a rule");
    }
    println!("{name}: call {at}, {call:?}, may fail with {errno}");
}

//! The simulated kernel against the real one: the same scenarios are played in the simulation and on sockets of the loopback interface,
//! and whoever looks at them has to see the same.
//!
//! Some scenarios are written by hand, each named after a rule of the kernel; the others are made from seeds. A scenario that differs
//! is printed step by step, the two side by side. `SLABD_SEED=17` plays that seed alone, `SLABD_SEED=0..5000` a range of them, and
//! `SLABD_SCENARIO='its name'` one of those written by hand.
//!
//! Where they differ the simulation is wrong, and is mended; but for these differences, which are meant:
//! - A reset destroys in the simulation what was under way to the client. Linux lets a client read what had reached its machine;
//!   others do not, and a server must not count on it. Of a stream that ended so, only that is compared.
//! - A client of the simulation acknowledges what it takes, where in Linux its kernel acknowledges what it has room for. The simulation
//!   has no such room: its window is all that a stream can have under way. So the scenarios ask for what is unacknowledged when
//!   the client has taken all, and have it take all before both sides are shut, unless the stream is full.
//! - How much a full stream holds is the kernel's affair, and whether a byte of room is used too. Compared is that it is full, that a
//!   little room raises no event, and that all the room does.
//! - When something arrives: the simulation delivers at once here, and the kernel is given time. The events of one source between two
//!   looks are compared as one, and what comes in which order among sources is not compared: epoll's order is that of its causes,
//!   which take turns on two processors.
//! - The simulation has no way to tell a client that nobody listens from one whose SYN was dropped: neither is let in.
//! - A datagram to a port of the far side that is closed just vanishes in the simulation. In Linux an ICMP message comes back, of which
//!   a socket that is not connected is told nothing: the same, seen from here.

#![forbid(unsafe_code)]

#[path = "support/replay/mod.rs"]
mod replay;

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use replay::{Scenario, generated, written};

/// Scenarios made from seeds.
const GENERATED: u64 = 250;

/// Of what differs each scenario waits for the kernel to come round, for long; and more would not be read.
const REPORTS_MAX: usize = 12;

/// Scenarios expect file numbers, of which the process has but one set.
static FILES: Mutex<()> = Mutex::new(());

fn compare(scenarios: impl Iterator<Item = Scenario>) {
    let (mut compared, mut observations) = (0, 0);
    let mut reports = Vec::new();
    for scenario in scenarios {
        compared += 1;
        match scenario.compare() {
            Ok(count) => observations += count,
            Err(report) => reports.push(report),
        }
        if reports.len() == REPORTS_MAX {
            break;
        }
    }
    println!("{compared} scenarios, {observations} observations compared");
    assert!(
        reports.is_empty(),
        "{} of the first {compared} scenarios differ. SLABD_SEED=17 plays \"seed 17\" alone, SLABD_SCENARIO='name' another.\n\n{}",
        reports.len(),
        reports.join("\n")
    );
}

/// What the environment asks for, or all.
fn chosen() -> Box<dyn Iterator<Item = Scenario>> {
    let seed = |text: &str| text.parse::<u64>().expect("SLABD_SEED is a number, or two with .. between");
    match (std::env::var("SLABD_SEED"), std::env::var("SLABD_SCENARIO")) {
        (Ok(text), _) => {
            let (first, end) =
                text.split_once("..").map_or_else(|| (seed(&text), seed(&text) + 1), |(a, b)| (seed(a), seed(b)));
            Box::new((first..end).map(generated::scenario))
        }
        (_, Ok(name)) => Box::new(written::scenarios().into_iter().filter(move |scenario| scenario.name == name)),
        _ => Box::new(written::scenarios().into_iter().chain((0..GENERATED).map(generated::scenario))),
    }
}

#[test]
fn a_scenario_shows_the_same_in_the_simulation_and_in_the_kernel() {
    let _alone = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    compare(chosen());
}

/// The process that plays them has few files to use up, and no other test beside.
#[test]
fn without_free_files_it_shows_the_same_too() {
    let _alone = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::env::current_exe().unwrap();
    let test = ["--exact", "--ignored", "--nocapture", "where_files_are_few"];
    let output = Command::new("prlimit").arg("--nofile=100").arg(this).args(test).output();
    let output = output.expect("prlimit (util-linux) runs");
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{told}");
    println!("{}", told.lines().find(|line| line.contains("compared")).unwrap_or_default());
}

#[test]
#[ignore = "uses up all files of its process: run by the test above"]
fn where_files_are_few() {
    compare(written::without_files().into_iter());
}

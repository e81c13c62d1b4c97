//! Compares the simulated kernel with the real one. Each scenario is played in the simulation and
//! on sockets of the loopback interface, and must show the same on both.
//!
//! Some scenarios are written by hand, each named after a rule of the kernel. The others are made
//! from seeds. The report of a difference prints the steps of both side by side.
//!
//!     SLABD_SEED=17 cargo test --test simulated against_kernel          plays that seed alone
//!     SLABD_SEED=0..5000 cargo test --test simulated against_kernel     plays a range of seeds
//!     SLABD_SCENARIO='name' cargo test --test simulated against_kernel  plays one scenario
//!
//! A difference is an error of the simulation, except for these, which are deliberate:
//! - A reset destroys bytes in flight to the client in the simulation. Linux lets a client read
//!   bytes that reached its machine. Other systems do not, so a server must not rely on it. The
//!   comparison of a reset stream checks only the reset.
//! - A client of the simulation acknowledges the bytes that it takes. In Linux, its kernel
//!   acknowledges the bytes that it has room for. So a scenario asks for unacknowledged bytes only
//!   after the client has taken all. The client also takes all before both sides shut, unless the
//!   stream is full.
//! - The capacity of a full stream is not compared. The comparison checks that the stream is full,
//!   that a little room raises no event, and that all the room raises one.
//! - The simulation delivers at once, while a real kernel takes time. The events of one source
//!   between two polls count as one. The order of events of several sources is not compared,
//!   because epoll reports them in the order of their causes, which run on two processors.
//! - The simulation does not distinguish a client without a listener from one whose SYN was
//!   dropped. Neither gets in.
//! - A datagram to a closed port of the far side vanishes in the simulation. In Linux, an ICMP
//!   message comes back, but the kernel does not report it to an unconnected socket.

use crate::replay::{Scenario, generated, written};
use std::process::Command;

/// Number of scenarios made from seeds.
const GENERATED: u64 = 250;

/// Maximum number of reports. A scenario that differs takes long, because it waits for the kernel.
const REPORTS_MAX: usize = 12;

/// Plays the scenarios, and fails with the reports of those that differ.
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
        "{} of the first {compared} scenarios differ. To play one alone, such as \"seed 17\", run\n\
        SLABD_SEED=17 cargo test --test simulated against_kernel\n\
        SLABD_SCENARIO='its name' cargo test --test simulated against_kernel\n\n{}",
        reports.len(),
        reports.join("\n")
    );
}

/// Returns the scenarios that the environment chooses, or all.
fn chosen() -> Box<dyn Iterator<Item = Scenario>> {
    let seed = |text: &str| {
        text.parse::<u64>().expect("SLABD_SEED must be a number or a range, such as 0..5000")
    };
    match (std::env::var("SLABD_SEED"), std::env::var("SLABD_SCENARIO")) {
        (Ok(text), _) => {
            let (first, end) = text
                .split_once("..")
                .map_or_else(|| (seed(&text), seed(&text) + 1), |(a, b)| (seed(a), seed(b)));
            Box::new((first..end).map(generated::scenario))
        }
        (_, Ok(name)) => {
            Box::new(written::scenarios().into_iter().filter(move |scenario| scenario.name == name))
        }
        _ => Box::new(
            written::scenarios().into_iter().chain((0..GENERATED).map(generated::scenario)),
        ),
    }
}

/// Plays an ignored test of this file in a separate process, which `launcher` starts. The scenarios
/// expect certain file numbers, so no other test of the process may open files.
fn play_alone(launcher: &[&str], test: &str) {
    let this = std::env::current_exe().unwrap();
    let [program, arguments @ ..] = launcher else { panic!("the launcher needs a program") };
    let output = Command::new(program)
        .args(arguments)
        .arg(this)
        .args(["--exact", "--ignored", "--nocapture", &format!("against_kernel::{test}")])
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    println!("{}", printed.lines().find(|line| line.contains("compared")).unwrap_or_default());
}

#[test]
fn the_simulation_shows_the_same_as_the_kernel() {
    play_alone(&["env"], "every_scenario_shows_the_same_on_both");
}

#[test]
fn the_simulation_shows_the_same_as_the_kernel_without_free_files() {
    play_alone(&["prlimit", "--nofile=100"], "every_scenario_without_files_shows_the_same_on_both");
}

#[test]
#[ignore = "needs a separate process, which a test above starts"]
fn every_scenario_shows_the_same_on_both() {
    compare(chosen());
}

#[test]
#[ignore = "uses up the files of its process, which a test above starts"]
fn every_scenario_without_files_shows_the_same_on_both() {
    compare(written::without_files().into_iter());
}

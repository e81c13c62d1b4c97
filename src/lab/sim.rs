//! `slabd lab sim`: the loop on a simulated network, among random clients, honest and hostile. One seed decides all that happens; many
//! seeds find orders of things that nobody would think of. `--seeds N` plays so many, for hours if need be; `--seed N` plays one, and
//! shows everything.

use std::io::Write;
use std::panic;
use std::thread::available_parallelism;

use anyhow::Result;

use super::{Scale, row, say, verdict};
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};
use crate::swarm::{self, Tally};

const SEEDS: u64 = 1000;
const SEEDS_QUICK: u64 = 100;

/// Seeds that are played twice.
const AGAIN: u64 = 20;

pub fn run(scale: &Scale) -> Result<Page> {
    tell_seed_of_panics();
    if std::env::var_os("RUST_LOG").is_none() {
        // Thousands of floods are warned of in simulated servers.
        log::set_max_level(log::LevelFilter::Off);
    }
    match scale.seed {
        Some(seed) => Ok(replay(seed)),
        None => Ok(sweep(scale.seeds.unwrap_or(if scale.quick { SEEDS_QUICK } else { SEEDS }))),
    }
}

/// A panic ends a release build at once, and no word of it says which seed it was.
fn tell_seed_of_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if let Some(seed) = swarm::playing() {
            let _ = writeln!(std::io::stderr(), "slabd lab: seed {seed}: {}", swarm::replay_line(seed));
        }
    }));
}

fn replay(seed: u64) -> Page {
    show(swarm::plan_of(seed).as_str());
    show(
        &"When, what, to whom (a client; a slot; the file of a listener or socket), and how much (bytes, a port, an error):",
    );
    let played = swarm::run(seed, Some(show));
    let sections = match played {
        Ok(played) => vec![Section::Table(table(&played.tally)), Section::Verdict(holds(Ok(&played.tally)))],
        Err(failure) => vec![Section::Verdict(holds(Err(&format!("seed {seed}: {}", failure.what))))],
    };
    Page {
        title: format!("slabd lab sim --seed {seed}"),
        summary: "The plan that follows from the seed, and all that happened, are printed on the terminal.".into(),
        sections,
    }
}

/// Whoever has seen enough of it may close the pipe.
fn show<T: std::fmt::Display + ?Sized>(line: &T) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn sweep(seeds: u64) -> Page {
    let threads = available_parallelism().map_or(1, usize::from);
    let step = (seeds / 20).max(1);
    let outcome = swarm::sweep(0..seeds, threads, &|tally| {
        if tally.seeds % step == 0 && tally.seeds < seeds {
            say(&format!("{} seeds, {} events", figures::count(tally.seeds), figures::count(tally.events)));
        }
    });
    let mut sections = Vec::new();
    match outcome {
        Ok(tally) => sections.extend([Section::Table(table(&tally)), Section::Verdict(holds(Ok(&tally)))]),
        Err(failure) => {
            eprintln!("{failure}");
            sections.push(Section::Verdict(holds(Err(&format!("seed {}: {}", failure.seed, failure.what)))));
        }
    }
    let hash = |seed| swarm::run(seed, None).map(|played| played.hash).ok();
    let same = (0..AGAIN).filter(|seed| hash(*seed).is_some_and(|first| hash(*seed) == Some(first))).count() as u64;
    sections.push(Section::Verdict(verdict(
        "The same seed plays the same way again",
        format!("{same} of {AGAIN} seeds gave the same hash of all that happened twice"),
        same == AGAIN,
    )));
    Page {
        title: "slabd lab sim".into(),
        summary: format!(
            "The loop of the server, on a simulated network whose clock, faults, limits and clients follow from one seed. {} seeds on {threads} \
             threads; in one of four nothing is scarce and nobody hostile, and then nobody may be closed.",
            figures::count(seeds)
        ),
        sections,
    }
}

fn holds(outcome: Result<&Tally, &str>) -> Verdict {
    let claim = "After every turn all invariants hold, and everybody is served in order, or closed for a reason that is counted";
    match outcome {
        Ok(tally) => verdict(
            claim,
            format!("{} turns in {} seeds", figures::count(tally.turns), figures::count(tally.seeds)),
            true,
        ),
        Err(what) => verdict(claim, what.into(), false),
    }
}

fn table(tally: &Tally) -> Table {
    let rows = [
        ("seeds", tally.seeds),
        ("events: calls, readiness, arrivals, what clients do", tally.events),
        ("turns of the loop", tally.turns),
        ("virtual seconds", tally.seconds),
        ("connections accepted", tally.accepted),
        ("of them closed by the loop before the peer did", tally.closed_early),
        ("commands, lines and other messages", tally.messages),
        ("publishes of honest clients", tally.publishes),
        ("messages that subscribers received, of none, one or many each", tally.receipts),
        ("datagrams", tally.datagrams),
        ("answers to datagrams", tally.datagram_answers),
    ];
    Table::new("What was played", " | count", rows.iter().map(|(name, count)| row([name, &figures::count(*count)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn a_violation_fails_the_claim() {
        assert_eq!(holds(Ok(&Tally::default())).outcome, Outcome::Holds);
        let fails = holds(Err("seed 7: lost"));
        assert_eq!((fails.outcome, fails.measured.as_str()), (Outcome::Fails, "seed 7: lost"));
    }
}

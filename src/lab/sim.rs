//! `slabd lab sim`: the loop on a simulated network, with random clients, honest and hostile. One
//! seed decides every event of a run. Many seeds find orders of events that a hand-written test
//! would miss. `--seeds N` plays N seeds, and `--seed N` plays one and prints every event.

use std::io::Write;
use std::panic;
use std::thread::available_parallelism;

use anyhow::Result;

use super::{Scale, row, say, verdict};
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};
use crate::swarm::{self, Tally};
use crate::terminal;

const SEEDS: u64 = 1000;
const SEEDS_QUICK: u64 = 100;

/// Number of seeds that are played a second time.
const AGAIN: u64 = 20;

pub fn run(scale: &Scale) -> Result<Page> {
    tell_seed_of_panics();
    if std::env::var_os("RUST_LOG").is_none() {
        // The simulated servers would log warnings about thousands of floods.
        log::set_max_level(log::LevelFilter::Off);
    }
    match scale.seed {
        Some(seed) => Ok(replay(seed)),
        None => Ok(sweep(scale.seeds.unwrap_or(if scale.quick { SEEDS_QUICK } else { SEEDS }))),
    }
}

/// Makes a panic print its seed. A panic aborts a release build, and its own message does not name
/// the seed.
fn tell_seed_of_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if let Some(seed) = swarm::playing() {
            let _ =
                writeln!(std::io::stderr(), "slabd lab: seed {seed}: {}", swarm::replay_line(seed));
        }
    }));
}

fn replay(seed: u64) -> Page {
    show(swarm::plan_of(seed).as_str());
    show(
        "Columns: virtual time, event, subject (a client, a slot, a file or a port), and amount \
         (bytes, a port or an error)",
    );
    let played = swarm::run(seed, Some(show));
    let sections = match played {
        Ok(played) => {
            vec![Section::Table(table(&played.tally)), Section::Verdict(holds(Ok(&played.tally)))]
        }
        Err(failure) => {
            vec![Section::Verdict(holds(Err(&format!("seed {seed}: {}", failure.what))))]
        }
    };
    Page {
        title: format!("slabd lab sim --seed {seed}"),
        summary: "The seed decides the plan and every event. Both are printed on the terminal."
            .into(),
        sections,
    }
}

/// Prints a line. A closed pipe is not an error, because `head` closes it early.
fn show<T: std::fmt::Display + ?Sized>(line: &T) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn sweep(seeds: u64) -> Page {
    let threads = available_parallelism().map_or(1, usize::from);
    let step = (seeds / 20).max(1);
    let outcome = swarm::sweep(0..seeds, threads, &|tally| {
        if tally.seeds % step == 0 && tally.seeds < seeds {
            say(&format!(
                "seeds played: {}, events: {}",
                figures::count(tally.seeds),
                figures::count(tally.events)
            ));
        }
    });
    let mut sections = Vec::new();
    match outcome {
        Ok(tally) => {
            sections.extend([Section::Table(table(&tally)), Section::Verdict(holds(Ok(&tally)))])
        }
        Err(failure) => {
            terminal::tell(&failure.to_string());
            sections.push(Section::Verdict(holds(Err(&format!(
                "seed {}: {}",
                failure.seed, failure.what
            )))));
        }
    }
    let hash = |seed| swarm::run(seed, None).map(|played| played.hash).ok();
    let same = (0..AGAIN)
        .filter(|seed| hash(*seed).is_some_and(|first| hash(*seed) == Some(first)))
        .count() as u64;
    sections.push(Section::Verdict(verdict(
        "A run depends on its seed alone: the same seed gives the same run again.",
        format!("{same} of {AGAIN} seeds, played twice, gave the same hash of all events"),
        same == AGAIN,
    )));
    Page {
        title: "slabd lab sim".into(),
        summary: format!(
            "The server's own loop runs on a simulated network. One seed decides its clock, \
             faults, limits and clients. The experiment plays {} seeds on {threads} threads. One \
             seed in four has ample resources and no hostile client; in those, the loop must not \
             close any client.",
            figures::count(seeds)
        ),
        sections,
    }
}

fn holds(outcome: Result<&Tally, &str>) -> Verdict {
    let claim = "After every turn, all invariants hold. Each honest client gets its answers in \
                 order, or is closed for a counted reason.";
    match outcome {
        Ok(tally) => verdict(
            claim,
            format!(
                "{} turns of {} seeds without a violation",
                figures::count(tally.turns),
                figures::count(tally.seeds)
            ),
            true,
        ),
        Err(what) => verdict(claim, what.into(), false),
    }
}

fn table(tally: &Tally) -> Table {
    let rows = [
        ("seeds", tally.seeds),
        ("events: system calls, readiness, arrivals, actions of clients", tally.events),
        ("turns of the loop", tally.turns),
        ("virtual seconds", tally.seconds),
        ("connections accepted", tally.accepted),
        ("connections closed by the loop before the peer closed", tally.closed_early),
        ("commands, lines and other messages", tally.messages),
        ("publishes of honest clients", tally.publishes),
        ("deliveries to subscribers", tally.receipts),
        ("datagrams received", tally.datagrams),
        ("datagrams answered", tally.datagram_answers),
    ];
    Table::new(
        "Totals of all seeds",
        " | count",
        rows.iter().map(|(name, count)| row([name, &figures::count(*count)])),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn a_violation_fails_the_claim_with_its_text() {
        assert_eq!(holds(Ok(&Tally::default())).outcome, Outcome::Holds);
        let fails = holds(Err("seed 7: lost"));
        assert_eq!((fails.outcome, fails.measured.as_str()), (Outcome::Fails, "seed 7: lost"));
    }
}

//! `slabd lab`: experiments that own both ends of a connection, and need no other set-up. Each says what is claimed, what was measured
//! here and now, and whether that bears the claim out.
//!
//! An experiment is a function from a [`Scale`] to a [`Page`]. It starts its servers itself, from this very program, and keeps measuring
//! and judging apart: the judges are tested with figures that must not pass.

mod client;
mod fanout;
mod framing;
mod half_open;
mod limits;
mod memory;
mod restart;
mod server;
mod sim;
mod turns;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::report::{Outcome, Page, Section, Verdict, html, text};
use crate::sys;

/// What `slabd lab` is given.
#[derive(Args, Clone, Debug, Default)]
pub struct LabArgs {
    /// The experiment; without it they are listed
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Write the result to this file as well, as one page of HTML that needs nothing beside itself
    #[arg(long, value_name = "FILE", requires = "name")]
    pub html: Option<PathBuf>,

    /// For memory and fanout: connections at the most [default: memory 15000, fanout 5000]
    #[arg(long, value_name = "COUNT", requires = "name")]
    pub connections: Option<usize>,

    /// For sim: seeds to play, from 0 on [default: 1000]
    #[arg(long, value_name = "COUNT", requires = "name", conflicts_with = "quick")]
    pub seeds: Option<u64>,

    /// For sim: play this seed alone, and show all that happens
    #[arg(long, value_name = "SEED", requires = "name", conflicts_with_all = ["seeds", "quick"])]
    pub seed: Option<u64>,

    /// A smaller and shorter run, for a first look: its figures scatter more
    #[arg(long, requires = "name")]
    pub quick: bool,
}

/// How large and how long.
#[derive(Clone, Copy, Debug)]
struct Scale {
    connections: Option<usize>,
    seeds: Option<u64>,
    seed: Option<u64>,
    quick: bool,
    /// Files that this process may open, and those it might before it asked for as many as allowed.
    files: u64,
    files_soft: u64,
}

struct Experiment {
    name: &'static str,
    line: &'static str,
    /// About how long it takes, in seconds.
    seconds: u32,
    /// Whether it takes a number of connections.
    has_size: bool,
    run: fn(&Scale) -> Result<Page>,
}

/// In the order of learning: what a stream is, what a connection is, what it costs, and what many of them do.
const EXPERIMENTS: [Experiment; 8] = [
    Experiment {
        name: "framing",
        line: "a stream has no boundaries: one write arrives as many reads, many as one; datagrams arrive as sent",
        seconds: 1,
        has_size: false,
        run: framing::run,
    },
    Experiment {
        name: "restart",
        line: "a restarted server has forgotten its TCP connections; UDP goes on as if nothing had happened",
        seconds: 1,
        has_size: false,
        run: restart::run,
    },
    Experiment {
        name: "memory",
        line: "user and kernel bytes per connection as the count grows: pooled buffers against fixed ones",
        seconds: 5,
        has_size: true,
        run: memory::run,
    },
    Experiment {
        name: "limits",
        line: "what stops the count on this machine: files, ports, memory, accept queue; how to raise each",
        seconds: 1,
        has_size: false,
        run: limits::run,
    },
    Experiment {
        name: "turns",
        line: "what one turn of the loop does: idle, with one client, with many, with pipelines, with newcomers",
        seconds: 11,
        has_size: false,
        run: turns::run,
    },
    Experiment {
        name: "fanout",
        line: "one publish to many subscribers: nothing lost, order kept, and what a delivery costs",
        seconds: 3,
        has_size: true,
        run: fanout::run,
    },
    Experiment {
        name: "half-open",
        line: "honest clients beside a flood of silent connections: recycle, refuse and random-drop on one graph",
        seconds: 20,
        has_size: false,
        run: half_open::run,
    },
    Experiment {
        name: "sim",
        line: "the loop among random clients on a simulated network, a thousand times; --seed shows one of them whole",
        seconds: 10,
        has_size: false,
        run: sim::run,
    },
];

/// Why there is no result.
#[derive(Debug)]
pub enum Error {
    /// What was asked for makes no sense: a line for the user.
    Usage(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Error {
        Error::Failed(error)
    }
}

/// What to print, and what came out.
#[derive(Debug)]
pub struct Done {
    pub text: String,
    pub outcome: Outcome,
}

/// Runs one experiment, or lists them.
pub fn run(options: &LabArgs) -> Result<Done, Error> {
    let Some(name) = &options.name else { return Ok(Done { text: list(), outcome: Outcome::Holds }) };
    let Some(experiment) = EXPERIMENTS.iter().find(|experiment| experiment.name == name) else {
        let names = EXPERIMENTS.map(|experiment| experiment.name).join(", ");
        return Err(Error::Usage(format!("no experiment '{name}': there are {names}")));
    };
    if options.connections.is_some() && !experiment.has_size {
        return Err(Error::Usage(format!("--connections means nothing to {name}: it is for memory and fanout")));
    }
    if (options.seeds.is_some() || options.seed.is_some()) && name != "sim" {
        return Err(Error::Usage(format!("--seeds and --seed mean nothing to {name}: they are for sim")));
    }
    if options.seeds == Some(0) {
        return Err(Error::Usage("--seeds: at least 1".into()));
    }
    if options.connections.is_some_and(|count| count < CONNECTIONS_MIN) {
        return Err(Error::Usage(format!("--connections: at least {CONNECTIONS_MIN}, for fewer tell nothing")));
    }
    // A file that cannot be written is better known before than after.
    let file = options.html.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display())).map(|file| (path, file))
    });
    let file = file.transpose()?;
    let (files_soft, _) = sys::file_limits().context("the limit on open files cannot be read")?;
    let files = sys::raise_file_limit().context("the limit on open files cannot be read")?;
    if let Some(count) = options.connections
        && count as u64 + FILES_OF_OUR_OWN > files
    {
        let most = files.saturating_sub(FILES_OF_OUR_OWN);
        return Err(Error::Usage(format!(
            "--connections {count}: a process may open {files} files here, so at most {most}; `slabd lab limits` tells how to raise it"
        )));
    }
    if options.seeds.is_none() && options.seed.is_none() {
        say(&format!("{name}: about {} s", experiment.seconds));
    }
    let LabArgs { connections, seeds, seed, .. } = *options;
    let scale = Scale { connections, seeds, seed, quick: options.quick, files, files_soft };
    let page = (experiment.run)(&scale)?;
    if let Some((path, mut file)) = file {
        file.write_all(html::html(&page).as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Done { text: text::text(&page), outcome: outcome(&page) })
}

/// Fewer connections than this do not fill the pages that memory is measured in.
const CONNECTIONS_MIN: usize = 100;

/// Files that either side of an experiment needs beside connections: what slabd keeps back for itself, and for the operator.
const FILES_OF_OUR_OWN: u64 = crate::limits::FILES_RESERVED + 2 * crate::limits::RESERVED_SLOTS as u64;

fn list() -> String {
    let mut text = String::from("Experiments, each with a claim, a measurement and a verdict:\n\n");
    for experiment in &EXPERIMENTS {
        text.push_str(&format!("  slabd lab {:<10} {}\n", experiment.name, experiment.line));
    }
    text.push_str("\nNone takes more than half a minute, but for sim with many --seeds. --html FILE writes the result as a page as well.\n");
    text.push_str("Exit code: 0 all claims hold, 1 one does not, 3 one could not be tried here.\n");
    text
}

/// Of all claims on a page: one that fails counts most, then one that was not tried.
fn outcome(page: &Page) -> Outcome {
    let outcomes: Vec<Outcome> = page
        .sections
        .iter()
        .filter_map(|section| match section {
            Section::Verdict(verdict) => Some(verdict.outcome),
            _ => None,
        })
        .collect();
    match outcomes {
        outcomes if outcomes.contains(&Outcome::Fails) => Outcome::Fails,
        outcomes if outcomes.contains(&Outcome::Untried) || outcomes.is_empty() => Outcome::Untried,
        _ => Outcome::Holds,
    }
}

/// A word on what is being done, for whoever waits.
fn say(line: &str) {
    eprintln!("slabd lab: {line}");
}

fn verdict(claim: &str, measured: String, holds: bool) -> Verdict {
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    Verdict { claim: claim.into(), measured, outcome }
}

fn untried(claim: &str, why: String) -> Verdict {
    Verdict { claim: claim.into(), measured: why, outcome: Outcome::Untried }
}

/// The cells of a row.
fn row<const COUNT: usize>(cells: [&dyn std::fmt::Display; COUNT]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(outcomes: &[Outcome]) -> Page {
        let verdicts = outcomes.iter().map(|outcome| Verdict { outcome: *outcome, ..Verdict::default() });
        Page { sections: verdicts.map(Section::Verdict).collect(), ..Page::default() }
    }

    #[test]
    fn one_claim_that_fails_makes_the_experiment_fail() {
        use Outcome::{Fails, Holds, Untried};
        for (outcomes, expected) in [
            (&[Holds, Holds][..], Holds),
            (&[Holds, Fails, Untried], Fails),
            (&[Untried, Holds], Untried),
            (&[], Untried),
        ] {
            assert_eq!(outcome(&page(outcomes)), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words_that_help() {
        let usage = |options: LabArgs| match run(&options) {
            Err(Error::Usage(line)) => line,
            other => panic!("{other:?}"),
        };
        let named = |name: &str| LabArgs { name: Some(name.into()), ..LabArgs::default() };
        assert!(usage(named("nope")).contains("framing, restart, memory, limits, turns, fanout, half-open, sim"));
        assert!(usage(LabArgs { connections: Some(500), ..named("framing") }).contains("memory and fanout"));
        assert!(usage(LabArgs { seeds: Some(0), ..named("sim") }).contains("at least 1"));
        assert!(usage(LabArgs { seeds: Some(5), ..named("framing") }).contains("they are for sim"));
        assert!(usage(LabArgs { connections: Some(99), ..named("memory") }).contains("at least 100"));
        assert!(usage(LabArgs { connections: Some(usize::MAX / 2), ..named("memory") }).contains("slabd lab limits"));
    }

    #[test]
    fn the_list_has_a_line_for_each() {
        let text = run(&LabArgs::default()).unwrap().text;
        for experiment in &EXPERIMENTS {
            assert!(text.contains(&format!("slabd lab {:<10} {}", experiment.name, experiment.line)), "{text}");
            assert!(experiment.seconds <= 30, "{}", experiment.name);
        }
    }
}

//! `slabd lab`: experiments that own both ends of a connection and need no set-up. Each prints its
//! claims, the measurements made on this machine, and whether these support the claims.
//!
//! An experiment is a function from a [`Scale`] to a [`Page`]. It starts its servers itself, from
//! the running program. It separates measuring from judging, so tests can give its judge figures
//! that must fail.

mod client;
mod fanout;
mod framing;
mod half_open;
mod limits;
mod memory;
mod restart;
mod scale_out;
mod server;
mod sim;
mod subscriber;
mod turns;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::escape;
use crate::report::{Outcome, Page, Section, Verdict, html, text};
use crate::sys;
use crate::terminal;

/// The arguments of `slabd lab`.
#[derive(Args, Clone, Debug, Default)]
pub struct LabArgs {
    /// The experiment to run. Without a name, lists all experiments
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Write the result to this file as well, as a single self-contained HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// For memory and fanout: maximum number of connections [default: memory 15000, fanout 5000]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = connections)]
    pub connections: Option<usize>,

    /// For sim: number of seeds to play, starting from seed 0 [default: 1000]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = seeds)]
    #[arg(conflicts_with = "quick")]
    pub seeds: Option<u64>,

    /// For sim: play only this seed, and print every event of the run
    #[arg(long, value_name = "SEED", allow_negative_numbers = true, value_parser = seed)]
    #[arg(conflicts_with_all = ["seeds", "quick"])]
    pub seed: Option<u64>,

    /// Run smaller and shorter, for a first look. The figures vary more
    #[arg(long)]
    pub quick: bool,
}

/// Reads the value of `--connections`.
fn connections(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count >= CONNECTIONS_MIN);
    count.ok_or_else(|| format!("expected a whole number, {CONNECTIONS_MIN} or more, such as 5000"))
}

/// Reads the value of `--seeds`.
fn seeds(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a whole number, 1 or more, such as 1000".into())
}

/// Reads the value of `--seed`.
fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more, such as 7".into())
}

/// The size and the duration of an experiment.
#[derive(Clone, Copy, Debug)]
struct Scale {
    connections: Option<usize>,
    seeds: Option<u64>,
    seed: Option<u64>,
    quick: bool,
    /// Maximum number of files that this process may open, after it raised its soft limit.
    files: u64,
    /// The soft limit on open files that the process started with.
    files_soft: u64,
}

/// One experiment.
struct Experiment {
    name: &'static str,
    /// The subject of the experiment, for the list.
    line: &'static str,
    /// Its approximate duration in seconds.
    seconds: u32,
    /// True if it takes `--connections`.
    has_size: bool,
    run: fn(&Scale) -> Result<Page>,
}

/// The experiments in the order of learning: streams, connections, their cost, and large numbers of
/// them.
const EXPERIMENTS: [Experiment; 9] = [
    Experiment {
        name: "framing",
        line: "TCP does not keep the boundaries of writes, and UDP does",
        seconds: 1,
        has_size: false,
        run: framing::run,
    },
    Experiment {
        name: "restart",
        line: "a restart ends every TCP connection, and no UDP client notices it",
        seconds: 1,
        has_size: false,
        run: restart::run,
    },
    Experiment {
        name: "memory",
        line: "user and kernel bytes per connection, with pooled and with fixed buffers",
        seconds: 5,
        has_size: true,
        run: memory::run,
    },
    Experiment {
        name: "limits",
        line: "the limits on connections here (files, ports, memory), and how to raise them",
        seconds: 1,
        has_size: false,
        run: limits::run,
    },
    Experiment {
        name: "turns",
        line: "the work of one turn of the loop: idle, with one client, with many, pipelined",
        seconds: 11,
        has_size: false,
        run: turns::run,
    },
    Experiment {
        name: "fanout",
        line: "publishes to many subscribers, over RESP and WebSocket: losses, order, cost",
        seconds: 9,
        has_size: true,
        run: fanout::run,
    },
    Experiment {
        name: "half-open",
        line: "honest clients beside a flood of silent connections, by admission policy",
        seconds: 20,
        has_size: false,
        run: half_open::run,
    },
    Experiment {
        name: "scale-out",
        line: "clients of two servers without a broker, with one, and while it fails",
        seconds: 14,
        has_size: false,
        run: scale_out::run,
    },
    Experiment {
        name: "sim",
        line: "a thousand random runs of the loop on a simulated network; --seed shows one",
        seconds: 10,
        has_size: false,
        run: sim::run,
    },
];

/// The reason why an experiment has no result.
#[derive(Debug)]
pub enum Error {
    /// The arguments are wrong. The text is one line for the user.
    Usage(String),
    /// The experiment could not be run to its end.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Error {
        Error::Failed(error)
    }
}

/// The text to print, and the outcome of all claims.
#[derive(Debug)]
pub struct Done {
    pub text: String,
    pub outcome: Outcome,
}

/// Runs one experiment, or lists all of them if the arguments name none.
pub fn run(options: &LabArgs) -> Result<Done, Error> {
    let Some(experiment) = chosen(options).map_err(Error::Usage)? else {
        return Ok(Done { text: list(), outcome: Outcome::Holds });
    };
    let name = experiment.name;
    // An unwritable file must be reported before the experiment, not after it.
    let file = options.html.as_ref().map(|path| {
        File::create(path)
            .with_context(|| format!("cannot write {}", path.display()))
            .map(|file| (path, file))
    });
    let file = file.transpose()?;
    let (files_soft, _) = sys::file_limits().context("cannot read the limit on open files")?;
    let files = sys::raise_file_limit().context("cannot raise the limit on open files")?;
    if let Some(count) = options.connections
        && count as u64 + FILES_OF_OUR_OWN > files
    {
        let most = files.saturating_sub(FILES_OF_OUR_OWN);
        return Err(Error::Usage(format!(
            "--connections: {count} is too many, because a process may open {files} files here; \
             accepted: {CONNECTIONS_MIN} to {most} (`slabd lab limits` shows how to raise that)"
        )));
    }
    if options.seeds.is_none() && options.seed.is_none() {
        let about = if options.quick { "less than" } else { "about" };
        say(&format!("{name} takes {about} {} s", experiment.seconds));
    }
    let LabArgs { connections, seeds, seed, .. } = *options;
    let scale = Scale { connections, seeds, seed, quick: options.quick, files, files_soft };
    let page = (experiment.run)(&scale)?;
    if let Some((path, mut file)) = file {
        file.write_all(html::html(&page).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Done { text: text::text(&page), outcome: outcome(&page) })
}

/// Returns the experiment that the arguments name, or `None` to list them all. Fails with a line
/// for the user if the arguments do not fit together.
fn chosen(options: &LabArgs) -> Result<Option<&'static Experiment>, String> {
    let names = || EXPERIMENTS.map(|experiment| experiment.name).join(", ");
    let Some(name) = &options.name else {
        let given = [
            ("--html", options.html.is_some()),
            ("--connections", options.connections.is_some()),
            ("--seeds", options.seeds.is_some()),
            ("--seed", options.seed.is_some()),
            ("--quick", options.quick),
        ];
        return match given.iter().find(|(_, is_given)| *is_given) {
            None => Ok(None),
            Some((flag, _)) => Err(format!(
                "{flag} needs the name of an experiment; accepted: {}; as in: \
                 slabd lab memory --quick",
                names()
            )),
        };
    };
    let Some(experiment) = EXPERIMENTS.iter().find(|experiment| experiment.name == name) else {
        return Err(format!(
            "'{name}' is not an experiment; accepted: {}; as in: slabd lab framing",
            names()
        ));
    };
    if options.connections.is_some() && !experiment.has_size {
        return Err(format!(
            "--connections does not apply to {name}; use it with memory or fanout, as in: \
             slabd lab memory --connections 5000"
        ));
    }
    let flag = if options.seeds.is_some() { "--seeds" } else { "--seed" };
    if (options.seeds.is_some() || options.seed.is_some()) && name != "sim" {
        return Err(format!(
            "{flag} does not apply to {name}; use it with sim, as in: slabd lab sim {flag} 7"
        ));
    }
    Ok(Some(experiment))
}

/// Minimum number of connections. Fewer do not fill the pages in which memory is measured.
const CONNECTIONS_MIN: usize = 100;

/// Number of files that each side of an experiment needs besides connections: slabd's reserve for
/// itself and for the operator.
const FILES_OF_OUR_OWN: u64 =
    crate::limits::FILES_RESERVED + 2 * crate::limits::RESERVED_SLOTS as u64;

fn list() -> String {
    let mut text = String::from("Experiments. Each prints claims, measurements and verdicts:\n\n");
    for experiment in &EXPERIMENTS {
        text.push_str(&format!("  slabd lab {:<10} {}\n", experiment.name, experiment.line));
    }
    text.push_str(
        "\nEach takes at most half a minute, except sim with many --seeds. --quick runs a shorter\n\
         form, and --html FILE also writes the result as a page.\n\
         Exit code: 0 if all claims hold, 1 if one fails, 3 if one could not be tried here.\n",
    );
    text
}

/// Returns the outcome of all claims on a page. A failed claim decides it, then an untried one.
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

/// Prints a line of progress to standard error.
fn say(line: &str) {
    terminal::tell(&format!("slabd lab: {}", escape::line(line)));
}

/// Returns the verdict on a claim that was measured.
fn verdict(claim: &str, measured: String, holds: bool) -> Verdict {
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    Verdict { claim: claim.into(), measured, outcome }
}

/// Returns the verdict on a claim that this machine could not measure, with the reason.
fn untried(claim: &str, why: String) -> Verdict {
    Verdict { claim: claim.into(), measured: why, outcome: Outcome::Untried }
}

/// Returns the cells of a table's row.
fn row<const COUNT: usize>(cells: [&dyn std::fmt::Display; COUNT]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(outcomes: &[Outcome]) -> Page {
        let verdicts =
            outcomes.iter().map(|outcome| Verdict { outcome: *outcome, ..Verdict::default() });
        Page { sections: verdicts.map(Section::Verdict).collect(), ..Page::default() }
    }

    #[test]
    fn one_failed_claim_fails_the_experiment() {
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
    fn a_usage_error_names_the_argument_and_the_accepted_values() {
        let usage = |options: LabArgs| match run(&options) {
            Err(Error::Usage(line)) => line,
            other => panic!("{other:?}"),
        };
        let named = |name: &str| LabArgs { name: Some(name.into()), ..LabArgs::default() };
        let all = "framing, restart, memory, limits, turns, fanout, half-open, scale-out, sim";
        for (options, named_thing, accepted) in [
            (named("nope"), "'nope' is not an experiment", all),
            (LabArgs { quick: true, ..LabArgs::default() }, "--quick needs the name", all),
            (
                LabArgs { connections: Some(500), ..named("framing") },
                "--connections does not apply to framing",
                "slabd lab memory --connections 5000",
            ),
            (
                LabArgs { seeds: Some(5), ..named("framing") },
                "--seeds does not apply to framing",
                "slabd lab sim --seeds 7",
            ),
            (
                LabArgs { seed: Some(5), ..named("memory") },
                "--seed does not apply to memory",
                "slabd lab sim --seed 7",
            ),
            (
                LabArgs { connections: Some(usize::MAX / 2), ..named("memory") },
                "is too many",
                "slabd lab limits",
            ),
        ] {
            let line = usage(options);
            assert!(line.contains(named_thing) && line.contains(accepted), "{line}");
        }
    }

    #[test]
    fn a_flag_takes_a_number_in_its_range_only() {
        assert_eq!((seeds("1"), seed("0"), connections("100")), (Ok(1), Ok(0), Ok(100)));
        for text in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert!(seeds(text).unwrap_err().contains("such as 1000"), "{text}");
            assert!(seed(text).unwrap_err().contains("such as 7"), "{text}");
            assert!(connections(text).unwrap_err().contains("100 or more"), "{text}");
        }
        assert!(seeds("0").is_err() && connections("99").is_err());
    }

    #[test]
    fn the_list_has_a_line_for_each_experiment() {
        let text = run(&LabArgs::default()).unwrap().text;
        for experiment in &EXPERIMENTS {
            assert!(
                text.contains(&format!("slabd lab {:<10} {}", experiment.name, experiment.line)),
                "{text}"
            );
            assert!(experiment.seconds <= 30, "{}", experiment.name);
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

//! `slabd stress`: load and floods against any server, on the same seams as the server itself.

pub mod args;
pub mod bounds;
pub mod compare;
pub mod dialer;
pub mod driver;
pub mod files;
pub mod flags;
pub mod meter;
pub mod pace;
pub mod page;
pub mod plan;
pub mod plots;
pub mod progress;
pub mod record;
pub mod run;
pub mod server;
pub mod shape;
pub mod sockets;
pub mod target;
pub mod wire;
pub mod world;

use std::path::Path;

use anyhow::Context;

use crate::report::{Outcome, Page, Section, html, text};
use args::StressArgs;
use bounds::Assertion;
use plan::Plan;
use progress::Progress;
use record::Record;

/// Why a command did nothing.
#[derive(Debug)]
pub enum StressError {
    /// The command line cannot be used.
    Usage(String),
    Failed(anyhow::Error),
}

/// `slabd stress`: its report goes to standard output, its progress to standard error. Whether all went well: something was measured, to the
/// end, and every bound held.
pub fn command(args: &StressArgs) -> Result<bool, StressError> {
    match args.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["compare", a, b] => {
            flags::check_compare(args).map_err(StressError::Usage)?;
            compare(Path::new(a), Path::new(b), args).map_err(StressError::Failed)
        }
        ["compare", ..] => {
            Err(StressError::Usage("compare needs two JSON files: slabd stress compare A.json B.json".into()))
        }
        _ => load(args),
    }
}

fn compare(a: &Path, b: &Path, args: &StressArgs) -> anyhow::Result<bool> {
    let page = compare::compare_files(a, b)?;
    show(&page, args)?;
    // Two runs that did different things are shown all the same, but not as if that said anything.
    let is_verdict =
        |section: &Section| matches!(section, Section::Verdict(verdict) if verdict.outcome == Outcome::Fails);
    Ok(!page.sections.iter().any(is_verdict))
}

fn load(args: &StressArgs) -> Result<bool, StressError> {
    let plan = Plan::resolve(args).map_err(StressError::Usage)?;
    let bounds: Result<Vec<Assertion>, String> = args.bounds.iter().map(|text| text.parse()).collect();
    let bounds = bounds.map_err(StressError::Usage)?;
    let outcome = match args.quiet {
        true => run::run(&plan, &mut ()),
        false => {
            let mut progress = Progress::new(&plan);
            let outcome = run::run(&plan, &mut progress);
            progress.end();
            outcome
        }
    };
    let mut outcome = outcome.map_err(StressError::Failed)?;
    if outcome.record.connections.opened == 0 {
        outcome.record.notes.insert(0, "no connection was let in: nothing could be measured".into());
    }
    outcome.record.bounds = bounds.iter().map(|bound| bound.judge(&outcome.record)).collect();
    report(&outcome, args).map_err(StressError::Failed)?;
    Ok(is_well(&outcome.record))
}

fn report(outcome: &run::RunResult, args: &StressArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        files::write_record(path, &outcome.record)?;
    }
    if let Some(path) = &args.hdr {
        files::write_distribution(path, &outcome.times)?;
    }
    show(&page::page(&outcome.record), args)
}

fn show(page: &Page, args: &StressArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        html::write(path, page)?;
    }
    use std::io::Write;
    match std::io::stdout().write_all(text::text(page).as_bytes()) {
        // A reader that has gone away is no error: `slabd stress ... | head`.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the report"),
        _ => Ok(()),
    }
}

fn is_well(record: &Record) -> bool {
    let is_measured = record.connections.opened > 0 && (record.requests.sent == 0 || record.requests.answered > 0);
    let is_published = record.delivery.as_ref().is_none_or(|delivery| delivery.published > 0);
    // Where honest requests failed before a flood, their failing beside it says nothing.
    let is_served = record.probes.first().is_none_or(|before| before.answered > 0 || before.sent == 0);
    is_measured && is_published && is_served && !record.interrupted && record.bounds.iter().all(|bound| bound.held)
}

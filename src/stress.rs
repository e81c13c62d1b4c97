//! `slabd stress`: load and floods against any server, on the server's own network seam.

pub mod answer;
pub mod answers;
pub mod args;
pub mod bounds;
pub mod compare;
pub mod couriers;
pub mod dialer;
pub mod driver;
pub mod events;
pub mod files;
pub mod flags;
pub mod http;
pub mod input;
pub mod meter;
pub mod pace;
pub mod page;
pub mod plan;
pub mod plots;
pub mod progress;
pub mod protocols;
pub mod publish;
pub mod record;
pub mod request;
pub mod resp;
pub mod run;
pub mod server;
pub mod shape;
pub mod socketio;
pub mod sockets;
pub mod sources;
pub mod target;
pub mod websocket;
pub mod wire;
pub mod world;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::escape;
use crate::report::figures::count;
use crate::report::{Outcome, Page, Section, html, text};
use args::StressArgs;
use bounds::Assertion;
use plan::Plan;
use progress::Progress;
use record::Record;

/// The reason why a command failed.
#[derive(Debug)]
pub enum StressError {
    /// The command line is wrong; nothing was done.
    Usage(String),
    /// The run could not start, measured nothing, ended early, or broke a bound.
    Failed(anyhow::Error),
}

/// Runs `slabd stress`. The report goes to standard output, the progress to standard error.
pub fn command(args: &StressArgs) -> Result<(), StressError> {
    match args.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["compare", a, b] if a.is_empty() || b.is_empty() => Err(StressError::Usage(
            "compare: a file has no name; expected two that --json wrote, as in: slabd stress \
             compare A.json B.json"
                .into(),
        )),
        ["compare", a, b] => {
            flags::check_compare(args).map_err(StressError::Usage)?;
            files::check_writable("html", args.html.as_deref()).map_err(StressError::Usage)?;
            compare(Path::new(a), Path::new(b), args).map_err(StressError::Failed)
        }
        ["compare", rest @ ..] => Err(StressError::Usage(format!(
            "compare needs two files that --json wrote, not {}, as in: \
             slabd stress compare A.json B.json",
            rest.len()
        ))),
        _ => load(args),
    }
}

fn compare(a: &Path, b: &Path, args: &StressArgs) -> anyhow::Result<()> {
    let page = compare::compare_files(a, b)?;
    show(&page, args)?;
    for section in &page.sections {
        if let Section::Verdict(verdict) = section
            && verdict.outcome == Outcome::Fails
        {
            anyhow::bail!("A and B cannot be compared: {}", verdict.measured);
        }
    }
    Ok(())
}

fn load(args: &StressArgs) -> Result<(), StressError> {
    let plan = Plan::resolve(args).map_err(StressError::Usage)?;
    let bounds: Result<Vec<Assertion>, String> =
        args.bounds.iter().map(|text| text.parse()).collect();
    let bounds = bounds.map_err(StressError::Usage)?;
    for (flag, file) in [("json", &args.json), ("hdr", &args.hdr), ("html", &args.html)] {
        files::check_writable(flag, file.as_deref()).map_err(StressError::Usage)?;
    }
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
    outcome.record.bounds = bounds.iter().map(|bound| bound.judge(&outcome.record)).collect();
    report(&outcome, args).map_err(StressError::Failed)?;
    match failure(&outcome.record) {
        Some(reason) => Err(StressError::Failed(anyhow::Error::msg(reason))),
        None => Ok(()),
    }
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
    match std::io::stdout().write_all(escape::lines(&text::text(page)).as_bytes()) {
        // The reader may close the pipe early: `slabd stress ... | head`.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the report")
        }
        _ => Ok(()),
    }
}

/// Returns the reason why a run failed, in one line; `None` if all went well.
fn failure(record: &Record) -> Option<String> {
    let (connections, requests) = (&record.connections, &record.requests);
    let target = &record.target;
    if connections.opened == 0 {
        let reasons = by_count(&connections.failed);
        let advice = match connections.failed.contains_key("refused") {
            true => "; is a server listening there?",
            false => "",
        };
        return Some(format!("no connection to {target} was opened{reasons}{advice}"));
    }
    if requests.sent > 0 && requests.answered == 0 {
        return Some(format!(
            "{target} answered none of {} requests{}",
            count(requests.sent),
            by_count(&requests.errors)
        ));
    }
    if record.delivery.as_ref().is_some_and(|delivery| delivery.published == 0) {
        return Some(format!("no message could be published to {target}"));
    }
    // If honest requests fail before a flood, their failures during the flood show nothing.
    if record.probes.first().is_some_and(|before| before.answered == 0 && before.sent > 0) {
        return Some(format!("{target} answered no honest request before the flood began"));
    }
    if record.interrupted {
        return Some("the run was interrupted".into());
    }
    let broken: Vec<&str> =
        record.bounds.iter().filter(|bound| !bound.held).map(|bound| bound.text.as_str()).collect();
    let all = record.bounds.len();
    (!broken.is_empty())
        .then(|| format!("{} of {all} bounds did not hold: {}", broken.len(), broken.join(", ")))
}

/// Returns `: refused 3, timeout 1`, or nothing.
fn by_count(reasons: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> =
        reasons.iter().map(|(reason, number)| format!("{reason} {}", count(*number))).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::record::{Bound, Connections, Delivery, Probe, Requests};
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_one_line() {
        let well = Record {
            target: "tcp://127.0.0.1:9".into(),
            connections: Connections { opened: 3, ..Connections::default() },
            requests: Requests { sent: 9, answered: 8, ..Requests::default() },
            ..Record::default()
        };
        assert_eq!(failure(&well), None);
        let failed = |record: Record| failure(&record).unwrap();
        let refused = [("refused".to_string(), 1200)].into();
        let connections = Connections { failed: refused, ..Connections::default() };
        assert_eq!(
            failed(Record { connections, ..well.clone() }),
            "no connection to tcp://127.0.0.1:9 was opened: refused 1,200; \
             is a server listening there?"
        );
        let errors = [("timeout".to_string(), 9)].into();
        let requests = Requests { sent: 9, errors, ..Requests::default() };
        assert_eq!(
            failed(Record { requests, ..well.clone() }),
            "tcp://127.0.0.1:9 answered none of 9 requests: timeout 9"
        );
        let delivery = Some(Delivery::default());
        assert!(failed(Record { delivery, ..well.clone() }).contains("no message"));
        let probes = vec![Probe { sent: 2, ..Probe::default() }];
        assert!(failed(Record { probes, ..well.clone() }).contains("before the flood"));
        assert!(failed(Record { interrupted: true, ..well.clone() }).contains("interrupted"));
        let bound = |text: &str, held| Bound { text: text.into(), measured: None, held };
        let bounds = vec![bound("p99<5ms", true), bound("errors=0", false)];
        assert_eq!(failed(Record { bounds, ..well }), "1 of 2 bounds did not hold: errors=0");
    }
}

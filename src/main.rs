//! The `slabd` program: parses the command line, runs the subcommand, and returns an exit code.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use slabd::cli::{self, Request};
use slabd::config::SettingSources;
use slabd::daemon::{self, Ended};
use slabd::escape;
use slabd::lab::{self, LabArgs};
use slabd::log_lines;
use slabd::machine::Machine;
use slabd::report::Outcome;
use slabd::stress::{self, StressError};
use slabd::terminal::tell;

/// Exit code for a wrong command line or configuration.
const USAGE: u8 = 2;
/// Exit code for a failure, or for work that was cut short.
const FAILURE: u8 = 1;
/// Exit code for an experiment with a claim that this machine cannot test.
const UNTRIED: u8 = 3;

fn main() -> ExitCode {
    warn_of_unknown_level();
    log_lines::start();
    match cli::parse(std::env::args_os()) {
        Ok(Request::Print(text)) => print(&text),
        Ok(Request::Check(sources)) => match sources.load(&Machine::read()) {
            Ok(config) => {
                config.warnings.iter().for_each(|warning| say(warning));
                print(&config.to_toml())
            }
            Err(error) => fail(USAGE, &error.to_string()),
        },
        Ok(Request::Serve(sources)) => serve(&sources),
        Ok(Request::Stress(args)) => match stress::command(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(StressError::Usage(line)) => fail(USAGE, &line),
            Err(StressError::Failed(error)) => fail(FAILURE, &format!("{error:#}")),
        },
        Ok(Request::Lab(options)) => experiment(&options),
        Err(line) => fail(USAGE, &line),
    }
}

/// Warns if RUST_LOG is not a level. env_logger would take it for a module's name and log nothing.
fn warn_of_unknown_level() {
    let Ok(filter) = std::env::var("RUST_LOG") else { return };
    let is_module = filter.contains([',', '=', ':', '/']) || filter.starts_with("slabd");
    if !filter.is_empty() && !is_module && filter.parse::<log::LevelFilter>().is_err() {
        say(&format!(
            "RUST_LOG: '{filter}' is not a level; \
             accepted: error, warn, info, debug, trace or off"
        ));
    }
}

fn serve(sources: &SettingSources) -> ExitCode {
    let machine = Machine::read();
    let config = match sources.load(&machine) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    match daemon::serve(sources, config, machine) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::AtOnce) => ExitCode::from(FAILURE),
        Err(error) => fail(FAILURE, &format!("{error:#}")),
    }
}

fn experiment(options: &LabArgs) -> ExitCode {
    let done = match lab::run(options) {
        Ok(done) => done,
        Err(lab::Error::Usage(line)) => return fail(USAGE, &line),
        Err(lab::Error::Failed(error)) => return fail(FAILURE, &format!("{error:#}")),
    };
    let printed = print(&done.text);
    match done.outcome {
        Outcome::Holds => printed,
        Outcome::Fails => ExitCode::from(FAILURE),
        Outcome::Untried => ExitCode::from(UNTRIED),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(escape::lines(text).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closes the pipe early is no error, as in `slabd --help | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(FAILURE, &format!("cannot write to standard output: {error}")),
    }
}

fn fail(code: u8, line: &str) -> ExitCode {
    say(line);
    ExitCode::from(code)
}

/// Prints one line to standard error. It may quote flags, files and peers.
fn say(line: &str) {
    tell(&format!("slabd: {}", escape::line(line)));
}

//! The command line: flags into [`SettingSources`], and errors into one clear line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{SettingSources, Settings};
use crate::lab::LabArgs;
use crate::stress::args::StressArgs;

/// A single-threaded event loop server: very many stateful connections in very little memory, over TCP and UDP.
#[derive(Parser, Debug)]
#[command(name = "slabd", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without a command, slabd serves. Log level by RUST_LOG (error, warn, info, debug, trace; info).\n\
    Signals: TERM or INT drains and exits, a second one exits at once; HUP reads the configuration again; USR1 writes\n\
    the status to the log."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Serve: listen, and answer until told to stop. What slabd does without a command
    Serve(Box<ServeArgs>),
    /// Test a server: load and floods, with progress, percentiles and a verdict
    Stress(Box<StressArgs>),
    /// Experiments that own both ends, each with a claim, a measurement and a verdict; without a name they are listed
    Lab(LabArgs),
}

#[derive(Args, Clone, Debug)]
struct ServeArgs {
    /// Read settings from this TOML file: the names of the flags without the dashes. Flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the configuration, print it whole as a config file, and exit
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    settings: Settings,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    Serve(SettingSources),
    /// Print the resolved configuration.
    Check(SettingSources),
    Stress(Box<StressArgs>),
    Lab(LabArgs),
    /// Print this text and exit 0: help or version.
    Print(String),
}

/// Reads the command line; on error, a line for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = Cli::command().try_get_matches_from(&args);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Request::Print(error.render().to_string())),
                _ => Err(one_line(&error, &args)),
            };
        }
    };
    let args = match cli.command {
        Some(Task::Serve(args)) => *args,
        Some(Task::Stress(args)) => return Ok(Request::Stress(args)),
        Some(Task::Lab(options)) => return Ok(Request::Lab(options)),
        None => cli.serve,
    };
    let sources = SettingSources { flags: args.settings, file: args.config };
    Ok(if args.check { Request::Check(sources) } else { Request::Serve(sources) })
}

/// clap's message without its usage paragraph. An unknown flag without a lookalike gets the list of all.
fn one_line(error: &clap::Error, args: &[OsString]) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")).collect();
    let mut line = lines.join("; ").trim_start_matches("error: ").to_string();
    if error.kind() == ErrorKind::UnknownArgument && error.get(ContextKind::SuggestedArg).is_none() {
        let all = Cli::command();
        let command = args.iter().skip(1).find_map(|arg| all.find_subcommand(arg)).unwrap_or(&all);
        let flags = command.get_arguments().filter_map(|arg| arg.get_long()).map(|name| format!("--{name}"));
        line = format!("{line}; accepted are {}", flags.collect::<Vec<_>>().join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Request, String> {
        parse(std::iter::once("slabd").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        for line in ["--backlog 7", "serve --backlog 7"] {
            let Ok(Request::Serve(sources)) = parse_words(line) else { panic!("{line}") };
            assert_eq!(sources.flags.texts("backlog"), Some(&["7".to_string()][..]));
        }
        assert!(matches!(parse_words("--check"), Ok(Request::Check(_))));
        assert!(matches!(parse_words("--help"), Ok(Request::Print(text)) if text.contains("--max-connections")));
    }

    #[test]
    fn errors_are_one_line_that_names_the_flag_and_what_is_accepted() {
        for (line, named, accepted) in [
            ("--max-conections 5", "--max-conections", "--max-connections"),
            ("--qqqq", "--qqqq", "--listen"),
            ("--idle-timeout 5x", "--idle-timeout", "30s"),
            ("--listen nope=127.0.0.1:1", "nope", "hello, echo, discard, hub"),
            ("--buffers huge", "--buffers", "fixed:4096"),
            ("--backlog", "--backlog", "<COUNT>"),
            ("--max-connections many", "--max-connections", "many"),
            ("frobnicate", "frobnicate", ""),
            ("lab memory --qqqq", "--qqqq", "--html, --connections, --seeds, --seed, --quick"),
            ("lab --html x", "<NAME>", ""),
        ] {
            let error = parse_words(line).unwrap_err();
            assert!(error.contains(named) && error.contains(accepted), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

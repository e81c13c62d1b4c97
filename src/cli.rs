//! The command line: reads flags into a [`Request`], and turns errors into one line.

mod pages;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::pages::{CompletionsArgs, ManArgs};
use crate::config::{SettingSources, Settings};
use crate::demo::Demo;
use crate::lab::LabArgs;
use crate::stress::args::StressArgs;

/// Shortest text that is hidden wherever an error has it, in bytes.
const SECRET_MIN: usize = 4;

/// Columns of a line of help, without the indent.
const HELP_WIDTH: usize = 90;

/// A single-threaded event loop server for very many connections in very little memory.
#[derive(Parser, Debug)]
#[command(name = "slabd", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a command, slabd serves.\n\
    RUST_LOG sets the log level: error, warn, info, debug or trace [default: info].\n\
    Signals: TERM and INT drain and exit, a second one exits at once; HUP reads the configuration\n\
    again; USR1 writes the status to the log.\n\
    A time without a unit is in seconds, and a size without a unit is in bytes.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Serve until a signal stops it. This is the default command
    Serve(Box<ServeArgs>),
    /// Serve an application that needs no code, with its page and the client of Socket.IO
    Demo(Box<DemoArgs>),
    /// Test a server with load and floods, and report progress, percentiles and a verdict
    Stress(Box<StressArgs>),
    /// Run an experiment on both ends of a connection: a claim, a measurement and a verdict.
    /// Without a name, list the experiments
    Lab(LabArgs),
    /// Print the man page of slabd or of one of its commands
    Man(ManArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
}

#[derive(Args, Clone, Debug)]
struct DemoArgs {
    /// Name of the application: checkboxes
    name: Demo,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Clone, Debug)]
struct ServeArgs {
    /// TOML file with settings, under the names of the flags without the leading dashes. Flags win
    /// over the file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the configuration, print all of it as a config file, and exit
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    settings: Settings,
}

/// The action that the command line requests.
#[derive(Debug)]
pub enum Request {
    Serve(SettingSources),
    /// Print the resolved configuration.
    Check(SettingSources),
    Stress(Box<StressArgs>),
    Lab(LabArgs),
    /// Print the help, the version, a man page or completions, and exit with 0.
    Print(String),
}

/// Reads the command line. An error is one line for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = command().try_get_matches_from(&args);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Ok(Request::Print(error.render().to_string()))
                }
                _ => Err(without_passwords(one_line(&error, &args), &args)),
            };
        }
    };
    let args = match cli.command {
        Some(Task::Serve(args)) => *args,
        Some(Task::Demo(args)) => {
            let DemoArgs { name, settings } = *args;
            let sources = SettingSources { flags: settings, file: None, demo: Some(name) };
            return Ok(Request::Serve(sources));
        }
        Some(Task::Stress(args)) => return Ok(Request::Stress(args)),
        Some(Task::Lab(options)) => return Ok(Request::Lab(options)),
        Some(Task::Man(args)) => return args.page(Cli::command()).map(Request::Print),
        Some(Task::Completions(args)) => return Ok(Request::Print(args.script(Cli::command()))),
        None => cli.serve,
    };
    let sources = SettingSources { flags: args.settings, file: args.config, demo: None };
    Ok(if args.check { Request::Check(sources) } else { Request::Serve(sources) })
}

/// Returns the command line with help of at most 100 columns.
fn command() -> Command {
    folded(Cli::command())
}

/// Puts the help of each flag on lines below it, folded at [`HELP_WIDTH`]. clap indents them by ten
/// columns.
fn folded(command: Command) -> Command {
    let command = command.next_line_help(true).mut_subcommands(folded);
    let command = match command.get_about().map(ToString::to_string) {
        Some(about) => command.about(fold(&about)),
        None => command,
    };
    command.mut_args(|arg| match arg.get_help().map(ToString::to_string) {
        Some(help) => arg.help(fold(&help)),
        None => arg,
    })
}

/// Breaks a text into lines of at most [`HELP_WIDTH`]. A default on a separate line stays there.
/// Other line breaks count as spaces.
fn fold(text: &str) -> String {
    let (help, default) = text.split_once("\n[").unwrap_or((text, ""));
    let mut folded = String::new();
    let mut length = 0;
    for word in help.split_whitespace() {
        let more = word.chars().count();
        if length > 0 {
            let fits = length + 1 + more <= HELP_WIDTH;
            folded.push(if fits { ' ' } else { '\n' });
            length = if fits { length + 1 } else { 0 };
        }
        folded.push_str(word);
        length += more;
    }
    if !default.is_empty() {
        folded.push_str("\n[");
        folded.push_str(default);
    }
    folded
}

/// Returns clap's message without its usage paragraph. For an unknown flag that resembles no other,
/// the line lists all flags.
fn one_line(error: &clap::Error, args: &[OsString]) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let mut line = lines.join("; ").trim_start_matches("error: ").to_string();
    if error.kind() == ErrorKind::UnknownArgument && error.get(ContextKind::SuggestedArg).is_none()
    {
        let flags = task_of(args);
        let flags =
            flags.get_arguments().filter_map(|arg| arg.get_long()).map(|name| format!("--{name}"));
        line = format!("{line}; accepted: {}", flags.collect::<Vec<_>>().join(", "));
    }
    let is_command = error.get(ContextKind::InvalidSubcommand).is_some();
    if is_command && error.kind() == ErrorKind::ArgumentConflict {
        line.push_str("; accepted: a command before all flags, or a config file after --config");
    } else if is_command {
        let all = command();
        let tasks: Vec<&str> = all.get_subcommands().map(Command::get_name).collect();
        line.push_str(&format!(
            "; accepted: {} or flags; a config file goes after --config",
            tasks.join(", ")
        ));
    }
    let missing = ErrorKind::InvalidValue == error.kind()
        && error.get(ContextKind::InvalidValue).is_some_and(|value| value.to_string().is_empty());
    if let Some(flag) = error.get(ContextKind::InvalidArg).filter(|_| missing) {
        let expected = expected_value(&flag.to_string(), &task_of(args));
        line.extend(expected.map(|expected| format!("; {expected}")));
    }
    line
}

/// Returns an error without the words that may be a password: those of a flag that resembles
/// `--requirepass`, those after it up to the next flag, and the login of a URL.
fn without_passwords(line: String, args: &[OsString]) -> String {
    let mut line = line;
    let mut follows = false;
    for arg in args.iter().skip(1) {
        let arg = arg.to_string_lossy();
        let (name, value) = arg.split_once('=').unwrap_or((&arg, ""));
        let name = name.trim_start_matches('-').to_lowercase();
        let is_password = name.contains("pass") || name.starts_with("requ");
        let secret = match (is_password, arg.starts_with("--")) {
            (true, _) => value,
            (false, true) => "",
            (false, false) if follows => &*arg,
            (false, false) => "",
        };
        follows = is_password && value.is_empty() || follows && !arg.starts_with("--");
        if !secret.is_empty() {
            line = line.replace(&format!("'{secret}'"), "'…'").replace(&format!("={secret}"), "=…");
            // A shorter text may be a part of other words.
            if secret.len() >= SECRET_MIN {
                line = line.replace(secret, "…");
            }
        }
        // As in redis://user:password@host.
        let login = arg.rsplit_once('@').map_or("", |(login, _)| login);
        let login = login.rsplit_once("//").map_or(login, |(_, login)| login);
        if let Some((_, password)) = login.split_once(':').filter(|(_, text)| !text.is_empty()) {
            line = line.replace(&format!(":{password}@"), ":…@");
        }
    }
    line
}

/// Returns the command that the arguments name, or that of slabd itself.
fn task_of(args: &[OsString]) -> Command {
    let all = command();
    args.iter().skip(1).find_map(|arg| all.find_subcommand(arg)).unwrap_or(&all).clone()
}

/// Returns the accepted values of a flag such as `--seed <SEED>`: the error of its parser for an
/// empty value, or the first sentence of its help.
fn expected_value(flag: &str, task: &Command) -> Option<String> {
    let name = flag.trim_start_matches('-').split(' ').next()?;
    let arg = task.get_arguments().find(|arg| arg.get_long() == Some(name))?;
    let empty = [task.get_name().to_string(), format!("--{name}=")];
    let refused = task.clone().try_get_matches_from(empty).err();
    match refused.as_ref().and_then(std::error::Error::source) {
        Some(expected) => Some(expected.to_string()),
        None => {
            let help = arg.get_help()?.to_string().replace('\n', " ");
            let sentence = help.split(['.', '[', ';']).next()?.trim();
            Some(format!("--{name}: {sentence}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Request, String> {
        parse(std::iter::once("slabd").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_command_line_passes_the_checks_of_clap() {
        command().debug_assert();
    }

    #[test]
    fn no_line_of_the_help_of_serve_is_wider_than_100_columns() {
        for line in ["--help", "serve --help"] {
            let Ok(Request::Print(text)) = parse_words(line) else { panic!("{line}") };
            let wide = text.lines().find(|line| line.chars().count() > 100);
            assert_eq!(wide, None);
        }
    }

    #[test]
    fn slabd_serves_without_a_command() {
        for line in ["--backlog 7", "serve --backlog 7"] {
            let Ok(Request::Serve(sources)) = parse_words(line) else { panic!("{line}") };
            assert_eq!(sources.flags.texts("backlog"), Some(&["7".to_string()][..]));
        }
        assert!(matches!(parse_words("--check"), Ok(Request::Check(_))));
        assert!(
            matches!(parse_words("--help"), Ok(Request::Print(text)) if text.contains("--backlog"))
        );
    }

    #[test]
    fn an_error_does_not_quote_what_may_be_a_password() {
        const SECRET: &str = "S3cr3t-8472916355";
        for line in [
            "--requirepas SECRET",
            "--requirepas=SECRET",
            "--requirepass my SECRET",
            "--requirepass my other SECRET",
            "--requirepass a SECRET --idle-timeout x",
            "--requirepass SECRET --requirepass SECRET",
            "--requirepass SECRET --requirepass-file SECRET",
            "--requirepass SECRET --check extra",
            "-requirepass SECRET",
            "-requirepass=SECRET",
            "requirepass SECRET",
            "requirepass=SECRET",
            "--password SECRET",
            "--password=SECRET",
            "--pass=SECRET serve",
            "--Requirepass=SECRET",
            "serve requirepass SECRET",
            "serve --requirepass my SECRET",
            "--max-silent x --requirepass SECRET",
            "--check=SECRET --requirepass=SECRET",
            "--broker redis://u:SECRET@host:x",
            "--broker=redis://u:SECRET@host/x",
            "--broker http://u:SECRET@host",
            "--broker u:SECRET@host",
            "--brokers redis://u:SECRET@host",
            "--brokers=redis://:p@SECRET@host",
            "redis://u:SECRET@host",
        ] {
            let error = parse_words(&line.replace("SECRET", SECRET)).unwrap_err();
            assert!(!error.contains(SECRET) && !error.contains("8472916355"), "{line}: {error}");
        }
        // Other words are quoted.
        assert!(parse_words("--requirepass x --idle-timeout soon").unwrap_err().contains("'soon'"));
    }

    #[test]
    fn an_error_is_one_line_that_names_the_flag_and_the_accepted_values() {
        for (line, named, accepted) in [
            ("--max-conections 5", "--max-conections", "--max-connections"),
            ("--qqqq", "--qqqq", "--listen"),
            ("--idle-timeout 5x", "--idle-timeout", "30s"),
            ("--listen nope=127.0.0.1:1", "nope", "hello, echo, discard, hub"),
            ("--buffers huge", "--buffers", "fixed:4096"),
            ("--backlog", "--backlog", "<COUNT>"),
            ("--max-connections many", "--max-connections", "many"),
            ("frobnicate", "frobnicate", "serve, demo, stress, lab, man, completions"),
            ("demo nope", "nope", "accepted: checkboxes"),
            ("--check slabd.toml", "slabd.toml", "after --config"),
            ("--idle-timeout", "--idle-timeout", "such as 30s"),
            ("--max-silent -5", "-5", "a whole number"),
            ("lab memory --qqqq", "--qqqq", "--html, --connections, --seeds, --seed, --quick"),
            ("lab sim --seed", "--seed <SEED>", "a whole number, 0 or more, such as 7"),
            ("lab sim --html", "--html <FILE>", "--html: Write the result to this file"),
            ("stress ping resp://127.0.0.1:1 -c", "--connections", "a positive whole number"),
            ("stress ping resp://127.0.0.1:1 -d", "--duration", "such as 30s"),
            ("stress ping resp://127.0.0.1:1 --json", "--json", "--json: File to write"),
            ("--config", "--config <FILE>", "--config: TOML file with settings"),
        ] {
            let error = parse_words(line).unwrap_err();
            assert!(error.contains(named) && error.contains(accepted), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

//! The settings that were given on the command line or in a file, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::{Spanned, Value};

use super::{Config, ConfigError, Setting, shown_path};
use crate::setting::ValueForm;

/// Settings and the texts given for them. Flags and keys of the file have the same names.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<&'static str, Vec<String>>);

/// Shows only the names, because values may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// Reads a TOML file. Fails if it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("cannot read config file {}: {error}", shown_path(path)))
        })?;
        Settings::parse(&text, path)
    }

    /// Reads the text of a TOML file. Errors name `path` and the line.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
        let failure = |at: usize, why: &str| {
            let line = text[..at].matches('\n').count() + 1;
            // The error may quote any character of the file, but must be one line.
            let why = why.trim().replace('\n', "; ").replace(char::is_control, " ");
            ConfigError(format!("config file {}, line {line}: {why}", shown_path(path)))
        };
        let table: BTreeMap<Spanned<String>, Spanned<Value>> =
            toml::from_str(text).map_err(|error| {
                let at = error.span().map_or(0, |span| span.start);
                failure(at, &format!("not valid TOML: {}", error.message()))
            })?;
        let mut settings = Settings::default();
        for (key, value) in table {
            let line_start = key.span().start;
            let setting = Setting::named(key.get_ref()).ok_or_else(|| {
                let names: Vec<_> = Setting::all().map(Setting::name).collect();
                let (key, names) = (key.get_ref(), names.join(", "));
                let wrong = format!("there is no setting '{key}'; accepted: {names}");
                failure(line_start, &wrong)
            })?;
            let at = value.span().start;
            let wrong = |why: String| failure(at, &format!("{}: {why}", setting.name()));
            let texts = texts(value.into_inner(), setting.about().form).map_err(wrong)?;
            for text in texts {
                settings.add(setting, text).map_err(wrong)?;
            }
        }
        Ok(settings)
    }

    /// Adds one value of a setting. Fails if the value cannot be understood.
    pub fn add(&mut self, setting: Setting, text: String) -> Result<(), String> {
        readable(setting, &text).map_err(|why| format!("invalid value '{text}': {why}"))?;
        self.0.entry(setting.name()).or_default().push(text);
        Ok(())
    }

    /// Returns the texts given for the setting of this name.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Returns these settings, and those of `below` that these do not set.
    pub fn over(self, mut below: Settings) -> Settings {
        // Two settings can give the password, but there is only one password.
        let passwords = ["requirepass", "requirepass-file"];
        if passwords.iter().any(|name| self.0.contains_key(name)) {
            below.0.retain(|name, _| !passwords.contains(name));
        }
        below.0.extend(self.0);
        below
    }
}

fn readable(setting: Setting, text: &str) -> Result<(), String> {
    setting.set(&mut Config::default(), &[text.into()])
}

/// Returns the texts of a value in a file. Fails if the value has the wrong type.
fn texts(value: Value, form: ValueForm) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) if form != ValueForm::List => Ok(vec![text]),
        Value::Integer(number) if form == ValueForm::Plain => Ok(vec![number.to_string()]),
        Value::Boolean(on) if form == ValueForm::Switch => Ok(vec![on.to_string()]),
        Value::Array(values) if form == ValueForm::List && !values.is_empty() => Ok(values
            .into_iter()
            .map(|value| texts(value, ValueForm::Text))
            .collect::<Result<Vec<_>, _>>()?
            .concat()),
        other => Err(format!(
            "expected {}; found {}",
            match form {
                ValueForm::Plain => "a whole number, or a string such as \"30s\" or \"64MiB\"",
                ValueForm::Switch => "true or false",
                ValueForm::List => "a list of strings, such as [\"hub=127.0.0.1:9999\"]",
                ValueForm::Text => "a string in quotes",
            },
            match other {
                Value::Array(values) if values.is_empty() => "an empty list",
                other => other.type_str(),
            }
        )),
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        Setting::all().fold(command, |command, setting| command.arg(flag(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args(command)
    }
}

fn flag(setting: Setting) -> Arg {
    let about = setting.about();
    let help = format!("{} [default: {}]", about.help(), setting.default());
    let read = move |text: &str| readable(setting, text).map(|()| text.to_string());
    let arg =
        Arg::new(about.name).long(about.name).help(help).value_name(about.hint).value_parser(read);
    // A negative number is an invalid value, not an unknown flag.
    let arg = arg.allow_negative_numbers(true);
    let arg = if about.heading.is_empty() { arg } else { arg.help_heading(about.heading) };
    match about.form {
        ValueForm::List => arg.action(ArgAction::Append),
        ValueForm::Switch => arg.num_args(0..=1).default_missing_value("true"),
        ValueForm::Text if about.name == "requirepass-file" => arg.conflicts_with("requirepass"),
        ValueForm::Plain | ValueForm::Text => arg,
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let names = Setting::all().map(Setting::name);
        let given = names
            .filter_map(|name| Some((name, matches.get_many::<String>(name)?.cloned().collect())));
        Ok(Settings(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?.over(std::mem::take(self));
        Ok(())
    }
}

//! What someone wrote, on the command line or in a file: some of the settings, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::{Spanned, Value};

use super::{Config, ConfigError, Setting};
use crate::setting::ValueForm;

/// Settings and the texts that were given for them. The same names serve as flags and as keys of the
/// file.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<&'static str, Vec<String>>);

/// Values may be secret: only names are shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read config file {}: {error}", path.display())))?;
        Settings::parse(&text, path)
    }

    /// The settings of a TOML file with this text. Errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
        let failure = |at: usize, what: &str| {
            let line = text[..at].matches('\n').count() + 1;
            // What it quotes from the file may hold anything, and errors are one line.
            let what = what.trim().replace('\n', "; ").replace(char::is_control, " ");
            ConfigError(format!("config file {}, line {line}: {what}", path.display()))
        };
        let table: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text)
            .map_err(|error| failure(error.span().map_or(0, |span| span.start), error.message()))?;
        let mut settings = Settings::default();
        for (key, value) in table {
            let setting = Setting::named(key.get_ref()).ok_or_else(|| {
                let names: Vec<_> = Setting::all().map(Setting::name).collect();
                let what = format!("unknown setting '{}': accepted are {}", key.get_ref(), names.join(", "));
                failure(key.span().start, &what)
            })?;
            let at = value.span().start;
            let texts = texts(value.into_inner(), setting.about().form).map_err(|what| failure(at, &what))?;
            for text in texts {
                settings.add(setting, text).map_err(|what| failure(at, &what))?;
            }
        }
        Ok(settings)
    }

    /// Adds one value of a setting, if it can be understood.
    pub fn add(&mut self, setting: Setting, text: String) -> Result<(), String> {
        readable(setting, &text).map_err(|why| format!("invalid value '{text}': {why}"))?;
        self.0.entry(setting.name()).or_default().push(text);
        Ok(())
    }

    /// What was given for the setting of this name.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// These settings, and what they leave open from `below`.
    pub fn over(self, mut below: Settings) -> Settings {
        // There is one password: to name one in either way leaves nothing open.
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

/// The texts of a value in a file.
fn texts(value: Value, form: ValueForm) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) if form != ValueForm::List => Ok(vec![text]),
        Value::Integer(number) if form == ValueForm::Plain => Ok(vec![number.to_string()]),
        Value::Boolean(on) if form == ValueForm::Switch => Ok(vec![on.to_string()]),
        Value::Array(values) if form == ValueForm::List => {
            Ok(values.into_iter().map(|value| texts(value, ValueForm::Text)).collect::<Result<Vec<_>, _>>()?.concat())
        }
        other => Err(format!(
            "invalid value {other}: expected {}",
            match form {
                ValueForm::Plain => "a text such as \"30s\" or \"64MiB\", or a number",
                ValueForm::Switch => "true or false",
                ValueForm::List => "a list of texts",
                ValueForm::Text => "a text",
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
    let arg = Arg::new(about.name).long(about.name).help(help).value_name(about.hint).value_parser(read);
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
        let given = names.filter_map(|name| Some((name, matches.get_many::<String>(name)?.cloned().collect())));
        Ok(Settings(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?.over(std::mem::take(self));
        Ok(())
    }
}

//! The settings that were given on the command line or in a file, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::de::DeTable;
use toml::{Spanned, Value};

use super::{Config, ConfigError, Setting, password, shown_path};
use crate::escape;
use crate::limits::CONFIG_FILE_MAX;
use crate::regular_file::{self, without_mark};
use crate::routes::EventRoutes;
use crate::setting::ValueForm;

/// Settings and the texts given for them. Flags and keys of the file have the same names.
#[derive(Clone, Default)]
pub struct Settings {
    given: BTreeMap<&'static str, Vec<String>>,
    /// The tables of the file that are no setting.
    routes: Option<Rc<EventRoutes>>,
}

/// Shows only the names, because values may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl Settings {
    /// Reads a TOML file, and returns whether other users may read or change it. Fails if it cannot
    /// be read or understood.
    pub fn read(path: &Path) -> Result<(Settings, bool), ConfigError> {
        let failure = |why: String| {
            ConfigError(format!("cannot read config file {}: {why}", shown_path(path)))
        };
        let content = regular_file::read(path, CONFIG_FILE_MAX).map_err(failure)?;
        let text = without_mark(&content.bytes);
        if let Some(at) = text.iter().position(|byte| *byte == 0) {
            let line = text[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            return Err(failure(format!("line {line} has a NUL byte; expected text in UTF-8")));
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            let line =
                text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            failure(format!("line {line} is not text in UTF-8"))
        })?;
        Ok((Settings::parse(text, path)?, content.is_open_to_others))
    }

    /// Reads the text of a TOML file. Errors name `path` and the line.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
        let failure = |at: usize, why: &str| {
            let line = text[..at].matches('\n').count() + 1;
            // The error may quote any character of the file, but must be one line.
            let why = escape::line(&why.trim().replace('\n', "; ")).into_owned();
            ConfigError(format!("config file {}, line {line}: {why}", shown_path(path)))
        };
        let table: BTreeMap<Spanned<String>, Spanned<Value>> =
            toml::from_str(text).map_err(|error| {
                let at = error.span().map_or(0, |span| span.start);
                failure(at, &format!("not valid TOML: {}", without_quotes(error.message())))
            })?;
        let mut settings = Settings::default();
        for (key, value) in table {
            let line_start = key.span().start;
            if key.get_ref() == SOCKETIO {
                settings.routes = read_routes(text).map_err(|(at, why)| failure(at, &why))?;
                continue;
            }
            let setting = Setting::named(key.get_ref()).ok_or_else(|| {
                let names: Vec<_> = Setting::all().map(Setting::name).chain([SOCKETIO]).collect();
                let (key, names) = (shown_key(key.get_ref()), names.join(", "));
                failure(line_start, &format!("there is no setting {key}; accepted: {names}"))
            })?;
            let at = value.span().start;
            let wrong = |why: String| failure(at, &format!("{}: {why}", setting.name()));
            let texts = texts(value.into_inner(), setting.about().form).map_err(wrong)?;
            for text in texts {
                settings.add(setting, text).map_err(wrong)?;
            }
        }
        if password::REQUIREPASS.settings.iter().all(|name| settings.given.contains_key(name)) {
            return Err(ConfigError(format!(
                "config file {}: requirepass and requirepass-file are both set; give one of them",
                shown_path(path)
            )));
        }
        Ok(settings)
    }

    /// Adds one value of a setting. Fails if the value cannot be understood.
    pub fn add(&mut self, setting: Setting, text: String) -> Result<(), String> {
        readable(setting, &text).map_err(|why| match setting.name() {
            // A URL may have a password.
            "broker" => why,
            _ => format!("invalid value '{text}': {why}"),
        })?;
        self.given.entry(setting.name()).or_default().push(text);
        Ok(())
    }

    /// Returns the texts given for the setting of this name.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        self.given.get(name).map(Vec::as_slice)
    }

    /// Returns these settings, and those of `below` that these do not set.
    pub fn over(self, mut below: Settings) -> Settings {
        // Two settings can give the password, but there is only one password.
        for source in password::SOURCES {
            if source.settings.iter().any(|name| self.given.contains_key(name)) {
                below.forget(source.settings);
            }
        }
        below.given.extend(self.given);
        Settings { routes: self.routes.or(below.routes), ..below }
    }

    /// Returns the routes of the file.
    pub fn routes(&self) -> Rc<EventRoutes> {
        self.routes.clone().unwrap_or_default()
    }

    /// Removes the settings of these names.
    pub fn forget(&mut self, names: &[&str]) {
        self.given.retain(|name, _| !names.contains(name));
    }
}

/// The table of the file that has the routes of Socket.IO.
pub const SOCKETIO: &str = "socketio";

/// Reads the routes of a file. An error has its place in the text.
fn read_routes(text: &str) -> Result<Option<Rc<EventRoutes>>, (usize, String)> {
    // This parser keeps the place of every value.
    let table = DeTable::parse(text).map_err(|error| (0, error.message().to_string()))?;
    let routes = table.get_ref().get(SOCKETIO).map(EventRoutes::read).transpose();
    routes.map(|routes| routes.map(Rc::new)).map_err(|error| (error.at, error.why))
}

/// Quotes a key that has the form of a name. Any other text may be a password in the wrong place.
fn shown_key(key: &str) -> String {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'-' || byte == b'_';
    let named = key.bytes().all(is_name).then(|| format!("'{key}'"));
    named.unwrap_or_else(|| "of that name".into())
}

/// Returns a message without the words of the file that it quotes, because they may be a password.
/// Quoted punctuation stays: it is what TOML expects.
fn without_quotes(message: &str) -> String {
    let parts = message.split('`').enumerate().map(|(at, part)| {
        let is_quoted = at % 2 == 1;
        if is_quoted && part.chars().any(char::is_alphanumeric) { "…" } else { part }
    });
    parts.collect::<Vec<_>>().join("`")
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
        Value::Array(values) if form == ValueForm::Tables && !values.is_empty() => {
            values.into_iter().map(text_of_entry).collect()
        }
        other => Err(format!(
            "expected {}; found {}",
            match form {
                ValueForm::Plain => "a whole number, or a string such as \"30s\" or \"64MiB\"",
                ValueForm::Switch => "true or false",
                ValueForm::List => "a list of strings, such as [\"hub=127.0.0.1:9999\"]",
                ValueForm::Tables => {
                    "a list of strings and tables, such as [\"news\", { channel = \"cells\", key = \
                     \"index\" }]"
                }
                ValueForm::Text => "a string in quotes",
            },
            match other {
                Value::Array(values) if values.is_empty() => "an empty list",
                other => other.type_str(),
            }
        )),
    }
}

/// Returns the text of an entry that is a string or a table.
fn text_of_entry(entry: Value) -> Result<String, String> {
    match entry {
        Value::String(text) => Ok(text),
        Value::Table(table) => serde_json::to_string(&table).map_err(|error| error.to_string()),
        other => Err(format!("expected a string or a table; found {}", other.type_str())),
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
        ValueForm::List | ValueForm::Tables => arg.action(ArgAction::Append),
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
        Ok(Settings { given: given.collect(), routes: None })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?.over(std::mem::take(self));
        Ok(())
    }
}

//! Settings as people write them. A file or a value is either refused in one line or accepted. The
//! printed form of an accepted one is accepted again, with the same meaning.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use slabd::admission::Policy;
use slabd::config::{
    Buffers, Config, ConfigError, Listen, Settings, limits_as_texts, with_changes,
};
use slabd::limits::Limits;
use slabd::machine::Machine;
use slabd::networks::Networks;
use slabd::units::{Size, Span};

/// A typical limit on open files.
const FILE_LIMIT: u64 = 20_000;

/// Runs the target. The first byte decides whether the text after it is a file, a value, or changes
/// at run time.
pub fn config(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match choice % 4 {
        0 => value(text),
        1 => changes(text),
        _ => file(text),
    }
}

fn file(text: &str) {
    let first = match read(text) {
        Ok(config) => config,
        Err(ConfigError(message)) => return is_one_line(&message),
    };
    first.warnings.iter().for_each(|warning| is_one_line(warning));
    let printed = first.to_toml();
    let second = read(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    // The printed form has no adjusted values, so it has no warnings. It does not print the
    // password.
    let same = |config: Config| Config { warnings: Vec::new(), requirepass: None, ..config };
    assert_eq!(same(first), same(second), "{printed}");
}

fn read(text: &str) -> Result<Config, ConfigError> {
    let settings = Settings::parse(text, Path::new("slabd.toml"))?;
    // An existing file could be endless, such as a device.
    if settings
        .texts("requirepass-file")
        .is_some_and(|paths| paths.iter().any(|path| Path::new(path).exists()))
    {
        return Err(ConfigError("this target does not read existing files".into()));
    }
    settings.resolve(&Machine::with_files(FILE_LIMIT))
}

fn is_one_line(message: &str) {
    assert!(!message.is_empty() && !message.contains(['\n', '\r']), "{message:?}");
}

fn value(text: &str) {
    reads_back::<Span, _>(text, |Span(time)| *time);
    reads_back::<Size, _>(text, |Size(bytes)| *bytes);
    reads_back::<Buffers, _>(text, |Buffers(mode)| *mode);
    reads_back::<Listen, _>(text, Listen::clone);
    reads_back::<Policy, _>(text, |policy| *policy);
    reads_back::<Networks, _>(text, Networks::clone);
}

/// Checks that an accepted value is printed in a form that is accepted with the same meaning, and
/// that this form is stable.
fn reads_back<T: FromStr + Display, V: PartialEq + Debug>(text: &str, meaning: impl Fn(&T) -> V) {
    let Ok(first) = text.parse::<T>() else { return };
    let printed = first.to_string();
    let Ok(second) = printed.parse::<T>() else {
        panic!("{text:?} is printed as {printed:?}, which is refused")
    };
    assert_eq!(meaning(&first), meaning(&second), "{text:?} is printed as {printed:?}");
    assert_eq!(printed, second.to_string());
}

/// Applies lines `name value`, as CONFIG SET does.
fn changes(text: &str) {
    let pair = |line: &str| {
        line.split_once(' ').map(|(name, value)| (name.to_string(), value.to_string()))
    };
    let changes: Vec<_> = text.lines().filter_map(pair).collect();
    let before = Limits { max_connections: 100, ..Limits::default() };
    let Ok(after) = with_changes(&before, &changes) else { return };
    let all = limits_as_texts(&after);
    for (name, _) in &changes {
        assert!(all.iter().any(|(known, _)| known == name), "{name}");
    }
    match with_changes(&before, &all) {
        Ok(again) => assert_eq!(again, after, "{changes:?}"),
        Err(error) => panic!("{error}: {changes:?}"),
    }
}

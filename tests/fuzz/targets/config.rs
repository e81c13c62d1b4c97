//! Settings as people write them: whatever a file or a value is, it is refused in one line or accepted; and what is accepted is printed
//! in a way that is accepted again and means the same.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use slabd::admission::Policy;
use slabd::config::{Buffers, Config, ConfigError, Listen, Settings, limits_as_texts, with_changes};
use slabd::limits::Limits;
use slabd::networks::Networks;
use slabd::units::{Size, Span};

/// Files that a process may open: a usual number.
const FILE_LIMIT: u64 = 20_000;

/// The first byte chooses what the text behind it is: a file, a value, or changes while running.
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
    // What was adjusted is not adjusted again; a password is not printed.
    let same = |config: Config| Config { warnings: Vec::new(), requirepass: None, ..config };
    assert_eq!(same(first), same(second), "{printed}");
}

fn read(text: &str) -> Result<Config, ConfigError> {
    let settings = Settings::parse(text, Path::new("slabd.toml"))?;
    // A file that there is may be one that never ends.
    if settings.texts("requirepass-file").is_some_and(|paths| paths.iter().any(|path| Path::new(path).exists())) {
        return Err(ConfigError("not read here".into()));
    }
    settings.resolve(FILE_LIMIT)
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

/// A value that is understood is written so that it is understood again, as the same; and then always written alike.
fn reads_back<T: FromStr + Display, V: PartialEq + Debug>(text: &str, meaning: impl Fn(&T) -> V) {
    let Ok(first) = text.parse::<T>() else { return };
    let printed = first.to_string();
    let Ok(second) = printed.parse::<T>() else { panic!("{text:?} is printed {printed:?}, which is refused") };
    assert_eq!(meaning(&first), meaning(&second), "{text:?} is printed {printed:?}");
    assert_eq!(printed, second.to_string());
}

/// Lines `name value`, as CONFIG SET gives them.
fn changes(text: &str) {
    let pair = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_string(), value.to_string()));
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

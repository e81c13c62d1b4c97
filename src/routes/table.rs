//! A table of the configuration file that is read key by key. Its errors name the table.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::EventRoutes;
use crate::codec::socketio::is_reserved;
use crate::limits::EVENT_NAME_MAX;

/// A value of the file, with its place.
pub type FileValue<'a> = Spanned<DeValue<'a>>;

/// Why a section cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteError {
    /// The place in the file, in bytes.
    pub at: usize,
    pub why: String,
}

/// A table whose keys are known.
pub struct FileTable<'a> {
    pub title: String,
    pub at: usize,
    table: &'a DeTable<'a>,
}

impl<'a> FileTable<'a> {
    /// Takes a value as a table with these keys. `title` names it in errors.
    pub fn new(
        title: String,
        value: &'a FileValue<'a>,
        keys: &[&str],
    ) -> Result<FileTable<'a>, RouteError> {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            let found = value.get_ref().type_str();
            return Err(RouteError {
                at,
                why: format!("{title}: expected a table; found {found}"),
            });
        };
        let entry = FileTable { title, at, table };
        let unknown = table.keys().find(|key| !keys.contains(&&**key.get_ref()));
        if let Some(key) = unknown {
            let (start, key) = (key.span().start, key.get_ref());
            return Err(entry
                .fail(start, format!("there is no key '{key}'; accepted: {}", keys.join(", "))));
        }
        Ok(entry)
    }

    pub fn fail(&self, at: usize, why: impl Into<String>) -> RouteError {
        RouteError { at, why: format!("{}: {}", self.title, why.into()) }
    }

    /// Returns the error about the value of a key.
    pub fn wrong(&self, key: &str, why: impl Into<String>) -> RouteError {
        let at = self.get(key).map_or(self.at, |value| value.span().start);
        self.fail(at, format!("{key}: {}", why.into()))
    }

    /// Returns the error about a value of the wrong type.
    pub fn unexpected(&self, key: &str, expected: &str) -> RouteError {
        let found = self.get(key).map_or("nothing", |value| value.get_ref().type_str());
        self.wrong(key, format!("expected {expected}; found {found}"))
    }

    pub fn get(&self, key: &str) -> Option<&'a FileValue<'a>> {
        self.table.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, RouteError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.get_ref().as_str();
        text.map(Some).ok_or_else(|| self.unexpected(key, "a string in quotes"))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, RouteError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let on = value.get_ref().as_bool();
        on.map(Some).ok_or_else(|| self.unexpected(key, "true or false"))
    }

    /// Returns a whole number in a range.
    pub fn count(&self, key: &str, most: usize) -> Result<Option<usize>, RouteError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(number) = value.get_ref().as_integer() else {
            return Err(self.unexpected(key, "a whole number"));
        };
        let count = usize::from_str_radix(number.as_str(), number.radix()).ok();
        let within = count.filter(|count| (1..=most).contains(count));
        let refused =
            || self.wrong(key, format!("{number} is out of range; accepted: 1 to {most}"));
        within.map(Some).ok_or_else(refused)
    }

    /// Returns the elements of an array.
    pub fn list(&self, key: &str, expected: &str) -> Result<&'a [FileValue<'a>], RouteError> {
        let Some(value) = self.get(key) else { return Ok(&[]) };
        let list = value.get_ref().as_array();
        list.map(|list| &**list).ok_or_else(|| self.unexpected(key, expected))
    }
}

/// Returns the name of a route in errors: its kind, its place, and a key that tells it apart.
pub fn title(kind: &str, at: usize, value: &FileValue<'_>, keys: [&str; 2]) -> String {
    let table = value.get_ref().as_table();
    let named = keys.iter().find_map(|key| Some((key, table?.get(*key)?.get_ref().as_str()?)));
    match named {
        Some((key, name)) => format!("socketio.{kind} {} ({key} {name:?})", at + 1),
        None => format!("socketio.{kind} {}", at + 1),
    }
}

/// Returns the namespace that a route names.
pub fn namespace_of(entry: &FileTable<'_>, routes: &EventRoutes) -> Result<u8, RouteError> {
    let name = entry.text("namespace")?.unwrap_or("/");
    routes.namespace(name).ok_or_else(|| {
        let names: Vec<_> = routes.namespaces.iter().map(|known| known.name.as_str()).collect();
        let why = format!("'{name}' is not in namespaces; accepted: {}", names.join(", "));
        entry.wrong("namespace", why)
    })
}

/// Checks the name of an event.
pub fn check_event(name: &str) -> Result<(), String> {
    if is_reserved(name) {
        return Err(format!("'{name}' is reserved by Socket.IO; accepted: any other name"));
    }
    if name.is_empty() || name.len() > EVENT_NAME_MAX {
        return Err(format!("expected a name of 1 to {EVENT_NAME_MAX} bytes"));
    }
    Ok(())
}

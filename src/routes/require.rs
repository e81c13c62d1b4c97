//! Reads `require` of a route, and gives the placeholders that follow from it.

use super::requirement::{ArgumentRules, Requirement};
use super::table::{FileTable, FileValue, RouteError};
use super::template::{FoundPlaceholder, NamedPlaceholders, Placeholder};

/// Reads `require`: one requirement, a table of fields, or a list of these.
pub fn requirements(entry: &FileTable<'_>) -> Result<ArgumentRules, RouteError> {
    let mut rules = ArgumentRules::default();
    let Some(value) = entry.get("require") else { return Ok(rules) };
    match value.get_ref().as_array() {
        None => push_argument(entry, value, &mut rules)?,
        Some(list) if list.is_empty() => {
            return Err(entry.wrong("require", "the list is empty; leave it out for no argument"));
        }
        Some(list) => list.iter().try_for_each(|value| push_argument(entry, value, &mut rules))?,
    }
    Ok(rules)
}

fn push_argument(
    entry: &FileTable<'_>,
    value: &FileValue<'_>,
    rules: &mut ArgumentRules,
) -> Result<(), RouteError> {
    let wrong = |at: usize, why: String| entry.fail(at, format!("require: {why}"));
    let requirement = |value: &FileValue<'_>| {
        let at = value.span().start;
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| {
            let found = value.get_ref().type_str();
            wrong(at, format!("expected a type such as \"integer 0..99\"; found {found}"))
        })?;
        Requirement::parse(text).map_err(|why| wrong(at, why))
    };
    let at = value.span().start;
    let Some(table) = value.get_ref().as_table() else {
        let one = requirement(value)?;
        if one.optional {
            let accepted = "a field of an object may be; leave out the ?";
            return Err(wrong(at, format!("an argument cannot be optional; accepted: {accepted}")));
        }
        rules.push_value(one);
        return Ok(());
    };
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let mut fields: Vec<(String, Requirement)> = Vec::new();
    for (key, value) in keys {
        let (at, name) = (key.span().start, key.get_ref().as_ref());
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || name == "sid" || name.starts_with("auth.") || name.contains(['{', '}']) {
            let why = format!("the field '{name}' could not have a placeholder");
            return Err(wrong(
                at,
                format!("{why}; accepted: any name but sid, auth.… or a number"),
            ));
        }
        if rules.field(name).is_some() {
            return Err(wrong(at, format!("another argument has the field '{name}' too")));
        }
        fields.push((name.into(), requirement(value)?));
    }
    if fields.is_empty() {
        return Err(wrong(at, "the table is empty; accepted: fields and their types".into()));
    }
    rules.push_object(fields);
    Ok(())
}

/// The placeholders of a route.
pub struct EventPlaceholders<'a> {
    pub rules: &'a ArgumentRules,
    pub auth_rules: &'a ArgumentRules,
    /// The leaves of `auth` that some route uses.
    pub kept_auth: &'a mut Vec<usize>,
}

impl NamedPlaceholders for EventPlaceholders<'_> {
    fn find(&mut self, name: &str) -> Result<FoundPlaceholder, String> {
        if name == "sid" {
            return Ok(FoundPlaceholder { placeholder: Placeholder::Sid, names_channels: true });
        }
        if let Some((leaf, requirement)) =
            name.strip_prefix("auth.").and_then(|field| self.auth_rules.field(field))
        {
            let known = self.kept_auth.iter().position(|kept| *kept == leaf);
            let at = known.unwrap_or(self.kept_auth.len());
            if known.is_none() {
                self.kept_auth.push(leaf);
            }
            return Ok(FoundPlaceholder {
                placeholder: Placeholder::Auth(at),
                names_channels: requirement.names_channels(),
            });
        }
        // One number has one name: neither {+1} nor {00}.
        if let Ok(argument) = name.parse::<usize>()
            && argument.to_string() == name
            && argument < self.rules.len()
        {
            let names_channels =
                self.rules.value(argument).is_some_and(Requirement::names_channels);
            return Ok(FoundPlaceholder {
                placeholder: Placeholder::Argument(argument),
                names_channels,
            });
        }
        if let Some((leaf, requirement)) = self.rules.field(name) {
            let names_channels = requirement.names_channels();
            return Ok(FoundPlaceholder { placeholder: Placeholder::Leaf(leaf), names_channels });
        }
        Err(self.unknown(name))
    }
}

impl EventPlaceholders<'_> {
    fn unknown(&self, name: &str) -> String {
        let fields = self.rules.fields().map(|name| format!("{{{name}}}"));
        let arguments = (0..self.rules.len()).map(|at| format!("{{{at}}}"));
        let auth = self.auth_rules.fields().map(|name| format!("{{auth.{name}}}"));
        let known: Vec<_> = fields.chain(arguments).chain(auth).chain(["{sid}".into()]).collect();
        let why = match name.starts_with("auth.") {
            true => "only fields that a route of connect requires of auth have a placeholder",
            false => "only fields and arguments listed in require have a placeholder",
        };
        format!("there is no {{{name}}}, as {why}; accepted: {}", known.join(", "))
    }
}

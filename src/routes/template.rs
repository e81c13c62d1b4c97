//! Texts of the configuration with placeholders: names of channels, and JSON.
//!
//! `{field}` is a field of an argument, `{0}` the first argument, `{sid}` the socket's number, and
//! `{auth.field}` a field of what the client gave when it connected. `{{` and `}}` are braces.

use std::borrow::Cow;

use serde_json::value::RawValue;
use toml::Spanned;
use toml::de::DeValue;

use super::requirement::{CheckedArguments, quoted};
use crate::codec::engineio::SID_LENGTH;
use crate::codec::json::JsonText;
use crate::limits::{CHANNEL_NAME, DATA_LEVELS_MAX, NAME_VALUE_MAX};

/// The source of a placeholder's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    Leaf(usize),
    Argument(usize),
    Sid,
    /// The position among the fields of `auth` that are kept.
    Auth(usize),
}

/// A placeholder that exists.
pub struct FoundPlaceholder {
    pub placeholder: Placeholder,
    /// True if its values may be a part of a channel's name.
    pub names_channels: bool,
}

/// The placeholders that a text may have.
pub trait NamedPlaceholders {
    /// Returns the placeholder of this name. An error says which are accepted.
    fn find(&mut self, name: &str) -> Result<FoundPlaceholder, String>;
}

/// The values of placeholders, as JSON texts.
pub struct PlaceholderValues<'a> {
    pub checked: &'a CheckedArguments,
    pub sid: &'a str,
    /// The fields of `auth` that are kept; `null` for one that is missing.
    pub auth: Vec<&'a RawValue>,
}

impl PlaceholderValues<'_> {
    /// Returns the JSON text of a value. `None`: the value is missing.
    fn json(&self, placeholder: &Placeholder) -> Option<Cow<'_, str>> {
        let text = match placeholder {
            Placeholder::Leaf(at) => self.checked.leaves.get(*at)?.as_deref()?,
            Placeholder::Argument(at) => self.checked.arguments.get(*at)?,
            Placeholder::Sid => return Some(quoted(self.sid).into()),
            Placeholder::Auth(at) => self.auth.get(*at)?.get(),
        };
        Some(text.into())
    }

    /// Returns the content of a string, or the JSON text of another value.
    fn text(&self, placeholder: &Placeholder) -> Option<String> {
        let json = self.json(placeholder)?;
        if !json.starts_with('"') {
            return Some(json.into_owned());
        }
        serde_json::from_str(&json).ok().map(|JsonText(text)| text.into_owned())
    }
}

/// A part of a text in the configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum TextPart {
    Literal(String),
    Name(String),
}

/// Splits a text at its placeholders.
pub fn parts(text: &str) -> Result<Vec<TextPart>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = behind;
            continue;
        }
        let end = rest.find(['{', '}']).filter(|end| brace == "{" && rest[*end..].starts_with('}'));
        let Some(end) = end else {
            return Err(format!(
                "'{text}' has a lone {brace}; accepted: a placeholder such as {{sid}}, or \
                 {brace}{brace} for the brace itself"
            ));
        };
        if !literal.is_empty() {
            parts.push(TextPart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(TextPart::Name(rest[..end].into()));
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TextPart::Literal(literal));
    }
    Ok(parts)
}

/// The name of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTemplate {
    /// Begins with a literal. Between two placeholders there is one.
    parts: Vec<NamePart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamePart {
    Literal(String),
    Placeholder(Placeholder, String),
}

impl ChannelTemplate {
    /// Reads a name. It begins with a literal, so that no client can name any channel it likes.
    pub fn read(
        text: &str,
        placeholders: &mut dyn NamedPlaceholders,
    ) -> Result<ChannelTemplate, String> {
        let mut name = Vec::new();
        for part in parts(text)? {
            let part = match part {
                TextPart::Literal(literal) => NamePart::Literal(literal),
                TextPart::Name(placeholder) => {
                    let found = placeholders.find(&placeholder)?;
                    let shown = format!("{{{placeholder}}}");
                    if !found.names_channels {
                        return Err(format!(
                            "'{text}': {shown} may not be in the name of a channel; accepted: a \
                             required integer, boolean or string"
                        ));
                    }
                    match name.last() {
                        Some(NamePart::Literal(_)) => {
                            NamePart::Placeholder(found.placeholder, shown)
                        }
                        Some(NamePart::Placeholder(..)) => {
                            return Err(format!(
                                "'{text}': nothing separates {shown} from the placeholder before \
                                 it; accepted: a text between them, such as a full stop"
                            ));
                        }
                        None => {
                            return Err(format!(
                                "'{text}' begins with a placeholder, so a client could name any \
                                 channel; accepted: a fixed beginning, such as room.{shown}"
                            ));
                        }
                    }
                }
            };
            name.push(part);
        }
        let name = ChannelTemplate { parts: name };
        if let Some((shown, letter)) = name.unseparated() {
            return Err(format!(
                "'{text}': '{letter}' beside {shown} could be a part of its value; accepted: a \
                 separator, such as room.{shown}"
            ));
        }
        let wrong = if text.is_empty() {
            "is empty"
        } else if text.len() > CHANNEL_NAME {
            "is too long"
        } else if text.chars().any(char::is_control) {
            "has a control character"
        } else {
            return Ok(name);
        };
        Err(format!(
            "the name of a channel {wrong}; accepted: 1 to {CHANNEL_NAME} bytes without control \
             characters"
        ))
    }

    /// Returns the first placeholder beside a letter or digit, which its values could not have.
    fn unseparated(&self) -> Option<(&str, char)> {
        self.parts.iter().enumerate().find_map(|(at, part)| {
            let NamePart::Placeholder(placeholder, shown) = part else { return None };
            if *placeholder == Placeholder::Sid {
                return None;
            }
            let letter = self.separators(at).into_iter().flatten().find(|c| c.is_alphanumeric());
            Some((shown.as_str(), letter?))
        })
    }

    /// Returns the name for an event. An error is for the sender of the event.
    pub fn fill(&self, values: &PlaceholderValues<'_>) -> Result<Vec<u8>, String> {
        let mut name = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                NamePart::Literal(literal) => name.extend_from_slice(literal.as_bytes()),
                NamePart::Placeholder(placeholder, shown) => {
                    let text =
                        values.text(placeholder).ok_or_else(|| format!("{shown} is missing"))?;
                    // A sid has a fixed length, and the server makes it.
                    if *placeholder != Placeholder::Sid {
                        let checked = check_name_value(&text, self.separators(at));
                        checked.map_err(|why| format!("{shown} {why}"))?;
                    }
                    name.extend_from_slice(text.as_bytes());
                }
            }
        }
        Ok(name)
    }

    /// Returns the characters before and behind a placeholder. With one of them in a value, two
    /// different events could mean one channel: a.b and c, or a and b.c.
    fn separators(&self, at: usize) -> [Option<char>; 2] {
        let literal = |at: usize| match self.parts.get(at) {
            Some(NamePart::Literal(literal)) => literal.as_str(),
            _ => "",
        };
        [literal(at.wrapping_sub(1)).chars().next_back(), literal(at + 1).chars().next()]
    }

    /// Returns true if some event may have the same name by both templates.
    pub fn overlaps(&self, other: &ChannelTemplate) -> bool {
        let others = other.steps();
        // The positions in `others` to which some text leads that leads to this one of `own`.
        let mut reached = vec![false; others.len() + 1];
        reached[0] = true;
        for step in self.steps() {
            let mut next = vec![false; others.len() + 1];
            for (at, other) in others.iter().enumerate() {
                if reached[at] && step.shares_a_character(*other) {
                    // A value may end with this character, or go on.
                    next[at + 1] = true;
                    next[at] |= other.is_value();
                    reached[at + 1] |= step.is_value();
                }
            }
            if !next.contains(&true) {
                return false;
            }
            reached = next;
        }
        reached[others.len()]
    }

    fn steps(&self) -> Vec<NameStep> {
        let mut steps = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                NamePart::Literal(literal) => steps.extend(literal.chars().map(NameStep::One)),
                NamePart::Placeholder(Placeholder::Sid, _) => {
                    steps.extend([NameStep::OfSid; SID_LENGTH]);
                }
                NamePart::Placeholder(..) => steps.push(NameStep::Value(self.separators(at))),
            }
        }
        steps
    }

    /// Returns true if both have the same texts around their placeholders, so that one route may
    /// publish to what another joins.
    pub fn has_form_of(&self, other: &ChannelTemplate) -> bool {
        let forms = |one: &NamePart, two: &NamePart| match (one, two) {
            (NamePart::Literal(one), NamePart::Literal(two)) => one == two,
            (NamePart::Placeholder(..), NamePart::Placeholder(..)) => true,
            _ => false,
        };
        let mut pairs = self.parts.iter().zip(&other.parts);
        self.parts.len() == other.parts.len() && pairs.all(|(one, two)| forms(one, two))
    }

    pub fn has_placeholders(&self) -> bool {
        self.parts.len() > 1
    }

    /// Returns the name, if it has no placeholders.
    pub fn literal(&self) -> String {
        match &self.parts[..] {
            [NamePart::Literal(name)] => name.clone(),
            _ => String::new(),
        }
    }
}

/// A step in a name.
#[derive(Clone, Copy)]
enum NameStep {
    One(char),
    /// One character of a sid.
    OfSid,
    /// The value of a placeholder, which has none of its separators.
    Value([Option<char>; 2]),
}

impl NameStep {
    fn is_value(self) -> bool {
        matches!(self, NameStep::Value(_))
    }

    fn shares_a_character(self, other: NameStep) -> bool {
        match (self, other) {
            (NameStep::One(one), NameStep::One(two)) => one == two,
            (NameStep::One(one), NameStep::Value(without))
            | (NameStep::Value(without), NameStep::One(one)) => !without.contains(&Some(one)),
            (NameStep::One(one), NameStep::OfSid) | (NameStep::OfSid, NameStep::One(one)) => {
                one.is_ascii_alphanumeric() || "-_".contains(one)
            }
            _ => true,
        }
    }
}

/// Checks the value of a placeholder in the name of a channel.
fn check_name_value(text: &str, separators: [Option<char>; 2]) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > NAME_VALUE_MAX {
        return Err(format!("is longer than {NAME_VALUE_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character".into());
    }
    match separators.into_iter().flatten().find(|separator| text.contains(*separator)) {
        Some(separator) => {
            Err(format!("has '{separator}', which separates it in the name of the channel"))
        }
        None => Ok(()),
    }
}

/// A JSON value with placeholders. A string that is one placeholder becomes its value, of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonTemplate {
    parts: Vec<JsonPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum JsonPart {
    Raw(String),
    /// A value.
    Value(Placeholder),
    /// A text inside a string.
    Text(Placeholder),
}

/// Why a value of the configuration is no JSON: where it stands, and the error.
pub type MisplacedValue = (usize, String);

impl JsonTemplate {
    /// Reads a value of the configuration.
    pub fn read(
        value: &Spanned<DeValue<'_>>,
        placeholders: &mut dyn NamedPlaceholders,
    ) -> Result<JsonTemplate, MisplacedValue> {
        let mut template = JsonTemplate { parts: Vec::new() };
        template.push(value, placeholders, 0)?;
        Ok(template)
    }

    /// Returns the template of one placeholder's value.
    pub fn of(placeholder: Placeholder) -> JsonTemplate {
        JsonTemplate { parts: vec![JsonPart::Value(placeholder)] }
    }

    fn push(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        placeholders: &mut dyn NamedPlaceholders,
        depth: usize,
    ) -> Result<(), MisplacedValue> {
        let start = value.span().start;
        let fail = |why: String| (start, why);
        let is_nested = matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        if is_nested && depth == DATA_LEVELS_MAX {
            let most = format!("up to {DATA_LEVELS_MAX} levels of tables and arrays");
            return Err(fail(format!("the value is too deep; accepted: {most}")));
        }
        match value.get_ref() {
            DeValue::String(text) => self.push_text(text, placeholders).map_err(fail)?,
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                let number =
                    number.map_err(|_| fail("expected an integer of 64 bits".to_string()))?;
                self.raw(&number.to_string());
            }
            DeValue::Float(number) => {
                let number: f64 = number.as_str().parse().unwrap_or(f64::NAN);
                let finite = Some(number).filter(|number| number.is_finite());
                let text = finite.and_then(|number| serde_json::to_string(&number).ok());
                let text =
                    text.ok_or_else(|| fail("expected a number; JSON has no nan or inf".into()))?;
                self.raw(&text);
            }
            DeValue::Boolean(on) => self.raw(if *on { "true" } else { "false" }),
            DeValue::Datetime(_) => {
                return Err(fail("expected a value of JSON; found a date or time".into()));
            }
            DeValue::Array(values) => {
                self.raw("[");
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        self.raw(",");
                    }
                    self.push(value, placeholders, depth + 1)?;
                }
                self.raw("]");
            }
            DeValue::Table(table) => {
                self.raw("{");
                let mut fields: Vec<_> = table.iter().collect();
                fields.sort_by_key(|(key, _)| key.span().start);
                for (at, (key, value)) in fields.into_iter().enumerate() {
                    if key.get_ref().contains(['{', '}']) {
                        let why = "a key has no placeholders; accepted: a key without braces";
                        return Err((key.span().start, why.into()));
                    }
                    let comma = if at > 0 { "," } else { "" };
                    self.raw(&format!("{comma}{}:", quoted(key.get_ref())));
                    self.push(value, placeholders, depth + 1)?;
                }
                self.raw("}");
            }
        }
        Ok(())
    }

    fn push_text(
        &mut self,
        text: &str,
        placeholders: &mut dyn NamedPlaceholders,
    ) -> Result<(), String> {
        let parts = parts(text)?;
        if let [TextPart::Name(name)] = &parts[..] {
            let found = placeholders.find(name)?;
            self.parts.push(JsonPart::Value(found.placeholder));
            return Ok(());
        }
        self.raw("\"");
        for part in parts {
            match part {
                TextPart::Literal(literal) => self.raw(within_quotes(&quoted(&literal))),
                TextPart::Name(name) => {
                    let found = placeholders.find(&name)?;
                    self.parts.push(JsonPart::Text(found.placeholder));
                }
            }
        }
        self.raw("\"");
        Ok(())
    }

    fn raw(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(JsonPart::Raw(before)) => before.push_str(text),
            _ => self.parts.push(JsonPart::Raw(text.into())),
        }
    }

    /// Appends the JSON text for an event. A value that is missing is `null`, or nothing inside a
    /// string.
    pub fn fill(&self, values: &PlaceholderValues<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                JsonPart::Raw(text) => out.extend_from_slice(text.as_bytes()),
                JsonPart::Value(placeholder) => {
                    let text = values.json(placeholder).unwrap_or("null".into());
                    out.extend_from_slice(text.as_bytes());
                }
                JsonPart::Text(placeholder) => {
                    let text = quoted(&values.text(placeholder).unwrap_or_default());
                    out.extend_from_slice(within_quotes(&text).as_bytes());
                }
            }
        }
    }

    /// Returns true if the whole value is one placeholder's.
    pub fn is_placeholder(&self) -> bool {
        matches!(self.parts[..], [JsonPart::Value(_)])
    }
}

fn within_quotes(text: &str) -> &str {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
}

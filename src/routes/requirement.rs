//! What an event's arguments must be: `require` of a route, and its check.
//!
//! A value that passes is written anew, so that equal values have equal texts, and so that nothing
//! passes but what is required.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::json::{self, JsonText};

const HELP: &str = "integer, number, boolean, string or any; integer, number and string with a \
                    range, such as \"integer 0..99\" or \"string 1..20\" (bytes); a ? behind the \
                    type of a field that may be missing, such as \"string? 1..20\"";

/// Integers that JavaScript has exactly.
const SAFE: i64 = (1 << 53) - 1;

/// The type and the range of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueType {
    Integer(i64, i64),
    Number(f64, f64),
    Boolean,
    /// The length in bytes.
    Text(usize, usize),
    Any,
}

/// What one value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirement {
    pub kind: ValueType,
    pub optional: bool,
}

impl Requirement {
    /// Reads a text such as `integer 0..99`.
    pub fn parse(text: &str) -> Result<Requirement, String> {
        let unknown = || format!("'{text}' is not a type; accepted: {HELP}");
        let mut words = text.split_ascii_whitespace();
        let name = words.next().ok_or_else(unknown)?;
        let (name, optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let range = words.next().map(|range| range.split_once("..").ok_or_else(unknown));
        let range = range.transpose()?;
        if words.next().is_some() {
            return Err(unknown());
        }
        let kind = match (name, range) {
            ("integer", None) => ValueType::Integer(-SAFE, SAFE),
            ("integer", Some(range)) => {
                let (least, most) = bounds::<i64>(range).ok_or_else(unknown)?;
                if least < -SAFE || most > SAFE {
                    let accepted = format!("up to {SAFE}, as JavaScript has no larger integers");
                    return Err(format!("'{text}' is too large a range; accepted: {accepted}"));
                }
                ValueType::Integer(least, most)
            }
            ("number", None) => ValueType::Number(f64::MIN, f64::MAX),
            ("number", Some(range)) => {
                let (least, most) = bounds::<f64>(range).ok_or_else(unknown)?;
                if !(least.is_finite() && most.is_finite()) {
                    return Err(unknown());
                }
                ValueType::Number(least, most)
            }
            ("string", None) => ValueType::Text(0, usize::MAX),
            ("string", Some(range)) => {
                let (least, most) = bounds::<usize>(range).ok_or_else(unknown)?;
                ValueType::Text(least, most)
            }
            ("boolean", None) => ValueType::Boolean,
            ("any", None) => ValueType::Any,
            _ => return Err(unknown()),
        };
        let is_empty = match kind {
            ValueType::Integer(least, most) => least > most,
            ValueType::Number(least, most) => least > most,
            ValueType::Text(least, most) => least > most,
            ValueType::Boolean | ValueType::Any => false,
        };
        if is_empty {
            return Err(format!("'{text}' is an empty range; accepted: the lower bound first"));
        }
        Ok(Requirement { kind, optional })
    }

    /// Returns the JSON text of a value that is as required. `None`: it is not.
    fn check(self, value: &RawValue) -> Option<String> {
        let text = value.get();
        match self.kind {
            ValueType::Integer(least, most) => {
                let number: i64 = serde_json::from_str(text).ok()?;
                (least..=most).contains(&number).then(|| number.to_string())
            }
            ValueType::Number(least, most) => {
                let number: f64 = serde_json::from_str(text).ok()?;
                let is_within = number.is_finite() && (least..=most).contains(&number);
                let whole = serde_json::from_str::<i64>(text).map(|whole| whole.to_string());
                is_within.then(|| whole.or_else(|_| serde_json::to_string(&number)).ok())?
            }
            ValueType::Boolean => matches!(text, "true" | "false").then(|| text.to_string()),
            ValueType::Text(least, most) => {
                let JsonText(content) = serde_json::from_str(text).ok()?;
                (least..=most).contains(&content.len()).then(|| quoted(&content))
            }
            ValueType::Any => Some(text.to_string()),
        }
    }

    /// Returns true if a value may be a part of a channel's name.
    pub fn names_channels(self) -> bool {
        !self.optional
            && matches!(
                self.kind,
                ValueType::Integer(..) | ValueType::Boolean | ValueType::Text(..)
            )
    }
}

/// Shows the type as it is written in the file, without the `?`.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ValueType::Integer(least, most) if (least, most) == (-SAFE, SAFE) => {
                f.write_str("integer")
            }
            ValueType::Integer(least, most) => write!(f, "integer {least}..{most}"),
            ValueType::Number(f64::MIN, f64::MAX) => f.write_str("number"),
            ValueType::Number(least, most) => write!(f, "number {least}..{most}"),
            ValueType::Boolean => f.write_str("boolean"),
            ValueType::Text(0, usize::MAX) => f.write_str("string"),
            ValueType::Text(least, most) => write!(f, "string {least}..{most}"),
            ValueType::Any => f.write_str("any"),
        }
    }
}

fn bounds<T: std::str::FromStr>((least, most): (&str, &str)) -> Option<(T, T)> {
    Some((least.parse().ok()?, most.parse().ok()?))
}

/// What all arguments of an event must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArgumentRules {
    /// The leaves: a field of an argument that is an object, or an argument that is none.
    leaves: Vec<(String, Requirement)>,
    arguments: Vec<ArgumentRule>,
}

#[derive(Clone, Debug, PartialEq)]
enum ArgumentRule {
    Value(usize),
    Object(Range<usize>),
}

/// The JSON texts of arguments that have passed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CheckedArguments {
    /// One for each leaf; `None`: an optional field is missing.
    pub leaves: Vec<Option<String>>,
    pub arguments: Vec<String>,
}

impl ArgumentRules {
    /// Adds an argument that is no object.
    pub fn push_value(&mut self, requirement: Requirement) {
        self.arguments.push(ArgumentRule::Value(self.leaves.len()));
        self.leaves.push((self.arguments.len().to_string(), requirement));
    }

    /// Adds an argument that is an object with these fields.
    pub fn push_object(&mut self, fields: Vec<(String, Requirement)>) {
        let start = self.leaves.len();
        self.leaves.extend(fields);
        self.arguments.push(ArgumentRule::Object(start..self.leaves.len()));
    }

    /// Returns the number of arguments.
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// Returns the requirement of an argument that is no object.
    pub fn value(&self, argument: usize) -> Option<Requirement> {
        match self.arguments.get(argument)? {
            ArgumentRule::Value(leaf) => Some(self.leaves[*leaf].1),
            ArgumentRule::Object(_) => None,
        }
    }

    /// Returns the leaf of a field, and its requirement.
    pub fn field(&self, name: &str) -> Option<(usize, Requirement)> {
        let is_field = |leaf| {
            let holds = |rule: &ArgumentRule| match rule {
                ArgumentRule::Object(leaves) => leaves.contains(&leaf),
                ArgumentRule::Value(_) => false,
            };
            self.arguments.iter().any(holds)
        };
        let at = (0..self.leaves.len()).find(|at| self.leaves[*at].0 == name && is_field(*at))?;
        Some((at, self.leaves[at].1))
    }

    /// Returns the names of all fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().map(|(name, _)| name.as_str()).filter(|name| self.field(name).is_some())
    }

    /// Checks the arguments of an event.
    pub fn check(&self, arguments: &[&RawValue]) -> Result<CheckedArguments, String> {
        if arguments.len() != self.arguments.len() {
            let found = arguments.len();
            return Err(match self.arguments.len() {
                0 => format!("expected no argument; found {found}"),
                1 => format!("expected one argument; found {found}"),
                count => format!("expected {count} arguments; found {found}"),
            });
        }
        let mut checked =
            CheckedArguments { leaves: vec![None; self.leaves.len()], ..Default::default() };
        for (rule, value) in self.arguments.iter().zip(arguments) {
            let text = match rule {
                ArgumentRule::Value(leaf) => {
                    let (number, requirement) = &self.leaves[*leaf];
                    let named = || format!("argument {number}");
                    let text =
                        requirement.check(value).ok_or_else(|| unfit(&named(), requirement, value));
                    let text = text?;
                    checked.leaves[*leaf] = Some(text.clone());
                    text
                }
                ArgumentRule::Object(leaves) => {
                    self.check_object(value, leaves.clone(), &mut checked, false)?
                }
            };
            checked.arguments.push(text);
        }
        Ok(checked)
    }

    /// Checks the `auth` of a CONNECT against the first argument. Other fields, such as a password,
    /// are dropped.
    pub fn check_auth(&self, auth: Option<&RawValue>) -> Result<CheckedArguments, String> {
        let mut checked =
            CheckedArguments { leaves: vec![None; self.leaves.len()], ..Default::default() };
        if let Some(ArgumentRule::Object(leaves)) = self.arguments.first() {
            let empty = RawValue::NULL;
            let auth = auth.unwrap_or(empty);
            let text = self.check_object(auth, leaves.clone(), &mut checked, true)?;
            checked.arguments.push(text);
        }
        Ok(checked)
    }

    /// Checks an argument that is an object, and returns it with the required fields in the order
    /// of the file.
    fn check_object(
        &self,
        value: &RawValue,
        leaves: Range<usize>,
        checked: &mut CheckedArguments,
        drops_others: bool,
    ) -> Result<String, String> {
        let rules = &self.leaves[leaves.clone()];
        let names = || rules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let fields = match serde_json::from_str(value.get()) {
            Ok(JsonFields(fields)) => fields,
            Err(_) if drops_others && value.get() == "null" => Vec::new(),
            Err(_) => return Err(format!("expected an object with {}", names())),
        };
        for (name, value) in fields {
            let Some(at) = rules.iter().position(|(known, _)| *known == name) else {
                if drops_others {
                    continue;
                }
                return Err(format!("unknown field {}; accepted: {}", shown(&name), names()));
            };
            let (_, requirement) = &rules[at];
            let text = requirement.check(value).ok_or_else(|| unfit(&name, requirement, value))?;
            if checked.leaves[leaves.start + at].replace(text).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        let mut object = String::from("{");
        for (at, (name, requirement)) in rules.iter().enumerate() {
            match &checked.leaves[leaves.start + at] {
                Some(text) => {
                    if object.len() > 1 {
                        object.push(',');
                    }
                    object.push_str(&quoted(name));
                    object.push(':');
                    object.push_str(text);
                }
                None if requirement.optional => {}
                None => return Err(format!("{name} is missing; expected {requirement}")),
            }
        }
        object.push('}');
        Ok(object)
    }
}

/// The fields of a JSON object, as they are there.
pub struct JsonFields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for JsonFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = JsonFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((JsonText(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(JsonFields(fields))
            }
        }
        deserializer.deserialize_map(FieldVisitor)
    }
}

/// Returns a JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// Longest text of a client that an error repeats, in bytes.
const SHOWN_MAX: usize = 32;

fn shown(name: &str) -> String {
    if name.len() <= SHOWN_MAX { format!("'{name}'") } else { "with a long name".into() }
}

fn unfit(name: &str, requirement: &Requirement, value: &RawValue) -> String {
    let text = value.get();
    let found = match text.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        _ if text.len() <= SHOWN_MAX => text,
        _ => "a long number",
    };
    format!("{name}: expected {requirement}; found {found}")
}

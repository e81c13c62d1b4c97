//! One setting: what its row in a table says, and how its values are read and written.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::str::FromStr;

use toml::Value;

/// What a row says to people.
pub struct About {
    /// As in the flag, in the file and in CONFIG.
    pub name: &'static str,
    /// The group of flags that it belongs to; empty for the first.
    pub heading: &'static str,
    /// Its documentation in the table: a paragraph of help, then perhaps one with the reason.
    pub text: &'static str,
    /// What a value looks like.
    pub hint: &'static str,
    pub form: ValueForm,
    /// The default in words, where it follows from other settings.
    pub follows: &'static str,
}

/// How values are given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ValueForm {
    /// One value: in a file a text or a bare number.
    Plain,
    /// On or off: the flag alone means on.
    Switch,
    /// Any number of values.
    List,
    /// One text, which in a file is never a bare number.
    Text,
}

/// A row of a table: a setting that lies somewhere in an `S`.
pub struct Row<S> {
    pub about: About,
    /// Takes what someone wrote.
    pub set: fn(&mut S, &[String]) -> Result<(), String>,
    /// The value as a file has it; `None` when there is none, or when it is a secret.
    pub get: fn(&S) -> Option<Value>,
    pub same: fn(&S, &S) -> bool,
    /// Whether the value is accepted, and which values are.
    pub range: fn(&S) -> Option<(bool, String)>,
    /// Sets what follows from other settings when nobody wrote a value.
    pub follow: fn(&mut S),
}

impl About {
    pub fn help(&self) -> String {
        self.paragraph(0).trim_end_matches('.').into()
    }

    pub fn reason(&self) -> String {
        self.paragraph(1)
    }

    fn paragraph(&self, index: usize) -> String {
        let lines = self.text.split("\n\n").nth(index).unwrap_or_default().lines();
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

/// How the values of a setting are written: a unit of measure, or a type of its own.
pub trait Notation {
    type Value: Clone + PartialEq;
    const HINT: &'static str;
    const FORM: ValueForm = ValueForm::Plain;

    fn read(texts: &[String]) -> Result<Self::Value, String>;
    fn write(value: &Self::Value) -> Option<Value>;
}

/// Reads the one value that there is.
pub fn one<T: FromStr<Err: Display>>(texts: &[String]) -> Result<T, String> {
    texts.last().map_or("", String::as_str).parse().map_err(|error: T::Err| error.to_string())
}

/// Writes a value that is a text in a file.
pub fn text(value: impl Display) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

/// A value as people read it.
pub fn shown(value: Option<Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => text,
        Some(Value::Array(texts)) => texts.into_iter().map(|text| shown(Some(text))).collect::<Vec<_>>().join(" "),
        Some(other) => other.to_string(),
    }
}

/// A plain number.
pub struct Count<T>(PhantomData<T>);

impl<T: FromStr<Err: Display> + Copy + PartialEq + TryInto<i64>> Notation for Count<T> {
    type Value = T;
    const HINT: &'static str = "COUNT";

    fn read(texts: &[String]) -> Result<T, String> {
        one(texts)
    }

    fn write(value: &T) -> Option<Value> {
        (*value).try_into().ok().map(Value::Integer)
    }
}

impl Notation for bool {
    type Value = bool;
    const HINT: &'static str = "true|false";
    const FORM: ValueForm = ValueForm::Switch;

    /// Redis writes yes and no.
    fn read(texts: &[String]) -> Result<bool, String> {
        match texts.last().map_or(String::new(), |text| text.to_ascii_lowercase()).as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }

    fn write(value: &bool) -> Option<Value> {
        Some(Value::Boolean(*value))
    }
}

/// Types whose values are texts in a file, around the value or the value itself.
macro_rules! texts {
    ($($hint:literal $unit:ident $(($value:ty))?;)*) => {$(
        impl $crate::setting::Notation for $unit {
            type Value = texts!(@first $($value,)? $unit);
            const HINT: &'static str = $hint;

            fn read(texts: &[String]) -> Result<Self::Value, String> {
                $crate::setting::one::<$unit>(texts)$(.map(|$unit(value)| -> $value { value }))?
            }

            fn write(value: &Self::Value) -> Option<toml::Value> {
                $crate::setting::text(texts!(@wrap value $unit $($value)?))
            }
        }
    )*};
    (@first $first:ty $(, $rest:ty)?) => { $first };
    (@wrap $name:ident $unit:ident) => { $name };
    (@wrap $name:ident $unit:ident $value:ty) => { $unit(*$name) };
}
pub(crate) use texts;

/// Whether a value is in its range, which may depend on other settings; and the range in words.
pub fn bounds<U: Notation, S, R>(set: &S, value: &U::Value, range: impl Fn(&S) -> R) -> (bool, String)
where
    U::Value: PartialOrd,
    R: RangeBounds<U::Value>,
{
    let range = range(set);
    let words = match (range.start_bound(), range.end_bound()) {
        (Bound::Included(least), Bound::Included(most)) => {
            format!("{} to {}", shown(U::write(least)), shown(U::write(most)))
        }
        (Bound::Included(least), _) => format!("{} or more", shown(U::write(least))),
        _ => String::new(),
    };
    (range.contains(value), words)
}

/// What follows from the settings given.
pub fn given<S, V>(set: &S, follow: impl Fn(&S) -> V) -> V {
    follow(set)
}

/// The range of a value for which zero has a meaning of its own.
pub fn or_zero<T: Default + PartialEq>(value: T, range: RangeInclusive<T>) -> RangeInclusive<T> {
    let (least, most) = range.into_inner();
    if value == T::default() { value..=most } else { least..=most }
}

/// `max_silent` as `max-silent`.
pub const fn kebab<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        let byte = name.as_bytes()[at];
        bytes[at] = if byte == b'_' { b'-' } else { byte };
        at += 1;
    }
    bytes
}

/// Makes a struct of settings, its defaults and its rows from one table. A row is
///
/// ```text
/// /// What it bounds, with the meaning of 0.
/// ///
/// /// Why the default is what it is.
/// name: Notation = default, in |all| least..=most, follows "the default in words", |all| all.other / 4;
/// ```
///
/// The documentation is the help of the flag, then the reason. `in` and `follows` may be left out. `in Limits[.sockets]` says
/// where in a `Limits` this struct lies.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $name:ident in $root:ident $place:tt as $rows:ident {
            $($heading:literal: $(
                $(#[doc = $doc:literal])+
                $field:ident: $unit:ty = $default:expr
                    $(, in $range:expr)? $(, follows $words:literal, $follow:expr)?;
            )+)+
            $(with $($more:ident: $type:ty),+;)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($($(#[doc = $doc])+ pub $field: <$unit as $crate::setting::Notation>::Value,)+)+
            $($(pub $more: $type,)+)?
        }

        impl Default for $name {
            fn default() -> $name {
                $name {
                    $($($field: $default,)+)+
                    $($($more: Default::default(),)+)?
                }
            }
        }

        pub static $rows: &[$crate::setting::Row<$root>] = &[$($($crate::setting::Row {
            about: $crate::setting::About {
                name: {
                    const NAME: [u8; stringify!($field).len()] = $crate::setting::kebab(stringify!($field));
                    match std::str::from_utf8(&NAME) {
                        Ok(name) => name,
                        Err(_) => stringify!($field),
                    }
                },
                heading: $heading,
                text: concat!($($doc, "\n"),+),
                hint: <$unit as $crate::setting::Notation>::HINT,
                form: <$unit as $crate::setting::Notation>::FORM,
                follows: concat!("" $(, $words)?),
            },
            set: |root, texts| {
                $crate::setting::settings!(@place root $place $field) =
                    <$unit as $crate::setting::Notation>::read(texts)?;
                Ok(())
            },
            get: |root| {
                <$unit as $crate::setting::Notation>::write(&$crate::setting::settings!(@place root $place $field))
            },
            same: |a, b| {
                $crate::setting::settings!(@place a $place $field)
                    == $crate::setting::settings!(@place b $place $field)
            },
            range: |root| {
                let _ = root;
                None$(.or(Some($crate::setting::bounds::<$unit, $root, _>(
                    root,
                    &$crate::setting::settings!(@place root $place $field),
                    $range,
                ))))?
            },
            follow: |root| {
                let _ = root;
                $(
                    $crate::setting::settings!(@place root $place $field) =
                        $crate::setting::given(&*root, $follow);
                )?
            },
        },)+)+];
    };
    (@place $root:ident [$($path:tt)*] $field:ident) => { $root $($path)* . $field };
}
pub(crate) use settings;

//! The rows of the tables of settings: their texts, and how values are read, written and checked.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::{RangeFrom, RangeInclusive};
use std::str::FromStr;

use toml::Value;

/// The texts of a row.
pub struct About {
    /// The name of the flag, the key of the file and the parameter of CONFIG.
    pub name: &'static str,
    /// The heading of its group of flags. The first group has none.
    pub heading: &'static str,
    /// Its documentation in the table: a paragraph of help, and an optional one with the reason.
    pub text: &'static str,
    /// The form of a value, such as COUNT.
    pub hint: &'static str,
    pub form: ValueForm,
    /// The default in words if it depends on other settings, otherwise empty.
    pub follows: &'static str,
}

/// The form in which values are given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ValueForm {
    /// One value. In a file it is a string or a bare number.
    Plain,
    /// True or false. The flag alone means true.
    Switch,
    /// Any number of values.
    List,
    /// Any number of values. In a file, each is a string or a table, which becomes a JSON object.
    Tables,
    /// One value. In a file it is a string.
    Text,
}

/// A row of a table: one setting, which is a field of `S` or of a struct in it.
pub struct Row<S> {
    pub about: About,
    /// Sets the value from the given texts. An error says which texts are accepted.
    pub set: fn(&mut S, &[String]) -> Result<(), String>,
    /// Returns the value as in a file. `None` when it is unset or secret.
    pub get: fn(&S) -> Option<Value>,
    /// Returns true when both have the same value.
    pub same: fn(&S, &S) -> bool,
    /// Returns whether the value is in its range, and the range in words. `None` without a range.
    pub range: fn(&S) -> Option<(bool, String)>,
    /// Derives the default from other settings, if it depends on them.
    pub follow: fn(&mut S),
}

impl About {
    /// Returns the help, without its final full stop.
    pub fn help(&self) -> String {
        self.paragraph(0).trim_end_matches('.').into()
    }

    /// Returns the reason for the default. It may be empty.
    pub fn reason(&self) -> String {
        self.paragraph(1)
    }

    fn paragraph(&self, index: usize) -> String {
        let lines = self.text.split("\n\n").nth(index).unwrap_or_default().lines();
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

/// The notation of a setting's values.
pub trait Notation {
    type Value: Clone + PartialEq;
    const HINT: &'static str;
    const FORM: ValueForm = ValueForm::Plain;

    /// Reads the given texts. An error says which texts are accepted.
    fn read(texts: &[String]) -> Result<Self::Value, String>;

    /// Returns the value as in a file. `None` when it is unset or secret.
    fn write(value: &Self::Value) -> Option<Value>;
}

/// Reads the last of the texts.
pub fn one<T: FromStr<Err: Display>>(texts: &[String]) -> Result<T, String> {
    texts.last().map_or("", String::as_str).parse().map_err(|error: T::Err| error.to_string())
}

/// Returns a value that is a string in a file.
pub fn text(value: impl Display) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

/// Returns a value of a file in the form that flags have.
pub fn shown(value: Option<Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => text,
        Some(Value::Array(texts)) => {
            texts.into_iter().map(|text| shown(Some(text))).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

const COUNT_HELP: &str = "expected a whole number, such as 100";

/// A number without a unit.
pub struct Count<T>(PhantomData<T>);

impl<T: FromStr<Err: Display> + Copy + PartialEq + TryInto<i64>> Notation for Count<T> {
    type Value = T;
    const HINT: &'static str = "COUNT";

    fn read(texts: &[String]) -> Result<T, String> {
        one(texts).map_err(|_| {
            let text = texts.last().map_or("", String::as_str);
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let wrong = if is_number { "the number is too large" } else { COUNT_HELP };
            wrong.into()
        })
    }

    fn write(value: &T) -> Option<Value> {
        (*value).try_into().ok().map(Value::Integer)
    }
}

impl Notation for bool {
    type Value = bool;
    const HINT: &'static str = "true|false";
    const FORM: ValueForm = ValueForm::Switch;

    /// Takes yes and no too, as Redis writes them.
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

/// Implements [`Notation`] for types that are strings in a file: the value's own type, or a
/// wrapper.
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

/// The values that a setting accepts.
pub trait Accepted<U: Notation> {
    fn contains(&self, value: &U::Value) -> bool;

    /// Returns the accepted values in words, such as "1 to 64".
    fn words(&self) -> String;
}

impl<U: Notation<Value: PartialOrd>> Accepted<U> for RangeInclusive<U::Value> {
    fn contains(&self, value: &U::Value) -> bool {
        self.contains(value)
    }

    fn words(&self) -> String {
        format!("{} to {}", shown(U::write(self.start())), shown(U::write(self.end())))
    }
}

impl<U: Notation<Value: PartialOrd>> Accepted<U> for RangeFrom<U::Value> {
    fn contains(&self, value: &U::Value) -> bool {
        self.contains(value)
    }

    fn words(&self) -> String {
        format!("{} or more", shown(U::write(&self.start)))
    }
}

/// A range, and zero, which has a special meaning.
pub struct OrZero<T>(pub RangeInclusive<T>);

impl<U: Notation<Value: PartialOrd + Default>> Accepted<U> for OrZero<U::Value> {
    fn contains(&self, value: &U::Value) -> bool {
        *value == U::Value::default() || self.0.contains(value)
    }

    fn words(&self) -> String {
        format!("0, or {}", Accepted::<U>::words(&self.0))
    }
}

/// Returns whether a value is accepted, and the accepted values in words. The range may depend on
/// other settings.
pub fn bounds<U: Notation, S, R>(
    set: &S,
    value: &U::Value,
    range: impl Fn(&S) -> R,
) -> (bool, String)
where
    R: Accepted<U>,
{
    let range = range(set);
    (range.contains(value), range.words())
}

/// Derives a value from other settings. It only fixes the closure's type for the macro.
pub fn given<S, V>(set: &S, follow: impl Fn(&S) -> V) -> V {
    follow(set)
}

/// Turns `max_silent` into `max-silent`.
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

/// Makes a struct of settings, its defaults and its rows from one table. A row has this form:
///
/// ```text
/// /// The help: what the setting bounds, its unit, and the meaning of 0.
/// ///
/// /// The reason for the default.
/// name: Notation = default, in |all| least..=most,
///     follows "the default in words", |all| all.other / 4;
/// ```
///
/// `in` and `follows` may be left out. `in Limits[.sockets]` gives the place of the struct in a
/// `Limits`.
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
                    const NAME: [u8; stringify!($field).len()] =
                        $crate::setting::kebab(stringify!($field));
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
                <$unit as $crate::setting::Notation>::write(
                    &$crate::setting::settings!(@place root $place $field),
                )
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

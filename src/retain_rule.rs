//! A rule of retained values: which messages of a channel the hub keeps for newcomers.

use std::collections::HashSet;
use std::str::FromStr;

use serde::Deserialize;

use crate::limits::{CHANNEL_NAME_MAX, RETAIN_RULES_MAX, RETAINED_KEYS, RETAINED_KEYS_MAX};

/// Keeps the last message of a channel, or the last of each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainRule {
    pub channel: String,
    /// The field of a JSON object that is the key of a message. `None`: one message is kept.
    pub key: Option<String>,
    /// Maximum number of keys.
    pub max: usize,
}

/// A rule as a JSON object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    channel: String,
    key: Option<String>,
    max: Option<usize>,
}

const EXPECTED: &str = "expected a channel, or JSON such as \
                        {\"channel\":\"cells\",\"key\":\"index\",\"max\":1000}";

impl RetainRule {
    /// Returns the rule that keeps the last message of a channel.
    pub fn last_of(channel: &str) -> RetainRule {
        RetainRule { channel: channel.into(), key: None, max: 1 }
    }
}

impl FromStr for RetainRule {
    type Err = String;

    fn from_str(text: &str) -> Result<RetainRule, String> {
        let rule = match text.starts_with('{') {
            false => RetainRule::last_of(text),
            true => {
                let RuleText { channel, key, max } =
                    serde_json::from_str(text).map_err(|error| format!("{EXPECTED}: {error}"))?;
                if max.is_some() && key.is_none() {
                    return Err("max limits the number of keys; it needs a key".into());
                }
                let most = if key.is_some() { RETAINED_KEYS } else { 1 };
                RetainRule { channel, key, max: max.unwrap_or(most) }
            }
        };
        if !(1..=CHANNEL_NAME_MAX).contains(&rule.channel.len()) {
            let length = rule.channel.len();
            return Err(format!(
                "the channel has {length} bytes; accepted: 1 to {CHANNEL_NAME_MAX} bytes"
            ));
        }
        if rule.key.as_deref() == Some("") {
            return Err("the key is empty; expected the name of a field, such as index".into());
        }
        if !(1..=RETAINED_KEYS_MAX).contains(&rule.max) {
            let max = rule.max;
            return Err(format!("max is {max}; accepted: 1 to {RETAINED_KEYS_MAX}"));
        }
        Ok(rule)
    }
}

/// Checks the channels of all rules.
pub fn check<'a, T: AsRef<[u8]> + 'a + ?Sized>(
    channels: impl Iterator<Item = &'a T>,
) -> Result<(), String> {
    let mut known = HashSet::new();
    for channel in channels.map(AsRef::as_ref) {
        if !known.insert(channel) {
            let channel = channel.escape_ascii();
            return Err(format!("the channel {channel} has two rules; accepted: one"));
        }
    }
    match known.len() {
        ..=RETAIN_RULES_MAX => Ok(()),
        rules => Err(format!("{rules} rules; accepted: up to {RETAIN_RULES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_channel_or_an_object() {
        let keyed = |max| RetainRule { channel: "a".into(), key: Some("k".into()), max };
        for (text, expected) in [
            ("news", Ok(RetainRule::last_of("news"))),
            ("a b,c=d", Ok(RetainRule::last_of("a b,c=d"))),
            (r#"{"channel":"{a}"}"#, Ok(RetainRule::last_of("{a}"))),
            (r#"{"channel":"a","key":"k"}"#, Ok(keyed(RETAINED_KEYS))),
            (r#"{"channel":"a","key":"k","max":1}"#, Ok(keyed(1))),
            (r#"{"channel":"a","key":"k","max":16777216}"#, Ok(keyed(1 << 24))),
            (r#"{"channel":"a","key":"k","max":16777217}"#, Err("accepted: 1 to 16777216")),
            (r#"{"channel":"a","key":"k","max":0}"#, Err("accepted: 1 to")),
            (r#"{"channel":"a","key":"k","max":-1}"#, Err("expected a channel")),
            (r#"{"channel":"a","max":5}"#, Err("it needs a key")),
            (r#"{"channel":"a","key":""}"#, Err("the key is empty")),
            (r#"{"channel":""}"#, Err("the channel has 0 bytes")),
            (r#"{"key":"k"}"#, Err("missing field `channel`")),
            (r#"{"channel":"a","keys":"k"}"#, Err("unknown field `keys`")),
            (r#"{"channel":"a""#, Err("expected a channel")),
            ("", Err("the channel has 0 bytes")),
        ] {
            match (text.parse::<RetainRule>(), expected) {
                (Ok(rule), Ok(expected)) => assert_eq!(rule, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        for (length, fits) in
            [(CHANNEL_NAME_MAX - 1, true), (CHANNEL_NAME_MAX, true), (CHANNEL_NAME_MAX + 1, false)]
        {
            assert_eq!("x".repeat(length).parse::<RetainRule>().is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn there_are_at_most_256_rules_and_one_for_each_channel() {
        for (rules, fits) in
            [(RETAIN_RULES_MAX - 1, true), (RETAIN_RULES_MAX, true), (RETAIN_RULES_MAX + 1, false)]
        {
            let channels: Vec<String> = (0..rules).map(|rule| rule.to_string()).collect();
            assert_eq!(check(channels.iter()).is_ok(), fits, "{rules}");
        }
        assert!(check(["a", "b", "a"].into_iter()).unwrap_err().contains("a has two rules"));
    }
}

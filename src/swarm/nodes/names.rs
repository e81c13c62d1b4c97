//! The channels and patterns of the three nodes.

use super::plan::NodesPlan;

/// The index of a name in [`NAMES`].
pub type NameIndex = u8;

/// A channel of this name is refused by the ACL in some seeds.
const DENIED: &str = "denied";

/// A channel of this name stays on its node in some seeds.
const KEPT: &str = "far";

/// The channels, then the patterns.
pub const NAMES: [&str; 9] = ["a", "b", "ab", "news", KEPT, DENIED, "*", "a*", "?"];

/// Number of channels. They come first.
pub const CHANNELS: u8 = 6;

/// The pattern of the witness of each node.
pub const ALL: NameIndex = CHANNELS;

/// Returns the text of a name.
pub fn text(name: NameIndex) -> &'static str {
    NAMES[name as usize]
}

pub fn is_pattern(name: NameIndex) -> bool {
    name >= CHANNELS
}

/// Returns the index of a text among the channels or the patterns.
pub fn find(text: &[u8], is_pattern: bool) -> Option<NameIndex> {
    let range = if is_pattern { CHANNELS..NAMES.len() as u8 } else { 0..CHANNELS };
    range.into_iter().find(|name| NAMES[*name as usize].as_bytes() == text)
}

/// Returns true if a message to `channel` reaches the subscribers of `name`.
pub fn reaches(channel: NameIndex, name: NameIndex) -> bool {
    match text(name) {
        "*" => true,
        "a*" => text(channel).starts_with('a'),
        "?" => text(channel).len() == 1,
        _ => channel == name,
    }
}

/// Returns true if the nodes share a channel over the broker.
pub fn is_shared(channel: NameIndex, plan: &NodesPlan) -> bool {
    !(plan.keeps_some && text(channel) == KEPT)
}

/// Returns true if the broker refuses a name.
pub fn is_denied(name: NameIndex, plan: &NodesPlan) -> bool {
    plan.denies_one && text(name) == DENIED
}

//! Which channels are shared with other hubs over the broker.

use super::notices::NOTICES;
use crate::broker_settings::SharedPattern;
use crate::hub::glob;

/// The patterns of the channels that are shared.
#[derive(Debug)]
pub struct SharedChannels {
    patterns: Vec<SharedPattern>,
    /// True if a pattern is a star alone.
    all: bool,
}

impl SharedChannels {
    pub fn new(patterns: &[SharedPattern]) -> SharedChannels {
        let all = patterns.iter().any(|pattern| &*pattern.0 == "*");
        SharedChannels { patterns: patterns.to_vec(), all }
    }

    /// Returns whether a channel is shared. Adds the steps that the search took. Those of notices
    /// are not: clients of the hub cannot publish there.
    pub fn has(&self, channel: &[u8], steps: &mut usize) -> bool {
        if channel.starts_with(NOTICES) {
            return false;
        }
        let mut patterns = self.patterns.iter();
        self.all || patterns.any(|one| glob::matches(one.0.as_bytes(), channel, steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_shared_if_a_pattern_matches_it() {
        let shared = |patterns: &[&str], channel: &[u8]| {
            let patterns: Vec<_> =
                patterns.iter().map(|text| SharedPattern((*text).into())).collect();
            SharedChannels::new(&patterns).has(channel, &mut 0)
        };
        assert!(shared(&["*"], b"news") && shared(&["*"], b""));
        assert!(shared(&["a", "news.*"], b"news.eu") && shared(&["a", "news.*"], b"a"));
        assert!(!shared(&["a", "news.*"], b"ab") && !shared(&[], b"a"));
        assert!(!shared(&["*"], b"slabd:kept:news") && shared(&["*"], b"slabd:kept"));
    }
}

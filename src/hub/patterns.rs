//! The index of all patterns: finds those that match a channel's name.
//!
//! Most patterns are a literal text with a star behind it, or no wildcard at all. Their texts are
//! in a hash table, so a publish looks up the beginnings of its channel's name and pays nothing for
//! the patterns that do not match. The hash of a beginning follows from that of the one before it.
//! The key of the hash is random, because peers choose the texts.
//!
//! The other patterns are tried one after the other. Their number is capped, and their price is
//! known before the first one is tried.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use thin_vec::ThinVec;

use super::glob::compiled::{Automaton, Outline};
use super::glob::{self, PatternShape};
use super::subscriptions::{TopicId, release_table, table_bytes};

/// All patterns.
pub struct Patterns {
    /// Hash of a literal text → the patterns of that text with a star behind it.
    prefixes: Texts,
    /// Hash of a literal text → the patterns that match it alone.
    exact: Texts,
    /// Lengths of the texts in `prefixes` in rising order, each with its number of patterns.
    lengths: Vec<(u32, u32)>,
    /// Number of patterns in `prefixes` and `exact`.
    indexed: usize,
    others: Vec<Other>,
    /// Memory outside the tables, in bytes: a running sum.
    held: usize,
    key: u64,
}

type Texts = HashMap<u64, ThinVec<TopicId>, BuildHasherDefault<Spread>>;

/// A pattern of another shape.
struct Other {
    topic: TopicId,
    outline: Outline,
    automaton: Box<Automaton>,
}

/// Matching a name was refused, because it would take too many steps.
#[derive(Debug, PartialEq, Eq)]
pub struct TooDear;

/// The prime modulus of the hash.
const MODULUS: u64 = (1 << 61) - 1;

impl Default for Patterns {
    fn default() -> Patterns {
        Patterns {
            prefixes: Texts::default(),
            exact: Texts::default(),
            lengths: Vec::new(),
            indexed: 0,
            others: Vec::new(),
            held: 0,
            key: RandomState::new().hash_one(0) % (MODULUS - 1) + 1,
        }
    }
}

impl Patterns {
    /// Adds a pattern.
    pub fn insert(&mut self, pattern: &[u8], topic: TopicId) {
        let (table, text) = match PatternShape::of(pattern) {
            PatternShape::Prefix(text) => {
                let length = text.len() as u32;
                match self.lengths.binary_search_by_key(&length, |(length, _)| *length) {
                    Ok(place) => self.lengths[place].1 += 1,
                    Err(place) => self.lengths.insert(place, (length, 1)),
                }
                (&mut self.prefixes, text)
            }
            PatternShape::Exact(text) => (&mut self.exact, text),
            PatternShape::Other => {
                let (automaton, outline) = Automaton::new(pattern);
                self.held += size_of::<Automaton>() + automaton.bytes();
                return self.others.push(Other { topic, outline, automaton: Box::new(automaton) });
            }
        };
        let list = table.entry(hash(&text, self.key)).or_default();
        self.held -= list_bytes(list);
        list.push(topic);
        self.held += list_bytes(list);
        self.indexed += 1;
    }

    /// Removes a pattern.
    pub fn remove(&mut self, pattern: &[u8], topic: TopicId) {
        let (table, text) = match PatternShape::of(pattern) {
            PatternShape::Prefix(text) => {
                let length = text.len() as u32;
                let place = self.lengths.binary_search_by_key(&length, |(length, _)| *length);
                if let Ok(place) = place {
                    self.lengths[place].1 -= 1;
                    if self.lengths[place].1 == 0 {
                        self.lengths.remove(place);
                    }
                }
                (&mut self.prefixes, text)
            }
            PatternShape::Exact(text) => (&mut self.exact, text),
            PatternShape::Other => {
                if let Some(place) = self.others.iter().position(|other| other.topic == topic) {
                    let removed = self.others.remove(place);
                    self.held -= size_of::<Automaton>() + removed.automaton.bytes();
                }
                return super::subscriptions::release(&mut self.others);
            }
        };
        let hash = hash(&text, self.key);
        let Some(list) = table.get_mut(&hash) else { return };
        self.held -= list_bytes(list);
        list.retain(|own| *own != topic);
        self.held += list_bytes(list);
        self.indexed -= 1;
        if list.is_empty() {
            self.held -= list_bytes(list);
            table.remove(&hash);
            release_table(table);
        }
    }

    /// Adds the patterns that match a channel's name to `found`. Returns the steps taken, or an
    /// error before any pattern of another shape is tried, if these would take more than
    /// `steps_max`. A step is about a nanosecond.
    pub fn find<'a>(
        &self,
        channel: &[u8],
        pattern: impl Fn(TopicId) -> &'a [u8],
        found: &mut Vec<TopicId>,
        steps_max: usize,
    ) -> Result<usize, TooDear> {
        if self.indexed > 0 {
            self.find_indexed(channel, pattern, found);
        }
        self.find_others(channel, found, steps_max)
    }

    /// Two texts may have the same hash, so the pattern is compared.
    fn find_indexed<'a>(
        &self,
        channel: &[u8],
        pattern: impl Fn(TopicId) -> &'a [u8],
        found: &mut Vec<TopicId>,
    ) {
        let is_match = |topic: &TopicId, length: usize| {
            pattern(*topic).get(..length) == Some(&channel[..length])
                || glob::matches(pattern(*topic), channel, &mut 0)
        };
        let mut add = |table: &Texts, hash: u64, length: usize| {
            let list = table.get(&hash).into_iter().flatten();
            found.extend(list.filter(|topic| is_match(topic, length)));
        };
        let (mut at, mut hashed) = (0, 0);
        // An empty name is matched by the empty pattern alone.
        let most = if channel.is_empty() { 0 } else { channel.len() + 1 };
        let lengths = self.lengths.iter().map(|(length, _)| *length as usize);
        for length in lengths.take_while(|length| *length < most) {
            hashed = hash_on(hashed, &channel[at..length], self.key);
            at = length;
            add(&self.prefixes, hashed, length);
        }
        // No pattern is longer, so a longer name equals none.
        if !self.exact.is_empty() && channel.len() <= crate::limits::PATTERN_MAX {
            hashed = hash_on(hashed, &channel[at..], self.key);
            add(&self.exact, hashed, channel.len());
        }
    }

    fn find_others(
        &self,
        channel: &[u8],
        found: &mut Vec<TopicId>,
        steps_max: usize,
    ) -> Result<usize, TooDear> {
        if self.others.is_empty() || channel.is_empty() {
            return Ok(0);
        }
        let admitted = || self.others.iter().filter(|other| other.outline.admits(channel));
        let words: usize = admitted().map(|other| other.automaton.words()).sum();
        let price = words * channel.len();
        if price > steps_max {
            return Err(TooDear);
        }
        if words > 0 {
            found.extend(
                admitted()
                    .filter(|other| other.automaton.matches(channel))
                    .map(|other| other.topic),
            );
        }
        Ok(price + self.others.len())
    }

    /// Returns the number of patterns of other shapes.
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// Returns the number of patterns that are found without trying them.
    pub fn indexed(&self) -> usize {
        self.indexed
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes(&self.prefixes)
            + table_bytes(&self.exact)
            + self.lengths.capacity() * size_of::<(u32, u32)>()
            + self.others.capacity() * size_of::<Other>()
            + self.held
    }

    /// Panics unless the index holds exactly these patterns. O(n).
    pub fn check_invariants<'a>(&self, patterns: impl Iterator<Item = (TopicId, &'a [u8])>) {
        let (mut lengths, mut indexed, mut others) = (std::collections::BTreeMap::new(), 0, 0);
        for (topic, pattern) in patterns {
            let listed = |table: &Texts, text: &[u8]| {
                table.get(&hash(text, self.key)).is_some_and(|list| list.contains(&topic))
            };
            let is_listed = match PatternShape::of(pattern) {
                PatternShape::Exact(text) => listed(&self.exact, &text),
                PatternShape::Prefix(text) => {
                    *lengths.entry(text.len() as u32).or_default() += 1;
                    listed(&self.prefixes, &text)
                }
                PatternShape::Other => self.others.iter().any(|other| other.topic == topic),
            };
            assert!(is_listed, "a pattern is not in the index");
            match PatternShape::of(pattern) {
                PatternShape::Other => others += 1,
                _ => indexed += 1,
            }
        }
        let lengths: Vec<(u32, u32)> = lengths.into_iter().collect();
        assert_eq!(self.lengths, lengths, "the lengths in use are miscounted");
        assert_eq!((self.indexed, self.others.len()), (indexed, others), "patterns are miscounted");
        let lists = || self.prefixes.values().chain(self.exact.values());
        assert_eq!(
            lists().map(|list| list.len()).sum::<usize>(),
            indexed,
            "a pattern is left over"
        );
        let automata =
            self.others.iter().map(|other| size_of::<Automaton>() + other.automaton.bytes());
        assert_eq!(self.held, lists().map(list_bytes).sum::<usize>() + automata.sum::<usize>());
    }
}

/// Returns the memory of a list, which has a head of two words, in bytes.
fn list_bytes(list: &ThinVec<TopicId>) -> usize {
    match list.capacity() {
        0 => 0,
        capacity => 2 * size_of::<usize>() + capacity * size_of::<TopicId>(),
    }
}

fn hash(text: &[u8], key: u64) -> u64 {
    hash_on(0, text, key)
}

/// Returns the hash of a text that continues a hashed one: a polynomial in the key.
fn hash_on(hashed: u64, text: &[u8], key: u64) -> u64 {
    text.iter().fold(hashed, |hashed, byte| {
        let product = u128::from(hashed) * u128::from(key) + u128::from(*byte) + 1;
        let sum = (product as u64 & MODULUS) + (product >> 61) as u64;
        if sum >= MODULUS { sum - MODULUS } else { sum }
    })
}

/// The hasher of the tables. Their keys are hashes already, of 61 bits. The table needs them in the
/// upper bits as well.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 ^= number;
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscriptions::Kind;
    use super::*;

    /// Returns an index of these patterns, numbered in their order.
    fn index(patterns: &[&[u8]]) -> Patterns {
        let mut index = Patterns::default();
        for (pattern, number) in patterns.iter().zip(0..) {
            index.insert(pattern, TopicId::new(Kind::Pattern, number));
        }
        index
    }

    fn found(index: &Patterns, patterns: &[&[u8]], channel: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        let pattern = |topic: TopicId| patterns[topic.index()];
        index.find(channel, pattern, &mut found, usize::MAX).unwrap();
        let mut found: Vec<usize> = found.into_iter().map(TopicId::index).collect();
        found.sort();
        found
    }

    #[test]
    fn the_index_finds_what_a_search_of_all_patterns_finds() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..300 {
            let mut text = |most: usize, letters: &[u8]| -> Vec<u8> {
                (0..random.usize(..=most)).map(|_| letters[random.usize(..letters.len())]).collect()
            };
            let mut patterns: Vec<Vec<u8>> = (0..40).map(|_| text(6, b"aab**?[]\\\\")).collect();
            patterns.sort();
            patterns.dedup();
            let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| &pattern[..]).collect();
            let names: Vec<Vec<u8>> = (0..40).map(|_| text(6, b"aab*[\\")).collect();
            let mut index = index(&patterns);
            let mut present = vec![true; patterns.len()];
            for name in &names {
                let expected = (0..patterns.len()).filter(|number| {
                    present[*number] && glob::matches(patterns[*number], name, &mut 0)
                });
                assert_eq!(found(&index, &patterns, name), expected.collect::<Vec<_>>());
                let number = random.usize(..patterns.len());
                let topic = TopicId::new(Kind::Pattern, number);
                match present[number] {
                    true => index.remove(patterns[number], topic),
                    false => index.insert(patterns[number], topic),
                }
                present[number] = !present[number];
                let listed = (0..patterns.len()).filter(|number| present[*number]);
                index.check_invariants(
                    listed.map(|number| (TopicId::new(Kind::Pattern, number), patterns[number])),
                );
            }
        }
    }

    #[test]
    fn patterns_of_one_text_are_all_found() {
        let patterns: [&[u8]; 6] = [b"a*", b"a**", b"\\a*", b"a***", b"a", b"\\a"];
        let index = index(&patterns);
        assert_eq!(found(&index, &patterns, b"ab"), [0, 1, 2, 3]);
        assert_eq!(found(&index, &patterns, b"a"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(found(&index, &patterns, b"b"), [0; 0]);
        assert_eq!(found(&index, &patterns, b""), [0; 0]);
    }

    #[test]
    fn a_name_is_refused_one_step_above_the_limit_before_a_pattern_is_tried() {
        let patterns: Vec<Vec<u8>> = (0..10).map(|n| format!("*a{n}*").into_bytes()).collect();
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| &pattern[..]).collect();
        let index = index(&patterns);
        for (length, refused) in [(99, false), (100, false), (101, true)] {
            let (mut found, name) = (Vec::new(), vec![b'a'; length]);
            let steps = index.find(&name, |topic| patterns[topic.index()], &mut found, 1000);
            assert_eq!(steps.is_err(), refused, "{length}");
        }
    }

    #[test]
    fn patterns_that_a_name_is_too_short_for_cost_it_nothing() {
        let pattern = [&b"*"[..], &b"a".repeat(200), b"?*"].concat();
        let index = index(&[&pattern[..]; 100]);
        for (length, steps) in [(200, 100), (201, 100 + 100 * 4 * 201)] {
            let name = vec![b'a'; length];
            let taken = index.find(&name, |_| &pattern, &mut Vec::new(), usize::MAX);
            assert_eq!(taken, Ok(steps), "{length}");
        }
    }
}

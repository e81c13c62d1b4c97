//! Patterns compiled for matching with many names, each in a time that is known before.
//!
//! A compiled pattern is an automaton. State n means that the first n elements of the pattern have
//! matched. A star lets a state stay as it is. All states are bits of a few words, so each byte of
//! a name costs one step for each word, whatever the pattern and the name are. A backtracking
//! search would take up to pattern × name steps.

use std::collections::HashMap;

use super::{ByteSet, element_set};

/// A compiled pattern.
pub struct Automaton {
    /// Number of elements other than stars. Each matches exactly one byte.
    elements: usize,
    /// Byte → class. The bytes of a class match the same elements.
    classes: Box<[u8; 256]>,
    /// Class → the states that its bytes lead to, [`Self::words`] words each.
    reached: Box<[u64]>,
    /// States that a star keeps.
    kept: Box<[u64]>,
}

/// The facts about a pattern that exclude most names before the automaton runs.
#[derive(Clone, Copy)]
pub struct Outline {
    /// Shortest name that may match, in bytes.
    pub shortest: u16,
    /// True if only names of that length match.
    pub is_fixed: bool,
    /// The first byte of all names that match. `None`: several are possible.
    pub first: Option<u8>,
    /// The last byte of all names that match.
    pub last: Option<u8>,
}

impl Outline {
    /// Returns false if the name cannot match.
    #[inline]
    pub fn admits(&self, name: &[u8]) -> bool {
        let length_fits = match self.is_fixed {
            true => name.len() == usize::from(self.shortest),
            false => name.len() >= usize::from(self.shortest),
        };
        length_fits
            && self.first.is_none_or(|byte| name.first() == Some(&byte))
            && self.last.is_none_or(|byte| name.last() == Some(&byte))
    }
}

impl Automaton {
    /// Compiles a pattern, in some 40 us at worst.
    pub fn new(pattern: &[u8]) -> (Automaton, Outline) {
        let sets = element_sets(pattern);
        let elements = sets.iter().flatten().count();
        let words = elements / 64 + 1;
        // Byte → the states that it leads to.
        let mut columns = vec![0u64; 256 * words];
        let mut kept = vec![0u64; words].into_boxed_slice();
        let mut state = 0;
        for set in &sets {
            let Some(set) = set else {
                kept[state / 64] |= 1 << (state % 64);
                continue;
            };
            state += 1;
            for byte in set.bytes() {
                columns[usize::from(byte) * words + state / 64] |= 1 << (state % 64);
            }
        }
        let only = |end: Option<&Option<ByteSet>>| end?.as_ref()?.only();
        let outline = Outline {
            shortest: elements as u16,
            is_fixed: elements == sets.len(),
            first: only(sets.first()),
            last: only(sets.last()),
        };
        let (classes, reached) = classify(&columns, words);
        (Automaton { elements, classes, reached, kept }, outline)
    }

    /// Returns the number of steps for each byte of a name.
    pub fn words(&self) -> usize {
        self.kept.len()
    }

    /// Returns true if the whole name, which is not empty, matches. Takes at most
    /// [`Self::words`] steps for each byte of the name.
    pub fn matches(&self, name: &[u8]) -> bool {
        match *self.kept {
            [kept] => {
                let mut states = 1;
                for byte in name {
                    let reached = self.reached[usize::from(self.classes[usize::from(*byte)])];
                    states = (states << 1) & reached | states & kept;
                    if states == 0 {
                        return false;
                    }
                }
                states >> self.elements & 1 == 1
            }
            _ => self.matches_long(name),
        }
    }

    fn matches_long(&self, name: &[u8]) -> bool {
        let words = self.words();
        let mut states = [0u64; MOST_WORDS];
        states[0] = 1;
        for byte in name {
            let class = usize::from(self.classes[usize::from(*byte)]);
            let reached = &self.reached[class * words..][..words];
            let (mut carry, mut any) = (0, 0);
            for ((state, reached), kept) in states.iter_mut().zip(reached).zip(&self.kept) {
                let shifted = *state << 1 | carry;
                carry = *state >> 63;
                *state = shifted & reached | *state & kept;
                any |= *state;
            }
            if any == 0 {
                return false;
            }
        }
        states[self.elements / 64] >> (self.elements % 64) & 1 == 1
    }

    /// Returns the memory held outside, in bytes.
    pub fn bytes(&self) -> usize {
        256 + (self.reached.len() + self.kept.len()) * size_of::<u64>()
    }
}

/// Number of words of the longest pattern.
const MOST_WORDS: usize = crate::limits::PATTERN_MAX / 64 + 1;

/// Returns the bytes that each element of a pattern matches; `None` for a star.
fn element_sets(pattern: &[u8]) -> Vec<Option<ByteSet>> {
    let (mut at, mut sets) = (0, Vec::with_capacity(pattern.len()));
    while at < pattern.len() {
        if pattern[at] == b'*' {
            sets.push(None);
            at += 1;
        } else {
            let (set, next) = element_set(pattern, at);
            sets.push(Some(set));
            at = next;
        }
    }
    sets
}

/// Gives bytes with equal columns one class. Returns the class of each byte, and the column of each
/// class.
fn classify(columns: &[u64], words: usize) -> (Box<[u8; 256]>, Box<[u64]>) {
    let mut classes = Box::new([0; 256]);
    let mut numbers: HashMap<&[u64], u8> = HashMap::new();
    let mut reached = Vec::new();
    for (column, class) in columns.chunks_exact(words).zip(classes.iter_mut()) {
        // At most 256 columns are distinct.
        let next = numbers.len() as u8;
        *class = *numbers.entry(column).or_insert_with(|| {
            reached.extend_from_slice(column);
            next
        });
    }
    (classes, reached.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::super::{matches, tests::CASES};
    use super::*;

    fn agree(pattern: &[u8], text: &[u8]) {
        let (automaton, outline) = Automaton::new(pattern);
        let compiled = outline.admits(text) && automaton.matches(text);
        assert_eq!(
            compiled,
            matches(pattern, text, &mut 0),
            "{} on {}",
            pattern.escape_ascii(),
            text.escape_ascii()
        );
    }

    #[test]
    fn a_compiled_pattern_matches_the_same_names_as_a_search() {
        for (pattern, text, _) in CASES.iter().filter(|(_, text, _)| !text.is_empty()) {
            agree(pattern, text);
        }
        let mut random = fastrand::Rng::with_seed(3);
        let mut pick = |from: &[u8], most: usize| -> Vec<u8> {
            (0..random.usize(1..=most)).map(|_| from[random.usize(..from.len())]).collect()
        };
        for _ in 0..40_000 {
            agree(&pick(b"*?[]^-\\ab", 20), &pick(b"ab-]", 12));
        }
        for _ in 0..3000 {
            // Several words of states.
            agree(&pick(b"*aaaaaaaaaaaaaaaaaaab?", 220), &pick(b"aaaaaaaab", 250));
        }
    }

    #[test]
    fn a_pattern_of_64_elements_needs_a_second_word() {
        for (elements, words) in [(62, 1), (63, 1), (64, 2), (127, 2), (128, 3)] {
            let pattern = [&b"*"[..], &b"a".repeat(elements - 1), b"?*"].concat();
            assert_eq!(Automaton::new(&pattern).0.words(), words, "{elements}");
            for length in elements - 1..=elements + 1 {
                agree(&pattern, &b"a".repeat(length));
            }
        }
    }
}

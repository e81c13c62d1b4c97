//! Short texts that many sessions share, each kept once: names of libraries, and User-Agents.
//!
//! A session holds the number of a text, in one byte. 0 stands for no text. If all numbers are in
//! use, a new text gets 0, because hostile peers can make up any number of texts.

use crate::limits::{LABEL_MAX, TEXTS_MAX};

/// A table of at most [`TEXTS_MAX`] texts with the number of their uses.
#[derive(Default)]
pub struct SharedTexts {
    /// Text number n is entry n - 1. An unused entry is overwritten by the next new text.
    entries: Vec<Text>,
    /// Length of all texts, in bytes.
    held: usize,
}

#[derive(Default)]
struct Text {
    bytes: Box<[u8]>,
    uses: u32,
}

impl SharedTexts {
    /// Counts one more use of a text and returns its number. Returns 0 if all numbers are in use.
    /// Only the first [`LABEL_MAX`] bytes are kept.
    pub fn take(&mut self, text: &[u8]) -> u8 {
        let text = &text[..text.len().min(LABEL_MAX)];
        let known = self.entries.iter().position(|known| known.uses > 0 && &*known.bytes == text);
        let index = known.or_else(|| {
            let free = self.entries.iter().position(|known| known.uses == 0);
            let index = free.or_else(|| {
                let room = self.entries.len() < TEXTS_MAX;
                room.then(|| self.entries.push(Text::default())).map(|()| self.entries.len() - 1)
            })?;
            self.held = self.held - self.entries[index].bytes.len() + text.len();
            self.entries[index].bytes = text.into();
            Some(index)
        });
        let Some(index) = index else { return 0 };
        self.entries[index].uses += 1;
        (index + 1) as u8
    }

    /// Ends one use of a text.
    pub fn give_back(&mut self, number: u8) {
        if let Some(index) = usize::from(number).checked_sub(1) {
            self.entries[index].uses -= 1;
        }
    }

    /// Returns the text of a number; empty for 0.
    pub fn get(&self, number: u8) -> &[u8] {
        let index = usize::from(number).checked_sub(1);
        index.and_then(|index| self.entries.get(index)).map_or(&[], |text| &text.bytes)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.held + self.entries.capacity() * size_of::<Text>()
    }

    /// Panics unless the uses are those of `numbers`, which lists the number of each. For tests.
    pub fn check_invariants(&self, numbers: impl Iterator<Item = u8>) {
        let mut uses = vec![0; self.entries.len()];
        numbers.filter(|number| *number > 0).for_each(|number| uses[usize::from(number) - 1] += 1);
        let counted: Vec<u32> = self.entries.iter().map(|text| text.uses).collect();
        assert_eq!(counted, uses, "the uses of a text are miscounted");
        assert!(self.entries.len() <= TEXTS_MAX, "more than {TEXTS_MAX} texts are stored");
        let held: usize = self.entries.iter().map(|text| text.bytes.len()).sum();
        assert_eq!(self.held, held, "the bytes of texts are miscounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_stored_once_and_the_256th_is_dropped() {
        let mut texts = SharedTexts::default();
        let numbers: Vec<u8> =
            (0..256).map(|number: u32| texts.take(number.to_string().as_bytes())).collect();
        assert_eq!((numbers[254], numbers[255]), (255, 0), "the 255th and the 256th text");
        assert_eq!((texts.get(255), texts.get(0)), (&b"254"[..], &b""[..]));
        assert_eq!(texts.take(b"17"), numbers[17], "a known text needs no room");
        texts.check_invariants(numbers.iter().copied().chain([numbers[17]]));
        texts.give_back(numbers[17]);
        assert_eq!(texts.take(b"new"), 0, "another use keeps the text");
        texts.give_back(numbers[17]);
        assert_eq!(texts.take(b"new"), numbers[17], "an unused text is overwritten");
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut texts = SharedTexts::default();
        for (length, kept) in [(LABEL_MAX, LABEL_MAX), (LABEL_MAX + 1, LABEL_MAX)] {
            let number = texts.take(&vec![b'x'; length]);
            assert_eq!((number, texts.get(number).len()), (1, kept));
        }
        assert_eq!(texts.bytes(), LABEL_MAX + texts.entries.capacity() * size_of::<Text>());
    }
}

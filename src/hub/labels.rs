//! The labels that clients set: connection names, and the name and version of the client library.
//!
//! Most connections report one of a few libraries, so each distinct text is stored once. A session
//! stores two text numbers of one byte each.

use crate::limits::{LABEL_MAX, LIBRARY_TEXTS_MAX};
use std::collections::HashMap;

/// The labels of all sessions.
#[derive(Default)]
pub struct Labels {
    /// Session → name set by CLIENT SETNAME. Few sessions have one.
    names: HashMap<u32, Box<[u8]>>,
    /// Session → text numbers of its library's name and version; 0: not set.
    libraries: HashMap<u32, [u8; 2]>,
    /// Text number n is entry n - 1. An unused entry is overwritten by the next new text.
    texts: Vec<Text>,
    /// Length of all names and texts, in bytes.
    held: usize,
}

#[derive(Default)]
struct Text {
    bytes: Box<[u8]>,
    /// Number of sessions whose library has this name or version.
    uses: u32,
}

/// An attribute that CLIENT SETINFO sets.
#[derive(Clone, Copy)]
pub enum Attribute {
    LibraryName,
    LibraryVersion,
}

/// A label was refused: it is longer than [`LABEL_MAX`], or contains bytes that would break the
/// format of CLIENT LIST.
pub struct Unsuitable;

fn check(text: &[u8]) -> Result<(), Unsuitable> {
    if text.len() <= LABEL_MAX && text.iter().all(u8::is_ascii_graphic) {
        Ok(())
    } else {
        Err(Unsuitable)
    }
}

impl Labels {
    pub fn name(&self, session: u32) -> Option<&[u8]> {
        self.names.get(&session).map(|name| &**name)
    }

    /// Sets a session's name. An empty name removes it.
    pub fn set_name(&mut self, session: u32, name: &[u8]) -> Result<(), Unsuitable> {
        check(name)?;
        self.forget_name(session);
        if !name.is_empty() {
            self.held += name.len();
            self.names.insert(session, name.into());
        }
        Ok(())
    }

    pub fn forget_name(&mut self, session: u32) {
        self.held -= self.names.remove(&session).map_or(0, |name| name.len());
    }

    pub fn library(&self, session: u32, attribute: Attribute) -> &[u8] {
        let numbers = self.libraries.get(&session).copied().unwrap_or_default();
        let text = usize::from(numbers[attribute as usize])
            .checked_sub(1)
            .and_then(|index| self.texts.get(index));
        text.map_or(&[], |text| &text.bytes)
    }

    pub fn set_library(
        &mut self,
        session: u32,
        attribute: Attribute,
        text: &[u8],
    ) -> Result<(), Unsuitable> {
        check(text)?;
        let number = self.take_text(text);
        let numbers = self.libraries.entry(session).or_default();
        let before = std::mem::replace(&mut numbers[attribute as usize], number);
        self.drop_text(before);
        Ok(())
    }

    /// Counts one more use of a text and returns its number. Returns 0 if all numbers are in use.
    fn take_text(&mut self, text: &[u8]) -> u8 {
        let known = self.texts.iter().position(|known| known.uses > 0 && &*known.bytes == text);
        let index = known.or_else(|| {
            let free = self.texts.iter().position(|known| known.uses == 0);
            let index = free.or_else(|| {
                let room = self.texts.len() < LIBRARY_TEXTS_MAX;
                room.then(|| self.texts.push(Text::default())).map(|()| self.texts.len() - 1)
            })?;
            self.held = self.held - self.texts[index].bytes.len() + text.len();
            self.texts[index].bytes = text.into();
            Some(index)
        });
        let Some(index) = index else { return 0 };
        self.texts[index].uses += 1;
        (index + 1) as u8
    }

    fn drop_text(&mut self, number: u8) {
        if let Some(index) = usize::from(number).checked_sub(1) {
            self.texts[index].uses -= 1;
        }
    }

    /// Removes the labels of a session that has ended.
    pub fn close(&mut self, session: u32) {
        self.forget_name(session);
        let numbers = self.libraries.remove(&session).unwrap_or_default();
        numbers.into_iter().for_each(|number| self.drop_text(number));
    }

    /// Returns the memory held for one session, in bytes.
    pub fn bytes_of(&self, session: u32) -> usize {
        let name = self.name(session).map_or(0, |name| name.len() + size_of::<(u32, Box<[u8]>)>());
        let library = self.libraries.get(&session).map_or(0, |_| size_of::<(u32, [u8; 2])>());
        name + library
    }

    /// Returns the memory held, in bytes. Tables count with their capacity. O(1).
    pub fn bytes(&self) -> usize {
        self.held
            + self.names.capacity() * size_of::<(u32, Box<[u8]>)>()
            + self.libraries.capacity() * size_of::<(u32, [u8; 2])>()
            + self.texts.capacity() * size_of::<Text>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.libraries.shrink_to_fit();
    }

    /// Returns the sessions that have a label, in no order. A session may occur twice.
    pub fn sessions(&self) -> impl Iterator<Item = u32> {
        self.names.keys().chain(self.libraries.keys()).copied()
    }

    /// Panics if a count of uses or the bytes held are wrong. For tests.
    pub fn check_invariants(&self) {
        let mut uses = vec![0; self.texts.len()];
        for number in self.libraries.values().flatten().filter(|number| **number > 0) {
            uses[usize::from(*number) - 1] += 1;
        }
        let counted: Vec<u32> = self.texts.iter().map(|text| text.uses).collect();
        assert_eq!(counted, uses, "the uses of a text are miscounted");
        assert!(
            self.texts.len() <= LIBRARY_TEXTS_MAX,
            "more than {LIBRARY_TEXTS_MAX} texts are stored"
        );
        let names: usize = self.names.values().map(|name| name.len()).sum();
        let texts: usize = self.texts.iter().map(|text| text.bytes.len()).sum();
        assert_eq!(self.held, names + texts, "the bytes of names and texts are miscounted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_may_have_128_bytes_and_not_one_more() {
        let mut labels = Labels::default();
        for (length, fits) in [(LABEL_MAX - 1, true), (LABEL_MAX, true), (LABEL_MAX + 1, false)] {
            assert_eq!(labels.set_name(1, &vec![b'x'; length]).is_ok(), fits);
            assert_eq!(
                labels.set_library(1, Attribute::LibraryName, &vec![b'x'; length]).is_ok(),
                fits
            );
        }
        assert!(labels.set_name(1, b"a b").is_err() && labels.set_name(1, b"a\n").is_err());
    }

    #[test]
    fn each_library_text_is_stored_once_and_the_256th_is_dropped() {
        let mut labels = Labels::default();
        for session in 0..1000 {
            labels.set_library(session, Attribute::LibraryName, b"some-library").ok();
            labels
                .set_library(session, Attribute::LibraryVersion, session.to_string().as_bytes())
                .ok();
        }
        assert_eq!(labels.library(999, Attribute::LibraryName), b"some-library");
        assert_eq!(labels.library(253, Attribute::LibraryVersion), b"253", "the 255th text");
        assert_eq!(labels.library(254, Attribute::LibraryVersion), b"", "the 256th");
        assert_eq!(labels.texts.len(), LIBRARY_TEXTS_MAX);
        labels.close(253);
        assert_eq!(labels.library(253, Attribute::LibraryVersion), b"");
    }

    #[test]
    fn an_unused_text_is_overwritten_by_the_next_new_one() {
        let mut labels = Labels::default();
        for number in 0..10_000 {
            labels.set_library(1, Attribute::LibraryName, number.to_string().as_bytes()).ok();
            assert_eq!(
                labels.library(1, Attribute::LibraryName),
                number.to_string().as_bytes(),
                "a session has one library name at a time"
            );
            labels
                .set_library(number, Attribute::LibraryVersion, number.to_string().as_bytes())
                .ok();
            labels.close(number);
        }
        assert!(labels.texts.len() <= 3, "{}", labels.texts.len());
        for session in 0..255 {
            labels
                .set_library(session, Attribute::LibraryName, session.to_string().as_bytes())
                .ok();
        }
        labels.set_library(300, Attribute::LibraryName, b"none").ok();
        assert_eq!(labels.library(300, Attribute::LibraryName), b"");
        labels.set_library(301, Attribute::LibraryName, b"17").ok();
        labels.close(17);
        labels.set_library(302, Attribute::LibraryName, b"none").ok();
        assert_eq!(labels.library(302, Attribute::LibraryName), b"", "session 301 still uses it");
        labels.close(301);
        labels.set_library(302, Attribute::LibraryName, b"some").ok();
        assert_eq!(labels.library(302, Attribute::LibraryName), b"some");
        (0..303).for_each(|session| labels.close(session));
        assert!(labels.texts.iter().all(|text| text.uses == 0) && labels.libraries.is_empty());
    }

    #[test]
    fn the_memory_of_labels_is_that_of_texts_and_tables_and_is_given_back() {
        let mut labels = Labels::default();
        for session in 0..1000 {
            labels.set_name(session, b"name").ok();
            labels.set_library(session, Attribute::LibraryName, b"library").ok();
        }
        let [names, libraries, texts] =
            [labels.names.capacity(), labels.libraries.capacity(), labels.texts.capacity()];
        let texts = texts * size_of::<Text>() + b"library".len();
        assert_eq!(labels.bytes(), 4 * 1000 + 24 * names + 8 * libraries + texts);
        (0..1000).for_each(|session| labels.close(session));
        labels.shrink();
        assert_eq!(labels.bytes(), texts);
        labels.check_invariants();
    }

    #[test]
    fn the_memory_of_a_session_without_labels_is_nothing() {
        let mut labels = Labels::default();
        assert_eq!(labels.bytes_of(1), 0);
        labels.set_name(1, b"name").ok();
        assert_eq!(labels.bytes_of(1), 4 + 24);
        labels.set_library(1, Attribute::LibraryName, b"library").ok();
        assert_eq!(labels.bytes_of(1), 4 + 24 + 8);
    }
}

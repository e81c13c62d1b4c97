//! The labels that clients set: connection names, and the name and version of the client library.
//!
//! Most connections report one of a few libraries, so each distinct text is stored once. A session
//! stores two text numbers of one byte each.

use std::collections::HashMap;

use super::texts::SharedTexts;
use crate::limits::LABEL_MAX;

/// The labels of all sessions.
#[derive(Default)]
pub struct Labels {
    /// Session → name set by CLIENT SETNAME. Few sessions have one.
    names: HashMap<u32, Box<[u8]>>,
    /// Session → text numbers of its library's name and version; 0: not set.
    libraries: HashMap<u32, [u8; 2]>,
    texts: SharedTexts,
    /// Length of all names, in bytes.
    held: usize,
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
        self.texts.get(numbers[attribute as usize])
    }

    pub fn set_library(
        &mut self,
        session: u32,
        attribute: Attribute,
        text: &[u8],
    ) -> Result<(), Unsuitable> {
        check(text)?;
        let number = self.texts.take(text);
        let numbers = self.libraries.entry(session).or_default();
        let before = std::mem::replace(&mut numbers[attribute as usize], number);
        self.texts.give_back(before);
        Ok(())
    }

    /// Removes the labels of a session that has ended.
    pub fn close(&mut self, session: u32) {
        self.forget_name(session);
        let numbers = self.libraries.remove(&session).unwrap_or_default();
        numbers.into_iter().for_each(|number| self.texts.give_back(number));
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
            + self.texts.bytes()
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
        self.texts.check_invariants(self.libraries.values().flatten().copied());
        let names: usize = self.names.values().map(|name| name.len()).sum();
        assert_eq!(self.held, names, "the bytes of names are miscounted");
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
    fn a_session_has_one_library_name_at_a_time_and_gives_its_texts_back() {
        let mut labels = Labels::default();
        for number in 0..10_000 {
            let text = number.to_string();
            labels.set_library(1, Attribute::LibraryName, text.as_bytes()).ok();
            labels.set_library(number, Attribute::LibraryVersion, text.as_bytes()).ok();
            assert_eq!(labels.library(1, Attribute::LibraryName), text.as_bytes());
            labels.check_invariants();
            labels.close(number);
        }
        assert_eq!(labels.library(1, Attribute::LibraryVersion), b"");
    }

    #[test]
    fn the_memory_of_labels_is_that_of_texts_and_tables_and_is_given_back() {
        let mut labels = Labels::default();
        for session in 0..1000 {
            labels.set_name(session, b"name").ok();
            labels.set_library(session, Attribute::LibraryName, b"library").ok();
        }
        let [names, libraries] = [labels.names.capacity(), labels.libraries.capacity()];
        let texts = labels.texts.bytes();
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

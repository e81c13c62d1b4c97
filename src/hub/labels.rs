//! What peers call themselves: the names of connections, and the client libraries that they say they are.
//!
//! Nearly every connection of a client library says which it is, in the same few words. Those are kept once; a connection keeps two
//! numbers, one byte each.

use crate::limits::{LABEL_MAX, LIBRARY_TEXTS_MAX};
use std::collections::HashMap;

#[derive(Default)]
pub struct Labels {
    /// Set by CLIENT SETNAME; few have one.
    names: HashMap<u32, Box<[u8]>>,
    /// By session: the numbers of its library's name and version.
    libraries: HashMap<u32, [u8; 2]>,
    /// One that no connection has makes way for another.
    texts: Vec<Text>,
    /// Bytes of all names and texts.
    held: usize,
}

#[derive(Default)]
struct Text {
    bytes: Box<[u8]>,
    /// Connections that have it as name or version of their library.
    uses: u32,
}

/// What CLIENT SETINFO sets.
#[derive(Clone, Copy)]
pub enum Attribute {
    LibraryName,
    LibraryVersion,
}

/// It is too long, or has bytes that would break CLIENT LIST.
pub struct Unsuitable;

fn check(text: &[u8]) -> Result<(), Unsuitable> {
    if text.len() <= LABEL_MAX && text.iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(Unsuitable) }
}

impl Labels {
    pub fn name(&self, session: u32) -> Option<&[u8]> {
        self.names.get(&session).map(|name| &**name)
    }

    /// An empty name takes it away.
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
        let text = usize::from(numbers[attribute as usize]).checked_sub(1).and_then(|index| self.texts.get(index));
        text.map_or(&[], |text| &text.bytes)
    }

    pub fn set_library(&mut self, session: u32, attribute: Attribute, text: &[u8]) -> Result<(), Unsuitable> {
        check(text)?;
        let number = self.take_text(text);
        let numbers = self.libraries.entry(session).or_default();
        let before = std::mem::replace(&mut numbers[attribute as usize], number);
        self.drop_text(before);
        Ok(())
    }

    /// The number of a text, now used once more; 0 where there is no room for it.
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

    /// The session has ended.
    pub fn close(&mut self, session: u32) {
        self.forget_name(session);
        let numbers = self.libraries.remove(&session).unwrap_or_default();
        numbers.into_iter().for_each(|number| self.drop_text(number));
    }

    /// Memory held for one session, in bytes.
    pub fn bytes_of(&self, session: u32) -> usize {
        let name = self.name(session).map_or(0, |name| name.len() + size_of::<(u32, Box<[u8]>)>());
        let library = self.libraries.get(&session).map_or(0, |_| size_of::<(u32, [u8; 2])>());
        name + library
    }

    /// Memory held, in bytes; of the tables by their capacity. O(1).
    pub fn bytes(&self) -> usize {
        self.held
            + self.names.capacity() * size_of::<(u32, Box<[u8]>)>()
            + self.libraries.capacity() * size_of::<(u32, [u8; 2])>()
            + self.texts.capacity() * size_of::<Text>()
    }

    pub fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.libraries.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_at_their_longest_one_below_and_one_above() {
        let mut labels = Labels::default();
        for (length, fits) in [(LABEL_MAX - 1, true), (LABEL_MAX, true), (LABEL_MAX + 1, false)] {
            assert_eq!(labels.set_name(1, &vec![b'x'; length]).is_ok(), fits);
            assert_eq!(labels.set_library(1, Attribute::LibraryName, &vec![b'x'; length]).is_ok(), fits);
        }
        assert!(labels.set_name(1, b"a b").is_err() && labels.set_name(1, b"a\n").is_err());
    }

    #[test]
    fn the_texts_of_libraries_are_kept_once_and_as_many_as_fit() {
        let mut labels = Labels::default();
        for session in 0..1000 {
            labels.set_library(session, Attribute::LibraryName, b"some-library").ok();
            labels.set_library(session, Attribute::LibraryVersion, session.to_string().as_bytes()).ok();
        }
        assert_eq!(labels.library(999, Attribute::LibraryName), b"some-library");
        assert_eq!(labels.library(253, Attribute::LibraryVersion), b"253", "the 255th text");
        assert_eq!(labels.library(254, Attribute::LibraryVersion), b"", "the 256th");
        assert_eq!(labels.texts.len(), LIBRARY_TEXTS_MAX);
        labels.close(253);
        assert_eq!(labels.library(253, Attribute::LibraryVersion), b"");
    }

    #[test]
    fn texts_that_nobody_has_any_more_make_way() {
        let mut labels = Labels::default();
        for number in 0..10_000 {
            labels.set_library(1, Attribute::LibraryName, number.to_string().as_bytes()).ok();
            assert_eq!(
                labels.library(1, Attribute::LibraryName),
                number.to_string().as_bytes(),
                "one peer has one at a time"
            );
            labels.set_library(number, Attribute::LibraryVersion, number.to_string().as_bytes()).ok();
            labels.close(number);
        }
        assert!(labels.texts.len() <= 3, "{}", labels.texts.len());
        for session in 0..255 {
            labels.set_library(session, Attribute::LibraryName, session.to_string().as_bytes()).ok();
        }
        labels.set_library(300, Attribute::LibraryName, b"none").ok();
        assert_eq!(labels.library(300, Attribute::LibraryName), b"");
        labels.set_library(301, Attribute::LibraryName, b"17").ok();
        labels.close(17);
        labels.set_library(302, Attribute::LibraryName, b"none").ok();
        assert_eq!(labels.library(302, Attribute::LibraryName), b"", "301 has it still");
        labels.close(301);
        labels.set_library(302, Attribute::LibraryName, b"some").ok();
        assert_eq!(labels.library(302, Attribute::LibraryName), b"some");
        (0..303).for_each(|session| labels.close(session));
        assert!(labels.texts.iter().all(|text| text.uses == 0) && labels.libraries.is_empty());
    }
}

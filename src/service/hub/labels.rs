//! What peers call themselves: the names of connections, and the client libraries that they say they are.
//!
//! Nearly every connection of a client library says which it is, in the same few words. Those are kept once; a connection keeps two
//! numbers, one byte each.

use std::collections::HashMap;

/// Longest name of a connection or library, in bytes: names are for people.
const LABEL_MAX: usize = 128;

/// Different texts about libraries that are kept; more are taken and forgotten. A number is one byte, and 0 is none.
const LIBRARY_TEXTS_MAX: usize = 255;

#[derive(Default)]
pub struct Labels {
    /// Set by CLIENT SETNAME; few have one.
    names: HashMap<u32, Box<[u8]>>,
    /// By session: the numbers of its library's name and version.
    libraries: HashMap<u32, [u8; 2]>,
    texts: Vec<Box<[u8]>>,
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
        match name {
            [] => self.names.remove(&session),
            _ => self.names.insert(session, name.into()),
        };
        Ok(())
    }

    pub fn forget_name(&mut self, session: u32) {
        self.names.remove(&session);
    }

    pub fn library(&self, session: u32, attribute: Attribute) -> &[u8] {
        let numbers = self.libraries.get(&session).copied().unwrap_or_default();
        let text = usize::from(numbers[attribute as usize]).checked_sub(1).and_then(|index| self.texts.get(index));
        text.map_or(&[], |text| text)
    }

    pub fn set_library(&mut self, session: u32, attribute: Attribute, text: &[u8]) -> Result<(), Unsuitable> {
        check(text)?;
        let known = self.texts.iter().position(|known| &**known == text);
        let index = match known {
            Some(index) => index,
            None if self.texts.len() < LIBRARY_TEXTS_MAX => {
                self.texts.push(text.into());
                self.texts.len() - 1
            }
            None => return Ok(()),
        };
        self.libraries.entry(session).or_default()[attribute as usize] = (index + 1) as u8;
        Ok(())
    }

    /// The session has ended.
    pub fn close(&mut self, session: u32) {
        self.forget_name(session);
        self.libraries.remove(&session);
    }

    /// Memory held for one session, in bytes.
    pub fn bytes_of(&self, session: u32) -> usize {
        let name = self.name(session).map_or(0, |name| name.len() + size_of::<(u32, Box<[u8]>)>());
        let library = self.libraries.get(&session).map_or(0, |_| size_of::<(u32, [u8; 2])>());
        name + library
    }

    /// Memory held, in bytes; of the tables by their capacity.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.values().map(|name| name.len()).sum();
        let texts: usize = self.texts.iter().map(|text| text.len()).sum();
        names
            + texts
            + self.names.capacity() * size_of::<(u32, Box<[u8]>)>()
            + self.libraries.capacity() * size_of::<(u32, [u8; 2])>()
            + self.texts.capacity() * size_of::<Box<[u8]>>()
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
}

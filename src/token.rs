//! The name under which the kernel reports readiness: slot and generation in one word.
//!
//! A slot is reused as soon as its connection is reaped. The generation tells successive owners of
//! a slot apart, so an event for a previous owner is ignored.

/// A token: the slot in the low half, the generation in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

/// Generation of tokens that do not name a connection. No connection ever has it.
const NOT_A_CONNECTION: u32 = 0;

/// The object that a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Connection {
        slot: u32,
        generation: u32,
    },
    Listener(u8),
    Socket(u8),
    Signals,
    /// Names that were looked up.
    Names,
}

const LISTENERS: u32 = 0;
const SOCKETS: u32 = 1 << 8;
const SIGNALS: u32 = 2 << 8;
const NAMES: u32 = 3 << 8;

impl Token {
    pub const SIGNALS: Token = Token::pack(SIGNALS, NOT_A_CONNECTION);
    pub const RESOLVED: Token = Token::pack(NAMES, NOT_A_CONNECTION);

    pub const fn connection(slot: u32, generation: Generation) -> Token {
        Token::pack(slot, generation.0)
    }

    pub const fn listener(index: u8) -> Token {
        Token::pack(LISTENERS + index as u32, NOT_A_CONNECTION)
    }

    pub const fn socket(index: u8) -> Token {
        Token::pack(SOCKETS + index as u32, NOT_A_CONNECTION)
    }

    const fn pack(slot: u32, generation: u32) -> Token {
        Token((generation as u64) << 32 | slot as u64)
    }

    /// Returns the object that the token names.
    pub const fn source(self) -> Source {
        let (slot, generation) = (self.0 as u32, (self.0 >> 32) as u32);
        match (generation, slot) {
            (NOT_A_CONNECTION, SIGNALS) => Source::Signals,
            (NOT_A_CONNECTION, NAMES) => Source::Names,
            (NOT_A_CONNECTION, slot) if slot >= SOCKETS => Source::Socket(slot as u8),
            (NOT_A_CONNECTION, slot) => Source::Listener(slot as u8),
            (generation, slot) => Source::Connection { slot, generation },
        }
    }

    pub const fn to_usize(self) -> usize {
        self.0 as usize
    }

    pub const fn from_usize(word: usize) -> Token {
        Token(word as u64)
    }
}

// The poll system returns a token as a machine word.
const _: () = assert!(size_of::<usize>() == size_of::<Token>(), "slabd needs a 64-bit machine");

/// A number that tells successive owners of a slot apart. It counts connections, skips 0, and wraps
/// after four billion of them. No event is that old: each is used in the turn that polled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

impl Generation {
    pub const FIRST: Generation = Generation(1);

    pub const fn next(self) -> Generation {
        match self.0.wrapping_add(1) {
            NOT_A_CONNECTION => Generation::FIRST,
            next => Generation(next),
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_a_round_trip_through_a_token() {
        for index in [0, 1, 255] {
            assert_eq!(Token::listener(index).source(), Source::Listener(index));
            assert_eq!(Token::socket(index).source(), Source::Socket(index));
        }
        assert_eq!(Token::SIGNALS.source(), Source::Signals);
        assert_eq!(Token::RESOLVED.source(), Source::Names);
        for (slot, generation) in [(0, 1), (SIGNALS, 1), (u32::MAX, u32::MAX)] {
            let token = Token::connection(slot, Generation(generation));
            assert_eq!(
                Token::from_usize(token.to_usize()).source(),
                Source::Connection { slot, generation }
            );
        }
    }

    #[test]
    fn a_generation_skips_the_reserved_number_when_it_wraps() {
        assert_eq!(Generation(u32::MAX).next(), Generation::FIRST);
        assert_eq!(Generation::FIRST.next().get(), 2);
    }
}

//! The name under which the kernel reports readiness: slot and generation in one word.
//!
//! A slot is reused as soon as its connection is reaped. The generation tells the owners of one slot
//! apart, so an event meant for a previous owner misses silently.

/// Slot in the low half, generation in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

/// Generation of everything that is not a connection: no connection ever carries it.
const NOT_A_CONNECTION: u32 = 0;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Connection { slot: u32, generation: u32 },
    Listener(u8),
    Socket(u8),
    Signals,
}

const LISTENERS: u32 = 0;
const SOCKETS: u32 = 1 << 8;
const SIGNALS: u32 = 2 << 8;

impl Token {
    pub const SIGNALS: Token = Token::pack(SIGNALS, NOT_A_CONNECTION);

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

    pub const fn source(self) -> Source {
        let (slot, generation) = (self.0 as u32, (self.0 >> 32) as u32);
        match (generation, slot) {
            (NOT_A_CONNECTION, SIGNALS) => Source::Signals,
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

// The poll system hands a token back as a machine word.
const _: () = assert!(size_of::<usize>() == size_of::<Token>(), "slabd needs a 64-bit machine");

/// Tells one owner of a slot from the next. Counts connections, skipping 0, and wraps after four
/// billion of them: an event would have to be that old to be mistaken, and none outlives its turn.
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
    fn every_source_survives_the_round_trip() {
        for index in [0, 1, 255] {
            assert_eq!(Token::listener(index).source(), Source::Listener(index));
            assert_eq!(Token::socket(index).source(), Source::Socket(index));
        }
        assert_eq!(Token::SIGNALS.source(), Source::Signals);
        for (slot, generation) in [(0, 1), (SIGNALS, 1), (u32::MAX, u32::MAX)] {
            let token = Token::connection(slot, Generation(generation));
            assert_eq!(Token::from_usize(token.to_usize()).source(), Source::Connection { slot, generation });
        }
    }

    #[test]
    fn a_generation_never_wraps_onto_the_one_that_is_reserved() {
        assert_eq!(Generation(u32::MAX).next(), Generation::FIRST);
        assert_eq!(Generation::FIRST.next().get(), 2);
    }
}

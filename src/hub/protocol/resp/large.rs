//! Unfinished commands of many words, by session.
//!
//! Such a command has a parser of its own, which goes on where it stopped. Otherwise each read
//! would walk over all words again. A deferred command keeps its parser as well.

use std::collections::HashMap;

use crate::codec::resp::Parser;
use crate::hub::sessions::SessionId;
use crate::hub::subscriptions::{release_table, table_bytes};
use crate::limits::LARGE_COMMAND_WORDS;

/// The parsers, by session.
#[derive(Default)]
pub struct LargeCommands {
    parsers: HashMap<SessionId, Parser>,
    /// Memory of the parsers, in bytes.
    held: usize,
}

impl LargeCommands {
    /// Takes the parser of a session's unfinished command.
    pub fn take(&mut self, session: SessionId) -> Option<Parser> {
        // There is rarely any.
        if self.parsers.is_empty() {
            return None;
        }
        let parser = self.parsers.remove(&session)?;
        match self.parsers.is_empty() {
            true => self.parsers = HashMap::new(),
            false => release_table(&mut self.parsers),
        }
        self.held -= parser.bytes();
        Some(parser)
    }

    /// Keeps the parser of an unfinished command: its own, or `common` if the command has become
    /// large.
    pub fn keep(&mut self, session: SessionId, own: Option<Parser>, common: &mut Parser) {
        let parser = match own {
            Some(parser) => parser,
            None if common.arguments() >= LARGE_COMMAND_WORDS => std::mem::take(common),
            None => return,
        };
        self.held += parser.bytes();
        self.parsers.insert(session, parser);
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        table_bytes(&self.parsers) + self.held
    }

    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.parsers.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::resp::CommandLimits;

    #[test]
    fn the_memory_of_unfinished_commands_is_counted_and_given_back() {
        let (limits, mut common) = (CommandLimits::default(), Parser::default());
        let session = |index| SessionId { index, serial: index + 1 };
        let mut large = LargeCommands::default();
        let keep = |large: &mut LargeCommands, common: &mut Parser, index, words| {
            let command = ["*1000000\r\n", &"$1\r\na\r\n".repeat(words)].concat();
            assert!(common.parse_multibulk(command.as_bytes(), &limits).unwrap_or(None).is_none());
            large.keep(session(index), None, common);
        };
        keep(&mut large, &mut common, 0, LARGE_COMMAND_WORDS - 1);
        assert_eq!((large.bytes(), large.sessions().count()), (0, 0), "it is read again");
        for index in 1..=20 {
            keep(&mut large, &mut common, index, LARGE_COMMAND_WORDS);
        }
        assert_eq!((large.sessions().count(), large.held), (20, 20 * 8 * LARGE_COMMAND_WORDS));
        assert!(large.bytes() > large.held && large.bytes() < 21 * 8 * LARGE_COMMAND_WORDS);
        let own = large.take(session(7));
        assert_eq!(large.held, 19 * 8 * LARGE_COMMAND_WORDS);
        large.keep(session(7), own, &mut common);
        (0..=20).for_each(|index| drop(large.take(session(index))));
        assert_eq!((large.bytes(), large.take(session(1)).is_none()), (0, true));
    }
}

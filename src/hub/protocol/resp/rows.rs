//! A row of the table of commands: name, arity, flags, summary and function; and what its flags do.

use super::words::{shown, word};
use super::{Call, SlicedWork};
use crate::codec::resp::Command;
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::sessions::SessionId;

/// One command.
pub struct CommandRow {
    pub name: &'static str,
    /// Number of words, the name included. Negative: the minimum number. Redis has the same form.
    pub arity: i32,
    pub flags: u16,
    pub summary: &'static str,
    pub run: Run,
}

/// Flag: allowed while a RESP2 connection is subscribed.
pub const SUBSCRIBED: u16 = 1;
/// Flag: allowed before the password is given.
pub const NO_AUTH: u16 = 1 << 1;
/// Flag: allowed as a datagram.
pub const DATAGRAM: u16 = 1 << 2;
/// Flag: MONITOR does not show the command, because it may contain secrets or Redis hides it too.
pub const SECRET: u16 = 1 << 3;

/// Flag: deferred while the backlog is full.
pub const PUBLISHES: u16 = 1 << 4;
/// Flag: the command may search long. It is deferred when this turn's search budget is used up.
pub const SEARCHES: u16 = 1 << 5;
/// Flag: runs at once between MULTI and EXEC, where other commands are queued.
pub const AT_ONCE: u16 = 1 << 6;
/// Flag: refused between MULTI and EXEC.
pub const NO_MULTI: u16 = 1 << 7;
/// Flag: queued after MULTI, but refused when EXEC runs it. Redis has the same commands.
pub const DENY_BLOCKING: u16 = 1 << 8;

/// Flag: the second word is a subcommand.
pub const CONTAINER: u16 = 1 << 9;
/// Flag: the command is for operators.
pub const OPERATORS: u16 = 1 << 10;
/// Flag: the command takes names of channels, as many as `--max-message` has room for.
pub const NAMES: u16 = 1 << 11;

/// The flags that COMMAND shows. Redis has all of them but `datagram`.
pub const FLAG_NAMES: [(u16, &str); 5] = [
    (SUBSCRIBED, "pubsub"),
    (NO_AUTH, "no_auth"),
    (DATAGRAM, "datagram"),
    (SECRET, "skip_monitor"),
    (NO_MULTI, "no_multi"),
];

pub type Run = fn(&mut Shared, Command<'_>, &mut Call<'_, '_>);

pub const fn row(
    name: &'static str,
    arity: i32,
    flags: u16,
    summary: &'static str,
    run: Run,
) -> CommandRow {
    CommandRow { name, arity, flags, summary, run }
}

/// Runs a command that has been checked, and shows it to monitors.
pub fn perform(shared: &mut Shared, row: &CommandRow, words: Command<'_>, call: &mut Call<'_, '_>) {
    (row.run)(shared, words, call);
    // The command runs first, so a monitor that ends with RESET does not see its own RESET.
    let runs_again = call.waits || matches!(call.begun, Some(SlicedWork::Reset));
    if row.flags & SECRET == 0 && !runs_again && shared.has_monitors() {
        shared.show(call.session, call.server, words.iter());
    }
}

/// Appends the error for a command that only operators may run.
pub fn not_permitted(name: &str, words: Command<'_>, call: &mut Call<'_, '_>) {
    let subcommand = match name {
        "client" | "config" | "memory" => format!("|{}", shown(word(words, 1))),
        _ => String::new(),
    };
    call.error(&format!(
        "NOPERM this user has no permissions to run the '{name}{}' command; send it to the \
         operator's address (--admin)",
        subcommand.to_ascii_lowercase()
    ));
}

/// Returns true if a publish must wait for earlier large messages to the same topics.
pub fn must_pace(
    shared: &mut Shared,
    row: &CommandRow,
    words: Command<'_>,
    session: SessionId,
) -> bool {
    let kind = if row.name == "publish" { Kind::Channel } else { Kind::Shard };
    row.flags & PUBLISHES != 0 && shared.must_pace(session, kind, word(words, 1), word(words, 2))
}

/// Returns true if a command of these flags must wait. A full backlog and an unfinished EXEC defer
/// publishes and no other commands. An exhausted search budget defers searches to the next turn.
/// `is_busy` defers any command.
pub fn must_wait(shared: &mut Shared, flags: u16, is_busy: bool, call: &Call<'_, '_>) -> bool {
    let is_used_up = flags & SEARCHES != 0 && shared.has_asked_enough();
    let Shared { sessions, fanout, publishers, searchers, .. } = shared;
    match flags & PUBLISHES {
        // A command whose walk has finished has waited already.
        0 if call.has_walked() => false,
        0 => searchers.must_wait(sessions, call.session, is_busy || is_used_up),
        _ => {
            let is_held_up = call.transactions.holds_up(call.session);
            let is_busy = is_busy || is_held_up || fanout.is_backlogged();
            publishers.must_wait(sessions, call.session, is_busy)
        }
    }
}

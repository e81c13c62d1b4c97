//! The table of commands: name, arity, flags, summary and function of each; and their dispatch.
//!
//! The table is the only source of these facts. The dispatch checks arity and access against it,
//! COMMAND replies from it, and docs/hub.md has a table made from it. The functions are in
//! [`pubsub`](super::pubsub), [`clients`](super::clients) and [`admin`](super::admin).

use super::words::{is, word, wrong_number};
use super::{Call, RespState, admin, clients, help, pubsub};
use crate::codec::resp::{self, Command};
use crate::hub::Shared;
use crate::limits::SHOWN_MAX;

/// One command.
pub struct CommandRow {
    pub name: &'static str,
    /// Number of words, the name included. Negative: the minimum number. Redis has the same form.
    arity: i32,
    flags: u8,
    summary: &'static str,
    run: Run,
}

/// Flag: allowed while a RESP2 connection is subscribed.
const SUBSCRIBED: u8 = 1;
/// Flag: allowed before the password is given.
const NO_AUTH: u8 = 1 << 1;
/// Flag: allowed as a datagram.
const DATAGRAM: u8 = 1 << 2;
/// Flag: MONITOR does not show the command, because it may contain secrets or Redis hides it too.
const SECRET: u8 = 1 << 3;

/// Flag: deferred while the backlog is full.
const PUBLISHES: u8 = 1 << 4;
/// Flag: the command may search long. It is deferred when this turn's search budget is used up.
const SEARCHES: u8 = 1 << 5;

/// The flags that COMMAND shows. Redis has all of them but `datagram`.
const FLAG_NAMES: [(u8, &str); 4] = [
    (SUBSCRIBED, "pubsub"),
    (NO_AUTH, "no_auth"),
    (DATAGRAM, "datagram"),
    (SECRET, "skip_monitor"),
];

type Run = fn(&mut Shared, Command<'_>, &mut Call<'_, '_>);

const fn row(
    name: &'static str,
    arity: i32,
    flags: u8,
    summary: &'static str,
    run: Run,
) -> CommandRow {
    CommandRow { name, arity, flags, summary, run }
}

/// All commands, in alphabetical order for [`find`].
pub const TABLE: &[CommandRow] = &[
    row(
        "auth",
        -2,
        NO_AUTH | SECRET,
        "Authenticates the connection with the password",
        clients::auth,
    ),
    row("client", -2, SEARCHES, "Lists, names and closes connections", clients::client),
    row("command", -1, 0, "Describes the commands", command),
    row("config", -2, SECRET | SEARCHES, "Reads and changes settings", admin::config),
    row("echo", 2, DATAGRAM, "Returns the given text", echo),
    row("flushdb", -1, 0, "Does nothing: there are no keys to delete", flushdb),
    row("hello", -1, NO_AUTH | SECRET, "Selects the protocol version", clients::hello),
    row("info", -1, SEARCHES, "Returns the server's state and counters", admin::info),
    row("memory", -2, SEARCHES, "Reports memory use", admin::memory),
    row("monitor", 1, SECRET, "Shows every command that the server runs", admin::monitor),
    row("ping", -1, SUBSCRIBED | DATAGRAM, "Returns PONG, or the given text", ping),
    row(
        "psubscribe",
        -2,
        SUBSCRIBED,
        "Subscribes to the channels that match patterns",
        pubsub::psubscribe,
    ),
    row(
        "publish",
        3,
        DATAGRAM | PUBLISHES,
        "Sends a message to a channel; returns the number of receivers",
        pubsub::publish,
    ),
    row("pubsub", -2, SEARCHES, "Lists channels and counts their subscribers", pubsub::pubsub),
    row(
        "punsubscribe",
        -1,
        SUBSCRIBED,
        "Unsubscribes from the given patterns, or from all",
        pubsub::punsubscribe,
    ),
    row("quit", -1, SUBSCRIBED | NO_AUTH | SECRET, "Closes the connection", clients::quit),
    row(
        "reset",
        1,
        SUBSCRIBED | NO_AUTH,
        "Resets the connection to its initial state",
        clients::reset,
    ),
    row("select", 2, 0, "Selects a database; only 0 exists", select),
    row("shutdown", -1, 0, "Drains all connections and stops the server", admin::shutdown),
    row(
        "spublish",
        3,
        PUBLISHES,
        "Sends a message to a shard channel; returns the number of receivers",
        pubsub::spublish,
    ),
    row("ssubscribe", -2, SUBSCRIBED, "Subscribes to shard channels", pubsub::ssubscribe),
    row("subscribe", -2, SUBSCRIBED, "Subscribes to channels", pubsub::subscribe),
    row(
        "sunsubscribe",
        -1,
        SUBSCRIBED,
        "Unsubscribes from the given shard channels, or from all",
        pubsub::sunsubscribe,
    ),
    row(
        "time",
        1,
        DATAGRAM,
        "Returns the Unix time: seconds, and microseconds of the second",
        admin::time,
    ),
    row(
        "unsubscribe",
        -1,
        SUBSCRIBED,
        "Unsubscribes from the given channels, or from all",
        pubsub::unsubscribe,
    ),
];

/// Index of the first command of each letter in the table. The last entry is the table's length.
const BY_LETTER: [u8; 27] = {
    let (mut starts, mut letter, mut index) = ([0; 27], 0, 0);
    while letter < 26 {
        starts[letter] = index as u8;
        while index < TABLE.len() && TABLE[index].name.as_bytes()[0] == b'a' + letter as u8 {
            index += 1;
        }
        letter += 1;
    }
    starts[26] = index as u8;
    assert!(index == TABLE.len(), "the table is not in alphabetical order");
    starts
};

/// Returns the index of a command's row. Few commands share a first letter, and most of these
/// differ in length.
fn find(name: &[u8]) -> Option<usize> {
    let letter = usize::from(name.first()?.to_ascii_lowercase().wrapping_sub(b'a'));
    let (start, end) =
        (usize::from(*BY_LETTER.get(letter)?), usize::from(*BY_LETTER.get(letter + 1)?));
    (start..end).find(|index| {
        // Names have only lower-case letters. Setting bit 5 turns upper-case letters into these and
        // no other byte.
        let own = TABLE[*index].name.as_bytes();
        own.len() == name.len() && own.iter().zip(name).all(|(own, given)| *own == given | 0x20)
    })
}

/// Runs one command of a session, or defers it.
pub fn run(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let Some(index) = checked(words, call.out()) else {
        shared.commands_processed += 1;
        return;
    };
    let row = &TABLE[index];
    if row.flags & NO_AUTH == 0 && !shared.is_authenticated(call.session) {
        shared.commands_processed += 1;
        return call.error("NOAUTH Authentication required.");
    }
    if row.flags & (PUBLISHES | SEARCHES) != 0 && must_wait(shared, row, call) {
        return call.wait();
    }
    shared.commands_processed += 1;
    if row.flags & SUBSCRIBED == 0 && shared.is_limited(call.session) {
        let message = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            row.name
        );
        return call.error(&message);
    }
    RespState::note_command(shared, call.session, index);
    (row.run)(shared, words, call);
    // The command runs first, so a monitor that ends with RESET does not see its own RESET.
    if row.flags & SECRET == 0 && !call.waits && shared.has_monitors() {
        admin::show_to_monitors(shared, words, call);
    }
}

/// Returns true if a command must wait. A full backlog defers publishes and no other commands. An
/// exhausted search budget defers searches to the next turn.
fn must_wait(shared: &mut Shared, row: &CommandRow, call: &Call<'_, '_>) -> bool {
    let Shared { sessions, fanout, publishers, searchers, .. } = shared;
    match row.flags & PUBLISHES {
        // A command whose walk has finished has waited already.
        0 if call.has_walked() => false,
        0 => searchers.must_wait(sessions, call.session, fanout.has_searched_enough()),
        _ => publishers.must_wait(sessions, call.session, fanout.is_backlogged()),
    }
}

/// Runs one command of a datagram. Returns false if no reply is due: the command failed, or it is a
/// publish that would have to wait and is dropped.
pub fn run_datagram(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) -> bool {
    let Some(row) = checked(words, call.out()).map(|index| &TABLE[index]) else { return false };
    if row.flags & DATAGRAM == 0 {
        return false;
    }
    if row.flags & PUBLISHES != 0 && shared.fanout.is_backlogged() {
        call.reply.drop_late();
        return false;
    }
    shared.commands_processed += 1;
    (row.run)(shared, words, call);
    // `bytes` starts at this datagram's reply, behind those to other datagrams of the turn.
    !call.reply.bytes().starts_with(b"-")
}

/// Returns the index of the command's row. If the command is unknown or has a wrong number of
/// words, appends the error and returns `None`.
fn checked(words: Command<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let Some(index) = find(word(words, 0)) else {
        unknown_command(words, out);
        return None;
    };
    let (row, count) = (&TABLE[index], words.len() as i32);
    let fits = if row.arity < 0 { count >= -row.arity } else { count == row.arity };
    if !fits {
        wrong_number(row.name, out);
        return None;
    }
    Some(index)
}

/// Appends the error for an unknown command. It shows at most [`SHOWN_MAX`] bytes of the name, and
/// about as many of all arguments together.
fn unknown_command(words: Command<'_>, out: &mut Vec<u8>) {
    let name = word(words, 0);
    let mut message = b"ERR unknown command '".to_vec();
    message.extend_from_slice(&name[..name.len().min(SHOWN_MAX)]);
    message.extend_from_slice(b"', with args beginning with: ");
    let mut shown = 0;
    for argument in words.iter().skip(1) {
        if shown >= SHOWN_MAX {
            break;
        }
        let part = &argument[..argument.len().min(SHOWN_MAX - shown)];
        shown += part.len() + 3;
        message.push(b'\'');
        message.extend_from_slice(part);
        message.extend_from_slice(b"' ");
    }
    resp::error(out, &message);
}

fn echo(_state: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    resp::bulk(call.out(), word(words, 1));
}

/// Does nothing. The test suites of Redis client libraries send FLUSHDB between tests.
fn flushdb(_state: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    resp::simple(call.out(), "OK");
}

fn select(_state: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match resp::number(word(words, 1)) {
        Some(0) => resp::simple(call.out(), "OK"),
        None => resp::error(call.out(), b"ERR value is not an integer or out of range"),
        Some(_) => resp::error(call.out(), b"ERR DB index is out of range"),
    }
}

fn ping(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let limited = shared.is_limited(call.session);
    let out = call.out();
    match (words.len(), limited) {
        (1, false) => resp::simple(out, "PONG"),
        (2, false) => resp::bulk(out, word(words, 1)),
        (1 | 2, true) => {
            resp::array(out, 2);
            resp::bulk(out, b"pong");
            resp::bulk(out, word(words, 1));
        }
        _ => wrong_number("ping", out),
    }
}

fn command(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let protocol = shared.protocol(call.session);
    let out = call.out();
    let describe = |out: &mut Vec<u8>, row: &CommandRow| {
        resp::array(out, 6);
        resp::bulk(out, row.name.as_bytes());
        resp::integer(out, i64::from(row.arity));
        let flags = FLAG_NAMES.iter().filter(|(flag, _)| row.flags & flag != 0);
        resp::array(out, flags.clone().count());
        flags.for_each(|(_, name)| resp::simple(out, name));
        // First key, last key and step: no command has keys.
        (0..3).for_each(|_| resp::integer(out, 0));
    };
    match word(words, 1) {
        name if words.len() == 1 || (is(name, "info") && words.len() == 2) => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|row| describe(out, row));
        }
        name if is(name, "count") && words.len() == 2 => resp::integer(out, TABLE.len() as i64),
        // Redis's filters of COMMAND LIST are not supported.
        name if is(name, "list") && words.len() > 2 => resp::error(out, b"ERR syntax error"),
        name if is(name, "list") => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|row| resp::bulk(out, row.name.as_bytes()));
        }
        name if is(name, "info") => {
            resp::array(out, words.len() - 2);
            for name in words.iter().skip(2) {
                match find(name) {
                    Some(index) => describe(out, &TABLE[index]),
                    None => resp::null(out, protocol),
                }
            }
        }
        name if is(name, "docs") => {
            let asked: Vec<&CommandRow> = match words.len() {
                2 => TABLE.iter().collect(),
                _ => words.iter().skip(2).filter_map(find).map(|index| &TABLE[index]).collect(),
            };
            resp::map(out, asked.len(), protocol);
            for row in asked {
                resp::bulk(out, row.name.as_bytes());
                resp::map(out, 1, protocol);
                resp::bulk(out, b"summary");
                resp::bulk(out, row.summary.as_bytes());
            }
        }
        _ => help::other_subcommand("command", words, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_in_upper_and_lower_case() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in TABLE {
            assert_eq!(
                find(row.name.to_uppercase().as_bytes()).map(|found| TABLE[found].name),
                Some(row.name)
            );
        }
        assert!(TABLE.iter().all(|row| row.name.bytes().all(|byte| byte.is_ascii_lowercase())));
        for not_a_name in [
            &b""[..],
            &[b'x'; 1000],
            b"pin",
            b"ping\0",
            b"pingpingpingpingping",
            b"p\x09ng",
            b"PI\x0eG",
        ] {
            assert!(find(not_a_name).is_none(), "{}", not_a_name.escape_ascii());
        }
    }
}

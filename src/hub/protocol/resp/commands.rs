//! Every command: its name, arity, flags and summary in one table, and what becomes of a message.
//!
//! The table is the one source: arity and access are checked by it, COMMAND and its subcommands are
//! answered from it, and a test compares the README's list with it. What the commands do is in
//! [`pubsub`](super::pubsub), [`clients`](super::clients) and [`admin`](super::admin).

use super::words::{is, word, wrong_number};
use super::{Call, RespState, admin, clients, help, pubsub};
use crate::codec::resp::{self, Command};
use crate::hub::Shared;
use crate::limits::SHOWN_MAX;

/// A row of the table.
pub struct CommandRow {
    pub name: &'static str,
    /// Words of the command, its name included; negative: at least so many. As Redis counts.
    arity: i32,
    flags: u8,
    summary: &'static str,
    run: Run,
}

/// Allowed while a RESP2 connection is subscribed.
const SUBSCRIBED: u8 = 1;
/// Allowed before the password is given.
const NO_AUTH: u8 = 1 << 1;
/// Allowed as a datagram.
const DATAGRAM: u8 = 1 << 2;
/// MONITOR does not show it: its words are not for others to see, or as Redis does.
const SECRET: u8 = 1 << 3;

/// It waits while much is undelivered.
const PUBLISHES: u8 = 1 << 4;
/// It may search for long: it waits when others have in this turn.
const SEARCHES: u8 = 1 << 5;

/// The flags by the names that Redis gives those that it has too.
const FLAG_NAMES: [(u8, &str); 4] =
    [(SUBSCRIBED, "pubsub"), (NO_AUTH, "no_auth"), (DATAGRAM, "datagram"), (SECRET, "skip_monitor")];

type Run = fn(&mut Shared, Command<'_>, &mut Call<'_, '_>);

const fn row(name: &'static str, arity: i32, flags: u8, summary: &'static str, run: Run) -> CommandRow {
    CommandRow { name, arity, flags, summary, run }
}

/// In alphabetical order: looked up by the first letter.
pub const TABLE: &[CommandRow] = &[
    row("auth", -2, NO_AUTH | SECRET, "Gives the password", clients::auth),
    row("client", -2, SEARCHES, "Asks for and sets what is known of connections", clients::client),
    row("command", -1, 0, "Describes the commands", command),
    row("config", -2, SECRET | SEARCHES, "Asks for settings, and changes them", admin::config),
    row("echo", 2, DATAGRAM, "Returns the given text", echo),
    row("flushdb", -1, 0, "Does nothing: there are no keys to delete", flushdb),
    row("hello", -1, NO_AUTH | SECRET, "Chooses the version of the protocol", clients::hello),
    row("info", -1, SEARCHES, "Returns facts about the server", admin::info),
    row("memory", -2, SEARCHES, "Tells where memory goes", admin::memory),
    row("monitor", 1, SECRET, "Shows every command as it is carried out", admin::monitor),
    row("ping", -1, SUBSCRIBED | DATAGRAM, "Returns PONG, or the given text", ping),
    row("psubscribe", -2, SUBSCRIBED, "Subscribes to the channels that match patterns", pubsub::psubscribe),
    row(
        "publish",
        3,
        DATAGRAM | PUBLISHES,
        "Sends a message to a channel; returns how many receive it",
        pubsub::publish,
    ),
    row("pubsub", -2, SEARCHES, "Tells of channels and their subscribers", pubsub::pubsub),
    row("punsubscribe", -1, SUBSCRIBED, "Unsubscribes from patterns, or from all", pubsub::punsubscribe),
    row("quit", -1, SUBSCRIBED | NO_AUTH | SECRET, "Closes the connection", clients::quit),
    row("reset", 1, SUBSCRIBED | NO_AUTH, "Makes the connection as new", clients::reset),
    row("select", 2, 0, "Chooses a database; there is only 0", select),
    row("shutdown", -1, 0, "Stops the server in good order", admin::shutdown),
    row("spublish", 3, PUBLISHES, "Sends a message to a shard channel; returns how many receive it", pubsub::spublish),
    row("ssubscribe", -2, SUBSCRIBED, "Subscribes to shard channels", pubsub::ssubscribe),
    row("subscribe", -2, SUBSCRIBED, "Subscribes to channels", pubsub::subscribe),
    row("sunsubscribe", -1, SUBSCRIBED, "Unsubscribes from shard channels, or from all", pubsub::sunsubscribe),
    row("time", 1, DATAGRAM, "Returns the time of day: seconds since 1970, and microseconds", admin::time),
    row("unsubscribe", -1, SUBSCRIBED, "Unsubscribes from channels, or from all", pubsub::unsubscribe),
];

/// For each letter, where in the table the names that begin with it start; the last is the end.
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

/// The index of a command's row: of the few that begin like it, nearly all differ in length.
fn find(name: &[u8]) -> Option<usize> {
    let letter = usize::from(name.first()?.to_ascii_lowercase().wrapping_sub(b'a'));
    let (start, end) = (usize::from(*BY_LETTER.get(letter)?), usize::from(*BY_LETTER.get(letter + 1)?));
    (start..end).find(|index| {
        // Names are of small letters alone, so setting bit 5 makes no other byte one of theirs.
        let own = TABLE[*index].name.as_bytes();
        own.len() == name.len() && own.iter().zip(name).all(|(own, given)| *own == given | 0x20)
    })
}

/// Carries out one command of a session, or has it wait.
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
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            row.name
        );
        return call.error(&message);
    }
    RespState::note_command(shared, call.session, index);
    (row.run)(shared, words, call);
    // Afterwards, so that who has just ended its MONITOR by RESET is shown no more.
    if row.flags & SECRET == 0 && !call.waits && shared.has_monitors() {
        admin::show_to_monitors(shared, words, call);
    }
}

/// While much is undelivered, publishes wait and nothing else does. A command that searches waits for
/// the next turn when others have searched enough in this one.
fn must_wait(shared: &mut Shared, row: &CommandRow, call: &Call<'_, '_>) -> bool {
    let Shared { sessions, fanout, publishers, searchers, .. } = shared;
    match row.flags & PUBLISHES {
        // A command that has come again for what its walk has found has had its turn.
        0 if call.has_walked() => false,
        0 => searchers.must_wait(sessions, call.session, fanout.has_searched_enough()),
        _ => publishers.must_wait(sessions, call.session, fanout.is_backlogged()),
    }
}

/// Carries out one command of a datagram. False when there is to be no answer: errors are not
/// answered, and a publish that would have to wait is dropped.
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
    // Answers to other datagrams of the batch lie before this one.
    !call.reply.bytes().starts_with(b"-")
}

/// The index of the command's row, if there is one and the number of words fits it; else the error is written.
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

/// Of the arguments together, about as much is shown as of the name.
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

/// Redis's client libraries send it between their tests.
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
        // First key, last key and step: there are no keys.
        (0..3).for_each(|_| resp::integer(out, 0));
    };
    match word(words, 1) {
        name if words.len() == 1 || (is(name, "info") && words.len() == 2) => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|row| describe(out, row));
        }
        name if is(name, "count") && words.len() == 2 => resp::integer(out, TABLE.len() as i64),
        // There are none of Redis's filters.
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

    /// One row of the README's table for each of ours.
    #[test]
    fn the_readme_lists_every_command() {
        let readme = include_str!("../../../../README.md");
        for CommandRow { name, flags, summary, .. } in TABLE {
            let datagram = if flags & DATAGRAM != 0 { "yes" } else { "" };
            let row = format!("| {} | {summary} | {datagram} |", name.to_uppercase());
            assert!(readme.contains(&row), "the README has no row {row}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_names_are_found_in_any_case() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in TABLE {
            assert_eq!(find(row.name.to_uppercase().as_bytes()).map(|found| TABLE[found].name), Some(row.name));
        }
        assert!(TABLE.iter().all(|row| row.name.bytes().all(|byte| byte.is_ascii_lowercase())));
        for not_a_name in [&b""[..], &[b'x'; 1000], b"pin", b"ping\0", b"pingpingpingpingping", b"p\x09ng", b"PI\x0eG"]
        {
            assert!(find(not_a_name).is_none(), "{}", not_a_name.escape_ascii());
        }
    }
}

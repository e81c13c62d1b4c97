//! Every command: its name, arity, flags and summary in one table, and what becomes of a message.
//!
//! The table is the one source: arity and access are checked by it, COMMAND and its subcommands are answered from it, and the README's
//! list is a test's copy of it. What the commands do is in [`pubsub`](super::pubsub), [`clients`](super::clients) and [`admin`](super::admin).

use super::{State, admin, clients, help, pubsub};
use std::borrow::Cow;

use crate::codec::resp::{self, Command};
use crate::service::Reply;
use crate::service::server::Server;

/// A row of the table.
pub struct Entry {
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

/// The flags by the names that Redis gives those that it has too.
const FLAG_NAMES: [(u8, &str); 4] =
    [(SUBSCRIBED, "pubsub"), (NO_AUTH, "no_auth"), (DATAGRAM, "datagram"), (SECRET, "skip_monitor")];

enum Run {
    /// Answered from what the hub knows.
    Alone(fn(&mut State, Command<'_>, &mut Reply<'_>)),
    /// Needs the server around it.
    Consulting(fn(&mut State, &mut dyn Server, Command<'_>, &mut Reply<'_>)),
}

use Run::{Alone, Consulting};

const fn entry(name: &'static str, arity: i32, flags: u8, summary: &'static str, run: Run) -> Entry {
    Entry { name, arity, flags, summary, run }
}

/// In alphabetical order: looked up by the first letter.
pub const TABLE: &[Entry] = &[
    entry("auth", -2, NO_AUTH | SECRET, "Gives the password", Consulting(clients::auth)),
    entry("client", -2, 0, "Asks for and sets what is known of connections", Consulting(clients::client)),
    entry("command", -1, 0, "Describes the commands", Alone(command)),
    entry("config", -2, SECRET, "Asks for settings, and changes them", Consulting(admin::config)),
    entry("echo", 2, DATAGRAM, "Returns the given text", Alone(echo)),
    entry("flushdb", -1, 0, "Does nothing: there are no keys to delete", Alone(flushdb)),
    entry("hello", -1, NO_AUTH | SECRET, "Chooses the version of the protocol", Consulting(clients::hello)),
    entry("info", -1, 0, "Returns facts about the server", Consulting(admin::info)),
    entry("memory", -2, 0, "Tells where memory goes", Consulting(admin::memory)),
    entry("monitor", 1, SECRET, "Shows every command as it is carried out", Alone(admin::monitor)),
    entry("ping", -1, SUBSCRIBED | DATAGRAM, "Returns PONG, or the given text", Alone(ping)),
    entry("psubscribe", -2, SUBSCRIBED, "Subscribes to the channels that match patterns", Alone(pubsub::psubscribe)),
    entry("publish", 3, DATAGRAM, "Sends a message to a channel; returns how many receive it", Alone(pubsub::publish)),
    entry("pubsub", -2, 0, "Tells of channels and their subscribers", Alone(pubsub::pubsub)),
    entry("punsubscribe", -1, SUBSCRIBED, "Unsubscribes from patterns, or from all", Alone(pubsub::punsubscribe)),
    entry("quit", -1, SUBSCRIBED | NO_AUTH | SECRET, "Closes the connection", Alone(clients::quit)),
    entry("reset", 1, SUBSCRIBED | NO_AUTH, "Makes the connection as new", Alone(clients::reset)),
    entry("select", 2, 0, "Chooses a database; there is only 0", Alone(select)),
    entry("shutdown", -1, 0, "Stops the server in good order", Consulting(admin::shutdown)),
    entry("spublish", 3, 0, "Sends a message to a shard channel; returns how many receive it", Alone(pubsub::spublish)),
    entry("ssubscribe", -2, SUBSCRIBED, "Subscribes to shard channels", Alone(pubsub::ssubscribe)),
    entry("subscribe", -2, SUBSCRIBED, "Subscribes to channels", Alone(pubsub::subscribe)),
    entry("sunsubscribe", -1, SUBSCRIBED, "Unsubscribes from shard channels, or from all", Alone(pubsub::sunsubscribe)),
    entry("time", 1, DATAGRAM, "Returns the time of day: seconds since 1970, and microseconds", Alone(admin::time)),
    entry("unsubscribe", -1, SUBSCRIBED, "Unsubscribes from channels, or from all", Alone(pubsub::unsubscribe)),
];

/// For each letter, where in the table the names that begin with it start; the last is the end.
const BY_LETTER: [u8; 27] = {
    let (mut starts, mut letter, mut row) = ([0; 27], 0, 0);
    while letter < 26 {
        starts[letter] = row as u8;
        while row < TABLE.len() && TABLE[row].name.as_bytes()[0] == b'a' + letter as u8 {
            row += 1;
        }
        letter += 1;
    }
    starts[26] = row as u8;
    assert!(row == TABLE.len(), "the table is not in alphabetical order");
    starts
};

/// The index of a command's row: of the few that begin like it, nearly all differ in length.
fn find(name: &[u8]) -> Option<usize> {
    let letter = usize::from(name.first()?.to_ascii_lowercase().wrapping_sub(b'a'));
    let (start, end) = (usize::from(*BY_LETTER.get(letter)?), usize::from(*BY_LETTER.get(letter + 1)?));
    (start..end).find(|row| {
        // Names are of small letters alone, so setting bit 5 makes no other byte one of theirs.
        let own = TABLE[*row].name.as_bytes();
        own.len() == name.len() && own.iter().zip(name).all(|(own, given)| *own == given | 0x20)
    })
}

/// Carries out one command of a session, or has it wait for the server's help.
pub fn run(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    state.commands_processed += 1;
    let Some(index) = checked(words, reply.bytes_mut()) else { return };
    let entry = &TABLE[index];
    let session = state.session(reply.session);
    if !session.is_authenticated() && entry.flags & NO_AUTH == 0 {
        return resp::error(reply.bytes_mut(), b"NOAUTH Authentication required.");
    }
    if entry.flags & SUBSCRIBED == 0 && state.is_limited(reply.session) {
        let message = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            entry.name
        );
        return resp::error(reply.bytes_mut(), message.as_bytes());
    }
    state.note_command(reply.session, index as u8);
    match entry.run {
        Alone(run) if state.monitors.is_empty() => run(state, words, reply),
        _ => {
            state.pending = words.into();
            reply.consult();
        }
    }
}

/// Carries out the command that [`run`] left waiting.
pub fn consult(state: &mut State, server: &mut dyn Server, reply: &mut Reply<'_>) {
    let pending = std::mem::take(&mut state.pending);
    let words = pending.words();
    let Some(entry) = words.get(0).and_then(find).map(|index| &TABLE[index]) else { return };
    match entry.run {
        Alone(run) => run(state, words, reply),
        Consulting(run) => run(state, server, words, reply),
    }
    // Afterwards, so that who has just ended its MONITOR by RESET is shown no more.
    if entry.flags & SECRET == 0 {
        admin::show_to_monitors(state, server, words, reply);
    }
}

/// Carries out one command of a datagram. False when there is to be no answer: errors are not answered.
pub fn run_datagram(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) -> bool {
    let Some(entry) = checked(words, reply.bytes_mut()).map(|index| &TABLE[index]) else { return false };
    state.commands_processed += 1;
    match entry.run {
        Alone(run) if entry.flags & DATAGRAM != 0 => run(state, words, reply),
        _ => return false,
    }
    !reply.bytes_mut().starts_with(b"-")
}

/// The index of the command's row, if there is one and the number of words fits it; else the error is written.
fn checked(words: Command<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let Some(index) = find(word(words, 0)) else {
        unknown_command(words, out);
        return None;
    };
    let (entry, count) = (&TABLE[index], words.len() as i32);
    let fits = if entry.arity < 0 { count >= -entry.arity } else { count == entry.arity };
    if !fits {
        wrong_number(entry.name, out);
        return None;
    }
    Some(index)
}

/// Bytes of a peer's word that an error shows, as in Redis.
const SHOWN_MAX: usize = 128;

/// A peer's word as errors show it: not longer than people read.
pub fn shown(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)])
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

pub fn wrong_number(name: &str, out: &mut Vec<u8>) {
    resp::error(out, format!("ERR wrong number of arguments for '{name}' command").as_bytes());
}

/// HELP, or what cannot be carried out: a subcommand that there is not, or not with so many words.
pub fn other_subcommand(command: &str, words: Command<'_>, out: &mut Vec<u8>) {
    let (upper, name) = (command.to_ascii_uppercase(), word(words, 1));
    if is(name, "help") && words.len() == 2 {
        help::write(&upper, out);
    } else if help::has(&upper, name) {
        wrong_number(&format!("{command}|{}", shown(name).to_ascii_lowercase()), out);
    } else {
        resp::error(out, format!("ERR unknown subcommand '{}'. Try {upper} HELP.", shown(name)).as_bytes());
    }
}

/// Word `index` of a command; nothing where there is none.
pub fn word<'a>(words: Command<'a>, index: usize) -> &'a [u8] {
    words.get(index).unwrap_or_default()
}

pub fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn echo(_state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    resp::bulk(reply.bytes_mut(), word(words, 1));
}

/// Redis's client libraries send it between their tests.
fn flushdb(_state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    resp::simple(reply.bytes_mut(), "OK");
}

fn select(_state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    match resp::number(word(words, 1)) {
        Some(0) => resp::simple(reply.bytes_mut(), "OK"),
        None => resp::error(reply.bytes_mut(), b"ERR value is not an integer or out of range"),
        Some(_) => resp::error(reply.bytes_mut(), b"ERR DB index is out of range"),
    }
}

fn ping(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let limited = state.is_limited(reply.session);
    let out = reply.bytes_mut();
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

fn command(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let protocol = state.protocol(reply.session);
    let out = reply.bytes_mut();
    let describe = |out: &mut Vec<u8>, entry: &Entry| {
        resp::array(out, 6);
        resp::bulk(out, entry.name.as_bytes());
        resp::integer(out, i64::from(entry.arity));
        let flags = FLAG_NAMES.iter().filter(|(flag, _)| entry.flags & flag != 0);
        resp::array(out, flags.clone().count());
        flags.for_each(|(_, name)| resp::simple(out, name));
        // First key, last key and step: there are no keys.
        (0..3).for_each(|_| resp::integer(out, 0));
    };
    match word(words, 1) {
        name if words.len() == 1 || (is(name, "info") && words.len() == 2) => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|entry| describe(out, entry));
        }
        name if is(name, "count") && words.len() == 2 => resp::integer(out, TABLE.len() as i64),
        // There are none of Redis's filters.
        name if is(name, "list") && words.len() > 2 => resp::error(out, b"ERR syntax error"),
        name if is(name, "list") => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|entry| resp::bulk(out, entry.name.as_bytes()));
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
            let asked: Vec<&Entry> = match words.len() {
                2 => TABLE.iter().collect(),
                _ => words.iter().skip(2).filter_map(find).map(|index| &TABLE[index]).collect(),
            };
            resp::map(out, asked.len(), protocol);
            for entry in asked {
                resp::bulk(out, entry.name.as_bytes());
                resp::map(out, 1, protocol);
                resp::bulk(out, b"summary");
                resp::bulk(out, entry.summary.as_bytes());
            }
        }
        _ => other_subcommand("command", words, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of the README's table for each of ours.
    #[test]
    fn the_readme_lists_every_command() {
        let readme = include_str!("../../../README.md");
        for Entry { name, flags, summary, .. } in TABLE {
            let datagram = if flags & DATAGRAM != 0 { "yes" } else { "" };
            let row = format!("| {} | {summary} | {datagram} |", name.to_uppercase());
            assert!(readme.contains(&row), "the README has no row {row}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_names_are_found_in_any_case() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for entry in TABLE {
            assert_eq!(find(entry.name.to_uppercase().as_bytes()).map(|found| TABLE[found].name), Some(entry.name));
        }
        assert!(TABLE.iter().all(|entry| entry.name.bytes().all(|byte| byte.is_ascii_lowercase())));
        for not_a_name in [&b""[..], &[b'x'; 1000], b"pin", b"ping\0", b"pingpingpingpingping", b"p\x09ng", b"PI\x0eG"]
        {
            assert!(find(not_a_name).is_none(), "{}", not_a_name.escape_ascii());
        }
    }
}

//! Every command: its name, arity, flags and summary in one table, and what it does.
//!
//! The table is the one source: arity is checked by it, COMMAND and its subcommands are answered from it.

use super::channels::{Channels, Kind};
use super::{State, glob};
use crate::codec::resp::{self, Command, Protocol};
use crate::service::Reply;

/// A row of the table.
struct Entry {
    name: &'static str,
    /// Words of the command, its name included; negative: at least so many. As Redis counts.
    arity: i32,
    /// Allowed while a RESP2 connection is subscribed.
    in_subscription: bool,
    summary: &'static str,
    run: fn(&mut State, Command<'_>, &mut Reply<'_>),
}

const fn entry(
    name: &'static str,
    arity: i32,
    summary: &'static str,
    run: fn(&mut State, Command<'_>, &mut Reply<'_>),
) -> Entry {
    Entry { name, arity, in_subscription: false, summary, run }
}

const fn always(
    name: &'static str,
    arity: i32,
    summary: &'static str,
    run: fn(&mut State, Command<'_>, &mut Reply<'_>),
) -> Entry {
    Entry { in_subscription: true, ..entry(name, arity, summary, run) }
}

/// In alphabetical order: looked up by bisection.
const TABLE: &[Entry] = &[
    entry("client", -2, "Asks for and sets what is known of this connection", client),
    entry("command", -1, "Describes the commands", command),
    entry("config", -2, "Asks for settings; there are none to ask for yet", config),
    entry("echo", 2, "Returns the given text", |_, words, reply| resp::bulk(reply.bytes_mut(), word(words, 1))),
    entry("hello", -1, "Chooses the version of the protocol", hello),
    entry("info", -1, "Returns facts about the server", info),
    always("ping", -1, "Returns PONG, or the given text", ping),
    always("psubscribe", -2, "Subscribes to the channels that match patterns", |state, words, reply| {
        subscribe(state, words, reply, Kind::Pattern);
    }),
    entry("publish", 3, "Sends a message to a channel; returns how many receive it", |state, words, reply| {
        let receivers = state.publish(word(words, 1), word(words, 2));
        resp::integer(reply.bytes_mut(), receivers as i64);
    }),
    entry("pubsub", -2, "Tells of channels and their subscribers", pubsub),
    always("punsubscribe", -1, "Unsubscribes from patterns, or from all", |state, words, reply| {
        unsubscribe(state, words, reply, Kind::Pattern);
    }),
    always("quit", -1, "Closes the connection", |_, _, reply| {
        resp::simple(reply.bytes_mut(), "OK");
        reply.close();
    }),
    always("reset", 1, "Makes the connection as new", |state, _, reply| {
        state.forget(reply.session);
        resp::simple(reply.bytes_mut(), "RESET");
    }),
    entry("select", 2, "Chooses a database; there is only 0", |_, words, reply| match word(words, 1) {
        b"0" => resp::simple(reply.bytes_mut(), "OK"),
        _ => resp::error(reply.bytes_mut(), b"ERR DB index is out of range"),
    }),
    entry("spublish", 3, "Sends a message to a shard channel; returns how many receive it", |state, words, reply| {
        let receivers = state.publish_shard(word(words, 1), word(words, 2));
        resp::integer(reply.bytes_mut(), receivers as i64);
    }),
    always("ssubscribe", -2, "Subscribes to shard channels", |state, words, reply| {
        subscribe(state, words, reply, Kind::Shard);
    }),
    always("subscribe", -2, "Subscribes to channels", |state, words, reply| {
        subscribe(state, words, reply, Kind::Channel);
    }),
    always("sunsubscribe", -1, "Unsubscribes from shard channels, or from all", |state, words, reply| {
        unsubscribe(state, words, reply, Kind::Shard);
    }),
    always("unsubscribe", -1, "Unsubscribes from channels, or from all", |state, words, reply| {
        unsubscribe(state, words, reply, Kind::Channel);
    }),
];

/// Longest name in the table; a longer word is no command.
const NAME_MAX: usize = 16;

/// The names as numbers, in the order of the table: comparing those is what makes a look-up cheap.
const KEYS: [u128; TABLE.len()] = {
    let mut keys = [0; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        keys[index] = key(TABLE[index].name.as_bytes());
        index += 1;
    }
    keys
};

/// A name as a number, its first letter uppermost, so that numbers order as names do. Setting bit 5 makes letters small; as names
/// consist of letters alone, no other byte becomes one of theirs by it.
const fn key(name: &[u8]) -> u128 {
    let (mut key, mut index) = (0, 0);
    while index < name.len() && index < NAME_MAX {
        key |= ((name[index] | 0x20) as u128) << (120 - 8 * index);
        index += 1;
    }
    key
}

fn find(name: &[u8]) -> Option<&'static Entry> {
    if name.len() > NAME_MAX {
        return None;
    }
    KEYS.binary_search(&key(name)).ok().map(|index| &TABLE[index])
}

/// Carries out one command of a session.
pub fn run(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    state.commands_processed += 1;
    let Some(entry) = checked(words, reply.bytes_mut()) else { return };
    let limited = state.protocol(reply.session) == Protocol::Resp2 && state.channels.is_subscribed(reply.session);
    if limited && !entry.in_subscription {
        let message = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            entry.name
        );
        return resp::error(reply.bytes_mut(), message.as_bytes());
    }
    (entry.run)(state, words, reply);
}

/// Carries out one command of a datagram. False when there is to be no answer: errors are not answered.
pub fn run_datagram(state: &mut State, words: Command<'_>, answer: &mut Vec<u8>) -> bool {
    let Some(entry) = checked(words, answer) else { return false };
    state.commands_processed += 1;
    match (entry.name, words.len()) {
        ("ping", 1) => resp::simple(answer, "PONG"),
        ("ping" | "echo", 2) => resp::bulk(answer, word(words, 1)),
        ("publish", _) => {
            let receivers = state.publish(word(words, 1), word(words, 2));
            resp::integer(answer, receivers as i64);
        }
        _ => return false,
    }
    true
}

/// The command's row, if there is one and the number of words fits it; else the error is written.
fn checked(words: Command<'_>, out: &mut Vec<u8>) -> Option<&'static Entry> {
    let name = word(words, 0);
    let Some(entry) = find(name) else {
        unknown_command(words, out);
        return None;
    };
    let count = words.len() as i32;
    let fits = if entry.arity < 0 { count >= -entry.arity } else { count == entry.arity };
    if !fits {
        wrong_number(entry.name, out);
        return None;
    }
    Some(entry)
}

/// Redis shows the first 128 bytes of the name, and about as much of the arguments.
fn unknown_command(words: Command<'_>, out: &mut Vec<u8>) {
    const SHOWN: usize = 128;
    let mut message = b"ERR unknown command '".to_vec();
    message.extend_from_slice(&word(words, 0)[..word(words, 0).len().min(SHOWN)]);
    message.extend_from_slice(b"', with args beginning with: ");
    let mut shown = 0;
    for argument in words.iter().skip(1) {
        if shown >= SHOWN {
            break;
        }
        let part = &argument[..argument.len().min(SHOWN - shown)];
        shown += part.len() + 3;
        message.push(b'\'');
        message.extend_from_slice(part);
        message.extend_from_slice(b"' ");
    }
    resp::error(out, &message);
}

fn wrong_number(name: &str, out: &mut Vec<u8>) {
    resp::error(out, format!("ERR wrong number of arguments for '{name}' command").as_bytes());
}

fn unknown_subcommand(command: &str, words: Command<'_>, out: &mut Vec<u8>) {
    let name = String::from_utf8_lossy(word(words, 1)).into_owned();
    let upper = command.to_ascii_uppercase();
    resp::error(out, format!("ERR unknown subcommand '{name}'. Try {upper} HELP.").as_bytes());
}

/// Word `index` of a command; nothing where there is none.
fn word<'a>(words: Command<'a>, index: usize) -> &'a [u8] {
    words.get(index).unwrap_or_default()
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn ping(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let limited = state.protocol(reply.session) == Protocol::Resp2 && state.channels.is_subscribed(reply.session);
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

fn hello(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let session = reply.session;
    if words.len() > 1 {
        let protocol = match word(words, 1) {
            b"2" => Protocol::Resp2,
            b"3" => Protocol::Resp3,
            version if version.iter().all(u8::is_ascii_digit) => {
                return resp::error(reply.bytes_mut(), b"NOPROTO unsupported protocol version");
            }
            _ => return resp::error(reply.bytes_mut(), b"ERR Protocol version is not an integer or out of range"),
        };
        let mut at = 2;
        while at < words.len() {
            if is(word(words, at), "setname") && at + 1 < words.len() {
                if !set_name(state, session, word(words, at + 1)) {
                    return resp::error(reply.bytes_mut(), BAD_NAME);
                }
                at += 2;
            } else if is(word(words, at), "auth") && at + 2 < words.len() {
                return resp::error(reply.bytes_mut(), NO_PASSWORD);
            } else {
                let option = String::from_utf8_lossy(word(words, at)).into_owned();
                return resp::error(
                    reply.bytes_mut(),
                    format!("ERR Syntax error in HELLO option '{option}'").as_bytes(),
                );
            }
        }
        state.set_protocol(session, protocol);
    }
    let protocol = state.protocol(session);
    let id = i64::from(state.session(session).id);
    let out = reply.bytes_mut();
    resp::map(out, 7, protocol);
    for (key, value) in [("server", "slabd"), ("version", REDIS_VERSION)] {
        resp::bulk(out, key.as_bytes());
        resp::bulk(out, value.as_bytes());
    }
    for (key, value) in [("proto", if protocol == Protocol::Resp3 { 3 } else { 2 }), ("id", id)] {
        resp::bulk(out, key.as_bytes());
        resp::integer(out, value);
    }
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        resp::bulk(out, key.as_bytes());
        resp::bulk(out, value.as_bytes());
    }
    resp::bulk(out, b"modules");
    resp::array(out, 0);
}

/// The version of Redis whose protocol and errors these are: clients look at it to decide what they may send.
const REDIS_VERSION: &str = "7.0.15";
const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PASSWORD: &[u8] =
    b"ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";

/// False when the name has bytes that would break CLIENT LIST. An empty name takes it away.
fn set_name(state: &mut State, session: u32, name: &[u8]) -> bool {
    if !name.iter().all(u8::is_ascii_graphic) {
        return false;
    }
    if name.is_empty() {
        state.names.remove(&session);
    } else {
        state.names.insert(session, name.into());
    }
    true
}

fn client(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let session = reply.session;
    let protocol = state.protocol(session);
    let (subcommand, count) = (word(words, 1), words.len());
    let out = reply.bytes_mut();
    match subcommand {
        name if is(name, "id") && count == 2 => resp::integer(out, i64::from(state.session(session).id)),
        name if is(name, "getname") && count == 2 => match state.names.get(&session) {
            Some(name) => resp::bulk(out, name),
            None => resp::null(out, protocol),
        },
        name if is(name, "setname") && count == 3 => match set_name(state, session, word(words, 2)) {
            true => resp::simple(out, "OK"),
            false => resp::error(out, BAD_NAME),
        },
        // What the library is called changes nothing here.
        name if is(name, "setinfo") && count == 4 => resp::simple(out, "OK"),
        name if (is(name, "no-evict") || is(name, "no-touch")) && count == 3 => resp::simple(out, "OK"),
        _ => unknown_subcommand("client", words, out),
    }
}

fn config(_state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let out = reply.bytes_mut();
    match word(words, 1) {
        // No setting matches: what redis-benchmark asks for is answered with nothing.
        name if is(name, "get") && words.len() >= 3 => resp::array(out, 0),
        _ => unknown_subcommand("config", words, out),
    }
}

fn command(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let protocol = state.protocol(reply.session);
    let out = reply.bytes_mut();
    let describe = |out: &mut Vec<u8>, entry: &Entry| {
        resp::array(out, 6);
        resp::bulk(out, entry.name.as_bytes());
        resp::integer(out, i64::from(entry.arity));
        resp::array(out, 0);
        // First key, last key and step: there are no keys.
        (0..3).for_each(|_| resp::integer(out, 0));
    };
    match word(words, 1) {
        b"" => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|entry| describe(out, entry));
        }
        name if is(name, "count") => resp::integer(out, TABLE.len() as i64),
        name if is(name, "list") => {
            resp::array(out, TABLE.len());
            TABLE.iter().for_each(|entry| resp::bulk(out, entry.name.as_bytes()));
        }
        name if is(name, "info") => {
            resp::array(out, words.len() - 2);
            for name in words.iter().skip(2) {
                match find(name) {
                    Some(entry) => describe(out, entry),
                    None => resp::null(out, protocol),
                }
            }
        }
        name if is(name, "docs") => {
            let asked: Vec<&Entry> = match words.len() {
                2 => TABLE.iter().collect(),
                _ => words.iter().skip(2).filter_map(find).collect(),
            };
            resp::map(out, asked.len(), protocol);
            for entry in asked {
                resp::bulk(out, entry.name.as_bytes());
                resp::map(out, 1, protocol);
                resp::bulk(out, b"summary");
                resp::bulk(out, entry.summary.as_bytes());
            }
        }
        _ => unknown_subcommand("command", words, out),
    }
}

fn info(state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    let connected = state.sessions.iter().filter(|session| session.id != 0).count();
    let text = format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nslabd_version:{}\r\nredis_mode:standalone\r\n\r\n# Clients\r\nconnected_clients:{connected}\r\n\r\n\
         # Stats\r\ntotal_commands_processed:{}\r\npublished_messages:{}\r\ndelivered_messages:{}\r\npubsub_patterns:{}\r\n\
         pubsub_bytes:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        state.commands_processed,
        state.publisher.published,
        state.publisher.delivered,
        state.channels.pattern_count(),
        state.channels.bytes(),
    );
    resp::bulk(reply.bytes_mut(), text.as_bytes());
}

/// The words that a confirmation begins with, and which subscriptions its count counts.
fn confirmation(kind: Kind, subscribed: bool) -> &'static [u8] {
    match (kind, subscribed) {
        (Kind::Channel, true) => b"subscribe",
        (Kind::Channel, false) => b"unsubscribe",
        (Kind::Pattern, true) => b"psubscribe",
        (Kind::Pattern, false) => b"punsubscribe",
        (Kind::Shard, true) => b"ssubscribe",
        (Kind::Shard, false) => b"sunsubscribe",
    }
}

fn count(channels: &Channels, session: u32, kind: Kind) -> usize {
    match kind {
        Kind::Channel | Kind::Pattern => channels.count(session),
        Kind::Shard => channels.shard_count(session),
    }
}

fn subscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>, kind: Kind) {
    let (session, protocol) = (reply.session, state.protocol(reply.session));
    for name in words.iter().skip(1) {
        if state.channels.subscribe(session, kind, name).is_err() {
            return resp::error(reply.bytes_mut(), b"ERR too many subscriptions");
        }
        let out = reply.bytes_mut();
        resp::push(out, 3, protocol);
        resp::bulk(out, confirmation(kind, true));
        resp::bulk(out, name);
        resp::integer(out, count(&state.channels, session, kind) as i64);
    }
}

fn unsubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>, kind: Kind) {
    let (session, protocol) = (reply.session, state.protocol(reply.session));
    let out = reply.bytes_mut();
    if words.len() > 1 {
        for name in words.iter().skip(1) {
            state.channels.unsubscribe(session, kind, name);
            resp::push(out, 3, protocol);
            resp::bulk(out, confirmation(kind, false));
            resp::bulk(out, name);
            resp::integer(out, count(&state.channels, session, kind) as i64);
        }
        return;
    }
    let mut any = false;
    state.channels.unsubscribe_all(session, kind, |name, remaining| {
        any = true;
        resp::push(out, 3, protocol);
        resp::bulk(out, confirmation(kind, false));
        resp::bulk(out, name);
        resp::integer(out, remaining as i64);
    });
    if !any {
        resp::push(out, 3, protocol);
        resp::bulk(out, confirmation(kind, false));
        resp::null(out, protocol);
        resp::integer(out, count(&state.channels, session, kind) as i64);
    }
}

fn pubsub(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let channels = &state.channels;
    let out = reply.bytes_mut();
    let names = |out: &mut Vec<u8>, kind: Kind| {
        let pattern = words.get(2);
        let found =
            || channels.topics(kind).filter(|(_, name)| pattern.is_none_or(|pattern| glob::matches(pattern, name)));
        resp::array(out, found().count());
        found().for_each(|(_, name)| resp::bulk(out, name));
    };
    let numbers = |out: &mut Vec<u8>, kind: Kind| {
        resp::array(out, 2 * (words.len() - 2));
        for name in words.iter().skip(2) {
            resp::bulk(out, name);
            let subscribers = channels.topic(kind, name).map_or(0, |topic| channels.subscribers(topic).len());
            resp::integer(out, subscribers as i64);
        }
    };
    match word(words, 1) {
        name if is(name, "channels") && words.len() <= 3 => names(out, Kind::Channel),
        name if is(name, "shardchannels") && words.len() <= 3 => names(out, Kind::Shard),
        name if is(name, "numsub") => numbers(out, Kind::Channel),
        name if is(name, "shardnumsub") => numbers(out, Kind::Shard),
        name if is(name, "numpat") && words.len() == 2 => resp::integer(out, channels.pattern_count() as i64),
        _ => unknown_subcommand("pubsub", words, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_are_found_in_any_case() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(TABLE.iter().all(|entry| entry.name.len() <= NAME_MAX));
        for entry in TABLE {
            assert_eq!(find(entry.name.to_uppercase().as_bytes()).map(|found| found.name), Some(entry.name));
        }
        assert!(TABLE.iter().all(|entry| entry.name.bytes().all(|byte| byte.is_ascii_lowercase())));
        for not_a_name in [&b""[..], &[b'x'; 1000], b"pin", b"ping\0", b"pingpingpingpingping", b"p\x09ng", b"PI\x0eG"]
        {
            assert!(find(not_a_name).is_none(), "{}", not_a_name.escape_ascii());
        }
    }
}

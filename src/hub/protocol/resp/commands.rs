//! The table of commands, and their dispatch.
//!
//! The table is the only source of these facts. The dispatch checks arity and access against it,
//! COMMAND replies from it, and docs/hub.md has a table made from it. The functions are in
//! [`pubsub`](super::pubsub), [`clients`](super::clients) and [`admin`](super::admin).

use super::rows::{
    AT_ONCE, CONTAINER, CommandRow, DATAGRAM, DENY_BLOCKING, NAMES, NO_AUTH, NO_MULTI, OPERATORS,
    PUBLISHES, SEARCHES, SECRET, SUBSCRIBED, must_pace, must_wait, not_permitted, perform, row,
};
use super::words::{is, word, wrong_number};
use super::{Call, RespState, admin, clients, describe, help, pubsub, startup, transactions};
use crate::codec::resp::{self, Command};
use crate::hub::Shared;
use crate::limits::{COMMAND_WORDS_MAX, SHOWN_MAX};

/// All commands, in alphabetical order for [`named`].
pub const TABLE: &[CommandRow] = &[
    row("acl", -2, CONTAINER, "Names the user", startup::acl),
    row("asking", 1, 0, "Refused: there is no cluster", startup::no_cluster),
    row(
        "auth",
        -2,
        NO_AUTH | SECRET,
        "Authenticates the connection with the password",
        clients::auth,
    ),
    row("client", -2, SEARCHES | CONTAINER, "Lists, names and closes connections", clients::client),
    row("cluster", -2, CONTAINER, "Refused: there is no cluster", startup::no_cluster),
    row("command", -1, CONTAINER, "Describes the commands", command),
    row("config", -2, SECRET | SEARCHES | CONTAINER, "Reads and changes settings", admin::config),
    row("dbsize", 1, 0, "Returns 0: there are no keys", startup::dbsize),
    row("discard", 1, AT_ONCE, "Drops the commands queued since MULTI", transactions::discard),
    row("echo", 2, DATAGRAM, "Returns the given text", echo),
    row("exec", 1, AT_ONCE, "Runs the commands queued since MULTI", transactions::exec),
    row("flushall", -1, 0, "Does nothing: there are no keys to delete", startup::flush),
    row("flushdb", -1, 0, "Does nothing: there are no keys to delete", startup::flush),
    row("hello", -1, NO_AUTH | SECRET, "Selects the protocol version", clients::hello),
    row("info", -1, SEARCHES, "Returns the server's state and counters", admin::info),
    row("latency", -2, CONTAINER, "Returns no events", startup::latency),
    row("memory", -2, SEARCHES | CONTAINER, "Reports memory use", admin::memory),
    row("module", -2, CONTAINER, "Returns no modules", startup::module),
    row(
        "monitor",
        1,
        SECRET | DENY_BLOCKING | OPERATORS,
        "Shows every command that the server runs",
        admin::monitor,
    ),
    row("multi", 1, AT_ONCE, "Queues the following commands until EXEC", transactions::multi),
    row("ping", -1, SUBSCRIBED | DATAGRAM, "Returns PONG, or the given text", ping),
    row(
        "psubscribe",
        -2,
        SUBSCRIBED | SEARCHES | NAMES,
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
    row(
        "pubsub",
        -2,
        SEARCHES | CONTAINER | NAMES,
        "Lists channels and counts their subscribers",
        pubsub::pubsub,
    ),
    row(
        "punsubscribe",
        -1,
        SUBSCRIBED | NAMES,
        "Unsubscribes from the given patterns, or from all",
        pubsub::punsubscribe,
    ),
    row(
        "quit",
        -1,
        SUBSCRIBED | NO_AUTH | SECRET | AT_ONCE,
        "Closes the connection",
        clients::quit,
    ),
    row("readonly", 1, 0, "Refused: there is no cluster", startup::no_cluster),
    row("readwrite", 1, 0, "Refused: there is no cluster", startup::no_cluster),
    row(
        "reset",
        1,
        SUBSCRIBED | NO_AUTH | AT_ONCE,
        "Resets the connection to its initial state",
        clients::reset,
    ),
    row("role", 1, 0, "Returns that the server is a master without replicas", startup::role),
    row("select", 2, 0, "Selects a database; they share all channels", startup::select),
    row(
        "shutdown",
        -1,
        NO_MULTI | OPERATORS,
        "Drains all connections and stops the server",
        admin::shutdown,
    ),
    row("slowlog", -2, CONTAINER, "Returns no commands", startup::slowlog),
    row(
        "spublish",
        3,
        PUBLISHES,
        "Sends a message to a shard channel; returns the number of receivers",
        pubsub::spublish,
    ),
    row(
        "ssubscribe",
        -2,
        SUBSCRIBED | DENY_BLOCKING | NAMES,
        "Subscribes to shard channels",
        pubsub::ssubscribe,
    ),
    row("subscribe", -2, SUBSCRIBED | NAMES, "Subscribes to channels", pubsub::subscribe),
    row(
        "sunsubscribe",
        -1,
        SUBSCRIBED | NAMES,
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
        SUBSCRIBED | NAMES,
        "Unsubscribes from the given channels, or from all",
        pubsub::unsubscribe,
    ),
    row("unwatch", 1, 0, "Does nothing: there are no keys to watch", transactions::unwatch),
    row("wait", 3, 0, "Returns 0: there are no replicas to wait for", startup::wait),
    row("watch", -2, AT_ONCE, "Does nothing: there are no keys to watch", transactions::watch),
];

/// Index of MULTI in the table.
pub const MULTI: usize = {
    let mut index = 0;
    while !matches!(TABLE[index].name.as_bytes(), b"multi") {
        index += 1;
    }
    index
};

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

/// Returns the index of the row of a command.
fn find(words: Command<'_>) -> Option<usize> {
    named(word(words, 0))
}

/// Returns the index of the row of a command with this name. Few commands share a first letter, and
/// most of these differ in length.
fn named(name: &[u8]) -> Option<usize> {
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

/// Runs one command of a session, queues it for EXEC, or defers it.
pub fn run(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let start = call.reply.len();
    let Some(index) = admitted(shared, words, call) else {
        shared.commands_processed += 1;
        let is_exec = is(word(words, 0), "exec");
        if is_exec && let Some(index) = find(words) {
            RespState::note_command(shared, call.session, index);
        }
        return transactions::refused(is_exec, start, call);
    };
    let row = &TABLE[index];
    let is_queueing = RespState::of(&shared.sessions.get(call.session)).is_queueing();
    if is_queueing && row.flags & AT_ONCE == 0 {
        shared.commands_processed += 1;
        return transactions::queue(shared, row, words, call);
    }
    let must_wait = row.flags & (PUBLISHES | SEARCHES) != 0
        && (must_wait(shared, row.flags, false, call)
            || must_pace(shared, row, words, call.session));
    if must_wait {
        return call.wait();
    }
    shared.commands_processed += 1;
    if !is_queueing {
        RespState::note_command(shared, call.session, index);
    }
    perform(shared, row, words, call);
    // MULTI stays the last command of the session as long as its transaction is open.
    if is_queueing && call.transactions.count(call.session).is_none() {
        RespState::note_command(shared, call.session, index);
    }
}

/// Returns the index of the row of a command that the session may run now. Else appends the error
/// and returns `None`.
fn admitted(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) -> Option<usize> {
    let index = checked(words, call.out())?;
    let row = &TABLE[index];
    if row.flags & NO_AUTH == 0 && !shared.is_authenticated(call.session) {
        shared.note_refused(call.session, call.server);
        call.error("NOAUTH Authentication required.");
        return None;
    }
    if !shared.is_operator(call.session) && is_for_operators(row, words) {
        not_permitted(row.name, words, call);
        return None;
    }
    if row.flags & SUBSCRIBED == 0 && shared.is_limited(call.session) {
        let message = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            row.name
        );
        call.error(&message);
        return None;
    }
    if row.flags & NO_MULTI != 0 && call.transactions.count(call.session).is_some() {
        call.error("ERR Command not allowed inside a transaction");
        return None;
    }
    Some(index)
}

/// Returns true if only operators may run a command. CLIENT KILL is not among these, because a
/// client may close its own connection.
fn is_for_operators(row: &CommandRow, words: Command<'_>) -> bool {
    let subcommands: &[&str] = match row.name {
        "client" => &["list", "closed"],
        "config" => &["set", "resetstat", "rewrite"],
        "memory" => &["doctor"],
        _ => &[],
    };
    row.flags & OPERATORS != 0 || subcommands.iter().any(|name| is(word(words, 1), name))
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
    let Some(index) = find(words) else {
        unknown_command(words, out);
        return None;
    };
    let row = &TABLE[index];
    if !help::has_arity(row.arity, words) {
        wrong_number(row.name, out);
        return None;
    }
    if words.len() > COMMAND_WORDS_MAX && row.flags & NAMES == 0 {
        let (name, count) = (row.name, words.len());
        let error =
            format!("ERR '{name}' has {count} words; accepted: up to {COMMAND_WORDS_MAX} words");
        resp::error(out, error.as_bytes());
        return None;
    }
    let has_subcommand = row.flags & CONTAINER != 0 && words.len() > 1;
    (!has_subcommand || help::admits(row.name, words, out)).then_some(index)
}

/// Returns true if a command is known and has a right number of words.
pub fn accepts(words: Command<'_>) -> bool {
    find(words).is_some_and(|index| help::has_arity(TABLE[index].arity, words))
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

fn command(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    describe::describe(TABLE, shared, words, call);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_in_upper_and_lower_case() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in TABLE {
            assert_eq!(
                named(row.name.to_uppercase().as_bytes()).map(|found| TABLE[found].name),
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
            assert!(named(not_a_name).is_none(), "{}", not_a_name.escape_ascii());
        }
    }
}

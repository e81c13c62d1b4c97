//! Help for the subcommands of CLIENT, COMMAND, CONFIG, MEMORY and PUBSUB, and the errors for
//! unknown ones.

use super::words::{is, shown, word, wrong_number};
use crate::codec::resp::{self, Command};

/// Command → its subcommands: names, arguments and summary.
const TEXTS: &[(&str, &[(&str, &str)])] = &[
    (
        "CLIENT",
        &[
            ("CLOSED", "-- list recently closed connections: address, age, bytes and reason."),
            ("GETNAME", "-- return the name of this connection."),
            ("ID", "-- return the id of this connection."),
            ("INFO", "-- describe this connection."),
            (
                "KILL",
                "ip:port | [ID id ...] [TYPE type] [ADDR ip:port] [LADDR ip:port] [USER user] \
                 [MAXAGE seconds] [SKIPME yes|no] -- close connections.",
            ),
            ("LIST", "[filters as for KILL] -- describe connections."),
            ("NO-EVICT, NO-TOUCH", "on|off -- accepted without effect."),
            ("REPLY", "on|off|skip -- turn replies to commands on or off, or skip the next one."),
            ("SETINFO", "LIB-NAME|LIB-VER text -- set the name or version of the client library."),
            ("SETNAME", "name -- set the name of this connection."),
        ],
    ),
    (
        "COMMAND",
        &[
            ("COUNT", "-- return the number of commands."),
            ("DOCS", "[name ...] -- return the summary of the given commands, or of all."),
            (
                "INFO",
                "[name ...] -- return name, arity and flags of the given commands, or of all.",
            ),
            ("LIST", "-- return the names of all commands."),
        ],
    ),
    (
        "CONFIG",
        &[
            ("GET", "pattern ... -- return the settings that match, with their values."),
            ("RESETSTAT", "-- set the counters of INFO to zero."),
            ("SET", "name value ... -- change settings until the next start or SIGHUP."),
        ],
    ),
    (
        "MEMORY",
        &[
            ("DOCTOR", "-- explain memory use in words."),
            ("STATS", "-- return memory use in figures."),
            ("USAGE", "id -- return the memory held for the connection with this id, in bytes."),
        ],
    ),
    (
        "PUBSUB",
        &[
            ("CHANNELS, SHARDCHANNELS", "[pattern] -- list the channels that have subscribers."),
            ("NUMPAT", "-- return the number of patterns that have subscribers."),
            ("NUMSUB, SHARDNUMSUB", "[channel ...] -- return the number of subscribers of each."),
        ],
    ),
];

/// Replies to HELP. Any other subcommand gets an error: it is unknown, or the number of its
/// arguments is wrong.
pub fn other_subcommand(command: &str, words: Command<'_>, out: &mut Vec<u8>) {
    let (upper, name) = (command.to_ascii_uppercase(), word(words, 1));
    if is(name, "help") && words.len() == 2 {
        write(&upper, out);
    } else if has(&upper, name) {
        wrong_number(&format!("{command}|{}", shown(name).to_ascii_lowercase()), out);
    } else {
        resp::error(
            out,
            format!("ERR unknown subcommand '{}'. Try {upper} HELP.", shown(name)).as_bytes(),
        );
    }
}

/// Returns the subcommands of a command, given in upper case.
fn lines(command: &str) -> &'static [(&'static str, &'static str)] {
    TEXTS.iter().find(|(name, _)| *name == command).map_or(&[], |(_, lines)| lines)
}

/// Appends the help of a command, given in upper case.
fn write(command: &str, out: &mut Vec<u8>) {
    resp::array(out, lines(command).len() + 1);
    resp::simple(out, &format!("{command} <subcommand> [<arg> ...]. Subcommands are:"));
    lines(command).iter().for_each(|(names, rest)| resp::simple(out, &format!("{names} {rest}")));
}

/// Returns true if a command has this subcommand.
fn has(command: &str, subcommand: &[u8]) -> bool {
    lines(command).iter().flat_map(|(names, _)| names.split(", ")).any(|name| is(subcommand, name))
}

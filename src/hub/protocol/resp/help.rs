//! The subcommands of CLIENT, CONFIG and the like: what HELP answers of them, and the errors for
//! those that cannot be carried out.

use super::words::{is, shown, word, wrong_number};
use crate::codec::resp::{self, Command};

/// Of each command, its subcommands: their names, and the rest of the line.
const TEXTS: &[(&str, &[(&str, &str)])] = &[
    (
        "CLIENT",
        &[
            ("CLOSED", "-- the last connections that ended: address, age, bytes and why."),
            ("GETNAME", "-- the name of this connection."),
            ("ID", "-- the number of this connection."),
            ("INFO", "-- what is known of this connection."),
            (
                "KILL",
                "ip:port | [ID id ...] [TYPE type] [ADDR ip:port] [LADDR ip:port] [USER user] [MAXAGE s] [SKIPME yes|no]",
            ),
            ("LIST", "[the same filters] -- what is known of connections."),
            ("NO-EVICT, NO-TOUCH", "on|off -- accepted; nothing depends on them."),
            ("REPLY", "on|off|skip -- whether commands are answered."),
            ("SETINFO", "LIB-NAME|LIB-VER text -- says what library this is."),
            ("SETNAME", "name -- names this connection."),
        ],
    ),
    (
        "COMMAND",
        &[
            ("COUNT", "-- how many commands there are."),
            ("DOCS", "[name ...] -- what they do."),
            ("INFO", "[name ...] -- name, arity, flags; without COMMAND's subcommand, of all."),
            ("LIST", "-- their names."),
        ],
    ),
    (
        "CONFIG",
        &[
            ("GET", "pattern ... -- settings and their values."),
            ("RESETSTAT", "-- counts from zero again."),
            ("SET", "name value ... -- changes settings until the next start."),
        ],
    ),
    (
        "MEMORY",
        &[
            ("DOCTOR", "-- what the figures say, in words."),
            ("STATS", "-- where memory goes."),
            ("USAGE", "id -- bytes held for the connection of this number."),
        ],
    ),
    (
        "PUBSUB",
        &[
            ("CHANNELS, SHARDCHANNELS", "[pattern] -- channels that have subscribers."),
            ("NUMPAT", "-- how many patterns are subscribed to."),
            ("NUMSUB, SHARDNUMSUB", "[channel ...] -- how many subscribers they have."),
        ],
    ),
];

/// HELP, or what cannot be carried out: a subcommand that there is not, or not with so many words.
pub fn other_subcommand(command: &str, words: Command<'_>, out: &mut Vec<u8>) {
    let (upper, name) = (command.to_ascii_uppercase(), word(words, 1));
    if is(name, "help") && words.len() == 2 {
        write(&upper, out);
    } else if has(&upper, name) {
        wrong_number(&format!("{command}|{}", shown(name).to_ascii_lowercase()), out);
    } else {
        resp::error(out, format!("ERR unknown subcommand '{}'. Try {upper} HELP.", shown(name)).as_bytes());
    }
}

fn lines(command: &str) -> &'static [(&'static str, &'static str)] {
    TEXTS.iter().find(|(name, _)| *name == command).map_or(&[], |(_, lines)| lines)
}

/// The lines of a command, by its name in capitals.
fn write(command: &str, out: &mut Vec<u8>) {
    resp::array(out, lines(command).len() + 1);
    resp::simple(out, &format!("{command} <subcommand> [<arg> ...]. Subcommands are:"));
    lines(command).iter().for_each(|(names, rest)| resp::simple(out, &format!("{names} {rest}")));
}

/// Whether a command has such a subcommand.
fn has(command: &str, subcommand: &[u8]) -> bool {
    lines(command).iter().flat_map(|(names, _)| names.split(", ")).any(|name| is(subcommand, name))
}

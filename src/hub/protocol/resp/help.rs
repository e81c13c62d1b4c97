//! The subcommands of CLIENT, CONFIG and others: their numbers of words, their help, and the errors
//! for unknown ones.

use super::words::{is, shown, word, wrong_number};
use crate::codec::resp::{self, Command};

/// One subcommand, or several of the same form.
pub struct Subcommand {
    /// The names in upper case, separated by commas.
    names: &'static str,
    /// Number of words, those of the command included. Negative: the minimum number.
    arity: i32,
    /// Arguments and summary.
    text: &'static str,
}

const fn sub(names: &'static str, arity: i32, text: &'static str) -> Subcommand {
    Subcommand { names, arity, text }
}

/// Command → its subcommands.
const TEXTS: &[(&str, &[Subcommand])] = &[
    ("acl", &[sub("WHOAMI", 2, "-- return the name of the user: there is only `default`.")]),
    (
        "client",
        &[
            sub("CACHING", 3, "yes|no -- accepted in the modes OPTIN and OPTOUT, without effect."),
            sub("CLOSED", 2, "-- list recently closed connections: address, age, bytes, reason."),
            sub("GETNAME", 2, "-- return the name of this connection."),
            sub("GETREDIR", 2, "-- return the connection that invalidations go to."),
            sub("ID", 2, "-- return the id of this connection."),
            sub("INFO", 2, "-- describe this connection."),
            sub(
                "KILL",
                -3,
                "ip:port | [ID id ...] [TYPE type] [ADDR ip:port] [LADDR ip:port] [USER user] \
                 [MAXAGE seconds] [SKIPME yes|no] [PROTOCOL name] [PATH path] [AGENT text] \
                 -- close connections.",
            ),
            sub("LIST", -2, "[filters as for KILL] -- describe connections."),
            sub("NO-EVICT", 3, "on|off -- exempts the connection from eviction by memory."),
            sub("NO-TOUCH", 3, "on|off -- accepted without effect."),
            sub("REPLY", 3, "on|off|skip -- turn replies on or off, or skip the next one."),
            sub("RETAINED", 3, "on|off -- begin new subscriptions with the retained messages."),
            sub("SETINFO", 4, "LIB-NAME|LIB-VER text -- set name or version of the library."),
            sub("SETNAME", 3, "name -- set the name of this connection."),
            sub(
                "TRACKING",
                -3,
                "on|off [REDIRECT id] [BCAST] [PREFIX prefix ...] [OPTIN] [OPTOUT] [NOLOOP] -- \
                 accepted: no key ever changes, so no invalidation is ever sent.",
            ),
            sub("TRACKINGINFO", 2, "-- return the state of TRACKING."),
        ],
    ),
    (
        "cluster",
        &[
            sub("INFO, LINKS, MYID, NODES, SHARDS, SLOTS", 2, "-- refused."),
            sub("COUNTKEYSINSLOT, KEYSLOT, REPLICAS, SLAVES", 3, "-- refused."),
        ],
    ),
    (
        "command",
        &[
            sub("COUNT", 2, "-- return the number of commands."),
            sub("DOCS", -2, "[name ...] -- return the summary of the given commands, or of all."),
            sub("GETKEYS", -4, "command ... -- return the keys of a command: there are none."),
            sub("INFO", -2, "[name ...] -- return name, arity and flags of commands, or of all."),
            sub("LIST", -2, "-- return the names of all commands."),
        ],
    ),
    (
        "config",
        &[
            sub("GET", -3, "pattern ... -- return the settings that match, with their values."),
            sub("REWRITE", 2, "-- refused: change the file, and send SIGHUP."),
            sub("RESETSTAT", 2, "-- set the counters of INFO to zero."),
            sub("SET", -4, "name value ... -- change settings until the next start or SIGHUP."),
        ],
    ),
    (
        "latency",
        &[
            sub("LATEST", 2, "-- return no events: INFO has the longest turns."),
            sub("HISTORY", 3, "event -- return no events."),
            sub("RESET", -2, "[event ...] -- return 0: there are no events."),
        ],
    ),
    (
        "memory",
        &[
            sub("DOCTOR", 2, "-- explain memory use in words."),
            sub("STATS", 2, "-- return memory use in figures."),
            sub("USAGE", -3, "id -- return the memory of the connection with this id, in bytes."),
        ],
    ),
    ("module", &[sub("LIST", 2, "-- return no modules: there are none.")]),
    (
        "pubsub",
        &[
            sub("CHANNELS, SHARDCHANNELS", -2, "[pattern] -- list the channels with subscribers."),
            sub("NUMPAT", 2, "-- return the number of patterns that have subscribers."),
            sub("NUMSUB, SHARDNUMSUB", -2, "[channel ...] -- count the subscribers of each."),
        ],
    ),
    (
        "slowlog",
        &[
            sub("GET", -2, "[count] -- return no commands: there is no slow log."),
            sub("LEN", 2, "-- return 0."),
            sub("RESET", 2, "-- accepted without effect."),
        ],
    ),
];

/// Checks the subcommand of a command. If it is unknown or has a wrong number of words, appends the
/// error and returns false.
pub fn admits(command: &str, words: Command<'_>, out: &mut Vec<u8>) -> bool {
    let name = word(words, 1);
    let found = subcommands(command).iter().find(|own| own.is(name));
    let arity = match found {
        Some(found) => found.arity,
        None if is(name, "help") => 2,
        None => {
            unknown(command, name, out);
            return false;
        }
    };
    let fits = has_arity(arity, words);
    if !fits {
        wrong_number(&format!("{command}|{}", shown(name).to_ascii_lowercase()), out);
    }
    fits
}

/// Returns true if a command has the right number of words.
pub fn has_arity(arity: i32, words: Command<'_>) -> bool {
    let count = words.len() as i32;
    if arity < 0 { count >= -arity } else { count == arity }
}

/// Replies to HELP. Any other subcommand gets an error: its arguments are wrong.
pub fn other_subcommand(command: &str, words: Command<'_>, out: &mut Vec<u8>) {
    let name = word(words, 1);
    if is(name, "help") {
        write(command, out);
    } else if subcommands(command).iter().any(|own| own.is(name)) {
        wrong_number(&format!("{command}|{}", shown(name).to_ascii_lowercase()), out);
    } else {
        unknown(command, name, out);
    }
}

fn unknown(command: &str, name: &[u8], out: &mut Vec<u8>) {
    let (name, upper) = (shown(name), command.to_ascii_uppercase());
    let error = format!("ERR unknown subcommand '{name}'. Try {upper} HELP.");
    resp::error(out, error.as_bytes());
}

impl Subcommand {
    fn is(&self, name: &[u8]) -> bool {
        self.names.split(", ").any(|own| is(name, own))
    }
}

/// Returns the subcommands of a command.
fn subcommands(command: &str) -> &'static [Subcommand] {
    TEXTS.iter().find(|(name, _)| *name == command).map_or(&[], |(_, list)| list)
}

/// Appends the help of a command.
fn write(command: &str, out: &mut Vec<u8>) {
    let (list, upper) = (subcommands(command), command.to_ascii_uppercase());
    resp::array(out, list.len() + 1);
    resp::simple(out, &format!("{upper} <subcommand> [<arg> ...]. Subcommands are:"));
    list.iter().for_each(|own| resp::simple(out, &format!("{} {}", own.names, own.text)));
}

//! The commands that clients of Redis send when they connect, and to which a hub without keys,
//! replicas and cluster has one answer.

use super::Call;
use super::help::other_subcommand;
use super::words::{is, word};
use crate::codec::resp::{self, Command};
use crate::hub::Shared;

/// Number of databases that SELECT accepts, as in Redis by default. Channels belong to none of
/// them.
pub const DATABASES: i64 = 16;

const NOT_A_NUMBER: &[u8] = b"ERR value is not an integer or out of range";

pub fn select(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match resp::number(word(words, 1)) {
        Some(0..DATABASES) => resp::simple(call.out(), "OK"),
        Some(_) => call.error("ERR DB index is out of range"),
        None => resp::error(call.out(), NOT_A_NUMBER),
    }
}

/// Replies as a master without replicas.
pub fn role(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let out = call.out();
    resp::array(out, 3);
    resp::bulk(out, b"master");
    resp::integer(out, 0);
    resp::array(out, 0);
}

/// READONLY, READWRITE, ASKING, and CLUSTER with all its subcommands.
pub fn no_cluster(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    call.error("ERR This instance has cluster support disabled");
}

/// No replica acknowledges anything, so the reply is 0 and comes at once.
pub fn wait(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match (resp::number(word(words, 1)), resp::number(word(words, 2))) {
        (None, _) => resp::error(call.out(), NOT_A_NUMBER),
        (_, None) => call.error("ERR timeout is not an integer or out of range"),
        (_, Some(..0)) => call.error("ERR timeout is negative"),
        _ => resp::integer(call.out(), 0),
    }
}

pub fn dbsize(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    resp::integer(call.out(), 0);
}

/// FLUSHDB and FLUSHALL. The test suites of client libraries send them between tests.
pub fn flush(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let is_known = |word: &[u8]| is(word, "async") || is(word, "sync");
    match words.len() == 1 || (words.len() == 2 && is_known(word(words, 1))) {
        true => resp::simple(call.out(), "OK"),
        false => call.error("ERR syntax error"),
    }
}

pub fn acl(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match word(words, 1) {
        name if is(name, "whoami") => resp::bulk(call.out(), b"default"),
        _ => other_subcommand("acl", words, call.out()),
    }
}

pub fn latency(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match word(words, 1) {
        name if is(name, "latest") || is(name, "history") => resp::array(call.out(), 0),
        name if is(name, "reset") => resp::integer(call.out(), 0),
        _ => other_subcommand("latency", words, call.out()),
    }
}

pub fn module(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    match word(words, 1) {
        name if is(name, "list") => resp::array(call.out(), 0),
        _ => other_subcommand("module", words, call.out()),
    }
}

pub fn slowlog(_shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let is_count = |word: &[u8]| resp::number(word).is_some_and(|count| count >= -1);
    match word(words, 1) {
        name if is(name, "get") && words.len() > 3 => {
            other_subcommand("slowlog", words, call.out())
        }
        name if is(name, "get") && words.len() == 3 && !is_count(word(words, 2)) => {
            call.error("ERR count should be greater than or equal to -1");
        }
        name if is(name, "get") => resp::array(call.out(), 0),
        name if is(name, "len") => resp::integer(call.out(), 0),
        name if is(name, "reset") => resp::simple(call.out(), "OK"),
        _ => other_subcommand("slowlog", words, call.out()),
    }
}

/// Returns the settings that clients of Redis read and slabd does not have under these names.
pub fn settings(call: &Call<'_, '_>) -> Vec<(String, String)> {
    let limits = call.server.limits();
    let soft = (limits.output_soft_limit, limits.output_soft_time.as_secs());
    let outputs = format!("{} {} {}", limits.output_limit, soft.0, soft.1);
    [
        ("appendonly", "no".into()),
        ("client-output-buffer-limit", format!("normal {outputs} slave 0 0 0 pubsub {outputs}")),
        ("cluster-enabled", "no".into()),
        ("databases", DATABASES.to_string()),
        ("latency-monitor-threshold", "0".into()),
        ("maxclients", limits.max_connections.to_string()),
        ("maxmemory", limits.memory_budget.to_string()),
        ("maxmemory-policy", "noeviction".into()),
        ("notify-keyspace-events", String::new()),
        ("replica-read-only", "yes".into()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("slave-read-only", "yes".into()),
        ("slowlog-log-slower-than", "-1".into()),
        ("slowlog-max-len", "0".into()),
        ("timeout", limits.idle_timeout.as_secs().to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

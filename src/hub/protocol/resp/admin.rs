//! The commands about the server: INFO, CONFIG, MEMORY, TIME, MONITOR, SHUTDOWN.

use std::collections::HashMap;

use super::help::other_subcommand;
use super::listing::Filter;
use super::pubsub::refuse;
use super::walks::WalkTask;
use super::words::{is, shown, word};
use super::{Call, redis_sections, startup};
use crate::codec::resp::{self, Command};
use crate::hub::channels::{Kind, TopicLimits};
use crate::hub::shares::{SessionSources, allows};
use crate::hub::verbs::too_long;
use crate::hub::{Shared, glob};
use crate::limits::{CONFIG_STEPS, INFO_STEPS, MONITORS_MAX, PATTERNS_AT_ONCE, SHARE, WHY_MAX};
use crate::metrics::{Metric, Metrics, key};
use crate::service::server::Server;

/// Runs `INFO [section …]`. A section is named by its title, or by the first word of its title.
pub fn info(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    shared.asked += INFO_STEPS;
    let is_everything =
        |word: &[u8]| ["all", "everything", "default"].iter().any(|name| is(word, name));
    let everything = words.len() == 1 || words.iter().skip(1).any(is_everything);
    let wanted = |title: &str| {
        let title = key(title);
        let named = |word: &[u8]| {
            is(word, &title) || title.split('_').next().is_some_and(|first| is(word, first))
        };
        everything || words.iter().skip(1).any(named)
    };
    let mut text = String::new();
    let mut write = |heading: &str, list: &[Metric]| {
        let line_break = if text.is_empty() { "" } else { "\r\n" };
        text.push_str(&format!("{line_break}# {heading}\r\n"));
        for Metric { title, value, .. } in list {
            text.push_str(&format!("{}:{value}\r\n", key(title)));
        }
    };
    let needed = |title: &str| wanted(title) || redis_sections::needs(title, &wanted);
    let theirs = call.server.metrics(&needed);
    // Clients of Redis look for the headings of Redis as they are.
    for section in redis_sections::sections(shared, call, &theirs, &wanted) {
        write(section.title, &section.list);
    }
    let theirs = theirs.into_iter().filter(|section| wanted(section.title));
    for section in shared.metrics(&wanted).into_iter().chain(theirs) {
        write(&key(section.title), &section.list);
    }
    let protocol = shared.protocol(call.session);
    resp::verbatim(call.out(), &text, protocol);
}

pub fn config(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let protocol = shared.protocol(call.session);
    match word(words, 1) {
        name if is(name, "get") && words.len() >= 3 => {
            if words.len() - 2 > PATTERNS_AT_ONCE {
                return call.error(&format!(
                    "ERR too many patterns; accepted: up to {PATTERNS_AT_ONCE} per command"
                ));
            }
            if let Some(error) = words
                .iter()
                .skip(2)
                .find_map(|pattern| too_long(Kind::Pattern, pattern, call.server.limits()))
            {
                return call.error(&format!("ERR {error}"));
            }
            let patterns: Vec<Vec<u8>> =
                words.iter().skip(2).map(<[u8]>::to_ascii_lowercase).collect();
            let mut steps = 0;
            let mut asked = |name: &str| {
                patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes(), &mut steps))
            };
            let known = call.server.settings().into_iter().chain(startup::settings(call));
            let found: Vec<_> = known.filter(|(name, _)| asked(name)).collect();
            shared.asked += steps + CONFIG_STEPS;
            let out = call.out();
            resp::map(out, found.len(), protocol);
            for (name, value) in found {
                resp::bulk(out, name.as_bytes());
                resp::bulk(out, value.as_bytes());
            }
        }
        name if is(name, "set") && words.len() >= 4 && words.len().is_multiple_of(2) => {
            match set(call.server, words) {
                Ok(()) => resp::simple(call.out(), "OK"),
                Err(error) => call.error(&error),
            }
        }
        name if is(name, "resetstat") && words.len() == 2 => {
            call.server.reset_counters();
            (shared.commands_processed, shared.datagrams_refused, shared.commands_not_shown) =
                (0, 0, 0);
            (shared.fanout.published, shared.fanout.delivered) = (0, 0);
            (shared.http_requests, shared.websocket_messages) = (0, 0);
            resp::simple(call.out(), "OK");
        }
        name if is(name, "rewrite") => call.error(
            "ERR CONFIG REWRITE is not supported; change the file of --config, and send SIGHUP",
        ),
        _ => other_subcommand("config", words, call.out()),
    }
}

/// Changes settings: all of those given, or none if one is refused.
fn set(server: &mut dyn Server, words: Command<'_>) -> Result<(), String> {
    let text = |at: usize| String::from_utf8_lossy(word(words, at)).into_owned();
    let pairs = (2..words.len()).step_by(2).map(|at| (text(at).to_ascii_lowercase(), text(at + 1)));
    let changes: Vec<_> = pairs.collect();
    server.set(&changes).map_err(|why| {
        // The server's error begins with the name of the setting at fault.
        let blamed =
            changes.iter().map(|(name, _)| name).find(|name| why.starts_with(name.as_str()));
        let name = blamed.or(changes.first().map(|(name, _)| name)).map_or("", String::as_str);
        let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(&why);
        let (name, why) = (
            shown(name.as_bytes()),
            String::from_utf8_lossy(&why.as_bytes()[..why.len().min(WHY_MAX)]),
        );
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    })
}

pub fn memory(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let protocol = shared.protocol(call.session);
    match word(words, 1) {
        name if is(name, "stats") && words.len() == 2 => {
            shared.asked += INFO_STEPS;
            let sections = call.server.metrics(&is_memory);
            let rows: Vec<_> = sections.iter().flat_map(Metrics::counts).collect();
            resp::map(call.out(), rows.len(), protocol);
            for (title, value) in rows {
                resp::bulk(
                    call.out(),
                    title.replace([' ', ','], "-").replace("--", "-").as_bytes(),
                );
                resp::integer(call.out(), value as i64);
            }
        }
        name if is(name, "usage") && words.len() == 3 => {
            let id = resp::number(word(words, 2))
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| *id > 0);
            let filter = || Filter::of(id.into_iter().collect());
            let Some(found) = call.walk(shared, WalkTask::Usage, filter) else { return };
            match found.sessions {
                0 => resp::null(call.out(), protocol),
                _ => resp::integer(call.out(), found.bytes as i64),
            }
        }
        name if is(name, "doctor") && words.len() == 2 => {
            shared.asked += INFO_STEPS;
            let text = diagnosis(&call.server.metrics(&is_memory));
            resp::verbatim(call.out(), &text, protocol);
        }
        _ => other_subcommand("memory", words, call.out()),
    }
}

fn is_memory(title: &str) -> bool {
    title.contains("memory")
}

/// Explains the memory figures in words.
fn diagnosis(sections: &[Metrics]) -> String {
    let counts: HashMap<_, _> = sections.iter().flat_map(Metrics::counts).collect();
    let value = |title: &str| counts.get(title).copied().unwrap_or(0);
    let (ledger, grown) = (value("ledger, without fixed"), value("grown since start"));
    let kernel = value("connections, estimated");
    let mut text = format!(
        "slabd uses {ledger} bytes for connections and their buffers. Its resident memory has \
         grown by {grown} bytes since the start. The kernel uses about {kernel} bytes for the \
         sockets.\n"
    );
    if kernel > 4 * ledger.max(1) {
        text.push_str(
            "The kernel uses most of the memory of a connection. Fewer connections or smaller \
             socket buffers save more than other settings.\n",
        );
    }
    if grown > 2 * ledger && grown - ledger > 8 << 20 {
        text.push_str(
            "Much resident memory is left over from an earlier load. slabd returns it to the \
             system one second after the load drops.\n",
        );
    }
    if value("write-buffers") > ledger / 2 && value("write-buffers") > 1 << 20 {
        text.push_str(
            "More than half of the memory is output for slow consumers. Find them by obl in \
             CLIENT LIST; output-limit bounds the output of each.\n",
        );
    }
    if text.lines().count() == 1 {
        text.push_str("These figures are normal.\n");
    }
    text
}

/// Follows the system's clock, also after it was set.
pub fn time(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let time = call.server.system_time();
    let out = call.out();
    resp::array(out, 2);
    resp::bulk(out, time.as_secs().to_string().as_bytes());
    resp::bulk(out, time.subsec_micros().to_string().as_bytes());
}

pub fn monitor(shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let feed = shared.channels.topic(Kind::Feed, b"");
    let monitors = feed.map_or(0, |feed| shared.channels.subscribers(feed).len());
    if feed.is_some_and(|feed| shared.channels.is_member(call.session.index, feed)) {
        return resp::simple(call.out(), "OK");
    }
    let source = shared.sessions.source(call.session.index);
    let own = feed.map_or(0, |feed| {
        let subscribers = shared.channels.subscribers(feed);
        subscribers.filter(|session| shared.sessions.source(*session) == source).count()
    });
    if monitors >= MONITORS_MAX {
        return call.error(&format!(
            "ERR too many monitors; at most {MONITORS_MAX} connections may run MONITOR"
        ));
    }
    if !allows(own, 1, monitors, MONITORS_MAX) {
        return call.error(&format!(
            "ERR too many monitors from this address; it may have {SHARE} times what is left of \
             {MONITORS_MAX}"
        ));
    }
    let Call { session, server, reply, .. } = call;
    let mut limits = TopicLimits::of(server.limits());
    let out = reply.bytes_mut();
    let subscribed = shared.subscribe_within(*session, Kind::Feed, b"", &mut limits, *server, out);
    call.keep();
    match subscribed {
        Ok(_) => resp::simple(call.out(), "OK"),
        Err(refused) => {
            let Call { server, reply, .. } = call;
            refuse(&refused, server.limits(), reply.bytes_mut());
        }
    }
}

/// Drains the server as SIGTERM does. The command has no reply: the connection closes.
pub fn shutdown(_state: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let known = |word: &[u8]| ["nosave", "save", "now", "force"].iter().any(|name| is(word, name));
    if !words.iter().skip(1).all(known) {
        return resp::error(call.out(), b"ERR syntax error");
    }
    call.server.shut_down();
}

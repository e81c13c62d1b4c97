//! The commands about the server: INFO, CONFIG, MEMORY, TIME, MONITOR, SHUTDOWN.

use std::collections::HashMap;
use std::fmt::Write;

use super::help::other_subcommand;
use super::listing::{Filter, peer};
use super::pubsub::{refusal, too_long};
use super::walks::WalkTask;
use super::words::{is, shown, word};
use super::{Call, REDIS_VERSION};
use crate::codec::resp::{self, Command};
use crate::hub::channels::Kind;
use crate::hub::{Shared, glob};
use crate::limits::{INFO_STEPS, MONITOR_LINE_MAX, MONITORS_MAX, PATTERNS_AT_ONCE, WHY_MAX};
use crate::metrics::MetricUnit::{Bytes, Connections, Count, Datagrams, Messages};
use crate::metrics::{self, Metric, MetricSection, Metrics, key};
use crate::service::server::Server;

/// The hub's sections of INFO. They precede those of the server.
const SECTIONS: [MetricSection<Shared>; 2] = [("server", general), ("pubsub", subscriptions)];

/// Runs `INFO [section …]`. A section is named by its title, or by the first word of its title.
pub fn info(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    shared.fanout.note_searched(INFO_STEPS);
    let everything = words
        .iter()
        .skip(1)
        .all(|word| ["all", "everything", "default"].iter().any(|name| is(word, name)));
    let wanted = |title: &str| {
        let title = key(title);
        let named = |word: &[u8]| {
            is(word, &title) || title.split('_').next().is_some_and(|first| is(word, first))
        };
        everything || words.iter().skip(1).any(named)
    };
    let own = metrics::compute(shared, &SECTIONS, &wanted);
    let mut text = String::new();
    for section in own.into_iter().chain(call.server.metrics(&wanted)) {
        text.push_str(&format!("# {}\r\n", key(section.title)));
        for Metric { title, value, .. } in &section.list {
            text.push_str(&format!("{}:{value}\r\n", key(title)));
        }
        text.push_str("\r\n");
    }
    let protocol = shared.protocol(call.session);
    resp::verbatim(call.out(), &text, protocol);
}

fn general(shared: &Shared, metrics: &mut Metrics) {
    metrics.text("redis_version", REDIS_VERSION.into(), "Version of Redis that slabd follows.");
    metrics.text("slabd_version", env!("CARGO_PKG_VERSION").into(), "Version of slabd.");
    metrics.text("redis_mode", "standalone".into(), "Always `standalone`, for Redis clients.");
    metrics.text("role", "master".into(), "Always `master`, for Redis clients.");
    metrics.gauges([
        ("arch_bits", Count, u64::from(usize::BITS), "Size of a pointer in bits."),
        ("cluster_enabled", Count, 0, "Always 0, for Redis clients."),
        ("process_id", Count, u64::from(std::process::id()), "Process id of the server."),
        ("connected_clients", Connections, shared.sessions.len() as u64, "Open sessions."),
    ]);
    let commands = shared.commands_processed;
    metrics.counters([("total_commands_processed", Count, commands, "Commands run or refused.")]);
}

fn subscriptions(shared: &Shared, metrics: &mut Metrics) {
    let Shared { fanout, channels, .. } = shared;
    let (patterns, bytes) = (channels.pattern_count() as u64, channels.bytes() as u64);
    metrics.counters([
        ("published_messages", Messages, fanout.published, "Messages published."),
        ("delivered_messages", Messages, fanout.delivered, "Deliveries to subscribers."),
        (
            "datagrams_refused",
            Datagrams,
            shared.datagrams_refused,
            "Datagrams refused by access rules.",
        ),
        ("commands_not_shown", Count, shared.commands_not_shown, "Commands not shown by MONITOR."),
    ]);
    metrics.gauges([
        ("pubsub_patterns", Count, patterns, "Patterns with at least one subscriber."),
        ("pubsub_bytes", Bytes, bytes, "Memory of channels and subscriptions in bytes."),
    ]);
}

/// Settings that Redis clients read and slabd does not have under these names.
const FOREIGN_SETTINGS: [(&str, &str); 4] =
    [("save", ""), ("appendonly", "no"), ("databases", "1"), ("requirepass", "")];

pub fn config(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let protocol = shared.protocol(call.session);
    match word(words, 1) {
        name if is(name, "get") && words.len() >= 3 => {
            if words.len() - 2 > PATTERNS_AT_ONCE {
                return call.error(&format!(
                    "ERR too many patterns; accepted: up to {PATTERNS_AT_ONCE} per command"
                ));
            }
            if let Some(error) =
                words.iter().skip(2).find_map(|pattern| too_long(Kind::Pattern, pattern))
            {
                return call.error(&error);
            }
            let foreign =
                FOREIGN_SETTINGS.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let patterns: Vec<Vec<u8>> =
                words.iter().skip(2).map(<[u8]>::to_ascii_lowercase).collect();
            let mut steps = 0;
            let mut asked = |name: &str| {
                patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes(), &mut steps))
            };
            let known = call.server.settings().into_iter().chain(foreign);
            let found: Vec<_> = known.filter(|(name, _)| asked(name)).collect();
            shared.fanout.note_searched(steps);
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
            resp::simple(call.out(), "OK");
        }
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

pub fn time(shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let time = shared.unix_time(call.reply.now);
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
    if monitors >= MONITORS_MAX {
        return call.error(&format!(
            "ERR too many monitors; at most {MONITORS_MAX} connections may run MONITOR"
        ));
    }
    let subscribed = shared.subscribe(call.session, Kind::Feed, b"", call.out());
    call.keep();
    match subscribed {
        Ok(_) => resp::simple(call.out(), "OK"),
        Err(limit) => call.error(&refusal(limit)),
    }
}

/// Shows a command to all monitors after it has run, in Redis's format.
pub fn show_to_monitors(shared: &mut Shared, words: Command<'_>, call: &Call<'_, '_>) {
    let Some(feed) = shared.channels.topic(Kind::Feed, b"") else { return };
    if shared.fanout.is_overfull() {
        shared.commands_not_shown += 1;
        return;
    }
    let time = shared.unix_time(call.reply.now);
    let mut line = format!("+{}.{:06} [0 ", time.as_secs(), time.subsec_micros());
    match peer(shared, call.server, call.session) {
        // Writing to a String cannot fail.
        Some(peer) => drop(write!(line, "{peer}]")),
        None => line.push_str("?:0]"),
    }
    for word in words.iter() {
        line.push_str(" \"");
        // An escaped byte takes up to four, so the length is checked before each byte.
        for byte in word.iter() {
            if line.len() >= MONITOR_LINE_MAX {
                break;
            }
            escape(*byte, &mut line);
        }
        line.push('"');
        if line.len() >= MONITOR_LINE_MAX {
            line.push_str(" ...");
            break;
        }
    }
    line.push_str("\r\n");
    shared.fanout.publish(&mut shared.channels, &[feed], b"", line.as_bytes());
}

/// Appends a byte, escaped as by Redis's `sdscatrepr`.
fn escape(byte: u8, out: &mut String) {
    match byte {
        b'\\' | b'"' => out.extend(['\\', char::from(byte)]),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        0x07 => out.push_str("\\a"),
        0x08 => out.push_str("\\b"),
        b' '..=b'~' => out.push(char::from(byte)),
        other => out.push_str(&format!("\\x{other:02x}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{exchange, hub, session};
    use crate::limits::CONFIRMATIONS_MAX;
    use crate::service::Options;

    #[test]
    fn monitor_reports_the_limit_that_refused_it() {
        let mut hub = hub(1);
        exchange(&mut hub, 0, b"HELLO 3\r\n");
        let session = session(&hub, 0);
        // Shorter and shorter names leave no room for the confirmation of one more subscription.
        for length in [4000, 400, 40, 1] {
            for number in 0..CONFIRMATIONS_MAX {
                let name = format!("{number:length$}");
                if hub
                    .shared
                    .subscribe(session, Kind::Channel, name.as_bytes(), &mut Vec::new())
                    .is_err()
                {
                    break;
                }
            }
        }
        let (reply, _) = exchange(&mut hub, 0, b"MONITOR\r\n");
        assert_eq!(
            String::from_utf8_lossy(&reply),
            "-ERR too many subscriptions; the limit is 524288 bytes of replies that end them\r\n"
        );
    }

    #[test]
    fn each_metric_of_the_hub_has_a_distinct_name_and_a_help_text() {
        let shared = crate::hub::Hub::new(&Options::default()).shared;
        metrics::tests::check(&metrics::compute(&shared, &SECTIONS, &|_| true));
    }
}

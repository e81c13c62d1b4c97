//! The commands about the server: INFO, CONFIG, MEMORY, TIME, MONITOR, SHUTDOWN.

use super::channels::Kind;
use super::clients::peer;
use super::commands::{is, other_subcommand, shown, word};
use super::pubsub::too_long;
use super::{REDIS_VERSION, State, glob};
use crate::codec::resp::{self, Command};
use crate::service::Reply;
use crate::service::server::{Section, Server};

/// `INFO [section …]`: a section is named by the first word of its title.
pub fn info(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let mut sections = vec![general(state), subscriptions(state)];
    sections.extend(server.sections());
    let everything =
        words.iter().skip(1).all(|word| ["all", "everything", "default"].iter().any(|name| is(word, name)));
    let mut text = String::new();
    for section in sections {
        let title = key(section.title);
        let named = |word: &[u8]| is(word, &title) || title.split('_').next().is_some_and(|first| is(word, first));
        if everything || words.iter().skip(1).any(named) {
            text.push_str(&format!("# {title}\r\n"));
            section.rows.iter().for_each(|(name, value)| text.push_str(&format!("{}:{value}\r\n", key(name))));
            text.push_str("\r\n");
        }
    }
    let protocol = state.protocol(reply.session);
    resp::verbatim(reply.bytes_mut(), &text, protocol);
}

/// A name as INFO writes it: letters, digits and underscores.
fn key(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

fn general(state: &State) -> Section {
    let rows = vec![
        ("redis_version".into(), REDIS_VERSION.into()),
        ("slabd_version".into(), env!("CARGO_PKG_VERSION").into()),
        ("redis_mode".into(), "standalone".into()),
        ("arch_bits".into(), usize::BITS.to_string()),
        ("cluster_enabled".into(), "0".into()),
        ("role".into(), "master".into()),
        ("process_id".into(), std::process::id().to_string()),
        ("connected_clients".into(), state.live_sessions().count().to_string()),
        ("total_commands_processed".into(), state.commands_processed.to_string()),
    ];
    Section { title: "server", rows }
}

fn subscriptions(state: &State) -> Section {
    let rows = vec![
        ("published_messages".into(), state.publisher.published.to_string()),
        ("delivered_messages".into(), state.publisher.delivered.to_string()),
        ("pubsub_patterns".into(), state.channels.pattern_count().to_string()),
        ("pubsub_bytes".into(), state.channels.bytes().to_string()),
        ("datagrams_refused".into(), state.datagrams_refused.to_string()),
    ];
    Section { title: "pubsub", rows }
}

/// What Redis's clients ask for and slabd has under another name, or not at all.
const FOREIGN_SETTINGS: [(&str, &str); 4] =
    [("save", ""), ("appendonly", "no"), ("databases", "1"), ("requirepass", "")];

/// Patterns of one CONFIG GET: each is matched with every setting's name, by at most a third of a million steps.
const PATTERNS_AT_ONCE: usize = 16;

pub fn config(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let protocol = state.protocol(reply.session);
    let out = reply.bytes_mut();
    match word(words, 1) {
        name if is(name, "get") && words.len() >= 3 => {
            if words.len() - 2 > PATTERNS_AT_ONCE {
                return resp::error(out, b"ERR too many patterns at once");
            }
            if let Some(error) = words.iter().skip(2).find_map(|pattern| too_long(Kind::Pattern, pattern)) {
                return resp::error(out, error.as_bytes());
            }
            let foreign = FOREIGN_SETTINGS.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let patterns: Vec<Vec<u8>> = words.iter().skip(2).map(<[u8]>::to_ascii_lowercase).collect();
            let mut steps = 0;
            let mut asked =
                |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes(), &mut steps));
            let known = server.settings().into_iter().chain(foreign);
            let found: Vec<_> = known.filter(|(name, _)| asked(name)).collect();
            state.publisher.note_searched(steps);
            resp::map(out, found.len(), protocol);
            for (name, value) in found {
                resp::bulk(out, name.as_bytes());
                resp::bulk(out, value.as_bytes());
            }
        }
        name if is(name, "set") && words.len() >= 4 && words.len().is_multiple_of(2) => match set(server, words) {
            Ok(()) => resp::simple(out, "OK"),
            Err(error) => resp::error(out, error.as_bytes()),
        },
        name if is(name, "resetstat") && words.len() == 2 => {
            server.reset_counters();
            (state.commands_processed, state.datagrams_refused) = (0, 0);
            (state.publisher.published, state.publisher.delivered) = (0, 0);
            resp::simple(out, "OK");
        }
        _ => other_subcommand("config", words, out),
    }
}

/// Longest reason that CONFIG SET gives, in bytes: the peer's own value may be part of it.
const WHY_MAX: usize = 512;

/// All of them or, where one is refused, none.
fn set(server: &mut dyn Server, words: Command<'_>) -> Result<(), String> {
    let text = |at: usize| String::from_utf8_lossy(word(words, at)).into_owned();
    let pairs = (2..words.len()).step_by(2).map(|at| (text(at).to_ascii_lowercase(), text(at + 1)));
    let changes: Vec<_> = pairs.collect();
    server.set(&changes).map_err(|why| {
        // An error begins with the name of the setting that it is about.
        let blamed = changes.iter().map(|(name, _)| name).find(|name| why.starts_with(name.as_str()));
        let name = blamed.or(changes.first().map(|(name, _)| name)).map_or("", String::as_str);
        let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(&why);
        let (name, why) = (shown(name.as_bytes()), String::from_utf8_lossy(&why.as_bytes()[..why.len().min(WHY_MAX)]));
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    })
}

pub fn memory(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let protocol = state.protocol(reply.session);
    match word(words, 1) {
        name if is(name, "stats") && words.len() == 2 => {
            let sections = server.sections();
            let rows: Vec<_> = memory_rows(&sections).collect();
            resp::map(reply.bytes_mut(), rows.len(), protocol);
            for (name, value) in rows {
                resp::bulk(reply.bytes_mut(), name.replace([' ', ','], "-").replace("--", "-").as_bytes());
                resp::integer(reply.bytes_mut(), value);
            }
        }
        name if is(name, "usage") && words.len() == 3 => {
            let id = resp::number(word(words, 2)).and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0);
            let found = state.live_sessions().find(|session| Some(state.session(*session).id) == id);
            match found.and_then(|session| Some((session, server.connection(session)?))) {
                Some((session, facts)) => {
                    resp::integer(reply.bytes_mut(), (facts.user_bytes + state.bytes_of(session)) as i64);
                }
                None => resp::null(reply.bytes_mut(), protocol),
            }
        }
        name if is(name, "doctor") && words.len() == 2 => {
            let text = diagnosis(&server.sections());
            resp::verbatim(reply.bytes_mut(), &text, protocol);
        }
        _ => other_subcommand("memory", words, reply.bytes_mut()),
    }
}

/// The rows about memory that are numbers.
fn memory_rows(sections: &[Section]) -> impl Iterator<Item = (&str, i64)> {
    let memory = sections.iter().filter(|section| section.title.contains("memory"));
    memory.flat_map(|section| &section.rows).filter_map(|(name, value)| Some((name.as_str(), value.parse().ok()?)))
}

/// What the memory figures say, in words.
fn diagnosis(sections: &[Section]) -> String {
    let value = |wanted: &str| memory_rows(sections).find(|(name, _)| *name == wanted).map_or(0, |(_, value)| value);
    let (ledger, grown) = (value("ledger, without fixed"), value("grown since start"));
    let kernel = value("connections, estimated");
    let mut text = format!(
        "slabd accounts for {ledger} bytes of connections and their buffers; its resident set has grown by {grown} bytes since it \
         started. The kernel holds an estimated {kernel} bytes for the sockets.\n"
    );
    if kernel > 4 * ledger.max(1) {
        text.push_str("Most of what a connection costs is the kernel's: fewer connections or smaller socket buffers save more than any setting here.\n");
    }
    if grown > 2 * ledger && grown - ledger > 8 << 20 {
        text.push_str("Much more is resident than is accounted for: memory of an earlier load has not gone back to the system yet. It goes a second after the load drops.\n");
    }
    if value("write-buffers") > ledger / 2 && value("write-buffers") > 1 << 20 {
        text.push_str(
            "More than half is output that peers are too slow to take: see obl in CLIENT LIST, and output-limit.\n",
        );
    }
    if text.lines().count() == 1 {
        text.push_str("Nothing about that is unusual.\n");
    }
    text
}

pub fn time(state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    let time = state.unix_time(reply.now);
    let out = reply.bytes_mut();
    resp::array(out, 2);
    resp::bulk(out, time.as_secs().to_string().as_bytes());
    resp::bulk(out, time.subsec_micros().to_string().as_bytes());
}

/// Sessions that may monitor at a time: each makes every command dearer.
const MONITORS_MAX: usize = 16;

/// Longest line of MONITOR, in bytes: what is shown is for people.
const MONITOR_LINE_MAX: usize = 4096;

pub fn monitor(state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    if !state.monitors.contains(&reply.session) {
        if state.monitors.len() >= MONITORS_MAX {
            return resp::error(reply.bytes_mut(), b"ERR too many monitors");
        }
        state.monitors.push(reply.session);
    }
    resp::simple(reply.bytes_mut(), "OK");
}

/// Shows a command that is about to be carried out to who asked by MONITOR, in Redis's form.
pub fn show_to_monitors(state: &mut State, server: &dyn Server, words: Command<'_>, reply: &Reply<'_>) {
    if state.monitors.is_empty() {
        return;
    }
    let time = state.unix_time(server.now());
    let peer = peer(state, server, reply.session).map_or("?:0".into(), |peer| peer.to_string());
    let mut line = format!("+{}.{:06} [0 {peer}]", time.as_secs(), time.subsec_micros());
    for word in words.iter() {
        line.push_str(" \"");
        // Escaped, a byte may take four.
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
    let State { monitors, publisher, sessions, .. } = state;
    publisher.tell(sessions, monitors, line.as_bytes());
}

/// As Redis's `sdscatrepr` does.
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

/// Drains as SIGTERM does. There is no answer: the connection closes.
pub fn shutdown(_state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let known = |word: &[u8]| ["nosave", "save", "now", "force"].iter().any(|name| is(word, name));
    if !words.iter().skip(1).all(known) {
        return resp::error(reply.bytes_mut(), b"ERR syntax error");
    }
    server.shut_down();
}

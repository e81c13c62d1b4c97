//! The filters of CLIENT LIST and CLIENT KILL, and the line that describes a session.

use std::fmt::Write;
use std::net::SocketAddr;

use super::RespState;
use super::words::{is, shown, word};
use crate::clock::Time;
use crate::codec::resp::{self, Command, Protocol};
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::labels::Attribute;
use crate::hub::protocol::{path_of, plain};
use crate::hub::sessions::{Destination, PeerProtocol, SessionId};
use crate::limits::ROOMS_SHOWN;
use crate::service::server::Server;

/// Cost of asking the kernel for an address, in steps. Visiting a session costs one step.
const ADDRESS_STEPS: usize = 16;

/// Cost of describing a session, in steps.
pub const DESCRIBE_STEPS: usize = 64;

/// The conditions that a session must meet to be selected. A condition that was not given is met.
#[derive(Default)]
pub struct Filter {
    /// Serial numbers, in ascending order.
    ids: Option<Vec<u32>>,
    is_pubsub: Option<bool>,
    address: Option<Wanted>,
    local_address: Option<Wanted>,
    /// Protocol, path and user agent, as CLIENT LIST shows them.
    protocol: Option<Box<[u8]>>,
    path: Option<Box<[u8]>>,
    agent: Option<Box<[u8]>>,
    /// Minimum age in seconds.
    age_min: u64,
    /// True if the session that runs the command is left out.
    pub skips_asker: bool,
    now: Time,
}

/// An address to compare with. `None`: the word is no address and matches no session.
type Wanted = Option<SocketAddr>;

fn wanted(word: &[u8]) -> Wanted {
    // Only the spelling of CLIENT LIST counts. Another spelling of an address matches no session.
    let address = std::str::from_utf8(word).ok()?.parse::<SocketAddr>().ok()?;
    (address.to_string().as_bytes() == word).then_some(address)
}

impl Filter {
    /// Selects the sessions with these serial numbers, which are in ascending order.
    pub fn of(ids: Vec<u32>) -> Filter {
        Filter { ids: Some(ids), ..Filter::default() }
    }

    /// Selects the session whose peer has this address.
    pub fn of_address(address: &[u8], now: Time) -> Filter {
        Filter { address: Some(wanted(address)), now, ..Filter::default() }
    }

    /// Parses filters such as `ID 1 2 TYPE pubsub`, from word `at` on. Returns the text of the
    /// error if one is wrong.
    pub fn parse(words: Command<'_>, mut at: usize, now: Time) -> Result<Filter, String> {
        let mut filter = Filter { now, ..Filter::default() };
        while at < words.len() {
            let (name, value) = (word(words, at), words.get(at + 1).ok_or("ERR syntax error")?);
            at += 2;
            if is(name, "id") {
                let mut ids = filter.ids.take().unwrap_or_default();
                ids.push(id(value)?);
                while let Some(Ok(more)) = words.get(at).map(id) {
                    ids.push(more);
                    at += 1;
                }
                filter.ids = Some(ids);
            } else if is(name, "type") {
                if !["normal", "pubsub", "master", "replica", "slave"]
                    .iter()
                    .any(|kind| is(value, kind))
                {
                    return Err(format!("ERR Unknown client type '{}'", shown(value)));
                }
                match is(value, "pubsub") || is(value, "normal") {
                    true => filter.is_pubsub = Some(is(value, "pubsub")),
                    // The server has no sessions of the other types.
                    false => filter.ids = Some(Vec::new()),
                }
            } else if is(name, "addr") {
                filter.address = Some(wanted(value));
            } else if is(name, "laddr") {
                filter.local_address = Some(wanted(value));
            } else if is(name, "protocol") {
                if !PeerProtocol::NAMES.iter().any(|known| is(value, known)) {
                    return Err(format!("ERR Unknown protocol '{}'", shown(value)));
                }
                filter.protocol = Some(value.to_ascii_lowercase().into());
            } else if is(name, "path") {
                filter.path = Some(value.into());
            } else if is(name, "agent") {
                filter.agent = Some(value.into());
            } else if is(name, "user") {
                if value != b"default" {
                    return Err(format!("ERR No such user '{}'", shown(value)));
                }
            } else if is(name, "maxage") {
                let age = resp::number(value).and_then(|age| u64::try_from(age).ok());
                filter.age_min = age.ok_or("ERR maxage is not an integer or out of range")?;
            } else if is(name, "skipme") && (is(value, "yes") || is(value, "no")) {
                filter.skips_asker = is(value, "yes");
            } else {
                return Err("ERR syntax error".into());
            }
        }
        // Each session is searched for among up to a thousand ids, so they are sorted.
        filter.ids.iter_mut().for_each(|ids| ids.sort_unstable());
        Ok(filter)
    }

    /// Returns true if the filter names one session alone: that with this serial number, or with an
    /// address for which `is_own` is true.
    pub fn names_only(&self, serial: u32, is_own: impl Fn(SocketAddr) -> bool) -> bool {
        self.ids.as_deref() == Some(&[serial]) || self.address.flatten().is_some_and(is_own)
    }

    /// Returns true if the filter selects a session. Conditions that need the kernel are checked
    /// last, and add to `steps`.
    pub fn means(
        &self,
        shared: &Shared,
        server: &dyn Server,
        session: SessionId,
        asker: SessionId,
        steps: &mut usize,
    ) -> bool {
        let own = shared.sessions.get(session);
        let is_known = self
            .ids
            .as_ref()
            .is_none_or(|ids| ids.binary_search(&session.serial).is_ok())
            && self
                .is_pubsub
                .is_none_or(|wanted| wanted == shared.channels.is_subscribed(session.index))
            && own.age(self.now.tick()).as_secs() >= self.age_min
            && !(self.skips_asker && session == asker)
            && self.protocol.as_deref().is_none_or(|name| name == own.protocol.name().as_bytes())
            && self.agent.as_deref().is_none_or(|agent| agent == shared.agents.get(own.agent))
            && self.path.as_deref().is_none_or(|path| {
                *steps += ADDRESS_STEPS;
                path == path_of(shared, session).as_bytes()
            });
        let mut is_at = |wanted: &Option<Wanted>, ask: &dyn Fn() -> Option<SocketAddr>| match wanted
        {
            None => true,
            Some(None) => false,
            Some(wanted) => {
                *steps += ADDRESS_STEPS;
                ask() == *wanted
            }
        };
        is_known
            && is_at(&self.address, &|| shared.peer(session, server))
            && is_at(&self.local_address, &|| server.local(own.connection()?))
    }
}

fn id(word: &[u8]) -> Result<u32, String> {
    let number = resp::number(word).filter(|id| *id > 0).and_then(|id| u32::try_from(id).ok());
    number.ok_or_else(|| "ERR Invalid client ID".into())
}

/// Appends one line of CLIENT LIST: the fields of Redis that apply here, then slabd's.
pub fn describe(shared: &Shared, server: &dyn Server, session: SessionId, line: &mut String) {
    let own = shared.sessions.get(session);
    let Some(facts) = own.connection().and_then(|connection| server.connection(connection)) else {
        return describe_polling(shared, session, line);
    };
    let address =
        |address: Option<SocketAddr>| address.map_or("?:0".into(), |address| address.to_string());
    let name = String::from_utf8_lossy(shared.labels.name(session.index).unwrap_or_default());
    let library =
        |attribute| String::from_utf8_lossy(shared.labels.library(session.index, attribute));
    let feed = shared.channels.topic(Kind::Feed, b"");
    let monitors = feed.is_some_and(|feed| shared.channels.is_member(session.index, feed));
    let counts = shared.channels.counts(session.index);
    let mut flags = String::new();
    for (on, letter) in [
        (monitors, 'O'),
        (shared.channels.is_subscribed(session.index), 'P'),
        (facts.is_closing, 'c'),
        (facts.is_blocked, 'b'),
    ] {
        flags.extend(on.then_some(letter));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let user_bytes = facts.user_bytes + shared.bytes_of(session);
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd={} name={name} age={} idle={} flags={flags} db=0 sub={} psub={} \
         ssub={} multi=-1 qbuf={} qbuf-free={} argv-mem=0 multi-mem=0 obl={} oll={} omem={} \
         tot-mem={user_bytes} events={} cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={} \
         tot-net-in={} tot-net-out={} user-mem={user_bytes} kernel-mem={} protocol={} path={} \
         agent={}{}",
        session.serial,
        address(facts.peer),
        address(facts.local),
        facts.file,
        own.age(facts.now.tick()).as_secs(),
        facts.idle.as_secs(),
        counts[0],
        counts[1],
        counts[2],
        facts.input.0,
        facts.input.1 - facts.input.0,
        facts.output.0,
        usize::from(facts.output.0 > 0),
        facts.output.1,
        if facts.is_blocked { "rw" } else { "r" },
        RespState::of(&own).command_name(),
        if shared.is_authenticated(session) { "default" } else { "(none)" },
        if shared.protocol(session) == Protocol::Resp3 { 3 } else { 2 },
        library(Attribute::LibraryName),
        library(Attribute::LibraryVersion),
        facts.transferred.received,
        facts.transferred.sent,
        facts.kernel_bytes,
        own.protocol.name(),
        path_of(shared, session),
        String::from_utf8_lossy(shared.agents.get(own.agent)),
        rooms(shared, session),
    );
}

/// Appends the line of a session without a connection of its own: the facts of the hub.
fn describe_polling(shared: &Shared, session: SessionId, line: &mut String) {
    let own = shared.sessions.get(session);
    let Some(Destination::Poll(client)) = own.destination() else { return };
    let counts = shared.channels.counts(session.index);
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} age={} flags={} db=0 sub={} omem={} user-mem={} protocol={} path={}{}",
        session.serial,
        own.peer().map_or("?:0".into(), |peer| peer.to_string()),
        own.age(shared.now).as_secs(),
        if counts[0] > 0 { 'P' } else { 'N' },
        counts[0],
        shared.polls.waits(client),
        shared.bytes_of(session),
        own.protocol.name(),
        path_of(shared, session),
        rooms(shared, session),
    );
}

/// Returns the field with the first rooms of a socket; empty for other sessions.
fn rooms(shared: &Shared, session: SessionId) -> String {
    if shared.sessions.get(session).protocol != PeerProtocol::SocketIo {
        return String::new();
    }
    let names = shared.channels.topics_of(session.index).take(ROOMS_SHOWN);
    let names = names.map(|topic| plain(shared.channels.name(topic)));
    format!(" rooms={}", names.collect::<Vec<_>>().join(","))
}

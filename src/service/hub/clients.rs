//! The commands about connections: HELLO, AUTH, and CLIENT with its subcommands.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::access::Attempt;
use super::commands::{TABLE, is, other_subcommand, shown, word};
use super::labels::{Attribute, LABEL_MAX};
use super::{REDIS_VERSION, Session, State};
use crate::codec::resp::{self, Command, Protocol};
use crate::service::Reply;
use crate::service::server::Server;

const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
const BAD_LIBRARY: &[u8] = b"ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.";
const NO_PASSWORD: &[u8] =
    b"ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
const TOO_SOON: &[u8] = b"ERR too many wrong passwords from your address: the next is looked at in 5 seconds";

/// Longest CLIENT LIST, so that asking for it does not make the asker a slow consumer.
const LIST_MAX: usize = 512 * 1024;

pub fn auth(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let (user, password) = match words.len() {
        2 => (None, word(words, 1)),
        3 => (Some(word(words, 1)), word(words, 2)),
        _ => return resp::error(reply.bytes_mut(), b"ERR syntax error"),
    };
    if authenticate(state, server, user, password, reply) {
        resp::simple(reply.bytes_mut(), "OK");
    }
}

/// Where a session comes from, by IPv4 without asking the kernel.
pub fn peer(state: &State, server: &dyn Server, session: u32) -> Option<SocketAddr> {
    state.session(session).peer().or_else(|| server.connection(session)?.peer)
}

/// False, and an error written, unless the password is right.
fn authenticate(
    state: &mut State,
    server: &dyn Server,
    user: Option<&[u8]>,
    password: &[u8],
    reply: &mut Reply<'_>,
) -> bool {
    let peer = peer(state, server, reply.session).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let attempt = match state.session(reply.session).is_operator() {
        true => state.access.attempt_by_operator(peer, user, password, server.now()),
        false => state.access.attempt(peer, user, password, server.now()),
    };
    let error = match attempt {
        Attempt::Right => {
            state.set_authenticated(reply.session);
            reply.trust(true);
            return true;
        }
        Attempt::Wrong => WRONG_PASSWORD,
        Attempt::TooSoon => TOO_SOON,
        // As in Redis: nothing is wrong with `AUTH default anything` where no password is needed.
        Attempt::NoPassword if user == Some(b"default") => return true,
        Attempt::NoPassword if user.is_some() => WRONG_PASSWORD,
        Attempt::NoPassword => NO_PASSWORD,
    };
    resp::error(reply.bytes_mut(), error);
    false
}

pub fn hello(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let session = reply.session;
    let mut protocol = state.protocol(session);
    let mut name = None;
    if words.len() > 1 {
        protocol = match resp::number(word(words, 1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return resp::error(reply.bytes_mut(), b"NOPROTO unsupported protocol version"),
            None => return resp::error(reply.bytes_mut(), b"ERR Protocol version is not an integer or out of range"),
        };
        let mut at = 2;
        while at < words.len() {
            if is(word(words, at), "setname") && at + 1 < words.len() {
                name = Some(word(words, at + 1));
                at += 2;
            } else if is(word(words, at), "auth") && at + 2 < words.len() {
                if !authenticate(state, server, Some(word(words, at + 1)), word(words, at + 2), reply) {
                    return;
                }
                at += 3;
            } else {
                let error = format!("ERR Syntax error in HELLO option '{}'", shown(word(words, at)));
                return resp::error(reply.bytes_mut(), error.as_bytes());
            }
        }
    }
    if !state.session(session).is_authenticated() {
        return resp::error(
            reply.bytes_mut(),
            b"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
              <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if name.is_some_and(|name| state.labels.set_name(session, name).is_err()) {
        return bad_label(BAD_NAME, name.unwrap_or_default(), reply);
    }
    state.set_protocol(session, protocol);
    greet(reply.bytes_mut(), protocol, state.session(session).id);
}

/// What HELLO answers.
fn greet(out: &mut Vec<u8>, protocol: Protocol, id: u32) {
    resp::map(out, 7, protocol);
    for (key, value) in [("server", "slabd"), ("version", REDIS_VERSION)] {
        resp::bulk(out, key.as_bytes());
        resp::bulk(out, value.as_bytes());
    }
    for (key, value) in [("proto", if protocol == Protocol::Resp3 { 3 } else { 2 }), ("id", i64::from(id))] {
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

pub fn quit(state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    state.deliver_now(reply);
    // From now on it receives nothing, so who publishes in this very turn must not count it.
    state.channels.close(reply.session);
    resp::simple(reply.bytes_mut(), "OK");
    reply.close();
}

pub fn reset(state: &mut State, _words: Command<'_>, reply: &mut Reply<'_>) {
    state.deliver_now(reply);
    state.forget(reply.session);
    reply.trust(!state.access.needs_password());
    resp::simple(reply.bytes_mut(), "RESET");
}

pub fn client(state: &mut State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let session = reply.session;
    let protocol = state.protocol(session);
    let (subcommand, count) = (word(words, 1), words.len());
    match subcommand {
        name if is(name, "id") && count == 2 => {
            resp::integer(reply.bytes_mut(), i64::from(state.session(session).id));
        }
        name if is(name, "getname") && count == 2 => match state.labels.name(session) {
            Some(name) => resp::bulk(reply.bytes_mut(), name),
            None => resp::null(reply.bytes_mut(), protocol),
        },
        name if is(name, "setname") && count == 3 => match state.labels.set_name(session, word(words, 2)) {
            Ok(()) => resp::simple(reply.bytes_mut(), "OK"),
            Err(_unsuitable) => bad_label(BAD_NAME, word(words, 2), reply),
        },
        name if is(name, "setinfo") && count == 4 => set_info(state, words, reply),
        name if (is(name, "no-evict") || is(name, "no-touch")) && count == 3 => {
            match is(word(words, 2), "on") || is(word(words, 2), "off") {
                true => resp::simple(reply.bytes_mut(), "OK"),
                false => resp::error(reply.bytes_mut(), b"ERR syntax error"),
            }
        }
        name if is(name, "info") && count == 2 => {
            let mut line = String::new();
            describe(state, server, session, &mut line);
            resp::verbatim(reply.bytes_mut(), &line, protocol);
        }
        name if is(name, "list") => list(state, server, words, reply),
        name if is(name, "kill") && count >= 3 => kill(state, server, words, reply),
        name if is(name, "reply") && count == 3 => reply_mode(state, word(words, 2), reply),
        name if is(name, "closed") && count == 2 => closed(state, reply),
        _ => other_subcommand("client", words, reply.bytes_mut()),
    }
}

fn set_info(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let attribute = match word(words, 2) {
        name if is(name, "lib-name") => Attribute::LibraryName,
        name if is(name, "lib-ver") => Attribute::LibraryVersion,
        other => {
            let error = format!("ERR Unrecognized option '{}'", shown(other));
            return resp::error(reply.bytes_mut(), error.as_bytes());
        }
    };
    match state.labels.set_library(reply.session, attribute, word(words, 3)) {
        Ok(()) => resp::simple(reply.bytes_mut(), "OK"),
        Err(_unsuitable) => bad_label(BAD_LIBRARY, word(words, 3), reply),
    }
}

/// Redis has no limit to their length, nor words for it.
fn bad_label(error: &[u8], text: &[u8], reply: &mut Reply<'_>) {
    if text.len() <= LABEL_MAX {
        return resp::error(reply.bytes_mut(), error);
    }
    let error = format!("ERR names of {} bytes are too long: up to {LABEL_MAX} are taken", text.len());
    resp::error(reply.bytes_mut(), error.as_bytes());
}

/// Which connections are meant.
#[derive(Default)]
struct Filter<'a> {
    /// In ascending order.
    ids: Option<Vec<u32>>,
    kind: Option<&'a [u8]>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    age_min: u64,
    /// Leave out the one that asks.
    skips_asker: bool,
}

impl<'a> Filter<'a> {
    /// Reads `ID 1 2 TYPE pubsub …` from word `at` on; else the error to answer.
    fn parse(words: Command<'a>, mut at: usize) -> Result<Filter<'a>, String> {
        let mut filter = Filter::default();
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
                if !["normal", "pubsub", "master", "replica", "slave"].iter().any(|kind| is(value, kind)) {
                    return Err(format!("ERR Unknown client type '{}'", shown(value)));
                }
                filter.kind = Some(value);
            } else if is(name, "addr") {
                filter.address = Some(value);
            } else if is(name, "laddr") {
                filter.local_address = Some(value);
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
        // Sorted, to be searched: there may be a thousand, and each session is looked up in them.
        filter.ids.iter_mut().for_each(|ids| ids.sort_unstable());
        Ok(filter)
    }

    /// The sessions that are meant. What the hub knows itself is compared first: what is left, the kernel is asked for.
    fn select(&self, state: &State, server: &dyn Server, asker: u32) -> Vec<u32> {
        let known = |session: &u32| {
            let own = state.session(*session);
            let kind = if state.channels.is_subscribed(*session) { "pubsub" } else { "normal" };
            self.ids.as_ref().is_none_or(|ids| ids.binary_search(&own.id).is_ok())
                && self.kind.is_none_or(|wanted| is(wanted, kind))
                && age_seconds(own, server) >= self.age_min
                && !(self.skips_asker && *session == asker)
        };
        let is_address = |wanted: &[u8], address: Option<SocketAddr>| {
            address.is_some_and(|address| address.to_string().as_bytes() == wanted)
        };
        let local = |session: u32| server.connection(session).and_then(|facts| facts.local);
        let selected = state.live_sessions().filter(known).filter(|session| {
            self.address.is_none_or(|wanted| is_address(wanted, peer(state, server, *session)))
                && self.local_address.is_none_or(|wanted| is_address(wanted, local(*session)))
        });
        selected.collect()
    }
}

fn id(word: &[u8]) -> Result<u32, String> {
    let number = resp::number(word).filter(|id| *id > 0).and_then(|id| u32::try_from(id).ok());
    number.ok_or_else(|| "ERR Invalid client ID".into())
}

fn age_seconds(session: Session, server: &dyn Server) -> u64 {
    session.age(server.now()).as_secs()
}

fn list(state: &State, server: &dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let filter = match Filter::parse(words, 2) {
        Ok(filter) => filter,
        Err(error) => return resp::error(reply.bytes_mut(), error.as_bytes()),
    };
    let selected = filter.select(state, server, reply.session);
    let mut text = String::new();
    for session in &selected {
        describe(state, server, *session, &mut text);
        if text.len() > LIST_MAX {
            let error =
                format!("ERR {} connections make too long a list: name some by ID, TYPE or ADDR", selected.len());
            return resp::error(reply.bytes_mut(), error.as_bytes());
        }
    }
    let protocol = state.protocol(reply.session);
    resp::verbatim(reply.bytes_mut(), &text, protocol);
}

/// One line of CLIENT LIST: Redis's fields, those of them that mean something here, then ours.
fn describe(state: &State, server: &dyn Server, session: u32, line: &mut String) {
    let Some(facts) = server.connection(session) else { return };
    let own = state.session(session);
    let address = |address: Option<SocketAddr>| address.map_or("?:0".into(), |address| address.to_string());
    let name = String::from_utf8_lossy(state.labels.name(session).unwrap_or_default());
    let library = |attribute| String::from_utf8_lossy(state.labels.library(session, attribute));
    let mut flags = String::new();
    for (on, letter) in [
        (state.monitors.contains(&session), 'O'),
        (state.channels.is_subscribed(session), 'P'),
        (facts.is_closing, 'c'),
        (facts.is_blocked, 'b'),
    ] {
        flags.extend(on.then_some(letter));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let counts = state.channels.counts(session);
    let command = TABLE.get(usize::from(own.command)).map_or("NULL", |entry| entry.name);
    let user_bytes = facts.user_bytes + state.bytes_of(session);
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd={} name={name} age={} idle={} flags={flags} db=0 sub={} psub={} ssub={} multi=-1 qbuf={} \
         qbuf-free={} argv-mem=0 multi-mem=0 obl={} oll={} omem={} tot-mem={user_bytes} events={} cmd={command} user={} \
         redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} user-mem={user_bytes} kernel-mem={}",
        own.id,
        address(facts.peer),
        address(facts.local),
        facts.file,
        age_seconds(own, server),
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
        if own.is_authenticated() { "default" } else { "(none)" },
        if own.protocol() == Protocol::Resp3 { 3 } else { 2 },
        library(Attribute::LibraryName),
        library(Attribute::LibraryVersion),
        facts.transferred.received,
        facts.transferred.sent,
        facts.kernel_bytes,
    );
}

/// `CLIENT KILL addr:port`, or with filters, which count those that they killed.
fn kill(state: &State, server: &mut dyn Server, words: Command<'_>, reply: &mut Reply<'_>) {
    let old_form = words.len() == 3;
    let filter = match old_form {
        true => Ok(Filter { address: words.get(2), ..Filter::default() }),
        false => Filter::parse(words, 2).map(|filter| Filter {
            // Who asks is spared unless it says otherwise.
            skips_asker: filter.skips_asker || !words.iter().any(|word| is(word, "skipme")),
            ..filter
        }),
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return resp::error(reply.bytes_mut(), error.as_bytes()),
    };
    let selected = filter.select(state, server, reply.session);
    for session in &selected {
        match *session == reply.session {
            // It still gets its answer.
            true => reply.close_as_killed(),
            false => server.kill(*session),
        }
    }
    match (old_form, selected.len()) {
        (true, 0) => resp::error(reply.bytes_mut(), b"ERR No such client"),
        (true, _) => resp::simple(reply.bytes_mut(), "OK"),
        (false, count) => resp::integer(reply.bytes_mut(), count as i64),
    }
}

fn reply_mode(state: &mut State, mode: &[u8], reply: &mut Reply<'_>) {
    let on = is(mode, "on");
    if !on && !is(mode, "off") && !is(mode, "skip") {
        return resp::error(reply.bytes_mut(), b"ERR syntax error");
    }
    state.set_replies(reply.session, on, is(mode, "skip"));
    if on {
        resp::simple(reply.bytes_mut(), "OK");
    }
}

/// One line for each of the last connections that closed, the latest first.
fn closed(state: &State, reply: &mut Reply<'_>) {
    let mut text = String::new();
    for closed in state.closed.iter().rev() {
        let address = closed.peer.map_or("?:0".into(), |peer| peer.to_string());
        let _ = writeln!(
            text,
            "id={} addr={address} age={} tot-net-in={} tot-net-out={} reason={}",
            closed.id,
            closed.age.as_secs(),
            closed.transferred.received,
            closed.transferred.sent,
            closed.reason,
        );
    }
    let protocol = state.protocol(reply.session);
    resp::verbatim(reply.bytes_mut(), &text, protocol);
}

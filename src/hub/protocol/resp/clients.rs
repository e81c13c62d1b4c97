//! The commands about connections: HELLO, AUTH, and CLIENT with its subcommands.

use std::fmt::Write;

use super::help::other_subcommand;
use super::listing::{Filter, describe};
use super::walks::WalkTask;
use super::words::{is, shown, word};
use super::{Call, MUTE, REDIS_VERSION, RespState, SKIP_NEXT, SlicedWork, rows, tracking};
use crate::codec::resp::{self, Command, Protocol};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::access::Attempt;
use crate::hub::labels::Attribute;
use crate::hub::verbs::VerbResult;
use crate::limits::{CLIENT_INFO_STEPS, CLOSED_LINE_STEPS, LABEL_MAX, LIST_MAX};

const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
const BAD_LIBRARY: &[u8] =
    b"ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.";
const NO_PASSWORD: &[u8] = b"ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
const NOT_AUTHENTICATED: &[u8] =
    b"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
    <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
    protocol version at the same time";

pub fn auth(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let (user, password) = match words.len() {
        2 => (None, word(words, 1)),
        3 => (Some(word(words, 1)), word(words, 2)),
        _ => return resp::error(call.out(), b"ERR syntax error"),
    };
    if authenticate(shared, user, password, call) {
        resp::simple(call.out(), "OK");
    }
}

/// Checks a password. If it is wrong, returns false, and appends the error or defers the command
/// until the error may be sent.
fn authenticate(
    shared: &mut Shared,
    user: Option<&[u8]>,
    password: &[u8],
    call: &mut Call<'_, '_>,
) -> bool {
    let Call { session, server, reply, .. } = call;
    let session = *session;
    let attempt = match shared.log_in(session, user, password, reply.now, *server) {
        VerbResult::Done(attempt) => attempt,
        VerbResult::Later | VerbResult::Refused(_) => {
            call.wait();
            return false;
        }
    };
    let error = match attempt {
        Attempt::Right => {
            shared.set_authenticated(session, true);
            call.reply.trust(true);
            return true;
        }
        Attempt::Wrong => WRONG_PASSWORD,
        // Redis accepts `AUTH default` with any password if none is set.
        Attempt::NoPassword if user == Some(b"default") => return true,
        Attempt::NoPassword if user.is_some() => WRONG_PASSWORD,
        Attempt::NoPassword => NO_PASSWORD,
    };
    resp::error(call.out(), error);
    false
}

pub fn hello(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let session = call.session;
    let mut protocol = shared.protocol(session);
    let mut name = None;
    if words.len() > 1 {
        protocol = match resp::number(word(words, 1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return resp::error(call.out(), b"NOPROTO unsupported protocol version"),
            None => {
                return resp::error(
                    call.out(),
                    b"ERR Protocol version is not an integer or out of range",
                );
            }
        };
        let mut at = 2;
        while at < words.len() {
            if is(word(words, at), "setname") && at + 1 < words.len() {
                name = Some(word(words, at + 1));
                at += 2;
            } else if is(word(words, at), "auth") && at + 2 < words.len() {
                if !authenticate(shared, Some(word(words, at + 1)), word(words, at + 2), call) {
                    return;
                }
                at += 3;
            } else {
                let error =
                    format!("ERR Syntax error in HELLO option '{}'", shown(word(words, at)));
                return call.error(&error);
            }
        }
    }
    if !shared.is_authenticated(session) {
        return resp::error(call.out(), NOT_AUTHENTICATED);
    }
    if name.is_some_and(|name| shared.labels.set_name(session.index, name).is_err()) {
        return bad_label(BAD_NAME, name.unwrap_or_default(), call);
    }
    shared.set_protocol(session, protocol);
    greet(call.out(), protocol, session.serial);
}

/// Appends the reply to HELLO.
fn greet(out: &mut Vec<u8>, protocol: Protocol, id: u32) {
    resp::map(out, 7, protocol);
    for (key, value) in [("server", "slabd"), ("version", REDIS_VERSION)] {
        resp::bulk(out, key.as_bytes());
        resp::bulk(out, value.as_bytes());
    }
    for (key, value) in
        [("proto", if protocol == Protocol::Resp3 { 3 } else { 2 }), ("id", i64::from(id))]
    {
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

pub fn quit(shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    shared.deliver_now(call.session, call.out());
    call.keep();
    // The session receives nothing more, so a publish later in this turn must not count it.
    shared.leave(call.session);
    resp::simple(call.out(), "OK");
    call.reply.close();
}

pub fn reset(shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    if call.is_long(shared.channels.len(call.session.index)) {
        return call.begin(SlicedWork::Reset);
    }
    shared.deliver_now(call.session, call.out());
    call.keep();
    shared.channels.close(&shared.sessions, call.session.index);
    shared.labels.forget_name(call.session.index);
    call.transactions.close(call.session);
    call.trackers.close(call.session);
    let trusted = !shared.access.needs_password();
    shared.set_authenticated(call.session, trusted);
    shared.set_protocol(call.session, Protocol::Resp2);
    RespState::put(shared, call.session, MUTE | SKIP_NEXT, false);
    shared.set_retained(call.session, false);
    call.muted = false;
    call.reply.trust(trusted);
    exempt(call, false);
    resp::simple(call.out(), "RESET");
}

/// Exempts the client from eviction when memory runs out, or ends that.
fn exempt(call: &mut Call<'_, '_>, on: bool) {
    if let Some(connection) = call.reply.connection {
        call.server.exempt(connection, on);
    }
}

pub fn client(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let session = call.session;
    let protocol = shared.protocol(session);
    let (subcommand, count) = (word(words, 1), words.len());
    match subcommand {
        name if is(name, "id") && count == 2 => {
            resp::integer(call.out(), i64::from(session.serial));
        }
        name if is(name, "getname") && count == 2 => match shared.labels.name(session.index) {
            Some(name) => resp::bulk(call.out(), name),
            None => resp::null(call.out(), protocol),
        },
        name if is(name, "setname") && count == 3 => {
            match shared.labels.set_name(session.index, word(words, 2)) {
                Ok(()) => resp::simple(call.out(), "OK"),
                Err(_unsuitable) => bad_label(BAD_NAME, word(words, 2), call),
            }
        }
        name if is(name, "setinfo") && count == 4 => set_info(shared, words, call),
        name if (is(name, "no-evict") || is(name, "no-touch")) && count == 3 => {
            let on = is(word(words, 2), "on");
            if !on && !is(word(words, 2), "off") {
                return resp::error(call.out(), b"ERR syntax error");
            }
            if is(name, "no-evict") {
                exempt(call, on);
            }
            resp::simple(call.out(), "OK");
        }
        name if is(name, "info") && count == 2 => {
            shared.asked += CLIENT_INFO_STEPS;
            let mut line = String::new();
            describe(shared, call.server, session, &mut line);
            resp::verbatim(call.out(), &line, protocol);
        }
        name if is(name, "list") => list(shared, words, call),
        name if is(name, "kill") && count >= 3 => kill(shared, words, call),
        name if is(name, "retained") && count == 3 => retained(shared, word(words, 2), call),
        name if is(name, "reply") && count == 3 => reply_mode(shared, word(words, 2), call),
        name if is(name, "tracking") && count >= 3 => tracking::tracking(shared, words, call),
        name if is(name, "caching") && count == 3 => tracking::caching(words, call),
        name if is(name, "getredir") && count == 2 => tracking::redirect(call),
        name if is(name, "trackinginfo") && count == 2 => tracking::info(shared, call),
        name if is(name, "closed") && count == 2 => closed(shared, call),
        _ => other_subcommand("client", words, call.out()),
    }
}

fn set_info(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let attribute = match word(words, 2) {
        name if is(name, "lib-name") => Attribute::LibraryName,
        name if is(name, "lib-ver") => Attribute::LibraryVersion,
        other => {
            let error = format!("ERR Unrecognized option '{}'", shown(other));
            return call.error(&error);
        }
    };
    match shared.labels.set_library(call.session.index, attribute, word(words, 3)) {
        Ok(()) => resp::simple(call.out(), "OK"),
        Err(_unsuitable) => bad_label(BAD_LIBRARY, word(words, 3), call),
    }
}

/// Appends the error for a refused name. Redis does not limit the length of a name.
fn bad_label(error: &[u8], text: &[u8], call: &mut Call<'_, '_>) {
    if text.len() <= LABEL_MAX {
        return resp::error(call.out(), error);
    }
    let error = format!("ERR the name has {} bytes; accepted: up to {LABEL_MAX} bytes", text.len());
    call.error(&error);
}

fn list(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let filter = match Filter::parse(words, 2, call.reply.now) {
        Ok(filter) => filter,
        Err(error) => return call.error(&error),
    };
    let Some(found) = call.walk(shared, WalkTask::List, || filter) else { return };
    if found.text.len() > LIST_MAX {
        let count = found.sessions;
        return call.error(&format!(
            "ERR the list of {count} connections is too long; narrow it with ID, TYPE or ADDR"
        ));
    }
    let protocol = shared.protocol(call.session);
    resp::verbatim(call.out(), &found.text, protocol);
}

/// Runs `CLIENT KILL addr:port`, or CLIENT KILL with filters, which returns the number of killed
/// connections.
fn kill(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let own = shared.sessions.get(call.session);
    let (old_form, now) = (words.len() == 3, call.reply.now);
    let filter = match old_form {
        true => Ok(Filter::of_address(word(words, 2), now)),
        false => Filter::parse(words, 2, now).map(|mut filter| {
            // The caller is spared unless SKIPME says otherwise.
            filter.skips_asker |= !words.iter().any(|word| is(word, "skipme"));
            filter
        }),
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return call.error(&error),
    };
    let is_own = |address| shared.peer(call.session, call.server) == Some(address);
    if !shared.is_operator(call.session) && !filter.names_only(own.serial, is_own) {
        return rows::not_permitted("client", words, call);
    }
    let Some(found) = call.walk(shared, WalkTask::Kill, || filter) else { return };
    if found.asker {
        // The caller gets its reply before its connection closes.
        call.reply.close_for(Reason::Killed);
    }
    match (old_form, found.sessions) {
        (true, 0) => call.error("ERR No such client"),
        (true, _) => resp::simple(call.out(), "OK"),
        (false, count) => resp::integer(call.out(), count as i64),
    }
}

/// Runs `CLIENT RETAINED ON|OFF`: whether new subscriptions begin with the kept messages.
fn retained(shared: &mut Shared, mode: &[u8], call: &mut Call<'_, '_>) {
    let on = is(mode, "on");
    if !on && !is(mode, "off") {
        return call.error("ERR syntax error");
    }
    shared.set_retained(call.session, on);
    resp::simple(call.out(), "OK");
}

fn reply_mode(shared: &mut Shared, mode: &[u8], call: &mut Call<'_, '_>) {
    let session = call.session;
    let is_off = RespState::of(&shared.sessions.get(session)).flags & MUTE != 0;
    match mode {
        mode if is(mode, "on") => {
            RespState::put(shared, session, MUTE, false);
            call.muted = false;
            resp::simple(call.out(), "OK");
        }
        mode if is(mode, "off") => RespState::put(shared, session, MUTE, true),
        // SKIP has no effect while replies are off.
        mode if is(mode, "skip") => RespState::put(shared, session, SKIP_NEXT, !is_off),
        _ => call.error("ERR syntax error"),
    }
}

/// Lists the last connections that closed, one per line, the latest first.
fn closed(shared: &mut Shared, call: &mut Call<'_, '_>) {
    shared.asked += CLOSED_LINE_STEPS * shared.history.closed.len();
    let mut text = String::new();
    for closed in shared.history.closed.iter().rev() {
        let address = closed.peer.map_or("?:0".into(), |peer| peer.to_string());
        let _ = writeln!(
            text,
            "id={} addr={address} age={} tot-net-in={} tot-net-out={} reason={} protocol={}{}",
            closed.serial,
            closed.age.as_secs(),
            closed.transferred.received,
            closed.transferred.sent,
            closed.reason,
            closed.protocol.name(),
            closed.request,
        );
    }
    let protocol = shared.protocol(call.session);
    resp::verbatim(call.out(), &text, protocol);
}

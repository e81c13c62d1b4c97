//! The commands of pub/sub: to subscribe and unsubscribe, to publish, and to ask who listens.

use super::channels::{Channels, Kind};
use super::commands::{is, other_subcommand, word};
use super::{State, glob};
use crate::codec::resp::{self, Command, Protocol};
use crate::service::Reply;

/// Longest PUBSUB CHANNELS in bytes of names, so that asking for it does not make the asker a slow consumer.
const LIST_MAX: usize = 512 * 1024;

/// The words that a confirmation begins with, and which subscriptions its count counts.
fn confirmation(kind: Kind, subscribed: bool) -> &'static [u8] {
    match (kind, subscribed) {
        (Kind::Channel, true) => b"subscribe",
        (Kind::Channel, false) => b"unsubscribe",
        (Kind::Pattern, true) => b"psubscribe",
        (Kind::Pattern, false) => b"punsubscribe",
        (Kind::Shard, true) => b"ssubscribe",
        (Kind::Shard, false) => b"sunsubscribe",
    }
}

fn count(channels: &Channels, session: u32, kind: Kind) -> usize {
    match kind {
        Kind::Channel | Kind::Pattern => channels.count(session),
        Kind::Shard => channels.shard_count(session),
    }
}

pub fn subscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    subscribe_to(state, words, reply, Kind::Channel);
}

pub fn psubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    subscribe_to(state, words, reply, Kind::Pattern);
}

pub fn ssubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    subscribe_to(state, words, reply, Kind::Shard);
}

pub fn unsubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    unsubscribe_from(state, words, reply, Kind::Channel);
}

pub fn punsubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    unsubscribe_from(state, words, reply, Kind::Pattern);
}

pub fn sunsubscribe(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    unsubscribe_from(state, words, reply, Kind::Shard);
}

/// Each name is confirmed by a message of its own. Confirmations are no answers: they come even where those are off, as in Redis.
fn subscribe_to(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>, kind: Kind) {
    let (session, protocol) = (reply.session, state.protocol(reply.session));
    for name in words.iter().skip(1) {
        if state.channels.subscribe(session, kind, name).is_err() {
            return resp::error(reply.bytes_mut(), b"ERR too many subscriptions");
        }
        state.keeps_answer = true;
        let count = count(&state.channels, session, kind);
        confirm(reply.bytes_mut(), protocol, confirmation(kind, true), Some(name), count);
    }
}

fn unsubscribe_from(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>, kind: Kind) {
    let (session, protocol) = (reply.session, state.protocol(reply.session));
    state.deliver_now(reply);
    state.keeps_answer = true;
    let word = confirmation(kind, false);
    if words.len() > 1 {
        for name in words.iter().skip(1) {
            state.channels.unsubscribe(session, kind, name);
            confirm(reply.bytes_mut(), protocol, word, Some(name), count(&state.channels, session, kind));
        }
        return;
    }
    let (out, mut any) = (reply.bytes_mut(), false);
    state.channels.unsubscribe_all(session, kind, |name, remaining| {
        any = true;
        confirm(out, protocol, word, Some(name), remaining);
    });
    if !any {
        confirm(out, protocol, word, None, count(&state.channels, session, kind));
    }
}

/// `subscribe channel count`, and the like.
fn confirm(out: &mut Vec<u8>, protocol: Protocol, word: &[u8], name: Option<&[u8]>, count: usize) {
    resp::push(out, 3, protocol);
    resp::bulk(out, word);
    match name {
        Some(name) => resp::bulk(out, name),
        None => resp::null(out, protocol),
    }
    resp::integer(out, count as i64);
}

pub fn pubsub(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let channels = &state.channels;
    let out = reply.bytes_mut();
    let names = |out: &mut Vec<u8>, kind: Kind| {
        let pattern = words.get(2);
        let found =
            || channels.topics(kind).filter(|(_, name)| pattern.is_none_or(|pattern| glob::matches(pattern, name)));
        if found().map(|(_, name)| name.len()).sum::<usize>() > LIST_MAX {
            return resp::error(out, b"ERR too many channels for one answer: narrow them by a pattern");
        }
        resp::array(out, found().count());
        found().for_each(|(_, name)| resp::bulk(out, name));
    };
    let numbers = |out: &mut Vec<u8>, kind: Kind| {
        resp::array(out, 2 * (words.len() - 2));
        for name in words.iter().skip(2) {
            resp::bulk(out, name);
            let subscribers = channels.topic(kind, name).map_or(0, |topic| channels.subscribers(topic).len());
            resp::integer(out, subscribers as i64);
        }
    };
    match word(words, 1) {
        name if is(name, "channels") && words.len() <= 3 => names(out, Kind::Channel),
        name if is(name, "shardchannels") && words.len() <= 3 => names(out, Kind::Shard),
        name if is(name, "numsub") => numbers(out, Kind::Channel),
        name if is(name, "shardnumsub") => numbers(out, Kind::Shard),
        name if is(name, "numpat") && words.len() == 2 => resp::integer(out, channels.pattern_count() as i64),
        _ => other_subcommand("pubsub", words, out),
    }
}

pub fn publish(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let receivers = state.publish(word(words, 1), word(words, 2));
    resp::integer(reply.bytes_mut(), receivers as i64);
}

pub fn spublish(state: &mut State, words: Command<'_>, reply: &mut Reply<'_>) {
    let receivers = state.publish_shard(word(words, 1), word(words, 2));
    resp::integer(reply.bytes_mut(), receivers as i64);
}

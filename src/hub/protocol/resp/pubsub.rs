//! The commands of pub/sub: subscribe, unsubscribe, publish, and PUBSUB.

use super::help::other_subcommand;
use super::words::{is, word};
use super::{Call, SlicedWork};
use crate::codec::resp::{self, Command, Protocol};
use crate::hub::channels::{Kind, Refused, TopicLimits};
use crate::hub::encoding::CatchUpForm;
use crate::hub::sessions::{RETAINED, SessionId};
use crate::hub::verbs::{too_long, too_many};
use crate::hub::{Shared, glob};
use crate::limits::{LIST_MAX, LIST_STEPS_MAX, Limits, SEARCHED_MAX};
use crate::service::server::Server;

/// Cost of visiting a topic, in search steps.
const TOPIC_STEPS: usize = 16;

/// Maximum number of names of one PUBSUB NUMSUB: those whose search uses up a turn's budget.
const NAMES_AT_ONCE: usize = SEARCHED_MAX / TOPIC_STEPS;

/// Returns the first word of a confirmation.
fn confirmation(kind: Kind, subscribed: bool) -> &'static [u8] {
    match (kind, subscribed) {
        (Kind::Channel, true) => b"subscribe",
        (Kind::Channel, false) => b"unsubscribe",
        (Kind::Pattern, true) => b"psubscribe",
        (Kind::Pattern, false) => b"punsubscribe",
        (Kind::Shard | Kind::Feed, true) => b"ssubscribe",
        (Kind::Shard | Kind::Feed, false) => b"sunsubscribe",
    }
}

pub fn subscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    subscribe_to(shared, words, call, Kind::Channel);
}

pub fn psubscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    subscribe_to(shared, words, call, Kind::Pattern);
}

pub fn ssubscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    subscribe_to(shared, words, call, Kind::Shard);
}

pub fn unsubscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    unsubscribe_from(shared, words, call, Kind::Channel);
}

pub fn punsubscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    unsubscribe_from(shared, words, call, Kind::Pattern);
}

pub fn sunsubscribe(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    unsubscribe_from(shared, words, call, Kind::Shard);
}

/// Subscribes to each name and confirms each with one message. As in Redis, a confirmation is no
/// reply, so it is sent even if replies are off.
fn subscribe_to(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>, kind: Kind) {
    let limits = call.server.limits();
    if let Some(error) = words.iter().skip(1).find_map(|name| too_long(kind, name, limits)) {
        return call.error(&format!("ERR {error}"));
    }
    let count = words.len() - 1;
    if call.is_long(count) {
        return call.begin(SlicedWork::Names { kind, subscribes: true });
    }
    let Call { session, server, reply, .. } = call;
    let names = words.skip_first();
    let served = serve(shared, *server, *session, kind, true, names, reply.bytes_mut());
    call.keep();
    if let Err(refused) = &served {
        let Call { server, reply, .. } = call;
        refuse(refused, server.limits(), reply.bytes_mut());
    }
}

/// Begins or ends the subscription to each name and confirms each. After an error, what is
/// confirmed stands, and no further name is served.
pub fn serve(
    shared: &mut Shared,
    server: &dyn Server,
    session: SessionId,
    kind: Kind,
    subscribes: bool,
    names: Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    let (protocol, word) = (shared.protocol(session), confirmation(kind, subscribes));
    let mut limits = TopicLimits::of(server.limits());
    let wants_retained = shared.sessions.get(session).is(RETAINED);
    shared.deliver_now(session, out);
    for name in names.iter() {
        if subscribes {
            let is_new = shared.subscribe_within(session, kind, name, &mut limits, server, out)?;
            if is_new && kind == Kind::Channel && wants_retained {
                shared.catch_up(session, name, CatchUpForm::Messages);
            }
        } else {
            shared.channels.unsubscribe(&shared.sessions, session.index, kind, name);
        }
        let count = shared.channels.count_of(session.index, kind);
        confirm(out, protocol, word, Some(name), count);
    }
    Ok(())
}

/// Appends the error for a subscription beyond a limit.
pub fn refuse(refused: &Refused, limits: &Limits, out: &mut Vec<u8>) {
    resp::error(out, format!("ERR {}", too_many(refused, limits)).as_bytes());
}

fn unsubscribe_from(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>, kind: Kind) {
    let (session, names) = (call.session, words.len() - 1);
    let of_kind = shared.channels.counts(session.index)[kind as usize] as usize;
    let mut next = u32::MAX;
    if names > 0 {
        if call.is_long(names) {
            return call.begin(SlicedWork::Names { kind, subscribes: false });
        }
        let Call { server, reply, .. } = call;
        // Ending a subscription is never refused.
        let _ = serve(shared, *server, session, kind, false, words.skip_first(), reply.bytes_mut());
    } else if call.is_long(of_kind) {
        return call.begin(SlicedWork::All { kind, next });
    } else if of_kind > 0 {
        end_some(shared, session, kind, &mut next, usize::MAX, call.out());
    } else {
        let (protocol, out) = (shared.protocol(session), call.out());
        shared.deliver_now(session, out);
        let count = shared.channels.count_of(session.index, kind);
        confirm(out, protocol, confirmation(kind, false), None, count);
    }
    call.keep();
}

/// Looks at up to `most` subscriptions of a session, and ends and confirms those of a kind. Returns
/// false when none is left.
pub fn end_some(
    shared: &mut Shared,
    session: SessionId,
    kind: Kind,
    next: &mut u32,
    most: usize,
    out: &mut Vec<u8>,
) -> bool {
    let protocol = shared.protocol(session);
    shared.deliver_now(session, out);
    let Shared { channels, sessions, .. } = shared;
    channels.unsubscribe_some(sessions, session.index, kind, next, most, |name, remaining| {
        confirm(out, protocol, confirmation(kind, false), Some(name), remaining);
    })
}

/// Appends a confirmation, such as `subscribe channel count`.
fn confirm(out: &mut Vec<u8>, protocol: Protocol, word: &[u8], name: Option<&[u8]>, count: usize) {
    resp::push(out, 3, protocol);
    resp::bulk(out, word);
    match name {
        Some(name) => resp::bulk(out, name),
        None => resp::null(out, protocol),
    }
    resp::integer(out, count as i64);
}

pub fn pubsub(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let Call { server, reply, .. } = call;
    let (limits, out) = (server.limits(), reply.bytes_mut());
    let channels = &shared.channels;
    let numbers = |out: &mut Vec<u8>, kind: Kind| {
        resp::array(out, 2 * (words.len() - 2));
        for name in words.iter().skip(2) {
            resp::bulk(out, name);
            let subscribers =
                channels.topic(kind, name).map_or(0, |topic| channels.subscribers(topic).len());
            resp::integer(out, subscribers as i64);
        }
    };
    let is_numsub = |name| is(name, "numsub") || is(name, "shardnumsub");
    if is_numsub(word(words, 1)) {
        shared.fanout.note_searched(TOPIC_STEPS * (words.len() - 2).min(NAMES_AT_ONCE));
    }
    match word(words, 1) {
        name if is(name, "channels") && words.len() <= 3 => {
            list(shared, Kind::Channel, words.get(2), limits, out)
        }
        name if is(name, "shardchannels") && words.len() <= 3 => {
            list(shared, Kind::Shard, words.get(2), limits, out)
        }
        name if is_numsub(name) && words.len() - 2 > NAMES_AT_ONCE => {
            let names = words.len() - 2;
            let error = format!("ERR {names} names; accepted: up to {NAMES_AT_ONCE} names");
            resp::error(out, error.as_bytes());
        }
        name if is(name, "numsub") => numbers(out, Kind::Channel),
        name if is(name, "shardnumsub") => numbers(out, Kind::Shard),
        name if is(name, "numpat") && words.len() == 2 => {
            resp::integer(out, channels.pattern_count() as i64)
        }
        _ => other_subcommand("pubsub", words, out),
    }
}

/// Lists the names of a kind that match a pattern. The count precedes the names but is known last,
/// so it is inserted at the end.
fn list(
    shared: &mut Shared,
    kind: Kind,
    pattern: Option<&[u8]>,
    limits: &Limits,
    out: &mut Vec<u8>,
) {
    if let Some(error) = pattern.and_then(|pattern| too_long(Kind::Pattern, pattern, limits)) {
        return resp::error(out, format!("ERR {error}").as_bytes());
    }
    let (start, mut count, mut steps) = (out.len(), 0, 0);
    for (_, name) in shared.channels.topics(kind) {
        if pattern.is_none_or(|pattern| glob::matches(pattern, name, &mut steps)) {
            resp::bulk(out, name);
            count += 1;
        }
        if out.len() - start > LIST_MAX || steps > LIST_STEPS_MAX {
            break;
        }
    }
    shared.fanout.note_searched(steps + TOPIC_STEPS * shared.channels.topic_count());
    let mut head = Vec::new();
    resp::array(&mut head, count);
    if steps > LIST_STEPS_MAX {
        out.truncate(start);
        return resp::error(out, b"ERR matching the pattern with all channels takes too long");
    }
    if out.len() - start + head.len() > LIST_MAX {
        out.truncate(start);
        return resp::error(out, b"ERR the list of channels is too long; narrow it with a pattern");
    }
    out.splice(start..start, head);
}

pub fn publish(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    if let Some(error) = too_long(Kind::Channel, word(words, 1), call.server.limits()) {
        return call.error(&format!("ERR {error}"));
    }
    match shared.publish(word(words, 1), word(words, 2)) {
        Ok(receivers) => resp::integer(call.out(), receivers as i64),
        Err(unpublished) => call.error(&format!("ERR {}", unpublished.text(word(words, 1)))),
    }
}

pub fn spublish(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    if let Some(error) = too_long(Kind::Shard, word(words, 1), call.server.limits()) {
        return call.error(&format!("ERR {error}"));
    }
    let receivers = shared.publish_shard(word(words, 1), word(words, 2));
    resp::integer(call.out(), receivers as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::tests::{exchange, subscribe};

    fn answer(hub: &mut Hub, connection: u32, words: &[&[u8]]) -> String {
        let mut message = Vec::new();
        resp::array(&mut message, words.len());
        words.iter().for_each(|word| resp::bulk(&mut message, word));
        String::from_utf8(exchange(hub, connection, &message).0).unwrap()
    }

    fn hub() -> Hub {
        crate::hub::tests::hub(4)
    }

    #[test]
    fn a_name_or_pattern_one_byte_too_long_is_refused() {
        let mut hub = hub();
        for (commands, most, error) in [
            (
                &["SUBSCRIBE", "SSUBSCRIBE", "PUBLISH", "SPUBLISH"][..],
                4096,
                "the channel name has 4097 bytes; accepted: up to 4096 bytes (--max-channel-name)",
            ),
            (
                &["PSUBSCRIBE", "PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS"],
                256,
                "the pattern has 257 bytes; accepted: up to 256 bytes (--max-pattern)",
            ),
        ] {
            for (command, length) in
                commands.iter().flat_map(|command| (most - 1..=most + 1).map(move |l| (command, l)))
            {
                let name = vec![b'x'; length];
                let mut words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
                words.push(&name);
                if command.ends_with("PUBLISH") {
                    words.push(b"payload");
                }
                let session = u32::from(command.contains("PUB"));
                let answer = answer(&mut hub, session, &words);
                match length > most {
                    true => assert_eq!(answer, format!("-ERR {error}\r\n"), "{command}"),
                    false => assert!(!answer.starts_with('-'), "{command} of {length}: {answer}"),
                }
            }
        }
        assert_eq!(
            answer(&mut hub, 2, &[b"SUBSCRIBE", b"a", &[b'x'; 5000]]),
            "-ERR the channel name has 5000 bytes; accepted: up to 4096 bytes \
             (--max-channel-name)\r\n"
        );
        assert!(
            !hub.shared.channels.is_subscribed(2),
            "a refused command subscribes to no channel"
        );
    }

    #[test]
    fn a_list_of_channels_one_byte_too_long_is_refused() {
        // The list holds `*1024`, 1,023 names of 503 bytes with their framing, and one more name.
        let rest = LIST_MAX - 7 - 1023 * (503 + 8);
        for (length, fits) in [(rest - 10, true), (rest - 9, true), (rest - 8, false)] {
            let mut hub = hub();
            for number in 0..1023 {
                let name = format!("{number:0>503}");
                subscribe(&mut hub, number % 2, Kind::Channel, name.as_bytes());
            }
            subscribe(&mut hub, 2, Kind::Channel, &vec![b'x'; length]);
            let listed = answer(&mut hub, 3, &[b"PUBSUB", b"CHANNELS"]);
            let expected = if fits { LIST_MAX - usize::from(length == rest - 10) } else { 65 };
            assert_eq!((listed.len(), listed.starts_with("*1024\r\n$503\r\n0")), (expected, fits));
            assert_eq!(listed.starts_with("-ERR the list of channels is too long"), !fits);
            assert_eq!(
                answer(&mut hub, 3, &[b"PUBSUB", b"CHANNELS", b"*00"]).matches("\r\n").count(),
                1 + 2 * 11
            );
        }
    }
}

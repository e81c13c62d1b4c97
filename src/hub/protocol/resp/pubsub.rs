//! The commands of pub/sub: subscribe, unsubscribe, publish, and PUBSUB.

use super::Call;
use super::help::other_subcommand;
use super::words::{is, word};
use crate::codec::resp::{self, Command, Protocol};
use crate::hub::channels::{Channels, Kind, LimitReached};
use crate::hub::{Shared, TooDear, glob};
use crate::limits::{
    CHANNEL_NAME_MAX, CHANNELS_MAX, CONFIRMATIONS_MAX, HELD_MAX, LIST_MAX, LIST_STEPS_MAX,
    PATTERN_MAX, PATTERNS_MAX, PATTERNS_PER_SESSION_MAX,
};

/// Cost of visiting a topic, in search steps.
const TOPIC_STEPS: usize = 16;

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

/// Returns the count in a confirmation: a session's shard channels, or its channels and patterns.
fn count(channels: &Channels, session: u32, kind: Kind) -> usize {
    match kind {
        Kind::Shard => channels.shard_count(session),
        _ => channels.count(session),
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
    let (session, protocol) = (call.session, shared.protocol(call.session));
    let names = words.iter().skip(1);
    if let Some(error) = names.clone().find_map(|name| too_long(kind, name)) {
        return call.error(&error);
    }
    for name in names {
        if let Err(limit) = shared.subscribe(session, kind, name, call.out()) {
            call.keep();
            return call.error(&refusal(limit));
        }
        let count = count(&shared.channels, session.index, kind);
        confirm(call.out(), protocol, confirmation(kind, true), Some(name), count);
        call.keep();
    }
}

/// Returns the error for a subscription beyond a limit.
pub fn refusal(limit: LimitReached) -> String {
    let (what, most) = match limit {
        LimitReached::PatternsOfSession => ("patterns per connection", PATTERNS_PER_SESSION_MAX),
        LimitReached::Patterns => ("patterns in total", PATTERNS_MAX),
        LimitReached::Channels => ("channels in total", CHANNELS_MAX),
        LimitReached::Confirmations => ("bytes of replies that end them", CONFIRMATIONS_MAX),
        LimitReached::Memory => ("bytes of memory in total", HELD_MAX),
    };
    format!("ERR too many subscriptions; the limit is {most} {what}")
}

/// Returns the error for a name or pattern that is too long.
pub fn too_long(kind: Kind, name: &[u8]) -> Option<String> {
    let (what, most) = match kind {
        Kind::Pattern => ("pattern", PATTERN_MAX),
        _ => ("channel name", CHANNEL_NAME_MAX),
    };
    let length = name.len();
    (length > most)
        .then(|| format!("ERR the {what} has {length} bytes; accepted: up to {most} bytes"))
}

fn unsubscribe_from(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>, kind: Kind) {
    let (session, protocol) = (call.session, shared.protocol(call.session));
    shared.deliver_now(session, call.out());
    let word = confirmation(kind, false);
    for name in words.iter().skip(1) {
        shared.channels.unsubscribe(session.index, kind, name);
        let count = count(&shared.channels, session.index, kind);
        confirm(call.out(), protocol, word, Some(name), count);
    }
    if words.len() == 1 {
        let (out, mut any) = (call.out(), false);
        shared.channels.unsubscribe_all(session.index, kind, |name, remaining| {
            any = true;
            confirm(out, protocol, word, Some(name), remaining);
        });
        if !any {
            confirm(out, protocol, word, None, count(&shared.channels, session.index, kind));
        }
    }
    call.keep();
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
    let out = call.out();
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
    match word(words, 1) {
        name if is(name, "channels") && words.len() <= 3 => {
            list(shared, Kind::Channel, words.get(2), out)
        }
        name if is(name, "shardchannels") && words.len() <= 3 => {
            list(shared, Kind::Shard, words.get(2), out)
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
fn list(shared: &mut Shared, kind: Kind, pattern: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(error) = pattern.and_then(|pattern| too_long(Kind::Pattern, pattern)) {
        return resp::error(out, error.as_bytes());
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
    if let Some(error) = too_long(Kind::Channel, word(words, 1)) {
        return call.error(&error);
    }
    match shared.publish(word(words, 1), word(words, 2)) {
        Ok(receivers) => resp::integer(call.out(), receivers as i64),
        Err(TooDear) => {
            resp::error(
                call.out(),
                b"ERR matching the channel name with all patterns takes too long; \
                use a shorter name",
            );
        }
    }
}

pub fn spublish(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    if let Some(error) = too_long(Kind::Shard, word(words, 1)) {
        return call.error(&error);
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
                "the channel name has 4097 bytes; accepted: up to 4096 bytes",
            ),
            (
                &["PSUBSCRIBE", "PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS"],
                256,
                "the pattern has 257 bytes; accepted: up to 256 bytes",
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
            "-ERR the channel name has 5000 bytes; accepted: up to 4096 bytes\r\n"
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

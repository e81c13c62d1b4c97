//! The way of a publish to its subscribers: encoded once, delivered within the turn's budget, in order.
//!
//! Publishes that follow each other on one topic make one *run*: their encodings lie side by side, so each subscriber gets them in one
//! write. Runs are delivered in the order they were made, so what a subscriber sees of several channels is in order too.
//!
//! RESP3 differs from RESP2 in a message's first byte alone, so a run is encoded as RESP2 and remembers where its messages begin.
//!
//! A publish that reaches several topics, patterns mostly, makes a run of each. Their messages end alike, in `channel payload`: that is
//! kept once, in [`Tails`], so that a large message costs its bytes once however many patterns it matches.

use std::collections::VecDeque;
use std::ops::Range;

use super::channels::{Channels, Kind, PATTERNS_MAX, TopicId};
use super::{Session, State};
use crate::codec::resp::{self, Protocol};
use crate::limits::PATTERN_MAX;
use crate::service::{Deliveries, Reply};

/// Bytes of runs, receivers included and shared ones counted for each run, at which no more input is taken until they are delivered: a
/// publish is small, and its deliveries are many.
const BACKLOG_MAX: usize = 1 << 20;

/// Steps of searching in one turn, some nanoseconds each: receivers that a session is looked for among, names that a pattern is matched
/// with. Then input waits for the next turn. A thousandth of a second.
const SEARCHED_MAX: usize = 1 << 20;

/// Steps that one publish may take to find the patterns it matches, some 30 ms at worst: no name of up to 60 bytes needs as many, whatever the
/// patterns are, but 1,024 malicious ones would take two seconds with a name of 4 KiB.
const PUBLISH_STEPS_MAX: usize = 16 << 20;

const _: () = assert!(PATTERNS_MAX * PATTERN_MAX * (60 + 1) <= PUBLISH_STEPS_MAX);

/// Free runs kept, so that a publish allocates nothing once warm.
const SPARE_MAX: usize = 16;

/// Capacity up to which a run or the tails are kept for the next publish: what a rare large message has made of them goes back.
const SPARE_BYTES_MAX: usize = 64 * 1024;

#[derive(Default)]
pub struct Publisher {
    runs: VecDeque<Run>,
    spare: Vec<Run>,
    tails: Tails,
    /// What the present publish goes to; kept for its memory.
    topics: Vec<TopicId>,
    /// Bytes of `runs`.
    backlog: usize,
    /// Steps taken in this turn, of those that [`SEARCHED_MAX`] bounds.
    searched: usize,
    pub published: u64,
    pub delivered: u64,
}

/// Messages to one topic, and those subscribed to it when they were published.
#[derive(Default)]
struct Run {
    /// `None` where no more messages may join it.
    topic: Option<TopicId>,
    /// Of the channels as a whole: while it stands, so do the receivers.
    version: u64,
    receivers: Vec<Receiver>,
    bytes: Vec<u8>,
    /// What follows `bytes` and is shared with other runs.
    tail: Tail,
    /// Where in `bytes` each message begins: the byte in which RESP3 differs.
    heads: Vec<u32>,
    /// Receivers that have been served.
    served: usize,
}

/// A session and its id: should the number be another's by the time it is served, it misses.
#[derive(Clone, Copy)]
struct Receiver {
    session: u32,
    id: u32,
}

/// No session: a receiver that has been served out of turn.
const SERVED: Receiver = Receiver { session: u32::MAX, id: 0 };

/// A range of [`Tails`]: where it starts, counted from the first tail there ever was. Empty: none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tail {
    start: u64,
    length: usize,
}

/// The shared ends of messages, in the order of their publishes. As runs end in that order too, the first are the first to go.
#[derive(Default)]
struct Tails {
    bytes: Vec<u8>,
    /// Where `bytes` starts.
    start: u64,
}

impl Tails {
    fn push(&mut self, channel: &[u8], payload: &[u8]) -> Tail {
        let before = self.bytes.len();
        encode_tail(&mut self.bytes, channel, payload);
        Tail { start: self.start + before as u64, length: self.bytes.len() - before }
    }

    fn get(&self, tail: Tail) -> &[u8] {
        let start = tail.start.saturating_sub(self.start) as usize;
        &self.bytes[start..start + tail.length]
    }

    /// Forgets a tail and those before it. The memory of all is moved once half of it is free, so a byte is moved once at most.
    fn forget(&mut self, tail: Tail) {
        let free = (tail.start - self.start) as usize + tail.length;
        if free == self.bytes.len() && self.bytes.capacity() > SPARE_BYTES_MAX {
            self.bytes = Vec::new();
        } else if free >= self.bytes.len() / 2 {
            self.bytes.drain(..free);
        } else {
            return;
        }
        self.start += free as u64;
    }
}

/// What the messages of a run begin with.
enum Announce<'a> {
    Message,
    ShardMessage,
    /// Through this pattern.
    PatternMessage(&'a [u8]),
}

impl Announce<'_> {
    fn of(channels: &Channels, topic: TopicId) -> Announce<'_> {
        match topic.kind() {
            Kind::Channel => Announce::Message,
            Kind::Shard => Announce::ShardMessage,
            Kind::Pattern => Announce::PatternMessage(channels.name(topic)),
        }
    }
}

impl Run {
    /// What counts as backlog.
    fn size(&self) -> usize {
        size_of::<Run>()
            + self.bytes.len()
            + self.tail.length
            + self.heads.len() * size_of::<u32>()
            + self.receivers.len() * size_of::<Receiver>()
    }

    fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.heads.capacity() * size_of::<u32>()
            + self.receivers.capacity() * size_of::<Receiver>()
    }

    fn clear(&mut self) {
        self.receivers.clear();
        self.bytes.clear();
        self.heads.clear();
        self.tail = Tail::default();
        self.served = 0;
    }
}

impl Publisher {
    pub fn has_output(&self) -> bool {
        !self.runs.is_empty()
    }

    pub fn is_backlogged(&self) -> bool {
        self.backlog >= BACKLOG_MAX || self.searched >= SEARCHED_MAX
    }

    /// A command has searched for so many steps.
    pub fn note_searched(&mut self, steps: usize) {
        self.searched += steps;
    }

    /// Queues one message for the subscribers of some topics; returns how many they are.
    fn publish(
        &mut self,
        channels: &Channels,
        sessions: &[Session],
        topics: &[TopicId],
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        self.published += 1;
        if let [topic] = topics {
            return self.publish_to_one(channels, sessions, *topic, channel, payload);
        }
        if topics.is_empty() {
            return 0;
        }
        let tail = self.tails.push(channel, payload);
        let receivers = topics.iter().map(|topic| {
            self.start_run(sessions, channels.subscribers(*topic));
            self.amend(|run| {
                run.heads.push(0);
                encode_head(&mut run.bytes, &Announce::of(channels, *topic));
                run.tail = tail;
            })
        });
        receivers.sum()
    }

    /// The usual case. What is published to the same topic next joins it.
    fn publish_to_one(
        &mut self,
        channels: &Channels,
        sessions: &[Session],
        topic: TopicId,
        channel: &[u8],
        payload: &[u8],
    ) -> usize {
        let version = channels.version();
        let last = self.runs.back();
        if !last.is_some_and(|run| run.topic == Some(topic) && run.version == version && run.served == 0) {
            self.start_run(sessions, channels.subscribers(topic));
        }
        self.amend(|run| {
            (run.topic, run.version) = (Some(topic), version);
            run.heads.push(run.bytes.len() as u32);
            encode_head(&mut run.bytes, &Announce::of(channels, topic));
            encode_tail(&mut run.bytes, channel, payload);
        })
    }

    /// Changes the last run; returns its receivers.
    fn amend(&mut self, change: impl FnOnce(&mut Run)) -> usize {
        let Some(run) = self.runs.back_mut() else { return 0 };
        self.backlog -= run.size();
        change(run);
        self.backlog += run.size();
        run.receivers.len()
    }

    /// Queues a line for these sessions, as it is.
    pub fn tell(&mut self, sessions: &[Session], receivers: &[u32], line: &[u8]) {
        let same = |run: &Run| {
            let asked = receivers.iter().map(|session| (*session, id_of(sessions, *session)));
            run.receivers.iter().map(|receiver| (receiver.session, receiver.id)).eq(asked)
        };
        if !self.runs.back().is_some_and(|run| run.heads.is_empty() && run.served == 0 && same(run)) {
            self.start_run(sessions, receivers.iter().copied());
        }
        if let Some(run) = self.runs.back_mut() {
            run.bytes.extend_from_slice(line);
            self.backlog += line.len();
        }
    }

    fn start_run(&mut self, sessions: &[Session], receivers: impl Iterator<Item = u32>) {
        let mut run = self.spare.pop().unwrap_or_default();
        run.topic = None;
        run.receivers.extend(receivers.map(|session| Receiver { session, id: id_of(sessions, session) }));
        self.backlog += run.size();
        self.runs.push_back(run);
    }

    /// Gives a session what waits for it, ahead of others and as part of its answer: what was published before it unsubscribed comes before
    /// the confirmation, and nothing after. By its id, as what waits may be for who had its number before.
    pub fn deliver_now(&mut self, id: u32, protocol: Protocol, reply: &mut Reply<'_>) {
        let session = reply.session;
        let is_own = |receiver: &&mut Receiver| receiver.session == session && receiver.id == id;
        for run in &mut self.runs {
            self.searched += run.receivers.len() - run.served;
            for receiver in run.receivers[run.served..].iter_mut().filter(is_own) {
                *receiver = SERVED;
                // Who has had its messages would miss one that joins them.
                run.topic = None;
                let start = reply.bytes_mut().len();
                reply.send(&run.bytes);
                reply.send(self.tails.get(run.tail));
                if protocol == Protocol::Resp3 {
                    mark_as_push(&mut reply.bytes_mut()[start..], &run.heads);
                }
                self.delivered += 1;
            }
        }
    }

    /// Memory held, the encodings of a warm publisher and what waits.
    pub fn bytes(&self) -> usize {
        let tables = (self.runs.capacity() + self.spare.capacity()) * size_of::<Run>();
        let runs = self.runs.iter().chain(&self.spare);
        tables + self.tails.bytes.capacity() + runs.map(Run::capacity_bytes).sum::<usize>()
    }

    pub fn shrink(&mut self) {
        self.spare = Vec::new();
        self.runs.shrink_to_fit();
    }

    /// Delivers what the turn's budget allows.
    pub fn poll_output(&mut self, deliveries: &mut Deliveries<'_>, sessions: &[Session]) {
        self.searched = 0;
        while let Some(run) = self.runs.front_mut() {
            let tail = self.tails.get(run.tail);
            let (mut resp2, mut resp3) = (None, None);
            while let Some(receiver) = run.receivers.get(run.served) {
                let present = sessions.get(receiver.session as usize).filter(|session| session.id == receiver.id);
                if let Some(session) = present {
                    let protocol = session.protocol();
                    let encoded = if protocol == Protocol::Resp2 { &mut resp2 } else { &mut resp3 };
                    let range = match encoded {
                        Some(range) => range,
                        // Asked first: what finds no room need not be copied.
                        None if !deliveries.has_room(run.bytes.len() + tail.len()) => return,
                        None => encoded.insert(put(deliveries, run, tail, protocol)),
                    };
                    if !deliveries.deliver(receiver.session, range) {
                        return;
                    }
                    self.delivered += 1;
                }
                run.served += 1;
            }
            self.end_run();
        }
    }

    /// The first run has been delivered to all.
    fn end_run(&mut self) {
        let Some(mut run) = self.runs.pop_front() else { return };
        self.backlog -= run.size();
        if run.tail != Tail::default() && self.runs.front().is_none_or(|next| next.tail != run.tail) {
            self.tails.forget(run.tail);
        }
        if self.spare.len() < SPARE_MAX && run.capacity_bytes() <= SPARE_BYTES_MAX {
            run.clear();
            self.spare.push(run);
        }
    }
}

/// Puts out the messages of a run, with what they end with, as `protocol` has them.
fn put(deliveries: &mut Deliveries<'_>, run: &Run, tail: &[u8], protocol: Protocol) -> Range<u32> {
    let own = deliveries.put(&run.bytes);
    if protocol == Protocol::Resp3 {
        mark_as_push(deliveries.bytes_mut(&own), &run.heads);
    }
    own.start..deliveries.put(tail).end
}

fn id_of(sessions: &[Session], session: u32) -> u32 {
    sessions.get(session as usize).map_or(0, |session| session.id)
}

/// Makes messages of RESP2 those of RESP3: `*3` becomes `>3`.
fn mark_as_push(bytes: &mut [u8], heads: &[u32]) {
    heads.iter().for_each(|head| bytes[*head as usize] = b'>');
}

/// What comes before `channel payload`: `message`, or `pmessage pattern`.
fn encode_head(out: &mut Vec<u8>, announce: &Announce<'_>) {
    match announce {
        Announce::Message => {
            resp::array(out, 3);
            resp::bulk(out, b"message");
        }
        Announce::ShardMessage => {
            resp::array(out, 3);
            resp::bulk(out, b"smessage");
        }
        Announce::PatternMessage(pattern) => {
            resp::array(out, 4);
            resp::bulk(out, b"pmessage");
            resp::bulk(out, pattern);
        }
    }
}

fn encode_tail(out: &mut Vec<u8>, channel: &[u8], payload: &[u8]) {
    resp::bulk(out, channel);
    resp::bulk(out, payload);
}

/// The patterns there are would take too long to match with a channel's name.
pub struct TooDear;

impl State {
    /// Publishes to a channel and to the patterns that match it; returns the receivers.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Result<usize, TooDear> {
        let State { channels, publisher, sessions, .. } = self;
        let mut topics = std::mem::take(&mut publisher.topics);
        topics.extend(channels.topic(Kind::Channel, channel));
        let mut steps = 0;
        let all = channels.match_patterns(channel, &mut topics, &mut steps, PUBLISH_STEPS_MAX);
        publisher.note_searched(steps);
        let receivers = all.then(|| publisher.publish(channels, sessions, &topics, channel, payload));
        topics.clear();
        publisher.topics = topics;
        receivers.ok_or(TooDear)
    }

    /// Publishes to a shard channel, which no pattern matches; returns the receivers.
    pub(super) fn publish_shard(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let State { channels, publisher, sessions, .. } = self;
        publisher.publish(channels, sessions, channels.topic(Kind::Shard, channel).as_slice(), channel, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::net::Transferred;
    use crate::outbox::Outbox;
    use crate::service::hub::Hub;
    use crate::service::server::Parting;
    use crate::service::{Options, Service};

    fn hub(sessions: u32) -> Hub {
        let mut hub = Hub::new(&Options::default());
        for session in 0..sessions {
            hub.connected(&mut Reply::new(session, &mut Vec::new()).at(Time::ZERO));
        }
        hub
    }

    /// What the sessions get in one turn of so many deliveries and bytes, in order.
    fn turn(hub: &mut Hub, count: usize, bytes: usize) -> Vec<(u32, Vec<u8>)> {
        let mut outbox = Outbox::default();
        hub.poll_output(&mut Deliveries::new(&mut outbox, count, bytes));
        outbox.entries().iter().map(|entry| (entry.slot, outbox.bytes(&entry.range).to_vec())).collect()
    }

    fn message(head: &[&[u8]], channel: &[u8], payload: &[u8], protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        resp::push(&mut out, head.len() + 2, protocol);
        head.iter().chain(&[channel, payload]).for_each(|word| resp::bulk(&mut out, word));
        out
    }

    #[test]
    fn a_large_message_that_matches_many_patterns_costs_its_bytes_once() {
        let mut hub = hub(32);
        for number in 0..512u32 {
            let pattern = format!("{:*<1$}", "", 1 + number as usize % 250);
            let pattern = format!("{pattern}{}", ["", "s", "ws"][number as usize / 250]);
            hub.state.channels.subscribe(number / 16, Kind::Pattern, pattern.as_bytes()).unwrap();
        }
        let payload = vec![b'x'; 1_000_000];
        assert_eq!(hub.state.publish(b"news", &payload).ok(), Some(512));
        assert!(hub.state.publisher.is_backlogged(), "no more is taken");
        let held = hub.state.publisher.bytes();
        assert!(held < 5 << 19, "{held} bytes wait");
        let mut delivered = 0;
        while hub.has_output() {
            let turn = turn(&mut hub, 1024, 4 << 20);
            assert_eq!(turn.len(), 4);
            assert!(
                turn.iter().all(|(_, bytes)| bytes.ends_with(b"xxx\r\n") && bytes.starts_with(b"*4\r\n$8\r\npmessage"))
            );
            delivered += turn.len();
        }
        assert_eq!(delivered, 512);
        assert_eq!((hub.state.publisher.backlog, hub.state.publisher.tails.bytes.capacity()), (0, 0));
    }

    /// Against the obvious way: every message encoded for every subscriber when it is published.
    #[test]
    fn whatever_is_published_and_however_small_the_turns_each_gets_its_own_in_order() {
        for seed in 0..32 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hub = hub(6);
            for session in [1, 3] {
                hub.state.set_protocol(session, Protocol::Resp3);
            }
            let (mut expected, mut got) = (vec![Vec::new(); 6], vec![Vec::new(); 6]);
            for _ in 0..400 {
                let session = random.u32(..6);
                let (kind, name) = [
                    (Kind::Channel, &b"a"[..]),
                    (Kind::Channel, b"ab"),
                    (Kind::Pattern, b"a*"),
                    (Kind::Pattern, b"*b"),
                    (Kind::Shard, b"a"),
                ][random.usize(..5)];
                match random.u32(..10) {
                    0 => drop(hub.state.channels.subscribe(session, kind, name)),
                    1 => drop(hub.state.channels.unsubscribe(session, kind, name)),
                    2..7 => publish(&mut hub, &mut random, &mut expected),
                    7 => {
                        let mut bytes = Vec::new();
                        let protocol = hub.state.protocol(session);
                        let id = hub.state.session(session).id;
                        hub.state.publisher.deliver_now(id, protocol, &mut Reply::new(session, &mut bytes));
                        got[session as usize].extend(bytes);
                        assert_eq!(got[session as usize], expected[session as usize], "seed {seed}");
                    }
                    _ => {
                        let (count, bytes) = (random.usize(1..6), random.usize(..2000));
                        let turn = turn(&mut hub, count, bytes);
                        turn.into_iter().for_each(|(session, bytes)| got[session as usize].extend(bytes));
                    }
                }
                check_sizes(&hub.state.publisher);
            }
            while hub.has_output() {
                let turn = turn(&mut hub, 3, 50);
                assert!(!turn.is_empty() || !hub.has_output());
                turn.into_iter().for_each(|(session, bytes)| got[session as usize].extend(bytes));
            }
            check_sizes(&hub.state.publisher);
            assert_eq!(got, expected, "seed {seed}");
        }
    }

    fn check_sizes(publisher: &Publisher) {
        assert_eq!(publisher.backlog, publisher.runs.iter().map(Run::size).sum::<usize>());
        let waiting = publisher.runs.iter().map(|run| run.tail.start as usize + run.tail.length).max().unwrap_or(0);
        let held = publisher.tails.start as usize + publisher.tails.bytes.len();
        assert!(waiting <= held && (!publisher.runs.is_empty() || publisher.tails.bytes.is_empty()));
    }

    /// A random publish to a random channel, and what everybody is to get of it.
    fn publish(hub: &mut Hub, random: &mut fastrand::Rng, expected: &mut [Vec<u8>]) {
        let channel = [&b"a"[..], b"ab", b"c"][random.usize(..3)];
        let payload = vec![random.lowercase() as u8; random.usize(..600)];
        let shard = random.u32(..4) == 0;
        let mut receivers = 0;
        let channels = &hub.state.channels;
        let exact = if shard { Kind::Shard } else { Kind::Channel };
        let mut topics = Vec::from_iter(channels.topic(exact, channel));
        if !shard {
            channels.match_patterns(channel, &mut topics, &mut 0, usize::MAX);
        }
        for topic in topics {
            for session in channels.subscribers(topic) {
                let head: &[&[u8]] = match topic.kind() {
                    Kind::Channel => &[b"message"],
                    Kind::Shard => &[b"smessage"],
                    Kind::Pattern => &[b"pmessage", channels.name(topic)],
                };
                let message = message(head, channel, &payload, hub.state.protocol(session));
                expected[session as usize].extend(message);
                receivers += 1;
            }
        }
        let told = match shard {
            true => hub.state.publish_shard(channel, &payload),
            false => hub.state.publish(channel, &payload).ok().unwrap(),
        };
        assert_eq!(told, receivers);
    }

    #[test]
    fn a_delivery_larger_than_the_turns_bytes_goes_alone_and_none_is_lost() {
        for (budget, each_turn) in [(0, 1), (2992, 1), (2993, 1), (2994, 1), (5985, 1), (5986, 2)] {
            let mut hub = hub(5);
            for session in 0..5 {
                hub.state.channels.subscribe(session, Kind::Channel, b"a").unwrap();
            }
            assert_eq!(hub.state.publish(b"a", &[b'x'; 3000 - 40]).ok(), Some(5));
            let mut got = Vec::new();
            while hub.has_output() {
                let turn = turn(&mut hub, 1024, budget);
                assert_eq!(turn[0].1.len(), 2993);
                assert!(turn.len() <= each_turn && !turn.is_empty(), "{budget}: {}", turn.len());
                got.extend(turn.into_iter().map(|(session, _)| session));
            }
            assert_eq!(got, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn what_a_large_message_needed_is_not_kept() {
        let mut hub = hub(1);
        hub.state.channels.subscribe(0, Kind::Channel, b"a").unwrap();
        assert!(hub.state.publish(b"a", &[b'x'; 500_000]).is_ok());
        turn(&mut hub, 10, 1 << 20);
        let left = hub.state.publisher.bytes();
        assert!(left < 4096, "{left} bytes are kept");
    }

    #[test]
    fn a_publish_that_patterns_make_too_dear_goes_to_nobody_and_ends_the_turns_input() {
        let mut hub = hub(3);
        let names: Vec<String> = (0..32u8).map(|number| format!("*{}{}b*", "a".repeat(252), number as char)).collect();
        for (number, name) in names.iter().enumerate() {
            hub.state.channels.subscribe(number as u32 / 16, Kind::Pattern, name.as_bytes()).unwrap();
        }
        hub.state.channels.subscribe(2, Kind::Pattern, b"*").unwrap();
        assert!(hub.state.publish(&[b'a'; 4096], b"x").is_err() && !hub.has_output());
        assert!(hub.is_backlogged());
        turn(&mut hub, 1, 1);
        assert!(!hub.is_backlogged(), "the next turn begins anew");
        assert_eq!(hub.state.publish(&[b'a'; 60], b"x").ok(), Some(1));
    }

    /// Messages wait longer than a turn where there are many: a connection may end meanwhile, and another get its number.
    #[test]
    fn what_waits_for_who_had_the_number_before_does_not_come_ahead_of_the_next_ones_answer() {
        for command in [&b"UNSUBSCRIBE x\r\n"[..], b"RESET\r\n", b"QUIT\r\n"] {
            let mut hub = hub(2);
            hub.state.channels.subscribe(1, Kind::Channel, b"private").unwrap();
            assert_eq!(hub.state.publish(b"private", b"secret").ok(), Some(1));
            let parting = Parting { peer: None, reason: "eof", transferred: Transferred::default(), now: Time::ZERO };
            hub.closed(1, &parting);
            hub.connected(&mut Reply::new(1, &mut Vec::new()).at(Time::ZERO));
            hub.state.channels.subscribe(1, Kind::Channel, b"public").unwrap();
            assert_eq!(hub.state.publish(b"public", b"news").ok(), Some(1));
            let mut answer = Vec::new();
            hub.message(command, &mut Reply::new(1, &mut answer));
            assert!(answer.starts_with(&message(&[b"message"], b"public", b"news", Protocol::Resp2)));
            let shown = answer.escape_ascii().to_string();
            assert!(!shown.contains("secret"), "{shown}");
            assert_eq!(turn(&mut hub, 10, 1000), []);
        }
    }

    #[test]
    fn a_line_does_not_join_those_of_who_had_the_number_before() {
        let mut hub = hub(2);
        let tell = |hub: &mut Hub, line: &[u8]| {
            let State { publisher, sessions, .. } = &mut hub.state;
            publisher.tell(sessions, &[0, 1], line);
        };
        tell(&mut hub, b"one\n");
        hub.connected(&mut Reply::new(1, &mut Vec::new()).at(Time::ZERO));
        tell(&mut hub, b"two\n");
        tell(&mut hub, b"three\n");
        let got = turn(&mut hub, 10, 1000);
        assert_eq!(got, [(0, b"one\n".to_vec()), (0, b"two\nthree\n".to_vec()), (1, b"two\nthree\n".to_vec())]);
    }
}

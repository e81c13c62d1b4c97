//! The shadow model of the hub: all messages and subscriptions of honest clients.
//!
//! The loop executes a command some time after its client sends it and before the client has the
//! answer. The model does not know the exact moment, so it treats each publish and each
//! subscription as a window in time. Windows that do not overlap have a certain result:
//! - A publish reaches a subscriber once if it was sent after the subscription was confirmed and
//!   answered before the client asked to end it.
//! - A publish does not reach a subscriber if it was answered before the client asked to subscribe.
//!
//! Two subscribers see the messages that both receive in the same order, because there is one loop.

use std::collections::{BTreeMap, HashSet};

use super::{Violation, ensure};

/// The index of a topic in [`TOPICS`].
pub type TopicIndex = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKind {
    Channel,
    Pattern,
    Shard,
}

/// The topics of honest clients. The channels of hostile clients have other names, which begin with
/// `h`.
pub const TOPICS: [(TopicKind, &str); 12] = [
    (TopicKind::Channel, "a"),
    (TopicKind::Channel, "b"),
    (TopicKind::Channel, "ab"),
    (TopicKind::Channel, "abc"),
    (TopicKind::Channel, "news"),
    (TopicKind::Channel, "a-channel-with-a-longer-name"),
    (TopicKind::Pattern, "*"),
    (TopicKind::Pattern, "a*"),
    (TopicKind::Pattern, "?"),
    (TopicKind::Pattern, "ab?"),
    (TopicKind::Shard, "a"),
    (TopicKind::Shard, "s"),
];

/// Iterates over the topics of one kind.
pub fn topics_of(kind: TopicKind) -> impl Iterator<Item = TopicIndex> {
    (0..TOPICS.len() as TopicIndex).filter(move |topic| TOPICS[*topic as usize].0 == kind)
}

/// True if a publish to `channel` reaches the subscribers of `topic`.
fn reaches(channel: TopicIndex, topic: TopicIndex) -> bool {
    let ((kind, name), (of, pattern)) = (TOPICS[channel as usize], TOPICS[topic as usize]);
    match (kind, of) {
        (TopicKind::Channel, TopicKind::Pattern) => match pattern {
            "*" => true,
            "a*" => name.starts_with('a'),
            "?" => name.len() == 1,
            _ => name.len() == 3 && name.starts_with("ab"),
        },
        _ => channel == topic,
    }
}

/// A logical time, counted up by each action or observation of a client.
pub type Moment = u64;

/// One publish of an honest client.
pub struct Publish {
    pub channel: TopicIndex,
    /// Length of the payload after its number, in bytes.
    pub length: usize,
    /// The number of the client that publishes.
    pub by: u32,
    pub sent: Moment,
    pub answered: Option<Moment>,
    /// The number of receivers in the answer.
    pub receivers: Option<i64>,
    /// True if the message was sent by UDP, so it may be lost or arrive twice.
    pub is_datagram: bool,
    /// Number of subscribers that have received the message.
    pub receipts: i64,
}

/// One subscription, from the request to the confirmation of its end.
pub struct Window {
    pub client: u32,
    pub topic: TopicIndex,
    /// The moment at which the client asked to subscribe.
    pub asked: Moment,
    /// The moment at which the client got the confirmation.
    pub confirmed: Option<Moment>,
    /// The moment at which the client asked for the end, or a drain began.
    pub leaving: Option<Moment>,
    /// The moment by which the subscription had certainly ended.
    pub left: Option<Moment>,
    /// True once the client got the confirmation of the end, so it has every earlier message.
    pub is_settled: bool,
    /// True if the client left or was closed, so messages under way to it are lost.
    pub is_cut: bool,
}

/// The shadow model.
#[derive(Default)]
pub struct Board {
    pub publishes: Vec<Publish>,
    pub windows: Vec<Window>,
    /// Number of clients that have upgraded to WebSocket.
    pub upgrades: u64,
    /// Number of times that a client has connected to a namespace of Socket.IO.
    pub sockets: u64,
    /// The messages of each client in their order, each with the topic by which it came.
    received: Vec<Vec<(u32, TopicIndex)>>,
    /// The clients' numbers in the trace.
    ids: Vec<u64>,
    /// The same messages for lookup: client, message, topic.
    receipts: HashSet<(u32, u32, TopicIndex)>,
    moment: Moment,
    /// True if the network may duplicate datagrams.
    pub datagrams_repeat: bool,
    drained_since: Option<Moment>,
}

impl Board {
    /// Counts up the logical time and returns it.
    pub fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Returns the number of deliveries to subscribers.
    pub fn receipts(&self) -> i64 {
        self.publishes.iter().map(|publish| publish.receipts).sum()
    }

    /// Adds a client with its number in the trace. Returns its number on the board.
    pub fn enrol(&mut self, id: u64) -> u32 {
        self.ids.push(id);
        self.received.push(Vec::new());
        self.received.len() as u32 - 1
    }

    /// Adds a message that a client is about to publish. Returns its number, which is part of its
    /// payload.
    pub fn publish(
        &mut self,
        by: u32,
        channel: TopicIndex,
        length: usize,
        is_datagram: bool,
    ) -> u32 {
        let sent = self.tick();
        let publish = Publish {
            channel,
            length,
            by,
            sent,
            answered: None,
            receivers: None,
            is_datagram,
            receipts: 0,
        };
        self.publishes.push(publish);
        self.publishes.len() as u32 - 1
    }

    /// Returns the payload of a message.
    pub fn payload(&self, message: u32) -> Vec<u8> {
        payload(message, self.publishes[message as usize].length)
    }

    /// Notes the answer to a publish.
    pub fn answered(&mut self, message: u32, receivers: i64) {
        let now = self.tick();
        let publish = &mut self.publishes[message as usize];
        (publish.answered, publish.receivers) = (Some(now), Some(receivers));
    }

    /// Notes that a publish has been served, as its sender knows from a message that came back.
    pub fn served(&mut self, message: u32) {
        let now = self.tick();
        self.publishes[message as usize].answered.get_or_insert(now);
    }

    /// Adds a subscription that a client is about to request. Returns its index in `windows`.
    pub fn subscribe(&mut self, client: u32, topic: TopicIndex) -> usize {
        let asked = self.tick();
        let leaving = self.drained_since;
        let window = Window {
            client,
            topic,
            asked,
            confirmed: None,
            leaving,
            left: None,
            is_settled: false,
            is_cut: false,
        };
        self.windows.push(window);
        self.windows.len() - 1
    }

    /// Notes a message that came to a client by its subscription to `topic`. Fails if the message
    /// is unknown, garbled, on the wrong channel, or repeated.
    pub fn receive(
        &mut self,
        client: u32,
        topic: TopicIndex,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<(), Violation> {
        let number =
            payload.strip_prefix(b"m").and_then(|rest| rest.split(|byte| *byte == b':').next());
        let number =
            number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
        let Some(message) = number.filter(|number| (*number as usize) < self.publishes.len())
        else {
            return Err(format!(
                "client {client} received {}, which no client sent",
                payload.escape_ascii()
            )
            .into());
        };
        ensure(self.payload(message) == payload, || {
            format!("client {client}: message {message} is garbled")
        })?;
        let publish = &mut self.publishes[message as usize];
        let name = TOPICS[publish.channel as usize].1;
        ensure(name.as_bytes() == channel && reaches(publish.channel, topic), || {
            format!(
                "client {client}: message {message} to {name} came by its subscription to {:?}",
                TOPICS[topic as usize]
            )
        })?;
        publish.receipts += 1;
        let is_first = self.receipts.insert((client, message, topic));
        ensure(publish.is_datagram && self.datagrams_repeat || is_first, || {
            format!("client {client} received message {message} twice")
        })?;
        self.received[client as usize].push((message, topic));
        Ok(())
    }

    /// Notes that a client has ended, so messages under way to it are lost.
    pub fn cut(&mut self, client: u32) {
        // The client has every message of a settled subscription.
        let present =
            self.windows.iter_mut().filter(|window| window.client == client && !window.is_settled);
        present.for_each(|window| window.is_cut = true);
    }

    /// Notes that a client asks for the end of its connection. It still gets earlier messages.
    pub fn leave(&mut self, client: u32) {
        let now = self.tick();
        for window in self.windows.iter_mut().filter(|window| window.client == client) {
            window.leaving.get_or_insert(now);
        }
    }

    /// Notes that the loop has freed a client's connection, and with it all subscriptions.
    pub fn gone(&mut self, client: u32) {
        let now = self.tick();
        for window in self.windows.iter_mut().filter(|window| window.client == client) {
            window.left.get_or_insert(now);
        }
    }

    /// Notes the start of a drain. From now on the loop may close subscribers, but only after they
    /// have every earlier message.
    pub fn drain_begins(&mut self) {
        let now = self.tick();
        self.drained_since = Some(now);
        for window in &mut self.windows {
            window.leaving.get_or_insert(now);
        }
    }

    /// Checks all messages. Call it when nothing is under way any more.
    pub fn judge(&self) -> Result<(), Violation> {
        let mut windows_of = BTreeMap::<(u32, TopicIndex), u32>::new();
        self.windows
            .iter()
            .for_each(|window| *windows_of.entry((window.client, window.topic)).or_default() += 1);
        for (publish, message) in self.publishes.iter().zip(0..) {
            self.judge_message(publish, message, &windows_of)?;
        }
        self.judge_order()
    }

    fn judge_message(
        &self,
        publish: &Publish,
        message: u32,
        windows_of: &BTreeMap<(u32, TopicIndex), u32>,
    ) -> Result<(), Violation> {
        let answered = publish.answered.unwrap_or(Moment::MAX);
        let (mut surely, mut perhaps, mut cut) = (0, 0, 0);
        for window in self.windows.iter().filter(|window| reaches(publish.channel, window.topic)) {
            let is_before = answered < window.asked;
            let is_after = window.left.is_some_and(|left| left < publish.sent);
            let is_within = window.confirmed.is_some_and(|confirmed| confirmed < publish.sent)
                && publish.answered.is_some()
                && window.leaving.is_none_or(|leaving| answered < leaving);
            let has_it = self.receipts.contains(&(window.client, message, window.topic));
            let who = || {
                let (client, by) =
                    (self.ids[window.client as usize], self.ids[publish.by as usize]);
                let topic = TOPICS[window.topic as usize];
                format!(
                    "client {client}, message {message} of client {by}, {:?} receivers, by \
                     {topic:?}",
                    publish.receivers
                )
            };
            // If a client has several windows of one topic, the message may belong to another one.
            let is_only = windows_of.get(&(window.client, window.topic)) == Some(&1);
            ensure(!(is_only && has_it && (is_before || is_after)), || {
                format!("{}: received without a subscription", who())
            })?;
            ensure(!is_within || has_it || window.is_cut, || format!("{}: lost", who()))?;
            perhaps += i64::from(!is_before && !is_after);
            surely += i64::from(is_within && !window.is_cut);
            cut += i64::from(window.is_cut && !is_before && !is_after);
        }
        let Some(receivers) = publish.receivers.filter(|_| !publish.is_datagram) else {
            return Ok(());
        };
        ensure((surely..=perhaps).contains(&receivers), || {
            format!(
                "message {message}: the answer reports {receivers} receivers, but {surely} to \
                 {perhaps} clients are subscribed"
            )
        })?;
        ensure((receivers - cut..=receivers).contains(&publish.receipts), || {
            let channel = TOPICS[publish.channel as usize].1;
            let by = self.ids[publish.by as usize];
            let (answered, sent) = (publish.answered, publish.sent);
            let subscribed = self.windows.iter().filter(|window| {
                reaches(publish.channel, window.topic)
                    && answered.is_none_or(|answered| window.asked < answered)
                    && window.left.is_none_or(|left| left > sent)
            });
            let who: Vec<u64> = subscribed.map(|window| self.ids[window.client as usize]).collect();
            let receipts = publish.receipts;
            format!(
                "message {message} of client {by} to {channel}: the answer reports {receivers} \
                 receivers, but {receipts} received it; subscribed were {who:?}, {cut} of them cut"
            )
        })
    }

    /// Checks that one order of all messages agrees with the order at each receiver and at each
    /// publisher.
    fn judge_order(&self) -> Result<(), Violation> {
        let count = self.publishes.len();
        let (mut later, mut waits_for) = (vec![Vec::new(); count], vec![0u32; count]);
        let mut add = |before: u32, after: u32| {
            if before != after
                && !self.publishes[before as usize].is_datagram
                && !self.publishes[after as usize].is_datagram
            {
                later[before as usize].push(after);
                waits_for[after as usize] += 1;
            }
        };
        for received in &self.received {
            received.windows(2).for_each(|pair| add(pair[0].0, pair[1].0));
        }
        let mut last_by = BTreeMap::new();
        for (publish, message) in
            self.publishes.iter().zip(0..).filter(|(publish, _)| publish.receipts > 0)
        {
            if let Some(before) = last_by.insert(publish.by, message) {
                add(before, message);
            }
        }
        let mut free: Vec<u32> =
            (0..count as u32).filter(|message| waits_for[*message as usize] == 0).collect();
        let mut placed = 0;
        while let Some(message) = free.pop() {
            placed += 1;
            for after in &later[message as usize] {
                waits_for[*after as usize] -= 1;
                if waits_for[*after as usize] == 0 {
                    free.push(*after);
                }
            }
        }
        ensure(placed == count, || {
            let stuck = waits_for
                .iter()
                .zip(0..)
                .filter(|(waits, _)| **waits > 0)
                .map(|(_, message): (_, u32)| message);
            format!(
                "messages {:?} reached different clients in different orders",
                stuck.collect::<Vec<_>>()
            )
        })
    }
}

/// Returns the payload of a message: its number, and `length` letters that follow from it.
fn payload(message: u32, length: usize) -> Vec<u8> {
    let mut text = format!("m{message}:").into_bytes();
    let letters =
        (0..).map(|place: u32| b'a' + (message.wrapping_mul(31).wrapping_add(place) % 26) as u8);
    text.extend(letters.take(length));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a board with two subscribers of `a` and some messages, sent and answered. No client
    /// has received them yet.
    fn board(messages: u32) -> Board {
        let mut board = Board::default();
        for client in 0..2 {
            board.enrol(client.into());
            let window = board.subscribe(client, 0);
            board.windows[window].confirmed = Some(board.tick());
        }
        board.enrol(2);
        for message in 0..messages {
            board.publish(2, 0, 10, false);
            board.answered(message, 2);
        }
        board
    }

    fn give(board: &mut Board, client: u32, messages: &[u32]) -> Result<(), Violation> {
        messages.iter().try_for_each(|message| {
            let payload = board.payload(*message);
            board.receive(client, 0, b"a", &payload)
        })
    }

    fn wrong(result: Result<(), Violation>) -> String {
        result.expect_err("a violation").to_string()
    }

    #[test]
    fn a_lost_repeated_reordered_or_garbled_message_is_a_violation() {
        let mut all = board(2);
        give(&mut all, 0, &[0, 1]).unwrap();
        give(&mut all, 1, &[0, 1]).unwrap();
        all.judge().unwrap();
        assert!(wrong(give(&mut all, 1, &[1])).contains("twice"));

        let mut lost = board(2);
        give(&mut lost, 0, &[0, 1]).unwrap();
        give(&mut lost, 1, &[0]).unwrap();
        assert!(
            wrong(lost.judge())
                .contains("message 1 of client 2, Some(2) receivers, by (Channel, \"a\"): lost")
        );
        lost.cut(1);
        lost.judge().unwrap();

        let mut swapped = board(2);
        give(&mut swapped, 0, &[0, 1]).unwrap();
        give(&mut swapped, 1, &[1, 0]).unwrap();
        assert!(wrong(swapped.judge()).contains("different orders"));

        let mut garbled = board(1);
        assert!(wrong(garbled.receive(0, 0, b"a", b"m0:xyz")).contains("garbled"));
        assert!(wrong(garbled.receive(0, 0, b"a", b"m7:abc")).contains("no client sent"));
    }

    #[test]
    fn a_message_to_a_client_that_has_unsubscribed_is_a_violation() {
        let mut board = board(0);
        board.windows[1].leaving = Some(board.tick());
        board.windows[1].left = Some(board.tick());
        board.publish(2, 0, 0, false);
        board.answered(0, 2);
        give(&mut board, 0, &[0]).unwrap();
        assert!(wrong(board.judge()).contains("2 receivers, but 1 to 1 clients are subscribed"));
        board.publishes[0].receivers = Some(1);
        board.judge().unwrap();
        give(&mut board, 1, &[0]).unwrap();
        assert!(wrong(board.judge()).contains("received without a subscription"));
    }
}

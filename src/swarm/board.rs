//! What is known of all messages and subscriptions: the shadow model of the hub.
//!
//! Nobody outside the loop knows when it carries out a command: some time between the moment a client sends it and the moment the
//! client has its answer. So each publish and each subscription is a window in time. Two windows that do not overlap say what
//! must be: a publish sent after a subscription was confirmed, and answered before its end was asked for, reaches the subscriber,
//! once; one answered before the subscription was asked for does not. And whatever two subscribers see of the same messages they
//! see in the same order, because there is one loop.

use std::collections::{BTreeMap, HashSet};

use super::{Violation, ensure};

/// A topic by its place in [`TOPICS`].
pub type TopicIndex = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKind {
    Channel,
    Pattern,
    Shard,
}

/// Everything that honest clients subscribe to. Hostile ones have names of their own, which begin with `h`.
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

pub fn topics_of(kind: TopicKind) -> impl Iterator<Item = TopicIndex> {
    (0..TOPICS.len() as TopicIndex).filter(move |topic| TOPICS[*topic as usize].0 == kind)
}

/// Whether what is published to `channel` reaches those subscribed to `topic`.
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

/// Moments are counted by the simulation, one for each thing that a client does or sees.
pub type Moment = u64;

pub struct Publish {
    pub channel: TopicIndex,
    pub length: usize,
    pub by: u32,
    pub sent: Moment,
    pub answered: Option<Moment>,
    /// Receivers, as the answer has it.
    pub receivers: Option<i64>,
    /// By UDP it may be lost, or come twice.
    pub is_datagram: bool,
    pub receipts: i64,
}

/// One subscription, from the asking for it to the confirmation of its end.
pub struct Window {
    pub client: u32,
    pub topic: TopicIndex,
    pub asked: Moment,
    pub confirmed: Option<Moment>,
    pub leaving: Option<Moment>,
    pub left: Option<Moment>,
    /// It was told of the end, and so has had all that came before.
    pub is_settled: bool,
    /// The client went, or was closed: what was on its way to it is lost.
    pub is_cut: bool,
}

#[derive(Default)]
pub struct Board {
    pub publishes: Vec<Publish>,
    pub windows: Vec<Window>,
    /// What each client received, in its order: message, and the topic that it came by.
    received: Vec<Vec<(u32, TopicIndex)>>,
    /// Their numbers in the trace.
    ids: Vec<u64>,
    /// The same to look up: client, message, topic.
    receipts: HashSet<(u32, u32, TopicIndex)>,
    moment: Moment,
    /// A datagram may arrive twice.
    pub datagrams_repeat: bool,
    drained_since: Option<Moment>,
}

impl Board {
    pub fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Messages that arrived at subscribers.
    pub fn receipts(&self) -> i64 {
        self.publishes.iter().map(|publish| publish.receipts).sum()
    }

    /// A new client joins, under the number that its stream has in the trace; returns the one it has here.
    pub fn enrol(&mut self, id: u64) -> u32 {
        self.ids.push(id);
        self.received.push(Vec::new());
        self.received.len() as u32 - 1
    }

    /// A message about to be sent; its number is in its payload.
    pub fn publish(&mut self, by: u32, channel: TopicIndex, length: usize, is_datagram: bool) -> u32 {
        let sent = self.tick();
        let publish = Publish { channel, length, by, sent, answered: None, receivers: None, is_datagram, receipts: 0 };
        self.publishes.push(publish);
        self.publishes.len() as u32 - 1
    }

    pub fn payload(&self, message: u32) -> Vec<u8> {
        payload(message, self.publishes[message as usize].length)
    }

    pub fn answered(&mut self, message: u32, receivers: i64) {
        let now = self.tick();
        let publish = &mut self.publishes[message as usize];
        (publish.answered, publish.receivers) = (Some(now), Some(receivers));
    }

    pub fn subscribe(&mut self, client: u32, topic: TopicIndex) -> usize {
        let asked = self.tick();
        let leaving = self.drained_since;
        let window =
            Window { client, topic, asked, confirmed: None, leaving, left: None, is_settled: false, is_cut: false };
        self.windows.push(window);
        self.windows.len() - 1
    }

    /// A message came to a client that is subscribed to `topic`.
    pub fn receive(&mut self, client: u32, topic: TopicIndex, channel: &[u8], payload: &[u8]) -> Result<(), Violation> {
        let number = payload.strip_prefix(b"m").and_then(|rest| rest.split(|byte| *byte == b':').next());
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
        let Some(message) = number.filter(|number| (*number as usize) < self.publishes.len()) else {
            return Err(format!("client {client} received {}, which nobody sent", payload.escape_ascii()).into());
        };
        ensure(self.payload(message) == payload, || format!("client {client}: message {message} is garbled"))?;
        let publish = &mut self.publishes[message as usize];
        let name = TOPICS[publish.channel as usize].1;
        ensure(name.as_bytes() == channel && reaches(publish.channel, topic), || {
            format!("client {client}: message {message} to {name} came by {:?}", TOPICS[topic as usize])
        })?;
        publish.receipts += 1;
        let is_first = self.receipts.insert((client, message, topic));
        ensure(publish.is_datagram && self.datagrams_repeat || is_first, || {
            format!("client {client} received message {message} twice")
        })?;
        self.received[client as usize].push((message, topic));
        Ok(())
    }

    /// A client ended, by its own will or the server's.
    pub fn cut(&mut self, client: u32) {
        // What it was to have of a subscription that has ended, it has.
        let present = self.windows.iter_mut().filter(|window| window.client == client && !window.is_settled);
        present.for_each(|window| window.is_cut = true);
    }

    /// It has asked for the end of its connection: what was published before that it still gets.
    pub fn leave(&mut self, client: u32) {
        let now = self.tick();
        for window in self.windows.iter_mut().filter(|window| window.client == client) {
            window.leaving.get_or_insert(now);
        }
    }

    /// The loop has let go of a client's connection: it is subscribed to nothing any more.
    pub fn gone(&mut self, client: u32) {
        let now = self.tick();
        for window in self.windows.iter_mut().filter(|window| window.client == client) {
            window.left.get_or_insert(now);
        }
    }

    /// The loop was told to stop: subscribers may be closed from now on, but not before they have what was published until now.
    pub fn drain_begins(&mut self) {
        let now = self.tick();
        self.drained_since = Some(now);
        for window in &mut self.windows {
            window.leaving.get_or_insert(now);
        }
    }

    /// Everything is quiet: whoever is still there has received all that it ever will.
    pub fn judge(&self) -> Result<(), Violation> {
        let mut windows_of = BTreeMap::<(u32, TopicIndex), u32>::new();
        self.windows.iter().for_each(|window| *windows_of.entry((window.client, window.topic)).or_default() += 1);
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
                let (client, by) = (self.ids[window.client as usize], self.ids[publish.by as usize]);
                let topic = TOPICS[window.topic as usize];
                format!(
                    "client {client}, message {message} of client {by}, {:?} receivers, by {topic:?}",
                    publish.receivers
                )
            };
            // Of several windows for one topic another may be the one.
            let is_only = windows_of.get(&(window.client, window.topic)) == Some(&1);
            ensure(!(is_only && has_it && (is_before || is_after)), || format!("{}: was not subscribed", who()))?;
            ensure(!is_within || has_it || window.is_cut, || format!("{}: lost", who()))?;
            perhaps += i64::from(!is_before && !is_after);
            surely += i64::from(is_within && !window.is_cut);
            cut += i64::from(window.is_cut && !is_before && !is_after);
        }
        let Some(receivers) = publish.receivers.filter(|_| !publish.is_datagram) else { return Ok(()) };
        ensure((surely..=perhaps).contains(&receivers), || {
            format!("message {message}: {receivers} receivers, {surely} to {perhaps} are subscribed")
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
                "message {message} of client {by} to {channel}: {receivers} receivers, {receipts} receipts; subscribed were {who:?}, \
                 {cut} of them gone"
            )
        })
    }

    /// There is an order of all messages that agrees with what each client saw, and with the order in which each sent its own.
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
        for (publish, message) in self.publishes.iter().zip(0..).filter(|(publish, _)| publish.receipts > 0) {
            if let Some(before) = last_by.insert(publish.by, message) {
                add(before, message);
            }
        }
        let mut free: Vec<u32> = (0..count as u32).filter(|message| waits_for[*message as usize] == 0).collect();
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
            let stuck =
                waits_for.iter().zip(0..).filter(|(waits, _)| **waits > 0).map(|(_, message): (_, u32)| message);
            format!("messages {:?} came in different orders to different clients", stuck.collect::<Vec<_>>())
        })
    }
}

/// The text of a message: its number, and letters that follow from it.
fn payload(message: u32, length: usize) -> Vec<u8> {
    let mut text = format!("m{message}:").into_bytes();
    let letters = (0..).map(|place: u32| b'a' + (message.wrapping_mul(31).wrapping_add(place) % 26) as u8);
    text.extend(letters.take(length));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two subscribers of `a`, and as many messages, sent and answered; who received what is up to the test.
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
    fn what_all_receive_in_order_is_right_and_nothing_else() {
        let mut all = board(2);
        give(&mut all, 0, &[0, 1]).unwrap();
        give(&mut all, 1, &[0, 1]).unwrap();
        all.judge().unwrap();
        assert!(wrong(give(&mut all, 1, &[1])).contains("twice"));

        let mut lost = board(2);
        give(&mut lost, 0, &[0, 1]).unwrap();
        give(&mut lost, 1, &[0]).unwrap();
        assert!(wrong(lost.judge()).contains("message 1 of client 2, Some(2) receivers, by (Channel, \"a\"): lost"));
        lost.cut(1);
        lost.judge().unwrap();

        let mut swapped = board(2);
        give(&mut swapped, 0, &[0, 1]).unwrap();
        give(&mut swapped, 1, &[1, 0]).unwrap();
        assert!(wrong(swapped.judge()).contains("different orders"));

        let mut garbled = board(1);
        assert!(wrong(garbled.receive(0, 0, b"a", b"m0:xyz")).contains("garbled"));
        assert!(wrong(garbled.receive(0, 0, b"a", b"m7:abc")).contains("nobody sent"));
    }

    #[test]
    fn who_has_left_or_not_come_yet_receives_nothing() {
        let mut board = board(0);
        board.windows[1].leaving = Some(board.tick());
        board.windows[1].left = Some(board.tick());
        board.publish(2, 0, 0, false);
        board.answered(0, 2);
        give(&mut board, 0, &[0]).unwrap();
        assert!(wrong(board.judge()).contains("2 receivers, 1 to 1 are subscribed"));
        board.publishes[0].receivers = Some(1);
        board.judge().unwrap();
        give(&mut board, 1, &[0]).unwrap();
        assert!(wrong(board.judge()).contains("was not subscribed"));
    }
}

//! The shadow of the three nodes: what was published, what the broker has passed on, and what each
//! subscriber got. [`judge`](super::judge) compares them.
//!
//! The order in which the broker takes publishes is the truth. The witness of a node, a subscriber
//! of all channels that never leaves, shows which messages stayed on the node.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::board::Moment;
use super::super::{Violation, ensure};
use super::names::{NameIndex, is_shared, reaches, text};
use super::plan::NodesPlan;

/// The number of a message.
pub type MessageNumber = u32;

/// One publish.
pub struct SharedPublish {
    pub channel: NameIndex,
    length: usize,
    /// The life of a node that got it. `None`: a client of the broker published it.
    pub by: Option<usize>,
    /// The client that sent it.
    pub client: u32,
    pub sent: Moment,
    pub answered: Option<Moment>,
    /// The number of receivers in the answer. `None` with an answer: the queue was full.
    pub receivers: Option<i64>,
    /// When the broker took it, and by which link.
    pub at_broker: Option<(Moment, Option<usize>)>,
    /// True if the broker refused it.
    pub is_refused: bool,
    /// True if it was delivered on its node alone.
    pub is_local: bool,
}

/// A connection of a node to the broker, as the broker sees it.
#[derive(Default)]
pub struct LinkRecord {
    /// The life of the node.
    pub life: usize,
    pub opened: Moment,
    pub closed: Option<Moment>,
    /// When the first probe went back. The link comes up by it.
    pub proved: Option<Moment>,
    /// The times for which each name was subscribed.
    pub spans: BTreeMap<NameIndex, Vec<(Moment, Option<Moment>)>>,
    /// The messages sent on it, each with the name that it was sent for.
    pub sent: Vec<(NameIndex, MessageNumber)>,
    /// The same by name.
    pub streams: BTreeMap<NameIndex, Vec<MessageNumber>>,
    /// The place of each in `sent` and in the stream of its name.
    places: HashMap<(NameIndex, MessageNumber), (usize, usize)>,
    /// Messages on channels that are not shared, which nobody gets.
    pub useless: u64,
    /// Proofs of how many of `sent` the node has read: when, and how many.
    pub read: Vec<(Moment, usize)>,
}

impl LinkRecord {
    /// Returns the place of a message in the stream of a name.
    pub fn place(&self, name: NameIndex, message: MessageNumber) -> Option<usize> {
        self.places.get(&(name, message)).map(|(_, place)| *place)
    }

    /// Returns how many of the messages sent the node had certainly read by a moment.
    pub fn read_by(&self, moment: Moment) -> usize {
        let index = self.read.partition_point(|(at, _)| *at <= moment);
        self.read[..index].last().map_or(0, |(_, count)| *count)
    }

    /// Returns true if a node had certainly read a message by a moment.
    pub fn has_read(&self, name: NameIndex, message: MessageNumber, moment: Moment) -> bool {
        let place = self.places.get(&(name, message));
        place.is_some_and(|(place, _)| *place < self.read_by(moment))
    }
}

/// The life of a node, from its start to its end.
#[derive(Default)]
pub struct LifeRecord {
    /// The messages that stayed on the node, in their order.
    pub locals: Vec<MessageNumber>,
    /// True if its first link may have come up late.
    pub begins_late: bool,
    pub ended: Option<Moment>,
}

/// One subscription of a client.
pub struct SubscriptionRecord {
    pub client: u32,
    pub life: usize,
    pub name: NameIndex,
    /// True if the client's protocol has a form for a gap.
    pub tells_gaps: bool,
    pub is_witness: bool,
    pub asked: Moment,
    pub confirmed: Option<Moment>,
    /// When the client asked for the end, or left.
    pub leaving: Option<Moment>,
    pub left: Option<Moment>,
    /// True if messages under way to the client may be lost.
    pub is_cut: bool,
    pub received: Vec<MessageNumber>,
    pub gaps: Vec<Moment>,
}

/// The shadow of one run.
pub struct Shadow {
    pub plan: NodesPlan,
    now: Moment,
    pub publishes: Vec<SharedPublish>,
    /// The messages that the broker took, in their order.
    pub log: Vec<MessageNumber>,
    pub links: Vec<LinkRecord>,
    pub lives: Vec<LifeRecord>,
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Client, name, message.
    receipts: HashSet<(u32, NameIndex, MessageNumber)>,
}

impl Shadow {
    pub fn new(plan: NodesPlan) -> Shadow {
        Shadow {
            plan,
            now: 0,
            publishes: Vec::new(),
            log: Vec::new(),
            links: Vec::new(),
            lives: Vec::new(),
            subscriptions: Vec::new(),
            receipts: HashSet::new(),
        }
    }

    /// Counts up the logical time and returns it.
    pub fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn receipts(&self) -> usize {
        self.receipts.len()
    }

    /// Adds a message that a client is about to publish.
    pub fn publish(
        &mut self,
        by: Option<usize>,
        client: u32,
        channel: NameIndex,
        length: usize,
    ) -> MessageNumber {
        let sent = self.tick();
        self.publishes.push(SharedPublish {
            channel,
            length,
            by,
            client,
            sent,
            answered: None,
            receivers: None,
            at_broker: None,
            is_refused: false,
            is_local: false,
        });
        self.publishes.len() as MessageNumber - 1
    }

    /// Returns the payload of a message.
    pub fn payload(&self, message: MessageNumber) -> Vec<u8> {
        let mut payload = format!("m{message}:").into_bytes();
        payload.resize(payload.len() + self.publishes[message as usize].length, b'.');
        payload
    }

    /// Notes the answer to a publish.
    pub fn answered(&mut self, message: MessageNumber, receivers: Option<i64>) {
        let now = self.tick();
        let publish = &mut self.publishes[message as usize];
        (publish.answered, publish.receivers) = (Some(now), receivers);
    }

    /// Returns the message with a payload, which must be whole and on its channel.
    fn message(&self, channel: &[u8], payload: &[u8]) -> Result<MessageNumber, Violation> {
        let digits = payload.strip_prefix(b"m").and_then(|rest| rest.split(|b| *b == b':').next());
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let known =
            number.filter(|number: &MessageNumber| (*number as usize) < self.publishes.len());
        let message = known
            .ok_or_else(|| format!("a message that nobody sent: {}", payload.escape_ascii()))?;
        let name = text(self.publishes[message as usize].channel);
        ensure(self.payload(message) == payload && name.as_bytes() == channel, || {
            format!("message {message} to {name} is garbled: {}", channel.escape_ascii())
        })?;
        Ok(message)
    }

    /// Notes that the broker has got a message. It refuses some.
    pub fn reaches_broker(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        link: Option<usize>,
        is_refused: bool,
    ) -> Result<MessageNumber, Violation> {
        let now = self.tick();
        let message = self.message(channel, payload)?;
        let life = link.map(|link| self.links[link].life);
        let publish = &mut self.publishes[message as usize];
        ensure(publish.by == life, || format!("message {message} comes from another node"))?;
        ensure(publish.at_broker.is_none() && !publish.is_refused, || {
            format!("message {message} reaches the broker twice")
        })?;
        ensure(!publish.is_local, || {
            format!("message {message} was delivered on its node, and reaches the broker")
        })?;
        ensure(life.is_none() || is_shared(publish.channel, &self.plan), || {
            format!("message {message} to a channel of its node reaches the broker")
        })?;
        publish.is_refused = is_refused;
        if !is_refused {
            publish.at_broker = Some((now, link));
            self.log.push(message);
        }
        Ok(message)
    }

    /// Notes that the broker sends a message on a link, for one name.
    pub fn passed_on(&mut self, link: usize, name: NameIndex, message: MessageNumber) {
        let is_shared = is_shared(self.publishes[message as usize].channel, &self.plan);
        let record = &mut self.links[link];
        if !is_shared {
            record.useless += 1;
            return;
        }
        let stream = record.streams.entry(name).or_default();
        record.places.insert((name, message), (record.sent.len(), stream.len()));
        stream.push(message);
        record.sent.push((name, message));
    }

    /// Notes a message that a subscriber got.
    pub fn receive(
        &mut self,
        subscription: usize,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<(), Violation> {
        let now = self.tick();
        let message = self.message(channel, payload)?;
        let own = &mut self.subscriptions[subscription];
        let publish = &mut self.publishes[message as usize];
        let whom = format!("message {message}, client {}, {}", own.client, text(own.name));
        ensure(reaches(publish.channel, own.name), || format!("{whom}: not subscribed"))?;
        let is_first = self.receipts.insert((own.client, own.name, message));
        ensure(is_first, || format!("{whom}: received twice"))?;
        own.received.push(message);
        if publish.at_broker.is_none() {
            ensure(publish.by == Some(own.life), || format!("{whom}: it never was at the broker"))?;
            publish.is_local = true;
            if own.is_witness {
                self.lives[own.life].locals.push(message);
            }
            return Ok(());
        }
        ensure(!publish.is_local, || format!("{whom}: delivered by the node and the broker"))?;
        // A node has hung up its older connections before a newer one gets messages.
        let place = (own.name, message);
        let links = self.links.iter_mut().rev().filter(|link| link.life == own.life);
        let found = links.filter_map(|link| Some((*link.places.get(&place)?, link))).next();
        let Some(((place, _), link)) = found else {
            return Err(format!("{whom}: the broker has not sent it to the node").into());
        };
        if link.read.last().is_none_or(|(_, count)| *count <= place) {
            link.read.push((now, place + 1));
        }
        Ok(())
    }

    /// Adds a subscription that a client is about to ask for.
    pub fn subscribe(&mut self, record: SubscriptionRecord) -> usize {
        let asked = self.tick();
        self.subscriptions.push(SubscriptionRecord { asked, ..record });
        self.subscriptions.len() - 1
    }

    /// Notes that a client leaves, or that its node begins to stop.
    pub fn cut(&mut self, is_meant: impl Fn(&SubscriptionRecord) -> bool) {
        let now = self.tick();
        for own in self.subscriptions.iter_mut().filter(|own| own.left.is_none() && is_meant(own)) {
            own.leaving.get_or_insert(now);
            own.is_cut = true;
        }
    }

    /// Begins the life of a node. Its first link may come up late.
    pub fn begin_life(&mut self, begins_late: bool) -> usize {
        self.lives.push(LifeRecord { begins_late, ..LifeRecord::default() });
        self.lives.len() - 1
    }

    /// Notes a fault. It may strike nodes whose first link is not up yet.
    pub fn fault_begins(&mut self) {
        for (life, record) in self.lives.iter_mut().enumerate() {
            let mut own = self.links.iter().filter(|link| link.life == life);
            record.begins_late |= own.all(|link| link.proved.is_none());
        }
    }

    /// Ends the life of a node.
    pub fn end_life(&mut self, life: usize) {
        self.cut(|own| own.life == life);
        let now = self.tick();
        self.lives[life].ended = Some(now);
    }

    /// Adds a connection of a node to the broker.
    pub fn open_link(&mut self, life: usize) -> usize {
        let opened = self.tick();
        self.links.push(LinkRecord { life, opened, ..LinkRecord::default() });
        self.links.len() - 1
    }

    /// Notes the end of a link at the broker.
    pub fn close_link(&mut self, link: usize) {
        let now = self.tick();
        let record = &mut self.links[link];
        record.closed.get_or_insert(now);
        for (_, end) in record.spans.values_mut().flatten() {
            end.get_or_insert(now);
        }
    }

    /// Notes that a link has subscribed a name at the broker, or unsubscribed it.
    pub fn span(&mut self, link: usize, name: NameIndex, begins: bool) {
        let now = self.tick();
        let spans = self.links[link].spans.entry(name).or_default();
        match (spans.last_mut(), begins) {
            (Some((_, None)), true) | (None | Some((_, Some(_))), false) => {}
            (_, true) => spans.push((now, None)),
            (Some((_, end)), false) => *end = Some(now),
        }
    }

    /// Notes that the probe of a link went back to it.
    pub fn proved(&mut self, link: usize) {
        let now = self.tick();
        self.links[link].proved.get_or_insert(now);
    }
}

//! The link itself: its states, and what each event does to them.

mod answers;
mod calls;
mod restoring;

use std::collections::VecDeque;

pub use calls::KeptMessage;

use super::awaited::AwaitedReply;
use super::backoff::Backoff;
use super::connection::{LinkConnection, WirePhase};
use super::fault::{GreetingStep, LinkFault};
use super::greeting::Greeting;
use super::heard::{HeardReply, Replied, heard};
use super::names::WantedNames;
use super::{FromBroker, LinkEvent, LinkWire, Published, SharedKind};
use crate::broker_settings::{BrokerHost, BrokerSettings, BrokerUrl};
use crate::clock::Tick;
use crate::codec::resp::reader::{ReplyKind, ReplyLimits, ReplyStep};
use crate::codec::resp::{Protocol, bulk_length};
use crate::limits::{
    BROKER_CONNECT_TIME, BROKER_QUEUE_MAX, CHANNEL_NAME_MAX, DIALLED_INPUT_MAX, REPLY_LINE_MAX,
    REPLY_MAX,
};

/// Length of a PUBLISH on the wire without its channel and payload, in bytes.
const PUBLISH_LENGTH: usize = b"*3\r\n$7\r\nPUBLISH\r\n".len();

/// How far the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// No connection until this moment.
    Resting(Tick),
    /// A Sentinel is asked for the address of the broker.
    Asking,
    /// The handshake is under way.
    Greeting,
    /// The wanted names are being subscribed.
    Restoring,
    /// They are subscribed, and the first probe is on its way.
    Proving,
    Up,
}

/// Counts of events on the link since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Times that the link came up.
    pub ups: u64,
    /// Times that the link went down, or did not come up.
    pub failures: u64,
    /// Publishes that went to the broker.
    pub published: u64,
    /// Publishes while the link was down.
    pub local: u64,
    /// Publishes that were dropped because too much waited to be sent.
    pub dropped: u64,
    /// Publishes without a reply when the link went down. The broker may have had them or not.
    pub lost: u64,
    /// Publishes that the broker refused.
    pub refused: u64,
    /// Names that the broker refused to subscribe.
    pub refused_names: u64,
    /// Messages from the broker.
    pub received: u64,
    /// Messages from the broker that were dropped because they were too long.
    pub too_long: u64,
}

/// The link to a broker.
pub struct Link {
    settings: BrokerSettings,
    /// The prefix of patterns: it matches the prefix of channels and nothing else.
    pattern_prefix: Box<[u8]>,
    /// The channel of the probe as it is at the broker.
    probe_channel: Box<[u8]>,
    /// The number of the last probe, and when it must be back. Without such a time, it is back.
    probe: u64,
    probe_back_by: Option<Tick>,
    next_probe: Tick,
    random: fastrand::Rng,
    now: Tick,
    state: LinkState,
    protocol: Protocol,
    connections: [LinkConnection; 2],
    names: WantedNames,
    /// SUBSCRIBE commands on this connection, and those of them that are confirmed.
    subscriptions: (u64, u64),
    backoff: Backoff,
    /// The URL in use, and the Sentinel of it.
    url: usize,
    sentinel: usize,
    /// The host dialled last: the broker, or a Sentinel.
    host: Option<BrokerHost>,
    /// True if subscribers are told of a gap when the link is up again.
    gap: bool,
    events: VecDeque<LinkEvent>,
    counters: LinkCounters,
}

impl Link {
    /// Creates a link, which dials at once. The seed must differ between servers: it names the
    /// channel of the probe.
    pub fn new(settings: BrokerSettings, seed: u64, now: Tick) -> Link {
        let mut random = fastrand::Rng::with_seed(seed);
        let prefix = settings.prefix.0.as_bytes();
        let probe_channel = format!("{}slabd:probe:{:016x}", settings.prefix, random.u64(..));
        let limits = ReplyLimits {
            kept_max: (settings.max_message + 2 * CHANNEL_NAME_MAX + REPLY_LINE_MAX)
                .min(DIALLED_INPUT_MAX - (1 << 20)),
            announced_max: REPLY_MAX,
        };
        let mut link = Link {
            pattern_prefix: escaped(prefix),
            settings,
            probe_channel: probe_channel.into_bytes().into(),
            probe: 0,
            probe_back_by: None,
            next_probe: now,
            random,
            now,
            state: LinkState::Resting(now),
            protocol: Protocol::Resp3,
            connections: [LinkConnection::new(limits), LinkConnection::new(limits)],
            names: WantedNames::default(),
            subscriptions: (0, 0),
            backoff: Backoff::default(),
            url: 0,
            sentinel: 0,
            host: None,
            gap: false,
            events: VecDeque::new(),
            counters: LinkCounters::default(),
        };
        link.dial();
        link
    }

    /// Returns true while publishes go to the broker.
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Returns the host that was dialled last, for the log.
    pub fn host(&self) -> String {
        self.host.as_ref().map_or_else(String::new, BrokerHost::to_string)
    }

    /// Returns true if a name is that of the probe, maybe behind the prefixes of other servers.
    pub fn is_own_probe(&self, name: &[u8]) -> bool {
        name.ends_with(&self.probe_channel)
    }

    /// Handles the news that the broker is a client of this server, maybe through other servers.
    /// Messages would go round without end.
    pub fn handle_circle(&mut self, now: Tick) {
        self.now = now;
        if !matches!(self.state, LinkState::Resting(_)) {
            self.fail(LinkFault::Circle);
        }
    }

    /// Returns true if the broker refuses messages of a channel to this server. They would not come
    /// back.
    pub fn refuses(&self, channel: &[u8]) -> bool {
        self.counters.refused_names > 0 && self.names.is_refused(SharedKind::Channel, channel)
    }

    /// Returns the number of names that are subscribed at the broker, or are to be.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Returns the bytes that wait to be sent on a connection.
    pub fn queued(&self, wire: LinkWire) -> usize {
        self.connections[wire as usize].output.len()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let connections: usize = self.connections.iter().map(LinkConnection::bytes).sum();
        let events = self.events.capacity() * size_of::<LinkEvent>();
        self.names.bytes() + connections + events
    }

    /// Frees unused memory.
    pub fn shrink(&mut self) {
        self.names.shrink();
    }

    /// Wants a channel or pattern from now on. It may be wanted already.
    pub fn subscribe(&mut self, kind: SharedKind, name: &[u8]) {
        self.names.want(kind, name);
    }

    /// Wants a channel or pattern no more. The broker is told some seconds later.
    pub fn unsubscribe(&mut self, kind: SharedKind, name: &[u8], now: Tick) {
        self.now = now;
        self.names.unwant(kind, name, now);
    }

    /// Publishes a message. The names that were wanted before are subscribed before.
    pub fn publish(&mut self, channel: &[u8], payload: &[u8]) -> Published {
        let name = self.settings.prefix.0.len() + channel.len();
        let length = PUBLISH_LENGTH + bulk_length(name) + bulk_length(payload.len());
        let admitted = self.admit(channel, length);
        if admitted != Published::Sent {
            return admitted;
        }
        let prefix = self.settings.prefix.0.as_bytes();
        let connection = &mut self.connections[0];
        connection.output.begin(3);
        connection.output.word(&[b"PUBLISH"]);
        connection.output.word(&[prefix, channel]);
        connection.output.word(&[payload]);
        connection.awaited.push_publish();
        self.counters.published += 1;
        Published::Sent
    }

    /// Returns whether a publish of this length goes to the broker. If so, the names that were
    /// wanted before are subscribed before.
    fn admit(&mut self, channel: &[u8], length: usize) -> Published {
        let is_up = self.state == LinkState::Up;
        if !is_up || self.refuses(channel) {
            self.counters.local += 1;
            self.gap |= !is_up;
            return Published::StaysHere;
        }
        self.write_names();
        let output = &mut self.connections[0].output;
        let waiting = output.len();
        // A message that is larger than the whole queue goes alone.
        let fits = waiting == 0 || waiting + length <= BROKER_QUEUE_MAX;
        if !fits || self.names.has_changes() {
            self.counters.dropped += 1;
            return Published::QueueFull;
        }
        let (written, confirmed) = self.subscriptions;
        if self.protocol == Protocol::Resp2 && confirmed < written {
            output.hold(written);
        }
        Published::Sent
    }

    /// Returns the bytes to send on a connection. The owner takes them only while the connection
    /// has no other bytes waiting, so that the bound of the queue holds.
    pub fn output(&mut self, wire: LinkWire, now: Tick) -> &[u8] {
        self.now = now;
        self.write_names();
        let connection = &mut self.connections[wire as usize];
        if connection.is_open() {
            connection.expect_answer(now);
        }
        connection.output.front()
    }

    /// Removes bytes that have been sent.
    pub fn consume_output(&mut self, wire: LinkWire, length: usize) {
        let connection = &mut self.connections[wire as usize];
        connection.output.consume(length);
        if connection.is_open() && length > 0 {
            // A large command takes its time.
            connection.note_answer(self.now);
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let rest = match self.state {
            LinkState::Resting(until) => Some(until),
            LinkState::Up if self.probe_back_by.is_none() => Some(self.next_probe),
            _ => self.probe_back_by,
        };
        let answers = self.connections.iter().filter_map(|connection| connection.answer_by);
        let times = answers.chain(rest).chain(self.names.leaves_at());
        times.min_by_key(|time| time.distance_from(self.now))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.now = now;
        let is_due = |time: Tick| time.distance_from(now) <= 0;
        self.names.leave(now);
        if let LinkState::Resting(until) = self.state {
            if is_due(until) {
                self.dial();
            }
            return;
        }
        let late = self.connections.iter().find(|one| one.answer_by.is_some_and(is_due));
        match late.map(|connection| connection.phase) {
            Some(WirePhase::Dialling) => return self.fail(LinkFault::ConnectTimeout),
            Some(_) => return self.fail(LinkFault::NoReply),
            None => {}
        }
        if self.probe_back_by.is_some_and(is_due) {
            return self.fail(LinkFault::Deaf);
        }
        let is_quiet = self.state == LinkState::Up && self.probe_back_by.is_none();
        if is_quiet && is_due(self.next_probe) {
            self.send_probe();
        }
    }

    /// Handles the success of a dial.
    pub fn handle_connected(&mut self, wire: LinkWire, now: Tick) {
        self.now = now;
        let connection = &mut self.connections[wire as usize];
        if connection.phase != WirePhase::Dialling {
            return;
        }
        connection.phase = WirePhase::Greeting;
        connection.answer_by = None;
        match self.state {
            LinkState::Asking => self.greet(wire, GreetingStep::MasterAddress),
            _ => self.greet_after(wire, None),
        }
    }

    /// Handles the failure of a dial.
    pub fn handle_failed(&mut self, wire: LinkWire, error: &str, now: Tick) {
        self.now = now;
        if self.connections[wire as usize].phase == WirePhase::Dialling {
            self.connections[wire as usize].close();
            self.fail(LinkFault::NotConnected(error.into()));
        }
    }

    /// Handles the end of a connection.
    pub fn handle_closed(&mut self, wire: LinkWire, now: Tick) {
        self.now = now;
        if self.connections[wire as usize].is_open() {
            self.connections[wire as usize].phase = WirePhase::Closed;
            self.fail(LinkFault::Closed);
        }
    }

    /// Reads one reply at the front of the input. Returns the number of bytes used, and what it
    /// brings to the owner. The owner calls it again with the rest until it uses none. Those bytes
    /// it passes again, with more behind them.
    pub fn handle_input<'i>(
        &mut self,
        wire: LinkWire,
        input: &'i [u8],
        now: Tick,
    ) -> (usize, Option<FromBroker<'i>>) {
        self.now = now;
        let listens = wire == self.listening();
        let arrays_are_pushes = self.protocol == Protocol::Resp2 && listens;
        let connection = &mut self.connections[wire as usize];
        if !connection.is_open() {
            return (input.len(), None);
        }
        let is_call_next = connection.awaited.is_call_next();
        let mut items = Vec::new();
        let (heard, used) = match connection.reader.read(input) {
            Ok(ReplyStep::Incomplete(useless)) => return (useless, None),
            Ok(ReplyStep::Whole(reply, used)) => {
                let heard = heard(&reply, arrays_are_pushes);
                if is_call_next && matches!(heard, Some(HeardReply::Replied(_))) {
                    items = calls::items(&reply);
                }
                (heard, used)
            }
            Ok(ReplyStep::Dropped(kind, used)) => {
                let is_message =
                    kind == ReplyKind::Push || kind == ReplyKind::Array && arrays_are_pushes;
                self.counters.too_long += u64::from(is_message);
                let heard = match is_message {
                    true => HeardReply::Other,
                    false => HeardReply::Replied(Replied::TooLong),
                };
                (Some(heard), used)
            }
            Err(error) => {
                self.fail(LinkFault::Malformed(error));
                return (input.len(), None);
            }
        };
        let taken = match heard {
            _ if !listens && !matches!(heard, Some(HeardReply::Replied(_))) => {
                Err(LinkFault::Unexpected)
            }
            None => Err(LinkFault::Unexpected),
            Some(HeardReply::Message(arrival)) => {
                Ok(self.take_message(arrival).map(FromBroker::Message))
            }
            Some(HeardReply::Confirmed { kind, subscribes, name }) => {
                self.take_confirmation(kind, subscribes, name).map(|()| None)
            }
            Some(HeardReply::Replied(answer)) => self.take_answer(wire, answer, items),
            Some(HeardReply::Other) => Ok(None),
        };
        match taken {
            Ok(taken) => {
                if self.connections[wire as usize].is_open() {
                    self.connections[wire as usize].note_answer(now);
                }
                (used, taken)
            }
            Err(fault) => {
                self.fail(fault);
                (input.len(), None)
            }
        }
    }

    /// Returns the connection that carries the subscriptions.
    fn listening(&self) -> LinkWire {
        match self.protocol {
            Protocol::Resp3 => LinkWire::First,
            Protocol::Resp2 => LinkWire::Second,
        }
    }

    /// Returns the URL in use.
    fn target(&self) -> Option<&BrokerUrl> {
        self.settings.urls.get(self.url)
    }

    /// Dials the broker, or a Sentinel of it.
    fn dial(&mut self) {
        self.protocol = Protocol::Resp3;
        let Some(url) = self.target() else { return };
        let is_sentinel = url.master.is_some();
        let Some(host) = url.hosts.get(self.sentinel % url.hosts.len().max(1)).cloned() else {
            return;
        };
        self.state = if is_sentinel { LinkState::Asking } else { LinkState::Greeting };
        self.dial_host(LinkWire::First, host);
    }

    fn dial_host(&mut self, wire: LinkWire, host: BrokerHost) {
        self.connections[wire as usize].dial(self.now);
        self.host = Some(host.clone());
        let BrokerHost { host, port } = host;
        self.events.push_back(LinkEvent::Dial { wire, host, port, timeout: BROKER_CONNECT_TIME });
    }

    /// Writes a command of the handshake.
    fn greet(&mut self, wire: LinkWire, step: GreetingStep) {
        let Link { settings, url, protocol, connections, .. } = self;
        let Some(url) = settings.urls.get(*url) else { return };
        let connection = &mut connections[wire as usize];
        greeting(settings, url, *protocol).write(step, &mut connection.output);
        connection.awaited.push(AwaitedReply::Greeting(step));
    }

    /// Writes the next command of the handshake, or ends it.
    fn greet_after(&mut self, wire: LinkWire, step: Option<GreetingStep>) {
        let Some(url) = self.target() else { return };
        match greeting(&self.settings, url, self.protocol).after(step, wire) {
            Some(next) => self.greet(wire, next),
            None => {
                self.connections[wire as usize].phase = WirePhase::Ready;
                let is_ready =
                    |wire: LinkWire| self.connections[wire as usize].phase == WirePhase::Ready;
                if is_ready(LinkWire::First) && is_ready(self.listening()) {
                    self.restore();
                }
            }
        }
    }
}

/// Returns the handshake with a broker.
fn greeting<'a>(
    settings: &'a BrokerSettings,
    url: &'a BrokerUrl,
    protocol: Protocol,
) -> Greeting<'a> {
    let password = url.password.as_ref().or(settings.password.as_ref());
    Greeting { url, password: password.map(|secret| &*secret.0), protocol }
}

/// Returns a pattern that matches a text and nothing else.
fn escaped(text: &[u8]) -> Box<[u8]> {
    let mut pattern = Vec::with_capacity(text.len());
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.into()
}

#[cfg(test)]
impl Link {
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    pub fn probe_channel(&self) -> [Vec<u8>; 1] {
        [self.probe_channel.to_vec()]
    }

    /// Returns the names that the broker has confirmed: 0 and a channel, or 1 and a pattern.
    pub fn subscribed(&self) -> std::collections::BTreeSet<(u8, Vec<u8>)> {
        let kinds = [(0, SharedKind::Channel), (1, SharedKind::Pattern)];
        let names = |(number, kind)| {
            let all = self.names.subscribed(kind).into_iter();
            all.map(move |name| (number, name.to_vec()))
        };
        kinds.into_iter().flat_map(names).collect()
    }
}

//! The effects of replies and of failures on the link.

use super::super::awaited::AwaitedReply;
use super::super::connection::WirePhase;
use super::super::fault::LinkFault;
use super::super::greeting::{Greeted, greeted, shown_code};
use super::super::heard::Replied;
use super::super::names::NameBatch;
use super::super::notices::NOTICES;
use super::super::{Arrival, CallAnswer, CallReply, FromBroker, LinkEvent, LinkWire, SharedKind};
use super::{Link, LinkState};
use crate::broker_settings::BrokerHost;
use crate::codec::resp::Protocol;
use crate::limits::BROKER_EVENTS_MAX;

/// The codes of errors to a PUBLISH that say that the link needs another server, or a new login.
const WRONG_BROKER: [&[u8]; 7] =
    [b"READONLY", b"MOVED", b"ASK", b"NOAUTH", b"LOADING", b"MASTERDOWN", b"CLUSTERDOWN"];

/// Texts in errors to a script that the broker will never run. Older brokers put the error of a
/// command of the script behind a code of their own.
const NEVER: [&[u8]; 4] = [
    b"unknown command",
    b"Unknown Redis command",
    b"NOPERM",
    b"The user executing the script can't",
];

/// Returns the reply to a script that the broker has refused.
fn refused<'i>(code: &[u8], text: &[u8]) -> CallReply<'i> {
    let says = |words: &&[u8]| text.windows(words.len()).any(|part| part == *words);
    CallReply::Refused { code: shown_code(code), is_final: NEVER.iter().any(says) }
}

impl Link {
    /// Takes a message of a subscription. Returns it without the prefix, unless it is a probe.
    pub(super) fn take_message<'i>(&mut self, arrival: Arrival<'i>) -> Option<Arrival<'i>> {
        if arrival.kind == SharedKind::Channel && *arrival.topic == *self.probe_channel {
            self.take_probe(arrival.payload);
            return None;
        }
        let topic = self.without_prefix(arrival.kind, arrival.topic)?;
        let channel = self.without_prefix(SharedKind::Channel, arrival.channel)?;
        // The probes and notices of all servers match the pattern of a star.
        let is_notice = arrival.kind == SharedKind::Pattern && channel.starts_with(NOTICES);
        if channel.starts_with(b"slabd:probe:") || is_notice {
            return None;
        }
        self.counters.received += 1;
        Some(Arrival { topic, channel, ..arrival })
    }

    /// Returns a name of the broker without the prefix.
    fn without_prefix<'i>(&self, kind: SharedKind, name: &'i [u8]) -> Option<&'i [u8]> {
        name.strip_prefix(self.prefix(kind))
    }

    pub(super) fn prefix(&self, kind: SharedKind) -> &[u8] {
        match kind {
            SharedKind::Channel => self.settings.prefix.0.as_bytes(),
            SharedKind::Pattern => &self.pattern_prefix,
        }
    }

    /// Takes the confirmation of a name. They come in the order of the names in the commands.
    pub(super) fn take_confirmation(
        &mut self,
        kind: SharedKind,
        subscribes: bool,
        name: &[u8],
    ) -> Result<(), LinkFault> {
        let listening = self.listening();
        let own = self.without_prefix(kind, name);
        let Link { connections, names, probe_channel, .. } = self;
        let awaited = &mut connections[listening as usize].awaited;
        match awaited.front_mut() {
            Some(AwaitedReply::ProbeChannel) if subscribes && *name == **probe_channel => {
                awaited.pop();
            }
            Some(AwaitedReply::Names(batch))
                if (batch.kind, batch.subscribes) == (kind, subscribes) =>
            {
                let place = batch.places.get(batch.confirmed).copied();
                let Some(place) = place.filter(|place| names.name(*place).map(|n| &**n) == own)
                else {
                    return Err(LinkFault::Unexpected);
                };
                batch.confirmed += 1;
                let is_whole = batch.confirmed == batch.places.len();
                names.confirm(place, subscribes);
                if is_whole {
                    awaited.pop();
                    self.note_confirmed(subscribes);
                }
            }
            _ => return Err(LinkFault::Unexpected),
        }
        self.prove_if_restored();
        Ok(())
    }

    /// Counts a SUBSCRIBE as answered. Publishes may have waited for it.
    fn note_confirmed(&mut self, subscribes: bool) {
        if subscribes {
            self.subscriptions.1 += 1;
            self.connections[LinkWire::First as usize].output.release(self.subscriptions.1);
        }
    }

    /// Takes the reply to a command. Returns the one to a script of the owner, whose items these
    /// are.
    pub(super) fn take_answer<'i>(
        &mut self,
        wire: LinkWire,
        answer: Replied<'i>,
        items: Vec<Option<&'i [u8]>>,
    ) -> Result<Option<FromBroker<'i>>, LinkFault> {
        let awaited = self.connections[wire as usize].awaited.pop();
        match (awaited.ok_or(LinkFault::Unexpected)?, answer) {
            (AwaitedReply::Greeting(step), answer) => match greeted(step, answer)? {
                Greeted::Next => self.greet_after(wire, Some(step)),
                Greeted::Older => {
                    self.protocol = Protocol::Resp2;
                    self.greet_after(wire, Some(step));
                    if let Some(host) = self.host.clone() {
                        self.dial_host(LinkWire::Second, host);
                    }
                }
                Greeted::Master(host) => self.dial_master(host),
            },
            (
                AwaitedReply::Publishes(_) | AwaitedReply::KeptPublish(_) | AwaitedReply::Probe,
                Replied::Integer,
            ) => {}
            (AwaitedReply::Publishes(_), Replied::Error { code, .. }) => {
                self.counters.refused += 1;
                if WRONG_BROKER.contains(&code) {
                    return Err(LinkFault::WrongBroker(shown_code(code)));
                }
            }
            (AwaitedReply::KeptPublish(number), Replied::Error { code, text }) => {
                self.counters.refused += 1;
                if WRONG_BROKER.contains(&code) {
                    return Err(LinkFault::WrongBroker(shown_code(code)));
                }
                let reply = refused(code, text);
                return Ok(Some(FromBroker::Answer(CallAnswer { number, reply })));
            }
            (AwaitedReply::Publishes(_) | AwaitedReply::KeptPublish(_), _) => {
                self.counters.lost += 1;
                return Err(LinkFault::Unexpected);
            }
            (AwaitedReply::Probe, Replied::Error { code, .. }) => {
                return Err(LinkFault::WrongBroker(shown_code(code)));
            }
            (AwaitedReply::Call(_), Replied::Error { code, .. })
                if WRONG_BROKER.contains(&code) =>
            {
                return Err(LinkFault::WrongBroker(shown_code(code)));
            }
            (AwaitedReply::Call(number), answer) => {
                let reply = match answer {
                    Replied::Error { code, text } => refused(code, text),
                    Replied::TooLong => CallReply::TooLong,
                    _ => CallReply::Items(items),
                };
                return Ok(Some(FromBroker::Answer(CallAnswer { number, reply })));
            }
            (AwaitedReply::ProbeChannel, Replied::Error { code, .. }) => {
                return Err(LinkFault::ProbeRefused(shown_code(code)));
            }
            (AwaitedReply::Names(batch), Replied::Error { code, .. })
                if batch.subscribes && code == b"NOPERM" =>
            {
                self.take_refusal(&batch, code);
                self.prove_if_restored();
            }
            _ => return Err(LinkFault::Unexpected),
        }
        Ok(None)
    }

    /// Takes the refusal of the names of a command that are not confirmed.
    fn take_refusal(&mut self, batch: &NameBatch, code: &[u8]) {
        self.note_confirmed(true);
        let Some(name) = batch.places.first().and_then(|place| self.names.name(*place)).cloned()
        else {
            return;
        };
        if self.names.refuse(batch).is_none() {
            return;
        }
        self.counters.refused_names += 1;
        if self.events.len() < BROKER_EVENTS_MAX {
            let (kind, name, code) = (batch.kind, (&*name).into(), shown_code(code));
            self.events.push_back(LinkEvent::Refused { kind, name, code });
        }
    }

    /// Connects to the master that a Sentinel has named.
    fn dial_master(&mut self, host: BrokerHost) {
        self.connections[LinkWire::First as usize].close();
        self.events.push_back(LinkEvent::HangUp { wire: LinkWire::First });
        self.state = LinkState::Greeting;
        self.dial_host(LinkWire::First, host);
    }

    /// Ends all connections. The link dials again after a while.
    pub(super) fn fail(&mut self, fault: LinkFault) {
        for wire in LinkWire::ALL {
            let connection = &mut self.connections[wire as usize];
            if connection.phase != WirePhase::Closed {
                self.events.push_back(LinkEvent::HangUp { wire });
            }
            // The broker may have had them or not.
            self.counters.lost += connection.awaited.publishes();
            connection.close();
        }
        self.counters.failures += 1;
        self.gap = true;
        self.names.disconnect();
        self.subscriptions = (0, 0);
        self.probe_back_by = None;
        let was_up = self.state == LinkState::Up;
        if !was_up {
            self.try_next_host();
        }
        let wait = self.backoff.next(&mut self.random);
        self.state = LinkState::Resting(self.now.plus(wait));
        self.events.push_back(match was_up {
            true => LinkEvent::Down(fault),
            false => LinkEvent::Failed(fault),
        });
    }

    /// Chooses the next Sentinel of a URL, or the next URL.
    fn try_next_host(&mut self) {
        let sentinels = self.target().map_or(0, |url| url.hosts.len());
        self.sentinel += 1;
        if self.sentinel >= sentinels {
            self.sentinel = 0;
            self.url = (self.url + 1) % self.settings.urls.len().max(1);
        }
    }
}

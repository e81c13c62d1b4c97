//! From the handshake to a link that is up: subscribes the wanted names, and sends probes.

use super::super::awaited::AwaitedReply;
use super::super::connection::WirePhase;
use super::super::{LinkEvent, LinkWire, SharedKind};
use super::{Link, LinkState};
use crate::clock::Tick;
use crate::limits::{
    BROKER_PROBE_EVERY, BROKER_QUEUE_MAX, BROKER_REPLY_TIME, BROKER_RESTORE_BYTES,
};

impl Link {
    /// Begins to subscribe the wanted names, the channel of the probe first.
    pub(super) fn restore(&mut self) {
        self.state = LinkState::Restoring;
        let listening = self.listening();
        let Link { connections, probe_channel, .. } = self;
        let connection = &mut connections[listening as usize];
        connection.output.command(&[b"SUBSCRIBE", probe_channel]);
        connection.awaited.push(AwaitedReply::ProbeChannel);
    }

    /// Writes the commands for names that the broker has not been told of.
    pub(super) fn write_names(&mut self) {
        let most = match self.state {
            LinkState::Restoring => BROKER_RESTORE_BYTES,
            LinkState::Proving | LinkState::Up => BROKER_QUEUE_MAX,
            _ => return,
        };
        let listening = self.listening();
        let Link { connections, names, settings, pattern_prefix, .. } = self;
        let connection = &mut connections[listening as usize];
        while names.has_changes() && connection.output.len() < most {
            let Some(batch) = names.next_batch() else { return };
            let (word, prefix): (&[u8], &[u8]) = match (batch.kind, batch.subscribes) {
                (SharedKind::Channel, true) => (b"SUBSCRIBE", settings.prefix.0.as_bytes()),
                (SharedKind::Channel, false) => (b"UNSUBSCRIBE", settings.prefix.0.as_bytes()),
                (SharedKind::Pattern, true) => (b"PSUBSCRIBE", pattern_prefix),
                (SharedKind::Pattern, false) => (b"PUNSUBSCRIBE", pattern_prefix),
            };
            connection.output.begin(1 + batch.places.len());
            connection.output.word(&[word]);
            for name in batch.places.iter().filter_map(|place| names.name(*place)) {
                connection.output.word(&[prefix, name]);
            }
            self.subscriptions.0 += u64::from(batch.subscribes);
            connection.awaited.push(AwaitedReply::Names(batch));
        }
    }

    /// Sends the first probe once all names are confirmed or refused.
    pub(super) fn prove_if_restored(&mut self) {
        if self.state != LinkState::Restoring {
            return;
        }
        self.write_names();
        let listening = &self.connections[self.listening() as usize];
        if !self.names.has_changes() && listening.awaited.is_empty() {
            self.state = LinkState::Proving;
            self.send_probe();
        }
    }

    /// Publishes a probe, which must come back.
    pub(super) fn send_probe(&mut self) {
        self.probe += 1;
        self.probe_back_by = Some(self.now.plus(Tick::count(BROKER_REPLY_TIME)));
        let number = self.probe.to_string();
        let Link { connections, probe_channel, .. } = self;
        let connection = &mut connections[LinkWire::First as usize];
        connection.output.command(&[b"PUBLISH", probe_channel, number.as_bytes()]);
        connection.awaited.push(AwaitedReply::Probe);
    }

    /// Takes a probe that has come back. Older ones say nothing about this connection.
    pub(super) fn take_probe(&mut self, payload: &[u8]) {
        if self.probe_back_by.is_none() || payload != self.probe.to_string().as_bytes() {
            return;
        }
        self.probe_back_by = None;
        self.next_probe = self.now.plus(Tick::count(BROKER_PROBE_EVERY));
        if self.state != LinkState::Proving {
            return;
        }
        self.state = LinkState::Up;
        self.backoff.reset();
        self.counters.ups += 1;
        self.events.push_back(LinkEvent::Up);
        if std::mem::take(&mut self.gap) {
            self.events.push_back(LinkEvent::Gap);
        }
    }

    /// Panics if the link has broken its own invariants. For tests.
    pub fn check_invariants(&self) {
        self.names.check_invariants();
        let (written, confirmed) = self.subscriptions;
        assert!(confirmed <= written);
        let phases = self.connections.each_ref().map(|connection| connection.phase);
        match self.state {
            LinkState::Resting(_) => assert_eq!(phases, [WirePhase::Closed; 2]),
            LinkState::Asking | LinkState::Greeting => {
                assert_ne!(phases[0], WirePhase::Closed);
                assert!(self.probe_back_by.is_none());
            }
            LinkState::Restoring | LinkState::Proving | LinkState::Up => {
                assert_eq!(phases[0], WirePhase::Ready);
                assert_eq!(phases[self.listening() as usize], WirePhase::Ready);
            }
        }
        for connection in &self.connections {
            let is_closed = connection.phase == WirePhase::Closed;
            assert!(!is_closed || connection.answer_by.is_none());
            assert!(!is_closed || connection.awaited.is_empty() && connection.output.len() == 0);
        }
        assert_eq!(self.state == LinkState::Proving, self.probe_back_by.is_some() && !self.is_up());
    }
}

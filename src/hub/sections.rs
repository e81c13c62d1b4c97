//! The hub's own metrics, section by section. Nothing here walks all sessions.

use super::broker::LinkCounters;
use super::cluster::ClusterCounters;
use super::sessions::PeerProtocol;
use super::shared_values::ValueCounters;
use super::sharing::Sharing;
use super::{Hub, Shared};
use crate::metrics::MetricKind::Gauge;
use crate::metrics::MetricUnit::{Bytes, Connections, Count, Datagrams, Messages};
use crate::metrics::{self, MetricSection, Metrics};

const SECTIONS: [MetricSection<Shared>; 5] = [
    ("pubsub", subscriptions),
    ("retained", retained),
    ("socketio", socketio),
    ("broker", broker),
    ("passwords", passwords),
];

impl Hub {
    /// Computes all sections.
    pub fn metrics(&self) -> Vec<Metrics> {
        self.shared.metrics(&|_| true)
    }
}

impl Shared {
    /// Computes the sections whose titles are wanted.
    pub(super) fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        metrics::compute(self, &SECTIONS, wanted)
    }
}

fn passwords(shared: &Shared, metrics: &mut Metrics) {
    let guesses = &shared.access.guesses;
    metrics.gauges([(
        "unauthenticated_clients",
        Connections,
        guesses.len() as u64,
        "Sessions that were refused a command because they have not sent the password.",
    )]);
    let help = "Wrong passwords, by connection or datagram.";
    metrics.counters([("wrong_passwords", Count, guesses.wrong, help)]);
}

fn socketio(shared: &Shared, metrics: &mut Metrics) {
    let Shared { polls, socketio, .. } = shared;
    metrics.gauges([
        ("polling_clients", Count, polls.len() as u64, "Clients of Socket.IO that poll."),
        ("polls_bytes", Bytes, polls.bytes() as u64, "Memory of the output that waits for polls."),
    ]);
    metrics.counters([
        ("socketio_events", Messages, socketio.events, "Events from clients of Socket.IO."),
        (
            "socketio_refused",
            Messages,
            socketio.refused,
            "Events without a route, or refused by a route or verb.",
        ),
        (
            "socketio_upgrades",
            Count,
            socketio.upgrades,
            "Clients of Socket.IO that changed from polling to WebSocket.",
        ),
        (
            "socketio_recycled",
            Count,
            socketio.recycled,
            "Clients that made room for newcomers: they had no namespace, or had stopped to poll.",
        ),
    ]);
}

/// Without a broker, all are zero.
fn broker(shared: &Shared, metrics: &mut Metrics) {
    let sharing = shared.sharing.as_deref();
    let [is_up, names, queued, dropped_here] = sharing.map_or([0; 4], Sharing::gauges);
    metrics.gauges([
        ("broker_up", Count, is_up, "1 while the link to the broker is up."),
        ("broker_names", Count, names, "Channels and patterns wanted at the broker."),
        ("broker_queued_bytes", Bytes, queued, "Commands that wait to be sent to the broker."),
    ]);
    let own = sharing.map_or_else(LinkCounters::default, |sharing| *sharing.link.counters());
    metrics.counters([
        ("broker_ups", Count, own.ups, "Times that the link came up."),
        ("broker_failures", Count, own.failures, "Times that the link went or stayed down."),
        ("broker_published", Messages, own.published, "Publishes that went to the broker."),
        ("broker_local", Messages, own.local, "Publishes that stayed here, as the link was down."),
        ("broker_dropped", Messages, own.dropped, "Publishes refused because the queue was full."),
        ("broker_lost", Messages, own.lost, "Publishes without a reply when the link went down."),
        ("broker_refused", Messages, own.refused, "Publishes that the broker refused."),
        ("broker_refused_names", Count, own.refused_names, "Names that the broker refused."),
        ("broker_received", Messages, own.received, "Messages from the broker."),
        ("broker_too_long", Messages, own.too_long, "Messages from the broker above the limit."),
        ("broker_overrun", Messages, dropped_here, "Messages that came faster than they left."),
    ]);
    let own = sharing.map_or_else(ValueCounters::default, |sharing| sharing.values.counters);
    let adopted = "Retained values of other publishers that were written to the broker.";
    let unadopted = "Such values that had no room on the way to the broker.";
    let read_back = "Retained values changed to those of the broker after an outage.";
    metrics.counters([
        ("broker_values_written", Messages, own.written, "Retained values sent to the broker."),
        ("broker_values_adopted", Messages, own.adopted, adopted),
        ("broker_values_unadopted", Messages, own.unadopted, unadopted),
        ("broker_values_read_back", Messages, own.read_back, read_back),
        ("broker_values_restored", Messages, own.restored, "Values that the broker had lost."),
    ]);
    let cluster = sharing.and_then(|sharing| sharing.cluster.as_ref());
    cluster_events(metrics, cluster.map_or_else(Default::default, |cluster| cluster.counters));
}

fn cluster_events(metrics: &mut Metrics, own: ClusterCounters) {
    metrics.counters([
        ("cluster_events_received", Messages, own.received, "Events of other Socket.IO servers."),
        (
            "cluster_events_refused",
            Messages,
            own.refused,
            "Events of these that broke a rule or limit.",
        ),
        ("cluster_events_sent", Messages, own.sent, "Events that went to these servers."),
        (
            "cluster_events_unsent",
            Messages,
            own.unsent,
            "Publishes that are no event for these servers, or had no room in the queue.",
        ),
    ]);
}

fn retained(shared: &Shared, metrics: &mut Metrics) {
    let Shared { retained, catch_ups, .. } = shared;
    let [values, bytes, newcomers] =
        [retained.values(), retained.held(), catch_ups.len()].map(|count| count as u64);
    metrics.gauges([
        ("retained_values", Count, values, "Messages kept for newcomers."),
        ("retained_bytes", Bytes, bytes, "Memory of these messages and their index in bytes."),
        ("catching_up", Count, newcomers, "Subscriptions that have yet to get such messages."),
    ]);
    let evicted = "Retained messages that made room for others.";
    let refused = "Messages of a retained channel that have no key or are too long.";
    metrics.counters([
        ("retained_evicted", Messages, retained.evicted, evicted),
        ("retained_refused", Messages, retained.refused, refused),
    ]);
}

fn subscriptions(shared: &Shared, metrics: &mut Metrics) {
    let Shared { fanout, channels, .. } = shared;
    let [topics, patterns, waiting, bytes, backlog] = [
        channels.topic_count(),
        channels.pattern_count(),
        shared.publishers.len() + shared.large_publishers.len() + shared.searchers.len(),
        channels.bytes(),
        fanout.backlog(),
    ]
    .map(|count| count as u64);
    let sessions =
        PeerProtocol::NAMES.into_iter().zip(shared.sessions.by_protocol().map(u64::from));
    let help = "Sessions that speak this protocol.";
    metrics.family((Gauge, Connections), ("sessions", "protocol"), "sessions, ", help, sessions);
    metrics.counters([
        ("published_messages", Messages, fanout.published, "Messages published."),
        ("delivered_messages", Messages, fanout.delivered, "Deliveries to subscribers."),
        (
            "datagrams_refused",
            Datagrams,
            shared.datagrams_refused,
            "Datagrams refused by access rules.",
        ),
        (
            "websocket_messages",
            Messages,
            shared.websocket_messages,
            "Messages from clients of WebSocket.",
        ),
        ("http_requests", Count, shared.http_requests, "Requests of HTTP that were answered."),
        ("commands_not_shown", Count, shared.commands_not_shown, "Commands not shown by MONITOR."),
    ]);
    metrics.gauges([
        ("channels", Count, topics - patterns, "Channels with at least one subscriber."),
        ("patterns", Count, patterns, "Patterns with at least one subscriber."),
        ("waiting", Connections, waiting, "Sessions with a deferred command."),
        ("pubsub_bytes", Bytes, bytes, "Memory of channels and subscriptions in bytes."),
        ("backlog_bytes", Bytes, backlog, "Memory of messages that are not delivered yet."),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Options;

    #[test]
    fn each_metric_of_the_hub_has_a_distinct_name_and_a_help_text() {
        metrics::tests::check(&Hub::new(&Options::default()).metrics());
    }
}

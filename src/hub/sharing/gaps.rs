//! Messages of the broker that are dropped, and how subscribers learn that some may be missing.

use super::backlog_max;
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::messages::MessageKind;
use crate::limits::GAPS_PER_TURN;
use crate::service::server::Server;

impl Shared {
    /// Returns true if too much from the broker waits for its receivers.
    pub(in crate::hub) fn is_overrun(&self, server: &dyn Server) -> bool {
        self.fanout.holds(backlog_max(server.limits()))
    }

    /// Counts a message from the broker that is dropped.
    pub(in crate::hub) fn drop_arrival(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        sharing.dropped += 1;
        sharing.note_gap();
    }

    /// Tells the subscribers of some more topics that messages may be missing.
    pub(super) fn tell_of_gap(&mut self) {
        let Shared { sharing: Some(sharing), channels, fanout, .. } = self else { return };
        let Some(from) = sharing.gap_from else { return };
        if fanout.has_backlog() {
            return;
        }
        let end = (from + GAPS_PER_TURN).min(channels.places());
        for place in from..end {
            let Some(topic) = channels.topic_at(place) else { continue };
            let name = channels.name(topic).to_vec();
            let is_shared = match topic.kind() {
                Kind::Channel => sharing.shared.has(&name, &mut 0),
                Kind::Pattern => true,
                Kind::Shard | Kind::Feed => false,
            };
            if is_shared {
                fanout.publish(channels, &[topic], &name, b"", MessageKind::Gap);
            }
        }
        sharing.gap_from = match end < channels.places() {
            true => Some(end),
            false => std::mem::take(&mut sharing.is_gap_repeated).then_some(0),
        };
    }
}

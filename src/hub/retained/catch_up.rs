//! Newcomers: sessions that get the kept messages of a channel before its later ones.
//!
//! A session that catches up is subscribed already. It reads the log of the channel, a segment at a
//! time, while its unsent output is below the high watermark. Fan-out leaves out what is in the log
//! (`fanout::mutes`). Before each chunk, the session gets its pending messages that are not in the
//! log. When it has read the whole log, fan-out takes over in that same step. So the session gets
//! the state, then each later change, none twice, none lost, and those of a key in their order.
//!
//! Sessions at the same place of a log share one encoded chunk, which is not copied for each. Few
//! newcomers have unsent chunks at a time, because one turn may have to write to all that have.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{LogId, ReadStamp, Retained};
use crate::clock::Tick;
use crate::hub::channels::{Channels, Kind};
use crate::hub::encoding::{CatchUpForm, Encoding};
use crate::hub::fanout::Fanout;
use crate::hub::polls::PollClients;
use crate::hub::sessions::{Destination, SessionId, Sessions};
use crate::limits::{
    CATCH_UP_BYTES, CATCH_UP_CHUNKS, CATCH_UP_PATIENCE, CATCH_UPS_IN_FLIGHT, CATCH_UPS_VISITED,
    CHUNK_BYTES, CHUNK_MESSAGE_BYTES, CHUNK_SHARED_MIN, CHUNKS_KEPT,
};
use crate::payload::Payload;
use crate::routes::EventRoutes;
use crate::service::{ConnectionId, Output};

/// The sessions that catch up, in the order of their next turn.
#[derive(Default)]
pub struct CatchUps {
    queue: VecDeque<CatchUp>,
    /// Chunks that were delivered lately, the latest last.
    chunks: VecDeque<Chunk>,
    /// Bytes of these chunks.
    held: usize,
    /// Sessions with a chunk that is not sent yet, and when it was delivered.
    in_flight: Vec<(SessionId, Tick)>,
    /// True if a session could be served at once in the next turn.
    goes_on: bool,
    /// Scratch: the bytes of a chunk.
    encoded: Vec<u8>,
}

/// A session that catches up with one channel.
struct CatchUp {
    session: SessionId,
    log: LogId,
    /// The number of its mute in fan-out.
    mute: u32,
    /// The number of the last message that it has read.
    cursor: u64,
    form: CatchUpForm,
}

/// Some kept messages, encoded.
struct Chunk {
    log: LogId,
    encoding: Encoding,
    form: CatchUpForm,
    /// The cursors before and behind it.
    from: u64,
    to: u64,
    stamp: ReadStamp,
    payload: Rc<Payload>,
}

/// How a session that catches up was served.
enum CatchUpStep {
    /// This many bytes were delivered, and more may follow.
    Delivered(usize),
    /// The session has unsent output.
    Waits,
    /// The turn makes no further chunks.
    NoChunk,
    /// It has caught up after this many bytes.
    CaughtUp(usize),
    /// The session has ended, or is no longer subscribed.
    Gone,
}

/// The parts of the hub that a step needs.
pub struct CatchUpWorld<'a, 'o> {
    pub retained: &'a mut Retained,
    pub channels: &'a mut Channels,
    pub sessions: &'a Sessions,
    pub fanout: &'a mut Fanout,
    pub polls: &'a mut PollClients,
    pub output: &'a mut Output<'o>,
}

impl CatchUpWorld<'_, '_> {
    /// Returns the bytes of a session's unsent output.
    fn unsent(&self, session: SessionId) -> usize {
        match self.sessions.get(session).destination() {
            Some(Destination::Connection(connection)) => self.output.server.unsent(connection),
            Some(Destination::Poll(client)) => self.polls.waits(client),
            None => 0,
        }
    }
}

impl CatchUps {
    /// Begins for a session that has just subscribed to the channel of a log.
    pub fn begin(&mut self, session: SessionId, log: LogId, mute: u32, form: CatchUpForm) {
        self.queue.push_back(CatchUp { session, log, mute, cursor: 0, form });
        self.goes_on = true;
    }

    /// Serves the sessions in turn, within the budget of a turn.
    pub fn collect(&mut self, mut world: CatchUpWorld<'_, '_>) {
        self.goes_on = false;
        let now = world.output.now.tick();
        let patience = Tick::count(CATCH_UP_PATIENCE) as i32;
        self.in_flight.retain(|(session, since)| {
            now.distance_from(*since) < patience && world.unsent(*session) > 0
        });
        let (mut bytes, mut chunks) = (0, CATCH_UP_CHUNKS);
        for _ in 0..self.queue.len().min(CATCH_UPS_VISITED) {
            if bytes >= CATCH_UP_BYTES || !world.output.has_room(0) {
                self.goes_on = true;
                break;
            }
            // The loop turns when their output moves, and at the next tick.
            if self.in_flight.len() >= CATCH_UPS_IN_FLIGHT {
                self.goes_on = false;
                break;
            }
            let Some(mut one) = self.queue.pop_front() else { break };
            match self.serve(&mut one, &mut chunks, &mut world) {
                CatchUpStep::Delivered(length) => {
                    bytes += length;
                    self.goes_on = true;
                    self.in_flight.retain(|(session, _)| *session != one.session);
                    self.in_flight.push((one.session, now));
                    self.queue.push_back(one);
                }
                CatchUpStep::NoChunk => {
                    self.goes_on = true;
                    self.queue.push_back(one);
                }
                CatchUpStep::Waits => self.queue.push_back(one),
                CatchUpStep::CaughtUp(length) => {
                    bytes += length;
                    world.fanout.mutes.end(one.session.index, one.mute);
                    world.retained.leave(one.log);
                }
                CatchUpStep::Gone => {
                    self.goes_on = true;
                    world.fanout.mutes.end(one.session.index, one.mute);
                    world.retained.leave(one.log);
                }
            }
        }
        if self.queue.is_empty() {
            *self = CatchUps::default();
        }
    }

    /// Sends a session the next chunk.
    fn serve(
        &mut self,
        one: &mut CatchUp,
        chunks: &mut usize,
        world: &mut CatchUpWorld<'_, '_>,
    ) -> CatchUpStep {
        let unsent = world.unsent(one.session);
        let CatchUpWorld { retained, channels, sessions, fanout, polls, output } = world;
        let index = one.session.index;
        let topic = channels.topic(Kind::Channel, retained.channel(one.log));
        let topic = topic.filter(|topic| {
            channels.is_member(index, *topic) && fanout.mutes.lasts(index, *topic, one.mute)
        });
        let own = sessions.get(one.session);
        let (Some(_), Some(destination)) = (topic, own.destination()) else {
            return CatchUpStep::Gone;
        };
        if unsent >= output.server.limits().high_watermark {
            return CatchUpStep::Waits;
        }
        if fanout.has_output() {
            match destination {
                Destination::Connection(connection) => {
                    let start = output.bytes_mut().len() as u32;
                    fanout.deliver_now(channels, index, own.encoding, output.bytes_mut());
                    let range = start..output.bytes_mut().len() as u32;
                    output.deliver_whole(connection, &range);
                }
                Destination::Poll(client) => {
                    let write = |out: &mut Vec<u8>| {
                        fanout.deliver_now(channels, index, own.encoding, out);
                    };
                    polls.append(client, write);
                }
            }
        }
        let mut length = 0;
        if one.cursor < retained.last(one.log) {
            let Some((payload, to)) =
                self.chunk(one, own.encoding, chunks, retained, fanout.routes())
            else {
                return CatchUpStep::NoChunk;
            };
            length = payload.len();
            let delivered = match destination {
                Destination::Connection(connection) => deliver(connection, &payload, output),
                Destination::Poll(client) => {
                    polls.put_out(client, payload.bytes());
                    true
                }
            };
            if !delivered {
                return CatchUpStep::NoChunk;
            }
            one.cursor = to;
        }
        match one.cursor < retained.last(one.log) {
            true => CatchUpStep::Delivered(length),
            false => CatchUpStep::CaughtUp(length),
        }
    }

    /// Returns the chunk behind the cursor of a session, and the cursor behind that. Makes it, if
    /// the turn may make further ones.
    fn chunk(
        &mut self,
        one: &CatchUp,
        encoding: Encoding,
        chunks: &mut usize,
        retained: &Retained,
        routes: &EventRoutes,
    ) -> Option<(Rc<Payload>, u64)> {
        let made = self.chunks.iter().find(|made| {
            let is_it = (made.log, made.from, made.encoding) == (one.log, one.cursor, encoding);
            is_it && made.form == one.form && retained.is_current(made.log, made.stamp)
        });
        if let Some(made) = made {
            return Some((made.payload.clone(), made.to));
        }
        *chunks = chunks.checked_sub(1)?;
        let channel = retained.channel(one.log);
        let (mut payloads, mut size) = (Vec::new(), 0);
        let (to, stamp) = retained.read(one.log, one.cursor, |record| {
            size += channel.len() + record.payload.len() + CHUNK_MESSAGE_BYTES;
            let fits = size <= CHUNK_BYTES || payloads.is_empty();
            if fits {
                payloads.push(record.payload);
            }
            fits
        });
        self.encoded.clear();
        encoding.encode_kept(&mut self.encoded, &one.form, channel, &payloads, routes);
        let payload = Rc::new(Payload::new(&self.encoded));
        if self.chunks.len() == CHUNKS_KEPT {
            let oldest = self.chunks.pop_front();
            self.held -= oldest.map_or(0, |oldest| oldest.payload.len());
        }
        self.held += payload.len();
        let (log, form, from) = (one.log, one.form.clone(), one.cursor);
        let chunk = Chunk { log, encoding, form, from, to, stamp, payload: payload.clone() };
        self.chunks.push_back(chunk);
        Some((payload, to))
    }

    /// Returns true if a session can be served at once in the next turn.
    pub fn has_work(&self) -> bool {
        self.goes_on
    }

    /// Returns the number of sessions that catch up, once for each channel.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let queue = self.queue.capacity() * size_of::<CatchUp>();
        let chunks = self.chunks.capacity() * size_of::<Chunk>();
        let in_flight = self.in_flight.capacity() * size_of::<(SessionId, Tick)>();
        queue + chunks + in_flight + self.held + self.encoded.capacity()
    }
}

/// Sends a chunk. A short one is copied, because the receiver's other output then leaves in the
/// same write.
fn deliver(connection: ConnectionId, payload: &Rc<Payload>, output: &mut Output<'_>) -> bool {
    if payload.len() >= CHUNK_SHARED_MIN {
        return output.deliver_shared(connection, &(0..0), payload, &(0..0));
    }
    let start = output.bytes_mut().len() as u32;
    output.bytes_mut().extend_from_slice(payload.bytes());
    let range = start..output.bytes_mut().len() as u32;
    output.deliver(connection, &range)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::clock::Time;
    use crate::codec::resp;
    use crate::hub::Hub;
    use crate::hub::retained::tests::{keyed, message};
    use crate::hub::tests::{connect, disconnect, exchange, turn};
    use crate::outbox::Outbox;
    use crate::retain_rule::RetainRule;
    use crate::service::server::NoServer;
    use crate::service::{Options, Service};

    /// A client of RESP that counts what it gets of each key.
    #[derive(Default)]
    struct Newcomer {
        input: Vec<u8>,
        /// Key → the number of the last message.
        state: HashMap<u64, u64>,
        messages: Vec<u64>,
    }

    impl Newcomer {
        fn take(&mut self, bytes: &[u8]) {
            self.input.extend_from_slice(bytes);
            let words: Vec<&[u8]> = self.input.split(|byte| *byte == b'\n').collect();
            // Each message has seven lines, the payload is the last.
            for line in words.iter().filter(|line| line.starts_with(b"{")) {
                let value: Value = serde_json::from_slice(line.trim_ascii_end()).unwrap();
                let [key, number] = ["k", "n"].map(|name| value[name].as_u64().unwrap());
                let before = self.state.insert(key, number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "key {key}: {number} came after {before:?}"
                );
                if value["deleted"] == true {
                    self.state.remove(&key);
                }
                self.messages.push(number);
            }
            self.input.clear();
        }
    }

    fn hub_with(rules: Vec<RetainRule>, sessions: u32) -> Hub {
        let mut hub = Hub::new(&Options { retain: rules, ..Options::default() });
        (0..sessions).for_each(|connection| connect(&mut hub, connection));
        hub
    }

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut message = Vec::new();
        resp::array(&mut message, words.len());
        words.iter().for_each(|word| resp::bulk(&mut message, word));
        message
    }

    fn publish(hub: &mut Hub, payload: &[u8]) {
        exchange(hub, 0, &command(&[b"PUBLISH", b"a", payload]));
    }

    /// Random publishes, subscribes, unsubscribes and closes. Each newcomer ends with the state,
    /// and gets each later message once, also those that are not kept.
    #[test]
    fn a_newcomer_gets_the_state_and_each_later_message_once() {
        for seed in 0..24 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hub = hub_with(vec![keyed("a", 500)], 8);
            let (mut model, mut clients) = (HashMap::new(), HashMap::<u32, Newcomer>::new());
            for number in 1..3000u64 {
                let key = random.u64(..500);
                match random.u32(..16) {
                    0 => {
                        publish(
                            &mut hub,
                            format!(r#"{{"k":{key},"n":{number},"deleted":true}}"#).as_bytes(),
                        );
                        model.remove(&key);
                    }
                    1 => {
                        let connection = 1 + random.u32(..7);
                        let is_new = !clients.contains_key(&connection);
                        let verb = if is_new { &b"SUBSCRIBE"[..] } else { b"UNSUBSCRIBE" };
                        exchange(&mut hub, connection, b"CLIENT RETAINED ON\r\n");
                        let reply = exchange(&mut hub, connection, &command(&[verb, b"a"])).0;
                        match is_new {
                            true => drop(clients.insert(connection, Newcomer::default())),
                            false => {
                                let mut gone = clients.remove(&connection).unwrap();
                                gone.take(&reply);
                            }
                        }
                        if random.bool() && !is_new {
                            // A new catch-up in the same turn.
                            exchange(&mut hub, connection, &command(&[b"SUBSCRIBE", b"a"]));
                            clients.insert(connection, Newcomer::default());
                        }
                    }
                    2 if random.u32(..8) == 0 => {
                        let connection = 1 + random.u32(..7);
                        clients.remove(&connection);
                        disconnect(&mut hub, connection);
                        connect(&mut hub, connection);
                    }
                    3..6 => {
                        let bytes = random.choice([2000, 100_000]).unwrap();
                        for (connection, bytes) in turn(&mut hub, random.usize(1..5), bytes) {
                            // A connection that has unsubscribed gets nothing more.
                            clients.get_mut(&connection).unwrap().take(&bytes);
                        }
                    }
                    _ => {
                        publish(&mut hub, &message(key as u32, number as u32, random.usize(..300)));
                        model.insert(key, number);
                    }
                }
            }
            while hub.has_output() {
                for (connection, bytes) in turn(&mut hub, 100, 1 << 20) {
                    clients.get_mut(&connection).unwrap().take(&bytes);
                }
            }
            assert!(hub.shared.catch_ups.is_empty() && !hub.shared.fanout.mutes.has(1));
            for client in clients.values_mut() {
                assert_eq!(client.state, model, "seed {seed}");
                client.messages.clear();
            }
            for number in 3000..3010u64 {
                publish(&mut hub, &message(number as u32, number as u32, 0));
            }
            while hub.has_output() {
                for (connection, bytes) in turn(&mut hub, 100, 1 << 20) {
                    clients.get_mut(&connection).unwrap().take(&bytes);
                }
            }
            for client in clients.values() {
                assert!(
                    client.messages.iter().copied().eq(3000..3010),
                    "each later message, in order"
                );
            }
        }
    }

    /// Runs one turn in which all connections have this much unsent output. Returns the bytes sent.
    fn turn_with_unsent(hub: &mut Hub, unsent: usize) -> usize {
        let (mut outbox, mut server) =
            (Outbox::default(), NoServer { unsent, ..Default::default() });
        hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, 512, 1 << 20));
        let payload =
            |payload: u32| outbox.payload(payload).map_or(0, |payload| payload.bytes().len());
        outbox.entries().iter().map(|entry| entry.range.len() + payload(entry.payload)).sum()
    }

    #[test]
    fn a_newcomer_that_does_not_read_gets_no_further_chunk_until_it_does() {
        let mut hub = hub_with(vec![keyed("a", 5000)], 2);
        (0..5000).for_each(|key| publish(&mut hub, &message(key, 1, 50)));
        exchange(&mut hub, 1, b"CLIENT RETAINED ON\r\n");
        exchange(&mut hub, 1, b"SUBSCRIBE a\r\n");
        let most = NoServer::default().limits.high_watermark;
        for (unsent, is_served) in [(most + 1, false), (most, false), (most - 1, true)] {
            let sent = turn_with_unsent(&mut hub, unsent);
            assert_eq!(sent > 0, is_served, "{unsent}");
            assert!(sent <= 2 * CHUNK_BYTES);
            assert_eq!(hub.has_output(), is_served, "a slow newcomer does not keep the loop busy");
            assert!(hub.wakes_at().is_some(), "it is looked at again");
        }
        disconnect(&mut hub, 1);
        turn_with_unsent(&mut hub, 0);
        assert!(hub.wakes_at().is_none() && !hub.has_output());
        assert_eq!(hub.shared.catch_ups.bytes(), 0);
    }

    /// Runs turns in which each session has unsent output. Returns the number of sessions served.
    fn served(hub: &mut Hub, milliseconds: u64) -> usize {
        let (mut outbox, mut server) =
            (Outbox::default(), NoServer { unsent: 1, ..Default::default() });
        let now = Time::ZERO + Duration::from_millis(milliseconds);
        for _ in 0..100 {
            hub.collect(&mut Output::new(now, &mut server, &mut outbox, 512, 1 << 20));
        }
        let slots: HashSet<u32> = outbox.entries().iter().map(|entry| entry.slot).collect();
        slots.len()
    }

    #[test]
    fn few_newcomers_have_unsent_chunks_and_those_that_stall_make_way() {
        let mut hub = hub_with(vec![keyed("a", 5000)], 101);
        (0..5000).for_each(|key| publish(&mut hub, &message(key, 1, 50)));
        for connection in 1..101 {
            exchange(&mut hub, connection, b"CLIENT RETAINED ON\r\n");
            exchange(&mut hub, connection, b"SUBSCRIBE a\r\n");
        }
        let patience = CATCH_UP_PATIENCE.as_millis() as u64;
        let most = CATCH_UPS_IN_FLIGHT;
        for (milliseconds, expected) in [(0, most), (patience / 2, 0), (patience + 40, most)] {
            assert_eq!(served(&mut hub, milliseconds), expected, "after {milliseconds} ms");
        }
    }

    #[test]
    fn newcomers_at_the_same_place_share_one_chunk() {
        let mut hub = hub_with(vec![keyed("a", 5000)], 101);
        (0..5000).for_each(|key| publish(&mut hub, &message(key, 1, 50)));
        for connection in 1..101 {
            exchange(&mut hub, connection, b"CLIENT RETAINED ON\r\n");
            exchange(&mut hub, connection, b"SUBSCRIBE a\r\n");
        }
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        let output = &mut Output::new(Time::ZERO, &mut server, &mut outbox, 512, 1 << 20);
        hub.collect(output);
        let first = outbox.payload(0).unwrap();
        assert!(outbox.entries().len() >= 2 && outbox.payload(1).is_none(), "one chunk for all");
        assert!(std::rc::Rc::strong_count(first) <= 2, "the chunk is kept, and in the outbox");
        let bytes = first.len() * outbox.entries().len();
        assert!((CATCH_UP_BYTES..2 * CATCH_UP_BYTES).contains(&bytes), "{bytes} in a turn");
        // A value of the chunk changes, so the next newcomer gets another one.
        publish(&mut hub, &message(0, 2, 50));
        let first = turn(&mut hub, 512, 1 << 20).remove(0).1;
        let text = String::from_utf8(first).unwrap();
        assert!(!text.contains(r#"{"k":0,"#) && text.contains(r#"{"k":1,"#));
    }
}

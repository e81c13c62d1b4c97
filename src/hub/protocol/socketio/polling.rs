//! Clients that poll: their beginning and end, their timers, and the answers to polls that wait.

use super::client::{Client, PacketProgress};
use super::{NO_CLIENT, SocketIo, begin, is_over, ping, wakes};
use crate::clock::Tick;
use crate::codec::engineio::{self, BadPacket, EnginePacket, Framing, PacketType, SEPARATOR};
use crate::codec::http;
use crate::codec::websocket::{CloseCode, encode_close};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::polls::WaitingPoll;
use crate::hub::sessions::{Destination, PeerProtocol, RESUMED, SessionId};
use crate::limits::{
    COUNT_LINE_MAX, Limits, PACKETS_PER_TURN, POLL_WAKES_PER_TURN, POLLS_ENDED_PER_TURN,
    POLLS_SHARE,
};
use crate::service::server::Server;
use crate::service::{Output, Reply};

/// The answer to a poll that waited.
pub struct PollAnswer {
    /// The session of the connection.
    pub to: SessionId,
    pub head: Box<[u8]>,
    pub body: Vec<u8>,
    /// True if the connection closes behind the answer.
    pub closes: bool,
}

/// The place in the packets of a request that waits.
pub struct PostPlace {
    client: SessionId,
    /// Bytes of the packets that are done.
    done: usize,
    /// True if it waits because its packets are many, and not for the backlog.
    was_long: bool,
}

/// The answer to a poll.
pub enum PollOutcome {
    /// The body of the answer.
    Output(Vec<u8>),
    /// The poll waits for output.
    Waits,
    /// Another poll of the client waits already.
    Overlaps,
}

impl SocketIo {
    /// Begins a client that polls, beside the session of its first request. Returns its session, or
    /// `None` if there are too many.
    pub fn begin_polling(
        &mut self,
        shared: &mut Shared,
        beside: SessionId,
        now: Tick,
        limits: &Limits,
    ) -> Option<SessionId> {
        shared.polls.now = now;
        self.recycle(shared, limits);
        if shared.polls.len() >= limits.max_connections {
            let absent = shared.polls.longest_absent()?;
            shared.socketio.recycled += 1;
            self.end_polling(shared, absent, None);
        }
        let client = shared.polls.next();
        let session = shared.sessions.open_beside(beside, Destination::Poll(client), now);
        shared.polls.add(session);
        shared.sessions.set_protocol(session, PeerProtocol::SocketIo);
        begin(shared, session, now);
        let due = wakes(&shared.sessions.get(session), now, limits);
        shared.polls.arm_by(client, due, now);
        self.newcomers.push_back(session);
        Some(session)
    }

    /// Makes room among the clients that poll and have no namespace: as silent connections, the
    /// oldest goes.
    fn recycle(&mut self, shared: &mut Shared, limits: &Limits) {
        while let Some(oldest) = self.newcomers.front().copied() {
            let own = shared.sessions.get(oldest);
            let client = match own.destination() {
                Some(Destination::Poll(client))
                    if own.protocol_state & super::HAS_CONNECTED == 0 =>
                {
                    client
                }
                _ => {
                    self.newcomers.pop_front();
                    continue;
                }
            };
            if self.newcomers.len() < limits.max_silent {
                return;
            }
            self.newcomers.pop_front();
            shared.socketio.recycled += 1;
            self.end_polling(shared, client, None);
        }
    }

    /// Returns what a poll gets now. A second poll at once ends the client.
    pub fn poll(&mut self, shared: &mut Shared, client: u32) -> PollOutcome {
        let Some(own) = shared.polls.get(client) else { return PollOutcome::Overlaps };
        if own.poll != SessionId::NONE {
            self.end_polling(shared, client, None);
            return PollOutcome::Overlaps;
        }
        let is_probed = self.probes.get(&own.probe).is_some_and(|probe| probe.is_heard);
        let mut body = shared.polls.take(client);
        if !body.is_empty() {
            body.remove(0);
        } else if is_probed {
            // The upgrade goes on as soon as no poll waits.
            body.push(PacketType::Noop.digit());
        }
        if body.is_empty() { PollOutcome::Waits } else { PollOutcome::Output(body) }
    }

    /// Serves the packets in the body of a request, behind those that are done already. Returns
    /// what the last one wants.
    pub fn serve_packets(
        &mut self,
        shared: &mut Shared,
        client: (SessionId, u32),
        speaker: SessionId,
        body: &[u8],
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> PacketProgress {
        let (session, number) = client;
        let mut out = shared.polls.take(number);
        let mut trusts = None;
        let known = self.posts.remove(&speaker).filter(|known| known.client == session);
        let mut done = known.as_ref().map_or(0, |known| known.done);
        if known.is_some_and(|known| known.was_long)
            && let Some(own) = shared.sessions.get_mut(speaker)
        {
            // It has waited for its next turn, and not for the backlog.
            own.put(RESUMED, false);
        }
        // Output that no poll takes is bounded by the output limit, and delays no request.
        let (before, most) = (out.len(), server.limits().high_watermark);
        let mut progress = PacketProgress::Taken;
        for count in 0.. {
            if count == PACKETS_PER_TURN || out.len() - before > most {
                shared.searchers.must_wait(&mut shared.sessions, speaker, true);
                self.posts.insert(speaker, PostPlace { client: session, done, was_long: true });
                progress = PacketProgress::Waits;
                break;
            }
            let rest = &body[done..];
            let length = memchr::memchr(SEPARATOR, rest).unwrap_or(rest.len());
            let text = std::str::from_utf8(&rest[..length]);
            let packet = text
                .map_err(|_| BadPacket::Text)
                .and_then(|text| engineio::packet(text.as_bytes()));
            let mut client = Client {
                io: self,
                shared,
                server,
                session,
                speaker,
                framing: Framing::Poll,
                out: &mut out,
                now: reply.now,
                trusts: &mut trusts,
            };
            progress = match packet {
                Ok(EnginePacket::Text(kind, data)) => client.packet_of(kind, data),
                Ok(EnginePacket::Binary(bytes)) => client.binary(&bytes),
                Err(_) => super::client::WRONG,
            };
            match progress {
                PacketProgress::Taken | PacketProgress::StaysSilent if length < rest.len() => {
                    done += length + 1;
                }
                PacketProgress::Waits => {
                    self.posts
                        .insert(speaker, PostPlace { client: session, done, was_long: false });
                    break;
                }
                _ => break,
            }
        }
        shared.polls.append(number, |own| *own = out);
        if let Some(trusted) = trusts {
            reply.trust(trusted);
            // Its connection was not trusted when it began to wait, and would not be now.
            self.release_poll(shared, number);
        }
        self.arm(shared, session, number, reply.now.tick(), server.limits());
        progress
    }

    /// Arms the timer of a client by its next ping or deadline.
    fn arm(
        &self,
        shared: &mut Shared,
        session: SessionId,
        client: u32,
        now: Tick,
        limits: &Limits,
    ) {
        let due = wakes(&shared.sessions.get(session), now, limits);
        if shared.polls.get(client).is_some() {
            shared.polls.arm_by(client, due, now);
        }
    }

    /// Ends a client that polls. A request of it that waits gets `last`, or the packet that closes.
    pub fn end_polling(&mut self, shared: &mut Shared, client: u32, last: Option<&[u8]>) {
        let Some((gone, poll, _)) = shared.polls.remove(client) else { return };
        if let Some(WaitingPoll { head, closes, .. }) = poll {
            let body = last.unwrap_or(b"1").to_vec();
            self.answers.push_back(PollAnswer { to: gone.poll, head, body, closes });
        }
        if let Some(probe) = self.probes.get_mut(&gone.probe) {
            probe.client = NO_CLIENT;
            self.orphans.push(gone.probe);
        }
        self.partials.take(gone.session);
        self.end_sockets(shared, gone.session);
        shared.end(gone.session);
    }

    /// Pings the clients that poll, ends those whose time is over, and answers the polls that wait.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        let now = output.now.tick();
        shared.polls.set_most(output.server.limits().output_limit);
        for _ in 0..POLL_WAKES_PER_TURN {
            let Some(client) = shared.polls.next_woken(now) else { break };
            self.wake_polling(shared, client, now, output.server.limits());
        }
        self.end_overdue(shared, output);
        self.publish_departures(shared);
        let most = output.server.limits().memory_budget / POLLS_SHARE;
        for _ in 0..POLLS_ENDED_PER_TURN {
            let relief = if shared.polls.held() > most { shared.polls.most_owed() } else { None };
            relief.into_iter().for_each(|session| shared.polls.doom(session));
            self.end_doomed(shared);
        }
        self.answer_ready(shared, output);
    }

    /// Answers the requests of clients that have output. Called before all other output of a turn
    /// as well, because that may use up the turn's budget again and again.
    pub fn answer_ready(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        shared.polls.now = output.now.tick();
        self.put_out(shared, output);
        while let Some(client) = shared.polls.next_ready() {
            if !self.answers.is_empty() || !output.has_room(shared.polls.waits(client)) {
                return shared.polls.put_ready(client);
            }
            let connection = shared.polls.get(client).map(|own| own.poll);
            let connection = connection.and_then(|poll| shared.sessions.get(poll).connection());
            // One that is about to end takes its client with it.
            if connection.is_some_and(|connection| output.server.is_serving(connection)) {
                self.answer_poll(shared, client);
                self.put_out(shared, output);
            }
        }
    }

    /// Ends the clients whose attachments have not arrived in time, or hold too much.
    fn end_overdue(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        let now = output.now.tick();
        while let Some((session, reason)) = self.partials.next_overdue(now, output.server.limits())
        {
            self.partials.take(session);
            match shared.sessions.get(session).destination() {
                Some(Destination::Connection(connection)) => output.server.kill(connection, reason),
                Some(Destination::Poll(_)) => shared.polls.doom(session),
                None => {}
            }
        }
        self.partials_due = self.partials.wakes_at(output.server.limits());
    }

    fn end_doomed(&mut self, shared: &mut Shared) {
        while let Some(session) = shared.polls.next_doomed() {
            if let Some(Destination::Poll(client)) = shared.sessions.get(session).destination() {
                self.end_polling(shared, client, None);
            }
        }
    }

    fn wake_polling(&mut self, shared: &mut Shared, client: u32, now: Tick, limits: &Limits) {
        let Some(session) = shared.polls.get(client).map(|own| own.session) else { return };
        let own = shared.sessions.get(session);
        if wakes(&own, now, limits).distance_from(now) <= 0 {
            if is_over(&own, now, limits) {
                return self.end_polling(shared, client, None);
            }
            ping(shared, session, now, limits);
            shared.polls.append(client, |out| Framing::Poll.text(out, |out| out.push(b'2')));
        }
        self.arm(shared, session, client, now, limits);
    }

    /// Gives the output of a client to its request that waits, if there are both.
    pub fn answer_poll(&mut self, shared: &mut Shared, client: u32) {
        if shared.polls.waits(client) == 0 {
            return;
        }
        if let Some((to, WaitingPoll { head, closes, .. })) = shared.polls.end_wait(client) {
            let mut body = shared.polls.take(client);
            body.remove(0);
            self.answers.push_back(PollAnswer { to, head, body, closes });
        }
    }

    /// Answers a client's request that waits with a packet that does nothing.
    pub fn release_poll(&mut self, shared: &mut Shared, client: u32) {
        self.answer_poll(shared, client);
        if let Some((to, WaitingPoll { head, closes, .. })) = shared.polls.end_wait(client) {
            self.answers.push_back(PollAnswer { to, head, body: b"6".to_vec(), closes });
        }
    }

    fn put_out(&mut self, shared: &Shared, output: &mut Output<'_>) {
        let connection = |session: SessionId| shared.sessions.get(session).connection();
        while let Some(PollAnswer { to, head, body, closes }) = self.answers.front() {
            if let Some(connection) = connection(*to) {
                if !output.has_room(head.len() + COUNT_LINE_MAX + body.len()) {
                    // The next turn goes on.
                    return;
                }
                let start = output.bytes_mut().len() as u32;
                write_answer(head, body, output.bytes_mut());
                let range = start..output.bytes_mut().len() as u32;
                output.deliver(connection, &range);
                if *closes {
                    output.close(connection);
                }
            }
            self.answers.pop_front();
        }
        for connection in self.orphans.drain(..).filter_map(connection) {
            let start = output.bytes_mut().len() as u32;
            encode_close(output.bytes_mut(), CloseCode::Normal.code(), "");
            let range = start..output.bytes_mut().len() as u32;
            // Without room, the connection ends without a last word.
            output.deliver(connection, &range);
            output.close(connection);
        }
    }

    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty() || !self.departures.is_empty() || !self.orphans.is_empty()
    }

    /// Appends the last answer to a poll that waits on a connection that the server closes.
    pub fn farewell(&self, shared: &Shared, session: SessionId, reason: Reason, out: &mut Vec<u8>) {
        if let (Reason::Drain, Some(poll)) = (reason, shared.polls.waiting(session)) {
            write_answer(&poll.head, b"1", out);
        }
    }
}

/// Appends an answer. Its head ends with the name of the field Content-Length.
fn write_answer(head: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    http::decimal(out, body.len());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

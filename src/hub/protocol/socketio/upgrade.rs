//! WebSockets: a client that begins with one, and one that replaces the polls of a client.

use super::{SocketIo, UpgradeProbe, begin};
use crate::clock::Tick;
use crate::codec::engineio::{Framing, poll_to_frames};
use crate::codec::websocket::{CloseCode, Opcode, encode_close};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::encoding::Encoding;
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::sessions::{Destination, SessionId};
use crate::limits::Limits;
use crate::service::Reply;

impl SocketIo {
    /// Begins a client with a WebSocket.
    pub fn begin_websocket(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        reply: &mut Reply<'_>,
        limits: &Limits,
    ) {
        let now = reply.now.tick();
        begin(shared, session, now);
        Framing::Frames.text(reply.bytes_mut(), |out| self.write_open(session, false, limits, out));
        reply.wake_by(now);
    }

    /// Begins a WebSocket that is to replace the polls of a client, or closes it if it may not.
    pub fn begin_probe(
        &mut self,
        shared: &mut Shared,
        client: SessionId,
        probe: SessionId,
        reply: &mut Reply<'_>,
    ) {
        let now = reply.now.tick();
        begin(shared, probe, now);
        reply.wake_by(now);
        if !self.add_probe(shared, client, probe, now) {
            encode_close(reply.bytes_mut(), CloseCode::Normal.code(), "");
            reply.close();
        }
    }

    /// Notes a WebSocket that is to replace the polls of a client. Returns false if the client does
    /// not poll, or if another WebSocket is about to replace its polls.
    fn add_probe(
        &mut self,
        shared: &mut Shared,
        client: SessionId,
        probe: SessionId,
        now: Tick,
    ) -> bool {
        let Some(Destination::Poll(number)) = shared.sessions.get(client).destination() else {
            return false;
        };
        let Some(own) = shared.polls.get_mut(number) else { return false };
        if own.probe != SessionId::NONE {
            return false;
        }
        own.probe = probe;
        self.probes.insert(probe, UpgradeProbe { client: number, since: now, is_heard: false });
        true
    }

    /// Takes a message of a WebSocket that is to replace the polls of a client.
    pub fn probe(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        (opcode, payload): (Opcode, &[u8]),
        reply: &mut Reply<'_>,
    ) -> MessageProgress {
        let Some(probe) = self.probes.get_mut(&session) else { return MessageProgress::Taken };
        let client = probe.client;
        match (opcode, payload) {
            (Opcode::Text, b"2probe") => {
                probe.is_heard = true;
                Framing::Frames.text(reply.bytes_mut(), |out| out.extend_from_slice(b"3probe"));
                self.release_poll(shared, client);
                MessageProgress::StaysSilent
            }
            (Opcode::Text, b"5") => {
                self.finish_upgrade(shared, client, session, reply);
                MessageProgress::Taken
            }
            _ => {
                encode_close(reply.bytes_mut(), CloseCode::Protocol.code(), "");
                reply.close_for(Reason::ProtocolError);
                MessageProgress::Taken
            }
        }
    }

    /// Moves a client from its polls to a WebSocket, with the output that waits.
    fn finish_upgrade(
        &mut self,
        shared: &mut Shared,
        client: u32,
        websocket: SessionId,
        reply: &mut Reply<'_>,
    ) {
        self.probes.remove(&websocket);
        self.release_poll(shared, client);
        let Some((gone, _, out)) = shared.polls.remove(client) else { return };
        let Some(connection) = reply.connection else { return };
        poll_to_frames(&out, reply.bytes_mut());
        let sockets: Vec<SessionId> =
            self.sockets(shared, gone.session).map(|(socket, _)| socket).collect();
        shared.agents.give_back(shared.sessions.get(gone.session).agent);
        let agent = shared.sessions.get(websocket).agent;
        shared.sessions.close(websocket);
        shared.sessions.attach(gone.session, connection);
        for socket in sockets.into_iter().chain([gone.session]) {
            let Some(own) = shared.sessions.get_mut(socket) else { continue };
            own.set_destination(Destination::Connection(connection));
            if let Encoding::SocketIoPolling(namespace) = own.encoding {
                own.encoding = Encoding::SocketIo(namespace);
            }
            if socket == gone.session {
                own.agent = agent;
            }
        }
        shared.socketio.upgrades += 1;
        let is_trusted = shared.is_authenticated(gone.session);
        reply.trust(is_trusted);
        reply.wake_by(reply.now.tick());
    }
}

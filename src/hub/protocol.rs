//! The protocols that peers speak to the hub. A protocol parses bytes and calls the hub's verbs.

mod datagram;
mod events;
mod http;
mod progress;
mod resp;
mod socketio;
mod telling;
mod websocket;

use super::Shared;
use super::sessions::{PeerProtocol, SessionId};
use crate::clock::Tick;
use crate::connection::Reason;
use crate::limits::Limits;
use crate::service::server::Server;
use crate::service::{Output, Reply, Taken};
use http::Http;
use socketio::SocketIo;
use websocket::WebSockets;

pub use http::{POLLED, path_of, plain};
pub use resp::{DENIED, Resp, example, full};

/// The protocols, with the state that each has for its own sessions.
pub struct Protocols {
    pub resp: Resp,
    pub http: Http,
    pub websocket: WebSockets,
    pub socketio: SocketIo,
}

impl Protocols {
    /// `sid_key` is the key of the sids of Socket.IO; `None`: a secret one.
    pub fn new(sid_key: Option<u64>) -> Protocols {
        Protocols {
            resp: Resp::default(),
            http: Http::default(),
            websocket: WebSockets::default(),
            socketio: SocketIo::new(sid_key),
        }
    }

    /// Serves the message at the front of a session's input, in the protocol of the session.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        let mut protocol = shared.sessions.get(session).protocol;
        if protocol == PeerProtocol::Unknown {
            protocol = telling::tell(input, server.limits().max_head);
            shared.sessions.set_protocol(session, protocol);
            if protocol == PeerProtocol::Unknown && telling::may_be_request(input) {
                // RESP bounds its lines otherwise.
                return Taken::Incomplete;
            }
        }
        shared.is_held_up = self.resp.holds_publishers();
        match protocol {
            PeerProtocol::Unknown | PeerProtocol::Resp => {
                self.resp.receive(shared, session, input, scanned, reply, server)
            }
            PeerProtocol::Http if shared.polls.waiting(session).is_some() => {
                // A client sends nothing more until its poll is answered.
                reply.close_for(Reason::ProtocolError);
                Taken::Message(input.len())
            }
            PeerProtocol::Http => {
                let Protocols { http, socketio, .. } = self;
                let input = (input, scanned);
                http.receive(shared, session, input, reply, server, socketio)
            }
            PeerProtocol::WebSocket | PeerProtocol::SocketIo => {
                let Protocols { websocket, socketio, .. } = self;
                websocket.receive(shared, session, input, reply, server, socketio)
            }
            // Such a client has nothing more to say.
            PeerProtocol::Events => Taken::Skip(input.len()),
        }
    }

    /// Returns when a session wants to be woken that was last heard at `heard`.
    pub fn wakes(
        &self,
        shared: &Shared,
        session: SessionId,
        heard: Tick,
        limits: &Limits,
    ) -> Option<Tick> {
        let own = shared.sessions.get(session);
        match own.protocol {
            PeerProtocol::WebSocket => self.websocket.wakes(session, &own, heard, limits),
            PeerProtocol::Events => events::wakes(&own, shared.now, limits),
            PeerProtocol::SocketIo => Some(self.socketio.wakes(session, &own, shared.now, limits)),
            PeerProtocol::Unknown | PeerProtocol::Resp | PeerProtocol::Http => None,
        }
    }

    /// Wakes a session at the time that [`Self::wakes`] named.
    pub fn wake(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) {
        shared.now = reply.now.tick();
        match shared.sessions.get(session).protocol {
            PeerProtocol::WebSocket => websocket::wake(shared, session, reply),
            PeerProtocol::Events => events::wake(shared, session, reply, server),
            PeerProtocol::SocketIo => self.socketio.wake(shared, session, reply, server),
            PeerProtocol::Unknown | PeerProtocol::Resp | PeerProtocol::Http => {}
        }
    }

    /// Appends the reason why the server closes a session's connection.
    pub fn farewell(&self, shared: &Shared, session: SessionId, reason: Reason, out: &mut Vec<u8>) {
        let own = shared.sessions.get(session);
        match own.protocol {
            PeerProtocol::Unknown | PeerProtocol::Resp => resp::farewell(own.encoding, reason, out),
            PeerProtocol::Http => {
                http::farewell(reason, out);
                self.socketio.farewell(shared, session, reason, out);
            }
            PeerProtocol::WebSocket | PeerProtocol::SocketIo => websocket::farewell(reason, out),
            PeerProtocol::Events => {}
        }
    }

    /// Continues what the protocols serve over several turns.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.resp.collect(shared, output);
        self.socketio.collect(shared, output);
    }

    /// Answers the polls that have waited for output since the last turn.
    pub fn answer_polls(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.socketio.answer_ready(shared, output);
    }

    /// Handles the start of a session's close.
    pub fn closing(&mut self, shared: &mut Shared, session: SessionId) {
        self.resp.closing(session);
        self.socketio.closing(shared, session);
    }

    /// Returns whether [`Self::collect`] has something to do.
    pub fn has_output(&self, shared: &Shared) -> bool {
        // A transaction that publishes waits for room on the link, which wakes the loop.
        self.resp.has_work(shared.fanout.is_link_full)
            || self.socketio.has_answers()
            || shared.polls.has_work()
    }

    /// Drops what the tables hold for a session that has ended.
    pub fn closed(&mut self, shared: &mut Shared, session: SessionId) {
        self.resp.closed(session);
        self.http.closed(session);
        self.websocket.closed(session);
        self.socketio.closed(shared, session);
    }

    /// Returns the memory of the tables, in bytes.
    pub fn bytes(&self) -> usize {
        self.resp.bytes() + self.http.bytes() + self.websocket.bytes() + self.socketio.bytes()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.http.shrink();
        self.websocket.shrink();
        self.socketio.shrink();
    }
}

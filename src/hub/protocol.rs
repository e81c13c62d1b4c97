//! The protocols that peers speak to the hub. A protocol parses bytes and calls the hub's verbs.

mod datagram;
mod events;
mod http;
mod resp;
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
use websocket::WebSockets;

pub use http::path_of;
pub use resp::{DENIED, Resp, example, full};

/// The protocols, with the state that each has for its own sessions.
#[derive(Default)]
pub struct Protocols {
    pub resp: Resp,
    pub http: Http,
    pub websocket: WebSockets,
}

impl Protocols {
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
        let is_held_up = self.resp.holds_publishers();
        match protocol {
            PeerProtocol::Unknown | PeerProtocol::Resp => {
                self.resp.receive(shared, session, input, scanned, reply, server)
            }
            PeerProtocol::Http => {
                self.http.receive(shared, session, (input, scanned), reply, server, is_held_up)
            }
            PeerProtocol::WebSocket => {
                self.websocket.receive(shared, session, input, reply, server, is_held_up)
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
            PeerProtocol::Unknown | PeerProtocol::Resp | PeerProtocol::Http => {}
        }
    }

    /// Appends the reason why the server closes a session's connection.
    pub fn farewell(&self, shared: &Shared, session: SessionId, reason: Reason, out: &mut Vec<u8>) {
        let own = shared.sessions.get(session);
        match own.protocol {
            PeerProtocol::Unknown | PeerProtocol::Resp => resp::farewell(own.encoding, reason, out),
            PeerProtocol::Http => http::farewell(reason, out),
            PeerProtocol::WebSocket => websocket::farewell(reason, out),
            PeerProtocol::Events => {}
        }
    }

    /// Continues what the protocols serve over several turns.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.resp.collect(shared, output);
    }

    /// Drops what the tables hold for a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.resp.closed(session);
        self.http.closed(session);
        self.websocket.closed(session);
    }

    /// Returns the memory of the tables, in bytes.
    pub fn bytes(&self) -> usize {
        self.resp.bytes() + self.http.bytes() + self.websocket.bytes()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.http.shrink();
        self.websocket.shrink();
    }
}

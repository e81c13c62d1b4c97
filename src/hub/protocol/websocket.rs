//! WebSocket: messages to the hub and from it (RFC 6455).
//!
//! A message is one message of the loop, however it is cut into frames. The codec joins it in the
//! input of its connection. Three kinds of sessions have WebSocket: on `/ws/CHANNEL` a message is
//! published as it is, on `/ws` it is a command of JSON, and on `/echo` it comes back.

mod commands;

use std::collections::HashMap;

use crate::clock::Tick;
use crate::codec::websocket::{
    CloseCode, Decoded, Decoder, Opcode, encode, encode_close, parse_close,
};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::encoding::Encoding;
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::protocol::socketio::SocketIo;
use crate::hub::sessions::{AUTHENTICATED, PeerProtocol, Session, SessionId};
use crate::hub::verbs::VerbResult;
use crate::limits::{Limits, PING_SPREAD};
use crate::service::server::Server;
use crate::service::{Reply, Taken};

/// State: a ping is sent, and nothing has come since.
const PINGED: u8 = 1;
/// State: the session echoes.
pub const ECHO: u8 = 1 << 1;

/// The WebSocket side of the hub.
#[derive(Default)]
pub struct WebSockets {
    /// The decoders of sessions whose message is partly received, or waits.
    decoders: HashMap<SessionId, Decoder>,
}

/// A client of WebSocket, for the time of one message.
struct WebSocketClient<'a, 'b> {
    shared: &'a mut Shared,
    session: SessionId,
    reply: &'a mut Reply<'b>,
    server: &'a mut dyn Server,
}

impl WebSockets {
    /// Serves the frames at the front of the input, up to the end of a message.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        input: &mut [u8],
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
        socketio: &mut SocketIo,
    ) -> Taken {
        let mut decoder = match self.decoders.is_empty() {
            true => Decoder::default(),
            false => self.decoders.remove(&session).unwrap_or_default(),
        };
        let had_begun = decoder.is_begun();
        let most = match shared.is_authenticated(session) {
            true => server.limits().max_message,
            false => crate::limits::UNTRUSTED_INPUT_MAX,
        };
        let taken = loop {
            let mut client = WebSocketClient { shared, session, reply, server };
            match decoder.decode(input, most) {
                Ok(Decoded::Message { opcode, payload, used }) => {
                    let progress = client.take(opcode, &input[payload], socketio);
                    if progress == MessageProgress::Waits {
                        break Taken::Later;
                    }
                    decoder.taken();
                    break match progress {
                        MessageProgress::StaysSilent => Taken::Skip(used),
                        _ => Taken::Message(used),
                    };
                }
                Ok(Decoded::Control { opcode, payload, used }) => {
                    client.answer(opcode, &input[payload]);
                    // A frame inside a message is no message of its own.
                    if used > 0 || reply.closes_for().is_some() {
                        break Taken::Message(used.max(1));
                    }
                }
                Ok(Decoded::Incomplete { used: 0 }) => break Taken::Incomplete,
                Ok(Decoded::Incomplete { used }) => break Taken::Skip(used),
                Err(code) => {
                    client.close(code, code.reason(), Reason::ProtocolError);
                    break Taken::Message(input.len());
                }
            }
        };
        if decoder.is_begun() && reply.closes_for().is_none() {
            self.decoders.insert(session, decoder);
        }
        if matches!(taken, Taken::Message(_)) {
            hear(shared, session, had_begun, reply);
        }
        taken
    }

    /// Returns when a session that was last heard at `heard` is pinged, or closed if it has been.
    /// Neither happens before the password, because the time to log in bounds that. Neither happens
    /// inside a message: it has a deadline of its own, and the time of the last one says nothing.
    pub fn wakes(
        &self,
        session: SessionId,
        own: &Session,
        heard: Tick,
        limits: &Limits,
    ) -> Option<Tick> {
        let interval = Tick::count(limits.ping_interval);
        let has_none = limits.ping_interval.is_zero() || !own.is(AUTHENTICATED);
        if has_none || self.decoders.contains_key(&session) {
            return None;
        }
        // Sessions that began together are pinged apart.
        let early = own.serial.wrapping_mul(PING_SPREAD) % (interval / 8 + 1);
        let times = if own.protocol_state & PINGED != 0 { 2 } else { 1 };
        Some(heard.plus(times * interval - early))
    }

    /// Drops what is held for a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.decoders.remove(&session);
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.decoders.capacity() * size_of::<(SessionId, Decoder)>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.decoders.shrink_to_fit();
    }

    /// Returns the sessions with a message that is partly received. For tests.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.decoders.keys().copied()
    }
}

impl WebSocketClient<'_, '_> {
    /// Takes a whole message.
    fn take(&mut self, opcode: Opcode, payload: &[u8], socketio: &mut SocketIo) -> MessageProgress {
        let own = self.shared.sessions.get(self.session);
        if own.protocol == PeerProtocol::SocketIo {
            let WebSocketClient { shared, session, reply, server } = self;
            let message = (opcode, payload);
            return socketio.message(shared, *session, message, reply, *server);
        }
        self.shared.websocket_messages += 1;
        if is_echo(&own) {
            encode(self.reply.bytes_mut(), opcode, payload);
            return MessageProgress::Taken;
        }
        let outcome = match own.encoding {
            Encoding::WebSocket => self.publish(payload),
            _ => commands::run(self, payload),
        };
        match outcome {
            VerbResult::Done(()) => {}
            VerbResult::Refused(text) => {
                self.close(CloseCode::Policy, &text, Reason::ProtocolError);
            }
            VerbResult::Later => {
                self.shared.websocket_messages -= 1;
                return MessageProgress::Waits;
            }
        }
        MessageProgress::Taken
    }

    /// Publishes to the channel of a session of `/ws/CHANNEL`.
    fn publish(&mut self, payload: &[u8]) -> VerbResult<()> {
        let WebSocketClient { shared, session, server, .. } = self;
        let Some(topic) = shared.channels.topics_of(session.index).next() else {
            return VerbResult::Done(());
        };
        let mut channel = std::mem::take(&mut shared.channel_name);
        channel.clear();
        channel.extend_from_slice(shared.channels.name(topic));
        let outcome = shared.publish_from(*session, &channel, payload, *server);
        shared.channel_name = channel;
        match outcome {
            VerbResult::Done(_) => VerbResult::Done(()),
            VerbResult::Later => VerbResult::Later,
            VerbResult::Refused(text) => VerbResult::Refused(text),
        }
    }

    /// Answers a control frame.
    fn answer(&mut self, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Ping => encode(self.reply.bytes_mut(), Opcode::Pong, payload),
            Opcode::Close => {
                let (code, reason) = match parse_close(payload) {
                    Ok(Some((code, _))) => (code, Reason::ServiceClosed),
                    Ok(None) => (CloseCode::Normal.code(), Reason::ServiceClosed),
                    Err(code) => (code.code(), Reason::ProtocolError),
                };
                encode_close(self.reply.bytes_mut(), code, "");
                self.reply.close_for(reason);
            }
            _ => {}
        }
    }

    /// Sends a Close frame, and closes the connection.
    fn close(&mut self, code: CloseCode, text: &str, reason: Reason) {
        encode_close(self.reply.bytes_mut(), code.code(), text);
        self.reply.close_for(reason);
    }
}

/// Returns true if a session is one of `/echo`.
pub fn is_echo(session: &Session) -> bool {
    session.protocol_state & ECHO != 0
}

/// Begins a session, behind the answer to its handshake. `must_answer`: the client is pinged at
/// once, so that a silent one can be told from one that listens.
pub fn begin(shared: &mut Shared, session: SessionId, must_answer: bool, reply: &mut Reply<'_>) {
    if must_answer {
        send_ping(shared, session, reply);
    }
    reply.wake_by(reply.now.tick());
}

/// Notes a message or control frame of a client. One that was pinged, or whose message is now
/// whole, may have to be pinged sooner than its timer fires.
fn hear(shared: &mut Shared, session: SessionId, had_begun: bool, reply: &mut Reply<'_>) {
    let Some(own) = shared.sessions.get_mut(session) else { return };
    // A client of Socket.IO is pinged by its own packets, which say when the next one is due.
    if own.protocol == PeerProtocol::SocketIo {
        return;
    }
    if had_begun || own.protocol_state & PINGED != 0 {
        own.protocol_state &= !PINGED;
        reply.wake_by(reply.now.tick());
    }
}

fn send_ping(shared: &mut Shared, session: SessionId, reply: &mut Reply<'_>) {
    encode(reply.bytes_mut(), Opcode::Ping, b"");
    if let Some(own) = shared.sessions.get_mut(session) {
        own.protocol_state |= PINGED;
    }
}

/// Pings a silent client, or closes one that has not answered.
pub fn wake(shared: &mut Shared, session: SessionId, reply: &mut Reply<'_>) {
    let own = shared.sessions.get(session);
    if own.protocol_state & PINGED == 0 {
        return send_ping(shared, session, reply);
    }
    let text = "no answer to a ping";
    encode_close(reply.bytes_mut(), CloseCode::Policy.code(), text);
    reply.close_for(Reason::PingTimeout);
}

/// Appends a Close frame with the reason why the server closes the connection.
pub fn farewell(reason: Reason, out: &mut Vec<u8>) {
    let code = match reason {
        Reason::Drain | Reason::DrainTimeout => CloseCode::GoingAway,
        Reason::MemoryBudget | Reason::Recycled | Reason::IdleEvicted => CloseCode::TryAgainLater,
        Reason::LineTooLong | Reason::ProtocolError => CloseCode::Protocol,
        _ => CloseCode::Policy,
    };
    encode_close(out, code.code(), reason.name());
}

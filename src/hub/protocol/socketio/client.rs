//! The packets of a client, whichever way they come.

use crate::clock::Time;
use crate::codec::engineio::{self, EnginePacket, Framing, PacketType};
use crate::codec::socketio::{self, PacketKind, SocketPacket};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::limits::UNTRUSTED_INPUT_MAX;
use crate::service::server::Server;

use super::partials::Partial;
use super::{HAS_CONNECTED, PINGED, SocketIo};

/// A client, for the time of some packets.
pub struct Client<'a> {
    pub io: &'a mut SocketIo,
    pub shared: &'a mut Shared,
    pub server: &'a mut dyn Server,
    /// The session of the client.
    pub session: SessionId,
    /// The session of the connection that the packets came by.
    pub speaker: SessionId,
    pub framing: Framing,
    /// The output for the client.
    pub out: &'a mut Vec<u8>,
    pub now: Time,
    /// Set if the connection is now trusted.
    pub trusts: &'a mut Option<bool>,
}

/// How far a packet was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketProgress {
    Taken,
    /// Taken, and the client still counts as silent.
    StaysSilent,
    /// The packet must wait, and is passed again.
    Waits,
    /// The client ends, for this reason.
    Ends(Reason),
}

/// A packet that breaks the protocol ends its client.
pub const WRONG: PacketProgress = PacketProgress::Ends(Reason::ProtocolError);

impl Client<'_> {
    /// Takes the text of a packet of Engine.IO.
    pub fn text(&mut self, text: &[u8]) -> PacketProgress {
        match engineio::packet(text) {
            Ok(EnginePacket::Text(kind, data)) => self.packet_of(kind, data),
            Ok(EnginePacket::Binary(bytes)) => self.binary(&bytes),
            Err(_) => WRONG,
        }
    }

    /// Takes a packet of this type.
    pub fn packet_of(&mut self, kind: PacketType, rest: &[u8]) -> PacketProgress {
        match kind {
            PacketType::Message => self.packet(rest),
            PacketType::Pong => {
                if let Some(own) = self.shared.sessions.get_mut(self.session) {
                    own.protocol_state &= !PINGED;
                }
                self.taken()
            }
            PacketType::Close => PacketProgress::Ends(Reason::ServiceClosed),
            // The server pings, and not the client.
            PacketType::Ping => WRONG,
            PacketType::Open | PacketType::Upgrade | PacketType::Noop => self.taken(),
        }
    }

    /// Takes a binary packet: the next attachment of an event.
    pub fn binary(&mut self, bytes: &[u8]) -> PacketProgress {
        let Some(mut partial) = self.io.partials.take(self.session) else { return WRONG };
        if partial.length + bytes.len() > self.longest() {
            return PacketProgress::Ends(Reason::ProtocolError);
        }
        if partial.attachments.len() + 1 < partial.wanted {
            partial.length += bytes.len();
            partial.attachments.push(bytes.into());
            self.io.partials.keep(self.session, partial, false);
            return self.taken();
        }
        let mut attachments: Vec<&[u8]> = partial.attachments.iter().map(|one| &**one).collect();
        attachments.push(bytes);
        let progress = match socketio::parse(&partial.text) {
            Ok(packet) => self.dispatch(&packet, &attachments),
            Err(_) => WRONG,
        };
        if progress == PacketProgress::Waits {
            // The last attachment is passed again. The event is complete, so its time begins anew.
            partial.since = self.now.tick();
            self.io.partials.keep(self.session, partial, true);
        }
        progress
    }

    /// Takes a packet of Socket.IO.
    fn packet(&mut self, text: &[u8]) -> PacketProgress {
        if self.io.partials.has(self.session) {
            // The attachments of an event come right behind it.
            return WRONG;
        }
        let Ok(packet) = socketio::parse(text) else { return WRONG };
        if packet.attachments == 0 {
            return self.dispatch(&packet, &[]);
        }
        let (attachments, length) = (Vec::new(), text.len());
        let (wanted, since) = (packet.attachments, self.now.tick());
        let partial = Partial { text: text.into(), attachments, wanted, length, since };
        self.io.partials.keep(self.session, partial, true);
        self.taken()
    }

    fn dispatch(&mut self, packet: &SocketPacket<'_>, attachments: &[&[u8]]) -> PacketProgress {
        match packet.kind {
            PacketKind::Connect => self.connect(packet.namespace, packet.data),
            PacketKind::ConnectError => WRONG,
            _ => {
                let namespace = self.shared.fanout.routes().namespace(packet.namespace);
                let socket = namespace.and_then(|namespace| self.socket(namespace));
                let (Some(namespace), Some(socket)) = (namespace, socket) else { return WRONG };
                match packet.kind {
                    PacketKind::Disconnect => self.disconnect(namespace, socket),
                    // The server asks for no acknowledgements.
                    PacketKind::Ack | PacketKind::BinaryAck => PacketProgress::Taken,
                    _ => self.event(namespace, socket, packet, attachments),
                }
            }
        }
    }

    /// Returns how a packet ends that did nothing of use before the client has a namespace.
    pub fn taken(&self) -> PacketProgress {
        match self.shared.sessions.get(self.session).protocol_state & HAS_CONNECTED {
            0 => PacketProgress::StaysSilent,
            _ => PacketProgress::Taken,
        }
    }

    /// Returns the longest event that is accepted with its attachments, in bytes.
    fn longest(&self) -> usize {
        match self.shared.is_authenticated(self.session) {
            true => self.server.limits().max_message,
            false => UNTRUSTED_INPUT_MAX,
        }
    }
}

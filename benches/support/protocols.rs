//! The protocols of an audience: how its clients subscribe and publish, and what they receive.

use super::load::Talk;
use super::web;

/// Length of a payload in bytes.
pub const PAYLOAD: usize = 64;

/// The protocol of one client. All carry the same payloads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Resp,
    WebSocket,
    /// Server-sent events. Their clients cannot publish.
    Events,
    SocketIo,
}

/// Number of protocols.
pub const PROTOCOLS: usize = 4;

impl Protocol {
    pub const ALL: [Protocol; PROTOCOLS] =
        [Protocol::Resp, Protocol::WebSocket, Protocol::Events, Protocol::SocketIo];

    /// Returns the exchanges by which a subscriber subscribes.
    pub fn subscribe(self) -> &'static [Talk] {
        match self {
            Protocol::Resp => &[Talk {
                greeting: b"",
                request: b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n",
                reply_starts: b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
                reply_ends: b"",
            }],
            Protocol::WebSocket => &[web::TO_NEWS],
            Protocol::Events => &[web::NEWS_EVENTS],
            Protocol::SocketIo => &*web::TO_SOCKETIO_NEWS,
        }
    }

    /// Returns the exchanges by which the connection of a publisher begins.
    pub fn begin_publisher(self) -> &'static [Talk] {
        match self {
            Protocol::Resp | Protocol::Events => &[],
            Protocol::WebSocket => self.subscribe(),
            // All but the last, which subscribes.
            Protocol::SocketIo => self.subscribe().split_last().map_or(&[], |(_, begin)| begin),
        }
    }

    pub fn publish(self, number: u64) -> Vec<u8> {
        let payload = payload(number);
        match self {
            Protocol::WebSocket => return web::from_client(payload.as_bytes()),
            Protocol::SocketIo => {
                let event = format!("420[\"publish\",\"news\",\"{payload}\"]");
                return web::from_client(event.as_bytes());
            }
            Protocol::Resp | Protocol::Events => {}
        }
        format!("*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n${PAYLOAD}\r\n{payload}\r\n").into_bytes()
    }

    /// Returns what the publisher receives for a publish. Over WebSocket it receives its own
    /// message, because it is a subscriber as well.
    pub fn reply(self, number: u64, subscribers: usize) -> Vec<u8> {
        match self {
            Protocol::WebSocket => self.message(number),
            Protocol::SocketIo => {
                let ack = format!("430[{{\"published\":\"news\",\"receivers\":{subscribers}}}]");
                web::from_server(ack.as_bytes())
            }
            _ => format!(":{subscribers}\r\n").into_bytes(),
        }
    }

    /// Returns the bytes that each subscriber receives for a publish.
    pub fn message(self, number: u64) -> Vec<u8> {
        let payload = payload(number);
        match self {
            Protocol::Resp => {
                format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${PAYLOAD}\r\n{payload}\r\n")
                    .into_bytes()
            }
            Protocol::WebSocket => web::from_server(payload.as_bytes()),
            Protocol::Events => web::event(&payload),
            Protocol::SocketIo => {
                let event = format!("42[\"message\",\"news\",\"{payload}\"]");
                web::from_server(event.as_bytes())
            }
        }
    }
}

fn payload(number: u64) -> String {
    format!("{number:0PAYLOAD$}")
}

/// The protocols of an audience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    Resp,
    WebSocket,
    /// Every second subscriber speaks WebSocket, the others speak RESP.
    Half,
    /// Server-sent events.
    Events,
    /// The publisher speaks Socket.IO, too.
    SocketIo,
}

impl Mix {
    pub const ALL: [Mix; 5] = [Mix::Resp, Mix::WebSocket, Mix::Half, Mix::Events, Mix::SocketIo];

    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn of_subscriber(self, slot: usize) -> Protocol {
        match self {
            Mix::Half if slot % 2 == 1 => Protocol::WebSocket,
            Mix::Resp | Mix::Half => Protocol::Resp,
            Mix::WebSocket => Protocol::WebSocket,
            Mix::Events => Protocol::Events,
            Mix::SocketIo => Protocol::SocketIo,
        }
    }

    pub fn of_publisher(self) -> Protocol {
        match self {
            Mix::WebSocket => Protocol::WebSocket,
            Mix::SocketIo => Protocol::SocketIo,
            Mix::Resp | Mix::Half | Mix::Events => Protocol::Resp,
        }
    }
}

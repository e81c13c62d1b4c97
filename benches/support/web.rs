//! The bytes of clients of the web: the requests that open a WebSocket or a stream of events, and
//! WebSocket frames in both directions (RFC 6455, 5.2).

use std::sync::LazyLock;

use super::load::Talk;

/// A request that opens a WebSocket. The key is the one of RFC 6455, 1.3.
macro_rules! upgrade {
    ($path:literal) => {
        Talk {
            greeting: b"",
            request: concat!(
                "GET ",
                $path,
                " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
            reply_starts: b"HTTP/1.1 101 ",
            reply_ends: b"\r\n\r\n",
        }
    };
}

/// Opens a WebSocket on which the server echoes each message.
pub const TO_ECHO: Talk = upgrade!("/echo");
/// Opens a WebSocket whose messages go to all of its kind, the sender included.
pub const TO_NEWS: Talk = upgrade!("/ws/news");

/// Opens a stream of events. Behind the head, slabd sends the time of a retry and a comment.
pub const NEWS_EVENTS: Talk = Talk {
    greeting: b"",
    request: b"GET /events/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
    reply_starts: b"HTTP/1.1 200 ",
    reply_ends: b"\n\n:\n\n",
};

/// Connects a client of Socket.IO, and lets it join a room. A server drops what comes before it has
/// opened the session.
pub static TO_SOCKETIO_NEWS: LazyLock<[Talk; 3]> = LazyLock::new(|| {
    let step = |packet: &str, reply_ends| Talk {
        greeting: b"",
        request: from_client(packet.as_bytes()).leak(),
        reply_starts: &[TEXT],
        reply_ends,
    };
    let open = upgrade!("/socket.io/?EIO=4&transport=websocket");
    [
        Talk { reply_ends: b"}", ..open },
        step("40", b"\"}"),
        step("420[\"subscribe\",\"news\"]", b"430[{\"subscribed\":[\"news\"]}]"),
    ]
});

/// A ping that slabd sends behind the answer to an upgrade while its slots are short.
pub const PING: &[u8] = &[0x89, 0];
/// The answer to it.
pub const PONG: &[u8] = &[0x8a, MASKED, 0, 0, 0, 0];

/// A whole text message.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
/// Longer payloads have a longer head.
const PAYLOAD_MAX: usize = 125;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns the frame of a text message as a client sends it.
pub fn from_client(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(payload, MASKED).to_vec();
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Returns the frame of a text message as a server sends it.
pub fn from_server(payload: &[u8]) -> Vec<u8> {
    [&head(payload, 0), payload].concat()
}

fn head(payload: &[u8], masked: u8) -> [u8; 2] {
    assert!(payload.len() <= PAYLOAD_MAX, "a frame of {} bytes", payload.len());
    [TEXT, masked | payload.len() as u8]
}

/// Returns an event as a server sends it.
pub fn event(payload: &str) -> Vec<u8> {
    format!("data: {payload}\n\n").into_bytes()
}

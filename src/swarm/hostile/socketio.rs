//! What hostile clients of Socket.IO send.

use super::super::{PASSWORD, Scene};
use super::Attack;
use crate::codec::engineio::{SEPARATOR, SID_LENGTH};
use crate::codec::websocket::{Opcode, encode_masked};

/// Packets that end a session, and some that do not.
const PACKETS: [&str; 18] = [
    "",
    "7",
    "2",
    "0{\"sid\":\"x\"}",
    "5",
    "6",
    "1",
    "4",
    "42[\"subscribe\",\"h5\"",
    "42[\"connect\"]",
    "42[[[[[[[[[[[[[[[[",
    "40/nowhere,",
    "42/nowhere,1[\"a\"]",
    "4511-[\"publish\",\"h5\",{\"_placeholder\":true,\"num\":11}]",
    "451-1[\"publish\",\"h5\",{\"_placeholder\":true,\"num\":1}]",
    "bAQIDBA==",
    "b!",
    "4318446744073709551616[]",
];

/// Returns true for an attack that goes on from a session id that it was told.
pub fn needs_sid(shape: Attack) -> bool {
    matches!(
        shape,
        Attack::DoubledPoll
            | Attack::AbortedPoll
            | Attack::DoubledPost
            | Attack::UnfinishedProbe
            | Attack::OversizedBody
            | Attack::SlowPoller
    )
}

/// Returns the session id in the answer to a handshake.
pub fn sid_in(answer: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"0{\"sid\":\"";
    let at = answer.windows(KEY.len()).position(|bytes| bytes == KEY)? + KEY.len();
    Some(String::from_utf8_lossy(answer.get(at..at + SID_LENGTH)?).into())
}

/// Returns the bytes of one step, or `None` for an attack that is none of Socket.IO. `is_first` is
/// true for the first step on a connection. `sid` is empty if no session has begun.
pub fn words(shape: Attack, is_first: bool, sid: &str, scene: &mut Scene<'_>) -> Option<Vec<u8>> {
    let random = &mut *scene.random;
    if needs_sid(shape) && sid.is_empty() {
        return Some(request("GET", "", ""));
    }
    let connect = format!("40{{\"password\":\"{PASSWORD}\"}}");
    Some(match shape {
        Attack::GuessedSid => {
            let guess: String = (0..SID_LENGTH).map(|_| random.alphanumeric()).collect();
            match random.usize(..3) {
                0 => request("GET", &guess, ""),
                1 => request("POST", &guess, "42[\"publish\",\"a\",\"unauthenticated\"]"),
                _ => upgrade(&guess),
            }
        }
        Attack::SidFlood => request("GET", "", ""),
        Attack::DoubledPoll | Attack::AbortedPoll => request("GET", sid, ""),
        Attack::DoubledPost => {
            let whole = request("POST", sid, "40");
            let part = random.usize(whole.len() - 2..=whole.len());
            whole[..part].to_vec()
        }
        Attack::UnfinishedProbe if is_first => upgrade(sid),
        Attack::UnfinishedProbe => frame(Opcode::Text, b"2probe"),
        Attack::OversizedBody => {
            let length = random.usize(1 << 16..1 << 26);
            announce("POST", sid, Some(length), &"6".repeat(random.usize(..2000)))
        }
        Attack::SlowPoller => {
            let data = "s".repeat(random.usize(0..2000));
            let publish = format!("42[\"publish\",\"h5\",\"{data}\"]");
            let packets = [&connect, "42[\"subscribe\",\"h5\"]", &publish, &publish];
            let body = packets.join("\u{1e}");
            request("POST", sid, &body)
        }
        _ => return frames(shape, is_first, &connect, random),
    })
}

/// Returns the bytes of one step of an attack over WebSocket.
fn frames(
    shape: Attack,
    is_first: bool,
    connect: &str,
    random: &mut fastrand::Rng,
) -> Option<Vec<u8>> {
    let mut out = if is_first { upgrade("") } else { Vec::new() };
    match shape {
        Attack::LostAttachments => {
            if is_first {
                out.extend(frame(Opcode::Text, connect.as_bytes()));
            }
            let placeholder = "{\"_placeholder\":true,\"num\":0}";
            let event = format!("452-1[\"publish\",\"h5\",{placeholder}]");
            out.extend(frame(Opcode::Text, event.as_bytes()));
            match random.usize(..4) {
                0 => out.extend(frame(Opcode::Text, b"42[\"subscribe\",\"h5\"]")),
                1 => out.extend(frame(Opcode::Binary, &[SEPARATOR; 3000])),
                _ => {}
            }
        }
        Attack::BadPackets => {
            if is_first && random.bool() {
                out.extend(frame(Opcode::Text, connect.as_bytes()));
            }
            let packet = PACKETS[random.usize(..PACKETS.len())];
            out.extend(frame(Opcode::Text, packet.as_bytes()));
        }
        Attack::SlowSocket => {
            if is_first {
                out.extend(frame(Opcode::Text, connect.as_bytes()));
                out.extend(frame(Opcode::Text, b"42[\"subscribe\",\"h5\"]"));
            }
            let data = "s".repeat(random.usize(0..2000));
            let event = format!("421[\"publish\",\"h5\",\"{data}\"]");
            out.extend(frame(Opcode::Text, event.as_bytes()));
        }
        _ => return None,
    }
    Some(out)
}

/// Returns a request of a poll, or of one with packets.
fn request(method: &str, sid: &str, body: &str) -> Vec<u8> {
    announce(method, sid, (method == "POST").then_some(body.len()), body)
}

/// Returns a request that announces a body of any length.
fn announce(method: &str, sid: &str, length: Option<usize>, body: &str) -> Vec<u8> {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
    format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: localhost\r\n\
         {length}\r\n{body}"
    )
    .into_bytes()
}

/// Returns an opening handshake.
fn upgrade(sid: &str) -> Vec<u8> {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    format!(
        "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: localhost\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .into_bytes()
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_masked(&mut out, opcode, payload, [0xa5, 0x5a, 0, 0xff]);
    out
}

//! What hostile WebSocket clients send.

use super::super::{PASSWORD, Scene};
use super::Attack;
use crate::codec::websocket::{Opcode, encode_masked};

/// Returns the bytes of one step, or `None` for an attack that is none of WebSocket. `is_first` is
/// true for the first step on a connection.
pub fn words(shape: Attack, is_first: bool, scene: &mut Scene<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let target = match shape {
        Attack::SilentUpgrade | Attack::NoPong => "/ws",
        Attack::HalfHandshake => {
            let part = ["GET /ws HTTP/1.1\r\nHost: localhost\r\nX-", "a: b\r\nX-"];
            return Some(part[usize::from(!is_first)].into());
        }
        Attack::Unmasked | Attack::BadText => "/echo",
        Attack::Fragments | Attack::TinyFrames | Attack::PingFlood => "/ws/h2",
        Attack::SlowReader => "/ws/h3?slow=close",
        Attack::SlowDropper => "/ws/h3?slow=drop",
        _ => return None,
    };
    if is_first {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nAuthorization: Bearer {PASSWORD}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
    }
    let mut frame = |first: u8, payload: &[u8]| {
        let start = out.len();
        encode_masked(&mut out, Opcode::Binary, payload, [0xa5, 0x5a, 0, 0xff]);
        out[start] = first;
    };
    let random = &mut *scene.random;
    match shape {
        // Never a last frame, with pings between.
        Attack::Fragments => {
            frame(if is_first { 2 } else { 0 }, &vec![b'f'; random.usize(0..400)]);
            (0..random.usize(0..20)).for_each(|_| frame(0x89, b"between"));
        }
        Attack::TinyFrames => (0..random.usize(0..400)).for_each(|_| frame(0x82, b"t")),
        Attack::Unmasked if !is_first => out.extend_from_slice(b"\x81\x05Hello\x81\x05Hello"),
        Attack::BadText if !is_first => frame(1, [&b"\xf4\x90"[..], b"ab\xff"][random.usize(..2)]),
        Attack::PingFlood => (0..random.usize(0..300)).for_each(|_| frame(0x89, &[b'p'; 125])),
        Attack::SlowReader | Attack::SlowDropper => {
            frame(0x82, &vec![b's'; random.usize(0..2000)]);
            frame(0x89, b"still there");
        }
        _ => {}
    }
    Some(out)
}

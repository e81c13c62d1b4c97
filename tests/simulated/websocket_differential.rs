//! Compares the WebSocket codec with tungstenite on random streams, by the target that also
//! fuzzing runs. Most streams have a defect or none, and few have more.
//!
//!     SLABD_SEED=7 cargo test --test simulated websocket_differential      replays one seed

use std::ops::Range;

use fastrand::Rng;
use slabd::codec::websocket::{Opcode, encode, encode_masked};

use crate::fuzz_corpus::targets::websocket::websocket;

/// Returns the seed in `SLABD_SEED` alone, or all.
fn seeds(all: Range<u64>) -> Range<u64> {
    let chosen = std::env::var("SLABD_SEED")
        .ok()
        .map(|seed| seed.parse().expect("SLABD_SEED must be a number"));
    chosen.map_or(all, |seed: u64| seed..seed + 1)
}

/// Appends a frame with any first byte, as it comes to a server or to a client.
fn frame(out: &mut Vec<u8>, to_server: bool, first: u8, payload: &[u8], random: &mut Rng) {
    let start = out.len();
    if to_server {
        encode_masked(out, Opcode::Binary, payload, random.u32(..).to_le_bytes());
    } else {
        encode(out, Opcode::Binary, payload);
    }
    out[start] = first;
}

fn payload(random: &mut Rng, most: usize) -> Vec<u8> {
    let lengths = [0, 1, 2, 5, 9, 30, 125, 126, 200, 65_535, 65_536];
    let length = lengths[random.usize(..lengths.len())].min(most);
    let text = ["Ada", "aé€😀", "\u{7ff}\u{800}\u{ffff}\u{10ffff}", "0123456789abcdef"];
    let text = text[random.usize(..text.len())];
    let mut bytes: Vec<u8> = text.bytes().cycle().take(length).collect();
    if random.u8(..) < 12 && length > 0 {
        let at = random.usize(..length);
        bytes[at] = random.u8(..);
    }
    bytes
}

/// Appends a message in some frames, with control frames between them.
fn message(out: &mut Vec<u8>, to_server: bool, random: &mut Rng) {
    let most = if random.u8(..) < 4 { 65_536 } else { 200 };
    let whole = payload(random, most);
    let mut opcode = random.u8(1..=2);
    let mut rest = &whole[..];
    while random.bool() && random.bool() {
        let (part, behind) = rest.split_at(random.usize(..=rest.len()));
        frame(out, to_server, opcode, part, random);
        (opcode, rest) = (0, behind);
        if random.bool() {
            let control = payload(random, 125);
            frame(out, to_server, 0x89 + random.u8(..2), &control, random);
        }
    }
    frame(out, to_server, 0x80 | opcode, rest, random);
}

fn stream(random: &mut Rng) -> Vec<u8> {
    let choice = random.u8(..);
    let mut out = vec![choice];
    let to_server = choice & 1 == 0;
    for _ in 0..random.usize(1..6) {
        match random.u8(..16) {
            0 => {
                let first = random.u8(..);
                let bytes = payload(random, 200);
                frame(&mut out, to_server, first, &bytes, random);
            }
            1 => {
                let code = [999, 1000, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000];
                let code: u16 = code[random.usize(..code.len())];
                let reason = payload(random, 123);
                let bytes = [&code.to_be_bytes()[..], &reason].concat();
                frame(&mut out, to_server, 0x88, &bytes[..random.usize(..=bytes.len())], random);
            }
            _ => message(&mut out, to_server, random),
        }
    }
    // One of eight streams has a wrong byte, and one of eight ends early.
    match random.u8(..8) {
        0 => {
            let at = random.usize(..out.len());
            out[at] = random.u8(..);
        }
        1 => out.truncate(random.usize(1..=out.len())),
        _ => {}
    }
    out
}

#[test]
fn both_codecs_find_the_same_in_random_streams() {
    for seed in seeds(0..4_000) {
        let stream = stream(&mut Rng::with_seed(seed));
        if let Err(failure) = std::panic::catch_unwind(|| websocket(&stream)) {
            eprintln!("seed {seed} fails: {}", stream.escape_ascii());
            std::panic::resume_unwind(failure);
        }
    }
}

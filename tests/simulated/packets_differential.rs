//! Changes good and bad packets of Engine.IO and Socket.IO at random, and runs the fuzz targets on
//! them: each compares the codec with a simpler reader.
//!
//!     SLABD_SEED=7 cargo test --test simulated packets_differential      replays one seed

use fastrand::Rng;

use crate::fuzz_corpus::targets::engineio::engineio;
use crate::fuzz_corpus::targets::socketio::socketio;

const ENGINE_CASES: &str = include_str!("../../src/codec/engineio/cases.txt");
const SOCKET_CASES: &str = include_str!("../../src/codec/socketio/cases.txt");

/// Bytes that mean something to one of the codecs.
const BYTES: &[u8] = b"0123456789b/-,[]{}\":\\=+_ enutr\x1e\n\xc3\xa4\xff";

/// Pieces that mean something to one of the codecs.
const PIECES: [&str; 12] = [
    "\u{1e}4",
    "bAQ==",
    "51-",
    "/x,",
    "18446744073709551615",
    "{\"_placeholder\":true,\"num\":0}",
    "\"_placeholder\":true",
    "\\u005f",
    "\"connect\"",
    "[[[[[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]]]]]",
    ",1",
];

fn run(cases: &str, target: fn(&[u8])) {
    let texts: Vec<String> = cases
        .lines()
        .map(|line| {
            let text = line.split('\t').next().unwrap();
            text.replace('⏎', "\n").replace('⇥', "\t").replace('␞', "\u{1e}")
        })
        .collect();
    let chosen = std::env::var("SLABD_SEED")
        .ok()
        .map(|seed| seed.parse().expect("SLABD_SEED must be a number"));
    let seeds = chosen.map_or(0..100_000, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut random = Rng::with_seed(seed);
        let mut text = texts[random.usize(..texts.len())].clone().into_bytes();
        for _ in 0..random.usize(0..4) {
            change(&mut text, &texts, &mut random);
        }
        if let Err(failure) = std::panic::catch_unwind(|| target(&text)) {
            eprintln!("seed {seed}: {}", text.escape_ascii());
            std::panic::resume_unwind(failure);
        }
    }
}

fn change(text: &mut Vec<u8>, texts: &[String], random: &mut Rng) {
    let at = random.usize(..=text.len());
    let until = random.usize(at..=text.len().min(at + 4));
    match random.u8(0..6) {
        0 => drop(text.drain(at..until)),
        1 => text.truncate(at),
        2 => text.insert(at, BYTES[random.usize(..BYTES.len())]),
        3 => drop(text.splice(at..until, PIECES[random.usize(..PIECES.len())].bytes())),
        4 => drop(text.splice(at.., texts[random.usize(..texts.len())].bytes())),
        _ => {
            let piece = text[at..until].to_vec();
            text.splice(at..at, piece);
        }
    }
}

#[test]
fn changed_bodies_of_engine_io_read_as_a_simpler_reader_says() {
    run(ENGINE_CASES, engineio);
}

#[test]
fn changed_packets_of_socket_io_read_as_a_simpler_reader_says() {
    run(SOCKET_CASES, socketio);
}

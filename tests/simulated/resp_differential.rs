//! Compares the project's RESP codec with the crate resp-rs. Each reads what the other writes, and
//! both read it alike: whole, byte by byte, and with trailing data.
//!
//!     SLABD_SEED=7 cargo test --test simulated resp_differential      replays one seed

use std::ops::Range;

use fastrand::Rng;
use resp_rs::{ParseError, resp2, resp3};
use slabd::codec::resp::{self, CommandLimits, Frame, Parser, Protocol};

/// Bytes behind a message that must not change it: none, a message, a part of one, and garbage.
const TRAILING: [&[u8]; 5] = [b"", b"*1\r\n$4\r\nPING\r\n", b"\r\n", b"*", b"\xff$-1"];

/// The arguments of a command, its name first.
type Words = Vec<Vec<u8>>;

/// Returns the seed in `SLABD_SEED` alone, or all.
fn seeds(all: Range<u64>) -> Range<u64> {
    let chosen = std::env::var("SLABD_SEED")
        .ok()
        .map(|seed| seed.parse().expect("SLABD_SEED must be a number"));
    chosen.map_or(all, |seed: u64| seed..seed + 1)
}

/// Reads the command at the front of `bytes` with our codec. Returns its arguments and its length.
fn ours(bytes: &[u8]) -> Result<(Words, usize), Frame<'_>> {
    match resp::frame(bytes, 0, &CommandLimits::default()) {
        Frame::Command { message, length } => {
            let mut parser = Parser::default();
            let command = parser
                .parse(message, &CommandLimits::default())
                .expect("an array has no quotes to balance");
            Ok((command.iter().map(<[u8]>::to_vec).collect(), length))
        }
        other => Err(other),
    }
}

/// Reads the same with resp-rs. Returns no arguments for a frame that is no array of strings.
fn theirs(bytes: &[u8]) -> Result<(Option<Words>, usize), ParseError> {
    let (frame, rest) = resp2::parse_frame(bytes.to_vec().into())?;
    Ok((arguments(&frame), bytes.len() - rest.len()))
}

fn arguments(frame: &resp2::Frame) -> Option<Words> {
    let word = |word: &resp2::Frame| match word {
        resp2::Frame::BulkString(Some(bytes)) => Some(bytes.to_vec()),
        _ => None,
    };
    frame.as_array()?.iter().map(word).collect()
}

/// Checks that both encoders write this command alike, and that both parsers read it back.
fn check_command(words: &[Vec<u8>]) {
    let mut wire = Vec::new();
    resp::array(&mut wire, words.len());
    words.iter().for_each(|word| resp::bulk(&mut wire, word));
    let frame =
        words.iter().map(|word| resp2::Frame::BulkString(Some(word.clone().into()))).collect();
    assert_eq!(
        wire,
        resp2::frame_to_bytes(&resp2::Frame::Array(Some(frame))),
        "{}",
        wire.escape_ascii()
    );

    for trailing in TRAILING {
        let stream = [&wire, trailing].concat();
        assert_eq!(ours(&stream), Ok((words.to_vec(), wire.len())), "{}", stream.escape_ascii());
        assert_eq!(
            theirs(&stream),
            Ok((Some(words.to_vec()), wire.len())),
            "{}",
            stream.escape_ascii()
        );
    }
    let mut parser = resp2::Parser::new();
    for (length, byte) in wire.iter().enumerate() {
        assert_eq!(
            ours(&wire[..length]),
            Err(Frame::Incomplete),
            "{length} bytes of {}",
            wire.escape_ascii()
        );
        assert_eq!(parser.next_frame(), Ok(None), "{length} bytes of {}", wire.escape_ascii());
        parser.feed(vec![*byte].into());
    }
    let last = parser.next_frame().expect("a command").expect("a whole command");
    assert_eq!(arguments(&last).as_deref(), Some(words));
}

/// Returns random bytes, most of which have a meaning in frames.
fn bytes(random: &mut Rng, length_max: usize) -> Vec<u8> {
    const ALPHABET: &[u8] = b"\r\n\r\n*$:+-_%>0123456789 \"'a\0\xff";
    (0..random.usize(..=length_max)).map(|_| ALPHABET[random.usize(..ALPHABET.len())]).collect()
}

#[test]
fn both_codecs_write_and_read_commands_alike() {
    let cases: &[&[&[u8]]] = &[
        &[b"PING"],
        &[b""],
        &[b"ECHO", b""],
        &[b"PUBLISH", b"news", b"hello\r\nworld"],
        &[b"PUBLISH", b"\r\n", b"*1\r\n$4\r\nPING\r\n"],
        &[b"ECHO", b"$-1\r\n"],
        &[b"ECHO", "Grüße, 世界".as_bytes()],
        &[&b"SUBSCRIBE"[..]; 12],
    ];
    for case in cases {
        check_command(&case.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
    }
    // Lengths of one, two and three digits, and around a power of two.
    for length in [9, 10, 11, 99, 100, 101, 255, 256, 257, 1023, 1024] {
        check_command(&[b"ECHO".to_vec(), vec![b'\n'; length]]);
    }
    check_command(&vec![b"a".to_vec(); 10_000]);
    for seed in seeds(0..2_000) {
        let mut random = Rng::with_seed(seed);
        let words: Words = (0..random.usize(1..8)).map(|_| bytes(&mut random, 40)).collect();
        check_command(&words);
    }
}

/// Our codec is the stricter one. resp-rs reads every command that our codec reads, with the same
/// result. Our codec refuses frames that are no commands, such as arrays in arrays, and numbers
/// that resp-rs itself would write differently, such as `$04`.
#[test]
fn our_codec_reads_a_broken_command_as_resp_rs_does_or_refuses_it() {
    let (mut both, mut neither) = (0, 0);
    for seed in seeds(0..30_000) {
        let mut random = Rng::with_seed(seed);
        let mut stream = Vec::new();
        resp::array(&mut stream, random.usize(1..4));
        for _ in 0..random.usize(1..4) {
            resp::bulk(&mut stream, &bytes(&mut random, 12));
        }
        for _ in 0..random.usize(..4) {
            let at = random.usize(..stream.len());
            match (random.u8(..3), bytes(&mut random, 1).first()) {
                (0, Some(byte)) => stream[at] = *byte,
                (1, Some(byte)) => stream.insert(at, *byte),
                _ if stream.len() > 1 => drop(stream.remove(at)),
                _ => {}
            }
        }
        // Other bytes start an inline command, which resp-rs does not have.
        if stream[0] != b'*' {
            continue;
        }
        let shown = || format!("seed {seed}: {}", stream.escape_ascii());
        match (ours(&stream), theirs(&stream)) {
            // For `*0`, our codec reads an empty command, and resp-rs an empty array. For a
            // negative count, resp-rs gives null or an error.
            (Ok((words, _)), _) if words.is_empty() => {}
            (Ok((words, length)), read) => {
                assert_eq!(read, Ok((Some(words), length)), "{}", shown());
                both += 1;
            }
            (Err(Frame::Incomplete), read) => {
                assert_eq!(read, Err(ParseError::Incomplete), "{}", shown())
            }
            (Err(_), Ok((Some(words), length))) => {
                let mut spelled = Vec::new();
                resp::array(&mut spelled, words.len());
                words.iter().for_each(|word| resp::bulk(&mut spelled, word));
                assert_ne!(spelled, stream[..length], "{}", shown());
            }
            (Err(_), _) => neither += 1,
        }
    }
    let replayed = std::env::var_os("SLABD_SEED").is_some();
    assert!(replayed || both > 5_000 && neither > 1_000, "both read {both}, neither {neither}");
}

/// A reply, independent of the protocol.
#[derive(Debug)]
enum Value {
    Simple(String),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Push(Vec<Value>),
}

impl Value {
    /// Returns a random value with at most `depth` levels of arrays and maps.
    fn any(random: &mut Rng, depth: u32) -> Value {
        let scalars = 5;
        let length = random.usize(..5);
        match random.u32(..if depth == 0 { scalars } else { scalars + 2 }) {
            0 => Value::Simple(String::from_utf8_lossy(&bytes(random, 20)).into_owned()),
            1 => Value::Error(bytes(random, 20)),
            2 => Value::Integer(random.i64(..) >> random.u32(..64)),
            3 => Value::Bulk(bytes(random, 40)),
            4 => Value::Null,
            5 => Value::Array((0..length).map(|_| Value::any(random, depth - 1)).collect()),
            _ => {
                let mut pair = || (Value::any(random, depth - 1), Value::any(random, depth - 1));
                Value::Map((0..length).map(|_| pair()).collect())
            }
        }
    }

    /// Writes the value with our encoders.
    fn write(&self, out: &mut Vec<u8>, protocol: Protocol) {
        match self {
            Value::Simple(text) => resp::simple(out, text),
            Value::Error(text) => resp::error(out, text),
            Value::Integer(value) => resp::integer(out, *value),
            Value::Bulk(bytes) => resp::bulk(out, bytes),
            Value::Null => resp::null(out, protocol),
            Value::Array(values) => {
                resp::array(out, values.len());
                values.iter().for_each(|value| value.write(out, protocol));
            }
            Value::Map(pairs) => {
                resp::map(out, pairs.len(), protocol);
                pairs
                    .iter()
                    .flat_map(|(key, value)| [key, value])
                    .for_each(|value| value.write(out, protocol));
            }
            Value::Push(values) => {
                resp::push(out, values.len(), protocol);
                values.iter().for_each(|value| value.write(out, protocol));
            }
        }
    }

    /// Returns the frame that resp-rs must read in RESP2, which has neither maps nor pushes.
    fn in_resp2(&self) -> resp2::Frame {
        let all = |values: &[Value]| {
            resp2::Frame::Array(Some(values.iter().map(Value::in_resp2).collect()))
        };
        match self {
            Value::Simple(text) => resp2::Frame::SimpleString(one_line(text.as_bytes()).into()),
            Value::Error(text) => resp2::Frame::Error(one_line(text).into()),
            Value::Integer(value) => resp2::Frame::Integer(*value),
            Value::Bulk(bytes) => resp2::Frame::BulkString(Some(bytes.clone().into())),
            Value::Null => resp2::Frame::BulkString(None),
            Value::Array(values) | Value::Push(values) => all(values),
            Value::Map(pairs) => {
                let flat = pairs.iter().flat_map(|(key, value)| [key.in_resp2(), value.in_resp2()]);
                resp2::Frame::Array(Some(flat.collect()))
            }
        }
    }

    /// Returns the frame that resp-rs must read in RESP3.
    fn in_resp3(&self) -> resp3::Frame {
        let all = |values: &[Value]| values.iter().map(Value::in_resp3).collect();
        match self {
            Value::Simple(text) => resp3::Frame::SimpleString(one_line(text.as_bytes()).into()),
            Value::Error(text) => resp3::Frame::Error(one_line(text).into()),
            Value::Integer(value) => resp3::Frame::Integer(*value),
            Value::Bulk(bytes) => resp3::Frame::BulkString(Some(bytes.clone().into())),
            Value::Null => resp3::Frame::Null,
            Value::Array(values) => resp3::Frame::Array(Some(all(values))),
            Value::Push(values) => resp3::Frame::Push(all(values)),
            Value::Map(pairs) => resp3::Frame::Map(
                pairs.iter().map(|(key, value)| (key.in_resp3(), value.in_resp3())).collect(),
            ),
        }
    }
}

/// Replaces line breaks by spaces, as our encoders do. A line break would end the reply.
fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte }).collect()
}

/// Checks that resp-rs reads the value in both protocols, whole, byte by byte and with trailing
/// data.
fn check_reply(value: &Value) {
    let mut wire = Vec::new();
    value.write(&mut wire, Protocol::Resp2);
    let (mut parser, expected) = (resp2::Parser::new(), value.in_resp2());
    for trailing in TRAILING {
        let read = resp2::parse_frame([&wire, trailing].concat().into());
        assert_eq!(
            read,
            Ok((expected.clone(), trailing.into())),
            "{value:?} as {}",
            wire.escape_ascii()
        );
    }
    for byte in &wire {
        assert_eq!(parser.next_frame(), Ok(None), "{value:?} as {}", wire.escape_ascii());
        parser.feed(vec![*byte].into());
    }
    assert_eq!(parser.next_frame(), Ok(Some(expected)), "{value:?} as {}", wire.escape_ascii());

    wire.clear();
    value.write(&mut wire, Protocol::Resp3);
    let (mut parser, expected) = (resp3::Parser::new(), value.in_resp3());
    for trailing in TRAILING {
        let read = resp3::parse_frame([&wire, trailing].concat().into());
        assert_eq!(
            read,
            Ok((expected.clone(), trailing.into())),
            "{value:?} as {}",
            wire.escape_ascii()
        );
    }
    for byte in &wire {
        assert_eq!(parser.next_frame(), Ok(None), "{value:?} as {}", wire.escape_ascii());
        parser.feed(vec![*byte].into());
    }
    assert_eq!(parser.next_frame(), Ok(Some(expected)), "{value:?} as {}", wire.escape_ascii());
}

#[test]
fn resp_rs_reads_the_replies_of_our_encoders() {
    let text = |text: &str| Value::Bulk(text.as_bytes().to_vec());
    for value in [
        Value::Simple("OK".into()),
        Value::Simple(String::new()),
        Value::Simple("two\r\nlines".into()),
        Value::Error(b"ERR unknown command 'a\r\n+b'".to_vec()),
        Value::Integer(0),
        Value::Integer(i64::MAX),
        Value::Integer(i64::MIN),
        Value::Bulk(Vec::new()),
        Value::Bulk((0..=255).collect()),
        Value::Null,
        Value::Array(Vec::new()),
        Value::Map(Vec::new()),
        Value::Array(vec![Value::Null, Value::Array(vec![Value::Null])]),
        Value::Map(vec![
            (text("modules"), Value::Array(Vec::new())),
            (text("proto"), Value::Integer(3)),
        ]),
        Value::Push(vec![text("message"), text("news"), text("hello\r\nworld")]),
        Value::Push(vec![text("unsubscribe"), Value::Null, Value::Integer(0)]),
    ] {
        check_reply(&value);
    }
    for seed in seeds(0..5_000) {
        let mut random = Rng::with_seed(seed);
        check_reply(&Value::any(&mut random, 3));
        let values = (0..random.usize(1..5)).map(|_| Value::any(&mut random, 2)).collect();
        check_reply(&Value::Push(values));
    }
}

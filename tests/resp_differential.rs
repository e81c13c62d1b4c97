//! Our codec of the Redis protocol beside another's (the crate resp-rs): what one writes the other reads, and what both read they
//! read alike. Each case whole, byte by byte, and with trailing data. `SLABD_SEED=7` replays one seed.

use std::ops::Range;

use fastrand::Rng;
use resp_rs::{ParseError, resp2, resp3};
use slabd::codec::resp::{self, CommandLimits, Frame, Parser, Protocol};

/// What may stand behind a message without changing it: nothing, another, part of one, and what is none.
const TRAILING: [&[u8]; 5] = [b"", b"*1\r\n$4\r\nPING\r\n", b"\r\n", b"*", b"\xff$-1"];

/// The arguments of a command, its name first.
type Words = Vec<Vec<u8>>;

fn seeds(all: Range<u64>) -> Range<u64> {
    let chosen = std::env::var("SLABD_SEED").ok().map(|seed| seed.parse().expect("SLABD_SEED is a number"));
    chosen.map_or(all, |seed: u64| seed..seed + 1)
}

/// The command at the front of `bytes` as we read it: its arguments and its length.
fn ours(bytes: &[u8]) -> Result<(Words, usize), Frame<'_>> {
    match resp::frame(bytes, 0, &CommandLimits::default()) {
        Frame::Command { message, length } => {
            let mut parser = Parser::default();
            let command = parser.parse(message, &CommandLimits::default()).expect("an array has no quotes to balance");
            Ok((command.iter().map(<[u8]>::to_vec).collect(), length))
        }
        other => Err(other),
    }
}

/// The same as they read it. A frame that is no array of strings has no arguments here.
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

/// Both encoders agree on this command, and both parsers read it back, however it arrives.
fn check_command(words: &[Vec<u8>]) {
    let mut wire = Vec::new();
    resp::array(&mut wire, words.len());
    words.iter().for_each(|word| resp::bulk(&mut wire, word));
    let frame = words.iter().map(|word| resp2::Frame::BulkString(Some(word.clone().into()))).collect();
    assert_eq!(wire, resp2::frame_to_bytes(&resp2::Frame::Array(Some(frame))), "{}", wire.escape_ascii());

    for trailing in TRAILING {
        let stream = [&wire, trailing].concat();
        assert_eq!(ours(&stream), Ok((words.to_vec(), wire.len())), "{}", stream.escape_ascii());
        assert_eq!(theirs(&stream), Ok((Some(words.to_vec()), wire.len())), "{}", stream.escape_ascii());
    }
    let mut parser = resp2::Parser::new();
    for (length, byte) in wire.iter().enumerate() {
        assert_eq!(ours(&wire[..length]), Err(Frame::Incomplete), "{length} bytes of {}", wire.escape_ascii());
        assert_eq!(parser.next_frame(), Ok(None), "{length} bytes of {}", wire.escape_ascii());
        parser.feed(vec![*byte].into());
    }
    let last = parser.next_frame().expect("a command").expect("a whole one");
    assert_eq!(arguments(&last).as_deref(), Some(words));
}

/// Bytes that are likely to be taken for framing.
fn bytes(random: &mut Rng, length_max: usize) -> Vec<u8> {
    const ALPHABET: &[u8] = b"\r\n\r\n*$:+-_%>0123456789 \"'a\0\xff";
    (0..random.usize(..=length_max)).map(|_| ALPHABET[random.usize(..ALPHABET.len())]).collect()
}

#[test]
fn commands_are_written_and_read_alike() {
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
    check_command(&vec![b"a".to_vec(); CommandLimits::default().arguments_max]);
    for seed in seeds(0..2_000) {
        let mut random = Rng::with_seed(seed);
        let words: Words = (0..random.usize(1..8)).map(|_| bytes(&mut random, 40)).collect();
        check_command(&words);
    }
}

/// Broken commands. We are the stricter ones: what we read they read alike, and of what they read we refuse only what is no command
/// (values that are no strings, arrays in arrays) or is not spelled as they would spell it themselves (`$04`).
#[test]
fn broken_commands_are_read_alike_or_refused() {
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
        // Anything else is an inline command, which they do not know.
        if stream[0] != b'*' {
            continue;
        }
        let shown = || format!("seed {seed}: {}", stream.escape_ascii());
        match (ours(&stream), theirs(&stream)) {
            // No command at all: `*0`, which is an empty array to them, or a negative count, which is null or an error.
            (Ok((words, _)), _) if words.is_empty() => {}
            (Ok((words, length)), read) => {
                assert_eq!(read, Ok((Some(words), length)), "{}", shown());
                both += 1;
            }
            (Err(Frame::Incomplete), read) => assert_eq!(read, Err(ParseError::Incomplete), "{}", shown()),
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

/// What a reply means.
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

    /// As our encoders write it.
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
                pairs.iter().flat_map(|(key, value)| [key, value]).for_each(|value| value.write(out, protocol));
            }
            Value::Push(values) => {
                resp::push(out, values.len(), protocol);
                values.iter().for_each(|value| value.write(out, protocol));
            }
        }
    }

    /// As they are to read it in RESP2, which has neither maps nor pushes.
    fn in_resp2(&self) -> resp2::Frame {
        let all = |values: &[Value]| resp2::Frame::Array(Some(values.iter().map(Value::in_resp2).collect()));
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
            Value::Map(pairs) => {
                resp3::Frame::Map(pairs.iter().map(|(key, value)| (key.in_resp3(), value.in_resp3())).collect())
            }
        }
    }
}

/// Line breaks would end the reply; they are written as spaces.
fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte }).collect()
}

/// Their parsers read what `value` means, in both protocols, however it arrives.
fn check_reply(value: &Value) {
    let mut wire = Vec::new();
    value.write(&mut wire, Protocol::Resp2);
    let (mut parser, expected) = (resp2::Parser::new(), value.in_resp2());
    for trailing in TRAILING {
        let read = resp2::parse_frame([&wire, trailing].concat().into());
        assert_eq!(read, Ok((expected.clone(), trailing.into())), "{value:?} as {}", wire.escape_ascii());
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
        assert_eq!(read, Ok((expected.clone(), trailing.into())), "{value:?} as {}", wire.escape_ascii());
    }
    for byte in &wire {
        assert_eq!(parser.next_frame(), Ok(None), "{value:?} as {}", wire.escape_ascii());
        parser.feed(vec![*byte].into());
    }
    assert_eq!(parser.next_frame(), Ok(Some(expected)), "{value:?} as {}", wire.escape_ascii());
}

#[test]
fn replies_are_read_as_they_were_meant() {
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
        Value::Map(vec![(text("modules"), Value::Array(Vec::new())), (text("proto"), Value::Integer(3))]),
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

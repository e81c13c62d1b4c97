//! WebSocket: pings, deadlines, close codes, slow consumers and the drain, in virtual time.

use std::time::Duration;

use slabd::codec::websocket::{
    Decoded, Decoder, Opcode, Role, encode_close, encode_masked, parse_close,
};
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::sim::{ClientId, End};
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, hub, limits};

/// A client behind its handshake.
pub struct Web {
    pub id: ClientId,
    decoder: Decoder,
    inbox: Vec<u8>,
}

/// A message or control frame.
pub type Got = (Opcode, Vec<u8>);

fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

impl Web {
    /// Connects a client, and takes the answer to its handshake.
    pub fn open(sim: &mut Sim, target: &str) -> Web {
        let id = sim.accepted();
        sim.send(id, handshake(target));
        sim.turns(2);
        let mut web = Web { id, decoder: Decoder::new(Role::Client), inbox: Vec::new() };
        web.take_head(sim);
        web
    }

    fn take_head(&mut self, sim: &mut Sim) {
        self.inbox.extend(sim.net().client_received(self.id));
        let end = self.inbox.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
        let head: Vec<u8> = self.inbox.drain(..end + 4).collect();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    }

    pub fn send(&self, sim: &mut Sim, first: u8, payload: &[u8]) {
        sim.send(self.id, frame(first, payload));
    }

    /// Makes two turns, and returns what has come.
    pub fn got(&mut self, sim: &mut Sim) -> Vec<Got> {
        sim.turns(2);
        self.inbox.extend(sim.net().client_received(self.id));
        let mut got = Vec::new();
        loop {
            match self.decoder.decode(&mut self.inbox, 1 << 20).expect("valid frames") {
                Decoded::Incomplete { used } => {
                    self.inbox.drain(..used);
                    return got;
                }
                Decoded::Control { opcode, payload, used } => {
                    got.push((opcode, self.inbox[payload].to_vec()));
                    self.inbox.drain(..used);
                }
                Decoded::Message { opcode, payload, used } => {
                    got.push((opcode, self.inbox[payload].to_vec()));
                    self.inbox.drain(..used);
                    self.decoder.taken();
                }
            }
        }
    }

    /// Asserts that the last frame is a Close with this code, and that the stream has ended.
    pub fn assert_closed(&mut self, sim: &mut Sim, code: u16, about: &str) {
        let got = self.got(sim);
        let (opcode, payload) = got.last().unwrap_or_else(|| panic!("{about}: nothing came"));
        assert_eq!(*opcode, Opcode::Close, "{about}");
        assert_eq!(parse_close(payload).unwrap().unwrap().0, code, "{about}");
        assert!(sim.is_ended(self.id), "{about}: the stream is open");
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_masked(&mut out, Opcode::Binary, payload, [0x37, 0xfa, 0x21, 0x3d]);
    out[0] = first;
    out
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_close(&mut out, code, reason);
    frame(0x88, &out[2..])
}

pub fn text(text: &str) -> Got {
    (Opcode::Text, text.into())
}

#[test]
fn frames_that_come_with_the_handshake_are_served_behind_its_answer() {
    let mut sim = hub(limits());
    let id = sim.accepted();
    let all = [handshake("/ws/news").into_bytes(), frame(0x81, b"first"), frame(0x89, b"?")];
    sim.send(id, all.concat());
    sim.turns(3);
    let mut web = Web { id, decoder: Decoder::new(Role::Client), inbox: Vec::new() };
    web.take_head(&mut sim);
    let mut got = web.got(&mut sim);
    got.sort_by_key(|(opcode, _)| *opcode as u8);
    assert_eq!(got, [text("first"), (Opcode::Pong, b"?".to_vec())]);
}

#[test]
fn a_silent_client_is_pinged_and_closed_if_it_does_not_answer() {
    let interval = 40 * SECOND;
    let mut sim = hub(Limits { ping_interval: interval, ..limits() });
    let mut web = Web::open(&mut sim, "/ws/news");
    sim.pass(interval * 7 / 8 - SECOND);
    assert_eq!(web.got(&mut sim), [], "a ping comes early");
    sim.pass(interval / 8 + 2 * SECOND);
    assert_eq!(web.got(&mut sim), [(Opcode::Ping, Vec::new())]);
    sim.pass(interval * 7 / 8 - 2 * SECOND);
    assert_eq!(web.got(&mut sim), [], "it is closed early");
    sim.pass(interval / 8 + 2 * SECOND);
    web.assert_closed(&mut sim, 1008, "no answer");
    sim.pass(10 * SECOND);
    assert_eq!(sim.closed(Reason::PingTimeout), 1);
}

#[test]
fn a_client_that_answers_pings_stays_and_is_pinged_again() {
    let interval = 40 * SECOND;
    let mut sim = hub(Limits { ping_interval: interval, ..limits() });
    let mut web = Web::open(&mut sim, "/ws/news");
    let mut pings = 0;
    for _ in 0..100 {
        sim.pass(4 * SECOND);
        for (opcode, payload) in web.got(&mut sim) {
            assert_eq!(opcode, Opcode::Ping);
            web.send(&mut sim, 0x8a, &payload);
            pings += 1;
        }
    }
    assert!((9..=11).contains(&pings), "{pings} pings in ten intervals");
    web.send(&mut sim, 0x81, b"still here");
    assert_eq!(web.got(&mut sim), [text("still here")]);
}

#[test]
fn a_ping_interval_of_zero_sends_no_pings() {
    let mut sim = hub(Limits { ping_interval: Duration::ZERO, ..limits() });
    let mut web = Web::open(&mut sim, "/ws/news");
    sim.pass(10_000 * SECOND);
    assert_eq!(web.got(&mut sim), []);
    assert_eq!(sim.net().client_saw(web.id), End::Open);
}

#[test]
fn clients_that_connect_together_are_pinged_apart() {
    let interval = 40 * SECOND;
    let mut sim = hub(Limits { ping_interval: interval, max_connections: 1024, ..limits() });
    let mut webs: Vec<Web> = (0..48).map(|_| Web::open(&mut sim, "/ws/news")).collect();
    sim.pass(interval * 7 / 8 - SECOND);
    let mut most = 0;
    let mut pinged = 0;
    for _ in 0..70 {
        sim.pass(SECOND / 10);
        let now = webs.iter_mut().map(|web| web.got(&mut sim).len()).sum();
        most = most.max(now);
        pinged += now;
    }
    assert_eq!(pinged, 48);
    assert!(most <= 6, "{most} clients are pinged in a tenth of a second");
}

#[test]
fn a_message_has_its_deadline_however_it_is_cut() {
    let each = |number: u32, rest: usize| match (number, rest) {
        (0, _) => frame(2, b"a"),
        _ => frame(0, b"a"),
    };
    let whole = frame(0x82, &[b'a'; 100]);
    type Step<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let cuts: [(&str, Step<'_>); 4] = [
        ("one byte at a time", &|number| vec![whole[number as usize]]),
        ("fragments of one byte", &|number| each(number, 0)),
        ("many empty fragments", &|number| {
            let first = frame(if number == 0 { 2 } else { 0 }, b"");
            [first, frame(0, b"").repeat(1000)].concat()
        }),
        ("pings between fragments", &|number| [each(number, 0), frame(0x89, b"")].concat()),
    ];
    for (about, step) in cuts {
        let mut sim = hub(Limits { message_timeout: 10 * SECOND, ..limits() });
        let mut web = Web::open(&mut sim, "/ws/news");
        for number in 0..9 {
            sim.send(web.id, step(number));
            sim.pass(SECOND);
        }
        web.got(&mut sim);
        assert_eq!(sim.net().client_saw(web.id), End::Open, "{about}: closed early");
        sim.send(web.id, step(9));
        web.got(&mut sim);
        sim.pass(2 * SECOND);
        web.assert_closed(&mut sim, 1008, about);
        assert_eq!(sim.closed(Reason::MessageTimeout), 1, "{about}");
    }
}

#[test]
fn a_message_that_comes_slowly_is_not_taken_for_silence() {
    let limits = Limits { ping_interval: 20 * SECOND, message_timeout: Duration::ZERO, ..limits() };
    let mut sim = hub(limits);
    let mut web = Web::open(&mut sim, "/ws/news");
    let message = frame(0x81, b"a long message, one byte in ten seconds");
    let (head, payload) = message.split_at(6);
    sim.send(web.id, head);
    for byte in payload {
        assert_eq!(web.got(&mut sim), []);
        sim.send(web.id, [*byte]);
        sim.pass(10 * SECOND);
        assert_eq!(sim.net().client_saw(web.id), End::Open);
    }
    // The last byte came ten seconds ago.
    let got = web.got(&mut sim);
    assert_eq!(got, [text("a long message, one byte in ten seconds")]);
    sim.pass(11 * SECOND);
    assert_eq!(web.got(&mut sim), [(Opcode::Ping, Vec::new())]);
}

#[test]
fn each_error_closes_with_its_code() {
    let limits = Limits { max_message: 64 * 1024, ..limits() };
    let too_big = [&[0x82, 0xff][..], &65_537u64.to_be_bytes(), &[0; 4]].concat();
    let fits = frame(0x82, &vec![b'x'; 65_536]);
    for (about, target, bytes, code) in [
        ("no mask", "/ws/news", b"\x81\x01a".to_vec(), 1002),
        ("a reserved bit", "/ws/news", frame(0xc1, b"a"), 1002),
        ("a reserved opcode", "/ws", frame(0x83, b"a"), 1002),
        ("a continuation of nothing", "/ws/news", frame(0x80, b"a"), 1002),
        ("a top bit", "/ws/news", b"\x82\xff\x80\0\0\0\0\0\0\0".to_vec(), 1002),
        ("bad text", "/echo", frame(1, b"a\xff"), 1007),
        ("bad text in JSON", "/ws", frame(0x81, b"\"\xff\""), 1007),
        ("too big by one", "/ws/news", too_big.clone(), 1009),
        (
            "fragments too big by one",
            "/ws/news",
            [frame(2, b"x"), [&[0x80, 0xff][..], &65_536u64.to_be_bytes()].concat()].concat(),
            1009,
        ),
        ("no JSON", "/ws", frame(0x81, b"hello"), 1008),
        ("JSON of no object", "/ws", frame(0x81, b"[1"), 1008),
        ("close", "/ws/news", close(1000, "bye"), 1000),
        ("close with a code of an application", "/ws", close(4999, ""), 4999),
        ("close without a code", "/ws", frame(0x88, b""), 1000),
        ("close with half a code", "/ws", frame(0x88, b"\x03"), 1002),
        ("close with a reserved code", "/ws", close(1005, ""), 1002),
        ("close with bad text", "/ws", frame(0x88, b"\x03\xe8\xff"), 1007),
    ] {
        let mut sim = hub(limits.clone());
        let mut web = Web::open(&mut sim, target);
        sim.send(web.id, bytes);
        // Nothing behind the error is served.
        web.send(&mut sim, 0x89, b"behind");
        web.assert_closed(&mut sim, code, about);
    }
    let mut sim = hub(limits);
    let mut web = Web::open(&mut sim, "/echo");
    sim.send(web.id, fits);
    let got: Vec<Got> = (0..20).flat_map(|_| web.got(&mut sim)).collect();
    assert!(got == [(Opcode::Binary, vec![b'x'; 65_536])], "a message at the limit");
}

#[test]
fn a_closed_session_is_no_receiver_of_the_next_publish() {
    let mut sim = hub(limits());
    let mut leaving = Web::open(&mut sim, "/ws/news");
    let publisher = sim.accepted();
    assert_eq!(sim.exchange(publisher, "PUBLISH news x\r\n"), ":1\r\n");
    sim.send(leaving.id, close(1000, ""));
    leaving.assert_closed(&mut sim, 1000, "close");
    // The client has not closed the stream yet.
    assert_eq!(sim.exchange(publisher, "PUBLISH news x\r\n"), ":0\r\n");
}

#[test]
fn a_drain_delivers_what_came_before_it_and_closes_with_1001() {
    let mut sim = hub(limits());
    let mut raw = Web::open(&mut sim, "/ws/news");
    let mut json = Web::open(&mut sim, "/ws");
    raw.send(&mut sim, 0x81, b"the last message");
    sim.turn();
    sim.reactor.drain();
    sim.pass(SECOND);
    let got = raw.got(&mut sim);
    assert_eq!(got[0], text("the last message"), "what came before the drain is delivered");
    for (about, got) in [("raw", got), ("json", json.got(&mut sim))] {
        let (opcode, payload) = got.last().expect(about);
        assert_eq!(*opcode, Opcode::Close, "{about}");
        assert_eq!(parse_close(payload).unwrap().unwrap().0, 1001, "{about}");
    }
}

#[test]
fn a_slow_consumer_is_closed_or_misses_messages_by_its_choice() {
    let limits =
        Limits { high_watermark: 20_000, low_watermark: 5_000, output_limit: 60_000, ..limits() };
    let mut sim = hub(limits);
    let mut dropper = Web::open(&mut sim, "/ws/news?slow=drop");
    let closed = Web::open(&mut sim, "/ws/news");
    let publisher = sim.accepted();
    for id in [dropper.id, closed.id] {
        sim.net().set_window(id, 100);
    }
    for number in 0..300 {
        let payload = format!("{number}:{}", "x".repeat(1000));
        sim.exchange(publisher, format!("PUBLISH news {payload}\r\n"));
        // Control frames are answered all the while.
        if number % 100 == 50 {
            dropper.send(&mut sim, 0x89, format!("ping {number}").as_bytes());
            sim.turns(2);
        }
    }
    assert_eq!(sim.closed(Reason::OutputLimit), 1);
    sim.net().set_window(dropper.id, 1 << 20);
    let (mut next, mut pongs, mut dropped) = (0, Vec::new(), 0);
    for _ in 0..50 {
        sim.pass(SECOND / 10);
        for (opcode, payload) in dropper.got(&mut sim) {
            let payload = String::from_utf8(payload).unwrap();
            if opcode == Opcode::Pong {
                pongs.push(payload);
            } else if let Some(count) = payload.strip_prefix("{\"dropped\":") {
                let count: usize = count.trim_end_matches('}').parse().unwrap();
                next += count;
                dropped += count;
            } else {
                let (number, letters) = payload.split_once(':').unwrap();
                assert_eq!((number, letters.len()), (&*next.to_string(), 1000), "whole, in order");
                next += 1;
            }
        }
    }
    assert_eq!(pongs, ["ping 50", "ping 150", "ping 250"]);
    assert!(dropped > 200, "{dropped} dropped");
    assert_eq!(next, 300, "each message came or was counted");
    sim.exchange(publisher, "PUBLISH news again\r\n");
    assert_eq!(dropper.got(&mut sim), [text("again")]);
}

#[test]
fn tiny_fragments_hold_at_most_twice_the_message() {
    let mut sim = hub(Limits { max_message: 64 * 1024, ..limits() });
    let mut web = Web::open(&mut sim, "/ws/news");
    let before = sim.reactor.ledger();
    let mut sent = 0;
    for part in 0..600 {
        let mut bytes = Vec::new();
        for number in 0..100 {
            let first = if part + number == 0 { 2 } else { 0 };
            bytes.extend(frame(first, &[part as u8]));
            bytes.extend(frame(0x89, b""));
        }
        sim.send(web.id, bytes);
        sent += 100;
        web.got(&mut sim);
        let held = sim.reactor.ledger().read_buffers - before.read_buffers;
        // A buffer is a power of two, and up to twice as long as its content.
        let most = 2 * (2 * sent + 2 * 4096);
        assert!(held <= most, "{held} bytes held for {sent}");
    }
    web.send(&mut sim, 0x80, b"");
    sim.turns(2);
    let got = web.got(&mut sim);
    assert_eq!((got.len(), got[0].1.len()), (1, 60_000));
    assert_eq!(sim.reactor.ledger().read_buffers, before.read_buffers);
}

#[test]
fn a_client_of_json_without_the_password_does_nothing_and_a_raw_one_is_refused() {
    let options = Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
    let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
    let raw = sim.accepted();
    let answer = sim.exchange(raw, handshake("/ws/news"));
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let mut json = Web::open(&mut sim, "/ws");
    for command in [
        r#"{"subscribe":"news"}"#,
        r#"{"psubscribe":"*"}"#,
        r#"{"publish":"news","data":1}"#,
        r#"{"unsubscribe":"news"}"#,
        r#"{"ping":1}"#,
    ] {
        json.send(&mut sim, 0x81, command.as_bytes());
        let got = json.got(&mut sim);
        let answer = String::from_utf8_lossy(&got[0].1);
        assert!(answer.contains("the password is missing"), "{command}: {answer}");
    }
    json.send(&mut sim, 0x81, br#"{"auth":"secret"}"#);
    assert_eq!(json.got(&mut sim), [text(r#"{"authenticated":true}"#)]);
    json.send(&mut sim, 0x81, br#"{"subscribe":"news"}"#);
    assert_eq!(json.got(&mut sim), [text(r#"{"subscribed":"news"}"#)]);
}

/// Before the password, a message may have as many bytes as a command of RESP.
#[test]
fn a_long_message_before_the_password_is_too_big() {
    let options = Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
    for (length, fits) in [(4096, true), (4097, false)] {
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
        let mut json = Web::open(&mut sim, "/ws");
        let text = format!("{{\"ping\":1}}{}", " ".repeat(length - 10));
        json.send(&mut sim, 0x81, text.as_bytes());
        match fits {
            true => assert_eq!(json.got(&mut sim).len(), 1),
            false => json.assert_closed(&mut sim, 1009, "too big before the password"),
        }
    }
}

#[test]
fn a_silent_upgrade_gives_its_slot_to_a_newcomer_and_a_client_that_answers_stays() {
    let mut sim = hub(Limits { max_connections: 20, max_silent: 8, ..limits() });
    let mut honest = Web::open(&mut sim, "/ws/news");
    honest.send(&mut sim, 0x81, b"hello");
    assert_eq!(honest.got(&mut sim), [text("hello")]);
    for _ in 0..200 {
        let silent = sim.accepted();
        sim.send(silent, handshake("/ws"));
        sim.pass(SECOND / 20);
        for (opcode, payload) in honest.got(&mut sim) {
            assert_eq!(opcode, Opcode::Ping);
            honest.send(&mut sim, 0x8a, &payload);
        }
    }
    honest.send(&mut sim, 0x81, b"still here");
    assert_eq!(honest.got(&mut sim), [text("still here")]);
    let mut late = Web::open(&mut sim, "/ws/news");
    let got = late.got(&mut sim);
    got.iter().for_each(|(_, payload)| late.send(&mut sim, 0x8a, payload));
    late.send(&mut sim, 0x81, b"late");
    assert!(late.got(&mut sim).contains(&text("late")));
}

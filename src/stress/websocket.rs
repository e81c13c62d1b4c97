//! WebSocket as a client speaks it (RFC 6455): the upgrade, and the frames after it; sans-IO.
//!
//! A run has one key and one mask. RFC 6455 wants new ones for each connection and frame, which
//! protects proxies from a hostile page. A server cannot tell the difference, and a request that
//! is made once can be sent any number of times.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::{ANSWER_MAX, Answer};
use super::args::ShapeName;
use super::http::{Head, listed};
use super::plan::{MESSAGE_DIGITS, Plan};
use super::request::HttpRequest;
use super::target::{Scheme, Target};
use crate::codec::websocket::{
    Decoded, Decoder, Opcode, Role, accept_key, encode_masked, parse_close,
};

/// The close code of a connection whose Close frame has none: RFC 6455, section 7.4.1.
const NO_CODE: u16 = 1005;

/// Length that a client of `announce` announces over WebSocket and HTTP, in bytes. Common servers
/// accept it: the default limit of nginx and of the Python library websockets is 1 MiB.
pub const ANNOUNCED: u64 = 1 << 20;

/// Payload of the pings of the load.
const PING: &[u8] = b"slabd stress";

/// The reasons why an answer is wrong.
const NO_UPGRADE: &str = "wrong answer: 101 without Upgrade: websocket and Connection: Upgrade";
const ACCEPT: &str = "wrong answer: Sec-WebSocket-Accept does not fit the key";
const EXTENSION: &str = "wrong answer: an extension that was not offered";
const FRAME: &str = "wrong answer: a malformed WebSocket frame";
const ECHO: &str = "wrong answer: not the message that was sent";

/// What counts as the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AnswerKind {
    /// The message with this payload, after the number of its connection.
    Echo(Vec<u8>),
    /// Any message.
    Message,
    /// The pong of a ping.
    Pong,
}

/// The requests of a run over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketForm {
    expected: AnswerKind,
    key: String,
    mask: [u8; 4],
    offers_extensions: bool,
}

impl WebSocketForm {
    /// Returns the form of a plan's requests, whose messages have this payload. A ping is the
    /// request of a shape that needs no echo, because every server answers it.
    pub fn new(plan: &Plan, payload: &[u8]) -> WebSocketForm {
        let mut rng = fastrand::Rng::new();
        WebSocketForm {
            expected: match plan.shape {
                _ if plan.send.is_some() => AnswerKind::Message,
                ShapeName::Fanout => AnswerKind::Message,
                _ if plan.target.scheme == Scheme::SocketIo => AnswerKind::Message,
                shape if shape.sends_messages() => {
                    AnswerKind::Echo(payload[MESSAGE_DIGITS.min(payload.len())..].into())
                }
                _ => AnswerKind::Pong,
            },
            key: STANDARD.encode(rng.u128(..).to_be_bytes()),
            mask: rng.u32(..).to_be_bytes(),
            offers_extensions: plan.request.has_header("sec-websocket-extensions"),
        }
    }

    /// Returns the request that begins a connection.
    pub fn upgrade(&self, request: &HttpRequest, target: &Target) -> Vec<u8> {
        let mut bytes = request.head(target, "GET", None);
        bytes.extend_from_slice(
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        );
        bytes.extend_from_slice(format!("Sec-WebSocket-Key: {}\r\n\r\n", self.key).as_bytes());
        bytes
    }

    /// Returns one request: a message with the payload, or a ping.
    pub fn request(&self, payload: &[u8]) -> Vec<u8> {
        match self.expected {
            AnswerKind::Pong => self.frame(Opcode::Ping, PING),
            _ => self.message(payload),
        }
    }

    /// Returns the key of the upgrade.
    #[cfg(test)]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns where the number of the connection lies in a request, if there is one.
    pub fn number_at(&self, request: &[u8]) -> Option<usize> {
        match &self.expected {
            AnswerKind::Echo(rest) => Some(request.len() - rest.len() - MESSAGE_DIGITS),
            _ => None,
        }
    }

    /// Returns the digits of a connection's number, as they are in a frame.
    pub fn masked(&self, number: u32) -> [u8; MESSAGE_DIGITS] {
        let mut digits = digits(number);
        digits.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= self.mask[index % 4]);
        digits
    }

    /// Returns a message: text if it is UTF-8, else binary.
    pub fn message(&self, payload: &[u8]) -> Vec<u8> {
        let is_text = std::str::from_utf8(payload).is_ok();
        self.frame(if is_text { Opcode::Text } else { Opcode::Binary }, payload)
    }

    pub fn pong(&self, payload: &[u8]) -> Vec<u8> {
        self.frame(Opcode::Pong, payload)
    }

    pub fn close(&self, code: u16) -> Vec<u8> {
        let code = code.to_be_bytes();
        self.frame(Opcode::Close, if code == NO_CODE.to_be_bytes() { &[] } else { &code })
    }

    /// Returns a fragment of one byte, of a message that never ends.
    pub fn fragment(&self, is_first: bool) -> Vec<u8> {
        let [a, b, c, d] = self.mask;
        vec![u8::from(is_first), 0x81, a, b, c, d, b'a' ^ a]
    }

    /// Returns the head of a message of 1 MiB.
    pub fn announcement(&self) -> Vec<u8> {
        [&[0x82, 0xff][..], &ANNOUNCED.to_be_bytes(), &self.mask].concat()
    }

    fn frame(&self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_masked(&mut bytes, opcode, payload, self.mask);
        bytes
    }
}

fn digits(number: u32) -> [u8; MESSAGE_DIGITS] {
    let digit = |index: usize| b"0123456789abcdef"[(number >> (28 - 4 * index) & 15) as usize];
    std::array::from_fn(digit)
}

/// The place of a connection in what its server sends.
pub struct FrameReader {
    is_upgraded: bool,
    /// Number of the connection.
    number: u32,
    decoder: Decoder,
}

impl FrameReader {
    pub fn new(number: u32) -> FrameReader {
        FrameReader { is_upgraded: false, number, decoder: Decoder::new(Role::Client) }
    }

    /// True within a message of several frames.
    pub fn is_within(&self) -> bool {
        self.decoder.is_begun()
    }

    /// Finds the answer, message or control frame at the front of `bytes`. The first one is the
    /// answer to the upgrade.
    pub fn take(&mut self, form: &WebSocketForm, bytes: &mut [u8]) -> Answer {
        if !self.is_upgraded {
            return self.upgrade(form, bytes);
        }
        let skip = |length| Answer::Part { length, is_error: false };
        match self.decoder.decode(bytes, ANSWER_MAX) {
            Ok(Decoded::Message { payload, used, .. }) => {
                self.decoder.taken();
                let text = &bytes[payload.clone()];
                match &form.expected {
                    AnswerKind::Echo(rest) => self.echo(rest, text, used),
                    // A channel may have publishers.
                    AnswerKind::Pong => skip(used),
                    AnswerKind::Message => {
                        let is_error = text.starts_with(b"{\"error\":");
                        Answer::Message { payload, length: used, is_error }
                    }
                }
            }
            Ok(Decoded::Control { opcode: Opcode::Ping, payload, used }) => {
                Answer::Ping { payload, length: used }
            }
            Ok(Decoded::Control { opcode: Opcode::Close, payload, used }) => {
                match parse_close(&bytes[payload.clone()]) {
                    Ok(Some((code, _))) => {
                        Answer::Close { code, reason: payload.start + 2..payload.end, length: used }
                    }
                    Ok(None) => Answer::Close { code: NO_CODE, reason: 0..0, length: used },
                    Err(_) => Answer::Wrong(FRAME),
                }
            }
            Ok(Decoded::Control { payload, used, .. }) => {
                let is_answer = form.expected == AnswerKind::Pong && bytes[payload] == *PING;
                match is_answer {
                    true => Answer::Whole { length: used, is_error: false, is_last: false },
                    false => skip(used),
                }
            }
            Ok(Decoded::Incomplete { used: 0 }) => {
                Answer::Incomplete { needs: self.decoder.needs(bytes.len()) }
            }
            Ok(Decoded::Incomplete { used }) => skip(used),
            Err(_) => Answer::Wrong(FRAME),
        }
    }

    /// Compares a message with the one that was sent. A message of another connection is no answer.
    fn echo(&self, rest: &[u8], text: &[u8], length: usize) -> Answer {
        let (number, found) = text.split_at(text.len().min(MESSAGE_DIGITS));
        let is_number = number.iter().all(u8::is_ascii_hexdigit);
        if found != rest || !is_number {
            return Answer::Wrong(ECHO);
        }
        match number == digits(self.number) {
            true => Answer::Whole { length, is_error: false, is_last: false },
            false => Answer::Part { length, is_error: false },
        }
    }

    /// Reads the answer to the upgrade, and checks it: RFC 6455, section 4.1.
    fn upgrade(&mut self, form: &WebSocketForm, bytes: &[u8]) -> Answer {
        let (mut upgrades, mut connects, mut fits, mut extends) = (false, false, false, false);
        let accept = accept_key(form.key.as_bytes());
        let head = Head::read(bytes, &mut |name, value| {
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            if is(b"upgrade") {
                upgrades |= value.eq_ignore_ascii_case(b"websocket");
            } else if is(b"connection") {
                connects |= listed(value).any(|word| word.eq_ignore_ascii_case(b"upgrade"));
            } else if is(b"sec-websocket-accept") {
                fits = accept.is_some_and(|accept| value == accept);
            } else if is(b"sec-websocket-extensions") {
                extends = !value.is_empty() && !form.offers_extensions;
            }
        });
        match head {
            Ok(None) => Answer::Incomplete { needs: bytes.len() + 1 },
            Err(why) => Answer::Wrong(why),
            // The body says why, and no other answer follows it.
            Ok(Some(head)) if head.status != 101 => {
                Answer::Whole { length: bytes.len(), is_error: true, is_last: true }
            }
            Ok(Some(_)) if !upgrades || !connects => Answer::Wrong(NO_UPGRADE),
            Ok(Some(_)) if !fits => Answer::Wrong(ACCEPT),
            Ok(Some(_)) if extends => Answer::Wrong(EXTENSION),
            Ok(Some(head)) => {
                self.is_upgraded = true;
                Answer::Whole { length: head.length, is_error: false, is_last: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 20;

    fn form(shape: &str) -> WebSocketForm {
        let plan = Plan { size: SIZE, ..Plan::of(shape, "ws://127.0.0.1/x").unwrap() };
        WebSocketForm::new(&plan, &[b'.'; SIZE])
    }

    /// Reads bytes that arrive in parts of `step`, as the driver does. Returns the answers, with
    /// their payloads, and the number of bytes that are kept.
    fn read(form: &WebSocketForm, bytes: &[u8], step: usize) -> (Vec<(Answer, Vec<u8>)>, usize) {
        let mut reader = FrameReader::new(7);
        let (mut kept, mut answers) = (Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            kept.extend_from_slice(part);
            while !kept.is_empty() {
                let answer = reader.take(form, &mut kept);
                let (length, payload) = match &answer {
                    Answer::Part { length, .. } => {
                        kept.drain(..*length);
                        continue;
                    }
                    Answer::Incomplete { needs } => {
                        assert!(*needs > kept.len());
                        break;
                    }
                    Answer::Whole { length, .. } => (*length, 0..0),
                    Answer::Message { payload, length, .. } | Answer::Ping { payload, length } => {
                        (*length, payload.clone())
                    }
                    Answer::Close { reason, length, .. } => (*length, reason.clone()),
                    Answer::Opened { .. } | Answer::EnginePing { .. } => panic!("{answer:?}"),
                    Answer::Wrong(_) => {
                        answers.push((answer, Vec::new()));
                        return (answers, 0);
                    }
                };
                answers.push((answer.clone(), kept[payload].to_vec()));
                kept.drain(..length);
            }
        }
        (answers, kept.len())
    }

    fn upgraded(form: &WebSocketForm) -> String {
        let accept = accept_key(form.key.as_bytes()).unwrap();
        let accept = String::from_utf8_lossy(&accept);
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nServer: x\r\n\
             Connection: keep-alive, upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    }

    #[test]
    fn the_upgrade_is_a_request_of_the_rfc() {
        let plan = Plan::of("ping", "ws://me:pw@127.0.0.1:9/ws/a?b").unwrap();
        let form = WebSocketForm::new(&plan, b"");
        let request = String::from_utf8(form.upgrade(&plan.request, &plan.target)).unwrap();
        assert!(request.starts_with("GET /ws/a?b HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"), "{request}");
        for line in [
            "Authorization: Basic bWU6cHc=",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
        ] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
        }
        assert!(request.ends_with(&format!("Sec-WebSocket-Key: {}\r\n\r\n", form.key)));
        assert_ne!(form.key, WebSocketForm::new(&plan, b"").key, "another run has another key");
    }

    #[test]
    fn the_answer_to_the_upgrade_is_checked() {
        let form = form("ping");
        let good = upgraded(&form);
        let with = |old: &str, new: &str| good.replace(old, new);
        for (head, expected) in [
            (with("keep-alive, upgrade", "close"), Answer::Wrong(NO_UPGRADE)),
            (with("upgrade: WebSocket", "upgrade: h2c"), Answer::Wrong(NO_UPGRADE)),
            (with("Accept: ", "Accept: x"), Answer::Wrong(ACCEPT)),
            (with("Sec-WebSocket-Accept", "X"), Answer::Wrong(ACCEPT)),
            (
                with("Server: x", "Sec-WebSocket-Extensions: permessage-deflate"),
                Answer::Wrong(EXTENSION),
            ),
            (with("HTTP/1.1", "HTTP/3"), Answer::Wrong("wrong answer: no status line of HTTP/1")),
        ] {
            for step in [1, 7, head.len()] {
                assert_eq!(read(&form, head.as_bytes(), step).0[0].0, expected, "{head}");
            }
        }
        let no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
        let refused = Answer::Whole { length: no.len(), is_error: true, is_last: true };
        assert_eq!(read(&form, no, no.len()).0, [(refused, vec![])]);
        let whole = Answer::Whole { length: good.len(), is_error: false, is_last: false };
        for step in [1, 7, good.len()] {
            assert_eq!(read(&form, good.as_bytes(), step), (vec![(whole.clone(), vec![])], 0));
        }
    }

    /// Returns what a form makes of frames behind the upgrade, however these are cut.
    fn answers(form: &WebSocketForm, frames: &[u8]) -> Vec<(Answer, Vec<u8>)> {
        let bytes = [upgraded(form).as_bytes(), frames].concat();
        let whole = read(form, &bytes, bytes.len());
        for step in [1, 2, 3, 7] {
            let (cut, kept) = read(form, &bytes, step);
            let payloads = |answers: &[(Answer, Vec<u8>)]| -> Vec<Vec<u8>> {
                answers.iter().map(|(_, payload)| payload.clone()).collect()
            };
            assert_eq!((payloads(&cut), kept), (payloads(&whole.0), whole.1), "by {step}");
        }
        whole.0[1..].to_vec()
    }

    fn frames(frames: &[(Opcode, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(opcode, payload)| {
            crate::codec::websocket::encode(&mut bytes, *opcode, payload);
        });
        bytes
    }

    fn is_answer((answer, _): &(Answer, Vec<u8>)) -> bool {
        matches!(answer, Answer::Whole { is_error: false, .. })
    }

    #[test]
    fn an_echo_answers_its_own_connection_only() {
        let form = form("ping");
        let rest = [b'.'; SIZE - MESSAGE_DIGITS];
        let own = [&b"00000007"[..], &rest].concat();
        let others = [&b"0000000a"[..], &rest].concat();
        let found = answers(
            &form,
            &frames(&[
                (Opcode::Text, &others),
                (Opcode::Text, &own),
                (Opcode::Pong, PING),
                (Opcode::Binary, &own),
            ]),
        );
        assert!(found.len() == 2 && found.iter().all(is_answer), "{found:?}");
        for wrong in [&own[1..], &[&own[..], b"."].concat(), &[b'x'; SIZE], b""] {
            let found = answers(&form, &frames(&[(Opcode::Text, wrong)]));
            assert_eq!(found[0].0, Answer::Wrong(ECHO), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_pong_answers_a_ping_and_messages_are_no_answers() {
        let form = form("hold");
        let found = answers(
            &form,
            &frames(&[
                (Opcode::Text, b"news"),
                (Opcode::Pong, b""),
                (Opcode::Ping, b"?"),
                (Opcode::Pong, PING),
            ]),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((&found[0].1[..], is_answer(&found[1])), (&b"?"[..], true), "{found:?}");
    }

    #[test]
    fn a_message_in_fragments_with_a_ping_between_them_is_whole() {
        let form = form("fanout");
        let found = answers(&form, b"\x01\x02he\x00\x01l\x89\x01!\x80\x02lo\x81\x03two");
        let payloads: Vec<&[u8]> = found.iter().map(|(_, payload)| &payload[..]).collect();
        assert_eq!(payloads, [&b"!"[..], b"hello", b"two"]);
        let errors = answers(&form, &frames(&[(Opcode::Text, b"{\"error\":\"no\"}")]));
        assert!(matches!(errors[0].0, Answer::Message { is_error: true, .. }), "{errors:?}");
    }

    #[test]
    fn a_close_gives_its_code_and_reason() {
        let form = form("hold");
        for (payload, code, reason) in
            [(&b"\x03\xf5slow"[..], 1013, &b"slow"[..]), (b"\x03\xe9", 1001, b""), (b"", 1005, b"")]
        {
            let found = answers(&form, &frames(&[(Opcode::Close, payload)]));
            assert!(matches!(found[0].0, Answer::Close { code: got, .. } if got == code));
            assert_eq!(found[0].1, reason);
        }
        for wrong in [&b"\x88\x01a"[..], b"\x88\x02\x00\x01", b"\x83\x00", b"\x81\x80....", b"\x09"]
        {
            let found = answers(&form, wrong);
            assert_eq!(found[0].0, Answer::Wrong(FRAME), "{}", wrong.escape_ascii());
        }
    }

    /// Decodes frames as a server does, which refuses frames without a mask.
    fn served(bytes: &[u8]) -> Vec<(Opcode, Vec<u8>)> {
        let (mut bytes, mut found) = (bytes.to_vec(), Vec::new());
        let mut decoder = Decoder::new(Role::Server);
        loop {
            let (opcode, payload, used) = match decoder.decode(&mut bytes, 1 << 20).unwrap() {
                Decoded::Message { opcode, payload, used } => {
                    decoder.taken();
                    (opcode, payload, used)
                }
                Decoded::Control { opcode, payload, used } => (opcode, payload, used),
                Decoded::Incomplete { .. } => return found,
            };
            found.push((opcode, bytes[payload].to_vec()));
            bytes.drain(..used);
        }
    }

    #[test]
    fn a_long_message_is_joined_once_for_each_of_its_frames() {
        let form = form("fanout");
        let mut reader = FrameReader::new(7);
        reader.is_upgraded = true;
        let frame = |first: u8, length: u64| {
            let head = [&[first, 127][..], &length.to_be_bytes()].concat();
            [head, vec![b'a'; length as usize]].concat()
        };
        let mut bytes = [frame(0x01, 70_000), frame(0x80, 80_000)].concat();
        let whole = bytes.len();
        // The first frame keeps its head, and the decoder has taken off the head of the second.
        for (arrived, needs) in [(1, 2), (9, 10), (10, 70_010), (70_009, 70_010), (70_011, 70_012)]
        {
            let mut reader = FrameReader::new(7);
            reader.is_upgraded = true;
            let answer = reader.take(&form, &mut bytes.clone()[..arrived]);
            assert_eq!(answer, Answer::Incomplete { needs }, "{arrived}");
        }
        let answer = reader.take(&form, &mut bytes[..70_020]);
        assert_eq!(answer, Answer::Incomplete { needs: whole });
        let answer = reader.take(&form, &mut bytes);
        assert!(matches!(answer, Answer::Message { length, .. } if length == whole), "{answer:?}");
    }

    #[test]
    fn a_server_reads_the_frames_of_a_client() {
        let pings = form("hold");
        assert_eq!(served(&pings.request(b"unused")), [(Opcode::Ping, PING.to_vec())]);
        assert_eq!(served(&pings.pong(b"x")), [(Opcode::Pong, b"x".to_vec())]);
        assert_eq!(served(&pings.close(1000)), [(Opcode::Close, b"\x03\xe8".to_vec())]);
        assert_eq!(served(&pings.close(NO_CODE)), [(Opcode::Close, vec![])]);
        assert_eq!(served(&pings.message(b"\xff")), [(Opcode::Binary, vec![0xff])]);
        let fragments = [pings.fragment(true), pings.fragment(false)].concat();
        let end = [0x80, 0x80, 0, 0, 0, 0];
        assert_eq!(served(&[&fragments[..], &end].concat()), [(Opcode::Text, b"aa".to_vec())]);
        assert_eq!(pings.announcement().len(), 14);
        assert!(matches!(
            Decoder::new(Role::Server).decode(&mut pings.announcement(), (1 << 20) - 1),
            Err(crate::codec::websocket::CloseCode::TooBig)
        ));
    }

    #[test]
    fn a_request_has_the_number_of_its_connection() {
        for size in [MESSAGE_DIGITS, SIZE, 126, 70_000] {
            let plan = Plan { size, ..Plan::of("ping", "ws://127.0.0.1/x").unwrap() };
            let mut wire = crate::stress::wire::Wire::new(&plan, 3);
            for number in [0, 0xffff_ffff, 0x89ab_cdef] {
                let found = served(wire.requests(2, number));
                assert_eq!(found.len(), 2);
                for (opcode, payload) in found {
                    let text = format!("{number:08x}");
                    assert_eq!((opcode, payload.len()), (Opcode::Text, size));
                    assert!(payload.starts_with(text.as_bytes()), "{}", payload.escape_ascii());
                }
            }
        }
    }
}

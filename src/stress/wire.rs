//! The requests of each scheme, and the search for the end of an answer; sans-IO.

use super::answer::{ANSWER_MAX, Answer, WRONG};
use super::events::EventReader;
use super::http::{Asked, Reader, is_idempotent};
use super::plan::Plan;
use super::resp::{command, resp_reply};
use super::socketio::polling::{Courier, PollingPeer};
use super::socketio::{SocketIoForm, SocketIoReader};
use super::target::Scheme;
use super::websocket::{FrameReader, WebSocketForm};

/// The form of requests and answers.
#[derive(Clone, Debug)]
pub struct Wire {
    form: WireForm,
    /// Bytes to send first on each connection, such as AUTH.
    prelude: Vec<u8>,
    /// Number of answers to the prelude.
    pub prelude_answers: u32,
    /// Requests for a full pipeline, back to back.
    batch: Vec<u8>,
    request_length: usize,
    /// Where the number of the connection lies in a request, if there is one.
    number_at: Option<usize>,
    /// True if a request may be sent again after a connection ended: RFC 9110, section 9.2.2.
    is_repeatable: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum WireForm {
    /// The answer has the bytes of the request.
    Echo,
    /// The answer is one line.
    Line,
    Resp,
    /// The answer ends as the method of the request says.
    Http(Asked),
    WebSocket(WebSocketForm),
    SocketIo(Box<SocketIoForm>),
    /// There are no requests but the one that asks for the stream.
    Events,
}

/// The place of a connection in what its server sends. Only connections that need much of it pay
/// for it: a run may hold a million others.
pub enum Incoming {
    /// Among answers. Only those of HTTP have places within.
    Answers(Reader),
    Frames(Box<FrameReader>),
    Events(Box<EventReader>),
    SocketIo(Box<SocketIoReader>),
    /// Before the answer to a post.
    Courier(Box<Courier>),
}

impl Incoming {
    /// True within an answer: an end of the connection would cut it short.
    pub fn is_within(&self) -> bool {
        match self {
            Incoming::Answers(reader) => reader.is_within(),
            Incoming::Frames(reader) => reader.is_within(),
            Incoming::SocketIo(reader) => reader.is_within(),
            Incoming::Courier(courier) => courier.reader.is_within(),
            Incoming::Events(_) => false,
        }
    }

    /// Returns the polls of the client, if it polls.
    pub fn polls(&mut self) -> Option<&mut PollingPeer> {
        match self {
            Incoming::SocketIo(reader) => reader.polls(),
            _ => None,
        }
    }

    /// Takes the end of the connection. If it completes an answer, returns whether that is an
    /// error.
    pub fn end(&mut self) -> Option<bool> {
        match self {
            Incoming::Answers(reader) => reader.end(),
            _ => None,
        }
    }
}

const fn whole(length: usize) -> Answer {
    Answer::Whole { length, is_error: false, is_last: false }
}

impl Wire {
    /// Returns the form of a plan's requests, of which at most `pipeline` are sent at once.
    pub fn new(plan: &Plan, pipeline: usize) -> Wire {
        let (target, payload) = (&plan.target, payload(plan.size));
        let method = match &plan.send {
            Some(request) => request.split(u8::is_ascii_whitespace).next().unwrap_or_default(),
            None => plan.request.method().as_bytes(),
        };
        let form = match (target.scheme, &plan.send) {
            (Scheme::Tcp | Scheme::Udp, None) => WireForm::Echo,
            (Scheme::Tcp | Scheme::Udp, Some(_)) => WireForm::Line,
            (Scheme::Resp, _) => WireForm::Resp,
            (Scheme::Http, _) => WireForm::Http(Asked::of(method)),
            (Scheme::WebSocket, _) => WireForm::WebSocket(WebSocketForm::new(plan, &payload)),
            (Scheme::SocketIo, _) => {
                WireForm::SocketIo(Box::new(SocketIoForm::new(plan, &payload)))
            }
            (Scheme::Events, _) => WireForm::Events,
        };
        let request = match (&form, &plan.send) {
            (WireForm::WebSocket(form), send) => form.request(send.as_deref().unwrap_or(&payload)),
            (WireForm::SocketIo(form), _) => form.request(plan, &payload),
            (WireForm::Events, _) => Vec::new(),
            (_, Some(request)) => request.clone(),
            (WireForm::Echo | WireForm::Line, None) => {
                [&payload[..payload.len() - 1], b"\n"].concat()
            }
            // Without a payload, this is the request of redis-benchmark.
            (WireForm::Resp, None) if plan.size <= 4 => command(&[b"PING"]),
            (WireForm::Resp, None) => command(&[b"PING", &payload]),
            (WireForm::Http(_), None) => plan.request.bytes(target),
        };
        let prelude = match &form {
            WireForm::Resp => target.login(),
            WireForm::WebSocket(form) => vec![form.upgrade(&plan.request, target)],
            WireForm::SocketIo(form) => vec![form.open().to_vec()],
            WireForm::Events => vec![plan.request.events(target)],
            _ => Vec::new(),
        };
        let number_at = match &form {
            WireForm::WebSocket(form) => form.number_at(&request),
            _ => None,
        };
        Wire {
            form,
            prelude_answers: prelude.len() as u32,
            prelude: prelude.concat(),
            request_length: request.len(),
            number_at,
            batch: request.repeat(pipeline.max(1)),
            is_repeatable: target.scheme == Scheme::Http && is_idempotent(method),
        }
    }

    /// True if a request may be sent again after a connection ended.
    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// True if an error reply to the first request refuses the connection itself. Over HTTP it is
    /// the answer to a request.
    pub fn refuses_connections(&self) -> bool {
        self.form == WireForm::Resp
    }

    /// Returns the name of the prelude, for the reason why a connection failed.
    pub fn prelude_name(&self) -> &'static str {
        match self.form {
            WireForm::WebSocket(_) => "upgrade",
            WireForm::SocketIo(_) => "Socket.IO connect",
            WireForm::Events => "event stream",
            _ => "login",
        }
    }

    /// True if the server may send messages that nobody asked for.
    pub fn is_pushed_to(&self) -> bool {
        matches!(self.form, WireForm::WebSocket(_) | WireForm::SocketIo(_) | WireForm::Events)
    }

    /// Returns the frames of WebSocket; `None` in other forms.
    pub fn websocket(&self) -> Option<&WebSocketForm> {
        match &self.form {
            WireForm::WebSocket(form) => Some(form),
            WireForm::SocketIo(form) => form.websocket(),
            _ => None,
        }
    }

    /// Returns the packets of Socket.IO; `None` in other forms.
    pub fn socketio(&self) -> Option<&SocketIoForm> {
        match &self.form {
            WireForm::SocketIo(form) => Some(form),
            _ => None,
        }
    }

    /// Returns the place at which a connection with this number begins.
    pub fn incoming(&self, number: u32) -> Incoming {
        match &self.form {
            WireForm::WebSocket(_) => Incoming::Frames(Box::new(FrameReader::new(number))),
            WireForm::SocketIo(form) => {
                Incoming::SocketIo(Box::new(SocketIoReader::new(form, number)))
            }
            WireForm::Events => Incoming::Events(Box::default()),
            _ => Incoming::Answers(Reader::default()),
        }
    }

    /// Returns the bytes to send first on each connection; empty if there are none.
    pub fn prelude(&self) -> &[u8] {
        &self.prelude
    }

    /// Returns the bytes of `count` requests of a connection with this number, at most those of a
    /// full pipeline.
    pub fn requests(&mut self, count: usize, number: u32) -> &[u8] {
        let length = count * self.request_length;
        debug_assert!(length <= self.batch.len(), "{count} requests at once");
        let length = length.min(self.batch.len());
        let requests = &mut self.batch[..length];
        if let (WireForm::WebSocket(form), Some(at)) = (&self.form, self.number_at) {
            let digits = form.masked(number);
            for request in requests.chunks_exact_mut(self.request_length) {
                request[at..at + digits.len()].copy_from_slice(&digits);
            }
        }
        requests
    }

    /// Returns the bytes of one request.
    pub fn request(&self) -> &[u8] {
        &self.batch[..self.request_length]
    }

    /// Finds the answer at the front of the received bytes. `incoming` is the connection's place.
    pub fn answer(&self, incoming: &mut Incoming, bytes: &mut [u8]) -> Answer {
        if bytes.is_empty() {
            return Answer::Incomplete { needs: 1 };
        }
        let reader = match (incoming, &self.form) {
            (Incoming::Answers(reader), _) => reader,
            (Incoming::Frames(reader), WireForm::WebSocket(form)) => {
                return reader.take(form, bytes);
            }
            (Incoming::SocketIo(reader), WireForm::SocketIo(form)) => {
                return reader.take(form, bytes);
            }
            (Incoming::Frames(_) | Incoming::SocketIo(_), _) => return Answer::Wrong(WRONG),
            (Incoming::Courier(courier), _) => return courier.reader.take(Asked::Other, bytes),
            (Incoming::Events(reader), _) => return reader.take(bytes),
        };
        let bytes = &*bytes;
        let answer = match &self.form {
            WireForm::Http(asked) => return reader.take(*asked, bytes),
            // The answers to a publisher, or to guesses.
            WireForm::Events | WireForm::WebSocket(_) | WireForm::SocketIo(_) => {
                return reader.take(Asked::Other, bytes);
            }
            WireForm::Echo => {
                let request = self.request();
                let known = bytes.len().min(request.len());
                match bytes[..known] == request[..known] {
                    false => Answer::Wrong(WRONG),
                    true if known < request.len() => Answer::Incomplete { needs: request.len() },
                    true => whole(known),
                }
            }
            WireForm::Line => match memchr::memchr(b'\n', bytes) {
                None => Answer::Incomplete { needs: bytes.len() + 1 },
                Some(at) => Answer::Whole {
                    length: at + 1,
                    is_error: is_error_reply(bytes),
                    is_last: false,
                },
            },
            WireForm::Resp => resp_reply(bytes),
        };
        match answer {
            Answer::Incomplete { needs } if needs.max(bytes.len()) > ANSWER_MAX => {
                Answer::Wrong(WRONG)
            }
            answer => answer,
        }
    }
}

/// True for the text of an error: of Redis, or of memcached.
pub fn is_error_reply(text: &[u8]) -> bool {
    [&b"-"[..], b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR "]
        .iter()
        .any(|begin| text.starts_with(begin))
}

/// Returns a payload of changing characters, so that a shifted answer does not match.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size.max(1)).map(|index| b"abcdefghijklmnopqrstuvwxyz0123456789"[index % 36]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks an answer whole, cut at every byte, and followed by another.
    fn check(wire: &Wire, answer: &[u8], expected: Answer) {
        assert_eq!(answered(wire, answer), expected, "{}", answer.escape_ascii());
        for end in 0..answer.len() {
            let Answer::Incomplete { needs } = answered(wire, &answer[..end]) else {
                panic!("{}", answer[..end].escape_ascii())
            };
            assert!(
                (end + 1..=answer.len()).contains(&needs),
                "{needs} of {end}: {}",
                answer.escape_ascii()
            );
        }
        let behind = [answer, answer].concat();
        assert_eq!(answered(wire, &behind), expected, "{} twice", answer.escape_ascii());
    }

    fn answered(wire: &Wire, bytes: &[u8]) -> Answer {
        wire.answer(&mut wire.incoming(1), &mut bytes.to_vec())
    }

    fn wire(target: &str) -> Wire {
        Wire::new(&Plan::of("ping", target).unwrap(), 2)
    }

    #[test]
    fn the_end_of_a_resp_reply_is_found() {
        let mut wire = wire("resp://127.0.0.1");
        assert_eq!(wire.requests(2, 1), b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
        for reply in [
            "+PONG\r\n",
            ":12\r\n",
            "$3\r\nabc\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n$1\r\na\r\n*1\r\n:1\r\n+x\r\n",
            "%1\r\n+a\r\n*2\r\n+b\r\n+c\r\n",
            "|1\r\n+a\r\n+b\r\n+c\r\n",
            ">2\r\n+a\r\n_\r\n",
            "=5\r\ntxt:a\r\n",
            ",1.5\r\n",
        ] {
            check(&wire, reply.as_bytes(), whole(reply.len()));
        }
        let error = Answer::Whole { length: 6, is_error: true, is_last: false };
        check(&wire, b"-ERR\r\n", error);
        // An error inside an array is a value.
        check(&wire, b"*1\r\n-E\r\n", whole(8));
        for wrong in [
            "x\r\n",
            "\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*99999999999\r\n",
            "+a\n",
            "$9999999999999999999\r\n",
        ] {
            assert_eq!(answered(&wire, wrong.as_bytes()), Answer::Wrong(WRONG), "{wrong:?}");
        }
        // Deep nesting needs no stack.
        assert!(matches!(
            answered(&wire, "*1\r\n".repeat(200_000).as_bytes()),
            Answer::Incomplete { .. }
        ));
    }

    #[test]
    fn the_prelude_logs_in_and_selects_the_database() {
        for (target, prelude, answers) in [
            ("resp://:word@127.0.0.1", "*2\r\n$4\r\nAUTH\r\n$4\r\nword\r\n", 1),
            ("redis://me:a%20b@[::1]/", "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$3\r\na b\r\n", 1),
            ("redis://127.0.0.1/7", "*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n", 1),
            (
                "resp://x@127.0.0.1:9/1",
                "*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
                2,
            ),
            ("resp://127.0.0.1", "", 0),
        ] {
            let wire = wire(target);
            assert_eq!(String::from_utf8_lossy(wire.prelude()), prelude, "{target}");
            assert_eq!(wire.prelude_answers, answers, "{target}");
        }
    }

    #[test]
    fn the_method_of_a_request_decides_where_its_answer_ends() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let mut plan = Plan::of("ping", "http://127.0.0.1/x").unwrap();
        let reads = |plan: &Plan| answered(&Wire::new(plan, 1), answer);
        let part = Answer::Part { length: answer.len(), is_error: false };
        assert_eq!(reads(&plan), part);
        plan.send = Some(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
        assert_eq!(reads(&plan), whole(answer.len()));
        plan.send = Some(b"HEADER / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
        assert_eq!(reads(&plan), part);
    }

    #[test]
    fn an_echo_is_the_request_and_a_line_is_any_line() {
        let echo = wire("tcp://127.0.0.1:1");
        check(&echo, b"ab\n", whole(3));
        assert_eq!(answered(&echo, b"ax"), Answer::Wrong(WRONG));
        let mut plan = Plan::of("ping", "tcp://127.0.0.1:1").unwrap();
        plan.send = Some(b"version\r\n".to_vec());
        let line = Wire::new(&plan, 1);
        assert_eq!(line.request(), b"version\r\n");
        check(&line, b"VERSION 1\r\n", whole(11));
    }
}

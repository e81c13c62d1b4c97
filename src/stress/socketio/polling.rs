//! Engine.IO by polling: the requests of one client, and the packets in the bodies of their
//! answers; sans-IO.
//!
//! A client has one connection. While a poll waits on it, the client can post only on another one.
//! The driver dials such a *courier* for a single request.

use std::collections::VecDeque;

use serde::Deserialize;

use super::{SocketIoForm, WebSocketForm};
use crate::stress::answer::{ANSWER_MAX, Answer, WRONG};
use crate::stress::args::ShapeName;
use crate::stress::http::{Head, Reader};
use crate::token::Token;

/// The byte between two packets of a body.
pub const SEPARATOR: u8 = 0x1e;

/// The reasons why an answer is wrong.
const NO_LENGTH: &str = "wrong answer: a poll without Content-Length";

/// A client that polls.
#[derive(Default)]
pub struct PollingPeer {
    /// The id of the session; empty before it has begun.
    sid: Vec<u8>,
    place: BodyPlace,
    own: OwnRequest,
    /// True while a courier carries packets. Two posts at once would end the session.
    has_courier: bool,
    /// True if the client waits for a courier.
    pub is_queued: bool,
    /// Packets to post.
    out: Vec<u8>,
}

/// The request that the client's own connection waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OwnRequest {
    None,
    /// A connection begins with the request that opens its session.
    #[default]
    Poll,
    Post,
}

/// The place in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyPlace {
    #[default]
    Head,
    /// Within a body, with this many bytes to come.
    Body(usize),
}

/// What a client is to send next.
#[derive(Debug, PartialEq, Eq)]
pub enum PollStep {
    Nothing,
    /// A request on its own connection.
    Own(Vec<u8>),
    /// Packets to post by a courier.
    Courier,
}

/// A connection that posts the packets of a client.
pub struct Courier {
    pub client: Token,
    pub reader: Reader,
}

/// The couriers of a run.
#[derive(Default)]
pub struct Couriers {
    pub busy: usize,
    /// Clients that wait for one.
    pub waiting: VecDeque<Token>,
}

impl PollingPeer {
    /// True within an answer.
    pub fn is_within(&self) -> bool {
        self.place != BodyPlace::Head
    }

    /// True if the client has a session, and no request waits on its own connection.
    pub fn is_free(&self) -> bool {
        self.own == OwnRequest::None && !self.sid.is_empty()
    }

    /// Takes the id of the session from the packet that opens it. Returns false if there is none.
    pub(super) fn open(&mut self, packet: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct OpenPacket {
            sid: String,
        }
        let Ok(OpenPacket { sid }) = serde_json::from_slice(packet) else { return false };
        let is_plain =
            sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        self.sid = sid.into_bytes();
        is_plain && !self.sid.is_empty()
    }

    /// Adds packets to those that wait to be posted.
    pub fn push(&mut self, packets: &[u8]) {
        if !self.out.is_empty() {
            self.out.push(SEPARATOR);
        }
        self.out.extend_from_slice(packets);
    }

    /// Returns what to send next. A client without other requests polls.
    pub fn step(&mut self, form: &SocketIoForm) -> PollStep {
        let may_post = !self.out.is_empty() && !self.has_courier && !self.sid.is_empty();
        match self.own {
            OwnRequest::None if self.sid.is_empty() => PollStep::Nothing,
            OwnRequest::None if may_post => {
                self.own = OwnRequest::Post;
                PollStep::Own(self.take_post(form))
            }
            OwnRequest::None => {
                self.own = OwnRequest::Poll;
                PollStep::Own(self.poll(form))
            }
            OwnRequest::Poll if may_post => PollStep::Courier,
            OwnRequest::Poll | OwnRequest::Post => PollStep::Nothing,
        }
    }

    /// Returns the request with the packets that wait, for a courier.
    pub fn give_courier(&mut self, form: &SocketIoForm) -> Vec<u8> {
        self.has_courier = true;
        self.take_post(form)
    }

    /// Takes the end of the courier.
    pub fn courier_ended(&mut self) {
        self.has_courier = false;
    }

    fn poll(&self, form: &SocketIoForm) -> Vec<u8> {
        form.poll.of(&self.sid)
    }

    fn take_post(&mut self, form: &SocketIoForm) -> Vec<u8> {
        let packets = std::mem::take(&mut self.out);
        let mut request = self.post_head(form, packets.len());
        request.extend_from_slice(&packets);
        request
    }

    fn post_head(&self, form: &SocketIoForm, length: usize) -> Vec<u8> {
        [form.post.of(&self.sid), format!("{length}\r\n\r\n").into_bytes()].concat()
    }

    /// Returns the request that ends the session.
    pub fn farewell(&mut self, form: &SocketIoForm) -> Vec<u8> {
        self.push(&form.disconnect());
        self.push(b"1");
        self.take_post(form)
    }

    /// Returns the bytes with which the client of a flood attacks once it has a session.
    pub fn attack(&self, form: &SocketIoForm, kind: ShapeName) -> Vec<u8> {
        match kind {
            // A probe of the upgrade, which is never completed.
            ShapeName::HalfUpgrade => {
                let probe = WebSocketForm::message(&form.websocket, super::PROBE);
                [form.upgrade.of(&self.sid), probe].concat()
            }
            ShapeName::Announce => self.post_head(form, super::ANNOUNCED_BODY),
            _ => self.poll(form),
        }
    }

    /// Finds the packet at the front of `bytes`: a message whose payload is the packet.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Answer {
        let left = match self.place {
            BodyPlace::Head => return self.head(bytes),
            BodyPlace::Body(left) => left,
        };
        let body = &bytes[..bytes.len().min(left)];
        // The body of the answer to a post is `ok`.
        let is_post = self.own == OwnRequest::Post;
        let separator = if is_post { None } else { memchr::memchr(SEPARATOR, body) };
        let (end, length) = match separator {
            Some(at) => (at, at + 1),
            None if body.len() == left || is_post => (body.len(), body.len()),
            None => return Answer::Incomplete { needs: left },
        };
        self.place = BodyPlace::Body(left - length);
        if left == length {
            (self.place, self.own) = (BodyPlace::Head, OwnRequest::None);
        }
        match is_post {
            true => Answer::Part { length, is_error: false },
            false => Answer::Message { payload: 0..end, length, is_error: false },
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Answer {
        match Head::read(bytes, &mut |_, _| {}) {
            Ok(None) => Answer::Incomplete { needs: bytes.len() + 1 },
            Err(why) => Answer::Wrong(why),
            Ok(Some(head)) if head.status != 200 => {
                Answer::Whole { length: bytes.len(), is_error: true, is_last: true }
            }
            Ok(Some(head)) => match head.body() {
                Some(length) if length > ANSWER_MAX as u64 => Answer::Wrong(WRONG),
                Some(length @ 1..) => {
                    self.place = BodyPlace::Body(length as usize);
                    Answer::Part { length: head.length, is_error: false }
                }
                _ => Answer::Wrong(NO_LENGTH),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stress::args::TransportName;
    use crate::stress::plan::Plan;

    fn form() -> SocketIoForm {
        let plan = Plan::of("ping", "socketio://127.0.0.1:9").unwrap();
        SocketIoForm::new(&Plan { transport: TransportName::Polling, ..plan }, b"abc")
    }

    /// Takes an answer to the client's own request.
    fn answer(client: &mut PollingPeer, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let part = Answer::Part { length: head.len(), is_error: false };
        assert_eq!(client.take(head.as_bytes()), part);
        let mut rest = body.as_bytes();
        while !rest.is_empty() {
            rest = match client.take(rest) {
                Answer::Part { length, .. } | Answer::Message { length, .. } => &rest[length..],
                other => panic!("{other:?}"),
            };
        }
    }

    fn own(step: PollStep) -> String {
        match step {
            PollStep::Own(request) => String::from_utf8(request).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    const POLL: &str =
        "GET /socket.io/?EIO=4&transport=polling&sid=ab HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n";

    fn post(body: &str) -> String {
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid=ab HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn a_client_posts_what_waits_and_polls_again_after_each_answer() {
        let form = form();
        let mut client = PollingPeer::default();
        assert_eq!(client.step(&form), PollStep::Nothing, "the session is not open");
        assert!(client.open(b"{\"sid\":\"ab\"}"));
        answer(&mut client, "0{}");
        client.push(b"40");
        client.push(b"3");
        assert_eq!(own(client.step(&form)), post("40\x1e3"));
        client.push(b"late");
        assert_eq!(client.step(&form), PollStep::Nothing, "one request at once");
        answer(&mut client, "ok");
        assert_eq!(own(client.step(&form)), post("late"));
        answer(&mut client, "ok");
        assert_eq!(own(client.step(&form)), POLL);
        assert_eq!(client.step(&form), PollStep::Nothing);
        answer(&mut client, "2\x1e430[1]");
        assert_eq!(own(client.step(&form)), POLL);
    }

    #[test]
    fn a_courier_carries_one_post_while_a_poll_waits() {
        let form = form();
        let mut client = PollingPeer::default();
        client.open(b"{\"sid\":\"ab\"}");
        client.push(b"a");
        assert_eq!(client.step(&form), PollStep::Courier);
        assert_eq!(client.give_courier(&form), post("a").as_bytes());
        client.push(b"b");
        assert_eq!(client.step(&form), PollStep::Nothing, "two posts would end the session");
        answer(&mut client, "430[1]");
        assert_eq!(own(client.step(&form)), POLL, "no post beside that of the courier");
        client.courier_ended();
        assert_eq!(client.step(&form), PollStep::Courier);
    }

    #[test]
    fn a_client_of_a_flood_attacks_its_own_session() {
        let form = form();
        let mut client = PollingPeer::default();
        client.open(b"{\"sid\":\"ab\"}");
        let text = |kind| String::from_utf8_lossy(&client.attack(&form, kind)).into_owned();
        assert_eq!(text(ShapeName::Rst), POLL);
        assert!(text(ShapeName::Announce).ends_with("Content-Length: 524288\r\n\r\n"));
        let upgrade = text(ShapeName::HalfUpgrade);
        assert!(
            upgrade.starts_with("GET /socket.io/?EIO=4&transport=websocket&sid=ab HTTP/1.1\r\n")
        );
        assert_eq!(client.farewell(&form), post("41\x1e1").as_bytes());
        let guesses = [form.guess(), form.guess()];
        assert_ne!(guesses[0], guesses[1]);
        let length = POLL.len() - "ab".len() + 20;
        assert!(guesses.iter().all(|guess| guess.len() == length && guess.starts_with(b"GET ")));
    }
}

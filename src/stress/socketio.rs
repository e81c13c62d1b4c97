//! Socket.IO as a client speaks it: protocol 5, over Engine.IO 4; sans-IO.
//!
//! A run has one number for all its acknowledgements. A client counts them up; a server only
//! returns them, so a request that is made once can be sent any number of times. Packets of the
//! server are told by their first bytes, because a run knows its namespace and its numbers.

pub mod polling;

use std::ops::Range;

use serde_json::json;

use super::answer::{Answer, WRONG};
use super::args::{ShapeName, TransportName};
use super::plan::Plan;
use super::target::Target;
use super::websocket::{FrameReader, WebSocketForm};
use polling::PollingPeer;

/// The path and the query of all requests. The name of the transport follows.
const ENGINE: &str = "/socket.io/?EIO=4&transport=";

/// The query that names a session, and a placeholder for its id.
const SESSION: &str = "&sid=*";

/// The number of the acknowledgement of an event of the load, and that of `subscribe`.
const EVENT: u32 = 0;
const JOIN: u32 = 1;

/// The channel of requests, which has no subscribers: a publish to it costs no delivery.
const UNREAD: &str = "unread";

/// Length of the event of `announce` in bytes. Its attachments never come, so the server keeps it.
const ANNOUNCING: usize = 64 << 10;

/// Length of the body that a client of `announce` announces by polling, in bytes. The default
/// limit of servers is 1,000,000 bytes.
pub const ANNOUNCED_BODY: usize = 512 << 10;

/// The packets of a client.
const PROBE: &[u8] = b"2probe";
const DISCONNECT: &str = "41";

/// The packet that answers a ping of the server.
pub const PONG: &[u8] = b"3";

/// The reasons why an answer is wrong.
const DISCONNECTED: &str = "disconnected from the namespace";
const CLOSED: &str = "session closed by the server";

/// The requests of a run over Socket.IO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketIoForm {
    transport: TransportName,
    websocket: WebSocketForm,
    /// The namespace as it stands in a packet: empty, or as in `/chat,`.
    namespace: String,
    channel: String,
    /// The packet that connects to the namespace.
    connect: Vec<u8>,
    /// True if the events of the channel are messages for the shape.
    is_listener: bool,
    /// Request that begins a session.
    open: Vec<u8>,
    /// Requests of a session.
    poll: SessionRequest,
    post: SessionRequest,
    upgrade: SessionRequest,
}

/// A request before and after the id of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionRequest {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl SessionRequest {
    /// Splits a request at its placeholder.
    fn new(bytes: &[u8]) -> SessionRequest {
        let marker = SESSION.as_bytes();
        let end = memchr::memmem::find(bytes, marker).map_or(0, |at| at + marker.len());
        let before = bytes[..end.saturating_sub(1)].to_vec();
        SessionRequest { before, after: bytes[end..].to_vec() }
    }

    fn of(&self, sid: &[u8]) -> Vec<u8> {
        [&self.before, sid, &self.after].concat()
    }
}

impl SocketIoForm {
    pub fn new(plan: &Plan, payload: &[u8]) -> SocketIoForm {
        let (target, request) = (&plan.target, &plan.request);
        let websocket = WebSocketForm::new(plan, payload);
        let polling = |session| at(target, TransportName::Polling, session);
        let upgrade =
            |session| websocket.upgrade(request, &at(target, TransportName::WebSocket, session));
        let get = |session| [request.head(&polling(session), "GET", None), b"\r\n".into()].concat();
        let mut post = request.head(&polling(SESSION), "POST", None);
        post.extend_from_slice(b"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: ");
        let namespace = match target.path.as_str() {
            "/" => String::new(),
            name => format!("{name},"),
        };
        SocketIoForm {
            transport: plan.transport,
            open: match plan.transport {
                TransportName::Polling => get(""),
                TransportName::WebSocket => upgrade(""),
            },
            poll: SessionRequest::new(&get(SESSION)),
            post: SessionRequest::new(&post),
            upgrade: SessionRequest::new(&upgrade(SESSION)),
            channel: plan.channel.clone(),
            connect: format!("40{namespace}{}", auth(target)).into_bytes(),
            is_listener: plan.shape == ShapeName::Fanout,
            namespace,
            websocket,
        }
    }

    /// Returns the frames of WebSocket; `None` if the clients poll.
    pub fn websocket(&self) -> Option<&WebSocketForm> {
        (self.transport == TransportName::WebSocket).then_some(&self.websocket)
    }

    /// Returns the request that begins a connection.
    pub fn open(&self) -> &[u8] {
        &self.open
    }

    /// Returns the packet that connects to the namespace.
    pub fn connect(&self) -> &[u8] {
        &self.connect
    }

    /// Returns one request: an event with an acknowledgement. With churn, its client joins the
    /// channel before.
    pub fn request(&self, plan: &Plan, payload: &[u8]) -> Vec<u8> {
        let event = match &plan.send {
            Some(event) => String::from_utf8_lossy(event).into_owned(),
            None => {
                let unread = format!("{}-{UNREAD}", self.channel);
                json!(["publish", unread, String::from_utf8_lossy(payload)]).to_string()
            }
        };
        let mut packets = Vec::new();
        if plan.shape == ShapeName::Churn && plan.send.is_none() {
            packets.push(self.subscribe());
        }
        packets.push(self.event(EVENT, &event));
        self.pack(&packets)
    }

    /// Returns the packets as they are sent: frames, or packets of a body.
    fn pack(&self, packets: &[Vec<u8>]) -> Vec<u8> {
        match self.websocket() {
            Some(form) => packets.iter().flat_map(|packet| form.message(packet)).collect(),
            None => packets.join(&polling::SEPARATOR),
        }
    }

    /// Returns the packet that joins the channel.
    pub fn subscribe(&self) -> Vec<u8> {
        self.event(JOIN, &json!(["subscribe", self.channel]).to_string())
    }

    /// Returns the packet that publishes a message.
    pub fn publish(&self, message: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(message);
        self.event(EVENT, &json!(["publish", self.channel, text]).to_string())
    }

    fn event(&self, number: u32, arguments: &str) -> Vec<u8> {
        format!("42{}{number}{arguments}", self.namespace).into_bytes()
    }

    /// Returns the packet with which a client leaves the namespace.
    pub fn disconnect(&self) -> Vec<u8> {
        format!("{DISCONNECT}{}", self.namespace).into_bytes()
    }

    /// Returns a request for a session with a guessed id.
    pub fn guess(&self) -> Vec<u8> {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let sid: [u8; 20] = std::array::from_fn(|_| DIGITS[fastrand::usize(..DIGITS.len())]);
        match self.transport {
            TransportName::Polling => self.poll.of(&sid),
            TransportName::WebSocket => self.upgrade.of(&sid),
        }
    }

    /// Returns an event whose attachments never come.
    pub fn announcement(&self) -> Vec<u8> {
        let padding = "a".repeat(ANNOUNCING);
        let place = json!({ "_placeholder": true, "num": 0 });
        let event = json!(["publish", self.channel, place, padding]);
        self.pack(&[format!("451-{}{event}", self.namespace).into_bytes()])
    }
}

/// Returns the target of the requests of a transport.
fn at(target: &Target, transport: TransportName, session: &str) -> Target {
    let path = format!("{ENGINE}{}{session}", transport.name());
    // The password is for the namespace, not for HTTP.
    Target { path, user: None, password: None, ..target.clone() }
}

/// Returns the credentials of a client, as JSON; empty without any.
fn auth(target: &Target) -> String {
    let password = target.password.as_ref().map(|secret| String::from_utf8_lossy(&secret.0));
    match (&target.user, password) {
        (None, None) => String::new(),
        (None, Some(password)) => json!({ "password": password }).to_string(),
        (Some(user), password) => json!({ "username": user, "password": password }).to_string(),
    }
}

/// The place of a client in what its server sends.
pub struct SocketIoReader {
    carriage: Carriage,
    /// Binary attachments that belong to the last event, and are still to come.
    attachments: u32,
    /// True once the client has joined the channel.
    is_joined: bool,
}

/// The way in which packets arrive.
enum Carriage {
    Frames(FrameReader),
    Bodies(PollingPeer),
}

impl SocketIoReader {
    pub fn new(form: &SocketIoForm, number: u32) -> SocketIoReader {
        let carriage = match form.transport {
            TransportName::WebSocket => Carriage::Frames(FrameReader::new(number)),
            TransportName::Polling => Carriage::Bodies(PollingPeer::default()),
        };
        SocketIoReader { carriage, attachments: 0, is_joined: false }
    }

    /// Returns the polls of the client; `None` over WebSocket.
    pub fn polls(&mut self) -> Option<&mut PollingPeer> {
        match &mut self.carriage {
            Carriage::Bodies(polls) => Some(polls),
            Carriage::Frames(_) => None,
        }
    }

    /// True within a message of several frames, or within a body.
    pub fn is_within(&self) -> bool {
        match &self.carriage {
            Carriage::Frames(frames) => frames.is_within(),
            Carriage::Bodies(polls) => polls.is_within(),
        }
    }

    /// Finds the packet at the front of `bytes`.
    pub fn take(&mut self, form: &SocketIoForm, bytes: &mut [u8]) -> Answer {
        let found = match &mut self.carriage {
            Carriage::Frames(frames) => frames.take(&form.websocket, bytes),
            Carriage::Bodies(polls) => polls.take(bytes),
        };
        match found {
            Answer::Message { payload, length, .. } => self.packet(form, bytes, payload, length),
            // The answer to an upgrade. The session opens with the first packet.
            Answer::Whole { length, is_error: false, .. } => {
                Answer::Part { length, is_error: false }
            }
            other => other,
        }
    }

    /// Says what a packet of Engine.IO is to the load.
    fn packet(
        &mut self,
        form: &SocketIoForm,
        bytes: &[u8],
        payload: Range<usize>,
        length: usize,
    ) -> Answer {
        let text = &bytes[payload.clone()];
        let skip = Answer::Part { length, is_error: false };
        if self.attachments > 0 {
            self.attachments -= 1;
            return skip;
        }
        match text {
            [b'0', open @ ..] => match self.polls() {
                None => Answer::Opened { length },
                Some(polls) => match polls.open(open) {
                    true => Answer::Opened { length },
                    false => Answer::Wrong(WRONG),
                },
            },
            [b'2', ..] => Answer::EnginePing { length },
            [b'3' | b'6', ..] => skip,
            [b'1'] => Answer::Wrong(CLOSED),
            [b'4', kind, rest @ ..] => match self.message(form, *kind, rest) {
                Ok(None) => skip,
                Ok(Some(is_error)) => Answer::Message { payload, length, is_error },
                Err(why) => Answer::Wrong(why),
            },
            _ => Answer::Wrong(WRONG),
        }
    }

    /// Says whether a packet of Socket.IO is a message or an answer, and whether it is an error.
    /// Returns `None` for a packet that concerns no request.
    fn message(
        &mut self,
        form: &SocketIoForm,
        kind: u8,
        mut rest: &[u8],
    ) -> Result<Option<bool>, &'static str> {
        if matches!(kind, b'5' | b'6') {
            let (count, behind) = number(rest).ok_or(WRONG)?;
            rest = behind.strip_prefix(b"-").ok_or(WRONG)?;
            self.attachments = count;
        }
        let rest = rest.strip_prefix(form.namespace.as_bytes()).ok_or(WRONG)?;
        match kind {
            b'0' if matches!(rest, [] | [b'{', ..]) => Ok(Some(false)),
            b'4' => Ok(Some(true)),
            b'1' => Err(DISCONNECTED),
            // The events of an application are no answers.
            b'2' | b'5' => Ok((form.is_listener && self.is_joined).then_some(false)),
            b'3' | b'6' => {
                let (id, data) = number(rest).ok_or(WRONG)?;
                let is_error = data.starts_with(b"[{\"error\":");
                match id {
                    EVENT => Ok(Some(is_error)),
                    JOIN => {
                        self.is_joined = !is_error;
                        Ok(form.is_listener.then_some(is_error))
                    }
                    _ => Err(WRONG),
                }
            }
            _ => Err(WRONG),
        }
    }
}

/// Returns the number at the front of a text, and what is behind it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::websocket::{Opcode, accept_key, encode};

    fn plan(shape: &str, path: &str, transport: TransportName) -> Plan {
        let plan = Plan::of(shape, &format!("socketio://127.0.0.1:9{path}")).unwrap();
        Plan { transport, ..plan }
    }

    fn form(shape: &str, path: &str, transport: TransportName) -> SocketIoForm {
        SocketIoForm::new(&plan(shape, path, transport), b"abc")
    }

    /// The answer to a request, or the beginning of a stream of frames.
    fn carried(form: &SocketIoForm, packets: &[&str]) -> Vec<u8> {
        if form.transport == TransportName::Polling {
            let body = packets.join("\x1e");
            let length = body.len();
            return format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into();
        }
        let accept = accept_key(form.websocket.key().as_bytes()).unwrap();
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            String::from_utf8_lossy(&accept)
        )
        .into_bytes();
        packets.iter().for_each(|packet| encode(&mut bytes, Opcode::Text, packet.as_bytes()));
        bytes
    }

    /// Reads bytes that arrive in parts of `step`. Returns what the load sees, as text.
    fn read(form: &SocketIoForm, bytes: &[u8], step: usize) -> Vec<String> {
        let mut reader = SocketIoReader::new(form, 7);
        let (mut kept, mut seen) = (Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            kept.extend_from_slice(part);
            while !kept.is_empty() {
                let length = match reader.take(form, &mut kept) {
                    Answer::Part { length, is_error: false } => length,
                    Answer::Opened { length } => {
                        seen.push("open".into());
                        length
                    }
                    Answer::EnginePing { length } => {
                        seen.push("ping".into());
                        length
                    }
                    Answer::Message { payload, length, is_error } => {
                        let mark = if is_error { "error " } else { "" };
                        let text = String::from_utf8_lossy(&kept[payload]);
                        seen.push(format!("{mark}{text}"));
                        length
                    }
                    Answer::Whole { length, is_error: true, is_last: true } => {
                        seen.push("refused".into());
                        length
                    }
                    Answer::Incomplete { needs } => {
                        assert!(needs > kept.len());
                        break;
                    }
                    Answer::Wrong(why) => {
                        seen.push(why.into());
                        return seen;
                    }
                    other => panic!("{other:?}"),
                };
                kept.drain(..length);
            }
        }
        assert!(kept.is_empty(), "{}", kept.escape_ascii());
        seen
    }

    const OPEN: &str = r#"0{"sid":"aB-_5678901234567890","upgrades":[],"pingInterval":25000}"#;

    /// Returns what a load sees of packets behind the one that opens a session: by both transports,
    /// and however they are cut.
    fn seen(shape: &str, path: &str, packets: &[&str]) -> Vec<String> {
        let [by_frames, by_bodies] =
            [TransportName::WebSocket, TransportName::Polling].map(|transport| {
                let form = form(shape, path, transport);
                let bytes = carried(&form, &[&[OPEN], packets].concat());
                let whole = read(&form, &bytes, bytes.len());
                for step in [1, 2, 3, 7, 64] {
                    assert_eq!(read(&form, &bytes, step), whole, "{transport:?} by {step}");
                }
                whole
            });
        assert_eq!(by_frames, by_bodies);
        assert_eq!(by_frames[0], "open");
        by_frames[1..].to_vec()
    }

    #[test]
    fn an_acknowledgement_answers_and_other_packets_do_not() {
        let packets = [
            "40{\"sid\":\"x\"}",
            "42[\"welcome\",1]",
            "2",
            "6",
            "451-[\"photo\",{\"_placeholder\":true,\"num\":0}]",
            "44 the bytes of a photo",
            "431[{\"subscribed\":[\"a\"]}]",
            "430[{\"published\":\"a\",\"receivers\":3}]",
            "461-0[{\"_placeholder\":true,\"num\":0}]",
            "2bytes",
            "430[{\"error\":\"no\"}]",
        ];
        let expected =
            [packets[0], "ping", packets[7], packets[8], "error 430[{\"error\":\"no\"}]"];
        assert_eq!(seen("ping", "", &packets), expected);
        // A subscriber gets the confirmation, and then the events.
        let expected = [packets[6], "42[\"message\",\"a\",1]"];
        let packets = ["42[\"early\"]", packets[6], expected[1]];
        assert_eq!(seen("fanout", "", &packets), expected);
    }

    #[test]
    fn a_namespace_stands_in_each_packet() {
        let packets = ["40/chat,{\"sid\":\"x\"}", "42/chat,[\"a\"]", "43/chat,0[1]"];
        assert_eq!(seen("ping", "/chat", &packets), [packets[0], packets[2]]);
        for (path, wrong) in [("/chat", "430[1]"), ("", "43/chat,0[1]"), ("/a", "40/ab,{}")] {
            assert_eq!(seen("ping", path, &[wrong]), [WRONG], "{path} {wrong}");
        }
        let refused = "44/x,{\"message\":\"Invalid namespace\"}";
        assert_eq!(seen("ping", "/x", &[refused]), [format!("error {refused}")]);
    }

    #[test]
    fn an_end_of_the_session_and_a_malformed_packet_are_named() {
        for (packet, why) in [
            ("41", DISCONNECTED),
            ("1", CLOSED),
            ("432[1]", WRONG),
            ("43[1]", WRONG),
            ("45[1]", WRONG),
            ("45x-[1]", WRONG),
            ("4", WRONG),
            ("47[]", WRONG),
            ("7", WRONG),
            ("x", WRONG),
        ] {
            assert_eq!(seen("ping", "", &[packet]), [why], "{packet}");
        }
    }

    #[test]
    fn a_session_without_a_plain_id_is_wrong_and_an_error_is_refused() {
        let form = form("ping", "", TransportName::Polling);
        for open in ["0", "0{}", "0{\"sid\":\"\"}", "0{\"sid\":\"a b\"}", "0{\"sid\":\"a\\r\\nb\"}"]
        {
            assert_eq!(read(&form, &carried(&form, &[open]), 9000), [WRONG], "{open}");
        }
        let no = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read(&form, no, no.len()), ["refused"]);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n";
        assert_eq!(read(&form, chunked, 9000), ["wrong answer: a poll without Content-Length"]);
    }

    #[test]
    fn a_request_is_an_event_with_an_acknowledgement() {
        let polling = |shape: &str, send: Option<&str>| {
            let plan = plan(shape, "/chat", TransportName::Polling);
            let plan = Plan { send: send.map(|text| text.as_bytes().to_vec()), ..plan };
            let form = SocketIoForm::new(&plan, b"abc");
            String::from_utf8(form.request(&plan, b"abc")).unwrap()
        };
        let event = "42/chat,0[\"publish\",\"slabd-stress-unread\",\"abc\"]";
        assert_eq!(polling("ping", None), event);
        let join = "42/chat,1[\"subscribe\",\"slabd-stress\"]";
        assert_eq!(polling("churn", None), format!("{join}\x1e{event}"));
        assert_eq!(polling("churn", Some("[\"hi\",1]")), "42/chat,0[\"hi\",1]");
    }

    #[test]
    fn credentials_are_for_the_namespace() {
        for (target, connect) in [
            ("socketio://127.0.0.1:9", "40"),
            ("socketio://:s%22x@127.0.0.1:9/a", "40/a,{\"password\":\"s\\\"x\"}"),
            ("socketio://:x@127.0.0.1:9/caf%C3%A9", "40/café,{\"password\":\"x\"}"),
            ("socketio://:x@127.0.0.1:9/café", "40/café,{\"password\":\"x\"}"),
            ("socketio://me:pw@127.0.0.1:9", "40{\"password\":\"pw\",\"username\":\"me\"}"),
        ] {
            let form = SocketIoForm::new(&Plan::of("ping", target).unwrap(), b"");
            assert_eq!(String::from_utf8_lossy(form.connect()), connect, "{target}");
            let open = String::from_utf8_lossy(form.open()).into_owned();
            let line =
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:9\r\n";
            assert!(open.starts_with(line) && !open.contains("Authorization"), "{open}");
        }
    }
}

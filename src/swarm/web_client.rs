//! An honest WebSocket client of the hub: on one channel, where it publishes what it sends and gets
//! it back, or with commands of JSON. It knows the answer to each thing it sends. Messages to its
//! subscriptions come in between, and the [board](super::board) judges them.

mod frames;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::json;

use super::board::{TOPICS, TopicIndex, TopicKind, topics_of};
use super::{HonestClient, PASSWORD, Scene, Violation};
use crate::codec::websocket::{Decoder, Opcode, Role, encode_close, encode_masked};
use crate::net::sim::ClientId;

/// An expected answer.
#[derive(Debug)]
enum ExpectedEvent {
    /// The answer to the handshake. It begins the subscription of a client of one channel.
    Handshake,
    Pong(Vec<u8>),
    /// The answer to a command, as text.
    This(String),
    /// The number of receivers of this message, and the id of the command.
    Receivers(u32, u32),
    Subscribed {
        text: String,
        topic: TopicIndex,
        window: Option<usize>,
    },
    Unsubscribed {
        text: String,
        topic: TopicIndex,
        window: Option<usize>,
    },
    /// The answer to a Close frame.
    Close,
}

/// An honest WebSocket client.
pub struct WebClient {
    id: ClientId,
    /// Its number on the board.
    number: u32,
    /// Maximum number of bytes that the client receives at a time.
    appetite: usize,
    /// The channel of its path and its subscription there. `None`: it speaks JSON.
    channel: Option<(TopicIndex, usize)>,
    // The state after what was sent.
    has_said_password: bool,
    has_begun: bool,
    subscriptions: BTreeMap<TopicIndex, usize>,
    commands: u32,
    /// True once it has sent its last frame.
    has_finished: bool,
    /// Number of answers that the client must have by the end of a drain.
    due: usize,
    // The state after what was received.
    expected: VecDeque<ExpectedEvent>,
    /// Messages that the client has published on its channel, and that must come back in order.
    echoes: VecDeque<u32>,
    is_upgraded: bool,
    decoder: Decoder,
    inbox: Vec<u8>,
    confirmed: BTreeSet<TopicIndex>,
    /// True once a Close frame, or the refusal of a handshake, has come.
    was_told: bool,
    /// True once the client or the server has closed or reset the stream.
    is_cut: bool,
    /// True once the loop has freed its connection.
    is_gone: bool,
}

/// The key of the handshake and its answer are those of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl WebClient {
    pub fn new(id: ClientId, number: u32, appetite: usize) -> WebClient {
        WebClient {
            id,
            number,
            appetite,
            channel: None,
            has_said_password: false,
            has_begun: false,
            subscriptions: BTreeMap::new(),
            commands: 0,
            has_finished: false,
            due: 0,
            expected: VecDeque::new(),
            echoes: VecDeque::new(),
            is_upgraded: false,
            decoder: Decoder::new(Role::Client),
            inbox: Vec::new(),
            confirmed: BTreeSet::new(),
            was_told: false,
            is_cut: false,
            is_gone: false,
        }
    }

    /// Notes that the client sends nothing more. Its messages may be lost.
    fn finish(&mut self, scene: &mut Scene<'_>) {
        self.has_finished = true;
        self.echoes.clear();
        scene.board.leave(self.number);
        scene.board.cut(self.number);
    }

    fn shake_hands(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        self.has_begun = true;
        if scene.random.bool() {
            let topic = channel(scene.random);
            self.channel = Some((topic, scene.board.subscribe(self.number, topic)));
        }
        let name = self.channel.map(|(topic, _)| format!("/{}", TOPICS[topic as usize].1));
        let mut target = format!("/ws{}", name.unwrap_or_default());
        let mut password = String::new();
        // A client of one channel has no other way to give the password.
        if scene.plan.has_password && (self.channel.is_some() || scene.random.bool()) {
            self.has_said_password = true;
            match scene.random.bool() {
                true => target += &format!("?token={PASSWORD}"),
                false => password = format!("Authorization: Bearer {PASSWORD}\r\n"),
            }
        }
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nupgrade: WebSocket\r\n\
             Connection: keep-alive, Upgrade\r\n{password}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        self.expected.push_back(ExpectedEvent::Handshake);
    }

    fn ping(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let payload = vec![b'p'; scene.random.usize(..=125)];
        frame(scene, out, 0x80 | Opcode::Ping as u8, &payload);
        self.expected.push_back(ExpectedEvent::Pong(payload));
    }

    fn publish_raw(&mut self, scene: &mut Scene<'_>, topic: TopicIndex, out: &mut Vec<u8>) {
        let length = scene.random.usize(..=scene.plan.payload_max);
        let message = scene.board.publish(self.number, topic, length, false);
        self.echoes.push_back(message);
        let payload = scene.board.payload(message);
        self.message(scene, out, &payload);
    }

    /// Appends a message, in one frame or in several with pings between them.
    fn message(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>, payload: &[u8]) {
        let (mut first, mut rest) = (Opcode::Text as u8, payload);
        while scene.random.u8(0..3) == 0 {
            let (part, behind) = rest.split_at(scene.random.usize(..=rest.len()));
            frame(scene, out, first, part);
            (first, rest) = (0, behind);
            if scene.random.bool() {
                self.ping(scene, out);
            }
        }
        frame(scene, out, 0x80 | first, rest);
    }

    /// Appends one random command of JSON.
    fn command(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        self.commands += 1;
        let id = self.commands;
        // In a fair seed the client authenticates first, because the loop must not close it.
        if scene.plan.has_password && !self.has_said_password {
            if scene.plan.is_fair || scene.random.bool() {
                self.has_said_password = true;
                let this =
                    ExpectedEvent::This(json!({"authenticated": true, "id": id}).to_string());
                return self.send(scene, out, json!({"auth": PASSWORD, "id": id}), this);
            }
            let text = "the password is missing; send {\"auth\":\"PASSWORD\"} first";
            let this = ExpectedEvent::This(json!({"error": text, "id": id}).to_string());
            let command = json!({"publish": "a", "data": "unauthenticated", "id": id});
            return self.send(scene, out, command, this);
        }
        match scene.random.u8(0..10) {
            0 => {
                let this = ExpectedEvent::This(json!({"pong": 1, "id": id}).to_string());
                self.send(scene, out, json!({"ping": 1, "id": id}), this);
            }
            1..4 => self.subscribe(scene, out, id),
            4..6 => self.unsubscribe(scene, out, id),
            _ => {
                let topic = channel(scene.random);
                let length = scene.random.usize(..=scene.plan.payload_max);
                let message = scene.board.publish(self.number, topic, length, false);
                let payload = scene.board.payload(message);
                let data = String::from_utf8_lossy(&payload);
                let command = json!({"publish": TOPICS[topic as usize].1, "data": data, "id": id});
                self.send(scene, out, command, ExpectedEvent::Receivers(message, id));
            }
        }
    }

    fn subscribe(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>, id: u32) {
        let topic = any_topic(scene.random);
        let window = match self.subscriptions.contains_key(&topic) {
            true => None,
            false => Some(scene.board.subscribe(self.number, topic)),
        };
        window.and_then(|window| self.subscriptions.insert(topic, window));
        let (command, text) = change(topic, id, ["subscribe", "psubscribe"]);
        self.send(scene, out, command, ExpectedEvent::Subscribed { text, topic, window });
    }

    fn unsubscribe(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>, id: u32) {
        let topic = any_topic(scene.random);
        let window = self.subscriptions.remove(&topic);
        if let Some(window) = window {
            let now = scene.board.tick();
            scene.board.windows[window].leaving.get_or_insert(now);
        }
        let (command, text) = change(topic, id, ["unsubscribe", "punsubscribe"]);
        self.send(scene, out, command, ExpectedEvent::Unsubscribed { text, topic, window });
    }

    fn send(
        &mut self,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
        command: serde_json::Value,
        expected: ExpectedEvent,
    ) {
        self.message(scene, out, command.to_string().as_bytes());
        self.expected.push_back(expected);
    }
}

impl HonestClient for WebClient {
    fn ids(&self) -> Vec<ClientId> {
        if self.is_cut { Vec::new() } else { vec![self.id] }
    }

    fn set_appetite(&mut self, bytes: usize) {
        self.appetite = bytes;
    }

    /// Sends the handshake, or some random frames at once. Sometimes sends a Close frame, or
    /// half-closes the stream, after them.
    fn act(&mut self, scene: &mut Scene<'_>) {
        if self.has_finished || self.is_cut {
            return;
        }
        let mut out = Vec::new();
        let count = if self.has_begun { 1 } else { scene.random.usize(..2) };
        if !self.has_begun {
            self.shake_hands(scene, &mut out);
        }
        for _ in 0..count * scene.random.usize(1..=scene.plan.pipeline_max) {
            match (scene.random.u8(0..8), self.channel) {
                (0, _) => self.ping(scene, &mut out),
                (1, _) => frame(scene, &mut out, 0x80 | Opcode::Pong as u8, b"unasked"),
                (_, Some((topic, _))) => self.publish_raw(scene, topic, &mut out),
                (_, None) => self.command(scene, &mut out),
            }
        }
        let finish = scene.random.u8(..);
        if finish < 4 {
            let mut close = Vec::new();
            encode_close(&mut close, 1000, "bye");
            frame(scene, &mut out, 0x80 | Opcode::Close as u8, &close[2..]);
            self.expected.push_back(ExpectedEvent::Close);
            self.finish(scene);
        }
        scene.board.tick();
        scene.net.client_send(self.id, &out);
        if finish == 4 {
            scene.net.client_shutdown(self.id);
            self.finish(scene);
        }
    }

    /// Closes or resets the stream in any state.
    fn leave(&mut self, scene: &mut Scene<'_>) {
        match scene.random.bool() {
            true => scene.net.client_close(self.id),
            false => scene.net.client_reset(self.id),
        }
        scene.board.cut(self.number);
        self.is_cut = true;
    }

    /// Notes the start of a drain. The loop must answer all that has arrived by now.
    fn drain_begins(&mut self, scene: &mut Scene<'_>) {
        self.due = if scene.all_has_arrived(self.id) { self.expected.len() } else { 0 };
    }

    /// True if the client has all its answers, or its connection has ended.
    fn is_satisfied(&self) -> bool {
        self.is_cut || self.expected.is_empty() && self.echoes.is_empty()
    }

    /// True if the client is finished and the loop has freed its connection.
    fn is_over(&self) -> bool {
        self.is_cut && self.is_gone
    }

    /// Returns the next expected answer and the input not decoded as text.
    fn waits_for(&self) -> String {
        format!(
            "web client {} waits for {:?} and messages {:?}, and has \"{}\"",
            self.number,
            self.expected.front(),
            self.echoes,
            self.inbox.escape_ascii()
        )
    }

    fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        self.look(scene)
    }
}

/// Returns the command that changes a subscription, and its confirmation.
fn change(topic: TopicIndex, id: u32, verbs: [&str; 2]) -> (serde_json::Value, String) {
    let (kind, name) = TOPICS[topic as usize];
    let verb = verbs[usize::from(kind == TopicKind::Pattern)];
    (json!({verb: name, "id": id}), format!("{{\"{verb}d\":\"{name}\",\"id\":{id}}}"))
}

/// Returns a random channel. Two of them are popular, so some messages have many receivers.
fn channel(random: &mut fastrand::Rng) -> TopicIndex {
    let channels = topics_of(TopicKind::Channel).count() as u8;
    if random.bool() { random.u8(..2) } else { random.u8(..channels) }
}

/// Returns a random channel or pattern.
fn any_topic(random: &mut fastrand::Rng) -> TopicIndex {
    let patterns = topics_of(TopicKind::Pattern).count() as u8;
    let first = topics_of(TopicKind::Channel).count() as u8;
    if random.u8(0..3) > 0 { channel(random) } else { first + random.u8(..patterns) }
}

/// Appends a frame with a random mask.
fn frame(scene: &mut Scene<'_>, out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let start = out.len();
    encode_masked(out, Opcode::Binary, payload, scene.random.u32(..).to_le_bytes());
    out[start] = first;
}

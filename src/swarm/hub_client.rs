//! An honest client of the hub. It knows the expected answer to each of its commands, because the
//! hub executes the commands of a connection in order. The only unknown is the number of receivers
//! of a publish. Messages to its subscriptions come in between, and the [board](super::board)
//! judges them.

mod answers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::board::{TOPICS, TopicIndex, TopicKind, topics_of};
use super::replies::Value;
use super::{HonestClient, PASSWORD, Scene, Violation};
use crate::net::sim::ClientId;

/// An expected answer.
#[derive(Debug)]
enum Expected {
    This(Value),
    /// An error with this beginning.
    Error(&'static str),
    /// Any number.
    Integer,
    /// The answer to HELLO, which changes the protocol.
    Hello {
        is_resp3: bool,
    },
    Reset,
    /// The number of receivers of this message.
    Receivers(u32),
    /// The answers of EXEC.
    Exec(Vec<Expected>),
    Subscribed {
        value: Value,
        topic: TopicIndex,
        window: Option<usize>,
    },
    Unsubscribed {
        value: Value,
        topic: TopicIndex,
        window: Option<usize>,
    },
    /// A confirmation of the end of one of several subscriptions, in any order, with the number of
    /// the remaining ones.
    OneOfEnds {
        remaining: i64,
        topics: BTreeMap<TopicIndex, Option<usize>>,
        kind: TopicKind,
    },
}

/// An honest client of the hub.
pub struct HubClient {
    id: ClientId,
    /// Its number on the board.
    number: u32,
    /// Maximum number of bytes that the client receives at a time.
    appetite: usize,
    // The state after the commands that were sent.
    is_resp3: bool,
    has_said_password: bool,
    has_spoken: bool,
    subscriptions: BTreeMap<TopicIndex, usize>,
    /// True once it has sent its last command.
    has_finished: bool,
    has_quit: bool,
    /// Number of answers that the client must have by the end of a drain.
    due: usize,
    // The state after the answers that were received.
    expected: VecDeque<Expected>,
    inbox: Vec<u8>,
    receives_resp3: bool,
    confirmed: BTreeSet<TopicIndex>,
    /// True once it got a closing message, or the error that no slot is free.
    was_told: bool,
    /// True once the client or the server has closed or reset the stream.
    is_cut: bool,
    /// True once the loop has freed its connection.
    is_gone: bool,
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

impl HubClient {
    pub fn new(id: ClientId, number: u32, appetite: usize) -> HubClient {
        HubClient {
            id,
            number,
            appetite,
            is_resp3: false,
            has_said_password: false,
            has_spoken: false,
            subscriptions: BTreeMap::new(),
            has_finished: false,
            has_quit: false,
            due: 0,
            expected: VecDeque::new(),
            inbox: Vec::new(),
            receives_resp3: false,
            confirmed: BTreeSet::new(),
            was_told: false,
            is_cut: false,
            is_gone: false,
        }
    }

    /// Notes on the board that messages to this client may be lost from now on.
    fn cut(&mut self, scene: &mut Scene<'_>) {
        scene.board.cut(self.number);
    }

    /// Appends one random command.
    fn command(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        if scene.plan.has_password && !self.has_said_password {
            return self.authenticate(scene, out);
        }
        let is_limited = !self.is_resp3 && !self.subscriptions.is_empty();
        let number = scene.random.u32(0..10_000).to_string();
        match scene.random.u8(0..100) {
            0..25 => self.ping(scene, out, &number, is_limited),
            25..45 => self.subscribe(scene, out),
            45..57 => self.unsubscribe(scene, out),
            57..60 => self.unsubscribe_all(scene, out),
            60..62 => {
                self.reset(scene, out);
            }
            62..63 => {
                self.send(scene, out, &["QUIT"], Expected::This(Value::Simple("OK".into())));
                (self.has_finished, self.has_quit) = (true, true);
                scene.board.leave(self.number);
            }
            _ if is_limited => {
                self.send(
                    scene,
                    out,
                    &["ECHO", &number],
                    Expected::Error("ERR Can't execute 'echo'"),
                );
            }
            63..80 => self.publish(scene, out),
            // A small budget has no room for a transaction of large messages.
            80..85 if scene.plan.limits.memory_budget > 1 << 20 => self.transaction(scene, out),
            80..85 => self.publish(scene, out),
            85..89 => self.send(scene, out, &["ECHO", &number], Expected::This(bulk(&number))),
            89..93 => {
                self.is_resp3 = scene.random.bool();
                let version = if self.is_resp3 { "3" } else { "2" };
                self.send(
                    scene,
                    out,
                    &["HELLO", version],
                    Expected::Hello { is_resp3: self.is_resp3 },
                );
            }
            93..95 => self.send(scene, out, &["CLIENT", "ID"], Expected::Integer),
            95..97 => {
                self.send(scene, out, &["SELECT", "0"], Expected::This(Value::Simple("OK".into())))
            }
            97..98 => self.send(
                scene,
                out,
                &["PUBLISH", &number],
                Expected::Error("ERR wrong number of arguments"),
            ),
            _ => self.send(
                scene,
                out,
                &["NOSUCH", &number],
                Expected::Error("ERR unknown command 'NOSUCH'"),
            ),
        }
    }

    /// Sends a command that needs the password, or the password itself.
    fn authenticate(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        // Before the password, a client may have little pending output. In a fair seed it
        // authenticates first, because the loop must not close it.
        let first = if scene.plan.is_fair { 2 } else { 0 };
        match scene.random.u8(first..4) {
            0 => self.send(
                scene,
                out,
                &["PUBLISH", "a", "unauthenticated"],
                Expected::Error("NOAUTH"),
            ),
            1 => {
                let words =
                    GUARDED[scene.random.usize(..GUARDED.len())].split(' ').collect::<Vec<_>>();
                self.send(scene, out, &words, Expected::Error("NOAUTH"));
            }
            2 => {
                self.send(
                    scene,
                    out,
                    &["AUTH", PASSWORD],
                    Expected::This(Value::Simple("OK".into())),
                );
                self.has_said_password = true;
            }
            _ => {
                self.is_resp3 = true;
                let words = ["HELLO", "3", "AUTH", "default", PASSWORD];
                self.send(scene, out, &words, Expected::Hello { is_resp3: true });
                self.has_said_password = true;
            }
        }
    }

    fn ping(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>, text: &str, is_limited: bool) {
        match (scene.random.bool(), is_limited) {
            (false, false) => {
                self.send(scene, out, &["PING"], Expected::This(Value::Simple("PONG".into())))
            }
            (true, false) => self.send(scene, out, &["ping", text], Expected::This(bulk(text))),
            (_, true) => {
                let pong = Value::Array(vec![bulk("pong"), bulk(text)]);
                self.send(scene, out, &["PING", text], Expected::This(pong));
            }
        }
    }

    fn subscribe(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let topic = any_topic(scene.random);
        let (kind, name) = TOPICS[topic as usize];
        let window = match self.subscriptions.contains_key(&topic) {
            true => None,
            false => Some(scene.board.subscribe(self.number, topic)),
        };
        window.and_then(|window| self.subscriptions.insert(topic, window));
        let value = self.confirmation(kind, true, bulk(name));
        let words = [["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][kind as usize], name];
        self.send(scene, out, &words, Expected::Subscribed { value, topic, window });
    }

    fn unsubscribe(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let topic = scene.random.u8(..TOPICS.len() as u8);
        let (kind, name) = TOPICS[topic as usize];
        let window = self.end(scene, topic);
        let value = self.confirmation(kind, false, bulk(name));
        let words = [["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][kind as usize], name];
        self.send(scene, out, &words, Expected::Unsubscribed { value, topic, window });
    }

    fn unsubscribe_all(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let kind =
            [TopicKind::Channel, TopicKind::Pattern, TopicKind::Shard][scene.random.usize(..3)];
        let topics: BTreeMap<TopicIndex, Option<usize>> = topics_of(kind)
            .filter(|topic| self.subscriptions.contains_key(topic))
            .map(|topic| (topic, self.subscriptions.get(&topic).copied()))
            .collect();
        let words = [["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][kind as usize]];
        if topics.is_empty() {
            let value = self.confirmation(kind, false, Value::Null);
            return self.send(scene, out, &words, Expected::This(value));
        }
        encode(scene, out, &words);
        for count in (0..topics.len() as i64).rev() {
            let (topics, remaining) = (topics.clone(), count);
            self.expected.push_back(Expected::OneOfEnds { remaining, topics, kind });
        }
        for topic in topics.keys() {
            self.end(scene, *topic);
        }
        // The number of remaining subscriptions includes those of the other kind.
        let others = self.count(kind);
        for expected in self.expected.iter_mut().rev().take(topics.len()) {
            if let Expected::OneOfEnds { remaining, .. } = expected {
                *remaining += others;
            }
        }
    }

    /// Sends RESET, which restores a new connection: no subscriptions, RESP2, no password given.
    fn reset(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let topics: Vec<TopicIndex> = self.subscriptions.keys().copied().collect();
        for topic in topics {
            self.end(scene, topic);
        }
        (self.is_resp3, self.has_said_password) = (false, false);
        self.send(scene, out, &["RESET"], Expected::Reset);
    }

    /// Publishes in a transaction, or begins one that ends without an effect.
    fn transaction(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let this = |text: &str| Expected::This(Value::Simple(text.into()));
        self.send(scene, out, &["MULTI"], this("OK"));
        if scene.random.u8(0..4) == 0 {
            self.send(scene, out, &["PUBLISH", "a", "discarded"], this("QUEUED"));
            let error = Expected::Error("ERR unknown command 'NOSUCH'");
            self.send(scene, out, &["NOSUCH"], error);
            return match scene.random.bool() {
                true => self.send(scene, out, &["EXEC"], Expected::Error("EXECABORT")),
                false => self.send(scene, out, &["DISCARD"], this("OK")),
            };
        }
        let mut answers = Vec::new();
        for _ in 0..scene.random.u8(0..6) {
            self.publish(scene, out);
            answers.extend(self.expected.pop_back());
            self.expected.push_back(this("QUEUED"));
        }
        self.send(scene, out, &["EXEC"], Expected::Exec(answers));
    }

    fn publish(&mut self, scene: &mut Scene<'_>, out: &mut Vec<u8>) {
        let topic = loop {
            let topic = any_topic(scene.random);
            if TOPICS[topic as usize].0 != TopicKind::Pattern {
                break topic;
            }
        };
        let length = scene.random.usize(..=scene.plan.payload_max);
        let message = scene.board.publish(self.number, topic, length, false);
        let payload = String::from_utf8_lossy(&scene.board.payload(message)).into_owned();
        let (kind, name) = TOPICS[topic as usize];
        let verb = if kind == TopicKind::Shard { "SPUBLISH" } else { "PUBLISH" };
        self.send(scene, out, &[verb, name, &payload], Expected::Receivers(message));
    }

    /// Notes that the client is about to end a subscription. Returns its window.
    fn end(&mut self, scene: &mut Scene<'_>, topic: TopicIndex) -> Option<usize> {
        let window = self.subscriptions.remove(&topic)?;
        let now = scene.board.tick();
        scene.board.windows[window].leaving.get_or_insert(now);
        Some(window)
    }

    /// Returns the number of subscriptions that a confirmation of this kind counts.
    fn count(&self, kind: TopicKind) -> i64 {
        let is_shard = |topic: &TopicIndex| TOPICS[*topic as usize].0 == TopicKind::Shard;
        self.subscriptions
            .keys()
            .filter(|topic| is_shard(topic) == (kind == TopicKind::Shard))
            .count() as i64
    }

    fn confirmation(&self, kind: TopicKind, is_begin: bool, name: Value) -> Value {
        let words = [
            ["unsubscribe", "subscribe"],
            ["punsubscribe", "psubscribe"],
            ["sunsubscribe", "ssubscribe"],
        ];
        let word = words[kind as usize][usize::from(is_begin)];
        let elements = vec![bulk(word), name, Value::Integer(self.count(kind))];
        if self.is_resp3 { Value::Push(elements) } else { Value::Array(elements) }
    }

    fn send(
        &mut self,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
        words: &[&str],
        expected: Expected,
    ) {
        // Until a command has run, a wrong one that comes as a line closes the connection.
        let is_wrong = matches!(expected, Expected::Error(_));
        if is_wrong && !self.has_spoken {
            encode_array(out, words);
        } else {
            encode(scene, out, words);
        }
        self.has_spoken |= !is_wrong;
        self.expected.push_back(expected);
    }
}

impl HonestClient for HubClient {
    fn ids(&self) -> Vec<ClientId> {
        if self.is_cut { Vec::new() } else { vec![self.id] }
    }

    fn set_appetite(&mut self, bytes: usize) {
        self.appetite = bytes;
    }

    /// Sends some random commands at once. Sometimes half-closes the stream after them.
    fn act(&mut self, scene: &mut Scene<'_>) {
        if self.has_finished || self.is_cut {
            return;
        }
        let mut bytes = Vec::new();
        for _ in 0..scene.random.usize(1..=scene.plan.pipeline_max) {
            if !self.has_finished {
                self.command(scene, &mut bytes);
            }
        }
        scene.board.tick();
        scene.net.client_send(self.id, &bytes);
        if !self.has_finished && scene.random.u8(..) < 2 {
            self.has_finished = true;
            scene.net.client_shutdown(self.id);
            self.cut(scene);
        }
    }

    /// Closes or resets the stream in any state.
    fn leave(&mut self, scene: &mut Scene<'_>) {
        match scene.random.bool() {
            true => scene.net.client_close(self.id),
            false => scene.net.client_reset(self.id),
        }
        self.cut(scene);
        self.is_cut = true;
    }

    /// Notes the start of a drain. The loop must answer all commands that have arrived by now.
    fn drain_begins(&mut self, scene: &mut Scene<'_>) {
        self.due = if scene.all_has_arrived(self.id) { self.expected.len() } else { 0 };
    }

    /// True if the client has all its answers, or its connection has ended.
    fn is_satisfied(&self) -> bool {
        self.is_cut || self.expected.is_empty()
    }

    /// Returns the next expected answer and the unparsed input as text.
    fn waits_for(&self) -> String {
        format!(
            "client {} waits for {:?} and has \"{}\"",
            self.number,
            self.expected.front(),
            self.inbox.escape_ascii()
        )
    }

    fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        self.look(scene)
    }

    fn is_over(&self) -> bool {
        self.is_cut && self.is_gone
    }
}

/// Commands that the hub must not execute before the password.
const GUARDED: [&str; 19] = [
    "SUBSCRIBE a",
    "PSUBSCRIBE *",
    "SSUBSCRIBE a",
    "SPUBLISH a unauthenticated",
    "UNSUBSCRIBE",
    "PUBSUB CHANNELS",
    "MONITOR",
    "CLIENT KILL SKIPME yes",
    "CLIENT LIST",
    "CONFIG SET max-connections 1",
    "CONFIG GET *",
    "SHUTDOWN",
    "INFO",
    "MEMORY DOCTOR",
    "COMMAND COUNT",
    "ECHO x",
    "PING",
    "TIME",
    "SELECT 0",
];

/// Returns a random topic. Two of them are popular, so some messages have many receivers.
fn any_topic(random: &mut fastrand::Rng) -> TopicIndex {
    if random.bool() { random.u8(..2) } else { random.u8(..TOPICS.len() as u8) }
}

/// Appends a command, as client libraries send it or as people type it.
fn encode(scene: &mut Scene<'_>, out: &mut Vec<u8>, words: &[&str]) {
    if scene.random.u8(0..4) == 0 {
        out.extend_from_slice(words.join(" ").as_bytes());
        out.extend_from_slice(if scene.random.bool() { b"\r\n" } else { b"\n" });
        return;
    }
    encode_array(out, words);
}

fn encode_array(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    words.iter().for_each(|word| {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes())
    });
}

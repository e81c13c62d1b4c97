//! The model of the target `hub`, written in the simplest way. It keeps each message once for each
//! receiving session.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use slabd::hub::glob::{self, PatternShape};
use slabd::limits::BATCH_MAX;

/// Number of sessions. A number is reused after its session has ended.
pub const SESSIONS: u32 = 4;

/// Maximum number of patterns of one session.
const PATTERNS_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    pub fn subscribe(self) -> &'static [u8] {
        [&b"subscribe"[..], b"psubscribe", b"ssubscribe"][self as usize]
    }

    pub fn unsubscribe(self) -> &'static [u8] {
        [&b"unsubscribe"[..], b"punsubscribe", b"sunsubscribe"][self as usize]
    }
}

/// The argument of CLIENT REPLY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    On,
    Off,
    Skip,
}

impl Mode {
    pub fn word(self) -> &'static [u8] {
        [&b"ON"[..], b"OFF", b"SKIP"][self as usize]
    }
}

type Topic = (Kind, Vec<u8>);

/// A pending message.
struct Message {
    /// The number of its publish.
    number: usize,
    /// Length of channel and payload together, in bytes.
    length: usize,
    words: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Session {
    known: bool,
    /// True once the session has its last answer.
    closing: bool,
    resp3: bool,
    mute: bool,
    mute_next: bool,
    topics: Vec<Topic>,
    pending: VecDeque<Rc<Message>>,
}

/// The model of the hub.
#[derive(Default)]
pub struct Model {
    sessions: [Session; SESSIONS as usize],
    /// The patterns of all sessions, in the order of their creation.
    patterns: Vec<Vec<u8>>,
    published: usize,
}

impl Model {
    fn of(&mut self, session: u32) -> &mut Session {
        &mut self.sessions[session as usize]
    }

    pub fn is_known(&self, session: u32) -> bool {
        self.sessions[session as usize].known
    }

    pub fn is_open(&self, session: u32) -> bool {
        self.is_known(session) && !self.sessions[session as usize].closing
    }

    pub fn connect(&mut self, session: u32) {
        *self.of(session) = Session { known: true, ..Session::default() };
    }

    pub fn listens(&self, session: u32) -> bool {
        !self.sessions[session as usize].topics.is_empty()
    }

    /// Closes a session. The hub sends it nothing more, not even its pending messages.
    pub fn closing(&mut self, session: u32) {
        let own = self.of(session);
        own.closing = true;
        own.topics.clear();
        own.pending.clear();
        self.forget_patterns();
    }

    pub fn ended(&mut self, session: u32) {
        *self.of(session) = Session::default();
        self.forget_patterns();
    }

    fn forget_patterns(&mut self) {
        let Model { sessions, patterns, .. } = self;
        patterns
            .retain(|pattern| sessions.iter().any(|session| session.has(Kind::Pattern, pattern)));
    }

    /// Returns true if the session gets an answer to its next command.
    fn answers(&mut self, session: u32) -> bool {
        let own = self.of(session);
        let skipped = std::mem::take(&mut own.mute_next);
        !own.mute && !skipped
    }

    /// Returns the error for a command that a RESP2 session with subscriptions must not send.
    fn refused(&mut self, session: u32, command: &str, answers: bool) -> Option<Vec<u8>> {
        let own = self.of(session);
        let refused = !own.resp3 && !own.topics.is_empty();
        let error = format!(
            "-ERR Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
             QUIT / RESET are allowed in this context\r\n"
        );
        refused.then(|| if answers { error.into_bytes() } else { Vec::new() })
    }

    /// Subscribes a session. Returns its pending messages and the confirmations, which come even if
    /// answers are off.
    pub fn subscribe(&mut self, session: u32, kind: Kind, names: &[Vec<u8>]) -> Vec<u8> {
        let answers = self.answers(session);
        let mut answer = self.pending(session);
        let own = &mut self.sessions[session as usize];
        for name in names {
            if !own.has(kind, name) {
                let full = kind == Kind::Pattern && own.count(&[Kind::Pattern]) == PATTERNS_MAX;
                if full {
                    answer.extend_from_slice(if answers {
                        b"-ERR too many subscriptions; the limit is 1024 patterns per connection \
                          (--max-patterns-per-connection)\r\n"
                    } else {
                        b""
                    });
                    return answer;
                }
                own.topics.push((kind, name.clone()));
                if kind == Kind::Pattern && !self.patterns.contains(name) {
                    self.patterns.push(name.clone());
                    // The index finds literal texts first, the shortest first.
                    self.patterns.sort_by_key(|pattern| match PatternShape::of(pattern) {
                        PatternShape::Prefix(text) => (0, text.len()),
                        PatternShape::Exact(_) => (1, 0),
                        PatternShape::Other => (2, 0),
                    });
                }
            }
            answer.extend(own.confirmation(kind.subscribe(), Some(name), kind));
        }
        answer
    }

    /// Takes all pending messages of a session. They come before the answer to a change of
    /// subscriptions.
    pub fn pending(&mut self, session: u32) -> Vec<u8> {
        let own = self.of(session);
        std::mem::take(&mut own.pending)
            .iter()
            .flat_map(|message| encode(message, own.resp3))
            .collect()
    }

    /// Panics unless the answer has the right confirmations. If all subscriptions of a kind end,
    /// their order is free.
    pub fn check_unsubscribed(
        &mut self,
        session: u32,
        kind: Kind,
        names: &[Vec<u8>],
        answer: &[u8],
    ) {
        self.answers(session);
        let own = &mut self.sessions[session as usize];
        let mut rest = answer;
        let mut take = |own: &Session, name: Option<&Vec<u8>>| {
            let expected = own.confirmation(kind.unsubscribe(), name, kind);
            let taken = rest.strip_prefix(&expected[..]);
            rest = taken.unwrap_or(rest);
            taken.is_some()
        };
        let mut left: Vec<Vec<u8>> = names.to_vec();
        if names.is_empty() {
            left = own
                .topics
                .iter()
                .filter(|topic| topic.0 == kind)
                .map(|topic| topic.1.clone())
                .collect();
            if left.is_empty() {
                assert!(take(own, None), "{}", answer.escape_ascii());
            }
        }
        while !left.is_empty() {
            let candidates = if names.is_empty() { left.len() } else { 1 };
            let all = own.topics.clone();
            let found = (0..candidates).find(|index| {
                own.topics.retain(|topic| *topic != (kind, left[*index].clone()));
                let found = take(own, Some(&left[*index]));
                if !found {
                    own.topics.clone_from(&all);
                }
                found
            });
            left.remove(found.unwrap_or_else(|| {
                panic!("no confirmation for {left:?}: {}", answer.escape_ascii())
            }));
        }
        assert!(rest.is_empty(), "bytes after the confirmations: {}", rest.escape_ascii());
        self.forget_patterns();
    }

    pub fn publish(&mut self, session: u32, kind: Kind, channel: &[u8], payload: &[u8]) -> Vec<u8> {
        let answers = self.answers(session);
        let command = if kind == Kind::Shard { "spublish" } else { "publish" };
        if let Some(error) = self.refused(session, command, answers) {
            return error;
        }
        let (channel, payload) = (channel.to_vec(), payload.to_vec());
        let word = if kind == Kind::Shard { &b"smessage"[..] } else { b"message" };
        self.published += 1;
        let (number, length) = (self.published, channel.len() + payload.len());
        let words = vec![word.to_vec(), channel.clone(), payload.clone()];
        let mut topics =
            vec![((kind, channel.clone()), Rc::new(Message { number, length, words }))];
        let matching =
            self.patterns.iter().filter(|pattern| glob::matches(pattern, &channel, &mut 0));
        if kind == Kind::Channel {
            topics.extend(matching.map(|pattern| {
                let words =
                    vec![b"pmessage".to_vec(), pattern.clone(), channel.clone(), payload.clone()];
                ((Kind::Pattern, pattern.clone()), Rc::new(Message { number, length, words }))
            }));
        }
        let mut receivers = 0;
        for ((kind, name), message) in topics {
            for own in self.sessions.iter_mut().filter(|session| session.has(kind, &name)) {
                own.pending.push_back(message.clone());
                receivers += 1;
            }
        }
        if answers { format!(":{receivers}\r\n").into_bytes() } else { Vec::new() }
    }

    pub fn check_hello(&mut self, session: u32, resp3: bool, answer: &[u8]) {
        let answers = self.answers(session);
        if let Some(error) = self.refused(session, "hello", answers) {
            return assert_eq!(answer, error);
        }
        self.of(session).resp3 = resp3;
        let head: &[u8] = if resp3 { b"%7\r\n" } else { b"*14\r\n" };
        let proto = [&bulk(b"proto")[..], if resp3 { b":3\r\n" } else { b":2\r\n" }].concat();
        let right =
            answer.starts_with(head) && answer.windows(proto.len()).any(|part| part == proto);
        assert!(if answers { right } else { answer.is_empty() }, "{}", answer.escape_ascii());
    }

    pub fn reply_mode(&mut self, session: u32, mode: Mode) -> Vec<u8> {
        let answers = self.answers(session);
        if let Some(error) = self.refused(session, "client", answers) {
            return error;
        }
        let own = self.of(session);
        match mode {
            Mode::On => own.mute = false,
            Mode::Off => own.mute = true,
            // SKIP has no effect while answers are off.
            Mode::Skip => own.mute_next = !own.mute,
        }
        if mode == Mode::On { b"+OK\r\n".to_vec() } else { Vec::new() }
    }

    /// Resets a session to a new one, with answers on.
    pub fn reset(&mut self, session: u32) -> Vec<u8> {
        let ahead = self.pending(session);
        self.ended(session);
        self.connect(session);
        [&ahead[..], b"+RESET\r\n"].concat()
    }

    pub fn quit(&mut self, session: u32) -> Vec<u8> {
        let answers = self.answers(session);
        let ahead = self.pending(session);
        self.closing(session);
        [&ahead[..], if answers { b"+OK\r\n" } else { b"" }].concat()
    }

    pub fn ping(&mut self, session: u32) -> Vec<u8> {
        let answers = self.answers(session);
        let own = self.of(session);
        match (answers, own.resp3 || own.topics.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => b"+PONG\r\n".to_vec(),
            (true, false) => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
        }
    }

    pub fn unknown(&mut self, session: u32) -> Vec<u8> {
        let error = b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n";
        if self.answers(session) { error.to_vec() } else { Vec::new() }
    }

    /// Checks a write to a session. It must have all pending messages, or as many as fit into a
    /// batch.
    pub fn delivered(&mut self, session: u32, mut bytes: &[u8]) {
        assert!(
            !bytes.is_empty() && self.is_open(session),
            "the hub sends session {session} {}",
            bytes.escape_ascii()
        );
        let own = self.of(session);
        let mut batch = 0;
        while !bytes.is_empty() {
            let message = own.pending.pop_front();
            batch += message.as_ref().map_or(0, |message| message.length);
            let expected =
                message.as_ref().map_or(Vec::new(), |message| encode(message, own.resp3));
            let rest = bytes.strip_prefix(&expected[..]).filter(|_| message.is_some());
            let Some(rest) = rest else {
                panic!(
                    "session {session} expects {}, not {}",
                    expected.escape_ascii(),
                    bytes.escape_ascii()
                );
            };
            bytes = rest;
        }
        let next = own.pending.front().map_or(0, |message| message.length);
        let is_cut = next > 0 && batch + next > BATCH_MAX;
        assert!(
            own.pending.is_empty() || is_cut,
            "session {session} has {} more messages, which fit into the batch",
            own.pending.len()
        );
    }

    /// Returns the bytes of all pending messages, each counted once.
    pub fn undelivered(&self) -> usize {
        let pending: BTreeMap<usize, usize> = self
            .sessions
            .iter()
            .flat_map(|session| &session.pending)
            .map(|message| (message.number, message.length))
            .collect();
        pending.values().sum()
    }

    /// Panics if a session still has pending messages.
    pub fn check_all_delivered(&self) {
        for (number, session) in self.sessions.iter().enumerate() {
            assert!(
                session.pending.is_empty(),
                "session {number} still has {} pending messages",
                session.pending.len()
            );
        }
    }
}

impl Session {
    fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.topics.iter().any(|topic| topic.0 == kind && topic.1 == name)
    }

    fn count(&self, kinds: &[Kind]) -> usize {
        self.topics.iter().filter(|topic| kinds.contains(&topic.0)).count()
    }

    fn confirmation(&self, word: &[u8], name: Option<&Vec<u8>>, kind: Kind) -> Vec<u8> {
        let kinds: &[Kind] =
            if kind == Kind::Shard { &[Kind::Shard] } else { &[Kind::Channel, Kind::Pattern] };
        let (head, null) = if self.resp3 { (">3\r\n", "_\r\n") } else { ("*3\r\n", "$-1\r\n") };
        let name = name.map_or(null.as_bytes().to_vec(), |name| bulk(name));
        let count = format!(":{}\r\n", self.count(kinds));
        [head.as_bytes(), &bulk(word), &name, count.as_bytes()].concat()
    }
}

fn encode(Message { words, .. }: &Message, resp3: bool) -> Vec<u8> {
    let mut bytes = format!("{}{}\r\n", if resp3 { '>' } else { '*' }, words.len()).into_bytes();
    words.iter().for_each(|word| bytes.extend(bulk(word)));
    bytes
}

pub fn bulk(word: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat()
}

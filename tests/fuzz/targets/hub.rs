//! Receivers and order of messages. Sequences of commands of a few sessions run beside a model,
//! which keeps the subscriptions and the pending messages of each session. The target compares each
//! answer and each delivery with the model.
//!
//! A command that must wait is repeated when the hub asks for it, as the loop does. Its session
//! does nothing else in this time.

use slabd::clock::Time;
use slabd::hub::Hub;
use slabd::limits::BACKLOG_MAX;
use slabd::net::Transferred;
use slabd::outbox::Outbox;
use slabd::service::server::Parting;
use slabd::service::{ConnectionId, Options, Output, Reply, Service, Taken};

use super::hub_model::{Kind, Mode, Model, SESSIONS, bulk};
use super::no_server::NoServer;

/// Runs the target. The bytes are operations, each followed by its arguments. At the end, all
/// pending messages are delivered.
pub fn hub(data: &[u8]) {
    let mut run = Run {
        hub: Hub::new(&Options::default()),
        model: Model::default(),
        bytes: data.iter().copied(),
        published: 0,
        put_off: Vec::new(),
        resumed: Vec::new(),
        queued: 0,
        has_waited: false,
    };
    while let Some(operation) = run.bytes.next() {
        run.step(operation);
        run.check();
    }
    // In each turn, at least one waiting session resumes.
    for _ in 0..=SESSIONS {
        run.deliver(usize::MAX, usize::MAX);
        run.go_on();
        run.check();
    }
    assert!(!run.hub.has_output() && run.put_off.is_empty(), "output or a command is left");
    run.model.check_all_delivered();
}

struct Run<'a> {
    hub: Hub,
    model: Model,
    bytes: std::iter::Copied<std::slice::Iter<'a, u8>>,
    /// Number of publishes so far, which makes each message unique.
    published: usize,
    /// The waiting commands with their sessions.
    put_off: Vec<(u32, Command)>,
    /// The sessions that may repeat their commands, in order.
    resumed: Vec<u32>,
    /// Bytes published since the last moment without undelivered messages.
    queued: usize,
    /// True if a command had to wait since that moment.
    has_waited: bool,
}

/// A command that may have to wait.
enum Command {
    Publish { kind: Kind, channel: Vec<u8>, payload: Vec<u8> },
    ReplyMode(Mode),
}

impl Run<'_> {
    fn next(&mut self) -> usize {
        usize::from(self.bytes.next().unwrap_or_default())
    }

    /// Checks the hub's invariants and compares its subscribers with the model's.
    fn check(&self) {
        self.hub.check_invariants();
        for session in 0..SESSIONS {
            assert_eq!(
                self.hub.listens(ConnectionId(session)),
                self.model.listens(session),
                "session {session}"
            );
        }
    }

    /// Executes an operation. Its lower four bits choose the kind, and the next two the session.
    /// The highest two make a publish large.
    fn step(&mut self, operation: u8) {
        let session = u32::from(operation >> 4) % SESSIONS;
        if self.waits(session) && !matches!(operation & 15, 11 | 12) {
            return;
        }
        if !self.model.is_open(session) && operation & 15 != 12 {
            self.connect(session);
        }
        match operation & 15 {
            0..=2 => self.subscribe(session),
            3 | 4 => self.unsubscribe(session),
            5..=7 => self.publish(session, operation >= 192),
            8 => self.simple(session, &[b"RESET"], Model::reset),
            9 => {
                let resp3 = self.next() & 1 == 1;
                self.hello(session, resp3);
            }
            10 => {
                self.simple(session, &[b"QUIT"], Model::quit);
                self.hub.closing(ConnectionId(session));
            }
            11 => self.close(session),
            12 => {
                let (count, bytes) = (self.next(), self.next() * 4);
                // Commands of other sessions may come before the waiting ones are repeated.
                self.deliver(count % 8 + 1, bytes);
                if count < 128 {
                    self.go_on();
                }
            }
            13 => self.reply_mode(session),
            14 => self.simple(session, &[b"PING"], Model::ping),
            _ => self.simple(session, &[b"NOSUCH"], Model::unknown),
        }
    }

    fn connect(&mut self, session: u32) {
        if self.model.is_known(session) {
            self.ended(session);
        }
        let mut greeting = Vec::new();
        let reply = Reply::to(ConnectionId(session), Time::ZERO, &mut greeting);
        self.hub.connected(&mut reply.from(([127, 0, 0, 1], 1000).into()));
        assert!(greeting.is_empty());
        self.model.connect(session);
    }

    /// Ends a connection, at once or after its last answer.
    fn close(&mut self, session: u32) {
        self.put_off.retain(|(other, _)| *other != session);
        self.resumed.retain(|other| *other != session);
        if self.next() & 1 == 1 {
            self.hub.closing(ConnectionId(session));
            self.model.closing(session);
        } else {
            self.ended(session);
        }
    }

    fn ended(&mut self, session: u32) {
        let parting = Parting {
            peer: None,
            reason: "peer-closed",
            transferred: Transferred::default(),
            now: Time::ZERO,
        };
        self.hub.closed(ConnectionId(session), &parting);
        self.model.ended(session);
    }

    fn subscribe(&mut self, session: u32) {
        let kind = self.kind();
        let names: Vec<Vec<u8>> = (0..1 + self.next() % 3).map(|_| self.name(kind)).collect();
        let expected = self.model.subscribe(session, kind, &names);
        let answer = self.command(session, &with_names(kind.subscribe(), &names));
        assert_answer(&answer, &expected);
    }

    fn unsubscribe(&mut self, session: u32) {
        let kind = self.kind();
        let names: Vec<Vec<u8>> = (0..self.next() % 3).map(|_| self.name(kind)).collect();
        let ahead = self.model.pending(session);
        let answer = self.command(session, &with_names(kind.unsubscribe(), &names));
        let Some(rest) = answer.strip_prefix(&ahead[..]) else {
            panic!("{:?} does not begin with {:?}", shown(&answer), shown(&ahead));
        };
        self.model.check_unsubscribed(session, kind, &names, rest);
    }

    fn publish(&mut self, session: u32, is_large: bool) {
        let kind = if self.next().is_multiple_of(4) { Kind::Shard } else { Kind::Channel };
        let channel = self.name(kind);
        self.published += 1;
        // Five of the largest messages fill the backlog, so further publishes must wait.
        let length = self.next() % 64 * if is_large { 1024 } else { 1 };
        let mut payload = self.published.to_string().into_bytes();
        payload.resize(length.max(payload.len()), b'.');
        self.attempt(session, Command::Publish { kind, channel, payload });
    }

    fn hello(&mut self, session: u32, resp3: bool) {
        let answer = self.command(session, &[b"HELLO", if resp3 { b"3" } else { b"2" }]);
        self.model.check_hello(session, resp3, &answer);
    }

    fn reply_mode(&mut self, session: u32) {
        let mode = [Mode::On, Mode::Off, Mode::Skip][self.next() % 3];
        self.attempt(session, Command::ReplyMode(mode));
    }

    /// Gives a command to the hub, which executes it or makes it wait.
    fn attempt(&mut self, session: u32, command: Command) {
        let is_idle = !self.hub.has_output();
        if is_idle {
            (self.queued, self.has_waited) = (0, false);
        }
        let (answer, waits) = match &command {
            Command::Publish { kind, channel, payload } => {
                let word: &[u8] = if *kind == Kind::Shard { b"SPUBLISH" } else { b"PUBLISH" };
                let (answer, waits) = self.give(session, &[word, channel, payload]);
                let (undelivered, at_most) = (self.model.undelivered(), self.queued);
                match waits {
                    true => {
                        assert!(
                            at_most >= BACKLOG_MAX || self.has_waited,
                            "a publish waits behind {at_most} bytes"
                        )
                    }
                    false => {
                        assert!(undelivered < BACKLOG_MAX, "{undelivered} bytes are undelivered")
                    }
                }
                (answer, waits)
            }
            Command::ReplyMode(mode) => self.give(session, &[b"CLIENT", b"REPLY", mode.word()]),
        };
        if waits {
            assert!(!is_idle && answer.is_empty(), "{:?}", shown(&answer));
            // A command waits only behind a publish that has no room.
            assert!(self.has_waited || matches!(command, Command::Publish { .. }));
            self.has_waited = true;
            return self.put_off.push((session, command));
        }
        let expected = match command {
            Command::Publish { kind, channel, payload } => {
                self.queued += channel.len() + payload.len();
                self.model.publish(session, kind, &channel, &payload)
            }
            Command::ReplyMode(mode) => self.model.reply_mode(session, mode),
        };
        assert_answer(&answer, &expected);
    }

    fn waits(&self, session: u32) -> bool {
        self.put_off.iter().any(|(other, _)| *other == session)
    }

    /// Repeats the commands of the resumed sessions.
    fn go_on(&mut self) {
        for session in std::mem::take(&mut self.resumed) {
            let place = self.put_off.iter().position(|(other, _)| *other == session);
            // The session may have ended in the meantime.
            if let Some(place) = place {
                let (_, command) = self.put_off.remove(place);
                self.attempt(session, command);
            }
        }
    }

    /// Gives a command whose whole answer the model knows.
    fn simple(&mut self, session: u32, words: &[&[u8]], expected: fn(&mut Model, u32) -> Vec<u8>) {
        let expected = expected(&mut self.model, session);
        let answer = self.command(session, words);
        assert_answer(&answer, &expected);
    }

    /// Gives a command that never waits. Returns its answer.
    fn command(&mut self, session: u32, words: &[&[u8]]) -> Vec<u8> {
        let (answer, waits) = self.give(session, words);
        assert!(!waits, "{:?} waits", shown(words[0]));
        answer
    }

    /// Gives a command of a session to the hub. Returns the answer, and whether the command must
    /// wait.
    fn give(&mut self, session: u32, words: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(bulk(word));
        }
        // The hub must leave earlier bytes of the buffer unchanged.
        let mut answer = b"before".to_vec();
        let mut reply = Reply::to(ConnectionId(session), Time::ZERO, &mut answer);
        let mut input = message.clone();
        let taken = self.hub.receive(&mut input, 0, &mut reply, &mut NoServer::default());
        assert!(
            taken == Taken::Message(message.len()) || taken == Taken::Later && input == message,
            "{taken:?}"
        );
        assert_eq!(&answer[..6], b"before");
        (answer.split_off(6), taken == Taken::Later)
    }

    /// Delivers one turn's messages, at most `count` writes and `bytes` bytes.
    fn deliver(&mut self, count: usize, bytes: usize) {
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        self.hub.collect(&mut Output::new(Time::ZERO, &mut server, &mut outbox, count, bytes));
        let entries = outbox.entries();
        let total: usize = entries.iter().map(|entry| entry.range.len()).sum();
        assert!(
            entries.len() <= count && (total <= bytes || entries.len() == 1),
            "{} deliveries of {total} bytes are over the budget",
            entries.len()
        );
        assert!(
            !entries.is_empty() || !self.hub.has_output(),
            "the hub has output but delivers nothing"
        );
        for entry in entries {
            assert!(entry.close.is_none() && !entry.is_own);
            self.model.delivered(entry.slot, outbox.bytes(&entry.range));
        }
        for session in outbox.take_resumed() {
            // The loop no longer reads from a closing session.
            assert!(
                self.waits(session) || !self.model.is_open(session),
                "the hub resumes session {session}, which does not wait"
            );
            self.resumed.push(session);
        }
    }

    fn kind(&mut self) -> Kind {
        [Kind::Channel, Kind::Pattern, Kind::Shard][self.next() % 3]
    }

    /// Returns one of a few channels, or one of more patterns than a session may have.
    fn name(&mut self, kind: Kind) -> Vec<u8> {
        let number = self.next();
        match kind {
            Kind::Channel | Kind::Shard => {
                [&b"a"[..], b"b", b"ab", b"ba", b"abc", b"\r\n", b""][number % 7].to_vec()
            }
            Kind::Pattern => match number % 24 {
                few @ 0..8 => {
                    [&b"*"[..], b"a*", b"*b", b"?", b"[ab]", b"[^a]*", b"ab", b""][few].to_vec()
                }
                many => b"*".repeat(many),
            },
        }
    }
}

fn with_names<'a>(command: &'a [u8], names: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    std::iter::once(command).chain(names.iter().map(Vec::as_slice)).collect()
}

/// Compares two answers. Escapes them only if they differ, because they can be long.
fn assert_answer(answer: &[u8], expected: &[u8]) {
    assert!(answer == expected, "the answer is {}, not {}", shown(answer), shown(expected));
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

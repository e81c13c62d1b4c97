//! Who receives what in which order: sequences of commands of a few sessions beside a model that keeps, for each session, its
//! subscriptions and the messages that it is still owed. Every answer is compared whole, and every delivery.

use slabd::clock::Time;
use slabd::net::Transferred;
use slabd::outbox::Outbox;
use slabd::service::hub::Hub;
use slabd::service::server::Parting;
use slabd::service::{Deliveries, Options, Reply, Service};

use super::hub_model::{Kind, Mode, Model, SESSIONS, bulk};
use super::no_server::NoServer;

/// The bytes are operations, each with its arguments behind it, until they end. Then all that is owed is delivered.
pub fn hub(data: &[u8]) {
    let mut run =
        Run { hub: Hub::new(&Options::default()), model: Model::default(), bytes: data.iter().copied(), published: 0 };
    while let Some(operation) = run.bytes.next() {
        run.step(operation);
        run.hub.check_invariants();
    }
    run.deliver(usize::MAX, usize::MAX);
    assert!(!run.hub.has_output(), "output is left");
    run.model.check_all_delivered();
}

struct Run<'a> {
    hub: Hub,
    model: Model,
    bytes: std::iter::Copied<std::slice::Iter<'a, u8>>,
    /// Publishes so far: each message differs from the others.
    published: usize,
}

impl Run<'_> {
    fn next(&mut self) -> usize {
        usize::from(self.bytes.next().unwrap_or_default())
    }

    /// The lower four bits are what is done, the next ones who does it.
    fn step(&mut self, operation: u8) {
        let session = u32::from(operation >> 4) % SESSIONS;
        if !self.model.is_open(session) && operation & 15 != 12 {
            self.connect(session);
        }
        match operation & 15 {
            0..=2 => self.subscribe(session),
            3 | 4 => self.unsubscribe(session),
            5..=7 => self.publish(session),
            8 => self.simple(session, &[b"RESET"], Model::reset),
            9 => {
                let resp3 = self.next() & 1 == 1;
                self.hello(session, resp3);
            }
            10 => {
                self.simple(session, &[b"QUIT"], Model::quit);
                self.hub.closing(session);
            }
            11 => self.close(session),
            12 => {
                let (count, bytes) = (self.next() % 8 + 1, self.next() * 4);
                self.deliver(count, bytes);
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
        self.hub.connected(&mut Reply::new(session, &mut Vec::new()).from(([127, 0, 0, 1], 1000).into()));
        self.model.connect(session);
    }

    /// A connection breaks; sometimes its last answer was due before.
    fn close(&mut self, session: u32) {
        if self.next() & 1 == 1 {
            self.hub.closing(session);
            self.model.closing(session);
        } else {
            self.ended(session);
        }
    }

    fn ended(&mut self, session: u32) {
        let parting =
            Parting { peer: None, reason: "peer-closed", transferred: Transferred::default(), now: Time::ZERO };
        self.hub.closed(session, &parting);
        self.model.ended(session);
    }

    fn subscribe(&mut self, session: u32) {
        let kind = self.kind();
        let names: Vec<Vec<u8>> = (0..1 + self.next() % 3).map(|_| self.name(kind)).collect();
        let expected = self.model.subscribe(session, kind, &names);
        let answer = self.command(session, &with_names(kind.subscribe(), &names));
        assert_eq!(shown(&answer), shown(&expected));
    }

    fn unsubscribe(&mut self, session: u32) {
        let kind = self.kind();
        let names: Vec<Vec<u8>> = (0..self.next() % 3).map(|_| self.name(kind)).collect();
        let ahead = self.model.owed(session);
        let answer = self.command(session, &with_names(kind.unsubscribe(), &names));
        let Some(rest) = answer.strip_prefix(&ahead[..]) else {
            panic!("{:?} does not begin with {:?}", shown(&answer), shown(&ahead));
        };
        self.model.check_unsubscribed(session, kind, &names, rest);
    }

    fn publish(&mut self, session: u32) {
        let kind = if self.next().is_multiple_of(4) { Kind::Shard } else { Kind::Channel };
        let channel = self.name(kind);
        self.published += 1;
        let length = self.next() % 64;
        let payload = format!("{:0>length$}", self.published);
        let expected = self.model.publish(session, kind, &channel, payload.as_bytes());
        let command: &[u8] = if kind == Kind::Shard { b"SPUBLISH" } else { b"PUBLISH" };
        let answer = self.command(session, &[command, &channel, payload.as_bytes()]);
        assert_eq!(shown(&answer), shown(&expected));
    }

    fn hello(&mut self, session: u32, resp3: bool) {
        let answer = self.command(session, &[b"HELLO", if resp3 { b"3" } else { b"2" }]);
        self.model.check_hello(session, resp3, &answer);
    }

    fn reply_mode(&mut self, session: u32) {
        let (mode, word): (Mode, &[u8]) =
            [(Mode::On, &b"ON"[..]), (Mode::Off, b"OFF"), (Mode::Skip, b"SKIP")][self.next() % 3];
        let expected = self.model.reply_mode(session, mode);
        let answer = self.command(session, &[b"CLIENT", b"REPLY", word]);
        assert_eq!(shown(&answer), shown(&expected));
    }

    /// A command whose answer the model knows whole.
    fn simple(&mut self, session: u32, words: &[&[u8]], expected: fn(&mut Model, u32) -> Vec<u8>) {
        let expected = expected(&mut self.model, session);
        let answer = self.command(session, words);
        assert_eq!(shown(&answer), shown(&expected), "{:?}", shown(words[0]));
    }

    fn command(&mut self, session: u32, words: &[&[u8]]) -> Vec<u8> {
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(bulk(word));
        }
        // What others have written before stays.
        let mut answer = b"before".to_vec();
        let mut reply = Reply::new(session, &mut answer);
        self.hub.message(&message, &mut reply);
        if reply.wants_consultation() {
            self.hub.consult(&mut NoServer, &mut reply);
        }
        answer.split_off(6)
    }

    /// One turn's deliveries, of no more than so many and so many bytes.
    fn deliver(&mut self, count: usize, bytes: usize) {
        let mut outbox = Outbox::default();
        self.hub.poll_output(&mut Deliveries::new(&mut outbox, count, bytes));
        let entries = outbox.entries();
        let total: usize = entries.iter().map(|entry| entry.range.len()).sum();
        assert!(
            entries.len() <= count && (total <= bytes || entries.len() == 1),
            "{} deliveries, {total} bytes",
            entries.len()
        );
        assert!(!entries.is_empty() || !self.hub.has_output(), "nothing was delivered, and there is output");
        for entry in entries {
            self.model.delivered(entry.slot, outbox.bytes(&entry.range));
        }
    }

    fn kind(&mut self) -> Kind {
        [Kind::Channel, Kind::Pattern, Kind::Shard][self.next() % 3]
    }

    /// One of a few names, and of more patterns than a session may have.
    fn name(&mut self, kind: Kind) -> Vec<u8> {
        let number = self.next();
        match kind {
            Kind::Channel | Kind::Shard => [&b"a"[..], b"b", b"ab", b"ba", b"abc", b"\r\n", b""][number % 7].to_vec(),
            Kind::Pattern => match number % 24 {
                few @ 0..8 => [&b"*"[..], b"a*", b"*b", b"?", b"[ab]", b"[^a]*", b"ab", b""][few].to_vec(),
                many => b"*".repeat(many),
            },
        }
    }
}

fn with_names<'a>(command: &'a [u8], names: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    std::iter::once(command).chain(names.iter().map(Vec::as_slice)).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

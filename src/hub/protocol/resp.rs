//! The Redis protocol: RESP2, RESP3 and inline commands.
//!
//! Each message of a stream is one command. [`Parser`] splits it into words, and the table of
//! [`commands`] finds and runs the command.

mod admin;
mod clients;
pub mod commands;
mod describe;
mod help;
pub mod inline;
mod large;
mod listing;
mod pubsub;
mod redis_sections;
mod rows;
mod slices;
mod startup;
mod tracking;
mod transactions;
mod walks;
mod words;

use crate::codec::resp::{self, Command, CommandLimits, Parser, Protocol};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::encoding::Encoding;
use crate::hub::sessions::{AUTHENTICATED, PeerProtocol, Session, SessionId};
use crate::limits::LEADING_BLANKS_MAX;
use crate::service::server::Server;
use crate::service::{Output, Reply, Taken};
use inline::InputError;
use large::LargeCommands;
use slices::Slices;
use tracking::Trackers;
use transactions::Transactions;
use walks::Walks;

/// The version of Redis whose protocol and errors the hub follows. Clients read it to decide which
/// commands they may send.
const REDIS_VERSION: &str = "7.0.15";

/// The error for a peer on another machine when no password is set.
pub const DENIED: &[u8] = b"-DENIED slabd is in protected mode: no password is set, so it serves \
    this machine only (127.0.0.0/8 and ::1). To serve other machines, start it with --requirepass, \
    --requirepass-file or SLABD_REQUIREPASS, and let clients send AUTH.\r\n";

/// The RESP side of the hub.
#[derive(Default)]
pub struct Resp {
    pub(super) parser: Parser,
    large: LargeCommands,
    pub(super) walks: Walks,
    pub(super) transactions: Transactions,
    slices: Slices,
    pub(super) trackers: Trackers,
}

/// The work of a command that is served in slices.
#[derive(Clone, Copy)]
pub enum SlicedWork {
    /// Begins or ends the subscriptions to names of a kind.
    Names { kind: Kind, subscribes: bool },
    /// Ends all subscriptions of a kind. `next` is the number of those not looked at yet.
    All { kind: Kind, next: u32 },
    /// Ends all subscriptions, before RESET runs.
    Reset,
}

/// A running command: its session, and where its reply goes.
pub struct Call<'a, 'b> {
    pub session: SessionId,
    pub reply: &'a mut Reply<'b>,
    pub server: &'a mut dyn Server,
    pub walks: &'a mut Walks,
    pub transactions: &'a mut Transactions,
    pub trackers: &'a mut Trackers,
    /// Length of the command in the input, in bytes. 0: the command must be served at once.
    length: usize,
    /// The work of a command that is served in slices.
    begun: Option<SlicedWork>,
    /// Number of bytes at the front that are no reply, such as messages. They are sent even if
    /// replies are off.
    kept: usize,
    /// True if the reply is not sent.
    muted: bool,
    /// True if the command is deferred.
    waits: bool,
}

impl<'a, 'b> Call<'a, 'b> {
    pub fn new(
        session: SessionId,
        reply: &'a mut Reply<'b>,
        server: &'a mut dyn Server,
        (walks, transactions, trackers): (&'a mut Walks, &'a mut Transactions, &'a mut Trackers),
    ) -> Call<'a, 'b> {
        Call {
            session,
            reply,
            server,
            walks,
            transactions,
            trackers,
            length: 0,
            begun: None,
            kept: 0,
            muted: false,
            waits: false,
        }
    }

    /// Returns the buffer that the reply is appended to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.reply.bytes_mut()
    }

    /// Appends an error.
    pub fn error(&mut self, text: &str) {
        resp::error(self.out(), text.as_bytes());
    }

    /// Marks all bytes so far as no reply: they are sent even if replies are off.
    pub fn keep(&mut self) {
        self.kept = self.reply.len();
    }

    /// Defers the command: its bytes are read again later.
    pub fn wait(&mut self) {
        self.waits = true;
    }
}

impl Resp {
    /// Serves the command at the front of the input. A multibulk command, as client libraries send
    /// it, is parsed in one pass; an inline command, as people type it, in two.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        input: &[u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        if let Some(taken) = self.go_on(shared, session, input, reply, server) {
            return taken;
        }
        let own = shared.sessions.get(session);
        let limits = &match own.is(AUTHENTICATED) {
            true => CommandLimits::up_to(server.limits().max_message),
            false => CommandLimits::UNTRUSTED,
        };
        let is_first = RespState::of(&own).command == 0;
        let blanks = if is_first { inline::leading_blanks(input) } else { 0 };
        if blanks > LEADING_BLANKS_MAX {
            InputError::TooManyBlanks.send(limits, reply);
            return Taken::Message(input.len());
        }
        let (whole, input) = (input.len(), &input[blanks..]);
        let is_inline = input.first() != Some(&b'*');
        let mut large = self.large.take(session);
        let taken = if let Some(parser) = &mut large {
            parser.go_on(input, limits).map_err(InputError::Frame)
        } else if is_inline {
            let scanned = scanned.saturating_sub(blanks);
            inline::take(&mut self.parser, input, scanned, limits, is_first)
        } else {
            self.parser.parse_multibulk(input, limits).map_err(InputError::Frame)
        };
        let (taken, ends) = match taken {
            Ok(None) => (Taken::Incomplete, false),
            Ok(Some((words, length))) => {
                let Resp { walks, transactions, trackers, .. } = self;
                let tables = (walks, transactions, trackers);
                let mut call = Call::new(session, reply, server, tables);
                call.length = length;
                run(shared, words, &mut call);
                let (waits, begun) = (call.waits, call.begun);
                if is_first && is_inline {
                    inline::judge_first(shared, session, words, reply, waits);
                }
                let taken = match begun {
                    _ if waits => Taken::Later,
                    Some(work) => self.begin(session, work, blanks, &input[..length]),
                    None => Taken::Message(blanks + length),
                };
                (taken, !waits)
            }
            Err(refusal) => {
                refusal.send(limits, reply);
                (Taken::Message(whole), true)
            }
        };
        if ends {
            self.parser.release();
        } else {
            self.large.keep(session, large, &mut self.parser);
        }
        taken
    }

    /// Returns true if a walk continues in the next turn.
    pub fn has_work(&self, is_link_full: bool) -> bool {
        self.walks.has_work() || self.transactions.has_holder() && !is_link_full
    }

    /// Returns true if publishes wait for an EXEC that has paused.
    pub fn holds_publishers(&self) -> bool {
        self.transactions.has_holder()
    }

    /// Continues the walks, and an EXEC that has paused.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.walks.collect(shared, output);
        self.transactions.collect(shared, output);
    }

    /// Drops what the tables hold for a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.walks.closed(session);
        self.large.take(session);
        self.transactions.close(session);
        self.slices.closed(session);
        self.trackers.close(session);
    }

    /// Lets other sessions publish while a session whose EXEC has paused closes.
    pub fn closing(&mut self, session: SessionId) {
        self.transactions.release(session);
    }

    /// Returns the sessions for which the result of a walk is kept.
    pub fn askers(&self) -> impl Iterator<Item = SessionId> {
        self.walks.askers()
    }

    /// Returns the memory of the tables, in bytes.
    pub fn bytes(&self) -> usize {
        let tables = self.walks.bytes() + self.transactions.bytes() + self.trackers.bytes();
        tables + self.large.bytes() + self.slices.bytes()
    }

    /// Returns the sessions with an unfinished command of many words.
    pub fn senders(&self) -> impl Iterator<Item = SessionId> {
        self.large.sessions()
    }

    /// Returns the sessions of which a command is partly served.
    pub fn in_slices(&self) -> impl Iterator<Item = SessionId> {
        self.slices.sessions()
    }

    /// Panics unless exactly the live sessions between MULTI and EXEC have a transaction, and only
    /// live sessions track keys. For tests.
    pub fn check_tables(&self, shared: &Shared) {
        self.trackers.check_invariants();
        assert!(
            self.trackers.sessions().all(|index| shared.sessions.at(index).serial != 0),
            "an ended session still tracks keys"
        );
        self.transactions.check_invariants();
        let states = (0..shared.sessions.places())
            .map(|index| (index, RespState::of(&shared.sessions.get(shared.sessions.at(index)))));
        let queueing = states.filter(|(_, state)| state.is_queueing()).map(|(index, _)| index);
        assert!(
            self.transactions.sessions().eq(queueing),
            "the transactions and the sessions between MULTI and EXEC disagree"
        );
    }

    /// Returns the memory of the parser, in bytes.
    pub fn parser_bytes(&self) -> usize {
        self.parser.bytes()
    }
}

/// Runs a command of a session, and removes the reply if the client has turned replies off.
fn run(shared: &mut Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    if words.is_empty() {
        return;
    }
    let own = RespState::of(&shared.sessions.get(call.session));
    let skips = own.flags & SKIP_NEXT != 0;
    if skips {
        RespState::put(shared, call.session, SKIP_NEXT, false);
    }
    call.muted = skips;
    commands::run(shared, words, call);
    if call.waits {
        RespState::put(shared, call.session, SKIP_NEXT, skips);
        // Messages that precede the reply are sent in any case.
        call.reply.truncate(call.kept);
    } else if call.muted || RespState::of(&shared.sessions.get(call.session)).flags & MUTE != 0 {
        call.reply.truncate(call.kept.min(call.reply.len()));
    }
}

/// The RESP state of a session, packed into [`Session::protocol_state`].
#[derive(Clone, Copy)]
struct RespState {
    /// Index of the last command in the table, plus 1; 0: no command yet.
    command: u8,
    /// [`MUTE`] and [`SKIP_NEXT`].
    flags: u8,
}

const COMMAND_BITS: u32 = 6;
const _: () = assert!(commands::TABLE.len() < 1 << COMMAND_BITS);

/// Flag: CLIENT REPLY OFF, replies are not sent.
const MUTE: u8 = 1;
/// Flag: CLIENT REPLY SKIP, the next reply is not sent.
const SKIP_NEXT: u8 = 1 << 1;

impl RespState {
    /// Returns the state of a session. One that speaks another protocol has none.
    fn of(session: &Session) -> RespState {
        let packed = match session.protocol {
            PeerProtocol::Unknown | PeerProtocol::Resp => session.protocol_state,
            PeerProtocol::Http
            | PeerProtocol::WebSocket
            | PeerProtocol::Events
            | PeerProtocol::SocketIo => 0,
        };
        RespState { command: packed & ((1 << COMMAND_BITS) - 1), flags: packed >> COMMAND_BITS }
    }

    fn set(self, session: &mut Session) {
        session.protocol_state = self.command | self.flags << COMMAND_BITS;
    }

    fn put(shared: &mut Shared, session: SessionId, flag: u8, on: bool) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        let own = RespState::of(session);
        RespState { flags: if on { own.flags | flag } else { own.flags & !flag }, ..own }
            .set(session);
    }

    fn note_command(shared: &mut Shared, session: SessionId, index: usize) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        RespState { command: index as u8 + 1, ..RespState::of(session) }.set(session);
    }

    /// Returns true between MULTI and EXEC.
    fn is_queueing(self) -> bool {
        usize::from(self.command) == commands::MULTI + 1
    }

    /// Makes a session one that has run no command yet.
    fn forget_command(shared: &mut Shared, session: SessionId) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        RespState { command: 0, ..RespState::of(session) }.set(session);
    }

    /// Returns the name of the last command, as CLIENT LIST shows it.
    fn command_name(self) -> &'static str {
        let index = usize::from(self.command).checked_sub(1);
        index.map_or("NULL", |index| commands::TABLE[index].name)
    }
}

impl Shared {
    fn protocol(&self, session: SessionId) -> Protocol {
        match self.sessions.get(session).encoding {
            Encoding::Resp3 => Protocol::Resp3,
            _ => Protocol::Resp2,
        }
    }

    fn set_protocol(&mut self, session: SessionId, protocol: Protocol) {
        if let Some(own) = self.sessions.get_mut(session) {
            own.encoding = match protocol {
                Protocol::Resp2 => Encoding::Resp2,
                Protocol::Resp3 => Encoding::Resp3,
            };
        }
    }

    /// Returns true if a session may run only the commands that RESP2 allows to subscribers.
    fn is_limited(&self, session: SessionId) -> bool {
        self.protocol(session) == Protocol::Resp2 && self.channels.is_subscribed(session.index)
    }
}

/// Appends the error for a newcomer that finds no free slot, in the words of Redis. A limit that
/// Redis does not have is named.
pub fn full(limit: &str, out: &mut Vec<u8>) {
    let named = if limit == "max-connections" { "" } else { &format!(" ({limit})") };
    resp::error(out, format!("ERR max number of clients reached{named}").as_bytes());
}

/// Appends the reason why the server closes a connection, if the protocol can carry it. RESP3 has
/// pushes, of which client libraries expect at least three words. RESP2 can carry an error only as
/// the reply to a command, so only a client with an unfinished command gets one.
pub fn farewell(encoding: Encoding, reason: Reason, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Resp3 => {
            resp::pushed(out, Protocol::Resp3, &[b"closing", b"slabd", reason.name().as_bytes()]);
        }
        Encoding::Resp2 if reason == Reason::MessageTimeout => {
            resp::error(out, format!("ERR closing: {}", reason.name()).as_bytes());
        }
        _ => {}
    }
}

/// Returns a shell command that people can try.
pub fn example(host: &str, port: u16, stream: bool) -> String {
    if stream {
        format!("redis-cli -h {host} -p {port}")
    } else {
        format!("echo PUBLISH news hello | nc -u -w1 {host} {port}")
    }
}

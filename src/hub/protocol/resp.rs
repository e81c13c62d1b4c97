//! The Redis protocol, RESP2 and RESP3, and inline commands.
//!
//! A message of a stream is one command. It is taken apart by [`Parser`], looked up in the table of
//! [`commands`], and answered there.

mod admin;
mod clients;
pub mod commands;
mod help;
mod listing;
mod pubsub;
mod walks;
mod words;

use crate::codec::resp::{self, Command, CommandLimits, Frame, FrameError, Parser, Protocol};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::channels::Kind;
use crate::hub::encoding::Encoding;
use crate::hub::sessions::{Session, SessionId};
use crate::service::server::Server;
use crate::service::{Output, Reply, Taken};
use walks::Walks;

/// The version of Redis whose protocol and errors these are: clients look at it to decide what they
/// may send.
const REDIS_VERSION: &str = "7.0.15";

/// What a peer elsewhere is told where no password is set.
pub const DENIED: &[u8] = b"-DENIED slabd is in protected mode: no password is set, so it serves this machine alone (127.0.0.0/8 and \
::1). To serve others, start it with --requirepass, --requirepass-file or SLABD_REQUIREPASS, and have clients send AUTH.\r\n";

#[derive(Default)]
pub struct Resp {
    pub(super) parser: Parser,
    pub(super) walks: Walks,
}

/// A command that is being carried out: whose it is, and where the answer goes.
pub struct Call<'a, 'b> {
    pub session: SessionId,
    pub reply: &'a mut Reply<'b>,
    pub server: &'a mut dyn Server,
    pub walks: &'a mut Walks,
    /// Bytes written that are no answer, to be left in where answers are off.
    kept: usize,
    /// The answer is left out.
    muted: bool,
    /// The command must wait: it comes again.
    waits: bool,
}

impl<'a, 'b> Call<'a, 'b> {
    pub fn new(
        session: SessionId,
        reply: &'a mut Reply<'b>,
        server: &'a mut dyn Server,
        walks: &'a mut Walks,
    ) -> Call<'a, 'b> {
        Call { session, reply, server, walks, kept: 0, muted: false, waits: false }
    }

    pub fn out(&mut self) -> &mut Vec<u8> {
        self.reply.bytes_mut()
    }

    pub fn error(&mut self, text: &str) {
        resp::error(self.out(), text.as_bytes());
    }

    /// All that has been written is no answer.
    pub fn keep(&mut self) {
        self.kept = self.reply.len();
    }

    /// The command must wait: it comes again.
    pub fn wait(&mut self) {
        self.waits = true;
    }
}

impl Resp {
    /// Serves the command at the front of the input. What client libraries send is taken apart in one
    /// pass; what people type, in two.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        input: &[u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        let limits = match shared.is_authenticated(session) {
            true => &CommandLimits::default(),
            false => &CommandLimits::UNTRUSTED,
        };
        let taken = if input.first() == Some(&b'*') {
            self.parser.parse_multibulk(input, limits)
        } else {
            match resp::frame(input, scanned, limits) {
                Frame::Incomplete => return Taken::Incomplete,
                Frame::Invalid(error) => Err(error),
                // A browser made to send a POST here must not have its body run as commands.
                Frame::Command { message, .. } if resp::is_http_request_line(message) => {
                    reply.send(b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                    reply.close();
                    return Taken::Message(input.len());
                }
                Frame::Command { message, length } => {
                    self.parser.parse(message, limits).map(|words| Some((words, length)))
                }
            }
        };
        match taken {
            Ok(None) => Taken::Incomplete,
            Ok(Some((words, length))) => {
                let mut call = Call::new(session, reply, server, &mut self.walks);
                run(shared, words, &mut call);
                if call.waits { Taken::Later } else { Taken::Message(length) }
            }
            Err(error) => {
                refuse(error, reply);
                Taken::Message(input.len())
            }
        }
    }

    /// Whether there is work that goes on in the next turn.
    pub fn has_work(&self) -> bool {
        self.walks.has_work()
    }

    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.walks.collect(shared, output);
    }

    pub fn closed(&mut self, session: SessionId) {
        self.walks.closed(session);
    }

    pub fn walk_bytes(&self) -> usize {
        self.walks.bytes()
    }

    pub fn parser_bytes(&self) -> usize {
        self.parser.bytes()
    }
}

/// Carries out a command of a session, and leaves out the answer where it wants none.
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
        call.reply.truncate(0);
    } else if call.muted || RespState::of(&shared.sessions.get(call.session)).flags & MUTE != 0 {
        call.reply.truncate(call.kept.min(call.reply.len()));
    }
}

/// The peer does not speak the protocol: it is told so, and its connection closes.
fn refuse(error: FrameError, reply: &mut Reply<'_>) {
    let mut text = b"ERR ".to_vec();
    error.write(&mut text);
    resp::error(reply.bytes_mut(), &text);
    reply.close_for(Reason::ProtocolError);
}

/// What RESP keeps of a session, in the one byte that it has there.
#[derive(Clone, Copy)]
struct RespState {
    /// One more than the index of its last command in the table; 0: none yet.
    command: u8,
    flags: u8,
}

const COMMAND_BITS: u32 = 6;
const _: () = assert!(commands::TABLE.len() < 1 << COMMAND_BITS);

/// CLIENT REPLY OFF.
const MUTE: u8 = 1;
/// CLIENT REPLY SKIP: the next answer is left out.
const SKIP_NEXT: u8 = 1 << 1;

impl RespState {
    fn of(session: &Session) -> RespState {
        let packed = session.protocol_state;
        RespState { command: packed & ((1 << COMMAND_BITS) - 1), flags: packed >> COMMAND_BITS }
    }

    fn set(self, session: &mut Session) {
        session.protocol_state = self.command | self.flags << COMMAND_BITS;
    }

    fn put(shared: &mut Shared, session: SessionId, flag: u8, on: bool) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        let own = RespState::of(session);
        RespState { flags: if on { own.flags | flag } else { own.flags & !flag }, ..own }.set(session);
    }

    fn note_command(shared: &mut Shared, session: SessionId, index: usize) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        RespState { command: index as u8 + 1, ..RespState::of(session) }.set(session);
    }

    /// As CLIENT LIST shows the last command.
    fn command_name(self) -> &'static str {
        let index = usize::from(self.command).checked_sub(1);
        index.map_or("NULL", |index| commands::TABLE[index].name)
    }
}

impl Shared {
    fn protocol(&self, session: SessionId) -> Protocol {
        match self.sessions.get(session).encoding() {
            Encoding::Resp2 => Protocol::Resp2,
            Encoding::Resp3 => Protocol::Resp3,
        }
    }

    fn set_protocol(&mut self, session: SessionId, protocol: Protocol) {
        if let Some(own) = self.sessions.get_mut(session) {
            own.set_encoding(if protocol == Protocol::Resp3 { Encoding::Resp3 } else { Encoding::Resp2 });
        }
    }

    /// Whether a session may only run what Redis allows a subscribed connection of RESP2.
    fn is_limited(&self, session: SessionId) -> bool {
        self.protocol(session) == Protocol::Resp2 && self.channels.is_subscribed(session.index)
    }

    fn has_monitors(&self) -> bool {
        self.channels.topic(Kind::Feed, b"").is_some()
    }
}

pub fn full(out: &mut Vec<u8>) {
    resp::error(out, b"ERR max number of clients reached");
}

/// Only RESP3 can carry what nobody asked for, and libraries expect at least three words of it; in
/// both versions an answer is due to a command that was begun. A connection that is killed sees its
/// end, as with Redis.
pub fn farewell(encoding: Encoding, reason: Reason, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Resp3 => {
            resp::pushed(out, Protocol::Resp3, &[b"closing", b"slabd", reason.name().as_bytes()]);
        }
        Encoding::Resp2 if reason == Reason::MessageTimeout => {
            resp::error(out, format!("ERR closing: {}", reason.name()).as_bytes());
        }
        Encoding::Resp2 => {}
    }
}

/// A line for people to try.
pub fn example(host: &str, port: u16, stream: bool) -> String {
    if stream {
        format!("redis-cli -h {host} -p {port}")
    } else {
        format!("echo PUBLISH news hello | nc -u -w1 {host} {port}")
    }
}

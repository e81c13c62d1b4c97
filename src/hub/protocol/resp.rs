//! The Redis protocol: RESP2, RESP3 and inline commands.
//!
//! Each message of a stream is one command. [`Parser`] splits it into words, and the table of
//! [`commands`] finds and runs the command.

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

/// The version of Redis whose protocol and errors the hub follows. Clients read it to decide which
/// commands they may send.
const REDIS_VERSION: &str = "7.0.15";

/// The error for a peer on another machine when no password is set.
pub const DENIED: &[u8] = b"-DENIED slabd is in protected mode: no password is set, so it serves \
    this machine only (127.0.0.0/8 and ::1). To serve other machines, start it with --requirepass, \
    --requirepass-file or SLABD_REQUIREPASS, and let clients send AUTH.\r\n";

/// The response to an HTTP request.
const HTTP_REFUSED: &[u8] =
    b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The RESP side of the hub.
#[derive(Default)]
pub struct Resp {
    pub(super) parser: Parser,
    pub(super) walks: Walks,
}

/// A running command: its session, and where its reply goes.
pub struct Call<'a, 'b> {
    pub session: SessionId,
    pub reply: &'a mut Reply<'b>,
    pub server: &'a mut dyn Server,
    pub walks: &'a mut Walks,
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
        walks: &'a mut Walks,
    ) -> Call<'a, 'b> {
        Call { session, reply, server, walks, kept: 0, muted: false, waits: false }
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
                // A web page can make a browser send a POST here. Its body must not run as
                // commands.
                Frame::Command { message, .. } if resp::is_http_request_line(message) => {
                    reply.send(HTTP_REFUSED);
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

    /// Returns true if a walk continues in the next turn.
    pub fn has_work(&self) -> bool {
        self.walks.has_work()
    }

    /// Continues the walks.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.walks.collect(shared, output);
    }

    /// Drops the walks of a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.walks.closed(session);
    }

    /// Returns the sessions for which the result of a walk is kept.
    pub fn askers(&self) -> impl Iterator<Item = SessionId> {
        self.walks.askers()
    }

    /// Returns the memory of the walks, in bytes.
    pub fn walk_bytes(&self) -> usize {
        self.walks.bytes()
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
        call.reply.truncate(0);
    } else if call.muted || RespState::of(&shared.sessions.get(call.session)).flags & MUTE != 0 {
        call.reply.truncate(call.kept.min(call.reply.len()));
    }
}

/// Sends a protocol error and closes the connection.
fn refuse(error: FrameError, reply: &mut Reply<'_>) {
    let mut text = b"ERR ".to_vec();
    error.write(&mut text);
    resp::error(reply.bytes_mut(), &text);
    reply.close_for(Reason::ProtocolError);
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
        RespState { flags: if on { own.flags | flag } else { own.flags & !flag }, ..own }
            .set(session);
    }

    fn note_command(shared: &mut Shared, session: SessionId, index: usize) {
        let Some(session) = shared.sessions.get_mut(session) else { return };
        RespState { command: index as u8 + 1, ..RespState::of(session) }.set(session);
    }

    /// Returns the name of the last command, as CLIENT LIST shows it.
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
            own.set_encoding(if protocol == Protocol::Resp3 {
                Encoding::Resp3
            } else {
                Encoding::Resp2
            });
        }
    }

    /// Returns true if a session may run only the commands that RESP2 allows to subscribers.
    fn is_limited(&self, session: SessionId) -> bool {
        self.protocol(session) == Protocol::Resp2 && self.channels.is_subscribed(session.index)
    }

    /// Returns true if a session runs MONITOR.
    fn has_monitors(&self) -> bool {
        self.channels.topic(Kind::Feed, b"").is_some()
    }
}

/// Appends the error for a newcomer that finds no free slot.
pub fn full(out: &mut Vec<u8>) {
    resp::error(out, b"ERR max number of clients reached");
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
        Encoding::Resp2 => {}
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

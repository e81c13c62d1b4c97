//! The messaging hub: a pub/sub server that speaks the Redis protocol, RESP2 and RESP3, and inline commands.
//!
//! A message of a stream is one command. It is taken apart by [`Parser`], looked up in the table of [`commands`], and answered
//! there; what is published goes through [`publish`] to the subscribers that [`channels`] knows. The hub knows sessions by
//! number, and neither sockets nor clocks; for the few commands that ask about them, it consults the server.

mod access;
mod admin;
mod channels;
mod clients;
mod commands;
pub mod glob;
mod help;
mod labels;
mod publish;
mod pubsub;
mod subscriptions;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::server::{Parting, Server};
use super::{Deliveries, Options, Reply, Service, Taken};
use crate::clock::{Tick, Time};
use crate::codec::resp::{self, Command, CommandLimits, Frame, FrameError, OwnedCommand, Parser, Protocol};
use crate::codec::{Framing, FramingLimits, Invalid};
use crate::connection::Reason;
use crate::limits::CLOSED_KEPT;
use crate::net::Transferred;
use access::Access;
use channels::Channels;
use labels::Labels;
use publish::Publisher;

/// The version of Redis whose protocol and errors these are: clients look at it to decide what they may send.
const REDIS_VERSION: &str = "7.0.15";

/// What a peer elsewhere is told where no password is set.
const DENIED: &[u8] = b"-DENIED slabd is in protected mode: no password is set, so it serves this machine alone (127.0.0.0/8 and \
::1). To serve others, start it with --requirepass, --requirepass-file or SLABD_REQUIREPASS, and have clients send AUTH.\r\n";

/// What the hub knows of a connection besides its subscriptions: sixteen bytes.
#[derive(Clone, Copy)]
struct Session {
    /// Told by CLIENT ID. Counts sessions from 1, so it also tells the owners of a reused number apart. 0: nobody.
    id: u32,
    since: Tick,
    /// Where it comes from, by IPv4: the kernel no longer tells once both sides have closed. 0.0.0.0: by IPv6, which it is asked for.
    address: [u8; 4],
    port: u16,
    /// Row of its last command.
    command: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Session>() == 16);

/// Flags of a session.
const RESP3: u8 = 1;
const AUTHENTICATED: u8 = 1 << 1;
/// CLIENT REPLY OFF.
const MUTE: u8 = 1 << 2;
/// CLIENT REPLY SKIP: the next answer is left out.
const MUTE_NEXT: u8 = 1 << 3;
/// The command being carried out is the one whose answer is left out.
const MUTE_THIS: u8 = 1 << 4;
/// Came by the operator's listener, for as long as it lasts.
const OPERATOR: u8 = 1 << 5;

const NO_COMMAND: u8 = u8::MAX;
const NOBODY: Session = Session { id: 0, since: Tick(0), address: [0; 4], port: 0, command: NO_COMMAND, flags: 0 };

impl Session {
    fn protocol(self) -> Protocol {
        if self.flags & RESP3 != 0 { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    fn is_authenticated(self) -> bool {
        self.flags & AUTHENTICATED != 0
    }

    fn is_operator(self) -> bool {
        self.flags & OPERATOR != 0
    }

    fn peer(self) -> Option<SocketAddr> {
        (self.address != [0; 4]).then(|| SocketAddr::from((self.address, self.port)))
    }

    fn age(self, now: Time) -> Duration {
        Tick::LENGTH * now.tick().distance_from(self.since).max(0) as u32
    }
}

/// A connection that is gone, for CLIENT CLOSED.
struct Closed {
    id: u32,
    peer: Option<SocketAddr>,
    age: Duration,
    transferred: Transferred,
    reason: &'static str,
}

/// Who a datagram's command is from: no session has this number.
const NO_SESSION: u32 = u32::MAX;

pub struct Hub {
    parser: Parser,
    /// The answer to a datagram, until it is known to be short enough.
    answer: Vec<u8>,
    state: State,
}

/// Everything but the parser, whose memory a command borrows while it is carried out.
struct State {
    /// By session number.
    sessions: Vec<Session>,
    sessions_seen: u32,
    labels: Labels,
    channels: Channels,
    publisher: Publisher,
    access: Access,
    /// Sessions that asked by MONITOR.
    monitors: Vec<u32>,
    /// The command that waits for the server's help.
    pending: OwnedCommand,
    /// The latest last.
    closed: VecDeque<Closed>,
    unix_start: Duration,
    max_connections: usize,
    /// Bytes that the command has written which are no answer, to be left out where answers are off.
    kept: usize,
    commands_processed: u64,
    datagrams_refused: u64,
}

impl Hub {
    pub fn new(options: &Options) -> Hub {
        let state = State {
            sessions: Vec::new(),
            sessions_seen: 0,
            labels: Labels::default(),
            channels: Channels::default(),
            publisher: Publisher::default(),
            access: Access::new(options),
            monitors: Vec::new(),
            pending: OwnedCommand::default(),
            closed: VecDeque::new(),
            unix_start: options.unix_start,
            max_connections: options.max_connections,
            kept: 0,
            commands_processed: 0,
            datagrams_refused: 0,
        };
        Hub { parser: Parser::default(), answer: Vec::new(), state }
    }

    /// Carries out a command that has been cut out.
    fn serve(&mut self, message: &[u8], limits: &CommandLimits, reply: &mut Reply<'_>) -> Result<(), FrameError> {
        // A browser made to send a POST here must not have its body run as commands.
        if resp::is_http_request_line(message) {
            reply.send(b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            reply.close();
            return Ok(());
        }
        self.state.run(self.parser.parse(message, limits)?, reply);
        Ok(())
    }
}

impl State {
    fn session(&self, session: u32) -> Session {
        self.sessions.get(session as usize).copied().unwrap_or(NOBODY)
    }

    fn protocol(&self, session: u32) -> Protocol {
        self.session(session).protocol()
    }

    fn live_sessions(&self) -> impl Iterator<Item = u32> {
        self.sessions.iter().zip(0..).filter(|(session, _)| session.id != 0).map(|(_, number)| number)
    }

    /// Whether it may only run what Redis allows a subscribed connection of RESP2.
    fn is_limited(&self, session: u32) -> bool {
        self.protocol(session) == Protocol::Resp2 && self.channels.is_subscribed(session)
    }

    fn set_flag(&mut self, session: u32, flag: u8, on: bool) {
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.flags = if on { session.flags | flag } else { session.flags & !flag };
        }
    }

    fn set_protocol(&mut self, session: u32, protocol: Protocol) {
        self.set_flag(session, RESP3, protocol == Protocol::Resp3);
    }

    fn set_authenticated(&mut self, session: u32) {
        self.set_flag(session, AUTHENTICATED, true);
    }

    fn set_replies(&mut self, session: u32, on: bool, skip: bool) {
        match skip {
            // A skip changes nothing about OFF.
            true if self.session(session).flags & MUTE == 0 => self.set_flag(session, MUTE_NEXT, true),
            true => {}
            false => {
                self.set_flag(session, MUTE, !on);
                self.set_flag(session, MUTE_THIS, false);
            }
        }
    }

    fn note_command(&mut self, session: u32, command: u8) {
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.command = command;
        }
    }

    /// What the hub holds for a session, in bytes.
    fn bytes_of(&self, session: u32) -> usize {
        size_of::<Session>() + self.labels.bytes_of(session) + self.channels.bytes_of(session)
    }

    /// Forgets what the session has said of itself: RESET, and the end of its connection.
    fn forget(&mut self, session: u32) {
        self.channels.close(session);
        self.labels.forget_name(session);
        self.monitors.retain(|monitor| *monitor != session);
        let flags = self.first_flags();
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.flags = flags | (session.flags & OPERATOR);
        }
    }

    /// The flags of a session that has said nothing.
    fn first_flags(&self) -> u8 {
        if self.access.needs_password() { 0 } else { AUTHENTICATED }
    }

    /// The time of day, since 1970 in UTC.
    fn unix_time(&self, now: Time) -> Duration {
        self.unix_start + now.since(Time::ZERO)
    }

    /// Gives the session that asks what was published before, or shown to it by MONITOR: that is about to end.
    fn deliver_now(&mut self, reply: &mut Reply<'_>) {
        let receives = self.channels.is_subscribed(reply.session) || self.monitors.contains(&reply.session);
        if self.publisher.has_output() && receives {
            let own = self.session(reply.session);
            self.publisher.deliver_now(own.id, own.protocol(), reply);
            self.kept = reply.len();
        }
    }

    /// Carries out a command of a session, and leaves out the answer where it wants none.
    fn run(&mut self, words: Command<'_>, reply: &mut Reply<'_>) {
        if words.is_empty() {
            return;
        }
        if self.session(reply.session).flags & MUTE_NEXT != 0 {
            self.set_flag(reply.session, MUTE_NEXT, false);
            self.set_flag(reply.session, MUTE_THIS, true);
        }
        commands::run(self, words, reply);
        if !reply.wants_consultation() {
            self.mute(reply);
        }
    }

    /// The command is done: leaves out its answer where the session wants none.
    fn mute(&mut self, reply: &mut Reply<'_>) {
        let kept = std::mem::take(&mut self.kept);
        if self.session(reply.session).flags & (MUTE | MUTE_THIS) != 0 {
            self.set_flag(reply.session, MUTE_THIS, false);
            reply.truncate(kept.min(reply.len()));
        }
    }
}

impl Service for Hub {
    fn framing(&self) -> Framing {
        Framing::Commands
    }

    fn connected(&mut self, reply: &mut Reply<'_>) {
        let slot = reply.session as usize;
        let sessions = &mut self.state.sessions;
        if slot >= sessions.len() {
            // Room for all at once: what is not used yet costs no memory, and moving would leave holes in the heap.
            if slot >= sessions.capacity() {
                sessions.reserve_exact(self.state.max_connections.max(slot + 1) - sessions.len());
            }
            sessions.resize(slot + 1, NOBODY);
        }
        self.state.sessions_seen = self.state.sessions_seen.wrapping_add(1).max(1);
        let id = self.state.sessions_seen;
        let flags = self.state.first_flags() | if reply.is_operator { OPERATOR } else { 0 };
        let (address, port) = match reply.peer {
            Some(SocketAddr::V4(peer)) => (peer.ip().octets(), peer.port()),
            _ => ([0; 4], 0),
        };
        self.state.sessions[slot] = Session { id, since: reply.now.tick(), address, port, command: NO_COMMAND, flags };
        if reply.peer.is_some_and(|peer| !self.state.access.admits(peer.ip())) {
            reply.send(DENIED);
            return reply.close();
        }
        if self.state.access.needs_password() {
            reply.trust(false);
        }
    }

    fn message(&mut self, message: &[u8], reply: &mut Reply<'_>) {
        if let Err(error) = self.serve(message, &CommandLimits::default(), reply) {
            Invalid::Command(error).write(reply.bytes_mut());
            reply.close();
        }
    }

    /// What client libraries send is taken apart in one pass; what people type, in the usual two.
    fn take(&mut self, bytes: &[u8], scanned: usize, limits: &FramingLimits, reply: &mut Reply<'_>) -> Taken {
        let limits = &limits.commands;
        let taken = if bytes.first() == Some(&b'*') {
            self.parser.parse_multibulk(bytes, limits).map(|found| {
                found.map(|(words, length)| {
                    self.state.run(words, reply);
                    length
                })
            })
        } else {
            match resp::frame(bytes, scanned, limits) {
                Frame::Command { message, length } => self.serve(message, limits, reply).map(|()| Some(length)),
                Frame::Incomplete => Ok(None),
                Frame::Invalid(error) => Err(error),
            }
        };
        match taken {
            Ok(Some(length)) => Taken::Message { length },
            Ok(None) => Taken::Incomplete,
            Err(error) => Taken::Invalid(Invalid::Command(error)),
        }
    }

    fn consult(&mut self, server: &mut dyn Server, reply: &mut Reply<'_>) {
        commands::consult(&mut self.state, server, reply);
        self.state.mute(reply);
    }

    /// One datagram is one command. Its answer is never longer than the question, else there is none, and errors are not answered: a
    /// forged sender must gain nothing.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>) {
        let State { access, datagrams_refused, .. } = &mut self.state;
        let command = match reply.peer {
            Some(peer) if !access.takes_datagram(peer, reply.now) => None,
            Some(peer) => access.command_of(datagram, peer, reply.now),
            None => Some(datagram),
        };
        let Some(command) = command else {
            *datagrams_refused += 1;
            return;
        };
        let limits = CommandLimits::default();
        let message = match resp::frame(command, 0, &limits) {
            Frame::Command { message, length } if length == command.len() => message,
            // An inline command need not end with a line break here: the datagram ends it.
            Frame::Incomplete if command.first() != Some(&b'*') => command,
            _ => return,
        };
        let Ok(words) = self.parser.parse(message, &limits) else { return };
        self.answer.clear();
        let mut answer = Reply::new(NO_SESSION, &mut self.answer).at(reply.now);
        let answered = commands::run_datagram(&mut self.state, words, &mut answer);
        let is_short = self.answer.len() <= datagram.len();
        if answered && is_short {
            reply.send(&self.answer);
        }
    }

    /// As Redis's `timeout` spares subscribers and monitors. Whether they are still there, keepalive finds out.
    fn listens(&self, session: u32) -> bool {
        self.state.channels.is_subscribed(session) || self.state.monitors.contains(&session)
    }

    fn full(&self, out: &mut Vec<u8>) {
        resp::error(out, b"ERR max number of clients reached");
    }

    /// Only RESP3 can carry what nobody asked for, and libraries expect at least three words of it; in both versions an answer is due
    /// to a command that was begun. Who is killed sees its connection break, as by Redis.
    fn farewell(&self, session: u32, reason: Reason, out: &mut Vec<u8>) {
        match self.state.protocol(session) {
            Protocol::Resp3 => {
                resp::push(out, 3, Protocol::Resp3);
                resp::bulk(out, b"closing");
                resp::bulk(out, b"slabd");
                resp::bulk(out, reason.name().as_bytes());
            }
            Protocol::Resp2 if reason == Reason::MessageTimeout => {
                resp::error(out, format!("ERR closing: {}", reason.name()).as_bytes());
            }
            Protocol::Resp2 => {}
        }
    }

    fn closing(&mut self, session: u32) {
        self.state.channels.close(session);
        self.state.monitors.retain(|monitor| *monitor != session);
    }

    fn closed(&mut self, number: u32, parting: &Parting) {
        let session = self.state.session(number);
        self.state.forget(number);
        self.state.labels.close(number);
        if session.id == 0 {
            return;
        }
        self.state.sessions[number as usize] = NOBODY;
        if self.state.closed.len() >= CLOSED_KEPT {
            self.state.closed.pop_front();
        }
        let Parting { peer, reason, transferred, now } = *parting;
        let peer = session.peer().or(peer);
        self.state.closed.push_back(Closed { id: session.id, peer, age: session.age(now), transferred, reason });
    }

    fn remembers_closed(&self) -> bool {
        true
    }

    fn has_output(&self) -> bool {
        self.state.publisher.has_output()
    }

    fn is_backlogged(&self) -> bool {
        self.state.publisher.is_backlogged()
    }

    fn bytes(&self) -> usize {
        let State { sessions, labels, channels, publisher, .. } = &self.state;
        sessions.len() * size_of::<Session>() + labels.bytes() + channels.bytes() + publisher.bytes()
    }

    fn fixed_bytes(&self) -> usize {
        self.state.access.bytes() + self.state.closed.capacity() * size_of::<Closed>()
    }

    fn shrink(&mut self) {
        let State { sessions, labels, channels, publisher, .. } = &mut self.state;
        let used = sessions.iter().rposition(|session| session.id != 0).map_or(0, |last| last + 1);
        sessions.truncate(used);
        sessions.shrink_to_fit();
        labels.shrink();
        channels.shrink();
        publisher.shrink();
    }

    fn check_invariants(&self) {
        self.state.channels.check_invariants();
    }

    fn poll_output(&mut self, deliveries: &mut Deliveries<'_>) {
        let State { sessions, publisher, .. } = &mut self.state;
        publisher.poll_output(deliveries, sessions);
    }

    fn example(&self, host: &str, port: u16, stream: bool) -> String {
        if stream {
            format!("redis-cli -h {host} -p {port}")
        } else {
            format!("echo PUBLISH news hello | nc -u -w1 {host} {port}")
        }
    }
}

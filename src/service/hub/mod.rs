//! The messaging hub: a pub/sub server that speaks the Redis protocol, RESP2 and RESP3, and inline commands.
//!
//! A message of a stream is one command. It is taken apart by [`Parser`], looked up in the table of [`commands`], and answered
//! there; what is published goes through [`publish`] to the subscribers that [`channels`] knows. The hub knows sessions by
//! number, and neither sockets nor clocks.

mod channels;
mod commands;
mod glob;
mod publish;
mod subscriptions;

use std::collections::HashMap;

use super::{Deliveries, Reply, Service};
use crate::codec::Framing;
use crate::codec::resp::{self, Parser, Protocol};
use channels::Channels;
use publish::Publisher;

/// What the hub knows of a connection besides its subscriptions: eight bytes.
#[derive(Clone, Copy)]
struct Session {
    /// Told by CLIENT ID. Counts sessions from 1, so it also tells the owners of a reused number apart. 0: nobody.
    id: u32,
    protocol: Protocol,
}

const NOBODY: Session = Session { id: 0, protocol: Protocol::Resp2 };

#[derive(Default)]
pub struct Hub {
    parser: Parser,
    /// The answer to a datagram, until it is known to be short enough.
    answer: Vec<u8>,
    state: State,
}

/// Everything but the parser, whose memory a command borrows while it is carried out.
#[derive(Default)]
struct State {
    /// By session number.
    sessions: Vec<Session>,
    sessions_seen: u32,
    /// Set by CLIENT SETNAME; few have one.
    names: HashMap<u32, Box<[u8]>>,
    channels: Channels,
    publisher: Publisher,
    commands_processed: u64,
}

impl State {
    fn session(&self, session: u32) -> Session {
        self.sessions.get(session as usize).copied().unwrap_or(NOBODY)
    }

    fn protocol(&self, session: u32) -> Protocol {
        self.session(session).protocol
    }

    fn set_protocol(&mut self, session: u32, protocol: Protocol) {
        if let Some(session) = self.sessions.get_mut(session as usize) {
            session.protocol = protocol;
        }
    }

    /// Forgets what the session has said of itself: RESET, and the end of its connection.
    fn forget(&mut self, session: u32) {
        self.channels.close(session);
        self.names.remove(&session);
        self.set_protocol(session, Protocol::Resp2);
    }
}

impl Service for Hub {
    fn framing(&self) -> Framing {
        Framing::Commands
    }

    fn connected(&mut self, reply: &mut Reply<'_>) {
        let slot = reply.session as usize;
        if slot >= self.state.sessions.len() {
            self.state.sessions.resize(slot + 1, NOBODY);
        }
        self.state.sessions_seen = self.state.sessions_seen.wrapping_add(1).max(1);
        self.state.sessions[slot] = Session { id: self.state.sessions_seen, protocol: Protocol::Resp2 };
    }

    fn message(&mut self, message: &[u8], reply: &mut Reply<'_>) {
        // A browser made to send a POST here must not have its body run as commands.
        if resp::is_http_request_line(message) {
            reply.send(b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            return reply.close();
        }
        match self.parser.parse(message) {
            Ok(command) if command.is_empty() => {}
            Ok(command) => commands::run(&mut self.state, command, reply),
            Err(_unbalanced) => {
                resp::error(reply.bytes_mut(), format!("ERR {}", resp::UNBALANCED_QUOTES).as_bytes());
                reply.close();
            }
        }
    }

    /// One datagram is one command. Its answer is never longer than the question, else there is none, and errors are not answered: a
    /// forged sender must gain nothing.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>) {
        let limits = resp::CommandLimits::default();
        let message = match resp::frame(datagram, 0, &limits) {
            resp::Frame::Command { message, length } if length == datagram.len() => message,
            // An inline command need not end with a line break here: the datagram ends it.
            resp::Frame::Incomplete if datagram.first() != Some(&b'*') => datagram,
            _ => return,
        };
        let Ok(command) = self.parser.parse(message) else { return };
        self.answer.clear();
        if commands::run_datagram(&mut self.state, command, &mut self.answer) && self.answer.len() <= datagram.len() {
            reply.send(&self.answer);
        }
    }

    fn closed(&mut self, session: u32) {
        self.state.forget(session);
        if let Some(session) = self.state.sessions.get_mut(session as usize) {
            *session = NOBODY;
        }
    }

    fn has_output(&self) -> bool {
        self.state.publisher.has_output()
    }

    fn is_backlogged(&self) -> bool {
        self.state.publisher.is_backlogged()
    }

    fn bytes(&self) -> usize {
        let State { sessions, names, channels, publisher, .. } = &self.state;
        let names_bytes = names.capacity() * size_of::<(u32, Box<[u8]>)>();
        sessions.len() * size_of::<Session>() + names_bytes + channels.bytes() + publisher.bytes()
    }

    fn shrink(&mut self) {
        let State { sessions, names, channels, publisher, .. } = &mut self.state;
        let used = sessions.iter().rposition(|session| session.id != 0).map_or(0, |last| last + 1);
        sessions.truncate(used);
        sessions.shrink_to_fit();
        names.shrink_to_fit();
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

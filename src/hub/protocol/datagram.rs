//! Datagrams: one is one command, or a line with the password and then a command.
//!
//! The answer is never longer than the question, else there is none, and errors are not answered: a
//! forged sender must gain nothing.

use super::resp::{Call, Resp, commands};
use crate::codec::resp::{self, CommandLimits, Frame};
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::service::Reply;
use crate::service::server::Server;

impl Resp {
    pub fn datagram(&mut self, shared: &mut Shared, datagram: &[u8], reply: &mut Reply<'_>, server: &mut dyn Server) {
        let access = &mut shared.access;
        let command = match reply.peer {
            Some(peer) if !access.takes_datagram(peer, reply.now) => None,
            Some(peer) => access.command_of(datagram, peer, reply.now),
            None => None,
        };
        let Some(command) = command else {
            shared.datagrams_refused += 1;
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
        let mut call = Call::new(SessionId::NONE, reply, server, &mut self.walks);
        let answered = commands::run_datagram(shared, words, &mut call);
        if !answered || reply.len() > datagram.len() {
            reply.truncate(0);
        }
    }
}

//! Datagrams. Each holds one command, after a line with the password if one is set.
//!
//! A datagram's sender can be forged, so the server must not amplify traffic. A reply longer than
//! the datagram is not sent, and an error is not sent either.

use super::resp::{Call, Resp, commands, inline};
use crate::codec::resp::{self, CommandLimits, Frame};
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::service::Reply;
use crate::service::server::Server;

impl Resp {
    /// Serves one datagram.
    pub fn datagram(
        &mut self,
        shared: &mut Shared,
        datagram: &[u8],
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) {
        let access = &mut shared.access;
        let command = match reply.peer {
            Some(peer) if !access.admits(peer.ip()) => None,
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
            // The end of the datagram ends an inline command, so the line break may be missing.
            Frame::Incomplete if command.first() != Some(&b'*') => command,
            _ => return,
        };
        if inline::protocol_version(message).is_some() {
            return;
        }
        let Ok(words) = self.parser.parse(message, &limits) else { return };
        let Resp { walks, transactions, trackers, .. } = self;
        let tables = (walks, transactions, trackers);
        let mut call = Call::new(SessionId::NONE, reply, server, tables);
        let answered = commands::run_datagram(shared, words, &mut call);
        if !answered || reply.len() > datagram.len() {
            reply.truncate(0);
        }
    }
}

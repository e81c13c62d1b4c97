//! What phase 6 does for one batch of datagrams: ask the service for answers, and send them.

use std::io;

use super::Reactor;
use crate::limits::{DATAGRAM_MAX, DATAGRAM_MAX_V4};
use crate::net::Net;
use crate::service::Reply;

impl<N: Net> Reactor<N> {
    /// The service's answers to the batch that has just been received from a socket.
    pub(super) fn answer_datagrams(&mut self, index: u8) {
        let Reactor { core, services, datagrams, .. } = self;
        let socket = &core.sockets[index as usize];
        let service = &mut *services[socket.service as usize];
        let largest = if socket.address.is_ipv4() { DATAGRAM_MAX_V4 } else { DATAGRAM_MAX };
        for datagram in 0..datagrams.len() {
            // Two sockets that answer could answer each other for ever: what comes from a port of ours,
            // here or on another machine, is not answered. Port 0 cannot be.
            let ours = |port| port == 0 || core.sockets.iter().any(|socket| socket.address.port() == port);
            let source = datagrams.source(datagram).to_socket_addr();
            let Some(source) = source.filter(|source| !ours(source.port())) else {
                core.stats.datagrams_dropped_loop += 1;
                continue;
            };
            let (bytes, answers) = datagrams.exchange(datagram);
            let mut reply = Reply::to_datagram(source, core.now, answers);
            service.datagram(bytes, &mut reply, core);
            core.stats.datagrams_dropped_backlog += u64::from(reply.is_late());
            if !reply.answers_datagram() {
                continue;
            }
            if reply.len() > largest {
                core.stats.datagrams_dropped_too_large += 1;
                datagrams.discard_answer();
                continue;
            }
            datagrams.answer(datagram);
        }
        self.send_answers(index);
    }

    /// Sends the batch's answers. A full socket buffer drops the rest: datagrams may be lost, and
    /// waiting would make the loop hold them.
    fn send_answers(&mut self, index: u8) {
        let Reactor { core, datagrams, .. } = self;
        let (mut first, count) = (0, datagrams.answers_len());
        while first < count {
            match core.net.send(&core.sockets[index as usize].handle, datagrams, first) {
                Ok(sent) => {
                    first += sent.max(1);
                    core.stats.datagrams_out += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    core.stats.datagrams_dropped_full += (count - first) as u64;
                    return;
                }
                // It is about the first one: a source that cannot be reached, a firewall that forbids it.
                Err(_) => {
                    core.stats.datagram_errors += 1;
                    first += 1;
                }
            }
        }
    }
}

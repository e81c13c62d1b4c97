//! What phase 6 does for one batch of datagrams: ask the service for answers, and send them.

use std::io;

use super::Reactor;
use crate::limits::{DATAGRAM_MAX, DATAGRAM_MAX_V4};
use crate::net::Net;
use crate::service::Reply;

impl<N: Net> Reactor<N> {
    /// The service's answers to the batch that has just been received from a socket.
    pub(super) fn answer_datagrams(&mut self, index: u8) {
        let socket = &self.sockets[index as usize];
        let service = &mut *self.services[socket.service as usize];
        let largest = if socket.address.is_ipv4() { DATAGRAM_MAX_V4 } else { DATAGRAM_MAX };
        for datagram in 0..self.datagrams.len() {
            // A batch of publishes must not pile up more than those of a stream may. Datagrams may be lost; the rest of them is.
            if service.is_backlogged() {
                self.stats.datagrams_dropped_backlog += (self.datagrams.len() - datagram) as u64;
                break;
            }
            // Two sockets that answer could answer each other for ever: what comes from a port of ours, here or on another
            // machine, is not answered. Port 0 cannot be.
            let ours = |port| port == 0 || self.sockets.iter().any(|socket| socket.address.port() == port);
            let source = self.datagrams.source(datagram).to_socket_addr();
            let Some(source) = source.filter(|source| !ours(source.port())) else {
                self.stats.datagrams_dropped_loop += 1;
                continue;
            };
            let (bytes, answers) = self.datagrams.exchange(datagram);
            let mut reply = Reply::new(0, answers).at(self.now).from(source);
            service.datagram(bytes, &mut reply);
            if !reply.answers_datagram() {
                continue;
            }
            if reply.len() > largest {
                self.stats.datagrams_dropped_too_large += 1;
                self.datagrams.discard_answer();
                continue;
            }
            self.datagrams.answer(datagram);
        }
        self.send_answers(index);
    }

    /// Sends the batch's answers. A full socket buffer drops the rest: datagrams may be lost, and waiting would
    /// make the loop hold them.
    fn send_answers(&mut self, index: u8) {
        let socket = &self.sockets[index as usize].handle;
        let (mut first, count) = (0, self.datagrams.answers_len());
        while first < count {
            match self.net.send(socket, &mut self.datagrams, first) {
                Ok(sent) => {
                    first += sent.max(1);
                    self.stats.datagrams_out += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stats.datagrams_dropped_full += (count - first) as u64;
                    return;
                }
                // It is about the first one: a source that cannot be reached, a firewall that forbids it.
                Err(_) => {
                    self.stats.datagram_errors += 1;
                    first += 1;
                }
            }
        }
    }
}

//! Phase 6 for one batch of datagrams: asks the service for answers and sends them.

use std::io;

use super::Reactor;
use crate::datagram_gate::is_answered;
use crate::limits::{DATAGRAM_MAX, DATAGRAM_MAX_V4};
use crate::net::Net;
use crate::service::Reply;

impl<N: Net> Reactor<N> {
    /// Has the service answer the batch that a socket has just received, and sends the answers.
    pub(super) fn answer_datagrams(&mut self, index: u8) {
        let Reactor { core, services, datagrams, .. } = self;
        let socket = &core.sockets[index as usize];
        let service = &mut *services[socket.service as usize];
        let largest = if socket.address.is_ipv4() { DATAGRAM_MAX_V4 } else { DATAGRAM_MAX };
        for datagram in 0..datagrams.len() {
            // Two servers that answer each other's answers would never stop. So the loop ignores
            // datagrams that come from one of its own port numbers, on any machine. Port 0 cannot
            // be answered.
            let ours =
                |port| port == 0 || core.sockets.iter().any(|socket| socket.address.port() == port);
            let source = datagrams.source(datagram).to_socket_addr();
            let Some(source) = source.filter(|source| !ours(source.port())) else {
                core.stats.datagrams_dropped_loop += 1;
                continue;
            };
            if !core.datagram_gate.takes(source.ip(), core.limits.datagram_rate, core.now) {
                core.stats.datagrams_dropped_rate += 1;
                continue;
            }
            let (bytes, answers) = datagrams.exchange(datagram);
            let mut reply = Reply::to_datagram(source, core.now, answers);
            service.datagram(bytes, &mut reply, core);
            core.stats.datagrams_dropped_backlog += u64::from(reply.is_late());
            if !reply.answers_datagram() {
                continue;
            }
            let dropped = if reply.len() > largest {
                &mut core.stats.datagrams_dropped_too_large
            } else if !is_answered(source.port()) {
                &mut core.stats.datagrams_dropped_port
            } else if core.datagram_gate.is_loop(source, bytes, reply.bytes(), core.now.tick()) {
                &mut core.stats.datagrams_dropped_loop
            } else {
                datagrams.answer(datagram);
                continue;
            };
            *dropped += 1;
            datagrams.discard_answer();
        }
        self.send_answers(index);
    }

    /// Sends the answers of the batch. When the socket buffer is full, the rest is dropped:
    /// datagrams may be lost, and keeping them would cost memory.
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
                // The error concerns the first answer, such as an unreachable source or a firewall
                // rule.
                Err(_) => {
                    core.stats.datagram_errors += 1;
                    first += 1;
                }
            }
        }
    }
}

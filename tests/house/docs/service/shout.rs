//! Answers every line in capitals.

use super::server::Server;
use super::{Reply, Service, Taken, receive_line};

pub struct Shout;

impl Service for Shout {
    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        receive_line(input, scanned, reply, server, |line, reply| {
            reply.send(&line.to_ascii_uppercase());
            reply.send(b"\r\n");
            if line == b"bye" {
                reply.close();
            }
        })
    }

    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, _server: &mut dyn Server) {
        reply.send(&datagram.to_ascii_uppercase());
    }
}

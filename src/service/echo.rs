//! The Echo Protocol, RFC 862: sends all input back.

use super::server::Server;
use super::{Reply, Service, Taken};

pub struct Echo;

impl Service for Echo {
    fn receive(
        &mut self,
        input: &mut [u8],
        _scanned: usize,
        reply: &mut Reply<'_>,
        _server: &mut dyn Server,
    ) -> Taken {
        reply.send(input);
        Taken::Message(input.len())
    }

    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, _server: &mut dyn Server) {
        reply.send(datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn the_echo_service_returns_all_bytes_and_empty_datagrams() {
        assert_eq!(answers(&mut Echo, b"\0x"), (b"\0x".to_vec(), Some(b"\0x".to_vec())));
        assert_eq!(answers(&mut Echo, b""), (vec![], Some(vec![])));
    }
}

//! The Discard Protocol, RFC 863: reads and drops all input.

use super::server::Server;
use super::{Reply, Service, Taken};

pub struct Discard;

impl Service for Discard {
    fn receive(
        &mut self,
        input: &mut [u8],
        _scanned: usize,
        _reply: &mut Reply<'_>,
        _server: &mut dyn Server,
    ) -> Taken {
        Taken::Message(input.len())
    }

    fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn the_discard_service_sends_nothing() {
        assert_eq!(answers(&mut Discard, b"x"), (vec![], None));
    }
}

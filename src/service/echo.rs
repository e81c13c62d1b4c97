//! Sends back what it receives: the Echo Protocol, RFC 862.

use super::{Reply, Service};
use crate::codec::Framing;

pub struct Echo;

impl Service for Echo {
    fn framing(&self) -> Framing {
        Framing::Raw
    }

    fn message(&mut self, bytes: &[u8], reply: &mut Reply<'_>) {
        reply.send(bytes);
    }

    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>) {
        reply.send(datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn what_comes_goes_back_even_when_it_is_nothing() {
        assert_eq!(answers(&mut Echo, b"\0x"), (b"\0x".to_vec(), Some(b"\0x".to_vec())));
        assert_eq!(answers(&mut Echo, b""), (vec![], Some(vec![])));
    }
}

//! Throws away what it receives: the Discard Protocol, RFC 863.

use super::{Reply, Service};
use crate::codec::Framing;

pub struct Discard;

impl Service for Discard {
    fn framing(&self) -> Framing {
        Framing::Raw
    }

    fn message(&mut self, _bytes: &[u8], _reply: &mut Reply<'_>) {}

    fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::answers;
    use super::*;

    #[test]
    fn nothing_comes_back() {
        assert_eq!(answers(&mut Discard, b"x"), (vec![], None));
    }
}

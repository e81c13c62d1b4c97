//! Session ids. A sid names a session and carries a keyed check, so that a guess finds nothing and
//! no table of sids is needed.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};

use crate::codec::engineio::{read_sid, write_sid};
use crate::hub::sessions::SessionId;

/// Bits of the check.
const CHECK_BITS: u32 = 56;

/// The key of the checks.
pub struct Sids(SidKey);

enum SidKey {
    Secret(RandomState),
    /// For simulations, whose runs must be alike.
    Known(u64),
}

/// Separates the sids of clients, which are secret, from those of sockets, which are not.
#[derive(Hash)]
enum SidUse {
    Client,
    Socket {
        times: u32,
    },
    /// Hides the session of a socket, whose check is this.
    Cover(u64),
}

impl Sids {
    /// Returns sids with a secret key, or with a known one.
    pub fn new(known: Option<u64>) -> Sids {
        Sids(known.map_or_else(|| SidKey::Secret(RandomState::new()), SidKey::Known))
    }

    /// Returns the secret sid of a client: its session, and the check.
    pub fn client(&self, session: SessionId) -> [u8; 20] {
        let id = u64::from(session.index) << 32 | u64::from(session.serial);
        write_sid(id, self.check(session, SidUse::Client))
    }

    /// Returns the session that a sid of a client names, whether or not it has ended.
    pub fn find(&self, sid: &[u8]) -> Option<SessionId> {
        let (id, check) = read_sid(sid)?;
        let session = SessionId { index: (id >> 32) as u32, serial: id as u32 };
        (self.check(session, SidUse::Client) == check).then_some(session)
    }

    /// Returns the public sid of a socket, which is the session's `times`th one. It says nothing
    /// about the sid of its client.
    pub fn socket(&self, session: SessionId, times: u32) -> [u8; 20] {
        let id = u64::from(session.index) << 32 | u64::from(session.serial);
        let check = self.check(session, SidUse::Socket { times });
        write_sid(id ^ self.cover(check), check)
    }

    /// Returns the session that a sid of a socket would name. The caller compares the sids.
    pub fn find_socket(&self, sid: &[u8]) -> Option<SessionId> {
        let (id, check) = read_sid(sid)?;
        let id = id ^ self.cover(check);
        Some(SessionId { index: (id >> 32) as u32, serial: id as u32 })
    }

    fn cover(&self, check: u64) -> u64 {
        self.hash(SessionId::NONE, SidUse::Cover(check))
    }

    fn check(&self, session: SessionId, usage: SidUse) -> u64 {
        self.hash(session, usage) >> (64 - CHECK_BITS)
    }

    fn hash(&self, session: SessionId, usage: SidUse) -> u64 {
        match &self.0 {
            SidKey::Secret(key) => key.hash_one((session, usage)),
            SidKey::Known(key) => {
                BuildHasherDefault::<DefaultHasher>::default().hash_one((key, session, usage))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_found_and_one_with_any_other_character_is_not() {
        let sids = Sids::new(None);
        let session = SessionId { index: 7, serial: 1_000_000_000 };
        let sid = sids.client(session);
        assert_eq!(sids.find(&sid), Some(session));
        for at in 0..sid.len() {
            let mut other = sid;
            other[at] = if sid[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sids.find(&other), None, "character {at}");
        }
        assert_eq!(sids.find(&sid[..19]), None);
        assert_eq!(Sids::new(None).find(&sid), None, "the key is another one");
        assert_eq!(sids.find(&sids.socket(session, 0)), None, "a public sid is no secret one");
        assert_eq!(sids.find_socket(&sids.socket(session, 3)), Some(session));
        assert_ne!(sids.find_socket(&sid), Some(session), "a secret sid is no public one");
    }
}

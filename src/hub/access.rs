//! Access to the hub: passwords and protected mode.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use subtle::ConstantTimeEq;

use crate::clock::Time;
use crate::hub::guesses::Guesses;
use crate::service::{Options, Secret};

/// Marks guesses made on the operator's listener. They are counted apart, so other programs on this
/// machine cannot delay an answer to the operator.
const OPERATOR: u64 = 1 << 61;

/// Decides whether a peer may use the hub.
pub struct Access {
    password: Option<Secret>,
    pub guesses: Guesses,
    /// Hashes the addresses of datagrams' senders.
    sender: RandomState,
}

/// The outcome of an attempt to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Right,
    Wrong,
    /// No password is set.
    NoPassword,
}

impl Access {
    pub fn new(options: &Options) -> Access {
        Access {
            password: options.password.clone(),
            guesses: Guesses::default(),
            sender: RandomState::new(),
        }
    }

    pub fn needs_password(&self) -> bool {
        self.password.is_some()
    }

    /// Returns true if a peer may connect. Without a password the hub serves only this machine:
    /// 127.0.0.0/8 and ::1 (protected mode).
    pub fn admits(&self, peer: IpAddr) -> bool {
        self.password.is_some() || peer.is_loopback()
    }

    /// Checks a password. Any user but `default` is wrong. The time depends only on the length of
    /// what was given.
    pub fn attempt(&self, user: Option<&[u8]>, given: &[u8]) -> Attempt {
        let Some(password) = &self.password else { return Attempt::NoPassword };
        match is_equal(&password.0, given) & user.is_none_or(|user| user == b"default") {
            true => Attempt::Right,
            false => Attempt::Wrong,
        }
    }

    /// Returns the command in a datagram. If a password is set, the first line must be `AUTH` with
    /// the password, and the command follows it. Returns `None` if the password is wrong or
    /// missing.
    pub fn command_of<'a>(
        &mut self,
        datagram: &'a [u8],
        peer: SocketAddr,
        now: Time,
    ) -> Option<&'a [u8]> {
        if self.password.is_none() {
            return Some(datagram);
        }
        let line = datagram.iter().position(|byte| *byte == b'\n')?;
        let (first, rest) =
            (crate::codec::line::strip_cr(&datagram[..line]), &datagram[line + 1..]);
        let (name, given) = first.split_at_checked(5)?;
        let sender = self.sender.hash_one(peer);
        if !name.eq_ignore_ascii_case(b"AUTH ") || !self.guesses.hears(sender, now) {
            return None;
        }
        let is_right = self.attempt(None, given) == Attempt::Right;
        if !is_right {
            self.guesses.wrong_by_datagram(sender, given, now);
        }
        is_right.then_some(rest)
    }

    /// Returns the memory of the tables of fixed size, in bytes.
    pub fn fixed_bytes(&self) -> usize {
        self.guesses.fixed_bytes()
    }
}

/// Compares in a time that depends only on the length of `given`. A plain comparison returns early
/// when the lengths differ, which would reveal the length of the password.
fn is_equal(password: &[u8], given: &[u8]) -> bool {
    let same_length = password.len().ct_eq(&given.len());
    let same_bytes = given.iter().zip(password.iter().cycle()).map(|(given, own)| given.ct_eq(own));
    same_bytes.fold(same_length, |all, same| all & same).into()
}

/// Returns the key under which guesses are counted: an IPv4 address, or the /64 network of an IPv6
/// address, because providers assign a whole /64 to one customer.
pub fn source(address: IpAddr, is_operator: bool) -> u64 {
    let source = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    };
    if is_operator { OPERATOR ^ source } else { source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn access(password: Option<&str>) -> Access {
        let password = password.map(|text| Secret(text.as_bytes().into()));
        Access::new(&Options { password, ..Options::default() })
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_exact_password_is_accepted() {
        let access = access(Some("secret"));
        for wrong in ["", "secre", "secret1", "Secret", "secretsecret", "s", "tterces"] {
            assert_eq!(access.attempt(None, wrong.as_bytes()), Attempt::Wrong, "{wrong}");
        }
        assert_eq!(access.attempt(None, b"secret"), Attempt::Right);
        assert_eq!(access.attempt(Some(b"default"), b"secret"), Attempt::Right);
        assert_eq!(access.attempt(Some(b"root"), b"secret"), Attempt::Wrong);
        assert!(is_equal(b"", b"") && !is_equal(b"", b"x"));
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_never_that_of_an_ipv4_address() {
        let source = |text: &str| source(ip(text), false);
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        // The upper bits of these networks are an IPv4 address once their first bit is flipped.
        for network in ["8000:0:a00:1::1", "0:0:a00:1::1"] {
            assert_ne!(source(network), source("10.0.0.1"));
        }
        assert_ne!(super::source(ip("127.0.0.1"), true), source("127.0.0.1"), "the operator");
    }

    #[test]
    fn without_a_password_only_loopback_is_admitted() {
        let access = access(None);
        assert!(
            ["127.0.0.1", "127.1.0.1", "127.255.255.254", "::1"]
                .iter()
                .all(|peer| access.admits(ip(peer)))
        );
        assert!(
            !["10.0.0.1", "128.0.0.1", "126.255.255.255", "::2", "0.0.0.0"]
                .iter()
                .any(|peer| access.admits(ip(peer)))
        );
    }

    #[test]
    fn a_datagram_carries_the_password_on_a_line_before_its_command() {
        let mut access = access(Some("pass word"));
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut command = |datagram: &'static [u8]| access.command_of(datagram, peer, at(1));
        assert_eq!(command(b"AUTH pass word\nPING"), Some(&b"PING"[..]));
        assert_eq!(command(b"auth pass word\r\nPING\r\n"), Some(&b"PING\r\n"[..]));
        for wrong in [&b"PING"[..], b"AUTH pass\nPING", b"AUTH\nPING", b"", b"\n"] {
            assert_eq!(command(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn wrong_passwords_by_datagram_never_refuse_the_right_one_of_another_sender() {
        let mut access = access(Some("secret"));
        let sender = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        for number in 0..1000_u32 {
            let guess = format!("AUTH guess{number}\nPING");
            assert_eq!(access.command_of(guess.as_bytes(), sender(1), at(1)), None);
        }
        let right = b"AUTH secret\nPING";
        assert_eq!(access.command_of(right, sender(1), at(1)), None, "it guesses too fast");
        assert_eq!(access.command_of(right, sender(2), at(1)), Some(&b"PING"[..]));
        assert_eq!(access.command_of(right, sender(1), at(3)), Some(&b"PING"[..]));
        assert_eq!(access.command_of(b"AUTH guess\nPING", sender(2), at(3)), None);
        assert_eq!(
            access.command_of(right, sender(2), at(3)),
            Some(&b"PING"[..]),
            "a typing error"
        );
    }
}

//! Access to the hub: passwords, the penalty for guessing, protected mode, and the datagram rate.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use subtle::ConstantTimeEq;

use crate::clock::Time;
use crate::limits::{
    COUNTED_NETWORKS_MAX, FREE_GUESSES, GUESS_PENALTY, GUESSERS_MAX, GUESSES_FORGIVEN,
};
use crate::service::{Options, Secret};

/// Marks guesses that came by datagram. A datagram's sender can be forged, so these guesses are
/// counted apart: they must not lock out connections from that address.
const DATAGRAM: u64 = 1 << 62;

/// Marks guesses made on the operator's listener. They are counted apart, so other programs on this
/// machine cannot lock the operator out by guessing.
const OPERATOR: u64 = 1 << 61;

/// Decides whether a peer may use the hub.
pub struct Access {
    password: Option<Secret>,
    guesses: HashMap<u64, Guesses>,
    datagrams: DatagramRate,
}

#[derive(Clone, Copy)]
struct Guesses {
    wrong: u32,
    /// The time of the last wrong guess.
    last: Time,
}

/// The outcome of an attempt to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Right,
    Wrong,
    /// The password was not checked, because this source has guessed wrong too often.
    TooSoon,
    /// No password is set.
    NoPassword,
}

impl Access {
    pub fn new(options: &Options) -> Access {
        Access {
            password: options.password.clone(),
            guesses: HashMap::new(),
            datagrams: DatagramRate::new(options.datagram_rate),
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

    /// Checks a password given by a connection from `peer`. Any user but `default` is wrong.
    pub fn attempt(
        &mut self,
        peer: IpAddr,
        user: Option<&[u8]>,
        given: &[u8],
        now: Time,
    ) -> Attempt {
        self.try_password(source(peer), user, given, now)
    }

    /// Checks a password given on the operator's listener.
    pub fn attempt_by_operator(
        &mut self,
        peer: IpAddr,
        user: Option<&[u8]>,
        given: &[u8],
        now: Time,
    ) -> Attempt {
        self.try_password(OPERATOR ^ source(peer), user, given, now)
    }

    fn try_password(
        &mut self,
        source: u64,
        user: Option<&[u8]>,
        given: &[u8],
        now: Time,
    ) -> Attempt {
        let Some(password) = &self.password else { return Attempt::NoPassword };
        let before = self
            .guesses
            .get(&source)
            .filter(|guesses| now.since(guesses.last) < GUESSES_FORGIVEN)
            .copied();
        let wrong = before.map_or(0, |guesses| guesses.wrong);
        let too_soon = before
            .is_some_and(|one| one.wrong >= FREE_GUESSES && now.since(one.last) < GUESS_PENALTY);
        if too_soon {
            return Attempt::TooSoon;
        }
        let right = is_equal(&password.0, given) & user.is_none_or(|user| user == b"default");
        if right {
            self.guesses.remove(&source);
            return Attempt::Right;
        }
        if self.guesses.len() >= GUESSERS_MAX {
            let stalest = self
                .guesses
                .iter()
                .take(64)
                .min_by_key(|(_, guesses)| guesses.last)
                .map(|(source, _)| *source);
            stalest.and_then(|stalest| self.guesses.remove(&stalest));
        }
        self.guesses.insert(source, Guesses { wrong: wrong + 1, last: now });
        Attempt::Wrong
    }

    /// Returns true if a datagram from `peer` may be served: protected mode and the rate allow it.
    pub fn takes_datagram(&mut self, peer: SocketAddr, now: Time) -> bool {
        self.admits(peer.ip()) && self.datagrams.take(network(peer.ip()), now)
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
        let right = name.eq_ignore_ascii_case(b"AUTH ")
            && self.try_password(DATAGRAM | source(peer.ip()), None, given, now) == Attempt::Right;
        right.then_some(rest)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.guesses.capacity() * size_of::<(u64, Guesses)>()
            + self.datagrams.buckets.capacity() * size_of::<Bucket>()
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
fn source(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

/// Returns the key under which datagrams are rate-limited: the /24 of an IPv4 address, the /56 of
/// an IPv6 address. A sender can often forge other addresses of its own network.
fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64 | 1 << 63,
    }
}

/// Token buckets in a hash table of fixed size. Networks that hash to the same bucket share its
/// tokens. When a bucket has been idle for a second, the next network that sends gets it full. The
/// hash is keyed, so a sender cannot choose addresses that collide.
struct DatagramRate {
    /// Datagrams per second of one network, and the size of its burst. 0: no limit.
    rate: u32,
    buckets: Vec<Bucket>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    network: u64,
    tokens: f32,
    last: Time,
}

impl DatagramRate {
    fn new(rate: u32) -> DatagramRate {
        DatagramRate { rate, buckets: Vec::new(), hasher: RandomState::new() }
    }

    fn take(&mut self, network: u64, now: Time) -> bool {
        if self.rate == 0 {
            return true;
        }
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); COUNTED_NETWORKS_MAX];
        }
        let place = self.hasher.hash_one(network) as usize % COUNTED_NETWORKS_MAX;
        let bucket = &mut self.buckets[place];
        let (rate, idle) = (self.rate as f32, now.since(bucket.last).as_secs_f32());
        if bucket.last == Time::ZERO || (bucket.network != network && idle >= 1.0) {
            *bucket = Bucket { network, tokens: rate, last: now };
        } else {
            bucket.tokens = (bucket.tokens + idle * rate).min(rate);
            bucket.last = now;
        }
        let has = bucket.tokens >= 1.0;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn access(password: Option<&str>, datagram_rate: u32) -> Access {
        let password = password.map(|text| Secret(text.as_bytes().into()));
        Access::new(&Options { password, datagram_rate, ..Options::default() })
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_exact_password_is_accepted() {
        let mut access = access(Some("secret"), 0);
        let peer = |n: u8| IpAddr::from([10, 0, 0, n]);
        for (n, wrong) in
            ["", "secre", "secret1", "Secret", "secretsecret", "s", "tterces"].iter().enumerate()
        {
            assert_eq!(
                access.attempt(peer(n as u8), None, wrong.as_bytes(), at(1)),
                Attempt::Wrong,
                "{wrong}"
            );
        }
        assert_eq!(access.attempt(peer(0), None, b"secret", at(1)), Attempt::Right);
        assert_eq!(access.attempt(peer(0), Some(b"default"), b"secret", at(1)), Attempt::Right);
        assert_eq!(access.attempt(peer(0), Some(b"root"), b"secret", at(1)), Attempt::Wrong);
        assert!(is_equal(b"", b"") && !is_equal(b"", b"x"));
    }

    #[test]
    fn after_five_wrong_guesses_a_source_may_guess_once_in_five_seconds() {
        let mut access = access(Some("secret"), 0);
        for _ in 0..FREE_GUESSES {
            assert_eq!(access.attempt(ip("10.0.0.1"), None, b"x", at(1)), Attempt::Wrong);
        }
        // The right password is not checked either. Otherwise guessing could go on during the
        // penalty.
        assert_eq!(access.attempt(ip("10.0.0.1"), None, b"secret", at(5)), Attempt::TooSoon);
        assert_eq!(access.attempt(ip("10.0.0.2"), None, b"secret", at(5)), Attempt::Right);
        assert_eq!(access.attempt(ip("10.0.0.1"), None, b"x", at(6)), Attempt::Wrong);
        assert_eq!(access.attempt(ip("10.0.0.1"), None, b"secret", at(10)), Attempt::TooSoon);
        assert_eq!(access.attempt(ip("10.0.0.1"), None, b"secret", at(11)), Attempt::Right);
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5"] {
            assert_eq!(access.attempt(ip(address), None, b"x", at(1)), Attempt::Wrong);
        }
        assert_eq!(
            access.attempt(ip("2001:db8::6"), None, b"secret", at(2)),
            Attempt::TooSoon,
            "one /64"
        );
    }

    #[test]
    fn without_a_password_only_loopback_is_admitted() {
        let access = access(None, 0);
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
    fn a_network_may_send_datagrams_up_to_the_rate_and_not_one_more() {
        let from = |text: &str| format!("{text}:1").parse().unwrap();
        for (sent, taken) in [(4, 4), (5, 5), (6, 5)] {
            let mut access = access(None, 5);
            let count =
                (0..sent).filter(|_| access.takes_datagram(from("127.0.0.1"), at(1))).count();
            assert_eq!(count, taken);
        }
        let mut access = access(None, 5);
        let count =
            (0..9).filter(|n| access.takes_datagram(from(&format!("127.0.0.{n}")), at(1))).count();
        assert_eq!(count, 5, "one network shares one rate");
        assert!(access.takes_datagram(from("127.0.1.1"), at(1)), "another network has another");
        assert_eq!((0..9).filter(|_| access.takes_datagram(from("127.0.0.1"), at(2))).count(), 5);
    }

    #[test]
    fn a_datagram_carries_the_password_on_a_line_before_its_command() {
        let mut access = access(Some("pass word"), 0);
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut command = |datagram: &'static [u8]| access.command_of(datagram, peer, at(1));
        assert_eq!(command(b"AUTH pass word\nPING"), Some(&b"PING"[..]));
        assert_eq!(command(b"auth pass word\r\nPING\r\n"), Some(&b"PING\r\n"[..]));
        for wrong in [&b"PING"[..], b"AUTH pass\nPING", b"AUTH\nPING", b"", b"\n"] {
            assert_eq!(command(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn guesses_on_one_listener_do_not_lock_out_the_operator_and_vice_versa() {
        let mut access = access(Some("secret"), 0);
        let wrong = |access: &mut Access, address: &str| {
            for _ in 0..FREE_GUESSES {
                assert_eq!(access.attempt(ip(address), None, b"x", at(1)), Attempt::Wrong);
            }
        };
        wrong(&mut access, "127.0.0.1");
        assert_eq!(access.attempt(ip("127.0.0.1"), None, b"secret", at(2)), Attempt::TooSoon);
        for _ in 0..FREE_GUESSES {
            assert_eq!(
                access.attempt_by_operator(ip("127.0.0.1"), None, b"x", at(2)),
                Attempt::Wrong
            );
        }
        assert_eq!(
            access.attempt_by_operator(ip("127.0.0.1"), None, b"secret", at(3)),
            Attempt::TooSoon
        );
        assert_eq!(access.attempt_by_operator(ip("::1"), None, b"secret", at(3)), Attempt::Right);
        assert_eq!(access.attempt(ip("::1"), None, b"secret", at(3)), Attempt::Right);
    }

    #[test]
    fn guesses_by_datagram_do_not_lock_out_connections_and_vice_versa() {
        let mut access = access(Some("secret"), 0);
        let peer: SocketAddr = "10.0.0.1:1".parse().unwrap();
        for _ in 0..10 {
            assert_eq!(access.command_of(b"AUTH guess\nPING", peer, at(1)), None);
        }
        assert_eq!(
            access.command_of(b"AUTH secret\nPING", peer, at(1)),
            None,
            "the penalty applies to datagrams"
        );
        assert_eq!(access.attempt(peer.ip(), None, b"secret", at(1)), Attempt::Right);
        for _ in 0..5 {
            assert_eq!(access.attempt(ip("10.0.0.2"), None, b"x", at(1)), Attempt::Wrong);
        }
        let other = "10.0.0.2:1".parse().unwrap();
        assert_eq!(
            access.command_of(b"AUTH secret\nPING", other, at(1)),
            Some(&b"PING"[..]),
            "guesses by connection do not count for datagrams"
        );
    }

    #[test]
    fn an_ipv6_network_never_counts_as_an_ipv4_address() {
        let mut access = access(Some("secret"), 0);
        // The upper bits of these networks are an IPv4 address once their first bit is flipped.
        for network in ["8000:0:a00:1::1", "0:0:a00:1::1"] {
            for _ in 0..FREE_GUESSES {
                assert_eq!(access.attempt(ip(network), None, b"x", at(1)), Attempt::Wrong);
            }
            assert_eq!(access.attempt(ip("10.0.0.1"), None, b"secret", at(2)), Attempt::Right);
            assert_ne!(self::network(ip(network)), self::network(ip("10.0.0.1")));
            access.guesses.clear();
        }
    }
}

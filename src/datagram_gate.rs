//! Which datagrams are served and which are answered: the rate of a network, ports that would
//! answer back, and loops between two servers.
//!
//! The source of a datagram can be forged. Two services that answer each other's answers would go
//! on for ever after one forged datagram (CVE-2024-2169).

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use crate::clock::{Tick, Time};
use crate::limits::{
    COUNTED_NETWORKS_MAX, LOOP_IDLE, LOOP_MISSES_MAX, LOOP_RETURNS_MAX, LOOP_SOURCES_MAX,
    RESPONDER_PORTS, SYSTEM_PORTS,
};

/// Two tables of fixed size. Each is created when the first datagram needs it. The hash is keyed,
/// so a sender cannot choose addresses that share an entry.
pub struct DatagramGate {
    networks: Vec<Bucket>,
    exchanges: Vec<Exchange>,
    hasher: RandomState,
}

/// A token bucket. Networks that hash to the same bucket share its tokens. When a bucket has been
/// idle for a second, the next network that sends gets it full.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The network; 0: none yet.
    network: u64,
    tokens: f32,
    last: Time,
}

/// The exchange with one source. One of the answers is its marker: if it comes back again and again
/// as a datagram, the source sends our answers back.
#[derive(Clone, Copy, Default)]
struct Exchange {
    /// The hash of the source's address and port; 0: nothing is known.
    source: u64,
    /// The hash of an answer.
    marker: u64,
    /// Datagrams that were equal to the marker.
    returns: u16,
    /// Datagrams since then that were not.
    misses: u16,
    last: Tick,
}

impl Default for DatagramGate {
    fn default() -> DatagramGate {
        let hasher = RandomState::new();
        DatagramGate { networks: Vec::new(), exchanges: Vec::new(), hasher }
    }
}

impl DatagramGate {
    /// Returns true if a network may send one more datagram now. `rate` is the number that it may
    /// send per second, and the size of its burst. 0 means no limit.
    pub fn takes(&mut self, from: IpAddr, rate: u32, now: Time) -> bool {
        if rate == 0 {
            return true;
        }
        if self.networks.is_empty() {
            self.networks = vec![Bucket::default(); COUNTED_NETWORKS_MAX];
        }
        let network = network(from);
        let place = self.hasher.hash_one(network) as usize % COUNTED_NETWORKS_MAX;
        let bucket = &mut self.networks[place];
        let (rate, idle) = (rate as f32, now.since(bucket.last).as_secs_f32());
        if bucket.network == 0 || (bucket.network != network && idle >= 1.0) {
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

    /// Returns true if the answer to a datagram must not be sent, because the source has sent one
    /// of our answers back too often. This ends a loop of one datagram after [`LOOP_RETURNS_MAX`]
    /// rounds. A client that sends the same datagram to an echo service all the time looks alike,
    /// and loses one answer in so many.
    pub fn is_loop(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        answer: &[u8],
        now: Tick,
    ) -> bool {
        if self.exchanges.is_empty() {
            self.exchanges = vec![Exchange::default(); LOOP_SOURCES_MAX];
        }
        let source = self.hasher.hash_one(source) | 1;
        let exchange = &mut self.exchanges[source as usize / 2 % LOOP_SOURCES_MAX];
        let idle = now.distance_from(exchange.last);
        if exchange.source != source || idle > Tick::count(LOOP_IDLE) as i32 {
            *exchange = Exchange { source, misses: LOOP_MISSES_MAX, ..Exchange::default() };
        }
        exchange.last = now;
        if exchange.misses < LOOP_MISSES_MAX && self.hasher.hash_one(datagram) == exchange.marker {
            (exchange.returns, exchange.misses) = (exchange.returns + 1, 0);
            if exchange.returns < LOOP_RETURNS_MAX {
                return false;
            }
            *exchange = Exchange { misses: LOOP_MISSES_MAX, returns: 0, ..*exchange };
            return true;
        }
        if exchange.misses < LOOP_MISSES_MAX {
            exchange.misses += 1;
            return false;
        }
        let marker = self.hasher.hash_one(answer);
        *exchange = Exchange { marker, returns: 0, misses: 0, ..*exchange };
        false
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.networks.capacity() * size_of::<Bucket>()
            + self.exchanges.capacity() * size_of::<Exchange>()
    }
}

/// Returns true if a datagram from this port may be answered. Behind the others is a service that
/// may answer back.
pub fn is_answered(port: u16) -> bool {
    port >= SYSTEM_PORTS && RESPONDER_PORTS.binary_search(&port).is_err()
}

/// Returns the key under which datagrams are rate-limited: the /24 of an IPv4 address, the /56 of
/// an IPv6 address. A sender can often forge other addresses of its own network.
fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8) | 1 << 62,
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_network_may_send_datagrams_up_to_the_rate_and_not_one_more() {
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        for (sent, taken) in [(4, 4), (5, 5), (6, 5)] {
            let mut gate = DatagramGate::default();
            let count = (0..sent).filter(|_| gate.takes(from("127.0.0.1"), 5, at(1))).count();
            assert_eq!(count, taken);
        }
        let mut gate = DatagramGate::default();
        let count = (0..9).filter(|n| gate.takes(from(&format!("127.0.0.{n}")), 5, at(1))).count();
        assert_eq!(count, 5, "one network shares one rate");
        assert!(gate.takes(from("127.0.1.1"), 5, at(1)), "another network has another");
        assert_eq!((0..9).filter(|_| gate.takes(from("127.0.0.1"), 5, at(2))).count(), 5);
        assert!((0..9).all(|_| gate.takes(from("127.0.0.1"), 0, at(2))), "0 means no limit");
        let mut gate = DatagramGate::default();
        assert_eq!((0..9).filter(|_| gate.takes(from("0.0.0.0"), 5, at(0))).count(), 5);
    }

    #[test]
    fn an_ipv6_network_is_never_that_of_an_ipv4_address() {
        for address in ["8000:0:a00:1::1", "0:0:a00:1::1", "::ffff:10.0.0.1"] {
            assert_ne!(network(address.parse().unwrap()), network([10, 0, 0, 1].into()));
        }
        let same = ["2001:db8:0:100::1", "2001:db8:0:1ff::2"].map(|ip| ip.parse().unwrap());
        assert_eq!(network(same[0]), network(same[1]), "one /56");
    }

    /// Plays a loop of datagrams that the source sends back as they are. Returns the answers.
    fn play(gate: &mut DatagramGate, mut circling: Vec<Vec<u8>>, rounds: usize) -> usize {
        let source = "10.0.0.1:7007".parse().unwrap();
        let mut answers = 0;
        for round in 0..rounds {
            circling.retain(|bytes| !gate.is_loop(source, bytes, bytes, at(1).tick()));
            answers += circling.len();
            if circling.is_empty() {
                assert!(round >= usize::from(LOOP_RETURNS_MAX), "ended in round {round}");
                return answers;
            }
        }
        panic!("{} datagrams still circle after {rounds} rounds", circling.len());
    }

    #[test]
    fn a_loop_of_one_datagram_ends_after_its_bound() {
        let answers = play(&mut DatagramGate::default(), vec![b"x".to_vec()], 10_000);
        assert_eq!(answers, usize::from(LOOP_RETURNS_MAX));
    }

    #[test]
    fn a_loop_of_many_datagrams_ends() {
        for count in [2_usize, 7, 64] {
            let circling = (0..count).map(|number| vec![number as u8; 9]).collect();
            play(&mut DatagramGate::default(), circling, count * 2000);
        }
    }

    #[test]
    fn a_client_whose_datagrams_differ_loses_no_answer() {
        let mut gate = DatagramGate::default();
        let source = "10.0.0.1:50000".parse().unwrap();
        for number in 0..100_000_u32 {
            let bytes = number.to_be_bytes();
            assert!(!gate.is_loop(source, &bytes, &bytes, at(1).tick()));
        }
    }

    /// The hub's answer to PING is never a PING, and neither is that of a service with a counter.
    #[test]
    fn a_client_that_repeats_its_datagram_loses_no_other_answer_than_an_echo() {
        let mut gate = DatagramGate::default();
        let source = "10.0.0.1:50000".parse().unwrap();
        for _ in 0..10_000 {
            assert!(!gate.is_loop(source, b"PING", b"+PONG\r\n", at(1).tick()));
        }
        let lost = (0..10_000).filter(|_| gate.is_loop(source, b"x", b"x", at(1).tick())).count();
        assert!((1..=10_000 / usize::from(LOOP_RETURNS_MAX)).contains(&lost), "{lost}");
        // A heartbeat is no loop.
        let mut now = at(100);
        for _ in 0..10_000 {
            now = now + LOOP_IDLE + Duration::from_secs(1);
            assert!(!gate.is_loop(source, b"x", b"x", now.tick()));
        }
    }

    #[test]
    fn no_answer_goes_to_a_port_of_a_service() {
        assert!(RESPONDER_PORTS.is_sorted());
        for port in [0, 1, 7, 53, 123, 1022, 1023, 1900, 5353, 11_211] {
            assert!(!is_answered(port), "{port}");
        }
        for port in [1024, 1025, 9999, 32_768, 65_535] {
            assert!(is_answered(port), "{port}");
        }
    }

    #[test]
    fn the_tables_take_a_fixed_amount_of_memory() {
        let mut gate = DatagramGate::default();
        assert_eq!(gate.bytes(), 0);
        for number in 0..100_000_u32 {
            let from = SocketAddr::from((number.to_be_bytes(), 5000));
            gate.takes(from.ip(), 10, at(1));
            gate.is_loop(from, b"x", b"x", at(1).tick());
        }
        assert_eq!(gate.bytes(), 24 * (COUNTED_NETWORKS_MAX + LOOP_SOURCES_MAX));
    }
}

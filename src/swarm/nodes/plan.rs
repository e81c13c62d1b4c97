//! The plan of one seed: the broker, its faults, the nodes and their clients.

use std::time::Duration;

use super::super::plan::{fair_limits, faults};
use crate::broker_settings::{BrokerPrefix, BrokerSettings, BrokerUrl, SharedPattern};
use crate::limits::Limits;
use crate::net::sim::Faults;
use crate::secret::Secret;

/// The number of nodes.
pub const NODES: usize = 3;

/// The addresses at which nodes dial the broker.
pub const BROKER_HOSTS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];

/// The password of the broker in seeds that have one.
pub const BROKER_PASSWORD: &str = "open sesame";

/// Longest delay of a segment from the broker or a client to a node.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// A fault of the broker, of a link, or of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodesFault {
    /// All links end. Dials are refused, or hang, until the broker is back.
    BrokerDies,
    /// The broker neither reads nor writes for some seconds.
    BrokerStalls,
    /// The broker refuses publishes for a while, as one that loads its data does.
    BrokerLoads,
    /// One link ends.
    LinkEnds,
    /// One link stays up and gets no messages any more.
    LinkIsDeaf,
    /// One link stays up and gets nothing any more, after half a reply or at once.
    LinkIsMute,
    /// One link gets half a reply, then its end.
    HalfReply,
    /// One link gets bytes that are no reply, or none that fits.
    Garbage,
    /// The broker reads from one link a few bytes at a time.
    SlowReading,
    /// One node stops and is started anew.
    NodeStops,
}

impl NodesFault {
    pub const ALL: [NodesFault; 10] = [
        NodesFault::BrokerDies,
        NodesFault::BrokerStalls,
        NodesFault::BrokerLoads,
        NodesFault::LinkEnds,
        NodesFault::LinkIsDeaf,
        NodesFault::LinkIsMute,
        NodesFault::HalfReply,
        NodesFault::Garbage,
        NodesFault::SlowReading,
        NodesFault::NodeStops,
    ];
}

/// Everything that a seed decides before its run.
#[derive(Clone, Debug)]
pub struct NodesPlan {
    pub seed: u64,
    /// True if the broker knows HELLO and RESP3.
    pub is_resp3: bool,
    pub has_password: bool,
    pub database: u32,
    /// Number of addresses of the broker.
    pub hosts: usize,
    pub prefix: &'static str,
    /// True if some channels stay on their node.
    pub keeps_some: bool,
    /// True if the ACL of the broker refuses one of the channels.
    pub denies_one: bool,
    pub limits: Limits,
    pub network: Faults,
    /// The faults of this seed. Half of them are left out, and in some seeds all.
    pub faults: Vec<NodesFault>,
    /// A fault begins in one of this many steps.
    pub fault_every: usize,
    /// Maximum number of clients of a node, besides its witness.
    pub clients: usize,
    pub steps: usize,
    /// Maximum length of a payload in bytes.
    pub payload_max: usize,
    /// True if deaf links end by themselves before the calm.
    pub waits_for_deaf: bool,
}

impl NodesPlan {
    /// Returns the plan of a seed.
    pub fn of(seed: u64) -> NodesPlan {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x3f84_d5b5_b547_0917);
        let limits = fair_limits(&mut random);
        let network = faults(&mut random, true);
        // Links have a window of their own, and clients read all the time.
        let network = Faults {
            window: 1 << 20..=1 << 20,
            delay_max: network.delay_max.min(DELAY_MAX),
            segment_max: network.segment_max.map(|most| most.max(16)),
            ..network
        };
        let is_calm = random.u8(0..10) == 0;
        let faults = NodesFault::ALL.into_iter().filter(|_| !is_calm && random.bool()).collect();
        NodesPlan {
            seed,
            is_resp3: random.u8(0..3) > 0,
            has_password: random.bool(),
            database: random.u32(0..3),
            hosts: random.usize(1..=BROKER_HOSTS.len()),
            prefix: ["", "p:", "a*b?[c]:"][random.usize(..3)],
            keeps_some: random.bool(),
            denies_one: random.u8(0..4) == 0,
            limits,
            network,
            faults,
            fault_every: random.usize(6..40),
            clients: random.usize(2..8),
            steps: random.usize(60..180),
            payload_max: if random.u8(0..4) == 0 { 3000 } else { 40 },
            waits_for_deaf: random.u8(0..6) == 0,
        }
    }

    /// Returns how the nodes reach the broker.
    pub fn settings(&self) -> BrokerSettings {
        let url = |host: &[u8; 4]| {
            let [a, b, c, d] = host;
            let text = format!("redis://{a}.{b}.{c}.{d}/{}", self.database);
            let mut url = text.parse::<BrokerUrl>().ok()?;
            url.password = self.has_password.then(|| Secret(BROKER_PASSWORD.as_bytes().into()));
            Some(url)
        };
        let shared: &[&str] = if self.keeps_some { &["a*", "b", "news", "den*"] } else { &["*"] };
        BrokerSettings {
            urls: BROKER_HOSTS[..self.hosts].iter().filter_map(url).collect(),
            prefix: BrokerPrefix(self.prefix.into()),
            channels: shared.iter().map(|pattern| SharedPattern((*pattern).into())).collect(),
            password: None,
            max_message: 1 << 20,
        }
    }
}

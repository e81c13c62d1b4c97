//! Three nodes in one virtual time, joined by a simulated broker with faults. A shadow model knows
//! which messages each subscriber must get. One seed decides everything.
//!
//! [`run`] plays one seed in three parts. In the storm, clients subscribe and publish at all nodes
//! and at the broker, while links, broker and nodes fail. In the calm, all links must be up within
//! two virtual seconds. At the end, [`judge`] compares everything that subscribers got with the
//! order in which the broker took the messages ([`shadow`]).

mod broker_faults;
mod client;
mod judge;
mod names;
mod node;
mod plan;
mod play;
mod shadow;
mod sim_broker;

use std::ops::{AddAssign, Range};

use super::{Failure, outcome_of, sweep_with};
use crate::net::sim::TraceEntry;
use plan::{NodesFault, NodesPlan};
use play::NodesRun;

/// Totals of one seed or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodesTally {
    pub seeds: u64,
    /// Entries of the traces of all nodes.
    pub events: u64,
    /// Virtual time, in seconds.
    pub seconds: u64,
    pub publishes: u64,
    /// Messages that the broker took.
    pub crossed: u64,
    /// Messages that stayed on their node.
    pub locals: u64,
    /// Publishes that the broker refused.
    pub refused: u64,
    /// Deliveries to subscribers.
    pub receipts: u64,
    /// Gaps that subscribers were told of.
    pub gaps: u64,
    /// Times that a link came up.
    pub ups: u64,
    /// Links that their nodes replaced because they were silent.
    pub replaced: u64,
    /// The faults, each as often as it struck.
    pub faults: [u64; NodesFault::ALL.len()],
}

impl AddAssign for NodesTally {
    fn add_assign(&mut self, other: NodesTally) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.seconds += other.seconds;
        self.publishes += other.publishes;
        self.crossed += other.crossed;
        self.locals += other.locals;
        self.refused += other.refused;
        self.receipts += other.receipts;
        self.gaps += other.gaps;
        self.ups += other.ups;
        self.replaced += other.replaced;
        self.faults.iter_mut().zip(other.faults).for_each(|(own, other)| *own += other);
    }
}

/// The result of a seed without a violation: its totals and the hash of all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodesPlayed {
    pub tally: NodesTally,
    pub hash: u64,
}

/// Returns the plan of a seed as text.
pub fn plan_of(seed: u64) -> String {
    format!("{:#?}", NodesPlan::of(seed))
}

/// Plays one seed. Calls `watcher` with each event of each node, and prints what happens at the
/// broker. Fails on a violation, and on a panic if panics unwind.
pub fn run(seed: u64, watcher: Option<fn(&TraceEntry)>) -> Result<NodesPlayed, Failure> {
    let mut run = NodesRun::new(NodesPlan::of(seed), watcher);
    match outcome_of(|| run.play()) {
        Ok(tally) => Ok(NodesPlayed { tally, hash: run.hash() }),
        Err(what) => {
            let story: String = run.story.iter().map(|line| format!("{line}\n")).collect();
            let trace = format!("{:#?}\n{story}", run.shadow.plan);
            let replay =
                format!("replay it: SLABD_SEED={seed} cargo test --test simulated nodes_are");
            Err(Failure { seed, what, trace, replay })
        }
    }
}

/// Plays seeds on several threads until one fails.
pub fn sweep(seeds: Range<u64>, threads: usize) -> Result<NodesTally, Failure> {
    sweep_with(seeds, threads, &|seed| run(seed, None).map(|played| played.tally), &|_| ())
}

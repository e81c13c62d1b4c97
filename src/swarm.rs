//! The whole loop among random clients on the simulated network: honest ones, of whom a shadow model knows what they must receive, and
//! hostile ones of every shape. One seed decides everything; the same seed plays the same way again.
//!
//! [`run`] plays one seed: a storm, then calm, in which everybody is served or has been closed within sixty virtual seconds, then the end, at
//! which nothing may be left. After every turn the invariants are checked ([`simulation`]). [`sweep`] plays many, on all processors.

mod board;
mod datagrams;
mod hostile;
mod hub_client;
mod line_client;
mod plan;
mod replies;
mod simulation;

use std::cell::Cell;
use std::fmt;
use std::ops::{AddAssign, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::sim::{ClientId, SimNet, TraceEntry};
use board::Board;
use plan::SeedPlan;
use simulation::Simulation;

/// What clients of the hub must say where it has a password.
const PASSWORD: &str = "secret";

/// What must not happen has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Violation {
    fn from(text: String) -> Violation {
        Violation(text)
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(otherwise())) }
}

/// Who honest clients talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceKind {
    Hub,
    Echo,
    Hello,
    Discard,
}

impl ServiceKind {
    const ALL: [ServiceKind; 4] = [ServiceKind::Hub, ServiceKind::Echo, ServiceKind::Hello, ServiceKind::Discard];

    fn name(self) -> &'static str {
        ["hub", "echo", "hello", "discard"][self as usize]
    }
}

/// What a client needs to act.
struct Scene<'a> {
    net: &'a mut SimNet,
    random: &'a mut fastrand::Rng,
    board: &'a mut Board,
    plan: &'a SeedPlan,
    is_draining: bool,
}

impl Scene<'_> {
    /// Whether all that a client of a fair seed has sent is there to be read, and a read will tell.
    fn all_has_arrived(&self, client: ClientId) -> bool {
        let faults = &self.plan.faults;
        let reads_are_whole = faults.spurious_would_block == 0.0 && faults.short_read == 0.0;
        self.plan.is_fair && reads_are_whole && self.net.has_arrived(client)
    }
}

/// What was done, of one seed or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub seeds: u64,
    /// Entries of the trace: calls of the loop that move something or end a stream, readiness events, arrivals, and what clients do.
    pub events: u64,
    pub turns: u64,
    /// Virtual time, in seconds.
    pub seconds: u64,
    pub clients: u64,
    /// Commands and messages that the loop took from streams.
    pub messages: u64,
    pub publishes: u64,
    pub receipts: u64,
    pub datagrams: u64,
    pub datagram_answers: u64,
    /// Connections accepted, and of them closed by the loop for another reason than that the peer closed.
    pub accepted: u64,
    pub closed_early: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.turns += other.turns;
        self.seconds += other.seconds;
        self.clients += other.clients;
        self.messages += other.messages;
        self.publishes += other.publishes;
        self.receipts += other.receipts;
        self.datagrams += other.datagrams;
        self.datagram_answers += other.datagram_answers;
        self.accepted += other.accepted;
        self.closed_early += other.closed_early;
    }
}

/// A seed that went well: what was done, and the hash of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    pub tally: Tally,
    pub hash: u64,
}

/// A seed that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    /// The plan, and the last of what happened.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, what, trace } = self;
        write!(f, "{trace}seed {seed}: {what}\n{}", replay_line(*seed))
    }
}

/// How to see all that happens in a seed.
pub fn replay_line(seed: u64) -> String {
    format!("replay it, with all that happens: slabd lab sim --seed {seed}")
}

thread_local! {
    /// Where a panic ends the process, its hook can still tell which seed it was.
    static PLAYING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The seed that this thread plays.
pub fn playing() -> Option<u64> {
    PLAYING.get()
}

/// What a seed decides before anything happens, for people.
pub fn plan_of(seed: u64) -> String {
    format!("{:#?}", SeedPlan::of(seed))
}

/// Plays one seed. `watcher` is told everything as it happens. Where panics unwind, one is a failure as well.
pub fn run(seed: u64, watcher: Option<fn(&TraceEntry)>) -> Result<Played, Failure> {
    PLAYING.set(Some(seed));
    let mut simulation = Simulation::new(SeedPlan::of(seed));
    if let Some(watcher) = watcher {
        simulation.watch(watcher);
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| simulation.play()));
    let what = match outcome {
        Ok(Ok(tally)) => return Ok(Played { tally, hash: simulation.trace().hash() }),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => (*panic.downcast::<&str>().unwrap_or_default()).into(),
        },
    };
    Err(Failure { seed, what, trace: format!("{}\n{}", simulation.in_words(), simulation.trace()) })
}

/// Plays seeds on so many threads until one fails; `done` hears of what was done so far, from whichever thread did it.
pub fn sweep(seeds: Range<u64>, threads: usize, done: &(impl Fn(Tally) + Sync)) -> Result<Tally, Failure> {
    let (next, outcome) = (AtomicU64::new(seeds.start), Mutex::new(Ok(Tally::default())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let played = run(seed, None);
                    let Ok(mut outcome) = outcome.lock() else { return };
                    match (&mut *outcome, played) {
                        (Ok(total), Ok(played)) => {
                            *total += played.tally;
                            done(*total);
                        }
                        (Ok(_), Err(failure)) => *outcome = Err(failure),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

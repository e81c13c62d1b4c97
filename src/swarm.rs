//! The whole loop with random clients on the simulated network. A shadow model knows which messages
//! the honest clients must receive. Hostile clients attack the loop in many ways. One seed decides
//! everything, so the same seed gives the same run again.
//!
//! [`run`] plays one seed in three parts. In the storm, clients act at random. In the calm, every
//! honest client must be served or closed within sixty virtual seconds. At the end, no connection
//! and no buffer may be left. The simulation checks the invariants after every turn
//! ([`simulation`]). [`sweep`] plays many seeds on all processors.

mod board;
mod datagrams;
mod honest;
mod hostile;
mod hub_client;
mod line_client;
pub mod nodes;
mod plan;
mod replies;
mod simulation;
mod socketio_client;
mod web_client;

use std::cell::Cell;
use std::fmt;
use std::ops::{AddAssign, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::sim::{ClientId, SimNet, TraceEntry};
use board::Board;
use honest::HonestClient;
use plan::SeedPlan;
use simulation::Simulation;

/// The password of the hub in seeds that have one.
const PASSWORD: &str = "secret";

/// A broken invariant, as text.
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

/// A service of the simulated server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceKind {
    Hub,
    Echo,
    Hello,
    Discard,
}

impl ServiceKind {
    const ALL: [ServiceKind; 4] =
        [ServiceKind::Hub, ServiceKind::Echo, ServiceKind::Hello, ServiceKind::Discard];

    fn name(self) -> &'static str {
        ["hub", "echo", "hello", "discard"][self as usize]
    }
}

/// The parts of a simulation that a client needs to act.
struct Scene<'a> {
    net: &'a mut SimNet,
    random: &'a mut fastrand::Rng,
    board: &'a mut Board,
    plan: &'a SeedPlan,
    is_draining: bool,
}

impl Scene<'_> {
    /// Returns true if all bytes from the client have arrived and reads return them whole. Returns
    /// false if the seed is unfair or its faults cut reads short.
    fn all_has_arrived(&self, client: ClientId) -> bool {
        let faults = &self.plan.faults;
        let reads_are_whole = faults.spurious_would_block == 0.0 && faults.short_read == 0.0;
        self.plan.is_fair && reads_are_whole && self.net.has_arrived(client)
    }
}

/// Totals of one seed or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub seeds: u64,
    /// Entries of the trace: system calls, readiness events, arrivals and actions of clients.
    pub events: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Virtual time, in seconds.
    pub seconds: u64,
    /// Honest clients.
    pub clients: u64,
    /// Honest clients that have upgraded to WebSocket.
    pub upgrades: u64,
    /// Honest clients that have connected to a namespace of Socket.IO, each time.
    pub sockets: u64,
    /// Commands and messages that the loop took from streams.
    pub messages: u64,
    /// Publishes of honest clients.
    pub publishes: u64,
    /// Deliveries to honest subscribers.
    pub receipts: u64,
    /// Datagrams that the loop received.
    pub datagrams: u64,
    /// Answers to datagrams that came back.
    pub datagram_answers: u64,
    /// Connections that the loop accepted.
    pub accepted: u64,
    /// Connections that the loop closed before the peer did.
    pub closed_early: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.turns += other.turns;
        self.seconds += other.seconds;
        self.clients += other.clients;
        self.upgrades += other.upgrades;
        self.sockets += other.sockets;
        self.messages += other.messages;
        self.publishes += other.publishes;
        self.receipts += other.receipts;
        self.datagrams += other.datagrams;
        self.datagram_answers += other.datagram_answers;
        self.accepted += other.accepted;
        self.closed_early += other.closed_early;
    }
}

/// The result of a seed without a violation: its totals and the hash of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    pub tally: Tally,
    pub hash: u64,
}

/// The result of a seed with a violation or a panic.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    /// The text of the violation or the panic.
    pub what: String,
    /// The plan and the latest events.
    pub trace: String,
    /// How to replay it.
    pub replay: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, what, trace, replay } = self;
        write!(f, "{trace}seed {seed}: {what}\n{replay}")
    }
}

/// Returns a line that says how to replay a seed.
pub fn replay_line(seed: u64) -> String {
    format!("replay it with all its events: slabd lab sim --seed {seed}")
}

thread_local! {
    /// The seed that this thread plays, for the panic hook of a build in which panics abort.
    static PLAYING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns the seed that this thread plays, or played last.
pub fn playing() -> Option<u64> {
    PLAYING.get()
}

/// Returns the plan of a seed as text.
pub fn plan_of(seed: u64) -> String {
    format!("{:#?}", SeedPlan::of(seed))
}

/// Plays one seed. Calls `watcher` with each event as it happens. Fails on a violation, and on a
/// panic if panics unwind.
pub fn run(seed: u64, watcher: Option<fn(&TraceEntry)>) -> Result<Played, Failure> {
    PLAYING.set(Some(seed));
    let mut simulation = Simulation::new(SeedPlan::of(seed));
    if let Some(watcher) = watcher {
        simulation.watch(watcher);
    }
    match outcome_of(|| simulation.play()) {
        Ok(tally) => Ok(Played { tally, hash: simulation.trace().hash() }),
        Err(what) => {
            let trace = format!("{}\n{}", simulation.in_words(), simulation.trace());
            Err(Failure { seed, what, trace, replay: replay_line(seed) })
        }
    }
}

/// Plays. Returns the text of a violation, or of a panic if panics unwind.
fn outcome_of<T>(play: impl FnOnce() -> Result<T, Violation>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(play)) {
        Ok(outcome) => outcome.map_err(|violation| violation.to_string()),
        Err(panic) => Err(match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => (*panic.downcast::<&str>().unwrap_or_default()).into(),
        }),
    }
}

/// Plays seeds on several threads until one fails. Each thread calls `done` with the totals so far
/// after each seed.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    done: &(impl Fn(Tally) + Sync),
) -> Result<Tally, Failure> {
    sweep_with(seeds, threads, &|seed| run(seed, None).map(|played| played.tally), done)
}

/// Sweeps over seeds that `play` plays.
fn sweep_with<T: AddAssign + Copy + Default + Send>(
    seeds: Range<u64>,
    threads: usize,
    play: &(impl Fn(u64) -> Result<T, Failure> + Sync),
    done: &(impl Fn(T) + Sync),
) -> Result<T, Failure> {
    let (next, outcome) = (AtomicU64::new(seeds.start), Mutex::new(Ok(T::default())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let played = play(seed);
                    let Ok(mut outcome) = outcome.lock() else { return };
                    match (&mut *outcome, played) {
                        (Ok(total), Ok(played)) => {
                            *total += played;
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

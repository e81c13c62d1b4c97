//! Runs the loop with random limits, faults and clients, honest and hostile, and compares it with
//! shadow models (`src/swarm`). This finds orders of events that no hand-written test has.
//!
//!     SLABD_SEED=7 cargo test --test simulated seeds_under -- --nocapture  replays a seed
//!     SLABD_SEEDS=100000 cargo test --test simulated seeds_under            sweeps 100,000 seeds

use std::time::Instant;

use slabd::swarm::{plan_of, run, sweep};

pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is not a number")))
}

/// Returns the number of seeds of a sweep, and the threads that play them.
pub fn sweep_size() -> (u64, usize) {
    let seeds = number("SLABD_SEEDS").unwrap_or(1000);
    assert!(seeds > 0, "SLABD_SEEDS must be at least 1");
    (seeds, std::thread::available_parallelism().map_or(1, |count| count.get()))
}

/// Seeds beyond the first thousand that once failed. The first found a wrong deadline of idle
/// subscribers, the next two a wrong bound of overdue deadlines. In the last, files were scarce
/// even in the calm at the end.
const KEPT: [u64; 4] = [5219, 5965, 14803, 15223];

#[test]
fn seeds_under_a_harsh_network() {
    if let Some(seed) = number("SLABD_SEED") {
        println!("{}", plan_of(seed));
        let played = run(seed, Some(|entry| println!("{entry}")))
            .unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed} passes: {played:?}");
        return;
    }
    let (seeds, threads) = sweep_size();
    let start = Instant::now();
    let tally = sweep(0..seeds, threads, &|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:#?}\nin {:.1} s on {threads} threads", start.elapsed().as_secs_f64());
    assert_eq!(tally.seeds, seeds);
    assert!(
        tally.events >= 10_000 * seeds || seeds < 1000,
        "a sweep has at least 10,000 events per seed, not {} in all",
        tally.events
    );
    // A sweep without messages must not pass.
    let floors = [
        (tally.receipts, 30),
        (tally.publishes, 30),
        (tally.datagram_answers, 10),
        (tally.closed_early, 10),
        (tally.upgrades, 3),
        (tally.sockets, 3),
    ];
    assert!(
        floors.iter().all(|(count, each)| *count >= each * seeds || seeds < 1000),
        "{tally:#?}"
    );
    for seed in KEPT {
        run(seed, None).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Anything that the seed does not decide would change the hash of the trace.
#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_does_not() {
    let hash = |seed| run(seed, None).unwrap_or_else(|failure| panic!("{failure}")).hash;
    for seed in 0..40 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
        assert_ne!(hash(seed), hash(seed + 1), "seed {seed}");
    }
}

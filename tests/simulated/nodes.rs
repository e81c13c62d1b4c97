//! Three nodes and a simulated broker with faults, with random clients (`src/swarm/nodes.rs`). A
//! shadow model checks the order of all messages, that none is lost or comes twice while a link is
//! up, and that every gap is told.
//!
//!     SLABD_SEED=7 cargo test --test simulated nodes_are -- --nocapture  replays a seed
//!     SLABD_SEEDS=100000 cargo test --test simulated nodes_are           sweeps 100,000 seeds

use std::time::Instant;

use slabd::swarm::nodes::{plan_of, run, sweep};

use crate::seeds::{number, sweep_size};

#[test]
fn nodes_are_in_step_under_the_faults_of_a_broker() {
    if let Some(seed) = number("SLABD_SEED") {
        println!("{}", plan_of(seed));
        let played = run(seed, Some(|entry| println!("{entry}")))
            .unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed} passes: {played:?}");
        return;
    }
    let (seeds, threads) = sweep_size();
    let start = Instant::now();
    let tally = sweep(0..seeds, threads).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:#?}\nin {:.1} s on {threads} threads", start.elapsed().as_secs_f64());
    assert_eq!(tally.seeds, seeds);
    // A sweep in which nothing happens must not pass.
    let floors = [
        (tally.crossed, 60),
        (tally.locals, 20),
        (tally.receipts, 600),
        (tally.gaps, 7),
        (tally.ups, 4),
        (tally.refused, 2),
    ];
    let is_full = floors.iter().all(|(count, each)| *count >= each * seeds);
    let strikes = tally.faults.iter().min().is_some_and(|count| *count >= seeds / 10);
    assert!(seeds < 1000 || is_full && strikes && tally.replaced >= seeds / 5, "{tally:#?}");
}

/// Anything that the seed does not decide would change the hash.
#[test]
fn a_seed_gives_the_same_run_of_nodes_again_and_another_seed_does_not() {
    let hash = |seed| run(seed, None).unwrap_or_else(|failure| panic!("{failure}")).hash;
    for seed in 0..20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
        assert_ne!(hash(seed), hash(seed + 1), "seed {seed}");
    }
}

//! The plan of one seed: limits, faults, services and clients.
//!
//! Each seed leaves out about half of all faults and services (swarm testing: Groce et al., ISSTA
//! 2012), because a fault that always strikes can hide bugs that show only without it. One seed in
//! four is *fair*: it has no hostile client and ample resources. In a fair seed the loop must serve
//! every client to the end and close none. In other seeds it may also close a client for a counted
//! reason.

use std::time::Duration;

use super::ServiceKind;
use super::hostile::Attack;
use crate::admission::Policy;
use crate::buffer::BufferMode;
use crate::limits::{Limits, UNTRUSTED_INPUT_MAX};
use crate::net::sim::Faults;

const SECOND: Duration = Duration::from_secs(1);

/// Everything that a seed decides before its run.
#[derive(Clone, Debug)]
pub struct SeedPlan {
    pub seed: u64,
    pub is_fair: bool,
    pub limits: Limits,
    pub buffers: BufferMode,
    pub faults: Faults,
    pub services: Vec<ServiceKind>,
    pub has_password: bool,
    pub has_operator: bool,
    pub backlog: u32,
    /// Maximum number of files that the loop may have open.
    pub file_limit: usize,
    /// Maximum number of honest clients at a time.
    pub honest: usize,
    /// The attack of each hostile client.
    pub hostile: Vec<Attack>,
    /// Steps of the storm.
    pub steps: usize,
    /// Maximum number of commands that a client sends at once.
    pub pipeline_max: usize,
    /// Maximum length of a payload in bytes.
    pub payload_max: usize,
    /// Maximum pause between two actions.
    pub pause_max: Duration,
    /// True if the loop starts to drain during the storm.
    pub drains: bool,
}

impl SeedPlan {
    /// Returns the plan of a seed.
    pub fn of(seed: u64) -> SeedPlan {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_fair = seed.is_multiple_of(4);
        let services: Vec<ServiceKind> =
            ServiceKind::ALL.into_iter().filter(|_| random.u8(0..3) > 0).collect();
        let hostile = match is_fair {
            true => Vec::new(),
            false => (0..random.usize(0..10))
                .map(|_| Attack::ALL[random.usize(..Attack::ALL.len())])
                .collect(),
        };
        let limits = if is_fair { fair_limits(&mut random) } else { tight_limits(&mut random) };
        // The rate has room for a question to each service at the end.
        let datagram_rate = if random.u8(0..4) == 0 { random.u32(8..100) } else { 0 };
        let limits = Limits { datagram_rate, ..limits };
        SeedPlan {
            seed,
            is_fair,
            buffers: match random.u8(0..5) {
                0 => BufferMode::Fixed(random.usize(64..2000)),
                _ => BufferMode::Pooled,
            },
            faults: faults(&mut random, is_fair),
            services: if services.is_empty() { vec![ServiceKind::Hub] } else { services },
            has_password: random.u8(0..4) == 0,
            has_operator: !is_fair && random.u8(0..4) == 0,
            backlog: if is_fair { 128 } else { random.u32(0..64) },
            file_limit: if is_fair || random.bool() { usize::MAX } else { random.usize(12..40) },
            honest: random.usize(2..16),
            hostile,
            steps: random.usize(200..1000),
            pipeline_max: if random.bool() { 3 } else { 12 },
            payload_max: if random.u8(0..4) == 0 { 2000 } else { 40 },
            pause_max: if is_fair { SECOND / 5 } else { 3 * SECOND },
            drains: random.u8(0..4) < if is_fair { 2 } else { 1 },
            limits,
        }
    }
}

/// Returns the probability of a fault, which is 0 in half of the seeds.
fn rate(random: &mut fastrand::Rng, most: f64) -> f64 {
    if random.bool() { 0.0 } else { random.f64() * most }
}

pub(super) fn faults(random: &mut fastrand::Rng, is_fair: bool) -> Faults {
    Faults {
        segment_max: random.bool().then(|| random.usize(1..64)),
        delay_max: if random.bool() {
            Duration::ZERO
        } else {
            Duration::from_millis(random.u64(1..50))
        },
        window: if random.bool() { 1..=64 } else { 200..=20_000 },
        spurious_event: rate(random, 0.2),
        stale_event: rate(random, 0.5),
        spurious_would_block: rate(random, 0.2),
        short_read: rate(random, 0.3),
        short_write: rate(random, 0.2),
        poll_interrupted: rate(random, 0.2),
        interrupted: rate(random, 0.1),
        // A fair seed excludes these: they end connections or make deadlines pass.
        accept_aborted: if is_fair { 0.0 } else { rate(random, 0.1) },
        accept_exhausted: if is_fair { 0.0 } else { rate(random, 0.1) },
        shuffled_events: random.bool(),
        clock_jump: if is_fair { 0.0 } else { rate(random, 0.01) },
        clock_jump_max: SECOND * if random.bool() { 5 } else { 3600 },
        datagram_lost: rate(random, 0.1),
        datagram_reordered: rate(random, 0.2),
        datagram_duplicated: rate(random, 0.1),
        receive_failed: rate(random, 0.1),
        send_would_block: rate(random, 0.1),
        datagram_queue: random.usize(1..80),
    }
}

/// Returns limits with random budgets of a turn. Low budgets only slow the loop down.
fn budgets(random: &mut fastrand::Rng) -> Limits {
    let mut limits = Limits::default();
    if random.bool() {
        limits.messages_per_turn = random.usize(1..8);
        limits.reads_per_turn = random.usize(1..4);
    }
    if random.bool() {
        limits.accepts_per_turn = random.usize(1..4);
        limits.connections_per_turn = random.usize(1..8);
        limits.expiries_per_turn = random.usize(1..4);
    }
    if random.bool() {
        limits.deliveries_per_turn = random.usize(1..8);
        limits.output_per_turn = random.usize(1..5000);
    }
    limits.high_watermark = random.usize(2000..10_000);
    limits.low_watermark = random.usize(0..2000);
    limits
}

/// Returns ample limits: every client is accepted, with enough time and memory.
pub(super) fn fair_limits(random: &mut fastrand::Rng) -> Limits {
    Limits {
        max_silent_per_source: 4096,
        max_connections_per_source: 4096,
        // An honest client may be idle or slow. Windows are small, and a half-closed client may
        // still have much pending output.
        first_message_timeout: SECOND * 600,
        message_timeout: SECOND * 600,
        idle_timeout: SECOND * 600,
        output_timeout: SECOND * 600,
        close_timeout: SECOND * 600,
        ping_interval: SECOND * 600,
        socketio_ping_interval: SECOND * 600,
        socketio_ping_timeout: SECOND * 600,
        socketio_connect_timeout: SECOND * 600,
        ..budgets(random)
    }
}

/// Returns scarce limits, at which the loop has to close some clients.
fn tight_limits(random: &mut fastrand::Rng) -> Limits {
    let timeout = |random: &mut fastrand::Rng, most: u32| random.u32(0..3) * SECOND * most / 2;
    Limits {
        max_connections: random.usize(1..40),
        admission: [Policy::Recycle, Policy::Recycle, Policy::Refuse, Policy::RandomDrop]
            [random.usize(0..4)],
        admission_dry_run: random.u8(0..8) == 0,
        max_silent: random.usize(1..40),
        max_silent_per_source: random.usize(1..20),
        max_connections_per_source: random.usize(0..20),
        penalty: random.u32(0..2) * 5 * SECOND,
        first_message_timeout: timeout(random, 20),
        message_timeout: timeout(random, 20),
        idle_timeout: timeout(random, 60),
        output_timeout: timeout(random, 20),
        close_timeout: timeout(random, 10),
        ping_interval: timeout(random, 40),
        socketio_ping_interval: SECOND / 2 + timeout(random, 40),
        socketio_ping_timeout: SECOND / 2 + timeout(random, 20),
        socketio_connect_timeout: SECOND / 2 + timeout(random, 20),
        drain_timeout: SECOND * random.u32(1..10),
        max_line: random.usize(16..600),
        output_limit: random.usize(UNTRUSTED_INPUT_MAX..60_000),
        output_soft_limit: random.usize(100..5000),
        output_soft_time: timeout(random, 10),
        memory_budget: if random.u8(0..3) == 0 { random.usize(20_000..200_000) } else { 256 << 20 },
        ..budgets(random)
    }
}

//! Every deadline, under virtual time: on time, and not before.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use std::time::Duration;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::service::hello::Hello;

use sim::{SECOND, Sim, limits};

#[test]
fn every_deadline_comes_on_time_and_not_before() {
    let limits =
        Limits { first_message_timeout: 2 * SECOND, message_timeout: 3 * SECOND, idle_timeout: 4 * SECOND, ..limits() };
    let late = 3 * Tick::LENGTH;
    for (sent, timeout, reason) in [
        ("", 2, Reason::FirstMessageTimeout),
        ("part", 2, Reason::FirstMessageTimeout),
        ("x\n", 4, Reason::IdleTimeout),
        ("x\npart", 3, Reason::MessageTimeout),
    ] {
        let mut sim = Sim::new(Box::new(Hello), limits.clone());
        let client = sim.accepted();
        sim.exchange(client, sent);
        sim.pass(timeout * SECOND - Duration::from_millis(1));
        assert_eq!(sim.reactor.connections(), 1, "{sent:?} is closed early");
        sim.pass(late);
        assert_eq!((sim.reactor.connections(), sim.closed(reason)), (0, 1), "{sent:?}");
    }
}

#[test]
fn a_dribbled_message_is_due_from_its_first_byte() {
    let mut sim = Sim::new(Box::new(Hello), Limits { message_timeout: 3 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    for _ in 0..29 {
        sim.send(client, "y");
        sim.pass(SECOND / 10);
        assert_eq!(sim.reactor.connections(), 1);
    }
    sim.send(client, "y");
    sim.pass(SECOND / 5);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
}

#[test]
fn activity_moves_the_idle_deadline_without_touching_the_wheel() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 10 * SECOND, ..limits() });
    let client = sim.accepted();
    for _ in 0..100 {
        assert!(!sim.exchange(client, "x\n").is_empty());
        sim.pass(SECOND);
    }
    assert_eq!(sim.reactor.connections(), 1);
    assert!(sim.reactor.stats().timers_early <= 12, "{} early firings in 100 s", sim.reactor.stats().timers_early);
    sim.pass(10 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

#[test]
fn a_deadline_beyond_the_wheels_reach_holds_too() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 1000 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    sim.pass(999 * SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(2 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

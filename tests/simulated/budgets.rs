//! Every budget of a turn: at its limit, one below and one above. The next turn does the rest.

use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::{Limits, READ_CHUNK};
use slabd::metrics::histogram::Histogram;
use slabd::net::sim::ClientId;
use slabd::service::discard::Discard;
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;
use slabd::stats::Stats;

use crate::sim::{SECOND, Sim, limits};

#[test]
fn messages_above_the_budget_are_served_in_the_next_turn() {
    for (lines, turns) in [(3, 1), (4, 1), (5, 2), (8, 2), (9, 3)] {
        let mut sim = Sim::new(Box::new(Hello), Limits { messages_per_turn: 4, ..limits() });
        let client = sim.accepted();
        sim.received(client);
        sim.send(client, "x\n".repeat(lines));
        for turn in 1..=turns {
            sim.turn();
            let expected = (turn * 4).min(lines);
            assert_eq!(
                sim.reactor.stats().work.messages,
                expected as u64,
                "{lines} lines, turn {turn}"
            );
        }
        assert_eq!(sim.received(client), "Hello, x!\r\n".repeat(lines));
        assert_eq!(sim.reactor.ledger().read_buffers, 0);
    }
}

#[test]
fn reads_above_the_budget_are_made_in_the_next_turn_without_an_edge() {
    let mut sim = Sim::new(Box::new(Discard), Limits { reads_per_turn: 2, ..limits() });
    let client = sim.accepted();
    sim.send(client, vec![0; 5 * READ_CHUNK]);
    for reads in [2, 4] {
        sim.turn();
        assert_eq!(sim.reactor.stats().work.reads, reads);
        assert_eq!(sim.reactor.stats().bytes_in, reads * READ_CHUNK as u64);
    }
    sim.turns(2);
    assert_eq!(sim.reactor.stats().bytes_in, 5 * READ_CHUNK as u64);
}

#[test]
fn newcomers_above_the_budget_are_accepted_in_the_next_turn() {
    for (clients, first_turn) in [(3, 3), (4, 4), (5, 4)] {
        let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn: 4, ..limits() });
        (0..clients).for_each(|_| {
            sim.client();
        });
        sim.turn();
        assert_eq!(sim.reactor.connections(), first_turn);
        sim.turn();
        assert_eq!(sim.reactor.connections(), clients);
    }
}

#[test]
fn connections_above_the_budget_are_served_in_the_next_turn() {
    let mut sim = Sim::new(Box::new(Hello), Limits { connections_per_turn: 3, ..limits() });
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    for served in [3, 6, 9, 10] {
        sim.turn();
        assert_eq!(sim.reactor.stats().work.messages, served);
    }
}

#[test]
fn a_turn_with_enough_output_serves_no_more_until_it_is_sent() {
    let mut sim = Sim::new(Box::new(Echo), Limits { output_per_turn: 1000, ..limits() });
    let clients: Vec<ClientId> = (0..4).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, [b'x'; 600]));
    sim.turn();
    assert_eq!(sim.reactor.stats().work.messages, 2);
    sim.turn();
    assert_eq!(sim.reactor.stats().work.messages, 4);
}

#[test]
fn a_long_pipeline_does_not_delay_another_client() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let (hog, other) = (sim.accepted(), sim.accepted());
    sim.received(other);
    sim.send(hog, "x\n".repeat(30_000));
    sim.turn();
    sim.send(other, "me\n");
    sim.turn();
    assert_eq!(sim.received(other), "Hello, me!\r\n", "the next turn serves it");
}

#[test]
fn expiries_above_the_budget_follow_in_the_next_turn() {
    let mut sim = Sim::new(
        Box::new(Hello),
        Limits { expiries_per_turn: 4, idle_timeout: SECOND, ..limits() },
    );
    let clients = sim.crowd(10);
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    sim.turn();
    sim.turn_until(sim.reactor.now() + 2 * SECOND);
    for left in [6, 2, 0] {
        sim.turn();
        assert_eq!(sim.reactor.connections(), left);
    }
    assert_eq!(sim.closed(Reason::IdleTimeout), 10);
}

#[test]
fn the_poll_does_not_wait_while_work_is_carried() {
    let mut sim = Sim::new(Box::new(Hello), Limits { connections_per_turn: 4, ..limits() });
    let clients: Vec<ClientId> = (0..40).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    let start = sim.reactor.now();
    for turn in 1..=9 {
        sim.turn_until(start + SECOND);
        assert_eq!(sim.reactor.now(), start, "turn {turn}");
    }
}

#[test]
fn connections_beyond_the_budget_of_a_turn_are_counted_as_carried() {
    let mut sim = Sim::new(Box::new(Echo), Limits { connections_per_turn: 2, ..limits() });
    let clients: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    sim.turns(2);
    let before = sim.reactor.stats().carried;
    clients.iter().for_each(|client| sim.send(*client, "x"));
    for carried in [3, 4, 4] {
        sim.turn();
        assert_eq!(sim.reactor.stats().carried - before, carried);
    }
}

#[test]
fn the_time_between_two_polls_counts_as_busy() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    sim.turns(2);
    assert_eq!(sim.reactor.stats().busy(), Duration::ZERO);
    sim.net().advance(Duration::from_millis(7));
    sim.turns(2);
    assert_eq!(sim.reactor.stats().busy(), Duration::from_millis(7));
    assert_eq!(sim.reactor.stats().longest_turn.span, Duration::from_millis(7));
}

#[test]
fn each_turn_counts_once_with_its_duration_and_its_writes() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let clients: Vec<ClientId> = (0..3).map(|_| sim.accepted()).collect();
    sim.turns(2);
    let before = sim.reactor.stats().clone();
    clients.iter().for_each(|client| sim.send(*client, "x"));
    sim.turn();
    sim.net().advance(Duration::from_millis(7));
    sim.turns(2);
    let after = sim.reactor.stats();
    let grown = |of: fn(&Stats) -> &Histogram| {
        (of(after).total() - of(&before).total(), of(after).sum() - of(&before).sum())
    };
    assert_eq!(grown(|stats| &stats.turn_durations), (3, 7_000_000));
    assert_eq!(grown(|stats| &stats.writes_per_turn), (3, 3));
    let bucket = |up_to: u64| {
        let mut bounds = after.writes_per_turn.cumulative();
        bounds.find(|(bound, _)| *bound == up_to).unwrap().1
    };
    assert_eq!((bucket(4) - bucket(2), after.writes_per_turn.total() - bucket(4)), (1, 0));
}

#[test]
fn a_poll_counts_as_late_only_if_it_waited_for_its_whole_timeout() {
    let mut sim = Sim::new(Box::new(Echo), Limits { idle_timeout: 10 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.turns(2);
    let counted = |sim: &Sim| sim.reactor.stats().poll_delays.total();
    let before = counted(&sim);
    sim.pass(SECOND);
    sim.exchange(client, "x");
    assert_eq!(counted(&sim), before, "an event or the test ended each poll");
    let idle = sim.reactor.stats().turns;
    sim.pass(20 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
    let polls = sim.reactor.stats().turns - idle;
    let late = counted(&sim) - before;
    assert!(late > 0 && late <= polls, "{late} of {polls} polls timed out");
    assert_eq!(sim.reactor.stats().poll_delays.sum(), 0, "virtual time is never late");
}

//! The limits of one source: its connections, its silent connections and its penalties.

use slabd::admission::Refusal;
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::ClientId;
use slabd::service::hello::Hello;

use crate::sim::{SECOND, Sim, limits};

#[test]
fn one_source_cannot_fill_the_silent_set() {
    let caps = Limits { max_silent: 10, max_silent_per_source: 3, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let flood: Vec<ClientId> = (0..20).map(|port| sim.accepted_from(1, 1000 + port)).collect();
    assert_eq!(sim.reactor.connections(), 6, "the source got half of the set and one connection");
    assert_eq!(sim.reactor.stats().refused[Refusal::SourceSilent as usize], 14);
    assert!(sim.is_ended(flood[19]) && !sim.is_ended(flood[0]));
    let other = sim.accepted_from(2, 1000);
    assert!(sim.exchange(other, "x\n").ends_with("Hello, x!\r\n"));
    assert_eq!(sim.closed(Reason::Recycled), 0);
}

#[test]
fn a_source_is_refused_one_connection_above_its_cap() {
    for (count, refused) in [(2, 0), (3, 0), (4, 1)] {
        let mut sim =
            Sim::new(Box::new(Hello), Limits { max_connections_per_source: 3, ..limits() });
        for port in 0..count {
            let client = sim.accepted_from(1, 1000 + port);
            sim.exchange(client, "x\n");
        }
        assert_eq!(
            sim.reactor.stats().refused[Refusal::SourceConnections as usize],
            refused,
            "{count} connections"
        );
        let other = sim.accepted_from(2, 1000);
        assert!(sim.exchange(other, "x\n").ends_with("Hello, x!\r\n"));
    }
}

#[test]
fn a_source_that_misses_three_deadlines_is_refused_for_a_while() {
    let timeout = Limits { first_message_timeout: SECOND, penalty: 5 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), timeout);
    for port in 0..2 {
        sim.accepted_from(1, 1000 + port);
    }
    sim.pass(SECOND * 3 / 2);
    let again: Vec<ClientId> = (2..4).map(|port| sim.accepted_from(1, 1000 + port)).collect();
    assert!(
        again.iter().all(|client| sim.received(*client) == "Hello\r\n"),
        "two missed deadlines are not enough"
    );
    sim.pass(SECOND * 3 / 2);
    let refused = sim.accepted_from(1, 1003);
    assert_eq!((sim.received(refused).as_str(), sim.is_ended(refused)), ("", true));
    assert_eq!(sim.reactor.stats().refused[Refusal::Penalty as usize], 1);
    let other = sim.accepted_from(2, 1000);
    assert_eq!(sim.received(other), "Hello\r\n");
    sim.pass(20 * SECOND);
    let later = sim.accepted_from(1, 1004);
    assert_eq!(sim.received(later), "Hello\r\n", "the penalty has expired");
}

/// Ticks wrap after 397 days, when a past tick becomes a future one.
#[test]
fn an_expired_penalty_does_not_return() {
    let caps = Limits { first_message_timeout: SECOND, penalty: 20 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    sim.accepted_from(1, 1000);
    sim.pass(2 * SECOND);
    let refused = sim.accepted_from(1, 1001);
    assert_eq!(sim.received(refused), "");
    for _ in 0..2 {
        sim.pass(250 * 24 * 3600 * SECOND);
    }
    let later = sim.accepted_from(1, 1002);
    assert_eq!(sim.received(later), "Hello\r\n");
}

/// A source whose silent connections are evicted again and again is refused for a while.
#[test]
fn flooding_sources_are_refused_and_an_honest_client_is_served() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 20, ..limits() });
    for round in 0..40 {
        for source in 1..=10 {
            sim.accepted_from(source, 1000 + round);
        }
    }
    let refused = sim.reactor.stats().refused[Refusal::Penalty as usize];
    assert!(refused > 150, "{refused} of 400 refused");
    let recycled = sim.closed(Reason::Recycled);
    let honest = sim.accepted_from(100, 1000);
    for source in 1..=10 {
        for port in 2000..2005 {
            sim.accepted_from(source, port);
        }
    }
    assert!(sim.exchange(honest, "x\n").ends_with("Hello, x!\r\n"));
    assert_eq!(
        sim.closed(Reason::Recycled),
        recycled + 1,
        "only the honest client caused an eviction"
    );
}

/// Many clients can share the address of a proxy or an address translator. The misbehaviour of a
/// few must not cost the others.
#[test]
fn a_trusted_source_is_counted_but_neither_capped_nor_penalised() {
    for (trusted, refused) in [("", true), ("10.0.0.0/24", false), ("10.0.1.0/24", true)] {
        let caps = Limits {
            trusted_sources: trusted.parse().unwrap(),
            max_silent: 10,
            max_silent_per_source: 3,
            max_connections_per_source: 6,
            first_message_timeout: SECOND,
            ..limits()
        };
        let mut sim = Sim::new(Box::new(Hello), caps);
        for port in 0..8 {
            let client = sim.accepted_from(1, 1000 + port);
            sim.exchange(client, "x\n");
        }
        let held = if refused { 6 } else { 8 };
        assert_eq!(
            sim.reactor.connections(),
            held,
            "connections of one source, trusted: {trusted:?}"
        );
        for port in 0..8 {
            sim.accepted_from(2, 1000 + port);
        }
        let silent = if refused { 6 } else { 8 };
        assert_eq!(
            sim.reactor.connections(),
            held + silent,
            "silent connections of one source, trusted: {trusted:?}"
        );
        let admission = &sim.reactor.metrics(&|title| title == "admission")[0];
        assert!(admission.counts().any(|count| count == ("sources", 2)), "{admission:?}");
        // All silent connections of the second source miss their deadline.
        sim.pass(2 * SECOND);
        let again = sim.accepted_from(2, 2000);
        assert_eq!(sim.received(again).is_empty(), refused, "trusted: {trusted:?}");
        assert_eq!(sim.reactor.stats().refused[Refusal::Penalty as usize], u64::from(refused));
    }
}

/// A trusted proxy has many silent connections because it has many clients. A flood of other
/// sources must not evict them first.
#[test]
fn silent_connections_of_a_trusted_source_are_not_evicted_first() {
    let trusted_sources = "10.0.0.1".parse().unwrap();
    let mut sim = Sim::new(Box::new(Hello), Limits { trusted_sources, max_silent: 4, ..limits() });
    let oldest = sim.accepted_from(2, 1000);
    let proxied: Vec<ClientId> = (0..3).map(|port| sim.accepted_from(1, 1000 + port)).collect();
    sim.accepted_from(3, 1000);
    assert!(sim.is_ended(oldest));
    assert!(!proxied.iter().any(|client| sim.is_ended(*client)));
}

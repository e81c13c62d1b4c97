//! The limits of one source: its connections, its silent connections and its penalties.

use slabd::admission::Refusal;
use slabd::connection::Reason;
use slabd::limits::{IDLE_MIN, Limits, PENALTY_MAX};
use slabd::net::sim::ClientId;
use slabd::service::hello::Hello;

use crate::sim::{SECOND, Sim, limits};

/// Above half of the set, a newcomer of the source takes the place of its own oldest connection.
#[test]
fn one_source_cannot_fill_the_silent_set() {
    let caps = Limits { max_silent: 10, max_silent_per_source: 3, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let other = sim.accepted_from(2, 1000);
    let flood: Vec<ClientId> = (0..20).map(|port| sim.accepted_from(1, 1000 + port)).collect();
    assert_eq!(sim.reactor.connections(), 6, "one more than half of the set");
    assert_eq!(sim.closed(Reason::Recycled), 15);
    assert!(sim.is_ended(flood[0]) && sim.is_ended(flood[14]));
    assert!(!sim.is_ended(flood[15]) && !sim.is_ended(flood[19]));
    assert!(sim.exchange(other, "x\n").ends_with("Hello, x!\r\n"), "the oldest of all stays");
    assert!(sim.exchange(flood[19], "x\n").ends_with("Hello, x!\r\n"), "so does the newcomer");
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
        // Later, the longest idle connection of the source makes way for its newcomer.
        sim.pass(IDLE_MIN + SECOND);
        let later = sim.accepted_from(1, 2000);
        assert!(sim.exchange(later, "x\n").ends_with("Hello, x!\r\n"));
        assert_eq!(sim.closed(Reason::IdleEvicted), u64::from(count > 2), "{count}");
        assert!(sim.exchange(other, "y\n").ends_with("Hello, y!\r\n"));
    }
}

/// Lets `count` silent connections of the source 10.0.0.`host` miss their deadline, while others
/// take half of the silent set.
fn miss_deadlines(sim: &mut Sim, host: u8, count: u16) {
    for port in 0..count {
        sim.accepted_from(host, 1000 + port);
    }
    let others: Vec<ClientId> = (0..9).map(|other| sim.accepted_from(200 + other, 1000)).collect();
    sim.pass(SECOND * 3 / 2);
    assert_eq!(sim.closed(Reason::FirstMessageTimeout), u64::from(count) + 1);
    others.iter().for_each(|client| sim.net().client_reset(*client));
    sim.turns(2);
}

/// Returns how many silent connections a source can have while the set is more than half full.
fn share(sim: &mut Sim, host: u8) -> usize {
    let others: Vec<ClientId> = (0..10).map(|other| sim.accepted_from(100 + other, 3000)).collect();
    let clients: Vec<ClientId> = (0..9).map(|port| sim.accepted_from(host, 4000 + port)).collect();
    let held = clients.iter().filter(|client| !sim.is_ended(**client)).count();
    for client in others.iter().chain(&clients) {
        sim.net().client_reset(*client);
    }
    sim.turns(2);
    held
}

/// Limits at which half of the silent set is nine, and the share of a source eight.
fn small_set() -> Limits {
    Limits {
        first_message_timeout: SECOND,
        max_silent: 18,
        max_silent_per_source: 8,
        max_connections: 1000,
        ..limits()
    }
}

#[test]
fn a_source_late_three_times_has_a_smaller_share_for_a_while() {
    for (late, expected) in [(2, 8), (3, 1)] {
        let mut sim = Sim::new(Box::new(Hello), small_set());
        miss_deadlines(&mut sim, 1, late);
        assert_eq!(share(&mut sim, 2), 8, "another source");
        assert_eq!(share(&mut sim, 1), expected, "{late} late messages");
        sim.pass(PENALTY_MAX);
        assert_eq!(share(&mut sim, 1), 8, "the penalty has expired");
    }
}

/// The office's other clients get in at once, whatever its late connections have done.
#[test]
fn an_honest_client_of_a_penalised_source_is_served_at_once() {
    let mut sim = Sim::new(Box::new(Hello), small_set());
    miss_deadlines(&mut sim, 1, 3);
    let _others: Vec<ClientId> = (0..12).map(|other| sim.accepted_from(100 + other, 1)).collect();
    sim.accepted_from(1, 9);
    for port in 0..20 {
        let client = sim.accepted_from(1, 5000 + port);
        assert!(sim.exchange(client, "x\n").ends_with("Hello, x!\r\n"), "{port}");
    }
    assert_eq!(sim.reactor.stats().refused.iter().sum::<u64>(), 0);
}

#[test]
fn a_late_message_without_pressure_costs_its_source_nothing() {
    for (sent, timeout) in [("part", 2), ("x\npart", 2)] {
        let mut sim =
            Sim::new(Box::new(Hello), Limits { message_timeout: 2 * SECOND, ..small_set() });
        for port in 0..4 {
            let client = sim.accepted_from(1, 1000 + port);
            sim.exchange(client, sent);
        }
        sim.pass((timeout + 1) * SECOND);
        assert_eq!(sim.closed(Reason::MessageTimeout), 4, "{sent:?}");
        assert_eq!(share(&mut sim, 1), 8, "{sent:?}");
    }
}

/// Ticks wrap after 397 days, when a past tick becomes a future one.
#[test]
fn an_expired_penalty_does_not_return() {
    let mut sim = Sim::new(Box::new(Hello), Limits { penalty: 20 * SECOND, ..small_set() });
    miss_deadlines(&mut sim, 1, 1);
    assert_eq!(share(&mut sim, 1), 1);
    for _ in 0..2 {
        sim.pass(250 * 24 * 3600 * SECOND);
    }
    assert_eq!(share(&mut sim, 1), 8);
}

/// The connections of a source that floods are recycled first.
#[test]
fn flooding_sources_evict_themselves_and_an_honest_client_is_served() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 20, ..limits() });
    for round in 0..40 {
        for source in 1..=10 {
            sim.accepted_from(source, 1000 + round);
        }
    }
    let honest = sim.accepted_from(100, 1000);
    for source in 1..=10 {
        for port in 2000..2005 {
            sim.accepted_from(source, port);
        }
    }
    assert!(sim.exchange(honest, "x\n").ends_with("Hello, x!\r\n"));
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
            penalty: 10 * SECOND,
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
        // Silent connections of the second source miss their deadline.
        sim.pass(2 * SECOND);
        let admission = &sim.reactor.metrics(&|title| title == "admission")[0];
        let penalised = ("sources penalised", u64::from(refused));
        assert!(admission.counts().any(|count| count == penalised), "{admission:?}");
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

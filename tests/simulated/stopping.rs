//! Drains, the timers of the loop, signals, and memory that is freed after a load.

use std::time::Duration;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::Signal;
use slabd::net::sim::{ClientId, End};
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;

use crate::sim::{self, SECOND, Sim, limits};

#[test]
fn the_timers_of_the_loop_hold_beyond_the_span_of_the_timer_wheel() {
    let mut sim = Sim::new(
        Box::new(Echo),
        Limits { drain_timeout: 300 * SECOND, output_timeout: Duration::ZERO, ..limits() },
    );
    sim.reactor.set_report_every(200 * SECOND);
    sim.pass(199 * SECOND);
    assert!(!sim.reactor.take_report_due());
    sim.pass(2 * SECOND);
    assert!(sim.reactor.take_report_due());
    let deaf = sim.accepted();
    sim.net().set_window(deaf, 0);
    sim.exchange(deaf, vec![b'x'; 70_000]);
    sim.reactor.drain();
    sim.pass(299 * SECOND);
    assert!(!sim.reactor.is_drained());
    sim.pass(2 * SECOND);
    assert!(sim.reactor.is_drained());
}

/// Whole lines that wait in the server during backpressure are no incomplete message of the peer.
#[test]
fn the_message_deadline_does_not_run_while_backpressure_stops_reading() {
    let limits = Limits {
        high_watermark: 100,
        low_watermark: 10,
        message_timeout: SECOND,
        output_timeout: Duration::ZERO,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Hello), limits);
    let client = sim.accepted();
    sim.net().set_window(client, 0);
    sim.exchange(client, "a line\n".repeat(300));
    sim.pass(10 * SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.net().set_window(client, 65_536);
    sim.received(client);
    let mut answers = 0;
    for _ in 0..100 {
        sim.turns(3);
        answers += sim.received(client).len();
    }
    assert!(answers >= 299 * "Hello, a line!\r\n".len(), "{answers} bytes");
    sim.exchange(client, "part of a line");
    sim.pass(2 * SECOND);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
}

#[test]
fn a_drain_answers_received_input_and_closes_every_connection() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, "last\n"));
    sim.reactor.drain();
    sim.turns(3);
    for client in &clients {
        assert_eq!(sim.received(*client), "Hello\r\nHello, last!\r\n");
        assert_eq!(sim.net().client_saw(*client), End::Fin);
        sim.net().client_close(*client);
    }
    sim.turns(3);
    assert!(sim.reactor.is_drained());
    assert_eq!(sim.closed(Reason::Drain), 10);
}

#[test]
fn a_drain_ends_within_its_timeout_even_if_peers_do_not_close() {
    let mut sim = Sim::new(
        Box::new(Echo),
        Limits { drain_timeout: 3 * SECOND, close_timeout: 60 * SECOND, ..limits() },
    );
    let (idle, deaf, part) = (sim.accepted(), sim.accepted(), sim.accepted());
    sim.net().set_window(deaf, 0);
    sim.exchange(deaf, [b'x'; 100]);
    sim.exchange(part, "x");
    sim.reactor.drain();
    sim.turns(3);
    assert_eq!(sim.net().client_saw(idle), End::Fin, "the idle client has no pending output");
    sim.pass(2 * SECOND);
    assert!(!sim.reactor.is_drained());
    sim.pass(SECOND + 3 * Tick::LENGTH);
    assert!(sim.reactor.is_drained());
    assert_eq!(sim.closed(Reason::DrainTimeout), 1);
}

#[test]
fn the_caller_of_turn_gets_each_signal_once() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    assert!(sim.reactor.take_signals().is_empty());
    sim.net().raise(Signal::Status);
    sim.net().raise(Signal::Stop);
    sim.turn();
    assert_eq!(sim.reactor.take_signals(), [Signal::Status, Signal::Stop]);
    assert!(sim.reactor.take_signals().is_empty());
}

#[test]
fn the_ledger_is_at_zero_after_all_connections_close() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 2000, ..limits() });
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let client = sim.accepted();
        sim.send(client, "part of a line");
        clients.push(client);
    }
    sim.turn();
    let loaded = sim.reactor.ledger();
    assert_eq!(loaded.read_buffers, 64_000);
    clients.iter().for_each(|client| sim.net().client_close(*client));
    sim.pass(2 * SECOND);
    assert_eq!(sim.reactor.stats().trims, 1);
    assert_eq!(sim.reactor.ledger().for_connections(), 0);
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "again\n"), "Hello\r\nHello, again!\r\n");
}

/// A publisher that continues does not delay the drain for long. A drain closes clients without
/// subscriptions at once, and subscribers within half of its timeout.
#[test]
fn a_drain_ends_within_its_timeout_while_a_client_publishes() {
    for listens_itself in [false, true] {
        let mut sim = sim::hub(Limits { drain_timeout: 10 * SECOND, ..limits() });
        let idle: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
        let subscriber = sim::subscriber(&mut sim, "a");
        let publisher = sim.accepted();
        sim.exchange(
            publisher,
            if listens_itself { "HELLO 3\r\nSUBSCRIBE b\r\n" } else { "PING\r\n" },
        );
        sim.reactor.drain();
        let (mut turns, start) = (0, sim.reactor.now());
        while !sim.reactor.is_drained() {
            sim.send(publisher, "PUBLISH a x\r\n");
            sim.turn();
            for client in idle.iter().chain([&subscriber, &publisher]) {
                sim.received(*client);
                if sim.net().client_saw(*client) != End::Open {
                    sim.net().client_close(*client);
                }
            }
            sim.net().advance(SECOND / 100);
            turns += 1;
            assert!(turns < 2000);
        }
        assert_eq!(
            (sim.closed(Reason::DrainTimeout), sim.closed(Reason::Drain)),
            (0, 7),
            "{listens_itself}"
        );
        let took = sim.reactor.now().since(start);
        assert!(took < if listens_itself { 6 * SECOND } else { SECOND }, "{took:?}");
    }
}

/// The publish is answered before the drain in one run, and during the drain in the other.
#[test]
fn a_drain_delivers_answered_publishes() {
    for during_drain in [false, true] {
        let mut sim = sim::hub(Limits { deliveries_per_turn: 1, ..limits() });
        let subscribers: Vec<ClientId> = (0..8).map(|_| sim::subscriber(&mut sim, "a")).collect();
        let publisher = sim.accepted();
        sim.exchange(publisher, "PING\r\n");
        sim.send(publisher, "PUBLISH a x\r\n");
        if !during_drain {
            sim.turn();
            assert_eq!(sim.received(publisher), ":8\r\n");
        }
        sim.reactor.drain();
        sim.pass(SECOND / 10);
        let received: Vec<String> =
            subscribers.iter().map(|subscriber| sim.received(*subscriber)).collect();
        let count = received.iter().filter(|text| text.ends_with("$1\r\nx\r\n")).count();
        assert_eq!(sim.received(publisher), if during_drain { ":8\r\n" } else { "" });
        assert_eq!(count, 8, "during the drain: {during_drain}");
        for client in subscribers.iter().chain([&publisher]) {
            assert_eq!(sim.net().client_saw(*client), End::Fin);
            sim.net().client_close(*client);
        }
        sim.turns(3);
        assert!(sim.reactor.is_drained());
    }
}

#[test]
fn the_close_of_a_few_connections_gives_no_memory_back() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let clients: Vec<ClientId> = (0..3).map(|_| sim.accepted()).collect();
    for client in clients {
        sim.net().client_close(client);
        sim.pass(2 * SECOND);
    }
    assert_eq!((sim.reactor.connections(), sim.reactor.stats().trims), (0, 0));
}

/// The publisher goes on, so there is always a message pending for the subscriber.
#[test]
fn a_subscriber_with_pending_messages_is_closed_at_half_of_the_drain_timeout() {
    let mut sim = sim::hub(Limits { drain_timeout: 10 * SECOND, ..limits() });
    let subscriber = sim::subscriber(&mut sim, "a");
    let publisher = sim.accepted();
    sim.exchange(publisher, "SUBSCRIBE b\r\n");
    let other = sim.accepted();
    sim.exchange(other, "HELLO 3\r\nSUBSCRIBE b\r\n");
    sim.reactor.drain();
    let start = sim.reactor.now();
    let before_half = Duration::from_millis(4999);
    for (wait, is_open) in
        [(Duration::ZERO, true), (before_half, true), (Duration::from_millis(1), false)]
    {
        // In steps, because a long one would be a stop of the process.
        for _ in 0..50 {
            sim.net().advance(wait / 50);
            sim.send(other, "PUBLISH a x\r\n");
            sim.turn();
        }
        let after = sim.reactor.now().since(start);
        assert_eq!(sim.net().client_saw(subscriber) == End::Open, is_open, "after {after:?}");
    }
}

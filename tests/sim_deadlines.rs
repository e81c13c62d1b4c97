//! Every deadline, under virtual time: on time, and not before.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use std::time::Duration;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{CATCH_UP_MAX, Limits};
use slabd::net::sim::{ClientId, End};
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret};

use sim::{SECOND, Sim, hub, limits, subscriber};

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
fn who_stops_listening_has_the_idle_timeout_from_then_on() {
    let mut sim = hub(Limits { idle_timeout: 4 * SECOND, ..limits() });
    let client = subscriber(&mut sim, "a");
    sim.pass(6 * SECOND);
    sim.exchange(client, "UNSUBSCRIBE\r\n");
    sim.pass(4 * SECOND - Duration::from_millis(1));
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(3 * Tick::LENGTH);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

/// That it may be idle does not mean that it may be owed much for long.
#[test]
fn an_idle_subscriber_that_does_not_read_is_closed_in_time() {
    for (output_timeout, soft_limit, reason) in [(3, 1 << 20, Reason::OutputTimeout), (0, 100, Reason::OutputLimit)] {
        let mut sim = hub(Limits {
            idle_timeout: 100 * SECOND,
            output_timeout: output_timeout * SECOND,
            output_soft_limit: soft_limit,
            output_soft_time: 3 * SECOND,
            ..limits()
        });
        let (client, publisher) = (subscriber(&mut sim, "a"), sim.accepted());
        sim.pass(150 * SECOND);
        sim.net().set_window(client, 1);
        let publisher = if sim.net().client_saw(publisher) == End::Open { publisher } else { sim.accepted() };
        sim.exchange(publisher, format!("PUBLISH a {}\r\n", "x".repeat(1000)));
        sim.pass(2 * SECOND);
        assert_eq!(sim.closed(reason), 0);
        sim.pass(3 * SECOND);
        assert_eq!(sim.closed(reason), 1, "{reason:?}");
    }
}

/// Its deadline comes nearer by the password being right, or given up, though it stays as open as it was.
#[test]
fn who_becomes_known_or_unknown_has_another_deadline_from_then_on() {
    for (first_message, idle, commands) in [(0, 4, "AUTH secret\r\n"), (4, 100, "AUTH secret\r\nRESET\r\n")] {
        let limits = Limits { first_message_timeout: first_message * SECOND, idle_timeout: idle * SECOND, ..limits() };
        let options = Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits);
        let client = sim.accepted();
        sim.exchange(client, "PING\r\n");
        for command in commands.split_inclusive("\r\n") {
            sim.pass(SECOND);
            sim.exchange(client, command);
        }
        sim.pass(4 * SECOND - Duration::from_millis(1));
        assert_eq!(sim.reactor.connections(), 1);
        sim.pass(3 * Tick::LENGTH);
        assert_eq!(sim.reactor.connections(), 0, "{commands}");
    }
}

/// What was sent while the process was stopped waits in the kernel, and takes several polls to be told of.
#[test]
fn after_a_stop_nobody_is_closed_who_has_spoken_meanwhile() {
    let limits = Limits { max_connections: 4000, idle_timeout: 10 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn: 4000, ..limits });
    let clients: Vec<ClientId> = (0..30)
        .flat_map(|_| {
            let some: Vec<ClientId> = (0..100).map(|_| sim.client()).collect();
            sim.turn();
            some
        })
        .collect();
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    sim.turns(4);
    let silent = sim.accepted();
    sim.exchange(silent, "x\n");
    // Stopped: time passes, everybody but one speaks, and the loop does not look.
    sim.net().advance(60 * SECOND);
    clients.iter().for_each(|client| sim.send(*client, "y\n"));
    sim.turns(8);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1, "who has said nothing");
    assert!(clients.iter().all(|client| sim.received(*client).ends_with("Hello, y!\r\n")));

    // The same once more.
    sim.net().advance(60 * SECOND);
    clients.iter().for_each(|client| sim.send(*client, "y\n"));
    sim.turns(8);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);

    // And it holds up the deadlines of others for a few seconds at most, however busy it is then.
    let idle = sim.accepted();
    sim.exchange(idle, "x\n");
    let start = sim.reactor.now();
    sim.net().advance(60 * SECOND);
    while sim.closed(Reason::IdleTimeout) == 1 {
        clients.iter().for_each(|client| sim.send(*client, "z\n"));
        sim.net().advance(SECOND / 10);
        sim.turn();
        assert!(sim.reactor.now().since(start) < 60 * SECOND + CATCH_UP_MAX + SECOND, "deadlines are never looked at");
    }
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

//! Every deadline in virtual time: a connection is closed on time, and not earlier.

use std::time::Duration;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{CATCH_UP_MAX, Limits};
use slabd::net::sim::{ClientId, End};
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, hub, limits, subscriber};

#[test]
fn a_connection_is_closed_at_its_deadline_and_not_earlier() {
    let limits = Limits { message_timeout: 3 * SECOND, idle_timeout: 4 * SECOND, ..limits() };
    let late = 3 * Tick::LENGTH;
    for (sent, timeout, reason) in [
        ("part", 3, Reason::MessageTimeout),
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
fn the_deadline_of_a_dribbled_message_starts_with_its_first_byte() {
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
fn the_idle_timeout_of_a_subscriber_starts_when_it_unsubscribes() {
    let mut sim = hub(Limits { idle_timeout: 4 * SECOND, ..limits() });
    let client = subscriber(&mut sim, "a");
    sim.pass(6 * SECOND);
    sim.exchange(client, "UNSUBSCRIBE\r\n");
    sim.pass(4 * SECOND - Duration::from_millis(1));
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(3 * Tick::LENGTH);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

/// A subscriber has no idle timeout, but the limits of its pending output apply.
#[test]
fn an_idle_subscriber_that_does_not_read_is_closed() {
    for (output_timeout, soft_limit, reason) in
        [(3, 1 << 20, Reason::OutputTimeout), (0, 100, Reason::OutputLimit)]
    {
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
        let publisher =
            if sim.net().client_saw(publisher) == End::Open { publisher } else { sim.accepted() };
        sim.exchange(publisher, format!("PUBLISH a {}\r\n", "x".repeat(1000)));
        sim.pass(2 * SECOND);
        assert_eq!(sim.closed(reason), 0);
        sim.pass(3 * SECOND);
        assert_eq!(sim.closed(reason), 1, "{reason:?}");
    }
}

/// AUTH replaces the first-message deadline by the idle deadline. RESET does the reverse.
#[test]
fn auth_and_reset_change_the_deadline_of_a_connection() {
    for (first_message, idle, commands) in
        [(0, 4, "AUTH secret\r\n"), (4, 100, "AUTH secret\r\nRESET\r\n")]
    {
        let limits = Limits {
            first_message_timeout: first_message * SECOND,
            idle_timeout: idle * SECOND,
            ..limits()
        };
        let options =
            Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
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

/// Returns limits at which every deadline is two seconds away.
fn short_timeouts() -> Limits {
    Limits {
        message_timeout: 2 * SECOND,
        idle_timeout: 2 * SECOND,
        output_timeout: 2 * SECOND,
        output_soft_limit: 100,
        output_soft_time: 2 * SECOND,
        close_timeout: 2 * SECOND,
        ..limits()
    }
}

/// Input that arrives while the process is stopped waits in the kernel. The loop needs several
/// polls to read it all.
#[test]
fn a_client_that_sent_input_while_the_process_was_stopped_is_not_closed() {
    let limits = Limits { max_connections: 4000, accepts_per_turn: 4000, ..short_timeouts() };
    let mut sim = Sim::new(Box::new(Hello), limits);
    let clients: Vec<ClientId> = (0..30)
        .flat_map(|_| {
            let some: Vec<ClientId> = (0..100).map(|_| sim.client()).collect();
            sim.turn();
            some
        })
        .collect();
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    sim.turns(4);
    for _ in 0..3 {
        sim.pass(2 * SECOND - Tick::LENGTH);
        sim.net().advance(60 * SECOND);
        clients.iter().for_each(|client| sim.send(*client, "y\n"));
        sim.turns(8);
        assert!(clients.iter().all(|client| sim.received(*client).ends_with("Hello, y!\r\n")));
    }
    assert_eq!(sim.closed(Reason::IdleTimeout), 0);
    sim.pass(3 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 3000, "the deadlines go on after a stop");
}

/// The time of a stop counts for nobody. What was left of each deadline is left after the stop.
#[test]
fn a_stop_of_the_process_moves_every_deadline() {
    for stops in [0, 1, 3] {
        let mut sim = hub(short_timeouts());
        let begun = sim.accepted();
        sim.send(begun, "PIN");
        let partial = sim.accepted();
        sim.exchange(partial, "PING\r\nPIN");
        let idle = sim.accepted();
        sim.exchange(idle, "PING\r\n");
        let blocked = sim.accepted();
        sim.net().set_window(blocked, 1);
        sim.exchange(blocked, "ECHO 123456789\r\n");
        let over_soft_limit = sim.accepted();
        sim.net().set_window(over_soft_limit, 1);
        sim.exchange(over_soft_limit, format!("ECHO {}\r\n", "x".repeat(200)));
        let lingering = sim.accepted();
        sim.exchange(lingering, "*x\r\n");
        sim.pass(SECOND);
        for _ in 0..stops {
            sim.net().advance(600 * SECOND);
            sim.turns(3);
        }
        assert_eq!(sim.reactor.connections(), 6, "{stops} stops: all are open");
        assert_eq!(sim.reactor.stats().stops, stops);
        sim.pass(SECOND / 2);
        assert_eq!(sim.reactor.connections(), 6, "{stops} stops: half a second is left");
        sim.pass(2 * SECOND);
        assert_eq!(sim.reactor.connections(), 0, "{stops} stops");
        for client in [begun, partial, idle, blocked, over_soft_limit, lingering] {
            assert!(sim.is_ended(client));
        }
    }
}

/// The poll before a deadline may end early, without an event, when the process goes on after a
/// stop. The next poll reports the input.
#[test]
fn a_deadline_is_judged_after_a_poll_that_began_when_it_had_passed() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 2 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    // The poll waits until the deadline. The input comes at the same moment.
    sim.turn_until(sim.reactor.now() + 3 * SECOND);
    sim.send(client, "y\n");
    sim.turns(2);
    assert_eq!(sim.closed(Reason::IdleTimeout), 0);
    assert!(sim.received(client).ends_with("Hello, y!\r\n"));
}

/// Reading first delays deadlines by a few seconds at most, even under constant load.
#[test]
fn deadlines_wait_for_input_no_longer_than_a_bound_after_a_stop() {
    let limits = Limits { connections_per_turn: 4, ..short_timeouts() };
    let mut sim = Sim::new(Box::new(Hello), limits);
    let clients = sim.crowd(40);
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    sim.turns(20);
    let idle = sim.accepted();
    sim.exchange(idle, "x\n");
    sim.net().advance(60 * SECOND);
    let start = sim.reactor.now();
    while sim.closed(Reason::IdleTimeout) == 0 {
        clients.iter().for_each(|client| sim.send(*client, "z\n"));
        sim.net().advance(SECOND / 20);
        sim.turn();
        let waited = sim.reactor.now().since(start);
        assert!(waited < 2 * SECOND + CATCH_UP_MAX + SECOND, "no deadline expires");
    }
    assert!(sim.is_ended(idle));
}

#[test]
fn activity_moves_the_idle_deadline_and_leaves_the_timer_wheel_alone() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 10 * SECOND, ..limits() });
    let client = sim.accepted();
    for _ in 0..100 {
        assert!(!sim.exchange(client, "x\n").is_empty());
        sim.pass(SECOND);
    }
    assert_eq!(sim.reactor.connections(), 1);
    assert!(
        sim.reactor.stats().timers_early <= 12,
        "{} early firings in 100 s",
        sim.reactor.stats().timers_early
    );
    sim.pass(10 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

#[test]
fn a_deadline_beyond_the_span_of_the_timer_wheel_holds() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 1000 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    sim.pass(999 * SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(2 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

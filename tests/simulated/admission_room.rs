//! Who may stay: silent connections while there is room, idle ones when slots run out, and offices
//! beside floods.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::{IDLE_MIN, Limits, SILENT_MAX};
use slabd::net::Net;
use slabd::net::sim::ClientId;
use slabd::service::hello::Hello;

use crate::sim::{SECOND, Sim, hub, limits};

/// The limits of a server with its defaults and 20,000 files.
fn defaults() -> Limits {
    Limits { max_connections: 19_936, ..Limits::default() }
}

/// Connects a client from an address. The server accepts it in this turn.
fn join(sim: &mut Sim, source: SocketAddr) -> ClientId {
    let address = sim.address;
    let client = sim.net().client_from(address, source).expect("room in the accept queue");
    sim.turn();
    client
}

fn v4(high: u8, low: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 1, high, low), port).into()
}

/// An address that the hub serves without a password.
fn local(low: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 1, 0, low), port).into()
}

fn is_served(sim: &mut Sim, client: ClientId) -> bool {
    let reply = sim.exchange(client, "PING\r\n");
    reply == "+PONG\r\n" || reply.ends_with("Hello, PING!\r\n")
}

fn hello(limits: Limits) -> Sim {
    Sim::new(Box::new(Hello), limits)
}

fn refused(sim: &Sim) -> u64 {
    sim.reactor.stats().refused.iter().sum()
}

/// A pool connects early and speaks late. Meanwhile, others come and go at the same address and at
/// others.
#[test]
fn a_pool_of_2000_early_connections_is_served_after_a_minute() {
    for own in [true, false] {
        let mut sim = hello(defaults());
        let source = |port| match own {
            true => (Ipv4Addr::LOCALHOST, port).into(),
            false => v4(0, 1, port),
        };
        let pool: Vec<ClientId> = (0..2000).map(|port| join(&mut sim, source(port))).collect();
        for second in 0..60 {
            sim.pass(SECOND);
            for other in [source(10_000 + second), v4(1, second as u8, 1)] {
                let client = join(&mut sim, other);
                assert!(is_served(&mut sim, client), "after {second} s: {other}");
                sim.net().client_close(client);
            }
        }
        assert!(pool.iter().all(|client| is_served(&mut sim, *client)));
        assert_eq!((refused(&sim), sim.reactor.connections()), (0, 2000));
        // They may also be idle for as long as they like.
        sim.pass(24 * 3600 * SECOND);
        assert!(pool.iter().all(|client| is_served(&mut sim, *client)));
    }
}

/// Below half of the silent set and of the slots, nobody is closed. From there on, the oldest are,
/// until there is room again.
#[test]
fn overdue_silent_connections_are_closed_only_from_half_of_the_set_or_the_slots_on() {
    for (count, max_silent, max_connections, left) in [
        (4, 10, 1000, 4),
        (5, 10, 1000, 4),
        (6, 10, 1000, 4),
        (4, 1000, 10, 4),
        (5, 1000, 10, 4),
        (6, 1000, 10, 4),
    ] {
        let timeout = 2 * SECOND;
        let caps =
            Limits { max_silent, max_connections, first_message_timeout: timeout, ..limits() };
        let mut sim = Sim::new(Box::new(Hello), caps);
        let clients: Vec<ClientId> = (0..count)
            .map(|_| {
                sim.pass(SECOND / 100);
                sim.accepted()
            })
            .collect();
        sim.pass(timeout - SECOND / 10);
        assert_eq!(sim.reactor.connections(), count, "{count} of {max_silent}");
        sim.pass(100 * SECOND);
        assert_eq!(sim.reactor.connections(), left, "{count} of {max_silent}");
        let closed = (count - left) as u64;
        assert_eq!(sim.closed(Reason::FirstMessageTimeout), closed);
        for (index, client) in clients.iter().enumerate() {
            assert_eq!(sim.is_ended(*client), (index as u64) < closed, "the oldest are closed");
        }
        // A newcomer may cause pressure. Then the oldest is overdue at once.
        sim.accepted();
        sim.pass(SECOND / 10);
        assert_eq!(sim.reactor.connections(), left, "{count} of {max_silent}");
        assert!(sim.is_ended(clients[closed as usize]));
    }
}

/// A stop of the process counts for nobody.
#[test]
fn silent_connections_are_not_overdue_after_a_stop() {
    let caps = Limits { max_silent: 2, first_message_timeout: 2 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let client = sim.accepted();
    sim.pass(SECOND);
    sim.net().advance(600 * SECOND);
    sim.pass(SECOND / 2);
    assert!(sim.exchange(client, "x\n").ends_with("Hello, x!\r\n"));
}

/// Bytes that have begun must end. With room, a silent client still has the whole time for its
/// first message once it begins.
#[test]
fn a_first_message_that_begins_late_has_its_whole_time() {
    let mut sim = Sim::new(Box::new(Hello), Limits { message_timeout: 3 * SECOND, ..limits() });
    let (client, dribbler) = (sim.accepted(), sim.accepted());
    sim.pass(500 * SECOND);
    sim.send(client, "x");
    for _ in 0..29 {
        sim.send(dribbler, "x");
        sim.pass(SECOND / 10);
    }
    assert!(sim.exchange(client, "\n").ends_with("Hello, x!\r\n"));
    sim.pass(SECOND / 5);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
    assert!(sim.is_ended(dribbler));
}

/// Under pressure, the first message has its deadline from accept, whatever parts have come.
#[test]
fn dribblers_do_not_shield_the_overdue_behind_them() {
    let caps = Limits { max_silent: 4, first_message_timeout: 2 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let dribbler = sim.accepted();
    sim.pass(SECOND);
    sim.send(dribbler, "x");
    sim.accepted();
    sim.accepted();
    sim.pass(2 * SECOND + SECOND / 10);
    assert!(sim.is_ended(dribbler), "the oldest");
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::FirstMessageTimeout)), (1, 2));
}

/// The longest idle connection of the source with most connections makes way. Subscribers stay.
#[test]
fn the_longest_idle_of_the_largest_source_makes_way() {
    let mut sim = hub(Limits { max_connections: 8, ..limits() });
    let listening = join(&mut sim, local(1, 100));
    sim.exchange(listening, "SUBSCRIBE a\r\n");
    let small = join(&mut sim, local(2, 1));
    assert!(is_served(&mut sim, small));
    sim.pass(SECOND);
    let large: Vec<ClientId> = (0..6).map(|port| join(&mut sim, local(1, port))).collect();
    for client in &large {
        sim.pass(SECOND / 10);
        assert!(is_served(&mut sim, *client));
    }
    let early = join(&mut sim, local(3, 1));
    assert!(sim.received(early).starts_with("-ERR max number of clients"), "nobody is idle");
    sim.pass(IDLE_MIN);
    assert!(is_served(&mut sim, large[0]));
    for (number, gone) in [(1, 1), (2, 2), (3, 3)] {
        let newcomer = join(&mut sim, local(10 + number, 1));
        assert!(is_served(&mut sim, newcomer), "{number}");
        assert_eq!(sim.closed(Reason::IdleEvicted), u64::from(number));
        assert!(sim.is_ended(large[gone]), "{gone}");
    }
    assert!(!sim.is_ended(listening) && is_served(&mut sim, small));
    assert!(is_served(&mut sim, large[0]), "it was active");
}

/// Newcomers need a moment to speak. An attacker cannot have more than a part of the slots for it.
#[test]
fn an_eighth_of_the_slots_of_an_idle_server_is_for_newcomers() {
    let mut sim = hello(Limits { max_connections: 64, ..limits() });
    let idle = sim.crowd(64);
    assert!(idle.iter().all(|client| is_served(&mut sim, *client)));
    sim.pass(10 * SECOND);
    let newcomers: Vec<ClientId> = (0..8)
        .map(|low| {
            sim.pass_grace();
            join(&mut sim, v4(3, low, 1))
        })
        .collect();
    assert!(newcomers.iter().all(|client| is_served(&mut sim, *client)));
    assert_eq!((sim.closed(Reason::IdleEvicted), sim.closed(Reason::Recycled)), (8, 0));
    sim.pass(10 * SECOND);
    // A silent flood.
    for number in 0..100 {
        sim.pass_grace();
        join(&mut sim, v4(4, number, 1));
    }
    assert_eq!((sim.closed(Reason::IdleEvicted), sim.closed(Reason::Recycled)), (16, 92));
}

/// A silent connection goes before an idle one, unless it has just come.
#[test]
fn silent_connections_make_way_before_idle_ones() {
    let mut sim = hub(Limits { max_connections: 4, ..limits() });
    let idle: Vec<ClientId> = (0..3).map(|_| sim.accepted()).collect();
    for client in &idle {
        assert!(is_served(&mut sim, *client));
        sim.pass(SECOND);
    }
    sim.pass(100 * SECOND);
    let silent = sim.accepted();
    sim.pass(IDLE_MIN + SECOND);
    let newcomer = sim.accepted();
    assert!(is_served(&mut sim, newcomer) && sim.is_ended(silent));
    assert_eq!(sim.closed(Reason::IdleEvicted), 0);
    let next = sim.accepted();
    assert!(is_served(&mut sim, next) && sim.is_ended(idle[0]));
}

/// A connection with unread input, unsent output or part of a message is in use.
#[test]
fn a_connection_in_use_never_makes_way() {
    let mut sim = hub(Limits { max_connections: 3, message_timeout: Duration::ZERO, ..limits() });
    let (begun, owing, unread) = (sim.accepted(), sim.accepted(), sim.accepted());
    assert!([begun, owing, unread].iter().all(|client| is_served(&mut sim, *client)));
    sim.send(begun, "PIN");
    sim.net().set_window(owing, 1);
    sim.exchange(owing, "ECHO 1234567\r\n");
    sim.pass(10 * SECOND);
    sim.send(unread, "PING\r\n");
    let newcomer = sim.accepted();
    assert!(sim.received(newcomer).starts_with("-ERR max number of clients"));
    assert_eq!(sim.closed(Reason::IdleEvicted), 0);
    assert_eq!(sim.received(unread), "+PONG\r\n");
}

/// Newcomers that speak once and stay evict each other, and no client that is in use.
#[test]
fn a_churn_of_newcomers_evicts_no_active_client() {
    let mut sim = hello(Limits { max_connections: 64, ..limits() });
    let active: Vec<ClientId> = (0..32).map(|low| join(&mut sim, v4(9, low, 1))).collect();
    for round in 0..600u16 {
        let newcomer = join(&mut sim, v4(round as u8 % 50, (round / 50) as u8, round));
        sim.send(newcomer, "PING\r\n");
        sim.pass(SECOND / 50);
        if round % 50 == 0 {
            assert!(active.iter().all(|client| is_served(&mut sim, *client)), "{round}");
        }
    }
    assert!(sim.closed(Reason::IdleEvicted) > 100);
    assert!(!active.iter().any(|client| sim.is_ended(*client)));
}

/// The sample finds an idle connection in a large table, too, and never walks it.
#[test]
fn a_full_server_of_thousands_gives_each_newcomer_a_slot() {
    let mut sim = hello(Limits { max_connections: 3000, ..limits() });
    let inside = sim.crowd(3000);
    inside.iter().for_each(|client| sim.send(*client, "PING\r\n"));
    sim.turns(8);
    sim.pass(IDLE_MIN + SECOND);
    for number in 0..200 {
        let newcomer = join(&mut sim, v4(1, number, 1));
        assert!(is_served(&mut sim, newcomer), "{number}");
    }
    assert_eq!((sim.closed(Reason::IdleEvicted), refused(&sim)), (200, 0));
}

/// Runs a flood of sources with one connection each, in which a silent connection lasts for
/// `lasts`. Meanwhile an honest source opens `size` connections at once, again and again, and
/// speaks 80 ms later. Returns the share of its connections that were served.
fn beside_a_flood(sim: &mut Sim, host: u8, size: u16, lasts: Duration) -> f64 {
    let (mut served, mut tries, mut attacker) = (0, 0, 0u32);
    let step = lasts / 48;
    let mut flood = |sim: &mut Sim, span: Duration| {
        for _ in 0..(span.as_nanos() / step.as_nanos()) {
            attacker += 1;
            let [.., high, low] = attacker.to_be_bytes();
            let source = (Ipv4Addr::new(10, 2 + host, high, low), 1).into();
            join(sim, source);
            sim.pass(step);
        }
    };
    flood(sim, 2 * lasts);
    for round in 0..20 {
        let port = |number| 1 + round * size + number;
        let clients: Vec<ClientId> =
            (0..size).map(|number| join(sim, v4(200, host, port(number)))).collect();
        flood(sim, Duration::from_millis(80));
        for client in clients {
            tries += 1;
            served += usize::from(is_served(sim, client));
            sim.net().client_reset(client);
        }
        flood(sim, Duration::from_millis(250));
    }
    served as f64 / tries as f64
}

/// An office behind one address is served like a lone client, during the flood and after it.
#[test]
fn an_office_of_eight_is_served_like_a_lone_client_beside_a_flood() {
    for (lasts, all) in [(200, true), (110, true), (40, false)] {
        let mut sim = hello(Limits { max_silent: 48, ..defaults() });
        let lasts = Duration::from_millis(lasts);
        let lone = beside_a_flood(&mut sim, 1, 1, lasts);
        let office = beside_a_flood(&mut sim, 2, 8, lasts);
        assert_eq!(lone == 1.0, all, "{lasts:?}: {lone}");
        assert!(office >= lone, "{lasts:?}: {office} of the office, {lone} of the lone");
        for (host, size) in [(1, 1), (2, 8), (2, 20)] {
            let clients: Vec<ClientId> =
                (0..size).map(|port| join(&mut sim, v4(200, host, 9000 + port))).collect();
            assert!(clients.iter().all(|client| is_served(&mut sim, *client)), "after the flood");
            clients.iter().for_each(|client| sim.net().client_reset(*client));
        }
        assert_eq!(refused(&sim), 0);
    }
}

/// A flood from a whole /48 takes places of its own, and an honest source of it is served.
#[test]
fn a_flood_of_one_48_evicts_itself() {
    let caps = Limits {
        max_silent: 64,
        max_silent_per_source: 2,
        first_message_timeout: Duration::ZERO,
        ..defaults()
    };
    let mut sim = hello(caps);
    sim.address = sim.reactor.listen("[::1]:0".parse().unwrap(), 128, 0).unwrap();
    let v6 = |network: u16, part: u16, port: u16| -> SocketAddr {
        (Ipv6Addr::new(0x2001, 0xdb8, network, part, 0, 0, 0, 1), port).into()
    };
    let patient: Vec<ClientId> = (0..10)
        .map(|number| match number % 2 {
            0 => join(&mut sim, v6(2, number, 1)),
            _ => join(&mut sim, v6(3 + number, 0, 1)),
        })
        .collect();
    for part in 0..2000 {
        join(&mut sim, v6(1, part, 1));
        sim.pass_grace();
        if part % 100 == 0 {
            let honest = join(&mut sim, v6(1, 9999, 2 + part));
            sim.pass_grace();
            assert!(is_served(&mut sim, honest), "an honest source of the same network, {part}");
            sim.net().client_reset(honest);
        }
    }
    assert!(patient.iter().all(|client| !sim.is_ended(*client)), "others may stay silent");
    assert!(sim.reactor.connections() <= 34, "{}", sim.reactor.connections());
    assert_eq!(refused(&sim), 0);
}

/// Thousands that are overdue at once are closed and reaped in parts.
#[test]
fn a_reap_of_thousands_keeps_within_the_budgets_of_a_turn() {
    let caps = Limits {
        max_connections: 9000,
        max_silent: SILENT_MAX,
        first_message_timeout: SECOND,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Hello), caps);
    sim.crowd(8000);
    let started = sim.reactor.stats().turns;
    let (mut before, mut largest) = (8000, 0);
    sim.pass(SECOND - SECOND / 50);
    for _ in 0..400 {
        let now = sim.net().now();
        sim.turn_until(now + SECOND / 100);
        largest = largest.max(before - sim.reactor.connections());
        before = sim.reactor.connections();
    }
    assert!(before < 4500, "{before} are left, half of the slots");
    assert!(largest <= 256, "{largest} in one turn");
    assert!(sim.reactor.stats().turns > started);
}

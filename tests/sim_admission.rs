//! Who comes in, when the house is full, files run out or the kernel fails; and events that come too late.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use slabd::admission::Gate;
use slabd::limits::Limits;
use slabd::net::Ready;
use slabd::net::sim::ClientId;
use slabd::service::hello::Hello;
use slabd::token::Generation;
use slabd::token::Token;

use sim::{SECOND, Sim, limits};

#[test]
fn a_full_house_waits_in_the_accept_queue_and_moves_up() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 3, ..limits() });
    let clients: Vec<ClientId> = (0..5).map(|_| sim.client()).collect();
    sim.turns(5);
    assert_eq!((sim.reactor.connections(), sim.reactor.gate()), (3, Gate::Full));
    assert_eq!(sim.received(clients[3]), "");
    sim.net().client_close(clients[0]);
    sim.turns(3);
    assert_eq!(sim.received(clients[3]), "Hello\r\n");
    assert_eq!(sim.received(clients[4]), "");
}

#[test]
fn running_out_of_files_is_retried_by_timer_and_does_not_spin() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let inside = sim.accepted();
    let files = sim.net().open_files();
    sim.net().set_file_limit(files);
    let waiting = sim.client();
    let turns = sim.reactor.stats().turns;
    sim.pass(10 * SECOND);
    assert_eq!(sim.reactor.gate(), Gate::Exhausted);
    let spent = sim.reactor.stats().turns - turns;
    assert!(spent <= 250, "{spent} turns in 10 s of retries every 100 ms");
    assert_eq!(sim.exchange(inside, "x\n"), "Hello\r\nHello, x!\r\n", "those inside go on");
    // No edge tells that a file is free: the timer finds out.
    sim.net().set_file_limit(100);
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(waiting), "Hello\r\n");
}

#[test]
fn a_connection_given_up_before_it_was_accepted_does_not_stop_the_listener() {
    for errno in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::ENOBUFS, libc::EMFILE, libc::EINVAL] {
        let mut sim = Sim::new(Box::new(Hello), limits());
        sim.net().fail_accepts(errno, 3);
        let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
        sim.pass(SECOND);
        assert_eq!(sim.received(clients[3]), "Hello\r\n", "errno {errno}");
    }
}

#[test]
fn events_for_a_slots_previous_owner_miss() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let first = sim.accepted();
    sim.send(first, "x\n");
    sim.net().client_reset(first);
    sim.turn();
    assert_eq!(sim.reactor.connections(), 0);
    let second = sim.client();
    sim.turns(3);
    assert_eq!(sim.received(second), "Hello\r\n");
    // The first had generation 1 in slot 0, which the second has now.
    let stale = Ready { token: Token::connection(0, Generation::FIRST), readable: true, writable: true, read_on: true };
    let reads = sim.reactor.stats().work.reads;
    sim.net().inject(stale);
    sim.turn();
    assert_eq!(
        (sim.reactor.stats().work.reads, sim.reactor.stats().stale_events),
        (reads, 1),
        "nothing is read for it"
    );
    assert_eq!(sim.exchange(second, "mine\n"), "Hello, mine!\r\n");
}

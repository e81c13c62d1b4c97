//! Admission: a full server, the eviction of silent connections, and the slots of the operator.

use std::net::Ipv4Addr;
use std::time::Duration;

use slabd::admission::{Gate, Policy, Refusal};
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{Limits, RECYCLES_PER_TURN, TOLD_PER_TURN};
use slabd::net::sim::{ClientId, SimNet};
use slabd::reactor::Reactor;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, limits};

const FULL: &str = "error: max connections reached\r\n";

/// Returns a server whose slots are all taken by active clients, and these clients.
fn full_server(slots: usize, limits: Limits) -> (Sim, Vec<ClientId>) {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: slots, ..limits });
    let clients: Vec<ClientId> = (0..slots).map(|_| sim.accepted()).collect();
    for client in &clients {
        sim.exchange(*client, "x\n");
    }
    (sim, clients)
}

#[test]
fn a_full_server_answers_newcomers_and_reopens_when_slots_are_free() {
    for (slots, leaving) in [(3, 1), (32, 1), (64, 2)] {
        let (mut sim, inside) = full_server(slots, limits());
        let outside = sim.accepted();
        assert_eq!(sim.received(outside), FULL);
        assert_eq!((sim.reactor.connections(), sim.reactor.gate()), (slots, Gate::Full));
        for (left, client) in inside.iter().enumerate().take(leaving) {
            assert_eq!(sim.reactor.gate(), Gate::Full, "{left} of {slots} left");
            sim.net().client_close(*client);
            sim.turns(2);
        }
        let outside = sim.accepted();
        assert_eq!(sim.received(outside), "Hello\r\n", "{slots} slots");
        assert_eq!(sim.reactor.stats().refused[Refusal::Full as usize], 1);
    }
}

#[test]
fn the_oldest_silent_connection_is_reset_for_a_newcomer() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 3, ..limits() });
    let clients: Vec<ClientId> = (0..4)
        .map(|_| {
            sim.pass(SECOND / 10);
            sim.accepted()
        })
        .collect();
    assert_eq!(sim.closed(Reason::Recycled), 1, "the fourth connection is one above the limit");
    assert!(sim.is_ended(clients[0]));
    assert!(sim.exchange(clients[1], "x\n").ends_with("Hello, x!\r\n"));
    let newcomer = sim.accepted();
    assert_eq!(sim.closed(Reason::Recycled), 1, "an active client left room in the silent set");
    sim.pass(SECOND / 10);
    sim.accepted();
    assert!(sim.is_ended(clients[2]), "the oldest silent connection");
    assert!(sim.exchange(clients[1], "y\n").ends_with("Hello, y!\r\n"));
    assert!(sim.exchange(newcomer, "z\n").ends_with("Hello, z!\r\n"));
    assert!(
        sim.reactor.stats().eviction_age_ticks >= 6,
        "{}",
        sim.reactor.stats().eviction_age_ticks
    );
}

#[test]
fn a_full_server_evicts_a_silent_connection_before_it_refuses_a_newcomer() {
    let (mut sim, inside) = full_server(5, Limits { max_silent: 100, ..limits() });
    sim.net().client_close(inside[0]);
    sim.turns(2);
    let silent = sim.accepted();
    let at_once = sim.accepted();
    assert_eq!(sim.received(at_once), FULL, "the silent connection is too young to be evicted");
    sim.pass_grace();
    let newcomer = sim.accepted();
    assert!(sim.is_ended(silent));
    assert!(sim.exchange(newcomer, "x\n").ends_with("Hello, x!\r\n"));
    let late = sim.accepted();
    assert_eq!(sim.received(late), FULL, "all connections are active");
}

/// Connects this many silent clients.
fn flood(sim: &mut Sim, count: usize) {
    for _ in 0..count {
        sim.accepted();
        sim.pass_grace();
    }
}

/// An honest client sends its first message after five more clients of the flood have connected.
#[test]
fn only_recycling_serves_honest_clients_during_a_flood() {
    for (policy, all) in
        [(Policy::Recycle, true), (Policy::Refuse, false), (Policy::RandomDrop, false)]
    {
        let caps =
            Limits { admission: policy, max_silent: 20, penalty: Duration::ZERO, ..limits() };
        let mut sim = Sim::new(Box::new(Hello), caps);
        let mut served = 0;
        for _ in 0..50 {
            flood(&mut sim, 5);
            let honest = sim.accepted();
            flood(&mut sim, 5);
            served += usize::from(sim.exchange(honest, "x\n").ends_with("Hello, x!\r\n"));
        }
        assert_eq!(served == 50, all, "{policy}: {served} of 50");
        assert!(all || served < 25, "{policy}: {served} of 50");
    }
}

#[test]
fn a_dry_run_counts_evictions_and_refusals_and_closes_nothing() {
    let caps = Limits {
        admission_dry_run: true,
        max_silent: 3,
        max_connections_per_source: 8,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let clients: Vec<ClientId> = (0..10).map(|port| sim.accepted_from(1, 1000 + port)).collect();
    assert!(clients.iter().all(|client| sim.received(*client) == "Hello\r\n"));
    let stats = sim.reactor.stats();
    assert_eq!((stats.recycled, stats.refused[Refusal::SourceConnections as usize]), (5, 2));
    assert_eq!((sim.closed(Reason::Recycled), sim.reactor.connections()), (0, 10));
}

/// Eight slots are reserved for the operator, whose listener is not subject to admission.
#[test]
fn the_operator_gets_a_slot_when_the_server_is_full() {
    let (mut sim, _inside) = full_server(40, limits());
    let operator = sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    let outside = sim.accepted();
    assert_eq!(sim.received(outside), FULL);
    sim.reactor.set_limits(Limits { max_connections: 48, max_silent: 1, ..limits() });
    let outside = sim.accepted();
    assert_eq!(sim.received(outside), FULL, "the eight new slots are reserved");
    for number in 1..=9 {
        let client = sim.net().client(operator).unwrap();
        sim.turns(2);
        assert_eq!(sim.received(client), "Hello\r\n", "operator {number}");
        assert_eq!(sim.closed(Reason::Recycled), u64::from(number == 9));
    }
    assert_eq!(sim.reactor.connections(), 48);
}

/// Eight slots are reserved for the operator. Other clients get all other slots, even if the
/// operator holds connections.
#[test]
fn operator_connections_take_no_slots_from_other_clients() {
    for operators in [0, 1, 8] {
        let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 40, ..limits() });
        let address =
            sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
        let theirs: Vec<ClientId> =
            (0..operators).map(|_| sim.net().client(address).unwrap()).collect();
        sim.turns(2);
        assert!(theirs.iter().all(|client| sim.received(*client) == "Hello\r\n"));
        let others = 32;
        let clients: Vec<ClientId> = (0..others).map(|_| sim.accepted()).collect();
        for client in &clients {
            sim.exchange(*client, "x\n");
        }
        assert_eq!(sim.reactor.connections(), operators + others);
        let outside = sim.accepted();
        assert_eq!(sim.received(outside), FULL, "with {operators} operators");
        // One client leaves, and a newcomer gets its slot.
        sim.net().client_close(clients[0]);
        sim.turns(2);
        let newcomer = sim.accepted();
        assert_eq!(sim.received(newcomer), "Hello\r\n", "with {operators} operators");
        theirs.iter().for_each(|client| sim.net().client_close(*client));
        sim.turns(2);
        assert_eq!(sim.reactor.connections(), others);
    }
}

#[test]
fn evictions_per_turn_are_bounded_and_the_rest_is_carried() {
    let mut sim =
        Sim::new(Box::new(Hello), Limits { max_silent: 1, penalty: Duration::ZERO, ..limits() });
    sim.reactor.set_limits(Limits { max_silent: 100, ..limits() });
    flood(&mut sim, 60);
    sim.reactor.set_limits(Limits { max_silent: 1, penalty: Duration::ZERO, ..limits() });
    for _ in 0..50 {
        sim.client();
    }
    sim.turn();
    assert_eq!(sim.closed(Reason::Recycled), RECYCLES_PER_TURN as u64);
    sim.turns(4);
    assert_eq!(sim.closed(Reason::Recycled), 50);
}

/// The oldest silent connection stays at the front of the queue, so entries behind it could pile
/// up.
#[test]
fn active_connections_leave_no_entries_in_the_silent_set() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    sim.accepted();
    for _ in 0..5000 {
        let client = sim.client();
        sim.send(client, "x\n");
        sim.turn();
        sim.net().client_reset(client);
        sim.turn();
    }
    assert!(sim.reactor.ledger().tables < 64 * 1024, "{:?}", sim.reactor.ledger());
}

/// A message before the password does not make a connection active.
#[test]
fn a_client_without_the_password_stays_silent() {
    let password = Some(Secret(b"secret".to_vec().into()));
    let hub = Hub::new(&Options { password, ..Options::default() });
    let caps = Limits { max_silent: 2, first_message_timeout: 10 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(hub), caps);
    let (known, stranger) = (sim.accepted(), sim.accepted());
    assert_eq!(sim.exchange(known, "AUTH secret\r\n"), "+OK\r\n");
    assert!(sim.exchange(stranger, "PING\r\n").starts_with("-NOAUTH"));
    sim.pass_grace();
    for _ in 0..2 {
        sim.accepted();
    }
    assert!(sim.is_ended(stranger));
    sim.pass(15 * SECOND);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::FirstMessageTimeout)), (1, 2));
}

/// A local client that guesses passwords has the operator's address. The operator does not share
/// its rate of answers.
#[test]
fn wrong_passwords_of_other_clients_do_not_delay_the_operator() {
    let password = Some(Secret(b"secret".to_vec().into()));
    let mut sim =
        Sim::new(Box::new(Hub::new(&Options { password, ..Options::default() })), limits());
    let address = sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    for number in 0..5 {
        let guesser = sim.accepted();
        let answer = sim.exchange(guesser, format!("AUTH guess{number}\r\n"));
        assert_eq!(answer.starts_with("-WRONGPASS"), number == 0);
    }
    let operator = sim.net().client(address).unwrap();
    sim.turn();
    assert!(sim.exchange(operator, "AUTH typo\r\n").starts_with("-WRONGPASS"));
    assert_eq!(sim.exchange(operator, "AUTH secret\r\n"), "+OK\r\n");
    // RESET does not take the operator's privilege.
    assert_eq!(sim.exchange(operator, "RESET\r\n"), "+RESET\r\n");
    assert_eq!(sim.exchange(operator, "AUTH secret\r\n"), "+OK\r\n");
}

#[test]
fn answers_to_refused_newcomers_are_bounded_per_turn() {
    let (mut sim, _inside) = full_server(10, limits());
    let late: Vec<ClientId> = (0..40).map(|_| sim.client()).collect();
    sim.turn();
    let told = late.iter().filter(|client| sim.received(**client) == FULL).count();
    assert_eq!(told, TOLD_PER_TURN);
    assert_eq!(sim.reactor.stats().refused[Refusal::Full as usize], 40);
}

/// The server resets a newcomer without an answer when the silent set is full.
#[test]
fn a_newcomer_reset_without_an_answer_takes_nothing_of_the_answer_budget() {
    let caps = Limits {
        admission: Policy::Refuse,
        max_silent: 1,
        max_connections_per_source: 1,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let inside = sim.accepted_from(1, 1000);
    sim.exchange(inside, "x\n");
    sim.accepted_from(2, 1000);
    let address = sim.address;
    let mut connect = |last: u8| {
        sim.net().client_from(address, (Ipv4Addr::new(10, 0, 0, last), 2000).into()).unwrap()
    };
    for last in 3..3 + 2 * TOLD_PER_TURN as u8 {
        connect(last);
    }
    let again = connect(1);
    sim.turn();
    assert_eq!(sim.reactor.stats().refused[Refusal::SilentSet as usize], 2 * TOLD_PER_TURN as u64);
    assert_eq!(sim.received(again), "error: max connections per source reached\r\n");
}

/// The budget includes the kernel's memory for each slot. At seven eighths of the budget, a
/// newcomer would cause the eviction of the largest connection.
#[test]
fn the_memory_budget_limits_the_number_of_slots() {
    let mut sim = Sim::new(
        Box::new(Hello),
        Limits { memory_budget: 1000 * 8 / 7, max_connections: 60, ..limits() },
    );
    let slots = 1000 / Reactor::<SimNet>::BYTES_PER_SLOT.max(1);
    for _ in 0..60 {
        let client = sim.accepted();
        sim.exchange(client, "x\n");
    }
    assert!(
        sim.reactor.connections() <= slots && sim.reactor.connections() >= slots / 2,
        "{}",
        sim.reactor.connections()
    );
    assert_eq!(sim.closed(Reason::MemoryBudget), 0);
    assert!(sim.reactor.stats().refused[Refusal::Memory as usize] > 20);
    let outside = sim.accepted();
    assert_eq!(sim.received(outside), "error: memory budget reached\r\n");
}

#[test]
fn failed_accepts_are_counted_by_the_missing_resource() {
    let errors = [(libc::ECONNABORTED, 3, 0), (libc::EPERM, 3, 0), (libc::ENOMEM, 0, 3)];
    for (errno, aborted, exhausted) in errors {
        let mut sim = Sim::new(Box::new(Hello), limits());
        sim.net().fail_accepts(errno, 3);
        (0..4).for_each(|_| _ = sim.client());
        sim.pass(SECOND);
        let stats = sim.reactor.stats();
        let counted = (stats.accept_aborted, stats.accept_exhausted);
        assert_eq!(counted, (aborted, exhausted), "errno {errno}");
    }
}

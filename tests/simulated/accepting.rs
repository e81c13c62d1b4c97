//! Accepting when the kernel fails, and events that arrive late: the loop neither spins nor gives
//! up a listener, and no event reaches the wrong connection.

use slabd::admission::Gate;
use slabd::limits::{ACCEPT_FAILURES, Limits, SocketOptions};
use slabd::net::Ready;
use slabd::net::sim::{ClientId, End};
use slabd::service::hello::Hello;
use slabd::token::{Generation, Token};

use crate::sim::{SECOND, Sim, limits};

#[test]
fn an_accept_that_found_no_file_is_retried_by_timer() {
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
    assert_eq!(
        sim.exchange(inside, "x\n"),
        "Hello\r\nHello, x!\r\n",
        "an accepted client is served"
    );
    assert_eq!(sim.net().client_saw(waiting), End::Reset, "the newcomer is shed");
    assert_eq!(sim.reactor.stats().accept_shed, 1);
    // No edge announces a free file, so the retry timer finds it.
    let waiting = sim.client();
    sim.net().set_file_limit(100);
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(waiting), "Hello\r\n");
}

/// A flood that finds no file must not cost more processor time than the retry timer grants.
#[test]
fn each_retry_without_files_sheds_one_turns_budget_of_newcomers() {
    for errno in [libc::EMFILE, libc::ENFILE] {
        let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn: 10, ..limits() });
        sim.net().fail_accepts(errno, 2);
        let clients: Vec<ClientId> = (0..25).map(|_| sim.client()).collect();
        sim.turns(5);
        assert_eq!(sim.reactor.stats().accept_shed, 10);
        sim.pass(SECOND / 5);
        assert_eq!(
            (sim.reactor.stats().accept_shed, sim.reactor.stats().accept_exhausted),
            (20, 2)
        );
        let reset =
            clients.iter().filter(|&&client| sim.net().client_saw(client) == End::Reset).count();
        assert_eq!(reset, 20);
        sim.pass(SECOND / 5);
        assert_eq!(sim.received(clients[24]), "Hello\r\n");
    }
}

/// The errors are all that accept(2) lists except EAGAIN, and one that it does not list.
#[test]
fn the_loop_does_not_spin_on_an_accept_error_and_accepts_again_afterwards() {
    let listed = [
        libc::EBADF,
        libc::ECONNABORTED,
        libc::EFAULT,
        libc::EINTR,
        libc::EINVAL,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ENOTSOCK,
        libc::EOPNOTSUPP,
        libc::EPERM,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENOSR,
        libc::ESOCKTNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ETIMEDOUT,
        libc::EACCES,
    ];
    for errno in listed {
        for accepts_per_turn in [1, 64] {
            let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn, ..limits() });
            let other = sim.reactor.listen("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
            // ECONNABORTED consumes a connection, so it ends with the accept queue.
            sim.net().fail_accepts(errno, if errno == libc::ECONNABORTED { 1 } else { 1_000_000 });
            let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
            let turns = sim.reactor.stats().turns;
            sim.pass(10 * SECOND);
            let spent = sim.reactor.stats().turns - turns;
            assert!(
                spent <= 2000,
                "errno {errno}, {accepts_per_turn} accepts per turn: {spent} turns in 10 s"
            );
            sim.net().succeed_in_accepts();
            let last = sim.client();
            sim.pass(SECOND / 5);
            // Every client that was neither aborted nor shed is served, and so is a newcomer.
            assert_eq!(sim.received(last), "Hello\r\n", "errno {errno}");
            let waiting =
                clients.iter().filter(|&&client| sim.net().client_saw(client) == End::Open);
            let waiting: Vec<ClientId> = waiting.copied().collect();
            assert!(
                waiting.len() >= 3 || [libc::EMFILE, libc::ENFILE].contains(&errno),
                "errno {errno}"
            );
            assert!(
                waiting.iter().all(|client| sim.received(*client) == "Hello\r\n"),
                "errno {errno}"
            );
            let client = sim.net().client(other).unwrap();
            sim.turns(2);
            assert_eq!(sim.received(client), "Hello\r\n", "errno {errno}: the other listener");
        }
    }
}

#[test]
fn a_failing_listener_does_not_delay_another() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let other = sim.reactor.listen("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    sim.net().fail_accepts(libc::EPERM, ACCEPT_FAILURES as usize);
    let forbidden = sim.client();
    sim.turn();
    let client = sim.net().client(other).unwrap();
    sim.turn();
    assert_eq!(
        (sim.received(forbidden).as_str(), sim.received(client).as_str()),
        ("", "Hello\r\n")
    );
    assert_eq!(sim.reactor.stats().accept_aborted, u64::from(ACCEPT_FAILURES));
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(forbidden), "Hello\r\n");
}

#[test]
fn an_error_of_one_pending_connection_does_not_stop_the_listener() {
    for errno in
        [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL]
    {
        let mut sim = Sim::new(Box::new(Hello), limits());
        sim.net().fail_accepts(errno, 3);
        let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
        sim.pass(SECOND);
        assert_eq!(sim.received(clients[3]), "Hello\r\n", "errno {errno}");
        assert_eq!(sim.reactor.stats().accept_shed, 0, "errno {errno}: shedding does not help");
    }
}

#[test]
fn new_limits_change_the_socket_options_of_every_listener() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    assert_eq!(sim.net().socket_options(), SocketOptions::default());
    let sockets = SocketOptions { user_timeout: SECOND, ..SocketOptions::default() };
    sim.reactor.set_limits(Limits { sockets, ..limits() });
    assert_eq!(sim.net().socket_options(), sockets);
}

#[test]
fn an_event_for_the_previous_owner_of_a_slot_is_ignored() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let first = sim.accepted();
    sim.send(first, "x\n");
    sim.net().client_reset(first);
    sim.turn();
    assert_eq!(sim.reactor.connections(), 0);
    let second = sim.client();
    sim.turns(3);
    assert_eq!(sim.received(second), "Hello\r\n");
    // The first client had generation 1 in slot 0. The second client has that slot now.
    let stale = Ready {
        token: Token::connection(0, Generation::FIRST),
        readable: true,
        writable: true,
        read_on: true,
    };
    let reads = sim.reactor.stats().work.reads;
    sim.net().inject(stale);
    sim.turn();
    assert_eq!(
        (sim.reactor.stats().work.reads, sim.reactor.stats().stale_events),
        (reads, 1),
        "the loop reads nothing for a stale event"
    );
    assert_eq!(sim.exchange(second, "mine\n"), "Hello, mine!\r\n");
}

/// A refused newcomer had a token in the poll system, too.
#[test]
fn an_event_for_a_refused_newcomer_does_not_reach_the_next_one() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections_per_source: 1, ..limits() });
    let first = sim.accepted();
    sim.client();
    sim.turn();
    assert_eq!(sim.reactor.stats().refused.iter().sum::<u64>(), 1);
    sim.net().client_close(first);
    sim.turn();
    let next = sim.accepted();
    assert_eq!(sim.received(next), "Hello\r\n");
    // The newcomer would have had slot 1, or the second generation of slot 0.
    let second = Generation::FIRST.next();
    for slot in [0, 1] {
        sim.net().inject(Ready {
            token: Token::connection(slot, second),
            readable: true,
            writable: true,
            read_on: true,
        });
    }
    sim.turn();
    assert_eq!(sim.reactor.stats().stale_events, 2);
}

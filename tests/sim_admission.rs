//! Who comes in, when the house is full, files run out or the kernel fails; and events that come too late.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use std::net::Ipv4Addr;
use std::time::Duration;

use slabd::admission::{Gate, Policy, Refusal};
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{ACCEPT_FAILURES, Limits, RECYCLES_PER_TURN, SocketOptions, TOLD_PER_TURN};
use slabd::net::Ready;
use slabd::net::sim::{ClientId, End, SimNet};
use slabd::reactor::Reactor;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret};
use slabd::token::Generation;
use slabd::token::Token;

use sim::{SECOND, Sim, limits};

const FULL: &str = "error: max connections reached\r\n";

/// Of so many slots, each taken by one who has spoken.
fn full_house(slots: usize, limits: Limits) -> (Sim, Vec<ClientId>) {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: slots, ..limits });
    let clients: Vec<ClientId> = (0..slots).map(|_| sim.accepted()).collect();
    for client in &clients {
        sim.exchange(*client, "x\n");
    }
    (sim, clients)
}

/// Connects from the address `10.0.0.<last>`, and is accepted or refused.
fn from(sim: &mut Sim, last: u8, port: u16) -> ClientId {
    let address = sim.address;
    let client = sim.net().client_from(address, (Ipv4Addr::new(10, 0, 0, last), port).into()).unwrap();
    sim.turns(2);
    a_moment_passes(sim);
    client
}

/// Long enough for whoever is honest to have said something.
fn a_moment_passes(sim: &mut Sim) {
    sim.pass(SECOND / 50);
}

fn is_reset(sim: &mut Sim, client: ClientId) -> bool {
    sim.turns(2);
    sim.net().client_saw(client) != End::Open
}

#[test]
fn a_full_house_says_so_and_opens_when_a_few_slots_are_free() {
    for (slots, leaving) in [(3, 1), (32, 1), (64, 2)] {
        let (mut sim, inside) = full_house(slots, limits());
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
fn who_has_been_silent_longest_makes_way_and_who_has_spoken_stays() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 3, ..limits() });
    let clients: Vec<ClientId> = (0..4)
        .map(|_| {
            sim.pass(SECOND / 10);
            sim.accepted()
        })
        .collect();
    assert_eq!(sim.closed(Reason::Recycled), 1, "one above the limit");
    assert!(is_reset(&mut sim, clients[0]));
    assert!(sim.exchange(clients[1], "x\n").ends_with("Hello, x!\r\n"));
    let newcomer = sim.accepted();
    assert_eq!(sim.closed(Reason::Recycled), 1, "one has spoken: there is room");
    sim.pass(SECOND / 10);
    sim.accepted();
    assert!(is_reset(&mut sim, clients[2]), "the oldest of those who have not");
    assert!(sim.exchange(clients[1], "y\n").ends_with("Hello, y!\r\n"));
    assert!(sim.exchange(newcomer, "z\n").ends_with("Hello, z!\r\n"));
    assert!(sim.reactor.stats().eviction_age_ticks >= 6, "{}", sim.reactor.stats().eviction_age_ticks);
}

#[test]
fn a_full_slab_recycles_the_silent_before_it_refuses() {
    let (mut sim, inside) = full_house(5, Limits { max_silent: 100, ..limits() });
    sim.net().client_close(inside[0]);
    sim.turns(2);
    let silent = sim.accepted();
    let at_once = sim.accepted();
    assert_eq!(sim.received(at_once), FULL, "the other has had no time to speak");
    a_moment_passes(&mut sim);
    let newcomer = sim.accepted();
    assert!(is_reset(&mut sim, silent));
    assert!(sim.exchange(newcomer, "x\n").ends_with("Hello, x!\r\n"));
    let late = sim.accepted();
    assert_eq!(sim.received(late), FULL, "now all have spoken");
}

fn flood(sim: &mut Sim, count: usize) {
    for _ in 0..count {
        sim.accepted();
        a_moment_passes(sim);
    }
}

/// What a flood does to the three policies: the honest speak after five more newcomers.
#[test]
fn to_recycle_serves_the_honest_and_to_refuse_does_not() {
    for (policy, all) in [(Policy::Recycle, true), (Policy::Refuse, false), (Policy::RandomDrop, false)] {
        let caps = Limits { admission: policy, max_silent: 20, penalty: Duration::ZERO, ..limits() };
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
fn one_source_cannot_fill_the_silent_set() {
    let caps = Limits { max_silent: 10, max_silent_per_source: 3, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let flood: Vec<ClientId> = (0..20).map(|port| from(&mut sim, 1, 1000 + port)).collect();
    assert_eq!(sim.reactor.connections(), 6, "half of the set, and one");
    assert_eq!(sim.reactor.stats().refused[Refusal::SourceSilent as usize], 14);
    assert!(is_reset(&mut sim, flood[19]) && !is_reset(&mut sim, flood[0]));
    let other = from(&mut sim, 2, 1000);
    assert!(sim.exchange(other, "x\n").ends_with("Hello, x!\r\n"));
    assert_eq!(sim.closed(Reason::Recycled), 0);
}

#[test]
fn connections_of_one_source_at_the_cap_one_below_and_one_above() {
    for (count, refused) in [(2, 0), (3, 0), (4, 1)] {
        let mut sim = Sim::new(Box::new(Hello), Limits { max_connections_per_source: 3, ..limits() });
        for port in 0..count {
            let client = from(&mut sim, 1, 1000 + port);
            sim.exchange(client, "x\n");
        }
        assert_eq!(sim.reactor.stats().refused[Refusal::SourceConnections as usize], refused, "{count} connections");
        let other = from(&mut sim, 2, 1000);
        assert!(sim.exchange(other, "x\n").ends_with("Hello, x!\r\n"));
    }
}

#[test]
fn a_source_that_lets_three_deadlines_pass_is_refused_for_a_while() {
    let timeout = Limits { first_message_timeout: SECOND, penalty: 5 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), timeout);
    for port in 0..2 {
        from(&mut sim, 1, 1000 + port);
    }
    sim.pass(SECOND * 3 / 2);
    let again: Vec<ClientId> = (2..4).map(|port| from(&mut sim, 1, 1000 + port)).collect();
    assert!(again.iter().all(|client| sim.received(*client) == "Hello\r\n"), "two are not enough");
    sim.pass(SECOND * 3 / 2);
    let refused = from(&mut sim, 1, 1003);
    assert_eq!((sim.received(refused).as_str(), is_reset(&mut sim, refused)), ("", true));
    assert_eq!(sim.reactor.stats().refused[Refusal::Penalty as usize], 1);
    let other = from(&mut sim, 2, 1000);
    assert_eq!(sim.received(other), "Hello\r\n");
    sim.pass(20 * SECOND);
    let later = from(&mut sim, 1, 1004);
    assert_eq!(sim.received(later), "Hello\r\n", "it has served its time");
}

/// Ticks wrap: a time that has passed is to come again, 397 days later.
#[test]
fn a_penalty_that_is_over_stays_over() {
    let caps = Limits { first_message_timeout: SECOND, penalty: 20 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    from(&mut sim, 1, 1000);
    sim.pass(2 * SECOND);
    let refused = from(&mut sim, 1, 1001);
    assert_eq!(sim.received(refused), "");
    for _ in 0..2 {
        sim.pass(250 * 24 * 3600 * SECOND);
    }
    let later = from(&mut sim, 1, 1002);
    assert_eq!(sim.received(later), "Hello\r\n");
}

/// A flood from some sources is over soon: those whose silent connections make way again and again are refused for a while.
#[test]
fn sources_that_flood_are_refused_and_others_live_long_enough_to_speak() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 20, ..limits() });
    for round in 0..40 {
        for source in 1..=10 {
            from(&mut sim, source, 1000 + round);
        }
    }
    let refused = sim.reactor.stats().refused[Refusal::Penalty as usize];
    assert!(refused > 150, "{refused} of 400 refused");
    let recycled = sim.closed(Reason::Recycled);
    let honest = from(&mut sim, 100, 1000);
    for source in 1..=10 {
        for port in 2000..2005 {
            from(&mut sim, source, port);
        }
    }
    assert!(sim.exchange(honest, "x\n").ends_with("Hello, x!\r\n"));
    assert_eq!(sim.closed(Reason::Recycled), recycled + 1, "it made way for the honest one only");
}

#[test]
fn a_dry_run_counts_and_closes_nothing() {
    let caps = Limits { admission_dry_run: true, max_silent: 3, max_connections_per_source: 8, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let clients: Vec<ClientId> = (0..10).map(|port| from(&mut sim, 1, 1000 + port)).collect();
    assert!(clients.iter().all(|client| sim.received(*client) == "Hello\r\n"));
    let stats = sim.reactor.stats();
    assert_eq!((stats.recycled, stats.refused[Refusal::SourceConnections as usize]), (5, 2));
    assert_eq!((sim.closed(Reason::Recycled), sim.reactor.connections()), (0, 10));
}

/// All slots but eight are everybody's; the operator's listener is not subject to admission.
#[test]
fn the_operator_gets_in_when_all_is_full() {
    let (mut sim, _inside) = full_house(40, limits());
    let operator = sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    let outside = sim.accepted();
    assert_eq!(sim.received(outside), FULL);
    sim.reactor.set_limits(Limits { max_connections: 48, max_silent: 1, ..limits() });
    let outside = sim.accepted();
    assert_eq!(sim.received(outside), FULL, "the eight new slots are kept");
    for number in 1..=9 {
        let client = sim.net().client(operator).unwrap();
        sim.turns(2);
        let expected = if number <= 8 { "Hello\r\n" } else { FULL };
        assert_eq!(sim.received(client), expected, "operator {number}");
    }
}

/// The eight slots kept back are for the operator; the others get all that is left of them, whoever of the operator's is there.
#[test]
fn connections_of_the_operator_take_no_slots_from_others() {
    for operators in [0, 8, 9] {
        let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 40, ..limits() });
        let address = sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
        let theirs: Vec<ClientId> = (0..operators).map(|_| sim.net().client(address).unwrap()).collect();
        sim.turns(2);
        assert!(theirs.iter().all(|client| sim.received(*client) == "Hello\r\n"));
        let others = if operators > 8 { 31 } else { 32 };
        let clients: Vec<ClientId> = (0..others).map(|_| sim.accepted()).collect();
        for client in &clients {
            sim.exchange(*client, "x\n");
        }
        assert_eq!(sim.reactor.connections(), operators + others);
        let outside = sim.accepted();
        assert_eq!(sim.received(outside), FULL, "beside {operators}");
        // One of the others leaves, and another comes.
        sim.net().client_close(clients[0]);
        sim.turns(2);
        let newcomer = sim.accepted();
        assert_eq!(sim.received(newcomer), "Hello\r\n", "beside {operators}");
        theirs.iter().for_each(|client| sim.net().client_close(*client));
        sim.turns(2);
        assert_eq!(sim.reactor.connections(), others);
    }
}

/// Behind a proxy or a translator of addresses are many; what some of them do is not to be laid to all.
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
            let client = from(&mut sim, 1, 1000 + port);
            sim.exchange(client, "x\n");
        }
        let held = if refused { 6 } else { 8 };
        assert_eq!(sim.reactor.connections(), held, "connections of one source, trusted: {trusted:?}");
        for port in 0..8 {
            from(&mut sim, 2, 1000 + port);
        }
        let silent = if refused { 6 } else { 8 };
        assert_eq!(sim.reactor.connections(), held + silent, "silent ones of one source, trusted: {trusted:?}");
        let admission = &sim.reactor.metrics(&|title| title == "admission")[0];
        assert!(admission.counts().any(|count| count == ("sources", 2)), "{admission:?}");
        // All of the latter miss their deadline.
        sim.pass(2 * SECOND);
        let again = from(&mut sim, 2, 2000);
        assert_eq!(sim.received(again).is_empty(), refused, "trusted: {trusted:?}");
        assert_eq!(sim.reactor.stats().refused[Refusal::Penalty as usize], u64::from(refused));
    }
}

/// Else a flood of others would push it out: its connections are many because it is.
#[test]
fn of_a_trusted_source_no_other_is_preferred_when_the_oldest_make_way() {
    let trusted_sources = "10.0.0.1".parse().unwrap();
    let mut sim = Sim::new(Box::new(Hello), Limits { trusted_sources, max_silent: 4, ..limits() });
    let oldest = from(&mut sim, 2, 1000);
    let proxied: Vec<ClientId> = (0..3).map(|port| from(&mut sim, 1, 1000 + port)).collect();
    from(&mut sim, 3, 1000);
    assert!(is_reset(&mut sim, oldest));
    assert!(!proxied.iter().any(|client| is_reset(&mut sim, *client)));
}

#[test]
fn recycling_is_bounded_in_a_turn_and_the_rest_is_carried() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_silent: 1, penalty: Duration::ZERO, ..limits() });
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
    assert_eq!(sim.net().client_saw(waiting), End::Reset, "who finds no file is told so");
    assert_eq!(sim.reactor.stats().accept_shed, 1);
    // No edge tells that a file is free: the timer finds out.
    let waiting = sim.client();
    sim.net().set_file_limit(100);
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(waiting), "Hello\r\n");
}

/// A flood of connections that find no file must not buy more processor time than the timer grants.
#[test]
fn without_files_a_turns_worth_of_those_who_wait_is_turned_away_at_each_retry() {
    for errno in [libc::EMFILE, libc::ENFILE] {
        let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn: 10, ..limits() });
        sim.net().fail_accepts(errno, 2);
        let clients: Vec<ClientId> = (0..25).map(|_| sim.client()).collect();
        sim.turns(5);
        assert_eq!(sim.reactor.stats().accept_shed, 10);
        sim.pass(SECOND / 5);
        assert_eq!((sim.reactor.stats().accept_shed, sim.reactor.stats().accept_exhausted), (20, 2));
        let reset = clients.iter().filter(|&&client| sim.net().client_saw(client) == End::Reset).count();
        assert_eq!(reset, 20);
        sim.pass(SECOND / 5);
        assert_eq!(sim.received(clients[24]), "Hello\r\n");
    }
}

/// All that accept(2) lists but EAGAIN, and one that it does not. A listener that can accept nothing must neither spin nor be given up.
#[test]
fn whatever_makes_accept_fail_the_loop_does_not_spin_and_goes_on_when_it_is_over() {
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
            // This one takes the connection with it, so it lasts no longer than the queue.
            sim.net().fail_accepts(errno, if errno == libc::ECONNABORTED { 1 } else { 1_000_000 });
            let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
            let turns = sim.reactor.stats().turns;
            sim.pass(10 * SECOND);
            let spent = sim.reactor.stats().turns - turns;
            assert!(spent <= 2000, "errno {errno}, {accepts_per_turn} a turn: {spent} turns in 10 s");
            sim.net().succeed_in_accepts();
            let last = sim.client();
            sim.pass(SECOND / 5);
            // Whoever was not taken along by the error, or reset for want of files, is served, and so is the next.
            assert_eq!(sim.received(last), "Hello\r\n", "errno {errno}");
            let waiting = clients.iter().filter(|&&client| sim.net().client_saw(client) == End::Open);
            let waiting: Vec<ClientId> = waiting.copied().collect();
            assert!(waiting.len() >= 3 || [libc::EMFILE, libc::ENFILE].contains(&errno), "errno {errno}");
            assert!(waiting.iter().all(|client| sim.received(*client) == "Hello\r\n"), "errno {errno}");
            let client = sim.net().client(other).unwrap();
            sim.turns(2);
            assert_eq!(sim.received(client), "Hello\r\n", "errno {errno}: the other listener");
        }
    }
}

/// One listener whose accepts are forbidden must not keep others from theirs.
#[test]
fn a_listener_that_fails_waits_by_itself() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let other = sim.reactor.listen("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    sim.net().fail_accepts(libc::EPERM, ACCEPT_FAILURES as usize);
    let forbidden = sim.client();
    sim.turn();
    let client = sim.net().client(other).unwrap();
    sim.turn();
    assert_eq!((sim.received(forbidden).as_str(), sim.received(client).as_str()), ("", "Hello\r\n"));
    assert_eq!(sim.reactor.stats().accept_aborted, u64::from(ACCEPT_FAILURES));
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(forbidden), "Hello\r\n");
}

#[test]
fn a_connection_given_up_before_it_was_accepted_does_not_stop_the_listener() {
    for errno in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL] {
        let mut sim = Sim::new(Box::new(Hello), limits());
        sim.net().fail_accepts(errno, 3);
        let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
        sim.pass(SECOND);
        assert_eq!(sim.received(clients[3]), "Hello\r\n", "errno {errno}");
        assert_eq!(sim.reactor.stats().accept_shed, 0, "errno {errno}: the spare file is no help against it");
    }
}

#[test]
fn options_of_sockets_change_for_every_listener_when_limits_do() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    assert_eq!(sim.net().socket_options(), SocketOptions::default());
    let sockets = SocketOptions { user_timeout: SECOND, ..SocketOptions::default() };
    sim.reactor.set_limits(Limits { sockets, ..limits() });
    assert_eq!(sim.net().socket_options(), sockets);
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

/// Who was refused has had a name in the poll system too.
#[test]
fn events_for_a_newcomer_that_was_refused_miss_the_next_one() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections_per_source: 1, ..limits() });
    let first = sim.accepted();
    sim.client();
    sim.turn();
    assert_eq!(sim.reactor.stats().refused.iter().sum::<u64>(), 1);
    sim.net().client_close(first);
    sim.turn();
    let next = sim.accepted();
    assert_eq!(sim.received(next), "Hello\r\n");
    // In slot 1, whose number the newcomer would have had, and with the generation after the first.
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

/// Connections that come and speak must leave nothing behind in the silent set while an old one stays in it.
#[test]
fn who_has_spoken_is_forgotten_though_one_stays_silent() {
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

/// A wrong word is a message, but no reason to keep its sender: before the password is given a connection stays silent.
#[test]
fn who_does_not_give_the_password_stays_silent() {
    let password = Some(Secret(b"secret".to_vec().into()));
    let hub = Hub::new(&Options { password, ..Options::default() });
    let caps = Limits { max_silent: 2, first_message_timeout: 10 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(hub), caps);
    let (known, stranger) = (sim.accepted(), sim.accepted());
    assert_eq!(sim.exchange(known, "AUTH secret\r\n"), "+OK\r\n");
    assert!(sim.exchange(stranger, "PING\r\n").starts_with("-NOAUTH"));
    a_moment_passes(&mut sim);
    for _ in 0..2 {
        sim.accepted();
    }
    assert!(is_reset(&mut sim, stranger));
    sim.pass(15 * SECOND);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::FirstMessageTimeout)), (1, 2));
}

/// Whoever guesses passwords on this machine shares the operator's address, and must not share the operator's listener with it.
#[test]
fn wrong_passwords_of_others_do_not_lock_the_operator_out() {
    let password = Some(Secret(b"secret".to_vec().into()));
    let mut sim = Sim::new(Box::new(Hub::new(&Options { password, ..Options::default() })), limits());
    let address = sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 16, 0).unwrap();
    let guesser = sim.accepted();
    let guess = |sim: &mut Sim, client, password: &str| sim.exchange(client, format!("AUTH {password}\r\n"));
    for _ in 0..5 {
        assert!(guess(&mut sim, guesser, "x").starts_with("-WRONGPASS"));
    }
    assert!(guess(&mut sim, guesser, "secret").starts_with("-ERR too many wrong passwords"));
    let operator = sim.net().client(address).unwrap();
    sim.turn();
    assert_eq!(guess(&mut sim, operator, "secret"), "+OK\r\n");
    // It stays the operator whatever it says.
    assert_eq!(sim.exchange(operator, "RESET\r\n"), "+RESET\r\n");
    assert_eq!(guess(&mut sim, operator, "secret"), "+OK\r\n");
}

#[test]
fn a_flood_of_newcomers_is_not_answered_one_by_one() {
    let (mut sim, _inside) = full_house(10, limits());
    let late: Vec<ClientId> = (0..40).map(|_| sim.client()).collect();
    sim.turn();
    let told = late.iter().filter(|client| sim.received(**client) == FULL).count();
    assert_eq!(told, TOLD_PER_TURN);
    assert_eq!(sim.reactor.stats().refused[Refusal::Full as usize], 40);
}

/// Who is reset without a word takes none of the answers that a turn has.
#[test]
fn a_silent_flood_does_not_use_up_what_others_are_told() {
    let caps = Limits { admission: Policy::Refuse, max_silent: 1, max_connections_per_source: 1, ..limits() };
    let mut sim = Sim::new(Box::new(Hello), caps);
    let inside = from(&mut sim, 1, 1000);
    sim.exchange(inside, "x\n");
    from(&mut sim, 2, 1000);
    let address = sim.address;
    let mut connect = |last: u8| sim.net().client_from(address, (Ipv4Addr::new(10, 0, 0, last), 2000).into()).unwrap();
    for last in 3..3 + 2 * TOLD_PER_TURN as u8 {
        connect(last);
    }
    let again = connect(1);
    sim.turn();
    assert_eq!(sim.reactor.stats().refused[Refusal::SilentSet as usize], 2 * TOLD_PER_TURN as u64);
    assert_eq!(sim.received(again), FULL);
}

/// The budget counts what the kernel has for each; at seven eighths of it the largest would be closed for a newcomer.
#[test]
fn there_are_no_more_slots_than_the_memory_budget_has_room_for() {
    let mut sim = Sim::new(Box::new(Hello), Limits { memory_budget: 1000 * 8 / 7, max_connections: 60, ..limits() });
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
    assert!(sim.reactor.stats().refused[Refusal::Full as usize] > 20);
}

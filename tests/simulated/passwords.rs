//! Passwords: the right one is accepted at once beside guessers, and guessers wait.

use std::time::Duration;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{GUESSES_PER_SECOND, Limits};
use slabd::net::sim::{ClientId, End};
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, limits};

/// Returns a loop that serves the hub with the password `secret`.
fn guarded(limits: Limits) -> Sim {
    let password = Some(Secret(b"secret"[..].into()));
    Sim::new(Box::new(Hub::new(&Options { password, ..Options::default() })), limits)
}

/// How a guesser uses its connections. All guessers have the address of the honest clients.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Guesser {
    /// Guesses again and again on 100 connections.
    Keeps,
    /// Guesses once on each connection, and leaves it open.
    Leaves,
    /// Guesses once on each connection, and closes it.
    Closes,
    /// Sends all guesses on one connection without waiting for answers.
    Pipelines,
    /// Sends the same wrong password on a new connection each time.
    Repeats,
}

/// Guesses `count` times. `number` is the number of the first guess.
fn guess(sim: &mut Sim, how: Guesser, clients: &mut Vec<ClientId>, number: usize, count: usize) {
    for number in number..number + count {
        let text = match how {
            Guesser::Repeats => "AUTH stale\r\n".into(),
            _ => format!("HELLO 3 AUTH default guess{number}\r\n"),
        };
        let most = match how {
            Guesser::Keeps => 100,
            Guesser::Pipelines => 1,
            _ => usize::MAX,
        };
        if clients.len() < most {
            clients.extend(sim.reactor.net_mut().client(sim.address));
        }
        let client = match how {
            Guesser::Keeps => clients[number % clients.len()],
            _ => *clients.last().unwrap(),
        };
        sim.send(client, text);
        if how == Guesser::Closes {
            sim.turns(2);
            sim.net().client_reset(client);
        }
    }
}

#[test]
fn the_right_password_is_accepted_at_once_beside_1000_wrong_ones_a_second() {
    const SECONDS: usize = 5;
    for how in
        [Guesser::Keeps, Guesser::Leaves, Guesser::Closes, Guesser::Pipelines, Guesser::Repeats]
    {
        let mut sim = guarded(Limits { max_connections: 2000, ..limits() });
        let (mut clients, mut answers) = (Vec::new(), 0);
        for step in 0..SECONDS * 50 {
            guess(&mut sim, how, &mut clients, step * 20, 20);
            if step % 5 == 0 {
                let honest = sim.client();
                let right = ["AUTH secret\r\n", "HELLO 2 AUTH default secret\r\n"][step % 2];
                sim.send(honest, right);
                sim.turns(3);
                let answer = sim.received(honest);
                assert!(answer.starts_with("+OK") || answer.contains("slabd"), "{how:?}: {answer}");
                sim.net().client_reset(honest);
            }
            sim.pass(SECOND / 50);
            for client in clients.iter().rev().take(400) {
                let got = sim.reactor.net_mut().client_received(*client);
                answers += String::from_utf8_lossy(&got).matches("WRONGPASS").count();
            }
        }
        let most = SECONDS * GUESSES_PER_SECOND as usize + 2;
        assert!(answers <= most || how == Guesser::Repeats, "{how:?}: {answers} answers");
        assert!(sim.closed(Reason::LoginTimeout) == 0, "{how:?}");
        assert!(sim.reactor.connections() <= 2 * limits().max_unauthenticated_per_source);
    }
}

#[test]
fn a_guesser_is_not_read_until_its_answer_and_others_do_not_wait() {
    let mut sim = guarded(limits());
    let (client, other) = (sim.accepted(), sim.accepted());
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(sim.exchange(client, "AUTH a\r\n"), wrong, "the first answer comes at once");
    assert_eq!(sim.exchange(client, "AUTH b\r\nAUTH secret\r\nPING\r\n"), "");
    assert_eq!(sim.exchange(other, "AUTH secret\r\n"), "+OK\r\n");
    sim.pass(Duration::from_millis(120));
    assert_eq!(sim.received(client), "");
    sim.pass(3 * Tick::LENGTH);
    assert_eq!(sim.received(client), format!("{wrong}+OK\r\n+PONG\r\n"));
    // An authenticated client need not guess.
    assert_eq!(sim.exchange(client, "AUTH c\r\n".repeat(5)), wrong.repeat(5));
    // A wrong password after RESET counts anew.
    assert_eq!(sim.exchange(client, "RESET\r\nAUTH d\r\n"), format!("+RESET\r\n{wrong}"));
}

#[test]
fn a_client_that_was_silent_for_longer_has_the_whole_time_to_authenticate() {
    for first in ["PING\r\n", "AUTH guess\r\n", "AUTH sec"] {
        let limits = Limits { first_message_timeout: 5 * SECOND, ..limits() };
        let mut sim = guarded(limits);
        let client = sim.accepted();
        (0..7).for_each(|_| sim.pass(SECOND));
        sim.send(client, first);
        (0..4).for_each(|_| sim.pass(SECOND));
        assert_eq!(sim.net().client_saw(client), End::Open, "{first:?}");
        let rest = if first.ends_with('\n') { "AUTH secret\r\n" } else { "ret\r\n" };
        assert!(sim.exchange(client, rest).ends_with("+OK\r\n"), "{first:?}");
    }
}

#[test]
fn the_time_to_authenticate_counts_from_accept_whatever_is_sent() {
    for text in [
        "PING\r\n",
        "AUTH guess\r\n",
        "HELLO 3 AUTH default guess\r\n",
        "RESET\r\n",
        "SUBSCRIBE a\r\n",
        "HELLO 3\r\n",
        "*1\r\n$100\r\nPI",
        "*1\r\n$6\r\nNOSUCH\r\n",
    ] {
        let limits = Limits { first_message_timeout: 5 * SECOND, ..limits() };
        let mut sim = guarded(Limits { penalty: 20 * SECOND, ..limits });
        let client = sim.accepted();
        sim.exchange(client, "PING\r\n");
        for _ in 0..4 {
            sim.send(client, text);
            sim.pass(SECOND);
        }
        sim.pass(SECOND - Duration::from_millis(1));
        assert_eq!(sim.net().client_saw(client), End::Open, "{text:?}");
        sim.pass(3 * Tick::LENGTH);
        assert_eq!(sim.closed(Reason::LoginTimeout), 1, "{text:?}");
        let next = sim.accepted();
        assert_eq!(sim.exchange(next, "AUTH secret\r\n"), "+OK\r\n", "{text:?} costs no penalty");
    }
}

#[test]
fn a_connection_that_guessed_wrong_makes_way_and_not_one_that_is_about_to_log_in() {
    let mut sim = guarded(Limits { max_unauthenticated_per_source: 4, ..limits() });
    let quiet: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    let asking: Vec<ClientId> = (0..3).map(|_| sim.accepted()).collect();
    for client in &asking {
        assert!(sim.exchange(*client, "PING\r\n").starts_with("-NOAUTH"));
    }
    let guessers: Vec<ClientId> = (0..20).map(|_| sim.accepted()).collect();
    for client in &guessers {
        sim.exchange(*client, format!("AUTH {client:?}\r\n"));
    }
    sim.turns(2);
    assert_eq!(sim.closed(Reason::Unauthenticated), 19);
    assert!(guessers[..19].iter().all(|client| sim.is_ended(*client)));
    sim.pass(SECOND);
    sim.received(guessers[19]);
    for client in quiet.iter().chain(&asking).chain(&guessers[19..]) {
        let answer = sim.exchange(*client, "AUTH secret\r\n");
        assert_eq!(answer, "+OK\r\n");
    }
}

#[test]
fn a_guesser_that_is_closed_while_it_waits_leaves_nothing_behind() {
    for reset in [true, false] {
        let mut sim = guarded(limits());
        let client = sim.accepted();
        sim.exchange(client, "AUTH a\r\nAUTH b\r\n");
        match reset {
            true => sim.net().client_reset(client),
            false => sim.net().client_shutdown(client),
        }
        sim.pass(2 * SECOND);
        sim.net().client_reset(client);
        sim.pass(SECOND);
        assert_eq!(sim.reactor.connections(), 0);
    }
}

#[test]
fn a_drain_does_not_wait_longer_than_its_timeout_for_a_guesser() {
    let mut sim = guarded(Limits { drain_timeout: SECOND, ..limits() });
    let client = sim.accepted();
    (0..8).for_each(|number| sim.send(client, format!("AUTH guess{number}\r\n")));
    sim.pass(2 * SECOND);
    sim.reactor.drain();
    sim.pass(SECOND + 3 * Tick::LENGTH);
    assert_eq!(sim.reactor.connections(), 0);
}

//! The hub on the simulated network: what order and budgets promise, where a turn's exact course matters.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use slabd::connection::Reason;
use slabd::limits::{CONSULTS_PER_TURN, FACTS_PER_TURN, Limits};
use slabd::net::sim::{ClientId, End};
use slabd::service::Options;
use slabd::service::hub::Hub;

use sim::{SECOND, Sim, limits};

fn hub(limits: Limits) -> Sim {
    Sim::new(Box::new(Hub::new(&Options::default())), limits)
}

/// One that has subscribed, its confirmation taken.
fn subscriber(sim: &mut Sim, channel: &str) -> ClientId {
    let client = sim.accepted();
    sim.exchange(client, format!("SUBSCRIBE {channel}\r\n"));
    client
}

const MESSAGE: &str = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n";

#[test]
fn what_was_published_before_an_unsubscribe_comes_before_its_confirmation_and_nothing_after() {
    for (command, confirmation) in [
        ("UNSUBSCRIBE a\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ("UNSUBSCRIBE\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ("RESET\r\n", "+RESET\r\n"),
        ("QUIT\r\n", "+OK\r\n"),
    ] {
        let mut sim = hub(limits());
        let (publisher, leaver, stayer) = (sim.accepted(), subscriber(&mut sim, "a"), subscriber(&mut sim, "a"));
        sim.send(publisher, "PUBLISH a 1\r\n");
        sim.send(leaver, command);
        sim.turns(3);
        assert_eq!(sim.received(publisher), ":2\r\n");
        assert_eq!(sim.received(leaver), format!("{MESSAGE}{confirmation}"), "{command}");
        assert_eq!(sim.received(stayer), MESSAGE);
    }
}

#[test]
fn who_took_its_messages_ahead_misses_none_that_follow() {
    let mut sim = hub(limits());
    let (publisher, other, client) = (sim.accepted(), sim.accepted(), sim.accepted());
    sim.exchange(client, "HELLO 3\r\nSUBSCRIBE a b\r\n");
    sim.turn();
    sim.received(client);
    sim.send(publisher, "PUBLISH a 1\r\n");
    sim.send(client, "UNSUBSCRIBE b\r\n");
    sim.send(other, "PUBLISH a 1\r\n");
    sim.turns(3);
    let push = MESSAGE.replace('*', ">");
    assert_eq!(sim.received(client), format!("{push}>3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n{push}"));
}

/// Receivers count: alternating between two channels makes a run of each publish, whose list of receivers is longer than its bytes.
#[test]
fn a_flood_of_publishes_waits_for_its_deliveries() {
    let mut sim = hub(Limits { max_connections: 1100, ..limits() });
    for _ in 0..500 {
        subscriber(&mut sim, "a b");
    }
    let publishers: Vec<ClientId> = (0..20).map(|_| sim.accepted()).collect();
    let before = sim.reactor.ledger().services;
    publishers.iter().for_each(|publisher| sim.send(*publisher, "PUBLISH a 1\r\nPUBLISH b 1\r\n".repeat(50)));
    sim.turn();
    let grown = sim.reactor.ledger().services - before;
    // Vectors grow to the double, and may be that much larger than what they hold.
    assert!(grown < 5 << 19, "{grown} bytes wait");
    let mut replies = 0;
    for _ in 0..5000 {
        sim.turn();
        replies +=
            publishers.iter().map(|publisher| sim.received(*publisher).matches(":500\r\n").count()).sum::<usize>();
    }
    assert_eq!(replies, 20 * 100, "none is lost");
}

#[test]
fn consults_per_turn_at_the_budget_one_below_and_one_above() {
    for (clients, first) in [(63, 63), (64, 64), (65, 64)] {
        let mut sim = hub(Limits { max_connections: 100, ..limits() });
        assert_eq!(CONSULTS_PER_TURN, 64);
        let clients: Vec<ClientId> = (0..clients).map(|_| sim.accepted()).collect();
        clients.iter().for_each(|client| sim.send(*client, "CLIENT ID\r\n"));
        sim.turn();
        let answered = |sim: &mut Sim| clients.iter().filter(|client| !sim.received(**client).is_empty()).count();
        assert_eq!(answered(&mut sim), first);
        sim.turn();
        assert_eq!(answered(&mut sim), clients.len() - first);
    }
}

/// Only RESP3 can carry what nobody asked for; a client of RESP2 would take it for the answer to its next command.
#[test]
fn who_is_closed_is_told_why_where_the_protocol_can_carry_it() {
    let mut sim = hub(Limits { idle_timeout: 20 * SECOND, message_timeout: 5 * SECOND, ..limits() });
    let clients: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    let [resp2, resp3, half, killed, killer] = clients[..] else { unreachable!() };
    for client in [resp3, killed] {
        sim.exchange(client, "HELLO 3\r\n");
    }
    for client in [resp2, half] {
        sim.exchange(client, "PING\r\n");
    }
    clients.iter().for_each(|client| drop(sim.received(*client)));
    sim.exchange(killer, "CLIENT KILL ID 4\r\n");
    sim.turns(2);
    assert_eq!(sim.received(killed), "", "an operator's kill looks as Redis's does");
    sim.send(half, "*1\r\n");
    sim.pass(6 * SECOND);
    assert_eq!(sim.received(half), "-ERR closing: message-timeout\r\n");
    sim.pass(20 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 3);
    assert_eq!(sim.received(resp3), ">3\r\n$7\r\nclosing\r\n$5\r\nslabd\r\n$12\r\nidle-timeout\r\n");
    assert_eq!(sim.received(resp2), "");
}

/// It has not taken what it was sent before, so a reason would only lie in the kernel, too.
#[test]
fn who_takes_nothing_is_told_nothing_and_reset() {
    let mut sim = hub(Limits { message_timeout: 5 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "PING\r\n");
    sim.send(client, "PING\r\n*1\r\n");
    sim.pass(6 * SECOND);
    assert_eq!((sim.net().client_saw(client), sim.closed(Reason::MessageTimeout)), (End::Reset, 1));
}

#[test]
fn a_drain_tells_clients_of_resp3() {
    let mut sim = hub(limits());
    let (resp2, resp3) = (sim.accepted(), sim.accepted());
    sim.exchange(resp3, "HELLO 3\r\n");
    sim.exchange(resp2, "PING\r\n");
    sim.reactor.drain();
    sim.turns(3);
    assert_eq!(sim.received(resp3), ">3\r\n$7\r\nclosing\r\n$5\r\nslabd\r\n$5\r\ndrain\r\n");
    assert_eq!(sim.received(resp2), "");
}

#[test]
fn info_shows_who_waits_in_the_accept_queue() {
    let mut sim = hub(Limits { accepts_per_turn: 1, ..limits() });
    let observer = sim.accepted();
    for _ in 0..4 {
        sim.client();
    }
    sim.send(observer, "INFO accept_queues\r\n");
    sim.turn();
    let told = sim.received(observer);
    let row = format!("{}_waiting_of_128:3\r\n", sim.address.to_string().replace(['.', ':'], "_"));
    assert!(told.contains(&row), "{told}");
}

/// As Redis's `timeout`: who waits for what others send has nothing to say.
#[test]
fn an_idle_subscriber_or_monitor_is_not_closed_until_it_listens_no_more() {
    let mut sim = hub(Limits { idle_timeout: 10 * SECOND, ..limits() });
    let (idle, subscriber, monitor) = (sim.accepted(), subscriber(&mut sim, "a"), sim.accepted());
    sim.exchange(idle, "PING\r\n");
    sim.exchange(monitor, "MONITOR\r\n");
    sim.pass(600 * SECOND);
    assert_eq!((sim.closed(Reason::IdleTimeout), sim.reactor.connections()), (1, 2));
    sim.exchange(monitor, "RESET\r\n");
    sim.exchange(subscriber, "UNSUBSCRIBE\r\n");
    sim.pass(200 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 3);
}

#[test]
fn who_is_closing_is_sent_no_more() {
    let mut sim = hub(limits());
    let (publisher, leaver) = (sim.accepted(), subscriber(&mut sim, "a"));
    sim.send(leaver, "QUIT\r\n");
    sim.turns(2);
    assert_eq!(sim.exchange(publisher, "PUBLISH a 1\r\nPUBSUB NUMSUB a\r\n"), ":0\r\n*2\r\n$1\r\na\r\n:0\r\n");
    sim.turns(3);
    assert_eq!(sim.received(leaver), "+OK\r\n");
    let broken = subscriber(&mut sim, "a");
    sim.send(broken, "*x\r\n");
    sim.turns(2);
    assert_eq!(sim.exchange(publisher, "PUBLISH a 1\r\n"), ":0\r\n");
}

/// What a client asked for itself is bounded by the high watermark, at which it is not read, and by one answer.
#[test]
fn a_slow_reader_gets_a_large_answer_on_top_of_what_it_has_not_read() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    sim.net().set_window(client, 0);
    let text = "x".repeat(60_000);
    sim.send(client, format!("*2\r\n$4\r\nECHO\r\n$60000\r\n{text}\r\n"));
    sim.turns(8);
    let text = "y".repeat(1_040_000);
    sim.send(client, format!("*2\r\n$4\r\nECHO\r\n$1040000\r\n{text}\r\n"));
    sim.turns(100);
    assert_eq!((sim.closed(Reason::OutputLimit), sim.reactor.connections()), (0, 1));
    sim.net().set_window(client, 2_000_000);
    sim.turns(100);
    assert!(sim.received(client).ends_with("yyy\r\n"));
}

#[test]
fn commands_that_ask_the_kernel_about_many_connections_wait_for_the_next_turn() {
    let mut sim = hub(Limits { max_connections: 1100, ..limits() });
    for _ in 0..FACTS_PER_TURN {
        sim.accepted();
    }
    let askers: Vec<ClientId> = (0..4).map(|_| sim.accepted()).collect();
    askers.iter().for_each(|asker| sim.send(*asker, "CLIENT LIST LADDR 1.1.1.1:1\r\n"));
    for turn in 1..=4 {
        sim.turn();
        let answered = askers.iter().filter(|asker| !sim.received(**asker).is_empty()).count();
        assert_eq!(answered, 1, "turn {turn}");
    }
}

//! The hub where the exact course of a turn matters: the order of output, and deliveries that are
//! pending.

use slabd::limits::Limits;
use slabd::net::sim::ClientId;

use crate::sim::{hub, limits, subscriber};

/// The message 1 of channel a, in RESP2.
const MESSAGE: &str = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n";

#[test]
fn earlier_messages_precede_the_reply_to_unsubscribe_and_none_follows() {
    for (command, confirmation) in [
        ("UNSUBSCRIBE a\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ("UNSUBSCRIBE\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ("RESET\r\n", "+RESET\r\n"),
        ("QUIT\r\n", "+OK\r\n"),
    ] {
        let mut sim = hub(limits());
        let (publisher, leaver, stayer) =
            (sim.accepted(), subscriber(&mut sim, "a"), subscriber(&mut sim, "a"));
        sim.send(publisher, "PUBLISH a 1\r\n");
        sim.send(leaver, command);
        sim.turns(3);
        assert_eq!(sim.received(publisher), ":2\r\n");
        assert_eq!(sim.received(leaver), format!("{MESSAGE}{confirmation}"), "{command}");
        assert_eq!(sim.received(stayer), MESSAGE);
    }
}

#[test]
fn a_subscriber_that_gets_its_messages_early_gets_later_ones_too() {
    let mut sim = hub(limits());
    let (publisher, other, client) = (sim.accepted(), sim.accepted(), sim.accepted());
    sim.exchange(client, "HELLO 3\r\nSUBSCRIBE a\r\n");
    sim.turn();
    sim.received(client);
    sim.send(publisher, "PUBLISH a 1\r\n");
    // UNSUBSCRIBE sends the pending messages first. A later message must not join those already
    // sent.
    sim.send(client, "UNSUBSCRIBE b\r\n");
    sim.send(other, "PUBLISH a 1\r\n");
    sim.turns(3);
    let push = MESSAGE.replace('*', ">");
    assert_eq!(
        sim.received(client),
        format!("{push}>3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n{push}")
    );
}

/// The lists of receivers count, too. With two channels in turn, each publish has its own list,
/// which is longer than its message.
#[test]
fn publishes_wait_while_their_deliveries_are_pending() {
    let mut sim = hub(Limits { max_connections: 1100, ..limits() });
    for _ in 0..500 {
        subscriber(&mut sim, "a b");
    }
    let publishers: Vec<ClientId> = (0..20).map(|_| sim.accepted()).collect();
    let before = sim.reactor.ledger().services;
    publishers
        .iter()
        .for_each(|publisher| sim.send(*publisher, "PUBLISH a 1\r\nPUBLISH b 1\r\n".repeat(50)));
    sim.turn();
    let grown = sim.reactor.ledger().services - before;
    // A vector may have twice the capacity that it needs.
    assert!(grown < 5 << 19, "{grown} bytes are pending");
    let mut replies = 0;
    for _ in 0..5000 {
        sim.turn();
        replies += publishers
            .iter()
            .map(|publisher| sim.received(*publisher).matches(":500\r\n").count())
            .sum::<usize>();
    }
    assert_eq!(replies, 20 * 100, "every publish is answered");
}

/// A batch has 64 datagrams. The loop checks the backlog before each of them.
#[test]
fn a_backlog_stops_datagrams_within_their_batch() {
    let mut sim = hub(limits());
    let subscribers: Vec<ClientId> = (0..4).map(|_| subscriber(&mut sim, "a b")).collect();
    subscribers.iter().for_each(|subscriber| sim.net().set_window(*subscriber, 2 << 20));
    let (to, from) = (sim.address, "127.0.0.8:2000".parse().unwrap());
    let payload = "x".repeat(60_000);
    for _ in 0..64 {
        sim.net().send_datagram(to, from, format!("PUBLISH a {payload}").as_bytes());
    }
    let before = sim.reactor.stats().work.deliveries;
    sim.turns(10);
    // Five of these datagrams exceed 256 KiB.
    assert_eq!(sim.reactor.stats().datagrams_dropped_backlog, 64 - 5);
    assert_eq!(sim.net().datagrams_received(from).len(), 5);
    assert_eq!(sim.reactor.stats().work.deliveries - before, 4, "one write per subscriber");
    for subscriber in subscribers {
        assert_eq!(sim.received(subscriber).matches("message").count(), 5);
    }
    let observer = sim.accepted();
    assert!(sim.exchange(observer, "INFO datagrams\r\n").contains("dropped_backlog:59\r\n"));
}

#[test]
fn a_monitor_gets_earlier_lines_before_the_reply_that_ends_it() {
    for (command, answer) in [("RESET\r\n", "+RESET\r\n"), ("QUIT\r\n", "+OK\r\n")] {
        let mut sim = hub(limits());
        let (client, monitor, stayer) = (sim.accepted(), sim.accepted(), sim.accepted());
        for monitor in [monitor, stayer] {
            assert_eq!(sim.exchange(monitor, "MONITOR\r\n"), "+OK\r\n");
        }
        sim.send(client, "PING\r\n");
        sim.send(monitor, command);
        sim.turns(3);
        let shown = sim.received(monitor);
        assert!(shown.ends_with(&format!("\"PING\"\r\n{answer}")), "{shown:?}");
        assert_eq!(shown.lines().count(), 2);
        assert!(sim.received(stayer).contains("\"PING\"\r\n"));
    }
}

#[test]
fn a_leaving_subscriber_gets_its_messages_even_with_replies_off() {
    for command in ["QUIT\r\n", "RESET\r\n"] {
        let mut sim = hub(limits());
        let (publisher, leaver) = (sim.accepted(), sim.accepted());
        sim.exchange(leaver, "CLIENT REPLY OFF\r\nSUBSCRIBE a\r\n");
        sim.turn();
        sim.received(leaver);
        sim.send(publisher, "PUBLISH a 1\r\n");
        sim.send(leaver, command);
        sim.turns(3);
        let got = sim.received(leaver);
        // RESET ends CLIENT REPLY OFF, so it is answered.
        assert_eq!(got.trim_end_matches("+RESET\r\n"), MESSAGE, "{command}");
    }
}

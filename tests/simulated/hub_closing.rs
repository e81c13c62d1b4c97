//! How the hub closes clients: for which reason, with which last messages, and whether they still
//! count as receivers.

use slabd::connection::Reason;
use slabd::limits::{Limits, REAPS_PER_TURN};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, hub, limits, subscriber};

#[test]
fn a_client_that_kills_itself_gets_its_answer_and_counts_as_killed() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "CLIENT KILL TYPE normal SKIPME no\r\n"), ":1\r\n");
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!((sim.closed(Reason::Killed), sim.closed(Reason::ServiceClosed)), (1, 0));
}

/// The loop drops the commands behind CLIENT KILL and carries nothing over.
#[test]
fn a_client_that_kills_itself_is_not_served_the_rest_of_its_pipeline() {
    for rest in ["P", "PING\r\n", "*1\r\n$4\r\nPI"] {
        let mut sim = hub(limits());
        let client = sim.accepted();
        assert_eq!(sim.exchange(client, format!("CLIENT KILL SKIPME no\r\n{rest}")), ":1\r\n");
        sim.turns(3);
        assert_eq!(
            (sim.received(client), sim.net().client_saw(client)),
            (String::new(), End::Fin),
            "{rest}"
        );
    }
}

/// Only RESP3 has pushes. A RESP2 client would take the reason for the answer to its next command,
/// unless it has already begun that command.
#[test]
fn a_closed_client_gets_the_reason_if_its_protocol_can_carry_it() {
    let mut sim =
        hub(Limits { idle_timeout: 20 * SECOND, message_timeout: 5 * SECOND, ..limits() });
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
    assert_eq!(sim.received(killed), "", "CLIENT KILL gives no reason, as in Redis");
    sim.send(half, "*1\r\n");
    sim.pass(6 * SECOND);
    assert_eq!(sim.received(half), "-ERR closing: message-timeout\r\n");
    sim.pass(20 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 3);
    assert_eq!(
        sim.received(resp3),
        ">3\r\n$7\r\nclosing\r\n$5\r\nslabd\r\n$12\r\nidle-timeout\r\n"
    );
    assert_eq!(sim.received(resp2), "");
}

/// The client reads nothing, so a reason would stay in the kernel.
#[test]
fn a_client_that_reads_nothing_is_reset_without_a_reason() {
    let mut sim = hub(Limits { message_timeout: 5 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "PING\r\n");
    sim.send(client, "PING\r\n*1\r\n");
    sim.pass(6 * SECOND);
    assert_eq!((sim.net().client_saw(client), sim.closed(Reason::MessageTimeout)), (End::Reset, 1));
}

#[test]
fn a_drain_is_announced_to_resp3_clients() {
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
fn a_client_that_quit_does_not_count_as_receiver_in_the_same_turn() {
    let mut sim = hub(limits());
    let (leaving, publisher) = (subscriber(&mut sim, "a"), sim.accepted());
    sim.send(leaving, "QUIT\r\n");
    sim.send(publisher, "PUBLISH a x\r\n");
    sim.turns(2);
    assert_eq!(
        (sim.received(leaving).as_str(), sim.received(publisher).as_str()),
        ("+OK\r\n", ":0\r\n")
    );
}

/// The idle timeout spares subscribers and monitors, as Redis's `timeout` does.
#[test]
fn an_idle_subscriber_or_monitor_is_closed_only_after_it_ends_its_role() {
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
fn a_closing_client_gets_no_messages() {
    let mut sim = hub(limits());
    let (publisher, leaver) = (sim.accepted(), subscriber(&mut sim, "a"));
    sim.send(leaver, "QUIT\r\n");
    sim.turns(2);
    assert_eq!(
        sim.exchange(publisher, "PUBLISH a 1\r\nPUBSUB NUMSUB a\r\n"),
        ":0\r\n*2\r\n$1\r\na\r\n:0\r\n"
    );
    sim.turns(3);
    assert_eq!(sim.received(leaver), "+OK\r\n");
    let broken = subscriber(&mut sim, "a");
    sim.send(broken, "*x\r\n");
    sim.turns(2);
    assert_eq!(sim.exchange(publisher, "PUBLISH a 1\r\n"), ":0\r\n");
}

#[test]
fn closed_subscribers_get_no_messages_while_reaping_takes_several_turns() {
    let mut sim =
        hub(Limits { max_connections: 2000, max_connections_per_source: 2000, ..limits() });
    let subscribers = sim.crowd(2 * REAPS_PER_TURN + 1);
    subscribers.iter().for_each(|subscriber| sim.send(*subscriber, "SUBSCRIBE a\r\n"));
    sim.turns(4);
    let publisher = sim.accepted();
    subscribers.iter().for_each(|subscriber| sim.net().client_reset(*subscriber));
    for left in [REAPS_PER_TURN + 1, 1, 0] {
        sim.turn();
        assert_eq!(sim.reactor.connections(), left + 1);
        sim.send(publisher, "PUBLISH a x\r\n");
        if left == 0 {
            sim.turn();
        }
    }
    assert_eq!(sim.received(publisher), ":0\r\n".repeat(3));
}

//! The hub where the exact course of a turn matters: the order of output, budgets and closing.

use slabd::connection::Reason;
use slabd::limits::{INFO_STEPS, Limits, REAPS_PER_TURN, SEARCHED_MAX, WALK_STEPS_PER_TURN};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, Sim, hub, limits, subscriber};

/// Returns a command as an array of bulk strings.
fn multibulk(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

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

#[test]
fn client_list_takes_ids_in_any_order_and_more_than_once() {
    let mut sim = hub(limits());
    let clients: Vec<ClientId> = (0..9).map(|_| sim.accepted()).collect();
    let list = sim.exchange(clients[0], "CLIENT LIST ID 7 2 9 2 1 1000\r\n");
    let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    assert_eq!(ids.collect::<Vec<_>>(), ["1", "2", "7", "9"], "{list}");
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

/// The kernel copies the message for each receiver, so 500 receivers of 1 MB would take a turn of
/// 80 ms.
#[test]
fn a_large_message_is_delivered_over_several_turns() {
    let mut sim = hub(limits());
    let publisher = sim.accepted();
    let subscribers: Vec<ClientId> = (0..20).map(|_| subscriber(&mut sim, "a")).collect();
    subscribers.iter().for_each(|subscriber| sim.net().set_window(*subscriber, 2 << 20));
    sim.send(publisher, multibulk(&["PUBLISH", "a", &"x".repeat(1_000_000)]));
    let mut turns_with_deliveries = 0;
    for _ in 0..100 {
        let before = sim.reactor.stats().work.deliveries;
        sim.turn();
        let entries = sim.reactor.stats().work.deliveries - before;
        // One of them may be the answer to the publisher.
        assert!(entries <= 2, "{entries} deliveries in one turn");
        turns_with_deliveries += usize::from(entries > 0);
    }
    assert_eq!(turns_with_deliveries, 20);
    assert_eq!(sim.received(publisher), ":20\r\n");
    let expected =
        format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1000000\r\n{}\r\n", "x".repeat(1_000_000));
    assert!(subscribers.iter().all(|subscriber| sim.received(*subscriber) == expected));
}

#[test]
fn an_expensive_command_above_the_budget_is_answered_in_the_next_turn() {
    assert_eq!(SEARCHED_MAX / INFO_STEPS, 2);
    for (clients, first) in [(1, 1), (2, 2), (3, 2)] {
        let mut sim = hub(limits());
        let clients: Vec<ClientId> = (0..clients).map(|_| sim.accepted()).collect();
        clients.iter().for_each(|client| sim.send(*client, "INFO server\r\n"));
        sim.turn();
        let answered = |sim: &mut Sim| {
            clients.iter().filter(|client| !sim.received(**client).is_empty()).count()
        };
        assert_eq!(answered(&mut sim), first);
        sim.turn();
        assert_eq!(answered(&mut sim), clients.len() - first);
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
fn info_shows_the_length_of_the_accept_queue() {
    let mut sim = hub(Limits { accepts_per_turn: 1, ..limits() });
    let observer = sim.accepted();
    for _ in 0..4 {
        sim.client();
    }
    sim.send(observer, "INFO accept_queues\r\n");
    sim.turn();
    let info = sim.received(observer);
    let row = format!("{}_waiting_of_128:3\r\n", sim.address.to_string().replace(['.', ':'], "_"));
    assert!(info.contains(&row), "{info}");
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

/// The client's pending output is bounded by the high watermark plus one answer.
#[test]
fn a_slow_reader_gets_a_large_answer_on_top_of_its_unread_output() {
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

/// Each session costs one step, and each address from the kernel costs 16.
#[test]
fn a_walk_above_the_budget_of_a_turn_is_answered_in_the_next_turn() {
    let at_once = WALK_STEPS_PER_TURN / 17;
    for (sessions, answered_at) in [(at_once - 1, 1), (at_once, 1), (at_once + 1, 2)] {
        let mut sim =
            hub(Limits { max_connections: 2000, max_connections_per_source: 2000, ..limits() });
        let clients = sim.crowd(sessions);
        sim.send(clients[0], "CLIENT LIST LADDR 1.1.1.1:1\r\nPING\r\n");
        sim.send(clients[1], "PING\r\n");
        sim.turn();
        assert_eq!(sim.received(clients[1]), "+PONG\r\n", "the walk does not delay others");
        let answer = sim.received(clients[0]);
        assert_eq!(answer == "$0\r\n\r\n+PONG\r\n", answered_at == 1, "{sessions}: {answer}");
        sim.turns(2);
        let rest = if answered_at == 1 { "" } else { "$0\r\n\r\n+PONG\r\n" };
        assert_eq!(sim.received(clients[0]), rest, "the next command waits for the answer");
    }
}

#[test]
fn walks_run_one_after_another_and_a_walk_ends_with_its_client() {
    let mut sim =
        hub(Limits { max_connections: 2000, max_connections_per_source: 2000, ..limits() });
    sim.crowd(1500);
    let askers: Vec<ClientId> = (0..6).map(|_| sim.accepted()).collect();
    askers.iter().for_each(|asker| sim.send(*asker, "CLIENT LIST LADDR 1.1.1.1:1\r\n"));
    sim.turn();
    sim.net().client_reset(askers[2]);
    let mut order = Vec::new();
    for _ in 0..20 {
        sim.turn();
        let answered = askers.iter().filter(|asker| sim.received(**asker) == "$0\r\n\r\n");
        order.extend(answered.copied());
    }
    assert_eq!(order, [askers[0], askers[1], askers[3], askers[4], askers[5]]);
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

#[test]
fn the_client_list_shows_last_commands_flags_and_events() {
    let mut sim = hub(limits());
    let subscriber = subscriber(&mut sim, "a");
    let asker = sim.accepted();
    let list = sim.exchange(asker, "CLIENT LIST\r\n");
    assert!(
        list.contains(" flags=P ") && list.contains(" events=r cmd=subscribe user=default "),
        "{list}"
    );
    assert!(
        list.contains(" flags=N ") && list.contains(" events=r cmd=client user=default "),
        "{list}"
    );
    assert_eq!(sim.exchange(asker, "CLIENT KILL ID 1\r\n"), ":1\r\n");
    assert_eq!(sim.net().client_saw(subscriber), End::Fin);
}

/// A batch has 64 datagrams. The loop checks the backlog before each of them.
#[test]
fn a_backlog_stops_datagrams_within_their_batch() {
    let mut sim = hub(limits());
    let subscribers: Vec<ClientId> = (0..4).map(|_| subscriber(&mut sim, "a b")).collect();
    subscribers.iter().for_each(|subscriber| sim.net().set_window(*subscriber, 2 << 20));
    let (to, from) = (sim.address, "127.0.0.8:1000".parse().unwrap());
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

/// PUBSUB CHANNELS walks all topics, so it spends the turn's budget of searching. Otherwise one
/// pipeline would take a turn of an eighth of a second.
#[test]
fn listing_many_channels_ends_the_turns_input() {
    let mut sim = hub(limits());
    let asker = sim.accepted();
    for first in 0..6 {
        let subscriber = sim.accepted();
        for block in 0..10 {
            let names: String = (0..1000)
                .map(|number| format!(" {}", first * 10_000 + block * 1000 + number))
                .collect();
            sim.exchange(subscriber, format!("SUBSCRIBE{names}\r\n"));
        }
    }
    sim.send(asker, "PUBSUB CHANNELS x*\r\n".repeat(10));
    for answers in [2, 2, 2, 2, 2, 0] {
        sim.turn();
        // Each of 60,000 topics costs 17 steps: 16 and one for the pattern.
        assert_eq!(sim.received(asker).matches("*0\r\n").count(), answers);
    }
}

#[test]
fn the_replies_that_end_all_subscriptions_have_less_than_512_kib() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    sim.net().set_window(client, 2 << 20);
    let mut answers = String::new();
    for block in 0..12 {
        let names: String =
            (0..100).map(|number| format!(" {:0>500}", block * 100 + number)).collect();
        answers.push_str(&sim.exchange(client, format!("SUBSCRIBE{names}\r\n")));
    }
    assert_eq!(answers.matches("subscribe").count(), 970);
    assert_eq!(
        answers.matches("-ERR too many subscriptions; the limit is 524288 bytes").count(),
        3
    );
    let confirmations = sim.exchange(client, "UNSUBSCRIBE\r\n");
    assert_eq!(confirmations.matches("unsubscribe").count(), 970);
    assert!(confirmations.len() < 512 * 1024);
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

#[test]
fn a_monitor_line_is_cut_even_if_escapes_lengthen_it() {
    for word in ["x".repeat(60_000), "\u{1}".repeat(15_000)] {
        let mut sim = hub(limits());
        let (client, monitor) = (sim.accepted(), sim.accepted());
        sim.exchange(monitor, "MONITOR\r\n");
        sim.send(client, multibulk(&["ECHO", &word]));
        sim.turns(3);
        let shown = sim.received(monitor);
        assert!(
            shown.ends_with("\" ...\r\n") && (4096..4110).contains(&shown.len()),
            "{} bytes",
            shown.len()
        );
    }
}

#[test]
fn an_inline_command_with_more_than_1024_words_ends_the_connection() {
    for (words, fits) in [(1023, true), (1024, true), (1025, false)] {
        let mut sim = hub(limits());
        let client = sim.accepted();
        let answer =
            sim.exchange(client, format!("PUBSUB NUMSUB{}\r\nPING\r\n", " a".repeat(words - 2)));
        assert_eq!(answer.ends_with("+PONG\r\n"), fits, "{words}");
        assert_eq!(answer == "-ERR Protocol error: invalid multibulk length\r\n", !fits);
        assert_eq!(sim.net().client_saw(client) == End::Fin, !fits);
    }
}

#[test]
fn config_set_changes_the_limits_of_the_loop() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "CONFIG SET idle-timeout 77s\r\n"), "+OK\r\n");
    assert_eq!(sim.reactor.limits().idle_timeout, 77 * SECOND);
    let answer = sim.exchange(client, "CONFIG SET idle-timeout never-ever\r\n");
    assert!(answer.starts_with("-ERR CONFIG SET failed"), "{answer}");
    assert_eq!(sim.reactor.limits().idle_timeout, 77 * SECOND);
}

//! The hub where the exact course of a turn matters: the order of output, budgets and closing.

use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::{
    ASKED_MAX, ASKERS_RESUMED, BATCH_MAX, CLIENT_INFO_STEPS, CLOSED_KEPT, CLOSED_LINE_STEPS,
    CONFIG_STEPS, INFO_STEPS, Limits, REAPS_PER_TURN, WALK_STEPS_PER_TURN,
};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, Sim, hub, limits, subscriber};

/// Returns a command as an array of bulk strings.
fn multibulk(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

/// Reads until the server sends no more.
fn all(sim: &mut Sim, client: ClientId) -> String {
    let mut got = String::new();
    loop {
        sim.turns(8);
        match sim.received(client) {
            part if part.is_empty() => return got,
            part => got += &part,
        }
    }
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
fn a_large_message_is_written_over_several_turns_and_kept_once() {
    let mut sim = hub(limits());
    let publisher = sim.accepted();
    let subscribers: Vec<ClientId> = (0..20).map(|_| subscriber(&mut sim, "a")).collect();
    subscribers.iter().for_each(|subscriber| sim.net().set_window(*subscriber, 2 << 20));
    sim.send(publisher, multibulk(&["PUBLISH", "a", &"x".repeat(1_000_000)]));
    let mut turns_with_output = 0;
    for _ in 0..100 {
        let before = sim.reactor.stats().bytes_out;
        sim.turn();
        let written = sim.reactor.stats().bytes_out - before;
        assert!(written <= (1 << 20) + BATCH_MAX as u64, "{written} bytes in one turn");
        turns_with_output += usize::from(written > 0);
        let ledger = sim.reactor.ledger();
        assert!(ledger.write_buffers < 1_010_000, "{ledger:?}");
    }
    assert!(turns_with_output >= 14, "{turns_with_output}");
    assert_eq!(sim.received(publisher), ":20\r\n");
    let expected =
        format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1000000\r\n{}\r\n", "x".repeat(1_000_000));
    assert!(subscribers.iter().all(|subscriber| sim.received(*subscriber) == expected));
    assert_eq!(sim.reactor.ledger().write_buffers, 0);
}

/// A publisher of large messages keeps the pace of the receivers that read, and no receiver that
/// stalls can hold it for more than a second.
#[test]
fn a_receiver_that_reads_gets_all_large_messages_and_one_that_stalls_is_closed_at_the_limit() {
    let mut sim = hub(Limits { output_timeout: Duration::ZERO, ..limits() });
    let publisher = sim.accepted();
    let (reading, stalled) = (subscriber(&mut sim, "a"), subscriber(&mut sim, "a"));
    sim.net().set_window(reading, 1 << 20);
    sim.net().set_window(stalled, 1000);
    let publish = multibulk(&["PUBLISH", "a", &"x".repeat(8_000_000)]);
    (0..8).for_each(|_| sim.send(publisher, &publish));
    let (mut got, mut most) = (0, 0);
    let start = sim.reactor.now();
    while got < 8 * 8_000_036 && sim.reactor.now().since(start) < 20 * SECOND {
        sim.pass(SECOND / 50);
        got += sim.received(reading).len();
        most = most.max(sim.reactor.ledger().write_buffers);
    }
    assert_eq!(got, 8 * 8_000_036);
    assert_eq!(sim.closed(Reason::OutputLimit), 1, "the stalled one");
    assert_eq!(sim.net().client_saw(reading), End::Open);
    // Five messages for the stalled receiver, and none twice.
    assert!(most < 5 * 8_010_000, "{most} bytes");
    sim.pass(SECOND);
    assert_eq!(sim.reactor.ledger().write_buffers, 0);
}

#[test]
fn commands_about_the_server_share_a_budget_of_each_turn() {
    let steps = [
        ("INFO server", INFO_STEPS),
        ("MEMORY DOCTOR", INFO_STEPS),
        ("MEMORY STATS", INFO_STEPS),
        ("CONFIG GET save", CONFIG_STEPS),
        ("CLIENT INFO", CLIENT_INFO_STEPS),
        ("CLIENT CLOSED", CLOSED_LINE_STEPS * CLOSED_KEPT),
    ];
    for (command, steps) in steps {
        let mut sim = hub(limits());
        for _ in 0..if command == "CLIENT CLOSED" { CLOSED_KEPT } else { 0 } {
            let client = sim.accepted();
            sim.net().client_reset(client);
            sim.turns(2);
        }
        let askers: Vec<ClientId> = (0..40).map(|_| sim.accepted()).collect();
        askers.iter().for_each(|client| sim.send(*client, format!("{command}\r\n")));
        let mut each_turn = Vec::new();
        for _ in 0..41 {
            sim.turn();
            let answered =
                askers.iter().filter(|one| sim.received(**one).starts_with(['$', '*'])).count();
            each_turn.push(answered);
        }
        assert_eq!(each_turn.iter().sum::<usize>(), 40, "{command}: {each_turn:?}");
        // Waiting commands are read again in small numbers.
        let most = (ASKED_MAX / steps).max(1);
        assert_eq!(each_turn[0], most, "{command}");
        assert_eq!(each_turn[1], most.min(ASKERS_RESUMED), "{command}");
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
    for _ in 0..100 {
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
fn an_inline_command_longer_than_64_kib_ends_the_connection() {
    for (length, fits) in [(65_535, true), (65_536, true), (65_537, false)] {
        let mut sim = hub(Limits { output_limit: 4 << 20, ..limits() });
        let client = sim.accepted();
        let words = " a".repeat((length - "PUBSUB NUMSUB".len()) / 2);
        let padding = " ".repeat(length - "PUBSUB NUMSUB".len() - words.len());
        sim.send(client, format!("PUBSUB NUMSUB{words}{padding}\r\nPING\r\n"));
        let answer = all(&mut sim, client);
        assert_eq!(answer.ends_with("+PONG\r\n"), fits, "{length}");
        assert_eq!(answer == "-ERR Protocol error: too big inline request\r\n", !fits);
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

/// Each read of a large command continues where the last one stopped. Reading it again from its
/// start would take minutes.
#[test]
fn a_command_of_a_million_words_is_read_in_bounded_turns_and_its_memory_is_given_back() {
    for (name, last, answer) in [
        ("PING", "a", "-ERR 'ping' has 1000000 words; accepted: up to 1024 words\r\n"),
        ("GET", "a", "-ERR unknown command 'GET'"),
    ] {
        let mut sim = hub(limits());
        let client = sim.accepted();
        let before = sim.reactor.ledger().services;
        let mut command = format!("*1000000\r\n${}\r\n{name}\r\n", name.len());
        command.push_str(&"$1\r\nb\r\n".repeat(999_998));
        sim.send(client, command);
        sim.turns(200);
        let ledger = sim.reactor.ledger();
        assert!((8_000_000..40_000_000).contains(&(ledger.services - before)), "{ledger:?}");
        assert_eq!(sim.received(client), "", "{name}");
        sim.send(client, format!("$1\r\n{last}\r\nPING\r\n"));
        sim.turns(20);
        let got = sim.received(client);
        assert!(got.contains(answer) && got.ends_with("+PONG\r\n"), "{}", &got[got.len() - 99..]);
        assert_eq!(sim.reactor.ledger().services, before, "{name}");
    }
}

#[test]
fn a_command_one_byte_longer_than_max_message_costs_its_sender_its_connection() {
    let longest = 64 * 1024;
    for more in [-1, 0, 1] {
        let mut sim = hub(Limits { max_message: longest, ..limits() });
        let (client, other) = (sim.accepted(), sim.accepted());
        let text = "x"
            .repeat((longest - "*2\r\n$4\r\nECHO\r\n$65536\r\n\r\n".len()).strict_add_signed(more));
        sim.send(client, multibulk(&["ECHO", &text]));
        let answer = match more {
            1 => "-ERR Protocol error: invalid bulk length; accepted: a command of up to 65536 \
                bytes (--max-message)\r\n"
                .to_string(),
            _ => format!("${}\r\n{text}\r\n", text.len()),
        };
        assert_eq!(all(&mut sim, client), answer, "{more}");
        assert_eq!(sim.exchange(other, "PING\r\n"), "+PONG\r\n");
        assert_eq!(sim.net().client_saw(client) == End::Fin, more == 1);
    }
}

/// A reply may be longer than its command: each name of COMMAND INFO gets a whole description.
#[test]
fn a_command_with_more_words_than_its_kind_may_have_is_refused_and_changes_nothing() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    for (words, many, most) in [
        (&["COMMAND", "INFO"][..], "ping", 1024),
        (&["COMMAND", "DOCS"], "ping", 1024),
        (&["CLIENT", "KILL"], "ID", 1024),
        (&["CONFIG", "GET"], "maxclients", 1024),
        (&["PUBSUB", "NUMSUB"], "a", 65_536 + 2),
        (&["PUBSUB", "SHARDNUMSUB"], "a", 65_536 + 2),
    ] {
        for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
            let sent = [words, &vec![many; count - words.len()]].concat();
            sim.send(client, multibulk(&sent));
            sim.turns(40);
            let got = all(&mut sim, client);
            assert_eq!(
                got.contains(" words; accepted: ") || got.contains(" names; accepted: "),
                !fits,
                "{words:?} {count}: {:.99}",
                got
            );
            assert_eq!(sim.exchange(client, "PING\r\n"), "+PONG\r\n");
        }
    }
}

#[test]
fn time_follows_the_system_clock_when_it_is_set() {
    let mut sim = hub(limits());
    let (client, monitor) = (sim.accepted(), sim.accepted());
    sim.exchange(monitor, "MONITOR\r\n");
    let (to, from) = (sim.address, "127.0.0.8:2000".parse().unwrap());
    let seconds = |sim: &mut Sim| {
        let answer = sim.exchange(client, "TIME\r\n");
        sim.net().send_datagram(to, from, format!("TIME{}", " ".repeat(40)).as_bytes());
        sim.turns(2);
        let by_datagram = sim.net().datagrams_received(from).remove(0).1;
        let shown = sim.received(monitor);
        let second = answer.lines().nth(2).unwrap().to_owned();
        assert_eq!(String::from_utf8(by_datagram).unwrap().lines().nth(2).unwrap(), second);
        assert!(shown.starts_with(&format!("+{second}.")), "{shown}");
        second.parse::<u64>().unwrap()
    };
    let before = seconds(&mut sim);
    // An operator sets the clock forward and back, and NTP steps it.
    for time in [2_000_000_000, 0, 1_000_000, before] {
        sim.net().set_system_clock(Duration::from_secs(time));
        assert_eq!(seconds(&mut sim), time);
        sim.pass(3 * SECOND);
        assert!((time + 2..=time + 4).contains(&seconds(&mut sim)), "it goes on from {time}");
    }
    assert_eq!(sim.reactor.connections(), 2, "no deadline follows that clock");
}

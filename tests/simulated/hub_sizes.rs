//! Large messages, commands and answers of the hub, at their limits.

use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::{BATCH_MAX, Limits};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, all, hub, limits, multibulk, subscriber};

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

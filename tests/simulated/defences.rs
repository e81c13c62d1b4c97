//! The hub's defences, one per test. The script `tests/defences` checks that their tests bite.

use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{Limits, UNTRUSTED_INPUT_MAX};
use slabd::net::sim::ClientId;
use slabd::service::{Options, Secret};

use crate::sim::{Sim, hub, limits, subscriber};

/// Returns a publish of nearly 1 MiB, which fills the backlog alone.
fn large_publish(channel: &str) -> String {
    let length = (1 << 20) - 100;
    format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\n{channel}\r\n${length}\r\n{}\r\n", "x".repeat(length))
}

#[test]
fn a_newcomer_in_the_slot_of_a_subscriber_gets_none_of_its_messages() {
    let mut sim = hub(Limits { deliveries_per_turn: 1, ..limits() });
    let publisher = sim.accepted();
    let subscribers: Vec<ClientId> = (0..6).map(|_| subscriber(&mut sim, "a")).collect();
    sim.send(publisher, "PUBLISH a 1\r\n");
    sim.net().client_close(subscribers[5]);
    sim.turn();
    assert_eq!(sim.reactor.connections(), 6, "the subscriber is gone, and its message is pending");
    let newcomer = sim.accepted();
    sim.turns(10);
    assert_eq!(sim.received(newcomer), "");
    assert!(
        subscribers[..5]
            .iter()
            .all(|subscriber| sim.received(*subscriber).ends_with("$1\r\n1\r\n"))
    );
}

#[test]
fn a_command_before_the_password_is_refused_one_byte_above_its_limit() {
    // The commands have one byte less than the limit, the limit, and one byte more.
    for more in [0, 1, 2] {
        let options =
            Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
        let client = sim.accepted();
        let answer = sim
            .exchange(client, format!("PING {}\r\n", "x".repeat(UNTRUSTED_INPUT_MAX + more - 6)));
        assert!(
            answer.starts_with(if more > 1 { "-ERR Protocol error" } else { "-NOAUTH" }),
            "{more}: {answer}"
        );
    }
}

/// The client asked for this output while it was authenticated.
#[test]
fn a_client_that_logs_out_with_reset_still_gets_its_pending_output() {
    for sends_at_once in [false, true] {
        let options =
            Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
        let client = sim.accepted();
        assert_eq!(sim.exchange(client, "AUTH secret\r\n"), "+OK\r\n");
        sim.net().set_window(client, 1);
        let text = "x".repeat(2000);
        sim.send(client, format!("ECHO {text}\r\n"));
        if !sends_at_once {
            sim.turns(2);
        }
        sim.send(client, "RESET\r\nPING\r\n");
        sim.turns(2);
        sim.net().set_window(client, 10_000);
        let mut got = sim.received(client);
        sim.turns(2);
        got += &sim.received(client);
        assert_eq!(
            got,
            format!("$2000\r\n{text}\r\n+RESET\r\n-NOAUTH Authentication required.\r\n")
        );
        assert_eq!(sim.closed(Reason::OutputLimit), 0);
    }
}

#[test]
fn a_client_without_the_password_is_closed_one_byte_above_its_output_limit() {
    for (length, closed) in [(38, 0), (39, 0), (40, 1)] {
        let options =
            Options { password: Some(Secret(b"secret"[..].into())), ..Options::default() };
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
        let client = sim.accepted();
        sim.net().set_window(client, 0);
        let unknown = |length| format!("*1\r\n${length}\r\n{}\r\n", "x".repeat(length));
        // The first answers are 15 of 34 bytes. The second are 7 of 34 bytes and three errors of
        // 92.
        sim.send(client, "PING\r\n".repeat(15));
        sim.turns(2);
        sim.send(
            client,
            format!("{0}{1}{1}{2}", "PING\r\n".repeat(7), unknown(39), unknown(length)),
        );
        sim.turns(2);
        assert_eq!(sim.closed(Reason::OutputLimit), closed);
    }
}

#[test]
fn a_datagram_gets_neither_an_error_nor_an_answer_longer_than_itself() {
    let mut sim = hub(limits());
    let (to, from) = (sim.address, "127.0.0.8:2000".parse().unwrap());
    let words = " x".repeat(200);
    let channel = format!("PUBLISH {} x", "c".repeat(5000));
    for datagram in [
        format!("PING{words}"),
        format!("ECHO{words}"),
        format!("NOPE{words}"),
        format!("SUBSCRIBE{words}"),
        channel,
    ] {
        sim.net().send_datagram(to, from, datagram.as_bytes());
    }
    sim.net().send_datagram(to, from, format!("ECHO {}", "y".repeat(100)).as_bytes());
    sim.turns(2);
    assert_eq!(sim.reactor.stats().datagrams_in, 6);
    let answers = sim.net().datagrams_received(from);
    assert_eq!(answers.len(), 0, "an answer is not longer than its datagram");
    sim.net().send_datagram(to, from, b"ECHO           y");
    sim.turn();
    assert_eq!(sim.net().datagrams_received(from)[0].1, b"$1\r\ny\r\n");
}

#[test]
fn a_datagram_cannot_subscribe() {
    let mut sim = hub(limits());
    let (to, observer) = (sim.address, sim.accepted());
    for command in ["SUBSCRIBE a", "PSUBSCRIBE *", "SSUBSCRIBE a"] {
        sim.net().send_datagram(to, "127.0.0.8:2000".parse().unwrap(), command.as_bytes());
    }
    sim.turn();
    assert_eq!(
        sim.exchange(
            observer,
            "PUBSUB NUMSUB a\r\nPUBSUB NUMPAT\r\nPUBSUB SHARDNUMSUB a\r\nPUBLISH a 1\r\n"
        )
        .matches(":0\r\n")
        .count(),
        4
    );
}

#[test]
fn the_seventeenth_monitor_is_refused_and_one_source_may_have_fourteen() {
    let mut sim = hub(limits());
    let mut clients = Vec::new();
    for (number, source) in [1; 15].into_iter().chain([2, 2, 3, 4]).enumerate() {
        let (address, from) = (sim.address, ([127, 0, 0, source], 2000 + number as u16).into());
        let client = sim.net().client_from(address, from).unwrap();
        sim.turns(2);
        sim.exchange(client, "PING\r\n");
        clients.push(client);
        let share = "-ERR too many monitors from this address; it may have 7 times what is left of \
                     16\r\n";
        let full = "-ERR too many monitors; at most 16 connections may run MONITOR\r\n";
        let expected = match number {
            14 | 16 => share,
            18 => full,
            _ => "+OK\r\n",
        };
        assert_eq!(sim.exchange(client, "MONITOR\r\n"), expected, "{number}");
    }
    sim.exchange(clients[3], "RESET\r\n");
    assert_eq!(sim.exchange(clients[18], "MONITOR\r\n"), "+OK\r\n");
}

#[test]
fn a_client_list_above_its_size_limit_is_refused() {
    let mut sim = hub(Limits { max_connections: 1100, ..limits() });
    let asker = sim.accepted();
    sim.net().set_window(asker, 2 << 20);
    let text = "x".repeat(128);
    for number in 2..=1000 {
        let client = sim.accepted();
        let labels = format!(
            "CLIENT SETNAME {text}\r\nCLIENT SETINFO lib-name {text}\r\n\
             CLIENT SETINFO lib-ver {text}\r\n"
        );
        sim.send(client, labels);
        sim.turns(4);
        if number % 100 == 0 {
            sim.send(asker, "CLIENT LIST\r\n");
            // A turn describes 32 connections.
            sim.turns(3 + number / 30);
            let list = sim.received(asker);
            let refused = list
                == format!(
                    "-ERR the list of {number} connections is too long; \
                     narrow it with ID, TYPE or ADDR\r\n"
                );
            // A line of the list has about 700 bytes.
            assert_eq!(refused, number > 700, "{number}: {} bytes", list.len());
            assert!(list.len() < 513 * 1024 && (refused || list.lines().count() > number));
        }
    }
}

#[test]
fn a_full_backlog_delays_publishes_and_nothing_else() {
    let mut sim = hub(Limits { deliveries_per_turn: 1, ..limits() });
    let (publisher, other) = (sim.accepted(), sim.accepted());
    let subscribers: Vec<ClientId> = (0..20).map(|_| subscriber(&mut sim, "a")).collect();
    subscribers.iter().for_each(|subscriber| sim.net().set_window(*subscriber, 2 << 20));
    sim.send(publisher, large_publish("a") + "PING\r\nPUBLISH a 2\r\nPING\r\n");
    while sim.received(publisher) != ":20\r\n+PONG\r\n" {
        sim.turn();
    }
    // A turn delivers to one subscriber.
    let (to, from) = (sim.address, "127.0.0.8:2000".parse().unwrap());
    sim.net().send_datagram(to, from, b"PING          ");
    sim.net().send_datagram(to, from, b"PUBLISH a 3");
    sim.send(other, "SUBSCRIBE b\r\nPING\r\n");
    for _ in 0..15 {
        sim.turn();
        assert_eq!(sim.received(publisher), "", "the second publish and the input behind it wait");
    }
    assert_eq!(sim.received(other).matches("subscribe\r\n$1\r\nb\r\n:1\r\n").count(), 1);
    assert_eq!(sim.net().datagrams_received(from).len(), 1, "the datagram with PING is answered");
    assert_eq!(
        sim.reactor.stats().datagrams_dropped_backlog,
        1,
        "a publish by datagram is dropped"
    );
    sim.turns(60);
    assert_eq!(sim.received(publisher), ":20\r\n+PONG\r\n");
    assert!(
        subscribers.iter().all(|subscriber| sim.received(*subscriber).ends_with("$1\r\n2\r\n"))
    );
}

#[test]
fn a_pipeline_is_answered_up_to_the_high_watermark_in_a_turn() {
    let mut sim = hub(Limits { high_watermark: 4096, low_watermark: 1024, ..limits() });
    let client = sim.accepted();
    // Each answer has 1,017 bytes. The fifth begins below the watermark.
    sim.send(client, format!("ECHO {}\r\n", "x".repeat(1008)).repeat(10));
    for answers in [5, 5, 0] {
        sim.turn();
        assert_eq!(sim.received(client).matches("$1008\r\n").count(), answers);
    }
}

#[test]
fn the_labels_of_a_connection_end_with_it() {
    let mut sim = hub(limits());
    let first = sim.accepted();
    sim.send(
        first,
        "CLIENT SETNAME me\r\nCLIENT SETINFO lib-name mine\r\nCLIENT SETINFO lib-ver 1.2\r\n",
    );
    sim.turns(4);
    let info = sim.exchange(first, "CLIENT INFO\r\n");
    assert!(info.contains(" name=me ") && info.contains(" lib-name=mine lib-ver=1.2 "), "{info}");
    sim.net().client_close(first);
    sim.turns(2);
    let second = sim.accepted();
    let info = sim.exchange(second, "CLIENT INFO\r\n");
    assert!(info.contains(" name= ") && info.contains(" lib-name= lib-ver= "), "{info}");
}

/// AUTH and HELLO carry the password, and CONFIG carries settings of the operator.
#[test]
fn monitor_shows_no_command_with_a_secret() {
    let mut sim = hub(limits());
    let (client, monitor) = (sim.accepted(), sim.accepted());
    sim.exchange(monitor, "MONITOR\r\n");
    for command in [
        "CONFIG GET save\r\n",
        "CONFIG SET idle-timeout 5m\r\n",
        "AUTH default x\r\n",
        "HELLO 3\r\n",
        "QUIT\r\n",
    ] {
        sim.exchange(client, command);
    }
    assert_eq!(sim.received(monitor), "");
}

#[test]
fn config_get_refuses_a_seventeenth_pattern_and_one_of_257_bytes() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    for (length, count, error) in [
        (255, 1, ""),
        (256, 1, ""),
        (257, 1, "-ERR the pattern has 257 bytes; accepted: up to 256 bytes (--max-pattern)\r\n"),
        (5, 15, ""),
        (5, 16, ""),
        (5, 17, "-ERR too many patterns; accepted: up to 16 per command\r\n"),
    ] {
        let answer = sim.exchange(
            client,
            format!("CONFIG GET{}\r\n", format!(" {}", "x".repeat(length)).repeat(count)),
        );
        assert_eq!(
            answer,
            if error.is_empty() { "*0\r\n" } else { error },
            "{count} of {length} bytes"
        );
    }
}

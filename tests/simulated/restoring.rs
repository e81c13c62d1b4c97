//! Subscribing to everything again after a reconnect: commands with as many names as a session may
//! hold, and their confirmations.

use slabd::connection::Reason;
use slabd::limits::{Limits, SLICE_BYTES, SLICE_NAMES};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, Sim, hub, limits};

/// Returns a command as an array of bulk strings.
fn multibulk(word: &str, names: &[String]) -> String {
    let words = std::iter::once(word).chain(names.iter().map(String::as_str));
    let bulks: String = words.map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", names.len() + 1)
}

/// Returns the confirmation of a name in RESP2.
fn confirmation(word: &str, name: &str, count: usize) -> String {
    format!("*3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len())
}

/// The commands of each kind, and a suffix for its names.
const KINDS: [(&str, &str, &str); 4] = [
    ("subscribe", "unsubscribe", ""),
    ("ssubscribe", "sunsubscribe", ""),
    ("psubscribe", "punsubscribe", "*"),
    ("psubscribe", "punsubscribe", "*?"),
];

fn names(count: usize, suffix: &str) -> Vec<String> {
    (0..count).map(|number| format!("room:{number}:presence{suffix}")).collect()
}

/// Returns limits with room for many patterns.
fn wide() -> Limits {
    Limits {
        max_patterns_per_connection: 50_000,
        max_other_patterns: 50_000,
        memory_budget: 1 << 30,
        subscription_memory: 256 << 20,
        ..limits()
    }
}

/// Takes all that the client gets, until it has `length` bytes or nothing comes for some turns.
fn read_on(sim: &mut Sim, client: ClientId, length: usize) -> String {
    let (mut text, mut idle) = (String::new(), 0);
    while text.len() < length && idle < 40 {
        sim.turn();
        let more = sim.received(client);
        idle = if more.is_empty() { idle + 1 } else { 0 };
        text += &more;
    }
    text
}

#[test]
fn one_command_subscribes_to_as_many_names_as_a_session_holds_and_one_ends_them() {
    for (begin, end, suffix) in KINDS {
        for count in [SLICE_NAMES - 1, SLICE_NAMES, SLICE_NAMES + 1, 1023, 1024, 1500, 5000] {
            let mut sim = hub(wide());
            let client = sim.accepted();
            let names = names(count, suffix);
            for round in 0..2 {
                sim.send(client, multibulk(begin, &names));
                let expected: String = names
                    .iter()
                    .zip(1..)
                    .map(|(name, count)| confirmation(begin, name, count))
                    .collect();
                let got = read_on(&mut sim, client, expected.len());
                assert!(got == expected, "{begin} of {count} names, round {round}");
                let command = if round == 0 { multibulk(end, &names) } else { multibulk(end, &[]) };
                sim.send(client, command);
                let order: Vec<&String> = match round {
                    0 => names.iter().collect(),
                    _ => names.iter().rev().collect(),
                };
                let counts = (0..count).rev();
                let expected: String = order
                    .into_iter()
                    .zip(counts)
                    .map(|(name, count)| confirmation(end, name, count))
                    .collect();
                let got = read_on(&mut sim, client, expected.len());
                assert!(got == expected, "{end} of {count} names, round {round}");
            }
            assert_eq!(sim.exchange(client, "PING\r\n"), "+PONG\r\n");
        }
    }
}

#[test]
fn a_session_holds_50_000_channels_and_gives_them_up_by_each_way() {
    let names = names(50_000, "");
    for way in ["UNSUBSCRIBE\r\n", "RESET\r\n", "QUIT\r\n", ""] {
        let mut sim = hub(wide());
        let (client, other) = (sim.accepted(), sim.accepted());
        for half in names.chunks(25_000) {
            sim.send(client, multibulk("SUBSCRIBE", half));
        }
        let got = read_on(&mut sim, client, usize::MAX);
        assert_eq!(got.matches("subscribe\r\n").count(), 50_000);
        assert!(got.ends_with(":50000\r\n"));
        assert_eq!(sim.exchange(other, "PUBLISH room:0:presence x\r\n"), ":1\r\n");
        sim.send(client, way);
        if way.is_empty() {
            sim.net().client_reset(client);
        }
        let got = read_on(&mut sim, client, usize::MAX);
        let expected = match way {
            "RESET\r\n" => "+RESET\r\n",
            "QUIT\r\n" => "+OK\r\n",
            "" => "",
            _ => "$15\r\nroom:0:presence\r\n:0\r\n",
        };
        assert!(got.ends_with(expected), "{way}");
        sim.turns(500);
        for name in ["room:0:presence", "room:49999:presence"] {
            assert_eq!(sim.exchange(other, format!("PUBLISH {name} x\r\n")), ":0\r\n", "{way}");
        }
    }
}

#[test]
fn an_inline_command_with_many_names_is_served_as_a_multibulk_one() {
    for (count, line_end) in [(SLICE_NAMES + 1, "\r\n"), (4000, "\n"), (4000, " \t\r\n")] {
        let mut sim = hub(wide());
        let client = sim.accepted();
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let quoted: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(at, name)| match at % 3 {
                0 => name.clone(),
                1 => format!("\"{name}\""),
                _ => format!(" '{name}'"),
            })
            .collect();
        sim.send(client, format!("SUBSCRIBE {}{line_end}PING x\r\n", quoted.join(" ")));
        let mut expected: String = names
            .iter()
            .zip(1..)
            .map(|(name, count)| confirmation("subscribe", name, count))
            .collect();
        expected += "*2\r\n$4\r\npong\r\n$1\r\nx\r\n";
        assert!(read_on(&mut sim, client, expected.len()) == expected, "{count} names");
    }
}

#[test]
fn confirmations_stop_while_the_client_does_not_read() {
    for (begin, _, suffix) in KINDS {
        let mut sim = hub(Limits { max_pattern: 1000, ..wide() });
        let client = sim.accepted();
        sim.net().set_window(client, 0);
        let long = "x".repeat(200);
        let names: Vec<String> =
            (0..4000).map(|number| format!("{number}{long}{suffix}")).collect();
        sim.send(client, multibulk(begin, &names) + "PING last\r\n");
        sim.turns(200);
        let ledger = sim.reactor.ledger();
        let slice = SLICE_BYTES + SLICE_NAMES * 64;
        let most = 2 * (limits().high_watermark + slice).next_power_of_two();
        assert!(ledger.write_buffers <= most, "{} bytes wait", ledger.write_buffers);
        // A reader that takes little at a time is not closed for it.
        let mut got = String::new();
        while !got.ends_with("last\r\n") {
            sim.net().set_window(client, 16 * 1024);
            sim.pass(SECOND);
            got += &sim.received(client);
        }
        assert_eq!(got.matches(&format!("{begin}\r\n")).count(), 4000);
        assert_eq!(sim.net().client_saw(client), End::Open);
        assert_eq!(sim.closed(Reason::OutputLimit) + sim.closed(Reason::MessageTimeout), 0);
    }
}

#[test]
fn messages_and_later_commands_keep_their_order_beside_a_long_command() {
    let mut sim = hub(wide());
    let (client, publisher) = (sim.accepted(), sim.accepted());
    let names = names(3000, "");
    sim.send(client, "SUBSCRIBE first\r\n");
    sim.turns(2);
    sim.received(client);
    sim.send(client, multibulk("SUBSCRIBE", &names) + "UNSUBSCRIBE first\r\nPING end\r\n");
    let mut got = String::new();
    for number in 0..60 {
        sim.send(publisher, format!("PUBLISH first {number:03}\r\n"));
        sim.turn();
        got += &sim.received(client);
    }
    got += &read_on(&mut sim, client, usize::MAX);
    let ended = got.find("unsubscribe\r\n").unwrap();
    let messages: Vec<&str> =
        got.split("message\r\n$5\r\nfirst\r\n$3\r\n").skip(1).map(|rest| &rest[..3]).collect();
    assert!(messages.len() > 1 && messages.is_sorted(), "{messages:?}");
    assert!(got.rfind("message\r\n$5\r\nfirst").unwrap() < ended);
    assert!(got.ends_with("$4\r\npong\r\n$3\r\nend\r\n"));
    let receivers = sim.received(publisher);
    assert_eq!(receivers.matches(":1\r\n").count(), messages.len());
}

#[test]
fn a_name_refused_in_the_middle_ends_the_command_and_what_is_confirmed_stands() {
    for most in [SLICE_NAMES - 1, SLICE_NAMES, SLICE_NAMES + 1, 777] {
        let mut sim = hub(Limits { max_patterns_per_connection: most, ..wide() });
        let client = sim.accepted();
        sim.send(client, multibulk("PSUBSCRIBE", &names(1000, "*")) + "PING x\r\n");
        let got = read_on(&mut sim, client, usize::MAX);
        let end = format!(
            ":{most}\r\n-ERR too many subscriptions; the limit is {most} patterns per connection \
             (--max-patterns-per-connection)\r\n*2\r\n$4\r\npong\r\n$1\r\nx\r\n"
        );
        assert!(got.ends_with(&end), "{most}: {}", &got[got.len() - 200..]);
        assert_eq!(got.matches("psubscribe\r\n").count(), most);
    }
}

#[test]
fn a_client_that_leaves_during_a_long_command_leaves_nothing_behind() {
    for command in [multibulk("SUBSCRIBE", &names(5000, "")), "UNSUBSCRIBE\r\n".into()] {
        let mut sim = hub(wide());
        let (client, other) = (sim.accepted(), sim.accepted());
        sim.send(client, multibulk("SUBSCRIBE", &names(5000, "")));
        read_on(&mut sim, client, usize::MAX);
        sim.net().set_window(client, 0);
        sim.send(client, command);
        sim.turns(3);
        sim.net().client_reset(client);
        sim.turns(200);
        assert_eq!(sim.exchange(other, "PUBSUB CHANNELS\r\n"), "*0\r\n");
    }
}

#[test]
fn the_subscriptions_of_an_ended_session_end_over_several_turns() {
    let mut sim = hub(wide());
    let (client, other) = (sim.accepted(), sim.accepted());
    sim.send(client, multibulk("SUBSCRIBE", &names(10_000, "")));
    read_on(&mut sim, client, usize::MAX);
    sim.net().client_reset(client);
    sim.turn();
    // 4,096 subscriptions end in each turn, the latest first.
    for (turn, receivers) in [1, 1, 1, 0].into_iter().enumerate() {
        sim.send(other, "PUBLISH room:0:presence x\r\n");
        sim.turn();
        assert_eq!(sim.received(other), format!(":{receivers}\r\n"), "turn {turn}");
    }
}

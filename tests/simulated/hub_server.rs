//! Commands about the server and its clients: their answers, and their budgets of a turn.

use std::time::Duration;

use slabd::limits::{
    ASKED_MAX, ASKERS_RESUMED, CLIENT_INFO_STEPS, CLOSED_KEPT, CLOSED_LINE_STEPS, CONFIG_STEPS,
    INFO_STEPS, Limits, WALK_STEPS_PER_TURN,
};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, Sim, hub, limits, subscriber};

#[test]
fn client_list_takes_ids_in_any_order_and_more_than_once() {
    let mut sim = hub(limits());
    let clients: Vec<ClientId> = (0..9).map(|_| sim.accepted()).collect();
    let list = sim.exchange(clients[0], "CLIENT LIST ID 7 2 9 2 1 1000\r\n");
    let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    assert_eq!(ids.collect::<Vec<_>>(), ["1", "2", "7", "9"], "{list}");
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
fn config_set_changes_the_limits_of_the_loop() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "CONFIG SET idle-timeout 77s\r\n"), "+OK\r\n");
    assert_eq!(sim.reactor.limits().idle_timeout, 77 * SECOND);
    let answer = sim.exchange(client, "CONFIG SET idle-timeout never-ever\r\n");
    assert!(answer.starts_with("-ERR CONFIG SET failed"), "{answer}");
    assert_eq!(sim.reactor.limits().idle_timeout, 77 * SECOND);
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

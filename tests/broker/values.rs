//! Retained values in the broker: they outlive every server, and are the same on all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::Engine;
use crate::support::{Client, PATIENCE, Server};
use crate::{node, wait_for_subscribers};

const RULES: [&str; 4] = ["--retain", r#"{"channel":"cells","key":"k"}"#, "--retain", "news"];

/// Key → message.
type Values = BTreeMap<String, String>;

/// Returns all pages of the values of a server.
fn values(address: SocketAddr) -> Values {
    let (mut values, mut after) = (Values::new(), String::new());
    loop {
        let mut client = Client::connect(address);
        client.send(format!(
            "GET /retained/cells{after} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        let mut answer = String::new();
        client.0.read_to_string(&mut answer).expect("the server answers");
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        let page: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        for value in page["values"].as_array().expect("values") {
            values.insert(value["k"].to_string(), value.to_string());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("?after={next}"),
            None => return values,
        }
    }
}

/// Returns the values of the broker.
fn stored(engine: &Engine) -> Values {
    let mut client = Client::connect(engine.address);
    client.send("HGETALL slabd:retained:cells\r\n");
    let count: usize = client.read_line()[1..].parse().expect("a number");
    let words: Vec<String> = (0..count)
        .map(|_| {
            client.read_line();
            client.read_line()
        })
        .collect();
    let pairs = words.chunks_exact(2).filter(|pair| pair[0] != "seq" && pair[0] != "life");
    let payload = |text: &str| {
        let (_, payload) = text.split_once(' ').expect("a number and a message");
        serde_json::from_str::<Value>(payload).expect("JSON").to_string()
    };
    pairs.map(|pair| (pair[0].clone(), payload(&pair[1]))).collect()
}

/// Waits until the servers and the broker have these values.
#[track_caller]
fn wait_until_equal(engine: &Engine, nodes: &[&Server], expected: &Values) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Vec<Values> =
            nodes.iter().map(|node| values(node.address("hub"))).chain([stored(engine)]).collect();
        if all.iter().all(|values| values == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{all:#?}\nexpected: {expected:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn message(key: u32, number: u32) -> String {
    format!(r#"{{"k":{key},"n":{number}}}"#)
}

/// Publishes a message, and expects it among the values.
fn put(address: SocketAddr, key: u32, number: u32, expected: &mut Values) {
    publish(address, &message(key, number));
    expected.insert(key.to_string(), message(key, number));
}

fn command(payload: &str) -> String {
    let length = payload.len();
    format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\ncells\r\n${length}\r\n{payload}\r\n")
}

fn publish(address: SocketAddr, payload: &str) {
    let mut client = Client::connect(address);
    client.send(command(payload));
    assert!(client.read_line().starts_with(':'));
}

/// Everything ends and starts anew, one after the other, and values change on all sides.
fn values_outlive_everything(mut engine: Engine) {
    let [mut one, mut two] = [(); 2].map(|()| node(engine.address, &RULES));
    let mut expected = Values::new();
    wait_for_subscribers(&engine, "cells", 2);
    for key in 0..300 {
        put(one.address("hub"), key, 1, &mut expected);
    }
    put(two.address("hub"), 1, 2, &mut expected);
    put(engine.address, 2, 2, &mut expected);
    put(engine.address, 1000, 2, &mut expected);
    publish(two.address("hub"), r#"{"k":3,"deleted":true}"#);
    expected.remove("3");
    wait_until_equal(&engine, &[&one, &two], &expected);

    one.kill();
    put(two.address("hub"), 4, 3, &mut expected);
    one = node(engine.address, &RULES);
    wait_until_equal(&engine, &[&one, &two], &expected);

    engine.kill();
    one.wait_for_log("the link to the broker is down");
    two.wait_for_log("the link to the broker is down");
    put(one.address("hub"), 5, 4, &mut expected);
    put(two.address("hub"), 6, 4, &mut expected);
    engine.restart();
    one.wait_for_log("the link to the broker is up");
    two.wait_for_log("the link to the broker is up");
    wait_until_equal(&engine, &[&one, &two], &expected);

    // A removal while the broker is away, and a value of somebody else directly before a restart.
    engine.kill();
    one.wait_for_log("the link to the broker is down");
    two.kill();
    publish(one.address("hub"), r#"{"k":7,"deleted":true}"#);
    expected.remove("7");
    engine.restart();
    one.wait_for_log("the link to the broker is up");
    two = node(engine.address, &RULES);
    put(engine.address, 8, 5, &mut expected);
    wait_until_equal(&engine, &[&one, &two], &expected);

    // No server is left that knows the values.
    drop((one, two));
    let [one, two] = [(); 2].map(|()| node(engine.address, &RULES));
    wait_until_equal(&engine, &[&one, &two], &expected);
}

#[test]
fn values_outlive_servers_and_a_redis_that_forgets() {
    let Some(engine) = Engine::redis(&[]) else { return };
    values_outlive_everything(engine);
}

#[test]
fn values_outlive_servers_and_a_redis_that_keeps_them() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("values");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let folder = folder.to_str().expect("the path is text");
    let keeps = ["--appendonly", "yes", "--appendfsync", "always", "--dir", folder];
    let Some(engine) = Engine::redis(&keeps) else { return };
    values_outlive_everything(engine);
}

#[test]
fn values_outlive_servers_and_valkey() {
    let Some(engine) = Engine::valkey() else { return };
    values_outlive_everything(engine);
}

#[test]
fn values_outlive_servers_over_resp2() {
    let Some(engine) = Engine::redis(&["--rename-command", "HELLO", ""]) else { return };
    values_outlive_everything(engine);
}

/// The most fields that Redis keeps in order, and a value that is too large for one reply.
#[test]
fn large_values_and_many_small_ones_are_read_back() {
    let Some(engine) = Engine::redis(&["--hash-max-listpack-entries", "2000"]) else { return };
    let one = node(engine.address, &RULES);
    let mut expected = Values::new();
    let mut client = Client::connect(one.address("hub"));
    for key in 0..1500 {
        client.send(command(&message(key, 1))).expect(":0\r\n");
        expected.insert(key.to_string(), message(key, 1));
    }
    wait_until_equal(&engine, &[&one], &expected);
    one.kill();
    let two = node(engine.address, &RULES);
    wait_until_equal(&engine, &[&two], &expected);
    for key in 1500..1510 {
        let payload = format!(r#"{{"k":{key},"x":"{}"}}"#, "x".repeat(900_000));
        publish(two.address("hub"), &payload);
        expected.insert(key.to_string(), payload);
    }
    wait_until_equal(&engine, &[&two], &expected);
    two.kill();
    let one = node(engine.address, &RULES);
    wait_until_equal(&engine, &[&one], &expected);
}

#[test]
fn values_stay_on_a_server_if_the_broker_refuses_scripts() {
    let Some(engine) = Engine::redis(&["--rename-command", "EVAL", ""]) else { return };
    let mut one = node(engine.address, &RULES);
    one.wait_for_log("retained values stay on each server");
    wait_for_subscribers(&engine, "cells", 1);
    publish(one.address("hub"), &message(1, 1));
    publish(engine.address, &message(2, 2));
    let deadline = Instant::now() + PATIENCE;
    while values(one.address("hub")).len() < 2 {
        assert!(Instant::now() < deadline, "the values are not kept");
    }
    assert!(stored(&engine).is_empty());
}

/// Reads messages of RESP2 until one has this payload. Returns the payloads.
fn read_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    while payloads.last().is_none_or(|payload| payload != last) {
        for _ in 0..6 {
            client.read_line();
        }
        payloads.push(client.read_line());
    }
    payloads
}

/// Newcomers come to both servers while values change on both and at the broker.
#[test]
fn a_newcomer_on_any_server_misses_no_change_and_sees_none_twice() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &RULES));
    wait_for_subscribers(&engine, "cells", 2);
    let addresses = [nodes[0].address("hub"), nodes[1].address("hub"), engine.address];
    let mut publishers = addresses.map(Client::connect);
    let mut random = fastrand::Rng::with_seed(5);
    let mut newcomers: Vec<Client> = Vec::new();
    for number in 0..6000u32 {
        let publisher = &mut publishers[random.usize(..3)];
        publisher.send(command(&message(random.u32(..500), number)));
        assert!(publisher.read_line().starts_with(':'));
        if number % 600 == 300 {
            let mut client = Client::connect(addresses[newcomers.len() % 2]);
            client.send("CLIENT RETAINED ON\r\nSUBSCRIBE cells\r\n").expect("+OK\r\n");
            client.expect("*3\r\n$9\r\nsubscribe\r\n$5\r\ncells\r\n:1\r\n");
            newcomers.push(client);
        }
    }
    // Messages of different publishers overtake each other on their ways to the broker.
    for (publisher, number) in publishers.iter_mut().zip(0..) {
        publisher.send(command(&message(9000 + number, 0)));
        assert!(publisher.read_line().starts_with(':'));
    }
    let wait_for = |keys: &[&str]| {
        let deadline = Instant::now() + PATIENCE;
        for address in &addresses[..2] {
            while !keys.iter().all(|key| values(*address).contains_key(*key)) {
                assert!(Instant::now() < deadline, "{keys:?} do not arrive");
            }
        }
    };
    wait_for(&["9000", "9001", "9002"]);
    let last = message(9999, 9999);
    publish(addresses[0], &last);
    wait_for(&["9999"]);
    let expected = values(addresses[1]);
    wait_until_equal(&engine, &[&nodes[0], &nodes[1]], &expected);
    for (number, mut client) in newcomers.into_iter().enumerate() {
        let payloads = read_until(&mut client, &last);
        let distinct: BTreeSet<&String> = payloads.iter().collect();
        assert_eq!(distinct.len(), payloads.len(), "newcomer {number} sees a message twice");
        let key = |payload: &String| {
            let value: Value = serde_json::from_str(payload).expect("JSON");
            (value["k"].to_string(), payload.clone())
        };
        let known: Values = payloads.iter().map(key).collect();
        assert_eq!(known, expected, "newcomer {number}");
    }
}

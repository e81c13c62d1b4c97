//! What crosses the broker: messages of all protocols, patterns, prefixes, and what stays local.

use std::io::Read;
use std::path::Path;

use crate::engine::{Engine, slabd};
use crate::support::programs::{bounded, installed, succeeded};
use crate::support::{Client, Server, ask, datagrams};
use crate::{message, node, subscribed, subscriber, wait_for_subscribers};

/// A message from each node and from the broker reaches the subscribers of each node, once.
fn messages_cross(engine: &Engine, nodes: &[Server]) {
    let mut subscribers: Vec<Client> = nodes.iter().map(|node| subscriber(node, "news")).collect();
    wait_for_subscribers(engine, "news", nodes.len());
    let publishers = nodes.iter().map(|node| node.address("hub")).chain([engine.address]);
    for (number, publisher) in publishers.enumerate() {
        let mut publisher = Client::connect(publisher);
        publisher.send(format!("PUBLISH news {number}\r\n"));
        assert!(publisher.read_line().starts_with(':'));
        for subscriber in &mut subscribers {
            subscriber.expect(message("news", &number.to_string()));
        }
    }
}

#[test]
fn a_message_reaches_the_subscribers_of_all_nodes_over_redis() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 3].map(|()| node(engine.address, &[]));
    messages_cross(&engine, &nodes);
}

#[test]
fn a_message_reaches_the_subscribers_of_all_nodes_over_valkey() {
    let Some(engine) = Engine::valkey() else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &[]));
    messages_cross(&engine, &nodes);
}

/// Both servers are quiet otherwise, and the kernel takes a part of the message at a time.
#[test]
fn a_large_message_crosses_the_broker() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &[]));
    let mut client = subscriber(&nodes[0], "news");
    wait_for_subscribers(&engine, "news", 1);
    let payload = "x".repeat(12 << 20);
    let mut publisher = Client::connect(nodes[1].address("hub"));
    let length = payload.len();
    publisher.send(format!("*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n${length}\r\n{payload}\r\n"));
    publisher.expect(":0\r\n");
    client.expect(message("news", &payload));
    publisher.send("PUBLISH news after\r\n").expect(":0\r\n");
    client.expect(message("news", "after"));
}

/// The channel layer of Django, whose groups are channels of the hub.
#[test]
fn a_slabd_is_the_broker_of_channels_redis() {
    let Some(python) = installed("venv/bin/python") else { return };
    let server = slabd();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/channel_layer.py");
    let address = format!("redis://{}", server.address("hub"));
    let output = bounded(python).arg(script).arg(address).output().expect("Python runs");
    assert!(succeeded("channel_layer.py", &output).contains("all messages arrived"));
}

/// A broker that does not know HELLO gets two connections of RESP2.
#[test]
fn a_broker_that_speaks_only_resp2_gets_two_connections() {
    let Some(engine) = Engine::redis(&["--rename-command", "HELLO", ""]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &[]));
    messages_cross(&engine, &nodes);
    let mut client = Client::connect(engine.address);
    client.send("CLIENT LIST\r\n");
    let mut chunk = [0; 65_536];
    let length = client.0.read(&mut chunk).unwrap();
    let list = String::from_utf8_lossy(&chunk[..length]);
    assert_eq!(list.matches("name=slabd").count(), 4, "{list}");
}

#[test]
fn a_slabd_is_the_broker_of_others() {
    let broker = slabd();
    let address = broker.address("hub");
    let nodes = [(); 2].map(|()| node(address, &[]));
    let mut subscribers: Vec<Client> = nodes.iter().map(|node| subscriber(node, "news")).collect();
    let mut beside = subscribed(address, "news");
    let mut publisher = Client::connect(nodes[0].address("hub"));
    // The nodes subscribe in their own time.
    let mut broker_client = Client::connect(address);
    loop {
        broker_client.send("PUBSUB NUMSUB news\r\n").expect("*2\r\n$4\r\nnews\r\n");
        if broker_client.read_line() == ":3" {
            break;
        }
    }
    publisher.send("PUBLISH news x\r\n").expect(":1\r\n");
    subscribers.iter_mut().chain([&mut beside]).for_each(|client| {
        client.expect(message("news", "x"));
    });
}

/// A subscriber of a channel and of patterns that match it gets a message once for each, as from
/// Redis.
#[test]
fn each_subscription_that_matches_gets_a_message_once() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &[]));
    let mut client = subscriber(&nodes[0], "a.b");
    client.send("PSUBSCRIBE a.*\r\n").expect("*3\r\n$10\r\npsubscribe\r\n$3\r\na.*\r\n:2\r\n");
    wait_for_subscribers(&engine, "a.b", 1);
    let mut publisher = Client::connect(nodes[1].address("hub"));
    for payload in ["1", "2"] {
        publisher.send(format!("PUBLISH a.b {payload}\r\n")).expect(":0\r\n");
        let by_pattern = format!(
            "*4\r\n$8\r\npmessage\r\n$3\r\na.*\r\n$3\r\na.b\r\n${}\r\n{payload}\r\n",
            payload.len()
        );
        client.expect(message("a.b", payload) + &by_pattern);
    }
    client.send("PING\r\n").expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

#[test]
fn channels_that_are_not_shared_stay_local_and_a_prefix_keeps_servers_apart() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let shared = ["--broker-channels", "open.*", "--broker-prefix", "app:"];
    let nodes = [(); 2].map(|()| node(engine.address, &shared));
    let mut local = [0, 1].map(|index| subscriber(&nodes[index], "local"));
    let mut open = [0, 1].map(|index| subscriber(&nodes[index], "open.x"));
    wait_for_subscribers(&engine, "app:open.x", 2);
    let mut publisher = Client::connect(nodes[0].address("hub"));
    publisher.send("PUBLISH local 1\r\n").expect(":1\r\n");
    publisher.send("PUBLISH open.x 2\r\n").expect(":1\r\n");
    let mut outside = Client::connect(engine.address);
    outside.send("PUBLISH open.x 3\r\nPUBLISH local 4\r\nPUBLISH app:open.x 5\r\n");
    outside.expect(":0\r\n:0\r\n:2\r\n");
    local[0].expect(message("local", "1"));
    open.iter_mut().for_each(|client| {
        client.expect(message("open.x", "2") + &message("open.x", "5"));
    });
    for client in local.iter_mut().chain(&mut open) {
        client.send("PING\r\n").expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    }
}

/// HTTP, WebSocket, server-sent events and datagrams publish and subscribe over the broker.
#[test]
fn every_protocol_crosses_the_broker() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &[]));
    let [here, there] = [0, 1].map(|index| nodes[index].address("hub"));
    let mut events = Client::connect(there);
    events.send("GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
    loop {
        if events.read_line() == ":" {
            break;
        }
    }
    events.expect("\n");
    wait_for_subscribers(&engine, "news", 1);
    let mut resp = Client::connect(here);
    resp.send("PUBLISH news resp\r\n").expect(":0\r\n");
    events.expect("data: resp\n\n");
    assert_eq!(ask(&datagrams(here), b"PUBLISH news datagram\r\n"), b":0\r\n");
    events.expect("data: datagram\n\n");
    let mut http = Client::connect(here);
    http.send("POST /publish/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nhttp");
    events.expect("data: http\n\n");
}

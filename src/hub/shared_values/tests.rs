//! Several hubs, a model of a broker, and faults: in the end all have the same values.

#[cfg(test)]
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::broker_settings::{BrokerPrefix, BrokerSettings, SharedPattern};
use crate::clock::Time;
use crate::hub::Hub;
use crate::hub::broker::model::{ModelBroker, ModelConnection};
use crate::hub::channels::Kind;
use crate::hub::retained::tests::keyed;
use crate::hub::tests::{connect, exchange, subscribe};
use crate::limits::RETAINED_MEMORY;
use crate::outbox::Outbox;
use crate::retain_rule::RetainRule;
use crate::service::server::NoServer;
use crate::service::{ConnectionId, Options, Output, Reply, Service, Taken};

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// A hub, its connections to the broker, and what its clients have got.
struct Node {
    hub: Hub,
    /// Connection → the broker's number of it, and what the hub has not used yet.
    wires: BTreeMap<u32, (usize, Vec<u8>)>,
    /// Client 0 is subscribed to the channel, client 1 to a pattern. Client 2 may be a newcomer.
    got: [Vec<u8>; 3],
    seed: u64,
}

struct World {
    nodes: Vec<Node>,
    broker: ModelBroker,
    now: Time,
    random: fastrand::Rng,
    last_wire: u32,
    rule: RetainRule,
    /// True if a link may break between a message and its copy for a pattern. The client of the
    /// pattern is only told of a gap then.
    breaks: bool,
    /// `--retained-memory` of all hubs, in bytes.
    memory: usize,
    /// Bytes move in pieces of random sizes up to this.
    piece: usize,
}

const HASH: &[u8] = b"slabd:retained:a";

impl World {
    fn new(is_new: bool, nodes: usize, rule: RetainRule, seed: u64) -> World {
        let mut world = World {
            nodes: Vec::new(),
            broker: ModelBroker::new(is_new),
            now: Time::ZERO + Duration::from_secs(1),
            random: fastrand::Rng::with_seed(seed),
            last_wire: 1000,
            rule,
            breaks: false,
            memory: RETAINED_MEMORY,
            piece: usize::MAX,
        };
        for number in 0..nodes {
            let node = world.node(1 + seed * 16 + number as u64);
            world.nodes.push(node);
        }
        world
    }

    fn node(&self, seed: u64) -> Node {
        let broker = BrokerSettings {
            urls: vec!["redis://127.0.0.1".parse().unwrap()],
            prefix: BrokerPrefix::default(),
            channels: vec![SharedPattern::default()],
            password: None,
            max_message: 1 << 20,
        };
        let retain = vec![self.rule.clone()];
        let options =
            Options { broker: Some(broker), sid_key: Some(seed), retain, ..Options::default() };
        let mut hub = Hub::new(&options);
        (0..3).for_each(|client| connect(&mut hub, client));
        subscribe(&mut hub, 0, Kind::Channel, b"a");
        subscribe(&mut hub, 1, Kind::Pattern, b"a*");
        Node { hub, wires: BTreeMap::new(), got: Default::default(), seed }
    }

    /// Ends a hub and starts it anew, without its values.
    fn restart(&mut self, at: usize) {
        for (index, _) in self.nodes[at].wires.values() {
            self.broker.connections[*index] = ModelConnection::default();
        }
        self.nodes[at] = self.node(self.nodes[at].seed + 1_000_000);
    }

    /// Runs one turn of a hub, and moves bytes between it and the broker.
    fn turn(&mut self, at: usize) {
        let World { nodes, broker, now, random, last_wire, memory, piece, .. } = self;
        let node = &mut nodes[at];
        let mut length = |all: usize| match *piece {
            usize::MAX => all,
            piece => random.usize(1..=all.min(piece)),
        };
        let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
        server.limits.retained_memory = *memory;
        node.hub.collect(&mut Output::new(*now, &mut server, &mut outbox, 10_000, 64 << 20));
        node.hub.check_invariants();
        for (connection, _) in &server.killed {
            let (index, _) = node.wires.remove(&connection.0).unwrap();
            broker.connections[index] = ModelConnection::default();
        }
        for entry in outbox.entries() {
            let payload = outbox.payload(entry.payload).map_or(&[][..], |payload| payload.bytes());
            let bytes = [outbox.bytes(&entry.range), payload].concat();
            match node.wires.get(&entry.slot) {
                Some((index, _)) => broker.receive(*index, &bytes),
                None => node.got[entry.slot as usize].extend(bytes),
            }
        }
        for (_, dial) in outbox.take_dials() {
            *last_wire += 1;
            let mut bytes = Vec::new();
            let mut reply = Reply::to(ConnectionId(*last_wire), *now, &mut bytes);
            if broker.accepts {
                node.wires.insert(*last_wire, (broker.connect(), Vec::new()));
                let address = "127.0.0.1:6379".parse().unwrap();
                node.hub.dialled(dial.number, Ok(address), &mut reply);
            } else {
                let mut reply = Reply::to_nobody(*now, &mut bytes);
                node.hub.dialled(dial.number, Err("connection refused".into()), &mut reply);
            }
        }
        for connection in node.wires.keys().copied().collect::<Vec<_>>() {
            let Some((index, held)) = node.wires.get_mut(&connection) else { continue };
            let own = &mut broker.connections[*index];
            if own.output.is_empty() && !own.is_open {
                node.wires.remove(&connection);
                node.hub.shared.lost_wire(ConnectionId(connection), now.tick());
                continue;
            }
            if own.output.is_empty() {
                continue;
            }
            let some = length(own.output.len());
            held.extend(own.output.drain(..some));
            let mut bytes = Vec::new();
            let mut reply = Reply::to(ConnectionId(connection), *now, &mut bytes);
            loop {
                let taken = node.hub.receive(held, 0, &mut reply, &mut NoServer::default());
                match taken {
                    Taken::Message(used) if used > 0 => drop(held.drain(..used)),
                    _ => break,
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        let waits = |node: &Node| {
            let mut wires = node.wires.values();
            node.hub.has_output()
                || wires.any(|(index, _)| {
                    let own = &self.broker.connections[*index];
                    !own.output.is_empty() || !own.is_open
                })
        };
        self.nodes.iter().any(waits)
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            (0..self.nodes.len()).for_each(|at| self.turn(at));
            if !self.is_busy() {
                return;
            }
        }
        panic!("the hubs never rest");
    }

    /// Lets time pass, and does what is due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now.tick() != end.tick() {
            self.now = self.now + Duration::from_millis(16);
            let due = |node: &Node| {
                let at = node.hub.wakes_at();
                at.is_some_and(|at| at.distance_from(self.now.tick()) <= 0)
            };
            if self.nodes.iter().any(due) {
                self.settle();
            }
        }
    }

    fn publish(&mut self, at: usize, payload: &[u8]) {
        self.nodes[at].hub.shared.publish(b"a", payload).unwrap();
    }

    fn foreign(&mut self, payload: &[u8]) {
        self.broker.publish(None, b"a", payload);
    }

    /// Ends all links, until the broker accepts again.
    fn outage(&mut self) {
        self.broker.accepts = false;
        self.broker.kill();
        self.settle();
    }

    fn is_linked(&self, at: usize) -> bool {
        self.nodes[at].hub.shared.sharing.as_ref().unwrap().values.is_linked
    }

    fn published(&self, at: usize) -> u64 {
        self.nodes[at].hub.shared.sharing.as_ref().unwrap().link.counters().published
    }

    fn counters(&self, at: usize) -> ValueCounters {
        self.nodes[at].hub.shared.sharing.as_ref().unwrap().values.counters
    }

    /// Returns the values of a hub.
    fn values(&self, at: usize) -> Values {
        let retained = &self.nodes[at].hub.shared.retained;
        let (mut values, mut cursor) = (Values::new(), 0);
        while cursor < retained.last(0) {
            (cursor, _) = retained.read(0, cursor, |record| {
                if !record.is_grave {
                    values.insert(record.key.to_vec(), record.payload.to_vec());
                }
                true
            });
        }
        values
    }

    /// Returns the messages that a client has got.
    fn messages(&self, at: usize, client: usize) -> Vec<Vec<u8>> {
        let text = String::from_utf8(self.nodes[at].got[client].clone()).unwrap();
        let mut lines = text.split("\r\n");
        let mut messages = Vec::new();
        while let Some(head) = lines.next().filter(|head| !head.is_empty()) {
            let words: usize = head[1..].parse().unwrap();
            let last = (0..words).map(|_| lines.nth(1).unwrap()).last().unwrap();
            messages.push(last.as_bytes().to_vec());
        }
        messages
    }

    /// Returns the values that a client knows from its messages.
    fn known(&self, at: usize, client: usize) -> Values {
        let retained = &self.nodes[at].hub.shared.retained;
        let mut values = Values::new();
        for payload in self.messages(at, client) {
            let key = retained.change(0, &payload).unwrap();
            match key.removes {
                true => values.remove(&*key.text),
                false => values.insert(key.text.to_vec(), payload.clone()),
            };
        }
        values
    }

    /// Panics unless the hash, all hubs and their clients have the same values.
    fn agree(&self, what: &str) {
        let stored = self.broker.values(HASH);
        for at in 0..self.nodes.len() {
            assert_eq!(shown(&self.values(at)), shown(&stored), "{what}: hub {at} and the broker");
            for client in 0..if self.breaks { 1 } else { 2 } {
                let known = shown(&self.known(at, client));
                assert_eq!(known, shown(&stored), "{what}: client {client} of hub {at}");
            }
        }
    }
}

fn shown(values: &Values) -> Vec<String> {
    values.values().map(|value| String::from_utf8_lossy(value).into()).collect()
}

fn put(key: u32, number: u32) -> Vec<u8> {
    format!(r#"{{"k":{key},"n":{number}}}"#).into_bytes()
}

fn removed(key: u32) -> Vec<u8> {
    format!(r#"{{"k":{key},"deleted":true}}"#).into_bytes()
}

const BOTH: [bool; 2] = [true, false];
const SECOND: Duration = Duration::from_secs(1);

/// Returns two hubs whose links are up.
fn two(is_new: bool) -> World {
    let mut world = World::new(is_new, 2, keyed("a", 1000), 1);
    world.pass(5 * SECOND);
    world
}

#[test]
fn a_value_outlives_all_hubs() {
    for is_new in BOTH {
        let mut world = two(is_new);
        world.publish(0, &put(1, 1));
        world.publish(1, &put(2, 2));
        world.publish(0, &put(3, 3));
        world.settle();
        world.publish(1, &removed(3));
        world.publish(1, b"no key");
        world.settle();
        assert_eq!(world.broker.values(HASH).len(), 2);
        (0..2).for_each(|at| world.restart(at));
        world.pass(5 * SECOND);
        world.agree("after a restart");
        assert_eq!(world.values(0).len(), 2);
        assert_eq!(world.counters(0).read_back, 2);
    }
}

#[test]
fn changes_on_both_sides_of_an_outage_meet() {
    for is_new in BOTH {
        let mut world = two(is_new);
        (0..10).for_each(|key| world.publish(0, &put(key, 0)));
        world.settle();
        world.broker.accepts = false;
        world.broker.kill();
        world.settle();
        world.publish(0, &put(1, 1));
        world.publish(0, &removed(2));
        world.publish(1, &put(3, 3));
        world.publish(1, &put(20, 20));
        world.settle();
        world.broker.accepts = true;
        world.pass(5 * SECOND);
        world.agree("after the outage");
        let values = world.values(0);
        assert_eq!(values.len(), 10);
        assert_eq!(values[&b"1"[..]], put(1, 1));
        // A change is delivered once on its own side, too.
        let messages = world.messages(0, 0);
        assert_eq!(messages.iter().filter(|payload| **payload == put(1, 1)).count(), 1);
        let messages = world.messages(1, 1);
        assert_eq!(messages.iter().filter(|payload| **payload == put(3, 3)).count(), 1);
    }
}

#[test]
fn a_broker_that_has_forgotten_gets_all_values_back() {
    for is_new in BOTH {
        let mut world = two(is_new);
        (0..600).for_each(|key| world.publish(0, &put(key, 0)));
        world.settle();
        world.broker.hashes.clear();
        world.broker.kill();
        world.restart(1);
        world.pass(5 * SECOND);
        world.agree("after a loss");
        assert_eq!(world.values(1).len(), 600);
        // Values that vanish while the links are up are noticed with the next write.
        world.broker.hashes.clear();
        world.publish(1, &put(1, 1));
        world.pass(5 * SECOND);
        world.agree("after a silent loss");
        assert_eq!(world.values(1).len(), 600);
        assert!(world.counters(0).restored + world.counters(1).restored >= 1199);
    }
}

#[test]
fn a_hash_that_vanishes_while_it_is_read_is_restored() {
    for is_new in BOTH {
        let mut world = two(is_new);
        (0..900).for_each(|key| world.publish(0, &put(key, 0)));
        world.pass(SECOND);
        // All hubs read it when it vanishes.
        world.broker.kill();
        let is_reading = |world: &World, at: usize| {
            let values = &world.nodes[at].hub.shared.sharing.as_ref().unwrap().values;
            matches!(values.channel(0).unwrap().phase, ValuePhase::Reading(_))
        };
        let mut begun = [false; 2];
        while begun != [true; 2] {
            world.now = world.now + Duration::from_millis(16);
            for (at, begun) in begun.iter_mut().enumerate() {
                for _ in 0..20 {
                    *begun |= is_reading(&world, at);
                    if !*begun {
                        world.turn(at);
                    }
                }
            }
        }
        world.broker.hashes.clear();
        world.pass(5 * SECOND);
        assert_eq!(world.values(0).len(), 900);
        world.agree("after a loss");
    }
}

#[test]
fn messages_of_others_reach_the_hash_and_never_undo_a_later_write() {
    for is_new in BOTH {
        let mut world = two(is_new);
        world.foreign(&put(1, 1));
        world.foreign(&put(2, 2));
        world.foreign(&removed(2));
        world.settle();
        assert!(world.broker.values(HASH).is_empty(), "not yet");
        world.publish(0, &put(1, 7));
        world.foreign(&put(3, 3));
        world.pass(SECOND);
        world.agree("after messages of others");
        assert_eq!(world.values(1).len(), 2);
        assert_eq!(world.values(1)[&b"1"[..]], put(1, 7));
        world.publish(0, &put(4, 4));
        world.settle();
        world.foreign(&removed(4));
        world.pass(SECOND);
        world.agree("after a removal");
        assert!(world.counters(0).adopted + world.counters(1).adopted >= 2);
    }
}

#[test]
fn a_broker_without_scripts_passes_messages_as_before() {
    for (runs_scripts, error) in [(false, None), (true, Some("NOPERM no"))] {
        let mut world = World::new(true, 2, keyed("a", 1000), 1);
        world.broker.runs_scripts = runs_scripts;
        world.broker.script_error = error;
        world.pass(5 * SECOND);
        world.publish(0, &put(1, 1));
        world.foreign(&put(2, 2));
        world.pass(SECOND);
        assert_eq!(world.values(0), world.values(1));
        assert_eq!(world.values(0).len(), 2);
        assert!(world.broker.hashes.is_empty());
        assert_eq!(world.counters(0), ValueCounters::default());
    }
    // A broker that runs out of memory later refuses the one message.
    let mut world = two(true);
    world.broker.script_error = Some("OOM command not allowed");
    world.publish(0, &put(1, 1));
    world.settle();
    world.publish(0, &put(2, 2));
    world.settle();
    assert_eq!(world.values(1).len(), 1);
    // The hubs try again, and undo nothing.
    for error in ["OOM command not allowed", "BUSY a script runs"] {
        world.broker.script_error = Some(error);
        world.publish(1, &put(3, 0));
        world.pass(25 * SECOND);
        world.publish(1, &put(3, error.len() as u32));
        world.pass(SECOND);
        world.broker.script_error = None;
        world.pass(15 * SECOND);
        world.agree("after a refusal");
        assert_eq!(world.values(1).len(), 2);
        assert_eq!(world.values(1)[&b"3"[..]], put(3, error.len() as u32));
        let written = world.counters(0).written;
        world.publish(0, &put(2, 4));
        world.settle();
        assert_eq!(world.counters(0).written, written + 1);
    }
}

#[test]
fn changes_of_a_channel_that_the_broker_refuses_stay_here() {
    for is_new in BOTH {
        let mut world = two(is_new);
        world.outage();
        world.publish(0, &put(1, 1));
        world.broker.denied.insert(b"a".to_vec());
        world.broker.accepts = true;
        world.pass(5 * SECOND);
        assert!(world.is_linked(0));
        world.publish(0, &put(2, 2));
        world.settle();
        assert_eq!((world.values(0).len(), world.values(1).len()), (2, 0));
        // The next connection may be allowed to.
        world.broker.denied.clear();
        world.broker.kill();
        world.pass(5 * SECOND);
        world.publish(0, &put(3, 3));
        world.pass(SECOND);
        assert_eq!(world.broker.values(HASH)[&b"3"[..]], put(3, 3));
    }
}

#[test]
fn a_broker_that_goes_back_to_older_values_gets_the_newer_ones() {
    for is_new in BOTH {
        let mut world = two(is_new);
        (0..30).for_each(|key| world.publish(0, &put(key, 0)));
        world.settle();
        let older = world.broker.hashes.clone();
        for number in 1..40 {
            world.publish(1, &put(number % 8, number));
        }
        world.publish(0, &put(50, 50));
        world.settle();
        let newer = world.values(0);
        world.outage();
        world.broker.hashes = older;
        world.broker.accepts = true;
        world.pass(5 * SECOND);
        assert_eq!(shown(&world.values(0)), shown(&newer));
        world.agree("after a return to older values");
        // A server that comes later does not undo what has changed since.
        world.publish(0, &put(1, 100));
        world.settle();
        world.broker.kill();
        world.pass(5 * SECOND);
        world.agree("after another outage");
        assert_eq!(world.values(1)[&b"1"[..]], put(1, 100));
    }
}

#[test]
fn a_script_looks_at_few_values_if_they_are_large() {
    let mut world = two(true);
    (0..600).for_each(|key| world.publish(0, &put(key, 0)));
    world.settle();
    world.broker.looks.clear();
    world.restart(1);
    world.pass(5 * SECOND);
    assert_eq!(world.broker.looks[..6], [16, 32, 64, 128, 256, 512]);
    assert!(world.broker.looks.iter().all(|looks| *looks <= 512));
    let mut world = two(true);
    for key in 0..60 {
        let payload = format!(r#"{{"k":{key},"x":"{}"}}"#, "x".repeat(100_000));
        world.publish(0, payload.as_bytes());
        world.settle();
    }
    world.broker.looks.clear();
    world.restart(1);
    world.pass(5 * SECOND);
    assert_eq!(world.values(1).len(), 60);
    assert_eq!(world.broker.looks[..3], [16, 8, 4]);
    assert!(world.broker.looks.iter().all(|looks| *looks <= 16));
}

#[test]
fn values_that_a_hub_has_no_room_for_are_not_read_again() {
    let mut world = two(true);
    world.memory = 8 << 20;
    for key in 0..600 {
        let payload = format!(r#"{{"k":{key},"x":"{}"}}"#, "x".repeat(20_000));
        world.publish(0, payload.as_bytes());
        world.settle();
    }
    let kept = world.values(1).len();
    assert!((300..420).contains(&kept), "{kept} values");
    world.broker.kill();
    world.pass(5 * SECOND);
    let again = world.counters(1).read_back;
    assert!(again < 20, "{again} values are read again");
    assert!(world.values(1).len() > kept - 20);
}

#[test]
fn a_removal_ends_a_value_of_others_on_its_way_to_the_broker() {
    for evicts in BOTH {
        let mut world = two(true);
        world.foreign(&put(1, 1));
        world.settle();
        // Hub 0 writes the value to the broker, but the removal of hub 1 is there first.
        let shared = &mut world.nodes[0].hub.shared;
        shared.now = (world.now + Duration::from_millis(200)).tick();
        shared.keep_values();
        if evicts {
            (0..2).for_each(|at| world.nodes[at].hub.shared.take_notice(b"a", b"-1"));
        } else {
            world.publish(1, &removed(1));
            world.turn(1);
        }
        world.turn(0);
        assert_eq!(world.broker.values(HASH).len(), 1, "the value came later");
        world.pass(5 * SECOND);
        assert!(world.broker.values(HASH).is_empty() && world.values(0).is_empty());
    }
}

#[test]
fn a_publish_that_is_lost_does_not_hide_an_older_change() {
    for is_lost in BOTH {
        let mut world = two(true);
        let published = world.published(0);
        world.outage();
        world.publish(0, &put(1, 1));
        world.settle();
        world.broker.accepts = true;
        while !world.is_linked(0) {
            world.now = world.now + Duration::from_millis(16);
            world.turn(0);
        }
        world.publish(0, &put(1, 2));
        if is_lost {
            world.broker.kill();
        }
        world.pass(5 * SECOND);
        world.agree("after a lost publish");
        let last = if is_lost { 1 } else { 2 };
        assert_eq!(world.values(1)[&b"1"[..]], put(1, last));
        assert_eq!(world.published(0), published + 1, "a push is no publish");
    }
}

#[test]
fn a_false_number_does_not_stay_in_the_hash() {
    for is_new in BOTH {
        let mut world = two(is_new);
        world.publish(0, &put(1, 1));
        world.settle();
        world.broker.publish(None, b"slabd:kept:a", b"18446744073709551615");
        world.broker.kill();
        world.pass(5 * SECOND);
        assert_eq!(world.broker.hashes[HASH][&b"seq"[..]], b"1");
        let hash = world.broker.hashes.get_mut(HASH).unwrap();
        hash.insert(b"seq".to_vec(), b"100000000000000".to_vec());
        world.broker.kill();
        world.pass(5 * SECOND);
        world.publish(1, &put(2, 2));
        world.pass(SECOND);
        world.agree("after a false number");
        assert_eq!(world.broker.hashes[HASH][&b"seq"[..]], b"2");
    }
}

#[test]
fn a_channel_without_keys_has_one_value_and_a_long_value_is_read_alone() {
    for is_new in BOTH {
        let mut world = World::new(is_new, 2, RetainRule::last_of("a"), 1);
        world.pass(5 * SECOND);
        let long = vec![b'x'; 700_000];
        for payload in [&b"one"[..], b"two", &long] {
            world.publish(0, payload);
            world.settle();
            world.restart(1);
            world.pass(5 * SECOND);
            assert_eq!(world.values(1)[&b""[..]], payload);
            assert_eq!(world.broker.values(HASH)[&b""[..]], payload);
        }
        world.broker.accepts = false;
        world.broker.kill();
        world.settle();
        world.publish(0, b"");
        world.broker.accepts = true;
        world.pass(5 * SECOND);
        assert!(world.values(1).is_empty() && world.broker.values(HASH).is_empty());
    }
}

#[test]
fn values_beyond_the_maximum_are_evicted_everywhere() {
    let mut world = World::new(true, 2, keyed("a", 10), 1);
    world.pass(5 * SECOND);
    for key in 0..25 {
        world.publish(key as usize % 2, &put(key, key));
        world.settle();
        let stored = world.broker.values(HASH);
        assert_eq!(stored.len(), 10.min(key as usize + 1));
        assert_eq!((&world.values(0), &world.values(1)), (&stored, &stored));
    }
}

#[test]
fn clients_of_a_hub_cannot_publish_notices() {
    let mut world = two(true);
    world.publish(0, &put(1, 1));
    world.settle();
    for notice in ["-1", "=x 1 9", "99", "+x"] {
        let notice = notice.as_bytes();
        let shared = &mut world.nodes[0].hub.shared;
        assert_eq!(shared.share(b"slabd:kept:a", notice), Ok(false), "it stays here");
        shared.publish(b"slabd:kept:a", notice).unwrap();
    }
    world.pass(SECOND);
    world.agree("after false notices");
    assert_eq!(world.values(0).len(), 1);
}

#[test]
fn a_newcomer_misses_no_change_and_sees_none_twice() {
    for seed in 0..20 {
        let mut world = two(seed % 2 == 0);
        world.piece = [1 << 10, usize::MAX][seed as usize / 2 % 2];
        world.random = fastrand::Rng::with_seed(seed);
        (0..500).for_each(|key| world.publish(0, &put(key, 0)));
        world.settle();
        for number in 1..600 {
            let (at, key) = (world.random.usize(..2), world.random.u32(..500));
            world.publish(at, &put(key, number));
            if number == 100 {
                exchange(&mut world.nodes[1].hub, 2, b"CLIENT RETAINED ON\r\n");
                let (answer, _) = exchange(&mut world.nodes[1].hub, 2, b"SUBSCRIBE a\r\n");
                assert!(answer.starts_with(b"*3\r\n$9\r\nsubscribe"));
            }
            let turns = world.random.usize(..3);
            (0..turns).for_each(|_| (0..2).for_each(|at| world.turn(at)));
        }
        world.settle();
        let messages = world.messages(1, 2);
        let distinct: BTreeSet<_> = messages.iter().collect();
        assert_eq!(distinct.len(), messages.len(), "seed {seed}: a message came twice");
        assert_eq!(world.known(1, 2), world.values(1), "seed {seed}");
        world.agree("in the end");
    }
}

/// Plays a random run of three hubs with faults.
fn play(seed: u64) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(random.bool(), 3, keyed("a", 1000), seed);
    world.piece = [40, 1000, usize::MAX, usize::MAX][random.usize(..4)];
    let keys = [3, 30, 200][random.usize(..3)];
    let has_faults = random.u8(..4) > 0;
    world.breaks = has_faults;
    world.pass(3 * SECOND);
    for number in 0..400 {
        let (at, key) = (random.usize(..3), random.u32(..keys));
        match random.u8(..100) {
            0..35 => world.publish(at, &put(key, number)),
            35..42 => world.publish(at, &removed(key)),
            42..50 => world.foreign(&put(key, number)),
            50..53 => world.foreign(&removed(key)),
            53..90 => (0..random.u8(..6)).for_each(|_| world.turn(at)),
            90..92 => world.pass(Duration::from_millis(random.u64(1..3000))),
            92 if has_faults => world.broker.kill(),
            93 if has_faults => {
                world.broker.hashes.clear();
                world.broker.kill();
            }
            94 if has_faults => world.restart(at),
            95 if has_faults => {
                world.broker.accepts = false;
                world.broker.kill();
            }
            96 | 97 => world.broker.accepts = true,
            98 if has_faults => {
                for (index, _) in world.nodes[at].wires.values() {
                    world.broker.connections[*index].output.extend(b"garbage\r\n");
                }
            }
            99 if has_faults && random.u8(..3) == 0 => world.broker.hashes.clear(),
            _ => world.settle(),
        }
    }
    world.broker.accepts = true;
    world.pass(3 * SECOND);
    // A loss that nobody has noticed shows with the next write.
    world.publish(0, &put(0, 9999));
    world.pass(6 * SECOND);
    world.agree(&format!("seed {seed}"));
    world
}

#[test]
fn random_runs_end_with_the_same_values_everywhere() {
    let (mut all, mut values) = (ValueCounters::default(), 0);
    for seed in seeds() {
        let world = play(seed);
        for at in 0..3 {
            let own = world.counters(at);
            all.written += own.written;
            all.adopted += own.adopted;
            all.read_back += own.read_back;
            all.restored += own.restored;
        }
        values += world.values(0).len();
    }
    let ValueCounters { written, adopted, read_back, restored, .. } = all;
    println!("{written} written, {adopted} adopted, {read_back} read back, {restored} restored");
    assert!(written > 5000 && adopted > 500 && read_back > 1000 && restored > 100 && values > 500);
}

/// Returns the seeds of the random runs: 0 to 199, or the one of `SLABD_SEED`.
fn seeds() -> std::ops::Range<u64> {
    let one = std::env::var("SLABD_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    one.map_or(0..200, |seed| seed..seed + 1)
}

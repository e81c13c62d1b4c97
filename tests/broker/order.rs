//! One order: every subscriber of every node sees the messages of a channel in the same order, all
//! of them, once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use crate::engine::Engine;
use crate::support::{Client, PATIENCE};
use crate::{node, subscriber, wait_for_subscribers};

const NODES: usize = 3;
const CHANNELS: usize = 4;
/// From each of the nodes and from the broker itself.
const EACH: usize = 25_000;
/// Publishes that a publisher has in flight.
const IN_FLIGHT: usize = 200;

/// Publishes `EACH` messages on the channels in turn, some at a time.
fn publish(address: SocketAddr, source: usize) {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut replies = BufReader::new(stream.try_clone().expect("a stream can be shared"));
    let mut out = stream;
    let numbers: Vec<usize> = (0..EACH).collect();
    for some in numbers.chunks(IN_FLIGHT) {
        let mut commands = String::new();
        for number in some {
            let channel = number % CHANNELS;
            commands += &format!("PUBLISH ch{channel} {source}:{number}\r\n");
        }
        out.write_all(commands.as_bytes()).expect("the server reads");
        for _ in some {
            let mut reply = String::new();
            replies.read_line(&mut reply).expect("the server replies");
            assert!(reply.starts_with(':'), "{reply}");
        }
    }
}

/// Reads all messages of one channel, as their payloads.
fn read_all(client: Client, count: usize) -> Vec<String> {
    let mut stream = BufReader::with_capacity(1 << 16, client.0);
    let mut payloads = Vec::with_capacity(count);
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        stream.read_line(line).expect("the server sends");
        assert!(line.ends_with("\r\n"), "{line:?} at the end of the stream");
    };
    for _ in 0..count {
        for _ in 0..6 {
            next(&mut line);
        }
        next(&mut line);
        payloads.push(line.trim_end().to_string());
    }
    let mut rest = Vec::new();
    let inner = stream.get_mut();
    inner.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("it can be set");
    let _ = inner.read_to_end(&mut rest);
    assert!(rest.is_empty() && stream.buffer().is_empty(), "messages came twice");
    payloads
}

#[test]
fn a_hundred_thousand_messages_have_one_order_on_all_nodes() {
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); NODES].map(|()| node(engine.address, &[]));
    let mut readers = Vec::new();
    let mut clients = Vec::new();
    for channel in 0..CHANNELS {
        let name = format!("ch{channel}");
        for node in nodes.iter().chain(&nodes) {
            clients.push((channel, subscriber(node, &name)));
        }
        wait_for_subscribers(&engine, &name, NODES);
    }
    let of_channel = (NODES + 1) * EACH / CHANNELS;
    for (channel, client) in clients {
        readers.push((channel, thread::spawn(move || read_all(client, of_channel))));
    }
    let addresses = nodes.iter().map(|node| node.address("hub")).chain([engine.address]);
    let publishers: Vec<_> = addresses
        .enumerate()
        .map(|(source, address)| thread::spawn(move || publish(address, source)))
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("all is published"));
    let mut orders: Vec<Option<Vec<String>>> = vec![None; CHANNELS];
    for (channel, reader) in readers {
        let order = reader.join().expect("all messages arrive");
        let first = orders[channel].get_or_insert_with(|| order.clone());
        assert!(*first == order, "two subscribers of ch{channel} see two orders");
    }
    for (channel, order) in orders.into_iter().enumerate() {
        let order = order.expect("it has subscribers");
        for source in 0..=NODES {
            let own: Vec<usize> = order
                .iter()
                .filter_map(|payload| payload.strip_prefix(&format!("{source}:")))
                .map(|number| number.parse().expect("a number"))
                .collect();
            let expected: Vec<usize> = (channel..EACH).step_by(CHANNELS).collect();
            assert!(
                own == expected,
                "messages of {source} on ch{channel} are lost or out of order"
            );
        }
    }
    println!(
        "{} messages of {} publishers: one order on {NODES} nodes, {} subscribers",
        EACH * (NODES + 1),
        NODES + 1,
        2 * NODES * CHANNELS
    );
}

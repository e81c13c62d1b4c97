//! What the broker is spared: it has one connection and one message per server, whatever the number
//! of subscribers there is.

use std::io::Read;

use crate::engine::Engine;
use crate::support::{Client, all_files};
use crate::{message, node, subscribed, wait_for_subscribers};

const SUBSCRIBERS: usize = 10_000;
const PUBLISHES: usize = 20;

/// Returns a number of the broker's INFO.
fn info(engine: &Engine, section: &str, name: &str) -> u64 {
    let mut client = Client::connect(engine.address);
    client.send(format!("INFO {section}\r\n"));
    let length: usize = client.read_line()[1..].parse().expect("a length");
    let mut text = vec![0; length + 2];
    client.0.read_exact(&mut text).expect("the broker sends it all");
    let text = String::from_utf8(text).expect("it is a text");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// Bytes that the broker sends tell how many messages it delivers.
#[test]
fn ten_thousand_subscribers_on_two_nodes_cost_the_broker_two_deliveries_a_message() {
    let _all_files = all_files();
    let Some(engine) = Engine::redis(&[]) else { return };
    let nodes = [(); 2].map(|()| node(engine.address, &["--max-connections", "8000"]));
    let addresses = [0, 1].map(|index| nodes[index].address("hub"));
    let mut clients: Vec<Client> =
        (0..SUBSCRIBERS).map(|index| subscribed(addresses[index % 2], "news")).collect();
    wait_for_subscribers(&engine, "news", 2);
    let payload = "x".repeat(64);
    let before = info(&engine, "stats", "total_net_output_bytes");
    let mut publisher = Client::connect(addresses[0]);
    let expected = message("news", &payload);
    for _ in 0..PUBLISHES {
        publisher.send(format!("PUBLISH news {payload}\r\n"));
        publisher.expect(format!(":{}\r\n", SUBSCRIBERS / 2));
        clients.iter_mut().for_each(|client| {
            client.expect(&expected);
        });
    }
    // The two calls of INFO are a part of what it sent.
    let sent = info(&engine, "stats", "total_net_output_bytes") - before;
    let alone = (SUBSCRIBERS * PUBLISHES * expected.len()) as u64;
    println!(
        "{PUBLISHES} messages to {SUBSCRIBERS} subscribers on 2 nodes: the broker sent {sent} B; \
         alone it would send {alone} B"
    );
    assert!(sent * 100 <= alone, "{sent} of {alone} bytes");
}

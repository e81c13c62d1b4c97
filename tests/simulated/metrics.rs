//! What a scrape of the metrics costs the loop.

use slabd::limits::{KERNEL_SAMPLE, Limits};
use slabd::net::sim::SystemCall;

use crate::sim::{Sim, hub, limits};

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_scrape_asks_the_kernel_about_a_sample_of_the_connections() {
    let mut sim = hub(Limits { max_connections: 400, ..limits() });
    let clients = sim.crowd(5 * KERNEL_SAMPLE);
    sim.turns(2);
    sim.net().log_calls();
    let text = sim.exchange(clients[0], SCRAPE);
    assert!(text.contains("slabd_connections_held 320\n"), "{text}");
    let calls = sim.net().calls_made();
    let count = |call: SystemCall| calls.iter().filter(|made| **made == call).count();
    assert_eq!(count(SystemCall::BufferBytes), KERNEL_SAMPLE);
    assert_eq!(count(SystemCall::AcceptQueue), 1);
    assert!(calls.len() < KERNEL_SAMPLE + 10, "{calls:?}");
}

#[test]
fn a_second_scrape_in_a_turn_waits_for_the_next() {
    let mut sim = hub(limits());
    let clients = [(); 3].map(|()| sim.accepted());
    clients.iter().for_each(|client| sim.send(*client, SCRAPE));
    let answered = |sim: &mut Sim| {
        clients.iter().filter(|client| sim.received(**client).starts_with("HTTP/1.1 200")).count()
    };
    for turn in 1..=3 {
        sim.turn();
        assert_eq!(answered(&mut sim), 1, "turn {turn}");
    }
    let mut number = |request: &str| {
        let text = sim.exchange(clients[0], request);
        let line = text.lines().find_map(|line| line.strip_prefix("slabd_http_requests_total "));
        line.map(|count| count.parse::<u64>().unwrap())
    };
    assert_eq!(number(SCRAPE), Some(3), "each was answered once");
    assert_eq!(number(&SCRAPE.replace("GET", "HEAD")), None, "a head has no body");
}

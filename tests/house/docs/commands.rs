//! The table of commands in docs/hub.md, made from what the hub answers to COMMAND.

use slabd::buffer::BufferMode;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::Net;
use slabd::net::sim::SimNet;
use slabd::reactor::Reactor;
use slabd::service::{Options, Service};

/// Returns a service's answer to a client on the simulated network.
pub fn answers(service: Box<dyn Service>, input: &[u8]) -> String {
    let mut reactor = Reactor::new(SimNet::new(0), Limits::default(), BufferMode::Pooled);
    let service = reactor.add_service(service);
    let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
    let client = reactor.net_mut().client(address).unwrap();
    reactor.net_mut().client_send(client, input);
    for _ in 0..8 {
        let now = reactor.net_mut().now();
        reactor.net_mut().hold_time_at(now);
        reactor.turn().unwrap();
        reactor.check_invariants();
    }
    String::from_utf8(reactor.net_mut().client_received(client)).unwrap()
}

fn ask(command: &str) -> String {
    answers(Box::new(Hub::new(&Options::default())), command.as_bytes())
}

/// Returns the table, without the markers around it.
pub fn table() -> String {
    // For each command there are three texts: its name, the word "summary", and the summary.
    let docs = ask("COMMAND DOCS\r\n");
    let texts: Vec<&str> =
        docs.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect();
    let mut rows = String::from("\n| command | what it does | by UDP |\n|---|---|---|\n");
    for text in texts.chunks_exact(3) {
        let (name, summary) = (text[0], text[2]);
        let by_udp = ask(&format!("COMMAND INFO {name}\r\n")).contains("+datagram");
        let udp = if by_udp { "yes" } else { "" };
        rows.push_str(&format!("| {} | {summary} | {udp} |\n", name.to_uppercase()));
    }
    rows.push('\n');
    rows
}

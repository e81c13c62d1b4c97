//! The table of metrics in docs/metrics.md, made from what a server of this process renders.

use std::net::TcpStream;

use slabd::buffer::BufferMode;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::metrics::prometheus::{self, MetricsForm};
use slabd::net::mio::MioNet;
use slabd::reactor::Reactor;
use slabd::service::Options;

/// Returns the table, without the markers around it.
pub fn table() -> String {
    let text = rendered();
    let mut table = String::from("\n| name | type | what it is |\n|---|---|---|\n");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
        let labels = lines.peek().and_then(|sample| sample.split_once('{')?.1.split_once('='));
        let label = match labels {
            Some((label, _)) if kind != "histogram" => format!("{{{label}}}"),
            _ => String::new(),
        };
        table.push_str(&format!("| {name}{label} | {kind} | {help} |\n"));
    }
    table + "\n"
}

/// Returns the metrics of a server with a hub and one connection.
fn rendered() -> String {
    let net = MioNet::new().unwrap();
    let mut reactor = Reactor::new(net, Limits::default(), BufferMode::Pooled);
    let service = reactor.add_service(Box::new(Hub::new(&Options::default())));
    let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 16, service).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    while reactor.connections() == 0 {
        reactor.turn().unwrap();
    }
    let mut sections = reactor.metrics(&|_| true);
    sections.extend(Hub::new(&Options::default()).metrics());
    let mut text = Vec::new();
    prometheus::render(&sections, MetricsForm::Text, &mut text);
    String::from_utf8(text).unwrap()
}

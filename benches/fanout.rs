//! Measures the cost of a delivery: processor time of slabd's hub beside uWebSockets and
//! redis-server, for publishes of 64 bytes to 10,000 subscribers of one channel.
//!
//!     cargo bench --bench fanout                                    everything, some minutes
//!     cargo bench --bench fanout -- delivered --rounds 15           one section
//!     cargo bench --bench fanout -- --skip redis                    without redis
//!
//! Sections:
//! - `delivered`: a publish is in flight until every subscriber has it, with 1, 2, 16 and 64 in
//!   flight. No server can get ahead of its deliveries, so all servers can collect equally many.
//! - `replied`: a publish is in flight until its reply is back, with 1 and 16 in flight. A server
//!   that replies before it delivers lets the publisher run ahead, so it can collect more messages
//!   than are in flight. The ratio shows how much this saves, and it changes with --publishes.
//!   uWebSockets does not reply, so this section leaves it out.
//!
//! One load generator is the audience of all servers. It speaks RESP to slabd and redis-server, and
//! WebSocket to uWebSockets (benches/peers/uwebsockets.js). It checks every byte of every
//! subscriber. A round ends when all subscribers have all messages.
//!
//! How to read it: the servers take turns, one round each (A B C A B C …), and each round gives one
//! ratio between neighbours in time. The tables show the medians of these ratios. Compare ratios,
//! not microseconds, which differ between machines and hours. benches/hub_cpu.rs explains the
//! columns. Below each table stands the number of messages per read of a subscriber. A write costs
//! nearly the same for one message as for sixteen, so a server that collects more messages pays
//! less per delivery.

#![forbid(unsafe_code)]

mod support;

use anyhow::{Context, Result, ensure};
use support::fanout::{self, Audience, Order, Protocol, Until};
use support::rounds::{Contender, alternate, report};
use support::server::Server;
use support::{Options, Table, median};

/// Publishes in flight, and the maximum ratio of slabd's processor time to that of uWebSockets and
/// to that of redis-server.
const DELIVERED: [(u64, f64, Option<f64>); 4] =
    [(1, 0.9, Some(1.0)), (2, 0.95, None), (16, 0.85, Some(0.65)), (64, 0.2, None)];
/// Publishes in flight, and the maximum ratio of slabd's processor time to that of redis-server.
const REPLIED: [(u64, f64); 2] = [(1, 1.0), (16, 0.65)];

/// A server and its audience.
struct Stage {
    label: &'static str,
    server: Server,
    audience: Audience,
}

fn main() -> Result<()> {
    if fanout::run_as_audience()? {
        return Ok(());
    }
    let numbers = [("rounds", 9), ("subscribers", 10_000), ("publishes", 160)];
    let Some(options) = Options::read(&["delivered", "replied"], &numbers)? else { return Ok(()) };
    let (subscribers, publishes) = (options.number("subscribers"), options.number("publishes"));
    ensure!(
        subscribers > 0 && publishes >= 4,
        "accepted: --subscribers 1 or more, and --publishes 4 or more"
    );
    support::prepare()?;
    let mut stages = stages(&options)?;
    if options.wants("delivered") {
        for (in_flight, target, beside_redis) in DELIVERED {
            let order = order(publishes, in_flight, Until::Delivered);
            compare(&options, stages.iter_mut().collect(), order, target, beside_redis)?;
        }
    }
    if options.wants("replied") {
        for (in_flight, target) in REPLIED {
            let order = order(publishes, in_flight, Until::Replied);
            let those_that_reply = stages.iter_mut().filter(|stage| stage.label != "uWebSockets");
            compare(&options, those_that_reply.collect(), order, target, None)?;
        }
    }
    Ok(())
}

/// Returns the order of a round. With few publishes in flight, each costs more, so a quarter of
/// them gives a round of about the same length.
fn order(publishes: u64, in_flight: u64, until: Until) -> Order {
    Order { publishes: if in_flight < 16 { publishes / 4 } else { publishes }, in_flight, until }
}

/// Returns the servers to compare. The first is the base of the ratios.
fn stages(options: &Options) -> Result<Vec<Stage>> {
    let resp = Protocol::Resp;
    let candidates: [(_, _, &dyn Fn() -> Result<Option<Server>>); 3] = [
        ("uWebSockets", Protocol::WebSocket, &Server::uwebsockets),
        ("redis", resp, &Server::redis),
        ("slabd", resp, &|| Server::slabd("hub", &[]).map(Some)),
    ];
    let mut stages = Vec::new();
    for (label, protocol, start) in candidates {
        if options.includes(label)
            && let Some(server) = start()?
        {
            let audience =
                Audience::start(protocol, server.address, options.number("subscribers") as usize);
            let audience = audience.with_context(|| format!("cannot subscribe to {label}"))?;
            stages.push(Stage { label, server, audience });
        }
    }
    Ok(stages)
}

fn compare(
    options: &Options,
    stages: Vec<&mut Stage>,
    order: Order,
    target: f64,
    beside_redis: Option<f64>,
) -> Result<()> {
    let (subscribers, rounds) = (options.number("subscribers"), options.number("rounds"));
    let until = if order.until == Until::Replied { "replied to" } else { "delivered to all" };
    let Order { publishes, in_flight, .. } = order;
    println!(
        "## {} bytes to {subscribers} subscribers, {in_flight} in flight until {until}",
        fanout::PAYLOAD
    );
    println!("\nServer CPU per delivery; {publishes} publishes a round.\n");
    let mut reads = vec![0; stages.len()];
    let mut contenders = Vec::new();
    for (stage, reads) in stages.into_iter().zip(&mut reads) {
        let (label, server, audience) = (stage.label, &stage.server, &mut stage.audience);
        contenders.push(Contender::new(label, server, move || {
            *reads += audience.run(order).with_context(|| server.name.clone())?;
            Ok(())
        }));
    }
    alternate(&mut contenders, rounds)?;
    // The target holds only if the expected server is the base.
    let base = if order.until == Until::Replied { "redis" } else { "uWebSockets" };
    let target = contenders.first().is_some_and(|first| first.label == base).then_some(target);
    report(&contenders, publishes * subscribers, "dlv", target);
    let labelled = |label| contenders.iter().find(|contender| contender.label == label);
    if let (Some(slabd), Some(redis), Some(target)) =
        (labelled("slabd"), labelled("redis"), beside_redis)
    {
        println!("slabd ÷ redis: {:.3}, target ≤ {target:.2}\n", median(&slabd.ratios(redis)));
    }
    let labels: Vec<String> = contenders.iter().map(|contender| contender.label.clone()).collect();
    drop(contenders);
    let mut table = Table::new(&["server", "messages per read"]);
    // The reads include the round that does not count above.
    let received = publishes * subscribers * (rounds + 1);
    for (label, reads) in labels.into_iter().zip(reads) {
        table.row(vec![label, format!("{:.2}", received as f64 / reads as f64)]);
    }
    table.print();
    Ok(())
}

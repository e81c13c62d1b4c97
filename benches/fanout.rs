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
//!   Clients of slabd and redis-server speak RESP, those of uWebSockets WebSocket.
//! - `replied`: a publish is in flight until its reply is back, with 1 and 16 in flight. A server
//!   that replies before it delivers lets the publisher run ahead, so it can collect more messages
//!   than are in flight. The ratio shows how much this saves, and it changes with --publishes.
//!   uWebSockets does not reply, so this section leaves it out.
//! - `websocket`: as `delivered`, and the clients of slabd speak WebSocket, too.
//! - `socketio`: as `delivered`, of slabd with Socket.IO over WebSocket, beside Socket.IO's own
//!   server under Node.js, and beside slabd with WebSocket.
//! - `mixed`: slabd alone, with subscribers that speak RESP, WebSocket, one half each, and with
//!   server-sent events. One half each should cost what the two alone cost on average.
//!
//! Each server has a load generator of its own, in a process of its own, for the same audience. It
//! checks every byte of every subscriber. A round ends when all subscribers have all messages.
//! benches/peers/uwebsockets.js is the server on uWebSockets. Over WebSocket the publisher is one
//! subscriber more, because each sender receives its own messages.
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
use support::fanout::{self, Audience, Order, Until};
use support::protocols::{Mix, PAYLOAD};
use support::rounds::{Contender, alternate, ratios, report};
use support::server::{self, Server};
use support::{Options, Table, median, range};

/// Publishes in flight, and the maximum ratio of slabd's processor time to that of uWebSockets and
/// to that of redis-server.
const DELIVERED: [(u64, f64, Option<f64>); 4] =
    [(1, 0.9, Some(1.0)), (2, 0.95, None), (16, 0.85, Some(0.65)), (64, 0.2, None)];
/// Publishes in flight, and the maximum ratio of slabd's processor time to that of redis-server.
const REPLIED: [(u64, f64); 2] = [(1, 1.0), (16, 0.65)];
/// Publishes in flight, and the maximum ratio of slabd's processor time to that of uWebSockets.
const WEBSOCKET: [(u64, f64); 3] = [(1, 0.9), (2, 0.95), (16, 0.85)];
/// Publishes in flight, and the maximum ratio of slabd's processor time to that of Socket.IO on
/// Node.
const SOCKETIO: [(u64, f64); 2] = [(1, 0.1), (16, 0.1)];
/// Maximum ratio of a delivery by Socket.IO to one by WebSocket.
const SOCKETIO_TARGET: f64 = 1.1;
/// Publishes in flight in the section `mixed`.
const MIXED: [u64; 3] = [1, 2, 16];
/// Maximum difference of two halves to the mean of the two alone.
const MIXED_TARGET: f64 = 0.1;

const UWEBSOCKETS: &str = "uWebSockets";
const REDIS: &str = "redis";
const NODE: &str = "socket.io";

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
    let sections = ["delivered", "replied", "websocket", "socketio", "mixed"];
    let Some(options) = Options::read(&sections, &numbers)? else { return Ok(()) };
    let (subscribers, publishes) = (options.number("subscribers"), options.number("publishes"));
    ensure!(
        subscribers > 0 && publishes >= 4,
        "accepted: --subscribers 1 or more, and --publishes 4 or more"
    );
    support::prepare()?;
    server::print_versions(&["redis-server", "node"])?;
    let order = |in_flight, until| order(publishes, in_flight, until);
    if options.wants("delivered") || options.wants("replied") {
        let candidates = [(UWEBSOCKETS, Mix::WebSocket), (REDIS, Mix::Resp), ("slabd", Mix::Resp)];
        let mut stages = stages(&options, &candidates)?;
        for (in_flight, target, beside_redis) in DELIVERED {
            if options.wants("delivered") {
                let order = order(in_flight, Until::Delivered);
                compare(&options, stages.iter_mut().collect(), order, target, beside_redis)?;
            }
        }
        for (in_flight, target) in REPLIED {
            if options.wants("replied") {
                let order = order(in_flight, Until::Replied);
                let those_that_reply = stages.iter_mut().filter(|stage| stage.label != UWEBSOCKETS);
                compare(&options, those_that_reply.collect(), order, target, None)?;
            }
        }
    }
    if options.wants("websocket") {
        let candidates = [(UWEBSOCKETS, Mix::WebSocket), ("slabd WebSocket", Mix::WebSocket)];
        let mut stages = stages(&options, &candidates)?;
        for (in_flight, target) in WEBSOCKET {
            let order = order(in_flight, Until::Delivered);
            compare(&options, stages.iter_mut().collect(), order, target, None)?;
        }
    }
    if options.wants("socketio") {
        let candidates = [
            (NODE, Mix::SocketIo),
            ("slabd WebSocket", Mix::WebSocket),
            ("slabd Socket.IO", Mix::SocketIo),
        ];
        let mut stages = stages(&options, &candidates)?;
        for (in_flight, target) in SOCKETIO {
            socketio(&options, &mut stages, order(in_flight, Until::Delivered), target)?;
        }
    }
    if options.wants("mixed") {
        let candidates = [
            ("slabd RESP", Mix::Resp),
            ("slabd WebSocket", Mix::WebSocket),
            ("slabd half", Mix::Half),
            ("slabd events", Mix::Events),
        ];
        let mut stages = stages(&options, &candidates)?;
        for in_flight in MIXED {
            mixed(&options, &mut stages, order(in_flight, Until::Delivered))?;
        }
    }
    Ok(())
}

/// Returns the order of a round. With few publishes in flight, each costs more, so a quarter of
/// them gives a round of about the same length.
fn order(publishes: u64, in_flight: u64, until: Until) -> Order {
    Order { publishes: if in_flight < 16 { publishes / 4 } else { publishes }, in_flight, until }
}

/// Starts servers and their audiences. The first is the base of the ratios.
fn stages(options: &Options, candidates: &[(&'static str, Mix)]) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for &(label, mix) in candidates {
        if !options.includes(label) {
            continue;
        }
        let server = match label {
            UWEBSOCKETS => Server::uwebsockets()?,
            NODE => Server::socketio()?,
            REDIS => Server::redis()?,
            _ if mix == Mix::Resp => Some(Server::slabd("hub", &[])?),
            _ => Some(Server::slabd_for_web()?),
        };
        let Some(server) = server else { continue };
        let subscribers = options.number("subscribers") as usize;
        let audience = Audience::start(mix, server.address, subscribers)
            .with_context(|| format!("cannot subscribe to {label}"))?;
        stages.push(Stage { label, server, audience });
    }
    Ok(stages)
}

/// Lets the servers take turns with one order, and prints its table with the target of slabd's
/// ratio. Returns the cost of each round by server.
fn measure(
    options: &Options,
    stages: Vec<&mut Stage>,
    order: Order,
    target: Option<(&str, f64)>,
) -> Result<Vec<(String, Vec<f64>)>> {
    let (subscribers, rounds) = (options.number("subscribers"), options.number("rounds"));
    let until = if order.until == Until::Replied { "replied to" } else { "delivered to all" };
    let Order { publishes, in_flight, .. } = order;
    println!(
        "## {} bytes to {subscribers} subscribers, {in_flight} in flight until {until}",
        PAYLOAD
    );
    println!("\nServer CPU per delivery; {publishes} publishes a round.\n");
    let mut reads = vec![0; stages.len()];
    let mut contenders = Vec::new();
    for (stage, reads) in stages.into_iter().zip(&mut reads) {
        let (label, server, audience) = (stage.label, &stage.server, &mut stage.audience);
        contenders.push(Contender::new(label, server, move || {
            *reads += audience.run(order).with_context(|| server.name.clone())?;
            Ok(publishes * subscribers)
        }));
    }
    alternate(&mut contenders, rounds)?;
    // The target holds only if the expected server is the base.
    let base = contenders.first().map(|first| first.label.as_str());
    let target = target.filter(|(expected, _)| base == Some(expected)).map(|(_, target)| target);
    report(&contenders, "dlv", target);
    let costs: Vec<(String, Vec<f64>)> =
        contenders.iter().map(|contender| (contender.label.clone(), contender.costs())).collect();
    drop(contenders);
    let mut table = Table::new(&["server", "messages per read"]);
    // The reads include the round that does not count above.
    let received = publishes * subscribers * (rounds + 1);
    for ((label, _), reads) in costs.iter().zip(reads) {
        table.row(vec![label.clone(), format!("{:.2}", received as f64 / reads as f64)]);
    }
    table.print();
    Ok(costs)
}

fn compare(
    options: &Options,
    stages: Vec<&mut Stage>,
    order: Order,
    target: f64,
    beside_redis: Option<f64>,
) -> Result<()> {
    let base = if order.until == Until::Replied { REDIS } else { UWEBSOCKETS };
    let costs = measure(options, stages, order, Some((base, target)))?;
    if let (Some(slabd), Some(redis), Some(target)) =
        (of(&costs, "slabd"), of(&costs, REDIS), beside_redis)
    {
        let ratio = median(&ratios(slabd, redis));
        println!("slabd ÷ redis: {ratio:.3}, target ≤ {target:.2}\n");
    }
    Ok(())
}

fn socketio(options: &Options, stages: &mut [Stage], order: Order, target: f64) -> Result<()> {
    let costs = measure(options, stages.iter_mut().collect(), order, Some((NODE, target)))?;
    if let (Some(websocket), Some(socketio)) =
        (of(&costs, "slabd WebSocket"), of(&costs, "slabd Socket.IO"))
    {
        let ratio = median(&ratios(socketio, websocket));
        println!("Socket.IO ÷ WebSocket: {ratio:.3}, target ≤ {SOCKETIO_TARGET:.2}\n");
    }
    Ok(())
}

fn mixed(options: &Options, stages: &mut [Stage], order: Order) -> Result<()> {
    let costs = measure(options, stages.iter_mut().collect(), order, None)?;
    if let (Some(resp), Some(websocket), Some(half)) =
        (of(&costs, "slabd RESP"), of(&costs, "slabd WebSocket"), of(&costs, "slabd half"))
    {
        let means: Vec<f64> =
            resp.iter().zip(websocket).map(|(resp, websocket)| (resp + websocket) / 2.0).collect();
        let ratios = ratios(half, &means);
        println!(
            "half ÷ mean of RESP and WebSocket: {:.3} ({}), target {:.2} to {:.2}\n",
            median(&ratios),
            range(&ratios),
            1.0 - MIXED_TARGET,
            1.0 + MIXED_TARGET
        );
    }
    Ok(())
}

/// Returns the costs of one server.
fn of<'a>(costs: &'a [(String, Vec<f64>)], label: &str) -> Option<&'a [f64]> {
    costs.iter().find(|(named, _)| named == label).map(|(_, costs)| &costs[..])
}

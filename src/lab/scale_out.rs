//! `slabd lab scale-out`: clients of two servers do not see each other, until the servers share
//! their channels over a broker. Then the broker dies, returns, and hangs.

mod audience;
mod broker_process;

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::{self, PATIENCE};
use super::server::ServerProcess;
use super::{Scale, row, say, verdict};
use crate::clock::{Clock, Time};
use crate::report::{Page, Plot, Section, Series, Table, Verdict};
use audience::{Arrived, CHANNEL, ChannelReader, ClientKind};
use broker_process::BrokerProcess;

/// Messages of each publisher where losses and order are counted.
const MESSAGES: usize = 2000;
const MESSAGES_QUICK: usize = 400;
/// The first part of the outage, in which everything works. Each later part has the same length.
const PART: Duration = Duration::from_millis(2000);
const PART_QUICK: Duration = Duration::from_millis(1000);
/// Time between two publishes, and between two PINGs.
const STEP: Duration = Duration::from_millis(5);
/// Length of a step of the plot.
const BUCKET: Duration = Duration::from_millis(100);
/// Longest time from the return of the broker until messages cross it.
const BACK_MAX: Duration = Duration::from_secs(2);
/// Maximum ratio of the 99th percentile of PING beside a broker that hangs to that without.
const PING_MAX: f64 = 2.0;
/// Times that the broker hangs, and publishes that wait for it each time.
const HANGS: usize = 3;
const HANG_PUBLISHES: usize = 200;
/// A PING that takes less does not count as slower. Other work on the machine takes that long.
const PING_NOISE: Duration = Duration::from_millis(2);

/// The messages of some servers to the audiences of all of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct CrossingResult {
    setting: String,
    servers: usize,
    published: usize,
    /// Messages that an audience got from its own server's publishers, and from others, of those
    /// that there were.
    own: (usize, usize),
    foreign: (usize, usize),
    /// Messages that came twice.
    twice: usize,
    /// True if all clients saw the same order.
    one_order: bool,
}

/// What happens around the death and the return of a broker.
#[derive(Clone, Debug, Default, PartialEq)]
struct OutageResult {
    /// Messages of the first server's publisher, by step of the plot: at its own audience, and at
    /// the other server's.
    own: Vec<usize>,
    foreign: Vec<usize>,
    /// Messages that a client of the first server did not get, at most.
    lost: usize,
    /// Messages that were on their way to the broker, or back, when it died.
    on_the_way: usize,
    /// Time from the return of the broker until a message crossed it.
    back: Option<Duration>,
    /// Clients that were told of the gap, of those that can be.
    told: (usize, usize),
    /// Clients whose connection ended.
    closed: usize,
}

/// The waits of a client for PING.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PingResult {
    quiet: Duration,
    beside: Duration,
}

impl PingResult {
    /// Returns how many times as long the waits beside the broker that hangs are.
    fn ratio(self) -> f64 {
        self.beside.max(PING_NOISE).div_duration_f64(self.quiet.max(PING_NOISE))
    }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let messages = if scale.quick { MESSAGES_QUICK } else { MESSAGES };
    let part = if scale.quick { PART_QUICK } else { PART };
    say("two servers without a broker");
    let mut crossings = vec![cross("no broker", 2, None, messages)?];
    let mut broker = BrokerProcess::start()?;
    for servers in [2, 4] {
        say(&format!("{servers} servers with {}", broker.name()));
        crossings.push(cross(broker.name(), servers, Some(&broker), messages)?);
    }
    say("the broker dies and returns");
    let outage = outage(&mut broker, part)?;
    say("the broker hangs");
    let ping = hang(&broker, part)?;
    let mut sections = vec![
        Section::Table(table(&crossings)),
        Section::Plot(plot(&outage)),
        Section::Paragraph(format!(
            "The broker dies after {part:?} and returns after {:?}. Each client gets the messages \
             of its own server all the time.",
            2 * part
        )),
    ];
    sections.extend(judge(&crossings, &outage, ping).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab scale-out".into(),
        summary: format!(
            "Servers with clients of RESP, server-sent events, WebSocket and Socket.IO in one \
             channel, and a publisher each. The broker is {}.",
            broker.name()
        ),
        sections,
    })
}

fn judge(crossings: &[CrossingResult], outage: &OutageResult, ping: PingResult) -> [Verdict; 5] {
    let without: Vec<_> = crossings.iter().filter(|one| one.setting == "no broker").collect();
    let with: Vec<_> = crossings.iter().filter(|one| one.setting != "no broker").collect();
    let sum = |of: &[&CrossingResult], what: fn(&CrossingResult) -> (usize, usize)| {
        of.iter().fold((0, 0), |sum, one| (sum.0 + what(one).0, sum.1 + what(one).1))
    };
    let (own, alone) = (sum(&without, |one| one.own), sum(&without, |one| one.foreign));
    let (here, there) = (sum(&with, |one| one.own), sum(&with, |one| one.foreign));
    let twice: usize = with.iter().map(|one| one.twice).sum();
    let orders = with.iter().filter(|one| one.one_order).count();
    let (told, tellable) = outage.told;
    [
        verdict(
            "Without a broker, clients of two servers do not see each other.",
            format!(
                "{} of {} messages crossed; {} of {} arrived on the own server",
                alone.0, alone.1, own.0, own.1
            ),
            alone.0 == 0 && alone.1 > 0 && own.0 == own.1 && own.1 > 0,
        ),
        verdict(
            "With a broker, each client of each server gets every message once, and all see one \
             order.",
            format!(
                "{} of {} from the own server, {} of {} from others, {twice} twice; one order in \
                 {orders} of {} runs",
                here.0,
                here.1,
                there.0,
                there.1,
                with.len()
            ),
            here.0 == here.1
                && there.0 == there.1
                && there.1 > 0
                && twice == 0
                && orders == with.len(),
        ),
        verdict(
            "A broker that dies costs no client its connection. The clients of the publisher's own \
             server get all messages but those on their way at that moment.",
            format!(
                "{} connections ended; {} messages lost, {} were on their way",
                outage.closed, outage.lost, outage.on_the_way
            ),
            outage.closed == 0 && outage.lost <= outage.on_the_way && !outage.own.is_empty(),
        ),
        verdict(
            "Messages cross again within two seconds of the broker's return, and clients are told \
             that some may be missing.",
            format!(
                "{}; {told} of {tellable} clients told",
                outage.back.map_or("never".into(), |back| format!("after {} ms", back.as_millis()))
            ),
            outage.back.is_some_and(|back| back <= BACK_MAX) && told == tellable && tellable > 0,
        ),
        verdict(
            "A broker that hangs does not slow other clients: the 99th percentile of PING is at \
             most twice that without.",
            format!("{:?} beside it, {:?} without", ping.beside, ping.quiet),
            ping.quiet > Duration::ZERO && ping.ratio() <= PING_MAX,
        ),
    ]
}

/// Starts a server, whose broker may be this one, and waits until its link is up.
fn start(broker: Option<&BrokerProcess>) -> Result<ServerProcess> {
    let url = broker.map(|broker| format!("redis://{}", broker.address()));
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0"];
    arguments.extend(url.iter().flat_map(|url| ["--broker", url.as_str()]));
    let mut server = ServerProcess::start(&arguments)?;
    if broker.is_some() {
        wait_for_link(&mut server, 1)?;
    }
    Ok(server)
}

/// Waits until the link of a server is up (1) or down (0).
fn wait_for_link(server: &mut ServerProcess, state: u64) -> Result<()> {
    client::wait_until(PATIENCE, "the link to the broker does not change its state", || {
        Ok(server.info()?.number("broker/broker_up")? == state)
    })
}

/// A publisher of numbered messages.
struct Publisher {
    stream: TcpStream,
    source: usize,
    next: usize,
}

impl Publisher {
    fn connect(server: &ServerProcess, source: usize) -> Result<Publisher> {
        let stream = client::connect(Ipv4Addr::LOCALHOST, server.address("hub")?)?;
        Ok(Publisher { stream, source, next: 0 })
    }

    /// Publishes a message, and waits for the reply.
    fn publish(&mut self) -> Result<()> {
        let payload = audience::payload(self.source, self.next);
        self.next += 1;
        self.stream.write_all(format!("PUBLISH {CHANNEL} {payload}\r\n").as_bytes())?;
        let reply = client::read_line(&mut self.stream)?;
        ensure!(reply.starts_with(':'), "the hub answers PUBLISH with {reply:?}");
        Ok(())
    }
}

/// Waits until messages of each server reach the clients of all servers.
fn wait_until_joined(servers: &[ServerProcess], readers: &[ChannelReader]) -> Result<()> {
    for (source, server) in servers.iter().enumerate() {
        let mut publisher = Publisher::connect(server, audience::PROBES + source)?;
        client::wait_until(PATIENCE, "messages do not cross the broker", || {
            publisher.publish()?;
            let is_there = |reader: &ChannelReader| {
                reader.seen().iter().any(|seen| seen.source == audience::PROBES + source)
            };
            Ok(readers.iter().all(is_there))
        })?;
    }
    Ok(())
}

/// Publishes on all servers at once, and compares what their clients get.
fn cross(
    setting: &str,
    count: usize,
    broker: Option<&BrokerProcess>,
    messages: usize,
) -> Result<CrossingResult> {
    let servers = (0..count).map(|_| start(broker)).collect::<Result<Vec<_>>>()?;
    let mut readers = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        for kind in ClientKind::ALL {
            readers.push(ChannelReader::join(kind, index, server.address("hub")?)?);
        }
    }
    if broker.is_some() {
        wait_until_joined(&servers, &readers)?;
    }
    let mut publishers = (servers.iter().enumerate())
        .map(|(source, server)| Publisher::connect(server, source))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..messages {
        publishers.iter_mut().try_for_each(Publisher::publish)?;
    }
    let from_all = if broker.is_some() { count * messages } else { messages };
    let clock = Clock::start();
    // Losses are counted below, so this does not fail.
    while readers.iter().any(|reader| reader.of_sources(count).len() < from_all)
        && clock.now().since(Time::ZERO) < PATIENCE
    {
        sleep(STEP);
    }
    Ok(tally(setting, count, messages, &readers))
}

fn tally(
    setting: &str,
    servers: usize,
    messages: usize,
    readers: &[ChannelReader],
) -> CrossingResult {
    let mut result = CrossingResult {
        setting: setting.into(),
        servers,
        published: servers * messages,
        one_order: true,
        ..CrossingResult::default()
    };
    let orders: Vec<Vec<Arrived>> =
        readers.iter().map(|reader| reader.of_sources(servers)).collect();
    for (reader, order) in readers.iter().zip(&orders) {
        let names = |of: &[Arrived]| of.iter().map(Arrived::name).collect::<Vec<_>>();
        let mut sorted = names(order);
        sorted.sort_unstable();
        let all = sorted.len();
        sorted.dedup();
        result.twice += all - sorted.len();
        let own = sorted.iter().filter(|(source, _)| *source == reader.server).count();
        result.own = (result.own.0 + own, result.own.1 + messages);
        result.foreign.0 += sorted.len() - own;
        result.foreign.1 += (servers - 1) * messages;
        result.one_order &= names(order) == names(&orders[0]);
    }
    result
}

/// Publishes at one server while the broker dies and returns.
fn outage(broker: &mut BrokerProcess, part: Duration) -> Result<OutageResult> {
    let mut servers = [start(Some(broker))?, start(Some(broker))?];
    let mut readers = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        for kind in ClientKind::ALL {
            readers.push(ChannelReader::join(kind, index, server.address("hub")?)?);
        }
    }
    wait_until_joined(&servers, &readers)?;
    let mut publisher = Publisher::connect(&servers[0], 0)?;
    let clock = Clock::start();
    let began = audience::now();
    let mut returned = None;
    let (mut is_dead, end) = (false, 4 * part);
    while clock.now().since(Time::ZERO) < end {
        let passed = clock.now().since(Time::ZERO);
        if passed >= part && !is_dead {
            broker.kill()?;
            is_dead = true;
        }
        if passed >= 2 * part && returned.is_none() {
            broker.restart()?;
            returned = Some(audience::now());
        }
        publisher.publish()?;
        sleep(STEP);
    }
    let steps = end.div_duration_f64(BUCKET) as usize;
    let of_server = |server: usize| readers.iter().filter(move |reader| reader.server == server);
    let by_step = |server: usize| {
        let mut counts = vec![0; steps];
        let seen = of_server(server).flat_map(|reader| reader.of_sources(1));
        for arrived in seen {
            let step = arrived.at.saturating_sub(began).div_duration_f64(BUCKET) as usize;
            counts[step.min(steps - 1)] += 1;
        }
        counts.iter().map(|count| count / ClientKind::ALL.len()).collect::<Vec<usize>>()
    };
    let on_the_way = servers[0].info()?.number("broker/broker_lost")? as usize;
    let missing =
        |reader: &ChannelReader| publisher.next.saturating_sub(reader.of_sources(1).len());
    let lost = || of_server(0).map(missing).max().unwrap_or(publisher.next);
    // Losses are judged later, so this does not fail.
    let _ = client::wait_until(PATIENCE, "", || Ok(lost() <= on_the_way));
    let lost = lost();
    let returned = returned.context("the broker did not return")?;
    let crossed = of_server(1).flat_map(|reader| reader.of_sources(1)).map(|seen| seen.at);
    let back = crossed.filter(|at| *at >= returned).min().map(|at| at - returned);
    Ok(OutageResult {
        own: by_step(0),
        foreign: by_step(1),
        lost,
        on_the_way,
        back,
        told: (readers.iter().filter(|reader| reader.was_told()).count(), readers.len()),
        closed: readers.iter().filter(|reader| reader.has_ended()).count(),
    })
}

/// Asks PING while the broker works, and while it hangs and messages wait for it.
///
/// Both take turns, because other work on the machine comes and goes. Returns the times of middle
/// ratio.
fn hang(broker: &BrokerProcess, part: Duration) -> Result<PingResult> {
    let server = start(Some(broker))?;
    let _reader = ChannelReader::join(ClientKind::Resp, 0, server.address("hub")?)?;
    let mut publisher = client::connect(Ipv4Addr::LOCALHOST, server.address("hub")?)?;
    let waiting = format!("PUBLISH {CHANNEL} {}\r\n", "x".repeat(1000)).repeat(HANG_PUBLISHES);
    let mut rounds = Vec::new();
    for _ in 0..HANGS {
        let quiet = ping(&server, part / 2)?;
        broker.freeze()?;
        publisher.write_all(waiting.as_bytes())?;
        let beside = ping(&server, part / 2);
        broker.thaw()?;
        rounds.push(PingResult { quiet, beside: beside? });
    }
    rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    Ok(rounds[HANGS / 2])
}

/// Returns the 99th percentile of the waits for PING.
fn ping(server: &ServerProcess, time: Duration) -> Result<Duration> {
    let mut stream = client::connect(Ipv4Addr::LOCALHOST, server.address("hub")?)?;
    let clock = Clock::start();
    let mut waits = Vec::new();
    while clock.now().since(Time::ZERO) < time {
        let asked = audience::now();
        client::ask(&mut stream, b"PING\r\n", b"+PONG\r\n")?;
        waits.push(audience::now() - asked);
        sleep(STEP / 5);
    }
    waits.sort_unstable();
    Ok(waits[waits.len() * 99 / 100])
}

fn table(crossings: &[CrossingResult]) -> Table {
    let rows = crossings.iter().map(|one| {
        row([
            &one.setting,
            &one.servers,
            &one.published,
            &format!("{} of {}", one.own.0, one.own.1),
            &format!("{} of {}", one.foreign.0, one.foreign.1),
            &one.twice,
            &if one.one_order { "one" } else { "several" },
        ])
    });
    Table::new(
        "Messages of publishers on all servers",
        "broker | servers | published | from own server | from others | twice | orders",
        rows,
    )
}

fn plot(outage: &OutageResult) -> Plot {
    let series = |name: &str, counts: &[usize]| Series {
        name: name.into(),
        values: counts.iter().map(|count| Some(*count as f64)).collect(),
    };
    Plot {
        title: "Messages of one server's publisher, by client and 100 ms".into(),
        x_label: "seconds".into(),
        y_label: "messages".into(),
        y_is_logarithmic: false,
        x: (0..outage.own.len()).map(|step| step as f64 * BUCKET.as_secs_f64()).collect(),
        series: vec![
            series("clients of the same server", &outage.own),
            series("clients of the other server", &outage.foreign),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome::{Fails, Holds};

    #[test]
    fn each_claim_fails_when_its_measurement_contradicts_it() {
        let apart = CrossingResult {
            setting: "no broker".into(),
            own: (8, 8),
            foreign: (0, 8),
            ..CrossingResult::default()
        };
        let joined = CrossingResult {
            setting: "redis".into(),
            own: (8, 8),
            foreign: (8, 8),
            one_order: true,
            ..CrossingResult::default()
        };
        let good = OutageResult {
            own: vec![1],
            back: Some(BACK_MAX),
            told: (8, 8),
            lost: 1,
            on_the_way: 1,
            ..OutageResult::default()
        };
        let ping = PingResult { quiet: PING_NOISE, beside: 2 * PING_NOISE };
        let outcomes = |crossings: &[CrossingResult], outage: &OutageResult, ping: PingResult| {
            judge(crossings, outage, ping).map(|verdict| verdict.outcome)
        };
        let crossings = [apart.clone(), joined.clone()];
        assert_eq!(outcomes(&crossings, &good, ping), [Holds; 5]);
        let leaking = CrossingResult { foreign: (1, 8), ..apart.clone() };
        let lossy = CrossingResult { foreign: (7, 8), ..joined.clone() };
        let late = OutageResult { back: Some(BACK_MAX + STEP), closed: 1, ..good.clone() };
        let slow = PingResult { beside: 2 * PING_NOISE + STEP, ..ping };
        assert_eq!(outcomes(&[leaking, lossy], &late, slow), [Fails; 5]);
        let unordered = CrossingResult { one_order: false, ..joined.clone() };
        let untold = OutageResult { told: (7, 8), lost: 2, ..good };
        let expected = [Holds, Fails, Fails, Fails, Fails];
        assert_eq!(outcomes(&[apart.clone(), unordered], &untold, PingResult::default()), expected);
        let doubled = CrossingResult { twice: 1, ..joined };
        assert_eq!(outcomes(&[apart, doubled], &untold, ping)[1], Fails);
        assert_eq!(outcomes(&[], &OutageResult::default(), PingResult::default()), [Fails; 5]);
    }
}

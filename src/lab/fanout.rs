//! `slabd lab fanout`: publishes to many subscribers of the hub, over RESP and WebSocket. Measures
//! whether each subscriber gets every message once and in order, and the cost of a delivery.

use std::fmt;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result};

use super::server::ServerProcess;
use super::subscriber::{CHANNEL, DIGITS, LabSubscriber};
use super::{Scale, client, row, say, verdict};
use crate::report::figures;
use crate::report::{Page, Plot, Section, Series, Table, Verdict};

const SUBSCRIBERS: usize = 5000;
const QUICK: usize = 500;
/// Divisors of the maximum number of subscribers. The fan-out is measured with each quotient.
const STEPS: [usize; 3] = [50, 5, 1];
/// Number of deliveries of one run. They take the server some tenths of a second, with any number
/// of subscribers.
const DELIVERIES: usize = 100_000;
/// Number of publishes that the publisher sends together before it waits.
const TOGETHER: usize = 16;

/// Maximum factor by which a delivery costs more with fifty times the subscribers. It may cost a
/// few times more, because their sockets no longer fit the processor's cache. A server that scans
/// all subscribers for each delivery would pay fifty times.
const COST_MAX: f64 = 10.0;
/// Maximum number of writes per delivery for messages published together, relative to single
/// publishes.
const WRITES_MAX: f64 = 0.5;
/// Maximum cost of a delivery to subscribers of both protocols, relative to the mean of each. It
/// leaves room for a busy machine.
const MIXED_MAX: f64 = 1.5;

/// The protocols of the subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Audience {
    #[default]
    Resp,
    WebSocket,
    Both,
}

impl Audience {
    const ALL: [Audience; 3] = [Audience::Resp, Audience::WebSocket, Audience::Both];

    /// Subscribes number `index`.
    fn subscribe(self, index: usize, hub: SocketAddr) -> Result<LabSubscriber> {
        let subscriber = match self {
            Audience::Resp => LabSubscriber::over_resp(index, hub),
            Audience::WebSocket => LabSubscriber::over_websocket(index, hub),
            Audience::Both if index.is_multiple_of(2) => LabSubscriber::over_resp(index, hub),
            Audience::Both => LabSubscriber::over_websocket(index, hub),
        };
        subscriber.with_context(|| format!("subscriber {}", index + 1))
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Audience::Resp => "RESP",
            Audience::WebSocket => "WebSocket",
            Audience::Both => "half of each",
        })
    }
}

/// The measurements with one number of subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct FanoutResult {
    audience: Audience,
    subscribers: usize,
    together: usize,
    published: u64,
    /// Sum of the receivers in the server's replies to PUBLISH.
    promised: u64,
    tally: DeliveryCount,
    cpu_ms: u64,
    writes: u64,
}

impl FanoutResult {
    fn expected(&self) -> u64 {
        self.subscribers as u64 * self.published
    }

    fn cpu_us(&self) -> f64 {
        1000.0 * self.cpu_ms as f64 / self.tally.delivered.max(1) as f64
    }

    fn writes_each(&self) -> f64 {
        self.writes as f64 / self.tally.delivered.max(1) as f64
    }
}

/// Counts of messages at subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct DeliveryCount {
    delivered: u64,
    lost: u64,
    /// Messages that came after a later one, or for the second time.
    out_of_order: u64,
}

impl DeliveryCount {
    /// Counts message `number`, where `next` is due. Returns the number that is due after it.
    fn arrives(&mut self, number: u64, next: u64) -> u64 {
        self.delivered += 1;
        if number < next {
            self.out_of_order += 1;
            // When a later message overtook this one, this one was counted as lost.
            self.lost = self.lost.saturating_sub(1);
            return next;
        }
        self.lost += number - next;
        number + 1
    }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let most = scale.connections.unwrap_or(if scale.quick { QUICK } else { SUBSCRIBERS });
    let deliveries = if scale.quick { DELIVERIES / 4 } else { DELIVERIES };
    let mut server = ServerProcess::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--idle-timeout",
        "0",
        "--max-silent",
        "65535",
    ])?;
    let hub = server.address("hub")?;
    let mut publisher = client::connect(Ipv4Addr::LOCALHOST, hub)?;
    let mut results = Vec::new();
    for audience in Audience::ALL {
        let mut subscribers = Vec::new();
        for count in STEPS.map(|step| (most / step).max(1)) {
            say(&format!("{} subscribers: {audience}", figures::count(count as u64)));
            while subscribers.len() < count {
                subscribers.push(audience.subscribe(subscribers.len(), hub)?);
            }
            for together in [1, TOGETHER] {
                let result =
                    measure(&mut server, &mut publisher, &mut subscribers, together, deliveries)?;
                results.push(FanoutResult { audience, ..result });
            }
        }
    }
    let mut sections = vec![Section::Table(table(&results)), Section::Plot(plot(&results))];
    sections.extend(judge(&results).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab fanout".into(),
        summary: format!(
            "One publisher and up to {} subscribers of one channel: over RESP, over WebSocket, or \
             half of each. The publisher sends one message, or {TOGETHER} together, and goes on \
             when all subscribers have read them. Processor time and writes are the server's.",
            figures::count(most as u64)
        ),
        sections,
    })
}

fn judge(results: &[FanoutResult]) -> [Verdict; 5] {
    let sum = |part: fn(&FanoutResult) -> u64| results.iter().map(part).sum::<u64>();
    let (expected, delivered) = (sum(FanoutResult::expected), sum(|result| result.tally.delivered));
    let (lost, out_of_order) =
        (sum(|result| result.tally.lost), sum(|result| result.tally.out_of_order));
    let promised = sum(|result| result.promised);
    let measured = delivered > 0;
    // Per protocol: the least and the greatest number of subscribers, and the latter in batches.
    let steps = [Audience::Resp, Audience::WebSocket].map(|audience| {
        let first = with(results, audience, 1).next().copied().unwrap_or_default();
        let last = with(results, audience, 1).next_back().copied().unwrap_or_default();
        let batched = with(results, audience, TOGETHER).next_back().copied().unwrap_or_default();
        (first, last, batched)
    });
    let each = |line: fn(&(FanoutResult, FanoutResult, FanoutResult)) -> String| {
        let [resp, websocket] = &steps;
        format!("RESP: {}; WebSocket: {}", line(resp), line(websocket))
    };
    [
        verdict(
            "Every subscriber gets every message. The reply to a publish states the number of its \
             receivers, and all of them receive it.",
            format!(
                "{} of {} expected deliveries, {} stated in replies, {lost} lost",
                figures::count(delivered),
                figures::count(expected),
                figures::count(promised)
            ),
            measured && delivered == expected && promised == expected && lost == 0,
        ),
        verdict(
            "Each subscriber gets each message once, in the order of the publishes.",
            format!("{out_of_order} deliveries out of order or twice"),
            measured && out_of_order == 0,
        ),
        verdict(
            "The work grows with the number of deliveries. With fifty times the subscribers, a \
             delivery costs a few times more, because their sockets leave the processor's cache, \
             but not fifty times more.",
            format!(
                "processor time per delivery with {} and with {} subscribers: {}",
                figures::count(steps[0].1.subscribers as u64),
                figures::count(steps[0].0.subscribers as u64),
                each(|(first, last, _)| format!(
                    "{:.2} and {:.2} µs",
                    last.cpu_us(),
                    first.cpu_us()
                ))
            ),
            measured
                && steps.iter().all(|(first, last, _)| last.cpu_us() <= COST_MAX * first.cpu_us()),
        ),
        verdict(
            "Messages that are published together are sent together: one write carries several of \
             them, so each costs less.",
            format!(
                "per delivery with {TOGETHER} together and with one at a time: {}",
                each(|(_, last, batched)| format!(
                    "{:.2} and {:.2} writes, {:.2} and {:.2} µs",
                    batched.writes_each(),
                    last.writes_each(),
                    batched.cpu_us(),
                    last.cpu_us()
                ))
            ),
            measured
                && steps.iter().all(|(_, last, batched)| {
                    batched.writes_each() <= WRITES_MAX * last.writes_each()
                        && batched.cpu_us() < last.cpu_us()
                }),
        ),
        judge_mixed(results),
    ]
}

/// Returns the results with these subscribers, from few of them to many.
fn with(
    results: &[FanoutResult],
    audience: Audience,
    together: usize,
) -> impl DoubleEndedIterator<Item = &FanoutResult> {
    results.iter().filter(move |result| (result.audience, result.together) == (audience, together))
}

/// Judges the cost of a fan-out to both protocols at once.
fn judge_mixed(results: &[FanoutResult]) -> Verdict {
    let [resp, websocket, both] = Audience::ALL
        .map(|audience| with(results, audience, 1).next_back().map_or(0.0, FanoutResult::cpu_us));
    let mean = (resp + websocket) / 2.0;
    verdict(
        "A channel may have subscribers of several protocols. A message is encoded once for each \
         protocol, so a delivery costs the mean of both.",
        format!(
            "{both:.2} µs per delivery if half of the subscribers have RESP and half WebSocket, \
             {resp:.2} if all have RESP, {websocket:.2} if all have WebSocket"
        ),
        both > 0.0 && both <= MIXED_MAX * mean,
    )
}

fn measure(
    server: &mut ServerProcess,
    publisher: &mut TcpStream,
    subscribers: &mut [LabSubscriber],
    together: usize,
    deliveries: usize,
) -> Result<FanoutResult> {
    let batches = (deliveries / subscribers.len() / together).max(2);
    let mut result = FanoutResult {
        subscribers: subscribers.len(),
        together,
        published: (batches * together) as u64,
        ..FanoutResult::default()
    };
    let before = server.info()?;
    for batch in 0..batches {
        let first = (batch * together) as u64;
        let numbers = first..first + together as u64;
        result.promised += publish(publisher, numbers.clone())?;
        for subscriber in &mut *subscribers {
            let mut next = numbers.start;
            for number in subscriber.receive(together)? {
                next = result.tally.arrives(number, next);
            }
            result.tally.lost += numbers.end.saturating_sub(next);
        }
        if result.tally.lost > 0 {
            // Every further batch would wait for its timeout, and the verdict is already clear.
            result.published = numbers.end;
            break;
        }
    }
    let after = server.info()?;
    result.cpu_ms = after.growth(&before, "loop/processor_time_ms")?;
    result.writes = after.growth(&before, "loop/writes")?;
    Ok(result)
}

/// Publishes one message for each number. Returns the sum of the receivers in the replies.
fn publish(publisher: &mut TcpStream, numbers: std::ops::Range<u64>) -> Result<u64> {
    let commands: String =
        numbers.clone().map(|number| format!("PUBLISH {CHANNEL} {number:0DIGITS$}\r\n")).collect();
    publisher.write_all(commands.as_bytes())?;
    let mut receivers = 0;
    for _ in numbers {
        let line = client::read_line(publisher).context("the hub does not answer PUBLISH")?;
        let count = line.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
        receivers += count.with_context(|| format!("the hub answers PUBLISH with {line:?}"))?;
    }
    Ok(receivers)
}

fn table(results: &[FanoutResult]) -> Table {
    let rows = results.iter().map(|result| {
        row([
            &result.audience,
            &figures::count(result.subscribers as u64),
            &result.together,
            &figures::count(result.published),
            &figures::count(result.tally.delivered),
            &result.tally.lost,
            &result.tally.out_of_order,
            &format!("{:.2}", result.writes_each()),
            &format!("{:.2}", result.cpu_us()),
        ])
    });
    Table::new(
        "Deliveries",
        "protocol | subscribers | together | published | delivered | lost | out of order | \
         writes per delivery | µs per delivery",
        rows,
    )
}

fn plot(results: &[FanoutResult]) -> Plot {
    let series = |(audience, together): (Audience, usize)| Series {
        name: match together {
            1 => format!("{audience}, one at a time"),
            _ => format!("{audience}, {together} together"),
        },
        values: with(results, audience, together).map(|result| Some(result.cpu_us())).collect(),
    };
    let kinds =
        Audience::ALL.into_iter().flat_map(|audience| [(audience, 1), (audience, TOGETHER)]);
    Plot {
        title: "Processor time of the server for one delivery".into(),
        x_label: "subscribers".into(),
        y_label: "microseconds".into(),
        y_is_logarithmic: false,
        x: with(results, Audience::Resp, 1).map(|result| result.subscribers as f64).collect(),
        series: kinds.map(series).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    fn tally(numbers: &[u64], due: u64) -> (u64, u64, u64) {
        let mut tally = DeliveryCount::default();
        let next = numbers.iter().fold(0, |next, number| tally.arrives(*number, next));
        tally.lost += due - next;
        (tally.delivered, tally.lost, tally.out_of_order)
    }

    #[test]
    fn lost_late_and_repeated_messages_are_counted_apart() {
        assert_eq!(tally(&[0, 1, 2, 3], 4), (4, 0, 0));
        assert_eq!(tally(&[0, 1, 3], 4), (3, 1, 0), "lost between two");
        assert_eq!(tally(&[0, 1], 4), (2, 2, 0), "lost at the end");
        assert_eq!(tally(&[0, 2, 1, 3], 4), (4, 0, 1), "late");
        assert_eq!(tally(&[0, 1, 1, 2, 3], 4), (5, 0, 1), "twice");
        assert_eq!(tally(&[], 4), (0, 4, 0));
    }

    fn result(
        audience: Audience,
        subscribers: usize,
        together: usize,
        cpu_ms: u64,
        writes: u64,
    ) -> FanoutResult {
        let tally = DeliveryCount { delivered: 1000, ..DeliveryCount::default() };
        let published = 1000 / subscribers as u64;
        let promised = 1000;
        FanoutResult { audience, subscribers, together, published, promised, tally, cpu_ms, writes }
    }

    #[test]
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
        use Outcome::{Fails, Holds};
        let of = |audience| {
            [
                result(audience, 10, 1, 5, 1000),
                result(audience, 10, 16, 5, 1000),
                result(audience, 100, 1, 50, 1000),
                result(audience, 100, 16, 49, 500),
            ]
        };
        let mut good = Audience::ALL.map(of).concat();
        // The mean of 50 and 50, times 1.5.
        good[10].cpu_ms = 75;
        let with = |change: &dyn Fn(&mut [FanoutResult])| {
            let mut results = good.clone();
            change(&mut results);
            judge(&results).map(|verdict| verdict.outcome)
        };
        assert_eq!(with(&|_| {}), [Holds; 5]);
        // First RESP, then WebSocket.
        for at in [0, 4] {
            assert_eq!(with(&|results| results[at].tally.delivered = 999)[0], Fails);
            assert_eq!(with(&|results| results[at].tally.lost = 1)[0], Fails);
            assert_eq!(with(&|results| results[at + 1].promised = 999)[0], Fails);
            let order = |results: &mut [FanoutResult]| results[at + 3].tally.out_of_order = 1;
            assert_eq!(with(&order), [Holds, Fails, Holds, Holds, Holds]);
            let cost = |results: &mut [FanoutResult]| results[at + 2].cpu_ms = 51;
            assert_eq!(with(&cost), [Holds, Holds, Fails, Holds, Holds]);
            let writes = |results: &mut [FanoutResult]| results[at + 3].writes = 501;
            assert_eq!(with(&writes), [Holds, Holds, Holds, Fails, Holds]);
            let batched = |results: &mut [FanoutResult]| results[at + 3].cpu_ms = 50;
            assert_eq!(with(&batched), [Holds, Holds, Holds, Fails, Holds]);
        }
        let mixed = |results: &mut [FanoutResult]| results[10].cpu_ms = 76;
        assert_eq!(with(&mixed), [Holds, Holds, Holds, Holds, Fails]);
        assert_eq!(judge(&[]).map(|verdict| verdict.outcome), [Fails; 5]);
    }
}

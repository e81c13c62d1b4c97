//! `slabd lab fanout`: publishes to many subscribers of the hub. Measures whether each subscriber
//! gets every message once and in order, and the cost of a delivery.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::server::ServerProcess;
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

/// The measurements with one number of subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct FanoutResult {
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
    let mut subscribers = Vec::new();
    let mut results = Vec::new();
    for count in STEPS.map(|step| (most / step).max(1)) {
        say(&format!("{} subscribers", figures::count(count as u64)));
        while subscribers.len() < count {
            subscribers.push(subscribe(subscribers.len(), hub)?);
        }
        for together in [1, TOGETHER] {
            results.push(measure(
                &mut server,
                &mut publisher,
                &mut subscribers,
                together,
                deliveries,
            )?);
        }
    }
    let mut sections = vec![Section::Table(table(&results)), Section::Plot(plot(&results))];
    sections.extend(judge(&results).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab fanout".into(),
        summary: format!(
            "One publisher and up to {} subscribers of one channel. The publisher sends one \
             message, or {TOGETHER} together, and goes on when all subscribers have read them. \
             Processor time and writes are those of the server.",
            figures::count(most as u64)
        ),
        sections,
    })
}

fn judge(results: &[FanoutResult]) -> [Verdict; 4] {
    let sum = |part: fn(&FanoutResult) -> u64| results.iter().map(part).sum::<u64>();
    let (expected, delivered) = (sum(FanoutResult::expected), sum(|result| result.tally.delivered));
    let (lost, out_of_order) =
        (sum(|result| result.tally.lost), sum(|result| result.tally.out_of_order));
    let promised = sum(|result| result.promised);
    let with = |together: usize| results.iter().filter(move |result| result.together == together);
    let first = with(1).next().copied().unwrap_or_default();
    let (last, batched) = (
        with(1).next_back().copied().unwrap_or_default(),
        with(TOGETHER).next_back().copied().unwrap_or_default(),
    );
    let measured = delivered > 0;
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
                "{:.2} µs of processor time per delivery with {} subscribers, {:.2} with {}",
                last.cpu_us(),
                figures::count(last.subscribers as u64),
                first.cpu_us(),
                figures::count(first.subscribers as u64)
            ),
            measured && last.cpu_us() <= COST_MAX * first.cpu_us(),
        ),
        verdict(
            "Messages that are published together are sent together: one write carries several of \
             them, so each costs less.",
            format!(
                "per delivery {:.2} writes and {:.2} µs with {TOGETHER} together, {:.2} writes \
                 and {:.2} µs with one at a time",
                batched.writes_each(),
                batched.cpu_us(),
                last.writes_each(),
                last.cpu_us()
            ),
            measured
                && batched.writes_each() <= WRITES_MAX * last.writes_each()
                && batched.cpu_us() < last.cpu_us(),
        ),
    ]
}

/// Digits of a message's number, padded with zeros so that all messages have the same length.
const DIGITS: usize = 20;
const HEAD: &str = "*3\r\n$7\r\nmessage\r\n$3\r\nlab\r\n$20\r\n";
const LENGTH: usize = HEAD.len() + DIGITS + 2;

fn measure(
    server: &mut ServerProcess,
    publisher: &mut TcpStream,
    subscribers: &mut [TcpStream],
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
            receive(subscriber, numbers.clone(), &mut result.tally)?;
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
        numbers.clone().map(|number| format!("PUBLISH lab {number:0DIGITS$}\r\n")).collect();
    publisher.write_all(commands.as_bytes())?;
    let mut receivers = 0;
    for _ in numbers {
        let line = client::read_line(publisher).context("the hub does not answer PUBLISH")?;
        let count = line.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
        receivers += count.with_context(|| format!("the hub answers PUBLISH with {line:?}"))?;
    }
    Ok(receivers)
}

/// Reads the messages that are due at one subscriber, and counts them.
fn receive(
    subscriber: &mut TcpStream,
    due: std::ops::Range<u64>,
    tally: &mut DeliveryCount,
) -> Result<()> {
    let mut bytes = vec![0; LENGTH * (due.end - due.start) as usize];
    let mut length = 0;
    while length < bytes.len() {
        match subscriber.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // After a timeout or a reset, the rest counts as lost.
            Err(_) => break,
        }
    }
    let mut next = due.start;
    for message in bytes[..length].chunks_exact(LENGTH) {
        next = tally.arrives(number(message)?, next);
    }
    tally.lost += due.end.saturating_sub(next);
    Ok(())
}

fn number(message: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(message)
        .ok()
        .and_then(|text| text.strip_prefix(HEAD)?.trim_end().parse().ok());
    text.with_context(|| {
        format!("a subscriber received \"{}\" instead of a message", message.escape_ascii())
    })
}

fn subscribe(index: usize, hub: SocketAddr) -> Result<TcpStream> {
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nlab\r\n:1\r\n";
    let mut stream = client::connect(client::source(index), hub)
        .with_context(|| format!("subscriber {}", index + 1))?;
    client::ask(&mut stream, b"SUBSCRIBE lab\r\n", confirmation)
        .with_context(|| format!("subscriber {}", index + 1))?;
    ensure!(stream.peer_addr().is_ok(), "the server closed subscriber {} at once", index + 1);
    Ok(stream)
}

fn table(results: &[FanoutResult]) -> Table {
    let rows = results.iter().map(|result| {
        row([
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
        "subscribers | together | published | delivered | lost | out of order | writes per \
         delivery | µs per delivery",
        rows,
    )
}

fn plot(results: &[FanoutResult]) -> Plot {
    let with = |together: usize| results.iter().filter(move |result| result.together == together);
    let series = |name: &str, together: usize| Series {
        name: name.into(),
        values: with(together).map(|result| Some(result.cpu_us())).collect(),
    };
    Plot {
        title: "Processor time of the server for one delivery".into(),
        x_label: "subscribers".into(),
        y_label: "microseconds".into(),
        y_is_logarithmic: false,
        x: with(1).map(|result| result.subscribers as f64).collect(),
        series: vec![series("one at a time", 1), series(&format!("{TOGETHER} together"), TOGETHER)],
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

    #[test]
    fn a_message_gives_its_number_and_anything_else_an_error() {
        let message = format!("{HEAD}{:0DIGITS$}\r\n", 17);
        assert_eq!((message.len(), number(message.as_bytes()).unwrap()), (LENGTH, 17));
        assert!(number(b"-ERR no\r\n").is_err());
    }

    fn result(subscribers: usize, together: usize, cpu_ms: u64, writes: u64) -> FanoutResult {
        let tally = DeliveryCount { delivered: 1000, ..DeliveryCount::default() };
        let published = 1000 / subscribers as u64;
        FanoutResult { subscribers, together, published, promised: 1000, tally, cpu_ms, writes }
    }

    #[test]
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
        use Outcome::{Fails, Holds};
        let good = [
            result(10, 1, 5, 1000),
            result(10, 16, 5, 1000),
            result(100, 1, 50, 1000),
            result(100, 16, 49, 500),
        ];
        let with = |change: fn(&mut [FanoutResult; 4])| {
            let mut results = good;
            change(&mut results);
            judge(&results).map(|verdict| verdict.outcome)
        };
        assert_eq!(with(|_| {}), [Holds; 4]);
        assert_eq!(with(|results| results[0].tally.delivered = 999)[0], Fails);
        assert_eq!(with(|results| results[0].tally.lost = 1)[0], Fails);
        assert_eq!(with(|results| results[1].promised = 999)[0], Fails);
        assert_eq!(with(|results| results[3].tally.out_of_order = 1), [Holds, Fails, Holds, Holds]);
        assert_eq!(with(|results| results[2].cpu_ms = 51), [Holds, Holds, Fails, Holds]);
        assert_eq!(with(|results| results[3].writes = 501), [Holds, Holds, Holds, Fails]);
        assert_eq!(with(|results| results[3].cpu_ms = 50), [Holds, Holds, Holds, Fails]);
        assert_eq!(judge(&[]).map(|verdict| verdict.outcome), [Fails; 4]);
    }
}

//! `slabd lab fanout`: one publish to many subscribers of the hub. Whether each gets every message, once and in order, and what a delivery
//! costs the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::server::ServerProcess;
use super::{Scale, client, row, say, verdict};
use crate::report::figures;
use crate::report::{Page, Plot, Section, Series, Table, Verdict};

const SUBSCRIBERS: usize = 5000;
const QUICK: usize = 500;
/// Parts of the largest count.
const STEPS: [usize; 3] = [50, 5, 1];
/// Deliveries of one run, so that each takes the server some tenths of a second, however many share a message.
const DELIVERIES: usize = 100_000;
/// Publishes sent together before anybody waits.
const TOGETHER: usize = 16;

/// With fifty times the subscribers a delivery costs at most so many times as much. It costs some times as much because their sockets no
/// longer fit the processor's cache; whoever looks at all subscribers for each delivery pays fifty times.
const COST_MAX: f64 = 10.0;
/// Messages that were published together take at most this part of a write each.
const WRITES_MAX: f64 = 0.5;

/// What one number of subscribers received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct FanoutResult {
    subscribers: usize,
    together: usize,
    published: u64,
    /// Of all receivers that the server named in its replies.
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

/// Messages as they arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct DeliveryCount {
    delivered: u64,
    lost: u64,
    /// Later than one that was published after it, or a second time.
    out_of_order: u64,
}

impl DeliveryCount {
    /// A message arrives where that of number `next` is due; returns which is due then.
    fn arrives(&mut self, number: u64, next: u64) -> u64 {
        self.delivered += 1;
        if number < next {
            self.out_of_order += 1;
            // It was thought lost when a later one came before it, unless it comes for the second time.
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
    let mut server =
        ServerProcess::start(&["--listen", "hub=127.0.0.1:0", "--idle-timeout", "0", "--max-silent", "65535"])?;
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
            results.push(measure(&mut server, &mut publisher, &mut subscribers, together, deliveries)?);
        }
    }
    let mut sections = vec![Section::Table(table(&results)), Section::Plot(plot(&results))];
    sections.extend(judge(&results).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab fanout".into(),
        summary: format!(
            "Up to {} subscribers of one channel, and one publisher: it waits until all have read what it published, one message or {TOGETHER} \
             together, before it goes on. Processor time and writes are the server's.",
            figures::count(most as u64)
        ),
        sections,
    })
}

fn judge(results: &[FanoutResult]) -> [Verdict; 4] {
    let sum = |part: fn(&FanoutResult) -> u64| results.iter().map(part).sum::<u64>();
    let (expected, delivered) = (sum(FanoutResult::expected), sum(|result| result.tally.delivered));
    let (lost, out_of_order) = (sum(|result| result.tally.lost), sum(|result| result.tally.out_of_order));
    let promised = sum(|result| result.promised);
    let with = |together: usize| results.iter().filter(move |result| result.together == together);
    let first = with(1).next().copied().unwrap_or_default();
    let (last, batched) =
        (with(1).next_back().copied().unwrap_or_default(), with(TOGETHER).next_back().copied().unwrap_or_default());
    let measured = delivered > 0;
    [
        verdict(
            "Every subscriber gets every message: a publish is answered with how many will receive it, and they do.",
            format!(
                "{} deliveries of {} expected, {} promised; {lost} lost",
                figures::count(delivered),
                figures::count(expected),
                figures::count(promised)
            ),
            measured && delivered == expected && promised == expected && lost == 0,
        ),
        verdict(
            "Each gets them once, and in the order in which they were published.",
            format!("{out_of_order} out of order"),
            measured && out_of_order == 0,
        ),
        verdict(
            "The work grows with the deliveries, not with subscribers times subscribers: to fifty times as many, each is some times dearer, as their \
             sockets leave the processor's cache, not fifty times.",
            format!(
                "{:.2} us of processor time with {} subscribers, {:.2} with {}",
                last.cpu_us(),
                figures::count(last.subscribers as u64),
                first.cpu_us(),
                figures::count(first.subscribers as u64)
            ),
            measured && last.cpu_us() <= COST_MAX * first.cpu_us(),
        ),
        verdict(
            "What is published together leaves together: one write carries several messages, and each costs less.",
            format!(
                "{:.2} writes and {:.2} us a delivery with {TOGETHER} together, {:.2} and {:.2} with one at a time",
                batched.writes_each(),
                batched.cpu_us(),
                last.writes_each(),
                last.cpu_us()
            ),
            measured && batched.writes_each() <= WRITES_MAX * last.writes_each() && batched.cpu_us() < last.cpu_us(),
        ),
    ]
}

/// Room for the digits of any number of a message, so that all messages have one length.
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
            // Whoever waits for what does not come waits for long: the verdict is clear.
            result.published = numbers.end;
            break;
        }
    }
    let after = server.info()?;
    result.cpu_ms = after.growth(&before, "loop/processor_time_ms")?;
    result.writes = after.growth(&before, "loop/writes")?;
    Ok(result)
}

/// Publishes one message for each number, and returns the sum of their receivers.
fn publish(publisher: &mut TcpStream, numbers: std::ops::Range<u64>) -> Result<u64> {
    let commands: String = numbers.clone().map(|number| format!("PUBLISH lab {number:0DIGITS$}\r\n")).collect();
    publisher.write_all(commands.as_bytes())?;
    let mut receivers = 0;
    for _ in numbers {
        let line = client::read_line(publisher).context("the hub does not answer a publish")?;
        let count = line.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
        receivers += count.with_context(|| format!("the hub answers a publish with {line:?}"))?;
    }
    Ok(receivers)
}

/// Reads what one subscriber is owed.
fn receive(subscriber: &mut TcpStream, due: std::ops::Range<u64>, tally: &mut DeliveryCount) -> Result<()> {
    let mut bytes = vec![0; LENGTH * (due.end - due.start) as usize];
    let mut length = 0;
    while length < bytes.len() {
        match subscriber.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing comes any more.
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
    let text = std::str::from_utf8(message).ok().and_then(|text| text.strip_prefix(HEAD)?.trim_end().parse().ok());
    text.with_context(|| format!("a subscriber reads \"{}\"", message.escape_ascii()))
}

fn subscribe(index: usize, hub: SocketAddr) -> Result<TcpStream> {
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nlab\r\n:1\r\n";
    let mut stream =
        client::connect(client::source(index), hub).with_context(|| format!("subscriber {}", index + 1))?;
    client::ask(&mut stream, b"SUBSCRIBE lab\r\n", confirmation)
        .with_context(|| format!("subscriber {}", index + 1))?;
    ensure!(stream.peer_addr().is_ok(), "subscriber {} is gone at once", index + 1);
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
        "subscribers | together | published | delivered | lost | out of order | writes each | us each",
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
    fn what_is_lost_late_or_twice_is_told_apart() {
        assert_eq!(tally(&[0, 1, 2, 3], 4), (4, 0, 0));
        assert_eq!(tally(&[0, 1, 3], 4), (3, 1, 0), "lost between two");
        assert_eq!(tally(&[0, 1], 4), (2, 2, 0), "lost at the end");
        assert_eq!(tally(&[0, 2, 1, 3], 4), (4, 0, 1), "late");
        assert_eq!(tally(&[0, 1, 1, 2, 3], 4), (5, 0, 1), "twice");
        assert_eq!(tally(&[], 4), (0, 4, 0));
    }

    #[test]
    fn a_message_is_read_by_its_number_and_anything_else_is_an_error() {
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
    fn each_claim_at_its_bound_and_past_it() {
        use Outcome::{Fails, Holds};
        let good =
            [result(10, 1, 5, 1000), result(10, 16, 5, 1000), result(100, 1, 50, 1000), result(100, 16, 49, 500)];
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

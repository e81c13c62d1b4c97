//! `slabd lab turns`: what one turn of the loop does under different load, by the server's own counters.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::server::{Info, ServerProcess};
use super::{Scale, client, row, say, verdict};
use crate::clock::{Clock, Time};
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};

/// How long each load is on, and in a quick run.
const SPAN: Duration = Duration::from_millis(2000);
const QUICK: Duration = Duration::from_millis(300);
/// The clients have all begun before it is measured.
const LEAD: Duration = Duration::from_millis(100);
const CLIENTS: usize = 50;
const PIPELINE: usize = 32;

/// A loop that does nothing may still turn so often a second: a timer here and there.
const IDLE_TURNS_MAX: f64 = 10.0;
/// Messages of one client in a turn; a little more than one, because what INFO adds to the counters is not known to the turn.
const ALONE_MAX: f64 = 1.01;
/// A turn serves so many more messages of fifty clients than of one, at the least.
const SHARING_MIN: f64 = 2.0;
/// A pipelined message costs the loop at most this part of one that comes alone.
const PIPELINED_COST_MAX: f64 = 0.5;
/// A message on a connection of its own costs at least so many times one on a connection that is there.
const CONNECTING_COST_MIN: f64 = 1.2;

/// What the clients do.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    clients: usize,
    /// Messages sent at once, then as many answers read.
    pipeline: usize,
    /// A new connection for each round.
    connects: bool,
}

const LOADS: [Load; 5] = [
    Load { name: "idle", clients: 0, pipeline: 0, connects: false },
    Load { name: "1 client", clients: 1, pipeline: 1, connects: false },
    Load { name: "50 clients", clients: CLIENTS, pipeline: 1, connects: false },
    Load { name: "50 clients, 32 at once", clients: CLIENTS, pipeline: PIPELINE, connects: false },
    Load { name: "50 clients, each time anew", clients: CLIENTS, pipeline: 1, connects: true },
];

/// What the counters grew by under one load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LoadResult {
    seconds: f64,
    turns: u64,
    events: u64,
    accepts: u64,
    reads: u64,
    writes: u64,
    messages: u64,
    /// Time in turns, the wait for events not counted.
    busy_us: u64,
    /// Processor time, polls included. Unlike the time in turns it does not grow when others have the processor.
    cpu_ms: u64,
}

impl LoadResult {
    fn per_turn(&self, count: u64) -> f64 {
        count as f64 / self.turns.max(1) as f64
    }

    /// Microseconds of processor time for one message.
    fn message_us(&self) -> f64 {
        1000.0 * self.cpu_ms as f64 / self.messages.max(1) as f64
    }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let span = if scale.quick { QUICK } else { SPAN };
    // Everybody connects from one address, again and again.
    let listen = ["--listen", "hub=127.0.0.1:0", "--penalty", "0"];
    let mut server = ServerProcess::start(&listen)?;
    let mut results = Vec::new();
    for load in &LOADS {
        say(load.name);
        results.push(measure(&mut server, load, span)?);
    }
    let rows = LOADS.iter().zip(&results).map(|(load, result)| {
        let per_turn = |count| format!("{:.2}", result.per_turn(count));
        row([
            &load.name,
            &figures::count((result.turns as f64 / result.seconds) as u64),
            &per_turn(result.events),
            &per_turn(result.accepts),
            &per_turn(result.reads),
            &per_turn(result.messages),
            &per_turn(result.writes),
            &if result.turns == 0 { "-".into() } else { format!("{:.1}", result.per_turn(result.busy_us)) },
            &if result.messages == 0 { "-".into() } else { format!("{:.2}", result.message_us()) },
        ])
    });
    let table = Table::new(
        "One turn, on average",
        "load | turns/s | events | accepts | reads | messages | writes | us | cpu us/message",
        rows,
    );
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab turns".into(),
        summary: format!(
            "Clients send PING and wait for the answer, each in a thread of its own, for {:.1} s a load; the counters are the server's. \
             A turn's microseconds are those between its polls, so the wait for events is not in them; the processor time of a message \
             is of all that the server does. The clients have the same machine, so how often the loop turns says little.",
            span.as_secs_f64()
        ),
        sections,
    })
}

fn judge(results: &[LoadResult]) -> [Verdict; 5] {
    let result = |index: usize| results.get(index).copied().unwrap_or_default();
    let [idle, one, many, pipelined, anew] = [0, 1, 2, 3, 4].map(result);
    let worked = |result: &LoadResult| result.messages > 0 && result.turns > 0;
    let idle_turns = idle.turns as f64 / idle.seconds.max(f64::MIN_POSITIVE);
    let (alone, shared) = (one.per_turn(one.messages), many.per_turn(many.messages));
    let per_read = pipelined.messages as f64 / pipelined.reads.max(1) as f64;
    let per_write = pipelined.messages as f64 / pipelined.writes.max(1) as f64;
    [
        verdict(
            "A loop with nothing to do does not turn: it sleeps in poll.",
            format!("{idle_turns:.1} turns a second"),
            idle.seconds > 0.0 && idle_turns <= IDLE_TURNS_MAX,
        ),
        verdict(
            "With one client that waits for each answer, each message has a turn of its own.",
            format!("{alone:.2} messages a turn"),
            worked(&one) && alone <= ALONE_MAX,
        ),
        verdict(
            "With many clients one turn serves many of them: under load the cost of a poll is shared.",
            format!("{shared:.1} messages a turn with {CLIENTS} clients, {alone:.2} with one"),
            worked(&one) && worked(&many) && shared >= SHARING_MIN * alone,
        ),
        verdict(
            "Pipelining shares the reads and writes as well: one of each carries many messages, for a fraction of the time.",
            format!(
                "{per_read:.1} messages a read and {per_write:.1} a write; {:.2} us of processor time a message, {:.2} without",
                pipelined.message_us(),
                many.message_us()
            ),
            worked(&pipelined)
                && per_read >= PIPELINE as f64 / 2.0
                && per_write >= PIPELINE as f64 / 2.0
                && pipelined.message_us() <= PIPELINED_COST_MAX * many.message_us(),
        ),
        verdict(
            "A connection for each message costs more than the message: connections are to be kept.",
            format!(
                "{:.2} us of processor time for connecting, one message and closing, {:.2} for the message alone",
                anew.message_us(),
                many.message_us()
            ),
            worked(&anew) && anew.accepts > 0 && anew.message_us() >= CONNECTING_COST_MIN * many.message_us(),
        ),
    ]
}

fn measure(server: &mut ServerProcess, load: &Load, span: Duration) -> Result<LoadResult> {
    let address = server.address("hub")?;
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let clients: Vec<ScopedJoinHandle<Result<()>>> =
            (0..load.clients).map(|_| threads.spawn(|| ping(address, load, &stop))).collect();
        sleep(LEAD);
        let clock = Clock::start();
        let before = server.info();
        sleep(span);
        let after = server.info();
        let seconds = clock.now().since(Time::ZERO).as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client of load '{}' failed", load.name))??;
        }
        result(&before?, &after?, seconds)
    })
}

/// A client's life: send, read, again, until told to stop.
fn ping(address: SocketAddr, load: &Load, stop: &AtomicBool) -> Result<()> {
    let (request, answer) = (b"PING\r\n".repeat(load.pipeline), b"+PONG\r\n".repeat(load.pipeline));
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => client::connect(Ipv4Addr::LOCALHOST, address)?,
        };
        client::ask(&mut stream, &request, &answer)?;
        if load.connects {
            // A reset, so that this side's ports are free again at once.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        } else {
            kept = Some(stream);
        }
    }
    Ok(())
}

/// What the counters grew by, less what looking has added: one message, read and written in a turn of its own at the most.
fn result(before: &Info, after: &Info, seconds: f64) -> Result<LoadResult> {
    let growth = |name: &str| after.growth(before, name);
    let less_one = |name: &str| growth(name).map(|count| count.saturating_sub(1));
    Ok(LoadResult {
        seconds,
        turns: less_one("loop/turns")?,
        events: less_one("loop/events")?,
        accepts: growth("connections/accepted")?,
        reads: less_one("loop/reads")?,
        writes: less_one("loop/writes")?,
        messages: less_one("loop/messages")?,
        busy_us: growth("loop/busy_us")?,
        cpu_ms: growth("loop/processor_time_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    fn good() -> [LoadResult; 5] {
        let of = |turns, messages, carriers, accepts, cpu_ms| LoadResult {
            seconds: 1.0,
            turns,
            events: messages,
            accepts,
            reads: carriers,
            writes: carriers,
            messages,
            busy_us: 0,
            cpu_ms,
        };
        [
            of(10, 0, 0, 0, 5),
            of(1000, 1000, 1000, 0, 5000),
            of(1000, 2000, 2000, 0, 10_000),
            of(100, 3200, 200, 0, 8000),
            of(1000, 1000, 1000, 1000, 6000),
        ]
    }

    fn outcomes(results: &[LoadResult]) -> [Outcome; 5] {
        judge(results).map(|verdict| verdict.outcome)
    }

    #[test]
    fn each_claim_at_its_bound_and_past_it() {
        use Outcome::{Fails, Holds};
        assert_eq!(outcomes(&good()), [Holds; 5]);
        let with = |change: fn(&mut [LoadResult; 5])| {
            let mut results = good();
            change(&mut results);
            outcomes(&results)
        };
        assert_eq!(with(|results| results[0].turns = 11), [Fails, Holds, Holds, Holds, Holds]);
        assert_eq!(with(|results| results[1].messages = 1011), [Holds, Fails, Fails, Holds, Holds]);
        assert_eq!(with(|results| results[2].turns = 1001), [Holds, Holds, Fails, Holds, Holds]);
        assert_eq!(with(|results| results[3].reads = 201), [Holds, Holds, Holds, Fails, Holds]);
        assert_eq!(with(|results| results[3].cpu_ms = 8001), [Holds, Holds, Holds, Fails, Holds]);
        assert_eq!(with(|results| results[4].cpu_ms = 5999), [Holds, Holds, Holds, Holds, Fails]);
        assert_eq!(outcomes(&[]), [Fails; 5], "what did not run shows nothing");
    }
}

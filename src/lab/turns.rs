//! `slabd lab turns`: the work of one turn of the loop under different loads, by the server's own
//! counters.

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

/// Duration of each load.
const SPAN: Duration = Duration::from_millis(2000);
/// Duration of each load in a quick run.
const QUICK: Duration = Duration::from_millis(300);
/// Time for all clients to start before a measurement.
const LEAD: Duration = Duration::from_millis(100);
const CLIENTS: usize = 50;
const PIPELINE: usize = 32;

/// Maximum number of turns per second of an idle loop, which still has a few timers.
const IDLE_TURNS_MAX: f64 = 10.0;
/// Maximum number of messages per turn with one client. It is slightly more than one, because the
/// turns of the INFO commands are known only approximately.
const ALONE_MAX: f64 = 1.01;
/// Minimum factor by which a turn serves more messages with fifty clients than with one.
const SHARING_MIN: f64 = 2.0;
/// Maximum cost of a pipelined message, relative to a single one.
const PIPELINED_COST_MAX: f64 = 0.5;
/// Minimum cost of a message on a new connection, relative to one on an existing connection.
const CONNECTING_COST_MIN: f64 = 1.2;

/// One load: the behaviour of the clients.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    clients: usize,
    /// Messages that a client sends before it reads their answers.
    pipeline: usize,
    /// True if a client opens a new connection for each round.
    connects: bool,
}

const LOADS: [Load; 5] = [
    Load { name: "idle", clients: 0, pipeline: 0, connects: false },
    Load { name: "1 client", clients: 1, pipeline: 1, connects: false },
    Load { name: "50 clients", clients: CLIENTS, pipeline: 1, connects: false },
    Load { name: "50 clients, 32 at once", clients: CLIENTS, pipeline: PIPELINE, connects: false },
    Load { name: "50 clients, new connections", clients: CLIENTS, pipeline: 1, connects: true },
];

/// The growth of the server's counters under one load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LoadResult {
    seconds: f64,
    turns: u64,
    events: u64,
    accepts: u64,
    reads: u64,
    writes: u64,
    messages: u64,
    /// Time in turns, without the wait for events.
    busy_us: u64,
    /// Processor time, with polls. Unlike `busy_us`, it does not grow while other processes run.
    cpu_ms: u64,
}

impl LoadResult {
    fn per_turn(&self, count: u64) -> f64 {
        count as f64 / self.turns.max(1) as f64
    }

    /// Returns the processor time of one message in microseconds.
    fn message_us(&self) -> f64 {
        1000.0 * self.cpu_ms as f64 / self.messages.max(1) as f64
    }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let span = if scale.quick { QUICK } else { SPAN };
    // All clients connect from one address, again and again, so penalties are turned off.
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
            &if result.turns == 0 {
                "-".into()
            } else {
                format!("{:.1}", result.per_turn(result.busy_us))
            },
            &if result.messages == 0 { "-".into() } else { format!("{:.2}", result.message_us()) },
        ])
    });
    let table = Table::new(
        "One turn, on average",
        "load | turns/s | events | accepts | reads | messages | writes | µs | cpu µs/message",
        rows,
    );
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab turns".into(),
        summary: format!(
            "Each client is a thread that sends PING and waits for the answer, for {:.1} s per \
             load. The counters are the server's. The time of a turn excludes its wait for \
             events. The processor time per message includes everything that the server does. \
             Clients and server share this machine, so the number of turns per second means \
             little.",
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
            "An idle loop does not turn: it sleeps in poll.",
            format!("{idle_turns:.1} turns per second"),
            idle.seconds > 0.0 && idle_turns <= IDLE_TURNS_MAX,
        ),
        verdict(
            "With one client that waits for each answer, a turn serves one message.",
            format!("{alone:.2} messages per turn"),
            worked(&one) && alone <= ALONE_MAX,
        ),
        verdict(
            "With many clients, a turn serves several of them, so they share the cost of its poll.",
            format!("{shared:.1} messages per turn with {CLIENTS} clients, {alone:.2} with one"),
            worked(&one) && worked(&many) && shared >= SHARING_MIN * alone,
        ),
        verdict(
            "With pipelining, messages share reads and writes as well: one read or write carries \
             many messages, and each costs a fraction of the time.",
            format!(
                "{per_read:.1} messages per read and {per_write:.1} per write; {:.2} µs of \
                 processor time per message, {:.2} without pipelining",
                pipelined.message_us(),
                many.message_us()
            ),
            worked(&pipelined)
                && per_read >= PIPELINE as f64 / 2.0
                && per_write >= PIPELINE as f64 / 2.0
                && pipelined.message_us() <= PIPELINED_COST_MAX * many.message_us(),
        ),
        verdict(
            "A new connection for each message costs more than the message, so clients should \
             keep their connections.",
            format!(
                "{:.2} µs of processor time for connecting, one message and closing; {:.2} for a \
                 message on an open connection",
                anew.message_us(),
                many.message_us()
            ),
            worked(&anew)
                && anew.accepts > 0
                && anew.message_us() >= CONNECTING_COST_MIN * many.message_us(),
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
            client
                .join()
                .map_err(|_| anyhow!("a client of the load \"{}\" failed", load.name))??;
        }
        result(&before?, &after?, seconds)
    })
}

/// Runs one client: sends PING and reads the answer until `stop` is set.
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
            // Closing by a reset frees the port at once.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        } else {
            kept = Some(stream);
        }
    }
    Ok(())
}

/// Returns the growth of the counters, less the INFO command itself: one message, read and written
/// in at most one turn.
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
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
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
        assert_eq!(outcomes(&[]), [Fails; 5], "without measurements, no claim holds");
    }
}

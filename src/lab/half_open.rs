//! `slabd lab half-open`: honest clients beside a flood of silent connections, under each admission
//! policy. Holding a slot costs the attacker nothing. The policy decides whether a silent
//! connection or a newcomer loses when the slots are full.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Socket, Type};

use super::server::{Info, ServerProcess};
use super::{Scale, client, row, say, untried, verdict};
use crate::clock::{Clock, Time};
use crate::report::figures;
use crate::report::{Page, Plot, Section, Series, Table, Verdict};
use crate::sys::errno;

const POLICIES: [&str; 3] = ["recycle", "refuse", "random-drop"];

/// Maximum number of silent connections.
const SLOTS: u64 = 1024;
/// Flood connections per second. The age at eviction, slots ÷ rate, is then more than a second.
const RATE: u64 = 800;
/// Number of flood connections opened at once at the start of the flood. They alone do not fill the
/// slots, so they evict no earlier connection.
const BURST: u64 = SLOTS * 7 / 8;
/// Number of source addresses of the flood, from 127.66.0.1 up.
const FLOOD_SOURCES: u64 = 1000;
/// Number of honest clients. Each has a different address.
const HONEST: u64 = 48;
/// Mean pause of an honest client between connecting and asking, exponentially distributed. The
/// client also pauses this long before its next try, so it does not retake its slot at once.
const THINK: Duration = Duration::from_millis(80);
const THINK_MAX: Duration = Duration::from_millis(500);
/// Maximum wait of an honest client for its answer.
const HONEST_PATIENCE: Duration = Duration::from_secs(1);

/// Minimum percentage of honest tries that a working policy serves during the flood.
const SERVED_MIN: f64 = 99.0;
/// A policy that serves less than this percentage of honest tries locks honest clients out.
const LOCKED_OUT_MAX: f64 = 50.0;
/// Minimum number of tries for a verdict.
const TRIES_MIN: u64 = 100;

/// The start and end of the flood and of the run.
#[derive(Clone, Copy)]
struct Schedule {
    flood_from: Duration,
    flood_until: Duration,
    end: Duration,
    /// The time that one point of the graph covers.
    window: Duration,
}

const NORMAL: Schedule = Schedule {
    flood_from: Duration::from_millis(1000),
    flood_until: Duration::from_millis(5000),
    end: Duration::from_millis(6000),
    window: Duration::from_millis(500),
};
const QUICK: Schedule = Schedule {
    flood_from: Duration::from_millis(500),
    flood_until: Duration::from_millis(2500),
    end: Duration::from_millis(3000),
    window: Duration::from_millis(500),
};
/// Time from the start of the flood until flood connections hold the slots.
const FILLING: Duration = Duration::from_millis(300);

/// One try of an honest client: connect, ask, get the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Try {
    began: Duration,
    served: bool,
}

/// The measurements under one policy.
#[derive(Clone, Debug, Default)]
struct PolicyResult {
    policy: &'static str,
    /// Honest tries, as (all, served).
    before: (u64, u64),
    during: (u64, u64),
    after: (u64, u64),
    /// Percentage served, by window.
    graph: Vec<Option<f64>>,
    flood_opened: u64,
    /// The server's counters at the end of the flood.
    silent: u64,
    recycled: u64,
    refused: u64,
}

fn percent((tries, served): (u64, u64)) -> f64 {
    100.0 * served as f64 / tries.max(1) as f64
}

fn share((tries, served): (u64, u64)) -> String {
    figures::share(served, tries)
}

pub fn run(scale: &Scale) -> Result<Page> {
    let schedule = if scale.quick { QUICK } else { NORMAL };
    let seconds = (schedule.flood_until - schedule.flood_from).as_secs();
    let summary = format!(
        "Each of {HONEST} honest clients connects, waits {} ms on average, sends PING, reads the \
         answer, leaves, and comes again after a similar pause. For {seconds} s, a flood adds \
         silent connections from {} addresses: {BURST} at once, then {RATE} per second. The \
         server has {} slots for silent connections. Everything runs on this machine, with a new \
         server for each policy.",
        THINK.as_millis(),
        figures::count(FLOOD_SOURCES),
        figures::count(SLOTS)
    );
    let mut page = Page { title: "slabd lab half-open".into(), summary, sections: Vec::new() };
    let files = BURST + RATE * seconds + 500;
    if scale.files < files {
        let why = format!(
            "the flood needs {files} open files, and this process may open {}; \
             raise the limit with ulimit -n",
            scale.files
        );
        page.sections.extend(CLAIMS.map(|claim| Section::Verdict(untried(claim, why.clone()))));
        return Ok(page);
    }
    let results =
        POLICIES.map(|policy| measure(policy, schedule).with_context(|| policy.to_string()));
    let results: Vec<PolicyResult> = results.into_iter().collect::<Result<_>>()?;
    page.sections.push(Section::Plot(plot(&results, schedule)));
    page.sections.push(Section::Table(table(&results)));
    page.sections.extend(judge(&results).map(Section::Verdict));
    Ok(page)
}

const CLAIMS: [&str; 3] = [
    "recycle: a silent flood locks no honest client out, because the oldest silent connection is \
     evicted and an honest client sends its request long before it becomes the oldest.",
    "refuse: the flood locks honest clients out at no cost, because the server refuses every \
     newcomer while silent connections hold the slots.",
    "random-drop: refusing newcomers at random is hardly better, because nearly all of them are \
     refused and the silent connections stay.",
];

fn judge(results: &[PolicyResult]) -> [Verdict; 3] {
    let judge_one = |index: usize, holds: fn(&PolicyResult) -> bool| {
        let claim = CLAIMS[index];
        let Some(result) = results.get(index) else {
            return untried(claim, "nothing was measured".into());
        };
        let measured = format!(
            "{} of {} honest tries were served during the flood, {} before it and {} after it",
            share(result.during),
            figures::count(result.during.0),
            share(result.before),
            share(result.after)
        );
        // There is nothing to compare if the flood did not fill the slots, or if honest clients
        // were not served even before it.
        let flooded = result.flood_opened >= 2 * SLOTS && result.silent + 64 >= SLOTS / 2;
        if !flooded || result.during.0 < TRIES_MIN || percent(result.before) < SERVED_MIN {
            let flood = format!(
                "the flood opened {} connections, and {} were silent at its end",
                result.flood_opened, result.silent
            );
            return untried(claim, format!("the machine was too busy: {flood}; {measured}"));
        }
        verdict(claim, measured, holds(result))
    };
    [
        judge_one(0, |result| percent(result.during) >= SERVED_MIN && result.recycled > 0),
        judge_one(1, |result| percent(result.during) < LOCKED_OUT_MAX && result.refused > 0),
        judge_one(2, |result| percent(result.during) < LOCKED_OUT_MAX && result.refused > 0),
    ]
}

fn measure(policy: &'static str, schedule: Schedule) -> Result<PolicyResult> {
    say(&format!("{policy}: {} s", schedule.end.as_secs()));
    let slots = SLOTS.to_string();
    let mut server = ServerProcess::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--max-silent",
        &slots,
        "--admission",
        policy,
    ])?;
    let hub = server.address("hub")?;
    // Opens the connection for INFO before the flood begins.
    server.info()?;
    let clock = Clock::start();
    let (tries, opened, info) = scope(|threads| {
        let honest: Vec<ScopedJoinHandle<Vec<Try>>> = (0..HONEST)
            .map(|number| threads.spawn(move || be_honest(number, hub, clock, schedule)))
            .collect();
        let flood = threads.spawn(move || flood(hub, clock, schedule));
        sleep(schedule.flood_until.saturating_sub(elapsed(clock) + Duration::from_millis(50)));
        let info = server.info();
        let mut tries = Vec::new();
        for client in honest {
            tries.extend(client.join().map_err(|_| anyhow!("an honest client failed"))?);
        }
        let opened = flood.join().map_err(|_| anyhow!("the flood failed"))??;
        Ok::<_, anyhow::Error>((tries, opened, info?))
    })?;
    result(policy, schedule, &tries, opened, &info)
}

fn result(
    policy: &'static str,
    schedule: Schedule,
    tries: &[Try],
    flood_opened: u64,
    info: &Info,
) -> Result<PolicyResult> {
    let among = |from: Duration, until: Duration| {
        let within = tries.iter().filter(|one| (from..until).contains(&one.began));
        within.fold((0, 0), |(all, served), one| (all + 1, served + u64::from(one.served)))
    };
    let windows = schedule.end.as_millis() / schedule.window.as_millis();
    let graph = (0..windows as u32).map(|index| {
        let share = among(schedule.window * index, schedule.window * (index + 1));
        Some(percent(share)).filter(|_| share.0 > 0)
    });
    let refused = ["refused_full", "refused_silent", "refused_source_silent", "refused_source"];
    let refused = refused
        .iter()
        .map(|name| info.number(&format!("admission/{name}")))
        .sum::<Result<u64>>()?;
    Ok(PolicyResult {
        policy,
        before: among(Duration::ZERO, schedule.flood_from - HONEST_AHEAD),
        during: among(schedule.flood_from + FILLING, schedule.flood_until - HONEST_AHEAD),
        after: among(schedule.flood_until + FILLING, schedule.end),
        graph: graph.collect(),
        flood_opened,
        silent: info.number("admission/silent")?,
        recycled: info.number("admission/recycled")?,
        refused,
    })
}

/// Tries that begin this shortly before the flood starts or ends count for neither phase.
const HONEST_AHEAD: Duration = Duration::from_millis(200);

fn elapsed(clock: Clock) -> Duration {
    clock.now().since(Time::ZERO)
}

/// Connects, waits, asks and leaves, again and again until the end. Returns all tries.
fn be_honest(number: u64, hub: SocketAddr, clock: Clock, schedule: Schedule) -> Vec<Try> {
    let source = Ipv4Addr::new(127, 77, 0, 1 + number as u8);
    let mut random = fastrand::Rng::with_seed(number);
    let mut think = || THINK.mul_f64(-(1.0 - random.f64()).ln()).min(THINK_MAX);
    let mut tries = Vec::new();
    // The pause spreads the clients, so that they do not all connect at the same moment.
    sleep(think());
    while elapsed(clock) < schedule.end {
        let began = elapsed(clock);
        let served = try_once(source, hub, think()).is_ok();
        tries.push(Try { began, served });
        sleep(think());
    }
    tries
}

fn try_once(source: Ipv4Addr, hub: SocketAddr, think: Duration) -> io::Result<()> {
    let mut stream = client::connect(source, hub)?;
    stream.set_read_timeout(Some(HONEST_PATIENCE))?;
    sleep(think);
    client::ask(&mut stream, b"PING\r\n", b"+PONG\r\n")
}

/// Opens silent connections until the flood ends. Returns their number.
fn flood(hub: SocketAddr, clock: Clock, schedule: Schedule) -> Result<u64> {
    sleep(schedule.flood_from.saturating_sub(elapsed(clock)));
    let (mut held, mut opened) = (Vec::new(), 0);
    while elapsed(clock) < schedule.flood_until {
        let due = BURST
            + RATE * (elapsed(clock).saturating_sub(schedule.flood_from)).as_millis() as u64 / 1000;
        while opened < due {
            held.push(open(opened, hub).context("opening a connection of the flood")?);
            opened += 1;
        }
        sleep(FLOOD_PACE);
    }
    Ok(opened)
}

/// Pause between two rounds of the flood. With longer pauses, honest clients would find room in
/// between.
const FLOOD_PACE: Duration = Duration::from_millis(1);

/// Starts a connection without waiting for it. Dropping it resets it, which frees its port at once.
fn open(index: u64, hub: SocketAddr) -> io::Result<Socket> {
    let source = u32::from(Ipv4Addr::new(127, 66, 0, 1)) + (index % FLOOD_SOURCES) as u32;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into())?;
    match socket.connect(&hub.into()) {
        Err(error) if error.raw_os_error() != Some(errno::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn plot(results: &[PolicyResult], schedule: Schedule) -> Plot {
    let windows = results.first().map_or(0, |result| result.graph.len());
    let middle = |index: usize| schedule.window.as_secs_f64() * (index as f64 + 0.5);
    let series = results
        .iter()
        .map(|result| Series { name: result.policy.into(), values: result.graph.clone() });
    let (from, until) = (schedule.flood_from.as_secs_f64(), schedule.flood_until.as_secs_f64());
    Plot {
        title: format!("Honest tries served; the flood lasts from {from} s to {until} s"),
        x_label: "seconds".into(),
        y_label: "percent".into(),
        y_is_logarithmic: false,
        x: (0..windows).map(middle).collect(),
        series: series.collect(),
    }
}

fn table(results: &[PolicyResult]) -> Table {
    let share = |part: (u64, u64)| format!("{} of {}", share(part), figures::count(part.0));
    let rows = results.iter().map(|result| {
        row([
            &result.policy,
            &share(result.before),
            &share(result.during),
            &share(result.after),
            &figures::count(result.flood_opened),
            &figures::count(result.silent),
            &figures::count(result.recycled),
            &figures::count(result.refused),
        ])
    });
    Table::new(
        "Honest tries served, and the server's counters",
        "policy | before | during | after | flood opened | silent | recycled | refused",
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    fn good() -> [PolicyResult; 3] {
        let of = |policy, during, recycled, refused| PolicyResult {
            policy,
            before: (1000, 1000),
            during,
            after: (1000, 1000),
            graph: Vec::new(),
            flood_opened: 2 * SLOTS,
            silent: SLOTS,
            recycled,
            refused,
        };
        [
            of("recycle", (1000, 990), 5, 0),
            of("refuse", (1000, 499), 0, 5),
            of("random-drop", (1000, 499), 0, 5),
        ]
    }

    #[test]
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
        use Outcome::{Fails, Holds, Untried};
        let with = |change: fn(&mut [PolicyResult; 3])| {
            let mut results = good();
            change(&mut results);
            judge(&results).map(|verdict| verdict.outcome)
        };
        assert_eq!(with(|_| {}), [Holds; 3]);
        assert_eq!(with(|results| results[0].during.1 = 989), [Fails, Holds, Holds]);
        assert_eq!(with(|results| results[0].recycled = 0), [Fails, Holds, Holds]);
        assert_eq!(with(|results| results[1].during.1 = 500), [Holds, Fails, Holds]);
        assert_eq!(with(|results| results[2].during.1 = 500), [Holds, Holds, Fails]);
        assert_eq!(
            with(|results| results[0].flood_opened = 2 * SLOTS - 1),
            [Untried, Holds, Holds]
        );
        assert_eq!(with(|results| results[1].during = (99, 0)), [Holds, Untried, Holds]);
        assert_eq!(with(|results| results[2].before.1 = 900), [Holds, Holds, Untried]);
        assert_eq!(judge(&[]).map(|verdict| verdict.outcome), [Untried; 3]);
    }
}

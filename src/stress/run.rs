//! One run from start to end: turns the driver's loop, takes samples, and makes the record.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::args::ShapeName;
use super::driver::Driver;
use super::meter::{Meter, REACHED, Reading, SATURATED};
use super::plan::Plan;
use super::record::{Connections, FORMAT, Generator, Record, Requests, Sample, ServerMemory};
use super::server::ServerWatch;
use super::shape;
use super::sockets;
use super::wire::Wire;
use super::world::World;
use crate::clock::{Clock, Time};
use crate::memory;
use crate::net::mio::MioNet;
use crate::sys;

/// Time between two samples. It doubles each time the samples reach their maximum.
const SAMPLE_TIME: Duration = Duration::from_millis(250);

/// Maximum number of samples kept. At this number, every second one is dropped.
const SAMPLES_MAX: usize = 1200;

/// Time by which the kernel may end a wait late; its default is 50 us.
const TIMER_SLACK: Duration = Duration::from_micros(1);

/// Share of a processor from which a generator that missed its rate counts as saturated. The share
/// is an average: a generator that is busy in bursts is late in each of them.
const NEARLY_SATURATED: f64 = 0.7;

/// Gets each sample while the run goes on.
pub trait Observer {
    fn sampled(&mut self, _plan: &Plan, _sample: &Sample) {}
}

/// Ignores all samples.
impl Observer for () {}

/// The record of a run, the distribution of its request times, and its open connections. Dropping
/// the result closes the connections. For a million connections the kernel needs minutes for that,
/// so callers report first.
pub struct RunResult {
    pub record: Record,
    /// Times of requests in nanoseconds.
    pub times: Histogram<u64>,
    pub world: World<MioNet>,
}

/// Carries out a plan. Fails if the run cannot start. Later failures are in the record.
pub fn run(plan: &Plan, observer: &mut dyn Observer) -> anyhow::Result<RunResult> {
    let files = sys::raise_file_limit()?;
    if plan.files() > files {
        let beside = plan.files() - plan.connections as u64;
        anyhow::bail!(
            "--connections: {} connections need {} open files, and this process may open {files}; \
             accepted: up to {2}, or more after ulimit -n {1}",
            plan.connections,
            plan.files(),
            files.saturating_sub(beside).max(1)
        );
    }
    // If the call fails, requests leave at less exact times.
    let _ = sys::set_timer_slack(TIMER_SLACK);
    let mut net = MioNet::new()?;
    net.watch_signals()?;
    let started = Clock::unix_time().as_secs();
    let watch = ServerWatch::find(&plan.target, plan.pid);
    let wire = Wire::new(plan, plan.pipeline);
    let world = World::new(net, plan.target.address, plan.sources.clone(), wire, plan.timeout);
    let began = world.now;
    let shape = shape::build(plan, began);
    let mut driver = Driver::new(world, shape);
    let mut sampler = Sampler::new(watch, plan, began);
    driver.wakes_by = began + SAMPLE_TIME;
    while driver.turn()? {
        let now = driver.world.now;
        sampler.follow(&driver.world.meter);
        sampler.read_wanted(&mut driver.world);
        if now >= driver.wakes_by {
            observer.sampled(plan, &sampler.look(&driver.world.meter, now));
            if now >= sampler.last + sampler.interval() {
                sampler.keep(&mut driver.world.meter, now);
            }
            driver.wakes_by = now + SAMPLE_TIME;
        }
    }
    if driver.interrupted {
        driver.stop();
    }
    sampler.follow(&driver.world.meter);
    let now = driver.world.now;
    sampler.read_last(&mut driver.world.meter, now);
    sampler.keep(&mut driver.world.meter, now);
    Ok(finish(plan, started, driver, sampler))
}

struct Sampler {
    watch: Option<ServerWatch>,
    port: u16,
    is_flood: bool,
    /// True if the server runs on this machine.
    is_local: bool,
    began: Time,
    /// Time of the last kept sample.
    last: Time,
    /// Time between two kept samples.
    thinned: Duration,
    load_began: Option<Time>,
    load_ended: Option<Time>,
    /// Time spent waiting for a processor before the load began.
    waited_before: Duration,
    /// Time spent waiting for a processor under load.
    waited_in_load: Option<Duration>,
    /// Answers up to the last kept sample.
    answered: u64,
    samples: Vec<Sample>,
    /// Kernel objects for one end of a connection, in bytes.
    kernel_objects: u64,
    kernel_buffers_before: u64,
    memory: ServerMemory,
    own_at_peak: u64,
    cpu_before: Duration,
    server_cpu: Option<Duration>,
}

impl Sampler {
    fn new(watch: Option<ServerWatch>, plan: &Plan, began: Time) -> Sampler {
        let rss_before = watch.as_ref().and_then(ServerWatch::resident_bytes).unwrap_or(0);
        let source = watch.as_ref().map_or_else(String::new, ServerWatch::source);
        let rss_resolution = watch.as_ref().map_or(0, ServerWatch::resolution);
        Sampler {
            server_cpu: watch.as_ref().and_then(ServerWatch::cpu_time),
            is_local: plan.target.is_loopback() || matches!(watch, Some(ServerWatch::Processes(_))),
            is_flood: plan.shape.is_flood(),
            watch,
            port: plan.target.address.port(),
            began,
            last: began,
            thinned: SAMPLE_TIME,
            load_began: None,
            load_ended: None,
            waited_before: run_queue_wait(),
            waited_in_load: None,
            answered: 0,
            samples: Vec::new(),
            kernel_objects: memory::kernel_objects().bytes,
            kernel_buffers_before: kernel_buffers(),
            memory: ServerMemory { source, rss_before, rss_resolution, ..ServerMemory::default() },
            own_at_peak: 0,
            cpu_before: Clock::cpu_time(),
        }
    }

    /// Measures the time spent waiting for a processor between the start and the end of the load.
    fn follow(&mut self, meter: &Meter) {
        if meter.load_began != self.load_began {
            self.load_began = meter.load_began;
            self.waited_before = run_queue_wait();
        }
        if meter.load_ended != self.load_ended {
            self.load_ended = meter.load_ended;
            self.waited_in_load = Some(run_queue_wait().saturating_sub(self.waited_before));
        }
    }

    /// True after a flood, when samples are frequent and exact to time the server's reclaim.
    fn is_after_flood(&self) -> bool {
        self.is_flood && self.load_ended.is_some()
    }

    fn interval(&self) -> Duration {
        if self.is_after_flood() { SAMPLE_TIME } else { self.thinned }
    }

    /// Returns a sample of the time since the last kept one.
    fn look(&self, meter: &Meter, now: Time) -> Sample {
        let span = now.since(self.last).as_secs_f64().max(1e-9);
        let recent = meter.latency.recent();
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let percentile =
            |percent: f64| (!recent.is_empty()).then(|| us(recent.value_at_percentile(percent)));
        let buffers = kernel_buffers().saturating_sub(self.kernel_buffers_before);
        let server_rss =
            self.watch.as_ref().and_then(|watch| match (watch, self.is_after_flood()) {
                (ServerWatch::Processes(_), true) => watch.resident_bytes(),
                _ => watch.resident_bytes_about(),
            });
        Sample {
            t_s: now.since(self.began).as_secs_f64(),
            connecting: meter.connecting,
            open: meter.open,
            failed: meter.failed_in_all(),
            closed_by_server: meter.closed_by_server,
            rate: (meter.answered - self.answered) as f64 / span,
            errors: meter.errors_in_all(),
            p50_us: percentile(50.0),
            p99_us: percentile(99.0),
            max_us: percentile(100.0),
            server_rss,
            kernel_bytes: self.is_local.then_some(2 * meter.open * self.kernel_objects + buffers),
        }
    }

    fn keep(&mut self, meter: &mut Meter, now: Time) {
        self.samples.push(self.look(meter, now));
        meter.turn_over();
        self.answered = meter.answered;
        self.last = now;
        if self.samples.len() > SAMPLES_MAX {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.thinned *= 2;
        }
    }

    /// Reads the server's memory if the shape asked for it. INFO blocks the loop, so it is sent
    /// only when no time is measured: no answer is outstanding, and the load has ended or is idle.
    fn read_wanted(&mut self, world: &mut World<MioNet>) {
        let Some(reading) = world.meter.wants_memory else { return };
        let meter = &world.meter;
        let is_over = meter.load_ended.is_some() && meter.load_ended >= meter.load_began;
        let is_still = world.outstanding == 0 && (meter.connecting == 0 || self.is_flood);
        // Reading takes milliseconds, in which an answer to an honest request would wait.
        let may_read = match self.watch {
            Some(ServerWatch::Info(_)) => is_still && (is_over || reading == Reading::Latest),
            _ => is_over || world.outstanding == 0,
        };
        if may_read {
            self.read_memory(reading, meter.open, world.now);
            world.meter.wants_memory = None;
        }
    }

    /// Reads the server's memory at the end of the run, if no earlier reading was possible.
    fn read_last(&mut self, meter: &mut Meter, now: Time) {
        let wanted = meter
            .wants_memory
            .take()
            .or((self.memory.connections == 0).then_some(Reading::Highest));
        if let Some(reading) = wanted.filter(|_| meter.open > 0) {
            self.read_memory(reading, meter.open, now);
        }
    }

    /// Reads the exact figures. The shape chose the moment: all connections are open and have sent
    /// their requests.
    fn read_memory(&mut self, reading: Reading, connections: u64, now: Time) {
        let Some(rss) = self.watch.as_ref().and_then(ServerWatch::resident_bytes) else { return };
        if reading == Reading::Highest && rss < self.memory.rss_at_peak {
            return;
        }
        self.memory.rss_at_peak = rss;
        self.memory.connections = connections;
        self.memory.peak_at_s = now.since(self.began).as_secs_f64();
        self.memory.kernel_bytes_per_connection = self.kernel_bytes_of_server(connections);
        self.own_at_peak = memory::resident_bytes().unwrap_or(0);
    }

    /// Returns the kernel's memory for the server's end of a connection: its objects and its share
    /// of the buffers. `None` if the server is on another machine.
    fn kernel_bytes_of_server(&self, connections: u64) -> Option<f64> {
        let Some(ServerWatch::Processes(_)) = self.watch else { return None };
        let buffers = sockets::buffers_of(self.port).ok()?.bytes as f64 / connections.max(1) as f64;
        Some(self.kernel_objects as f64 + buffers)
    }

    /// Returns the server's memory at the end of the run; `None` if it could not be read at all.
    fn server(&mut self, load: Option<Duration>) -> Option<ServerMemory> {
        let watch = self.watch.as_ref()?;
        let mut memory = self.memory.clone();
        memory.rss_at_end = watch.resident_bytes().unwrap_or(0);
        memory.divide();
        memory.cpu_s = load.map(|load| load.as_secs_f64());
        Some(memory)
    }
}

/// Returns the bytes that TCP holds in buffers on this machine.
fn kernel_buffers() -> u64 {
    memory::tcp_socket_statistics().map_or(0, |sockets| sockets.buffer_bytes)
}

/// Returns the time for which this thread was runnable without a processor: the second number of
/// /proc/self/schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst). Zero if the
/// kernel does not count it.
fn run_queue_wait() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0),
    )
}

fn finish(
    plan: &Plan,
    started: u64,
    mut driver: Driver<MioNet>,
    mut sampler: Sampler,
) -> RunResult {
    let interrupted = driver.interrupted;
    let now = driver.world.now;
    let server_cpu = sampler.watch.as_ref().and_then(ServerWatch::cpu_time);
    let in_run =
        server_cpu.zip(sampler.server_cpu).map(|(after, before)| after.saturating_sub(before));
    let server = sampler.server(in_run);
    let meter = &mut driver.world.meter;
    let load_ended = meter.load_ended.unwrap_or(now);
    let load =
        meter.load_began.map_or(Duration::ZERO, |began| load_ended.since(began)).as_secs_f64();
    let answered_in_load =
        meter.answered_in_load.unwrap_or(meter.answered - meter.answered_before_load);
    let duration_s = now.since(sampler.began).as_secs_f64();
    let cpu_in_run = Clock::cpu_time().saturating_sub(sampler.cpu_before).as_secs_f64();
    let cpu_s = meter.cpu_in_load.map_or(cpu_in_run, |cpu| cpu.as_secs_f64());
    let span_s = if load > 0.0 { load } else { duration_s.max(1e-9) };
    let cpu_share = cpu_s / span_s;
    let waited = sampler
        .waited_in_load
        .unwrap_or_else(|| run_queue_wait().saturating_sub(sampler.waited_before));
    let waited_share = waited.as_secs_f64() / span_s;
    let reached = plan.rate.filter(|_| load > 0.0).map(|asked| reached(plan, meter) / load / asked);
    let enough =
        if reached.is_some_and(|share| share < REACHED) { NEARLY_SATURATED } else { SATURATED };
    let mut record = Record {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        target: plan.target.to_string(),
        address: plan.target.address.to_string(),
        shape: plan.shape.name().into(),
        parameters: plan.parameters(),
        duration_s,
        interrupted,
        connections: connections(plan, meter),
        requests: Requests {
            sent: meter.sent,
            answered: meter.answered,
            repeated: meter.repeated,
            rate: if load > 0.0 { answered_in_load as f64 / load } else { 0.0 },
            errors: meter.errors.clone(),
            bytes_out: meter.bytes_out,
            bytes_in: meter.bytes_in,
        },
        latency: meter.latency.summary(plan.is_paced()),
        connect_latency: meter.connect_latency.summary(false),
        server,
        generator: Generator {
            cpu_s,
            cpu_share,
            saturated: cpu_share + waited_share >= enough,
            rss_at_peak: sampler.own_at_peak.max(memory::resident_bytes().unwrap_or(0)),
        },
        samples: sampler.samples,
        ..Record::default()
    };
    record.notes = notes(&record, &driver.world, waited_share, reached);
    record.notes.extend(address_note(plan));
    driver.finish(&mut record);
    let times = driver.world.meter.latency.all().clone();
    RunResult { record, times, world: driver.world }
}

fn connections(plan: &Plan, meter: &Meter) -> Connections {
    Connections {
        asked: plan.connections as u64,
        opened: meter.opened,
        open_at_peak: meter.open_at_peak,
        open_at_end: meter.open,
        closed_by_server: meter.closed_by_server,
        close_codes: meter.close_codes.clone(),
        pings: meter.pings,
        reconnects: meter.reconnects,
        failed: meter.failed.clone(),
    }
}

/// Returns the number of operations that `--rate` counts: connects for churn, else requests.
fn reached(plan: &Plan, meter: &Meter) -> f64 {
    match plan.shape {
        ShapeName::Churn => meter.opened as f64,
        _ => meter.sent as f64,
    }
}

/// Returns the addresses of the target's name that have no server, if some do not.
fn address_note(plan: &Plan) -> Option<String> {
    let target = &plan.target;
    let failed: Vec<String> =
        target.failed.iter().map(|(address, why)| format!("{address} ({why})")).collect();
    (!failed.is_empty()).then(|| {
        format!(
            "the name {} has {} addresses; {} is used, and these failed: {}",
            target.name(),
            target.addresses.len(),
            target.address,
            failed.join(", ")
        )
    })
}

/// Returns the remarks for the reader that do not depend on the shape.
fn notes(
    record: &Record,
    world: &World<MioNet>,
    waited_share: f64,
    reached: Option<f64>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = &world.exhausted {
        notes.push(format!("this machine could open no more connections: {reason}"));
    }
    if let Some(words) = &world.meter.strange {
        let scheme = record.target.split("://").next().unwrap_or_default();
        let is_echo = matches!(scheme, "tcp" | "ws") && !record.parameters.contains_key("send");
        let expected = match is_echo {
            true => format!("; over {scheme}:// an echo is expected unless --send is given"),
            false => String::new(),
        };
        notes.push(format!("the server sent a wrong answer that begins with {words}{expected}"));
    }
    if let Some(reason) = &world.meter.close_reason {
        notes.push(format!("the server closed a connection with code {reason}"));
    }
    if let Some(words) = &world.meter.refusal {
        notes.push(format!("the server replied with an error: {words}"));
        if words.contains("protected mode") {
            notes.push(
                "in protected mode, Redis serves only 127.0.0.1: give --sources 1, or set \
                 protected-mode to no"
                    .into(),
            );
        }
    }
    if record.generator.saturated {
        notes.push(format!(
            "the generator ran for {:.0} % of the time and waited for a processor for {:.0} %; \
             the rate may be its limit instead of the server's",
            100.0 * record.generator.cpu_share,
            100.0 * waited_share
        ));
    }
    if let Some(share) = reached.filter(|share| *share < REACHED && !record.interrupted) {
        notes.push(format!("the load reached {:.1} % of the rate asked for", 100.0 * share));
    }
    if record.interrupted {
        notes.push("the run was interrupted; the figures cover the time until then".into());
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::stress::plan::Plan;

    #[test]
    fn connections_stay_open_until_the_report_is_written() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("resp://{}", listener.local_addr().unwrap());
        let (look, looks) = mpsc::channel();
        let (seen, sees) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = [0; 100];
            for _ in 0..2 {
                assert!(stream.read(&mut chunk).unwrap() > 0);
                stream.write_all(b"+PONG\r\n").unwrap();
            }
            looks.recv().unwrap();
            stream.set_nonblocking(true).unwrap();
            let open = stream.read(&mut chunk).map_err(|error| error.kind());
            stream.set_nonblocking(false).unwrap();
            seen.send(open).unwrap();
            stream.read(&mut chunk).unwrap()
        });
        let duration = Duration::from_millis(10);
        let plan = Plan {
            connections: 1,
            duration,
            pid: Some(std::process::id()),
            ..Plan::of("hold", &target).unwrap()
        };
        let outcome = run(&plan, &mut ()).unwrap();
        assert_eq!(
            (outcome.record.requests.answered, outcome.record.connections.open_at_end),
            (2, 1)
        );
        look.send(()).unwrap();
        assert_eq!(sees.recv().unwrap(), Err(ErrorKind::WouldBlock), "open, with nothing to read");
        drop(outcome);
        assert_eq!(server.join().unwrap(), 0, "closed");
    }
}

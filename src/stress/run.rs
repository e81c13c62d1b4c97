//! One run from begin to end: turns the driver, takes samples, and makes the record.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::driver::Driver;
use super::meter::{Meter, Reading};
use super::plan::Plan;
use super::record::{Connections, FORMAT, Generator, Record, Requests, Sample, ServerMemory};
use super::server::Watch;
use super::shape;
use super::sockets;
use super::wire::Wire;
use super::world::World;
use crate::clock::{Clock, Time};
use crate::memory;
use crate::net::mio::MioNet;

/// Time between two samples, until there are so many that every second one is dropped and the time doubled.
const SAMPLE_TIME: Duration = Duration::from_millis(250);
const SAMPLES_MAX: usize = 1200;

/// From this share of one processor on it is the generator that sets the pace.
pub const SATURATED: f64 = 0.9;

/// Sees a run while it goes on.
pub trait Observer {
    fn sampled(&mut self, _plan: &Plan, _sample: &Sample) {}
}

/// Nobody looks.
impl Observer for () {}

/// What a run leaves: the record, the distribution of the requests' times in nanoseconds, and the connections that are open still. They
/// are closed when this is dropped, which takes the kernel minutes for a million: the report comes first.
pub struct Outcome {
    pub record: Record,
    pub times: Histogram<u64>,
    pub world: World<MioNet>,
}

/// Carries a plan out. An error means that nothing could be begun; what fails later is in the record.
pub fn run(plan: &Plan, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
    let files = crate::sys::raise_file_limit()?;
    if plan.files() > files {
        anyhow::bail!(
            "{} connections need {} open files, and this process may have {files}: raise `ulimit -n`",
            plan.connections,
            plan.files()
        );
    }
    let mut net = MioNet::new()?;
    net.watch_signals()?;
    let started = Clock::unix_time().as_secs();
    let watch = Watch::find(&plan.target, plan.pid);
    let wire = Wire::new(&plan.target, plan.size, plan.pipeline, plan.send.as_deref());
    let world = World::new(net, plan.target.address, plan.sources.clone(), wire, plan.timeout);
    let began = world.now;
    let shape = shape::build(plan, began);
    let mut driver = Driver::new(world, shape);
    let mut sampler = Sampler::new(watch, plan.target.address.port(), began);
    driver.wakes_by = began + sampler.interval;
    while driver.turn()? {
        let now = driver.world.now;
        if now >= driver.wakes_by || driver.world.meter.wants_memory.is_some() {
            let sample = sampler.take(&mut driver.world.meter, now);
            observer.sampled(plan, &sample);
            driver.wakes_by = now + sampler.interval;
        }
    }
    if driver.interrupted {
        driver.stop();
    }
    let now = driver.world.now;
    sampler.take(&mut driver.world.meter, now);
    Ok(finish(plan, started, driver, sampler))
}

struct Sampler {
    watch: Option<Watch>,
    port: u16,
    began: Time,
    last: Time,
    interval: Duration,
    answered: u64,
    samples: Vec<Sample>,
    /// Bytes of the kernel's objects for one end of a connection.
    kernel_objects: u64,
    kernel_buffers_before: u64,
    memory: ServerMemory,
    own_at_peak: u64,
    cpu_before: Duration,
    server_cpu: Option<Duration>,
}

impl Sampler {
    fn new(watch: Option<Watch>, port: u16, began: Time) -> Sampler {
        let rss_before = watch.as_ref().and_then(Watch::resident_bytes).unwrap_or(0);
        let source = watch.as_ref().map_or_else(String::new, Watch::source);
        Sampler {
            server_cpu: watch.as_ref().and_then(Watch::cpu_time),
            watch,
            port,
            began,
            last: began,
            interval: SAMPLE_TIME,
            answered: 0,
            samples: Vec::new(),
            kernel_objects: memory::kernel_objects().bytes,
            kernel_buffers_before: kernel_buffers(),
            memory: ServerMemory { source, rss_before, ..ServerMemory::default() },
            own_at_peak: 0,
            cpu_before: Clock::cpu_time(),
        }
    }

    fn take(&mut self, meter: &mut Meter, now: Time) -> Sample {
        if let Some(reading) = meter.wants_memory.take() {
            self.read_memory(reading, meter.open);
        }
        let span = now.since(self.last).as_secs_f64().max(1e-9);
        let recent = meter.latency.recent();
        let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let percentile = |percent: f64| (!recent.is_empty()).then(|| us(recent.value_at_percentile(percent)));
        let buffers = kernel_buffers().saturating_sub(self.kernel_buffers_before);
        let sample = Sample {
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
            server_rss: self.watch.as_ref().and_then(Watch::resident_bytes_about),
            kernel_bytes: Some(2 * meter.open * self.kernel_objects + buffers),
        };
        meter.turn_over();
        self.answered = meter.answered;
        self.last = now;
        self.samples.push(sample.clone());
        if self.samples.len() > SAMPLES_MAX {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.interval *= 2;
        }
        sample
    }

    /// The exact figures, at the moment that the shape chose: all connections are open and have said what they had to.
    fn read_memory(&mut self, reading: Reading, connections: u64) {
        let Some(rss) = self.watch.as_ref().and_then(Watch::resident_bytes) else { return };
        if reading == Reading::Highest && rss < self.memory.rss_at_peak {
            return;
        }
        self.memory.rss_at_peak = rss;
        self.memory.connections = connections;
        self.memory.kernel_bytes_per_connection = self.kernel_bytes_of_server(connections);
        self.own_at_peak = memory::resident_bytes().unwrap_or(0);
    }

    /// For the server's end of a connection: its objects, and its share of the buffers. Only this machine's kernel can be asked.
    fn kernel_bytes_of_server(&self, connections: u64) -> Option<f64> {
        let Some(Watch::Processes(_)) = self.watch else { return None };
        let buffers = sockets::buffers_of(self.port).ok()?.bytes as f64 / connections.max(1) as f64;
        Some(self.kernel_objects as f64 + buffers)
    }

    /// What the server's memory came to. None where nobody tells of it.
    fn server(&mut self, load: Option<Duration>) -> Option<ServerMemory> {
        let watch = self.watch.as_ref()?;
        let mut memory = self.memory.clone();
        memory.rss_at_end = watch.resident_bytes().unwrap_or(0);
        if memory.connections > 0 {
            let growth = memory.rss_at_peak as f64 - memory.rss_before as f64;
            memory.user_bytes_per_connection = growth / memory.connections as f64;
        }
        memory.cpu_s = load.map(|load| load.as_secs_f64());
        Some(memory)
    }
}

/// What TCP holds in buffers on this machine.
fn kernel_buffers() -> u64 {
    memory::tcp_socket_statistics().map_or(0, |sockets| sockets.buffer_bytes)
}

fn finish(plan: &Plan, started: u64, mut driver: Driver<MioNet>, mut sampler: Sampler) -> Outcome {
    let interrupted = driver.interrupted;
    let now = driver.world.now;
    let server_cpu = sampler.watch.as_ref().and_then(Watch::cpu_time);
    let in_run = server_cpu.zip(sampler.server_cpu).map(|(after, before)| after.saturating_sub(before));
    let server = sampler.server(in_run);
    let meter = &mut driver.world.meter;
    let load_ended = meter.load_ended.unwrap_or(now);
    let load = meter.load_began.map_or(Duration::ZERO, |began| load_ended.since(began)).as_secs_f64();
    let answered_in_load = meter.answered_in_load.unwrap_or(meter.answered - meter.answered_before_load);
    let duration_s = now.since(sampler.began).as_secs_f64();
    let cpu_in_run = Clock::cpu_time().saturating_sub(sampler.cpu_before).as_secs_f64();
    let cpu_s = meter.cpu_in_load.map_or(cpu_in_run, |cpu| cpu.as_secs_f64());
    let cpu_share = cpu_s / if load > 0.0 { load } else { duration_s.max(1e-9) };
    let mut record = Record {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        target: plan.target.to_string(),
        shape: plan.shape.name().into(),
        parameters: plan.parameters(),
        duration_s,
        interrupted,
        connections: Connections {
            asked: plan.connections as u64,
            opened: meter.opened,
            open_at_peak: meter.open_at_peak,
            open_at_end: meter.open,
            closed_by_server: meter.closed_by_server,
            failed: meter.failed.clone(),
        },
        requests: Requests {
            sent: meter.sent,
            answered: meter.answered,
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
            saturated: cpu_share >= SATURATED,
            rss_at_peak: sampler.own_at_peak.max(memory::resident_bytes().unwrap_or(0)),
        },
        samples: sampler.samples,
        ..Record::default()
    };
    if let Some(what) = &driver.world.exhausted {
        record.notes.push(format!("{what}: no more connections could be opened from here"));
    }
    if let Some(words) = &driver.world.meter.refusal {
        record.notes.push(format!("the server said: {words}"));
    }
    if record.generator.saturated {
        record.notes.push(format!(
            "the generator used {:.0} % of its one processor: the rate may be its own limit, not the server's",
            100.0 * record.generator.cpu_share
        ));
    }
    if record.interrupted {
        record.notes.push("interrupted: the figures are of what was done until then".into());
    }
    driver.finish(&mut record);
    let times = driver.world.meter.latency.all().clone();
    Outcome { record, times, world: driver.world }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::stress::plan::Plan;

    #[test]
    fn connections_are_closed_after_the_report_not_before() {
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
        let plan =
            Plan { connections: 1, duration, pid: Some(std::process::id()), ..Plan::of("hold", &target).unwrap() };
        let outcome = run(&plan, &mut ()).unwrap();
        assert_eq!((outcome.record.requests.answered, outcome.record.connections.open_at_end), (2, 1));
        look.send(()).unwrap();
        assert_eq!(sees.recv().unwrap(), Err(ErrorKind::WouldBlock), "open, with nothing to read");
        drop(outcome);
        assert_eq!(server.join().unwrap(), 0, "closed");
    }
}

//! The results of a run of `slabd stress`: the data behind the report, the JSON file and the
//! bounds.
//!
//! A record is plain data in base units: seconds, microseconds and bytes. Its fields have the same
//! names in the JSON file, so a name changes only together with [`FORMAT`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the JSON file's format. A file of another version is refused.
pub const FORMAT: u32 = 1;

/// The results of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// Version of slabd that measured.
    pub version: String,
    /// Start of the run: seconds since 1970, UTC.
    pub started: u64,
    /// Target without its password, such as `resp://127.0.0.1:6379`.
    pub target: String,
    /// Address in use: that of the target's name, or the target's own. Files of older versions lack
    /// it.
    #[serde(default)]
    pub address: String,
    /// Name of the shape: `ping`, `hold`, `silent` ...
    pub shape: String,
    /// Other parameters in force, by the names of their flags.
    pub parameters: BTreeMap<String, String>,
    /// Time from the first connect to the end of the last phase.
    pub duration_s: f64,
    /// True if a signal ended the run early.
    pub interrupted: bool,
    pub connections: Connections,
    pub requests: Requests,
    /// Times of requests, each from the moment it was due until its answer was complete. An error
    /// reply has none.
    pub latency: Option<Latency>,
    /// Times of connects, each until the connection was established.
    pub connect_latency: Option<Latency>,
    /// Deliveries of a fan-out.
    pub delivery: Option<Delivery>,
    /// Rates that a search tried, in order.
    pub trials: Vec<Trial>,
    /// Honest requests before, during and after a flood.
    pub probes: Vec<Probe>,
    /// Time from the end of a flood until the server's resident set was at most a tenth, or
    /// 1 MiB, above its start. `None` without a flood, without growth, or if that was not seen.
    pub reclaim_s: Option<f64>,
    pub server: Option<ServerMemory>,
    pub generator: Generator,
    pub samples: Vec<Sample>,
    pub bounds: Vec<Bound>,
    /// Remarks for the reader of the figures.
    pub notes: Vec<String>,
}

impl Record {
    /// Returns the honest requests during a flood.
    pub fn probes_during(&self) -> Option<&Probe> {
        self.probes.iter().find(|probe| probe.phase == "during")
    }

    /// Returns the server's memory if it was read while the server held connections.
    pub fn held_server(&self) -> Option<&ServerMemory> {
        self.server.as_ref().filter(|server| server.connections > 0)
    }

    /// Returns the server's user memory per connection; `None` if it held no connections.
    pub fn user_memory(&self) -> Option<UserMemory> {
        self.held_server().map(ServerMemory::user_memory)
    }
}

/// Counts of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Connections at once that the plan asked for.
    pub asked: u64,
    /// Connections established and authenticated in all. Reopened connections count again.
    pub opened: u64,
    pub open_at_peak: u64,
    pub open_at_end: u64,
    pub closed_by_server: u64,
    /// Close frames of the server by their code, over WebSocket. Files of older versions lack it.
    #[serde(default)]
    pub close_codes: BTreeMap<String, u64>,
    /// Pings of the server that got a pong, over WebSocket. Files of older versions lack it.
    #[serde(default)]
    pub pings: u64,
    /// Connections opened in place of one that had been established. Files of older versions lack
    /// it.
    #[serde(default)]
    pub reconnects: u64,
    /// Failed connects by reason: `refused`, `timeout`, `reset`, `no local port` ...
    pub failed: BTreeMap<String, u64>,
}

/// Counts of requests, and their rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub sent: u64,
    /// Requests with an answer that is no error.
    pub answered: u64,
    /// Requests that a server left unanswered when it closed a used connection in order, and that
    /// were sent again. They count once in `sent`. Files of older versions lack it.
    #[serde(default)]
    pub repeated: u64,
    /// Answers per second under load; for a search, the highest rate that held.
    pub rate: f64,
    /// Errors by kind: `error reply`, `timeout`, `connection closed`, `wrong answer` ...
    pub errors: BTreeMap<String, u64>,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// A distribution of times, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    /// True if times count from the moment a request was due (coordinated omission is corrected).
    /// False in a closed loop, where requests are not due at any moment.
    pub corrected: bool,
    pub min_us: f64,
    pub mean_us: f64,
    pub max_us: f64,
    pub percentiles: Vec<Percentile>,
}

impl Latency {
    /// Returns a percentile in microseconds, if it was recorded.
    pub fn at(&self, percent: f64) -> Option<f64> {
        Some(self.percentiles.iter().find(|percentile| percentile.percent == percent)?.us)
    }
}

/// One percentile of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// 50, 75, 90, 99, 99.9 or 99.99.
    pub percent: f64,
    pub us: f64,
}

/// The deliveries of a fan-out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub subscribers: u64,
    pub published: u64,
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub out_of_order: u64,
    /// Times of deliveries, each from its publish until a subscriber had read the message.
    pub latency: Option<Latency>,
}

/// One rate that a search tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub asked_rate: f64,
    pub reached_rate: f64,
    pub p99_us: f64,
    pub held: bool,
}

/// The honest requests of one phase of a flood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Phase of the flood: `before`, `during` or `after`.
    pub phase: String,
    pub sent: u64,
    pub answered: u64,
    pub latency: Option<Latency>,
}

/// The server's memory, read from the system for its process or from its own INFO.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerMemory {
    /// Source of the figures: `process 4711 and 2 of its children`, `INFO`.
    pub source: String,
    /// Resident set before the first connection, in bytes, as are the next two.
    pub rss_before: u64,
    pub rss_at_peak: u64,
    pub rss_at_end: u64,
    /// Least growth of the resident set that counts as measured, in bytes. Files of older versions
    /// lack it.
    #[serde(default = "default_rss_resolution")]
    pub rss_resolution: u64,
    /// Time from the start until the peak was read.
    pub peak_at_s: f64,
    /// Connections open at the peak.
    pub connections: u64,
    /// Growth of the resident set up to the peak ÷ connections. `None` (null) if the resident set
    /// grew by less than `rss_resolution`, or if `connections` is 0.
    pub user_bytes_per_connection: Option<f64>,
    /// Kernel memory for the server's end of a connection: objects and buffers. `None` if the
    /// server runs on another machine.
    pub kernel_bytes_per_connection: Option<f64>,
    /// Processor time of the server during the run, in seconds.
    pub cpu_s: Option<f64>,
}

/// The server's user memory per connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UserMemory {
    Measured(f64),
    /// Less than this, which is the least that can be measured.
    Below(f64),
}

/// Number of pages by which the resident set of a process may change under any load, or without
/// load.
pub const NOISE_PAGES: u64 = 4;

/// Returns the resolution for one process with pages of 4 KiB.
fn default_rss_resolution() -> u64 {
    NOISE_PAGES * 4096
}

impl ServerMemory {
    /// Sets the user memory per connection from the growth of the resident set.
    pub fn divide(&mut self) {
        let growth = self.rss_at_peak.saturating_sub(self.rss_before);
        let is_measured = self.connections > 0 && growth >= self.rss_resolution.max(1);
        self.user_bytes_per_connection =
            is_measured.then(|| growth as f64 / self.connections as f64);
    }

    /// Returns the user memory per connection, or the least that could have been measured.
    fn user_memory(&self) -> UserMemory {
        let least = self.rss_resolution as f64 / self.connections.max(1) as f64;
        // Older versions wrote growth below the resolution as a number, which may be negative.
        match self.user_bytes_per_connection.filter(|bytes| *bytes >= least) {
            Some(bytes) => UserMemory::Measured(bytes),
            None => UserMemory::Below(least),
        }
    }
}

/// The load generator's own resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Processor time under load, in seconds.
    pub cpu_s: f64,
    /// Processor time ÷ time of the load. Near 1, the generator limits the figures.
    pub cpu_share: f64,
    pub saturated: bool,
    /// Resident set at the server's peak, in bytes.
    pub rss_at_peak: u64,
}

/// The state at one moment. Rates and percentiles cover the time since the previous sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time since the start.
    pub t_s: f64,
    pub connecting: u64,
    pub open: u64,
    /// Failed connects since the start.
    pub failed: u64,
    pub closed_by_server: u64,
    /// Answers per second.
    pub rate: f64,
    /// Errors since the start.
    pub errors: u64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    /// The server's resident set in bytes, exact to some hundred pages.
    pub server_rss: Option<u64>,
    /// Growth of the kernel's memory for both ends of all connections, in bytes.
    pub kernel_bytes: Option<u64>,
}

/// The verdict on one `--assert`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Bound as given: `p99<5ms`.
    pub text: String,
    /// Measured value in the bound's unit: `4.2 ms`. `None` if the run did not measure it; then the
    /// bound does not hold.
    pub measured: Option<String>,
    pub held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_below_the_resolution_is_no_figure() {
        let memory = |growth: i64| {
            let mut memory = ServerMemory {
                rss_before: 1 << 20,
                rss_at_peak: ((1 << 20) + growth) as u64,
                rss_resolution: 16_384,
                connections: 1000,
                ..ServerMemory::default()
            };
            memory.divide();
            memory
        };
        for (growth, bytes) in [
            (16_385, Some(16.385)),
            (16_384, Some(16.384)),
            (16_383, None),
            (0, None),
            (-1, None),
            (-500_000, None),
        ] {
            let memory = memory(growth);
            assert_eq!(memory.user_bytes_per_connection, bytes, "{growth}");
            let expected = bytes.map_or(UserMemory::Below(16.384), UserMemory::Measured);
            assert_eq!(memory.user_memory(), expected, "{growth}");
        }
        let idle = ServerMemory { connections: 0, ..memory(16_384) };
        let record = Record { server: Some(idle), ..Record::default() };
        assert_eq!(record.user_memory(), None, "no connections share the growth");
    }

    #[test]
    fn a_negative_figure_of_an_older_version_counts_as_below_the_resolution() {
        let written = serde_json::to_value(ServerMemory {
            connections: 1000,
            user_bytes_per_connection: Some(-3.0),
            ..ServerMemory::default()
        });
        let mut value = written.unwrap();
        value.as_object_mut().unwrap().remove("rss_resolution");
        let memory: ServerMemory = serde_json::from_value(value).unwrap();
        assert_eq!(memory.user_memory(), UserMemory::Below(16.384));
    }
}

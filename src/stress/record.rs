//! What a run of `slabd stress` measured: the data behind the table, the JSON file, the page and the bounds.
//!
//! This is plain data, in base units: seconds, microseconds and bytes. The names of its fields are those of the JSON file, so
//! they change only with [`FORMAT`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the JSON file's form. A file of another one is refused.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// The version of slabd that measured.
    pub version: String,
    /// When it began: seconds since 1970, UTC.
    pub started: u64,
    /// As given: `resp://127.0.0.1:6379`.
    pub target: String,
    /// `ping`, `hold`, `silent` ...
    pub shape: String,
    /// The other parameters by the names of their flags, as they were in force.
    pub parameters: BTreeMap<String, String>,
    /// From the first connect to the end of the last phase.
    pub duration_s: f64,
    /// Ended by a signal, before the plan was carried out.
    pub interrupted: bool,
    pub connections: Connections,
    pub requests: Requests,
    /// Of requests, from the moment each was due until its whole answer was there.
    pub latency: Option<Latency>,
    /// From a connect until it was established.
    pub connect_latency: Option<Latency>,
    /// For a fan-out: messages as they arrived.
    pub delivery: Option<Delivery>,
    /// For a search: each rate that was tried.
    pub trials: Vec<Trial>,
    /// For a flood: what honest requests met before, during and after.
    pub probes: Vec<Probe>,
    /// For a flood: from its end until the server's memory was back within a tenth of where it began.
    pub reclaim_s: Option<f64>,
    pub server: Option<ServerMemory>,
    pub generator: Generator,
    pub samples: Vec<Sample>,
    pub bounds: Vec<Bound>,
    /// What the reader of the figures should know: sentences.
    pub notes: Vec<String>,
}

impl Record {
    /// What honest requests met during a flood.
    pub fn probes_during(&self) -> Option<&Probe> {
        self.probes.iter().find(|probe| probe.phase == "during")
    }

    /// The server, if it held connections: without any there is nothing to divide its memory by.
    pub fn held_server(&self) -> Option<&ServerMemory> {
        self.server.as_ref().filter(|server| server.connections > 0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    pub asked: u64,
    /// Established and let in, in all; more than asked for where they are opened again.
    pub opened: u64,
    pub open_at_peak: u64,
    pub open_at_end: u64,
    pub closed_by_server: u64,
    /// Those that could not be established, by reason: `refused`, `timeout`, `reset`, `no local port` ...
    pub failed: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    pub sent: u64,
    pub answered: u64,
    /// Answers a second while the load was on.
    pub rate: f64,
    /// By kind: `error reply`, `timeout`, `connection closed`, `wrong answer`, `unanswered at the end` ...
    pub errors: BTreeMap<String, u64>,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// A distribution of times, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    /// Counted from the moment a request was due, so that a stalled server is not spared the requests that it kept from
    /// being sent: coordinated omission is corrected. Without a rate there is no such moment.
    pub corrected: bool,
    pub min_us: f64,
    pub mean_us: f64,
    pub max_us: f64,
    pub percentiles: Vec<Percentile>,
}

impl Latency {
    /// A percentile in microseconds, if it is among those that were recorded.
    pub fn at(&self, percent: f64) -> Option<f64> {
        Some(self.percentiles.iter().find(|percentile| percentile.percent == percent)?.us)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// 50, 90, 99, 99.9, 99.99.
    pub percent: f64,
    pub us: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub subscribers: u64,
    pub published: u64,
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub out_of_order: u64,
    /// From the publish until the message was read by a subscriber.
    pub latency: Option<Latency>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub asked_rate: f64,
    pub reached_rate: f64,
    pub p99_us: f64,
    pub held: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `before`, `during`, `after`.
    pub phase: String,
    pub sent: u64,
    pub answered: u64,
    pub latency: Option<Latency>,
}

/// The server's memory, as the system tells it of its process, or it of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerMemory {
    /// Where the figures come from: `pid 4711 and its children`, `INFO`.
    pub source: String,
    /// Before the first connection.
    pub rss_before: u64,
    pub rss_at_peak: u64,
    pub rss_at_end: u64,
    /// When the peak was read, since the start.
    pub peak_at_s: f64,
    /// Connections open then.
    pub connections: u64,
    /// Growth of the resident set ÷ connections.
    pub user_bytes_per_connection: f64,
    /// Of the kernel, for the server's end of a connection: its objects and buffers. None where the system does not tell.
    pub kernel_bytes_per_connection: Option<f64>,
    /// Processor time of the server while the load was on, in seconds.
    pub cpu_s: Option<f64>,
}

/// Of this program itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Processor time while the load was on.
    pub cpu_s: f64,
    /// Of the time that passed: near 1 it is the generator that was measured.
    pub cpu_share: f64,
    pub saturated: bool,
    /// Its own resident set at the peak.
    pub rss_at_peak: u64,
}

/// The state at a moment; rates and percentiles are of the time since the sample before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the start.
    pub t_s: f64,
    pub connecting: u64,
    pub open: u64,
    /// In all so far.
    pub failed: u64,
    pub closed_by_server: u64,
    /// Answers a second.
    pub rate: f64,
    /// In all so far.
    pub errors: u64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    pub server_rss: Option<u64>,
    /// Of the kernel since the start, for both ends of all connections of this machine.
    pub kernel_bytes: Option<u64>,
}

/// One `--assert`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// As given: `p99<5ms`.
    pub text: String,
    /// What was measured, in the bound's unit: `4.2 ms`. None where the run measured no such thing, which does not hold.
    pub measured: Option<String>,
    pub held: bool,
}

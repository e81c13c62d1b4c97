//! The sections of INFO that Redis has, with the fields that clients and monitoring tools of Redis
//! read.
//!
//! Fields that concern keys, replicas, persistence and a cluster have the values of a Redis without
//! any. The other values are those of the hub and of the loop.

use std::collections::HashMap;

use super::{Call, REDIS_VERSION};
use crate::clock::Time;
use crate::hub::Shared;
use crate::metrics::MetricUnit::{Bytes, Connections, Count, Messages};
use crate::metrics::{self, MetricSection, MetricValue, Metrics};

/// Help of a field that is there for clients of Redis only.
const CONSTANT: &str = "Always the same, for Redis clients.";
const HUMAN: &str = "The same, in the form that Redis has for people.";

/// The sections, in the order and with the titles of Redis.
const SECTIONS: [MetricSection<Answers>; 11] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Modules", nothing),
    ("Errorstats", nothing),
    ("Cluster", cluster),
    ("Keyspace", nothing),
];

/// Section of Redis → the sections of the loop that its values come from.
const SOURCES: [(&str, &str); 6] = [
    ("Server", "loop"),
    ("Memory", "user memory, bytes"),
    ("Stats", "connections"),
    ("Stats", "admission"),
    ("Stats", "loop"),
    ("CPU", "loop"),
];

/// Returns true if a section of the loop is needed for a section that is wanted.
pub fn needs(title: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    SOURCES.iter().any(|(section, source)| *source == title && wanted(section))
}

/// Computes the sections whose titles are wanted. `theirs` are the loop's sections.
pub fn sections(
    shared: &mut Shared,
    call: &Call<'_, '_>,
    theirs: &[Metrics],
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<Metrics> {
    let now = call.reply.now;
    let count = |(title, value): (&str, u64)| (title.to_string(), value);
    let limits = call.server.limits();
    let connection = shared.sessions.get(call.session).connection();
    let local = connection.and_then(|connection| call.server.local(connection));
    let time = call.server.system_time();
    let uptime = now.since(Time::ZERO);
    let started = *shared.started.get_or_insert_with(|| time.saturating_sub(uptime));
    let answers = Answers {
        loops: theirs.iter().flat_map(Metrics::counts).map(count).collect(),
        run: format!("{:032x}{:08x}", started.as_nanos(), std::process::id()),
        unix_start: started.as_secs(),
        unix_us: time.as_micros() as u64,
        port: local.map_or(0, |local| local.port().into()),
        sessions: shared.sessions.len() as u64,
        waiting: (shared.publishers.len() + shared.searchers.len()) as u64,
        trackers: call.trackers.len() as u64,
        clients_max: limits.max_connections as u64,
        memory_max: limits.memory_budget as u64,
        commands: shared.commands_processed,
        commands_per_second: shared.command_rate.per_second(shared.commands_processed, now),
        channels: shared.channels.topic_count() as u64,
        patterns: shared.channels.pattern_count() as u64,
    };
    metrics::compute(&answers, &SECTIONS, wanted)
}

/// The values that the sections are made of.
#[derive(Default)]
struct Answers {
    /// The loop's metrics, by title.
    loops: HashMap<String, u64>,
    /// 40 hexadecimal digits that no other run of the server has.
    run: String,
    unix_start: u64,
    unix_us: u64,
    port: u64,
    sessions: u64,
    waiting: u64,
    trackers: u64,
    clients_max: u64,
    memory_max: u64,
    commands: u64,
    commands_per_second: u64,
    /// Channels, shard channels and patterns.
    channels: u64,
    patterns: u64,
}

impl Answers {
    fn of_loop(&self, title: &str) -> u64 {
        self.loops.get(title).copied().unwrap_or(0)
    }

    /// Adds up the loop's metrics whose titles begin like this.
    fn sum(&self, prefix: &str) -> u64 {
        self.loops.iter().filter(|(title, _)| title.starts_with(prefix)).map(|(_, n)| n).sum()
    }
}

/// Adds fields that never change.
fn constants<const N: usize>(metrics: &mut Metrics, fields: [(&'static str, &str); N]) {
    for (title, value) in fields {
        match value.parse::<u64>() {
            Ok(value) => metrics.gauges([(title, Count, value, CONSTANT)]),
            Err(_) => metrics.text(title, value.into(), CONSTANT),
        }
    }
}

fn server(answers: &Answers, metrics: &mut Metrics) {
    metrics.text("redis_version", REDIS_VERSION.into(), "Version of Redis that slabd follows.");
    metrics.text("slabd_version", env!("CARGO_PKG_VERSION").into(), "Version of slabd.");
    metrics.text("redis_mode", "standalone".into(), CONSTANT);
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    metrics.text("os", system, "Operating system and processor.");
    metrics.text("run_id", answers.run.clone(), "Differs in each run of the server.");
    let uptime = answers.of_loop("uptime, s");
    metrics.gauges([
        ("arch_bits", Count, u64::from(usize::BITS), "Size of a pointer in bits."),
        ("process_id", Count, u64::from(std::process::id()), "Process id of the server."),
        ("tcp_port", Count, answers.port, "Port that this connection came to."),
        ("server_time_usec", Count, answers.unix_us, "Unix time in microseconds."),
        ("uptime_in_seconds", Count, uptime, "Time since the start."),
        ("uptime_in_days", Count, uptime / 86_400, "Whole days since the start."),
    ]);
}

fn clients(answers: &Answers, metrics: &mut Metrics) {
    let most = "Maximum number of open connections.";
    metrics.gauges([
        ("connected_clients", Connections, answers.sessions, "Open sessions."),
        ("maxclients", Connections, answers.clients_max, most),
        ("blocked_clients", Connections, answers.waiting, "Sessions with a deferred command."),
        ("tracking_clients", Connections, answers.trackers, "Sessions with CLIENT TRACKING ON."),
    ]);
    constants(metrics, [("cluster_connections", "0"), ("clients_in_timeout_table", "0")]);
}

fn memory(answers: &Answers, metrics: &mut Metrics) {
    let used = answers.of_loop("ledger, without fixed") + answers.of_loop("fixed");
    let resident = answers.of_loop("resident set");
    for (title, human_title, bytes, help) in [
        ("used_memory", "used_memory_human", used, "User memory that the ledger counts."),
        ("used_memory_rss", "used_memory_rss_human", resident, "Resident memory of the process."),
        ("maxmemory", "maxmemory_human", answers.memory_max, "The memory budget."),
    ] {
        metrics.gauges([(title, Bytes, bytes, help)]);
        metrics.text(human_title, human(bytes), HUMAN);
    }
    let buffers = answers.of_loop("read-buffers") + answers.of_loop("write-buffers");
    metrics.gauges([("mem_clients_normal", Bytes, buffers, "Buffers of the connections.")]);
    let ratio = MetricValue::Ratio(resident as f64 / used.max(1) as f64);
    metrics.gauges([("mem_fragmentation_ratio", Count, ratio, "Resident memory to user memory.")]);
    constants(metrics, [("maxmemory_policy", "noeviction")]);
}

/// Returns bytes in the form that Redis has for people.
fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2}G", bytes as f64 / 1_073_741_824.0),
    }
}

fn persistence(answers: &Answers, metrics: &mut Metrics) {
    constants(
        metrics,
        [
            ("loading", "0"),
            ("async_loading", "0"),
            ("rdb_changes_since_last_save", "0"),
            ("rdb_bgsave_in_progress", "0"),
            ("rdb_last_bgsave_status", "ok"),
            ("aof_enabled", "0"),
            ("aof_rewrite_in_progress", "0"),
            ("aof_last_bgrewrite_status", "ok"),
            ("aof_last_write_status", "ok"),
        ],
    );
    let start = answers.unix_start;
    metrics.gauges([("rdb_last_save_time", Count, start, "Unix time of the start.")]);
}

fn stats(answers: &Answers, metrics: &mut Metrics) {
    let accepted = answers.of_loop("accepted");
    let rejected = answers.sum("refused, ") + answers.of_loop("accept shed");
    let (bytes_in, bytes_out) = (answers.of_loop("bytes in"), answers.of_loop("bytes out"));
    metrics.counters([
        ("total_connections_received", Connections, accepted, "Connections accepted."),
        ("total_commands_processed", Messages, answers.commands, "Commands run or refused."),
        ("total_net_input_bytes", Bytes, bytes_in, "Bytes read from connections."),
        ("total_net_output_bytes", Bytes, bytes_out, "Bytes written to connections."),
        ("rejected_connections", Connections, rejected, "Newcomers refused or closed."),
        (
            "evicted_clients",
            Connections,
            answers.of_loop("evicted"),
            "Closed for holding the most memory.",
        ),
    ]);
    let (channels, patterns) = (answers.channels, answers.patterns);
    metrics.gauges([
        (
            "instantaneous_ops_per_sec",
            Count,
            answers.commands_per_second,
            "Commands a second since the last INFO, over at least one second.",
        ),
        (
            "pubsub_channels",
            Count,
            channels - patterns,
            "Channels and shard channels with at least one subscriber.",
        ),
        ("pubsub_patterns", Count, patterns, "Patterns with at least one subscriber."),
    ]);
    constants(
        metrics,
        [
            ("sync_full", "0"),
            ("expired_keys", "0"),
            ("evicted_keys", "0"),
            ("keyspace_hits", "0"),
            ("keyspace_misses", "0"),
            ("latest_fork_usec", "0"),
        ],
    );
}

fn replication(answers: &Answers, metrics: &mut Metrics) {
    metrics.text("role", "master".into(), CONSTANT);
    metrics.text("master_replid", answers.run.clone(), "The same as run_id.");
    constants(
        metrics,
        [
            ("connected_slaves", "0"),
            ("master_failover_state", "no-failover"),
            ("master_repl_offset", "0"),
            ("second_repl_offset", "-1"),
            ("repl_backlog_active", "0"),
        ],
    );
    metrics.text("master_replid2", "0".repeat(40), CONSTANT);
}

fn cpu(answers: &Answers, metrics: &mut Metrics) {
    let seconds = MetricValue::Ratio(answers.of_loop("processor time, ms") as f64 / 1e3);
    let help = "Processor time of the process in user and system mode, in seconds.";
    metrics.counters([("used_cpu_user", Count, seconds, help)]);
    constants(metrics, [("used_cpu_sys", "0")]);
}

fn cluster(_answers: &Answers, metrics: &mut Metrics) {
    constants(metrics, [("cluster_enabled", "0")]);
}

fn nothing(_answers: &Answers, _metrics: &mut Metrics) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_of_the_sections_of_redis_has_a_distinct_name_and_a_help_text() {
        metrics::tests::check(&metrics::compute(&Answers::default(), &SECTIONS, &|_| true));
    }

    #[test]
    fn bytes_have_the_form_of_redis() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (2_644_600, "2.52M"),
            (25_276_514_304, "23.54G"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}

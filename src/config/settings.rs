//! What someone wrote, on the command line or in a file: every setting by its name, each of them optional.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Buffers, ConfigError, Listen, Password};
use crate::admission::Policy;
use crate::networks::Networks;
use crate::units::{Size, Span};

/// What can be set. The same names serve as flags and as keys of the file.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Serve SERVICE (hub, hello, echo, discard) on this address, by TCP and UDP. SERVICE+tcp or SERVICE+udp: by one of them. Port 0:
    /// any free port. [::] is IPv6 alone. Repeatable [default: hub=127.0.0.1:9999]
    #[arg(long, value_name = "SERVICE=ADDR:PORT")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<Listen>,

    /// Connections held at once; who comes then is told so and closed [default: the hard limit on open files, less 64]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,

    /// What happens to newcomers when too many connections are silent, or all slots taken: the oldest silent one makes way, or the newcomer is
    /// refused, or refused at random [default: recycle]
    #[arg(long, value_name = "recycle|refuse|random-drop", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<Policy>,

    /// Count what admission would do, and close nothing
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission_dry_run: Option<bool>,

    /// Connections that have not completed a message [default: 4096]
    #[arg(long, value_name = "COUNT", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_silent: Option<usize>,

    /// Of those, from one source (an IPv4 address, an IPv6 /64), while more than half are taken [default: 64]
    #[arg(long, value_name = "COUNT", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_silent_per_source: Option<usize>,

    /// Connections of one source; 0: seven eighths of max-connections [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_source: Option<usize>,

    /// Added to a source's penalty for each message that is late, and a fifth for each of its silent connections that made way; from 15 s on it
    /// is refused until all is over; 0: none [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<Span>,

    /// Sources that are counted but neither capped nor penalised, such as proxies: addresses and networks, with commas between them
    /// [default: none]
    #[arg(long, value_name = "ADDR[/PREFIX],…", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_sources: Option<Networks>,

    /// A hub for the operator on this loopback address: admission does not apply, and 8 slots are kept [default: none]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Admission")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,

    /// Length of the accept queue; the kernel takes net.core.somaxconn at most [default: 4096]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,

    /// Close a connection that completes no message for this long; 0: never [default: 5m]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,

    /// Close a new connection that completes no message for this long; 0: never [default: 10s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_message_timeout: Option<Span>,

    /// Close a connection that began a message and does not complete it in this time; 0: never [default: 30s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_timeout: Option<Span>,

    /// Close a connection that takes no byte of its output for this long; 0: never [default: 20s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_timeout: Option<Span>,

    /// Time for a connection that is being closed to take what it is owed, and to close; 0: for ever [default: 5s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_timeout: Option<Span>,

    /// Time from SIGTERM until whatever is left is closed [default: 10s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,

    /// Where connections have buffers: from a pool while they need one, or two fixed ones of 64B to 1MiB for life [default:
    /// pooled]
    #[arg(long, value_name = "pooled|fixed:BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<Buffers>,

    /// Memory for connections, the kernel's share included; who holds most is closed before it is passed [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<Size>,

    /// Password that peers of `hub` must give. Better from a file or from SLABD_REQUIREPASS [default: none: only this machine is served]
    #[arg(long, value_name = "PASSWORD")]
    #[serde(skip_serializing)]
    pub requirepass: Option<Password>,

    /// Read that password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "requirepass")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirepass_file: Option<PathBuf>,

    /// Datagrams a second that `hub` takes from one network (/24, or /56 of IPv6); 0: any number [default: 10000]
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagram_rate: Option<u32>,

    /// Write a line on connections, memory and turns to the log this often; 0: never [default: 0]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_every: Option<Span>,

    /// Longest line that `hello` takes, without its line break; at most 16382 bytes [default: 4KiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_line: Option<Size>,

    /// Stop reading a connection while this much of its output is unsent [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<Size>,

    /// Read it again once no more than this much is unsent [default: a quarter of the high watermark]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_watermark: Option<Size>,

    /// After many connections were ready at once, let events gather for so long before asking again: saves processor time for latency
    /// under load; 0: never [default: 50us]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gather: Option<Span>,

    /// Connections accepted in one turn of the loop [default: 64]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepts_per_turn: Option<usize>,

    /// Connections served in one turn [default: 1024]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_turn: Option<usize>,

    /// Messages of one connection served in one turn [default: 128]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_turn: Option<usize>,

    /// Reads of one connection in one turn, of up to 16 KiB each [default: 4]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_per_turn: Option<usize>,

    /// Batches of 64 datagrams received in one turn [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagram_batches_per_turn: Option<usize>,

    /// Output of one turn after which connections wait for the next [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_per_turn: Option<Size>,

    /// Close a connection when this much of its output is unsent [default: 1MiB, or
    /// twice the high watermark]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<Size>,

    /// Close a connection when more than this of its output stays unsent for --output-soft-time [default: a quarter of the output
    /// limit]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_soft_limit: Option<Size>,

    /// How long that may last, to the second; 0: for ever [default: 10s]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_soft_time: Option<Span>,

    /// Deliveries to other connections in one turn, by each service [default: 1024]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_turn: Option<usize>,

    /// Timers expired in one turn [default: 1024]
    #[arg(long, value_name = "COUNT", help_heading = "Budgets of one turn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiries_per_turn: Option<usize>,

    /// Have the kernel probe a peer that was silent for this long, in whole seconds; 0: never [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Span>,

    /// Time between such probes, in whole seconds [default: 15s]
    #[arg(long, value_name = "TIME", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_interval: Option<Span>,

    /// Probes without answer that end a connection, where --user-timeout is 0; else the first interval after a probe does [default: 3]
    #[arg(long, value_name = "COUNT", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_probes: Option<u32>,

    /// Have the kernel give up a peer that acknowledges no data, or takes none, for this long; 0: its own retries [default: 20s]
    #[arg(long, value_name = "TIME", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_timeout: Option<Span>,

    /// Kernel memory for output of a connection, as `ss -m` counts it in tb; 0: the kernel's choice [default: 32KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_buffer: Option<Size>,

    /// Kernel memory for unread input, as `ss -m` counts it in rb; 0: the kernel's choice [default: 32KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Sockets")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_buffer: Option<Size>,
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read config file {}: {error}", path.display())))?;
        Settings::parse(&text, path)
    }

    /// The settings of a TOML file with this text. Errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            // What it quotes from the file may hold anything, and errors are one line.
            let what = error.message().trim().replace('\n', "; ").replace(char::is_control, " ");
            ConfigError(format!("config file {}, line {line}: {what}", path.display()))
        })
    }

    /// These settings, and what they leave open from `below`.
    pub fn over(self, below: Settings) -> Settings {
        Settings {
            listen: if self.listen.is_empty() { below.listen } else { self.listen },
            max_connections: self.max_connections.or(below.max_connections),
            admission: self.admission.or(below.admission),
            admission_dry_run: self.admission_dry_run.or(below.admission_dry_run),
            max_silent: self.max_silent.or(below.max_silent),
            max_silent_per_source: self.max_silent_per_source.or(below.max_silent_per_source),
            max_connections_per_source: self.max_connections_per_source.or(below.max_connections_per_source),
            penalty: self.penalty.or(below.penalty),
            trusted_sources: self.trusted_sources.or(below.trusted_sources),
            admin: self.admin.or(below.admin),
            backlog: self.backlog.or(below.backlog),
            idle_timeout: self.idle_timeout.or(below.idle_timeout),
            first_message_timeout: self.first_message_timeout.or(below.first_message_timeout),
            message_timeout: self.message_timeout.or(below.message_timeout),
            output_timeout: self.output_timeout.or(below.output_timeout),
            close_timeout: self.close_timeout.or(below.close_timeout),
            drain_timeout: self.drain_timeout.or(below.drain_timeout),
            buffers: self.buffers.or(below.buffers),
            memory_budget: self.memory_budget.or(below.memory_budget),
            report_every: self.report_every.or(below.report_every),
            // One password: who names one above is not asked for another below.
            requirepass_file: self.requirepass_file.or(below.requirepass_file.filter(|_| self.requirepass.is_none())),
            requirepass: self.requirepass.or(below.requirepass),
            datagram_rate: self.datagram_rate.or(below.datagram_rate),
            max_line: self.max_line.or(below.max_line),
            high_watermark: self.high_watermark.or(below.high_watermark),
            low_watermark: self.low_watermark.or(below.low_watermark),
            gather: self.gather.or(below.gather),
            accepts_per_turn: self.accepts_per_turn.or(below.accepts_per_turn),
            connections_per_turn: self.connections_per_turn.or(below.connections_per_turn),
            messages_per_turn: self.messages_per_turn.or(below.messages_per_turn),
            reads_per_turn: self.reads_per_turn.or(below.reads_per_turn),
            datagram_batches_per_turn: self.datagram_batches_per_turn.or(below.datagram_batches_per_turn),
            output_per_turn: self.output_per_turn.or(below.output_per_turn),
            output_limit: self.output_limit.or(below.output_limit),
            output_soft_limit: self.output_soft_limit.or(below.output_soft_limit),
            output_soft_time: self.output_soft_time.or(below.output_soft_time),
            deliveries_per_turn: self.deliveries_per_turn.or(below.deliveries_per_turn),
            expiries_per_turn: self.expiries_per_turn.or(below.expiries_per_turn),
            keepalive: self.keepalive.or(below.keepalive),
            keepalive_interval: self.keepalive_interval.or(below.keepalive_interval),
            keepalive_probes: self.keepalive_probes.or(below.keepalive_probes),
            user_timeout: self.user_timeout.or(below.user_timeout),
            send_buffer: self.send_buffer.or(below.send_buffer),
            receive_buffer: self.receive_buffer.or(below.receive_buffer),
        }
    }
}

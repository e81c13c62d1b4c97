//! What can be set, by flag and by file, and what it resolves to.
//!
//! [`Settings`] is what someone wrote: every field optional, one struct for flags and file, so that their names agree.
//! [`Config`] is what holds: flags over file over defaults, checked.

mod running;
mod settings;
mod sockets;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::buffer::BufferMode;
use crate::limits::{
    CONNECTION_BYTES, CONNECTIONS_MAX, FILES_RESERVED, GATHER_MAX, LISTENERS_MAX, Limits, MAX_LINE_MAX, RESERVED_SLOTS,
    SILENT_MAX, SOFT_TIME_MAX,
};
use crate::memory::OBJECTS_BYTES_DEFAULT;
use crate::service::Secret;
use crate::units::{Size, Span};

use running::limits_as_settings;
pub use running::{limits_as_texts, with_changes};
pub use settings::Settings;
pub use values::{Buffers, Listen, Password};

/// Everything resolved and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub listen: Vec<Listen>,
    pub admin: Option<SocketAddr>,
    pub backlog: u32,
    pub buffers: BufferMode,
    pub report_every: Duration,
    pub password: Option<Secret>,
    /// Where the password was read from, for it to be written down again.
    pub password_file: Option<PathBuf>,
    pub datagram_rate: u32,
    pub limits: Limits,
    /// What was adjusted, and why: for the log.
    pub warnings: Vec<String>,
}

/// A configuration that cannot be used: one line that names the setting and what is accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Fills in the defaults and checks everything. `file_limit`: how many files this process may open.
    pub fn resolve(self, file_limit: u64) -> Result<Config, ConfigError> {
        let mut warnings = Vec::new();
        let max_connections = resolve_max_connections(self.max_connections, file_limit, &mut warnings)?;
        let limits = self.limits(max_connections)?;
        check(&limits)?;
        let buffers = self.buffers.map_or(BufferMode::Pooled, |Buffers(mode)| mode);
        let each = match buffers {
            BufferMode::Pooled => CONNECTION_BYTES,
            BufferMode::Fixed(bytes) => CONNECTION_BYTES + 2 * bytes.next_power_of_two(),
        };
        let fit = limits.memory_budget / (each + OBJECTS_BYTES_DEFAULT as usize);
        if fit < limits.max_connections {
            let budget = Size(limits.memory_budget);
            warnings.push(format!(
                "memory-budget {budget} has room for {fit} connections with {} buffers",
                Buffers(buffers)
            ));
        }
        let backlog = self.backlog.unwrap_or(DEFAULT_BACKLOG);
        within("backlog", backlog as usize, 1, i32::MAX as usize)?;
        within("memory-budget", limits.memory_budget, MEMORY_BUDGET_MIN, usize::MAX)?;
        let listen = if self.listen.is_empty() { vec![Listen::default()] } else { self.listen };
        within("listen", listen.len(), 1, LISTENERS_MAX)?;
        check_for_twins(&listen)?;
        if let Some(admin) = self.admin.filter(|admin| !admin.ip().is_loopback()) {
            return Err(ConfigError(format!(
                "admin is {admin}: accepted is an address of this machine, such as 127.0.0.1:9998"
            )));
        }
        if self.admin.is_some() {
            within("max-connections, with --admin,", limits.max_connections, 2 * RESERVED_SLOTS, CONNECTIONS_MAX)?;
        }
        let password = values::password(self.requirepass, self.requirepass_file.as_deref())?;
        if let (None, Some(open)) = (&password, listen.iter().find(|listen| listen.is_open_hub())) {
            warnings
                .push(format!("{open}: no password is set, so only this machine is served; see --requirepass-file"));
        }
        Ok(Config {
            listen,
            admin: self.admin,
            backlog,
            buffers,
            report_every: self.report_every.map_or(Duration::ZERO, |Span(time)| time),
            password,
            password_file: self.requirepass_file,
            datagram_rate: self.datagram_rate.unwrap_or(DATAGRAM_RATE),
            limits,
            warnings,
        })
    }

    /// The limits as set, and the defaults of the others.
    fn limits(&self, max_connections: usize) -> Result<Limits, ConfigError> {
        let defaults = Limits::default();
        let span = |given: Option<Span>, default: Duration| given.map_or(default, |Span(time)| time);
        let bytes = |given: Option<Size>, default: usize| given.map_or(default, |Size(bytes)| bytes);
        let high_watermark = bytes(self.high_watermark, defaults.high_watermark);
        let output_limit = bytes(self.output_limit, defaults.output_limit.max(2 * high_watermark));
        Ok(Limits {
            max_connections,
            admission: self.admission.unwrap_or(defaults.admission),
            admission_dry_run: self.admission_dry_run.unwrap_or(defaults.admission_dry_run),
            max_silent: self.max_silent.unwrap_or(defaults.max_silent),
            max_silent_per_source: self.max_silent_per_source.unwrap_or(defaults.max_silent_per_source),
            max_connections_per_source: self.max_connections_per_source.unwrap_or(defaults.max_connections_per_source),
            penalty: span(self.penalty, defaults.penalty),
            trusted_sources: self.trusted_sources.clone().unwrap_or(defaults.trusted_sources),
            first_message_timeout: span(self.first_message_timeout, defaults.first_message_timeout),
            message_timeout: span(self.message_timeout, defaults.message_timeout),
            idle_timeout: span(self.idle_timeout, defaults.idle_timeout),
            output_timeout: span(self.output_timeout, defaults.output_timeout),
            close_timeout: span(self.close_timeout, defaults.close_timeout),
            drain_timeout: span(self.drain_timeout, defaults.drain_timeout),
            max_line: bytes(self.max_line, defaults.max_line),
            high_watermark,
            low_watermark: bytes(self.low_watermark, high_watermark / 4),
            memory_budget: bytes(self.memory_budget, defaults.memory_budget),
            gather: span(self.gather, defaults.gather),
            accepts_per_turn: self.accepts_per_turn.unwrap_or(defaults.accepts_per_turn),
            connections_per_turn: self.connections_per_turn.unwrap_or(defaults.connections_per_turn),
            messages_per_turn: self.messages_per_turn.unwrap_or(defaults.messages_per_turn),
            reads_per_turn: self.reads_per_turn.unwrap_or(defaults.reads_per_turn),
            datagram_batches_per_turn: self.datagram_batches_per_turn.unwrap_or(defaults.datagram_batches_per_turn),
            output_per_turn: bytes(self.output_per_turn, defaults.output_per_turn),
            output_limit,
            output_soft_limit: bytes(self.output_soft_limit, output_limit / 4),
            output_soft_time: span(self.output_soft_time, defaults.output_soft_time),
            deliveries_per_turn: self.deliveries_per_turn.unwrap_or(defaults.deliveries_per_turn),
            expiries_per_turn: self.expiries_per_turn.unwrap_or(defaults.expiries_per_turn),
            sockets: self.socket_options()?,
        })
    }
}

/// Less would not hold one connection with a message and an answer of the usual size.
const MEMORY_BUDGET_MIN: usize = 64 * 1024;

/// The same address cannot be listened on twice, by the same transport.
fn check_for_twins(listen: &[Listen]) -> Result<(), ConfigError> {
    for (index, one) in listen.iter().enumerate().filter(|(_, one)| one.address.port() != 0) {
        let shares = |other: &&Listen| (one.tcp && other.tcp) || (one.udp && other.udp);
        if let Some(other) = listen[..index].iter().find(|other| other.address == one.address && shares(other)) {
            return Err(ConfigError(format!("listen names {} twice: {other} and {one}", one.address)));
        }
    }
    Ok(())
}

/// A hundred sensors at a hundred messages a second; a forged flood from one network stays below a tenth of what one core serves.
const DATAGRAM_RATE: u32 = 10_000;

/// Long enough that a burst of connections survives a busy turn; Linux takes at most net.core.somaxconn, 4,096 by default.
const DEFAULT_BACKLOG: u32 = 4096;

fn resolve_max_connections(
    given: Option<usize>,
    file_limit: u64,
    warnings: &mut Vec<String>,
) -> Result<usize, ConfigError> {
    let possible = usize::try_from(file_limit.saturating_sub(FILES_RESERVED)).unwrap_or(CONNECTIONS_MAX);
    let possible = possible.clamp(1, CONNECTIONS_MAX);
    let Some(wanted) = given else { return Ok(possible) };
    within("max-connections", wanted, 1, CONNECTIONS_MAX)?;
    if wanted > possible {
        warnings.push(format!(
            "max-connections lowered from {wanted} to {possible}: this process may open {file_limit} files, and keeps \
             {FILES_RESERVED} for itself; raise the limit (ulimit -n) to hold more"
        ));
    }
    Ok(wanted.min(possible))
}

fn check(limits: &Limits) -> Result<(), ConfigError> {
    within("max-line", limits.max_line, 1, MAX_LINE_MAX)?;
    within("high-watermark", limits.high_watermark, 1, 1 << 30)?;
    within("low-watermark", limits.low_watermark, 0, limits.high_watermark - 1)?;
    within("max-silent", limits.max_silent, 1, SILENT_MAX)?;
    within("max-silent-per-source", limits.max_silent_per_source, 1, SILENT_MAX)?;
    within("max-connections-per-source", limits.max_connections_per_source, 0, CONNECTIONS_MAX)?;
    if limits.output_soft_time > SOFT_TIME_MAX {
        let (given, most) = (Span(limits.output_soft_time), Span(SOFT_TIME_MAX));
        return Err(ConfigError(format!("output-soft-time is {given}: accepted is 0 to {most}")));
    }
    within("accepts-per-turn", limits.accepts_per_turn, 1, 1 << 20)?;
    within("connections-per-turn", limits.connections_per_turn, 1, 1 << 20)?;
    within("messages-per-turn", limits.messages_per_turn, 1, 1 << 20)?;
    within("reads-per-turn", limits.reads_per_turn, 1, 1 << 20)?;
    within("datagram-batches-per-turn", limits.datagram_batches_per_turn, 1, 1 << 20)?;
    within("output-per-turn", limits.output_per_turn, 1, 1 << 30)?;
    within("output-limit", limits.output_limit, 2 * limits.high_watermark, 1 << 30)?;
    within("output-soft-limit", limits.output_soft_limit, 1, limits.output_limit)?;
    within("deliveries-per-turn", limits.deliveries_per_turn, 1, 1 << 20)?;
    within("expiries-per-turn", limits.expiries_per_turn, 1, 1 << 20)?;
    if limits.gather > GATHER_MAX {
        return Err(ConfigError(format!("gather is {}: accepted is 0 to {}", Span(limits.gather), Span(GATHER_MAX))));
    }
    if limits.drain_timeout.is_zero() {
        return Err(ConfigError("drain-timeout is 0: a drain must end; accepted is a time of 1ms or more".into()));
    }
    Ok(())
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!("{name} is {value}: accepted is {least} to {most}")))
}

impl Config {
    /// The whole configuration as a file: what `--check` prints, and what `--config` reads.
    pub fn to_toml(&self) -> String {
        let settings = Settings {
            listen: self.listen.clone(),
            admin: self.admin,
            backlog: Some(self.backlog),
            buffers: Some(Buffers(self.buffers)),
            report_every: Some(Span(self.report_every)),
            requirepass_file: self.password_file.clone(),
            datagram_rate: Some(self.datagram_rate),
            ..limits_as_settings(&self.limits)
        };
        toml::to_string(&settings).expect("texts and numbers have a TOML form")
    }

    /// Settings that differ from `running` and need a restart.
    pub fn needs_restart(&self, running: &Config) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.listen != running.listen {
            names.push("listen");
        }
        if self.admin != running.admin {
            names.push("admin");
        }
        if self.backlog != running.backlog {
            names.push("backlog");
        }
        if self.buffers != running.buffers {
            names.push("buffers");
        }
        if self.password != running.password {
            names.push("requirepass");
        }
        if self.datagram_rate != running.datagram_rate {
            names.push("datagram-rate");
        }
        names
    }
}

/// Where settings come from: asked again at SIGHUP.
#[derive(Clone, Debug)]
pub struct Sources {
    pub flags: Settings,
    pub file: Option<PathBuf>,
}

impl Sources {
    pub fn load(&self, file_limit: u64) -> Result<Config, ConfigError> {
        let file = self.file.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        self.flags.clone().over(file).resolve(file_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<Config, ConfigError> {
        toml::from_str::<Settings>(toml).map_err(|error| ConfigError(error.message().into()))?.resolve(20_000)
    }

    #[test]
    fn nothing_set_is_the_hub_on_loopback_with_the_documented_defaults() {
        let config = resolve("").unwrap();
        assert_eq!(config.listen, ["hub=127.0.0.1:9999".parse().unwrap()]);
        let limits = Limits { max_connections: 19_936, ..Limits::default() };
        assert_eq!(config.limits, limits);
        assert_eq!((config.backlog, config.buffers), (4096, BufferMode::Pooled));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn a_hub_that_others_reach_needs_a_password_or_warns() {
        let open = "listen = [\"hub=0.0.0.0:7\"]";
        let config = resolve(open).unwrap();
        assert!(config.warnings[0].contains("hub=0.0.0.0:7: no password"), "{:?}", config.warnings);
        let config = resolve(&format!("{open}\nrequirepass = \"secret\"")).unwrap();
        assert!(config.warnings.is_empty() && config.password.is_some());
        // Shown neither where the configuration is printed nor where it is logged.
        assert!(!config.to_toml().contains("secret\"") && !format!("{config:?}").contains("\"secret"));
        assert!(resolve(&format!("requirepass = \"{}\"", "x".repeat(512))).is_ok());
        assert!(resolve(&format!("requirepass = \"{}\"", "x".repeat(513))).is_err());
        assert!(resolve("requirepass-file = \"/nonexistent\"").unwrap_err().0.contains("/nonexistent"));
    }

    #[test]
    fn what_check_prints_is_a_file_that_means_the_same() {
        let config = resolve(
            "listen = [\"echo+udp=[::1]:0\", \"discard=0.0.0.0:9\"]\nbuffers = \"fixed:4096\"\nidle-timeout = 0",
        )
        .unwrap();
        assert_eq!(resolve(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = toml::from_str::<Settings>("backlog = 7\nmax-line = \"1KiB\"").unwrap();
        let flags = Settings { backlog: Some(9), ..Settings::default() };
        let config = flags.over(file).resolve(20_000).unwrap();
        assert_eq!((config.backlog, config.limits.max_line), (9, 1024));
    }

    #[test]
    fn errors_name_the_setting_and_what_is_accepted() {
        for (toml, named, accepted) in [
            ("no-such-key = 1", "no-such-key", "max-connections"),
            ("listen = [\"nope=127.0.0.1:1\"]", "nope", "hello, echo, discard, hub"),
            ("listen = [\"hello+sctp=127.0.0.1:1\"]", "sctp", "+tcp and +udp"),
            ("listen = [\"hello=localhost:1\"]", "localhost:1", "SERVICE=ADDR:PORT"),
            ("listen = [\"hello\"]", "hello", "SERVICE=ADDR:PORT"),
            ("idle-timeout = \"5 parsecs\"", "5 parsecs", "ms, s, m, h or d"),
            ("memory-budget = \"1MB\"", "1MB", "KiB"),
            ("buffers = \"fixed:1\"", "fixed:1", "64B to 1MiB"),
            ("buffers = \"some\"", "some", "fixed:4096"),
            ("messages-per-turn = 0", "messages-per-turn", "1 to"),
            ("low-watermark = \"64KiB\"", "low-watermark", "0 to 65535"),
            ("listen = [\"echo=127.0.0.1:7\", \"hello+udp=127.0.0.1:7\"]", "127.0.0.1:7 twice", "hello+udp"),
            ("drain-timeout = 0", "drain-timeout", "1ms or more"),
            ("trusted-sources = \"10.0.0.1/8\"", "10.0.0.1/8", "prefix"),
        ] {
            let ConfigError(message) = resolve(toml).unwrap_err();
            assert!(message.contains(named) && message.contains(accepted), "{toml}: {message}");
        }
    }

    #[test]
    fn a_limit_at_its_bounds_one_below_and_one_above() {
        for (toml, fits) in [
            ("max-line = 0", false),
            ("max-line = 1", true),
            ("max-line = 16382", true),
            ("max-line = 16383", false),
            ("memory-budget = 65535", false),
            ("memory-budget = 65536", true),
            ("memory-budget = 65537", true),
            ("listen = [\"echo+tcp=127.0.0.1:7\", \"hello+udp=127.0.0.1:7\", \"echo=[::1]:7\"]", true),
            ("max-connections = 0", false),
            ("max-connections = 1", true),
            ("max-connections = 4194304", true),
            ("max-connections = 4194305", false),
            ("buffers = \"fixed:63\"", false),
            ("buffers = \"fixed:64\"", true),
            ("buffers = \"fixed:1048576\"", true),
            ("buffers = \"fixed:1048577\"", false),
        ] {
            assert_eq!(resolve(toml).is_ok(), fits, "{toml}");
        }
    }

    #[test]
    fn connections_are_bounded_by_files_and_that_is_said() {
        for (wanted, resolved, warned) in [(19_935, 19_935, false), (19_936, 19_936, false), (19_937, 19_936, true)] {
            let config = resolve(&format!("max-connections = {wanted}")).unwrap();
            assert_eq!((config.limits.max_connections, !config.warnings.is_empty()), (resolved, warned));
        }
    }

    #[test]
    fn what_cannot_change_live_is_named() {
        let running = resolve("").unwrap();
        let new = resolve("backlog = 1\nbuffers = \"fixed:64\"\nidle-timeout = \"1s\"").unwrap();
        assert_eq!(new.needs_restart(&running), ["backlog", "buffers"]);
    }
}

//! What can be set, by flag and by file, and what it resolves to.
//!
//! [`Settings`] is what someone wrote: some of the settings, by name. [`Config`] is what holds: flags over file over defaults,
//! checked. Both come from the same rows, which are here for what is set at start, and in [`crate::limits`] for the rest.

mod running;
mod settings;
mod values;

use std::fmt;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Value;

use crate::buffer::BufferMode;
use crate::limits::{
    ACCEPT_QUEUE_DEFAULT, ACCEPT_QUEUE_MAX, CONNECTION_BYTES, CONNECTIONS_MAX, DATAGRAM_RATE, FILES_RESERVED,
    LIMIT_ROWS, LISTENERS_MAX, Limits, RESERVED_SLOTS, SOCKET_ROWS,
};
use crate::memory::OBJECTS_BYTES_DEFAULT;
use crate::service::Secret;
use crate::setting::{About, Count, Row, settings, shown};
use crate::units::Size;

pub use running::{limits_as_texts, with_changes};
pub use settings::Settings;
pub use values::{Buffers, Listen};

settings! {
    /// Everything resolved and checked.
    pub struct Config in Config[] as START_ROWS {
        "":
        /// Serve SERVICE (hub, hello, echo, discard) on this address, by TCP and UDP. SERVICE+tcp or
        /// SERVICE+udp: by one of them. Port 0: any free port. [::] is IPv6 alone. Repeatable.
        listen: Vec<Listen> = vec![Listen::default()];

        /// Length of the accept queue; the kernel takes net.core.somaxconn at most.
        ///
        /// A burst of connections survives a busy turn. Linux takes at most net.core.somaxconn, which
        /// is as much by default.
        backlog: Count<u32> = ACCEPT_QUEUE_DEFAULT, in |_| 1..=ACCEPT_QUEUE_MAX;

        /// Where connections have buffers: from a pool while they need one, or two fixed ones of 64B
        /// to 1MiB for life.
        ///
        /// The fixed ones are there to show what they cost.
        buffers: Buffers = BufferMode::Pooled;

        /// Password that peers of `hub` must give. The process list shows it, so this is for trying
        /// out; else use a file, SLABD_REQUIREPASS, or a systemd credential of the name requirepass.
        ///
        /// Without one, only this machine is served.
        requirepass: Option<Secret> = None;

        /// Read that password from the first line of this file.
        requirepass_file: Option<PathBuf> = None;

        /// Datagrams a second that `hub` takes from one network (/24, or /56 of IPv6); 0: any number.
        ///
        /// A hundred sensors may send a hundred messages a second each. A forged flood from one
        /// network stays below a tenth of what one core serves.
        datagram_rate: Count<u32> = DATAGRAM_RATE;

        "Admission":
        /// A hub for the operator on this loopback address: admission does not apply, and 8 slots are
        /// kept.
        ///
        /// The operator gets in when nobody else does. The wrong passwords of others do not count
        /// here.
        admin: Option<SocketAddr> = None;

        with limits: Limits, warnings: Vec<String>;
    }
}

/// A setting: read at start only, or free to change while the server runs.
#[derive(Clone, Copy)]
pub enum Setting {
    AtStart(&'static Row<Config>),
    Live(&'static Row<Limits>),
}

impl Setting {
    pub fn all() -> impl Iterator<Item = Setting> {
        let live = LIMIT_ROWS.iter().chain(SOCKET_ROWS).map(Setting::Live);
        START_ROWS.iter().map(Setting::AtStart).chain(live)
    }

    pub fn named(name: &str) -> Option<Setting> {
        Setting::all().find(|setting| setting.name() == name)
    }

    pub fn about(self) -> &'static About {
        match self {
            Setting::AtStart(row) => &row.about,
            Setting::Live(row) => &row.about,
        }
    }

    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// The default, as people read it.
    pub fn default(self) -> String {
        match self.about().follows {
            "" => match shown(self.get(&Config::default())) {
                text if text.is_empty() => "none".into(),
                text => text,
            },
            words => words.into(),
        }
    }

    /// Takes what someone wrote. An error quotes it and says what is accepted.
    pub fn set(self, config: &mut Config, texts: &[String]) -> Result<(), String> {
        match self {
            Setting::AtStart(row) => (row.set)(config, texts),
            Setting::Live(row) => (row.set)(&mut config.limits, texts),
        }
    }

    pub fn get(self, config: &Config) -> Option<Value> {
        match self {
            Setting::AtStart(row) => (row.get)(config),
            Setting::Live(row) => (row.get)(&config.limits),
        }
    }

    /// Whether the value is accepted, and which values are.
    pub fn range(self, config: &Config) -> Option<(bool, String)> {
        match self {
            Setting::AtStart(row) => (row.range)(config),
            Setting::Live(row) => (row.range)(&config.limits),
        }
    }

    fn follow(self, config: &mut Config) {
        match self {
            Setting::AtStart(row) => (row.follow)(config),
            Setting::Live(row) => (row.follow)(&mut config.limits),
        }
    }

    fn is_same(self, one: &Config, other: &Config) -> bool {
        match self {
            Setting::AtStart(row) => (row.same)(one, other),
            Setting::Live(row) => (row.same)(&one.limits, &other.limits),
        }
    }
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
        let mut config = Config::default();
        for setting in Setting::all() {
            match self.texts(setting.name()) {
                Some(texts) => {
                    setting.set(&mut config, texts).map_err(|why| ConfigError(format!("{}: {why}", setting.name())))?
                }
                None => setting.follow(&mut config),
            }
        }
        config.check()?;
        let possible = connections_possible(file_limit);
        let wanted = config.limits.max_connections;
        if self.texts("max-connections").is_none() {
            config.limits.max_connections = possible;
        } else if wanted > possible {
            config.warnings.push(too_many_connections(wanted, file_limit));
            config.limits.max_connections = possible;
        }
        if config.admin.is_some() {
            let connections = config.limits.max_connections;
            within("max-connections, with --admin,", connections, 2 * RESERVED_SLOTS, CONNECTIONS_MAX)?;
        }
        config.warn_of_a_small_budget();
        config.requirepass = values::password(config.requirepass, config.requirepass_file.as_deref())?;
        if let (None, Some(open)) = (&config.requirepass, config.listen.iter().find(|listen| listen.is_open_hub())) {
            let warning = "no password is set, so only this machine is served; see --requirepass-file";
            config.warnings.push(format!("{open}: {warning}"));
        }
        Ok(config)
    }
}

impl Config {
    /// Each setting in its range, and in its place among the others.
    fn check(&self) -> Result<(), ConfigError> {
        for setting in Setting::all() {
            if let Some((false, accepted)) = setting.range(self) {
                let (name, value) = (setting.name(), shown(setting.get(self)));
                return Err(ConfigError(format!("{name} is {value}: accepted is {accepted}")));
            }
        }
        within("listen", self.listen.len(), 1, LISTENERS_MAX)?;
        check_for_twins(&self.listen)?;
        match self.admin.filter(|admin| !admin.ip().is_loopback()) {
            Some(admin) => Err(ConfigError(format!(
                "admin is {admin}: accepted is an address of this machine, such as 127.0.0.1:9998"
            ))),
            None => Ok(()),
        }
    }

    fn warn_of_a_small_budget(&mut self) {
        let each = match self.buffers {
            BufferMode::Pooled => CONNECTION_BYTES,
            BufferMode::Fixed(bytes) => CONNECTION_BYTES + 2 * bytes.next_power_of_two(),
        };
        let fit = self.limits.memory_budget / (each + OBJECTS_BYTES_DEFAULT as usize);
        if fit < self.limits.max_connections {
            let (budget, buffers) = (Size(self.limits.memory_budget), Buffers(self.buffers));
            self.warnings.push(format!("memory-budget {budget} has room for {fit} connections with {buffers} buffers"));
        }
    }

    /// The whole configuration as a file: what `--check` prints, and what `--config` reads.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for setting in Setting::all() {
            if let Some(value) = setting.get(self) {
                let _ = writeln!(text, "{} = {value}", setting.name());
            }
        }
        text
    }

    /// The settings that differ from `running`, each with its value there and here.
    pub fn changes(&self, running: &Config) -> Vec<(Setting, String, String)> {
        let changed = Setting::all().filter(|setting| !setting.is_same(self, running));
        changed.map(|setting| (setting, shown(setting.get(running)), shown(setting.get(self)))).collect()
    }
}

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

fn connections_possible(file_limit: u64) -> usize {
    let possible = usize::try_from(file_limit.saturating_sub(FILES_RESERVED)).unwrap_or(CONNECTIONS_MAX);
    possible.clamp(1, CONNECTIONS_MAX)
}

fn too_many_connections(wanted: usize, file_limit: u64) -> String {
    let possible = connections_possible(file_limit);
    format!(
        "max-connections lowered from {wanted} to {possible}: this process may open {file_limit} files, and keeps \
         {FILES_RESERVED} for itself; raise the limit (ulimit -n) to hold more"
    )
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!("{name} is {value}: accepted is {least} to {most}")))
}

/// Where settings come from: asked again at SIGHUP.
#[derive(Clone, Debug)]
pub struct SettingSources {
    pub flags: Settings,
    pub file: Option<PathBuf>,
}

impl SettingSources {
    pub fn load(&self, file_limit: u64) -> Result<Config, ConfigError> {
        let file = self.file.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let mut config = self.flags.clone().over(file).resolve(file_limit)?;
        if self.flags.texts("requirepass").is_some() {
            let warning = "--requirepass shows the password in the process list; see --requirepass-file";
            config.warnings.push(warning.into());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::limits::SocketOptions;

    fn parse(toml: &str) -> Result<Settings, ConfigError> {
        Settings::parse(toml, Path::new("slabd.toml"))
    }

    fn resolve(toml: &str) -> Result<Config, ConfigError> {
        parse(toml)?.resolve(20_000)
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
        assert!(config.warnings.is_empty() && config.requirepass.is_some());
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
        let file = parse("backlog = 7\nmax-line = \"1KiB\"").unwrap();
        let flags = parse("backlog = 9").unwrap();
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
        let changes = new.changes(&running);
        let shown: Vec<_> = changes.iter().map(|(setting, old, new)| (setting.name(), &old[..], &new[..])).collect();
        assert_eq!(shown, [("backlog", "4096", "1"), ("buffers", "pooled", "fixed:64"), ("idle-timeout", "5m", "1s")]);
        let live: Vec<_> = changes.iter().map(|(setting, ..)| matches!(setting, Setting::Live(_))).collect();
        assert_eq!(live, [false, false, true]);
    }

    #[test]
    fn options_at_their_bounds_one_below_and_one_above() {
        for (toml, fits) in [
            ("keepalive = 0", true),
            ("keepalive = \"999ms\"", false),
            ("keepalive = \"1s\"", true),
            ("keepalive = \"1500ms\"", false),
            ("keepalive = \"32767s\"", true),
            ("keepalive = \"32768s\"", false),
            ("keepalive-interval = 0", false),
            ("keepalive-interval = \"1s\"", true),
            ("keepalive-interval = \"32768s\"", false),
            ("keepalive-probes = 0", false),
            ("keepalive-probes = 1", true),
            ("keepalive-probes = 127", true),
            ("keepalive-probes = 128", false),
            ("user-timeout = 0", true),
            ("user-timeout = \"1ms\"", true),
            ("send-buffer = 0", true),
            ("send-buffer = 8191", false),
            ("send-buffer = 8192", true),
            ("receive-buffer = \"1GiB\"", true),
            ("receive-buffer = 1073741825", false),
        ] {
            assert_eq!(resolve(toml).is_ok(), fits, "{toml}");
        }
        assert_eq!(resolve("").unwrap().limits.sockets, SocketOptions::default());
    }

    /// Ticks wrap, so no timeout may be longer.
    #[test]
    fn the_longest_timeout_at_its_limit_one_below_and_one_above() {
        for time in ["29d", "30d", "2592000"] {
            assert!(resolve(&format!("idle-timeout = \"{time}\"")).is_ok(), "{time}");
        }
        for time in ["31d", "2592000001ms", "2592001"] {
            let error = resolve(&format!("idle-timeout = \"{time}\"")).unwrap_err();
            assert!(error.0.contains("at most 30d"), "{error}");
        }
    }

    #[test]
    fn a_bare_number_is_a_time_in_seconds() {
        let config = resolve("idle-timeout = 5\nmessage-timeout = \"7\"").unwrap();
        let seconds = Duration::from_secs;
        assert_eq!((config.limits.idle_timeout, config.limits.message_timeout), (seconds(5), seconds(7)));
    }

    /// Each flag names a password in a way of its own, and there is one password.
    #[test]
    fn a_password_file_of_the_flags_wins_over_a_password_of_the_file() {
        for (flags, file) in [
            ("requirepass-file = \"/nonexistent\"", "requirepass = \"secret\""),
            ("requirepass = \"secret\"", "requirepass-file = \"/nonexistent\""),
        ] {
            let settings = parse(flags).unwrap().over(parse(file).unwrap());
            assert_eq!(settings.resolve(20_000).is_ok(), flags.contains("secret"), "{flags}");
        }
    }

    #[test]
    fn every_row_has_help_a_name_of_its_own_and_a_default_in_its_range() {
        let config = resolve("").unwrap();
        let mut names: Vec<_> = Setting::all().map(Setting::name).collect();
        for setting in Setting::all() {
            assert!(!setting.about().help().is_empty(), "{}", setting.name());
            assert_ne!(setting.range(&config).map(|(fits, _)| fits), Some(false), "{}", setting.name());
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

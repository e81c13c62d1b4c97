//! The configuration: settings from flags and file, resolved and checked.
//!
//! [`Settings`] holds the settings that were given, by name. [`Config`] holds every setting: flags
//! win over the file, and the file over the defaults. The rows of the settings that are read at
//! start are here, and the other rows are in [`crate::limits`].

mod capacity;
mod inherited;
mod password;
mod running;
mod settings;
mod values;

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::Value;

use crate::broker_settings::{BrokerPrefix, BrokerSettings, BrokerUrl, SharedPattern};
use crate::buffer::BufferMode;
use crate::demo::Demo;
use crate::escape;
use crate::limits::{
    ACCEPT_QUEUE_DEFAULT, ACCEPT_QUEUE_MAX, CONNECTIONS_MAX, LIMIT_ROWS, LISTENERS_MAX, Limits,
    RESERVED_SLOTS, SOCKET_ROWS,
};
use crate::machine::Machine;
use crate::retain_rule::{self, RetainRule};
use crate::routes::EventRoutes;
use crate::service::Secret;
use crate::setting::{About, Count, Row, settings, shown};

pub use capacity::Capacity;
pub use running::{limits_as_texts, with_changes};
pub use settings::{SOCKETIO, Settings};
pub use values::{Buffers, Listen};

settings! {
    /// The value of every setting, resolved and checked.
    pub struct Config in Config[] as START_ROWS {
        "":
        /// Serve SERVICE (hub, hello, echo or discard) on this address by TCP and UDP, or only by
        /// one with SERVICE+tcp or SERVICE+udp. Port 0 means any free port. [::] means IPv6 only.
        /// Repeatable.
        listen: Vec<Listen> = vec![Listen::default()];

        /// Maximum number of connections that wait in a listener's accept queue. The kernel lowers
        /// it to net.core.somaxconn.
        ///
        /// A burst of connections survives a busy turn. net.core.somaxconn has the same default.
        backlog: Count<u32> = ACCEPT_QUEUE_DEFAULT, in |_| 1..=ACCEPT_QUEUE_MAX;

        /// Share the ports of --listen with other processes that have this flag and the same user.
        /// The kernel spreads connections and datagrams over them.
        ///
        /// Without it, a second server by mistake is an error. One process serves one core.
        reuse_port: bool = false;

        /// Buffers of connections. pooled takes a buffer from a pool while a connection needs one.
        /// fixed:BYTES gives each connection two buffers of 64B to 1MiB for its life.
        ///
        /// Fixed buffers exist to show what they cost.
        buffers: Buffers = BufferMode::Pooled;

        /// Password that clients of `hub` must give. The process list shows it. In production use
        /// --requirepass-file, SLABD_REQUIREPASS, or a systemd credential named requirepass.
        ///
        /// Without a password, `hub` serves only clients on this machine.
        requirepass: Option<Secret> = None;

        /// File whose first line is the password of `hub`.
        requirepass_file: Option<PathBuf> = None;

        "Admission":
        /// Serve the operator a hub on this loopback address. Admission does not apply there, and 8
        /// slots are reserved.
        ///
        /// The operator can connect while a flood keeps others out. Wrong passwords of other
        /// clients do not delay the operator.
        admin: Option<SocketAddr> = None;

        /// Serve operators' commands only to clients that connect to --admin, if it is set. These
        /// are SHUTDOWN, MONITOR, CONFIG SET, CONFIG RESETSTAT, MEMORY DOCTOR, CLIENT LIST, CLIENT
        /// CLOSED, and CLIENT KILL of other clients.
        ///
        /// A client that may publish need not be able to stop the server. Redis has no such
        /// listener and serves them to all.
        operators_only_by_door: bool = true;

        "Subscriptions":
        /// Keep the last message of this channel for new subscribers that ask for it. As JSON, such
        /// as {"channel":"cells","key":"index","max":1000}, keep the last message of each key, a
        /// field of the message. Repeatable.
        retain: Vec<RetainRule> = Vec::new();

        "Broker":
        /// Join all servers that use this Redis or Valkey into one hub:
        /// redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], or
        /// redis+sentinel://HOST[:PORT][,HOST[:PORT]...]/NAME[/DATABASE]. Repeatable: if one fails,
        /// the next is tried.
        ///
        /// A server alone needs no broker.
        broker: Vec<BrokerUrl> = Vec::new();

        /// File whose first line is the password for the broker. In production use it,
        /// SLABD_BROKER_PASSWORD, or a systemd credential named broker-password, because the
        /// process list shows a URL.
        broker_password_file: Option<PathBuf> = None;

        /// Share the channels that match this pattern over the broker. Others stay local.
        /// Repeatable.
        broker_channels: Vec<SharedPattern> = vec![SharedPattern::default()];

        /// Text put before the names of channels and patterns at the broker. It keeps the hubs of
        /// one broker apart.
        broker_prefix: BrokerPrefix = BrokerPrefix::default();

        with limits: Limits, routes: Rc<EventRoutes>, demo: Option<Demo>,
            broker_password: Option<Secret>, warnings: Vec<String>;
    }
}

/// A setting: one that is read at start only, or one that can change while the server runs.
#[derive(Clone, Copy)]
pub enum Setting {
    AtStart(&'static Row<Config>),
    Live(&'static Row<Limits>),
}

impl Setting {
    /// Returns every setting, in the order of `--help` and `--check`.
    pub fn all() -> impl Iterator<Item = Setting> {
        let live = LIMIT_ROWS.iter().chain(SOCKET_ROWS).map(Setting::Live);
        START_ROWS.iter().map(Setting::AtStart).chain(live)
    }

    /// Returns the setting of this name, if there is one.
    pub fn named(name: &str) -> Option<Setting> {
        Setting::all().find(|setting| setting.name() == name)
    }

    /// Returns the texts of its row.
    pub fn about(self) -> &'static About {
        match self {
            Setting::AtStart(row) => &row.about,
            Setting::Live(row) => &row.about,
        }
    }

    /// Returns its name, which flag, file and CONFIG share.
    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// Returns the default in the form that flags have, or in words.
    pub fn default(self) -> String {
        match self.about().follows {
            "" => match shown(self.get(&Config::default())) {
                text if text.is_empty() => "none".into(),
                text => text,
            },
            words => words.into(),
        }
    }

    /// Sets its value from the given texts. An error says which texts are accepted.
    pub fn set(self, config: &mut Config, texts: &[String]) -> Result<(), String> {
        match self {
            Setting::AtStart(row) => (row.set)(config, texts),
            Setting::Live(row) => (row.set)(&mut config.limits, texts),
        }
    }

    /// Returns its value as in a file. `None` when it is unset or secret.
    pub fn get(self, config: &Config) -> Option<Value> {
        match self {
            Setting::AtStart(row) => (row.get)(config),
            Setting::Live(row) => (row.get)(&config.limits),
        }
    }

    /// Returns whether its value is in its range, and the range in words. `None` without a range.
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

/// Why a configuration cannot be used: one line that names the setting and what is accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Fills in the defaults, which follow from the machine, and checks every setting.
    pub fn resolve(self, machine: &Machine) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for setting in Setting::all() {
            match self.texts(setting.name()) {
                Some(texts) => setting
                    .set(&mut config, texts)
                    .map_err(|why| ConfigError(format!("{}: {why}", setting.name())))?,
                None => setting.follow(&mut config),
            }
        }
        config.routes = self.routes();
        let inherited = machine.inherited.as_ref().map_err(|why| ConfigError(why.clone()))?;
        config.inherit(inherited)?;
        config.check()?;
        let is_given = |name| self.texts(name).is_some();
        config.fit_files(machine.files, is_given("max-connections"));
        config.fit_memory(machine, is_given("memory-budget"), is_given("max-connections"));
        // Other defaults depend on the budget.
        Setting::all()
            .filter(|setting| !is_given(setting.name()))
            .for_each(|setting| setting.follow(&mut config));
        if config.admin.is_some() {
            let connections = config.limits.max_connections;
            let least = 2 * RESERVED_SLOTS;
            within("max-connections", connections, least, CONNECTIONS_MAX).map_err(|error| {
                let reserved = format!("; admin reserves {RESERVED_SLOTS} slots for the operator");
                ConfigError(error.0 + &reserved)
            })?;
        }
        config.requirepass = password::REQUIREPASS.resolve(
            config.requirepass,
            config.requirepass_file.as_deref(),
            &mut config.warnings,
        )?;
        if !config.broker.is_empty() {
            let file = config.broker_password_file.as_deref();
            config.broker_password = password::BROKER.resolve(None, file, &mut config.warnings)?;
        } else {
            for (name, is_set) in [
                ("broker-prefix", !config.broker_prefix.0.is_empty()),
                ("broker-password-file", config.broker_password_file.is_some()),
            ] {
                if is_set {
                    config.warnings.push(format!("--{name} has no effect without --broker"));
                }
            }
        }
        if let (None, Some(open)) =
            (&config.requirepass, config.listen.iter().find(|listen| listen.is_open_hub()))
        {
            let warning =
                "no password is set, so only this machine is served; see --requirepass-file";
            config.warnings.push(format!("{open}: {warning}"));
        }
        Ok(config)
    }
}

impl Config {
    /// Checks each setting against its range, and settings that depend on each other.
    fn check(&self) -> Result<(), ConfigError> {
        for setting in Setting::all() {
            if let Some((false, range)) = setting.range(self) {
                let (name, value) = (setting.name(), shown(setting.get(self)));
                let accepted = match name {
                    "low-watermark" => format!("{range} (below high-watermark)"),
                    "output-limit" => format!("{range} (at least twice high-watermark)"),
                    "output-soft-limit" => format!("{range} (up to output-limit)"),
                    _ => range,
                };
                return Err(out_of_range(name, &value, &accepted));
            }
        }
        within("number of listen addresses", self.listen.len(), 1, LISTENERS_MAX)?;
        check_for_twins(&self.listen)?;
        self.check_retained()?;
        if self.routes.adapter().is_some() && self.broker.is_empty() {
            let accepted = "--broker, such as redis://broker.example";
            return Err(ConfigError(format!("socketio: adapter needs a broker; set {accepted}")));
        }
        let Some(admin) = self.admin else { return Ok(()) };
        if !admin.ip().is_loopback() {
            let accepted = "a loopback address, such as 127.0.0.1:9998";
            return Err(out_of_range("admin", &admin.to_string(), accepted));
        }
        let is_twin = |listen: &&Listen| listen.tcp && overlap(listen.address, admin);
        match self.listen.iter().find(is_twin) {
            Some(listen) => Err(ConfigError(format!(
                "listen and admin both name {admin} ({listen}); give each its own port"
            ))),
            None => Ok(()),
        }
    }

    /// Checks the rules of retained values, those of the routes as well.
    fn check_retained(&self) -> Result<(), ConfigError> {
        let routes = self.routes.retained().map(|route| route.channel.as_bytes());
        let routes: BTreeSet<&[u8]> = routes.collect();
        let own = self.retain.iter().map(|rule| rule.channel.as_bytes());
        retain_rule::check(own.chain(routes)).map_err(|why| ConfigError(format!("retain: {why}")))
    }

    /// Returns the settings of the link to a broker, if there is one.
    pub fn broker_settings(&self) -> Option<BrokerSettings> {
        (!self.broker.is_empty()).then(|| BrokerSettings {
            urls: self.broker.clone(),
            prefix: self.broker_prefix.clone(),
            channels: self.broker_channels.clone(),
            password: self.broker_password.clone(),
            max_message: self.limits.max_message,
        })
    }

    /// Returns the configuration as a file. `--check` prints it, and `--config` reads it.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for setting in Setting::all() {
            if let Some(value) = setting.get(self) {
                let _ = writeln!(text, "{} = {value}", setting.name());
            }
        }
        text + self.routes.to_toml()
    }

    /// Returns the settings that differ from `running`: each with its value there, then here.
    pub fn changes(&self, running: &Config) -> Vec<(Setting, String, String)> {
        let changed = Setting::all().filter(|setting| !setting.is_same(self, running));
        changed
            .map(|setting| (setting, shown(setting.get(running)), shown(setting.get(self))))
            .collect()
    }
}

/// Returns true if two listeners cannot have both addresses: they have the same port, and the same
/// address, or one of them all addresses of the machine (0.0.0.0, [::]).
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same = one.ip() == other.ip()
        || one.is_ipv4() == other.is_ipv4()
            && (one.ip().is_unspecified() || other.ip().is_unspecified());
    is_same && one.port() == other.port() && one.port() != 0
}

/// Fails if two listeners share an address and a transport.
fn check_for_twins(listen: &[Listen]) -> Result<(), ConfigError> {
    for (index, one) in listen.iter().enumerate() {
        let shares = |other: &&Listen| (one.tcp && other.tcp) || (one.udp && other.udp);
        if let Some(other) = listen[..index]
            .iter()
            .find(|other| overlap(other.address, one.address) && shares(other))
        {
            return Err(ConfigError(format!(
                "listen names {} twice ({other} and {one}); give each its own port",
                one.address
            )));
        }
    }
    Ok(())
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(out_of_range(name, &value.to_string(), &format!("{least} to {most}")))
}

fn out_of_range(name: &str, value: &str, accepted: &str) -> ConfigError {
    ConfigError(format!("{name} is {value}; accepted: {accepted}"))
}

/// Returns a path for an error, which is one line.
fn shown_path(path: &Path) -> String {
    escape::line(&path.display().to_string()).into_owned()
}

/// The sources of settings. SIGHUP reads them again.
#[derive(Clone, Debug)]
pub struct SettingSources {
    pub flags: Settings,
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The application whose file is read in place of one of `--config`.
    pub demo: Option<Demo>,
}

impl SettingSources {
    /// Reads the file, and resolves both. Fails when the configuration cannot be used.
    pub fn load(&self, machine: &Machine) -> Result<Config, ConfigError> {
        let (mut file, mut warnings) = (Settings::default(), Vec::new());
        if let Some(demo) = self.demo {
            file = Settings::parse(demo.settings(), Path::new(&demo.to_string()))?;
        } else if let Some(path) = self.file.as_deref() {
            let is_open_to_others;
            (file, is_open_to_others) = Settings::read(path)?;
            if file.texts("requirepass").is_some() && is_open_to_others {
                warnings.push(password::open_to_others(path));
            }
        }
        for source in password::SOURCES.iter().filter(|source| source.is_in_environment()) {
            file.forget(source.settings);
        }
        let mut config = self.flags.clone().over(file).resolve(machine).map_err(|error| {
            // The file is at fault if the flags alone are usable.
            let path = self.file.as_deref().filter(|_| self.flags.clone().resolve(machine).is_ok());
            match path {
                Some(path) => ConfigError(format!("config file {}: {error}", shown_path(path))),
                None => error,
            }
        })?;
        config.demo = self.demo;
        config.warnings.append(&mut warnings);
        if self.flags.texts("requirepass").is_some() {
            let warning =
                "--requirepass shows the password in the process list; see --requirepass-file";
            config.warnings.push(warning.into());
        }
        let has_password =
            |text: &String| text.parse().is_ok_and(|url: BrokerUrl| url.password.is_some());
        if self.flags.texts("broker").is_some_and(|texts| texts.iter().any(has_password)) {
            let warning =
                "--broker shows the password in the process list; see --broker-password-file";
            config.warnings.push(warning.into());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::SocketOptions;

    fn parse(toml: &str) -> Result<Settings, ConfigError> {
        Settings::parse(toml, Path::new("slabd.toml"))
    }

    fn resolve(toml: &str) -> Result<Config, ConfigError> {
        parse(toml)?.resolve(&Machine::with_files(20_000))
    }

    #[test]
    fn an_empty_configuration_is_a_hub_on_loopback_with_the_documented_defaults() {
        let config = resolve("").unwrap();
        assert_eq!(config.listen, ["hub=127.0.0.1:9999".parse().unwrap()]);
        let limits = Limits { max_connections: 19_936, ..Limits::default() };
        assert_eq!(config.limits, limits);
        assert_eq!((config.backlog, config.buffers), (4096, BufferMode::Pooled));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn the_routes_of_a_file_are_read_checked_and_written_again() {
        let file = "backlog = 7\n[socketio]\nnamespaces = [\"/chat\"]\n";
        let config = resolve(file).unwrap();
        assert_eq!((config.backlog, config.routes.namespace("/chat")), (7, Some(1)));
        assert!(config.to_toml().ends_with("\n[socketio]\nnamespaces = [\"/chat\"]\n"));
        let again = resolve(&config.to_toml()).unwrap();
        assert_eq!(again.routes, config.routes);
        assert_ne!(again, resolve("backlog = 7").unwrap());
        // Flags have no routes, and leave those of the file.
        let flags = Settings::default().over(parse(file).unwrap());
        assert_eq!(flags.routes(), config.routes);
        let error = resolve("backlog = 7\n[socketio]\n\nnamespace = 5").unwrap_err().to_string();
        let expected = "config file slabd.toml, line 4: socketio: there is no key 'namespace'; \
                        accepted: namespaces, verbs, adapter, on, from";
        assert_eq!(error, expected);
        assert!(resolve("[socketi]").unwrap_err().to_string().contains(", socketio"));
    }

    #[test]
    fn settings_of_a_broker_that_is_not_there_cause_a_warning() {
        let settings = "broker-prefix = \"chat:\"\nbroker-password-file = \"/none\"\n";
        let expected = ["--broker-prefix", "--broker-password-file"]
            .map(|name| format!("{name} has no effect without --broker"));
        assert_eq!(resolve(settings).unwrap().warnings, expected);
        let with = "broker = [\"redis://broker.example\"]\nbroker-prefix = \"chat:\"\n";
        assert!(resolve(with).unwrap().warnings.is_empty());
    }

    #[test]
    fn an_adapter_of_socketio_needs_a_broker() {
        for adapter in ["redis", "python-socketio"] {
            let section = format!("[socketio]\nadapter = \"{adapter}\"\n");
            let error = resolve(&section).unwrap_err().to_string();
            let expected = "socketio: adapter needs a broker; set --broker, such as \
                            redis://broker.example";
            assert_eq!(error, expected);
            let config = resolve(&format!("broker = [\"redis://broker.example\"]\n{section}"));
            assert!(config.unwrap().routes.adapter().is_some());
        }
        let error = resolve("[socketio]\nadapter = \"mongo\"").unwrap_err().to_string();
        let expected = "there is no 'mongo'; accepted: redis, python-socketio";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn a_hub_on_a_public_address_warns_if_it_has_no_password() {
        let open = "listen = [\"hub=0.0.0.0:7\"]";
        let config = resolve(open).unwrap();
        assert!(config.warnings[0].contains("hub=0.0.0.0:7: no password"), "{:?}", config.warnings);
        let config = resolve(&format!("{open}\nrequirepass = \"secret\"")).unwrap();
        assert!(config.warnings.is_empty() && config.requirepass.is_some());
        // Neither `--check` nor a log line shows the password.
        assert!(
            !config.to_toml().contains("secret\"") && !format!("{config:?}").contains("\"secret")
        );
        assert!(resolve(&format!("requirepass = \"{}\"", "x".repeat(512))).is_ok());
        assert!(resolve(&format!("requirepass = \"{}\"", "x".repeat(513))).is_err());
        assert!(
            resolve("requirepass-file = \"/nonexistent\"").unwrap_err().0.contains("/nonexistent")
        );
    }

    #[test]
    fn the_output_of_check_reads_back_as_the_same_configuration() {
        let config = resolve(
            "listen = [\"echo+udp=[::1]:0\", \"discard=0.0.0.0:9\"]\nbuffers = \"fixed:4096\"\n\
             idle-timeout = 0",
        )
        .unwrap();
        assert_eq!(resolve(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = parse("backlog = 7\nmax-line = \"1KiB\"").unwrap();
        let flags = parse("backlog = 9").unwrap();
        let config = flags.over(file).resolve(&Machine::with_files(20_000)).unwrap();
        assert_eq!((config.backlog, config.limits.max_line), (9, 1024));
    }

    #[test]
    fn an_error_names_the_setting_and_the_accepted_values() {
        for (toml, named, accepted) in [
            ("no-such-key = 1", "no-such-key", "max-connections"),
            ("listen = [\"nope=127.0.0.1:1\"]", "nope", "hello, echo, discard, hub"),
            ("listen = [\"hello+sctp=127.0.0.1:1\"]", "sctp", "+tcp and +udp"),
            ("listen = [\"hello=localhost:1\"]", "localhost:1", "expected ADDR:PORT"),
            ("listen = [\"hello=127.0.0.1:65536\"]", "65536", "0 to 65535"),
            ("listen = []", "listen: ", "empty list"),
            ("idle-timeout = true", "idle-timeout: ", "found boolean"),
            ("max-silent = 99999999999", "max-silent", "1 to 65535"),
            ("listen = [\"hello\"]", "hello", "SERVICE=ADDR:PORT"),
            ("idle-timeout = \"5 parsecs\"", "5 parsecs", "ms, s, m, h or d"),
            ("memory-budget = \"1MB\"", "1MB", "KiB"),
            ("buffers = \"fixed:1\"", "fixed:1", "64B to 1MiB"),
            ("buffers = \"some\"", "some", "fixed:4096"),
            ("messages-per-turn = 0", "messages-per-turn", "1 to"),
            ("low-watermark = \"64KiB\"", "low-watermark", "0 to 65535"),
            (
                "listen = [\"echo=127.0.0.1:7\", \"hello+udp=127.0.0.1:7\"]",
                "127.0.0.1:7 twice",
                "hello+udp",
            ),
            ("drain-timeout = 0", "drain-timeout", "1ms or more"),
            ("trusted-sources = \"10.0.0.1/8\"", "10.0.0.1/8", "prefix"),
        ] {
            let ConfigError(message) = resolve(toml).unwrap_err();
            assert!(message.contains(named) && message.contains(accepted), "{toml}: {message}");
        }
    }

    #[test]
    fn an_error_is_one_line_even_if_a_path_has_a_line_break() {
        let error = resolve("requirepass-file = \"/no/such\\nfile\"").unwrap_err();
        assert!(error.0.contains("/no/such\\nfile") && !error.0.contains('\n'), "{error}");
    }

    #[test]
    fn a_limit_is_accepted_at_its_bounds_and_refused_beyond_them() {
        for (toml, fits) in [
            ("max-line = 0", false),
            ("max-line = 1", true),
            ("max-line = 16382", true),
            ("max-line = 16383", false),
            ("memory-budget = 65535", false),
            ("memory-budget = 65536", true),
            ("memory-budget = 65537", true),
            (
                "listen = [\"echo+tcp=127.0.0.1:7\", \"hello+udp=127.0.0.1:7\", \"echo=[::1]:7\"]",
                true,
            ),
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
    fn max_connections_is_lowered_to_the_files_of_the_process_with_a_warning() {
        for (wanted, resolved, warned) in
            [(19_935, 19_935, false), (19_936, 19_936, false), (19_937, 19_936, true)]
        {
            let config = resolve(&format!("max-connections = {wanted}")).unwrap();
            assert_eq!(
                (config.limits.max_connections, !config.warnings.is_empty()),
                (resolved, warned)
            );
        }
    }

    #[test]
    fn changes_tell_live_settings_from_settings_read_at_start() {
        let running = resolve("").unwrap();
        let new = resolve("backlog = 1\nbuffers = \"fixed:64\"\nidle-timeout = \"1s\"").unwrap();
        let changes = new.changes(&running);
        let shown: Vec<_> = changes
            .iter()
            .map(|(setting, old, new)| (setting.name(), &old[..], &new[..]))
            .collect();
        assert_eq!(
            shown,
            [
                ("backlog", "4096", "1"),
                ("buffers", "pooled", "fixed:64"),
                ("idle-timeout", "0", "1s")
            ]
        );
        let live: Vec<_> =
            changes.iter().map(|(setting, ..)| matches!(setting, Setting::Live(_))).collect();
        assert_eq!(live, [false, false, true]);
    }

    #[test]
    fn a_socket_option_is_accepted_at_its_bounds_and_refused_beyond_them() {
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

    /// Ticks wrap, so timeouts are bounded.
    #[test]
    fn a_timeout_of_30_days_is_accepted_and_a_longer_one_is_refused() {
        for time in ["29d", "30d", "2592000"] {
            assert!(resolve(&format!("idle-timeout = \"{time}\"")).is_ok(), "{time}");
        }
        for time in ["31d", "2592000001ms", "2592001"] {
            let error = resolve(&format!("idle-timeout = \"{time}\"")).unwrap_err();
            assert!(error.0.contains("at most 30d"), "{error}");
        }
    }

    #[test]
    fn a_time_without_a_unit_is_in_seconds() {
        let config = resolve("idle-timeout = 5\nmessage-timeout = \"7\"").unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            (config.limits.idle_timeout, config.limits.message_timeout),
            (seconds(5), seconds(7))
        );
    }

    /// Puts a random secret wherever a file can have one, and breaks the file in every way that
    /// people do.
    #[test]
    fn no_error_of_a_file_quotes_a_password() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut errors, mut accepted) = (0, 0);
        for _ in 0..500 {
            let digits = random.bool();
            let letter = |random: &mut fastrand::Rng| match digits {
                true => random.digit(10),
                false => random.alphanumeric(),
            };
            // A text of lower case could be the name of a setting.
            let secret: String =
                (0..random.usize(6..40)).map(|_| letter(&mut random)).collect::<String>() + "7Q";
            let key = random.choice(["requirepass", "requirepas", "password", "REQUIREPASS"]);
            let key = key.unwrap();
            for text in [
                format!("{key} = {secret}"),
                format!("{key} = -{secret}"),
                format!("{key} = \"{secret}"),
                format!("{key} = '{secret}"),
                format!("{key} = \"{secret}\\q\""),
                format!("{key} = \"\\{secret}\""),
                format!("{key} = \"{secret}\" \"{secret}\""),
                format!("{key} = [\"{secret}\"]"),
                format!("{key} = [{secret}]"),
                format!("{key} = {{ {secret} = 1 }}"),
                format!("{key} = \"\"\"{secret}"),
                format!("{key}: {secret}"),
                format!("{key} {secret}"),
                format!("{key}.{secret} = 1"),
                format!("{key} = 1.{secret}e5"),
                format!("{key} = 0x{secret}"),
                format!("{key} = 2026-{secret}"),
                format!("[{key}]\n{secret} = 1"),
                format!("[{secret}]\n{key} = 1\n[{secret}]"),
                format!("{secret} = \"{key}\"\n{secret} = 1"),
                format!("{secret} = 1"),
                secret.to_string(),
                format!("{key} = \"{secret}\"\n{key} = \"{secret}\""),
                format!("requirepass = \"{secret}\"\nrequirepass-file = \"file\""),
                format!("requirepass = \"{secret}\"\nlow-watermark = \"1GiB\""),
                format!("requirepass = \"{}\"", secret.repeat(100)),
                format!("requirepass = \"{secret}\"\nbacklog = 0"),
                format!("broker = [\"redis://u:{secret}@host:x\"]"),
                format!("broker = [\"redis://host\", \"{secret}\"]"),
                format!("broker = \"redis://u:{secret}@host\""),
                format!("broker = [\"redis://u:{secret}@host\"]\nbacklog = 0"),
                format!("broker = [\"rediss://u:{secret}@host\"]"),
                format!("brokers = [\"redis://u:{secret}@host\"]"),
            ] {
                // Some letters happen to be an escape.
                let Err(ConfigError(error)) = resolve(&text) else {
                    accepted += 1;
                    continue;
                };
                errors += 1;
                assert!(!error.contains(&secret), "{text}: {error}");
                assert!(!error.contains('\n') && error.len() < 4000, "{error}");
            }
        }
        assert!(accepted < errors / 50, "{accepted} of the wrong files were accepted");
    }

    #[test]
    fn a_broker_is_shown_without_its_password_and_read_again() {
        let config = resolve("").unwrap();
        assert_eq!((config.broker_settings(), config.broker_password.clone()), (None, None));
        assert!(!config.to_toml().contains("broker ="));
        let file = "broker = [\"redis://u:S3cret@a/1\", \"redis+sentinel://b,c/m\"]\n\
                    broker-prefix = \"app:\"\nbroker-channels = [\"news.*\", \"chat\"]";
        let config = resolve(file).unwrap();
        let text = config.to_toml();
        for line in [
            "broker = [\"redis://u@a:6379/1\", \"redis+sentinel://b:26379,c:26379/m/0\"]\n",
            "broker-prefix = \"app:\"\n",
            "broker-channels = [\"news.*\", \"chat\"]\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("S3cret") && !format!("{config:?}").contains("S3cret"));
        let mut again = resolve(&text).unwrap();
        again.broker[0].password = config.broker[0].password.clone();
        assert_eq!(again, config);
        let settings = config.broker_settings().unwrap();
        assert_eq!((settings.urls.len(), &*settings.prefix.0), (2, "app:"));
        assert_eq!(settings.max_message, config.limits.max_message);
        let changes = config.changes(&resolve("").unwrap());
        assert!(changes.iter().all(|(_, old, new)| !format!("{old}{new}").contains("S3cret")));
    }

    #[test]
    fn a_file_gives_the_password_of_the_broker() {
        let path = std::env::temp_dir().join(format!("slabd-broker-{}", std::process::id()));
        std::fs::write(&path, "S3cret\nmore").unwrap();
        let file = format!("broker-password-file = \"{}\"", path.display());
        // Without a broker, the file is not even read.
        assert_eq!(
            resolve("broker-password-file = \"/nonexistent\"").unwrap().broker_password,
            None
        );
        let config = resolve(&format!("broker = [\"redis://a\"]\n{file}")).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(config.broker_password, Some(Secret(b"S3cret"[..].into())));
        let error = resolve("broker = [\"redis://a\"]\nbroker-password-file = \"/nonexistent\"");
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("cannot use broker-password-file /nonexistent: "), "{error}");
    }

    #[test]
    fn a_file_gives_the_password_in_one_way() {
        let both = "requirepass = \"a\"\nrequirepass-file = \"/nonexistent\"";
        let error = resolve(both).unwrap_err();
        assert!(error.0.ends_with("are both set; give one of them"), "{error}");
    }

    /// Two settings can give the password, but there is only one password.
    #[test]
    fn a_password_from_the_flags_wins_over_one_from_the_file() {
        for (flags, file) in [
            ("requirepass-file = \"/nonexistent\"", "requirepass = \"secret\""),
            ("requirepass = \"secret\"", "requirepass-file = \"/nonexistent\""),
        ] {
            let settings = parse(flags).unwrap().over(parse(file).unwrap());
            assert_eq!(
                settings.resolve(&Machine::with_files(20_000)).is_ok(),
                flags.contains("secret"),
                "{flags}"
            );
        }
    }

    #[test]
    fn every_setting_has_help_a_unique_name_and_a_default_in_its_range() {
        let config = resolve("").unwrap();
        let mut names: Vec<_> = Setting::all().map(Setting::name).collect();
        for setting in Setting::all() {
            assert!(!setting.about().help().is_empty(), "{}", setting.name());
            assert_ne!(
                setting.range(&config).map(|(fits, _)| fits),
                Some(false),
                "{}",
                setting.name()
            );
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

//! What a run is to do: the command line, resolved and checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::args::{ShapeName, StressArgs};
use super::flags;
use super::pace::Arrivals;
use super::target::{Scheme, Target};
use crate::limits::{CONNECTIONS_MAX, DATAGRAM_MAX_V4};
use crate::memory;
use crate::units::Span;

/// The longest run: nothing that loads or floods goes on for ever.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Requests on their way at once on one connection.
pub const PIPELINE_MAX: usize = 10_000;

/// Bytes of payload: what the generator keeps ready for each place in the pipeline.
pub const SIZE_MAX: usize = 1 << 20;

/// Nothing is waited for longer, and no slow peer is slower: what is done but once an hour is not done in a run.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Honest requests a second: each takes a connection of its own, and more would be a load, which is what churn is for.
pub const PROBE_RATE_MAX: f64 = 10_000.0;

/// Honest requests dialled in one turn, before answers are looked for again.
pub const PROBES_PER_TURN: usize = 64;

/// Honest requests on their way at once. At the default rate and timeout a server that answers nothing keeps 100
/// waiting; many more would be a flood of their own.
pub const PROBES_IN_FLIGHT_MAX: usize = 256;

/// How long is probed before and after a flood.
pub const BEFORE: Duration = Duration::from_secs(2);
pub const AFTER: Duration = Duration::from_secs(5);

/// Sockets that datagrams are sent from; their number is one byte of a token.
pub const SOCKETS_MAX: usize = 64;

/// Digits of a datagram's number.
pub const NUMBER_DIGITS: usize = 16;

/// Without `--send` a datagram is its number, at least one byte of payload, and the end of a line.
pub const DATAGRAM_MIN: usize = NUMBER_DIGITS + 2;

/// Messages of a fan-out on their way at once.
pub const IN_FLIGHT_MAX: usize = 1_000_000;

/// Bytes that peers which do not read may have to say together: what the server does not take waits in this process.
pub const UNREAD_MAX: usize = 512 << 20;

/// Files that are open beside the connections: the program's own; and connections that are closed at the end of a turn in which as many
/// as may connect at once (100) are dialled already.
const OWN_FILES: u64 = 64;
const CLOSING_FILES: u64 = 256;

/// Connections of one source address, where it can be chosen: as many as servers commonly let one source have.
const CONNECTIONS_PER_SOURCE: usize = 50;

/// A network of 127.0.0.0/8 has more, but a server's table of sources does not.
const SOURCES_MAX: usize = 1 << 16;

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub shape: ShapeName,
    pub connections: usize,
    pub duration: Duration,
    /// Requests in all, where they bound the run.
    pub requests: Option<u64>,
    pub pipeline: usize,
    /// Requests a second; `None`: a closed loop.
    pub rate: Option<f64>,
    pub arrivals: Arrivals,
    /// Bytes of payload in a request or a message.
    pub size: usize,
    pub send: Option<Vec<u8>>,
    /// Connects a second.
    pub connect_rate: Option<f64>,
    pub sources: Vec<IpAddr>,
    pub timeout: Duration,
    pub target_p99: Duration,
    /// Of a fan-out.
    pub messages: u64,
    pub in_flight: usize,
    pub channel: String,
    /// Honest requests a second beside a flood.
    pub probe_rate: f64,
    /// Between two bytes of a slow peer.
    pub drip: Duration,
    pub pid: Option<u32>,
    pub seed: u64,
}

impl Plan {
    /// A plan with every default, for a shape and a target.
    pub fn of(shape: &str, target: &str) -> Result<Plan, String> {
        Plan::resolve(&StressArgs { words: vec![shape.into(), target.into()], ..StressArgs::default() })
    }

    pub fn resolve(args: &StressArgs) -> Result<Plan, String> {
        let (shape, target) = shape_and_target(&args.words)?;
        let target = Target::parse(target)?;
        let connections = args.connections.unwrap_or(match shape {
            ShapeName::Ping | ShapeName::Search | ShapeName::Churn | ShapeName::Rst => 50,
            ShapeName::Hold | ShapeName::Fanout => 1000,
            _ => 2000,
        });
        // Nothing else goes over it.
        let is_udp = target.scheme == Scheme::Udp && shape == ShapeName::Ping;
        within("connections", connections, 1, if is_udp { SOCKETS_MAX } else { CONNECTIONS_MAX })?;
        let pipeline = args.pipeline.unwrap_or(1);
        within("pipeline", pipeline, 1, PIPELINE_MAX)?;
        let in_flight = args.in_flight.unwrap_or(1);
        within("in-flight", in_flight, 1, IN_FLIGHT_MAX)?;
        let size = args.size.map_or(
            match shape {
                ShapeName::Fanout => 64,
                // Answers that fill buffers.
                ShapeName::SlowRead | ShapeName::ZeroWindow => 16 * 1024,
                _ if is_udp => DATAGRAM_MIN,
                _ => 3,
            },
            |size| size.0,
        );
        match is_udp {
            // A datagram holds its number, and is one packet of IP.
            true => within("size", size, DATAGRAM_MIN, DATAGRAM_MAX_V4)?,
            false => within("size", size, 1, SIZE_MAX)?,
        }
        // Of a search it is the length of one trial.
        let seconds = match shape {
            ShapeName::Search => 2,
            // It ends with its messages.
            ShapeName::Fanout => 3600,
            _ => 10,
        };
        let duration = span(args.duration, Duration::from_secs(seconds));
        spans("duration", duration, DURATION_MAX)?;
        let (timeout, drip) = (span(args.timeout, Duration::from_secs(5)), span(args.drip, Duration::from_secs(1)));
        spans("timeout", timeout, WAIT_MAX)?;
        spans("drip", drip, WAIT_MAX)?;
        if args.requests == Some(0) {
            return Err("requests is 0: without one there is nothing to measure".into());
        }
        args.pid.map_or(Ok(()), has_memory)?;
        let plan = Plan {
            shape,
            connections,
            duration,
            requests: args.requests,
            pipeline,
            rate: rate("rate", args.rate)?,
            arrivals: if args.poisson { Arrivals::Poisson } else { Arrivals::Even },
            size,
            send: args.send.as_deref().map(unescape).transpose()?,
            connect_rate: rate("connect-rate", args.connect_rate)?,
            sources: sources(args, &target, connections)?,
            timeout,
            target_p99: span(args.target_p99, Duration::from_millis(5)),
            messages: args.messages.unwrap_or(100),
            in_flight,
            channel: args.channel.clone().unwrap_or_else(|| "slabd-stress".into()),
            probe_rate: probe_rate(args.probe_rate)?,
            drip,
            pid: args.pid,
            seed: args.seed.unwrap_or(1),
            target,
        };
        plan.check(args.i_am_allowed_to_test.as_deref())?;
        flags::check(args, plan.shape, plan.target.scheme)?;
        Ok(plan)
    }

    /// What does not go together.
    fn check(&self, allowed: Option<&str>) -> Result<(), String> {
        let (shape, scheme) = (self.shape, self.target.scheme);
        if scheme == Scheme::Udp && shape != ShapeName::Ping {
            return Err(format!("{} needs connections: over udp:// there is ping", shape.name()));
        }
        if shape == ShapeName::Fanout && scheme != Scheme::Resp {
            return Err("fanout subscribes and publishes, which needs resp://".into());
        }
        if shape == ShapeName::Announce && !matches!(scheme, Scheme::Resp | Scheme::Http) {
            return Err("announce needs a protocol with lengths: resp:// or http://".into());
        }
        let is_unread = matches!(shape, ShapeName::SlowRead | ShapeName::ZeroWindow);
        if is_unread && self.size.saturating_mul(self.connections) > UNREAD_MAX {
            return Err(format!(
                "{} connections with requests of {} bytes: accepted are {UNREAD_MAX} bytes together, which wait here while nobody reads them",
                self.connections, self.size
            ));
        }
        if self.pipeline > 1 && (self.rate.is_some() || shape == ShapeName::Search) {
            return Err("a pipeline belongs to the closed loop: at a rate each request goes out when it is due".into());
        }
        if shape.is_flood() && !self.target.is_loopback() {
            let is_named = allowed.is_some_and(|host| {
                let port = self.target.address.port();
                host == self.target.host.rsplit_once(':').map_or(self.target.host.as_str(), |(name, _)| name)
                    || (host, port).to_socket_addrs().is_ok_and(|mut found| found.any(|one| one == self.target.address))
            });
            if !is_named {
                return Err(format!(
                    "{} floods: a target other than this machine must be named by --i-am-allowed-to-test {}",
                    shape.name(),
                    self.target.address.ip()
                ));
            }
        }
        Ok(())
    }

    /// The parameters in force, by the names of their flags: what the report shows.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        let mut show = |name: &str, value: String| drop(shown.insert(name.to_string(), value));
        show("connections", self.connections.to_string());
        show("duration", Span(self.duration).to_string());
        show("timeout", Span(self.timeout).to_string());
        show("size", self.size.to_string());
        show("sources", self.sources.len().max(1).to_string());
        if self.pipeline > 1 {
            show("pipeline", self.pipeline.to_string());
        }
        if let Some(requests) = self.requests {
            show("requests", requests.to_string());
        }
        if let Some(rate) = self.rate {
            show("rate", rate.to_string());
            show("arrivals", if self.arrivals == Arrivals::Poisson { "poisson" } else { "even" }.into());
        }
        if let Some(rate) = self.connect_rate {
            show("connect-rate", rate.to_string());
        }
        if let Some(send) = &self.send {
            show("send", send.escape_ascii().to_string());
        }
        match self.shape {
            ShapeName::Search => show("target-p99", Span(self.target_p99).to_string()),
            ShapeName::Fanout => {
                show("messages", self.messages.to_string());
                show("in-flight", self.in_flight.to_string());
            }
            shape if shape.is_flood() => {
                show("probe-rate", self.probe_rate.to_string());
                if flags::drips(shape) {
                    show("drip", Span(self.drip).to_string());
                }
            }
            _ => {}
        }
        shown
    }

    /// About how long the run takes, for the progress bar.
    pub fn expected(&self) -> Duration {
        match self.shape {
            // Up to here some ten trials.
            ShapeName::Search => self.duration * 10,
            ShapeName::Hold => self.duration + Duration::from_secs(2),
            shape if shape.is_flood() => self.duration + BEFORE + AFTER,
            _ => self.duration,
        }
    }

    /// Whether requests are due by the clock.
    pub fn is_paced(&self) -> bool {
        self.rate.is_some() || self.shape == ShapeName::Search
    }

    /// Files that the run may have open at once.
    pub fn files(&self) -> u64 {
        let probes = if self.shape.is_flood() { PROBES_IN_FLIGHT_MAX + PROBES_PER_TURN } else { 0 };
        self.connections as u64 + probes as u64 + CLOSING_FILES + OWN_FILES
    }
}

fn probe_rate(given: Option<f64>) -> Result<f64, String> {
    let rate = given.unwrap_or(20.0);
    match (0.01..=PROBE_RATE_MAX).contains(&rate) {
        true => Ok(rate),
        false => Err(format!("probe-rate is {rate}: accepted are 0.01 to {PROBE_RATE_MAX} a second")),
    }
}

/// That there is such a process, and that it may be looked into.
fn has_memory(pid: u32) -> Result<(), String> {
    match (memory::started_at(pid), memory::resident_bytes_of(pid)) {
        (_, Some(_)) => Ok(()),
        (None, _) => Err(format!("pid is {pid}: there is no such process")),
        (Some(_), None) => {
            Err(format!("pid is {pid}: the memory of that process cannot be read; it may be another user's"))
        }
    }
}

/// A span that is neither nothing nor for ever.
fn spans(name: &str, value: Duration, most: Duration) -> Result<(), String> {
    match value.is_zero() || value > most {
        true => Err(format!("{name} is {}: accepted are 1us to {}", Span(value), Span(most))),
        false => Ok(()),
    }
}

/// What is given without a flag: a target, alone for a ping, or on either side of a shape.
fn shape_and_target(words: &[String]) -> Result<(ShapeName, &String), String> {
    let is_target = |word: &String| word.contains("://");
    Ok(match words {
        [only] if !is_target(only) && ShapeName::parse(only).is_ok() => {
            return Err(format!("{only} needs a target: slabd stress {only} resp://127.0.0.1:6379"));
        }
        [only] => (ShapeName::Ping, only),
        [one, other] if is_target(one) && is_target(other) => return Err("expected one target at a time".into()),
        [one, other] if one.contains("://") => (ShapeName::parse(other)?, one),
        [one, other] => (ShapeName::parse(one)?, other),
        _ => {
            return Err("expected a target, or a shape and a target: slabd stress ping resp://127.0.0.1:6379".into());
        }
    })
}

fn span(given: Option<Span>, default: Duration) -> Duration {
    given.map_or(default, |Span(time)| time)
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("{name} is {value}: accepted are {least} to {most}")),
    }
}

fn rate(name: &str, given: Option<f64>) -> Result<Option<f64>, String> {
    match given {
        Some(rate) if !(rate.is_finite() && (0.01..=1e8).contains(&rate)) => {
            Err(format!("{name} is {rate}: accepted are 0.01 to 100000000 a second"))
        }
        rate => Ok(rate),
    }
}

/// From where to connect: addresses given, or on this machine as many of 127.0.0.0/8 as the connections need.
fn sources(args: &StressArgs, target: &Target, connections: usize) -> Result<Vec<IpAddr>, String> {
    if !args.source.is_empty() {
        if let Some(other) = args.source.iter().find(|source| source.is_ipv4() != target.address.is_ipv4()) {
            return Err(format!("source {other} is of another family than the target {}", target.address));
        }
        return Ok(args.source.clone());
    }
    let is_loopback = matches!(target.address, SocketAddr::V4(v4) if v4.ip().is_loopback());
    match args.sources {
        Some(_) if !is_loopback => {
            Err("sources counts addresses of 127.0.0.0/8, for a target there; elsewhere name them by --source".into())
        }
        Some(count) => {
            within("sources", count, 1, SOURCES_MAX)?;
            Ok(loopback_sources(count))
        }
        None if is_loopback => Ok(loopback_sources(connections.div_ceil(CONNECTIONS_PER_SOURCE).min(SOURCES_MAX))),
        None => Ok(Vec::new()),
    }
}

/// So many addresses of this machine: 127.0.0.1, the only one that Redis counts as its own (protected mode), then from 127.1.0.1 on.
pub fn loopback_sources(count: usize) -> Vec<IpAddr> {
    let others = (0..).map(|index| Ipv4Addr::from(0x7f01_0001 + index));
    std::iter::once(Ipv4Addr::LOCALHOST).chain(others).take(count).map(IpAddr::V4).collect()
}

/// `\r`, `\n`, `\t`, `\\`, `\0` and `\xHH` stand for what they usually do.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let wrong = |what: &str| format!("send: {what} stands for nothing; accepted are \\r \\n \\t \\0 \\\\ and \\xHH");
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                if digits.len() < 2 {
                    return Err(wrong("\\x"));
                }
                let digits = std::str::from_utf8(&digits).map_err(|_| wrong("\\x"))?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong(&format!("\\x{digits}")))?
            }
            Some(other) => return Err(wrong(&format!("\\{}", other.escape_ascii()))),
            None => return Err(wrong("a single \\ at the end")),
        });
    }
    match out.is_empty() {
        true => Err("send is empty".into()),
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(words: &[&str], change: impl FnOnce(&mut StressArgs)) -> Result<Plan, String> {
        let mut args =
            StressArgs { words: words.iter().map(|word| word.to_string()).collect(), ..StressArgs::default() };
        change(&mut args);
        Plan::resolve(&args)
    }

    #[test]
    fn a_target_alone_is_pinged_and_the_shape_may_stand_on_either_side() {
        assert_eq!(resolve(&["resp://127.0.0.1"], |_| {}).unwrap().shape, ShapeName::Ping);
        for words in [["hold", "tcp://127.0.0.1:9"], ["tcp://127.0.0.1:9", "hold"]] {
            let plan = resolve(&words, |args| args.connections = Some(15_000)).unwrap();
            assert_eq!((plan.shape, plan.connections, plan.sources.len()), (ShapeName::Hold, 15_000, 300));
            assert!(plan.sources.iter().all(|source| source.is_loopback()));
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_with_what_can() {
        type Change = fn(&mut StressArgs);
        let cases: [(&[&str], Change, &str); 16] = [
            (&["hodl", "tcp://127.0.0.1:9"], |_| {}, "hold, ping"),
            (&[], |_| {}, "expected a target"),
            (&["hold"], |_| {}, "hold needs a target"),
            (&["tcp://127.0.0.1:9", "tcp://127.0.0.1:9"], |_| {}, "one target at a time"),
            (&["hold", "udp://127.0.0.1:9"], |_| {}, "there is ping"),
            (&["fanout", "tcp://127.0.0.1:9"], |_| {}, "resp://"),
            (&["announce", "tcp://127.0.0.1:9"], |_| {}, "lengths"),
            (&["hold", "tcp://127.0.0.1:9"], |args| args.rate = Some(9.0), "no rate"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.rate = Some(0.0), "accepted are"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.connections = Some(0), "1 to"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.timeout = Some(Span(Duration::ZERO)), "1us to"),
            (&["silent", "tcp://192.0.2.1:9"], |_| {}, "--i-am-allowed-to-test 192.0.2.1"),
            (
                &["silent", "tcp://192.0.2.1:9"],
                |args| args.i_am_allowed_to_test = Some("192.0.2.2".into()),
                "192.0.2.1",
            ),
            (&["ping", "tcp://192.0.2.1:9"], |args| args.sources = Some(3), "--source"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.send = Some("a\\q".into()), "\\xHH"),
            (
                &["ping", "tcp://127.0.0.1:9"],
                |args| (args.rate, args.pipeline) = (Some(1.0), Some(2)),
                "when it is due",
            ),
        ];
        for (words, change, why) in cases {
            let error = resolve(words, change).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
        }
        let named =
            resolve(&["silent", "tcp://192.0.2.1:9"], |args| args.i_am_allowed_to_test = Some("192.0.2.1".into()));
        assert!(named.is_ok());
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape("a\\r\\n\\x00\\xfF\\\\").unwrap(), b"a\r\n\0\xff\\");
        for wrong in ["", "\\", "\\x", "\\x1", "\\xzz"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}

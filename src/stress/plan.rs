//! The plan of a run: the command line with its defaults filled in, checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use super::args::{ShapeName, StressArgs, TransportName, unescape};
use super::flags::{self, within};
use super::input;
use super::pace::Arrivals;
use super::protocols;
use super::publish;
use super::request::HttpRequest;
use super::sources;
use super::target::{Scheme, Target, without_secret};
use crate::limits::{CONNECTIONS_MAX, DATAGRAM_MAX_V4};
use crate::memory;
use crate::units::{Size, Span};

/// Longest duration of a load. It ends a flood that was forgotten.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of requests in flight at once on one connection.
pub const PIPELINE_MAX: usize = 10_000;

/// Maximum length of a payload, in bytes.
pub const SIZE_MAX: usize = 1 << 20;

/// Maximum length of a full pipeline in bytes. The generator keeps one copy of it.
pub const PIPELINE_BYTES_MAX: usize = 256 << 20;

/// Longest timeout, and longest pause of a slow client.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Maximum number of honest requests per second. Each opens a connection, so more would be a load,
/// which is what churn is for.
pub const PROBE_RATE_MAX: f64 = 10_000.0;

/// The least and the greatest number of requests or connects per second that a flag accepts.
const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e8;

/// Maximum number of honest requests started in one turn, before the loop polls for answers again.
pub const PROBES_PER_TURN: usize = 64;

/// Maximum number of honest requests in flight at once. At the default rate and timeout, a server
/// that never answers keeps 100 waiting. Many more would be another flood.
pub const PROBES_IN_FLIGHT_MAX: usize = 256;

/// Maximum number of couriers at once: connections that each carry a post of a client that polls.
pub const COURIERS_MAX: usize = 64;

/// Duration of the honest requests before a flood.
pub const BEFORE: Duration = Duration::from_secs(2);
/// Duration of the honest requests after a flood.
pub const AFTER: Duration = Duration::from_secs(5);

/// Maximum number of sockets that send datagrams. A token has one byte for the socket's number.
pub const SOCKETS_MAX: usize = 64;

/// Number of hexadecimal digits at the front of a payload that is to be echoed. They are the number
/// of its connection, because a channel sends each message to all its subscribers.
pub const MESSAGE_DIGITS: usize = 8;

/// Number of hexadecimal digits of a datagram's number.
pub const NUMBER_DIGITS: usize = 16;

/// Length of the shortest datagram without `--send`, in bytes: its number, one byte of payload, and
/// a line end.
pub const DATAGRAM_MIN: usize = NUMBER_DIGITS + 2;

/// Maximum number of messages of a fan-out in flight at once.
pub const IN_FLIGHT_MAX: usize = 1_000_000;

/// Maximum number of messages of a fan-out in all. Their numbers have 32 bits.
const MESSAGES_MAX: u64 = u32::MAX as u64;

/// Maximum number of bytes that the clients of slow-read and zero-window may send together. This
/// process buffers them while the server does not read.
pub const UNREAD_MAX: usize = 512 << 20;

/// Number of files that the program may have open beside its connections.
const OWN_FILES: u64 = 64;

/// Maximum number of closed connections that still hold a file. They are freed at the end of a
/// turn, in which up to 100 new ones may already have been dialled.
const CLOSING_FILES: u64 = 256;

/// A checked description of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub shape: ShapeName,
    pub connections: usize,
    pub duration: Duration,
    /// Number of requests that ends the run.
    pub requests: Option<u64>,
    pub pipeline: usize,
    /// Requests per second; `None` is a closed loop.
    pub rate: Option<f64>,
    pub arrivals: Arrivals,
    /// Bytes of payload in a request or a message.
    pub size: usize,
    pub send: Option<Vec<u8>>,
    /// Method, headers and body over http://.
    pub request: HttpRequest,
    /// How the packets of Socket.IO travel.
    pub transport: TransportName,
    /// Connects per second; `None` is as fast as the server accepts.
    pub connect_rate: Option<f64>,
    pub sources: Vec<IpAddr>,
    pub timeout: Duration,
    pub target_p99: Duration,
    /// Messages of a fan-out.
    pub messages: u64,
    pub in_flight: usize,
    pub channel: String,
    /// The URL at which a fan-out of events publishes.
    pub publish: Option<Target>,
    /// Honest requests per second beside a flood.
    pub probe_rate: f64,
    /// Pause between two bytes of a slow client.
    pub drip: Duration,
    pub pid: Option<u32>,
    pub seed: u64,
}

impl Plan {
    /// Returns a plan with every default, for a shape and a target.
    pub fn of(shape: &str, target: &str) -> Result<Plan, String> {
        Plan::resolve(&StressArgs {
            words: vec![shape.into(), target.into()],
            ..StressArgs::default()
        })
    }

    /// Fills in defaults and checks every value. The error is one line for the user.
    pub fn resolve(args: &StressArgs) -> Result<Plan, String> {
        let (shape, target) = shape_and_target(&args.words)?;
        let mut target = Target::parse(target)?;
        flags::check(args, shape, target.scheme)?;
        input::add_password(&mut target, args.password_file.as_deref())?;
        let timeout = span("timeout", args.timeout, 5000, WAIT_MAX)?;
        target.choose(timeout, |address| sources::can_reach(args, address));
        let connections = args.connections.unwrap_or(match shape {
            ShapeName::Ping | ShapeName::Search | ShapeName::Churn | ShapeName::Rst => 50,
            ShapeName::Hold | ShapeName::Fanout => 1000,
            _ => 2000,
        });
        let is_udp = target.scheme == Scheme::Udp && shape == ShapeName::Ping;
        let connections_max = if is_udp { SOCKETS_MAX } else { CONNECTIONS_MAX };
        within("connections", connections as u64, 1, connections_max as u64, 50)?;
        let pipeline = args.pipeline.unwrap_or(1);
        within("pipeline", pipeline as u64, 1, PIPELINE_MAX as u64, 16)?;
        let in_flight = args.in_flight.unwrap_or(1);
        within("in-flight", in_flight as u64, 1, IN_FLIGHT_MAX as u64, 4)?;
        let messages = args.messages.unwrap_or(100);
        within("messages", messages, 1, MESSAGES_MAX, 100)?;
        within("requests", args.requests.unwrap_or(1), 1, u64::MAX, 10_000)?;
        // search: the length of one trial. fanout: a bound, because it ends with its messages.
        let seconds = match shape {
            ShapeName::Search => 2,
            ShapeName::Fanout => 3600,
            _ => 10,
        };
        let duration = span("duration", args.duration, seconds * 1000, DURATION_MAX)?;
        args.pid.map_or(Ok(()), has_memory)?;
        let plan = Plan {
            shape,
            connections,
            duration,
            requests: args.requests,
            pipeline,
            rate: rate("rate", args.rate)?,
            arrivals: if args.poisson { Arrivals::Poisson } else { Arrivals::Even },
            size: size(args, shape, target.scheme)?,
            send: args.send.as_deref().map(unescape).transpose()?,
            request: HttpRequest::new(args.method.as_deref(), &args.header, args.body.as_deref())?,
            transport: args.transport.unwrap_or_default(),
            connect_rate: rate("connect-rate", args.connect_rate)?,
            sources: sources::choose(args, &target, connections)?,
            timeout,
            target_p99: span("target-p99", args.target_p99, 5, WAIT_MAX)?,
            messages,
            in_flight,
            channel: channel(args.channel.as_deref())?,
            publish: publish::target(args, shape, &target, timeout)?,
            probe_rate: bounded_rate(
                "probe-rate",
                args.probe_rate.unwrap_or(20.0),
                PROBE_RATE_MAX,
            )?,
            drip: span("drip", args.drip, 1000, WAIT_MAX)?,
            pid: args.pid,
            seed: args.seed.unwrap_or(1),
            target,
        };
        plan.check(args.i_am_allowed_to_test.as_deref())?;
        Ok(plan)
    }

    /// Fails on a combination of shape, scheme and values that cannot run.
    fn check(&self, allowed: Option<&str>) -> Result<(), String> {
        protocols::check(self.shape, &self.target, self.transport, self.send.as_deref())?;
        let (shape, name) = (self.shape, self.shape.name());
        let is_unread = matches!(shape, ShapeName::SlowRead | ShapeName::ZeroWindow);
        if is_unread && self.size.saturating_mul(self.connections) > UNREAD_MAX {
            return Err(format!(
                "{name}: {} connections with requests of {} bytes exceed the buffers of this \
                 process; accepted: at most {} together, such as --connections {}",
                self.connections,
                self.size,
                Size(UNREAD_MAX),
                UNREAD_MAX / self.size
            ));
        }
        let request = match (&self.send, self.target.scheme) {
            (Some(request), _) => request.len(),
            (None, Scheme::Http) => self.request.bytes(&self.target).len(),
            (None, _) => self.size,
        };
        if request.saturating_mul(self.pipeline) > PIPELINE_BYTES_MAX {
            return Err(format!(
                "--pipeline: {} requests of {request} bytes are too many; accepted: up to {} \
                 together, such as --pipeline {}",
                self.pipeline,
                Size(PIPELINE_BYTES_MAX),
                PIPELINE_BYTES_MAX / request
            ));
        }
        if self.pipeline > 1 && self.rate.is_some() {
            return Err(
                "--pipeline and --rate exclude each other: at a rate, each request is sent \
                when it is due; leave one of them out"
                    .into(),
            );
        }
        if shape.is_flood() && !self.target.is_loopback() {
            let is_named = allowed.is_some_and(|host| {
                let port = self.target.address.port();
                host == self.target.name()
                    || (host, port)
                        .to_socket_addrs()
                        .is_ok_and(|mut found| found.any(|one| one == self.target.address))
            });
            if !is_named {
                return Err(format!(
                    "{name} is a flood, and {} is not this machine; if you may attack it, \
                     confirm with --i-am-allowed-to-test {0}",
                    self.target.address.ip()
                ));
            }
        }
        Ok(())
    }

    /// Returns the parameters in force by the names of their flags, for the report.
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
            show(
                "arrivals",
                if self.arrivals == Arrivals::Poisson { "poisson" } else { "even" }.into(),
            );
        }
        if let Some(rate) = self.connect_rate {
            show("connect-rate", rate.to_string());
        }
        if let Some(send) = &self.send {
            show("send", send.escape_ascii().to_string());
        }
        if self.target.scheme == Scheme::SocketIo {
            show("transport", self.transport.name().into());
        }
        if let Some(publish) = &self.publish {
            show("publish", publish.to_string());
        }
        for (name, value) in self.request.parameters() {
            show(name, value);
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

    /// Returns about how long the run takes, for the progress bar.
    pub fn expected(&self) -> Duration {
        match self.shape {
            // A search makes about ten trials.
            ShapeName::Search => self.duration * 10,
            ShapeName::Hold => self.duration + Duration::from_secs(2),
            shape if shape.is_flood() => self.duration + BEFORE + AFTER,
            _ => self.duration,
        }
    }

    /// True if requests are due by the clock.
    pub fn is_paced(&self) -> bool {
        self.rate.is_some() || self.shape == ShapeName::Search
    }

    /// Returns the number of files that the run may have open at once.
    pub fn files(&self) -> u64 {
        let probes = if self.shape.is_flood() { PROBES_IN_FLIGHT_MAX + PROBES_PER_TURN } else { 0 };
        let couriers = if self.transport == TransportName::Polling { COURIERS_MAX } else { 0 };
        self.connections as u64 + (probes + couriers) as u64 + CLOSING_FILES + OWN_FILES
    }
}

/// Fails unless the process exists and its memory can be read.
fn has_memory(pid: u32) -> Result<(), String> {
    match (memory::started_at(pid), memory::resident_bytes_of(pid)) {
        (_, Some(_)) => Ok(()),
        (None, _) => Err(format!(
            "--pid: there is no process {pid}; expected the server's, such as $(pidof redis-server)"
        )),
        (Some(_), None) => Err(format!(
            "--pid: the memory of process {pid} cannot be read; expected a process of your own user"
        )),
    }
}

/// Finds the shape and the target among the words, in either order. A target alone means ping.
fn shape_and_target(words: &[String]) -> Result<(ShapeName, &String), String> {
    let is_target = |word: &String| word.contains("://");
    Ok(match words {
        [only] if !is_target(only) && ShapeName::parse(only).is_ok() => {
            return Err(format!(
                "{only} needs a target, as in: slabd stress {only} resp://127.0.0.1:6379"
            ));
        }
        [only] => (ShapeName::Ping, only),
        [one, other] if is_target(one) && is_target(other) => {
            return Err(format!(
                "{0} {1}: two targets; expected one, as in: slabd stress ping {0}",
                without_secret(one),
                without_secret(other)
            ));
        }
        [one, other] if is_target(one) => (ShapeName::parse(other)?, one),
        [one, other] => (ShapeName::parse(one)?, other),
        _ => {
            let given = match words {
                [] => "no target".into(),
                words => {
                    let words: Vec<String> =
                        words.iter().map(|word| without_secret(word)).collect();
                    format!("{}: too many words", words.join(" "))
                }
            };
            return Err(format!(
                "{given}; expected a target, or a shape and a target, as in: \
                 slabd stress ping resp://127.0.0.1:6379"
            ));
        }
    })
}

/// Returns the given time, or the default in milliseconds. Fails on 0 and on more than `most`.
fn span(
    name: &str,
    given: Option<Span>,
    default_ms: u64,
    most: Duration,
) -> Result<Duration, String> {
    let value = given.map_or(Duration::from_millis(default_ms), |Span(time)| time);
    match value.is_zero() || value > most {
        true => Err(format!(
            "--{name}: {} is out of range; accepted: 1us to {}, such as {}",
            Span(value),
            Span(most),
            Span(Duration::from_millis(default_ms))
        )),
        false => Ok(value),
    }
}

fn rate(name: &str, given: Option<f64>) -> Result<Option<f64>, String> {
    given.map(|rate| bounded_rate(name, rate, RATE_MAX)).transpose()
}

fn bounded_rate(name: &str, rate: f64, most: f64) -> Result<f64, String> {
    match (RATE_MIN..=most).contains(&rate) {
        true => Ok(rate),
        false => Err(format!(
            "--{name}: {rate} per second is out of range; accepted: {RATE_MIN} to {most}, \
             such as 20"
        )),
    }
}

fn size(args: &StressArgs, shape: ShapeName, scheme: Scheme) -> Result<usize, String> {
    let is_udp = scheme == Scheme::Udp;
    // An echo over WebSocket contains the number of its connection.
    let is_echoed = scheme == Scheme::WebSocket && shape.sends_messages();
    let default = match shape {
        ShapeName::Fanout => 64,
        // Large answers fill the server's send buffers.
        ShapeName::SlowRead | ShapeName::ZeroWindow => 16 * 1024,
        _ if is_udp => DATAGRAM_MIN,
        _ if is_echoed => 2 * MESSAGE_DIGITS,
        _ => 3,
    };
    let size = args.size.map_or(default, |size| size.0);
    let (least, most) = match shape {
        // A datagram contains its number and fits one IP packet.
        _ if is_udp => (DATAGRAM_MIN, DATAGRAM_MAX_V4),
        _ if is_echoed => (MESSAGE_DIGITS, SIZE_MAX),
        _ => (1, SIZE_MAX),
    };
    within("size", size as u64, least as u64, most as u64, 64)?;
    Ok(size)
}

fn channel(given: Option<&str>) -> Result<String, String> {
    match given {
        Some("") => Err("--channel: the name is empty; expected a name, such as news".into()),
        given => Ok(given.unwrap_or("slabd-stress").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(words: &[&str], change: impl FnOnce(&mut StressArgs)) -> Result<Plan, String> {
        let mut args = StressArgs {
            words: words.iter().map(|word| word.to_string()).collect(),
            ..StressArgs::default()
        };
        change(&mut args);
        Plan::resolve(&args)
    }

    #[test]
    fn a_target_alone_is_pinged_and_the_shape_may_be_first_or_second() {
        assert_eq!(resolve(&["resp://127.0.0.1"], |_| {}).unwrap().shape, ShapeName::Ping);
        for words in [["hold", "tcp://127.0.0.1:9"], ["tcp://127.0.0.1:9", "hold"]] {
            let plan = resolve(&words, |args| args.connections = Some(15_000)).unwrap();
            assert_eq!(
                (plan.shape, plan.connections, plan.sources.len()),
                (ShapeName::Hold, 15_000, 300)
            );
            assert!(plan.sources.iter().all(|source| source.is_loopback()));
        }
    }

    #[test]
    fn an_unusable_plan_is_refused_with_the_reason() {
        type Change = fn(&mut StressArgs);
        let cases: [(&[&str], Change, &str); 24] = [
            (&["hodl", "tcp://127.0.0.1:9"], |_| {}, "ping, search, hold"),
            (&[], |_| {}, "expected a target"),
            (&["hold"], |_| {}, "hold needs a target"),
            (&["tcp://127.0.0.1:9", "tcp://127.0.0.1:9"], |_| {}, "two targets"),
            (&["hold", "udp://127.0.0.1:9"], |_| {}, "or the shape ping"),
            (&["fanout", "tcp://127.0.0.1:9"], |_| {}, "resp://"),
            (&["announce", "tcp://127.0.0.1:9"], |_| {}, "lengths"),
            (&["ping", "sse+http://127.0.0.1:9/"], |_| {}, "the shape hold or fanout"),
            (&["fanout", "sse+http://127.0.0.1:9/a"], |_| {}, "--publish http://127.0.0.1:9/PATH"),
            (
                &["fanout", "sse+http://127.0.0.1:9/a"],
                |args| args.publish = Some("ws://127.0.0.1:9/x".into()),
                "--publish: ws://127.0.0.1:9/x takes no POST",
            ),
            (
                &["fanout", "sse+http://127.0.0.1:9/a"],
                |args| args.publish = Some("x".into()),
                "--publish: target x: no scheme",
            ),
            (
                &["fanout", "ws://127.0.0.1:9/a"],
                |args| args.publish = Some("http://127.0.0.1:9/x".into()),
                "--publish does nothing in fanout over ws://",
            ),
            (
                &["fanout", "ws://127.0.0.1:9/a"],
                |args| args.channel = Some("x".into()),
                "--channel does nothing in fanout over ws://",
            ),
            (&["ping", "ws://127.0.0.1:9/a"], |args| args.size = Some(Size(7)), "accepted: 8 to"),
            (
                &["hold", "ws://127.0.0.1:9/a"],
                |args| args.size = Some(Size(8)),
                "--size does nothing in hold over ws://",
            ),
            (&["hold", "tcp://127.0.0.1:9"], |args| args.rate = Some(9.0), "send at a rate"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.rate = Some(0.0), "accepted: 0.01 to"),
            (&["ping", "tcp://127.0.0.1:9"], |args| args.connections = Some(0), "accepted: 1 to"),
            (
                &["ping", "tcp://127.0.0.1:9"],
                |args| args.timeout = Some(Span(Duration::ZERO)),
                "1us to",
            ),
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
        let named = resolve(&["silent", "tcp://192.0.2.1:9"], |args| {
            args.i_am_allowed_to_test = Some("192.0.2.1".into())
        });
        assert!(named.is_ok());
    }
}

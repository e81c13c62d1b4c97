//! The flags that have an effect on a load. Any other flag is an error, because its user expects
//! one.

use super::args::{ShapeName, StressArgs};
use super::target::Scheme;

use ShapeName::{Churn, Fanout, Ping, Search};

/// The properties of a load that decide which flags have an effect.
struct GivenLoad<'a> {
    args: &'a StressArgs,
    shape: ShapeName,
    scheme: Scheme,
}

impl GivenLoad<'_> {
    fn has_rate(&self) -> bool {
        self.args.rate.is_some()
    }

    /// True if the load makes whole requests of HTTP from their parts.
    fn makes_requests(&self) -> bool {
        self.scheme == Scheme::Http && self.args.send.is_none()
    }

    /// True if a connection begins with the head of a request of HTTP.
    fn makes_heads(&self) -> bool {
        matches!(self.scheme, Scheme::WebSocket | Scheme::SocketIo | Scheme::Events)
            || self.makes_requests()
    }
}

/// A flag, the loads on which it has an effect, and the reason why it has none elsewhere.
struct Rule {
    flag: &'static str,
    is_given: fn(&StressArgs) -> bool,
    has_effect: fn(&GivenLoad) -> bool,
    reason: &'static str,
}

/// The reason why a part of an HTTP request has no effect.
const REQUEST_PART: &str = "it is a part of a request over http:// that --send does not give whole";

const RULES: [Rule; 26] = [
    Rule {
        flag: "--requests",
        is_given: |args| args.requests.is_some(),
        has_effect: |load| matches!(load.shape, Ping | Churn),
        reason: "only ping and churn end after a number of requests",
    },
    Rule {
        flag: "--pipeline",
        is_given: |args| args.pipeline.is_some(),
        has_effect: |load| load.shape == Ping,
        reason: "only ping sends several requests at once on a connection",
    },
    Rule {
        flag: "--rate",
        is_given: |args| args.rate.is_some(),
        has_effect: |load| matches!(load.shape, Ping | Fanout | Churn),
        reason: "only ping, fanout and churn send at a rate",
    },
    Rule {
        flag: "--poisson",
        is_given: |args| args.poisson,
        has_effect: |load| load.shape == Search || (load.has_rate() && load.shape != Churn),
        reason: "it spreads the requests of search, or those of ping and fanout at a --rate",
    },
    Rule {
        flag: "--seed",
        is_given: |args| args.seed.is_some(),
        has_effect: |load| load.args.poisson,
        reason: "only the intervals of --poisson are random",
    },
    Rule {
        flag: "--size",
        is_given: |args| args.size.is_some(),
        has_effect: |load| load.args.send.is_none(),
        reason: "--send already gives the whole request",
    },
    Rule {
        flag: "--size",
        is_given: |args| args.size.is_some(),
        has_effect: |load| load.scheme != Scheme::Http,
        reason: "over http:// give a payload with --body",
    },
    Rule {
        flag: "--size",
        is_given: |args| args.size.is_some(),
        has_effect: |load| load.scheme != Scheme::WebSocket || load.shape.sends_messages(),
        reason: "over ws:// its requests are pings; give a message with --send",
    },
    Rule {
        flag: "--size",
        is_given: |args| args.size.is_some(),
        has_effect: |load| load.scheme != Scheme::Events || load.shape == Fanout,
        reason: "over sse+http:// only fanout sends messages",
    },
    Rule {
        flag: "--send",
        is_given: |args| args.send.is_some(),
        has_effect: |load| load.scheme != Scheme::Events,
        reason: "a stream of events takes no requests",
    },
    Rule {
        flag: "--send",
        is_given: |args| args.send.is_some(),
        has_effect: |load| load.shape != Fanout,
        reason: "fanout makes its own messages; give their size with --size",
    },
    Rule {
        flag: "--transport",
        is_given: |args| args.transport.is_some(),
        has_effect: |load| load.scheme == Scheme::SocketIo,
        reason: "only Socket.IO has several transports",
    },
    Rule {
        flag: "--method",
        is_given: |args| args.method.is_some(),
        has_effect: |load| load.makes_requests(),
        reason: REQUEST_PART,
    },
    Rule {
        flag: "--body",
        is_given: |args| args.body.is_some(),
        has_effect: |load| load.makes_requests(),
        reason: REQUEST_PART,
    },
    Rule {
        flag: "--header",
        is_given: |args| !args.header.is_empty(),
        has_effect: |load| load.makes_heads(),
        reason: "it is a part of a request over http:// that --send does not give whole, of an \
            upgrade over ws://, or of a request of socketio:// or sse+http://",
    },
    Rule {
        flag: "--password-file",
        is_given: |args| args.password_file.is_some(),
        has_effect: |load| load.scheme == Scheme::Resp || load.makes_heads(),
        reason: "only resp://, ws://, socketio://, sse+http://, and http:// without --send, log in",
    },
    Rule {
        flag: "--connect-rate",
        is_given: |args| args.connect_rate.is_some(),
        has_effect: |load| load.scheme != Scheme::Udp,
        reason: "datagrams need no connect",
    },
    Rule {
        flag: "--connect-rate",
        is_given: |args| args.connect_rate.is_some(),
        has_effect: |load| !(load.shape == Churn && load.has_rate()),
        reason: "the --rate of churn already counts connects per second",
    },
    Rule {
        flag: "--messages",
        is_given: |args| args.messages.is_some(),
        has_effect: |load| load.shape == Fanout,
        reason: "only fanout publishes messages",
    },
    Rule {
        flag: "--channel",
        is_given: |args| args.channel.is_some(),
        has_effect: |load| match load.scheme {
            Scheme::SocketIo => load.args.send.is_none(),
            scheme => load.shape == Fanout && scheme == Scheme::Resp,
        },
        reason: "only fanout over resp:// and socketio:// without --send use a channel that the \
            target does not name",
    },
    Rule {
        flag: "--publish",
        is_given: |args| args.publish.is_some(),
        has_effect: |load| load.shape == Fanout && load.scheme == Scheme::Events,
        reason: "only fanout over sse+http:// publishes at another URL",
    },
    Rule {
        flag: "--in-flight",
        is_given: |args| args.in_flight.is_some(),
        has_effect: |load| load.shape == Fanout,
        reason: "only fanout publishes messages",
    },
    Rule {
        flag: "--in-flight",
        is_given: |args| args.in_flight.is_some(),
        has_effect: |load| !load.has_rate(),
        reason: "at a --rate each message is published when it is due",
    },
    Rule {
        flag: "--drip",
        is_given: |args| args.drip.is_some(),
        has_effect: |load| drips(load.shape),
        reason: "only slowloris, slow-read and announce pause between bytes",
    },
    Rule {
        flag: "--probe-rate",
        is_given: |args| args.probe_rate.is_some(),
        has_effect: |load| load.shape.is_flood(),
        reason: "only floods have honest requests beside them",
    },
    Rule {
        flag: "--target-p99",
        is_given: |args| args.target_p99.is_some(),
        has_effect: |load| load.shape == Search,
        reason: "only search looks for a rate that meets a target",
    },
];

/// Fails with the first given flag that has no effect on this load.
pub fn check(args: &StressArgs, shape: ShapeName, scheme: Scheme) -> Result<(), String> {
    let load = GivenLoad { args, shape, scheme };
    match RULES.iter().find(|rule| (rule.is_given)(args) && !(rule.has_effect)(&load)) {
        None => Ok(()),
        Some(Rule { flag, reason, .. }) => Err(format!(
            "{flag} does nothing in {} over {}://: {reason}; leave it out",
            shape.name(),
            scheme.name()
        )),
    }
}

/// True for the shapes that send or read a little at a time.
pub fn drips(shape: ShapeName) -> bool {
    matches!(shape, ShapeName::Slowloris | ShapeName::SlowRead | ShapeName::Announce)
}

/// Fails if `compare` got a flag other than those of its report.
pub fn check_compare(args: &StressArgs) -> Result<(), String> {
    let accepted = StressArgs {
        words: args.words.clone(),
        html: args.html.clone(),
        quiet: args.quiet,
        ..StressArgs::default()
    };
    match accepted == *args {
        true => Ok(()),
        false => Err("compare takes two JSON files and no flags but --html and --quiet, as in: \
            slabd stress compare A.json B.json --html AB.html"
            .into()),
    }
}

/// Fails unless a flag's value is in its range.
pub(super) fn within(
    name: &str,
    value: u64,
    least: u64,
    most: u64,
    example: u64,
) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!(
            "--{name}: {value} is out of range; accepted: {least} to {most}, such as {example}"
        )),
    }
}

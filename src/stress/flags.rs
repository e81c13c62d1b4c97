//! Which flags mean something for which shape of load. One that would do nothing is refused: who gave it expects that it did.

use super::args::{ShapeName, StressArgs};
use super::target::Scheme;

/// Refuses the first flag that would do nothing.
pub fn check(args: &StressArgs, shape: ShapeName, scheme: Scheme) -> Result<(), String> {
    use ShapeName::*;
    let at_rate = args.rate.is_some();
    let is_fanout = shape == Fanout;
    // The flag, whether it was given, whether it means something here, and where it does.
    let flags = [
        (
            "--requests",
            args.requests.is_some(),
            matches!(shape, Ping | Churn),
            "ping and churn end after a number of requests",
        ),
        ("--pipeline", args.pipeline.is_some(), matches!(shape, Ping | Search), "it belongs to ping"),
        ("--rate", at_rate, matches!(shape, Ping | Fanout | Churn), "this shape has no rate of requests"),
        (
            "--poisson",
            args.poisson,
            shape == Search || (at_rate && shape != Churn),
            "it spreads the requests of a --rate",
        ),
        ("--seed", args.seed.is_some(), args.poisson, "nothing is random but the times of --poisson"),
        ("--size", args.size.is_some(), args.send.is_none(), "--send is sent as it is"),
        ("--size", args.size.is_some(), scheme != Scheme::Http, "a request over http:// is a GET without a body"),
        ("--send", args.send.is_some(), !is_fanout, "fanout publishes messages of its own"),
        ("--connect-rate", args.connect_rate.is_some(), scheme != Scheme::Udp, "over udp:// nothing is connected"),
        (
            "--connect-rate",
            args.connect_rate.is_some(),
            !(shape == Churn && at_rate),
            "the --rate of churn is connects a second",
        ),
        ("--messages", args.messages.is_some(), is_fanout, "it belongs to fanout"),
        ("--channel", args.channel.is_some(), is_fanout, "it belongs to fanout"),
        ("--in-flight", args.in_flight.is_some(), is_fanout, "it belongs to fanout"),
        ("--in-flight", args.in_flight.is_some(), !at_rate, "at a --rate each message goes out when it is due"),
        ("--drip", args.drip.is_some(), drips(shape), "it belongs to slowloris, slow-read and announce"),
        ("--probe-rate", args.probe_rate.is_some(), shape.is_flood(), "honest requests go beside a flood"),
        ("--target-p99", args.target_p99.is_some(), shape == Search, "it belongs to search"),
    ];
    match flags.into_iter().find(|(_, is_given, does_something, _)| *is_given && !does_something) {
        Some((flag, _, _, why)) => {
            Err(format!("{flag} does nothing in {} over {}: {why}", shape.name(), scheme.name()))
        }
        None => Ok(()),
    }
}

/// Of a shape, whether it does something slowly.
pub fn drips(shape: ShapeName) -> bool {
    matches!(shape, ShapeName::Slowloris | ShapeName::SlowRead | ShapeName::Announce)
}

/// Comparing two results takes no flags but those of its own report.
pub fn check_compare(args: &StressArgs) -> Result<(), String> {
    let only =
        StressArgs { words: args.words.clone(), html: args.html.clone(), quiet: args.quiet, ..StressArgs::default() };
    match only == *args {
        true => Ok(()),
        false => Err("compare takes two JSON files and no flags but --html and --quiet".into()),
    }
}

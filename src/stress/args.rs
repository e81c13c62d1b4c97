//! The words and flags of `slabd stress`, as they are given.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::units::{Size, Span};

#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(after_help = "Shapes of load: ping (the default), hold, search, fanout, churn.\n\
    Floods: silent, slowloris, slow-read, zero-window, announce, rst, vanish; with honest requests beside them.\n\
    Targets: tcp://HOST:PORT, udp://HOST:PORT, resp://[:PASSWORD@]HOST[:PORT], http://HOST[:PORT]/PATH.\n\
    Of a name with several addresses the first is taken.\n\
    Two results: slabd stress compare A.json B.json\n\n\
    Exit code: 0, or 1 when a bound did not hold or nothing could be measured, 2 for a wrong command line.")]
pub struct StressArgs {
    /// A shape and a target; or `compare` and two JSON files
    #[arg(value_name = "[SHAPE] TARGET", num_args = 0..=3)]
    pub words: Vec<String>,

    /// Connections at once: 50, or more for shapes that hold them. Over udp:// sockets to send from, 64 at most
    #[arg(short, long, value_name = "COUNT")]
    pub connections: Option<usize>,

    /// How long the load is on, such as 30s; of a search, each trial [10s; of a search 2s]
    #[arg(short, long, value_name = "TIME")]
    pub duration: Option<Span>,

    /// ping, churn: end after so many requests
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub requests: Option<u64>,

    /// ping: requests on their way at once on each connection [1]
    #[arg(short = 'P', long, value_name = "COUNT")]
    pub pipeline: Option<usize>,

    /// Requests a second, due by the clock whatever the server does; without it each answer brings the next request. Of churn: connects a
    /// second
    #[arg(short, long, value_name = "PER SECOND", value_parser = per_second)]
    pub rate: Option<f64>,

    /// Spread the requests of a rate as they come from many independent users, not evenly
    #[arg(long)]
    pub poisson: bool,

    /// Bytes of payload [3; of a fan-out 64, of slow-read and zero-window 16KiB; of a datagram, with its number, 18]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,

    /// Send this instead: \r \n \t \0 \\ and \xHH are understood. Over tcp:// the answer is a line; over udp:// {seq} is replaced by a
    /// number, which the answer must hold
    #[arg(long, value_name = "TEXT")]
    pub send: Option<String>,

    /// Connects a second [as fast as they are accepted]
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    pub connect_rate: Option<f64>,

    /// Addresses of 127.0.0.0/8 to connect from, for a target there [one for 50 connections]
    #[arg(long, value_name = "COUNT")]
    pub sources: Option<usize>,

    /// Connect from this address; may be repeated
    #[arg(long, value_name = "ADDRESS", conflicts_with = "sources")]
    pub source: Vec<IpAddr>,

    /// Give up a connect or a request after this time [5s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,

    /// search: the highest rate whose 99th percentile is not above this [5ms]
    #[arg(long, value_name = "TIME")]
    pub target_p99: Option<Span>,

    /// fanout: messages to publish [100]
    #[arg(long, value_name = "COUNT")]
    pub messages: Option<u64>,

    /// fanout: messages on their way at once [1]
    #[arg(long, value_name = "COUNT")]
    pub in_flight: Option<usize>,

    /// fanout: the channel [slabd-stress]
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,

    /// Floods: honest requests a second, each on a connection of its own [20]
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    pub probe_rate: Option<f64>,

    /// slowloris, announce: time between two bytes; slow-read: between two sips of 16 bytes [1s]
    #[arg(long, value_name = "TIME")]
    pub drip: Option<Span>,

    /// The server's process, for its memory; found by its port when it is on this machine
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Must hold, else the exit code is 1: 'p99<5ms', 'errors=0', 'rate>=100k' and others; may be repeated
    #[arg(long = "assert", value_name = "BOUND")]
    pub bounds: Vec<String>,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the distribution of times to this file, as HdrHistogram's plotters read it
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,

    /// Write a page with plots to this file; it needs no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// No progress, only the report
    #[arg(short, long)]
    pub quiet: bool,

    /// A flood against a host other than this machine must name it here, too
    #[arg(long, value_name = "HOST")]
    pub i_am_allowed_to_test: Option<String>,

    /// Of what is random in --poisson [1]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

/// A shape of load or of a flood, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeName {
    Hold,
    Ping,
    Search,
    Fanout,
    Churn,
    Silent,
    Slowloris,
    SlowRead,
    ZeroWindow,
    Announce,
    Rst,
    Vanish,
}

impl ShapeName {
    pub const ALL: [(&'static str, ShapeName); 12] = [
        ("hold", ShapeName::Hold),
        ("ping", ShapeName::Ping),
        ("search", ShapeName::Search),
        ("fanout", ShapeName::Fanout),
        ("churn", ShapeName::Churn),
        ("silent", ShapeName::Silent),
        ("slowloris", ShapeName::Slowloris),
        ("slow-read", ShapeName::SlowRead),
        ("zero-window", ShapeName::ZeroWindow),
        ("announce", ShapeName::Announce),
        ("rst", ShapeName::Rst),
        ("vanish", ShapeName::Vanish),
    ];

    pub fn name(self) -> &'static str {
        ShapeName::ALL.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    pub fn parse(text: &str) -> Result<ShapeName, String> {
        let found = ShapeName::ALL.iter().find(|(name, _)| *name == text).map(|(_, shape)| *shape);
        found.ok_or_else(|| {
            let names: Vec<&str> = ShapeName::ALL.iter().map(|(name, _)| *name).collect();
            format!("{text} is no shape of load: accepted are {}", names.join(", "))
        })
    }

    /// One that holds connections without using them, or spoils them.
    pub fn is_flood(self) -> bool {
        !matches!(self, ShapeName::Hold | ShapeName::Ping | ShapeName::Search | ShapeName::Fanout | ShapeName::Churn)
    }
}

/// A number a second, which may be told in thousands or millions.
fn per_second(text: &str) -> Result<f64, String> {
    let (digits, worth) = match text.strip_suffix(['k', 'M']) {
        Some(digits) if text.ends_with('k') => (digits, 1e3),
        Some(digits) => (digits, 1e6),
        None => (text, 1.0),
    };
    let number: Option<f64> = digits.parse().ok();
    number.map(|number| number * worth).ok_or_else(|| "expected a number a second, such as 20000 or 20k".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_and_without_a_unit() {
        for (text, rate) in [("20000", 20_000.0), ("20k", 20_000.0), ("0.5", 0.5), ("1.5M", 1_500_000.0)] {
            assert_eq!(per_second(text), Ok(rate));
        }
        for text in ["", "k", "20K", "20 k", "fast"] {
            assert!(per_second(text).unwrap_err().contains("20k"), "{text}");
        }
    }
}

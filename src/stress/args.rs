//! The words and flags of `slabd stress`, as the user gives them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::units::{Size, Span};

const SHAPES: &str = "\
Shapes of load:
  ping         requests and answers on open connections; the default
  search       the highest rate of requests whose 99th percentile meets a target
  hold         opens connections and keeps them; reports what each costs the server
  churn        opens a connection for each request, and closes it after the answer
  fanout       subscribes many connections to a channel and publishes to it (resp://, ws://,
               socketio://, sse+http://)

Floods, each with honest requests beside it:
  silent       connections that never send a byte, or over ws:// nothing after the upgrade
  half-request connections that send half of a request, or of an upgrade, and then nothing
  slowloris    requests that arrive a byte at a time and never end; over ws:// messages in
               fragments of one byte
  slow-read    clients that read their answers 16 bytes at a time
  zero-window  clients that send requests and never read the answers
  announce     requests that announce a great length and then trickle: 512 MiB over resp://, and
               1 MiB, which common servers accept, over http:// and ws://
  rst          clients that send a request and reset the connection at once
  vanish       clients that disappear without closing their connections
  sids         over socketio://: requests with guessed ids of sessions
  unpolled     over socketio:// by polling: clients that connect and never poll again
  half-upgrade over socketio:// by polling: upgrades to WebSocket that are never completed

Targets:
  resp://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]   Redis, Valkey or slabd; port 6379
  redis://, valkey://                               the same
  http://[USER:PASSWORD@]HOST[:PORT]/PATH?QUERY     HTTP/1.1; port 80
  ws://[USER:PASSWORD@]HOST[:PORT]/PATH?QUERY       WebSocket: a server that echoes or broadcasts
                                                    messages, or any with --send; port 80
  socketio://[USER:PASSWORD@]HOST[:PORT][/NAMESPACE] Socket.IO, at /socket.io/ of the host; a server
                                                    with slabd's events subscribe and publish, or
                                                    any with --send; port 80
  sse+http://[USER:PASSWORD@]HOST[:PORT]/PATH?QUERY server-sent events; for hold and fanout; port 80
  tcp://HOST:PORT                                   a server that echoes lines, or any with --send
  udp://HOST:PORT                                   a server that echoes datagrams; only for ping
The addresses of a name are tried in turn; the first with a server is used, and the report names it.
Other users of the machine can read a password in a URL: take it from --password-file, or from the
environment variable SLABD_STRESS_PASSWORD. Neither shows in a report or an error.

Examples:
  slabd stress resp://127.0.0.1:6379
  slabd stress hold http://127.0.0.1:8080/ -c 15000
  slabd stress fanout ws://127.0.0.1:9999/ws/news -c 10000
  slabd stress churn socketio://127.0.0.1:9999 --transport polling
  slabd stress ping resp://127.0.0.1:6379 --rate 20000 --assert 'p99<5ms'
  slabd stress silent resp://127.0.0.1:6379 -c 10000
  slabd stress compare A.json B.json

A TIME is a number of seconds, or has a unit: us, ms, s, m, h or d, as in 500ms.
A SIZE is a number of bytes, or has a unit: B, KiB, MiB or GiB, as in 16KiB.
A number PER SECOND may end with k or M, as in 20k.
No TIME, SIZE, COUNT or number PER SECOND may be 0.

Exit code: 0 if the run was measured and every bound held, 1 if not, 2 for a wrong command line.";

const LOAD: &str = "Load";
const ADDRESSES: &str = "Where connections come from";
const SPECIAL: &str = "For some shapes only";
const RESULTS: &str = "Results";

#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(after_help = SHAPES)]
pub struct StressArgs {
    /// A shape of load and a target, in either order. A target alone is pinged.
    /// Or the word compare and two files that --json wrote.
    #[arg(value_name = "[SHAPE] TARGET", num_args = 0.., verbatim_doc_comment)]
    pub words: Vec<String>,

    /// Number of connections at once. Over udp://, number of sockets that send, at most 64.
    /// [default: 50 for ping, search, churn and rst; 1000 for hold and fanout; else 2000]
    #[arg(short, long, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(help_heading = LOAD, allow_negative_numbers = true, verbatim_doc_comment)]
    pub connections: Option<usize>,

    /// Duration of the load. search: duration of each trial. fanout: maximum duration.
    /// [default: 10s; 2s for search; 1h for fanout, which ends with its messages]
    #[arg(short, long, value_name = "TIME", allow_negative_numbers = true)]
    #[arg(help_heading = LOAD, verbatim_doc_comment)]
    pub duration: Option<Span>,

    /// ping, churn: number of requests after which the load ends. [default: no limit]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = count::<u64>)]
    #[arg(help_heading = LOAD, allow_negative_numbers = true)]
    pub requests: Option<u64>,

    /// ping: requests in flight at once on each connection; not together with --rate.
    /// [default: 1]
    #[arg(short = 'P', long, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(help_heading = LOAD, allow_negative_numbers = true, verbatim_doc_comment)]
    pub pipeline: Option<usize>,

    /// ping, fanout, churn: requests, messages or connects per second. They are due by the clock,
    /// however slow the server is, and each time counts from the moment the request was due.
    /// [default: no rate; each answer triggers the next request]
    #[arg(short, long, value_name = "PER SECOND", value_parser = per_second)]
    #[arg(help_heading = LOAD, allow_negative_numbers = true, verbatim_doc_comment)]
    pub rate: Option<f64>,

    /// Send the requests of a rate at random intervals, as many independent users would.
    /// [default: even intervals]
    #[arg(long, help_heading = LOAD, verbatim_doc_comment)]
    pub poisson: bool,

    /// Seed of --poisson. The same seed gives the same intervals. [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = count::<u64>)]
    #[arg(help_heading = LOAD, allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// Payload of a request or message, in bytes; over http:// requests have none.
    /// [default: 3; 64 for fanout; 16KiB for slow-read and zero-window; 16 over ws://; 18 over
    /// udp://]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    #[arg(help_heading = LOAD, verbatim_doc_comment)]
    pub size: Option<Size>,

    /// Bytes to send as each request, with the escapes \r \n \t \0 \\ and \xHH, as in PING\r\n.
    /// The answer is then one line over tcp://, and one message over ws://. Over udp:// each {seq}
    /// becomes a number of 16 digits, which the answer must contain. Over socketio:// it is an
    /// event with its arguments, as in ["chat","hi"], and its acknowledgement is the answer.
    /// [default: a request of the target's protocol]
    #[arg(long, value_name = "TEXT", help_heading = LOAD, verbatim_doc_comment)]
    pub send: Option<String>,

    /// socketio://: how packets travel, websocket or polling. [default: websocket]
    #[arg(long, value_name = "NAME", value_parser = transport, help_heading = LOAD)]
    pub transport: Option<TransportName>,

    /// http://: method of each request. [default: GET; POST with --body]
    #[arg(long, value_name = "NAME", help_heading = LOAD)]
    pub method: Option<String>,

    /// http://, ws://, socketio://, sse+http://: header of each request, as in 'Accept: text/html'.
    /// Give the flag again for each further header. A given Host or Authorization takes the place
    /// of the usual one.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", help_heading = LOAD, verbatim_doc_comment)]
    pub header: Vec<String>,

    /// http://: body of each request, at most 16 MiB, or @ and the name of a file that has it.
    #[arg(long, value_name = "TEXT|@FILE", help_heading = LOAD, allow_hyphen_values = true)]
    pub body: Option<String>,

    /// resp://, http://, ws://, socketio://, sse+http://: file whose first line is the password of
    /// the target's user.
    /// [default: the environment variable SLABD_STRESS_PASSWORD, if the target has none]
    #[arg(long, value_name = "FILE", value_parser = file())]
    #[arg(help_heading = LOAD, verbatim_doc_comment)]
    pub password_file: Option<PathBuf>,

    /// Time after which a connect or a request counts as failed. [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = LOAD, allow_negative_numbers = true)]
    pub timeout: Option<Span>,

    /// Connects per second. [default: as fast as the server accepts]
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    #[arg(help_heading = ADDRESSES, allow_negative_numbers = true)]
    pub connect_rate: Option<f64>,

    /// Number of addresses of 127.0.0.0/8 to connect from, for a target on this machine.
    /// [default: one per 50 connections]
    #[arg(long, value_name = "COUNT", value_parser = count::<usize>, allow_negative_numbers = true)]
    #[arg(help_heading = ADDRESSES, verbatim_doc_comment)]
    pub sources: Option<usize>,

    /// Address to connect from, such as 192.0.2.7. Give the flag again for each further address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "sources", value_parser = address)]
    #[arg(help_heading = ADDRESSES)]
    pub source: Vec<IpAddr>,

    /// search: highest 99th percentile that a rate may have to count as held. [default: 5ms]
    #[arg(long, value_name = "TIME", help_heading = SPECIAL, allow_negative_numbers = true)]
    pub target_p99: Option<Span>,

    /// fanout: number of messages to publish. [default: 100]
    #[arg(long, value_name = "COUNT", value_parser = count::<u64>)]
    #[arg(help_heading = SPECIAL, allow_negative_numbers = true)]
    pub messages: Option<u64>,

    /// fanout: messages in flight at once; not together with --rate. [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = count::<usize>, allow_negative_numbers = true)]
    #[arg(help_heading = SPECIAL)]
    pub in_flight: Option<usize>,

    /// fanout over resp://, and socketio://: name of the channel that clients join. Requests over
    /// socketio:// are publishes to a channel of this name and -unread.
    /// [default: slabd-stress]
    #[arg(long, value_name = "NAME", help_heading = SPECIAL, verbatim_doc_comment)]
    pub channel: Option<String>,

    /// fanout, sse+http://: URL to publish at by POST, as in http://127.0.0.1:8080/pub?id=news.
    /// [default: /publish/CHANNEL of the target's host, for a target /events/CHANNEL]
    #[arg(long, value_name = "URL", help_heading = SPECIAL, verbatim_doc_comment)]
    pub publish: Option<String>,

    /// Floods: honest requests per second, each on a new connection. [default: 20]
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    #[arg(help_heading = SPECIAL, allow_negative_numbers = true)]
    pub probe_rate: Option<f64>,

    /// slowloris, announce: time between two bytes. slow-read: time between reads of 16 bytes.
    /// [default: 1s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    #[arg(help_heading = SPECIAL, verbatim_doc_comment)]
    pub drip: Option<Span>,

    /// Host of the target. Permits a flood against it although it is not this machine.
    #[arg(long, value_name = "HOST", help_heading = SPECIAL)]
    pub i_am_allowed_to_test: Option<String>,

    /// Process whose memory is measured as the server's.
    /// [default: the one that listens on the target's port, if it is on this machine]
    #[arg(long, value_name = "PID", value_parser = process, allow_negative_numbers = true)]
    #[arg(help_heading = RESULTS, verbatim_doc_comment)]
    pub pid: Option<u32>,

    /// Bound that the run must keep, else the exit code is 1: a metric, one of < <= > >= =, and a
    /// limit, as in 'p99<5ms', 'errors=0' or 'user-bytes<96'. Give the flag again for each bound.
    #[arg(long = "assert", value_name = "BOUND", help_heading = RESULTS, verbatim_doc_comment)]
    pub bounds: Vec<String>,

    /// File to write all results to, as JSON; compare reads two of these.
    #[arg(long, value_name = "FILE", value_parser = file(), help_heading = RESULTS)]
    pub json: Option<PathBuf>,

    /// File to write the distribution of request times to, for HdrHistogram's plotters.
    #[arg(long, value_name = "FILE", value_parser = file(), help_heading = RESULTS)]
    pub hdr: Option<PathBuf>,

    /// File to write the report to as an HTML page with plots; it loads nothing from the network.
    #[arg(long, value_name = "FILE", value_parser = file(), help_heading = RESULTS)]
    pub html: Option<PathBuf>,

    /// Print the report only, without progress.
    #[arg(short, long, help_heading = RESULTS)]
    pub quiet: bool,
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
    HalfRequest,
    Slowloris,
    SlowRead,
    ZeroWindow,
    Announce,
    Rst,
    Vanish,
    Sids,
    Unpolled,
    HalfUpgrade,
}

impl ShapeName {
    /// True for the shapes whose requests over WebSocket are messages, also without `--send`.
    pub fn sends_messages(self) -> bool {
        use ShapeName::{Fanout, Ping, Search, SlowRead, ZeroWindow};
        matches!(self, Ping | Search | Fanout | SlowRead | ZeroWindow)
    }

    /// All shapes by name, loads before floods.
    pub const ALL: [(&'static str, ShapeName); 16] = [
        ("ping", ShapeName::Ping),
        ("search", ShapeName::Search),
        ("hold", ShapeName::Hold),
        ("churn", ShapeName::Churn),
        ("fanout", ShapeName::Fanout),
        ("silent", ShapeName::Silent),
        ("half-request", ShapeName::HalfRequest),
        ("slowloris", ShapeName::Slowloris),
        ("slow-read", ShapeName::SlowRead),
        ("zero-window", ShapeName::ZeroWindow),
        ("announce", ShapeName::Announce),
        ("rst", ShapeName::Rst),
        ("vanish", ShapeName::Vanish),
        ("sids", ShapeName::Sids),
        ("unpolled", ShapeName::Unpolled),
        ("half-upgrade", ShapeName::HalfUpgrade),
    ];

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        ShapeName::ALL.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    /// Returns the shape with this name; the error lists all names.
    pub fn parse(text: &str) -> Result<ShapeName, String> {
        let found = ShapeName::ALL.iter().find(|(name, _)| *name == text).map(|(_, shape)| *shape);
        found.ok_or_else(|| {
            let names: Vec<&str> = ShapeName::ALL.iter().map(|(name, _)| *name).collect();
            format!("'{text}' is not a shape of load; accepted: {}", names.join(", "))
        })
    }

    /// True for the shapes that attack the server instead of using it.
    pub fn is_flood(self) -> bool {
        !matches!(
            self,
            ShapeName::Hold
                | ShapeName::Ping
                | ShapeName::Search
                | ShapeName::Fanout
                | ShapeName::Churn
        )
    }
}

/// The way in which the packets of Socket.IO travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportName {
    #[default]
    WebSocket,
    Polling,
}

impl TransportName {
    /// Returns the name on the command line and in requests.
    pub fn name(self) -> &'static str {
        match self {
            TransportName::WebSocket => "websocket",
            TransportName::Polling => "polling",
        }
    }
}

fn transport(text: &str) -> Result<TransportName, String> {
    let all = [TransportName::WebSocket, TransportName::Polling];
    let found = all.into_iter().find(|transport| transport.name() == text);
    found.ok_or_else(|| "expected websocket or polling".to_string())
}

/// Parses a number per second, which may end with k (thousands) or M (millions).
fn per_second(text: &str) -> Result<f64, String> {
    let (digits, worth) = match text.strip_suffix(['k', 'M']) {
        Some(digits) if text.ends_with('k') => (digits, 1e3),
        Some(digits) => (digits, 1e6),
        None => (text, 1.0),
    };
    let number: Option<f64> = digits.parse().ok();
    number
        .map(|number| number * worth)
        .ok_or_else(|| "expected a number per second, such as 20000 or 20k".to_string())
}

fn count<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a positive whole number, such as 50".to_string())
}

/// Accepts any name, so that an empty one gets the error of its flag.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address, such as 192.0.2.7 or 2001:db8::7".to_string())
}

fn process(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected the number of a process, such as 4711".to_string())
}

/// Replaces the escapes `\r`, `\n`, `\t`, `\\`, `\0` and `\xHH` by their bytes.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let wrong = |found: &str| {
        format!(
            "--send: {found} is not an escape; accepted: \\r \\n \\t \\0 \\\\ or \\xHH, as in \
             'PING\\r\\n'"
        )
    };
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
                let found = format!("\\x{}", digits.escape_ascii());
                let value = |digit: &u8| char::from(*digit).to_digit(16);
                match digits.iter().map(value).collect::<Option<Vec<u32>>>().as_deref() {
                    Some([high, low]) => (high << 4 | low) as u8,
                    _ => return Err(wrong(&found)),
                }
            }
            Some(other) => return Err(wrong(&format!("\\{}", other.escape_ascii()))),
            None => return Err(wrong("a single \\ at the end")),
        });
    }
    match out.is_empty() {
        true => {
            Err("--send: the text is empty; expected at least one byte, as in 'PING\\r\\n'".into())
        }
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_send_become_bytes() {
        assert_eq!(unescape("a\\r\\n\\x00\\xfF\\\\").unwrap(), b"a\r\n\0\xff\\");
        for wrong in ["", "\\", "\\x", "\\x1", "\\xzz", "\\x+f"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_may_have_a_unit() {
        for (text, rate) in
            [("20000", 20_000.0), ("20k", 20_000.0), ("0.5", 0.5), ("1.5M", 1_500_000.0)]
        {
            assert_eq!(per_second(text), Ok(rate));
        }
        for text in ["", "k", "20K", "20 k", "fast"] {
            assert!(per_second(text).unwrap_err().contains("20k"), "{text}");
        }
    }

    #[test]
    fn a_count_is_a_whole_number() {
        assert_eq!((count::<usize>("50"), count::<u64>("0"), process("7")), (Ok(50), Ok(0), Ok(7)));
        for text in ["", "-1", "1.5", "many", "99999999999999999999"] {
            assert!(count::<usize>(text).unwrap_err().contains("whole number"), "{text}");
            assert!(count::<u64>(text).unwrap_err().contains("whole number"), "{text}");
            assert!(process(text).unwrap_err().contains("number of a process"), "{text}");
        }
    }
}

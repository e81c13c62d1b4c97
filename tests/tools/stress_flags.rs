//! `slabd stress`: its flags at their limits, and the message for each wrong command line.

use std::time::Duration;

use crate::support;
use clap::Parser;
use slabd::stress::args::StressArgs;
use slabd::stress::plan::Plan;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: StressArgs,
}

fn plan(words: &str) -> Result<Plan, String> {
    let words = ["stress"].into_iter().chain(words.split_whitespace());
    Plan::resolve(&Line::try_parse_from(words).map_err(|error| error.to_string())?.args)
}

#[test]
fn a_flag_without_effect_is_refused_by_name() {
    let (resp, http, udp) = ("resp://127.0.0.1:9", "http://127.0.0.1:9", "udp://127.0.0.1:9");
    let io = "socketio://127.0.0.1:9";
    let (ws, sse) = ("ws://127.0.0.1:9/ws/a", "sse+http://127.0.0.1:9/events/a");
    for (words, flag) in [
        (format!("hold {resp} -n 9"), "--requests"),
        (format!("fanout {resp} -n 9"), "--requests"),
        (format!("search {resp} -n 9"), "--requests"),
        (format!("silent {resp} -n 9"), "--requests"),
        (format!("hold {resp} -P 2"), "--pipeline"),
        (format!("churn {resp} -P 2"), "--pipeline"),
        (format!("fanout {resp} -P 2"), "--pipeline"),
        (format!("rst {resp} -P 2"), "--pipeline"),
        (format!("search {resp} -P 2"), "--pipeline"),
        (format!("silent {resp} -r 9"), "--rate"),
        (format!("ping {http} --size 9"), "--size"),
        (format!("ping {resp} --size 9 --send x"), "--size"),
        (format!("fanout {resp} --send x"), "--send"),
        (format!("ping {resp} --poisson"), "--poisson"),
        (format!("churn {resp} --rate 9 --poisson"), "--poisson"),
        (format!("ping {resp} --seed 4"), "--seed"),
        (format!("ping {resp} --rate 9 --seed 4"), "--seed"),
        (format!("fanout {resp} --rate 9 --in-flight 2"), "--in-flight"),
        (format!("ping {resp} --in-flight 2"), "--in-flight"),
        (format!("ping {resp} --messages 2"), "--messages"),
        (format!("hold {resp} --channel x"), "--channel"),
        (format!("ping {udp} --connect-rate 9"), "--connect-rate"),
        (format!("churn {resp} --rate 9 --connect-rate 9"), "--connect-rate"),
        (format!("ping {resp} --drip 1s"), "--drip"),
        (format!("zero-window {resp} --drip 1s"), "--drip"),
        (format!("ping {resp} --probe-rate 9"), "--probe-rate"),
        (format!("ping {resp} --target-p99 1s"), "--target-p99"),
        (format!("hold {ws} --size 9"), "--size"),
        (format!("hold {sse} --size 9"), "--size"),
        (format!("hold {sse} --send x"), "--send"),
        (format!("fanout {ws} --channel x"), "--channel"),
        (format!("fanout {sse} --channel x"), "--channel"),
        (format!("fanout {ws} --publish {http}"), "--publish"),
        (format!("hold {sse} --publish {http}"), "--publish"),
        (format!("ping {ws} --method GET"), "--method"),
        (format!("ping {ws} --transport polling"), "--transport"),
        (format!("ping {io} --method GET"), "--method"),
        (format!("ping {io} --channel a --send x"), "--channel"),
        (format!("fanout {io} --send x"), "--send"),
        (format!("hold {sse} --body x"), "--body"),
        (format!("half-request {resp} --drip 1s"), "--drip"),
    ] {
        let error = plan(&words).expect_err(&words);
        assert!(error.contains(&format!("{flag} does nothing")), "{words}: {error}");
    }
    for words in [
        format!("ping {resp} -P 1 --rate 9"),
        format!("ping {resp} -n 9 --rate 9 --poisson --seed 4"),
        format!("search {resp} --poisson --seed 4 --target-p99 1ms"),
        format!("fanout {resp} -d 3s --messages 2 --channel x --in-flight 2 --size 100"),
        format!("churn {resp} -n 9 --rate 9"),
        format!("churn {resp} --connect-rate 9"),
        format!("announce {resp} --drip 1s --probe-rate 9"),
        format!("slow-read {resp} --drip 1s --connect-rate 9"),
        format!("ping {udp} -P 4 -n 5 --size 100"),
        format!("ping {ws} -P 4 --size 9 -H Origin:http://x"),
        format!("zero-window {ws} --size 9"),
        format!("announce {ws} --drip 1s"),
        format!("hold {ws} --send x"),
        format!("fanout {io} --size 9 --channel a --transport polling -H Origin:http://x"),
        format!("churn {io} --size 9 --channel a --transport websocket"),
        format!("ping {io} --send [\"chat\",1]"),
        format!("half-upgrade {io} --transport polling"),
        format!("unpolled {io} --transport polling"),
        format!("sids {io}"),
        format!("fanout {ws} --size 9 --in-flight 4"),
        format!("fanout {sse} --size 9 --publish {http}/x -H a:b"),
        format!("half-request {http} --probe-rate 9"),
    ] {
        assert!(plan(&words).is_ok(), "{words}: {:?}", plan(&words).err());
    }
}

/// Each limit is tried exactly, one step inside, and one step outside.
#[test]
fn a_value_is_accepted_up_to_its_limit_and_refused_beyond() {
    let ping = |words: &str| format!("ping resp://127.0.0.1:9 {words}");
    let udp = |words: &str| format!("ping udp://127.0.0.1:9 {words}");
    let ws = |words: &str| format!("ping ws://127.0.0.1:9/echo {words}");
    let flood = |words: &str| format!("slow-read resp://127.0.0.1:9 {words}");
    let most = slabd::limits::CONNECTIONS_MAX;
    let accepted = [
        ping("-c 1"),
        ping("-c 2"),
        ping(&format!("-c {most}")),
        ping(&format!("-c {}", most - 1)),
        ping("-P 1"),
        ping("-P 9999"),
        ping("-P 10000"),
        ping("--size 1"),
        ping("--size 1048575"),
        ping("--size 1048576"),
        ping("-d 23h"),
        ping("-d 24h"),
        ping("-d 86400"),
        ping("--timeout 59m"),
        ping("--timeout 1h"),
        ping("-n 1"),
        ping("--rate 0.01"),
        ping("--rate 100000000"),
        udp("-c 63"),
        udp("-c 64"),
        udp("--size 18"),
        udp("--size 19"),
        udp("--size 65507"),
        ws("--size 8"),
        ws("--size 9"),
        ws("--size 1048576"),
        flood("--drip 1us"),
        flood("--drip 1h"),
        flood("--probe-rate 10000"),
        flood("-c 512 --size 1MiB"),
    ];
    for words in &accepted {
        assert!(plan(words).is_ok(), "{words}: {:?}", plan(words).err());
    }
    let refused = [
        (ping("-c 0"), "--connections: 0 "),
        (ping(&format!("-c {}", most + 1)), "--connections: "),
        (ping("-P 0"), "--pipeline: 0 "),
        (ping("-P 10001"), "--pipeline: 10001 "),
        (ping("--size 0"), "--size: 0 "),
        (ping("--size 1048577"), "--size: 1048577 "),
        (ping("-d 86401s"), "--duration: "),
        (ping("-d 86401"), "--duration: "),
        (ping("--timeout 3601s"), "--timeout: "),
        (ping("-n 0"), "--requests: 0 "),
        (ping("--rate 0.009"), "--rate: 0.009 "),
        (ping("--rate 100000001"), "--rate: "),
        (udp("-c 65"), "--connections: 65 is out of range; accepted: 1 to 64"),
        (udp("--size 17"), "--size: 17 is out of range; accepted: 18 to 65507"),
        (udp("--size 65508"), "--size: 65508 "),
        (ws("--size 7"), "--size: 7 is out of range; accepted: 8 to 1048576"),
        (ws("--size 1048577"), "--size: 1048577 "),
        (flood("--drip 3601s"), "--drip: "),
        (flood("--probe-rate 10001"), "--probe-rate: 10001 "),
        (flood("--probe-rate 0.001"), "--probe-rate: 0.001 "),
        (flood("-c 513 --size 1MiB"), "513 connections"),
        ("fanout resp://127.0.0.1:9 --in-flight 0".into(), "--in-flight: 0 "),
    ];
    for (words, why) in &refused {
        let error = plan(words).expect_err(words);
        assert!(error.contains(why), "{words}: {error}");
    }
}

/// Times of flags count seconds unless they have a unit.
#[test]
fn a_bare_number_is_a_time_in_seconds() {
    type Field = fn(&Plan) -> Duration;
    let fields: [(&str, &str, Field); 5] = [
        ("ping", "-d", |plan| plan.duration),
        ("ping", "--duration", |plan| plan.duration),
        ("ping", "--timeout", |plan| plan.timeout),
        ("search", "--target-p99", |plan| plan.target_p99),
        ("slowloris", "--drip", |plan| plan.drip),
    ];
    for (shape, flag, field) in fields {
        for (text, time) in [
            ("10", Duration::from_secs(10)),
            ("10s", Duration::from_secs(10)),
            ("10ms", Duration::from_millis(10)),
            ("2m", Duration::from_secs(120)),
        ] {
            let words = format!("{shape} resp://127.0.0.1:9 {flag} {text}");
            assert_eq!(field(&plan(&words).expect(&words)), time, "{words}");
        }
        for text in ["0", "0s", "5x", "-1", "1.5", ""] {
            let words = [shape, "resp://127.0.0.1:9", &format!("{flag}={text}")];
            let words = words.map(|word| word.replace("-d=", "--duration="));
            let arguments = ["stress"].into_iter().chain(words.iter().map(String::as_str));
            let refused = match Line::try_parse_from(arguments) {
                Ok(line) => Plan::resolve(&line.args).is_err(),
                Err(_) => true,
            };
            assert!(refused, "{words:?}");
        }
    }
}

/// Each case is a command line, its exit code, and parts of the one line on standard error.
#[test]
fn a_wrong_command_line_gets_one_line_with_the_reason_and_an_example() {
    const R: &str = "resp://127.0.0.1:9";
    const IO: &str = "socketio://127.0.0.1:9";
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&[], 2, &["no target", "slabd stress ping resp://127.0.0.1:6379"]),
        (&["hodl", R], 2, &["'hodl' is not a shape", "ping, search, hold"]),
        (&["hold"], 2, &["hold needs a target", "slabd stress hold resp://"]),
        (&[R, R], 2, &["two targets", "slabd stress ping resp://127.0.0.1:9"]),
        (&["ping", "hold", R], 2, &["too many words", "a shape and a target"]),
        (&["a", "b", "c", "d"], 2, &["a b c d: too many words"]),
        (&["127.0.0.1:80"], 2, &["no scheme", "resp://127.0.0.1:6379"]),
        (
            &["ftp://127.0.0.1:80"],
            2,
            &["unknown scheme ftp://", "resp://, redis://, http://, ws://, sse+http://, tcp://"],
        ),
        (&["tcp://127.0.0.1"], 2, &["needs a port from 1 to 65535", "tcp://127.0.0.1:7379"]),
        (&["tcp://127.0.0.1:0"], 2, &["'0' is not a port", "1 to 65535"]),
        (&["resp://127.0.0.1:70000"], 2, &["'70000' is not a port", "1 to 65535"]),
        (&["resp://"], 2, &["no host", "resp://127.0.0.1:7379"]),
        (&["resp://nowhere.invalid"], 2, &["cannot resolve nowhere.invalid", "/etc/hosts"]),
        (&["tcp://127.0.0.1:9/x"], 2, &["takes no path; expected tcp://127.0.0.1:9"]),
        (&["tcp://:x@127.0.0.1:9"], 2, &["takes no password; expected tcp://127.0.0.1:9"]),
        (&["hold", R, "-P", "2"], 2, &["--pipeline does nothing in hold", "only ping"]),
        (&[R, "-P", "2", "-r", "9"], 2, &["--pipeline and --rate exclude each other"]),
        (&[R, "-c", "0"], 2, &["--connections: 0", "accepted: 1 to 4194304, such as 50"]),
        (&[R, "-c", "-1"], 2, &["-1", "--connections", "whole number, such as 50"]),
        (&[R, "-c", "many"], 2, &["many", "--connections", "whole number, such as 50"]),
        (&[R, "-c", "4000000"], 1, &["--connections: 4000000", "ulimit -n", "accepted: up to"]),
        (&[R, "-n", "x"], 2, &["--requests", "whole number"]),
        (&[R, "-r", "0"], 2, &["--rate: 0 per second", "accepted: 0.01 to 100000000, such as"]),
        (&[R, "-r", "-5"], 2, &["--rate: -5 per second"]),
        (&[R, "-r", "nan"], 2, &["--rate: NaN per second"]),
        (&[R, "-r", "fast"], 2, &["fast", "--rate", "such as 20000 or 20k"]),
        (&[R, "-d", "0"], 2, &["--duration: 0", "accepted: 1us to 1d, such as 10s"]),
        (&[R, "-d", "-5"], 2, &["-5", "--duration", "30s"]),
        (&[R, "-d", "5x"], 2, &["5x", "--duration", "us, ms, s, m, h"]),
        (&[R, "--timeout", "2h"], 2, &["--timeout: 2h", "accepted: 1us to 1h, such as 5s"]),
        (&["search", R, "--target-p99", "0"], 2, &["--target-p99: 0", "such as 5ms"]),
        (&[R, "--size", "5MB"], 2, &["5MB", "--size", "KiB"]),
        (&["fanout", R, "--messages", "0"], 2, &["--messages: 0", "such as 100"]),
        (&["fanout", R, "--channel", ""], 2, &["--channel", "empty", "such as news"]),
        (&[R, "--assert", ""], 2, &["--assert ''", "such as p99<5ms"]),
        (&[R, "--assert", "p99"], 2, &["--assert 'p99'", "no comparison", "p99<5ms"]),
        (&[R, "--assert", "p95<5ms"], 2, &["'p95' is not a metric", "p90, p99"]),
        (&[R, "--assert", "p99<5"], 2, &["'5' is not a limit", "unit of us", "such as 5s"]),
        (&[R, "--assert", "rate>5ms"], 2, &["'5ms' is not a limit", "k/s"]),
        (&[R, "--send", ""], 2, &["--send", "empty", "'PING\\r\\n'"]),
        (&[R, "--send", "a\\q"], 2, &["--send: \\q is not an escape", "\\xHH"]),
        (&[R, "--send", "a\\xg1"], 2, &["--send: \\xg1 is not an escape"]),
        (&[R, "--send", "a\\"], 2, &["a single \\ at the end is not an escape"]),
        (&[R, "--html", "/nowhere/a.html"], 2, &["--html: the folder /nowhere", "run.html"]),
        (&[R, "--json", "/nowhere/a.json"], 2, &["--json: the folder /nowhere", "run.json"]),
        (&[R, "--json", ""], 2, &["--json: the file has no name", "run.json"]),
        (&[R, "--html", ""], 2, &["--html: the file has no name", "run.html"]),
        (&[R, "--hdr", ""], 2, &["--hdr: the file has no name", "run.hdr"]),
        (&[R, "--hdr", "/"], 2, &["--hdr: / is a folder", "run.hdr"]),
        (&["compare", "", "b.json"], 2, &["compare: a file has no name", "A.json B.json"]),
        (&["compare", "a", "b", "--html", ""], 2, &["--html: the file has no name"]),
        (&[""], 2, &["the target is empty", "resp://127.0.0.1:6379"]),
        (&["https://127.0.0.1"], 2, &["needs TLS", "expected http://"]),
        (&["wss://127.0.0.1"], 2, &["needs TLS", "expected ws://"]),
        (&["slow-read", IO], 2, &["slow-read needs large answers", "ws://127.0.0.1:9/echo"]),
        (
            &["half-upgrade", IO],
            2,
            &["half-upgrade needs clients that poll", "--transport polling"],
        ),
        (&["sids", R], 2, &["sids needs the sessions of Socket.IO", "socketio://127.0.0.1:9"]),
        (&[IO, "--transport", "tcp"], 2, &["tcp", "--transport", "websocket or polling"]),
        (&[IO, "--send", "hi"], 2, &["--send", "a JSON array", "[\"chat\",\"hi\"]"]),
        (&["sse+http://127.0.0.1"], 2, &["ping needs more", "the shape hold or fanout"]),
        (&["fanout", "sse+http://127.0.0.1/x"], 2, &["--publish http://127.0.0.1:80/PATH"]),
        (&["resp://:s3cret@h", "resp://x"], 2, &["two targets", "resp://…@h"]),
        (&[R, "-H", "a: b"], 2, &["--header does nothing in ping over resp://"]),
        (&[R, "--method", "GET"], 2, &["--method does nothing"]),
        (&[R, "--body", "x"], 2, &["--body does nothing"]),
        (&["tcp://127.0.0.1:9", "--password-file", "x"], 2, &["--password-file does nothing"]),
        (&["http://127.0.0.1", "--send", "x", "-H", "a: b"], 2, &["--header does nothing"]),
        (&["http://127.0.0.1", "-H", "a: b\r\nc: s3cret"], 2, &["the value of a contains"]),
        (&["http://127.0.0.1", "-H", "a"], 2, &["--header: there is no colon", "'Accept: "]),
        (&["http://127.0.0.1", "--method", "A B"], 2, &["--method: 'A B' is not a method"]),
        (&["http://127.0.0.1", "--body", "@"], 2, &["--body: the file has no name"]),
        (&["http://127.0.0.1", "--body", "@/dev/null"], 2, &["cannot read /dev/null"]),
        (&[R, "-P", "9999", "--size", "1MiB"], 2, &["--pipeline: 9999 requests of 1048576 bytes"]),
        (&["compare", "a.json"], 2, &["compare needs two files", "A.json B.json"]),
        (&["compare", "a", "b", "c"], 2, &["not 3", "A.json B.json"]),
        (&["compare", "/nowhere/a", "/nowhere/b"], 1, &["cannot read /nowhere/a", "--json"]),
        (&["compare", "Cargo.toml", "Cargo.toml"], 1, &["Cargo.toml was not written by slabd"]),
        (&["compare", "a", "b", "--rate", "9"], 2, &["no flags but --html and --quiet"]),
        (&["compare", "a", "b", "--html", "/"], 2, &["--html: / is a folder"]),
        (&["hold", "udp://127.0.0.1:9"], 2, &["hold needs connections", "tcp://127.0.0.1:9"]),
        (&["fanout", "tcp://127.0.0.1:9"], 2, &["fanout", "resp://127.0.0.1:9"]),
        (&["announce", "tcp://127.0.0.1:9"], 2, &["announce", "http://127.0.0.1:9"]),
        (&["udp://127.0.0.1:9", "-c", "65"], 2, &["--connections: 65", "accepted: 1 to 64"]),
        (&["silent", "tcp://192.0.2.1:9"], 2, &["is a flood", "--i-am-allowed-to-test 192.0.2.1"]),
        (&["tcp://192.0.2.1:9", "--sources", "3"], 2, &["--sources: 192.0.2.1", "--source 192"]),
        (&[R, "--source", "::1"], 2, &["--source: ::1", "IPv4 address, such as 127.0.0.2"]),
        (&[R, "--source", "x"], 2, &["'x' for '--source", "such as 192.0.2.7"]),
        (&[R, "--pid", "4294967295"], 2, &["--pid: there is no process 4294967295", "pidof"]),
        (&[R, "--pid", "x"], 2, &["--pid", "number of a process, such as 4711"]),
        (&[R, "--conections", "5"], 2, &["--conections", "--connections"]),
    ];
    for (words, code, parts) in cases {
        let arguments: Vec<&str> = ["stress"].iter().chain(*words).copied().collect();
        let (got, output, error) = support::run(&arguments);
        assert_eq!(got, Some(*code), "{words:?}: {error}");
        assert_eq!((error.lines().count(), output.as_str()), (1, ""), "{words:?}: {error}");
        for part in *parts {
            assert!(error.contains(part), "{words:?}: no {part:?} in {error}");
        }
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// The report still goes to standard output.
#[test]
fn a_failed_run_gives_its_reason_in_one_line() {
    let (code, output, error) = support::run(&["stress", "tcp://127.0.0.1:1", "-c", "1", "-q"]);
    assert_eq!(code, Some(1), "{error}");
    assert_eq!(
        error,
        "slabd: no connection to tcp://127.0.0.1:1 was opened: refused 1; \
         is a server listening there?\n"
    );
    assert!(output.starts_with("slabd stress ping tcp://127.0.0.1:1\n"), "{output}");
}

#[test]
fn no_line_of_the_help_is_longer_than_a_hundred_columns() {
    let (code, help, _) = support::run(&["stress", "--help"]);
    assert_eq!(code, Some(0));
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for part in ["Examples:", "Exit code:", "zero-window", "[default: 10s;", "--assert <BOUND>"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
}

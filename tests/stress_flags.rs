//! `slabd stress`: what its flags accept at their limits, and that none is taken which would do nothing.

mod support;

use clap::Parser;
use slabd::stress::args::StressArgs;
use slabd::stress::plan::Plan;
use support::load_run::stress;

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
fn a_flag_that_would_do_nothing_is_refused_by_name() {
    let (resp, http, udp) = ("resp://127.0.0.1:9", "http://127.0.0.1:9", "udp://127.0.0.1:9");
    for (words, flag) in [
        (format!("hold {resp} -n 9"), "--requests"),
        (format!("fanout {resp} -n 9"), "--requests"),
        (format!("search {resp} -n 9"), "--requests"),
        (format!("silent {resp} -n 9"), "--requests"),
        (format!("hold {resp} -P 2"), "--pipeline"),
        (format!("churn {resp} -P 2"), "--pipeline"),
        (format!("fanout {resp} -P 2"), "--pipeline"),
        (format!("rst {resp} -P 2"), "--pipeline"),
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
    ] {
        let error = plan(&words).expect_err(&words);
        assert!(error.contains(&format!("{flag} does nothing")), "{words}: {error}");
    }
    for words in [
        format!("ping {resp} -n 9 --rate 9 --poisson --seed 4"),
        format!("search {resp} --poisson --seed 4 --target-p99 1ms"),
        format!("fanout {resp} -d 3s --messages 2 --channel x --in-flight 2 --size 100"),
        format!("churn {resp} -n 9 --rate 9"),
        format!("churn {resp} --connect-rate 9"),
        format!("announce {resp} --drip 1s --probe-rate 9"),
        format!("slow-read {resp} --drip 1s --connect-rate 9"),
        format!("ping {udp} -P 4 -n 5 --size 100"),
    ] {
        assert!(plan(&words).is_ok(), "{words}: {:?}", plan(&words).err());
    }
}

/// At each limit, one step inside, and one step outside.
#[test]
fn limits_hold_at_their_edges() {
    let shapes = |words: &str| (format!("ping resp://127.0.0.1:9 {words}"), words.to_string());
    let udp = |words: &str| (format!("ping udp://127.0.0.1:9 {words}"), words.to_string());
    let flood = |words: &str| (format!("slow-read resp://127.0.0.1:9 {words}"), words.to_string());
    let most = slabd::limits::CONNECTIONS_MAX;
    let accepted = [
        shapes("-c 1"),
        shapes("-c 2"),
        shapes(&format!("-c {most}")),
        shapes(&format!("-c {}", most - 1)),
        shapes("-P 1"),
        shapes("-P 9999"),
        shapes("-P 10000"),
        shapes("--size 1"),
        shapes("--size 1048575"),
        shapes("--size 1048576"),
        shapes("-d 23h"),
        shapes("-d 24h"),
        shapes("-d 86400"),
        shapes("--timeout 59m"),
        shapes("--timeout 1h"),
        shapes("-n 1"),
        shapes("--rate 0.01"),
        shapes("--rate 100000000"),
        udp("-c 63"),
        udp("-c 64"),
        udp("--size 18"),
        udp("--size 19"),
        udp("--size 65507"),
        flood("--drip 1us"),
        flood("--drip 1h"),
        flood("--probe-rate 10000"),
        flood("-c 512 --size 1MiB"),
    ];
    for (words, _) in &accepted {
        assert!(plan(words).is_ok(), "{words}: {:?}", plan(words).err());
    }
    let refused = [
        (shapes("-c 0"), "connections is 0"),
        (shapes(&format!("-c {}", most + 1)), "connections is"),
        (shapes("-P 0"), "pipeline is 0"),
        (shapes("-P 10001"), "pipeline is 10001"),
        (shapes("--size 0"), "size is 0"),
        (shapes("--size 1048577"), "size is 1048577"),
        (shapes("-d 86401s"), "duration is"),
        (shapes("-d 86401"), "duration is"),
        (shapes("--timeout 3601s"), "timeout is"),
        (shapes("-n 0"), "requests is 0"),
        (shapes("--rate 0.009"), "rate is 0.009"),
        (shapes("--rate 100000001"), "rate is"),
        (udp("-c 65"), "connections is 65: accepted are 1 to 64"),
        (udp("--size 17"), "size is 17: accepted are 18 to 65507"),
        (udp("--size 65508"), "size is 65508"),
        (flood("--drip 3601s"), "drip is"),
        (flood("--probe-rate 10001"), "probe-rate is 10001"),
        (flood("--probe-rate 0.001"), "probe-rate is 0.001"),
        (flood("-c 513 --size 1MiB"), "513 connections"),
        (("fanout resp://127.0.0.1:9 --in-flight 0".to_string(), String::new()), "in-flight is 0"),
    ];
    for ((words, _), why) in &refused {
        let error = plan(words).expect_err(words);
        assert!(error.contains(why), "{words}: {error}");
    }
}

#[test]
fn a_process_that_is_not_there_and_flags_of_compare_are_wrong_command_lines() {
    for (words, why) in [
        ("resp://127.0.0.1:1 --pid 4294967295", "there is no such process"),
        ("compare a.json b.json --rate 9", "no flags but --html and --quiet"),
        ("compare a.json b.json --assert p99<1s", "no flags but --html and --quiet"),
        ("hold resp://127.0.0.1:1 -n 4", "--requests does nothing in hold over resp"),
    ] {
        // Without --json, which compare does not take either.
        let arguments: Vec<&str> = ["stress"].into_iter().chain(words.split_whitespace()).collect();
        let (code, _, error) = support::run(&arguments);
        assert_eq!(code, Some(2), "{words}: {error}");
        assert!(error.contains(why), "{words}: {error}");
    }
    let (code, _, said) = stress(&format!("tcp://127.0.0.1:1 -c 1 --pid {}", std::process::id()));
    assert_eq!(code, Some(1), "nobody is there, but the process is: {said}");
}

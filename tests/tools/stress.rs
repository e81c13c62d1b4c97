//! `slabd stress` against servers that serve well: the load, the measurements and the report.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::load_run::{
    expect_all_delivered, json_file, number, percentile, serve, signal, stress,
};
use crate::support::{PATIENCE, Server, program, run};

#[test]
fn every_shape_of_load_runs_without_an_error() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--listen", "echo=127.0.0.1:0"]);
    let (hub, echo) = (server.address("hub"), server.address("echo"));
    for (words, least) in [
        (format!("ping resp://{hub} -n 20000 -P 8 --size 100"), 20_000),
        (format!("ping tcp://{echo} -n 5000"), 5000),
        (format!("ping tcp://{hub} -n 5000 --send PING\\r\\n"), 5000),
        (format!("ping udp://{echo} -n 5000 -P 4"), 5000),
        (format!("ping udp://{hub} -n 2000 -c 2 --send PING\\x20{{seq}}\\r\\n"), 2000),
        (format!("hold resp://{hub} -c 2000 -d 1s"), 4000),
        (format!("churn resp://{hub} -n 3000"), 3000),
        (format!("churn resp://{hub} -n 500 --rate 500"), 500),
        (format!("fanout resp://{hub} -c 300 --messages 50 --in-flight 4"), 50),
        (format!("fanout resp://{hub} -c 100 --messages 50 --rate 100"), 50),
    ] {
        let (code, record, said) = stress(&format!("{words} --assert errors=0 --assert failed=0"));
        assert_eq!(code, Some(0), "{words}: {said}");
        let answered = number(&record["requests"]["answered"]);
        assert!(
            answered >= least && answered == number(&record["requests"]["sent"]),
            "{words}: {answered}; {said}"
        );
        assert_eq!(number(&record["connections"]["closed_by_server"]), 0, "{words}");
        if !words.contains("udp:") {
            assert!(record["server"]["source"].as_str().unwrap().contains("process"), "{words}");
        }
        if words.starts_with("fanout") {
            expect_all_delivered(&record, &said);
        }
    }
}

#[test]
fn search_finds_the_highest_rate_within_the_target() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let words = format!("search resp://{} -d 300ms -c 20 --target-p99", server.address("hub"));
    let (code, record, said) = stress(&format!("{words} 250ms"));
    assert_eq!(code, Some(0), "{said}");
    let trials = record["trials"].as_array().unwrap();
    let rates = |held: bool| -> Vec<f64> {
        let chosen = trials.iter().filter(|trial| trial["held"] == held);
        chosen.map(|trial| trial["asked_rate"].as_f64().unwrap()).collect()
    };
    assert!(!rates(true).is_empty() && !rates(false).is_empty(), "{trials:?}");
    let best = rates(true).into_iter().fold(0.0, f64::max);
    assert_eq!(record["requests"]["rate"].as_f64(), Some(best), "{said}");
    // No server answers within a microsecond.
    let (code, record, said) = stress(&format!("{words} 1us --assert rate>0"));
    assert_eq!((code, record["requests"]["rate"].as_f64()), (Some(1), Some(0.0)), "{said}");
    assert!(said.contains("No rate"), "{said}");
}

/// The server's defences bound each flood, and honest requests are served beside it.
#[test]
fn every_flood_replaces_closed_connections_and_runs_honest_probes() {
    let server = Server::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--first-message-timeout",
        "1s",
        "--message-timeout",
        "1s",
        "--user-timeout",
        "1s",
        "--keepalive",
        "1s",
        "--keepalive-interval",
        "1s",
        "--keepalive-probes",
        "1",
        "--penalty",
        "0",
        "--max-silent",
        "300",
    ]);
    let hub = server.address("hub");
    let kinds = [
        ("silent", true),
        ("slowloris --drip 100ms", true),
        ("slow-read --drip 200ms", false),
        ("zero-window", true),
        ("announce", true),
        ("rst", false),
        ("vanish", true),
    ];
    // The floods run at the same time, each with its own probes.
    let runs: Vec<_> = kinds
        .map(|(kind, must_close)| spawn(move || flood(hub, kind, must_close)))
        .into_iter()
        .collect();
    runs.into_iter().for_each(|run| run.join().unwrap());
}

fn flood(hub: SocketAddr, kind: &str, must_close: bool) {
    // Floods at this rate leave a silent connection half a second, which suffices for a probe.
    // Without a rate, they would replace closed connections as fast as the machine can.
    let rate = if kind == "rst" { "" } else { "--connect-rate 100" };
    let (code, record, said) = stress(&format!(
        "{kind} resp://{hub} -c 100 -d 4s {rate} --probe-rate 50 --assert honest>=99"
    ));
    assert_eq!(code, Some(0), "{kind}: {said}");
    let probes = record["probes"].as_array().unwrap();
    let phases: Vec<&str> = probes.iter().map(|probe| probe["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["before", "during", "after"]);
    assert!(number(&probes[1]["sent"]) > 150, "{kind}: {said}");
    let connections = &record["connections"];
    let (opened, closed) =
        (number(&connections["opened"]), number(&connections["closed_by_server"]));
    println!(
        "{kind}: {opened} opened, {closed} closed by the server, reclaimed after {}",
        record["reclaim_s"]
    );
    // A vanished peer does not notice its close, so it is not replaced.
    if must_close && kind != "vanish" {
        assert!(
            closed >= 90 && opened > 150,
            "{kind}: {opened} opened, {closed} closed by the server; {said}"
        );
    }
    if kind == "vanish" {
        assert!(said.contains("100 peers vanished"), "{said}");
    }
    if kind == "rst" {
        assert!(opened > 1000, "{opened}");
    }
}

#[test]
fn stress_sends_the_password_and_reports_a_wrong_one() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "opensesame"]);
    let address = server.address("hub");
    let (code, record, said) =
        stress(&format!("resp://:opensesame@{address} -n 100 --assert errors=0"));
    assert_eq!(
        (code, number(&record["requests"]["answered"])),
        (Some(0), 100),
        "AUTH does not count as a request; {said}"
    );
    assert!(!said.contains("opensesame") && !record.to_string().contains("opensesame"), "{said}");
    let (code, record, said) = stress(&format!("resp://:wrong@{address} -n 100 -c 3 -d 1s"));
    assert_eq!(code, Some(1), "{said}");
    assert!(record["connections"]["failed"].to_string().contains("WRONGPASS"), "{record}");
}

/// A password comes from a file or from the environment, and shows nowhere.
#[test]
fn a_password_is_taken_from_a_file_or_the_environment() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "opensesame"]);
    let target = format!("resp://{}", server.address("hub"));
    let file = std::env::temp_dir().join(format!("slabd-password-{}", std::process::id()));
    let path = file.to_str().unwrap().to_string();
    std::fs::write(&file, "opensesame\r\na comment\n").unwrap();
    let (code, record, said) = stress(&format!("{target} -n 9 -c 3 --password-file {path}"));
    assert_eq!((code, number(&record["requests"]["answered"])), (Some(0), 9), "{said}");
    let mut command = Command::new(program());
    command.args(["stress", &target, "-n", "9", "-c", "3", "-q"]);
    let output = command.env("SLABD_STRESS_PASSWORD", "opensesame").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("opensesame"), "{said}");
    // The password of the target comes before that of the environment.
    let own = target.replace("://", "://:wrong@");
    let mut command = Command::new(program());
    command.args(["stress", &own, "-n", "9", "-c", "3", "-q"]);
    let output = command.env("SLABD_STRESS_PASSWORD", "opensesame").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    std::fs::write(&file, "\nopensesame").unwrap();
    let folder = std::env::temp_dir();
    for (path, why) in [
        (path.as_str(), "is empty, and must be the password"),
        ("/nonexistent", "--password-file: cannot read /nonexistent"),
        ("/dev/zero", "--password-file: cannot read /dev/zero"),
        (folder.to_str().unwrap(), "expected a regular file"),
        ("", "--password-file: the file has no name"),
    ] {
        let (code, _, error) = run(&["stress", &target, "--password-file", path]);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(why) && !error.contains("opensesame"), "{error}");
    }
    std::fs::write(&file, "x".repeat(513)).unwrap();
    let (_, _, error) = run(&["stress", &target, "--password-file", &path]);
    assert!(error.contains("513 bytes; accepted: up to 512 bytes"), "{error}");
    std::fs::remove_file(&file).unwrap();
    // Opening a FIFO does not wait for a writer.
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let (_, _, error) = run(&["stress", &target, "--password-file", &path]);
    assert!(error.contains("expected a regular file"), "{error}");
    std::fs::remove_file(&file).unwrap();
}

/// Starts a server that calls `before` and then answers a PING. It closes the connection if
/// `before` returns false.
fn ping_server(before: impl Fn(usize) -> bool + Send + Sync + 'static) -> SocketAddr {
    serve(move |index, mut stream| {
        let mut got = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut got) {
            for _ in 0..got[..length].iter().filter(|byte| **byte == b'*').count() {
                if !before(index) || stream.write_all(b"+PONG\r\n").is_err() {
                    return;
                }
            }
        }
    })
}

/// The generator's own waits in whole milliseconds must not count as latency of the server.
#[test]
fn a_low_rate_measures_no_higher_latency_than_a_high_rate() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let p50 = |rate: u32| {
        let (_, record, _) =
            stress(&format!("tcp://{} -r {rate} -d 1s -c 4", server.address("echo")));
        percentile(&record["latency"], 50.0)
    };
    // On a busy machine, a run can be slow. One pair of eight suffices: rounded waits would make
    // each p50 of the low rate half a millisecond.
    let is_alike = (0..8).any(|_| {
        let (low, high) = (p50(300), p50(3000));
        println!("p50 at 300/s {low} us, at 3,000/s {high} us");
        low < 4.0 * high
    });
    assert!(is_alike, "the low rate measures a higher latency");
}

#[test]
fn search_finds_the_rate_of_a_server_with_slow_answers() {
    let slow = ping_server(|_| {
        sleep(Duration::from_millis(50));
        true
    });
    let (code, record, said) =
        stress(&format!("search resp://{slow} -c 50 -d 500ms --target-p99 400ms"));
    assert_eq!(code, Some(0), "{said}");
    // Fifty connections at 50 ms each can carry a thousand requests a second.
    let rate = record["requests"]["rate"].as_f64().unwrap();
    assert!(rate >= 400.0, "{rate}: {said}");
    assert_eq!(record["latency"]["corrected"], true);
}

#[test]
fn a_run_ends_after_its_number_of_requests() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let hub = server.address("hub");
    for (words, sent) in
        [("ping -n 100 -r 1000 -d 5s", 100), ("churn -n 300", 300), ("ping -n 7 -c 3 -P 2", 7)]
    {
        let (code, record, said) = stress(&format!("{words} resp://{hub}"));
        assert_eq!((code, number(&record["requests"]["sent"])), (Some(0), sent), "{words}: {said}");
        assert!(record["duration_s"].as_f64().unwrap() < 3.0, "{words}: {said}");
    }
}

/// An answer of 40 MiB is assembled once, not again for each part.
#[test]
fn a_large_answer_is_read_in_linear_time() {
    const LENGTH: usize = 40 << 20;
    let large = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            if stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&vec![b'x'; LENGTH]))
                .is_err()
            {
                return;
            }
        }
    });
    let (code, record, said) =
        stress(&format!("http://{large}/ -c 1 -n 3 -d 25s --timeout 20s --assert errors=0"));
    assert_eq!((code, number(&record["requests"]["answered"])), (Some(0), 3), "{said}");
    let cpu = record["generator"]["cpu_s"].as_f64().unwrap();
    println!("{cpu} s of processor time for 120 MiB");
}

fn start(words: &[&str]) -> Child {
    let mut command = Command::new(program());
    command
        .arg("stress")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn an_interrupted_run_prints_its_report() {
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let target = format!("resp://{}", server.address("hub"));
    let child = start(&["ping", &target, "-d", "60s", "-r", "200"]);
    server.wait_for_count("loop/bytes out", |bytes| bytes > 1000);
    signal(&child.id().to_string(), "INT");
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < PATIENCE);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted") && said.contains("p99"), "{said}");
}

#[test]
fn compare_describes_two_runs_in_text_and_on_a_page() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let files = [json_file(), json_file(), json_file().with_extension("html")];
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    for (file, pipeline) in [(names[0], "1"), (names[1], "4")] {
        let target = format!("tcp://{}", server.address("echo"));
        let (code, _, error) =
            run(&["stress", &target, "-n", "2000", "-P", pipeline, "--json", file]);
        assert_eq!(code, Some(0), "{error}");
    }
    let (code, _, error) = run(&["stress", "compare", names[0], names[0]]);
    assert_eq!(code, Some(0), "{error}");
    // The runs had different parameters, so the exit code is 1.
    let (code, output, error) = run(&["stress", "compare", names[0], names[1], "--html", names[2]]);
    assert_eq!(code, Some(1), "{error}");
    assert!(output.contains("pipeline") && output.contains("p99"), "{output}");
    assert!(std::fs::read_to_string(names[2]).unwrap().contains("<html"), "--html writes a page");
    std::fs::write(names[1], "{\"format\": 999}").unwrap();
    let (code, _, error) = run(&["stress", "compare", names[0], names[1]]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("999") || error.contains("format"), "{error}");
    files.iter().for_each(|file| drop(std::fs::remove_file(file)));
}

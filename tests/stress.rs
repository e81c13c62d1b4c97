//! `slabd stress` against servers that behave, that stall, that lie, and that are not there.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use support::load_run::{json_file, number, percentile, serve, stress};
use support::{PATIENCE, Server, program, run};

/// A server stopped for one second in the middle of a run at a fixed rate kept a fifth of the requests of five seconds waiting, on average for
/// half a second. Percentiles that count from when a request was due show it; those of a closed loop do not.
#[test]
fn a_stall_of_a_second_shows_at_p99_when_requests_are_due_by_the_clock() {
    let stalled = |words: &str| {
        let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
        let pid = server.process_id().to_string();
        let stopper = spawn(move || {
            sleep(Duration::from_secs(2));
            signal(&pid, "STOP");
            sleep(Duration::from_secs(1));
            signal(&pid, "CONT");
        });
        let (code, record, said) = stress(&format!("resp://{} -d 5s -c 10 {words}", server.address("hub")));
        stopper.join().unwrap();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(number(&record["requests"]["sent"]), number(&record["requests"]["answered"]), "{said}");
        record
    };
    let paced = stalled("--rate 1000");
    assert_eq!(paced["latency"]["corrected"], true);
    let count = number(&paced["latency"]["count"]);
    assert!((4900..=5001).contains(&count), "{count} requests at 1,000 a second for five seconds");
    let (p50, p90, p99) =
        (percentile(&paced["latency"], 50.0), percentile(&paced["latency"], 90.0), percentile(&paced["latency"], 99.0));
    // Of the fifth that waited, half waited longer than half a second: p90 is near that, p99 near 950 ms.
    println!("stalled for 1 s at 1,000/s: p50 {p50} us, p90 {p90} us, p99 {p99} us");
    assert!(p99 > 850_000.0 && p90 > 300_000.0, "p90 {p90}, p99 {p99}");
    assert!(p50 < 300_000.0, "most of the time it was not stopped: {p50}");
    let poisson = stalled("--rate 1000 --poisson");
    assert!(percentile(&poisson["latency"], 99.0) > 850_000.0);
    let closed = stalled("");
    let closed_p99 = percentile(&closed["latency"], 99.0);
    println!("the same in a closed loop: p99 {closed_p99} us");
    assert!(closed_p99 < p99 / 2.0, "ten requests waited, one for each connection: {closed_p99}");
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

/// One that never goes on is charged until the end of the run, with what was due and could not even be sent.
#[test]
fn a_server_that_stops_for_good_is_charged_with_all_that_was_due() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let pid = server.process_id().to_string();
    let stopper = spawn(move || {
        sleep(Duration::from_secs(1));
        signal(&pid, "STOP");
        pid
    });
    let (code, record, said) = stress(&format!(
        "tcp://{} -d 3s -c 4 --rate 500 --timeout 10s --assert p99<1s --assert errors=0",
        server.address("echo")
    ));
    signal(&stopper.join().unwrap(), "CONT");
    assert_eq!(code, Some(1), "{said}");
    let count = number(&record["latency"]["count"]);
    assert!((1480..=1501).contains(&count), "{count}: each request that was due counts once");
    assert!(percentile(&record["latency"], 99.0) > 1_500_000.0, "{said}");
    let errors = &record["requests"]["errors"];
    let [timed_out, unanswered] = ["timeout", "unanswered at the end"].map(|kind| errors[kind].as_u64().unwrap_or(0));
    assert_eq!(timed_out + unanswered, 4, "one on each connection; {said}");
    assert!(number(&errors["due but never sent"]) > 800, "{said}");
}

#[test]
fn every_shape_of_load_runs_against_the_hub_without_an_error() {
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
        (format!("churn resp://{hub} -d 1s --rate 500"), 480),
        (format!("fanout resp://{hub} -c 300 --messages 50 --in-flight 4"), 50),
        (format!("fanout resp://{hub} -c 100 --messages 50 --rate 100"), 50),
    ] {
        let (code, record, said) = stress(&format!("{words} --assert errors=0 --assert failed=0"));
        assert_eq!(code, Some(0), "{words}: {said}");
        let answered = number(&record["requests"]["answered"]);
        assert!(answered >= least && answered == number(&record["requests"]["sent"]), "{words}: {answered}; {said}");
        assert_eq!(number(&record["connections"]["closed_by_server"]), 0, "{words}");
        if !words.contains("udp:") {
            assert!(record["server"]["source"].as_str().unwrap().contains("process"), "{words}");
        }
        if words.starts_with("fanout") {
            let delivery = &record["delivery"];
            assert_eq!(delivery["delivered"], delivery["expected"], "{said}");
            assert_eq!((number(&delivery["lost"]), number(&delivery["out_of_order"])), (0, 0), "{said}");
            assert!(number(&delivery["delivered"]) >= 5000, "{said}");
        }
    }
}

#[test]
fn the_highest_rate_under_a_target_is_searched_for() {
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
    // Nothing answers within a microsecond.
    let (code, record, said) = stress(&format!("{words} 1us --assert rate>0"));
    assert_eq!((code, record["requests"]["rate"].as_f64()), (Some(1), Some(0.0)), "{said}");
    assert!(said.contains("No rate"), "{said}");
}

/// Each flood is bounded by the server's defences, and honest requests are served beside it.
#[test]
fn every_flood_is_replaced_as_it_is_dropped_and_probed_beside() {
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
    // All at once: each has its own probes.
    let runs: Vec<_> =
        kinds.map(|(kind, must_close)| spawn(move || flood(hub, kind, must_close))).into_iter().collect();
    runs.into_iter().for_each(|run| run.join().unwrap());
}

fn flood(hub: SocketAddr, kind: &str, must_close: bool) {
    let (code, record, said) = stress(&format!("{kind} resp://{hub} -c 100 -d 4s --probe-rate 50 --assert honest>=99"));
    assert_eq!(code, Some(0), "{kind}: {said}");
    let probes = record["probes"].as_array().unwrap();
    let phases: Vec<&str> = probes.iter().map(|probe| probe["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["before", "during", "after"]);
    assert!(number(&probes[1]["sent"]) > 150, "{kind}: {said}");
    let connections = &record["connections"];
    let (opened, closed) = (number(&connections["opened"]), number(&connections["closed_by_server"]));
    println!("{kind}: {opened} opened, {closed} closed by the server, reclaimed after {}", record["reclaim_s"]);
    // Vanished peers hear nothing of their end, and cannot be replaced.
    if must_close && kind != "vanish" {
        assert!(closed >= 90 && opened > 150, "{kind}: {opened} opened, {closed} closed by the server; {said}");
    }
    if kind == "vanish" {
        assert!(said.contains("100 peers vanished"), "{said}");
    }
    if kind == "rst" {
        assert!(opened > 1000, "{opened}");
    }
}

/// A server of a channel that leaves a message out, and one that swaps two.
#[test]
fn lost_and_reordered_messages_are_noticed() {
    for (fault, lost, out_of_order) in [("drop", 2, 0), ("swap", 0, 2)] {
        let subscribers: std::sync::Arc<std::sync::Mutex<Vec<TcpStream>>> = Default::default();
        let address = serve(move |_, mut stream| {
            let mut got = [0; 4096];
            let mut held = Vec::new();
            let mut count = 0;
            while let Ok(length @ 1..) = stream.read(&mut got) {
                if got.starts_with(b"*2\r\n$9\r\nSUBSCRIBE") {
                    stream.write_all(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n").unwrap();
                    subscribers.lock().unwrap().push(stream.try_clone().unwrap());
                    continue;
                }
                count += 1;
                let mut message = b"*3\r\n$7\r\nmessage\r\n".to_vec();
                message.extend_from_slice(&got[b"*3\r\n$7\r\nPUBLISH\r\n".len()..length]);
                match (fault, count) {
                    ("drop", 3) => message.clear(),
                    ("swap", 3) => held = std::mem::take(&mut message),
                    ("swap", 4) => message.extend(std::mem::take(&mut held)),
                    _ => {}
                }
                for subscriber in subscribers.lock().unwrap().iter_mut() {
                    subscriber.write_all(&message).unwrap();
                }
                stream.write_all(b":2\r\n").unwrap();
            }
        });
        // At a rate one at a time, so that what the server reads is one message.
        let words = format!("fanout resp://{address} -c 2 --messages 6 --rate 20 --timeout 1s --assert lost=0");
        let (code, record, said) = stress(&words);
        assert_eq!(number(&record["delivery"]["lost"]), lost, "{said}");
        assert_eq!(number(&record["delivery"]["out_of_order"]), out_of_order, "{said}");
        assert_eq!(code, Some(if lost > 0 { 1 } else { 0 }), "{said}");
    }
}

#[test]
fn wrong_answers_refusals_and_closed_connections_are_told_apart() {
    let liar = serve(|_, mut stream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n");
        sleep(PATIENCE);
    });
    let refuser = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 100]) {
            let _ = stream.write_all(b"-NOAUTH Authentication required.\r\n");
        }
    });
    let closer = serve(|_, mut stream| {
        let _ = stream.read(&mut [0; 100]);
    });
    let mute = serve(|_, _stream| sleep(PATIENCE));
    for (address, kind) in
        [(liar, "wrong answer"), (refuser, "error reply"), (closer, "connection closed"), (mute, "timeout")]
    {
        let (code, record, said) =
            stress(&format!("resp://{address} -c 2 -n 4 -d 1s --timeout 300ms --assert errors=0"));
        assert_eq!(code, Some(1), "{kind}: {said}");
        let errors = record["requests"]["errors"].as_object().unwrap();
        assert!(errors.contains_key(kind), "{kind}: {errors:?}");
        assert_eq!(said.contains("NOAUTH"), kind == "error reply", "{said}");
    }
}

#[test]
fn a_target_that_is_not_there_is_said_and_fails() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for shape in ["ping", "hold", "churn -d 300ms", "search", "fanout"] {
        let (code, record, said) = stress(&format!("{shape} resp://{nobody} -c 3"));
        assert_eq!(code, Some(1), "{shape}: {said}");
        assert!(number(&record["connections"]["failed"]["refused"]) > 0, "{shape}: {said}");
    }
    for (words, part) in [
        ("resp://127.0.0.1:1 --assert p98<1s", "p99"),
        ("silent tcp://192.0.2.1:80", "--i-am-allowed-to-test 192.0.2.1"),
        ("compare a.json", "two JSON files"),
        ("ping nowhere", "resp://"),
        ("resp://127.0.0.1:1 -c 30000", "ulimit -n"),
    ] {
        let (code, _, said) = stress(words);
        assert_eq!(code, Some(if words.contains("30000") { 1 } else { 2 }), "{words}: {said}");
        assert!(said.contains(part), "{words}: {said}");
    }
}

#[test]
fn a_password_is_given_and_a_wrong_one_is_told() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "opensesame"]);
    let address = server.address("hub");
    let (code, record, said) = stress(&format!("resp://:opensesame@{address} -n 100 --assert errors=0"));
    assert_eq!(
        (code, number(&record["requests"]["answered"])),
        (Some(0), 100),
        "AUTH is no request of the load; {said}"
    );
    assert!(!said.contains("opensesame") && !record.to_string().contains("opensesame"), "{said}");
    let (code, record, said) = stress(&format!("resp://:wrong@{address} -n 100 -c 3 -d 1s"));
    assert_eq!(code, Some(1), "{said}");
    assert!(record["connections"]["failed"].to_string().contains("WRONGPASS"), "{record}");
}

/// Answers PINGs of the Redis protocol, each after what `before` does; ends the connection when that says so.
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

/// Connections that go away while others come must not keep the load from beginning, nor starve those that are to be opened again.
#[test]
fn a_server_that_drops_connections_now_and_then_is_loaded_all_the_same() {
    // Every connection is closed after 50 ms, whatever it does.
    let dropper = serve(|_, stream| {
        let mut answering = stream.try_clone().unwrap();
        spawn(move || {
            while let Ok(1..) = answering.read(&mut [0; 4096]) {
                if answering.write_all(b"+PONG\r\n").is_err() {
                    return;
                }
            }
        });
        sleep(Duration::from_millis(50));
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    for words in ["-c 50 -r 200", "-c 20 --connect-rate 200"] {
        let (_, record, said) = stress(&format!("resp://{dropper} -d 2s --timeout 1s {words}"));
        let (sent, opened) = (number(&record["requests"]["sent"]), number(&record["connections"]["opened"]));
        assert!(sent > 200, "{words}: {sent} sent; {said}");
        assert!(opened > 100, "{words}: {opened} opened; {said}");
    }
}

#[test]
fn a_subscription_that_is_refused_or_never_confirmed_ends_the_run() {
    let refuser = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 100]) {
            let _ = stream.write_all(b"-NOAUTH Authentication required.\r\n");
        }
    });
    let mute = serve(|_, _stream| sleep(PATIENCE));
    // One of the subscribers is dropped before it is confirmed; the others do.
    let some = serve(|index, mut stream| {
        let mut got = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut got) {
            let is_subscribe = memchr::memmem::find(&got[..length], b"SUBSCRIBE").is_some();
            let answer = if is_subscribe { &b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"[..] } else { b":0\r\n" };
            if index == 2 || stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    for (address, code, part) in [(refuser, 1, "NOAUTH"), (mute, 1, "timeout"), (some, 0, "lost")] {
        let words = format!("fanout resp://{address} -c 5 --messages 3 --timeout 500ms");
        let (got, _, said) = stress(&words);
        assert!(said.contains(part), "{said}");
        assert_eq!(got, Some(code), "{said}");
    }
    assert!(begun.elapsed() < PATIENCE);
}

/// At a rate of connects, too, what a stall kept waiting is charged from when it was due.
#[test]
fn a_stall_shows_in_a_churn_at_a_rate() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let pid = server.process_id().to_string();
    let stopper = spawn(move || {
        sleep(Duration::from_secs(1));
        signal(&pid, "STOP");
        sleep(Duration::from_secs(1));
        signal(&pid, "CONT");
    });
    let (_, record, said) = stress(&format!("churn resp://{} -r 500 -c 10 -d 4s", server.address("hub")));
    stopper.join().unwrap();
    assert_eq!(record["latency"]["corrected"], true);
    let (p50, p90) = (percentile(&record["latency"], 50.0), percentile(&record["latency"], 90.0));
    // A quarter of the connects were due while it was stopped.
    assert!(p90 > 400_000.0 && p50 < 300_000.0, "p50 {p50}, p90 {p90}: {said}");
    let count = number(&record["latency"]["count"]);
    assert!((1980..=2001).contains(&count), "{count}: each that was due counts once; {said}");
}

/// What the generator adds by waiting in whole milliseconds must not be charged to the server: at low rates as at high ones.
#[test]
fn a_low_rate_is_not_measured_slower_than_a_high_one() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let p50 = |rate: u32| {
        let (_, record, _) = stress(&format!("tcp://{} -r {rate} -d 1s -c 4", server.address("echo")));
        percentile(&record["latency"], 50.0)
    };
    // On a busy machine one of them may have had bad luck: the best of three each.
    let best = |rate| (0..3).map(|_| p50(rate)).fold(f64::INFINITY, f64::min);
    let (low, high) = (best(300), best(3000));
    println!("p50 at 300/s {low} us, at 3,000/s {high} us");
    assert!(low < 4.0 * high, "{low} us at 300 a second, {high} us at 3,000");
}

#[test]
fn a_search_is_not_misled_by_answers_that_take_their_time() {
    let slow = ping_server(|_| {
        sleep(Duration::from_millis(50));
        true
    });
    let (code, record, said) = stress(&format!("search resp://{slow} -c 50 -d 500ms --target-p99 400ms"));
    assert_eq!(code, Some(0), "{said}");
    // Fifty connections at 50 ms each stand a thousand a second.
    let rate = record["requests"]["rate"].as_f64().unwrap();
    assert!(rate >= 400.0, "{rate}: {said}");
    assert_eq!(record["latency"]["corrected"], true);
}

/// A server that closes each connection behind its answer has answered.
#[test]
fn answers_that_are_the_last_of_their_connection_count() {
    let closer = serve(|_, mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    });
    let words = "-c 3 -d 1s --assert honest>=99 --assert errors=0";
    let (code, record, said) = stress(&format!("silent http://{closer}/ {words}"));
    assert_eq!(code, Some(0), "{said}");
    assert!(number(&record["probes"][0]["answered"]) > 20, "{said}");
    let (_, record, said) = stress(&format!("http://{closer}/ -c 3 -d 1s"));
    assert_eq!(record["requests"]["sent"], record["requests"]["answered"], "{said}");
    assert_eq!(record["requests"]["errors"].as_object().unwrap().len(), 0, "{said}");
}

#[test]
fn a_number_of_requests_bounds_a_rate_too() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let hub = server.address("hub");
    for (words, sent) in [("ping -n 100 -r 1000 -d 5s", 100), ("churn -n 300", 300), ("ping -n 7 -c 3 -P 2", 7)] {
        let (code, record, said) = stress(&format!("{words} resp://{hub}"));
        assert_eq!((code, number(&record["requests"]["sent"])), (Some(0), sent), "{words}: {said}");
        assert!(record["duration_s"].as_f64().unwrap() < 3.0, "{words}: {said}");
    }
}

/// An answer of 40 MB is put together once, not once for each part.
#[test]
fn a_large_answer_is_read_in_time_that_grows_with_its_length() {
    const LENGTH: usize = 40 << 20;
    let large = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b'x'; LENGTH])).is_err() {
                return;
            }
        }
    });
    let (code, record, said) = stress(&format!("http://{large}/ -c 1 -n 3 -d 25s --timeout 20s --assert errors=0"));
    assert_eq!((code, number(&record["requests"]["answered"])), (Some(0), 3), "{said}");
    let cpu = record["generator"]["cpu_s"].as_f64().unwrap();
    println!("{cpu} s of processor time for 120 MB");
}

fn start(words: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.arg("stress").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn ctrl_c_ends_with_the_report_of_what_was_done() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let target = format!("resp://{}", server.address("hub"));
    let child = start(&["ping", &target, "-d", "60s", "-r", "200"]);
    sleep(Duration::from_secs(1));
    signal(&child.id().to_string(), "INT");
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < PATIENCE);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted") && said.contains("p99"), "{said}");
}

#[test]
fn two_runs_are_compared_in_words_and_on_a_page() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let files = [json_file(), json_file(), json_file().with_extension("html")];
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    for (file, pipeline) in [(names[0], "1"), (names[1], "4")] {
        let target = format!("tcp://{}", server.address("echo"));
        let (code, _, error) = run(&["stress", &target, "-n", "2000", "-P", pipeline, "--json", file]);
        assert_eq!(code, Some(0), "{error}");
    }
    let (code, _, error) = run(&["stress", "compare", names[0], names[0]]);
    assert_eq!(code, Some(0), "{error}");
    // They did different things, which is said, also by the exit code.
    let (code, output, error) = run(&["stress", "compare", names[0], names[1], "--html", names[2]]);
    assert_eq!(code, Some(1), "{error}");
    assert!(output.contains("pipeline") && output.contains("p99"), "{output}");
    assert!(std::fs::read_to_string(names[2]).unwrap().contains("<html"), "a page");
    std::fs::write(names[1], "{\"format\": 999}").unwrap();
    let (code, _, error) = run(&["stress", "compare", names[0], names[1]]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("999") || error.contains("format"), "{error}");
    files.iter().for_each(|file| drop(std::fs::remove_file(file)));
}

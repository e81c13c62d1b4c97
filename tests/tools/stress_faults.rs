//! `slabd stress` against servers that stall, stop, drop connections, lie or are missing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::load_run::{number, percentile, serve, stress};
use crate::support::{PATIENCE, Server};

/// Stops the server for one second, a second after its first input. Returns it when it runs again.
fn stalled_for_a_second(mut server: Server) -> JoinHandle<Server> {
    spawn(move || {
        server.wait_for_count("loop/bytes in", |bytes| bytes > 0);
        sleep(Duration::from_secs(1));
        server.signal("STOP");
        sleep(Duration::from_secs(1));
        server.signal("CONT");
        server
    })
}

/// The server is stopped for one second in the middle of a run of five seconds at a fixed rate. A
/// fifth of the requests is due meanwhile, and waits half a second on average. The percentiles
/// count from the time a request is due, so they show the stall. Those of a closed loop do not.
#[test]
fn a_stall_of_one_second_shows_in_the_p99_at_a_fixed_rate() {
    let stalled = |words: &str| {
        let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
        let address = server.address("hub");
        let stopper = stalled_for_a_second(server);
        let (code, record, said) = stress(&format!("resp://{address} -d 5s -c 10 {words}"));
        stopper.join().unwrap();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            number(&record["requests"]["sent"]),
            number(&record["requests"]["answered"]),
            "{said}"
        );
        record
    };
    let paced = stalled("--rate 1000");
    assert_eq!(paced["latency"]["corrected"], true);
    let count = number(&paced["latency"]["count"]);
    assert!((4900..=5001).contains(&count), "{count} requests at 1,000 a second for five seconds");
    let (p50, p90, p99) = (
        percentile(&paced["latency"], 50.0),
        percentile(&paced["latency"], 90.0),
        percentile(&paced["latency"], 99.0),
    );
    // Half of that fifth waits longer than half a second, so p90 is near that, and p99 near 950 ms.
    println!("stalled for 1 s at 1,000/s: p50 {p50} us, p90 {p90} us, p99 {p99} us");
    assert!(p99 > 850_000.0 && p90 > 300_000.0, "p90 {p90}, p99 {p99}");
    assert!(p50 < 300_000.0, "the server was stopped for only a fifth of the run: {p50}");
    let poisson = stalled("--rate 1000 --poisson");
    assert!(percentile(&poisson["latency"], 99.0) > 850_000.0);
    let closed = stalled("");
    let closed_p99 = percentile(&closed["latency"], 99.0);
    println!("the same in a closed loop: p99 {closed_p99} us");
    assert!(
        closed_p99 < p99 / 2.0,
        "only ten requests waited, one on each connection: {closed_p99}"
    );
}

/// Every request that is due until the end of the run counts, even if the client cannot send it.
#[test]
fn a_stopped_server_is_charged_with_every_due_request() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let address = server.address("echo");
    let stopper = spawn(move || {
        server.wait_for_count("loop/bytes in", |bytes| bytes > 0);
        sleep(Duration::from_secs(1));
        server.signal("STOP");
        server
    });
    let (code, record, said) = stress(&format!(
        "tcp://{address} -d 3s -c 4 --rate 500 --timeout 10s --assert p99<1s --assert errors=0"
    ));
    stopper.join().unwrap().signal("CONT");
    assert_eq!(code, Some(1), "{said}");
    let count = number(&record["latency"]["count"]);
    assert!((1480..=1501).contains(&count), "{count}: each due request counts once");
    assert!(percentile(&record["latency"], 99.0) > 1_500_000.0, "{said}");
    let errors = &record["requests"]["errors"];
    let [timed_out, unanswered] =
        ["timeout", "unanswered at the end"].map(|kind| errors[kind].as_u64().unwrap_or(0));
    assert_eq!(timed_out + unanswered, 4, "one request on each connection waits; {said}");
    assert!(number(&errors["due but never sent"]) > 800, "{said}");
}

/// One server leaves a message out, and another swaps two.
#[test]
fn fanout_counts_lost_and_reordered_messages() {
    for (fault, lost, out_of_order) in [("drop", 2, 0), ("swap", 0, 2)] {
        let subscribers: std::sync::Arc<std::sync::Mutex<Vec<TcpStream>>> = Default::default();
        let address = serve(move |_, mut stream| {
            let mut got = [0; 4096];
            let mut held = String::new();
            let mut count = 0;
            while let Ok(length @ 1..) = stream.read(&mut got) {
                if got.starts_with(b"*2\r\n$9\r\nSUBSCRIBE") {
                    stream.write_all(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n").unwrap();
                    subscribers.lock().unwrap().push(stream.try_clone().unwrap());
                    continue;
                }
                // Beside a busy generator, several come at once.
                let commands = String::from_utf8_lossy(&got[..length]).into_owned();
                for publish in commands.split("*3\r\n$7\r\nPUBLISH\r\n").skip(1) {
                    count += 1;
                    let mut message = format!("*3\r\n$7\r\nmessage\r\n{publish}");
                    match (fault, count) {
                        ("drop", 3) => message.clear(),
                        ("swap", 3) => held = std::mem::take(&mut message),
                        ("swap", 4) => message.push_str(&std::mem::take(&mut held)),
                        _ => {}
                    }
                    for subscriber in subscribers.lock().unwrap().iter_mut() {
                        subscriber.write_all(message.as_bytes()).unwrap();
                    }
                    stream.write_all(b":2\r\n").unwrap();
                }
            }
        });
        // The rate is low, so the server reads no part of a command.
        let words = format!(
            "fanout resp://{address} -c 2 --messages 6 --rate 20 --timeout 1s --assert lost=0"
        );
        let (code, record, said) = stress(&words);
        assert_eq!(number(&record["delivery"]["lost"]), lost, "{said}");
        assert_eq!(number(&record["delivery"]["out_of_order"]), out_of_order, "{said}");
        assert_eq!(code, Some(if lost > 0 { 1 } else { 0 }), "{said}");
    }
}

#[test]
fn wrong_answers_errors_closes_and_timeouts_are_counted_apart() {
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
    for (address, kind) in [
        (liar, "wrong answer"),
        (refuser, "error reply"),
        (closer, "connection closed"),
        (mute, "timeout"),
    ] {
        let (code, record, said) =
            stress(&format!("resp://{address} -c 2 -n 4 -d 1s --timeout 300ms --assert errors=0"));
        assert_eq!(code, Some(1), "{kind}: {said}");
        let errors = record["requests"]["errors"].as_object().unwrap();
        assert!(errors.contains_key(kind), "{kind}: {errors:?}");
        assert_eq!(said.contains("NOAUTH"), kind == "error reply", "{said}");
    }
}

/// A server that is full answers with an error and closes the connection.
#[test]
fn an_error_reply_counts_as_no_answer_in_every_shape() {
    let full = serve(|index, mut stream| {
        if index >= 3 {
            let _ = stream.write_all(b"-ERR max number of clients reached\r\n");
            return;
        }
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            if stream.write_all(b"+PONG\r\n").is_err() {
                return;
            }
        }
    });
    let (_, record, said) = stress(&format!("hold resp://{full} -c 9 -d 300ms --timeout 1s"));
    assert!(said.contains("3 connections got an answer after opening, and 3 at the end"), "{said}");
    assert!(said.contains("max number of clients reached"), "{said}");
    assert_eq!(number(&record["requests"]["answered"]), 6, "{said}");
    assert_eq!(number(&record["requests"]["errors"]["error reply"]), 6, "{said}");
    let refuser = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 100]) {
            let _ = stream.write_all(b"-ERR no\r\n");
        }
    });
    let unavailable = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 1000]) {
            let _ = stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = socket.local_addr().unwrap();
    spawn(move || {
        let mut chunk = [0; 100];
        while let Ok((length, peer)) = socket.recv_from(&mut chunk) {
            let answer = [&b"-ERR "[..], &chunk[..length]].concat();
            let _ = socket.send_to(&answer, peer);
        }
    });
    for words in [
        format!("ping resp://{refuser} -n 9 -c 3"),
        format!("ping resp://{refuser} -r 100 -d 100ms -c 3"),
        format!("hold resp://{refuser} -c 9 -d 100ms"),
        format!("churn resp://{refuser} -n 9 -c 3"),
        format!("ping tcp://{refuser} -n 9 -c 3 --send PING\\r\\n"),
        format!("ping http://{unavailable} -n 9 -c 3"),
        format!("churn http://{unavailable} -n 9 -c 3"),
        format!("ping udp://{datagrams} -n 9 -c 3 --send PING\\x20{{seq}}\\r\\n"),
    ] {
        let (code, record, said) = stress(&format!("{words} --timeout 2s"));
        assert_eq!(code, Some(1), "{words}: {said}");
        let requests = &record["requests"];
        assert_eq!(number(&requests["answered"]), 0, "{words}: {said}");
        assert_eq!(requests["errors"]["error reply"], requests["sent"], "{words}: {said}");
        assert_eq!(record["latency"], serde_json::Value::Null, "{words}: an error has no time");
        assert!(
            said.contains("the server replied with an error") || said.contains("The server re")
        );
    }
}

/// The addresses of a name are tried in turn. `localhost` has two on most machines.
#[test]
fn the_address_in_use_is_named() {
    use std::net::ToSocketAddrs;
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let port = server.address("hub").port();
    let (code, record, said) = stress(&format!("resp://localhost:{port} -n 5 -c 1"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(record["address"], format!("127.0.0.1:{port}"), "{said}");
    assert!(said.contains(&format!(", connected to 127.0.0.1:{port}.")), "{said}");
    let first = ("localhost", port).to_socket_addrs().unwrap().next().unwrap();
    let is_note = said.contains(&format!("[::1]:{port} (refused)"));
    assert_eq!(is_note, first.is_ipv6(), "{said}");
}

#[test]
fn a_target_without_a_server_fails_with_a_message() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for shape in ["ping", "hold", "churn -d 300ms", "search", "fanout"] {
        let (code, record, said) = stress(&format!("{shape} resp://{nobody} -c 3"));
        assert_eq!(code, Some(1), "{shape}: {said}");
        assert!(number(&record["connections"]["failed"]["refused"]) > 0, "{shape}: {said}");
    }
    for (words, part) in [
        ("resp://127.0.0.1:1 --assert p98<1s", "p99"),
        ("silent tcp://192.0.2.1:80", "--i-am-allowed-to-test 192.0.2.1"),
        ("compare a.json", "compare needs two files"),
        ("ping nowhere", "resp://"),
        ("resp://127.0.0.1:1 -c 30000", "ulimit -n"),
    ] {
        let (code, _, said) = stress(words);
        assert_eq!(code, Some(if words.contains("30000") { 1 } else { 2 }), "{words}: {said}");
        assert!(said.contains(part), "{words}: {said}");
    }
}

/// Closed connections neither delay the start of the load nor keep the client from opening new
/// ones.
#[test]
fn a_server_that_drops_connections_is_still_loaded() {
    // The server closes every connection after 50 ms.
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
        let (sent, opened) =
            (number(&record["requests"]["sent"]), number(&record["connections"]["opened"]));
        assert!(sent > 200, "{words}: {sent} sent; {said}");
        assert!(opened > 100, "{words}: {opened} opened; {said}");
    }
}

#[test]
fn a_refused_or_unconfirmed_subscription_ends_the_run() {
    let refuser = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 100]) {
            let _ = stream.write_all(b"-NOAUTH Authentication required.\r\n");
        }
    });
    let mute = serve(|_, _stream| sleep(PATIENCE));
    // The server drops one subscriber before its confirmation.
    let some = serve(|index, mut stream| {
        let mut got = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut got) {
            let is_subscribe = memchr::memmem::find(&got[..length], b"SUBSCRIBE").is_some();
            let answer = if is_subscribe {
                &b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"[..]
            } else {
                b":0\r\n"
            };
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

/// At a rate of connects, the latency also counts from the time a connect is due.
#[test]
fn a_stall_shows_in_the_percentiles_of_a_churn_at_a_rate() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let address = server.address("hub");
    let stopper = stalled_for_a_second(server);
    let (_, record, said) = stress(&format!("churn resp://{address} -r 500 -c 10 -d 4s"));
    stopper.join().unwrap();
    assert_eq!(record["latency"]["corrected"], true);
    let (p50, p90) = (percentile(&record["latency"], 50.0), percentile(&record["latency"], 90.0));
    // A quarter of the connects is due during the stall.
    assert!(p90 > 400_000.0 && p50 < 300_000.0, "p50 {p50}, p90 {p90}: {said}");
    let count = number(&record["latency"]["count"]);
    assert!((1980..=2001).contains(&count), "{count}: each due connect counts once; {said}");
}

/// The server closes each connection after its answer.
#[test]
fn an_answer_counts_even_if_the_server_closes_after_it() {
    let closer = serve(|_, mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    });
    let words = "-c 3 -d 1s --assert honest>=99 --assert errors=0";
    let (code, record, said) = stress(&format!("silent http://{closer}/ {words}"));
    assert_eq!(code, Some(0), "{said}");
    assert!(number(&record["probes"][0]["answered"]) > 20, "{said}");
    let (_, record, said) = stress(&format!("http://{closer}/ -c 3 -d 1s"));
    assert_eq!(record["requests"]["sent"], record["requests"]["answered"], "{said}");
    assert_eq!(record["requests"]["errors"].as_object().unwrap().len(), 0, "{said}");
}

//! Floods of `slabd stress`, as the server sees them, and their reports; and lost datagrams over
//! UDP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::load_run::{
    json_file, number, percentile, record_in, serve, serve_at, stress, stress_with,
};
use crate::support::{PATIENCE, Server, program};
use serde_json::Value;

/// Returns true for honest requests. They come from 127.2.0.0/16 if attackers have several sources.
fn is_honest(stream: &TcpStream) -> bool {
    matches!(stream.peer_addr().unwrap().ip(), IpAddr::V4(ip) if ip.octets()[1] == 2)
}

/// Answers each request of a connection with this reply.
fn answer(mut stream: TcpStream, reply: &str) {
    while let Ok(1..) = stream.read(&mut [0; 4096]) {
        let _ = stream.write_all(reply.as_bytes());
    }
}

fn probe<'a>(record: &'a Value, phase: &str) -> &'a Value {
    record["probes"].as_array().unwrap().iter().find(|probe| probe["phase"] == phase).unwrap()
}

fn notes(record: &Value) -> String {
    record["notes"].to_string()
}

const HTTP: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_slowloris_never_completes_its_request() {
    let kinds =
        [("resp", "+PONG\r\n", ""), ("http", HTTP, ""), ("tcp", "ok\n", "--send version\\r\\n")];
    let runs = kinds.map(|(scheme, reply, more)| {
        spawn(move || {
            let heard: Arc<Mutex<HashMap<usize, Vec<u8>>>> = Arc::default();
            let hears = heard.clone();
            let address = serve(move |index, mut stream| {
                if is_honest(&stream) {
                    return answer(stream, reply);
                }
                let mut chunk = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut chunk) {
                    hears
                        .lock()
                        .unwrap()
                        .entry(index)
                        .or_default()
                        .extend_from_slice(&chunk[..length]);
                }
            });
            let words =
                format!("slowloris {scheme}://{address} -c 4 --sources 2 -d 4s --drip 20ms {more}");
            let (code, record, said) = stress(&words);
            assert_eq!(code, Some(0), "{said}");
            let during = probe(&record, "during");
            assert!(number(&during["answered"]) > 60, "{scheme}: {during}");
            let heard = heard.lock().unwrap();
            assert_eq!(heard.len(), 4, "{scheme}");
            for said in heard.values() {
                let text = said.escape_ascii().to_string();
                assert!(said.len() > 50, "{scheme}: {text}");
                match scheme {
                    "resp" => {
                        let head = b"*2\r\n$4\r\nECHO\r\n$16384\r\n";
                        assert!(
                            said.starts_with(head) && said.len() < head.len() + 16384,
                            "{text}"
                        );
                    }
                    "http" => assert!(
                        said.starts_with(b"GET / HTTP/1.1\r\nHost: ")
                            && !text.contains("\\r\\n\\r\\n"),
                        "{text}"
                    ),
                    _ => assert!(said.starts_with(b"versiona") && !said.contains(&b'\n'), "{text}"),
                }
            }
        })
    });
    runs.into_iter().for_each(|run| run.join().unwrap());
}

#[test]
fn unread_connections_that_the_server_closes_are_counted_and_replaced() {
    let kinds = ["slow-read --drip 50ms", "zero-window"];
    let runs = kinds.map(|kind| {
        spawn(move || {
            let address = serve(|_, mut stream| {
                if is_honest(&stream) {
                    return answer(stream, "+PONG\r\n");
                }
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                while let Ok(1..) = stream.read(&mut [0; 4096]) {}
                // The server has read all input, so its close sends a FIN and no reset.
                let _ = stream.write_all(b"+PONG\r\n+PONG\r\n+PONG\r\n");
            });
            let (code, record, said) =
                stress(&format!("{kind} resp://{address} -c 10 --sources 2 --size 10 -d 4s"));
            assert_eq!(code, Some(0), "{said}");
            let connections = &record["connections"];
            let closed = number(&connections["closed_by_server"]);
            assert!(closed >= 20, "{kind}: the server closed {closed} connections; {said}");
            // The opened connections include the probes: twenty a second for about 11 s.
            let probes: u64 = record["probes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|probe| number(&probe["answered"]))
                .sum();
            assert!(number(&connections["opened"]) >= probes + closed, "{kind}: {connections}");
        })
    });
    runs.into_iter().for_each(|run| run.join().unwrap());
}

#[test]
fn attackers_connect_at_their_rate_from_the_start_of_the_flood() {
    let attackers = Arc::new(AtomicUsize::new(0));
    let counts = attackers.clone();
    let address = serve(move |_, stream| {
        if !is_honest(&stream) {
            counts.fetch_add(1, Ordering::Relaxed);
        }
        answer(stream, "+PONG\r\n");
    });
    let (code, _, said) =
        stress(&format!("silent resp://{address} -c 100 --connect-rate 20 -d 2s"));
    assert_eq!(code, Some(0), "{said}");
    let attackers = attackers.load(Ordering::Relaxed);
    // Attackers that came in the two seconds before the flood would be another 40.
    assert!(
        (20..=45).contains(&attackers),
        "{attackers} attackers came in two seconds at 20 a second"
    );
}

/// A request without an answer counts with the time that it has waited.
#[test]
fn honest_requests_that_time_out_count_in_the_percentiles() {
    let address = serve(|_, mut stream| while let Ok(1..) = stream.read(&mut [0; 4096]) {});
    let words =
        format!("silent resp://{address} -c 4 --sources 2 -d 1s --timeout 400ms --probe-rate 50");
    let (code, record, said) = stress(&words);
    assert_eq!(code, Some(1), "{said}");
    for phase in ["before", "during", "after"] {
        let probe = probe(&record, phase);
        assert_eq!(
            (number(&probe["answered"]), &probe["sent"]),
            (0, &probe["latency"]["count"]),
            "{probe}"
        );
        assert!(
            number(&probe["sent"]) >= 40 && percentile(&probe["latency"], 50.0) >= 400_000.0,
            "{probe}"
        );
    }
    // The server is this process, which did not grow.
    assert!(!notes(&record).contains(" 0.0 MiB"), "{}", notes(&record));
}

#[test]
fn honest_requests_in_flight_are_bounded_and_a_note_says_so() {
    let received = Arc::new(AtomicUsize::new(0));
    let counter = received.clone();
    let address = serve(move |_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let words =
        format!("silent resp://{address} -c 4 --sources 2 -d 10s --timeout 60s --probe-rate 1000");
    let file = json_file();
    let mut command = Command::new(program());
    command.args(["stress", "--json", file.to_str().unwrap()]).args(words.split_whitespace());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while received.load(Ordering::Relaxed) < 256 {
        assert!(Instant::now() < deadline, "the server received {received:?} honest requests");
        sleep(Duration::from_millis(10));
    }
    // More requests fall due meanwhile.
    sleep(Duration::from_millis(500));
    interrupt(child);
    let record = record_in(&file);
    assert!(notes(&record).contains("256 were in flight"), "{}", notes(&record));
    let before = probe(&record, "before");
    assert_eq!(
        (number(&before["sent"]), number(&before["answered"])),
        (0, 0),
        "an interrupted request does not count"
    );
    assert_eq!(record["interrupted"], true);
}

fn interrupt(child: std::process::Child) {
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    child.wait_with_output().unwrap();
}

#[test]
fn a_short_flood_is_measured_at_its_peak_and_reclaims_nothing() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let (code, record, said) =
        stress(&format!("silent resp://{} -c 20 -d 500ms", server.address("hub")));
    assert_eq!(code, Some(0), "{said}");
    let memory = &record["server"];
    assert!(number(&memory["rss_at_peak"]) > 0, "{memory}");
    assert!(number(&memory["connections"]) >= 20, "{memory}");
    assert!(
        notes(&record).contains("nothing to free") && record["reclaim_s"].is_null(),
        "{}",
        notes(&record)
    );
    // After the flood, the memory is sampled often.
    let ended = record["duration_s"].as_f64().unwrap() - 4.5;
    let times =
        record["samples"].as_array().unwrap().iter().map(|sample| sample["t_s"].as_f64().unwrap());
    assert!(times.filter(|t_s| *t_s > ended).count() >= 12, "{said}");
}

/// Unread answers take memory in the server until their readers close.
#[test]
fn the_time_to_reclaim_memory_is_measured() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    // The first flood touches pages of the program that stay resident.
    stress(&format!("slow-read resp://{} -c 40 -d 500ms", server.address("hub")));
    let (code, record, said) =
        stress(&format!("slow-read resp://{} -c 400 -d 2s", server.address("hub")));
    assert_eq!(code, Some(0), "{said}");
    let memory = &record["server"];
    let grown = number(&memory["rss_at_peak"]).saturating_sub(number(&memory["rss_before"]));
    assert!(grown > 10 << 20, "{memory}");
    let reclaim_s = record["reclaim_s"].as_f64();
    assert!(reclaim_s.is_some_and(|seconds| seconds > 0.0), "{} {said}", notes(&record));
}

/// The server gets no FIN or reset from the vanished peers before the report.
#[test]
fn vanished_peers_send_nothing_until_the_report_is_written() {
    let (ended, at_last_probe) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (ends, seen) = (ended.clone(), at_last_probe.clone());
    let address = serve(move |_, mut stream| {
        if is_honest(&stream) {
            seen.store(ends.load(Ordering::SeqCst), Ordering::SeqCst);
            return answer(stream, "+PONG\r\n");
        }
        while let Ok(1..) = stream.read(&mut [0; 4096]) {}
        ends.fetch_add(1, Ordering::SeqCst);
    });
    let (code, record, said) = stress(&format!("vanish resp://{address} -c 20 --sources 2 -d 1s"));
    assert_eq!(code, Some(0), "{said}");
    assert!(notes(&record).contains("20 peers vanished"), "{}", notes(&record));
    assert!(number(&probe(&record, "after")["answered"]) > 80, "{said}");
    assert_eq!(
        at_last_probe.load(Ordering::SeqCst),
        0,
        "connections had ended before the last probe"
    );
}

/// INFO makes the generator wait, so it is sent only before and after the timed parts.
#[test]
fn info_is_requested_only_when_no_request_is_timed() {
    // Connecting a UDP socket finds the machine's own address without a packet.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let own = match own.map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) if !ip.is_loopback() && ip != Ipv4Addr::UNSPECIFIED => ip,
        other => {
            return println!("SKIPPED: this machine has only loopback addresses: {other:?}");
        }
    };
    let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
    let counts = asked.clone();
    let open = Arc::new(AtomicUsize::new(0));
    let address = serve_at(&format!("{own}:0"), move |_, mut stream| {
        open.fetch_add(1, Ordering::SeqCst);
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            if chunk[..length].ends_with(b"INFO\r\n$6\r\nmemory\r\n") {
                let rss = 10_000_000 + 1_000_000 * open.load(Ordering::SeqCst) as u64;
                counts.lock().unwrap().push(rss);
                let text = format!("used_memory_rss:{rss}\r\n");
                let _ = stream.write_all(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
            } else {
                let _ = stream.write_all(b"+PONG\r\n");
            }
        }
        open.fetch_sub(1, Ordering::SeqCst);
    });
    let (code, record, said) = stress(&format!(
        "silent resp://{address} -c 20 -d 3s --i-am-allowed-to-test {own} --timeout 2s"
    ));
    assert_eq!(code, Some(0), "{said}");
    let asked = asked.lock().unwrap();
    assert!((3..=4).contains(&asked.len()), "{asked:?}");
    assert!(
        asked[asked.len() - 2] >= 30_000_000,
        "INFO comes before the attackers close: {asked:?}"
    );
    assert_eq!(
        number(&record["server"]["rss_at_peak"]),
        asked[asked.len() - 2],
        "{}",
        record["server"]
    );
    let samples = record["samples"].as_array().unwrap();
    assert!(
        samples
            .iter()
            .all(|sample| sample["server_rss"].is_null() && sample["kernel_bytes"].is_null())
    );
    assert!(
        notes(&record).contains("the moment at which it was freed is unknown")
            && !notes(&record).contains(" 0.0 MiB"),
        "{}",
        notes(&record)
    );
}

#[test]
fn a_datagram_that_cannot_be_sent_or_answered_counts_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let open = socket.local_addr().unwrap();
    let long = "x".repeat(70_000);
    let target = format!("udp://{open}");
    let (code, record, said) = stress_with(&[
        "ping",
        &target,
        "-n",
        "5",
        "-c",
        "1",
        "--timeout",
        "300ms",
        "--send",
        &long,
    ]);
    assert_eq!(code, Some(1));
    let errors = record["requests"]["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let (kind, count) = errors.iter().next().unwrap();
    assert!(kind.starts_with("send: ") && number(count) == 5, "{errors:?}; {}", said.len());
    assert_eq!(number(&record["latency"]["count"]), 5);
    drop(socket);
    let (code, record, said) = stress(&format!("udp://{open} -n 10 -c 2 --timeout 300ms"));
    assert_eq!((code, number(&record["requests"]["errors"]["lost"])), (Some(1), 10), "{said}");
    assert!(notes(&record).contains("over UDP a closed port"), "{said}");
}

/// Each due datagram counts once, whether it was sent or not.
#[test]
fn due_datagrams_that_could_not_be_sent_count_in_the_latency() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    let (_, record, said) =
        stress(&format!("udp://{address} -c 1 -d 1s --rate 20000000 --timeout 200ms"));
    let requests = &record["requests"];
    let unsent = number(&requests["errors"]["due but never sent"]);
    assert!(unsent > 0, "{said}");
    assert!(number(&requests["sent"]).abs_diff(20_000_000 - unsent) <= 2, "{requests}");
    assert_eq!(
        number(&record["latency"]["count"]),
        number(&requests["sent"]) + unsent,
        "{requests}"
    );
    assert!(percentile(&record["latency"], 50.0) > 200_000.0, "{said}");
}

/// A quick refusal is not a success.
#[test]
fn a_refused_request_does_not_count_as_served() {
    let refuser = serve(|_, mut stream| {
        while let Ok(1..) = stream.read(&mut [0; 100]) {
            let _ = stream.write_all(b"-DENIED go away\r\n");
        }
    });
    let (code, record, said) =
        stress(&format!("silent resp://{refuser} -c 60 -d 1s --assert honest>=1"));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(number(&record["probes"][1]["answered"]), 0, "{said}");
    assert!(said.contains("before the flood began") && said.contains("DENIED"), "{said}");
}

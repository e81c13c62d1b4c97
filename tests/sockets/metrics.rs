//! `GET /metrics`: both formats of Prometheus, and what promtool says of them.

use std::collections::HashMap;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::hub_answers::{connect, hub, info};
use crate::support::programs::{available, bounded};
use crate::support::{Client, Server};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Requests the metrics. Returns the head of the response, and the text.
fn scrape(server: &Server, accept: &str) -> (String, String) {
    let mut client = Client::connect(server.address("hub"));
    let host = server.address("hub");
    client.send(format!(
        "GET /metrics HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    ));
    let response = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    (head.to_string(), body.to_string())
}

/// Returns the samples of a text by their names with labels.
fn samples(text: &str) -> HashMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

#[test]
fn promtool_has_no_complaint_about_the_metrics() {
    if !available("promtool", "prometheus") {
        return;
    }
    let server = hub();
    let mut subscriber = connect(&server);
    subscriber.send("SUBSCRIBE a\r\n").read_line();
    let (_, text) = scrape(&server, "text/plain");
    let mut promtool = bounded("promtool");
    promtool.args(["check", "metrics"]);
    promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "promtool: {said}\n{text}");
}

#[test]
fn both_formats_have_the_same_samples() {
    let server = hub();
    let (text_head, text) = scrape(&server, "*/*");
    let (open_head, open) = scrape(&server, OPEN_METRICS);
    assert!(text_head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8"));
    let kind = format!("\r\nContent-Type: {OPEN_METRICS}; charset=utf-8");
    assert!(open_head.contains(&kind), "{open_head}");
    assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF"));
    let names = |text| {
        let mut names: Vec<&str> = samples(text).into_keys().collect();
        names.sort_unstable();
        names.join("\n")
    };
    assert_eq!(names(&text), names(&open));
    assert!(open.contains("# UNIT process_cpu_seconds seconds\n"), "{open}");
}

#[test]
fn the_metrics_show_what_clients_and_the_loop_did() {
    let mut server = hub();
    let mut subscriber = connect(&server);
    subscriber.send("SUBSCRIBE a\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    let mut publisher = connect(&server);
    publisher.send("PUBLISH a b\r\n".repeat(3)).expect(":1\r\n".repeat(3));
    let listener = server.address("hub");
    let before = scrape(&server, "").1;
    // The server notices a moment later that the connection has ended.
    server.wait_for_count("connections/held", |held| held == 2);
    let (_, text) = scrape(&server, "");
    let (before, after) = (samples(&before), samples(&text));
    let backlog = format!("slabd_accept_queue_max{{listener=\"{listener}\"}}");
    for (name, value) in [
        ("slabd_sessions{protocol=\"resp\"}", 2.0),
        ("slabd_sessions{protocol=\"http\"}", 1.0),
        ("slabd_connections_held", 3.0),
        ("slabd_connections_closed_total{reason=\"service-closed\"}", 1.0),
        ("slabd_pubsub_published_messages_total", 3.0),
        ("slabd_pubsub_delivered_messages_total", 3.0),
        ("slabd_pubsub_channels", 1.0),
        ("slabd_http_requests_total", 1.0),
        ("slabd_accept_gate_info{accept_gate=\"open\"}", 1.0),
        (
            "slabd_loop_poll_delay_seconds_bucket{le=\"+Inf\"}",
            after["slabd_loop_poll_delay_seconds_count"],
        ),
        (backlog.as_str(), 4096.0),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name} in\n{text}");
    }
    for name in [
        "slabd_loop_turns_total",
        "slabd_loop_duration_seconds_count",
        "slabd_loop_duration_seconds_sum",
        "slabd_loop_writes_per_turn_count",
        "slabd_received_bytes_total",
        "slabd_sent_bytes_total",
    ] {
        assert!(after[name] > before[name], "{name} was {} and is {}", before[name], after[name]);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - after["process_start_time_seconds"];
    assert!((0.0..Duration::from_secs(300).as_secs_f64()).contains(&age), "started {age} s ago");
    assert!(after["process_resident_memory_bytes"] > 1e6);
    assert!(after["slabd_loop_busy_share_ratio"] <= 1.0);
    let rows = info(&mut publisher, "loop");
    let duration = &rows["loop/duration_ns"];
    assert!(duration.starts_with("count=") && duration.contains(",p99="), "{duration}");
}

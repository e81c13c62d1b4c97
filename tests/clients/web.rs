//! Clients of HTTP and WebSocket: curl, wrk, and libraries of Node and Python.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Output, Stdio};

use crate::hub;
use crate::support::hub_answers::{Answer, subscribe};
use crate::support::programs::{available, bounded, installed, ours, succeeded};
use crate::support::{PATIENCE, Server};

/// Runs curl silently with these arguments. A slash at the beginning of an argument stands for the
/// server.
fn curl(server: &Server, arguments: &[&str]) -> Output {
    let home = format!("http://{}", server.address("hub"));
    let mut command = bounded("curl");
    command.args(["--silent", "--show-error"]);
    for argument in arguments {
        match argument.strip_prefix('/') {
            Some(path) => command.arg(format!("{home}/{path}")),
            None => command.arg(argument),
        };
    }
    command.stdin(Stdio::null()).output().expect("timeout (coreutils) runs")
}

#[track_caller]
fn curled(server: &Server, arguments: &[&str]) -> String {
    succeeded(&format!("curl {arguments:?}"), &curl(server, arguments))
}

#[test]
fn the_library_ws_uses_the_hub() {
    let Some(modules) = installed("node_modules") else { return };
    let server = hub();
    let mut node = bounded("node");
    node.arg(ours("websocket.js")).arg(server.address("hub").port().to_string());
    let output = node.env("NODE_PATH", modules).output().expect("timeout (coreutils) runs");
    assert_eq!(succeeded("websocket.js", &output), "done\n");
}

#[test]
fn python_libraries_use_the_hub_by_websocket() {
    let Some(python) = installed("venv/bin/python") else { return };
    for library in ["websockets", "picows"] {
        let server = hub();
        let mut command = bounded(&python);
        command.arg(ours("websocket.py")).arg(server.address("hub").port().to_string());
        let output = command.arg(library).output().expect("timeout (coreutils) runs");
        assert_eq!(succeeded(library, &output), "done\n", "{library}");
    }
}

#[test]
fn curl_publishes() {
    if !available("curl", "curl") {
        return;
    }
    let server = hub();
    let mut subscriber = subscribe(&server, "a/b");
    let mut publish = |arguments: &[&str], payload: &str| {
        let mut all = vec!["--fail-with-body"];
        all.extend(arguments);
        assert_eq!(
            curled(&server, &[&all[..], &["/publish/a%2Fb"]].concat()).trim(),
            r#"{"receivers":1}"#
        );
        let parts = Answer::read(&mut subscriber).array();
        assert_eq!(parts[2], Answer::Text(payload.into()), "{arguments:?}");
    };
    publish(&["--data", "hello"], "hello");
    publish(&["--data", ""], "");
    publish(&["--json", r#"{"a":1}"#], r#"{"a":1}"#);
    publish(&["--http1.0", "--data", "old"], "old");
    publish(&["--header", "Transfer-Encoding: chunked", "--data", "in chunks"], "in chunks");
    publish(&["--header", "Expect: 100-continue", "--data", "expected"], "expected");
    // curl itself expects 100 before a body of this size.
    let large = "x".repeat(2 << 20);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("large_body");
    std::fs::write(&file, &large).expect("the folder of test files is writable");
    let from_file = format!("@{}", file.display());
    publish(&["--data-binary", &from_file], &large);
    publish(&["--header", "Transfer-Encoding: chunked", "--data-binary", &from_file], &large);
}

#[test]
fn curl_follows_events() {
    if !available("curl", "curl") {
        return;
    }
    let server = hub();
    let mut command = bounded("curl");
    let url = |path: &str| format!("http://{}{path}", server.address("hub"));
    command.args(["--silent", "--no-buffer", "--include", &url("/events?channel=a&pattern=c.*")]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("timeout (coreutils) runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output is piped"))
        .lines()
        .map_while(Result::ok);
    let mut until = |text: &str| {
        let mut read = Vec::new();
        for line in lines.by_ref() {
            read.push(line);
            if read.last().is_some_and(|line| line.starts_with(text)) {
                return read;
            }
        }
        panic!("no {text:?} after {read:?}");
    };
    let head = until("retry: ").join("\n").to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    for (path, body) in [("/publish/a", "1"), ("/publish/b", "2"), ("/publish/c.d", "three")] {
        curled(&server, &["--fail", "--data", body, path]);
    }
    let events: Vec<String> = until(r#"data: {"channel":"c.d""#)
        .into_iter()
        .filter(|line| line.starts_with("data: "))
        .collect();
    assert_eq!(
        events,
        [
            r#"data: {"channel":"a","data":1}"#,
            r#"data: {"channel":"c.d","pattern":"c.*","data":"three"}"#,
        ]
    );
    child.kill().expect("it still runs");
    child.wait().expect("waiting works");
}

#[test]
fn curl_sees_the_same_head_by_head_and_by_get() {
    if !available("curl", "curl") {
        return;
    }
    let server = hub();
    let head = |text: String| -> Vec<String> {
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        head.lines().filter(|line| !line.starts_with("Date:")).map(str::to_string).collect()
    };
    for path in ["/", "/healthz", "/readyz", "/publish/a", "/nowhere"] {
        let got = head(curled(&server, &["--include", path]));
        assert_eq!(head(curled(&server, &["--head", path])), got, "{path}");
        let status = match path {
            "/nowhere" => "404",
            "/publish/a" => "405",
            _ => "200",
        };
        assert!(got[0].contains(status), "{path}: {got:?}");
    }
}

#[test]
fn curl_keeps_a_connection_for_all_requests() {
    if !available("curl", "curl") {
        return;
    }
    let server = hub();
    let paths = ["/healthz", "/nowhere", "/publish/a", "/readyz"];
    let mut arguments = Vec::new();
    for path in paths {
        if !arguments.is_empty() {
            arguments.push("--next");
        }
        arguments.extend(["--silent", "--write-out", "%{http_code} %{num_connects}\\n", path]);
    }
    let text = curled(&server, &arguments);
    let connects: Vec<&str> =
        text.split_whitespace().filter(|word| ["0", "1"].contains(word)).collect();
    assert_eq!(connects, ["1", "0", "0", "0"], "{text}");
}

#[test]
fn curl_gives_the_password_in_each_way() {
    if !available("curl", "curl") {
        return;
    }
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "open sesame"]);
    let status = |arguments: &[&str]| {
        let mut all = vec!["--write-out", "\n%{http_code}", "--data", "x"];
        all.extend(arguments);
        curled(&server, &all).lines().last().unwrap_or_default().to_string()
    };
    assert_eq!(status(&["/publish/a"]), "401");
    assert_eq!(status(&["--user", "default:open sesame", "/publish/a"]), "200");
    assert_eq!(status(&["--user", ":open sesame", "/publish/a"]), "200");
    assert_eq!(status(&["--user", "default:wrong", "/publish/a"]), "401");
    assert_eq!(status(&["--oauth2-bearer", "open sesame", "/publish/a"]), "200");
    assert_eq!(status(&["/publish/a?token=open%20sesame"]), "200");
    assert_eq!(status(&["/publish/a?token=wrong"]), "401");
    assert_eq!(curled(&server, &["/healthz"]).trim(), r#"{"status":"ok"}"#);
}

#[test]
fn pipelined_requests_get_their_answers_in_order() {
    let server = hub();
    let mut stream = TcpStream::connect(server.address("hub")).expect("the hub accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut requests = String::new();
    for n in 0..100 {
        let body = "x".repeat(n);
        requests += &format!("GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        requests += &format!(
            "POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n{body}"
        );
        requests += "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    }
    stream.write_all(requests.as_bytes()).expect("the hub reads");
    stream.shutdown(Shutdown::Write).expect("the stream is open");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the hub answers all and closes");
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["404", "200", "200"].repeat(100));
}

#[test]
fn wrk_gets_no_errors() {
    if !available("wrk", "wrk") {
        return;
    }
    let server = hub();
    let mut wrk = bounded("wrk");
    wrk.args(["--threads", "1", "--connections", "50", "--duration", "1s"]);
    let output = wrk.arg(format!("http://{}/healthz", server.address("hub"))).output();
    let text = succeeded("wrk", &output.expect("timeout (coreutils) runs"));
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let count = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let count: u32 = count.and_then(|(count, _)| count.parse().ok()).unwrap_or_default();
    assert!(count > 0, "{text}");
}

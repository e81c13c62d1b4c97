//! HTTP on real sockets: each status and the words with it, and what other clients of HTTP must not
//! be able to do.

use std::process::Command;

use crate::support::hub_answers::info_number;
use crate::support::programs::available;
use crate::support::{Client, Server};

fn hub(arguments: &[&str]) -> Server {
    Server::start(&[&["--listen", "hub=127.0.0.1:0"], arguments].concat())
}

/// Sends a request on a connection of its own and returns all that is answered until it ends.
fn ask(server: &Server, request: &str) -> String {
    let mut client = Client::connect(server.address("hub"));
    client.send(request);
    client.0.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    String::from_utf8(client.read_to_end().expect("an answer and a FIN")).expect("text")
}

/// Checks the status, a field and a part of the text of an answer.
#[track_caller]
fn check(answer: &str, status: u16, field: &str, text: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(format!("{head}\r\n").contains(field), "no {field:?} in {answer}");
    assert!(head.contains("\r\nServer: slabd\r\n"), "{answer}");
    assert!(body.contains(text), "no {text:?} in {answer}");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(format!("{head}\r\n").contains(&length), "{answer}");
    if status >= 400 {
        assert!(body.starts_with("{\"error\":\"") && body.ends_with("\"}\n"), "{answer}");
    }
}

#[test]
fn each_refusal_has_its_status_and_says_what_is_accepted() {
    let server = hub(&["--max-head", "2KiB", "--max-headers", "20"]);
    let host = "Host: localhost\r\n";
    let long = "a".repeat(3000);
    for (line, fields, status, field, text) in [
        ("GET /healthz HTTP/1.1", "", 200, "Content-Type: application/json", "\"ok\""),
        ("GET / HTTP/1.1", "A : b\r\n", 400, "Connection: close", "before the colon"),
        ("GET /ws/%zz HTTP/1.1", "", 400, "", "such as %20"),
        ("GET / HTTP/1.1", "Origin: http://evil.example\r\n", 403, "", "--allow-origin"),
        ("GET /nowhere HTTP/1.1", "", 404, "", "/publish/CHANNEL"),
        ("GET /publish/a HTTP/1.1", "", 405, "Allow: POST, OPTIONS\r\n", "this path takes POST"),
        ("DELETE /healthz HTTP/1.1", "", 405, "Allow: GET, HEAD, OPTIONS\r\n", "takes GET"),
        ("POST /publish/a HTTP/1.1", "", 411, "Connection: close", "Content-Length or"),
        ("POST /publish/a HTTP/1.1", "Content-Length: 99999999\r\n", 413, "", "--max-message"),
        (&format!("GET /{long} HTTP/1.1"), "", 414, "Connection: close", "--max-head"),
        ("GET /healthz HTTP/1.1", "Expect: x\r\n", 417, "", "100-continue"),
        ("GET /ws HTTP/1.1", "", 426, "Upgrade: websocket\r\nConnection: Upgrade\r\n", "WebSocket"),
        ("GET / HTTP/1.1", &format!("A: {long}\r\n"), 431, "Connection: close", "--max-head"),
        ("GET / HTTP/1.1", &"A: b\r\n".repeat(20), 431, "", "--max-headers"),
        ("BREW /healthz HTTP/1.1", "", 501, "", "GET, HEAD, POST"),
        ("CONNECT localhost:1 HTTP/1.1", "", 501, "", "GET, HEAD, POST"),
        ("POST / HTTP/1.1", "Transfer-Encoding: gzip\r\n", 501, "", "accepted: chunked"),
        ("GET / HTTP/2.0", "", 505, "Connection: close", "HTTP/1.1"),
    ] {
        check(&ask(&server, &format!("{line}\r\n{host}{fields}\r\n")), status, field, text);
    }
    let strange = ask(&server, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    check(&strange, 403, "", "--allow-host");
}

#[test]
fn a_request_that_is_not_complete_in_time_is_told_so() {
    let server = hub(&["--message-timeout", "1s"]);
    let mut client = Client::connect(server.address("hub"));
    client.send("POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf");
    let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    check(&answer, 408, "Connection: close", "not complete in time");
}

#[test]
fn without_the_password_only_the_page_and_health_are_served() {
    let server = hub(&["--requirepass", "secret"]);
    let request = |path: &str, fields: &str| {
        ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    };
    for path in ["/healthz", "/readyz", "/"] {
        assert!(request(path, "").starts_with("HTTP/1.1 200 "), "{path}");
    }
    for path in ["/metrics", "/events/a", "/events?channel=a"] {
        check(&request(path, ""), 401, "WWW-Authenticate: Basic", "Authorization: Bearer");
        let wrong = request(path, "Authorization: Bearer wrong\r\n");
        check(&wrong, 401, "WWW-Authenticate: Basic", "wrong password");
    }
    let right = "Authorization: Bearer secret\r\n";
    assert!(request("/metrics", right).starts_with("HTTP/1.1 200 "));
    assert!(request("/metrics?token=secret", "").starts_with("HTTP/1.1 200 "));
}

/// A library that speaks HTTP/2 at once, and methods that a page or a server-side fetcher may send.
#[test]
fn a_body_of_http_runs_no_command_whatever_the_client_speaks() {
    if !available("curl", "curl") {
        return;
    }
    let server = hub(&[]);
    let home = format!("http://{}", server.address("hub"));
    let mut tried = 0;
    for path in ["/", "/healthz", "/nowhere"] {
        for arguments in [
            &["--http2-prior-knowledge"][..],
            &["--http2"],
            &["--http1.0"],
            &["--request", "PROPFIND"],
            &["--request", "SEARCH"],
            &["--request", "QUERY"],
            &["--request", "LOCK"],
            &["--request", "ping"],
            &["--request", "PUBLISH"],
            &["--header", "Transfer-Encoding: chunked"],
            &["--header", "Host: evil.example"],
        ] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--output", "/dev/null", "--max-time", "5", "--http0.9"]);
            curl.args(["--data-binary", "\r\nPUBLISH owned 1\r\n"]).args(arguments);
            curl.arg(format!("{home}{path}")).status().expect("curl runs");
            tried += 1;
        }
    }
    let mut observer = Client::connect(server.address("hub"));
    // Each try reached the hub.
    assert_eq!(info_number(&mut observer, "accepted"), tried + 1);
    assert_eq!(info_number(&mut observer, "published_messages"), 0);
}

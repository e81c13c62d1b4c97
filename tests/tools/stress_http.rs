//! `slabd stress` against HTTP servers: where answers end, how connections are replaced, and the
//! requests that a user gives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use crate::support;
use crate::support::load_run::{number, percentile, serve, stress, stress_with};

/// Reads one request without a body. Returns false at the end of the connection.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut got = Vec::new();
    let mut byte = [0; 1024];
    while !got.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(length @ 1..) => got.extend_from_slice(&byte[..length]),
            _ => return false,
        }
    }
    true
}

/// Starts a server that gives this answer to every request, in parts of `step` bytes. After
/// `requests` of them it closes the connection in order.
fn answering(answer: &'static [u8], step: usize, requests: usize) -> SocketAddr {
    serve(move |_, mut stream| {
        let _ = stream.set_nodelay(true);
        for _ in 0..requests {
            if !read_request(&mut stream) {
                return;
            }
            for part in answer.chunks(step) {
                if stream.write_all(part).is_err() {
                    return;
                }
            }
        }
        // Reads on until the client closes, too, so that no reset follows.
        let _ = stream.shutdown(Shutdown::Write);
        while let Ok(1..) = stream.read(&mut [0; 1024]) {}
    })
}

const ALWAYS: usize = usize::MAX;

#[test]
fn every_answer_ends_where_it_ends() {
    for (answer, requests) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], ALWAYS),
        (b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ALWAYS),
        (b"HTTP/1.1 304 x\r\nContent-Length: 99\r\n\r\n", ALWAYS),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x, Chunked\r\n\r\n\
              2;a\r\nhi\r\n0\r\nB: c\r\n\r\n",
            ALWAYS,
        ),
        (b"HTTP/1.1 200\nContent-Length: 5, 5\nX: y\n z\n\nhello", ALWAYS),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 1),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 1),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 1),
    ] {
        for step in [1, answer.len()] {
            let address = answering(answer, step, requests);
            let words = format!("http://{address}/ -c 2 -n 20 -d 5s --timeout 2s");
            let (code, record, said) =
                stress(&format!("{words} --assert errors=0 --assert answered=20"));
            assert_eq!(code, Some(0), "{} by {step}: {said}", answer.escape_ascii());
            let reconnects = number(&record["connections"]["reconnects"]);
            let expected = if requests == 1 { 18..=20 } else { 0..=0 };
            assert!(expected.contains(&reconnects), "{}: {said}", answer.escape_ascii());
        }
    }
}

#[test]
fn an_answer_that_is_broken_is_an_error_with_a_name() {
    for (answer, requests, kind) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"[..], 1, "answer cut short"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", 1, "answer cut short"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            1,
            "answer cut short",
        ),
        (b"not http\r\n\r\n", ALWAYS, "wrong answer: no status line of HTTP/1"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", ALWAYS, "wrong answer: 101 ends HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
            ALWAYS,
            "wrong answer: a Content-Length",
        ),
        (b"", 1, "connection closed"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ALWAYS, "error reply"),
        (b"HTTP/1.0 503 Busy\r\n\r\nlater", 1, "error reply"),
    ] {
        let address = answering(answer, answer.len().max(1), requests);
        let words = format!("http://{address}/ -c 2 -n 8 -d 5s --timeout 2s");
        let (code, record, said) = stress(&words);
        let errors = record["requests"]["errors"].as_object().expect("errors");
        let counted: u64 =
            errors.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, n)| number(n)).sum();
        assert_eq!((code, counted), (Some(1), 8), "{}: {said}", answer.escape_ascii());
        assert_eq!(number(&record["requests"]["answered"]), 0, "{said}");
        assert!(said.contains(kind), "{said}");
    }
    let long = ["HTTP/1.1 200 OK\r\n", &"a: b\r\n".repeat(20_000)].concat();
    let address = answering(long.leak().as_bytes(), ALWAYS, ALWAYS);
    let (_, _, said) = stress(&format!("http://{address}/ -c 1 -n 1 -d 5s"));
    assert!(said.contains("wrong answer: a head of more than 64 KiB"), "{said}");
}

/// Waits of the generator must not count as latency of the server.
#[test]
fn a_connection_that_the_server_closes_in_order_is_replaced_at_once() {
    let announced = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let silent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for answer in [&announced[..], silent] {
        let address = answering(answer, ALWAYS, 1);
        let html =
            std::env::temp_dir().join(format!("slabd-reconnects-{}.html", std::process::id()));
        let words = format!(
            "http://{address}/ -c 2 -n 60 -d 20s --assert errors=0 --html {}",
            html.display()
        );
        let (code, record, said) = stress(&words);
        assert_eq!(code, Some(0), "{said}");
        let connections = &record["connections"];
        assert!((58..=60).contains(&number(&connections["reconnects"])), "{said}");
        assert!(said.contains("reconnects"), "{said}");
        let page = std::fs::read_to_string(&html).expect("the page is written");
        let _ = std::fs::remove_file(&html);
        assert!(page.contains("reconnects"), "the page counts them");
        // With the pause of a failed connect, 30 rounds take 3 s.
        let duration = record["duration_s"].as_f64().unwrap();
        assert!(duration < 2.0, "{duration} s: {said}");
    }
    let address = answering(announced, ALWAYS, 1);
    let words = format!("http://{address}/ -c 4 -r 200 -d 2s --assert errors=0");
    let (code, record, said) = stress(&words);
    assert_eq!(code, Some(0), "{said}");
    let p50 = percentile(&record["latency"], 50.0);
    assert!(p50 < 50_000.0, "p50 {p50} us; a pause is 100 ms");
    assert_eq!(record["latency"]["corrected"], true);
}

#[test]
fn a_request_that_may_not_be_repeated_is_an_error_when_the_connection_closes() {
    // The server closes after each answer and does not say so.
    let silent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let address = answering(silent, ALWAYS, 1);
    let words = format!("http://{address}/ -c 1 -n 10 -d 5s --method PATCH");
    let (_, record, said) = stress(&words);
    assert!(number(&record["requests"]["errors"]["connection closed"]) > 0, "{said}");
    assert_eq!(number(&record["requests"]["repeated"]), 0, "{said}");
    let (_, record, said) = stress(&format!("http://{address}/ -c 1 -n 10 -d 5s"));
    assert!(number(&record["requests"]["repeated"]) > 0 && said.contains("sent again"), "{said}");
    assert_eq!(number(&record["requests"]["sent"]), 10, "{said}");
}

/// Starts a server that passes each request on, with a body of the length that the head gives.
fn recorded() -> (SocketAddr, Receiver<String>) {
    let (sends, receives) = channel();
    let sends = Arc::new(Mutex::new(sends));
    let address = serve(move |_, mut stream| {
        let mut got = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            got.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&got).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
                continue;
            }
            let _ = sends.lock().unwrap().send(text.clone());
            got.clear();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
            let body = if head.starts_with("HEAD") { "" } else { "ok" };
            let _ = stream.write_all(format!("{answer}{body}").as_bytes());
        }
    });
    (address, receives)
}

#[test]
fn the_request_is_the_one_that_the_user_gives() {
    let (address, requests) = recorded();
    let file = std::env::temp_dir().join(format!("slabd-body-{}", std::process::id()));
    std::fs::write(&file, "from a file").unwrap();
    let from_file = format!("@{}", file.display());
    let target = format!("http://{address}");
    for (words, expected) in [
        (vec!["/a#b"], format!("GET /a HTTP/1.1\r\nHost: {address}\r\n\r\n")),
        (vec!["?q=1"], format!("GET /?q=1 HTTP/1.1\r\nHost: {address}\r\n\r\n")),
        (
            vec!["/", "--method", "HEAD", "-H", "Accept: a/b", "-H", "X: y:z"],
            format!("HEAD / HTTP/1.1\r\nHost: {address}\r\nAccept: a/b\r\nX: y:z\r\n\r\n"),
        ),
        (
            vec!["/", "--header", "Host: example.org", "--body", "-text"],
            "POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\n-text".to_string(),
        ),
        (
            vec!["/", "--method", "PUT", "--body", &from_file],
            format!("PUT / HTTP/1.1\r\nHost: {address}\r\nContent-Length: 11\r\n\r\nfrom a file"),
        ),
        (
            vec!["/", "--send", "HEAD /x HTTP/1.1\\r\\nHost: y\\r\\n\\r\\n"],
            "HEAD /x HTTP/1.1\r\nHost: y\r\n\r\n".to_string(),
        ),
    ] {
        let target = format!("{target}{}", words[0]);
        let mut arguments = vec![target.as_str(), "-n", "2", "-c", "1", "--assert", "errors=0"];
        arguments.extend(&words[1..]);
        let (code, _, said) = stress_with(&arguments);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        for _ in 0..2 {
            assert_eq!(requests.recv().unwrap(), expected, "{words:?}");
        }
    }
    let _ = std::fs::remove_file(&file);
    // A flood's requests have the same headers.
    let words = ["slowloris", &target, "-H", "X: y", "-c", "1", "-d", "100ms", "--drip", "1ms"];
    let (code, _, said) = stress_with(&words);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn credentials_reach_an_http_server_and_no_report() {
    let (address, requests) = recorded();
    let expected = "Authorization: Basic YW5uOnMzY3JldA==\r\n";
    let file = std::env::temp_dir().join(format!("slabd-http-password-{}", std::process::id()));
    std::fs::write(&file, "s3cret\n").unwrap();
    let (in_url, user_only) =
        (format!("http://ann:s3cret@{address}/"), format!("http://ann@{address}/"));
    for words in
        [vec![in_url.as_str()], vec![&user_only, "--password-file", file.to_str().unwrap()]]
    {
        let (code, record, said) = stress_with(&[&words[..], &["-n", "1", "-c", "1"]].concat());
        assert_eq!(code, Some(0), "{said}");
        assert!(requests.recv().unwrap().contains(expected));
        let all = format!("{said}{record}");
        assert!(!all.contains("s3cret") && !all.contains("YW5u"), "{all}");
    }
    let nameless = format!("http://{address}/");
    let words = ["stress", &nameless, "--password-file", file.to_str().unwrap()];
    let (code, _, error) = support::run(&words);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("a password needs a user, as in http://USER@"), "{error}");
    let _ = std::fs::remove_file(&file);
}

/// An answer of many megabytes without a length is read as it comes, and none of it is kept.
#[test]
fn a_body_that_ends_with_the_connection_takes_no_memory() {
    const LENGTH: usize = 80 << 20;
    let large = serve(|_, mut stream| {
        if read_request(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.write_all(&vec![b'x'; LENGTH]);
        }
    });
    let words = format!("http://{large}/ -c 1 -n 2 -d 25s --timeout 20s --assert errors=0");
    let (code, record, said) = stress(&words);
    assert_eq!((code, number(&record["requests"]["answered"])), (Some(0), 2), "{said}");
    let resident = number(&record["generator"]["rss_at_peak"]);
    assert!(resident < 64 << 20, "{resident} bytes");
}

/// The loop waits for the next request of a rate without missing an answer meanwhile.
#[test]
fn a_rate_of_a_thousand_adds_no_wait_to_an_answer() {
    let address = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ALWAYS, ALWAYS);
    let best = (0..3)
        .map(|_| {
            let words = format!("http://{address}/ -c 4 -r 1000 -d 1s --assert errors=0");
            let (code, record, said) = stress(&words);
            assert_eq!(code, Some(0), "{said}");
            sleep(Duration::from_millis(10));
            percentile(&record["latency"], 50.0)
        })
        .fold(f64::INFINITY, f64::min);
    assert!(best < 2000.0, "{best} us");
}

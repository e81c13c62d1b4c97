//! Requests to the hub: bodies up to their limit, deadlines of slow ones, and what pages of other
//! origins may send.

use slabd::connection::Reason;
use slabd::limits::{Limits, MAX_MESSAGE_MIN};
use slabd::net::sim::{ClientId, End};

use crate::sim::{SECOND, Sim, all, hub, limits, subscriber};

/// Sends a request and returns the answer.
fn ask(sim: &mut Sim, client: ClientId, request: impl AsRef<[u8]>) -> String {
    sim.send(client, request);
    all(sim, client)
}

/// Returns a POST to the channel `a` with these fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /publish/a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

#[test]
fn a_body_is_published_up_to_max_message_and_refused_above() {
    let max = MAX_MESSAGE_MIN;
    let mut sim = hub(Limits { max_message: max, ..limits() });
    for (length, fits) in [(0, true), (1, true), (max - 1, true), (max, true), (max + 1, false)] {
        let body = "x".repeat(length);
        let counted = post(&format!("Content-Length: {length}\r\n"), &body);
        let mut chunks = String::new();
        for chunk in body.as_bytes().chunks(10_000) {
            let chunk = std::str::from_utf8(chunk).unwrap();
            chunks += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        }
        let chunked = post("Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n"));
        for request in [counted, chunked] {
            let client = sim.accepted();
            let witness = subscriber(&mut sim, "a");
            let answer = ask(&mut sim, client, &request);
            let heard = all(&mut sim, witness);
            if fits {
                assert!(answer.starts_with("HTTP/1.1 200 "), "{length}: {answer}");
                assert!(answer.ends_with("\r\n\r\n{\"receivers\":1}\n"), "{length}: {answer}");
                assert!(heard.ends_with(&format!("${length}\r\n{body}\r\n")), "{length}");
            } else {
                assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
                assert!(answer.contains("--max-message"), "{answer}");
                assert_eq!(heard, "", "{length}");
            }
            assert_eq!(sim.is_ended(client), !fits, "{length}");
            sim.net().client_close(client);
            sim.net().client_close(witness);
            sim.turns(3);
        }
    }
}

#[test]
fn a_body_that_is_announced_too_long_is_refused_before_it_arrives() {
    let mut sim = hub(Limits { max_message: MAX_MESSAGE_MIN, ..limits() });
    for fields in ["Content-Length: 65537\r\n", "Content-Length: 65537\r\nExpect: 100-continue\r\n"]
    {
        let client = sim.accepted();
        let answer = ask(&mut sim, client, post(fields, ""));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(sim.is_ended(client));
    }
}

#[test]
fn a_client_that_asks_before_it_sends_its_body_is_told_to_go_on_once() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    let head = post("Expect: 100-continue\r\nContent-Length: 3\r\n", "");
    assert_eq!(ask(&mut sim, client, &head), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(ask(&mut sim, client, "a"), "");
    assert!(ask(&mut sim, client, "bc").starts_with("HTTP/1.1 200 "));
    // A body that is there needs no permission.
    let whole = post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc");
    assert!(ask(&mut sim, client, whole).starts_with("HTTP/1.1 200 "));
    // HTTP/1.0 knows no such answer.
    let old = head.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(ask(&mut sim, client, old), "");
    assert!(ask(&mut sim, client, "abc").starts_with("HTTP/1.1 200 "));
}

#[test]
fn requests_are_answered_in_order_however_many_arrive_at_once() {
    let mut sim = hub(limits());
    let (client, witness) = (sim.accepted(), subscriber(&mut sim, "a"));
    let mut stream = String::new();
    for number in 0..100 {
        stream += &post(&format!("Content-Length: {}\r\n", number % 7), &"x".repeat(number % 7));
        stream += "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream += "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    }
    let answer = ask(&mut sim, client, &stream);
    let lines = answer.match_indices("HTTP/1.1 ").map(|(at, line)| &answer[at + line.len()..]);
    let statuses: Vec<&str> = lines.filter_map(|rest| rest.get(..3)).collect();
    assert_eq!(statuses, ["200", "200", "404"].repeat(100));
    assert_eq!(all(&mut sim, witness).matches("message").count(), 100);
    assert!(!sim.is_ended(client));
}

/// Requests that do not end, and what is sent on and on in them.
fn endless() -> [(String, &'static str); 5] {
    [
        ("G".to_string(), "E"),
        ("GET / HTTP/1.1\r\n".into(), "A: b\r\n"),
        ("GET / HTTP/1.1\r\nHost: ".into(), "a"),
        (post("Content-Length: 100\r\n", ""), "x"),
        (post("Transfer-Encoding: chunked\r\n", "64\r\n"), "x"),
    ]
}

#[test]
fn a_dripped_head_or_body_is_closed_at_the_deadline_of_its_first_byte() {
    let settings = Limits { message_timeout: 2 * SECOND, ..limits() };
    let whole = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (begun, drip) in endless() {
        for before in ["", whole] {
            let mut sim = hub(settings.clone());
            let client = sim.accepted();
            sim.exchange(client, format!("{before}{begun}"));
            for _ in 0..19 {
                sim.send(client, drip);
                sim.pass(SECOND / 10);
            }
            assert_eq!(sim.net().client_saw(client), End::Open, "{begun:?} is closed early");
            sim.send(client, drip);
            sim.pass(SECOND / 5);
            assert_eq!(sim.closed(Reason::MessageTimeout), 1, "{begun:?}");
            let answer = sim.received(client);
            let is_told = answer.contains("HTTP/1.1 408 ") && answer.contains("{\"error\":\"");
            // Without a line it may be the beginning of a command.
            let may_be_command = begun == "G" && before.is_empty();
            assert!(is_told != may_be_command, "{begun:?}: {answer}");
            assert_eq!(sim.reactor.connections(), 0, "{begun:?}");
        }
    }
}

#[test]
fn half_a_request_is_silent_and_makes_way_for_a_newcomer() {
    for (begun, drip) in endless() {
        let mut sim = hub(Limits { max_silent: 3, ..limits() });
        let mut clients = Vec::new();
        for _ in 0..10 {
            sim.pass(SECOND / 10);
            let client = sim.accepted();
            sim.exchange(client, &begun);
            clients.push(client);
            clients.iter().for_each(|client| sim.send(*client, drip));
        }
        sim.pass(SECOND / 10);
        assert_eq!(sim.closed(Reason::Recycled), 7, "{begun:?}");
        let whole = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let newcomer = sim.accepted();
        assert!(sim.exchange(newcomer, whole).starts_with("HTTP/1.1 200 "), "{begun:?}");
        let held = sim.reactor.connections();
        assert!(held <= 4, "{begun:?}: {held} connections");
    }
}

/// A request of an honest client, and the answer that it must get.
struct Asked {
    request: String,
    status: u16,
    /// The body, or nothing for HEAD.
    body: String,
    /// What it publishes to the channel `a`.
    published: Option<String>,
}

/// Returns a random request of an honest client.
fn random_request(random: &mut fastrand::Rng) -> Asked {
    let names = ["Host", "host", "HOST"];
    let mut fields = format!("{}: localhost\r\n", names[random.usize(..3)]);
    for number in 0..random.usize(..4) {
        fields += &format!("X-{number}:{}value\r\n", [" ", "", "\t "][random.usize(..3)]);
    }
    let before = if random.u8(..8) == 0 { "\r\n" } else { "" };
    let (method, path, status, body) = match random.usize(..6) {
        0 => ("GET", "/healthz", 200, "{\"status\":\"ok\"}\n"),
        1 => ("HEAD", "/healthz", 200, ""),
        2 => ("GET", "http://localhost:1/readyz", 200, "{\"status\":\"ok\"}\n"),
        3 => ("OPTIONS", "*", 204, ""),
        _ => ("POST", "/publish/a", 200, "{\"receivers\":1}\n"),
    };
    let body = body.to_string();
    if method != "POST" {
        let request = format!("{before}{method} {path} HTTP/1.1\r\n{fields}\r\n");
        return Asked { request, status, body, published: None };
    }
    let payload: String = (0..random.usize(..200)).map(|_| random.alphanumeric()).collect();
    let sent = if random.bool() {
        format!("Content-Length: {}\r\n\r\n{payload}", payload.len())
    } else {
        let (mut chunks, mut rest) = (String::new(), payload.as_str());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
            let extension = if random.bool() { "" } else { ";a=\"b\"" };
            chunks += &format!("{:x}{extension}\r\n{chunk}\r\n", chunk.len());
            rest = after;
        }
        let trailer = if random.bool() { "" } else { "X-Sum: 1\r\n" };
        format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n{trailer}\r\n")
    };
    let request = format!("{before}{method} {path} HTTP/1.1\r\n{fields}{sent}");
    Asked { request, status, body, published: Some(payload) }
}

/// Honest clients beside each other, whose requests arrive in random pieces.
#[test]
fn honest_clients_get_the_answers_that_a_model_expects_at_any_cut() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sim = hub(Limits { messages_per_turn: random.usize(1..8), ..limits() });
        let witness = subscriber(&mut sim, "a");
        let mut clients = Vec::new();
        for _ in 0..3 {
            let asked: Vec<Asked> =
                (0..random.usize(1..12)).map(|_| random_request(&mut random)).collect();
            let stream: String = asked.iter().map(|one| one.request.as_str()).collect();
            clients.push((sim.accepted(), asked, stream.into_bytes()));
        }
        while clients.iter().any(|(.., left)| !left.is_empty()) {
            for (client, _, left) in &mut clients {
                let most = left.len().min(if random.bool() { 5 } else { 300 });
                let piece: Vec<u8> = left.drain(..random.usize(..=most)).collect();
                sim.send(*client, piece);
                sim.turn();
            }
        }
        let mut published = Vec::new();
        for (client, asked, _) in clients {
            let mut answer = &*all(&mut sim, client);
            for one in &asked {
                let (head, rest) = answer.split_once("\r\n\r\n").expect("an answer");
                let status = format!("HTTP/1.1 {} ", one.status);
                assert!(head.starts_with(&status), "{seed}: {}\n{head}", one.request);
                answer = rest.strip_prefix(&one.body).unwrap_or_else(|| {
                    panic!("{seed}: {}\n{head}\n{rest}", one.request);
                });
            }
            assert_eq!(answer, "", "{seed}");
            published.extend(asked.into_iter().filter_map(|one| one.published));
        }
        let heard = all(&mut sim, witness);
        let mut heard: Vec<&str> = heard
            .split("$7\r\nmessage\r\n$1\r\na\r\n$")
            .skip(1)
            .map(|one| one.split("\r\n").nth(1).expect("a payload"))
            .collect();
        heard.sort_unstable();
        published.sort_unstable();
        assert_eq!(heard, published, "{seed}");
    }
}

/// What a page can send without asking first: GET, HEAD and POST, with the types of a form, and the
/// handshake of a WebSocket. Browsers add Origin, or Sec-Fetch-Site where there is none.
#[test]
fn nothing_that_a_page_of_another_origin_sends_without_a_preflight_runs() {
    let mut sim = hub(limits());
    let witness = subscriber(&mut sim, "a");
    let port = sim.address.port();
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    let senders = [
        format!("{own}Origin: http://evil.example\r\n"),
        format!("{own}Origin: https://evil.example:{port}\r\n"),
        format!("{own}Origin: http://127.0.0.1:1\r\n"),
        format!("{own}Origin: http://localhost:{port}\r\n"),
        format!("{own}Origin: null\r\n"),
        format!("{own}Origin: http://evil.example\r\nSec-Fetch-Site: none\r\n"),
        format!("{own}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"),
        format!("{own}Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\n"),
        // A name of the page's own that points here (DNS rebinding).
        format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n"),
        format!("Host: evil.example:{port}\r\nSec-Fetch-Site: same-origin\r\n"),
        format!("Host: evil.example:{port}\r\n"),
        "Host: localhost.evil.example\r\nOrigin: http://localhost.evil.example\r\n".into(),
    ];
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut requests = Vec::new();
    let forms =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    for body in ["owned", "PUBLISH a owned\r\n", "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1\r\n1\r\n"] {
        let length = body.len();
        for form in forms {
            let rest = format!("Content-Type: {form}\r\nContent-Length: {length}\r\n\r\n{body}");
            requests.extend(["/publish/a", "/ws/a", "/"].map(|path| ("POST", path, rest.clone())));
        }
    }
    for path in ["/ws", "/ws/a", "/echo"] {
        let frame = "\u{1}\u{0}PUBLISH a owned\r\n";
        requests.push(("GET", path, format!("{websocket}{frame}")));
    }
    for path in ["/events/a", "/events?channel=a", "/metrics", "/publish/a", "/ws"] {
        requests.push(("GET", path, "\r\n".into()));
        requests.push(("HEAD", path, "\r\n".into()));
    }
    for sender in &senders {
        for (method, path, rest) in &requests {
            let client = sim.accepted();
            let request = format!("{method} {path} HTTP/1.1\r\n{sender}{rest}");
            let answer = ask(&mut sim, client, &request);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{request}\n{answer}");
            assert!(!answer.contains("Access-Control-Allow-Origin"), "{request}\n{answer}");
            assert!(!answer.contains("HTTP/1.1 101 "), "{request}\n{answer}");
            sim.net().client_close(client);
            sim.turns(3);
            assert_eq!(sim.received(witness), "", "{request}");
        }
        // And no preflight allows more.
        let client = sim.accepted();
        let preflight = format!(
            "OPTIONS /publish/a HTTP/1.1\r\n{sender}Access-Control-Request-Method: POST\r\n\r\n"
        );
        let answer = ask(&mut sim, client, &preflight);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{preflight}\n{answer}");
        assert!(!answer.contains("Access-Control"), "{preflight}\n{answer}");
        sim.net().client_close(client);
        sim.turns(3);
    }
    // The same requests of the own page are served.
    let client = sim.accepted();
    let fields = format!("{own}Origin: http://127.0.0.1:{port}\r\nContent-Length: 5\r\n");
    let answer = ask(&mut sim, client, format!("POST /publish/a HTTP/1.1\r\n{fields}\r\nowned"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(sim.received(witness).ends_with("owned\r\n"));
}

#[test]
fn a_subscription_over_a_limit_gets_429_and_its_connection_ends() {
    // The last channel is not for an address that has others.
    for (max_channels, status) in [(1, 429), (3, 0)] {
        let mut sim = hub(Limits { max_channels, ..limits() });
        subscriber(&mut sim, "a");
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (path, fields, served) in [
            ("/ws/b", upgrade, 101),
            ("/events/b", "", 200),
            ("/events?channel=a&channel=b", "", 200),
            // A channel that has a subscriber is no further one.
            ("/ws/a", upgrade, 101),
            ("/events/a", "", 200),
        ] {
            let client = sim.accepted();
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            let answer = ask(&mut sim, client, request);
            let is_refused = status == 429 && path.ends_with('b');
            let expected = if is_refused { status } else { served };
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{path}: {answer}");
            if is_refused {
                assert!(answer.contains("\r\nConnection: close\r\n"), "{path}: {answer}");
                assert!(answer.contains("{\"error\":\"too many subscriptions"), "{path}: {answer}");
                assert!(answer.contains("--max-channels"), "{path}: {answer}");
            }
            assert_eq!(sim.is_ended(client), is_refused, "{path}");
            sim.net().client_close(client);
            sim.turns(3);
            // Nothing of a refused subscription stays.
            let publisher = sim.accepted();
            let receivers = sim.exchange(publisher, "PUBLISH a x\r\nPUBLISH b x\r\n");
            assert_eq!(receivers, ":1\r\n:0\r\n", "{path}");
        }
    }
}

#[test]
fn a_readiness_check_that_arrives_with_a_drain_gets_503() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(ask(&mut sim, client, request("/readyz")).starts_with("HTTP/1.1 200 "));
    // A later check is refused, because a drain closes the listeners.
    sim.send(client, request("/readyz"));
    sim.reactor.drain();
    let answer = all(&mut sim, client);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"status\":\"draining\"}\n"), "{answer}");
    assert!(sim.is_ended(client));
}

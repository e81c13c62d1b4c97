//! `slabd stress` over WebSocket and server-sent events: against slabd, and against servers that
//! refuse, push, lose, reorder and close.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use slabd::codec::websocket::{Decoded, Decoder, Opcode, Role, accept_key, encode, encode_close};

use crate::support::Server;
use crate::support::load_run::{expect_all_delivered, number, serve, stress};

#[test]
fn every_shape_of_load_runs_over_websocket_and_events() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let hub = server.address("hub");
    for (words, least) in [
        (format!("ping ws://{hub}/echo -n 20000 -P 8 --size 100"), 20_000),
        (format!("ping ws://{hub}/echo -n 200 -c 2 --size 70000"), 200),
        (format!("ping ws://{hub}/ws/own -n 2000 -c 10"), 2000),
        (format!("ping ws://{hub}/ws -n 2000 --send {{\"ping\":1}}"), 2000),
        (format!("hold ws://{hub}/ws/a -c 1000 -d 1s"), 2000),
        (format!("churn ws://{hub}/echo -n 2000"), 2000),
        (format!("fanout ws://{hub}/ws/b -c 300 --messages 50 --in-flight 4"), 0),
        (format!("fanout ws://{hub}/ws/b -c 100 --messages 50 --rate 100"), 0),
        (format!("fanout sse+http://{hub}/events/c -c 300 --messages 50 --in-flight 4"), 50),
        (format!("fanout sse+http://{hub}/events/c -c 100 --messages 50 --rate 100"), 50),
        (format!("hold sse+http://{hub}/events/c -c 300 -d 1s"), 0),
    ] {
        // To hold streams of events takes no requests.
        let errors = if words.starts_with("hold sse") { "" } else { "--assert errors=0" };
        let (code, record, said) = stress(&format!("{words} {errors} --assert failed=0"));
        assert_eq!(code, Some(0), "{words}: {said}");
        let answered = number(&record["requests"]["answered"]);
        assert!(
            answered >= least && answered == number(&record["requests"]["sent"]),
            "{words}: {answered}; {said}"
        );
        assert_eq!(number(&record["connections"]["closed_by_server"]), 0, "{words}");
        if words.starts_with("fanout") {
            expect_all_delivered(&record, &said);
        }
    }
}

/// Honest clients are served beside each flood of WebSocket connections.
#[test]
fn every_flood_runs_over_websocket() {
    let server = Server::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--first-message-timeout",
        "1s",
        "--message-timeout",
        "1s",
        "--user-timeout",
        "1s",
        "--penalty",
        "0",
        "--max-silent",
        "300",
    ]);
    let hub = server.address("hub");
    let runs = [
        ("silent", false),
        ("half-request", true),
        ("slowloris --drip 100ms", true),
        ("announce", true),
        ("slow-read --drip 200ms", false),
        ("zero-window", false),
        ("rst", false),
        ("vanish", false),
    ]
    .map(|(kind, must_close)| {
        spawn(move || {
            let words = format!("{kind} ws://{hub}/echo -c 60 -d 3s --connect-rate 60");
            let (code, record, said) = stress(&format!("{words} --assert honest>=99"));
            assert_eq!(code, Some(0), "{kind}: {said}");
            let closed = number(&record["connections"]["closed_by_server"]);
            println!("{kind}: {closed} closed, {}", record["connections"]["close_codes"]);
            assert!(closed >= 20 || !must_close, "{kind}: {closed} closed; {said}");
            // The server waits for the message until its timeout.
            if kind == "announce" {
                assert!(number(&record["connections"]["close_codes"]["1008"]) >= 20, "{said}");
            }
        })
    });
    runs.into_iter().for_each(|run| run.join().unwrap());
}

#[test]
fn a_password_travels_with_the_upgrade() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "opensesame"]);
    let hub = server.address("hub");
    for (target, code) in [
        (format!("ws://default:opensesame@{hub}/echo"), 0),
        (format!("ws://{hub}/echo?token=opensesame"), 0),
        (format!("ws://{hub}/echo"), 1),
    ] {
        let (found, record, said) = stress(&format!("{target} -n 20 -c 2 -d 2s"));
        assert_eq!(found, Some(code), "{target}: {said}");
        assert!(!said.contains("opensesame") && !record.to_string().contains("opensesame"));
        if code == 1 {
            assert!(said.contains("upgrade failed: HTTP/1.1 401"), "{said}");
        }
    }
}

/// Reads a head. Returns its first line and the value of the key; `None` at the end.
fn read_head(stream: &mut TcpStream) -> Option<(String, String, String)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let value = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default().to_string()
    };
    let target = head.split(' ').nth(1).unwrap_or_default().to_string();
    Some((target, value("Sec-WebSocket-Key"), value("Content-Length")))
}

/// Reads frames until `each` returns false, or the connection ends.
fn read_frames(stream: &mut TcpStream, mut each: impl FnMut(Opcode, &[u8]) -> bool) {
    let mut decoder = Decoder::new(Role::Server);
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let (opcode, payload, used) = match decoder.decode(&mut kept, 1 << 20) {
            Ok(Decoded::Message { opcode, payload, used }) => {
                decoder.taken();
                (opcode, payload, used)
            }
            Ok(Decoded::Control { opcode, payload, used }) => (opcode, payload, used),
            Ok(Decoded::Incomplete { used }) => {
                kept.drain(..used);
                match stream.read(&mut chunk) {
                    Ok(length @ 1..) => kept.extend_from_slice(&chunk[..length]),
                    _ => return,
                }
                continue;
            }
            Err(code) => panic!("the client broke the protocol: {}", code.reason()),
        };
        if !each(opcode, &kept[payload]) {
            return;
        }
        kept.drain(..used);
    }
}

/// Starts a server that upgrades each connection and then calls `each` with its stream.
fn upgrading(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    serve(move |index, mut stream| {
        let Some((_, key, _)) = read_head(&mut stream) else { return };
        let accept = accept_key(key.as_bytes()).expect("the key is base64 of 16 bytes");
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            String::from_utf8_lossy(&accept)
        );
        let _ = stream.set_nodelay(true);
        if stream.write_all(head.as_bytes()).is_ok() {
            each(index, stream);
        }
    })
}

#[test]
fn a_refused_upgrade_is_named_with_the_reason_of_the_server() {
    for (answer, named, quoted) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 18\r\n\r\n{\"error\":\"not me\"}",
            "upgrade failed: HTTP/1.1 403 Forbidden",
            "{\"error\":\"not me\"}",
        ),
        (
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "upgrade failed: wrong answer: Sec-WebSocket-Accept does not fit the key",
            "HTTP/1.1 101",
        ),
        ("", "closed during upgrade", "closed by the server"),
    ] {
        let address = serve(move |_, mut stream| {
            if read_head(&mut stream).is_some() {
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
                while let Ok(1..) = stream.read(&mut [0; 1024]) {}
            }
        });
        let (code, record, said) = stress(&format!("hold ws://{address}/ -c 3 -d 1s"));
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(number(&record["connections"]["failed"][named]), 3, "{said}");
        assert_eq!(number(&record["connections"]["opened"]), 0, "{said}");
        assert!(said.contains(quoted), "{said}");
    }
    let (code, record, said) = stress("hold sse+http://127.0.0.1:1/ -c 1");
    assert_eq!((code, number(&record["connections"]["failed"]["refused"])), (Some(1), 1), "{said}");
}

#[test]
fn closes_are_counted_by_their_code_and_answered() {
    let answered = Arc::new(Mutex::new(Vec::new()));
    let seen = answered.clone();
    let address = upgrading(move |index, mut stream| {
        let code = if index % 3 == 0 { 1001 } else { 1013 };
        let mut other = stream_of(&stream);
        read_frames(&mut stream, |opcode, payload| {
            if opcode == Opcode::Close {
                seen.lock().unwrap().push(payload.to_vec());
                return false;
            }
            let mut close = Vec::new();
            encode_close(&mut close, code, "too slow");
            other.write_all(&close).is_ok()
        });
    });
    let (code, record, said) = stress(&format!("ws://{address}/ -c 1 -n 9 -d 5s"));
    assert_eq!(code, Some(1), "{said}");
    let connections = &record["connections"];
    assert_eq!(number(&connections["close_codes"]["1001"]), 3, "{said}");
    assert_eq!(number(&connections["close_codes"]["1013"]), 6, "{said}");
    assert_eq!(number(&connections["closed_by_server"]), 9, "{said}");
    assert!(said.contains("code 1001: too slow") && said.contains("close code 1013"), "{said}");
    let answered = answered.lock().unwrap();
    assert!(answered.len() >= 8, "{answered:?}");
    assert!(answered.iter().all(|code| code[..] == [3, 233] || code[..] == [3, 245]));
}

/// Returns another handle of a stream that is lent for reading.
fn stream_of(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a handle")
}

/// Starts a server that pings each connection every 100 ms, and closes it without a pong.
fn pinging() -> SocketAddr {
    upgrading(|_, mut stream| {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        let mut other = stream_of(&stream);
        let mut pings = 0_u8;
        let ping = |other: &mut TcpStream, number: u8| {
            let mut frame = Vec::new();
            encode(&mut frame, Opcode::Ping, &[b'p', number]);
            other.write_all(&frame).is_ok()
        };
        ping(&mut other, 0);
        read_frames(&mut stream, |opcode, payload| {
            let mut pong = Vec::new();
            match opcode {
                Opcode::Pong => {
                    assert_eq!(payload, [b'p', pings]);
                    sleep(Duration::from_millis(100));
                    pings = pings.wrapping_add(1);
                    return ping(&mut other, pings);
                }
                Opcode::Ping => encode(&mut pong, Opcode::Pong, payload),
                _ => {}
            }
            other.write_all(&pong).is_ok()
        });
        let mut close = Vec::new();
        encode_close(&mut close, 1008, "no pong");
        let _ = other.write_all(&close);
        let _ = other.shutdown(Shutdown::Write);
    })
}

#[test]
fn pings_of_the_server_are_answered_but_not_by_silent_attackers() {
    let address = pinging();
    let (code, record, said) = stress(&format!("hold ws://{address}/ -c 5 -d 2s"));
    assert_eq!(code, Some(0), "{said}");
    let connections = &record["connections"];
    assert_eq!(number(&connections["closed_by_server"]), 0, "{said}");
    assert!(number(&connections["pings"]) >= 25, "{said}");
    let (_, record, said) = stress(&format!("silent ws://{address}/ -c 5 -d 2s"));
    assert!(number(&record["connections"]["close_codes"]["1008"]) >= 5, "{said}");
}

/// Starts a server that sends each message to all connections, in the order that `reorder` makes
/// of every ten.
fn broadcasting(reorder: fn(&mut Vec<Vec<u8>>)) -> SocketAddr {
    let members: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    upgrading(move |_, mut stream| {
        members.lock().unwrap().push(stream_of(&stream));
        let mut waiting = Vec::new();
        read_frames(&mut stream, |opcode, payload| {
            if opcode == Opcode::Text {
                waiting.push(payload.to_vec());
            }
            if waiting.len() == 10 {
                reorder(&mut waiting);
                for mut member in members.lock().unwrap().iter() {
                    let mut frames = Vec::new();
                    // Messages of others, a ping, and the message in two fragments.
                    encode(&mut frames, Opcode::Text, b"slabd: is great");
                    for message in &waiting {
                        let (one, other) = message.split_at(7);
                        frames.extend([1, one.len() as u8]);
                        frames.extend(one);
                        encode(&mut frames, Opcode::Ping, b"");
                        frames.extend([0x80, other.len() as u8]);
                        frames.extend(other);
                    }
                    let _ = member.write_all(&frames);
                }
                waiting.clear();
            }
            true
        });
    })
}

#[test]
fn a_fan_out_counts_lost_and_reordered_messages() {
    type Reorder = fn(&mut Vec<Vec<u8>>);
    let cases: [(Reorder, u64, u64, u64); 3] = [
        (|_| {}, 100, 0, 0),
        (|ten| drop(ten.remove(4)), 90, 10, 0),
        (|ten| ten.swap(3, 4), 100, 0, 10),
    ];
    for (reorder, delivered, lost, out_of_order) in cases {
        let address = broadcasting(reorder);
        let words = format!("fanout ws://{address}/ -c 5 --messages 20 --in-flight 20");
        let (_, record, said) = stress(&format!("{words} --timeout 1s"));
        let delivery = &record["delivery"];
        let found = ["delivered", "lost", "out_of_order"].map(|name| number(&delivery[name]));
        assert_eq!(found, [delivered, lost, out_of_order], "{said}");
    }
}

/// Starts a server of events that publishes what is posted, and closes a publisher's connection
/// after three requests. Streams have chunks of `chunk` bytes; 0 is none.
fn events(chunk: usize) -> SocketAddr {
    let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    serve(move |_, mut stream| {
        let _ = stream.set_nodelay(true);
        for close in ["", "", "Connection: close\r\n"] {
            let Some((target, _, length)) = read_head(&mut stream) else { return };
            if target == "/stream?a=b" {
                let coding = if chunk > 0 { "Transfer-Encoding: chunked\r\n" } else { "" };
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}\r\n");
                let _ = stream.write_all(head.as_bytes());
                streams.lock().unwrap().push(stream_of(&stream));
                while let Ok(1..) = stream.read(&mut [0; 1024]) {}
                return;
            }
            assert_eq!(target, "/post");
            let mut body = vec![0; length.parse().expect("a length")];
            stream.read_exact(&mut body).expect("a body");
            let event = [b": a comment\r\n\r\ndata: ", &body[..], b"\r\n\r\n"].concat();
            for mut stream in streams.lock().unwrap().iter() {
                let parts = event.chunks(if chunk > 0 { chunk } else { event.len() });
                for part in parts {
                    let bytes = match chunk {
                        0 => part.to_vec(),
                        _ => [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat(),
                    };
                    let _ = stream.write_all(&bytes);
                }
            }
            let answer = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\n\r\nok");
            let _ = stream.write_all(answer.as_bytes());
        }
        let _ = stream.shutdown(Shutdown::Write);
        while let Ok(1..) = stream.read(&mut [0; 1024]) {}
    })
}

#[test]
fn events_arrive_in_any_chunks_and_the_publisher_reconnects() {
    for chunk in [0, 1, 50, 1000] {
        let address = events(chunk);
        let words = format!("fanout sse+http://{address}/stream?a=b -c 5 --messages 20");
        let publish = format!("--publish http://{address}/post --assert errors=0");
        let (code, record, said) = stress(&format!("{words} {publish}"));
        assert_eq!(code, Some(0), "by {chunk}: {said}");
        let delivery = &record["delivery"];
        let found = ["delivered", "lost", "out_of_order"].map(|name| number(&delivery[name]));
        assert_eq!(found, [100, 0, 0], "by {chunk}: {said}");
        assert_eq!(number(&record["requests"]["answered"]), 20, "by {chunk}: {said}");
    }
}

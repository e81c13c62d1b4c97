//! All protocols meet in the same channels: each subscriber gets each message once, and all get
//! them in the same order, whatever protocol they came by.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::thread;

use slabd::codec::websocket::{Decoded, Decoder, Opcode, Role, encode_masked};

use crate::support::{self, Client, Server};

/// Messages of each publisher. There are five.
const MESSAGES: usize = 40_000;

/// The publishers. A message is the first letter of its publisher's name, and a number.
const PUBLISHERS: [fn(SocketAddr); 5] = [by_resp, by_http, by_websocket, by_json, by_datagrams];

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn message(publisher: char, number: usize) -> String {
    format!("{publisher}{number}")
}

/// Sends a request of HTTP and reads the head of its answer.
fn request(address: SocketAddr, path: &str, fields: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    while !client.read_line().is_empty() {}
    client
}

/// Reads the answers of a publisher. [`Client::read_line`] would make a system call for each byte.
fn answers(client: &Client) -> impl FnMut() -> String + use<> {
    let mut reader = BufReader::new(client.0.try_clone().unwrap());
    move || {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the server closes a publisher");
        line.trim_end().to_string()
    }
}

fn masked(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_masked(&mut frame, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
    frame
}

fn by_resp(address: SocketAddr) {
    let mut client = Client::connect(address);
    let mut answer = answers(&client);
    for first in (0..MESSAGES).step_by(100) {
        let batch = first..first + 100;
        let lines = batch.map(|number| format!("PUBLISH news {}\r\n", message('r', number)));
        client.send(lines.collect::<String>());
        (0..100).for_each(|_| assert!(answer().starts_with(':')));
    }
}

fn by_http(address: SocketAddr) {
    let mut client = Client::connect(address);
    let mut answer = answers(&client);
    for first in (0..MESSAGES).step_by(50) {
        for number in first..first + 50 {
            let body = message('h', number);
            client.send(format!(
                "POST /publish/news HTTP/1.1\r\nHost: localhost\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
        for _ in 0..50 {
            while !answer().is_empty() {}
            assert!(answer().starts_with("{\"receivers\":"));
        }
    }
}

/// Reads and drops what a publisher gets as a subscriber, while `publish` runs.
fn drained(client: Client, publish: impl FnOnce(&mut Client)) {
    let mut reader = Client::from(client.0.try_clone().unwrap());
    let mut writer = client;
    thread::scope(|scope| {
        scope.spawn(move || while reader.0.read(&mut [0; 64 << 10]).is_ok_and(|read| read > 0) {});
        publish(&mut writer);
        writer.shutdown();
    });
}

fn by_websocket(address: SocketAddr) {
    drained(request(address, "/ws/news", UPGRADE), |client| {
        for number in 0..MESSAGES {
            client.send(masked(&message('w', number)));
        }
        // The server answers the close once it has read what is before it.
        let mut close = Vec::new();
        encode_masked(&mut close, Opcode::Close, b"\x03\xe8", [1, 2, 3, 4]);
        client.send(close);
    });
}

fn by_json(address: SocketAddr) {
    drained(request(address, "/ws", UPGRADE), |client| {
        for number in 0..MESSAGES {
            let data = message('j', number);
            client.send(masked(&format!("{{\"publish\":\"news\",\"data\":\"{data}\"}}")));
        }
    });
}

fn by_datagrams(address: SocketAddr) {
    let socket = support::datagrams(address);
    for number in 0..MESSAGES {
        let question = format!("PUBLISH news {}", message('u', number));
        assert!(support::ask(&socket, question.as_bytes()).starts_with(b":"));
    }
}

/// Reads messages until all have come. `take` removes one message from the front of the bytes, and
/// returns its payload and the bytes that it took.
fn all_messages(
    mut client: Client,
    mut take: impl FnMut(&mut [u8]) -> Option<(String, usize)>,
) -> Vec<String> {
    let mut messages = Vec::new();
    let (mut held, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while messages.len() < PUBLISHERS.len() * MESSAGES {
        let read = client.0.read(&mut chunk).unwrap();
        assert!(read > 0, "the server closes a subscriber after {} messages", messages.len());
        held.extend_from_slice(&chunk[..read]);
        let mut start = 0;
        while let Some((message, length)) = take(&mut held[start..]) {
            messages.push(message);
            start += length;
        }
        held.drain(..start);
    }
    messages
}

/// Takes a block that ends with `end`, and returns what stands between `before` and `end` in it.
fn block(bytes: &[u8], before: &str, end: &str) -> Option<(String, usize)> {
    let at = bytes.windows(end.len()).position(|window| window == end.as_bytes())?;
    let text = std::str::from_utf8(&bytes[..at]).unwrap();
    let payload = text.rsplit_once(before).unwrap_or_else(|| panic!("{text:?}")).1;
    Some((payload.to_string(), at + end.len()))
}

/// Takes an array or push of RESP with this many strings, the payload last.
fn strings(bytes: &[u8], count: usize) -> Option<(String, usize)> {
    let mut end = 0;
    let mut line = || {
        let rest = bytes.get(end..)?;
        let length = rest.windows(2).position(|window| window == b"\r\n")?;
        end += length + 2;
        Some(String::from_utf8_lossy(&rest[..length]).into_owned())
    };
    let mut last = line()?;
    assert_eq!(last[1..], count.to_string());
    for _ in 0..2 * count {
        last = line()?;
    }
    Some((last, end))
}

fn frame(bytes: &mut [u8]) -> Option<(String, usize)> {
    let mut decoder = Decoder::new(Role::Client);
    match decoder.decode(bytes, 1 << 20).unwrap() {
        Decoded::Message { payload, used, .. } => {
            Some((String::from_utf8(bytes[payload].to_vec()).unwrap(), used))
        }
        Decoded::Control { .. } => panic!("a control frame within a few seconds"),
        Decoded::Incomplete { .. } => None,
    }
}

fn in_json(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["channel"], "news", "{text}");
    value["data"].as_str().unwrap().to_string()
}

#[test]
fn two_hundred_thousand_messages_of_five_publishers_reach_all_subscribers_in_one_order() {
    let mut server = Server::start(&[
        "--listen",
        "hub=127.0.0.1:0",
        "--datagram-rate",
        "0",
        // No comment stands among the events, however long all this takes.
        "--event-interval",
        "0",
    ]);
    let address = server.address("hub");
    let subscribed = |lines: &str, answers: usize| {
        let mut client = Client::connect(address);
        client.send(lines);
        (0..answers).for_each(|_| drop(client.read_line()));
        client
    };
    let resp2 = subscribed("SUBSCRIBE news\r\n", 6);
    let mut resp3 = subscribed("HELLO 3\r\nSUBSCRIBE news\r\n", 0);
    while resp3.read_line() != "$9" {}
    (0..4).for_each(|_| drop(resp3.read_line()));
    let pattern = subscribed("PSUBSCRIBE n*\r\n", 6);
    let raw = request(address, "/ws/news", UPGRADE);
    let mut json = request(address, "/ws", UPGRADE);
    json.send(masked("{\"subscribe\":\"news\"}"));
    json.expect(b"\x81\x15{\"subscribed\":\"news\"}");
    let mut events = request(address, "/events/news", "");
    let mut json_events = request(address, "/events?channel=news", "");
    for client in [&mut events, &mut json_events] {
        client.expect("retry: 2000\n\n:\n\n");
    }
    let received: Vec<Vec<String>> = thread::scope(|scope| {
        let subscribers = [
            scope.spawn(|| all_messages(resp2, |bytes| strings(bytes, 3))),
            scope.spawn(|| all_messages(resp3, |bytes| strings(bytes, 3))),
            scope.spawn(|| all_messages(pattern, |bytes| strings(bytes, 4))),
            scope.spawn(|| all_messages(raw, frame)),
            scope.spawn(|| {
                all_messages(json, |bytes| frame(bytes).map(|(text, used)| (in_json(&text), used)))
            }),
            scope.spawn(|| all_messages(events, |bytes| block(bytes, "data: ", "\n\n"))),
            scope.spawn(|| {
                all_messages(json_events, |bytes| {
                    block(bytes, "data: ", "\n\n").map(|(text, used)| (in_json(&text), used))
                })
            }),
        ];
        for publish in PUBLISHERS {
            scope.spawn(move || publish(address));
        }
        subscribers.into_iter().map(|subscriber| subscriber.join().unwrap()).collect()
    });
    for publisher in ['r', 'h', 'w', 'j', 'u'] {
        let own = received[0].iter().filter(|message| message.starts_with(publisher));
        assert!(
            own.eq(&(0..MESSAGES).map(|number| message(publisher, number)).collect::<Vec<_>>())
        );
    }
    for (subscriber, messages) in received.iter().enumerate() {
        assert!(*messages == received[0], "subscriber {subscriber} has another order");
    }
    server.signal("TERM");
    assert!(server.wait().success());
}

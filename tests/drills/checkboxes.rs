//! Checkboxes that 200 clients of five kinds change at once: at the end, the state of every client
//! is that of the server.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::thread;

use slabd::codec::websocket::{Opcode, encode_masked};

use crate::support::{Client, Server};

/// Clients of each kind.
const CLIENTS: usize = 40;
/// Changes of each client.
const CHANGES: usize = 1000;
/// All changes, each of which reaches all clients.
const ALL_CHANGES: usize = KINDS.len() * CLIENTS * CHANGES;
const BOXES: usize = 5000;
/// Packets in one request of a client that polls.
const PACKETS: usize = 50;

/// What a box may be: it was never changed, it is not checked, it is checked.
type State = Vec<Option<bool>>;

#[derive(Clone, Copy, Debug)]
enum ClientKind {
    Resp,
    WebSocket,
    Json,
    SocketIo,
    Polling,
}

const KINDS: [ClientKind; 5] = [
    ClientKind::Resp,
    ClientKind::WebSocket,
    ClientKind::Json,
    ClientKind::SocketIo,
    ClientKind::Polling,
];

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_masked(&mut frame, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
    frame
}

/// Opens a client that is subscribed to the checkboxes. Returns the connection that it receives by,
/// and its sid if it polls.
fn subscribed(address: SocketAddr, kind: ClientKind) -> (Client, String) {
    let mut client = Client::connect(address);
    let path = match kind {
        ClientKind::Resp => {
            client.send("HELLO 3\r\nSUBSCRIBE checkboxes\r\n");
            while client.read_line() != "checkboxes" {}
            return (client, String::new());
        }
        ClientKind::WebSocket => "/ws/checkboxes",
        ClientKind::Json => "/ws",
        ClientKind::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        ClientKind::Polling => return polling(address),
    };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n"));
    while !client.read_line().is_empty() {}
    match kind {
        ClientKind::Json => {
            client.send(frame(r#"{"subscribe":"checkboxes"}"#));
            wait_for(&mut client, b"{\"subscribed\":\"checkboxes\"}");
        }
        ClientKind::SocketIo => {
            client.send(frame("40")).send(frame(r#"420["subscribe","checkboxes"]"#));
            wait_for(&mut client, b"430[{\"subscribed\":[\"checkboxes\"]}]");
        }
        _ => {}
    }
    (client, String::new())
}

/// Reads up to the end of this text.
fn wait_for(client: &mut Client, text: &[u8]) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text) {
        client.0.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

fn polling(address: SocketAddr) -> (Client, String) {
    let mut requests = Requests::new(address);
    let open = requests.ask("GET", "", "");
    let sid = open.split('"').nth(3).unwrap().to_string();
    assert_eq!(requests.ask("POST", &sid, "40\u{1e}420[\"subscribe\",\"checkboxes\"]"), "ok");
    let mut seen = String::new();
    while !seen.contains("430[{\"subscribed\":[\"checkboxes\"]}]") {
        seen += &requests.ask("GET", &sid, "");
    }
    (requests.client, sid)
}

/// Requests of a client that polls, one after the other on a connection.
struct Requests {
    client: Client,
    reader: BufReader<std::net::TcpStream>,
}

impl Requests {
    fn new(address: SocketAddr) -> Requests {
        Requests::on(Client::connect(address))
    }

    fn on(client: Client) -> Requests {
        let reader = BufReader::with_capacity(1 << 16, client.0.try_clone().unwrap());
        Requests { client, reader }
    }

    fn ask(&mut self, method: &str, sid: &str, body: &str) -> String {
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        let length = body.len();
        let length =
            if method == "GET" { String::new() } else { format!("Content-Length: {length}\r\n") };
        self.client.send(format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: localhost\r\n\
             {length}\r\n{body}"
        ));
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "the server closes a client");
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }
}

/// Sends the changes of one client, each on a connection or in requests of its own.
fn change(address: SocketAddr, kind: ClientKind, sid: &str, mut writer: Client, seed: usize) {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut next = || {
        let (index, checked) = (random.usize(..BOXES), random.bool());
        format!("{{\"index\":{index},\"checked\":{checked}}}")
    };
    let events = |count: usize, next: &mut dyn FnMut() -> String| -> Vec<String> {
        (0..count).map(|_| format!("42[\"publish\",\"checkboxes\",{}]", next())).collect()
    };
    match kind {
        ClientKind::Resp => (0..CHANGES).for_each(|_| {
            let payload = next();
            let length = payload.len();
            writer.send(format!(
                "*3\r\n$7\r\nPUBLISH\r\n$10\r\ncheckboxes\r\n${length}\r\n{payload}\r\n"
            ));
        }),
        ClientKind::WebSocket => (0..CHANGES).for_each(|_| _ = writer.send(frame(&next()))),
        ClientKind::Json => (0..CHANGES).for_each(|_| {
            writer.send(frame(&format!("{{\"publish\":\"checkboxes\",\"data\":{}}}", next())));
        }),
        ClientKind::SocketIo => {
            events(CHANGES, &mut next).iter().for_each(|event| _ = writer.send(frame(event)));
        }
        ClientKind::Polling => {
            let mut requests = Requests::new(address);
            for _ in 0..CHANGES / PACKETS {
                let body = events(PACKETS, &mut next).join("\u{1e}");
                assert_eq!(requests.ask("POST", sid, &body), "ok");
            }
        }
    }
}

/// Applies the changes in some bytes to a state. Returns their number, and the bytes that are done.
fn apply(bytes: &[u8], state: &mut State) -> (usize, usize) {
    const START: &[u8] = b"{\"index\":";
    let (mut count, mut done) = (0, 0);
    for at in memchr::memmem::find_iter(bytes, START) {
        let Some(end) = memchr::memchr(b'}', &bytes[at..]) else { return (count, at) };
        let text = std::str::from_utf8(&bytes[at + START.len()..at + end]).unwrap();
        let (index, checked) = text.split_once(",\"checked\":").unwrap();
        state[index.parse::<usize>().unwrap()] = Some(checked == "true");
        (count, done) = (count + 1, at + end);
    }
    // The beginning of a change may be at the end.
    (count, done.max(bytes.len().saturating_sub(START.len())))
}

/// Receives all changes. Returns the state behind them.
fn receive(mut client: Client, kind: ClientKind, sid: &str) -> State {
    let (mut state, mut count) = (vec![None; BOXES], 0);
    if let ClientKind::Polling = kind {
        let mut requests = Requests::on(client);
        while count < ALL_CHANGES {
            let body = requests.ask("GET", sid, "");
            count += apply(body.as_bytes(), &mut state).0;
        }
        return state;
    }
    let (mut held, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while count < ALL_CHANGES {
        let read = client.0.read(&mut chunk).unwrap();
        assert!(read > 0, "the server closes {kind:?} after {count} changes");
        held.extend_from_slice(&chunk[..read]);
        let (more, done) = apply(&held, &mut state);
        held.drain(..done);
        count += more;
    }
    state
}

/// Returns the state that the server keeps.
fn kept(address: SocketAddr) -> State {
    let (mut state, mut after) = (vec![None; BOXES], String::new());
    loop {
        let mut client = Client::connect(address);
        client.send(format!(
            "GET /retained/checkboxes{after} HTTP/1.1\r\nHost: localhost\r\n\
             Connection: close\r\n\r\n"
        ));
        let mut answer = String::new();
        client.0.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        apply(body.as_bytes(), &mut state);
        let page: serde_json::Value = serde_json::from_str(body).unwrap();
        match page.get("next") {
            Some(next) => after = format!("?after={}", next.as_str().unwrap()),
            None => return state,
        }
    }
}

#[test]
fn two_hundred_clients_of_five_kinds_end_with_the_state_of_the_server() {
    let retain = r#"{"channel":"checkboxes","key":"index"}"#;
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--retain", retain]);
    let address = server.address("hub");
    let clients: Vec<(ClientKind, Client, String)> = (0..KINDS.len() * CLIENTS)
        .map(|number| {
            let kind = KINDS[number % KINDS.len()];
            let (client, sid) = subscribed(address, kind);
            (kind, client, sid)
        })
        .collect();
    thread::scope(|scope| {
        let mut receivers = Vec::new();
        for (number, (kind, client, sid)) in clients.into_iter().enumerate() {
            let writer = Client::from(client.0.try_clone().unwrap());
            let own = sid.clone();
            scope.spawn(move || change(address, kind, &own, writer, number));
            receivers.push((kind, scope.spawn(move || receive(client, kind, &sid))));
        }
        let states: Vec<(ClientKind, State)> =
            receivers.into_iter().map(|(kind, state)| (kind, state.join().unwrap())).collect();
        let server = kept(address);
        let changed = server.iter().filter(|state| state.is_some()).count();
        println!("{ALL_CHANGES} changes of {changed} boxes reached {} clients", states.len());
        assert_eq!(changed, BOXES, "every box was changed");
        for (kind, state) in states {
            assert!(state == server, "a client of {kind:?} has another state");
        }
    });
}

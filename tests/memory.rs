//! Memory per connection, and its return to the system. The tests print their measurements.

mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use slabd::codec::websocket::{self, Opcode};
use support::{Client, Server, all_files};

/// True for a release build, which `tests/run` measures. A debug build's connections are larger.
fn is_release_build() -> bool {
    std::env::var("SLABD_PROGRAM").is_ok_and(|path| path.contains("release"))
}

const CONNECTIONS: usize = 15_000;

/// Starts one service that keeps silent connections, and that sends nothing to idle clients.
fn start(service: &str) -> Server {
    let listen = format!("{service}=127.0.0.1:0");
    let mut arguments =
        vec!["--listen", &listen, "--idle-timeout", "0", "--first-message-timeout", "0"];
    arguments.extend(["--max-silent", "65535", "--max-silent-per-source", "65535"]);
    arguments.extend(["--ping-interval", "0", "--event-interval", "0"]);
    Server::start(&arguments)
}

/// Returns a request for this path. An upgrade is part of it if it opens a WebSocket.
fn get(path: &str) -> String {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = if path.starts_with("/events") { "" } else { upgrade };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n")
}

/// Sends a request and reads its answer, which ends so. Behind it, the server may ask by a ping
/// whether the client of a WebSocket is there.
fn open(client: &mut Client, request: &str, end: &str) {
    const PING: &[u8] = &[0x89, 0];
    client.send(request);
    let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
    while !answer.strip_suffix(PING).unwrap_or(&answer).ends_with(end.as_bytes()) {
        let count = client.0.read(&mut chunk).expect("the server answers");
        assert!(count > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&chunk[..count]);
    }
    if answer.ends_with(PING) {
        let mut pong = Vec::new();
        websocket::encode_masked(&mut pong, Opcode::Pong, b"", [1, 2, 3, 4]);
        client.send(pong);
    }
}

/// What a client of a service says first, then again and again, and what it gets.
struct Talk {
    name: &'static str,
    service: &'static str,
    greeting: &'static str,
    /// A request, whose answer ends with an empty line. Empty if there is none.
    opening: String,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Talk {
    fn of_lines(service: &'static str, greeting: &'static str, [ask, answer]: [&str; 2]) -> Talk {
        let (question, answer) = (ask.into(), answer.into());
        Talk { name: service, service, greeting, opening: String::new(), question, answer }
    }

    fn websocket() -> Talk {
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        websocket::encode_masked(&mut question, Opcode::Text, b"abcdef", [1, 2, 3, 4]);
        websocket::encode(&mut answer, Opcode::Text, b"abcdef");
        let (name, service, opening) = ("WebSocket", "hub", get("/echo"));
        Talk { name, service, greeting: "", opening, question, answer }
    }

    fn connect(&self, index: usize, address: SocketAddr) -> Client {
        let mut client = Client::connect_from(1 + (index % 16) as u8, address)
            .expect("the server accepts the connection");
        client.expect(self.greeting);
        if !self.opening.is_empty() {
            open(&mut client, &self.opening, "\r\n\r\n");
        }
        client.send(&self.question).expect(&self.answer);
        client
    }
}

/// The ledger must agree with the growth of the resident set.
#[test]
fn a_connection_after_traffic_costs_at_most_96_bytes() {
    let _all_files = all_files();
    for talk in [
        Talk::of_lines("echo", "", ["abcdef", "abcdef"]),
        Talk::of_lines("hello", "Hello\r\n", ["abc\r\n", "Hello, abc!\r\n"]),
        Talk::of_lines("hub", "", ["PING\r\n", "+PONG\r\n"]),
        Talk::websocket(),
    ] {
        let listen = format!("{}=127.0.0.1:0", talk.service);
        let mut server =
            Server::start(&["--listen", &listen, "--idle-timeout", "0", "--ping-interval", "0"]);
        let address = server.address(talk.service);
        // The first connection of each source allocates memory that the next ones use again.
        for source in 0..16 {
            talk.connect(source, address).reset();
        }
        server.wait_for_count("connections/held", |count| count == 0);
        let before = server.resident_bytes();
        let ledger_before = server.count("user memory, bytes/ledger, without fixed");

        let mut clients: Vec<Client> =
            (0..CONNECTIONS).map(|index| talk.connect(index, address)).collect();
        for _ in 0..2 {
            clients.iter_mut().for_each(|client| {
                client.send(&talk.question).expect(&talk.answer);
            });
        }
        let grown = (server.resident_bytes() - before) as f64 / CONNECTIONS as f64;
        let status = server.status();
        let ledger: u64 = status["user memory, bytes/ledger, without fixed"].parse().unwrap();
        let ledger = (ledger - ledger_before) as f64 / CONNECTIONS as f64;
        let kernel = &status["kernel memory, bytes/structures per connection"];
        println!(
            "{}: {CONNECTIONS} connections after 3 messages each: {grown:.1} B resident, \
             {ledger:.1} B by the ledger, {kernel} B of kernel structures",
            talk.name
        );
        assert_eq!(status["connections/open"], CONNECTIONS.to_string());
        assert_eq!(status["user memory, bytes/read-buffers"], "0");
        assert_eq!(status["user memory, bytes/write-buffers"], "0");
        assert!(
            (ledger / grown - 1.0).abs() <= 0.10,
            "the ledger says {ledger:.1} B, the resident set {grown:.1} B"
        );
        if is_release_build() {
            assert!(grown <= 96.0, "{grown:.1} B per connection of {}", talk.name);
        }
    }
}

/// Subscribes a client to the channel `ch1`, and returns the bytes of each message it then gets.
type Subscribe = fn(&mut Client) -> Vec<u8>;

fn by_resp(client: &mut Client) -> Vec<u8> {
    client.send("SUBSCRIBE ch1\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$3\r\nch1\r\n:1\r\n");
    b"*3\r\n$7\r\nmessage\r\n$3\r\nch1\r\n$5\r\nhello\r\n".into()
}

fn by_websocket(client: &mut Client) -> Vec<u8> {
    open(client, &get("/ws/ch1"), "\r\n\r\n");
    let mut message = Vec::new();
    websocket::encode(&mut message, Opcode::Text, b"hello");
    message
}

fn by_events(client: &mut Client) -> Vec<u8> {
    open(client, &get("/events/ch1"), "\r\n\r\nretry: 2000\n\n:\n\n");
    b"data: hello\n\n".into()
}

/// Each client subscribes to one channel of the hub and receives three messages.
#[test]
fn a_subscriber_costs_at_most_128_bytes() {
    let _all_files = all_files();
    let ways: [(_, Subscribe); 3] =
        [("RESP", by_resp), ("WebSocket", by_websocket), ("events", by_events)];
    for (name, subscribe) in ways {
        let mut server = start("hub");
        let address = server.address("hub");
        let mut publisher = Client::connect(address);
        let mut crowd = |count: usize| {
            let mut message = Vec::new();
            let mut clients: Vec<Client> = Vec::with_capacity(count);
            for index in 0..count {
                let mut client = Client::connect_from(1 + (index % 16) as u8, address)
                    .expect("the server accepts the connection");
                message = subscribe(&mut client);
                clients.push(client);
            }
            for _ in 0..3 {
                publisher.send("PUBLISH ch1 hello\r\n").expect(format!(":{count}\r\n"));
                clients.iter_mut().for_each(|client| {
                    client.expect(&message);
                });
            }
            clients
        };
        // The first subscribers touch pages of the program that the next ones use again.
        crowd(300).into_iter().for_each(Client::reset);
        server.wait_for_count("connections/held", |count| count == 1);
        let before = server.resident_bytes();
        let subscribers = crowd(CONNECTIONS);
        let grown = (server.resident_bytes() - before) as f64 / CONNECTIONS as f64;
        let ledger =
            server.count("user memory, bytes/ledger, without fixed") as f64 / CONNECTIONS as f64;
        println!(
            "{name}: {CONNECTIONS} subscribers after 3 messages each: {grown:.1} B resident, \
             {ledger:.1} B by the ledger"
        );
        assert!(
            (ledger / grown - 1.0).abs() <= 0.10,
            "the ledger says {ledger:.1} B, the resident set {grown:.1} B"
        );
        if is_release_build() {
            assert!(grown <= 128.0, "{grown:.1} B per subscriber by {name}");
        }
        drop((subscribers, publisher));
        server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
    }
}

/// Reads until the bytes that have come contain this text.
fn until(client: &mut Client, text: &str) -> String {
    let (mut got, mut chunk) = (String::new(), [0; 1024]);
    while !got.contains(text) {
        let count = client.0.read(&mut chunk).expect("the server answers");
        assert!(count > 0, "{got:?} without {text:?}");
        got.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    got
}

fn frame(packet: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    websocket::encode_masked(&mut bytes, Opcode::Text, packet.as_bytes(), [1, 2, 3, 4]);
    bytes
}

const SUBSCRIBE: &str = "420[\"subscribe\",\"ch1\"]";
const SUBSCRIBED: &str = "430[{\"subscribed\":[\"ch1\"]}]";
const MESSAGE: &str = "42[\"message\",\"ch1\",\"hello\"]";

/// A client of Socket.IO in the room `ch1`.
struct IoClient {
    connection: Client,
    /// The path of its requests, if it polls.
    polls: Option<String>,
}

impl IoClient {
    const PATH: &str = "/socket.io/?EIO=4&transport=";

    fn by_websocket(mut connection: Client) -> IoClient {
        connection.send(get(&format!("{}websocket", IoClient::PATH)));
        until(&mut connection, "}");
        connection.send(frame("40"));
        until(&mut connection, "40{");
        connection.send(frame(SUBSCRIBE));
        until(&mut connection, SUBSCRIBED);
        IoClient { connection, polls: None }
    }

    fn by_polling(mut connection: Client) -> IoClient {
        let path = format!("{}polling", IoClient::PATH);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let open = until(&mut connection, "}");
        let sid = open.split("\"sid\":\"").nth(1).and_then(|text| text.split('"').next());
        let path = format!("{path}&sid={}", sid.expect("a sid"));
        let mut client = IoClient { connection, polls: Some(path) };
        let packets = format!("40\x1e{SUBSCRIBE}");
        client.ask("POST", &packets, "ok");
        client.ask("GET", "", SUBSCRIBED);
        client
    }

    /// Sends a request, and waits for its answer.
    fn ask(&mut self, method: &str, body: &str, answer: &str) {
        let path = self.polls.as_deref().expect("the client polls");
        let length = body.len();
        let length = if length > 0 { format!("Content-Length: {length}\r\n") } else { "".into() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n");
        self.connection.send(head + body);
        until(&mut self.connection, answer);
    }

    fn expect_message(&mut self) {
        match self.polls {
            Some(_) => self.ask("GET", "", MESSAGE),
            None => drop(until(&mut self.connection, MESSAGE)),
        }
    }
}

/// Each client is in one room, idle, and then gets three messages. One that polls is measured
/// between two polls, once the loop has given back the memory in which messages waited for them.
#[test]
fn a_client_of_socket_io_costs_at_most_192_bytes_and_256_if_it_polls() {
    type Connect = fn(Client) -> IoClient;
    let _all_files = all_files();
    let ways: [(_, Connect, [f64; 2]); 2] = [
        ("WebSocket", IoClient::by_websocket, [192.0, 192.0]),
        ("polling", IoClient::by_polling, [256.0, 256.0]),
    ];
    for (name, connect, most) in ways {
        let mut server = start("hub");
        let address = server.address("hub");
        let mut publisher = Client::connect(address);
        let crowd = |count: usize| -> Vec<IoClient> {
            let connect = |index: usize| {
                let client = Client::connect_from(1 + (index % 16) as u8, address);
                connect(client.expect("the server accepts the connection"))
            };
            (0..count).map(connect).collect()
        };
        let mut publish = |clients: &mut Vec<IoClient>| {
            for _ in 0..3 {
                publisher.send("PUBLISH ch1 hello\r\n").expect(format!(":{}\r\n", clients.len()));
                clients.iter_mut().for_each(IoClient::expect_message);
            }
        };
        // The first clients touch pages of the program that the next ones use again. Those that
        // poll end with their poll.
        let mut first = crowd(300);
        publish(&mut first);
        for mut client in first {
            match client.polls {
                Some(_) => client.ask("POST", "1", "ok"),
                None => client.connection.reset(),
            }
        }
        server.wait_for_count("connections/held", |count| count == 1);
        let before = server.resident_bytes();
        let ledger_before = server.count("user memory, bytes/ledger, without fixed");
        let mut clients = crowd(CONNECTIONS);
        for (state, most) in ["idle", "after 3 messages each"].into_iter().zip(most) {
            let grown = (server.resident_bytes() - before) as f64 / CONNECTIONS as f64;
            let ledger = server.count("user memory, bytes/ledger, without fixed") - ledger_before;
            let ledger = ledger as f64 / CONNECTIONS as f64;
            println!(
                "Socket.IO by {name}: {CONNECTIONS} clients in a room, {state}: {grown:.1} B \
                 resident, {ledger:.1} B by the ledger"
            );
            assert!(
                (ledger / grown - 1.0).abs() <= 0.10,
                "{name}, {state}: the ledger says {ledger:.1} B, the resident set {grown:.1} B"
            );
            if is_release_build() {
                assert!(grown <= most, "{grown:.1} B per client by {name}, {state}");
            }
            publish(&mut clients);
            if name == "polling" {
                let trims = server.count("loop/memory given back");
                server.wait_for_count("loop/memory given back", |count| count > trims);
            }
        }
    }
}

/// A hundred cycles of five thousand connections each.
#[test]
fn connection_churn_leaves_no_slot_file_or_byte_behind() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    let files = server.open_files();
    let (mut first, mut worst) = (0, 0);
    for cycle in 0..100 {
        let mut clients: Vec<Client> = (0..5000)
            .map(|index| {
                Client::connect_from(1 + (index % 200) as u8, address)
                    .expect("the server accepts the connection")
            })
            .collect();
        clients.iter_mut().step_by(10).for_each(|client| {
            client.send("x").expect("x");
        });
        // Half of the clients close with a FIN, half with a reset.
        for (index, client) in clients.into_iter().enumerate() {
            if index % 2 == 0 { drop(client) } else { client.reset() }
        }
        if cycle == 0 {
            server.wait_for_count("connections/accepted", |count| count == 5000);
            first = server.resident_bytes();
        }
        worst = worst.max(server.resident_bytes());
    }
    server.wait_for_count("connections/held", |count| count == 0);
    server.wait_for_count("loop/memory given back", |count| count > 0);
    std::thread::sleep(Duration::from_millis(100));
    server.wait_for_count("user memory, bytes/slab", |bytes| bytes == 0);
    let status = server.status();
    let last = server.resident_bytes();
    println!(
        "100 cycles of 5,000: resident {} KiB in the first, {} KiB at worst, {} KiB at the end; \
         ledger at the end {} B",
        first / 1024,
        worst / 1024,
        last / 1024,
        status["user memory, bytes/ledger, without fixed"]
    );
    assert_eq!(status["connections/accepted"], "500000");
    assert_eq!(server.open_files(), files);
    assert_eq!(status["user memory, bytes/ledger, without fixed"], "0");
    assert!(worst as f64 <= 1.25 * first as f64 && last as f64 <= 1.25 * first as f64);
}

/// The load drops from two thousand connections to a hundred, and then to none.
#[test]
fn a_load_drop_in_steps_frees_all_memory() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    let mut clients: Vec<Client> = (0..2000).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| {
        client.send("x").expect("x");
    });
    clients.truncate(100);
    server.wait_for_count("loop/memory given back", |count| count == 1);
    drop(clients);
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
}

/// A few peers that never read have large buffers.
#[test]
fn a_few_large_buffers_return_to_the_system() {
    let _all_files = all_files();
    let mut server = start("echo");
    let address = server.address("echo");
    // The first peer touches pages of the program that the next ones use again.
    Client::connect(address).stuff();
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
    let before = server.resident_bytes();
    let mut deaf: Vec<Client> = (0..30).map(|_| Client::connect(address)).collect();
    deaf.iter_mut().for_each(|client| {
        client.stuff();
    });
    let loaded = server.resident_bytes();
    drop(deaf);
    server.wait_for_count("user memory, bytes/ledger, without fixed", |bytes| bytes == 0);
    let after = server.resident_bytes();
    println!(
        "30 peers that never read: {} KiB more resident; without them: {} KiB",
        (loaded - before) / 1024,
        (after - before) / 1024
    );
    assert!(loaded - before >= 1 << 20);
    assert!(after - before <= (loaded - before) / 4);
}

/// Every connection has a buffer, because it has sent a part of a message.
#[test]
fn memory_returns_to_the_system_after_a_load_drop() {
    let _all_files = all_files();
    let mut server = start("hello");
    let address = server.address("hello");
    Client::connect(address).expect("Hello\r\n").shutdown().expect_end();
    let before = server.resident_bytes();
    let mut clients: Vec<Client> = (0..10_000)
        .map(|index| {
            Client::connect_from(1 + (index % 16) as u8, address)
                .expect("the server accepts the connection")
        })
        .collect();
    clients.iter_mut().for_each(|client| {
        client.send([b'x'; 2000]);
    });
    server.wait_for_count("user memory, bytes/read-buffers", |bytes| bytes == 10_000 * 2048);
    let loaded = server.resident_bytes();
    // A tenth of the connections stays open.
    clients.truncate(1000);
    server.wait_for_count("connections/held", |count| count == 1000);
    server.wait_for_count("loop/memory given back", |count| count > 0);
    let dropped = server.resident_bytes();
    println!(
        "10,000 connections with 2,000 B of input each: {} KiB more resident; with 1,000 of them \
         left: {} KiB more",
        (loaded - before) / 1024,
        (dropped - before) / 1024
    );
    assert!(loaded - before >= 10_000 * 2048);
    assert!(
        dropped - before <= (loaded - before) / 4,
        "the server keeps memory after the load drop"
    );
}

//! The limits of unauthenticated clients: commands, input and pending output.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::support::hub_answers::{Answer, NOAUTH, authenticated, connect, guarded};
use crate::support::{Client, PATIENCE, Server};

/// Maximum length of an unauthenticated command, in bytes.
const INPUT_MAX: usize = 4096;
/// Maximum of an unauthenticated client's pending output, in bytes.
const OUTPUT_MAX: usize = 1024;
/// Maximum number of words of an unauthenticated command.
const WORDS_MAX: usize = 16;

/// Returns a PING in RESP that is `length` bytes long.
fn ping_of(length: usize) -> Vec<u8> {
    let frame = |text: usize| {
        format!("*2\r\n$4\r\nPING\r\n${text}\r\n{}\r\n", "x".repeat(text)).into_bytes()
    };
    let around = frame(1000).len() - 1000;
    let whole = frame(length - around);
    assert_eq!(whole.len(), length);
    whole
}

#[test]
fn only_auth_hello_quit_and_reset_run_before_authentication() {
    let mut server = guarded(&[]);
    let commands: Vec<&str> = "\
        ACL WHOAMI; ASKING; CLIENT ID; CLIENT LIST; CLIENT KILL TYPE normal; CLUSTER INFO; \
        COMMAND; COMMAND DOCS; CONFIG GET *; CONFIG SET idle-timeout 1s; DBSIZE; DISCARD; \
        ECHO x; FLUSHALL; FLUSHDB; INFO; LATENCY LATEST; MEMORY STATS; MODULE LIST; MONITOR; \
        MULTI; PING; PING x; PSUBSCRIBE x; PUBLISH x y; PUBSUB CHANNELS; PUNSUBSCRIBE; READONLY; \
        READWRITE; ROLE; SELECT 0; SHUTDOWN; SLOWLOG LEN; SPUBLISH x y; SSUBSCRIBE x; \
        SUBSCRIBE x; SUNSUBSCRIBE; TIME; UNSUBSCRIBE; UNWATCH; WAIT 0 0; WATCH x"
        .split("; ")
        .collect();
    let mut client = connect(&server);
    for command in &commands {
        client.send(format!("{command}\r\n")).expect(NOAUTH);
        let words: Vec<&str> = command.split(' ').collect();
        let framed: String =
            words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        client.send(format!("*{}\r\n{framed}", words.len())).expect(NOAUTH);
    }
    client
        .send("EXEC\r\n")
        .expect("-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n");
    for command in ["HELLO\r\n", "HELLO 3\r\n"] {
        client.send(command);
        let answer = Answer::read(&mut client).text();
        let refused = "-NOAUTH HELLO must be called with the client already authenticated";
        assert!(answer.starts_with(refused), "{answer}");
    }
    client
        .send("RESET\r\nPING\r\nQUIT\r\n")
        .expect(format!("+RESET\r\n{NOAUTH}+OK\r\n"))
        .expect_end();

    // The list above has every command of the hub.
    let mut client = authenticated(&server);
    client.send("COMMAND LIST\r\n");
    let count: usize = client.read_line().trim_start_matches('*').parse().unwrap();
    for _ in 0..count {
        let name = Answer::read(&mut client).text().to_uppercase();
        let tried = commands.iter().any(|command| command.split(' ').next() == Some(&name));
        assert!(
            tried || ["AUTH", "EXEC", "HELLO", "QUIT", "RESET"].contains(&&*name),
            "the test does not try {name}"
        );
    }
    // No refused command had an effect.
    client.send("PUBSUB CHANNELS\r\nPUBSUB NUMPAT\r\nPUBLISH x y\r\n").expect("*0\r\n:0\r\n:0\r\n");
    assert_eq!(server.count("closed by reason/killed"), 0);
}

#[test]
fn reset_ends_authentication_and_its_larger_limits() {
    let mut server = guarded(&[]);
    let mut client = authenticated(&server);
    client.send("PING\r\nRESET\r\nPING\r\n").expect(format!("+PONG\r\n+RESET\r\n{NOAUTH}"));
    client.send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    // The limit of a command is small again, too.
    client.send("RESET\r\n").expect("+RESET\r\n");
    client.send(ping_of(INPUT_MAX + 1));
    assert!(Answer::read(&mut client).text().starts_with("-ERR Protocol error"));
    client.expect_end();
    // The server counts the close after the client has closed as well.
    drop(client);
    server.wait_for_count("closed by reason/protocol-error", |count| count == 1);
}

#[test]
fn an_unauthenticated_command_has_at_most_4096_bytes() {
    let mut server = guarded(&[]);
    let inline = |length: usize| format!("PING {}\r\n", "x".repeat(length - 5)).into_bytes();
    for fits in [INPUT_MAX - 1, INPUT_MAX] {
        for command in [inline(fits), ping_of(fits)] {
            // The limit is for one command. A second one of that length is accepted as well.
            connect(&server).send(&command).expect(NOAUTH).send(&command).expect(NOAUTH);
        }
    }
    for (count, (command, error)) in [
        (inline(INPUT_MAX + 1), "-ERR Protocol error: too big inline request"),
        (ping_of(INPUT_MAX + 1), "-ERR Protocol error"),
        // An announced length above the limit is refused before the bytes arrive.
        (b"*2\r\n$4\r\nPING\r\n$5000\r\n".to_vec(), "-ERR Protocol error"),
        // A line above the limit is refused before its end.
        (
            [b"PING ", &[b'x'; INPUT_MAX][..]].concat(),
            "-ERR Protocol error: too big inline request",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = connect(&server);
        client.send(command);
        let answer = Answer::read(&mut client).text();
        assert!(answer.starts_with(error), "{answer}");
        client.expect_end();
        drop(client);
        server
            .wait_for_count("closed by reason/protocol-error", |closed| closed == count as u64 + 1);
    }
}

#[test]
fn an_unauthenticated_command_has_at_most_16_words() {
    let server = guarded(&[]);
    let subscribe = |words: usize| {
        format!("*{words}\r\n$9\r\nSUBSCRIBE\r\n{}", "$1\r\nx\r\n".repeat(words - 1))
    };
    for fits in [WORDS_MAX - 1, WORDS_MAX] {
        connect(&server).send(subscribe(fits)).expect(NOAUTH);
    }
    let mut client = connect(&server);
    client.send(subscribe(WORDS_MAX + 1));
    let answer = Answer::read(&mut client).text();
    assert!(answer.starts_with("-ERR Protocol error"), "{answer}");
    client.expect_end();
}

#[test]
fn an_authenticated_command_can_be_long() {
    let server = guarded(&[]);
    let text = "x".repeat(100_000);
    let (asked, answered) =
        (format!("*2\r\n$4\r\nECHO\r\n$100000\r\n{text}\r\n"), format!("$100000\r\n{text}\r\n"));
    authenticated(&server).send(&asked).expect(&answered).send(subscribe_to(100)).expect("*3\r\n");
    // The command comes in one piece with the password before it.
    connect(&server).send(format!("AUTH secret\r\n{asked}")).expect(format!("+OK\r\n{answered}"));
    // Inline commands can have up to 64 KiB, as in Redis.
    let text = &text[..60_000];
    authenticated(&server).send(format!("ECHO {text}\r\n")).expect(format!("$60000\r\n{text}\r\n"));
}

fn subscribe_to(channels: usize) -> String {
    format!("*{}\r\n$9\r\nSUBSCRIBE\r\n{}", channels + 1, "$1\r\nx\r\n".repeat(channels))
}

/// Connects a client with the smallest receive buffer.
fn deaf(server: &Server) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&server.address("hub").into()).unwrap();
    Client::from(TcpStream::from(socket))
}

/// Sends commands in bursts and never reads, until the server closes the connection. Calls `look`
/// after each write.
fn pipeline_unread(client: &mut Client, commands: usize, mut look: impl FnMut()) {
    let burst = "PING\r\n".repeat(commands);
    let deadline = Instant::now() + PATIENCE;
    client.0.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        assert!(Instant::now() < deadline, "the server never closes the connection");
        match client.0.write(&burst.as_bytes()[sent..]) {
            // The next write begins with the rest of a burst.
            Ok(count) => sent = (sent + count) % burst.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_closed) => return,
        }
        look();
    }
}

#[test]
fn an_unauthenticated_client_that_never_reads_is_closed() {
    for more in [&[][..], &["--buffers", "fixed:4096"]] {
        let mut server = guarded(more);
        pipeline_unread(&mut deaf(&server), 1000, || {});
        server.wait_for_count("closed by reason/output-limit", |count| count == 1);
        authenticated(&server).send("PING\r\n").expect("+PONG\r\n");
    }
}

#[test]
fn an_unauthenticated_client_has_at_most_1_kib_of_pending_output() {
    let server = guarded(&[]);
    let mut observer = authenticated(&server);
    let mut most = 0;
    // The kernel cuts bursts into reads, so clients differ in their pending output. Ten are tried.
    for _ in 0..10 {
        let mut client = deaf(&server);
        let address = client.0.local_addr().unwrap();
        pipeline_unread(&mut client, 128, || {
            observer.send(format!("CLIENT LIST ADDR {address}\r\n"));
            let listed = Answer::read(&mut observer).text();
            let owed = listed.split(' ').find_map(|field| field.strip_prefix("obl="));
            most = most.max(owed.map_or(0, |owed| owed.parse().unwrap()));
        });
    }
    assert!(most <= OUTPUT_MAX, "a client had {most} bytes of pending output");
}

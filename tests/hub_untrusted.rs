//! What the hub takes from peers that have not given the password, and what it owes them.

mod support;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Instant;

use support::hub_answers::{Answer, NOAUTH, authenticated, connect, guarded};
use support::{Client, PATIENCE, Server};

/// What a peer without the password may send as one command, and be owed, in bytes; and how many words.
const INPUT_MAX: usize = 4096;
const OUTPUT_MAX: usize = 1024;
const WORDS_MAX: usize = 16;

/// A PING in RESP that takes up so many bytes in all.
fn ping_of(length: usize) -> Vec<u8> {
    let frame = |text: usize| format!("*2\r\n$4\r\nPING\r\n${text}\r\n{}\r\n", "x".repeat(text)).into_bytes();
    let around = frame(1000).len() - 1000;
    let whole = frame(length - around);
    assert_eq!(whole.len(), length);
    whole
}

#[test]
fn nothing_but_auth_hello_quit_and_reset_is_carried_out_before_the_password() {
    let mut server = guarded(&[]);
    let commands = [
        "CLIENT ID",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "COMMAND",
        "COMMAND DOCS",
        "CONFIG GET *",
        "CONFIG SET idle-timeout 1s",
        "ECHO x",
        "FLUSHDB",
        "INFO",
        "MEMORY STATS",
        "MONITOR",
        "PING",
        "PING x",
        "PSUBSCRIBE x",
        "PUBLISH x y",
        "PUBSUB CHANNELS",
        "PUNSUBSCRIBE",
        "SELECT 0",
        "SHUTDOWN",
        "SPUBLISH x y",
        "SSUBSCRIBE x",
        "SUBSCRIBE x",
        "SUNSUBSCRIBE",
        "TIME",
        "UNSUBSCRIBE",
    ];
    let mut client = connect(&server);
    for command in commands {
        client.send(format!("{command}\r\n")).expect(NOAUTH);
        let words: Vec<&str> = command.split(' ').collect();
        let framed: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        client.send(format!("*{}\r\n{framed}", words.len())).expect(NOAUTH);
    }
    client.send("HELLO\r\n");
    assert!(
        Answer::read(&mut client)
            .text()
            .starts_with("-NOAUTH HELLO must be called with the client already authenticated")
    );
    client.send("HELLO 3\r\n");
    assert!(
        Answer::read(&mut client)
            .text()
            .starts_with("-NOAUTH HELLO must be called with the client already authenticated")
    );
    client.send("RESET\r\nPING\r\nQUIT\r\n").expect(format!("+RESET\r\n{NOAUTH}+OK\r\n")).expect_end();

    // Every command that there is has been tried.
    let mut client = authenticated(&server);
    client.send("COMMAND LIST\r\n");
    let count: usize = client.read_line().trim_start_matches('*').parse().unwrap();
    for _ in 0..count {
        let name = Answer::read(&mut client).text().to_uppercase();
        let tried = commands.iter().any(|command| command.split(' ').next() == Some(&name));
        assert!(tried || ["AUTH", "HELLO", "QUIT", "RESET"].contains(&&*name), "{name} is not tried here");
    }
    // And none of them has done anything.
    client.send("PUBSUB CHANNELS\r\nPUBSUB NUMPAT\r\nPUBLISH x y\r\n").expect("*0\r\n:0\r\n:0\r\n");
    assert_eq!(server.count("closed by reason/killed"), 0);
}

#[test]
fn reset_takes_authentication_away_and_what_came_with_it() {
    let mut server = guarded(&[]);
    let mut client = authenticated(&server);
    client.send("PING\r\nRESET\r\nPING\r\n").expect(format!("+PONG\r\n+RESET\r\n{NOAUTH}"));
    client.send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    // Its commands are short again, too.
    client.send("RESET\r\n").expect("+RESET\r\n");
    client.send(ping_of(INPUT_MAX + 1));
    assert!(Answer::read(&mut client).text().starts_with("-ERR Protocol error"));
    client.expect_end();
    // It is counted once the client has closed as well.
    drop(client);
    server.wait_for_count("closed by reason/protocol-error", |count| count == 1);
}

#[test]
fn a_command_before_the_password_has_4096_bytes_at_most() {
    let mut server = guarded(&[]);
    let inline = |length: usize| format!("PING {}\r\n", "x".repeat(length - 5)).into_bytes();
    for fits in [INPUT_MAX - 1, INPUT_MAX] {
        for command in [inline(fits), ping_of(fits)] {
            // Each on its own, and again, for the limit is one of a command and not of a connection.
            connect(&server).send(&command).expect(NOAUTH).send(&command).expect(NOAUTH);
        }
    }
    for (count, (command, error)) in [
        (inline(INPUT_MAX + 1), "-ERR Protocol error: too big inline request"),
        (ping_of(INPUT_MAX + 1), "-ERR Protocol error"),
        // What is announced need not arrive to be too much.
        (b"*2\r\n$4\r\nPING\r\n$5000\r\n".to_vec(), "-ERR Protocol error"),
        // Nor need it end.
        (vec![b'x'; INPUT_MAX + 2], "-ERR Protocol error: too big inline request"),
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
        server.wait_for_count("closed by reason/protocol-error", |closed| closed == count as u64 + 1);
    }
}

#[test]
fn a_command_before_the_password_has_16_words_at_most() {
    let server = guarded(&[]);
    let subscribe = |words: usize| format!("*{words}\r\n$9\r\nSUBSCRIBE\r\n{}", "$1\r\nx\r\n".repeat(words - 1));
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
fn a_command_after_the_password_may_be_long() {
    let server = guarded(&[]);
    let text = "x".repeat(100_000);
    let (asked, answered) = (format!("*2\r\n$4\r\nECHO\r\n$100000\r\n{text}\r\n"), format!("$100000\r\n{text}\r\n"));
    authenticated(&server).send(&asked).expect(&answered).send(subscribe_to(100)).expect("*3\r\n");
    // In one piece with the password, which comes first.
    connect(&server).send(format!("AUTH secret\r\n{asked}")).expect(format!("+OK\r\n{answered}"));
    // Inline commands stay below 64 KiB, as in Redis.
    let text = &text[..60_000];
    authenticated(&server).send(format!("ECHO {text}\r\n")).expect(format!("$60000\r\n{text}\r\n"));
}

fn subscribe_to(channels: usize) -> String {
    format!("*{}\r\n$9\r\nSUBSCRIBE\r\n{}", channels + 1, "$1\r\nx\r\n".repeat(channels))
}

/// A peer that takes in next to nothing.
fn deaf(server: &Server) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&server.address("hub").into()).unwrap();
    Client::from(TcpStream::from(socket))
}

/// Sends so many wrong commands at a time without ever reading, until the connection is closed, and calls `look` in between.
fn pipeline_unread(client: &mut Client, commands: usize, mut look: impl FnMut()) {
    let burst = "PING\r\n".repeat(commands);
    let deadline = Instant::now() + PATIENCE;
    client.0.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        assert!(Instant::now() < deadline, "never closed");
        match client.0.write(&burst.as_bytes()[sent..]) {
            // The rest of a command that went out in part comes first the next time.
            Ok(count) => sent = (sent + count) % burst.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_closed) => return,
        }
        look();
    }
}

#[test]
fn who_does_not_read_the_answers_before_the_password_is_closed() {
    for more in [&[][..], &["--buffers", "fixed:4096"]] {
        let mut server = guarded(more);
        pipeline_unread(&mut deaf(&server), 1000, || {});
        server.wait_for_count("closed by reason/output-limit", |count| count == 1);
        authenticated(&server).send("PING\r\n").expect("+PONG\r\n");
    }
}

#[test]
fn no_more_than_a_kibibyte_is_owed_before_the_password() {
    let server = guarded(&[]);
    let mut observer = authenticated(&server);
    let mut most = 0;
    // How bursts are cut into reads is the kernel's business: one peer may happen to be owed less than the next.
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
    assert!(most <= OUTPUT_MAX, "{most} bytes were owed");
}

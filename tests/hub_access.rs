//! Who may use the hub: passwords, what is taken from and owed to peers without one, guessing, datagrams, protected mode.

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Server, ask, datagrams, program, run};

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// What a peer without the password may send as one command, and be owed, in bytes; and how many words.
const INPUT_MAX: usize = 4096;
const OUTPUT_MAX: usize = 1024;
const WORDS_MAX: usize = 16;

/// A hub whose password is "secret".
fn guarded(more: &[&str]) -> Server {
    Server::start(&[&["--listen", "hub=127.0.0.1:0", "--requirepass", "secret"], more].concat())
}

fn connect(server: &Server) -> Client {
    Client::connect(server.address("hub"))
}

fn authenticated(server: &Server) -> Client {
    let mut client = connect(server);
    client.send("AUTH secret\r\n").expect("+OK\r\n");
    client
}

/// From any address of 127.0.0.0/8.
fn connect_from(source: [u8; 4], address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::from(TcpStream::from(socket))
}

/// The next line, without its ending.
fn line(client: &mut Client) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") {
        let mut byte = [0];
        client.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", text.escape_ascii()));
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text[..text.len() - 2]).into_owned()
}

/// The text of the bulk string that comes next.
fn bulk(client: &mut Client) -> String {
    let header = line(client);
    let length: usize = header.strip_prefix('$').unwrap_or_else(|| panic!("{header}")).parse().unwrap();
    let mut text = vec![0; length + 2];
    client.0.read_exact(&mut text).unwrap();
    text.truncate(length);
    String::from_utf8(text).unwrap()
}

/// One number of INFO.
fn info(client: &mut Client, name: &str) -> u64 {
    client.send("INFO\r\n");
    let text = bulk(client);
    let value = text.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// A PING in RESP that takes up so many bytes in all.
fn ping_of(length: usize) -> Vec<u8> {
    let frame = |text: usize| format!("*2\r\n$4\r\nPING\r\n${text}\r\n{}\r\n", "x".repeat(text)).into_bytes();
    let around = frame(1000).len() - 1000;
    let whole = frame(length - around);
    assert_eq!(whole.len(), length);
    whole
}

/// A file for one test, gone with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("slabd-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_password_is_the_first_line_of_a_file() {
    for (name, text) in [("lf", "secret\nanother\n"), ("crlf", "secret\r\n"), ("bare", "secret")] {
        let file = File::new(&format!("password-{name}"), text);
        let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass-file", file.path()]);
        let mut client = connect(&server);
        client.send("AUTH another\r\n").expect(WRONG);
        client.send("PING\r\n").expect(NOAUTH);
        client.send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    }
    let empty = File::new("password-empty", "\nsecret\n");
    let (code, _, error) = run(&["serve", "--requirepass-file", empty.path()]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("requirepass-file") && error.contains(empty.path()) && !error.contains("secret"), "{error}");
}

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_password_is_taken_from_the_environment() {
    let mut command = Command::new(program());
    command.args(["serve", "--listen", "hub=127.0.0.1:0"]).env("SLABD_REQUIREPASS", "secret").env("RUST_LOG", "info");
    let mut server = Ends(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = log.find(|line| line.contains("listening on hub ")).expect("it says where it listens");
    let address = listening.split("listening on hub ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let mut client = Client::connect(address.parse().unwrap());
    client.send("PING\r\nAUTH wrong\r\nAUTH secret\r\nPING\r\n");
    client.expect(format!("{NOAUTH}{WRONG}+OK\r\n+PONG\r\n"));
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
    assert!(line(&mut client).starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
    client.send("HELLO 3\r\n");
    assert!(line(&mut client).starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
    client.send("RESET\r\nPING\r\nQUIT\r\n").expect(format!("+RESET\r\n{NOAUTH}+OK\r\n")).expect_end();

    // Every command that there is has been tried.
    let mut client = authenticated(&server);
    client.send("COMMAND LIST\r\n");
    let count: usize = line(&mut client).trim_start_matches('*').parse().unwrap();
    for _ in 0..count {
        let name = bulk(&mut client).to_uppercase();
        let tried = commands.iter().any(|command| command.split(' ').next() == Some(&name));
        assert!(tried || ["AUTH", "HELLO", "QUIT", "RESET"].contains(&&*name), "{name} is not tried here");
    }
    // And none of them has done anything.
    client.send("PUBSUB CHANNELS\r\nPUBSUB NUMPAT\r\nPUBLISH x y\r\n").expect("*0\r\n:0\r\n:0\r\n");
    assert_eq!(server.count("closed by reason/killed"), 0);
}

#[test]
fn auth_takes_a_password_or_the_default_user_and_it() {
    let server = guarded(&[]);
    let mut client = connect(&server);
    client.send("AUTH\r\n").expect("-ERR wrong number of arguments for 'auth' command\r\n");
    client.send("AUTH a b c\r\n").expect("-ERR syntax error\r\n");
    client.send("AUTH Secret\r\n").expect(WRONG);
    client.send("AUTH default wrong\r\n").expect(WRONG);
    client.send("AUTH root secret\r\n").expect(WRONG);
    client.send("PING\r\n").expect(NOAUTH);
    client.send("AUTH default secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    // A wrong guess takes nothing away.
    client.send("AUTH wrong\r\nPING\r\n").expect(format!("{WRONG}+PONG\r\n"));

    let mut client = connect(&server);
    client.send("HELLO 3 AUTH default wrong\r\nPING\r\n").expect(format!("{WRONG}{NOAUTH}"));
    client.send("HELLO 3 AUTH default secret\r\n");
    assert_eq!(line(&mut client), "%7");
    client.send("ECHO done\r\n");
    while line(&mut client) != "done" {}
    // A push, not an array: the protocol has changed with the same command.
    client.send("SUBSCRIBE x\r\n").expect(">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n");
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
    assert!(line(&mut client).starts_with("-ERR Protocol error"));
    client.expect_end();
    // It is counted once the client has closed as well.
    drop(client);
    server.wait_for_count("closed by reason/protocol-error", |count| count == 1);
}

#[test]
fn without_a_password_auth_is_answered_as_redis_does() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let mut client = connect(&server);
    client.send("AUTH x\r\n");
    assert!(
        line(&mut client).starts_with("-ERR AUTH <password> called without any password configured for the default")
    );
    client.send("AUTH default x\r\nAUTH root x\r\nPING\r\n").expect(format!("+OK\r\n{WRONG}+PONG\r\n"));
}

#[test]
fn the_sixth_guess_of_one_source_waits_and_of_another_does_not() {
    let server = guarded(&[]);
    let address = server.address("hub");
    let mut guesser = connect_from([127, 0, 0, 2], address);
    for _ in 0..3 {
        guesser.send("AUTH x\r\n").expect(WRONG);
    }
    guesser.send("HELLO 3 AUTH default x\r\n").expect(WRONG);
    // Another connection does not help, nor does the right password: else the penalty would tell it.
    let mut again = connect_from([127, 0, 0, 2], address);
    again.send("AUTH x\r\n").expect(WRONG);
    for guess in ["AUTH x", "AUTH secret", "HELLO 2 AUTH default secret"] {
        again.send(format!("{guess}\r\n"));
        let answer = line(&mut again);
        assert!(answer.starts_with("-ERR too many wrong passwords"), "{answer}");
    }
    again.send("PING\r\n").expect(NOAUTH);
    connect_from([127, 0, 0, 3], address).send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    connect_from([127, 0, 0, 4], address).send("AUTH x\r\nPING\r\n").expect(format!("{WRONG}{NOAUTH}"));
}

#[test]
fn a_right_password_forgives_the_guesses_before_it() {
    let server = guarded(&[]);
    let mut client = connect_from([127, 0, 0, 5], server.address("hub"));
    for _ in 0..3 {
        client.send("AUTH x\r\n".repeat(4)).expect(WRONG.repeat(4));
        client.send("AUTH secret\r\n").expect("+OK\r\n");
    }
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
        let answer = line(&mut client);
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
    let answer = line(&mut client);
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
            let listed = bulk(&mut observer);
            let owed = listed.split(' ').find_map(|field| field.strip_prefix("obl="));
            most = most.max(owed.map_or(0, |owed| owed.parse().unwrap()));
        });
    }
    assert!(most <= OUTPUT_MAX, "{most} bytes were owed");
}

#[test]
fn a_datagram_gives_the_password_with_its_command() {
    let mut server = guarded(&[]);
    let mut subscriber = authenticated(&server);
    subscriber.send("SUBSCRIBE news\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let udp = datagrams(server.address("hub"));
    let refused = [
        &b"PUBLISH news never"[..],
        b"AUTH wrong\nPUBLISH news never",
        b"AUTH default secret\nPUBLISH news never",
        b"AUTH \nPUBLISH news never",
        b"AUTH secret PUBLISH news never",
        b"\nPUBLISH news never\n",
        b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$5\r\nnever\r\n",
    ];
    refused.iter().for_each(|datagram| assert!(udp.send(datagram).unwrap() > 0));
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH news first"), b":1\r\n");
    assert_eq!(ask(&udp, b"auth secret\r\n*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$6\r\nsecond\r\n"), b":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nfirst\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\nsecond\r\n");
    assert_eq!(info(&mut authenticated(&server), "datagrams_refused"), refused.len() as u64);
    assert_eq!((server.count("datagrams/in"), server.count("datagrams/out")), (refused.len() as u64 + 2, 2));

    // The password of one datagram says nothing about the next.
    udp.send(b"PUBLISH news never").unwrap();
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH none x"), b":0\r\n");
    // Who guesses by datagrams is no better off.
    let guesser = from([127, 0, 0, 9], &server);
    (0..6).for_each(|_| assert!(guesser.send(b"AUTH x\nPING     ").unwrap() > 0));
    guesser.send(b"AUTH secret\nPUBLISH news never").unwrap();
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH news last"), b":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\nlast\r\n");
}

/// A UDP socket of this address that talks to the server.
fn from(source: [u8; 4], server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(source), 0)).unwrap();
    socket.connect(server.address("hub")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn an_answer_to_a_datagram_is_never_longer_than_it_password_included() {
    let server = guarded(&[]);
    let udp = datagrams(server.address("hub"));
    // "*2\r\n$10\r\n1234567890\r\n$6\r\n123456\r\n", and microseconds have fewer digits at times.
    let (shortest, longest) = (4 + 17 + 7, 4 + 17 + 12);
    let mut answer = [0; 100];
    for length in 16..=longest + 2 {
        let question = format!("{:length$}", "AUTH secret\nTIME");
        assert_eq!(question.len(), length);
        udp.send(question.as_bytes()).unwrap();
        // Answers keep their order: this one says whether there was another before it.
        let barrier = format!("$2\r\n{length}\r\n");
        udp.send(format!("AUTH secret\nECHO {length}").as_bytes()).unwrap();
        let got = udp.recv(&mut answer).unwrap();
        if &answer[..got] == barrier.as_bytes() {
            assert!(length < longest, "{length} bytes got no answer");
            continue;
        }
        assert!(got <= length && got >= shortest, "{length} bytes got {got}");
        let got = udp.recv(&mut answer).unwrap();
        assert_eq!(&answer[..got], barrier.as_bytes());
    }
}

#[test]
fn datagrams_of_one_network_are_taken_at_the_rate_and_not_above() {
    for (sent, taken) in [(3, 3), (4, 4), (5, 4)] {
        // Where the machine was too busy for all of them to arrive within one instant, they are sent again, to a new server.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "this machine is too slow");
            let mut server = Server::start(&["--listen", "hub=127.0.0.1:0", "--datagram-rate", "4"]);
            let mut observer = connect(&server);
            let begun = Instant::now();
            for source in 0..sent {
                from([127, 0, 0, 10 + source], &server).send(b"PUBLISH news x").unwrap();
            }
            server.wait_for_count("datagrams/in", |count| count == u64::from(sent));
            // A quarter of a second is one more datagram.
            if begun.elapsed() < Duration::from_millis(200) {
                assert_eq!(info(&mut observer, "published_messages"), taken, "of {sent}");
                assert_eq!(info(&mut observer, "datagrams_refused"), u64::from(sent) - taken);
                break;
            }
        }
    }
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0", "--datagram-rate", "0"]);
    let udp = datagrams(server.address("hub"));
    (0..200).for_each(|_| assert_eq!(ask(&udp, b"PUBLISH news x"), b":0\r\n"));
    assert_eq!(server.count("datagrams/out"), 200);
}

/// An address of this machine that is not a loopback one.
fn own_address() -> Option<IpAddr> {
    let output = Command::new("hostname").arg("-I").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut addresses = text.split_whitespace().filter_map(|address| address.parse::<IpAddr>().ok());
    addresses.find(|address| address.is_ipv4() && !address.is_loopback())
}

#[test]
fn without_a_password_other_machines_are_denied() {
    let mut server = Server::start(&["--listen", "hub=0.0.0.0:0"]);
    assert!(server.log().iter().any(|line| line.contains("no password is set")), "it warns");
    let port = server.address("hub").port();
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    connect_from([127, 1, 0, 1], loopback).send("PING\r\n").expect("+PONG\r\n");
    connect_from([127, 255, 255, 254], loopback).send("PING\r\n").expect("+PONG\r\n");
    let Some(own) = own_address() else {
        eprintln!(
            "SKIPPED without_a_password_other_machines_are_denied: `hostname -I` names no IPv4 address to come from"
        );
        return;
    };
    for first_words in ["", "PING\r\n", "AUTH default x\r\n"] {
        let mut client = Client::connect(SocketAddr::new(own, port));
        assert_eq!(client.0.local_addr().unwrap().ip(), own);
        client.send(first_words);
        let answer = String::from_utf8(client.read_to_end().expect("an end in order")).unwrap();
        assert!(answer.starts_with("-DENIED ") && answer.ends_with("\r\n"), "{answer}");
        assert_eq!(answer.lines().count(), 1, "{answer}");
    }
    let mut observer = connect_from([127, 0, 0, 1], loopback);
    let udp = UdpSocket::bind((own, 0)).unwrap();
    udp.send_to(b"PUBLISH news x", SocketAddr::new(own, port)).unwrap();
    server.wait_for_count("datagrams/in", |count| count == 1);
    assert_eq!((info(&mut observer, "datagrams_refused"), info(&mut observer, "published_messages")), (1, 0));

    let guarded = Server::start(&["--listen", "hub=0.0.0.0:0", "--requirepass", "secret"]);
    let mut client = Client::connect(SocketAddr::new(own, guarded.address("hub").port()));
    client.send("PING\r\nAUTH secret\r\nPING\r\n").expect(format!("{NOAUTH}+OK\r\n+PONG\r\n"));
}

#[test]
fn the_password_is_shown_nowhere() {
    let file = File::new("password-shown", "hunter-two\n");
    let (code, printed, error) = run(&["serve", "--check", "--requirepass", "hunter-two"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!format!("{printed}{error}").contains("hunter-two"), "{printed}{error}");
    let (code, printed, error) = run(&["serve", "--check", "--requirepass-file", file.path()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(printed.contains(file.path()) && !format!("{printed}{error}").contains("hunter-two"), "{printed}{error}");
    let mut command = Command::new(program());
    let output = command.args(["serve", "--check"]).env("SLABD_REQUIREPASS", "hunter-two").output().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("hunter-two"));

    let arguments = ["--listen", "hub=127.0.0.1:0", "--requirepass", "hunter-two"];
    let mut server = Server::start_with_log_level("trace", &arguments);
    let mut client = connect(&server);
    client.send("AUTH hunter-two\r\nCONFIG GET *\r\nCLIENT LIST\r\nINFO\r\nMEMORY DOCTOR\r\nQUIT\r\n");
    let answers = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(answers.starts_with("+OK\r\n*") && !answers.contains("hunter-two"), "{answers}");
    server.status();
    assert!(!server.log().iter().any(|line| line.contains("hunter-two")));
}

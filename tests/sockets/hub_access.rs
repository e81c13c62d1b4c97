//! Access to the hub: the sources of the password, its secrecy, guesses, and protected mode.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::hub_answers::{Answer, NOAUTH, connect, guarded, info_number};
use crate::support::{Client, Ended, PATIENCE, Server, program, run};

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// Connects from an address of 127.0.0.0/8.
fn connect_from(source: [u8; 4], address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::from(TcpStream::from(socket))
}

/// A file that is removed at the end of its test.
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
fn the_password_is_the_first_line_of_its_file() {
    for (name, text) in [("lf", "secret\nanother\n"), ("crlf", "secret\r\n"), ("bare", "secret")] {
        let file = File::new(&format!("password-{name}"), text);
        let server =
            Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass-file", file.path()]);
        let mut client = connect(&server);
        client.send("AUTH another\r\n").expect(WRONG);
        client.send("PING\r\n").expect(NOAUTH);
        client.send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    }
    let empty = File::new("password-empty", "\nsecret\n");
    let (code, _, error) = run(&["serve", "--requirepass-file", empty.path()]);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("requirepass-file")
            && error.contains(empty.path())
            && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn the_password_is_taken_from_the_environment() {
    asks_for_the_password(Command::new(program()).env("SLABD_REQUIREPASS", "secret"));
}

/// systemd provides this file with LoadCredential=requirepass:FILE. The environment overrides it.
#[test]
fn the_password_is_taken_from_a_systemd_credential() {
    let folder = std::env::temp_dir().join(format!("slabd-credentials-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // A service can have only other credentials.
    let mut check = Command::new(program());
    assert!(
        check
            .arg("--check")
            .env("CREDENTIALS_DIRECTORY", &folder)
            .output()
            .unwrap()
            .status
            .success()
    );
    std::fs::write(folder.join("requirepass"), "secret\n").unwrap();
    asks_for_the_password(Command::new(program()).env("CREDENTIALS_DIRECTORY", &folder));
    std::fs::write(folder.join("requirepass"), "another\n").unwrap();
    asks_for_the_password(
        Command::new(program())
            .env("CREDENTIALS_DIRECTORY", &folder)
            .env("SLABD_REQUIREPASS", "secret"),
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Starts the server, and checks that its password is "secret".
#[track_caller]
fn asks_for_the_password(command: &mut Command) {
    command.args(["serve", "--listen", "hub=127.0.0.1:0"]).env("RUST_LOG", "info");
    let mut server = Ended(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening =
        log.find(|line| line.contains("listening on hub ")).expect("the log has the address");
    let address = listening
        .split("listening on hub ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    let mut client = Client::connect(address.parse().unwrap());
    client.send("PING\r\nAUTH wrong\r\nAUTH secret\r\nPING\r\n");
    client.expect(format!("{NOAUTH}{WRONG}+OK\r\n+PONG\r\n"));
}

#[test]
fn auth_accepts_a_password_with_or_without_the_default_user() {
    let server = guarded(&[]);
    let mut client = connect(&server);
    // As an array, because a wrong first line closes the connection.
    client
        .send("*1\r\n$4\r\nAUTH\r\n")
        .expect("-ERR wrong number of arguments for 'auth' command\r\n");
    client.send("AUTH a b c\r\n").expect("-ERR syntax error\r\n");
    client.send("AUTH Secret\r\n").expect(WRONG);
    client.send("AUTH default wrong\r\n").expect(WRONG);
    client.send("AUTH root secret\r\n").expect(WRONG);
    client.send("PING\r\n").expect(NOAUTH);
    client.send("AUTH default secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    // A wrong guess does not end the authentication.
    client.send("AUTH wrong\r\nPING\r\n").expect(format!("{WRONG}+PONG\r\n"));

    let mut client = connect(&server);
    client.send("HELLO 3 AUTH default wrong\r\nPING\r\n").expect(format!("{WRONG}{NOAUTH}"));
    client.send("HELLO 3 AUTH default secret\r\n");
    assert_eq!(client.read_line(), "%7");
    client.send("ECHO done\r\n");
    while client.read_line() != "done" {}
    // A push and not an array arrives, so the same command has changed the protocol.
    client.send("SUBSCRIBE x\r\n").expect(">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n");
}

#[test]
fn auth_without_a_configured_password_answers_as_in_redis() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let mut client = connect(&server);
    client.send("*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n");
    assert!(Answer::read(&mut client).text().starts_with(
        "-ERR AUTH <password> called without any password configured for the default"
    ));
    client
        .send("AUTH default x\r\nAUTH root x\r\nPING\r\n")
        .expect(format!("+OK\r\n{WRONG}+PONG\r\n"));
}

/// Sends a text. Returns false if the server has closed the connection.
fn sends(client: &mut Client, text: &str) -> bool {
    client.0.write_all(text.as_bytes()).is_ok()
}

/// Guesses on one connection, then reads the answers one by one.
fn guess_on(client: &mut Client, count: usize) -> Vec<Duration> {
    (0..count)
        .map(|number| {
            let asked = Instant::now();
            client.send(format!("AUTH guess{number}\r\n")).expect(WRONG);
            asked.elapsed()
        })
        .collect()
}

#[test]
fn each_further_wrong_password_of_a_connection_is_answered_later() {
    let server = guarded(&[]);
    let mut client = connect_from([127, 0, 0, 2], server.address("hub"));
    let took = guess_on(&mut client, 4);
    for (took, least) in took.iter().zip([0, 125, 250, 500]) {
        assert!(*took >= Duration::from_millis(least), "{took:?} is less than {least} ms");
    }
    client.send("AUTH secret\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
}

#[test]
fn the_right_password_is_accepted_at_once_beside_wrong_ones_from_its_address() {
    let server = guarded(&[]);
    let address = server.address("hub");
    let stops = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Some guessers keep a connection and send on; others connect for each guess.
        for number in 0..4 {
            let stops = &stops;
            scope.spawn(move || {
                let guess = |client: &mut Client, count: u32| {
                    sends(client, &format!("AUTH guess{number}.{count}\r\n"))
                };
                let mut kept = connect_from([127, 0, 0, 6], address);
                for count in 0.. {
                    if stops.load(Ordering::Relaxed) {
                        return;
                    }
                    if number < 2 && guess(&mut kept, count) {
                        std::thread::sleep(Duration::from_millis(4));
                        continue;
                    }
                    kept = connect_from([127, 0, 0, 6], address);
                    guess(&mut kept, count);
                    std::thread::sleep(Duration::from_millis(4));
                }
            });
        }
        let mut late = 0;
        for _ in 0..100 {
            let began = Instant::now();
            connect_from([127, 0, 0, 6], address).send("AUTH secret\r\n").expect("+OK\r\n");
            late += usize::from(began.elapsed() > Duration::from_millis(500));
            std::thread::sleep(Duration::from_millis(10));
        }
        stops.store(true, Ordering::Relaxed);
        assert_eq!(late, 0, "right passwords were accepted late");
    });
}

#[test]
fn an_unauthenticated_client_that_pings_is_closed_when_its_time_to_log_in_ends() {
    let mut server = guarded(&["--first-message-timeout", "1s"]);
    let mut client = connect_from([127, 0, 0, 7], server.address("hub"));
    let began = Instant::now();
    while sends(&mut client, "PING\r\n") && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(300));
    }
    let lived = began.elapsed();
    assert!((1.0..3.0).contains(&lived.as_secs_f64()), "{lived:?}");
    assert_eq!(server.count("closed by reason/login-timeout"), 1);
}

/// Returns an IPv4 address of this machine that is not a loopback address.
fn own_address() -> Option<IpAddr> {
    let output = Command::new("hostname").arg("-I").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut addresses =
        text.split_whitespace().filter_map(|address| address.parse::<IpAddr>().ok());
    addresses.find(|address| address.is_ipv4() && !address.is_loopback())
}

#[test]
fn other_machines_are_denied_if_no_password_is_set() {
    let mut server = Server::start(&["--listen", "hub=0.0.0.0:0"]);
    assert!(
        server.log().iter().any(|line| line.contains("no password is set")),
        "the server warns of a missing password"
    );
    let port = server.address("hub").port();
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    connect_from([127, 1, 0, 1], loopback).send("PING\r\n").expect("+PONG\r\n");
    connect_from([127, 255, 255, 254], loopback).send("PING\r\n").expect("+PONG\r\n");
    let Some(own) = own_address() else {
        eprintln!(
            "SKIPPED other_machines_are_denied_if_no_password_is_set: `hostname -I` names no IPv4 \
             address"
        );
        return;
    };
    for first_words in ["", "PING\r\n", "AUTH default x\r\n"] {
        let mut client = Client::connect(SocketAddr::new(own, port));
        assert_eq!(client.0.local_addr().unwrap().ip(), own);
        client.send(first_words);
        let answer =
            String::from_utf8(client.read_to_end().expect("the server sends a FIN")).unwrap();
        assert!(answer.starts_with("-DENIED ") && answer.ends_with("\r\n"), "{answer}");
        assert_eq!(answer.lines().count(), 1, "{answer}");
    }
    let mut observer = connect_from([127, 0, 0, 1], loopback);
    let udp = UdpSocket::bind((own, 0)).unwrap();
    udp.send_to(b"PUBLISH news x", SocketAddr::new(own, port)).unwrap();
    server.wait_for_count("datagrams/in", |count| count == 1);
    assert_eq!(
        (
            info_number(&mut observer, "datagrams_refused"),
            info_number(&mut observer, "published_messages")
        ),
        (1, 0)
    );

    let guarded = Server::start(&["--listen", "hub=0.0.0.0:0", "--requirepass", "secret"]);
    let mut client = Client::connect(SocketAddr::new(own, guarded.address("hub").port()));
    client.send("PING\r\nAUTH secret\r\nPING\r\n").expect(format!("{NOAUTH}+OK\r\n+PONG\r\n"));
}

#[test]
fn the_server_warns_of_a_password_on_the_command_line() {
    let file = File::new("password-warned", "secret\n");
    for (arguments, warned) in
        [(["--requirepass", "secret"], true), (["--requirepass-file", file.path()], false)]
    {
        let mut server =
            Server::start(&[&["--listen", "hub=127.0.0.1:0"], &arguments[..]].concat());
        let is_warning = |line: &String| line.contains("WARN") && line.contains("process list");
        assert_eq!(server.log().iter().any(is_warning), warned, "{arguments:?}");
    }
}

#[test]
fn the_password_appears_in_no_output_and_no_log() {
    let file = File::new("password-shown", "hunter-two\n");
    let (code, printed, error) = run(&["serve", "--check", "--requirepass", "hunter-two"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!format!("{printed}{error}").contains("hunter-two"), "{printed}{error}");
    let (code, printed, error) = run(&["serve", "--check", "--requirepass-file", file.path()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        printed.contains(file.path()) && !format!("{printed}{error}").contains("hunter-two"),
        "{printed}{error}"
    );
    let mut command = Command::new(program());
    let output =
        command.args(["serve", "--check"]).env("SLABD_REQUIREPASS", "hunter-two").output().unwrap();
    assert!(output.status.success());
    assert!(
        !String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("hunter-two")
    );

    let arguments = ["--listen", "hub=127.0.0.1:0", "--requirepass", "hunter-two"];
    let mut server = Server::start_with_log_level("trace", &arguments);
    let mut client = connect(&server);
    client.send(
        "AUTH hunter-two\r\nCONFIG GET *\r\nCLIENT LIST\r\nINFO\r\nMEMORY DOCTOR\r\nQUIT\r\n",
    );
    let answers = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(answers.starts_with("+OK\r\n*") && !answers.contains("hunter-two"), "{answers}");
    server.status();
    assert!(!server.log().iter().any(|line| line.contains("hunter-two")));
}

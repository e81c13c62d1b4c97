//! Socket activation. The test is the service manager: it opens the sockets and keeps them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use socket2::SockRef;

use crate::support::{Client, Ended, Server, ask, datagrams, program, programs};

/// Gives this process the files of the first argument as files 3, 4 and so on, with the names of
/// the second, and becomes the program that follows: sd_listen_fds(3).
const LAUNCH: &str = r#"
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for at, number in enumerate(high):
    os.dup2(number, 3 + at)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
if sys.argv[2] != "-":
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// Returns a command that runs slabd with these files.
fn with_files(files: &[&dyn AsRawFd], names: &str, arguments: &[&str]) -> Command {
    let numbers: Vec<String> = files.iter().map(|file| file.as_raw_fd().to_string()).collect();
    let mut command = Command::new("python3");
    command.args(["-c", LAUNCH, &numbers.join(","), names, &program()]).args(arguments);
    command.env("RUST_LOG", "info");
    command
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    SockRef::from(&listener).set_cloexec(false).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    SockRef::from(&socket).set_cloexec(false).unwrap();
    socket
}

/// The configured address of `hub` is in use, so the server must not bind it.
#[test]
fn inherited_sockets_are_served_in_place_of_the_configured_addresses() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (hub, address) = listener("127.0.0.1:0");
    let (hub_udp, (admin, admin_address)) = (socket(address), listener("127.0.0.1:0"));
    let listen = format!("hub={}", taken.local_addr().unwrap());
    let files: [&dyn AsRawFd; 3] = [&admin, &hub, &hub_udp];
    let arguments = ["--listen", &listen, "--listen", "hello=127.0.0.1:0"];
    let server = Server::start_by(with_files(&files, "admin:hub:hub", &arguments));
    assert_eq!((server.address("hub"), server.address("admin")), (address, admin_address));
    Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    assert_eq!(ask(&datagrams(address), b"PUBLISH news hello"), b":0\r\n");
    Client::connect(server.address("hello")).expect("Hello\r\n");
    // Operators' commands are served only at the operator's socket.
    Client::connect(address).send("CLIENT LIST\r\n").expect("-NOPERM");
    Client::connect(admin_address).send("CLIENT LIST\r\n").expect("$");
}

#[test]
fn sockets_without_names_belong_to_the_addresses_in_order() {
    let (hello, address) = listener("[::1]:0");
    let echo = socket("127.0.0.1:0".parse().unwrap());
    let echo_address = echo.local_addr().unwrap();
    let arguments = ["--listen", "hello+tcp=127.0.0.1:9", "--listen", "echo=127.0.0.1:9"];
    let _server = Server::start_by(with_files(&[&echo, &hello], "-", &arguments));
    Client::connect(address).expect("Hello\r\n");
    assert_eq!(ask(&datagrams(echo_address), b"anything"), b"anything");
}

/// Datagrams to a socket for all addresses are answered from the address that they went to.
#[test]
fn an_inherited_socket_of_all_addresses_answers_from_the_one_that_was_asked() {
    let all = socket("0.0.0.0:0".parse().unwrap());
    let port = all.local_addr().unwrap().port();
    let _server = Server::start_by(with_files(&[&all], "echo", &["--listen", "echo=127.0.0.1:9"]));
    assert_eq!(ask(&datagrams(SocketAddr::from(([127, 3, 2, 1], port))), b"one"), b"one");
}

/// The connection comes while no server runs. It waits in the socket that the manager keeps.
#[test]
fn a_restart_refuses_no_connection() {
    let (hub, address) = listener("127.0.0.1:0");
    let start = || Server::start_by(with_files(&[&hub], "slabd.socket", &[]));
    let mut server = start();
    let mut before = Client::connect(address);
    before.send("PING\r\n").expect("+PONG\r\n");
    server.signal("TERM");
    before.expect_end();
    assert_eq!(server.wait().code(), Some(0));
    let mut between = Client::connect(address);
    between.send("PING\r\n");
    let _server = start();
    between.expect("+PONG\r\n");
}

/// Runs slabd with these files until it exits, and returns its error.
fn refused(files: &[&dyn AsRawFd], names: &str) -> String {
    let output = with_files(files, names, &[]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    error
}

#[test]
fn a_file_that_cannot_be_served_is_an_error_of_one_line() {
    let (hub, address) = listener("127.0.0.1:0");
    let connection = TcpStream::connect(address).unwrap();
    let (accepted, _) = hub.accept().unwrap();
    SockRef::from(&accepted).set_cloexec(false).unwrap();
    // Without standard input of its own, a child has /dev/null there.
    let file = std::io::stdin();
    let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    SockRef::from(&unix).set_cloexec(false).unwrap();
    let both = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    both.set_only_v6(false).unwrap();
    both.set_cloexec(false).unwrap();
    both.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    both.listen(5).unwrap();
    let accepted_kinds = "accepted: listening TCP sockets and bound UDP sockets";
    for (file, names, why, accepted) in [
        (&accepted as &dyn AsRawFd, "hub", "file 3 ('hub') is a connection", accepted_kinds),
        (&file, "-", "file 3 is not a socket", accepted_kinds),
        (&unix, "-", "file 3 is not a socket of IPv4 or IPv6", accepted_kinds),
        (&both, "hub", "takes IPv4 too", "set BindIPv6Only=ipv6-only"),
        (&hub, "web", "is named 'web'", "accepted: hello, echo, discard, hub, admin"),
    ] {
        let error = refused(&[file], names);
        assert!(error.contains(why) && error.contains(accepted), "{error}");
    }
    drop(connection);
    let error = refused(&[&hub, &hub], "-");
    assert!(error.contains("has no further address of TCP"), "{error}");
}

#[test]
fn variables_of_another_process_are_ignored_and_a_wrong_number_is_an_error() {
    let mut command = Command::new(program());
    command.args(["--listen", "hub=127.0.0.1:0"]).env("RUST_LOG", "info");
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    Client::connect(Server::start_by(command).address("hub")).send("PING\r\n").expect("+PONG");
    for (number, is_accepted) in [("0", true), ("-1", false), ("65", false), ("x", false)] {
        let script = format!("LISTEN_PID=$$ LISTEN_FDS={number} exec {} --check", program());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_accepted, "{number}: {error}");
        let expected = format!("LISTEN_FDS is '{number}'; accepted: a number of sockets, 0 to 64");
        assert!(is_accepted || error.contains(&expected), "{error}");
    }
}

#[test]
fn systemd_starts_the_server_with_its_first_connection() {
    if !programs::available("systemd-socket-activate", "systemd") {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &address.to_string(), "--fdname=hub", &program(), "serve"]);
    let _manager = Ended(command.stderr(Stdio::null()).spawn().unwrap());
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let mut client = Client::from(stream);
    client.0.write_all(b"PING\r\n").unwrap();
    client.expect("+PONG\r\n");
}

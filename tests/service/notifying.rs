//! What the service manager is told. The test is the manager: it has the socket.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Scratch;
use crate::support::{Client, PATIENCE, Server, hub_answers, program};

/// A service manager with one service.
struct Superior {
    socket: UnixDatagram,
    server: Server,
    _folder: Scratch,
}

impl Superior {
    fn start(name: &str, arguments: &[&str], watchdog: Option<Duration>) -> Superior {
        let folder = Scratch::new(name);
        let path = folder.0.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(program());
        command.args(arguments).env("NOTIFY_SOCKET", &path).env("RUST_LOG", "info");
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        let server = Server::start_by(command);
        Superior { socket, server, _folder: folder }
    }

    /// Returns the next message.
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the server tells something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

#[test]
fn the_manager_is_told_of_the_start_of_reloads_and_of_the_stop() {
    let mut superior = Superior::start("told", &["--listen", "hub=127.0.0.1:0"], None);
    // The listeners are open before it is told.
    let ready = superior.next();
    let status = ready.strip_prefix("READY=1\nSTATUS=up to ").expect(&ready);
    assert!(status.contains(" connections (") && status.lines().count() == 1, "{ready}");
    superior.server.signal("HUP");
    let reloading = superior.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(superior.next(), ready);
    // The clock is that of the manager: the machine's uptime.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let told = reloading.lines().nth(1).unwrap().split_once('=').unwrap().1;
    assert!((told.parse::<f64>().unwrap() / 1e6 - uptime).abs() < 60.0, "{told} at {uptime}");

    let mut client = Client::connect(superior.server.address("hub"));
    client.send("PING\r\n").expect("+PONG\r\n");
    superior.server.signal("TERM");
    assert_eq!(superior.next(), "STOPPING=1\nSTATUS=stopping: 1 connections to finish\n");
    assert_eq!(superior.server.wait().code(), Some(0));
}

#[test]
fn the_manager_is_told_when_a_client_stops_the_server() {
    let mut superior = Superior::start("stopped", &["--listen", "hub=127.0.0.1:0"], None);
    assert!(superior.next().starts_with("READY=1\n"));
    let mut operator = hub_answers::connect(&superior.server);
    operator.send("SHUTDOWN\r\n");
    assert!(superior.next().starts_with("STOPPING=1\n"));
    assert_eq!(superior.server.wait().code(), Some(0));
}

#[test]
fn a_file_that_cannot_be_used_ends_a_reload_and_the_server_is_ready_as_before() {
    let folder = Scratch::new("reload");
    let file = folder.0.join("slabd.toml");
    std::fs::write(&file, "listen = [\"hub=127.0.0.1:0\"]\n").unwrap();
    let mut superior = Superior::start("told-wrong", &["--config", file.to_str().unwrap()], None);
    let ready = superior.next();
    std::fs::write(&file, "listen = 5\n").unwrap();
    superior.server.signal("HUP");
    superior.server.wait_for_log("configuration not changed");
    assert!(superior.next().starts_with("RELOADING=1\n"));
    assert_eq!(superior.next(), ready);
}

#[test]
fn the_loop_pings_the_watchdog_while_it_turns_and_not_while_it_is_stuck() {
    const ALLOWED: Duration = Duration::from_millis(600);
    let superior = Superior::start("watched", &["--listen", "hub=127.0.0.1:0"], Some(ALLOWED));
    assert!(superior.next().starts_with("READY=1\nWATCHDOG=1\n"));
    // An idle loop, and one that turns all the time.
    let mut client = None;
    let mut last = Instant::now();
    for ping in 0..6 {
        if ping == 3 {
            client = Some(Client::connect(superior.server.address("hub")));
        }
        superior.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut bytes = [0; 4096];
        while superior.socket.recv(&mut bytes).is_err() {
            assert!(last.elapsed() < ALLOWED, "no ping {ping} for {:?}", last.elapsed());
            if let Some(client) = &mut client {
                client.send("PING\r\n").expect("+PONG\r\n");
            }
        }
        let waited = last.elapsed();
        assert!(ping == 0 || waited > ALLOWED / 3, "a ping after {waited:?}");
        last = Instant::now();
    }
    superior.server.signal("STOP");
    while superior.socket.recv(&mut [0; 4096]).is_ok() {}
    superior.socket.set_read_timeout(Some(2 * ALLOWED)).unwrap();
    assert!(superior.socket.recv(&mut [0; 4096]).is_err(), "a stopped loop pings");
    superior.server.signal("CONT");
    assert!(superior.next().contains("WATCHDOG=1\n"));
}

#[test]
fn a_server_without_a_manager_that_listens_serves_and_warns() {
    let mut command = Command::new(program());
    command.args(["--listen", "hub=127.0.0.1:0"]).env("RUST_LOG", "info");
    command.env("NOTIFY_SOCKET", "/no/such/socket").env("WATCHDOG_USEC", "soon");
    let mut server = Server::start_by(command);
    Client::connect(server.address("hub")).send("PING\r\n").expect("+PONG\r\n");
    server.wait_for_log("cannot tell the service manager: No such file");
    let log = server.log().join("\n");
    assert!(log.contains("WATCHDOG_USEC is 'soon'; accepted: a number of microseconds"), "{log}");
}

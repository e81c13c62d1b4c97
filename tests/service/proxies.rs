//! Proxies in front of two processes: clients of Socket.IO that poll find their process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{Client, Ended, PATIENCE, Server, hub_answers, programs};
use crate::{Scratch, packaging};

/// The number of clients that poll.
const CLIENTS: u8 = 40;

/// Two processes with a port each.
fn two() -> [Server; 2] {
    // Clients of a proxy share its address.
    [(); 2].map(|()| Server::start(&["--listen", "hub=127.0.0.1:0", "--trusted-sources", "::1"]))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns an example with the ports of the test.
fn example(name: &str, servers: &[Server; 2], ports: &[(&str, u16)]) -> String {
    let mut text = std::fs::read_to_string(packaging("proxies").join(name)).unwrap();
    for (from, server) in ["127.0.0.1:9001", "127.0.0.1:9002"].into_iter().zip(servers) {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, &server.addresses()[0].to_string());
    }
    for (from, port) in ports {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, &format!("127.0.0.1:{port}"));
    }
    text
}

/// Waits until a proxy listens.
fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Sends a request on a connection of its own, and returns the status and the body.
fn request(source: u8, proxy: SocketAddr, method: &str, query: &str, body: &str) -> (u16, String) {
    let mut client = Client::connect_from(source, proxy).unwrap();
    let target = format!("/socket.io/?EIO=4&transport=polling{query}");
    let length = body.len();
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    ));
    let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

/// Each client polls by several connections through the proxy. Returns the sessions of each server.
fn poll_through(proxy: SocketAddr, servers: &[Server; 2]) -> [u64; 2] {
    let mut sids = Vec::new();
    for source in 1..=CLIENTS {
        let (status, body) = request(source, proxy, "GET", "", "");
        assert_eq!(status, 200, "{body}");
        sids.push((source, format!("&sid={}", body.split('"').nth(3).unwrap())));
    }
    for (source, sid) in &sids {
        assert_eq!(request(*source, proxy, "POST", sid, "40"), (200, "ok".into()));
    }
    for (source, sid) in &sids {
        let (status, body) = request(*source, proxy, "GET", sid, "");
        assert!(status == 200 && body.starts_with("40{\"sid\":"), "{status} {body}");
    }
    let of = |server: &Server| {
        hub_answers::info_number(&mut hub_answers::connect(server), "sessions_socketio")
    };
    servers.each_ref().map(of)
}

/// A WebSocket needs no process of its own: it is one connection.
fn upgrade_through(proxy: SocketAddr) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n\
                Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}

#[test]
fn haproxy_finds_the_process_of_a_client_that_polls_by_its_sid() {
    if !programs::available("haproxy", "haproxy") {
        return;
    }
    let (servers, folder) = (two(), Scratch::new("haproxy"));
    let (web, redis) = (free_port(), free_port());
    let file = folder.0.join("haproxy.cfg");
    let ports = [("127.0.0.1:8080", web), ("127.0.0.1:6400", redis)];
    std::fs::write(&file, example("haproxy.cfg", &servers, &ports)).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file).stderr(Stdio::null()).stdout(Stdio::null());
    let _proxy = Ended(command.spawn().unwrap());
    let proxy = SocketAddr::from(([127, 0, 0, 1], web));
    wait_for(proxy);
    let sessions = poll_through(proxy, &servers);
    // The proxy takes turns.
    let half = u64::from(CLIENTS) / 2;
    assert!(sessions.iter().all(|count| count.abs_diff(half) <= 2), "{sessions:?}");
    upgrade_through(proxy);
    for _ in 0..4 {
        Client::connect(SocketAddr::from(([127, 0, 0, 1], redis))).send("PING\r\n").expect("+PONG");
    }
}

#[test]
fn nginx_finds_the_process_of_a_client_that_polls_by_its_address() {
    if !programs::available("nginx", "nginx") {
        return;
    }
    let (servers, folder) = (two(), Scratch::new("nginx"));
    let port = free_port();
    let example = example("nginx.conf", &servers, &[("127.0.0.1:8080", port)]);
    let path = folder.0.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String =
        kinds.iter().map(|kind| format!("{kind}_temp_path {path}/{kind};\n")).collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{paths}{example}\n}}\n"
    );
    let file = folder.0.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).args(["-p", &path.to_string(), "-e", "stderr"]);
    let _proxy = Ended(command.stderr(Stdio::null()).spawn().unwrap());
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(proxy);
    let sessions = poll_through(proxy, &servers);
    assert_eq!(sessions[0] + sessions[1], u64::from(CLIENTS));
    assert!(sessions.iter().all(|count| *count > 5), "{sessions:?}");
    upgrade_through(proxy);
}

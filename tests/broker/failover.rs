//! Brokers that take over from one another: the master that Sentinels name, and a list.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::support::{Client, PATIENCE, Server};
use crate::{message, subscriber, wait_for_subscribers};

/// Publishes at a broker, and checks that a subscriber of the server gets the message.
fn crosses(broker: &Engine, subscriber: &mut Client, payload: &str) {
    wait_for_subscribers(broker, "news", 1);
    let mut publisher = Client::connect(broker.address);
    publisher.send(format!("PUBLISH news {payload}\r\n")).expect(":1\r\n");
    subscriber.expect(message("news", payload));
}

/// Waits until a section of INFO has a text.
fn wait_for_info(engine: &Engine, section: &str, text: &str) {
    let mut client = Client::connect(engine.address);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let length = client.send(format!("INFO {section}\r\n")).read_line();
        let length = length.strip_prefix('$').and_then(|length| length.parse().ok());
        let mut info = vec![0; length.expect("INFO answers with a text")];
        client.0.read_exact(&mut info).expect("the text is whole");
        client.expect("\r\n");
        let info = String::from_utf8_lossy(&info);
        if info.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "INFO has no {text}: {info}");
        sleep(Duration::from_millis(20));
    }
}

fn server_of(brokers: &[String]) -> Server {
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0"];
    arguments.extend(brokers.iter().flat_map(|url| ["--broker", url]));
    let mut server = Server::start(&arguments);
    server.wait_for_log("the link to the broker is up");
    server
}

/// Starts a Sentinel, which writes into its configuration file.
fn sentinel(folder: &Path, master: SocketAddr) -> Option<Engine> {
    std::fs::create_dir_all(folder).expect("the folder of test files is writable");
    let file = folder.join("sentinel.conf");
    let (host, port) = (master.ip(), master.port());
    let text = format!(
        "sentinel monitor own {host} {port} 1\n\
         sentinel down-after-milliseconds own 500\n\
         sentinel failover-timeout own 2000\n"
    );
    std::fs::write(&file, text).expect("the file is writable");
    Engine::sentinel(file.to_str().expect("the path is a text"))
}

#[test]
fn the_link_follows_the_master_that_a_sentinel_names() {
    let Some(mut master) = Engine::redis(&[]) else { return };
    let port = master.address.port().to_string();
    let Some(replica) = Engine::redis(&["--replicaof", "127.0.0.1", &port]) else { return };
    wait_for_info(&replica, "replication", "master_link_status:up");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sentinel");
    let Some(sentinel) = sentinel(&folder, master.address) else { return };
    wait_for_info(&sentinel, "sentinel", "slaves=1");
    let mut server = server_of(&[format!("redis+sentinel://{}/own", sentinel.address)]);
    let mut subscriber = subscriber(&server, "news");
    crosses(&master, &mut subscriber, "first");
    master.kill();
    server.wait_for_log("the link to the broker is down");
    server.wait_for_log("the link to the broker is up");
    crosses(&replica, &mut subscriber, "second");
    subscriber.send("PING\r\n").expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

#[test]
fn the_next_broker_of_a_list_takes_over_and_keeps_the_link() {
    let Some(mut first) = Engine::redis(&[]) else { return };
    let Some(mut second) = Engine::redis(&[]) else { return };
    let urls = [&first, &second].map(|engine| format!("redis://{}", engine.address));
    let mut server = server_of(&urls);
    let mut subscriber = subscriber(&server, "news");
    crosses(&first, &mut subscriber, "first");
    first.kill();
    server.wait_for_log("the link to the broker is up");
    crosses(&second, &mut subscriber, "second");
    // A broker that comes back does not take the link from the one that works.
    first.restart();
    crosses(&second, &mut subscriber, "third");
    second.kill();
    server.wait_for_log("the link to the broker is up");
    crosses(&first, &mut subscriber, "fourth");
}

//! Floods by HTTP, WebSocket and Socket.IO against 4,096 slots, beside honest clients of the same
//! protocol and of RESP.
//!
//!     cargo test --test drills web_floods -- --nocapture
//!
//! The load generator makes each flood, sends honest requests over the protocol of the flood, and
//! checks how many are served. A second one sends honest requests over RESP meanwhile.

use std::thread;

use crate::support::{self, Server, all_files};

/// More attackers than there are slots.
const ATTACKERS: &str = "8000";

/// Connects of the attackers per second. With 4,096 slots a silent connection then keeps its slot
/// for a second, so that an honest client that waits for a processor is not recycled meanwhile.
const CONNECT_RATE: &str = "4000";

/// Time of the attacks.
const FLOOD: &str = "4s";

/// Time of the honest requests beside them.
const BESIDE: &str = "6s";

/// Raises the limit of open files for the programs that a test starts. The test itself opens few.
fn raise_limit() {
    drop(all_files());
}

fn start(message_timeout: &str) -> Server {
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0", "--max-connections", "4096"];
    arguments.extend(["--first-message-timeout", "5s", "--message-timeout", message_timeout]);
    Server::start(&arguments)
}

/// Sends 200 honest requests a second, each on a new connection. One of them may fail. A busy
/// machine may keep each of them for half a second, so there are enough clients for all that are
/// due.
fn serve_honest(target: &str) {
    let mut churn = vec!["stress", "churn", target, "-c", "200", "--rate", "200", "-d", BESIDE];
    churn.extend(["--quiet", "--assert", "errors<=1", "--assert", "failed<=1"]);
    let (code, output, error) = support::run(&churn);
    assert_eq!(code, Some(0), "honest requests to {target}: {output}{error}");
}

fn flood(kind: &str, path: &str) {
    raise_limit();
    flood_at(&start("5s"), kind, path, &["-c", ATTACKERS, "--connect-rate", CONNECT_RATE]);
}

/// Floods a server beside honest clients.
fn flood_at(server: &Server, kind: &str, path: &str, more: &[&str]) {
    let address = server.address("hub");
    let target = path.replace("HUB", &address.to_string());
    let resp = format!("resp://{address}");
    let mut attack = vec!["stress", kind, &target, "-d", FLOOD, "--quiet"];
    attack.extend(more);
    attack.extend(["--probe-rate", "100", "--assert", "honest>=99.9%"]);
    thread::scope(|scope| {
        scope.spawn(|| serve_honest(&resp));
        let (code, output, error) = support::run(&attack);
        assert_eq!(code, Some(0), "{kind} {path}: {output}{error}");
        let honest = output.lines().find(|line| line.contains("honest")).unwrap_or_default();
        println!("{kind} {path}: {}", honest.trim());
    });
}

#[test]
fn silent_upgrades_lock_no_client_out() {
    flood("silent", "ws://HUB/echo");
}

#[test]
fn half_upgrades_lock_no_client_out() {
    flood("half-request", "ws://HUB/echo");
}

#[test]
fn half_heads_lock_no_client_out() {
    flood("half-request", "http://HUB/healthz");
}

#[test]
fn dripped_heads_lock_no_client_out() {
    flood("slowloris", "http://HUB/healthz");
}

#[test]
fn endless_fragments_of_one_byte_lock_no_client_out() {
    flood("slowloris", "ws://HUB/echo");
}

#[test]
fn announced_bodies_that_are_dripped_lock_no_client_out() {
    raise_limit();
    // With fewer attackers than slots, none is recycled before its timeout.
    let mut server = start("1s");
    // The honest requests publish, too.
    let more = ["-c", "3000", "--method", "POST"];
    flood_at(&server, "announce", "http://HUB/publish/news", &more);
    let late = server.count("closed by reason/message-timeout");
    assert!(late >= 3000, "{late} closed by their timeout");
    // A body that is refused when it is announced would end here.
    assert_eq!(server.count("closed by reason/service-closed"), 0);
}

#[test]
fn a_torrent_of_one_byte_messages_locks_no_client_out() {
    raise_limit();
    let server = start("5s");
    let address = server.address("hub");
    let target = format!("ws://{address}/echo");
    let mut torrent = vec!["stress", "ping", &target, "-c", "1000", "-P", "100", "--send", "x"];
    torrent.extend(["-d", BESIDE, "--quiet", "--assert", "errors=0", "--assert", "failed=0"]);
    thread::scope(|scope| {
        scope.spawn(|| serve_honest(&format!("resp://{address}")));
        scope.spawn(|| serve_honest(&format!("ws://{address}/echo")));
        let (code, output, error) = support::run(&torrent);
        assert_eq!(code, Some(0), "{output}{error}");
        let rate = output.lines().find(|line| line.contains("answers")).unwrap_or_default();
        println!("one-byte messages: {}", rate.trim());
    });
}

/// Fewer attackers than there are slots, so the slots are not what the flood exhausts.
const SOCKETIO_ATTACKERS: &str = "3000";

/// Memory that a flood of Socket.IO may leave behind. Sessions of clients that polled last until
/// they have not answered a ping. There are at most as many as slots.
const SOCKETIO_MEMORY_MAX: u64 = 1 << 20;

/// Floods with clients of Socket.IO by this transport.
fn flood_socketio(kind: &str, transport: &str, attackers: &str) {
    raise_limit();
    let mut server = start("5s");
    let more = ["--transport", transport, "-c", attackers, "--connect-rate", CONNECT_RATE];
    flood_at(&server, kind, "socketio://HUB", &more);
    let held = server.count("user memory, bytes/ledger, without fixed");
    println!("{kind} by {transport}: {held} bytes held");
    assert!(held <= SOCKETIO_MEMORY_MAX, "{kind} by {transport}: {held} bytes");
}

#[test]
fn sessions_that_connect_to_no_namespace_lock_no_client_out() {
    flood_socketio("silent", "websocket", ATTACKERS);
    flood_socketio("silent", "polling", ATTACKERS);
}

#[test]
fn guessed_ids_of_sessions_lock_no_client_out() {
    flood_socketio("sids", "websocket", SOCKETIO_ATTACKERS);
    flood_socketio("sids", "polling", SOCKETIO_ATTACKERS);
}

#[test]
fn clients_that_never_poll_again_lock_no_client_out() {
    flood_socketio("unpolled", "polling", ATTACKERS);
}

#[test]
fn upgrades_from_polling_that_are_never_completed_lock_no_client_out() {
    flood_socketio("half-upgrade", "polling", SOCKETIO_ATTACKERS);
}

#[test]
fn attachments_that_never_come_lock_no_client_out() {
    flood_socketio("announce", "websocket", SOCKETIO_ATTACKERS);
}

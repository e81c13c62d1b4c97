//! Peers that vanish while idle, vanish with data on its way, or never read. The kernel or a
//! deadline closes their connections, and an honest client notices nothing. Flags shorten the
//! server's timeouts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::drill::{self, ATTACKER, Drill, FIN_WAIT1};
use crate::support::{Client, PATIENCE};

const VANISHED: &str = "closed by reason/peer-vanished";
const OUTPUT_TIMEOUT: &str = "closed by reason/output-timeout";

/// Cuts off peers that have sent one message, so no deadline of the server is near. Returns the
/// time until the kernel has closed all their connections.
fn idle_peers_vanish(name: &'static str, options: &[&str]) -> Duration {
    let mut drill = Drill::start(name, options);
    drill.attack(200);
    let mut peers = drill::connect_from(ATTACKER, drill.address, 200, None);
    for peer in &mut peers {
        peer.write_all(b"PING\r\n").unwrap();
        peer.read_exact(&mut [0; 7]).unwrap();
    }
    drill.look();
    drill::cut_off(ATTACKER);
    let reclaimed = drill.until_reclaimed(Instant::now());
    let report = drill.finish(reclaimed, &[VANISHED]);
    assert_eq!(report.fired(VANISHED), 200);
    assert!(report.held(), "{report}");
    reclaimed
}

#[test]
fn idle_peers_that_vanish_are_closed_after_the_last_probe() {
    drill::in_namespace(
        module_path!(),
        "idle_peers_that_vanish_are_closed_after_the_last_probe",
        || {
            let probes = [
                "--keepalive",
                "1s",
                "--keepalive-interval",
                "1s",
                "--keepalive-probes",
                "3",
                "--user-timeout",
                "0",
            ];
            let reclaimed = idle_peers_vanish("vanished while idle, three probes", &probes);
            // A second of silence, and three probes without an answer. Linux rounds these timers up
            // by at most an eighth.
            assert!((3..10).contains(&reclaimed.as_secs()), "{reclaimed:?}");
        },
    );
}

/// With a user timeout, the kernel does not count probes. It closes the connection at the first
/// interval after a probe at which the silence is longer than the timeout. By default, that is
/// after 60 + 15 s.
#[test]
fn a_user_timeout_closes_vanished_idle_peers_before_the_last_probe() {
    drill::in_namespace(
        module_path!(),
        "a_user_timeout_closes_vanished_idle_peers_before_the_last_probe",
        || {
            let probes = [
                "--keepalive",
                "2s",
                "--keepalive-interval",
                "1s",
                "--keepalive-probes",
                "30",
                "--user-timeout",
                "1s",
            ];
            let reclaimed =
                idle_peers_vanish("vanished while idle, user timeout below keepalive", &probes);
            assert!(
                (2..10).contains(&reclaimed.as_secs()),
                "{reclaimed:?}: 30 probes would take 32 s"
            );
        },
    );
}

#[test]
fn peers_that_vanish_with_unacknowledged_data_are_closed_by_the_user_timeout() {
    drill::in_namespace(
        module_path!(),
        "peers_that_vanish_with_unacknowledged_data_are_closed_by_the_user_timeout",
        || {
            let mut drill =
                Drill::start("vanished with data unacknowledged", &["--user-timeout", "3s"]);
            drill.attack(200);
            let _peers = subscribers(drill.address, 200, None);
            drill.look();
            drill::cut_off(ATTACKER);
            let since = Instant::now();
            publish(drill.address, 1, 100, 200);
            let reclaimed = drill.until_reclaimed(since);
            let report = drill.finish(reclaimed, &[VANISHED]);
            assert!(
                (2..10).contains(&reclaimed.as_secs()),
                "{reclaimed:?}; without a user timeout, Linux tries for 15 minutes"
            );
            assert_eq!(report.fired(VANISHED), 200);
            assert!(report.held(), "{report}");
        },
    );
}

/// Number of messages to each subscriber. They are more than the kernel's buffers hold and less
/// than the output limits.
const MESSAGES: usize = 80;
const MESSAGE: usize = 1000;

/// Maximum of the kernel's buffers for a peer with a zero window, in bytes.
const KERNEL_BUFFERS_MAX: u64 = 64 * 1024;

#[test]
fn peers_that_never_read_are_reset_by_the_output_timeout() {
    drill::in_namespace(
        module_path!(),
        "peers_that_never_read_are_reset_by_the_output_timeout",
        || {
            let timeouts =
                ["--output-timeout", "3s", "--user-timeout", "0", "--memory-budget", "1GiB"];
            let mut drill = Drill::start("zero window, output timeout", &timeouts);
            let (peers, reclaimed) = readers_close_their_window(&mut drill, 2000);
            std::thread::sleep(Duration::from_secs(1));
            let lingering = drill::sockets_in_state(drill.address.port(), FIN_WAIT1);
            let resets = "closed by reason/of all, by a reset";
            let report = drill.finish(reclaimed, &[OUTPUT_TIMEOUT, VANISHED, resets]);
            drop(peers);
            assert_eq!(lingering, 0, "sockets stay in FIN_WAIT1 and wait for an acknowledgement");
            assert!((2..15).contains(&reclaimed.as_secs()), "{reclaimed:?}");
            assert_eq!((report.fired(OUTPUT_TIMEOUT), report.fired(resets)), (2000, 2000));
            assert!(report.held(), "{report}");
        },
    );
}

#[test]
fn peers_that_never_read_are_closed_by_the_user_timeout() {
    drill::in_namespace(
        module_path!(),
        "peers_that_never_read_are_closed_by_the_user_timeout",
        || {
            let timeouts =
                ["--output-timeout", "0", "--user-timeout", "3s", "--memory-budget", "1GiB"];
            let mut drill = Drill::start("zero window, user timeout", &timeouts);
            let (_peers, reclaimed) = readers_close_their_window(&mut drill, 2000);
            let report = drill.finish(reclaimed, &[OUTPUT_TIMEOUT, VANISHED]);
            assert!((2..15).contains(&reclaimed.as_secs()), "{reclaimed:?}");
            assert_eq!(report.fired(VANISHED), 2000);
            assert!(report.held(), "{report}");
        },
    );
}

/// The budget also counts the kernel's buffers. The server evicts the largest connections before
/// the budget is full, without any timeout.
#[test]
fn peers_that_never_read_are_evicted_within_the_memory_budget() {
    drill::in_namespace(
        module_path!(),
        "peers_that_never_read_are_evicted_within_the_memory_budget",
        || {
            const BUDGET: u64 = 32 << 20;
            let patient =
                ["--output-timeout", "0", "--user-timeout", "0", "--memory-budget", "32MiB"];
            let mut drill = Drill::start("zero window, memory budget", &patient);
            drill.attack(600);
            let peers = subscribers(drill.address, 600, Some(2304));
            let mut publisher = Client::connect(drill.address);
            let message = "m".repeat(MESSAGE);
            for _ in 0..MESSAGES {
                publisher.send(format!("PUBLISH drill {message}\r\nPING\r\n"));
                while publisher.read_line() != "+PONG" {}
            }
            let status = drill.look();
            let count = |row: &str| status[row].parse::<u64>().unwrap();
            let user = count("user memory, bytes/ledger, without fixed");
            let kernel = count("kernel memory, bytes/connections, estimated");
            println!(
                "{user} user and {kernel} kernel bytes of {BUDGET}, {} evicted",
                count("connections/evicted")
            );
            assert!(user + kernel <= BUDGET, "{user} + {kernel}");
            assert!(
                count("connections/evicted") >= 100 && count("connections/held") > 50,
                "{status:?}"
            );
            // The honest client gets some time beside these peers.
            std::thread::sleep(Duration::from_secs(1));
            let since = Instant::now();
            drop(peers);
            let reclaimed = drill.until_reclaimed(since);
            let report = drill.finish(reclaimed, &["closed by reason/memory-budget"]);
            assert!(report.held(), "{report}");
        },
    );
}

/// Connects subscribers with the smallest window that read none of their messages, and sends more
/// than the window holds. Returns them, and the time until the server has closed them.
fn readers_close_their_window(drill: &mut Drill, count: usize) -> (Vec<TcpStream>, Duration) {
    drill.attack(count);
    let peers = subscribers(drill.address, count, Some(2304));
    let since = Instant::now();
    publish(drill.address, MESSAGES, MESSAGE, count);
    let status = drill.look();
    let buffers: u64 = status["kernel memory, bytes/buffers per connection"].parse().unwrap();
    assert!(
        (8 * 1024..=KERNEL_BUFFERS_MAX).contains(&buffers),
        "{buffers} bytes of kernel buffers each"
    );
    (peers, drill.until_reclaimed(since))
}

/// Connects subscribers of the channel "drill".
fn subscribers(address: SocketAddr, count: usize, receive_buffer: Option<usize>) -> Vec<TcpStream> {
    let mut peers = drill::connect_from(ATTACKER, address, count, receive_buffer);
    for peer in &mut peers {
        peer.write_all(b"SUBSCRIBE drill\r\n").unwrap();
        let mut confirmed = *b"*3\r\n$9\r\nsubscribe\r\n$5\r\ndrill\r\n:1\r\n";
        peer.read_exact(&mut confirmed).unwrap();
    }
    peers
}

/// Pause between two messages to thousands of subscribers. Without it, a burst of pending
/// deliveries would stop the server from reading, and the honest client would notice that on a busy
/// machine.
const PACE: Duration = Duration::from_millis(20);

fn publish(address: SocketAddr, messages: usize, length: usize, receivers: usize) {
    let mut publisher = Client::connect(address);
    publisher.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = "m".repeat(length);
    for _ in 0..messages {
        publisher.send(format!("PUBLISH drill {message}\r\n")).expect(format!(":{receivers}\r\n"));
        std::thread::sleep(PACE);
    }
}

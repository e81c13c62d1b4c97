//! The kernel's part in a flood: unfinished handshakes and full accept queues, and slabd's report
//! of both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::Server;
use crate::support::drill::{self, ATTACKER, Drill};

const COOKIES: &str = "net/ipv4/tcp_syncookies";

/// Writes a kernel setting of this network namespace.
fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn the_server_warns_of_unfit_kernel_settings_and_names_the_change() {
    drill::in_namespace(
        module_path!(),
        "the_server_warns_of_unfit_kernel_settings_and_names_the_change",
        || {
            let listen = ["--listen", "hub=127.0.0.1:0"];
            let mut fit = Server::start(&[&listen[..], &["--backlog", "4096"]].concat());
            assert!(!fit.log().iter().any(|line| line.contains("WARN")), "{:?}", fit.log());
            set(COOKIES, "0");
            set("net/core/somaxconn", "128");
            let mut unfit = Server::start(&listen);
            let warnings: Vec<String> =
                unfit.log().iter().filter(|line| line.contains("WARN")).cloned().collect();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings[0].contains("sysctl -w net.ipv4.tcp_syncookies=1"), "{warnings:?}");
            assert!(warnings[1].contains("sysctl -w net.core.somaxconn=4096"), "{warnings:?}");
            let status = unfit.status();
            let settings = ["net.ipv4.tcp_syncookies", "net.core.somaxconn"]
                .map(|name| &status[&format!("kernel/{name}")][..]);
            assert_eq!(settings, ["0", "128"]);
        },
    );
}

#[test]
fn a_server_counts_only_accept_queue_overflows_since_its_start() {
    drill::in_namespace(
        module_path!(),
        "a_server_counts_only_accept_queue_overflows_since_its_start",
        || {
            let mut server = Server::start(&["--listen", "hub=127.0.0.1:0", "--backlog", "8"]);
            assert_eq!(server.count("kernel/ListenOverflows"), 0);
            server.signal("STOP");
            let _waiting = half_open(server.address("hub"), 50);
            std::thread::sleep(Duration::from_millis(200));
            server.signal("CONT");
            assert!(server.count("kernel/ListenOverflows") > 0);
            assert!(server.count("kernel/ListenDrops") > 0);
            let mut later = Server::start(&["--listen", "hub=127.0.0.1:0"]);
            assert_eq!(
                later.count("kernel/ListenOverflows"),
                0,
                "a new server counts an overflow before its start"
            );
        },
    );
}

/// Returns nonblocking sockets that have begun to connect.
fn half_open(to: SocketAddr, count: usize) -> Vec<socket2::Socket> {
    let begin = |_| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((ATTACKER, 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&to.into());
        socket
    };
    (0..count).map(begin).collect()
}

/// Drops the answers to the attackers' handshakes, as if their addresses were forged.
fn lose_answers_to_attackers() {
    let rules = format!(
        "table ip drill {{ chain arriving {{ type filter hook input priority 0\n\
         ip daddr {ATTACKER} tcp flags & (syn|ack) == (syn|ack) drop\n}}\n}}"
    );
    drill::run("nft", &[&rules]);
}

const COOKIES_SENT: &str = "kernel/SyncookiesSent";
const QUEUE_FULL: &str = "kernel/TCPReqQFullDoCookies";
const HELD: &str = "connections/held";

fn flood_of_half_open_connections(name: &'static str) -> drill::Report {
    let mut drill = Drill::start(name, &["--backlog", "256"]);
    drill.attack(4000);
    let began = Instant::now();
    let mut flood = Vec::new();
    // The flood is ten times the queue, over three seconds. The kernel also repeats each SYN.
    for _ in 0..40 {
        flood.extend(half_open(drill.address, 100));
        std::thread::sleep(Duration::from_millis(75));
    }
    let status = drill.look();
    let held: usize = status[HELD].parse().unwrap();
    assert!(held <= 2, "{held} half-open connections reached the process");
    drop(flood);
    drill.finish(began.elapsed(), &[COOKIES_SENT, QUEUE_FULL, "kernel/TCPReqQFullDrop"])
}

#[test]
fn half_open_connections_lock_no_client_out_with_syn_cookies() {
    drill::in_namespace(
        module_path!(),
        "half_open_connections_lock_no_client_out_with_syn_cookies",
        || {
            lose_answers_to_attackers();
            let report = flood_of_half_open_connections("half-open, with cookies");
            assert!(report.fired(COOKIES_SENT) > 0 && report.fired(QUEUE_FULL) > 0, "{report}");
            assert!(report.held(), "{report}");
            // Without cookies, the flood must lock the honest client out.
            set(COOKIES, "0");
            let without = flood_of_half_open_connections(
                "half-open, without cookies: the server warns of this setting",
            );
            assert!(!without.held(), "{without}");
            assert!(
                4 * without.during.served() < report.during.served(),
                "SYN cookies make no difference:\n{without}"
            );
        },
    );
}

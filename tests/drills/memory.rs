//! Drills with a system limit on the server's memory. The server stays within its own budget, and
//! an honest client is served.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::support::drill::{self, ATTACKER, Drill};

const BUDGET: u64 = 48 << 20;
/// Memory for the program, its fixed tables and the allocator.
const BESIDES: u64 = 24 << 20;

/// Bytes that each peer sends of its unfinished message.
const PART: usize = 200_000;
const PEERS: usize = 1500;
const AT_ONCE: usize = 5;

/// A fifth of the memory of four hundred send buffers.
const TCP_MEMORY: u64 = 2 << 20;

/// Creates a control group for a drill. If that fails, prints SKIPPED and returns `None`.
fn group(test: &str, set: impl FnOnce(&Cgroup) -> Result<(), String>) -> Option<Cgroup> {
    match Cgroup::new(test).and_then(|group| set(&group).map(|()| group)) {
        Ok(group) => Some(group),
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// The peers send 300 MB of unfinished messages to a server that can have 72 MiB of memory. The
/// server evicts the largest connections in time, so the kernel never kills it.
#[test]
fn unfinished_messages_of_all_clients_stay_within_the_budget() {
    const TEST: &str = "unfinished_messages_of_all_clients_stay_within_the_budget";
    drill::in_namespace(module_path!(), TEST, || {
        let Some(group) = group(TEST, |group| group.limit(BUDGET + BESIDES)) else { return };
        let budget = (BUDGET >> 20).to_string() + "MiB";
        let options = [
            "--memory-budget",
            &budget,
            "--max-silent-per-source",
            "4000",
            "--message-timeout",
            "60s",
        ];
        let mut drill = Drill::start("unfinished messages under a cgroup's limit", &options);
        group.enter(drill.server.process_id()).unwrap();
        drill.attack(PEERS);
        let began = Instant::now();
        let mut peers: Vec<TcpStream> = Vec::new();
        let part = [b"*2\r\n$4\r\nECHO\r\n$900000\r\n".to_vec(), vec![b'x'; PART]].concat();
        let (mut most, mut evicted) = (0, 0);
        for round in 0..PEERS / AT_ONCE {
            // Larger bursts would take the core from the honest client of this process.
            std::thread::sleep(Duration::from_millis(20));
            for mut peer in drill::connect_from(ATTACKER, drill.address, AT_ONCE, None) {
                // A peer that is evicted while it sends is dropped.
                if peer.write_all(&part).is_ok() {
                    peers.push(peer);
                }
            }
            if round % 10 != 9 {
                continue;
            }
            let status = drill.look();
            let count = |row: &str| status[row].parse::<u64>().unwrap();
            let held = count("user memory, bytes/ledger, without fixed")
                + count("kernel memory, bytes/connections, estimated");
            assert!(held <= BUDGET, "the server holds {held} bytes of {BUDGET} in round {round}");
            (most, evicted) = (most.max(held), count("connections/evicted"));
        }
        println!(
            "  {most} bytes at most of {BUDGET}, {evicted} evicted within {:.1} s",
            began.elapsed().as_secs_f64()
        );
        assert!(evicted > 500, "the server evicted only {evicted}");
        assert!(most > BUDGET / 2, "the peers never took half of the budget: {most}");
        let since = Instant::now();
        drop(peers);
        let reclaimed = drill.until_reclaimed(since);
        let report = drill.finish(reclaimed, &["closed by reason/memory-budget"]);
        assert!(report.held(), "{report}");
    });
}

/// The kernel has very little memory for the server's sockets, and peers that never read have
/// megabytes of pending output. The server keeps running. Five seconds after the peers have left,
/// it serves as before.
#[test]
fn the_server_survives_a_shortage_of_tcp_memory() {
    const TEST: &str = "the_server_survives_a_shortage_of_tcp_memory";
    drill::in_namespace(module_path!(), TEST, || {
        let Some(group) = group(TEST, |group| group.limit_tcp(TCP_MEMORY)) else { return };
        let mut drill = Drill::start(
            "little TCP memory",
            &["--memory-budget", "1GiB", "--max-silent-per-source", "4000"],
        );
        group.enter(drill.server.process_id()).unwrap();
        drill.attack(400);
        let ask =
            [b"*2\r\n$4\r\nPING\r\n$16000\r\n".to_vec(), vec![b'x'; 16_000], b"\r\n".to_vec()]
                .concat();
        let mut peers = drill::connect_from(ATTACKER, drill.address, 400, Some(2304));
        for peer in &mut peers {
            peer.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            // Some writes fail, because the server stops reading.
            let _ = (0..4).try_for_each(|_| peer.write_all(&ask));
        }
        std::thread::sleep(Duration::from_secs(2));
        let peak = group.tcp_peak();
        let since = Instant::now();
        drop(peers);
        let reclaimed = drill.until_reclaimed(since);
        assert!(reclaimed < Duration::from_secs(5), "{reclaimed:?}");
        let report = drill.finish(reclaimed, &["closed by reason/peer-reset"]);
        println!("  TCP memory: {peak} bytes at most, with a limit of {TCP_MEMORY}");
        assert!(peak >= TCP_MEMORY, "the kernel's TCP memory never reached its limit");
        assert!(report.before.success() >= 0.999 && report.after.success() >= 0.999, "{report}");
        assert!(
            report.after.p99() <= Duration::from_millis(50).max(2 * report.before.p99()),
            "{report}"
        );
    });
}

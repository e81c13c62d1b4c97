//! All clients together, under a bound of the system on the server's memory: it is never passed by the server's own doing, and an honest client
//! goes on being served.

#![forbid(unsafe_code)]

#[path = "support/cgroup.rs"]
mod cgroup;
mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cgroup::Cgroup;
use support::drill::{self, ATTACKER, Drill};

const BUDGET: u64 = 48 << 20;
/// For the program itself, its fixed tables, and what the allocator needs beside.
const BESIDES: u64 = 24 << 20;

/// What each of them sends of a message that never ends.
const PART: usize = 200_000;
const PEERS: usize = 1500;
const AT_ONCE: usize = 5;

/// A fifth of what four hundred send buffers would take.
const TCP_MEMORY: u64 = 2 << 20;

/// A group for a drill; `None` where there can be none, which is said.
fn group(test: &str, set: impl FnOnce(&Cgroup) -> Result<(), String>) -> Option<Cgroup> {
    match Cgroup::new(test).and_then(|group| set(&group).map(|()| group)) {
        Ok(group) => Some(group),
        Err(why) => {
            println!("SKIPPED {test}: {why}");
            None
        }
    }
}

/// Three hundred megabytes of unfinished messages are sent to a server that may have 72 of memory in all: who holds most is closed in time, and the
/// kernel never has to kill it.
#[test]
fn unfinished_messages_of_all_clients_stay_within_the_budget() {
    const TEST: &str = "unfinished_messages_of_all_clients_stay_within_the_budget";
    drill::in_namespace(TEST, || {
        let Some(group) = group(TEST, |group| group.limit(BUDGET + BESIDES)) else { return };
        let budget = (BUDGET >> 20).to_string() + "MiB";
        let options = ["--memory-budget", &budget, "--max-silent-per-source", "4000", "--message-timeout", "60s"];
        let mut drill = Drill::start("unfinished messages under a cgroup's bound", &options);
        group.enter(drill.server.process_id()).unwrap();
        drill.attack(PEERS);
        let began = Instant::now();
        let mut peers: Vec<TcpStream> = Vec::new();
        let part = [b"*2\r\n$4\r\nECHO\r\n$900000\r\n".to_vec(), vec![b'x'; PART]].concat();
        let (mut most, mut evicted) = (0, 0);
        for round in 0..PEERS / AT_ONCE {
            // In bursts of megabytes it would be this process that keeps its honest client from its core.
            std::thread::sleep(Duration::from_millis(20));
            for mut peer in drill::connect_from(ATTACKER, drill.address, AT_ONCE, None) {
                // Who is evicted while it sends is done with.
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
            assert!(held <= BUDGET, "{held} bytes of {BUDGET} in round {round}");
            (most, evicted) = (most.max(held), count("connections/evicted"));
        }
        println!("  {most} bytes at most of {BUDGET}, {evicted} evicted within {:.1} s", began.elapsed().as_secs_f64());
        assert!(evicted > 500, "{evicted} evicted");
        assert!(most > BUDGET / 2, "the budget was never put to the test: {most}");
        let since = Instant::now();
        drop(peers);
        let reclaimed = drill.until_reclaimed(since);
        let report = drill.finish(reclaimed, &["closed by reason/memory-budget"]);
        assert!(report.held(), "{report}");
    });
}

/// The kernel has next to no memory for the server's sockets while readers that do not read are owed megabytes. The server stays alive, and
/// serves as before within five seconds of their end.
#[test]
fn a_squeeze_of_the_kernels_tcp_memory_is_survived() {
    const TEST: &str = "a_squeeze_of_the_kernels_tcp_memory_is_survived";
    drill::in_namespace(TEST, || {
        let Some(group) = group(TEST, |group| group.limit_tcp(TCP_MEMORY)) else { return };
        let mut drill =
            Drill::start("little TCP memory", &["--memory-budget", "1GiB", "--max-silent-per-source", "4000"]);
        group.enter(drill.server.process_id()).unwrap();
        drill.attack(400);
        let ask = [b"*2\r\n$4\r\nPING\r\n$16000\r\n".to_vec(), vec![b'x'; 16_000], b"\r\n".to_vec()].concat();
        let mut peers = drill::connect_from(ATTACKER, drill.address, 400, Some(2304));
        for peer in &mut peers {
            peer.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            // As much as it takes: some is not taken, which is the point.
            let _ = (0..4).try_for_each(|_| peer.write_all(&ask));
        }
        std::thread::sleep(Duration::from_secs(2));
        let peak = group.tcp_peak();
        let since = Instant::now();
        drop(peers);
        let reclaimed = drill.until_reclaimed(since);
        assert!(reclaimed < Duration::from_secs(5), "{reclaimed:?}");
        let report = drill.finish(reclaimed, &["closed by reason/peer-reset"]);
        println!("  {peak} bytes of TCP memory at most, where {TCP_MEMORY} were allowed");
        assert!(peak >= TCP_MEMORY, "the kernel's memory was never short");
        assert!(report.before.success() >= 0.999 && report.after.success() >= 0.999, "{report}");
        assert!(report.after.p99() <= Duration::from_millis(50).max(2 * report.before.p99()), "{report}");
    });
}

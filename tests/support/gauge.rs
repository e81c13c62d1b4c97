//! What a server holds, read from outside through /proc: resident memory, files, processor time, and what the kernel
//! keeps for it. Watched on a thread of its own, for the peak.

#![allow(dead_code, reason = "tests and benchmarks each use their own part")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WATCH_EVERY: Duration = Duration::from_millis(25);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes.
    pub resident: u64,
    pub files: u64,
}

impl Reading {
    pub fn of(process: u32) -> Reading {
        Reading { resident: resident(process), files: open_files(process) }
    }

    fn max(self, other: Reading) -> Reading {
        Reading { resident: self.resident.max(other.resident), files: self.files.max(other.files) }
    }

    /// Files more than `before`: connections.
    pub fn held_since(self, before: Reading) -> u64 {
        self.files.saturating_sub(before.files)
    }

    /// User bytes per connection more than `before`. `None` without connections.
    pub fn user_bytes_each(self, before: Reading) -> Option<u64> {
        self.resident.saturating_sub(before.resident).checked_div(self.held_since(before))
    }
}

/// From smaps_rollup, which walks the page tables: the figures of statm are kept per core and may be off.
pub fn resident(process: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

pub fn open_files(process: u32) -> u64 {
    let path = format!("/proc/{process}/fd");
    match fs::metadata(&path).map_or(0, |metadata| metadata.len()) {
        // Before Linux 6.2 the folder does not know how many it has.
        0 => fs::read_dir(&path).map_or(0, |entries| entries.count() as u64),
        files => files,
    }
}

/// The folder under /proc of a thread of this process, by its name.
pub fn thread_named(name: &str) -> Option<PathBuf> {
    let mut tasks = fs::read_dir("/proc/self/task").ok()?.flatten().map(|task| task.path());
    // A thread may end meanwhile.
    tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
}

/// How long a thread of this process has been ready to run and not been run: proc(5), schedstat. Zero where the kernel does not count it.
pub fn core_wait(name: &str) -> Duration {
    let schedstat = thread_named(name).and_then(|task| fs::read_to_string(task.join("schedstat")).ok());
    let nanos = schedstat.and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// What the kernel makes for a connection: the socket, its inode and name, the file, and the entry in epoll.
const STRUCTURES: [&str; 5] = ["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi"];

/// Bytes of kernel memory that a connection of a server takes on average: its structures, by their sizes in
/// /proc/slabinfo, and the buffers of its socket, by `ss`. Not from /proc/net/sockstat, which has the buffers of everybody on
/// this machine. `None` without connections, without ss (iproute2), or for anyone but root.
pub fn kernel_bytes_each(port: u16) -> Option<u64> {
    let slabinfo = fs::read_to_string("/proc/slabinfo").ok()?;
    let size = |name: &str| {
        let line = slabinfo.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().nth(3)?.parse::<u64>().ok()
    };
    let structures: u64 = STRUCTURES.into_iter().filter_map(size).sum();
    let filter = ["-tmnH", "state", "established", &format!("( sport = :{port} )")];
    let output = Command::new("ss").args(filter).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut sockets, mut bytes) = (0, 0);
    // skmem:(r0,rb131072,t0,tb2626560,f0,w0,o0,bl0,d0), where r is received, w queued to send, f set aside. ss(8).
    for memory in text.split("skmem:(").skip(1) {
        let fields = memory.split([',', ')']);
        let held = ["r", "w", "f"].map(|name| {
            let mut values = fields.clone().filter_map(|field| field.strip_prefix(name)?.parse::<u64>().ok());
            values.next().unwrap_or(0)
        });
        bytes += held.iter().sum::<u64>();
        sockets += 1;
    }
    Some(structures + bytes.checked_div(sockets)?)
}

/// Processor time of all its threads, exact while it sleeps.
pub fn processor_time(process: u32) -> Duration {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += schedstat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanos)
}

/// A counter of /proc/net/netstat, such as ListenOverflows: of this network namespace since it began.
pub fn network_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let position = pair[0].split(' ').position(|word| word == name);
        if let Some(value) = position.and_then(|position| pair[1].split(' ').nth(position)) {
            return value.parse().unwrap_or(0);
        }
    }
    0
}

/// Watches a process for the peak of what it holds.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Reading>,
}

impl Watch {
    pub fn start(process: u32) -> Watch {
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = Reading::of(process);
            while !theirs.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH_EVERY);
                peak = peak.max(Reading::of(process));
            }
            peak
        });
        Watch { stop, thread }
    }

    pub fn stop(self) -> Reading {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("watching does not fail")
    }
}

/// Waits until no more than so many files are open; false after `patience`.
pub fn wait_for_files(process: u32, most: u64, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while open_files(process) > most {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

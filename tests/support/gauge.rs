//! The resources of a server, read through /proc: resident memory, files, processor time, and the
//! kernel's memory for its sockets. A thread can watch a server for its peak.

#![allow(dead_code, reason = "tests and benchmarks each use their own part")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WATCH_EVERY: Duration = Duration::from_millis(25);

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Resident set, in bytes.
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

    /// Returns the number of files opened since `before`. Each is a connection.
    pub fn held_since(self, before: Reading) -> u64 {
        self.files.saturating_sub(before.files)
    }

    /// Returns the growth of the resident set since `before`, in bytes per connection. `None` if
    /// there are no connections.
    pub fn user_bytes_each(self, before: Reading) -> Option<u64> {
        self.resident.saturating_sub(before.resident).checked_div(self.held_since(before))
    }
}

/// Returns the resident set of a process, in bytes. It is from smaps_rollup, which walks the page
/// tables. The figures of statm are kept per core and can be inexact.
pub fn resident(process: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// Returns the number of open files of a process.
pub fn open_files(process: u32) -> u64 {
    let path = format!("/proc/{process}/fd");
    match fs::metadata(&path).map_or(0, |metadata| metadata.len()) {
        // Before Linux 6.2, the folder's size is 0.
        0 => fs::read_dir(&path).map_or(0, |entries| entries.count() as u64),
        files => files,
    }
}

/// Returns the folder under /proc of the thread of this process that has this name.
pub fn thread_named(name: &str) -> Option<PathBuf> {
    let mut tasks = fs::read_dir("/proc/self/task").ok()?.flatten().map(|task| task.path());
    // A thread can end meanwhile.
    tasks.find(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// Returns how long a thread of this process has waited for a core (proc(5), schedstat). It is zero
/// if the kernel does not count this.
pub fn core_wait(name: &str) -> Duration {
    let schedstat =
        thread_named(name).and_then(|task| fs::read_to_string(task.join("schedstat")).ok());
    let nanos = schedstat.and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The slabs in which the kernel has an object for each connection: the socket, its inode and name,
/// the file, and the entry in epoll.
const STRUCTURES: [&str; 5] = ["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi"];

/// Returns the kernel memory that a server's connection takes on average, in bytes.
///
/// The sizes of the structures are from /proc/slabinfo, and the buffers of each socket from `ss`.
/// /proc/net/sockstat would count the buffers of all processes. Returns `None` without connections,
/// without ss (iproute2), or without root.
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
    // skmem:(r0,rb131072,t0,tb2626560,f0,w0,o0,bl0,d0): r is received, w is queued to send, and f
    // is set aside (ss(8)).
    for memory in text.split("skmem:(").skip(1) {
        let fields = memory.split([',', ')']);
        let held = ["r", "w", "f"].map(|name| {
            let mut values =
                fields.clone().filter_map(|field| field.strip_prefix(name)?.parse::<u64>().ok());
            values.next().unwrap_or(0)
        });
        bytes += held.iter().sum::<u64>();
        sockets += 1;
    }
    Some(structures + bytes.checked_div(sockets)?)
}

/// Returns the processor time of all threads of a process. It is exact while the process sleeps.
pub fn processor_time(process: u32) -> Duration {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos +=
            schedstat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanos)
}

/// Returns a counter of /proc/net/netstat, such as ListenOverflows. It counts since the start of
/// this network namespace.
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

/// A thread that watches a process for the peak of its resources.
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

/// Waits until the process has at most `most` open files. Returns false after `patience`.
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

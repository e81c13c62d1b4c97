//! Memory figures from the system: the resident set of a process, and the kernel's share of
//! sockets.
//!
//! The kernel's structures for one TCP connection are objects of fixed size in its own slabs. Only
//! root can read their sizes from /proc/slabinfo. Other users get the sum measured on Linux 6.18,
//! marked as not measured.

use std::fs;
use std::time::Duration;

use crate::sys;

/// Returns the resident set of this process in bytes, from /proc/self/smaps_rollup (proc(5)). This
/// source is exact. The counters in statm may lag by some hundred pages per processor. Returns
/// `None` if /proc is not readable.
pub fn resident_bytes() -> Option<u64> {
    rollup("self")
}

/// Returns the resident set of another process of this user in bytes, or `None` if it is not
/// readable.
pub fn resident_bytes_of(pid: u32) -> Option<u64> {
    rollup(&pid.to_string())
}

/// Returns the resident set of another process in bytes, from the lagging counters of statm.
/// Reading them costs that process nothing, while smaps_rollup makes it wait until its pages are
/// walked.
pub fn resident_bytes_about(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * sys::page_size())
}

/// Returns the processor time of all threads of another process, from /proc/PID/task/TID/schedstat.
/// The kernel counts it in nanoseconds.
pub fn cpu_time_of(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanoseconds.sum()))
}

/// Returns the start time of a process in the kernel's ticks since boot: proc(5), field 22 of stat.
/// The name before that field may contain any character.
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn rollup(process: &str) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Returns the memory of TCP buffers and the number of TCP sockets in this network namespace, from
/// /proc/net/sockstat.
pub fn tcp_socket_statistics() -> Option<TcpSockets> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    parse_sockstat(&text)
}

/// TCP sockets of the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSockets {
    pub in_use: u64,
    pub buffer_bytes: u64,
}

fn parse_sockstat(text: &str) -> Option<TcpSockets> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |name| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    Some(TcpSockets { in_use: value("inuse")?, buffer_bytes: value("mem")? * sys::page_size() })
}

/// The bytes of the kernel's fixed structures for one TCP connection, and whether this kernel
/// reported them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelObjects {
    pub bytes: u64,
    pub measured: bool,
}

/// The kernel's slabs that one accepted and polled TCP connection has an object in: protocol block,
/// inode, file, directory entry, and epoll item with its wait queue entry.
const OBJECTS: [&str; 6] =
    ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq"];

/// The sum of their sizes on Linux 6.18, x86-64, rounded up, in bytes.
pub const OBJECTS_BYTES_DEFAULT: u64 = 4096;

/// Returns the kernel's structures per connection: measured, or else [`OBJECTS_BYTES_DEFAULT`].
pub fn kernel_objects() -> KernelObjects {
    let measured = fs::read_to_string("/proc/slabinfo").ok().and_then(|text| parse_slabinfo(&text));
    KernelObjects { bytes: measured.unwrap_or(OBJECTS_BYTES_DEFAULT), measured: measured.is_some() }
}

/// Returns the sum of the object sizes (slabinfo(5)). A size is an object's share of its slab, so
/// it includes padding. A slab that the kernel has merged with another of its size has another name
/// and is left out. Returns `None` if the TCP or the inode slab is not listed.
fn parse_slabinfo(text: &str) -> Option<u64> {
    let share = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        let column = |index: usize| line.split_whitespace().nth(index)?.parse::<u64>().ok();
        let (objects_per_slab, pages_per_slab) = (column(4)?, column(5)?);
        (pages_per_slab * sys::page_size()).checked_div(objects_per_slab)
    };
    let required = share(OBJECTS[0])? + share(OBJECTS[1])?;
    Some(required + OBJECTS[2..].iter().filter_map(|name| share(name)).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_reports_a_resident_set_and_tcp_sockets() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(tcp_socket_statistics().is_some());
        assert!((2000..20_000).contains(&kernel_objects().bytes));
    }

    #[test]
    fn sockstat_and_slabinfo_are_parsed() {
        let sockstat =
            "sockets: used 27\nTCP: inuse 2 orphan 0 tw 1 alloc 3 mem 5\nUDP: inuse 1 mem 0\n";
        let page = sys::page_size();
        assert_eq!(
            parse_sockstat(sockstat),
            Some(TcpSockets { in_use: 2, buffer_bytes: 5 * page })
        );
        assert_eq!(parse_sockstat("TCP: inuse x"), None);
        let slabinfo = "slabinfo - version: 2.1\n# name ...\nTCP 10 12 2496 13 8 : tunables 0\n\
                        sock_inode_cache 1 1 832 19 4 : x\n\
                        filp 1 1 256 16 1 : x\ntcp_bind_bucket 1 1 128 32 1 : x\n";
        assert_eq!(parse_slabinfo(slabinfo), Some(8 * page / 13 + 4 * page / 19 + page / 16));
        assert_eq!(parse_slabinfo("TCP 10"), None);
        assert_eq!(parse_slabinfo(""), None);
    }
}

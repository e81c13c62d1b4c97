//! What the system says of memory: this process's resident set, and the kernel's share of its sockets.
//!
//! The kernel's structures for one TCP connection are objects of fixed size in its own slabs. /proc/slabinfo tells those
//! sizes to root; others get the sum measured on Linux 6.18 instead, marked as such.

use std::fs;
use std::time::Duration;

use crate::sys;

/// Resident set of this process in bytes: /proc/self/smaps_rollup, proc(5). Of the places that tell it this one is exact; the counters
/// behind statm may lag by some hundred pages per processor.
pub fn resident_bytes() -> Option<u64> {
    rollup("self")
}

/// The same of another process of this user.
pub fn resident_bytes_of(pid: u32) -> Option<u64> {
    rollup(&pid.to_string())
}

/// The same as the lagging counters have it, which costs that process nothing: the other makes it wait while its pages are walked.
pub fn resident_bytes_about(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * sys::page_size())
}

/// Processor time of all threads of another process: /proc/PID/task/TID/schedstat, which counts nanoseconds.
pub fn cpu_time_of(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanoseconds.sum()))
}

/// When a process began, in the kernel's ticks since it booted: proc(5), field 22 of stat. The name before it may hold anything.
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

/// Pages that TCP holds for buffers in this whole network namespace, in bytes, and sockets in use: /proc/net/sockstat.
pub fn tcp_socket_statistics() -> Option<TcpSockets> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    parse_sockstat(&text)
}

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

/// Bytes of the kernel's fixed structures for one TCP connection, and whether this kernel was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelObjects {
    pub bytes: u64,
    pub measured: bool,
}

/// The slabs that one accepted and polled TCP connection takes an object from: its protocol block, inode, file,
/// directory entry, and epoll item with its wait queue entry.
const OBJECTS: [&str; 6] = ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq"];

/// Their sum on Linux 6.18, x86-64, rounded up.
pub const OBJECTS_BYTES_DEFAULT: u64 = 4096;

pub fn kernel_objects() -> KernelObjects {
    let measured = fs::read_to_string("/proc/slabinfo").ok().and_then(|text| parse_slabinfo(&text));
    KernelObjects { bytes: measured.unwrap_or(OBJECTS_BYTES_DEFAULT), measured: measured.is_some() }
}

/// Sum of the object sizes; each is taken as its share of the slab it lies in, so that padding counts. slabinfo(5). Slabs
/// that were merged with others of their size are listed under another name and are left out; without TCP and the inode there is no sum.
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
    fn this_process_has_a_resident_set_and_the_kernel_counts_sockets() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(tcp_socket_statistics().is_some());
        assert!((2000..20_000).contains(&kernel_objects().bytes));
    }

    #[test]
    fn the_formats_of_the_kernel_are_read() {
        let sockstat = "sockets: used 27\nTCP: inuse 2 orphan 0 tw 1 alloc 3 mem 5\nUDP: inuse 1 mem 0\n";
        let page = sys::page_size();
        assert_eq!(parse_sockstat(sockstat), Some(TcpSockets { in_use: 2, buffer_bytes: 5 * page }));
        assert_eq!(parse_sockstat("TCP: inuse x"), None);
        let slabinfo = "slabinfo - version: 2.1\n# name ...\nTCP 10 12 2496 13 8 : tunables 0\nsock_inode_cache 1 1 832 19 4 : x\n\
                        filp 1 1 256 16 1 : x\ntcp_bind_bucket 1 1 128 32 1 : x\n";
        assert_eq!(parse_slabinfo(slabinfo), Some(8 * page / 13 + 4 * page / 19 + page / 16));
        assert_eq!(parse_slabinfo("TCP 10"), None);
        assert_eq!(parse_slabinfo(""), None);
    }
}

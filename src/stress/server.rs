//! The server's memory and processor time, read from /proc for its processes or from its INFO.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::answer::Answer;
use super::record::NOISE_PAGES;
use super::resp::{command, resp_reply};
use super::target::{Scheme, Target};
use crate::clock::{Clock, Time};
use crate::memory;
use crate::sys;

/// Longest time for one INFO in all. The generator's loop stands still meanwhile.
const INFO_TIMEOUT: Duration = Duration::from_millis(500);

/// Pages by which INFO may differ from the truth. Servers read the kernel's counters of resident
/// pages, which lag by 32 pages per processor.
const INFO_NOISE_PAGES: u64 = 64;

/// The source of the server's figures.
pub enum ServerWatch {
    /// A process and its children, such as nginx with its workers.
    Processes(Vec<u32>),
    /// A Redis server on another machine or of another user.
    Info(Box<Target>),
}

impl ServerWatch {
    /// Takes the given process, else the one that listens on the target's port, else INFO. `None`
    /// if no source gives figures.
    pub fn find(target: &Target, pid: Option<u32>) -> Option<ServerWatch> {
        let pid = pid.or_else(|| target.is_loopback().then(|| listening_process(target))?);
        if let Some(pid) = pid {
            let watch = ServerWatch::Processes(with_children(pid));
            return watch.resident_bytes().map(|_| watch);
        }
        let watch = ServerWatch::Info(Box::new(target.clone()));
        (target.scheme == Scheme::Resp && watch.resident_bytes().is_some()).then_some(watch)
    }

    /// Returns the name of the source for the report.
    pub fn source(&self) -> String {
        match self {
            ServerWatch::Processes(pids) => match pids.as_slice() {
                [pid] => format!("process {pid}"),
                [pid, rest @ ..] => format!("process {pid} and {} of its children", rest.len()),
                [] => String::new(),
            },
            ServerWatch::Info(_) => "INFO".into(),
        }
    }

    /// Returns the least growth of the resident set that can be told from noise, in bytes. The
    /// system counts whole pages, and a process touches a few of them whatever its load is: for its
    /// stack, the top of its heap, its first log line.
    pub fn resolution(&self) -> u64 {
        let pages = match self {
            ServerWatch::Processes(pids) => NOISE_PAGES * pids.len() as u64,
            ServerWatch::Info(_) => INFO_NOISE_PAGES,
        };
        pages * sys::page_size()
    }

    /// Returns the exact resident set in bytes, for the figures of the report.
    pub fn resident_bytes(&self) -> Option<u64> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::resident_bytes_of),
            ServerWatch::Info(target) => info_field(target, "used_memory_rss"),
        }
    }

    /// Returns the resident set in bytes, exact to some hundred pages, for the plots. Reading it
    /// costs little. INFO is not asked, because it would add to the load.
    pub fn resident_bytes_about(&self) -> Option<u64> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::resident_bytes_about),
            ServerWatch::Info(_) => None,
        }
    }

    /// Returns the processor time since the processes started.
    pub fn cpu_time(&self) -> Option<Duration> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::cpu_time_of),
            ServerWatch::Info(_) => None,
        }
    }
}

/// Returns the sum over the processes that still run; `None` if none does.
fn of_the_living<T: std::iter::Sum>(pids: &[u32], of: impl Fn(u32) -> Option<T>) -> Option<T> {
    let mut living = pids.iter().filter_map(|pid| of(*pid)).peekable();
    living.peek()?;
    Some(living.sum())
}

/// Returns the process of this machine that listens on the target's port. /proc/net gives the
/// inodes of the sockets, and /proc/PID/fd the processes that have them open.
fn listening_process(target: &Target) -> Option<u32> {
    let family = match (target.scheme, target.address) {
        (Scheme::Udp, SocketAddr::V4(_)) => "udp",
        (Scheme::Udp, SocketAddr::V6(_)) => "udp6",
        (_, SocketAddr::V4(_)) => "tcp",
        (_, SocketAddr::V6(_)) => "tcp6",
    };
    // A socket on [::] accepts IPv4 as well, unless IPV6_V6ONLY is set.
    let files = [family.to_string(), format!("{}6", family.trim_end_matches('6'))];
    let inodes: Vec<String> =
        files.iter().flat_map(|file| listening_inodes(file, target)).collect();
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut holders: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // The files of other users' processes cannot be read.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|link| names.iter().any(|name| link.as_os_str() == name.as_str()))
        });
        if holds {
            holders.push(pid);
        }
    }
    // Children inherit the socket; the oldest process is the parent.
    holders.into_iter().min_by_key(|pid| memory::started_at(*pid))
}

/// Returns the inodes of the sockets that listen on the target's port: proc(5), /proc/net/tcp.
fn listening_inodes(file: &str, target: &Target) -> Vec<String> {
    /// TCP_LISTEN, and TCP_CLOSE, which marks an unconnected UDP socket.
    const LISTENS: [&str; 2] = ["0A", "07"];
    let Ok(text) = fs::read_to_string(format!("/proc/net/{file}")) else { return Vec::new() };
    let port = format!(":{:04X}", target.address.port());
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && LISTENS.contains(&row[3]))
        .map(|row| row[9].to_string())
        .collect()
}

/// Returns a process and all its descendants.
fn with_children(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

/// Opens a connection, asks INFO, and returns one of its numbers.
fn info_field(target: &Target, name: &str) -> Option<u64> {
    let clock = Clock::start();
    let left =
        || INFO_TIMEOUT.checked_sub(clock.now().since(Time::ZERO)).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&target.address, INFO_TIMEOUT).ok()?;
    stream.set_write_timeout(Some(left()?)).ok()?;
    let login = target.login();
    let mut request = login.concat();
    request.extend(command(&[b"INFO", b"memory"]));
    stream.write_all(&request).ok()?;
    let (mut got, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    let mut awaited = 1 + login.len();
    let mut at = 0;
    loop {
        match resp_reply(&got[at..]) {
            Answer::Whole { length, .. } if awaited == 1 => {
                let text = String::from_utf8_lossy(&got[at..at + length]);
                let value =
                    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                return value?.trim().parse().ok();
            }
            Answer::Whole { length, .. } => (at, awaited) = (at + length, awaited - 1),
            Answer::Incomplete { .. } => {
                stream.set_read_timeout(Some(left()?)).ok()?;
                match stream.read(&mut chunk) {
                    Ok(length) if length > 0 && got.len() < 1 << 20 => {
                        got.extend_from_slice(&chunk[..length])
                    }
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        assert_eq!(listening_process(&target), Some(std::process::id()));
        let watch = ServerWatch::find(&target, None).unwrap();
        assert!(
            watch.resident_bytes().unwrap() > 100_000 && watch.cpu_time().unwrap() > Duration::ZERO
        );
        let (exact, about) =
            (watch.resident_bytes().unwrap() as f64, watch.resident_bytes_about().unwrap() as f64);
        assert!((0.5..2.0).contains(&(exact / about)), "{exact} {about}");
        drop(listener);
        assert_eq!(listening_process(&target), None);
        assert!(ServerWatch::find(&target, None).is_none());
        assert!(ServerWatch::find(&target, Some(u32::MAX)).is_none(), "no such process");
    }

    #[test]
    fn an_ended_child_does_not_hide_the_other_processes() {
        let (own, gone) = (std::process::id(), u32::MAX);
        let watch = ServerWatch::Processes(vec![own, gone]);
        assert!(
            watch.resident_bytes().unwrap() > 100_000
                && watch.resident_bytes_about().unwrap() > 100_000
        );
        assert!(watch.cpu_time().unwrap() > Duration::ZERO);
        assert_eq!(ServerWatch::Processes(vec![gone]).resident_bytes(), None);
    }

    /// The server sends a byte now and then, and never a whole reply.
    #[test]
    fn info_times_out_even_if_the_server_keeps_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("resp://{}", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = 0;
            while bytes < 200 && stream.write_all(b"+").is_ok() {
                bytes += 1;
                std::thread::sleep(INFO_TIMEOUT / 10);
            }
            bytes
        });
        assert_eq!(info_field(&target, "used_memory_rss"), None);
        assert!(server.join().unwrap() < 200, "the client closes the connection");
    }

    #[test]
    fn info_gives_the_resident_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target =
            Target::parse(&format!("resp://:word@{}", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = [0; 200];
            let length = stream.read(&mut got).unwrap();
            stream
                .write_all(b"+OK\r\n$39\r\n# Memory\r\nused_memory_rss:4711\r\nx:1\r\ny:2\r\n")
                .unwrap();
            got[..length].to_vec()
        });
        assert_eq!(info_field(&target, "used_memory_rss"), Some(4711));
        assert!(server.join().unwrap().starts_with(b"*2\r\n$4\r\nAUTH\r\n"));
    }
}

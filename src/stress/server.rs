//! The server's memory and processor time, as the system tells them of its processes, or it tells of itself by INFO.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::target::{Scheme, Target};
use super::wire::{Answer, command, resp_reply};
use crate::clock::{Clock, Time};
use crate::memory;

/// How long INFO may take, in all: the generator stands still meanwhile.
const INFO_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the server's figures come from.
pub enum ServerWatch {
    /// A process and its children: nginx's workers are.
    Processes(Vec<u32>),
    /// It speaks INFO, and is elsewhere or not to be looked into.
    Info(Box<Target>),
}

impl ServerWatch {
    /// Finds out where: the process asked for, or the one that listens on the target's port, or INFO. None when nothing tells.
    pub fn find(target: &Target, pid: Option<u32>) -> Option<ServerWatch> {
        let pid = pid.or_else(|| target.is_loopback().then(|| listening_process(target))?);
        if let Some(pid) = pid {
            let watch = ServerWatch::Processes(with_children(pid));
            return watch.resident_bytes().map(|_| watch);
        }
        let watch = ServerWatch::Info(Box::new(target.clone()));
        (target.scheme == Scheme::Resp && watch.resident_bytes().is_some()).then_some(watch)
    }

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

    /// Resident set, exactly: for the figures of the report.
    pub fn resident_bytes(&self) -> Option<u64> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::resident_bytes_of),
            ServerWatch::Info(target) => info_field(target, "used_memory_rss"),
        }
    }

    /// The same at little cost and some hundred pages off: for the plots. Not by INFO, which would be a load of its own.
    pub fn resident_bytes_about(&self) -> Option<u64> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::resident_bytes_about),
            ServerWatch::Info(_) => None,
        }
    }

    /// Processor time so far.
    pub fn cpu_time(&self) -> Option<Duration> {
        match self {
            ServerWatch::Processes(pids) => of_the_living(pids, memory::cpu_time_of),
            ServerWatch::Info(_) => None,
        }
    }
}

/// The sum over those processes that are still there; None when none is.
fn of_the_living<T: std::iter::Sum>(pids: &[u32], of: impl Fn(u32) -> Option<T>) -> Option<T> {
    let mut living = pids.iter().filter_map(|pid| of(*pid)).peekable();
    living.peek()?;
    Some(living.sum())
}

/// The process that listens on the target's port of this machine: its socket's inode by /proc/net, and who has it open.
fn listening_process(target: &Target) -> Option<u32> {
    let family = match (target.scheme, target.address) {
        (Scheme::Udp, SocketAddr::V4(_)) => "udp",
        (Scheme::Udp, SocketAddr::V6(_)) => "udp6",
        (_, SocketAddr::V4(_)) => "tcp",
        (_, SocketAddr::V6(_)) => "tcp6",
    };
    // A socket on [::] takes IPv4 as well, unless it was told not to.
    let files = [family.to_string(), format!("{}6", family.trim_end_matches('6'))];
    let inodes: Vec<String> = files.iter().flat_map(|file| listening_inodes(file, target)).collect();
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut holders: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Those of other users cannot be looked into.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|link| names.iter().any(|name| link.as_os_str() == name.as_str()))
        });
        if holds {
            holders.push(pid);
        }
    }
    // Of a parent and its children, who inherited the socket, the parent is the oldest.
    holders.into_iter().min_by_key(|pid| memory::started_at(*pid))
}

/// Inodes of the sockets that listen on the target's port: proc(5), /proc/net/tcp.
fn listening_inodes(file: &str, target: &Target) -> Vec<String> {
    /// TCP_LISTEN; of UDP, TCP_CLOSE stands for a socket without a peer.
    const LISTENS: [&str; 2] = ["0A", "07"];
    let Ok(text) = fs::read_to_string(format!("/proc/net/{file}")) else { return Vec::new() };
    let port = format!(":{:04X}", target.address.port());
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && LISTENS.contains(&row[3]))
        .map(|row| row[9].to_string())
        .collect()
}

/// A process and those that it started, and they.
fn with_children(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

/// A number out of INFO: asked over a connection of its own.
fn info_field(target: &Target, name: &str) -> Option<u64> {
    let clock = Clock::start();
    let left = || INFO_TIMEOUT.checked_sub(clock.now().since(Time::ZERO)).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&target.address, INFO_TIMEOUT).ok()?;
    stream.set_write_timeout(Some(left()?)).ok()?;
    let mut request = Vec::new();
    if let Some(password) = &target.password {
        let user = target.user.as_deref().unwrap_or("default");
        request = command(&[b"AUTH", user.as_bytes(), &password.0]);
    }
    request.extend(command(&[b"INFO", b"memory"]));
    stream.write_all(&request).ok()?;
    let (mut got, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    let mut awaited = 1 + usize::from(target.password.is_some());
    let mut at = 0;
    loop {
        match resp_reply(&got[at..]) {
            Answer::Whole { length, .. } if awaited == 1 => {
                let text = String::from_utf8_lossy(&got[at..at + length]);
                let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                return value?.trim().parse().ok();
            }
            Answer::Whole { length, .. } => (at, awaited) = (at + length, awaited - 1),
            Answer::Wrong => return None,
            Answer::Incomplete { .. } => {
                stream.set_read_timeout(Some(left()?)).ok()?;
                match stream.read(&mut chunk) {
                    Ok(length) if length > 0 && got.len() < 1 << 20 => got.extend_from_slice(&chunk[..length]),
                    _ => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        assert_eq!(listening_process(&target), Some(std::process::id()));
        let watch = ServerWatch::find(&target, None).unwrap();
        assert!(watch.resident_bytes().unwrap() > 100_000 && watch.cpu_time().unwrap() > Duration::ZERO);
        let (exact, about) = (watch.resident_bytes().unwrap() as f64, watch.resident_bytes_about().unwrap() as f64);
        assert!((0.5..2.0).contains(&(exact / about)), "{exact} {about}");
        drop(listener);
        assert_eq!(listening_process(&target), None);
        assert!(ServerWatch::find(&target, None).is_none());
        assert!(ServerWatch::find(&target, Some(u32::MAX)).is_none(), "no such process");
    }

    #[test]
    fn a_child_that_has_ended_does_not_hide_the_others() {
        let (own, gone) = (std::process::id(), u32::MAX);
        let watch = ServerWatch::Processes(vec![own, gone]);
        assert!(watch.resident_bytes().unwrap() > 100_000 && watch.resident_bytes_about().unwrap() > 100_000);
        assert!(watch.cpu_time().unwrap() > Duration::ZERO);
        assert_eq!(ServerWatch::Processes(vec![gone]).resident_bytes(), None);
    }

    /// One that sends a byte now and then keeps nobody longer than one that sends none.
    #[test]
    fn info_is_not_waited_for_without_end() {
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
        assert!(server.join().unwrap() < 200, "it was hung up on");
    }

    #[test]
    fn a_server_tells_of_itself_by_info() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("resp://:word@{}", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = [0; 200];
            let length = stream.read(&mut got).unwrap();
            stream.write_all(b"+OK\r\n$39\r\n# Memory\r\nused_memory_rss:4711\r\nx:1\r\ny:2\r\n").unwrap();
            got[..length].to_vec()
        });
        assert_eq!(info_field(&target, "used_memory_rss"), Some(4711));
        assert!(server.join().unwrap().starts_with(b"*3\r\n$4\r\nAUTH\r\n"));
    }
}

//! `slabd lab limits`: what stops the number of connections on this machine, which of it comes first, and how to raise each. Three
//! of the limits are tried, on servers and sockets of our own with limits low enough to reach.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use super::server::ServerProcess;
use super::{Scale, client, row, say, untried, verdict};
use crate::kernel;
use crate::limits::{CONNECTION_BYTES, FILES_RESERVED, Limits};
use crate::memory;
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};
use crate::sys::{self, errno};
use crate::units::Size;

/// Files of the server that is filled, so many that it takes a moment only.
const FILES: u64 = 512;
/// Clients more than it has room for.
const TOO_MANY: usize = 20;
/// Local ports of the client that uses them up.
const PORTS: u16 = 100;
/// Some of them may be taken by somebody who listens at all addresses.
const PORTS_TAKEN_MAX: usize = 20;
const BACKLOG: i32 = 16;
const WAITERS: usize = 40;

/// One thing that there is only so much of.
struct Limit {
    name: &'static str,
    now: String,
    /// Connections of one server that it allows; None where it bounds something else.
    connections: Option<u64>,
    /// Empty where there is nothing to raise.
    raise: String,
}

/// A server with few files, and more clients than those.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Filled {
    files: u64,
    offered: u64,
    held: u64,
    /// Clients that were told why they cannot come in.
    told: u64,
    open_files: u64,
    /// Whether those inside were answered afterwards.
    answers: bool,
}

/// A client with few local ports: connections from one address, then from a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ports {
    ports: usize,
    first: usize,
    second: usize,
}

/// A listener that accepts nobody: connections that were made all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct AcceptQueue {
    backlog: usize,
    asked: usize,
    made: usize,
}

fn limit(name: &'static str, now: String, connections: Option<u64>, raise: impl Into<String>) -> Limit {
    Limit { name, now, connections, raise: raise.into() }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let limits = limits(scale);
    say("filling a server that may open 512 files");
    let filled = fill_files()?;
    say("using up 100 local ports");
    let ports = use_up_ports()?;
    say("filling an accept queue of 16");
    let queue = fill_queue()?;
    let rows = limits
        .iter()
        .map(|limit| row([&limit.name, &limit.now, &limit.connections.map_or("–".into(), figures::count)]));
    let table = Table::new("What one server can hold here", "limit | now | connections", rows);
    let mut sections = vec![Section::Table(table), Section::Paragraph(first_to_bind(&limits))];
    sections.extend(judge(filled, ports, queue).map(Section::Verdict));
    sections.push(Section::Heading("How to raise each".into()));
    let told = limits.iter().filter(|limit| !limit.raise.is_empty());
    sections.extend(told.map(|limit| Section::Paragraph(format!("{}: {}.", limit.name, limit.raise))));
    Ok(Page {
        title: "slabd lab limits".into(),
        summary: "What the kernel and slabd allow, read from /proc and /sys, and three of the limits reached: each on sockets of our own, \
                  with a limit lowered for them alone."
            .into(),
        sections,
    })
}

/// Which limit stops a server first, and which comes after it.
fn first_to_bind(limits: &[Limit]) -> String {
    let mut binding: Vec<(u64, &str)> =
        limits.iter().filter_map(|limit| Some((limit.connections?, limit.name))).collect();
    binding.sort_unstable();
    match binding[..] {
        [(first, name), (next, after), ..] => format!(
            "First to bind here: {name}, at {} connections. With that out of the way: {after}, at {}.",
            figures::count(first),
            figures::count(next)
        ),
        _ => "No limit could be read.".into(),
    }
}

fn judge(filled: Filled, ports: Ports, queue: AcceptQueue) -> [Verdict; 3] {
    let room = filled.files.saturating_sub(FILES_RESERVED);
    let claims = [
        "A connection is an open file: a server holds as many as its limit allows, less what it keeps for itself, and who comes then is told.",
        "A client address has one connection to a server's port for each of its local ports; another address has as many again.",
        "Connections that nobody accepts wait in a queue, which holds its backlog and one more: the kernel makes no others.",
    ];
    let tried_ports = ports.ports > 0;
    [
        verdict(
            claims[0],
            format!(
                "of {} clients of a server that may open {} files {} were held, and {} told that it is full; {} files were open, and those inside were {}",
                filled.offered,
                filled.files,
                filled.held,
                filled.told,
                filled.open_files,
                if filled.answers { "answered" } else { "not answered" }
            ),
            filled.held == room
                && filled.told == filled.offered - room
                && filled.open_files <= filled.files
                && filled.answers,
        ),
        if tried_ports {
            let right = |count: usize| (ports.ports - PORTS_TAKEN_MAX..=ports.ports).contains(&count);
            verdict(
                claims[1],
                format!(
                    "with {} local ports: {} from one address, then {} from the next",
                    ports.ports, ports.first, ports.second
                ),
                right(ports.first) && right(ports.second),
            )
        } else {
            untried(
                claims[1],
                "this kernel does not let a socket choose its range of local ports (Linux 6.3 does)".into(),
            )
        },
        verdict(
            claims[2],
            format!("of {} connects, with a backlog of {}, {} were made", queue.asked, queue.backlog, queue.made),
            queue.made == queue.backlog + 1,
        ),
    ]
}

/// Clients to a server of few files, from several addresses. One of its connections is ours, to ask it.
fn fill_files() -> Result<Filled> {
    let mut server = ServerProcess::start_with_files(FILES, &["--listen", "hub=127.0.0.1:0"])?;
    let hub = server.address("hub")?;
    server.info()?;
    let room = (FILES - FILES_RESERVED) as usize - 1;
    let mut inside: Vec<TcpStream> = Vec::new();
    let mut told = 0;
    for index in 0..room + TOO_MANY {
        let mut stream = client::connect(client::source(index), hub)?;
        match client::ask(&mut stream, b"PING\r\n", b"+PONG\r\n") {
            Ok(()) => inside.push(stream),
            Err(error) if error.to_string().contains("-ERR m") => told += 1,
            // Turned away without a word; so many as are not held do not count as told.
            Err(_) => {}
        }
    }
    let answers = inside.iter_mut().all(|stream| client::ask(stream, b"PING\r\n", b"+PONG\r\n").is_ok());
    Ok(Filled {
        files: FILES,
        offered: (room + TOO_MANY) as u64 + 1,
        held: server.info()?.number("connections/held")?,
        told,
        open_files: server.open_files()?,
        answers,
    })
}

/// Connects until no port is left, from one address and from the next. No ports where the kernel cannot give a socket its own range.
fn use_up_ports() -> Result<Ports> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let Some((_, last)) = local_ports() else { return Ok(Ports::default()) };
    let range = (last - PORTS + 1, last);
    let Some(first) = connect_until_refused(&listener, Ipv4Addr::new(127, 88, 0, 1), range)? else {
        return Ok(Ports::default());
    };
    let second = connect_until_refused(&listener, Ipv4Addr::new(127, 88, 0, 2), range)?;
    // Both at once, so that the second has not the ports of the first.
    Ok(Ports { ports: PORTS.into(), first: first.len(), second: second.unwrap_or_default().len() })
}

/// Both ends of each connection; None where the range cannot be set.
fn connect_until_refused(
    listener: &TcpListener,
    source: Ipv4Addr,
    (first, last): (u16, u16),
) -> Result<Option<Vec<(Socket, TcpStream)>>> {
    let mut pairs = Vec::new();
    // One more than there are ports is enough to see that there is an end.
    for _ in 0..=PORTS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if sys::set_local_ports(socket.as_fd(), first, last).is_err() {
            return Ok(None);
        }
        // Closed by a reset, so that the ports are free again at once.
        socket.set_linger(Some(Duration::ZERO))?;
        let connected = socket
            .bind(&SocketAddr::from((source, 0)).into())
            .and_then(|()| socket.connect(&listener.local_addr()?.into()));
        match connected {
            Ok(()) => pairs.push((socket, listener.accept()?.0)),
            Err(error) if is_out_of_ports(&error) => break,
            Err(error) => return Err(error).context("connecting from a range of ports"),
        }
    }
    Ok(Some(pairs))
}

/// bind(2) says EADDRINUSE when no port is left, connect(2) EADDRNOTAVAIL.
fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Connects to a listener that accepts nobody.
fn fill_queue() -> Result<AcceptQueue> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    let mut waiting = Vec::new();
    for _ in 0..WAITERS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() != Some(errno::EINPROGRESS) => return Err(error.into()),
            _ => waiting.push(socket),
        }
    }
    // Who was not let in at once is tried again after a second, and then again finds no room.
    sleep(QUEUE_SETTLES);
    let made = waiting.iter().filter(|socket| socket.peer_addr().is_ok()).count();
    Ok(AcceptQueue { backlog: BACKLOG as usize, asked: WAITERS, made })
}

const QUEUE_SETTLES: Duration = Duration::from_millis(200);

/// Everything that bounds the number of connections, as it stands.
fn limits(scale: &Scale) -> Vec<Limit> {
    let (kernel, structures) = (kernel::settings(), memory::kernel_objects().bytes);
    let each = structures + CONNECTION_BYTES as u64;
    let by_memory = |bytes: Option<u64>| bytes.map(|bytes| bytes / each);
    let bytes =
        |bytes: Option<u64>| bytes.map_or("not told".into(), |bytes| Size((bytes >> 20 << 20) as usize).to_string());
    let number = |value: Option<u64>| value.map_or("not told".into(), figures::count);
    let add_memory = format!(
        "add memory; a connection takes {} bytes here, {} of them in the kernel",
        figures::count(each),
        figures::count(structures)
    );
    let raise_group = "memory.max (v1: memory.limit_in_bytes) of the group; systemd: MemoryMax=; docker: --memory";
    let group = control_group_limit();
    let budget = Some(Limits::default().memory_budget as u64);
    let mut limits = vec![
        files_of_a_process(scale),
        files_of_the_system(kernel.files_max),
        limit("memory that is free", bytes(available_memory()), by_memory(available_memory()), add_memory),
        match group {
            Some(_) => limit("memory of this control group", bytes(group), by_memory(group), raise_group),
            None => limit("memory of this control group", "no limit".into(), None, ""),
        },
        limit("slabd's own budget", bytes(budget), by_memory(budget), "slabd serve --memory-budget"),
        limit(
            "epoll watches of a user",
            number(kernel.watches_max),
            kernel.watches_max,
            "sysctl -w fs.epoll.max_user_watches=N",
        ),
    ];
    if let Some(tracked) = read_number("/proc/sys/net/netfilter/nf_conntrack_max") {
        let raise = "those of the firewall, where it tracks any: sysctl -w net.netfilter.nf_conntrack_max=N, \
                     or let it track none (nft: notrack)";
        limits.push(limit("tracked connections", figures::count(tracked), Some(tracked), raise));
    }
    limits.push(ports());
    let raise = "bounds those that wait at once, not those held: sysctl -w net.core.somaxconn=N, slabd serve --backlog";
    limits.push(limit("accept queue", number(kernel.accept_queue_max), None, raise));
    limits
}

fn files_of_a_process(scale: &Scale) -> Limit {
    let ceiling = read_number("/proc/sys/fs/nr_open").map_or("not told".into(), figures::count);
    limit(
        "open files of a process",
        format!("{} soft, {} hard", figures::count(scale.files_soft), figures::count(scale.files)),
        Some(scale.files.saturating_sub(FILES_RESERVED)),
        format!("ulimit -Hn N as root; systemd: LimitNOFILE=; docker: --ulimit nofile=; up to fs.nr_open = {ceiling}"),
    )
}

fn files_of_the_system(most: Option<u64>) -> Limit {
    // file-nr: in use, free, and the most again.
    let used =
        fs::read_to_string("/proc/sys/fs/file-nr").ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    let used: u64 = used.unwrap_or_default();
    let now =
        most.map_or("not told".into(), |most| format!("{}, {} in use", figures::count(most), figures::count(used)));
    limit("open files of the system", now, most.map(|most| most.saturating_sub(used)), "sysctl -w fs.file-max=N")
}

fn ports() -> Limit {
    let ports = local_ports().map(|(first, last)| u64::from(last) - u64::from(first) + 1);
    let now = local_ports().map_or("not told".into(), |(first, last)| format!("{first} to {last}"));
    let raise = format!(
        "bounds each client address, here to {} connections to one port of a server: sysctl -w net.ipv4.ip_local_port_range='1024 65535', \
         or more addresses (of loopback there are 16 million)",
        ports.map_or("–".into(), figures::count)
    );
    limit("local ports of a client", now, None, raise)
}

fn local_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    let range = (words.next()?.ok()?, words.next()?.ok()?);
    // Too small a range for the trial is left alone.
    (range.1 > range.0 && range.1 - range.0 >= PORTS).then_some(range)
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What may still be had without swapping, by the kernel's own estimate. proc(5).
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The least memory limit of this process's control group and those above it; None without one. cgroups(7).
fn control_group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_groups(&groups).iter().filter_map(|(path, file)| least_limit(path, file)).min()
}

/// Where the limits of this process's groups are: version 2 has one line `0::PATH`, version 1 one that names the controller.
fn memory_groups(groups: &str) -> Vec<(String, &'static str)> {
    let places = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        match (parts.next()?, parts.next()?, parts.next()?) {
            ("0", "", path) => Some((format!("/sys/fs/cgroup{path}"), "memory.max")),
            (_, names, path) if names.split(',').any(|name| name == "memory") => {
                Some((format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    places.collect()
}

/// Of a group and its parents. What is not limited says `max`, or a number beyond any memory.
fn least_limit(path: &str, file: &str) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    let groups = std::path::Path::new(path).ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"));
    let limits = groups.filter_map(|group| read_number(&group.join(file).display().to_string()));
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    const FILLED: Filled = Filled { files: 512, offered: 468, held: 448, told: 20, open_files: 460, answers: true };
    const ROOM: Ports = Ports { ports: 100, first: 100, second: 80 };
    const QUEUE: AcceptQueue = AcceptQueue { backlog: 16, asked: 40, made: 17 };

    fn outcomes(filled: Filled, ports: Ports, queue: AcceptQueue) -> [Outcome; 3] {
        judge(filled, ports, queue).map(|verdict| verdict.outcome)
    }

    #[test]
    fn each_claim_at_its_bound_and_past_it() {
        use Outcome::{Fails, Holds, Untried};
        assert_eq!(outcomes(FILLED, ROOM, QUEUE), [Holds; 3]);
        for filled in [
            Filled { held: 449, ..FILLED },
            Filled { held: 447, ..FILLED },
            Filled { told: 19, ..FILLED },
            Filled { open_files: 513, ..FILLED },
            Filled { answers: false, ..FILLED },
        ] {
            assert_eq!(outcomes(filled, ROOM, QUEUE), [Fails, Holds, Holds], "{filled:?}");
        }
        for ports in [Ports { first: 101, ..ROOM }, Ports { second: 0, ..ROOM }, Ports { second: 79, ..ROOM }] {
            assert_eq!(outcomes(FILLED, ports, QUEUE), [Holds, Fails, Holds], "{ports:?}");
        }
        assert_eq!(outcomes(FILLED, Ports::default(), QUEUE), [Holds, Untried, Holds]);
        for made in [16, 18, 40] {
            assert_eq!(outcomes(FILLED, ROOM, AcceptQueue { made, ..QUEUE }), [Holds, Holds, Fails], "{made}");
        }
    }

    #[test]
    fn the_least_limit_binds_first_and_the_next_is_named() {
        let limit = |name, connections| Limit { name, now: String::new(), connections, raise: String::new() };
        let text = first_to_bind(&[limit("memory", Some(5000)), limit("files", Some(1000)), limit("queue", None)]);
        assert_eq!(
            text,
            "First to bind here: files, at 1,000 connections. With that out of the way: memory, at 5,000."
        );
        assert_eq!(first_to_bind(&[]), "No limit could be read.");
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/c\n";
        let found = memory_groups(groups);
        let expected = [("/sys/fs/cgroup/memory/a/b", "memory.limit_in_bytes"), ("/sys/fs/cgroup/c", "memory.max")];
        assert_eq!(found, expected.map(|(path, file)| (path.to_string(), file)));
    }
}

//! `slabd lab limits`: the limits on the number of connections on this machine, the first one to
//! bind, and how to raise each. Three of them are reached in trials, on servers and sockets with
//! lowered limits.

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
use crate::limits::{CONNECTION_BYTES, FILES_RESERVED};
use crate::machine::{self, Machine};
use crate::memory;
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};
use crate::sys::{self, errno};
use crate::units::Size;

/// Open-file limit of the server that is filled. It is low, so filling takes only a moment.
const FILES: u64 = 512;
/// Number of clients for which that server has no room.
const TOO_MANY: usize = 20;
/// Number of local ports of the client that uses them up.
const PORTS: u16 = 100;
/// Maximum number of those ports that other programs may occupy on all addresses.
const PORTS_TAKEN_MAX: usize = 20;
/// Backlog of the listener whose accept queue is filled.
const BACKLOG: i32 = 16;
/// Number of clients that connect to that listener.
const WAITERS: usize = 40;

/// One limit.
struct Limit {
    name: &'static str,
    now: String,
    /// Connections of one server that it allows. `None` if it bounds something else.
    connections: Option<u64>,
    /// The way to raise it. Empty if there is none.
    raise: String,
}

/// The measurements of a server whose clients need more files than it may open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Filled {
    files: u64,
    offered: u64,
    held: u64,
    /// Clients that got an error because the server was full.
    told: u64,
    open_files: u64,
    /// True if the clients inside still got answers afterwards.
    answers: bool,
}

/// The measurements of a client with few local ports: its connections from two addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ports {
    ports: usize,
    first: usize,
    second: usize,
}

/// The measurements of a listener that does not accept: the connections that the kernel completes
/// anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct AcceptQueue {
    backlog: usize,
    asked: usize,
    made: usize,
}

fn limit(
    name: &'static str,
    now: String,
    connections: Option<u64>,
    raise: impl Into<String>,
) -> Limit {
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
    let rows = limits.iter().map(|limit| {
        row([&limit.name, &limit.now, &limit.connections.map_or("–".into(), figures::count)])
    });
    let table = Table::new("Limits of one server here", "limit | now | connections", rows);
    let mut sections = vec![Section::Table(table), Section::Paragraph(first_to_bind(&limits))];
    sections.extend(judge(filled, ports, queue).map(Section::Verdict));
    sections.push(Section::Heading("How to raise each limit".into()));
    let raisable = limits.iter().filter(|limit| !limit.raise.is_empty());
    let line = |limit: &Limit| Section::Paragraph(format!("{}: {}.", limit.name, limit.raise));
    sections.extend(raisable.map(line));
    Ok(Page {
        title: "slabd lab limits".into(),
        summary: "The limits of the kernel and of slabd, read from /proc and /sys. Three of them \
                  are also reached, each on sockets whose limit is lowered for the trial."
            .into(),
        sections,
    })
}

/// Names the limit that stops a server first, and the next one.
fn first_to_bind(limits: &[Limit]) -> String {
    let mut binding: Vec<(u64, &str)> =
        limits.iter().filter_map(|limit| Some((limit.connections?, limit.name))).collect();
    binding.sort_unstable();
    match binding[..] {
        [(first, name), (next, after), ..] => format!(
            "The first limit here: {name}, at {} connections. The next one: {after}, at {}.",
            figures::count(first),
            figures::count(next)
        ),
        _ => "This machine does not show its limits.".into(),
    }
}

fn judge(filled: Filled, ports: Ports, queue: AcceptQueue) -> [Verdict; 3] {
    let room = filled.files.saturating_sub(FILES_RESERVED);
    let claims = [
        "A connection is an open file. A server holds as many connections as its file limit \
         allows, less its own reserve, and each further client gets an error.",
        "One client address can open one connection to a server's port for each of its local \
         ports. A second address can open as many again.",
        "Connections that the server has not accepted wait in its accept queue. The queue holds \
         one connection more than its backlog, and the kernel completes no others.",
    ];
    let tried_ports = ports.ports > 0;
    [
        verdict(
            claims[0],
            format!(
                "the server may open {} files; of {} clients it held {} and sent {} the error \
                 that it is full; it had {} files open; the clients inside {}",
                filled.files,
                filled.offered,
                filled.held,
                filled.told,
                filled.open_files,
                if filled.answers { "got answers" } else { "got no answers" }
            ),
            filled.held == room
                && filled.told == filled.offered - room
                && filled.open_files <= filled.files
                && filled.answers,
        ),
        if tried_ports {
            let right =
                |count: usize| (ports.ports - PORTS_TAKEN_MAX..=ports.ports).contains(&count);
            verdict(
                claims[1],
                format!(
                    "with {} local ports: {} connections from one address, then {} from the next",
                    ports.ports, ports.first, ports.second
                ),
                right(ports.first) && right(ports.second),
            )
        } else {
            untried(
                claims[1],
                "this kernel cannot limit a socket's range of local ports (Linux 6.3 can)".into(),
            )
        },
        verdict(
            claims[2],
            format!(
                "of {} connects to a listener with a backlog of {}, {} succeeded",
                queue.asked, queue.backlog, queue.made
            ),
            queue.made == queue.backlog + 1,
        ),
    ]
}

/// Connects more clients than a server has files for. One of the server's connections is the
/// experiment's, for INFO.
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
            // Only clients that got the error of a full server are counted.
            Err(_) => {}
        }
    }
    let answers =
        inside.iter_mut().all(|stream| client::ask(stream, b"PING\r\n", b"+PONG\r\n").is_ok());
    Ok(Filled {
        files: FILES,
        offered: (room + TOO_MANY) as u64 + 1,
        held: server.info()?.number("connections/held")?,
        told,
        open_files: server.open_files()?,
        answers,
    })
}

/// Connects until no port is left, from one address and then from a second. Returns zero ports if
/// the kernel cannot limit a socket's range.
fn use_up_ports() -> Result<Ports> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let Some((_, last)) = local_ports() else { return Ok(Ports::default()) };
    let range = (last - PORTS + 1, last);
    let Some(first) = connect_until_refused(&listener, Ipv4Addr::new(127, 88, 0, 1), range)? else {
        return Ok(Ports::default());
    };
    let second = connect_until_refused(&listener, Ipv4Addr::new(127, 88, 0, 2), range)?;
    // The first connections stay open, so the second address does not reuse their ports.
    Ok(Ports { ports: PORTS.into(), first: first.len(), second: second.unwrap_or_default().len() })
}

/// Returns both ends of each connection, or `None` if the kernel cannot limit the range.
fn connect_until_refused(
    listener: &TcpListener,
    source: Ipv4Addr,
    (first, last): (u16, u16),
) -> Result<Option<Vec<(Socket, TcpStream)>>> {
    let mut pairs = Vec::new();
    // One try more than there are ports is enough to meet the limit.
    for _ in 0..=PORTS {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if sys::set_local_ports(socket.as_fd(), first, last).is_err() {
            return Ok(None);
        }
        // Closing by a reset frees the port at once.
        socket.set_linger(Some(Duration::ZERO))?;
        let connected = socket
            .bind(&SocketAddr::from((source, 0)).into())
            .and_then(|()| socket.connect(&listener.local_addr()?.into()));
        match connected {
            Ok(()) => pairs.push((socket, listener.accept()?.0)),
            Err(error) if is_out_of_ports(&error) => break,
            Err(error) => return Err(error).context("cannot connect from a range of ports"),
        }
    }
    Ok(Some(pairs))
}

/// True for the errors that mean "no port is left": EADDRINUSE of bind(2), EADDRNOTAVAIL of
/// connect(2).
fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Connects to a listener that does not accept.
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
            Err(error) if error.raw_os_error() != Some(errno::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => waiting.push(socket),
        }
    }
    // The kernel retries the other connects after a second, again without success.
    sleep(QUEUE_SETTLES);
    let made = waiting.iter().filter(|socket| socket.peer_addr().is_ok()).count();
    Ok(AcceptQueue { backlog: BACKLOG as usize, asked: WAITERS, made })
}

/// Time for the connects to succeed.
const QUEUE_SETTLES: Duration = Duration::from_millis(200);

/// Reads every limit on the number of connections.
fn limits(scale: &Scale) -> Vec<Limit> {
    let (kernel, structures) = (kernel::settings(), memory::kernel_objects().bytes);
    let each = structures + CONNECTION_BYTES as u64;
    let by_memory = |bytes: Option<u64>| bytes.map(|bytes| bytes / each);
    let bytes = |bytes: Option<u64>| {
        bytes.map_or("unknown".into(), |bytes| Size((bytes >> 20 << 20) as usize).to_string())
    };
    let number = |value: Option<u64>| value.map_or("unknown".into(), figures::count);
    let add_memory = format!(
        "add memory; each connection takes {} bytes here, {} of them in the kernel",
        figures::count(each),
        figures::count(structures)
    );
    let raise_group = "memory.max (v1: memory.limit_in_bytes) of the group; systemd: MemoryMax=; \
                       docker: --memory";
    let group = machine::group_memory().map(|offer| offer.bytes);
    let machine = Machine::read();
    let budget = Some(machine.default_budget() as u64);
    let mut limits = vec![
        files_of_a_process(scale),
        files_of_the_system(kernel.files_max),
        limit("free memory", bytes(machine.available), by_memory(machine.available), add_memory),
        match group {
            Some(_) => {
                limit("memory of this control group", bytes(group), by_memory(group), raise_group)
            }
            None => limit("memory of this control group", "no limit".into(), None, ""),
        },
        limit(
            "slabd's own budget",
            bytes(budget),
            by_memory(budget),
            "slabd serve --memory-budget",
        ),
        limit(
            "epoll watches of a user",
            number(kernel.watches_max),
            kernel.watches_max,
            "sysctl -w fs.epoll.max_user_watches=N",
        ),
    ];
    if let Some(tracked) = read_number("/proc/sys/net/netfilter/nf_conntrack_max") {
        let raise = "sysctl -w net.netfilter.nf_conntrack_max=N, or let the firewall track \
                     none (nft: notrack)";
        limits.push(limit("tracked connections", figures::count(tracked), Some(tracked), raise));
    }
    limits.push(ports());
    let raise = "sysctl -w net.core.somaxconn=N and slabd serve --backlog; this limits the \
                 connections that wait to be accepted, not those held";
    limits.push(limit("accept queue", number(kernel.accept_queue_max), None, raise));
    limits
}

fn files_of_a_process(scale: &Scale) -> Limit {
    let ceiling = read_number("/proc/sys/fs/nr_open").map_or("unknown".into(), figures::count);
    limit(
        "open files of a process",
        format!("{} soft, {} hard", figures::count(scale.files_soft), figures::count(scale.files)),
        Some(scale.files.saturating_sub(FILES_RESERVED)),
        format!(
            "ulimit -Hn N as root; systemd: LimitNOFILE=; docker: --ulimit nofile=; the maximum \
             is fs.nr_open = {ceiling}"
        ),
    )
}

fn files_of_the_system(most: Option<u64>) -> Limit {
    // file-nr has three numbers: files in use, free files, and the maximum.
    let used = fs::read_to_string("/proc/sys/fs/file-nr")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    let used: u64 = used.unwrap_or_default();
    let now = most.map_or("unknown".into(), |most| {
        format!("{} ({} in use)", figures::count(most), figures::count(used))
    });
    limit(
        "open files of the system",
        now,
        most.map(|most| most.saturating_sub(used)),
        "sysctl -w fs.file-max=N",
    )
}

fn ports() -> Limit {
    let ports = local_ports().map(|(first, last)| u64::from(last) - u64::from(first) + 1);
    let now = local_ports().map_or("unknown".into(), |(first, last)| format!("{first} to {last}"));
    let raise = format!(
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535', or use more addresses (loopback has \
         16 million); now each address can open {} connections to one port of a server",
        ports.map_or("–".into(), figures::count)
    );
    limit("local ports of a client", now, None, raise)
}

/// Returns the first and the last local port, or `None` if the range is unknown or too small for
/// the trial.
fn local_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    let range = (words.next()?.ok()?, words.next()?.ok()?);
    (range.1 > range.0 && range.1 - range.0 >= PORTS).then_some(range)
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    const FILLED: Filled =
        Filled { files: 512, offered: 468, held: 448, told: 20, open_files: 460, answers: true };
    const ROOM: Ports = Ports { ports: 100, first: 100, second: 80 };
    const QUEUE: AcceptQueue = AcceptQueue { backlog: 16, asked: 40, made: 17 };

    fn outcomes(filled: Filled, ports: Ports, queue: AcceptQueue) -> [Outcome; 3] {
        judge(filled, ports, queue).map(|verdict| verdict.outcome)
    }

    #[test]
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
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
        for ports in [
            Ports { first: 101, ..ROOM },
            Ports { second: 0, ..ROOM },
            Ports { second: 79, ..ROOM },
        ] {
            assert_eq!(outcomes(FILLED, ports, QUEUE), [Holds, Fails, Holds], "{ports:?}");
        }
        assert_eq!(outcomes(FILLED, Ports::default(), QUEUE), [Holds, Untried, Holds]);
        for made in [16, 18, 40] {
            assert_eq!(
                outcomes(FILLED, ROOM, AcceptQueue { made, ..QUEUE }),
                [Holds, Holds, Fails],
                "{made}"
            );
        }
    }

    #[test]
    fn the_lowest_limit_binds_first_and_the_next_one_is_named() {
        let limit = |name, connections| Limit {
            name,
            now: String::new(),
            connections,
            raise: String::new(),
        };
        let text = first_to_bind(&[
            limit("memory", Some(5000)),
            limit("files", Some(1000)),
            limit("queue", None),
        ]);
        assert_eq!(
            text,
            "The first limit here: files, at 1,000 connections. The next one: memory, at 5,000."
        );
        assert_eq!(first_to_bind(&[]), "This machine does not show its limits.");
    }
}

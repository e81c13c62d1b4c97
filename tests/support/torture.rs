//! One run of a scripted scenario on the simulated network, with or without one call that fails, and what must hold of it.
//!
//! A run has five parts: the script; a look at what every client has got; a probe of every listener and socket; all clients leave, and
//! nothing may be left of them; the probe again. [`compare`] then holds the run against the one in which nothing failed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use slabd::buffer::BufferMode;
use slabd::clock::Time;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{CONNECTIONS_MAX, Limits, SILENT_MAX};
use slabd::net::Net;
use slabd::net::sim::{ClientId, End, SimNet, SystemCall};
use slabd::reactor::Reactor;
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret, Service};

/// What a port serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hello,
    Echo,
    Hub,
    /// The hub behind the password [`PASSWORD`].
    Locked,
    /// The hub over IPv6.
    Hub6,
    /// The hub's listener for the operator.
    Operator,
}

pub const PASSWORD: &str = "sesame";

impl Kind {
    fn address(self) -> SocketAddr {
        match self {
            Kind::Hub6 => (Ipv6Addr::LOCALHOST, 0).into(),
            _ => (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    fn service(self) -> Box<dyn Service> {
        match self {
            Kind::Hello => Box::new(Hello),
            Kind::Echo => Box::new(Echo),
            Kind::Hub | Kind::Hub6 | Kind::Operator => Box::new(Hub::new(&Options::default())),
            Kind::Locked => {
                let password = Some(Secret(PASSWORD.as_bytes().into()));
                Box::new(Hub::new(&Options { password, ..Options::default() }))
            }
        }
    }

    /// What an honest client says first, and the end of what it is answered. The hub is asked whether anything is left of those who left.
    fn probe(self) -> (&'static str, &'static str) {
        match self {
            Kind::Hello => ("Ada\n", "Hello, Ada!\r\n"),
            Kind::Echo => ("round", "round"),
            Kind::Hub | Kind::Hub6 | Kind::Operator => ("PING\r\n", "+PONG\r\n"),
            Kind::Locked => ("AUTH sesame\r\nPING\r\n", "+OK\r\n+PONG\r\n"),
        }
    }

    fn is_hub(self) -> bool {
        matches!(self, Kind::Hub | Kind::Hub6 | Kind::Operator | Kind::Locked)
    }
}

/// What happens, on what.
pub struct Scenario {
    pub name: &'static str,
    pub listeners: &'static [Kind],
    pub sockets: &'static [Kind],
    pub buffers: BufferMode,
    pub limits: fn() -> Limits,
    pub script: fn(&mut World),
}

/// One call of a run that fails, and how many of its kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub at: u64,
    pub errno: i32,
    pub times: u32,
}

/// Neither who comes nor when is a subject, unless the scenario says so: everybody may be silent, and every timeout is far off.
pub fn limits() -> Limits {
    Limits {
        max_connections: 64,
        max_silent: SILENT_MAX,
        max_silent_per_source: SILENT_MAX,
        max_connections_per_source: CONNECTIONS_MAX,
        first_message_timeout: 60 * SECOND,
        message_timeout: 60 * SECOND,
        idle_timeout: 60 * SECOND,
        output_timeout: 60 * SECOND,
        close_timeout: SECOND,
        drain_timeout: 3 * SECOND,
        ..Limits::default()
    }
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

/// Long enough for a failed accept or receive to be tried again several times.
const SETTLED: Duration = Duration::from_millis(500);
/// After all clients have gone: longer than the close timeout, and far from all others, so that whoever waits for those is found out.
const GONE: Duration = Duration::from_millis(2500);
/// Turns at one moment of virtual time. The largest transfer takes some dozens.
const TURNS_AT_ONCE: usize = 100;

/// Somebody at the far side.
struct Peer {
    client: ClientId,
    /// Takes at once whatever comes.
    reads: bool,
    received: Vec<u8>,
    /// Only how many lines it gets is compared: they tell of times and counts.
    opaque: bool,
}

pub struct World {
    pub reactor: Reactor<SimNet>,
    scenario: &'static Scenario,
    failure: Option<Failure>,
    ports: Vec<SocketAddr>,
    sockets: Vec<SocketAddr>,
    peers: Vec<Peer>,
    senders: Vec<SocketAddr>,
    mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    /// What the first gets depends on what becomes of the second.
    heeds: Vec<(usize, usize)>,
    answers_vary: bool,
    delays_matter: bool,
    best_effort: bool,
    would_block_tells: bool,
    crowded: bool,
    /// The script's clients have gone.
    left: bool,
    probes: u16,
    /// Calls after the script, and after the first probe.
    marks: [u64; 2],
}

/// What became of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    received: Vec<u8>,
    /// How its stream ended in its own eyes.
    end: End,
    /// The loop has accepted and not closed it. One whose line is broken does not see that.
    is_held: bool,
}

/// What a run came to.
pub struct Outcome {
    /// What became of each client, before it left.
    peers: Vec<Seen>,
    mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    services_bytes: usize,
    heeds: Vec<(usize, usize)>,
    delays_matter: bool,
    best_effort: bool,
    would_block_tells: bool,
    /// Clients that were turned away because there was no file for them.
    shed: Vec<usize>,
    /// Of the run without a failure: each call, and the client it was about where the trace tells.
    pub calls: Vec<(SystemCall, Option<usize>)>,
    marks: [u64; 2],
    pub hash: u64,
}

impl Outcome {
    /// The calls to fail, each by its number: those of the script, and those while the clients leave.
    pub fn calls_to_fail(&self) -> impl Iterator<Item = u64> {
        let [script, probe] = self.marks;
        (0..script).chain(probe..self.calls.len() as u64)
    }
}

/// A run that broke a rule: which, and the latest that happened.
pub struct Broken {
    pub rule: String,
    pub trace: String,
}

/// Entries of the trace that are told of a run that broke a rule.
const TOLD: usize = 40;

thread_local! {
    /// Whether this thread plays a scenario, and what the last panic of one said, and where.
    static PLAYS: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of scenarios are caught and reported together with the run that they ended.
pub fn keep_panics_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match PLAYS.get() {
        true => PANIC.set(info.to_string()),
        false => usual(info),
    }));
}

/// Plays a scenario, and judges what came of it.
pub fn run(
    scenario: &'static Scenario,
    failure: Option<Failure>,
    judge: impl FnOnce(&Outcome) -> Result<(), String>,
) -> Result<Outcome, Broken> {
    let mut world = World::new(scenario, failure);
    PLAYS.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play())).map_err(|_| PANIC.take());
    PLAYS.set(false);
    outcome.and_then(|outcome| judge(&outcome).map(|()| outcome)).map_err(|rule| Broken { rule, trace: world.latest() })
}

/// Names of the errors that calls can fail with.
const ERRNOS: &[(i32, &str)] = &[
    (libc::EACCES, "EACCES"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EINTR, "EINTR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENFILE, "ENFILE"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::EPERM, "EPERM"),
    (libc::EPIPE, "EPIPE"),
    (libc::EPROTO, "EPROTO"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

pub fn errno_name(errno: i32) -> &'static str {
    ERRNOS.iter().find(|(number, _)| *number == errno).expect("every errno has its name here").1
}

pub fn errno_of(name: &str) -> Option<i32> {
    ERRNOS.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

/// The run.
impl World {
    fn new(scenario: &'static Scenario, failure: Option<Failure>) -> World {
        let mut net = SimNet::new(0);
        net.trace_mut().keep_all();
        match failure {
            Some(Failure { at, errno, times }) => net.fail_calls(at, times, errno),
            None => net.log_calls(),
        }
        World {
            reactor: Reactor::new(net, (scenario.limits)(), scenario.buffers),
            scenario,
            failure,
            ports: Vec::new(),
            sockets: Vec::new(),
            peers: Vec::new(),
            senders: Vec::new(),
            mail: BTreeMap::new(),
            heeds: Vec::new(),
            answers_vary: false,
            delays_matter: false,
            best_effort: false,
            would_block_tells: false,
            crowded: false,
            left: false,
            probes: 0,
            marks: [0; 2],
        }
    }

    /// What happened last.
    fn latest(&mut self) -> String {
        let entries: Vec<String> = self.net().trace().entries().map(ToString::to_string).collect();
        entries[entries.len().saturating_sub(TOLD)..].join("\n")
    }

    fn play(&mut self) -> Outcome {
        self.open();
        (self.scenario.script)(self);
        self.settle();
        let peers = self.look();
        let mail = self.mail();
        self.marks[0] = self.calls_made();
        // Calls that go on failing would hit the probe, which is not what they are about.
        if self.failure.is_some_and(|failure| failure.times > 1) {
            self.net().succeed_in_calls();
            self.settle();
        }
        if !self.crowded {
            self.probe();
        }
        self.marks[1] = self.calls_made();
        self.leave();
        self.net().succeed_in_calls();
        self.net().succeed_in_accepts();
        let calls = self.calls_by_client();
        self.probe();
        self.leave();
        Outcome {
            peers,
            mail,
            services_bytes: self.reactor.ledger().services,
            heeds: self.heeds.clone(),
            delays_matter: self.delays_matter,
            best_effort: self.best_effort,
            would_block_tells: self.would_block_tells,
            shed: self.shed(),
            calls,
            marks: self.marks,
            hash: self.net().trace().hash(),
        }
    }

    /// Listens and binds. What fails is told, leaves nothing behind, and works at the next attempt.
    fn open(&mut self) {
        let mut services = Vec::new();
        for kind in self.scenario.listeners {
            let service = self.service(*kind, &mut services);
            let address = self.insist(|reactor| match kind {
                Kind::Operator => reactor.listen_for_operator(kind.address(), 128, service),
                _ => reactor.listen(kind.address(), 128, service),
            });
            self.ports.push(address);
        }
        for kind in self.scenario.sockets {
            let service = self.service(*kind, &mut services);
            let address = self.insist(|reactor| reactor.bind(kind.address(), service));
            self.sockets.push(address);
        }
    }

    /// What a port of this kind serves, which it may share with another.
    fn service(&mut self, kind: Kind, services: &mut Vec<(Kind, u8)>) -> u8 {
        let serves = if kind == Kind::Operator { Kind::Hub } else { kind };
        if let Some((_, service)) = services.iter().find(|(known, _)| *known == serves) {
            return *service;
        }
        let service = self.reactor.add_service(serves.service());
        services.push((serves, service));
        service
    }

    fn insist(&mut self, mut attempt: impl FnMut(&mut Reactor<SimNet>) -> std::io::Result<SocketAddr>) -> SocketAddr {
        let (files, mut failed) = (self.net().open_files(), 0);
        loop {
            match attempt(&mut self.reactor) {
                Ok(address) => return address,
                Err(error) => {
                    let failure = self.failure.expect("nothing was to fail");
                    failed += 1;
                    assert_eq!(error.raw_os_error(), Some(failure.errno), "the error that the kernel gave");
                    assert!(failed <= failure.times, "{error}, though it was to succeed");
                    assert_eq!(self.net().open_files(), files, "a failed attempt leaves nothing open");
                    self.reactor.check_invariants();
                }
            }
        }
    }

    fn calls_made(&mut self) -> u64 {
        self.net().calls_made().len() as u64
    }

    /// The log of calls, and for those that the trace tells of, whom they were about.
    fn calls_by_client(&mut self) -> Vec<(SystemCall, Option<usize>)> {
        let mut traced: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
        for entry in self.net().trace().entries() {
            let client = match entry.what {
                "accept" => usize::try_from(entry.amount).ok(),
                _ => Some(entry.who as usize),
            };
            traced.entry(entry.what).or_default().push(client);
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let calls = self.net().calls_made();
        let with_client = calls.into_iter().map(|call| {
            let what = match call {
                SystemCall::Accept => "accept",
                SystemCall::Read => "read",
                SystemCall::Write => "write",
                SystemCall::WatchWritable => "watch-writable",
                SystemCall::Shutdown => "shutdown",
                _ => return (call, None),
            };
            let number = seen.entry(what).or_default();
            *number += 1;
            (call, traced[what][*number - 1])
        });
        with_client.collect()
    }

    fn shed(&mut self) -> Vec<usize> {
        let shed = self.net().trace().entries().filter(|entry| entry.what == "shed");
        shed.map(|entry| entry.who as usize).collect()
    }

    fn look(&self) -> Vec<Seen> {
        let mut held = BTreeSet::new();
        for entry in self.reactor.net().trace().entries() {
            match entry.what {
                "accept" => held.insert(entry.amount),
                "close" | "reset" => held.remove(&(entry.who as i64)),
                _ => false,
            };
        }
        let lines = |bytes: &[u8]| vec![b'.'; bytes.iter().filter(|byte| **byte == b'\n').count()];
        let seen = self.peers.iter().enumerate().map(|(index, peer)| Seen {
            received: if peer.opaque { lines(&peer.received) } else { peer.received.clone() },
            end: self.end(index),
            is_held: held.contains(&(index as i64)),
        });
        seen.collect()
    }

    fn mail(&mut self) -> BTreeMap<SocketAddr, Vec<Vec<u8>>> {
        for from in self.senders.clone() {
            let answers = self.net().datagrams_received(from);
            let texts = answers.into_iter().map(|(_, bytes)| if self.answers_vary { Vec::new() } else { bytes });
            self.mail.entry(from).or_default().extend(texts);
        }
        self.mail.clone()
    }

    /// A newcomer at every listener, and a datagram to every socket, is answered within a virtual second.
    fn probe(&mut self) {
        if self.reactor.is_draining() {
            return;
        }
        for index in 0..self.ports.len() {
            let (kind, address) = (self.scenario.listeners[index], self.ports[index]);
            let (says, expects) = kind.probe();
            let source = self.prober(address);
            let client = self.net().client_from(address, source).expect("room in the accept queue");
            self.net().client_send(client, says.as_bytes());
            self.expect_answer(client, expects, index);
            if kind.is_hub() && self.left {
                self.net().client_send(client, b"PUBSUB CHANNELS\r\nPUBSUB NUMPAT\r\n");
                self.expect_answer(client, "*0\r\n:0\r\n", index);
            }
            self.net().client_close(client);
        }
        for (index, address) in self.sockets.clone().into_iter().enumerate() {
            let from = self.prober(address);
            let says = match self.scenario.sockets[index].is_hub() {
                true => "PING                          \r\n",
                false => "Ada",
            };
            self.net().send_datagram(address, from, says.as_bytes());
            let answered = (0..20).any(|_| {
                self.pass(SECOND / 20);
                !self.net().datagrams_received(from).is_empty()
            });
            assert!(answered, "socket {index} does not answer");
        }
    }

    fn expect_answer(&mut self, client: ClientId, expects: &str, listener: usize) {
        let mut got = Vec::new();
        for _ in 0..20 {
            self.pass(SECOND / 20);
            got.extend(self.net().client_received(client));
            if got.ends_with(expects.as_bytes()) {
                return;
            }
        }
        let (got, saw) = (got.escape_ascii().to_string(), self.net().client_saw(client));
        panic!("a newcomer at listener {listener} got {got:?} for {expects:?} within a second, {saw:?}");
    }

    /// Another address for each, so that no cap or penalty of a source is met.
    fn prober(&mut self, to: SocketAddr) -> SocketAddr {
        self.probes += 1;
        let ip: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::new(127, 77, 0, self.probes as u8).into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, 10_000 + self.probes)
    }

    /// All clients go, and nothing may be left of them.
    fn leave(&mut self) {
        for index in 0..self.peers.len() {
            let client = self.peers[index].client;
            self.net().client_close(client);
        }
        self.left = true;
        self.pass(GONE);
        assert_eq!(self.reactor.connections(), 0, "connections left when all clients have gone");
        let ledger = self.reactor.ledger();
        assert_eq!((ledger.read_buffers, ledger.write_buffers), (0, 0), "buffers left when all clients have gone");
        let stats = self.reactor.stats();
        assert_eq!(stats.accepted, stats.closed_total(), "accepted = closed");
        let bound = if self.reactor.is_draining() { 0 } else { self.ports.len() + self.sockets.len() };
        assert_eq!(self.net().open_files(), bound, "open files when all clients have gone");
        assert!(!self.reactor.is_draining() || self.reactor.is_drained());
    }
}

/// What scripts do.
impl World {
    pub fn net(&mut self) -> &mut SimNet {
        self.reactor.net_mut()
    }

    /// A client that has been accepted, and takes whatever comes.
    pub fn join(&mut self, listener: usize) -> usize {
        let peer = self.arrive(listener);
        self.settle();
        peer
    }

    /// The same, not accepted yet.
    pub fn arrive(&mut self, listener: usize) -> usize {
        let address = self.ports[listener];
        let client = self.net().client(address).expect("room in the accept queue");
        self.add(client)
    }

    /// A client from a host of its own, `127.0.9.<host>`.
    pub fn join_from(&mut self, listener: usize, host: u8) -> usize {
        let (address, port) = (self.ports[listener], 2000 + self.peers.len() as u16);
        let source = SocketAddr::from(([127, 0, 9, host], port));
        let client = self.net().client_from(address, source).expect("room in the accept queue");
        let peer = self.add(client);
        self.settle();
        peer
    }

    fn add(&mut self, client: ClientId) -> usize {
        self.peers.push(Peer { client, reads: true, received: Vec::new(), opaque: false });
        self.peers.len() - 1
    }

    pub fn send(&mut self, peer: usize, bytes: impl AsRef<[u8]>) {
        let client = self.peers[peer].client;
        self.net().client_send(client, bytes.as_ref());
    }

    /// Sends, and lets what follows from it happen.
    pub fn say(&mut self, peer: usize, bytes: impl AsRef<[u8]>) {
        self.send(peer, bytes);
        self.settle();
    }

    /// From now on it takes nothing by itself; `window` bytes may be under way to it.
    pub fn deafen(&mut self, peer: usize, window: usize) {
        self.peers[peer].reads = false;
        let client = self.peers[peer].client;
        self.net().set_window(client, window);
    }

    /// It takes some of what waits for it.
    pub fn take(&mut self, peer: usize, most: usize) {
        let client = self.peers[peer].client;
        let bytes = self.net().client_take(client, most);
        self.peers[peer].received.extend(bytes);
    }

    /// From now on it takes whatever comes.
    pub fn listen_up(&mut self, peer: usize, window: usize) {
        self.peers[peer].reads = true;
        let client = self.peers[peer].client;
        self.net().set_window(client, window);
    }

    pub fn shut(&mut self, peer: usize) {
        let client = self.peers[peer].client;
        self.net().client_shutdown(client);
    }

    pub fn close(&mut self, peer: usize) {
        let client = self.peers[peer].client;
        self.net().client_close(client);
    }

    pub fn reset(&mut self, peer: usize) {
        let client = self.peers[peer].client;
        self.net().client_reset(client);
    }

    /// From `127.0.8.<host>`.
    pub fn datagram(&mut self, socket: usize, host: u8, bytes: impl AsRef<[u8]>) {
        let (to, from) = (self.sockets[socket], SocketAddr::from(([127, 0, 8, host], 3000)));
        if !self.senders.contains(&from) {
            self.senders.push(from);
        }
        self.net().send_datagram(to, from, bytes.as_ref());
    }

    /// Only how many lines it gets is compared.
    pub fn opaque(&mut self, peer: usize) {
        self.peers[peer].opaque = true;
    }

    /// What `peer` gets depends on what becomes of `others`.
    pub fn heeds(&mut self, peer: usize, others: impl IntoIterator<Item = usize>) {
        self.heeds.extend(others.into_iter().map(|other| (peer, other)));
    }

    /// Answers to datagrams depend on what becomes of clients: only how many there are is compared.
    pub fn answers_vary(&mut self) {
        self.answers_vary = true;
    }

    /// Who gets what depends on when each was accepted.
    pub fn delays_matter(&mut self) {
        self.delays_matter = true;
    }

    /// Some are told once why they must go, as far as that goes in one write.
    pub fn tells_by_best_effort(&mut self) {
        self.best_effort = true;
    }

    /// A read or write that would block decides what becomes of a client: that nothing has come, or that it takes nothing.
    pub fn would_block_tells(&mut self) {
        self.would_block_tells = true;
    }

    /// No newcomer finds room before the others have gone.
    pub fn crowded(&mut self) {
        self.crowded = true;
    }

    pub fn settle(&mut self) {
        self.pass(SETTLED);
    }

    /// Turns the loop until so much time has passed.
    pub fn pass(&mut self, span: Duration) {
        let end = self.net().now() + span;
        let (mut turns, mut moment) = (0, self.net().now());
        while self.turn_until(end) < end {
            let now = self.reactor.now();
            turns = if now > moment { 0 } else { turns + 1 };
            moment = now;
            assert!(turns < TURNS_AT_ONCE, "{turns} turns at one moment: the loop spins");
        }
    }

    fn turn_until(&mut self, end: Time) -> Time {
        self.net().hold_time_at(end);
        let happened = |reactor: &Reactor<SimNet>| (reactor.net().trace().events(), reactor.stats().work.expiries);
        let before = happened(&self.reactor);
        self.reactor.turn().expect("only a poll that fails may fail a turn");
        // What held before a turn in which nothing happened holds after it.
        if happened(&self.reactor) != before {
            self.reactor.check_invariants();
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.reads) {
            peer.received.extend(self.reactor.net_mut().client_received(peer.client));
        }
        self.reactor.now()
    }

    pub fn got(&self, peer: usize) -> String {
        String::from_utf8_lossy(&self.peers[peer].received).into_owned()
    }

    pub fn end(&self, peer: usize) -> End {
        self.reactor.net().client_saw(self.peers[peer].client)
    }

    pub fn closed(&self, reason: Reason) -> u64 {
        self.reactor.stats().closed_for(reason)
    }

    /// What the script is about has happened; asked only where nothing failed.
    #[track_caller]
    pub fn expect<T: PartialEq + std::fmt::Debug>(&self, found: T, expected: T) {
        if self.failure.is_none() {
            assert_eq!(found, expected, "what the script is about");
        }
    }
}

/// Holds a run against the one in which nothing failed. The rule that it broke, if any.
pub fn compare(quiet: &Outcome, run: &Outcome, failure: Failure) -> Result<(), String> {
    let (call, client) = quiet.calls[failure.at as usize];
    // Of failures in a row that cost something, any may be the victims: the rules that hold for every run must do.
    // Of a failure that passes nobody may notice anything, not even whom it hit.
    let tells = quiet.would_block_tells && failure.errno == libc::EAGAIN;
    let passes = passes(call, failure.errno) && !tells;
    if failure.times > A_FEW || failure.times > 1 && !passes {
        return Ok(());
    }
    compare_services(quiet, run)?;
    compare_mail(quiet, run, call, failure)?;
    let is_about_listeners = matches!(
        call,
        SystemCall::Accept | SystemCall::Shed | SystemCall::Listen | SystemCall::Bind | SystemCall::Configure
    );
    if quiet.delays_matter && is_about_listeners {
        return Ok(());
    }
    let differ: Vec<usize> =
        (0..quiet.peers.len()).filter(|index| run.peers.get(*index) != Some(&quiet.peers[*index])).collect();
    let follows = |peer: usize, victim: usize| peer == victim || quiet.heeds.contains(&(peer, victim));
    let is_hit = |peer: usize| Some(peer) == client || failure.times > 1;
    let ended = |peer: usize| quiet.peers[peer].end != End::Open;
    let are_excused = |victim: Option<usize>| {
        let is_excused = |peer: &usize| victim.iter().chain(&run.shed).any(|victim| follows(*peer, *victim));
        differ.iter().all(is_excused)
    };
    let is_fine = match client {
        _ if passes => differ.iter().all(|peer| quiet.best_effort && ended(*peer) && is_hit(*peer)),
        Some(_) => are_excused(client),
        // The trace does not tell: it was about one of them, or about none.
        None => (0..=quiet.peers.len()).any(|victim| are_excused(Some(victim))),
    };
    // Whom an error has cost something is not held on to, as if more could come of it.
    let is_about_the_stream =
        matches!(call, SystemCall::Accept | SystemCall::Read | SystemCall::Write | SystemCall::WatchWritable);
    let is_stuck = |peer: &usize| {
        let lost = client == Some(*peer) && is_about_the_stream && !passes;
        lost && run.peers.get(*peer).is_some_and(|seen| seen.is_held)
    };
    if is_fine && !differ.iter().any(is_stuck) {
        return Ok(());
    }
    let seen = |outcome: &Outcome, peer: usize| match outcome.peers.get(peer) {
        Some(Seen { received, end, is_held }) => {
            let tail = &received[received.len().saturating_sub(60)..];
            let held = if *is_held { "held" } else { "not held" };
            format!("{} bytes, …{}, {end:?}, {held}", received.len(), tail.escape_ascii())
        }
        None => "nothing at all".into(),
    };
    let texts =
        differ.iter().map(|peer| format!("client {peer} got {} in place of {}", seen(run, *peer), seen(quiet, *peer)));
    Err(format!("of a failure about client {client:?}: {}", texts.collect::<Vec<_>>().join("; ")))
}

/// After so many failures in a row that pass, everything is to be as if there had been none.
pub const A_FEW: u32 = 3;

/// Whether a failure only means that the call is to be made again.
fn passes(call: SystemCall, errno: i32) -> bool {
    match call {
        SystemCall::Read | SystemCall::Write => matches!(errno, libc::EAGAIN | libc::EINTR),
        SystemCall::Accept => !matches!(errno, libc::ECONNABORTED | libc::ENOSPC | libc::EMFILE | libc::ENFILE),
        SystemCall::Listen | SystemCall::Bind | SystemCall::Configure | SystemCall::Receive => true,
        SystemCall::Send | SystemCall::Shed => true,
        SystemCall::WatchWritable | SystemCall::Shutdown | SystemCall::Unacknowledged => false,
        SystemCall::BufferBytes | SystemCall::PeerAddress | SystemCall::AcceptQueue => false,
    }
}

/// What the hub holds for a place that a session may take, in bytes: there may have been more sessions at a time.
const BYTES_PER_PLACE: usize = 24;

/// What services hold in the end: nothing more than where nothing failed.
fn compare_services(quiet: &Outcome, run: &Outcome) -> Result<(), String> {
    let places = (run.peers.len() + quiet.peers.len()) * BYTES_PER_PLACE;
    match run.services_bytes <= quiet.services_bytes + places {
        true => Ok(()),
        false => Err(format!("services hold {} bytes, not {}", run.services_bytes, quiet.services_bytes)),
    }
}

/// Datagrams are answered late or not at all: an error that is about one costs that one, a full buffer the rest of its batch.
fn compare_mail(quiet: &Outcome, run: &Outcome, call: SystemCall, failure: Failure) -> Result<(), String> {
    let mut missing = 0;
    for (from, answers) in &quiet.mail {
        let mut rest = run.mail[from].iter();
        let mut next = rest.next();
        for answer in answers {
            match next == Some(answer) {
                true => next = rest.next(),
                false => missing += 1,
            }
        }
        if next.is_some() {
            return Err(format!("{from} got what it was not sent: {:?}", run.mail[from]));
        }
    }
    let most = match call {
        SystemCall::Send if failure.errno == libc::EAGAIN => slabd::limits::DATAGRAMS_PER_BATCH,
        SystemCall::Send => 1,
        _ => 0,
    };
    match missing <= most * failure.times as usize {
        true => Ok(()),
        false => Err(format!("{missing} answers to datagrams are missing")),
    }
}

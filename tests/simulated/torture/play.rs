//! One run of a scenario on the simulated network, with or without a failing call.
//!
//! A run has five parts: the script, a record of every client's bytes, a probe of every listener
//! and socket, the close of all clients, and a second probe. Nothing may be left of closed clients.
//! [`compare`](super::compare) then compares the run with the one in which nothing failed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use slabd::net::sim::{ClientId, SimNet, SystemCall};
use slabd::reactor::Reactor;

use super::compare::{Outcome, Seen};
use super::scenario::{Failure, Kind, SECOND, Scenario};
use super::world::World;

/// Time after which nothing of the clients may be left. It is longer than the close timeout and
/// much shorter than all others.
const GONE: Duration = Duration::from_millis(2500);

/// A run that broke a rule: the rule, and the last entries of the trace.
pub struct Broken {
    pub rule: String,
    pub trace: String,
}

/// Number of entries of the trace in the report of a broken rule.
const TRACE_ENTRIES: usize = 40;

thread_local! {
    /// True while this thread plays a scenario.
    static PLAYS: Cell<bool> = const { Cell::new(false) };
    /// The message and the place of the last panic in a scenario.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics of scenarios from standard error. The report of the run has them.
pub fn keep_panics_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match PLAYS.get() {
        true => PANIC.set(info.to_string()),
        false => usual(info),
    }));
}

/// Plays a scenario and judges its outcome.
pub fn run(
    scenario: &'static Scenario,
    failure: Option<Failure>,
    judge: impl FnOnce(&Outcome) -> Result<(), String>,
) -> Result<Outcome, Broken> {
    let mut world = World::new(scenario, failure);
    PLAYS.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play())).map_err(|_| PANIC.take());
    PLAYS.set(false);
    outcome
        .and_then(|outcome| judge(&outcome).map(|()| outcome))
        .map_err(|rule| Broken { rule, trace: world.latest() })
}

/// The parts of a run.
impl World {
    /// Returns the last entries of the trace.
    fn latest(&mut self) -> String {
        let entries: Vec<String> = self.net().trace().entries().map(ToString::to_string).collect();
        entries[entries.len().saturating_sub(TRACE_ENTRIES)..].join("\n")
    }

    fn play(&mut self) -> Outcome {
        self.open();
        (self.scenario.script)(self);
        self.settle();
        let peers = self.look();
        let mail = self.mail();
        self.marks[0] = self.calls_made();
        // The probe checks the state after the failures, so none may hit it.
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
            depends_on: self.depends_on.clone(),
            delays_matter: self.delays_matter,
            best_effort: self.best_effort,
            would_block_matters: self.would_block_matters,
            shed: self.shed(),
            calls,
            marks: self.marks,
            hash: self.net().trace().hash(),
        }
    }

    /// Listens and binds. A failed attempt returns the error, leaves nothing behind, and can be
    /// repeated.
    fn open(&mut self) {
        let mut services = Vec::new();
        for kind in self.scenario.listeners {
            let service = self.service(*kind, &mut services);
            let address = self.retry(|reactor| match kind {
                Kind::Operator => reactor.listen_for_operator(kind.address(), 128, service),
                _ => reactor.listen(kind.address(), 128, service),
            });
            self.ports.push(address);
        }
        for kind in self.scenario.sockets {
            let service = self.service(*kind, &mut services);
            let address = self.retry(|reactor| reactor.bind(kind.address(), service));
            self.sockets.push(address);
        }
    }

    /// Returns the service of a port, which two ports may share.
    fn service(&mut self, kind: Kind, services: &mut Vec<(Kind, u8)>) -> u8 {
        let serves = if kind == Kind::Operator { Kind::Hub } else { kind };
        if let Some((_, service)) = services.iter().find(|(known, _)| *known == serves) {
            return *service;
        }
        let service = self.reactor.add_service(serves.service());
        services.push((serves, service));
        service
    }

    /// Repeats an attempt until it succeeds, and checks each failure.
    fn retry(
        &mut self,
        mut attempt: impl FnMut(&mut Reactor<SimNet>) -> std::io::Result<SocketAddr>,
    ) -> SocketAddr {
        let (files, mut failed) = (self.net().open_files(), 0);
        loop {
            match attempt(&mut self.reactor) {
                Ok(address) => return address,
                Err(error) => {
                    let failure = self.failure.expect("no call was to fail");
                    failed += 1;
                    assert_eq!(
                        error.raw_os_error(),
                        Some(failure.errno),
                        "the attempt returns the kernel's error"
                    );
                    assert!(failed <= failure.times, "{error} after the failures");
                    assert_eq!(
                        self.net().open_files(),
                        files,
                        "a failed attempt leaves nothing open"
                    );
                    self.reactor.check_invariants();
                }
            }
        }
    }

    fn calls_made(&mut self) -> u64 {
        self.net().calls_made().len() as u64
    }

    /// Returns the calls, each with its client if the trace has it.
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

    /// Returns the clients that were shed.
    fn shed(&mut self) -> Vec<usize> {
        let shed = self.net().trace().entries().filter(|entry| entry.what == "shed");
        shed.map(|entry| entry.who as usize).collect()
    }

    /// Returns the state of every client.
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

    /// Returns all answers to datagrams so far, by sender.
    fn mail(&mut self) -> BTreeMap<SocketAddr, Vec<Vec<u8>>> {
        for from in self.senders.clone() {
            let answers = self.net().datagrams_received(from);
            let texts = answers
                .into_iter()
                .map(|(_, bytes)| if self.answers_vary { Vec::new() } else { bytes });
            self.mail.entry(from).or_default().extend(texts);
        }
        self.mail.clone()
    }

    /// Checks that every listener and socket answers a newcomer within a second of virtual time.
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
                // The hub must have forgotten the clients of the script.
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
            assert!(answered, "socket {index} does not answer a datagram within a second");
        }
    }

    /// Checks that the client gets an answer with this end within a second.
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
        panic!(
            "a newcomer at listener {listener} got {got:?} within a second, \
             not {expects:?}; its stream: {saw:?}"
        );
    }

    /// Returns a new address. Over IPv4, its host is new too, so that no limit or penalty of a
    /// source applies.
    fn prober(&mut self, to: SocketAddr) -> SocketAddr {
        self.probes += 1;
        let ip: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::new(127, 77, 0, self.probes as u8).into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, 10_000 + self.probes)
    }

    /// Closes all clients, and checks that nothing is left of them.
    fn leave(&mut self) {
        for index in 0..self.peers.len() {
            let client = self.peers[index].client;
            self.net().client_close(client);
        }
        self.left = true;
        self.pass(GONE);
        assert_eq!(self.reactor.connections(), 0, "no connection is left after all clients closed");
        let ledger = self.reactor.ledger();
        assert_eq!(
            (ledger.read_buffers, ledger.write_buffers),
            (0, 0),
            "no buffer is left after all clients closed"
        );
        let stats = self.reactor.stats();
        assert_eq!(stats.accepted, stats.closed_total(), "every accepted connection is closed");
        let bound =
            if self.reactor.is_draining() { 0 } else { self.ports.len() + self.sockets.len() };
        assert_eq!(
            self.net().open_files(),
            bound,
            "only listeners and sockets are open after all clients closed"
        );
        assert!(!self.reactor.is_draining() || self.reactor.is_drained());
    }
}

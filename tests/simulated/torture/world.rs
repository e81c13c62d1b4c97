//! The world of one run: the loop, its clients, and the actions of scripts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use slabd::clock::Time;
use slabd::connection::Reason;
use slabd::net::Net;
use slabd::net::sim::{ClientId, End, SimNet};
use slabd::reactor::Reactor;

use super::scenario::{Failure, Scenario};

/// Time in which a failed accept or receive is retried several times.
const SETTLED: Duration = Duration::from_millis(500);
/// Maximum number of turns without virtual time passing. The largest transfer takes a few dozen.
const TURNS_AT_ONCE: usize = 100;

/// A client of the script.
pub(super) struct Peer {
    pub(super) client: ClientId,
    /// True if the client takes all bytes at once.
    pub(super) reads: bool,
    pub(super) received: Vec<u8>,
    /// True if the comparison only counts lines, because these contain times or counts.
    pub(super) opaque: bool,
}

/// The loop, the clients of a run, and the rules for its comparison.
pub struct World {
    pub reactor: Reactor<SimNet>,
    pub(super) scenario: &'static Scenario,
    pub(super) failure: Option<Failure>,
    pub(super) ports: Vec<SocketAddr>,
    pub(super) sockets: Vec<SocketAddr>,
    pub(super) peers: Vec<Peer>,
    pub(super) senders: Vec<SocketAddr>,
    pub(super) mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    /// Pairs of clients. The bytes that the first gets depend on the fate of the second.
    pub(super) depends_on: Vec<(usize, usize)>,
    pub(super) answers_vary: bool,
    pub(super) delays_matter: bool,
    pub(super) best_effort: bool,
    pub(super) would_block_matters: bool,
    pub(super) crowded: bool,
    /// True if the script's clients have closed.
    pub(super) left: bool,
    pub(super) probes: u16,
    /// The number of calls after the script, and after the first probe.
    pub(super) marks: [u64; 2],
}

/// The actions of scripts.
impl World {
    pub(super) fn new(scenario: &'static Scenario, failure: Option<Failure>) -> World {
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
            depends_on: Vec::new(),
            answers_vary: false,
            delays_matter: false,
            best_effort: false,
            would_block_matters: false,
            crowded: false,
            left: false,
            probes: 0,
            marks: [0; 2],
        }
    }

    pub fn net(&mut self) -> &mut SimNet {
        self.reactor.net_mut()
    }

    /// Connects a client that takes all bytes at once, and accepts it.
    pub fn join(&mut self, listener: usize) -> usize {
        let peer = self.arrive(listener);
        self.settle();
        peer
    }

    /// Connects a client that is not accepted yet.
    pub fn arrive(&mut self, listener: usize) -> usize {
        let address = self.ports[listener];
        let client = self.net().client(address).expect("room in the accept queue");
        self.add(client)
    }

    /// Connects a client from the address `127.0.9.<host>`, and accepts it.
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

    /// Sends the bytes and lets half a second pass.
    pub fn say(&mut self, peer: usize, bytes: impl AsRef<[u8]>) {
        self.send(peer, bytes);
        self.settle();
    }

    /// The client stops reading. At most `window` bytes may be in flight to it.
    pub fn stop_reading(&mut self, peer: usize, window: usize) {
        self.peers[peer].reads = false;
        let client = self.peers[peer].client;
        self.net().set_window(client, window);
    }

    /// The client takes up to `most` bytes.
    pub fn take(&mut self, peer: usize, most: usize) {
        let client = self.peers[peer].client;
        let bytes = self.net().client_take(client, most);
        self.peers[peer].received.extend(bytes);
    }

    /// The client takes all bytes again.
    pub fn resume_reading(&mut self, peer: usize, window: usize) {
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

    /// Sends a datagram from the address `127.0.8.<host>`.
    pub fn datagram(&mut self, socket: usize, host: u8, bytes: impl AsRef<[u8]>) {
        let (to, from) = (self.sockets[socket], SocketAddr::from(([127, 0, 8, host], 3000)));
        if !self.senders.contains(&from) {
            self.senders.push(from);
        }
        self.net().send_datagram(to, from, bytes.as_ref());
    }

    /// Compares only the number of lines that the client gets.
    pub fn opaque(&mut self, peer: usize) {
        self.peers[peer].opaque = true;
    }

    /// The bytes that `peer` gets depend on the fate of `others`.
    pub fn depends_on(&mut self, peer: usize, others: impl IntoIterator<Item = usize>) {
        self.depends_on.extend(others.into_iter().map(|other| (peer, other)));
    }

    /// Compares only the number of answers to datagrams, because they depend on the fate of
    /// clients.
    pub fn answers_vary(&mut self) {
        self.answers_vary = true;
    }

    /// The bytes of the clients depend on the time of each accept.
    pub fn delays_matter(&mut self) {
        self.delays_matter = true;
    }

    /// A closed client may miss the reason, which the loop sends with one write.
    pub fn notices_are_best_effort(&mut self) {
        self.best_effort = true;
    }

    /// A read or write that would block decides the fate of a client.
    pub fn would_block_matters(&mut self) {
        self.would_block_matters = true;
    }

    /// A newcomer finds no room before the clients of the script have closed.
    pub fn crowded(&mut self) {
        self.crowded = true;
    }

    /// Lets half a second pass.
    pub fn settle(&mut self) {
        self.pass(SETTLED);
    }

    /// Makes turns until `span` of virtual time has passed.
    pub fn pass(&mut self, span: Duration) {
        let end = self.net().now() + span;
        let (mut turns, mut moment) = (0, self.net().now());
        loop {
            let is_last = self.net().now() >= end;
            let now = self.turn_until(end);
            // The last turn begins at the end, so the deadlines up to then have been judged.
            if is_last {
                return;
            }
            turns = if now > moment { 0 } else { turns + 1 };
            moment = now;
            assert!(turns < TURNS_AT_ONCE, "the loop spins: {turns} turns while no time passed");
        }
    }

    fn turn_until(&mut self, end: Time) -> Time {
        self.net().hold_time_at(end);
        let happened = |reactor: &Reactor<SimNet>| {
            (reactor.net().trace().events(), reactor.stats().work.expiries)
        };
        let before = happened(&self.reactor);
        self.reactor.turn().expect("only a failed poll may fail a turn");
        // A turn without events cannot break an invariant.
        if happened(&self.reactor) != before {
            self.reactor.check_invariants();
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.reads) {
            peer.received.extend(self.reactor.net_mut().client_received(peer.client));
        }
        self.reactor.now()
    }

    /// Returns all bytes that the client has taken.
    pub fn got(&self, peer: usize) -> String {
        String::from_utf8_lossy(&self.peers[peer].received).into_owned()
    }

    pub fn bytes(&self, peer: usize) -> &[u8] {
        &self.peers[peer].received
    }

    /// Returns the end of the stream as the client sees it.
    pub fn end(&self, peer: usize) -> End {
        self.reactor.net().client_saw(self.peers[peer].client)
    }

    /// Returns the number of connections closed for this reason.
    pub fn closed(&self, reason: Reason) -> u64 {
        self.reactor.stats().closed_for(reason)
    }

    /// Checks an outcome of the script, in a run without a failure.
    #[track_caller]
    pub fn expect<T: PartialEq + std::fmt::Debug>(&self, found: T, expected: T) {
        if self.failure.is_none() {
            assert_eq!(found, expected, "the outcome of the script");
        }
    }
}

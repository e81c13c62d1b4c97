//! A loop on the simulated network, and shorthands for what tests do with it. After every turn the loop's invariants are checked.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::time::Duration;

use slabd::buffer::BufferMode;
use slabd::clock::Time;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{CONNECTIONS_MAX, Limits, SILENT_MAX};
use slabd::net::Net;
use slabd::net::sim::ClientId;
use slabd::net::sim::SimNet;
use slabd::reactor::Reactor;
use slabd::service::{Options, Service};

/// A loop with one service on one address, and shorthands for what tests do with it.
pub struct Sim {
    pub reactor: Reactor<SimNet>,
    pub address: SocketAddr,
}

impl Sim {
    pub fn new(service: Box<dyn Service>, limits: Limits) -> Sim {
        Sim::on(SimNet::new(0), service, limits, BufferMode::Pooled)
    }

    pub fn on(net: SimNet, service: Box<dyn Service>, limits: Limits, buffers: BufferMode) -> Sim {
        let mut reactor = Reactor::new(net, limits, buffers);
        let service = reactor.add_service(service);
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 128, service).unwrap();
        reactor.bind(address, service).unwrap();
        Sim { reactor, address }
    }

    pub fn net(&mut self) -> &mut SimNet {
        self.reactor.net_mut()
    }

    /// One turn at the present moment.
    pub fn turn(&mut self) {
        let now = self.net().now();
        self.turn_until(now);
    }

    pub fn turn_until(&mut self, moment: Time) {
        self.net().hold_time_at(moment);
        self.reactor.turn().unwrap();
        self.reactor.check_invariants();
    }

    pub fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    pub fn client(&mut self) -> ClientId {
        let address = self.address;
        self.net().client(address).expect("room in the accept queue")
    }

    /// A client that has been accepted.
    pub fn accepted(&mut self) -> ClientId {
        let client = self.client();
        self.turn();
        client
    }

    /// So many clients that have been accepted, 64 a turn.
    pub fn crowd(&mut self, count: usize) -> Vec<ClientId> {
        let mut clients = Vec::new();
        while clients.len() < count {
            clients.extend((0..64.min(count - clients.len())).map(|_| self.client()));
            self.turn();
        }
        clients
    }

    pub fn send(&mut self, client: ClientId, bytes: impl AsRef<[u8]>) {
        self.net().client_send(client, bytes.as_ref());
    }

    pub fn received(&mut self, client: ClientId) -> String {
        String::from_utf8_lossy(&self.net().client_received(client)).into_owned()
    }

    /// Sends, turns the loop twice and returns what came.
    pub fn exchange(&mut self, client: ClientId, bytes: impl AsRef<[u8]>) -> String {
        self.send(client, bytes);
        self.turns(2);
        self.received(client)
    }

    /// Turns the loop until virtual time has advanced by `span`.
    pub fn pass(&mut self, span: Duration) {
        let end = self.net().now() + span;
        for _ in 0..100_000 {
            self.turn_until(end);
            if self.reactor.now() >= end {
                return;
            }
        }
        panic!("100,000 turns do not take {span:?}: the loop spins");
    }

    pub fn closed(&self, reason: Reason) -> u64 {
        self.reactor.stats().closed_for(reason)
    }
}

/// A loop with the hub, without a password.
pub fn hub(limits: Limits) -> Sim {
    Sim::new(Box::new(Hub::new(&Options::default())), limits)
}

/// One that has subscribed, its confirmation taken.
pub fn subscriber(sim: &mut Sim, channel: &str) -> ClientId {
    let client = sim.accepted();
    sim.exchange(client, format!("SUBSCRIBE {channel}\r\n"));
    client
}

/// Limits of tests whose subject is not admission: everybody comes from one address here, and many say nothing.
pub fn limits() -> Limits {
    Limits {
        max_connections: 64,
        max_silent: SILENT_MAX,
        max_silent_per_source: SILENT_MAX,
        max_connections_per_source: CONNECTIONS_MAX,
        first_message_timeout: 60 * SECOND,
        ..Limits::default()
    }
}

pub const SECOND: Duration = Duration::from_secs(1);

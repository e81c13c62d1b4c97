//! A loop on the simulated network, with shorthands for tests. It checks the loop's invariants
//! after every turn.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use slabd::buffer::BufferMode;
use slabd::clock::Time;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{CONNECTIONS_MAX, Limits, SILENT_MAX};
use slabd::net::Net;
use slabd::net::sim::{ClientId, End, SimNet};
use slabd::reactor::Reactor;
use slabd::service::{Options, Service};

/// A loop with one service on one address, for TCP and UDP.
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

    /// Makes one turn. No virtual time passes.
    pub fn turn(&mut self) {
        let now = self.net().now();
        self.turn_until(now);
    }

    /// Makes one turn. Its poll may wait until `moment`.
    pub fn turn_until(&mut self, moment: Time) {
        self.net().hold_time_at(moment);
        self.reactor.turn().unwrap();
        self.reactor.check_invariants();
    }

    pub fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    /// Connects a client, which waits in the accept queue.
    pub fn client(&mut self) -> ClientId {
        let address = self.address;
        self.net().client(address).expect("room in the accept queue")
    }

    /// Connects a client and accepts it.
    pub fn accepted(&mut self) -> ClientId {
        let client = self.client();
        self.turn();
        client
    }

    /// Connects a client from the address `10.0.0.<host>`. The server accepts or refuses it.
    pub fn accepted_from(&mut self, host: u8, port: u16) -> ClientId {
        let (address, source) = (self.address, (Ipv4Addr::new(10, 0, 0, host), port).into());
        let client = self.net().client_from(address, source).unwrap();
        self.turns(2);
        self.pass_grace();
        client
    }

    /// Lets 20 ms pass, after which a silent connection may be evicted.
    pub fn pass_grace(&mut self) {
        self.pass(SECOND / 50);
    }

    /// Returns true if the server has ended the client's stream.
    pub fn is_ended(&mut self, client: ClientId) -> bool {
        self.turns(2);
        self.net().client_saw(client) != End::Open
    }

    /// Connects `count` clients and accepts them, 64 per turn.
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

    /// Takes the bytes that the client has received since the last call.
    pub fn received(&mut self, client: ClientId) -> String {
        String::from_utf8_lossy(&self.net().client_received(client)).into_owned()
    }

    /// Sends the bytes, makes two turns, and returns what the client has received.
    pub fn exchange(&mut self, client: ClientId, bytes: impl AsRef<[u8]>) -> String {
        self.send(client, bytes);
        self.turns(2);
        self.received(client)
    }

    /// Makes turns until virtual time has advanced by `span`. The last turn begins at its end, so
    /// the deadlines up to then have been judged.
    pub fn pass(&mut self, span: Duration) {
        let end = self.net().now() + span;
        for _ in 0..100_000 {
            let is_last = self.net().now() >= end;
            self.turn_until(end);
            if is_last {
                return;
            }
        }
        panic!("the loop spins: 100,000 turns took less than {span:?}");
    }

    /// Returns the number of connections closed for this reason.
    pub fn closed(&self, reason: Reason) -> u64 {
        self.reactor.stats().closed_for(reason)
    }
}

/// Returns a command as an array of bulk strings.
pub fn multibulk(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

/// Reads until the server sends no more.
pub fn all(sim: &mut Sim, client: ClientId) -> String {
    let mut got = String::new();
    loop {
        sim.turns(8);
        match sim.received(client) {
            part if part.is_empty() => return got,
            part => got += &part,
        }
    }
}

/// Returns a loop that serves the hub without a password.
pub fn hub(limits: Limits) -> Sim {
    Sim::new(Box::new(Hub::new(&Options::default())), limits)
}

/// Connects a subscriber and takes the reply to its SUBSCRIBE.
pub fn subscriber(sim: &mut Sim, channel: &str) -> ClientId {
    let client = sim.accepted();
    sim.exchange(client, format!("SUBSCRIBE {channel}\r\n"));
    client
}

/// Limits for tests of anything but admission: many silent clients may connect from one address.
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

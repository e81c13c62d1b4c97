//! The far side of the simulated network: what clients and peers do, and how it gets to the loop.

use std::io;
use std::iter::repeat_n;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::connection::{End, Segment, Side, SimConnection};
use super::files::{FileKind, find};
use super::{ClientId, SimNet, os_error};
use crate::limits::{DATAGRAM_MAX, SocketOptions};
use crate::sys::errno;

/// Clients: the far side of streams. Those that the loop closed or reset can still be asked about.
impl SimNet {
    /// Connects to a listener of the loop; `None` when nobody listens there or the accept queue is full.
    pub fn client(&mut self, listener: SocketAddr) -> Option<ClientId> {
        let number = self.connections.len() as u32;
        let port = CLIENT_PORTS.start() + number as u16 % CLIENT_PORTS.len() as u16;
        let host = number / CLIENT_PORTS.len() as u32 + 1;
        let ip = match listener {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(0x7f00_0000 + host)),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::from_bits(host.into())),
        };
        self.client_from(listener, SocketAddr::new(ip, port))
    }

    /// Connects as [`Self::client`] does, from a chosen address.
    pub fn client_from(&mut self, listener: SocketAddr, source: SocketAddr) -> Option<ClientId> {
        let file = find(&self.listeners, listener);
        let full = file.is_none_or(|file| {
            let (queue, backlog) = self.accept_queue_of(file);
            // Linux lets one more in than asked (sk_acceptq_is_full).
            queue.len() > backlog as usize
        });
        let Some(file) = file.filter(|_| !full) else {
            self.clients_refused += 1;
            self.note("client not queued", source.port(), 0);
            return None;
        };
        let client = self.new_connection(source, Side::Waiting);
        self.clients_queued += 1;
        self.accept_queue_of(file).0.push_back(client);
        self.note("client connects", client.0, i64::from(source.port()));
        self.wake(file);
        Some(client)
    }

    /// Connections waiting to be accepted.
    pub fn accept_queue_len(&self, listener: SocketAddr) -> usize {
        match find(&self.listeners, listener).map(|file| &self.file(file).kind) {
            Some(FileKind::Listener { queue, .. }) => queue.len(),
            _ => 0,
        }
    }

    /// Clients that got into an accept queue.
    pub fn clients_queued(&self) -> u64 {
        self.clients_queued
    }

    /// Of those, the ones that a failing accept took with it.
    pub fn accepts_lost(&self) -> u64 {
        self.accepts_lost
    }

    /// Clients that found the accept queue full, or nobody listening.
    pub fn clients_refused(&self) -> u64 {
        self.clients_refused
    }

    pub fn client_address(&self, client: ClientId) -> SocketAddr {
        self.connection(client).peer
    }

    /// Sends; all of it is under way at once, however much the loop leaves unread. False when the client has shut
    /// its side already, or seen a reset.
    pub fn client_send(&mut self, client: ClientId, bytes: &[u8]) -> bool {
        let connection = self.connection(client);
        if connection.client_shut || connection.end == End::Reset {
            return false;
        }
        self.trace.mix_bytes(bytes);
        self.note("client sends", client.0, bytes.len() as i64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match self.faults.segment_max {
                Some(max) => self.random.usize(1..=max.min(rest.len())),
                None => rest.len(),
            };
            let (segment, after) = rest.split_at(length);
            self.post(client, Segment::Data(segment.into()));
            rest = after;
        }
        self.deliver_due();
        true
    }

    /// Receives all there is.
    pub fn client_received(&mut self, client: ClientId) -> Vec<u8> {
        self.client_take(client, usize::MAX)
    }

    /// Whether it has received all that has come for it so far.
    pub fn client_has_taken_all(&self, client: ClientId) -> bool {
        self.connection(client).outbound.is_empty()
    }

    /// Whether nothing of what it has sent is on its way still, and its connection has been accepted.
    pub fn has_arrived(&self, client: ClientId) -> bool {
        let connection = self.connection(client);
        connection.last_arrival <= self.now && matches!(connection.side, Side::Open(_))
    }

    /// Whether the loop still has its side of the stream, or is still to accept it.
    pub fn is_served(&self, client: ClientId) -> bool {
        !matches!(self.connection(client).side, Side::Closed)
    }

    /// Receives up to `most` bytes: a slow reader. What it leaves fills its window.
    pub fn client_take(&mut self, client: ClientId, most: usize) -> Vec<u8> {
        let connection = self.connection_mut(client);
        let length = most.min(connection.outbound.len());
        let bytes: Vec<u8> = connection.outbound.drain(..length).collect();
        let acknowledges_fin = length > 0 && connection.shut && connection.outbound.is_empty();
        if length > 0 {
            self.note("client takes", client.0, length as i64);
        }
        self.announce_room(client);
        if acknowledges_fin {
            // FIN_WAIT2 or TCP_CLOSE is reached, and whoever polls looks again (tcp_rcv_state_process).
            self.wake_client_file(client);
        }
        bytes
    }

    /// Bytes that the loop may have under way to this client; 0 is a client that never takes any.
    pub fn set_window(&mut self, client: ClientId, bytes: usize) {
        self.connection_mut(client).window = bytes;
        self.announce_room(client);
    }

    /// Half-closes: sends FIN, and goes on receiving.
    pub fn client_shutdown(&mut self, client: ClientId) {
        if !std::mem::replace(&mut self.connection_mut(client).client_shut, true) {
            self.post(client, Segment::Fin);
            self.deliver_due();
        }
    }

    /// Closes: with FIN, or with RST when it has not received all there is. What it is sent later draws a RST.
    pub fn client_close(&mut self, client: ClientId) {
        if self.connection(client).outbound.is_empty() {
            self.client_shutdown(client);
            self.connection_mut(client).client_gone = true;
        } else {
            self.client_reset(client);
        }
    }

    /// Closes with RST.
    pub fn client_reset(&mut self, client: ClientId) {
        let connection = self.connection_mut(client);
        connection.client_shut = true;
        connection.lose_output();
        if !std::mem::replace(&mut connection.client_gone, true) {
            self.post(client, Segment::Reset);
            self.deliver_due();
        }
    }

    /// How the loop ended the stream. The client's own doings do not show here.
    pub fn client_saw(&self, client: ClientId) -> End {
        self.connection(client).end
    }

    /// Streams that the loop tries to open to `address`. They hang until one of the next two answers.
    pub fn connects_pending(&self, address: SocketAddr) -> usize {
        self.connecting.iter().filter(|&&(to, _)| to == address).count()
    }

    /// Lets the oldest attempt to connect to `address` succeed.
    pub fn accept_connect(&mut self, address: SocketAddr) -> Option<ClientId> {
        let client = self.take_connect(address)?;
        if let Side::Connecting(file) = self.connection(client).side {
            self.connection_mut(client).side = Side::Open(file);
            self.wake(file);
        }
        Some(client)
    }

    /// Makes the oldest attempt to connect to `address` fail with ECONNREFUSED. False when there is none.
    pub fn refuse_connect(&mut self, address: SocketAddr) -> bool {
        let Some(client) = self.take_connect(address) else { return false };
        if let Side::Connecting(file) = self.connection(client).side {
            let connection = self.connection_mut(client);
            connection.side = Side::Open(file);
            connection.client_gone = true;
            connection.refuse();
            self.wake(file);
        }
        true
    }

    fn take_connect(&mut self, address: SocketAddr) -> Option<ClientId> {
        let index = self.connecting.iter().position(|&(to, _)| to == address)?;
        Some(self.connecting.remove(index).1)
    }
}

impl SimNet {
    pub(super) fn new_connection(&mut self, peer: SocketAddr, side: Side) -> ClientId {
        let window = self.random.usize(self.faults.window.clone());
        self.connections.push(SimConnection::new(peer, side, window));
        ClientId(self.connections.len() as u32 - 1)
    }

    /// Sends a segment on its way, behind those of the same client.
    pub(super) fn post(&mut self, client: ClientId, segment: Segment) {
        // Every other one comes together with the one before, so that one event has to tell of both.
        let together = self.random.bool();
        let delay = if together { 0 } else { self.random.u64(0..=self.faults.delay_max.as_nanos() as u64) };
        let last = self.connection(client).last_arrival.max(self.now);
        // However much a client sends at once, the end of it is not minutes away.
        let is_far = last.since(self.now) > DELAYS_MAX * self.faults.delay_max;
        let at = last + if is_far { Duration::ZERO } else { Duration::from_nanos(delay) };
        self.connection_mut(client).last_arrival = at;
        self.segments_sent += 1;
        self.arrivals.insert((at, self.segments_sent), (client, segment));
    }

    /// Whatever is due by now arrives.
    pub(super) fn deliver_due(&mut self) {
        while let Some(first) = self.arrivals.first_entry()
            && first.key().0 <= self.now
        {
            let (client, segment) = first.remove();
            let (what, amount) = segment.described();
            self.note(what, client.0, amount);
            if self.connection_mut(client).arrive(segment) {
                self.wake_client_file(client);
            }
        }
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.f64() < probability
    }
}

/// Datagrams: their far side.
impl SimNet {
    /// Sends a datagram to a socket of the loop. False when it did not get there: lost, queue full, nobody bound.
    pub fn send_datagram(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= payload_max(to), "no datagram carries {} bytes", bytes.len());
        let lost = self.chance(self.faults.datagram_lost);
        let (overtakes, twice) =
            (self.chance(self.faults.datagram_reordered), self.chance(self.faults.datagram_duplicated));
        let limit = self.faults.datagram_queue;
        let file = find(&self.sockets, to).filter(|_| !lost);
        let waiting = file.map_or(limit, |file| self.datagrams_of(file).len());
        let Some(file) = file.filter(|_| waiting < limit) else {
            self.datagrams_dropped += 1;
            self.note("datagram lost", from.port(), bytes.len() as i64);
            return false;
        };
        let place = if overtakes { self.random.usize(..=waiting) } else { waiting };
        let queue = self.datagrams_of(file);
        queue.insert(place, (from, bytes.into()));
        if twice && queue.len() < limit {
            queue.push_back((from, bytes.into()));
        }
        self.wake(file);
        self.trace.mix_bytes(bytes);
        self.note("datagram in", from.port(), bytes.len() as i64);
        true
    }

    /// What the loop has sent to `at` since the last call: sender and bytes.
    pub fn datagrams_received(&mut self, at: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.mailboxes.remove(&at).unwrap_or_default()
    }

    /// Datagrams to the loop that did not get there.
    pub fn datagrams_dropped(&self) -> u64 {
        self.datagrams_dropped
    }

    /// One datagram of the loop goes out: to another of its sockets, or to the far side.
    pub(super) fn send_one(&mut self, from: SocketAddr, to: Option<SocketAddr>, bytes: &[u8]) -> io::Result<()> {
        // EINVAL for port 0 and for what is no address at all, as udp_sendmsg has it.
        let to = to.filter(|to| to.port() != 0).ok_or_else(|| os_error(errno::EINVAL))?;
        // Sockets of IPv6 are for IPv6 only here, which udpv6_sendmsg tells in its own way.
        match (from.is_ipv4(), to.is_ipv4()) {
            (true, false) => return Err(os_error(errno::EAFNOSUPPORT)),
            (false, true) => return Err(os_error(errno::ENETUNREACH)),
            _ => {}
        }
        if bytes.len() > payload_max(to) {
            return Err(os_error(errno::EMSGSIZE));
        }
        if self.chance(self.faults.send_would_block) {
            return Err(os_error(errno::EAGAIN));
        }
        self.trace.mix_bytes(bytes);
        self.note("datagram out", to.port(), bytes.len() as i64);
        if find(&self.sockets, to).is_some() {
            self.send_datagram(to, from, bytes);
        } else {
            self.mailboxes.entry(to).or_default().push((from, bytes.into()));
        }
        Ok(())
    }
}

/// The machine: what fails, and what was asked of it.
impl SimNet {
    /// What was last asked for listeners.
    pub fn socket_options(&self) -> SocketOptions {
        self.socket_options
    }

    /// The next `count` accepts fail. ECONNABORTED takes the connection in question with it; with others it waits on.
    pub fn fail_accepts(&mut self, errno: i32, count: usize) {
        self.accept_errors.extend(repeat_n(errno, count));
    }

    /// Accepts work again, whatever was still to fail.
    pub fn succeed_in_accepts(&mut self) {
        self.accept_errors.clear();
    }

    pub fn fail_receives(&mut self, errno: i32, count: usize) {
        self.receive_errors.extend(repeat_n(errno, count));
    }

    /// The next `count` datagrams that the loop sends fail; EAGAIN is a full send buffer.
    pub fn fail_sends(&mut self, errno: i32, count: usize) {
        self.send_errors.extend(repeat_n(errno, count));
    }
}

/// The delays of segments that follow each other add up to about so many times the longest.
const DELAYS_MAX: u32 = 20;

/// Clients come from these ports, of as many hosts as it takes.
const CLIENT_PORTS: RangeInclusive<u16> = 1024..=61_023;

/// Largest datagram to this address: 65,535 bytes less the headers, of which IPv6 does not count its own.
fn payload_max(to: SocketAddr) -> usize {
    if to.is_ipv4() { DATAGRAM_MAX - 20 } else { DATAGRAM_MAX }
}

//! The far side of the simulated network: the actions of clients and peers, and the way of their
//! segments and datagrams to the loop.

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

/// Clients, the far side of streams. A client stays known after the loop has closed or reset its
/// stream.
impl SimNet {
    /// Connects to a listener of the loop. Returns `None` when no listener has this address or its
    /// accept queue is full.
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
            // Linux queues one connection more than the backlog (sk_acceptq_is_full).
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

    /// Returns the number of connections that wait to be accepted.
    pub fn accept_queue_len(&self, listener: SocketAddr) -> usize {
        match find(&self.listeners, listener).map(|file| &self.file(file).kind) {
            Some(FileKind::Listener { queue, .. }) => queue.len(),
            _ => 0,
        }
    }

    /// Returns the number of clients that entered an accept queue.
    pub fn clients_queued(&self) -> u64 {
        self.clients_queued
    }

    /// Returns the number of queued clients that were lost with a failed accept.
    pub fn accepts_lost(&self) -> u64 {
        self.accepts_lost
    }

    /// Returns the number of clients that found the accept queue full or no listener.
    pub fn clients_refused(&self) -> u64 {
        self.clients_refused
    }

    /// Returns the address from which the client has connected.
    pub fn client_address(&self, client: ClientId) -> SocketAddr {
        self.connection(client).peer
    }

    /// Sends all bytes at once, without regard to unread bytes at the loop. Returns false when the
    /// client has shut its side or seen a reset.
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

    /// Receives all bytes that wait for the client.
    pub fn client_received(&mut self, client: ClientId) -> Vec<u8> {
        self.client_take(client, usize::MAX)
    }

    /// True if the client has received every byte that has arrived so far.
    pub fn client_has_taken_all(&self, client: ClientId) -> bool {
        self.connection(client).outbound.is_empty()
    }

    /// True when the loop has accepted the connection and nothing from the client is still under
    /// way.
    pub fn has_arrived(&self, client: ClientId) -> bool {
        let connection = self.connection(client);
        connection.last_arrival <= self.now && matches!(connection.side, Side::Open(_))
    }

    /// True while the loop holds its side of the stream, or has not accepted it yet.
    pub fn is_served(&self, client: ClientId) -> bool {
        !matches!(self.connection(client).side, Side::Closed)
    }

    /// Receives at most `most` bytes, as a slow reader does. The bytes it leaves fill its window.
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
            // The stream reaches FIN_WAIT2 or TCP_CLOSE, which wakes the poller
            // (tcp_rcv_state_process).
            self.wake_client_file(client);
        }
        bytes
    }

    /// Limits the bytes that the loop may have under way to this client. 0 stops all of them.
    pub fn set_window(&mut self, client: ClientId, bytes: usize) {
        self.connection_mut(client).window = bytes;
        self.announce_room(client);
    }

    /// Half-closes the stream: the client sends FIN and goes on receiving.
    pub fn client_shutdown(&mut self, client: ClientId) {
        if !std::mem::replace(&mut self.connection_mut(client).client_shut, true) {
            self.post(client, Segment::Fin);
            self.deliver_due();
        }
    }

    /// Closes the stream with FIN, or with RST if bytes wait unreceived. Bytes that the loop sends
    /// later draw a RST.
    pub fn client_close(&mut self, client: ClientId) {
        if self.connection(client).outbound.is_empty() {
            self.client_shutdown(client);
            self.connection_mut(client).client_gone = true;
        } else {
            self.client_reset(client);
        }
    }

    /// Closes the stream with RST.
    pub fn client_reset(&mut self, client: ClientId) {
        let connection = self.connection_mut(client);
        connection.client_shut = true;
        connection.lose_output();
        if !std::mem::replace(&mut connection.client_gone, true) {
            self.post(client, Segment::Reset);
            self.deliver_due();
        }
    }

    /// Returns how the loop ended the stream. The client's own FIN or RST does not show here.
    pub fn client_saw(&self, client: ClientId) -> End {
        self.connection(client).end
    }

    /// Returns the number of connection attempts of the loop to `address` that have no answer. They
    /// hang until [`Self::accept_connect`] or [`Self::refuse_connect`] answers them.
    pub fn connects_pending(&self, address: SocketAddr) -> usize {
        self.connecting.iter().filter(|&&(to, _)| to == address).count()
    }

    /// Accepts the loop's oldest connection attempt to `address`. Returns `None` when there is
    /// none.
    pub fn accept_connect(&mut self, address: SocketAddr) -> Option<ClientId> {
        let client = self.connects_to(address)?;
        self.answer_arrives(client, true);
        Some(client)
    }

    /// Refuses the loop's oldest connection attempt to `address` (ECONNREFUSED). Returns false when
    /// there is none.
    pub fn refuse_connect(&mut self, address: SocketAddr) -> bool {
        let client = self.connects_to(address);
        client.and_then(|client| self.answer_arrives(client, false)).is_some()
    }

    fn connects_to(&self, address: SocketAddr) -> Option<ClientId> {
        self.connecting.iter().find(|&&(to, _)| to == address).map(|&(_, client)| client)
    }
}

impl SimNet {
    pub(super) fn new_connection(&mut self, peer: SocketAddr, side: Side) -> ClientId {
        let window = self.random.usize(self.faults.window.clone());
        self.connections.push(SimConnection::new(peer, side, window));
        ClientId(self.connections.len() as u32 - 1)
    }

    /// Sends a segment on its way, behind the client's earlier ones.
    pub(super) fn post(&mut self, client: ClientId, segment: Segment) {
        // Every other segment arrives together with the previous one, so one event reports both.
        let together = self.random.bool();
        let delay =
            if together { 0 } else { self.random.u64(0..=self.faults.delay_max.as_nanos() as u64) };
        let last = self.connection(client).last_arrival.max(self.now);
        // The delays of a large send must not add up to minutes.
        let is_far = last.since(self.now) > DELAYS_MAX * self.faults.delay_max;
        let at = last + if is_far { Duration::ZERO } else { Duration::from_nanos(delay) };
        self.connection_mut(client).last_arrival = at;
        self.segments_sent += 1;
        self.arrivals.insert((at, self.segments_sent), (client, segment));
    }

    /// Lets every segment arrive that is due.
    pub(super) fn deliver_due(&mut self) {
        while let Some(first) = self.arrivals.first_entry()
            && first.key().0 <= self.now
        {
            let (client, segment) = first.remove();
            let (what, amount) = segment.described();
            self.note(what, client.0, amount);
            if let Segment::Answer(accepts) = segment {
                self.dial_is_answered(client, accepts);
            } else if self.connection_mut(client).arrive(segment) {
                self.wake_client_file(client);
            }
        }
        self.answer_look_ups();
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.f64() < probability
    }
}

/// The far side of datagrams.
impl SimNet {
    /// Sends a datagram to a socket of the loop. Returns false when it was lost, when the queue was
    /// full, or when no socket has this address.
    pub fn send_datagram(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= payload_max(to), "no datagram carries {} bytes", bytes.len());
        let lost = self.chance(self.faults.datagram_lost);
        let (overtakes, twice) = (
            self.chance(self.faults.datagram_reordered),
            self.chance(self.faults.datagram_duplicated),
        );
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

    /// Returns the datagrams that the loop has sent to `at` since the last call, each with its
    /// sender.
    pub fn datagrams_received(&mut self, at: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        self.mailboxes.remove(&at).unwrap_or_default()
    }

    /// Returns the number of datagrams to the loop that did not arrive.
    pub fn datagrams_dropped(&self) -> u64 {
        self.datagrams_dropped
    }

    /// Sends one datagram of the loop to another of its sockets or to the far side.
    pub(super) fn send_one(
        &mut self,
        from: SocketAddr,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        // udp_sendmsg returns EINVAL for port 0 and for an invalid address.
        let to = to.filter(|to| to.port() != 0).ok_or_else(|| os_error(errno::EINVAL))?;
        // The loop's IPv6 sockets are IPv6-only, so udpv6_sendmsg returns ENETUNREACH.
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

/// The machine: ordered failures, and the requested socket options.
impl SimNet {
    /// Returns the options that the loop last requested for a listener.
    pub fn socket_options(&self) -> SocketOptions {
        self.socket_options
    }

    /// Makes the next `count` accepts fail. With ECONNABORTED or ENOSPC the connection is lost.
    /// With other errors it stays in the queue.
    pub fn fail_accepts(&mut self, errno: i32, count: usize) {
        self.accept_errors.extend(repeat_n(errno, count));
    }

    /// Cancels the failures ordered by [`Self::fail_accepts`].
    pub fn succeed_in_accepts(&mut self) {
        self.accept_errors.clear();
    }

    /// Makes the next `count` receives of datagrams fail.
    pub fn fail_receives(&mut self, errno: i32, count: usize) {
        self.receive_errors.extend(repeat_n(errno, count));
    }

    /// Makes the next `count` datagrams of the loop fail. EAGAIN stands for a full send buffer.
    pub fn fail_sends(&mut self, errno: i32, count: usize) {
        self.send_errors.extend(repeat_n(errno, count));
    }
}

/// Maximum sum of the delays of consecutive segments, as a multiple of the longest delay.
const DELAYS_MAX: u32 = 20;

/// The ports of clients. When one host has used them all, the next host follows.
const CLIENT_PORTS: RangeInclusive<u16> = 1024..=61_023;

/// Returns the largest payload to this address: 65,535 bytes less the headers. The length field of
/// IPv6 does not include its own header.
fn payload_max(to: SocketAddr) -> usize {
    if to.is_ipv4() { DATAGRAM_MAX - 20 } else { DATAGRAM_MAX }
}

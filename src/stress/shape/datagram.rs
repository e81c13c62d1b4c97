//! `ping` over UDP: numbered datagrams from several sockets, each answered or lost.
//!
//! The sockets are not connected, so each may have its own source address. The kernel does not
//! report a closed port to an unconnected socket (udp(7)). So a datagram to a closed port counts as
//! lost after the timeout, like any other that gets no answer.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Shape;
use crate::clock::Time;
use crate::net::Net;
use crate::stress::answer::WRONG;
use crate::stress::meter::reason;
use crate::stress::pace::{Next, Pace, earliest};
use crate::stress::plan::{NUMBER_DIGITS, Plan};
use crate::stress::record::Record;
use crate::stress::wire::{is_error_reply, payload};
use crate::stress::world::World;
use crate::sys::DatagramBatch;
use crate::token::Token;

/// Placeholder of the number in `--send`. The answer must contain the number.
const NUMBER: &str = "{seq}";

/// Maximum number of batches that one socket receives in a turn.
const BATCHES_PER_TURN: usize = 16;

/// The shape `ping` for a target of udp://.
pub struct DatagramPing<N: Net> {
    plan: Plan,
    sockets: Vec<N::Socket>,
    batch: DatagramBatch,
    /// Bytes before and after the number.
    around: (Vec<u8>, Vec<u8>),
    /// Datagrams from number `first` on: the moment each was due; `None` once it is answered.
    pending: VecDeque<Option<Time>>,
    first: u64,
    unanswered: u64,
    pace: Option<Pace>,
    until: Option<Time>,
    left: Option<u64>,
    next_socket: usize,
    /// Sockets that stopped at their budget. No new event will come for them.
    unfinished: Vec<u8>,
}

impl<N: Net> DatagramPing<N> {
    pub fn new(plan: &Plan) -> DatagramPing<N> {
        let around = match plan
            .send
            .as_deref()
            .map(|text| (text, memchr::memmem::find(text, NUMBER.as_bytes())))
        {
            Some((text, Some(at))) => (text[..at].to_vec(), text[at + NUMBER.len()..].to_vec()),
            Some((text, None)) => (text.to_vec(), Vec::new()),
            None => (
                Vec::new(),
                [payload(plan.size.saturating_sub(NUMBER_DIGITS + 1)), b"\n".to_vec()].concat(),
            ),
        };
        DatagramPing {
            sockets: Vec::new(),
            batch: DatagramBatch::new(),
            around,
            pending: VecDeque::new(),
            first: 1,
            unanswered: 0,
            pace: None,
            until: None,
            left: plan.requests,
            next_socket: 0,
            unfinished: Vec::new(),
            plan: plan.clone(),
        }
    }

    fn begin(&mut self, world: &mut World<N>) {
        let any: IpAddr = match world.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        for index in 0..self.plan.connections {
            let sources = &self.plan.sources;
            let source = sources.get(index % sources.len().max(1)).copied().unwrap_or(any);
            match world.net.bind(SocketAddr::new(source, 0), Token::socket(index as u8)) {
                Ok(socket) => self.sockets.push(socket),
                Err(error) => world.meter.fail(&reason(&error)),
            }
        }
        let meter = &mut world.meter;
        meter.opened = self.sockets.len() as u64;
        meter.open = meter.opened;
        meter.open_at_peak = meter.opened;
        meter.begin_load(world.now);
        self.pace = self
            .plan
            .rate
            .map(|rate| Pace::new(rate, self.plan.arrivals, self.plan.seed, world.now));
        self.until = Some(world.now + self.plan.duration);
    }

    /// Sends the datagrams that are due in one batch, from the next socket.
    fn send_due(&mut self, world: &mut World<N>) -> Next {
        let window = (self.sockets.len() * self.plan.pipeline) as u64;
        self.batch.clear();
        let batch_first = self.first + self.pending.len() as u64;
        let mut next = Next::At(world.now);
        let mut text = Vec::new();
        while self.left != Some(0) {
            let due = match &mut self.pace {
                Some(pace) if pace.next() > world.now || Some(pace.next()) >= self.until => {
                    next = Next::At(pace.next());
                    break;
                }
                None if self.unanswered >= window || Some(world.now) >= self.until => {
                    next = Next::OnEvent;
                    break;
                }
                pace => pace.as_ref().map_or(world.now, Pace::next),
            };
            text.clear();
            text.extend_from_slice(&self.around.0);
            let number = self.first + self.pending.len() as u64;
            text.extend_from_slice(format!("{number:016x}").as_bytes());
            text.extend_from_slice(&self.around.1);
            if !self.batch.queue(world.address, &text) {
                break;
            }
            if let Some(pace) = &mut self.pace {
                pace.take();
            }
            self.left = self.left.map(|left| left - 1);
            self.pending.push_back(Some(due));
            self.unanswered += 1;
            world.meter.sent += 1;
            world.meter.bytes_out += text.len() as u64;
        }
        if self.left == Some(0) {
            next = Next::OnEvent;
        }
        if !self.batch.is_empty() {
            self.next_socket = (self.next_socket + 1) % self.sockets.len();
            self.send_batch(world, batch_first);
        }
        next
    }

    /// Sends the batch, whose numbers begin with `batch_first`. A datagram that the kernel refuses
    /// counts as failed at once.
    fn send_batch(&mut self, world: &mut World<N>, batch_first: u64) {
        let mut sent = 0;
        while sent < self.batch.answers_len() {
            match world.net.send(&self.sockets[self.next_socket], &mut self.batch, sent) {
                Ok(count) => sent += count.max(1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let why = match error.kind() {
                        io::ErrorKind::WouldBlock => "no room in the socket's buffer".into(),
                        _ => reason(&error),
                    };
                    self.fail(world, batch_first + sent as u64, &format!("send: {why}"));
                    sent += 1;
                }
            }
        }
    }

    /// Counts a datagram as failed, with the time since it was due.
    fn fail(&mut self, world: &mut World<N>, number: u64, kind: &str) {
        let index = number.wrapping_sub(self.first) as usize;
        if let Some(due) = self.pending.get_mut(index).and_then(Option::take) {
            self.unanswered -= 1;
            world.meter.latency.record(world.now.since(due), 1);
            world.meter.error(kind, 1);
            self.forget_answered();
        }
    }

    /// At a rate, counts the datagrams that were due by the end and were never sent.
    fn charge_unsent(&mut self, world: &mut World<N>, until: Time) {
        let Some(pace) = &self.pace else { return };
        let unsent = pace.due_before(until).min(self.left.unwrap_or(u64::MAX));
        world.meter.charge_unsent(pace.next(), until, unsent, world.now);
    }

    /// Receives from one socket within its budget.
    fn receive(&mut self, world: &mut World<N>, socket: u8) {
        for _ in 0..BATCHES_PER_TURN {
            let Some(handle) = self.sockets.get(socket as usize) else { return };
            let count = match world.net.receive(handle, &mut self.batch) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    world.meter.error(&format!("receive: {}", reason(&error)), 1);
                    continue;
                }
            };
            let numbers: Vec<(Option<u64>, bool)> = (0..count)
                .map(|index| {
                    let (datagram, _) = self.batch.exchange(index);
                    world.meter.bytes_in += datagram.len() as u64;
                    let is_error = is_error_reply(datagram) && !is_error_reply(&self.around.0);
                    if is_error {
                        world.meter.keep_refusal(datagram);
                    }
                    (number_in(datagram, &self.around.0), is_error)
                })
                .collect();
            for number in numbers {
                match number {
                    (Some(number), false) => self.answered(world, number),
                    (Some(number), true) => self.refused(world, number),
                    (None, true) => world.meter.error("error reply", 1),
                    (None, false) => world.meter.error(WRONG, 1),
                }
            }
        }
        if !self.unfinished.contains(&socket) {
            self.unfinished.push(socket);
        }
    }

    fn answered(&mut self, world: &mut World<N>, number: u64) {
        let index = number.wrapping_sub(self.first) as usize;
        let Some(due) = self.pending.get_mut(index).and_then(Option::take) else {
            return world.meter.error("duplicate or late", 1);
        };
        self.unanswered -= 1;
        world.meter.answered += 1;
        world.meter.latency.record(world.now.since(due), 1);
        self.forget_answered();
    }

    /// Counts a datagram that got an error reply.
    fn refused(&mut self, world: &mut World<N>, number: u64) {
        world.meter.error("error reply", 1);
        let index = number.wrapping_sub(self.first) as usize;
        if self.pending.get_mut(index).and_then(Option::take).is_some() {
            self.unanswered -= 1;
            self.forget_answered();
        }
    }

    /// Returns now if a socket has more to receive.
    fn receiving(&self, world: &World<N>) -> Next {
        if self.unfinished.is_empty() { Next::OnEvent } else { Next::At(world.now) }
    }

    fn forget_answered(&mut self) {
        while self.pending.front().is_some_and(Option::is_none) {
            self.pending.pop_front();
            self.first += 1;
        }
    }

    /// Counts datagrams older than the timeout as lost, and returns when the next one expires.
    fn expire(&mut self, world: &mut World<N>) -> Next {
        while let Some(Some(due)) = self.pending.front() {
            let gives_up = *due + self.plan.timeout;
            if gives_up > world.now {
                return Next::At(gives_up);
            }
            self.fail(world, self.first, "lost");
        }
        Next::OnEvent
    }
}

impl<N: Net> Shape<N> for DatagramPing<N> {
    fn act(&mut self, world: &mut World<N>) -> Next {
        if self.until.is_none() {
            self.begin(world);
        }
        let until = self.until.unwrap_or(world.now);
        if self.sockets.is_empty() {
            return Next::Done;
        }
        for socket in std::mem::take(&mut self.unfinished) {
            self.receive(world, socket);
        }
        let expiring = self.expire(world);
        // A datagram that is due before the end leaves although this turn may be late.
        let sending = match world.meter.load_ended {
            None => self.send_due(world),
            Some(_) => Next::OnEvent,
        };
        let is_asked = self.left == Some(0) && self.unanswered == 0;
        if (world.now >= until || is_asked) && world.meter.load_ended.is_none() {
            self.charge_unsent(world, until);
            world.meter.end_load(world.now);
        }
        if world.meter.load_ended.is_some() {
            let is_late = world.now >= until + self.plan.timeout + Duration::from_millis(100);
            return if self.unanswered == 0 || is_late {
                Next::Done
            } else {
                earliest([
                    self.receiving(world),
                    expiring,
                    Next::At(until + self.plan.timeout + Duration::from_millis(100)),
                ])
            };
        }
        earliest([sending, self.receiving(world), expiring, Next::At(until)])
    }

    fn datagrams(&mut self, world: &mut World<N>, socket: u8) {
        self.receive(world, socket);
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        if world.meter.answered == 0 && world.meter.sent > 0 {
            record.notes.push(
                "no datagram was answered; over UDP a closed port looks like lost datagrams".into(),
            );
        }
    }

    fn opened(&mut self, _world: &mut World<N>, _slot: u32) {}

    fn ended(&mut self, _world: &mut World<N>, _slot: u32) {}
}

/// Returns the number in an answer: the first run of 16 hexadecimal digits. If the answer begins
/// with the bytes before the number, the search begins after them.
fn number_in(datagram: &[u8], before: &[u8]) -> Option<u64> {
    let rest = datagram.strip_prefix(before).unwrap_or(datagram);
    let digits =
        rest.windows(NUMBER_DIGITS).find(|window| window.iter().all(u8::is_ascii_hexdigit))?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_in_an_answer_is_found() {
        assert_eq!(number_in(b"00000000000000ffabc\n", b""), Some(255));
        assert_eq!(number_in(b"$16\r\n0000000000000010\r\n", b"PING "), Some(16));
        assert_eq!(number_in(b"PING 0000000000000010", b"PING "), Some(16));
        assert_eq!(number_in(b"00000000000000f", b""), None);
        assert_eq!(number_in(b"", b""), None);
    }
}

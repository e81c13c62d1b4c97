//! One connection: its state, its deadlines, and its end. Every state transition is in this file.
//!
//! ```text
//!            first message            part of one            rest of it
//!   Silent ───────────────► Open ───────────────► Partial ───────────────► Open
//!      │                      │                      │
//!      └──────────┬───────────┴──────────────────────┘
//!                 ▼ the peer half-closed, the service is done, a drain, an error to tell
//!              Closing ──► Lingering ──► Closed      (Lingering only where input was left unread)
//! ```
//!
//! From every state a timeout, a reset or an error leads to `Closed` directly.

mod reason;

use crate::buffer::BufferId;
use crate::clock::Tick;
use crate::limits::{Limits, UNTRUSTED_OUTPUT_MAX};
use crate::net::Ready;
use crate::sources::SourceId;
use crate::token::Generation;

pub use reason::{Farewell, Reason};

/// Where a connection stands. Each arm says what has happened, what may come, and which deadline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted; has not completed a message yet, though part of one may be here. Deadline: first message.
    Silent,
    /// Has completed a message and holds no part of another. Deadline: idle.
    Open,
    /// Has sent part of a message. Deadline: message, from its first byte.
    Partial,
    /// The message at the front of its input waits for its service, which says when to go on. It is
    /// not read meanwhile, and no deadline for input runs.
    Waiting,
    /// Is read no more; what it is owed is still being sent. Deadline: close.
    Closing(Reason),
    /// All is sent and our side is shut, but input was left unread. Closing now would make the kernel
    /// send a reset, and a reset destroys what the peer has not read yet; so input is read and dropped until
    /// the peer closes. Deadline: close, still running from when `Closing` began.
    Lingering(Reason),
    /// Over. Waits for the end of the turn to be reaped; nothing else may happen to it.
    Closed(Reason),
}

impl State {
    /// The states that outlast a turn.
    pub const NAMES: [&'static str; 6] = ["silent", "open", "partial", "waiting", "closing", "lingering"];

    /// The place among [`State::NAMES`]; after them when closed.
    pub fn index(self) -> usize {
        match self {
            State::Silent => 0,
            State::Open => 1,
            State::Partial => 2,
            State::Waiting => 3,
            State::Closing(_) => 4,
            State::Lingering(_) => 5,
            State::Closed(_) => 6,
        }
    }
}

/// Services that there can be at a time: the index has three bits.
pub const SERVICES_MAX: usize = 1 << (u16::BITS - Flags::SERVICE_SHIFT);

/// Facts about a connection that combine freely with its state.
#[derive(Clone, Copy, Default)]
pub struct Flags(u16);

impl Flags {
    /// The kernel may hold input that no further edge will announce.
    pub const READABLE: Flags = Flags(1);
    /// A short read does not mean drained ([`Ready::read_on`]).
    pub const READ_ON: Flags = Flags(1 << 1);
    /// On the list of connections to serve.
    pub const QUEUED: Flags = Flags(1 << 2);
    /// The input buffer may hold a complete message: decoding stopped at a budget.
    pub const UNDECODED: Flags = Flags(1 << 3);
    /// Not read because too much output is unsent.
    pub const PAUSED: Flags = Flags(1 << 4);
    /// The last write was short: the kernel will announce room for more.
    pub const BLOCKED: Flags = Flags(1 << 5);
    /// The kernel has been asked to announce room for output; that is asked once.
    pub const WATCHES_WRITABLE: Flags = Flags(1 << 6);
    /// The server is draining: what has arrived is answered, then the connection closes.
    pub const DRAINING: Flags = Flags(1 << 7);
    /// Output of this turn lies in the outbox, on the flush list. More of it goes to the connection's buffer, behind.
    pub const IN_OUTBOX: Flags = Flags(1 << 8);
    /// Has yet to give its password: less is read of it and owed to it.
    pub const UNTRUSTED: Flags = Flags(1 << 9);
    /// More output is unsent than the soft limit allows for long.
    pub const OVER_SOFT_LIMIT: Flags = Flags(1 << 10);

    /// In the silent set: see [`admission`](crate::admission).
    pub const SILENT: Flags = Flags(1 << 11);

    /// Has been told why it is closed, which a reset could destroy.
    pub const TOLD: Flags = Flags(1 << 12);

    /// The bits above these hold the index of the service it speaks with.
    const SERVICE_SHIFT: u32 = 13;

    pub fn of_service(index: u8) -> Flags {
        Flags(u16::from(index) << Flags::SERVICE_SHIFT)
    }

    pub fn service(self) -> u8 {
        (self.0 >> Flags::SERVICE_SHIFT) as u8
    }

    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }

    pub fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }

    pub fn put(&mut self, flag: Flags, on: bool) {
        if on { self.set(flag) } else { self.clear(flag) }
    }
}

/// What to do with a connection once everything owed to it has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    GoOn,
    /// Shut our side, then read and drop input until the peer closes.
    ShutAndLinger,
    Close(Reason),
}

/// The timeouts of [`Limits`] in ticks; 0 means never. Computed once, read at every transition.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    first_message: u32,
    message: u32,
    idle: u32,
    output: u32,
    output_soft: u32,
    close: u32,
}

impl Timeouts {
    pub fn new(limits: &Limits) -> Timeouts {
        let ticks = |timeout: std::time::Duration| if timeout.is_zero() { 0 } else { Tick::count(timeout) };
        Timeouts {
            first_message: ticks(limits.first_message_timeout),
            message: ticks(limits.message_timeout),
            idle: ticks(limits.idle_timeout),
            output: ticks(limits.output_timeout),
            output_soft: ticks(limits.output_soft_time),
            close: ticks(limits.close_timeout),
        }
    }

    /// Between complete messages, in ticks.
    pub fn idle(&self) -> u32 {
        self.idle
    }
}

/// A slab entry: half a cache line. `S` is the network's stream, four bytes for a real one.
pub struct Connection<S> {
    pub stream: S,
    pub generation: Generation,
    /// Part of a message, or messages that a budget left for the next turn.
    pub input: Option<BufferId>,
    /// What the peer was too slow to take.
    pub output: Option<BufferId>,
    /// When the wait began that the state's deadline limits.
    since: Tick,
    /// When the peer last took some of its output, or began to be owed it; meaningful while `BLOCKED`.
    blocked_since: Tick,
    state: State,
    pub flags: Flags,
    /// Where it comes from.
    pub source: SourceId,
    /// When its unsent output passed the soft limit, in units of [`COARSE_TICKS`], rounded up; meaningful while `OVER_SOFT_LIMIT`.
    over_soft_since: u16,
}

/// Ticks in the unit of a time stamp that only needs two bytes: about a second.
const COARSE_TICKS: u32 = 64;

impl<S> Connection<S> {
    pub fn new(stream: S, generation: Generation, service: u8, source: SourceId, now: Tick) -> Connection<S> {
        Connection {
            stream,
            generation,
            input: None,
            output: None,
            since: now,
            blocked_since: now,
            state: State::Silent,
            flags: Flags::of_service(service),
            source,
            over_soft_since: 0,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Whether input is still wanted, be it only to be dropped.
    pub fn reads(&self) -> bool {
        matches!(self.state, State::Silent | State::Open | State::Partial | State::Lingering(_))
    }

    /// Whether messages are still taken.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, State::Silent | State::Open | State::Partial | State::Waiting)
    }

    /// Whether its service lets it wait.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Whether it has completed a message.
    pub fn has_spoken(&self) -> bool {
        matches!(self.state, State::Open | State::Partial | State::Waiting)
    }

    /// The reason it is closing or closed for.
    pub fn reason(&self) -> Option<Reason> {
        match self.state {
            State::Closing(reason) | State::Lingering(reason) | State::Closed(reason) => Some(reason),
            State::Silent | State::Open | State::Partial | State::Waiting => None,
        }
    }

    /// When the wait began that its deadline limits: for an open connection, its last message.
    pub fn waits_since(&self) -> Tick {
        self.since
    }

    /// Input was decoded: `complete` messages, and whether part of another is left. True when the deadline
    /// may have come nearer, so that the timer must be looked at.
    pub fn received(&mut self, complete: usize, partial: bool, now: Tick) -> bool {
        let before = self.state;
        self.state = match (before, complete, partial) {
            (State::Waiting | State::Closing(_) | State::Lingering(_) | State::Closed(_), ..) => return false,
            (State::Silent, 0, _) => State::Silent,
            (_, _, true) => State::Partial,
            (_, _, false) => State::Open,
        };
        // A complete message starts a new wait, and so does the first byte of one; more bytes of a part do not.
        if complete > 0 || self.state != before {
            self.since = now;
        }
        self.state != before
    }

    /// The next message must wait for the service.
    pub fn wait_for_service(&mut self) {
        if self.is_serving() {
            self.state = State::Waiting;
            self.flags.set(Flags::UNDECODED);
        }
    }

    /// The service goes on with it. False: it did not wait.
    pub fn go_on(&mut self, now: Tick) -> bool {
        let waited = self.is_waiting();
        if waited {
            self.state = State::Partial;
            self.since = now;
        }
        waited
    }

    /// Nothing more is read for messages, and what is held will not be decoded; what is owed goes out first. Keeps the reason of the first
    /// call.
    pub fn begin_closing(&mut self, reason: Reason, now: Tick) {
        if self.is_serving() {
            self.state = State::Closing(reason);
            // There is nothing to read any more, so nothing that could be put off.
            self.flags.clear(Flags::UNDECODED);
            self.flags.clear(Flags::PAUSED);
            self.since = now;
        }
    }

    /// All that was owed is with the kernel: what comes next?
    pub fn all_sent(&mut self) -> Sent {
        match self.state {
            State::Closing(reason) if reason.leaves_input_unread() => {
                self.state = State::Lingering(reason);
                Sent::ShutAndLinger
            }
            State::Closing(reason) => Sent::Close(reason),
            _ => Sent::GoOn,
        }
    }

    /// The end, from any state. True the first time.
    pub fn close(&mut self, reason: Reason) -> bool {
        let first = !matches!(self.state, State::Closed(_));
        if first {
            self.state = State::Closed(reason);
        }
        first
    }

    /// The peer has given its password, or given it up; so much of its output is unsent.
    pub fn change_trust(&mut self, trusted: bool, unsent: usize) {
        // Who gives it up may be owed more than strangers may: that was asked for when it was known, and is no reason to close it.
        self.flags.put(Flags::UNTRUSTED, !trusted && unsent <= UNTRUSTED_OUTPUT_MAX);
    }

    /// The kernel reported an edge.
    pub fn note_ready(&mut self, event: &Ready) {
        if event.readable {
            self.flags.set(Flags::READABLE);
        }
        if event.read_on {
            self.flags.set(Flags::READ_ON);
        }
        if event.writable {
            self.flags.clear(Flags::BLOCKED);
        }
    }

    /// Whether input is known or suspected that no further edge will announce.
    pub fn has_input_waiting(&self) -> bool {
        self.flags.has(Flags::READABLE) || self.flags.has(Flags::UNDECODED)
    }

    /// Little enough of its output is unsent: it is read again, and its wait for input begins anew.
    pub fn resume(&mut self, now: Tick) {
        self.flags.clear(Flags::PAUSED);
        self.since = now;
    }

    /// The wait for the peer to take its output begins, or begins anew because it took some.
    pub fn output_progress(&mut self, now: Tick) {
        self.blocked_since = now;
    }

    /// So much output is unsent now. True when the soft limit has just been passed: the deadline may have come nearer.
    pub fn owes(&mut self, unsent: usize, soft_limit: usize, now: Tick) -> bool {
        let (over, was) = (unsent > soft_limit, self.flags.has(Flags::OVER_SOFT_LIMIT));
        self.flags.put(Flags::OVER_SOFT_LIMIT, over);
        if over && !was {
            self.over_soft_since = (now.0 / COARSE_TICKS + 1) as u16;
        }
        over && !was
    }

    /// When the soft limit was passed, up to a second late. The upper bits are those of `blocked_since`, which is never hours from it.
    fn over_soft_since(&self) -> Tick {
        let near = self.blocked_since.0 / COARSE_TICKS;
        let behind = (near as u16).wrapping_sub(self.over_soft_since) as i16;
        Tick(near.wrapping_sub(behind as u32).wrapping_mul(COARSE_TICKS))
    }

    /// The nearest deadline and what passing it means. `None`: no timeout applies.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        nearer(self.input_deadline(timeouts), self.output_deadline(timeouts))
    }

    /// The same of one that may be idle, because it listens to others.
    pub fn deadline_of_listener(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        let input = self.input_deadline(timeouts).filter(|(_, reason)| *reason != Reason::IdleTimeout);
        nearer(input, self.output_deadline(timeouts))
    }

    /// When the peer must have sent something, or have closed.
    fn input_deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        let (ticks, reason) = match self.state {
            State::Silent => (timeouts.first_message, Reason::FirstMessageTimeout),
            State::Open if self.flags.has(Flags::UNTRUSTED) => (timeouts.first_message, Reason::FirstMessageTimeout),
            State::Open => (timeouts.idle, Reason::IdleTimeout),
            State::Partial => (timeouts.message, Reason::MessageTimeout),
            State::Closing(_) => (timeouts.close, Reason::CloseTimeout),
            // It was told all it was owed: lingering to the end is no failure of its own.
            State::Lingering(reason) => (timeouts.close, reason),
            State::Waiting | State::Closed(_) => return None,
        };
        // While it is paused it is the server that does not read.
        let waits_for_input = ticks != 0 && !self.flags.has(Flags::PAUSED);
        waits_for_input.then(|| (self.since.plus(ticks), reason))
    }

    /// When the peer must have taken some of its output, or enough of it.
    fn output_deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        if let State::Closed(_) = self.state {
            return None;
        }
        let output = (self.flags.has(Flags::BLOCKED) && timeouts.output != 0)
            .then(|| (self.blocked_since.plus(timeouts.output), Reason::OutputTimeout));
        let over = self.flags.has(Flags::OVER_SOFT_LIMIT) && timeouts.output_soft != 0;
        let soft = over.then(|| (self.over_soft_since().plus(timeouts.output_soft), Reason::OutputLimit));
        nearer(output, soft)
    }
}

/// Of two deadlines the one that comes first; of two at once, the first.
fn nearer(one: Option<(Tick, Reason)>, other: Option<(Tick, Reason)>) -> Option<(Tick, Reason)> {
    match (one, other) {
        (Some(first), Some(second)) if second.0.distance_from(first.0) < 0 => Some(second),
        (first, second) => first.or(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn connection() -> Connection<()> {
        Connection::new((), Generation::FIRST, 0, SourceId::NONE, Tick(100))
    }

    fn timeouts() -> Timeouts {
        Timeouts { first_message: 10, message: 20, idle: 30, output: 5, output_soft: 0, close: 7 }
    }

    #[test]
    fn the_first_message_is_due_from_accept_whatever_dribbles_in() {
        let mut connection = connection();
        assert!(!connection.received(0, true, Tick(105)));
        assert_eq!(connection.state(), State::Silent);
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(110), Reason::FirstMessageTimeout)));
        assert!(connection.received(1, false, Tick(108)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(138), Reason::IdleTimeout)));
    }

    #[test]
    fn bytes_do_not_push_a_messages_deadline_back() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        assert!(connection.received(0, true, Tick(110)));
        assert!(!connection.received(0, true, Tick(120)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(130), Reason::MessageTimeout)));
        // The rest of one and the start of the next: a new wait, in the same state.
        connection.received(1, true, Tick(125));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(145), Reason::MessageTimeout)));
        assert!(connection.received(1, false, Tick(126)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(156), Reason::IdleTimeout)));
    }

    #[test]
    fn blocked_output_has_a_deadline_of_its_own_and_the_nearer_one_counts() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        connection.flags.set(Flags::BLOCKED);
        connection.output_progress(Tick(110));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(115), Reason::OutputTimeout)));
        connection.output_progress(Tick(128));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(130), Reason::IdleTimeout)));
    }

    #[test]
    fn a_paused_connection_is_not_blamed_for_input_that_the_server_does_not_read() {
        let mut connection = connection();
        connection.received(1, true, Tick(100));
        connection.flags.set(Flags::PAUSED);
        assert_eq!(connection.deadline(&timeouts()), None);
        connection.resume(Tick(500));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(520), Reason::MessageTimeout)));
    }

    #[test]
    fn who_is_paused_when_it_closes_has_the_deadline_of_closing() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        connection.flags.set(Flags::PAUSED);
        connection.begin_closing(Reason::Drain, Tick(200));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(207), Reason::CloseTimeout)));
    }

    #[test]
    fn closing_keeps_the_first_reason_and_one_deadline_to_the_end() {
        let mut connection = connection();
        connection.begin_closing(Reason::LineTooLong, Tick(200));
        connection.begin_closing(Reason::PeerClosed, Tick(201));
        assert!(!connection.received(3, true, Tick(202)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(207), Reason::CloseTimeout)));
        assert_eq!(connection.all_sent(), Sent::ShutAndLinger);
        assert_eq!(connection.state(), State::Lingering(Reason::LineTooLong));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(207), Reason::LineTooLong)));
        assert!(connection.close(Reason::LineTooLong));
        assert!(!connection.close(Reason::PeerReset));
        assert_eq!(connection.reason(), Some(Reason::LineTooLong));
        assert_eq!(connection.deadline(&timeouts()), None);
    }

    #[test]
    fn a_peer_that_closed_first_is_not_lingered_for() {
        let mut connection = connection();
        assert_eq!(connection.all_sent(), Sent::GoOn);
        connection.begin_closing(Reason::PeerClosed, Tick(200));
        assert_eq!(connection.all_sent(), Sent::Close(Reason::PeerClosed));
    }

    #[test]
    fn a_timeout_of_zero_never_comes() {
        let never = Limits {
            first_message_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            message_timeout: Duration::ZERO,
            output_timeout: Duration::ZERO,
            close_timeout: Duration::ZERO,
            ..Limits::default()
        };
        let mut connection = connection();
        connection.flags.set(Flags::BLOCKED);
        assert_eq!(connection.deadline(&Timeouts::new(&never)), None);
    }
}

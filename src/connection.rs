//! One connection: its state, its deadlines and its end. This file has every state transition.
//!
//! ```text
//!           first byte          rest of it        part of the next       rest of it
//!   Silent ────────────► Begun ────────────► Open ─────────────────► Partial ──────────► Open
//!      │                   │                   │                        │
//!      └──────────┬────────┴───────────────────┴────────────────────────┘
//!                 ▼ the peer half-closes, the service closes, a drain, an error to report
//!              Closing ──► Lingering ──► Closed      (Lingering only if input may be unread)
//! ```
//!
//! If the next message must wait for its service, the connection goes to `Waiting` and later to
//! `Partial`. A timeout, a reset or an error leads from any state to `Closed`. A connection that
//! the loop dials goes from `Connecting` to `Open`.

mod flags;
mod reason;

use crate::buffer::BufferId;
use crate::clock::Tick;
use crate::limits::{Limits, UNTRUSTED_OUTPUT_MAX};
use crate::net::Ready;
use crate::sources::SourceId;
use crate::token::Generation;

pub use flags::{Flags, SERVICES_MAX};
pub use reason::{Farewell, Reason};

/// The state of a connection. Each arm says what has happened, what may follow, and which deadline
/// runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted, and no byte has come. Deadline: none of its own. Under pressure, admission closes
    /// the oldest that are overdue.
    Silent,
    /// Part of the first message is buffered. Deadline: message, counted from its first byte.
    Begun,
    /// The client has completed a message, and no part of another is buffered. Deadline: idle.
    Open,
    /// The client has sent part of a message. Deadline: message, counted from its first byte.
    Partial,
    /// The next message waits for its service. The loop does not read the connection, and no
    /// deadline for input runs.
    Waiting,
    /// The loop dials, and the peer has not answered. Its service does not know it yet. Deadline:
    /// none of its own. The dial has one.
    Connecting,
    /// No more messages are read, and pending output is still sent. Deadline: close.
    Closing(Reason),
    /// All output is sent and the server's side is shut down, but input may be unread. Closing now
    /// would make the kernel send a reset, which destroys data that the peer has not read yet. So
    /// the loop reads and drops input until the peer closes. Deadline: close, counted from the
    /// start of `Closing`.
    Lingering(Reason),
    /// Closed, and waiting for phase 10. No other state follows.
    Closed(Reason),
}

impl State {
    /// Names of the states that may outlast a turn.
    pub const NAMES: [&'static str; 8] =
        ["silent", "begun", "open", "partial", "waiting", "closing", "lingering", "connecting"];

    /// Returns the index in [`State::NAMES`]. For `Closed`, that is the index after the last.
    pub fn index(self) -> usize {
        match self {
            State::Silent => 0,
            State::Begun => 1,
            State::Open => 2,
            State::Partial => 3,
            State::Waiting => 4,
            State::Closing(_) => 5,
            State::Lingering(_) => 6,
            State::Connecting => 7,
            State::Closed(_) => 8,
        }
    }
}

/// The next step for a connection when all its output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    GoOn,
    /// Shut down the server's side, then read and drop input until the peer closes.
    ShutAndLinger,
    Close(Reason),
}

/// The timeouts of [`Limits`] in ticks; 0 means never. They are converted once per change of
/// limits.
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
        let ticks =
            |timeout: std::time::Duration| if timeout.is_zero() { 0 } else { Tick::count(timeout) };
        Timeouts {
            first_message: ticks(limits.first_message_timeout),
            message: ticks(limits.message_timeout),
            idle: ticks(limits.idle_timeout),
            output: ticks(limits.output_timeout),
            output_soft: ticks(limits.output_soft_time),
            close: ticks(limits.close_timeout),
        }
    }

    /// Returns the timeout of the first message in ticks.
    pub fn first_message(&self) -> u32 {
        self.first_message
    }

    /// Returns the idle timeout in ticks.
    pub fn idle(&self) -> u32 {
        self.idle
    }
}

/// A connection, stored in the slab: half a cache line. `S` is the network's stream, four bytes for
/// a real one.
pub struct Connection<S> {
    pub stream: S,
    pub generation: Generation,
    /// Part of a message, or messages that a budget left for a later turn.
    pub input: Option<BufferId>,
    /// Output that the kernel has not taken yet.
    pub output: Option<BufferId>,
    /// Start of the wait that the input deadline limits.
    since: Tick,
    /// When the peer last took some output, or when output first waited. Valid while `BLOCKED`.
    blocked_since: Tick,
    state: State,
    pub flags: Flags,
    /// The source that the connection comes from.
    pub source: SourceId,
    /// When unsent output passed the soft limit, in units of [`COARSE_TICKS`], rounded up. Valid
    /// while `OVER_SOFT_LIMIT`.
    over_soft_since: u16,
}

/// Ticks per unit of a two-byte time stamp: about a second.
const COARSE_TICKS: u32 = 64;

impl<S> Connection<S> {
    pub fn new(
        stream: S,
        generation: Generation,
        service: u8,
        source: SourceId,
        now: Tick,
    ) -> Connection<S> {
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

    /// Returns a connection that the loop dials. Its stream is watched for room to write already.
    pub fn dialled(stream: S, generation: Generation, service: u8, now: Tick) -> Connection<S> {
        let mut dialled = Connection::new(stream, generation, service, SourceId::DIALLED, now);
        dialled.state = State::Connecting;
        dialled.flags.set(Flags::WATCHES_WRITABLE);
        dialled
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Returns whether the loop has dialled the connection.
    pub fn is_dialled(&self) -> bool {
        self.source == SourceId::DIALLED
    }

    /// Records that the peer has answered the dial.
    pub fn answered(&mut self, now: Tick) {
        debug_assert_eq!(self.state, State::Connecting);
        self.state = State::Open;
        self.since = now;
    }

    /// Returns whether the loop reads input, even if only to drop it.
    pub fn reads(&self) -> bool {
        match self.state {
            State::Silent | State::Begun | State::Open | State::Partial => true,
            State::Lingering(_) => true,
            State::Waiting | State::Connecting | State::Closing(_) | State::Closed(_) => false,
        }
    }

    /// Returns whether the connection still takes messages and output.
    pub fn is_serving(&self) -> bool {
        self.reason().is_none()
    }

    /// Returns whether the service makes the connection wait.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Returns whether the connection has completed a message and is not closing.
    pub fn has_spoken(&self) -> bool {
        matches!(self.state, State::Open | State::Partial | State::Waiting)
    }

    /// Returns the reason for the close, if the connection is closing or closed.
    pub fn reason(&self) -> Option<Reason> {
        match self.state {
            State::Closing(reason) | State::Lingering(reason) | State::Closed(reason) => {
                Some(reason)
            }
            State::Silent | State::Begun | State::Open | State::Partial => None,
            State::Waiting | State::Connecting => None,
        }
    }

    /// Returns the start of the wait that the input deadline limits. For an open connection, that
    /// is its last message.
    pub fn waits_since(&self) -> Tick {
        self.since
    }

    /// Records decoded input: `complete` messages, and whether part of another is left. Returns
    /// true if the deadline may be nearer now, so that the timer must be checked.
    pub fn received(&mut self, complete: usize, partial: bool, now: Tick) -> bool {
        let before = self.state;
        self.state = match (before, complete, partial) {
            // The time to authenticate runs while the service waits, and not before a silent
            // connection begins a message.
            (State::Waiting, ..) => return self.flags.has(Flags::UNTRUSTED),
            (State::Closing(_) | State::Lingering(_) | State::Closed(_), ..) => return false,
            (State::Connecting, ..) => return false,
            (State::Silent, 0, false) => State::Silent,
            (State::Silent | State::Begun, 0, _) => State::Begun,
            (_, _, true) => State::Partial,
            (_, _, false) => State::Open,
        };
        // A complete message or the first byte of one starts a new wait. More bytes of a part do
        // not. The time to authenticate counts from accept, whatever messages arrive.
        if complete > 0 || self.state != before {
            self.wait_anew(now);
        }
        self.state != before
    }

    /// Makes the next message wait for its service.
    pub fn wait_for_service(&mut self) {
        if self.is_serving() {
            self.state = State::Waiting;
            self.flags.set(Flags::UNDECODED);
        }
    }

    /// Ends the wait for the service. Returns false if the connection did not wait.
    pub fn go_on(&mut self, now: Tick) -> bool {
        let waited = self.is_waiting();
        if waited {
            self.state = State::Partial;
            self.wait_anew(now);
        }
        waited
    }

    /// Starts to close after the pending output. The connection decodes no more messages. Only the
    /// first call sets the reason.
    pub fn begin_closing(&mut self, reason: Reason, now: Tick) {
        if self.is_serving() {
            self.state = State::Closing(reason);
            // A closing connection decodes no input, so neither flag applies.
            self.flags.clear(Flags::UNDECODED);
            self.flags.clear(Flags::PAUSED);
            self.since = now;
        }
    }

    /// Handles the moment when all output is sent, and returns the next step.
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

    /// Closes the connection, from any state. Returns true the first time.
    pub fn close(&mut self, reason: Reason) -> bool {
        let first = !matches!(self.state, State::Closed(_));
        if first {
            self.state = State::Closed(reason);
        }
        first
    }

    /// Records whether the client is authenticated now. `unsent` is its unsent output in bytes.
    pub fn change_trust(&mut self, trusted: bool, unsent: usize, now: Tick) {
        // A client that logs out gets the time to authenticate from now.
        self.wait_anew(now);
        // A client that logs out may have more unsent output than the untrusted limit allows. It
        // keeps its trust, because it requested that output while it was authenticated.
        self.flags.put(Flags::UNTRUSTED, !trusted && unsent <= UNTRUSTED_OUTPUT_MAX);
    }

    /// Records an edge that the kernel reported.
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

    /// Returns whether there may be input that no further edge will announce.
    pub fn has_input_waiting(&self) -> bool {
        self.flags.has(Flags::READABLE) || self.flags.has(Flags::UNDECODED)
    }

    /// Ends a pause: the connection is read again, and its wait for input starts anew.
    pub fn resume(&mut self, now: Tick) {
        self.flags.clear(Flags::PAUSED);
        self.wait_anew(now);
    }

    /// Starts the time to log in anew for a client that was silent for longer than `grace` ticks.
    /// It may be silent while there is room, and then needs time to send the password.
    pub fn begins_to_log_in(&mut self, grace: u32, now: Tick) {
        let is_late = now.distance_from(self.since) >= grace as i32;
        if self.state == State::Silent && self.flags.has(Flags::UNTRUSTED) && is_late {
            self.since = now;
        }
    }

    /// Records that a service took the whole input, and that it completed no message.
    pub fn skipped(&mut self, now: Tick) {
        self.wait_anew(now);
    }

    /// Starts the wait for input anew, except the wait for the password.
    fn wait_anew(&mut self, now: Tick) {
        if !self.flags.has(Flags::UNTRUSTED) {
            self.since = now;
        }
    }

    /// Returns whether the peer has taken output within the last second.
    pub fn is_taking(&self, now: Tick) -> bool {
        now.distance_from(self.blocked_since) <= COARSE_TICKS as i32
    }

    /// Starts the wait for the peer to take output, or restarts it because the peer took some.
    pub fn output_progress(&mut self, now: Tick) {
        self.blocked_since = now;
    }

    /// Records the bytes of unsent output. Returns true if they have just passed the soft limit,
    /// because the deadline may be nearer now.
    pub fn owes(&mut self, unsent: usize, soft_limit: usize, now: Tick) -> bool {
        let (over, was) = (unsent > soft_limit, self.flags.has(Flags::OVER_SOFT_LIMIT));
        self.flags.put(Flags::OVER_SOFT_LIMIT, over);
        if over && !was {
            self.over_soft_since = (now.0 / COARSE_TICKS + 1) as u16;
        }
        over && !was
    }

    /// Returns when the soft limit was passed, up to a second late. The upper bits come from
    /// `blocked_since`, which is at most hours away.
    fn over_soft_since(&self) -> Tick {
        let near = self.blocked_since.0 / COARSE_TICKS;
        let behind = (near as u16).wrapping_sub(self.over_soft_since) as i16;
        Tick(near.wrapping_sub(behind as u32).wrapping_mul(COARSE_TICKS))
    }

    /// Returns the nearest deadline and the reason to close when it passes. `None`: no timeout
    /// applies.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        nearer(self.input_deadline(timeouts), self.output_deadline(timeouts))
    }

    /// Returns the same for a subscriber, which has no idle timeout.
    pub fn deadline_of_listener(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        let input =
            self.input_deadline(timeouts).filter(|(_, reason)| *reason != Reason::IdleTimeout);
        nearer(input, self.output_deadline(timeouts))
    }

    /// Returns when the peer must have sent something or must have closed.
    fn input_deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        let (ticks, reason) = match self.state {
            _ if self.is_dialled() && self.is_serving() => return None,
            State::Begun | State::Open | State::Partial | State::Waiting
                if self.flags.has(Flags::UNTRUSTED) =>
            {
                (timeouts.first_message, Reason::LoginTimeout)
            }
            State::Open => (timeouts.idle, Reason::IdleTimeout),
            State::Begun | State::Partial => (timeouts.message, Reason::MessageTimeout),
            State::Closing(_) => (timeouts.close, Reason::CloseTimeout),
            // All output is sent. If the peer does not close in time, the original reason stands.
            State::Lingering(reason) => (timeouts.close, reason),
            State::Silent | State::Waiting | State::Connecting | State::Closed(_) => return None,
        };
        // The server does not read a paused connection, so its input deadline does not run.
        let waits_for_input = ticks != 0 && !self.flags.has(Flags::PAUSED);
        waits_for_input.then(|| (self.since.plus(ticks), reason))
    }

    /// Returns when the peer must have taken some output, or must be back below the soft limit.
    fn output_deadline(&self, timeouts: &Timeouts) -> Option<(Tick, Reason)> {
        // The service that dialled judges its peer itself.
        if matches!(self.state, State::Closed(_)) || self.is_dialled() {
            return None;
        }
        let output = (self.flags.has(Flags::BLOCKED) && timeouts.output != 0)
            .then(|| (self.blocked_since.plus(timeouts.output), Reason::OutputTimeout));
        let over = self.flags.has(Flags::OVER_SOFT_LIMIT) && timeouts.output_soft != 0;
        let soft =
            over.then(|| (self.over_soft_since().plus(timeouts.output_soft), Reason::OutputLimit));
        nearer(output, soft)
    }
}

/// Returns the earlier of two deadlines; the first if both are equal.
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
    fn a_silent_connection_has_no_deadline_until_the_first_byte_of_its_message() {
        let mut connection = connection();
        assert_eq!(connection.deadline(&timeouts()), None);
        assert!(connection.received(0, true, Tick(105)));
        assert_eq!(connection.state(), State::Begun);
        assert!(!connection.received(0, true, Tick(107)));
        let deadline = Some((Tick(125), Reason::MessageTimeout));
        assert_eq!(connection.deadline(&timeouts()), deadline);
        assert!(connection.received(1, false, Tick(108)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(138), Reason::IdleTimeout)));
    }

    #[test]
    fn more_bytes_of_a_message_do_not_postpone_its_deadline() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        assert!(connection.received(0, true, Tick(110)));
        assert!(!connection.received(0, true, Tick(120)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(130), Reason::MessageTimeout)));
        // The rest of one message and the start of the next begin a new wait in the same state.
        connection.received(1, true, Tick(125));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(145), Reason::MessageTimeout)));
        assert!(connection.received(1, false, Tick(126)));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(156), Reason::IdleTimeout)));
    }

    #[test]
    fn the_nearer_of_the_input_and_output_deadlines_applies() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        connection.flags.set(Flags::BLOCKED);
        connection.output_progress(Tick(110));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(115), Reason::OutputTimeout)));
        connection.output_progress(Tick(128));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(130), Reason::IdleTimeout)));
    }

    #[test]
    fn a_paused_connection_has_no_input_deadline() {
        let mut connection = connection();
        connection.received(1, true, Tick(100));
        connection.flags.set(Flags::PAUSED);
        assert_eq!(connection.deadline(&timeouts()), None);
        connection.resume(Tick(500));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(520), Reason::MessageTimeout)));
    }

    #[test]
    fn a_paused_connection_that_closes_has_the_close_deadline() {
        let mut connection = connection();
        connection.received(1, false, Tick(100));
        connection.flags.set(Flags::PAUSED);
        connection.begin_closing(Reason::Drain, Tick(200));
        assert_eq!(connection.deadline(&timeouts()), Some((Tick(207), Reason::CloseTimeout)));
    }

    #[test]
    fn a_closing_connection_keeps_its_first_reason_and_its_deadline() {
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
    fn a_connection_does_not_linger_when_the_peer_closed_first() {
        let mut connection = connection();
        assert_eq!(connection.all_sent(), Sent::GoOn);
        connection.begin_closing(Reason::PeerClosed, Tick(200));
        assert_eq!(connection.all_sent(), Sent::Close(Reason::PeerClosed));
    }

    #[test]
    fn a_timeout_of_zero_never_expires() {
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

    #[test]
    fn a_wait_begins_at_accept_at_the_first_byte_and_with_each_complete_message() {
        let mut connection = connection();
        assert_eq!(connection.waits_since(), Tick(100));
        connection.received(0, true, Tick(105));
        connection.received(0, true, Tick(106));
        assert_eq!(connection.waits_since(), Tick(105), "more of a message begins no wait");
        connection.received(1, false, Tick(107));
        assert_eq!(connection.waits_since(), Tick(107));
    }
}

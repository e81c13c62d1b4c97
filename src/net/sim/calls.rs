//! The calls of the loop that can fail, and failures ordered for them: an errno at the n-th call of a run.

use std::cell::Cell;
use std::io;

use super::{SimNet, os_error};

/// A call of [`Net`](crate::net::Net) that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemCall {
    Listen,
    Configure,
    Accept,
    Read,
    Write,
    WatchWritable,
    Shutdown,
    Shed,
    Unacknowledged,
    BufferBytes,
    PeerAddress,
    AcceptQueue,
    Bind,
    Receive,
    Send,
}

impl SystemCall {
    /// What it fails with on Linux, where the loop has not broken a rule itself (EBADF, EFAULT and the like). From the manual pages
    /// accept(2), recv(2), send(2), epoll_ctl(2), shutdown(2), listen(2), bind(2), getsockopt(2), tcp(7), ip(7) and udp(7).
    pub fn errnos(self) -> &'static [i32] {
        use crate::sys::errno::*;
        match self {
            SystemCall::Listen | SystemCall::Bind => &[EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENFILE, ENOBUFS],
            SystemCall::Configure => &[ENOMEM, EINVAL, ENOPROTOOPT],
            // A new socket brings its pending error along; the last two are epoll_ctl's.
            SystemCall::Accept => &[
                EAGAIN,
                EINTR,
                ECONNABORTED,
                EMFILE,
                ENFILE,
                ENOBUFS,
                ENOMEM,
                EPROTO,
                EPERM,
                ENETDOWN,
                EHOSTUNREACH,
                ENOSPC,
            ],
            SystemCall::Read => &[EAGAIN, EINTR, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENOMEM, EPIPE],
            SystemCall::Write => &[EAGAIN, EINTR, EPIPE, ECONNRESET, ETIMEDOUT, ENETUNREACH, ENOBUFS, ENOMEM],
            SystemCall::WatchWritable => &[ENOMEM, ENOSPC],
            SystemCall::Shutdown => &[ENOTCONN],
            SystemCall::Shed => &[EMFILE, ENFILE, EINTR, ECONNABORTED],
            SystemCall::Unacknowledged | SystemCall::BufferBytes | SystemCall::AcceptQueue => &[EINVAL, ENOBUFS],
            SystemCall::PeerAddress => &[ENOTCONN],
            SystemCall::Receive => &[EAGAIN, EINTR, ECONNREFUSED, EHOSTUNREACH, ENOMEM, ENETDOWN],
            SystemCall::Send => &[EAGAIN, EINTR, ECONNREFUSED, EPERM, ENETUNREACH, EMSGSIZE, ENOBUFS, EINVAL],
        }
    }
}

/// A failure that was ordered: from which call of all on, and how many of one kind it has yet to hit.
struct OrderedFailure {
    at: u64,
    /// `None` until the first is hit: whatever it is.
    kind: Cell<Option<SystemCall>>,
    error: i32,
    left: Cell<u32>,
}

impl OrderedFailure {
    fn is_due(&self, call: SystemCall, number: u64) -> bool {
        let is_meant = number >= self.at && self.kind.get().is_none_or(|kind| kind == call);
        if !is_meant || self.left.get() == 0 {
            return false;
        }
        self.kind.set(Some(call));
        self.left.set(self.left.get() - 1);
        true
    }
}

/// Calls made so far, and those that are to fail.
#[derive(Default)]
pub(super) struct Calls {
    made: Cell<u64>,
    failure: Option<OrderedFailure>,
    /// All that were made, in order, where someone wants to know.
    log: Option<std::cell::RefCell<Vec<SystemCall>>>,
}

impl Calls {
    /// Counts a call. Fails if it is the one that is to.
    pub(super) fn attempt(&self, call: SystemCall) -> io::Result<()> {
        let number = self.made.replace(self.made.get() + 1);
        if let Some(log) = &self.log {
            log.borrow_mut().push(call);
        }
        match &self.failure {
            Some(failure) if failure.is_due(call, number) => Err(os_error(failure.error)),
            _ => Ok(()),
        }
    }

    /// Has call number `at` fail, counted from 0 at the start of the network, and the next ones of its kind: so many in all.
    pub(super) fn fail(&mut self, at: u64, error: i32, times: u32) {
        self.failure = Some(OrderedFailure { at, kind: Cell::new(None), error, left: Cell::new(times) });
    }

    /// Has the next calls of a kind fail.
    pub(super) fn fail_next(&mut self, call: SystemCall, error: i32, times: u32) {
        self.failure = Some(OrderedFailure { at: 0, kind: Cell::new(Some(call)), error, left: Cell::new(times) });
    }

    /// From now on none is made to fail.
    pub(super) fn succeed(&mut self) {
        self.failure = None;
    }

    pub(super) fn keep_log(&mut self) {
        self.log = Some(Default::default());
    }

    pub(super) fn log(&self) -> Vec<SystemCall> {
        self.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default()
    }
}

/// Failures ordered by number or by kind.
impl SimNet {
    /// From now on the fallible calls of the loop are written down, for [`Self::calls_made`].
    pub fn log_calls(&mut self) {
        self.calls.keep_log();
    }

    pub fn calls_made(&self) -> Vec<SystemCall> {
        self.calls.log()
    }

    /// The loop's fallible call number `at`, counted from 0 since the network was made, fails with this errno.
    pub fn fail_call(&mut self, at: u64, errno: i32) {
        self.fail_calls(at, 1, errno);
    }

    /// That call fails, and so do the next ones of its kind: so many in all.
    pub fn fail_calls(&mut self, at: u64, times: u32, errno: i32) {
        self.calls.fail(at, errno, times);
    }

    /// The next calls of one kind fail: so many.
    pub fn fail_next(&mut self, call: SystemCall, errno: i32, times: u32) {
        self.calls.fail_next(call, errno, times);
    }

    /// What was ordered by the three above is over.
    pub fn succeed_in_calls(&mut self) {
        self.calls.succeed();
    }
}

//! The loop's fallible system calls, and the failures that a test orders for them.

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
    Connect,
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
    /// Returns the errors with which this call can fail on Linux. Errors that only a bug of the
    /// caller causes, such as EBADF, are left out. Sources: accept(2), connect(2), recv(2),
    /// send(2), epoll_ctl(2), shutdown(2), listen(2), bind(2), getsockopt(2), tcp(7), ip(7) and
    /// udp(7).
    pub fn errnos(self) -> &'static [i32] {
        use crate::sys::errno::*;
        match self {
            SystemCall::Listen | SystemCall::Bind => {
                &[EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENFILE, ENOBUFS]
            }
            SystemCall::Configure => &[ENOMEM, EINVAL, ENOPROTOOPT],
            // accept also passes on a pending error of the new socket. The last two come from
            // epoll_ctl.
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
            SystemCall::Read => {
                &[EAGAIN, EINTR, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENOMEM, EPIPE]
            }
            SystemCall::Write => {
                &[EAGAIN, EINTR, EPIPE, ECONNRESET, ETIMEDOUT, ENETUNREACH, ENOBUFS, ENOMEM]
            }
            SystemCall::WatchWritable => &[ENOMEM, ENOSPC],
            SystemCall::Connect => {
                &[EADDRNOTAVAIL, EACCES, EMFILE, ENFILE, ENETUNREACH, EHOSTUNREACH, ENOBUFS, ENOMEM]
            }
            SystemCall::Shutdown => &[ENOTCONN],
            SystemCall::Shed => &[EMFILE, ENFILE, EINTR, ECONNABORTED],
            SystemCall::Unacknowledged | SystemCall::BufferBytes | SystemCall::AcceptQueue => {
                &[EINVAL, ENOBUFS]
            }
            SystemCall::PeerAddress => &[ENOTCONN],
            SystemCall::Receive => &[EAGAIN, EINTR, ECONNREFUSED, EHOSTUNREACH, ENOMEM, ENETDOWN],
            SystemCall::Send => {
                &[EAGAIN, EINTR, ECONNREFUSED, EPERM, ENETUNREACH, EMSGSIZE, ENOBUFS, EINVAL]
            }
        }
    }
}

/// A failure that a test ordered for a number of calls of one kind.
struct OrderedFailure {
    /// The number of the first call that may fail.
    at: u64,
    /// The kind of call that fails. `None` until the first failure, which decides the kind.
    kind: Cell<Option<SystemCall>>,
    error: i32,
    /// Number of failures still to come.
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

/// A count of the calls so far, and the ordered failure.
#[derive(Default)]
pub(super) struct Calls {
    made: Cell<u64>,
    failure: Option<OrderedFailure>,
    /// The calls in their order, once [`SimNet::log_calls`] has asked for them.
    log: Option<std::cell::RefCell<Vec<SystemCall>>>,
}

impl Calls {
    /// Counts a call. Fails if a failure is ordered for it.
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
}

/// Failures that a test orders by the number or the kind of a call.
impl SimNet {
    /// Records the loop's fallible calls from now on, for [`Self::calls_made`].
    pub fn log_calls(&mut self) {
        self.calls.log = Some(Default::default());
    }

    /// Returns the recorded calls in their order. Empty unless [`Self::log_calls`] was called.
    pub fn calls_made(&self) -> Vec<SystemCall> {
        self.calls.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default()
    }

    /// Makes fallible call number `at` fail with this errno, and further calls of its kind, `times`
    /// calls in all. Calls count from 0 at the network's creation.
    pub fn fail_calls(&mut self, at: u64, times: u32, error: i32) {
        let (kind, left) = (Cell::new(None), Cell::new(times));
        self.calls.failure = Some(OrderedFailure { at, kind, error, left });
    }

    /// Makes the next `times` calls of one kind fail.
    pub fn fail_next(&mut self, call: SystemCall, error: i32, times: u32) {
        let (kind, left) = (Cell::new(Some(call)), Cell::new(times));
        self.calls.failure = Some(OrderedFailure { at: 0, kind, error, left });
    }

    /// Cancels a failure ordered by one of the two methods above.
    pub fn succeed_in_calls(&mut self) {
        self.calls.failure = None;
    }
}

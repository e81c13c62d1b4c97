//! The calls of the loop that can fail, and failures ordered for them: an errno at the n-th call of a run.

use std::cell::Cell;
use std::io;

use super::{SimNet, errno};

/// A call of [`Net`](crate::net::Net) that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
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

impl Call {
    /// What it fails with on Linux, where the loop has not broken a rule itself (EBADF, EFAULT and the like). From the manual pages
    /// accept(2), recv(2), send(2), epoll_ctl(2), shutdown(2), listen(2), bind(2), getsockopt(2), tcp(7), ip(7) and udp(7).
    pub fn errnos(self) -> &'static [i32] {
        match self {
            Call::Listen | Call::Bind => {
                &[libc::EADDRINUSE, libc::EADDRNOTAVAIL, libc::EACCES, libc::EMFILE, libc::ENFILE, libc::ENOBUFS]
            }
            Call::Configure => &[libc::ENOMEM, libc::EINVAL, libc::ENOPROTOOPT],
            // A new socket brings its pending error along; the last two are epoll_ctl's.
            Call::Accept => &[
                libc::EAGAIN,
                libc::EINTR,
                libc::ECONNABORTED,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOBUFS,
                libc::ENOMEM,
                libc::EPROTO,
                libc::EPERM,
                libc::ENETDOWN,
                libc::EHOSTUNREACH,
                libc::ENOSPC,
            ],
            Call::Read => &[
                libc::EAGAIN,
                libc::EINTR,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENOMEM,
                libc::EPIPE,
            ],
            Call::Write => &[
                libc::EAGAIN,
                libc::EINTR,
                libc::EPIPE,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::ENETUNREACH,
                libc::ENOBUFS,
                libc::ENOMEM,
            ],
            Call::WatchWritable => &[libc::ENOMEM, libc::ENOSPC],
            Call::Shutdown => &[libc::ENOTCONN],
            Call::Shed => &[libc::EMFILE, libc::ENFILE, libc::EINTR, libc::ECONNABORTED],
            Call::Unacknowledged | Call::BufferBytes | Call::AcceptQueue => &[libc::EINVAL, libc::ENOBUFS],
            Call::PeerAddress => &[libc::ENOTCONN],
            Call::Receive => {
                &[libc::EAGAIN, libc::EINTR, libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENOMEM, libc::ENETDOWN]
            }
            Call::Send => &[
                libc::EAGAIN,
                libc::EINTR,
                libc::ECONNREFUSED,
                libc::EPERM,
                libc::ENETUNREACH,
                libc::EMSGSIZE,
                libc::ENOBUFS,
                libc::EINVAL,
            ],
        }
    }
}

/// A failure that was ordered: from which call of all on, and how many of one kind it has yet to hit.
struct Failure {
    at: u64,
    /// `None` until the first is hit: whatever it is.
    kind: Cell<Option<Call>>,
    error: i32,
    left: Cell<u32>,
}

impl Failure {
    fn is_due(&self, call: Call, number: u64) -> bool {
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
    failure: Option<Failure>,
    /// All that were made, in order, where someone wants to know.
    log: Option<std::cell::RefCell<Vec<Call>>>,
}

impl Calls {
    /// Counts a call. Fails if it is the one that is to.
    pub(super) fn attempt(&self, call: Call) -> io::Result<()> {
        let number = self.made.replace(self.made.get() + 1);
        if let Some(log) = &self.log {
            log.borrow_mut().push(call);
        }
        match &self.failure {
            Some(failure) if failure.is_due(call, number) => Err(errno(failure.error)),
            _ => Ok(()),
        }
    }

    /// Has call number `at` fail, counted from 0 at the start of the network, and the next ones of its kind: so many in all.
    pub(super) fn fail(&mut self, at: u64, error: i32, times: u32) {
        self.failure = Some(Failure { at, kind: Cell::new(None), error, left: Cell::new(times) });
    }

    /// Has the next calls of a kind fail.
    pub(super) fn fail_next(&mut self, call: Call, error: i32, times: u32) {
        self.failure = Some(Failure { at: 0, kind: Cell::new(Some(call)), error, left: Cell::new(times) });
    }

    /// From now on none is made to fail.
    pub(super) fn succeed(&mut self) {
        self.failure = None;
    }

    pub(super) fn keep_log(&mut self) {
        self.log = Some(Default::default());
    }

    pub(super) fn log(&self) -> Vec<Call> {
        self.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default()
    }
}

/// Failures ordered by number or by kind.
impl SimNet {
    /// From now on the fallible calls of the loop are written down, for [`Self::calls_made`].
    pub fn log_calls(&mut self) {
        self.calls.keep_log();
    }

    pub fn calls_made(&self) -> Vec<Call> {
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
    pub fn fail_next(&mut self, call: Call, errno: i32, times: u32) {
        self.calls.fail_next(call, errno, times);
    }

    /// What was ordered by the three above is over.
    pub fn succeed_in_calls(&mut self) {
        self.calls.succeed();
    }
}

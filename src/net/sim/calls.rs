//! The calls of the loop that can fail, and failures ordered for them: an errno at the n-th call of a run.

use std::cell::Cell;
use std::io;

use super::errno;

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

/// Calls made so far, and the one that is to fail.
#[derive(Default)]
pub(super) struct Calls {
    made: Cell<u64>,
    /// Which call of all, and with what.
    failure: Option<(u64, i32)>,
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
        match self.failure {
            Some((at, error)) if at == number => Err(errno(error)),
            _ => Ok(()),
        }
    }

    /// Has call number `at` fail, counted from 0 at the start of the network.
    pub(super) fn fail(&mut self, at: u64, error: i32) {
        self.failure = Some((at, error));
    }

    pub(super) fn keep_log(&mut self) {
        self.log = Some(Default::default());
    }

    pub(super) fn log(&self) -> Vec<Call> {
        self.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default()
    }
}

//! Who may come in, and what a failed accept means.

use std::io;

/// Why no connection is accepted at present. Those that wait, wait in the kernel's accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// `max-connections` are held. Opens when one of them is reaped.
    Full,
    /// No file or memory to accept with. Opens when a connection is reaped, or after [`crate::limits::ACCEPT_RETRY`].
    Exhausted,
}

/// What to do after an accept that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The queue is empty.
    Drained,
    /// That connection is gone; the next may be fine. accept(2): treat network errors like EAGAIN by retrying.
    Aborted,
    /// Every accept will fail until something is freed.
    Exhausted,
}

impl AcceptError {
    pub fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => AcceptError::Drained,
            Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::ENOPROTOOPT) => AcceptError::Aborted,
            Some(libc::ENETDOWN | libc::ENETUNREACH | libc::EHOSTDOWN | libc::EHOSTUNREACH) => AcceptError::Aborted,
            Some(libc::ENONET | libc::EOPNOTSUPP | libc::EPERM | libc::ETIMEDOUT) => AcceptError::Aborted,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC (epoll watches), and whatever is not known: waiting
            // cannot spin.
            _ => AcceptError::Exhausted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_as_the_man_page_says() {
        let of = |errno| AcceptError::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EAGAIN), AcceptError::Drained);
        for errno in [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EPERM, libc::EHOSTUNREACH, libc::ENONET] {
            assert_eq!(of(errno), AcceptError::Aborted, "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC, libc::EINVAL] {
            assert_eq!(of(errno), AcceptError::Exhausted, "{errno}");
        }
    }
}

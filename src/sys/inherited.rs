//! Files that another process has opened for this one, by their numbers.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Returns an inherited file, to ask the kernel about it. Fails if no file has this number.
pub fn borrow(number: RawFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: F_GETFD takes no argument, and fails for a number without a file.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the file is open. Only the owner that `adopt` makes closes it, and nobody borrows it
    // afterwards.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Takes an inherited file over. Programs that this process starts do not inherit it again. Call it
/// once for each number.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an int, and fails for a number without a file.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the file is open, and the process that opened it gave it to this one. Nothing else
    // here owns it, because each number is adopted once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

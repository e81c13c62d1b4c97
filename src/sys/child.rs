//! What a child process is given before its program starts, and signals to it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::check;

pub const SIGSTOP: i32 = libc::SIGSTOP;
pub const SIGCONT: i32 = libc::SIGCONT;

/// Has the child killed when the thread that starts it ends, however that comes: by Ctrl-C, by SIGKILL, by a bug. prctl(2),
/// PR_SET_PDEATHSIG. So the thread that starts it must be one that lives as long as the child is wanted.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id() as libc::pid_t;
    let before_exec = move || {
        // SAFETY: this option takes a number and no pointer, and prctl is async-signal-safe.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) })?;
        // A parent that ended before that will send no signal.
        // SAFETY: getppid takes no argument and cannot fail.
        if unsafe { libc::getppid() } != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls prctl and getppid alone, and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// Lets the child open so many files at most, by the hard limit as well, so that it cannot raise it again. setrlimit(2).
pub fn limit_files(command: &mut Command, files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: setrlimit is async-signal-safe, `limit` is a valid rlimit that it only reads, and nothing is allocated.
    unsafe { command.pre_exec(move || check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).map(|_| ())) };
}

/// Sends a signal to a child. It has not been waited for, or there would be no borrow of it, so its number is still its own. kill(2).
pub fn signal(child: &Child, signal: i32) -> io::Result<()> {
    let process = child.id() as libc::pid_t;
    // SAFETY: kill takes two numbers and no pointer.
    check(unsafe { libc::kill(process, signal) }).map(|_| ())
}

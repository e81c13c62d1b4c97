//! Settings of a child process before its program starts, and signals to the child.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::check;

pub const SIGSTOP: i32 = libc::SIGSTOP;
pub const SIGCONT: i32 = libc::SIGCONT;

/// Makes the kernel kill the child when the thread that started it ends, even by Ctrl-C or SIGKILL.
/// That thread must live as long as the child is needed. prctl(2), PR_SET_PDEATHSIG.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id() as libc::pid_t;
    let before_exec = move || {
        // SAFETY: this option takes a number and no pointer, and prctl is async-signal-safe.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) })?;
        // If the parent ended before the call, the kernel sends no signal.
        // SAFETY: getppid takes no argument and cannot fail.
        if unsafe { libc::getppid() } != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls only prctl and getppid, and allocates
    // nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// Sets the child's soft and hard limit on open files, so that the child cannot raise it.
/// setrlimit(2).
pub fn limit_files(command: &mut Command, files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: setrlimit is async-signal-safe and only reads `limit`, a valid rlimit. The closure
    // allocates nothing.
    unsafe {
        command.pre_exec(move || check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).map(|_| ()))
    };
}

/// Sends a signal to a child. kill(2).
///
/// The caller must not have waited for the child, because its process number may then belong to
/// another process.
pub fn signal(child: &Child, signal: i32) -> io::Result<()> {
    let process = child.id() as libc::pid_t;
    // SAFETY: kill takes two numbers and no pointer.
    check(unsafe { libc::kill(process, signal) }).map(|_| ())
}

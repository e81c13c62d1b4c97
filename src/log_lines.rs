//! Where log lines go: standard error, and never by waiting for it.
//!
//! The loop has one thread. Were it to wait for a pipe that nobody reads, or a terminal that is stopped, every connection would wait with it. So
//! a line that cannot be written at once is dropped and counted, and the next one that can be written says how many are missing.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// A pipe that is ready for writing takes so much without a wait (PIPE_BUF, pipe(7)). Longer texts, such as the status, go in pieces.
const PIECE: usize = 4096;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that could not be written since the process began.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Takes over the log, at the level that RUST_LOG asks for.
pub fn start() {
    let environment = env_logger::Env::default().default_filter_or("info");
    let lines = Box::new(Lines::default());
    env_logger::Builder::from_env(environment).target(env_logger::Target::Pipe(lines)).init();
}

/// Takes one line a call, which is how env_logger writes.
#[derive(Default)]
struct Lines {
    /// Of the dropped lines, those that have been told of.
    told: u64,
    /// Only a part of the last one was written.
    is_cut: bool,
}

impl Lines {
    /// What goes before a line, where one is missing.
    fn notice(&self, dropped: u64) -> Vec<u8> {
        let mut text = if self.is_cut { b"\n".to_vec() } else { Vec::new() };
        if dropped > self.told {
            let missing = dropped - self.told;
            text.extend_from_slice(
                format!("[lines of log that nobody took in time, and were dropped: {missing}]\n").as_bytes(),
            );
        }
        text
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let dropped = dropped();
        let mut text = self.notice(dropped);
        text.extend_from_slice(line);
        let pieces = text.chunks(PIECE);
        let count = pieces.len();
        let written =
            pieces.take_while(|piece| sys::can_write_to_stderr() && io::stderr().write_all(piece).is_ok()).count();
        if written > 0 {
            (self.told, self.is_cut) = (dropped, written < count);
        }
        if written < count {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        // It is done with, one way or the other.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

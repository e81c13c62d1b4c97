//! The log: lines to standard error, without ever blocking on it.
//!
//! The loop has one thread. If it blocked on a full pipe or a stopped terminal, every connection
//! would wait. So a line that cannot be written at once is dropped and counted. The next line that
//! can be written is preceded by the number of dropped lines.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{escape, sys};

/// Bytes that a writable pipe accepts without blocking (PIPE_BUF, pipe(7)). A longer text, such as
/// the status, is written in pieces.
const PIECE: usize = 4096;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of lines dropped since the process started.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Installs the logger, at the level of RUST_LOG.
pub fn start() {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into());
    let lines = Box::new(Lines::default());
    // env_logger quotes a filter that it cannot read.
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&escape::line(&filter));
    builder.target(env_logger::Target::Pipe(lines)).init();
}

/// A writer that gets one line per call, as env_logger writes them.
#[derive(Default)]
struct Lines {
    /// Dropped lines that a notice has reported.
    told: u64,
    /// True when only a part of the last line was written.
    is_cut: bool,
}

impl Lines {
    /// Returns the notice to write before the next line, if lines were dropped or cut.
    fn notice(&self, dropped: u64) -> Vec<u8> {
        let mut text = if self.is_cut { b"\n".to_vec() } else { Vec::new() };
        if dropped > self.told {
            let missing = dropped - self.told;
            text.extend_from_slice(
                format!("[standard error was blocked, and log lines were dropped: {missing}]\n")
                    .as_bytes(),
            );
        }
        text
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let dropped = dropped();
        let mut text = self.notice(dropped);
        // The text of a message may come from outside. Its source escapes the line breaks.
        text.extend_from_slice(escape::lines(&String::from_utf8_lossy(line)).as_bytes());
        let pieces = text.chunks(PIECE);
        let count = pieces.len();
        let written = pieces
            .take_while(|piece| sys::can_write_to_stderr() && io::stderr().write_all(piece).is_ok())
            .count();
        if written > 0 {
            (self.told, self.is_cut) = (dropped, written < count);
        }
        if written < count {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        // Written or dropped, the line is finished.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

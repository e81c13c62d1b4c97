//! Lines for the user on standard error, beside the log.

use std::io::Write;

use crate::escape;

/// Writes a line to standard error, without control characters. A line that cannot be written is
/// lost: `eprintln!` would end the process with another exit code.
pub fn tell(line: &str) {
    // One write per line, so that lines of several processes do not mix.
    let _ = std::io::stderr().write_all(format!("{}\n", escape::lines(line)).as_bytes());
}

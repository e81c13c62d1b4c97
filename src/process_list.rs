//! Keeps the password out of the process list: overwrites it where `ps` reads the command line.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};

const FLAG: &[u8] = b"--requirepass";

/// Overwrites the value of `--requirepass` in this process's arguments with asterisks. To be called once the arguments were copied.
/// Best effort: where /proc does not let it, nothing is changed; a file or the environment are the better places for a password.
pub fn hide_password() {
    let _ = try_hide();
}

fn try_hide() -> io::Result<()> {
    let arguments = fs::read("/proc/self/cmdline")?;
    let Some((start, length)) = password_at(&arguments) else { return Ok(()) };
    // Field 48 of /proc/self/stat is where the arguments begin (proc(5)). The second field is in parentheses and may hold anything.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let base = fields.split_whitespace().nth(48 - 3).and_then(|field| field.parse::<u64>().ok());
    let base = base.ok_or(io::ErrorKind::InvalidData)?;
    let mut memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.seek(SeekFrom::Start(base + start as u64))?;
    memory.write_all(&vec![b'*'; length])
}

/// Where the value is in arguments that end with a NUL each, and how long.
fn password_at(arguments: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    let mut follows = false;
    for argument in arguments.split(|byte| *byte == 0) {
        if follows {
            return Some((start, argument.len()));
        }
        match argument.strip_prefix(FLAG) {
            Some([]) => follows = true,
            Some([b'=', value @ ..]) => return Some((start + FLAG.len() + 1, value.len())),
            _ => {}
        }
        start += argument.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_found_in_either_form_and_nothing_else_is() {
        for (arguments, found) in [
            (&b"slabd\0--requirepass\0secret\0--backlog\x007\0"[..], Some(&b"secret"[..])),
            (b"slabd\0--requirepass=secret\0", Some(b"secret")),
            (b"slabd\0--requirepass=\0", Some(b"")),
            (b"slabd\0--requirepass-file\0secret\0", None),
            (b"slabd\0", None),
            (b"", None),
        ] {
            let at = password_at(arguments).map(|(start, length)| &arguments[start..start + length]);
            assert_eq!(at, found, "{}", arguments.escape_ascii());
        }
    }
}

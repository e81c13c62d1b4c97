//! The files that a run reads before its start: a body, a password. Each is regular and bounded,
//! and opening it never waits.

use std::path::Path;

use crate::limits::{PASSWORD_FILE_MAX, PASSWORD_MAX};
use crate::regular_file::{self, without_mark};
use crate::service::Secret;

use super::target::{Scheme, Target};

/// The environment variable that may hold the target's password.
const PASSWORD_VARIABLE: &str = "SLABD_STRESS_PASSWORD";

/// Reads a file of at most `most` bytes for a flag.
pub fn read(flag: &str, path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let name = path.display();
    if path.as_os_str().is_empty() {
        return Err(format!("--{flag}: the file has no name; expected one, such as {flag}.txt"));
    }
    let content = regular_file::read(path, most);
    let bytes = content.map(|content| content.bytes);
    bytes.map_err(|why| format!("--{flag}: cannot read {name}: {why}"))
}

/// Sets the target's password from a file, or else from the environment if the target has none.
pub fn add_password(target: &mut Target, file: Option<&Path>) -> Result<(), String> {
    let environment = || std::env::var_os(PASSWORD_VARIABLE).filter(|text| !text.is_empty());
    let given = match file {
        Some(file) => Some(password_in(file)?),
        None if target.password.is_none() => {
            environment().map(|text| Secret(text.into_encoded_bytes().into()))
        }
        None => None,
    };
    let Some(secret) = given else { return Ok(()) };
    let takes_none = matches!(target.scheme, Scheme::Tcp | Scheme::Udp);
    let needs_user = target.scheme.is_http() && target.scheme != Scheme::SocketIo;
    if takes_none || (needs_user && target.user.is_none()) {
        // The variable may be meant for other targets.
        return match file {
            None => Ok(()),
            Some(_) => Err(format!(
                "--password-file: over {0}:// a password needs a user, as in {0}://USER@{1}",
                target.scheme.name(),
                target.authority()
            )),
        };
    }
    if target.password.is_some() {
        return Err(
            "--password-file: the target has a password, too; leave one of them out, or give the \
             user as in resp://USER:@HOST"
                .into(),
        );
    }
    target.password = Some(secret);
    Ok(())
}

/// Returns the first line of a file.
fn password_in(file: &Path) -> Result<Secret, String> {
    let bytes = read("password-file", file, PASSWORD_FILE_MAX)?;
    let line = without_mark(&bytes).split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.len() {
        0 => Err(format!(
            "--password-file: the first line of {} is empty, and must be the password",
            file.display()
        )),
        length if length > PASSWORD_MAX => Err(format!(
            "--password-file: the password has {length} bytes; accepted: up to {PASSWORD_MAX} bytes"
        )),
        _ => Ok(Secret(line.into())),
    }
}

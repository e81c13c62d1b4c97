//! The passwords of the hub and of its broker: the sources that can give them, and their order.
//!
//! Flags come first, then the environment, then a systemd credential, then the config file. Within
//! flags, and within the file, only one of `requirepass` and `requirepass-file` may be given.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{ConfigError, shown_path};
use crate::limits::{PASSWORD_FILE_MAX, PASSWORD_MAX};
use crate::regular_file::{self, without_mark};
use crate::service::Secret;

/// The sources of one password.
pub struct PasswordSources {
    /// The names of the settings that give it.
    pub settings: &'static [&'static str],
    /// The environment variable that may hold it.
    variable: &'static str,
    /// The name of its systemd credential.
    credential: &'static str,
}

/// The password that clients of the hub must give.
pub const REQUIREPASS: PasswordSources = PasswordSources {
    settings: &["requirepass", "requirepass-file"],
    variable: "SLABD_REQUIREPASS",
    credential: "requirepass",
};

/// The password for the broker, for URLs without one.
pub const BROKER: PasswordSources = PasswordSources {
    settings: &["broker-password-file"],
    variable: "SLABD_BROKER_PASSWORD",
    credential: "broker-password",
};

pub const SOURCES: [PasswordSources; 2] = [REQUIREPASS, BROKER];

/// The variable with the directory of a service's credentials: LoadCredential= in systemd.exec(5).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

impl PasswordSources {
    /// Returns true if the environment or a credential gives the password.
    pub fn is_in_environment(&self) -> bool {
        self.in_variable().is_some() || self.credential_path().is_some()
    }

    /// Returns the password that settings give, or else the environment or a credential. An empty
    /// password means none. Adds a warning if other users may read the password's file.
    pub fn resolve(
        &self,
        given: Option<Secret>,
        file: Option<&Path>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Secret>, ConfigError> {
        let secret = if let Some(secret) = given {
            secret
        } else if let Some(path) = file {
            let setting = self.settings.last().copied().unwrap_or_default();
            from_file(setting, path, warnings)?
        } else if let Some(text) = self.in_variable() {
            Secret(text.into_vec().into())
        } else if let Some(path) = self.credential_path() {
            from_file("credential", &path, warnings)?
        } else {
            Secret::default()
        };
        let length = secret.0.len();
        if length > PASSWORD_MAX {
            return Err(ConfigError(format!(
                "the password is {length} bytes long; accepted: up to {PASSWORD_MAX} bytes"
            )));
        }
        Ok((length > 0).then_some(secret))
    }

    fn in_variable(&self) -> Option<OsString> {
        std::env::var_os(self.variable).filter(|text| !text.is_empty())
    }

    fn credential_path(&self) -> Option<PathBuf> {
        let folder = std::env::var_os(CREDENTIALS_VARIABLE)?;
        Some(Path::new(&folder).join(self.credential)).filter(|path| path.exists())
    }
}

/// Reads the password from the first line of a file.
fn from_file(what: &str, path: &Path, warnings: &mut Vec<String>) -> Result<Secret, ConfigError> {
    let shown = shown_path(path);
    let failure = |why: &str| ConfigError(format!("cannot use {what} {shown}: {why}"));
    let content = regular_file::read(path, PASSWORD_FILE_MAX).map_err(|why| failure(&why))?;
    let line = without_mark(&content.bytes).split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(failure("its first line is empty, and must be the password"));
    }
    if content.is_open_to_others {
        warnings.push(open_to_others(path));
    }
    Ok(Secret(line.into()))
}

/// Returns the warning about a file with a password that others may read or change.
pub fn open_to_others(path: &Path) -> String {
    let path = shown_path(path);
    format!("other users may read or change {path}, which has a password; chmod o-rw {path}")
}

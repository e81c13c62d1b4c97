//! The values of settings that are not numbers: addresses, buffers, the password.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Value;

use super::{ConfigError, shown_path};
use crate::buffer::BufferMode;
use crate::limits::{FIXED_BUFFER_MAX, FIXED_BUFFER_MIN, PASSWORD_MAX};
use crate::service::Secret;
use crate::services::SERVICES;
use crate::setting::{Notation, ValueForm, text, texts};
use crate::units::Size;

/// The value of one `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The name of the service.
    pub service: String,
    pub address: SocketAddr,
    pub tcp: bool,
    pub udp: bool,
}

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "SLABD_REQUIREPASS";

/// The variable with the directory of a service's credentials: LoadCredential= in systemd.exec(5).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Returns the password. The first of these sources counts: the given password, the file, the
/// environment, a systemd credential. An empty password means none.
pub fn password(given: Option<Secret>, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let secret = match (given, file) {
        (Some(secret), _) => secret,
        (None, Some(path)) => from_file(path)?,
        (None, None) => match std::env::var(PASSWORD_VARIABLE) {
            Ok(text) if !text.is_empty() => Secret(text.into_bytes().into()),
            _ => match std::env::var_os(CREDENTIALS_VARIABLE)
                .map(|folder| Path::new(&folder).join("requirepass"))
            {
                Some(path) if path.exists() => from_file(&path)?,
                _ => Secret::default(),
            },
        },
    };
    let length = secret.0.len();
    if length > PASSWORD_MAX {
        return Err(ConfigError(format!(
            "the password is {length} bytes long; accepted: up to {PASSWORD_MAX} bytes"
        )));
    }
    Ok((length > 0).then_some(secret))
}

/// Reads the password from the first line of a file.
fn from_file(path: &Path) -> Result<Secret, ConfigError> {
    let failure =
        |why: &str| ConfigError(format!("cannot use requirepass-file {}: {why}", shown_path(path)));
    let text = std::fs::read_to_string(path).map_err(|error| failure(&error.to_string()))?;
    match text.lines().next() {
        None | Some("") => Err(failure("its first line is empty, and must be the password")),
        Some(first) => Ok(Secret(first.as_bytes().into())),
    }
}

/// The value of `--buffers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers(pub BufferMode);

impl Default for Listen {
    fn default() -> Listen {
        let address = SocketAddr::from(([127, 0, 0, 1], 9999));
        Listen { service: "hub".into(), address, tcp: true, udp: true }
    }
}

impl Listen {
    /// Returns true for a hub that other machines can reach.
    pub fn is_open_hub(&self) -> bool {
        self.service == "hub" && !self.address.ip().is_loopback()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let (service, address) = text.split_once('=').ok_or(
            "expected SERVICE=ADDR:PORT, such as hello=127.0.0.1:9999 or echo+udp=[::1]:7",
        )?;
        let (service, tcp, udp) = match service.split_once('+') {
            None => (service, true, true),
            Some((service, "tcp")) => (service, true, false),
            Some((service, "udp")) => (service, false, true),
            Some((_, other)) => {
                return Err(format!("there is no transport '{other}'; accepted: +tcp and +udp"));
            }
        };
        let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
        if !names.contains(&service) {
            let names = names.join(", ");
            return Err(format!("there is no service '{service}'; accepted: {names}"));
        }
        Ok(Listen { service: service.into(), address: socket_address(address)?, tcp, udp })
    }
}

/// Reads an IP address and a port. Names are not resolved.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.rsplit_once(':') {
        Some((ip, port)) if format!("{ip}:0").parse::<SocketAddr>().is_ok() => {
            Err(format!("'{port}' is not a port; accepted: 0 to {}", u16::MAX))
        }
        _ => Err(format!(
            "'{text}' is not an IP address and port; \
             expected ADDR:PORT, such as 127.0.0.1:9999 or [::1]:9999"
        )),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match (self.tcp, self.udp) {
            (true, false) => "+tcp",
            (false, true) => "+udp",
            _ => "",
        };
        write!(f, "{}{transport}={}", self.service, self.address)
    }
}

impl FromStr for Buffers {
    type Err = String;

    fn from_str(text: &str) -> Result<Buffers, String> {
        if text == "pooled" {
            return Ok(Buffers(BufferMode::Pooled));
        }
        let size = text
            .strip_prefix("fixed:")
            .ok_or("expected pooled, or fixed:BYTES such as fixed:4096")?;
        let Size(bytes) = size.parse()?;
        if !(FIXED_BUFFER_MIN..=FIXED_BUFFER_MAX).contains(&bytes) {
            return Err(format!(
                "expected a fixed buffer of {} to {}",
                Size(FIXED_BUFFER_MIN),
                Size(FIXED_BUFFER_MAX)
            ));
        }
        Ok(Buffers(BufferMode::Fixed(bytes)))
    }
}

impl fmt::Display for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            BufferMode::Pooled => f.write_str("pooled"),
            BufferMode::Fixed(bytes) => write!(f, "fixed:{bytes}"),
        }
    }
}

texts! {
    "pooled|fixed:BYTES" Buffers(BufferMode);
}

impl Notation for Vec<Listen> {
    type Value = Vec<Listen>;
    const HINT: &'static str = "SERVICE=ADDR:PORT";
    const FORM: ValueForm = ValueForm::List;

    fn read(texts: &[String]) -> Result<Vec<Listen>, String> {
        texts.iter().map(|text| text.parse()).collect()
    }

    fn write(value: &Vec<Listen>) -> Option<Value> {
        Some(Value::Array(value.iter().filter_map(text).collect()))
    }
}

impl Notation for Option<SocketAddr> {
    type Value = Option<SocketAddr>;
    const HINT: &'static str = "ADDR:PORT";

    fn read(texts: &[String]) -> Result<Self, String> {
        socket_address(texts.last().map_or("", String::as_str)).map(Some)
    }

    fn write(value: &Self) -> Option<Value> {
        text(value.as_ref()?)
    }
}

impl Notation for Option<Secret> {
    type Value = Option<Secret>;
    const HINT: &'static str = "PASSWORD";
    const FORM: ValueForm = ValueForm::Text;

    fn read(texts: &[String]) -> Result<Self, String> {
        Ok(texts.last().map(|text| Secret(text.as_bytes().into())))
    }

    /// Returns `None`, because a password is never shown.
    fn write(_: &Self) -> Option<Value> {
        None
    }
}

impl Notation for Option<PathBuf> {
    type Value = Option<PathBuf>;
    const HINT: &'static str = "FILE";
    const FORM: ValueForm = ValueForm::Text;

    fn read(texts: &[String]) -> Result<Self, String> {
        Ok(texts.last().map(PathBuf::from))
    }

    fn write(value: &Self) -> Option<Value> {
        text(value.as_ref()?.display())
    }
}

//! The values of settings that are more than a number: addresses, buffers, the password.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Value;

use super::ConfigError;
use crate::buffer::BufferMode;
use crate::limits::{FIXED_BUFFER_MAX, FIXED_BUFFER_MIN, PASSWORD_MAX};
use crate::service::Secret;
use crate::services::SERVICES;
use crate::setting::{Notation, ValueForm, one, text, texts};
use crate::units::Size;

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub service: String,
    pub address: SocketAddr,
    pub tcp: bool,
    pub udp: bool,
}

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "SLABD_REQUIREPASS";

/// Where systemd puts the credentials of a service: LoadCredential= in systemd.exec(5).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The password as given, else from the file, else from the environment, else from a systemd
/// credential. An empty one is none.
pub fn password(given: Option<Secret>, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let secret = match (given, file) {
        (Some(secret), _) => secret,
        (None, Some(path)) => from_file(path)?,
        (None, None) => match std::env::var(PASSWORD_VARIABLE) {
            Ok(text) if !text.is_empty() => Secret(text.into_bytes().into()),
            _ => match std::env::var_os(CREDENTIALS_VARIABLE).map(|folder| Path::new(&folder).join("requirepass")) {
                Some(path) if path.exists() => from_file(&path)?,
                _ => Secret::default(),
            },
        },
    };
    let length = secret.0.len();
    if length > PASSWORD_MAX {
        return Err(ConfigError(format!("requirepass is {length} bytes long: accepted are up to {PASSWORD_MAX}")));
    }
    Ok((length > 0).then_some(secret))
}

/// The first line of a file.
fn from_file(path: &Path) -> Result<Secret, ConfigError> {
    let failure = |what: String| ConfigError(format!("requirepass-file {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    match text.lines().next() {
        None | Some("") => Err(failure("its first line is empty".into())),
        Some(first) => Ok(Secret(first.as_bytes().into())),
    }
}

/// One `--buffers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers(pub BufferMode);

impl Default for Listen {
    fn default() -> Listen {
        let address = SocketAddr::from(([127, 0, 0, 1], 9999));
        Listen { service: "hub".into(), address, tcp: true, udp: true }
    }
}

impl Listen {
    /// A hub that others than this machine can reach.
    pub fn is_open_hub(&self) -> bool {
        self.service == "hub" && !self.address.ip().is_loopback()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        const HELP: &str = "expected SERVICE=ADDR:PORT, such as hello=127.0.0.1:9999 or echo+udp=[::1]:7";
        let (service, address) = text.split_once('=').ok_or(HELP)?;
        let (service, tcp, udp) = match service.split_once('+') {
            None => (service, true, true),
            Some((service, "tcp")) => (service, true, false),
            Some((service, "udp")) => (service, false, true),
            Some((_, other)) => return Err(format!("no transport '{other}': accepted are +tcp and +udp")),
        };
        let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
        if !names.contains(&service) {
            return Err(format!("no service '{service}': accepted are {}", names.join(", ")));
        }
        let address = address.parse().map_err(|_| format!("'{address}' is not an IP address and port: {HELP}"))?;
        Ok(Listen { service: service.into(), address, tcp, udp })
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
        let size = text.strip_prefix("fixed:").ok_or("expected pooled, or fixed:BYTES such as fixed:4096")?;
        let Size(bytes) = size.parse()?;
        if !(FIXED_BUFFER_MIN..=FIXED_BUFFER_MAX).contains(&bytes) {
            return Err(format!("a fixed buffer has {} to {}", Size(FIXED_BUFFER_MIN), Size(FIXED_BUFFER_MAX)));
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
        one(texts).map(Some)
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

    /// Written nowhere.
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

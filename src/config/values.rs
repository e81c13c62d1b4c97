//! The values of settings that are more than a number: what to listen on, and which buffers. Texts in a file and on the command
//! line alike.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::admission::Policy;
use crate::buffer::BufferMode;
use crate::networks::Networks;
use crate::service::{SERVICES, Secret};
use crate::units::Size;

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub service: String,
    pub address: SocketAddr,
    pub tcp: bool,
    pub udp: bool,
}

/// One `--requirepass`. Shown nowhere.
#[derive(Clone, Deserialize, Serialize)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Password {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Password, Self::Err> {
        Ok(Password(text.into()))
    }
}

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "SLABD_REQUIREPASS";

/// Longest password: AUTH must fit into what a peer may send before it.
const PASSWORD_MAX: usize = 512;

/// The password from the setting, else from the file, else from the environment. An empty one is none.
pub fn password(given: Option<Password>, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let text = match (given, file) {
        (Some(Password(text)), _) => text,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("requirepass-file {}: {error}", path.display())))?;
            let first = text.lines().next().unwrap_or_default().to_string();
            if first.is_empty() {
                return Err(ConfigError(format!("requirepass-file {}: its first line is empty", path.display())));
            }
            first
        }
        (None, None) => std::env::var(PASSWORD_VARIABLE).unwrap_or_default(),
    };
    if text.len() > PASSWORD_MAX {
        return Err(ConfigError(format!(
            "requirepass is {} bytes long: accepted are up to {PASSWORD_MAX}",
            text.len()
        )));
    }
    Ok((!text.is_empty()).then(|| Secret(text.into_bytes().into())))
}

/// One `--buffers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers(pub BufferMode);

/// Smallest and largest fixed buffer.
const FIXED_MIN: usize = 64;
const FIXED_MAX: usize = 1 << 20;

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
        if !(FIXED_MIN..=FIXED_MAX).contains(&bytes) {
            return Err(format!("a fixed buffer has {} to {}", Size(FIXED_MIN), Size(FIXED_MAX)));
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

/// All are texts in a file.
macro_rules! text_in_a_file {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|error| serde::de::Error::custom(format!("invalid value '{text}': {error}")))
            }
        }
    )*};
}

text_in_a_file!(Listen, Buffers, Policy, Networks);

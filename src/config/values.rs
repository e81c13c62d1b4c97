//! The values of settings that are not numbers: addresses, buffers, the password.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Value;

use crate::broker_settings::{self, BrokerPrefix, BrokerUrl, SharedPattern};
use crate::buffer::BufferMode;
use crate::limits::{FIXED_BUFFER_MAX, FIXED_BUFFER_MIN};
use crate::retain_rule::{self, RetainRule};
use crate::service::Secret;
use crate::services::SERVICES;
use crate::setting::{Notation, ValueForm, one, text, texts};
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

impl Notation for Vec<RetainRule> {
    type Value = Vec<RetainRule>;
    const HINT: &'static str = "CHANNEL";
    const FORM: ValueForm = ValueForm::Tables;

    fn read(texts: &[String]) -> Result<Vec<RetainRule>, String> {
        let rules: Vec<RetainRule> =
            texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        retain_rule::check(rules.iter().map(|rule| &*rule.channel))?;
        Ok(rules)
    }

    fn write(value: &Vec<RetainRule>) -> Option<Value> {
        let rules = value.iter().filter_map(|rule| match &rule.key {
            None => text(&rule.channel),
            Some(key) => {
                let max = Value::Integer(rule.max as i64);
                let texts = [("channel", &rule.channel), ("key", key)];
                let members = texts.map(|(name, text)| (name.into(), Value::String(text.clone())));
                Some(Value::Table(members.into_iter().chain([("max".into(), max)]).collect()))
            }
        });
        (!value.is_empty()).then(|| Value::Array(rules.collect()))
    }
}

impl Notation for Vec<BrokerUrl> {
    type Value = Vec<BrokerUrl>;
    const HINT: &'static str = "URL";
    const FORM: ValueForm = ValueForm::List;

    fn read(texts: &[String]) -> Result<Vec<BrokerUrl>, String> {
        let urls: Vec<BrokerUrl> =
            texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        broker_settings::check_urls(&urls)?;
        Ok(urls)
    }

    /// Writes the URLs without their passwords, because a password is never shown.
    fn write(value: &Vec<BrokerUrl>) -> Option<Value> {
        (!value.is_empty()).then(|| Value::Array(value.iter().filter_map(text).collect()))
    }
}

impl Notation for Vec<SharedPattern> {
    type Value = Vec<SharedPattern>;
    const HINT: &'static str = "PATTERN";
    const FORM: ValueForm = ValueForm::List;

    fn read(texts: &[String]) -> Result<Vec<SharedPattern>, String> {
        let patterns: Vec<SharedPattern> =
            texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        broker_settings::check_patterns(&patterns)?;
        Ok(patterns)
    }

    fn write(value: &Vec<SharedPattern>) -> Option<Value> {
        Some(Value::Array(value.iter().map(|one| &one.0).filter_map(text).collect()))
    }
}

impl Notation for BrokerPrefix {
    type Value = BrokerPrefix;
    const HINT: &'static str = "TEXT";
    const FORM: ValueForm = ValueForm::Text;

    fn read(texts: &[String]) -> Result<BrokerPrefix, String> {
        one(texts)
    }

    fn write(value: &BrokerPrefix) -> Option<Value> {
        text(value)
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

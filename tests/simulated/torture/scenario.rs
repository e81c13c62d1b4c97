//! A scenario of the torture: the services, the limits and the script, and the failure of a run.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use slabd::buffer::BufferMode;
use slabd::hub::Hub;
use slabd::limits::{CONNECTIONS_MAX, Limits, SILENT_MAX};
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret, Service};

use super::world::World;

/// The service of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hello,
    Echo,
    Hub,
    /// The hub with the password [`PASSWORD`].
    Locked,
    /// The hub over IPv6.
    Hub6,
    /// The hub's listener for the operator.
    Operator,
}

/// The password of [`Kind::Locked`].
pub const PASSWORD: &str = "sesame";

impl Kind {
    pub fn address(self) -> SocketAddr {
        match self {
            Kind::Hub6 => (Ipv6Addr::LOCALHOST, 0).into(),
            _ => (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    pub fn service(self) -> Box<dyn Service> {
        match self {
            Kind::Hello => Box::new(Hello),
            Kind::Echo => Box::new(Echo),
            Kind::Hub | Kind::Hub6 | Kind::Operator => Box::new(Hub::new(&Options::default())),
            Kind::Locked => {
                let password = Some(Secret(PASSWORD.as_bytes().into()));
                Box::new(Hub::new(&Options { password, ..Options::default() }))
            }
        }
    }

    /// Returns the first message of an honest client, and the end of its answer.
    pub fn probe(self) -> (&'static str, &'static str) {
        match self {
            Kind::Hello => ("Ada\n", "Hello, Ada!\r\n"),
            Kind::Echo => ("round", "round"),
            Kind::Hub | Kind::Hub6 | Kind::Operator => ("PING\r\n", "+PONG\r\n"),
            Kind::Locked => ("AUTH sesame\r\nPING\r\n", "+OK\r\n+PONG\r\n"),
        }
    }

    pub fn is_hub(self) -> bool {
        matches!(self, Kind::Hub | Kind::Hub6 | Kind::Operator | Kind::Locked)
    }
}

/// A script, and the loop on which it runs.
pub struct Scenario {
    pub name: &'static str,
    pub listeners: &'static [Kind],
    pub sockets: &'static [Kind],
    pub buffers: BufferMode,
    pub limits: fn() -> Limits,
    pub script: fn(&mut World),
}

/// The failing calls of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number of the first failing call.
    pub at: u64,
    pub errno: i32,
    /// The number of calls of this kind that fail in a row.
    pub times: u32,
}

/// The usual limits: many silent clients may connect, and the timeouts are longer than a script.
pub fn limits() -> Limits {
    Limits {
        max_connections: 64,
        max_silent: SILENT_MAX,
        max_silent_per_source: SILENT_MAX,
        max_connections_per_source: CONNECTIONS_MAX,
        first_message_timeout: 60 * SECOND,
        message_timeout: 60 * SECOND,
        idle_timeout: 60 * SECOND,
        output_timeout: 60 * SECOND,
        close_timeout: SECOND,
        drain_timeout: 3 * SECOND,
        ..Limits::default()
    }
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

/// Returns this many letters, in a pattern that shows lost and swapped bytes.
pub fn text(length: usize) -> Vec<u8> {
    (0..length).map(|index| b'a' + (index % 23) as u8).collect()
}

//! Inherited sockets take the place of listening addresses, by name or by order.

use super::{Config, ConfigError, Listen};
use crate::inherited::InheritedSocket;
use crate::services::SERVICES;

/// The name of the socket of the operator.
const ADMIN: &str = "admin";

impl Config {
    /// Gives each inherited socket to a service. The addresses of `--listen` for a service that has
    /// inherited sockets are not used.
    pub(super) fn inherit(&mut self, sockets: &[InheritedSocket]) -> Result<(), ConfigError> {
        let mut inherited: Vec<Listen> = Vec::new();
        // By order, each address of the configuration stands for one socket of each kind.
        let mut left = self.listen.clone();
        for socket in sockets {
            if socket.name == ADMIN {
                self.inherit_admin(socket)?;
                continue;
            }
            let service = service_of(socket, &mut left)?;
            let (address, is_stream) = (socket.address, socket.is_stream);
            let twin = inherited.iter_mut().find(|listen| {
                let has_kind = if is_stream { listen.tcp } else { listen.udp };
                listen.service == service && listen.address == address && !has_kind
            });
            match twin {
                Some(listen) => (listen.tcp, listen.udp) = (true, true),
                None => {
                    inherited.push(Listen { service, address, tcp: is_stream, udp: !is_stream })
                }
            }
        }
        let is_replaced =
            |listen: &Listen| inherited.iter().any(|other| other.service == listen.service);
        self.listen.retain(|listen| !is_replaced(listen));
        self.listen.splice(0..0, inherited);
        Ok(())
    }

    fn inherit_admin(&mut self, socket: &InheritedSocket) -> Result<(), ConfigError> {
        if !socket.is_stream {
            return Err(ConfigError(format!(
                "inherited socket {} is for '{ADMIN}' and of UDP; accepted: TCP",
                socket.address
            )));
        }
        self.admin = Some(socket.address);
        Ok(())
    }
}

/// Returns the service of a socket. Without a name of its own, a socket belongs to the first
/// listening address of its kind that has no socket yet. The name of a socket unit is no name of
/// its own: systemd.socket(5), FileDescriptorName.
fn service_of(socket: &InheritedSocket, left: &mut [Listen]) -> Result<String, ConfigError> {
    let InheritedSocket { name, address, is_stream, .. } = socket;
    if SERVICES.iter().any(|(service, _)| service == name) {
        return Ok(name.clone());
    }
    if !name.is_empty() && name != "unknown" && !name.ends_with(".socket") {
        let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).chain([ADMIN]).collect();
        return Err(ConfigError(format!(
            "inherited socket {address} is named '{name}'; accepted: {}",
            names.join(", ")
        )));
    }
    let kind = |listen: &mut Listen| -> bool {
        std::mem::take(if *is_stream { &mut listen.tcp } else { &mut listen.udp })
    };
    // Taking the kind of an address uses it up.
    let service = left.iter_mut().find_map(|listen| kind(listen).then(|| listen.service.clone()));
    service.ok_or_else(|| {
        let kind = if *is_stream { "TCP" } else { "UDP" };
        ConfigError(format!(
            "inherited socket {address} has no name, and listen has no further address of {kind}; \
             accepted: a name such as FileDescriptorName=hub, or a listen address for it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::machine::Machine;
    use std::path::Path;

    fn sockets(all: &[(&str, &str, &str)]) -> Vec<InheritedSocket> {
        let sockets = all.iter().enumerate().map(|(at, (name, kind, address))| InheritedSocket {
            number: 3 + at as i32,
            name: (*name).into(),
            address: address.parse().unwrap(),
            is_stream: *kind == "tcp",
        });
        sockets.collect()
    }

    /// Returns the listening addresses and the operator's one, or the error.
    fn listen(toml: &str, inherited: &[(&str, &str, &str)]) -> Result<String, String> {
        let machine = Machine { inherited: Ok(sockets(inherited)), ..Machine::with_files(20_000) };
        let settings = Settings::parse(toml, Path::new("slabd.toml")).unwrap();
        let config = settings.resolve(&machine).map_err(|error| error.0)?;
        let mut words: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        words.extend(config.admin.map(|admin| format!("admin={admin}")));
        Ok(words.join(" "))
    }

    #[test]
    fn an_inherited_socket_replaces_the_addresses_of_its_service() {
        let two = "listen = [\"hub=127.0.0.1:7\", \"echo=127.0.0.1:8\"]";
        for (toml, inherited, expected) in [
            (two, &[][..], "hub=127.0.0.1:7 echo=127.0.0.1:8"),
            // By name.
            (
                two,
                &[("echo", "tcp", "127.0.0.1:70"), ("echo", "udp", "127.0.0.1:71")],
                "echo+tcp=127.0.0.1:70 echo+udp=127.0.0.1:71 hub=127.0.0.1:7",
            ),
            // Both kinds at one address.
            (
                two,
                &[("hub", "tcp", "127.0.0.1:70"), ("hub", "udp", "127.0.0.1:70")],
                "hub=127.0.0.1:70 echo=127.0.0.1:8",
            ),
            // A service that is not configured.
            ("", &[("hello", "tcp", "[::1]:7")], "hello+tcp=[::1]:7 hub=127.0.0.1:9999"),
            // By order and kind.
            (
                two,
                &[
                    ("", "udp", "127.0.0.1:70"),
                    ("unknown", "tcp", "127.0.0.1:70"),
                    ("slabd.socket", "tcp", "127.0.0.1:71"),
                ],
                "hub=127.0.0.1:70 echo+tcp=127.0.0.1:71",
            ),
            ("", &[("admin", "tcp", "127.0.0.1:70")], "hub=127.0.0.1:9999 admin=127.0.0.1:70"),
        ] {
            assert_eq!(listen(toml, inherited), Ok(expected.into()), "{toml} {inherited:?}");
        }
    }

    #[test]
    fn an_inherited_socket_without_a_service_is_an_error_that_says_what_is_accepted() {
        for (inherited, error) in [
            (
                &[("web", "tcp", "127.0.0.1:70")][..],
                "inherited socket 127.0.0.1:70 is named 'web'; \
                 accepted: hello, echo, discard, hub, admin",
            ),
            (
                &[("", "tcp", "127.0.0.1:70"), ("", "tcp", "127.0.0.1:71")],
                "inherited socket 127.0.0.1:71 has no name, and listen has no further address of \
                 TCP; accepted: a name such as FileDescriptorName=hub, or a listen address for it",
            ),
            (
                &[("admin", "udp", "127.0.0.1:70")],
                "inherited socket 127.0.0.1:70 is for 'admin' and of UDP; accepted: TCP",
            ),
            (
                &[("admin", "tcp", "192.0.2.1:70")],
                "admin is 192.0.2.1:70; accepted: a loopback address, such as 127.0.0.1:9998",
            ),
        ] {
            assert_eq!(listen("", inherited), Err(error.into()));
        }
        let machine = Machine { inherited: Err("no".into()), ..Machine::with_files(20_000) };
        assert_eq!(Settings::default().resolve(&machine).unwrap_err().0, "no");
    }

    /// Other machines reach it, as they reach an address of `--listen`.
    #[test]
    fn an_inherited_hub_without_a_password_warns() {
        let inherited = Ok(sockets(&[("", "tcp", "0.0.0.0:70")]));
        let machine = Machine { inherited, ..Machine::with_files(20_000) };
        let config = Settings::default().resolve(&machine).unwrap();
        assert!(config.warnings[0].starts_with("hub+tcp=0.0.0.0:70: no password"));
    }
}

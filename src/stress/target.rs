//! The server under test: `resp://[[USER]:PASSWORD@]HOST[:PORT]`, `http://HOST[:PORT]/PATH`,
//! `tcp://HOST:PORT` or `udp://HOST:PORT`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::service::Secret;

/// A server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub scheme: Scheme,
    /// Host and port as given, for the Host header and for reports.
    pub host: String,
    pub address: SocketAddr,
    /// Path of an HTTP request.
    pub path: String,
    /// Redis user; `None` is the default user.
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// The protocol of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Tcp,
    Udp,
    Resp,
    Http,
}

impl Scheme {
    const ALL: [(&'static str, Scheme); 4] = [
        ("tcp", Scheme::Tcp),
        ("udp", Scheme::Udp),
        ("resp", Scheme::Resp),
        ("http", Scheme::Http),
    ];

    /// Returns the scheme as written before `://`.
    pub fn name(self) -> &'static str {
        Scheme::ALL.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// Returns the protocol's usual port, if it has one.
    fn port(self) -> Option<u16> {
        match self {
            Scheme::Resp => Some(6379),
            Scheme::Http => Some(80),
            Scheme::Tcp | Scheme::Udp => None,
        }
    }
}

impl Target {
    /// Parses a target and resolves its host. The error starts with the text and gives an example.
    pub fn parse(text: &str) -> Result<Target, String> {
        let wrong = |why: String| format!("target {text}: {why}");
        let example = "expected resp://, http://, tcp:// or udp:// and HOST:PORT, \
            such as resp://127.0.0.1:6379";
        let (name, rest) =
            text.split_once("://").ok_or_else(|| wrong(format!("no scheme; {example}")))?;
        let scheme =
            Scheme::ALL.iter().find(|(known, _)| *known == name).map(|(_, scheme)| *scheme);
        let scheme = scheme.ok_or_else(|| wrong(format!("unknown scheme {name}://; {example}")))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if scheme != Scheme::Http && !path.trim_start_matches('/').is_empty() {
            return Err(wrong(format!("{name}:// takes no path; expected {name}://{authority}")));
        }
        if path.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err(wrong(
                "the path contains a space or a control character; escape it, as in %20".into(),
            ));
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        if credentials.is_some() && scheme != Scheme::Resp {
            return Err(wrong(format!("{name}:// takes no password; expected {name}://{host}")));
        }
        let (user, password) =
            match credentials.map(|words| words.split_once(':').unwrap_or(("", words))) {
                Some((user, password)) => (
                    (!user.is_empty()).then(|| user.to_string()),
                    Some(Secret(password.as_bytes().into())),
                ),
                None => (None, None),
            };
        let (full, address) = resolve(scheme, host).map_err(wrong)?;
        let path = if path.is_empty() { "/" } else { path }.to_string();
        Ok(Target { scheme, host: full, address, path, user, password })
    }

    /// True if the target is a loopback address of this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// Splits `HOST[:PORT]` and resolves it. Returns the host with its port as text, and its first
/// address.
fn resolve(scheme: Scheme, authority: &str) -> Result<(String, SocketAddr), String> {
    let name = scheme.name();
    // The colons within the brackets of an IPv6 address are not the port's.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err(format!("no host; expected one, as in {name}://127.0.0.1:7379"));
    }
    let is_open = host.starts_with('[') && !host.ends_with(']');
    if is_open || host.contains(':') && !host.starts_with('[') {
        return Err(format!("an IPv6 address needs brackets, as in {name}://[::1]:7379"));
    }
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
            format!("'{port}' is not a port; accepted: 1 to 65535, as in {name}://{host}:7379")
        })?,
        None => scheme.port().ok_or_else(|| {
            format!("{name}:// needs a port from 1 to 65535, as in {name}://{host}:7379")
        })?,
    };
    let full = format!("{host}:{port}");
    let unresolved = |why: &str| {
        format!("cannot resolve {host}: {why}; expected an address, or a name in DNS or /etc/hosts")
    };
    let mut found = full.to_socket_addrs().map_err(|error| unresolved(&error.to_string()))?;
    let address = found.next().ok_or_else(|| unresolved("it has no address"))?;
    Ok((full, address))
}

/// Leaves the password out.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.scheme.name();
        let path = if self.scheme == Scheme::Http { &self.path } else { "" };
        write!(f, "{name}://{}{path}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_gives_scheme_address_path_and_credentials() {
        let target = Target::parse("resp://127.0.0.1").unwrap();
        assert_eq!(
            (target.scheme, target.address),
            (Scheme::Resp, "127.0.0.1:6379".parse().unwrap())
        );
        assert!(target.is_loopback());
        let target = Target::parse("resp://me:se@cret@127.0.0.1:7").unwrap();
        assert_eq!((target.user.as_deref(), target.address.port()), (Some("me"), 7));
        assert_eq!(target.password, Some(Secret(b"se@cret"[..].into())));
        assert_eq!(target.to_string(), "resp://127.0.0.1:7");
        assert_eq!(Target::parse("resp://:word@127.0.0.1").unwrap().user, None);
        let target = Target::parse("http://[::1]/a/b?c").unwrap();
        assert_eq!((target.address, target.path.as_str()), ("[::1]:80".parse().unwrap(), "/a/b?c"));
        assert_eq!(Target::parse("http://127.0.0.1:8080").unwrap().path, "/");
        assert_eq!(Target::parse("udp://127.0.0.1:9").unwrap().scheme, Scheme::Udp);
        assert!(!Target::parse("tcp://192.0.2.1:9").unwrap().is_loopback());
    }

    #[test]
    fn an_unusable_target_is_refused_with_the_reason_and_an_example() {
        for (text, why) in [
            ("127.0.0.1:80", "no scheme; expected resp://"),
            ("ftp://127.0.0.1:80", "unknown scheme ftp://; expected resp://"),
            ("tcp://127.0.0.1", "needs a port from 1 to 65535, as in tcp://127.0.0.1:7379"),
            ("tcp://127.0.0.1:", "needs a port"),
            ("tcp://127.0.0.1:0", "'0' is not a port; accepted: 1 to 65535"),
            ("resp://127.0.0.1:70000", "'70000' is not a port"),
            ("http://[::1]:x/", "'x' is not a port"),
            ("resp://", "no host"),
            ("tcp://:9", "no host"),
            ("tcp://::1:9", "needs brackets, as in tcp://[::1]:7379"),
            ("tcp://[::1", "needs brackets"),
            ("resp://nowhere.invalid", "cannot resolve nowhere.invalid"),
            ("tcp://127.0.0.1:9/x", "takes no path"),
            ("tcp://a@127.0.0.1:9", "takes no password"),
            ("tcp://127.0.0.1:99999", "'99999' is not a port"),
            ("http://127.0.0.1/a b", "%20"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}

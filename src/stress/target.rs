//! What is tested: `resp://[:PASSWORD@]HOST:PORT`, `http://HOST:PORT/PATH`, `tcp://HOST:PORT` or `udp://HOST:PORT`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::service::Secret;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub scheme: Scheme,
    /// As it was given, for the Host header and for people.
    pub host: String,
    pub address: SocketAddr,
    /// Of an HTTP request.
    pub path: String,
    /// Of a Redis user, or of the default one.
    pub user: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Tcp,
    Udp,
    Resp,
    Http,
}

impl Scheme {
    const ALL: [(&'static str, Scheme); 4] =
        [("tcp", Scheme::Tcp), ("udp", Scheme::Udp), ("resp", Scheme::Resp), ("http", Scheme::Http)];

    pub fn name(self) -> &'static str {
        Scheme::ALL.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// The port that goes without saying, where there is one.
    fn port(self) -> Option<u16> {
        match self {
            Scheme::Resp => Some(6379),
            Scheme::Http => Some(80),
            Scheme::Tcp | Scheme::Udp => None,
        }
    }
}

impl Target {
    /// Reads a target, and looks its host up.
    pub fn parse(text: &str) -> Result<Target, String> {
        let wrong = |why: String| format!("target {text}: {why}");
        let expected = "expected tcp://, udp://, resp:// or http:// with HOST:PORT, such as resp://127.0.0.1:6379";
        let (name, rest) = text.split_once("://").ok_or_else(|| wrong(expected.into()))?;
        let scheme = Scheme::ALL.iter().find(|(known, _)| *known == name).map(|(_, scheme)| *scheme);
        let scheme = scheme.ok_or_else(|| wrong(expected.into()))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if scheme != Scheme::Http && !path.trim_start_matches('/').is_empty() {
            return Err(wrong(format!("{name}:// takes no path")));
        }
        if path.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err(wrong("the path holds a space or a control character; write it as %20".into()));
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        if credentials.is_some() && scheme != Scheme::Resp {
            return Err(wrong(format!("{name}:// takes no password")));
        }
        let (user, password) = match credentials.map(|words| words.split_once(':').unwrap_or(("", words))) {
            Some((user, password)) => {
                ((!user.is_empty()).then(|| user.to_string()), Some(Secret(password.as_bytes().into())))
            }
            None => (None, None),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'));
        let full = match (has_port, scheme.port()) {
            (true, _) => host.to_string(),
            (false, Some(port)) => format!("{host}:{port}"),
            (false, None) => return Err(wrong(format!("{name}:// needs a port, as in {name}://127.0.0.1:7379"))),
        };
        let mut found = full.to_socket_addrs().map_err(|error| wrong(format!("cannot look up {full}: {error}")))?;
        let address = found.next().ok_or_else(|| wrong(format!("{full} has no address")))?;
        let path = if path.is_empty() { "/" } else { path }.to_string();
        Ok(Target { scheme, host: full, address, path, user, password })
    }

    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// Without the password.
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
    fn targets_are_read() {
        let target = Target::parse("resp://127.0.0.1").unwrap();
        assert_eq!((target.scheme, target.address), (Scheme::Resp, "127.0.0.1:6379".parse().unwrap()));
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
    fn what_cannot_be_used_is_said() {
        for (text, why) in [
            ("127.0.0.1:80", "resp://"),
            ("ftp://127.0.0.1:80", "resp://"),
            ("tcp://127.0.0.1", "needs a port"),
            ("tcp://127.0.0.1:9/x", "takes no path"),
            ("tcp://a@127.0.0.1:9", "takes no password"),
            ("tcp://127.0.0.1:99999", "cannot look up"),
            ("http://127.0.0.1/a b", "%20"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}

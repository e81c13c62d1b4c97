//! The server under test, as a URL: `http://[USER:PASSWORD@]HOST[:PORT]/PATH?QUERY`, the same with
//! `ws://` or `sse+http://`, `socketio://[USER:PASSWORD@]HOST[:PORT][/NAMESPACE]`,
//! `resp://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, `tcp://HOST:PORT`
//! or `udp://HOST:PORT`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

use super::meter::reason;
use super::resp::command;
use crate::service::Secret;

/// Time for one address of a name to answer a connect, before the next one is tried.
const TRY_TIME: Duration = Duration::from_secs(2);

/// Time in which a closed port answers a datagram on a network without loss.
const DATAGRAM_TRY_TIME: Duration = Duration::from_millis(200);

/// A server under test.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub scheme: Scheme,
    /// Host and port, for reports. An IPv6 address has brackets.
    pub host: String,
    /// The address in use.
    pub address: SocketAddr,
    /// All addresses of the host, in the resolver's order.
    pub addresses: Vec<SocketAddr>,
    /// The addresses that were tried before the one in use, each with the reason why it is not.
    pub failed: Vec<(SocketAddr, String)>,
    /// Path and query of a request of HTTP, WebSocket or events; the namespace of Socket.IO.
    pub path: String,
    /// Number of the Redis database.
    pub database: Option<u32>,
    /// User; `None` is the default user of Redis.
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
    WebSocket,
    SocketIo,
    /// Server-sent events over HTTP.
    Events,
}

impl Scheme {
    const ALL: [(&'static str, Scheme); 9] = [
        ("tcp", Scheme::Tcp),
        ("udp", Scheme::Udp),
        ("resp", Scheme::Resp),
        ("redis", Scheme::Resp),
        ("valkey", Scheme::Resp),
        ("http", Scheme::Http),
        ("ws", Scheme::WebSocket),
        ("socketio", Scheme::SocketIo),
        ("sse+http", Scheme::Events),
    ];

    /// Schemes of the same protocols over TLS, and their counterparts.
    const OVER_TLS: [(&'static str, &'static str); 7] = [
        ("https", "http"),
        ("wss", "ws"),
        ("sse+https", "sse+http"),
        ("rediss", "redis"),
        ("valkeys", "valkey"),
        ("resps", "resp"),
        ("tls", "tcp"),
    ];

    /// Returns the scheme as written before `://`.
    pub fn name(self) -> &'static str {
        Scheme::ALL.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// Returns the scheme of this name. Its case does not matter.
    fn parse(name: &str) -> Result<Scheme, String> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if let Some((_, scheme)) = Scheme::ALL.iter().find(|(known, _)| is(known)) {
            return Ok(*scheme);
        }
        Err(match Scheme::OVER_TLS.iter().find(|(known, _)| is(known)) {
            Some((known, plain)) => format!(
                "{known}:// needs TLS, which slabd stress does not speak; expected {plain}:// and \
                 a port without TLS"
            ),
            None => format!("unknown scheme {}://; {EXAMPLE}", printable(name)),
        })
    }

    /// True if a connection begins with a request of HTTP, which has a path and headers.
    pub fn is_http(self) -> bool {
        use Scheme::{Events, Http, SocketIo, WebSocket};
        matches!(self, Http | WebSocket | SocketIo | Events)
    }

    /// Returns the protocol's usual port, if it has one.
    fn port(self) -> Option<u16> {
        match self {
            Scheme::Resp => Some(6379),
            Scheme::Tcp | Scheme::Udp => None,
            _ => Some(80),
        }
    }
}

const EXAMPLE: &str = "expected resp://, redis://, http://, ws://, sse+http://, tcp://, udp:// \
    or socketio:// and HOST:PORT, such as resp://127.0.0.1:6379";

impl Target {
    /// Parses a target and resolves its host. The error starts with the text and gives an example.
    pub fn parse(text: &str) -> Result<Target, String> {
        if text.is_empty() {
            return Err(format!("the target is empty; {EXAMPLE}"));
        }
        let wrong = |why: String| format!("target {}: {why}", without_secret(text));
        let (name, rest) =
            text.split_once("://").ok_or_else(|| wrong(format!("no scheme; {EXAMPLE}")))?;
        let scheme = Scheme::parse(name).map_err(wrong)?;
        let name = scheme.name();
        let is_unsafe = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        if rest.contains(is_unsafe) {
            return Err(wrong(
                "it contains a space, a control character or a backslash; escape it, as in %20 \
                 or %5C"
                    .into(),
            ));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, authority),
        };
        if credentials.is_some() && matches!(scheme, Scheme::Tcp | Scheme::Udp) {
            return Err(wrong(format!("{name}:// takes no password; expected {name}://{place}")));
        }
        let (host, port) = host_and_port(scheme, place).map_err(wrong)?;
        // Within a URL of http, the crate decodes a host as RFC 3986 and IDNA have it.
        let url = Url::parse(&format!("http://{host}{path}"))
            .map_err(|error| wrong(format!("{error}; {EXAMPLE}")))?;
        let host = url.host().ok_or_else(|| wrong(format!("no host; {EXAMPLE}")))?;
        let (mut path, mut number) = (&url[Position::BeforePath..Position::AfterQuery], None);
        let name;
        if scheme == Scheme::SocketIo {
            name = namespace(place, &url).map_err(wrong)?;
            path = &name;
        } else if !scheme.is_http() {
            number = database(scheme, place, &url).map_err(wrong)?;
        }
        let addresses = resolve(&host, port).map_err(wrong)?;
        let (user, password) =
            credentials.map_or((None, None), |words| user_and_password(scheme, words));
        Ok(Target {
            scheme,
            host: format!("{host}:{port}"),
            address: addresses[0],
            addresses,
            failed: Vec::new(),
            path: path.into(),
            database: number,
            user,
            password,
        })
    }

    /// True if the target is a loopback address of this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Returns host and port as in a Host header: without the port if it is the usual one.
    pub fn authority(&self) -> &str {
        let usual = self.scheme.port().map(|port| format!(":{port}"));
        usual.and_then(|port| self.host.strip_suffix(&port)).unwrap_or(&self.host)
    }

    /// Returns the host without its port.
    pub fn name(&self) -> &str {
        self.host.rsplit_once(':').map_or(&self.host, |(name, _)| name)
    }

    /// Returns the commands that begin a connection to a Redis server.
    pub fn login(&self) -> Vec<Vec<u8>> {
        let mut commands = Vec::new();
        if let Some(password) = &self.password {
            commands.push(match &self.user {
                Some(user) => command(&[b"AUTH", user.as_bytes(), &password.0]),
                None => command(&[b"AUTH", &password.0]),
            });
        }
        commands.extend(
            self.database.map(|number| command(&[b"SELECT", number.to_string().as_bytes()])),
        );
        commands
    }

    /// Tries the addresses of a name in turn, and uses the first that has a server. `accepts` says
    /// which addresses the run can use. A name with one address is not tried.
    pub fn choose(&mut self, timeout: Duration, accepts: impl Fn(IpAddr) -> bool) {
        let usable: Vec<SocketAddr> =
            self.addresses.iter().copied().filter(|address| accepts(address.ip())).collect();
        self.address = usable.first().copied().unwrap_or(self.address);
        if usable.len() < 2 {
            return;
        }
        let mut failed = Vec::new();
        for address in usable {
            let tried = match self.scheme {
                Scheme::Udp => try_datagram(address),
                _ => TcpStream::connect_timeout(&address, timeout.min(TRY_TIME)).map(drop),
            };
            match tried {
                Ok(()) => {
                    self.address = address;
                    self.failed = failed;
                    return;
                }
                Err(error) => failed.push((address, reason(&error))),
            }
        }
        self.failed = failed;
    }
}

/// Sends an empty datagram. Fails if the port is closed, which the system says to a connected
/// socket.
fn try_datagram(address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(DATAGRAM_TRY_TIME))?;
    socket.send(&[])?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        // A server need not answer an empty datagram.
        _ => Ok(()),
    }
}

/// Splits `HOST[:PORT]`. The brackets of an IPv6 address stay.
fn host_and_port(scheme: Scheme, place: &str) -> Result<(&str, u16), String> {
    let name = scheme.name();
    // The colons within the brackets of an IPv6 address are not the port's.
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (place, None),
    };
    if host.is_empty() {
        return Err(format!("no host; expected one, as in {name}://127.0.0.1:7379"));
    }
    let is_open = host.starts_with('[') && !host.ends_with(']');
    if is_open || host.contains(':') && !host.starts_with('[') {
        return Err(format!("an IPv6 address needs brackets, as in {name}://[::1]:7379"));
    }
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse::<u16>().ok().filter(|port| is_number && *port > 0);
            number.ok_or_else(|| {
                format!(
                    "'{}' is not a port; accepted: 1 to 65535, as in {name}://{host}:7379",
                    printable(port)
                )
            })?
        }
        None => scheme.port().ok_or_else(|| {
            format!("{name}:// needs a port from 1 to 65535, as in {name}://{host}:7379")
        })?,
    };
    Ok((host, port))
}

/// Returns the database in the path of a Redis target. Fails on any other path, and on a query.
fn database(scheme: Scheme, place: &str, url: &Url) -> Result<Option<u32>, String> {
    let name = scheme.name();
    if url.query().is_some() {
        return Err(format!("{name}:// takes no query; expected {name}://{place}"));
    }
    match (scheme, url.path()) {
        (_, "/") => Ok(None),
        (Scheme::Resp, path) => path[1..].parse().map(Some).map_err(|_| {
            format!("the path is not the number of a database; expected {name}://{place}/0")
        }),
        _ => Err(format!("{name}:// takes no path; expected {name}://{place}")),
    }
}

/// Returns the namespace in the path of a target, as packets have it. Fails on a query, and on a
/// path that cannot be a namespace.
fn namespace(place: &str, url: &Url) -> Result<String, String> {
    let name = percent_decode_str(url.path())
        .decode_utf8()
        .ok()
        .filter(|name| !name.contains(|c: char| matches!(c, ',' | '?') || c.is_control()));
    name.filter(|_| url.query().is_none()).map(Cow::into_owned).ok_or_else(|| {
        format!(
            "a namespace has neither a query nor a comma; expected socketio://{place}/NAMESPACE"
        )
    })
}

/// Returns the user and the password before the `@`. Of Redis, a single word is the password.
fn user_and_password(scheme: Scheme, words: &str) -> (Option<String>, Option<Secret>) {
    let user = |word: &str| {
        (!word.is_empty()).then(|| percent_decode_str(word).decode_utf8_lossy().into_owned())
    };
    let password = |word: &str| {
        let decoded: Vec<u8> = percent_decode_str(word).collect();
        (!decoded.is_empty()).then(|| Secret(decoded.into()))
    };
    match (words.split_once(':'), scheme) {
        (Some((name, word)), _) => (user(name), password(word)),
        (None, scheme) if scheme.is_http() => (user(words), None),
        (None, _) => (None, password(words)),
    }
}

/// Returns the addresses of a host, without repetitions.
fn resolve(host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, String> {
    let name = match host {
        Host::Ipv4(address) => return Ok(vec![(*address, port).into()]),
        Host::Ipv6(address) => return Ok(vec![(*address, port).into()]),
        Host::Domain(name) => *name,
    };
    let unresolved = |why: &str| {
        format!("cannot resolve {name}: {why}; expected an address, or a name in DNS or /etc/hosts")
    };
    let found = (name, port).to_socket_addrs().map_err(|error| unresolved(&error.to_string()))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(unresolved("it has no address")) } else { Ok(addresses) }
}

/// Returns the text of a target for an error. What may be a password is left out: all up to the
/// last `@`.
pub fn without_secret(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let shown = match rest.rsplit_once('@') {
        Some((_, place)) => format!("…@{}", without_token(place)),
        None => without_token(rest),
    };
    printable(&format!("{scheme}{shown}"))
}

/// Returns a path whose parameter `token`, which is a password, has no value.
fn without_token(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.into() };
    let shown = query.split('&').map(|pair| match pair.starts_with(TOKEN) {
        true => HIDDEN,
        false => pair,
    });
    format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
}

/// The parameter of a query that gives a password, and how a report shows it.
const TOKEN: &str = "token=";
const HIDDEN: &str = "token=…";

/// Returns a text without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Leaves user and password out.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.host)?;
        match (self.scheme, self.database) {
            (scheme, _) if scheme.is_http() => f.write_str(&without_token(&self.path)),
            (_, Some(number)) => write!(f, "/{number}"),
            _ => Ok(()),
        }
    }
}

/// Leaves the password out, also that of the query.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.to_string())
            .field("user", &self.user)
            .field("address", &self.address)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
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
    fn a_url_is_read_as_rfc_3986_has_it() {
        for (text, address, path, authority) in [
            ("http://127.0.0.1:18700/p#frag", "127.0.0.1:18700", "/p", "127.0.0.1:18700"),
            ("http://127.0.0.1:18700?q=1", "127.0.0.1:18700", "/?q=1", "127.0.0.1:18700"),
            ("http://127.0.0.1?q=1#f?x", "127.0.0.1:80", "/?q=1", "127.0.0.1"),
            ("http://127.0.0.1#f", "127.0.0.1:80", "/", "127.0.0.1"),
            (
                "http://127.0.0.1:80/a%2Fb%20c?d=%26",
                "127.0.0.1:80",
                "/a%2Fb%20c?d=%26",
                "127.0.0.1",
            ),
            ("http://127.0.0.1:/", "127.0.0.1:80", "/", "127.0.0.1"),
            ("HTTP://[::1]:8080/é?ü", "[::1]:8080", "/%C3%A9?%C3%BC", "[::1]:8080"),
            ("http://[0:0::1]", "[::1]:80", "/", "[::1]"),
            ("http://127.0.0.1/a/../b/./c?e/../f", "127.0.0.1:80", "/b/c?e/../f", "127.0.0.1"),
            ("http://127.0.0.1/?", "127.0.0.1:80", "/?", "127.0.0.1"),
            ("http://127.0.0.1/a@b:c", "127.0.0.1:80", "/a@b:c", "127.0.0.1"),
            ("http://u:p@127.0.0.1:81/", "127.0.0.1:81", "/", "127.0.0.1:81"),
            ("http://%31%32%37.0.0.1/", "127.0.0.1:80", "/", "127.0.0.1"),
            (
                "ws://127.0.0.1/ws/a%20b?slow=drop",
                "127.0.0.1:80",
                "/ws/a%20b?slow=drop",
                "127.0.0.1",
            ),
            ("socketio://127.0.0.1/chat", "127.0.0.1:80", "/chat", "127.0.0.1"),
            ("sse+http://127.0.0.1:9/events/a", "127.0.0.1:9", "/events/a", "127.0.0.1:9"),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.address, address.parse().unwrap(), "{text}");
            assert_eq!((target.path.as_str(), target.authority()), (path, authority), "{text}");
        }
        // Names beyond ASCII are asked for as IDNA writes them.
        let error = Target::parse("http://bücher.invalid/").unwrap_err();
        assert!(error.contains("cannot resolve xn--bcher-kva.invalid"), "{error}");
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        for (text, user, password, shown) in [
            (
                "redis://me:p%40ss%2Fw@127.0.0.1/",
                Some("me"),
                Some("p@ss/w"),
                "resp://127.0.0.1:6379",
            ),
            ("redis://:s3@127.0.0.1:7/3", None, Some("s3"), "resp://127.0.0.1:7/3"),
            ("valkey://word@127.0.0.1", None, Some("word"), "resp://127.0.0.1:6379"),
            ("redis://me:@127.0.0.1", Some("me"), None, "resp://127.0.0.1:6379"),
            ("http://m%3Ae:a:b@127.0.0.1/x", Some("m:e"), Some("a:b"), "http://127.0.0.1:80/x"),
            ("http://me@127.0.0.1/x", Some("me"), None, "http://127.0.0.1:80/x"),
            ("http://127.0.0.1/x", None, None, "http://127.0.0.1:80/x"),
            ("ws://127.0.0.1/x?token=s3&a=b", None, None, "ws://127.0.0.1:80/x?token=…&a=b"),
            ("socketio://:s3@127.0.0.1/x", None, Some("s3"), "socketio://127.0.0.1:80/x"),
            ("sse+http://me@127.0.0.1/x", Some("me"), None, "sse+http://127.0.0.1:80/x"),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.user.as_deref(), user, "{text}");
            let password = password.map(|word| Secret(word.as_bytes().into()));
            assert_eq!(target.password, password, "{text}");
            assert_eq!(target.to_string(), shown, "{text}");
            let debug = format!("{target:?}");
            for secret in ["s3", "p@ss", "word", "a:b"] {
                assert!(!debug.contains(secret), "{debug}");
            }
        }
        for text in [
            "redis://:s3cret@127.0.0.1:x",
            "redis://:s3cret@",
            "redis://:s3/cret@127.0.0.1",
            "rediss://:s3cret@127.0.0.1",
            "http://u:s3cret@127.0.0.1:99999/",
            "tcp://:s3cret@127.0.0.1:9",
            ":s3cret@127.0.0.1",
            "redis://:s3cret@nowhere.invalid",
            "redis://:s3#cret@127.0.0.1",
            "redis://:s3 cret@127.0.0.1",
            "redis://u:s3cret@127.0.0.1/x",
            "ws://127.0.0.1:x/?token=s3cret",
            "ws://u@127.0.0.1:x/?a&token=s3cret",
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(!error.contains("s3") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn an_unusable_target_is_refused_with_the_reason_and_an_example() {
        for (text, why) in [
            (
                "wss://127.0.0.1",
                "wss:// needs TLS, which slabd stress does not speak; expected ws://",
            ),
            ("sse+https://127.0.0.1/x", "expected sse+http:// and a port without TLS"),
            ("127.0.0.1:80", "no scheme; expected resp://"),
            ("ftp://127.0.0.1:80", "unknown scheme ftp://; expected resp://"),
            ("https://127.0.0.1", "https:// needs TLS, which slabd stress does not speak"),
            ("REDISS://127.0.0.1", "expected redis:// and a port without TLS"),
            ("sse://127.0.0.1", "unknown scheme sse://"),
            ("tcp://127.0.0.1", "needs a port from 1 to 65535, as in tcp://127.0.0.1:7379"),
            ("tcp://127.0.0.1:", "needs a port"),
            ("tcp://127.0.0.1:0", "'0' is not a port; accepted: 1 to 65535"),
            ("tcp://127.0.0.1:+9", "'+9' is not a port"),
            ("resp://127.0.0.1:70000", "'70000' is not a port"),
            ("http://[::1]:x/", "'x' is not a port"),
            ("resp://", "no host"),
            ("http://", "no host"),
            ("http:///x", "no host"),
            ("tcp://:9", "no host"),
            ("tcp://::1:9", "needs brackets, as in tcp://[::1]:7379"),
            ("tcp://[::1", "needs brackets"),
            ("http://[::g]/", "invalid IPv6 address"),
            ("http://256.1.1.1/", "invalid IPv4 address"),
            ("resp://nowhere.invalid", "cannot resolve nowhere.invalid"),
            ("tcp://127.0.0.1:9/x", "takes no path"),
            ("tcp://127.0.0.1:9?x", "takes no query"),
            (
                "socketio://127.0.0.1:9/a?x",
                "neither a query nor a comma; expected socketio://127.0",
            ),
            ("socketio://127.0.0.1:9/a,b", "neither a query nor a comma"),
            ("socketio://127.0.0.1:9/a%2Cb", "neither a query nor a comma"),
            ("socketio://127.0.0.1:9/a%0Ab", "neither a query nor a comma"),
            ("redis://127.0.0.1/x", "not the number of a database; expected resp://127.0.0.1/0"),
            ("redis://127.0.0.1/1/2", "not the number of a database"),
            ("redis://127.0.0.1?db=1", "takes no query"),
            ("tcp://127.0.0.1:99999", "'99999' is not a port"),
            ("http://127.0.0.1/a b", "%20"),
            ("http://127.0.0.1/a\\b", "%5C"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
        let error = Target::parse("tcp://a@127.0.0.1:9").unwrap_err();
        assert!(error.contains("tcp://…@127.0.0.1:9: tcp:// takes no password"), "{error}");
        assert!(!Target::parse("http://a\x1b[2J/").unwrap_err().contains('\x1b'));
        assert!(!Target::parse("\x1b://a").unwrap_err().contains('\x1b'));
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
            gone.local_addr().unwrap()
        };
        let second = Duration::from_secs(1);
        let with = |addresses: &[SocketAddr], scheme: &str| {
            let mut target = Target::parse(&format!("{scheme}://127.0.0.3:9")).unwrap();
            (target.addresses, target.address) = (addresses.to_vec(), addresses[0]);
            target
        };
        let mut target = with(&[closed, open], "tcp");
        target.choose(second, |_| true);
        assert_eq!((target.address, target.failed), (open, vec![(closed, "refused".into())]));
        let mut target = with(&[closed, open], "tcp");
        target.choose(second, |address| address == closed.ip());
        assert_eq!((target.address, target.failed.len()), (closed, 0), "the only usable one");
        let mut target = with(&[closed, closed], "tcp");
        target.choose(second, |_| true);
        assert_eq!((target.address, target.failed.len()), (closed, 2), "no server at all");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let open = socket.local_addr().unwrap();
        let mut target = with(&[closed, open], "udp");
        target.choose(second, |_| true);
        assert_eq!(target.address, open);
    }
}

//! The settings of the link to a broker: where it is, how to log in, and what is shared.
//!
//! A URL is `redis://[user[:password]@]host[:port][/database]`, or the Sentinels that know the
//! broker: `redis+sentinel://[user[:password]@]host[:port][,host[:port]…]/name[/database]`.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::limits::{
    BROKER_DATABASE_MAX, BROKER_HOSTS_MAX, BROKER_PATTERNS_MAX, BROKER_PREFIX_MAX, HOST_NAME_MAX,
    PASSWORD_MAX, PATTERN_MAX,
};
use crate::secret::Secret;

/// The settings that a link is created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    /// The brokers, to fail over to in turn. At least one.
    pub urls: Vec<BrokerUrl>,
    /// The text before every name at the broker.
    pub prefix: BrokerPrefix,
    /// The patterns of the channels that are shared.
    pub channels: Vec<SharedPattern>,
    /// The password for URLs without one.
    pub password: Option<Secret>,
    /// Longest message from the broker, in bytes. A longer one is dropped.
    pub max_message: usize,
}

/// The place of a broker, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// The broker, or its Sentinels.
    pub hosts: Vec<BrokerHost>,
    /// The name of the broker at its Sentinels. `None`: `hosts` is the broker itself.
    pub master: Option<String>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerHost {
    /// A name or an address. An IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
}

/// The text before every name at the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerPrefix(pub Box<str>);

/// A pattern of channels that are shared. By default it matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPattern(pub Box<str>);

const EXPECTED: &str = "expected redis://HOST, such as redis://user@broker.example:6379/0, or \
                        redis+sentinel://HOST,HOST/NAME";

const REDIS: &str = "redis://";
const SENTINEL: &str = "redis+sentinel://";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// The bytes of a user name or a name of Sentinel that stay as they are in a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl FromStr for BrokerUrl {
    type Err = String;

    /// An error never quotes the URL, because it may have a password.
    fn from_str(text: &str) -> Result<BrokerUrl, String> {
        let (rest, is_sentinel) = if let Some(rest) = text.strip_prefix(REDIS) {
            (rest, false)
        } else if let Some(rest) = text.strip_prefix(SENTINEL) {
            (rest, true)
        } else if text.starts_with("rediss://") || text.starts_with("rediss+sentinel://") {
            return Err("TLS is not available yet; accepted: redis:// and redis+sentinel://".into());
        } else {
            return Err(EXPECTED.into());
        };
        let (rest, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may have an @ that is not encoded.
        let (login, hosts) =
            rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
        if [hosts, path].iter().any(|part| part.contains(['?', '#'])) {
            return Err(format!("a URL of a broker has no ? and no #; {EXPECTED}"));
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let user = decoded(user, "user")?;
        let password = decoded(password, "password")?;
        if password.len() > PASSWORD_MAX || user.len() > PASSWORD_MAX {
            return Err(format!(
                "the user or password is too long; accepted: up to {PASSWORD_MAX} bytes"
            ));
        }
        let default_port = if is_sentinel { SENTINEL_PORT } else { REDIS_PORT };
        let hosts: Vec<BrokerHost> =
            hosts.split(',').map(|host| host_of(host, default_port)).collect::<Result<_, _>>()?;
        match hosts.len() {
            1 => {}
            _ if !is_sentinel => {
                return Err("a redis:// URL has one host; give --broker several times".into());
            }
            many if many > BROKER_HOSTS_MAX => {
                return Err(format!("{many} Sentinels; accepted: up to {BROKER_HOSTS_MAX}"));
            }
            _ => {}
        }
        let (master, database) = match is_sentinel {
            false => (None, path),
            true => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                let name = decoded(name, "name")?;
                if name.is_empty() || name.len() > HOST_NAME_MAX {
                    let wanted = "expected the broker's name at its Sentinels";
                    return Err(format!("{wanted}, such as redis+sentinel://HOST/mymaster"));
                }
                (Some(name), database)
            }
        };
        let database = match database {
            "" => 0,
            text => text.parse().ok().filter(|number| *number <= BROKER_DATABASE_MAX).ok_or_else(
                || format!("the database is no number; accepted: 0 to {BROKER_DATABASE_MAX}"),
            )?,
        };
        let password = (!password.is_empty()).then(|| Secret(password.into_bytes().into()));
        Ok(BrokerUrl {
            hosts,
            master,
            user: (!user.is_empty()).then_some(user),
            password,
            database,
        })
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str, what: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| format!("the {what} is not text in UTF-8"))
}

/// Reads a host and an optional port.
fn host_of(text: &str, default_port: u16) -> Result<BrokerHost, String> {
    // This scheme has rules for hosts, and 80 as its port.
    let url = Url::parse(&format!("http://{text}")).map_err(|_| EXPECTED.to_string())?;
    let is_host_alone = !text.is_empty()
        && !text.contains('@')
        && url.path() == "/"
        && !text.ends_with(['/', '\\', ':']);
    let host = url.host_str().filter(|host| is_host_alone && host.len() <= HOST_NAME_MAX);
    let host = host.ok_or_else(|| EXPECTED.to_string())?;
    let port = match url.port() {
        Some(0) => return Err("the port is 0; accepted: 1 to 65535".into()),
        Some(port) => port,
        None if text.ends_with(":80") => 80,
        None => default_port,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    Ok(BrokerHost { host, port })
}

impl BrokerHost {
    /// Returns the host and port that a Sentinel has named, if they are valid.
    pub fn of(host: &str, port: &str) -> Option<BrokerHost> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.into() };
        host_of(&format!("{host}:{port}"), REDIS_PORT).ok()
    }
}

impl fmt::Display for BrokerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Shows the URL without the password.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.master.is_some() { SENTINEL } else { REDIS })?;
        if let Some(user) = &self.user {
            write!(f, "{}@", utf8_percent_encode(user, PLAIN))?;
        }
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index > 0 { "," } else { "" })?;
        }
        if let Some(master) = &self.master {
            write!(f, "/{}", utf8_percent_encode(master, PLAIN))?;
        }
        write!(f, "/{}", self.database)
    }
}

impl FromStr for BrokerPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<BrokerPrefix, String> {
        match text.len() {
            ..=BROKER_PREFIX_MAX => Ok(BrokerPrefix(text.into())),
            length => Err(format!(
                "the prefix has {length} bytes; accepted: up to {BROKER_PREFIX_MAX} bytes"
            )),
        }
    }
}

impl fmt::Display for BrokerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for SharedPattern {
    fn default() -> SharedPattern {
        SharedPattern("*".into())
    }
}

impl FromStr for SharedPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<SharedPattern, String> {
        match text.len() {
            1..=PATTERN_MAX => Ok(SharedPattern(text.into())),
            length => Err(format!(
                "the pattern has {length} bytes; accepted: 1 to {PATTERN_MAX} bytes, such as news.*"
            )),
        }
    }
}

/// Fails if there are more brokers or patterns than are accepted.
pub fn check_count(what: &str, count: usize, most: usize) -> Result<(), String> {
    match count <= most {
        true => Ok(()),
        false => Err(format!("{count} {what}; accepted: up to {most}")),
    }
}

/// Checks the number of URLs.
pub fn check_urls(urls: &[BrokerUrl]) -> Result<(), String> {
    check_count("brokers", urls.len(), BROKER_HOSTS_MAX)
}

/// Checks the number of patterns.
pub fn check_patterns(patterns: &[SharedPattern]) -> Result<(), String> {
    check_count("patterns", patterns.len(), BROKER_PATTERNS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let url: BrokerUrl = text.parse()?;
        let password = url.password.as_ref().map(|secret| secret.0.escape_ascii().to_string());
        Ok(format!("{url} {:?} {}", url.user, password.unwrap_or_default()))
    }

    #[test]
    fn a_url_of_a_broker_is_read_and_written_without_its_password() {
        for (text, expected) in [
            ("redis://host", "redis://host:6379/0 None "),
            ("redis://host/", "redis://host:6379/0 None "),
            ("redis://host:80", "redis://host:80/0 None "),
            ("redis://HOST:7000/15", "redis://host:7000/15 None "),
            ("redis://127.0.0.1:1/65535", "redis://127.0.0.1:1/65535 None "),
            ("redis://[::1]", "redis://[::1]:6379/0 None "),
            ("redis://[::1]:7000", "redis://[::1]:7000/0 None "),
            ("redis://:S3cret@host", "redis://host:6379/0 None S3cret"),
            ("redis://ada@host", "redis://ada@host:6379/0 Some(\"ada\") "),
            ("redis://ada:@host", "redis://ada@host:6379/0 Some(\"ada\") "),
            ("redis://a%40b:p%3a%2F@host", "redis://a%40b@host:6379/0 Some(\"a@b\") p:/"),
            ("redis://ada:p:q@r@host", "redis://ada@host:6379/0 Some(\"ada\") p:q@r"),
            ("redis+sentinel://s/m", "redis+sentinel://s:26379/m/0 None "),
            (
                "redis+sentinel://u:p@s1,s2:1,[::1]:2/my%20name/7",
                "redis+sentinel://u@s1:26379,s2:1,[::1]:2/my%20name/7 Some(\"u\") p",
            ),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
            let shown = expected.split(' ').next().unwrap();
            let again: BrokerUrl = shown.parse().unwrap();
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(again, BrokerUrl { password: None, ..url.clone() });
            assert!(!format!("{url:?}").contains("S3cret"), "{url:?}");
        }
    }

    #[test]
    fn a_url_that_is_no_broker_is_refused_in_words_that_do_not_quote_it() {
        let long = format!("redis://:{}@host", "x".repeat(PASSWORD_MAX + 1));
        let name = format!("redis+sentinel://s/{}", "x".repeat(HOST_NAME_MAX + 1));
        let hosts = format!("redis+sentinel://{}s/m", "s,".repeat(BROKER_HOSTS_MAX));
        for (text, expected) in [
            ("rediss://u:Secret@host", "TLS is not available yet"),
            ("rediss+sentinel://u:Secret@host/m", "TLS is not available yet"),
            ("http://u:Secret@host", "expected redis://HOST"),
            ("Secret", "expected redis://HOST"),
            ("", "expected redis://HOST"),
            ("redis://", "expected redis://HOST"),
            ("redis://:Secret@", "expected redis://HOST"),
            ("redis://:Secret@host:", "expected redis://HOST"),
            ("redis://:Secret@host:x", "expected redis://HOST"),
            ("redis://:Secret@host:65536", "expected redis://HOST"),
            ("redis://:Secret@host:0", "the port is 0; accepted: 1 to 65535"),
            ("redis://:Secret@ho st", "expected redis://HOST"),
            ("redis://:Secret@::1", "expected redis://HOST"),
            ("redis://:Secret@host/x", "accepted: 0 to 65535"),
            ("redis://:Secret@host/65536", "accepted: 0 to 65535"),
            ("redis://:Secret@host/-1", "accepted: 0 to 65535"),
            ("redis://:Secret@host/0?x=1", "no ? and no #"),
            ("redis://:Secret@host#1", "no ? and no #"),
            ("redis://:Secret@host,other", "give --broker several times"),
            ("redis://u:%ffSecret@host", "the password is not text in UTF-8"),
            ("redis+sentinel://:Secret@host", "the broker's name at its Sentinels"),
            ("redis+sentinel://:Secret@host//0", "the broker's name at its Sentinels"),
            ("redis+sentinel://:Secret@a,,b/m", "expected redis://HOST"),
            (&long, "accepted: up to 512 bytes"),
            (&name, "the broker's name at its Sentinels"),
            (&hosts, "17 Sentinels; accepted: up to 16"),
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("Secret"), "{text}: {error}");
        }
        let fits = format!("redis://:{}@host", "x".repeat(PASSWORD_MAX));
        assert!(parsed(&fits).is_ok());
        assert!(parsed(&hosts.replace("s,s/", "s/")).is_ok());
    }

    #[test]
    fn a_prefix_and_a_pattern_have_bounds() {
        for (length, fits) in [(0, true), (BROKER_PREFIX_MAX, true), (BROKER_PREFIX_MAX + 1, false)]
        {
            assert_eq!("x".repeat(length).parse::<BrokerPrefix>().is_ok(), fits, "{length}");
        }
        for (length, fits) in [(0, false), (1, true), (PATTERN_MAX, true), (PATTERN_MAX + 1, false)]
        {
            assert_eq!("x".repeat(length).parse::<SharedPattern>().is_ok(), fits, "{length}");
        }
        for (count, fits) in [(BROKER_HOSTS_MAX, true), (BROKER_HOSTS_MAX + 1, false)] {
            let urls = vec!["redis://a".parse().unwrap(); count];
            assert_eq!(check_urls(&urls).is_ok(), fits);
        }
        for (count, fits) in [(BROKER_PATTERNS_MAX, true), (BROKER_PATTERNS_MAX + 1, false)] {
            assert_eq!(check_patterns(&vec![SharedPattern::default(); count]).is_ok(), fits);
        }
    }

    #[test]
    fn a_sentinel_names_a_host_and_a_port() {
        let host = |host, port| BrokerHost::of(host, port).map(|host| host.to_string());
        assert_eq!(host("10.0.0.1", "7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(host("::1", "80").as_deref(), Some("[::1]:80"));
        for (name, port) in
            [("", "1"), ("a", ""), ("a", "x"), ("a/b", "1"), ("a", "0"), ("u@a", "1")]
        {
            assert_eq!(host(name, port), None, "{name} {port}");
        }
    }
}

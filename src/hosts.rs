//! Host names, origins and paths in settings: lists of hosts (`example.com,www.example.com`) and of
//! origins (`https://example.com,http://localhost:3000`), where `*` allows all, and a path
//! (`/socket.io/`).

use std::fmt;
use std::str::FromStr;

/// Maximum number of names in a list, because each request searches it.
const NAMES_MAX: usize = 64;

/// Longest path in a setting, in bytes.
const URL_PATH_MAX: usize = 128;

/// A list of host names, in lower case. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

/// A list of origins (RFC 6454), in lower case. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

/// A path of HTTP that begins and ends with a slash. Paths below it do not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPath(Box<str>);

impl UrlPath {
    /// Returns true for this path, with or without the slash at its end.
    pub fn is(&self, path: &str) -> bool {
        path == &*self.0 || path == &self.0[..self.0.len() - 1]
    }

    /// Returns the rest of a path below this one.
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.0)
    }
}

impl Default for UrlPath {
    fn default() -> UrlPath {
        UrlPath("/socket.io/".into())
    }
}

impl FromStr for UrlPath {
    type Err = String;

    fn from_str(text: &str) -> Result<UrlPath, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let inner = text.strip_prefix('/').unwrap_or_default().trim_end_matches('/');
        let is_path = !inner.is_empty() && text.len() <= URL_PATH_MAX && text.bytes().all(is_plain);
        match is_path && !text.contains("//") {
            true => Ok(UrlPath(format!("/{inner}/").into())),
            false => Err(format!(
                "'{text}' is not accepted; expected a path of letters, digits and -._~, such as \
                 /socket.io/, of up to {URL_PATH_MAX} bytes"
            )),
        }
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Hosts {
    /// Returns the names, in lower case.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl Origins {
    /// Returns the origins, in lower case.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Hosts, String> {
        let is_name = |name: &str| {
            let label = |label: &str| {
                let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                !label.is_empty() && label.len() <= 63 && label.bytes().all(is_letter)
            };
            name == "*" || name.len() <= 253 && name.split('.').all(label)
        };
        let expected = "a host name without a port, such as example.com, or * for all";
        list(text, is_name, expected).map(Hosts)
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Origins, String> {
        let is_origin = |origin: &str| {
            // The parser would take a path and leave out a port that is the scheme's own.
            let parsed = url::Url::parse(origin).map(|url| url.origin().ascii_serialization());
            origin == "*"
                || !origin.contains('*') && parsed.is_ok_and(|own| own != "null" && own == origin)
        };
        let expected = "an origin as browsers send it, such as https://example.com, or * for all";
        list(text, is_origin, expected).map(Origins)
    }
}

fn list(
    text: &str,
    is_right: impl Fn(&str) -> bool,
    expected: &str,
) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(|one| one.trim().to_ascii_lowercase()).collect();
    if let Some(wrong) = names.iter().find(|name| !is_right(name)) {
        return Err(format!("'{wrong}' is not accepted; expected {expected}"));
    }
    match names.len() {
        count if count > NAMES_MAX => {
            Err(format!("{count} names are too many; accepted: up to {NAMES_MAX}"))
        }
        _ => Ok(names),
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_slash_at_both_ends_and_names_itself_alone() {
        for (text, path) in [
            ("/socket.io/", "/socket.io/"),
            ("/socket.io", "/socket.io/"),
            ("/a/b-c_~/", "/a/b-c_~/"),
        ] {
            let read: UrlPath = text.parse().unwrap();
            assert_eq!(read.to_string(), path);
            assert!(read.is(path) && read.is(&path[..path.len() - 1]));
            assert!(!read.is("/") && !read.is(&format!("{path}x")));
        }
        let long = |length: usize| format!("/{}/", "a".repeat(length - 2)).parse::<UrlPath>();
        assert!(long(URL_PATH_MAX).is_ok() && long(URL_PATH_MAX + 1).is_err());
        for wrong in ["", "/", "//", "a/", "/a//b/", "/a b/", "/a?b/", "/%20/", "/ä/"] {
            assert!(wrong.parse::<UrlPath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_of_hosts_has_names_without_ports_and_a_wrong_one_is_named() {
        for (text, expected) in [
            ("", Ok("")),
            ("Example.com", Ok("example.com")),
            ("a.b, *,c_d", Ok("a.b,*,c_d")),
            ("a:80", Err("'a:80' is not accepted")),
            ("a,,b", Err("'' is not accepted")),
            ("a b", Err("'a b' is not accepted")),
            ("https://a", Err("'https://a' is not accepted")),
        ] {
            match (text.parse::<Hosts>(), expected) {
                (Ok(hosts), Ok(expected)) => assert_eq!(hosts.to_string(), expected),
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{error}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_list_of_origins_has_them_as_browsers_send_them() {
        for right in ["*", "https://example.com", "http://localhost:3000", "http://[::1]:8080"] {
            assert_eq!(right.parse::<Origins>().unwrap().to_string(), right);
        }
        let wrong = [
            "example.com",
            "https://a/",
            "https://a:443",
            "null",
            "https://a/b",
            "https://",
            "https://*.example.com",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<Origins>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_has_up_to_64_names() {
        for (count, fits) in [(NAMES_MAX - 1, true), (NAMES_MAX, true), (NAMES_MAX + 1, false)] {
            let text = vec!["a"; count].join(",");
            assert_eq!(text.parse::<Hosts>().is_ok(), fits, "{count}");
        }
    }
}

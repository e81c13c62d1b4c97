//! Lists of host names and of origins in a setting: `example.com,www.example.com` and
//! `https://example.com,http://localhost:3000`. `*` allows all.

use std::fmt;
use std::str::FromStr;

/// Maximum number of names in a list, because each request searches it.
const NAMES_MAX: usize = 64;

/// A list of host names, in lower case. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

/// A list of origins (RFC 6454), in lower case. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

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

//! Access by HTTP: the host that a browser reached, the page that sends a request, the password.
//!
//! A browser sends requests for any page that it shows, also to addresses that only its user can
//! reach. Host tells under which name the browser reached the server: a page can make a name of its
//! own point here (DNS rebinding), and Origin then equals Host. So Host is checked first. Origin
//! tells which page sends the request. Browsers leave it out where a page cannot read the answer,
//! and tell with Sec-Fetch-Site (Fetch Metadata) that another page sends such a request.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::codec::http::{RequestHead, split_authority};

/// Returns whether a browser may have reached the server by this value of Host: an address,
/// `localhost` or a name below it, or a name of the list. DNS cannot make
/// these names point elsewhere.
///
/// An empty host comes from a client of HTTP/1.0 and from no browser.
pub fn host_is_allowed(host: &str, allowed: &[String]) -> bool {
    if host.is_empty() {
        return true;
    }
    let Some((name, _)) = split_authority(host) else { return false };
    let name = without_dot(name);
    let is_local = |name: &str| name.eq_ignore_ascii_case("localhost");
    name.starts_with('[')
        || name.parse::<Ipv4Addr>().is_ok()
        || is_local(name)
        || name.rsplit_once('.').is_some_and(|(below, top)| !below.is_empty() && is_local(top))
        || allowed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(name))
}

/// Checks which page sends a request. Returns the origin of another page if it is in the list, and
/// `None` for the server's own page and for clients that are no browsers. Fails for other pages.
pub fn origin_of<'a>(head: &RequestHead<'a>, allowed: &[String]) -> Result<Option<&'a str>, ()> {
    let Some(origin) = head.header("origin") else {
        let site = head.header("sec-fetch-site").unwrap_or(b"none");
        let is_own = [&b"none"[..], b"same-origin"].contains(&site);
        // A link on another page may lead to the page of the server, and to nothing else.
        let is_link = matches!(head.method, "GET" | "HEAD")
            && head.header("sec-fetch-mode") == Some(b"navigate")
            && matches!(head.target, "/" | "/?");
        return if is_own || is_link { Ok(None) } else { Err(()) };
    };
    let origin = std::str::from_utf8(origin).map_err(|_| ())?;
    if is_own_origin(origin, head.host) {
        return Ok(None);
    }
    match origin_is_listed(origin, allowed) {
        true => Ok(Some(origin)),
        false => Err(()),
    }
}

/// Returns whether an origin is that of the server's own page: it has the host and the port of the
/// request. The scheme may be that of a proxy in front.
fn is_own_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let usual_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (Some(own), Some(of_request)) = (split_authority(authority), split_authority(host)) else {
        return false;
    };
    without_dot(own.0).eq_ignore_ascii_case(without_dot(of_request.0))
        && own.1.unwrap_or(usual_port) == of_request.1.unwrap_or(usual_port)
}

/// Returns whether an origin is in the list. `null` is the origin of any sandboxed page, so it is
/// never meant.
fn origin_is_listed(origin: &str, allowed: &[String]) -> bool {
    let is_plain = !origin.is_empty() && origin.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain
        && !origin.eq_ignore_ascii_case("null")
        && allowed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
}

/// Returns a name without the dot at its end, which only says that the name is complete.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns the user, if there is one, and the password of a value of Authorization: `Bearer
/// PASSWORD`, or `Basic` with the base64 of `USER:PASSWORD`.
pub fn credentials(value: &[u8]) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
    let blank = value.iter().position(|&byte| byte == b' ')?;
    let (scheme, token) = (&value[..blank], value[blank..].trim_ascii());
    if token.is_empty() {
        return None;
    }
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some((None, token.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let both = STANDARD.decode(token).ok()?;
    let colon = both.iter().position(|&byte| byte == b':')?;
    let (user, password) = (&both[..colon], &both[colon + 1..]);
    Some(((!user.is_empty()).then(|| user.to_vec()), password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::http::{HeadLimits, parse};
    use std::mem::MaybeUninit;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_host_is_an_address_or_localhost_or_in_the_list() {
        let allowed = list(&["example.com", "a.b_c"]);
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:9999",
            "127.0.0.1:",
            "0.0.0.0:1",
            "10.1.2.3:80",
            "192.168.1.1",
            "255.255.255.255",
            "127.0.0.1.",
            "[::1]",
            "[::1]:9999",
            "[2001:db8::1]:443",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LocalHost:9999",
            "localhost.",
            "localhost.:80",
            "a.localhost",
            "a.b.LOCALHOST:1",
            "example.com",
            "EXAMPLE.com:8080",
            "example.com.",
            "example.com.:443",
            "a.b_c",
        ] {
            assert!(host_is_allowed(host, &allowed), "{host}");
        }
        for host in [
            "evil.com",
            "evil.com:9999",
            "www.example.com",
            "example.com.evil.com",
            "evilexample.com",
            "example.comx",
            "example.com..",
            "localhost..",
            "localhost.evil.com",
            "evillocalhost",
            ".localhost",
            "127.0.0.1.evil.com",
            "127.0.0.1.nip.io",
            "127.0.0.1x",
            "127.1",
            "127.0.0.256",
            "127.0.0.01",
            "0x7f.0.0.1",
            "0x7f000001",
            "2130706433",
            "1.2.3.4.5",
            "[::1",
            "[::1]evil.com",
            "::1",
            "[fe80::1%25eth0]",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "user@localhost",
            "localhost/",
            "localhost evil.com",
            "localhost,evil.com",
            "local%68ost",
            "*",
            ".",
            "..",
            "xn--lcalhost-q1a",
        ] {
            assert!(!host_is_allowed(host, &allowed), "{host}");
            let is_name = split_authority(host).is_some();
            assert_eq!(host_is_allowed(host, &list(&["*"])), is_name, "{host} with *");
        }
    }

    /// Checks the origin of a request with this first line and these fields.
    fn origin(line: &str, fields: &[&str], allowed: &[&str]) -> Result<Option<String>, ()> {
        let text = format!("{line} HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n"));
        let mut headers = [const { MaybeUninit::uninit() }; 8];
        let limits = HeadLimits { bytes: 4096, headers: 8 };
        let head = parse(text.as_bytes(), &mut headers, &limits).expect("a good head");
        origin_of(&head, &list(allowed)).map(|origin| origin.map(str::to_string))
    }

    #[test]
    fn the_own_page_may_send_anything() {
        for (host, own) in [
            ("localhost:9999", "http://localhost:9999"),
            ("localhost:9999", "https://localhost:9999"),
            ("LOCALHOST:9999", "http://localhost:9999"),
            ("localhost", "http://localhost"),
            ("localhost:80", "http://localhost"),
            ("localhost", "http://localhost:80"),
            ("localhost:443", "https://localhost"),
            ("example.com", "https://example.com"),
            ("example.com.", "https://example.com"),
            ("example.com", "https://example.com.:443"),
            ("[::1]:9999", "http://[::1]:9999"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
        ] {
            let fields = [&format!("Host: {host}")[..], &format!("Origin: {own}")];
            assert_eq!(origin("POST /publish/a", &with_length(&fields), &[]), Ok(None), "{own}");
        }
        for (host, other) in [
            ("localhost:9999", "http://localhost:9998"),
            ("localhost:9999", "http://localhost"),
            ("localhost", "http://localhost:9999"),
            ("localhost:80", "https://localhost"),
            ("localhost:443", "http://localhost"),
            ("localhost:9999", "http://127.0.0.1:9999"),
            ("127.0.0.1:9999", "http://localhost:9999"),
            ("localhost:9999", "http://evil.com:9999"),
            ("localhost:9999", "http://localhost:9999.evil.com"),
            ("localhost:9999", "http://localhost:9999@evil.com"),
            ("localhost:9999", "http://xlocalhost:9999"),
            ("localhost:9999", "http://a.localhost:9999"),
            ("localhost:9999", "HTTP://localhost:9999"),
            ("localhost:9999", "ftp://localhost:9999"),
            ("localhost:9999", "localhost:9999"),
            ("localhost:9999", "//localhost:9999"),
            ("localhost:9999", "://localhost:9999"),
            ("localhost:9999", "http:localhost:9999"),
            ("localhost:9999", "http://localhost:9999/"),
            ("localhost:9999", "http://localhost:9999 http://evil.com"),
            ("localhost:9999", "http://localhost:9999, http://evil.com"),
            ("localhost:9999", "http://"),
            ("localhost:9999", "http://evil.com?http://localhost:9999"),
            ("localhost:9999", "null"),
            ("localhost:9999", "NULL"),
            ("localhost:9999", ""),
            ("localhost:9999", "*"),
            ("localhost:9999", "file://"),
            ("localhost:9999", "chrome-extension://localhost:9999"),
            ("localhost:9999", "http://localhos\u{74}\u{308}:9999"),
        ] {
            for line in ["POST /publish/a", "GET /ws", "GET /", "OPTIONS /publish/a", "GET /x"] {
                let fields = [&format!("Host: {host}")[..], &format!("Origin: {other}")];
                let fields = with_length(&fields);
                assert_eq!(origin(line, &fields, &[]), Err(()), "{line} {other}");
                // Fetch Metadata does not outweigh an origin.
                let fields = [&fields[..], &["Sec-Fetch-Site: same-origin"]].concat();
                assert_eq!(origin(line, &fields, &[]), Err(()), "{line} {other}");
            }
        }
    }

    fn with_length<'a>(fields: &[&'a str]) -> Vec<&'a str> {
        [fields, &["Content-Length: 0"]].concat()
    }

    #[test]
    fn pages_of_the_list_may_send_anything() {
        let allowed = ["https://app.example.com", "http://localhost:3000", "app://mine"];
        let check = |value: &str, allowed: &[&str]| {
            let value = format!("Origin: {value}");
            origin("POST /publish/a", &["Host: a", "Content-Length: 0", &value], allowed)
        };
        for listed in [
            "https://app.example.com",
            "http://localhost:3000",
            "HTTPS://APP.example.com",
            "app://mine",
        ] {
            assert_eq!(check(listed, &allowed), Ok(Some(listed.to_string())));
        }
        for other in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com:443",
            "https://example.com",
            "https://x.app.example.com",
            "https://app.example.com.evil.com",
            "https://app.example.comx",
            "https://app.example.com/",
            "http://localhost:30000",
            "http://localhost",
            "app://",
            "null",
            "",
        ] {
            assert_eq!(check(other, &allowed), Err(()), "{other}");
            let with_star = check(other, &["*"]);
            assert_eq!(with_star.is_err(), ["null", ""].contains(&other), "{other} with *");
        }
        assert_eq!(check("null", &["null"]), Err(()), "null is never meant");
        assert_eq!(check("http://x\u{e9}", &["*"]), Err(()));
    }

    #[test]
    fn a_request_that_another_page_sends_without_an_origin_is_refused() {
        for (line, fields, may) in [
            // No browser, or its user typed the address.
            ("GET /metrics", &[][..], true),
            ("POST /publish/a", &[], true),
            ("GET /metrics", &["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"], true),
            ("GET /events/a", &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"], true),
            // A link to the page.
            ("GET /", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], true),
            ("GET /?", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], true),
            ("HEAD /", &["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"], true),
            // Images, scripts, forms and links of another page.
            ("GET /", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], false),
            ("GET /", &["Sec-Fetch-Site: cross-site"], false),
            ("GET /", &["Sec-Fetch-Site: same-site"], false),
            ("GET /?token=x", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], false),
            ("GET /metrics", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], false),
            ("GET /events/a", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], false),
            ("GET /ws", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: websocket"], false),
            ("POST /publish/a", &["Sec-Fetch-Site: cross-site"], false),
            ("POST /", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], false),
            ("POST /publish/a", &["Sec-Fetch-Site: same-site"], false),
            ("OPTIONS /", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], false),
            // Values that no browser sends.
            ("GET /", &["Sec-Fetch-Site:"], false),
            ("GET /", &["Sec-Fetch-Site: Same-Origin"], false),
            ("GET /", &["Sec-Fetch-Site: none, cross-site"], false),
        ] {
            let fields = [&["Host: a", "Content-Length: 0"], fields].concat();
            let expected = if may { Ok(None) } else { Err(()) };
            assert_eq!(origin(line, &fields, &[]), expected, "{line} {fields:?}");
            // A listed origin is told by Origin alone.
            assert_eq!(origin(line, &fields, &["*"]), expected, "{line} {fields:?}");
        }
    }

    #[test]
    fn a_password_comes_as_a_bearer_or_with_a_user() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let table = [
            ("Bearer secret".to_string(), Some((None, "secret"))),
            ("bearer secret".into(), Some((None, "secret"))),
            ("BEARER   secret".into(), Some((None, "secret"))),
            ("Bearer a b".into(), Some((None, "a b"))),
            ("Bearer a:b".into(), Some((None, "a:b"))),
            ("Bearer =".into(), Some((None, "="))),
            ("Bearer \u{e4}".into(), Some((None, "\u{e4}"))),
            (basic(":secret"), Some((None, "secret"))),
            (basic("default:secret"), Some((Some("default"), "secret"))),
            (basic("user:a:b"), Some((Some("user"), "a:b"))),
            (basic("user:"), Some((Some("user"), ""))),
            (basic(":"), Some((None, ""))),
            (basic("\u{e4}:\u{f6}"), Some((Some("\u{e4}"), "\u{f6}"))),
            (basic("a:\0"), Some((Some("a"), "\0"))),
            (basic(":secret").replace("Basic", "bASIC "), Some((None, "secret"))),
            (basic("secret"), None),
            (basic(""), None),
            (basic(":secret").replace("Basic", "Basic\t"), None),
            (basic(":secret").replace(' ', ""), None),
            (basic(":secret").replace(' ', "\t"), None),
            (basic(":secret") + " x", None),
            (basic(":secret") + ",x", None),
            (basic(":abc").replace('=', ""), None),
            ("Basic Og".into(), None),
            ("Basic Oh==".into(), None),
            ("Basic O===".into(), None),
            ("Basic :secret".into(), None),
            ("Basic Ol8_".into(), None),
            ("Basic !".into(), None),
            ("Basic".into(), None),
            ("Basic ".into(), None),
            ("Bearer".into(), None),
            ("Bearer ".into(), None),
            ("Bearer: secret".into(), None),
            ("Bearersecret".into(), None),
            (" Bearer secret".into(), None),
            ("Token secret".into(), None),
            ("Digest username=\"x\"".into(), None),
            ("Negotiate abc".into(), None),
            ("secret".into(), None),
            ("".into(), None),
            (" ".into(), None),
        ];
        assert!(table.len() >= 40);
        for (value, expected) in table {
            let expected = expected.map(|(user, password): (Option<&str>, &str)| {
                (user.map(|user| user.as_bytes().to_vec()), password.as_bytes().to_vec())
            });
            assert_eq!(credentials(value.as_bytes()), expected, "{value:?}");
        }
    }
}

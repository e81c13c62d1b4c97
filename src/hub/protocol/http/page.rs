//! The page at `/`: the hub's own, or that of a demo. Each is one file. It requests nothing but
//! what this server has.

use crate::demo::Demo;

const PAGE: &str = include_str!("page.html");

/// Returns the page, as it is sent, and its content security policy.
pub fn of(demo: Option<Demo>) -> (&'static str, &'static str) {
    match demo {
        None => (PAGE, POLICY),
        Some(demo) => (demo.page(), DEMO_POLICY),
    }
}

/// The headers that keep other pages away from this one, and this one from others. The page runs
/// its own script alone, and talks with this server alone.
pub fn headers(policy: &str) -> [(&'static str, &str); 5] {
    [
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
    ]
}

const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-HAcvXAk3qyu6uoPTIxAxyFkxFbWuhin4sOhFkWA1h8E='; \
    style-src 'sha256-UhT/HATrKFRtkIYHQY1kFmaskGQTG/DQp4DcLEzOvlQ='; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The script of the demo, and the client that the server has.
const DEMO_POLICY: &str = "default-src 'none'; \
    script-src 'self' 'sha256-P+juzqCylFCiie5heRHTXbhqCGLGcnqZZo2aZiWawl4='; \
    style-src 'sha256-7fU1vPpA0zP+lCJ0WOhd7CklxD1Z4UubGdQbpZq+NtY='; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const PAGES: [Option<Demo>; 2] = [None, Some(Demo::Checkboxes)];

    /// Returns what stands between the tags of an element of a page.
    fn inside<'a>(page: &'a str, tag: &str) -> &'a str {
        let open = format!("<{tag}>");
        let mut parts = page.split(&open).skip(1);
        let part = parts.next().unwrap();
        assert_eq!(parts.next(), None, "the page has more than one {tag}");
        part.split(&format!("</{tag}>")).next().unwrap()
    }

    /// Returns the hash of a text as a policy has it, by sha256sum of coreutils.
    fn hash(text: &str) -> String {
        let mut command = Command::new("sha256sum");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let digits = child.wait_with_output().unwrap().stdout;
        let byte = |at: usize| std::str::from_utf8(&digits[2 * at..2 * at + 2]).unwrap();
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(byte(at), 16).unwrap()).collect();
        format!("'sha256-{}'", STANDARD.encode(bytes))
    }

    #[test]
    fn the_policy_allows_the_script_and_the_style_of_the_page() {
        for (page, policy) in PAGES.map(of) {
            for tag in ["script", "style"] {
                let allowed = format!("{};", hash(inside(page, tag)));
                let allows = |rule: &str| rule.contains(&format!("{tag}-src"));
                let rule = policy.split_inclusive(';').find(|rule| allows(rule)).unwrap();
                assert!(rule.ends_with(&allowed), "the page has changed: {allowed} in {rule}");
            }
        }
    }

    #[test]
    fn the_page_is_small_and_names_no_other_place() {
        for (page, _) in PAGES.map(of) {
            assert!(page.len() <= 8 << 10, "{} bytes", page.len());
            for word in ["http://", "https://", "url(", "@import", "innerHTML", "style="] {
                assert!(!page.contains(word), "{word}");
            }
        }
        assert!(!PAGE.contains("src="));
        assert_eq!(of(Some(Demo::Checkboxes)).0.matches("src=").count(), 1);
    }
}

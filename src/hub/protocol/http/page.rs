//! The page at `/`: one file, without a request to anywhere else.

/// The page, as it is sent.
pub const PAGE: &[u8] = include_bytes!("page.html");

/// The headers that keep other pages away from this one, and this one from others. The page runs
/// its own script alone, and talks with this server alone.
pub const HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),
];

const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-HAcvXAk3qyu6uoPTIxAxyFkxFbWuhin4sOhFkWA1h8E='; \
    style-src 'sha256-UhT/HATrKFRtkIYHQY1kFmaskGQTG/DQp4DcLEzOvlQ='; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Returns what stands between the tags of an element of the page.
    fn inside(tag: &str) -> &'static str {
        let page = std::str::from_utf8(PAGE).unwrap();
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
        for tag in ["script", "style"] {
            let allowed = format!("{tag}-src {};", hash(inside(tag)));
            assert!(POLICY.contains(&allowed), "the page has changed: {allowed} in {POLICY}");
        }
    }

    #[test]
    fn the_page_is_small_and_names_no_other_place() {
        assert!(PAGE.len() <= 8 << 10, "{} bytes", PAGE.len());
        let page = std::str::from_utf8(PAGE).unwrap();
        for word in ["http://", "https://", "src=", "url(", "@import", "innerHTML", "style="] {
            assert!(!page.contains(word), "{word}");
        }
    }
}

//! The official client of Socket.IO for pages, as Node's server serves it.

/// Version 4.8.4. `client/SOURCE` says where it comes from.
pub const SCRIPT: &[u8] = include_bytes!("client/socket.io.min.js");

pub const CONTENT_TYPE: &str = "application/javascript; charset=utf-8";

/// The version, by which a browser asks whether it has the script already.
pub const TAG: &str = "\"4.8.4\"";

/// Pages of any origin may use the script. A browser keeps it, and asks for changes.
pub const HEADERS: &[(&str, &str)] = &[
    ("ETag", TAG),
    ("Cache-Control", "public, max-age=0"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_the_version_that_its_tag_names() {
        let head = std::str::from_utf8(&SCRIPT[..200]).unwrap();
        assert!(head.contains(&format!("v{}\n", TAG.trim_matches('"'))), "{head}");
        assert!(head.contains("MIT License"));
        assert_eq!(SCRIPT.len(), 47_295);
    }
}

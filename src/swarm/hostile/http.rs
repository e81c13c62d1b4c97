//! What hostile clients of HTTP send.

use super::super::{PASSWORD, Scene};
use super::Attack;

/// Fields of a POST that other servers accept. The hub refuses each, with all that is behind it.
const AMBIGUOUS: [&str; 8] = [
    "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "Content-Length: 0\r\nContent-Length: 99",
    "Content-Length: +0",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Content-Length: 0\nX: y",
    "X: y\r\n Content-Length: 0",
    "Content-Length: 0\r\nHost: localhost",
];

/// Returns the bytes of one step, or `None` for an attack that is none of HTTP. `is_first` is true
/// for the first step on a connection.
pub fn words(shape: Attack, is_first: bool, scene: &mut Scene<'_>) -> Option<Vec<u8>> {
    let random = &mut *scene.random;
    let head = |path: &str, fields: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PASSWORD}\r\n\
             {fields}\r\n"
        )
    };
    let text = match shape {
        Attack::DrippedRequest if is_first => match random.usize(..3) {
            0 => head("/publish/h4", "Content-Length: 60000\r\n"),
            1 => head("/publish/h4", "Transfer-Encoding: chunked\r\n") + "ea60;a=\"b\"\r\n",
            _ => head("/publish/h4", "X: y").trim_end().into(),
        },
        Attack::DrippedRequest => "z".repeat(random.usize(1..3)),
        Attack::Smuggler => {
            let fields = AMBIGUOUS[random.usize(..AMBIGUOUS.len())];
            let hidden = head("/publish/a", "Content-Length: 15\r\n") + "unauthenticated";
            head("/publish/h4", &format!("{fields}\r\n")) + &hidden
        }
        _ => return None,
    };
    Some(text.into_bytes())
}

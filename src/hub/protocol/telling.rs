//! The protocol of a connection, told from its first line and then fixed.
//!
//! An array (`*`) is RESP. A request line is HTTP, by its grammar and whatever its method is. Any
//! other line is an inline command of RESP, whose own guard closes at a line that is no command.

use crate::codec::http::is_request_line;
use crate::hub::sessions::PeerProtocol;

/// Returns the protocol that the first bytes of a connection belong to. Returns
/// [`PeerProtocol::Unknown`] while the first line is incomplete: both RESP and HTTP may wait for
/// the rest. `longest` is the longest request line that HTTP accepts.
pub fn tell(input: &[u8], longest: usize) -> PeerProtocol {
    if input.first() == Some(&b'*') {
        return PeerProtocol::Resp;
    }
    // A blank line may precede a request (RFC 9112, section 2.2).
    let input = input.strip_prefix(b"\r\n").unwrap_or(input);
    let end = memchr::memchr(b'\n', input);
    let line = &input[..end.unwrap_or(input.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match end {
        Some(_) if is_request_line(line) => PeerProtocol::Http,
        Some(_) => PeerProtocol::Resp,
        // A method and a target without an end: HTTP has an error for it.
        None if line.len() >= longest && is_request_line(&[line, b" HTTP/1.1"].concat()) => {
            PeerProtocol::Http
        }
        None => PeerProtocol::Unknown,
    }
}

/// Returns true if an incomplete first line may be a request line: a word, a blank, and the
/// beginning of a path or of a URL.
pub fn may_be_request(input: &[u8]) -> bool {
    let input = input.strip_prefix(b"\r\n").unwrap_or(input);
    let mut words = input.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let is_path = target.starts_with(b"/") || target.starts_with(b"http");
    is_path && is_request_line(&[method, b" ", target, b" HTTP/1.1"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_the_protocol_however_it_arrives() {
        for (input, expected) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], PeerProtocol::Resp),
            (b"PING\r\n", PeerProtocol::Resp),
            (b"GET / HTTP/1.1\r\n", PeerProtocol::Http),
            (b"post /x HTTP/1.0\n", PeerProtocol::Http),
            (b"PRI * HTTP/2.0\r\n", PeerProtocol::Http),
            (b"GET / HTTP/1.1 x\r\n", PeerProtocol::Resp),
            (b"GET /\r\n", PeerProtocol::Resp),
            (b"OPTIONS sip:x SIP/2.0\r\n", PeerProtocol::Resp),
            (b"\n\nGET / HTTP/1.1\r\n", PeerProtocol::Resp),
        ] {
            let line = input.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            for cut in 1..input.len() {
                let told = tell(&input[..cut], 100);
                let is_known = input[0] == b'*' || cut >= line;
                let expected = if is_known { expected } else { PeerProtocol::Unknown };
                assert_eq!(told, expected, "{}", input[..cut].escape_ascii());
            }
        }
    }

    #[test]
    fn a_line_that_may_be_a_request_line_waits_for_its_end() {
        for line in ["GET /", "GET /a HTT", "\r\nGET /", "POST http://a/", "PUBLISH /a b"] {
            assert!(may_be_request(line.as_bytes()), "{line}");
        }
        for line in ["", "GET", "GET ", "PUBLISH news /a", "\x16\x03 /", "PING \"/"] {
            assert!(!may_be_request(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_target_without_an_end_is_http_once_it_is_longer_than_a_request_line_may_be() {
        for (length, expected) in
            [(99, PeerProtocol::Unknown), (100, PeerProtocol::Http), (101, PeerProtocol::Http)]
        {
            let input = [&b"GET /"[..], &vec![b'a'; length - 5]].concat();
            assert_eq!(tell(&input, 100), expected, "{length}");
        }
        let command = [&b"PUBLISH news "[..], &[b'a'; 100]].concat();
        assert_eq!(tell(&command, 100), PeerProtocol::Unknown, "a third word");
    }
}

//! The answer to the key of an opening handshake (RFC 6455, section 4.2.2).

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};

/// Appended to the key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Accepts bits after the 16th byte of a key: keys written by hand have some.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Returns the `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`, or `None` if the key is not the
/// base64 of 16 bytes.
pub fn accept_key(key: &[u8]) -> Option<[u8; 28]> {
    let mut nonce = [0; 18];
    if key.len() != 24 || LENIENT.decode_slice(key, &mut nonce) != Ok(16) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    let mut accept = [0; 28];
    STANDARD.encode_slice(hash.digest().bytes(), &mut accept).ok()?;
    Some(accept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(accept.as_slice(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_that_is_not_base64_of_16_bytes_has_no_answer() {
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZTE=",
            "dGhlIHNhbXBsZSBub25jZTEy",
            "dGhlIHNhbXBsZSBub25j====",
            "dGhlIHNhbXBsZSBub25jZ-==",
            " dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ==\r",
        ] {
            assert_eq!(accept_key(key.as_bytes()), None, "{key}");
        }
        assert!(accept_key(b"AAAAAAAAAAAAAAAAAAAAAB==").is_some(), "bits after the 16th byte");
    }
}

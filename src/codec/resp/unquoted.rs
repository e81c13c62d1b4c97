//! The words of an inline command: finds where one ends, and undoes its quotes and escapes like
//! Redis's `sdssplitargs`.

use super::FrameError;

/// Appends the argument at the front of `rest`, and returns the bytes after it. A quote may open
/// within a word. The argument ends where the quote closes.
pub(super) fn unquote_argument<'a>(
    mut rest: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<&'a [u8], FrameError> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                let behind = unquote(*quote, quoted, out)?;
                return if behind.first().is_none_or(|next| is_space(*next)) {
                    Ok(behind)
                } else {
                    Err(FrameError::UnbalancedQuotes)
                };
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

/// Appends the bytes up to the closing `quote`, and returns the bytes after it. Within single
/// quotes the only escape is `\'`.
fn unquote<'a>(quote: u8, mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], FrameError> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(FrameError::UnbalancedQuotes),
            [byte, behind @ ..] if *byte == quote => return Ok(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [b'\\', b'x', high, low, behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) << 4 | hex_value(*low), behind)
            }
            [b'\\', escaped, behind @ ..] if quote == b'"' => (unescape(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        out.push(byte);
        rest = behind;
    }
}

/// Returns the byte that an escape stands for.
fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// Returns the value of an ASCII hex digit.
fn hex_value(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { (digit | 0x20) - b'a' + 10 }
}

/// Returns true for the spaces of C's `isspace`. Unlike `is_ascii_whitespace`, it includes the
/// vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

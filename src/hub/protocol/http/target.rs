//! The target of a request: its path and query, and the names in them.
//!
//! Percent-escapes are decoded once, after the target is split. So a slash or an ampersand can be
//! part of a name. A name may have any bytes, as with other protocols, also zeros.

use std::borrow::Cow;

/// A key and its value in a query.
pub type QueryPair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Splits a target at its first question mark.
pub fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Decodes the percent-escapes of a part of a path. Returns `None` if a percent sign is not
/// followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    decoded(text, false)
}

/// Returns the keys and values of a query, as HTML forms write them: a plus sign is a blank.
/// `None` stands for a pair with a bad escape. A key without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = Option<QueryPair<'_>>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decoded(key, true)?, decoded(value, true)?))
    })
}

fn decoded(text: &str, plus_is_blank: bool) -> Option<Cow<'_, [u8]>> {
    let is_plain = |&byte: &u8| byte != b'%' && !(plus_is_blank && byte == b'+');
    let plain = text.bytes().take_while(is_plain).count();
    let (start, mut rest) = text.as_bytes().split_at(plain);
    if rest.is_empty() {
        return Some(Cow::Borrowed(start));
    }
    let mut bytes = Vec::with_capacity(text.len());
    bytes.extend_from_slice(start);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                hexadecimal(digits[0])? << 4 | hexadecimal(digits[1])?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    Some(Cow::Owned(bytes))
}

fn hexadecimal(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_a_path_are_decoded_once() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("news", Some(b"news")),
            ("a%20b", Some(b"a b")),
            ("a+b", Some(b"a+b")),
            ("%2F", Some(b"/")),
            ("%2f..%2F", Some(b"/../")),
            ("a/b", Some(b"a/b")),
            ("%2525", Some(b"%25")),
            ("%00", Some(b"\0")),
            ("%0d%0A", Some(b"\r\n")),
            ("%ff%FE", Some(b"\xff\xfe")),
            ("%C3%A4", Some("ä".as_bytes())),
            ("%41%42%43", Some(b"ABC")),
            ("%2B", Some(b"+")),
            ("a%3Fb%23c%26d", Some(b"a?b#c&d")),
            ("~-._!$&'()*,;=:@", Some(b"~-._!$&'()*,;=:@")),
            ("%", None),
            ("%4", None),
            ("a%", None),
            ("a%4", None),
            ("%zz", None),
            ("%4g", None),
            ("%g4", None),
            ("%+4", None),
            ("%-1", None),
            ("% 41", None),
            ("%%41", None),
            ("%u0041", None),
            ("%4%31", None),
            ("ok%20%", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
        assert!(matches!(decode("plain"), Some(Cow::Borrowed(_))), "a plain name is not copied");
    }

    #[test]
    fn a_query_is_read_as_a_form_writes_it() {
        type Pair<'a> = Option<(&'a str, &'a str)>;
        let table: [(&str, &[Pair<'_>]); 14] = [
            ("", &[]),
            ("&&", &[]),
            ("a=b", &[Some(("a", "b"))]),
            ("a", &[Some(("a", ""))]),
            ("a=", &[Some(("a", ""))]),
            ("=b", &[Some(("", "b"))]),
            ("a=b=c", &[Some(("a", "b=c"))]),
            ("a=b&a=c&", &[Some(("a", "b")), Some(("a", "c"))]),
            ("a+b=c+d", &[Some(("a b", "c d"))]),
            ("a%2Bb=%2b", &[Some(("a+b", "+"))]),
            ("a%26b=%3D%3d", &[Some(("a&b", "=="))]),
            ("a=b?c", &[Some(("a", "b?c"))]),
            ("a;b=c", &[Some(("a;b", "c"))]),
            ("a=%&b=c&%=d", &[None, Some(("b", "c")), None]),
        ];
        for (query, expected) in table {
            let found: Vec<_> = pairs(query).collect();
            let found: Vec<Pair<'_>> = found
                .iter()
                .map(|pair| {
                    let (key, value) = pair.as_ref()?;
                    Some((std::str::from_utf8(key).unwrap(), std::str::from_utf8(value).unwrap()))
                })
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn a_target_splits_at_its_first_question_mark() {
        for (target, expected) in [
            ("/", ("/", "")),
            ("/?", ("/", "")),
            ("/a?b", ("/a", "b")),
            ("/a?b?c", ("/a", "b?c")),
            ("/a%3Fb", ("/a%3Fb", "")),
            ("?a", ("", "a")),
        ] {
            assert_eq!(split(target), expected, "{target}");
        }
    }
}

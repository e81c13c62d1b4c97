//! The pattern matcher agrees with a table of reachable positions, and keeps its bound on steps.

use slabd::hub::glob::matches;

/// Runs the target. The first byte is the length of the pattern, cut to the bytes available. The
/// other bytes are the pattern and the text.
pub fn glob(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (pattern, text) = rest.split_at(usize::from(*length).min(rest.len()));
    let mut steps = 0;
    let matched = matches(pattern, text, &mut steps);
    let shown = || format!("{} on {}", pattern.escape_ascii(), text.escape_ascii());
    assert_eq!(matched, reference(pattern, text), "{}", shown());
    let most = pattern.len() * (text.len() + 1);
    assert!(steps <= most, "{steps} steps of at most {most}: {}", shown());
}

/// One element of a pattern.
enum Element {
    Star,
    /// The set of bytes that the element matches, one bit each.
    One([u64; 4]),
}

/// Matches by a table: for each element of the pattern, the reachable positions of the text. This
/// needs no search.
fn reference(pattern: &[u8], text: &[u8]) -> bool {
    // As in Redis, not even a star matches an empty text.
    if text.is_empty() {
        return pattern.is_empty();
    }
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for element in elements(pattern) {
        match element {
            Element::Star => {
                let first = reached.iter().position(|place| *place).unwrap_or(text.len() + 1);
                reached.iter_mut().skip(first).for_each(|place| *place = true);
            }
            Element::One(bytes) => {
                for place in (0..text.len()).rev() {
                    let taken = bytes[usize::from(text[place] >> 6)] >> (text[place] & 63) & 1 == 1;
                    reached[place + 1] = reached[place] && taken;
                }
                reached[0] = false;
            }
        }
    }
    reached[text.len()]
}

fn elements(mut pattern: &[u8]) -> Vec<Element> {
    let mut found = Vec::new();
    while let Some((first, rest)) = pattern.split_first() {
        let mut bytes = [0; 4];
        pattern = match (first, rest) {
            (b'*', _) => {
                found.push(Element::Star);
                pattern = rest;
                continue;
            }
            (b'?', _) => {
                bytes = [u64::MAX; 4];
                rest
            }
            (b'[', _) => class(rest, &mut bytes),
            (b'\\', [escaped, rest @ ..]) => {
                add(&mut bytes, *escaped);
                rest
            }
            _ => {
                add(&mut bytes, *first);
                rest
            }
        };
        found.push(Element::One(bytes));
    }
    found
}

/// Reads a class after its `[`. Returns the rest of the pattern. An unclosed class ends with the
/// pattern.
fn class<'a>(pattern: &'a [u8], bytes: &mut [u64; 4]) -> &'a [u8] {
    let negated = pattern.starts_with(b"^");
    let mut rest = &pattern[usize::from(negated)..];
    while !rest.is_empty() && rest[0] != b']' {
        if rest[0] == b'\\' && rest.len() >= 2 {
            add(bytes, rest[1]);
            rest = &rest[2..];
        } else if rest.len() >= 3 && rest[1] == b'-' {
            // Redis compares bytes as C's signed char.
            let (one, other) = (rest[0] as i8, rest[2] as i8);
            (one.min(other)..=one.max(other)).for_each(|byte| add(bytes, byte as u8));
            rest = &rest[3..];
        } else {
            add(bytes, rest[0]);
            rest = &rest[1..];
        }
    }
    if negated {
        bytes.iter_mut().for_each(|part| *part = !*part);
    }
    rest.strip_prefix(b"]").unwrap_or(rest)
}

fn add(bytes: &mut [u64; 4], byte: u8) {
    bytes[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

//! Glob patterns as Redis matches them: `*`, `?`, `[abc]`, `[a-z]`, `[^x]`, and `\` for a literal
//! byte.
//!
//! Every element but `*` consumes exactly one byte. When a match fails, the search therefore goes
//! back only to the last `*` and lets it consume one byte more. Going back to an earlier `*` cannot
//! help, because the last one can reach every position that an earlier one could open. So the
//! search needs no recursion and takes at most pattern × text steps.
//!
//! Clients rely on Redis's results, so its quirks are kept:
//! - an unclosed class ends with the pattern;
//! - `[a-]` is a range from `a` to `]`, and the class is then unclosed;
//! - `[]` never matches;
//! - an empty text matches only the empty pattern, not `*`.
//!
//! One quirk is left out: newer versions of Redis give up after 1,000 stars, because they recurse.

/// Returns true if the whole `text` matches `pattern`. Case matters. Adds the steps taken to
/// `steps`; a step takes one or two nanoseconds.
pub fn matches(pattern: &[u8], text: &[u8], steps: &mut usize) -> bool {
    search(pattern, text, |bytes| *steps += bytes)
}

/// Matches, and calls `on_step` with the number of pattern bytes examined.
fn search(pattern: &[u8], text: &[u8], mut on_step: impl FnMut(usize)) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut taken) = (0, 0);
    // The position after the last star in the pattern, and the text position being tried for it.
    let mut retry: Option<(usize, usize)> = None;
    while taken < text.len() {
        if pattern.get(at) == Some(&b'*') {
            on_step(1);
            at += 1;
            if at == pattern.len() {
                return true;
            }
            retry = Some((at, taken));
            continue;
        }
        if at < pattern.len() {
            let (fits, next) = element(pattern, at, text[taken]);
            on_step(next - at);
            if fits {
                (at, taken) = (next, taken + 1);
                continue;
            }
        }
        let Some((after_star, tried)) = retry else { return false };
        retry = Some((after_star, tried + 1));
        (at, taken) = (after_star, tried + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Returns true if the element at `at`, not a star, matches `byte`; and where the next one starts.
fn element(pattern: &[u8], at: usize, byte: u8) -> (bool, usize) {
    match pattern[at..] {
        [b'?', ..] => (true, at + 1),
        [b'[', ..] => class(pattern, at + 1, byte),
        [b'\\', escaped, ..] => (escaped == byte, at + 2),
        _ => (pattern[at] == byte, at + 1),
    }
}

/// Matches `byte` with the class whose `[` is just before `at`, and returns the same as
/// [`element`]. The order of the match arms decides how a malformed class is read.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at..] {
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [] => break,
            [from, b'-', to, ..] => {
                found |= in_range(from, to, byte);
                at += 3;
            }
            [listed, ..] => {
                found |= listed == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

/// Returns true if `byte` lies between two ends, given in either order. Bytes compare as C's signed
/// char, as in Redis on x86-64: 0xff comes before 0x00.
fn in_range(one: u8, other: u8, byte: u8) -> bool {
    let (one, other) = (one.cast_signed(), other.cast_signed());
    (one.min(other)..=one.max(other)).contains(&byte.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHANNEL_NAME_MAX, PATTERN_MAX};

    /// Pattern, text, and whether redis-server 7.0.15 matches them (`KEYS` over one key).
    const CASES: &[(&[u8], &[u8], bool)] = &[
        // Plain bytes.
        (b"", b"", true),
        (b"", b"a", false),
        (b"a", b"", false),
        (b"news", b"news", true),
        (b"news", b"New", false),
        (b"news", b"NEWS", false),
        (b"news", b"newsy", false),
        (b"newsy", b"news", false),
        (b"a\0b", b"a\0b", true),
        (b"a\0b", b"a\0c", false),
        (b"\xff\xfe", b"\xff\xfe", true),
        // Stars.
        (b"*", b"a", true),
        (b"*", b"", false),
        (b"**", b"", false),
        (b"*", b"a\0\xff", true),
        (b"a*", b"a", true),
        (b"a**", b"a", true),
        (b"*a", b"a", true),
        (b"*a", b"aab", false),
        (b"*a", b"aba", true),
        (b"a*c", b"abcbc", true),
        (b"a*c", b"abcb", false),
        (b"a*b*c", b"a-b-b-c", true),
        (b"a*b*c", b"a-c-b", false),
        (b"*abc", b"ababc", true),
        (b"***x***", b"x", true),
        (b"news.*.eu", b"news.tech.eu", true),
        // Any one byte.
        (b"?", b"a", true),
        (b"?", b"", false),
        (b"?", b"ab", false),
        (b"h?llo", b"hallo", true),
        (b"*?", b"a", true),
        (b"?*?", b"a", false),
        (b"?*?", b"ab", true),
        // Classes.
        (b"h[ae]llo", b"hello", true),
        (b"h[ae]llo", b"hillo", false),
        (b"h[^e]llo", b"hallo", true),
        (b"h[^e]llo", b"hello", false),
        (b"[a-c]", b"b", true),
        (b"[a-c]", b"d", false),
        (b"[c-a]", b"b", true),
        (b"[a-cx-z]", b"y", true),
        (b"[^a-c]", b"b", false),
        (b"[a^]", b"^", true),
        (b"[-a]", b"-", true),
        (b"[*]", b"*", true),
        (b"[*]", b"a", false),
        (b"[?]", b"a", false),
        (b"[[]", b"[", true),
        (b"[a]", b"", false),
        (b"*[0-9]", b"room7", true),
        (b"*[0-9]x*", b"1y2x", true),
        // Escapes.
        (b"\\*", b"*", true),
        (b"\\*", b"a", false),
        (b"\\?", b"a", false),
        (b"\\[a]", b"[a]", true),
        (b"\\a", b"a", true),
        (b"\\\\", b"\\", true),
        (b"\\", b"\\", true),
        (b"a\\", b"a\\", true),
        (b"a\\", b"a", false),
        (b"[\\]]", b"]", true),
        (b"[\\^]", b"^", true),
        (b"[\\-z]", b"y", false),
        (b"[\\-z]", b"-", true),
        // Malformed classes.
        (b"[", b"[", false),
        (b"[", b"a", false),
        (b"[^", b"a", true),
        (b"[a", b"a", true),
        (b"[a", b"b", false),
        (b"[a", b"ab", false),
        (b"[^a", b"b", true),
        (b"[]", b"a", false),
        (b"[]", b"]", false),
        (b"[]a]", b"]", false),
        (b"[^]", b"a", true),
        (b"[^]", b"]", true),
        (b"[^]a", b"xa", true),
        (b"[a-]", b"_", true),
        (b"[a-]", b"-", false),
        (b"[a-]x", b"x", true),
        (b"[a-", b"-", true),
        (b"[a-", b"a", true),
        (b"[\\", b"\\", true),
        (b"[a\\]", b"]", true),
        (b"[a-\\]b", b"b", false),
        (b"[a-\\]b", b"^b", true),
        (b"[^\\", b"\\", false),
        (b"*[", b"a", false),
        (b"[a*", b"*", true),
        // Bytes above 0x7f in a range.
        (b"[\x01-\xff]", b"a", false),
        (b"[\x01-\xff]", b"\0", true),
        (b"[\x80-\xff]", b"\x90", true),
        (b"[\x80-\xff]", b"a", false),
        (b"[\xff-\x02]", b"\x01", true),
    ];

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in CASES {
            assert_eq!(
                matches(pattern, text, &mut 0),
                *expected,
                "{} on {}",
                pattern.escape_ascii(),
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn a_match_takes_at_most_pattern_times_text_steps() {
        let mut random = fastrand::Rng::with_seed(7);
        let alphabet = b"*?[]^-\\ab";
        let check = |pattern: &[u8], text: &[u8]| {
            let mut steps = 0;
            let matched = search(pattern, text, |bytes| steps += bytes);
            let bound = pattern.len() * (text.len() + 1);
            assert!(steps <= bound, "{steps} steps, {bound} allowed: {}", pattern.escape_ascii());
            matched
        };
        for stars in [1, 10, 100, 1000, 5000] {
            assert!(!check(&[b"a*".repeat(stars), b"b".to_vec()].concat(), &b"a".repeat(5000)));
            assert!(check(&b"a*".repeat(stars), &b"a".repeat(5000)));
            assert!(!check(&b"*[a-z]".repeat(stars), &b"A".repeat(500)));
        }
        for _ in 0..20_000 {
            let pattern: Vec<u8> =
                (0..random.usize(..24)).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
            let text: Vec<u8> = (0..random.usize(..24)).map(|_| b"ab"[random.usize(..2)]).collect();
            check(&pattern, &text);
        }
    }

    #[test]
    fn the_worst_match_takes_a_million_steps() {
        let literal = [&b"*"[..], &[b'a'; PATTERN_MAX - 3], b"b*"].concat();
        let classes = [&b"*"[..], &b"[^b]".repeat(63), b"b*"].concat();
        for pattern in [literal, classes] {
            let mut steps = 0;
            assert!(!matches(&pattern, &[b'a'; CHANNEL_NAME_MAX], &mut steps));
            assert!((900_000..=PATTERN_MAX * (CHANNEL_NAME_MAX + 1)).contains(&steps), "{steps}");
        }
    }

    #[test]
    fn a_negated_class_matches_the_characters_of_its_own_syntax() {
        for (text, is_match) in [(b"^", true), (b"[", true), (b"]", true), (b"b", false)] {
            assert_eq!(matches(b"[^b]", text, &mut 0), is_match, "{}", text.escape_ascii());
        }
    }
}

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

pub mod compiled;

/// The shape of a pattern, which decides how its names are found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PatternShape {
    /// No wildcard: the one name that matches.
    Exact(Vec<u8>),
    /// A literal text and a star, such as `news.*`: the text.
    Prefix(Vec<u8>),
    Other,
}

impl PatternShape {
    /// Returns the shape of a pattern. Escapes are undone in the literal text.
    pub fn of(pattern: &[u8]) -> PatternShape {
        let mut literal = Vec::with_capacity(pattern.len());
        let mut at = 0;
        while at < pattern.len() {
            match pattern[at..] {
                [b'*', ref rest @ ..] if rest.iter().all(|byte| *byte == b'*') => {
                    return PatternShape::Prefix(literal);
                }
                [b'*' | b'?' | b'[', ..] => return PatternShape::Other,
                [b'\\', escaped, ..] => {
                    literal.push(escaped);
                    at += 2;
                }
                _ => {
                    literal.push(pattern[at]);
                    at += 1;
                }
            }
        }
        PatternShape::Exact(literal)
    }
}

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
        [b'[', ..] => {
            let (mut found, signed) = (false, byte.cast_signed());
            let (negated, next) =
                class(pattern, at + 1, |from, to| found |= (from..=to).contains(&signed));
            (found != negated, next)
        }
        [b'\\', escaped, ..] => (escaped == byte, at + 2),
        _ => (pattern[at] == byte, at + 1),
    }
}

/// Returns all bytes that the element at `at`, not a star, matches; and where the next one starts.
fn element_set(pattern: &[u8], at: usize) -> (ByteSet, usize) {
    let mut set = ByteSet::default();
    match pattern[at..] {
        [b'?', ..] => (ByteSet([u64::MAX; 4]), at + 1),
        [b'[', ..] => {
            let (negated, next) = class(pattern, at + 1, |from, to| set.add(from, to));
            (if negated { ByteSet(set.0.map(|word| !word)) } else { set }, next)
        }
        [b'\\', escaped, ..] => {
            set.add(escaped.cast_signed(), escaped.cast_signed());
            (set, at + 2)
        }
        _ => {
            set.add(pattern[at].cast_signed(), pattern[at].cast_signed());
            (set, at + 1)
        }
    }
}

/// Reads the class whose `[` is just before `at`, and calls `each` with the ends of its ranges.
/// Returns true if the class is negated, and where the next element starts. The order of the match
/// arms decides how a malformed class is read. Bytes compare as C's signed char, as in Redis on
/// x86-64: 0xff comes before 0x00. The ends of a range may come in either order.
fn class(pattern: &[u8], mut at: usize, mut each: impl FnMut(i8, i8)) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    loop {
        let (from, to) = match pattern[at..] {
            [b'\\', escaped, ..] => {
                at += 2;
                (escaped, escaped)
            }
            [b']', ..] => return (negated, at + 1),
            [] => return (negated, at),
            [from, b'-', to, ..] => {
                at += 3;
                (from, to)
            }
            [listed, ..] => {
                at += 1;
                (listed, listed)
            }
        };
        let (from, to) = (from.cast_signed(), to.cast_signed());
        each(from.min(to), from.max(to));
    }
}

/// A set of bytes.
#[derive(Clone, Copy, Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn add(&mut self, from: i8, to: i8) {
        for byte in (from..=to).map(i8::cast_unsigned) {
            self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
        }
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |byte| self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1)
    }

    /// Returns the byte of a set that has only one.
    fn only(self) -> Option<u8> {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        self.bytes().next().filter(|_| count == 1)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::limits::{CHANNEL_NAME, PATTERN};

    /// Pattern, text, and whether redis-server 7.0.15 matches them (`KEYS` over one key).
    pub const CASES: &[(&[u8], &[u8], bool)] = &[
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
    fn the_shape_of_a_pattern_agrees_with_its_matches() {
        for (pattern, shape) in [
            (&b"news.*"[..], PatternShape::Prefix(b"news.".into())),
            (b"*", PatternShape::Prefix(b"".into())),
            (b"a***", PatternShape::Prefix(b"a".into())),
            (b"a\\*b*", PatternShape::Prefix(b"a*b".into())),
            (b"\\[1\\]*", PatternShape::Prefix(b"[1]".into())),
            (b"a]*", PatternShape::Prefix(b"a]".into())),
            (b"", PatternShape::Exact(b"".into())),
            (b"news", PatternShape::Exact(b"news".into())),
            (b"a\\*", PatternShape::Exact(b"a*".into())),
            (b"a\\", PatternShape::Exact(b"a\\".into())),
            (b"a\\\\*", PatternShape::Prefix(b"a\\".into())),
            (b"*a", PatternShape::Other),
            (b"a*b*", PatternShape::Other),
            (b"a?*", PatternShape::Other),
            (b"a[b]*", PatternShape::Other),
            (b"a*?", PatternShape::Other),
        ] {
            assert_eq!(PatternShape::of(pattern), shape, "{}", pattern.escape_ascii());
        }
        for (pattern, text, matched) in CASES.iter().filter(|(_, text, _)| !text.is_empty()) {
            match PatternShape::of(pattern) {
                PatternShape::Exact(name) => assert_eq!(name == *text, *matched),
                PatternShape::Prefix(literal) => assert_eq!(text.starts_with(&literal), *matched),
                PatternShape::Other => {}
            }
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
    fn the_worst_search_takes_a_million_steps() {
        let literal = [&b"*"[..], &[b'a'; PATTERN - 3], b"b*"].concat();
        let classes = [&b"*"[..], &b"[^b]".repeat(63), b"b*"].concat();
        for pattern in [literal, classes] {
            let mut steps = 0;
            assert!(!matches(&pattern, &[b'a'; CHANNEL_NAME], &mut steps));
            assert!((900_000..=PATTERN * (CHANNEL_NAME + 1)).contains(&steps), "{steps}");
        }
    }

    #[test]
    fn a_negated_class_matches_the_characters_of_its_own_syntax() {
        for (text, is_match) in [(b"^", true), (b"[", true), (b"]", true), (b"b", false)] {
            assert_eq!(matches(b"[^b]", text, &mut 0), is_match, "{}", text.escape_ascii());
        }
    }
}

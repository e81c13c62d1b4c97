//! Replies of a server. The reader agrees with a simple recursive one, at any cut of the bytes. It
//! holds no more than its limit, and drops longer replies.

use slabd::codec::resp::reader::{ReplyKind, ReplyLimits, ReplyReader, ReplyStep};

/// A reply's kinds and texts, or a reply that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Reply(Vec<(ReplyKind, Vec<u8>)>),
    Dropped(ReplyKind),
    Invalid,
}

/// Runs the target. The first byte chooses the limits, and the other bytes are the stream.
pub fn replies(data: &[u8]) {
    let Some((choice, stream)) = data.split_first() else { return };
    let limits = match choice % 2 {
        0 => ReplyLimits { kept_max: 1 << 20, announced_max: 1 << 20 },
        _ => ReplyLimits { kept_max: 24, announced_max: 64 },
    };
    let whole = read([stream], limits);
    for size in [1, 2, 3, 7, stream.len() / 2 + 1] {
        assert_eq!(read(stream.chunks(size), limits), whole, "{}", stream.escape_ascii());
    }
    if choice % 2 == 0 {
        assert_eq!(reference(stream), whole, "{}", stream.escape_ascii());
    }
}

/// Reads a stream that comes in pieces.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: ReplyLimits) -> Vec<Seen> {
    let mut reader = ReplyReader::new(limits);
    let (mut held, mut seen) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let used = match reader.read(&held) {
                Ok(ReplyStep::Whole(reply, used)) => {
                    let item = |at| Some((reply.kind_of(at)?, reply.text_of(at).to_vec()));
                    seen.push(Seen::Reply((0..reply.count()).filter_map(item).collect()));
                    used
                }
                Ok(ReplyStep::Dropped(kind, used)) => {
                    seen.push(Seen::Dropped(kind));
                    used
                }
                Ok(ReplyStep::Incomplete(used)) => {
                    held.drain(..used);
                    break;
                }
                Err(_) => {
                    seen.push(Seen::Invalid);
                    return seen;
                }
            };
            assert!(used > 0 && used <= held.len());
            held.drain(..used);
        }
    }
    seen
}

/// Reads a stream in the simplest way.
fn reference(mut stream: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !stream.is_empty() {
        let mut items = Vec::new();
        match item(stream, 0, &mut items) {
            Ok(Some(rest)) => {
                seen.push(Seen::Reply(items));
                stream = rest;
            }
            Ok(None) => return seen,
            Err(()) => {
                seen.push(Seen::Invalid);
                return seen;
            }
        }
    }
    seen
}

type Rest<'a> = Result<Option<&'a [u8]>, ()>;

/// Reads one item with everything in it, and returns the bytes behind it.
fn item<'a>(bytes: &'a [u8], depth: usize, items: &mut Vec<(ReplyKind, Vec<u8>)>) -> Rest<'a> {
    let Some((&marker, rest)) = bytes.split_first() else { return Ok(None) };
    let longest = match marker {
        b'+' | b'-' | b'(' => 4096,
        b':' | b'_' | b'#' | b',' | b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' => 32,
        _ => return Err(()),
    };
    let Some(end) = rest.iter().position(|byte| *byte == b'\r') else {
        return if bytes.len() > longest { Err(()) } else { Ok(None) };
    };
    if end + 1 > longest {
        return Err(());
    }
    let line = &rest[..end];
    let rest = match rest.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => &rest[end + 2..],
        Some(_) => return Err(()),
    };
    let text = std::str::from_utf8(line).unwrap_or("none");
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let mut single = |kind| {
        items.push((kind, line.to_vec()));
        Ok(Some(rest))
    };
    match marker {
        b'+' => single(ReplyKind::Text),
        b'-' => single(ReplyKind::Error),
        b':' if number.is_some() => single(ReplyKind::Integer),
        b'_' if line.is_empty() => single(ReplyKind::Null),
        b'#' if line == b"t" || line == b"f" => single(ReplyKind::Boolean),
        b',' if !text.starts_with('+') && text.parse::<f64>().is_ok() => single(ReplyKind::Double),
        b'(' => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let fits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if fits { single(ReplyKind::BigNumber) } else { Err(()) }
        }
        b'$' | b'*' if number == Some(-1) => {
            items.push((ReplyKind::Null, Vec::new()));
            Ok(Some(rest))
        }
        b'$' | b'!' | b'=' => bulk(marker, number, rest, items),
        b'*' | b'~' | b'>' | b'%' | b'|' => aggregate(marker, number, rest, depth, items),
        _ => Err(()),
    }
}

fn bulk<'a>(
    marker: u8,
    length: Option<i64>,
    rest: &'a [u8],
    items: &mut Vec<(ReplyKind, Vec<u8>)>,
) -> Rest<'a> {
    let length = usize::try_from(length.ok_or(())?).map_err(|_| ())?;
    // The inputs are shorter than this, so a longer string is over the limit or incomplete.
    if length > 1_000_000 {
        return Err(());
    }
    let format = if marker == b'=' { 4 } else { 0 };
    if length < format {
        return Err(());
    }
    if rest.len() < length + 2 {
        return Ok(None);
    }
    if &rest[length..length + 2] != b"\r\n" {
        return Err(());
    }
    let kind = if marker == b'!' { ReplyKind::Error } else { ReplyKind::Text };
    items.push((kind, rest[format..length].to_vec()));
    Ok(Some(&rest[length + 2..]))
}

fn aggregate<'a>(
    marker: u8,
    count: Option<i64>,
    mut rest: &'a [u8],
    depth: usize,
    items: &mut Vec<(ReplyKind, Vec<u8>)>,
) -> Rest<'a> {
    let count = usize::try_from(count.ok_or(())?).map_err(|_| ())?;
    let (kind, per_entry) = match marker {
        b'*' => (ReplyKind::Array, 1),
        b'~' => (ReplyKind::Set, 1),
        b'>' if depth > 0 => return Err(()),
        b'>' => (ReplyKind::Push, 1),
        _ => (ReplyKind::Map, 2),
    };
    if count > 8000 || depth == 8 {
        return Err(());
    }
    let before = items.len();
    if marker != b'|' {
        items.push((kind, Vec::new()));
    }
    for _ in 0..count * per_entry {
        let Some(behind) = item(rest, depth + 1, items)? else { return Ok(None) };
        rest = behind;
    }
    if marker != b'|' {
        return Ok(Some(rest));
    }
    // Attributes are dropped, and the item that they belong to follows.
    items.truncate(before);
    item(rest, depth, items)
}

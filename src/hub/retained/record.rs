//! A record: one kept message, as it lies in a segment of a log.
//!
//! Its head is 3 to 21 bytes, and usually 4: the length of the payload with two flags, the length
//! of the key, and the distance of its number from the first number of the segment. Key and payload
//! follow.

/// Flag: a later record has the same key, or the record was removed.
const DEAD: u64 = 1;
/// Flag: the message removed its key.
const GRAVE: u64 = 1 << 1;
const FLAG_BITS: u32 = 2;

/// A record that was read from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRecord<'a> {
    /// The number of the message in its log, counted from 1.
    pub number: u64,
    pub key: &'a [u8],
    pub payload: &'a [u8],
    pub is_dead: bool,
    /// True if the message removed its key. Only sessions that catch up need the record.
    pub is_grave: bool,
    /// Length of the whole record, in bytes.
    pub length: usize,
}

/// Appends a record whose number is `distance` above the first number of its segment. The key has
/// at most 255 bytes.
pub fn write(out: &mut Vec<u8>, distance: u64, key: &[u8], payload: &[u8], is_grave: bool) {
    let flags = if is_grave { GRAVE } else { 0 };
    write_number(out, (payload.len() as u64) << FLAG_BITS | flags);
    out.push(key.len() as u8);
    write_number(out, distance);
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
}

/// Returns the length of a record that [`write`] would append, in bytes.
pub fn length(distance: u64, key: &[u8], payload: &[u8]) -> usize {
    let head = number_length((payload.len() as u64) << FLAG_BITS) + 1 + number_length(distance);
    head + key.len() + payload.len()
}

/// Reads the record at the front of `bytes`, which lie in a segment with this first number.
pub fn read(bytes: &[u8], first: u64) -> Option<KeptRecord<'_>> {
    let (sizes, mut at) = read_number(bytes)?;
    let key_length = usize::from(*bytes.get(at)?);
    at += 1;
    let (distance, used) = read_number(&bytes[at..])?;
    at += used;
    let end = at + key_length + (sizes >> FLAG_BITS) as usize;
    let (key, payload) = bytes.get(at..end)?.split_at(key_length);
    Some(KeptRecord {
        number: first + distance,
        key,
        payload,
        is_dead: sizes & DEAD != 0,
        is_grave: sizes & GRAVE != 0,
        length: end,
    })
}

/// Marks the record at the front of `bytes` as dead.
pub fn kill(bytes: &mut [u8]) {
    // The flags are in the first byte of the head.
    bytes.iter_mut().take(1).for_each(|byte| *byte |= DEAD as u8);
}

/// Appends a number, seven bits a byte, the lowest first.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number_length(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn read_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (byte, at) in bytes.iter().zip(0..10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_with_its_flags_and_its_length() {
        let long = vec![b'x'; 70_000];
        for payload in [&b""[..], b"1", &long[..31], &long[..32], &long] {
            for distance in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), 1 << 62] {
                for (key, is_grave) in [(&b""[..], false), (b"5", true), (&long[..255], false)] {
                    let mut bytes = Vec::new();
                    write(&mut bytes, distance, key, payload, is_grave);
                    assert_eq!(bytes.len(), length(distance, key, payload));
                    let expected = KeptRecord {
                        number: 7 + distance,
                        key,
                        payload,
                        is_dead: false,
                        is_grave,
                        length: bytes.len(),
                    };
                    assert_eq!(read(&bytes, 7), Some(expected));
                    let mut dead = [&bytes[..], b"behind"].concat();
                    kill(&mut dead);
                    assert_eq!(read(&dead, 7), Some(KeptRecord { is_dead: true, ..expected }));
                    assert_eq!(read(&bytes[..bytes.len() - 1], 7), None, "a part of a record");
                }
            }
        }
    }
}

//! The messages of `@socket.io/redis-adapter`: an event for the servers of a cluster, in
//! MessagePack.
//!
//! A message is `[uid, {type, data, nsp}, {rooms, except, flags}]`. It is read in one pass to the
//! JSON of an event and its attachments, so no tree of values is built. A date becomes the text
//! that JavaScript makes of it.

mod write;

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use rmp::Marker;

use super::is_reserved;
use super::placeholder::check_placeholders;
use crate::calendar::civil;
use crate::codec::json;
use crate::limits::{ATTACHMENTS_MAX, CLUSTER_ROOMS_MAX, JSON_DEPTH_MAX};
use write::EVENT_TYPE;
pub use write::{ClusterAddress, array, bytes, text, value, write};

/// Days and years of 700 eras of the calendar. With them, no date of JavaScript is negative.
const ERAS: (i64, i64) = (700 * 146_097, 700 * 400);

/// An event for the sockets of a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClusterEvent<'a> {
    pub namespace: Cow<'a, str>,
    /// JSON: an array of the event's name and its arguments. Placeholders stand for attachments.
    pub data: Vec<u8>,
    pub attachments: Vec<Cow<'a, [u8]>>,
    /// The sockets in any of these rooms get it, or all if there are none. No room is there twice.
    pub rooms: Vec<Cow<'a, str>>,
    /// The sockets in any of these rooms do not get it.
    pub except: Vec<Cow<'a, str>>,
    pub volatile: bool,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadClusterEvent {
    /// It is not of the form above, or holds a value that JSON cannot express.
    Form,
    /// Its JSON has more than `JSON_DEPTH_MAX` levels, or more bytes than are accepted.
    Size,
    /// It has more than [`ATTACHMENTS_MAX`] attachments or [`CLUSTER_ROOMS_MAX`] rooms.
    Count,
    /// A server may not send an event of this name.
    Name,
}

/// Returns the sender's name. Each server chooses its own.
pub fn sender(message: &[u8]) -> Option<&[u8]> {
    let mut input = Input(message);
    match (input.item().ok()?, input.item().ok()?) {
        (Item::Array(3), Item::Text(sender)) => Some(sender),
        _ => None,
    }
}

/// Reads a message. Its JSON may have `most` bytes.
pub fn read(message: &[u8], most: usize) -> Result<ClusterEvent<'_>, BadClusterEvent> {
    let mut input = Input(message);
    if sender(message).is_none() {
        return Err(BadClusterEvent::Form);
    }
    let (_, _) = (input.item()?, input.item()?);
    let mut event = ClusterEvent { namespace: "/".into(), ..ClusterEvent::default() };
    let mut has_type = false;
    input.map(|input, key| match key {
        b"type" => match input.item()? {
            Item::Unsigned(EVENT_TYPE) => {
                has_type = true;
                Ok(())
            }
            _ => Err(BadClusterEvent::Form),
        },
        b"nsp" => match input.item()? {
            Item::Text(name) => {
                event.namespace = String::from_utf8_lossy(name);
                Ok(())
            }
            _ => Err(BadClusterEvent::Form),
        },
        b"data" => {
            let mut json = Json { out: Vec::new(), attachments: Vec::new(), most };
            input.json(&mut json, JSON_DEPTH_MAX)?;
            (event.data, event.attachments) = (json.out, json.attachments);
            Ok(())
        }
        _ => input.skip(JSON_DEPTH_MAX),
    })?;
    input.map(|input, key| match key {
        b"rooms" => {
            event.rooms = input.rooms()?;
            Ok(())
        }
        b"except" => {
            event.except = input.rooms()?;
            Ok(())
        }
        b"flags" => input.flags(&mut event.volatile),
        _ => input.skip(JSON_DEPTH_MAX),
    })?;
    if !has_type || !input.0.is_empty() || !event.data.starts_with(b"[") {
        return Err(BadClusterEvent::Form);
    }
    if !event.attachments.is_empty() {
        // A client ends its connection at a placeholder without an attachment.
        let json = std::str::from_utf8(&event.data).map_err(|_| BadClusterEvent::Form)?;
        let checked = check_placeholders(json, event.attachments.len());
        checked.map_err(|_| BadClusterEvent::Form)?;
    }
    let mut input = serde_json::Deserializer::from_slice(&event.data[1..]).into_iter();
    match input.next() {
        Some(Ok(serde_json::Value::String(name))) if !is_reserved(&name) => Ok(event),
        Some(Ok(serde_json::Value::Number(_))) => Ok(event),
        _ => Err(BadClusterEvent::Name),
    }
}

/// The rest of a message.
struct Input<'a>(&'a [u8]);

/// The next value of a message, or the head of an array or map.
enum Item<'a> {
    Nil,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// Milliseconds since 1970.
    Date(f64),
    Array(u32),
    Map(u32),
}

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], BadClusterEvent> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(BadClusterEvent::Form)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Takes a number of at most eight bytes.
    fn number(&mut self, width: usize) -> Result<u64, BadClusterEvent> {
        let bytes = self.bytes(width)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, width: usize) -> Result<i64, BadClusterEvent> {
        let unused = 64 - 8 * width as u32;
        Ok((self.number(width)? << unused) as i64 >> unused)
    }

    /// Takes bytes behind their length.
    fn sized(&mut self, width: usize) -> Result<&'a [u8], BadClusterEvent> {
        let length = self.number(width)? as usize;
        self.bytes(length)
    }

    fn item(&mut self) -> Result<Item<'a>, BadClusterEvent> {
        let marker = Marker::from_u8(self.number(1)? as u8);
        Ok(match marker {
            Marker::FixPos(number) => Item::Unsigned(number.into()),
            Marker::FixNeg(number) => Item::Signed(number.into()),
            Marker::Null => Item::Nil,
            Marker::True => Item::Boolean(true),
            Marker::False => Item::Boolean(false),
            Marker::U8 => Item::Unsigned(self.number(1)?),
            Marker::U16 => Item::Unsigned(self.number(2)?),
            Marker::U32 => Item::Unsigned(self.number(4)?),
            Marker::U64 => Item::Unsigned(self.number(8)?),
            Marker::I8 => Item::Signed(self.signed(1)?),
            Marker::I16 => Item::Signed(self.signed(2)?),
            Marker::I32 => Item::Signed(self.signed(4)?),
            Marker::I64 => Item::Signed(self.signed(8)?),
            Marker::F32 => Item::Float(f32::from_bits(self.number(4)? as u32).into()),
            Marker::F64 => Item::Float(f64::from_bits(self.number(8)?)),
            Marker::FixStr(length) => Item::Text(self.bytes(length.into())?),
            Marker::Str8 => Item::Text(self.sized(1)?),
            Marker::Str16 => Item::Text(self.sized(2)?),
            Marker::Str32 => Item::Text(self.sized(4)?),
            Marker::Bin8 => Item::Bytes(self.sized(1)?),
            Marker::Bin16 => Item::Bytes(self.sized(2)?),
            Marker::Bin32 => Item::Bytes(self.sized(4)?),
            Marker::FixArray(length) => Item::Array(length.into()),
            Marker::Array16 => Item::Array(self.number(2)? as u32),
            Marker::Array32 => Item::Array(self.number(4)? as u32),
            Marker::FixMap(length) => Item::Map(length.into()),
            Marker::Map16 => Item::Map(self.number(2)? as u32),
            Marker::Map32 => Item::Map(self.number(4)? as u32),
            Marker::FixExt1 => self.extension(1, true)?,
            Marker::FixExt4 => self.extension(4, true)?,
            Marker::FixExt8 => self.extension(8, true)?,
            Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => {
                let width = match marker {
                    Marker::Ext8 => 1,
                    Marker::Ext16 => 2,
                    _ => 4,
                };
                let length = self.number(width)? as usize;
                self.extension(length, false)?
            }
            Marker::FixExt2 | Marker::FixExt16 | Marker::Reserved => {
                return Err(BadClusterEvent::Form);
            }
        })
    }

    /// Takes an extension: a timestamp, or what notepack made of types of JavaScript: `undefined`,
    /// a date, and an ArrayBuffer.
    fn extension(&mut self, length: usize, is_fixed: bool) -> Result<Item<'a>, BadClusterEvent> {
        Ok(match (self.signed(1)?, length, is_fixed) {
            (0, 1, true) => {
                self.bytes(1)?;
                Item::Nil
            }
            (0, 8, true) => Item::Date(self.signed(8)? as f64),
            (0, _, false) => Item::Bytes(self.bytes(length)?),
            (-1, 4, true) => Item::Date(self.number(4)? as f64 * 1e3),
            (-1, 8, true) => {
                let both = self.number(8)?;
                let (nanoseconds, seconds) = (both >> 34, both & ((1 << 34) - 1));
                Item::Date(seconds as f64 * 1e3 + nanoseconds as f64 / 1e6)
            }
            (-1, 12, false) => {
                let nanoseconds = self.number(4)? as f64;
                Item::Date(self.signed(8)? as f64 * 1e3 + nanoseconds / 1e6)
            }
            _ => return Err(BadClusterEvent::Form),
        })
    }

    /// Takes a map. `each` takes the value of a key.
    fn map(
        &mut self,
        mut each: impl FnMut(&mut Self, &'a [u8]) -> Result<(), BadClusterEvent>,
    ) -> Result<(), BadClusterEvent> {
        let Item::Map(length) = self.item()? else { return Err(BadClusterEvent::Form) };
        for _ in 0..length {
            let Item::Text(key) = self.item()? else { return Err(BadClusterEvent::Form) };
            each(self, key)?;
        }
        Ok(())
    }

    fn skip(&mut self, levels: usize) -> Result<(), BadClusterEvent> {
        let items = match self.item()? {
            Item::Array(length) => u64::from(length),
            Item::Map(length) => 2 * u64::from(length),
            _ => return Ok(()),
        };
        let below = levels.checked_sub(1).ok_or(BadClusterEvent::Size)?;
        (0..items).try_for_each(|_| self.skip(below))
    }

    fn rooms(&mut self) -> Result<Vec<Cow<'a, str>>, BadClusterEvent> {
        let Item::Array(length) = self.item()? else { return Err(BadClusterEvent::Form) };
        if length as usize > CLUSTER_ROOMS_MAX {
            return Err(BadClusterEvent::Count);
        }
        let mut rooms = Vec::new();
        for _ in 0..length {
            rooms.push(match self.item()? {
                Item::Text(name) => String::from_utf8_lossy(name),
                Item::Unsigned(number) => number.to_string().into(),
                Item::Signed(number) => number.to_string().into(),
                _ => return Err(BadClusterEvent::Form),
            });
        }
        rooms.sort_unstable();
        rooms.dedup();
        Ok(rooms)
    }

    fn flags(&mut self, volatile: &mut bool) -> Result<(), BadClusterEvent> {
        if self.0.first() == Some(&Marker::Null.to_u8()) {
            return self.skip(0);
        }
        self.map(|input, key| match key {
            b"volatile" => {
                *volatile = matches!(input.item()?, Item::Boolean(true));
                Ok(())
            }
            _ => input.skip(JSON_DEPTH_MAX),
        })
    }

    /// Takes a value of at most this many levels, and appends it as JSON.
    fn json(&mut self, json: &mut Json<'a>, levels: usize) -> Result<(), BadClusterEvent> {
        let below = || levels.checked_sub(1).ok_or(BadClusterEvent::Size);
        match self.item()? {
            Item::Nil => json.out.extend_from_slice(b"null"),
            Item::Boolean(on) => json.display(on),
            Item::Unsigned(number) => json.display(number),
            Item::Signed(number) => json.display(number),
            // Writing to a Vec cannot fail. NaN and infinity are null, as in JavaScript.
            Item::Float(number) => drop(serde_json::to_writer(&mut json.out, &number)),
            Item::Text(text) => json::string(&mut json.out, &String::from_utf8_lossy(text)),
            Item::Bytes(bytes) => json.attach(bytes)?,
            Item::Date(milliseconds) => json.date(milliseconds),
            Item::Array(length) => {
                let below = below()?;
                json.out.push(b'[');
                for at in 0..length {
                    json.comma(at);
                    self.json(json, below)?;
                }
                json.out.push(b']');
            }
            Item::Map(length) => {
                let below = below()?;
                json.out.push(b'{');
                for at in 0..length {
                    json.comma(at);
                    let key = match self.item()? {
                        Item::Text(key) => String::from_utf8_lossy(key),
                        Item::Unsigned(number) => number.to_string().into(),
                        Item::Signed(number) => number.to_string().into(),
                        _ => return Err(BadClusterEvent::Form),
                    };
                    json::string(&mut json.out, &key);
                    json.out.push(b':');
                    self.json(json, below)?;
                }
                json.out.push(b'}');
            }
        }
        if json.out.len() > json.most { Err(BadClusterEvent::Size) } else { Ok(()) }
    }
}

/// JSON in the making.
struct Json<'a> {
    out: Vec<u8>,
    attachments: Vec<Cow<'a, [u8]>>,
    most: usize,
}

impl<'a> Json<'a> {
    fn display(&mut self, value: impl fmt::Display) {
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{value}");
    }

    fn comma(&mut self, at: u32) {
        if at > 0 {
            self.out.push(b',');
        }
    }

    fn attach(&mut self, bytes: &'a [u8]) -> Result<(), BadClusterEvent> {
        if self.attachments.len() == ATTACHMENTS_MAX {
            return Err(BadClusterEvent::Count);
        }
        self.display(format_args!("{{\"_placeholder\":true,\"num\":{}}}", self.attachments.len()));
        self.attachments.push(bytes.into());
        Ok(())
    }

    /// Appends a date as JavaScript does. A year beyond four digits has six and a sign.
    fn date(&mut self, milliseconds: f64) {
        let whole = milliseconds.trunc();
        if !(-8.64e15..=8.64e15).contains(&whole) {
            return self.out.extend_from_slice(b"null");
        }
        let whole = whole as i64;
        let (days, of_day) = (whole.div_euclid(86_400_000), whole.rem_euclid(86_400_000));
        let (year, month, day) = civil((days + ERAS.0) as u64);
        let year = year as i64 - ERAS.1;
        let year = match year {
            0..=9999 => format!("{year:04}"),
            _ => format!("{year:+07}"),
        };
        let (seconds, thousandths) = (of_day / 1000, of_day % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        self.display(format_args!(
            "\"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{thousandths:03}Z\""
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What notepack.io 3.0.1 makes of messages of redis-adapter 8.3 and redis-emitter 5.1.
    const PLAIN: &str = "\
        93a675696431323383a47479706502a46461746194a16501a374776fc0a36e7370a12f83a5726f6f6d7390a6\
        65786365707490a5666c61677380";
    const BINARY: &str = "\
        93a675696431323383a47479706502a46461746193a165c40200ff81a16191c40178a36e7370a52f63686174\
        83a5726f6f6d7392a17205a665786365707491a173a5666c61677382a8766f6c6174696c65c3a8636f6d7072\
        657373c2";
    const DATES: &str = "\
        93a7656d697474657282a47479706502a4646174619aa164d6ff00000000d7ff1d5353006553f100c70cff3b\
        8b87c0ffffffffffffffffc70cff000000000000003afff44180cbbfe0000000000000cf0000000100000000\
        d1ff7f91c0c4010782a5726f6f6d7390a665786365707490";

    fn message(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    fn data(event: &ClusterEvent<'_>) -> String {
        String::from_utf8(event.data.clone()).unwrap()
    }

    #[test]
    fn messages_of_the_adapter_and_the_emitter_are_read() {
        let plain = message(PLAIN);
        let event = read(&plain, 1000).unwrap();
        assert_eq!(data(&event), r#"["e",1,"two",null]"#);
        assert_eq!((&*event.namespace, event.rooms.len(), event.volatile), ("/", 0, false));
        assert_eq!(sender(&plain), Some(&b"uid123"[..]));
        let binary = message(BINARY);
        let event = read(&binary, 1000).unwrap();
        let placeholder = |number| format!("{{\"_placeholder\":true,\"num\":{number}}}");
        let expected = format!("[\"e\",{},{{\"a\":[{}]}}]", placeholder(0), placeholder(1));
        assert_eq!(data(&event), expected);
        assert_eq!(event.attachments, [&[0, 255][..], b"x"]);
        assert_eq!((event.rooms, event.except), (vec!["5".into(), "r".into()], vec!["s".into()]));
        assert_eq!((&*event.namespace, event.volatile), ("/chat", true));
        let dates = message(DATES);
        let event = read(&dates, 1000).unwrap();
        let placeholder = placeholder(0);
        let expected = format!(
            "[\"d\",\"1970-01-01T00:00:00.000Z\",\"2023-11-14T22:13:20.123Z\",\
             \"1969-12-31T23:59:59.999Z\",\"+010000-01-01T00:00:00.000Z\",-0.5,4294967296,-129,\
             [null],{placeholder}]"
        );
        assert_eq!((data(&event), &*event.namespace), (expected, "/"));
    }

    #[test]
    fn a_message_that_is_cut_or_has_more_behind_it_is_refused() {
        for whole in [PLAIN, BINARY, DATES].map(message) {
            for length in 0..whole.len() {
                assert!(read(&whole[..length], 1000).is_err(), "{length}");
            }
            assert_eq!(read(&[&whole[..], b"x"].concat(), 1000), Err(BadClusterEvent::Form));
        }
    }

    /// Returns a message with this data, and these rooms.
    fn with(data: &[u8], rooms: usize) -> Vec<u8> {
        let to = ClusterAddress { sender: "x", namespace: "/", room: None, volatile: false };
        let mut out = Vec::new();
        write(&mut out, &to, |out| out.extend_from_slice(data));
        let at = out.windows(6).position(|some| some == b"\xa5rooms").unwrap() + 6;
        let mut list = Vec::new();
        array(&mut list, rooms as u32);
        (0..rooms).for_each(|room| text(&mut list, &room.to_string()));
        out.splice(at..at + 1, list);
        out
    }

    #[test]
    fn a_placeholder_without_an_attachment_is_refused() {
        let event =
            |number: &[u8]| [b"\x93\xa1e\xc4\x01x\x82\xac_placeholder\xc3\xa3num", number].concat();
        assert!(read(&with(&event(b"\x00"), 0), 1000).is_ok());
        assert_eq!(read(&with(&event(b"\x01"), 0), 1000), Err(BadClusterEvent::Form));
    }

    #[test]
    fn each_bound_holds_at_the_limit_and_beyond() {
        let event = |behind: &[u8]| [b"\x92\xa1e", behind].concat();
        let rooms = |count| read(&with(&event(b"\x01"), count), 1000).map(|one| one.rooms.len());
        assert_eq!(rooms(CLUSTER_ROOMS_MAX - 1), Ok(CLUSTER_ROOMS_MAX - 1));
        assert_eq!(rooms(CLUSTER_ROOMS_MAX), Ok(CLUSTER_ROOMS_MAX));
        assert_eq!(rooms(CLUSTER_ROOMS_MAX + 1), Err(BadClusterEvent::Count));
        let deep = |levels| event(&[vec![0x91; levels - 2], vec![0x90]].concat());
        for (levels, fits) in
            [(JSON_DEPTH_MAX - 1, true), (JSON_DEPTH_MAX, true), (JSON_DEPTH_MAX + 1, false)]
        {
            assert_eq!(read(&with(&deep(levels), 0), 1000).is_ok(), fits, "{levels} levels");
        }
        let attached =
            |count: usize| event(&[vec![0x90 | count as u8], b"\xc4\x01x".repeat(count)].concat());
        for (count, fits) in
            [(ATTACHMENTS_MAX - 1, true), (ATTACHMENTS_MAX, true), (ATTACHMENTS_MAX + 1, false)]
        {
            assert_eq!(read(&with(&attached(count), 0), 1000).is_ok(), fits, "{count}");
        }
        for (most, fits) in [(8, false), (9, true), (10, true)] {
            assert_eq!(read(&with(&event(b"\xcd\x01\x00"), 0), most).is_ok(), fits, "{most}");
        }
        assert_eq!(
            read(&with(b"\xdd\xff\xff\xff\xff", 0), 1000),
            Err(BadClusterEvent::Form),
            "a length without elements"
        );
    }

    #[test]
    fn an_event_without_a_name_or_with_a_reserved_one_is_refused() {
        for data in [&b"\x90"[..], b"\x91\xc0", b"\x91\x90", b"\x91\xaadisconnect"] {
            assert_eq!(read(&with(data, 0), 1000), Err(BadClusterEvent::Name));
        }
        assert!(read(&with(b"\x91\x05", 0), 1000).is_ok(), "a number is a name");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let json = r#"["e",{"a":[1,-2,0.5,true,false,null,"\u00e4"],"b":{}},12345678901234567890]"#;
        let room = Some("r");
        let to = ClusterAddress { sender: "slabd", namespace: "/n", room, volatile: true };
        let mut out = Vec::new();
        write(&mut out, &to, |out| assert!(value(out, json)));
        let event = read(&out, 1000).unwrap();
        assert_eq!(data(&event), json.replace("\\u00e4", "ä"));
        assert_eq!((event.rooms, event.volatile), (vec!["r".into()], true));
        for wrong in ["", "[1", "[1] x", r#"["\ud800"]"#] {
            let mut out = vec![1];
            assert!(!value(&mut out, wrong) && out == [1], "{wrong}");
        }
    }
}

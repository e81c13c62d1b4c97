//! Writes an event for the other servers of a cluster. Values go from JSON to MessagePack as they
//! are parsed.

use std::fmt;

use rmp::Marker;
use rmp::encode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The type of an event, whether or not it has attachments.
pub const EVENT_TYPE: u64 = 2;

/// The destination of an event for the other servers.
pub struct ClusterAddress<'a> {
    /// The server that sends it.
    pub sender: &'a str,
    pub namespace: &'a str,
    /// The room whose sockets get it. `None`: all sockets of the namespace do.
    pub room: Option<&'a str>,
    pub volatile: bool,
}

/// Appends a message. `data` appends the array of the event's name and arguments.
pub fn write(out: &mut Vec<u8>, to: &ClusterAddress<'_>, data: impl FnOnce(&mut Vec<u8>)) {
    array(out, 3);
    text(out, to.sender);
    map(out, 3);
    text(out, "type");
    unsigned(out, EVENT_TYPE);
    text(out, "data");
    data(out);
    text(out, "nsp");
    text(out, to.namespace);
    map(out, 3);
    text(out, "rooms");
    array(out, to.room.iter().len() as u32);
    to.room.iter().for_each(|room| text(out, room));
    text(out, "except");
    array(out, 0);
    text(out, "flags");
    map(out, u32::from(to.volatile));
    if to.volatile {
        text(out, "volatile");
        out.push(Marker::True.to_u8());
    }
}

// Writing to a Vec cannot fail.

/// Appends the head of an array.
pub fn array(out: &mut Vec<u8>, length: u32) {
    let _ = encode::write_array_len(out, length);
}

fn map(out: &mut Vec<u8>, length: u32) {
    let _ = encode::write_map_len(out, length);
}

fn unsigned(out: &mut Vec<u8>, number: u64) {
    let _ = encode::write_uint(out, number);
}

/// Appends a text.
pub fn text(out: &mut Vec<u8>, text: &str) {
    let _ = encode::write_str(out, text);
}

/// Appends bytes, which arrive as an attachment.
pub fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let _ = encode::write_bin(out, bytes);
}

/// Appends the value that a text of JSON stands for. Returns false, and appends nothing, if the
/// text is no JSON or has half of a surrogate pair.
pub fn value(out: &mut Vec<u8>, json: &str) -> bool {
    let start = out.len();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let is_whole = ValueWriter(out).deserialize(&mut deserializer).is_ok();
    let is_whole = is_whole && deserializer.end().is_ok();
    if !is_whole {
        out.truncate(start);
    }
    is_whole
}

/// Writes a value as it is parsed.
struct ValueWriter<'o>(&'o mut Vec<u8>);

impl ValueWriter<'_> {
    /// Appends the head of an array or map whose length is not known yet. Returns its place.
    fn begin(&mut self, marker: Marker) -> usize {
        self.0.push(marker.to_u8());
        self.0.extend_from_slice(&[0; 4]);
        self.0.len()
    }

    fn end(&mut self, begun: usize, length: u32) {
        self.0[begun - 4..begun].copy_from_slice(&length.to_be_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for ValueWriter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(Marker::Null.to_u8());
        Ok(())
    }

    fn visit_bool<E>(self, on: bool) -> Result<(), E> {
        self.0.push(if on { Marker::True } else { Marker::False }.to_u8());
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        unsigned(self.0, number);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        let _ = encode::write_sint(self.0, number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        let _ = encode::write_f64(self.0, number);
        Ok(())
    }

    fn visit_str<E>(self, string: &str) -> Result<(), E> {
        text(self.0, string);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        let begun = self.begin(Marker::Array32);
        let mut length = 0;
        while values.next_element_seed(ValueWriter(self.0))?.is_some() {
            length += 1;
        }
        self.end(begun, length);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let begun = self.begin(Marker::Map32);
        let mut length = 0;
        while fields.next_key_seed(ValueWriter(self.0))?.is_some() {
            fields.next_value_seed(ValueWriter(self.0))?;
            length += 1;
        }
        self.end(begun, length);
        Ok(())
    }
}

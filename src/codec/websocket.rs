//! WebSocket frames (RFC 6455), for both ends of a connection, without extensions.
//!
//! A [`Decoder`] finds the messages and control frames in the bytes of a stream, and takes the
//! masks off where the bytes lie. The modules `encode` and `close` write frames, and `handshake`
//! answers the key of an opening handshake.

mod close;
mod encode;
mod frame;
mod handshake;
mod mask;

use std::ops::Range;

use crate::limits::MESSAGE_GAP_MAX;
use frame::FrameHead;

pub use close::{CloseCode, encode_close, parse_close};
pub use encode::{encode, encode_head, encode_masked, frame};
pub use handshake::accept_key;

/// Maximum length of the payload of a control frame, in bytes.
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// The end of the connection that decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Receives frames with masks.
    #[default]
    Server,
    /// Receives frames without masks.
    Client,
}

/// The kind of a message, or of a control frame. Continuation frames are parts of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opcode {
    Text = 1,
    #[default]
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// The result of [`Decoder::decode`]. Ranges are of its input, and valid until the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole message, text or binary. Text is UTF-8. It ends `used` bytes behind the front of the
    /// input. Every call returns it again, until [`Decoder::taken`] is called.
    Message { opcode: Opcode, payload: Range<usize>, used: usize },
    /// A control frame. The caller drops the first `used` bytes of the input before the next call.
    /// Inside a message they are 0, because the frame lies behind the begun message.
    Control { opcode: Opcode, payload: Range<usize>, used: usize },
    /// The input has nothing more. The caller drops its first `used` bytes. The other bytes come
    /// back at the front of the next input, with more behind them.
    Incomplete { used: usize },
}

/// The state of a message that is partly received.
///
/// The input of [`decode`](Decoder::decode) begins with the first byte of the message, less the
/// bytes that the caller has dropped. While the message arrives, its payload is unmasked, checked
/// and joined at the front of the input:
///
/// ```text
/// | head of the first frame | payload so far | gap | bytes not decoded |
/// 0                         start          end     raw                 input.len()
/// ```
///
/// Each byte is moved a bounded number of times, however the message is cut. The gap, left by the
/// headers of further frames and by control frames between them, is shorter than the payload, or
/// than [`MESSAGE_GAP_MAX`], when `Incomplete` is returned. Inside a message, at least one byte is
/// left of the input, so the caller sees that a message has begun.
#[derive(Default)]
pub struct Decoder {
    role: Role,
    awaited: Awaited,
    opcode: Opcode,
    /// True if the current data frame is the last one of the message.
    is_last: bool,
    /// Number of bytes at the end of the payload that begin a character of UTF-8.
    begun_character: u8,
    /// The mask for the next byte of the current data frame, and for those after it.
    mask: [u8; 4],
    start: usize,
    end: usize,
    raw: usize,
    /// Number of payload bytes that the current data frame has left.
    rest: usize,
}

/// The thing that a decoder awaits next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    /// The first frame of a message.
    #[default]
    Message,
    /// Another frame of the message.
    Frame,
    /// Payload of the current data frame.
    Payload,
    /// The call of [`Decoder::taken`]: the message is whole.
    Taken,
}

impl Decoder {
    pub fn new(role: Role) -> Decoder {
        Decoder { role, ..Decoder::default() }
    }

    /// Returns true inside a message, and while a whole message has not been taken. Otherwise the
    /// decoder equals a new one, and need not be kept.
    pub fn is_begun(&self) -> bool {
        self.awaited != Awaited::Message
    }

    /// Forgets the message that `decode` has returned. The caller now drops its `used` bytes. A
    /// caller that cannot act on the message yet keeps them, and asks again later.
    pub fn taken(&mut self) {
        debug_assert_eq!(self.awaited, Awaited::Taken, "no message was returned");
        *self = Decoder::new(self.role);
    }

    /// Decodes as far as the next message or control frame. An error names the code to close with,
    /// and ends the stream: the caller does not decode any further.
    ///
    /// The way in which a stream is cut does not change the results. A byte that is wrong is found
    /// as soon as it arrives.
    pub fn decode(&mut self, input: &mut [u8], max_message: usize) -> Result<Decoded, CloseCode> {
        loop {
            match self.awaited {
                Awaited::Taken => {
                    let (payload, used) = (self.start..self.end, self.raw);
                    return Ok(Decoded::Message { opcode: self.opcode, payload, used });
                }
                Awaited::Payload => {
                    self.receive(input)?;
                    if self.rest > 0 {
                        return Ok(self.incomplete(input));
                    }
                    self.end_frame()?;
                }
                Awaited::Message | Awaited::Frame => {
                    let room = max_message.saturating_sub(self.end - self.start);
                    let bytes = input.get(self.raw..).unwrap_or_default();
                    let Some(head) = FrameHead::parse(bytes, self.role, self.is_begun(), room)?
                    else {
                        return Ok(self.incomplete(input));
                    };
                    if head.is_control() {
                        return Ok(self.control(&head, input));
                    }
                    self.begin_frame(&head);
                }
            }
        }
    }

    /// Returns the least length of an input that can change the result, after `decode` has returned
    /// `Incomplete` with nothing used for an input of `length` bytes: the end of the current data
    /// frame, or one byte more.
    pub fn needs(&self, length: usize) -> usize {
        (self.raw + self.rest).max(length + 1)
    }

    fn begin_frame(&mut self, head: &FrameHead) {
        self.raw += head.size;
        if let Some(opcode) = head.opcode {
            self.opcode = opcode;
            (self.start, self.end) = (self.raw, self.raw);
        }
        self.is_last = head.is_last;
        self.mask = head.mask;
        self.rest = head.length;
        self.awaited = Awaited::Payload;
    }

    /// Takes what has arrived of the current data frame into the payload.
    fn receive(&mut self, input: &mut [u8]) -> Result<(), CloseCode> {
        let length = self.rest.min(input.len().saturating_sub(self.raw));
        if length == 0 {
            return Ok(());
        }
        if self.end < self.raw {
            input.copy_within(self.raw..self.raw + length, self.end);
        }
        let arrived = self.end..self.end + length;
        if self.role == Role::Server {
            mask::apply(&mut input[arrived.clone()], self.mask);
            self.mask.rotate_left(length % 4);
        }
        if self.opcode == Opcode::Text {
            let unchecked = arrived.start - usize::from(self.begun_character);
            self.begun_character = begun_character(&input[unchecked..arrived.end])?;
        }
        self.end += length;
        self.raw += length;
        self.rest -= length;
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), CloseCode> {
        if self.is_last && self.begun_character > 0 {
            return Err(CloseCode::InvalidText);
        }
        self.awaited = if self.is_last { Awaited::Taken } else { Awaited::Frame };
        Ok(())
    }

    /// Returns the control frame with the given head, if all of it is there.
    fn control(&mut self, head: &FrameHead, input: &mut [u8]) -> Decoded {
        let (start, end) = (self.raw + head.size, self.raw + head.size + head.length);
        let (Some(opcode), Some(payload)) = (head.opcode, input.get_mut(start..end)) else {
            return self.incomplete(input);
        };
        mask::apply(payload, head.mask);
        let used = if self.is_begun() { 0 } else { end };
        if self.is_begun() {
            self.raw = end;
        }
        Decoded::Control { opcode, payload: start..end, used }
    }

    /// Closes a gap that has grown long: moves the payload up against the bytes not decoded.
    fn incomplete(&mut self, input: &mut [u8]) -> Decoded {
        let (length, gap) = (self.end - self.start, self.raw - self.end);
        if gap <= length.max(MESSAGE_GAP_MAX) {
            return Decoded::Incomplete { used: 0 };
        }
        // One dead byte stays: a caller that holds nothing would take no message to have begun.
        let used = self.raw - length - 1;
        input.copy_within(self.start..self.end, used);
        (self.start, self.end, self.raw) = (0, length, self.raw - used);
        Decoded::Incomplete { used }
    }
}

/// Checks that text is UTF-8. Returns the number of bytes at its end that begin a character.
fn begun_character(text: &[u8]) -> Result<u8, CloseCode> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(0),
        Err(error) if error.error_len().is_none() => Ok((text.len() - error.valid_up_to()) as u8),
        Err(_) => Err(CloseCode::InvalidText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const LAST: u8 = 0x80;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Event {
        Got(Opcode, Vec<u8>),
        Failed(CloseCode),
    }
    use Event::{Failed, Got};

    /// The caller of a decoder. Like the loop, it keeps what is not used and appends what arrives,
    /// and it forgets a decoder that has not begun.
    struct Caller {
        decoder: Decoder,
        held: Vec<u8>,
        max_message: usize,
        events: Vec<Event>,
    }

    impl Caller {
        fn new(role: Role, max_message: usize) -> Caller {
            let decoder = Decoder::new(role);
            Caller { decoder, held: Vec::new(), max_message, events: Vec::new() }
        }

        fn has_failed(&self) -> bool {
            matches!(self.events.last(), Some(Failed(_)))
        }

        fn receive(&mut self, piece: &[u8]) {
            self.held.extend_from_slice(piece);
            while !self.has_failed() {
                match self.decoder.decode(&mut self.held, self.max_message) {
                    Err(code) => self.events.push(Failed(code)),
                    Ok(Decoded::Incomplete { used }) => {
                        self.held.drain(..used);
                        assert!(!self.decoder.is_begun() || !self.held.is_empty());
                        self.check_memory();
                        if !self.decoder.is_begun() {
                            self.decoder = Decoder::new(self.decoder.role);
                        }
                        break;
                    }
                    Ok(Decoded::Control { opcode, payload, used }) => {
                        self.events.push(Got(opcode, self.held[payload].to_vec()));
                        assert!(used == 0 || !self.decoder.is_begun());
                        self.held.drain(..used);
                    }
                    Ok(message @ Decoded::Message { .. }) => {
                        // A message that waits is the same later, with more bytes behind it.
                        self.held.push(0);
                        let again = self.decoder.decode(&mut self.held, 0);
                        assert_eq!(again.as_ref(), Ok(&message));
                        self.held.pop();
                        let Decoded::Message { opcode, payload, used } = message else { return };
                        self.events.push(Got(opcode, self.held[payload].to_vec()));
                        self.held.drain(..used);
                        self.decoder.taken();
                        assert!(!self.decoder.is_begun());
                    }
                }
            }
        }

        /// Between two inputs, the payload bounds the dead bytes, and a frame those not decoded.
        fn check_memory(&self) {
            let payload = self.decoder.end - self.decoder.start;
            let most = 14 + payload + payload.max(MESSAGE_GAP_MAX) + 6 + CONTROL_PAYLOAD_MAX;
            assert!(self.held.len() <= most, "{} bytes of {payload} held", self.held.len());
        }
    }

    fn events<'a>(
        role: Role,
        max_message: usize,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Event> {
        let mut caller = Caller::new(role, max_message);
        pieces.into_iter().for_each(|piece| caller.receive(piece));
        caller.events
    }

    /// Returns a frame as the peer of `role` sends it, with any first byte.
    fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match role {
            Role::Server => encode_masked(&mut out, Opcode::Binary, payload, MASK),
            Role::Client => encode(&mut out, Opcode::Binary, payload),
        }
        out[0] = first;
        out
    }

    /// Decodes a stream whole, byte by byte, at every cut, and with trailing bytes.
    fn assert_events(role: Role, max_message: usize, stream: &[u8], expected: &[Event]) {
        let shown = || format!("{role:?}: {}", stream.escape_ascii());
        assert_eq!(events(role, max_message, [stream]), expected, "{}", shown());
        let bytes = events(role, max_message, stream.chunks(1));
        assert_eq!(bytes, expected, "byte by byte: {}", shown());
        for cut in 0..stream.len() {
            let cuts = [&stream[..cut], &stream[cut..]];
            assert_eq!(events(role, max_message, cuts), expected, "cut at {cut}: {}", shown());
        }
        if !matches!(expected.last(), Some(Failed(_))) {
            let ping = frame(role, 0x89, b"after it");
            let more = [expected, &[Got(Opcode::Ping, b"after it".to_vec())]].concat();
            assert_eq!(events(role, max_message, [stream, &ping]), more, "then {}", shown());
        }
    }

    /// First bytes and payloads of frames, and what they amount to.
    type Case<'a> = (&'a [(u8, &'a [u8])], &'a [(Opcode, &'a [u8])], Option<CloseCode>);

    fn assert_case(max_message: usize, (frames, got, failed): Case<'_>) {
        for role in [Role::Server, Role::Client] {
            let frames = frames.iter().map(|(first, payload)| frame(role, *first, payload));
            let stream: Vec<u8> = frames.flatten().collect();
            let got = got.iter().map(|(opcode, payload)| Got(*opcode, payload.to_vec()));
            let expected: Vec<Event> = got.chain(failed.map(Failed)).collect();
            assert_events(role, max_message, &stream, &expected);
        }
    }

    #[test]
    fn the_examples_of_the_rfc_decode() {
        let hello = || b"Hello".to_vec();
        let masked_text = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_events(Role::Server, 5, masked_text, &[Got(Opcode::Text, hello())]);
        let masked_pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_events(Role::Server, 5, masked_pong, &[Got(Opcode::Pong, hello())]);
        assert_events(Role::Client, 5, b"\x81\x05Hello", &[Got(Opcode::Text, hello())]);
        assert_events(Role::Client, 5, b"\x89\x05Hello", &[Got(Opcode::Ping, hello())]);
        assert_events(Role::Client, 5, b"\x01\x03Hel\x80\x02lo", &[Got(Opcode::Text, hello())]);
        for (head, length) in
            [(&b"\x82\x7e\x01\x00"[..], 256), (b"\x82\x7f\0\0\0\0\0\x01\0\0", 65_536)]
        {
            let payload = vec![0xa5; length];
            let expected = [Got(Opcode::Binary, payload.clone())];
            let mut out = Vec::new();
            encode(&mut out, Opcode::Binary, &payload);
            assert_eq!(out, [head, &payload].concat());
            assert_eq!(events(Role::Client, length, out.chunks(1)), expected);
            assert_eq!(events(Role::Client, length, [&out[..]]), expected);
        }
        let mut out = Vec::new();
        encode_masked(&mut out, Opcode::Text, b"Hello", MASK);
        assert_eq!(out, masked_text);
    }

    #[test]
    fn messages_and_control_frames_decode_at_every_cut() {
        use Opcode::{Binary, Close, Ping, Pong, Text};
        let long = &[b'x'; 126][..];
        let cases: &[Case<'_>] = &[
            (&[], &[], None),
            (&[(0x81, b"")], &[(Text, b"")], None),
            (&[(0x82, b"\xff\0")], &[(Binary, b"\xff\0")], None),
            (&[(0x82, long)], &[(Binary, long)], None),
            (&[(0x81, b"a"), (0x82, b"b")], &[(Text, b"a"), (Binary, b"b")], None),
            (&[(1, b"a"), (0, b""), (0, b"bc"), (0x80, b"d")], &[(Text, b"abcd")], None),
            (&[(1, b""), (0x80, b"")], &[(Text, b"")], None),
            (&[(2, b"a"), (0x80, b""), (0x81, b"b")], &[(Binary, b"a"), (Text, b"b")], None),
            // A character of several bytes may be cut by frames and by other frames between them.
            (
                &[(1, b"\xe2"), (0x89, b"\xff"), (0, b"\x82"), (0x80, b"\xac")],
                &[(Ping, b"\xff"), (Text, "€".as_bytes())],
                None,
            ),
            (
                &[(0x89, b""), (0x8a, long.split_at(125).0), (0x88, b"\x03\xe8")],
                &[(Ping, b""), (Pong, &[b'x'; 125]), (Close, b"\x03\xe8")],
                None,
            ),
            (
                &[(2, b"a"), (0x89, b"1"), (0x8a, b"2"), (0, b"b"), (0x88, b""), (0x80, b"c")],
                &[(Ping, b"1"), (Pong, b"2"), (Close, b""), (Binary, b"abc")],
                None,
            ),
        ];
        cases.iter().for_each(|case| assert_case(200, *case));
    }

    #[test]
    fn a_frame_against_the_rules_is_a_protocol_error() {
        let protocol = Some(CloseCode::Protocol);
        for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_case(9, (&[(LAST | reserved, b"")], &[], protocol));
            assert_case(9, (&[(2, b""), (LAST | reserved, b"")], &[], protocol));
        }
        for bit in [0x40, 0x20, 0x10] {
            for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
                assert_case(9, (&[(first | bit, b"a")], &[], protocol));
            }
            assert_case(9, (&[(1, b"a"), (0x80 | bit, b"a")], &[], protocol));
        }
        // A control frame is whole, and short.
        for opcode in [8, 9, 10] {
            assert_case(200, (&[(opcode, b"a")], &[], protocol));
            assert_case(200, (&[(LAST | opcode, &[0; 126])], &[], protocol));
            assert_case(200, (&[(2, b""), (LAST | opcode, &[0; 126])], &[], protocol));
        }
        // A continuation has a start, and a message an end.
        assert_case(9, (&[(0, b"a")], &[], protocol));
        assert_case(9, (&[(0x80, b"a")], &[], protocol));
        let whole: &[(Opcode, &[u8])] = &[(Opcode::Text, b"a")];
        assert_case(9, (&[(0x81, b"a"), (0x80, b"a")], whole, protocol));
        for first in [1, 2, 0x81, 0x82] {
            assert_case(9, (&[(1, b"a"), (first, b"a")], &[], protocol));
        }
        // Only a client masks.
        for (role, other) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
            for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
                let stream = frame(other, first, b"ab");
                assert_events(role, 9, &stream, &[Failed(CloseCode::Protocol)]);
                assert_events(role, 9, &stream[..2], &[Failed(CloseCode::Protocol)]);
            }
        }
    }

    #[test]
    fn a_length_has_its_shortest_form_and_no_top_bit() {
        let failed = |stream: &[u8], max, code| {
            assert_events(Role::Client, max, stream, &[Failed(code)]);
            let masked = [&stream[..1], &[stream[1] | 0x80], &stream[2..]].concat();
            assert_events(Role::Server, max, &masked, &[Failed(code)]);
        };
        failed(b"\x82\x7e\0\x7d", 9, CloseCode::Protocol);
        failed(b"\x82\x7e\0\x7e", 9, CloseCode::TooBig);
        failed(b"\x82\x7f\0\0\0\0\0\0\xff\xff", usize::MAX, CloseCode::Protocol);
        failed(b"\x82\x7f\0\0\0\0\0\x01\0\0", 9, CloseCode::TooBig);
        failed(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 9, CloseCode::TooBig);
        failed(b"\x82\x7f\x80\0\0\0\0\0\0\0", usize::MAX, CloseCode::Protocol);
        failed(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", usize::MAX, CloseCode::Protocol);
    }

    #[test]
    fn a_message_over_the_limit_fails_when_it_is_announced() {
        let too_big = Some(CloseCode::TooBig);
        let nine: &[(Opcode, &[u8])] = &[(Opcode::Binary, &[7; 9])];
        let eight: &[(Opcode, &[u8])] = &[(Opcode::Binary, &[7; 8])];
        for (max, got, failed) in [(8, &[][..], too_big), (9, nine, None), (10, nine, None)] {
            assert_case(max, (&[(0x82, &[7; 9])], got, failed));
            assert_case(max, (&[(2, &[7; 4]), (0, &[7; 4]), (0x80, &[7; 1])], got, failed));
        }
        assert_case(8, (&[(2, &[7; 4]), (0, &[7; 4]), (0x80, b"")], eight, None));
        // The mask and the payload need not arrive. Control frames have a limit of their own.
        assert_events(Role::Server, 8, &[0x82, 0x89], &[Failed(CloseCode::TooBig)]);
        let ping = [0; 125];
        assert_case(8, (&[(0x89, &ping)], &[(Opcode::Ping, &ping)], None));
        // A limit that shrinks inside a message holds from the next frame.
        let mut caller = Caller::new(Role::Client, 8);
        caller.receive(&frame(Role::Client, 2, &[7; 8]));
        caller.max_message = 4;
        caller.receive(&frame(Role::Client, 0, b""));
        assert_eq!(caller.events, []);
        caller.receive(&frame(Role::Client, 0, b"7"));
        assert_eq!(caller.events, [Failed(CloseCode::TooBig)]);
    }

    #[test]
    fn text_fails_at_its_first_bad_byte_inside_an_unfinished_frame() {
        // Valid bytes, then the first that cannot be part of UTF-8.
        let cases: &[&[u8]] = &[
            b"\x80",
            b"ab\xff",
            b"\xc0",
            b"\xc3a",
            b"\xe0\x80",
            b"\xe2\x82a",
            b"\xed\xa0",
            b"\xf0\x80",
            b"\xf4\x90",
            b"\xf5",
            b"\xf0\x9f\x98\x20",
            b"12345678\xce\xba\xe1\xbd\xb9\xf8",
        ];
        for bad in cases {
            let text = [bad, &[b'x'; 20][..]].concat();
            let stream = frame(Role::Server, 0x81, &text);
            let mut caller = Caller::new(Role::Server, 200);
            caller.receive(&stream[..6 + bad.len() - 1]);
            assert_eq!(caller.events, [], "{}", bad.escape_ascii());
            caller.receive(&stream[6 + bad.len() - 1..6 + bad.len()]);
            assert_eq!(caller.events, [Failed(CloseCode::InvalidText)], "{}", bad.escape_ascii());
            let failed = Some(CloseCode::InvalidText);
            assert_case(200, (&[(0x81, &text)], &[], failed));
            for cut in 0..bad.len() {
                let frames: &[(u8, &[u8])] = &[(1, &bad[..cut]), (0x89, b""), (0, &bad[cut..])];
                assert_case(200, (frames, &[(Opcode::Ping, b"")], failed));
            }
            let binary: &[(Opcode, &[u8])] = &[(Opcode::Binary, &text)];
            assert_case(200, (&[(0x82, &text)], binary, None));
        }
        // A character may end in a later frame, but not behind the last.
        for begun in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
            let failed = Some(CloseCode::InvalidText);
            assert_case(200, (&[(0x81, begun)], &[], failed));
            assert_case(200, (&[(1, begun)], &[], None));
            assert_case(200, (&[(1, begun), (0x80, b"")], &[], failed));
        }
    }

    #[test]
    fn tiny_fragments_and_pings_between_them_hold_little_memory() {
        // `Caller` checks the memory. These frames hold 35 bytes and more for each of payload.
        for (each, fragments) in [(0, 5_000), (1, 20_000), (7, 3_000)] {
            let mut stream = frame(Role::Server, 2, b"");
            let mut expected = Vec::new();
            for number in 0..fragments {
                stream.extend(frame(Role::Server, 0, &vec![number as u8; each]));
                stream.extend(frame(Role::Server, 0x89, &[number as u8; 20]));
                expected.push(Got(Opcode::Ping, vec![number as u8; 20]));
            }
            stream.extend(frame(Role::Server, 0x80, b"end"));
            let payload = (0..fragments).flat_map(|number| vec![number as u8; each]);
            expected.push(Got(Opcode::Binary, payload.chain(*b"end").collect()));
            for piece in [1, 5, 1000, 32 * 1024] {
                let max = each * fragments + 3;
                let got = events(Role::Server, max, stream.chunks(piece));
                assert!(got == expected, "{each} bytes each, in pieces of {piece}");
            }
        }
    }

    #[test]
    fn joining_fragments_moves_each_byte_a_bounded_number_of_times() {
        let mut caller = Caller::new(Role::Server, usize::MAX);
        caller.receive(&frame(Role::Server, 2, &[7; 10_000]));
        let (mut dropped, mut times) = (0, 0);
        for _ in 0..100_000 {
            caller.held.extend(frame(Role::Server, 0, b"x"));
            let Ok(Decoded::Incomplete { used }) =
                caller.decoder.decode(&mut caller.held, usize::MAX)
            else {
                panic!("a fragment is not incomplete");
            };
            caller.held.drain(..used);
            (dropped, times) = (dropped + used, times + usize::from(used > 0));
        }
        // Six of seven bytes are heads. The gap is closed when it is as long as the payload, which
        // itself grows by a sixth meanwhile.
        assert!((500_000..=600_014).contains(&dropped), "{dropped} bytes dropped");
        assert!(times <= 20, "the payload was moved {times} times");
    }

    #[test]
    fn random_streams_decode_alike_at_random_cuts() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..2_000 {
            let mut stream = Vec::new();
            for _ in 0..random.usize(1..12) {
                let first = *random
                    .choice(&[0x81, 0x82, 1, 2, 0, 0, 0x80, 0x88, 0x89, 0x8a, 0xc1])
                    .unwrap();
                let length = *random.choice(&[0, 1, 3, 8, 61, 125, 126, 200]).unwrap();
                let mut payload: Vec<u8> = "aé€😀".bytes().cycle().take(length).collect();
                if random.u8(..) < 20 && length > 0 {
                    payload[random.usize(..length)] = random.u8(..);
                }
                stream.extend(frame(Role::Server, first, &payload));
            }
            let max = random.usize(150..500);
            let whole = events(Role::Server, max, [&stream[..]]);
            for _ in 0..4 {
                let (mut pieces, mut rest) = (Vec::new(), &stream[..]);
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(random.usize(1..=rest.len().min(90)));
                    (pieces, rest) = ([&pieces[..], &[piece]].concat(), behind);
                }
                assert_eq!(events(Role::Server, max, pieces), whole, "{}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn a_mask_comes_off_at_any_length() {
        for length in 0..70 {
            let payload: Vec<u8> = (0..length).collect();
            let mut masked = payload.clone();
            mask::apply(&mut masked, MASK);
            let simple = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            assert_eq!(masked, simple.collect::<Vec<u8>>());
        }
    }
}

//! A subscriber of an experiment, over RESP or WebSocket. It reads numbered messages, which all
//! have the same length.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::client;

/// The channel of the experiment.
pub const CHANNEL: &str = "lab";

/// Digits of a message's number, padded with zeros.
pub const DIGITS: usize = 20;

/// The bytes around the digits of a message.
#[derive(Debug, PartialEq)]
struct Envelope {
    head: &'static [u8],
    tail: &'static [u8],
}

const RESP: Envelope =
    Envelope { head: b"*3\r\n$7\r\nmessage\r\n$3\r\nlab\r\n$20\r\n", tail: b"\r\n" };

/// A text frame of 20 bytes.
const WEBSOCKET: Envelope = Envelope { head: &[0x81, DIGITS as u8], tail: b"" };

impl Envelope {
    const fn length(&self) -> usize {
        self.head.len() + DIGITS + self.tail.len()
    }

    fn number(&self, message: &[u8]) -> Result<u64> {
        let digits = message.strip_prefix(self.head).and_then(|rest| rest.strip_suffix(self.tail));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        number.with_context(|| {
            format!("a subscriber received \"{}\" instead of a message", message.escape_ascii())
        })
    }
}

/// One subscriber of the channel.
pub struct LabSubscriber {
    stream: TcpStream,
    framing: &'static Envelope,
}

impl LabSubscriber {
    /// Subscribes over RESP, from the source address of this index.
    pub fn over_resp(index: usize, hub: SocketAddr) -> Result<LabSubscriber> {
        let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nlab\r\n:1\r\n";
        let mut stream = client::connect(client::source(index), hub)?;
        client::ask(&mut stream, format!("SUBSCRIBE {CHANNEL}\r\n").as_bytes(), confirmation)?;
        Ok(LabSubscriber { stream, framing: &RESP })
    }

    /// Subscribes over WebSocket.
    pub fn over_websocket(index: usize, hub: SocketAddr) -> Result<LabSubscriber> {
        let mut stream = client::connect(client::source(index), hub)?;
        let request = client::upgrade(&format!("/ws/{CHANNEL}"), &hub.to_string());
        std::io::Write::write_all(&mut stream, request.as_bytes())?;
        let status = client::read_line(&mut stream)?;
        ensure!(status.starts_with("HTTP/1.1 101 "), "the hub answers an upgrade with {status:?}");
        while !client::read_line(&mut stream)?.is_empty() {}
        Ok(LabSubscriber { stream, framing: &WEBSOCKET })
    }

    /// Reads `count` messages and returns their numbers. After a timeout or the end of the
    /// connection, there are fewer.
    pub fn receive(&mut self, count: usize) -> Result<Vec<u64>> {
        let mut bytes = vec![0; self.framing.length() * count];
        let mut length = 0;
        while length < bytes.len() {
            match self.stream.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let messages = bytes[..length].chunks_exact(self.framing.length());
        messages.map(|message| self.framing.number(message)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gives_its_number_and_anything_else_an_error() {
        for framing in [&RESP, &WEBSOCKET] {
            let digits = format!("{:0DIGITS$}", 17);
            let message = [framing.head, digits.as_bytes(), framing.tail].concat();
            assert_eq!((message.len(), framing.number(&message).unwrap()), (framing.length(), 17));
            assert!(framing.number(b"-ERR no\r\n").is_err());
            assert!(framing.number(&message[1..]).is_err());
        }
        let mut frame = Vec::new();
        let digits = [b'0'; DIGITS];
        crate::codec::websocket::encode(&mut frame, crate::codec::websocket::Opcode::Text, &digits);
        assert_eq!(WEBSOCKET.number(&frame).unwrap(), 0, "the head is that of the codec");
    }
}

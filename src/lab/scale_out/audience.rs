//! The clients of the experiment: one of each protocol, subscribed to one channel. A thread reads
//! what they get. Each message is a text that is found in the stream of any protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::Clock;
use crate::codec::websocket::{self, Opcode};
use crate::lab::client;

pub const CHANNEL: &str = "news";

/// Sources from this number on are probes, which are not counted.
pub const PROBES: usize = 1000;

/// How a client speaks to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    Resp,
    Events,
    WebSocket,
    SocketIo,
}

impl ClientKind {
    pub const ALL: [ClientKind; 4] =
        [ClientKind::Resp, ClientKind::Events, ClientKind::WebSocket, ClientKind::SocketIo];

    /// The requests that subscribe a client, each with the end of its answer.
    fn steps(self) -> Vec<(Vec<u8>, &'static str)> {
        match self {
            ClientKind::Resp => vec![
                (b"HELLO 3\r\n".into(), "modules\r\n*0\r\n"),
                (format!("SUBSCRIBE {CHANNEL}\r\n").into(), ":1\r\n"),
            ],
            ClientKind::Events => vec![(get(&format!("/events?channel={CHANNEL}")), ":\n\n")],
            ClientKind::WebSocket => vec![
                (client::upgrade("/ws", "localhost").into(), "\r\n\r\n"),
                (frame(&format!("{{\"subscribe\":\"{CHANNEL}\"}}")), "}"),
            ],
            ClientKind::SocketIo => vec![
                (client::upgrade("/socket.io/?EIO=4&transport=websocket", "localhost").into(), "}"),
                (frame("40"), "}"),
                (frame(&format!("420[\"subscribe\",\"{CHANNEL}\"]")), "]}]"),
            ],
        }
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into()
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    websocket::encode_masked(&mut bytes, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
    bytes
}

/// Returns the present moment, counted from 1970.
pub fn now() -> Duration {
    Clock::unix_time()
}

/// Returns the payload of a message.
pub fn payload(source: usize, number: usize) -> String {
    format!("({source}:{number})")
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub at: Duration,
    pub source: usize,
    number: usize,
}

impl Arrived {
    /// Returns what tells the message from others.
    pub fn name(&self) -> (usize, usize) {
        (self.source, self.number)
    }
}

/// What a client has read.
#[derive(Default)]
struct ReaderLog {
    messages: Vec<Arrived>,
    was_told: bool,
    has_ended: bool,
}

/// A client of the channel, with the thread that reads for it.
pub struct ChannelReader {
    /// The number of its server.
    pub server: usize,
    stream: TcpStream,
    heard: Arc<Mutex<ReaderLog>>,
    thread: Option<JoinHandle<()>>,
}

impl ChannelReader {
    /// Connects a client and subscribes it.
    pub fn join(kind: ClientKind, server: usize, hub: SocketAddr) -> Result<ChannelReader> {
        let mut stream = client::connect(client::source(server), hub)?;
        for (request, end) in kind.steps() {
            stream.write_all(&request)?;
            until(&mut stream, end).with_context(|| format!("{kind:?} is not subscribed"))?;
        }
        let heard = Arc::new(Mutex::new(ReaderLog::default()));
        let (mut source, into) = (stream.try_clone()?, heard.clone());
        source.set_read_timeout(None)?;
        let thread = Some(thread::spawn(move || read_on(&mut source, &into)));
        Ok(ChannelReader { server, stream, heard, thread })
    }

    fn with<T>(&self, look: impl FnOnce(&ReaderLog) -> T) -> T {
        look(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns all messages so far.
    pub fn seen(&self) -> Vec<Arrived> {
        self.with(|heard| heard.messages.clone())
    }

    /// Returns the messages of the first `count` sources.
    pub fn of_sources(&self, count: usize) -> Vec<Arrived> {
        self.with(|heard| {
            heard.messages.iter().filter(|message| message.source < count).copied().collect()
        })
    }

    /// Returns true if the client was told of a gap.
    pub fn was_told(&self) -> bool {
        self.with(|heard| heard.was_told)
    }

    /// Returns true if the server has closed the connection.
    pub fn has_ended(&self) -> bool {
        self.with(|heard| heard.has_ended)
    }
}

impl Drop for ChannelReader {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Reads until the bytes end like this.
fn until(stream: &mut TcpStream, end: &str) -> Result<()> {
    let (mut got, mut chunk) = (Vec::new(), [0; 1024]);
    while !got.ends_with(end.as_bytes()) {
        let length = stream.read(&mut chunk)?;
        ensure!(length > 0, "the server closes after {}", got.escape_ascii());
        got.extend_from_slice(&chunk[..length]);
    }
    Ok(())
}

/// Reads to the end of the stream.
fn read_on(stream: &mut TcpStream, into: &Mutex<ReaderLog>) {
    let (mut rest, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let length = stream.read(&mut chunk).unwrap_or(0);
        let at = now();
        let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
        if length == 0 {
            heard.has_ended = true;
            return;
        }
        rest.extend_from_slice(&chunk[..length]);
        let used = take_messages(&rest, |source, number| {
            heard.messages.push(Arrived { at, source, number });
        });
        heard.was_told |= memchr::memmem::find(&rest, b"gap").is_some();
        // The end may be the beginning of a notice.
        rest.drain(..used.max(rest.len().saturating_sub(32)));
    }
}

/// Calls `each` with the messages in some bytes. Returns the number of bytes behind which a message
/// may begin that has not come whole.
fn take_messages(bytes: &[u8], mut each: impl FnMut(usize, usize)) -> usize {
    let mut used = 0;
    while let Some(start) = memchr::memchr(b'(', &bytes[used..]).map(|at| used + at) {
        let Some(end) = memchr::memchr(b')', &bytes[start..]).map(|at| start + at) else {
            return start;
        };
        let text = std::str::from_utf8(&bytes[start + 1..end]).unwrap_or_default();
        let numbers = text.split_once(':');
        let numbers = numbers.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
        if let Some((source, number)) = numbers {
            each(source, number);
        }
        used = end + 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_the_stream_of_any_protocol_at_any_cut() {
        let stream = b"$5\r\n(0:1)\r\ndata: (1:23)\n\n42[\"message\",\"news\",\"(1000:7)\"]()(x:y)";
        for cut in 0..stream.len() {
            let mut found = Vec::new();
            let used = take_messages(&stream[..cut], |source, number| found.push((source, number)));
            take_messages(&stream[used..], |source, number| found.push((source, number)));
            assert_eq!(found, [(0, 1), (1, 23), (1000, 7)], "cut at {cut}");
        }
    }
}

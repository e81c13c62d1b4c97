//! The clients of an experiment: blocking sockets with timeouts, from many loopback addresses.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::clock::{Clock, Time};

/// Maximum wait for one event. Loopback answers in microseconds. A busy machine may need a second
/// or two.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Number of connections from one loopback address. Each address has about 28,000 ports, far more
/// than this.
const CONNECTIONS_PER_SOURCE: usize = 250;

/// Returns the source address of connection number `index`: 127.1.0.1 and up. All of 127.0.0.0/8 is
/// loopback.
pub fn source(index: usize) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([127, 1, 0, 1]);
    Ipv4Addr::from(FIRST + (index / CONNECTIONS_PER_SOURCE) as u32)
}

/// Connects from a source address. Fails if the server does not answer within [`PATIENCE`].
pub fn connect(source: Ipv4Addr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns the request that opens a WebSocket.
pub fn upgrade(path: &str, host: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Returns a UDP socket connected to this server. A connected socket gets an error when the
/// server's port is closed.
pub fn datagrams(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a request and reads the reply. Fails if the reply differs from `answer`.
pub fn ask(stream: &mut TcpStream, request: &[u8], answer: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    expect(stream, answer)
}

/// Reads a reply of the length of `answer`. Fails if the reply differs from it.
pub fn expect(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got)?;
    if got == answer {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("got \"{}\" instead of \"{}\"", got.escape_ascii(), answer.escape_ascii()),
    ))
}

/// Checks a condition a thousand times a second until it is true. Fails with the text `wrong` after
/// `patience`.
pub fn wait_until(
    patience: Duration,
    wrong: &str,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let clock = Clock::start();
    while !is_so()? {
        ensure!(clock.now().since(Time::ZERO) < patience, "{wrong}");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Reads one line. Returns it without its line break.
pub fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != [b'\n'] {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_a_loopback_address_with_few_connections() {
        assert_eq!(source(0), source(CONNECTIONS_PER_SOURCE - 1));
        assert_ne!(source(0), source(CONNECTIONS_PER_SOURCE));
        assert!(source(4_000_000).is_loopback());
    }
}

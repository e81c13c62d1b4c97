//! Clients of an experiment: plain blocking sockets that give up in time, from as many addresses of this machine as wanted.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::clock::{Clock, Time};

/// Longest wait for one thing to happen. Loopback answers in microseconds; a machine busy with something else in a second or two.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Connections from one address of this machine before the next one is used: well below the some 28,000 ports that each has.
const CONNECTIONS_PER_SOURCE: usize = 250;

/// The address that a connection comes from, by its number: 127.1.0.1 and up. All of 127.0.0.0/8 is this machine.
pub fn source(index: usize) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([127, 1, 0, 1]);
    Ipv4Addr::from(FIRST + (index / CONNECTIONS_PER_SOURCE) as u32)
}

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

/// A UDP socket that talks to this server alone, so that it is told when nobody listens there.
pub fn datagrams(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a request and reads as many bytes as the answer must have; an error unless it is that answer.
pub fn ask(stream: &mut TcpStream, request: &[u8], answer: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    expect(stream, answer)
}

pub fn expect(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got)?;
    if got == answer {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("\"{}\" instead of \"{}\"", got.escape_ascii(), answer.escape_ascii()),
    ))
}

/// Asks a thousand times a second until the answer is yes; after `patience`, an error that says what is wrong.
pub fn wait_until(patience: Duration, wrong: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let clock = Clock::start();
    while !is_so()? {
        ensure!(clock.now().since(Time::ZERO) < patience, "{wrong}");
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One line without its ending.
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
    fn every_source_is_of_this_machine_and_has_few_connections() {
        assert_eq!(source(0), source(CONNECTIONS_PER_SOURCE - 1));
        assert_ne!(source(0), source(CONNECTIONS_PER_SOURCE));
        assert!(source(4_000_000).is_loopback());
    }
}

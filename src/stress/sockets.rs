//! The kernel's buffers for the server's end of its connections, from sock_diag(7).
//!
//! /proc/net/sockstat has one sum for all sockets of the machine. If the server is on this machine,
//! half of these are the generator's. So this module asks for the sockets whose local port is the
//! server's.

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_AND_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const INET_DIAG_SKMEMINFO: u16 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// Lengths of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The number of TCP sockets with a certain local port, listeners included, and their buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBuffers {
    pub sockets: u64,
    pub bytes: u64,
}

/// Asks the kernel for all TCP sockets with the local port `port`. Fails if netlink does.
pub fn buffers_of(port: u16) -> io::Result<SocketBuffers> {
    let mut socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::DGRAM,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut sum = SocketBuffers::default();
    for family in [AF_INET, AF_INET6] {
        socket.write_all(&request(family, port))?;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let length = socket.read(&mut chunk)?;
            if !add_messages(&chunk[..length], &mut sum)? {
                break;
            }
        }
    }
    Ok(sum)
}

/// Returns a request for the sockets of one family in all states. The kernel filters by port.
fn request(family: u8, port: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes.resize(HEADER, 0);
    bytes.extend_from_slice(&[family, IPPROTO_TCP, 1 << (INET_DIAG_SKMEMINFO - 1), 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Adds up the messages of one datagram. Returns false after the last message.
fn add_messages(mut bytes: &[u8], sum: &mut SocketBuffers) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = (word(bytes, 0) as usize).clamp(HEADER, bytes.len());
        let (message, rest) = bytes.split_at(length);
        match half(message, 4) {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = word(message, HEADER) as i32;
                return Err(io::Error::from_raw_os_error(-errno));
            }
            _ => {
                if let Some(held) = held_by(message.get(HEADER + MESSAGE..).unwrap_or_default()) {
                    sum.sockets += 1;
                    sum.bytes += held;
                }
            }
        }
        bytes = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    Ok(true)
}

/// Returns the memory of a socket from its attributes: the sum over the fields of SO_MEMINFO.
fn held_by(mut attributes: &[u8]) -> Option<u64> {
    while attributes.len() >= 4 {
        let length = usize::from(half(attributes, 0)).clamp(4, attributes.len());
        if half(attributes, 2) == INET_DIAG_SKMEMINFO {
            let at = |index: usize| u64::from(word(attributes, 4 + 4 * index));
            // rmem_alloc, wmem_queued, optmem, backlog. No memory stands behind fwd_alloc.
            return Some(at(0) + at(5) + at(6) + at(7));
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Returns the number at `at` in native byte order; 0 if it is not there.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |half| u16::from_ne_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_sockets_of_a_port_are_counted_with_their_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut peers: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let mut accepted: Vec<TcpStream> = (0..20).map(|_| listener.accept().unwrap().0).collect();
        let before = buffers_of(port).unwrap();
        assert_eq!(before.sockets, 21, "the listener, and the server's ends; not the peers'");
        assert_eq!(before.bytes, 0, "nothing is queued");
        peers[0].write_all(&[0; 50_000]).unwrap();
        while buffers_of(port).unwrap().bytes < before.bytes + 50_000 {
            std::thread::yield_now();
        }
        accepted[0].read_exact(&mut [0; 50_000]).unwrap();
        assert_eq!(buffers_of(port).unwrap().bytes, 0, "the bytes are read");
    }

    #[test]
    fn malformed_messages_of_the_kernel_do_no_harm() {
        let mut sum = SocketBuffers::default();
        for bytes in [&[][..], &[0; 15], &[0; 16], &[255; 40], &[255; 200]] {
            let _ = add_messages(bytes, &mut sum);
        }
        assert!(
            !add_messages(&[16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut sum).unwrap()
        );
        let denied = [20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(add_messages(&denied, &mut sum).unwrap_err().raw_os_error(), Some(1));
        assert_eq!(sum, SocketBuffers::default());
    }
}

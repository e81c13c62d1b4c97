//! A batch of datagrams, received by one recvmmsg(2) and answered by one sendmmsg(2).
//!
//! The headers for the kernel are built once, and point into buffers that the batch owns. Before a
//! call, only fields that the previous call changed are set again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::limits::{DATAGRAM_MAX, DATAGRAMS_PER_BATCH as BATCH};

/// Distance between two receive buffers, in bytes: a datagram and a cache line. At a power of two,
/// the first lines of all buffers would compete for the same set of the processor's cache.
const STRIDE: usize = DATAGRAM_MAX.next_multiple_of(64) + 64;

/// A socket address in the kernel's form. Most addresses are only handed back to the kernel.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub struct Address {
    /// A `sockaddr_in` or `sockaddr_in6`.
    bytes: [u8; size_of::<libc::sockaddr_in6>()],
    length: u32,
}

impl Address {
    const EMPTY: Address = Address { bytes: [0; _], length: 0 };

    /// Returns the port, or 0 for an address of neither IP family.
    pub fn port(&self) -> u16 {
        // Both families have it in the same place, in network order: ip(7), ipv6(7).
        if self.length < 8 { 0 } else { u16::from_be_bytes([self.bytes[2], self.bytes[3]]) }
    }

    /// Returns the address in the form of the standard library. `None` for neither IP family.
    pub fn to_socket_addr(&self) -> Option<SocketAddr> {
        let family = i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]));
        let word = |at: usize| <[u8; 4]>::try_from(&self.bytes[at..at + 4]).expect("four bytes");
        if family == libc::AF_INET && self.length >= 8 {
            return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(word(4))), self.port()));
        }
        if family == libc::AF_INET6 && self.length as usize >= self.bytes.len() {
            let ip = <[u8; 16]>::try_from(&self.bytes[8..24]).expect("sixteen bytes");
            let (flow, scope) = (u32::from_be_bytes(word(4)), u32::from_ne_bytes(word(24)));
            return Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(ip),
                self.port(),
                flow,
                scope,
            )));
        }
        None
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let mut kernel = Address::EMPTY;
        kernel.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let family = match address {
            SocketAddr::V4(v4) => {
                kernel.bytes[4..8].copy_from_slice(&v4.ip().octets());
                kernel.length = size_of::<libc::sockaddr_in>() as u32;
                libc::AF_INET
            }
            SocketAddr::V6(v6) => {
                kernel.bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                kernel.bytes[8..24].copy_from_slice(&v6.ip().octets());
                kernel.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                kernel.length = size_of::<libc::sockaddr_in6>() as u32;
                libc::AF_INET6
            }
        };
        kernel.bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        kernel
    }
}

/// Room for one control message with the larger of `in_pktinfo` and `in6_pktinfo`.
const CONTROL: usize = 64;

/// A control message with the local address that a datagram was sent to. The kernel writes it for a
/// datagram, and reads it for the answer. IP_PKTINFO, ip(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Makes the kernel report the local address of every datagram on this socket, so that the answer
/// can leave from it. A socket bound to every address would otherwise answer from the address that
/// the kernel prefers.
pub fn report_local_address(socket: BorrowedFd<'_>, ipv4: bool) -> io::Result<()> {
    let (level, option) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    super::set_option(socket, level, option, 1)
}

/// Datagrams received together, and answers to send together.
pub struct DatagramBatch {
    /// `BATCH` receive buffers, `STRIDE` apart. They take memory only once datagrams fill them.
    buffers: Box<[u8]>,
    sources: Box<[Address; BATCH]>,
    /// The local address of each datagram, on sockets with [`report_local_address`].
    controls: Box<[Control; BATCH]>,
    receive_vectors: Box<[libc::iovec; BATCH]>,
    receive_headers: Box<[libc::mmsghdr; BATCH]>,
    received: usize,
    /// The answers, back to back.
    answers: Vec<u8>,
    /// For each answer, its end in `answers` and the index of its source.
    answered: Vec<(usize, usize)>,
    /// Length of each control message, in bytes; 0 without one.
    send_controls: [usize; BATCH],
    send_vectors: Box<[libc::iovec; BATCH]>,
    send_headers: Box<[libc::mmsghdr; BATCH]>,
}

impl Control {
    /// Clears the interface in an `in_pktinfo`, so that routing decides the way back. An
    /// `in6_pktinfo` keeps it, because a link-local address needs it.
    fn leave_by_any_interface(&mut self) {
        const LEVEL: usize = size_of::<usize>();
        const DATA: usize = size_of::<libc::cmsghdr>();
        if self.0[LEVEL..LEVEL + 4] == libc::IPPROTO_IP.to_ne_bytes() {
            self.0[DATA..DATA + 4].fill(0);
        }
    }
}

impl Default for DatagramBatch {
    fn default() -> DatagramBatch {
        DatagramBatch::new()
    }
}

impl DatagramBatch {
    /// Allocates an empty batch.
    pub fn new() -> DatagramBatch {
        // SAFETY: all-zero bytes are a valid mmsghdr and iovec: null pointers and zero lengths.
        let (header, vector): (libc::mmsghdr, libc::iovec) = unsafe { std::mem::zeroed() };
        let mut batch = DatagramBatch {
            buffers: vec![0; BATCH * STRIDE].into_boxed_slice(),
            sources: Box::new([Address::EMPTY; BATCH]),
            controls: Box::new([Control([0; CONTROL]); BATCH]),
            receive_vectors: Box::new([vector; BATCH]),
            receive_headers: Box::new([header; BATCH]),
            received: 0,
            answers: Vec::new(),
            answered: Vec::with_capacity(BATCH),
            send_controls: [0; BATCH],
            send_vectors: Box::new([vector; BATCH]),
            send_headers: Box::new([header; BATCH]),
        };
        for index in 0..BATCH {
            // The boxes keep their address and size, so these pointers stay valid.
            batch.receive_vectors[index] = libc::iovec {
                iov_base: batch.buffers[index * STRIDE..].as_mut_ptr().cast(),
                iov_len: STRIDE,
            };
            let header = &mut batch.receive_headers[index].msg_hdr;
            header.msg_name = batch.sources[index].bytes.as_mut_ptr().cast();
            header.msg_namelen = size_of_val(&batch.sources[index].bytes) as libc::socklen_t;
            header.msg_control = batch.controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            header.msg_iov = &mut batch.receive_vectors[index];
            header.msg_iovlen = 1;
            let header = &mut batch.send_headers[index].msg_hdr;
            header.msg_iov = &mut batch.send_vectors[index];
            header.msg_iovlen = 1;
        }
        batch
    }

    /// Replaces the batch with received datagrams, and returns their number. Fewer than a whole
    /// batch means that the socket is drained. Never blocks, and fails with `WouldBlock` when there
    /// is none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.clear();
        // SAFETY: every header points to a name and a buffer of the lengths it states, all owned by
        // this value, none of them borrowed while it is borrowed mutably here.
        let received = super::check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.receive_headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })? as usize;
        for index in 0..received {
            let header = &mut self.receive_headers[index].msg_hdr;
            self.sources[index].length = header.msg_namelen;
            // The kernel set it to the length written. The next call needs the full room again.
            header.msg_namelen = size_of_val(&self.sources[index].bytes) as libc::socklen_t;
            let written = std::mem::replace(&mut header.msg_controllen, CONTROL);
            self.send_controls[index] = written;
            if written > 0 {
                self.controls[index].leave_by_any_interface();
            }
        }
        self.received = received;
        Ok(received)
    }

    /// Adds a received datagram, for a simulated network. Returns false if the batch is full.
    pub fn push(&mut self, source: SocketAddr, datagram: &[u8]) -> bool {
        if self.received == BATCH {
            return false;
        }
        let index = self.received;
        self.buffers[index * STRIDE..][..datagram.len()].copy_from_slice(datagram);
        self.receive_headers[index].msg_len = datagram.len() as u32;
        self.sources[index] = Address::from(source);
        self.send_controls[index] = 0;
        self.received += 1;
        true
    }

    /// Adds a datagram to send that is not an answer. Returns false if the batch is full.
    pub fn queue(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        let index = self.received;
        if !self.push(to, &[]) {
            return false;
        }
        self.answers.extend_from_slice(datagram);
        self.answer(index);
        true
    }

    /// Removes the received datagrams and the answers.
    pub fn clear(&mut self) {
        self.received = 0;
        self.answers.clear();
        self.answered.clear();
    }

    /// Returns the number of received datagrams.
    pub fn len(&self) -> usize {
        self.received
    }

    /// Returns true if no datagram was received.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Returns the sender of datagram `index`.
    pub fn source(&self, index: usize) -> &Address {
        &self.sources[index]
    }

    /// Returns datagram `index`, and the buffer for its answer. The caller appends the answer and
    /// then calls [`Self::answer`].
    pub fn exchange(&mut self, index: usize) -> (&[u8], &mut Vec<u8>) {
        assert!(index < self.received, "datagram {index} of {}", self.received);
        let length = (self.receive_headers[index].msg_len as usize).min(STRIDE);
        (&self.buffers[index * STRIDE..][..length], &mut self.answers)
    }

    /// Ends an answer: the bytes appended since the last one go to the sender of datagram `index`.
    pub fn answer(&mut self, index: usize) {
        self.answered.push((self.answers.len(), index));
    }

    /// Removes the bytes appended since the last answer.
    pub fn discard_answer(&mut self) {
        let end = self.answered.last().map_or(0, |&(end, _)| end);
        self.answers.truncate(end);
    }

    /// Returns the length of the answer being written, in bytes.
    pub fn answer_len(&self) -> usize {
        self.answers.len() - self.answered.last().map_or(0, |&(end, _)| end)
    }

    /// Returns the answers, each with its destination.
    pub fn answers(&self) -> impl Iterator<Item = (&Address, &[u8])> {
        let mut start = 0;
        self.answered.iter().map(move |&(end, source)| {
            let bytes = &self.answers[start..end];
            start = end;
            (&self.sources[source], bytes)
        })
    }

    /// Returns the number of answers.
    pub fn answers_len(&self) -> usize {
        self.answered.len()
    }

    /// Sends the answers from number `first` on, and returns the number that the kernel accepted.
    /// Never blocks.
    ///
    /// An error concerns answer `first`. When the kernel accepts fewer than all, the next call
    /// returns the error of the next answer.
    pub fn send(&mut self, socket: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let mut start = first.checked_sub(1).map_or(0, |before| self.answered[before].0);
        for (index, &(end, source)) in self.answered.iter().enumerate().skip(first) {
            // The kernel only reads through these pointers. They are mutable because recvmsg shares
            // the structs.
            self.send_vectors[index] = libc::iovec {
                iov_base: self.answers[start..end].as_ptr().cast_mut().cast(),
                iov_len: end - start,
            };
            let address = &self.sources[source];
            let header = &mut self.send_headers[index].msg_hdr;
            header.msg_name = address.bytes.as_ptr().cast_mut().cast();
            header.msg_namelen = address.length;
            // The control message received with the datagram makes the answer leave from that
            // address.
            header.msg_controllen = self.send_controls[source];
            header.msg_control = self.controls[source].0.as_ptr().cast_mut().cast();
            start = end;
        }
        let headers = &mut self.send_headers[first..self.answered.len()];
        // SAFETY: each header points to an address and a slice of `answers`, which does not grow
        // during the call.
        let sent = super::check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT,
            )
        })?;
        Ok(sent as usize)
    }

    /// Returns the capacity of the answers' buffer, in bytes.
    pub fn answer_bytes(&self) -> usize {
        self.answers.capacity()
    }

    /// Returns the address space of the receive buffers, in bytes. Only parts that datagrams have
    /// filled take memory.
    pub fn receive_bytes(&self) -> usize {
        self.buffers.len()
    }

    /// Empties the batch and frees the answers' buffer.
    pub fn shrink(&mut self) {
        self.clear();
        self.answers = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind(format!("{ip}:0")).unwrap();
        server.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind(format!("{ip}:0")).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        (server, client)
    }

    #[test]
    fn an_address_survives_the_round_trip_to_the_kernels_form() {
        for text in ["127.0.0.1:9999", "255.1.2.3:65535", "[::1]:1", "[fe80::1%7]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            let kernel = Address::from(address);
            assert_eq!(kernel.to_socket_addr(), Some(address));
            assert_eq!(kernel.port(), address.port());
        }
        assert_eq!(Address::EMPTY.to_socket_addr(), None);
        assert_eq!(Address::EMPTY.port(), 0);
    }

    #[test]
    fn a_batch_is_received_and_answered_in_order_on_both_ip_families() {
        for ip in ["127.0.0.1", "[::1]"] {
            let (server, client) = pair(ip);
            let mut batch = DatagramBatch::new();
            assert_eq!(
                batch.receive(server.as_fd()).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
            for datagram in [&b"one"[..], b"", b"three"] {
                client.send(datagram).unwrap();
            }
            assert_eq!(batch.receive(server.as_fd()).unwrap(), 3);
            for index in 0..3 {
                assert_eq!(
                    batch.source(index).to_socket_addr(),
                    Some(client.local_addr().unwrap())
                );
                let (datagram, answer) = batch.exchange(index);
                answer.extend_from_slice(datagram);
                assert_eq!(batch.answer_len(), [3, 0, 5][index]);
                batch.answer(index);
            }
            assert_eq!(batch.send(server.as_fd(), 0).unwrap(), 3);
            let mut bytes = [0; 16];
            for expected in [&b"one"[..], b"", b"three"] {
                let n = client.recv(&mut bytes).unwrap();
                assert_eq!(&bytes[..n], expected);
            }
        }
    }

    #[test]
    fn the_largest_datagram_fits_and_a_batch_stops_at_its_limit() {
        let (server, client) = pair("127.0.0.1");
        let mut batch = DatagramBatch::new();
        client.send(&[7; 65_507]).unwrap();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(batch.exchange(0).0, [7; 65_507]);
        for sent in [BATCH - 1, BATCH, BATCH + 1] {
            (0..sent).for_each(|_| assert_eq!(client.send(b"x").unwrap(), 1));
            assert_eq!(batch.receive(server.as_fd()).unwrap(), sent.min(BATCH));
            if sent > BATCH {
                assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
            }
        }
    }

    #[test]
    fn sending_resumes_at_a_given_answer_and_a_discarded_answer_is_not_sent() {
        let (server, client) = pair("127.0.0.1");
        let mut batch = DatagramBatch::new();
        let source = client.local_addr().unwrap();
        for index in 0..3 {
            assert!(batch.push(source, &[b'a' + index]));
            let (datagram, answer) = batch.exchange(index as usize);
            answer.extend_from_slice(datagram);
            batch.answer(index as usize);
        }
        batch.exchange(0).1.extend_from_slice(b"never sent");
        batch.discard_answer();
        assert_eq!(batch.answers().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(batch.send(server.as_fd(), 1).unwrap(), 2);
        let mut bytes = [0; 16];
        let n = client.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..n], b"b");
    }
}

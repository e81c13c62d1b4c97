//! The seam to the network: sockets, signals and time, as the loop uses them.
//!
//! [`Net`] has two implementations. [`mio::MioNet`] is the real network. [`sim::SimNet`] is a
//! seeded network in memory with virtual time. The loop is generic over them, so both run the same
//! code.
//!
//! Both keep this contract:
//! - Readiness is edge-triggered: [`Ready`] reports that something *changed*. A caller that stops
//!   reading, writing, accepting or receiving before `WouldBlock` must remember to resume, because
//!   no new event comes.
//! - A read or write of fewer bytes than possible is equivalent to `WouldBlock` (epoll(7)), unless
//!   the event has [`Ready::read_on`].
//! - An error other than `WouldBlock` does not mean that the source is drained. More may be queued,
//!   and no new event comes for it.
//! - Only [`Net::poll`] blocks. It may return early without an event.

pub mod mio;
mod resolver;
pub mod sim;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::clock::Time;
use crate::kernel;
use crate::limits::SocketOptions;
use crate::memory::KernelObjects;
use crate::sys::DatagramBatch;
use crate::token::Token;

/// The readiness of one source. An event carries the whole state, not only the change. So
/// `writable` may be set when only input arrived, and is set on a hang-up even without interest in
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: Token,
    /// There may be something to read or accept. Also set on an error, so that the next read
    /// returns it.
    pub readable: bool,
    /// There may be room to write. Also set on an error.
    pub writable: bool,
    /// A short read does not mean drained. Either the peer has shut its side, and the end of the
    /// stream follows the last bytes, or it sent urgent data, where a read stops (tcp(7)).
    pub read_on: bool,
}

/// A request of the operator to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: drain and stop. The second one stops at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: write the status to the log.
    Status,
}

/// Payload bytes of a connection, as the kernel counts them. TCP_INFO, tcp(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    pub received: u64,
    /// Bytes that the peer has acknowledged.
    pub sent: u64,
}

/// Options of an outgoing connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The local address. `None` means that the kernel chooses.
    pub source: Option<IpAddr>,
    /// Receive buffer in bytes, before the kernel doubles it. 0 means that the kernel chooses.
    pub receive_buffer: usize,
}

/// The network that the loop runs on.
pub trait Net {
    type Listener;
    type Stream;
    type Socket;

    /// Returns the present moment. The loop calls this once per turn.
    fn now(&self) -> Time;

    /// Returns the time of the system's clock, counted from 1970 in UTC. It may be set to any other
    /// time, so deadlines never depend on it.
    fn system_time(&self) -> Duration;

    /// Waits for events, at most for `timeout` (for ever with `None`), and appends them to `ready`.
    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()>;

    /// Waits until there is an event to poll for, at most for `timeout`. It is exact to some
    /// microseconds, where [`Net::poll`] counts milliseconds.
    fn wait(&mut self, _timeout: Duration) -> io::Result<()> {
        Ok(())
    }

    /// Returns the signals received since the last call. Readiness of [`Token::SIGNALS`] announces
    /// them.
    fn signals(&mut self) -> Vec<Signal>;

    /// Listens for streams, which inherit these options. The kernel lowers `backlog`, the length of
    /// the accept queue, to net.core.somaxconn.
    fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        token: Token,
    ) -> io::Result<Self::Listener>;

    /// Changes the options of streams accepted later. Open streams keep their options.
    fn configure(&mut self, listener: &Self::Listener, options: &SocketOptions) -> io::Result<()>;

    /// Returns the address of a listener, with the real port if port 0 was requested.
    fn listener_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// Stops listening, which resets the connections in the accept queue.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Takes one connection from the accept queue, and watches it for input under `token`. If
    /// watching fails for lack of memory or epoll watches, the connection is lost.
    fn accept(
        &mut self,
        listener: &Self::Listener,
        token: Token,
    ) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Starts to connect. Once the stream is writable, [`Net::connected`] returns the outcome.
    fn connect(
        &mut self,
        address: SocketAddr,
        options: &ConnectOptions,
        token: Token,
    ) -> io::Result<Self::Stream>;

    /// Returns whether a stream from [`Net::connect`] is connected. Fails once, with the error of
    /// the attempt (SO_ERROR, socket(7)).
    fn connected(&mut self, stream: &Self::Stream) -> io::Result<bool>;

    /// Looks up the addresses of a name, beside the loop. Readiness of [`Token::RESOLVED`]
    /// announces the answer, which carries the caller's number. At most
    /// [`LOOKUPS_MAX`](crate::limits::LOOKUPS_MAX) look-ups may be under way. Fails if the look-up
    /// cannot begin.
    fn resolve(&mut self, number: u32, host: &str, port: u16) -> io::Result<()>;

    /// Returns the number and the answer of a look-up that has ended. The error of a name that has
    /// no address is [`io::ErrorKind::NotFound`].
    fn resolved(&mut self) -> Option<(u32, io::Result<Vec<SocketAddr>>)>;

    /// Drops everything that arrives for this stream from now on, with acknowledgements and resets,
    /// as if the line were cut. Fails on a network that cannot do it.
    fn deafen(&mut self, _stream: &Self::Stream) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads up to `into.len()` bytes, and returns their number. 0 is the end of the stream.
    fn read(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as many bytes as fit, and returns their number.
    fn write(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    /// Watches an accepted stream for room to write too.
    fn watch_writable(&mut self, stream: &mut Self::Stream, token: Token) -> io::Result<()>;

    /// Shuts the sending side. The peer sees the end of the stream after the bytes written.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Resets one connection in the accept queue, even when no file is left to accept it with.
    /// Returns false if none waits. Like an accept, this fails for lack of memory.
    fn shed(&mut self, listener: &Self::Listener) -> io::Result<bool>;

    /// Closes the stream. With unread input the kernel resets it instead.
    fn close(&mut self, stream: Self::Stream);

    /// Resets the stream. The kernel drops unacknowledged output at once, instead of sending it for
    /// a stream that is closed (FIN_WAIT1).
    fn reset(&mut self, stream: Self::Stream);

    /// Returns the bytes written that the peer has not acknowledged. A reset would drop them
    /// (SIOCOUTQ, tcp(7)).
    fn unacknowledged(&self, stream: &Self::Stream) -> io::Result<usize>;

    /// Returns the memory that the kernel holds for a connection besides its buffers, in bytes.
    fn kernel_objects(&self) -> KernelObjects;

    /// Returns the resident set of this process, in bytes. `None` where it is unknown.
    fn resident_bytes(&self) -> Option<u64>;

    /// Returns the kernel's counters about floods, for the whole network namespace.
    fn kernel_counters(&self) -> kernel::Counters;

    /// Returns the buffer memory that the kernel holds for this stream, in bytes, without its fixed
    /// structures (SO_MEMINFO).
    fn buffer_bytes(&self, stream: &Self::Stream) -> io::Result<u64>;

    /// Returns the peer's address.
    fn peer_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Returns the local address of the stream.
    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Returns the number of its file descriptor, for CLIENT LIST.
    fn file_number(&self, stream: &Self::Stream) -> i32;

    /// Returns the payload bytes received and sent so far (TCP_INFO).
    fn transferred(&self, stream: &Self::Stream) -> io::Result<Transferred>;

    /// Returns the length of the accept queue, and its maximum (TCP_INFO).
    fn accept_queue(&self, listener: &Self::Listener) -> io::Result<(u32, u32)>;

    /// Binds a datagram socket.
    fn bind(&mut self, address: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// Returns the address of a datagram socket, with the real port if port 0 was requested.
    fn socket_address(&self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Closes a datagram socket. The kernel drops datagrams that were not received.
    fn close_socket(&mut self, socket: Self::Socket);

    /// Receives a batch of datagrams, and returns their number. Fewer than a whole batch means that
    /// the socket is drained.
    fn receive(&mut self, socket: &Self::Socket, batch: &mut DatagramBatch) -> io::Result<usize>;

    /// Sends the answers of a batch from number `first` on, and returns the number sent.
    fn send(
        &mut self,
        socket: &Self::Socket,
        batch: &mut DatagramBatch,
        first: usize,
    ) -> io::Result<usize>;
}

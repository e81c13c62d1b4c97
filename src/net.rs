//! The seam to the network: everything the loop asks of the world outside, sockets and time.
//!
//! [`Net`] has two sides: [`mio::MioNet`] is the real one, and [`sim::SimNet`] a seeded one in memory, with
//! virtual time. The loop is generic over them, so the very same code runs on both.
//!
//! The contract, which both sides keep:
//! - Readiness is edge-triggered: [`Ready`] tells that something *changed*. Who stops reading, writing,
//!   accepting or receiving before `WouldBlock` must remember to go on; no new event will come for it.
//! - A read or write that moves fewer bytes than it could is as good as `WouldBlock` (epoll(7)), unless the
//!   event said to read on ([`Ready::read_on`]).
//! - An error other than `WouldBlock` does not mean drained: more may be queued, and no edge will tell.
//! - Nothing blocks but [`Net::poll`], which may return early, with nothing.

pub mod mio;
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

/// One source is ready for something. An event tells the whole state, not only what changed: `writable` may be set although only
/// input arrived, and without having been asked for on a hang-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: Token,
    /// There may be something to read or accept. Also set on errors, so that the next read finds them.
    pub readable: bool,
    /// There may be room to write. Also set on errors.
    pub writable: bool,
    /// A short read does not mean drained: the peer has shut its side, so the end of the stream comes behind the last bytes;
    /// or it sent urgent data, at whose mark a read stops (tcp(7)).
    pub read_on: bool,
}

/// What the operator asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: stop in good order; asked twice, at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: write the status to the log.
    Status,
}

/// Payload bytes of a connection as the kernel counted them: TCP_INFO, tcp(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    pub received: u64,
    /// And acknowledged by the peer.
    pub sent: u64,
}

/// How to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The address to connect from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// Bytes that may wait to be read here, before the peer must stop; 0: as the kernel sees fit.
    pub receive_buffer: usize,
}

pub trait Net {
    type Listener;
    type Stream;
    type Socket;

    /// The present moment. Read once per turn.
    fn now(&self) -> Time;

    /// Waits until something is ready, at most `timeout` (for ever when `None`), and appends it to `ready`.
    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()>;

    /// Signals received since the last call; readiness of [`Token::SIGNALS`] announces them.
    fn signals(&mut self) -> Vec<Signal>;

    /// Listens for streams, which inherit these options. Of the accept queue's length the kernel takes no more than
    /// net.core.somaxconn.
    fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        token: Token,
    ) -> io::Result<Self::Listener>;

    /// Changes the options of streams accepted from now on. Those that are open keep theirs: it takes no walk over them.
    fn configure(&mut self, listener: &Self::Listener, options: &SocketOptions) -> io::Result<()>;

    /// Where it listens: the port obtained, when 0 was asked for.
    fn listener_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// Stops listening. Connections that wait in the accept queue are reset.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Takes one connection from the accept queue and watches it for input under `token`. Where watching fails, for want of memory
    /// or epoll watches, that connection is lost and the error is like one of accept.
    fn accept(&mut self, listener: &Self::Listener, token: Token) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Starts to connect. Once the stream is writable, [`Net::connected`] tells how it went.
    fn connect(&mut self, address: SocketAddr, options: &ConnectOptions, token: Token) -> io::Result<Self::Stream>;

    /// Whether a stream from [`Net::connect`] is connected yet; the error when it failed, which is told once (SO_ERROR, socket(7)).
    fn connected(&mut self, stream: &Self::Stream) -> io::Result<bool>;

    /// From now on all that arrives for this stream is dropped, acknowledgements and resets too, as if the line were cut. Not every
    /// network can do that at this side.
    fn deafen(&mut self, _stream: &Self::Stream) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads what there is, up to `into.len()` bytes. 0 is the end of the stream.
    fn read(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits.
    fn write(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    /// Watches an accepted stream for room to write, from now on.
    fn watch_writable(&mut self, stream: &mut Self::Stream, token: Token) -> io::Result<()>;

    /// Shuts our side: the peer sees the end of the stream after what was written.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Turns away one connection that waits, though there may be no file left to accept it with: its peer is reset. False when
    /// none waits. Not for want of memory, which this needs as much as an accept does.
    fn shed(&mut self, listener: &Self::Listener) -> io::Result<bool>;

    /// Closes. Input left unread turns this into a reset.
    fn close(&mut self, stream: Self::Stream);

    /// Closes by a reset: what the peer has not acknowledged is forgotten at once, where the kernel would else go on sending it for a
    /// stream that is ours no more (FIN_WAIT1).
    fn reset(&mut self, stream: Self::Stream);

    /// Bytes written and not yet acknowledged by the peer's kernel: what a reset would destroy (SIOCOUTQ, tcp(7)).
    fn unacknowledged(&self, stream: &Self::Stream) -> io::Result<usize>;

    /// What the kernel holds for every connection besides its buffers, in bytes.
    fn kernel_objects(&self) -> KernelObjects;

    /// Resident set of this process in bytes, where there is one that can be asked.
    fn resident_bytes(&self) -> Option<u64>;

    /// What the kernel has counted of floods, for all of the network namespace.
    fn kernel_counters(&self) -> kernel::Counters;

    /// Buffer memory the kernel holds for this stream, in bytes, without its fixed structures (SO_MEMINFO).
    fn buffer_bytes(&self, stream: &Self::Stream) -> io::Result<u64>;

    /// Who the peer is.
    fn peer_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// Which of our addresses it is connected to.
    fn local_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;

    /// The number of its file descriptor, for people.
    fn file_number(&self, stream: &Self::Stream) -> i32;

    /// Payload bytes received and sent so far (TCP_INFO).
    fn transferred(&self, stream: &Self::Stream) -> io::Result<Transferred>;

    /// Connections that wait to be accepted, and how many may (TCP_INFO).
    fn accept_queue(&self, listener: &Self::Listener) -> io::Result<(u32, u32)>;

    /// Binds a datagram socket.
    fn bind(&mut self, address: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// Where it is bound: the port obtained, when 0 was asked for.
    fn socket_address(&self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Unbinds it. Datagrams not received yet are dropped.
    fn close_socket(&mut self, socket: Self::Socket);

    /// Receives a batch of datagrams. Fewer than a whole batch: the socket is drained.
    fn receive(&mut self, socket: &Self::Socket, batch: &mut DatagramBatch) -> io::Result<usize>;

    /// Sends the answers of a batch from number `first` on; how many were taken.
    fn send(&mut self, socket: &Self::Socket, batch: &mut DatagramBatch, first: usize) -> io::Result<usize>;
}

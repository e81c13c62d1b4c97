//! The real network: the only file that knows mio.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ::mio::net::{TcpListener, TcpStream, UdpSocket};
use ::mio::{Events, Interest, Poll, Token as MioToken};
use signal_hook_mio::v1_0::Signals;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{Net, Ready, Signal, Transferred};
use crate::clock::{Clock, Time};
use crate::limits::EVENTS_PER_POLL;
use crate::sys::{self, DatagramBatch};
use crate::token::Token;

pub struct MioNet {
    poll: Poll,
    events: Events,
    clock: Clock,
    signals: Option<Signals>,
}

impl MioNet {
    pub fn new() -> io::Result<MioNet> {
        // Else a pause of 50 us takes 100. Not having it costs latency only.
        let _ = sys::set_timer_slack(TIMER_SLACK);
        Ok(MioNet {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_POLL),
            clock: Clock::start(),
            signals: None,
        })
    }

    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGUSR1 of this process: from now on they arrive as events.
    pub fn watch_signals(&mut self) -> io::Result<()> {
        let mut signals = Signals::new([sys::SIGTERM, sys::SIGINT, sys::SIGHUP, sys::SIGUSR1])?;
        self.poll.registry().register(&mut signals, mio_token(Token::SIGNALS), Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }
}

impl Net for MioNet {
    type Listener = TcpListener;
    type Stream = TcpStream;
    type Socket = UdpSocket;

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal cut the wait short; its own event follows.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        ready.extend(self.events.iter().map(|event| {
            let read_on = event.is_read_closed() || event.is_priority();
            let broken = event.is_error() || event.is_write_closed();
            Ready {
                token: Token::from_usize(event.token().0),
                readable: event.is_readable() || read_on || broken,
                writable: event.is_writable() || broken,
                read_on: read_on || broken,
            }
        }));
        Ok(())
    }

    fn pause(&mut self, span: Duration) {
        std::thread::sleep(span);
    }

    fn signals(&mut self) -> Vec<Signal> {
        let pending = self.signals.as_mut().into_iter().flat_map(Signals::pending);
        pending
            .map(|number| match number {
                sys::SIGHUP => Signal::Reload,
                sys::SIGUSR1 => Signal::Status,
                _ => Signal::Stop,
            })
            .collect()
    }

    /// mio's own `bind` would listen with a backlog of 128. What is set here, every accepted socket inherits, which
    /// saves a system call per option and connection (tcp(7); inet_csk_clone_lock copies the socket).
    fn listen(&mut self, address: SocketAddr, backlog: u32, token: Token) -> io::Result<TcpListener> {
        let socket = new_socket(address, Type::STREAM)?;
        socket.set_reuse_address(true)?;
        // A turn's output leaves in one write, so there is nothing for Nagle's algorithm to collect.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let mut listener = TcpListener::from_std(socket.into());
        self.poll.registry().register(&mut listener, mio_token(token), Interest::READABLE)?;
        Ok(listener)
    }

    fn listener_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn close_listener(&mut self, listener: TcpListener) {
        drop(listener);
    }

    fn accept(&mut self, listener: &TcpListener, token: Token) -> io::Result<(TcpStream, SocketAddr)> {
        let (mut stream, peer) = listener.accept()?;
        self.poll.registry().register(&mut stream, mio_token(token), INPUT)?;
        Ok((stream, peer))
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, mio_token(token), INPUT | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn connected(&mut self, stream: &TcpStream) -> io::Result<bool> {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        stream.read(into)
    }

    fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        stream.write(bytes)
    }

    fn watch_writable(&mut self, stream: &mut TcpStream, token: Token) -> io::Result<()> {
        self.poll.registry().reregister(stream, mio_token(token), INPUT | Interest::WRITABLE)
    }

    fn shutdown_write(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }

    /// Closing the descriptor takes it out of epoll too (epoll(7)), so nothing is deregistered first.
    fn close(&mut self, stream: TcpStream) {
        drop(stream);
    }

    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<usize> {
        sys::unacknowledged(stream.as_fd())
    }

    fn buffer_bytes(&self, stream: &TcpStream) -> io::Result<u64> {
        sys::socket_buffer_bytes(stream.as_fd())
    }

    fn peer_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.peer_addr()
    }

    fn local_address(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.local_addr()
    }

    fn file_number(&self, stream: &TcpStream) -> i32 {
        stream.as_raw_fd()
    }

    fn transferred(&self, stream: &TcpStream) -> io::Result<Transferred> {
        let info = sys::tcp_info(stream.as_fd())?;
        Ok(Transferred { received: info.bytes_received, sent: info.bytes_acknowledged })
    }

    fn accept_queue(&self, listener: &TcpListener) -> io::Result<(u32, u32)> {
        let info = sys::tcp_info(listener.as_fd())?;
        Ok((info.accept_queue, info.backlog))
    }

    fn bind(&mut self, address: SocketAddr, token: Token) -> io::Result<UdpSocket> {
        let socket = new_socket(address, Type::DGRAM)?;
        socket.bind(&SockAddr::from(address))?;
        // Best effort: the kernel allows up to net.core.rmem_max. A burst that arrives while the loop is busy
        // elsewhere waits here.
        let _ = SockRef::from(&socket).set_recv_buffer_size(UDP_RECEIVE_BUFFER);
        if address.ip().is_unspecified() {
            sys::report_local_address(socket.as_fd(), address.is_ipv4())?;
        }
        let mut socket = UdpSocket::from_std(socket.into());
        self.poll.registry().register(&mut socket, mio_token(token), Interest::READABLE)?;
        Ok(socket)
    }

    fn socket_address(&self, socket: &UdpSocket) -> io::Result<SocketAddr> {
        socket.local_addr()
    }

    fn close_socket(&mut self, socket: UdpSocket) {
        drop(socket);
    }

    fn receive(&mut self, socket: &UdpSocket, batch: &mut DatagramBatch) -> io::Result<usize> {
        batch.receive(socket.as_fd())
    }

    fn send(&mut self, socket: &UdpSocket, batch: &mut DatagramBatch, first: usize) -> io::Result<usize> {
        batch.send(socket.as_fd(), first)
    }
}

/// What streams are watched for from the start. Priority is urgent data.
const INPUT: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// How late the kernel may end a sleep; 50 us by default.
const TIMER_SLACK: Duration = Duration::from_micros(1);

/// Asked of the kernel for each UDP socket, in bytes.
const UDP_RECEIVE_BUFFER: usize = 1 << 20;

fn mio_token(token: Token) -> MioToken {
    MioToken(token.to_usize())
}

fn new_socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // [::] means IPv6 alone, whatever net.ipv6.bindv6only says: 0.0.0.0 can then be listened on beside it.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

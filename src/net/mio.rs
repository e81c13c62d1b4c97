//! The real network. No other file uses mio.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ::mio::net::{TcpListener, TcpStream, UdpSocket};
use ::mio::{Events, Interest, Poll, Token as MioToken, Waker};
use signal_hook_mio::v1_0::Signals;
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, TcpKeepalive, Type};

use super::resolver::Resolver;
use super::{ConnectOptions, Net, Ready, Signal, Transferred};
use crate::clock::{Clock, Time};
use crate::inherited::InheritedSocket;
use crate::kernel;
use crate::limits::{EVENTS_PER_POLL, SocketOptions, UDP_RECEIVE_BUFFER};
use crate::memory::{self, KernelObjects};
use crate::sys::{self, DatagramBatch, errno};
use crate::token::Token;

/// The real network: epoll through mio, and the real clock.
pub struct MioNet {
    poll: Poll,
    events: Events,
    clock: Clock,
    signals: Option<Signals>,
    /// A spare file. Closing it frees a file number, so that one connection can be accepted and
    /// reset.
    spare: Option<File>,
    /// Created for the first name.
    resolver: Option<Resolver>,
    /// Sockets to use in place of new ones at their addresses.
    inherited: Vec<InheritedSocket>,
    /// True if new listeners and datagram sockets share their ports (SO_REUSEPORT, socket(7)).
    shares_ports: bool,
}

impl MioNet {
    /// Creates an epoll instance and starts the clock.
    pub fn new() -> io::Result<MioNet> {
        Ok(MioNet {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_POLL),
            clock: Clock::start(),
            signals: None,
            spare: open_spare().ok(),
            resolver: None,
            inherited: Vec::new(),
            shares_ports: false,
        })
    }

    /// Uses these sockets in place of new ones at their addresses. Call it once.
    pub fn inherit(&mut self, sockets: Vec<InheritedSocket>) {
        self.inherited = sockets;
    }

    /// Shares the ports of the listeners and datagram sockets opened from now on with other
    /// processes, or no longer does.
    pub fn share_ports(&mut self, shares: bool) {
        self.shares_ports = shares;
    }

    /// Returns the inherited socket of this kind at the address, or else a new bound one.
    fn bound(&mut self, address: SocketAddr, kind: Type) -> io::Result<Socket> {
        let is_it = |one: &InheritedSocket| {
            one.address == address && one.is_stream == (kind == Type::STREAM)
        };
        if let Some(at) = self.inherited.iter().position(is_it) {
            let socket = Socket::from(sys::adopt(self.inherited.remove(at).number)?);
            socket.set_nonblocking(true)?;
            return Ok(socket);
        }
        let socket = new_socket(address, kind)?;
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        if self.shares_ports {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        Ok(socket)
    }

    /// Turns SIGTERM, SIGINT, SIGHUP and SIGUSR1 of this process into events.
    pub fn watch_signals(&mut self) -> io::Result<()> {
        let mut signals = Signals::new([sys::SIGTERM, sys::SIGINT, sys::SIGHUP, sys::SIGUSR1])?;
        self.poll.registry().register(
            &mut signals,
            mio_token(Token::SIGNALS),
            Interest::READABLE,
        )?;
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

    fn system_time(&self) -> Duration {
        Clock::unix_time()
    }

    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal interrupted the wait. The next poll returns its event.
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

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match sys::wait_readable(self.poll.as_raw_fd(), timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
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

    /// mio's `bind` would listen with a backlog of 128. Every accepted socket inherits the options
    /// of the listener, which saves system calls (tcp(7); inet_csk_clone_lock copies the socket).
    fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        token: Token,
    ) -> io::Result<TcpListener> {
        let socket = self.bound(address, Type::STREAM)?;
        // One write carries a turn's output, so Nagle's algorithm has nothing to collect.
        socket.set_tcp_nodelay(true)?;
        // Options come before listening, because the kernel's first answer to a peer depends on the
        // receive buffer.
        apply(SockRef::from(&socket), options, address)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let mut listener = TcpListener::from_std(socket.into());
        self.poll.registry().register(&mut listener, mio_token(token), Interest::READABLE)?;
        Ok(listener)
    }

    fn configure(&mut self, listener: &TcpListener, options: &SocketOptions) -> io::Result<()> {
        apply(SockRef::from(listener), options, listener.local_addr()?)
    }

    fn listener_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn close_listener(&mut self, listener: TcpListener) {
        drop(listener);
    }

    fn accept(
        &mut self,
        listener: &TcpListener,
        token: Token,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        let (mut stream, peer) = listener.accept()?;
        self.poll.registry().register(&mut stream, mio_token(token), INPUT)?;
        Ok((stream, peer))
    }

    fn connect(
        &mut self,
        address: SocketAddr,
        options: &ConnectOptions,
        token: Token,
    ) -> io::Result<TcpStream> {
        let socket = new_socket(address, Type::STREAM)?;
        if address.is_ipv6() {
            // This makes ::ffff:127.0.0.1 reachable.
            socket.set_only_v6(false)?;
        }
        socket.set_tcp_nodelay(true)?;
        if options.receive_buffer > 0 {
            socket.set_recv_buffer_size(options.receive_buffer)?;
        }
        if let Some(source) = options.source {
            if source.is_ipv4() {
                // Without this the port is chosen before the peer is known, so all peers share the
                // ports.
                sys::choose_port_when_connecting(socket.as_fd())?;
            }
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&SockAddr::from(address)) {
            Err(error) if error.raw_os_error() != Some(errno::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
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

    fn resolve(&mut self, number: u32, host: &str, port: u16) -> io::Result<()> {
        let resolver = match self.resolver.take() {
            Some(resolver) => resolver,
            None => {
                let waker = Waker::new(self.poll.registry(), mio_token(Token::RESOLVED))?;
                // Writing to an eventfd fails only without memory. The dial then times out.
                Resolver::new(move || waker.wake().unwrap_or_default())
            }
        };
        self.resolver.insert(resolver).start(number, host, port)
    }

    fn resolved(&mut self) -> Option<(u32, io::Result<Vec<SocketAddr>>)> {
        self.resolver.as_ref()?.take()
    }

    /// Attaches a filter that drops every packet before TCP sees it (SO_ATTACH_FILTER, socket(7)).
    fn deafen(&mut self, stream: &TcpStream) -> io::Result<()> {
        // BPF_RET | BPF_K of linux/bpf_common.h. It keeps the given number of bytes, here 0.
        const RETURN: u16 = 0x06;
        SockRef::from(stream).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
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

    /// Closing the descriptor removes it from epoll too (epoll(7)), so there is no need to
    /// deregister.
    fn close(&mut self, stream: TcpStream) {
        drop(stream);
    }

    fn reset(&mut self, stream: TcpStream) {
        // If this fails, the socket is broken already and nothing is pending.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        drop(stream);
    }

    /// accept(2) needs a free file number, even for a connection that is then reset.
    fn shed(&mut self, listener: &TcpListener) -> io::Result<bool> {
        if self.spare.is_none() {
            self.spare = Some(open_spare()?);
        }
        self.spare = None;
        let accepted = listener.accept();
        let shed = match accepted {
            Ok((stream, _)) => {
                self.reset(stream);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        };
        // If another process took the file number meanwhile, the next call tries again.
        self.spare = open_spare().ok();
        shed
    }

    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<usize> {
        sys::unacknowledged(stream.as_fd())
    }

    fn kernel_objects(&self) -> KernelObjects {
        memory::kernel_objects()
    }

    fn resident_bytes(&self) -> Option<u64> {
        memory::resident_bytes()
    }

    fn kernel_counters(&self) -> kernel::Counters {
        kernel::counters()
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
        let socket = self.bound(address, Type::DGRAM)?;
        // The buffer holds a burst that arrives while the loop is busy. The kernel lowers it to
        // net.core.rmem_max, so failure is ignored.
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

    fn send(
        &mut self,
        socket: &UdpSocket,
        batch: &mut DatagramBatch,
        first: usize,
    ) -> io::Result<usize> {
        batch.send(socket.as_fd(), first)
    }
}

/// The initial interest in a stream. Priority is urgent data.
const INPUT: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// Opens a file that exists on every system, only for its number.
fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}

/// Sets the options on a listener.
fn apply(socket: SockRef<'_>, options: &SocketOptions, address: SocketAddr) -> io::Result<()> {
    if options.keepalive.is_zero() {
        socket.set_keepalive(false)?;
    } else {
        let keepalive = TcpKeepalive::new()
            .with_time(options.keepalive)
            .with_interval(options.keepalive_interval)
            .with_retries(options.keepalive_probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    // For the kernel, 0 means net.ipv4.tcp_notsent_lowat. Here it means no limit.
    let lowat = if options.notsent_lowat == 0 { u32::MAX } else { options.notsent_lowat as u32 };
    socket.set_tcp_notsent_lowat(lowat)?;
    // The kernel doubles the size given, for the overhead of packets (socket(7)). The options count
    // the doubled size.
    let defaults = if options.send_buffer == 0 || options.receive_buffer == 0 {
        let fresh = new_socket(address, Type::STREAM)?;
        (fresh.send_buffer_size()?, fresh.recv_buffer_size()?)
    } else {
        (0, 0)
    };
    let size = |wanted: usize, default: usize| if wanted == 0 { default / 2 } else { wanted / 2 };
    socket.set_send_buffer_size(size(options.send_buffer, defaults.0))?;
    socket.set_recv_buffer_size(size(options.receive_buffer, defaults.1))?;
    // The kernel keeps a size that was set. Otherwise it adapts the buffer to the connection.
    sys::fix_buffer_sizes(socket.as_fd(), options.send_buffer != 0, options.receive_buffer != 0)
}

fn mio_token(token: Token) -> MioToken {
    MioToken(token.to_usize())
}

fn new_socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // [::] means IPv6 only, whatever net.ipv6.bindv6only is, so that 0.0.0.0 can be used beside
        // it.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Peer;
    use std::os::fd::AsRawFd;

    /// Connects to the listener, and returns the peer and the accepted socket.
    fn accepted(net: &mut MioNet, listener: &TcpListener) -> (Peer, Socket) {
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = loop {
            match net.accept(listener, Token::listener(1)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        (peer, Socket::from(std::net::TcpStream::from(stream)))
    }

    fn listen(net: &mut MioNet, options: &SocketOptions) -> TcpListener {
        net.listen("127.0.0.1:0".parse().unwrap(), 8, options, Token::listener(0)).unwrap()
    }

    fn options_of(socket: &Socket) -> SocketOptions {
        let is_probed = socket.keepalive().unwrap();
        SocketOptions {
            keepalive: if is_probed {
                socket.tcp_keepalive_time().unwrap()
            } else {
                Duration::ZERO
            },
            keepalive_interval: socket.tcp_keepalive_interval().unwrap(),
            keepalive_probes: socket.tcp_keepalive_retries().unwrap(),
            user_timeout: socket.tcp_user_timeout().unwrap().unwrap_or(Duration::ZERO),
            send_buffer: socket.send_buffer_size().unwrap(),
            notsent_lowat: socket.tcp_notsent_lowat().unwrap() as usize,
            receive_buffer: socket.recv_buffer_size().unwrap(),
        }
    }

    #[test]
    fn an_accepted_socket_has_the_options_of_its_listener() {
        let mut net = MioNet::new().unwrap();
        let defaults = SocketOptions { send_buffer: 32 * 1024, ..SocketOptions::default() };
        let listener = listen(&mut net, &defaults);
        let (_peer, first) = accepted(&mut net, &listener);
        assert_eq!(options_of(&first), defaults);
        assert!(first.tcp_nodelay().unwrap());

        let others = SocketOptions {
            keepalive: Duration::from_secs(7),
            keepalive_interval: Duration::from_secs(8),
            keepalive_probes: 9,
            user_timeout: Duration::from_millis(1234),
            send_buffer: 20_000,
            notsent_lowat: 30_000,
            receive_buffer: 40_000,
        };
        net.configure(&listener, &others).unwrap();
        let (_peer, second) = accepted(&mut net, &listener);
        assert_eq!(options_of(&second), others);
        assert_eq!(options_of(&first), defaults, "an open connection keeps its options");

        let off =
            SocketOptions { keepalive: Duration::ZERO, user_timeout: Duration::ZERO, ..others };
        net.configure(&listener, &off).unwrap();
        let (_peer, third) = accepted(&mut net, &listener);
        assert_eq!(options_of(&third), off);
    }

    /// Without a set size, the kernel adapts the buffers to the connection.
    #[test]
    fn a_buffer_size_of_zero_leaves_the_size_to_the_kernel_again() {
        let kernels =
            SocketOptions { send_buffer: 0, receive_buffer: 0, ..SocketOptions::default() };
        let ours = SocketOptions { send_buffer: 8192, receive_buffer: 8192, ..kernels };
        let mut net = MioNet::new().unwrap();
        let listener = listen(&mut net, &kernels);
        let (_peer, never_set) = accepted(&mut net, &listener);
        net.configure(&listener, &ours).unwrap();
        net.configure(&listener, &kernels).unwrap();
        let (_peer, given_back) = accepted(&mut net, &listener);
        let sizes = |socket: &Socket| {
            (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap())
        };
        assert_eq!(sizes(&never_set), sizes(&given_back));
        assert!(sizes(&never_set).0 > ours.send_buffer);
    }

    #[test]
    fn a_reset_drops_unacknowledged_output() {
        let mut net = MioNet::new().unwrap();
        let listener = listen(&mut net, &SocketOptions::default());
        let (mut peer, socket) = accepted(&mut net, &listener);
        let mut stream = TcpStream::from_std(socket.into());
        while net.write(&mut stream, &[0; 65_536]).is_ok() {}
        net.reset(stream);
        let mut got = Vec::new();
        assert_eq!(peer.read_to_end(&mut got).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_connection_uses_the_requested_local_address_and_a_deaf_one_gets_no_input() {
        let mut net = MioNet::new().unwrap();
        let listener = listen(&mut net, &SocketOptions::default());
        let address = net.listener_address(&listener).unwrap();
        let options =
            ConnectOptions { source: Some("127.9.8.7".parse().unwrap()), receive_buffer: 5000 };
        let mut stream = net.connect(address, &options, Token::listener(9)).unwrap();
        assert_eq!(
            SockRef::from(&stream).recv_buffer_size().unwrap(),
            10_000,
            "the kernel doubles the size: socket(7)"
        );
        let (mut far, peer) = loop {
            match net.accept(&listener, Token::listener(1)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        assert_eq!(peer.ip(), options.source.unwrap());
        while !net.connected(&stream).unwrap() {}
        net.deafen(&stream).unwrap();
        net.write(&mut far, b"are you there?").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(
            net.read(&mut stream, &mut [0; 9]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(net.unacknowledged(&far).unwrap(), 14);
    }

    #[test]
    fn shedding_resets_a_waiting_connection_and_keeps_a_spare_file() {
        let mut net = MioNet::new().unwrap();
        let listener = listen(&mut net, &SocketOptions::default());
        assert!(!net.shed(&listener).unwrap(), "the accept queue is empty");
        let mut peers = [0; 2].map(|_| Peer::connect(listener.local_addr().unwrap()).unwrap());
        let number = net.spare.as_ref().unwrap().as_raw_fd();
        assert!(net.shed(&listener).unwrap());
        assert_eq!(peers[0].read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(net.spare.is_some() && number > 2);
        // Without a spare file, shedding opens one first.
        net.spare = None;
        assert!(net.shed(&listener).unwrap() && net.spare.is_some());
        assert_eq!(peers[1].read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(!net.shed(&listener).unwrap());
    }
}

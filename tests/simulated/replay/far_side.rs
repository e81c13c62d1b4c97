//! The clients' side of a scenario: functions of the simulation, or sockets of the loopback
//! interface.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use slabd::net::mio::MioNet;
use slabd::net::sim::{ClientId, End, SimNet};
use slabd::net::{ConnectOptions, Net};
use slabd::token::Token;
use socket2::{Domain, SockRef, Socket, Type};

use super::Answer;

type Dialled<N> = (io::Result<<N as Net>::Stream>, SocketAddr);

/// The actions of clients and peers. Clients are numbered in the order of their connects, even
/// those that do not get in.
pub trait FarSide {
    type Net: Net;

    fn new() -> (Self::Net, Self)
    where
        Self: Sized;

    /// The maximum time that an expected effect may take.
    fn patience(&self) -> Duration;

    /// Connects a new client. Returns false if the accept queue has no room for it. `hopeless` is
    /// true if the scenario expects that.
    fn connect(&mut self, net: &mut Self::Net, to: SocketAddr, hopeless: bool) -> bool;
    fn address(&self, net: &Self::Net, client: usize) -> Option<SocketAddr>;
    /// Sends the bytes. Returns false if the client cannot send any more.
    fn send(&mut self, net: &mut Self::Net, client: usize, bytes: &[u8]) -> bool;
    fn take(&mut self, net: &mut Self::Net, client: usize, most: usize) -> Vec<u8>;
    /// Returns the end of the stream as the client sees it.
    fn end(&mut self, net: &mut Self::Net, client: usize) -> End;
    fn half_close(&mut self, net: &mut Self::Net, client: usize);
    fn close(&mut self, net: &mut Self::Net, client: usize);
    fn reset(&mut self, net: &mut Self::Net, client: usize);
    /// Sends the acknowledgements that the client's kernel holds back. Returns false if the client
    /// is gone or has no kernel.
    fn acknowledge(&mut self, client: usize) -> bool;

    /// Dials a peer, which becomes a new client if it accepts. Returns the stream and the peer's
    /// address.
    fn dial(&mut self, net: &mut Self::Net, answer: Answer, token: Token) -> Dialled<Self::Net>;

    /// Binds a datagram socket of another program.
    fn bind(&mut self, net: &mut Self::Net, address: SocketAddr) -> SocketAddr;
    fn send_datagram(&mut self, net: &mut Self::Net, from: usize, to: SocketAddr, bytes: &[u8]);
    fn datagrams(&mut self, net: &mut Self::Net, socket: usize) -> Vec<(SocketAddr, Vec<u8>)>;
    fn unbind(&mut self, socket: usize);

    /// Leaves room for `count` more files.
    fn leave_files(&mut self, net: &mut Self::Net, count: usize);
}

/// The far side in the simulation.
pub struct Simulated {
    clients: Vec<Option<ClientId>>,
    sockets: Vec<SocketAddr>,
}

impl Simulated {
    fn client(&self, client: usize) -> ClientId {
        self.clients[client].expect("a client that got in")
    }
}

impl FarSide for Simulated {
    type Net = SimNet;

    fn new() -> (SimNet, Simulated) {
        (SimNet::new(0), Simulated { clients: Vec::new(), sockets: Vec::new() })
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn connect(&mut self, net: &mut SimNet, to: SocketAddr, _hopeless: bool) -> bool {
        let client = net.client(to);
        self.clients.push(client);
        client.is_some()
    }

    fn address(&self, net: &SimNet, client: usize) -> Option<SocketAddr> {
        self.clients[client].map(|client| net.client_address(client))
    }

    fn send(&mut self, net: &mut SimNet, client: usize, bytes: &[u8]) -> bool {
        net.client_send(self.client(client), bytes)
    }

    fn take(&mut self, net: &mut SimNet, client: usize, most: usize) -> Vec<u8> {
        net.client_take(self.client(client), most)
    }

    fn end(&mut self, net: &mut SimNet, client: usize) -> End {
        net.client_saw(self.client(client))
    }

    fn half_close(&mut self, net: &mut SimNet, client: usize) {
        net.client_shutdown(self.client(client));
    }

    fn close(&mut self, net: &mut SimNet, client: usize) {
        net.client_close(self.client(client));
    }

    fn reset(&mut self, net: &mut SimNet, client: usize) {
        net.client_reset(self.client(client));
    }

    fn acknowledge(&mut self, _client: usize) -> bool {
        false
    }

    fn dial(&mut self, net: &mut SimNet, answer: Answer, token: Token) -> Dialled<SimNet> {
        let at = "10.0.0.1:6379".parse().unwrap();
        let stream = net.connect(at, &ConnectOptions::default(), token);
        let client = match answer {
            Answer::Accepts => net.accept_connect(at),
            Answer::Refuses => {
                net.refuse_connect(at);
                None
            }
            Answer::Hangs => None,
        };
        self.clients.push(client);
        (stream, at)
    }

    fn bind(&mut self, _net: &mut SimNet, address: SocketAddr) -> SocketAddr {
        // The simulation gives the loop's sockets much higher ports.
        let at = SocketAddr::new(address.ip(), 2000 + self.sockets.len() as u16);
        self.sockets.push(at);
        at
    }

    fn send_datagram(&mut self, net: &mut SimNet, from: usize, to: SocketAddr, bytes: &[u8]) {
        net.send_datagram(to, self.sockets[from], bytes);
    }

    fn datagrams(&mut self, net: &mut SimNet, socket: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        net.datagrams_received(self.sockets[socket])
    }

    fn unbind(&mut self, _socket: usize) {}

    fn leave_files(&mut self, net: &mut SimNet, count: usize) {
        net.set_file_limit(net.open_files() + count);
    }
}

/// The far side on the loopback interface: sockets of this process.
pub struct Loopback {
    clients: Vec<Option<Client>>,
    sockets: Vec<Option<UdpSocket>>,
    /// The sockets of peers that refuse or hang. They stay open until the scenario ends.
    listeners: Vec<Socket>,
    /// Connections that fill the accept queues of peers that hang.
    crowd: Vec<TcpStream>,
    /// Files that leave the process no others.
    files: Vec<File>,
}

struct Client {
    stream: Option<TcpStream>,
    address: SocketAddr,
    end: End,
    shut: bool,
}

/// Maximum wait for an expected effect, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Wait of a client that is not expected to get in. The kernel would send another SYN after one
/// second.
const GLIMPSE: Duration = Duration::from_millis(20);

/// Receive buffer of a client in bytes. It holds all writes of fixed lengths, and fills soon.
const CLIENT_BUFFER: usize = 32 * 1024;

fn new_client() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_recv_buffer_size(CLIENT_BUFFER).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

impl Loopback {
    fn open(&mut self, client: usize) -> &mut TcpStream {
        self.client(client).stream.as_mut().expect("the client is open")
    }

    fn client(&mut self, client: usize) -> &mut Client {
        self.clients[client].as_mut().expect("a client that got in")
    }

    fn add(&mut self, stream: TcpStream) {
        let address = stream.local_addr().unwrap();
        self.clients.push(Some(Client {
            stream: Some(stream),
            address,
            end: End::Open,
            shut: false,
        }));
    }
}

impl FarSide for Loopback {
    type Net = MioNet;

    fn new() -> (MioNet, Loopback) {
        let far = Loopback {
            clients: vec![],
            sockets: vec![],
            listeners: vec![],
            crowd: vec![],
            files: vec![],
        };
        (MioNet::new().unwrap(), far)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn connect(&mut self, _net: &mut MioNet, to: SocketAddr, hopeless: bool) -> bool {
        let socket = new_client();
        let start = Instant::now();
        let mut result = socket.connect(&to.into());
        while result.is_err() && start.elapsed() < if hopeless { GLIMPSE } else { PATIENCE } {
            match socket.take_error().unwrap() {
                Some(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                Some(error) => panic!("connect: {error}"),
                None if socket.peer_addr().is_ok() => result = Ok(()),
                None => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        match result {
            Ok(()) => self.add(socket.into()),
            Err(_) => self.clients.push(None),
        }
        result.is_ok()
    }

    fn address(&self, _net: &MioNet, client: usize) -> Option<SocketAddr> {
        self.clients[client].as_ref().map(|client| client.address)
    }

    fn send(&mut self, _net: &mut MioNet, client: usize, bytes: &[u8]) -> bool {
        match self.open(client).write(bytes) {
            Ok(length) => {
                assert_eq!(length, bytes.len(), "the few bytes of a scenario fit the send buffer");
                true
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                    "{error}"
                );
                // The kernel reports a reset only once, here and not by SO_ERROR. After its own
                // shutdown, a client cannot send even if the loop did nothing.
                let client = self.client(client);
                client.end = if client.shut { client.end } else { End::Reset };
                false
            }
        }
    }

    fn take(&mut self, _net: &mut MioNet, client: usize, most: usize) -> Vec<u8> {
        let (mut taken, mut part) = (Vec::new(), [0; 16 * 1024]);
        while taken.len() < most {
            let length = part.len().min(most - taken.len());
            match self.open(client).read(&mut part[..length]) {
                Ok(0) => {
                    let client = self.client(client);
                    client.end = if client.end == End::Open { End::Fin } else { client.end };
                    break;
                }
                Ok(length) => taken.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                        "{error}"
                    );
                    self.client(client).end = End::Reset;
                    break;
                }
            }
        }
        taken
    }

    fn end(&mut self, _net: &mut MioNet, client: usize) -> End {
        // No read reports a RST behind a FIN, but SO_ERROR does.
        if self.open(client).take_error().unwrap().is_some() {
            self.client(client).end = End::Reset;
        }
        self.client(client).end
    }

    fn half_close(&mut self, _net: &mut MioNet, client: usize) {
        // The shutdown of a reset connection fails.
        let _ = self.open(client).shutdown(Shutdown::Write);
        self.client(client).shut = true;
    }

    fn close(&mut self, _net: &mut MioNet, client: usize) {
        self.client(client).stream = None;
    }

    fn reset(&mut self, _net: &mut MioNet, client: usize) {
        SockRef::from(&*self.open(client)).set_linger(Some(Duration::ZERO)).unwrap();
        self.client(client).stream = None;
    }

    fn acknowledge(&mut self, client: usize) -> bool {
        let Some(Client { stream: Some(stream), .. }) = &self.clients[client] else { return false };
        SockRef::from(stream).set_tcp_quickack(true).is_ok()
    }

    fn dial(&mut self, net: &mut MioNet, answer: Answer, token: Token) -> Dialled<MioNet> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(CLIENT_BUFFER).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        if answer != Answer::Refuses {
            socket.listen(1).unwrap();
        }
        if answer == Answer::Hangs {
            // Two connections fill the accept queue, so the next SYN gets no answer.
            self.crowd.extend((0..2).map(|_| TcpStream::connect(at).unwrap()));
        }
        let stream = net.connect(at, &ConnectOptions::default(), token);
        match (answer, &stream) {
            (Answer::Accepts, Ok(_)) => {
                let (stream, _) = TcpListener::from(socket).accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                self.add(stream);
            }
            _ => {
                self.listeners.push(socket);
                self.clients.push(None);
            }
        }
        (stream, at)
    }

    fn bind(&mut self, _net: &mut MioNet, address: SocketAddr) -> SocketAddr {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = socket.local_addr().unwrap();
        self.sockets.push(Some(socket));
        at
    }

    fn send_datagram(&mut self, _net: &mut MioNet, from: usize, to: SocketAddr, bytes: &[u8]) {
        let socket = self.sockets[from].as_ref().expect("the socket is bound");
        // The kernel may report an earlier datagram to a closed port here.
        let _ = socket.send_to(bytes, to);
    }

    fn datagrams(&mut self, _net: &mut MioNet, socket: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let socket = self.sockets[socket].as_ref().expect("the socket is bound");
        let mut bytes = vec![0; 65_536];
        let next = || {
            socket.recv_from(&mut bytes).ok().map(|(length, from)| (from, bytes[..length].to_vec()))
        };
        std::iter::from_fn(next).collect()
    }

    fn unbind(&mut self, socket: usize) {
        self.sockets[socket] = None;
    }

    fn leave_files(&mut self, _net: &mut MioNet, count: usize) {
        self.files.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        self.files.truncate(self.files.len().saturating_sub(count));
    }
}

//! The simulated network. It lives in memory, takes its randomness from a seed and runs on virtual
//! time. A test of the whole loop therefore takes milliseconds, and the same seed replays it
//! exactly.
//!
//! The loop sees the behaviour of Linux:
//! - Epoll is edge-triggered. A file has at most one entry on the ready list, and its state is read
//!   when the entry is reported.
//! - A new file gets the lowest free number.
//! - A listener has an accept queue. A stream has a receive queue, a bounded send window, FIN and
//!   RST. A UDP socket has a bounded queue of datagrams.
//!
//! The rest of [`SimNet`] is the far side: the actions of clients and of the operator. [`Faults`]
//! adds the rare failures of networks and kernels.
//!
//! Time stands still while the loop works. [`Net::poll`] moves it to the next arrival or to the end
//! of its timeout, and [`SimNet::advance`] moves it by hand.

mod calls;
mod connection;
mod dialled;
mod far_side;
mod faults;
mod files;
mod kernel;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use self::calls::Calls;
use self::connection::{Segment, Side, SimConnection};
use self::dialled::Dialled;
use self::files::{FIRST_FREE_PORT, File, FileKind, claim, reachable};
use super::{ConnectOptions, Net, Ready, Signal, Transferred};
use crate::clock::Time;
use crate::kernel::Counters;
use crate::limits::SocketOptions;
use crate::memory::KernelObjects;
use crate::sys::{DatagramBatch, errno};
use crate::token::Token;

pub use self::calls::SystemCall;
pub use self::connection::End;
pub use self::dialled::DialAnswer;
pub use self::faults::Faults;
pub use self::files::Readiness;
pub use self::trace::{Trace, TraceEntry};

/// The far end of one stream. Unlike the number of a [`Stream`], it is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u32);

impl ClientId {
    /// Returns the number by which the trace names this client.
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

/// The file number of a listener. It cannot be copied: holding it means that the file is open.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener(u32);
/// The file number of the loop's end of a stream. Holding it means that the file is open.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream(u32);
/// The file number of a UDP socket. Holding it means that the file is open.
#[derive(Debug, PartialEq, Eq)]
pub struct Socket(u32);

/// A simulated network together with the kernel that connects the loop to it.
pub struct SimNet {
    now: Time,
    /// The time that the system's clock was last set to, and when.
    system_clock: (Duration, Time),
    /// The moment beyond which polls do not advance time.
    held_at: Option<Time>,
    random: fastrand::Rng,
    faults: Faults,

    files: Vec<Option<File>>,
    /// The free file numbers below `files.len()`.
    free: BTreeSet<u32>,
    file_limit: usize,
    files_opened: u64,
    /// The ready list: a file's number and, because numbers are reused, the count of its opening.
    wakes: VecDeque<(u32, u64)>,

    listeners: Vec<(SocketAddr, u32)>,
    sockets: Vec<(SocketAddr, u32)>,
    port_next: u16,
    connections: Vec<SimConnection>,
    /// The segments on their way to the loop, in the order of their arrival.
    arrivals: BTreeMap<(Time, u64), (ClientId, Segment)>,
    segments_sent: u64,
    /// The streams from [`Net::connect`] that the far side has not answered yet.
    connecting: Vec<(SocketAddr, ClientId)>,
    dialled: Dialled,
    /// The loop's datagrams by receiver, each with its sender and its bytes.
    mailboxes: BTreeMap<SocketAddr, Vec<(SocketAddr, Vec<u8>)>>,

    injected: Vec<Ready>,
    /// Events of closed files that the next poll still reports.
    stale: Vec<Ready>,
    calls: Calls,
    trace: Trace,
    signals: Vec<Signal>,
    signals_edge: bool,
    accept_errors: VecDeque<i32>,
    receive_errors: VecDeque<i32>,
    send_errors: VecDeque<i32>,
    socket_options: SocketOptions,
    clients_refused: u64,
    clients_queued: u64,
    accepts_lost: u64,
    datagrams_dropped: u64,
}

/// The world around the loop: time, the operator, the machine's limits.
impl SimNet {
    /// Returns a network without faults.
    pub fn new(seed: u64) -> SimNet {
        SimNet::with_faults(seed, Faults::default())
    }

    /// Returns a network with these faults. The seed decides when each fault strikes.
    pub fn with_faults(seed: u64, faults: Faults) -> SimNet {
        SimNet {
            now: Time::ZERO,
            system_clock: (Duration::from_secs(1_700_000_000), Time::ZERO),
            held_at: None,
            random: fastrand::Rng::with_seed(seed),
            faults,
            files: Vec::new(),
            free: BTreeSet::new(),
            file_limit: usize::MAX,
            files_opened: 0,
            wakes: VecDeque::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            port_next: FIRST_FREE_PORT,
            connections: Vec::new(),
            arrivals: BTreeMap::new(),
            segments_sent: 0,
            connecting: Vec::new(),
            dialled: Dialled::default(),
            mailboxes: BTreeMap::new(),
            injected: Vec::new(),
            stale: Vec::new(),
            calls: Calls::default(),
            trace: Trace::default(),
            signals: Vec::new(),
            signals_edge: false,
            accept_errors: VecDeque::new(),
            receive_errors: VecDeque::new(),
            send_errors: VecDeque::new(),
            socket_options: SocketOptions::default(),
            clients_refused: 0,
            clients_queued: 0,
            accepts_lost: 0,
            datagrams_dropped: 0,
        }
    }

    /// Keeps every later poll from waiting beyond `moment`, so a test can look at the state at that
    /// time. If `moment` is now, time stands still.
    pub fn hold_time_at(&mut self, moment: Time) {
        self.held_at = Some(moment);
    }

    /// Lets time pass while the loop does not poll. Segments that are due in this time arrive.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.deliver_due();
    }

    /// Sends the process a signal. The next poll reports it.
    pub fn raise(&mut self, signal: Signal) {
        self.signals.push(signal);
        self.signals_edge = true;
    }

    /// Returns the number of listeners, streams and sockets that the loop holds.
    pub fn open_files(&self) -> usize {
        self.files.len() - self.free.len()
    }
}

impl Net for SimNet {
    type Listener = Listener;
    type Stream = Stream;
    type Socket = Socket;

    fn now(&self) -> Time {
        self.now
    }

    fn system_time(&self) -> Duration {
        let (set_to, at) = self.system_clock;
        set_to + self.now.since(at)
    }

    /// Never blocks. Without a ready file, a segment under way or a timeout, it returns at once.
    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        let start = ready.len();
        ready.append(&mut self.injected);
        ready.append(&mut self.stale);
        let deadline = timeout.map(|timeout| self.now + timeout);
        self.deliver_due();
        if self.chance(self.faults.spurious_event) && !self.files.is_empty() {
            self.wake_any_file_for_nothing();
        }
        while !self.report(ready) {
            let arrival = self.next_arrival();
            let next = arrival.into_iter().chain(deadline).chain(self.held_at).min();
            let Some(next) = next.filter(|&next| next > self.now) else { break };
            if self.chance(self.faults.poll_interrupted) {
                self.now = Time::from_nanos(self.random.u64(self.now.as_nanos()..next.as_nanos()));
                break;
            }
            self.now = next;
            if self.chance(self.faults.clock_jump) {
                let jump = Duration::from_nanos(
                    self.random.u64(0..=self.faults.clock_jump_max.as_nanos() as u64),
                );
                self.note("clock jumps", 0u32, jump.as_micros() as i64);
                self.now = self.now + jump;
            }
            self.deliver_due();
        }
        self.note_ready(&ready[start..]);
        Ok(())
    }

    fn signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// Only records the options. The simulated kernel has no timeouts, and [`Faults`] sets its
    /// buffers.
    fn configure(&mut self, _listener: &Listener, options: &SocketOptions) -> io::Result<()> {
        self.calls.attempt(SystemCall::Configure)?;
        self.socket_options = *options;
        Ok(())
    }

    fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        token: Token,
    ) -> io::Result<Listener> {
        self.calls.attempt(SystemCall::Listen)?;
        self.socket_options = *options;
        self.lowest_free_file()?;
        let address = claim(&self.listeners, address, &mut self.port_next)?;
        let kind =
            FileKind::Listener { address, queue: VecDeque::new(), backlog: backlog.min(SOMAXCONN) };
        let file = self.open(token, kind)?;
        self.listeners.push((address, file));
        Ok(Listener(file))
    }

    fn listener_address(&self, listener: &Listener) -> io::Result<SocketAddr> {
        let FileKind::Listener { address, .. } = self.file(listener.0).kind else {
            unreachable!("{listener:?}")
        };
        Ok(address)
    }

    fn close_listener(&mut self, listener: Listener) {
        let waiting = std::mem::take(self.accept_queue_of(listener.0).0);
        waiting.into_iter().for_each(|client| self.connection_mut(client).abort());
        self.listeners.retain(|&(_, file)| file != listener.0);
        self.release(listener.0);
    }

    fn close_socket(&mut self, socket: Socket) {
        self.sockets.retain(|&(_, file)| file != socket.0);
        self.release(socket.0);
    }

    fn accept(&mut self, listener: &Listener, token: Token) -> io::Result<(Stream, SocketAddr)> {
        let accepted = self.accept_next(listener, token);
        let result = accepted.as_ref().map(|(stream, _)| self.client_of(stream.0).0 as usize);
        self.note_result("accept", listener.0, result);
        accepted
    }

    fn connect(
        &mut self,
        address: SocketAddr,
        _options: &ConnectOptions,
        token: Token,
    ) -> io::Result<Stream> {
        self.calls.attempt(SystemCall::Connect)?;
        let client = ClientId(self.connections.len() as u32);
        let file = self.open(token, FileKind::Stream { client, watches_writable: true })?;
        self.new_connection(address, Side::Connecting(file));
        self.connecting.push((address, client));
        self.answer_dial(address, client);
        Ok(Stream(file))
    }

    fn resolve(&mut self, number: u32, host: &str, port: u16) -> io::Result<()> {
        self.look_up(number, host, port);
        Ok(())
    }

    fn resolved(&mut self) -> Option<(u32, io::Result<Vec<SocketAddr>>)> {
        self.dialled.take_answer()
    }

    fn connected(&mut self, stream: &Stream) -> io::Result<bool> {
        let connection = self.stream_mut(stream);
        match connection.error.take() {
            Some(error) => Err(os_error(error)),
            None => Ok(connection.has_peer()),
        }
    }

    fn read(&mut self, stream: &mut Stream, into: &mut [u8]) -> io::Result<usize> {
        let client = self.client_of(stream.0);
        let result = self.read_from(client, stream.0, into);
        if let Ok(length) = result {
            self.trace.mix_bytes(&into[..length]);
        }
        self.note_result("read", client.0, result.as_ref().copied());
        result
    }

    fn write(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        let client = self.client_of(stream.0);
        let result = self.write_to(client, bytes);
        if let Ok(length) = result {
            self.trace.mix_bytes(&bytes[..length]);
        }
        self.note_result("write", client.0, result.as_ref().copied());
        result
    }

    fn watch_writable(&mut self, stream: &mut Stream, token: Token) -> io::Result<()> {
        let client = self.client_of(stream.0);
        self.note("watch-writable", client.0, 0);
        self.calls.attempt(SystemCall::WatchWritable)?;
        let file = self.file_mut(stream.0);
        file.token = token;
        file.kind = FileKind::Stream { client, watches_writable: true };
        self.wake_if_ready(stream.0);
        Ok(())
    }

    fn shutdown_write(&mut self, stream: &mut Stream) -> io::Result<()> {
        let client = self.client_of(stream.0);
        self.note("shutdown", client.0, 0);
        self.calls.attempt(SystemCall::Shutdown)?;
        let shut = self.connection_mut(client).shutdown_write();
        // inet_shutdown wakes the poller even when it fails.
        self.wake(stream.0);
        shut
    }

    fn close(&mut self, stream: Stream) {
        let client = self.client_of(stream.0);
        self.connecting.retain(|&(_, connecting)| connecting != client);
        self.connection_mut(client).close();
        self.note("close", client.0, 0);
        self.release(stream.0);
    }

    fn reset(&mut self, stream: Stream) {
        let client = self.client_of(stream.0);
        self.connecting.retain(|&(_, connecting)| connecting != client);
        self.connection_mut(client).abort();
        self.note("reset", client.0, 0);
        self.release(stream.0);
    }

    /// Resets the first waiting connection. Unlike the real network, this needs no spare file.
    fn shed(&mut self, listener: &Listener) -> io::Result<bool> {
        self.calls.attempt(SystemCall::Shed)?;
        let waiting = self.accept_queue_of(listener.0).0.pop_front();
        if let Some(client) = waiting {
            self.note("shed", client.0, 0);
            self.connection_mut(client).abort();
        }
        Ok(waiting.is_some())
    }

    fn unacknowledged(&self, stream: &Stream) -> io::Result<usize> {
        self.calls.attempt(SystemCall::Unacknowledged)?;
        Ok(self.connection(self.client_of(stream.0)).unacknowledged())
    }

    /// Reports nothing as measured, because a simulated kernel has no memory.
    fn kernel_objects(&self) -> KernelObjects {
        KernelObjects { bytes: 0, measured: false }
    }

    /// Returns `None`, because a simulated network has no process.
    fn resident_bytes(&self) -> Option<u64> {
        None
    }

    fn kernel_counters(&self) -> Counters {
        Counters::default()
    }

    fn buffer_bytes(&self, stream: &Stream) -> io::Result<u64> {
        self.calls.attempt(SystemCall::BufferBytes)?;
        let connection = self.connection(self.client_of(stream.0));
        Ok((connection.inbound.len() + connection.outbound.len()) as u64)
    }

    fn file_number(&self, stream: &Stream) -> i32 {
        stream.0 as i32
    }

    fn peer_address(&self, stream: &Stream) -> io::Result<SocketAddr> {
        self.calls.attempt(SystemCall::PeerAddress)?;
        let connection = self.connection(self.client_of(stream.0));
        if connection.has_peer() { Ok(connection.peer) } else { Err(os_error(errno::ENOTCONN)) }
    }

    /// Fails as unsupported, because the loop does not need the address.
    fn local_address(&self, _stream: &Stream) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn transferred(&self, _stream: &Stream) -> io::Result<Transferred> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept_queue(&self, listener: &Listener) -> io::Result<(u32, u32)> {
        self.calls.attempt(SystemCall::AcceptQueue)?;
        let FileKind::Listener { queue, backlog, .. } = &self.file(listener.0).kind else {
            unreachable!("{listener:?}")
        };
        Ok((queue.len() as u32, *backlog))
    }

    fn bind(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        self.calls.attempt(SystemCall::Bind)?;
        self.lowest_free_file()?;
        let address = claim(&self.sockets, address, &mut self.port_next)?;
        let file = self.open(token, FileKind::Socket { address, queue: VecDeque::new() })?;
        self.sockets.push((address, file));
        Ok(Socket(file))
    }

    fn socket_address(&self, socket: &Socket) -> io::Result<SocketAddr> {
        let FileKind::Socket { address, .. } = self.file(socket.0).kind else {
            unreachable!("{socket:?}")
        };
        Ok(address)
    }

    fn receive(&mut self, socket: &Socket, batch: &mut DatagramBatch) -> io::Result<usize> {
        let result = self.receive_from(socket, batch);
        self.note_result("receive", socket.0, result.as_ref().copied());
        result
    }

    fn send(
        &mut self,
        socket: &Socket,
        batch: &mut DatagramBatch,
        first: usize,
    ) -> io::Result<usize> {
        let from = reachable(self.socket_address(socket)?);
        let mut sent = 0;
        for (to, bytes) in batch.answers().skip(first) {
            let result = match (self.send_errors.front(), self.calls.attempt(SystemCall::Send)) {
                (Some(&failure), _) => Err(os_error(failure)),
                (None, Err(failure)) => Err(failure),
                (None, Ok(())) => self.send_one(from, to.to_socket_addr(), bytes),
            };
            match result {
                Ok(()) => sent += 1,
                // The datagrams before this one were sent. The next call starts with it and fails.
                Err(_) if sent > 0 => break,
                Err(error) => {
                    self.send_errors.pop_front();
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }
}

/// Maximum length of an accept queue: the default of net.core.somaxconn.
const SOMAXCONN: u32 = 4096;

fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Generation;

    const MS: Duration = Duration::from_millis(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn token(slot: u32) -> Token {
        Token::connection(slot, Generation::FIRST)
    }

    /// Polls without waiting. Returns each event's token, with r, w and h for its flags.
    fn events(net: &mut SimNet) -> Vec<(Token, String)> {
        let mut ready = Vec::new();
        net.poll(&mut ready, Some(Duration::ZERO)).unwrap();
        let letters = |event: &Ready| {
            let set = [("r", event.readable), ("w", event.writable), ("h", event.read_on)];
            set.into_iter().filter(|&(_, set)| set).map(|(letter, _)| letter).collect()
        };
        ready.iter().map(|event| (event.token, letters(event))).collect()
    }

    /// Returns the flags of the only ready source. The text is empty when no source is ready.
    fn event(net: &mut SimNet) -> String {
        let events = events(net);
        assert!(events.len() <= 1, "{events:?}");
        events.into_iter().next().map(|(_, letters)| letters).unwrap_or_default()
    }

    fn listener(net: &mut SimNet, backlog: u32) -> (Listener, SocketAddr) {
        let listener = net
            .listen(address("127.0.0.1:0"), backlog, &SocketOptions::default(), Token::listener(0))
            .unwrap();
        let at = net.listener_address(&listener).unwrap();
        (listener, at)
    }

    /// Returns an accepted stream under token 1 and its client, with no event pending.
    fn stream(net: &mut SimNet) -> (Stream, ClientId) {
        let (listener, at) = listener(net, 8);
        let client = net.client(at).unwrap();
        let (stream, peer) = net.accept(&listener, token(1)).unwrap();
        assert_eq!(peer, net.client_address(client));
        assert_eq!(event(net), "", "the listener's queue is empty by now");
        (stream, client)
    }

    fn errno_of<T>(result: io::Result<T>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    fn kind_of<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    const WOULD_BLOCK: Option<io::ErrorKind> = Some(io::ErrorKind::WouldBlock);

    #[test]
    fn only_new_data_raises_another_edge() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.client_send(client, b"ab");
        net.client_send(client, b"cd");
        assert_eq!(events(&mut net), [(token(1), "r".into())], "two arrivals, one event");
        let mut bytes = [0; 3];
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 3);
        assert_eq!(event(&mut net), "", "unread data raises no edge");
        net.client_send(client, b"e");
        assert_eq!(event(&mut net), "r");
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 2);
        assert_eq!(&bytes[..2], b"de");
        assert_eq!(kind_of(net.read(&mut stream, &mut bytes)), WOULD_BLOCK);
        net.client_send(client, b"f");
        net.read(&mut stream, &mut bytes).unwrap();
        assert_eq!(event(&mut net), "", "the data was read before the poll");
    }

    #[test]
    fn registering_a_file_reports_its_present_readiness() {
        let mut net = SimNet::new(0);
        let (listener, at) = listener(&mut net, 8);
        let client = net.client(at).unwrap();
        net.client_send(client, b"early");
        let (mut stream, _) = net.accept(&listener, token(1)).unwrap();
        assert_eq!(events(&mut net), [(token(1), "r".into())]);
        net.watch_writable(&mut stream, token(2)).unwrap();
        assert_eq!(events(&mut net), [(token(2), "rw".into())]);
        assert_eq!(event(&mut net), "");
    }

    #[test]
    fn a_half_closed_stream_delivers_its_data_and_takes_answers() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.client_send(client, b"last");
        net.client_shutdown(client);
        assert!(!net.client_send(client, b"too late"));
        assert_eq!(event(&mut net), "rh");
        let mut bytes = [0; 16];
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 4);
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 0);
        assert_eq!(event(&mut net), "", "reading the end of the stream raises no edge");
        assert_eq!(net.write(&mut stream, b"answer").unwrap(), 6);
        net.shutdown_write(&mut stream).unwrap();
        assert_eq!(event(&mut net), "rwh", "a stream shut on both sides hangs up");
        assert_eq!(errno_of(net.write(&mut stream, b"more")), Some(errno::EPIPE));
        net.close(stream);
        assert_eq!(
            (net.client_received(client), net.client_saw(client)),
            (b"answer".to_vec(), End::Fin)
        );
    }

    #[test]
    fn a_reset_stream_gives_its_data_then_one_error_then_the_end() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.client_send(client, b"hello");
        net.client_reset(client);
        assert_eq!(event(&mut net), "rwh");
        let mut bytes = [0; 16];
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 5);
        assert_eq!(errno_of(net.read(&mut stream, &mut bytes)), Some(errno::ECONNRESET));
        assert_eq!(net.read(&mut stream, &mut bytes).unwrap(), 0);
        assert_eq!(errno_of(net.write(&mut stream, b"x")), Some(errno::EPIPE));
        assert_eq!(errno_of(net.shutdown_write(&mut stream)), Some(errno::ENOTCONN));
        assert_eq!(errno_of(net.peer_address(&stream)), Some(errno::ENOTCONN));
    }

    #[test]
    fn writing_to_a_client_that_closed_draws_a_reset() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.client_close(client);
        assert_eq!(event(&mut net), "rh");
        assert_eq!(net.write(&mut stream, b"into the void").unwrap(), 13);
        assert_eq!(event(&mut net), "rwh");
        assert_eq!(net.unacknowledged(&stream).unwrap(), 13);
        assert_eq!(net.read(&mut stream, &mut [0; 4]).unwrap(), 0, "the client's FIN came first");
        assert_eq!(errno_of(net.write(&mut stream, b"x")), Some(errno::EPIPE));
    }

    #[test]
    fn closing_with_unread_input_resets_the_stream_and_destroys_undelivered_output() {
        for (unread, late, end) in
            [(false, false, End::Fin), (true, false, End::Reset), (false, true, End::Reset)]
        {
            let mut net = SimNet::new(0);
            let (mut stream, client) = stream(&mut net);
            net.write(&mut stream, b"answer").unwrap();
            if unread {
                net.client_send(client, b"unread");
            }
            net.close(stream);
            if late {
                net.client_send(client, b"late");
            }
            assert_eq!(net.client_saw(client), end);
            assert_eq!(net.client_received(client).is_empty(), end == End::Reset);
            assert_eq!(events(&mut net), [], "a closed file reports no event");
        }
    }

    #[test]
    fn a_stream_that_both_sides_finished_cannot_be_reset() {
        let closes: [fn(&mut SimNet, Stream); 2] =
            [|net, stream| net.close(stream), |net, stream| net.reset(stream)];
        for close in closes {
            let mut net = SimNet::new(0);
            let (mut stream, client) = stream(&mut net);
            net.client_send(client, b"unread");
            net.client_shutdown(client);
            net.write(&mut stream, b"answer").unwrap();
            net.shutdown_write(&mut stream).unwrap();
            assert_eq!(event(&mut net), "rwh");
            assert_eq!(net.client_received(client), b"answer");
            event(&mut net);
            assert_eq!(errno_of(net.peer_address(&stream)), Some(errno::ENOTCONN));
            net.client_reset(client);
            assert_eq!(event(&mut net), "");
            close(&mut net, stream);
            assert_eq!(net.client_saw(client), End::Fin);
        }
    }

    #[test]
    fn a_full_window_shortens_writes_and_enough_room_raises_an_edge() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.set_window(client, 9);
        assert_eq!(net.write(&mut stream, &[1; 20]).unwrap(), 9);
        assert_eq!(kind_of(net.write(&mut stream, &[1; 20])), WOULD_BLOCK);
        assert_eq!(net.buffer_bytes(&stream).unwrap(), 9);
        assert_eq!(net.client_take(client, 3).len(), 3);
        assert_eq!(event(&mut net), "", "writability is not watched");
        net.watch_writable(&mut stream, token(1)).unwrap();
        assert_eq!(event(&mut net), "w", "the room exists already");
        assert_eq!(net.write(&mut stream, &[2; 20]).unwrap(), 3);
        net.client_take(client, 1);
        assert_eq!(event(&mut net), "", "too little room for a wake-up");
        net.client_take(client, 2);
        assert_eq!(event(&mut net), "w");
        net.client_received(client);
        assert_eq!(event(&mut net), "", "the room was announced before");
        net.set_window(client, 0);
        assert_eq!(kind_of(net.write(&mut stream, b"x")), WOULD_BLOCK);
        net.set_window(client, 1);
        assert_eq!(event(&mut net), "w");
        net.client_send(client, b"x");
        assert_eq!(event(&mut net), "rw", "an event reports the whole state");
    }

    #[test]
    fn room_raises_an_edge_only_for_a_stream_that_lacked_it() {
        let mut net = SimNet::new(0);
        let (mut stream, client) = stream(&mut net);
        net.set_window(client, 4);
        net.watch_writable(&mut stream, token(1)).unwrap();
        assert_eq!(event(&mut net), "w");
        assert_eq!(net.write(&mut stream, b"fits").unwrap(), 4);
        net.client_received(client);
        assert_eq!(event(&mut net), "", "a write that fits requests no room");
        net.write(&mut stream, b"fits").unwrap();
        net.client_send(client, b"x");
        assert_eq!(event(&mut net), "r", "the poll itself found no room");
        net.client_received(client);
        assert_eq!(event(&mut net), "rw");
    }

    #[test]
    fn an_accept_queue_takes_one_more_than_its_backlog() {
        let mut net = SimNet::new(0);
        let (listener, at) = listener(&mut net, 2);
        let clients: Vec<_> = (0..5).map(|_| net.client(at).is_some()).collect();
        assert_eq!(clients, [true, true, true, false, false]);
        assert_eq!((net.accept_queue_len(at), net.clients_refused()), (3, 2));
        assert_eq!(events(&mut net), [(Token::listener(0), "r".into())]);
        net.accept(&listener, token(1)).unwrap();
        assert_eq!(event(&mut net), "", "waiting connections raise no new edge");
        let last = net.client(at).unwrap();
        assert_eq!(event(&mut net), "r");
        net.close_listener(listener);
        assert_eq!((net.client_saw(last), net.client(at)), (End::Reset, None));
    }

    #[test]
    fn a_freed_file_raises_no_edge_for_waiting_connections() {
        let mut net = SimNet::new(0);
        net.set_file_limit(2);
        let (listener, at) = listener(&mut net, 8);
        let first = net.client(at).unwrap();
        let (stream, _) = net.accept(&listener, token(1)).unwrap();
        assert_eq!(
            errno_of(net.accept(&listener, token(2))),
            Some(errno::EMFILE),
            "even with an empty queue"
        );
        net.client(at).unwrap();
        assert_eq!(event(&mut net), "r");
        assert_eq!(errno_of(net.accept(&listener, token(2))), Some(errno::EMFILE));
        net.close(stream);
        assert_eq!(net.client_saw(first), End::Fin);
        assert_eq!((event(&mut net).as_str(), net.accept_queue_len(at)), ("", 1));
        net.accept(&listener, token(2)).unwrap();
        assert_eq!(net.open_files(), 2);
    }

    #[test]
    fn a_failed_accept_keeps_the_connection_unless_it_was_aborted() {
        let mut net = SimNet::new(0);
        let (listener, at) = listener(&mut net, 8);
        net.fail_accepts(errno::ENFILE, 2);
        net.fail_accepts(errno::ECONNABORTED, 1);
        let (gone, kept) = (net.client(at).unwrap(), net.client(at).unwrap());
        let failures: Vec<_> =
            (0..3).map(|_| errno_of(net.accept(&listener, token(1))).unwrap()).collect();
        assert_eq!(failures, [errno::ENFILE, errno::ENFILE, errno::ECONNABORTED]);
        assert_eq!(net.client_saw(gone), End::Reset);
        assert_eq!(net.accept(&listener, token(1)).unwrap().1, net.client_address(kept));
        assert_eq!(kind_of(net.accept(&listener, token(1))), WOULD_BLOCK);
    }

    #[test]
    fn the_lowest_free_file_number_is_reused_without_events_of_its_old_owner() {
        let mut net = SimNet::new(0);
        let (listener, at) = listener(&mut net, 8);
        let clients: Vec<_> = (0..4).map(|_| net.client(at).unwrap()).collect();
        let accept = |net: &mut SimNet, slot| net.accept(&listener, token(slot)).unwrap().0;
        let (one, two, three) = (accept(&mut net, 1), accept(&mut net, 2), accept(&mut net, 3));
        net.client_send(clients[0], b"for the old owner");
        net.close(three);
        net.close(one);
        let reused = accept(&mut net, 4);
        assert_eq!((reused, two), (Stream(1), Stream(2)));
        net.client_send(clients[3], b"for the new one");
        assert_eq!(events(&mut net), [(token(4), "r".into())]);
    }

    #[test]
    fn polls_and_advance_move_time() {
        let mut net = SimNet::with_faults(
            0,
            Faults { segment_max: Some(1), delay_max: MS, ..Faults::default() },
        );
        let (mut stream, client) = stream(&mut net);
        let mut ready = Vec::new();
        net.poll(&mut ready, None).unwrap();
        assert_eq!(net.now(), Time::ZERO, "the poll has nothing to wait for");
        net.poll(&mut ready, Some(7 * MS)).unwrap();
        assert_eq!((net.now(), ready.len()), (Time::ZERO + 7 * MS, 0));

        net.client_send(client, &[0; 40]);
        let (mut bytes, mut got, mut polls) = ([0; 64], 0, 0);
        while got < 40 {
            let before = net.now();
            net.poll(&mut ready, None).unwrap();
            assert!(net.now() <= before + MS);
            (got, polls) = (got + net.read(&mut stream, &mut bytes).unwrap(), polls + 1);
        }
        assert!((5..40).contains(&polls), "bytes arrive one by one and together: {polls}");

        let before = net.now();
        net.client_send(client, &[0; 40]);
        net.advance(40 * MS);
        assert_eq!(
            net.read(&mut stream, &mut bytes).unwrap(),
            40,
            "all bytes arrived in this time"
        );
        assert_eq!(net.now(), before + 40 * MS);
    }

    #[test]
    fn a_poll_reports_at_most_1024_events_and_the_next_poll_the_rest() {
        let mut net = SimNet::new(0);
        let (listener, at) = listener(&mut net, 4096);
        for slot in 0..1500 {
            let client = net.client(at).unwrap();
            net.accept(&listener, token(slot)).unwrap();
            net.client_send(client, b"x");
        }
        // The listener's queue is empty, so it has no event.
        assert_eq!(
            (events(&mut net).len(), events(&mut net).len(), events(&mut net).len()),
            (1024, 476, 0)
        );
    }

    #[test]
    fn a_connect_hangs_until_the_far_side_answers() {
        let mut net = SimNet::new(0);
        let broker = address("10.0.0.1:6379");
        let mut good = net.connect(broker, &ConnectOptions::default(), token(1)).unwrap();
        let bad = net.connect(broker, &ConnectOptions::default(), token(2)).unwrap();
        let hung = net.connect(broker, &ConnectOptions::default(), token(3)).unwrap();
        assert_eq!((event(&mut net).as_str(), net.connects_pending(broker)), ("", 3));
        assert!(!net.connected(&good).unwrap());
        assert_eq!(kind_of(net.write(&mut good, b"x")), WOULD_BLOCK);
        let peer = net.accept_connect(broker).unwrap();
        assert!(net.refuse_connect(broker));
        assert_eq!(events(&mut net), [(token(1), "w".into()), (token(2), "rwh".into())]);
        assert!(net.connected(&good).unwrap());
        assert_eq!(errno_of(net.connected(&bad)), Some(errno::ECONNREFUSED));
        assert!(!net.connected(&bad).unwrap());
        net.write(&mut good, b"PING").unwrap();
        assert_eq!(net.client_received(peer), b"PING");
        net.client_send(peer, b"PONG");
        assert_eq!(events(&mut net), [(token(1), "rw".into())]);
        net.close(hung);
        assert_eq!(net.connects_pending(broker), 0);
    }

    #[test]
    fn datagrams_arrive_in_batches_and_answers_reach_their_senders() {
        let mut net = SimNet::with_faults(0, Faults { datagram_queue: 3, ..Faults::default() });
        let socket = net.bind(address("0.0.0.0:0"), Token::socket(0)).unwrap();
        let at = SocketAddr::new(
            address("127.0.0.1:1").ip(),
            net.socket_address(&socket).unwrap().port(),
        );
        let mut batch = DatagramBatch::new();
        assert_eq!(kind_of(net.receive(&socket, &mut batch)), WOULD_BLOCK);
        // The third comes from port 0, so it cannot be answered. The queue has no room for the
        // fourth.
        let sources = ["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:0", "10.0.0.4:4"].map(address);
        let arrived = sources.map(|from| net.send_datagram(at, from, b"question"));
        assert_eq!((arrived, net.datagrams_dropped()), ([true, true, true, false], 1));
        assert_eq!(events(&mut net), [(Token::socket(0), "r".into())]);
        net.fail_receives(errno::ENOMEM, 1);
        assert_eq!(errno_of(net.receive(&socket, &mut batch)), Some(errno::ENOMEM));
        assert_eq!(net.receive(&socket, &mut batch).unwrap(), 3);
        for (index, length) in [(0, 65_507), (0, 65_508), (1, 5), (2, 5)] {
            batch.exchange(index).1.extend(std::iter::repeat_n(0, length));
            batch.answer(index);
        }
        assert_eq!(net.send(&socket, &mut batch, 0).unwrap(), 1);
        assert_eq!(errno_of(net.send(&socket, &mut batch, 1)), Some(errno::EMSGSIZE));
        net.fail_sends(errno::EAGAIN, 1);
        assert_eq!(kind_of(net.send(&socket, &mut batch, 2)), WOULD_BLOCK);
        assert_eq!(net.send(&socket, &mut batch, 2).unwrap(), 1);
        assert_eq!(errno_of(net.send(&socket, &mut batch, 3)), Some(errno::EINVAL));
        assert_eq!(net.datagrams_received(sources[0]), [(at, vec![0; 65_507])]);
        assert_eq!(net.datagrams_received(sources[1]), [(at, vec![0; 5])]);
        assert_eq!(net.datagrams_received(sources[1]), []);
    }

    #[test]
    fn addresses_overlap_only_within_a_protocol_and_a_family() {
        let mut net = SimNet::new(0);
        let mut listen = |text: &str| {
            net.listen(address(text), 8, &SocketOptions::default(), Token::listener(0)).map(|_| ())
        };
        listen("127.0.0.1:80").unwrap();
        assert_eq!(kind_of(listen("127.0.0.1:80")), Some(io::ErrorKind::AddrInUse));
        assert_eq!(kind_of(listen("0.0.0.0:80")), Some(io::ErrorKind::AddrInUse));
        listen("127.0.0.2:80").unwrap();
        listen("[::]:80").unwrap();
        net.bind(address("0.0.0.0:80"), Token::socket(0)).unwrap();
        let ports = [0; 2].map(|_| listener(&mut net, 8).1.port());
        assert_ne!(ports[0], ports[1]);
        assert!(
            net.client(address("[::1]:80"))
                .is_some_and(|client| net.client_address(client).is_ipv6())
        );
    }

    #[test]
    fn a_signal_raises_an_event() {
        let mut net = SimNet::new(0);
        net.raise(Signal::Reload);
        net.raise(Signal::Stop);
        assert_eq!(events(&mut net), [(Token::SIGNALS, "r".into())]);
        assert_eq!(net.signals(), [Signal::Reload, Signal::Stop]);
        assert_eq!((events(&mut net), net.signals()), (vec![], vec![]));
    }

    /// Runs an echo loop that relies on the contract of [`Net`] and remembers only the required
    /// state. Returns all events with their times, and the bytes that each client got back.
    fn echo(seed: u64, spurious_event: f64, sent: &[u8]) -> (Vec<(Time, Ready)>, Vec<Vec<u8>>) {
        let faults = Faults {
            accept_aborted: 0.0,
            accept_exhausted: 0.0,
            spurious_event,
            interrupted: 0.0,
            ..Faults::harsh()
        };
        let mut net = SimNet::with_faults(seed, faults);
        let (listener, at) = listener(&mut net, 8);
        let clients: Vec<_> = (0..5).map(|_| net.client(at).unwrap()).collect();
        let (mut trace, mut received) = (Vec::new(), vec![Vec::new(); clients.len()]);
        let mut streams: Vec<Option<(Stream, Vec<u8>, bool)>> = Vec::new();
        for &client in &clients {
            net.client_send(client, sent);
            net.client_shutdown(client);
        }
        while clients.iter().any(|&client| net.client_saw(client) == End::Open) {
            let mut ready = Vec::new();
            net.poll(&mut ready, Some(MS)).unwrap();
            assert!(net.now() < Time::ZERO + 60_000 * MS, "seed {seed} stalls");
            trace.extend(ready.iter().map(|&event| (net.now(), event)));
            for event in &ready {
                let crate::token::Source::Connection { slot, .. } = event.token.source() else {
                    while let Ok((mut stream, _)) =
                        net.accept(&listener, token(streams.len() as u32))
                    {
                        net.watch_writable(&mut stream, token(streams.len() as u32)).unwrap();
                        streams.push(Some((stream, Vec::new(), false)));
                    }
                    continue;
                };
                let Some((stream, pending, ended)) = &mut streams[slot as usize] else { continue };
                let mut bytes = [0; 8];
                while event.readable && !*ended {
                    let Ok(length) = net.read(stream, &mut bytes) else { break };
                    pending.extend_from_slice(&bytes[..length]);
                    *ended = length == 0;
                    if length < bytes.len() && !event.read_on {
                        break;
                    }
                }
                while let Ok(length) = net.write(stream, pending)
                    && length > 0
                {
                    pending.drain(..length);
                }
                if *ended && pending.is_empty() {
                    net.close(streams[slot as usize].take().unwrap().0);
                }
            }
            for (client, received) in clients.iter().zip(&mut received) {
                received.extend(net.client_take(*client, 5));
            }
        }
        clients
            .iter()
            .zip(&mut received)
            .for_each(|(&client, received)| received.extend(net.client_received(client)));
        (trace, received)
    }

    #[test]
    fn a_loop_that_keeps_the_contract_loses_no_byte_under_harsh_faults() {
        let sent: Vec<u8> = (0..=255).collect();
        for seed in 0..64 {
            let spurious_event = [0.0, 0.1][seed as usize % 2];
            assert_eq!(echo(seed, spurious_event, &sent).1, vec![sent.clone(); 5], "seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_seed_a_different_one() {
        let trace = |seed| echo(seed, 0.1, &[7; 100]).0;
        assert_eq!(trace(1), trace(1));
        assert_ne!(trace(1), trace(2));
        // The hundred bytes travel in segments of at most 24, so they arrive at several times.
        let times: BTreeSet<_> = trace(1).into_iter().map(|(time, _)| time).collect();
        assert!(times.len() > 20, "{times:?}");
    }
}

//! The steps of a scenario, each done once on one network.

use std::io;
use std::net::SocketAddr;

use slabd::limits::SocketOptions;
use slabd::net::Net;
use slabd::token::{Generation, Token};

use super::far_side::FarSide;
use super::player::{Held, Player, Progress};
use super::{Answer, Step};

impl<F: FarSide> Player<F> {
    /// Does a step once. Returns its observation, or "" if the step has none.
    pub(super) fn once(&mut self, step: Step) -> String {
        match step {
            Step::Listen(backlog) => self.listen(([127, 0, 0, 1], 0).into(), backlog),
            Step::ListenAgain(listener) => self.listen(self.listeners[listener].1, 8),
            Step::CloseListener(listener) => {
                let listener = self.listeners[listener].0.take().expect("an open listener");
                self.net.close_listener(listener);
                String::new()
            }
            Step::Queue(listener) => {
                let listener = self.listeners[listener].0.as_ref().expect("an open listener");
                let queue = self.net.accept_queue(listener);
                queue.map_or_else(
                    |error| name(&error),
                    |(length, limit)| format!("{length} of {limit}"),
                )
            }
            Step::Shed(listener) => {
                let listener = self.listeners[listener].0.as_ref().expect("an open listener");
                self.net
                    .shed(listener)
                    .map_or_else(|error| name(&error), |shed| format!("shed: {shed}"))
            }
            Step::Connect(listener) | Step::ConnectInVain(listener) => {
                let (to, hopeless) =
                    (self.listeners[listener].1, matches!(step, Step::ConnectInVain(_)));
                self.clients.push(Progress::default());
                format!("let in: {}", self.far.connect(&mut self.net, to, hopeless))
            }
            Step::Send(client, length) => {
                let sent = &mut self.clients[client].sent;
                let bytes: Vec<u8> =
                    (*sent..*sent + length).map(|at| pattern(client + 100, at)).collect();
                let taken = self.far.send(&mut self.net, client, &bytes);
                *sent += if taken { length } else { 0 };
                format!("sent: {taken}")
            }
            Step::TakeOne(client) => {
                let bytes = self.far.take(&mut self.net, client, 1);
                assert!(self.takes_right(client, &bytes));
                format!("{} bytes", bytes.len())
            }
            Step::HalfClose(client) => self.on_far_side(|far, net| far.half_close(net, client)),
            Step::Leave(client) => self.on_far_side(|far, net| far.close(net, client)),
            Step::Abort(client) => self.on_far_side(|far, net| far.reset(net, client)),
            Step::LeaveFiles(count) => self.on_far_side(|far, net| far.leave_files(net, count)),
            Step::FarUnbind(socket) => self.on_far_side(|far, _| far.unbind(socket)),
            Step::Accept(_) | Step::Dial(_) => self.new_stream(step),
            Step::Bind(_)
            | Step::Unbind(_)
            | Step::Receive(_)
            | Step::Answer(..)
            | Step::Tell(..)
            | Step::SendTo(..) => self.on_datagrams(step),
            Step::FarBind(address) => {
                let at = self.far.bind(&mut self.net, address.parse().unwrap());
                self.far_sockets.push(at);
                String::new()
            }
            Step::FarSendMany(from, to, count, length) => {
                (0..count).for_each(|_| drop(self.once(Step::FarSend(from, to, length))));
                String::new()
            }
            Step::FarSend(from, to, length) => {
                let mut to = self.sockets[to].1;
                if to.ip().is_unspecified() {
                    to.set_ip([127, 0, 0, 1].into());
                }
                let bytes: Vec<u8> = (0..length).map(|at| pattern(from, at)).collect();
                self.on_far_side(|far, net| far.send_datagram(net, from, to, &bytes))
            }
            _ => self.on_stream(step),
        }
    }

    fn on_far_side(&mut self, act: impl FnOnce(&mut F, &mut F::Net)) -> String {
        act(&mut self.far, &mut self.net);
        String::new()
    }

    fn listen(&mut self, at: SocketAddr, backlog: u32) -> String {
        let token = Token::listener(self.listeners.len() as u8);
        match self.net.listen(at, backlog, &SocketOptions::default(), token) {
            Ok(listener) => {
                let at = self.net.listener_address(&listener).unwrap();
                self.listeners.push((Some(listener), at));
                format!("has a port: {}", at.port() > 0)
            }
            Err(error) => name(&error),
        }
    }

    fn new_stream(&mut self, step: Step) -> String {
        let token = stream_token(self.streams.len());
        let (opened, client, dialled) = match step {
            Step::Accept(listener) => {
                let listener = self.listeners[listener].0.as_ref().expect("an open listener");
                match self.net.accept(listener, token) {
                    Err(error) => (Err(error), None, None),
                    Ok((stream, peer)) => {
                        let client = (0..self.clients.len())
                            .find(|&client| self.far.address(&self.net, client) == Some(peer));
                        (Ok(stream), client, None)
                    }
                }
            }
            Step::Dial(answer) => {
                self.clients.push(Progress::default());
                let client = Some(self.clients.len() - 1).filter(|_| answer == Answer::Accepts);
                let (stream, at) = self.far.dial(&mut self.net, answer, token);
                (stream, client, Some(at))
            }
            _ => unreachable!("{step:?} opens no stream"),
        };
        match opened {
            Ok(stream) => {
                let file = self.net.file_number(&stream);
                self.streams.push(Held {
                    stream: Some(stream),
                    client,
                    dialled,
                    file,
                    full: false,
                    written: 0,
                    read: 0,
                });
                client.map_or("no client".into(), |client| format!("client {client}"))
            }
            Err(error) => name(&error),
        }
    }

    fn on_stream(&mut self, step: Step) -> String {
        let tell =
            |result: io::Result<()>| result.map_or_else(|error| name(&error), |()| "done".into());
        match step {
            Step::Read(stream, most) => self
                .read(stream, most)
                .map_or_else(|error| name(&error), |length| format!("{length} bytes")),
            Step::Write(stream, length) => {
                let shown = self
                    .write(stream, length)
                    .map_or_else(|error| name(&error), |length| format!("{length} bytes"));
                self.settle_output(stream);
                shown
            }
            Step::Watch(number) => {
                let stream = self.streams[number].stream.as_mut().expect("an open stream");
                tell(self.net.watch_writable(stream, stream_token(number)))
            }
            Step::Shut(number) => {
                let stream = self.streams[number].stream.as_mut().expect("an open stream");
                let shown = tell(self.net.shutdown_write(stream));
                self.settle_output(number);
                shown
            }
            Step::Close(number) | Step::Reset(number) => {
                let stream = self.streams[number].stream.take().expect("an open stream");
                if matches!(step, Step::Close(_)) {
                    self.net.close(stream)
                } else {
                    self.net.reset(stream)
                }
                String::new()
            }
            Step::Unacknowledged(number) => {
                let stream = self.streams[number].stream.as_ref().expect("an open stream");
                self.net
                    .unacknowledged(stream)
                    .map_or_else(|error| name(&error), |bytes| bytes.to_string())
            }
            Step::Connected(number) => {
                let stream = self.streams[number].stream.as_ref().expect("an open stream");
                self.net
                    .connected(stream)
                    .map_or_else(|error| name(&error), |connected| connected.to_string())
            }
            Step::Peer(number) => {
                let held = &self.streams[number];
                let stream = held.stream.as_ref().expect("an open stream");
                let client = held.client.and_then(|client| self.far.address(&self.net, client));
                match self.net.peer_address(stream) {
                    Ok(peer) => format!("right: {}", Some(peer) == held.dialled.or(client)),
                    Err(error) => name(&error),
                }
            }
            Step::SameFile(one, other) => {
                (self.streams[one].file == self.streams[other].file).to_string()
            }
            _ => unreachable!("{step:?}"),
        }
    }

    pub(super) fn read(&mut self, number: usize, most: usize) -> io::Result<usize> {
        let held = &mut self.streams[number];
        let stream = held.stream.as_mut().expect("an open stream");
        let mut bytes = vec![0; most];
        let length = self.net.read(stream, &mut bytes)?;
        let sender = held.client.map_or(0, |client| client + 100);
        let right =
            bytes[..length].iter().zip(held.read..).all(|(&byte, at)| byte == pattern(sender, at));
        assert!(right, "stream {number} reads bytes that were not sent");
        held.read += length;
        Ok(length)
    }

    pub(super) fn write(&mut self, number: usize, length: usize) -> io::Result<usize> {
        let held = &mut self.streams[number];
        let stream = held.stream.as_mut().expect("an open stream");
        let receiver = held.client.unwrap_or_default();
        let bytes: Vec<u8> =
            (held.written..held.written + length).map(|at| pattern(receiver, at)).collect();
        let length = self.net.write(stream, &bytes)?;
        held.written += length;
        Ok(length)
    }

    fn on_datagrams(&mut self, step: Step) -> String {
        match step {
            Step::Bind(address) => {
                let token = Token::socket(self.sockets.len() as u8);
                match self.net.bind(address.parse().unwrap(), token) {
                    Ok(socket) => {
                        let at = self.net.socket_address(&socket).unwrap();
                        self.sockets.push((Some(socket), at));
                        format!("has a port: {}", at.port() > 0)
                    }
                    Err(error) => name(&error),
                }
            }
            Step::Unbind(socket) => {
                let socket = self.sockets[socket].0.take().expect("a bound socket");
                self.net.close_socket(socket);
                String::new()
            }
            Step::Receive(socket) => {
                let socket = self.sockets[socket].0.as_ref().expect("a bound socket");
                match self.net.receive(socket, &mut self.batch) {
                    Ok(count) => self.received(count),
                    Err(error) => name(&error),
                }
            }
            Step::Answer(socket, to, lengths) => {
                let to = self.far_sockets[to];
                self.send_all(
                    socket,
                    &lengths.iter().map(|&length| (to, length)).collect::<Vec<_>>(),
                )
            }
            Step::Tell(socket, to) => self.send_all(socket, &[(self.sockets[to].1, 7)]),
            Step::SendTo(socket, to) => self.send_all(socket, &[(to.parse().unwrap(), 7)]),
            _ => unreachable!("{step:?}"),
        }
    }

    /// Describes a received batch: the count, then the bytes and the sender of each datagram.
    fn received(&mut self, count: usize) -> String {
        let datagrams = (0..count).map(|index| {
            let from = self.batch.source(index).to_socket_addr().map_or(0, |from| from.port());
            let far = self.far_sockets.iter().position(|at| at.port() == from);
            let own = self.sockets.iter().position(|(_, at)| at.port() == from);
            format!("{} from {far:?} {own:?}", summary(self.batch.exchange(index).0))
        });
        let datagrams: Vec<String> = datagrams.collect();
        format!("{count}: {}", datagrams.join(", "))
    }

    /// Sends a batch as the loop does. It continues behind the last datagram sent, and an error
    /// concerns the first datagram that is left.
    fn send_all(&mut self, socket: usize, datagrams: &[(SocketAddr, usize)]) -> String {
        self.batch.clear();
        for &(to, length) in datagrams {
            let bytes: Vec<u8> = (0..length).map(|at| pattern(length, at)).collect();
            assert!(self.batch.queue(to, &bytes));
        }
        let socket = self.sockets[socket].0.as_ref().expect("a bound socket");
        let (mut shown, mut first) = (Vec::new(), 0);
        while first < datagrams.len() {
            match self.net.send(socket, &mut self.batch, first) {
                Ok(count) => {
                    shown.push(format!("{count} sent"));
                    first += count;
                }
                Err(error) => {
                    shown.push(name(&error));
                    first += 1;
                }
            }
        }
        shown.join(", ")
    }
}

pub(super) fn stream_token(number: usize) -> Token {
    Token::connection(number as u32, Generation::FIRST)
}

/// Returns byte number `at` of a sender. Lost, repeated or swapped bytes do not match it.
pub(super) fn pattern(sender: usize, at: usize) -> u8 {
    (at.wrapping_mul(167) ^ (at >> 8) ^ sender.wrapping_mul(59)) as u8
}

/// Returns the length and a checksum.
pub(super) fn summary(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("{}/{sum:x}", bytes.len())
}

/// Returns the name of an error, such as EAGAIN.
pub(super) fn name(error: &io::Error) -> String {
    let number = match error.raw_os_error() {
        None if error.kind() == io::ErrorKind::WouldBlock => return "EAGAIN".into(),
        number => number.unwrap_or_else(|| panic!("{error} has no number")),
    };
    let known = [
        (libc::EAGAIN, "EAGAIN"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EPIPE, "EPIPE"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::EMFILE, "EMFILE"),
        (libc::EMSGSIZE, "EMSGSIZE"),
        (libc::EINVAL, "EINVAL"),
        (libc::EADDRINUSE, "EADDRINUSE"),
    ];
    known
        .iter()
        .find(|&&(of, _)| of == number)
        .map_or_else(|| format!("{error}"), |&(_, name)| name.into())
}

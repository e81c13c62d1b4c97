//! The loop's files in the simulation: their numbers, their addresses, and readiness as epoll
//! reports it.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::connection::{Side, SimConnection};
use super::{ClientId, SimNet, Stream, os_error};
use crate::limits::EVENTS_PER_POLL;
use crate::net::Ready;
use crate::sys::errno;
use crate::token::Token;

/// One open file of the loop, registered with epoll.
pub(super) struct File {
    pub(super) token: Token,
    /// The count of this opening. It distinguishes the file from earlier owners of its number.
    opened: u64,
    /// True while the file is on the ready list, which holds it at most once.
    woken: bool,
    /// True if the next poll reports the file even without a reason.
    pub(super) spurious: bool,
    pub(super) kind: FileKind,
}

pub(super) enum FileKind {
    Listener { address: SocketAddr, queue: VecDeque<ClientId>, backlog: u32 },
    Stream { client: ClientId, watches_writable: bool },
    Socket { address: SocketAddr, queue: VecDeque<(SocketAddr, Vec<u8>)> },
}

/// The simulated kernel's state of a stream of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// True if bytes, the end of the stream or an error wait to be read.
    pub has_unread: bool,
    /// Number of bytes that wait to be read.
    pub unread: usize,
    /// True if the stream is on the ready list.
    pub edge_is_due: bool,
    /// True if the stream will get an edge when there is enough room to write.
    pub room_is_due: bool,
    /// True if the peer has shut its side or reset the stream.
    pub has_ended: bool,
}

/// The kernel's view, which simulations compare with the loop's.
impl SimNet {
    /// Returns the kernel's state of a stream.
    pub fn readiness(&self, stream: &Stream) -> Readiness {
        let (file, connection) = (self.file(stream.0), self.connection(self.client_of(stream.0)));
        let has_ended = connection.fin_arrived || connection.broken;
        Readiness {
            unread: connection.inbound.len(),
            has_unread: !connection.inbound.is_empty() || has_ended,
            edge_is_due: file.woken,
            room_is_due: connection.wants_room,
            has_ended,
        }
    }

    /// Returns the client at the far end of a stream.
    pub fn client_at(&self, stream: &Stream) -> ClientId {
        self.client_of(stream.0)
    }
}

/// Files and readiness.
impl SimNet {
    pub(super) fn lowest_free_file(&self) -> io::Result<u32> {
        let file = self.free.first().copied().unwrap_or(self.files.len() as u32);
        if file as usize >= self.file_limit { Err(os_error(errno::EMFILE)) } else { Ok(file) }
    }

    pub(super) fn open(&mut self, token: Token, kind: FileKind) -> io::Result<u32> {
        let file = self.lowest_free_file()?;
        self.files_opened += 1;
        let open =
            Some(File { token, opened: self.files_opened, woken: false, spurious: false, kind });
        if self.free.remove(&file) {
            self.files[file as usize] = open
        } else {
            self.files.push(open)
        }
        Ok(file)
    }

    pub(super) fn release(&mut self, file: u32) {
        if self.chance(self.faults.stale_event) {
            let token = self.file(file).token;
            self.stale.push(Ready {
                token,
                readable: true,
                writable: self.random.bool(),
                read_on: self.random.bool(),
            });
        }
        self.files[file as usize] = None;
        self.free.insert(file);
    }

    /// Wakes a random file for no reason, if its number is in use.
    pub(super) fn wake_any_file_for_nothing(&mut self) {
        let file = self.random.u32(0..self.files.len() as u32);
        if let Some(open) = &mut self.files[file as usize] {
            open.spurious = true;
            self.wake(file);
        }
    }

    /// Puts a file on the ready list.
    pub(super) fn wake(&mut self, file: u32) {
        let open = self.file_mut(file);
        if !std::mem::replace(&mut open.woken, true) {
            let opened = open.opened;
            self.wakes.push_back((file, opened));
        }
    }

    pub(super) fn wake_client_file(&mut self, client: ClientId) {
        if let Side::Open(file) = self.connection(client).side {
            self.wake(file);
        }
    }

    /// Wakes a file that is already ready when it is registered or registered again.
    pub(super) fn wake_if_ready(&mut self, file: u32) {
        let state = self.state(file);
        if state.readable || state.writable {
            self.wake(file);
        }
    }

    /// Wakes a stream after its client made room. It needs a wake-up only if a write lacked room,
    /// and only once there is enough.
    pub(super) fn announce_room(&mut self, client: ClientId) {
        let connection = self.connection_mut(client);
        if connection.wants_room
            && connection.has_room()
            && let Side::Open(file) = connection.side
        {
            connection.wants_room = false;
            if let FileKind::Stream { watches_writable: true, .. } = self.file(file).kind {
                self.wake(file);
            }
        }
    }

    /// Moves events from the ready list into `ready`, at most one poll's worth. Returns false when
    /// there was none.
    pub(super) fn report(&mut self, ready: &mut Vec<Ready>) -> bool {
        let start = ready.len();
        if std::mem::take(&mut self.signals_edge) {
            ready.push(Ready {
                token: Token::SIGNALS,
                readable: true,
                writable: false,
                read_on: false,
            });
        }
        ready.extend(self.dialled.report());
        while ready.len() - start < EVENTS_PER_POLL
            && let Some((file, opened)) = self.wakes.pop_front()
        {
            match &mut self.files[file as usize] {
                Some(open) if open.opened == opened => open.woken = false,
                // Closing a file takes it off the list.
                _ => continue,
            }
            // The event carries the present state, so input that was read since the wake-up is not
            // reported.
            let mut event = self.state(file);
            event.readable |= std::mem::take(&mut self.file_mut(file).spurious);
            if event.readable || event.writable {
                ready.push(event);
            }
        }
        if self.faults.shuffled_events {
            self.random.shuffle(&mut ready[start..]);
        }
        ready.len() > start
    }

    /// Returns a file's present readiness, limited to the watched directions.
    fn state(&mut self, file: u32) -> Ready {
        let open = self.file(file);
        let mut state =
            Ready { token: open.token, readable: false, writable: false, read_on: false };
        match &open.kind {
            FileKind::Listener { queue, .. } => state.readable = !queue.is_empty(),
            FileKind::Socket { queue, .. } => state.readable = !queue.is_empty(),
            &FileKind::Stream { client, watches_writable } => {
                let connection = self.connection_mut(client);
                // Polling without finding room makes the kernel announce it later (tcp_poll sets
                // SOCK_NOSPACE).
                connection.wants_room |= !connection.has_room();
                let hung_up = connection.broken || connection.fin_arrived && connection.shut;
                if let Side::Open(_) = connection.side {
                    state.read_on = connection.fin_arrived || hung_up;
                    state.readable = !connection.inbound.is_empty() || state.read_on;
                    let writable = connection.has_room() || connection.shut;
                    state.writable = hung_up || watches_writable && writable;
                }
            }
        }
        state
    }

    pub(super) fn file(&self, file: u32) -> &File {
        self.files[file as usize].as_ref().expect("the file is open")
    }

    pub(super) fn file_mut(&mut self, file: u32) -> &mut File {
        self.files[file as usize].as_mut().expect("the file is open")
    }

    pub(super) fn accept_queue_of(&mut self, file: u32) -> (&mut VecDeque<ClientId>, u32) {
        let FileKind::Listener { queue, backlog, .. } = &mut self.file_mut(file).kind else {
            unreachable!("a listener")
        };
        (queue, *backlog)
    }

    pub(super) fn datagrams_of(&mut self, file: u32) -> &mut VecDeque<(SocketAddr, Vec<u8>)> {
        let FileKind::Socket { queue, .. } = &mut self.file_mut(file).kind else {
            unreachable!("a socket")
        };
        queue
    }

    pub(super) fn client_of(&self, file: u32) -> ClientId {
        let FileKind::Stream { client, .. } = self.file(file).kind else {
            unreachable!("a stream")
        };
        client
    }

    pub(super) fn stream_mut(&mut self, stream: &Stream) -> &mut SimConnection {
        self.connection_mut(self.client_of(stream.0))
    }

    pub(super) fn connection(&self, client: ClientId) -> &SimConnection {
        &self.connections[client.0 as usize]
    }

    pub(super) fn connection_mut(&mut self, client: ClientId) -> &mut SimConnection {
        &mut self.connections[client.0 as usize]
    }
}

/// The first port for port 0, as on Linux (net.ipv4.ip_local_port_range).
pub(super) const FIRST_FREE_PORT: u16 = 32_768;

/// Returns the file bound to `address`, or bound to its port on the unspecified address.
pub(super) fn find(bound: &[(SocketAddr, u32)], address: SocketAddr) -> Option<u32> {
    let everywhere = |at: SocketAddr| at.ip().is_unspecified() && at.is_ipv4() == address.is_ipv4();
    let fits =
        |at: SocketAddr| at.port() == address.port() && (at.ip() == address.ip() || everywhere(at));
    bound.iter().find(|&&(at, _)| fits(at)).map(|&(_, file)| file)
}

/// Returns the address to bind, with a free port in place of 0. Fails with AddrInUse if a bound
/// address overlaps it.
pub(super) fn claim(
    bound: &[(SocketAddr, u32)],
    address: SocketAddr,
    port_next: &mut u16,
) -> io::Result<SocketAddr> {
    let overlaps = |at: SocketAddr, port: u16| {
        let any = at.ip().is_unspecified() || address.ip().is_unspecified();
        at.port() == port && at.is_ipv4() == address.is_ipv4() && (any || at.ip() == address.ip())
    };
    let is_free = |port: u16| !bound.iter().any(|&(at, _)| overlaps(at, port));
    let port = if address.port() != 0 {
        Some(address.port()).filter(|&port| is_free(port))
    } else {
        (*port_next..=u16::MAX).chain(FIRST_FREE_PORT..*port_next).find(|&port| is_free(port))
    };
    let port = port.ok_or_else(|| os_error(errno::EADDRINUSE))?;
    if address.port() == 0 {
        *port_next = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
    }
    Ok(SocketAddr::new(address.ip(), port))
}

/// Returns a sender's address as its receiver sees it: loopback in place of the unspecified
/// address.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        _ if !address.ip().is_unspecified() => address,
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
    }
}

//! The loop's files in the simulation: their numbers, what is bound where, and readiness as epoll tells it.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::connection::{Side, SimConnection};
use super::{ClientId, SimNet, Stream, os_error};
use crate::limits::EVENTS_PER_POLL;
use crate::net::Ready;
use crate::sys::errno;
use crate::token::Token;

/// One open file of the loop, registered with its poll system.
pub(super) struct File {
    pub(super) token: Token,
    /// Tells this owner of the number from earlier ones.
    opened: u64,
    /// On the ready list, where it stands once however much happens to it.
    woken: bool,
    /// The next event is reported though there is nothing to it.
    pub(super) spurious: bool,
    pub(super) kind: FileKind,
}

pub(super) enum FileKind {
    Listener { address: SocketAddr, queue: VecDeque<ClientId>, backlog: u32 },
    Stream { client: ClientId, watches_writable: bool },
    Socket { address: SocketAddr, queue: VecDeque<(SocketAddr, Vec<u8>)> },
}

/// What the simulated kernel knows of a stream of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes, the end of the stream or an error wait to be read.
    pub has_unread: bool,
    /// So many bytes.
    pub unread: usize,
    /// The next poll looks at it.
    pub edge_is_due: bool,
    /// It will be told of room once there is enough.
    pub room_is_due: bool,
    /// The peer has shut its side, or the stream is broken.
    pub has_ended: bool,
}

/// What simulations hold against what the loop believes.
impl SimNet {
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

    /// Whose stream it is.
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
        let open = Some(File { token, opened: self.files_opened, woken: false, spurious: false, kind });
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
            self.stale.push(Ready { token, readable: true, writable: self.random.bool(), read_on: self.random.bool() });
        }
        self.files[file as usize] = None;
        self.free.insert(file);
    }

    /// Something happened to this file: the next poll looks at it.
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

    /// What was ready before a file was registered, or registered anew, is reported too.
    pub(super) fn wake_if_ready(&mut self, file: u32) {
        let state = self.state(file);
        if state.readable || state.writable {
            self.wake(file);
        }
    }

    /// A client made room. That is news only to a stream that found too little of it, and only once there is enough.
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

    /// Empties the ready list into `ready`, as much as one poll takes. False when there was nothing.
    pub(super) fn report(&mut self, ready: &mut Vec<Ready>) -> bool {
        let start = ready.len();
        if std::mem::take(&mut self.signals_edge) {
            ready.push(Ready { token: Token::SIGNALS, readable: true, writable: false, read_on: false });
        }
        while ready.len() - start < EVENTS_PER_POLL
            && let Some((file, opened)) = self.wakes.pop_front()
        {
            match &mut self.files[file as usize] {
                Some(open) if open.opened == opened => open.woken = false,
                // Closing a file takes it off the list.
                _ => continue,
            }
            // The state counts as it is now: what was dealt with since the wake-up is not reported.
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

    /// What a file is ready for at present, of what it is watched for.
    fn state(&mut self, file: u32) -> Ready {
        let open = self.file(file);
        let mut state = Ready { token: open.token, readable: false, writable: false, read_on: false };
        match &open.kind {
            FileKind::Listener { queue, .. } => state.readable = !queue.is_empty(),
            FileKind::Socket { queue, .. } => state.readable = !queue.is_empty(),
            &FileKind::Stream { client, watches_writable } => {
                let connection = self.connection_mut(client);
                // Looking is what makes the kernel announce room later (tcp_poll sets SOCK_NOSPACE).
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
        let FileKind::Socket { queue, .. } = &mut self.file_mut(file).kind else { unreachable!("a socket") };
        queue
    }

    pub(super) fn client_of(&self, file: u32) -> ClientId {
        let FileKind::Stream { client, .. } = self.file(file).kind else { unreachable!("a stream") };
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

/// Where made-up ports begin: the first that Linux hands out (net.ipv4.ip_local_port_range).
pub(super) const FIRST_FREE_PORT: u16 = 32_768;

/// The file bound to `address`, or to its port on every address of its family.
pub(super) fn find(bound: &[(SocketAddr, u32)], address: SocketAddr) -> Option<u32> {
    let everywhere = |at: SocketAddr| at.ip().is_unspecified() && at.is_ipv4() == address.is_ipv4();
    let fits = |at: SocketAddr| at.port() == address.port() && (at.ip() == address.ip() || everywhere(at));
    bound.iter().find(|&&(at, _)| fits(at)).map(|&(_, file)| file)
}

/// The address to bind, with a free port when none is asked for; AddrInUse when another overlaps.
pub(super) fn claim(bound: &[(SocketAddr, u32)], address: SocketAddr, port_next: &mut u16) -> io::Result<SocketAddr> {
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

/// A sender's address as its receiver sees it: one that can be answered to.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        _ if !address.ip().is_unspecified() => address,
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
    }
}

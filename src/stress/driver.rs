//! The load generator's loop: a second readiness loop on the server's network seam.
//!
//! It mirrors the loop of the server. The server accepts connections; the driver dials them. The
//! server parses a request and answers; the driver finds the end of an answer and sends the next
//! request. [`Driver::turn`] is the whole loop, as nine named phases.
//!
//! The driver decides nothing about the load. A [`Shape`] decides which connections to dial, what
//! to send and when to close. It acts once per turn, in phase 7, and is called when something
//! happens: a connection opens, an answer completes, a timer fires, a connection ends. A shape
//! never sees a socket. It acts through the [`World`], which owns the connections.
//!
//! Two things differ from the server:
//! - The driver reads the clock again for each ready connection, not once per turn. Otherwise its
//!   own work during the turn would count as latency of the server.
//! - The driver writes the next request as soon as an answer is complete, not at the end of the
//!   turn. Otherwise driver and server would work by turns, and each would sleep half of the time.

use std::io;
use std::time::Duration;

use super::meter::reason;
use super::pace::Next;
use super::record::Record;
use super::shape::Shape;
use super::wire::Incoming;
use super::world::{Peer, PeerFlags, World};
use crate::clock::Time;
use crate::net::{Net, Signal};
use crate::token::Source;

/// Maximum number of reads from one connection in a turn.
const READS_PER_TURN: usize = 8;

/// The shortest wait of epoll_wait(2), which counts whole milliseconds.
const COARSE_WAIT: Duration = Duration::from_millis(1);

/// Time by which epoll_wait(2) may return late. The driver asks for a wait that ends this much
/// early, and for the rest of it exactly.
const OVERSLEPT: Duration = Duration::from_micros(200);

/// The loop: the connections, and the shape that decides about them.
pub struct Driver<N: Net> {
    pub world: World<N>,
    pub(super) shape: Box<dyn Shape<N>>,
    next: Next,
    /// Latest moment to return from a poll, because the next sample is due.
    pub wakes_by: Time,
    pub interrupted: bool,
    /// UDP sockets that have datagrams to receive.
    receivable: Vec<u8>,
    /// Scratch space to join the parts of an answer.
    pub(super) joined: Vec<u8>,
}

impl<N: Net> Driver<N> {
    pub fn new(world: World<N>, shape: Box<dyn Shape<N>>) -> Driver<N> {
        let now = world.now;
        Driver {
            world,
            shape,
            next: Next::At(now),
            wakes_by: now,
            interrupted: false,
            receivable: Vec::new(),
            joined: Vec::new(),
        }
    }

    /// Runs one turn of the loop. Returns false when the shape is done or a signal arrived. Fails
    /// only if the poll fails.
    pub fn turn(&mut self) -> io::Result<bool> {
        self.read_clock();
        let timeout = self.poll_timeout(); // 1
        self.poll(timeout)?; //               2
        self.read_clock(); //                 3
        self.serve_connections(); //          4
        self.serve_datagrams(); //            5
        self.expire_timers(); //              6
        self.act(); //                        7
        self.flush(); //                      8
        self.reap(); //                       9
        Ok(self.next != Next::Done && !self.interrupted)
    }

    /// Ends the load after a signal. The shape counts outstanding requests without waiting for
    /// them.
    pub fn stop(&mut self) {
        self.shape.stop(&mut self.world);
    }

    /// Adds the shape's own results to the record.
    pub fn finish(&mut self, record: &mut Record) {
        self.shape.finish(&mut self.world, record);
    }

    /// Phase 1: returns zero if work was carried over, else the time until the shape, a timer or a
    /// sample is due.
    fn poll_timeout(&self) -> Duration {
        let world = &self.world;
        if !world.ready.is_empty() || !world.flushes.is_empty() {
            return Duration::ZERO;
        }
        let mut wait = self.wakes_by.since(world.now);
        if let Next::At(time) = self.next {
            wait = wait.min(time.since(world.now));
        }
        if let Some(tick) = world.timers.next_fires() {
            wait = wait.min(tick.wait_from(world.now));
        }
        wait
    }

    /// Phase 2: polls, and puts the ready connections on the work list.
    fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        let world = &mut self.world;
        let coarse = Duration::from_millis(timeout.saturating_sub(OVERSLEPT).as_millis() as u64);
        if !timeout.is_zero() && coarse < COARSE_WAIT {
            world.net.wait(timeout)?;
        }
        let mut events = std::mem::take(&mut world.events);
        events.clear();
        world.net.poll(&mut events, Some(coarse))?;
        for event in &events {
            match event.token.source() {
                Source::Connection { slot, generation } => {
                    let Some(peer) = world.peers.get_mut(slot as usize) else { continue };
                    if peer.generation.get() == generation {
                        if event.writable {
                            peer.flags.clear(PeerFlags::BLOCKED);
                        }
                        if event.read_on {
                            peer.flags.set(PeerFlags::ENDING);
                        }
                        world.enqueue(slot);
                    }
                }
                Source::Socket(index) => self.receivable.push(index),
                Source::Signals => {
                    // SIGHUP (`Reload`) also ends the run, because a flood must end with its
                    // terminal.
                    let signals = world.net.signals();
                    self.interrupted |=
                        signals.contains(&Signal::Stop) || signals.contains(&Signal::Reload);
                }
                Source::Listener(_) | Source::Names => {}
            }
        }
        world.events = events;
        Ok(())
    }

    /// Phase 3: reads the clock. Phases 4 and 5 read it again before each connection or socket.
    fn read_clock(&mut self) {
        self.world.now = self.world.net.now();
    }

    /// Phase 4: serves the connections that became established, readable or writable.
    fn serve_connections(&mut self) {
        for _ in 0..self.world.ready.len() {
            let Some(token) = self.world.ready.pop_front() else { break };
            let Source::Connection { slot, generation } = token.source() else { continue };
            let Some(peer) = self.world.peers.get_mut(slot as usize) else { continue };
            if peer.generation.get() != generation || peer.flags.has(PeerFlags::CLOSED) {
                continue;
            }
            peer.flags.clear(PeerFlags::QUEUED);
            self.read_clock();
            let peer = &self.world.peers[slot as usize];
            if peer.flags.has(PeerFlags::CONNECTING) && !self.establish(slot) {
                continue;
            }
            let peer = &self.world.peers[slot as usize];
            if self.world.pool.len(&peer.output) > 0 && !peer.flags.has(PeerFlags::BLOCKED) {
                self.world.flushes.push(slot);
            }
            match peer.flags.has(PeerFlags::UNREAD) {
                true => self.look_for_end(slot),
                false => self.read(slot),
            }
            // The next request leaves now, so that the server works while this turn goes on.
            self.flush();
        }
    }

    /// Phase 5: lets the shape receive the datagrams at its sockets.
    fn serve_datagrams(&mut self) {
        while let Some(index) = self.receivable.pop() {
            self.read_clock();
            self.shape.datagrams(&mut self.world, index);
        }
    }

    /// Checks whether a connect has completed. If so, sends the prelude or reports the connection
    /// to the shape, and returns true.
    fn establish(&mut self, slot: u32) -> bool {
        let world = &mut self.world;
        let peer = &mut world.peers[slot as usize];
        match world.net.connected(&peer.stream) {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => {
                self.fail(slot, &reason(&error));
                return false;
            }
        }
        peer.flags.clear(PeerFlags::CONNECTING);
        world.meter.connect_latency.record(world.now.since(peer.dialled), 1);
        world.meter.connecting -= 1;
        world.meter.open += 1;
        world.meter.open_at_peak = world.meter.open_at_peak.max(world.meter.open);
        if matches!(peer.incoming, Incoming::Courier(_)) {
            world.flush_later(slot);
            return true;
        }
        let is_bare = peer.flags.has(PeerFlags::UNREAD) || peer.flags.has(PeerFlags::BARE);
        if world.wire.prelude_answers > 0 && !is_bare {
            world.say_prelude(slot);
        } else {
            world.meter.opened += 1;
            self.shape.opened(world, slot);
        }
        true
    }

    /// Reads from a connection within its budget, and takes the answers one by one.
    fn read(&mut self, slot: u32) {
        for _ in 0..READS_PER_TURN {
            let world = &mut self.world;
            let Some(peer) = world.peers.get_mut(slot as usize) else { return };
            if peer.flags.has(PeerFlags::CLOSED) {
                return;
            }
            let length = match world.net.read(&mut peer.stream, &mut world.chunk) {
                Ok(0) => return self.ended_by_server(slot, None),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.ended_by_server(slot, Some(error)),
            };
            world.meter.bytes_in += length as u64;
            // A short read has drained the socket. The end of the connection may be behind it if
            // the same event told of it; a later end is an event of its own.
            let is_drained = length < world.chunk.len() && !peer.flags.has(PeerFlags::ENDING);
            if !peer.flags.has(PeerFlags::DISCARDS) {
                self.take(slot, length);
            }
            if is_drained {
                return;
            }
        }
        self.world.enqueue(slot);
    }

    /// Checks without reading whether the server has closed a connection that its shape leaves
    /// unread.
    fn look_for_end(&mut self, slot: u32) {
        let world = &mut self.world;
        let peer = &world.peers[slot as usize];
        if peer.flags.has(PeerFlags::CLOSED) {
            return;
        }
        match world.net.connected(&peer.stream) {
            Err(error) => self.ended_by_server(slot, Some(error)),
            Ok(_) if peer.flags.has(PeerFlags::ENDING) => self.ended_by_server(slot, None),
            Ok(_) => {}
        }
    }

    /// Phase 6: wakes shapes and ends requests whose timers are due.
    fn expire_timers(&mut self) {
        let tick = self.world.now.tick();
        while let Some(slot) = self.world.timers.poll_expired(tick) {
            let world = &mut self.world;
            let Some(peer) = world
                .peers
                .get_mut(slot as usize)
                .filter(|peer| !peer.flags.has(PeerFlags::CLOSED))
            else {
                continue;
            };
            if peer.wakes.is_some_and(|wakes| wakes.distance_from(tick) <= 0) {
                peer.wakes = None;
                self.shape.woken(world, slot);
            }
            let Some(peer) = self.world.peers.get(slot as usize) else { continue };
            match self.world.deadline(peer) {
                Some(due) if due.distance_from(tick) <= 0 && !peer.flags.has(PeerFlags::CLOSED) => {
                    self.time_out(slot)
                }
                _ => self.world.arm(slot),
            }
        }
    }

    fn time_out(&mut self, slot: u32) {
        let world = &mut self.world;
        let Peer { flags, outstanding, due, .. } = world.peers[slot as usize];
        if flags.has(PeerFlags::CONNECTING) || flags.has(PeerFlags::PRELUDE) {
            return self.fail(slot, "timeout");
        }
        // The requests took at least this long. Without this entry, the worst times would be
        // missing.
        world.meter.latency.record(world.now.since(due), u64::from(outstanding));
        self.end(slot, "timeout");
    }

    /// Phase 7: lets the shape dial, send and close.
    fn act(&mut self) {
        self.next = self.shape.act(&mut self.world);
    }

    /// Phase 8: writes to each connection that has output, once.
    fn flush(&mut self) {
        let mut flushes = std::mem::take(&mut self.world.flushes);
        for slot in flushes.drain(..) {
            if let Err(error) = self.world.write(slot) {
                self.ended_by_server(slot, Some(error));
            }
        }
        // Connections that were added meanwhile wait for the next flush.
        flushes.append(&mut self.world.flushes);
        self.world.flushes = flushes;
    }

    /// Phase 9: frees the connections that closed during the turn.
    fn reap(&mut self) {
        let world = &mut self.world;
        while let Some(slot) = world.closed.pop() {
            let mut peer = world.peers.remove(slot as usize);
            world.timers.disarm(slot);
            world.pool.release(&mut peer.input);
            world.pool.release(&mut peer.output);
            match peer.flags.has(PeerFlags::RESETS) {
                true => world.net.reset(peer.stream),
                false => world.net.close(peer.stream),
            }
        }
    }
}

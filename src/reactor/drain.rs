//! The drain: accepted connections close first, and dialled ones when all others are gone.

use super::core::{Core, LoopTimer};
use crate::connection::Flags;
use crate::net::Net;

impl<N: Net> Core<N> {
    /// Starts a drain. It closes the listeners and datagram sockets, and queues every accepted
    /// connection. Each connection gets the answers to input that has arrived and its pending
    /// output, and then closes. Dialled connections follow when all others are gone, because what
    /// clients have sent may have to go there.
    pub(super) fn drain(&mut self) {
        // A second request must not postpone the end of the drain.
        if self.draining_since.is_some() {
            return;
        }
        self.draining_since = Some(self.now);
        for listener in self.listeners.drain(..) {
            self.net.close_listener(listener.handle);
        }
        for socket in self.sockets.drain(..) {
            self.net.close_socket(socket.handle);
        }
        self.carry.acceptable.clear();
        self.carry.receivable.clear();
        self.arm_loop_timer(LoopTimer::DrainTimeout, self.limits.drain_timeout, self.now);
        for slot in self.slots() {
            if !self.connections[slot as usize].is_dialled() {
                self.drain_one(slot);
            }
        }
        self.drain_dialled();
    }

    /// Makes a connection close once its input is served.
    pub(super) fn drain_one(&mut self, slot: u32) {
        let flags = &mut self.connections[slot as usize].flags;
        flags.set(Flags::DRAINING);
        flags.set(Flags::READABLE);
        self.enqueue(slot);
    }

    /// Goes on with a drain when only dialled connections are left: they close, too.
    pub(super) fn drain_dialled(&mut self) {
        let is_last = self.draining_since.is_some() && !self.dials.has_stopped;
        if !is_last || self.connections.len() > self.admission.sources.dialled() {
            return;
        }
        self.stop_dials();
        for slot in self.slots() {
            self.drain_one(slot);
        }
    }
}

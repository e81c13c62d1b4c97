//! The clients that poll: when each of them asks and posts, and the connections that carry a post
//! while a poll waits on the client's own.

use std::io;

use super::driver::Driver;
use super::http::Reader;
use super::plan::COURIERS_MAX;
use super::socketio::polling::{Courier, PollStep, PollingPeer};
use super::wire::Incoming;
use super::world::{Peer, PeerFlags, StressDial, World};
use crate::buffer::Use;
use crate::net::Net;
use crate::token::{Source, Token};

impl<N: Net> World<N> {
    /// Sends a packet of Engine.IO, which the server will give `answers` answers to.
    pub fn emit(&mut self, slot: u32, packet: &[u8], answers: u32) {
        match self.wire.websocket().map(|form| form.message(packet)) {
            Some(frame) => self.send(slot, &frame, answers, self.now),
            None => {
                self.send(slot, &[], answers, self.now);
                if let Some(polls) = self.polls(slot) {
                    polls.push(packet);
                }
            }
        }
    }

    /// Leaves the namespace, and ends a session that polls.
    pub(super) fn disconnect(&mut self, slot: u32) {
        let Some(form) = self.wire.socketio() else { return };
        let frames = form.websocket().map(|frames| frames.message(&form.disconnect()));
        let peer = self.peers.get_mut(slot as usize);
        let polls = || peer?.incoming.polls().map(|polls| polls.farewell(form));
        if let Some(bytes) = frames.or_else(polls) {
            self.send(slot, &bytes, 0, self.now);
        }
    }

    /// Returns the polls of a connection that is open, if its client polls.
    fn polls(&mut self, slot: u32) -> Option<&mut PollingPeer> {
        let peer = self.peers.get_mut(slot as usize)?;
        (!peer.flags.has(PeerFlags::CLOSED)).then(|| peer.incoming.polls()).flatten()
    }

    /// Lets a client that polls ask for more, once it has an answer.
    pub(super) fn poll_on(&mut self, slot: u32) {
        if self.polls(slot).is_some_and(|polls| polls.is_free()) {
            self.flush_later(slot);
        }
    }

    /// Puts out the next request of a client that polls. Fails if no courier can be dialled.
    pub(super) fn poll(&mut self, slot: u32) -> io::Result<()> {
        let Some(form) = self.wire.socketio() else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(slot as usize) else { return Ok(()) };
        let Some(polls) = peer.incoming.polls() else { return Ok(()) };
        if peer.flags.has(PeerFlags::DISCARDS) {
            return Ok(());
        }
        for _ in 0..std::mem::take(&mut peer.to_send) {
            polls.push(self.wire.request());
        }
        match polls.step(form) {
            PollStep::Nothing => Ok(()),
            PollStep::Own(request) => {
                let appended = self.pool.append(&mut peer.output, Use::Write(slot), &request);
                appended.map_err(|_| io::ErrorKind::OutOfMemory.into())
            }
            PollStep::Courier => {
                let client = Token::connection(slot, peer.generation);
                if self.couriers.busy < COURIERS_MAX {
                    let request = polls.give_courier(form);
                    return self.dial_courier(client, &request);
                }
                if !polls.is_queued {
                    polls.is_queued = true;
                    self.couriers.waiting.push_back(client);
                }
                Ok(())
            }
        }
    }

    fn dial_courier(&mut self, client: Token, request: &[u8]) -> io::Result<()> {
        let none = io::ErrorKind::AddrNotAvailable;
        let slot = self.dial(0, StressDial { bare: true, ..StressDial::default() }).ok_or(none)?;
        let courier = Courier { client, reader: Reader::default() };
        self.peers[slot as usize].incoming = Incoming::Courier(Box::new(courier));
        self.couriers.busy += 1;
        self.send(slot, request, 1, self.now);
        self.meter.sent -= 1;
        Ok(())
    }

    /// Takes the end of a courier. Lets the next client use it. Returns the client's slot, if it
    /// is still there.
    fn end_courier(&mut self, slot: u32, client: Token) -> Option<u32> {
        self.close(slot);
        self.couriers.busy -= 1;
        while let Some(waiting) = self.couriers.waiting.pop_front() {
            if let Some(slot) = self.slot_of(waiting)
                && let Some(polls) = self.polls(slot)
            {
                polls.is_queued = false;
                self.flush_later(slot);
                break;
            }
        }
        let client = self.slot_of(client)?;
        self.polls(client)?.courier_ended();
        self.flush_later(client);
        Some(client)
    }

    /// Returns the slot of a connection that is not closed.
    fn slot_of(&self, token: Token) -> Option<u32> {
        let Source::Connection { slot, generation } = token.source() else { return None };
        let is_open = |peer: &Peer<N::Stream>| {
            peer.generation.get() == generation && !peer.flags.has(PeerFlags::CLOSED)
        };
        self.peers.get(slot as usize).is_some_and(is_open).then_some(slot)
    }
}

impl<N: Net> Driver<N> {
    /// Takes the end of a connection, if it is a courier: `failure` is the reason, or `None` after
    /// an answer. A client whose courier failed ends, too.
    pub(super) fn ends_courier(&mut self, slot: u32, failure: Option<&str>) -> bool {
        let world = &mut self.world;
        let peer = &world.peers[slot as usize];
        let Incoming::Courier(courier) = &peer.incoming else { return false };
        let client = courier.client;
        if !peer.flags.has(PeerFlags::CLOSED)
            && let Some(client) = world.end_courier(slot, client)
            && let Some(kind) = failure
        {
            self.end(client, kind);
        }
        true
    }
}

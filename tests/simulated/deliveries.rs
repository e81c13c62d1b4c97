//! Deliveries: output of a service for other connections than the one it is serving. The subjects
//! are order, budgets and slow consumers.

use std::collections::VecDeque;

use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::ClientId;
use slabd::service::server::{Parting, Server};
use slabd::service::{ConnectionId, Output, Reply, Service, Taken, receive_line};

use crate::sim::{self, Sim, limits};

/// A service that sends every line to all connections, one delivery at a time.
#[derive(Default)]
struct Party {
    guests: Vec<ConnectionId>,
    /// Pending lines, each with the number of guests that have it.
    waiting: VecDeque<(Vec<u8>, usize)>,
}

impl Service for Party {
    fn connected(&mut self, reply: &mut Reply<'_>) {
        self.guests.extend(reply.connection);
    }

    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        receive_line(input, scanned, reply, server, |line, _reply| {
            self.waiting.push_back(([line, b"\n"].concat(), 0));
        })
    }

    fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {}

    fn closed(&mut self, connection: ConnectionId, _parting: &Parting) {
        self.guests.retain(|guest| *guest != connection);
    }

    fn has_output(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn collect(&mut self, output: &mut Output<'_>) {
        while let Some((line, next)) = self.waiting.front_mut() {
            let start = output.bytes_mut().len() as u32;
            output.bytes_mut().extend_from_slice(line);
            let range = start..output.bytes_mut().len() as u32;
            while let Some(guest) = self.guests.get(*next) {
                if !output.deliver(*guest, &range) {
                    return;
                }
                *next += 1;
            }
            self.waiting.pop_front();
        }
    }
}

/// Connects two guests and returns the first. It sends this many lines of 100 bytes, which the
/// second does not read.
fn send_to_a_guest_that_does_not_read(sim: &mut Sim, lines: usize) -> ClientId {
    let (speaker, slow) = (sim.accepted(), sim.accepted());
    sim.net().set_window(slow, 0);
    let line = format!("{}\n", "x".repeat(99));
    for _ in 0..lines {
        sim.send(speaker, &line);
        sim.turns(2);
    }
    speaker
}

#[test]
fn the_lines_of_a_turn_reach_every_guest_in_order_and_in_one_write() {
    let mut sim = Sim::new(Box::<Party>::default(), limits());
    let guests: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    let writes = sim.reactor.stats().work.writes;
    sim.send(guests[0], "one\ntwo\nthree\n");
    sim.turn();
    for guest in &guests {
        assert_eq!(sim.received(*guest), "one\ntwo\nthree\n");
    }
    assert_eq!(sim.reactor.stats().work.writes - writes, 5, "one write of three lines per guest");
}

#[test]
fn deliveries_above_the_budget_are_made_in_the_next_turn() {
    for (guests, turns) in [(3, 1), (4, 1), (5, 2), (8, 2), (9, 3)] {
        let mut sim =
            Sim::new(Box::<Party>::default(), Limits { deliveries_per_turn: 4, ..limits() });
        let guests: Vec<ClientId> = (0..guests).map(|_| sim.accepted()).collect();
        sim.send(guests[0], "x\n");
        let mut reached = 0;
        for turn in 1..=turns {
            sim.turn();
            reached +=
                guests.iter().filter(|guest| sim.net().client_received(**guest) == b"x\n").count();
            assert_eq!(
                reached,
                (4 * turn).min(guests.len()),
                "{} guests, turn {turn}",
                guests.len()
            );
        }
        sim.send(guests[0], "y\n");
        sim.turns(turns);
        assert!(guests.iter().all(|guest| sim.net().client_received(*guest) == b"y\n"));
    }
}

#[test]
fn a_slow_consumer_is_closed_above_its_output_limit_and_others_get_all() {
    for (lines, closed) in [(9, 0), (10, 0), (11, 1)] {
        let limits =
            Limits { high_watermark: 400, low_watermark: 100, output_limit: 1000, ..limits() };
        let mut sim = Sim::new(Box::<Party>::default(), limits);
        let speaker = send_to_a_guest_that_does_not_read(&mut sim, lines);
        assert_eq!(sim.closed(Reason::OutputLimit), closed, "{lines} lines of 100 bytes");
        assert_eq!(sim.received(speaker).len(), lines * 100);
        assert!(sim.reactor.ledger().write_buffers <= 1024);
    }
}

#[test]
fn the_output_to_a_slow_consumer_keeps_its_order() {
    let mut sim = Sim::new(Box::<Party>::default(), limits());
    let (speaker, slow) = (sim.accepted(), sim.accepted());
    sim.net().set_window(slow, 50);
    let mut expected = String::new();
    let mut got = String::new();
    for number in 0..200 {
        let lines = format!("{number}\nand {number}\n");
        sim.send(speaker, &lines);
        expected.push_str(&lines);
        sim.turn();
        if number % 3 == 0 {
            got.push_str(&String::from_utf8(sim.net().client_take(slow, 23)).unwrap());
        }
    }
    for _ in 0..1000 {
        sim.turn();
        got.push_str(&String::from_utf8(sim.net().client_take(slow, 23)).unwrap());
    }
    assert_eq!(got, expected);
}

/// A consumer that takes a little now and then defeats the output timeout, but not the soft limit.
#[test]
fn a_consumer_over_the_soft_limit_for_its_time_is_closed() {
    for (lines, closed) in [(4, 0), (5, 0), (6, 1)] {
        let limits = Limits {
            high_watermark: 400,
            low_watermark: 100,
            output_limit: 10_000,
            output_soft_limit: 500,
            output_soft_time: 10 * sim::SECOND,
            ..limits()
        };
        let mut sim = Sim::new(Box::<Party>::default(), limits);
        send_to_a_guest_that_does_not_read(&mut sim, lines);
        sim.pass(9 * sim::SECOND);
        assert_eq!(
            sim.closed(Reason::OutputLimit),
            0,
            "{lines} lines, before the soft limit's time"
        );
        sim.pass(3 * sim::SECOND);
        assert_eq!(sim.closed(Reason::OutputLimit), closed, "{lines} lines of 100 bytes");
    }
}

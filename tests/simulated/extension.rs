//! The extension point, tested with a protocol that uses all of it. The protocol upgrades within a
//! stream, pings by time, closes a connection from a wake-up, and keeps sessions without a
//! connection.
//!
//! A client sends `JOIN name` and a line break. Then it sends frames: one byte of length and a
//! payload masked with 0x20. The server keeps the payloads under the session's name. It sends them
//! back when a client joins again. It pings each second, and closes a connection after three
//! unanswered pings.

use std::collections::{BTreeMap, HashMap};

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::net::sim::End;
use slabd::service::server::{Parting, Server};
use slabd::service::{ConnectionId, Output, Reply, Service, Taken, receive_line};

use crate::sim::{SECOND, Sim, limits};

#[derive(Default)]
struct Keeper {
    /// The payloads of each session by its name. A session needs no connection.
    sessions: HashMap<String, Vec<u8>>,
    /// Upgraded connections: the session's name, the next ping's tick and the unanswered pings.
    joined: BTreeMap<u32, (String, Tick, u8)>,
}

impl Keeper {
    fn join(&mut self, name: String, reply: &mut Reply<'_>) {
        reply.send(self.sessions.entry(name.clone()).or_default());
        let due = reply.now.tick().plus(Tick::count(SECOND));
        self.joined.extend(reply.connection.map(|connection| (connection.0, (name, due, 0))));
    }
}

impl Service for Keeper {
    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        let Some((name, _, pings)) =
            reply.connection.and_then(|connection| self.joined.get_mut(&connection.0))
        else {
            return receive_line(input, scanned, reply, server, |line, reply| {
                match line.strip_prefix(b"JOIN ") {
                    Some(name) => self.join(String::from_utf8_lossy(name).into(), reply),
                    None => reply.close_for(Reason::ProtocolError),
                }
            });
        };
        let Some(frame) = input.get_mut(1..1 + input[0] as usize) else { return Taken::Incomplete };
        // The service unmasks the payload in place.
        frame.iter_mut().for_each(|byte| *byte ^= 0x20);
        self.sessions.entry(name.clone()).or_default().extend_from_slice(frame);
        *pings = 0;
        Taken::Message(1 + frame.len())
    }

    fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {}

    fn closed(&mut self, connection: ConnectionId, _parting: &Parting) {
        self.joined.remove(&connection.0);
    }

    fn wakes_at(&self) -> Option<Tick> {
        self.joined.values().map(|(_, due, _)| *due).min_by_key(|due| due.distance_from(Tick(0)))
    }

    fn collect(&mut self, output: &mut Output<'_>) {
        let now = output.now.tick();
        for (connection, (_, due, pings)) in &mut self.joined {
            if due.distance_from(now) > 0 {
                continue;
            }
            (*due, *pings) = (now.plus(Tick::count(SECOND)), *pings + 1);
            if *pings > 3 {
                output.close(ConnectionId(*connection));
                continue;
            }
            let start = output.bytes_mut().len() as u32;
            output.bytes_mut().extend_from_slice(b"ping ");
            output.deliver(ConnectionId(*connection), &(start..start + 5));
        }
    }
}

#[test]
fn a_service_upgrades_a_stream_pings_by_time_closes_and_keeps_the_session() {
    let mut sim = Sim::new(Box::<Keeper>::default(), limits());
    let first = sim.accepted();
    // One packet has the upgrade, a frame and a part of the next frame.
    assert_eq!(sim.exchange(first, b"JOIN me\r\n\x02HI\x03YO"), "");
    assert_eq!(sim.exchange(first, "U"), "");
    sim.pass(SECOND + 2 * Tick::LENGTH);
    assert_eq!(sim.received(first), "ping ");
    sim.send(first, b"\x01A");
    sim.pass(3 * SECOND + SECOND / 2);
    assert_eq!(sim.received(first), "ping ping ping ", "a frame answers all pings");
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(SECOND);
    assert_eq!((sim.received(first).as_str(), sim.net().client_saw(first)), ("", End::Fin));
    sim.net().client_close(first);
    sim.turns(2);
    assert_eq!((sim.closed(Reason::ServiceClosed), sim.reactor.connections()), (1, 0));
    // Another connection joins the session.
    let second = sim.accepted();
    assert_eq!(sim.exchange(second, "JOIN me\n"), "hiyoua");
    assert_eq!(sim.exchange(second, "\x00"), "", "an empty frame is complete");
    let other = sim.accepted();
    assert_eq!(sim.exchange(other, "JOIN other\n"), "");
    sim.pass(SECOND + 2 * Tick::LENGTH);
    assert_eq!((sim.received(second).as_str(), sim.received(other).as_str()), ("ping ", "ping "));
}

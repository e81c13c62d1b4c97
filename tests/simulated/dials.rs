//! Connections that the loop opens for services, beside clients.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use slabd::buffer::BufferMode;
use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::limits::{
    DIAL_ADDRESSES_MAX, DIALLED_INPUT_MAX, DIALLED_MAX, DIALLED_OUTPUT_MAX, LOOKUPS_MAX, Limits,
};
use slabd::net::sim::{ClientId, DialAnswer, End, Faults, SimNet, SystemCall};
use slabd::service::server::{Parting, Server};
use slabd::service::{ConnectionId, Dial, Output, Reply, Service, Taken, receive_line};

use crate::sim::{SECOND, Sim, limits};

/// What a caller is to do, and what it has seen.
#[derive(Default)]
struct Calls {
    dials: Vec<Dial>,
    sends: Vec<(ConnectionId, Vec<u8>)>,
    closes: Vec<ConnectionId>,
    /// True if the bytes of dialled connections make no message yet.
    waits: bool,
    outcomes: Vec<(u32, Result<SocketAddr, String>)>,
    open: Vec<ConnectionId>,
    received: Vec<u8>,
    ended: Vec<&'static str>,
    /// All connections that the loop has told of, and not of their end.
    known: HashSet<ConnectionId>,
}

/// A service that dials, says "hi" on each connection that it opens, and echoes lines to clients.
struct Caller(Rc<RefCell<Calls>>);

impl Service for Caller {
    fn connected(&mut self, reply: &mut Reply<'_>) {
        self.0.borrow_mut().known.extend(reply.connection);
    }

    fn dialled(&mut self, number: u32, outcome: Result<SocketAddr, String>, reply: &mut Reply<'_>) {
        let mut calls = self.0.borrow_mut();
        assert_eq!(outcome.is_ok(), reply.connection.is_some());
        assert_eq!(outcome.as_ref().ok(), reply.peer.as_ref());
        calls.open.extend(reply.connection);
        calls.known.extend(reply.connection);
        calls.outcomes.push((number, outcome));
        reply.send(b"hi");
    }

    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        let mut calls = self.0.borrow_mut();
        if !reply.connection.is_some_and(|connection| calls.open.contains(&connection)) {
            return receive_line(input, scanned, reply, server, |line, reply| reply.send(line));
        }
        if calls.waits {
            return Taken::Incomplete;
        }
        calls.received.extend_from_slice(input);
        Taken::Message(input.len())
    }

    fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {}

    fn closing(&mut self, connection: ConnectionId) {
        let mut calls = self.0.borrow_mut();
        assert!(calls.known.contains(&connection), "the loop tells of an unknown connection");
        calls.sends.retain(|(to, _)| *to != connection);
    }

    fn closed(&mut self, connection: ConnectionId, parting: &Parting) {
        let mut calls = self.0.borrow_mut();
        assert!(calls.known.remove(&connection), "an unknown connection has ended");
        if calls.open.contains(&connection) {
            calls.open.retain(|open| *open != connection);
            calls.ended.push(parting.reason);
        }
    }

    fn has_output(&self) -> bool {
        let calls = self.0.borrow();
        !calls.dials.is_empty() || !calls.sends.is_empty() || !calls.closes.is_empty()
    }

    fn collect(&mut self, output: &mut Output<'_>) {
        let mut calls = self.0.borrow_mut();
        std::mem::take(&mut calls.dials).into_iter().for_each(|dial| output.dial(dial));
        for (connection, bytes) in std::mem::take(&mut calls.sends) {
            let start = output.bytes_mut().len() as u32;
            output.bytes_mut().extend_from_slice(&bytes);
            output.deliver_whole(connection, &(start..start + bytes.len() as u32));
        }
        std::mem::take(&mut calls.closes).into_iter().for_each(|one| output.close(one));
    }
}

/// A loop with a caller.
struct World {
    sim: Sim,
    calls: Rc<RefCell<Calls>>,
}

impl World {
    fn new(limits: Limits) -> World {
        World::on(SimNet::new(0), limits, BufferMode::Pooled)
    }

    fn on(net: SimNet, limits: Limits, buffers: BufferMode) -> World {
        let calls = Rc::new(RefCell::new(Calls::default()));
        World { sim: Sim::on(net, Box::new(Caller(calls.clone())), limits, buffers), calls }
    }

    /// Asks for a dial with a second of time. It begins in this turn.
    fn dial(&mut self, number: u32, host: &str) {
        let dial = Dial { number, host: host.into(), port: 6379, timeout: SECOND };
        self.calls.borrow_mut().dials.push(dial);
        self.sim.turn();
    }

    /// Dials an address that accepts. Returns the far end and the connection.
    fn connected(&mut self) -> (ClientId, ConnectionId) {
        self.sim.net().answer_dials(broker(1), Some(DialAnswer::Accepts));
        self.dial(1, "10.0.0.1");
        self.sim.turns(2);
        let far = self.sim.net().accepted_dial(broker(1)).expect("the dial has arrived");
        assert_eq!(self.outcomes(), [(1, Ok(broker(1)))]);
        assert_eq!(self.sim.received(far), "hi");
        let connection = *self.calls.borrow().open.last().unwrap();
        (far, connection)
    }

    fn outcomes(&mut self) -> Vec<(u32, Result<SocketAddr, String>)> {
        std::mem::take(&mut self.calls.borrow_mut().outcomes)
    }

    fn ended(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.borrow_mut().ended)
    }

    fn send(&mut self, connection: ConnectionId, bytes: Vec<u8>) {
        self.calls.borrow_mut().sends.push((connection, bytes));
    }

    fn is_served(&mut self, client: ClientId) -> bool {
        self.sim.exchange(client, "ping\n") == "ping"
    }
}

fn ip(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn broker(host: u8) -> SocketAddr {
    SocketAddr::new(ip(host), 6379)
}

fn failed(number: u32, reason: &str) -> (u32, Result<SocketAddr, String>) {
    (number, Err(reason.into()))
}

#[test]
fn a_dialled_connection_carries_bytes_both_ways_until_the_peer_closes() {
    for buffers in [BufferMode::Pooled, BufferMode::Fixed(256)] {
        let mut world = World::on(SimNet::new(0), limits(), buffers);
        let (far, connection) = world.connected();
        world.sim.send(far, "to the loop");
        world.send(connection, b"from the loop".to_vec());
        world.sim.turns(2);
        assert_eq!(world.sim.received(far), "from the loop");
        assert_eq!(world.calls.borrow().received, b"to the loop");
        world.sim.net().client_close(far);
        world.sim.turns(2);
        assert_eq!(world.ended(), ["peer-closed"]);
        let stats = world.sim.reactor.stats();
        assert_eq!((stats.dialled, stats.dials_failed, stats.accepted), (1, 0, 0));
        assert_eq!((world.sim.closed(Reason::PeerClosed), world.sim.reactor.connections()), (1, 0));
    }
}

#[test]
fn bytes_that_arrive_with_the_answer_to_the_dial_are_read() {
    let mut world = World::new(limits());
    world.dial(1, "10.0.0.1");
    let far = world.sim.net().accept_connect(broker(1)).unwrap();
    world.sim.send(far, "early");
    world.sim.turns(2);
    assert_eq!(world.calls.borrow().received, b"early");
}

#[test]
fn a_service_closes_a_dialled_connection_after_its_output() {
    let mut world = World::new(limits());
    let (far, connection) = world.connected();
    world.send(connection, b"bye".to_vec());
    world.calls.borrow_mut().closes.push(connection);
    world.sim.turns(2);
    assert_eq!(
        (world.sim.received(far).as_str(), world.sim.net().client_saw(far)),
        ("bye", End::Fin)
    );
    world.sim.net().client_close(far);
    world.sim.turns(2);
    assert_eq!(world.ended(), ["service-closed"]);
}

#[test]
fn a_failed_dial_is_told_in_words_and_is_no_closed_connection() {
    let mut world = World::new(limits());
    world.sim.net().answer_dials(broker(1), Some(DialAnswer::Refuses));
    for (error, reason) in [
        (None, "connection refused"),
        (Some(libc::ENETUNREACH), "network unreachable"),
        (Some(libc::EHOSTUNREACH), "no route to host"),
        (Some(libc::EMFILE), "too many open files"),
    ] {
        if let Some(error) = error {
            world.sim.net().fail_next(SystemCall::Connect, error, 1);
        }
        world.dial(3, "10.0.0.1");
        world.sim.turns(2);
        assert_eq!(world.outcomes(), [failed(3, reason)]);
    }
    let stats = world.sim.reactor.stats();
    assert_eq!((stats.dialled, stats.dials_failed, stats.closed_total()), (0, 4, 0));
    assert_eq!((world.sim.reactor.connections(), world.ended().len()), (0, 0));
}

#[test]
fn a_dial_that_is_not_answered_times_out_and_not_before() {
    let mut world = World::new(limits());
    world.dial(1, "10.0.0.1");
    world.sim.pass(SECOND - 2 * Tick::LENGTH);
    assert_eq!((world.outcomes(), world.sim.reactor.connections()), (vec![], 1));
    world.sim.pass(4 * Tick::LENGTH);
    assert_eq!(world.outcomes(), [failed(1, "timed out after 1 s")]);
    assert_eq!((world.sim.reactor.connections(), world.sim.net().open_files()), (0, 2));
    // The answer comes too late.
    assert!(world.sim.net().accept_connect(broker(1)).is_none());
}

#[test]
fn the_addresses_of_a_name_are_tried_in_turn_and_share_the_time() {
    for (first, span) in [(Some(DialAnswer::Refuses), Duration::ZERO), (None, SECOND / 2)] {
        let mut world = World::new(limits());
        world.sim.net().add_name("broker", &[ip(1), ip(2)], SECOND / 10);
        world.sim.net().answer_dials(broker(1), first);
        world.sim.net().answer_dials(broker(2), Some(DialAnswer::Accepts));
        world.dial(1, "broker");
        world.sim.pass(SECOND / 10 + span);
        world.sim.turns(3);
        assert_eq!(world.outcomes(), [(1, Ok(broker(2)))]);
        assert_eq!(world.sim.reactor.connections(), 1);
    }
}

#[test]
fn a_dial_fails_with_the_reason_of_its_last_address() {
    let mut world = World::new(limits());
    world.sim.net().add_name("broker", &[ip(1), ip(2)], Duration::ZERO);
    world.sim.net().answer_dials(broker(2), Some(DialAnswer::Refuses));
    world.dial(1, "broker");
    world.sim.pass(2 * SECOND);
    assert_eq!(world.outcomes(), [failed(1, "connection refused")]);
}

#[test]
fn a_dial_tries_a_few_addresses_of_a_long_list() {
    for (place, is_tried) in [
        (DIAL_ADDRESSES_MAX - 1, true),
        (DIAL_ADDRESSES_MAX, true),
        (DIAL_ADDRESSES_MAX + 1, false),
    ] {
        let mut world = World::new(limits());
        let addresses: Vec<IpAddr> = (1..=place as u8).map(ip).collect();
        world.sim.net().add_name("broker", &addresses, Duration::ZERO);
        for host in 1..place as u8 {
            world.sim.net().answer_dials(broker(host), Some(DialAnswer::Refuses));
        }
        world.sim.net().answer_dials(broker(place as u8), Some(DialAnswer::Accepts));
        world.dial(1, "broker");
        world.sim.turns(2 * place);
        assert_eq!(world.outcomes()[0].1.is_ok(), is_tried, "{place} addresses");
    }
}

#[test]
fn a_name_that_is_not_known_fails_the_dial() {
    let mut world = World::new(limits());
    world.dial(1, "nowhere");
    world.sim.turns(2);
    assert_eq!(world.outcomes(), [failed(1, "name not known")]);
}

#[test]
fn a_name_that_never_resolves_times_out_and_the_loop_goes_on() {
    let mut world = World::new(limits());
    world.sim.net().add_silent_name("silence");
    let client = world.sim.accepted();
    world.dial(1, "silence");
    for _ in 0..9 {
        world.sim.pass(SECOND / 10);
        assert!(world.is_served(client));
    }
    assert_eq!(world.outcomes(), []);
    world.sim.pass(SECOND / 5);
    assert_eq!(world.outcomes(), [failed(1, "name lookup timed out after 1 s")]);
    // Another dial of the name joins the look-up that is still under way.
    world.dial(2, "silence");
    assert_eq!(world.sim.net().look_ups_begun(), 1);
}

#[test]
fn a_late_answer_of_a_name_server_serves_the_next_dial_of_the_name() {
    let mut world = World::new(limits());
    world.sim.net().add_name("broker", &[ip(1)], SECOND + SECOND / 2);
    world.sim.net().answer_dials(broker(1), Some(DialAnswer::Accepts));
    world.dial(1, "broker");
    world.sim.pass(SECOND + SECOND / 4);
    assert_eq!(world.outcomes(), [failed(1, "name lookup timed out after 1 s")]);
    world.dial(2, "broker");
    world.sim.pass(SECOND / 2);
    assert_eq!((world.outcomes(), world.sim.net().look_ups_begun()), (vec![(2, Ok(broker(1)))], 1));
}

#[test]
fn the_names_looked_up_at_a_time_are_bounded() {
    let mut world = World::new(limits());
    for number in 0..=LOOKUPS_MAX as u32 {
        let name = format!("silence{number}");
        world.sim.net().add_silent_name(&name);
        world.dial(number, &name);
    }
    let reason = format!("{LOOKUPS_MAX} names are being looked up already");
    assert_eq!(world.outcomes(), [failed(LOOKUPS_MAX as u32, &reason)]);
    assert_eq!(world.sim.net().look_ups_begun(), LOOKUPS_MAX as u64);
}

/// Open connections and dials under way count alike.
#[test]
fn the_connections_dialled_at_a_time_are_bounded() {
    let mut world = World::new(limits());
    world.connected();
    world.sim.net().add_silent_name("silence");
    world.dial(2, "silence");
    for number in 2..DIALLED_MAX as u32 {
        world.dial(number, "10.0.0.2");
    }
    assert_eq!((world.outcomes(), world.sim.reactor.connections()), (vec![], DIALLED_MAX - 1));
    world.dial(99, "10.0.0.2");
    let reason = format!("{DIALLED_MAX} connections are dialled already");
    assert_eq!(world.outcomes(), [failed(99, &reason)]);
    world.sim.net().refuse_connect(broker(2));
    world.sim.turns(2);
    world.outcomes();
    world.dial(100, "10.0.0.2");
    assert_eq!(world.outcomes(), [], "there is room again");
}

/// The clients fill all slots, before the dial or after it.
#[test]
fn a_dial_takes_no_slot_from_a_client_and_finds_one_in_a_full_table() {
    for dials_first in [false, true] {
        let caps = Limits { max_connections: 10, ..limits() };
        let mut world = World::new(caps);
        if dials_first {
            world.connected();
        }
        let clients: Vec<ClientId> = (0..10).map(|_| world.sim.accepted()).collect();
        assert!(clients.iter().all(|client| world.is_served(*client)));
        if !dials_first {
            world.connected();
        }
        let refused = |world: &World| world.sim.reactor.stats().refused.iter().sum::<u64>();
        assert_eq!((refused(&world), world.sim.reactor.connections()), (0, 11));
        let newcomer = world.sim.accepted();
        assert!(world.sim.is_ended(newcomer));
        assert_eq!(refused(&world), 1, "the table is full for clients");
        assert!(clients.iter().all(|client| world.is_served(*client)));
        // The gate opens again as soon as one in 32 of the clients' slots is free.
        world.sim.net().client_close(clients[0]);
        world.sim.turns(2);
        let newcomer = world.sim.accepted();
        assert!(world.is_served(newcomer));
        assert_eq!(world.ended(), [""; 0]);
    }
}

#[test]
fn a_dial_fails_when_the_memory_budget_has_no_room_for_a_connection() {
    let mut world = World::new(Limits { memory_budget: 10, ..limits() });
    world.dial(1, "10.0.0.1");
    world.sim.turns(2);
    assert_eq!(world.outcomes(), [failed(1, "memory-budget of 10 bytes is used up")]);
    assert_eq!((world.sim.reactor.connections(), world.ended().len()), (0, 0));
}

#[test]
fn a_dialled_connection_has_no_deadline_for_input_or_output() {
    let short = Limits {
        first_message_timeout: SECOND,
        message_timeout: SECOND,
        idle_timeout: SECOND,
        output_timeout: SECOND,
        output_soft_limit: 1,
        output_soft_time: SECOND,
        ..limits()
    };
    let mut world = World::new(short);
    let (far, connection) = world.connected();
    world.calls.borrow_mut().waits = true;
    world.sim.send(far, "part of a message");
    world.sim.net().set_window(far, 0);
    world.send(connection, vec![b'x'; 100_000]);
    world.sim.pass(3600 * SECOND);
    assert_eq!((world.ended(), world.sim.reactor.connections()), (vec![], 1));
    world.sim.net().set_window(far, 200_000);
    world.sim.turns(2);
    assert_eq!(world.sim.received(far).len(), 100_000);
}

/// A client in its place would be paused at the high watermark.
#[test]
fn a_dialled_connection_is_read_while_its_own_output_waits() {
    let mut world = World::new(Limits { high_watermark: 100, low_watermark: 10, ..limits() });
    let (far, connection) = world.connected();
    world.sim.net().set_window(far, 0);
    world.send(connection, vec![b'x'; 1000]);
    world.sim.turns(2);
    world.sim.send(far, "news");
    world.sim.turns(2);
    assert_eq!(world.calls.borrow().received, b"news");
}

#[test]
fn the_unsent_output_of_a_dialled_connection_is_bounded() {
    let budget = Limits { memory_budget: 1 << 30, output_limit: 1 << 20, ..limits() };
    for (memory_budget, most) in [(1 << 30, DIALLED_OUTPUT_MAX), (8 << 20, 2 << 20)] {
        for more in [0, 1, 2] {
            let mut world = World::new(Limits { memory_budget, ..budget.clone() });
            let (far, connection) = world.connected();
            world.sim.net().set_window(far, 0);
            world.send(connection, vec![b'x'; most / 2]);
            world.sim.turns(2);
            world.send(connection, vec![b'x'; most / 2 - 1 + more]);
            world.sim.turns(2);
            let expected: &[&str] = if more > 1 { &["output-limit"] } else { &[] };
            assert_eq!(world.ended(), expected, "{more} more than {most} - 1");
        }
    }
}

#[test]
fn the_incomplete_input_of_a_dialled_connection_is_bounded() {
    for (memory_budget, most) in [(1 << 30, DIALLED_INPUT_MAX), (8 << 20, 2 << 20)] {
        for more in [0, 1, 2] {
            let mut world = World::new(Limits { memory_budget, ..limits() });
            let (far, _) = world.connected();
            world.calls.borrow_mut().waits = true;
            world.sim.send(far, vec![b'x'; most - 1 + more]);
            world.sim.turns(1 + most / (32 * 1024));
            let expected: &[&str] = if more > 1 { &["protocol-error"] } else { &[] };
            assert_eq!(world.ended(), expected, "{more} more than {most} - 1");
        }
    }
}

/// Slots and silent places are short, and files run out. The dialled connection has been idle for
/// longest.
#[test]
fn a_flood_of_clients_neither_recycles_nor_sheds_a_dialled_connection() {
    let caps = Limits { max_connections: 20, max_silent: 10, ..Limits::default() };
    let mut world = World::new(caps);
    let (far, _) = world.connected();
    world.sim.pass(60 * SECOND);
    for round in 0..400 {
        let client = world.sim.client();
        world.sim.turn();
        if round % 2 == 0 {
            world.sim.send(client, "spoken\n");
        }
        world.sim.pass(SECOND / 8);
        if round % 50 == 0 {
            world.sim.net().fail_accepts(libc::EMFILE, 3);
        }
    }
    let stats = world.sim.reactor.stats();
    assert!(stats.recycled > 10 && stats.accept_shed > 0, "{stats:?}");
    assert!(world.sim.closed(Reason::IdleEvicted) > 10, "{stats:?}");
    assert_eq!(world.ended(), [""; 0]);
    world.sim.send(far, "still here");
    world.sim.turns(2);
    assert_eq!(world.calls.borrow().received, b"still here");
}

/// All clients are in use, so the dialled connection is the only idle one.
#[test]
fn a_dialled_connection_that_is_idle_does_not_make_way_for_a_newcomer() {
    let mut world = World::new(Limits { max_connections: 10, ..limits() });
    world.connected();
    world.sim.pass(60 * SECOND);
    let clients: Vec<ClientId> = (0..10).map(|_| world.sim.accepted()).collect();
    assert!(clients.iter().all(|client| world.is_served(*client)));
    let newcomer = world.sim.accepted();
    assert!(world.sim.is_ended(newcomer));
    assert_eq!((world.ended(), world.sim.reactor.connections()), (vec![], 11));
}

/// The dialled connection holds more than any client, and for longer.
#[test]
fn clients_that_fill_the_memory_budget_are_evicted_and_no_dialled_connection() {
    let mut world = World::new(Limits { memory_budget: 400 * 1024, ..limits() });
    let (far, connection) = world.connected();
    world.sim.net().set_window(far, 0);
    world.send(connection, vec![b'x'; 90_000]);
    world.sim.turns(2);
    for _ in 0..100 {
        let client = world.sim.client();
        world.sim.net().set_window(client, 0);
        world.sim.turn();
        world.sim.send(client, [&[b'z'; 4000][..], b"\n"].concat().repeat(20));
        world.sim.turns(3);
        world.sim.pass(SECOND / 4);
    }
    let stats = world.sim.reactor.stats();
    assert!(stats.evicted > 10, "{stats:?}");
    assert_eq!(world.ended(), [""; 0]);
    world.sim.net().set_window(far, 100_000);
    world.sim.turns(2);
    assert_eq!(world.sim.received(far).len(), 90_000);
}

#[test]
fn a_drain_closes_dialled_connections_last_and_sends_their_output_first() {
    let mut world = World::new(Limits { drain_timeout: 10 * SECOND, ..limits() });
    let (far, connection) = world.connected();
    let (quick, slow) = (world.sim.accepted(), world.sim.accepted());
    world.sim.net().set_window(slow, 0);
    world.sim.exchange(slow, "answer me\n");
    world.sim.reactor.drain();
    world.sim.turns(3);
    assert_eq!(world.sim.net().client_saw(quick), End::Fin);
    world.sim.net().client_close(quick);
    world.sim.pass(SECOND);
    assert_eq!((world.sim.net().client_saw(far), world.sim.reactor.connections()), (End::Open, 2));
    // A dial may begin while clients are served.
    world.sim.net().answer_dials(broker(2), Some(DialAnswer::Accepts));
    world.dial(2, "10.0.0.2");
    world.sim.turns(2);
    let second = world.sim.net().accepted_dial(broker(2)).unwrap();
    assert_eq!(world.sim.received(second), "hi");
    world.send(connection, b"last".to_vec());
    world.sim.net().set_window(slow, 100);
    world.sim.turns(2);
    world.sim.net().client_close(slow);
    world.sim.received(slow);
    world.sim.net().client_close(slow);
    world.sim.turns(4);
    assert_eq!(
        (world.sim.received(far).as_str(), world.sim.net().client_saw(far)),
        ("last", End::Fin)
    );
    for far in [far, second] {
        assert_eq!(world.sim.net().client_saw(far), End::Fin);
        world.sim.net().client_close(far);
    }
    world.sim.turns(2);
    assert!(world.sim.reactor.is_drained());
    assert_eq!(world.ended(), ["drain", "drain"]);
}

#[test]
fn a_drain_without_clients_closes_dialled_connections_at_once_and_gives_dials_up() {
    let mut world = World::new(limits());
    world.connected();
    world.sim.net().add_silent_name("silence");
    world.dial(2, "silence");
    world.dial(3, "10.0.0.3");
    world.outcomes();
    assert_eq!(world.sim.reactor.connections(), 2);
    world.sim.reactor.drain();
    world.sim.turns(2);
    assert!(world.sim.reactor.is_drained());
    assert_eq!(world.ended(), ["drain"]);
    world.dial(4, "10.0.0.3");
    assert_eq!(world.outcomes(), [failed(4, "the server is stopping")]);
}

#[test]
fn the_end_of_the_drain_timeout_closes_dialled_connections_and_attempts() {
    let caps = Limits { drain_timeout: 2 * SECOND, close_timeout: 60 * SECOND, ..limits() };
    let mut world = World::new(caps);
    let (far, _) = world.connected();
    let deaf = world.sim.accepted();
    world.sim.net().set_window(deaf, 0);
    world.sim.exchange(deaf, "answer me\n");
    world.sim.reactor.drain();
    world.sim.pass(SECOND + SECOND / 2);
    world.dial(2, "10.0.0.3");
    assert_eq!(world.sim.reactor.connections(), 3);
    assert_eq!(world.sim.net().client_saw(far), End::Open);
    world.sim.pass(SECOND);
    assert!(world.sim.reactor.is_drained());
    assert_eq!(world.ended(), ["drain-timeout"]);
}

/// The peer accepts, refuses, is silent, answers late, resets, closes or stalls, under all faults
/// of the network. Meanwhile limits change and clients come and go.
#[test]
fn every_dial_has_one_outcome_under_all_faults() {
    let names = ["broker", "late", "silence", "nowhere", "10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let mut totals = [0; 3];
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let net = SimNet::with_faults(seed, Faults::harsh());
        let buffers = if seed % 5 == 0 { BufferMode::Fixed(256) } else { BufferMode::Pooled };
        let mut world = World::on(net, Limits { max_connections: 4, ..limits() }, buffers);
        let net = world.sim.net();
        net.add_name("broker", &[ip(3), ip(2), ip(1)], SECOND / 20);
        net.add_name("late", &[ip(1)], SECOND + SECOND / 3);
        net.add_silent_name("silence");
        net.answer_dials(broker(1), Some(DialAnswer::Accepts));
        net.answer_dials(broker(2), Some(DialAnswer::Refuses));
        let address = world.sim.address;
        let (mut begun, mut far_ends, mut clients) = (0, Vec::new(), Vec::new());
        for _ in 0..200 {
            if random.u8(..) < 40 {
                let host = names[random.usize(..names.len())].into();
                let timeout = Duration::from_millis(random.u64(0..1500));
                let dial = Dial { number: begun, host, port: 6379, timeout };
                world.calls.borrow_mut().dials.push(dial);
                begun += 1;
            }
            far_ends.extend(world.sim.net().accepted_dial(broker(1)));
            if !far_ends.is_empty() {
                let far = far_ends[random.usize(..far_ends.len())];
                match random.u8(..12) {
                    0 => world.sim.net().client_reset(far),
                    1 => world.sim.net().client_close(far),
                    2 => world.sim.net().set_window(far, 0),
                    3 => world.sim.send(far, [b'x'; 100]),
                    _ => drop(world.sim.received(far)),
                }
            }
            let open = world.calls.borrow().open.clone();
            match random.u8(..30) {
                0 => clients.push(world.sim.net().client(address)),
                1 => clients.drain(..).flatten().for_each(|one| world.sim.net().client_reset(one)),
                2 => world.sim.reactor.set_limits(Limits { max_connections: 5, ..limits() }),
                3 => open.iter().for_each(|one| world.send(*one, vec![b'y'; 50])),
                4 => world.calls.borrow_mut().closes.extend(open.first()),
                _ => {}
            }
            world.sim.pass(Duration::from_millis(random.u64(0..60)));
        }
        world.sim.pass(5 * SECOND);
        let mut numbers: Vec<u32> = world.calls.borrow().outcomes.iter().map(|one| one.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..begun).collect::<Vec<_>>(), "seed {seed}");
        let calls = world.calls.borrow();
        let opened = calls.outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        assert_eq!(opened, calls.open.len() + calls.ended.len(), "seed {seed}");
        totals[0] += opened;
        totals[1] += numbers.len() - opened;
        totals[2] += calls.ended.len();
    }
    assert!(totals.iter().all(|count| *count > 500), "{totals:?}");
}

//! The loop on the simulated network: budgets, deadlines, backpressure, errors of every kind, under virtual time. After
//! every turn the loop's invariants are checked.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use slabd::admission::Gate;
use slabd::buffer::BufferMode;
use slabd::clock::{Tick, Time};
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::{ClientId, End, Faults, SimNet};
use slabd::net::{Net, Ready, Signal};
use slabd::reactor::Reactor;
use slabd::service::{Service, discard::Discard, echo::Echo, hello::Hello};
use slabd::token::{Generation, Token};

/// A loop with one service on one address, and shorthands for what tests do with it.
struct Sim {
    reactor: Reactor<SimNet>,
    address: SocketAddr,
}

impl Sim {
    fn new(service: Box<dyn Service>, limits: Limits) -> Sim {
        Sim::on(SimNet::new(0), service, limits, BufferMode::Pooled)
    }

    fn on(net: SimNet, service: Box<dyn Service>, limits: Limits, buffers: BufferMode) -> Sim {
        let mut reactor = Reactor::new(net, limits, buffers);
        let service = reactor.add_service(service);
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 128, service).unwrap();
        reactor.bind(address, service).unwrap();
        Sim { reactor, address }
    }

    fn net(&mut self) -> &mut SimNet {
        self.reactor.net_mut()
    }

    /// One turn at the present moment.
    fn turn(&mut self) {
        let now = self.net().now();
        self.turn_until(now);
    }

    fn turn_until(&mut self, moment: Time) {
        self.net().hold_time_at(moment);
        self.reactor.turn().unwrap();
        self.reactor.check_invariants();
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    fn client(&mut self) -> ClientId {
        let address = self.address;
        self.net().client(address).expect("room in the accept queue")
    }

    /// A client that has been accepted.
    fn accepted(&mut self) -> ClientId {
        let client = self.client();
        self.turn();
        client
    }

    fn send(&mut self, client: ClientId, bytes: impl AsRef<[u8]>) {
        self.net().client_send(client, bytes.as_ref());
    }

    fn received(&mut self, client: ClientId) -> String {
        String::from_utf8_lossy(&self.net().client_received(client)).into_owned()
    }

    /// Sends, turns the loop twice and returns what came.
    fn exchange(&mut self, client: ClientId, bytes: impl AsRef<[u8]>) -> String {
        self.send(client, bytes);
        self.turns(2);
        self.received(client)
    }

    /// Turns the loop until virtual time has advanced by `span`.
    fn pass(&mut self, span: Duration) {
        let end = self.net().now() + span;
        for _ in 0..100_000 {
            self.turn_until(end);
            if self.reactor.now() >= end {
                return;
            }
        }
        panic!("100,000 turns do not take {span:?}: the loop spins");
    }

    fn closed(&self, reason: Reason) -> u64 {
        self.reactor.stats().closed_for(reason)
    }
}

fn limits() -> Limits {
    Limits { max_connections: 64, ..Limits::default() }
}

const SECOND: Duration = Duration::from_secs(1);

// Services and the way of a byte.

#[test]
fn hello_greets_in_the_turn_that_accepts_and_answers_in_the_turn_that_reads() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    assert_eq!(sim.received(client), "Hello\r\n");
    sim.send(client, "Ada\n");
    sim.turn();
    assert_eq!(sim.received(client), "Hello, Ada!\r\n");
    assert_eq!((sim.reactor.stats().reads, sim.reactor.stats().writes), (1, 2));
}

#[test]
fn answers_of_one_turn_leave_in_one_write() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    let writes = sim.reactor.stats().writes;
    assert_eq!(sim.exchange(client, "a\nb\nc\n"), "Hello\r\nHello, a!\r\nHello, b!\r\nHello, c!\r\n");
    assert_eq!(sim.reactor.stats().writes - writes, 1);
}

#[test]
fn half_close_is_honoured_and_an_unended_last_line_counts() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    sim.send(client, "a\nlast");
    sim.net().client_shutdown(client);
    sim.turns(2);
    assert_eq!(sim.received(client), "Hello\r\nHello, a!\r\nHello, last!\r\n");
    assert_eq!((sim.net().client_saw(client), sim.closed(Reason::PeerClosed)), (End::Fin, 1));
    assert_eq!(sim.reactor.ledger().read_buffers, 0);
}

#[test]
fn a_reset_in_the_middle_of_a_line_is_one_close() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    sim.send(client, "half");
    sim.turn();
    assert_eq!(sim.reactor.ledger().read_buffers, 64);
    sim.net().client_reset(client);
    sim.turn();
    assert_eq!((sim.closed(Reason::PeerReset), sim.reactor.connections()), (1, 0));
    assert_eq!(sim.reactor.ledger().read_buffers, 0);
}

#[test]
fn a_line_too_long_is_told_before_the_connection_closes_though_input_is_unread() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_line: 8, ..limits() });
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "12345678\n"), "Hello\r\nHello, 12345678!\r\n");
    sim.send(client, "123456789");
    sim.turn();
    // More is under way while the server is closing: it is read and dropped, or the reset would destroy the error.
    sim.send(client, vec![b'x'; 100_000]);
    sim.turns(5);
    assert_eq!(sim.received(client), "error: line longer than 8 bytes\r\n");
    assert_eq!(sim.net().client_saw(client), End::Fin);
    assert_eq!(sim.reactor.connections(), 1, "it lingers for the peer's close");
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::LineTooLong)), (0, 1));
}

#[test]
fn who_does_not_close_after_an_error_is_lingered_for_no_longer_than_the_close_timeout() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_line: 8, close_timeout: 2 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "123456789");
    sim.pass(SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(SECOND + 3 * Tick::LENGTH);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::LineTooLong)), (0, 1));
}

#[test]
fn a_service_can_close_and_what_it_said_is_sent_first() {
    struct Bye;
    impl Service for Bye {
        fn framing(&self) -> slabd::codec::Framing {
            slabd::codec::Framing::Lines
        }
        fn message(&mut self, _line: &[u8], reply: &mut slabd::service::Reply<'_>) {
            reply.send(b"bye\r\n");
            reply.close();
        }
        fn datagram(&mut self, _datagram: &[u8], _reply: &mut slabd::service::Reply<'_>) {}
    }
    let mut sim = Sim::new(Box::new(Bye), limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "x\nnever answered\n"), "bye\r\n");
    assert_eq!(sim.net().client_saw(client), End::Fin);
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!(sim.closed(Reason::ServiceClosed), 1);
}

// Budgets and the carry.

#[test]
fn messages_per_turn_at_the_budget_one_below_and_one_above() {
    for (lines, turns) in [(3, 1), (4, 1), (5, 2), (8, 2), (9, 3)] {
        let mut sim = Sim::new(Box::new(Hello), Limits { messages_per_turn: 4, ..limits() });
        let client = sim.accepted();
        sim.received(client);
        sim.send(client, "x\n".repeat(lines));
        for turn in 1..=turns {
            sim.turn();
            let expected = (turn * 4).min(lines);
            assert_eq!(sim.reactor.stats().messages, expected as u64, "{lines} lines, turn {turn}");
        }
        assert_eq!(sim.received(client), "Hello, x!\r\n".repeat(lines));
        assert_eq!(sim.reactor.ledger().read_buffers, 0);
    }
}

#[test]
fn reads_per_turn_are_bounded_and_the_rest_is_carried_without_an_edge() {
    let mut sim = Sim::new(Box::new(Discard), Limits { reads_per_turn: 2, ..limits() });
    let client = sim.accepted();
    sim.send(client, vec![0; 5 * 16 * 1024]);
    for reads in [2, 4] {
        sim.turn();
        assert_eq!(sim.reactor.stats().reads, reads);
        assert_eq!(sim.reactor.stats().bytes_in, reads * 16 * 1024);
    }
    sim.turns(2);
    assert_eq!(sim.reactor.stats().bytes_in, 5 * 16 * 1024);
}

#[test]
fn accepts_per_turn_at_the_budget_one_below_and_one_above() {
    for (clients, first_turn) in [(3, 3), (4, 4), (5, 4)] {
        let mut sim = Sim::new(Box::new(Hello), Limits { accepts_per_turn: 4, ..limits() });
        (0..clients).for_each(|_| {
            sim.client();
        });
        sim.turn();
        assert_eq!(sim.reactor.connections(), first_turn);
        sim.turn();
        assert_eq!(sim.reactor.connections(), clients);
    }
}

#[test]
fn connections_per_turn_are_bounded_and_none_is_forgotten() {
    let mut sim = Sim::new(Box::new(Hello), Limits { connections_per_turn: 3, ..limits() });
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, "x\n"));
    for served in [3, 6, 9, 10] {
        sim.turn();
        assert_eq!(sim.reactor.stats().messages, served);
    }
}

#[test]
fn output_per_turn_stops_serving_until_it_is_sent() {
    let mut sim = Sim::new(Box::new(Echo), Limits { output_per_turn: 1000, ..limits() });
    let clients: Vec<ClientId> = (0..4).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, [b'x'; 600]));
    sim.turn();
    assert_eq!(sim.reactor.stats().messages, 2);
    sim.turn();
    assert_eq!(sim.reactor.stats().messages, 4);
}

#[test]
fn a_pipelining_hog_does_not_keep_others_waiting() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let (hog, other) = (sim.accepted(), sim.accepted());
    sim.received(other);
    sim.send(hog, "x\n".repeat(30_000));
    sim.turn();
    sim.send(other, "me\n");
    sim.turn();
    assert_eq!(sim.received(other), "Hello, me!\r\n", "served in the very next turn");
}

#[test]
fn expiries_per_turn_are_bounded_and_the_rest_follows_at_once() {
    let mut sim = Sim::new(Box::new(Hello), Limits { expiries_per_turn: 4, first_message_timeout: SECOND, ..limits() });
    (0..10).for_each(|_| {
        sim.accepted();
    });
    sim.net().advance(2 * SECOND);
    for left in [6, 2, 0] {
        sim.turn();
        assert_eq!(sim.reactor.connections(), left);
    }
    assert_eq!(sim.closed(Reason::FirstMessageTimeout), 10);
}

// Deadlines.

#[test]
fn every_deadline_comes_on_time_and_not_before() {
    let limits =
        Limits { first_message_timeout: 2 * SECOND, message_timeout: 3 * SECOND, idle_timeout: 4 * SECOND, ..limits() };
    let late = 3 * Tick::LENGTH;
    for (sent, timeout, reason) in [
        ("", 2, Reason::FirstMessageTimeout),
        ("part", 2, Reason::FirstMessageTimeout),
        ("x\n", 4, Reason::IdleTimeout),
        ("x\npart", 3, Reason::MessageTimeout),
    ] {
        let mut sim = Sim::new(Box::new(Hello), limits.clone());
        let client = sim.accepted();
        sim.exchange(client, sent);
        sim.pass(timeout * SECOND - Duration::from_millis(1));
        assert_eq!(sim.reactor.connections(), 1, "{sent:?} is closed early");
        sim.pass(late);
        assert_eq!((sim.reactor.connections(), sim.closed(reason)), (0, 1), "{sent:?}");
    }
}

#[test]
fn a_dribbled_message_is_due_from_its_first_byte() {
    let mut sim = Sim::new(Box::new(Hello), Limits { message_timeout: 3 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    for _ in 0..29 {
        sim.send(client, "y");
        sim.pass(SECOND / 10);
        assert_eq!(sim.reactor.connections(), 1);
    }
    sim.send(client, "y");
    sim.pass(SECOND / 5);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
}

#[test]
fn activity_moves_the_idle_deadline_without_touching_the_wheel() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 10 * SECOND, ..limits() });
    let client = sim.accepted();
    for _ in 0..100 {
        assert!(!sim.exchange(client, "x\n").is_empty());
        sim.pass(SECOND);
    }
    assert_eq!(sim.reactor.connections(), 1);
    assert!(sim.reactor.stats().timers_early <= 12, "{} early firings in 100 s", sim.reactor.stats().timers_early);
    sim.pass(10 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

#[test]
fn a_deadline_beyond_the_wheels_reach_holds_too() {
    let mut sim = Sim::new(Box::new(Hello), Limits { idle_timeout: 1000 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "x\n");
    sim.pass(999 * SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(2 * SECOND);
    assert_eq!(sim.closed(Reason::IdleTimeout), 1);
}

// Output, backpressure, closing.

#[test]
fn a_peer_that_never_reads_is_paused_bounded_and_closed() {
    let limits = Limits { high_watermark: 4096, low_watermark: 1024, output_timeout: 5 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Echo), limits);
    let client = sim.accepted();
    sim.net().set_window(client, 1000);
    for _ in 0..20 {
        sim.send(client, [b'x'; 1000]);
        sim.turns(2);
    }
    let held = sim.reactor.ledger().write_buffers;
    assert!((4096..=8192).contains(&held), "{held} bytes held");
    assert!(sim.reactor.stats().bytes_in < 20_000, "it is read no more");
    sim.pass(5 * SECOND + 3 * Tick::LENGTH);
    assert_eq!((sim.closed(Reason::OutputTimeout), sim.reactor.ledger().write_buffers), (1, 0));
}

#[test]
fn a_slow_reader_loses_nothing_and_progress_keeps_it_alive() {
    let limits = Limits { high_watermark: 4096, low_watermark: 1024, output_timeout: 5 * SECOND, ..limits() };
    let mut sim = Sim::new(Box::new(Echo), limits);
    let client = sim.accepted();
    sim.net().set_window(client, 1000);
    let sent: Vec<u8> = (0..40_000u32).map(|index| (index % 251) as u8).collect();
    sim.send(client, &sent);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        sim.turns(3);
        got.extend(sim.net().client_take(client, 700));
        sim.pass(SECOND);
        assert!(sim.reactor.now().as_secs_f64() < 1000.0, "{} of {} bytes", got.len(), sent.len());
    }
    assert!(got == sent);
    assert_eq!(sim.closed(Reason::OutputTimeout), 0);
    sim.turns(3);
    assert_eq!(sim.reactor.ledger().write_buffers, 0);
}

#[test]
fn watermarks_at_the_limit_one_below_and_one_above() {
    for (sent, paused) in [(4095, false), (4096, true), (4097, true)] {
        let limits = Limits { high_watermark: 4096, low_watermark: 100, ..limits() };
        let mut sim = Sim::new(Box::new(Echo), limits);
        let client = sim.accepted();
        sim.net().set_window(client, 0);
        sim.send(client, vec![b'x'; sent]);
        sim.turns(2);
        sim.send(client, "more");
        sim.turns(2);
        assert_eq!(sim.reactor.stats().bytes_in == sent as u64, paused, "{sent} bytes unsent");
    }
}

#[test]
fn a_half_closed_peer_gets_everything_even_if_it_reads_slowly() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let client = sim.accepted();
    sim.net().set_window(client, 10);
    sim.send(client, [b'x'; 100]);
    sim.net().client_shutdown(client);
    let mut got = Vec::new();
    for _ in 0..100 {
        sim.turn();
        got.extend(sim.net().client_take(client, 7));
    }
    assert_eq!(got, [b'x'; 100]);
    assert_eq!((sim.net().client_saw(client), sim.closed(Reason::PeerClosed)), (End::Fin, 1));
}

#[test]
fn the_memory_budget_closes_who_asks_for_more_and_nobody_else() {
    let mut sim = Sim::new(Box::new(Hello), Limits { memory_budget: 4096, ..limits() });
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    for client in &clients {
        sim.send(*client, [b'x'; 1000]);
        sim.turn();
    }
    // Ten slots take up a part of the budget too.
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::MemoryBudget)), (3, 7));
    assert_eq!(sim.reactor.ledger().read_buffers, 3072);
    assert!(sim.exchange(clients[0], "\n").starts_with("Hello\r\nHello, xxx"));
}

#[test]
fn fixed_buffers_serve_the_same_and_cost_what_they_say() {
    let net = SimNet::new(0);
    let mut sim = Sim::on(net, Box::new(Hello), limits(), BufferMode::Fixed(256));
    let clients: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    let ledger = sim.reactor.ledger();
    assert_eq!((ledger.read_buffers, ledger.write_buffers), (5 * 256, 5 * 256));
    assert_eq!(sim.exchange(clients[0], "a\nb\npart"), "Hello\r\nHello, a!\r\nHello, b!\r\n");
    // Read 256 bytes at a time, and four times a turn.
    sim.send(clients[0], format!("{}\n", "x".repeat(3000)));
    sim.turns(4);
    assert!(sim.received(clients[0]) == format!("Hello, part{}!\r\n", "x".repeat(3000)));
    clients.iter().for_each(|client| sim.net().client_close(*client));
    sim.turns(3);
    let ledger = sim.reactor.ledger();
    assert_eq!((ledger.read_buffers, ledger.write_buffers, sim.reactor.connections()), (0, 0, 0));
}

// Output for others.

/// Says every line to everybody, one delivery at a time.
#[derive(Default)]
struct Party {
    guests: Vec<u32>,
    /// A line, and how many guests have it.
    waiting: VecDeque<(Vec<u8>, usize)>,
}

impl Service for Party {
    fn framing(&self) -> slabd::codec::Framing {
        slabd::codec::Framing::Lines
    }
    fn connected(&mut self, reply: &mut slabd::service::Reply<'_>) {
        self.guests.push(reply.session);
    }
    fn message(&mut self, line: &[u8], _reply: &mut slabd::service::Reply<'_>) {
        self.waiting.push_back(([line, b"\n"].concat(), 0));
    }
    fn datagram(&mut self, _datagram: &[u8], _reply: &mut slabd::service::Reply<'_>) {}
    fn closed(&mut self, session: u32) {
        self.guests.retain(|guest| *guest != session);
    }
    fn has_output(&self) -> bool {
        !self.waiting.is_empty()
    }
    fn poll_output(&mut self, deliveries: &mut slabd::service::Deliveries<'_>) {
        while let Some((line, next)) = self.waiting.front_mut() {
            let range = deliveries.put(line);
            while let Some(guest) = self.guests.get(*next) {
                if !deliveries.deliver(*guest, &range) {
                    return;
                }
                *next += 1;
            }
            self.waiting.pop_front();
        }
    }
}

#[test]
fn what_one_says_reaches_all_in_order_and_in_one_write_each() {
    let mut sim = Sim::new(Box::<Party>::default(), limits());
    let guests: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    let writes = sim.reactor.stats().writes;
    sim.send(guests[0], "one\ntwo\nthree\n");
    sim.turn();
    for guest in &guests {
        assert_eq!(sim.received(*guest), "one\ntwo\nthree\n");
    }
    assert_eq!(sim.reactor.stats().writes - writes, 5, "three lines in one write to each");
}

#[test]
fn deliveries_per_turn_at_the_budget_one_below_and_one_above() {
    for (guests, turns) in [(3, 1), (4, 1), (5, 2), (8, 2), (9, 3)] {
        let mut sim = Sim::new(Box::<Party>::default(), Limits { deliveries_per_turn: 4, ..limits() });
        let guests: Vec<ClientId> = (0..guests).map(|_| sim.accepted()).collect();
        sim.send(guests[0], "x\n");
        let mut reached = 0;
        for turn in 1..=turns {
            sim.turn();
            reached += guests.iter().filter(|guest| sim.net().client_received(**guest) == b"x\n").count();
            assert_eq!(reached, (4 * turn).min(guests.len()), "{} guests, turn {turn}", guests.len());
        }
        sim.send(guests[0], "y\n");
        sim.turns(turns);
        assert!(guests.iter().all(|guest| sim.net().client_received(*guest) == b"y\n"));
    }
}

#[test]
fn a_slow_consumer_is_closed_at_its_output_limit_and_others_get_everything() {
    for (lines, closed) in [(9, 0), (10, 0), (11, 1)] {
        let limits = Limits { high_watermark: 400, low_watermark: 100, output_limit: 1000, ..limits() };
        let mut sim = Sim::new(Box::<Party>::default(), limits);
        let (speaker, slow) = (sim.accepted(), sim.accepted());
        sim.net().set_window(slow, 0);
        let line = format!("{}\n", "x".repeat(99));
        for _ in 0..lines {
            sim.send(speaker, &line);
            sim.turns(2);
        }
        assert_eq!(sim.closed(Reason::OutputLimit), closed, "{lines} lines of 100 bytes");
        assert_eq!(sim.received(speaker).len(), lines * 100);
        assert!(sim.reactor.ledger().write_buffers <= 1024);
    }
}

#[test]
fn output_behind_output_of_the_same_turn_keeps_its_order_however_slow_the_peer() {
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

// Admission and errors of the kernel.

#[test]
fn a_full_house_waits_in_the_accept_queue_and_moves_up() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 3, ..limits() });
    let clients: Vec<ClientId> = (0..5).map(|_| sim.client()).collect();
    sim.turns(5);
    assert_eq!((sim.reactor.connections(), sim.reactor.gate()), (3, Gate::Full));
    assert_eq!(sim.received(clients[3]), "");
    sim.net().client_close(clients[0]);
    sim.turns(3);
    assert_eq!(sim.received(clients[3]), "Hello\r\n");
    assert_eq!(sim.received(clients[4]), "");
}

#[test]
fn running_out_of_files_is_retried_by_timer_and_does_not_spin() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let inside = sim.accepted();
    let files = sim.net().open_files();
    sim.net().set_file_limit(files);
    let waiting = sim.client();
    let turns = sim.reactor.stats().turns;
    sim.pass(10 * SECOND);
    assert_eq!(sim.reactor.gate(), Gate::Exhausted);
    let spent = sim.reactor.stats().turns - turns;
    assert!(spent <= 250, "{spent} turns in 10 s of retries every 100 ms");
    assert_eq!(sim.exchange(inside, "x\n"), "Hello\r\nHello, x!\r\n", "those inside go on");
    // No edge tells that a file is free: the timer finds out.
    sim.net().set_file_limit(100);
    sim.pass(SECOND / 5);
    assert_eq!(sim.received(waiting), "Hello\r\n");
}

#[test]
fn a_connection_given_up_before_it_was_accepted_does_not_stop_the_listener() {
    for errno in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::ENOBUFS, libc::EMFILE, libc::EINVAL] {
        let mut sim = Sim::new(Box::new(Hello), limits());
        sim.net().fail_accepts(errno, 3);
        let clients: Vec<ClientId> = (0..4).map(|_| sim.client()).collect();
        sim.pass(SECOND);
        assert_eq!(sim.received(clients[3]), "Hello\r\n", "errno {errno}");
    }
}

#[test]
fn events_for_a_slots_previous_owner_miss() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let first = sim.accepted();
    sim.send(first, "x\n");
    sim.net().client_reset(first);
    sim.turn();
    assert_eq!(sim.reactor.connections(), 0);
    let second = sim.client();
    sim.turns(3);
    assert_eq!(sim.received(second), "Hello\r\n");
    // The first had generation 1 in slot 0, which the second has now.
    let stale = Ready { token: Token::connection(0, Generation::FIRST), readable: true, writable: true, read_on: true };
    let reads = sim.reactor.stats().reads;
    sim.net().inject(stale);
    sim.turn();
    assert_eq!((sim.reactor.stats().reads, sim.reactor.stats().stale_events), (reads, 1), "nothing is read for it");
    assert_eq!(sim.exchange(second, "mine\n"), "Hello, mine!\r\n");
}

// Datagrams.

#[test]
fn datagrams_are_answered_to_their_senders_in_order() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let (to, ada, bob) = (sim.address, "127.0.0.8:1000".parse().unwrap(), "127.0.0.9:1000".parse().unwrap());
    for (from, bytes) in [(ada, "Ada"), (bob, "Bob"), (ada, "")] {
        sim.net().send_datagram(to, from, bytes.as_bytes());
    }
    sim.turn();
    let texts = |answers: Vec<(SocketAddr, Vec<u8>)>| -> Vec<String> {
        answers.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    };
    assert_eq!(texts(sim.net().datagrams_received(ada)), ["Hello, Ada!", "Hello, !"]);
    assert_eq!(texts(sim.net().datagrams_received(bob)), ["Hello, Bob!"]);
}

#[test]
fn batches_of_datagrams_are_bounded_per_turn_and_the_rest_is_carried() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let (to, from) = (sim.address, "127.0.0.8:1000".parse().unwrap());
    (0..130).for_each(|_| {
        sim.net().send_datagram(to, from, b"x");
    });
    for received in [64, 128, 130] {
        sim.turn();
        assert_eq!(sim.reactor.stats().datagrams_in, received);
    }
    assert_eq!(sim.net().datagrams_received(from).len(), 130);
}

#[test]
fn datagram_errors_are_counted_and_the_socket_lives() {
    let (from, own) = ("127.0.0.8:1000".parse().unwrap(), 0);
    let mut sim = Sim::new(Box::new(Echo), limits());
    let to = sim.address;
    sim.net().fail_receives(libc::ENOMEM, 1);
    sim.net().send_datagram(to, from, b"one");
    sim.pass(SECOND);
    sim.net().fail_sends(libc::EPERM, 1);
    sim.net().send_datagram(to, from, b"refused");
    sim.net().send_datagram(to, from, b"two");
    sim.turns(2);
    let answers: Vec<Vec<u8>> = sim.net().datagrams_received(from).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(answers, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(sim.reactor.stats().datagram_errors, 2);
    // Port 0 cannot be answered, the service's own port must not be.
    for port in [own, to.port()] {
        sim.net().send_datagram(to, SocketAddr::from(([127, 0, 0, 7], port)), b"x");
    }
    sim.turns(2);
    assert_eq!(sim.reactor.stats().datagrams_dropped_loop, 2);
}

#[test]
fn two_echo_services_do_not_answer_each_other_for_ever() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let other = SocketAddr::from(([127, 0, 0, 2], sim.address.port()));
    let twin = sim.reactor.add_service(Box::new(Echo));
    sim.reactor.bind(other, twin).unwrap();
    let address = sim.address;
    sim.net().send_datagram(address, other, b"around");
    sim.turns(20);
    assert!(sim.reactor.stats().datagrams_out <= 1, "{} answers", sim.reactor.stats().datagrams_out);
}

#[test]
fn services_on_two_ports_do_not_answer_each_other_for_ever() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let twin = sim.reactor.add_service(Box::new(Echo));
    let other = sim.reactor.bind("127.0.0.1:0".parse().unwrap(), twin).unwrap();
    let address = sim.address;
    sim.net().send_datagram(address, other, b"around");
    sim.turns(20);
    assert!(sim.reactor.stats().datagrams_out <= 1, "{} answers", sim.reactor.stats().datagrams_out);
}

// Stopping, and giving back.

#[test]
fn the_loops_own_timers_hold_beyond_the_wheels_reach() {
    let mut sim =
        Sim::new(Box::new(Echo), Limits { drain_timeout: 300 * SECOND, output_timeout: Duration::ZERO, ..limits() });
    sim.reactor.set_report_every(200 * SECOND);
    sim.pass(199 * SECOND);
    assert!(!sim.reactor.take_report_due());
    sim.pass(2 * SECOND);
    assert!(sim.reactor.take_report_due());
    let deaf = sim.accepted();
    sim.net().set_window(deaf, 0);
    sim.exchange(deaf, vec![b'x'; 70_000]);
    sim.reactor.drain();
    sim.pass(299 * SECOND);
    assert!(!sim.reactor.is_drained());
    sim.pass(2 * SECOND);
    assert!(sim.reactor.is_drained());
}

/// Lines beyond a turn's budget wait in the server while it is paused: that is no message which the peer fails to complete.
#[test]
fn a_peer_is_not_blamed_for_what_the_server_does_not_read() {
    let limits = Limits {
        high_watermark: 100,
        low_watermark: 10,
        message_timeout: SECOND,
        output_timeout: Duration::ZERO,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Hello), limits);
    let client = sim.accepted();
    sim.net().set_window(client, 0);
    sim.exchange(client, "a line\n".repeat(300));
    sim.pass(10 * SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.net().set_window(client, 65_536);
    sim.received(client);
    let mut answers = 0;
    for _ in 0..100 {
        sim.turns(3);
        answers += sim.received(client).len();
    }
    assert!(answers >= 299 * "Hello, a line!\r\n".len(), "{answers} bytes");
    sim.exchange(client, "part of a line");
    sim.pass(2 * SECOND);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
}

#[test]
fn a_drain_answers_what_has_arrived_and_closes_everyone() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.send(*client, "last\n"));
    sim.reactor.drain();
    sim.turns(3);
    for client in &clients {
        assert_eq!(sim.received(*client), "Hello\r\nHello, last!\r\n");
        assert_eq!(sim.net().client_saw(*client), End::Fin);
        sim.net().client_close(*client);
    }
    sim.turns(3);
    assert!(sim.reactor.is_drained());
    assert_eq!(sim.closed(Reason::Drain), 10);
}

#[test]
fn a_drain_ends_within_its_timeout_whatever_the_peers_do() {
    let mut sim =
        Sim::new(Box::new(Echo), Limits { drain_timeout: 3 * SECOND, close_timeout: 60 * SECOND, ..limits() });
    let (idle, deaf, part) = (sim.accepted(), sim.accepted(), sim.accepted());
    sim.net().set_window(deaf, 0);
    sim.exchange(deaf, [b'x'; 100]);
    sim.exchange(part, "x");
    sim.reactor.drain();
    sim.turns(3);
    assert_eq!(sim.net().client_saw(idle), End::Fin, "nothing is owed to it");
    sim.pass(2 * SECOND);
    assert!(!sim.reactor.is_drained());
    sim.pass(SECOND + 3 * Tick::LENGTH);
    assert!(sim.reactor.is_drained());
    assert_eq!(sim.closed(Reason::DrainTimeout), 1);
}

#[test]
fn signals_reach_whoever_turns_the_loop() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    assert!(sim.reactor.take_signals().is_empty());
    sim.net().raise(Signal::Status);
    sim.net().raise(Signal::Stop);
    sim.turn();
    assert_eq!(sim.reactor.take_signals(), [Signal::Status, Signal::Stop]);
    assert!(sim.reactor.take_signals().is_empty());
}

#[test]
fn after_a_load_drop_the_ledger_is_at_zero() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_connections: 2000, ..limits() });
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let client = sim.accepted();
        sim.send(client, "part of a line");
        clients.push(client);
    }
    sim.turn();
    let loaded = sim.reactor.ledger();
    assert_eq!(loaded.read_buffers, 64_000);
    clients.iter().for_each(|client| sim.net().client_close(*client));
    sim.pass(2 * SECOND);
    assert_eq!(sim.reactor.stats().trims, 1);
    assert_eq!(sim.reactor.ledger().for_connections(), 0);
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "again\n"), "Hello\r\nHello, again!\r\n");
}

// Orders of things that no hand-written test would think of.

/// Clients that do anything at all, with a shadow model of what each must receive. `SLABD_SEED=7 cargo test --test simulated seeds`
/// replays one seed.
#[test]
fn seeds_under_a_harsh_network() {
    let seeds = match std::env::var("SLABD_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).expect("SLABD_SEED is a number"),
        Err(_) => 0..300,
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| storm(seed));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} failed; replay with SLABD_SEED={seed} cargo test --test simulated seeds");
            std::panic::resume_unwind(panic);
        }
    }
}

struct Shadow {
    client: ClientId,
    sent: Vec<u8>,
    received: Vec<u8>,
    reads: bool,
    closed: bool,
}

/// One random run: random limits, random faults, random clients; then quiet, and everything must be over.
fn storm(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits {
        max_connections: random.usize(1..20),
        messages_per_turn: random.usize(1..8),
        reads_per_turn: random.usize(1..4),
        accepts_per_turn: random.usize(1..4),
        connections_per_turn: random.usize(1..8),
        expiries_per_turn: random.usize(1..4),
        output_per_turn: random.usize(1..5000),
        high_watermark: random.usize(2000..5000),
        low_watermark: random.usize(0..2000),
        idle_timeout: random.u32(0..3) * 20 * SECOND,
        first_message_timeout: random.u32(0..3) * 20 * SECOND,
        ..Limits::default()
    };
    let mode = if random.u8(0..4) == 0 { BufferMode::Fixed(random.usize(64..2000)) } else { BufferMode::Pooled };
    let faults = Faults { spurious_event: if random.bool() { 0.1 } else { 0.0 }, ..Faults::harsh() };
    let lines = random.bool();
    let service: Box<dyn Service> = if lines { Box::new(Hello) } else { Box::new(Echo) };
    let mut sim = Sim::on(SimNet::with_faults(seed, faults), service, limits, mode);
    let mut shadows: Vec<Shadow> = Vec::new();
    for _ in 0..400 {
        step(&mut sim, &mut shadows, &mut random);
    }
    // The faults stop and everyone reads on: within sixty virtual seconds each is served to the end, or was closed.
    for shadow in &mut shadows {
        if !shadow.closed {
            sim.net().client_shutdown(shadow.client);
        }
    }
    for _ in 0..600 {
        sim.pass(SECOND / 10);
        shadows.iter_mut().for_each(|shadow| shadow.received.extend(sim.net().client_received(shadow.client)));
    }
    for shadow in &shadows {
        verify(&mut sim, shadow, lines);
        sim.net().client_close(shadow.client);
    }
    sim.pass(60 * SECOND);
    assert_eq!(sim.reactor.connections(), 0, "someone is held for ever");
    let ledger = sim.reactor.ledger();
    assert_eq!((ledger.read_buffers, ledger.write_buffers), (0, 0));
    assert_eq!(sim.net().open_files(), 2, "the listener and the datagram socket");
}

/// Something happens to someone, then the loop turns.
fn step(sim: &mut Sim, shadows: &mut Vec<Shadow>, random: &mut fastrand::Rng) {
    let address = sim.address;
    match random.u8(0..12) {
        0 | 1 => {
            if let Some(client) = sim.net().client(address) {
                let reads = random.u8(0..4) > 0;
                shadows.push(Shadow { client, sent: Vec::new(), received: Vec::new(), reads, closed: false });
            }
        }
        2..=7 if !shadows.is_empty() => {
            let chosen = random.usize(..shadows.len());
            let shadow = &mut shadows[chosen];
            let mut bytes: Vec<u8> = (0..random.usize(1..400)).map(|_| random.alphanumeric() as u8).collect();
            bytes.iter_mut().for_each(|byte| {
                if *byte < b'D' {
                    *byte = b'\n';
                }
            });
            if !shadow.closed && sim.net().client_send(shadow.client, &bytes) {
                shadow.sent.extend(bytes);
            }
        }
        8 if !shadows.is_empty() => {
            let chosen = random.usize(..shadows.len());
            let shadow = &mut shadows[chosen];
            if random.u8(0..3) == 0 && !shadow.closed {
                shadow.closed = true;
                if random.bool() {
                    sim.net().client_reset(shadow.client)
                } else {
                    sim.net().client_close(shadow.client)
                }
            }
        }
        9 => {
            sim.net().advance(Duration::from_millis(random.u64(0..3000)));
        }
        10 => {
            sim.net().send_datagram(address, "127.0.0.8:1000".parse().unwrap(), b"datagram");
        }
        _ => {}
    }
    for shadow in shadows.iter_mut().filter(|shadow| shadow.reads && !shadow.closed) {
        let some = random.usize(0..500);
        shadow.received.extend(sim.net().client_take(shadow.client, some));
    }
    sim.turns(random.usize(0..3));
}

/// What it received is what it was owed, or the beginning of that where the connection ended early.
fn verify(sim: &mut Sim, shadow: &Shadow, lines: bool) {
    let owed: Vec<u8> = if lines {
        let mut owed = b"Hello\r\n".to_vec();
        let mut sent = &shadow.sent[..];
        while let Some(end) = sent.iter().position(|byte| *byte == b'\n') {
            owed.extend([b"Hello, ", &sent[..end], b"!\r\n"].concat());
            sent = &sent[end + 1..];
        }
        if !sent.is_empty() {
            owed.extend([b"Hello, ", sent, b"!\r\n"].concat());
        }
        owed
    } else {
        shadow.sent.clone()
    };
    let got = &shadow.received;
    let prefix = got.len() <= owed.len() && owed[..got.len()] == got[..];
    assert!(prefix, "received {:?}, owed {:?}", got.escape_ascii().to_string(), owed.escape_ascii().to_string());
    let ended_in_order = !shadow.closed && sim.net().client_saw(shadow.client) == End::Fin;
    let timeouts =
        sim.closed(Reason::IdleTimeout) + sim.closed(Reason::FirstMessageTimeout) + sim.closed(Reason::LineTooLong);
    if ended_in_order && timeouts + sim.closed(Reason::CloseTimeout) + sim.closed(Reason::OutputTimeout) == 0 {
        assert_eq!(got.len(), owed.len(), "an end in order before everything was received");
    }
}

//! What services say and how a connection ends, on the simulated network: a byte's way through the loop.

#![forbid(unsafe_code)]

#[path = "support/sim.rs"]
mod sim;

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::End;
use slabd::service::hello::Hello;
use slabd::service::server::Server;
use slabd::service::{Reply, Service, Taken, receive_line};

use sim::{SECOND, Sim, limits};

#[test]
fn hello_greets_in_the_turn_that_accepts_and_answers_in_the_turn_that_reads() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    assert_eq!(sim.received(client), "Hello\r\n");
    sim.send(client, "Ada\n");
    sim.turn();
    assert_eq!(sim.received(client), "Hello, Ada!\r\n");
    assert_eq!((sim.reactor.stats().work.reads, sim.reactor.stats().work.writes), (1, 2));
}

#[test]
fn answers_of_one_turn_leave_in_one_write() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    let writes = sim.reactor.stats().work.writes;
    assert_eq!(sim.exchange(client, "a\nb\nc\n"), "Hello\r\nHello, a!\r\nHello, b!\r\nHello, c!\r\n");
    assert_eq!(sim.reactor.stats().work.writes - writes, 1);
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
        fn receive(
            &mut self,
            input: &mut [u8],
            scanned: usize,
            reply: &mut Reply<'_>,
            server: &mut dyn Server,
        ) -> Taken {
            receive_line(input, scanned, reply, server, |_line, reply| {
                reply.send(b"bye\r\n");
                reply.close();
            })
        }

        fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {}
    }
    let mut sim = Sim::new(Box::new(Bye), limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "x\nnever answered\n"), "bye\r\n");
    assert_eq!(sim.net().client_saw(client), End::Fin);
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!(sim.closed(Reason::ServiceClosed), 1);
}

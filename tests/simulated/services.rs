//! The small services: their answers, and the end of a connection.

use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::End;
use slabd::service::hello::Hello;
use slabd::service::server::Server;
use slabd::service::{Reply, Service, Taken, receive_line};

use crate::sim::{SECOND, Sim, limits};

#[test]
fn hello_greets_when_it_accepts_and_answers_when_it_reads() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    assert_eq!(sim.received(client), "Hello\r\n");
    sim.send(client, "Ada\n");
    sim.turn();
    assert_eq!(sim.received(client), "Hello, Ada!\r\n");
    assert_eq!((sim.reactor.stats().work.reads, sim.reactor.stats().work.writes), (1, 2));
}

#[test]
fn the_answers_of_a_turn_leave_in_one_write() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let client = sim.accepted();
    let writes = sim.reactor.stats().work.writes;
    assert_eq!(
        sim.exchange(client, "a\nb\nc\n"),
        "Hello\r\nHello, a!\r\nHello, b!\r\nHello, c!\r\n"
    );
    assert_eq!(sim.reactor.stats().work.writes - writes, 1);
}

#[test]
fn a_half_closed_client_gets_the_answer_to_a_last_line_without_a_line_break() {
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
fn a_reset_within_a_line_closes_the_connection_once() {
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
fn a_client_gets_the_error_of_a_long_line_despite_unread_input() {
    let mut sim = Sim::new(Box::new(Hello), Limits { max_line: 8, ..limits() });
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "12345678\n"), "Hello\r\nHello, 12345678!\r\n");
    sim.send(client, "123456789");
    sim.turn();
    // The server reads and drops further input while it is closing. Otherwise the kernel would
    // reset the connection and destroy the error.
    sim.send(client, vec![b'x'; 100_000]);
    sim.turns(5);
    assert_eq!(sim.received(client), "error: line longer than 8 bytes\r\n");
    assert_eq!(sim.net().client_saw(client), End::Fin);
    assert_eq!(sim.reactor.connections(), 1, "the connection waits for the peer's close");
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::LineTooLong)), (0, 1));
}

#[test]
fn a_client_that_does_not_close_after_an_error_is_closed_at_the_close_timeout() {
    let mut sim =
        Sim::new(Box::new(Hello), Limits { max_line: 8, close_timeout: 2 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.exchange(client, "123456789");
    sim.pass(SECOND);
    assert_eq!(sim.reactor.connections(), 1);
    sim.pass(SECOND + 3 * Tick::LENGTH);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::LineTooLong)), (0, 1));
}

#[test]
fn a_service_can_close_a_connection_after_its_output_is_sent() {
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

        fn datagram(&mut self, _datagram: &[u8], _reply: &mut Reply<'_>, _server: &mut dyn Server) {
        }
    }
    let mut sim = Sim::new(Box::new(Bye), limits());
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "x\nnever answered\n"), "bye\r\n");
    assert_eq!(sim.net().client_saw(client), End::Fin);
    sim.net().client_close(client);
    sim.turns(2);
    assert_eq!(sim.closed(Reason::ServiceClosed), 1);
}

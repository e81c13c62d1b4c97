//! Datagrams: the order of answers, batches, errors, and answer loops that must not start.

use std::net::SocketAddr;

use slabd::service::echo::Echo;
use slabd::service::hello::Hello;

use crate::sim::{SECOND, Sim, limits};

#[test]
fn datagrams_are_answered_to_their_senders_in_order() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let (to, ada, bob) =
        (sim.address, "127.0.0.8:1000".parse().unwrap(), "127.0.0.9:1000".parse().unwrap());
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
fn a_turn_receives_one_batch_of_datagrams_and_carries_the_rest() {
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
fn datagram_errors_are_counted_and_the_socket_serves_on() {
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
    let answers: Vec<Vec<u8>> =
        sim.net().datagrams_received(from).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(answers, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(sim.reactor.stats().datagram_errors, 2);
    // Nothing can be sent to port 0, and an answer to the service's own port would loop.
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
    assert!(
        sim.reactor.stats().datagrams_out <= 1,
        "{} answers",
        sim.reactor.stats().datagrams_out
    );
}

#[test]
fn services_on_two_ports_do_not_answer_each_other_for_ever() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let twin = sim.reactor.add_service(Box::new(Echo));
    let other = sim.reactor.bind("127.0.0.1:0".parse().unwrap(), twin).unwrap();
    let address = sim.address;
    sim.net().send_datagram(address, other, b"around");
    sim.turns(20);
    assert!(
        sim.reactor.stats().datagrams_out <= 1,
        "{} answers",
        sim.reactor.stats().datagrams_out
    );
}

//! Datagrams: the order of answers, batches, errors, and answer loops that must not start.

use std::net::SocketAddr;

use slabd::limits::{LOOP_RETURNS_MAX, Limits};
use slabd::service::Service;
use slabd::service::discard::Discard;
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;

use crate::sim::{SECOND, Sim, hub, limits, subscriber};

#[test]
fn datagrams_are_answered_to_their_senders_in_order() {
    let mut sim = Sim::new(Box::new(Hello), limits());
    let (to, ada, bob) =
        (sim.address, "127.0.0.8:2000".parse().unwrap(), "127.0.0.9:2000".parse().unwrap());
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
    let (to, from) = (sim.address, "127.0.0.8:2000".parse().unwrap());
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
    let (from, own) = ("127.0.0.8:2000".parse().unwrap(), 0);
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

#[test]
fn no_answer_goes_to_the_port_of_a_service() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let to = sim.address;
    for port in [1, 7, 53, 1023, 1900] {
        sim.net().send_datagram(to, SocketAddr::from(([127, 0, 0, 8], port)), b"x");
    }
    sim.turns(2);
    assert_eq!(sim.reactor.stats().datagrams_dropped_port, 5);
    let from = SocketAddr::from(([127, 0, 0, 8], 1024));
    sim.net().send_datagram(to, from, b"x");
    sim.turns(2);
    assert_eq!(sim.net().datagrams_received(from).len(), 1);
    assert_eq!(sim.reactor.stats().datagrams_out, 1);
}

/// The other server is on another machine and another port.
#[test]
fn a_loop_with_another_server_ends_by_itself() {
    let other = SocketAddr::from(([10, 0, 0, 1], 7007));
    let services: [(Box<dyn Service>, usize); 3] = [
        (Box::new(Echo), usize::from(LOOP_RETURNS_MAX)),
        (Box::new(Hello), 1),
        (Box::new(Discard), 0),
    ];
    for (service, most) in services {
        let mut sim = Sim::new(service, limits());
        let to = sim.address;
        sim.net().send_datagram(to, other, b"around");
        let mut answers = 0;
        for _ in 0..2 * LOOP_RETURNS_MAX {
            sim.turn();
            for (_, bytes) in sim.net().datagrams_received(other) {
                answers += 1;
                sim.net().send_datagram(to, other, &bytes);
            }
        }
        assert_eq!(answers, most);
    }
}

#[test]
fn all_services_share_the_rate_of_a_network() {
    for rate in [4, 5, 6] {
        let limits = Limits { datagram_rate: rate, ..limits() };
        let mut sim = Sim::new(Box::new(Echo), limits);
        let twin = sim.reactor.add_service(Box::new(Hello));
        let other = sim.reactor.bind("127.0.0.1:0".parse().unwrap(), twin).unwrap();
        let echo = sim.address;
        let from: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        for number in 0..5 {
            let to = if number % 2 == 0 { echo } else { other };
            sim.net().send_datagram(to, from, &[number]);
        }
        sim.turns(4);
        let dropped = 5_u64.saturating_sub(rate.into());
        assert_eq!(sim.reactor.stats().datagrams_dropped_rate, dropped, "of rate {rate}");
        assert_eq!(sim.net().datagrams_received(from).len() as u64, 5 - dropped);
    }
}

#[test]
fn a_datagram_of_several_lines_runs_nothing() {
    let mut sim = hub(limits());
    let (to, witness) = (sim.address, subscriber(&mut sim, "a"));
    for datagram in [
        &b"GET / HTTP/1.1\r\nPUBLISH a 1\r\n"[..],
        b"PUBLISH a 1\r\nPUBLISH a 2\r\n",
        b"\r\nPUBLISH a 1\r\n",
        b"PUBLISH a 1\r\n\r\n",
        b"AUTH x\r\nPUBLISH a 1\r\n",
        b"PUBLISH a 1\rPUBLISH a 2",
        b"PUBLISH a 1\0",
        b"PUBLISH sip:a SIP/2.0\r\n",
        b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1\r\n1\r\nPING\r\n",
    ] {
        sim.net().send_datagram(to, "127.0.0.8:2000".parse().unwrap(), datagram);
        sim.turns(3);
        assert_eq!(sim.received(witness), "", "{}", datagram.escape_ascii());
    }
    sim.net().send_datagram(to, "127.0.0.8:2000".parse().unwrap(), b"PUBLISH a 1\r\n");
    sim.turns(3);
    assert!(sim.received(witness).ends_with("$1\r\n1\r\n"));
}

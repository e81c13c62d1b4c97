//! Commands in datagrams: the password, answers no longer than their datagrams, and the rate.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::hub_answers::{authenticated, connect, guarded, info_number};
use crate::support::{PATIENCE, Server, ask, datagrams};

#[test]
fn a_datagram_carries_the_password_with_its_command() {
    let mut server = guarded(&[]);
    let mut subscriber = authenticated(&server);
    subscriber.send("SUBSCRIBE news\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let udp = datagrams(server.address("hub"));
    let refused = [
        &b"PUBLISH news never"[..],
        b"AUTH wrong\nPUBLISH news never",
        b"AUTH default secret\nPUBLISH news never",
        b"AUTH \nPUBLISH news never",
        b"AUTH secret PUBLISH news never",
        b"\nPUBLISH news never\n",
        b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$5\r\nnever\r\n",
    ];
    refused.iter().for_each(|datagram| assert!(udp.send(datagram).unwrap() > 0));
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH news first"), b":1\r\n");
    assert_eq!(
        ask(&udp, b"auth secret\r\n*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$6\r\nsecond\r\n"),
        b":1\r\n"
    );
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nfirst\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\nsecond\r\n");
    assert_eq!(info_number(&mut authenticated(&server), "datagrams_refused"), refused.len() as u64);
    assert_eq!(
        (server.count("datagrams/in"), server.count("datagrams/out")),
        (refused.len() as u64 + 2, 2)
    );

    // The password of one datagram does not count for the next.
    udp.send(b"PUBLISH news never").unwrap();
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH none x"), b":0\r\n");
    // Wrong guesses in datagrams are rate-limited, too, and concern their sender alone.
    let guesser = from([127, 0, 0, 1], &server);
    for number in 0..100 {
        let guess = format!("AUTH guess{number}\nPUBLISH news never");
        guesser.send(guess.as_bytes()).unwrap();
    }
    guesser.send(b"AUTH secret\nPUBLISH news never").unwrap();
    assert_eq!(ask(&udp, b"AUTH secret\nPUBLISH news last"), b":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\nlast\r\n");
}

/// Returns a UDP socket with this address that is connected to the server.
fn from(source: [u8; 4], server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(source), 0)).unwrap();
    socket.connect(server.address("hub")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn an_answer_is_never_longer_than_its_datagram_with_the_password() {
    let server = guarded(&[]);
    let udp = datagrams(server.address("hub"));
    // The answer is "*2\r\n$10\r\n1234567890\r\n$6\r\n123456\r\n". Its microseconds can have fewer
    // digits.
    let (shortest, longest) = (4 + 17 + 7, 4 + 17 + 12);
    let mut answer = [0; 100];
    for length in 16..=longest + 2 {
        let question = format!("{:length$}", "AUTH secret\nTIME");
        assert_eq!(question.len(), length);
        udp.send(question.as_bytes()).unwrap();
        // Answers keep their order, so this one shows whether another came before it.
        let barrier = format!("$2\r\n{length}\r\n");
        udp.send(format!("AUTH secret\nECHO {length}").as_bytes()).unwrap();
        let got = udp.recv(&mut answer).unwrap();
        if &answer[..got] == barrier.as_bytes() {
            assert!(length < longest, "{length} bytes got no answer");
            continue;
        }
        assert!(got <= length && got >= shortest, "{length} bytes got {got}");
        let got = udp.recv(&mut answer).unwrap();
        assert_eq!(&answer[..got], barrier.as_bytes());
    }
}

#[test]
fn datagrams_of_one_network_are_accepted_up_to_the_rate() {
    for (sent, taken) in [(3, 3), (4, 4), (5, 4)] {
        // All datagrams must arrive within a short time. On a busy machine, the test tries again
        // with a new server.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "this machine is too slow");
            let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--datagram-rate", "4"]);
            let mut observer = connect(&server);
            let begun = Instant::now();
            for source in 0..sent {
                from([127, 0, 0, 10 + source], &server).send(b"PUBLISH news x").unwrap();
            }
            // A datagram of another test, to a server that had the port before, may arrive as well.
            let (mut published, mut dropped) = (0, 0);
            while published + dropped < u64::from(sent) && Instant::now() < deadline {
                published = info_number(&mut observer, "published_messages");
                dropped = info_number(&mut observer, "dropped_rate");
            }
            // The server accepts one more datagram each quarter of a second, so only a faster try
            // counts.
            if begun.elapsed() < Duration::from_millis(200) {
                assert_eq!((published, dropped), (taken, u64::from(sent) - taken), "of {sent}");
                break;
            }
        }
    }
    let mut server = Server::start(&["--listen", "hub=127.0.0.1:0", "--datagram-rate", "0"]);
    let udp = datagrams(server.address("hub"));
    (0..200).for_each(|_| assert_eq!(ask(&udp, b"PUBLISH news x"), b":0\r\n"));
    assert_eq!(server.count("datagrams/out"), 200);
}

//! The answers of the small services, over TCP and UDP, IPv4 and IPv6.

use std::time::Duration;

use crate::support::{Client, Server, ask, datagrams};

#[test]
fn hello_answers_every_line_over_ipv4_and_ipv6() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0", "--listen", "hello=[::1]:0"]);
    for address in server.addresses() {
        let mut client = Client::connect(address);
        client.expect("Hello\r\n").send("Ada\r\n").expect("Hello, Ada!\r\n");
        client.send("Grace\nAlan\n").expect("Hello, Grace!\r\nHello, Alan!\r\n");
        client.shutdown().expect_end();
        assert_eq!(ask(&datagrams(address), b"Ada"), b"Hello, Ada!");
    }
}

#[test]
fn a_service_answers_tcp_and_udp_on_one_port() {
    let server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
    let address = server.address("hello");
    Client::connect(address).expect("Hello\r\n");
    assert_eq!(ask(&datagrams(address), b"x"), b"Hello, x!");
    assert_eq!(server.addresses().len(), 1, "the log has one line for both transports");
}

#[test]
fn a_service_can_listen_on_one_transport_only() {
    let server =
        Server::start(&["--listen", "hello+tcp=127.0.0.1:0", "--listen", "echo+udp=127.0.0.1:0"]);
    Client::connect(server.address("hello")).expect("Hello\r\n");
    assert_eq!(ask(&datagrams(server.address("echo")), b"x"), b"x");
    let refused = std::net::TcpStream::connect(server.address("echo")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let udp = datagrams(server.address("hello"));
    udp.send(b"x").unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn echo_returns_every_byte_of_a_long_stream() {
    let server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("echo"));
    let mut writer = client.0.try_clone().unwrap();
    let sent: Vec<u8> =
        (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let copy = sent.clone();
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.read_to_end().unwrap() == sent, "the echo differs");
    sender.join().unwrap();
    assert_eq!(ask(&datagrams(server.address("echo")), b"one datagram"), b"one datagram");
}

#[test]
fn discard_reads_all_input_and_sends_nothing() {
    let mut server = Server::start(&["--listen", "discard=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("discard"));
    client.send(vec![b'x'; 1_000_000]).shutdown().expect_end();
    assert_eq!(server.count("loop/bytes in"), 1_000_000);
    let udp = datagrams(server.address("discard"));
    udp.send(b"x").unwrap();
    server.wait_for_count("datagrams/in", |count| count == 1);
    udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(udp.recv(&mut [0; 8]).is_err());
    assert_eq!(server.count("datagrams/out"), 0);
}

/// The kernel would answer from its preferred address, and a socket that is connected to another
/// address would not get the answer.
#[test]
fn a_datagram_to_any_address_is_answered_from_that_address() {
    let server = Server::start(&["--listen", "echo=0.0.0.0:0", "--listen", "hello=[::]:0"]);
    let port = server.address("echo").port();
    for host in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
        assert_eq!(ask(&datagrams((host, port).into()), b"x"), b"x");
    }
    let hello =
        std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, server.address("hello").port()));
    assert_eq!(ask(&datagrams(hello), b"x"), b"Hello, x!");
}

#[test]
fn each_message_is_logged_at_debug_level_with_its_bytes() {
    let mut server = Server::start_with_log_level("debug", &["--listen", "hello=127.0.0.1:0"]);
    Client::connect(server.address("hello"))
        .expect("Hello\r\n")
        .send(b"a\0\xff\n")
        .expect(b"Hello, a\0\xff!\r\n");
    let line = server.wait_for_log("hello: 3 bytes");
    assert!(line.contains(r"a\u0000\xff"), "{line}");
}

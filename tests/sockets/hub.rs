//! The hub with Redis clients: commands, both protocol versions, subscriptions, publishes,
//! datagrams.

use std::process::Command;

use crate::support::hub_answers::info_number;
use crate::support::{self, Client, Server, ask, datagrams};

fn hub() -> Server {
    Server::start(&["--listen", "hub=127.0.0.1:0"])
}

#[test]
fn inline_and_resp_commands_get_the_same_answers() {
    let server = hub();
    let mut client = Client::connect(server.address("hub"));
    client.send("PING\r\n").expect("+PONG\r\n");
    client.send("*1\r\n$4\r\nping\r\n").expect("+PONG\r\n");
    client.send("ECHO \"two words\"\n").expect("$9\r\ntwo words\r\n");
    client.send("*2\r\n$4\r\nECHO\r\n$3\r\n\0\r\n\r\n").expect("$3\r\n\0\r\n\r\n");
    client.send("\r\n*0\r\nPING\r\n").expect("+PONG\r\n");
    client.send("PING\r\n".repeat(1000)).expect("+PONG\r\n".repeat(1000));
    client.send("QUIT\r\n").expect("+OK\r\n").expect_end();
}

#[test]
fn errors_have_the_same_text_as_in_redis() {
    let mut server = hub();
    let mut client = Client::connect(server.address("hub"));
    client.send("PING\r\n").expect("+PONG\r\n");
    for (sent, error) in [
        ("GET key\r\n", "-ERR unknown command 'GET', with args beginning with: 'key' \r\n"),
        ("ECHO\r\n", "-ERR wrong number of arguments for 'echo' command\r\n"),
        ("CLIENT nope\r\n", "-ERR unknown subcommand 'nope'. Try CLIENT HELP.\r\n"),
        ("CLIENT id x\r\n", "-ERR wrong number of arguments for 'client|id' command\r\n"),
        ("HELLO 4\r\n", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO -1\r\n", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO \"\"\r\n", "-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 03\r\n", "-ERR Protocol version is not an integer or out of range\r\n"),
        (
            "HELLO 99999999999999999999\r\n",
            "-ERR Protocol version is not an integer or out of range\r\n",
        ),
        ("SELECT 15\r\n", "+OK\r\n"),
        ("SELECT 16\r\n", "-ERR DB index is out of range\r\n"),
        ("SELECT -1\r\n", "-ERR DB index is out of range\r\n"),
        ("SELECT abc\r\n", "-ERR value is not an integer or out of range\r\n"),
        ("SELECT 00\r\n", "-ERR value is not an integer or out of range\r\n"),
        ("SELECT \"\"\r\n", "-ERR value is not an integer or out of range\r\n"),
        ("CLIENT KILL USER nobody\r\n", "-ERR No such user 'nobody'\r\n"),
        ("CLIENT KILL USER default ID 99\r\n", ":0\r\n"),
        ("COMMAND COUNT x\r\n", "-ERR wrong number of arguments for 'command|count' command\r\n"),
        ("COMMAND LIST x\r\n", "-ERR syntax error\r\n"),
        ("COMMAND \"\"\r\n", "-ERR unknown subcommand ''. Try COMMAND HELP.\r\n"),
    ] {
        client.send(sent).expect(error);
    }
    for (command, length) in
        [("CLIENT SETNAME", 129), ("HELLO 3 SETNAME", 200), ("CLIENT SETINFO lib-ver", 1000)]
    {
        let error = format!("-ERR the name has {length} bytes; accepted: up to 128 bytes\r\n");
        client.send(format!("{command} {}\r\n", "x".repeat(length))).expect(error);
    }
    // An error shows only the first 128 bytes of a client's word.
    let (long, cut) = ("x".repeat(60_000), "x".repeat(128));
    for (command, error) in [
        ("CLIENT", format!("unknown subcommand '{cut}'. Try CLIENT HELP.")),
        ("HELLO 3", format!("Syntax error in HELLO option '{cut}'")),
        ("CLIENT LIST TYPE", format!("Unknown client type '{cut}'")),
    ] {
        client.send(format!("{command} {long}\r\n")).expect(format!("-ERR {error}\r\n"));
    }
    for (sent, error) in [
        ("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\nx\r\n", "-ERR Protocol error: expected '$', got 'x'\r\n"),
        (
            "*1\r\n$99999999\r\n",
            "-ERR Protocol error: invalid bulk length; accepted: a command of up to 16777216 bytes \
            (--max-message)\r\n",
        ),
        ("ECHO \"open\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ] {
        let mut client = Client::connect(server.address("hub"));
        client.send(sent).expect(error).expect_end();
    }
    server.wait_for_count("closed by reason/protocol-error", |count| count == 4);
}

/// A web page can make a browser send a POST to any port. The hub must not run its body.
#[test]
fn a_request_of_another_protocol_runs_no_command() {
    let mut server = hub();
    for (request, expected) in [
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 411 "),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 "),
        ("post /\r\n", "-ERR unknown command 'post'"),
        ("SUBSCRIBE sip:a SIP/2.0\r\n", "-ERR Protocol error: the first line is no command"),
        ("EHLO a\r\n", "-ERR unknown command 'EHLO'"),
        ("\x16\x03\x01\x02\0\0\n", "-ERR Protocol error: control character 0x16"),
    ] {
        let mut client = Client::connect(server.address("hub"));
        client.send(format!("{request}PUBLISH news owned\r\n"));
        let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
        assert!(answer.starts_with(expected) && !answer.ends_with(":0\r\n"), "{answer}");
    }
    server.wait_for_count("closed by reason/protocol-error", |count| count == 6);
    let mut observer = Client::connect(server.address("hub"));
    assert_eq!(info_number(&mut observer, "published_messages"), 0);
}

#[test]
fn a_publish_reaches_resp2_resp3_and_pattern_subscribers() {
    let server = hub();
    let address = server.address("hub");
    let (mut resp2, mut resp3, mut pattern) =
        (Client::connect(address), Client::connect(address), Client::connect(address));
    resp2.send("SUBSCRIBE news other\r\n");
    resp2.expect(
        "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n\
         *3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:2\r\n",
    );
    resp3.send("HELLO 3\r\n");
    let mut greeting = [0; 7 + 4];
    std::io::Read::read_exact(&mut resp3.0, &mut greeting).unwrap();
    assert!(greeting.starts_with(b"%7\r\n$6\r\n"), "{}", greeting.escape_ascii());
    resp3.send("ECHO done\r\n");
    let mut rest = Vec::new();
    while !rest.ends_with(b"$4\r\ndone\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut resp3.0, &mut byte).unwrap();
        rest.extend(byte);
    }
    resp3.send("SUBSCRIBE news\r\n").expect(">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    pattern.send("PSUBSCRIBE n?ws\r\n").expect("*3\r\n$10\r\npsubscribe\r\n$4\r\nn?ws\r\n:1\r\n");

    let mut publisher = Client::connect(address);
    publisher.send("PUBLISH news hello\r\n").expect(":3\r\n");
    resp2.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    resp3.expect(">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    pattern.expect("*4\r\n$8\r\npmessage\r\n$4\r\nn?ws\r\n$4\r\nnews\r\n$5\r\nhello\r\n");

    publisher.send("PUBSUB CHANNELS\r\n").expect("*2\r\n");
    resp2.send("PING\r\n").expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    resp2.send("GET x\r\nECHO x\r\n").expect(
        "-ERR unknown command 'GET', with args beginning with: 'x' \r\n-ERR Can't execute 'echo'",
    );
    resp3.send("PING\r\n").expect("+PONG\r\n");
    // Redis sends a flat array here in RESP3, too, and clients rely on it.
    resp3
        .send("PUBSUB NUMSUB news none\r\n")
        .expect("*4\r\n$4\r\nnews\r\n:2\r\n$4\r\nnone\r\n:0\r\n");
}

#[test]
fn unsubscribe_reset_and_close_end_subscriptions() {
    let mut server = hub();
    let address = server.address("hub");
    let mut publisher = Client::connect(address);
    let mut client = Client::connect(address);
    client.send("UNSUBSCRIBE\r\n").expect("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    client.send("SUBSCRIBE a\r\nUNSUBSCRIBE a\r\n");
    client.expect(
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
    );
    publisher.send("PUBLISH a x\r\n").expect(":0\r\n");
    client
        .send("SUBSCRIBE a\r\nRESET\r\n")
        .expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+RESET\r\n");
    publisher.send("PUBLISH a x\r\n").expect(":0\r\n");
    client.send("SUBSCRIBE a\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    publisher.send("PUBLISH a x\r\n").expect(":1\r\n");
    drop(client);
    server.wait_for_count("connections/held", |count| count == 1);
    publisher.send("PUBLISH a x\r\nPUBSUB CHANNELS\r\n").expect(":0\r\n*0\r\n");
}

/// The deliveries take many turns, and no message is lost or reordered.
#[test]
fn a_fan_out_over_several_turns_keeps_all_messages_in_order() {
    let _all_files = support::all_files();
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--deliveries-per-turn", "100"]);
    let address = server.address("hub");
    let mut subscribers: Vec<Client> = (0..1000).map(|_| Client::connect(address)).collect();
    for subscriber in &mut subscribers {
        subscriber.send("SUBSCRIBE n\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nn\r\n:1\r\n");
    }
    let mut publisher = Client::connect(address);
    let publishes: String = (0..50).map(|number| format!("PUBLISH n {number:04}\r\n")).collect();
    publisher.send(publishes).expect(":1000\r\n".repeat(50));
    let expected: String = (0..50)
        .map(|number| format!("*3\r\n$7\r\nmessage\r\n$1\r\nn\r\n$4\r\n{number:04}\r\n"))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.expect(&expected);
    }
}

#[test]
fn a_datagram_runs_a_command_and_its_answer_is_never_longer() {
    let server = hub();
    let address = server.address("hub");
    let mut subscriber = Client::connect(address);
    subscriber.send("SUBSCRIBE news\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let udp = datagrams(address);
    assert_eq!(ask(&udp, b"PUBLISH news \"by datagram\""), b":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$11\r\nby datagram\r\n");
    assert_eq!(ask(&udp, b"*1\r\n$4\r\nPING\r\n"), b"+PONG\r\n");
    // A datagram that is too short for its answer, incomplete or wrong gets no answer. The next one
    // gets its answer.
    for silent in [&b"PING"[..], b"GET x and much more than that", b"\xff", b"", b"*1\r\n$4\r\nPI"]
    {
        udp.send(silent).unwrap();
    }
    assert_eq!(ask(&udp, b"ECHO 1        "), b"$1\r\n1\r\n");
}

#[test]
fn redis_cli_can_talk_to_the_hub() {
    let server = hub();
    let port = server.address("hub").port().to_string();
    let cli = |arguments: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .expect("redis-cli (redis-tools) runs");
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    };
    assert_eq!(cli(&["PING"]), "PONG");
    assert_eq!(cli(&["-3", "ECHO", "hello world"]), "hello world");
    assert_eq!(cli(&["PUBLISH", "news", "x"]), "0");
    assert!(cli(&["COMMAND", "COUNT"]).parse::<u32>().is_ok_and(|count| count > 15));
    assert!(cli(&["INFO"]).contains("slabd_version"));
    assert!(cli(&["NOPE"]).starts_with("ERR unknown command 'NOPE'"));
}

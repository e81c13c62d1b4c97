//! The command CLIENT: the list of connections, kill, reply, and closed connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::hub_answers::{Answer, address, ask, connect, hub, id, info, lines, subscribe};
use crate::support::{Client, PATIENCE};

#[test]
fn client_list_has_a_line_for_every_connection() {
    let server = hub();
    let mut asker = connect(&server);
    let subscriber = subscribe(&server, "news");
    let mut named = connect(&server);
    named.send("CLIENT SETNAME me\r\nPSUBSCRIBE a* b*\r\n").expect("+OK\r\n");
    let listed = lines(&mut asker, "CLIENT LIST");
    assert_eq!(listed.len(), 3);
    for line in &listed {
        for field in [
            "id",
            "addr",
            "laddr",
            "name",
            "age",
            "idle",
            "flags",
            "db",
            "sub",
            "psub",
            "ssub",
            "multi",
            "qbuf",
            "qbuf-free",
            "argv-mem",
            "multi-mem",
            "obl",
            "oll",
            "omem",
            "tot-mem",
            "events",
            "cmd",
            "user",
            "redir",
            "resp",
            "lib-name",
            "lib-ver",
            "tot-net-in",
            "tot-net-out",
            "user-mem",
            "kernel-mem",
        ] {
            assert!(line.contains_key(field), "{field} in {line:?}");
        }
        assert_eq!(line["laddr"], server.address("hub").to_string());
        assert!(line["kernel-mem"].parse::<u64>().unwrap() > 3000, "{line:?}");
        assert!(
            line["user-mem"].parse::<u64>().unwrap() > 40 && line["user-mem"] == line["tot-mem"],
            "{line:?}"
        );
        assert_eq!(
            (&*line["user"], &*line["resp"], &*line["multi"], &*line["db"]),
            ("default", "2", "-1", "0")
        );
    }
    let of = |client: &Client| {
        listed
            .iter()
            .find(|line| line["addr"] == address(client))
            .expect("the connection is listed")
    };
    let line = of(&subscriber);
    assert_eq!(
        (&*line["cmd"], &*line["flags"], &*line["sub"], &*line["psub"]),
        ("subscribe", "P", "1", "0")
    );
    assert_eq!(line["tot-net-in"], "SUBSCRIBE news\r\n".len().to_string());
    let line = of(&named);
    assert_eq!(
        (&*line["cmd"], &*line["name"], &*line["sub"], &*line["psub"]),
        ("psubscribe", "me", "0", "2")
    );
    let line = of(&asker);
    assert_eq!((&*line["flags"], &*line["sub"]), ("N", "0"));
    assert!(line["cmd"].starts_with("client"), "{line:?}");
}

#[test]
fn client_list_shows_the_client_library_and_the_file_descriptor() {
    let server = hub();
    let mut client = connect(&server);
    client
        .send("CLIENT SETINFO lib-name redis-py(x_v1)\r\nCLIENT SETINFO LIB-VER 8.1\r\n")
        .expect("+OK\r\n+OK\r\n");
    client.send("CLIENT SETINFO lib-nope x\r\n").expect("-ERR Unrecognized option 'lib-nope'\r\n");
    client.send("CLIENT SETINFO lib-name \"a b\"\r\n");
    client.expect(
        "-ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.\r\n",
    );
    let line = &lines(&mut client, "CLIENT LIST")[0];
    assert_eq!((line["lib-name"].as_str(), line["lib-ver"].as_str()), ("redis-py(x_v1)", "8.1"));
    assert!(line["fd"].parse::<u32>().is_ok_and(|file| file > 2));
    client.send("RESET\r\n").expect("+RESET\r\n");
    assert_eq!(
        lines(&mut client, "CLIENT LIST")[0]["lib-ver"],
        "8.1",
        "RESET does not change the library"
    );
}

#[test]
fn client_list_filters_by_type_id_and_address() {
    let server = hub();
    let mut asker = connect(&server);
    let mut subscriber = subscribe(&server, "news");
    let mut other = connect(&server);
    let (asker_id, other_id) = (id(&mut asker), id(&mut other));
    let ids = |listed: Vec<HashMap<String, String>>| {
        let mut ids: Vec<i64> = listed.iter().map(|line| line["id"].parse().unwrap()).collect();
        ids.sort();
        ids
    };
    let mut listed = |filter: &str| ids(lines(&mut asker, &format!("CLIENT LIST {filter}")));
    let subscriber_id = 2;
    assert_eq!(listed("TYPE pubsub"), [subscriber_id]);
    assert_eq!(listed("TYPE normal"), [asker_id, other_id]);
    assert_eq!(listed("type PUBSUB"), [subscriber_id]);
    assert_eq!(listed("TYPE master"), [0; 0]);
    assert_eq!(listed(&format!("ID {other_id}")), [other_id]);
    assert_eq!(listed(&format!("ID {other_id} 999 {asker_id}")), [asker_id, other_id]);
    assert_eq!(listed("ID 999"), [0; 0]);
    assert_eq!(listed(&format!("ADDR {}", address(&subscriber))), [subscriber_id]);
    assert_eq!(listed("ADDR 127.0.0.1:1"), [0; 0]);
    for (filter, error) in [
        ("TYPE nope", "-ERR Unknown client type 'nope'"),
        ("ID x", "-ERR Invalid client ID"),
        ("ID 0", "-ERR Invalid client ID"),
        ("NOPE x", "-ERR syntax error"),
        ("TYPE", "-ERR syntax error"),
    ] {
        assert_eq!(ask(&mut asker, &format!("CLIENT LIST {filter}")).text(), error, "{filter}");
    }
    // The client has no subscription now.
    subscriber.send("UNSUBSCRIBE\r\n").expect("*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
    assert_eq!(lines(&mut asker, "CLIENT LIST TYPE pubsub").len(), 0);

    let own = lines(&mut other, "CLIENT INFO");
    assert_eq!(
        (own.len(), &own[0]["id"], &own[0]["addr"]),
        (1, &other_id.to_string(), &address(&other))
    );
    assert!(own[0]["kernel-mem"].parse::<u64>().unwrap() > 3000);
}

#[test]
fn client_kill_closes_the_connections_that_match() {
    let mut server = hub();
    let mut asker = connect(&server);
    let mut victim = connect(&server);
    victim.send("PING\r\n").expect("+PONG\r\n");
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL {}", address(&victim))).text(), "OK");
    victim.expect_end();

    let mut victim = connect(&server);
    let victim_id = id(&mut victim);
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ID {victim_id}")), Answer::Number(1));
    victim.expect_end();
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ID {victim_id}")), Answer::Number(0));

    let mut subscribers = [subscribe(&server, "a"), subscribe(&server, "b")];
    let mut bystander = connect(&server);
    assert_eq!(ask(&mut asker, "CLIENT KILL TYPE pubsub"), Answer::Number(2));
    subscribers.iter_mut().for_each(Client::expect_end);
    bystander.send("PING\r\n").expect("+PONG\r\n");
    assert_eq!(ask(&mut asker, "PUBLISH a x"), Answer::Number(0));

    assert_eq!(
        ask(&mut asker, &format!("CLIENT KILL ADDR {} TYPE pubsub", address(&bystander))),
        Answer::Number(0)
    );
    assert_eq!(
        ask(&mut asker, &format!("CLIENT KILL ADDR {}", address(&bystander))),
        Answer::Number(1)
    );
    bystander.expect_end();
    server.wait_for_count("closed by reason/killed", |count| count == 5);

    for (command, error) in [
        ("CLIENT KILL 127.0.0.1:1", "-ERR No such client"),
        ("CLIENT KILL SKIPME maybe", "-ERR syntax error"),
        ("CLIENT KILL TYPE nope", "-ERR Unknown client type 'nope'"),
        ("CLIENT KILL NOPE x", "-ERR syntax error"),
    ] {
        assert_eq!(ask(&mut asker, command).text(), error, "{command}");
    }
    assert!(ask(&mut asker, "CLIENT KILL ID x").text().starts_with("-ERR "));
    assert_eq!(server.count("closed by reason/killed"), 5);
}

#[test]
fn client_kill_spares_its_sender_unless_skipme_is_no() {
    let mut server = hub();
    let mut asker = connect(&server);
    let own_id = id(&mut asker);
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ID {own_id}")), Answer::Number(0));
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ID {own_id} SKIPME yes")), Answer::Number(0));
    let mut others = [connect(&server), connect(&server)];
    others.iter_mut().for_each(|other| _ = id(other));
    assert_eq!(ask(&mut asker, "CLIENT KILL TYPE normal"), Answer::Number(2));
    others.iter_mut().for_each(Client::expect_end);
    server.wait_for_count("closed by reason/killed", |count| count == 2);
    let mut other = connect(&server);
    id(&mut other);
    // The sender gets its answer. The command after it does not run.
    asker
        .send("CLIENT KILL TYPE normal SKIPME no\r\nPUBLISH x y\r\n")
        .expect(":2\r\n")
        .expect_end();
    other.expect_end();
    // The old form closes its sender, too.
    let mut asker = connect(&server);
    let own = address(&asker);
    asker.send(format!("CLIENT KILL {own}\r\n")).expect("+OK\r\n").expect_end();
    assert_eq!(info(&mut connect(&server), "pubsub")["pubsub/published_messages"], "0");
}

#[test]
fn client_kill_maxage_closes_only_older_connections() {
    let server = hub();
    let mut old = connect(&server);
    let old_id = id(&mut old);
    let mut asker = connect(&server);
    assert_eq!(ask(&mut asker, "CLIENT KILL MAXAGE 100000"), Answer::Number(0));
    let deadline = Instant::now() + PATIENCE;
    while lines(&mut asker, &format!("CLIENT LIST ID {old_id}"))[0]["age"] == "0" {
        assert!(Instant::now() < deadline, "the connection's age stays 0");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut young = connect(&server);
    id(&mut young);
    assert_eq!(ask(&mut asker, "CLIENT KILL MAXAGE 1"), Answer::Number(1));
    old.expect_end();
    young.send("PING\r\n").expect("+PONG\r\n");
    assert!(
        ask(&mut asker, "CLIENT KILL MAXAGE x").text().starts_with("-ERR maxage is not an integer")
    );
}

#[test]
fn client_reply_turns_replies_off_and_on_and_skips_one() {
    let server = hub();
    let mut client = connect(&server);
    client.send("CLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\n").expect("$1\r\nb\r\n");
    // SKIP also skips replies that need the server, and errors.
    client
        .send("CLIENT REPLY SKIP\r\nCLIENT ID\r\nCLIENT REPLY SKIP\r\nNOPE\r\nECHO c\r\n")
        .expect("$1\r\nc\r\n");
    client.send("CLIENT REPLY OFF\r\nPING\r\nCLIENT ID\r\nNOPE\r\nINFO\r\nPUBLISH x y\r\n");
    client.send("CLIENT REPLY ON\r\nECHO d\r\n").expect("+OK\r\n$1\r\nd\r\n");
    client.send("CLIENT REPLY nope\r\n").expect("-ERR syntax error\r\n");
    assert_eq!(info(&mut client, "pubsub")["pubsub/published_messages"], "1");
    // RESET turns replies on again.
    client.send("CLIENT REPLY OFF\r\nRESET\r\nECHO e\r\n").expect("+RESET\r\n$1\r\ne\r\n");
}

/// As in Redis, confirmations are messages and not replies.
#[test]
fn subscription_confirmations_are_sent_even_with_replies_off() {
    let server = hub();
    let mut client = connect(&server);
    let confirmed =
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
    client.send(
        "CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPING\r\nUNSUBSCRIBE a\r\nPING\r\nSUBSCRIBE\r\n\
         CLIENT REPLY ON\r\n",
    );
    client.expect(confirmed).expect("+OK\r\n");
    client
        .send("CLIENT REPLY SKIP\r\nSUBSCRIBE a\r\nUNSUBSCRIBE\r\nPING\r\n")
        .expect(confirmed)
        .expect("+PONG\r\n");
}

#[test]
fn client_reply_modes_combine_as_in_redis() {
    let server = hub();
    // SKIP has no effect after OFF.
    let mut client = connect(&server);
    client.send(
        "CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\n\
         CLIENT REPLY ON\r\nECHO c\r\n",
    );
    client.expect("+OK\r\n$1\r\nc\r\n");
    // A second SKIP does not count as the skipped command.
    let mut client = connect(&server);
    client
        .send("CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nECHO d\r\nECHO e\r\n")
        .expect("$1\r\ne\r\n");
    // ON gets its reply even after SKIP.
    let mut client = connect(&server);
    client.send("CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nECHO f\r\n").expect("+OK\r\n$1\r\nf\r\n");
}

#[test]
fn client_closed_shows_the_reason_of_each_close() {
    let mut server = hub();
    let mut asker = connect(&server);
    let mut closed = |client: Client, count: usize| {
        let address = address(&client);
        let listed = (client, lines(&mut asker, "CLIENT CLOSED"));
        drop(listed);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listed = lines(&mut asker, "CLIENT CLOSED");
            if listed.len() == count {
                assert_eq!(listed[0]["addr"], address, "the latest comes first");
                return listed[0].clone();
            }
            assert!(Instant::now() < deadline, "{listed:?}");
        }
    };
    let mut client = connect(&server);
    client.send("PING\r\n").expect("+PONG\r\n");
    let client_id = id(&mut client);
    let line = closed(client, 1);
    let bytes = (
        "PING\r\n*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n".len().to_string(),
        format!("+PONG\r\n:{client_id}\r\n").len().to_string(),
    );
    assert_eq!(
        (&*line["reason"], &*line["id"], &*line["age"]),
        ("peer-closed", &*client_id.to_string(), "0")
    );
    assert_eq!((&line["tot-net-in"], &line["tot-net-out"]), (&bytes.0, &bytes.1));

    let mut client = connect(&server);
    client.send("*x\r\n").expect("-ERR Protocol error: invalid multibulk length\r\n").expect_end();
    assert_eq!(closed(client, 2)["reason"], "protocol-error");
    let mut client = connect(&server);
    client.send("QUIT\r\n").expect("+OK\r\n").expect_end();
    assert_eq!(closed(client, 3)["reason"], "service-closed");
    let mut client = connect(&server);
    client.send("PING\r\n").expect("+PONG\r\n");
    connect(&server)
        .send(format!("CLIENT KILL {}\r\nQUIT\r\n", address(&client)))
        .expect("+OK\r\n+OK\r\n")
        .expect_end();
    server.wait_for_count("closed by reason/killed", |count| count == 1);
    let listed = lines(&mut connect(&server), "CLIENT CLOSED");
    let line = listed
        .iter()
        .find(|line| line["addr"] == address(&client))
        .expect("the connection is listed");
    assert_eq!(line["reason"], "killed");
}

#[test]
fn client_closed_keeps_the_last_1024_connections() {
    const KEPT: usize = 1024;
    let mut server = hub();
    let mut asker = connect(&server);
    for (more, expected) in [(KEPT - 1, KEPT - 1), (1, KEPT), (1, KEPT), (74, KEPT)] {
        let before = server.count("closed by reason/killed");
        for source in 0..more {
            // One address has too few ports for all of them.
            let mut client =
                Client::connect_from((source % 8) as u8 + 1, server.address("hub")).unwrap();
            client.send("PING\r\n").expect("+PONG\r\n");
            // CLIENT KILL answers after it has closed the client. If clients closed themselves, a
            // busy kernel could report their ends in another order.
            asker.send(format!("CLIENT KILL {}\r\n", address(&client))).expect("+OK\r\n");
        }
        server.wait_for_count("closed by reason/killed", |count| count == before + more as u64);
        assert_eq!(lines(&mut asker, "CLIENT CLOSED").len(), expected);
    }
    let ids: Vec<u32> =
        lines(&mut asker, "CLIENT CLOSED").iter().map(|line| line["id"].parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|later, earlier| later > earlier), "the latest comes first: {ids:?}");
    assert_eq!((ids[0], ids[KEPT - 1]), (1100, 1100 + 1 - KEPT as u32));
}

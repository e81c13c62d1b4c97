//! The hub's commands about itself: CLIENT, INFO, CONFIG, MEMORY, TIME, MONITOR, SHUTDOWN, COMMAND.

mod support;

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Client, PATIENCE, Server};

fn hub() -> Server {
    Server::start(&["--listen", "hub=127.0.0.1:0"])
}

fn connect(server: &Server) -> Client {
    Client::connect(server.address("hub"))
}

fn address(client: &Client) -> String {
    client.0.local_addr().unwrap().to_string()
}

/// One answer of RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// A simple or a bulk string; an error with its `-`.
    Text(String),
    Number(i64),
    Array(Vec<Answer>),
    Null,
}

impl Answer {
    fn read(client: &mut Client) -> Answer {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            client.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", line.escape_ascii()));
            line.push(byte[0]);
        }
        let line = std::str::from_utf8(&line[..line.len() - 2]).unwrap();
        let (kind, rest) = line.split_at(1);
        let length = || rest.parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
        match kind {
            "+" => Answer::Text(rest.into()),
            "-" => Answer::Text(line.into()),
            ":" => Answer::Number(length()),
            "$" | "*" if length() < 0 => Answer::Null,
            "*" => Answer::Array((0..length()).map(|_| Answer::read(client)).collect()),
            "$" => {
                let mut bytes = vec![0; length() as usize + 2];
                client.0.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes.split_off(bytes.len() - 2), b"\r\n");
                Answer::Text(String::from_utf8(bytes).unwrap())
            }
            _ => panic!("{line}"),
        }
    }

    #[track_caller]
    fn text(self) -> String {
        let Answer::Text(text) = self else { panic!("{self:?} is no text") };
        text
    }

    #[track_caller]
    fn number(self) -> i64 {
        let Answer::Number(number) = self else { panic!("{self:?} is no number") };
        number
    }

    #[track_caller]
    fn array(self) -> Vec<Answer> {
        let Answer::Array(array) = self else { panic!("{self:?} is no array") };
        array
    }

    /// Keys and values, in the order given.
    #[track_caller]
    fn map(self) -> Vec<(String, Answer)> {
        let array = self.array();
        assert!(array.len().is_multiple_of(2), "{array:?}");
        array.chunks(2).map(|pair| (pair[0].clone().text(), pair[1].clone())).collect()
    }
}

fn ask(client: &mut Client, command: &str) -> Answer {
    Answer::read(client.send(format!("{command}\r\n")))
}

/// The lines of CLIENT LIST and CLIENT CLOSED by field.
#[track_caller]
fn lines(client: &mut Client, command: &str) -> Vec<HashMap<String, String>> {
    let text = ask(client, command).text();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let fields = |line: &str| {
        let pairs = line.split(' ').map(|field| field.split_once('=').unwrap_or_else(|| panic!("{field:?} of {line}")));
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    text.lines().map(fields).collect()
}

/// INFO as a map from "section/name" to value.
fn info(client: &mut Client, sections: &str) -> HashMap<String, String> {
    let text = ask(client, format!("INFO {sections}").trim_end()).text();
    let (mut rows, mut title) = (HashMap::new(), "");
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        match line.split_once(':') {
            Some((name, value)) => _ = rows.insert(format!("{title}/{name}"), value.to_string()),
            None => title = line.strip_prefix("# ").unwrap_or_else(|| panic!("{line:?} in INFO")),
        }
    }
    rows
}

/// The value of a setting.
#[track_caller]
fn setting(client: &mut Client, name: &str) -> String {
    let found = ask(client, &format!("CONFIG GET {name}")).map();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, name);
    found[0].1.clone().text()
}

fn subscribe(server: &Server, channel: &str) -> Client {
    let mut client = connect(server);
    client.send(format!("SUBSCRIBE {channel}\r\n"));
    assert_eq!(Answer::read(&mut client).array()[2], Answer::Number(1));
    client
}

fn id(client: &mut Client) -> i64 {
    ask(client, "CLIENT ID").number()
}

#[test]
fn client_list_describes_every_connection() {
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
        assert!(line["user-mem"].parse::<u64>().unwrap() > 40 && line["user-mem"] == line["tot-mem"], "{line:?}");
        assert_eq!((&*line["user"], &*line["resp"], &*line["multi"], &*line["db"]), ("default", "2", "-1", "0"));
    }
    let of = |client: &Client| listed.iter().find(|line| line["addr"] == address(client)).expect("it is listed");
    let line = of(&subscriber);
    assert_eq!((&*line["cmd"], &*line["flags"], &*line["sub"], &*line["psub"]), ("subscribe", "P", "1", "0"));
    assert_eq!(line["tot-net-in"], "SUBSCRIBE news\r\n".len().to_string());
    let line = of(&named);
    assert_eq!((&*line["cmd"], &*line["name"], &*line["sub"], &*line["psub"]), ("psubscribe", "me", "0", "2"));
    let line = of(&asker);
    assert_eq!((&*line["flags"], &*line["sub"]), ("N", "0"));
    assert!(line["cmd"].starts_with("client"), "{line:?}");
}

#[test]
fn client_list_tells_the_library_and_the_file() {
    let server = hub();
    let mut client = connect(&server);
    client.send("CLIENT SETINFO lib-name redis-py(x_v1)\r\nCLIENT SETINFO LIB-VER 8.1\r\n").expect("+OK\r\n+OK\r\n");
    client.send("CLIENT SETINFO lib-nope x\r\n").expect("-ERR Unrecognized option 'lib-nope'\r\n");
    client.send("CLIENT SETINFO lib-name \"a b\"\r\n");
    client.expect("-ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.\r\n");
    let line = &lines(&mut client, "CLIENT LIST")[0];
    assert_eq!((line["lib-name"].as_str(), line["lib-ver"].as_str()), ("redis-py(x_v1)", "8.1"));
    assert!(line["fd"].parse::<u32>().is_ok_and(|file| file > 2));
    client.send("RESET\r\n").expect("+RESET\r\n");
    assert_eq!(lines(&mut client, "CLIENT LIST")[0]["lib-ver"], "8.1", "RESET does not change the library");
}

#[test]
fn client_list_shows_those_that_are_asked_for() {
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
    // No longer one of those.
    subscriber.send("UNSUBSCRIBE\r\n").expect("*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
    assert_eq!(lines(&mut asker, "CLIENT LIST TYPE pubsub").len(), 0);

    let own = lines(&mut other, "CLIENT INFO");
    assert_eq!((own.len(), &own[0]["id"], &own[0]["addr"]), (1, &other_id.to_string(), &address(&other)));
    assert!(own[0]["kernel-mem"].parse::<u64>().unwrap() > 3000);
}

#[test]
fn client_kill_ends_whom_it_names() {
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

    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ADDR {} TYPE pubsub", address(&bystander))), Answer::Number(0));
    assert_eq!(ask(&mut asker, &format!("CLIENT KILL ADDR {}", address(&bystander))), Answer::Number(1));
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
fn client_kill_spares_who_asks_unless_told_otherwise() {
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
    // The answer still comes; what was sent behind the command is not carried out.
    asker.send("CLIENT KILL TYPE normal SKIPME no\r\nPUBLISH x y\r\n").expect(":2\r\n").expect_end();
    other.expect_end();
    // The old form spares nobody.
    let mut asker = connect(&server);
    let own = address(&asker);
    asker.send(format!("CLIENT KILL {own}\r\n")).expect("+OK\r\n").expect_end();
    assert_eq!(info(&mut connect(&server), "pubsub")["pubsub/published_messages"], "0");
}

#[test]
fn client_kill_by_age_takes_the_older_ones() {
    let server = hub();
    let mut old = connect(&server);
    let old_id = id(&mut old);
    let mut asker = connect(&server);
    assert_eq!(ask(&mut asker, "CLIENT KILL MAXAGE 100000"), Answer::Number(0));
    let deadline = Instant::now() + PATIENCE;
    while lines(&mut asker, &format!("CLIENT LIST ID {old_id}"))[0]["age"] == "0" {
        assert!(Instant::now() < deadline, "it does not age");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut young = connect(&server);
    id(&mut young);
    assert_eq!(ask(&mut asker, "CLIENT KILL MAXAGE 1"), Answer::Number(1));
    old.expect_end();
    young.send("PING\r\n").expect("+PONG\r\n");
    assert!(ask(&mut asker, "CLIENT KILL MAXAGE x").text().starts_with("-ERR maxage is not an integer"));
}

#[test]
fn client_reply_turns_answers_off_and_on_and_skips_one() {
    let server = hub();
    let mut client = connect(&server);
    client.send("CLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\n").expect("$1\r\nb\r\n");
    // Whether the hub answers alone or asks the server, and errors too.
    client.send("CLIENT REPLY SKIP\r\nCLIENT ID\r\nCLIENT REPLY SKIP\r\nNOPE\r\nECHO c\r\n").expect("$1\r\nc\r\n");
    client.send("CLIENT REPLY OFF\r\nPING\r\nCLIENT ID\r\nNOPE\r\nINFO\r\nPUBLISH x y\r\n");
    client.send("CLIENT REPLY ON\r\nECHO d\r\n").expect("+OK\r\n$1\r\nd\r\n");
    client.send("CLIENT REPLY nope\r\n").expect("-ERR syntax error\r\n");
    assert_eq!(info(&mut client, "pubsub")["pubsub/published_messages"], "1");
    // As new.
    client.send("CLIENT REPLY OFF\r\nRESET\r\nECHO e\r\n").expect("+RESET\r\n$1\r\ne\r\n");
}

/// As Redis 7.0 answers these.
/// They are no answers but messages of their own, as in Redis.
#[test]
fn confirmations_come_even_where_answers_are_off() {
    let server = hub();
    let mut client = connect(&server);
    let confirmed = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
    client.send("CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPING\r\nUNSUBSCRIBE a\r\nPING\r\nSUBSCRIBE\r\nCLIENT REPLY ON\r\n");
    client.expect(confirmed).expect("+OK\r\n");
    client.send("CLIENT REPLY SKIP\r\nSUBSCRIBE a\r\nUNSUBSCRIBE\r\nPING\r\n").expect(confirmed).expect("+PONG\r\n");
}

#[test]
fn client_reply_modes_meet_as_in_redis() {
    let server = hub();
    // A skip changes nothing about off.
    let mut client = connect(&server);
    client.send("CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\nCLIENT REPLY ON\r\nECHO c\r\n");
    client.expect("+OK\r\n$1\r\nc\r\n");
    // A skip is not used up by a skip.
    let mut client = connect(&server);
    client.send("CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nECHO d\r\nECHO e\r\n").expect("$1\r\ne\r\n");
    // On is always answered.
    let mut client = connect(&server);
    client.send("CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nECHO f\r\n").expect("+OK\r\n$1\r\nf\r\n");
}

#[test]
fn client_closed_tells_how_a_connection_ended() {
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
    let bytes = ("PING\r\nCLIENT ID\r\n".len().to_string(), format!("+PONG\r\n:{client_id}\r\n").len().to_string());
    assert_eq!((&*line["reason"], &*line["id"], &*line["age"]), ("peer-closed", &*client_id.to_string(), "0"));
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
    let line = listed.iter().find(|line| line["addr"] == address(&client)).expect("it is listed");
    assert_eq!(line["reason"], "killed");
}

#[test]
fn client_closed_keeps_the_last_1024() {
    const KEPT: usize = 1024;
    let mut server = hub();
    let mut asker = connect(&server);
    for (more, expected) in [(KEPT - 1, KEPT - 1), (1, KEPT), (1, KEPT), (74, KEPT)] {
        let before = server.count("closed by reason/peer-closed");
        for source in 0..more {
            // Clients that close first hold their port for a while: they come from several addresses.
            let mut client = Client::connect_from((source % 8) as u8 + 1, server.address("hub")).unwrap();
            client.send("PING\r\n").expect("+PONG\r\n");
        }
        server.wait_for_count("closed by reason/peer-closed", |count| count == before + more as u64);
        assert_eq!(lines(&mut asker, "CLIENT CLOSED").len(), expected);
    }
    let ids: Vec<u32> = lines(&mut asker, "CLIENT CLOSED").iter().map(|line| line["id"].parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|later, earlier| later > earlier), "the latest comes first: {ids:?}");
    assert_eq!((ids[0], ids[KEPT - 1]), (1100, 1100 + 1 - KEPT as u32));
}

#[test]
fn info_has_the_sections_that_it_is_asked_for() {
    let server = hub();
    let mut client = connect(&server);
    let all = info(&mut client, "");
    for row in [
        "server/redis_version",
        "server/connected_clients",
        "pubsub/published_messages",
        "connections/held",
        "connections/accept_gate",
        "closed_by_reason/killed",
        "closed_by_reason/peer_closed",
        "user_memory_bytes/slab",
        "user_memory_bytes/wheel",
        "user_memory_bytes/write_buffers",
        "user_memory_bytes/resident_set",
        "timers/armed",
        "timers/fired",
        "loop/turns",
        "loop/longest_turn_us",
        "datagrams/in",
    ] {
        assert!(all.contains_key(row), "{row} in {all:?}");
    }
    assert!(all.keys().any(|row| row.starts_with("accept_queues/")));
    assert_eq!((&*all["server/connected_clients"], &*all["connections/held"]), ("1", "1"));
    assert_eq!(all["server/process_id"], server.process_id().to_string());
    assert!(all["loop/turns"].parse::<u64>().unwrap() > 0 && all["timers/armed"] == "1");
    let mut names = |sections: &str| {
        let rows = info(&mut client, sections);
        let mut names: Vec<String> = rows.keys().map(|row| row.split('/').next().unwrap().to_string()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names("loop"), ["loop"]);
    assert_eq!(names("TIMERS loop"), ["loop", "timers"]);
    assert_eq!(names("closed_by_reason"), ["closed_by_reason"]);
    assert_eq!(names("accept_queues"), ["accept_queues"]);
    assert_eq!(names("user_memory_bytes"), ["user_memory_bytes"]);
    assert_eq!(names("nope"), [""; 0]);
    let everything = names("");
    assert!(everything.len() > 8);
    assert!(["all", "everything", "default"].iter().all(|name| names(name) == everything));
}

#[test]
fn config_get_takes_patterns() {
    let server = hub();
    let mut client = connect(&server);
    let mut names = |patterns: &str| {
        let found = ask(&mut client, &format!("CONFIG GET {patterns}")).map();
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let timeouts = [
        "close-timeout",
        "drain-timeout",
        "first-message-timeout",
        "idle-timeout",
        "message-timeout",
        "output-timeout",
        "user-timeout",
    ];
    assert_eq!(names("*timeout"), timeouts);
    assert_eq!(names("IDLE-*"), ["idle-timeout"]);
    assert_eq!(names("?d[kl]e-timeout"), ["idle-timeout"]);
    assert_eq!(names("max-line idle-timeout idle*"), ["idle-timeout", "max-line"]);
    assert_eq!(names("nope"), [""; 0]);
    let all = names("*");
    assert!(all.len() > 15 && timeouts.iter().all(|name| all.iter().any(|known| known == name)), "{all:?}");
    // What clients of Redis look for.
    assert_eq!(names("save appendonly"), ["save", "appendonly"]);
    assert_eq!(setting(&mut client, "idle-timeout"), "5m");
    assert!(ask(&mut client, "CONFIG GET").text().starts_with("-ERR "));
}

#[test]
fn config_set_changes_all_or_none() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client, "CONFIG SET idle-timeout 90s MAX-LINE 1KiB messages-per-turn 7").text(), "OK");
    assert_eq!(setting(&mut client, "idle-timeout"), "90s");
    assert_eq!(setting(&mut client, "max-line"), "1KiB");
    assert_eq!(setting(&mut client, "messages-per-turn"), "7");
    for wrong in [
        "idle-timeout 5s max-line 1GiB",
        "max-line 1GiB idle-timeout 5s",
        "idle-timeout 5s nope 1",
        "idle-timeout soon",
        "idle-timeout 5s messages-per-turn 0",
        // Not while running.
        "idle-timeout 5s backlog 7",
        "idle-timeout 5s listen hub=127.0.0.1:1",
        "idle-timeout 5s requirepass x",
    ] {
        let answer = ask(&mut client, &format!("CONFIG SET {wrong}")).text();
        assert!(answer.starts_with("-ERR CONFIG SET failed (possibly related to argument '"), "{wrong}: {answer}");
        assert_eq!(setting(&mut client, "idle-timeout"), "90s", "{wrong}");
        assert_eq!(setting(&mut client, "max-line"), "1KiB", "{wrong}");
        assert_eq!(setting(&mut client, "messages-per-turn"), "7", "{wrong}");
    }
    for incomplete in ["CONFIG SET", "CONFIG SET idle-timeout", "CONFIG SET idle-timeout 5s max-line", "CONFIG nope"] {
        assert!(ask(&mut client, incomplete).text().starts_with("-ERR "), "{incomplete}");
    }
}

/// Settings that bound each other: what counts is what holds in the end, and what is taken back is taken back whole.
#[test]
fn config_set_of_settings_that_depend_on_each_other_is_judged_as_a_whole() {
    let server = hub();
    let mut client = connect(&server);
    for together in ["high-watermark 1048576 output-limit 4194304", "output-limit 1048576 high-watermark 65536"] {
        assert_eq!(ask(&mut client, &format!("CONFIG SET {together}")).text(), "OK", "{together}");
    }
}

#[test]
fn config_set_takes_back_settings_that_depend_on_each_other() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client, "CONFIG SET output-limit 4194304").text(), "OK");
    assert_eq!(ask(&mut client, "CONFIG SET high-watermark 1048576").text(), "OK");
    assert!(
        ask(&mut client, "CONFIG SET high-watermark 65536 output-limit 1048576 nope 1").text().starts_with("-ERR ")
    );
    assert_eq!(setting(&mut client, "output-limit"), "4MiB");
    assert_eq!(setting(&mut client, "high-watermark"), "1MiB");
}

#[test]
fn config_set_lowers_max_connections_and_raises_it_again() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--max-connections", "100"]);
    let mut client = connect(&server);
    assert!(ask(&mut client, "CONFIG SET max-connections 50 nope 1").text().starts_with("-ERR "));
    assert_eq!(setting(&mut client, "max-connections"), "100", "all or none");
    assert_eq!(ask(&mut client, "CONFIG SET max-connections 50").text(), "OK");
    assert_eq!(setting(&mut client, "max-connections"), "50");
    assert_eq!(ask(&mut client, "CONFIG SET max-connections 100").text(), "OK");
    assert_eq!(setting(&mut client, "max-connections"), "100");
}

/// As Redis 7.0: which of the two would be meant?
#[test]
fn config_set_refuses_one_setting_twice() {
    let server = hub();
    let mut client = connect(&server);
    let answer = ask(&mut client, "CONFIG SET idle-timeout 60s idle-timeout 70s").text();
    assert_eq!(answer, "-ERR CONFIG SET failed (possibly related to argument 'idle-timeout') - duplicate parameter");
    assert_eq!(setting(&mut client, "idle-timeout"), "5m");
}

#[test]
fn an_idle_timeout_that_is_set_closes_who_is_idle() {
    let mut server = hub();
    let mut idle = connect(&server);
    idle.send("PING\r\n").expect("+PONG\r\n");
    let mut asker = connect(&server);
    assert_eq!(ask(&mut asker, "CONFIG SET idle-timeout 200ms").text(), "OK");
    idle.expect_end();
    asker.expect_end();
    server.wait_for_count("closed by reason/idle-timeout", |count| count == 2);
}

#[test]
fn resetstat_sets_counters_to_zero() {
    let server = hub();
    let mut client = connect(&server);
    client.send("PUBLISH x y\r\n".repeat(50)).expect(":0\r\n".repeat(50));
    let before = info(&mut client, "");
    assert_eq!((&*before["pubsub/published_messages"], &*before["server/total_commands_processed"]), ("50", "51"));
    assert_eq!(ask(&mut client, "CONFIG RESETSTAT").text(), "OK");
    let after = info(&mut client, "");
    assert_eq!((&*after["pubsub/published_messages"], &*after["server/total_commands_processed"]), ("0", "1"));
    let number = |rows: &HashMap<String, String>, row: &str| rows[row].parse::<u64>().unwrap();
    for row in ["loop/messages", "loop/bytes_in", "loop/reads"] {
        assert!(number(&after, row) < number(&before, row), "{row} was {} and is {}", before[row], after[row]);
    }
    assert_eq!(after["connections/accepted"], "1");
    assert!(ask(&mut client, "CONFIG RESETSTAT x").text().starts_with("-ERR "));
}

#[test]
fn memory_is_told_as_figures_for_one_connection_and_in_words() {
    let server = hub();
    let mut client = connect(&server);
    let stats: HashMap<String, Answer> = ask(&mut client, "MEMORY STATS").map().into_iter().collect();
    for row in ["slab", "wheel", "read-buffers", "write-buffers", "services", "resident-set", "ledger-without-fixed"] {
        assert!(matches!(stats.get(row), Some(Answer::Number(0..))), "{row} in {stats:?}");
    }
    let own_id = id(&mut client);
    let used = ask(&mut client, &format!("MEMORY USAGE {own_id}")).number();
    let line = &lines(&mut client, &format!("CLIENT LIST ID {own_id}"))[0];
    assert_eq!(used.to_string(), line["user-mem"]);
    // What the hub holds for it counts.
    let mut subscriber = connect(&server);
    let subscriber_id = id(&mut subscriber);
    let plain = ask(&mut client, &format!("MEMORY USAGE {subscriber_id}")).number();
    subscriber.send("SUBSCRIBE a b c\r\nPING\r\n");
    (0..4).for_each(|_| _ = Answer::read(&mut subscriber));
    assert!(ask(&mut client, &format!("MEMORY USAGE {subscriber_id}")).number() > plain);
    for nobody in ["999", "0", "-1", "x", "99999999999999999999"] {
        assert_eq!(ask(&mut client, &format!("MEMORY USAGE {nobody}")), Answer::Null, "{nobody}");
    }
    let text = ask(&mut client, "MEMORY DOCTOR").text();
    assert!(text.starts_with("slabd accounts for ") && text.lines().count() > 1, "{text}");
    assert!(ask(&mut client, "MEMORY nope").text().starts_with("-ERR unknown subcommand 'nope'"));
}

#[test]
fn time_is_the_time_of_day() {
    let server = hub();
    let mut client = connect(&server);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let answer = ask(&mut client, "TIME").array();
    let after = now();
    let parts: Vec<u64> = answer.into_iter().map(|part| part.text().parse().unwrap()).collect();
    assert!(parts.len() == 2 && parts[1] < 1_000_000, "{parts:?}");
    let told = Duration::from_secs(parts[0]) + Duration::from_micros(parts[1]);
    // The time of the turn, by a clock that is not set: it may differ by a little.
    let second = Duration::from_secs(1);
    assert!(before <= told + second && told <= after + second, "{told:?}, between {before:?} and {after:?}");
}

#[test]
fn monitor_shows_commands_with_their_sender_and_no_passwords() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "secret"]);
    let mut monitor = connect(&server);
    monitor.send("AUTH secret\r\nMONITOR\r\n").expect("+OK\r\n+OK\r\n");
    let mut other = connect(&server);
    // What is not carried out is not shown.
    other.send("PING\r\nAUTH wrong\r\nHELLO 2 AUTH default wrong\r\nAUTH default secret\r\n");
    (0..4).for_each(|_| _ = Answer::read(&mut other));
    assert_eq!(ask(&mut other, "HELLO 2 AUTH default secret SETNAME me").map()[0].0, "server");
    assert_eq!(ask(&mut other, "ECHO \"two words\"").text(), "two words");
    other.send("*3\r\n$7\r\nPUBLISH\r\n$1\r\n\"\r\n$4\r\n\0\r\n\\\r\n").expect(":0\r\n");
    assert_eq!(ask(&mut other, "client id"), Answer::Number(2));
    let mut third = connect(&server);
    third.send("AUTH secret\r\nECHO last\r\n").expect("+OK\r\n$4\r\nlast\r\n");
    let (other, third) = (address(&other), address(&third));
    for expected in [
        format!("[0 {other}] \"ECHO\" \"two words\""),
        format!(r#"[0 {other}] "PUBLISH" "\"" "\x00\r\n\\""#),
        format!("[0 {other}] \"client\" \"id\""),
        format!("[0 {third}] \"ECHO\" \"last\""),
    ] {
        let shown = Answer::read(&mut monitor).text();
        let (time, rest) = shown.split_once(' ').expect("a time");
        assert_eq!(rest, expected);
        let (seconds, micros) = time.split_once('.').expect("a fraction");
        assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6 && micros.parse::<u32>().is_ok(), "{time}");
    }
    assert!(lines(&mut connect_with_password(&server), "CLIENT LIST").iter().any(|line| line["flags"] == "O"));
}

fn connect_with_password(server: &Server) -> Client {
    let mut client = connect(server);
    client.send("AUTH secret\r\n").expect("+OK\r\n");
    client
}

/// As Redis writes them.
#[test]
fn monitor_escapes_bell_and_backspace_by_letters() {
    let server = hub();
    let mut monitor = connect(&server);
    monitor.send("MONITOR\r\n").expect("+OK\r\n");
    connect(&server).send("*2\r\n$4\r\nECHO\r\n$4\r\n\x07\x08\t'\r\n").expect("$4\r\n\x07\x08\t'\r\n");
    let shown = Answer::read(&mut monitor).text();
    assert!(shown.ends_with(r#" "ECHO" "\a\b\t'""#), "{shown}");
}

#[test]
fn monitor_ends_with_reset_and_with_its_connection() {
    let server = hub();
    let mut monitor = connect(&server);
    monitor.send("MONITOR\r\nRESET\r\n").expect("+OK\r\n+RESET\r\n");
    let mut other = connect(&server);
    other.send("ECHO x\r\n").expect("$1\r\nx\r\n");
    monitor.send("PING\r\n").expect("+PONG\r\n");
    monitor.send("MONITOR\r\n").expect("+OK\r\n");
    drop(monitor);
    other.send("ECHO x\r\n".repeat(100)).expect("$1\r\nx\r\n".repeat(100));
}

#[test]
fn shutdown_ends_the_process_in_order() {
    for command in ["SHUTDOWN", "shutdown nosave", "SHUTDOWN NOW FORCE"] {
        let mut server = hub();
        let (mut asker, mut other) = (connect(&server), connect(&server));
        other.send("PING\r\n").expect("+PONG\r\n");
        assert_eq!(ask(&mut asker, "SHUTDOWN nope").text(), "-ERR syntax error");
        asker.send(format!("{command}\r\n")).expect_end();
        other.expect_end();
        drop((asker, other));
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn the_subcommands_of_command_agree() {
    let server = hub();
    let mut client = connect(&server);
    let count = ask(&mut client, "COMMAND COUNT").number() as usize;
    let names: Vec<String> = ask(&mut client, "COMMAND LIST").array().into_iter().map(Answer::text).collect();
    let entries = ask(&mut client, "COMMAND").array();
    let docs = ask(&mut client, "COMMAND DOCS").map();
    assert_eq!((names.len(), entries.len(), docs.len()), (count, count, count));
    let listed = |entries: &[Answer]| -> Vec<String> {
        entries.iter().map(|entry| entry.clone().array()[0].clone().text()).collect()
    };
    assert_eq!(listed(&entries), names);
    assert_eq!(docs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    for (name, documented) in &docs {
        let fields: HashMap<String, Answer> = documented.clone().map().into_iter().collect();
        assert!(!fields["summary"].clone().text().is_empty(), "{name}");
        assert_eq!(ask(&mut client, &format!("COMMAND DOCS {name}")).map(), [(name.clone(), documented.clone())]);
    }
    assert_eq!(ask(&mut client, &format!("COMMAND INFO {}", names.join(" "))).array(), entries);
    assert_eq!(ask(&mut client, "COMMAND INFO PING nope").array()[1], Answer::Null);
    assert_eq!(ask(&mut client, "COMMAND DOCS nope PING").map()[0].0, "ping");
    // Its arity is what is checked.
    for entry in &entries {
        let entry = entry.clone().array();
        let (name, arity) = (entry[0].clone().text(), entry[1].clone().number());
        assert!(arity != 0, "{name}");
        if arity != -1 && arity != 1 {
            let error = format!("-ERR wrong number of arguments for '{name}' command");
            assert_eq!(ask(&mut client, &name).text(), error);
        }
    }
}

/// As in Redis: all of them.
#[test]
fn command_info_of_nothing_in_particular_is_of_everything() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client, "COMMAND INFO"), ask(&mut client, "COMMAND"));
}

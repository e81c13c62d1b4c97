//! Socket.IO: handshakes, polls, upgrades, pings, namespaces and attachments, in virtual time.

use std::rc::Rc;
use std::time::Duration;

use slabd::codec::websocket::Opcode;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::sim::{ClientId, End};
use slabd::routes::EventRoutes;
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, all, hub, limits, subscriber};
use crate::websocket::{Web, text};

const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

/// The interval of pings, with what its count of ticks adds.
const PING: Duration = Duration::from_millis(25_050);

/// A client that polls: its sid, and a connection for its requests.
struct Poller {
    sid: String,
    /// The connection of the polls.
    get: ClientId,
    /// The connection of the packets.
    post: ClientId,
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Returns the status and the body of the answer in a text.
fn answer(text: &str) -> (u16, &str) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    (head[9..12].parse().unwrap(), body)
}

fn ask(sim: &mut Sim, client: ClientId, request: String) -> (u16, String) {
    sim.send(client, request);
    let text = all(sim, client);
    let (status, body) = answer(&text);
    (status, body.to_string())
}

impl Poller {
    fn open(sim: &mut Sim) -> Poller {
        let (get_by, post_by) = (sim.accepted(), sim.accepted());
        let (status, body) = ask(sim, get_by, get(HANDSHAKE));
        assert_eq!(status, 200);
        let sid = body.split('"').nth(3).unwrap().to_string();
        Poller { sid, get: get_by, post: post_by }
    }

    /// A client in the root namespace.
    fn connected(sim: &mut Sim) -> Poller {
        let poller = Poller::open(sim);
        assert_eq!(poller.send(sim, "40"), (200, "ok".into()));
        let (_, body) = poller.poll(sim);
        assert!(body.starts_with("40{\"sid\":\""), "{body}");
        poller
    }

    fn target(&self) -> String {
        format!("{HANDSHAKE}&sid={}", self.sid)
    }

    fn send(&self, sim: &mut Sim, packets: &str) -> (u16, String) {
        ask(sim, self.post, post(&self.target(), packets))
    }

    fn poll(&self, sim: &mut Sim) -> (u16, String) {
        ask(sim, self.get, get(&self.target()))
    }

    /// Sends a poll that has to wait.
    fn wait(&self, sim: &mut Sim) {
        sim.send(self.get, get(&self.target()));
        assert_eq!(all(sim, self.get), "", "the poll does not wait");
    }

    /// Returns what the poll that waits has got.
    fn got(&self, sim: &mut Sim) -> String {
        let text = all(sim, self.get);
        if text.is_empty() { text } else { answer(&text).1.to_string() }
    }
}

/// A client of a WebSocket in the root namespace.
fn connected(sim: &mut Sim) -> Web {
    let mut web = opened(sim);
    web.send(sim, 0x81, b"40");
    let got = web.got(sim);
    assert!(matches!(&got[..], [(Opcode::Text, sid)] if sid.starts_with(b"40{\"sid\":")));
    web
}

pub fn opened(sim: &mut Sim) -> Web {
    let mut web = Web::open(sim, WEBSOCKET);
    let got = web.got(sim);
    assert!(matches!(&got[..], [(Opcode::Text, open)] if open.starts_with(b"0{\"sid\":")));
    web
}

pub fn say(sim: &mut Sim, web: &mut Web, packet: &str) -> Vec<String> {
    web.send(sim, 0x81, packet.as_bytes());
    heard(sim, web)
}

pub fn heard(sim: &mut Sim, web: &mut Web) -> Vec<String> {
    let readable = |(opcode, bytes): (Opcode, Vec<u8>)| match opcode {
        Opcode::Text => String::from_utf8(bytes).unwrap(),
        other => format!("{other:?} {}", bytes.escape_ascii()),
    };
    web.got(sim).into_iter().map(readable).collect()
}

#[test]
fn a_request_that_is_wrong_gets_the_error_of_engine_io() {
    let mut sim = hub(limits());
    let sid = Poller::open(&mut sim).sid;
    let unknown = r#"{"code":1,"message":"Session ID unknown"}"#;
    for (request, status, body) in [
        (get("/socket.io/?EIO=4"), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (get("/socket.io/?EIO=4&transport=x"), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (
            get("/socket.io/?EIO=3&transport=polling"),
            400,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        (
            get("/socket.io/?transport=polling"),
            400,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        (post(HANDSHAKE, "40"), 400, r#"{"code":2,"message":"Bad handshake method"}"#),
        (get(WEBSOCKET), 400, r#"{"code":3,"message":"Bad request"}"#),
        (get(&format!("{WEBSOCKET}&sid={sid}")), 400, r#"{"code":3,"message":"Bad request"}"#),
        (
            get(&format!("/socket.io/?EIO=3&transport=polling&sid={sid}")),
            400,
            r#"{"code":3,"message":"Bad request"}"#,
        ),
        (get(&format!("{HANDSHAKE}&sid=AAAAAAAAAAAAAAAAAAAA")), 400, unknown),
        (get(&format!("{HANDSHAKE}&sid={}", &sid[1..])), 400, unknown),
        (post(&format!("{HANDSHAKE}&sid={sid}x"), "40"), 400, unknown),
    ] {
        let client = sim.accepted();
        assert_eq!(ask(&mut sim, client, request.clone()), (status, body.into()), "{request}");
    }
    // A sid that is empty is none.
    let client = sim.accepted();
    assert_eq!(ask(&mut sim, client, get(&format!("{HANDSHAKE}&sid="))).0, 200);
}

#[test]
fn a_page_of_another_origin_gets_the_error_of_engine_io() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    let host = "Host: localhost\r\n";
    let request = get(HANDSHAKE).replace(host, &format!("{host}Origin: http://other.example\r\n"));
    let (status, body) = ask(&mut sim, client, request);
    assert_eq!(status, 403);
    assert!(body.starts_with(r#"{"code":4,"message":"pages of this Origin"#), "{body}");
}

#[test]
fn a_handshake_tells_exactly_five_facts() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    let (_, body) = ask(&mut sim, client, get(HANDSHAKE));
    let facts: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
    let facts = facts.as_object().unwrap();
    assert_eq!(facts.len(), 5);
    assert_eq!(facts["upgrades"], serde_json::json!(["websocket"]));
    assert_eq!(facts["pingInterval"], 25_000);
    assert_eq!(facts["pingTimeout"], 20_000);
    assert_eq!(facts["sid"].as_str().unwrap().len(), 20);
    let mut web = Web::open(&mut sim, WEBSOCKET);
    let open = heard(&mut sim, &mut web).remove(0);
    assert!(open.contains(r#""upgrades":[]"#), "{open}");
}

#[test]
fn all_clients_of_a_channel_meet_whatever_they_speak() {
    let mut sim = hub(limits());
    let redis = subscriber(&mut sim, "a");
    let mut web = connected(&mut sim);
    let poller = Poller::connected(&mut sim);
    assert_eq!(
        say(&mut sim, &mut web, r#"420["subscribe","a"]"#),
        [r#"430[{"subscribed":["a"]}]"#]
    );
    poller.send(&mut sim, r#"421["subscribe","a","b"]"#);
    assert_eq!(poller.poll(&mut sim).1, r#"431[{"subscribed":["a","b"]}]"#);
    poller.wait(&mut sim);
    let got = say(&mut sim, &mut web, r#"422["publish","a",{"x":1}]"#);
    assert_eq!(got, [r#"432[{"published":"a","receivers":3}]"#, r#"42["message","a",{"x":1}]"#]);
    assert_eq!(poller.got(&mut sim), r#"42["message","a",{"x":1}]"#);
    assert!(all(&mut sim, redis).contains("{\"x\":1}"));
    // While no poll waits, output collects.
    for payload in ["two", "[\"chat\",3]", "[\"connect\"]", "\"4\""] {
        let client = sim.accepted();
        let command = crate::sim::multibulk(&["PUBLISH", "a", payload]);
        sim.exchange(client, command);
    }
    assert_eq!(
        poller.poll(&mut sim).1.split('\u{1e}').collect::<Vec<_>>(),
        [
            r#"42["message","a","two"]"#,
            r#"42["chat",3]"#,
            r#"42["message","a",["connect"]]"#,
            r#"42["message","a","\"4\""]"#
        ]
    );
    assert_eq!(heard(&mut sim, &mut web).len(), 4);
}

#[test]
fn binary_travels_as_attachments_both_ways() {
    let mut sim = hub(limits());
    let redis = subscriber(&mut sim, "a");
    let mut web = connected(&mut sim);
    let poller = Poller::connected(&mut sim);
    say(&mut sim, &mut web, r#"42["subscribe","a"]"#);
    poller.send(&mut sim, r#"42["subscribe","a"]"#);
    web.send(&mut sim, 0x81, br#"451-7["publish","a",{"_placeholder":true,"num":0}]"#);
    assert_eq!(web.got(&mut sim), []);
    web.send(&mut sim, 0x82, b"\xff\x00");
    let got = web.got(&mut sim);
    assert_eq!(got[0], text(r#"437[{"published":"a","receivers":3}]"#));
    assert_eq!(got[1], text(r#"451-["message","a",{"_placeholder":true,"num":0}]"#));
    assert_eq!(got[2], (Opcode::Binary, b"\xff\x00".to_vec()));
    let expected = "451-[\"message\",\"a\",{\"_placeholder\":true,\"num\":0}]\u{1e}b/wA=";
    assert_eq!(poller.poll(&mut sim).1, expected);
    let packets = "451-[\"publish\",\"a\",{\"num\":0,\"_placeholder\":true}]\u{1e}b/wAB";
    assert_eq!(poller.send(&mut sim, packets).0, 200);
    assert_eq!(web.got(&mut sim)[1], (Opcode::Binary, b"\xff\x00\x01".to_vec()));
    let bytes: Vec<u8> = sim.net().client_received(redis);
    assert!(bytes.windows(3).any(|part| part == b"\xff\x00\x01"));
}

#[test]
fn a_packet_that_breaks_the_protocol_ends_its_client() {
    for (packet, about) in [
        ("2", "a ping of a client"),
        ("x", "no type"),
        ("", "nothing"),
        ("4", "no type of Socket.IO"),
        ("49", "an unknown type"),
        ("42", "an event without JSON"),
        ("42[]", "an event without a name"),
        ("42[\"connect\"]", "a reserved name"),
        ("42/other,[\"a\"]", "a namespace that is not joined"),
        ("451[\"a\"]", "no number of attachments"),
        ("4511-[\"a\"]", "too many attachments"),
        ("450-[\"a\"]", "no attachments"),
        (r#"451-["a",{"_placeholder":true,"num":1}]"#, "a placeholder without an attachment"),
        (r#"451-["a",[{"b":{"_placeholder":true}}]]"#, "a placeholder without a number"),
        ("40", "a namespace that is joined"),
        ("44{}", "an error of a client"),
    ] {
        let mut sim = hub(limits());
        let mut web = connected(&mut sim);
        let got = say(&mut sim, &mut web, packet);
        assert!(got.last().is_some_and(|last| last.starts_with("Close ")), "{about}: {got:?}");
        assert!(sim.is_ended(web.id), "{about}");
        let poller = Poller::connected(&mut sim);
        poller.wait(&mut sim);
        assert_eq!(poller.send(&mut sim, packet).0, 200, "{about}");
        assert_eq!(poller.got(&mut sim), "1", "{about}");
        assert_eq!(poller.poll(&mut sim).0, 400, "{about}");
    }
}

#[test]
fn an_event_and_its_attachments_stay_together() {
    let mut sim = hub(limits());
    let mut web = connected(&mut sim);
    say(&mut sim, &mut web, r#"451-["publish","a",{"_placeholder":true,"num":0}]"#);
    let got = say(&mut sim, &mut web, r#"42["subscribe","a"]"#);
    assert!(got[0].starts_with("Close "), "a text amid attachments: {got:?}");
    let mut web = connected(&mut sim);
    web.send(&mut sim, 0x82, b"x");
    assert!(heard(&mut sim, &mut web)[0].starts_with("Close "), "an attachment of no event");
    // Pongs come at any time.
    let mut web = connected(&mut sim);
    say(&mut sim, &mut web, r#"451-1["publish","a",{"_placeholder":true,"num":0}]"#);
    assert!(say(&mut sim, &mut web, "3").is_empty());
    web.send(&mut sim, 0x82, b"x");
    assert_eq!(heard(&mut sim, &mut web), [r#"431[{"published":"a","receivers":0}]"#]);
}

#[test]
fn a_second_poll_at_once_ends_the_client() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    poller.wait(&mut sim);
    let other = sim.accepted();
    let (status, body) = ask(&mut sim, other, get(&poller.target()));
    assert_eq!((status, &body[..]), (400, r#"{"code":3,"message":"Bad request"}"#));
    assert_eq!(poller.got(&mut sim), "1");
    assert_eq!(poller.poll(&mut sim).1, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[test]
fn a_poll_that_is_cut_off_ends_the_client_and_its_subscriptions() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    poller.send(&mut sim, r#"42["subscribe","a"]"#);
    poller.wait(&mut sim);
    sim.net().client_close(poller.get);
    sim.turns(3);
    let client = sim.accepted();
    let command = crate::sim::multibulk(&["PUBLISH", "a", "x"]);
    assert_eq!(sim.exchange(client, command), ":0\r\n");
    assert_eq!(poller.send(&mut sim, "3").0, 400);
}

#[test]
fn a_close_packet_ends_the_client_and_releases_its_poll() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    poller.wait(&mut sim);
    assert_eq!(poller.send(&mut sim, "1"), (200, "ok".into()));
    assert_eq!(poller.got(&mut sim), "6");
    assert_eq!(poller.poll(&mut sim).0, 400);
    let mut web = connected(&mut sim);
    say(&mut sim, &mut web, "1");
    assert!(sim.is_ended(web.id));
}

/// Begins the upgrade of a client, up to `3probe`.
fn probe(sim: &mut Sim, poller: &Poller) -> Web {
    let mut web = Web::open(sim, &format!("{WEBSOCKET}&sid={}", poller.sid));
    assert_eq!(say(sim, &mut web, "2probe"), ["3probe"]);
    web
}

#[test]
fn an_upgrade_releases_every_poll_and_loses_nothing() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    poller.send(&mut sim, r#"42["subscribe","a"]"#);
    poller.wait(&mut sim);
    let mut web = probe(&mut sim, &poller);
    assert_eq!(poller.got(&mut sim), "6", "the poll that waited");
    assert_eq!(poller.poll(&mut sim).1, "6", "a poll behind the probe");
    let publish = crate::sim::multibulk(&["PUBLISH", "a", "x"]);
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, &publish), ":1\r\n");
    assert_eq!(
        say(&mut sim, &mut web, "5"),
        [r#"42["message","a","x"]"#],
        "what waited for a poll comes by the WebSocket"
    );
    assert_eq!(sim.exchange(client, &publish), ":1\r\n");
    assert_eq!(heard(&mut sim, &mut web), [r#"42["message","a","x"]"#]);
    let bad = (400, r#"{"code":3,"message":"Bad request"}"#.to_string());
    assert_eq!(poller.poll(&mut sim), bad);
    let other = sim.accepted();
    assert_eq!(ask(&mut sim, other, post(&poller.target(), "3")), bad);
    // The client goes on to be pinged, and ends with its connection.
    for _ in 0..3 {
        sim.pass(PING);
        assert_eq!(heard(&mut sim, &mut web), ["2"]);
        say(&mut sim, &mut web, "3");
    }
    sim.net().client_close(web.id);
    sim.turns(3);
    assert_eq!(sim.exchange(client, &publish), ":0\r\n");
}

#[test]
fn a_second_websocket_for_a_client_is_closed() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    let mut first = probe(&mut sim, &poller);
    let mut second = Web::open(&mut sim, &format!("{WEBSOCKET}&sid={}", poller.sid));
    second.assert_closed(&mut sim, 1000, "while the first upgrades");
    assert!(say(&mut sim, &mut first, "5").is_empty());
    let mut third = Web::open(&mut sim, &format!("{WEBSOCKET}&sid={}", poller.sid));
    third.assert_closed(&mut sim, 1000, "after the upgrade");
    assert_eq!(say(&mut sim, &mut first, r#"420["subscribe","a"]"#).len(), 1);
}

#[test]
fn a_websocket_that_upgrades_a_client_ends_with_it() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    let mut web = probe(&mut sim, &poller);
    assert_eq!(poller.send(&mut sim, "1").0, 200);
    sim.turns(2);
    web.assert_closed(&mut sim, 1000, "its client has ended");
}

#[test]
fn an_upgrade_that_is_not_finished_ends_alone() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    let mut web = probe(&mut sim, &poller);
    sim.pass(9 * SECOND);
    assert!(!sim.is_ended(web.id));
    sim.pass(2 * SECOND);
    web.assert_closed(&mut sim, 1008, "it took too long");
    sim.turns(2);
    poller.wait(&mut sim);
    // Any other message ends it, too, and the client may try again.
    let mut web = Web::open(&mut sim, &format!("{WEBSOCKET}&sid={}", poller.sid));
    assert!(say(&mut sim, &mut web, "42[\"a\"]")[0].starts_with("Close "));
    sim.turns(2);
    probe(&mut sim, &poller);
}

#[test]
fn a_client_is_pinged_however_much_it_says_and_closed_without_a_pong() {
    let mut sim = hub(limits());
    let mut web = connected(&mut sim);
    for second in 1..=24 {
        sim.pass(SECOND);
        let got = say(&mut sim, &mut web, r#"420["publish","a",1]"#);
        assert_eq!(got.len(), 1, "second {second}: {got:?}");
    }
    sim.pass(PING - 24 * SECOND);
    assert_eq!(heard(&mut sim, &mut web), ["2"]);
    sim.pass(19 * SECOND);
    assert!(!sim.is_ended(web.id));
    sim.pass(2 * SECOND);
    web.assert_closed(&mut sim, 1008, "no pong");
    sim.pass(10 * SECOND);
    assert_eq!(sim.closed(Reason::PingTimeout), 1);
}

#[test]
fn a_client_that_polls_is_pinged_and_ends_without_a_pong() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    for _ in 0..40 {
        poller.wait(&mut sim);
        sim.pass(PING);
        assert_eq!(poller.got(&mut sim), "2");
        assert_eq!(poller.send(&mut sim, "3").0, 200);
    }
    // It vanishes between two polls.
    sim.pass(42 * SECOND);
    assert_eq!(poller.poll(&mut sim).1, "2", "it is there until its time is over");
    sim.pass(4 * SECOND);
    assert_eq!(poller.poll(&mut sim).1, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[test]
fn a_client_without_a_namespace_is_closed_at_the_connect_timeout() {
    let limits = Limits { socketio_connect_timeout: 10 * SECOND, ..limits() };
    let mut sim = hub(limits);
    let mut web = opened(&mut sim);
    let poller = Poller::open(&mut sim);
    poller.wait(&mut sim);
    sim.pass(9 * SECOND);
    assert!(!sim.is_ended(web.id) && poller.got(&mut sim).is_empty());
    sim.pass(2 * SECOND);
    web.assert_closed(&mut sim, 1008, "no namespace");
    assert_eq!(poller.got(&mut sim), "1");
}

#[test]
fn clients_that_only_shake_hands_make_room_for_newcomers() {
    let most = 8;
    let mut sim = hub(Limits { max_silent: most, ..limits() });
    let first = Poller::open(&mut sim);
    let busy = Poller::connected(&mut sim);
    let mut others = Vec::new();
    for _ in 0..most - 1 {
        let client = sim.accepted();
        others.push(ask(&mut sim, client, get(HANDSHAKE)));
        sim.net().client_close(client);
        sim.turns(2);
    }
    let client = sim.accepted();
    sim.net().client_close(first.post);
    sim.turns(2);
    assert_eq!(ask(&mut sim, client, get(&first.target())).0, 400, "the oldest went");
    assert_eq!(busy.send(&mut sim, "3").0, 200, "one with a namespace stays");
}

#[test]
fn clients_that_stop_to_poll_make_room_for_newcomers() {
    let most = 8;
    let mut sim = hub(Limits { max_connections: most, ..limits() });
    let there = Poller::connected(&mut sim);
    there.wait(&mut sim);
    let mut absent = Vec::new();
    let mut leave = |sim: &mut Sim| {
        let client = Poller::connected(sim);
        sim.net().client_close(client.get);
        sim.net().client_close(client.post);
        sim.pass(SECOND / 10);
        absent.push(client);
    };
    (0..most - 1).for_each(|_| leave(&mut sim));
    leave(&mut sim);
    let client = sim.accepted();
    let is_known =
        |sim: &mut Sim, index: usize| ask(sim, client, post(&absent[index].target(), "3")).0 == 200;
    assert!(!is_known(&mut sim, 0), "the one that has not polled for longest went");
    assert!((1..most).all(|index| is_known(&mut sim, index)), "the others stay");
    // A client whose poll waits stays, however old the poll is.
    (0..2 * most).for_each(|_| {
        let client = Poller::connected(&mut sim);
        sim.net().client_close(client.get);
        sim.net().client_close(client.post);
        sim.pass(SECOND / 10);
    });
    assert_eq!(there.send(&mut sim, "41\x1e40"), (200, "ok".into()));
    assert!(there.got(&mut sim).starts_with("40{\"sid\":\""));
}

#[test]
fn an_unknown_namespace_is_refused_and_the_connection_stays() {
    let mut sim = hub(limits());
    let mut web = connected(&mut sim);
    let got = say(&mut sim, &mut web, "40/x,");
    assert_eq!(got, [r#"44/x,{"message":"Invalid namespace"}"#]);
    assert_eq!(say(&mut sim, &mut web, "40/x"), got, "without the comma");
    assert_eq!(say(&mut sim, &mut web, r#"42["subscribe","a"]"#), [""; 0]);
    // A socket that disconnects leaves its channels, and may come back with another sid.
    assert_eq!(say(&mut sim, &mut web, "41"), [""; 0]);
    let client = sim.accepted();
    let command = crate::sim::multibulk(&["PUBLISH", "a", "x"]);
    assert_eq!(sim.exchange(client, command), ":0\r\n");
    let again = say(&mut sim, &mut web, "40");
    say(&mut sim, &mut web, "41");
    let more = say(&mut sim, &mut web, "40");
    assert!(again[0].starts_with("40{\"sid\":") && more[0].starts_with("40{\"sid\":"));
    assert_ne!(again, more);
}

fn with_password() -> Sim {
    let password = Some(Secret(b"secret"[..].into()));
    let options =
        Options { password, routes: Rc::new(EventRoutes::default()), ..Options::default() };
    Sim::new(Box::new(Hub::new(&options)), limits())
}

#[test]
fn the_password_comes_in_auth() {
    let mut sim = with_password();
    let mut web = opened(&mut sim);
    let got = say(&mut sim, &mut web, "40");
    assert!(got[0].starts_with(r#"44{"message":"the password is missing"#), "{got:?}");
    let got = say(&mut sim, &mut web, r#"40{"token":"secret"}"#);
    assert!(got[0].starts_with("40{\"sid\":"), "{got:?}");
    assert_eq!(say(&mut sim, &mut web, r#"420["subscribe","a"]"#).len(), 1);
    let mut poller = Poller::open(&mut sim);
    for (packet, answer) in [("40", "44{"), (r#"40{"password":"secret"}"#, "40{")] {
        // Without the password, a connection ends with its first answer.
        (poller.get, poller.post) = (sim.accepted(), sim.accepted());
        assert_eq!(poller.send(&mut sim, packet), (200, "ok".into()));
        assert!(poller.poll(&mut sim).1.starts_with(answer));
    }
    poller.wait(&mut sim);
    sim.pass(PING);
    assert_eq!(poller.got(&mut sim), "2", "the connection stays");
    poller.post = sim.accepted();
    assert_eq!(poller.send(&mut sim, "3").0, 200);
    // Before the password, no event is served.
    let mut web = opened(&mut sim);
    assert!(say(&mut sim, &mut web, r#"42["subscribe","a"]"#)[0].starts_with("Close "));
}

#[test]
fn a_wrong_password_is_refused_and_the_client_may_try_again() {
    let mut sim = with_password();
    let mut web = opened(&mut sim);
    web.send(&mut sim, 0x81, br#"40{"password":"guess"}"#);
    sim.pass(Duration::from_secs(6));
    assert_eq!(heard(&mut sim, &mut web), [r#"44{"message":"wrong password"}"#]);
    let got = say(&mut sim, &mut web, r#"40{"password":"secret"}"#);
    assert!(got[0].starts_with("40{\"sid\":"), "{got:?}");
}

#[test]
fn a_drain_answers_the_polls_that_wait() {
    let mut sim = hub(limits());
    let poller = Poller::connected(&mut sim);
    poller.wait(&mut sim);
    let mut web = connected(&mut sim);
    let operator = sim.accepted();
    sim.send(operator, "SHUTDOWN\r\n");
    sim.turns(4);
    assert_eq!(poller.got(&mut sim), "1");
    web.assert_closed(&mut sim, 1001, "the drain");
    assert_eq!(sim.net().client_saw(poller.get), End::Fin);
}

#[test]
fn an_attachment_that_does_not_come_ends_its_client_in_time() {
    let mut sim = hub(Limits { message_timeout: 5 * SECOND, ..limits() });
    let event =
        r#"452-["publish","a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let mut web = connected(&mut sim);
    say(&mut sim, &mut web, event);
    let poller = Poller::connected(&mut sim);
    poller.send(&mut sim, event);
    sim.pass(4 * SECOND);
    // One of two attachments gives no more time.
    web.send(&mut sim, 0x82, b"x");
    sim.pass(SECOND / 2);
    assert!(!sim.is_ended(web.id));
    sim.pass(SECOND);
    assert!(sim.is_ended(web.id));
    assert_eq!(poller.poll(&mut sim).0, 400);
    assert_eq!(sim.closed(Reason::MessageTimeout), 1);
}

#[test]
fn output_that_no_poll_takes_ends_its_client_at_the_output_limit() {
    let most = 64 << 10;
    let mut sim = hub(Limits { output_limit: most, ..limits() });
    let poller = Poller::connected(&mut sim);
    poller.send(&mut sim, r#"42["subscribe","a"]"#);
    let client = sim.accepted();
    let payload = "x".repeat(16 << 10);
    let publish = crate::sim::multibulk(&["PUBLISH", "a", &payload]);
    for receivers in [1, 1, 1, 1, 0] {
        assert_eq!(sim.exchange(client, &publish), format!(":{receivers}\r\n"));
        sim.turns(2);
    }
    assert_eq!(poller.poll(&mut sim).0, 400);
}

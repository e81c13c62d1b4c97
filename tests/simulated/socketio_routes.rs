//! Applications without code: the routes of the configuration file, as clients of Socket.IO meet
//! them.

use std::path::Path;
use std::time::Duration;

use slabd::config::Settings;
use slabd::hub::Hub;
use slabd::service::Options;

use crate::sim::{Sim, all, limits, multibulk, subscriber};
use crate::socketio::{heard, opened, say};
use crate::websocket::Web;

/// Starts a hub with the `[socketio]` section of a file.
fn app(toml: &str) -> Sim {
    let settings = Settings::parse(toml, Path::new("app.toml")).unwrap();
    let options = Options { routes: settings.routes(), ..Options::default() };
    Sim::new(Box::new(Hub::new(&options)), limits())
}

/// Returns the application of this heading on the page about Socket.IO.
fn from_page(heading: &str) -> String {
    let page = include_str!("../../docs/socketio.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, block) = section.split_once("```toml\n").unwrap();
    block.split_once("```").unwrap().0.into()
}

/// A client of a namespace, and what it got besides the answer to its CONNECT.
fn connected(sim: &mut Sim, packet: &str) -> (Web, Vec<String>) {
    let mut web = opened(sim);
    let mut got = say(sim, &mut web, packet);
    let answer = got.remove(0);
    assert!(answer.contains("\"sid\""), "{answer}");
    got.extend(settled(sim, &mut web));
    (web, got)
}

/// Returns what a client gets in the next turns.
fn settled(sim: &mut Sim, web: &mut Web) -> Vec<String> {
    sim.pass(Duration::from_millis(100));
    heard(sim, web)
}

fn publish(sim: &mut Sim, channel: &str, payload: &str) {
    let client = sim.accepted();
    sim.exchange(client, multibulk(&["PUBLISH", channel, payload]));
}

#[test]
fn the_checkboxes_of_all_clients_agree() {
    let mut sim = app(&from_page("How do I share a thousand checkboxes?"));
    let redis = subscriber(&mut sim, "checkboxes");
    let (mut ada, got) = connected(&mut sim, "40");
    assert_eq!(got, [""; 0]);
    let (mut bob, _) = connected(&mut sim, "40");
    let change = r#"427["client:checkbox:change",{"index":5,"checked":true}]"#;
    let event = r#"42["server:checkbox:change",{"index":5,"checked":true}]"#;
    assert_eq!(say(&mut sim, &mut ada, change), [r#"437[{}]"#, event]);
    assert_eq!(heard(&mut sim, &mut bob), [event]);
    assert!(all(&mut sim, redis).contains(r#"{"index":5,"checked":true}"#));
    publish(&mut sim, "checkboxes", r#"{"index":7,"checked":true}"#);
    let event = r#"42["server:checkbox:change",{"index":7,"checked":true}]"#;
    assert_eq!(heard(&mut sim, &mut ada), [event]);
    // A newcomer gets the state as one event.
    let (_, got) = connected(&mut sim, "40");
    let state = r#"[{"index":5,"checked":true},{"index":7,"checked":true}]"#;
    assert_eq!(got, [format!(r#"42["server:checkbox:state",{state}]"#)]);
    for (packet, error) in [
        (r#"421["client:checkbox:change",{"index":5}]"#, "checked is missing; expected boolean"),
        (
            r#"421["subscribe","checkboxes"]"#,
            "no event \\\"subscribe\\\" here; expected an event of the configuration",
        ),
        (r#"421["server:checkbox:change",{}]"#, "no event \\\"server:checkbox:change\\\" here"),
    ] {
        let got = say(&mut sim, &mut ada, packet);
        assert!(got[0].starts_with(&format!(r#"431[{{"error":"{error}"#)), "{got:?}");
    }
    // Without an acknowledgement, the client learns nothing, and the others either.
    assert_eq!(say(&mut sim, &mut ada, r#"42["client:checkbox:change",{}]"#), [""; 0]);
    let binary = r#"451-3["client:checkbox:change",{"_placeholder":true,"num":0}]"#;
    ada.send(&mut sim, 0x81, binary.as_bytes());
    ada.send(&mut sim, 0x82, b"\x01");
    let error = r#"433[{"error":"no binary here; accepted: JSON"}]"#;
    assert_eq!(heard(&mut sim, &mut ada), [error]);
    assert_eq!(heard(&mut sim, &mut bob).len(), 1);
}

#[test]
fn a_socket_may_use_a_route_as_often_as_its_rate_allows() {
    let mut sim = app("[[socketio.on]]\nevent='e'\nack=1\nrate='3/s'");
    let (mut ada, _) = connected(&mut sim, "40");
    let (mut bob, _) = connected(&mut sim, "40");
    let ask = |sim: &mut Sim, web: &mut Web| say(sim, web, r#"420["e"]"#).remove(0);
    for _ in 0..3 {
        assert_eq!(ask(&mut sim, &mut ada), "430[1]");
    }
    for _ in 0..3 {
        let error = r#"430[{"error":"too many events \"e\"; accepted: 3/s"}]"#;
        assert_eq!(ask(&mut sim, &mut ada), error);
    }
    assert_eq!(ask(&mut sim, &mut bob), "430[1]");
    sim.pass(Duration::from_millis(400));
    assert_eq!(ask(&mut sim, &mut ada), "430[1]");
    assert!(ask(&mut sim, &mut ada).contains("too many"));
}

#[test]
fn a_client_that_connects_again_and_again_is_refused_in_the_end() {
    let mut sim = app("[[socketio.on]]\non='connect'\npublish='here'\ndata='{sid}'");
    let redis = subscriber(&mut sim, "here");
    let mut web = opened(&mut sim);
    let mut refused = 0;
    for _ in 0..50 {
        let got = say(&mut sim, &mut web, "40");
        refused += usize::from(got[0].starts_with(r#"44{"message":"too many connects"#));
        say(&mut sim, &mut web, "41");
        if refused > 0 {
            break;
        }
    }
    assert_eq!(refused, 1);
    let told = all(&mut sim, redis).matches("here").count();
    assert_eq!(told, 10);
}

#[test]
fn the_chat_has_rooms_and_shows_who_is_there() {
    let mut sim = app(&from_page("How do I make a chat with rooms and who is there?"));
    let mut nobody = opened(&mut sim);
    let refused = r#"44/chat,{"message":"auth: name is missing; expected string 1..32"}"#;
    assert_eq!(say(&mut sim, &mut nobody, "40/chat,"), [refused]);
    let (mut ada, got) = connected(&mut sim, r#"40/chat,{"name":"Ada"}"#);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].starts_with(r#"42/chat,["person",{"sid":""#), "{got:?}");
    let (mut bob, got) = connected(&mut sim, r#"40/chat,{"name":"Bob","password":"x"}"#);
    assert!(got[0].starts_with(r#"42/chat,["people",[{"sid":""#) && got[0].contains("Ada"));
    assert!(!got.concat().contains("password"));
    let arrived = heard(&mut sim, &mut ada);
    assert!(arrived[0].starts_with(r#"42/chat,["person",{"sid":""#), "{arrived:?}");
    for web in [&mut ada, &mut bob] {
        let joined = say(&mut sim, web, r#"42/chat,0["join","lobby"]"#);
        assert_eq!(joined, [r#"43/chat,0[{"joined":"lobby"}]"#]);
    }
    let said = say(&mut sim, &mut ada, r#"42/chat,1["say","lobby","[\"person\"]"]"#);
    assert_eq!(said, [r#"43/chat,1[{}]"#]);
    let heard_by_bob = heard(&mut sim, &mut bob);
    let expected = r#"42/chat,["said",{"room":"lobby","from":"Ada","text":"[\"person\"]"}]"#;
    assert_eq!(heard_by_bob, [expected]);
    say(&mut sim, &mut bob, r#"42/chat,["leave","lobby"]"#);
    say(&mut sim, &mut ada, r#"42/chat,["say","lobby","hi"]"#);
    assert_eq!(heard(&mut sim, &mut bob), [""; 0]);
    // Bob goes, and newcomers do not see him.
    say(&mut sim, &mut bob, "41/chat,");
    let gone = heard(&mut sim, &mut ada);
    assert!(gone.len() == 1 && gone[0].contains(r#""deleted":true"#), "{gone:?}");
    let (_, got) = connected(&mut sim, r#"40/chat,{"name":"Cai"}"#);
    assert!(got[0].contains("Ada") && !got[0].contains("Bob"), "{got:?}");
}

#[test]
fn a_client_that_vanishes_is_gone_for_the_others() {
    let mut sim = app(&from_page("How do I show everyone's cursor?"));
    let (mut ada, _) = connected(&mut sim, "40");
    let (mut bob, _) = connected(&mut sim, "40");
    assert_eq!(say(&mut sim, &mut bob, r#"42["move",{"x":0.5,"y":1}]"#), [""; 0]);
    let moved = heard(&mut sim, &mut ada);
    assert!(moved.len() == 1 && moved[0].ends_with(r#","x":0.5,"y":1}]"#), "{moved:?}");
    let sid = moved[0].split('"').nth(5).unwrap().to_string();
    sim.net().client_close(bob.id);
    assert_eq!(settled(&mut sim, &mut ada), [format!(r#"42["gone","{sid}"]"#)]);
}

#[test]
fn a_message_reaches_the_room_that_it_names() {
    let mut sim = app("[socketio]\nverbs=true\n[[socketio.from]]\nchannel='orders'\n\
                       emit='order'\nroom='shop.{shop}'");
    let (mut north, _) = connected(&mut sim, "40");
    let (mut south, _) = connected(&mut sim, "40");
    say(&mut sim, &mut north, r#"42["subscribe","shop.north"]"#);
    say(&mut sim, &mut south, r#"42["subscribe","shop.south"]"#);
    publish(&mut sim, "orders", r#"{"shop":"north","n":1}"#);
    publish(&mut sim, "orders", "no shop");
    assert_eq!(settled(&mut sim, &mut north), [r#"42["order",{"shop":"north","n":1}]"#]);
    assert_eq!(heard(&mut sim, &mut south), [""; 0]);
}

#[test]
fn a_text_stays_a_text_whatever_it_looks_like() {
    let mut sim = app("[[socketio.on]]\nevent='say'\nrequire='string 1..100'\npublish='chat'\n\
                       [[socketio.from]]\nchannel='chat'\nemit='said'");
    let (mut ada, _) = connected(&mut sim, "40");
    for text in [r#""5""#, r#""[\"admin\"]""#, r#""true""#, r#""\"""#] {
        let got = say(&mut sim, &mut ada, &format!(r#"42["say",{text}]"#));
        assert_eq!(got, [format!(r#"42["said",{text}]"#)]);
    }
    for (payload, value) in [("5", "5"), ("five", r#""five""#), (r#""5""#, r#""5""#)] {
        publish(&mut sim, "chat", payload);
        assert_eq!(heard(&mut sim, &mut ada), [format!(r#"42["said",{value}]"#)]);
    }
}

#[test]
fn pages_of_any_origin_get_the_client_and_keep_it() {
    let mut sim = app("");
    let mut ask = |request: &str| {
        let client = sim.accepted();
        sim.send(client, request.replace('\n', "\r\n"));
        all(&mut sim, client)
    };
    for name in ["socket.io.js", "socket.io.min.js", "socket.io.js?v=4"] {
        let text = ask(&format!(
            "GET /socket.io/{name} HTTP/1.1\nHost: example.com\nSec-Fetch-Site: cross-site\n\n"
        ));
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\r\nETag: \"4.8.4\"\r\n"));
        assert!(text.contains("Socket.IO v4.8.4") && text.len() > 47_000);
    }
    let get = "GET /socket.io/socket.io.js HTTP/1.1\nHost: localhost\nIf-None-Match: ";
    for (tags, status) in [
        ("\"4.8.4\"", 304),
        ("\"1\", W/\"4.8.4\"", 304),
        ("*", 304),
        ("\"4.8.3\"", 200),
        ("4.8.4", 200),
    ] {
        let text = ask(&format!("{get}{tags}\n\n"));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{tags}: {}", &text[..30]);
        assert_eq!(text.ends_with("\r\n\r\n"), status == 304);
    }
    let head = ask("HEAD /socket.io/socket.io.js HTTP/1.1\nHost: localhost\n\n");
    assert!(head.contains("\r\nContent-Length: 47295\r\n") && head.ends_with("\r\n\r\n"));
    let post = ask("POST /socket.io/socket.io.js HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n");
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

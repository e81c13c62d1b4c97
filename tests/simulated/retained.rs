//! Retained values, as clients of each protocol get them.

use slabd::codec::websocket::Opcode;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::sim::ClientId;
use slabd::retain_rule::RetainRule;
use slabd::service::Options;

use crate::sim::{SECOND, Sim, all, limits, multibulk};
use crate::websocket::{Got, Web, text};

/// Returns a hub that keeps the last message of `news`, and of each `k` in `cells`.
fn sim_with(limits: Limits) -> Sim {
    let cells = RetainRule { channel: "cells".into(), key: Some("k".into()), max: 50_000 };
    let retain = vec![RetainRule::last_of("news"), cells];
    Sim::new(Box::new(Hub::new(&Options { retain, ..Options::default() })), limits)
}

fn publish(sim: &mut Sim, client: ClientId, channel: &str, payload: &str) {
    sim.send(client, multibulk(&["PUBLISH", channel, payload]));
    sim.turns(2);
}

fn get(sim: &mut Sim, target: &str) -> String {
    let client = sim.accepted();
    sim.send(client, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let answer = all(sim, client);
    sim.net().client_close(client);
    answer
}

#[test]
fn a_subscriber_of_resp_gets_the_kept_messages_behind_the_confirmation() {
    let mut sim = sim_with(limits());
    let publisher = sim.accepted();
    for payload in [r#"{"k":1,"v":1}"#, r#"{"k":2,"v":1}"#, r#"{"k":1,"v":2}"#, "no key"] {
        publish(&mut sim, publisher, "cells", payload);
    }
    publish(&mut sim, publisher, "news", "old");
    let client = sim.accepted();
    assert_eq!(sim.exchange(client, "CLIENT RETAINED ON\r\n"), "+OK\r\n");
    let answer = sim.exchange(client, "SUBSCRIBE news cells other\r\n");
    let message = |channel: &str, payload: &str| multibulk(&["message", channel, payload]);
    let confirmations = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n\
                         *3\r\n$9\r\nsubscribe\r\n$5\r\ncells\r\n:2\r\n\
                         *3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:3\r\n";
    let state = [
        message("news", "old"),
        message("cells", r#"{"k":2,"v":1}"#),
        message("cells", r#"{"k":1,"v":2}"#),
    ];
    assert_eq!(answer, confirmations.to_string() + &state.concat());
    // From now on, each message comes once, whether it is kept or not.
    for payload in [r#"{"k":1,"v":3}"#, r#"{"k":2,"deleted":true}"#, "no key"] {
        publish(&mut sim, publisher, "cells", payload);
        assert_eq!(sim.received(client), message("cells", payload));
    }
    // A channel that the client has already gives nothing; a new subscription does.
    assert!(!sim.exchange(client, "SUBSCRIBE cells\r\n").contains("message"));
    let again = sim.exchange(client, "UNSUBSCRIBE cells\r\nSUBSCRIBE cells\r\n");
    assert!(again.ends_with(&message("cells", r#"{"k":1,"v":3}"#)), "{again}");
    assert_eq!(again.matches("message").count(), 1, "{again}");
    let other = sim.accepted();
    assert!(!sim.exchange(other, "SUBSCRIBE news\r\n").contains("message"), "OFF is the default");
    let reset = "RESET\r\nSUBSCRIBE news\r\n";
    assert!(!sim.exchange(client, reset).contains("message"), "RESET turns it off");
    let third = sim.accepted();
    sim.exchange(third, "CLIENT RETAINED ON\r\nCLIENT RETAINED OFF\r\n");
    assert!(!sim.exchange(third, "SUBSCRIBE news\r\n").contains("message"));
    sim.received(publisher);
    assert!(sim.exchange(publisher, "CLIENT RETAINED x\r\n").starts_with("-ERR syntax error"));
}

#[test]
fn clients_of_the_web_ask_for_kept_messages_in_the_request() {
    let mut sim = sim_with(limits());
    let publisher = sim.accepted();
    publish(&mut sim, publisher, "news", "old");
    publish(&mut sim, publisher, "cells", r#"{"k":1}"#);
    let mut web = Web::open(&mut sim, "/ws/news?retained=1");
    assert_eq!(web.got(&mut sim), [text("old")]);
    publish(&mut sim, publisher, "news", "new");
    assert_eq!(web.got(&mut sim), [text("new")]);
    assert_eq!(Web::open(&mut sim, "/ws/news").got(&mut sim), [] as [Got; 0]);
    let mut json = Web::open(&mut sim, "/ws");
    json.send(&mut sim, 0x81, br#"{"subscribe":["cells","news"],"retained":true,"id":1}"#);
    let expected = [
        r#"{"subscribed":"cells","id":1}"#,
        r#"{"subscribed":"news","id":1}"#,
        r#"{"channel":"cells","data":{"k":1}}"#,
        r#"{"channel":"news","data":"new"}"#,
    ];
    assert_eq!(json.got(&mut sim), expected.map(text));
    json.send(&mut sim, 0x81, br#"{"subscribe":"x","retained":1}"#);
    let error = json.got(&mut sim).remove(0);
    assert!(error.0 == Opcode::Text && error.1.starts_with(b"{\"error\":"));
    let events = get(&mut sim, "/events/news?retained=1");
    assert!(events.ends_with(":\n\ndata: new\n\n"), "{events}");
    let events = get(&mut sim, "/events?channel=news&channel=cells&pattern=c*&retained=1");
    assert_eq!(events.matches("data: ").count(), 2, "{events}");
    for target in ["/events/news?retained=yes", "/ws/news?retained=2"] {
        let answer = get(&mut sim, target);
        assert!(answer.contains("400 ") && answer.contains("accepted: 0 and 1"), "{answer}");
    }
}

#[test]
fn kept_messages_come_as_pages_of_json() {
    let mut sim = sim_with(limits());
    let publisher = sim.accepted();
    publish(&mut sim, publisher, "news", "\u{1}two words");
    let answer = get(&mut sim, "/retained/news");
    let body = "{\"channel\":\"news\",\"values\":[\"\\u0001two words\"]}\n";
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(body), "{answer}");
    for (target, status, reason) in [
        ("/retained/other", "404", "--retain"),
        ("/retained/news?after=9", "400", "begin again"),
        ("/retained/news?after=x", "400", "no cursor"),
    ] {
        let answer = get(&mut sim, target);
        assert!(answer.contains(status) && answer.contains(reason), "{answer}");
    }
    let padding = "x".repeat(1000);
    for key in 0..200 {
        let payload = format!(r#"{{"k":{key},"x":"{padding}"}}"#);
        publish(&mut sim, publisher, "cells", &payload);
    }
    publish(&mut sim, publisher, "cells", r#"{"k":100,"deleted":true}"#);
    let (mut keys, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = get(&mut sim, &format!("/retained/cells{after}"));
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        assert!(body.len() < 70_000, "{} bytes", body.len());
        let page: serde_json::Value = serde_json::from_str(body).unwrap();
        let values = page["values"].as_array().unwrap();
        keys.extend(values.iter().map(|value| value["k"].as_u64().unwrap()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("?after={next}");
    }
    assert!(keys.iter().copied().eq((0..200).filter(|key| *key != 100)), "{keys:?}");
    assert!((3..6).contains(&pages), "{pages} pages");
}

/// The newcomer reads nothing for a while. Its output stays bounded, and in the end it has all.
#[test]
fn a_slow_newcomer_is_not_closed_and_gets_all() {
    let mut sim = sim_with(limits());
    let publisher = sim.accepted();
    for first in (0..20_000).step_by(100) {
        let publishes: String = (first..first + 100)
            .map(|key| {
                multibulk(&["PUBLISH", "cells", &format!(r#"{{"k":{key},"v":"abcdefgh"}}"#)])
            })
            .collect();
        sim.send(publisher, publishes);
        sim.turns(3);
    }
    sim.received(publisher);
    let client = sim.accepted();
    sim.send(client, "CLIENT RETAINED ON\r\nSUBSCRIBE cells\r\n");
    sim.pass(SECOND);
    let unsent = sim.reactor.ledger().write_buffers;
    assert!(unsent < 400_000, "{unsent} bytes are held");
    let got = all(&mut sim, client);
    assert_eq!(got.matches("message\r\n").count(), 20_000);
    assert!(!sim.is_ended(client));
    sim.pass(SECOND);
    assert!(!sim.reactor.has_output());
}

#[test]
fn a_newcomer_that_ends_or_unsubscribes_amid_the_kept_messages_leaves_nothing_behind() {
    let mut sim = sim_with(limits());
    let publisher = sim.accepted();
    let padding = "x".repeat(3000);
    for key in 0..200 {
        publish(&mut sim, publisher, "cells", &format!(r#"{{"k":{key},"x":"{padding}"}}"#));
    }
    for end in ["UNSUBSCRIBE cells\r\n", "RESET\r\n", "QUIT\r\n", "close"] {
        let client = sim.accepted();
        sim.send(client, "CLIENT RETAINED ON\r\nSUBSCRIBE cells\r\n");
        sim.turns(2);
        match end {
            "close" => sim.net().client_close(client),
            _ => sim.send(client, end),
        }
        let got = all(&mut sim, client);
        assert!(got.matches("message\r\n").count() < 200, "{end}: it had all before");
        sim.received(publisher);
        let info = sim.exchange(publisher, "INFO retained\r\n");
        assert!(info.contains("catching_up:0\r\n"), "{end}: {info}");
        assert!(!sim.reactor.has_output(), "{end}: the loop is idle");
    }
}

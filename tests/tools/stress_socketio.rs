//! `slabd stress` over Socket.IO against slabd, by both transports.

use std::thread::spawn;

use crate::support::Server;
use crate::support::load_run::{expect_all_delivered, number, stress, stress_with};

const TRANSPORTS: [&str; 2] = ["websocket", "polling"];

#[test]
fn every_shape_of_load_runs_over_socket_io() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let target = format!("socketio://{}", server.address("hub"));
    for transport in TRANSPORTS {
        for (words, least) in [
            (format!("ping {target} -n 3000 -P 8 --size 100"), 3000),
            (format!("ping {target} -n 50 -c 2 --size 70000"), 50),
            // A poll waits on each idle connection, so couriers post.
            (format!("ping {target} --rate 200 -d 1s"), 200),
            (format!("hold {target} -c 300 -d 1s"), 600),
            (format!("churn {target} -n 500"), 500),
            (format!("fanout {target} -c 100 --messages 50 --in-flight 4"), 50),
            (format!("fanout {target} -c 100 --messages 50 --rate 100"), 50),
        ] {
            let all = format!("{words} --transport {transport}");
            let (code, record, said) =
                stress(&format!("{all} --assert errors=0 --assert failed=0"));
            assert_eq!(code, Some(0), "{all}: {said}");
            let answered = number(&record["requests"]["answered"]);
            assert!(
                answered >= least && answered == number(&record["requests"]["sent"]),
                "{all}: {answered}; {said}"
            );
            assert_eq!(number(&record["connections"]["closed_by_server"]), 0, "{all}");
            if words.starts_with("fanout") {
                expect_all_delivered(&record, &said);
            }
        }
    }
}

/// A client that is idle answers the pings of the server, so it stays.
#[test]
fn an_idle_client_answers_pings() {
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0"];
    arguments.extend(["--socketio-ping-interval", "300ms", "--socketio-ping-timeout", "2s"]);
    let server = Server::start(&arguments);
    let target = format!("socketio://{}", server.address("hub"));
    for transport in TRANSPORTS {
        let words = format!("hold {target} -c 20 -d 4s --transport {transport}");
        let (code, record, said) = stress(&format!("{words} --assert errors=0"));
        assert_eq!(code, Some(0), "{words}: {said}");
        assert!(number(&record["connections"]["pings"]) >= 100, "{words}: {said}");
        assert_eq!(number(&record["connections"]["closed_by_server"]), 0, "{words}: {said}");
    }
}

#[test]
fn a_refusal_of_the_namespace_and_an_error_of_an_event_say_why() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
    let hub = server.address("hub");
    for transport in TRANSPORTS {
        let run = |path: &str, more: &[&str]| {
            let target = format!("socketio://{hub}{path}");
            let words = ["ping", &target, "-n", "20", "-c", "2", "-d", "2s"];
            stress_with(&[&words[..], &["--transport", transport], more].concat())
        };
        let (code, _, said) = run("/none", &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("Socket.IO connect failed: 44/none,"), "{said}");
        assert!(said.contains("Invalid namespace"), "{said}");
        let (code, _, said) = run("", &["--send", "[\"unknown\",1]"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("{\"error\":"), "{said}");
    }
}

#[test]
fn the_password_of_socket_io_travels_with_the_connect() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "opensesame"]);
    let hub = server.address("hub");
    for (target, code) in
        [(format!("socketio://:opensesame@{hub}"), 0), (format!("socketio://{hub}"), 1)]
    {
        let (found, record, said) = stress(&format!("{target} -n 20 -c 2 -d 2s"));
        assert_eq!(found, Some(code), "{target}: {said}");
        assert!(!said.contains("opensesame") && !record.to_string().contains("opensesame"));
        if code == 1 {
            assert!(said.contains("Socket.IO connect failed: 44{"), "{said}");
        }
    }
}

/// Honest clients are served beside each flood.
#[test]
fn every_flood_runs_over_socket_io() {
    let mut arguments = vec!["--listen", "hub=127.0.0.1:0", "--penalty", "0"];
    arguments.extend(["--first-message-timeout", "1s", "--message-timeout", "1s"]);
    let server = Server::start(&arguments);
    let target = format!("socketio://{}", server.address("hub"));
    let kinds = [
        "silent",
        "half-request",
        "slowloris --drip 100ms",
        "announce",
        "rst",
        "vanish",
        "sids",
        "silent --transport polling",
        "half-request --transport polling",
        "slowloris --transport polling --drip 100ms",
        "announce --transport polling",
        "rst --transport polling",
        "sids --transport polling",
        "unpolled --transport polling",
        "half-upgrade --transport polling",
    ];
    let runs = kinds.map(|kind| {
        let words = format!("{kind} {target} -c 40 -d 3s --connect-rate 60 --assert honest>=99");
        spawn(move || {
            let (code, record, said) = stress(&words);
            assert_eq!(code, Some(0), "{kind}: {said}");
            assert!(number(&record["connections"]["opened"]) >= 40, "{kind}: {said}");
        })
    });
    runs.into_iter().for_each(|run| run.join().unwrap());
}

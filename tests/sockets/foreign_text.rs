//! Control characters of peers, flags, files and the environment never reach a log or a terminal.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::support::{Server, datagrams, program, run};

/// Escape sequences that clear a screen, set a title and reverse a text; in C0, C1 and Unicode.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\r\u{7f}z";

#[track_caller]
fn assert_harmless(text: &str) {
    let wrong = text
        .chars()
        .find(|one| (one.is_control() && !matches!(one, '\n' | '\t')) || *one == '\u{202e}');
    assert_eq!(wrong, None, "{text:?}");
}

#[test]
fn an_error_of_the_command_line_has_no_control_characters() {
    for arguments in [
        vec!["--config", HOSTILE],
        vec!["--requirepass-file", HOSTILE],
        vec!["--listen", HOSTILE],
        vec!["--idle-timeout", HOSTILE],
        vec![format!("--{HOSTILE}").as_str()],
        vec![HOSTILE],
        vec!["lab", HOSTILE],
        vec!["stress", "ping", HOSTILE],
        vec!["stress", "ping", format!("resp://{HOSTILE}:1").as_str()],
    ] {
        let (code, out, error) = run(&arguments);
        assert!(code != Some(0) && error.contains("[2J"), "{arguments:?}: {code:?} {error}");
        assert_harmless(&error);
        assert_harmless(&out);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn the_log_level_is_quoted_without_control_characters() {
    for level in [HOSTILE.to_string(), format!("slabd={HOSTILE}"), format!("a=b={HOSTILE}")] {
        let output = Command::new(program())
            .args(["--check", "--listen", "hub=127.0.0.1:1"])
            .env("RUST_LOG", &level)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("[2J"), "{error:?}");
        assert_harmless(&error);
    }
}

#[test]
fn what_a_peer_sends_is_logged_without_control_characters() {
    let mut server = Server::start_with_log_level("debug", &["--listen", "hello+udp=127.0.0.1:0"]);
    let udp = datagrams(server.address("hello"));
    udp.send(format!("{HOSTILE}\n").as_bytes()).unwrap();
    let logged = server.wait_for_log("[2J");
    assert_harmless(&logged);
    assert!(logged.contains("\\u001b[2J") && logged.contains("z\\n"), "{logged}");
}

#[test]
fn the_load_generator_quotes_a_server_without_control_characters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("resp://user:pw@{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut request = [0; 1000];
            while stream.read(&mut request).is_ok_and(|length| length > 0) {
                let answer = HOSTILE.replace('\r', "");
                if stream.write_all(format!("-ERR {answer}\r\n").as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    let (_, out, error) = run(&["stress", "ping", &target, "-c", "1", "-d", "300ms"]);
    assert!(out.contains("[2J") || error.contains("[2J"), "{out}\n{error}");
    assert_harmless(&out);
    assert_harmless(&error);
    drop(server);
}

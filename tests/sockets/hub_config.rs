//! The command CONFIG: reading settings by name or pattern, and changing them.

use crate::support::Server;
use crate::support::hub_answers::{ask, connect, hub, setting};

#[test]
fn config_get_accepts_patterns() {
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
        "socketio-connect-timeout",
        "socketio-ping-timeout",
        "user-timeout",
        "timeout",
    ];
    assert_eq!(names("*timeout"), timeouts);
    assert_eq!(names("IDLE-*"), ["idle-timeout"]);
    assert_eq!(names("?d[kl]e-timeout"), ["idle-timeout"]);
    assert_eq!(names("max-line idle-timeout idle*"), ["idle-timeout", "max-line"]);
    assert_eq!(names("nope"), [""; 0]);
    let all = names("*");
    assert!(
        all.len() > 15 && timeouts.iter().all(|name| all.iter().any(|known| known == name)),
        "{all:?}"
    );
    // Redis clients read these settings.
    assert_eq!(names("save appendonly"), ["appendonly", "save"]);
    assert_eq!(setting(&mut client, "idle-timeout"), "0");
    assert!(ask(&mut client, "CONFIG GET").text().starts_with("-ERR "));
}

#[test]
fn config_set_changes_all_settings_or_none() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(
        ask(&mut client, "CONFIG SET idle-timeout 90s MAX-LINE 1KiB messages-per-turn 7").text(),
        "OK"
    );
    assert_eq!(setting(&mut client, "idle-timeout"), "90s");
    assert_eq!(setting(&mut client, "max-line"), "1KiB");
    assert_eq!(setting(&mut client, "messages-per-turn"), "7");
    for wrong in [
        "idle-timeout 5s max-line 1GiB",
        "max-line 1GiB idle-timeout 5s",
        "idle-timeout 5s nope 1",
        "idle-timeout soon",
        "idle-timeout 5s messages-per-turn 0",
        // These settings cannot change while the server runs.
        "idle-timeout 5s backlog 7",
        "idle-timeout 5s listen hub=127.0.0.1:1",
        "idle-timeout 5s requirepass x",
    ] {
        let answer = ask(&mut client, &format!("CONFIG SET {wrong}")).text();
        assert!(
            answer.starts_with("-ERR CONFIG SET failed (possibly related to argument '"),
            "{wrong}: {answer}"
        );
        assert_eq!(setting(&mut client, "idle-timeout"), "90s", "{wrong}");
        assert_eq!(setting(&mut client, "max-line"), "1KiB", "{wrong}");
        assert_eq!(setting(&mut client, "messages-per-turn"), "7", "{wrong}");
    }
    for incomplete in [
        "CONFIG SET",
        "CONFIG SET idle-timeout",
        "CONFIG SET idle-timeout 5s max-line",
        "CONFIG nope",
    ] {
        assert!(ask(&mut client, incomplete).text().starts_with("-ERR "), "{incomplete}");
    }
}

/// Two settings bound each other. Only their final values must fit together, in any order.
#[test]
fn config_set_checks_dependent_settings_together() {
    let server = hub();
    let mut client = connect(&server);
    for together in [
        "high-watermark 33554432 output-limit 67108864",
        "output-limit 33554432 high-watermark 65536",
        "output-limit 1048576 output-soft-limit 262144",
        "output-soft-limit 8388608 output-limit 33554432",
    ] {
        assert_eq!(ask(&mut client, &format!("CONFIG SET {together}")).text(), "OK", "{together}");
    }
}

#[test]
fn config_set_reverts_dependent_settings_together() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client, "CONFIG SET output-limit 67108864").text(), "OK");
    assert_eq!(ask(&mut client, "CONFIG SET high-watermark 1048576").text(), "OK");
    assert!(
        ask(&mut client, "CONFIG SET high-watermark 65536 output-limit 33554432 nope 1")
            .text()
            .starts_with("-ERR ")
    );
    assert_eq!(setting(&mut client, "output-limit"), "64MiB");
    assert_eq!(setting(&mut client, "high-watermark"), "1MiB");
}

#[test]
fn config_set_lowers_max_connections_and_raises_it_again() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--max-connections", "100"]);
    let mut client = connect(&server);
    assert!(ask(&mut client, "CONFIG SET max-connections 50 nope 1").text().starts_with("-ERR "));
    assert_eq!(
        setting(&mut client, "max-connections"),
        "100",
        "a failed CONFIG SET changes nothing"
    );
    assert_eq!(ask(&mut client, "CONFIG SET max-connections 50").text(), "OK");
    assert_eq!(setting(&mut client, "max-connections"), "50");
    assert_eq!(ask(&mut client, "CONFIG SET max-connections 100").text(), "OK");
    assert_eq!(setting(&mut client, "max-connections"), "100");
}

/// Redis 7.0 does the same.
#[test]
fn config_set_refuses_a_setting_given_twice() {
    let server = hub();
    let mut client = connect(&server);
    let answer = ask(&mut client, "CONFIG SET idle-timeout 60s idle-timeout 70s").text();
    assert_eq!(
        answer,
        "-ERR CONFIG SET failed (possibly related to argument 'idle-timeout') - duplicate parameter"
    );
    assert_eq!(setting(&mut client, "idle-timeout"), "0");
}

#[test]
fn a_changed_idle_timeout_closes_idle_connections() {
    let mut server = hub();
    let mut idle = connect(&server);
    idle.send("PING\r\n").expect("+PONG\r\n");
    let mut asker = connect(&server);
    assert_eq!(ask(&mut asker, "CONFIG SET idle-timeout 200ms").text(), "OK");
    idle.expect_end();
    asker.expect_end();
    server.wait_for_count("closed by reason/idle-timeout", |count| count == 2);
}

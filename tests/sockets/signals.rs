//! Signals: TERM and INT drain, HUP reloads the configuration, USR1 logs the status.

use std::time::Duration;

use crate::support::{Client, Server, ask, datagrams, hub_answers};

#[test]
fn a_stopping_server_answers_received_messages_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
        let address = server.address("hello");
        let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
        clients.iter_mut().for_each(|client| {
            client.expect("Hello\r\n");
        });
        // These messages are in the kernel when the signal comes. The server must still answer
        // them.
        server.signal("STOP");
        clients.iter_mut().for_each(|client| {
            client.send("last words\n");
        });
        server.signal(signal);
        server.signal("CONT");
        for client in &mut clients {
            client.expect("Hello, last words!\r\n").expect_end();
        }
        drop(clients);
        assert_eq!(server.wait().code(), Some(0));
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}

/// The client has more pending output than the kernel's buffers hold, and reads only after the
/// signal.
#[test]
fn a_slow_reader_gets_its_pending_output_during_the_drain() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("echo"));
    let sent = client.stuff();
    let taken = server.count("loop/bytes in");
    server.signal("TERM");
    server.wait_for_log("stopping");
    let received = client.read_to_end().unwrap_or_default().len();
    assert!(
        received as u64 >= taken,
        "the client got {received} of {taken} bytes that the server had read, of {sent} sent"
    );
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

/// The client's pending output is in the kernel when the signal comes, and the client keeps
/// sending. A plain close would reset the connection and discard the output.
#[test]
fn a_peer_that_keeps_sending_gets_its_pending_output_during_the_drain() {
    let mut server = Server::start(&[
        "--listen",
        "echo=127.0.0.1:0",
        "--send-buffer",
        "1MiB",
        "--notsent-lowat",
        "0",
    ]);
    let mut client = Client::connect(server.address("echo"));
    socket2::SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
    client.send(vec![b'x'; 300_000]);
    server.wait_for_count("loop/bytes out", |count| count == 300_000);
    server.signal("TERM");
    server.wait_for_log("stopping");
    std::thread::sleep(Duration::from_millis(100));
    client.send("more");
    client.expect(vec![b'x'; 300_000]);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_peer_that_never_reads_delays_the_exit_only_by_the_drain_timeout() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0", "--drain-timeout", "500ms"]);
    let mut deaf = Client::connect(server.address("echo"));
    deaf.stuff();
    server.wait_for_count("user memory, bytes/write-buffers", |bytes| bytes > 0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0", "--drain-timeout", "1h"]);
    let mut deaf = Client::connect(server.address("echo"));
    deaf.stuff();
    server.wait_for_count("user memory, bytes/write-buffers", |bytes| bytes > 0);
    server.signal("TERM");
    server.wait_for_log("stopping");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
}

#[test]
fn a_reload_applies_new_limits_and_names_settings_that_need_a_restart() {
    let file = std::env::temp_dir().join(format!("slabd-reload-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nmax-line = 10\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    let address = server.address("hello");
    let mut client = Client::connect(address);
    client.expect("Hello\r\n").send("0123456789\n").expect("Hello, 0123456789!\r\n");

    std::fs::write(&file, "listen = [\"echo=127.0.0.1:0\"]\nbacklog = 5\nmax-line = 3\n").unwrap();
    server.signal("HUP");
    let warning = server.wait_for_log("these settings need a restart to change");
    assert!(warning.ends_with("listen, backlog"), "{warning}");
    server.wait_for_log("the new limits are in force");
    client.send("0123\n").expect("error: line longer than 3 bytes\r\n").expect_end();

    std::fs::write(&file, "max-line = \"much\"\n").unwrap();
    server.signal("HUP");
    let error = server.wait_for_log("configuration not changed");
    assert!(error.contains("line 1") && error.contains("much"), "{error}");
    assert_eq!(ask(&datagrams(address), b"alive"), b"Hello, alive!");
    std::fs::remove_file(&file).unwrap();
}

/// A reload reverts settings that CONFIG SET has changed, because the file has other values.
#[test]
fn a_reload_logs_each_config_set_change_that_it_reverts() {
    let file = std::env::temp_dir().join(format!("slabd-taken-back-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hub=127.0.0.1:0\"]\nmax-line = 10\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap(), "--idle-timeout", "90"]);
    let mut client = hub_answers::connect(&server);
    let set = "CONFIG SET idle-timeout 2m max-line 20 report-every 1h messages-per-turn 128";
    assert_eq!(hub_answers::ask(&mut client, set).text(), "OK");
    server.signal("HUP");
    server.wait_for_log("the new limits are in force");
    let changed: Vec<String> = server
        .log()
        .iter()
        .filter_map(|line| Some(line.split_once("daemon] ")?.1.into()))
        .collect();
    let changed: Vec<&str> =
        changed.iter().filter(|line| line.contains(" -> ")).map(String::as_str).collect();
    assert_eq!(
        changed,
        ["idle-timeout: 2m -> 90s", "max-line: 20B -> 10B", "report-every: 1h -> 0"]
    );
    assert_eq!(hub_answers::setting(&mut client, "idle-timeout"), "90s");

    // Now the limits are those of the file.
    server.signal("HUP");
    server.wait_for_log("no limit changed");
    // The file has the value that CONFIG SET has set, so this reload changes nothing either.
    assert_eq!(hub_answers::ask(&mut client, "CONFIG SET max-line 30").text(), "OK");
    std::fs::write(&file, "listen = [\"hub=127.0.0.1:0\"]\nmax-line = 30\nbacklog = 7\n").unwrap();
    server.signal("HUP");
    server.wait_for_log("these settings need a restart to change: backlog");
    server.wait_for_log("no limit changed");
    std::fs::remove_file(&file).unwrap();
}

/// A timeout of 0 becomes 200 ms.
#[test]
fn a_reload_applies_a_new_timeout_to_open_connections() {
    let file = std::env::temp_dir().join(format!("slabd-timeouts-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nidle-timeout = 0\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("a\n").expect("Hello, a!\r\n");
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nidle-timeout = \"200ms\"\n").unwrap();
    server.signal("HUP");
    server.wait_for_log("the new limits are in force");
    client.expect_end();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_status_and_the_periodic_report_count_connections() {
    let mut server = Server::start(&["--listen", "hello=127.0.0.1:0", "--report-every", "100ms"]);
    let address = server.address("hello");
    let mut silent = Client::connect(address);
    let mut open = Client::connect(address);
    let mut partial = Client::connect(address);
    silent.expect("Hello\r\n");
    open.expect("Hello\r\n").send("a\n").expect("Hello, a!\r\n");
    partial.expect("Hello\r\n").send("a\nb").expect("Hello, a!\r\n");
    let status = server.status();
    for (row, expected) in [
        ("connections/held", "3"),
        ("connections/silent", "1"),
        ("connections/open", "1"),
        ("connections/partial", "1"),
        ("user memory, bytes/read-buffers", "64"),
        // Three connections and the report have a timer.
        ("timers/armed", "4"),
    ] {
        assert_eq!(status[row], expected, "{row} in {status:?}");
    }
    let report = server.wait_for_log("turns/s");
    assert!(report.contains("3 connections") && report.contains("kernel bytes"), "{report}");
}

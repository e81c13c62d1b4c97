//! TERM and INT drain, HUP reads the configuration again, USR1 writes the status.

mod support;

use std::time::Duration;

use support::{Client, Server, ask, datagrams, hub_answers};

#[test]
fn stopping_answers_what_has_arrived_sends_what_is_owed_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--listen", "hello=127.0.0.1:0"]);
        let address = server.address("hello");
        let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
        clients.iter_mut().for_each(|client| {
            client.expect("Hello\r\n");
        });
        // What they send now is in the kernel when the signal comes: it must be answered all the same.
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

/// It is owed more than the kernel's buffers hold, and reads only after the signal.
#[test]
fn a_slow_reader_gets_all_it_is_owed_within_the_drain_timeout() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0"]);
    let mut client = Client::connect(server.address("echo"));
    let sent = client.stuff();
    let taken = server.count("loop/bytes in");
    server.signal("TERM");
    server.wait_for_log("stopping");
    let received = client.read_to_end().unwrap_or_default().len();
    assert!(received as u64 >= taken, "{received} bytes of {taken} that the server had taken, of {sent}");
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

/// All that it is owed is with the kernel when the signal comes, and it goes on sending: a plain close would reset the connection
/// and destroy what is on its way.
#[test]
fn a_peer_that_goes_on_sending_still_gets_what_is_on_its_way() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0", "--send-buffer", "1MiB", "--notsent-lowat", "0"]);
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
fn who_does_not_take_what_it_is_owed_holds_the_server_up_no_longer_than_the_drain_timeout() {
    let mut server = Server::start(&["--listen", "echo=127.0.0.1:0", "--drain-timeout", "500ms"]);
    let mut deaf = Client::connect(server.address("echo"));
    deaf.stuff();
    server.wait_for_count("user memory, bytes/write-buffers", |bytes| bytes > 0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_exits_at_once() {
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
fn a_reload_takes_over_what_can_change_and_names_what_cannot() {
    let file = std::env::temp_dir().join(format!("slabd-reload-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nmax-line = 10\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    let address = server.address("hello");
    let mut client = Client::connect(address);
    client.expect("Hello\r\n").send("0123456789\n").expect("Hello, 0123456789!\r\n");

    std::fs::write(&file, "listen = [\"echo=127.0.0.1:0\"]\nbacklog = 5\nmax-line = 3\n").unwrap();
    server.signal("HUP");
    let warning = server.wait_for_log("changed only by a restart");
    assert!(warning.ends_with("listen, backlog"), "{warning}");
    server.wait_for_log("what can change is in force");
    client.send("0123\n").expect("error: line longer than 3 bytes\r\n").expect_end();

    std::fs::write(&file, "max-line = \"much\"\n").unwrap();
    server.signal("HUP");
    let error = server.wait_for_log("configuration not changed");
    assert!(error.contains("line 1") && error.contains("much"), "{error}");
    assert_eq!(ask(&datagrams(address), b"alive"), b"Hello, alive!");
    std::fs::remove_file(&file).unwrap();
}

/// What holds may come from CONFIG SET, which the file knows nothing of.
#[test]
fn a_reload_tells_what_it_takes_back_of_config_set() {
    let file = std::env::temp_dir().join(format!("slabd-taken-back-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hub=127.0.0.1:0\"]\nmax-line = 10\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap(), "--idle-timeout", "90"]);
    let mut client = hub_answers::connect(&server);
    let set = "CONFIG SET idle-timeout 2m max-line 20 report-every 1h messages-per-turn 128";
    assert_eq!(hub_answers::ask(&mut client, set).text(), "OK");
    server.signal("HUP");
    server.wait_for_log("what can change is in force");
    let changed: Vec<String> =
        server.log().iter().filter_map(|line| Some(line.split_once("daemon] ")?.1.into())).collect();
    let changed: Vec<&str> = changed.iter().filter(|line| line.contains(" -> ")).map(String::as_str).collect();
    assert_eq!(changed, ["idle-timeout: 2m -> 90s", "max-line: 20B -> 10B", "report-every: 1h -> 0"]);
    assert_eq!(hub_answers::setting(&mut client, "idle-timeout"), "90s");

    // Now nothing differs.
    server.signal("HUP");
    server.wait_for_log("nothing else changed");
    // A file that says what CONFIG SET has already done changes nothing either.
    assert_eq!(hub_answers::ask(&mut client, "CONFIG SET max-line 30").text(), "OK");
    std::fs::write(&file, "listen = [\"hub=127.0.0.1:0\"]\nmax-line = 30\nbacklog = 7\n").unwrap();
    server.signal("HUP");
    server.wait_for_log("changed only by a restart: backlog");
    server.wait_for_log("nothing else changed");
    std::fs::remove_file(&file).unwrap();
}

/// A timeout that is shortened, or set where there was none, is felt by connections that are already there.
#[test]
fn a_reload_reaches_connections_that_are_already_open() {
    let file = std::env::temp_dir().join(format!("slabd-timeouts-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nidle-timeout = 0\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    let mut client = Client::connect(server.address("hello"));
    client.expect("Hello\r\n").send("a\n").expect("Hello, a!\r\n");
    std::fs::write(&file, "listen = [\"hello=127.0.0.1:0\"]\nidle-timeout = \"200ms\"\n").unwrap();
    server.signal("HUP");
    server.wait_for_log("what can change is in force");
    client.expect_end();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_status_counts_connections_by_state_and_the_report_comes_by_itself() {
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
        // Three connections and the report.
        ("timers/armed", "4"),
    ] {
        assert_eq!(status[row], expected, "{row} in {status:?}");
    }
    let report = server.wait_for_log("turns/s");
    assert!(report.contains("3 connections") && report.contains("kernel bytes"), "{report}");
}

//! A log that cannot be written does not stop the server: it drops lines and counts them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::{Client, program};

/// Starts a server that logs a line for each accepted and each closed connection.
fn start(arguments: &[&str], log: Stdio) -> Child {
    let mut command = Command::new(program());
    command.arg("serve").args(arguments).env("RUST_LOG", "debug").stdin(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// Makes the server log many more lines than a pipe holds (64 KiB).
fn come_and_go(address: SocketAddr) {
    for _ in 0..3000 {
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    }
}

/// Returns the number of dropped log lines.
fn dropped(address: SocketAddr) -> u64 {
    let mut client = Client::connect(address);
    client.send("INFO loop\r\nPING\r\n");
    let mut count = None;
    loop {
        let line = client.read_line();
        if let Some(number) = line.strip_prefix("log_lines_dropped:") {
            count = Some(number.parse().unwrap());
        }
        if line == "+PONG" {
            return count.expect("INFO loop has the number");
        }
    }
}

#[test]
fn an_unread_log_drops_lines_and_later_reports_their_number() {
    let mut child = start(&["--listen", "hub=127.0.0.1:0"], Stdio::piped());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.find(|line| line.contains("listening on")).expect("the log has the address");
    let address = line.split("hub ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    come_and_go(address);
    let missing = dropped(address);
    assert!(missing > 1000, "{missing} lines dropped");
    // The reader first gets the lines in the pipe. The next new line gives the number of dropped
    // lines.
    let reader = std::thread::spawn(move || log.find(|line| line.contains("were dropped:")));
    while !reader.is_finished() {
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    }
    let told = reader.join().unwrap().expect("the log reports dropped lines");
    let number: u64 = told.split(": ").nth(1).unwrap().trim_end_matches(']').parse().unwrap();
    assert!(number >= missing, "the log has {told}, but INFO had {missing}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_server_keeps_serving_when_the_log_cannot_be_written() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return println!(
            "SKIPPED the_server_keeps_serving_when_the_log_cannot_be_written: there is no /dev/full"
        );
    };
    // The log cannot give the address, so the test chooses it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut child = start(&["--listen", &format!("hub={address}")], full.into());
    while std::net::TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the server exits");
    }
    come_and_go(address);
    assert!(dropped(address) > 3000);
    child.kill().unwrap();
    child.wait().unwrap();
}

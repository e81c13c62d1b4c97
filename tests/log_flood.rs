//! A log that nobody reads, or that cannot be written, stops nobody: lines are dropped and counted.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use support::{Client, program};

/// The server, with a line of log for each connection that comes and each that goes.
fn start(arguments: &[&str], log: Stdio) -> Child {
    let mut command = Command::new(program());
    command.arg("serve").args(arguments).env("RUST_LOG", "debug").stdin(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// Many more lines than a pipe holds, which is 64 KiB.
fn come_and_go(address: SocketAddr) {
    for _ in 0..3000 {
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    }
}

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
            return count.expect("the loop's section counts them");
        }
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody_and_says_later_what_is_missing() {
    let mut child = start(&["--listen", "hub=127.0.0.1:0"], Stdio::piped());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.find(|line| line.contains("listening on")).expect("it says where");
    let address = line.split("hub ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    come_and_go(address);
    let missing = dropped(address);
    assert!(missing > 1000, "{missing} lines dropped");
    // Read on: first what the pipe held, then what is written from now on, which begins with the number of those missing.
    let reader = std::thread::spawn(move || log.find(|line| line.contains("were dropped:")));
    while !reader.is_finished() {
        Client::connect(address).send("PING\r\n").expect("+PONG\r\n");
    }
    let told = reader.join().unwrap().expect("it says so");
    let number: u64 = told.split(": ").nth(1).unwrap().trim_end_matches(']').parse().unwrap();
    assert!(number >= missing, "{told}, and {missing} before");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_full_disk_stops_nobody() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return println!("SKIPPED a_full_disk_stops_nobody: there is no /dev/full");
    };
    // Where it listens cannot be said, so it is told.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut child = start(&["--listen", &format!("hub={address}")], full.into());
    while std::net::TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    come_and_go(address);
    assert!(dropped(address) > 3000);
    child.kill().unwrap();
    child.wait().unwrap();
}

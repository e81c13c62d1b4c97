//! The hub and redis-server get the same commands, and must give the same replies.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::hub;
use crate::replay::{multibulk, read_reply};
use crate::support::hub_answers::connect;
use crate::support::programs::{available, ours};

/// A redis-server that ends with the test.
struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    fn start() -> Redis {
        let socket = std::env::temp_dir().join(format!("redis-{}.sock", std::process::id()));
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--dbfilename", "none.rdb", "--unixsocket"]);
        command.arg(&socket);
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server starts");
        Redis { child, socket }
    }

    fn connect(&self) -> UnixStream {
        for _ in 0..1000 {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                return stream;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not listen");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Sends commands one by one, and returns the replies. The last one may close the connection.
fn replies(mut stream: impl Read + Write, commands: &[&str]) -> Vec<String> {
    let mut replies = Vec::new();
    for command in commands {
        let (command, has_reply) = match command.strip_suffix(" (no reply)") {
            Some(command) => (command, false),
            None => (*command, true),
        };
        stream.write_all(&multibulk(command)).expect("the server reads");
        if has_reply {
            replies.push(format!("{command}: {}", read_reply(&mut stream).escape_ascii()));
        }
    }
    replies
}

#[test]
fn the_hub_gives_the_replies_of_redis() {
    if !available("redis-server", "redis-server") {
        return;
    }
    let (server, redis) = (hub(), Redis::start());
    let lines = std::fs::read_to_string(ours("against_redis.txt")).expect("the file is readable");
    // A script goes on in an indented line.
    let lines = lines.replace(" |\n    ", " | ");
    let mut compared = 0;
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let commands: Vec<&str> = line.split(" | ").collect();
        let theirs = redis.connect();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        let expected = replies(theirs, &commands);
        assert_eq!(replies(connect(&server).0, &commands), expected, "{line}");
        compared += expected.len();
    }
    println!("{compared} replies are those of redis-server");
    assert!(compared > 200);
}

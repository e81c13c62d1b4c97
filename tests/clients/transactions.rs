//! Transactions with the client libraries of many languages. Each program publishes 1 and 2 in a
//! transaction, 3 in a pipeline, 4 in a transaction after WATCH, 5 in a transaction that the hub
//! refuses, and 6 alone. It prints the replies. It also selects a database and sets a name, as its
//! library does when it connects.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::hub;
use crate::support::hub_answers::{Answer, subscribe};
use crate::support::programs::{available, bounded, installed, ours, succeeded};

/// Runs a program with a hub. Its replies say that one subscriber got each message, and the
/// subscriber got each message once, in order.
fn publishes_once(name: &str, command: Command, arguments: &[&str]) {
    let server = hub();
    let mut subscriber = subscribe(&server, "c");
    let mut command = command;
    command.arg(server.address("hub").port().to_string()).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("timeout (coreutils) runs");
    let name = format!("{name} {arguments:?}");
    assert_eq!(succeeded(&name, &output).trim(), "1 1 1 1 1", "{name}");
    for message in ["1", "2", "3", "4", "6"] {
        let parts = Answer::read(&mut subscriber).array();
        assert_eq!(parts[2], Answer::Text(message.into()), "{name}");
    }
    subscriber.send("PING\r\n");
    assert_eq!(Answer::read(&mut subscriber).array()[0], Answer::Text("pong".into()), "{name}");
}

fn program(runtime: impl AsRef<Path>, file: &str) -> Command {
    let mut command = bounded(runtime);
    command.arg(ours(file));
    command
}

#[test]
fn python_libraries_publish_what_they_are_told_once() {
    let Some(python) = installed("venv/bin/python") else { return };
    for library in ["redis", "valkey", "coredis", "glide"] {
        for protocol in ["2", "3"] {
            publishes_once("python", program(&python, "transactions.py"), &[library, protocol]);
        }
    }
}

#[test]
fn node_libraries_publish_what_they_are_told_once() {
    let Some(modules) = installed("node_modules") else { return };
    for library in ["ioredis", "redis", "iovalkey"] {
        for protocol in ["2", "3"] {
            let mut command = program("node", "transactions.js");
            command.env("NODE_PATH", &modules);
            publishes_once("node", command, &[library, protocol]);
        }
    }
}

/// Returns true if a program succeeds: a library is installed. Otherwise prints SKIPPED.
fn has(package: &str, program: &str, arguments: &[&str]) -> bool {
    let found = available(program, package)
        && Command::new(program).args(arguments).output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("SKIPPED a test with {package}: not installed (apt-get install {package})");
    }
    found
}

#[test]
fn php_libraries_publish_what_they_are_told_once() {
    let php = |library: &str| {
        let mut command = bounded("php");
        command.args(["-d", "zend.assertions=1", "-d", "include_path=/usr/share/php"]);
        command.arg(ours("transactions.php"));
        publishes_once("php", command, &[library]);
    };
    if has("php-redis", "php", &["-r", "exit(class_exists('Redis') ? 0 : 1);"]) {
        php("phpredis");
    }
    if has("php-predis", "php", &["-r", "exit(is_dir('/usr/share/php/Predis') ? 0 : 1);"]) {
        php("predis");
    }
}

#[test]
fn perl_libraries_publish_what_they_are_told_once() {
    for (package, library) in [("libredis-perl", "Redis"), ("libredis-fast-perl", "Redis::Fast")] {
        if has(package, "perl", &[&format!("-M{library}"), "-e1"]) {
            publishes_once("perl", program("perl", "transactions.pl"), &[library]);
        }
    }
}

#[test]
fn redis_rb_publishes_what_it_is_told_once() {
    if has("ruby-redis", "ruby", &["-rredis", "-e1"]) {
        publishes_once("ruby", program("ruby", "transactions.rb"), &[]);
    }
}

#[test]
fn hiredis_publishes_what_it_is_told_once() {
    if !Path::new("/usr/include/hiredis/hiredis.h").exists() {
        return eprintln!("SKIPPED a test with hiredis: apt-get install libhiredis-dev");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transactions");
    let mut compiler = Command::new("cc");
    compiler.arg(ours("transactions.c")).arg("-o").arg(&target).arg("-lhiredis");
    succeeded("cc", &compiler.output().expect("cc runs"));
    publishes_once("hiredis", bounded(&target), &[]);
}

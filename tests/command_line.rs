//! A wrong flag or key is one clear line and exit code 2; an address that cannot be had, one and exit code 1.

mod support;

use support::{Server, run};

#[track_caller]
fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let (got, output, error) = run(arguments);
    assert_eq!(got, Some(code), "{arguments:?}: {error}");
    assert_eq!(output, "");
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("slabd: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {error}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} in {error}");
    }
}

#[test]
fn a_wrong_flag_names_it_and_what_is_accepted() {
    fails(&["serve", "--idle-timeout", "soon"], 2, &["--idle-timeout", "soon", "30s"]);
    fails(&["--lissten", "x"], 2, &["--lissten", "--listen"]);
    fails(&["serve", "--listen", "chat=127.0.0.1:1"], 2, &["chat", "hello, echo, discard, hub"]);
    fails(&["serve", "--messages-per-turn", "0"], 2, &["messages-per-turn", "1 to"]);
    fails(&["serve", "--check", "--buffers", "fixed:3"], 2, &["--buffers", "64B to 1MiB"]);
}

#[test]
fn a_wrong_key_names_the_file_the_line_and_what_is_accepted() {
    let file = std::env::temp_dir().join(format!("slabd-wrong-{}.toml", std::process::id()));
    let path = file.to_str().unwrap();
    for (text, parts) in [
        ("backlog = 1\nidle-timeuot = \"1s\"\n", &["line 2", "idle-timeuot", "idle-timeout"][..]),
        ("\n\nbuffers = \"fixed\"\n", &["line 3", "fixed", "fixed:4096"]),
        ("listen = [\"hello\"]\n", &["line 1", "SERVICE=ADDR:PORT"]),
        ("backlog = = 1\n", &["line 1"]),
        ("backlog = -1\n", &["line 1", "-1"]),
    ] {
        std::fs::write(&file, text).unwrap();
        fails(&["--config", path], 2, parts);
    }
    std::fs::remove_file(&file).unwrap();
    fails(&["--config", path], 2, &["cannot read", path]);
}

#[test]
fn an_address_in_use_is_named() {
    for transport in ["tcp", "udp"] {
        let holder = Server::start(&["--listen", &format!("hello+{transport}=127.0.0.1:0")]);
        let listen = format!("echo+{transport}=127.0.0.1:{}", holder.address("hello").port());
        let address = listen.split_once('=').unwrap().1;
        fails(&["serve", "--listen", &listen], 1, &[address, transport, "in use"]);
    }
}

/// Port 1 is privileged; where this runs as root, it is run as nobody.
#[test]
fn a_forbidden_address_is_named() {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    let output = command.arg(support::program()).args(["--listen", "hello=127.0.0.1:1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("setpriv:") {
        eprintln!("SKIPPED a_forbidden_address_is_named: {error}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("127.0.0.1:1") && error.contains("permission denied"), "{error}");
}

#[test]
fn check_prints_a_file_that_serves_and_means_the_same() {
    let (code, first, _) = run(&["serve", "--check", "--listen", "echo=[::1]:0", "--idle-timeout", "90s"]);
    assert_eq!(code, Some(0));
    assert!(first.contains("idle-timeout = \"90s\""), "{first}");
    let file = std::env::temp_dir().join(format!("slabd-check-{}.toml", std::process::id()));
    std::fs::write(&file, &first).unwrap();
    let path = file.to_str().unwrap();
    let (code, second, _) = run(&["--config", path, "--check"]);
    assert_eq!((code, second), (Some(0), first));
    Server::start(&["--config", path]);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn an_argument_that_is_no_text_is_an_error_like_others() {
    use std::os::unix::ffi::OsStrExt;
    for arguments in [&[&b"--\xff"[..]][..], &[b"--idle-timeout", b"\xff"], &[b"--config", b"/no/such/\xff"]] {
        let mut command = std::process::Command::new(support::program());
        command.args(arguments.iter().map(|bytes| std::ffi::OsStr::from_bytes(bytes)));
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(support::program()).arg("--check").stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let (code, output, error) = run(arguments);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        assert!(output.contains("slabd") || output.contains("--listen"));
    }
}

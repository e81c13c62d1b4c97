//! The errors of the command line. An unusable configuration gives one line and exit code 2. An
//! address in use or without permission gives one line and exit code 1.

use crate::support::{self, Server, run};

/// Runs the program. Checks its exit code, and that its error is one line with these parts.
#[track_caller]
fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let (got, output, error) = run(arguments);
    assert_eq!(got, Some(code), "{arguments:?}: {error}");
    assert_eq!(output, "");
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("slabd: ")).collect();
    assert_eq!(lines.len(), 1, "the error has one line: {error}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {error}");
    }
}

/// Wrong command lines and their messages.
const WRONG: &[(&str, &str)] = &[
    // Commands and flags.
    (
        "srve",
        "unrecognized subcommand 'srve'; tip: some similar subcommands exist: 'stress', 'serve'; \
         accepted: serve, demo, stress, lab, man, completions or flags; \
         a config file goes after --config",
    ),
    (
        "--check slabd.toml",
        "the subcommand 'slabd.toml' cannot be used with '--check'; \
         accepted: a command before all flags, or a config file after --config",
    ),
    (
        "--lissten x",
        "unexpected argument '--lissten' found; tip: a similar argument exists: '--listen'",
    ),
    ("serve --qqq", "unexpected argument '--qqq' found; accepted: --config, --check, --listen, "),
    (
        "--idle-timeout 5 --idle-timeout 6",
        "the argument '--idle-timeout <TIME>' cannot be used multiple times",
    ),
    (
        "--requirepass x --requirepass-file y",
        "the argument '--requirepass <PASSWORD>' cannot be used with '--requirepass-file <FILE>'",
    ),
    // Values.
    (
        "--max-silent",
        "a value is required for '--max-silent <COUNT>' but none was supplied; \
         expected a whole number, such as 100",
    ),
    (
        "--max-silent x",
        "invalid value 'x' for '--max-silent <COUNT>': expected a whole number, such as 100",
    ),
    (
        "--max-silent -5",
        "invalid value '-5' for '--max-silent <COUNT>': expected a whole number, such as 100",
    ),
    (
        "--max-silent 99999999999999999999",
        "invalid value '99999999999999999999' for '--max-silent <COUNT>': the number is too large",
    ),
    (
        "--idle-timeout soon",
        "invalid value 'soon' for '--idle-timeout <TIME>': expected a whole number of seconds, \
         or one with a unit of us, ms, s, m, h or d, such as 30s",
    ),
    (
        "--idle-timeout 40d",
        "invalid value '40d' for '--idle-timeout <TIME>': expected a time of at most 30d",
    ),
    (
        "--keepalive 1500ms",
        "invalid value '1500ms' for '--keepalive <TIME>': expected whole seconds, such as 30s",
    ),
    (
        "--memory-budget 1MB",
        "invalid value '1MB' for '--memory-budget <SIZE>': expected a whole number of bytes, \
         or one with a unit of B, KiB, MiB or GiB, such as 64MiB",
    ),
    (
        "--buffers some",
        "invalid value 'some' for '--buffers <pooled|fixed:BYTES>': \
         expected pooled, or fixed:BYTES such as fixed:4096",
    ),
    (
        "serve --check --buffers fixed:3",
        "invalid value 'fixed:3' for '--buffers <pooled|fixed:BYTES>': \
         expected a fixed buffer of 64B to 1MiB",
    ),
    (
        "--admission drop",
        "invalid value 'drop' for '--admission <recycle|refuse|random-drop>': \
         expected recycle, refuse or random-drop",
    ),
    (
        "--admission-dry-run maybe",
        "invalid value 'maybe' for '--admission-dry-run [<true|false>]': expected true or false",
    ),
    // Addresses.
    (
        "--listen 9999",
        "invalid value '9999' for '--listen <SERVICE=ADDR:PORT>': \
         expected SERVICE=ADDR:PORT, such as hello=127.0.0.1:9999 or echo+udp=[::1]:7",
    ),
    (
        "--listen hub=localhost:1",
        "invalid value 'hub=localhost:1' for '--listen <SERVICE=ADDR:PORT>': \
         'localhost:1' is not an IP address and port; \
         expected ADDR:PORT, such as 127.0.0.1:9999 or [::1]:9999",
    ),
    (
        "--listen hub=127.0.0.1:65536",
        "invalid value 'hub=127.0.0.1:65536' for '--listen <SERVICE=ADDR:PORT>': \
         '65536' is not a port; accepted: 0 to 65535",
    ),
    (
        "--listen chat=127.0.0.1:1",
        "invalid value 'chat=127.0.0.1:1' for '--listen <SERVICE=ADDR:PORT>': \
         there is no service 'chat'; accepted: hello, echo, discard, ",
    ),
    (
        "--listen hub+sctp=127.0.0.1:1",
        "invalid value 'hub+sctp=127.0.0.1:1' for '--listen <SERVICE=ADDR:PORT>': \
         there is no transport 'sctp'; accepted: +tcp and +udp",
    ),
    (
        "--listen hub=127.0.0.1:7 --listen echo+tcp=127.0.0.1:7",
        "listen names 127.0.0.1:7 twice (hub=127.0.0.1:7 and echo+tcp=127.0.0.1:7); \
         give each its own port",
    ),
    (
        "--listen hub=0.0.0.0:7 --admin 127.0.0.1:7",
        "listen and admin both name 127.0.0.1:7 (hub=0.0.0.0:7); give each its own port",
    ),
    (
        "--listen echo=[::]:7 --admin [::1]:7",
        "listen and admin both name [::1]:7 (echo=[::]:7); give each its own port",
    ),
    (
        "--listen hub=127.0.0.1:7 --listen echo=0.0.0.0:7",
        "listen names 0.0.0.0:7 twice (hub=127.0.0.1:7 and echo=0.0.0.0:7); give each its own port",
    ),
    (
        "--listen hub=127.0.0.1:7 --admin 127.0.0.1:7",
        "listen and admin both name 127.0.0.1:7 (hub=127.0.0.1:7); give each its own port",
    ),
    (
        "--admin nine",
        "invalid value 'nine' for '--admin <ADDR:PORT>': 'nine' is not an IP address and port; \
         expected ADDR:PORT, such as 127.0.0.1:9999 or [::1]:9999",
    ),
    (
        "--admin 192.0.2.1:5",
        "admin is 192.0.2.1:5; accepted: a loopback address, such as 127.0.0.1:9998",
    ),
    // Ranges.
    ("serve --messages-per-turn 0", "messages-per-turn is 0; accepted: 1 to 1048576"),
    ("--max-silent 70000", "max-silent is 70000; accepted: 1 to 65535"),
    ("--drain-timeout 0", "drain-timeout is 0; accepted: 1ms or more"),
    ("--keepalive 10h", "keepalive is 10h; accepted: 0, or 1s to 32767s"),
    ("--send-buffer 5", "send-buffer is 5B; accepted: 0, or 8KiB to 1GiB"),
    // Settings that depend on others.
    (
        "--low-watermark 64KiB",
        "low-watermark is 64KiB; accepted: 0 to 65535B (below high-watermark)",
    ),
    (
        "--high-watermark 1MiB --output-limit 1MiB",
        "output-limit is 1MiB; accepted: 2MiB to 1GiB (at least twice high-watermark)",
    ),
    (
        "--output-soft-limit 33MiB",
        "output-soft-limit is 33MiB; accepted: 1B to 32MiB (up to output-limit)",
    ),
    (
        "--admin 127.0.0.1:0 --max-connections 3",
        "max-connections is 3; accepted: 16 to 4194304; admin reserves 8 slots for the operator",
    ),
    // Files.
    (
        "--config /no/such.toml",
        "cannot read config file /no/such.toml: No such file or directory (os error 2)",
    ),
    ("--config /", "cannot read config file /: it is a directory; expected a regular file"),
    (
        "--requirepass-file /no/such",
        "cannot use requirepass-file /no/such: No such file or directory (os error 2)",
    ),
    (
        "--requirepass-file /dev/null",
        "cannot use requirepass-file /dev/null: it is a character device; expected a regular file",
    ),
];

#[test]
fn each_wrong_command_line_gives_its_message() {
    for (line, message) in WRONG {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (code, output, error) = run(&arguments);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{line}: {error}");
        // The table has only the beginning of a list of all flags or all services.
        let expected = format!("slabd: {message}");
        let begins = message.ends_with(", ") && error.starts_with(&expected);
        assert!(begins || error == expected + "\n", "{line}\n got {error} not {message}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
    }
}

#[test]
fn a_password_longer_than_its_limit_is_an_error_that_does_not_show_it() {
    let password = "x".repeat(513);
    let (code, _, error) = run(&["--requirepass", &password]);
    let expected = "slabd: the password is 513 bytes long; accepted: up to 512 bytes\n";
    assert_eq!((code, error.as_str()), (Some(2), expected));
}

#[test]
fn an_error_in_a_file_names_the_file_the_line_and_the_accepted_values() {
    let file = std::env::temp_dir().join(format!("slabd-wrong-{}.toml", std::process::id()));
    let path = file.to_str().unwrap();
    for (text, parts) in [
        ("backlog = 1\nidle-timeuot = \"1s\"\n", &["line 2", "idle-timeuot", "idle-timeout"][..]),
        ("\n\nbuffers = \"fixed\"\n", &["line 3", "fixed", "fixed:4096"]),
        ("listen = [\"hello\"]\n", &["line 1", "SERVICE=ADDR:PORT"]),
        ("backlog = = 1\n", &["line 1"]),
        ("backlog = -1\n", &["line 1", "backlog", "-1", "a whole number"]),
        ("listen = []\n", &["line 1", "listen", "an empty list", "hub=127.0.0.1:9999"]),
        ("listen = \"hub=127.0.0.1:1\"\n", &["line 1", "listen", "a list of strings"]),
        ("idle-timeout = true\n", &["line 1", "idle-timeout", "\"30s\"", "found boolean"]),
        ("admission-dry-run = 1\n", &["line 1", "admission-dry-run", "true or false"]),
        ("requirepass = 5\n", &["line 1", "requirepass", "a string in quotes"]),
        ("backlog = 1\nbacklog = 2\n", &["line 2", "not valid TOML", "duplicate key"]),
        ("[server]\nbacklog = 1\n", &["line 1", "no setting 'server'", "backlog"]),
        ("max-silent = 0\n", &["max-silent is 0", "1 to 65535", path]),
    ] {
        std::fs::write(&file, text).unwrap();
        fails(&["--config", path], 2, parts);
    }
    std::fs::remove_file(&file).unwrap();
    fails(&["--config", path], 2, &["cannot read", path]);
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    for transport in ["tcp", "udp"] {
        let holder = Server::start(&["--listen", &format!("hello+{transport}=127.0.0.1:0")]);
        let listen = format!("echo+{transport}=127.0.0.1:{}", holder.address("hello").port());
        let address = listen.split_once('=').unwrap().1;
        fails(&["serve", "--listen", &listen], 1, &[address, transport, "in use", "port"]);
    }
    let holder = Server::start(&["--listen", "hello+tcp=127.0.0.1:0"]);
    let address = holder.address("hello").to_string();
    fails(
        &["--listen", "echo=127.0.0.1:0", "--admin", &address],
        1,
        &[&address, "admin", "in use"],
    );
}

/// Port 1 is privileged. The server runs as user nobody, even when the test runs as root.
#[test]
fn an_address_that_needs_privileges_is_an_error_that_names_it() {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    let output =
        command.arg(support::program()).args(["--listen", "hello=127.0.0.1:1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("setpriv:") {
        eprintln!("SKIPPED an_address_that_needs_privileges: {error}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("127.0.0.1:1") && error.contains("permission denied"), "{error}");
}

#[test]
fn the_output_of_check_is_a_config_file_with_the_same_meaning() {
    let (code, first, _) =
        run(&["serve", "--check", "--listen", "echo=[::1]:0", "--idle-timeout", "90s"]);
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
fn an_argument_that_is_not_utf_8_is_an_error_of_one_line() {
    use std::os::unix::ffi::OsStrExt;
    for arguments in
        [&[&b"--\xff"[..]][..], &[b"--idle-timeout", b"\xff"], &[b"--config", b"/no/such/\xff"]]
    {
        let mut command = std::process::Command::new(support::program());
        command.args(arguments.iter().map(|bytes| std::ffi::OsStr::from_bytes(bytes)));
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_full_standard_output_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(support::program())
        .arg("--check")
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn help_and_version_exit_with_0() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let (code, output, error) = run(arguments);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        assert!(output.contains("slabd") || output.contains("--listen"));
    }
}

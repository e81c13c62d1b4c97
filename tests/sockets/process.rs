//! The process: the files that it reads, the sources of the password, and standard error.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Client, Ended, Server, program, run};

/// A folder that is removed at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("slabd-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a file that only its owner may read, and returns its path.
    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Puts a special file in the place of a regular one.
fn replace(path: &str, with: &str) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    match with {
        "FIFO" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "directory" => fs::create_dir(path).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        "character device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "bytes; accepted: up to" => File::create(path).unwrap().set_len(8 << 30).unwrap(),
        "not text in UTF-8" => fs::write(path, b"backlog = 7\n\xff\xfe").unwrap(),
        "a NUL byte" => fs::write(path, b"backlog = 7\n\0").unwrap(),
        other => panic!("{other}"),
    }
}

/// A FIFO has no writer here, so opening it in the usual way would stop the loop.
#[test]
fn a_reload_of_a_special_file_is_an_error_and_the_loop_goes_on() {
    let folder = Folder::new("reload");
    let config = folder.file("config.toml", "idle-timeout = \"1m\"\n");
    let password = folder.file("password", "secret\n");
    let flags = ["--listen", "hub=127.0.0.1:0", "--config", &config];
    let mut server = Server::start(&[&flags[..], &["--requirepass-file", &password]].concat());
    let mut client = Client::connect(server.address("hub"));
    client.send("AUTH secret\r\n").expect("+OK\r\n");
    let kinds =
        ["FIFO", "directory", "socket", "character device", "bytes; accepted: up to", "a NUL byte"];
    for (path, kinds, restored) in [
        (&config, &[&kinds[..], &["not text in UTF-8"]].concat()[..], "idle-timeout = \"1m\"\n"),
        (&password, &kinds[..5], "secret\n"),
    ] {
        for kind in kinds {
            replace(path, kind);
            server.signal("HUP");
            let line = server.wait_for_log("configuration not changed");
            assert!(line.contains(kind) && line.contains(path.as_str()), "{kind}: {line}");
            client.send("PING\r\n").expect("+PONG\r\n");
        }
        let _ = fs::remove_file(path);
        fs::write(path, restored).unwrap();
        server.signal("HUP");
        server.wait_for_log("configuration read again");
    }
}

#[test]
fn a_special_file_is_an_error_at_the_start() {
    let folder = Folder::new("special");
    let fifo = folder.fifo("fifo");
    for flag in ["--config", "--requirepass-file"] {
        for (path, kind) in
            [(&fifo[..], "FIFO"), ("/dev/zero", "character device"), ("/", "directory")]
        {
            let (code, _, error) = run(&["--check", flag, path]);
            let expected = format!("{path}: it is a {kind}; expected a regular file\n");
            assert!(code == Some(2) && error.ends_with(&expected), "{flag} {path}: {error}");
        }
    }
    // The first line is read, and a mark that editors write is no part of it.
    for text in [&b"secret"[..], b"secret\r\nmore\n", b"\xef\xbb\xbfsecret\n"] {
        let file = folder.file("password", text);
        expect_password(&["--requirepass-file", &file], &[], "secret", "more");
    }
    let marked = folder.file("marked.toml", b"\xef\xbb\xbfrequirepass = \"secret\"\n");
    expect_password(&["--config", &marked], &[], "secret", "more");
    let wide = folder.file("wide.toml", b"\xff\xfeb\0a\0c\0k\0");
    let (code, _, error) = run(&["--check", "--config", &wide]);
    assert!(code == Some(2) && error.contains("line 1 has a NUL byte"), "{error}");
}

/// Checks that a server with these flags and variables has the password `right`, and not `wrong`.
#[track_caller]
fn expect_password(flags: &[&str], variables: &[(&str, &str)], right: &str, wrong: &str) {
    let mut command = Command::new(program());
    command.args(["serve", "--listen", "hub=127.0.0.1:0"]).args(flags);
    command.env("RUST_LOG", "info").envs(variables.iter().copied());
    let server = Server::start_by(command);
    let answer = |word: &str| {
        let mut client = Client::connect(server.address("hub"));
        client.send(format!("AUTH {word}\r\n")).read_line()
    };
    assert_eq!(answer(right), "+OK", "{right} before {wrong}");
    assert!(wrong == right || answer(wrong).starts_with("-WRONGPASS"), "{right} before {wrong}");
}

/// Every pair of sources: the earlier one in this order gives the password.
#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_config_file() {
    let folder = Folder::new("sources");
    let flag_file = folder.file("flag-file", "flag-file\n");
    let key_file = folder.file("key-file", "key-file\n");
    let by_key = folder.file("key.toml", "requirepass = \"key\"\n");
    let by_key_file = folder.file("key-file.toml", format!("requirepass-file = {key_file:?}\n"));
    folder.file("requirepass", "credential\n");
    let credentials = folder.0.to_str().unwrap();
    type Given<'a> = (&'a str, Vec<&'a str>, Vec<(&'a str, &'a str)>);
    let sources: [Given<'_>; 6] = [
        ("flag", vec!["--requirepass", "flag"], vec![]),
        ("flag-file", vec!["--requirepass-file", &flag_file], vec![]),
        ("variable", vec![], vec![("SLABD_REQUIREPASS", "variable")]),
        ("credential", vec![], vec![("CREDENTIALS_DIRECTORY", credentials)]),
        ("key", vec!["--config", &by_key], vec![]),
        ("key-file", vec!["--config", &by_key_file], vec![]),
    ];
    let mut pairs = 0;
    for (at, (winner, flags, variables)) in sources.iter().enumerate() {
        for (other, more_flags, more_variables) in &sources[at..] {
            let flags = [&flags[..], if other == winner { &[] } else { more_flags }].concat();
            let variables = [&variables[..], more_variables].concat();
            // Two flags, or two keys of a file, contradict each other.
            let excluded = [("flag", "flag-file"), ("key", "key-file")];
            if !excluded.contains(&(*winner, *other)) {
                expect_password(&flags, &variables, winner, other);
            }
            pairs += 1;
        }
    }
    assert_eq!(pairs, 21);
    let both =
        folder.file("both.toml", format!("requirepass = \"a\"\nrequirepass-file = {key_file:?}"));
    for (flags, why) in [
        (&["--requirepass", "a", "--requirepass-file", &flag_file][..], "cannot be used with"),
        (&["--config", &both], "both set; give one of them"),
        (&["--requirepass", "a", "--requirepass", "b"], "cannot be used multiple times"),
    ] {
        let (code, _, error) = run(&[&["--check"], flags].concat());
        assert!(code == Some(2) && error.contains(why), "{error}");
    }
    // An empty variable is no source; an empty flag means no password.
    let empty = [("SLABD_REQUIREPASS", "")];
    expect_password(&["--config", &by_key], &empty, "key", "variable");
}

#[test]
fn a_password_file_that_others_may_read_is_warned_of() {
    let folder = Folder::new("modes");
    let password = folder.file("password", "secret\n");
    let config = folder.file("with.toml", "requirepass = \"secret\"\n");
    let harmless = folder.file("without.toml", "backlog = 7\n");
    for (flag, path, is_secret) in [
        ("--requirepass-file", &password, true),
        ("--config", &config, true),
        ("--config", &harmless, false),
    ] {
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o666, true)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let (code, _, error) = run(&["--check", flag, path]);
            let expected = format!(
                "slabd: other users may read or change {path}, which has a password; \
                 chmod o-rw {path}\n"
            );
            let warned = is_open && is_secret;
            assert_eq!((code, error.as_str()), (Some(0), if warned { &expected[..] } else { "" }));
        }
    }
}

/// Whatever a command does, standard error and standard output that cannot be written do not change
/// its exit code, except that output that is lost is a failure.
#[test]
fn an_output_that_cannot_be_written_gives_the_right_exit_code() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    // The reader of this pipe is gone.
    let broken = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    // The shell starts the program with this file closed.
    let closed = |number: u8, arguments: &[&str]| {
        let script = format!("exec \"$@\" {number}>&-");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", &program()]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    let code = |arguments: &[&str], out: Stdio, error: Stdio| {
        let mut command = Command::new(program());
        command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(error);
        command.env("RUST_LOG", "nonsense").status().unwrap().code()
    };
    let unused = "tcp://127.0.0.1:1";
    for (arguments, expected, when_full) in [
        (&["--bogus"][..], 2, 2),
        (&["--idle-timeout", "5x"], 2, 2),
        (&["--config", "/nonexistent"], 2, 2),
        (&["--listen", "hub=192.0.2.1:1"], 1, 1),
        (&["--check"], 0, 1),
        (&["--check", "--requirepass", "x"], 0, 1),
        (&["--help"], 0, 1),
        (&["--version"], 0, 1),
        (&["lab"], 0, 1),
        (&["lab", "nonsense"], 2, 2),
        (&["stress"], 2, 2),
        (&["stress", "ping", unused, "-d", "100ms", "-c", "1"], 1, 1),
    ] {
        assert_eq!(code(arguments, Stdio::null(), full()), Some(expected), "{arguments:?}");
        assert_eq!(code(arguments, Stdio::null(), broken()), Some(expected), "{arguments:?}");
        assert_eq!(code(arguments, full(), full()), Some(when_full), "{arguments:?}");
        assert_eq!(code(arguments, broken(), broken()), Some(expected), "{arguments:?}");
        assert_eq!(closed(2, arguments), Some(expected), "{arguments:?}");
    }
}

#[test]
fn a_server_whose_log_cannot_be_written_serves() {
    for error in ["/dev/full", "/dev/null"] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program());
        command.args(["--listen", &format!("hub={port}"), "--requirepass", "x"]);
        command.stderr(File::options().write(true).open(error).unwrap());
        let mut server = Ended(command.stdin(Stdio::null()).spawn().unwrap());
        let mut stream = None;
        for _ in 0..500 {
            stream = std::net::TcpStream::connect(port).ok();
            if stream.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut client = Client::from(stream.expect("the server listens"));
        client.send("AUTH x\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
        for signal in ["HUP", "USR1"] {
            let id = server.0.id().to_string();
            Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap();
            client.send("PING\r\n").expect("+PONG\r\n");
        }
        assert!(server.0.try_wait().unwrap().is_none());
    }
}

/// The log is at its most talkative, and every way to fail with the password is tried.
#[test]
fn no_output_of_a_process_has_the_password() {
    const SECRET: &str = "Xq8472916355";
    let folder = Folder::new("secret");
    let good = folder.file("good", SECRET);
    for text in [
        format!("requirepass = {SECRET}"),
        format!("requirepass = 8472916355{}", &SECRET[2..]),
        format!("requirepas = \"{SECRET}\""),
        format!("requirepass = [\"{SECRET}\"]"),
        format!("requirepass = \"{SECRET}"),
        format!("requirepass = \"{SECRET}\"\nrequirepass-file = \"{good}\""),
    ] {
        let path = folder.file("wrong.toml", text);
        let (code, output, error) = run(&["--check", "--config", &path]);
        assert_eq!((code, output.as_str()), (Some(2), ""));
        assert!(!error.contains(&SECRET[2..]), "{error}");
    }
    let long = folder.file("long", SECRET.repeat(100));
    for flags in [
        ["--requirepass", SECRET, "--check", "--idle-timeout=x"],
        ["--requirepas", SECRET, "--check", "--backlog=1"],
        ["--requirepass", "my", SECRET, "--check"],
        ["--requirepass-file", &long, "--check", "--backlog=1"],
    ] {
        let (code, output, error) = run(&flags);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{flags:?}");
        assert!(!error.contains(SECRET), "{error}");
    }
    let config = folder.file("config.toml", format!("requirepass = \"{SECRET}\"\n"));
    let flags = ["--listen", "hub=127.0.0.1:0", "--config", &config];
    let mut server = Server::start_with_log_level("trace", &flags);
    let mut client = Client::connect(server.address("hub"));
    client.send(format!("AUTH {SECRET}\r\n")).expect("+OK\r\n");
    for command in [
        format!("CONFIG SET requirepass {SECRET}"),
        format!("CONFIG SET requirepass-file {SECRET} backlog {SECRET}"),
        format!("AUTH wrong {SECRET} more"),
        format!("HELLO 9 AUTH default {SECRET}"),
    ] {
        let answer = client.send(format!("{command}\r\n")).read_line();
        assert!(answer.starts_with('-') && !answer.contains(SECRET), "{command}: {answer}");
    }
    // The file changes into a wrong one.
    for text in [format!("requirepass = {SECRET}"), format!("requirepass = \"new{SECRET}\"")] {
        fs::write(Path::new(&config), text).unwrap();
        server.signal("HUP");
        server.wait_for_log("configuration");
    }
    server.status();
    let leak = server.log().iter().find(|line| line.contains(SECRET));
    assert_eq!(leak, None);
}

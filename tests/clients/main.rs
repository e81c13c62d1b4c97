//! The hub with foreign clients: redis-py with its own tests, ioredis, node-redis, redis-benchmark,
//! nc, datagrams from Python, Chromium, curl, wrk, libraries of WebSocket and of Socket.IO, and
//! Autobahn.
//! `tests/clients/install target/clients` installs what they need. A test whose client is missing
//! prints SKIPPED.

mod against_redis;
mod autobahn;
mod browser;
#[path = "../broker/engine.rs"]
#[allow(dead_code, reason = "the tests of brokers use the rest")]
mod engine;
mod replay;
mod shared_demo;
mod socketio;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod web;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use support::Server;
use support::programs::{available, bounded, installed, ours, succeeded};

fn hub() -> Server {
    Server::start(&["--listen", "hub=127.0.0.1:0"])
}

/// Returns the arguments that deselect the tests of `redis_py_left_out.txt`.
fn left_out() -> Vec<String> {
    let list =
        std::fs::read_to_string(ours("redis_py_left_out.txt")).expect("the list is readable");
    let lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let names = lines.map(|line| {
        let (name, reason) = line.split_once('#').unwrap_or((line, ""));
        assert!(!reason.trim().is_empty(), "{line} is left out without a reason");
        name.trim().to_string()
    });
    names.flat_map(|name| ["--deselect".into(), name]).collect()
}

/// Runs one file of redis-py's tests. Each file gets its own server, because all files use the same
/// few channels.
fn redis_py(folder: &Path, python: &Path, file: &str, protocol: &str) -> Output {
    let server = hub();
    let mut pytest = bounded(python);
    pytest.current_dir(folder).args([
        "-m",
        "pytest",
        "-q",
        file,
        "-m",
        "not onlycluster",
        "-p",
        "no:cacheprovider",
    ]);
    pytest.args(["--disable-warnings", "--protocol", protocol, "--redis-mod-url"]);
    // The tests can use two servers. Both are the hub.
    let url = format!("redis://{}/0", server.address("hub"));
    pytest.args([&url, "--redis-url", &url]).args(left_out());
    pytest.stdin(Stdio::null()).output().expect("timeout (coreutils) runs")
}

/// The files and protocols run at the same time, because their tests mostly wait.
#[test]
fn redis_py_passes_its_own_tests() {
    let (Some(folder), Some(python)) = (installed("redis-py"), installed("venv/bin/python")) else {
        return;
    };
    let run = |(file, protocol)| (file, protocol, redis_py(&folder, &python, file, protocol));
    let runs = [
        ("tests/test_pubsub.py", "2"),
        ("tests/test_pubsub.py", "3"),
        ("tests/test_asyncio/test_pubsub.py", "2"),
        ("tests/test_asyncio/test_pubsub.py", "3"),
    ];
    let outputs = std::thread::scope(|scope| {
        let threads = runs.map(|arguments| scope.spawn(move || run(arguments)));
        threads.map(|thread| thread.join().expect("the server starts"))
    });
    for (file, protocol, output) in outputs {
        let text = succeeded(&format!("{file} in RESP{protocol}"), &output);
        let summary = text.lines().last().unwrap_or_default();
        let passed: u32 =
            summary.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        assert!(passed > 100 && !summary.contains("skipped"), "{file} in RESP{protocol}:\n{text}");
        println!("{file} in RESP{protocol}: {summary}");
    }
}

/// Runs a client program against a hub, which it restarts twice.
fn node(program: &str, arguments: &[&str]) {
    if let Some(said) = node_with(&["serve"], program, arguments) {
        assert_eq!(said, ["terminate", "kill", "done"], "{program} {arguments:?}");
    }
}

/// Runs a client program against a server that these words start, and returns what it prints. When
/// it prints `terminate` or `kill`, the server is ended that way and restarted on the same port.
/// Returns `None` if the program cannot run here.
fn node_with(server: &[&str], program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let modules = installed("node_modules")?;
    let start = |listen: &str| {
        let mut command = Command::new(support::program());
        command.args(server).args(["--listen", listen]).env("RUST_LOG", "info");
        Server::start_by(command)
    };
    let mut server = start("hub=127.0.0.1:0");
    let address = server.address("hub");
    let mut command = bounded("node");
    command.arg(ours(program)).arg(address.port().to_string()).args(arguments);
    command.env("NODE_PATH", modules);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout (coreutils) runs");
    let mut answers = child.stdin.take().expect("its input is piped");
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("its output is piped"))
        .lines()
        .map_while(Result::ok)
    {
        match line.as_str() {
            "terminate" => {
                server.signal("TERM");
                assert!(server.wait().success());
            }
            "kill" => server.kill(),
            _ => {
                said.push(line);
                continue;
            }
        }
        said.push(line);
        server = start(&format!("hub={address}"));
        // If the client has ended, its output below gives the reason.
        let _ = writeln!(answers, "restarted");
    }
    let output = child.wait_with_output().expect("waiting works");
    succeeded(&format!("{program} {arguments:?}, after {said:?}"), &output);
    Some(said)
}

#[test]
fn ioredis_subscribes_and_recovers_from_restarts() {
    ["2", "3"].into_iter().for_each(|protocol| node("ioredis.js", &[protocol]));
}

#[test]
fn node_redis_subscribes_and_recovers_from_restarts() {
    ["2", "3"].into_iter().for_each(|protocol| node("node_redis.js", &[protocol]));
}

#[test]
fn datagrams_from_python_reach_a_subscriber_of_redis_py() {
    let Some(python) = installed("venv/bin/python") else { return };
    let server = hub();
    let port = server.address("hub").port().to_string();
    for protocol in ["2", "3"] {
        let output = bounded(&python)
            .arg(ours("datagrams.py"))
            .args([&port, protocol])
            .output()
            .expect("timeout runs");
        assert_eq!(succeeded(&format!("datagrams.py in RESP{protocol}"), &output), "done\n");
    }
}

#[test]
fn redis_benchmark_runs_without_errors() {
    if !available("redis-benchmark", "redis-tools") {
        return;
    }
    let _all_files = support::all_files();
    let server = hub();
    let port = server.address("hub").port().to_string();
    for pipeline in ["1", "32"] {
        let mut benchmark = bounded("redis-benchmark");
        benchmark.args([
            "-p",
            &port,
            "-t",
            "ping_inline,ping_mbulk",
            "-c",
            "1000",
            "-n",
            "100000",
            "-q",
            "-P",
            pipeline,
        ]);
        let output = benchmark.output().expect("timeout (coreutils) runs");
        let text = succeeded(&format!("redis-benchmark -P {pipeline}"), &output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "redis-benchmark -P {pipeline}");
        let results: Vec<&str> =
            text.split(['\r', '\n']).filter(|line| line.contains(" requests per second")).collect();
        let named = |name| results.iter().any(|line| line.starts_with(name));
        assert!(
            named("PING_INLINE: ") && named("PING_MBULK: "),
            "redis-benchmark -P {pipeline}:\n{text}"
        );
    }
}

/// Starts nc. It ends when its input has ended and the server has closed.
fn nc(server: &Server) -> Child {
    let address = server.address("hub");
    let mut command = bounded("nc");
    command.args(["-N", &address.ip().to_string(), &address.port().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("timeout (coreutils) runs")
}

/// Sends these commands through nc at once, and returns all answers.
fn piped(server: &Server, commands: &str) -> String {
    let mut nc = nc(server);
    nc.stdin
        .take()
        .expect("its input is piped")
        .write_all(commands.as_bytes())
        .expect("nc reads its input");
    let output = nc.wait_with_output().expect("waiting works");
    succeeded("nc", &output)
}

#[test]
fn commands_piped_into_nc_get_exact_answers() {
    if !available("nc", "netcat-openbsd") {
        return;
    }
    let server = hub();
    let (commands, answers): (Vec<&str>, Vec<&str>) = [
        ("PING\n", "+PONG\r\n"),
        ("ping hello\r\n", "$5\r\nhello\r\n"),
        ("\n", ""),
        ("ECHO 'two words'\n", "$9\r\ntwo words\r\n"),
        ("ECHO \"\\x41\\r\\n\"\n", "$3\r\nA\r\n\r\n"),
        ("PUBLISH news nobody\n", ":0\r\n"),
        ("PUBSUB NUMSUB news\n", "*2\r\n$4\r\nnews\r\n:0\r\n"),
        ("GET key\n", "-ERR unknown command 'GET', with args beginning with: 'key' \r\n"),
        ("PUBLISH news\n", "-ERR wrong number of arguments for 'publish' command\r\n"),
        ("UNSUBSCRIBE\n", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"),
        ("*2\r\n$4\r\nECHO\r\n$6\r\ninline\r\n", "$6\r\ninline\r\n"),
        ("SUBSCRIBE a\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
        ("PING\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        ("PSUBSCRIBE a*\n", "*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n"),
        ("RESET\n", "+RESET\r\n"),
        ("PUBLISH a nobody\n", ":0\r\n"),
        ("QUIT\n", "+OK\r\n"),
    ]
    .into_iter()
    .unzip();
    assert_eq!(piped(&server, &commands.concat()), answers.concat());
    // Without QUIT, the end of the input closes the connection after all answers.
    assert_eq!(piped(&server, &"PING\n".repeat(10_000)), "+PONG\r\n".repeat(10_000));
    // The hub ignores input after QUIT, and a last line without an end.
    assert_eq!(piped(&server, "PING\nQUIT\nPING\n"), "+PONG\r\n+OK\r\n");
    assert_eq!(piped(&server, "PING\nPING"), "+PONG\r\n");
}

#[test]
fn an_nc_subscriber_gets_messages_from_an_nc_publisher() {
    if !available("nc", "netcat-openbsd") {
        return;
    }
    let server = hub();
    let mut subscriber = nc(&server);
    let mut commands = subscriber.stdin.take().expect("its input is piped");
    let mut messages = subscriber.stdout.take().expect("its output is piped");
    let mut expect = |expected: &str| {
        let mut got = vec![0; expected.len()];
        messages.read_exact(&mut got).expect("nc still runs");
        assert_eq!(got.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
    };
    commands.write_all(b"SUBSCRIBE news\n").expect("nc reads its input");
    expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(piped(&server, "PUBLISH news 'hello world'\nPUBLISH news 2\n"), ":1\r\n:1\r\n");
    expect(
        "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$11\r\nhello world\r\n\
         *3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n2\r\n",
    );
    commands.write_all(b"UNSUBSCRIBE news\nQUIT\n").expect("nc reads its input");
    expect("*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n+OK\r\n");
    drop(commands);
    assert!(subscriber.wait().expect("waiting works").success());
}

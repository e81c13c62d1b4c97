//! The checkboxes of two servers that share their channels over a broker.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::browser::{CHROMIUM, browser};
use crate::engine::Engine;
use crate::support::programs::{available, bounded, installed, ours, succeeded};
use crate::support::{Server, program};

/// Starts the demo at an address.
fn demo(listen: &str, broker: &str) -> Server {
    let mut command = Command::new(program());
    command.args(["demo", "checkboxes", "--listen", listen, "--broker", broker]);
    let mut server = Server::start_by({
        command.env("RUST_LOG", "info");
        command
    });
    server.wait_for_log("the link to the broker is up");
    server
}

/// Two pages of two servers and redis-cli at the broker are in step, also after the broker and
/// either server have ended and started anew. A screenshot is in cargo's folder for test files,
/// `demo`.
#[test]
fn the_checkboxes_of_two_servers_are_in_step() {
    if !browser() || !available("redis-cli", "redis-tools") {
        return;
    }
    let Some(mut engine) = Engine::redis(&[]) else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let broker = format!("redis://{}", engine.address);
    let mut servers = [(); 2].map(|()| Some(demo("hub=127.0.0.1:0", &broker)));
    let addresses = servers.each_ref().map(|server| server.as_ref().unwrap().address("hub"));
    let mut command = bounded("node");
    command.arg(ours("shared_demo.js"));
    let ports = addresses.iter().chain([&engine.address]);
    command.args(ports.map(|address| address.port().to_string()));
    command.arg(CHROMIUM).arg(&folder).env("NODE_PATH", installed("node_modules").unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout (coreutils) runs");
    let mut answers = child.stdin.take().expect("its input is piped");
    let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        let at = usize::from(line.ends_with("second"));
        match line.as_str() {
            "end the broker" => {
                engine.kill();
                for server in servers.iter_mut().flatten() {
                    server.wait_for_log("the link to the broker is down");
                }
            }
            "start the broker" => engine.restart(),
            "end the first" | "end the second" => drop(servers[at].take()),
            "start the first" | "start the second" => {
                servers[at] = Some(demo(&format!("hub={}", addresses[at]), &broker));
            }
            _ => {}
        }
        said.push(line);
        // If the client has ended, its output below gives the reason.
        let _ = writeln!(answers, "done");
    }
    let output = child.wait_with_output().expect("waiting works");
    succeeded(&format!("shared_demo.js, after {said:?}"), &output);
    assert_eq!(said.last().map(String::as_str), Some("done"));
    assert_eq!(said.len(), 7);
}

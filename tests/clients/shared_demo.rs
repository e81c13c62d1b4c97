//! The checkboxes of two servers that share their channels over a broker.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::browser::{CHROMIUM, browser};
use crate::engine::Engine;
use crate::support::programs::{available, bounded, installed, ours, succeeded};
use crate::support::{Ended, Server, program};

/// Starts a slabd by these words, and waits for its link to the broker.
fn linked(words: &[&str]) -> Server {
    let mut command = Command::new(program());
    command.args(words).env("RUST_LOG", "info");
    let mut server = Server::start_by(command);
    server.wait_for_log("the link to the broker is up");
    server
}

/// Starts the demo at an address.
fn demo(listen: &str, broker: &str) -> Server {
    linked(&["demo", "checkboxes", "--listen", listen, "--broker", broker])
}

/// Runs a script with these words and ports, Chromium, and a folder for screenshots. Returns the
/// lines that it prints. It waits until `act` has done what a line says, unless the line begins
/// with "saw".
fn drive(script: &[&str], ports: &[u16], mut act: impl FnMut(&str)) -> Vec<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let mut command = bounded("node");
    command.arg(ours(script[0])).args(&script[1..]).args(ports.iter().map(u16::to_string));
    command.arg(CHROMIUM).arg(folder).env("NODE_PATH", installed("node_modules").unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout (coreutils) runs");
    let mut answers = child.stdin.take().expect("its input is piped");
    let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        act(&line);
        if !line.starts_with("saw") {
            // If the script has ended, its output below gives the reason.
            let _ = writeln!(answers, "done");
        }
        said.push(line);
    }
    let output = child.wait_with_output().expect("waiting works");
    succeeded(&format!("{script:?}, after {said:?}"), &output);
    assert_eq!(said.last().map(String::as_str), Some("done"));
    said
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
    let broker = format!("redis://{}", engine.address);
    let mut servers = [(); 2].map(|()| Some(demo("hub=127.0.0.1:0", &broker)));
    let addresses = servers.each_ref().map(|server| server.as_ref().unwrap().address("hub"));
    let ports = [addresses[0].port(), addresses[1].port(), engine.address.port()];
    let said = drive(&["shared_demo.js"], &ports, |line| {
        let at = usize::from(line.ends_with("second"));
        match line {
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
    });
    assert_eq!(said.len(), 7);
}

/// Starts the application of Node at a port, or at a free one if it is 0. Returns its port, too.
fn node_boxes(way: &str, port: u16, broker: u16) -> (Ended, u16) {
    let mut command = Command::new("node");
    let words = [&port.to_string(), &broker.to_string(), way];
    command.arg(ours("socketio/boxes_server.mjs")).args(words);
    command.env("NODE_PATH", installed("node_modules").unwrap()).stdout(Stdio::piped());
    let mut child = Ended(command.stdin(Stdio::null()).spawn().expect("node runs"));
    let mut line = String::new();
    let mut output = BufReader::new(child.0.stdout.take().expect("its output is piped"));
    output.read_line(&mut line).expect("its output is text");
    let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
    (child, port.unwrap_or_else(|| panic!("boxes_server.mjs prints {line:?}")))
}

/// Compares a page of slabd and one of a Node server beside it. `way`: how the Node server tells
/// others of a change, see `boxes_server.mjs`.
fn compare_with_node(way: &str) {
    let adapter = "node_modules/@socket.io/redis-adapter";
    if !browser() || !available("redis-cli", "redis-tools") || installed(adapter).is_none() {
        return;
    }
    // The application of Node has its state in the broker, so the broker keeps it in a file.
    let files = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-boxes-{way}"));
    let _ = std::fs::remove_dir_all(&files);
    std::fs::create_dir_all(&files).expect("the folder of test files is writable");
    let keeps = ["--appendonly", "yes", "--dir", files.to_str().expect("the path is text")];
    let Some(mut engine) = Engine::redis(&keeps) else { return };
    let broker = format!("redis://{}", engine.address);
    let routes = std::fs::read_to_string(ours("socketio/boxes.toml")).expect("it is readable");
    let own = if way == "adapter" { "[socketio]\nadapter = \"redis\"\n" } else { "" };
    let config = files.join("boxes.toml");
    std::fs::write(&config, format!("{own}{routes}")).expect("the folder is writable");
    let (node, node_port) = node_boxes(way, 0, engine.address.port());
    let origin = format!("http://127.0.0.1:{node_port}");
    let start = |listen: &str| {
        let words = ["serve", "--config", config.to_str().unwrap(), "--listen", listen];
        linked(&[&words[..], &["--broker", &broker, "--allow-origin", &origin]].concat())
    };
    let (mut node, mut slabd) = (Some(node), Some(start("hub=127.0.0.1:0")));
    let address = slabd.as_ref().unwrap().address("hub");
    let ports = [address.port(), node_port, engine.address.port()];
    let said = drive(&["socketio/boxes.mjs", way], &ports, |line| match line {
        "end the broker" => {
            engine.kill();
            slabd.as_mut().unwrap().wait_for_log("the link to the broker is down");
        }
        "start the broker" => {
            engine.restart();
            slabd.as_mut().unwrap().wait_for_log("the link to the broker is up");
        }
        "end slabd" => drop(slabd.take()),
        "start slabd" => slabd = Some(start(&format!("hub={address}"))),
        "end Node" => drop(node.take()),
        "start Node" => node = Some(node_boxes(way, node_port, engine.address.port()).0),
        line => println!("{way}: {line}"),
    });
    assert_eq!(said.len(), 12);
}

/// A page of slabd and one of a Node server in one cluster get the changes of each other, also
/// after the broker and either server have ended and started anew. Newcomers get from each server
/// what its own clients have changed. Screenshots are in cargo's folder for test files, `demo`.
#[test]
fn the_checkboxes_of_a_node_server_and_the_hub_are_in_step_by_the_adapter() {
    compare_with_node("adapter");
}

/// The same for a Node server that publishes and subscribes at the broker. Newcomers get all.
#[test]
fn the_checkboxes_of_a_node_server_and_the_hub_are_in_step_by_their_channel() {
    compare_with_node("channel");
}

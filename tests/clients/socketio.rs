//! Clients of Socket.IO: the official one in Node and in Chromium, and python-socketio.

use crate::browser::{CHROMIUM, browser};
use crate::support::program;
use crate::support::programs::{bounded, installed, ours, succeeded};
use crate::{hub, node};

/// Observations that the comparison must have at least.
const OBSERVATIONS_MIN: usize = 400;

/// `observe.mjs` tells what is not observed, because the hub differs by intent.
#[test]
fn the_official_client_sees_no_difference_to_its_own_server() {
    let (Some(modules), Some(_)) = (installed("node_modules"), installed(OFFICIAL)) else {
        return;
    };
    let mut observe = bounded("node");
    observe.arg(ours("socketio/observe.mjs")).arg(program()).env("NODE_PATH", modules);
    let output = observe.output().expect("timeout (coreutils) runs");
    let text = succeeded("observe.mjs", &output);
    let summary = text.lines().last().unwrap_or_default();
    let observations = summary.split(' ').next().and_then(|number| number.parse().ok());
    assert!(summary.ends_with("all equal"), "{text}");
    assert!(observations >= Some(OBSERVATIONS_MIN), "{summary}");
    println!("{summary}");
}

const OFFICIAL: &str = "node_modules/socket.io-client";

#[test]
fn python_socketio_uses_the_hub() {
    let Some(python) = installed("venv/bin/python") else { return };
    for transport in ["websocket", "polling", "upgrade"] {
        let server = hub();
        let mut client = bounded(&python);
        client.arg(ours("socketio/python_client.py"));
        client.arg(server.address("hub").port().to_string()).arg(transport);
        let output = client.output().expect("timeout (coreutils) runs");
        assert_eq!(succeeded(transport, &output), "done\n", "{transport}");
    }
}

/// The official client in Chromium, by each transport, before and after two restarts.
#[test]
fn the_official_client_works_in_chromium() {
    if installed(OFFICIAL).is_some() && browser() {
        node("socketio/browser.mjs", &[CHROMIUM]);
    }
}

//! Clients of Socket.IO: the official one in Node and in Chromium, and python-socketio.

use crate::browser::{CHROMIUM, browser};
use crate::support::program;
use crate::support::programs::{available, bounded, installed, ours, succeeded};
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
    println!("{}", all_equal(&text, OBSERVATIONS_MIN));
}

/// Observations that the comparison of clusters must have at least.
const CLUSTER_OBSERVATIONS_MIN: usize = 40;

/// The same for the cluster of Python.
const PYTHON_OBSERVATIONS_MIN: usize = 30;

/// Returns the summary of a comparison that found no difference in at least so many observations.
fn all_equal(text: &str, least: usize) -> &str {
    let summary = text.lines().last().unwrap_or_default();
    let observations = summary.split(' ').next().and_then(|number| number.parse().ok());
    assert!(summary.ends_with("all equal"), "{text}");
    assert!(observations >= Some(least), "{summary}");
    summary
}

/// `cluster.mjs` tells what is not observed, because the hub differs by intent.
fn compare_clusters(client: &str) {
    let (Some(modules), Some(_)) = (installed("node_modules"), installed(ADAPTER)) else {
        return;
    };
    if !available("redis-server", "redis-server") {
        return;
    }
    let mut observe = bounded("node");
    observe.arg(ours("socketio/cluster.mjs")).arg(program()).arg(client);
    let output = observe.env("NODE_PATH", modules).output().expect("timeout (coreutils) runs");
    let text = succeeded("cluster.mjs", &output);
    println!("{client}: {}", all_equal(&text, CLUSTER_OBSERVATIONS_MIN));
}

#[test]
fn a_cluster_of_a_node_server_and_the_hub_is_as_one_of_two_node_servers() {
    ["ioredis", "redis"].into_iter().for_each(compare_clusters);
}

#[test]
fn a_cluster_of_a_python_server_and_the_hub_is_as_one_of_two_python_servers() {
    let Some(python) = installed("venv/bin/python") else { return };
    if !available("redis-server", "redis-server") {
        return;
    }
    let mut observe = bounded(&python);
    observe.arg(ours("socketio/python_cluster.py")).arg(program());
    let output = observe.output().expect("timeout (coreutils) runs");
    let text = succeeded("python_cluster.py", &output);
    println!("python-socketio: {}", all_equal(&text, PYTHON_OBSERVATIONS_MIN));
}

#[test]
fn two_node_servers_meet_over_the_hub_as_over_redis() {
    compare_clusters("as-broker");
}

const ADAPTER: &str = "node_modules/@socket.io/redis-adapter";
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

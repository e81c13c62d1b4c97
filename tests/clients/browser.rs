//! Browsers in Chromium: the hub's page, and pages of other origins.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use crate::support::Server;
use crate::support::programs::{available, bounded, installed, ours};
use crate::{hub, node, node_with};

/// Debian's Chromium.
pub const CHROMIUM: &str = "/usr/bin/chromium";

/// Returns true if Chromium and its driver are here.
pub fn browser() -> bool {
    installed("node_modules/playwright-core").is_some() && available("chromium", "chromium")
}

/// The page shows and publishes messages, comes back after restarts, and passes the checks of
/// axe-core. Screenshots are in cargo's folder for test files, `page`.
#[test]
fn the_page_works_in_chromium() {
    if !browser() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let locked = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "open sesame"]);
    let port = locked.address("hub").port().to_string();
    node("page.js", &[CHROMIUM, folder.to_str().expect("the path is text"), &port]);
    for name in ["light", "dark", "narrow"] {
        let picture = folder.join(format!("page-{name}.png"));
        assert!(picture.exists(), "{}", picture.display());
    }
}

/// The checkboxes of two pages agree, with each other and with redis-cli. The page shows changes
/// while it stays smooth. A screenshot is in cargo's folder for test files, `demo`.
#[test]
fn the_checkboxes_of_the_demo_work_in_chromium() {
    if !browser() || !available("redis-cli", "redis-tools") {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let folder = folder.to_str().expect("the path is text");
    let said = node_with(&["demo", "checkboxes"], "demo.js", &[CHROMIUM, folder]);
    let said = said.expect("the modules of Node are installed");
    let [frame, kill, done] = &said[..] else { panic!("{said:?}") };
    assert_eq!((kill.as_str(), done.as_str()), ("kill", "done"));
    println!("the longest time between two frames: {frame} ms");
}

/// A page of another origin cannot publish, subscribe or listen, whatever it sends. A page of an
/// allowed origin can.
#[test]
fn pages_of_other_origins_are_refused() {
    let Some(modules) = installed("node_modules").filter(|_| browser()) else { return };
    let mut command = bounded("node");
    command.arg(ours("foreign.js")).arg(CHROMIUM).env("NODE_PATH", modules);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("timeout (coreutils) runs");
    let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the output is text");
    let origin = line.trim().strip_prefix("origin ").expect("it prints its origin").to_string();
    let strict = hub();
    let open = Server::start(&["--listen", "hub=127.0.0.1:0", "--allow-origin", &origin]);
    let ports = [&strict, &open].map(|server| server.address("hub").port().to_string());
    let mut input = child.stdin.take().expect("its input is piped");
    writeln!(input, "{}", ports.join(" ")).expect("it reads its input");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the output is text");
    assert!(child.wait().expect("waiting works").success(), "foreign.js, see above: {rest}");
    assert_eq!(rest, "done\n");
}

//! slabd as a service: the service manager, inherited sockets, shared ports, proxies, the package.
//!
//!     cargo test --test service

#![forbid(unsafe_code)]

mod activation;
mod notifying;
mod package;
mod pages;
mod proxies;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod units;

use std::path::{Path, PathBuf};

/// Returns the path of a file in `packaging`.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

/// A folder that is removed at the end of its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("slabd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

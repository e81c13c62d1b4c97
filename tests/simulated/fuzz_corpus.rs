//! Plays every seed of the fuzz targets once, without cargo-fuzz, so that bugs found by fuzzing
//! stay fixed. The script `tests/fuzz/run` fuzzes.

#[path = "../fuzz/targets/mod.rs"]
pub(super) mod targets;

use std::path::Path;
use std::{fs, panic};

macro_rules! targets {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name::$name);
            }
        )*

        #[test]
        fn every_corpus_has_a_target_here() {
            let mut found: Vec<_> = folder("")
                .map(|path| path.file_name().unwrap().display().to_string())
                .collect();
            let mut known = vec![$(stringify!($name)),*];
            found.sort();
            known.sort();
            assert_eq!(found, known);
        }
    };
}

targets!(
    resp, replies, inline, sniff, http, glob, config, datagram, connection, hub, websocket,
    engineio, socketio
);

fn folder(name: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.unwrap().path())
}

/// Plays every seed of a target, and prints the path of a seed that fails.
fn replay(name: &str, target: fn(&[u8])) {
    let mut seeds: Vec<_> = folder(name).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "the corpus of {name} is empty");
    for seed in seeds {
        let data = fs::read(&seed).unwrap();
        if let Err(failure) = panic::catch_unwind(|| target(&data)) {
            eprintln!("{} fails", seed.display());
            panic::resume_unwind(failure);
        }
    }
}

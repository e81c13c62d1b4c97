//! What of the house style a program can check.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The lines of a file before its tests, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn is(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.ends_with(name))
}

#[test]
fn mio_is_known_to_one_file_and_the_clock_to_another() {
    for (path, text) in sources("src") {
        for line in code(&text) {
            let uses_mio = line.contains("mio::") && !line.contains("net::mio::") && !line.contains("mio::MioNet");
            assert!(!uses_mio || is(&path, &["net/mio.rs"]), "mio in {}: {line}", path.display());
            let reads_clock =
                ["Instant", "SystemTime", "clock_gettime", ".elapsed("].iter().any(|word| line.contains(word));
            assert!(!reads_clock || is(&path, &["clock.rs", "sys.rs"]), "a clock in {}: {line}", path.display());
        }
    }
}

#[test]
fn unsafe_is_in_one_module_and_every_block_says_why() {
    for (path, text) in sources("src") {
        let allowed = path.ends_with("src/sys.rs") || path.components().any(|part| part.as_os_str() == "sys");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            if line.starts_with("//")
                || line.contains("unsafe_code")
                || !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
            {
                continue;
            }
            assert!(allowed, "unsafe in {}: {line}", path.display());
            let reason = lines[number.saturating_sub(3)..number].iter().any(|above| above.contains("// SAFETY: "));
            assert!(reason, "no SAFETY above {}:{}", path.display(), number + 1);
        }
    }
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<&str> = library.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub mod ")) {
        assert!(*line == "pub mod sys;" || lines[number - 1] == "#[forbid(unsafe_code)]", "{line} allows unsafe");
    }
}

#[test]
fn a_turn_fits_on_a_screen_and_names_its_phases_in_order() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reactor.rs")).unwrap();
    let turn: Vec<&str> = text.lines().skip_while(|line| !line.contains("pub fn turn(")).collect();
    let length = turn.iter().position(|line| *line == "    }").unwrap();
    assert!(length <= 24, "turn() has {length} lines");
    let numbers: Vec<u32> =
        turn[..length].iter().filter_map(|line| line.split_once("// ")?.1.trim().parse().ok()).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut after = 0;
    for (phase, name) in [
        "poll_timeout",
        "poll",
        "read_clock",
        "accept",
        "serve_connections",
        "serve_datagrams",
        "expire_timers",
        "drain_outbox",
        "flush",
        "reap",
    ]
    .iter()
    .enumerate()
    {
        assert!(text.contains(&format!("/// Phase {}", phase + 1)), "phase {} has no heading", phase + 1);
        let row = format!("{}. `{name}`", phase + 1);
        let at = readme.find(&row).unwrap_or_else(|| panic!("the README has no {row}"));
        assert!(at > after || phase == 0, "{row} is out of order in the README");
        after = at;
    }
}

#[test]
fn files_and_functions_stay_readable_and_say_their_job() {
    for (path, text) in sources("src") {
        assert!(text.starts_with("//!"), "{} does not say its job", path.display());
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= 500, "{} has {lines} lines before its tests", path.display());
        let mut start = None;
        for (number, line) in text.lines().take(lines).enumerate() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            if ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "const fn ", "pub const fn "]
                .iter()
                .any(|head| trimmed.starts_with(head))
                && !line.ends_with(';')
            {
                start = Some((number, indent, trimmed));
            }
            if let Some((from, depth, name)) = start
                && trimmed == "}"
                && indent == depth
            {
                assert!(number - from <= 75, "{} has {} lines: {name}", path.display(), number - from);
                start = None;
            }
        }
    }
}

#[test]
fn nothing_panics_on_what_a_peer_or_the_kernel_controls() {
    for (path, text) in sources("src") {
        for line in code(&text) {
            assert!(!line.contains(".unwrap()"), "unwrap in {}: {line}", path.display());
            let allowed = is(&path, &["net/sim.rs"]);
            assert!(allowed || !line.contains("panic!("), "panic in {}: {line}", path.display());
        }
    }
}

/// `tests/defences` puts switches into a copy of the sources. The sources have none.
#[test]
fn the_product_has_no_test_switches() {
    for (path, text) in sources("src") {
        for line in code(&text) {
            let words = ["SLABD_WITHOUT", "switches::", "cfg(feature", "cfg!(feature"];
            let is_switch = words.iter().any(|word| line.contains(word));
            assert!(!is_switch, "a switch in {}: {line}", path.display());
        }
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("[features]"));
}

#[test]
fn the_readme_lists_every_file() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (path, _) in sources("src") {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        assert!(readme.contains(&format!("`{name}`")), "the README does not list {name}");
    }
}

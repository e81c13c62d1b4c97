//! The rules of the house style that a program can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the path and text of all Rust files in a folder.
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

/// Returns the lines of a file before its tests, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.ends_with(name))
}

#[test]
fn one_file_uses_mio_and_two_files_read_the_clock() {
    for (path, text) in sources("src") {
        for line in code(&text) {
            let uses_mio = line.contains("mio::")
                && !line.contains("net::mio::")
                && !line.contains("mio::MioNet");
            assert!(!uses_mio || is(&path, &["net/mio.rs"]), "{} uses mio: {line}", path.display());
            let reads_clock = ["Instant", "SystemTime", "clock_gettime", ".elapsed("]
                .iter()
                .any(|word| line.contains(word));
            assert!(
                !reads_clock || is(&path, &["clock.rs", "sys.rs"]),
                "{} reads a clock: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_one_module_and_each_block_has_a_reason() {
    for (path, text) in sources("src") {
        let allowed =
            path.ends_with("src/sys.rs") || path.components().any(|part| part.as_os_str() == "sys");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            if line.starts_with("//")
                || line.contains("unsafe_code")
                || !words(line).any(|word| word == "unsafe")
            {
                continue;
            }
            assert!(allowed, "{} has unsafe code: {line}", path.display());
            let reason = lines[number.saturating_sub(3)..number]
                .iter()
                .any(|above| above.contains("// SAFETY: "));
            assert!(reason, "{}:{} has no SAFETY comment above", path.display(), number + 1);
        }
    }
    let library =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<&str> = library.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub mod "))
    {
        assert!(
            *line == "pub mod sys;" || lines[number - 1] == "#[forbid(unsafe_code)]",
            "{line} allows unsafe"
        );
    }
}

#[test]
fn a_turn_fits_on_a_screen_and_names_its_phases_in_order() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reactor.rs")).unwrap();
    let turn: Vec<&str> = text.lines().skip_while(|line| !line.contains("pub fn turn(")).collect();
    let length = turn.iter().position(|line| *line == "    }").unwrap();
    assert!(length <= 24, "turn() has {length} lines");
    let numbers: Vec<u32> = turn[..length]
        .iter()
        .filter_map(|line| line.split_once("// ")?.1.trim().parse().ok())
        .collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/loop.md")).unwrap();
    let mut after = 0;
    for (phase, name) in [
        "poll_timeout",
        "poll",
        "read_clock",
        "accept",
        "serve_connections",
        "serve_datagrams",
        "expire_timers",
        "collect",
        "flush",
        "reap",
    ]
    .iter()
    .enumerate()
    {
        assert!(
            text.contains(&format!("/// Phase {}", phase + 1)),
            "phase {} has no heading",
            phase + 1
        );
        let row = format!("{}. `{name}`", phase + 1);
        let at = page.find(&row).unwrap_or_else(|| panic!("docs/loop.md has no {row}"));
        assert!(at > after || phase == 0, "{row} is out of order in docs/loop.md");
        after = at;
    }
}

#[test]
fn files_and_functions_are_short_and_files_state_their_job() {
    for (path, text) in sources("src") {
        assert!(text.starts_with("//!"), "{} does not begin with its job", path.display());
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
                assert!(
                    number - from <= 75,
                    "{} has {} lines: {name}",
                    path.display(),
                    number - from
                );
                start = None;
            }
        }
    }
}

#[test]
fn the_product_neither_unwraps_nor_panics() {
    for (path, text) in sources("src") {
        for line in code(&text) {
            assert!(!line.contains(".unwrap()"), "{} unwraps: {line}", path.display());
            let allowed = is(&path, &["net/sim.rs"]);
            assert!(allowed || !line.contains("panic!("), "{} panics: {line}", path.display());
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
            assert!(!is_switch, "{} has a test switch: {line}", path.display());
        }
    }
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("[features]"));
}

#[test]
fn only_one_module_uses_libc() {
    for (path, text) in sources("src") {
        let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let allowed =
            path.ends_with("src/sys.rs") || path.components().any(|part| part.as_os_str() == "sys");
        let found = lines.find(|line| words(line).any(|word| word == "libc"));
        assert!(allowed || found.is_none(), "{} uses libc: {found:?}", path.display());
    }
}

#[test]
fn the_docs_give_a_reason_for_every_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root.join("docs/contributing.md")).unwrap();
    let table = page.split_once("\n## Why is each crate there?\n").unwrap().1;
    let first_column: Vec<&str> =
        table.lines().filter_map(|row| row.strip_prefix('|')?.split('|').next()).collect();
    let listed: Vec<&str> =
        first_column.iter().flat_map(|cell| cell.split(',').map(str::trim)).collect();
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    for line in dependencies.lines().take_while(|line| !line.starts_with('[')) {
        if let Some((name, _)) = line.split_once(" = ") {
            assert!(listed.contains(&name), "docs/contributing.md gives no reason for {name}");
        }
    }
}

#[test]
fn types_and_files_have_specific_names() {
    const SAYS_NOTHING: [&str; 5] = ["manager", "handler", "helper", "utils", "common"];
    for (path, text) in sources("src") {
        let file = path.file_stem().unwrap().to_str().unwrap();
        assert!(!SAYS_NOTHING.contains(&file), "{}", path.display());
        for name in code(&text).filter_map(type_named) {
            let name = name.to_lowercase();
            assert!(
                !SAYS_NOTHING.iter().any(|word| name.contains(word)),
                "{name} in {}",
                path.display()
            );
        }
    }
}

/// Names that two types still share. The test fails if only one type has the name.
const NAMES_OF_TWO_TYPES: [&str; 0] = [];

/// Returns the name of the type that a line defines.
fn type_named(line: &str) -> Option<&str> {
    // A macro's `struct $name` defines no type.
    if line.contains('$') {
        return None;
    }
    // An associated type is indented.
    let is_associated = line.starts_with(' ') && line.trim_start().starts_with("type ");
    let mut words = words(line).skip_while(|word| ["pub", "super", "crate"].contains(word));
    let defines = ["struct", "enum", "trait", "type", "union"].contains(&words.next()?);
    words.next().filter(|_| defines && !is_associated)
}

#[test]
fn no_two_types_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in sources("src") {
        for line in code(&text) {
            if let Some(name) = type_named(line) {
                places.entry(name.to_string()).or_default().push(path.display().to_string());
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    for name in NAMES_OF_TWO_TYPES {
        assert!(
            places.remove(name).is_some(),
            "only one type is named {name} now: remove it from the list"
        );
    }
    assert!(places.is_empty(), "types that share a name: {places:#?}");
}

/// Imports that still close a cycle. The test fails if one of them is gone.
const ARROWS_OF_CIRCLES: [(&str, &str); 0] = [];

/// The modules of a folder import each other in one direction only. A module's imports are those of
/// its file and of all files below it. A file and the files of its own folder can import each
/// other, because they are one module.
#[test]
fn modules_do_not_import_each_other_in_circles() {
    let mut modules: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    let sources: Vec<(Vec<String>, String)> =
        sources("src").iter().map(|(path, text)| (module_of(path), code(text).collect())).collect();
    for (module, code) in &sources {
        let mut imported = paths(code, module);
        for path in &mut imported {
            while !sources.iter().any(|(module, _)| module == path) {
                path.pop();
            }
        }
        modules.insert(module.clone(), imported.into_iter().collect());
    }
    // For each folder, the modules that each of its modules imports.
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, imported) in &modules {
        for to in imported {
            let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if shared < from.len().min(to.len()) {
                let (from, to) = (from[..=shared].join("::"), to[..=shared].join("::"));
                folders
                    .entry(from[..from.rfind("::").unwrap_or(0)].into())
                    .or_default()
                    .entry(from)
                    .or_default()
                    .insert(to);
            }
        }
    }
    for (from, to) in ARROWS_OF_CIRCLES {
        let is_there = folders
            .values_mut()
            .any(|folder| folder.get_mut(from).is_some_and(|all| all.remove(to)));
        assert!(is_there, "{from} does not import {to} now: remove it from the list");
    }
    let circles: Vec<String> = folders.values().flat_map(circles).collect();
    assert!(circles.is_empty(), "imports in circles:\n{}", circles.join("\n"));
}

/// Removes modules that import no other or are not imported, again and again. Returns the modules
/// that are left, with their imports.
fn circles(folder: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut left = folder.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.values_mut().for_each(|imported| imported.retain(|name| names.contains(name)));
        let imported: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|name, own| !own.is_empty() && imported.contains(name));
        if left.len() == names.len() {
            return left.iter().map(|(name, own)| format!("{name} -> {own:?}")).collect();
        }
    }
}

/// Returns the module of a file: `src/net/sim.rs` is net::sim.
fn module_of(path: &Path) -> Vec<String> {
    let path = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap()
        .with_extension("");
    let mut names: Vec<String> =
        path.iter().map(|name| name.to_str().unwrap().to_string()).collect();
    if names == ["lib"] {
        names.clear();
    }
    names
}

/// Returns all paths of a module's code that begin with `crate`, `super` or `self`, from the
/// crate's root.
fn paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            // `read_path` reads a later `super::` of the same path.
            if !code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                read_path(&code[at..], &mut Vec::new(), module, &mut found);
            }
        }
    }
    found
}

/// Reads one path, or each path of a list in braces. Returns the code after it.
fn read_path<'a>(
    mut code: &'a str,
    path: &mut Vec<String>,
    module: &[String],
    found: &mut Vec<Vec<String>>,
) -> &'a str {
    let depth = path.len();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    loop {
        code = code.trim_start();
        if let Some(mut inner) = code.strip_prefix('{') {
            loop {
                inner = read_path(inner, &mut path.clone(), module, found).trim_start();
                inner = match inner.split_at_checked(1) {
                    Some((",", rest)) => rest,
                    Some(("}", rest)) => return rest,
                    _ => panic!("this is not a list of imports: {inner}"),
                };
                if inner.trim_start().starts_with('}') {
                    continue;
                }
            }
        }
        let end = code.find(|c| !is_word(c)).unwrap_or(code.len());
        match &code[..end] {
            "crate" => path.clear(),
            "self" if depth == 0 && path.is_empty() => path.extend_from_slice(module),
            "self" | "" => {}
            "super" if path.is_empty() => path.extend_from_slice(&module[..module.len() - 1]),
            "super" => drop(path.pop()),
            name => path.push(name.to_string()),
        }
        match code[end..].strip_prefix("::") {
            Some(rest) => code = rest,
            None => break,
        }
    }
    found.push(path.clone());
    let rest = code.trim_start_matches(is_word).trim_start();
    // The import can have a new name.
    match rest.strip_prefix("as ") {
        Some(name) => name.trim_start().trim_start_matches(is_word),
        None => rest,
    }
}

/// `tests/run` names the programs that it runs, so one that is new could be left out.
#[test]
fn the_test_command_runs_every_test_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let command = fs::read_to_string(root.join("tests/run")).unwrap();
    let mut programs = 0;
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let is_program = path.join("main.rs").exists() || path.extension() == Some("rs".as_ref());
        if is_program {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let runs = command.lines().any(|line| {
                line.starts_with("run_tests ")
                    && line.split(' ').skip_while(|word| *word != "--test").any(|word| word == name)
            });
            assert!(runs, "tests/run does not run the tests of {name}");
            programs += 1;
        }
    }
    assert!(programs >= 8, "{programs} programs of tests");
}

//! README.md and docs/ stay true: their commands run, the outputs match, and all names exist.
//!
//! docs/contributing.md has the conventions of the pages.

mod commands;
mod console;
mod metrics;
mod named;
mod page;
mod settings;

use std::fs;
use std::path::Path;
use std::process::Command;

use slabd::connection::Connection;
use slabd::limits::CONNECTION_BYTES;
use slabd::timer::TimerWheel;

use self::console::{Treatment, steps, treatment};
use self::named::Known;
use self::page::{lines_match, page, pages, root};

/// Longest line of code and prose, in characters.
const COLUMNS: usize = 100;

/// The program under test: the build that `tests/run` names, else cargo's own.
fn program() -> String {
    std::env::var("SLABD_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_slabd").into())
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn the_commands_of_every_page_print_the_output_shown() {
    let (program, pages) = (program(), pages());
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            pages.iter().map(|page| scope.spawn(|| console::run(page, &program))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let count: usize = results.iter().map(|(count, _)| count).sum();
    eprintln!("{count} commands of {} pages were run", pages.len());
    assert_none(&results.into_iter().flat_map(|(_, failures)| failures).collect::<Vec<_>>());
}

#[test]
fn names_in_commands_and_code_spans_exist() {
    let known = Known::of(&program());
    let (mut problems, mut commands, mut spans) = (Vec::new(), 0, 0);
    for page in pages() {
        let mut note = |line: usize, text: &str, result: Result<(), String>| {
            if let Err(why) = result {
                problems.push(format!("{}:{line}: `{}`: {why}", page.name, text.trim()));
            }
        };
        for block in page.blocks().iter().filter(|block| block.language == "console") {
            match treatment(block) {
                Ok(Treatment::NotRun) => {
                    for step in steps(block) {
                        commands += 1;
                        note(step.line, &step.command, known.check_command(&step.command));
                    }
                }
                Ok(_) => {}
                Err(why) => note(block.line, "", Err(why)),
            }
        }
        for (line, span) in page.spans() {
            spans += 1;
            note(line, &span, known.check_span(&span));
        }
    }
    eprintln!("{commands} commands that are not run, and {spans} code spans were checked");
    assert_none(&problems);
}

#[test]
fn configurations_in_pages_are_accepted() {
    let file = std::env::temp_dir().join(format!("slabd-docs-{}.toml", std::process::id()));
    let mut problems = Vec::new();
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            fs::write(&file, block.lines.join("\n")).unwrap();
            let mut check = Command::new(program());
            let output = check.args(["--check", "--config"]).arg(&file).output().unwrap();
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                problems.push(format!("{}:{}: {error}", page.name, block.line));
            }
        }
    }
    let _ = fs::remove_file(&file);
    assert_none(&problems);
}

#[test]
fn rust_in_pages_is_in_the_sources() {
    let mut problems = Vec::new();
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "rust") {
            let file = block.notes.first().and_then(|note| note.strip_prefix("from "));
            let path = root().join(file.unwrap_or("tests/house/docs/service/shout.rs"));
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let any = || "…".to_string();
            let pattern = match file {
                Some(_) => [&[any()][..], &block.lines, &[any()]].concat(),
                None => block.lines.clone(),
            };
            if !lines_match(&pattern, &lines) {
                let place = path.display();
                problems.push(format!("{}:{}: not in {place}", page.name, block.line));
            }
        }
    }
    assert_none(&problems);
}

/// Stands for `src/service.rs` where the example of docs/contributing.md is compiled.
mod service {
    pub use slabd::service::{Reply, Service, Taken, receive_line, server};

    pub mod shout;
}

#[test]
fn the_example_of_a_service_answers_in_capitals() {
    let shout = Box::new(service::shout::Shout);
    assert_eq!(commands::answers(shout, b"hello\r\nbye\r\n"), "HELLO\r\nBYE\r\n");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    let mut problems = Vec::new();
    for page in &pages {
        for (line, text) in page.prose() {
            for (at, _) in text.match_indices("](") {
                let target = text[at + 2..].split(')').next().unwrap_or("");
                if target.contains("://") {
                    continue;
                }
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let folder = page.path().parent().unwrap().to_path_buf();
                let file = if path.is_empty() { page.path() } else { folder.join(path) };
                let file = file.canonicalize().unwrap_or_default();
                let is_page = |page: &&page::Page| page.path().canonicalize().unwrap() == file;
                let has_anchor = |name: &str| {
                    let found = pages.iter().find(is_page);
                    found.is_some_and(|page| page.anchors().iter().any(|own| own == name))
                };
                if !file.exists() || !(anchor.is_empty() || has_anchor(anchor)) {
                    problems.push(format!("{}:{line}: {target}", page.name));
                }
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = page("README.md").text.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

/// Foreign files, and files that a program writes.
const NOT_OURS: [&str; 5] =
    ["package-lock.json", "Cargo.lock", "uplot", "corpus", "protocol/http/client/"];

#[track_caller]
fn assert_no_wide_lines(places: &[&str]) {
    let mut problems = Vec::new();
    places.iter().for_each(|place| look_for_wide_lines(&root().join(place), &mut problems));
    assert_none(&problems);
}

#[test]
fn lines_of_pages_have_at_most_100_columns() {
    assert_no_wide_lines(&["README.md", "docs"]);
}

#[test]
fn lines_of_code_have_at_most_100_columns() {
    assert_no_wide_lines(&["Cargo.toml", "src", "tests", "benches", ".ci", "scripts"]);
}

fn look_for_wide_lines(path: &Path, problems: &mut Vec<String>) {
    let name = path.strip_prefix(root()).unwrap().display().to_string();
    if NOT_OURS.iter().any(|other| name.contains(other)) || !path.exists() {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            look_for_wide_lines(&entry.unwrap().path(), problems);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        let is_table = |line: &str| name.ends_with(".md") && line.starts_with('|');
        let is_wide = |line: &str| line.chars().count() > COLUMNS && !is_table(line);
        let wide = text.lines().enumerate().filter(|(_, line)| is_wide(line));
        let numbers: Vec<String> = wide.map(|(index, _)| (index + 1).to_string()).collect();
        if !numbers.is_empty() {
            problems.push(format!("{name} has wide lines: {}", numbers.join(", ")));
        }
    }
}

/// Compares a part of a page, between two marker comments, with the text made from the sources.
/// With SLABD_WRITE in the environment, writes that text into the page instead.
#[track_caller]
fn compare_made(name: &str, of: &str, made: &str) {
    let page = page(of);
    let start = format!("<!-- {name}: made from the sources -->\n");
    let end = format!("<!-- end of {name} -->");
    let parts = page.text.split_once(&start).and_then(|(before, rest)| {
        let (found, after) = rest.split_once(&end)?;
        Some((before, found, after))
    });
    let (before, found, after) =
        parts.unwrap_or_else(|| panic!("{of} lacks the markers of {name}"));
    if std::env::var_os("SLABD_WRITE").is_some() {
        fs::write(page.path(), [before, &start, made, &end, after].concat()).unwrap();
    } else if found != made {
        panic!(
            "{of}: {name} are out of date; \
             update them with SLABD_WRITE=1 cargo test --test house the_page"
        );
    }
}

#[test]
fn the_page_of_settings_matches_the_rows_of_the_sources() {
    compare_made("settings", "docs/run.md", &settings::table());
}

#[test]
fn the_page_of_metrics_matches_what_the_server_renders() {
    compare_made("metrics", "docs/metrics.md", &metrics::table());
}

/// The table says what each default protects, whom it could hurt, and what was measured with it.
#[test]
fn the_table_of_defaults_has_each_default_once() {
    let text = page("docs/run.md").text;
    let (_, table) = text.split_once("\n## What does each default protect").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `--"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let defaults = settings::defaults();
    for (flag, default) in &defaults {
        let same = rows.iter().filter(|row| row[0] == flag && row[1] == default).count();
        assert_eq!(same, 1, "docs/run.md: rows of {flag} with the default {default}");
    }
    assert_eq!(rows.len(), defaults.len(), "docs/run.md: a row is of no setting with a default");
    for row in &rows {
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn the_page_of_commands_matches_the_answers_of_the_hub() {
    compare_made("commands", "docs/hub.md", &commands::table());
}

#[test]
fn the_page_of_clients_names_the_versions_that_are_tested() {
    let pages = page("docs/hub.md").text + &page("docs/browsers.md").text;
    let requirements = fs::read_to_string(root().join("tests/clients/requirements.txt")).unwrap();
    let package = fs::read_to_string(root().join("tests/clients/package.json")).unwrap();
    let autobahn = fs::read_to_string(root().join("tests/clients/autobahn.txt")).unwrap();
    let mut wanted = Vec::new();
    for (name, package) in [
        ("redis-py", "redis=="),
        ("websockets", "websockets=="),
        ("picows", "picows=="),
        ("Autobahn's", "autobahntestsuite=="),
    ] {
        let mut lines = requirements.lines().chain(autobahn.lines());
        let version = lines.find_map(|line| line.strip_prefix(package)).unwrap();
        wanted.push((name, version.to_string()));
    }
    for (name, key) in
        [("ioredis", "\"ioredis\": \""), ("node-redis", "\"redis\": \""), ("ws", "\"ws\": \"")]
    {
        let version = package.split_once(key).unwrap().1.split('"').next().unwrap();
        wanted.push((name, version.to_string()));
    }
    for (name, version) in wanted {
        let row = pages.lines().find(|line| line.starts_with(&format!("| {name} ")));
        assert!(row.is_some_and(|row| row.contains(&version)), "docs: {name} {version}");
    }
}

/// Rows of docs/loop.md whose second cell is a size: `| \`Name\` … | 32 B | … |`.
#[test]
fn the_page_of_the_loop_states_the_right_sizes() {
    let page = page("docs/loop.md");
    let sources = Known::of(&program());
    let mut checked = 0;
    for line in page.text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].split('`').nth(1).unwrap();
        let Some(size) = cells[2].strip_suffix(" B") else { continue };
        let size: usize = size.parse().unwrap_or_else(|_| panic!("{line}"));
        let holds = match name {
            // A stream of the real network is its file descriptor.
            "Connection" => size == size_of::<Connection<i32>>(),
            "TimerWheel" => size == TimerWheel::BYTES_PER_TIMER,
            "CONNECTION_BYTES" => size == CONNECTION_BYTES,
            // The size of a private type is asserted in its module.
            other => sources.has_text(&format!("size_of::<{other}>() == {size})")),
        };
        assert!(holds, "docs/loop.md: {name} does not have {size} bytes");
        checked += 1;
    }
    assert!(checked >= 5, "docs/loop.md states only {checked} sizes");
}

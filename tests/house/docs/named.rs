//! Checks the names in commands and code spans without running them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::page::root;

/// The names that exist.
pub struct Known {
    /// The help of `slabd` and of its commands, by the name of the command.
    help: Vec<(&'static str, String)>,
    experiments: String,
    /// Sources, tests and benchmarks: their paths from the root, and their texts.
    files: Vec<(String, String)>,
    functions: BTreeSet<String>,
}

/// Foreign programs, whose arguments are not checked.
const OTHERS: [&str; 21] = [
    "redis-cli",
    "nc",
    "telnet",
    "git",
    "systemctl",
    "journalctl",
    "kill",
    "cat",
    "echo",
    "printf",
    "cp",
    "rustup",
    "install",
    "ulimit",
    "head",
    "grep",
    "sleep",
    "cd",
    "ss",
    "docker",
    "apt-get",
];

impl Known {
    pub fn of(program: &str) -> Known {
        let output = |words: &[&str]| {
            let output = Command::new(program).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let help = ["", "serve", "stress", "lab", "man", "completions"].map(|name| {
            let words = if name.is_empty() { vec!["--help"] } else { vec![name, "--help"] };
            (name, output(&words))
        });
        let mut files = Vec::new();
        for folder in ["src", "tests", "benches", "packaging", ".ci"] {
            read_all(&root().join(folder), &mut files);
        }
        let functions = files
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next())
            .map(str::to_string)
            .collect();
        Known { help: help.to_vec(), experiments: output(&["lab"]), files, functions }
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
    }

    /// Returns true if a source, test or benchmark has this text.
    pub fn has_text(&self, text: &str) -> bool {
        self.files.iter().any(|(_, own)| own.contains(text))
    }

    fn help_of(&self, command: &str) -> &str {
        &self.help.iter().find(|(name, _)| *name == command).unwrap().1
    }

    /// Checks a code span that is a command, a path, a flag, a variable or the name of a test. Any
    /// other span passes.
    pub fn check_span(&self, span: &str) -> Result<(), String> {
        let span = span.trim();
        for word in span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            self.check_word(word)?;
        }
        let first = span.split_whitespace().next().unwrap_or("");
        if span.starts_with("--") {
            let known = |name: &str| self.help.iter().any(|(_, help)| has_flag(help, name));
            return check(known(flag_name(first)), "no command of slabd has this flag");
        }
        if ["cargo", "slabd"].contains(&first) || is_script(first) {
            return self.check_command(span);
        }
        let is_snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if span.contains('_') && span.chars().all(is_snake) {
            return check(self.has_text(span), "nothing in the sources has this name");
        }
        let place = |folder: &&str| first.starts_with(*folder) && !first.contains(['*', '…', 'N']);
        if ["src/", "docs/", "tests/", "benches/", "packaging/"].iter().any(place) {
            return check(root().join(first).exists(), "there is no such file");
        }
        Ok(())
    }

    /// Checks an environment variable, which begins with SLABD_, or a name of five words or more,
    /// which must be a test. Any other word passes.
    fn check_word(&self, word: &str) -> Result<(), String> {
        if word.starts_with("SLABD_") {
            let known = self.has_text(word);
            return check(known, &format!("nothing reads {word}"));
        }
        let is_name =
            word.split('_').count() > 4 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        check(!is_name || self.functions.contains(word), &format!("there is no test {word}"))
    }

    /// Checks a command line of several commands.
    pub fn check_command(&self, text: &str) -> Result<(), String> {
        let text = text.replace("\\\n", " ");
        let text = text.split(" # ").next().unwrap_or("");
        let text = text.replace("&&", "|").replace("; ", "|");
        text.split('|').try_for_each(|part| self.check_one(part.trim()))
    }

    fn check_one(&self, text: &str) -> Result<(), String> {
        let quoted = words_of(text);
        let mut words: Vec<&str> = quoted.iter().map(String::as_str).collect();
        while let Some(first) = words.first() {
            if let Some((name, _)) =
                first.split_once('=').filter(|(name, _)| name.to_uppercase() == *name)
            {
                self.check_word(name)?;
            } else if *first != "sudo" {
                break;
            }
            words.remove(0);
        }
        let Some(first) = words.first().copied() else { return Ok(()) };
        let rest = &words[1..];
        match first {
            "cargo" => self.check_cargo(rest),
            "slabd" => self.check_slabd(rest),
            "sysctl" => {
                let name =
                    rest.iter().find_map(|word| word.split_once('=')).map_or("", |(name, _)| name);
                let path = Path::new("/proc/sys").join(name.replace('.', "/"));
                check(!name.is_empty() && path.exists(), "the kernel has no such setting")
            }
            script if is_script(script) => self.check_script(script, rest),
            other => check(OTHERS.contains(&other), &format!("{other} is no known program")),
        }
    }

    fn check_slabd(&self, words: &[&str]) -> Result<(), String> {
        let first = words.first().copied().unwrap_or("");
        let known = self.help.iter().any(|(name, _)| *name == first);
        let command = if known { first } else { "" };
        let help = self.help_of(command);
        for word in words {
            let is_flag = word.len() > 1 && word.starts_with('-');
            let known = has_flag(help, flag_name(word)) || help.contains(&format!(" {word}, "));
            check(!is_flag || known, &format!("slabd {command} has no {word}"))?;
        }
        let name = words.get(1).copied().unwrap_or("");
        if command == "lab" && !name.is_empty() && !name.contains(['-', '…', 'N']) {
            check(self.experiments.contains(&format!("slabd lab {name} ")), "no such experiment")?;
        }
        Ok(())
    }

    fn check_cargo(&self, words: &[&str]) -> Result<(), String> {
        let words: Vec<&str> =
            words.iter().copied().filter(|word| !word.starts_with('+')).collect();
        let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let (own, passed) = (&words[..end], words.get(end + 1..).unwrap_or(&[]));
        match own.first().copied().unwrap_or("") {
            "bench" => {
                let name = value_of(own, "--bench").unwrap_or("");
                if name.is_empty() || name == "…" || name == "NAME" {
                    return Ok(());
                }
                let text = self.text(&format!("benches/{name}.rs"));
                let text = text.ok_or_else(|| format!("there is no benchmark {name}"))?;
                let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
                check(manifest.contains(&format!("name = \"{name}\"")), "Cargo.toml lacks it")?;
                self.check_bench_part(text, passed)
            }
            "test" => self.check_test(own, passed),
            "run" => self.check_slabd(passed),
            "install" | "build" | "check" | "fmt" | "clippy" | "doc" | "mutants" | "metadata" => {
                Ok(())
            }
            other => Err(format!("cargo {other} is not known here")),
        }
    }

    /// Checks the sections and flags of a benchmark. Its source must quote each of them, a flag
    /// without its dashes.
    fn check_bench_part(&self, text: &str, words: &[&str]) -> Result<(), String> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.trim_start_matches("--");
            let quoted = text.contains(&format!("\"{name}\""));
            check(quoted || *word == "--skip", &format!("the benchmark knows no {word}"))?;
            if word.starts_with("--") {
                words.next();
            }
        }
        Ok(())
    }

    /// Checks that the test programs exist, and that the filter matches the name of a test or of
    /// its file.
    fn check_test(&self, own: &[&str], passed: &[&str]) -> Result<(), String> {
        let mut places: Vec<String> = Vec::new();
        let mut filters: Vec<&str> = Vec::new();
        let mut words = own[1..].iter();
        while let Some(word) = words.next() {
            match *word {
                "--test" => {
                    let name = words.next().copied().unwrap_or("");
                    let found = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
                    let found = found.iter().find(|path| self.text(path).is_some());
                    let found = found.ok_or_else(|| format!("there are no tests {name}"))?;
                    places.push(found.trim_end_matches("/main.rs").to_string());
                }
                "--lib" => places.push("src".to_string()),
                flag if flag.starts_with('-') => {}
                filter => filters.push(filter),
            }
        }
        filters.extend(passed.iter().filter(|word| !word.starts_with('-')));
        for filter in filters {
            let last = filter.rsplit("::").next().unwrap_or(filter);
            let matches = |(path, text): &(String, String)| {
                let here = places.is_empty()
                    || places.iter().any(|place| path.starts_with(place.as_str()));
                let stem = path.contains(&filter.replace("::", "/"));
                here && (stem
                    || text.lines().any(|line| {
                        line.split_once("fn ").is_some_and(|(_, name)| {
                            name.split('(').next().unwrap_or("").contains(last)
                        })
                    }))
            };
            check(self.files.iter().any(matches), &format!("no test fits {filter}"))?;
        }
        Ok(())
    }

    fn check_script(&self, script: &str, words: &[&str]) -> Result<(), String> {
        let text = self.text(script).ok_or("there is no such script")?;
        for (index, word) in words.iter().enumerate() {
            let is_flag = word.starts_with("--");
            check(!is_flag || text.contains(flag_name(word)), &format!("{script} has no {word}"))?;
            let before = index.checked_sub(1).map_or("", |before| words[before]);
            if script == "tests/defences" && before == "--only" && *word != "NAME" {
                let list = self.text("tests/defences.toml").unwrap_or("");
                check(list.contains(&format!("name = \"{word}\"")), &format!("no defence {word}"))?;
            }
            if script == "tests/fuzz/run" && index == 0 && *word != "all" {
                check(text.contains(&format!("\n{word} ")), &format!("no target {word}"))?;
            }
            if script == "tests/run" && !is_flag {
                check(text.contains(word), &format!("tests/run knows no {word}"))?;
            }
        }
        Ok(())
    }
}

/// Splits a text at spaces outside quotes, and removes the quotes.
fn words_of(text: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().expect("one was put there").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_string()) }
}

fn flag_name(word: &str) -> &str {
    word.split(['=', '[']).next().unwrap_or(word)
}

fn has_flag(help: &str, name: &str) -> bool {
    help.split([' ', '\n', ',']).any(|word| word == name)
}

fn value_of<'a>(words: &[&'a str], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == flag)?;
    words.get(at + 1).copied()
}

/// Returns true if a word is the path of a script of this repository: a file without an extension.
fn is_script(word: &str) -> bool {
    let ours =
        ["tests/", "benches/", "packaging/", ".ci/"].iter().any(|folder| word.starts_with(folder));
    ours && !word.contains('…')
        && root().join(word).is_file()
        && !word.rsplit('/').next().unwrap_or("").contains('.')
}

fn read_all(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if path.is_dir() {
            if !["corpus", "artifacts", "target", "node_modules"]
                .iter()
                .any(|skipped| name.ends_with(skipped))
            {
                read_all(&path, files);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            files.push((name, text));
        }
    }
}

//! Runs the commands of one page in a scratch folder, with a network and processes that no other
//! page sees.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::page::{Block, Page, lines_match, root};

/// Longest time for one command, and for a background command to show its output, in seconds. A
/// busy machine can need many times as long as an idle one.
const COMMAND_SECONDS: u64 = 120;

/// Longest time for all commands of a page, in seconds.
const PAGE_SECONDS: u64 = 600;

/// One command and the output that the page shows.
pub struct Step {
    pub line: usize,
    pub command: String,
    pub output: Vec<String>,
}

/// The treatment of a block of commands, from the notes before it.
#[derive(Debug, PartialEq)]
pub enum Treatment {
    /// Run it, and expect this exit code.
    Run(i32),
    /// Start it, go on when its output has appeared, and end it with the page.
    Background(String),
    /// No command: further output of the background command of this name.
    From(String),
    /// Only check that the names in it exist.
    NotRun,
}

/// Reads the notes before a console block.
pub fn treatment(block: &Block) -> Result<Treatment, String> {
    let mut found = Treatment::Run(0);
    for note in &block.notes {
        let (word, rest) = note.split_once(' ').unwrap_or((note, ""));
        found = match word {
            "exit" => Treatment::Run(rest.parse().map_err(|_| format!("exit code {rest:?}"))?),
            "background" => Treatment::Background(rest.to_string()),
            "from" => Treatment::From(rest.to_string()),
            "not" if rest.len() > 10 && rest.starts_with("run: ") => Treatment::NotRun,
            _ => return Err(format!("no note: {note:?}")),
        };
    }
    Ok(found)
}

/// Returns the commands of a console block: lines that begin with `$ `, and the lines that they
/// continue on.
pub fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, text) in block.lines.iter().enumerate() {
        let continues =
            steps.last().is_some_and(|step| step.output.is_empty() && step.command.ends_with('\\'));
        if let Some(command) = text.strip_prefix("$ ") {
            let line = block.line + 1 + index;
            steps.push(Step { line, command: command.to_string(), output: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            if continues {
                step.command.push('\n');
                step.command.push_str(text.strip_prefix("> ").unwrap_or(text));
            } else {
                step.output.push(text.to_string());
            }
        }
    }
    steps
}

/// A background command.
struct Running {
    name: String,
    log: PathBuf,
    child: Child,
}

/// The folder, namespaces and background commands of one page.
struct Room {
    folder: PathBuf,
    /// The command that enters the namespaces; empty where there are none.
    enter: Vec<String>,
    holder: Option<Child>,
    running: Vec<Running>,
    /// True if a command was not run, so later output may be missing.
    skipped: bool,
}

/// Runs the commands of a page, except those whose notes exclude them. Returns their number and the
/// failures.
pub fn run(page: &Page, program: &str) -> (usize, Vec<String>) {
    // On the host's network, pages take turns.
    static HOST: Mutex<()> = Mutex::new(());
    if let Some((name, package)) = missing_program(page) {
        eprintln!("SKIPPED {}: {name} is not installed (apt-get install {package})", page.name);
        return (0, Vec::new());
    }
    let (holder, enter) = namespaces();
    // Released after the servers of this page have ended.
    let _turn = enter.is_empty().then(|| HOST.lock().unwrap_or_else(PoisonError::into_inner));
    let mut room = Room::new(&page.name, program, holder, enter);
    let (mut count, mut failures) = (0, Vec::new());
    for block in page.blocks().iter().filter(|block| block.language == "console") {
        let mut fail = |line: usize, why: String| {
            failures.push(format!("{}:{line}: {why}", page.name));
        };
        match treatment(block) {
            Err(why) => fail(block.line, why),
            Ok(Treatment::NotRun) => {}
            Ok(Treatment::From(name)) => {
                if let Err(why) = room.expect_more(&name, &block.lines) {
                    fail(block.line, why);
                }
            }
            Ok(treatment) => {
                for step in steps(block) {
                    let result = match &treatment {
                        Treatment::Background(name) => room.start(name, &step),
                        Treatment::Run(code) => room.run(&step, *code),
                        Treatment::From(_) | Treatment::NotRun => Ok(()),
                    };
                    if let Err(why) = result {
                        fail(step.line, format!("{}\n{why}", step.command));
                    }
                    count += 1;
                }
            }
        }
    }
    (count, failures)
}

impl Room {
    fn new(name: &str, program: &str, holder: Option<Child>, enter: Vec<String>) -> Room {
        let folder = std::env::temp_dir().join(format!(
            "slabd-docs-{}-{}",
            std::process::id(),
            name.replace('/', "-")
        ));
        let programs = folder.join(".programs");
        fs::create_dir_all(&programs).unwrap();
        let program = fs::canonicalize(program).unwrap();
        std::os::unix::fs::symlink(program, programs.join("slabd")).unwrap();
        // `cargo run --release` in a page means the program under test.
        let cargo = programs.join("cargo");
        let script = r#"#!/bin/sh
[ "$1 $2" = "run --release" ] || { echo "pages run no cargo but cargo run --release"; exit 99; }
shift 2
[ "$1" = -- ] && shift
exec slabd "$@"
"#;
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        for place in ["src", "tests", "benches", "docs"] {
            std::os::unix::fs::symlink(root().join(place), folder.join(place)).unwrap();
        }
        Room { folder, enter, holder, running: Vec::new(), skipped: false }
    }

    fn command(&self, text: &str, log: &Path, seconds: u64) -> Command {
        let programs = self.folder.join(".programs");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut words = vec!["timeout".to_string(), "--kill-after=5".to_string()];
        words.push(seconds.to_string());
        words.extend(self.enter.iter().cloned());
        // nsenter leaves the folder when it enters a process namespace.
        let go = format!("cd '{}' && {text}", self.folder.display());
        words.extend(["bash".to_string(), "-c".to_string(), go]);
        let log = File::create(log).unwrap();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.folder).env("PATH", path);
        command.env("HOME", &self.folder).env("LC_ALL", "C.UTF-8").env_remove("RUST_LOG");
        // With this, redis-cli prints as it does to a terminal.
        command.env("FAKETTY", "1").env_remove("SLABD_REQUIREPASS");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn run(&mut self, step: &Step, code: i32) -> Result<(), String> {
        if self.enter.is_empty() && step.command.contains("pidof") {
            eprintln!("SKIPPED among the processes of this machine: {}", step.command);
            self.skipped = true;
            return Ok(());
        }
        let log = self.folder.join(".output");
        let status = self.command(&step.command, &log, COMMAND_SECONDS).status().unwrap();
        let output = fs::read_to_string(&log).unwrap_or_default();
        if status.code() != Some(code) {
            return Err(format!(
                "exit code {:?}, not {code}; it printed:\n{output}",
                status.code()
            ));
        }
        let lines: Vec<&str> = output.trim_end().lines().collect();
        match lines_match(&step.output, &lines) {
            true => Ok(()),
            false => {
                Err(format!("the page shows:\n{}\nit printed:\n{output}", step.output.join("\n")))
            }
        }
    }

    fn start(&mut self, name: &str, step: &Step) -> Result<(), String> {
        let log = self.folder.join(format!(".background-{}", self.running.len()));
        let text = format!("exec {}", step.command);
        let child = self.command(&text, &log, PAGE_SECONDS).spawn().unwrap();
        self.running.push(Running { name: name.to_string(), log: log.clone(), child });
        let pattern = [&step.output[..], &["…".to_string()]].concat();
        wait_for_lines(&log, &pattern)
    }

    fn expect_more(&self, name: &str, lines: &[String]) -> Result<(), String> {
        if self.skipped {
            return Ok(());
        }
        let found = self.running.iter().rev().find(|running| running.name == name);
        let running = found.ok_or_else(|| format!("nothing of the name {name:?} is running"))?;
        let any = || "…".to_string();
        wait_for_lines(&running.log, &[&[any()], lines, &[any()]].concat())
    }
}

/// Returns the first program that a page uses and this machine lacks, with its package.
fn missing_program(page: &Page) -> Option<(&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_installed =
        |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let is_used = |name: &str| page.text.split_whitespace().any(|word| word == name);
    let programs = [("redis-cli", "redis-tools"), ("nc", "netcat-openbsd")];
    programs.into_iter().find(|(name, _)| is_used(name) && !is_installed(name))
}

fn wait_for_lines(log: &Path, pattern: &[String]) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(COMMAND_SECONDS);
    loop {
        let output = fs::read_to_string(log).unwrap_or_default();
        if lines_match(pattern, &output.trim_end().lines().collect::<Vec<_>>()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the page shows:\n{}\nit printed:\n{output}", pattern.join("\n")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for running in &mut self.running {
            let _ = Command::new("kill").arg(running.child.id().to_string()).status();
        }
        if let Some(holder) = &mut self.holder {
            // The end of the holder ends all processes in its namespaces.
            let _ = holder.kill();
            let _ = holder.wait();
        }
        for running in &mut self.running {
            let _ = running.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes the namespaces of one page. Returns the process that holds them, and the command that
/// enters them.
fn namespaces() -> (Option<Child>, Vec<String>) {
    let by_root: &[&str] = &[];
    for (user, enter_user) in [
        (by_root, by_root),
        (&["--user", "--map-root-user"], &["--user", "--preserve-credentials"]),
    ] {
        let mut unshare = Command::new("unshare");
        unshare.args(user).args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        let hold = format!("ip link set lo up && echo ready && exec sleep {PAGE_SECONDS}");
        unshare.args(["bash", "-c", &hold]);
        let spawned =
            unshare.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn();
        let Ok(mut holder) = spawned else { continue };
        let mut line = String::new();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        let is_ready = output.read_line(&mut line).is_ok() && line == "ready\n";
        let id = holder.id();
        let inner =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        if !is_ready || inner.trim().is_empty() {
            let _ = holder.kill();
            let _ = holder.wait();
            continue;
        }
        let mut enter = vec!["nsenter".to_string()];
        enter.extend(enter_user.iter().map(|word| word.to_string()));
        enter.extend(["--net", "--pid", "--mount", "--target", inner.trim()].map(str::to_string));
        return (Some(holder), enter);
    }
    eprintln!("NO NAMESPACES here: the commands of the pages run on the network of this machine");
    (None, Vec::new())
}

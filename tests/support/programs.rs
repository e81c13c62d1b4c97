//! Foreign programs that tests run: their paths, a time limit, and their output.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns a command that runs the program and ends it after 300 s.
pub fn bounded(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300"]).arg(program.as_ref());
    command
}

/// Returns the path of a file in `tests/clients`.
pub fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Returns the path of a file that `tests/clients/install` has installed. If the file is missing,
/// prints SKIPPED and returns `None`.
pub fn installed(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the folder is in the target directory")
        .join("clients");
    let complete = folder.join("installed").exists() && folder.join(name).exists();
    if !complete {
        eprintln!("SKIPPED a test with {name}: run tests/clients/install {}", folder.display());
    }
    complete.then(|| folder.join(name))
}

/// Returns true if the system has this program. Otherwise prints SKIPPED with its package.
pub fn available(program: &str, package: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .expect("sh runs");
    if !found.status.success() {
        eprintln!("SKIPPED a test with {program}: not installed (apt-get install {package})");
    }
    found.status.success()
}

/// Returns the standard output of a program, and panics if the program failed.
#[track_caller]
pub fn succeeded(name: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}, {}:\n{text}{errors}", output.status);
    text
}

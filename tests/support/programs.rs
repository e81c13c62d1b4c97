//! Programs of others that tests run: where they are, that they end, and what they printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program that is ended if it does not end by itself in all the time it can need.
pub fn bounded(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300"]).arg(program.as_ref());
    command
}

/// A file in `tests/clients`.
pub fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Where `tests/clients/install` put this, if it did.
pub fn installed(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").join("clients");
    let complete = folder.join("installed").exists() && folder.join(name).exists();
    if !complete {
        eprintln!("SKIPPED a test with {name}: run tests/clients/install {}", folder.display());
    }
    complete.then(|| folder.join(name))
}

/// Whether a program of the system is there.
pub fn available(program: &str, package: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("sh runs");
    if !found.status.success() {
        eprintln!("SKIPPED a test with {program}: not installed (apt-get install {package})");
    }
    found.status.success()
}

/// What a program printed that has ended well.
#[track_caller]
pub fn succeeded(name: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}, {}:\n{text}{errors}", output.status);
    text
}

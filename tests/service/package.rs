//! The Debian package: it is installed, upgraded, removed and purged in a copy of this system, and
//! systemd runs its units there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::Scratch;
use crate::support::{program, programs};

/// The package; `None` if it cannot be made here.
static PACKAGE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    if !programs::available("dpkg-deb", "dpkg") {
        return None;
    }
    // tests/run installs cargo-deb here, and people anywhere.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tools = folder.with_file_name("tools/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let found = Command::new("sh").args(["-c", "command -v cargo-deb"]).env("PATH", &path).output();
    if !found.unwrap().status.success() {
        eprintln!("SKIPPED tests of the package: no cargo-deb (cargo install cargo-deb)");
        return None;
    }
    let folder = folder.join("package");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb");
    let mut build = Command::new(script);
    build.arg(program()).arg(&folder).args(["--fast", "--quiet"]).env("PATH", &path);
    programs::succeeded("build-deb", &build.output().unwrap());
    let mut files = std::fs::read_dir(&folder).unwrap();
    Some(files.next().expect("the package is there").unwrap().path())
});

/// Runs a script by this command, with a folder that has the package. Exit code 77 means that this
/// machine cannot do it.
fn check(name: &str, mut command: Command) {
    let Some(package) = &*PACKAGE else { return };
    let folder = Scratch::new(name);
    std::fs::copy(package, folder.0.join(package.file_name().unwrap())).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service").join(name);
    let output = command.arg("bash").arg(script).arg(&folder.0).output().unwrap();
    match output.status.code() {
        Some(77) => {
            eprintln!("SKIPPED {name}: {}", String::from_utf8_lossy(&output.stderr).trim())
        }
        _ => drop(programs::succeeded(name, &output)),
    }
}

#[test]
fn the_package_installs_upgrades_and_leaves_nothing() {
    // No process that the script starts outlives it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
    check("package.sh", command);
}

#[test]
fn systemd_runs_the_units_and_restarts_a_stuck_process() {
    if programs::available("/lib/systemd/systemd", "systemd") {
        check("systemd.sh", Command::new("env"));
    }
}

//! `slabd lab`: each experiment in its short form, with the program as people run it; and that nothing is left of it however it ends.
//! That a claim which does not hold is said to fail is tested with the judges, in `src/lab`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, all_files, program, run};

/// Runs one experiment and returns what it printed. All its claims must hold; one that could not be tried here is said loudly.
fn holds(name: &str, claims: usize) -> String {
    let _all_files = all_files();
    let (code, text, errors) = run(&["lab", name, "--quick"]);
    let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    let (held, failed, untried) = (count("holds "), count("fails "), count("untried "));
    assert_eq!(held + failed + untried, claims, "{text}{errors}");
    assert_eq!(failed, 0, "{text}{errors}");
    if untried > 0 {
        println!("SKIPPED {untried} of {claims} claims of {name}, which could not be tried here:\n{text}");
    }
    assert_eq!(code, Some(if untried > 0 { 3 } else { 0 }), "{text}{errors}");
    text
}

#[test]
fn framing() {
    assert!(holds("framing", 4).contains("one write of 100,000 bytes"));
}

#[test]
fn restart() {
    let text = holds("restart", 3);
    assert!(text.contains("SIGTERM") && text.contains("SIGKILL"), "{text}");
}

/// The promise of 96 bytes is that of a release build; a debug build's connections are larger.
#[test]
fn memory() {
    if !program().contains("release") {
        println!(
            "SKIPPED: a debug build's connections are larger than is promised; tests/run measures a release build"
        );
        return;
    }
    let text = holds("memory", 4);
    assert!(text.contains("2,000"), "{text}");
}

#[test]
fn sim() {
    let text = holds("sim", 2);
    assert!(text.contains("turns of the loop"), "{text}");
    // The same seed, whole: its plan, then what happened.
    let (code, text, errors) = run(&["lab", "sim", "--seed", "7"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("seed: 7,") && text.contains("client connects") && text.contains("  accept"), "{text}");
}

#[test]
fn limits() {
    let text = holds("limits", 3);
    for name in ["open files of a process", "local ports of a client", "accept queue", "First to bind here: "] {
        assert!(text.contains(name), "no {name} in {text}");
    }
}

#[test]
fn turns() {
    assert!(holds("turns", 5).contains("50 clients, 32 at once"));
}

#[test]
fn fanout() {
    assert!(holds("fanout", 4).contains("subscribers"));
}

#[test]
fn half_open() {
    assert!(holds("half-open", 3).contains("random-drop"));
}

#[test]
fn without_a_name_they_are_listed_and_an_unknown_name_gets_the_list() {
    let (code, text, _) = run(&["lab"]);
    let names = ["framing", "restart", "memory", "limits", "turns", "fanout", "half-open", "sim"];
    assert_eq!(code, Some(0));
    for name in names {
        assert_eq!(text.lines().filter(|line| line.contains(&format!("slabd lab {name} "))).count(), 1, "{text}");
    }
    let (code, text, error) = run(&["lab", "frobnicate"]);
    assert_eq!((code, text.as_str(), error.lines().count()), (Some(2), "", 1), "{error}");
    assert!(error.contains("frobnicate") && names.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn the_page_is_written_and_a_place_where_it_cannot_be_is_said_at_once() {
    let path = std::env::temp_dir().join(format!("slabd-lab-{}.html", std::process::id()));
    let (code, text, errors) = run(&["lab", "framing", "--html", &path.display().to_string()]);
    let page = fs::read_to_string(&path);
    let _ = fs::remove_file(&path);
    assert_eq!(code, Some(0), "{text}{errors}");
    let page = page.expect("the page is there");
    assert!(page.starts_with("<!") && page.contains("slabd lab framing") && page.contains("boundaries"), "{page}");

    let began = Instant::now();
    let (code, text, error) = run(&["lab", "half-open", "--html", "/nonexistent/page.html"]);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("/nonexistent/page.html") && began.elapsed() < Duration::from_secs(5), "{error}");
}

/// A server of the experiment outlives it by no way out: not by Ctrl-C, not even by a kill.
#[test]
fn nothing_is_left_when_it_is_interrupted() {
    for signal in ["INT", "KILL"] {
        let mut lab = Command::new(program());
        lab.args(["lab", "half-open"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut lab = Ended(lab.spawn().expect("the program runs"));
        // Only when the first experiment is under way does it have a server.
        let lines = BufReader::new(lab.0.stderr.take().expect("piped")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("recycle")));
        let server = wait_for(|| child_of(lab.0.id()), "a server of the experiment");
        let status = Command::new("kill").args([&format!("-{signal}"), &lab.0.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
        let ended = lab.0.wait().expect("waiting works");
        assert!(!ended.success(), "{signal}: {ended}");
        wait_for(|| is_gone(&server).then_some(()), "the end of its server");
    }
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(look: impl Fn() -> Option<T>, what: &str) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The one child of a process, once it has become a server.
fn child_of(process: u32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    let child = children.split_whitespace().next()?.to_string();
    let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
    arguments.starts_with("slabd\0serve\0").then_some(child)
}

/// Gone, or dead and waiting for init to notice.
fn is_gone(process: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return true };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

//! `slabd lab`: each experiment in its short form, its arguments, and its end. The tests in
//! `src/lab` show that a false claim fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ended, PATIENCE, all_files, program, run};

/// Runs one experiment and returns its output. All its claims must hold. If a claim could not be
/// tried here, prints SKIPPED.
fn holds(name: &str, claims: usize) -> String {
    let _all_files = all_files();
    let (code, text, errors) = run(&["lab", name, "--quick"]);
    let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    let (held, failed, untried) = (count("holds "), count("fails "), count("untried "));
    assert_eq!(held + failed + untried, claims, "{text}{errors}");
    assert_eq!(failed, 0, "{text}{errors}");
    if untried > 0 {
        println!("SKIPPED {untried} of {claims} claims of {name} could not be tried here:\n{text}");
    }
    assert_eq!(code, Some(if untried > 0 { 3 } else { 0 }), "{text}{errors}");
    text
}

#[test]
fn the_framing_experiment_holds() {
    assert!(holds("framing", 4).contains("one write of 100,000 bytes"));
}

#[test]
fn the_restart_experiment_holds() {
    let text = holds("restart", 3);
    assert!(text.contains("SIGTERM") && text.contains("SIGKILL"), "{text}");
}

/// The claim of 96 bytes is about a release build. A debug build's connections are larger.
#[test]
fn the_memory_experiment_holds() {
    if !program().contains("release") {
        println!("SKIPPED: the claims are about a release build, which tests/run measures");
        return;
    }
    let text = holds("memory", 4);
    assert!(text.contains("2,000"), "{text}");
}

#[test]
fn the_sim_experiment_holds_and_replays_a_seed() {
    let text = holds("sim", 2);
    assert!(text.contains("turns of the loop"), "{text}");
    // A single seed prints its plan and its events.
    let (code, text, errors) = run(&["lab", "sim", "--seed", "7"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        text.contains("seed: 7,") && text.contains("client connects") && text.contains("  accept"),
        "{text}"
    );
}

#[test]
fn the_scale_out_experiment_holds() {
    assert!(holds("scale-out", 5).contains("4 "));
}

#[test]
fn the_limits_experiment_holds() {
    let text = holds("limits", 3);
    for name in [
        "open files of a process",
        "local ports of a client",
        "accept queue",
        "The first limit here: ",
    ] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
}

#[test]
fn the_turns_experiment_holds() {
    assert!(holds("turns", 5).contains("50 clients, 32 at once"));
}

#[test]
fn the_fanout_experiment_holds() {
    assert!(holds("fanout", 5).contains("subscribers"));
}

#[test]
fn the_half_open_experiment_holds() {
    assert!(holds("half-open", 3).contains("random-drop"));
}

#[test]
fn lab_lists_its_experiments_without_a_name_or_for_an_unknown_one() {
    let (code, text, _) = run(&["lab"]);
    let names = [
        "framing",
        "restart",
        "memory",
        "limits",
        "turns",
        "fanout",
        "half-open",
        "scale-out",
        "sim",
    ];
    assert_eq!(code, Some(0));
    for name in names {
        assert_eq!(
            text.lines().filter(|line| line.contains(&format!("slabd lab {name} "))).count(),
            1,
            "{text}"
        );
    }
    let (code, text, error) = run(&["lab", "frobnicate"]);
    assert_eq!((code, text.as_str(), error.lines().count()), (Some(2), "", 1), "{error}");
    assert!(
        error.contains("frobnicate") && names.iter().all(|name| error.contains(name)),
        "{error}"
    );
}

#[test]
fn a_wrong_argument_exits_with_2_and_names_the_accepted_values() {
    let names = "framing, restart, memory, limits, turns, fanout, half-open, scale-out, sim";
    for (line, named, accepted) in [
        ("nosuch", "'nosuch' is not an experiment", names),
        ("--quick", "--quick needs the name of an experiment", names),
        ("--seed 7", "--seed needs the name of an experiment", "slabd lab memory --quick"),
        ("--html page.html", "--html needs the name of an experiment", names),
        ("sim --seed x", "'x' for '--seed <SEED>'", "a whole number, 0 or more, such as 7"),
        ("sim --seed -1", "'-1' for '--seed <SEED>'", "0 or more, such as 7"),
        ("sim --seed", "--seed <SEED>", ""),
        ("sim --seeds x", "'x' for '--seeds <COUNT>'", "1 or more, such as 1000"),
        ("sim --seeds 0", "'0' for '--seeds <COUNT>'", "1 or more, such as 1000"),
        ("sim --seeds -1", "'-1' for '--seeds <COUNT>'", "1 or more, such as 1000"),
        ("sim --seeds 1.5", "'1.5' for '--seeds <COUNT>'", "1 or more, such as 1000"),
        ("sim --seeds 5 --seed 5", "--seed", "--seeds"),
        ("sim --seeds 5 --quick", "--seeds", "--quick"),
        ("sim --connections 500", "--connections does not apply to sim", "memory or fanout"),
        ("memory --seeds 5", "--seeds does not apply to memory", "slabd lab sim --seeds 7"),
        ("framing --seed 5", "--seed does not apply to framing", "slabd lab sim --seed 7"),
        ("memory --connections 99", "'99' for '--connections <COUNT>'", "100 or more"),
        ("memory --connections many", "'many' for '--connections <COUNT>'", "100 or more"),
        ("fanout --connections 999999999", "999999999 is too many", "slabd lab limits"),
        ("sim --frobnicate", "--frobnicate", "--seeds"),
        ("sim again", "again", ""),
    ] {
        let words: Vec<&str> = ["lab"].into_iter().chain(line.split(' ')).collect();
        let (code, text, error) = run(&words);
        assert_eq!((code, text.as_str(), error.lines().count()), (Some(2), "", 1), "{error}");
        assert!(error.contains(named) && error.contains(accepted), "{line}: {error}");
    }
}

#[test]
fn lab_writes_the_page_or_names_an_unwritable_path_at_once() {
    let path = std::env::temp_dir().join(format!("slabd-lab-{}.html", std::process::id()));
    let (code, text, errors) = run(&["lab", "framing", "--html", &path.display().to_string()]);
    let page = fs::read_to_string(&path);
    let _ = fs::remove_file(&path);
    assert_eq!(code, Some(0), "{text}{errors}");
    let page = page.expect("the run writes the page");
    assert!(
        page.starts_with("<!") && page.contains("slabd lab framing") && page.contains("boundaries"),
        "{page}"
    );

    let began = Instant::now();
    let (code, text, error) = run(&["lab", "half-open", "--html", "/nonexistent/page.html"]);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{error}");
    assert!(
        error.contains("/nonexistent/page.html") && began.elapsed() < Duration::from_secs(5),
        "{error}"
    );
}

/// The experiment's server ends with it, even after a SIGKILL.
#[test]
fn an_interrupted_lab_leaves_no_server_behind() {
    for signal in ["INT", "KILL"] {
        let mut lab = Command::new(program());
        lab.args(["lab", "half-open"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut lab = Ended(lab.spawn().expect("the program runs"));
        // The experiment has a server only after it has begun.
        let lines = BufReader::new(lab.0.stderr.take().expect("its log is piped")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("recycle")));
        let server = wait_for(|| child_of(lab.0.id()), "server of the experiment");
        let status =
            Command::new("kill").args([&format!("-{signal}"), &lab.0.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
        let ended = lab.0.wait().expect("waiting works");
        assert!(!ended.success(), "{signal}: {ended}");
        wait_for(|| is_gone(&server).then_some(()), "end of the experiment's server");
    }
}

/// Calls `look` until it finds something.
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

/// Returns the only child of a process, once it is a server.
fn child_of(process: u32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    let child = children.split_whitespace().next()?.to_string();
    let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
    arguments.starts_with("slabd\0serve\0").then_some(child)
}

/// Returns true if the process has ended or is a zombie.
fn is_gone(process: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return true };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

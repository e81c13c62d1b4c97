//! The man pages and the completions.

use std::process::Command;

use slabd::config::Setting;

use crate::Scratch;
use crate::support::{program, programs, run};

/// Commands with a page of their own. The empty one is slabd itself.
const COMMANDS: [&str; 4] = ["", "demo", "stress", "lab"];

#[test]
fn every_setting_is_in_the_man_page_and_in_the_completions() {
    let (code, page, error) = run(&["man"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for setting in Setting::all() {
        let escaped = format!("\\-\\-{}", setting.name().replace('-', "\\-"));
        assert!(page.contains(&escaped), "the man page lacks {escaped}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, error) = run(&["completions", shell]);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        for name in Setting::all().map(Setting::name).chain(["stress", "lab"]) {
            assert!(script.contains(name), "the completions of {shell} lack {name}");
        }
    }
}

#[test]
fn a_man_page_renders_without_warnings() {
    if !programs::available("man", "man-db") {
        return;
    }
    let folder = Scratch::new("man");
    for command in COMMANDS {
        let (_, page, _) = run(&["man", command][..if command.is_empty() { 1 } else { 2 }]);
        let file = folder.0.join("page.1");
        std::fs::write(&file, page).unwrap();
        let mut man = Command::new("man");
        man.args(["--local-file", "--warnings", "--encoding=UTF-8"]).arg(&file);
        let output = man.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8").output().unwrap();
        let text = programs::succeeded("man", &output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
        let usage = format!("slabd {command}");
        assert!(text.contains("SYNOPSIS") && text.contains(usage.trim()), "{text}");
    }
}

/// Returns what each shell offers after `--reuse`, by its own way of asking.
#[test]
fn a_shell_completes_a_flag() {
    let ask = [
        (
            "bash",
            "source FILE; COMP_WORDS=(slabd --reuse); COMP_CWORD=1; _slabd slabd --reuse slabd; \
             echo \"${COMPREPLY[@]}\"",
        ),
        ("fish", "source FILE; complete --do-complete 'slabd --reuse'"),
        // zsh completes only for a terminal, so its script is read and not asked.
        ("zsh", "autoload -Uz compinit; compinit -u -D; source FILE; grep -o -- --reuse-port FILE"),
    ];
    let folder = Scratch::new("completions");
    for (shell, script) in ask {
        if !programs::available(shell, shell) {
            continue;
        }
        let file = folder.0.join(shell);
        std::fs::write(&file, run(&["completions", shell]).1).unwrap();
        let script = script.replace("FILE", file.to_str().unwrap());
        let mut command = Command::new(shell);
        let output = command.args(["-c", &script]).env("HOME", &folder.0).output().unwrap();
        let text = programs::succeeded(shell, &output);
        assert!(text.contains("--reuse-port"), "{shell}: {text}");
    }
}

#[test]
fn a_page_of_no_command_and_a_shell_that_is_not_known_are_errors_of_one_line() {
    let (code, _, error) = run(&["man", "serfe"]);
    let accepted = "accepted: serve, demo, stress, lab, man, completions\n";
    assert_eq!(code, Some(2));
    assert_eq!(error, format!("slabd: there is no command 'serfe'; {accepted}"));
    let (code, _, error) = run(&["completions", "tcsh"]);
    assert!(code == Some(2) && error.contains("bash, zsh, fish"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error} by {}", program());
}

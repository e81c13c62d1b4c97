//! The units of systemd: they are valid and hardened, and slabd runs under them.

use std::process::Command;

use crate::support::{Client, Server, program, programs};
use crate::{Scratch, packaging};

const UNITS: [&str; 3] = ["slabd.service", "slabd@.service", "slabd.socket"];

/// The highest exposure that a unit may have, in tenths: systemd-analyze(1), security.
const EXPOSURE: &str = "20";

/// Copies the units to a folder, with the program under test in place of the installed one.
fn copy(folder: &Scratch) {
    for name in UNITS {
        let unit = std::fs::read_to_string(packaging(name)).unwrap();
        let unit = unit.replace("/usr/bin/slabd", &program());
        std::fs::write(folder.0.join(name.replace('@', "@1")), unit).unwrap();
    }
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    if !programs::available("systemd-analyze", "systemd") {
        return;
    }
    let folder = Scratch::new("units");
    copy(&folder);
    for name in UNITS {
        let unit = folder.0.join(name.replace('@', "@1"));
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        programs::succeeded(name, &output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        if name.ends_with(".service") {
            let threshold = format!("--threshold={EXPOSURE}");
            let mut command = Command::new("systemd-analyze");
            let command = command.args(["security", "--offline=true", "--no-pager", &threshold]);
            let output = command.arg(&unit).output().unwrap();
            let table = programs::succeeded(name, &output);
            let verdict = table.lines().find(|line| line.contains("Overall")).unwrap_or("");
            eprintln!("{name}: {}", verdict.trim());
        }
    }
}

/// The files of both services differ only where instances differ.
#[test]
fn an_instance_is_hardened_like_the_only_process() {
    let lines = |name: &str| -> Vec<String> {
        let unit = std::fs::read_to_string(packaging(name)).unwrap();
        unit.lines().filter(|line| !line.starts_with('#')).map(str::to_string).collect()
    };
    let (one, instance) = (lines("slabd.service"), lines("slabd@.service"));
    let differ = |line: &&String| {
        let own = ["Description=", "ExecStart=", "EnvironmentFile=", "MemoryMax=", "User="];
        !own.iter().any(|start| line.starts_with(start))
    };
    let same: Vec<_> = one.iter().filter(differ).collect();
    assert_eq!(same, instance.iter().filter(differ).collect::<Vec<_>>());
    assert!(same.len() > 40);
}

/// The filter of the unit must admit every system call of a server under load.
#[test]
fn the_unit_admits_the_system_calls_of_the_server() {
    if !programs::available("systemd-analyze", "systemd")
        || !programs::available("strace", "strace")
    {
        return;
    }
    let folder = Scratch::new("calls");
    let trace = folder.0.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-S", "name", "-U", "name", "-o"]).arg(&trace).arg(program());
    command.args(["serve", "--listen", "hub=127.0.0.1:0", "--reuse-port", "--report-every", "1s"]);
    command.env("RUST_LOG", "info");
    let mut server = Server::start_by(command);
    let mut client = Client::connect(server.address("hub"));
    client.send("PING\r\n").expect("+PONG\r\n").send("INFO\r\n").expect("$");
    // The signals go to the server, which is a child of strace.
    let children = format!("/proc/{0}/task/{0}/children", server.process_id());
    let children = std::fs::read_to_string(children).unwrap();
    for (signal, log) in [("HUP", "configuration read again"), ("USR1", "status:")] {
        Command::new("kill").args([&format!("-{signal}"), children.trim()]).status().unwrap();
        server.wait_for_log(log);
    }
    Command::new("kill").args(["-TERM", children.trim()]).status().unwrap();
    assert_eq!(server.wait().code(), Some(0));
    let called = std::fs::read_to_string(&trace).unwrap();
    let called: Vec<&str> = called.lines().map(str::trim).collect();
    assert!(called.contains(&"epoll_wait"), "{called:?}");

    let filter = |set: &str| -> String {
        let output = Command::new("systemd-analyze").args(["syscall-filter", set]).output();
        programs::succeeded(set, &output.unwrap())
    };
    let (mut admitted, mut refused) = (Vec::new(), Vec::new());
    expand(&filter, "@system-service", &mut admitted);
    expand(&filter, "@privileged", &mut refused);
    expand(&filter, "@resources", &mut refused);
    let is_call = |name: &&&str| !["syscall", "total"].contains(*name) && !name.contains('-');
    for name in called.iter().filter(is_call) {
        let name = name.to_string();
        let is_admitted = admitted.contains(&name) && !refused.contains(&name);
        assert!(is_admitted, "the unit does not admit {name}");
    }
}

/// Collects the system calls of a set, with those of the sets that it names.
fn expand(filter: &dyn Fn(&str) -> String, set: &str, into: &mut Vec<String>) {
    for line in filter(set).lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#')) {
        match line.starts_with('@') {
            true => expand(filter, line, into),
            false => into.push(line.to_string()),
        }
    }
}

/// LoadCredential= of the unit puts the file into this folder, readable for the service alone.
#[test]
fn a_credential_of_the_unit_is_the_password() {
    use std::os::unix::fs::PermissionsExt;
    let unit = std::fs::read_to_string(packaging("slabd.service")).unwrap();
    assert!(unit.contains("#LoadCredential=requirepass:"));
    let folder = Scratch::new("credentials");
    let file = folder.0.join("requirepass");
    std::fs::write(&file, "correct horse\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
    let mut command = Command::new(program());
    command.args(["--listen", "hub=127.0.0.1:0"]).env("RUST_LOG", "info");
    command.env("CREDENTIALS_DIRECTORY", &folder.0);
    let mut server = Server::start_by(command);
    let mut client = Client::connect(server.address("hub"));
    client.send("PING\r\n").expect("-NOAUTH Authentication required.\r\n");
    client.send("AUTH \"correct horse\"\r\nPING\r\n").expect("+OK\r\n+PONG\r\n");
    assert!(!server.log().join("\n").contains("other users may read"));
}

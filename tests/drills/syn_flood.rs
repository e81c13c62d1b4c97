//! A SYN flood whose sender never gets an answer, in a network namespace that ends with the test.
//! The test runs its own program again inside the namespace.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::course::{Control, SERVED, judge, p99_holds};
use super::flood::{Attack, Attacker, Sources, Way};
use super::gauge;
use super::honest::{Honest, Probe};
use super::support::{PATIENCE, Server, all_files};

/// The environment variable that is set inside the namespace.
const INSIDE: &str = "SLABD_DRILL_NAMESPACE";
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// The listener's backlog. The kernel keeps one half-open connection more.
const BACKLOG: &str = "128";

/// Returns the reason why this machine cannot run the drill, if there is one.
fn hindrance() -> Option<String> {
    for (program, arguments) in
        [("unshare", ["--net", "true"]), ("nft", ["list", "tables"]), ("ip", ["link", "show"])]
    {
        match Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
        {
            Ok(status) if status.success() => {}
            Ok(_) => {
                return Some(format!("`{program} {}` fails; it needs root", arguments.join(" ")));
            }
            Err(_) => {
                return Some(format!(
                    "{program} is not installed (apt-get install util-linux iproute2 nftables)"
                ));
            }
        }
    }
    None
}

#[test]
fn a_syn_flood_locks_clients_out_only_without_syn_cookies() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Some(reason) = hindrance() {
        println!("SKIPPED a_syn_flood_locks_clients_out_only_without_syn_cookies: {reason}");
        return;
    }
    let _all_files = all_files();
    let program = std::env::current_exe().expect("this program's path");
    let mut command = Command::new("unshare");
    command.args(["--net", "--fork", "--kill-child=KILL", "--"]).arg(program);
    command
        .args([
            "--exact",
            "syn_flood::a_syn_flood_locks_clients_out_only_without_syn_cookies",
            "--nocapture",
        ])
        .env(INSIDE, "1");
    let mut child = command.spawn().expect("unshare runs");
    let deadline = Instant::now() + 2 * PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting works") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("kill works");
            child.wait().expect("waiting works");
            panic!("the drill in the namespace takes too long");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "the drill in the namespace fails: see above");
}

/// Runs the drill inside the namespace, in which even the loopback interface is down.
fn inside() {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip runs");
    assert!(up.success());
    let rules = format!(
        "add table inet drill
         add chain inet drill out {{ type filter hook output priority 0; }}
                  add rule inet drill out ip daddr {ATTACKER} \
                  tcp flags & (syn | ack) == syn | ack counter drop\n"
    );
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft runs");
    nft.stdin.take().expect("its input is piped").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("waiting works").success());
    for cookies in ["1", "0"] {
        flood(cookies);
    }
}

fn flood(cookies: &str) {
    fs::write(COOKIES, cookies).expect("the namespace's settings can be written");
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--backlog", BACKLOG]);
    let (process, address) = (server.process_id(), server.address("hub"));
    let honest = Honest { patience: Duration::from_millis(900), ..Honest::forty(address) };
    let before = honest.run_for(Duration::from_millis(if cookies == "1" { 700 } else { 300 }));
    let idle = busy_share(process);
    let sources = Sources::one(ATTACKER);
    let attack = Attack {
        server: address,
        way: Way::Silent,
        sources,
        burst: 2000,
        rate: Some(2000),
        hold: 15_000,
    };
    let cookies_sent = gauge::network_counter("SyncookiesSent");
    let attacker = Attacker::start(attack);
    assert!(
        attacker.wait_until(PATIENCE, |counts| counts.opened >= 2000),
        "{:?}",
        attacker.counts()
    );
    let busy = busy_share(process);
    let (control, probe) = (Control::start(), Probe::start(honest));
    std::thread::sleep(Duration::from_millis(if cookies == "1" { 2700 } else { 1500 }));
    let (during, control) = (probe.stop(), control.stop());
    let outcome = attacker.stop();
    let after = honest.run_for(Duration::from_millis(if cookies == "1" { 700 } else { 0 }));
    let cookies_sent = gauge::network_counter("SyncookiesSent") - cookies_sent;
    let line = format!(
        "drill SYN flood, tcp_syncookies={cookies}: honest {during}; control {control}; \
         before: {before}; flood: {} connects, {:.0}/s, {} established; {cookies_sent} cookies \
         sent; server busy {:.2} %, idle {:.2} %",
        outcome.counts.opened,
        outcome.opened_per_second(),
        outcome.counts.established,
        100.0 * busy,
        100.0 * idle,
    );
    let unseen = (outcome.counts.established == 0, "no connect of the attacker completes");
    if cookies == "1" {
        let checks = [
            unseen,
            (
                during.percent() >= SERVED && during.turned_away + during.gave_up == 0,
                "every honest client is served",
            ),
            (during.tries() >= 1000, "the honest clients make a thousand tries"),
            p99_holds([&before, &control, &after], &during),
            (busy - idle <= 0.01, "the flood costs the server at most 1 % of a core"),
        ];
        judge(&line, &checks);
    } else {
        judge(
            &line,
            &[unseen, (during.percent() < 50.0, "without cookies, honest clients are locked out")],
        );
    }
}

/// Returns the share of the next half second in which the server runs, without honest clients.
fn busy_share(process: u32) -> f64 {
    let (began, before) = (Instant::now(), gauge::processor_time(process));
    std::thread::sleep(Duration::from_millis(500));
    (gauge::processor_time(process) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

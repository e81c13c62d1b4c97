//! Drills: floods of every kind against the program as people run it, with honest clients before, during and after.
//! Each prints one line of what it measured.
//!
//!     cargo test --test drill_flood -- --nocapture
//!
//! How to read a line: of all honest tries during the flood so many percent were served, and 99 of 100 of those waited
//! no longer than the p99 (thinking not counted). User bytes are what the server grew by at the peak, per connection that it
//! held more than before; the least it can grow by is a page, so of few connections they say little. Kernel bytes are of one end
//! of a connection: its structures, and what waits in its socket. "Back" is how long after the flood hung up all its files
//! were free. Then what the defences counted.
//!
//! No speed is asserted: the machine may be busy with something else. The steady p99, which is the median of the p99 of each
//! half second, may be twice the quiet one (before or after, whichever is longer), or 20 ms.

mod support;

#[path = "support/datagram_flood.rs"]
mod datagram_flood;
#[path = "support/flood.rs"]
mod flood;
#[path = "support/gauge.rs"]
mod gauge;
#[path = "support/honest.rs"]
mod honest;
#[path = "support/syn_flood.rs"]
mod syn_flood;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use datagram_flood::Traffic;
use flood::{Attack, Attacker, Outcome, Sources, Way};
use gauge::{Reading, Watch};
use honest::{Honest, Probe, Tally, milliseconds};
use support::{Server, all_files, run};

/// Below this a p99 says more about what else the machine does than about the server.
const P99_FLOOR: Duration = Duration::from_millis(20);
/// The share of honest clients that has to be served while the eviction age is a second or more.
const SERVED: f64 = 99.9;
/// How late after its deadline a connection may be seen to close here: a tick of the server (16 ms), and this machine's
/// other work.
const LATE: Duration = Duration::from_millis(500);

/// Slots for the silent in the drills; the flood opens ten times as many at once, and then keeps the eviction age above a
/// second.
const SLOTS: usize = 400;
const FLOOD_RATE: u32 = 300;

/// Attackers come from 127.66.0.0 and up.
fn attackers(count: u32) -> Sources {
    Sources { first: Ipv4Addr::new(127, 66, 0, 1), count }
}

/// Panics with a clear text when the program does not have a flag that the drill is about.
fn requires(flag: &str) {
    static HELP: OnceLock<String> = OnceLock::new();
    let help = HELP.get_or_init(|| run(&["serve", "--help"]).1);
    let has = help.split_whitespace().any(|word| word == flag);
    assert!(has, "this drill needs `slabd serve {flag}`, which {} does not have", support::program());
}

/// A server under attack, and what it was like before.
struct Drill {
    name: &'static str,
    server: Server,
    address: SocketAddr,
    admin: SocketAddr,
    honest: Honest,
}

/// What a drill measured.
struct Course {
    before: Tally,
    during: Tally,
    after: Tally,
    outcome: Outcome,
    quiet: Reading,
    peak: Reading,
    /// Kernel bytes per connection while the flood was there.
    kernel: Option<u64>,
    /// From the moment the flood hung up until all its files were free; `None`: not within [`PATIENCE`](support::PATIENCE).
    reclaimed: Option<Duration>,
    /// What the defences counted, by name.
    admission: BTreeMap<String, u64>,
}

impl Drill {
    fn start(name: &'static str, arguments: &[&str]) -> Drill {
        requires("--admin");
        for flag in arguments.iter().filter(|argument| argument.starts_with("--")) {
            requires(flag);
        }
        let fixed = ["--listen", "hub=127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut server = Server::start(&[&fixed, arguments].concat());
        let address = server.address("hub");
        let admin = admin_address(server.log());
        Drill { name, server, address, admin, honest: Honest::forty(address) }
    }

    fn attack(&self, way: Way) -> Attack {
        let (burst, rate) = (10 * SLOTS, Some(FLOOD_RATE));
        Attack { server: self.address, way, sources: attackers(500), burst, rate, hold: 6000 }
    }

    /// Honest clients before, during and after an attack. While they are there, `meanwhile` runs; the attack lasts at least
    /// until then.
    fn run(&self, attack: Attack, meanwhile: impl FnOnce(&Attacker)) -> Course {
        let process = self.server.process_id();
        // What the first connections touch is not what the next ones cost.
        let before = self.honest.run_for(Duration::from_millis(1200));
        let quiet = Reading::of(process);
        let watch = Watch::start(process);
        let attacker = Attacker::start(attack);
        let patience = Duration::from_secs(10);
        assert!(
            attacker.wait_until(patience, |counts| counts.opened >= attack.burst as u64),
            "{:?}",
            attacker.counts()
        );
        let kernel = gauge::kernel_bytes_each(self.address.port());
        let probe = Probe::start(self.honest);
        meanwhile(&attacker);
        let during = probe.stop();
        let mut admission = self.admission();
        let peak = watch.stop();
        let hangs_up = Instant::now();
        let outcome = attacker.stop();
        let is_back = gauge::wait_for_files(process, quiet.files, support::PATIENCE);
        let reclaimed = is_back.then(|| hangs_up.elapsed());
        let after = self.honest.run_for(Duration::from_millis(700));
        admission.retain(|name, count| *count > 0 && !name.starts_with("max"));
        Course { before, during, after, outcome, quiet, peak, kernel, reclaimed, admission }
    }

    /// INFO's section on admission, asked for where the operator asks.
    fn admission(&self) -> BTreeMap<String, u64> {
        let text = ask(self.admin, "INFO admission");
        let rows: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|row| row.split_once(':'))
            .filter_map(|(name, value)| Some((name.to_string(), value.trim().parse().ok()?)))
            .collect();
        assert!(rows.contains_key("silent"), "INFO admission says:\n{text}");
        rows
    }
}

/// Where the operator's listener is, as the log says.
fn admin_address(log: &[String]) -> SocketAddr {
    let lines = log.iter().filter(|line| line.contains("admin"));
    let mut addresses = lines
        .flat_map(|line| line.split_whitespace())
        .filter_map(|word| word.trim_matches(|c: char| !c.is_ascii_digit() && c != '[' && c != ']').parse().ok());
    addresses.next().unwrap_or_else(|| panic!("no address of the admin listener in\n{}", log.join("\n")))
}

/// One command and the text of its answer, a bulk string.
fn ask(address: SocketAddr, command: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, support::PATIENCE).expect("the operator gets in");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
    write!(stream, "{command}\r\nQUIT\r\n").expect("the server takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n").unwrap_or_default();
    let length: usize = head.trim_start_matches('$').parse().unwrap_or_else(|_| panic!("{command}: {answer}"));
    body[..length].to_string()
}

impl Course {
    fn counted(&self, name: &str) -> u64 {
        self.admission.get(name).copied().unwrap_or(0)
    }

    /// How often any defence fired.
    fn acted(&self) -> u64 {
        let rows =
            self.admission.iter().filter(|(name, _)| name.starts_with("refused") || name.starts_with("recycled"));
        rows.map(|(_, count)| count).sum()
    }

    fn to_line(&self, name: &str) -> String {
        let mut line = format!(
            "drill {name}: honest {}; before {:.2} %, p99 {} ms ({} steady); after {:.2} %",
            self.during,
            self.before.percent(),
            milliseconds(self.before.p99()),
            milliseconds(self.before.steady_p99()),
            self.after.percent(),
        );
        let (counts, rate) = (self.outcome.counts, self.outcome.opened_per_second());
        // Writing to a String cannot fail.
        let _ = write!(line, "; flood: {} opened, {rate:.0}/s, {} closed by the server", counts.opened, counts.closed);
        if let Some(user) = self.peak.user_bytes_each(self.quiet) {
            let _ = write!(line, "; at the peak {} held, each {user} B user", self.peak.held_since(self.quiet));
        }
        if let Some(kernel) = self.kernel {
            let _ = write!(line, " and {kernel} B kernel");
        }
        match self.reclaimed {
            Some(time) => _ = write!(line, "; back in {} ms", milliseconds(time)),
            None => line += "; NOT back",
        }
        for (name, count) in &self.admission {
            let _ = write!(line, "; {name} {count}");
        }
        line
    }

    /// Prints the line with the verdict, and panics when anything that must hold does not.
    fn judge(self, name: &str, checks: &[(bool, &str)]) {
        let both = [
            (self.reclaimed.is_some(), "all files are free again"),
            (self.after.percent() >= SERVED, "the honest are served after it"),
        ];
        judge(&self.to_line(name), &[&both, checks].concat());
    }

    fn honest_are_served(&self) -> (bool, &'static str) {
        (self.during.percent() >= SERVED, "99.9 % of the honest are served")
    }

    fn p99_holds(&self) -> (bool, &'static str) {
        p99_holds([&self.before, &self.after], &self.during)
    }

    fn tries_are_enough(&self) -> (bool, &'static str) {
        (self.during.tries() >= 1000, "a thousand honest tries")
    }
}

fn p99_holds(quiet: [&Tally; 2], during: &Tally) -> (bool, &'static str) {
    let quiet = quiet.map(Tally::steady_p99).into_iter().max().unwrap_or_default();
    (during.steady_p99() <= (2 * quiet).max(P99_FLOOR), "the p99 is at most twice the quiet one, or 20 ms")
}

fn judge(line: &str, checks: &[(bool, &str)]) {
    let failed: Vec<&str> = checks.iter().filter(|(holds, _)| !holds).map(|(_, text)| *text).collect();
    if failed.is_empty() {
        println!("{line}; verdict: holds");
    } else {
        println!("{line}; verdict: DOES NOT HOLD: {}", failed.join(", "));
    }
    assert!(failed.is_empty(), "does not hold: {}\n{line}", failed.join(", "));
}

/// Lets the honest try a thousand times.
fn a_while(_: &Attacker) {
    sleep(Duration::from_millis(2700));
}

fn silent_flood(name: &'static str, admission: &str) -> Course {
    let slots = SLOTS.to_string();
    let drill = Drill::start(name, &["--max-silent", &slots, "--admission", admission]);
    drill.run(drill.attack(Way::Silent), a_while)
}

/// Ten times as many as there are slots come in one burst and stay silent; more come after them, so many that a silent
/// connection has more than a second.
#[test]
fn silent_flood_at_ten_times_the_slots() {
    let _all_files = all_files();
    let course = silent_flood("silent flood, recycle", "recycle");
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        (course.outcome.counts.opened >= 10 * SLOTS as u64, "the flood is ten times the slots"),
        (course.counted("recycled") > 0, "the oldest silent connections are recycled"),
        (course.counted("eviction_age_ms") >= 1000, "the eviction age is a second or more"),
        (course.peak.held_since(course.quiet) <= SLOTS as u64 + 100, "the silent keep to their slots"),
    ];
    course.judge("silent flood, recycle", &checks);
}

/// What others do. Only the direction is asserted: it locks the honest out.
#[test]
fn silent_flood_where_the_new_are_refused() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, refuse", "refuse");
}

#[test]
fn silent_flood_where_some_are_dropped_at_random() {
    let _all_files = all_files();
    locks_the_honest_out("silent flood, random-drop", "random-drop");
}

fn locks_the_honest_out(name: &'static str, admission: &str) {
    let course = silent_flood(name, admission);
    let worse = (course.during.percent() < 90.0, "much fewer of the honest are served than by recycling");
    course.judge(name, &[worse]);
}

/// Whatever dribbles in: the deadline of the first message stands.
#[test]
fn slowloris_from_the_first_byte() {
    let _all_files = all_files();
    slowloris("slowloris, first message", false);
}

/// And so does that of a later one.
#[test]
fn slowloris_after_a_whole_message() {
    let _all_files = all_files();
    slowloris("slowloris, later message", true);
}

fn slowloris(name: &'static str, greet: bool) {
    let deadline = Duration::from_secs(2);
    let drill = Drill::start(name, &["--first-message-timeout", "2s", "--message-timeout", "2s"]);
    let way = Way::Slowloris { every: Duration::from_millis(100), greet };
    let attack = Attack { burst: 1000, rate: Some(0), ..drill.attack(way) };
    let course = drill.run(attack, |attacker| {
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 1000 && counts.held == 0);
    });
    let lifetimes = &course.outcome.lifetimes;
    let shortest = lifetimes.iter().min().copied().unwrap_or_default();
    let longest = lifetimes.iter().max().copied().unwrap_or_default();
    let name = format!("{} ({} to {} ms)", drill.name, milliseconds(shortest), milliseconds(longest));
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        (lifetimes.len() == 1000, "all of them are closed"),
        (longest <= deadline + LATE, "closed by the deadline"),
        (shortest + LATE >= deadline, "not closed before the deadline"),
    ];
    course.judge(&name, &checks);
}

/// One address, however fast it comes, locks nobody out.
#[test]
fn one_source_against_the_rest() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill = Drill::start("one source", &["--max-silent", &slots, "--max-silent-per-source", "64"]);
    let sources = Sources::one(Ipv4Addr::new(127, 66, 0, 1));
    let course = drill.run(Attack { sources, rate: Some(2000), ..drill.attack(Way::Silent) }, a_while);
    let checks = [
        course.honest_are_served(),
        course.p99_holds(),
        course.tries_are_enough(),
        // Up to half of the slots anyone may have; from there on only the share of a source.
        (course.peak.held_since(course.quiet) <= SLOTS as u64 / 2 + 100, "it holds no more than half of the slots"),
        (course.acted() > 0, "what it had too many is counted"),
    ];
    course.judge(drill.name, &checks);
}

/// The server stands still for two seconds while 6,000 clients connect and ask. Whoever finds the accept queue full is told
/// nothing by the kernel and tries again by itself.
#[test]
fn accept_burst_after_a_stop() {
    let _all_files = all_files();
    let drill = Drill::start("accept burst after a stop", &[]);
    let before = drill.honest.run_for(Duration::from_millis(1200));
    let overflows = gauge::network_counter("ListenOverflows");
    drill.server.signal("STOP");
    let crowd = Honest {
        sources: Sources { first: Ipv4Addr::new(127, 78, 0, 1), count: 300 },
        at_once: 6000,
        tries: 6000,
        think: Duration::ZERO,
        patience: Duration::from_secs(8),
        ..drill.honest
    };
    let crowd = Probe::start(crowd);
    sleep(Duration::from_secs(2));
    drill.server.signal("CONT");
    let during = crowd.join();
    let overflows = gauge::network_counter("ListenOverflows") - overflows;
    let after = drill.honest.run_for(Duration::from_millis(700));
    let line = format!(
        "drill {}: 6,000 at once: {during}, longest {} ms; {overflows} overflows of the accept queue; before: {before}; after: {after}",
        drill.name,
        milliseconds(during.wait(1.0)),
    );
    let unserved = during.tries() - during.served;
    let checks = [
        (during.tries() == 6000, "all have tried"),
        (unserved <= overflows, "all are served, or counted as overflows"),
        (during.percent() >= SERVED, "in the end nearly all are served"),
        (after.percent() >= SERVED, "the honest are served after it"),
    ];
    judge(&line, &checks);
}

/// Twenty-five thousand connections come and go, half of them in order, half by a reset.
#[test]
fn connection_churn() {
    let _all_files = all_files();
    let drill = Drill::start("connection churn", &[]);
    let attack = Attack { burst: 5000, rate: Some(0), hold: 1000, ..drill.attack(Way::Churn) };
    // The first round touches what the later ones use again.
    drop(drill.run(attack, |attacker| {
        attacker.wait_until(support::PATIENCE, |counts| counts.established == 5000);
    }));
    let first = gauge::resident(drill.server.process_id());
    let course = drill.run(Attack { burst: 20_000, ..attack }, a_while);
    let last = gauge::resident(drill.server.process_id());
    let name = format!("{} (resident {} KiB after 5,000, {} KiB after 25,000)", drill.name, first / 1024, last / 1024);
    let checks = [
        course.honest_are_served(),
        (course.outcome.counts.established == 20_000, "all of them got in"),
        (last as f64 <= 1.25 * first as f64, "memory is back where it was"),
    ];
    course.judge(&name, &checks);
}

/// A defence can be watched before it is let loose.
#[test]
fn dry_run_counts_and_closes_nothing() {
    let _all_files = all_files();
    let slots = SLOTS.to_string();
    let drill = Drill::start("dry run", &["--max-silent", &slots, "--admission-dry-run"]);
    let attack = Attack { burst: 2000, rate: Some(0), ..drill.attack(Way::Silent) };
    let course = drill.run(attack, |_| sleep(Duration::from_secs(1)));
    let checks = [
        course.honest_are_served(),
        (course.outcome.counts.held == 2000 && course.outcome.counts.closed == 0, "nothing is closed"),
        (course.acted() >= 2000 - SLOTS as u64, "what would have been closed is counted"),
    ];
    course.judge(drill.name, &checks);
}

/// Every slot is held by someone who has spoken, so there is nobody to recycle. The operator has a door of their own.
#[test]
fn the_operator_gets_in_when_all_is_full() {
    let _all_files = all_files();
    let drill = Drill::start("operator", &["--max-connections", "300"]);
    let operators = Honest { server: drill.admin, at_once: 4, ..drill.honest };
    let before = operators.run_for(Duration::from_secs(1));
    let attacker = Attacker::start(Attack { burst: 1000, rate: Some(0), ..drill.attack(Way::Idle) });
    assert!(attacker.wait_until(support::PATIENCE, |counts| counts.established == 1000), "{:?}", attacker.counts());
    let outside = Honest { patience: Duration::from_millis(500), ..drill.honest };
    let outside = Probe::start(outside);
    let during = operators.run_for(Duration::from_secs(2));
    let info = ask(drill.admin, "INFO");
    let outside = outside.stop();
    attacker.stop();
    let after = operators.run_for(Duration::from_millis(700));
    let line = format!("drill {}: by the front door {outside}; operators {during}; before: {before}", drill.name);
    let checks = [
        (during.percent() >= 100.0, "every operator is served"),
        p99_holds([&before, &after], &during),
        (info.contains("max_connections:300"), "INFO answers"),
        (outside.percent() < 50.0, "the house is full"),
    ];
    judge(&line, &checks);
}

/// Nobody gets more bytes out of the hub than they put in, so it is of no use against a third. That is checked of twenty
/// thousand datagrams one by one; then a million come in four seconds, and beside them the honest are served.
#[test]
fn datagram_flood_beside_honest_clients() {
    let _all_files = all_files();
    let drill = Drill::start("datagram flood", &[]);
    let address = drill.address;
    let each = datagram_flood::one_by_one(address, 32, 20_000);
    let before = drill.honest.run_for(Duration::from_millis(1200));
    let probe = Probe::start(drill.honest);
    let began = Instant::now();
    let threads =
        [0, 8].map(|network| std::thread::spawn(move || datagram_flood::flood(address, network, 500_000, 125_000)));
    let parts = threads.map(|thread| thread.join().expect("sending does not fail"));
    let lasted = began.elapsed();
    let during = probe.stop();
    let after = drill.honest.run_for(Duration::from_millis(700));
    let sum = |part: fn(&Traffic) -> u64| parts.iter().map(part).sum::<u64>();
    let (sent, received) = (sum(|part| part.sent), sum(|part| part.received));
    let (bytes_in, bytes_out) = (sum(|part| part.bytes_sent), sum(|part| part.bytes_received));
    let line = format!(
        "drill {}: one by one {} datagrams, {} B in, {} answers, {} B out; {sent} at once, {:.0}/s, {bytes_in} B in, \
         {received} answers, {bytes_out} B out; honest {during}; before: {before}; after: {after}",
        drill.name,
        each.sent,
        each.bytes_sent,
        each.received,
        each.bytes_received,
        sent as f64 / lasted.as_secs_f64(),
    );
    let checks = [
        (each.received > 0 && received > 0, "what is a command is answered"),
        (parts.iter().all(|part| part.bytes_received <= part.bytes_sent), "no more bytes out than in"),
        (during.percent() >= SERVED, "99.9 % of the honest are served"),
        p99_holds([&before, &after], &during),
        (after.percent() >= SERVED, "the honest are served after it"),
    ];
    judge(&line, &checks);
}

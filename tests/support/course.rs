//! How a drill goes: a server with the flags that the drill is about, honest clients before, during and after an attack,
//! and one line of what was measured, with a verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::flood::{Attack, Attacker, Outcome, Sources, Way};
use super::gauge::{self, Reading, Watch};
use super::honest::{Honest, Probe, Tally, milliseconds};
use super::support::{self, Server, run};

/// Below this a p99 says more about what else the machine does than about the server.
const P99_FLOOR: Duration = Duration::from_millis(20);
/// The share of honest clients that has to be served while the eviction age is a second or more.
pub const SERVED: f64 = 99.9;
/// Slots for the silent in the drills; the flood opens ten times as many at once, and then keeps the eviction age above a
/// second.
pub const SLOTS: usize = 400;
const FLOOD_RATE: u32 = 300;

/// Attackers come from 127.66.0.0 and up.
pub fn attackers(count: u32) -> Sources {
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
pub struct Drill {
    pub name: &'static str,
    pub server: Server,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub honest: Honest,
}

/// What a drill measured.
pub struct Course {
    pub before: Tally,
    pub during: Tally,
    pub after: Tally,
    pub outcome: Outcome,
    pub quiet: Reading,
    pub peak: Reading,
    /// Kernel bytes per connection while the flood was there.
    pub kernel: Option<u64>,
    /// From the moment the flood hung up until all its files were free; `None`: not within [`PATIENCE`](support::PATIENCE).
    pub reclaimed: Option<Duration>,
    /// What the defences counted, by name.
    pub admission: BTreeMap<String, u64>,
}

impl Drill {
    pub fn start(name: &'static str, arguments: &[&str]) -> Drill {
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

    pub fn attack(&self, way: Way) -> Attack {
        let (burst, rate) = (10 * SLOTS, Some(FLOOD_RATE));
        Attack { server: self.address, way, sources: attackers(500), burst, rate, hold: 6000 }
    }

    /// Honest clients before, during and after an attack. While they are there, `meanwhile` runs; the attack lasts at least
    /// until then.
    pub fn run(&self, attack: Attack, meanwhile: impl FnOnce(&Attacker)) -> Course {
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
pub fn ask(address: SocketAddr, command: &str) -> String {
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
    pub fn counted(&self, name: &str) -> u64 {
        self.admission.get(name).copied().unwrap_or(0)
    }

    /// How often any defence fired.
    pub fn acted(&self) -> u64 {
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
    pub fn judge(self, name: &str, checks: &[(bool, &str)]) {
        let both = [
            (self.reclaimed.is_some(), "all files are free again"),
            (self.after.percent() >= SERVED, "the honest are served after it"),
        ];
        judge(&self.to_line(name), &[&both, checks].concat());
    }

    pub fn honest_are_served(&self) -> (bool, &'static str) {
        (self.during.percent() >= SERVED, "99.9 % of the honest are served")
    }

    pub fn p99_holds(&self) -> (bool, &'static str) {
        p99_holds([&self.before, &self.after], &self.during)
    }

    pub fn tries_are_enough(&self) -> (bool, &'static str) {
        (self.during.tries() >= 1000, "a thousand honest tries")
    }
}

pub fn p99_holds(quiet: [&Tally; 2], during: &Tally) -> (bool, &'static str) {
    let quiet = quiet.map(Tally::steady_p99).into_iter().max().unwrap_or_default();
    (during.steady_p99() <= (2 * quiet).max(P99_FLOOR), "the p99 is at most twice the quiet one, or 20 ms")
}

pub fn judge(line: &str, checks: &[(bool, &str)]) {
    let failed: Vec<&str> = checks.iter().filter(|(holds, _)| !holds).map(|(_, text)| *text).collect();
    if failed.is_empty() {
        println!("{line}; verdict: holds");
    } else {
        println!("{line}; verdict: DOES NOT HOLD: {}", failed.join(", "));
    }
    assert!(failed.is_empty(), "does not hold: {}\n{line}", failed.join(", "));
}

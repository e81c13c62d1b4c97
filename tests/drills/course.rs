//! The course of a drill: a server with the drill's flags, honest clients before, during and after
//! an attack, and one line of measurements with a verdict.

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

/// Below this, a p99 is judged as good. It is far above a quiet p99, and no person notices it.
const P99_FLOOR: Duration = Duration::from_millis(20);
/// Least share of honest tries that must be served, in percent, while the eviction age is a second
/// or more.
pub const SERVED: f64 = 99.9;
/// Slots for silent connections. A flood first opens ten times as many connections.
pub const SLOTS: usize = 400;
/// Connections per second after the burst. The eviction age stays above a second at this rate.
const FLOOD_RATE: u32 = 300;

/// Returns the addresses of the attackers, from 127.66.0.1 up.
pub fn attackers(count: u32) -> Sources {
    Sources { first: Ipv4Addr::new(127, 66, 0, 1), count }
}

/// Panics if the program does not have a flag of the drill.
fn requires(flag: &str) {
    static HELP: OnceLock<String> = OnceLock::new();
    let help = HELP.get_or_init(|| run(&["serve", "--help"]).1);
    let has = help.split_whitespace().any(|word| word == flag);
    assert!(
        has,
        "this drill needs `slabd serve {flag}`, which {} does not have",
        support::program()
    );
}

/// A server that will be attacked, and its honest clients.
pub struct Drill {
    pub name: &'static str,
    pub server: Server,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub honest: Honest,
}

/// A server that nobody attacks, and its honest clients. On a busy machine these wait as well, so
/// their waits show how much of a wait is due to the machine.
pub struct Control {
    _server: Server,
    probe: Probe,
}

impl Control {
    pub fn start() -> Control {
        let server = Server::start(&["--listen", "hub=127.0.0.1:0"]);
        let probe = Probe::start(Honest::forty(server.address("hub")));
        Control { _server: server, probe }
    }

    pub fn stop(self) -> Tally {
        self.probe.stop()
    }
}

/// The measurements of a drill.
pub struct Course {
    pub before: Tally,
    pub during: Tally,
    /// The honest clients of a [`Control`] during the attack.
    pub control: Tally,
    pub after: Tally,
    pub outcome: Outcome,
    /// The server's resources before the attack.
    pub quiet: Reading,
    pub peak: Reading,
    /// Kernel bytes per connection during the flood.
    pub kernel: Option<u64>,
    /// The time from the end of the flood until all its files were closed. `None` if that took
    /// longer than [`PATIENCE`](support::PATIENCE).
    pub reclaimed: Option<Duration>,
    /// The counts of the defences, by name.
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

    /// Runs honest clients before, during and after an attack. `meanwhile` runs during the attack,
    /// and the attack ends after it.
    pub fn run(&self, attack: Attack, meanwhile: impl FnOnce(&Attacker)) -> Course {
        let process = self.server.process_id();
        // The first connections allocate memory that the next ones use again.
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
        let (control, probe) = (Control::start(), Probe::start(self.honest));
        meanwhile(&attacker);
        let (during, control) = (probe.stop(), control.stop());
        let mut admission = self.admission();
        let peak = watch.stop();
        let hangs_up = Instant::now();
        let outcome = attacker.stop();
        let is_back = gauge::wait_for_files(process, quiet.files, support::PATIENCE);
        let reclaimed = is_back.then(|| hangs_up.elapsed());
        let after = self.honest.run_for(Duration::from_millis(700));
        admission.retain(|name, count| *count > 0 && !name.starts_with("max"));
        Course {
            before,
            during,
            control,
            after,
            outcome,
            quiet,
            peak,
            kernel,
            reclaimed,
            admission,
        }
    }

    /// Returns the section "admission" of INFO, from the operator's address.
    fn admission(&self) -> BTreeMap<String, u64> {
        let text = ask(self.admin, "INFO admission");
        let rows: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|row| row.split_once(':'))
            .filter_map(|(name, value)| Some((name.to_string(), value.trim().parse().ok()?)))
            .collect();
        assert!(rows.contains_key("silent"), "INFO admission has no row silent:\n{text}");
        rows
    }
}

/// Returns the operator's address from the log.
fn admin_address(log: &[String]) -> SocketAddr {
    let lines = log.iter().filter(|line| line.contains("admin"));
    let mut addresses = lines.flat_map(|line| line.split_whitespace()).filter_map(|word| {
        word.trim_matches(|c: char| !c.is_ascii_digit() && c != '[' && c != ']').parse().ok()
    });
    addresses
        .next()
        .unwrap_or_else(|| panic!("no address of the admin listener in\n{}", log.join("\n")))
}

/// Sends one command and returns the text of its answer, a bulk string.
pub fn ask(address: SocketAddr, command: &str) -> String {
    let mut stream =
        TcpStream::connect_timeout(&address, support::PATIENCE).expect("the operator can connect");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
    write!(stream, "{command}\r\nQUIT\r\n").expect("the server accepts the command");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    let (head, body) = answer.split_once("\r\n").unwrap_or_default();
    let length: usize =
        head.trim_start_matches('$').parse().unwrap_or_else(|_| panic!("{command}: {answer}"));
    body[..length].to_string()
}

impl Course {
    /// Returns the count of a defence.
    pub fn counted(&self, name: &str) -> u64 {
        self.admission.get(name).copied().unwrap_or(0)
    }

    /// Returns the number of refused and recycled connections.
    pub fn acted(&self) -> u64 {
        let rows = self
            .admission
            .iter()
            .filter(|(name, _)| name.starts_with("refused") || name.starts_with("recycled"));
        rows.map(|(_, count)| count).sum()
    }

    fn to_line(&self, name: &str) -> String {
        let mut line = format!(
            "drill {name}: honest {}; control {}; before {:.2} %, p99 {} ms ({} steady); after \
             {:.2} %",
            self.during,
            self.control,
            self.before.percent(),
            milliseconds(self.before.p99()),
            milliseconds(self.before.steady_p99()),
            self.after.percent(),
        );
        let (counts, rate) = (self.outcome.counts, self.outcome.opened_per_second());
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "; flood: {} opened, {rate:.0}/s, {} closed by the server",
            counts.opened, counts.closed
        );
        if let Some(user) = self.peak.user_bytes_each(self.quiet) {
            let _ = write!(
                line,
                "; at the peak {} held, each {user} B user",
                self.peak.held_since(self.quiet)
            );
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

    /// Prints the line with the verdict, and panics if a check fails.
    pub fn judge(self, name: &str, checks: &[(bool, &str)]) {
        let both = [
            (self.reclaimed.is_some(), "the server closes all files of the flood"),
            (self.after.percent() >= SERVED, "honest clients are served after the flood"),
        ];
        judge(&self.to_line(name), &[&both, checks].concat());
    }

    pub fn honest_are_served(&self) -> (bool, &'static str) {
        (self.during.percent() >= SERVED, "99.9 % of the honest tries are served")
    }

    pub fn p99_holds(&self) -> (bool, &'static str) {
        p99_holds([&self.before, &self.control, &self.after], &self.during)
    }

    pub fn tries_are_enough(&self) -> (bool, &'static str) {
        (self.during.tries() >= 1000, "the honest clients make a thousand tries")
    }
}

/// Checks that the steady p99 is at most twice that without an attack: before it, after it, and at
/// another server during it. A p99 up to [`P99_FLOOR`] holds as well.
pub fn p99_holds(quiet: [&Tally; 3], during: &Tally) -> (bool, &'static str) {
    let quiet = quiet.map(Tally::steady_p99).into_iter().max().unwrap_or_default();
    (
        during.steady_p99() <= (2 * quiet).max(P99_FLOOR),
        "the p99 is at most twice that without an attack, or 20 ms",
    )
}

/// Prints a line with its verdict, and panics if a check fails.
pub fn judge(line: &str, checks: &[(bool, &str)]) {
    let failed: Vec<&str> =
        checks.iter().filter(|(holds, _)| !holds).map(|(_, text)| *text).collect();
    if failed.is_empty() {
        println!("{line}; verdict: holds");
    } else {
        println!("{line}; verdict: DOES NOT HOLD: {}", failed.join(", "));
    }
    assert!(failed.is_empty(), "does not hold: {}\n{line}", failed.join(", "));
}

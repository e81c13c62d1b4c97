//! A drill on a real kernel: a fault or a flood in a network namespace, beside an honest client,
//! and a report at its end.
//!
//! A drill runs its test again inside `unshare --net`. Its addresses, firewall rules and settings
//! end with the namespace. Where namespaces are not allowed, the drill prints SKIPPED and the
//! reason.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, Server, all_files};

/// The environment variable that holds the drill's name inside the namespace.
const INSIDE: &str = "SLABD_DRILL";

/// Runs `body` in a new network namespace. `module` is the `module_path!()` of the calling test,
/// and `test` its name.
pub fn in_namespace(module: &str, test: &str, body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if let Some(why) = cannot() {
        return println!("SKIPPED {test}: {why}");
    }
    // A drill measures, so no other test of this program that takes all files runs beside it.
    let _all_files = all_files();
    let (_, module) = module.split_once("::").expect("a test is in a module of its program");
    let program = std::env::current_exe().expect("a test is a program");
    let inside = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args([&format!("{module}::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("unshare (util-linux) runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = text(&inside.stdout);
    told.lines()
        .filter(|line| line.starts_with("DRILL") || line.starts_with("  "))
        .for_each(|line| println!("{line}"));
    assert!(inside.status.success(), "{test}:\n{told}\n{}", text(&inside.stderr));
    assert!(told.contains("1 passed"), "the program has no test {test}:\n{told}");
}

/// Returns the reason why this machine cannot run drills, if there is one.
fn cannot() -> Option<&'static str> {
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    match () {
        () if !works("unshare", &["--net", "true"]) => Some("a network namespace needs root"),
        () if !works("ip", &["-V"]) => Some("needs ip (iproute2)"),
        () if !works("unshare", &["--net", "nft", "list", "ruleset"]) => {
            Some("needs nft (nftables)")
        }
        () => None,
    }
}

/// Runs a command, and panics if it fails.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The address of the attackers.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// Drops all packets to and from this host where they arrive, so their sender gets no error.
pub fn cut_off(host: Ipv4Addr) {
    let rules = format!(
        "table ip drill {{ chain arriving {{ type filter hook input priority 0\n\
         ip saddr {host} drop\nip daddr {host} drop\n}}\n}}"
    );
    run("nft", &[&rules]);
}

/// Opens `count` connections from a host.
pub fn connect_from(
    host: Ipv4Addr,
    to: SocketAddr,
    count: usize,
    receive_buffer: Option<usize>,
) -> Vec<TcpStream> {
    let connect = |_| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket can be opened");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("a receive buffer can be set");
        }
        socket.bind(&SocketAddr::from((host, 0)).into()).expect("a port is free");
        socket.connect(&to.into()).expect("the server accepts the connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    };
    (0..count).map(connect).collect()
}

/// Counts the sockets of a port in this state. The numbers are those of /proc/net/tcp: 1 is
/// ESTABLISHED, 4 is FIN_WAIT1.
pub fn sockets_in_state(port: u16, state: u8) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let (port, state) = (format!(":{port:04X}"), format!("{state:02X}"));
    let is_one = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(&port) && words[3] == state
    };
    text.lines().filter(is_one).count()
}

/// The state FIN_WAIT1, in which the kernel waits for the acknowledgement of its FIN.
pub const FIN_WAIT1: u8 = 4;

/// The part of the drill in which an honest exchange took place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Before,
    During,
    After,
}

/// The durations of an honest client's exchanges. `None` means no answer within a second.
#[derive(Clone, Default)]
pub struct Samples(Vec<Option<Duration>>);

impl Samples {
    pub fn served(&self) -> usize {
        self.0.iter().flatten().count()
    }

    pub fn success(&self) -> f64 {
        self.served() as f64 / self.0.len().max(1) as f64
    }

    pub fn p99(&self) -> Duration {
        let mut served: Vec<Duration> = self.0.iter().flatten().copied().collect();
        served.sort();
        served.get(served.len() * 99 / 100).or(served.last()).copied().unwrap_or(Duration::MAX)
    }
}

/// An honest client that connects, sends a question, reads the answer and closes, again and again.
struct Probe {
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<[Samples; 3]>,
}

const STOPPED: usize = 3;
const HONEST_PATIENCE: Duration = Duration::from_secs(1);

impl Probe {
    fn start(address: SocketAddr, question: &'static [u8], answer: &'static [u8]) -> Probe {
        let phase = Arc::new(AtomicUsize::new(Phase::Before as usize));
        let present = phase.clone();
        let thread = std::thread::spawn(move || {
            let mut samples: [Samples; 3] = Default::default();
            loop {
                let phase = present.load(Ordering::Relaxed);
                if phase == STOPPED {
                    return samples;
                }
                let started = Instant::now();
                let served = exchange(address, question, answer).is_ok_and(|served| served);
                samples[phase].0.push(served.then(|| started.elapsed()));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Probe { phase, thread }
    }
}

fn exchange(address: SocketAddr, question: &[u8], answer: &[u8]) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, HONEST_PATIENCE)?;
    stream.set_read_timeout(Some(HONEST_PATIENCE))?;
    stream.write_all(question)?;
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got)?;
    Ok(got == answer)
}

/// One drill: a quiet second, the attack, and another quiet second.
pub struct Drill {
    name: &'static str,
    pub server: Server,
    pub address: SocketAddr,
    probe: Probe,
    attackers: usize,
    began: Instant,
    peak_user: u64,
    peak_kernel: u64,
}

impl Drill {
    /// Starts the hub with these arguments and an honest client. Returns after a quiet second.
    pub fn start(name: &'static str, arguments: &[&str]) -> Drill {
        let server = Server::start(&[&["--listen", "hub=127.0.0.1:0"], arguments].concat());
        let address = server.address("hub");
        let probe = Probe::start(address, b"PING\r\n", b"+PONG\r\n");
        std::thread::sleep(Duration::from_secs(1));
        Drill {
            name,
            server,
            address,
            probe,
            attackers: 0,
            began: Instant::now(),
            peak_user: 0,
            peak_kernel: 0,
        }
    }

    /// Marks the beginning of an attack with this number of attackers.
    pub fn attack(&mut self, attackers: usize) {
        self.attackers = attackers;
        self.began = Instant::now();
        self.probe.phase.store(Phase::During as usize, Ordering::Relaxed);
    }

    /// Reads the server's status, and updates the peaks of memory per attacker.
    pub fn look(&mut self) -> HashMap<String, String> {
        let status = self.server.status();
        let row = |start: &str| {
            let found = status.iter().find(|(name, _)| name.starts_with(start));
            found.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let held = row("connections/held").max(1);
        self.peak_user =
            self.peak_user.max(row("user memory, bytes/ledger") / self.attackers.max(1) as u64);
        if held as usize > self.attackers / 2 {
            let each = row("kernel memory, bytes/buffers") + row("kernel memory, bytes/structures");
            self.peak_kernel = self.peak_kernel.max(each);
        }
        status
    }

    /// Waits until the attackers' connections are closed. Returns the time since `since`.
    pub fn until_reclaimed(&mut self, since: Instant) -> Duration {
        loop {
            let held: usize = self.look()["connections/held"].parse().expect("the row is a count");
            // The honest client can have a connection as well.
            if held <= 2 {
                return since.elapsed();
            }
            assert!(since.elapsed() < 2 * PATIENCE, "{held} connections are still held");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the drill after a quiet second, and prints its report. `defences` are rows of the
    /// status.
    pub fn finish(mut self, reclaimed: Duration, defences: &[&str]) -> Report {
        self.probe.phase.store(Phase::After as usize, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        self.probe.phase.store(STOPPED, Ordering::Relaxed);
        let [before, during, after] =
            self.probe.thread.join().expect("the honest client does not panic");
        let status = self.server.status();
        let fired = defences
            .iter()
            .map(|row| (row.to_string(), status[*row].parse().expect("the row is a count")))
            .collect();
        let report = Report {
            name: self.name,
            attackers: self.attackers,
            before,
            during,
            after,
            peak_user: self.peak_user,
            peak_kernel: self.peak_kernel,
            reclaimed,
            fired,
        };
        println!("\n{report}\n");
        report
    }
}

/// The result of a drill.
pub struct Report {
    pub name: &'static str,
    pub attackers: usize,
    pub before: Samples,
    pub during: Samples,
    pub after: Samples,
    /// The peak of the server's memory per attacker, in bytes.
    pub peak_user: u64,
    /// The peak of the kernel's structures and buffers per connection, in bytes.
    pub peak_kernel: u64,
    /// The time until the attackers' connections were closed.
    pub reclaimed: Duration,
    /// The rows of the status that count the defences.
    pub fired: Vec<(String, u64)>,
}

impl Report {
    /// Returns the count of a defence.
    pub fn fired(&self, row: &str) -> u64 {
        self.fired.iter().find(|(name, _)| name == row).map_or(0, |(_, count)| *count)
    }

    /// True if 99.9 % of the honest exchanges succeeded, and their p99 at most doubled. A p99 below
    /// 20 ms always passes, because it depends more on the machine than on the server.
    pub fn held(&self) -> bool {
        let floor = Duration::from_millis(20);
        let served = [&self.before, &self.during, &self.after]
            .iter()
            .all(|samples| samples.success() >= 0.999);
        served && self.during.p99() <= floor.max(2 * self.before.p99())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "DRILL {}, {} attackers", self.name, self.attackers)?;
        write!(f, "  honest success    ")?;
        for (when, samples) in
            [("before", &self.before), ("during", &self.during), ("after", &self.after)]
        {
            write!(f, " {when} {:.1} % of {}", 100.0 * samples.success(), samples.0.len())?;
        }
        writeln!(
            f,
            "\n  p99                before {:.1?}, during {:.1?}",
            self.before.p99(),
            self.during.p99()
        )?;
        writeln!(
            f,
            "  peak per attacker  {} bytes user, {} bytes kernel",
            self.peak_user, self.peak_kernel
        )?;
        writeln!(f, "  time to reclaim    {:.1} s", self.reclaimed.as_secs_f64())?;
        let fired: Vec<String> =
            self.fired.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "  fired              {}", fired.join(", "))?;
        write!(f, "  verdict            {}", if self.held() { "held" } else { "NOT HELD" })
    }
}

//! Shared by the drills: faults and floods on a real kernel, in a network namespace of their own, beside an honest client that goes
//! on being served; and what a drill tells at its end.
//!
//! A drill runs the test anew inside `unshare --net`. What it does to addresses, firewall and settings ends with it. Where that is not
//! allowed, it says SKIPPED and why.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, Server};

/// Set in the process that is inside the namespace, to the drill's name.
const INSIDE: &str = "SLABD_DRILL";

/// Runs `body` in a network namespace of its own. `test` is the name of the calling test function.
pub fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if let Some(why) = cannot() {
        return println!("SKIPPED {test}: {why}");
    }
    // One at a time: they measure.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let program = std::env::current_exe().expect("a test is a program");
    let inside = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("unshare (util-linux) runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = text(&inside.stdout);
    told.lines().filter(|line| line.starts_with("DRILL") || line.starts_with("  ")).for_each(|line| println!("{line}"));
    assert!(inside.status.success(), "{test}:\n{told}\n{}", text(&inside.stderr));
    assert!(told.contains("1 passed"), "{test} is no test:\n{told}");
}

/// Why this machine cannot run drills.
fn cannot() -> Option<&'static str> {
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    match () {
        () if !works("unshare", &["--net", "true"]) => Some("needs to be root, to make a network namespace"),
        () if !works("ip", &["-V"]) => Some("needs ip (iproute2)"),
        () if !works("unshare", &["--net", "nft", "list", "ruleset"]) => Some("needs nft (nftables)"),
        () => None,
    }
}

/// Runs a command that must work.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The host that the attackers are; to be cut off.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// From now on nothing reaches this host, and nothing comes from it. Dropped where packets arrive: the sender notices nothing.
pub fn cut_off(host: Ipv4Addr) {
    let rules = format!(
        "table ip drill {{ chain arriving {{ type filter hook input priority 0\nip saddr {host} drop\nip daddr {host} drop\n}}\n}}"
    );
    run("nft", &[&rules]);
}

/// Connections from a host, as many as asked.
pub fn connect_from(host: Ipv4Addr, to: SocketAddr, count: usize, receive_buffer: Option<usize>) -> Vec<TcpStream> {
    let connect = |_| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("a receive buffer can be set");
        }
        socket.bind(&SocketAddr::from((host, 0)).into()).expect("a port is free");
        socket.connect(&to.into()).expect("the server accepts");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    };
    (0..count).map(connect).collect()
}

/// Sockets of a port by the kernel's state, from /proc/net/tcp: 1 is ESTABLISHED, 4 FIN_WAIT1.
pub fn sockets_in_state(port: u16, state: u8) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let (port, state) = (format!(":{port:04X}"), format!("{state:02X}"));
    let is_one = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(&port) && words[3] == state
    };
    text.lines().filter(is_one).count()
}

pub const FIN_WAIT1: u8 = 4;

/// When an honest exchange took place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Before,
    During,
    After,
}

/// Exchanges of an honest client: how long each took; `None`: it was not served within a second.
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

/// Connects, asks, and closes, some hundred times a second.
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

/// One drill, from quiet through the attack to quiet.
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
    /// Starts the hub with these arguments, and an honest client beside it; returns after a second of quiet.
    pub fn start(name: &'static str, arguments: &[&str]) -> Drill {
        let server = Server::start(&[&["--listen", "hub=127.0.0.1:0"], arguments].concat());
        let address = server.address("hub");
        let probe = Probe::start(address, b"PING\r\n", b"+PONG\r\n");
        std::thread::sleep(Duration::from_secs(1));
        Drill { name, server, address, probe, attackers: 0, began: Instant::now(), peak_user: 0, peak_kernel: 0 }
    }

    /// The attack begins, of so many.
    pub fn attack(&mut self, attackers: usize) {
        self.attackers = attackers;
        self.began = Instant::now();
        self.probe.phase.store(Phase::During as usize, Ordering::Relaxed);
    }

    /// Looks at what they take up now.
    pub fn look(&mut self) -> HashMap<String, String> {
        let status = self.server.status();
        let row = |start: &str| {
            let found = status.iter().find(|(name, _)| name.starts_with(start));
            found.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let held = row("connections/held").max(1);
        self.peak_user = self.peak_user.max(row("user memory, bytes/ledger") / self.attackers.max(1) as u64);
        if held as usize > self.attackers / 2 {
            let each = row("kernel memory, bytes/buffers") + row("kernel memory, bytes/structures");
            self.peak_kernel = self.peak_kernel.max(each);
        }
        status
    }

    /// Waits until the attackers' connections are gone; how long after `since`.
    pub fn until_reclaimed(&mut self, since: Instant) -> Duration {
        loop {
            let held: usize = self.look()["connections/held"].parse().expect("a count");
            // The honest client's own is among them at times.
            if held <= 2 {
                return since.elapsed();
            }
            assert!(since.elapsed() < 2 * PATIENCE, "{held} connections are still held");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end: a second of quiet, then what came of it. `defences` are rows of the status.
    pub fn finish(mut self, reclaimed: Duration, defences: &[&str]) -> Report {
        self.probe.phase.store(Phase::After as usize, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        self.probe.phase.store(STOPPED, Ordering::Relaxed);
        let [before, during, after] = self.probe.thread.join().expect("the honest client does not panic");
        let status = self.server.status();
        let fired = defences.iter().map(|row| (row.to_string(), status[*row].parse().expect("a count"))).collect();
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

/// What a drill tells.
pub struct Report {
    pub name: &'static str,
    pub attackers: usize,
    pub before: Samples,
    pub during: Samples,
    pub after: Samples,
    /// Per attacker, in bytes; of the kernel's, structures and buffers.
    pub peak_user: u64,
    pub peak_kernel: u64,
    pub reclaimed: Duration,
    pub fired: Vec<(String, u64)>,
}

impl Report {
    /// How often a defence fired.
    pub fn fired(&self, row: &str) -> u64 {
        self.fired.iter().find(|(name, _)| name == row).map_or(0, |(_, count)| *count)
    }

    /// Honest clients were served, at most twice as late as before. Below 20 ms it is the machine that is measured, not the server.
    pub fn held(&self) -> bool {
        let floor = Duration::from_millis(20);
        let served = [&self.before, &self.during, &self.after].iter().all(|samples| samples.success() >= 0.999);
        served && self.during.p99() <= floor.max(2 * self.before.p99())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "DRILL {}, {} attackers", self.name, self.attackers)?;
        write!(f, "  honest success    ")?;
        for (when, samples) in [("before", &self.before), ("during", &self.during), ("after", &self.after)] {
            write!(f, " {when} {:.1} % of {}", 100.0 * samples.success(), samples.0.len())?;
        }
        writeln!(f, "\n  p99                before {:.1?}, during {:.1?}", self.before.p99(), self.during.p99())?;
        writeln!(f, "  peak per attacker  {} bytes user, {} bytes kernel", self.peak_user, self.peak_kernel)?;
        writeln!(f, "  time to reclaim    {:.1} s", self.reclaimed.as_secs_f64())?;
        let fired: Vec<String> = self.fired.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "  fired              {}", fired.join(", "))?;
        write!(f, "  verdict            {}", if self.held() { "held" } else { "NOT HELD" })
    }
}

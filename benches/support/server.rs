//! The servers under measurement. Each starts on the servers' core, is read through /proc, and is
//! killed by its process id when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{ALL_CORES, CLIENT_CORE, SERVER_CORE, can_pin};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Nanoseconds per unit of utime and stime in /proc/PID/stat. USER_HZ is 100 on every Linux
/// (proc(5)).
const TICK_NANOS: u64 = 10_000_000;

const ECHO_SOURCE: &str = include_str!("../floor/echo.c");
const UDP_SOURCE: &str = include_str!("../floor/udp.c");

/// Settings of slabd by which it keeps idle connections.
const AT_REST: [&str; 8] = [
    "--idle-timeout",
    "0",
    "--first-message-timeout",
    "0",
    "--max-silent",
    "65535",
    "--max-silent-per-source",
    "65535",
];

/// A running server.
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killing fails if the server has already ended. Waiting reaps it in both cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts slabd with one service and no deadlines, so idle connections stay open.
    pub fn slabd(service: &str, arguments: &[&str]) -> Result<Server> {
        Server::start_slabd(service, &AT_REST, arguments)
    }

    /// Starts slabd's hub without deadlines, and without the pings and comments that it sends to
    /// idle clients of the web.
    pub fn slabd_for_web() -> Result<Server> {
        let mut quiet = vec!["--ping-interval", "0", "--event-interval", "0"];
        quiet.extend(["--socketio-ping-interval", "1d"]);
        Server::start_slabd("hub", &[&AT_REST[..], &quiet[..]].concat(), &[])
    }

    /// Starts slabd with one service and its default deadlines.
    pub fn slabd_with_deadlines(service: &str, arguments: &[&str]) -> Result<Server> {
        Server::start_slabd(service, &[], arguments)
    }

    /// Starts a slabd that shares its port with others, and may run on any core.
    pub fn slabd_on_all_cores(address: &str) -> Result<Server> {
        let mut command = on_core(ALL_CORES, slabd_program());
        command.args(["serve", "--reuse-port", "--listen", &format!("hub={address}")]);
        command.env("RUST_LOG", "info");
        Server::start_logging(format!("slabd at {address}"), command, "listening on")
    }

    fn start_slabd(service: &str, deadlines: &[&str], arguments: &[&str]) -> Result<Server> {
        let mut command = on_server_core(slabd_program());
        command.args(["serve", "--listen", &format!("{service}=127.0.0.1:0")]);
        command.args(deadlines).args(arguments).env("RUST_LOG", "info");
        let name = format!("slabd {service} {}", arguments.join(" ")).trim_end().to_string();
        Server::start_logging(name, command, "listening on")
    }

    /// Starts the minimal TCP echo in C.
    pub fn floor_echo() -> Result<Server> {
        let mut command = on_server_core(compile("echo", ECHO_SOURCE)?);
        command.arg("0");
        Server::start_logging("C epoll floor".into(), command, "ready")
    }

    /// Starts the minimal TCP echo in C, edge-triggered as slabd is.
    pub fn floor_echo_edge() -> Result<Server> {
        let mut command = on_server_core(compile("echo-edge", ECHO_SOURCE)?);
        command.args(["0", "edge"]);
        Server::start_logging("C epoll floor, edge".into(), command, "ready")
    }

    /// Starts the minimal TCP echo in C, which waits for room when a socket is full.
    pub fn floor_echo_waiting() -> Result<Server> {
        let mut command = on_server_core(compile("echo-wait", ECHO_SOURCE)?);
        command.args(["0", "wait"]);
        Server::start_logging("C epoll floor, waiting".into(), command, "ready")
    }

    /// Starts the minimal UDP echo in C.
    pub fn floor_udp() -> Result<Server> {
        let mut command = on_server_core(compile("udp", UDP_SOURCE)?);
        command.arg("0");
        Server::start_logging("C recvmmsg floor".into(), command, "ready")
    }

    /// Starts Debian's Redis without persistence. Returns `None` if it is not installed.
    pub fn redis() -> Result<Option<Server>> {
        Server::redis_for(19_000)
    }

    /// Starts Redis for at most `clients` clients.
    pub fn redis_for(clients: u64) -> Result<Option<Server>> {
        if !check_installed("redis-server", "redis-server") {
            return Ok(None);
        }
        let address = free_address()?;
        let mut command = on_server_core("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--tcp-backlog", "4096"]);
        command.args(["--maxclients", &clients.to_string()]);
        // Protected mode accepts only 127.0.0.1 of all loopback addresses. The server listens only
        // on loopback.
        command.args(["--protected-mode", "no"]).arg("--dir").arg(scratch()?);
        Server::start_listening("redis-server".into(), command, address).map(Some)
    }

    /// Starts uWebSockets from npm under Node.js. Returns `None` if Node.js is not installed.
    pub fn uwebsockets() -> Result<Option<Server>> {
        Server::node_peer("uWebSockets", "uwebsockets.js")
    }

    /// Starts Socket.IO's own server from npm under Node.js. Returns `None` if Node.js is not
    /// installed.
    pub fn socketio() -> Result<Option<Server>> {
        Server::node_peer("socket.io", "socketio_server.mjs")
    }

    fn node_peer(name: &str, program: &str) -> Result<Option<Server>> {
        if !(check_installed("node", "nodejs") && check_installed("npm", "npm")) {
            return Ok(None);
        }
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let mut command = on_server_core("node");
        command.arg(peers.join(program)).env("NODE_PATH", install_peers(&peers)?);
        Server::start_logging(name.into(), command, "ready").map(Some)
    }

    /// Starts Debian's memcached with one worker thread. Returns `None` if it is not installed.
    pub fn memcached() -> Result<Option<Server>> {
        Server::memcached_for(20_000)
    }

    /// Starts memcached for at most `connections` connections.
    pub fn memcached_for(connections: u64) -> Result<Option<Server>> {
        if !check_installed("memcached", "memcached") {
            return Ok(None);
        }
        let address = free_address()?;
        let mut command = on_server_core("memcached");
        // Run by root, memcached requires a user.
        command.args(["-u", "root", "-t", "1", "-b", "4096", "-U", "0", "-l", "127.0.0.1"]);
        command.args(["-c", &connections.to_string(), "-p", &address.port().to_string()]);
        Server::start_listening("memcached -t 1".into(), command, address).map(Some)
    }

    /// Starts Debian's nginx as one process that keeps connections alive. Returns `None` if it is
    /// not installed.
    pub fn nginx() -> Result<Option<Server>> {
        Server::nginx_for(19_900)
    }

    /// Starts nginx for at most `connections` connections, including its listening sockets.
    pub fn nginx_for(connections: u64) -> Result<Option<Server>> {
        Server::nginx_with(connections, 1_000_000_000)
    }

    /// Starts nginx that closes each connection after so many requests, as `keepalive_requests` of
    /// older versions did after 100.
    pub fn nginx_with(connections: u64, requests: u64) -> Result<Option<Server>> {
        if !check_installed("nginx", "nginx") {
            return Ok(None);
        }
        let address = free_address()?;
        let prefix = scratch()?.join("nginx");
        fs::create_dir_all(&prefix)?;
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
             worker_rlimit_nofile 20000;
             events {{ worker_connections {connections}; }}
             http {{
                 access_log off; keepalive_timeout 1d; keepalive_requests {requests};
                 client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;
                 uwsgi_temp_path t; scgi_temp_path t;
                 server {{
                     listen {address} backlog=4096;
                     location / {{ return 200 \"hello\\n\"; }}
                     location = /healthz {{
                         default_type application/json; return 200 '{{\"status\":\"ok\"}}\n';
                     }}
                 }}
             }}"
        );
        fs::write(prefix.join("nginx.conf"), configuration)?;
        let mut command = on_server_core("nginx");
        command.arg("-p").arg(&prefix).args(["-e", "error.log", "-c", "nginx.conf"]);
        Server::start_listening("nginx keep-alive".into(), command, address).map(Some)
    }

    /// Starts a server that prints its address in a line with `announcement`.
    fn start_logging(name: String, command: Command, announcement: &str) -> Result<Server> {
        let (child, log) = spawn(&name, command)?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Server { name, address: nowhere, child };
        let address = server
            .until_started(&log, || Ok(find_address(&fs::read_to_string(&log)?, announcement)))?;
        server.address = address;
        Ok(server)
    }

    /// Starts a server with a given address, and waits until it listens.
    fn start_listening(name: String, command: Command, address: SocketAddr) -> Result<Server> {
        let (child, log) = spawn(&name, command)?;
        let mut server = Server { name, address, child };
        server
            .until_started(&log, || Ok(TcpStream::connect_timeout(&address, START_TIMEOUT).ok()))?;
        // Gives the server time to close the connection of the attempt.
        sleep(Duration::from_millis(100));
        Ok(server)
    }

    fn until_started<T>(
        &mut self,
        log: &Path,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + START_TIMEOUT;
        let said = || fs::read_to_string(log).unwrap_or_default();
        loop {
            if let Some(found) = probe()? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}); its output:\n{}", self.name, said());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is not ready within {START_TIMEOUT:?}; its output:\n{}",
                self.name,
                said()
            );
            sleep(Duration::from_millis(10));
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the processor time used so far. It is exact only while the server is idle.
    pub fn cpu(&self) -> Result<Cpu> {
        sleep(Duration::from_millis(5));
        Cpu::read(self.child.id())
    }

    /// Returns the resident memory in bytes.
    ///
    /// The source is smaps_rollup, which walks the page tables. The kernel counts statm and VmRSS
    /// per core, so they can be wrong by some hundred KiB, which is many bytes per connection.
    pub fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .with_context(|| path.clone())?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Returns the number of files that the server has open. It shows from outside how many
    /// connections the server has accepted and closed.
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.child.id());
        match fs::metadata(&path)?.len() {
            // Before Linux 6.2 the folder has no count. Listing it costs the kernel an inode per
            // file, which shows in the results of `memory`.
            0 => Ok(fs::read_dir(&path)?.count()),
            files => Ok(files as usize),
        }
    }

    /// Waits until the number of the server's open files is enough.
    pub fn until_open_files(&self, enough: impl Fn(usize) -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let files = self.open_files()?;
            if enough(files) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} still has {files} open files", self.name);
            sleep(Duration::from_millis(2));
        }
    }
}

/// The processor time of a process with all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Exact time in nanoseconds, counted by the scheduler (schedstat).
    pub nanos: u64,
    /// User time in ticks of 10 ms, sampled by the timer interrupt (stat). Only sums over seconds
    /// are meaningful: after 10 s of work, a user share of 6 % is known within about a tenth.
    pub user_ticks: u64,
    /// System time in the same ticks.
    pub system_ticks: u64,
    /// Number of times that the process went to sleep.
    pub sleeps: u64,
}

impl Cpu {
    /// Returns the processor time that a process has used.
    pub fn read(process: u32) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?.path();
            let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            cpu.nanos += schedstat
                .split(' ')
                .next()
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0);
            let status = fs::read_to_string(task.join("status"))?;
            let sleeps =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            cpu.sleeps += sleeps.context("voluntary_ctxt_switches")?.trim().parse::<u64>()?;
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field is the name, in parentheses, with any characters. utime and stime are
        // fields 14 and 15.
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        (cpu.user_ticks, cpu.system_ticks) = (fields[11].parse()?, fields[12].parse()?);
        if cpu.nanos == 0 {
            // A kernel without CONFIG_SCHED_INFO counts only ticks.
            cpu.nanos = (cpu.user_ticks + cpu.system_ticks) * TICK_NANOS;
        }
        Ok(cpu)
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            nanos: self.nanos - earlier.nanos,
            user_ticks: self.user_ticks - earlier.user_ticks,
            system_ticks: self.system_ticks - earlier.system_ticks,
            sleeps: self.sleeps - earlier.sleeps,
        }
    }

    pub fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            nanos: self.nanos + other.nanos,
            user_ticks: self.user_ticks + other.user_ticks,
            system_ticks: self.system_ticks + other.system_ticks,
            sleeps: self.sleeps + other.sleeps,
        }
    }

    /// Returns the share of user time, from 0 to 1.
    pub fn user_share(self) -> f64 {
        self.user_ticks as f64 / (self.user_ticks + self.system_ticks).max(1) as f64
    }
}

pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Returns true if a program is installed. Otherwise prints how to install it.
pub fn check_installed(program: &str, package: &str) -> bool {
    let installed = is_installed(program);
    if !installed {
        println!("SKIPPED {program}: not installed (apt-get install {package})\n");
    }
    installed
}

/// Prints the versions of slabd and of these programs, as far as they are installed.
pub fn print_versions(programs: &[&str]) -> Result<()> {
    let slabd = slabd_program();
    let installed = programs.iter().filter(|program| is_installed(program)).map(OsStr::new);
    for program in [slabd.as_os_str()].into_iter().chain(installed) {
        let is_short = ["nginx", "memcached", "wrk"].iter().any(|short| program == *short);
        let output = Command::new(program)
            .arg(if is_short { "-v" } else { "--version" })
            .output()
            .with_context(|| program.display().to_string())?;
        let said = [output.stdout, output.stderr].concat();
        let name = Path::new(program).file_name().unwrap_or_default().display();
        println!("{name}: {}", String::from_utf8_lossy(&said).lines().next().unwrap_or_default());
    }
    println!();
    Ok(())
}

/// Returns the program that is measured as slabd: SLABD_PROGRAM, for example a build of an earlier
/// version, or the program that cargo has just built.
fn slabd_program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_slabd").into();
    std::env::var_os("SLABD_PROGRAM").map_or_else(built, PathBuf::from)
}

/// Installs the servers from npm, unless an earlier run has installed the same. Returns their
/// folder.
fn install_peers(source: &Path) -> Result<PathBuf> {
    const LOCK: &str = "package-lock.json";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let installed = folder.join("installed");
    let wanted = fs::read(source.join(LOCK))?;
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        fs::create_dir_all(&folder)?;
        for name in ["package.json", LOCK] {
            fs::copy(source.join(name), folder.join(name))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix"]).arg(&folder);
        ensure!(npm.status().context("cannot start npm")?.success(), "npm ci failed");
        fs::write(installed, wanted)?;
    }
    Ok(folder.join("node_modules"))
}

/// Returns a command that runs on the servers' core. The kernel kills it when this process ends.
fn on_server_core(program: impl AsRef<OsStr>) -> Command {
    on_core(SERVER_CORE, program)
}

/// Returns a command that runs on the clients' core. The kernel kills it when this process ends.
pub(super) fn on_client_core(program: impl AsRef<OsStr>) -> Command {
    on_core(CLIENT_CORE, program)
}

fn on_core(core: &str, program: impl AsRef<OsStr>) -> Command {
    if !can_pin() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    if is_installed("setpriv") {
        command.args(["setpriv", "--pdeathsig", "KILL"]);
    }
    command.arg(program);
    command
}

/// Starts a command with its output in a file, because a full pipe would block it. Returns the
/// file.
pub(super) fn spawn(name: &str, mut command: Command) -> Result<(Child, PathBuf)> {
    let file_name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = scratch()?.join(format!("{file_name}.log"));
    let log = File::create(&path)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    Ok((child, path))
}

/// Returns the address in the line with `announcement`, written as an address or as a port of
/// 127.0.0.1.
fn find_address(log: &str, announcement: &str) -> Option<SocketAddr> {
    // The last line may be incomplete.
    let line = log
        .split_inclusive('\n')
        .find(|line| line.ends_with('\n') && line.contains(announcement))?;
    let (_, after) = line.split_once(announcement)?;
    after.split_whitespace().find_map(|word| {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        word.parse().ok().or_else(|| word.parse().ok().map(local))
    })
}

/// Returns an address with a port that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns the folder for logs, compiled floors and files of servers, inside cargo's target folder.
/// Each run has a different folder, so two runs do not disturb each other.
fn scratch() -> Result<PathBuf> {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{SCRATCH}{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(path)
}

const SCRATCH: &str = "bench-";

/// Removes the folders of earlier runs.
pub fn clean_up() -> Result<()> {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let run = name.strip_prefix(SCRATCH).filter(|process| process.parse::<u32>().is_ok());
        if run.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn compile(name: &str, source: &str) -> Result<PathBuf> {
    let program = scratch()?.join(name);
    let mut compiler = Command::new("cc")
        .args(["-O2", "-x", "c", "-o"])
        .arg(&program)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start cc; install it with apt-get install gcc libc6-dev")?;
    compiler.stdin.take().context("cc has no standard input")?.write_all(source.as_bytes())?;
    ensure!(compiler.wait()?.success(), "cc failed on {name}.c");
    Ok(program)
}

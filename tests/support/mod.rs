//! A server process, and clients whose waits end after a while. All tests on real sockets use them.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod drill;
pub mod hub_answers;
pub mod load_run;
pub mod programs;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait of a test. It is long enough for a busy machine; a test that reaches it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the path of the program under test: `SLABD_PROGRAM` if it is set, else cargo's build.
pub fn program() -> String {
    std::env::var("SLABD_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_slabd").into())
}

/// A process that is killed at the end of its test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server process with its log. Dropping it kills the process.
pub struct Server {
    child: Child,
    log: Receiver<String>,
    lines: Vec<String>,
    addresses: Vec<(String, SocketAddr)>,
}

impl Server {
    /// Starts `slabd serve` with these arguments, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_with_log_level("info", arguments)
    }

    /// Starts `slabd serve` with this value of `RUST_LOG`, and waits until it is ready.
    pub fn start_with_log_level(level: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(program());
        command.arg("serve").args(arguments).env("RUST_LOG", level);
        Server::start_by(command)
    }

    /// Starts `slabd serve` with these arguments under `prlimit` with the limit, such as
    /// `--as=50331648`, and waits until it is ready.
    pub fn start_with_limit(limit: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new("prlimit");
        command.args([limit, &program(), "serve"]).args(arguments).env("RUST_LOG", "info");
        Server::start_by(command)
    }

    /// Starts a server by this command, and waits until it is ready.
    pub fn start_by(mut command: Command) -> Server {
        command.stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program()));
        let stderr = BufReader::new(child.stderr.take().expect("its log is piped"));
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut server = Server { child, log, lines: Vec::new(), addresses: Vec::new() };
        server.wait_for_log("ready:");
        let listening = server.lines.iter().filter_map(|line| line.split("listening on ").nth(1));
        server.addresses = listening
            .map(|rest| {
                let mut words = rest.split(' ');
                let service = words.next().expect("the line has a service").to_string();
                (service, words.next().expect("an address").parse().expect("an address"))
            })
            .collect();
        server
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address of a service.
    pub fn address(&self, service: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(name, _)| name == service);
        found.unwrap_or_else(|| panic!("{service} in {:?}", self.addresses)).1
    }

    /// Returns the addresses of all services, in the order of `--listen`.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|(_, address)| *address).collect()
    }

    /// Waits for a new log line that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.lines.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no {text:?} in the log:\n{}", self.lines.join("\n")),
            }
        }
    }

    /// Returns all log lines so far.
    pub fn log(&mut self) -> &[String] {
        self.lines.extend(self.log.try_iter());
        &self.lines
    }

    /// Sends a signal to the process. The name is without SIG, such as TERM.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Requests the status table and returns its rows by name. The row "open" of the section
    /// "connections" has the name "connections/open".
    pub fn status(&mut self) -> HashMap<String, String> {
        self.signal("USR1");
        self.wait_for_log("status:");
        let (mut rows, mut section) = (HashMap::new(), String::new());
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect("the log has the whole status");
            let indent = line.len() - line.trim_start().len();
            let text = line.trim();
            self.lines.push(line.clone());
            if indent <= 6 {
                section = text.to_string();
            } else if let Some((name, value)) = text.rsplit_once(' ') {
                rows.insert(format!("{section}/{}", name.trim()), value.to_string());
            }
            if section == "datagrams" && text.starts_with("errors") {
                return rows;
            }
        }
    }

    /// Returns one number of the status table.
    pub fn count(&mut self, row: &str) -> u64 {
        let status = self.status();
        let value = status.get(row).unwrap_or_else(|| panic!("no row {row:?} in {status:?}"));
        value.parse().unwrap_or_else(|_| panic!("{row} is {value}"))
    }

    /// Waits until a number of the status table meets the condition, and returns the number.
    pub fn wait_for_count(&mut self, row: &str, condition: impl Fn(u64) -> bool) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count = self.count(row);
            if condition(count) {
                return count;
            }
            assert!(Instant::now() < deadline, "{row} stays {count}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the process exits.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting works") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not exit; its log:\n{}",
                self.log().join("\n")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill works");
        self.child.wait().expect("waiting works");
    }

    /// Returns the resident set of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = std::fs::read_to_string(path).expect("the process runs");
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .expect("the file has a line Rss");
        line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") * 1024
    }

    /// Returns the number of open files of the process.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the process runs")
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP client. Its reads and writes fail after [`PATIENCE`].
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server accepts the connection");
        Client::from(stream)
    }

    /// Connects from 127.0.0.`source`. Tests with many connections use several sources, because one
    /// address has too few ports.
    pub fn connect_from(source: u8, address: SocketAddr) -> std::io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        socket.connect(&address.into())?;
        Ok(Client::from(TcpStream::from(socket)))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.0.write_all(bytes.as_ref()).expect("the server accepts the bytes");
        self
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let expected = bytes.as_ref();
        let mut got = vec![0; expected.len()];
        let mut length = 0;
        while length < got.len() {
            match self.0.read(&mut got[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) => {
                    panic!("{error} after {:?}", got[..length].escape_ascii().to_string())
                }
            }
        }
        assert_eq!(got[..length].escape_ascii().to_string(), expected.escape_ascii().to_string());
        self
    }

    /// Reads one line and returns it without its ending.
    pub fn read_line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != [b'\n'] {
            self.0.read_exact(&mut byte).expect("the server sends a line");
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).trim_end().to_string()
    }

    /// Checks that the server closes the connection with a FIN and sends nothing before that.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("the server sends a FIN and no reset");
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    /// Checks that the server resets the connection and sends nothing before that.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let mut rest = Vec::new();
        let ended = self.0.read_to_end(&mut rest).map_err(|error| error.kind());
        assert_eq!((ended, &rest[..]), (Err(std::io::ErrorKind::ConnectionReset), &b""[..]));
    }

    /// Reads until the end of the stream and returns the bytes.
    pub fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Sends without reading until the server has stopped reading and the kernel's buffers are
    /// full. Returns the number of bytes sent.
    pub fn stuff(&mut self) -> usize {
        self.0.set_nonblocking(true).expect("nonblocking can be set");
        let deadline = Instant::now() + PATIENCE;
        let (mut sent, mut refused) = (0, 0);
        while refused < 20 {
            assert!(Instant::now() < deadline, "the server never stops reading");
            match self.0.write(&[b'x'; 65_536]) {
                Ok(count) => (sent, refused) = (sent + count, 0),
                Err(_) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        self.0.set_nonblocking(false).expect("blocking can be set");
        sent
    }

    /// Sends a FIN and keeps reading.
    pub fn shutdown(&mut self) -> &mut Client {
        self.0.shutdown(Shutdown::Write).expect("shutdown works");
        self
    }

    /// Resets the connection.
    pub fn reset(self) {
        socket2::SockRef::from(&self.0)
            .set_linger(Some(Duration::ZERO))
            .expect("linger can be set");
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Client(stream)
    }
}

/// Returns a UDP socket that is connected to the server's address.
pub fn datagrams(server: SocketAddr) -> UdpSocket {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).expect("a port is free");
    socket.connect(server).expect("connect works");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    socket
}

/// Sends one datagram and returns the answer.
pub fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).expect("sending works");
    let mut answer = vec![0; 70_000];
    let length = socket.recv(&mut answer).expect("the server answers");
    answer.truncate(length);
    answer
}

/// Runs the program until it exits. Returns its exit code, standard output and standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Raises the limit of open files to the maximum, for tests with many clients. The guard lets one
/// such test run at a time, because the tests of a process share its limit.
pub fn all_files() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let limit = slabd::sys::raise_file_limit().expect("the limit can be read");
    assert!(limit >= 19_000, "these tests need 20,000 open files; `ulimit -Hn` says {limit}");
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

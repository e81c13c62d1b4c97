//! Shared by the tests on real sockets: a server process, and clients that never wait for ever.

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

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test: the build that `tests/run` names, else cargo's own.
pub fn program() -> String {
    std::env::var("SLABD_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_slabd").into())
}

/// A server process with its log. Ends with the test.
pub struct Server {
    child: Child,
    log: Receiver<String>,
    lines: Vec<String>,
    addresses: Vec<(String, SocketAddr)>,
}

impl Server {
    /// Starts `slabd serve` with these arguments, and waits until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_with_log_level("info", arguments)
    }

    pub fn start_with_log_level(level: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(program());
        command.arg("serve").args(arguments).env("RUST_LOG", level).stderr(Stdio::piped()).stdin(Stdio::null());
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
                let service = words.next().expect("a service").to_string();
                (service, words.next().expect("an address").parse().expect("an address"))
            })
            .collect();
        server
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Where a service listens.
    pub fn address(&self, service: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(name, _)| name == service);
        found.unwrap_or_else(|| panic!("{service} in {:?}", self.addresses)).1
    }

    /// Every service and its address, in the order given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|(_, address)| *address).collect()
    }

    /// The first log line from now on that contains `text`.
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

    /// Everything logged so far.
    pub fn log(&mut self) -> &[String] {
        self.lines.extend(self.log.try_iter());
        &self.lines
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Asks for the status table; its rows by name. A row "open" of section "connections" is "connections/open".
    pub fn status(&mut self) -> HashMap<String, String> {
        self.signal("USR1");
        self.wait_for_log("status:");
        let (mut rows, mut section) = (HashMap::new(), String::new());
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect("the rest of the status");
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

    /// One number of the status table.
    pub fn count(&mut self, row: &str) -> u64 {
        let status = self.status();
        let value = status.get(row).unwrap_or_else(|| panic!("no row {row:?} in {status:?}"));
        value.parse().unwrap_or_else(|_| panic!("{row} is {value}"))
    }

    /// Waits until a number of the status table fulfils a condition.
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

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting works") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end; its log:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it without a chance to say goodbye.
    pub fn kill(mut self) {
        self.child.kill().expect("kill works");
        self.child.wait().expect("waiting works");
    }

    /// Resident set in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = std::fs::read_to_string(path).expect("the process lives");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a resident set");
        line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") * 1024
    }

    /// Open files.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process lives").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP client whose reads and writes give up in time.
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server accepts");
        Client::from(stream)
    }

    /// From 127.0.0.`source`, so that many connections do not run out of ports.
    pub fn connect_from(source: u8, address: SocketAddr) -> std::io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        socket.connect(&address.into())?;
        Ok(Client::from(TcpStream::from(socket)))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.0.write_all(bytes.as_ref()).expect("the server takes it");
        self
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let expected = bytes.as_ref();
        let mut got = vec![0; expected.len()];
        let mut length = 0;
        while length < got.len() {
            match self.0.read(&mut got[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) => panic!("{error} after {:?}", got[..length].escape_ascii().to_string()),
            }
        }
        assert_eq!(got[..length].escape_ascii().to_string(), expected.escape_ascii().to_string());
        self
    }

    /// The stream ends here, in order.
    #[track_caller]
    /// One line, without its ending.
    pub fn read_line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != [b'\n'] {
            self.0.read_exact(&mut byte).expect("a line");
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).trim_end().to_string()
    }

    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an end in order, not a reset");
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    /// The stream is broken off here, by a reset.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let mut rest = Vec::new();
        let ended = self.0.read_to_end(&mut rest).map_err(|error| error.kind());
        assert_eq!((ended, &rest[..]), (Err(std::io::ErrorKind::ConnectionReset), &b""[..]));
    }

    /// Everything until the end.
    pub fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Sends and never reads, until nobody takes any more: the server has stopped reading, and the kernel's buffers are
    /// full. How many bytes that were.
    pub fn stuff(&mut self) -> usize {
        self.0.set_nonblocking(true).expect("nonblocking can be set");
        let deadline = Instant::now() + PATIENCE;
        let (mut sent, mut refused) = (0, 0);
        while refused < 20 {
            assert!(Instant::now() < deadline, "the server reads without end");
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

    pub fn shutdown(&mut self) -> &mut Client {
        self.0.shutdown(Shutdown::Write).expect("shutdown works");
        self
    }

    /// Closes by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).expect("linger can be set");
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

/// A UDP client connected to a server's address.
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
    let length = socket.recv(&mut answer).expect("an answer");
    answer.truncate(length);
    answer
}

/// Runs the program to its end: exit code, standard output and standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program()).args(arguments).stdin(Stdio::null()).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// As many open files as this process is allowed, for tests with many clients. Tests of one process share them, so the guard lets
/// one at a time have them.
pub fn all_files() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let limit = slabd::sys::raise_file_limit().expect("the limit can be read");
    assert!(limit >= 19_000, "these tests need 20,000 open files; `ulimit -Hn` says {limit}");
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

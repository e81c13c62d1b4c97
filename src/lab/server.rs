//! The server of an experiment: the running program as a child process, with its log, counters and
//! memory.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, bail, ensure};

use super::client::{self, PATIENCE};
use crate::clock::{Clock, Time};
use crate::memory;
use crate::sys;

/// Number of log lines kept for the error message when the server does not start.
const LINES_KEPT: usize = 5;

/// A `slabd serve` as a child process. Dropping the value kills the child and reaps it. If this
/// process dies first, the kernel kills the child.
pub struct ServerProcess {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
    /// The connection for INFO, opened by the first query and kept.
    control: Option<BufReader<TcpStream>>,
}

impl ServerProcess {
    /// Starts a server with these arguments and waits until it is ready. The server also gets an
    /// operator's listener, so it answers INFO with any set of services and even when it is full.
    pub fn start(arguments: &[&str]) -> Result<ServerProcess> {
        ServerProcess::launch(
            Command::new(THIS_PROGRAM).args(["serve", "--admin", "127.0.0.1:0"]).args(arguments),
        )
    }

    /// Starts a server that may open at most `files` files. It has no operator's listener, so its
    /// hub must answer INFO.
    pub fn start_with_files(files: u64, arguments: &[&str]) -> Result<ServerProcess> {
        let mut command = Command::new(THIS_PROGRAM);
        sys::limit_files(&mut command, files);
        ServerProcess::launch(command.arg("serve").args(arguments))
    }

    fn launch(command: &mut Command) -> Result<ServerProcess> {
        sys::end_with_parent(command);
        command
            .arg0("slabd")
            .env("RUST_LOG", "info")
            .env_remove("SLABD_REQUIREPASS")
            .env_remove("CREDENTIALS_DIRECTORY");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start a server")?;
        let log = child.stderr.take().map(follow);
        // From here on, every error drops this value and so ends the child.
        let mut server = ServerProcess { child, addresses: Vec::new(), control: None };
        server.wait_until_ready(&log.context("the server has no log")?)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, log: &Receiver<String>) -> Result<()> {
        let clock = Clock::start();
        let mut last = VecDeque::new();
        loop {
            let left = PATIENCE.saturating_sub(clock.now().since(Time::ZERO));
            let Ok(line) = log.recv_timeout(left) else {
                let lines: Vec<String> = last.into();
                bail!("the server does not start; its log ends with: {}", lines.join("; "));
            };
            if line.contains("] ready:") {
                return Ok(());
            }
            if let Some(listening) = listening(&line) {
                self.addresses.push(listening);
            }
            if last.len() == LINES_KEPT {
                last.pop_front();
            }
            last.push_back(line);
        }
    }

    /// Returns the address at which a service listens, by TCP and by UDP.
    pub fn address(&self, service: &str) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(name, _)| name == service);
        Ok(found
            .with_context(|| format!("the server's log does not name the address of {service}"))?
            .1)
    }

    /// Returns the server's resident set in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        memory::resident_bytes_of(self.child.id()).context("cannot read the server's resident set")
    }

    /// Returns the number of files that the server has open.
    pub fn open_files(&self) -> Result<u64> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .context("cannot count the server's open files")?;
        Ok(files.count() as u64)
    }

    /// Asks the server for its counters, by INFO.
    pub fn info(&mut self) -> Result<Info> {
        self.ask_info().context("the server does not answer INFO")
    }

    fn ask_info(&mut self) -> Result<Info> {
        if self.control.is_none() {
            let address = self.address("admin").or_else(|_| self.address("hub"))?;
            self.control = Some(BufReader::new(client::connect(Ipv4Addr::LOCALHOST, address)?));
        }
        let stream = self.control.as_mut().context("the connection for INFO is missing")?;
        stream.get_mut().write_all(b"INFO\r\n")?;
        let mut head = String::new();
        stream.read_line(&mut head)?;
        let length = head.trim_end().strip_prefix('$').and_then(|length| length.parse().ok());
        let length: usize =
            length.with_context(|| format!("its answer begins with {:?}", head.trim_end()))?;
        let mut text = vec![0; length + 2];
        stream.read_exact(&mut text)?;
        Ok(Info::parse(&String::from_utf8_lossy(&text)))
    }

    /// Stops the process (SIGSTOP) and waits until it has stopped. The kernel goes on receiving for
    /// it.
    pub fn freeze(&self) -> Result<()> {
        sys::signal(&self.child, sys::SIGSTOP)?;
        client::wait_until(PATIENCE, "the server does not stop on SIGSTOP", || {
            Ok(self.state() == Some('T'))
        })
    }

    /// Resumes a stopped process (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        Ok(sys::signal(&self.child, sys::SIGCONT)?)
    }

    /// Returns the letter of the process state (proc(5)). The field before it is in parentheses and
    /// may contain any character.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Ends the server by SIGTERM or SIGKILL and waits for its exit. Fails if its exit status does
    /// not fit the signal.
    pub fn end(mut self, signal: i32) -> Result<()> {
        sys::signal(&self.child, signal)?;
        client::wait_until(2 * PATIENCE, "the server does not exit after the signal", || {
            let Some(status) = self.child.try_wait()? else { return Ok(false) };
            let in_order =
                if signal == sys::SIGTERM { status.success() } else { status.signal().is_some() };
            ensure!(in_order, "the server exited with an unexpected status: {status}");
            Ok(true)
        })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both calls fail only for a child that was already reaped. Such a child needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The running program. The link works even after the program's file was replaced.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Reads the log to its end, so the server never blocks on a full pipe.
fn follow(log: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || pass_on(log, &sender));
    lines
}

fn pass_on(log: ChildStderr, lines: &Sender<String>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        // The receiver is gone once the server is ready. The log must still be read.
        let _ = lines.send(line);
    }
}

/// Returns the service and the address from a log line `… listening on hub 127.0.0.1:9999 (…`.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let (service, rest) = line.split_once("] listening on ")?.1.split_once(' ')?;
    Some((service.into(), rest.split(' ').next()?.parse().ok()?))
}

/// The values of one INFO reply by `section/name`.
pub struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &str) -> Info {
        let (mut values, mut section) = (HashMap::new(), "");
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("# ") {
                section = title;
            } else if let Some((name, value)) = line.split_once(':') {
                values.insert(format!("{section}/{name}"), value.to_string());
            }
        }
        Info(values)
    }

    /// Returns a number by its name, such as `loop/turns`. Fails if the reply does not have it.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.0.get(name).with_context(|| format!("the server's INFO has no {name}"))?;
        value
            .parse()
            .with_context(|| format!("the server's {name} is \"{value}\", not a whole number"))
    }

    /// Returns a number that not every system reports, or `None`.
    pub fn number_if_reported(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// Returns the growth of a counter since an earlier reply.
    pub fn growth(&self, earlier: &Info, name: &str) -> Result<u64> {
        Ok(self.number(name)?.saturating_sub(earlier.number(name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_its_log_line() {
        let line = "[2026-11-21T19:00:33Z INFO  slabd::daemon] listening on hub 127.0.0.1:7999 \
                    (tcp+udp); try: nc";
        assert_eq!(listening(line), Some(("hub".into(), "127.0.0.1:7999".parse().unwrap())));
        for other in [
            "",
            "] listening on hub",
            "] listening on hub nowhere (tcp)",
            "listening to hub 127.0.0.1:1 (tcp)",
        ] {
            assert_eq!(listening(other), None, "{other}");
        }
    }

    #[test]
    fn a_counter_is_read_by_section_and_a_missing_one_is_named() {
        let info =
            Info::parse("# loop\r\nturns:7\r\nevents_per_turn:1.00\r\n\r\n# datagrams\r\nin:3\r\n");
        let earlier = Info::parse("# loop\r\nturns:5\r\n");
        assert_eq!(info.number("loop/turns").unwrap(), 7);
        assert_eq!(info.growth(&earlier, "loop/turns").unwrap(), 2);
        assert!(
            info.growth(&earlier, "datagrams/in").unwrap_err().to_string().contains("datagrams/in")
        );
        assert!(info.number("loop/events_per_turn").is_err());
        assert_eq!(
            (info.number_if_reported("datagrams/in"), info.number_if_reported("loop/in")),
            (Some(3), None)
        );
    }
}

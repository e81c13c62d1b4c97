//! The server of an experiment: this very program as a child process, and what it and the system tell of it.

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

/// Log lines kept, to be shown when the server does not start.
const LINES_KEPT: usize = 5;

/// A `slabd serve` of our own. It is killed and waited for when this value goes, and by the kernel should this process die first.
pub struct ServerProcess {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
    /// Where INFO is asked; connected at the first question, and kept.
    control: Option<BufReader<TcpStream>>,
}

impl ServerProcess {
    /// Starts a server with these arguments and waits until it is ready. The operator's own listener comes with it, so that it can be
    /// asked whatever its services are and however full it is.
    pub fn start(arguments: &[&str]) -> Result<ServerProcess> {
        ServerProcess::launch(Command::new(THIS_PROGRAM).args(["serve", "--admin", "127.0.0.1:0"]).args(arguments))
    }

    /// The same, of a server that may open so many files only, and has no listener but those named. It is asked by its hub.
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
        // From here on the child is ended whatever goes wrong.
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
                bail!("the server does not start; the end of its log: {}", lines.join("; "));
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

    /// Where a service listens, by TCP and UDP.
    pub fn address(&self, service: &str) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(name, _)| name == service);
        Ok(found.with_context(|| format!("the server does not say where {service} is"))?.1)
    }

    /// Resident set in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        memory::resident_bytes_of(self.child.id()).context("the server's resident set cannot be read")
    }

    pub fn open_files(&self) -> Result<u64> {
        let files =
            fs::read_dir(format!("/proc/{}/fd", self.child.id())).context("the server's files cannot be counted")?;
        Ok(files.count() as u64)
    }

    /// The server's own counters.
    pub fn info(&mut self) -> Result<Info> {
        self.ask_info().context("the server does not tell its counters")
    }

    fn ask_info(&mut self) -> Result<Info> {
        if self.control.is_none() {
            let address = self.address("admin").or_else(|_| self.address("hub"))?;
            self.control = Some(BufReader::new(client::connect(Ipv4Addr::LOCALHOST, address)?));
        }
        let stream = self.control.as_mut().context("no connection")?;
        stream.get_mut().write_all(b"INFO\r\n")?;
        let mut head = String::new();
        stream.read_line(&mut head)?;
        let length = head.trim_end().strip_prefix('$').and_then(|length| length.parse().ok());
        let length: usize = length.with_context(|| format!("it answers {:?}", head.trim_end()))?;
        let mut text = vec![0; length + 2];
        stream.read_exact(&mut text)?;
        Ok(Info::parse(&String::from_utf8_lossy(&text)))
    }

    /// Stops the process as it stands (SIGSTOP), and waits until it has. The kernel goes on receiving for it.
    pub fn freeze(&self) -> Result<()> {
        sys::signal(&self.child, sys::SIGSTOP)?;
        client::wait_until(PATIENCE, "the server cannot be stopped", || Ok(self.state() == Some('T')))
    }

    pub fn thaw(&self) -> Result<()> {
        Ok(sys::signal(&self.child, sys::SIGCONT)?)
    }

    /// The letter of its state, proc(5). The second field is in parentheses and may hold anything.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Ends it by a signal, SIGTERM or SIGKILL, and waits until it is gone.
    pub fn end(mut self, signal: i32) -> Result<()> {
        sys::signal(&self.child, signal)?;
        client::wait_until(2 * PATIENCE, "the server does not end", || {
            let Some(status) = self.child.try_wait()? else { return Ok(false) };
            let in_order = if signal == sys::SIGTERM { status.success() } else { status.signal().is_some() };
            ensure!(in_order, "the server ended otherwise than asked: {status}");
            Ok(true)
        })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Neither fails of a child that has not been waited for, and of one that has nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that runs, even where its file has been replaced meanwhile: the child finds it by its own copy of this link.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Reads the log to its end, so that the server never waits for somebody to read it.
fn follow(log: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || pass_on(log, &sender));
    lines
}

fn pass_on(log: ChildStderr, lines: &Sender<String>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        // Nobody listens any more once the server is ready; what it writes is read all the same.
        let _ = lines.send(line);
    }
}

/// Service and address of a line `… listening on hub 127.0.0.1:9999 (tcp+udp); …`.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let (service, rest) = line.split_once("] listening on ")?.1.split_once(' ')?;
    Some((service.into(), rest.split(' ').next()?.parse().ok()?))
}

/// What INFO told: numbers by `section/name`.
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

    /// A number by its name: `loop/turns`.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.0.get(name).with_context(|| format!("the server does not tell {name}"))?;
        value.parse().with_context(|| format!("the server's {name} is {value}"))
    }

    /// One that is not told everywhere.
    pub fn number_if_told(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// By how much a counter has grown since an earlier look.
    pub fn growth(&self, earlier: &Info, name: &str) -> Result<u64> {
        Ok(self.number(name)?.saturating_sub(earlier.number(name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_log() {
        let line = "[2026-11-21T19:00:33Z INFO  slabd::daemon] listening on hub 127.0.0.1:7999 (tcp+udp); try: nc";
        assert_eq!(listening(line), Some(("hub".into(), "127.0.0.1:7999".parse().unwrap())));
        for other in
            ["", "] listening on hub", "] listening on hub nowhere (tcp)", "listening to hub 127.0.0.1:1 (tcp)"]
        {
            assert_eq!(listening(other), None, "{other}");
        }
    }

    #[test]
    fn counters_are_read_by_section_and_what_is_missing_is_named() {
        let info = Info::parse("# loop\r\nturns:7\r\nevents_per_turn:1.00\r\n\r\n# datagrams\r\nin:3\r\n");
        let earlier = Info::parse("# loop\r\nturns:5\r\n");
        assert_eq!(info.number("loop/turns").unwrap(), 7);
        assert_eq!(info.growth(&earlier, "loop/turns").unwrap(), 2);
        assert!(info.growth(&earlier, "datagrams/in").unwrap_err().to_string().contains("datagrams/in"));
        assert!(info.number("loop/events_per_turn").is_err());
        assert_eq!((info.number_if_told("datagrams/in"), info.number_if_told("loop/in")), (Some(3), None));
    }
}

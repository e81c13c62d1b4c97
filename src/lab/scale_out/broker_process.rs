//! The broker of the experiment: redis-server if it is installed, else a slabd.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::client::{self, PATIENCE};
use crate::lab::server::THIS_PROGRAM;
use crate::sys;

/// A broker as a child process, which ends with the value.
pub struct BrokerProcess {
    is_redis: bool,
    address: SocketAddr,
    child: Child,
}

impl BrokerProcess {
    /// Starts a broker, and waits until it listens.
    pub fn start() -> Result<BrokerProcess> {
        // The kernel gives out free ports in turn, so the port stays free for a while.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        let address = free.local_addr()?;
        drop(free);
        let (is_redis, child) = match spawn(true, address) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (false, spawn(false, address)),
            started => (true, started),
        };
        let child = child.context("cannot start a broker")?;
        let broker = BrokerProcess { is_redis, address, child };
        broker.wait_until_it_listens()?;
        Ok(broker)
    }

    pub fn name(&self) -> &'static str {
        if self.is_redis { "redis-server" } else { "slabd" }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot end the broker")?;
        self.child.wait().context("cannot wait for the broker")?;
        Ok(())
    }

    /// Starts the broker again at its address.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(self.is_redis, self.address).context("cannot start the broker again")?;
        self.wait_until_it_listens()
    }

    /// Stops the process (SIGSTOP). The kernel goes on receiving for it.
    pub fn freeze(&self) -> Result<()> {
        Ok(sys::signal(&self.child, sys::SIGSTOP)?)
    }

    /// Resumes the process (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        Ok(sys::signal(&self.child, sys::SIGCONT)?)
    }

    fn wait_until_it_listens(&self) -> Result<()> {
        client::wait_until(PATIENCE, "the broker does not listen", || {
            Ok(TcpStream::connect(self.address).is_ok())
        })
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // Both calls fail only for a child that was already reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(is_redis: bool, address: SocketAddr) -> io::Result<Child> {
    let port = address.port().to_string();
    let listen = format!("hub={address}");
    let (program, arguments) = match is_redis {
        true => ("redis-server", vec!["--port", &port, "--bind", "127.0.0.1", "--save", ""]),
        false => (THIS_PROGRAM, vec!["serve", "--listen", &listen]),
    };
    let mut command = Command::new(program);
    sys::end_with_parent(&mut command);
    command.args(arguments).env("RUST_LOG", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

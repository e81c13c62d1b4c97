//! An attacker: it opens connections from many addresses, as fast as it can or at a given rate. It
//! has one thread and nonblocking sockets. All its addresses, and the server's, must be in
//! 127.0.0.0/8, so it attacks only this machine.

#![allow(dead_code, reason = "tests and benchmarks each use their own part")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

/// Number of connections opened between two polls. It is small, so resets are noticed in time.
const OPENS_AT_ONCE: usize = 64;
/// Longest wait for an event. The stop flag is checked at least this often.
const PAUSE: Duration = Duration::from_millis(2);

/// Name of the attacker's thread.
pub const THREAD: &str = "flood";

/// A range of source addresses, used in turn.
#[derive(Clone, Copy)]
pub struct Sources {
    pub first: Ipv4Addr,
    pub count: u32,
}

impl Sources {
    pub fn one(address: Ipv4Addr) -> Sources {
        Sources { first: address, count: 1 }
    }

    pub fn address(&self, index: u64) -> Ipv4Addr {
        let offset = (index % u64::from(self.count.max(1))) as u32;
        Ipv4Addr::from(u32::from(self.first) + offset)
    }
}

/// Begins a nonblocking connect from this address.
pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> io::Result<mio::net::TcpStream> {
    assert!(server.ip().is_loopback() && source.is_loopback(), "floods stay on this machine");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(TcpStream::from(socket)))
}

/// The attacker's behaviour on each connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Sends nothing.
    Silent,
    /// Sends a byte at each interval and never completes a message. With `greet`, one whole message
    /// comes first.
    Slowloris { every: Duration, greet: bool },
    /// Sends one whole message and nothing more.
    Idle,
    /// Closes each connection at once, every second one with a reset.
    Churn,
}

#[derive(Clone, Copy)]
pub struct Attack {
    pub server: SocketAddr,
    pub way: Way,
    pub sources: Sources,
    /// Number of connections opened first, as fast as possible.
    pub burst: usize,
    /// Connections per second after the burst. `None` is as fast as possible, `Some(0)` is none.
    pub rate: Option<u32>,
    /// Maximum number of open connections. At the maximum, the attacker waits until the server
    /// closes some.
    pub hold: usize,
}

/// The attacker's counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connects that the attacker has begun.
    pub opened: u64,
    /// Connects that the server's kernel has completed.
    pub established: u64,
    /// Connections that the server has closed.
    pub closed: u64,
    /// Connects that have failed.
    pub failed: u64,
    /// Connections that are open now.
    pub held: u64,
}

/// The result of an attack.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub counts: Counts,
    pub lasted: Duration,
    /// Lifetime of each connection that the server has closed. It begins with the connect, or with
    /// the first byte after the whole message of a slowloris.
    pub lifetimes: Vec<Duration>,
}

impl Outcome {
    pub fn opened_per_second(&self) -> f64 {
        self.counts.opened as f64 / self.lasted.as_secs_f64()
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    opened: AtomicU64,
    established: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    held: AtomicU64,
}

impl Shared {
    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            opened: read(&self.opened),
            established: read(&self.established),
            closed: read(&self.closed),
            failed: read(&self.failed),
            held: read(&self.held),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A running attack. Stopping or dropping it ends the attack.
pub struct Attacker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Attacker {
    pub fn start(attack: Attack) -> Attacker {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(THREAD.into());
        let thread = thread
            .spawn(move || Flood::new(attack, theirs).run())
            .expect("a thread can be started");
        Attacker { shared, thread: Some(thread) }
    }

    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Waits until the counts meet the condition. Returns false after `patience`.
    pub fn wait_until(&self, patience: Duration, so: impl Fn(Counts) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !so(self.counts()) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Ends the attack. The attacker's open connections are reset.
    pub fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("the attack is stopped once");
        thread.join().expect("the attacker does not fail")
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection of the attacker.
struct Captive {
    stream: mio::net::TcpStream,
    number: u64,
    since: Instant,
    established: bool,
    /// Bytes sent of the unfinished message.
    dripped: usize,
}

struct Flood {
    attack: Attack,
    shared: Arc<Shared>,
    poll: Poll,
    captives: Slab<Captive>,
    began: Instant,
    /// The end of the burst, from which the rate counts.
    paced_since: Option<Instant>,
    drip_due: Instant,
    /// The earliest time of the next connect, after one failed because the attacker lacked a file
    /// or a port.
    retry_at: Instant,
    lifetimes: Vec<Duration>,
}

const MESSAGE: &[u8] = b"PING\r\n";
/// The beginning of a long inline command.
const DRIPS: &[u8] = b"PING ";

impl Flood {
    fn new(attack: Attack, shared: Arc<Shared>) -> Flood {
        let now = Instant::now();
        Flood {
            attack,
            shared,
            poll: Poll::new().expect("epoll can be opened"),
            captives: Slab::with_capacity(attack.hold),
            began: now,
            paced_since: None,
            drip_due: now,
            retry_at: now,
            lifetimes: Vec::new(),
        }
    }

    fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(1024);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let opened = self.open_some();
            let wait = if opened == OPENS_AT_ONCE { Duration::ZERO } else { PAUSE };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("epoll: {error}"),
            }
            for event in &events {
                self.notice(event.token().0);
            }
            self.drip();
            self.shared.held.store(self.captives.len() as u64, Ordering::Relaxed);
        }
        Outcome {
            counts: self.shared.counts(),
            lasted: self.began.elapsed(),
            lifetimes: self.lifetimes,
        }
    }

    /// Returns the number of connects that are due now.
    fn due(&mut self) -> usize {
        let opened = self.shared.opened.load(Ordering::Relaxed) as usize;
        let burst = self.attack.burst;
        if opened < burst {
            return burst - opened;
        }
        let Some(rate) = self.attack.rate else { return usize::MAX };
        let since = *self.paced_since.get_or_insert_with(Instant::now);
        let paced = (since.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        (burst + paced).saturating_sub(opened)
    }

    fn open_some(&mut self) -> usize {
        if Instant::now() < self.retry_at {
            return 0;
        }
        let room = self.attack.hold.saturating_sub(self.captives.len());
        let wanted = self.due().min(room).min(OPENS_AT_ONCE);
        for opened in 0..wanted {
            if let Err(error) = self.open_one() {
                let own = [
                    libc::EADDRNOTAVAIL,
                    libc::EADDRINUSE,
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::EAGAIN,
                ];
                assert!(
                    error.raw_os_error().is_some_and(|code| own.contains(&code)),
                    "connecting: {error}"
                );
                count(&self.shared.failed);
                self.retry_at = Instant::now() + Duration::from_millis(20);
                return opened;
            }
        }
        wanted
    }

    fn open_one(&mut self) -> io::Result<()> {
        let number = self.shared.opened.load(Ordering::Relaxed);
        let mut stream = connect_from(self.attack.sources.address(number), self.attack.server)?;
        let orderly = self.attack.way == Way::Churn && number.is_multiple_of(2);
        if !orderly {
            // A reset leaves no socket in TIME-WAIT.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        let entry = self.captives.vacant_entry();
        self.poll.registry().register(
            &mut stream,
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Captive {
            stream,
            number,
            since: Instant::now(),
            established: false,
            dripped: 0,
        });
        count(&self.shared.opened);
        Ok(())
    }

    /// Handles an event of a connection.
    fn notice(&mut self, key: usize) {
        let Some(captive) = self.captives.get_mut(key) else { return };
        if !captive.established {
            match establishment(&captive.stream) {
                Ok(false) => return,
                Ok(true) => {
                    captive.established = true;
                    count(&self.shared.established);
                    if !self.begin(key) {
                        self.captives.remove(key);
                        return;
                    }
                }
                // The server accepted and reset the connection before this thread ran.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    count(&self.shared.established);
                    return self.lose(key);
                }
                Err(_) => {
                    count(&self.shared.failed);
                    self.captives.remove(key);
                    return;
                }
            }
        }
        let captive = &mut self.captives[key];
        let mut chunk = [0; 512];
        loop {
            match captive.stream.read(&mut chunk) {
                Ok(0) => return self.lose(key),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(key),
            }
        }
    }

    /// Starts the behaviour on a new connection. Returns false if the connection must close now.
    fn begin(&mut self, key: usize) -> bool {
        let captive = &mut self.captives[key];
        match self.attack.way {
            Way::Silent | Way::Slowloris { greet: false, .. } => true,
            Way::Idle | Way::Slowloris { .. } => {
                // If the write fails, the next read shows the reset.
                let _ = captive.stream.write_all(MESSAGE);
                true
            }
            Way::Churn => false,
        }
    }

    /// Removes a connection that the server has closed.
    fn lose(&mut self, key: usize) {
        let captive = self.captives.remove(key);
        count(&self.shared.closed);
        self.lifetimes.push(captive.since.elapsed());
    }

    /// Sends one byte on every connection if the interval has passed.
    fn drip(&mut self) {
        let Way::Slowloris { every, greet } = self.attack.way else { return };
        let now = Instant::now();
        if now < self.drip_due {
            return;
        }
        self.drip_due = now + every;
        let mut lost = Vec::new();
        for (key, captive) in &mut self.captives {
            if !captive.established {
                continue;
            }
            if greet && captive.dripped == 0 {
                captive.since = now;
            }
            let byte = DRIPS.get(captive.dripped).copied().unwrap_or(b'x');
            match captive.stream.write(&[byte]) {
                Ok(_) => captive.dripped += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => lost.push(key),
            }
        }
        for key in lost {
            self.lose(key);
        }
    }
}

/// Returns true once a connect has succeeded, and an error if it has failed.
pub fn establishment(stream: &mio::net::TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

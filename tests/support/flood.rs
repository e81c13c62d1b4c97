//! An attacker: opens connections from many addresses, as fast as it can or at a given rate, and does as little on them
//! as it can. One thread, nonblocking sockets.
//!
//! It attacks nothing but this machine: its addresses are of 127.0.0.0/8, and so must the server's be.

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

/// Opened between two looks at the sockets, so that resets are noticed in time.
const OPENS_AT_ONCE: usize = 64;
/// Longest wait for something to happen; also how soon it sees that it is to stop.
const PAUSE: Duration = Duration::from_millis(2);

/// What its thread is called, so that it can be told from the honest ones.
pub const THREAD: &str = "flood";

/// Addresses that connections come from, in turn.
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

/// A nonblocking connection in the making, from this address.
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

/// What the attacker does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Silent,
    /// Sends a byte every so often and never ends a message. Where `greet` is set, one whole message comes first.
    Slowloris { every: Duration, greet: bool },
    /// Sends one whole message, and then nothing.
    Idle,
    /// Closes it at once: every other one by a reset.
    Churn,
}

#[derive(Clone, Copy)]
pub struct Attack {
    pub server: SocketAddr,
    pub way: Way,
    pub sources: Sources,
    /// So many are opened as fast as it can.
    pub burst: usize,
    /// After these, so many a second; `None` is as fast as it can, `Some(0)` none.
    pub rate: Option<u32>,
    /// Most that it holds. There it stops opening, until the server has closed some.
    pub hold: usize,
}

/// What has happened to the attacker so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connects begun.
    pub opened: u64,
    /// Those that the server's kernel has completed.
    pub established: u64,
    /// Those of them that the server has ended.
    pub closed: u64,
    /// Connects that came to nothing.
    pub failed: u64,
    pub held: u64,
}

/// What the attacker has to tell in the end.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub counts: Counts,
    pub lasted: Duration,
    /// How long each connection lived that the server has ended: from its connect, or from the first byte after its one
    /// whole message.
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

/// An attack under way. Ends when it is told to, or dropped.
pub struct Attacker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Attacker {
    pub fn start(attack: Attack) -> Attacker {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(THREAD.into());
        let thread = thread.spawn(move || Flood::new(attack, theirs).run()).expect("a thread");
        Attacker { shared, thread: Some(thread) }
    }

    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Waits until the counts are so; false when that takes longer than `patience`.
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

    /// Ends it: whatever it still holds is closed by a reset.
    pub fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
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
    /// Bytes of a message that will never end.
    dripped: usize,
}

struct Flood {
    attack: Attack,
    shared: Arc<Shared>,
    poll: Poll,
    captives: Slab<Captive>,
    began: Instant,
    /// When the burst was complete; the rate counts from there.
    paced_since: Option<Instant>,
    drip_due: Instant,
    /// After a connect that failed for want of something of its own.
    retry_at: Instant,
    lifetimes: Vec<Duration>,
}

const MESSAGE: &[u8] = b"PING\r\n";
/// The start of a long inline command.
const DRIPS: &[u8] = b"PING ";

impl Flood {
    fn new(attack: Attack, shared: Arc<Shared>) -> Flood {
        let now = Instant::now();
        Flood {
            attack,
            shared,
            poll: Poll::new().expect("an epoll instance"),
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
        Outcome { counts: self.shared.counts(), lasted: self.began.elapsed(), lifetimes: self.lifetimes }
    }

    /// How many more are due now.
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
                let own = [libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::EMFILE, libc::ENFILE, libc::EAGAIN];
                assert!(error.raw_os_error().is_some_and(|code| own.contains(&code)), "connecting: {error}");
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
            // Closes by a reset, which leaves nothing waiting in the kernel (TIME-WAIT).
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        let entry = self.captives.vacant_entry();
        self.poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Captive { stream, number, since: Instant::now(), established: false, dripped: 0 });
        count(&self.shared.opened);
        Ok(())
    }

    /// Something happened to a connection.
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
                // Accepted and thrown out before anyone looked.
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

    /// What is done on a new connection; false: it is closed at once.
    fn begin(&mut self, key: usize) -> bool {
        let captive = &mut self.captives[key];
        match self.attack.way {
            Way::Silent | Way::Slowloris { greet: false, .. } => true,
            Way::Idle | Way::Slowloris { .. } => {
                // If that fails there is a reset on its way, which shows at the next read.
                let _ = captive.stream.write_all(MESSAGE);
                true
            }
            Way::Churn => false,
        }
    }

    /// The server has ended a connection.
    fn lose(&mut self, key: usize) {
        let captive = self.captives.remove(key);
        count(&self.shared.closed);
        self.lifetimes.push(captive.since.elapsed());
    }

    /// One byte on every connection, when it is time.
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

/// Whether a connect has succeeded; an error when it failed.
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

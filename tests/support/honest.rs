//! Honest clients: each connects, thinks a moment, asks one question, gets its answer and leaves. A
//! defence is judged by the share of honest clients that is served, and by their waits. One thread
//! with nonblocking sockets runs them all.

#![allow(dead_code, reason = "tests and benchmarks each use their own part")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::flood::{Sources, connect_from, establishment};

/// Name of the thread of a [`Probe`]. Benchmarks set its priority by this name.
pub const THREAD: &str = "honest";

/// A request, and the beginning and end of the right reply.
#[derive(Clone, Copy)]
pub struct Question {
    pub request: &'static [u8],
    pub reply_starts: &'static [u8],
    pub reply_ends: &'static [u8],
}

pub const PING: Question =
    Question { request: b"PING\r\n", reply_starts: b"+PONG\r\n", reply_ends: b"\r\n" };

#[derive(Clone, Copy)]
pub struct Honest {
    pub server: SocketAddr,
    pub question: Question,
    pub sources: Sources,
    /// Number of clients at any time.
    pub at_once: usize,
    /// Maximum number of tries. Each client begins the next try when one has ended.
    pub tries: u64,
    /// Mean think time between connecting and asking, exponentially distributed. It is also the
    /// mean pause after a failure.
    pub think: Duration,
    /// Longest wait for the answer, without the think time.
    pub patience: Duration,
    pub seed: u64,
}

impl Honest {
    /// Returns forty clients with 80 ms of think time, each with its own address. They make about
    /// 450 tries a second.
    pub fn forty(server: SocketAddr) -> Honest {
        Honest {
            server,
            question: PING,
            sources: Sources { first: [127, 77, 0, 1].into(), count: 40 },
            at_once: 40,
            tries: u64::MAX,
            think: Duration::from_millis(80),
            patience: Duration::from_secs(3),
            seed: 1,
        }
    }

    /// Runs the clients until all tries are made.
    pub fn run(self) -> Tally {
        Clients::new(self, Arc::default()).run()
    }

    pub fn run_for(self, time: Duration) -> Tally {
        let probe = Probe::start(self);
        std::thread::sleep(time);
        probe.stop()
    }
}

/// The outcomes of the tries.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub served: u64,
    /// Tries that were refused, reset, or closed before the answer.
    pub turned_away: u64,
    /// Tries without an answer within the client's patience.
    pub gave_up: u64,
    /// Tries that got a wrong answer.
    pub misanswered: u64,
    /// Waits of the served tries, shortest first.
    waits: Vec<Duration>,
    /// The same waits by [`WINDOW`], in order of time.
    windows: Vec<Vec<Duration>>,
}

/// Length of a window. It holds about two hundred tries, and a busy moment of the machine spoils
/// only a few windows.
const WINDOW: Duration = Duration::from_millis(500);

impl Tally {
    pub fn tries(&self) -> u64 {
        self.served + self.turned_away + self.gave_up + self.misanswered
    }

    /// Returns the share of served tries, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.served as f64 / self.tries().max(1) as f64
    }

    /// Returns the wait that this share of the served tries did not exceed.
    pub fn wait(&self, share: f64) -> Duration {
        quantile(&self.waits, share)
    }

    pub fn p50(&self) -> Duration {
        self.wait(0.50)
    }

    pub fn p99(&self) -> Duration {
        self.wait(0.99)
    }

    /// Returns the median of the windows' p99. A busy moment of the machine does not show in it,
    /// but a steady delay does.
    pub fn steady_p99(&self) -> Duration {
        let mut windows: Vec<Duration> =
            self.windows.iter().map(|waits| quantile(waits, 0.99)).collect();
        windows.sort_unstable();
        quantile(&windows, 0.5)
    }

    fn served(&mut self, since_start: Duration, wait: Duration) {
        let window = (since_start.as_millis() / WINDOW.as_millis()) as usize;
        if self.windows.len() <= window {
            self.windows.resize(window + 1, Vec::new());
        }
        self.windows[window].push(wait);
        self.waits.push(wait);
        self.served += 1;
    }

    fn sort(&mut self) {
        self.waits.sort_unstable();
        // The last window can be short. Windows without tries are left out.
        self.windows.retain(|waits| !waits.is_empty());
        self.windows.iter_mut().for_each(|waits| waits.sort_unstable());
    }
}

/// Returns the time that this share of the sorted times does not exceed, or 0 without times.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let Some(last) = sorted.len().checked_sub(1) else { return Duration::ZERO };
    sorted[((sorted.len() as f64 * share) as usize).min(last)]
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, steady] = [self.p50(), self.p99(), self.steady_p99()].map(milliseconds);
        write!(
            f,
            "{:.2} % of {}, p50 {p50} ms, p99 {p99} ms ({steady} steady)",
            self.percent(),
            self.tries()
        )
    }
}

pub fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

/// A thread that runs honest clients.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Probe {
    pub fn start(honest: Honest) -> Probe {
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(THREAD.into());
        let thread = thread
            .spawn(move || Clients::new(honest, theirs).run())
            .expect("a thread can be started");
        Probe { stop, thread }
    }

    /// Begins no more tries, and waits for the running ones.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all tries are made.
    pub fn join(self) -> Tally {
        self.thread.join().expect("the honest clients do not fail")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Between two tries.
    Away,
    Connecting,
    Thinking,
    Asked,
}

struct Client {
    step: Step,
    stream: Option<mio::net::TcpStream>,
    began: Instant,
    connected: Instant,
    /// Measured think time. It is longer than planned on a busy machine.
    thought: Duration,
    reply: Vec<u8>,
    /// Number of the current alarm. Older alarms are ignored.
    alarm: u64,
}

/// The outcome of a try.
enum End {
    Served,
    TurnedAway,
    GaveUp,
    Misanswered,
}

struct Clients {
    honest: Honest,
    stop: Arc<AtomicBool>,
    poll: Poll,
    clients: Vec<Client>,
    alarms: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    random: fastrand::Rng,
    began: Instant,
    begun: u64,
    tally: Tally,
}

impl Clients {
    fn new(honest: Honest, stop: Arc<AtomicBool>) -> Clients {
        let now = Instant::now();
        let client = || Client {
            step: Step::Away,
            stream: None,
            began: now,
            connected: now,
            thought: Duration::ZERO,
            reply: Vec::new(),
            alarm: 0,
        };
        let mut clients = Clients {
            stop,
            poll: Poll::new().expect("epoll can be opened"),
            clients: (0..honest.at_once).map(|_| client()).collect(),
            alarms: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(honest.seed),
            began: now,
            begun: 0,
            tally: Tally::default(),
            honest,
        };
        // Each client thinks first, so they do not all connect at the same time.
        for index in 0..clients.clients.len() {
            let pause = clients.think();
            clients.set_alarm(index, now + pause);
        }
        clients
    }

    fn run(mut self) -> Tally {
        let mut events = Events::with_capacity(1024);
        loop {
            let next = self.alarms.peek().map(|Reverse((when, ..))| *when);
            let idle = self.clients.iter().all(|client| client.step == Step::Away);
            if idle && (self.stop.load(Ordering::Relaxed) || self.begun >= self.honest.tries) {
                break;
            }
            let longest = Duration::from_millis(20);
            let wait = next.map_or(longest, |when| {
                when.saturating_duration_since(Instant::now()).min(longest)
            });
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("epoll: {error}"),
            }
            for event in &events {
                self.progress(event.token().0);
            }
            self.ring(Instant::now());
        }
        self.tally.sort();
        self.tally
    }

    fn think(&mut self) -> Duration {
        // 1 - f64() is never 0.
        self.honest.think.mul_f64(-(1.0 - self.random.f64()).ln())
    }

    fn set_alarm(&mut self, index: usize, when: Instant) {
        let client = &mut self.clients[index];
        client.alarm += 1;
        self.alarms.push(Reverse((when, index, client.alarm)));
    }

    /// Runs the alarms that are due.
    fn ring(&mut self, now: Instant) {
        while let Some(&Reverse((when, index, alarm))) = self.alarms.peek() {
            if when > now {
                return;
            }
            self.alarms.pop();
            if self.clients[index].alarm != alarm {
                continue;
            }
            match self.clients[index].step {
                Step::Away => self.begin(index),
                Step::Thinking => self.ask(index),
                Step::Connecting | Step::Asked => self.end(index, End::GaveUp),
            }
        }
    }

    fn begin(&mut self, index: usize) {
        if self.stop.load(Ordering::Relaxed) || self.begun >= self.honest.tries {
            return;
        }
        let source = self.honest.sources.address(index as u64);
        self.begun += 1;
        self.clients[index].began = Instant::now();
        self.clients[index].thought = Duration::ZERO;
        self.clients[index].reply.clear();
        self.clients[index].step = Step::Connecting;
        match self.connect(index, source) {
            Ok(()) => self.set_alarm(index, Instant::now() + self.honest.patience),
            Err(_) => self.end(index, End::TurnedAway),
        }
    }

    fn connect(&mut self, index: usize, source: std::net::Ipv4Addr) -> io::Result<()> {
        let mut stream = connect_from(source, self.honest.server)?;
        self.poll.registry().register(
            &mut stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.clients[index].stream = Some(stream);
        Ok(())
    }

    /// Handles an event of a client's connection.
    fn progress(&mut self, index: usize) {
        if self.clients[index].step == Step::Connecting {
            let Some(stream) = &self.clients[index].stream else { return };
            match establishment(stream) {
                Ok(false) => return,
                Ok(true) => {
                    let thinks = self.think();
                    let client = &mut self.clients[index];
                    (client.step, client.connected) = (Step::Thinking, Instant::now());
                    self.set_alarm(index, Instant::now() + thinks);
                }
                Err(_) => return self.end(index, End::TurnedAway),
            }
        }
        if let Some(end) = self.read(index) {
            self.end(index, end);
        }
    }

    fn ask(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        client.thought = client.connected.elapsed();
        client.step = Step::Asked;
        let sent = stream.write(self.honest.question.request);
        if !sent.is_ok_and(|count| count == self.honest.question.request.len()) {
            return self.end(index, End::TurnedAway);
        }
        let deadline = client.began + client.thought + self.honest.patience;
        self.set_alarm(index, deadline);
    }

    /// Reads the bytes that have arrived. Returns the outcome if the try has ended.
    fn read(&mut self, index: usize) -> Option<End> {
        let Client { stream, reply, .. } = &mut self.clients[index];
        let question = &self.honest.question;
        let mut chunk = [0; 1024];
        loop {
            match stream.as_mut()?.read(&mut chunk) {
                Ok(0) => return Some(End::TurnedAway),
                Ok(count) => reply.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(End::TurnedAway),
            }
            let known = reply.len().min(question.reply_starts.len());
            if reply[..known] != question.reply_starts[..known] {
                return Some(End::Misanswered);
            }
            if known == question.reply_starts.len() && reply.ends_with(question.reply_ends) {
                return Some(End::Served);
            }
        }
    }

    fn end(&mut self, index: usize, end: End) {
        let client = &mut self.clients[index];
        (client.stream, client.step) = (None, Step::Away);
        let failed = !matches!(end, End::Served);
        match end {
            End::Served => {
                let wait = client.began.elapsed().saturating_sub(client.thought);
                self.tally.served(self.began.elapsed(), wait);
            }
            End::TurnedAway => self.tally.turned_away += 1,
            End::GaveUp => self.tally.gave_up += 1,
            End::Misanswered => self.tally.misanswered += 1,
        }
        // After a failure, the client pauses before its next try.
        let pause = if failed { self.think() } else { Duration::ZERO };
        self.set_alarm(index, Instant::now() + pause);
    }
}

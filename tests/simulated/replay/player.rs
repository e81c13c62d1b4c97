//! The player of a scenario on one network. It writes down the observations of the loop and its
//! clients.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slabd::net::sim::End;
use slabd::net::{Net, Ready};
use slabd::sys::DatagramBatch;
use slabd::token::{Source, Token};

use super::Step;
use super::actions::{name, pattern, stream_token, summary};
use super::far_side::FarSide;

pub(super) struct Held<S> {
    pub(super) stream: Option<S>,
    /// The client at the other end.
    pub(super) client: Option<usize>,
    pub(super) dialled: Option<SocketAddr>,
    pub(super) file: i32,
    pub(super) full: bool,
    pub(super) written: usize,
    pub(super) read: usize,
}

/// The bytes that a client has sent and taken.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) sent: usize,
    pub(super) taken: usize,
}

pub(super) struct Player<F: FarSide> {
    pub(super) net: F::Net,
    pub(super) far: F,
    /// The observation of the other network. It decides how long to wait, but not the result.
    pub(super) expected: Option<String>,
    pub(super) listeners: Vec<(Option<<F::Net as Net>::Listener>, SocketAddr)>,
    pub(super) streams: Vec<Held<<F::Net as Net>::Stream>>,
    pub(super) sockets: Vec<(Option<<F::Net as Net>::Socket>, SocketAddr)>,
    pub(super) far_sockets: Vec<SocketAddr>,
    pub(super) clients: Vec<Progress>,
    pub(super) batch: DatagramBatch,
    /// Events since the last poll: readable, writable, and read on.
    pub(super) events: BTreeMap<Token, (bool, bool, bool)>,
}

/// Pause between two observations of a real kernel.
const BREATH: Duration = Duration::from_micros(200);

impl<F: FarSide> Player<F> {
    pub(super) fn new() -> Player<F> {
        let (net, far) = F::new();
        Player {
            net,
            far,
            expected: None,
            listeners: Vec::new(),
            streams: Vec::new(),
            sockets: Vec::new(),
            far_sockets: Vec::new(),
            clients: Vec::new(),
            batch: DatagramBatch::new(),
            events: BTreeMap::new(),
        }
    }

    /// Plays a step and returns its observation.
    pub(super) fn play(&mut self, step: Step, expected: Option<&str>) -> String {
        self.expected = expected.map(str::to_owned);
        self.observe(step)
    }

    fn observe(&mut self, step: Step) -> String {
        match step {
            Step::Poll => self.poll(),
            Step::Fill(stream) => self.fill(stream),
            Step::Take(client) => self.take(client),
            Step::Drain(stream) => self.drain(stream),
            // After EAGAIN, the effect may still come. Any other result is final.
            Step::Accept(_) | Step::Read(..) | Step::Write(..) | Step::Receive(_) => {
                self.until(|player, _| player.once(step), |shown| shown == "EAGAIN")
            }
            Step::Unacknowledged(_) | Step::Connected(_) | Step::Queue(_) | Step::Peer(_) => {
                self.until(|player, _| player.once(step), |_| true)
            }
            Step::FarReceive(socket) => self.far_receive(socket),
            _ => {
                let shown = self.once(step);
                if !self.far.patience().is_zero() {
                    std::thread::sleep(BREATH / 4);
                }
                shown
            }
        }
    }

    /// Repeats an observation until it is the expected one or final.
    fn until(
        &mut self,
        mut look: impl FnMut(&mut Self, usize) -> String,
        may_change: impl Fn(&str) -> bool,
    ) -> String {
        let start = Instant::now();
        for round in 0.. {
            let shown = look(self, round);
            let is_expected = self.expected.as_ref().is_none_or(|expected| *expected == shown);
            if is_expected || !may_change(&shown) || start.elapsed() >= self.far.patience() {
                return shown;
            }
            std::thread::sleep(BREATH);
        }
        unreachable!("rounds do not run out")
    }

    /// Returns the events since the last poll, merged per token.
    fn poll(&mut self) -> String {
        self.until(
            |player, _| {
                player.gather(Duration::ZERO);
                player.described()
            },
            |_| true,
        );
        // Any unexpected event arrives within this time.
        self.gather(if self.far.patience().is_zero() { Duration::ZERO } else { 2 * BREATH });
        let shown = self.described();
        self.events.clear();
        shown
    }

    fn gather(&mut self, timeout: Duration) {
        let mut ready: Vec<Ready> = Vec::new();
        self.net.poll(&mut ready, Some(timeout)).unwrap();
        for event in ready {
            let merged = self.events.entry(event.token).or_default();
            merged.0 |= event.readable;
            merged.1 |= event.writable;
            merged.2 |= event.read_on;
        }
    }

    fn described(&self) -> String {
        let described: Vec<String> = self
            .events
            .iter()
            .map(|(token, &(readable, writable, read_on))| {
                let name = match token.source() {
                    Source::Connection { slot, .. } => format!("stream {slot}"),
                    Source::Listener(index) => format!("listener {index}"),
                    Source::Socket(index) => format!("socket {index}"),
                    Source::Signals => "signals".into(),
                    Source::Names => "names".into(),
                };
                let letter = |is_set, letter| if is_set { letter } else { "" };
                format!(
                    "{name} {}{}{}",
                    letter(readable, "r"),
                    letter(writable, "w"),
                    letter(read_on, "h")
                )
            })
            .collect();
        described.join(", ")
    }

    /// Writes until nothing fits, even after a wait. It drops the events of this stream, because
    /// the kernel makes room while it still moves bytes to the client.
    fn fill(&mut self, stream: usize) -> String {
        self.gather(Duration::ZERO);
        let before = self.events.clone();
        let mut full = 0;
        while full < 3 {
            match self.write(stream, 8192) {
                Ok(_) => full = 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => full += 1,
                Err(error) => return name(&error),
            }
            if let Some(client) = self.streams[stream].client {
                self.far.acknowledge(client);
            }
            if full > 0 && !self.far.patience().is_zero() {
                std::thread::sleep(2 * BREATH);
            }
        }
        self.streams[stream].full = true;
        self.gather(Duration::ZERO);
        let token = stream_token(stream);
        match before.get(&token) {
            Some(&event) => self.events.insert(token, event),
            None => self.events.remove(&token),
        };
        "full".into()
    }

    fn take(&mut self, client: usize) -> String {
        let stream = self.streams.iter().position(|held| held.client == Some(client));
        let written = stream.map_or(0, |stream| self.streams[stream].written);
        let before = self.clients[client].taken;
        if let Some(stream) = stream {
            self.streams[stream].full = false;
        }
        self.until(
            |player, _| {
                let bytes = player.far.take(&mut player.net, client, usize::MAX);
                player.far.acknowledge(client);
                let right = player.takes_right(client, &bytes);
                let taken = player.clients[client].taken;
                let end = player.far.end(&mut player.net, client);
                match (end, right) {
                    // The number of bytes before a reset is not compared.
                    (End::Reset, true) => "reset".into(),
                    (_, true) if taken == written => format!("all, {end:?}"),
                    (_, true) => format!("{} of {}, {end:?}", taken - before, written - before),
                    (_, false) => "WRONG BYTES".into(),
                }
            },
            |_| true,
        )
    }

    pub(super) fn takes_right(&mut self, client: usize, bytes: &[u8]) -> bool {
        let taken = &mut self.clients[client].taken;
        let right = bytes.iter().zip(*taken..).all(|(&byte, at)| byte == pattern(client, at));
        *taken += bytes.len();
        right
    }

    fn drain(&mut self, stream: usize) -> String {
        let mut sum = 0;
        self.until(
            |player, _| loop {
                match player.read(stream, 4096) {
                    Ok(0) => break format!("{sum} bytes, the end"),
                    Ok(length) => sum += length,
                    Err(error) => break format!("{sum} bytes, {}", name(&error)),
                }
            },
            |shown| shown.ends_with("EAGAIN"),
        )
    }

    fn far_receive(&mut self, socket: usize) -> String {
        let mut got = Vec::new();
        self.until(
            |player, _| {
                for (from, bytes) in player.far.datagrams(&mut player.net, socket) {
                    let from = player.sockets.iter().position(|&(_, at)| at.port() == from.port());
                    got.push(format!("{} from {from:?}", summary(&bytes)));
                }
                got.join(", ")
            },
            |_| true,
        )
    }

    /// Waits until the client's kernel has acknowledged the output. The kernel may delay an
    /// acknowledgement by 40 ms, and the acknowledgement of a FIN raises an event.
    pub(super) fn settle_output(&mut self, number: usize) {
        let Held { stream: Some(stream), client: Some(client), full: false, .. } =
            &self.streams[number]
        else {
            return;
        };
        let start = Instant::now();
        while self.far.acknowledge(*client)
            && self.net.unacknowledged(stream).is_ok_and(|bytes| bytes > 0)
            && start.elapsed() < self.far.patience()
        {
            std::thread::sleep(BREATH / 4);
        }
    }
}

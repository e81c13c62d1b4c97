//! Hostile clients. Each attacks the server in one way that needs only a few connections. Their own
//! output is not checked. The simulation checks that the loop serves honest clients beside them.

mod http;
mod socketio;
mod web;

use std::net::SocketAddr;

use super::{PASSWORD, Scene, ServiceKind};
use crate::net::sim::ClientId;

/// The way in which a hostile client attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Connects again and again without sending anything.
    Silent,
    /// Sends an endless request, one byte at a time.
    Dribble,
    /// Opens many connections at once from one address.
    Burst,
    /// Connects, sends a request and resets.
    Churn,
    /// Sends requests and never reads.
    ZeroWindow,
    /// Sends requests and reads one byte at a time.
    Drip,
    /// Resets in the middle of a message.
    ResetMidFrame,
    /// Half-closes in the middle of a message.
    HalfClose,
    /// Sends long pipelines without a pause.
    Hog,
    /// Announces an argument of 512 MiB.
    HugeLength,
    /// Announces a million arguments and sends some of them.
    ManyArguments,
    /// Sends random characters.
    Garbage,
    /// Sends a request of another protocol with a command behind its first line, as a browser can
    /// be made to do.
    OtherProtocol,
    /// Sends an endless line.
    LongLine,
    /// Guesses passwords from the address of honest clients, and repeats some.
    Guesser,
    /// Sends much data before the password.
    Unauthenticated,
    /// Subscribes to a channel, publishes to it and never reads.
    SlowSubscriber,
    /// Subscribes and unsubscribes without end.
    SubscribeChurn,
    /// Subscribes to as many slow patterns as the hub allows.
    Patterns,
    /// Monitors all commands and does not read them.
    Monitor,
    /// Queues long transactions, and runs some of them.
    Transaction,
    /// Lists clients and kills some of them.
    Killer,
    /// Connects from an address outside this machine.
    Stranger,
    /// Opens connections, speaks once on each and holds them all, so that others run out of slots.
    Squatter,
    /// Connects from a new address each time, speaks at once and leaves, so that idle clients make
    /// way.
    Evictor,
    /// Upgrades to WebSocket again and again without sending a frame.
    SilentUpgrade,
    /// Sends a part of an opening handshake, and more header fields without end.
    HalfHandshake,
    /// Sends fragments of one message without end, with pings between them.
    Fragments,
    /// Sends frames of one byte in long pipelines.
    TinyFrames,
    /// Sends frames without masks.
    Unmasked,
    /// Sends text that is not UTF-8.
    BadText,
    /// Sends pings without a pause, and reads nothing.
    PingFlood,
    /// Answers no ping.
    NoPong,
    /// Publishes to its own channel by WebSocket and never reads.
    SlowReader,
    /// Does the same where a slow consumer misses messages instead of its connection.
    SlowDropper,
    /// Sends the body of a request byte by byte, or a head without an end.
    DrippedRequest,
    /// Hides a publish behind requests that two servers might read differently.
    Smuggler,
    /// Polls, sends and upgrades with session ids of Socket.IO that it guesses.
    GuessedSid,
    /// Begins sessions of Socket.IO by polling without end, and never polls.
    SidFlood,
    /// Polls twice at once.
    DoubledPoll,
    /// Resets the connection of a poll that waits.
    AbortedPoll,
    /// Sends a part of a body, and another body at the same time.
    DoubledPost,
    /// Begins upgrades from polling to WebSocket without an end.
    UnfinishedProbe,
    /// Announces attachments and sends none, or other packets in their place.
    LostAttachments,
    /// Announces a body that is too large, and sends a part of it.
    OversizedBody,
    /// Sends bad packets of Socket.IO.
    BadPackets,
    /// Joins a room, publishes to it, and never polls.
    SlowPoller,
    /// Does the same by WebSocket, and reads little.
    SlowSocket,
}

impl Attack {
    pub const ALL: [Attack; 48] = [
        Attack::Silent,
        Attack::Dribble,
        Attack::Burst,
        Attack::Churn,
        Attack::ZeroWindow,
        Attack::Drip,
        Attack::ResetMidFrame,
        Attack::HalfClose,
        Attack::Hog,
        Attack::HugeLength,
        Attack::ManyArguments,
        Attack::Garbage,
        Attack::OtherProtocol,
        Attack::LongLine,
        Attack::Guesser,
        Attack::Unauthenticated,
        Attack::SlowSubscriber,
        Attack::SubscribeChurn,
        Attack::Patterns,
        Attack::Monitor,
        Attack::Transaction,
        Attack::Killer,
        Attack::Stranger,
        Attack::Squatter,
        Attack::Evictor,
        Attack::SilentUpgrade,
        Attack::HalfHandshake,
        Attack::Fragments,
        Attack::TinyFrames,
        Attack::Unmasked,
        Attack::BadText,
        Attack::PingFlood,
        Attack::NoPong,
        Attack::SlowReader,
        Attack::SlowDropper,
        Attack::DrippedRequest,
        Attack::Smuggler,
        Attack::GuessedSid,
        Attack::SidFlood,
        Attack::DoubledPoll,
        Attack::AbortedPoll,
        Attack::DoubledPost,
        Attack::UnfinishedProbe,
        Attack::LostAttachments,
        Attack::OversizedBody,
        Attack::BadPackets,
        Attack::SlowPoller,
        Attack::SlowSocket,
    ];
}

/// A hostile client with all its connections.
pub struct Hostile {
    shape: Attack,
    address: SocketAddr,
    /// The address of its latest connection. Only the port changes.
    source: SocketAddr,
    clients: Vec<ClientId>,
    /// The connection on which it has spoken last.
    spoken_on: Option<ClientId>,
    acts: u32,
    /// The id of its latest session of Socket.IO; empty if it has none.
    sid: String,
}

/// First lines of other protocols.
const FIRST_LINES: [&str; 12] = [
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "post /",
    "\r\nPROPFIND / HTTP/1.1\r\n",
    "ping / HTTP/1.1\r\n",
    "SUBSCRIBE sip:a SIP/2.0\r\nVia: a\r\n",
    "OPTIONS rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n",
    "EHLO a",
    "set key 0 0 1",
    "SSH-2.0-OpenSSH_9.6",
    "\x16\x03\x01\x02\0\x01\0\x01\0\x03\x03AAAA\0\0",
    "\r\n\r\n\0\r\nQUIT",
];

/// Maximum number of connections of one hostile client.
const HELD_MAX: usize = 12;

impl Hostile {
    pub fn new(
        shape: Attack,
        number: u8,
        services: &[(ServiceKind, SocketAddr)],
        random: &mut fastrand::Rng,
    ) -> Hostile {
        let address = services[random.usize(..services.len())].1;
        let source = match shape {
            Attack::Stranger => [10, 66, 6, number],
            // Honest clients have this address, too.
            Attack::Guesser => [127, 0, 0, 1],
            _ => [127, 66, 6, number],
        };
        Hostile {
            shape,
            address,
            source: SocketAddr::from((source, 61_024 + 64 * u16::from(number))),
            clients: Vec::new(),
            spoken_on: None,
            acts: 0,
            sid: String::new(),
        }
    }

    /// Takes one more step of the attack.
    pub fn act(&mut self, scene: &mut Scene<'_>) {
        self.acts += 1;
        let wants_new = match self.shape {
            Attack::Silent
            | Attack::Churn
            | Attack::ResetMidFrame
            | Attack::HalfClose
            | Attack::Stranger
            | Attack::Squatter
            | Attack::Evictor
            | Attack::SilentUpgrade
            | Attack::SidFlood
            | Attack::AbortedPoll
            | Attack::UnfinishedProbe => true,
            Attack::Burst => false,
            Attack::DoubledPoll | Attack::DoubledPost => self.clients.len() < 3,
            _ => self.clients.is_empty() || scene.random.u8(0..16) == 0,
        };
        let count = if self.shape == Attack::Burst && self.acts % 16 == 1 {
            30
        } else {
            usize::from(wants_new)
        };
        (0..count).for_each(|_| self.connect(scene));
        let Some(mut client) = self.clients.last().copied() else { return };
        if socketio::needs_sid(self.shape) {
            self.learn(scene);
            client = self.clients[scene.random.usize(..self.clients.len())];
        }
        let needs_password =
            (Attack::SlowSubscriber as u8..=Attack::Killer as u8).contains(&(self.shape as u8));
        if scene.plan.has_password && self.acts % 8 == 1 && needs_password {
            scene.net.client_send(client, format!("AUTH {PASSWORD}\r\n").as_bytes());
        }
        match self.shape {
            Attack::Churn => {
                scene.net.client_send(client, b"PING\r\n");
                scene.net.client_reset(client);
            }
            Attack::ResetMidFrame => {
                scene.net.client_send(client, b"*2\r\n$4\r\nPIN");
                scene.net.client_reset(client);
            }
            Attack::HalfClose => {
                scene.net.client_send(client, b"PING\r\nPING\r\nPI");
                scene.net.client_shutdown(client);
            }
            Attack::Drip => {
                scene.net.client_take(client, 1);
                self.say(scene, client);
            }
            Attack::AbortedPoll => {
                self.say(scene, client);
                if !self.sid.is_empty() && scene.random.bool() {
                    scene.net.client_reset(client);
                }
            }
            _ => self.say(scene, client),
        }
    }

    /// Reads the id of a new session, and gives up an old one from time to time.
    fn learn(&mut self, scene: &mut Scene<'_>) {
        if self.acts.is_multiple_of(8) {
            self.sid.clear();
        }
        for client in &self.clients {
            let answer = scene.net.client_received(*client);
            self.sid = socketio::sid_in(&answer).unwrap_or(std::mem::take(&mut self.sid));
        }
    }

    fn connect(&mut self, scene: &mut Scene<'_>) {
        // Honest clients have the ports below these.
        self.source.set_port(self.source.port().checked_add(1).unwrap_or(61_024));
        if self.shape == Attack::Evictor {
            let [.., high, low] = self.acts.to_be_bytes();
            self.source.set_ip([127, 67, high, low].into());
        }
        let Some(client) = scene.net.client_from(self.address, self.source) else { return };
        if matches!(
            self.shape,
            Attack::ZeroWindow
                | Attack::SlowSubscriber
                | Attack::Monitor
                | Attack::PingFlood
                | Attack::SlowReader
                | Attack::SlowDropper
                | Attack::SlowSocket
        ) {
            let window = scene.random.usize(0..100);
            scene.net.set_window(client, window);
        }
        self.clients.push(client);
        if self.clients.len() > HELD_MAX {
            let oldest = self.clients.remove(0);
            scene.net.client_reset(oldest);
        }
    }

    fn say(&mut self, scene: &mut Scene<'_>, client: ClientId) {
        let is_first = self.spoken_on != Some(client);
        self.spoken_on = Some(client);
        let web = web::words(self.shape, is_first, scene);
        let web = web.or_else(|| http::words(self.shape, is_first, scene));
        let web = web.or_else(|| socketio::words(self.shape, is_first, &self.sid, scene));
        if let Some(bytes) = web {
            scene.net.client_send(client, &bytes);
            return;
        }
        let words = self.words(scene);
        if !words.is_empty() {
            scene.net.client_send(client, words.as_bytes());
        }
    }

    fn words(&self, scene: &mut Scene<'_>) -> String {
        let number = self.acts;
        match self.shape {
            Attack::Dribble if number == 1 => {
                "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$100000\r\n".into()
            }
            Attack::Dribble => "x".into(),
            Attack::ZeroWindow | Attack::Drip => {
                format!("ECHO {}\r\n", "z".repeat(scene.random.usize(0..400))).repeat(8)
            }
            Attack::Hog => "PING\r\n".repeat(scene.random.usize(0..400)),
            Attack::HugeLength => "*2\r\n$4\r\nECHO\r\n$536870912\r\nxxxxxxxx".into(),
            Attack::ManyArguments => {
                format!("*1000000\r\n{}", "$1\r\nx\r\n".repeat(scene.random.usize(0..1200)))
            }
            Attack::Garbage => {
                let length = scene.random.usize(1..200);
                (0..length).map(|_| scene.random.char('\0'..='\u{ff}')).collect()
            }
            Attack::OtherProtocol => {
                let first = FIRST_LINES[scene.random.usize(..FIRST_LINES.len())];
                format!("{first}\r\nPUBLISH a unauthenticated\r\n")
            }
            Attack::LongLine => "y".repeat(scene.random.usize(1..3000)),
            Attack::Guesser => format!("AUTH guess{}\r\nPING\r\n", number / 3),
            Attack::Unauthenticated => {
                let channel = if scene.plan.has_password { "a" } else { "h" };
                let payload = "unauthenticated".repeat(scene.random.usize(0..300));
                format!("PUBLISH {channel} {payload}\r\n")
            }
            Attack::SlowSubscriber => {
                format!("SUBSCRIBE h1\r\nHELLO 3\r\nPUBLISH h1 {}\r\n", "w".repeat(number as usize))
            }
            Attack::SubscribeChurn => {
                let name = scene.random.u32(0..60);
                format!(
                    "SUBSCRIBE h{name} h{} hx{name}\r\nUNSUBSCRIBE h{name}\r\n\
                     SSUBSCRIBE h{name}\r\n",
                    name / 2
                )
            }
            Attack::Patterns => format!(
                "PSUBSCRIBE h*{number}*a*a*b\r\nHELLO 3\r\nPUBLISH h{} x\r\n",
                "a".repeat(60)
            ),
            Attack::Monitor => "HELLO 3\r\nMONITOR\r\n".into(),
            Attack::Transaction => {
                let publishes = format!("PUBLISH h1 {}\r\n", "t".repeat(number as usize % 300));
                let publishes = publishes.repeat(scene.random.usize(0..300));
                format!("EXEC\r\nMULTI\r\n{publishes}INFO\r\nCLIENT LIST\r\nSUBSCRIBE h1\r\n")
            }
            Attack::Killer => match number % 3 {
                0 => "CLIENT LIST\r\n".into(),
                1 => format!("CLIENT KILL ID {}\r\n", scene.random.u32(0..200)),
                _ => "CLIENT CLOSED\r\nPUBSUB CHANNELS\r\nCOMMAND DOCS\r\n".into(),
            },
            Attack::Stranger => "PUBLISH a unauthenticated\r\n".into(),
            Attack::Squatter | Attack::Evictor => "PING\r\n".into(),
            // The others send nothing, or `web` and `http` have their bytes.
            _ => String::new(),
        }
    }

    /// Ends the attack. Half of the connections are reset, the others stay open and idle.
    pub fn retire(&mut self, scene: &mut Scene<'_>) {
        let leaving: Vec<ClientId> = self.clients.extract_if(.., |_| scene.random.bool()).collect();
        leaving.into_iter().for_each(|client| scene.net.client_reset(client));
    }

    /// Resets all connections.
    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        self.clients.drain(..).for_each(|client| scene.net.client_reset(client));
    }
}

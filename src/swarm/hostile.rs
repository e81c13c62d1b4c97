//! Those who mean harm: every shape of attack that needs nothing but a connection or some. They read little or nothing, never answer for
//! what they do, and are owed nothing; that the honest are served beside them is what is checked.

use std::net::SocketAddr;

use super::{PASSWORD, Scene, ServiceKind};
use crate::net::sim::ClientId;

/// What a hostile client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Connects, again and again, and says nothing.
    Silent,
    /// A request that never ends, a byte at a time.
    Dribble,
    /// Many connections at once, from one address.
    Burst,
    /// Connects, asks, and resets.
    Churn,
    /// Asks, and never reads.
    ZeroWindow,
    /// Asks, and reads by single bytes.
    Drip,
    /// Resets in the middle of a message.
    ResetMidFrame,
    /// Half-closes in the middle of a message.
    HalfClose,
    /// Pipelines, and does not stop.
    Hog,
    /// Announces half a gigabyte.
    HugeLength,
    /// Announces a million arguments, and sends some.
    ManyArguments,
    /// Random bytes.
    Garbage,
    /// A browser made to send a POST.
    HttpPost,
    /// A line without an end.
    LongLine,
    /// Guesses passwords.
    Guesser,
    /// Sends as much as it can before the password.
    Unauthenticated,
    /// Subscribes, is published to, and never reads.
    SlowSubscriber,
    /// Subscribes and unsubscribes without end.
    SubscribeChurn,
    /// As many patterns as there may be, hard to match.
    Patterns,
    /// Watches all commands, and does not read them.
    Monitor,
    /// Asks for lists, and has others closed.
    Killer,
    /// Comes from elsewhere.
    Stranger,
}

impl Attack {
    pub const ALL: [Attack; 22] = [
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
        Attack::HttpPost,
        Attack::LongLine,
        Attack::Guesser,
        Attack::Unauthenticated,
        Attack::SlowSubscriber,
        Attack::SubscribeChurn,
        Attack::Patterns,
        Attack::Monitor,
        Attack::Killer,
        Attack::Stranger,
    ];
}

pub struct Hostile {
    shape: Attack,
    address: SocketAddr,
    /// All from one source.
    source: SocketAddr,
    clients: Vec<ClientId>,
    acts: u32,
}

/// Connections that one of them holds at a time.
const HELD_MAX: usize = 12;

impl Hostile {
    pub fn new(
        shape: Attack,
        number: u8,
        services: &[(ServiceKind, SocketAddr)],
        random: &mut fastrand::Rng,
    ) -> Hostile {
        let address = services[random.usize(..services.len())].1;
        let first = if shape == Attack::Stranger { 10 } else { 127 };
        Hostile {
            shape,
            address,
            source: SocketAddr::from(([first, 66, 6, number], 1024)),
            clients: Vec::new(),
            acts: 0,
        }
    }

    /// Does one more thing.
    pub fn act(&mut self, scene: &mut Scene<'_>) {
        self.acts += 1;
        let wants_new = match self.shape {
            Attack::Silent | Attack::Churn | Attack::ResetMidFrame | Attack::HalfClose | Attack::Stranger => true,
            Attack::Burst => false,
            _ => self.clients.is_empty() || scene.random.u8(0..16) == 0,
        };
        let count = if self.shape == Attack::Burst && self.acts % 16 == 1 { 30 } else { usize::from(wants_new) };
        (0..count).for_each(|_| self.connect(scene));
        let Some(&client) = self.clients.last() else { return };
        let needs_password = (Attack::SlowSubscriber as u8..=Attack::Killer as u8).contains(&(self.shape as u8));
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
            _ => self.say(scene, client),
        }
    }

    fn connect(&mut self, scene: &mut Scene<'_>) {
        self.source.set_port(self.source.port().checked_add(1).unwrap_or(1024));
        let Some(client) = scene.net.client_from(self.address, self.source) else { return };
        if matches!(self.shape, Attack::ZeroWindow | Attack::SlowSubscriber | Attack::Monitor) {
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
        let number = self.acts;
        let words = match self.shape {
            Attack::Silent | Attack::Burst | Attack::Churn | Attack::ResetMidFrame | Attack::HalfClose => String::new(),
            Attack::Dribble if number == 1 => "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$100000\r\n".into(),
            Attack::Dribble => "x".into(),
            Attack::ZeroWindow | Attack::Drip => {
                format!("ECHO {}\r\n", "z".repeat(scene.random.usize(0..400))).repeat(8)
            }
            Attack::Hog => "PING\r\n".repeat(scene.random.usize(0..400)),
            Attack::HugeLength => "*2\r\n$4\r\nECHO\r\n$536870912\r\nxxxxxxxx".into(),
            Attack::ManyArguments => format!("*1000000\r\n{}", "$1\r\nx\r\n".repeat(scene.random.usize(0..1200))),
            Attack::Garbage => (0..scene.random.usize(1..200)).map(|_| scene.random.char('\0'..='\u{ff}')).collect(),
            Attack::HttpPost => {
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nPUBLISH a unauthenticated\r\n".into()
            }
            Attack::LongLine => "y".repeat(scene.random.usize(1..3000)),
            Attack::Guesser => format!("AUTH guess{number}\r\n"),
            Attack::Unauthenticated => {
                let channel = if scene.plan.has_password { "a" } else { "h" };
                format!("PUBLISH {channel} {}\r\n", "unauthenticated".repeat(scene.random.usize(0..300)))
            }
            Attack::SlowSubscriber => {
                format!("SUBSCRIBE h1\r\nHELLO 3\r\nPUBLISH h1 {}\r\n", "w".repeat(number as usize))
            }
            Attack::SubscribeChurn => {
                let name = scene.random.u32(0..60);
                format!("SUBSCRIBE h{name} h{} hx{name}\r\nUNSUBSCRIBE h{name}\r\nSSUBSCRIBE h{name}\r\n", name / 2)
            }
            Attack::Patterns => format!("PSUBSCRIBE h*{number}*a*a*b\r\nHELLO 3\r\nPUBLISH h{} x\r\n", "a".repeat(60)),
            Attack::Monitor => "HELLO 3\r\nMONITOR\r\n".into(),
            Attack::Killer => match number % 3 {
                0 => "CLIENT LIST\r\n".into(),
                1 => format!("CLIENT KILL ID {}\r\n", scene.random.u32(0..200)),
                _ => "CLIENT CLOSED\r\nPUBSUB CHANNELS\r\nCOMMAND DOCS\r\n".into(),
            },
            Attack::Stranger => "PUBLISH a unauthenticated\r\n".into(),
        };
        if !words.is_empty() {
            scene.net.client_send(client, words.as_bytes());
        }
    }

    /// It is over: half of them go, the others stay as they are and do no more.
    pub fn retire(&mut self, scene: &mut Scene<'_>) {
        let leaving: Vec<ClientId> = self.clients.extract_if(.., |_| scene.random.bool()).collect();
        leaving.into_iter().for_each(|client| scene.net.client_reset(client));
    }

    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        self.clients.drain(..).for_each(|client| scene.net.client_reset(client));
    }
}

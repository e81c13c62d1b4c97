//! Senders of datagrams, honest and forged. Each datagram that comes back must answer one of
//! theirs, and a service must not send more bytes than it received.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::board::TOPICS;
use super::{PASSWORD, Scene, ServiceKind, Violation, ensure};

/// Number of senders. They share one network, so they also share its rate limit.
const SENDERS: usize = 4;

/// All senders of datagrams, and an account of their exchanges.
#[derive(Default)]
pub struct Datagrams {
    /// The number on the board under which publishes by UDP count.
    pub number: u32,
    /// Payload bytes sent and received, by sender and service.
    exchanged: BTreeMap<(SocketAddr, &'static str), (usize, usize)>,
    /// Echoes that may still come, by payload.
    echoes_due: BTreeMap<Vec<u8>, usize>,
    pub sent: u64,
    pub answered: u64,
}

impl Datagrams {
    pub fn new(number: u32) -> Datagrams {
        Datagrams { number, ..Datagrams::default() }
    }

    /// Sends a random datagram from one sender to one service.
    pub fn act(&mut self, scene: &mut Scene<'_>, services: &[(ServiceKind, SocketAddr)]) {
        let (service, to) = services[scene.random.usize(..services.len())];
        let from = sender(scene.random.usize(..SENDERS));
        let bytes = self.compose(scene, service);
        let from = match scene.random.u8(..) {
            // A forged source: a port of the server itself, or port 0.
            0..4 if !scene.plan.is_fair => services[scene.random.usize(..services.len())].1,
            4..8 if !scene.plan.is_fair => SocketAddr::new(from.ip(), 0),
            // A forged source with a service that would answer the answer.
            8..12 if !scene.plan.is_fair => SocketAddr::new(from.ip(), 7),
            _ => from,
        };
        let copies = if scene.plan.faults.datagram_duplicated > 0.0 { 2 } else { 1 };
        self.sent += 1;
        if scene.net.send_datagram(to, from, &bytes) {
            self.exchanged.entry((from, service.name())).or_default().0 += copies * bytes.len();
            if service == ServiceKind::Echo {
                *self.echoes_due.entry(bytes).or_default() += copies;
            }
        }
    }

    fn compose(&mut self, scene: &mut Scene<'_>, service: ServiceKind) -> Vec<u8> {
        let length = if scene.random.u8(0..8) == 0 {
            scene.random.usize(0..3000)
        } else {
            scene.random.usize(0..40)
        };
        let text: Vec<u8> = (0..length).map(|_| scene.random.alphanumeric() as u8).collect();
        if service != ServiceKind::Hub {
            return text;
        }
        let password = if scene.plan.has_password && scene.random.bool() {
            format!("AUTH {PASSWORD}\r\n").into_bytes()
        } else {
            Vec::new()
        };
        let command = match scene.random.u8(0..6) {
            0 => b"*1\r\n$4\r\nPING\r\n".to_vec(),
            1 => [&b"ECHO "[..], &text, b"\r\n"].concat(),
            2 => b"SUBSCRIBE a\r\n".to_vec(),
            3 => text,
            _ => {
                // A publish without the password must reach no subscriber, so it has no number.
                let topic = scene.random.u8(..6);
                if scene.plan.has_password && password.is_empty() {
                    format!("PUBLISH {} unauthenticated\r\n", TOPICS[topic as usize].1).into_bytes()
                } else {
                    let message = scene.board.publish(self.number, topic, length.min(100), true);
                    let payload = scene.board.payload(message);
                    let head = format!("PUBLISH {} ", TOPICS[topic as usize].1).into_bytes();
                    [&head[..], &payload, b"\r\n"].concat()
                }
            }
        };
        [password, command].concat()
    }

    /// Sends each service one datagram. Without faults, each must answer ([`Self::check_answers`]).
    pub fn ask_all(&self, scene: &mut Scene<'_>, services: &[(ServiceKind, SocketAddr)]) {
        for (service, to) in services {
            let question = match service {
                ServiceKind::Hub if scene.plan.has_password => {
                    format!("AUTH {PASSWORD}\r\n*1\r\n$4\r\nPING\r\n")
                }
                ServiceKind::Hub => "*1\r\n$4\r\nPING\r\n".into(),
                _ => "question".into(),
            };
            scene.net.send_datagram(*to, ASKER, question.as_bytes());
        }
    }

    /// Checks that each service has answered the datagram of [`Self::ask_all`].
    pub fn check_answers(
        &self,
        scene: &mut Scene<'_>,
        services: &[(ServiceKind, SocketAddr)],
    ) -> Result<(), Violation> {
        let answers = scene.net.datagrams_received(ASKER);
        for (service, at) in services {
            let expected: &[u8] = match service {
                ServiceKind::Hub => b"+PONG\r\n",
                ServiceKind::Echo => b"question",
                ServiceKind::Hello => b"Hello, question!",
                ServiceKind::Discard => continue,
            };
            let is_answered = answers.iter().any(|(from, bytes)| from == at && bytes == expected);
            ensure(is_answered, || {
                format!("{} no longer answers a datagram: {answers:?}", service.name())
            })?;
        }
        Ok(())
    }

    /// Takes the datagrams that came back and checks each of them.
    pub fn receive(
        &mut self,
        scene: &mut Scene<'_>,
        services: &[(ServiceKind, SocketAddr)],
    ) -> Result<(), Violation> {
        for from in (0..SENDERS).map(sender) {
            for (at, bytes) in scene.net.datagrams_received(from) {
                self.answered += 1;
                let Some((service, _)) = services.iter().find(|(_, address)| *address == at) else {
                    return Err(format!(
                        "a datagram came from {at}, which is not the address of a service"
                    )
                    .into());
                };
                let (sent, received) = self.exchanged.entry((from, service.name())).or_default();
                *received += bytes.len();
                // The answer of hello is longer than a short name. With 28 bytes of headers for
                // each datagram, it amplifies little.
                let is_bounded = *service == ServiceKind::Hello || received <= sent;
                ensure(is_bounded, || {
                    format!(
                        "{} sent {received} bytes to {from} for {sent} bytes from it",
                        service.name()
                    )
                })?;
                if *service == ServiceKind::Echo {
                    let due = self.echoes_due.get_mut(&bytes).filter(|due| **due > 0);
                    let Some(due) = due else {
                        return Err(format!(
                            "an echo without a datagram: {}",
                            bytes.escape_ascii()
                        )
                        .into());
                    };
                    *due -= 1;
                }
            }
        }
        Ok(())
    }
}

/// The sender of the datagrams of [`Datagrams::ask_all`]. No other sender has its address.
const ASKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 9, 8, 7)), 2000);

fn sender(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 9, 9, 10 + index as u8], 2000 + index as u16))
}

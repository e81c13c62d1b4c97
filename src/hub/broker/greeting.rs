//! The handshake: its commands in order, and what their replies mean.

use super::LinkWire;
use super::fault::{GreetingStep, LinkFault};
use super::heard::Replied;
use super::queue::OutputQueue;
use crate::broker_settings::{BrokerHost, BrokerUrl};
use crate::codec::resp::Protocol;

/// The name of the link's connections in the broker's CLIENT LIST.
const CLIENT_NAME: &[u8] = b"slabd";

/// The user of a URL that names none, as Redis has it.
const DEFAULT_USER: &[u8] = b"default";

/// The handshake with one broker.
pub struct Greeting<'a> {
    pub url: &'a BrokerUrl,
    /// The password of the URL, or else that of the settings.
    pub password: Option<&'a [u8]>,
    pub protocol: Protocol,
}

/// The meaning of a reply to a command of the handshake.
pub enum Greeted {
    /// Go on with the next command.
    Next,
    /// Go on with RESP2, because the broker does not know RESP3.
    Older,
    /// Connect to this master.
    Master(BrokerHost),
}

impl Greeting<'_> {
    /// Returns the command after `step`, or the first one. `None`: the handshake is complete.
    pub fn after(&self, step: Option<GreetingStep>, wire: LinkWire) -> Option<GreetingStep> {
        use GreetingStep::{Auth, Hello, Role, Select, SetName};
        const ORDER: [GreetingStep; 5] = [Hello, Auth, SetName, Select, Role];
        let is_first = wire == LinkWire::First;
        let is_older = self.protocol == Protocol::Resp2;
        let is_needed = |step: &&GreetingStep| match step {
            Hello => is_first && !is_older,
            Auth => is_older && self.password.is_some(),
            SetName => is_older,
            Select => is_first && self.url.database > 0,
            Role => is_first && self.url.master.is_some(),
            GreetingStep::MasterAddress => false,
        };
        let from = step.and_then(|step| ORDER.iter().position(|other| *other == step));
        ORDER.iter().skip(from.map_or(0, |at| at + 1)).find(is_needed).copied()
    }

    /// Appends the command of a step.
    pub fn write(&self, step: GreetingStep, out: &mut OutputQueue) {
        let user = self.url.user.as_deref().map(str::as_bytes);
        match (step, self.password) {
            (GreetingStep::MasterAddress, _) => {
                let name = self.url.master.as_deref().unwrap_or_default();
                out.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]);
            }
            (GreetingStep::Hello, None) => {
                out.command(&[b"HELLO", b"3", b"SETNAME", CLIENT_NAME]);
            }
            (GreetingStep::Hello, Some(password)) => {
                let user = user.unwrap_or(DEFAULT_USER);
                let words = [&b"HELLO"[..], b"3", b"AUTH", user, password, b"SETNAME", CLIENT_NAME];
                out.command(&words);
            }
            (GreetingStep::Auth, password) => {
                let password = password.unwrap_or_default();
                match user {
                    Some(user) => out.command(&[b"AUTH", user, password]),
                    None => out.command(&[b"AUTH", password]),
                }
            }
            (GreetingStep::SetName, _) => out.command(&[b"CLIENT", b"SETNAME", CLIENT_NAME]),
            (GreetingStep::Select, _) => {
                out.command(&[b"SELECT", self.url.database.to_string().as_bytes()]);
            }
            (GreetingStep::Role, _) => out.command(&[b"ROLE"]),
        }
    }
}

/// Returns what the reply to a command of the handshake means.
pub fn greeted(step: GreetingStep, answer: Replied<'_>) -> Result<Greeted, LinkFault> {
    match (step, answer) {
        (GreetingStep::Hello, Replied::Error { code, text }) if is_older(code, text) => {
            Ok(Greeted::Older)
        }
        // An old server knows no names of connections.
        (GreetingStep::SetName, Replied::Error { .. } | Replied::Text) => Ok(Greeted::Next),
        (step, Replied::Error { code, .. }) => Err(LinkFault::Refused(step, shown_code(code))),
        (GreetingStep::Hello, Replied::Map) => Ok(Greeted::Next),
        (GreetingStep::Auth | GreetingStep::Select, Replied::Text) => Ok(Greeted::Next),
        (GreetingStep::Role, Replied::Items(Some(b"master"), _)) => Ok(Greeted::Next),
        (GreetingStep::Role, Replied::Items(Some(_), _)) => Err(LinkFault::NotMaster),
        (GreetingStep::MasterAddress, Replied::Null) => Err(LinkFault::UnknownMaster),
        (GreetingStep::MasterAddress, Replied::Items(Some(host), Some(port))) => {
            master(host, port).map(Greeted::Master).ok_or(LinkFault::Unexpected)
        }
        _ => Err(LinkFault::Unexpected),
    }
}

/// Returns true for a server that does not know HELLO, or not RESP3.
fn is_older(code: &[u8], text: &[u8]) -> bool {
    code == b"NOPROTO" || text.starts_with(b"ERR unknown command")
}

fn master(host: &[u8], port: &[u8]) -> Option<BrokerHost> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    BrokerHost::of(text(host)?, text(port)?)
}

/// Returns the code of an error for people. A server may send anything as the first word.
pub fn shown_code(code: &[u8]) -> Box<str> {
    const CODE_MAX: usize = 32;
    let is_code = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    let is_plain = (1..=CODE_MAX).contains(&code.len()) && code.iter().all(is_code);
    let text = std::str::from_utf8(code).ok().filter(|_| is_plain);
    text.unwrap_or("an error").into()
}

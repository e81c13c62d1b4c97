//! Why the link is down.

use std::fmt;

use crate::codec::resp::reader::ReplyError;

/// Why a connection attempt failed, or why the link went down. It never quotes a reply, because
/// errors quote commands, and those have passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// The connection was not made.
    NotConnected(String),
    /// The broker did not accept the connection in time.
    ConnectTimeout,
    /// The broker closed the connection.
    Closed,
    /// The broker did not reply in time.
    NoReply,
    /// A probe did not come back in time.
    Deaf,
    /// The channel of the probe was subscribed here: the broker is a client of this server.
    Circle,
    /// The broker sent what is no reply.
    Malformed(ReplyError),
    /// The broker sent a reply that does not belong to a command.
    Unexpected,
    /// The broker refused a command of the handshake, with this code.
    Refused(GreetingStep, Box<str>),
    /// The broker refused the channel of the probe, with this code.
    ProbeRefused(Box<str>),
    /// The broker answered a publish with this code, so that it cannot be the right one.
    WrongBroker(Box<str>),
    /// The server that a Sentinel named is no master.
    NotMaster,
    /// The Sentinel does not know the name.
    UnknownMaster,
}

/// A command of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingStep {
    /// SENTINEL GET-MASTER-ADDR-BY-NAME, to a Sentinel.
    MasterAddress,
    /// HELLO, with the password.
    Hello,
    /// AUTH, for a broker without HELLO.
    Auth,
    /// CLIENT SETNAME, for a broker without HELLO.
    SetName,
    Select,
    /// ROLE, of a broker that a Sentinel named.
    Role,
}

impl GreetingStep {
    fn command(self) -> &'static str {
        match self {
            GreetingStep::MasterAddress => "SENTINEL",
            GreetingStep::Hello => "HELLO",
            GreetingStep::Auth => "AUTH",
            GreetingStep::SetName => "CLIENT SETNAME",
            GreetingStep::Select => "SELECT",
            GreetingStep::Role => "ROLE",
        }
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkFault::NotConnected(why) => f.write_str(why),
            LinkFault::ConnectTimeout => f.write_str("it did not accept the connection in time"),
            LinkFault::Closed => f.write_str("it closed the connection"),
            LinkFault::NoReply => f.write_str("it did not reply in time"),
            LinkFault::Deaf => f.write_str("a probe did not come back in time"),
            LinkFault::Circle => f.write_str("it leads back to this server"),
            LinkFault::Malformed(error) => write!(f, "it sent no valid reply: {}", error.words()),
            LinkFault::Unexpected => f.write_str("it sent an unexpected reply"),
            LinkFault::Refused(step, code) => {
                write!(f, "it refused {} ({code})", step.command())?;
                match &**code {
                    "WRONGPASS" | "NOAUTH" => f.write_str("; check the user and the password"),
                    _ => Ok(()),
                }
            }
            LinkFault::ProbeRefused(code) => {
                let advice =
                    "its ACL must allow channels that begin with the prefix and slabd:probe:";
                write!(f, "it refused the channel of the probe ({code}); {advice}")
            }
            LinkFault::WrongBroker(code) => write!(f, "it refused a publish ({code})"),
            LinkFault::NotMaster => f.write_str("it is no master, though a Sentinel named it"),
            LinkFault::UnknownMaster => f.write_str("the Sentinel knows no master of that name"),
        }
    }
}

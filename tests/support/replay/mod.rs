//! Scenarios: a small language of steps, and how one is compared on two networks.

mod actions;
mod far_side;
pub mod generated;
mod player;
pub mod written;

use far_side::{Loopback, Simulated};
use player::Player;

/// What happens in a scenario. Listeners, clients, streams and sockets have numbers in the order of their coming; a client that was not
/// let in has one too, and so has the peer of a stream that the loop dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// With this backlog.
    Listen(u32),
    /// On an address that listener number so-and-so has already.
    ListenAgain(usize),
    CloseListener(usize),
    /// What the accept queue holds, and its limit.
    Queue(usize),
    Accept(usize),
    Shed(usize),
    Dial(Answer),
    Connected(usize),
    /// One read of up to so many bytes.
    Read(usize, usize),
    /// Reads until there is no more.
    Drain(usize),
    Write(usize, usize),
    /// Writes until nothing more fits, for now and for as long as the client takes nothing.
    Fill(usize),
    Watch(usize),
    Shut(usize),
    Close(usize),
    Reset(usize),
    Unacknowledged(usize),
    Peer(usize),
    /// Whether two streams, of which one is closed, had the same file number.
    SameFile(usize, usize),
    /// What has happened since the last one.
    Poll,

    /// A client connects to this listener.
    Connect(usize),
    /// And finds no place in the accept queue: nobody waits long for that.
    ConnectInVain(usize),
    Send(usize, usize),
    /// The client takes all there is, and looks how the stream ended.
    Take(usize),
    /// It takes a single byte.
    TakeOne(usize),
    HalfClose(usize),
    Leave(usize),
    Abort(usize),

    Bind(&'static str),
    Unbind(usize),
    /// Socket number so-and-so receives one batch.
    Receive(usize),
    /// Socket a sends datagrams of these lengths to the far socket b, in one batch.
    Answer(usize, usize, &'static [usize]),
    /// Socket a sends one datagram to socket b, both of the loop.
    Tell(usize, usize),
    /// Socket a sends one to this address.
    SendTo(usize, &'static str),
    FarBind(&'static str),
    FarUnbind(usize),
    /// The far socket a sends a datagram of so many bytes to socket b.
    FarSend(usize, usize, usize),
    /// So many (third) of so many bytes (last).
    FarSendMany(usize, usize, usize, usize),
    FarReceive(usize),

    /// So many files can be opened from now on.
    LeaveFiles(usize),
}

/// How a peer answers a stream that the loop opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepts,
    Refuses,
    Hangs,
}

pub struct Scenario {
    pub name: String,
    pub steps: Vec<Step>,
}

impl Scenario {
    /// Plays it on both networks, up to the first step that shows something else. The number of observations, or a report.
    pub fn compare(&self) -> Result<usize, String> {
        let (mut simulation, mut kernel) = (Player::<Simulated>::new(), Player::<Loopback>::new());
        let mut report = format!("{}\n    {:<28} {:<38} kernel\n", self.name, "step", "simulation");
        for &step in &self.steps {
            let simulated = simulation.play(step, None);
            let real = kernel.play(step, Some(&simulated));
            let mark = if simulated == real { "  " } else { ">>" };
            report += &format!(" {mark} {:<28} {simulated:<38} {real}\n", format!("{step:?}"));
            if simulated != real {
                return Err(report);
            }
        }
        Ok(self.steps.len())
    }
}

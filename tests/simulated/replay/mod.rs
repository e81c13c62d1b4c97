//! Scenarios: a small language of steps, and the comparison of a scenario on two networks.

mod actions;
mod far_side;
pub mod generated;
mod player;
pub mod written;

use far_side::{Loopback, Simulated};
use player::Player;

/// One step of a scenario. Listeners, clients, streams and sockets are numbered in the order of
/// their steps. A client that does not get in has a number, and so does the peer of a dialled
/// stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The loop listens with this backlog.
    Listen(u32),
    /// The loop listens on the address of this listener.
    ListenAgain(usize),
    CloseListener(usize),
    /// The length and the limit of the accept queue.
    Queue(usize),
    Accept(usize),
    Shed(usize),
    Dial(Answer),
    Connected(usize),
    /// The loop makes one read of this stream, of at most this many bytes.
    Read(usize, usize),
    /// The loop reads until nothing is left.
    Drain(usize),
    Write(usize, usize),
    /// The loop writes until nothing fits while the client takes nothing.
    Fill(usize),
    Watch(usize),
    Shut(usize),
    Close(usize),
    Reset(usize),
    Unacknowledged(usize),
    Peer(usize),
    /// True if two streams, one of them closed, have had the same file number.
    SameFile(usize, usize),
    /// The events since the last poll.
    Poll,

    /// A client connects to this listener.
    Connect(usize),
    /// A client connects and finds the accept queue full. The player waits only briefly.
    ConnectInVain(usize),
    /// The client sends this many bytes.
    Send(usize, usize),
    /// The client takes all bytes and checks whether the stream has ended.
    Take(usize),
    /// The client takes one byte.
    TakeOne(usize),
    HalfClose(usize),
    Leave(usize),
    Abort(usize),

    Bind(&'static str),
    Unbind(usize),
    /// The socket receives one batch.
    Receive(usize),
    /// The socket (first) sends datagrams of these lengths to the far socket (second), in one
    /// batch.
    Answer(usize, usize, &'static [usize]),
    /// The socket (first) sends one datagram to another of the loop (second).
    Tell(usize, usize),
    /// The socket sends one datagram to this address.
    SendTo(usize, &'static str),
    FarBind(&'static str),
    FarUnbind(usize),
    /// The far socket (first) sends a datagram to the socket (second), of this many bytes.
    FarSend(usize, usize, usize),
    /// The same with a number of datagrams (third), each of this many bytes (last).
    FarSendMany(usize, usize, usize, usize),
    FarReceive(usize),

    /// The process can open only this many more files.
    LeaveFiles(usize),
}

/// A peer's answer to a stream that the loop dials.
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
    /// Plays the scenario on both networks up to the first difference. Returns the number of
    /// observations, or a report of the difference.
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

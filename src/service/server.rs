//! What a service may ask of the server around it: the seam upwards, for commands that people type.
//!
//! A service answers messages from what it knows itself. For the few that need more, it keeps the message and says
//! [`Reply::consult`](super::Reply::consult); the loop then calls [`Service::consult`](super::Service::consult) with itself as [`Server`], before the next
//! message of that session is taken. So the hot path carries no view of the loop, and what is asked here may cost what it costs.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;
use crate::net::Transferred;

pub trait Server {
    fn now(&self) -> Time;

    /// What is known of the connection of a session, if it is open.
    fn connection(&self, session: u32) -> Option<Facts>;

    /// Ends the connection of a session at once.
    fn kill(&mut self, session: u32);

    /// The status of the whole server. Walks all connections.
    fn sections(&self) -> Vec<Section>;

    /// Sets to zero what is counted, but for connections accepted and closed.
    fn reset_counters(&mut self);

    /// The settings that can change while running, by the names of their flags.
    fn settings(&self) -> Vec<(String, String)>;

    /// Changes some of them, until the next restart or SIGHUP; or none, and says why.
    fn set(&mut self, changes: &[(String, String)]) -> Result<(), String>;

    /// Begins to stop in good order.
    fn shut_down(&mut self);
}

/// A connection as the loop and the kernel know it.
#[derive(Clone, Debug)]
pub struct Facts {
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    /// The number of its file descriptor.
    pub file: i32,
    /// Since its last message; since accept before the first.
    pub idle: Duration,
    /// Input held that is no whole message yet, in bytes; and the capacity of its buffer.
    pub input: (usize, usize),
    /// Output that the kernel has not taken, likewise.
    pub output: (usize, usize),
    /// Slab, wheel and buffers, in bytes; not what services hold for it.
    pub user_bytes: usize,
    /// Structures and buffers in the kernel.
    pub kernel_bytes: u64,
    pub transferred: Transferred,
    /// Closing, or owed output that its kernel does not take.
    pub is_closing: bool,
    pub is_blocked: bool,
}

/// What is known of a connection when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Parting {
    pub peer: Option<SocketAddr>,
    /// The name of a [`Reason`](crate::connection::Reason).
    pub reason: &'static str,
    pub transferred: Transferred,
    pub now: Time,
}

/// One topic of the status, and its rows.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    pub rows: Vec<(String, String)>,
}

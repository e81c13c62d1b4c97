//! What a service may ask of the server around it: the seam upwards, for commands that people type.
//!
//! The loop lends itself with each message. What is asked here may cost a system call, so the hot
//! path asks nothing.

use std::net::SocketAddr;
use std::time::Duration;

use super::ConnectionId;
use crate::clock::Time;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::net::Transferred;

pub trait Server {
    fn limits(&self) -> &Limits;

    /// What is known of a connection, if it is open. Asks the kernel several times.
    fn connection(&self, connection: ConnectionId) -> Option<Facts>;

    /// The address that a connection comes from. Asks the kernel once.
    fn peer(&self, connection: ConnectionId) -> Option<SocketAddr>;

    /// The address that a connection was made to. Asks the kernel once.
    fn local(&self, connection: ConnectionId) -> Option<SocketAddr>;

    /// Ends a connection at once.
    fn kill(&mut self, connection: ConnectionId);

    /// The sections of the server's metrics whose titles are wanted. Only these are computed.
    fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics>;

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
    pub now: Time,
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

/// A server that knows of nothing, for tests of services alone.
#[cfg(test)]
#[derive(Default)]
pub struct NoServer {
    pub limits: Limits,
    pub killed: Vec<ConnectionId>,
}

#[cfg(test)]
impl Server for NoServer {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn connection(&self, _connection: ConnectionId) -> Option<Facts> {
        None
    }

    fn peer(&self, _connection: ConnectionId) -> Option<SocketAddr> {
        None
    }

    fn local(&self, _connection: ConnectionId) -> Option<SocketAddr> {
        None
    }

    fn kill(&mut self, connection: ConnectionId) {
        self.killed.push(connection);
    }

    fn metrics(&self, _wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics> {
        Vec::new()
    }

    fn reset_counters(&mut self) {}

    fn settings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn set(&mut self, _changes: &[(String, String)]) -> Result<(), String> {
        Ok(())
    }

    fn shut_down(&mut self) {}
}

//! The server as a service sees it, for commands that operators type.
//!
//! The loop lends itself to the service with each message. Calls here may cost a system call, so
//! the hot path makes none.

use std::net::SocketAddr;
use std::time::Duration;

use super::ConnectionId;
use crate::clock::Time;
use crate::connection::Reason;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::net::Transferred;

/// The interface of the server to its services.
pub trait Server {
    fn limits(&self) -> &Limits;

    /// Returns the time of the system's clock, counted from 1970 in UTC.
    fn system_time(&self) -> Duration;

    /// Returns the facts about a connection, or `None` if it has ended. Makes several system calls.
    fn connection(&self, connection: ConnectionId) -> Option<Facts>;

    /// Returns the bytes of a connection's unsent output.
    fn unsent(&self, connection: ConnectionId) -> usize;

    /// Returns whether a connection takes further output.
    fn is_serving(&self, connection: ConnectionId) -> bool;

    /// Returns whether silent connections or all connections fill half of their limit.
    fn is_under_pressure(&self) -> bool;

    /// Returns whether a drain has begun.
    fn is_draining(&self) -> bool;

    /// Returns the address of the peer. Makes one system call.
    fn peer(&self, connection: ConnectionId) -> Option<SocketAddr>;

    /// Returns the local address of a connection. Makes one system call.
    fn local(&self, connection: ConnectionId) -> Option<SocketAddr>;

    /// Closes a connection at once, for the given reason.
    fn kill(&mut self, connection: ConnectionId, reason: Reason);

    /// Exempts a connection from eviction when memory runs out, or ends that. The exempt ones may
    /// hold a quarter of the memory budget.
    fn exempt(&mut self, connection: ConnectionId, on: bool);

    /// Returns the sections of the server's metrics whose titles are wanted, and computes only
    /// these.
    fn metrics(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<Metrics>;

    /// Resets the counters to zero, except those of accepted and closed connections.
    fn reset_counters(&mut self);

    /// Returns the settings that can change at run time: flag names and values.
    fn settings(&self) -> Vec<(String, String)>;

    /// Changes settings until the next restart or SIGHUP. On an error, it changes none and returns
    /// a message.
    fn set(&mut self, changes: &[(String, String)]) -> Result<(), String>;

    /// Starts a drain.
    fn shut_down(&mut self);
}

/// The facts that the loop and the kernel have about one connection.
#[derive(Clone, Debug)]
pub struct Facts {
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    /// The file descriptor's number.
    pub file: i32,
    /// Time since the last message, or since accept before the first.
    pub idle: Duration,
    /// Bytes of incomplete input, and the capacity of its buffer in bytes.
    pub input: (usize, usize),
    /// Bytes of unsent output, and the capacity of its buffer in bytes.
    pub output: (usize, usize),
    /// Bytes in the slab, the wheel and the buffers, without the memory of services.
    pub user_bytes: usize,
    /// Bytes of structures and buffers in the kernel.
    pub kernel_bytes: u64,
    pub transferred: Transferred,
    /// True when no more messages are taken.
    pub is_closing: bool,
    /// True when the kernel takes no more output.
    pub is_blocked: bool,
    pub now: Time,
}

/// The facts about a connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Parting {
    pub peer: Option<SocketAddr>,
    /// The name of a [`Reason`](crate::connection::Reason).
    pub reason: &'static str,
    pub transferred: Transferred,
    pub now: Time,
}

/// A server without connections and metrics, for unit tests of services.
#[cfg(test)]
#[derive(Default)]
pub struct NoServer {
    pub limits: Limits,
    pub killed: Vec<(ConnectionId, Reason)>,
    pub exempt: Vec<ConnectionId>,
    pub unsent: usize,
}

#[cfg(test)]
impl Server for NoServer {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn system_time(&self) -> Duration {
        Duration::ZERO
    }

    fn connection(&self, _connection: ConnectionId) -> Option<Facts> {
        None
    }

    fn unsent(&self, _connection: ConnectionId) -> usize {
        self.unsent
    }

    fn is_serving(&self, _connection: ConnectionId) -> bool {
        true
    }

    fn is_under_pressure(&self) -> bool {
        false
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn peer(&self, _connection: ConnectionId) -> Option<SocketAddr> {
        None
    }

    fn local(&self, _connection: ConnectionId) -> Option<SocketAddr> {
        None
    }

    fn kill(&mut self, connection: ConnectionId, reason: Reason) {
        self.killed.push((connection, reason));
    }

    fn exempt(&mut self, connection: ConnectionId, on: bool) {
        self.exempt.retain(|other| *other != connection);
        self.exempt.extend(on.then_some(connection));
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

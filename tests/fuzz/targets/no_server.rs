//! A stand-in for the server around a service. It has no connections, and its limits are its only
//! settings.

use std::net::SocketAddr;
use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::metrics::Metrics;
use slabd::service::ConnectionId;
use slabd::service::server::{Facts, Server};

/// A server without connections.
#[derive(Default)]
pub struct NoServer {
    limits: Limits,
}

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
        0
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

    fn exempt(&mut self, _connection: ConnectionId, _on: bool) {}

    fn kill(&mut self, _connection: ConnectionId, _reason: Reason) {}

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

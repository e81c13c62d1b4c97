//! The server that the hub consults, where there is none: it knows no connections and has no settings.

use slabd::clock::Time;
use slabd::service::server::{Facts, Section, Server};

pub struct NoServer;

impl Server for NoServer {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn connection(&self, _session: u32) -> Option<Facts> {
        None
    }

    fn kill(&mut self, _session: u32) {}

    fn sections(&self) -> Vec<Section> {
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

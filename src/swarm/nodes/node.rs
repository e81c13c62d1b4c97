//! One node: a whole loop with a hub on a network of its own. Its clock begins with its life.

use std::net::SocketAddr;

use super::super::Violation;
use super::plan::NodesPlan;
use crate::buffer::BufferMode;
use crate::clock::Time;
use crate::net::Net;
use crate::net::sim::{Faults, SimNet};
use crate::reactor::Reactor;
use crate::service::Options;
use crate::services::SERVICES;

/// A node.
pub struct SimNode {
    pub reactor: Reactor<SimNet>,
    pub address: SocketAddr,
    /// The number of its life in the shadow.
    pub life: usize,
    /// When its life began.
    born: Time,
    /// When its drain ends. `None`: it serves.
    pub drains_until: Option<Time>,
}

impl SimNode {
    /// Starts a node. The seed is its own.
    pub fn start(
        plan: &NodesPlan,
        life: usize,
        now: Time,
        seed: u64,
    ) -> Result<SimNode, Violation> {
        let net = SimNet::with_faults(seed, Faults::default());
        let mut reactor = Reactor::new(net, plan.limits.clone(), BufferMode::Pooled);
        reactor.seed(seed);
        let options = Options {
            max_connections: 64,
            broker: Some(plan.settings()),
            sid_key: Some(seed),
            ..Options::default()
        };
        let hub = SERVICES.iter().find(|(name, _)| *name == "hub");
        let Some((_, hub)) = hub else { return Err("there is no hub".to_string().into()) };
        let index = reactor.add_service(hub(&options));
        let address = reactor
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)), 128, index)
            .map_err(|error| Violation::from(format!("the node does not listen: {error}")))?;
        reactor.net_mut().set_faults(plan.network.clone());
        Ok(SimNode { reactor, address, life, born: now, drains_until: None })
    }

    pub fn net(&mut self) -> &mut SimNet {
        self.reactor.net_mut()
    }

    pub fn is_draining(&self) -> bool {
        self.drains_until.is_some()
    }

    /// Turns the loop until a moment of the run.
    pub fn pass(&mut self, until: Time) -> Result<(), Violation> {
        let end = Time::ZERO + until.since(self.born);
        for _ in 0..10_000 {
            let is_last = self.reactor.net().now() >= end;
            self.reactor.net_mut().hold_time_at(end);
            let turned = self.reactor.turn();
            turned.map_err(|error| Violation::from(format!("the turn failed: {error}")))?;
            if is_last {
                self.reactor.check_invariants();
                return Ok(());
            }
        }
        Err("the loop spins: 10,000 turns take no time".to_string().into())
    }
}

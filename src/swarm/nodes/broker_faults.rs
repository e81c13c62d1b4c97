//! The faults of the simulated broker and of its links: how each begins, and how all of them end.

use std::time::Duration;

use super::node::SimNode;
use super::plan::NodesFault;
use super::shadow::Shadow;
use super::sim_broker::{BrokerState, LinkMode, SimBroker, addresses};
use crate::clock::Time;
use crate::net::Net;
use crate::net::sim::{DialAnswer, SimNet};

/// The bytes of a link that the broker reads in time, while it is sound.
pub const LINK_WINDOW: usize = 64 * 1024;

/// Bytes that are no reply, or that belong to no command.
const GARBAGE: [&[u8]; 7] = [
    b"+what\r\n",
    b"garbage\r\n",
    b"*99999999\r\n",
    b":x\r\n",
    b"$99999999999\r\n",
    b">3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n",
    b"~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n~1\r\n:1\r\n",
];

/// Beginnings of replies whose rest does not come.
const HALF_REPLIES: [&[u8]; 4] = [b"*3\r\n$7\r\nmess", b"$100\r\nabc", b":1", b">2\r\n"];

impl SimBroker {
    /// Accepts the dials of a node.
    pub fn accept_dials(&mut self, index: usize, node: &mut SimNode, shadow: &mut Shadow) {
        for address in addresses(shadow.plan.hosts) {
            while let Some(id) = node.net().accepted_dial(address) {
                if matches!(self.state, BrokerState::Dead { .. }) {
                    node.net().client_reset(id);
                    continue;
                }
                node.net().set_window(id, LINK_WINDOW);
                self.accept(index, node.life, id, shadow);
            }
        }
    }

    /// Tells the network of a node how the broker answers dials.
    pub fn answer_dials(&self, hosts: usize, net: &mut SimNet) {
        let answer = match self.state {
            BrokerState::Dead { hangs: true, .. } => None,
            BrokerState::Dead { hangs: false, .. } => Some(DialAnswer::Refuses),
            _ => Some(DialAnswer::Accepts),
        };
        addresses(hosts).for_each(|address| net.answer_dials(address, answer));
    }

    /// Ends the state whose time is over.
    pub fn go_on(&mut self, now: Time, nodes: &mut [SimNode], shadow: &mut Shadow) {
        let (BrokerState::Stalled(until)
        | BrokerState::Loading(until)
        | BrokerState::Dead { until, .. }) = self.state
        else {
            return;
        };
        if until <= now {
            self.serve(nodes, shadow);
        }
    }

    /// Serves from now on. Dials that hang are accepted: they were sent again and again.
    fn serve(&mut self, nodes: &mut [SimNode], shadow: &mut Shadow) {
        self.state = BrokerState::Serving;
        for (index, node) in nodes.iter_mut().enumerate() {
            self.answer_dials(shadow.plan.hosts, node.net());
            for address in addresses(shadow.plan.hosts) {
                while let Some(id) = node.net().accept_connect(address) {
                    node.net().set_window(id, LINK_WINDOW);
                    self.accept(index, node.life, id, shadow);
                }
            }
        }
    }

    /// Ends a link, by a reset or a close.
    fn end_link(&mut self, index: usize, resets: bool, nodes: &mut [SimNode], shadow: &mut Shadow) {
        let link = self.links.remove(index);
        let net = nodes[link.node].net();
        match resets {
            true => net.client_reset(link.id),
            false => net.client_close(link.id),
        }
        shadow.close_link(link.record);
    }

    /// Ends all links of a node whose life has ended.
    pub fn forget_node(&mut self, node: usize, shadow: &mut Shadow) {
        for link in self.links.extract_if(.., |link| link.node == node) {
            shadow.close_link(link.record);
        }
    }

    /// Begins a fault. Returns false if it cannot strike now.
    pub fn strike(
        &mut self,
        fault: NodesFault,
        (now, random): (Time, &mut fastrand::Rng),
        nodes: &mut [SimNode],
        shadow: &mut Shadow,
    ) -> bool {
        let until = now + Duration::from_millis(random.u64(1..6000));
        let is_serving = self.state == BrokerState::Serving;
        match fault {
            NodesFault::BrokerStalls if is_serving => self.state = BrokerState::Stalled(until),
            NodesFault::BrokerLoads if is_serving => self.state = BrokerState::Loading(until),
            NodesFault::BrokerDies if is_serving => {
                while let Some(last) = self.links.len().checked_sub(1) {
                    self.end_link(last, random.bool(), nodes, shadow);
                }
                self.state = BrokerState::Dead { until, hangs: random.bool() };
                for node in nodes {
                    self.answer_dials(shadow.plan.hosts, node.net());
                }
            }
            NodesFault::NodeStops | NodesFault::BrokerDies => return false,
            _ if !is_serving || self.links.is_empty() => return false,
            _ => {
                let index = random.usize(..self.links.len());
                return self.strike_link(fault, index, random, nodes, shadow);
            }
        }
        true
    }

    fn strike_link(
        &mut self,
        fault: NodesFault,
        index: usize,
        random: &mut fastrand::Rng,
        nodes: &mut [SimNode],
        shadow: &mut Shadow,
    ) -> bool {
        let link = &mut self.links[index];
        let net = nodes[link.node].net();
        if link.mode != LinkMode::Sound {
            return false;
        }
        match fault {
            NodesFault::LinkIsDeaf if link.channels.is_empty() => return false,
            NodesFault::LinkIsDeaf => link.mode = LinkMode::Deaf(net.now()),
            NodesFault::LinkIsMute => {
                if random.bool() {
                    net.client_send(link.id, HALF_REPLIES[random.usize(..HALF_REPLIES.len())]);
                }
                link.mode = LinkMode::Mute(net.now());
            }
            NodesFault::Garbage => {
                net.client_send(link.id, GARBAGE[random.usize(..GARBAGE.len())]);
                link.mode = LinkMode::Mute(net.now());
            }
            NodesFault::HalfReply => link.ends_after = Some(random.usize(1..60)),
            NodesFault::SlowReading => {
                link.read_max = random.usize(1..200);
                net.set_window(link.id, random.usize(1..2000));
            }
            _ => self.end_link(index, random.bool(), nodes, shadow),
        }
        true
    }

    /// Ends all faults. A link that is silent can only be replaced.
    pub fn recover(&mut self, nodes: &mut [SimNode], shadow: &mut Shadow) {
        for index in (0..self.links.len()).rev() {
            let link = &mut self.links[index];
            link.ends_after = None;
            link.read_max = usize::MAX;
            nodes[link.node].net().set_window(link.id, LINK_WINDOW);
            if link.mode != LinkMode::Sound {
                self.end_link(index, true, nodes, shadow);
            }
        }
        self.serve(nodes, shadow);
    }
}

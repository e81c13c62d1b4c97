//! The run of one seed: the storm, in which faults strike, the calm after it, and the end, at which
//! all nodes must be in step.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Violation, ensure};
use super::NodesTally;
use super::client::{ClientForm, NodeClient};
use super::judge::judge;
use super::names::{self, CHANNELS};
use super::node::SimNode;
use super::plan::{NODES, NodesFault, NodesPlan};
use super::shadow::Shadow;
use super::sim_broker::{BrokerState, SimBroker};
use crate::clock::Time;
use crate::connection::Reason;
use crate::net::sim::{Faults, TraceEntry};

/// Within this time after the end of all faults, every link is up.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Number of events of the story that a failure shows.
const STORY_MAX: usize = 60;

/// A run in progress.
pub struct NodesRun {
    random: fastrand::Rng,
    now: Time,
    nodes: Vec<SimNode>,
    broker: SimBroker,
    pub shadow: Shadow,
    clients: Vec<NodeClient>,
    clients_made: u32,
    watcher: Option<fn(&TraceEntry)>,
    /// The latest faults and what followed from them.
    pub story: VecDeque<String>,
    tally: NodesTally,
    hash: u64,
}

impl NodesRun {
    /// Starts the nodes of a plan. No client has connected yet.
    pub fn new(plan: NodesPlan, watcher: Option<fn(&TraceEntry)>) -> NodesRun {
        let broker = SimBroker::new(plan.prefix);
        NodesRun {
            random: fastrand::Rng::with_seed(plan.seed ^ 0x7a3d_0e93_55ab_c1d2),
            now: Time::ZERO,
            nodes: Vec::new(),
            broker,
            shadow: Shadow::new(plan),
            clients: Vec::new(),
            clients_made: 0,
            watcher,
            story: VecDeque::new(),
            tally: NodesTally { seeds: 1, ..NodesTally::default() },
            hash: 0,
        }
    }

    /// Returns the hash of all events of all nodes.
    pub fn hash(&self) -> u64 {
        let hashes = self.nodes.iter().map(|node| node.reactor.net().trace().hash());
        hashes.fold(self.hash, mix)
    }

    /// Plays the storm, the calm and the end. Fails on the first violation.
    pub fn play(&mut self) -> Result<NodesTally, Violation> {
        for index in 0..NODES {
            self.start_node(index)?;
        }
        for _ in 0..self.shadow.plan.steps {
            for _ in 0..self.random.usize(0..6) {
                self.act()?;
            }
            if self.random.usize(..self.shadow.plan.fault_every) == 0 {
                self.strike()?;
            }
            let pause = self.pause();
            self.step(pause)?;
        }
        if self.shadow.plan.waits_for_deaf {
            self.tell("the links that are silent are replaced");
            for _ in 0..85 {
                self.step(Duration::from_millis(200))?;
            }
        }
        self.calm()?;
        self.end()
    }

    /// Returns how long a step takes. Most are short, and some let timeouts pass.
    fn pause(&mut self) -> Duration {
        let most = [4, 4, 4, 4, 4, 4, 40, 40, 40, 1500][self.random.usize(..10)];
        Duration::from_micros(self.random.u64(0..most * 1000))
    }

    pub fn tell(&mut self, what: &str) {
        let line = format!("{:>10.3} s  {what}", self.now.as_secs_f64());
        if self.watcher.is_some() {
            println!("{line}");
        }
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// Starts a node with its witness. It takes the place of the one that has stopped.
    fn start_node(&mut self, index: usize) -> Result<(), Violation> {
        let life = self.shadow.begin_life(self.broker.state != BrokerState::Serving);
        let seed = self.random.u64(..);
        let mut node = SimNode::start(&self.shadow.plan, life, self.now, seed)?;
        self.broker.answer_dials(self.shadow.plan.hosts, node.net());
        if let Some(watcher) = self.watcher {
            node.net().trace_mut().watch(watcher);
        }
        match index < self.nodes.len() {
            true => self.nodes[index] = node,
            false => self.nodes.push(node),
        }
        self.connect(index, ClientForm::Witness);
        Ok(())
    }

    fn connect(&mut self, index: usize, form: ClientForm) {
        let node = &mut self.nodes[index];
        let (address, life) = (node.address, node.life);
        let Some(id) = node.net().client(address) else { return };
        self.clients_made += 1;
        let place = (index, life);
        let (number, shadow) = (self.clients_made, &mut self.shadow);
        self.clients.push(NodeClient::new(place, number, form, id, node.net(), shadow));
    }

    /// Lets one client act.
    fn act(&mut self) -> Result<(), Violation> {
        let index = self.random.usize(..NODES);
        if self.nodes[index].is_draining() {
            return Ok(());
        }
        let own: Vec<usize> =
            (0..self.clients.len()).filter(|client| self.clients[*client].node == index).collect();
        // Others come once the witness sees everything.
        let is_witnessed = own.iter().any(|client| {
            let client = &self.clients[*client];
            client.form == ClientForm::Witness && client.is_ready()
        });
        match self.random.u8(0..100) {
            _ if !is_witnessed => {}
            0..12 if own.len() <= self.shadow.plan.clients => {
                let form = match self.random.u8(0..8) {
                    0..2 => ClientForm::Publisher,
                    2..4 => ClientForm::Listener,
                    4..6 => ClientForm::Newer,
                    _ => ClientForm::Events(self.random.u8(..CHANNELS)),
                };
                self.connect(index, form);
            }
            12..80 if own.len() > 1 => {
                let client = own[self.random.usize(..own.len())];
                let net = self.nodes[index].net();
                self.clients[client].act(&mut self.random, net, &mut self.shadow);
            }
            80..82 if own.len() > 1 => {
                let client = &mut self.clients[own[self.random.usize(..own.len())]];
                if client.form != ClientForm::Witness {
                    let (net, resets) = (self.nodes[index].net(), self.random.bool());
                    client.leave(resets, net, &mut self.shadow);
                }
            }
            82.. => {
                let channel = self.random.u8(..CHANNELS);
                self.publish_outside(channel)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Publishes at the broker, unless it does not serve.
    fn publish_outside(&mut self, channel: u8) -> Result<(), Violation> {
        if self.broker.state != BrokerState::Serving {
            return Ok(());
        }
        let length = self.random.usize(..=self.shadow.plan.payload_max);
        let message = self.shadow.publish(None, 0, channel, length);
        let (payload, name) = (self.shadow.payload(message), names::text(channel).as_bytes());
        self.broker.publish(name, &payload, None, &mut self.shadow)?;
        self.shadow.answered(message, None);
        Ok(())
    }

    fn strike(&mut self) -> Result<(), Violation> {
        if self.shadow.plan.faults.is_empty() {
            return Ok(());
        }
        let fault = self.shadow.plan.faults[self.random.usize(..self.shadow.plan.faults.len())];
        if fault == NodesFault::NodeStops {
            let index = self.random.usize(..NODES);
            if self.nodes[index].is_draining() {
                return Ok(());
            }
            let life = self.nodes[index].life;
            self.tally.faults[fault as usize] += 1;
            self.tell(&format!("node {index} stops"));
            if self.random.bool() {
                self.nodes[index].reactor.drain();
                self.shadow.cut(|own| own.life == life);
                let time = Duration::from_millis(self.random.u64(0..500));
                self.nodes[index].drains_until = Some(self.now + time);
                return Ok(());
            }
            return self.replace_node(index);
        }
        let (time, nodes) = ((self.now, &mut self.random), &mut self.nodes[..]);
        if self.broker.strike(fault, time, nodes, &mut self.shadow) {
            self.tally.faults[fault as usize] += 1;
            self.shadow.fault_begins();
            self.tell(&format!("{fault:?}, {:?}", self.broker.state));
        }
        Ok(())
    }

    /// Ends the life of a node at once, and starts it anew.
    fn replace_node(&mut self, index: usize) -> Result<(), Violation> {
        self.broker.forget_node(index, &mut self.shadow);
        self.shadow.end_life(self.nodes[index].life);
        self.clients.retain(|client| client.node != index);
        let trace = self.nodes[index].reactor.net().trace();
        self.hash = mix(self.hash, trace.hash());
        self.tally.events += trace.events();
        self.start_node(index)
    }

    /// Lets time pass at all nodes and at the broker.
    fn step(&mut self, pause: Duration) -> Result<(), Violation> {
        self.now = self.now + pause;
        self.broker.go_on(self.now, &mut self.nodes, &mut self.shadow);
        for index in 0..NODES {
            let until = self.nodes[index].drains_until;
            if until.is_some_and(|until| until <= self.now) {
                self.replace_node(index)?;
            }
            self.nodes[index].pass(self.now)?;
        }
        self.look()?;
        let first = self.random.usize(..NODES);
        for index in (0..NODES).map(|index| (first + index) % NODES) {
            let (node, shadow) = (&mut self.nodes[index], &mut self.shadow);
            self.broker.accept_dials(index, node, shadow);
            self.broker.read(index, node.net(), shadow)?;
        }
        for index in 0..NODES {
            let (node, shadow) = (&mut self.nodes[index], &mut self.shadow);
            self.broker.write(index, node.net(), shadow)?;
        }
        Ok(())
    }

    /// Lets all clients read.
    fn look(&mut self) -> Result<(), Violation> {
        self.clients.retain(|client| !client.has_left);
        for client in &mut self.clients {
            let node = &mut self.nodes[client.node];
            let may_be_closed = node.is_draining();
            client.receive(node.net(), &mut self.shadow, may_be_closed).map_err(|violation| {
                let stats = node.reactor.stats();
                let reasons = Reason::ALL.into_iter();
                let reasons = reasons.map(|(reason, name)| (name, stats.closed_for(reason)));
                let reasons: Vec<_> = reasons.filter(|(_, count)| *count > 0).collect();
                Violation::from(format!("{violation}; closed: {reasons:?}"))
            })?;
        }
        self.clients.retain(|client| !client.has_left);
        Ok(())
    }

    /// Ends all faults. Soon after it, every link is up.
    fn calm(&mut self) -> Result<(), Violation> {
        self.tell("all faults end");
        for index in 0..NODES {
            if self.nodes[index].is_draining() {
                self.replace_node(index)?;
            }
            self.nodes[index].net().set_faults(Faults::default());
        }
        self.broker.recover(&mut self.nodes, &mut self.shadow);
        let end = self.now + BACK_WITHIN;
        while self.now < end {
            if self.random.u8(0..4) == 0 {
                self.act()?;
            }
            self.step(Duration::from_millis(40))?;
        }
        let figures = self.figures()?;
        for (index, figures) in figures.iter().enumerate() {
            let is_up = figures.get("broker_up") == Some(&1);
            ensure(is_up, || format!("the link of node {index} is not up after {BACK_WITHIN:?}"))?;
        }
        Ok(())
    }

    /// Asks every node for its figures.
    fn figures(&mut self) -> Result<Vec<super::judge::Figures>, Violation> {
        let witnesses = |client: &&mut NodeClient| client.form == ClientForm::Witness;
        for client in self.clients.iter_mut().filter(witnesses) {
            client.ask_figures(self.nodes[client.node].net());
        }
        self.settle()?;
        let mut all: Vec<_> = (0..NODES).map(|_| Default::default()).collect();
        for client in self.clients.iter_mut().filter(witnesses) {
            all[client.node] = client.figures.take().unwrap_or_default();
        }
        Ok(all)
    }

    /// Lets time pass until all clients have their answers, and some more.
    fn settle(&mut self) -> Result<(), Violation> {
        for _ in 0..12 {
            self.step(Duration::from_millis(20))?;
        }
        match self.clients.iter().find(|client| !client.is_ready()) {
            Some(client) => Err(client.waits_for().into()),
            None => Ok(()),
        }
    }

    /// Publishes once more everywhere, and compares everything with the shadow.
    fn end(&mut self) -> Result<NodesTally, Violation> {
        let first = self.shadow.publishes.len();
        for channel in 0..CHANNELS {
            let witnesses = |client: &&mut NodeClient| client.form == ClientForm::Witness;
            for client in self.clients.iter_mut().filter(witnesses) {
                let net = self.nodes[client.node].net();
                client.publish_now(channel, net, &mut self.shadow);
            }
            self.publish_outside(channel)?;
        }
        self.settle()?;
        let figures = self.figures()?;
        for link in &self.broker.links {
            let now = self.shadow.tick();
            let record = &mut self.shadow.links[link.record];
            record.read.push((now, record.sent.len()));
        }
        let lives: Vec<usize> = self.nodes.iter().map(|node| node.life).collect();
        judge(&self.shadow, first, &lives, &figures)?;
        Ok(self.tally())
    }

    fn tally(&self) -> NodesTally {
        let shadow = &self.shadow;
        let events: u64 = self.nodes.iter().map(|node| node.reactor.net().trace().events()).sum();
        let count = |count: usize| count as u64;
        NodesTally {
            events: self.tally.events + events,
            seconds: self.now.as_secs_f64() as u64,
            publishes: count(shadow.publishes.len()),
            crossed: count(shadow.log.len()),
            locals: count(shadow.lives.iter().map(|life| life.locals.len()).sum()),
            receipts: count(shadow.receipts()),
            gaps: count(shadow.subscriptions.iter().map(|own| own.gaps.len()).sum()),
            ups: count(shadow.links.iter().filter(|link| link.proved.is_some()).count()),
            replaced: self.broker.replaced,
            refused: count(shadow.publishes.iter().filter(|publish| publish.is_refused).count()),
            ..self.tally
        }
    }
}

fn mix(hash: u64, other: u64) -> u64 {
    (hash ^ other).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29)
}

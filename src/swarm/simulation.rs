//! The run of one seed: the loop, its clients, and the checks after every turn.
//!
//! Three parties check:
//! - The loop checks its own invariants ([`Reactor::check_invariants`]).
//! - The checks beside this file compare the loop with the simulated kernel, and check budgets,
//!   deadlines and the drain.
//! - The clients check the bytes that they receive.
//!
//! Other tests check each limit of a connection.

mod checks;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::board::Board;
use super::datagrams::Datagrams;
use super::hostile::Hostile;
use super::hub_client::HubClient;
use super::line_client::LineClient;
use super::plan::SeedPlan;
use super::socketio_client::SocketIoClient;
use super::web_client::WebClient;
use super::{HonestClient, PASSWORD, Scene, ServiceKind, Tally, Violation, ensure};
use checks::Wait;

use crate::clock::{Tick, Time};
use crate::connection::Reason;
use crate::net::Net;
use crate::net::sim::{ClientId, Faults, SimNet, Trace, TraceEntry};
use crate::reactor::Reactor;
use crate::service::{Options, Secret};
use crate::services::SERVICES;

/// Maximum time after the end of all faults until every honest client is served or closed.
const CALM: Duration = Duration::from_secs(60);

/// Receive window of an honest client after the storm, in bytes.
const WINDOW: usize = 64 * 1024;

/// A run in progress.
pub struct Simulation {
    plan: SeedPlan,
    reactor: Reactor<SimNet>,
    random: fastrand::Rng,
    board: Board,
    services: Vec<(ServiceKind, SocketAddr)>,
    operator: Option<SocketAddr>,
    honest: Vec<Box<dyn HonestClient>>,
    hostile: Vec<Hostile>,
    datagrams: Datagrams,
    clients: u64,
    /// The waiting input of each slot, and the number of turns it has waited.
    waits: Vec<Wait>,
    /// The due time of the first overdue timer, and the number of turns it has stayed the same.
    overdue: (Option<Tick>, usize),
    drained_at: Option<Time>,
    /// The highest number of connections held at once.
    most_held: usize,
}

impl Simulation {
    /// Starts the server of a plan. No client has connected yet.
    pub fn new(plan: SeedPlan) -> Simulation {
        let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x05ee_d0fc_11e4_7500);
        let net = SimNet::with_faults(random.u64(..), Faults::default());
        let mut reactor = Reactor::new(net, plan.limits.clone(), plan.buffers);
        reactor.seed(random.u64(..));
        let options = Options {
            password: plan.has_password.then(|| Secret(PASSWORD.as_bytes().into())),
            operators_by_door: plan.has_operator,
            max_connections: plan.limits.max_connections,
            sid_key: Some(plan.seed),
            ..Options::default()
        };
        let (mut services, mut operator) = (Vec::new(), None);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for service in &plan.services {
            let constructor = SERVICES.iter().find(|(name, _)| *name == service.name());
            let Some((_, constructor)) = constructor else { continue };
            let index = reactor.add_service(constructor(&options));
            let listening = reactor.listen(any, plan.backlog, index).and_then(|address| {
                reactor.bind(address, index)?;
                Ok(address)
            });
            services.extend(listening.map(|address| (*service, address)));
            if plan.has_operator && operator.is_none() {
                operator = reactor.listen_for_operator(any, plan.backlog, index).ok();
            }
        }
        let own_files = reactor.net().open_files();
        reactor.net_mut().set_faults(plan.faults.clone());
        reactor.net_mut().set_file_limit(plan.file_limit.saturating_add(own_files));
        let mut board = Board::default();
        board.datagrams_repeat = plan.faults.datagram_duplicated > 0.0;
        let datagrams = Datagrams::new(board.enrol(u64::MAX));
        let shapes = plan.hostile.iter().zip(1..);
        let hostile = shapes
            .map(|(shape, number)| Hostile::new(*shape, number, &services, &mut random))
            .collect();
        Simulation {
            reactor,
            random,
            board,
            services,
            operator,
            honest: Vec::new(),
            hostile,
            datagrams,
            clients: 0,
            waits: Vec::new(),
            overdue: (None, 0),
            drained_at: None,
            most_held: 0,
            plan,
        }
    }

    /// Calls `watcher` with each event from now on.
    pub fn watch(&mut self, watcher: fn(&TraceEntry)) {
        self.reactor.net_mut().trace_mut().watch(watcher);
    }

    pub fn trace(&self) -> &Trace {
        self.reactor.net().trace()
    }

    /// Returns the plan and the counts of close reasons as text.
    pub fn in_words(&self) -> String {
        let stats = self.reactor.stats();
        let reasons =
            Reason::ALL.into_iter().map(|(reason, name)| (name, stats.closed_for(reason)));
        let reasons =
            reasons.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}"));
        format!("{:#?}\nclosed: {}", self.plan, reasons.collect::<Vec<_>>().join(", "))
    }

    /// Plays the storm, the calm and the end. Fails on the first violation.
    pub fn play(&mut self) -> Result<Tally, Violation> {
        let drain_at =
            if self.plan.drains { self.random.usize(..self.plan.steps) } else { usize::MAX };
        for step in 0..self.plan.steps {
            self.step()?;
            if step == drain_at {
                self.drain();
            }
        }
        self.calm()?;
        self.end()?;
        Ok(self.tally())
    }

    fn drain(&mut self) {
        self.reactor.drain();
        self.drained_at = Some(self.reactor.now());
        let (mut scene, cast) = self.scene();
        scene.board.drain_begins();
        cast.honest.iter_mut().for_each(|client| client.drain_begins(&mut scene));
    }

    /// Lets some clients act and all of them read, then turns the loop a few times.
    fn step(&mut self) -> Result<(), Violation> {
        for _ in 0..self.random.usize(1..6) {
            self.act()?;
        }
        self.look()?;
        for _ in 0..self.random.usize(0..4) {
            let until = self.reactor.net().now();
            self.turn(until)?;
        }
        Ok(())
    }

    fn scene(&mut self) -> (Scene<'_>, Cast<'_>) {
        let is_draining = self.reactor.is_draining();
        let Self { plan, reactor, random, board, honest, hostile, datagrams, services, .. } = self;
        let scene = Scene { net: reactor.net_mut(), random, board, plan, is_draining };
        (scene, Cast { honest, hostile, datagrams, services })
    }

    /// Lets one client act, or lets time pass.
    fn act(&mut self) -> Result<(), Violation> {
        let held = self.honest.len();
        let (mut scene, cast) = self.scene();
        match scene.random.u8(0..100) {
            0..15 if held < scene.plan.honest => self.connect(),
            0..60 if held > 0 => {
                let chosen = scene.random.usize(..held);
                cast.honest[chosen].act(&mut scene);
            }
            60..80 if !cast.hostile.is_empty() => {
                let chosen = scene.random.usize(..cast.hostile.len());
                cast.hostile[chosen].act(&mut scene);
            }
            80..90 => cast.datagrams.act(&mut scene, cast.services),
            90..92 if held > 0 => {
                let chosen = scene.random.usize(..held);
                cast.honest[chosen].leave(&mut scene);
            }
            92..96 => {
                let most = scene.plan.pause_max.as_micros() as u64;
                let pause = Duration::from_micros(scene.random.u64(..=most));
                match scene.random.u8(0..16) {
                    // The process is stopped, sometimes for longer than every timeout.
                    0 => scene.net.advance(Duration::from_secs(3600)),
                    1..4 => scene.net.advance(pause),
                    _ => self.wait(pause)?,
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets the loop wait for up to this time, with at most a few turns of work.
    fn wait(&mut self, pause: Duration) -> Result<(), Violation> {
        let end = self.reactor.net().now() + pause;
        for _ in 0..8 {
            self.turn(end)?;
            if self.reactor.net().now() >= end {
                break;
            }
        }
        Ok(())
    }

    /// Connects an honest client from a new address.
    fn connect(&mut self) {
        // The first service, usually the hub, gets at least half of the clients.
        let chosen = if self.random.bool() { 0 } else { self.random.usize(..self.services.len()) };
        let (service, mut address) = self.services[chosen];
        if let Some(operator) = self.operator.filter(|_| self.services[0].0 == service)
            && self.random.u8(0..4) == 0
        {
            address = operator;
        }
        self.clients += 1;
        let [.., high, low] = (self.clients as u32).to_be_bytes();
        let source = SocketAddr::from(([127, 1, high, low], 5000));
        let Some(id) = self.reactor.net_mut().client_from(address, source) else { return };
        let appetite = if self.random.bool() { usize::MAX } else { self.random.usize(1..400) };
        if service != ServiceKind::Hub {
            return self.honest.push(Box::new(LineClient::new(id, service, appetite)));
        }
        let number = self.board.enrol(id.number());
        self.honest.push(match self.random.u8(0..6) {
            0..2 => Box::new(WebClient::new(id, number, appetite)),
            2..4 => {
                let (ends, random) = ((address, source), &mut self.random);
                Box::new(SocketIoClient::new(id, ends, number, appetite, random))
            }
            _ => Box::new(HubClient::new(id, number, appetite)),
        });
    }

    /// Lets all honest clients read. Forgets finished ones.
    fn look(&mut self) -> Result<(), Violation> {
        let (mut scene, cast) = self.scene();
        for client in cast.honest.iter_mut() {
            client.receive(&mut scene)?;
        }
        cast.datagrams.receive(&mut scene, cast.services)?;
        cast.honest.retain(|client| !client.is_over());
        Ok(())
    }

    /// Turns the loop once and runs all checks.
    fn turn(&mut self, until: Time) -> Result<(), Violation> {
        self.reactor.net_mut().hold_time_at(until);
        let before = self.reactor.stats().work;
        self.reactor
            .turn()
            .map_err(|error| Violation::from(format!("the turn failed: {error}")))?;
        self.reactor.check_invariants();
        self.check_against_the_kernel()?;
        self.check_sources()?;
        self.check_budgets(before)?;
        self.check_deadlines()?;
        self.check_drain()
    }

    /// Turns the loop until this much virtual time has passed.
    fn pass(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.reactor.net().now() + span;
        for _ in 0..100_000 {
            let is_last = self.reactor.net().now() >= end;
            self.turn(end)?;
            if is_last {
                return Ok(());
            }
        }
        Err(format!("the loop spins: 100,000 turns take less than {span:?}").into())
    }

    /// Ends all faults and attacks. Then every honest client must be served or closed within
    /// [`CALM`].
    fn calm(&mut self) -> Result<(), Violation> {
        let faults = Faults { datagram_queue: 1024, ..Faults::default() };
        self.reactor.net_mut().set_faults(faults);
        self.reactor.net_mut().set_file_limit(usize::MAX);
        let (mut scene, cast) = self.scene();
        cast.hostile.iter_mut().for_each(|hostile| hostile.retire(&mut scene));
        // Slow readers become fast.
        for client in cast.honest.iter_mut() {
            client.set_appetite(usize::MAX);
            client.ids().into_iter().for_each(|id| scene.net.set_window(id, WINDOW));
        }
        let start = self.reactor.now();
        loop {
            self.pass(Duration::from_millis(20))?;
            self.look()?;
            let unsatisfied = self.honest.iter().find(|client| !client.is_satisfied());
            let Some(waiting) = unsatisfied.map(|client| client.waits_for()) else { break };
            ensure(self.reactor.now().since(start) < CALM, || {
                format!("not served within {CALM:?}: {waiting}")
            })?;
        }
        // Recent publishes are still under way.
        while !self.is_quiet() {
            self.pass(Duration::from_millis(20))?;
            self.look()?;
            ensure(self.reactor.now().since(start) < CALM, || {
                format!("messages are still under way after {CALM:?}")
            })?;
        }
        self.board.judge()?;
        self.ask_by_datagram()
    }

    /// Checks that each service still answers a datagram, so no UDP socket has missed an edge.
    fn ask_by_datagram(&mut self) -> Result<(), Violation> {
        if self.reactor.is_draining() {
            return Ok(());
        }
        let (mut scene, cast) = self.scene();
        cast.datagrams.ask_all(&mut scene, cast.services);
        self.pass(Duration::from_millis(300))?;
        let (mut scene, cast) = self.scene();
        cast.datagrams.check_answers(&mut scene, cast.services)
    }

    /// True if nothing is under way to an honest client.
    fn is_quiet(&self) -> bool {
        let net = self.reactor.net();
        let present: BTreeSet<ClientId> =
            self.honest.iter().flat_map(|client| client.ids()).collect();
        let mut unsent = 0;
        self.reactor.each_stream(|_, stream, watch| {
            unsent += if present.contains(&net.client_at(stream)) { watch.unsent } else { 0 };
        });
        !self.reactor.has_output()
            && unsent == 0
            && self.honest.iter().all(|client| client.is_quiet())
            && present.iter().all(|client| net.client_has_taken_all(*client))
    }

    /// Makes all clients leave. Then no connection and no buffer may be left.
    fn end(&mut self) -> Result<(), Violation> {
        let (mut scene, cast) = self.scene();
        cast.honest.iter_mut().for_each(|client| client.leave(&mut scene));
        cast.hostile.iter_mut().for_each(|hostile| hostile.leave(&mut scene));
        let start = self.reactor.now();
        while self.reactor.connections() > 0 {
            let held = self.reactor.connections();
            ensure(self.reactor.now().since(start) < CALM, || {
                format!("{held} connections are still held after {CALM:?}")
            })?;
            self.pass(Duration::from_millis(200))?;
        }
        // The listeners need some time for their retries, and the pool for freeing its memory.
        self.pass(Duration::from_secs(3))?;
        self.check_accounts()?;
        let ledger = self.reactor.ledger();
        ensure(ledger.read_buffers + ledger.write_buffers == 0, || {
            format!("buffers are left: {ledger:?}")
        })
    }

    /// Checks that each client in an accept queue was accepted, refused, shed or lost.
    fn check_accounts(&self) -> Result<(), Violation> {
        let (stats, net) = (self.reactor.stats(), self.reactor.net());
        let refused: u64 = stats.refused.iter().sum();
        let came = net.clients_queued();
        let met = stats.accepted + refused + stats.accept_shed + net.accepts_lost();
        // In a dry run, admission counts the clients it would refuse and accepts them.
        let is_right = if self.plan.limits.admission_dry_run { met >= came } else { met == came };
        ensure(is_right || self.reactor.is_draining(), || {
            format!(
                "{came} clients were queued, but {} accepted, {refused} refused, {} shed, {} lost",
                stats.accepted,
                stats.accept_shed,
                net.accepts_lost()
            )
        })
    }

    fn tally(&self) -> Tally {
        let stats = self.reactor.stats();
        let by_peers = stats.closed_for(Reason::PeerClosed) + stats.closed_for(Reason::PeerReset);
        Tally {
            seeds: 1,
            events: self.trace().events(),
            turns: stats.turns,
            seconds: self.reactor.now().since(Time::ZERO).as_secs(),
            clients: self.clients,
            upgrades: self.board.upgrades,
            sockets: self.board.sockets,
            messages: stats.work.messages,
            publishes: self.board.publishes.len() as u64,
            receipts: self.board.receipts() as u64,
            datagrams: stats.datagrams_in,
            datagram_answers: self.datagrams.answered,
            accepted: stats.accepted,
            closed_early: stats.closed_total() - by_peers,
        }
    }
}

/// The participants of a run, borrowed apart from the scene.
struct Cast<'a> {
    honest: &'a mut Vec<Box<dyn HonestClient>>,
    hostile: &'a mut Vec<Hostile>,
    datagrams: &'a mut Datagrams,
    services: &'a [(ServiceKind, SocketAddr)],
}

//! `slabd serve`: builds the loop from a configuration, runs it, and acts on signals.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use log::{error, info, warn};

use crate::config::{Capacity, Config, Listen, SOCKETIO, Setting, SettingSources};
use crate::connection::Reason;
use crate::escape;
use crate::hub::Hub;
use crate::kernel;
use crate::limits::PORT_ATTEMPTS;
use crate::machine::Machine;
use crate::net::mio::MioNet;
use crate::net::{Net, Signal};
use crate::notifier::Notifier;
use crate::reactor::Reactor;
use crate::service::Options;
use crate::services::SERVICES;
use crate::status::Reporter;
use crate::units::Span;

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every connection has closed, or the drain timed out.
    Drained,
    /// A second signal stopped it at once.
    AtOnce,
}

/// Serves until a signal stops it. Fails if an address cannot be listened on.
pub fn serve(sources: &SettingSources, config: Config, machine: Machine) -> Result<Ended> {
    config.warnings.iter().for_each(|warning| warn!("{}", escape::line(warning)));
    let mut net = MioNet::new().context("cannot set up epoll")?;
    net.watch_signals().context("cannot install signal handlers")?;
    net.inherit(machine.inherited.clone().unwrap_or_default());
    net.share_ports(config.reuse_port);
    let mut reactor = Reactor::new(net, config.limits.clone(), config.buffers);
    open(&mut reactor, &config)?;
    reactor.set_report_every(config.limits.report_every);
    let (kernel, (slots, in_budget)) = (kernel::settings(), reactor.capacity());
    let unfit = kernel.warnings(config.backlog, slots);
    unfit.iter().for_each(|warning| warn!("{warning}"));
    let capacity = Capacity::of(&config, &machine, &kernel, (slots, in_budget));
    let (reporter, mut notifier) = (Reporter::new(reactor.now()), Notifier::from_environment());
    let status = format!("up to {capacity}");
    info!("ready: {status}");
    notifier.ready(&status, reactor.began());
    let mut daemon = Daemon { reporter, notifier, reactor, sources, config, machine, status };
    daemon.run()
}

/// Opens the configured listeners. All addresses of one service share one instance.
fn open(reactor: &mut Reactor<MioNet>, config: &Config) -> Result<()> {
    let mut made: Vec<(&str, u8)> = Vec::new();
    let options = Options {
        password: config.requirepass.clone(),
        operators_by_door: config.admin.is_some() && config.operators_only_by_door,
        max_connections: config.limits.max_connections,
        retain: config.retain.clone(),
        routes: Rc::clone(&config.routes),
        demo: config.demo,
        broker: config.broker_settings(),
        sid_key: None,
    };
    for listen in &config.listen {
        let service = match made.iter().find(|(name, _)| *name == listen.service) {
            Some(&(_, index)) => index,
            None => {
                let constructor = SERVICES.iter().find(|(name, _)| *name == listen.service);
                let (_, construct) =
                    constructor.with_context(|| format!("no service '{}'", listen.service))?;
                let index = reactor.add_service(construct(&options));
                made.push((&listen.service, index));
                index
            }
        };
        let address = listen_on(reactor, listen, config, service)?;
        if let Some(demo) = config.demo.filter(|_| listen.tcp && listen.service == "hub") {
            info!("demo {demo}: open http://{address}/ in two windows");
        }
    }
    if let Some(address) = config.admin {
        // The operator shares the clients' hub, if there is one.
        let service = match made.iter().find(|(name, _)| *name == "hub") {
            Some(&(_, index)) => index,
            None => reactor.add_service(Box::new(Hub::new(&options))),
        };
        // The operator speaks to one process, so this address is not shared.
        reactor.net_mut().share_ports(false);
        let bound = reactor.listen_for_operator(address, config.backlog, service);
        let address = bound.map_err(|error| bind_error(error, "tcp", address, "admin", false))?;
        info!(
            "listening on admin {address} (tcp); try: redis-cli -h {} -p {}",
            address.ip(),
            address.port()
        );
    }
    Ok(())
}

fn listen_on<N: Net>(
    reactor: &mut Reactor<N>,
    listen: &Listen,
    config: &Config,
    service: u8,
) -> Result<SocketAddr> {
    let failed = |error: io::Error, transport: &str| {
        bind_error(error, transport, listen.address, &listen.service, config.reuse_port)
    };
    let mut address = listen.address;
    // With port 0 the kernel picks a port for TCP, and UDP needs the same. If another program holds
    // it, the next attempt picks another.
    for attempt in 0..PORT_ATTEMPTS {
        address = listen.address;
        if listen.tcp {
            address = reactor
                .listen(address, config.backlog, service)
                .map_err(|error| failed(error, "tcp"))?;
        }
        if !listen.udp {
            break;
        }
        match reactor.bind(address, service) {
            Ok(bound) => {
                address = bound;
                break;
            }
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && listen.tcp
                    && listen.address.port() == 0 =>
            {
                reactor.unlisten_last();
                if attempt + 1 == PORT_ATTEMPTS {
                    return Err(failed(error, "udp"));
                }
            }
            Err(error) => return Err(failed(error, "udp")),
        }
    }
    let transport = match (listen.tcp, listen.udp) {
        (true, true) => "tcp+udp",
        (true, false) => "tcp",
        _ => "udp",
    };
    let example = reactor.example(service, address, listen.tcp);
    info!("listening on {} {address} ({transport}); try: {example}", listen.service);
    Ok(address)
}

fn bind_error(
    error: io::Error,
    transport: &str,
    address: SocketAddr,
    service: &str,
    shares: bool,
) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse if shares => {
            "the address is already in use; to share it, every process must have reuse-port and \
             run as the same user"
                .into()
        }
        io::ErrorKind::AddrInUse => {
            "the address is already in use; give another port, or 0 for any free one".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; give a port of 1024 or above, or grant CAP_NET_BIND_SERVICE".into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; give one of its addresses, or 0.0.0.0 for all".into()
        }
        _ => error.to_string(),
    };
    anyhow::anyhow!("cannot listen on {address} by {transport} for {service}: {why}")
}

struct Daemon<'a> {
    reactor: Reactor<MioNet>,
    reporter: Reporter,
    notifier: Notifier,
    sources: &'a SettingSources,
    config: Config,
    machine: Machine,
    /// The connections that the server can hold, in words.
    status: String,
}

impl Daemon<'_> {
    fn run(&mut self) -> Result<Ended> {
        while !self.reactor.is_drained() {
            let (began, connections) = (self.reactor.began(), self.reactor.connections());
            if let Some(time) = self.notifier.turned(began, connections) {
                self.reactor.wake_after(time);
            }
            self.reactor.turn().context("poll failed")?;
            let mut signals = self.reactor.take_signals();
            // TERM and INT in one turn count once.
            signals.dedup();
            for signal in signals {
                match signal {
                    Signal::Stop if self.reactor.is_draining() => {
                        warn!(
                            "second stop signal: exiting with {} connections open",
                            self.reactor.connections()
                        );
                        return Ok(Ended::AtOnce);
                    }
                    Signal::Stop => self.drain(),
                    Signal::Reload => {
                        self.notifier.reloading(self.reactor.began());
                        self.reload();
                        self.notifier.ready(&self.status, self.reactor.began());
                    }
                    Signal::Status => info!("status:{}", self.reporter.status(&self.reactor)),
                }
            }
            // A client may have stopped it, too.
            if self.reactor.is_draining() {
                let connections = self.reactor.connections();
                let status = format!("stopping: {connections} connections to finish");
                self.notifier.stopping(&status, self.reactor.began());
            }
            if self.reactor.take_report_due() {
                info!("{}", self.reporter.report(&self.reactor));
            }
        }
        match self.reactor.stats().closed_for(Reason::DrainTimeout) {
            0 => info!("drained: every connection has closed"),
            count => warn!("drain timed out: {count} connections cut off"),
        }
        Ok(Ended::Drained)
    }

    fn drain(&mut self) {
        let timeout = self.config.limits.drain_timeout;
        info!(
            "stopping: {} connections have {} to finish",
            self.reactor.connections(),
            Span(timeout)
        );
        self.reactor.drain();
    }

    /// Applies the settings that can change while the server runs, and logs the names of the
    /// others. A configuration that cannot be used changes nothing.
    fn reload(&mut self) {
        let new = match self.sources.load(&self.machine) {
            Ok(new) => new,
            Err(error) => {
                let why = error.to_string();
                return error!("configuration not changed: {}", escape::line(&why));
            }
        };
        new.warnings.iter().for_each(|warning| warn!("{}", escape::line(warning)));
        // CONFIG SET may have changed the limits since.
        self.config.limits = self.reactor.limits().clone();
        let changes = new.changes(&self.config);
        let (live, fixed): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(setting, ..)| matches!(setting, Setting::Live(_)));
        let mut names: Vec<_> = fixed.iter().map(|(setting, ..)| setting.name()).collect();
        if new.routes != self.config.routes {
            names.push(SOCKETIO);
        }
        if !names.is_empty() {
            warn!("these settings need a restart to change: {}", names.join(", "));
        }
        for (setting, old, new) in &live {
            info!("{}: {} -> {}", setting.name(), escape::line(old), escape::line(new));
        }
        if !live.is_empty() {
            self.config.limits = new.limits.clone();
            self.reactor.set_limits(new.limits);
        }
        info!(
            "configuration read again: {}",
            if live.is_empty() { "no limit changed" } else { "the new limits are in force" }
        );
    }
}

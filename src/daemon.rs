//! `slabd serve`: builds the loop from a configuration, turns it, and does what signals ask.

use std::io;

use anyhow::{Context, Result};
use log::{error, info, warn};

use crate::clock::{Clock, Time};
use crate::config::{Config, Listen, Setting, SettingSources};
use crate::connection::Reason;
use crate::hub::Hub;
use crate::kernel;
use crate::limits::{DEFAULT_FILE_LIMIT, PORT_ATTEMPTS};
use crate::memory::OBJECTS_BYTES_DEFAULT;
use crate::net::mio::MioNet;
use crate::net::{Net, Signal};
use crate::reactor::Reactor;
use crate::service::Options;
use crate::services::SERVICES;
use crate::status::Reporter;
use crate::sys;
use crate::units::Span;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every connection was closed in order, or the drain's time was up.
    Drained,
    /// A second signal asked to stop at once.
    AtOnce,
}

/// Serves until a signal ends it.
pub fn serve(sources: &SettingSources, config: Config, file_limit: u64) -> Result<Ended> {
    // As many as there may be, and as the budget has room for.
    let connections = config.limits.max_connections.min(config.limits.memory_budget / OBJECTS_BYTES_DEFAULT as usize);
    let unfit = kernel::settings().warnings(config.backlog, connections);
    config.warnings.iter().chain(&unfit).for_each(|warning| warn!("{warning}"));
    let mut net = MioNet::new().context("cannot set up epoll")?;
    net.watch_signals().context("cannot take over signals")?;
    let mut reactor = Reactor::new(net, config.limits.clone(), config.buffers);
    open(&mut reactor, &config)?;
    reactor.set_report_every(config.limits.report_every);
    let mut daemon = Daemon { reporter: Reporter::new(reactor.now()), reactor, sources, config, file_limit };
    info!("ready: up to {} connections", daemon.config.limits.max_connections);
    daemon.run()
}

/// Listens as configured. Services of one name share one value, whatever the number of addresses.
fn open<N: Net>(reactor: &mut Reactor<N>, config: &Config) -> Result<()> {
    let mut made: Vec<(&str, u8)> = Vec::new();
    let options = Options {
        password: config.requirepass.clone(),
        datagram_rate: config.datagram_rate,
        max_connections: config.limits.max_connections,
        unix_start: Clock::unix_time().saturating_sub(reactor.now().since(Time::ZERO)),
    };
    for listen in &config.listen {
        let service = match made.iter().find(|(name, _)| *name == listen.service) {
            Some(&(_, index)) => index,
            None => {
                let constructor = SERVICES.iter().find(|(name, _)| *name == listen.service);
                let (_, construct) = constructor.with_context(|| format!("no service '{}'", listen.service))?;
                let index = reactor.add_service(construct(&options));
                made.push((&listen.service, index));
                index
            }
        };
        listen_on(reactor, listen, config.backlog, service)?;
    }
    if let Some(address) = config.admin {
        // The same hub as everybody's, if there is one.
        let service = match made.iter().find(|(name, _)| *name == "hub") {
            Some(&(_, index)) => index,
            None => reactor.add_service(Box::new(Hub::new(&options))),
        };
        let bound = reactor.listen_for_operator(address, config.backlog, service);
        let address = bound.with_context(|| format!("cannot listen on {address} for the operator"))?;
        info!("listening on admin {address} (tcp); try: redis-cli -h {} -p {}", address.ip(), address.port());
    }
    Ok(())
}

fn listen_on<N: Net>(reactor: &mut Reactor<N>, listen: &Listen, backlog: u32, service: u8) -> Result<()> {
    let mut address = listen.address;
    // With port 0 the kernel picks a port for TCP, and UDP must then get the same: another program may hold it there.
    for attempt in 0..PORT_ATTEMPTS {
        address = listen.address;
        if listen.tcp {
            address = reactor.listen(address, backlog, service).map_err(|error| bind_error(error, "tcp", listen))?;
        }
        if !listen.udp {
            break;
        }
        match reactor.bind(address, service) {
            Ok(bound) => {
                address = bound;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && listen.tcp && listen.address.port() == 0 => {
                reactor.unlisten_last();
                if attempt + 1 == PORT_ATTEMPTS {
                    return Err(bind_error(error, "udp", listen));
                }
            }
            Err(error) => return Err(bind_error(error, "udp", listen)),
        }
    }
    let transport = match (listen.tcp, listen.udp) {
        (true, true) => "tcp+udp",
        (true, false) => "tcp",
        _ => "udp",
    };
    let example = reactor.example(service, address, listen.tcp);
    info!("listening on {} {address} ({transport}); try: {example}", listen.service);
    Ok(())
}

fn bind_error(error: io::Error, transport: &str, listen: &Listen) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied; ports below 1024 need privileges".to_string(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_string(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("cannot listen on {} by {transport} for {}: {why}", listen.address, listen.service)
}

struct Daemon<'a> {
    reactor: Reactor<MioNet>,
    reporter: Reporter,
    sources: &'a SettingSources,
    config: Config,
    file_limit: u64,
}

impl Daemon<'_> {
    fn run(&mut self) -> Result<Ended> {
        while !self.reactor.is_drained() {
            self.reactor.turn().context("poll failed")?;
            let mut signals = self.reactor.take_signals();
            // TERM and INT together are one wish.
            signals.dedup();
            for signal in signals {
                match signal {
                    Signal::Stop if self.reactor.is_draining() => {
                        warn!("told to stop again: exiting with {} connections open", self.reactor.connections());
                        return Ok(Ended::AtOnce);
                    }
                    Signal::Stop => self.drain(),
                    Signal::Reload => self.reload(),
                    Signal::Status => info!("status:{}", self.reporter.status(&self.reactor)),
                }
            }
            if self.reactor.take_report_due() {
                info!("{}", self.reporter.report(&self.reactor));
            }
        }
        match self.reactor.stats().closed_for(Reason::DrainTimeout) {
            0 => info!("drained; goodbye"),
            count => warn!("drain-timeout is over: {count} connections cut off; goodbye"),
        }
        Ok(Ended::Drained)
    }

    fn drain(&mut self) {
        let timeout = self.config.limits.drain_timeout;
        info!("stopping: {} connections to close, within {}", self.reactor.connections(), Span(timeout));
        self.reactor.drain();
    }

    /// Takes over what can change while running, and names what cannot. An unusable configuration changes nothing.
    fn reload(&mut self) {
        let new = match self.sources.load(self.file_limit) {
            Ok(new) => new,
            Err(error) => return error!("configuration not changed: {error}"),
        };
        new.warnings.iter().for_each(|warning| warn!("{warning}"));
        // What holds now may have come from CONFIG SET.
        self.config.limits = self.reactor.limits().clone();
        let changes = new.changes(&self.config);
        let (live, fixed): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(setting, ..)| matches!(setting, Setting::Live(_)));
        if !fixed.is_empty() {
            let names: Vec<_> = fixed.iter().map(|(setting, ..)| setting.name()).collect();
            warn!("changed only by a restart: {}", names.join(", "));
        }
        for (setting, old, new) in &live {
            info!("{}: {old} -> {new}", setting.name());
        }
        if !live.is_empty() {
            self.config.limits = new.limits.clone();
            self.reactor.set_limits(new.limits);
        }
        info!(
            "configuration read again: {}",
            if live.is_empty() { "nothing else changed" } else { "what can change is in force" }
        );
    }
}

/// How many files this process may open, after asking for as many as allowed.
pub fn file_limit() -> u64 {
    sys::raise_file_limit().unwrap_or(DEFAULT_FILE_LIMIT)
}

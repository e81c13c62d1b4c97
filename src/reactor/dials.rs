//! Dials: the connections that the loop opens for services.
//!
//! Phase 8 begins a dial. A name is looked up beside the loop, and its addresses are tried in turn.
//! An attempt has a slot from its start, in the state `Connecting`, and phase 5 handles its answer.
//! Then the service is told, and the connection is served like an accepted one. Its service judges
//! the peer, so no deadline, limit on output or eviction that is meant for clients applies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::debug;

use super::Reactor;
use super::core::{Core, LoopTimer, timer_id};
use super::dial_table::{DialAttempt, DialStep, LookUp};
use crate::buffer::Keep;
use crate::clock::{Tick, Time};
use crate::connection::{Connection, Reason};
use crate::limits::{DIAL_ADDRESSES_MAX, DIALLED_MAX, EXEMPT_SHARE, LOOKUPS_MAX, Limits};
use crate::net::{ConnectOptions, Net};
use crate::service::{ConnectionId, Dial, Reply};
use crate::sources::SourceId;
use crate::token::Token;

impl<N: Net> Reactor<N> {
    /// Begins the dials that the services asked for in this turn, and goes on with those whose name
    /// is found.
    pub(super) fn dial(&mut self, now: Time) {
        if !self.outbox.has_dials() && !self.core.dials.names_due {
            return;
        }
        for (service, dial) in self.outbox.take_dials() {
            self.begin_dial(service, dial, now.tick());
        }
        if std::mem::take(&mut self.core.dials.names_due) {
            while let Some((look_up, found)) = self.core.net.resolved() {
                self.name_answered(look_up, &found, now.tick());
            }
        }
        self.core.arm_dials();
    }

    fn begin_dial(&mut self, service: u8, dial: Dial, now: Tick) {
        let Dial { number, host, port, timeout } = dial;
        let due = now.plus(Tick::count(timeout));
        let (untried, error) = (Vec::new(), String::new());
        let step = DialStep::Name(self.core.dials.look_up_next);
        let mut dial = DialAttempt { service, number, timeout, due, untried, step, error };
        let refusal = match self.core.dials.has_stopped {
            true => Some("the server is stopping".into()),
            false if self.core.dials_held() < DIALLED_MAX => None,
            false => Some(format!("{DIALLED_MAX} connections are dialled already")),
        };
        if let Some(refusal) = refusal {
            dial.error = refusal;
            return self.fail_dial(dial);
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            dial.untried.push(SocketAddr::new(address, port));
            return self.try_next(dial, now);
        }
        match self.core.look_up(&host, port) {
            Ok(look_up) => {
                dial.step = DialStep::Name(look_up);
                self.core.dials.under_way.push(dial);
            }
            Err(error) => {
                dial.error = error;
                self.fail_dial(dial);
            }
        }
    }

    /// Hands the answer of a look-up to the dials that wait for it.
    fn name_answered(&mut self, look_up: u32, found: &io::Result<Vec<SocketAddr>>, now: Tick) {
        self.core.dials.look_ups.retain(|one| one.number != look_up);
        while let Some(mut dial) = self.core.dials.take(|dial| dial.step == DialStep::Name(look_up))
        {
            match found {
                Ok(addresses) => {
                    let tried = addresses.iter().take(DIAL_ADDRESSES_MAX);
                    dial.untried = tried.rev().copied().collect();
                    dial.error = "name has no address".into();
                }
                Err(error) => dial.error = in_words(error),
            }
            self.try_next(dial, now);
        }
    }

    /// Connects to the next address of a dial. The dial fails if none is left.
    fn try_next(&mut self, mut dial: DialAttempt, now: Tick) {
        while let Some(address) = dial.untried.pop() {
            match self.core.connect(address, dial.service, now) {
                Ok(slot) => {
                    debug!("dials {address} in slot {slot}");
                    let left = dial.due.distance_from(now).max(0) as u32;
                    let due = now.plus(left / (dial.untried.len() as u32 + 1));
                    dial.step = DialStep::Address { slot, address, due };
                    return self.core.dials.under_way.push(dial);
                }
                Err(error) => dial.error = error,
            }
        }
        self.fail_dial(dial);
    }

    /// Tells the service that a dial has failed.
    fn fail_dial(&mut self, dial: DialAttempt) {
        self.core.stats.dials_failed += 1;
        let Reactor { core, services, outbox, .. } = self;
        let mut reply = Reply::to_nobody(core.now, outbox.bytes_mut());
        services[dial.service as usize].dialled(dial.number, Err(dial.error), &mut reply);
        // Nobody is there to take an answer.
        reply.truncate(0);
    }

    /// Handles an event of an attempt: the connection is open, or its address has failed.
    pub(super) fn dial_ready(&mut self, slot: u32, now: Tick) {
        let Reactor { core, services, outbox, .. } = self;
        let answer = core.net.connected(&core.connections[slot as usize].stream);
        if matches!(answer, Ok(false)) {
            return;
        }
        let Some(mut dial) = core.dials.take(|dial| dial.slot() == Some(slot)) else { return };
        let DialStep::Address { address, .. } = dial.step else { return };
        if let Err(error) = answer {
            debug!("cannot connect to {address}: {error}");
            dial.error = in_words(&error);
            core.close(slot, Reason::of_error(&error));
            self.try_next(dial, now);
            return self.core.arm_dials();
        }
        core.arm_dials();
        core.stats.dialled += 1;
        let connection = &mut core.connections[slot as usize];
        let before = connection.state();
        connection.answered(now);
        core.stats.moved(before, connection.state());
        // The answer may have brought input along.
        if connection.has_input_waiting() {
            core.enqueue(slot);
        }
        let start = outbox.position();
        let reply = Reply::to(ConnectionId(slot), core.now, outbox.bytes_mut());
        let mut reply = reply.from(address);
        services[dial.service as usize].dialled(dial.number, Ok(address), &mut reply);
        let (close, wakes) = (reply.closes_for(), reply.wakes_by());
        if let Some(due) = wakes {
            core.timers.arm_by(timer_id(slot), due);
        }
        outbox.commit(slot, start, close);
    }

    /// Gives up the attempts and the dials that have run out of time.
    pub(super) fn expire_dials(&mut self, now: Tick) {
        let is_due = |dial: &DialAttempt| dial.next_due().distance_from(now) <= 0;
        while let Some(mut dial) = self.core.dials.take(is_due) {
            let after = in_units(dial.timeout);
            dial.error = match dial.step {
                DialStep::Name(_) => format!("name lookup timed out after {after}"),
                DialStep::Address { slot, .. } => {
                    self.core.close(slot, Reason::PeerVanished);
                    format!("timed out after {after}")
                }
            };
            match dial.due.distance_from(now) <= 0 {
                true => self.fail_dial(dial),
                false => self.try_next(dial, now),
            }
        }
        self.core.arm_dials();
    }
}

impl<N: Net> Core<N> {
    /// Returns the connections that count against [`DIALLED_MAX`]: open ones, and dials under way.
    fn dials_held(&self) -> usize {
        let dials = self.dials.under_way.iter();
        self.admission.sources.dialled() + dials.filter(|dial| dial.slot().is_none()).count()
    }

    /// Returns the number of the look-up of a name, which begins unless it is under way.
    fn look_up(&mut self, host: &str, port: u16) -> Result<u32, String> {
        if let Some(number) = self.dials.look_up(host, port) {
            return Ok(number);
        }
        if self.dials.look_ups.len() >= LOOKUPS_MAX {
            return Err(format!("{LOOKUPS_MAX} names are being looked up already"));
        }
        let number = self.dials.look_up_next;
        self.net.resolve(number, host, port).map_err(|error| in_words(&error))?;
        self.dials.look_up_next = number.wrapping_add(1);
        self.dials.look_ups.push(LookUp { number, host: host.into(), port });
        Ok(number)
    }

    /// Starts to connect to an address, and gives the connection its slot.
    fn connect(&mut self, address: SocketAddr, service: u8, now: Tick) -> Result<u32, String> {
        let slot = self.connections.vacant_key() as u32;
        let token = Token::connection(slot, self.generation);
        let stream = self.net.connect(address, &ConnectOptions::default(), token);
        let stream = stream.map_err(|error| in_words(&error))?;
        self.pool.keep_slot(slot, Keep::Always);
        self.admission.sources.connected(SourceId::DIALLED, false);
        let connection = Connection::dialled(stream, self.generation, service, now);
        let (slot, has_room) = self.occupy(connection);
        if !has_room {
            self.close(slot, Reason::MemoryBudget);
            let budget = self.limits.memory_budget;
            return Err(format!("memory-budget of {budget} bytes is used up"));
        }
        self.arm(slot);
        Ok(slot)
    }

    /// Arms the timer of the dials for the first deadline.
    fn arm_dials(&mut self) {
        match self.dials.next_due(self.now.tick()) {
            Some(due) => self.arm_loop_timer_at(LoopTimer::Dials, due),
            None => self.timers.disarm(LoopTimer::Dials as u32),
        }
    }

    /// Gives up all dials, and begins no more.
    pub(super) fn stop_dials(&mut self) {
        self.dials.has_stopped = true;
        for slot in self.dials.slots() {
            self.close(slot, Reason::Drain);
        }
        self.dials.under_way.clear();
        self.arm_dials();
    }
}

/// Returns the bound on a buffer of a dialled connection: `most`, or less under a small memory
/// budget. The buffers are never evicted, so they must leave most of the budget to others.
pub fn dialled_max(most: usize, limits: &Limits) -> usize {
    most.min(limits.memory_budget / EXEMPT_SHARE)
}

/// Returns the reason of a failure without the number of the error.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::NotFound => "name not known".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

/// Returns a length of time with its unit: `1 s`, `250 ms`.
fn in_units(time: Duration) -> String {
    match time.as_millis() {
        whole if whole.is_multiple_of(1000) => format!("{} s", whole / 1000),
        odd => format!("{odd} ms"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::rc::Rc;

    use super::*;
    use crate::buffer::BufferMode;
    use crate::net::mio::MioNet;
    use crate::service::server::Server;
    use crate::service::{Output, Service, Taken};

    /// Dials once, and notes what it gets.
    #[derive(Default)]
    struct Once {
        dial: Option<Dial>,
        got: Rc<RefCell<Vec<String>>>,
    }

    impl Service for Once {
        fn dialled(
            &mut self,
            number: u32,
            outcome: Result<SocketAddr, String>,
            reply: &mut Reply<'_>,
        ) {
            let text = outcome.map_or_else(|error| error, |address| address.ip().to_string());
            self.got.borrow_mut().push(format!("{number}: {text}"));
            reply.send(b"hello");
        }

        fn receive(
            &mut self,
            input: &mut [u8],
            _scanned: usize,
            reply: &mut Reply<'_>,
            _server: &mut dyn Server,
        ) -> Taken {
            self.got.borrow_mut().push(String::from_utf8_lossy(input).into());
            reply.close();
            Taken::Message(input.len())
        }

        fn datagram(&mut self, _: &[u8], _: &mut Reply<'_>, _: &mut dyn Server) {}

        fn has_output(&self) -> bool {
            self.dial.is_some()
        }

        fn collect(&mut self, output: &mut Output<'_>) {
            self.dial.take().into_iter().for_each(|dial| output.dial(dial));
        }
    }

    /// Dials on the real network until there are `count` results. Returns them.
    fn dial(host: &str, port: u16, count: usize) -> Vec<String> {
        let net = MioNet::new().unwrap();
        let mut reactor = Reactor::new(net, Limits::default(), BufferMode::Pooled);
        let timeout = Duration::from_secs(10);
        let dial = Some(Dial { number: 7, host: host.into(), port, timeout });
        let got = Rc::new(RefCell::new(Vec::new()));
        reactor.add_service(Box::new(Once { dial, got: got.clone() }));
        reactor.set_report_every(Duration::from_secs(20));
        while got.borrow().len() < count {
            reactor.turn().unwrap();
            reactor.check_invariants();
            assert!(!reactor.take_report_due(), "no more than {:?} in 20 s", got.borrow());
        }
        got.take()
    }

    #[test]
    fn a_dial_on_real_sockets_reaches_a_name_and_an_address() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let peer = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).unwrap();
                stream.write_all(b"welcome").unwrap();
                hello
            });
            assert_eq!(dial(host, port, 2), ["7: 127.0.0.1", "welcome"], "{host}");
            assert_eq!(&peer.join().unwrap(), b"hello");
        }
    }

    #[test]
    fn a_dial_on_real_sockets_is_refused_in_words() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(dial(host, port, 1), ["7: connection refused"], "{host}");
        }
    }

    #[test]
    fn a_length_of_time_is_told_in_seconds_if_it_is_whole() {
        let told = [1000, 250, 61_000, 1500, 0].map(|ms| in_units(Duration::from_millis(ms)));
        assert_eq!(told, ["1 s", "250 ms", "61 s", "1500 ms", "0 s"]);
    }
}

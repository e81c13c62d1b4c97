//! The invariants of the loop: facts that hold between any two turns. Tests and simulations check
//! them after every turn. The server does not, because the checks walk all connections.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Reactor;
use super::core::{Carry, Core, LoopTimer, timer_id};
use crate::clock::Tick;
use crate::connection::{Connection, Flags, State};
use crate::net::Net;
use crate::service::ConnectionId;
use crate::sources::SourceId;
use crate::token::Token;

/// The loop's view of one stream: the edges that the loop relies on, and the bytes that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// True if the loop reads the stream again only after a readable edge.
    pub relies_on_input_edge: bool,
    /// True if the loop writes the unsent output only after a writable edge.
    pub relies_on_room_edge: bool,
    /// True if a short read does not mean drained: see [`Ready::read_on`](crate::net::Ready).
    pub reads_on: bool,
    /// True if the connection is neither paused nor closing.
    pub reads: bool,
    /// Input in the connection's buffer that is not decoded yet, in bytes.
    pub held: usize,
    /// Output in the connection's buffer, in bytes.
    pub unsent: usize,
    /// The source that the connection comes from.
    pub source: SourceId,
}

/// The state of the loop between two turns, which simulations compare with their own records.
impl<N: Net> Reactor<N> {
    /// Calls `each` with the slot and the stream of every connection.
    pub fn each_stream(&self, mut each: impl FnMut(u32, &N::Stream, Watch)) {
        for (slot, connection) in &self.core.connections {
            let flags = connection.flags;
            let watch = Watch {
                relies_on_input_edge: connection.reads() && !flags.has(Flags::READABLE),
                relies_on_room_edge: flags.has(Flags::BLOCKED),
                reads_on: flags.has(Flags::READ_ON),
                reads: connection.reads() && !flags.has(Flags::PAUSED),
                held: self.core.pool.len(&connection.input),
                unsent: self.core.pool.len(&connection.output),
                source: connection.source,
            };
            each(slot as u32, &connection.stream, watch);
        }
    }

    /// Returns the number of listeners and datagram sockets. Each has one open file.
    pub fn ports(&self) -> usize {
        self.core.listeners.len() + self.core.sockets.len()
    }

    /// Returns true while deadlines wait for input that arrived when the process was stopped.
    pub fn is_held_for_input(&self) -> bool {
        self.core.catching_up_since.is_some()
    }

    /// Returns when the first overdue timer was due. A timer is overdue if the budget of expiries
    /// was used up, or if phase 8, 9 or 10 armed it for the past.
    pub fn overdue(&self) -> Option<Tick> {
        let due = self
            .core
            .timers
            .next_fires()
            .filter(|tick| tick.distance_from(self.core.now.tick()) <= 0);
        due.filter(|_| self.core.catching_up_since.is_none())
    }

    /// Panics if an invariant of the loop is broken, and names it. Walks all connections.
    pub fn check_invariants(&self) {
        self.check_turn_is_finished();
        self.check_work_lists();
        self.check_connections();
        self.check_states();
        self.check_silent_set();
        self.check_sources();
        self.check_buffers();
        self.check_timers();
        self.check_dials();
        self.check_slots();
        self.check_services();
        self.check_budget();
    }

    /// The turn has handed all output to connections, and all flushes to the network.
    fn check_turn_is_finished(&self) {
        let turn = &self.core.turn;
        assert!(self.outbox.is_empty(), "the outbox still holds output of the turn");
        assert!(turn.flushes.is_empty(), "the turn ended before all flushes were done");
        assert!(turn.drained.is_empty(), "the turn ended before all drained connections closed");
    }

    /// The carry lists name each connection, listener and socket at most once.
    fn check_work_lists(&self) {
        let Carry { acceptable, ready, receivable, closed, told } = &self.core.carry;
        let is_unique =
            |list: &VecDeque<u8>| list.iter().collect::<HashSet<_>>().len() == list.len();
        assert!(is_unique(acceptable), "a listener is carried twice");
        assert!(is_unique(receivable), "a datagram socket is carried twice");
        let queued: HashSet<Token> = ready.iter().copied().collect();
        assert_eq!(queued.len(), ready.len(), "a connection is carried twice");
        assert_eq!(*told, closed.len(), "the services were not notified of a closed connection");
        let to_reap: HashSet<u32> = closed.iter().map(|(slot, _)| *slot).collect();
        assert_eq!(to_reap.len(), closed.len(), "a closed connection is on the reap list twice");
        for (slot, connection) in &self.core.connections {
            let is_closed = matches!(connection.state(), State::Closed(_));
            let will_reap = to_reap.contains(&(slot as u32));
            assert_eq!(is_closed, will_reap, "slot {slot}: the state and the reap list disagree");
            let token = Token::connection(slot as u32, connection.generation);
            let is_queued = connection.flags.has(Flags::QUEUED);
            assert!(
                is_closed || is_queued == queued.contains(&token),
                "slot {slot}: the flag QUEUED is {is_queued}, but the carry list disagrees"
            );
        }
    }

    /// Each open connection has a timer. Its input and output each wait for an edge or a later
    /// turn.
    fn check_connections(&self) {
        for (slot, connection) in &self.core.connections {
            if !matches!(connection.state(), State::Closed(_)) {
                self.check_deadline(slot as u32);
                self.check_input(slot, connection);
                self.check_output(slot, connection);
            }
        }
    }

    fn check_deadline(&self, slot: u32) {
        let core = &self.core;
        let fires = core.timers.fires(timer_id(slot));
        let fires = fires.expect("every slot has a timer in the wheel");
        if let Some((due, reason)) = self.deadline_of(slot) {
            // A deadline that had passed when the timer was armed fires at once.
            let is_in_time =
                fires.distance_from(due) <= 0 || fires.distance_from(core.now.tick()) <= 0;
            assert!(
                is_in_time,
                "slot {slot}: the timer fires later than the deadline for {reason:?}"
            );
        }
        if let Some(due) = self.wakes(slot) {
            let late = fires.distance_from(due).min(fires.distance_from(core.now.tick()));
            assert!(late <= 0, "slot {slot}: the timer fires later than its service wakes");
        }
    }

    fn check_input(&self, slot: usize, connection: &Connection<N::Stream>) {
        let flags = connection.flags;
        let waits =
            connection.reads() && connection.has_input_waiting() && !flags.has(Flags::PAUSED);
        assert!(
            !waits || flags.has(Flags::QUEUED),
            "slot {slot} has undrained input but is not queued"
        );
        let has_counted = connection.has_spoken() && !flags.has(Flags::UNTRUSTED);
        assert!(
            !has_counted || !flags.has(Flags::SILENT),
            "slot {slot} has completed a message but is still in the silent set"
        );
        let is_operator = connection.source == SourceId::OPERATOR;
        assert!(
            !is_operator || !flags.has(Flags::SILENT),
            "slot {slot}: an operator's connection is in the silent set"
        );
    }

    fn check_output(&self, slot: usize, connection: &Connection<N::Stream>) {
        let (core, flags) = (&self.core, connection.flags);
        let unsent = core.pool.len(&connection.output);
        assert!(
            unsent == 0 || flags.has(Flags::BLOCKED) || flags.has(Flags::QUEUED),
            "slot {slot} has {unsent} bytes unsent, but waits for neither an edge nor a turn"
        );
        assert!(!flags.has(Flags::IN_OUTBOX), "slot {slot} has the flag IN_OUTBOX after the turn");
        assert!(
            !flags.has(Flags::BLOCKED) || flags.has(Flags::WATCHES_WRITABLE),
            "slot {slot} is blocked but not registered for writable edges"
        );
        assert!(
            !flags.has(Flags::PAUSED) || unsent > core.limits.low_watermark,
            "slot {slot} is paused with only {unsent} bytes unsent"
        );
        assert!(
            !flags.has(Flags::OVER_SOFT_LIMIT) || unsent > 0,
            "slot {slot} is over the soft limit with nothing unsent"
        );
    }

    /// The counts by state match the connections. A closed connection counts in its last open
    /// state.
    fn check_states(&self) {
        let core = &self.core;
        let before: HashMap<u32, State> = core.carry.closed.iter().copied().collect();
        let mut states = [0; State::NAMES.len()];
        for (slot, connection) in &core.connections {
            let state = before.get(&(slot as u32)).copied().unwrap_or(connection.state());
            states[state.index()] += 1;
        }
        assert_eq!(core.stats.states, states, "the counts by state differ from the connections");
        let open = core.connections.len() as u64 - states[State::Connecting.index()];
        assert_eq!(
            core.stats.accepted + core.stats.dialled,
            open + core.stats.closed_total(),
            "the accepted and dialled connections are not the open plus the closed ones"
        );
    }

    /// The silent set consists of the connections with the flag SILENT.
    fn check_silent_set(&self) {
        let silent = self.core.connections.iter().filter_map(|(slot, connection)| {
            let token = Token::connection(slot as u32, connection.generation);
            connection.flags.has(Flags::SILENT).then_some(token)
        });
        self.core.admission.check_invariants(silent.collect());
    }

    /// The counts of every source match its connections. The table of sources is large, so only
    /// some turns walk it. Such a turn also finds a wrong count of a source without connections.
    fn check_sources(&self) {
        let core = &self.core;
        let sources = core.connections.iter();
        let sources =
            sources.map(|(_, connection)| (connection.source, connection.flags.has(Flags::SILENT)));
        let walks_table = core.connections.is_empty() || core.stats.turns.is_multiple_of(16);
        core.admission.sources.check_invariants(sources, walks_table);
    }

    /// The connections hold exactly the lent buffers, and the pool reserves memory for their slots.
    fn check_buffers(&self) {
        let core = &self.core;
        core.pool.check_invariants();
        let (mut input, mut output, mut buffers) = (0, 0, 0);
        for (_, connection) in &core.connections {
            input += core.pool.capacity(&connection.input);
            output += core.pool.capacity(&connection.output);
            buffers +=
                usize::from(connection.input.is_some()) + usize::from(connection.output.is_some());
        }
        assert_eq!(core.pool.lent(), buffers, "the connections do not hold all lent buffers");
        assert_eq!(core.pool.read_bytes(), input, "the bytes of input buffers are miscounted");
        assert_eq!(core.pool.write_bytes(), output, "the bytes of output buffers are miscounted");
        let kernel = core.start.kernel_objects.bytes as usize * core.connections.len();
        assert_eq!(
            core.pool.reserved,
            core.slots_used * Core::<N>::BYTES_PER_CONNECTION + kernel,
            "the reserved bytes are not those of the slots and the kernel's objects"
        );
    }

    /// The armed timers are one for each open connection, and some of the loop. A closed connection
    /// may have kept its timer.
    fn check_timers(&self) {
        let core = &self.core;
        core.timers.check_invariants();
        let is_armed = |timer: &LoopTimer| core.timers.fires(*timer as u32).is_some();
        let of_loop = LoopTimer::ALL.iter().filter(|timer| is_armed(timer)).count();
        let slots = core.connections.iter().map(|(slot, _)| timer_id(slot as u32));
        assert_eq!(
            core.timers.armed(),
            slots.filter(|id| core.timers.fires(*id).is_some()).count() + of_loop,
            "a timer is armed for no connection, or missing for one"
        );
    }

    /// Each dial that connects has a connection, and each connection in this state has a dial. The
    /// timer of the dials fires by the earliest deadline.
    fn check_dials(&self) {
        let core = &self.core;
        let connecting = core.connections.iter().filter_map(|(slot, connection)| {
            (connection.state() == State::Connecting).then_some(slot as u32)
        });
        let mut slots = core.dials.slots();
        slots.sort_unstable();
        assert_eq!(slots, connecting.collect::<Vec<_>>(), "dials and connections disagree");
        let due = core.dials.next_due(core.now.tick());
        let fires = core.timers.fires(LoopTimer::Dials as u32);
        assert!(
            due.is_none_or(|due| fires.is_some_and(|fires| fires.distance_from(due) <= 0)),
            "the timer of the dials fires later than the first deadline"
        );
    }

    /// The slots in use are below `slots_used`, which is at most the capacity of the slab.
    fn check_slots(&self) {
        let core = &self.core;
        let highest = core.connections.iter().last().map_or(0, |(slot, _)| slot + 1);
        assert!(highest <= core.slots_used, "a slot beyond the watermark of slots is in use");
        assert!(
            core.slots_used <= core.connections.capacity(),
            "more slots are used than the slab holds"
        );
    }

    /// The services keep their own invariants. Their sessions match their connections.
    fn check_services(&self) {
        for (index, service) in self.services.iter().enumerate() {
            service.check_invariants();
            let own = self
                .core
                .connections
                .iter()
                .filter(|(_, connection)| usize::from(connection.flags.service()) == index)
                .filter(|(_, connection)| !connection.is_dialled());
            let held: Vec<(ConnectionId, bool)> = own
                .map(|(slot, connection)| {
                    let is_closed = matches!(connection.state(), State::Closed(_));
                    (ConnectionId(slot as u32), !is_closed)
                })
                .collect();
            service.check_connections(&held);
        }
        let services = &self.services;
        let bytes = services.iter().map(|service| service.bytes()).sum::<usize>();
        let fixed = services.iter().map(|service| service.fixed_bytes()).sum::<usize>();
        let ledger = self.core.upkeep.services_bytes;
        assert_eq!(ledger, (bytes, fixed), "the ledger differs from the bytes of the services");
    }

    /// The memory of slots, timers and buffers is within the budget.
    fn check_budget(&self) {
        let ledger = self.ledger();
        let budgeted = ledger.slab
            + ledger.wheel
            + ledger.read_buffers
            + ledger.write_buffers
            + ledger.spare_buffers;
        // A slot is needed even to turn a connection away.
        let most = self.core.limits.memory_budget + Core::<N>::BYTES_PER_CONNECTION;
        assert!(budgeted <= most, "{budgeted} bytes exceed the memory budget: {ledger:?}");
    }
}

//! The table of the dials under way.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Tick;

/// The dials under way. They are few, so they are searched.
#[derive(Default)]
pub struct Dials {
    pub(super) under_way: Vec<DialAttempt>,
    /// A look-up outlives a dial that runs out of time, and the next dial of the name joins it.
    pub(super) look_ups: Vec<LookUp>,
    pub(super) look_up_next: u32,
    /// True if the answer of a look-up waits.
    pub(super) names_due: bool,
    /// True if a drain has closed all other connections, or its timeout has passed.
    pub(super) has_stopped: bool,
}

/// One dial under way.
pub(super) struct DialAttempt {
    pub(super) service: u8,
    pub(super) number: u32,
    pub(super) timeout: Duration,
    pub(super) due: Tick,
    /// Addresses to try, the next one last.
    pub(super) untried: Vec<SocketAddr>,
    pub(super) step: DialStep,
    /// The reason why the last address failed.
    pub(super) error: String,
}

/// The answer that a dial waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DialStep {
    /// That of the look-up with this number.
    Name(u32),
    /// That of this address, until its share of the dial's time has passed.
    Address { slot: u32, address: SocketAddr, due: Tick },
}

pub(super) struct LookUp {
    pub(super) number: u32,
    pub(super) host: String,
    pub(super) port: u16,
}

impl DialAttempt {
    pub(super) fn slot(&self) -> Option<u32> {
        match self.step {
            DialStep::Name(_) => None,
            DialStep::Address { slot, .. } => Some(slot),
        }
    }

    pub(super) fn next_due(&self) -> Tick {
        match self.step {
            DialStep::Name(_) => self.due,
            DialStep::Address { due, .. } => due,
        }
    }
}

impl Dials {
    /// Returns when the first dial or attempt runs out of time.
    pub(super) fn next_due(&self, now: Tick) -> Option<Tick> {
        let dues = self.under_way.iter().map(DialAttempt::next_due);
        dues.min_by_key(|due| due.distance_from(now))
    }

    /// Returns the slots of the attempts.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.under_way.iter().filter_map(DialAttempt::slot).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.under_way.capacity() * size_of::<DialAttempt>()
            + self.look_ups.capacity() * size_of::<LookUp>()
    }

    /// Takes the first dial that `is_it`.
    pub(super) fn take(&mut self, is_it: impl Fn(&DialAttempt) -> bool) -> Option<DialAttempt> {
        let index = self.under_way.iter().position(is_it)?;
        Some(self.under_way.remove(index))
    }

    /// Returns the look-up of a name that is under way.
    pub(super) fn look_up(&self, host: &str, port: u16) -> Option<u32> {
        let is_it = |one: &&LookUp| one.host == host && one.port == port;
        self.look_ups.iter().find(is_it).map(|one| one.number)
    }
}

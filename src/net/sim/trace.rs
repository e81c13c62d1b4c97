//! The record of a simulated run: a running hash, a count of entries, and the latest entries as
//! text.
//!
//! Two runs with the same seed must give the same hash. If they do not, something outside the seed
//! decided the course of a run. The trace keeps the latest entries. A caller that wants all of them
//! can keep all ([`Trace::keep_all`]) or watch ([`Trace::watch`]).

use std::collections::VecDeque;
use std::fmt;

use super::SimNet;
use crate::clock::Time;

/// Number of entries kept, unless all are requested.
const KEPT: usize = 200;

/// One entry: a call of the loop with its result, a readiness event, an action of a client, or an
/// arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    pub at: Time,
    pub what: &'static str,
    /// The number of a client, a slot, the file of a listener or UDP socket, the port of a
    /// datagram's peer, or 0.
    pub who: u64,
    /// Bytes moved, a count, or a negative errno.
    pub amount: i64,
}

impl SimNet {
    /// Returns the record of everything that has happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the record, to keep or watch all its entries.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} s  {:<24} {:>5}  ", self.at.as_secs_f64(), self.what, self.who)?;
        match self.amount {
            error if error < 0 => {
                write!(f, "{}", std::io::Error::from_raw_os_error(error.unsigned_abs() as i32))
            }
            amount => write!(f, "{amount}"),
        }
    }
}

/// The entries and their running hash.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    entries: VecDeque<TraceEntry>,
    keeps_all: bool,
    watcher: Option<fn(&TraceEntry)>,
}

impl Trace {
    /// Keeps all entries from now on.
    pub fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// Calls `watcher` with each entry from now on, as it happens.
    pub fn watch(&mut self, watcher: fn(&TraceEntry)) {
        self.watcher = Some(watcher);
    }

    /// Returns the running hash. Two runs in which the same happened have the same hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the number of entries so far, including those no longer kept.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Iterates over the kept entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &TraceEntry> {
        self.entries.iter()
    }

    pub(super) fn note(&mut self, entry: TraceEntry) {
        self.events += 1;
        self.mix(entry.at.as_nanos());
        self.mix_bytes(entry.what.as_bytes());
        self.mix(entry.who);
        self.mix(entry.amount as u64);
        if let Some(watcher) = self.watcher {
            watcher(&entry);
        }
        if !self.keeps_all && self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Adds payload to the hash, because two runs can move equally many but different bytes.
    pub(super) fn mix_bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        self.mix(words.remainder().iter().fold(1, |sum, byte| sum << 8 | u64::from(*byte)));
    }

    /// Multiplies and folds, as wyhash does, so the order of the values matters.
    fn mix(&mut self, value: u64) {
        let product =
            u128::from(self.hash ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.hash = (product >> 64) as u64 ^ product as u64;
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.events - self.entries.len() as u64;
        if left_out > 0 {
            writeln!(f, "({left_out} earlier entries are not kept)")?;
        }
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

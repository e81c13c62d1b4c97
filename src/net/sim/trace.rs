//! What happened between the loop and its world: a running hash of it, a count, and the latest of it in words.
//!
//! Two runs with the same seed give the same hash, or something outside the seed has decided something. The latest entries are kept; whoever
//! wants all of them is told each as it happens ([`Trace::watch`]).

use std::collections::VecDeque;
use std::fmt;

use crate::clock::Time;

/// Entries kept where nobody asked for all.
const KEPT: usize = 200;

/// One thing that happened: a call of the loop with its result, a readiness event, something that a client did, an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    pub at: Time,
    pub what: &'static str,
    /// The client it concerns; for a listener or socket, its file; else 0.
    pub who: u64,
    /// Bytes moved, a number of things, or an error number below zero.
    pub amount: i64,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14.6} s  {:<24} {:>5}  ", self.at.as_secs_f64(), self.what, self.who)?;
        match self.amount {
            error if error < 0 => write!(f, "{}", std::io::Error::from_raw_os_error(error.unsigned_abs() as i32)),
            amount => write!(f, "{amount}"),
        }
    }
}

#[derive(Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    entries: VecDeque<TraceEntry>,
    keeps_all: bool,
    watcher: Option<fn(&TraceEntry)>,
}

impl Trace {
    /// From now on all entries are kept.
    pub fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// From now on each entry is told as it happens.
    pub fn watch(&mut self, watcher: fn(&TraceEntry)) {
        self.watcher = Some(watcher);
    }

    /// A number that two runs share only when the same happened in both.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Entries so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The entries that are kept, the oldest first.
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

    /// Payload counts too: two runs that moved as many bytes may have moved others.
    pub(super) fn mix_bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        self.mix(words.remainder().iter().fold(1, |sum, byte| sum << 8 | u64::from(*byte)));
    }

    /// Multiply and fold, as in wyhash: no two orders of the same values agree but by chance.
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.hash ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.hash = (product >> 64) as u64 ^ product as u64;
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.events - self.entries.len() as u64;
        if left_out > 0 {
            writeln!(f, "({left_out} entries before these)")?;
        }
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

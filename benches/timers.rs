//! Measures setting, moving, removing and firing timers: the crate's timer wheel beside a sorted
//! map (BTreeMap) by deadline and id.
//!
//!     cargo bench --bench timers
//!
//! How to read it: the figures are nanoseconds per operation, as medians of several repetitions.
//! There are 1,000, 100,000 and 1,000,000 timers, with deadlines spread evenly over the wheel's
//! reach. In "set and fired", each timer that fires is set again, as a server's keepalive timer is.
//! "million/s" is the rate of that. "fire" and "set and fired" check 8,192 ticks for due timers, a
//! cost that few timers have to share.
//!
//! The map also needs a table of deadlines by id, to find a timer that moves. The wheel has the
//! deadline within its 12 bytes per timer. Both get the same ids and deadlines in the same order.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use slabd::clock::Tick;
use slabd::timer::{HORIZON, TimerWheel};
use support::{Options, Table, median};

fn main() -> Result<()> {
    let Some(options) = Options::read(&[], &[("rounds", 5), ("timers", 0)])? else { return Ok(()) };
    println!("## Timers: ns per operation\n");
    let mut table = Table::new(&[
        "timers",
        "kept in",
        "set",
        "move",
        "remove",
        "fire",
        "set and fired",
        "million/s",
    ]);
    let sizes = match options.number("timers") {
        0 => vec![1_000, 100_000, 1_000_000],
        size => vec![size as usize],
    };
    for size in sizes {
        let plan = Plan::new(size);
        let (mut wheel, mut map) = (Vec::new(), Vec::new());
        for _ in 0..options.number("rounds") {
            wheel.push(plan.run(&|| TimerWheel::new(size, Tick(0))));
            map.push(
                plan.run(&|| SortedMap { by_deadline: BTreeMap::new(), due: vec![None; size] }),
            );
        }
        for (name, rounds) in [("TimerWheel", wheel), ("BTreeMap", map)] {
            let column = |column: usize| {
                median(&rounds.iter().map(|round| round[column]).collect::<Vec<_>>())
            };
            let mut cells = vec![size.to_string(), name.to_string()];
            cells.extend((0..5).map(|index| format!("{:.1}", column(index))));
            cells.push(format!("{:.1}", 1e3 / column(4)));
            table.row(cells);
        }
    }
    table.print();
    Ok(())
}

/// The operations of both. Ticks start at 0 and do not wrap here, so the map can compare them.
trait Timers {
    fn arm(&mut self, id: u32, due: Tick);
    fn disarm(&mut self, id: u32);
    fn poll_expired(&mut self, now: Tick) -> Option<u32>;
}

impl Timers for TimerWheel {
    fn arm(&mut self, id: u32, due: Tick) {
        TimerWheel::arm(self, id, due);
    }

    fn disarm(&mut self, id: u32) {
        TimerWheel::disarm(self, id);
    }

    fn poll_expired(&mut self, now: Tick) -> Option<u32> {
        TimerWheel::poll_expired(self, now)
    }
}

struct SortedMap {
    by_deadline: BTreeMap<(u32, u32), ()>,
    /// The deadline of each id. `None` if the timer is not armed.
    due: Vec<Option<u32>>,
}

impl Timers for SortedMap {
    fn arm(&mut self, id: u32, due: Tick) {
        if let Some(before) = self.due[id as usize].replace(due.0) {
            self.by_deadline.remove(&(before, id));
        }
        self.by_deadline.insert((due.0, id), ());
    }

    fn disarm(&mut self, id: u32) {
        if let Some(due) = self.due[id as usize].take() {
            self.by_deadline.remove(&(due, id));
        }
    }

    fn poll_expired(&mut self, now: Tick) -> Option<u32> {
        let first = self.by_deadline.first_entry().filter(|entry| entry.key().0 <= now.0)?;
        let ((_, id), ()) = first.remove_entry();
        self.due[id as usize] = None;
        Some(id)
    }
}

/// The ids and deadlines, drawn before the measurement.
struct Plan {
    size: usize,
    /// All ids, in random order.
    ids: Vec<u32>,
    /// Distances of deadlines in ticks, used as a ring.
    ahead: Vec<u32>,
}

/// Minimum number of operations for a steady time. Small sizes are repeated.
const OPERATIONS: usize = 1_000_000;

impl Plan {
    fn new(size: usize) -> Plan {
        let mut random = fastrand::Rng::with_seed(size as u64);
        let mut ids: Vec<u32> = (0..size as u32).collect();
        random.shuffle(&mut ids);
        let ahead = (0..1 << 20).map(|_| random.u32(1..HORIZON)).collect();
        Plan { size, ids, ahead }
    }

    fn ahead(&self, index: usize) -> u32 {
        self.ahead[index % self.ahead.len()]
    }

    /// Returns the nanoseconds per operation: set, move, remove, fire, set and fired.
    fn run<T: Timers>(&self, new: &dyn Fn() -> T) -> [f64; 5] {
        let repeats = OPERATIONS.div_ceil(self.size);
        let mut nanos = [0.0; 5];
        for repeat in 0..repeats {
            let offset = repeat * 7919;
            let mut timers = new();
            let mut column = 0;
            let mut time = |operations: &mut dyn FnMut() -> usize| {
                let start = Instant::now();
                let count = operations();
                nanos[column] += start.elapsed().as_nanos() as f64 / count as f64 / repeats as f64;
                column += 1;
            };
            let fill = |timers: &mut T, offset: usize| {
                for (index, &id) in self.ids.iter().enumerate() {
                    timers.arm(id, Tick(self.ahead(offset + index)));
                }
                self.size
            };
            time(&mut || fill(&mut timers, offset));
            time(&mut || fill(&mut timers, offset + 1));
            time(&mut || {
                // The order differs from that of setting.
                for &id in self.ids.iter().rev() {
                    timers.disarm(id);
                }
                self.size
            });
            fill(&mut timers, offset);
            time(&mut || {
                let fired = (0..=HORIZON).map(|now| drain(&mut timers, Tick(now), |_, _| {})).sum();
                assert_eq!(fired, self.size, "every timer fires once");
                fired
            });
            time(&mut || self.keep_alive(&mut timers));
            black_box(&timers);
        }
        nanos
    }

    /// Sets all timers and turns the wheel once through its reach. Sets each timer that fires
    /// again. Returns the number of timers set.
    fn keep_alive<T: Timers>(&self, timers: &mut T) -> usize {
        for (index, &id) in self.ids.iter().enumerate() {
            timers.arm(id, Tick(HORIZON + self.ahead(index)));
        }
        let mut fired = self.size;
        for now in HORIZON..2 * HORIZON {
            let mut index = fired;
            fired += drain(timers, Tick(now), |timers, id| {
                timers.arm(id, Tick(now + self.ahead(index)));
                index += 1;
            });
        }
        fired
    }
}

/// Fires all due timers and calls `fired` with each. Returns their number.
fn drain<T: Timers>(timers: &mut T, now: Tick, mut fired: impl FnMut(&mut T, u32)) -> usize {
    let mut count = 0;
    while let Some(id) = timers.poll_expired(now) {
        fired(timers, id);
        count += 1;
    }
    count
}

//! The timer wheel for deadlines: O(1) to arm, move and disarm a timer, 12 bytes per timer.
//!
//! The wheel is a ring of 8,192 buckets, one per tick of 16 ms, so a revolution takes 131 s. A
//! bucket is the head of a doubly linked list through one table of nodes (Varghese and Lauck,
//! "Hashed and Hierarchical Timing Wheels", 1987, scheme 6). A timer due beyond one revolution
//! waits in the last bucket of this revolution, and fires *early*.
//!
//! The wheel relies on early firing. The owner of a timer knows the true deadline. When the timer
//! fires, the owner either acts or arms it again. So postponing a deadline costs nothing here: each
//! message only updates a field of its connection, and the wheel notices when the timer fires.
//!
//! [`TimerWheel::arm`] takes input. [`TimerWheel::poll_expired`] gives output until it returns
//! `None`.

use crate::clock::Tick;

const BUCKETS: usize = 8192;
const WORDS: usize = BUCKETS / 64;
const _: () = assert!(WORDS == u128::BITS as usize, "one bit of `occupied_words` for each word");

/// How far ahead of the cursor a timer can be, in ticks.
pub const HORIZON: u32 = BUCKETS as u32 - 1;

const NONE: u32 = u32::MAX;
/// The value of `Node::next` for a timer that is in no bucket.
const UNARMED: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    /// The previous node, or `NONE` at the head of the bucket.
    previous: u32,
    /// The tick at which the timer fires. It determines the bucket.
    fires: Tick,
}

const _: () = assert!(size_of::<Node>() == TimerWheel::BYTES_PER_TIMER);

/// A hashed timer wheel. Timers are named by small integer ids.
pub struct TimerWheel {
    /// First node of each bucket, or `NONE`.
    heads: Box<[u32]>,
    /// One bit per bucket, set if the bucket is not empty. It finds the next timer without a walk.
    occupied: [u64; WORDS],
    /// One bit per word of `occupied`, set if the word is not zero.
    occupied_words: u128,
    /// Nodes by timer id. The table grows with the highest id armed.
    nodes: Vec<Node>,
    /// All timers before this tick have fired.
    cursor: Tick,
    armed: usize,
}

impl TimerWheel {
    pub const BYTES_PER_TIMER: usize = 12;

    /// Creates a wheel with address space for `capacity` timers. Memory is touched as ids are first
    /// armed.
    pub fn new(capacity: usize, now: Tick) -> TimerWheel {
        TimerWheel {
            heads: vec![NONE; BUCKETS].into_boxed_slice(),
            occupied: [0; WORDS],
            occupied_words: 0,
            nodes: Vec::with_capacity(capacity),
            cursor: now,
            armed: 0,
        }
    }

    /// Arms timer `id` to fire at `due`, or as far ahead as the wheel reaches. A timer that is
    /// already armed moves. A timer with `due` in the past fires at the next
    /// [`poll_expired`](Self::poll_expired).
    pub fn arm(&mut self, id: u32, due: Tick) {
        self.disarm(id);
        if id as usize >= self.nodes.len() {
            let unarmed = Node { next: UNARMED, previous: NONE, fires: Tick(0) };
            self.nodes.resize(id as usize + 1, unarmed);
        }
        let ahead = due.distance_from(self.cursor).clamp(0, HORIZON as i32) as u32;
        let fires = self.cursor.plus(ahead);
        let bucket = bucket_of(fires);
        let next = self.heads[bucket];
        self.nodes[id as usize] = Node { next, previous: NONE, fires };
        if next != NONE {
            self.nodes[next as usize].previous = id;
        }
        self.heads[bucket] = id;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.occupied_words |= 1 << (bucket / 64);
        self.armed += 1;
    }

    /// Arms timer `id` unless it already fires at `due` or before. Callers use it when a deadline
    /// may be nearer than before.
    pub fn arm_by(&mut self, id: u32, due: Tick) {
        match self.fires(id) {
            Some(fires) if fires.distance_from(due) <= 0 => {}
            _ => self.arm(id, due),
        }
    }

    /// Disarms timer `id`, if it is armed.
    pub fn disarm(&mut self, id: u32) {
        let Some(node) = self.nodes.get(id as usize).copied().filter(|node| node.next != UNARMED)
        else {
            return;
        };
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if node.previous != NONE {
            self.nodes[node.previous as usize].next = node.next;
        } else {
            let bucket = bucket_of(node.fires);
            self.heads[bucket] = node.next;
            if node.next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
                if self.occupied[bucket / 64] == 0 {
                    self.occupied_words &= !(1 << (bucket / 64));
                }
            }
        }
        self.nodes[id as usize].next = UNARMED;
        self.armed -= 1;
    }

    /// Returns the tick at which timer `id` fires, or `None` if it is not armed.
    pub fn fires(&self, id: u32) -> Option<Tick> {
        let node = self.nodes.get(id as usize)?;
        (node.next != UNARMED).then_some(node.fires)
    }

    /// Disarms one timer that is due at `now` and returns its id. Returns `None` when none is left.
    pub fn poll_expired(&mut self, now: Tick) -> Option<u32> {
        let next = self.next_fires();
        match next {
            Some(tick) if tick.distance_from(now) <= 0 => {
                self.cursor = tick;
                let id = self.heads[bucket_of(tick)];
                self.disarm(id);
                Some(id)
            }
            _ => {
                // The cursor stays on `now`, because more timers may be armed for this tick.
                if now.distance_from(self.cursor) > 0 {
                    self.cursor = now;
                }
                None
            }
        }
    }

    /// Returns the tick at which the next timer fires. It looks at three words at most, whatever
    /// the number of timers.
    pub fn next_fires(&self) -> Option<Tick> {
        let (start_word, start_bit) = (bucket_of(self.cursor) / 64, bucket_of(self.cursor) % 64);
        let first = self.occupied[start_word] & (!0 << start_bit);
        if first != 0 {
            return Some(self.tick_of_bucket(start_word * 64 + first.trailing_zeros() as usize));
        }
        if self.occupied_words == 0 {
            return None;
        }
        // Search in ring order from the next word. The first word comes last, for its bits before
        // the cursor.
        let after = (start_word + 1) % WORDS;
        let steps = self.occupied_words.rotate_right(after as u32).trailing_zeros() as usize;
        let word = (after + steps) % WORDS;
        Some(self.tick_of_bucket(word * 64 + self.occupied[word].trailing_zeros() as usize))
    }

    /// Returns the number of armed timers.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// Returns the number of timers that fit without moving the table.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// Returns the memory of the nodes in bytes: 12 for every id up to the highest one armed.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
    }

    /// Returns the memory of the ring in bytes. It does not depend on the number of timers.
    pub fn fixed_bytes(&self) -> usize {
        BUCKETS * size_of::<u32>() + size_of::<TimerWheel>()
    }

    /// Frees the nodes of all ids from `len` up. None of them may be armed.
    pub fn truncate(&mut self, len: usize) {
        debug_assert!(self.nodes.iter().skip(len).all(|node| node.next == UNARMED));
        self.nodes.truncate(len);
        self.nodes.shrink_to_fit();
    }

    /// Reserves address space for `capacity` timers in total.
    pub fn reserve(&mut self, capacity: usize) {
        self.nodes.reserve_exact(capacity.saturating_sub(self.nodes.len()));
    }

    /// Returns the tick of a bucket, which is within one revolution of the cursor.
    fn tick_of_bucket(&self, bucket: usize) -> Tick {
        let ahead = bucket.wrapping_sub(bucket_of(self.cursor)) % BUCKETS;
        self.cursor.plus(ahead as u32)
    }

    /// Panics if a list is broken or a bit disagrees with it. For tests: it walks all timers.
    pub fn check_invariants(&self) {
        let (mut found, mut lists) = (0, 0);
        for (id, first) in (0..).zip(&self.nodes) {
            if first.next == UNARMED || first.previous != NONE {
                continue;
            }
            lists += 1;
            let bucket = bucket_of(first.fires);
            assert_eq!(self.heads[bucket], id, "bucket {bucket} has the wrong head");
            assert!(
                self.occupied[bucket / 64] >> (bucket % 64) & 1 == 1,
                "the bit of bucket {bucket} is not set"
            );
            let (mut id, mut previous) = (id, NONE);
            while id != NONE {
                let node = self.nodes[id as usize];
                assert_eq!(node.previous, previous, "timer {id} has a wrong back link");
                assert_eq!(bucket_of(node.fires), bucket, "timer {id} is in the wrong bucket");
                let ahead = node.fires.distance_from(self.cursor);
                assert!((0..BUCKETS as i32).contains(&ahead), "timer {id} is {ahead} ticks ahead");
                (previous, id) = (id, node.next);
                found += 1;
            }
        }
        assert_eq!(found, self.armed, "the armed timers are miscounted");
        let bits: u32 = self.occupied.iter().map(|word| word.count_ones()).sum();
        assert_eq!(bits, lists, "a bit is set for an empty bucket");
        for (word, bits) in self.occupied.iter().enumerate() {
            assert_eq!(
                self.occupied_words >> word & 1 == 1,
                *bits != 0,
                "the bit of word {word} is wrong"
            );
        }
    }
}

fn bucket_of(tick: Tick) -> usize {
    tick.0 as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn expired(wheel: &mut TimerWheel, now: u32) -> Vec<u32> {
        let mut ids: Vec<u32> = std::iter::from_fn(|| wheel.poll_expired(Tick(now))).collect();
        wheel.check_invariants();
        ids.sort();
        ids
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before_it() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        wheel.arm(3, Tick(10));
        assert_eq!(wheel.next_fires(), Some(Tick(10)));
        assert_eq!(expired(&mut wheel, 9), [0; 0]);
        assert_eq!(expired(&mut wheel, 10), [3]);
        assert_eq!(expired(&mut wheel, 11), [0; 0]);
        assert_eq!(wheel.armed(), 0);
        assert_eq!(wheel.next_fires(), None);
    }

    #[test]
    fn a_timer_armed_for_the_past_or_the_present_tick_fires_at_once() {
        let mut wheel = TimerWheel::new(4, Tick(100));
        assert_eq!(expired(&mut wheel, 200), [0; 0]);
        wheel.arm(0, Tick(3));
        wheel.arm(1, Tick(200));
        assert_eq!(expired(&mut wheel, 200), [0, 1]);
    }

    #[test]
    fn a_moved_timer_fires_once_and_a_disarmed_timer_never_fires() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        wheel.arm(0, Tick(5));
        wheel.arm(1, Tick(5));
        wheel.arm(2, Tick(5));
        wheel.disarm(1);
        wheel.disarm(1);
        wheel.arm(2, Tick(7));
        wheel.disarm(77);
        assert_eq!(expired(&mut wheel, 5), [0]);
        assert_eq!(expired(&mut wheel, 7), [2]);
    }

    #[test]
    fn arm_by_only_moves_a_timer_nearer() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        wheel.arm_by(0, Tick(50));
        wheel.arm_by(0, Tick(60));
        assert_eq!(wheel.fires(0), Some(Tick(50)));
        wheel.arm_by(0, Tick(40));
        assert_eq!(wheel.fires(0), Some(Tick(40)));
    }

    #[test]
    fn a_timer_beyond_the_horizon_fires_early_and_others_fire_on_time() {
        for (due, fires) in [
            (HORIZON - 1, HORIZON - 1),
            (HORIZON, HORIZON),
            (HORIZON + 1, HORIZON),
            (u32::MAX / 2, HORIZON),
        ] {
            let mut wheel = TimerWheel::new(1, Tick(0));
            wheel.arm(0, Tick(due));
            assert_eq!(wheel.fires(0), Some(Tick(fires)));
            assert_eq!(expired(&mut wheel, fires - 1), [0; 0]);
            assert_eq!(expired(&mut wheel, fires), [0]);
        }
    }

    #[test]
    fn timers_fire_in_order_after_a_long_sleep() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        for (id, due) in [(0, 4000), (1, 10), (2, 8000)] {
            wheel.arm(id, Tick(due));
        }
        let order: Vec<u32> = std::iter::from_fn(|| wheel.poll_expired(Tick(1_000_000))).collect();
        assert_eq!(order, [1, 0, 2]);
        wheel.check_invariants();
    }

    #[test]
    fn truncation_drops_high_ids_and_keeps_low_ones() {
        let mut wheel = TimerWheel::new(1000, Tick(0));
        wheel.arm(0, Tick(9));
        wheel.arm(999, Tick(9));
        wheel.disarm(999);
        wheel.truncate(1);
        assert_eq!(wheel.bytes(), TimerWheel::BYTES_PER_TIMER);
        assert_eq!(expired(&mut wheel, 9), [0]);
    }

    /// Runs random operations against a sorted map, across the wrap of the tick.
    #[test]
    fn the_wheel_agrees_with_a_sorted_map() {
        for seed in 0..64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let start = Tick(u32::MAX - 20_000);
            let (mut wheel, mut now) = (TimerWheel::new(64, start), 0u32);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for _ in 0..2_000 {
                let id = random.u32(..64);
                match random.u8(..4) {
                    0 | 1 => {
                        let ahead = random.u32(..HORIZON);
                        wheel.arm(id, start.plus(now + ahead));
                        model.insert(id, now + ahead);
                    }
                    2 => {
                        wheel.disarm(id);
                        model.remove(&id);
                    }
                    _ => {
                        now += random.u32(..200);
                        let mut fired: Vec<u32> =
                            std::iter::from_fn(|| wheel.poll_expired(start.plus(now))).collect();
                        fired.sort();
                        let due: Vec<u32> = model
                            .iter()
                            .filter(|(_, due)| **due <= now)
                            .map(|(id, _)| *id)
                            .collect();
                        assert_eq!(fired, due, "seed {seed}");
                        model.retain(|_, due| *due > now);
                    }
                }
                assert_eq!(wheel.armed(), model.len(), "seed {seed}");
                let next = model.values().min().map(|due| start.plus(*due.max(&now)));
                assert_eq!(wheel.next_fires().is_some(), next.is_some(), "seed {seed}");
            }
            wheel.check_invariants();
        }
    }
}

//! Deadlines: a hashed timer wheel, O(1) to arm, move and disarm, 12 bytes per timer.
//!
//! The wheel is a ring of 8,192 buckets, one per tick of 16 ms (131 s a revolution), each the head of a
//! doubly linked list threaded through one table of nodes by index (Varghese and Lauck, "Hashed and
//! Hierarchical Timing Wheels", 1987, scheme 6). A timer further away than one revolution waits in the
//! last bucket of this one and is *early* when it fires.
//!
//! Early firing is the rule the wheel lives by: whoever owns a timer knows its true deadline, and on
//! firing either acts or arms again. So a deadline that only moves away (every message pushes the idle
//! deadline) costs nothing here: the owner updates its own field, and the wheel finds out when it fires.
//!
//! [`TimerWheel::arm`] takes input; [`TimerWheel::poll_expired`] gives output until it returns `None`.

use crate::clock::Tick;

const BUCKETS: usize = 8192;
const WORDS: usize = BUCKETS / 64;
const _: () = assert!(WORDS == u128::BITS as usize, "one bit of `occupied_words` for each word");

/// The furthest a timer can be placed ahead of the cursor, in ticks.
pub const HORIZON: u32 = BUCKETS as u32 - 1;

const NONE: u32 = u32::MAX;
/// In `Node::next`: this timer is in no bucket.
const UNARMED: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    /// The node before this one, or `NONE` at the head of the bucket.
    previous: u32,
    /// When it fires. Its bucket follows from it.
    fires: Tick,
}

const _: () = assert!(size_of::<Node>() == TimerWheel::BYTES_PER_TIMER);

pub struct TimerWheel {
    /// First node of each bucket, or `NONE`.
    heads: Box<[u32]>,
    /// One bit per bucket that is not empty: the next deadline is found without walking the ring.
    occupied: [u64; WORDS],
    /// One bit per word of `occupied` that is not zero.
    occupied_words: u128,
    /// Indexed by timer id. Grows with the highest id armed.
    nodes: Vec<Node>,
    /// Every tick before this one has been expired.
    cursor: Tick,
    armed: usize,
}

impl TimerWheel {
    pub const BYTES_PER_TIMER: usize = 12;

    /// Reserves address space for `capacity` timers; memory is touched as ids are first armed.
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

    /// Sets timer `id` to fire at `due`, or as far ahead as the wheel reaches. Moves it if it was armed.
    /// A `due` in the past fires at the next [`poll_expired`](Self::poll_expired).
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

    /// Arms timer `id` unless it already fires at `due` or before: what a deadline that may have
    /// come nearer needs.
    pub fn arm_by(&mut self, id: u32, due: Tick) {
        match self.fires(id) {
            Some(fires) if fires.distance_from(due) <= 0 => {}
            _ => self.arm(id, due),
        }
    }

    /// Takes timer `id` out of the wheel, if it is in it.
    pub fn disarm(&mut self, id: u32) {
        let Some(node) = self.nodes.get(id as usize).copied().filter(|node| node.next != UNARMED) else {
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

    /// When timer `id` fires; `None` when it is not armed.
    pub fn fires(&self, id: u32) -> Option<Tick> {
        let node = self.nodes.get(id as usize)?;
        (node.next != UNARMED).then_some(node.fires)
    }

    /// Takes out one timer that is due at `now` and names it; `None` when none is left.
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
                // The cursor stays on `now`: more timers may still be armed for this very tick.
                if now.distance_from(self.cursor) > 0 {
                    self.cursor = now;
                }
                None
            }
        }
    }

    /// The tick at which the next timer fires. Two words are looked at, however many timers there are.
    pub fn next_fires(&self) -> Option<Tick> {
        let (start_word, start_bit) = (bucket_of(self.cursor) / 64, bucket_of(self.cursor) % 64);
        let first = self.occupied[start_word] & (!0 << start_bit);
        if first != 0 {
            return Some(self.tick_of_bucket(start_word * 64 + first.trailing_zeros() as usize));
        }
        if self.occupied_words == 0 {
            return None;
        }
        // In ring order from the word after; the first word itself comes last, for its bits before the cursor.
        let after = (start_word + 1) % WORDS;
        let steps = self.occupied_words.rotate_right(after as u32).trailing_zeros() as usize;
        let word = (after + steps) % WORDS;
        Some(self.tick_of_bucket(word * 64 + self.occupied[word].trailing_zeros() as usize))
    }

    /// Timers in the wheel.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// Memory of the nodes touched so far, in bytes: 12 for every id up to the highest.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
    }

    /// Memory of the ring itself, in bytes; it does not depend on the number of timers.
    pub fn fixed_bytes(&self) -> usize {
        BUCKETS * size_of::<u32>() + size_of::<TimerWheel>()
    }

    /// Gives the nodes of ids from `len` up back to the system. None of them may be armed.
    pub fn truncate(&mut self, len: usize) {
        debug_assert!(self.nodes.iter().skip(len).all(|node| node.next == UNARMED));
        self.nodes.truncate(len);
        self.nodes.shrink_to_fit();
    }

    /// Reserves address space for `capacity` timers in all.
    pub fn reserve(&mut self, capacity: usize) {
        self.nodes.reserve_exact(capacity.saturating_sub(self.nodes.len()));
    }

    /// The bits of `occupied` are in ring order; the cursor turns a bucket back into a tick.
    fn tick_of_bucket(&self, bucket: usize) -> Tick {
        let ahead = bucket.wrapping_sub(bucket_of(self.cursor)) % BUCKETS;
        self.cursor.plus(ahead as u32)
    }

    /// Every list is sound and the bits agree with it. For tests: it walks all timers.
    pub fn check_invariants(&self) {
        let (mut found, mut lists) = (0, 0);
        for (id, first) in (0..).zip(&self.nodes) {
            if first.next == UNARMED || first.previous != NONE {
                continue;
            }
            lists += 1;
            let bucket = bucket_of(first.fires);
            assert_eq!(self.heads[bucket], id, "head of bucket {bucket}");
            assert!(self.occupied[bucket / 64] >> (bucket % 64) & 1 == 1, "bit of bucket {bucket}");
            let (mut id, mut previous) = (id, NONE);
            while id != NONE {
                let node = self.nodes[id as usize];
                assert_eq!(node.previous, previous, "back link of timer {id}");
                assert_eq!(bucket_of(node.fires), bucket, "bucket of timer {id}");
                let ahead = node.fires.distance_from(self.cursor);
                assert!((0..BUCKETS as i32).contains(&ahead), "timer {id} is {ahead} ticks ahead");
                (previous, id) = (id, node.next);
                found += 1;
            }
        }
        assert_eq!(found, self.armed, "timers linked and counted");
        let bits: u32 = self.occupied.iter().map(|word| word.count_ones()).sum();
        assert_eq!(bits, lists, "buckets that seem to be occupied, and are");
        for (word, bits) in self.occupied.iter().enumerate() {
            assert_eq!(self.occupied_words >> word & 1 == 1, *bits != 0, "bit of word {word}");
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
    fn a_timer_fires_at_its_tick_and_not_before() {
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
    fn moving_and_disarming() {
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
    fn arm_by_moves_a_deadline_nearer_only() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        wheel.arm_by(0, Tick(50));
        wheel.arm_by(0, Tick(60));
        assert_eq!(wheel.fires(0), Some(Tick(50)));
        wheel.arm_by(0, Tick(40));
        assert_eq!(wheel.fires(0), Some(Tick(40)));
    }

    #[test]
    fn beyond_the_horizon_it_fires_early_one_below_and_at_it_on_time() {
        for (due, fires) in
            [(HORIZON - 1, HORIZON - 1), (HORIZON, HORIZON), (HORIZON + 1, HORIZON), (u32::MAX / 2, HORIZON)]
        {
            let mut wheel = TimerWheel::new(1, Tick(0));
            wheel.arm(0, Tick(due));
            assert_eq!(wheel.fires(0), Some(Tick(fires)));
            assert_eq!(expired(&mut wheel, fires - 1), [0; 0]);
            assert_eq!(expired(&mut wheel, fires), [0]);
        }
    }

    #[test]
    fn a_long_sleep_expires_everything_in_order() {
        let mut wheel = TimerWheel::new(4, Tick(0));
        for (id, due) in [(0, 4000), (1, 10), (2, 8000)] {
            wheel.arm(id, Tick(due));
        }
        let order: Vec<u32> = std::iter::from_fn(|| wheel.poll_expired(Tick(1_000_000))).collect();
        assert_eq!(order, [1, 0, 2]);
        wheel.check_invariants();
    }

    #[test]
    fn truncation_forgets_high_ids_and_keeps_low_ones() {
        let mut wheel = TimerWheel::new(1000, Tick(0));
        wheel.arm(0, Tick(9));
        wheel.arm(999, Tick(9));
        wheel.disarm(999);
        wheel.truncate(1);
        assert_eq!(wheel.bytes(), TimerWheel::BYTES_PER_TIMER);
        assert_eq!(expired(&mut wheel, 9), [0]);
    }

    /// Random operations against a sorted map, across the wrap of the tick.
    #[test]
    fn agrees_with_a_sorted_map() {
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
                        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.poll_expired(start.plus(now))).collect();
                        fired.sort();
                        let due: Vec<u32> = model.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id).collect();
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

//! `search`: the highest rate whose 99th percentile meets a target, by doubling and then bisecting.

use std::time::Duration;

use super::Shape;
use super::ping::Ping;
use crate::clock::Time;
use crate::net::Net;
use crate::report::figures;
use crate::stress::meter::{REACHED, SATURATED, Times};
use crate::stress::pace::Next;
use crate::stress::plan::Plan;
use crate::stress::record::{Record, Trial};
use crate::stress::world::World;
use crate::units::Span;

/// First rate tried; low enough for any server.
const FIRST_RATE: f64 = 500.0;

/// Gap between the highest rate that held and the lowest that failed, as a share of the former, at
/// which the search ends.
const PRECISE: f64 = 0.05;

/// Maximum number of trials of a search.
const TRIALS_MAX: usize = 30;

/// Number of trials of a rate before it counts as failed. A single failure may be due to other work
/// on the machine.
const TRIES: usize = 2;

/// The shape `search`.
pub struct Search {
    ping: Ping,
    target_p99: Duration,
    trials: Vec<Trial>,
    held: Option<f64>,
    failed: Option<f64>,
    rate: f64,
    tries: usize,
    /// Errors before this trial, without requests that were never sent.
    faults_before: u64,
    /// Times at the highest rate that held.
    best_times: Option<Times>,
    /// True if the generator was saturated in a trial that failed.
    is_saturated: bool,
}

impl Search {
    pub fn new(plan: &Plan, now: Time) -> Search {
        let plan = Plan { rate: Some(FIRST_RATE), ..plan.clone() };
        Search {
            ping: Ping::new(&plan, now),
            target_p99: plan.target_p99,
            trials: Vec::new(),
            held: None,
            failed: None,
            rate: FIRST_RATE,
            tries: 0,
            faults_before: 0,
            best_times: None,
            is_saturated: false,
        }
    }

    /// Judges the trial that has ended. Returns the next rate to try; `None` ends the search.
    fn judge<N: Net>(&mut self, world: &mut World<N>) -> Option<f64> {
        let meter = &mut world.meter;
        let load = meter
            .load_ended
            .zip(meter.load_began)
            .map_or(0.0, |(end, start)| end.since(start).as_secs_f64());
        // Requests sent in time count if they are answered by the end of the drain.
        let reached_rate = (meter.answered - meter.answered_before_load) as f64 / load.max(1e-9);
        let p99_us = meter.latency.all().value_at_percentile(99.0) as f64 / 1000.0;
        let faults =
            meter.errors_in_all() - meter.errors.get("due but never sent").copied().unwrap_or(0);
        let is_clean = faults == self.faults_before;
        self.faults_before = faults;
        let is_met = p99_us <= self.target_p99.as_secs_f64() * 1e6;
        let held = is_met && is_clean && reached_rate >= self.rate * REACHED;
        let cpu_share = meter.cpu_in_load.map_or(0.0, |cpu| cpu.as_secs_f64()) / load.max(1e-9);
        self.is_saturated |= !held && cpu_share >= SATURATED;
        self.trials.push(Trial { asked_rate: self.rate, reached_rate, p99_us, held });
        if held && self.held.is_none_or(|best| self.rate > best) {
            self.best_times = Some(meter.latency.clone());
        }
        self.tries += 1;
        if !held && self.tries < TRIES {
            return Some(self.rate);
        }
        self.tries = 0;
        match held {
            true => self.held = Some(self.rate),
            false => self.failed = Some(self.rate),
        }
        if self.trials.len() >= TRIALS_MAX {
            return None;
        }
        match (self.held, self.failed) {
            (None, Some(failed)) if failed < 1.0 => None,
            (None, Some(failed)) => Some(failed / 4.0),
            (Some(held), None) => Some(held * 2.0),
            (Some(held), Some(failed)) if failed - held > PRECISE * held => {
                Some((held + failed) / 2.0)
            }
            _ => None,
        }
    }
}

impl<N: Net> Shape<N> for Search {
    fn act(&mut self, world: &mut World<N>) -> Next {
        match self.ping.act(world) {
            // No connection opened.
            Next::Done if world.meter.load_ended.is_none() => Next::Done,
            Next::Done => match self.judge(world) {
                Some(rate) => {
                    self.rate = rate;
                    world.meter.latency.clear();
                    (world.meter.load_began, world.meter.load_ended) = (None, None);
                    self.ping.restart(world, rate);
                    Next::At(world.now)
                }
                None => Next::Done,
            },
            next => next,
        }
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        self.ping.opened(world, slot);
    }

    fn repeats(&mut self, count: u32, due: Time) -> bool {
        Shape::<N>::repeats(&mut self.ping, count, due)
    }

    fn answered(&mut self, world: &mut World<N>, slot: u32, goes_on: bool) {
        self.ping.answered(world, slot, goes_on);
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        self.ping.ended(world, slot);
    }

    fn stop(&mut self, world: &mut World<N>) {
        self.ping.stop(world);
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        if let Some(times) = self.best_times.take() {
            world.meter.latency = times;
            record.latency = world.meter.latency.summary(true);
        }
        if self.is_saturated {
            record.notes.push(
                "the generator was saturated at a rate that failed, so the server may sustain more"
                    .into(),
            );
        }
        record.trials = std::mem::take(&mut self.trials);
        let best = record
            .trials
            .iter()
            .filter(|trial| trial.held)
            .map(|trial| trial.asked_rate)
            .fold(0.0, f64::max);
        record.requests.rate = best;
        let target = Span(self.target_p99);
        record.notes.push(match best > 0.0 {
            true => format!(
                "the highest rate with a p99 of at most {target} is {}; the times are those of \
                 that trial, requests and errors those of all trials",
                figures::rate(best)
            ),
            false => format!("no rate tried has a p99 of at most {target}"),
        });
    }
}

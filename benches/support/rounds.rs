//! Servers that take turns under load, and the table of what the rounds took.

use anyhow::Result;

use super::server::{Cpu, Server};
use super::{Table, median, range};

/// One server, what loads it, and what each round took of it. The first contender is what others are divided by.
pub struct Contender<'a> {
    pub label: String,
    pub server: &'a Server,
    pub load: Box<dyn FnMut() -> Result<()> + 'a>,
    rounds: Vec<Cpu>,
}

impl<'a> Contender<'a> {
    pub fn new(label: &str, server: &'a Server, load: impl FnMut() -> Result<()> + 'a) -> Contender<'a> {
        Contender { label: label.into(), server, load: Box::new(load), rounds: Vec::new() }
    }

    /// Processor time divided by that of another, a ratio for each pair of neighbouring rounds.
    pub fn ratios(&self, base: &Contender) -> Vec<f64> {
        let pairs = self.rounds.iter().zip(&base.rounds);
        pairs.map(|(own, base)| own.nanos as f64 / base.nanos as f64).collect()
    }

    fn total(&self) -> Cpu {
        self.rounds.iter().fold(Cpu::default(), |sum, round| sum.plus(*round))
    }
}

/// Lets the contenders take turns, after one turn each that does not count.
pub fn alternate(contenders: &mut [Contender], rounds: u64) -> Result<()> {
    for round in 0..=rounds {
        for contender in contenders.iter_mut() {
            let before = contender.server.cpu()?;
            (contender.load)()?;
            let used = contender.server.cpu()?.since(before);
            if round > 0 {
                contender.rounds.push(used);
            }
        }
    }
    Ok(())
}

/// Prints a row for each contender; `unit` is what a round has `per_round` of. With a target, which
/// slabd's ratio to the first contender is to stay below, slabd has it beside its own.
pub fn report(contenders: &[Contender], per_round: u64, unit: &str, target: Option<f64>) {
    let Some(base) = contenders.first() else { return };
    let ratio = format!("÷ {}", base.label);
    let (cost, sleeps) = (format!("µs/{unit}"), format!("sleeps/{unit}"));
    let mut header = vec!["server", &cost, "user", "±", "system", &ratio];
    header.extend(target.map(|_| "target"));
    header.extend(["all rounds", "user ÷", &sleeps]);
    let mut table = Table::new(&header);
    let micros = |cpu: Cpu, times: f64| cpu.nanos as f64 / 1e3 / times;
    let all = per_round as f64 * base.rounds.len() as f64;
    let user = |total: Cpu| micros(total, all) * total.user_share();
    let decimals = if micros(base.total(), all) < 1.0 { 3 } else { 2 };
    for (index, contender) in contenders.iter().enumerate() {
        let costs: Vec<f64> = contender.rounds.iter().map(|round| micros(*round, per_round as f64)).collect();
        let ratios = contender.ratios(base);
        let total = contender.total();
        // Sampled at 100 per second or more often: the error is that of counting so many samples, or less. Where
        // none was counted there might have been one.
        let tick = micros(total, all) / (total.user_ticks + total.system_ticks).max(1) as f64;
        let error = tick * (total.user_ticks.max(1) as f64).sqrt();
        let mut row = vec![
            contender.label.clone(),
            format!("{:.decimals$}", median(&costs)),
            format!("{:.decimals$}", user(total)),
            format!("{error:.decimals$}"),
            format!("{:.decimals$}", micros(total, all) - user(total)),
            format!("{:.3}", median(&ratios)),
        ];
        let bound = index > 0 && contender.label == "slabd";
        row.extend(target.map(|target| if bound { format!("≤ {target:.2}") } else { "–".into() }));
        row.extend([
            range(&ratios),
            // So short a run that the base has no sample: nothing is known.
            if base.total().user_ticks > 0 { format!("{:.2}", user(total) / user(base.total())) } else { "–".into() },
            small(total.sleeps as f64 / all),
        ]);
        table.row(row);
    }
    table.print();
}

/// Two decimals, or two digits where these would be zero.
fn small(value: f64) -> String {
    if value == 0.0 || value >= 0.01 { format!("{value:.2}") } else { format!("{value:.1e}") }
}

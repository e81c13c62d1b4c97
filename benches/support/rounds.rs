//! Lets servers take turns under load, and prints the table of their processor times.

use anyhow::Result;

use super::server::{Cpu, Server};
use super::{Table, median, range};

/// One server with its load and the processor time of each round. The first contender is the base
/// of the ratios.
pub struct Contender<'a> {
    pub label: String,
    pub server: &'a Server,
    pub load: Box<dyn FnMut() -> Result<()> + 'a>,
    rounds: Vec<Cpu>,
}

impl<'a> Contender<'a> {
    pub fn new(
        label: &str,
        server: &'a Server,
        load: impl FnMut() -> Result<()> + 'a,
    ) -> Contender<'a> {
        Contender { label: label.into(), server, load: Box::new(load), rounds: Vec::new() }
    }

    /// Returns the processor time divided by that of another contender, for each pair of
    /// neighbouring rounds.
    pub fn ratios(&self, base: &Contender) -> Vec<f64> {
        let pairs = self.rounds.iter().zip(&base.rounds);
        pairs.map(|(own, base)| own.nanos as f64 / base.nanos as f64).collect()
    }

    fn total(&self) -> Cpu {
        self.rounds.iter().fold(Cpu::default(), |sum, round| sum.plus(*round))
    }
}

/// Lets the contenders take turns. The first round warms up and does not count.
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

/// Prints a row for each contender. A round has `per_round` operations, named `unit`. The target is
/// the maximum of slabd's ratio, shown in its row.
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
        let costs: Vec<f64> =
            contender.rounds.iter().map(|round| micros(*round, per_round as f64)).collect();
        let ratios = contender.ratios(base);
        let total = contender.total();
        // The kernel samples at least 100 times per second, so the error is at most that of
        // counting so many samples. A count of zero is treated as one.
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
            // In a very short run the base has no sample, so the ratio is unknown.
            if base.total().user_ticks > 0 {
                format!("{:.2}", user(total) / user(base.total()))
            } else {
                "–".into()
            },
            small(total.sleeps as f64 / all),
        ]);
        table.row(row);
    }
    table.print();
}

/// Formats a value with two decimals, or with two significant digits if those would be zero.
fn small(value: f64) -> String {
    if value == 0.0 || value >= 0.01 { format!("{value:.2}") } else { format!("{value:.1e}") }
}

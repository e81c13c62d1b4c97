//! Lets servers take turns under load, and prints the table of their processor times.

use anyhow::Result;

use super::server::{Cpu, Server};
use super::{Table, median, range};

/// One server with its load and the measurements of each round. The load returns the number of its
/// operations. The first contender is the base of the ratios.
pub struct Contender<'a> {
    pub label: String,
    pub server: &'a Server,
    pub load: Box<dyn FnMut() -> Result<u64> + 'a>,
    rounds: Vec<(Cpu, u64)>,
}

impl<'a> Contender<'a> {
    pub fn new(
        label: &str,
        server: &'a Server,
        load: impl FnMut() -> Result<u64> + 'a,
    ) -> Contender<'a> {
        Contender { label: label.into(), server, load: Box::new(load), rounds: Vec::new() }
    }

    /// Returns the processor time per operation in each round, in microseconds.
    pub fn costs(&self) -> Vec<f64> {
        self.rounds.iter().map(|(cpu, operations)| micros(*cpu, *operations)).collect()
    }

    /// Returns the cost divided by that of another contender, for each pair of neighbouring rounds.
    pub fn ratios(&self, base: &Contender) -> Vec<f64> {
        ratios(&self.costs(), &base.costs())
    }

    fn total(&self) -> (Cpu, u64) {
        let add =
            |(sum, count): (Cpu, u64), (cpu, more): &(Cpu, u64)| (sum.plus(*cpu), count + more);
        self.rounds.iter().fold((Cpu::default(), 0), add)
    }
}

fn micros(cpu: Cpu, operations: u64) -> f64 {
    cpu.nanos as f64 / 1e3 / operations as f64
}

/// Returns each value divided by the one at the same place of the base.
pub fn ratios(own: &[f64], base: &[f64]) -> Vec<f64> {
    own.iter().zip(base).map(|(own, base)| own / base).collect()
}

/// Lets the contenders take turns. The first round warms up and does not count.
pub fn alternate(contenders: &mut [Contender], rounds: u64) -> Result<()> {
    for round in 0..=rounds {
        for contender in contenders.iter_mut() {
            let before = contender.server.cpu()?;
            let operations = (contender.load)()?;
            let used = contender.server.cpu()?.since(before);
            if round > 0 {
                contender.rounds.push((used, operations));
            }
        }
    }
    Ok(())
}

/// Prints a row for each contender, with `unit` as the name of an operation. The target is the
/// maximum of slabd's ratio, shown in its row.
pub fn report(contenders: &[Contender], unit: &str, target: Option<f64>) {
    let Some(base) = contenders.first() else { return };
    let ratio = format!("÷ {}", base.label);
    let (cost, sleeps) = (format!("µs/{unit}"), format!("sleeps/{unit}"));
    let mut header = vec!["server", &cost, "user", "±", "system", &ratio];
    header.extend(target.map(|_| "target"));
    header.extend(["all rounds", "user ÷", &sleeps]);
    let mut table = Table::new(&header);
    let user = |(cpu, operations): (Cpu, u64)| micros(cpu, operations) * cpu.user_share();
    let (base_cpu, base_operations) = base.total();
    let decimals = if micros(base_cpu, base_operations) < 1.0 { 3 } else { 2 };
    for (index, contender) in contenders.iter().enumerate() {
        let ratios = contender.ratios(base);
        let (total, operations) = contender.total();
        let mean = micros(total, operations);
        let own_user = user((total, operations));
        // The kernel samples at least 100 times per second, so the error is at most that of
        // counting so many samples. A count of zero is treated as one.
        let tick = mean / (total.user_ticks + total.system_ticks).max(1) as f64;
        let error = tick * (total.user_ticks.max(1) as f64).sqrt();
        let mut row = vec![
            contender.label.clone(),
            format!("{:.decimals$}", median(&contender.costs())),
            format!("{own_user:.decimals$}"),
            format!("{error:.decimals$}"),
            format!("{:.decimals$}", mean - own_user),
            format!("{:.3}", median(&ratios)),
        ];
        let bound = index > 0 && contender.label.starts_with("slabd");
        row.extend(target.map(|target| if bound { format!("≤ {target:.2}") } else { "–".into() }));
        row.extend([
            range(&ratios),
            // In a very short run the base has no sample, so the ratio is unknown.
            if base_cpu.user_ticks > 0 {
                format!("{:.2}", own_user / user((base_cpu, base_operations)))
            } else {
                "–".into()
            },
            small(total.sleeps as f64 / operations as f64),
        ]);
        table.row(row);
    }
    table.print();
}

/// Formats a value with two decimals, or with two significant digits if those would be zero.
fn small(value: f64) -> String {
    if value == 0.0 || value >= 0.01 { format!("{value:.2}") } else { format!("{value:.1e}") }
}

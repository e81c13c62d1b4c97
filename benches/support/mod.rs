//! What the benchmarks share: their command line, tables and medians; servers in [`server`], clients in
//! [`load`] and [`fanout`], and how they take turns in [`rounds`].

// Each benchmark is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod fanout;
pub mod load;
pub mod rounds;
pub mod server;

use std::process::Command;

use anyhow::{Context, Result, bail};

/// The core that servers run on, and the one that this process, the client, runs on.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// What was asked for on the command line: sections by name, servers to leave out, and numbers.
pub struct Options {
    sections: Vec<String>,
    skipped: Vec<String>,
    numbers: Vec<(&'static str, u64)>,
}

impl Options {
    /// Reads `cargo bench --bench NAME -- [SECTION…] [--skip SERVER] [--NUMBER N]`.
    ///
    /// `None` when cargo only checks that the program starts (`cargo test --all-targets`): then there is nothing
    /// to do.
    pub fn read(sections: &[&str], numbers: &[(&'static str, u64)]) -> Result<Option<Options>> {
        let mut options = Options { sections: Vec::new(), skipped: Vec::new(), numbers: numbers.to_vec() };
        let mut asked = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.strip_prefix("--") {
                Some("bench") => asked = true,
                Some("skip") => options.skipped.push(value()?),
                Some(name) => match options.numbers.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, number)) => *number = value()?.parse().with_context(|| format!("--{name}"))?,
                    None => bail!("unknown option --{name}: --skip SERVER{}", usage(numbers)),
                },
                None if sections.contains(&argument.as_str()) => options.sections.push(argument),
                None => bail!("unknown section {argument}: {}", sections.join(", ")),
            }
        }
        if !asked {
            println!("a benchmark: run it by `cargo bench --bench NAME`");
            return Ok(None);
        }
        Ok(Some(options))
    }

    /// Whether to run a section: all of them when none was named.
    pub fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|named| named == section)
    }

    /// Whether to run a server: all but those left out by `--skip`.
    pub fn includes(&self, server: &str) -> bool {
        !self.skipped.iter().any(|skipped| server.contains(skipped.as_str()))
    }

    pub fn number(&self, name: &str) -> u64 {
        self.numbers.iter().find(|(known, _)| *known == name).expect("a number the benchmark declared").1
    }
}

fn usage(numbers: &[(&str, u64)]) -> String {
    numbers.iter().map(|(name, default)| format!(", --{name} {default}")).collect()
}

/// Raises the file limit of this process and of the servers it starts, and takes the client's core.
pub fn prepare() -> Result<()> {
    server::clean_up()?;
    let files = slabd::sys::raise_file_limit()?;
    let pinned = can_pin()
        && Command::new("taskset")
            .args(["-cp", CLIENT_CORE, &std::process::id().to_string()])
            .output()
            .is_ok_and(|output| output.status.success());
    if pinned {
        println!("Servers are pinned to core {SERVER_CORE}, the client to core {CLIENT_CORE}. {files} files each.\n");
    } else {
        println!("NOT PINNED: fewer than two cores, or no taskset. {files} files each.\n");
    }
    Ok(())
}

/// Whether servers and client can have a core each.
fn can_pin() -> bool {
    // Not `available_parallelism`: that counts the cores of this process, which may be pinned already.
    let cores = std::fs::read_to_string("/proc/cpuinfo").map_or(0, |text| text.matches("processor\t").count());
    cores >= 2 && server::is_installed("taskset")
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a median of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The smallest and the largest value, as text.
pub fn range(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{low:.2}–{high:.2}")
}

/// A table that reads well in a terminal and as Markdown. The first column is text, the others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| cell.to_string()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "cells as many as columns");
        self.rows.push(cells);
    }

    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if index == 0 {
                let rules = widths.iter().enumerate().map(|(column, &width)| {
                    if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width.saturating_sub(1))) }
                });
                println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
            }
        }
        println!();
    }
}

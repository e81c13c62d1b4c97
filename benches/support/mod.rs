//! The shared parts of the benchmarks: command line, tables and medians here, servers in
//! [`server`], clients in [`load`] and [`fanout`], what clients of the web say in [`web`], their
//! rounds in [`rounds`], other load generators in [`generators`].

// Each benchmark is a separate program and uses only some parts.
#![allow(dead_code)]

pub mod fanout;
pub mod generators;
pub mod load;
pub mod protocols;
pub mod rounds;
pub mod server;
pub mod web;

use std::process::Command;

use anyhow::{Context, Result, bail};

/// The core of the servers.
const SERVER_CORE: &str = "0";
/// Both, where servers and the client share them.
const ALL_CORES: &str = "0,1";
/// The core of this process, which is the client.
const CLIENT_CORE: &str = "1";

/// The command line: sections by name, servers to leave out, and numbers.
pub struct Options {
    sections: Vec<String>,
    skipped: Vec<String>,
    numbers: Vec<(&'static str, u64)>,
}

impl Options {
    /// Reads `cargo bench --bench NAME -- [SECTION…] [--skip SERVER] [--NUMBER N]`.
    ///
    /// Returns `None` when cargo only checks that the program starts (`cargo test --all-targets`).
    pub fn read(sections: &[&str], numbers: &[(&'static str, u64)]) -> Result<Option<Options>> {
        let mut options =
            Options { sections: Vec::new(), skipped: Vec::new(), numbers: numbers.to_vec() };
        let mut asked = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value after it"));
            match argument.strip_prefix("--") {
                Some("bench") => asked = true,
                Some("skip") => options.skipped.push(value()?),
                Some(name) => match options.numbers.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, number)) => {
                        let text = value()?;
                        *number = text.parse().ok().with_context(|| {
                            format!(
                                "--{name}: '{text}' is not a whole number; expected one, such as \
                                {number}"
                            )
                        })?
                    }
                    None => {
                        bail!(
                            "--{name} is not an option; accepted: --skip SERVER{}",
                            usage(numbers)
                        )
                    }
                },
                None if sections.contains(&argument.as_str()) => options.sections.push(argument),
                None if sections.is_empty() => {
                    bail!("'{argument}' is not an option; this benchmark has no sections")
                }
                None => {
                    bail!("'{argument}' is not a section; accepted: {}", sections.join(", "))
                }
            }
        }
        if !asked {
            println!("this is a benchmark; run it by `cargo bench --bench NAME`");
            return Ok(None);
        }
        Ok(Some(options))
    }

    /// True if a section is to run. Without named sections, all run.
    pub fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|named| named == section)
    }

    /// True if a server is to run, which `--skip` prevents.
    pub fn includes(&self, server: &str) -> bool {
        !self.skipped.iter().any(|skipped| server.contains(skipped.as_str()))
    }

    /// Returns the value of a number option.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers
            .iter()
            .find(|(known, _)| *known == name)
            .expect("the benchmark declares this number")
            .1
    }
}

fn usage(numbers: &[(&str, u64)]) -> String {
    numbers.iter().map(|(name, default)| format!(", --{name} {default}")).collect()
}

/// Raises the file limit of this process and its servers, and moves this process to the clients'
/// core.
pub fn prepare() -> Result<()> {
    server::clean_up()?;
    let files = slabd::sys::raise_file_limit()?;
    let pinned = can_pin()
        && Command::new("taskset")
            .args(["-cp", CLIENT_CORE, &std::process::id().to_string()])
            .output()
            .is_ok_and(|output| output.status.success());
    if pinned {
        println!(
            "Servers run on core {SERVER_CORE}, the client on core {CLIENT_CORE}. \
             Each process may open {files} files.\n"
        );
    } else {
        println!(
            "NOT PINNED: fewer than two cores, or no taskset. \
             Each process may open {files} files.\n"
        );
    }
    Ok(())
}

/// Lets this process run on every core, where it competes with the servers.
pub fn use_all_cores() -> Result<()> {
    if can_pin() {
        let process = std::process::id().to_string();
        let output = Command::new("taskset").args(["-cp", ALL_CORES, &process]).output()?;
        anyhow::ensure!(output.status.success(), "taskset cannot use the cores {ALL_CORES}");
    }
    Ok(())
}

/// True if servers and client can run on different cores.
fn can_pin() -> bool {
    // `available_parallelism` would count only the cores of this process, which may be pinned
    // already.
    let cores = std::fs::read_to_string("/proc/cpuinfo")
        .map_or(0, |text| text.matches("processor\t").count());
    cores >= 2 && server::is_installed("taskset")
}

/// Returns the middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a median needs at least one value");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Returns the smallest and the largest value as text.
pub fn range(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{low:.2}–{high:.2}")
}

/// A table for terminals and Markdown. The first column is text, and the others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| cell.to_string()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    pub fn print(&self) {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if index == 0 {
                let rules = widths.iter().enumerate().map(|(column, &width)| {
                    if column == 0 {
                        "-".repeat(width)
                    } else {
                        format!("{}:", "-".repeat(width.saturating_sub(1)))
                    }
                });
                println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
            }
        }
        println!();
    }
}

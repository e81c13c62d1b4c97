//! The number of connections that the machine and the settings allow, and what limits it.

use std::fmt;

use super::Config;
use crate::buffer::BufferMode;
use crate::kernel::KernelSettings;
use crate::limits::{CONNECTION_BYTES, CONNECTIONS_MAX, FILES_RESERVED};
use crate::machine::{Machine, MemoryOffer};
use crate::report::figures::count;
use crate::units::Size;

/// The number of connections that can be open at once, and the limit that keeps it from being
/// larger. Shown as in `19,936 connections (open files; raise with …)`.
#[derive(Debug, PartialEq, Eq)]
pub struct Capacity {
    pub connections: usize,
    limit: String,
}

impl Capacity {
    /// Returns the least of what settings, files, memory and kernel allow. `slots` are the
    /// connections that clients may open by the settings, and `in_budget` those that the memory
    /// budget has room for.
    pub fn of(
        config: &Config,
        machine: &Machine,
        kernel: &KernelSettings,
        (slots, in_budget): (usize, usize),
    ) -> Capacity {
        let most = config.limits.max_connections;
        let by_settings = if most == connections_possible(machine.files) && most < CONNECTIONS_MAX {
            "open files; raise with ulimit -n or LimitNOFILE="
        } else {
            "max-connections"
        };
        let budget = config.limits.memory_budget;
        // A larger setting would be lowered again.
        let raise = machine.least(true).filter(|offer| offer.share() == budget);
        let raise = raise.map_or("raise with --memory-budget", |offer| offer.raise);
        let of_kernel = |files: Option<u64>| {
            let left = files?.saturating_sub(FILES_RESERVED);
            usize::try_from(left).ok()
        };
        let limits = [
            (Some(slots), by_settings.to_string()),
            (Some(in_budget), format!("memory-budget {}; {raise}", Size(budget))),
            (of_kernel(kernel.files_max), "fs.file-max; raise with sysctl".into()),
            (of_kernel(kernel.watches_max), "fs.epoll.max_user_watches; raise with sysctl".into()),
        ];
        // Of equal limits the last is named: the budget bounds the slots as well.
        let known = limits.into_iter().filter_map(|(most, limit)| Some((most?, limit)));
        let (connections, limit) =
            known.rev().min_by_key(|(connections, _)| *connections).unwrap_or_default();
        Capacity { connections: connections.max(1), limit }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections ({})", count(self.connections as u64), self.limit)
    }
}

impl Config {
    /// Bounds `max-connections` by the files that this process may open.
    pub(super) fn fit_files(&mut self, files: u64, is_given: bool) {
        let possible = connections_possible(files);
        let wanted = self.limits.max_connections;
        if is_given && wanted > possible {
            self.warnings.push(too_many_connections(wanted, files));
        }
        self.limits.max_connections = if is_given { wanted.min(possible) } else { possible };
    }

    /// Derives `memory-budget` from what the machine offers, and warns of one that does not fit.
    pub(super) fn fit_memory(&mut self, machine: &Machine, is_given: bool, wants_slots: bool) {
        if !is_given {
            self.limits.memory_budget = machine.default_budget();
        }
        if let Some(offer) = machine.least(true) {
            self.lower_budget(offer);
        }
        let budget = self.limits.memory_budget;
        self.warnings.extend(too_large_budget(budget as u64, machine));
        let buffers = match self.buffers {
            BufferMode::Pooled => 0,
            BufferMode::Fixed(bytes) => 2 * bytes.next_power_of_two(),
        };
        let each = (CONNECTION_BYTES + buffers) as u64 + machine.objects;
        let (fit, wanted) = (budget as u64 / each, self.limits.max_connections);
        if wants_slots && fit < wanted as u64 {
            self.warnings.push(format!(
                "memory-budget {} has room for {fit} connections with {} buffers, and \
                 max-connections is {wanted}",
                Size(budget),
                super::Buffers(self.buffers)
            ));
        }
    }

    /// Lowers a budget that the kernel would not grant, because a failed allocation could end the
    /// process.
    fn lower_budget(&mut self, offer: &MemoryOffer) {
        let (budget, share) = (self.limits.memory_budget, offer.share());
        if budget > share {
            self.limits.memory_budget = share;
            self.warnings.push(format!(
                "memory-budget lowered from {} to {}, half of the {} that {}; {}",
                Size(budget),
                Size(share),
                megabytes(offer.bytes),
                offer.name,
                offer.raise
            ));
        }
    }
}

/// Returns a warning if the kernel may end the process before it has used up its budget.
fn too_large_budget(budget: u64, machine: &Machine) -> Option<String> {
    let shown = megabytes(budget);
    let least = machine.least(false).filter(|offer| offer.bytes < budget);
    let wrong = least.map(|MemoryOffer { name, bytes, raise, .. }| {
        format!("is more than {name}, {}; lower it, or {raise}", megabytes(*bytes))
    });
    let left = machine.available.filter(|&bytes| bytes < budget).map(|bytes| {
        format!(
            "is more than the memory that other programs leave, {}; lower it, or end others",
            megabytes(bytes)
        )
    });
    let wrong = wrong.or(left)?;
    Some(format!("memory-budget {shown} {wrong}; otherwise the kernel may end this process"))
}

/// Returns a size in whole MiB, for people.
fn megabytes(bytes: u64) -> String {
    let whole = bytes >> 20 << 20;
    Size(usize::try_from(if whole > 0 { whole } else { bytes }).unwrap_or(usize::MAX)).to_string()
}

/// Returns the connections for which this number of files suffices.
pub(super) fn connections_possible(files: u64) -> usize {
    let possible = usize::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(CONNECTIONS_MAX);
    possible.clamp(1, CONNECTIONS_MAX)
}

/// Returns the sentence about a `max-connections` that the files do not suffice for.
pub(super) fn too_many_connections(wanted: usize, files: u64) -> String {
    let possible = connections_possible(files);
    format!(
        "max-connections lowered from {wanted} to {possible}: this process may open {files} \
         files and reserves {FILES_RESERVED}; raise the limit (ulimit -n) to hold more"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use std::path::Path;

    fn offer(name: &str, bytes: u64, is_refused: bool) -> MemoryOffer {
        MemoryOffer { name: name.into(), bytes, raise: "raise it", is_refused }
    }

    fn resolve(toml: &str, machine: &Machine) -> Config {
        let settings = Settings::parse(toml, Path::new("slabd.toml")).unwrap();
        settings.resolve(machine).unwrap()
    }

    fn machine(offers: Vec<MemoryOffer>) -> Machine {
        Machine { offers, ..Machine::with_files(20_000) }
    }

    #[test]
    fn the_budget_is_half_of_the_least_memory_by_default() {
        let offers = vec![offer("memory", 8 << 30, false), offer("group", 1 << 30, false)];
        let config = resolve("", &machine(offers));
        assert_eq!((config.limits.memory_budget, config.warnings.len()), (512 << 20, 0));
        assert_eq!(
            config.limits.subscription_memory,
            128 << 20,
            "a quarter is for the hub's tables"
        );
    }

    #[test]
    fn the_limits_of_the_process_lower_a_budget_with_a_warning() {
        let rlimit = || offer("ulimit -v leaves", 40 << 20, true);
        for (toml, lowered) in [
            ("", true),
            ("memory-budget = \"20MiB\"", false),
            ("memory-budget = 20971519", false),
            ("memory-budget = 20971521", true),
            ("memory-budget = \"1GiB\"", true),
        ] {
            let config = resolve(toml, &machine(vec![offer("memory", 8 << 30, false), rlimit()]));
            assert!(config.limits.memory_budget <= 20 << 20, "{toml}");
            let warned = "to 20MiB, half of the 40MiB that ulimit -v leaves; raise it";
            let is_warned = config.warnings.iter().any(|warning| warning.ends_with(warned));
            assert_eq!(is_warned, lowered, "{toml}: {:?}", config.warnings);
        }
        let tiny = resolve("", &machine(vec![offer("ulimit -v leaves", 0, true)]));
        assert_eq!(tiny.limits.memory_budget, crate::limits::MEMORY_BUDGET_MIN);
    }

    #[test]
    fn a_budget_beyond_the_memory_of_group_or_machine_is_kept_with_a_warning() {
        let offers =
            || vec![offer("the machine", 8 << 30, false), offer("the group", 1 << 30, false)];
        for (toml, available, warned) in [
            ("memory-budget = \"1GiB\"", None, ""),
            ("memory-budget = \"1025MiB\"", None, "1025MiB is more than the group, 1GiB; "),
            ("memory-budget = \"64GiB\"", Some(1), "64GiB is more than the group, 1GiB; "),
            ("", Some(512 << 20), ""),
            ("", Some((512 << 20) - 1), "512MiB is more than the memory that other programs leave"),
        ] {
            let machine = Machine { available, ..machine(offers()) };
            let warnings = resolve(toml, &machine).warnings;
            assert_eq!(warnings.len(), usize::from(!warned.is_empty()), "{toml}: {warnings:?}");
            assert!(warnings.iter().all(|text| text.contains(warned)), "{toml}: {warnings:?}");
        }
    }

    #[test]
    fn the_least_limit_is_named_with_its_remedy() {
        let kernel = KernelSettings::default();
        let capped = KernelSettings { files_max: Some(164), ..kernel };
        let watched = KernelSettings { watches_max: Some(1064), ..kernel };
        let shown = |toml: &str, kernel: &KernelSettings, slots: (usize, usize)| {
            let machine = machine(vec![]);
            Capacity::of(&resolve(toml, &machine), &machine, kernel, slots).to_string()
        };
        for (toml, kernel, slots, expected) in [
            (
                "",
                kernel,
                (19_936, 1 << 20),
                "19,936 connections (open files; raise with ulimit -n or LimitNOFILE=)",
            ),
            ("max-connections = 8", kernel, (8, 1 << 20), "8 connections (max-connections)"),
            (
                "memory-budget = \"16MiB\"",
                kernel,
                (3722, 3722),
                "3,722 connections (memory-budget 16MiB; raise with --memory-budget)",
            ),
            ("", capped, (19_936, 20_000), "100 connections (fs.file-max; raise with sysctl)"),
            (
                "",
                watched,
                (19_936, 20_000),
                "1,000 connections (fs.epoll.max_user_watches; raise with sysctl)",
            ),
        ] {
            assert_eq!(shown(toml, &kernel, slots), expected);
        }
    }

    #[test]
    fn a_budget_that_the_process_limits_is_raised_with_that_limit() {
        let machine = machine(vec![offer("ulimit -v leaves", 40 << 20, true)]);
        let config = resolve("", &machine);
        let kernel = KernelSettings::default();
        let capacity = Capacity::of(&config, &machine, &kernel, (4600, 4600)).to_string();
        assert_eq!(capacity, "4,600 connections (memory-budget 20MiB; raise it)");
    }
}

//! The resources that the machine offers this process: files, memory, sockets of the service
//! manager, and the kernel's price of a connection.
//!
//! Memory is limited by the machine, by control groups, and by the process's own limits. The least
//! of them counts, and the server names it in its warnings.

use std::fs;
use std::path::{Path, PathBuf};

use crate::inherited::{self, InheritedSocket};
use crate::limits::{DEFAULT_FILE_LIMIT, MEMORY_BUDGET_DEFAULT, MEMORY_BUDGET_MIN, OFFER_SHARE};
use crate::memory::{self, OBJECTS_BYTES_DEFAULT};
use crate::sys;

/// Facts from before the first connection. The defaults of settings follow from them.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of files that this process may open.
    pub files: u64,
    /// Every known limit on the memory of this process.
    pub offers: Vec<MemoryOffer>,
    /// Memory that other programs leave, in bytes.
    pub available: Option<u64>,
    /// Bytes of the kernel's structures for one connection.
    pub objects: u64,
    /// The sockets that a service manager has opened, or why one of them cannot be used.
    pub inherited: Result<Vec<InheritedSocket>, String>,
}

/// A limit on the memory of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOffer {
    /// The limit in words.
    pub name: String,
    /// Bytes that this process may still take.
    pub bytes: u64,
    /// How to raise the limit.
    pub raise: &'static str,
    /// True if the kernel refuses memory beyond it. Beyond the others, it ends the process.
    pub is_refused: bool,
}

impl Machine {
    /// Reads the facts. Raises the limit on open files as far as allowed.
    pub fn read() -> Machine {
        let mut offers: Vec<_> = machine_memory().into_iter().collect();
        offers.extend(group_memory());
        offers.extend(own_limits());
        Machine {
            files: sys::raise_file_limit().unwrap_or(DEFAULT_FILE_LIMIT),
            offers,
            available: meminfo("MemAvailable:"),
            objects: memory::kernel_objects().bytes,
            inherited: inherited::read(),
        }
    }

    /// Returns a machine of which only the number of files is known.
    pub fn with_files(files: u64) -> Machine {
        Machine {
            files,
            offers: Vec::new(),
            available: None,
            objects: OBJECTS_BYTES_DEFAULT,
            inherited: Ok(Vec::new()),
        }
    }

    /// Returns the lowest limit beyond which the kernel refuses memory, or the lowest beyond which
    /// it ends the process.
    pub fn least(&self, is_refused: bool) -> Option<&MemoryOffer> {
        let offers = self.offers.iter().filter(|offer| offer.is_refused == is_refused);
        offers.min_by_key(|offer| offer.bytes)
    }

    /// Returns the default of `memory-budget` in bytes, before the process's own limits lower it.
    pub fn default_budget(&self) -> usize {
        self.least(false).map_or(MEMORY_BUDGET_DEFAULT, MemoryOffer::share)
    }
}

impl MemoryOffer {
    /// Returns the part that the budget may have by default, in whole MiB where that is possible.
    pub fn share(&self) -> usize {
        let share = usize::try_from(self.bytes / OFFER_SHARE).unwrap_or(usize::MAX);
        let whole = share >> 20 << 20;
        if whole > 0 { whole } else { share.max(MEMORY_BUDGET_MIN) }
    }
}

/// Returns the number of bytes in a line of /proc/meminfo, which counts in KiB. proc(5).
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Returns the memory of the machine. MemAvailable changes with the other programs, so a default
/// made from it would differ from start to start.
fn machine_memory() -> Option<MemoryOffer> {
    Some(MemoryOffer {
        name: "the machine's memory".into(),
        bytes: meminfo("MemTotal:")?,
        raise: "add memory",
        is_refused: false,
    })
}

/// Returns the limits of the process itself, less what it has taken. getrlimit(2).
fn own_limits() -> impl Iterator<Item = MemoryOffer> {
    let taken = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let taken = move |column: usize| {
        let pages = taken.split_whitespace().nth(column)?.parse::<u64>().ok()?;
        Some(pages * sys::page_size())
    };
    // The columns of statm: all of the address space, and data with stack.
    let rows = [
        ("ulimit -v leaves of the address space", 0, "raise with ulimit -v or LimitAS="),
        ("ulimit -d leaves of the data segment", 5, "raise with ulimit -d or LimitDATA="),
    ];
    rows.into_iter().zip(sys::memory_limits()).filter_map(move |((name, column, raise), limit)| {
        let bytes = limit?.saturating_sub(taken(column).unwrap_or(0));
        Some(MemoryOffer { name: name.into(), bytes, raise, is_refused: true })
    })
}

/// Returns the lowest limit of the control groups of this process and of their parents.
/// cgroups(7).
pub fn group_memory() -> Option<MemoryOffer> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    memory_groups(&groups, &mounts).iter().filter_map(least_limit).min_by_key(|offer| offer.bytes)
}

/// A memory group: the folder of the mount, the group's own folder in it, and its limit files.
type Group = (PathBuf, PathBuf, &'static [&'static str]);

/// Returns the memory groups in /proc/self/cgroup. Version 2 has one line `0::PATH`. Version 1 has
/// a line that names the memory controller.
fn memory_groups(groups: &str, mounts: &str) -> Vec<Group> {
    let places = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (files, usual, path): (&[_], _, _) = match (parts.next()?, parts.next()?, parts.next()?)
        {
            ("0", "", path) => (&["memory.max", "memory.high"], "/sys/fs/cgroup", path),
            (_, names, path) if names.split(',').any(|name| name == "memory") => {
                (&["memory.limit_in_bytes"], "/sys/fs/cgroup/memory", path)
            }
            _ => return None,
        };
        let (root, mount) = mounted(mounts, files.len() == 2).unwrap_or(("/", usual));
        // A container sees its group's folder as the root of the mount.
        let within = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        let mount = PathBuf::from(mount);
        Some((mount.clone(), mount.join(within.trim_start_matches('/')), files))
    });
    places.collect()
}

/// Returns the root and the mount point of the memory controller, from /proc/self/mountinfo.
fn mounted(mounts: &str, is_version_2: bool) -> Option<(&str, &str)> {
    mounts.lines().find_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let (mut place, mut source) = (place.split(' ').skip(3), source.split(' '));
        let is_it = match source.next()? {
            "cgroup2" => is_version_2,
            "cgroup" => !is_version_2 && source.nth(1)?.split(',').any(|option| option == "memory"),
            _ => false,
        };
        is_it.then_some((place.next()?, place.next()?))
    })
}

/// Returns the lowest limit of a group and its parents. A group without a limit has `max` or a
/// number beyond any memory.
fn least_limit((mount, folder, files): &Group) -> Option<MemoryOffer> {
    const NO_LIMIT: u64 = 1 << 60;
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(mount));
    let limits = folders.flat_map(|folder| files.iter().map(move |file| (folder, *file)));
    let (bytes, file) = limits
        .filter_map(|(folder, file)| Some((read_number(&folder.join(file))?, file)))
        .filter(|(bytes, _)| *bytes < NO_LIMIT)
        .min()?;
    Some(MemoryOffer {
        name: format!("{file} of the control group"),
        bytes,
        raise: "raise memory.max (v1: memory.limit_in_bytes) of the group; \
                systemd: MemoryMax=; docker: --memory",
        is_refused: false,
    })
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(bytes: u64) -> MemoryOffer {
        MemoryOffer { name: "memory".into(), bytes, raise: "", is_refused: false }
    }

    #[test]
    fn this_machine_offers_files_and_memory() {
        let machine = Machine::read();
        assert!(machine.files > 64 && machine.available.is_some());
        assert!(machine.least(false).is_some_and(|offer| offer.bytes > 1 << 20), "{machine:?}");
    }

    #[test]
    fn the_default_budget_is_half_of_the_lowest_limit() {
        let with = |offers: Vec<MemoryOffer>| Machine { offers, ..Machine::with_files(1000) };
        assert_eq!(with(vec![]).default_budget(), MEMORY_BUDGET_DEFAULT);
        assert_eq!(with(vec![offer(8 << 30)]).default_budget(), 4 << 30);
        assert_eq!(with(vec![offer(8 << 30), offer(64 << 20)]).default_budget(), 32 << 20);
        assert_eq!(with(vec![offer((64 << 20) + 12_345)]).default_budget(), 32 << 20);
        assert_eq!(with(vec![offer(1 << 20)]).default_budget(), 512 << 10);
        for none in [0, 1, 128 * 1024] {
            assert_eq!(with(vec![offer(none)]).default_budget(), MEMORY_BUDGET_MIN);
        }
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/c\n";
        let found = memory_groups(groups, "");
        let folders: Vec<_> = found.iter().map(|(_, folder, _)| folder.to_str().unwrap()).collect();
        assert_eq!(folders, ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/c"]);
        assert_eq!(found[0].2, ["memory.limit_in_bytes"]);
        assert_eq!(found[1].2, ["memory.max", "memory.high"]);
    }

    /// Field 4 of mountinfo is the folder of the group that the mount shows as its root.
    #[test]
    fn a_group_is_found_where_its_controller_is_mounted() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 30 0:27 /docker/x /mnt/mem rw - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /mnt/cpu rw - cgroup cgroup rw,cpu\n\
                      33 30 0:29 /docker/x /mnt/two rw,nosuid - cgroup2 cgroup2 rw\n";
        for (groups, folder) in [
            ("4:memory:/docker/x", "/mnt/mem"),
            ("4:memory:/docker/x/y", "/mnt/mem/y"),
            ("4:memory:/other", "/mnt/mem/other"),
            ("0::/docker/x/z", "/mnt/two/z"),
            ("0::/", "/mnt/two"),
        ] {
            let found = memory_groups(groups, mounts);
            assert_eq!(found[0].1, Path::new(folder), "{groups}");
        }
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_its_parents_counts() {
        let mount = std::env::temp_dir().join(format!("slabd-groups-{}", std::process::id()));
        let own = mount.join("parent/own");
        fs::create_dir_all(&own).unwrap();
        let group: Group = (mount.clone(), own.clone(), &["memory.max", "memory.high"]);
        let least = || least_limit(&group).map(|offer| (offer.bytes, offer.name));
        for (folder, file, text, expected) in [
            (&own, "memory.max", "max\n", None),
            (&own, "memory.max", "9223372036854771712\n", None),
            (&own, "memory.max", "70000000\n", Some((70_000_000, "memory.max"))),
            (&mount.join("parent"), "memory.max", "60000000\n", Some((60_000_000, "memory.max"))),
            (&mount.join("parent"), "memory.high", "5000\n", Some((5000, "memory.high"))),
            (&mount, "memory.max", "400\n", Some((400, "memory.max"))),
        ] {
            fs::write(folder.join(file), text).unwrap();
            let named =
                expected.map(|(bytes, file)| (bytes, format!("{file} of the control group")));
            assert_eq!(least(), named, "{text}");
        }
        fs::remove_dir_all(&mount).unwrap();
    }
}

//! A control group of a test's own, with a bound on memory; both versions of the kernel's interface (cgroups(7)).

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Removed at the end, when the processes in it have ended.
pub struct Cgroup {
    folder: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Makes one, or says why that cannot be done here.
    pub fn new(name: &str) -> Result<Cgroup, String> {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
        let is_v2 = fs::read_to_string(unified).is_ok_and(|controllers| controllers.contains("memory"));
        let parent = if is_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        let folder = Path::new(parent).join(format!("slabd-{name}-{}", std::process::id()));
        if is_v2 {
            // Fails where it is delegated already, or is not ours; the bound below tells.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(Cgroup { folder, is_v2 })
    }

    fn set(&self, file: &str, value: impl ToString) -> Result<(), String> {
        let path = self.folder.join(file);
        fs::write(&path, value.to_string()).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Bounds all memory of the processes in it. With version 2 that includes their sockets' buffers.
    pub fn limit(&self, bytes: u64) -> Result<(), String> {
        self.set(if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes)
    }

    /// Bounds the buffers of their TCP sockets, which version 2 cannot do by themselves.
    pub fn limit_tcp(&self, bytes: u64) -> Result<(), String> {
        match self.is_v2 {
            true => Err("version 2 of cgroups has no bound on TCP memory alone".into()),
            false => self.set("memory.kmem.tcp.limit_in_bytes", bytes),
        }
    }

    pub fn enter(&self, process: u32) -> Result<(), String> {
        self.set("cgroup.procs", process)
    }

    /// The most that was taken of TCP memory. A little more than the bound: what cannot be refused is granted, and then counted as pressure.
    pub fn tcp_peak(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("memory.kmem.tcp.max_usage_in_bytes")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were killed a moment ago may still be in it.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

//! A control group for one test, with a memory limit. Both versions of cgroups(7) work.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group. It is removed on drop, once its processes have ended.
pub struct Cgroup {
    folder: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Creates a control group. Returns the reason if this machine does not allow it.
    pub fn new(name: &str) -> Result<Cgroup, String> {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
        let is_v2 =
            fs::read_to_string(unified).is_ok_and(|controllers| controllers.contains("memory"));
        let parent = if is_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        let folder = Path::new(parent).join(format!("slabd-{name}-{}", std::process::id()));
        if is_v2 {
            // If this fails, the limit below fails too and gives the reason.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        fs::create_dir(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(Cgroup { folder, is_v2 })
    }

    fn set(&self, file: &str, value: impl ToString) -> Result<(), String> {
        let path = self.folder.join(file);
        fs::write(&path, value.to_string())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Limits the memory of the group's processes, in bytes. In version 2, this includes the
    /// buffers of their sockets.
    pub fn limit(&self, bytes: u64) -> Result<(), String> {
        self.set(if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes)
    }

    /// Limits the TCP buffers of the group's processes, in bytes. Version 2 has no such limit.
    pub fn limit_tcp(&self, bytes: u64) -> Result<(), String> {
        match self.is_v2 {
            true => Err("version 2 of cgroups has no separate limit of TCP memory".into()),
            false => self.set("memory.kmem.tcp.limit_in_bytes", bytes),
        }
    }

    /// Moves a process into the group.
    pub fn enter(&self, process: u32) -> Result<(), String> {
        self.set("cgroup.procs", process)
    }

    /// Returns the peak of TCP memory, in bytes. It can be a little above the limit, because the
    /// kernel grants some requests that it cannot refuse.
    pub fn tcp_peak(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("memory.kmem.tcp.max_usage_in_bytes"))
            .unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed can still be in the group.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

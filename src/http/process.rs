//! What the system tells of this program.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::Process;

/// As it is now.
pub fn look() -> Process {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Process {
        resident_memory: resident_memory(),
        // One of them is the folder that is being read.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
        most_files: getrlimit(Resource::Nofile).current,
        cpu_seconds: Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
    }
}

/// In bytes.
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

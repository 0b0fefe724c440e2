//! What the system tells of a process. Linux only.

use std::fs;
use std::time::Duration;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time on a CPU, in user and kernel mode, of all its threads.
    pub cpu: Duration,
    /// How often one of its threads gave up a CPU because it had nothing to do: each is a wake-up later.
    pub waits: u64,
}

impl Usage {
    /// Of a running process.
    pub fn of(process: u32) -> Usage {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
        let mut usage = Usage { cpu: Duration::ZERO, waits: 0 };
        for task in tasks.flatten() {
            // Threads may end while we look.
            let Ok(schedule) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            usage.cpu += Duration::from_nanos(first_number(&schedule));
            usage.waits += field(&status, "voluntary_ctxt_switches:");
        }
        usage
    }

    /// Of the calling thread.
    pub fn of_this_thread() -> Duration {
        let schedule = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
        Duration::from_nanos(first_number(&schedule))
    }
}

/// Resident memory in MB, of a million bytes.
pub struct Memory {
    pub now: f64,
    /// Until now.
    pub highest: f64,
    /// What of it is the process's own: not the program's text, which all processes of one program share.
    pub own: f64,
}

impl Memory {
    pub fn of(process: u32) -> Memory {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
        let mb = |name| field(&status, name) as f64 * 1024.0 / 1e6;
        Memory { now: mb("VmRSS:"), highest: mb("VmHWM:"), own: mb("RssAnon:") }
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    first_number(line.expect("a field that Linux has"))
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

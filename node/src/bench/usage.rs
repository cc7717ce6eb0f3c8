//! What processes and the machine have used, as Linux counts it in `/proc`.

use std::{fs, io};

use super::report::Seconds;

/// Unit of CPU times in `/proc`: 1/100 s on every architecture this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used since it started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Of all its threads, in user and kernel.
    pub(super) cpu: Seconds,
    /// Resident memory, bytes.
    pub(super) rss_bytes: u64,
    /// The most it ever was, bytes.
    pub(super) rss_peak_bytes: u64,
}

/// What the whole machine has used since it started.
#[derive(Clone, Copy, Debug)]
pub(super) struct MachineUsage {
    /// Busy time of all cores.
    pub(super) busy: Seconds,
    /// Time the hypervisor gave to others.
    pub(super) stolen: Seconds,
}

/// What process `id` has used.
pub(super) fn of_process(id: u32) -> io::Result<Usage> {
    let (stat, status) = (format!("/proc/{id}/stat"), format!("/proc/{id}/status"));
    let cpu = process_cpu(&fs::read_to_string(&stat)?).ok_or_else(|| unreadable(&stat))?;
    let text = fs::read_to_string(&status)?;
    let kib = |name| field_kib(&text, name).ok_or_else(|| unreadable(&status));
    Ok(Usage { cpu, rss_bytes: kib("VmRSS:")? * 1024, rss_peak_bytes: kib("VmHWM:")? * 1024 })
}

/// What this process has used.
pub(super) fn of_this_process() -> io::Result<Usage> {
    of_process(std::process::id())
}

/// What the machine has used.
pub(super) fn of_machine() -> io::Result<MachineUsage> {
    machine(&fs::read_to_string("/proc/stat")?).ok_or_else(|| unreadable("/proc/stat"))
}

/// Processes that ran or wanted to, averaged over the last minute.
pub(super) fn load_average() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).ok_or_else(|| unreadable("/proc/loadavg"))
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as Linux writes it"))
}

/// User and system time out of `/proc/PID/stat`; the name before them may hold spaces and brackets.
fn process_cpu(stat: &str) -> Option<Seconds> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS_PER_SECOND)
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn machine(stat: &str) -> Option<MachineUsage> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else { return None };
    let busy = (user + nice + system + irq + softirq) / TICKS_PER_SECOND;
    Some(MachineUsage { busy, stolen: stolen / TICKS_PER_SECOND })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 9 0 1 2 3";
        assert_eq!(process_cpu(stat), Some(1.75));
        assert_eq!(process_cpu("7 (a) S 1"), None);
    }

    #[test]
    fn memory_and_machine_are_read_in_their_units() {
        assert_eq!(field_kib("Name:\tx\nVmHWM:\t  512 kB\n", "VmHWM:"), Some(512));
        assert_eq!(field_kib("Name:\tx\n", "VmHWM:"), None);
        let usage = machine("cpu  100 10 50 900 7 5 35 20 0 0\ncpu0 1\n").unwrap();
        assert_eq!((usage.busy, usage.stolen), (2.0, 0.2));
    }

    #[test]
    fn this_process_has_used_memory() {
        let usage = of_this_process().unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes);
    }
}

//! Figures of the process: CPU time, memory and file descriptors.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::exposition::Exposition;
use super::families;

/// Writes the figures of this process, which started at `started`. What the system does not report is missing.
pub(super) fn write(started: SystemTime, out: &mut Exposition) {
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.gauge(&families::BUILD, &[env!("CARGO_PKG_VERSION")], 1_u32);
    out.gauge(&families::PROCESS_START, &[], started.as_secs_f64());
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = [usage.user_time(), usage.system_time()].map(|time| {
            // The time of a process is below 2^53 µs.
            #[expect(clippy::cast_precision_loss, reason = "see above")]
            let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            seconds
        });
        out.seconds(&families::PROCESS_CPU, &[], seconds.iter().sum());
    }
    if let Some(bytes) = resident_memory() {
        out.gauge(&families::PROCESS_MEMORY, &[], bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // Without the one that reads the folder.
        out.gauge(&families::PROCESS_DESCRIPTORS, &[], descriptors.count().saturating_sub(1));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        out.gauge(&families::PROCESS_DESCRIPTORS_MAX, &[], soft);
    }
}

/// In bytes, from `/proc/self/status`.
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::exposition::Format;

    #[test]
    fn figures_of_this_process_are_plausible() {
        let mut out = Exposition::default();
        write(SystemTime::UNIX_EPOCH, &mut out);
        let text = out.encode(Format::Prometheus).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!(value("l7lb_process_resident_memory_bytes") > 1e6);
        assert!(value("l7lb_process_open_descriptors") >= 3.0);
        assert!(value("l7lb_process_max_descriptors") >= value("l7lb_process_open_descriptors"));
        assert_eq!(value("l7lb_process_start_time_seconds"), 0.0);
    }
}

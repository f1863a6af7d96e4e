//! What the system knows of this process: memory, CPU, file descriptors. From `/proc`, so on Linux only;
//! elsewhere just the start time.

use std::{
    fs,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Exposition, logging, metrics};

/// Clock ticks per second in `/proc`: the kernel's `USER_HZ`, 100 on every architecture we build for.
const TICKS: f64 = 100.0;

/// Remembers the present as the start of the process. Later calls change nothing.
pub fn started() {
    start();
}

/// When the process started, seconds since 1970.
pub fn start() -> f64 {
    static START: OnceLock<f64> = OnceLock::new();
    *START.get_or_init(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    })
}

/// Adds the process's metrics to a scrape.
pub fn write(out: &mut Exposition) {
    out.number(metrics::PROCESS_START, &[], start());
    out.number(metrics::LOG_LINES_DROPPED, &[], logging::dropped_lines() as f64);
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu) {
        out.number(metrics::PROCESS_CPU, &[], seconds);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status")
        && let Some(bytes) = resident(&status)
    {
        out.number(metrics::PROCESS_RESIDENT, &[], bytes);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        out.number(metrics::PROCESS_FDS, &[], entries.count().saturating_sub(1) as f64);
    }
    if let Ok(limits) = fs::read_to_string("/proc/self/limits")
        && let Some(most) = max_fds(&limits)
    {
        out.number(metrics::PROCESS_MAX_FDS, &[], most);
    }
}

/// User and system seconds: fields 14 and 15, counted behind the parenthesis that ends the name.
fn cpu(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_understood() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 900 0 0";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(resident("VmPeak:\t9 kB\nVmRSS:\t  2048 kB\n"), Some(2_097_152.0));
        let limits = "Max open files            1024                 4096                 files \n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!((cpu(""), resident("x"), max_fds("")), (None, None, None));
    }
}

//! Child processes that cannot outlive the harness, and what `/proc` says of them.

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A running server. It is ended by its id when dropped, and by the kernel when the harness dies
/// in any way (panic, Ctrl-C, SIGKILL): it carries a parent-death signal.
pub(crate) struct Guarded {
    child: Child,
}

impl Guarded {
    /// Starts `command`, bound to `core` if one is given.
    ///
    /// Must be called on the main thread: the parent-death signal follows the starting *thread*.
    pub(crate) fn spawn(mut command: Command, core: Option<usize>) -> Result<Self> {
        let cpus = core.map(cpu_set).transpose()?;
        // SAFETY: the closure runs in the forked child and makes two system calls, both
        // async-signal-safe; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                if let Some(cpus) = &cpus {
                    sched_setaffinity(Pid::from_raw(0), cpus)?;
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Asks with SIGTERM, and insists with SIGKILL after `grace`.
    pub(crate) fn stop(mut self, grace: Duration) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpu_set(core: usize) -> Result<CpuSet> {
    let mut cpus = CpuSet::new();
    cpus.set(core).with_context(|| format!("core {core}"))?;
    Ok(cpus)
}

/// Binds the calling thread to `core`.
pub(crate) fn pin_self(core: usize) -> Result<()> {
    sched_setaffinity(Pid::from_raw(0), &cpu_set(core)?).context("pinning the client")
}

/// Raises the soft descriptor limit to the hard one; returns it.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Processor time of a process so far, from `/proc/PID/stat` (granularity: one clock tick).
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    Some(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

/// Processor time of everything on the machine so far, stolen time included.
pub(crate) fn machine_cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        stat.lines().next()?.split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal: all but the two idle ones.
    let busy = fields.iter().take(8).sum::<u64>() - fields.get(3)? - fields.get(4)?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    Some(Duration::from_secs_f64(busy as f64 / per_second as f64))
}

/// Processor time of the harness itself.
pub(crate) fn own_cpu_time() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}

/// Resident memory now, at its peak, and without pages of files, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
    pub(crate) anonymous: u64,
}

/// Reads `VmRSS`, `VmHWM` and `RssAnon`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    match (field("VmRSS:"), field("VmHWM:"), field("RssAnon:")) {
        (Some(resident), Some(peak), Some(anonymous)) => Ok(Memory { resident, peak, anonymous }),
        _ => bail!("process {pid} has no memory figures; has it ended?"),
    }
}

/// Resident memory once it has stopped moving (under 1% in half a second), or after `bound`.
pub(crate) fn settled_memory(pid: u32, bound: Duration) -> Result<u64> {
    let deadline = Instant::now() + bound;
    let mut last = memory(pid)?.resident;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = memory(pid)?.resident;
        if now.abs_diff(last) * 100 < last || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

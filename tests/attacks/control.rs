//! How late the machine itself is: the attackers, the other client and the server share its processors and its disk, so
//! that not everything a client waits for is the server's.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::observer::Durations;

/// Between two measurements.
const PAUSE: Duration = Duration::from_millis(5);
/// What is written before a sync, bytes: about a frame of the log with the other client's append.
const WRITTEN: usize = 300;
/// The size of the file, which is written and synced as a whole first, bytes.
const FILE: usize = 1 << 20;

/// What was measured beside one attack, without the server.
#[derive(Clone, Default)]
pub(crate) struct MachineDelays {
    /// How much later than asked for a sleeping thread woke.
    pub(crate) wakes: Durations,
    /// How long a small write and its `fdatasync` took, in the file system of the server's log.
    pub(crate) syncs: Durations,
}

/// Two threads that measure until the end.
pub(crate) struct MachineControl {
    stopped: Arc<AtomicBool>,
    wakes: JoinHandle<Durations>,
    syncs: JoinHandle<Durations>,
}

impl MachineControl {
    /// `directory` is on the disk of the server's log.
    pub(crate) fn begin(directory: &Path) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let file = File::create_new(directory.join("control")).unwrap();
        file.write_all_at(&vec![0; FILE], 0).unwrap();
        file.sync_all().unwrap();
        let wakes = until(stopped.clone(), |durations| {
            let asked = Instant::now();
            sleep(PAUSE);
            durations.push(asked.elapsed().saturating_sub(PAUSE));
        });
        let mut at = 0;
        let syncs = until(stopped.clone(), move |durations| {
            sleep(PAUSE);
            let began = Instant::now();
            let written = file.write_all_at(&[1; WRITTEN], at).and_then(|()| file.sync_data());
            written.expect("the control's file");
            durations.push(began.elapsed());
            at = (at + WRITTEN as u64) % (FILE - WRITTEN) as u64;
        });
        MachineControl { stopped, wakes, syncs }
    }

    pub(crate) fn end(self) -> MachineDelays {
        self.stopped.store(true, Ordering::Relaxed);
        let [mut wakes, mut syncs] = [self.wakes, self.syncs].map(|one| one.join().unwrap());
        wakes.sort();
        syncs.sort();
        MachineDelays { wakes, syncs }
    }
}

fn until(
    stopped: Arc<AtomicBool>,
    mut measure: impl FnMut(&mut Durations) + Send + 'static,
) -> JoinHandle<Durations> {
    spawn(move || {
        let mut durations = Durations::default();
        while !stopped.load(Ordering::Relaxed) {
            measure(&mut durations);
        }
        durations
    })
}

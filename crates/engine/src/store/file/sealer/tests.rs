use std::time::Instant;

use super::*;
use crate::store::file::{FileStore, FileStoreOptions, disk::RealDisk};

#[test]
fn the_pause_grows_while_nothing_is_due() {
    let second = Duration::from_secs(1);
    let after = |sealed, before, limited| pause_after(sealed, before * second, second, limited);
    assert_eq!(
        [0, 1, 2, 8, 15, 16, 30].map(|before| after(0, before, false).as_secs()),
        [1, 2, 4, 16, 30, 30, 30]
    );
    assert_eq!(after(1, 16, false), second, "something was due");
    assert_eq!(after(0, 16, true), second, "there may be no room for appends");
}

#[test]
fn the_thread_waits_as_its_rate_calls_for_until_it_is_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileStoreOptions { map_size: 1 << 20, ..FileStoreOptions::new(dir.path()) };
    let store = FileStore::open_on(Arc::new(RealDisk), options).unwrap();
    let sealer = &store.sealer;
    let long = usize::MAX / 2;
    let begun = Instant::now();
    assert!(sealer.pace(true, RATE as usize / 50).is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
    assert!(sealer.pace(false, long).is_ok(), "nobody waits for what is not paced");
    sealer.stop();
    assert!(matches!(sealer.pace(true, long), Err(SealStop::Stopped)));
    assert!(sealer.pace(false, long).is_ok());
}

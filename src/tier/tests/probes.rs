//! The probe: a store that does what segments need passes, each that does not is refused with what to do.

use std::sync::Arc;

use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use durable_streams_protocol::Timestamp;

use super::faults::{FaultRates, FaultyStore, Habit};
use super::{cold_store, options};
use crate::tier::probe::{FOLDER, ProbeError, probe};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

async fn probed(store: FaultyStore) -> Result<(), ProbeError> {
    probe(&cold_store(Arc::new(store), options()), NOW).await
}

#[tokio::test(start_paused = true)]
async fn a_good_store_passes_and_a_bad_one_is_refused_with_what_to_do() {
    probed(FaultyStore::new(0, FaultRates::default())).await.unwrap();
    for (habit, says) in [
        (Habit::Overwrites, "use a store that supports conditional writes"),
        (Habit::IgnoresRanges, "another range"),
        (Habit::ListsNothing, "does not list an object"),
        (Habit::KeepsDeleted, "returns an object that was deleted"),
        (Habit::Forbids, "check the bucket's name, the credentials"),
    ] {
        let error = probed(FaultyStore::with_habit(habit)).await.unwrap_err().to_string();
        assert!(error.contains(says), "{habit:?}: {error}");
    }
    let silent = FaultRates { silent: 1000, ..FaultRates::default() };
    let error = probed(FaultyStore::new(0, silent)).await.unwrap_err().to_string();
    assert!(error.contains("check tier.endpoint"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lists_late_passes() {
    let late = FaultRates { late_list: 700, ..FaultRates::default() };
    for seed in 0..20 {
        probed(FaultyStore::new(seed, late)).await.unwrap();
    }
}

#[tokio::test]
async fn it_leaves_nothing_and_cleans_up_behind_interrupted_ones() {
    let store = cold_store(Arc::new(FaultyStore::new(0, FaultRates::default())), options());
    let old = format!("{FOLDER}{:020}-x", NOW.millis() - 25 * 3_600_000);
    let new = format!("{FOLDER}{:020}-x", NOW.millis() - 23 * 3_600_000);
    for name in [&old, &new] {
        store.create(name, vec!["x".into()]).await.unwrap();
    }
    probe(&store, NOW).await.unwrap();
    let left = store.list(FOLDER, None).await.unwrap();
    assert_eq!(left, [(new, 1)]);
}

//! Claims: one server has the prefix, in whatever order servers start and whatever the object store does.

use std::path::Path;
use std::sync::Arc;

use durable_streams_protocol::Timestamp;
use futures_util::future::join_all;

use super::faults::{FaultRates, FaultyStore};
use super::{cold_store, options};
use crate::tier::claim::{ClaimError, TierClaim, claim};
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{Tier, TierError, TierOptions};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn store() -> Arc<ObjectColdStore> {
    cold_store(Arc::new(FaultyStore::new(0, FaultRates::default())), options())
}

async fn start(store: &ObjectColdStore, dir: &Path) -> Result<TierClaim, ClaimError> {
    claim(store, dir, NOW, false).await
}

#[tokio::test]
async fn another_directory_is_refused_until_it_takes_over() {
    let (store, a, b) = (store(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = start(&store, a.path()).await.unwrap();
    assert_eq!(first.epoch, 1);
    let refused = start(&store, b.path()).await.unwrap_err();
    assert!(
        matches!(&refused, ClaimError::Other { identity, epoch: 1, .. } if *identity == first.identity)
    );
    assert!(refused.to_string().contains("2027-01-15T08:00:00"), "{refused}");
    // The same directory starts again, as often as it likes.
    let again = start(&store, a.path()).await.unwrap();
    assert_eq!((again.identity.clone(), again.epoch), (first.identity.clone(), 2));
    assert!(again.holds(&store).await.unwrap());
    let taken = claim(&store, b.path(), NOW, true).await.unwrap();
    assert_eq!(taken.epoch, 3);
    assert!(!again.holds(&store).await.unwrap());
    assert!(taken.holds(&store).await.unwrap());
    assert!(matches!(start(&store, a.path()).await, Err(ClaimError::Other { epoch: 3, .. })));
    start(&store, b.path()).await.unwrap();
}

#[tokio::test]
async fn a_copy_of_the_directory_and_another_prefix_are_refused() {
    let (first, dir) = (store(), tempfile::tempdir().unwrap());
    let copy = tempfile::tempdir().unwrap();
    start(&first, dir.path()).await.unwrap();
    std::fs::create_dir(copy.path().join("keys")).unwrap();
    let file = Path::new("keys/tier.json");
    std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    let original = start(&first, dir.path()).await.unwrap();
    assert!(matches!(start(&first, copy.path()).await, Err(ClaimError::Copy { epoch: 2 })));
    assert!(original.holds(&first).await.unwrap());
    let taken = claim(&first, copy.path(), NOW, true).await.unwrap();
    assert_eq!(taken.identity, original.identity);
    assert!(matches!(start(&first, dir.path()).await, Err(ClaimError::Copy { epoch: 3 })));

    let other = store();
    assert!(matches!(start(&other, copy.path()).await, Err(ClaimError::Missing(3))));
    assert_eq!(claim(&other, copy.path(), NOW, true).await.unwrap().epoch, 1);
    // Back on the first prefix, whose claim it no longer knows.
    assert!(start(&first, copy.path()).await.is_err());
}

#[tokio::test]
async fn what_is_no_claim_is_not_overwritten() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    store.create(&format!("claim/{:020}", 1), vec!["something else".into()]).await.unwrap();
    assert!(matches!(start(&store, dir.path()).await, Err(ClaimError::Foreign(1))));
}

/// A directory in memory where there is such a thing: thousands of runs sync thousands of files.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Directories on one prefix, which start at once and again, with faults: never do two have it.
async fn race(seed: u64) -> (usize, usize) {
    let rates = FaultRates { forbidden: 5, ..FaultRates::PASSING };
    let faulty = Arc::new(FaultyStore::new(seed, rates));
    let store = cold_store(faulty.clone(), options());
    let dirs: Vec<_> = (0..3).map(|_| in_memory()).collect();
    let mut winner: Option<usize> = None;
    let mut failed = 0;
    for round in 0..3 {
        if round == 2 {
            faulty.set_rates(FaultRates::default());
        }
        let started = join_all(dirs.iter().map(|dir| start(&store, dir.path()))).await;
        for (at, result) in started.into_iter().enumerate() {
            match result {
                Ok(claim) => {
                    assert!(winner.is_none_or(|winner| winner == at), "seed {seed}: two servers");
                    winner = Some(at);
                    assert!(claim.epoch <= 3, "seed {seed}");
                }
                Err(_) => failed += 1,
            }
        }
    }
    assert!(winner.is_some(), "seed {seed}: no server when the store was well again");
    (winner.unwrap(), failed)
}

#[tokio::test(start_paused = true)]
async fn one_server_wins_whatever_the_store_does() {
    let mut wins = [0; 3];
    for seed in 0..1000 {
        let (winner, failed) = race(seed).await;
        wins[winner] += 1;
        assert!((6..9).contains(&failed), "seed {seed}: {failed}");
    }
    assert!(wins.iter().all(|wins| *wins > 20), "{wins:?}");
}

/// Directories, one of them a copy of another, that start and take over at once and again, with requests that take effect
/// late: of all that have started at most one may go on.
async fn race_with_take_overs(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let rates = FaultRates { late_put: 100, forbidden: 5, ..FaultRates::PASSING };
    let faulty = Arc::new(FaultyStore::new(seed, FaultRates::default()));
    let store = cold_store(faulty.clone(), options());
    let dirs: Vec<_> = (0..4).map(|_| in_memory()).collect();
    start(&store, dirs[0].path()).await.unwrap();
    std::fs::create_dir(dirs[1].path().join("keys")).unwrap();
    let file = Path::new("keys/tier.json");
    std::fs::copy(dirs[0].path().join(file), dirs[1].path().join(file)).unwrap();
    let mut claims = Vec::new();
    for _ in 0..3 {
        faulty.set_rates(rates);
        let all: Vec<_> = dirs.iter().map(|dir| (dir, random.bool())).collect();
        let started = all.iter().map(|(dir, take_over)| claim(&store, dir.path(), NOW, *take_over));
        claims.extend(join_all(started).await.into_iter().filter_map(Result::ok));
        if random.bool() {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        }
        faulty.set_rates(FaultRates::default());
        let mut holders = 0;
        for claim in &claims {
            holders += usize::from(claim.holds(&store).await.unwrap());
        }
        assert!(holders <= 1, "seed {seed}: {holders} servers go on: {claims:?}");
    }
    // No number was claimed by two.
    let mut epochs: Vec<u64> = claims.iter().map(|claim| claim.epoch).collect();
    epochs.sort_unstable();
    assert!(epochs.is_sorted_by(|one, next| one < next), "seed {seed}: {epochs:?}");
    epochs.len()
}

#[tokio::test(start_paused = true)]
async fn at_most_one_server_goes_on_whoever_takes_over() {
    let mut started = 0;
    for seed in 0..500 {
        started += race_with_take_overs(seed).await;
    }
    assert!(started > 500, "{started}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_servers_that_start_at_once_on_a_directory_one_wins() {
    for _ in 0..10 {
        let bucket = tempfile::tempdir().unwrap();
        let location = url::Url::from_file_path(bucket.path()).unwrap().to_string();
        race_for(&TierOptions { location: location.parse().unwrap(), ..options() }).await;
    }
}

/// Eight servers that start at once.
pub(super) async fn race_for(options: &TierOptions) {
    let dirs: Vec<_> = (0..8).map(|_| tempfile::tempdir().unwrap()).collect();
    let started = dirs.iter().map(|dir| {
        let (options, dir) = (options.clone(), dir.path().to_owned());
        tokio::spawn(async move {
            Tier::open(options, &dir, NOW, false, tokio::runtime::Handle::current()).await
        })
    });
    let mut won = 0;
    for result in join_all(started).await {
        match result.unwrap() {
            Ok(tier) => {
                won += 1;
                assert!(tier.holds_claim().await.unwrap());
            }
            Err(TierError::Claim { error: ClaimError::Other { .. }, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
}

/// Rounds of uploads and copies of the index look at the same time.
#[tokio::test(start_paused = true)]
async fn a_late_claim_that_two_ask_for_at_once_is_made_once() {
    let faulty = Arc::new(FaultyStore::new(0, FaultRates::default()));
    let (store, dir) = (cold_store(faulty.clone(), options()), tempfile::tempdir().unwrap());
    let known = start(&store, dir.path()).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    let tier = Tier::unclaimed(store, known, dir.path(), runtime);
    faulty.set_delay(std::time::Duration::from_millis(10));
    let (one, two) = tokio::join!(tier.holds_claim(), tier.holds_claim());
    assert_eq!((one, two, tier.claim().epoch), (Ok(true), Ok(true), 2));
}

//! Random events against a model, with checkpoints and openings in between, on a real disk.

use durable_streams_engine::store::{AnyStore, Store, file::offline};

use crate::{harness::*, workload::*};

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let dir = tempdir();
    let mut store = file(dir.path());
    let mut model = Model::default();
    for _ in 0..8 {
        for _ in 0..rng.below(30) {
            let (id, event) = next_event(&mut rng, &model, &store);
            model.apply(id, &event);
            commit(&store, id, event).unwrap();
        }
        match rng.below(6) {
            0 => checkpoint(&store),
            3 => {
                checkpoint(&store);
                maintain(&store);
            }
            // What was not touched since the time before last is in the index only.
            4 => rest(&store),
            5 => {
                checkpoint(&store);
                rest(&store);
                rest(&store);
            }
            1 => {
                drop(store);
                store = file(dir.path());
            }
            2 => {
                wait(store.close());
                drop(store);
                store = file(dir.path());
            }
            _ => {}
        }
        model.check(&store).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let AnyStore::File(files) = &store else { panic!("a file store") };
        assert_eq!(files.scrub(), 0, "seed {seed}: a scrub of a whole index finds nothing");
    }
    wait(store.close());
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "seed {seed}: {:?}", report.problems);
}

#[test]
fn the_file_store_shows_what_the_model_has() {
    for seed in seeds("STORE_MODEL_SEEDS", 40) {
        run(seed);
    }
}

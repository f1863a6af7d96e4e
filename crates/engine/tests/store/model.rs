//! Random events against a model, with checkpoints, sealing and openings in between, on a real disk.

use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions, Store, file::offline};

use crate::{harness::*, workload::*};

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let dir = tempdir();
    // The sealer's thread works beside this one in half of the runs.
    let options = if seed.is_multiple_of(2) { sealing(dir.path()) } else { options(dir.path()) };
    let open = |options: FileStoreOptions| AnyStore::File(FileStore::open(options).unwrap());
    let mut store = open(options.clone());
    let mut model = Model::default();
    for _ in 0..8 {
        for _ in 0..rng.below(30) {
            let (id, event) = next_event(&mut rng, &model, &store);
            model.apply(id, &event);
            commit(&store, id, event).unwrap();
        }
        match rng.below(8) {
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
                store = open(options.clone());
            }
            2 => {
                wait(store.close());
                drop(store);
                store = open(options.clone());
            }
            6 | 7 => {
                checkpoint(&store);
                let AnyStore::File(files) = &store else { panic!("a file store") };
                files.seal().unwrap();
                rest(&store);
                rest(&store);
            }
            _ => {}
        }
        model.check(&store).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let AnyStore::File(files) = &store else { panic!("a file store") };
        assert_eq!(files.scrub(), 0, "seed {seed}: a scrub of a whole index finds nothing");
    }
    wait(store.close());
    drop(store);
    let report = offline::verify(&options, &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "seed {seed}: {:?}", report.problems);
}

#[test]
fn the_file_store_shows_what_the_model_has() {
    for seed in seeds("STORE_MODEL_SEEDS", 40) {
        run(seed);
    }
}

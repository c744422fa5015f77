//! Every seed of every fuzz target, through the same function as in fuzzing.
//!
//! The seeds are ours: messages from the RFCs' grammar, and each find of the fuzzer. Not here: new inputs (`scripts/fuzz`).

#[path = "targets/mod.rs"]
pub mod targets;

use std::path::Path;

#[test]
fn seeds_keep_the_laws() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
    for (name, run) in targets::TARGETS {
        let mut seeds: Vec<_> = std::fs::read_dir(folder.join(name))
            .unwrap_or_else(|error| panic!("{name} has no seeds: {error}"))
            .map(|entry| entry.expect("a folder that can be read").path())
            .collect();
        seeds.sort();
        assert!(seeds.len() >= 3, "{name}: {} seeds", seeds.len());
        for seed in &seeds {
            let data = std::fs::read(seed).expect("a seed");
            // A panic's own line says which law; this one, which seed.
            let found = std::panic::catch_unwind(|| run(&data));
            assert!(found.is_ok(), "{name}: {} breaks a law", seed.display());
        }
    }
    let folders = std::fs::read_dir(&folder).expect("the seeds").count();
    assert_eq!(folders, targets::TARGETS.len(), "a folder of seeds without a target");
}

//! How property tests draw their cases: from a seed in the environment, with failures kept beside the test.

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// `cases` cases. The environment's `S2DITC_SEED`, a whole number, chooses them; without it they are the same in every run.
///
/// A failing case is written to `regressions`, a path from the repository's root: commit that file, and the case is run first from then on.
pub fn config(cases: u32, regressions: &str) -> Config {
    let seed = match std::env::var("S2DITC_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("S2DITC_SEED: found `{text}`, expected a whole number")),
        Err(_) => 0,
    };
    // Tests run in their crate's folder, one or two below the root.
    let below = |levels: usize| std::path::PathBuf::from("../".repeat(levels));
    let root = (0..3).map(below).find(|p| p.join("Cargo.lock").exists()).expect("the repository's root");
    let path = root.join(regressions).to_str().expect("a UTF-8 path").to_string();
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(path.leak()))),
        ..Config::default()
    }
}

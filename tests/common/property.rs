//! How property tests draw their cases: from a seed in the environment, with failures kept beside the test.

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// `cases` cases, or the environment's `S2DITC_CASES`. `S2DITC_SEED` chooses them; without it they are the same in every run. Both
/// are whole numbers.
///
/// A failing case is written to `regressions`, a path from the repository's root: commit that file, and the case is run first from then on.
pub fn config(cases: u32, regressions: &str) -> Config {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}: found `{text}`, expected a whole number")))
    };
    let cases = number("S2DITC_CASES").and_then(|n| u32::try_from(n).ok()).unwrap_or(cases);
    let seed = number("S2DITC_SEED").unwrap_or(0);
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

//! Runs every test of `tests/text` (one rule each, below 40 lines) and `tests/text/whole` (whole blocks); `common::case` says how they are written.
//!
//! `S2DITC_BLESS=1` writes what comes after the line of `---` anew. What a graph computes before and after its passes is compared in
//! float64: passes keep results and state updates of every function.

use crate::common::case::{Case, Made};
use crate::common::numbers;
use crate::common::stream::Stream;
use s2dit_ir::close::{Tolerance, compare};
use s2dit_ir::{Module, Tensor, TensorType};

fn cases() -> Vec<Case> {
    [Case::all("text"), Case::all("text/whole")].into_iter().flatten().collect()
}

#[test]
fn passes_give_the_text_expected() {
    let bless = std::env::var_os("S2DITC_BLESS").is_some();
    for case in cases() {
        let place = case.path.display();
        let (made, error) = (case.run(), case.get("error"));
        let made = match (made, error) {
            (Err(error), Some(expected)) => {
                assert!(error.contains(expected), "{place}: {error}");
                continue;
            }
            (Err(error), None) => panic!("{place}: {error}"),
            (Ok(_), Some(expected)) => panic!("{place}: expected an error: {expected}"),
            (Ok(made), None) => made,
        };
        if let (Some(changes), false) = (case.get("changes"), bless) {
            let found: Vec<String> = made.outcome.runs.iter().map(|run| run.changes.to_string()).collect();
            assert_eq!(found.join(" "), changes, "{place}: changes");
        }
        let got = case.text(made);
        if bless {
            case.bless(&got);
        } else {
            assert_eq!(got.trim(), case.after.trim(), "{place}");
        }
    }
}

#[test]
fn a_test_is_one_rule() {
    let long: Vec<_> =
        Case::all("text").iter().filter(|c| c.lines() >= 40).map(|c| (c.name().to_string(), c.lines())).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn passes_keep_results_and_updates_of_every_function() {
    let (mut compared, mut moved) = (0, Vec::new());
    // What a report is about is not what passes made, and an error makes nothing.
    for case in cases().iter().filter(|c| c.get("error").is_none() && c.get("report").is_none()) {
        let before = case.module();
        let made = case.run().unwrap();
        if numbers::compresses(&made.module) {
            continue;
        }
        let weights = case.weights(&before);
        let bar = Tolerance::relative(case.moved(), 1.0);
        let [f, ..] = &before.functions[..] else { panic!("{}: no function", case.name()) };
        let mut check = |place: &str, got: &[(String, Tensor)], expected: &[(String, Tensor)]| {
            moved.extend(
                compare(got, expected, bar).err().map(|mismatch| format!("{} {place}: {mismatch}", case.name())),
            );
            compared += expected.len();
        };
        if made.outcome.runs.last().is_some_and(|run| run.pass == "split") {
            check(
                "first chunk",
                &first_chunk(&made, f.ty(f.params()[0]), &before, case),
                &numbers::before(f, &before, &weights),
            );
        } else if case.cut().is_some() {
            let expected = numbers::before(f, &before, &weights);
            let mut got = numbers::chain(&made.module.functions, &weights);
            got.retain(|(name, _)| expected.iter().any(|(result, _)| result == name));
            check("parts", &got, &expected);
        } else if made.outcome.kernel.is_none() {
            assert_eq!(before.functions.len(), made.module.functions.len(), "{}", case.name());
            for (f, g) in before.functions.iter().zip(&made.module.functions) {
                let got = numbers::after(g, f, &before, &made.outcome.packing, &weights);
                check(&f.name, &got, &numbers::before(f, &before, &weights));
            }
        }
    }
    assert!(compared > 40, "{compared}");
    assert!(moved.is_empty(), "{moved:#?}");
}

/// The results of a stream's first chunk, which knows no past: those of the chunk's own graph.
fn first_chunk(made: &Made, latent: &TensorType, before: &Module, case: &Case) -> Vec<(String, Tensor)> {
    let weights = case.weights(before);
    let kernel = made.outcome.kernel.as_ref().unwrap();
    let chunk = &before.functions[0];
    let param = |name: &str| {
        let p = chunk.params().iter().copied().find(|&p| chunk.node(p).name.as_deref() == Some(name)).unwrap();
        if name == "timestep" { Tensor::splat(chunk.ty(p), 750.0) } else { numbers::noise(chunk.ty(p), name) }
    };
    let prompt: Vec<(&str, Tensor)> = [before.interface.text(), before.interface.text_mask()]
        .into_iter()
        .flatten()
        .map(|name| (name, param(name)))
        .collect();
    let mut stream = Stream::new(&made.module, kernel, latent.shape[2], &prompt, &weights);
    let own = [("latent", param("latent")), ("timestep", param("timestep"))];
    let mut results = stream.run("denoise", &own, &weights);
    results.sort_by(|a, b| a.0.cmp(&b.0));
    results
}

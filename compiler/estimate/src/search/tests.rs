use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn table(costs: &[(f64, f64)]) -> Table {
    let kind = |(i, &(latency_ms, memory_mb)): (usize, &(f64, f64))| KindCost {
        name: if i == 1 { "ssa".into() } else { format!("k{i}") },
        cost: Cost { latency_ms, memory_mb },
    };
    Table {
        source: "a test".into(),
        kinds: costs.iter().enumerate().map(kind).collect(),
        fixed: Cost::default(),
        switch: Cost::default(),
    }
}

/// The closest counts, by looking at all of them.
fn by_force(table: &Table, budgets: Budgets, blocks: usize) -> Option<(f64, Cost)> {
    let mut best: Option<(f64, Cost)> = None;
    let mut counts = vec![0; table.kinds.len()];
    counts::each(&mut counts, 0, blocks, &mut |counts| {
        let cost = table.of_counts(counts);
        let distance = budgets.distance(cost);
        if budgets.keep(cost) && best.is_none_or(|(found, _)| distance < found) {
            best = Some((distance, cost));
        }
    });
    best
}

#[test]
fn counts_are_exact_on_ten_thousand_tables() {
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    let (mut found, mut refused) = (0, 0);
    for round in 0..10_000 {
        let kinds = rng.random_range(1..=5);
        let blocks = rng.random_range(1..=12);
        // Whole numbers, equal kinds and zeros too: ties and empty intervals.
        let draw = |rng: &mut ChaCha8Rng| match round % 3 {
            0 => f64::from(rng.random_range(0..6)),
            _ => rng.random_range(0.0..50.0),
        };
        let costs: Vec<(f64, f64)> = (0..kinds).map(|_| (draw(&mut rng), draw(&mut rng))).collect();
        let mut table = table(&costs);
        table.fixed = Cost { latency_ms: draw(&mut rng), memory_mb: draw(&mut rng) };
        let budgets = Budgets { latency_ms: rng.random_range(1.0..500.0), memory_mb: rng.random_range(1.0..500.0) };
        match (closest(&table, budgets, blocks), by_force(&table, budgets, blocks)) {
            (Ok(counts), Some((distance, _))) => {
                assert_eq!(counts.counts.iter().sum::<usize>(), blocks);
                assert!(budgets.keep(counts.cost), "{costs:?} {budgets:?}: {counts:?}");
                let mine = budgets.distance(counts.cost);
                assert!(
                    (mine - distance).abs() < 1e-9,
                    "{costs:?} {budgets:?} {blocks}: {counts:?}: {mine} and {distance}"
                );
                found += 1;
            }
            (Err(error), None) => {
                assert!(error.to_string().contains("expected at least"), "{error}");
                refused += 1;
            }
            (mine, forced) => panic!("{costs:?} {budgets:?} {blocks}: {mine:?} and {forced:?}"),
        }
    }
    assert!(found > 5000 && refused > 500, "{found} found, {refused} refused");
}

#[test]
fn a_hundred_blocks_of_six_kinds_are_counted() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let costs: Vec<(f64, f64)> = (0..6).map(|_| (rng.random_range(5.0..50.0), rng.random_range(50.0..150.0))).collect();
    let table = table(&costs);
    let found = closest(&table, Budgets { latency_ms: 2600.0, memory_mb: 9500.0 }, 100).unwrap();
    assert_eq!(found.counts.iter().sum::<usize>(), 100);
}

/// The paper's Table 3: 24 blocks of LCHA take 900 ms, of SSA 258; the sandwich 531.
#[test]
fn the_papers_budget_gives_the_papers_counts() {
    let table = table(&[(37.5, 75.0), (10.75, 60.0)]);
    let found = search(&table, Budgets { latency_ms: 531.0, memory_mb: 1800.0 }, 24, 1, None).unwrap();
    assert!((9..=11).contains(&(found.counts["k0"].as_u64().unwrap())), "{:?}", found.counts);
    let runs = interleaved(&table, &[10, 14]).sandwich;
    assert_eq!(runs, "2×k0, 4×ssa, 3×k0, 5×ssa, 3×k0, 5×ssa, 2×k0");
}

#[test]
fn every_interleaving_has_its_counts() {
    let table = table(&[(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]);
    for a in 0..8 {
        for b in 0..12 {
            for c in 0..4 {
                let kinds = interleaved(&table, &[a, b, c]).kinds;
                let count = |kind: usize| kinds.iter().filter(|k| **k == kind).count();
                assert_eq!([count(0), count(1), count(2)], [a, b, c], "{kinds:?}");
            }
        }
    }
}

#[test]
fn places_are_exact_on_random_scores() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut found = 0;
    for _ in 0..300 {
        let mut table = table(&[(3.0, 2.0), (1.0, 1.5), (2.0, 4.0)]);
        table.switch = Cost { latency_ms: rng.random_range(0.0..3.0), memory_mb: rng.random_range(0.0..2.0) };
        let groups = rng.random_range(1..=6usize);
        let group = |rng: &mut ChaCha8Rng| {
            table.kinds.iter().map(|kind| (kind.name.clone(), rng.random_range(-2.0..2.0))).collect()
        };
        let scores = Scores { source: "a test".into(), group: (0..groups).map(|_| group(&mut rng)).collect() };
        let budgets = Budgets { latency_ms: rng.random_range(1.0..20.0), memory_mb: rng.random_range(1.0..20.0) };
        let mut most: Option<f64> = None;
        for code in 0..3usize.pow(groups as u32) {
            let layout: Vec<usize> = (0..groups as u32).map(|i| code / 3usize.pow(i) % 3).collect();
            if budgets.keep(table.of_layout(&layout)) {
                let quality: f64 = layout.iter().zip(&scores.group).map(|(k, g)| g[&table.kinds[*k].name]).sum();
                most = Some(most.map_or(quality, |m| m.max(quality)));
            }
        }
        match (best(&table, budgets, &scores), most) {
            (Ok((placed, front)), Some(quality)) => {
                assert!((placed.quality - quality).abs() < 1e-9 && budgets.keep(placed.cost));
                assert_eq!(placed.cost, table.of_layout(&placed.kinds));
                assert!(!front.is_empty());
                found += 1;
            }
            (Err(_), None) => {}
            (mine, forced) => panic!("{mine:?} and {forced:?}"),
        }
    }
    assert!(found > 50, "{found}");
}

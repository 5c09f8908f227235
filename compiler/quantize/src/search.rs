//! The choice of one option for each weight, so that all together err least within a number of bytes.

/// A way to store a weight: its bytes and its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// Bytes of the stored weight.
    pub bytes: u64,
    /// Addition to the squared error of the model's output.
    pub error: f64,
}

/// Picks an option of each weight: the sum of the errors is small, that of the bytes at most `budget`. `None` if even the
/// smallest options are larger.
///
/// The best picks for a price of a byte, error + price · bytes, are the best for as many bytes as they have; the price is
/// halved until they just fit. What is left of the budget goes to the single changes that gain most a byte.
#[must_use]
pub fn pick(weights: &[Vec<Way>], budget: u64) -> Option<Vec<usize>> {
    let bytes = |picks: &[usize]| weights.iter().zip(picks).map(|(w, i)| w[*i].bytes).sum::<u64>();
    let at = |price: f64| -> Vec<usize> {
        let cost = |o: &Way| o.error + price * o.bytes as f64;
        let best = |options: &Vec<Way>| {
            // Of equal ones the smaller, then the first: deterministic.
            let order = |a: &usize, b: &usize| {
                let (a, b) = (&options[*a], &options[*b]);
                cost(a).total_cmp(&cost(b)).then(a.bytes.cmp(&b.bytes))
            };
            (0..options.len()).min_by(order).unwrap_or(0)
        };
        weights.iter().map(best).collect()
    };
    let smallest: Vec<usize> = weights
        .iter()
        .map(|options| {
            let order = |a: &usize, b: &usize| {
                let (a, b) = (&options[*a], &options[*b]);
                a.bytes.cmp(&b.bytes).then(a.error.total_cmp(&b.error))
            };
            (0..options.len()).min_by(order).unwrap_or(0)
        })
        .collect();
    if bytes(&smallest) > budget {
        return None;
    }
    let mut picks = at(0.0);
    if bytes(&picks) > budget {
        picks = smallest;
        let (mut low, mut high) = (1e-40f64, 1e10f64);
        for _ in 0..200 {
            let price = (low * high).sqrt();
            let tried = at(price);
            if bytes(&tried) <= budget {
                high = price;
                picks = tried;
            } else {
                low = price;
            }
        }
    }
    fill(weights, budget, &mut picks);
    Some(picks)
}

/// Spends what is left of the budget.
fn fill(weights: &[Vec<Way>], budget: u64, picks: &mut [usize]) {
    loop {
        let used: u64 = weights.iter().zip(&*picks).map(|(w, i)| w[*i].bytes).sum();
        let mut best: Option<(f64, usize, usize)> = None;
        for (w, options) in weights.iter().enumerate() {
            let now = options[picks[w]];
            for (i, o) in options.iter().enumerate() {
                if o.error >= now.error || used - now.bytes + o.bytes > budget {
                    continue;
                }
                let gain = (now.error - o.error) / (o.bytes.saturating_sub(now.bytes).max(1)) as f64;
                if best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, w, i));
                }
            }
        }
        let Some((_, w, i)) = best else { return };
        picks[w] = i;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(weights: &[Vec<Way>], picks: &[usize]) -> (u64, f64) {
        let picked = weights.iter().zip(picks).map(|(w, i)| w[*i]);
        picked.fold((0, 0.0), |(b, e), o| (b + o.bytes, e + o.error))
    }

    /// The least error of every way to pick.
    fn best(weights: &[Vec<Way>], budget: u64) -> Option<f64> {
        let Some((first, rest)) = weights.split_first() else { return Some(0.0) };
        let picks = first.iter().filter(|o| o.bytes <= budget);
        picks.filter_map(|o| Some(o.error + best(rest, budget - o.bytes)?)).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn picks_fit_and_are_near_the_best(
            gains in prop::collection::vec((1u64..50, 1u32..1000), 2..6), budget in 10u64..400
        ) {
            // Bits cost bytes and quarter the error, as in a real curve.
            let weights: Vec<Vec<Way>> = gains.iter().map(|(n, g)| {
                [1, 2, 3, 4, 6].iter().map(|bits| Way { bytes: n * bits, error: f64::from(*g) * 0.25f64.powi(*bits as i32) }).collect()
            }).collect();
            match (pick(&weights, budget), best(&weights, budget)) {
                (None, None) => {}
                (Some(picks), Some(least)) => {
                    let (bytes, error) = sums(&weights, &picks);
                    prop_assert!(bytes <= budget);
                    // Two weights can each be a bit away from the best.
                    prop_assert!(error <= 16.0 * least, "{error} where {least} is possible");
                }
                (found, least) => prop_assert!(false, "{found:?} where {least:?} is possible"),
            }
        }
    }

    #[test]
    fn without_a_limit_the_least_error_is_taken() {
        let weights = vec![vec![Way { bytes: 1, error: 1.0 }, Way { bytes: 9, error: 0.5 }]; 3];
        assert_eq!(pick(&weights, 1000), Some(vec![1; 3]));
        assert_eq!(pick(&weights, 11), Some(vec![1, 0, 0]));
        assert_eq!(pick(&weights, 2), None);
    }
}

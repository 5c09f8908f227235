//! Each composite against the same formula written with plain loops, and against its own type inference.

use ndarray::{Array2, ArrayD, IxDyn};

use s2dit_ir::ops::{
    FeatureMap, FusionGate, LinearAttention, LinearAttentionStep, Modulate, RmsNorm, Rope, RopePairs, RunningMean, Sdpa,
};
use s2dit_ir::{DType, Op, Tensor, TensorType};

/// A tensor of f64 values that look random and differ with the seed.
fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let data = ArrayD::from_shape_fn(IxDyn(shape), |_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    });
    Tensor { dtype: DType::F64, data }
}

fn run(op: impl Into<Op>, operands: &[&Tensor]) -> Tensor {
    let op = op.into();
    let types: Vec<TensorType> = operands.iter().map(|t| t.ty()).collect();
    let types: Vec<&TensorType> = types.iter().collect();
    let ty = op.infer(&types, None).unwrap();
    let y = op.eval(operands, &ty).unwrap();
    assert_eq!(y.ty(), ty, "inference and decomposition differ");
    assert!(op.cost(&types, &ty).flops > 0);
    y
}

fn matrix(t: &Tensor) -> Array2<f64> {
    let shape = t.data.shape();
    let n = shape.len();
    assert!(shape[..n - 2].iter().all(|&s| s == 1));
    Array2::from_shape_vec((shape[n - 2], shape[n - 1]), t.data.iter().copied().collect()).unwrap()
}

fn close(got: &Tensor, wanted: &Array2<f64>) {
    let got = matrix(got);
    assert_eq!(got.shape(), wanted.shape());
    for (a, b) in got.iter().zip(wanted) {
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }
}

#[test]
fn rms_norm_is_its_formula_along_any_axis() {
    let (x, gain) = (tensor(&[1, 4, 3], 1), tensor(&[4], 2));
    let y = run(RmsNorm { axis: 1, eps: 1e-3 }, &[&x, &gain]);
    let m = matrix(&x);
    let want = Array2::from_shape_fn((4, 3), |(i, j)| {
        let mean = (0..4).map(|r| m[(r, j)].powi(2)).sum::<f64>() / 4.0;
        m[(i, j)] / (mean + 1e-3).sqrt() * gain.data[i]
    });
    close(&y, &want);
}

#[test]
fn rope_rotates_pairs() {
    let (x, angle) = (tensor(&[1, 3, 6], 3), tensor(&[3, 3], 4));
    let map = |f: fn(f64) -> f64| Tensor { dtype: DType::F64, data: angle.data.mapv(f) };
    let (cos, sin) = (map(f64::cos), map(f64::sin));
    let m = matrix(&x);
    for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
        let y = matrix(&run(Rope { axis: 2, pairs }, &[&x, &cos, &sin]));
        for n in 0..3 {
            for i in 0..3 {
                let (a, b) = if pairs == RopePairs::Halves { (i, i + 3) } else { (2 * i, 2 * i + 1) };
                let (c, s) = (angle.data[[n, i]].cos(), angle.data[[n, i]].sin());
                assert!((y[(n, a)] - (m[(n, a)] * c - m[(n, b)] * s)).abs() < 1e-12);
                assert!((y[(n, b)] - (m[(n, a)] * s + m[(n, b)] * c)).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn sdpa_is_a_weighted_mean_of_values() {
    let (q, k, v, mask) = (tensor(&[1, 2, 4], 5), tensor(&[1, 3, 4], 6), tensor(&[1, 3, 5], 7), tensor(&[3], 8));
    let (mq, mk, mv) = (matrix(&q), matrix(&k), matrix(&v));
    let mut want = Array2::zeros((2, 5));
    for i in 0..2 {
        let score = |j: usize| (0.5 * (0..4).map(|c| mq[(i, c)] * mk[(j, c)]).sum::<f64>() + mask.data[j]).exp();
        let total: f64 = (0..3).map(score).sum();
        for c in 0..5 {
            want[(i, c)] = (0..3).map(|j| score(j) / total * mv[(j, c)]).sum();
        }
    }
    close(&run(Sdpa { scale: 0.5 }, &[&q, &k, &v, &mask]), &want);
}

#[test]
fn linear_attention_and_its_streamed_form_agree() {
    let positive = |shape: &[usize], seed| Tensor { dtype: DType::F64, data: tensor(shape, seed).data.mapv(f64::exp) };
    let (q, q_norm) = (positive(&[1, 2, 4], 9), positive(&[1, 2, 4], 10));
    let (k, k_norm, v) = (positive(&[1, 6, 4], 11), positive(&[1, 6, 4], 12), tensor(&[1, 6, 3], 13));
    let whole = run(LinearAttention { eps: 1e-6, least: 0.0 }, &[&q, &k, &v, &q_norm, &k_norm]);
    let (mq, mk, mv, mqn, mkn) = (matrix(&q), matrix(&k), matrix(&v), matrix(&q_norm), matrix(&k_norm));
    let want = Array2::from_shape_fn((2, 3), |(i, c)| {
        let weight = |j: usize| (0..4).map(|a| mq[(i, a)] * mk[(j, a)]).sum::<f64>();
        let norm: f64 = (0..6).map(|j| (0..4).map(|a| mqn[(i, a)] * mkn[(j, a)]).sum::<f64>()).sum();
        (0..6).map(|j| weight(j) * mv[(j, c)]).sum::<f64>() / (norm + 1e-6)
    });
    close(&whole, &want);
    // A normaliser that is less than it may be.
    let floor = run(LinearAttention { eps: 1e-6, least: 1e6 }, &[&q, &k, &v, &q_norm, &k_norm]);
    let sums = Array2::from_shape_fn((2, 3), |(i, c)| {
        let weight = |j: usize| (0..4).map(|a| mq[(i, a)] * mk[(j, a)]).sum::<f64>();
        (0..6).map(|j| weight(j) * mv[(j, c)]).sum::<f64>() / 1e6
    });
    close(&floor, &sums);

    // Two chunks of three tokens each, as means.
    let rows = |t: &Tensor, from: usize| Tensor {
        dtype: DType::F64,
        data: t.data.slice_axis(ndarray::Axis(1), (from..from + 3).into()).to_owned(),
    };
    let number = |x: f64| Tensor::splat(&TensorType::new(DType::F64, [1]), x);
    let (mut sum, mut norm) = (
        Tensor::splat(&TensorType::new(DType::F64, [1, 4, 3]), 0.0),
        Tensor::splat(&TensorType::new(DType::F64, [1, 1, 4]), 0.0),
    );
    for n in 0..2 {
        let (past, new) = (number(n as f64 / (n + 1) as f64), number(1.0 / (n + 1) as f64));
        sum = run(RunningMean {}, &[&rows(&k, 3 * n), &rows(&v, 3 * n), &sum, &past, &new]);
        norm = run(RunningMean {}, &[&rows(&k_norm, 3 * n), &norm, &past, &new]);
    }
    close(&run(LinearAttentionStep {}, &[&q, &sum, &norm, &number(1e-6 / 6.0), &q_norm]), &want);
}

#[test]
fn small_composites_are_their_formulas() {
    let (x, scale, shift) = (tensor(&[1, 3, 4], 14), tensor(&[1, 1, 4], 15), tensor(&[4], 16));
    let m = matrix(&x);
    let want = Array2::from_shape_fn((3, 4), |(i, j)| m[(i, j)] * (1.0 + scale.data[[0, 0, j]]) + shift.data[j]);
    close(&run(Modulate {}, &[&x, &scale, &shift]), &want);

    let (w, b) = (tensor(&[1, 5, 4], 17), tensor(&[1, 1, 5], 18));
    let mw = matrix(&w);
    let want = Array2::from_shape_fn((3, 5), |(i, r)| {
        (1.0 + ((0..4).map(|c| m[(i, c)] * mw[(r, c)]).sum::<f64>() + b.data[[0, 0, r]]).exp()).ln()
    });
    close(&run(FeatureMap {}, &[&x, &w, &b]), &want);

    let other = tensor(&[1, 3, 4], 19);
    let mo = matrix(&other);
    let want = Array2::from_shape_fn((3, 4), |(i, j)| {
        let alpha = 1.0 / (1.0 + (-shift.data[j]).exp());
        alpha * m[(i, j)] + (1.0 - alpha) * mo[(i, j)]
    });
    close(&run(FusionGate {}, &[&shift, &x, &other]), &want);
}

#[test]
fn constraints_are_named() {
    let types =
        [TensorType::new(DType::F32, [1, 3, 5]), TensorType::new(DType::F32, [3, 2]), TensorType::new(DType::F32, [4])];
    let [x, table, four] = [&types[0], &types[1], &types[2]];
    let refused = |op: Op, operands: &[&TensorType]| op.infer(operands, None).unwrap_err().0;
    assert!(refused(RmsNorm { axis: 2, eps: 0.0 }.into(), &[x, four]).contains("gain must be [5]"));
    assert!(refused(Rope { axis: 2, pairs: RopePairs::Halves }.into(), &[x, table, table]).contains("must be even"));
    assert!(refused(Modulate {}.into(), &[x, four, four]).contains("scale must broadcast to [1, 3, 5]"));
    assert!(refused(Sdpa { scale: 1.0 }.into(), &[x, x, &TensorType::new(DType::F32, [4, 5])]).contains("one length"));
    assert!(refused(LinearAttention { eps: 0.0, least: 0.0 }.into(), &[x, x, x, x]).contains("together"));
}

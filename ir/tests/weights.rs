//! Weight expressions to bytes: streamed conversions agree with the interpreter, and broken values are counted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use s2dit_ir::ops::{Binary, Pad, Slice, Transpose, Unary};
use s2dit_ir::weights::{Remembering, constant_bytes, evaluate_constant, loaded_tensor, write_constant};
use s2dit_ir::{Builder, DType, Function, Tensor, TensorType, ValueId, WeightError, WeightSource};

struct Source(HashMap<String, (TensorType, Vec<u8>)>);

impl WeightSource for Source {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).map(|t| t.0.clone())
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        self.0.get(name).map(|t| Cow::from(&t.1)).ok_or(WeightError::Missing { name: name.into() })
    }
}

/// A function with one `load` of these values.
fn stored(dtype: DType, values: &[f64]) -> (Source, Function, ValueId) {
    let ty = TensorType::new(dtype, [values.len()]);
    let bytes = Tensor::from_values(&ty, values.to_vec()).unwrap().to_le_bytes();
    let source = Source(HashMap::from([("w".to_string(), (ty.clone(), bytes))]));
    let mut f = Function::new("main");
    let v = Builder::new(&mut f).load("w", &ty).unwrap();
    (source, f, v)
}

#[test]
fn every_streamed_conversion_rounds_like_the_interpreter() {
    let values: Vec<f64> = (0..5000).map(|i| (f64::from(i) - 2500.0) * 0.37 * 1.1f64.powi(i % 60 - 50)).collect();
    for from in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I32, DType::U8] {
        for to in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I32] {
            let (source, mut f, v) = stored(from, &values);
            let mut b = Builder::new(&mut f);
            let v = b.cast(v, to).unwrap();
            let v = b.reshape(v, &[50, 100]).unwrap();
            assert_eq!(loaded_tensor(&f, v), Some("w"));
            let streamed = constant_bytes(&f, v, &source).unwrap();
            assert_eq!(streamed, evaluate_constant(&f, v, &source).unwrap().to_le_bytes(), "{from} to {to}");
        }
    }
}

#[test]
fn weights_that_are_joined_are_streamed_one_after_another() {
    let values: Vec<f64> = (0..60).map(|i| (f64::from(i) - 30.0) * 1.37).collect();
    for (from, to) in [(DType::BF16, DType::F16), (DType::F32, DType::F32), (DType::F32, DType::BF16)] {
        let (source, mut f, v) = stored(from, &values);
        let mut b = Builder::new(&mut f);
        let wide = b.cast(v, DType::F32).unwrap();
        let one = b.reshape(wide, &[6, 10]).unwrap();
        let both = b.concat(&[one, one], 0).unwrap();
        let both = b.reshape(both, &[12, 10, 1, 1]).unwrap();
        let v = b.cast(both, to).unwrap();
        let streamed = constant_bytes(&f, v, &source).unwrap();
        assert_eq!(streamed, evaluate_constant(&f, v, &source).unwrap().to_le_bytes(), "{from} to {to}");
        assert_eq!(streamed.len(), 120 * to.size());
    }
}

/// Larger than a block in every way that rows can be made of rows, and in one that they cannot.
#[test]
fn large_expressions_are_evaluated_in_blocks() {
    let (rows, inner) = (300usize, 512usize);
    let values: Vec<f64> = (0..rows * inner).map(|i| ((i * 7919) % 4093) as f64 / 1000.0 - 2.0).collect();
    let (source, mut f, v) = stored(DType::BF16, &values);
    let mut b = Builder::new(&mut f);
    let wide = b.cast(v, DType::F32).unwrap();
    let w = b.reshape(wide, &[rows, inner]).unwrap();
    let gate = |b: &mut Builder, shape: &[usize]| {
        let n = shape.iter().product::<usize>();
        b.literal(&TensorType::new(DType::F32, shape), (0..n).map(|i| (i as f64).sin()).collect()).unwrap()
    };
    let (by_row, by_column) = (gate(&mut b, &[rows, 1]), gate(&mut b, &[inner]));
    let one = b.mul(w, by_row).unwrap();
    let other = b.mul(by_column, w).unwrap();
    let joined = b.concat(&[one, other], 1).unwrap();
    let halves = b.reshape(joined, &[rows / 2, 2, 2 * inner]).unwrap();
    let pad = Pad { before: vec![0, 1, 0], after: vec![0, 0, 3], value: 0.5 };
    let padded = b.op(pad, &[halves]).unwrap();
    let upper = b.op(Slice::axis(&[rows / 2, 3, 2 * inner + 3], 0, 20, rows / 2), &[padded]).unwrap();
    let inside = b.op(Slice::axis(&[rows / 2 - 20, 3, 2 * inner + 3], 2, 5, 700), &[upper]).unwrap();
    let below = b.concat(&[inside, inside], 0).unwrap();
    let turned = b.op(Transpose { perm: vec![1, 0] }, &[w]).unwrap();
    for v in [one, other, joined, halves, padded, upper, inside, below, turned] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let v = Builder::new(&mut f).cast(v, dtype).unwrap();
            assert!(f.ty(v).elements() > 1 << 16);
            let whole = evaluate_constant(&f, v, &source).unwrap();
            assert!(constant_bytes(&f, v, &source).unwrap() == whole.to_le_bytes(), "{} to {dtype}", f.ty(v));
        }
    }
}

#[test]
fn a_cast_that_loses_bits_on_the_way_is_kept() {
    let (source, mut f, v) = stored(DType::F32, &[1.0 + 2f64.powi(-12), 3.0]);
    let mut b = Builder::new(&mut f);
    let half = b.cast(v, DType::F16).unwrap();
    let wide = b.cast(half, DType::F32).unwrap();
    let bytes = constant_bytes(&f, wide, &source).unwrap();
    assert_eq!(bytes[..4], 1f32.to_le_bytes());
}

/// A large weight is streamed through `linear` and its product remembered; the numbers are those of the plain evaluation.
#[test]
fn a_streamed_product_is_the_product() {
    let (outer, inner) = (257usize, 300usize);
    let number = |i: usize| i as f64;
    let values: Vec<f64> = (0..outer * inner).map(|i| number((i * 7919) % 1000) / 500.0 - 1.0).collect();
    for (dtype, biased) in [(DType::F32, true), (DType::BF16, false), (DType::F64, true)] {
        let (source, mut f, v) = stored(dtype, &values);
        let mut b = Builder::new(&mut f);
        let w = b.cast(v, DType::F32).unwrap();
        let w = b.reshape(w, &[outer, inner]).unwrap();
        let x = (0..2 * inner).map(|i| number(i).sin()).collect();
        let x = b.literal(&TensorType::new(DType::F32, [2, inner]), x).unwrap();
        let bias = b.literal(&TensorType::new(DType::F32, [outer]), (0..outer).map(number).collect()).unwrap();
        let y = b.linear(x, w, biased.then_some(bias)).unwrap();
        let product = evaluate_constant(&f, y, &source).unwrap();
        let w = evaluate_constant(&f, w, &source).unwrap();
        let x = evaluate_constant(&f, x, &source).unwrap();
        for r in 0..2 {
            for o in 0..outer {
                let dot: f64 = (0..inner).map(|i| x.data[[r, i]] * w.data[[o, i]]).sum();
                let want = dot + if biased { o as f64 } else { 0.0 };
                assert!((product.data[[r, o]] - want).abs() < 1e-9);
            }
        }
        // Without its weights a remembering source still knows the product.
        let counting = Counting(source, AtomicUsize::new(0));
        let remembering = Remembering::new(&counting);
        for _ in 0..3 {
            assert_eq!(evaluate_constant(&f, y, &remembering).unwrap(), product);
        }
        assert_eq!(counting.1.load(Relaxed), 1);
    }
}

/// Counts how often a tensor is asked for.
struct Counting(Source, AtomicUsize);

impl WeightSource for Counting {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.ty(name)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        self.1.fetch_add(1, Relaxed);
        self.0.bytes(name)
    }
}

/// A source that computes its tensors a part at a time: nothing is asked for whole, and the bytes are visited as those of others are.
struct Computing(Source, Mutex<Vec<u8>>);

impl WeightSource for Computing {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.ty(name)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        panic!("`{name}` was asked for whole")
    }
    fn part(&self, name: &str, range: Range<usize>) -> Option<Result<Vec<u8>, WeightError>> {
        Some(self.0.bytes(name).map(|bytes| bytes[range].to_vec()))
    }
    fn visit(&self, _: &str, offset: u64, bytes: &[u8]) {
        let mut seen = self.1.lock().unwrap();
        let (begin, end) = (offset as usize, offset as usize + bytes.len());
        let len = seen.len().max(end);
        seen.resize(len, 0);
        seen[begin..end].copy_from_slice(bytes);
    }
}

#[test]
fn a_tensor_that_is_computed_is_never_held_whole() {
    let (rows, inner) = (600usize, 512usize);
    let values: Vec<f64> = (0..rows * inner).map(|i| ((i * 7919) % 4093) as f64 / 1000.0 - 2.0).collect();
    for to in [DType::F32, DType::F16] {
        let (source, mut f, v) = stored(DType::F32, &values);
        let mut b = Builder::new(&mut f);
        let m = b.reshape(v, &[rows, inner]).unwrap();
        let double = b.add(m, m).unwrap();
        for v in [m, double] {
            let v = Builder::new(&mut f).cast(v, to).unwrap();
            let expected = constant_bytes(&f, v, &source).unwrap();
            let computing = Computing(Source(source.0.clone()), Mutex::default());
            assert_eq!(constant_bytes(&f, v, &computing).unwrap(), expected);
            assert_eq!(*computing.1.lock().unwrap(), *source.bytes("w").unwrap());
        }
    }
}

#[test]
fn expressions_are_evaluated() {
    let (source, mut f, v) = stored(DType::F32, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let mut b = Builder::new(&mut f);
    let m = b.reshape(v, &[2, 3]).unwrap();
    let t = b.op(Transpose { perm: vec![1, 0] }, &[m]).unwrap();
    let n = b.unary(Unary::Neg, t).unwrap();
    let s = b.binary(Binary::Mul, n, t).unwrap();
    assert_eq!(loaded_tensor(&f, s), None);
    let bytes = constant_bytes(&f, s, &source).unwrap();
    let values: Vec<f32> = bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(values, [0.0, -9.0, -1.0, -16.0, -4.0, -25.0].map(|x: f32| x));
}

#[test]
fn broken_values_are_counted() {
    for (from, values, to, non_finite, overflowed) in [
        (DType::F32, vec![1.0, 65504.0, 65519.0, 65520.0, -1e9], DType::F16, 2, 2),
        (DType::F32, vec![f64::NAN, f64::INFINITY, 1e9], DType::F16, 3, 1),
        (DType::BF16, vec![f64::NAN, 1.0], DType::BF16, 1, 0),
        (DType::BF16, vec![f64::NEG_INFINITY, 1.0], DType::F32, 1, 0),
    ] {
        let (source, mut f, v) = stored(from, &values);
        let v = Builder::new(&mut f).cast(v, to).unwrap();
        let mut out = Vec::new();
        let written = write_constant(&f, v, &source, &mut out).unwrap();
        assert_eq!((written.non_finite, written.overflowed), (non_finite, overflowed), "{from} {values:?}");
        assert_eq!(written.bytes, out.len() as u64);
    }
}

#[test]
fn a_computed_value_that_the_cast_cannot_hold_is_counted() {
    let (source, mut f, v) = stored(DType::F32, &[300.0, 2.0]);
    let mut b = Builder::new(&mut f);
    let square = b.unary(Unary::Square, v).unwrap();
    let half = b.cast(square, DType::F16).unwrap();
    let written = write_constant(&f, half, &source, &mut Vec::new()).unwrap();
    assert_eq!((written.non_finite, written.overflowed), (1, 1));
}

#[test]
fn tensors_that_are_missing_or_too_short_are_errors() {
    let (mut source, f, v) = stored(DType::F32, &[1.0, 2.0]);
    source.0.get_mut("w").unwrap().1.pop();
    assert!(matches!(constant_bytes(&f, v, &source), Err(WeightError::Size { found: 7, .. })));
    source.0.clear();
    assert!(matches!(constant_bytes(&f, v, &source), Err(WeightError::Missing { .. })));
    let mut f = Function::new("main");
    let x = f.add_param("x", TensorType::new(DType::F32, [1]));
    assert!(matches!(constant_bytes(&f, x, &source), Err(WeightError::NotConstant { .. })));
}

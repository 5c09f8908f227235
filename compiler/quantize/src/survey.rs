//! The weights of a checkpoint that can be compressed, their values, and what each scheme would do to them.

use anyhow::{Context, Result, bail};
use half::f16;
use s2dit_backends::coreml;
use s2dit_ir::compress::{Feedback, Scheme, compress, to_halves};
use s2dit_ir::{DType, Module, TensorType, WeightSource, weights};
use s2dit_passes::quantize::{self as pass, Weight};

use s2dit_emit::plan::{Quantize, Sources, Storage};
use s2dit_emit::{Layout, Opset, Options, Precision, Target, TimestepChoice, lower};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::size::Size;

/// Rows whose errors stand for all of a large weight, in groups that are spread over it.
const SAMPLED_GROUPS: usize = 4;
const GROUP: usize = 16;

/// The weights of a model that can be compressed.
pub struct Survey<'a> {
    /// Checkpoint that holds the weights.
    pub checkpoint: &'a Checkpoint,
    /// Size of the clip, or of the text.
    pub size: Size,
    /// The fp32 graph, nothing compressed.
    pub module: Module,
    /// Weights that can be compressed, each once, by name.
    pub weights: Vec<Weight>,
    /// Bytes of all weights of the fp16 package, nothing compressed.
    pub whole_bytes: u64,
}

/// The values of a weight, as compression sees them.
pub struct Values {
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// fp16 bits.
    pub halves: Vec<u16>,
}

/// The error of a weight after it was stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// ‖stored − weight‖ / ‖weight‖.
    pub relative: f64,
    /// Σ mᵢ·(stored − weight)², with the mean square mᵢ of its input channel: the square of what it adds to a product.
    pub weighted: f64,
}

impl<'a> Survey<'a> {
    /// Surveys a checkpoint that has something to compress.
    ///
    /// # Errors
    /// A size that does not fit; no large weight.
    pub fn new(checkpoint: &'a Checkpoint, size: Size) -> Result<Self> {
        let survey = Survey::of_any(checkpoint, size)?;
        if survey.weights.is_empty() {
            bail!(
                "`{}`: found no weight of {} elements or more, expected something to compress",
                checkpoint.path().display(),
                pass::LEAST_ELEMENTS
            );
        }
        Ok(survey)
    }

    /// Surveys a checkpoint, which may have small weights alone.
    ///
    /// # Errors
    /// A size that does not fit.
    pub fn of_any(checkpoint: &'a Checkpoint, size: Size) -> Result<Self> {
        let options = |target, precision| Options {
            target,
            precision,
            opset: Opset::V23,
            layout: Layout { apart: true, ..Layout::default() },
            size,
            timesteps: TimestepChoice::Any,
            quantize: None,
            partition: None,
        };
        let module = lower(checkpoint, &options(Target::Onnx, Precision::Fp32), &mut |_, _| {})?;
        let mut weights = pass::weights_of(&module);
        let mut names = std::collections::BTreeSet::new();
        weights.retain(|w| names.insert(w.name.clone()));
        let package = lower(checkpoint, &options(Target::CoreMl, Precision::Fp16), &mut |_, _| {})?;
        let whole_bytes = coreml::weight_bytes(&package, checkpoint)?;
        Ok(Survey { checkpoint, size, module, weights, whole_bytes })
    }

    /// Bytes of all weights of the fp16 package that is stored this way.
    ///
    /// # Errors
    /// A plan that does not fit.
    pub fn package_bytes(&self, quantize: &Quantize) -> Result<u64> {
        let options = Options {
            target: Target::CoreMl,
            precision: Precision::Fp16,
            opset: Opset::V23,
            layout: Layout::default(),
            size: self.size,
            timesteps: TimestepChoice::Any,
            quantize: Some(quantize.clone()),
            partition: None,
        };
        let package = lower(self.checkpoint, &options, &mut |_, _| {})?;
        Ok(coreml::weight_bytes(&package, &Sources::new(self.checkpoint, Some(quantize)))?)
    }

    /// The values of a weight.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn values(&self, weight: &Weight) -> Result<Values> {
        let (function, _, v) = weight.at;
        let f = &self.module.functions[function];
        let bytes = weights::constant_bytes(f, v, self.checkpoint as &dyn WeightSource)?;
        self.checkpoint.done(&weight.name);
        let halves = to_halves(&bytes, f.dtype(v)).with_context(|| format!("weight `{}`: not floats", weight.name))?;
        Ok(Values { shape: weight.ty.shape.clone(), halves })
    }
}

impl Values {
    /// Elements that no scheme can hold.
    #[must_use]
    pub fn non_finite(&self) -> usize {
        self.halves.iter().filter(|e| *e & 0x7c00 == 0x7c00).count()
    }

    /// Rows that stand for all, if the weight is large.
    #[must_use]
    pub fn sample(&self) -> Values {
        let (rows, inner) = (self.shape[0], self.halves.len() / self.shape[0].max(1));
        let groups = rows / GROUP;
        if !rows.is_multiple_of(GROUP) || groups <= SAMPLED_GROUPS {
            return Values { shape: self.shape.clone(), halves: self.halves.clone() };
        }
        let picked = (0..SAMPLED_GROUPS).map(|i| i * groups / SAMPLED_GROUPS);
        let halves = picked.flat_map(|g| self.halves[g * GROUP * inner..(g + 1) * GROUP * inner].iter().copied());
        let halves = halves.collect();
        let shape = [&[SAMPLED_GROUPS * GROUP], &self.shape[1..]].concat();
        Values { shape, halves }
    }

    /// What storing does to the values. `moments` are the mean squares of the input channels, `importance` and `feedback` what
    /// codes are chosen with.
    ///
    /// # Errors
    /// A scheme that does not fit; elements that are NaN or infinite.
    pub fn loss(
        &self,
        storage: Storage,
        moments: Option<&[f64]>,
        importance: Option<&[f64]>,
        feedback: Option<Feedback<'_>>,
    ) -> Result<Loss> {
        let Storage::Compressed(scheme) = storage else { return Ok(Loss { relative: 0.0, weighted: 0.0 }) };
        let stored = compress(scheme, &self.shape, &self.halves, importance, feedback)?.decompress(DType::F16);
        let inner: usize = self.shape[2..].iter().product();
        let (mut squares, mut errors, mut weighted) = (0.0, 0.0, 0.0);
        for (i, (y, bits)) in stored.iter().zip(&self.halves).enumerate() {
            let x = f16::from_bits(*bits).to_f64();
            let e = (y - x) * (y - x);
            squares += x * x;
            errors += e;
            weighted += e * moments.map_or(1.0, |m| m[i / inner % self.shape[1]]);
        }
        let relative = if errors > 0.0 { (errors / squares).sqrt() } else { 0.0 };
        Ok(Loss { relative, weighted })
    }
}

/// Whether a scheme can be chosen for a weight.
#[must_use]
pub fn fits(scheme: Scheme, ty: &TensorType) -> bool {
    pass::has_blocks(scheme, ty) && Storage::Compressed(scheme).bytes(&ty.shape).is_ok()
}

//! Elements of compressed weights, as numbers.

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::{DType, Tensor, TensorType};

use super::{Compressed, Elements, Kind, Parameter, float};
use crate::coreml::proto::DataType;

impl Parameter<'_> {
    /// The numbers of a small vector.
    pub(super) fn extents(&self) -> Result<Vec<usize>> {
        Ok(self.numbers()?.into_iter().map(|x| x as usize).collect())
    }

    /// The elements as numbers.
    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        let bytes = match &self.elements {
            Elements::Computed(inner) => return inner.numbers(),
            Elements::Packed(bytes) => bytes,
        };
        let floats = |dtype| {
            let tensor = Tensor::from_le_bytes(&TensorType::new(dtype, self.shape.clone()), bytes);
            Ok(tensor.context("too few bytes")?.data.iter().map(|x| *x as f32).collect())
        };
        match self.data_type {
            DataType::Float16 => floats(DType::F16),
            DataType::Float32 => floats(DType::F32),
            DataType::Int32 => floats(DType::I32),
            DataType::Uint32 => floats(DType::U32),
            DataType::Int8 => Ok(bytes.iter().map(|b| f32::from(*b as i8)).collect()),
            // The sign of four bits is the highest of them.
            DataType::Int4 => Ok(self.codes()?.into_iter().map(|c| f32::from((c << 4) as i8 >> 4)).collect()),
            _ => Ok(self.codes()?.into_iter().map(f32::from).collect()),
        }
    }

    /// Unsigned elements of at most eight bits, lowest bit first.
    fn codes(&self) -> Result<Vec<u8>> {
        let bytes = match &self.elements {
            Elements::Packed(bytes) => bytes,
            Elements::Computed(inner) => return Ok(inner.numbers()?.into_iter().map(|x| x as u8).collect()),
        };
        let bits = match self.data_type.bits() {
            Some(bits) if bits <= 8 => bits as usize,
            _ => bail!("elements of type {:?}", self.data_type),
        };
        let n = self.shape.iter().product();
        let mut codes = Vec::with_capacity(n);
        let (mut window, mut held) = (0u32, 0);
        let mut bytes = bytes.iter();
        for _ in 0..n {
            if held < bits {
                window |= u32::from(*bytes.next().context("too few bytes")?) << held;
                held += 8;
            }
            codes.push((window & ((1 << bits) - 1)) as u8);
            window >>= bits;
            held -= bits;
        }
        Ok(codes)
    }

    /// The one number of an axis.
    pub(super) fn axis(&self) -> Result<i64> {
        match self.numbers()?[..] {
            [axis] => Ok(axis as i64),
            _ => bail!("an axis of shape {:?}", self.shape),
        }
    }
}

impl Compressed<'_> {
    /// The weight, little-endian.
    pub(in crate::coreml) fn bytes(&self) -> Result<Vec<u8>> {
        let numbers = self.numbers()?;
        Ok(match float(self.data_type)? {
            DType::F16 => numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    }

    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        match &self.kind {
            Kind::Same { of } => of.numbers(),
            Kind::Scattered { values, mask } => {
                let mut values = values.numbers()?.into_iter();
                let mut next = |on: f32| if on == 0.0 { Some(0.0) } else { values.next() };
                let dense: Option<Vec<f32>> = mask.numbers()?.into_iter().map(&mut next).collect();
                let dense = dense.context("a mask of more elements than there are")?;
                ensure!(values.next().is_none(), "a mask of fewer elements than there are");
                Ok(dense)
            }
            Kind::Gathered { dense, mask } => {
                let (dense, mask) = (dense.numbers()?, mask.numbers()?);
                Ok(dense.into_iter().zip(mask).filter(|(_, on)| *on != 0.0).map(|(x, _)| x).collect())
            }
            Kind::Repeated { of, axis, count } => {
                let inner: usize = of.shape[axis + 1..].iter().product();
                let numbers = of.numbers()?;
                Ok(numbers
                    .chunks(inner.max(1))
                    .flat_map(|row| std::iter::repeat_n(row, *count).flatten().copied())
                    .collect())
            }
            Kind::Lut { indices, lut, vector_axis } => {
                let rank = indices.shape.len();
                let (entries, vector) = (lut.shape[rank], lut.shape[rank + 1]);
                let (codes, table) = (indices.codes()?, lut.numbers()?);
                let runs = Runs::new(&indices.shape, &lut.shape[..rank]);
                let mut out = vec![0.0; codes.len() * vector];
                // The elements of an entry lie along the vector's axis.
                let inner: usize = vector_axis.map_or(1, |a| indices.shape[a + 1..].iter().product());
                for (run, codes) in codes.chunks(runs.len).enumerate() {
                    let palette = &table[runs.part(run) * entries * vector..];
                    for (i, code) in codes.iter().enumerate() {
                        let at = run * runs.len + i;
                        let entry = &palette[usize::from(*code) * vector..][..vector];
                        for (j, x) in entry.iter().enumerate() {
                            out[at / inner * inner * vector + j * inner + at % inner] = *x;
                        }
                    }
                }
                Ok(out)
            }
            Kind::ShiftScale { data, scale, offset } => {
                let mut out = data.numbers()?;
                let (scales, offsets) = (scale.numbers()?, offset.as_ref().map(Parameter::numbers).transpose()?);
                let runs = Runs::new(&data.shape, &scale.shape);
                for (run, out) in out.chunks_mut(runs.len).enumerate() {
                    let part = runs.part(run);
                    let (scale, offset) = (scales[part], offsets.as_ref().map_or(0.0, |o| o[part]));
                    for x in out {
                        *x = scale * (*x - offset);
                    }
                }
                Ok(out)
            }
        }
    }
}

/// Consecutive elements that belong to one part, where each axis has some parts.
struct Runs {
    len: usize,
    /// Runs and parts along the axes up to the last one that has parts, outermost first.
    axes: Vec<(usize, usize)>,
}

impl Runs {
    fn new(shape: &[usize], parts: &[usize]) -> Runs {
        let Some(last) = parts.iter().rposition(|p| *p > 1) else {
            return Runs { len: shape.iter().product::<usize>().max(1), axes: Vec::new() };
        };
        let mut axes: Vec<(usize, usize)> = shape.iter().copied().zip(parts.iter().copied()).take(last + 1).collect();
        axes[last].0 = parts[last];
        Runs { len: shape[last..].iter().product::<usize>() / parts[last], axes }
    }

    /// The part that a run belongs to.
    fn part(&self, run: usize) -> usize {
        let (mut part, mut run, mut stride) = (0, run, 1);
        for (runs, parts) in self.axes.iter().rev() {
            part += run % runs / (runs / parts) * stride;
            run /= runs;
            stride *= parts;
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_parts_of_each_axis() {
        let parts = |shape: &[usize], parts: &[usize]| {
            let runs = Runs::new(shape, parts);
            let n: usize = shape.iter().product();
            (0..n).map(|i| runs.part(i / runs.len)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[2, 2], &[1, 1]), [0; 4]);
        assert_eq!(parts(&[4, 2], &[2, 1]), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(parts(&[2, 4], &[2, 2]), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(parts(&[4, 4], &[2, 2]), [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]);
        assert_eq!(parts(&[2, 2, 2], &[1, 2, 1]), [0, 0, 1, 1, 0, 0, 1, 1]);
    }
}

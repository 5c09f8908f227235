//! Compressed weights: schemes, the algorithms that choose codes, and the numbers that the codes stand for.
//!
//! A weight is cut into runs of consecutive elements ([`Scheme::runs`]); each has a scale, or a palette found by exact
//! one-dimensional k-means. Elements are fp16 numbers: an fp32 weight is rounded to fp16 first, so that both precisions of a
//! model store the same codes and the same table.

mod compressed;
mod feedback;
mod integer;
mod kmeans;
mod palette;
mod penalised;
mod scheme;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;

use crate::ops::{OpError, require};
use crate::{DType, convert};
pub use compressed::{Compressed, pack};
pub use feedback::Feedback;
use palette::{Importance, Scratch};
pub use scheme::{EXPECTED, Runs, Scheme, packed_len};

/// Compresses a weight of this shape. `elements` are fp16 bits; `importance` has a weight an input channel, which weighs the
/// errors by which palettes are found (a scale only has to reach its elements). With `feedback` the codes are not the nearest
/// ones, but those that the codes after them can make good.
///
/// The result does not depend on the number of threads.
///
/// # Errors
/// A shape that the scheme does not fit; elements that are NaN or infinite; an importance or factors of another length.
pub fn compress(
    scheme: Scheme,
    shape: &[usize],
    elements: &[u16],
    importance: Option<&[f64]>,
    feedback: Option<Feedback<'_>>,
) -> Result<Compressed, OpError> {
    let runs = scheme.runs(shape)?;
    require!(elements.len() == runs.count * runs.len, "found {} elements for the shape {shape:?}", elements.len());
    let mut codes = vec![0; elements.len()];
    let mut table = vec![0; runs.count * runs.entries];
    let jobs =
        elements.par_chunks(runs.len).zip(codes.par_chunks_mut(runs.len)).zip(table.par_chunks_mut(runs.entries));
    if let Some(weights) = importance {
        let (found, expected) = (weights.len(), shape[1]);
        require!(found == expected, "found the importance of {found} input channels, expected {expected}");
    }
    let non_finite: usize = match scheme {
        Scheme::Palette { .. } => {
            let importance = importance.map(|w| Importance::new(w, shape)).transpose()?;
            jobs.map_init(Scratch::default, |scratch, ((elements, codes), entries)| {
                scratch.palettize(elements, importance.as_ref(), entries, codes)
            })
            .sum()
        }
        Scheme::Int8 | Scheme::Block { .. } => jobs
            .with_min_len((1 << 14) / runs.len.min(1 << 14))
            .map_init(Vec::new, |wide, ((elements, codes), scale)| {
                wide.resize(elements.len(), 0.0);
                elements.reinterpret_cast::<f16>().convert_to_f32_slice(wide);
                scale[0] = integer::quantize(wide, scheme.bits(), codes);
                elements.iter().filter(|e| *e & 0x7c00 == 0x7c00).count()
            })
            .sum(),
    };
    require!(
        non_finite == 0,
        "scheme `{scheme}`: found {non_finite} element(s) that are NaN, infinite or beyond fp16, expected finite ones"
    );
    let mut compressed = Compressed { scheme, codes, table };
    if let Some(feedback) = feedback {
        feedback::reassign(&mut compressed, shape, elements, feedback)?;
    }
    Ok(compressed)
}

/// Floats of any width, little-endian, as fp16 bits; `None` for other dtypes.
pub fn to_halves(bytes: &[u8], from: DType) -> Option<Vec<u16>> {
    const CHUNK: usize = 1 << 14;
    if !convert::converts(from, DType::F16) {
        return None;
    }
    let mut out = vec![0u16; bytes.len() / from.size()];
    out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * from.size())).for_each(|(out, bytes)| {
        convert::convert(from, bytes, DType::F16, bytemuck::cast_slice_mut(out));
        out.iter_mut().for_each(|half| *half = u16::from_le(*half));
    });
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_codes_are_packed_across_bytes() {
        let i4: Vec<u8> = [-8i8, 7, 1].iter().map(|v| *v as u8).collect();
        assert_eq!(pack(&i4, 4), [0x78, 0x01]);
        assert_eq!(pack(&[1, 2, 3, 4, 5, 6, 7, 0, 7], 3), [0xd1, 0x58, 0x1f, 0x07]);
        assert_eq!(pack(&[1, 2, 3, 63, 33], 6), [0x81, 0x30, 0xfc, 0x21]);
        assert_eq!(pack(&[1, 0, 1, 1, 0, 0, 0, 1, 1], 1), [0x8d, 0x01]);
        assert_eq!(pack(&[255, 1], 8), [255, 1]);
    }

    #[test]
    fn each_run_has_its_own_table() {
        let elements: Vec<u16> =
            [1.0f32, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0].iter().map(|x| f16::from_f32(*x).to_bits()).collect();
        let c = compress("palette2-group1".parse().unwrap(), &[2, 4], &elements, None, None).unwrap();
        assert_eq!(c.decompress(DType::F16), [1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]);
        assert_eq!(c.packed(), [0xe4, 0xe4]);
        let c = compress(Scheme::Int8, &[2, 4], &elements, None, None).unwrap();
        assert_eq!(c.table.len(), 2);
        for (x, y) in elements.iter().zip(c.decompress(DType::F32)) {
            let x = f16::from_bits(*x).to_f64();
            assert!((x - y).abs() <= x.max(4.0) / 127.0);
        }
        let c = compress("int4-block2".parse().unwrap(), &[2, 4], &elements, None, None).unwrap();
        assert_eq!((c.table.len(), c.packed().len()), (4, 4));
    }

    #[test]
    fn what_cannot_be_compressed_is_refused() {
        let nan = [0x7e00, 0x3c00];
        for scheme in ["int8", "palette4", "int4-block1"] {
            let error = compress(scheme.parse().unwrap(), &[2, 1], &nan, None, None).unwrap_err().to_string();
            assert!(error.contains("1 element(s) that are NaN"), "{error}");
        }
        assert!(compress(Scheme::Int8, &[2, 1], &[0, 0], Some(&[1.0, 1.0]), None).is_err());
        assert!(compress("palette4".parse().unwrap(), &[2, 1], &[0, 0], Some(&[1.0, 1.0]), None).is_err());
        assert!(compress("palette4".parse().unwrap(), &[2, 2], &[0, 0], None, None).is_err());
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let elements: Vec<u16> = (0..64 * 96u32)
            .map(|i| f16::from_f32((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65536.0 - 0.5).to_bits())
            .collect();
        for scheme in ["palette4-group16", "palette6", "int4-block32", "int8"] {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| compress(scheme.parse().unwrap(), &[64, 96], &elements, None, None).unwrap())
            };
            assert_eq!(run(1), run(3), "{scheme}");
        }
    }
}

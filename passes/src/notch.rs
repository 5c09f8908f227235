//! The notch of the DMA engine: fp16 weights that stream at a third of the rate of others.
//!
//! eiln.github.io/posts/ane-dma.html has it of Macs, and reproduced on M4; of phones and of palettes nothing is known.

use s2dit_ir::DType;

/// Cores of the engine, each of which gets a slice of a weight.
const CORES: usize = 16;
/// Slices of a multiple of so many bytes are slow.
const NOTCH: usize = 1 << 20;

/// Whether fp16 weights of this shape, output channels first, hit the notch.
#[must_use]
pub fn is_notched(shape: &[usize]) -> bool {
    let [out, ref rest @ ..] = *shape else { return false };
    let slice = out.div_ceil(CORES) * rest.iter().product::<usize>() * DType::F16.size();
    slice > 0 && slice.is_multiple_of(NOTCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notch_is_where_it_was_measured() {
        // 2048→8192, 8192→2048 and 4096→2048 are notched; 2048→6144 and 2048² are not (ane-dma).
        for (out, input, notched) in
            [(8192, 2048, true), (2048, 8192, true), (2048, 4096, true), (6144, 2048, false), (2048, 2048, false)]
        {
            assert_eq!(is_notched(&[out, input, 1, 1]), notched, "{input} → {out}");
        }
    }
}

//! The types of ggml, and the numbers in a block of each.
//!
//! The layouts are those of `ggml-common.h`, with products in fp32 in the order of `gguf-py`'s `quants.py`, which judges them in the tests.
//! A block of the K types has 256 weights in groups of 16 or 32, each with a scale of few bits of its own.

use half::f16;
use s2dit_ir::DType;

/// A type of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    pub(super) const ALL: [Kind; 13] = [
        Kind::F32,
        Kind::F16,
        Kind::Bf16,
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q2K,
        Kind::Q3K,
        Kind::Q4K,
        Kind::Q5K,
        Kind::Q6K,
    ];

    /// ggml's number, its name, elements of a block, bytes of a block.
    const fn layout(self) -> (u32, &'static str, usize, usize) {
        match self {
            Kind::F32 => (0, "F32", 1, 4),
            Kind::F16 => (1, "F16", 1, 2),
            Kind::Q4_0 => (2, "Q4_0", 32, 18),
            Kind::Q4_1 => (3, "Q4_1", 32, 20),
            Kind::Q5_0 => (6, "Q5_0", 32, 22),
            Kind::Q5_1 => (7, "Q5_1", 32, 24),
            Kind::Q8_0 => (8, "Q8_0", 32, 34),
            Kind::Q2K => (10, "Q2_K", 256, 84),
            Kind::Q3K => (11, "Q3_K", 256, 110),
            Kind::Q4K => (12, "Q4_K", 256, 144),
            Kind::Q5K => (13, "Q5_K", 256, 176),
            Kind::Q6K => (14, "Q6_K", 256, 210),
            Kind::Bf16 => (30, "BF16", 1, 2),
        }
    }

    /// The type with this number.
    pub(super) fn of(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.layout().0 == number)
    }

    pub(super) fn name(self) -> &'static str {
        self.layout().1
    }

    /// Elements of a block.
    pub(super) fn elements(self) -> usize {
        self.layout().2
    }

    /// Bytes of a block.
    pub(super) fn bytes(self) -> usize {
        self.layout().3
    }

    /// Whether elements are stored as they are.
    pub(super) fn is_plain(self) -> bool {
        self.elements() == 1
    }

    /// The type of the elements, dequantised if they are in blocks.
    pub(super) fn dtype(self) -> DType {
        match self {
            Kind::F16 => DType::F16,
            Kind::Bf16 => DType::BF16,
            _ => DType::F32,
        }
    }

    /// The numbers of a block: `block` and `out` have as many bytes and elements as the type says.
    pub(super) fn dequantise(self, block: &[u8], out: &mut [f32]) {
        match self {
            Kind::F32 | Kind::F16 | Kind::Bf16 => {}
            Kind::Q4_0 => nibbles(half(block, 0), -8.0, None, None, &block[2..], out),
            Kind::Q4_1 => nibbles(half(block, 0), 0.0, None, Some(half(block, 2)), &block[4..], out),
            Kind::Q5_0 => nibbles(half(block, 0), -16.0, Some(&block[2..6]), None, &block[6..], out),
            Kind::Q5_1 => nibbles(half(block, 0), 0.0, Some(&block[4..8]), Some(half(block, 2)), &block[8..], out),
            Kind::Q8_0 => {
                let scale = half(block, 0);
                out.iter_mut().zip(&block[2..]).for_each(|(out, q)| *out = scale * f32::from(*q as i8));
            }
            Kind::Q2K => q2k(block, out),
            Kind::Q3K => q3k(block, out),
            Kind::Q4K => q45k(block, None, &block[16..], out),
            Kind::Q5K => q45k(block, Some(&block[16..48]), &block[48..], out),
            Kind::Q6K => q6k(block, out),
        }
    }
}

/// The fp16 number at a byte of a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// A block of 32: `scale · (q + shift) + least`. The low nibbles are the first half, the high ones the second; `fifth` has one bit more
/// of each.
fn nibbles(scale: f32, shift: f32, fifth: Option<&[u8]>, least: Option<f32>, codes: &[u8], out: &mut [f32]) {
    for (index, out) in out.iter_mut().enumerate() {
        let low = (codes[index % 16] >> (4 * (index / 16))) & 15;
        let high = fifth.map_or(0, |bits| (bits[index / 8] >> (index % 8)) & 1);
        let product = scale * (f32::from(low | high << 4) + shift);
        *out = least.map_or(product, |least| product + least);
    }
}

/// Groups of 16 with scales and minima of four bits: `d·s·q − m·t`.
fn q2k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, m) = (half(block, 80), half(block, 82));
    for (index, out) in out.iter_mut().enumerate() {
        let scale = scales[index / 16];
        let q = (codes[index / 128 * 32 + index % 32] >> (2 * (index % 128 / 32))) & 3;
        *out = d * f32::from(scale & 15) * f32::from(q) - m * f32::from(scale >> 4);
    }
}

/// Groups of 16 with scales of six bits around 32: `d·(s − 32)·(q − 4)`, the third bit of q in a mask.
fn q3k(block: &[u8], out: &mut [f32]) {
    let (mask, codes, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    for (index, out) in out.iter_mut().enumerate() {
        let group = index / 16;
        let low = (packed[group % 8] >> (4 * (group / 8))) & 15;
        let high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
        let scale = f32::from(low | high << 4) - 32.0;
        let q = (codes[index / 128 * 32 + index % 32] >> (2 * (index % 128 / 32))) & 3;
        let third = (mask[index % 32] >> (index / 32)) & 1;
        *out = d * scale * (f32::from(q | third << 2) - 4.0);
    }
}

/// Groups of 32 with scales and minima of six bits: `d·s·q − m·t`; `fifth` has one bit more of each code.
fn q45k(block: &[u8], fifth: Option<&[u8]>, codes: &[u8], out: &mut [f32]) {
    let (d, m, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, least) = match group {
            0..4 => (packed[group] & 63, packed[group + 4] & 63),
            _ => {
                (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4)
            }
        };
        let (scale, least) = (d * f32::from(scale), m * f32::from(least));
        for (index, out) in out.iter_mut().enumerate() {
            let low = (codes[group / 2 * 32 + index] >> (4 * (group % 2))) & 15;
            let high = fifth.map_or(0, |bits| (bits[index] >> group) & 1);
            *out = scale * f32::from(low | high << 4) - least;
        }
    }
}

/// Groups of 16 with scales of eight bits: `d·s·(q − 32)`, q in four low and two high bits.
fn q6k(block: &[u8], out: &mut [f32]) {
    let (lows, highs, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (index, out) in out.iter_mut().enumerate() {
        let (half, within) = (index / 128, index % 128);
        let low = (lows[half * 64 + within % 64] >> (4 * (within / 64))) & 15;
        let high = (highs[half * 32 + within % 32] >> (2 * (within / 32))) & 3;
        let scale = d * f32::from(scales[index / 16] as i8);
        *out = scale * (f32::from(low | high << 4) - 32.0);
    }
}

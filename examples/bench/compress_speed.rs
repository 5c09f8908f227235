//! Parameters a second of each scheme, on normal weights as a bf16 and as an fp16 checkpoint hold them.
//!
//! ```sh
//! cargo run --release -p s2dit-ir --example compress_speed [SCHEME...]
//! compress_speed --raw FILE ROWS COLUMNS SCHEME       # seconds and relative error for fp16 bits, little-endian
//! ```

use std::time::Instant;

use s2dit_ir::DType;
use s2dit_ir::compress::{Scheme, compress, to_halves};

const SHAPE: [usize; 2] = [2048, 4096];

fn main() {
    let mut schemes: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, file, rows, columns, scheme] = schemes.as_slice()
        && flag == "--raw"
    {
        return raw(file, [rows, columns].map(|n| n.parse().expect("a number")), scheme);
    }
    if schemes.is_empty() {
        let all = ["int8", "int8-block32", "int4-block32", "palette4-group16", "palette4", "palette6", "palette8"];
        schemes = all.map(String::from).to_vec();
    }
    let weights = normal(SHAPE[0] * SHAPE[1]);
    println!("{:<18} {:<6} {:>9} {:>14} {:>9}", "scheme", "from", "seconds", "M weights/s", "SNR, dB");
    for scheme in &schemes {
        let Ok(scheme) = scheme.parse::<Scheme>() else {
            eprintln!("`{scheme}` is not a scheme");
            std::process::exit(2);
        };
        for (name, dtype) in [("bf16", DType::BF16), ("f16", DType::F16)] {
            let stored: Vec<u8> = weights.iter().flat_map(|x| half_bytes(*x, dtype)).collect();
            let start = Instant::now();
            let halves = to_halves(&stored, dtype).unwrap_or_default();
            let compressed = match compress(scheme, &SHAPE, &halves, None, None) {
                Ok(compressed) => compressed,
                Err(e) => {
                    eprintln!("{e}");
                    std::process::exit(1);
                }
            };
            let packed = compressed.packed();
            let seconds = start.elapsed().as_secs_f64();
            let elements = halves.iter().map(|h| half::f16::from_bits(*h).to_f64());
            let (mut signal, mut noise) = (0.0, 0.0);
            for (x, y) in elements.zip(compressed.decompress(DType::F16)) {
                signal += x * x;
                noise += (x - y).powi(2);
            }
            assert!(packed.len() <= halves.len());
            println!(
                "{:<18} {name:<6} {seconds:>9.3} {:>14.1} {:>9.2}",
                scheme.to_string(),
                halves.len() as f64 / seconds / 1e6,
                10.0 * (signal / noise).log10()
            );
        }
    }
}

/// One tensor of a file.
fn raw(file: &str, shape: [usize; 2], scheme: &str) {
    let bytes = std::fs::read(file).expect("a readable file");
    let start = Instant::now();
    let halves = to_halves(&bytes, DType::F16).expect("fp16");
    let scheme: Scheme = scheme.parse().expect("a scheme");
    let compressed = compress(scheme, &shape, &halves, None, None).expect("a tensor that the scheme fits");
    let packed = compressed.packed();
    let seconds = start.elapsed().as_secs_f64();
    assert!(packed.len() < bytes.len());
    let (mut signal, mut noise) = (0.0, 0.0);
    for (h, y) in halves.iter().zip(compressed.decompress(DType::F16)) {
        let x = half::f16::from_bits(*h).to_f64();
        signal += x * x;
        noise += (x - y).powi(2);
    }
    println!("{seconds} {}", (noise / signal).sqrt());
}

fn half_bytes(x: f32, dtype: DType) -> [u8; 2] {
    if dtype == DType::BF16 { half::bf16::from_f32(x).to_le_bytes() } else { half::f16::from_f32(x).to_le_bytes() }
}

/// Normal numbers of standard deviation 0.02 (Box and Muller), from a fixed seed.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 + 0.5) / f64::from(1u32 << 31)
    };
    (0..n).map(|_| (0.02 * (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32).collect()
}

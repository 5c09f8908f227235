//! Host inputs: small tensors that depend on the stream's position, computed in float64 and rounded once.

use s2dit_ir::DType;
use s2dit_ir::ops::RopePart;

use super::contract::{Contract, HostInput, HostInputKind, Port};
use crate::HostTensor;

/// The host inputs for the chunk after `chunks` committed ones, of the shapes and dtypes of `ports`; those that `ports` lack
/// are left out.
#[must_use]
pub fn inputs(contract: &Contract, ports: &[Port], chunks: u64) -> Vec<(String, HostTensor)> {
    let of = |host: &HostInput| {
        let port = ports.iter().find(|p| p.name == host.name)?;
        let data = values(&host.kind, contract.chunk.frames, contract.window_frames, chunks);
        let data = data.into_iter().map(|x| rounded(x, port.dtype)).collect();
        Some((host.name.clone(), HostTensor { shape: port.shape.clone(), data }))
    };
    contract.host_inputs.iter().filter_map(of).collect()
}

/// The values of one host input, exact in float64. `window_frames` is what the windows hold.
#[must_use]
pub fn values(kind: &HostInputKind, chunk_frames: usize, window_frames: usize, chunks: u64) -> Vec<f64> {
    let frames_so_far = chunks.saturating_mul(chunk_frames as u64);
    match *kind {
        HostInputKind::Rope { part, grid, axis_dims, theta } => rope(part, grid, axis_dims, theta, frames_so_far),
        HostInputKind::WindowMask { window_tokens, tokens_per_frame, own_tokens, empty } => {
            // At most `window_frames`, so it fits.
            let filled = frames_so_far.min(window_frames as u64) as usize * tokens_per_frame;
            let empty_slots = window_tokens.saturating_sub(filled);
            let mut mask = vec![0.0; window_tokens + own_tokens];
            mask[..empty_slots].fill(f64::from(empty));
            mask
        }
        HostInputKind::PastWeight => vec![chunks as f64 / (chunks as f64 + 1.0)],
        HostInputKind::NewWeight => vec![1.0 / (chunks as f64 + 1.0)],
    }
}

fn rope(part: RopePart, grid: [usize; 3], axis_dims: [usize; 3], theta: f64, first_frame: u64) -> Vec<f64> {
    let pairs = axis_dims.iter().sum::<usize>() / 2;
    let mut table = Vec::with_capacity(grid.iter().product::<usize>() * pairs);
    // Angles of a position along one axis, computed once a position instead of once a token.
    let axis = |position: f64, dim: usize| -> Vec<f64> {
        let angles = (0..dim / 2).map(|i| position * theta.powf(-2.0 * i as f64 / dim as f64));
        match part {
            RopePart::Cos => angles.map(f64::cos).collect(),
            RopePart::Sin => angles.map(f64::sin).collect(),
        }
    };
    let rows: Vec<_> = (0..grid[1]).map(|r| axis(r as f64, axis_dims[1])).collect();
    let cols: Vec<_> = (0..grid[2]).map(|c| axis(c as f64, axis_dims[2])).collect();
    for frame in 0..grid[0] as u64 {
        let time = axis((first_frame + frame) as f64, axis_dims[0]);
        for row in &rows {
            for col in &cols {
                table.extend(time.iter().chain(row).chain(col));
            }
        }
    }
    table
}

/// A value as the port's dtype holds it.
pub(super) fn rounded(x: f64, dtype: DType) -> f32 {
    dtype.round(x) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::Tensor;
    use s2dit_ir::ops::{OpDef, RopeTable};

    #[test]
    fn tables_continue_where_the_clip_would() {
        let (axis_dims, theta) = ([8, 4, 4], 10000.0);
        for part in [RopePart::Cos, RopePart::Sin] {
            let whole = RopeTable { part, grid: [6, 2, 3], axis_dims, theta };
            let ty = whole.infer(&[], None).unwrap();
            let none: [&Tensor; 0] = [];
            let whole = whole.eval(&none, &ty).unwrap();
            let kind = HostInputKind::Rope { part, grid: [2, 2, 3], axis_dims, theta };
            let stream: Vec<f32> =
                (0..3).flat_map(|chunk| values(&kind, 2, 4, chunk)).map(|x| rounded(x, DType::F32)).collect();
            let whole: Vec<f32> = whole.data.iter().map(|x| *x as f32).collect();
            assert_eq!(stream, whole);
        }
    }

    #[test]
    fn windows_fill_from_their_end() {
        let kind = HostInputKind::WindowMask { window_tokens: 14, tokens_per_frame: 2, own_tokens: 6, empty: -10000.0 };
        let empty = |chunk| values(&kind, 3, 7, chunk).iter().take_while(|x| **x == -10000.0).count();
        let zeros = |chunk| values(&kind, 3, 7, chunk).iter().filter(|x| **x == 0.0).count();
        assert_eq!([0, 1, 2, 3, u64::MAX].map(empty), [14, 8, 2, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(zeros), [6, 12, 18, 20]);
    }

    #[test]
    fn weights_keep_a_mean() {
        let (mut mean, mut sum) = (0.0, 0.0);
        for n in 0..1000u64 {
            let own = (n as f64).sin();
            let w = |kind| values(kind, 3, 7, n)[0];
            mean = w(&HostInputKind::PastWeight) * mean + w(&HostInputKind::NewWeight) * own;
            sum += own;
        }
        assert!((mean - sum / 1000.0f64).abs() < 1e-12);
    }
}

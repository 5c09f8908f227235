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
        let data = values(&host.kind, contract, chunks);
        let data = data.into_iter().map(|x| rounded(x, port.dtype)).collect();
        Some((host.name.clone(), HostTensor { shape: port.shape.clone(), data }))
    };
    contract.host_inputs.iter().filter_map(of).collect()
}

/// The values of one host input, exact in float64.
#[must_use]
pub fn values(kind: &HostInputKind, contract: &Contract, chunks: u64) -> Vec<f64> {
    let frames_so_far = chunks.saturating_mul(contract.chunk.frames as u64);
    // At most `most`, so it fits.
    let frames = |n: u64, most: usize| n.min(most as u64) as usize;
    match *kind {
        HostInputKind::Rope { part, grid, axis_dims, theta } => rope(part, grid, axis_dims, theta, frames_so_far),
        HostInputKind::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens, empty } => {
            let before_window = frames_so_far.saturating_sub(contract.window_frames as u64);
            let apart = frames(before_window, contract.sink_frames) * tokens_per_frame;
            let filled = frames(frames_so_far, contract.window_frames) * tokens_per_frame;
            let window = sink_tokens..sink_tokens + window_tokens;
            let mut mask = vec![0.0; window.end + own_tokens];
            mask[apart.min(sink_tokens)..sink_tokens].fill(f64::from(empty));
            mask[window.start..window.end - filled.min(window_tokens)].fill(f64::from(empty));
            mask
        }
        HostInputKind::SinkMask { sink_tokens, tokens_per_frame } => {
            let slot =
                |frames_so_far: u64| (frames(frames_so_far, contract.sink_frames) * tokens_per_frame).min(sink_tokens);
            let mut mask = vec![0.0; sink_tokens];
            mask[slot(frames_so_far)..slot(frames_so_far.saturating_add(contract.chunk.frames as u64))].fill(1.0);
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
    use s2dit_ir::ops::{OpDef, RopeTable, TensorOp};
    use serde_json::json;

    /// A contract whose chunks, windows and sinks have so many frames.
    fn contract(frames: usize, window_frames: usize, sink_frames: usize) -> Contract {
        let function = json!({"file": "x", "function": "x", "inputs": [], "outputs": []});
        let contract = json!({
            "format": "s2dit-kernel", "version": 1, "compiler": "by hand", "target": "onnx", "precision": "fp32", "states_policy": "io",
            "functions_policy": "separate", "checkpoint": "blake3:00", "config": {},
            "chunk": {"channels": 1, "frames": frames, "rows": 1, "cols": 1},
            "window_frames": window_frames, "sink_frames": sink_frames, "text": {"tokens": 1, "dim": 1},
            "sampler": {"kind": "flow_matching_ar", "timesteps": [1000.0], "sigmas": [1.0]},
            "functions": {"prompt": function, "denoise": function, "commit": function}, "host_inputs": [], "states": [],
        });
        Contract::parse(&contract.to_string()).unwrap_or_else(|e| panic!("{e:#}"))
    }

    #[test]
    fn tables_continue_where_the_clip_would() {
        let (axis_dims, theta) = ([8, 4, 4], 10000.0);
        for part in [RopePart::Cos, RopePart::Sin] {
            let whole = RopeTable { part, grid: [6, 2, 3], axis_dims, theta };
            let ty = whole.infer(&[], None).unwrap();
            let none: [&Tensor; 0] = [];
            let whole = whole.eval(&none, &ty).unwrap();
            let kind = HostInputKind::Rope { part, grid: [2, 2, 3], axis_dims, theta };
            let contract = contract(2, 4, 0);
            let stream: Vec<f32> =
                (0..3).flat_map(|chunk| values(&kind, &contract, chunk)).map(|x| rounded(x, DType::F32)).collect();
            let whole: Vec<f32> = whole.data.iter().map(|x| *x as f32).collect();
            assert_eq!(stream, whole);
        }
    }

    #[test]
    fn windows_fill_from_their_end() {
        let kind = HostInputKind::WindowMask {
            sink_tokens: 0,
            window_tokens: 14,
            tokens_per_frame: 2,
            own_tokens: 6,
            empty: -10000.0,
        };
        let contract = contract(3, 7, 0);
        let empty = |chunk| values(&kind, &contract, chunk).iter().take_while(|x| **x == -10000.0).count();
        let zeros = |chunk| values(&kind, &contract, chunk).iter().filter(|x| **x == 0.0).count();
        assert_eq!([0, 1, 2, 3, u64::MAX].map(empty), [14, 8, 2, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(zeros), [6, 12, 18, 20]);
    }

    /// Frame by frame: what is seen of the past is the sinks and the window, each frame once.
    #[test]
    fn each_frame_of_the_past_is_seen_once() {
        for (chunk, window, sinks) in [(2, 3, 3), (3, 7, 1), (1, 2, 4), (2, 0, 3), (3, 2, 3)] {
            let (sink_tokens, window_tokens, own_tokens) = (sinks * 2, window * 2, chunk * 2);
            let mask = HostInputKind::WindowMask {
                sink_tokens,
                window_tokens,
                tokens_per_frame: 2,
                own_tokens,
                empty: -10000.0,
            };
            let written = HostInputKind::SinkMask { sink_tokens, tokens_per_frame: 2 };
            let contract = contract(chunk, window, sinks);
            let mut slots = vec![None; sinks];
            for n in 0..8u64 {
                let begin = n as usize * chunk;
                let mask = values(&mask, &contract, n);
                assert!(mask.chunks(2).all(|frame| frame[0] == frame[1]));
                let open = |slot: usize| mask[slot * 2] == 0.0;
                let mut seen: Vec<usize> =
                    (0..sinks).filter(|&s| open(s)).map(|s| slots[s].expect("a frame")).collect();
                // The slots of the window hold the frames before the chunk, the newest last.
                seen.extend((0..window).filter(|&w| open(sinks + w)).map(|w| begin + w - window));
                let wanted: Vec<usize> = (0..begin).filter(|&f| f < sinks || f + window >= begin).collect();
                assert_eq!(seen, wanted, "chunk {n} of {chunk} frames, window {window}, {sinks} sinks");
                assert!((0..chunk).all(|own| open(sinks + window + own)));
                for (slot, weight) in values(&written, &contract, n).chunks(2).map(|w| w[0]).enumerate() {
                    if weight == 1.0 {
                        assert_eq!(slots[slot].replace(begin + slot % chunk), None, "a slot is written once");
                    }
                }
            }
            assert_eq!(slots, (0..sinks).map(Some).collect::<Vec<_>>());
        }
    }

    #[test]
    fn weights_keep_a_mean() {
        let contract = contract(3, 7, 0);
        let (mut mean, mut sum) = (0.0, 0.0);
        for n in 0..1000u64 {
            let own = (n as f64).sin();
            let w = |kind| values(kind, &contract, n)[0];
            mean = w(&HostInputKind::PastWeight) * mean + w(&HostInputKind::NewWeight) * own;
            sum += own;
        }
        assert!((mean - sum / 1000.0f64).abs() < 1e-12);
    }
}

use s2dit_runtime::stream::contract::{
    Contract, FunctionsPolicy, KernelSampler, Precision, StateWrite, StatesPolicy, Target, Text, VERSION,
};
use s2dit_runtime::stream::contract::{FORMAT, Function, Functions};

use serde_json::json;

use super::*;

fn contract() -> Contract {
    let f = || Function {
        file: "x".into(),
        function: "x".into(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        parts: Vec::new(),
    };
    Contract {
        format: FORMAT.into(),
        version: VERSION,
        compiler: "by hand".into(),
        target: Target::Onnx,
        precision: Precision::Fp32,
        states_policy: StatesPolicy::Io,
        functions_policy: FunctionsPolicy::Separate,
        checkpoint: "blake3:00".into(),
        config: json!({}),
        interface: s2dit_ir::Interface::default(),
        chunk: Chunk { channels: 2, frames: 1, rows: 1, cols: 3 },
        window_frames: 2,
        sink_frames: 0,
        state_write: StateWrite::Commit,
        text: Text { tokens: 2, dim: 3 },
        sampler: KernelSampler::autoregressive(&[1000.0, 500.0], 5.0),
        timesteps: None,
        device: None,
        lowerings: Vec::new(),
        functions: Functions { prompt: f(), denoise: f(), commit: Some(f()), last_step: None },
        host_inputs: Vec::new(),
        states: Vec::new(),
        packing: Vec::new(),
    }
}

fn write(path: &Path, name: &str, shape: &[usize]) {
    let data: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &data).unwrap();
    safetensors::serialize_to_file([(name, view)], None, path).unwrap();
}

#[test]
fn seeded_noise_depends_on_chunk_and_step_alone() {
    let c = contract();
    let all: Vec<HostTensor> = (0..3).flat_map(|i| Noise::Seed(7).chunk(i, &c).unwrap()).collect();
    assert!(all.iter().enumerate().all(|(i, a)| all[..i].iter().all(|b| a != b)));
    assert_eq!(Noise::Seed(7).chunk(2, &c).unwrap(), all[4..]);
    assert_ne!(Noise::Seed(8).chunk(2, &c).unwrap(), all[4..]);
}

#[test]
fn recorded_noise_is_cut_into_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n.safetensors");
    let c = contract();
    write(&path, NOISE, &[2, 2, 1, 2, 1, 1, 3]);
    let noise = Noise::open(&path, &c).unwrap();
    assert_eq!(noise.chunks(), Some(2));
    assert_eq!(noise.chunk(1, &c).unwrap()[1].data, [18., 19., 20., 21., 22., 23.]);
    assert!(noise.chunk(2, &c).unwrap_err().to_string().contains("noise of 2 chunk(s)"));
    let error = |path: &Path| Noise::open(path, &c).err().unwrap().to_string();
    write(&path, NOISE, &[2, 2, 1, 2, 2, 1, 3]);
    assert!(error(&path).contains("expected [chunks, 2, 1, 2, 1, 1, 3]"));
    write(&path, "velocity", &[1]);
    assert!(error(&path).contains("clip mode"));
    write(&path, TEXT, &[1, 3, 3]);
    assert!(read_prompt(&path, &c).unwrap_err().to_string().contains("exactly 2 tokens"));
}

#[test]
fn latents_are_a_safetensors_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.safetensors");
    let c = contract();
    let mut file = LatentsFile::create(Destination::new(&path), 2, c.chunk).unwrap();
    let chunks = Noise::Seed(1).chunk(0, &c).unwrap();
    for chunk in &chunks {
        file.push(chunk).unwrap();
    }
    assert!(!path.exists());
    file.finish().unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.get(LATENTS).unwrap().ty.shape, [2, 1, 2, 1, 1, 3]);
    assert_eq!(file.tensor_f32(LATENTS).unwrap(), [chunks[0].data.clone(), chunks[1].data.clone()].concat());
}

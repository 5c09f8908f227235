//! The vectors that `examples/swift` is tested on: contracts, noise, host inputs and chunks, as our own host makes them. `S2DITC_BLESS=1` writes them.

use std::fs;
use std::path::Path;

use crate::common::{arg, golden, ok, repo};
use s2dit_proof::stream::{Noise, seeded_prompt};
use s2dit_runtime::stream::contract::{Chunk, Contract};
use s2dit_runtime::stream::host;
use s2dit_runtime::{HostTensor, sampler};
use serde_json::{Value, json};

/// Kernels of every policy, with sinks and without, and of both ways to write states: golden, latent, states, functions.
const KERNELS: [[&str; 4]; 4] = [
    ["stream_tiny", "8x8", "io", "shared"],
    ["stream_sink", "6x10", "io", "separate"],
    ["stream_last_step", "8x4", "native", "shared"],
    ["stream_last_sink", "6x8", "native", "separate"],
];
/// Policies of a decoder: states, functions.
const DECODERS: [[&str; 2]; 2] = [["io", "shared"], ["native", "separate"]];
/// Chunks at which host inputs are compared: while windows fill, and far along a stream.
const CHUNKS: [u64; 5] = [0, 1, 2, 5, 1000];

/// The vectors must be what the code makes, or are written.
#[track_caller]
fn is_current(name: &str, made: &Value) {
    let path = repo().join("examples/swift/Tests/S2DiTHostTests/Vectors").join(name);
    let made = format!("{made}\n");
    if std::env::var_os("S2DITC_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, made).expect("a vector");
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == made, "`{}` is not what the code makes: run this test with S2DITC_BLESS=1", path.display());
}

fn kernel([name, latent, states, functions]: [&str; 4], work: &Path) -> Contract {
    let out = arg(&work.join(name));
    let checkpoint = arg(&golden(name).join("checkpoint"));
    let flags = ["--target", "coreml", "--precision", "fp16", "--states", states, "--functions", functions];
    ok(&[&["compile", "-q", &checkpoint, "--mode", "stream", "--latent", latent, "-o", &out][..], &flags].concat());
    Contract::read(Path::new(&out)).expect("a contract")
}

fn decoder([states, functions]: [&str; 2], work: &Path) -> Value {
    let out = arg(&work.join(states));
    let checkpoint = golden("taehv_tiny").join("checkpoint");
    let (weights, config) = (arg(&checkpoint.join("taehv.pth")), arg(&checkpoint.join("config.json")));
    let flags = [
        "--target",
        "coreml",
        "--latent",
        "3x4",
        "--chunk",
        "2",
        "--states",
        states,
        "--functions",
        functions,
        "-o",
        &out,
    ];
    ok(&[&["compile", "-q", &weights, "--config", &config, "--mode", "stream"][..], &flags].concat());
    let contract = fs::read_to_string(Path::new(&out).join("contract.json")).expect("a contract");
    serde_json::from_str(&contract).expect("JSON")
}

/// A velocity that anybody can compute: half of the latent, less the noise level.
fn velocity(x: &HostTensor, timestep: f64) -> HostTensor {
    let data = x.data.iter().map(|x| (0.5 * f64::from(*x) - timestep / 1000.0) as f32).collect();
    HostTensor { shape: x.shape.clone(), data }
}

#[test]
fn vectors_of_the_swift_package_are_current() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for policy in DECODERS {
        is_current(&format!("decoder_{}.json", policy[0]), &decoder(policy, work.path()));
    }
    for policy in KERNELS {
        let contract = kernel(policy, work.path());
        let (_, writer) = contract.writer().expect("a writer");
        let inputs: Vec<Value> = CHUNKS
            .iter()
            .map(|&chunks| {
                // What only the writer takes comes behind what `denoise` takes.
                let mut made = host::inputs(&contract, &contract.functions.denoise.inputs, chunks);
                made.extend(host::inputs(&contract, &writer.inputs, chunks));
                let made: serde_json::Map<String, Value> =
                    made.into_iter().map(|(name, tensor)| (name, json!(tensor.data))).collect();
                json!({ "chunks": chunks, "inputs": made })
            })
            .collect();
        let noise = Noise::Seed(7).chunk(3, &contract).expect("noise");
        let clean =
            sampler::autoregressive(&contract.sampler, &noise, |x, t, _| Ok::<_, s2dit_runtime::Error>(velocity(x, t)));
        let contract_json: Value = serde_json::from_str(&contract.to_json().expect("JSON")).expect("JSON");
        let made = json!({
            "contract": contract_json,
            "host_inputs": inputs,
            "sample": { "seed": 7, "chunk": 3, "clean": clean.expect("a chunk").data },
        });
        is_current(&format!("{}.json", policy[0]), &made);
    }
}

#[test]
fn noise_of_the_swift_package_is_current() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut contract = kernel(KERNELS[0], work.path());
    let one_step = json!({ "kind": "flow_matching_ar", "timesteps": [1000.0], "sigmas": [1.0] });
    contract.sampler = serde_json::from_value(one_step).expect("a sampler");
    // Enough numbers to meet every branch: one in 4,000 lies beyond the boxes.
    contract.chunk = Chunk { channels: 1, frames: 1, rows: 200, cols: 500 };
    let told = |seed: u64, index: u64, data: &[f32]| {
        let sum = data.iter().fold(0u64, |sum, x| sum.wrapping_mul(31).wrapping_add(u64::from(x.to_bits())));
        json!({ "seed": seed.to_string(), "index": index.to_string(), "first": data[..16.min(data.len())].to_vec(), "count": data.len(), "hash": sum.to_string() })
    };
    let mut cases: Vec<Value> = [(0, 0), (1, 0), (1, 1), (u64::MAX, 12_345_678_901)]
        .iter()
        .map(|&(seed, index)| {
            let noise = Noise::Seed(seed).chunk(index, &contract).expect("noise");
            told(seed, index, &noise[0].data)
        })
        .collect();
    cases.push(told(5, u64::MAX, &seeded_prompt(5, [1, 8, 24]).data));
    is_current("noise.json", &json!({ "cases": cases }));
}

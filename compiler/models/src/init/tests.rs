use std::collections::BTreeMap;
use std::fs;

use s2dit_ir::WeightSource;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::preset;
use crate::layers::QkNorm;
use crate::s2dit::config::{Preset, S2ditConfig};
use s2dit_files::{SafetensorsFile, WEIGHTS_FILE};

fn options(seed: u64, dtype: FloatType) -> InitOptions {
    let model = preset("tiny").unwrap();
    InitOptions { model, seed, dtype, max_shard_size: DEFAULT_SHARD_SIZE, force: false, threads: 2 }
}

fn make(options: &InitOptions, dir: &Path) -> Result<InitSummary, Problems> {
    init(options, dir, &|_, _| {})
}

#[test]
fn a_checkpoint_opens_and_its_bytes_follow_from_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name: &str, options: &InitOptions| {
        let path = dir.path().join("deep/er").join(name);
        let summary = make(options, &path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.model().config(), options.model.config());
        assert_eq!(checkpoint.weights().parameters(), summary.parameters);
        assert_eq!(fs::metadata(path.join(WEIGHTS_FILE)).unwrap().len(), summary.bytes);
        fs::read(path.join(WEIGHTS_FILE)).unwrap()
    };
    let a = bytes("a", &options(1, FloatType::Bf16));
    assert_eq!(a, bytes("b", &options(1, FloatType::Bf16)));
    assert_ne!(a, bytes("c", &options(2, FloatType::Bf16)));
    assert_eq!(fs::read_dir(dir.path().join("deep/er")).unwrap().count(), 3, "nothing else is left");
}

#[test]
fn the_reference_reader_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    make(&options(1, FloatType::Fp16), &path).unwrap();
    let bytes = fs::read(path.join(WEIGHTS_FILE)).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = SafetensorsFile::open(&path.join(WEIGHTS_FILE)).unwrap();
    assert_eq!(theirs.len(), ours.tensors().len());
    for (name, view) in theirs.tensors() {
        assert_eq!(view.shape(), ours.get(&name).unwrap().ty.shape);
        assert_eq!(Some(view.data()), ours.data(&name));
    }
    assert_eq!(ours.metadata(), &BTreeMap::from([("format".into(), "pt".into())]));
}

#[test]
fn values_have_the_moments_of_their_role() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    make(&options(7, FloatType::Fp32), &path).unwrap();
    let file = SafetensorsFile::open(&path.join(WEIGHTS_FILE)).unwrap();
    let check = |name: &str, mean: f64, deviation: f64| {
        let values = file.tensor_f64(name).unwrap();
        let count = values.len() as f64;
        let found = values.iter().sum::<f64>() / count;
        let spread = (values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / count).sqrt();
        let slack = 5.0 * deviation / count.sqrt();
        assert!((found - mean).abs() < slack, "{name}: mean {found}");
        assert!((spread - deviation).abs() < slack, "{name}: deviation {spread}");
    };
    check("blocks.0.ffn.net.0.proj.weight", 0.0, 1.0 / 48f64.sqrt());
    check("blocks.0.ffn.net.2.weight", 0.0, 1.0 / 128f64.sqrt());
    check("blocks.0.attn1.kernel.weight", 0.0, 1.0 / 24f64.sqrt());
    check("blocks.0.attn1.local_conv.weight", 0.0, 1.0 / 27f64.sqrt());
    check("stages.0.down.weight", 0.0, 1.0 / 192f64.sqrt());
    check("blocks.0.norm2.weight", 1.0, 0.1);
    check("blocks.0.norm2.bias", 0.0, 0.02);
    check("blocks.0.scale_shift_table", 0.0, 1.0 / 48f64.sqrt());
    check("blocks.0.attn1.fusion_gate", 0.0, 1.0);
    assert_ne!(file.data("blocks.0.attn1.to_q.bias"), file.data("blocks.0.attn1.to_k.bias"));
}

#[test]
fn chunks_and_shards_change_no_value() {
    let dir = tempfile::tempdir().unwrap();
    // A tensor of several chunks.
    let config = S2ditConfig { ffn_dim: 50_000, qk_norm: QkNorm::PerHead, ..Preset::Tiny.config() };
    let whole = InitOptions { model: Arc::new(config), ..options(3, FloatType::Bf16) };
    let sharded = InitOptions { max_shard_size: 1_000_000, ..whole.clone() };
    make(&whole, &dir.path().join("w")).unwrap();
    let seen = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total);
        seen.fetch_max(done, Ordering::Relaxed);
    };
    let summary = init(&sharded, &dir.path().join("s"), &progress).unwrap();
    assert!(summary.files > 4);
    assert_eq!(seen.load(Ordering::Relaxed), summary.parameters * 2);
    let whole = Checkpoint::open(&dir.path().join("w")).unwrap();
    let sharded = Checkpoint::open(&dir.path().join("s")).unwrap();
    assert!(
        sharded.weights().doors()[0]
            .path()
            .ends_with(format!("diffusion_pytorch_model-00001-of-{:05}.safetensors", summary.files))
    );
    assert_eq!(whole.content_hash(), sharded.content_hash());
    let name = "blocks.0.ffn.net.2.weight";
    let bytes = WeightSource::bytes(&whole, name).unwrap();
    assert_ne!(bytes[..1024], bytes[2 * CHUNK..2 * CHUNK + 1024]);
}

#[test]
fn only_what_init_made_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let options = options(1, FloatType::Bf16);
    fs::create_dir(&path).unwrap();
    make(&options, &path).unwrap();
    make(&InitOptions { seed: 2, ..options.clone() }, &path).unwrap();

    // The same, without the mark: someone's own checkpoint.
    fs::write(path.join(CONFIG_FILE), options.model.config().to_string()).unwrap();
    let problems = make(&options, &path).unwrap_err();
    assert!(problems.to_string().contains("--force"), "{problems}");
    let forced = InitOptions { force: true, ..options.clone() };
    make(&forced, &path).unwrap();

    fs::write(path.join("notes.txt"), "precious").unwrap();
    let problems = make(&forced, &path).unwrap_err();
    assert!(problems.to_string().contains("x/notes.txt` in the way"), "{problems}");
    assert!(make(&forced, &path.join("notes.txt")).is_err());
    assert!(make(&forced, &path.join("notes.txt/below")).is_err());
    assert!(Checkpoint::open(&path).is_ok());
}

//! A stream makes what a whole clip makes, for any plan of chunk sizes, in float64.

use std::collections::{HashMap, HashSet};

use s2dit_ir::interp::{Bindings, evaluate};
use s2dit_ir::weights::loaded_tensor;
use s2dit_ir::{DType, Function, Module, Tensor, TensorType, WeightError, WeightSource, text, verify};

use crate::model::Model;
use crate::size::LatentSize;
use crate::{Family, SchemaWeights, config};

/// Values that look random and depend on a name.
fn noise(name: &str, count: usize, scale: f64) -> Vec<f64> {
    let seed = name.bytes().fold(7usize, |h, b| h.wrapping_mul(31).wrapping_add(b.into())) % 9973;
    (0..count).map(|i| scale * ((i * 7919 + seed * 104_729) as f64 * 0.618).sin()).collect()
}

/// Weights in fp32, as large as keeps values of about the same size.
struct Weights(HashMap<String, TensorType>);

impl Weights {
    fn of(model: &dyn Model) -> Weights {
        let ty = |shape: Vec<usize>| TensorType::new(DType::F32, shape);
        Weights(model.tensors().into_iter().map(|t| (t.name, ty(t.shape))).collect())
    }
}

impl WeightSource for Weights {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }

    fn bytes(&self, name: &str) -> Result<std::borrow::Cow<'_, [u8]>, WeightError> {
        let ty = self.0.get(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let fan: usize = ty.shape[1..].iter().product();
        let scale = if ty.rank() == 1 { 0.3 } else { (2.0 / fan.max(1) as f64).sqrt() };
        // Layers without norms make values of any size: the last one of TAEHV keeps them within the bounds.
        let scale = if name.starts_with("decoder.22.") { 0.02 * scale } else { scale };
        let offset = match name {
            _ if name.ends_with("gamma") || name.ends_with("latents_std") => 1.0,
            // Pixels of TAEHV lie between 0 and 1.
            "decoder.22.bias" => 0.5,
            _ => 0.0,
        };
        let values = noise(name, ty.elements(), scale).into_iter().map(|x| ((x + offset) as f32).to_le_bytes());
        Ok(values.flatten().collect::<Vec<u8>>().into())
    }
}

/// The video and the new states that a function makes of latent frames.
fn call(
    f: &Function,
    weights: &Weights,
    latent: Tensor,
    states: &HashMap<String, Tensor>,
) -> (Tensor, HashMap<String, Tensor>) {
    let bindings = Bindings { params: [("latent".into(), latent)].into(), states: states.clone() };
    let wanted: Vec<_> = f.results.iter().chain(&f.updates).map(|(_, v)| *v).collect();
    let mut made = evaluate(f, &wanted, weights, &bindings).expect("a value").into_iter();
    let video = made.next().expect("a video");
    let mut states = states.clone();
    states.extend(f.updates.iter().map(|(name, _)| name.clone()).zip(made));
    (video, states)
}

/// Latent frames of a latent `[1, C, F, h, w]`.
fn frames_of(latent: &Tensor, begin: usize, count: usize) -> Tensor {
    let data = latent.data.slice_axis(ndarray::Axis(2), ndarray::Slice::from(begin..begin + count)).to_owned();
    Tensor { dtype: latent.dtype, data }
}

fn zeros(module: &Module) -> HashMap<String, Tensor> {
    module.states.iter().map(|s| (s.name.clone(), Tensor::splat(&s.ty, 0.0))).collect()
}

fn tiny(family: &dyn Family, preset: &str, settings: &[&str]) -> std::sync::Arc<dyn Model> {
    config::with_overrides(&*family.preset(preset).expect("a preset"), settings).expect("a configuration")
}

/// Small decoders of each family that streams.
fn decoders() -> Vec<std::sync::Arc<dyn Model>> {
    let small = ["decoder_base_dim=2", "dim_mult=[1,2,2]", "temperal_downsample=[true,true]", "num_res_blocks=1"];
    let factors = [
        "scale_factor_spatial=null",
        "scale_factor_temporal=null",
        "z_dim=2",
        "latents_mean=[0.5,-0.25]",
        "latents_std=[1.5,2.0]",
    ];
    let wan = [&small[..], &factors].concat();
    let residual = [&wan[..], &["is_residual=true", "patch_size=2", "out_channels=12"]].concat();
    let once = [&wan[..], &["temperal_downsample=[false,true]"]].concat();
    let tiny_widths = ["widths=[4,4,3,2]", "latent_channels=2"];
    vec![
        tiny(&crate::wan_vae::WanVae, "wan-vae-tiny", &wan),
        tiny(&crate::wan_vae::WanVae, "wan-vae-tiny", &residual),
        tiny(&crate::wan_vae::WanVae, "wan-vae-tiny", &once),
        tiny(&crate::taehv::Taehv, "taehv-tiny", &tiny_widths),
        tiny(
            &crate::taehv::Taehv,
            "taehv-tiny",
            &[&tiny_widths[..], &["patch_size=2", "decoder_time_upscale=[true,false,true]"]].concat(),
        ),
    ]
}

const ROWS: usize = 1;
const COLS: usize = 2;
const FRAMES: usize = 5;

#[test]
fn a_stream_makes_what_a_clip_makes_for_every_plan() {
    let size = |frames| LatentSize { frames, rows: ROWS, cols: COLS };
    for model in decoders() {
        let weights = Weights::of(&*model);
        let clip = model.build(&weights, size(FRAMES).into()).expect("a clip");
        let channels = clip.functions[0].shape(clip.functions[0].params()[0])[1];
        let ty = TensorType::new(DType::F32, [1, channels, FRAMES, ROWS, COLS]);
        let latent = Tensor::from_values(&ty, noise("latent", ty.elements(), 1.5)).expect("a latent");
        let (whole, _) = call(&clip.functions[0], &weights, latent.clone(), &HashMap::new());
        let bounds = whole.data.iter().filter(|x| x.abs() >= 1.0).count();
        assert!(2 * bounds < whole.data.len(), "{}: {bounds} pixels at the bounds show nothing", model.config());
        let chunks: Vec<Module> =
            (1..=FRAMES).map(|n| model.build_chunks(&weights, size(n)).expect("chunks")).collect();
        // Every way to write the number of frames as a sum.
        for plan in 0..1usize << (FRAMES - 1) {
            let mut states = zeros(&chunks[0]);
            let (mut begin, mut made) = (0, 0);
            while begin < FRAMES {
                let count = 1 + (begin..FRAMES - 1).take_while(|at| plan >> at & 1 == 0).count();
                let module = &chunks[count - 1];
                let f = &module.functions[usize::from(begin > 0)];
                let (video, next) = call(f, &weights, frames_of(&latent, begin, count), &states);
                let expected = frames_of(&whole, made, video.data.shape()[2]);
                assert_eq!(video.data.shape(), expected.data.shape(), "{}: plan {plan:b}", model.config());
                // A difference that is no number is not below a bound.
                let differs = (&video.data - &expected.data).into_iter().find(|x| x.is_nan() || x.abs() >= 1e-12);
                assert_eq!(differs, None, "{}: plan {plan:b}, latent frame {begin}", model.config());
                (begin, made, states) = (begin + count, made + video.data.shape()[2], next);
            }
            assert_eq!(made, whole.data.shape()[2], "{}: plan {plan:b}", model.config());
        }
    }
}

#[test]
fn graphs_are_valid_use_every_tensor_and_their_text_reads_back() {
    let size = LatentSize { frames: 2, rows: 2, cols: 3 };
    let mut models = decoders();
    models.push(crate::ltx_vae::LtxVae.preset("ltx-vae-tiny").expect("a preset"));
    for model in models {
        let weights = SchemaWeights::new(&*model);
        let mut modules = vec![model.build(&weights, size.into()).expect("a clip")];
        modules.extend(model.build_chunks(&weights, size).ok());
        for module in modules {
            verify::verify(&module).expect("a valid module");
            let printed = text::print(&module);
            let read = text::parse(&printed).expect("text");
            assert_eq!((text::print(&read), &read.interface), (printed, &module.interface));
            for f in &module.functions {
                let used: HashSet<&str> = f.order().iter().filter_map(|&v| loaded_tensor(f, v)).collect();
                let wanted: HashSet<String> = model.tensors().into_iter().map(|t| t.name).collect();
                assert_eq!(used, wanted.iter().map(String::as_str).collect(), "{}", f.name);
            }
            let deep = |f: &Function| f.order().iter().any(|&v| !f.is_const(v) && f.ty(v).rank() > 5);
            assert!(!module.functions.iter().any(deep));
        }
    }
}

/// As PyTorch counts the parameters of the classes' decoders with the published arguments.
#[test]
fn presets_have_the_published_sizes() {
    for (name, parameters) in [
        ("wan-vae", 73_295_603),
        ("wan2.2-vae", 555_051_580),
        ("ltx-vae", 238_789_552),
        ("taew2.1", 9_844_611),
        ("taew2.2", 9_923_532),
    ] {
        let model = config::preset(name).expect("a preset");
        assert_eq!(model.tensors().iter().map(|t| t.elements()).sum::<usize>(), parameters, "{name}");
    }
}

#[test]
fn a_decoder_that_looks_ahead_does_not_stream() {
    let model = crate::ltx_vae::LtxVae.preset("ltx-vae-tiny").expect("a preset");
    let size = LatentSize { frames: 1, rows: 2, cols: 2 };
    let error = model.build_chunks(&SchemaWeights::new(&*model), size).expect_err("no stream");
    assert!(error.to_string().contains("--mode clip"), "{error}");
}

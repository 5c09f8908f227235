//! One checkpoint through every door: `examples/reference/door_fixtures.py` makes the files.

use std::path::PathBuf;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/doors").join(name)
}

fn opened(name: &str, state_dict: Option<&str>, loras: &[&str]) -> Result<Checkpoint, Problems> {
    Checkpoint::open_from(&Origin {
        path: fixture(name),
        state_dict: state_dict.map(str::to_owned),
        loras: loras.iter().map(|lora| fixture(lora).display().to_string().parse().unwrap()).collect(),
        ..Origin::default()
    })
}

/// diffusers' own conversion judges the names.
#[test]
fn a_checkpoint_is_the_same_through_every_door() {
    let expected = opened("diffusers", None, &[]).unwrap();
    assert!(expected.naming().is_plain());
    for (name, state_dict, said) in [
        ("original.safetensors", None, "read as those of diffusers"),
        ("flat.pt", None, "original names of Wan"),
        ("views.pt", None, "original names of Wan"),
        ("training.pt", Some("generator_ema"), "the prefix \"model._fsdp_wrapped_module.\" left out of"),
    ] {
        let read = opened(name, state_dict, &[]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert!(read.naming().to_string().contains(said), "{name}: {}", read.naming());
        assert_eq!(read.model().config(), expected.model().config(), "{name}");
        for tensor in expected.weights().names() {
            assert!(read.bytes(tensor).unwrap() == expected.bytes(tensor).unwrap(), "{name}: {tensor}");
        }
        assert_eq!(read.content_hash(), expected.content_hash(), "{name}");
    }
}

/// A tensor in fp32, whole.
fn values(source: &dyn WeightSource, name: &str) -> Vec<f32> {
    let ty = source.ty(name).unwrap();
    let mut out = vec![0.0; ty.elements()];
    s2dit_ir::convert::to_f32(ty.dtype, &source.bytes(name).unwrap(), &mut out);
    out
}

/// The file of LongSANA's own code has one tensor where the model has three. What its rows are is told by the golden's stream.
#[test]
fn a_tensor_of_several_layers_is_taken_apart() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/longsana_frames/checkpoint/longsana.pth");
    let plain = Checkpoint::open(&path).unwrap();
    says(&plain.naming().to_string(), &["original names of LongSANA read as those of diffusers"]);
    let [query, key, value] = ["q", "k", "v"].map(|of| format!("transformer_blocks.1.attn1.to_{of}.weight"));
    for name in [&query, &key, &value] {
        assert_eq!(plain.ty(name).unwrap().shape, [66, 66]);
        let whole = plain.bytes(name).unwrap();
        assert!(plain.weights().read(name, 66..200).unwrap()[..] == whole[66..200], "{name}");
        if let Some(region) = plain.region(name) {
            let (first, len) = (region.offset as usize, region.len as usize);
            assert!(fs::read(region.path).unwrap()[first..first + len] == whole[..], "{name}");
        }
    }
    assert!(plain.bytes(&query).unwrap() != plain.bytes(&key).unwrap());

    let dir = tempfile::tempdir().unwrap();
    let lora = dir.path().join("x.safetensors");
    let half: Vec<u8> = [0.5f32; 66 * 66].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![66, 66], &half).unwrap();
    fs::write(&lora, serialize([("transformer_blocks.1.attn1.to_k.diff", view)], None).unwrap()).unwrap();
    let origin = Origin { path, loras: vec![Lora { path: lora, scale: 1.0 }], ..Origin::default() };
    let merged = Checkpoint::open_from(&origin).unwrap();
    assert_eq!(values(&merged, &query), values(&plain, &query));
    let more: Vec<f32> = values(&plain, &key).into_iter().map(|x| x + 0.5).collect();
    assert_eq!(values(&merged, &key), more);
}

/// llama.cpp's own package judges the numbers.
#[test]
fn a_quantised_checkpoint_is_dequantised() {
    let read = opened("model.gguf", None, &[]).unwrap();
    let expected = SafetensorsFile::open(&fixture("gguf_model.safetensors")).unwrap();
    assert!(read.format().contains("Q5_1"), "{}", read.format());
    for (name, info) in expected.tensors() {
        assert_eq!(read.ty(name).unwrap().shape, info.ty.shape, "{name}");
        assert_eq!(values(&read, name), expected.tensor_f32(name).unwrap(), "{name}");
    }
}

/// PyTorch judges the sums, in float64.
#[test]
fn adapters_are_merged() {
    let plain = opened("diffusers", None, &[]).unwrap();
    for (kind, scale) in [("peft", ":0.5"), ("kohya", ""), ("diff", ":-1.5")] {
        let lora = format!("lora_{kind}.safetensors{scale}");
        let expected = SafetensorsFile::open(&fixture(&format!("merged_{kind}.safetensors"))).unwrap();
        for door in ["diffusers", "original.safetensors"] {
            let read = opened(door, None, &[&lora]).unwrap_or_else(|problems| panic!("{lora}: {problems}"));
            let merged = read.loras().next().unwrap();
            assert_eq!(merged.tensors, expected.tensors().len());
            assert_eq!(merged.file, format!("lora_{kind}.safetensors"));
            assert_ne!(read.content_hash(), plain.content_hash());
            for name in plain.weights().names() {
                let changed = expected.get(name).is_some();
                let wanted = if changed { expected.tensor_f32(name).unwrap() } else { values(&plain, name) };
                let found = values(&read, name);
                assert_eq!(found.len(), wanted.len(), "{kind}: {name}");
                let most = if changed { 1e-7 } else { 0.0 };
                let near = found.iter().zip(&wanted).all(|(x, y)| (x - y).abs() <= most);
                assert!(near, "{kind}: {name} is off by more than {most:e}, or no number");
                // Parts of rows are those of the whole.
                let bytes = read.bytes(name).unwrap();
                let range = 4..(bytes.len() / 8 * 4 + 8).min(bytes.len());
                assert_eq!(*read.weights().read(name, range.clone()).unwrap(), bytes[range], "{kind}: {name}");
                assert_eq!(read.region(name).is_none(), changed, "{kind}: {name}");
            }
        }
    }
    // Two adapters add up, and one with its opposite is nothing.
    let both = opened("diffusers", None, &["lora_kohya.safetensors", "lora_kohya.safetensors:-1"]).unwrap();
    for name in plain.weights().names() {
        let (found, wanted) = (values(&both, name), values(&plain, name));
        assert_eq!(found.len(), wanted.len(), "{name}");
        assert!(found.iter().zip(wanted).all(|(x, y)| (x - y).abs() <= 1e-7), "{name}");
    }
}

#[test]
fn adapters_that_do_not_fit() {
    let message = |lora: &str| opened("diffusers", None, &[lora]).unwrap_err().to_string();
    let unknown = message("lora_unknown.safetensors");
    assert!(unknown.contains("3 key(s) that match no tensor: `x.hada_w1_a`, `diffusion_model.blocks.7."), "{unknown}");
    assert!(message("diffusers/diffusion_pytorch_model.safetensors").contains("match no tensor"));
    assert!(message("none.safetensors").contains("none.safetensors"));
    let dir = folder();
    let path = dir.path().join("x.safetensors");
    let of = |tensors: &[(&str, &[usize])]| {
        let data: Vec<Vec<u8>> =
            tensors.iter().map(|(_, shape)| vec![0; 4 * shape.iter().product::<usize>()]).collect();
        let views = (tensors.iter().zip(&data))
            .map(|((name, shape), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
        fs::write(&path, serialize(views, None).unwrap()).unwrap();
        let origin = Origin {
            path: fixture("diffusers"),
            loras: vec![Lora { path: path.clone(), scale: 1.0 }],
            ..Origin::default()
        };
        Checkpoint::open_from(&origin).unwrap_err().to_string()
    };
    let module = "blocks.0.attn1.to_q";
    let key = |end: &str| format!("{module}.{end}");
    let alone = of(&[(&key("lora_A.weight"), &[4, 32])]);
    assert!(alone.contains("lora_A or lora_down alone"), "{alone}");
    let narrow = of(&[(&key("lora_A.weight"), &[4, 31]), (&key("lora_B.weight"), &[32, 4])]);
    assert!(narrow.contains("[32, 4] times [4, 31]") && narrow.contains("[32, RANK] times [RANK, 32]"), "{narrow}");
    let alpha = of(&[(&key("lora_A.weight"), &[4, 32]), (&key("lora_B.weight"), &[32, 4]), (&key("alpha"), &[2])]);
    assert!(alpha.contains("alpha"), "{alpha}");
    let short = of(&[(&key("diff"), &[32])]);
    assert!(short.contains("[32, 32]"), "{short}");
}

/// A LoRA file with fp32 tensors of one value each, and what is wrong with it.
fn fault_of_lora(tensors: &[(&str, &[usize], f32)], scale: f64, metadata: Option<&str>) -> String {
    let dir = folder();
    let path = dir.path().join("x.safetensors");
    let bytes = |shape: &[usize], value: f32| value.to_le_bytes().repeat(shape.iter().product());
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, shape, value)| bytes(shape, *value)).collect();
    let views = (tensors.iter().zip(&data))
        .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    let said = metadata.map(|text| [("lora_adapter_metadata".to_owned(), text.to_owned())].into());
    fs::write(&path, serialize(views, said).unwrap()).unwrap();
    let origin = Origin { path: fixture("diffusers"), loras: vec![Lora { path, scale }], ..Origin::default() };
    Checkpoint::open_from(&origin).map_or_else(|problems| problems.to_string(), |_| "all right".into())
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn a_module_under_two_names_is_refused() {
    let of = |names: &[&str]| {
        let shapes: [&[usize]; 2] = [&[4, 32], &[32, 4]];
        let tensors: Vec<_> = names.iter().zip(shapes.into_iter().cycle()).map(|(name, s)| (*name, s, 0.1)).collect();
        fault_of_lora(&tensors, 1.0, None)
    };
    let one = ["transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer.blocks.0.attn1.to_q.lora_B.weight"];
    assert_eq!(of(&one), "all right");
    for other in [
        ["diffusion_model.blocks.0.attn1.to_q.lora_A.weight", "diffusion_model.blocks.0.attn1.to_q.lora_B.weight"],
        ["lora_unet_blocks_0_attn1_to_q.lora_down.weight", "lora_unet_blocks_0_attn1_to_q.lora_up.weight"],
        ["blocks.0.self_attn.q.lora_down.weight", "blocks.0.self_attn.q.lora_up.weight"],
        ["transformer.blocks.0.attn1.to_q.lora_down.weight", "transformer.blocks.0.attn1.to_q.lora_up.weight"],
        ["transformer.blocks.0.attn1.to_q.lora_A.two.weight", "transformer.blocks.0.attn1.to_q.lora_B.two.weight"],
    ] {
        let message = of(&[one, other].concat());
        let keys = [format!("`{}`", one[0]), format!("`{}`", other[0])];
        says(&message, &["x.safetensors: found both", &keys[0], &keys[1], "each module once"]);
    }
}

const A: &str = "blocks.0.attn1.to_q.lora_A.weight";
const B: &str = "blocks.0.attn1.to_q.lora_B.weight";

/// The file and the module are named, and nothing that is no number gets into weights.
#[test]
fn adapters_that_are_not_finite() {
    let product = |a: f32, b: f32, scale: f64| fault_of_lora(&[(A, &[4, 32], a), (B, &[32, 4], b)], scale, None);
    let place = "x.safetensors: blocks.0.attn1.to_q, for blocks.0.attn1.to_q.weight: found ";
    assert_eq!(product(0.1, 0.1, 1.0), "all right");
    says(&product(f32::NAN, 0.1, 1.0), &[place, &format!("NaN at element 0 of `{A}`"), "expected finite numbers"]);
    says(&product(0.1, f32::NEG_INFINITY, 1.0), &[place, &format!("-inf at element 0 of `{B}`")]);
    says(&product(1e30, 1e30, 1.0), &[place, "a sum of 4.0", "e60 at element 0", "below 3.4e38"]);
    says(&product(0.1, 0.1, 1e300), &[place, "a sum of 4.0", "e298", "a smaller scale"]);
    says(&product(1e38, 1e38, 1e300), &[place, "a sum of inf"]);
    // The bound says nothing yet: the sums do.
    assert_eq!(product(1e30, 1e-20, 1e24), "all right");
    assert_eq!(product(1e30, 0.0, 1.0), "all right");
    let whole = |value| fault_of_lora(&[("blocks.0.attn1.to_q.diff", &[32, 32], value)], 2.0, None);
    says(&whole(f32::NAN), &[place, "NaN at element 0 of `blocks.0.attn1.to_q.diff`"]);
    says(&whole(3e38), &[place, "a sum of 6"]);
    assert_eq!(whole(1e38), "all right");
}

/// What PEFT says of a file must be true of it.
#[test]
fn adapters_whose_configuration_says_otherwise() {
    let of = |config: Value| fault_of_lora(&[(A, &[4, 32], 0.1), (B, &[32, 4], 0.1)], 1.0, Some(&config.to_string()));
    assert_eq!(of(json!({ "transformer.r": 4, "transformer.lora_alpha": 8 })), "all right");
    let rank = of(json!({ "transformer.r": 64, "transformer.lora_alpha": 8 }));
    says(&rank, &["x.safetensors: blocks.0.attn1.to_q: found factors of rank 4, expected 64", "transformer.r says"]);
    says(&of(json!({ "peft_type": "LOHA" })), &["x.safetensors: lora_adapter_metadata: peft_type: found", "LOHA"]);
    says(&of(json!({ "bias": "all" })), &["bias: found \"all\", expected \"none\""]);
}

#[test]
fn alphas_are_numbers_of_any_type() {
    let merged = |dtype: Dtype, shape: &[usize], alpha: &[u8]| {
        let dir = folder();
        let path = dir.path().join("x.safetensors");
        let ones = 1f32.to_le_bytes().repeat(4 * 32);
        let views = [
            (A, TensorView::new(Dtype::F32, vec![4, 32], &ones).unwrap()),
            (B, TensorView::new(Dtype::F32, vec![32, 4], &ones).unwrap()),
            ("blocks.0.attn1.to_q.alpha", TensorView::new(dtype, shape.to_vec(), alpha).unwrap()),
        ];
        fs::write(&path, serialize(views, None).unwrap()).unwrap();
        let origin = Origin { path: fixture("diffusers"), loras: vec![Lora { path, scale: 1.0 }], ..Origin::default() };
        let name = "blocks.0.attn1.to_q.weight";
        let plain = values(&opened("diffusers", None, &[]).unwrap(), name)[5];
        Checkpoint::open_from(&origin).map(|read| values(&read, name)[5] - plain).map_err(|error| error.to_string())
    };
    // A product of ones is the rank, and the factor is alpha over it.
    for (dtype, alpha) in [
        (Dtype::I64, 2i64.to_le_bytes().to_vec()),
        (Dtype::I32, 2i32.to_le_bytes().to_vec()),
        (Dtype::U8, vec![2]),
        (Dtype::F64, 2f64.to_le_bytes().to_vec()),
        (Dtype::F32, 2f32.to_le_bytes().to_vec()),
        (Dtype::BF16, vec![0, 0x40]),
    ] {
        let added = merged(dtype, &[], &alpha).unwrap();
        assert!((added - 2.0).abs() < 1e-6, "{dtype:?}: {added}");
    }
    assert!((merged(Dtype::I64, &[1], &(-2i64).to_le_bytes()).unwrap() + 2.0).abs() < 1e-6);
    let wrong: [(Dtype, &[usize], Vec<u8>, &str); 5] = [
        (Dtype::F32, &[3], [0; 12].to_vec(), "found f32[3], expected one finite number"),
        (Dtype::F32, &[0], Vec::new(), "found f32[0]"),
        (Dtype::BOOL, &[], vec![1], "found bool[]"),
        (Dtype::F32, &[], f32::NAN.to_le_bytes().to_vec(), "found NaN of type f32"),
        (Dtype::F32, &[], f32::INFINITY.to_le_bytes().to_vec(), "found inf of type f32"),
    ];
    for (dtype, shape, alpha, found) in wrong {
        says(&merged(dtype, shape, &alpha).unwrap_err(), &["x.safetensors: blocks.0.attn1.to_q: alpha: ", found]);
    }
}

#[test]
fn what_lacks_a_configuration_or_has_too_much() {
    let dir = folder();
    let file = dir.path().join("wan.safetensors");
    fs::copy(fixture("original.safetensors"), &file).unwrap();
    let message = |origin: Origin| Checkpoint::open_from(&origin).unwrap_err().to_string();
    let origin = Origin { path: file, ..Origin::default() };
    assert!(
        message(origin.clone()).contains("a safetensors file without a config.json beside it, expected --config FILE")
    );
    let config = Some(fixture("config.json"));
    assert!(Checkpoint::open_from(&Origin { config: config.clone(), ..origin.clone() }).is_ok());
    let named = message(Origin { config, state_dict: Some("ema".into()), ..origin });
    assert!(named.contains("a safetensors file, and --state-dict \"ema\""), "{named}");
    let folder = opened("diffusers", Some("ema"), &[]).unwrap_err().to_string();
    assert!(folder.contains("a folder, and --state-dict \"ema\""), "{folder}");
    assert!(opened("old.pt", None, &[]).unwrap_err().to_string().contains("torch.save it again"));
    let generator = opened("training.pt", Some("generator"), &[]).unwrap_err().to_string();
    assert!(generator.contains("no such tensor"), "{generator}");
}

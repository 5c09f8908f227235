use std::collections::BTreeMap;
use std::fs::{self, File};

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use s2dit_files::{FloatType, INDEX_FILE, SafetensorsFile, WEIGHTS_FILE};
use s2dit_ir::DType;

mod doors;

use super::*;
use crate::config::preset;
use crate::init::{InitOptions, init};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn tiny(dir: &Path, dtype: FloatType, max_shard_size: u64) {
    let model = preset("tiny").unwrap();
    let options = InitOptions { model, seed: 1, dtype, max_shard_size, force: false, threads: 2 };
    init(&options, dir, &|_, _| {}).unwrap();
}

#[test]
fn places_that_are_no_checkpoint() {
    let dir = folder();
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(message(&dir.path().join("none")).contains("No such file"));
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(message(&file).contains("a file without a config.json beside it"), "{}", message(&file));
    fs::write(dir.path().join("wan.safetensors"), "x").unwrap();
    let both = message(dir.path());
    assert!(both.contains("config.json: found No such file"), "{both}");
    assert!(both.contains("found only \"wan.safetensors\", expected diffusion_pytorch_model.safetensors"), "{both}");
    assert!(SafetensorsFile::open(dir.path()).unwrap_err().to_string().contains("a folder"));
}

#[test]
fn whole_and_sharded_are_the_same_checkpoint() {
    let (whole, sharded, other) = (folder(), folder(), folder());
    tiny(whole.path(), FloatType::Bf16, u64::MAX);
    tiny(sharded.path(), FloatType::Bf16, 50_000);
    tiny(other.path(), FloatType::Fp16, u64::MAX);
    let whole = Checkpoint::open(whole.path()).unwrap();
    let sharded = Checkpoint::open(sharded.path()).unwrap();
    assert_eq!(whole.weights().doors().len(), 1);
    assert!(sharded.weights().doors().len() > 3);
    assert_eq!(whole.content_hash(), sharded.content_hash());
    assert_ne!(whole.content_hash(), Checkpoint::open(other.path()).unwrap().content_hash());
    for name in whole.weights().names() {
        assert_eq!(whole.bytes(name).unwrap(), sharded.bytes(name).unwrap());
        assert_eq!(whole.ty(name), sharded.ty(name));
        sharded.done(name);
    }
    assert_eq!(whole.weights().parameters(), sharded.weights().parameters());
    assert_eq!(whole.weights().stored_bytes(), 2 * whole.weights().parameters());
    assert_eq!(whole.weights().dtypes(), BTreeMap::from([(DType::BF16, whole.weights().names().len())]));
    assert!(matches!(WeightSource::bytes(&whole, "no"), Err(WeightError::Missing { .. })));
}

/// Opens a tiny single-file checkpoint whose tensors were changed.
fn rewritten(change: impl FnOnce(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>)) -> String {
    let dir = folder();
    tiny(dir.path(), FloatType::Fp32, u64::MAX);
    let path = dir.path().join(WEIGHTS_FILE);
    let mut tensors: Vec<_> = {
        let file = SafetensorsFile::open(&path).unwrap();
        file.tensors()
            .map(|(name, info)| (name.to_owned(), Dtype::F32, info.ty.shape.clone(), file.data(name).unwrap().to_vec()))
            .collect()
    };
    change(&mut tensors);
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
    match Checkpoint::open(dir.path()) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn tensors_are_compared_with_the_configuration() {
    assert_eq!(rewritten(|_| {}), "");
    let message = rewritten(|tensors| {
        let position =
            |tensors: &[(String, _, _, _)], name: &str| tensors.iter().position(|tensor| tensor.0 == name).unwrap();
        let at = position(tensors, "blocks.1.ffn.net.2.bias");
        tensors.remove(at);
        let at = position(tensors, "blocks.0.attn1.local_conv.bias");
        tensors[at].0 = "blocks.0.attn1.local_cnv.bias".into();
        let at = position(tensors, "proj_out.weight");
        tensors[at].2 = vec![48, 16];
        let at = position(tensors, "norm_out.weight".replace("norm_out", "blocks.2.norm2").as_str());
        tensors[at].1 = Dtype::I32;
        tensors.push(("pos_embed".into(), Dtype::F32, vec![1], vec![0; 4]));
    });
    for expected in [
        "5 problems:",
        "blocks.1.ffn.net.2.bias: found no such tensor, expected [48] of bf16, f16 or f32",
        "local_cnv.bias: found an unknown tensor, expected `blocks.0.attn1.local_conv.bias`, which is missing",
        "pos_embed: found an unknown tensor, expected no such tensor for this config.json",
        "proj_out.weight: found f32[48, 16], expected [16, 48]",
        "blocks.2.norm2.weight: found i32[48], expected [48] of bf16",
    ] {
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
}

#[test]
fn a_prefix_on_every_name_is_one_problem() {
    let message = rewritten(|tensors| {
        for tensor in tensors {
            tensor.0 = format!("student.net.{}", tensor.0);
        }
    });
    assert!(message.contains("found every tensor under the prefix \"student.net.\""), "{message}");
    assert!(!message.contains("problems"), "{message}");
}

/// What frameworks put before every name is left out.
#[test]
fn prefixes_of_frameworks_are_left_out() {
    for prefix in
        ["module.", "model.", "model.diffusion_model.", "_orig_mod.", "generator_ema.model._fsdp_wrapped_module."]
    {
        let message = rewritten(|tensors| {
            for tensor in tensors {
                tensor.0 = format!("{prefix}{}", tensor.0);
            }
        });
        assert_eq!(message, "", "{prefix}");
    }
    let twice = rewritten(|tensors| {
        let again =
            tensors.iter().map(|tensor| (format!("model.{}", tensor.0), tensor.1, tensor.2.clone(), tensor.3.clone()));
        let again: Vec<_> = again.collect();
        tensors.extend(again);
    });
    assert!(twice.contains("more such pairs, expected each tensor once") && !twice.contains("problems"), "{twice}");
}

/// The causes are told, not their thousand effects.
#[test]
fn many_tensors_with_one_problem_are_one_problem() {
    let prefixed = rewritten(|tensors| {
        tensors.retain(|tensor| tensor.0 != "proj_out.bias");
        for tensor in tensors {
            tensor.0 = format!("student.{}", tensor.0);
        }
    });
    assert!(prefixed.contains("found every tensor under the prefix \"student.\""), "{prefixed}");
    assert!(prefixed.contains("proj_out.bias: found no such tensor"), "{prefixed}");
    assert!(prefixed.starts_with("2 problems:"), "{prefixed}");

    let doubles = rewritten(|tensors| {
        for tensor in tensors {
            tensor.1 = Dtype::F64;
            tensor.3.extend(tensor.3.clone());
        }
    });
    assert!(doubles.contains("found every tensor (") && doubles.contains("of dtype f64"), "{doubles}");
    assert!(!doubles.contains("problems"), "{doubles}");

    let renamed = rewritten(|tensors| {
        for tensor in tensors {
            tensor.0 = tensor.0.replace("attn1.to_q", "attn1.to_query").replace("stages.0", "stages.1");
        }
    });
    assert!(renamed.contains("blocks.0.attn1.to_query.bias: found an unknown tensor (and 3 more"), "{renamed}");
    assert!(renamed.contains("stages.0") && renamed.contains("stages.1"), "{renamed}");

    let cut = rewritten(|tensors| tensors.retain(|tensor| !tensor.0.starts_with("blocks.2.")));
    assert!(cut.contains("blocks.2: found none of its"), "{cut}");
    assert!(!cut.contains("problems"), "{cut}");

    let grown = rewritten(|tensors| {
        let more: Vec<_> = tensors.iter().filter(|tensor| tensor.0.starts_with("blocks.3.")).cloned().collect();
        tensors.extend(
            more.into_iter().map(|tensor| (tensor.0.replace("blocks.3.", "blocks.4."), tensor.1, tensor.2, tensor.3)),
        );
    });
    assert!(grown.contains("blocks.4: found") && grown.contains("4 blocks (1×lcha, 2×ssa, 1×lcha)"), "{grown}");

    let foreign = rewritten(|tensors| {
        for (n, tensor) in tensors.iter_mut().enumerate() {
            tensor.0 = format!("wholly.different.{n}");
        }
    });
    assert!(foreign.contains("more missing tensors") && foreign.contains("more unknown tensors"), "{foreign}");
    assert!(foreign.lines().count() < 40, "{foreign}");
}

/// Opens a tiny sharded checkpoint after changing its index and its files.
fn resharded(change: impl FnOnce(&Path, &mut Value)) -> String {
    let dir = folder();
    tiny(dir.path(), FloatType::Bf16, 100_000);
    let path = dir.path().join(INDEX_FILE);
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(dir.path(), &mut index);
    fs::write(&path, index.to_string()).unwrap();
    match Checkpoint::open(dir.path()) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn an_index_is_not_trusted() {
    let first = |index: &Value| index["weight_map"]["blocks.0.norm2.bias"].as_str().unwrap().to_owned();
    assert_eq!(resharded(|_, _| {}), "");
    let check = |message: String, expected: &str| {
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    };
    let removed = resharded(|dir, index| fs::remove_file(dir.join(first(index))).unwrap());
    check(removed, "found no such file, expected a shard with");
    for outside in ["../x.safetensors", "/etc/passwd", "a/b", "..", "", "C:x", "a\\b"] {
        let message = resharded(|_, index| index["weight_map"]["proj_out.bias"] = json!(outside));
        check(message, "expected a plain file name in the checkpoint folder");
    }
    let moved = resharded(|_, index| index["weight_map"]["proj_out.bias"] = json!(first(index)));
    check(moved.clone(), "proj_out.bias: found no such tensor, expected it here");
    check(moved, "proj_out.bias: found the tensor, expected it in");
    let unnamed = resharded(|_, index| {
        index["weight_map"].as_object_mut().unwrap().remove("proj_out.bias");
    });
    check(unnamed, "proj_out.bias: found a tensor that the index does not name");
    let phantom = resharded(|_, index| index["weight_map"]["ghost"] = json!(first(index)));
    check(phantom, "ghost: found no such tensor, expected it here");
    check(resharded(|_, index| *index = json!([])), "bad JSON");
    check(resharded(|_, index| *index = json!({})), "missing field `weight_map`");
    check(resharded(|_, index| *index = json!({ "weight_map": {} })), "an empty `weight_map`");
    check(resharded(|_, index| index["weight_map"]["x"] = json!(1)), "x: found 1, expected the file name");
    let both = resharded(|dir, _| fs::write(dir.join(WEIGHTS_FILE), "x").unwrap());
    check(both, "found both");
    let cut = resharded(|dir, index| {
        let shard = File::options().write(true).open(dir.join(first(index))).unwrap();
        shard.set_len(5000).unwrap();
    });
    check(cut, "is the file truncated");
}

/// A damaged header hides neither what else is wrong with the tensors nor the configuration's problems.
#[test]
fn a_damaged_header_hides_nothing() {
    let dir = folder();
    tiny(dir.path(), FloatType::Bf16, u64::MAX);
    let path = dir.path().join(WEIGHTS_FILE);
    let text = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(text[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&text[8..8 + length]).unwrap();
    header["proj_out.bias"]["dtype"] = json!("F8_E4M3");
    let entries = header.as_object_mut().unwrap();
    let moved = entries.remove("blocks.0.attn1.to_q.weight").unwrap();
    entries.insert("pos_embed".into(), moved);
    let header = header.to_string();
    fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &text[8 + length..]].concat()).unwrap();
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    for expected in [
        "3 problems:",
        "found 1 tensor(s) of fp8, such as `proj_out.bias`",
        "blocks.0.attn1.to_q.weight: found no such tensor",
        "pos_embed: found an unknown tensor",
    ] {
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
}

#[test]
fn an_index_that_names_a_tensor_twice() {
    let dir = folder();
    tiny(dir.path(), FloatType::Bf16, 100_000);
    let path = dir.path().join(INDEX_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let twice = text.replacen("\"weight_map\": {", "\"weight_map\": {\"a\": \"x\", \"a\": \"y\",", 1);
    fs::write(&path, twice).unwrap();
    assert!(Checkpoint::open(dir.path()).unwrap_err().to_string().contains("a: found the tensor twice"));
}

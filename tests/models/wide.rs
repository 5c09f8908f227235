//! Products with more channels than the Neural Engine has are made in runs, and mean the same.

use crate::common::{arg, ok};
use serde_json::Value;

/// 17 blocks of 1024 channels take the prompt's 34 keys and values in three products: keys, keys and values, values.
#[test]
fn keys_of_many_blocks_are_made_in_runs() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (checkpoint, package) = (arg(&work.path().join("checkpoint")), arg(&work.path().join("x.mlpackage")));
    let layout = format!("layout={}", serde_json::json!(vec!["full"; 17]));
    let fields = ["num_attention_heads=16", "attention_head_dim=64", "ffn_dim=64", "text_dim=32", &layout];
    let sets: Vec<&str> = fields.iter().flat_map(|field| ["--set", field]).collect();
    ok(&[&["init", "-q", "--preset", "tiny", "--seed", "3", "-o", &checkpoint][..], &sets].concat());
    let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--precision", "fp32", "--latent", "1x4x4"];
    ok(&[&base[..], &["-o", &package]].concat());
    ok(&["verify", "-q", &package, "--checkpoint", &checkpoint]);
    let lint: Value = serde_json::from_str(&ok(&["lint", "--json", &package])).expect("JSON");
    let extent = lint["packages"][0]["summary"]["functions"][0]["extent"]["value"].as_u64();
    assert_eq!(extent, Some(16_384), "as many as there are");
}

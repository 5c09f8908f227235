use serde_json::{Value, json};

use super::*;
use crate::config::{self, with_overrides};
use crate::model::Model;
use crate::size::{Grid, LatentSize};
use s2dit_files::problems::Problems;

fn changed(field: &str, value: Value) -> Result<S2ditConfig, Problems> {
    let mut fields = Preset::Tiny.config().to_json_value();
    fields[field] = value;
    S2ditConfig::parse(&fields.to_string(), "config.json")
}

fn only_problem(field: &str, value: Value) -> String {
    let problems = changed(field, value).expect_err("a problem");
    assert_eq!(problems.0.len(), 1, "{problems}");
    problems.to_string()
}

#[test]
fn presets_survive_their_text() {
    for preset in Preset::ALL {
        let config = preset.config();
        let text = config.to_json();
        assert_eq!(S2ditConfig::parse(&text, "x").unwrap(), config);
        assert_eq!(S2ditConfig::parse(&text, "x").unwrap().to_json(), text);
        assert_eq!(config::preset(preset.name()).unwrap().config(), config.to_json_value());
    }
    assert!(config::preset("big").unwrap_err().to_string().contains("wan2.1-14b"));
}

#[test]
fn the_large_preset_is_the_specification() {
    let config = Preset::B1_8.config();
    assert_eq!(config.hidden_size(), 2048);
    let count = |kind: BlockKind| config.layout.iter().filter(|k| **k == kind).count();
    assert_eq!((count(BlockKind::Lcha), count(BlockKind::Ssa)), (10, 14));
    assert_eq!(config.stages(), [2..6, 9..14, 17..22]);
    assert_eq!(config.outline().sandwich(), "2×lcha, 4×ssa, 3×lcha, 5×ssa, 3×lcha, 5×ssa, 2×lcha");
    assert_eq!((config.window_frames, config.sink_frames, config.state_write), (6, 0, StateWrite::Commit));
    let grid = config.grid("3x36x64".parse().unwrap()).unwrap();
    assert_eq!((grid.rows, grid.cols, grid.tokens()), (18, 32, 3 * 576));
    assert_eq!(grid.strided(config.outline().layers[1].stride).tokens(), 3 * 144);
    assert_eq!(config.dims().rope_split(), [44, 42, 42]);
    let phone = Preset::Mobile.config();
    assert_eq!((phone.text_dim, phone.text_len, phone.state_write), (768, 77, StateWrite::LastStep));
    assert_eq!(S2ditConfig { text_dim: 4096, text_len: 512, state_write: StateWrite::Commit, ..phone }, config);
}

#[test]
fn defaults_stand_in_for_optional_fields_only() {
    let required = json!({
        "_class_name": "S2DiTTransformer3DModel", "_diffusers_version": "0.36.0", "in_channels": 4, "out_channels": 4,
        "patch_size": [1, 2, 2], "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 8,
        "text_dim": 8, "text_len": 8, "layout": ["full"],
    });
    let config = S2ditConfig::parse(&required.to_string(), "x").unwrap();
    assert_eq!(config.eps, 1e-6);
    assert_eq!(config.chunk_frames, Some(3));
    assert_eq!((config.window_frames, config.sink_frames, config.state_write), (6, 0, StateWrite::Commit));
    let problems = S2ditConfig::parse("{}", "x").unwrap_err();
    assert_eq!(problems.0.len(), 9, "{problems}");
    assert!(problems.to_string().contains("x: layout: found no such field"));
}

#[test]
fn kinds_to_compare_with_have_the_tensors_of_what_they_are() {
    let base = Preset::Tiny.config();
    let names = |config: &S2ditConfig| -> Vec<String> {
        let all = config.tensors().into_iter().map(|t| t.name);
        all.filter_map(|name| Some(name.strip_prefix("blocks.0.attn1.")?.to_owned())).collect()
    };
    let has = |config: &S2ditConfig, name: &str| names(config).iter().any(|n| n == name);
    let of = |kind| S2ditConfig { layout: vec![kind], ..base.clone() };
    let (linear, local, kv) = (of(BlockKind::Linear), of(BlockKind::Local), of(BlockKind::KvCompressed));
    assert!(has(&linear, "kernel.weight") && !has(&linear, "local_mix.weight") && !has(&linear, "fusion_gate"));
    assert_eq!(names(&local), ["local_conv.weight", "local_conv.bias", "local_mix.weight", "local_mix.bias"]);
    assert!(has(&kv, "kv_conv.weight") && !has(&kv, "kernel.weight"));
    let lcha = of(BlockKind::Lcha);
    assert!(!has(&S2ditConfig { feature_map: FeatureMap::Relu, ..lcha.clone() }, "kernel.bias"));
    assert!(!has(&S2ditConfig { fusion: Fusion::Sum, ..lcha.clone() }, "fusion_gate"));
    let narrow = S2ditConfig { linear_head_dim: Some(16), ..lcha };
    let kernel = narrow.tensors().into_iter().find(|t| t.name.ends_with("kernel.weight")).unwrap();
    assert_eq!(kernel.shape, [3, 16, 16]);
    let latent = |text: &str| text.parse::<LatentSize>().unwrap();
    assert!(kv.grid(latent("3x8x8").into()).is_ok() && base.grid(latent("3x6x8").into()).is_ok());
    assert!(kv.grid(latent("3x6x8").into()).unwrap_err().to_string().contains("kv_stride 2"));
    assert_eq!(kv.usual_size(latent("3x6x8")).latent().unwrap().rows % 4, 0);
    assert!(only_problem("linear_head_dim", json!(10)).contains("divides the hidden size 48"));
    assert!(only_problem("linear_head_dim", json!(7)).contains("an even width"));
    assert!(only_problem("layout", json!(["dense"])).contains("\"kv_compressed\""));
}

#[test]
fn bad_values_name_the_field_and_what_was_expected() {
    assert_eq!(
        only_problem("rope_in_kernel", json!("mid")),
        "config.json: rope_in_kernel: found \"mid\", expected \"pre\" or \"post\""
    );
    assert_eq!(
        only_problem("state_write", json!("first_step")),
        "config.json: state_write: found \"first_step\", expected \"commit\" or \"last_step\""
    );
    assert!(only_problem("sink_frames", json!(-1)).contains("sink_frames: found -1, expected an integer from 0"));
    assert!(only_problem("ffn_dim", json!("128")).contains("found \"128\", expected an integer"));
    assert!(only_problem("ffn_dim", json!(0)).contains("found 0"));
    assert!(only_problem("ffn_dim", json!(-4)).contains("found -4"));
    assert!(only_problem("ffn_dim", json!(1e30)).contains("an integer"));
    assert!(only_problem("attention_head_dim", json!(7)).contains("even"));
    assert!(only_problem("attention_head_dim", json!(4)).contains("from 6"));
    assert!(only_problem("conv_kernel", json!([3, 4, 3])).contains("conv_kernel[1]: found 4"));
    assert!(only_problem("conv_kernel", json!([3, 3])).contains("3 integers"));
    assert!(only_problem("patch_size", json!([2, 2, 2])).contains("patch_size[0]: found 2"));
    assert!(only_problem("layout", json!([])).contains("found []"));
    assert!(only_problem("layout", json!(["lcha", "sss"])).contains("layout[1]: found \"sss\""));
    assert!(only_problem("chunk_frames", json!(0)).contains("null or an integer"));
    assert!(only_problem("sample_steps", json!([250, 500])).contains("descends"));
    assert!(only_problem("sample_steps", json!([1001])).contains("descends"));
    assert!(only_problem("sample_steps", json!([])).contains("descends"));
    assert!(only_problem("sample_steps", json!([0])).contains("from above 0"));
    for shift in [1e-300, 1e300] {
        assert!(only_problem("flow_shift", json!(shift)).contains("noise levels"));
    }
    assert!(only_problem("eps", json!(0)).contains("above 0"));
    assert!(only_problem("eps", json!(1e5)).contains("at most 1"));
    assert!(only_problem("freq_dim", json!(33)).contains("even"));
    assert!(only_problem("num_attention_heads", json!(1 << 20)).contains("at most"));
    assert!(only_problem("widnow_frames", json!(1)).contains("did you mean `window_frames`?"));
    assert!(only_problem("nonsense", json!(1)).contains("an unknown field"));
}

#[test]
fn good_values_are_kept() {
    assert_eq!(changed("chunk_frames", Value::Null).unwrap().chunk_frames, None);
    assert_eq!(changed("sample_steps", json!(50)).unwrap().sample_steps, SampleSteps::Count(50));
    assert_eq!(changed("state_write", json!("last_step")).unwrap().state_write, StateWrite::LastStep);
    assert_eq!(changed("sink_frames", json!(4)).unwrap().sink_frames, 4);
    assert_eq!(changed("rope_theta", json!(500)).unwrap().rope_theta, 500.0);
    assert_eq!(changed("sample_steps", json!([999.5, 0])).unwrap().to_json_value()["sample_steps"], json!([999.5, 0]));
}

#[test]
fn all_problems_come_together() {
    let mut fields = Preset::Tiny.config().to_json_value();
    fields["qk_norm"] = json!("layer");
    fields["eps"] = json!(null);
    fields["layout"] = json!(["a", "b", "ssa"]);
    let problems = S2ditConfig::parse(&fields.to_string(), "c").unwrap_err();
    assert_eq!(problems.0.len(), 4, "{problems}");
}

#[test]
fn text_that_is_no_configuration() {
    for text in ["", "[]", "{", "{\"a\": NaN}", "null", &"[".repeat(100_000)] {
        assert_eq!(S2ditConfig::parse(text, "c").unwrap_err().0.len(), 1);
    }
    let text = Preset::Tiny.config().to_json().replacen('{', "{\"eps\": 1, ", 1);
    let problems = S2ditConfig::parse(&text, "c").unwrap_err();
    assert_eq!(problems.to_string(), "c: eps: found the field twice, expected it once");
}

#[test]
fn grids_need_sides_that_the_patch_divides() {
    let config = Preset::Tiny.config();
    let problems = |f, h, w| config.grid(LatentSize { frames: f, rows: h, cols: w }.into()).unwrap_err().to_string();
    assert_eq!(problems(1, 5, 8), "latent rows: found 5, expected a multiple of 2 (the patch size), such as 4 or 6");
    assert!(problems(0, 4, 0).starts_with("2 problems"));
    assert!(problems(1, 1, 4).contains("such as 2"));
    assert!(problems(usize::MAX, usize::MAX, usize::MAX).starts_with("3 problems"));
    let flat = S2ditConfig { layout: vec![BlockKind::Full], ..config.clone() };
    assert_eq!(flat.grid("1x6x2".parse().unwrap()).unwrap(), Grid { frames: 1, rows: 3, cols: 1 });
    // The paper trains at 256×144: a grid of 9×16, whose rows are padded to 10.
    let grid = config.grid("3x18x32".parse().unwrap()).unwrap();
    assert_eq!((grid, grid.strided(2)), (Grid { frames: 3, rows: 9, cols: 16 }, Grid { frames: 3, rows: 5, cols: 8 }));
    assert_eq!(config.usual_size("3x17x31".parse().unwrap()), "3x18x32".parse().unwrap());
    for text in ["", "3", "1x2", "1x2x3x4", "ax1x1", "-1x2x2", "99999999999999999999x1x1"] {
        assert!(text.parse::<LatentSize>().is_err(), "{text}");
    }
}

#[test]
fn settings_replace_fields() {
    let base = Preset::Tiny.config();
    let config = with_overrides(
        &base,
        &["qk_norm=rms_norm_per_head", "conv_kernel=[3,5,3]", "chunk_frames=null", "rope_in_kernel=\"post\""],
    )
    .unwrap();
    let fields = config.config();
    assert_eq!((&fields["qk_norm"], &fields["rope_in_kernel"]), (&json!("rms_norm_per_head"), &json!("post")));
    assert_eq!((&fields["conv_kernel"], &fields["chunk_frames"]), (&json!([3, 5, 3]), &Value::Null));

    let problems = with_overrides(&base, &["eps", "layuot=[]", "eps=[1", "ffn_dim=0", "_x=1"]).unwrap_err();
    assert_eq!(problems.0.len(), 5, "{problems}");
    assert!(problems.to_string().contains("--set: ffn_dim: found 0"));
    assert!(
        problems
            .to_string()
            .contains("--set layuot: found an unknown field, expected a known field (did you mean `layout`?)")
    );
}

/// What no machine holds is refused by size, before anything is allocated.
#[test]
fn values_that_no_memory_holds_are_refused() {
    let grid = |config: &S2ditConfig, latent: &str| config.grid(latent.parse().unwrap());
    let tiny = Preset::Tiny.config();
    let latent = "16384x16x16";
    assert!(grid(&tiny, latent).is_ok());
    let wide = S2ditConfig { in_channels: 1 << 20, ..tiny.clone() };
    let problems = grid(&wide, latent).unwrap_err().to_string();
    assert!(problems.contains("the latent (in_channels") && problems.contains("17592.2 GB"), "{problems}");
    let text = S2ditConfig { text_len: 1 << 20, text_dim: 1 << 20, ..tiny.clone() };
    let problems = grid(&text, "1x8x8").unwrap_err().to_string();
    assert!(problems.contains("the text (text_len × text_dim)"), "{problems}");
    // At the limit, and one more.
    let at = |text_len| S2ditConfig { text_len, text_dim: 1 << 11, ..tiny.clone() };
    assert!(grid(&at(1 << 20), "1x8x8").is_ok());
    assert!(grid(&at((1 << 20) + 1), "1x8x8").is_err());
}

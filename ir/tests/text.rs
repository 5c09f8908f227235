//! The text form: printer and parser are inverse of each other, on random graphs and on odd names; errors name their line.

#[path = "../../tests/common/property.rs"]
mod property;

use proptest::prelude::*;
use s2dit_ir::ops::{
    Binary, BroadcastTo, Cast, Concat, FeatureMap, FusionGate, LayerNorm, LinearAttention, LinearAttentionStep, Matmul,
    Modulate, Pad, Reduce, ReduceKind, Reshape, RmsNorm, Rope, RopePairs, RunningMean, Sdpa, Softmax, Transpose, Unary,
};
use s2dit_ir::text::{parse, print};
use s2dit_ir::verify::verify;
use s2dit_ir::{Builder, DType, Function, Module, Op, StateDecl, TensorType};

/// A random op that fits a rank-3 f32 operand, or is refused by its own constraints.
fn any_op() -> impl Strategy<Value = Op> {
    let unary = (0..Unary::ALL.len()).prop_map(|i| Op::Unary(Unary::ALL[i]));
    let binary = (0..Binary::ALL.len()).prop_map(|i| Op::Binary(Binary::ALL[i]));
    let perm = Just(vec![0usize, 1, 2]).prop_shuffle().prop_map(|perm| Transpose { perm }.into());
    let reduce = (0usize..3, 0usize..4, any::<bool>()).prop_map(|(axis, kind, keep_dims)| {
        let kind = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::Min][kind];
        Reduce { kind, axes: vec![axis], keep_dims }.into()
    });
    let pad = (prop::collection::vec(0usize..3, 3), prop::collection::vec(0usize..3, 3), -1e6..1e6f64)
        .prop_map(|(before, after, value)| Pad { before, after, value }.into());
    let composite = prop_oneof![
        (0usize..3, 1e-12..1.0f64).prop_map(|(axis, eps)| RmsNorm { axis, eps }.into()),
        (0usize..3, prop_oneof![Just(RopePairs::Interleaved), Just(RopePairs::Halves)])
            .prop_map(|(axis, pairs)| Rope { axis, pairs }.into()),
        (-1e3..1e3f64).prop_map(|scale| Sdpa { scale }.into()),
        (0.0..1.0f64, prop_oneof![Just(0.0), 1e-9..1.0f64])
            .prop_map(|(eps, least)| LinearAttention { eps, least }.into()),
        Just(LinearAttentionStep {}.into()),
        Just(RunningMean {}.into()),
        Just(FeatureMap {}.into()),
        Just(Modulate {}.into()),
        Just(FusionGate {}.into()),
    ];
    prop_oneof![
        composite,
        unary,
        binary,
        perm,
        reduce,
        pad,
        (0usize..3).prop_map(|axis| Softmax { axis }.into()),
        (0usize..3).prop_map(|axis| Concat { axis }.into()),
        (1e-12..1.0f64).prop_map(|eps| LayerNorm { axes: vec![2], eps }.into()),
        (any::<bool>(), any::<bool>()).prop_map(|(x, y)| Matmul { transpose_x: x, transpose_y: y }.into()),
        Just(Reshape { shape: vec![4, 3, 2] }.into()),
        Just(BroadcastTo { shape: vec![2, 3, 4] }.into()),
        prop_oneof![Just(DType::F16), Just(DType::F32)].prop_map(|dtype| Cast { dtype }.into()),
    ]
}

proptest! {
    #![proptest_config(property::config(256, "ir/tests/text.proptest-regressions"))]
    #[test]
    fn random_graphs_survive_their_text(ops in prop::collection::vec((any_op(), any::<[prop::sample::Index; 5]>(), any::<bool>()), 1..40)) {
        let mut f = Function::new("main");
        let shapes: [&[usize]; 5] = [&[2, 3, 4], &[2, 3, 2], &[2, 4, 4], &[2, 1, 4], &[1]];
        let mut values = Vec::new();
        for (i, shape) in shapes.into_iter().enumerate() {
            values.push(f.add_param(&format!("x{i}"), TensorType::new(DType::F32, shape)));
        }
        let literal = Builder::new(&mut f).literal(&TensorType::new(DType::F32, [4]), vec![0.1, -2.0, 3e-7, 4.0]).unwrap();
        values.push(literal);
        for (i, (op, picks, named)) in ops.into_iter().enumerate() {
            let operands: Vec<_> = picks.iter().map(|p| *p.get(&values)).collect();
            for n in 1..=5 {
                if let Ok(v) = f.add(op.clone(), &operands[..n], "a.b") {
                    if named {
                        f.set_name(v, &format!("named {i}\"\\ {n}"));
                    }
                    values.push(v);
                }
            }
        }
        f.results.push(("y".into(), *values.last().unwrap()));
        let module = Module::single(f);
        verify(&module).unwrap();
        let text = print(&module);
        let parsed = parse(&text).unwrap();
        verify(&parsed).unwrap();
        prop_assert_eq!(print(&parsed), text);
    }

    #[test]
    fn the_parser_answers_any_text(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn the_parser_answers_damaged_ir(at in 0usize..400, cut in 1usize..30) {
        let mut text = EXAMPLE.to_string();
        let at = at.min(text.len() - 1);
        text.replace_range(at..(at + cut).min(text.len()), "");
        if let Ok(module) = parse(&text) {
            let _ = verify(&module);
        }
    }
}

const EXAMPLE: &str = r#"module {
  input "x" : latent
  input "odd name" : tokens {vocabulary = 7}
  output "y" : velocity
  milestone "y" @ "head"
  state "k" : f16[1, 8]
  func @main(%x: f32[1, 8], %"odd name": f16[1, 8]) {
    %0 = load {tensor = "w"} : f32[4, 8]
    %1 = linear(%x, %0) : f32[1, 4] @ "proj"
    %y = softmax(%1) {axis = 1} : f32[1, 4] @ "head"
    update "k" = %"odd name"
    return y = %y
  }
}
"#;

#[test]
fn the_documented_example_reads_back() {
    let module = parse(EXAMPLE).unwrap();
    verify(&module).unwrap();
    assert_eq!(module.states, [StateDecl { name: "k".into(), ty: TensorType::new(DType::F16, [1, 8]) }]);
    let text = print(&module);
    assert_eq!(print(&parse(&text).unwrap()), text);
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    for (from, to, line, part) in [
        ("softmax(%1)", "softmax(%2)", 10, "defined above"),
        ("softmax", "sofmax", 10, "unknown op `sofmax`"),
        ("{axis = 1}", "{axes = 1}", 10, "axes"),
        ("f32[4, 8]\n    %1", "f32[4, 8\n    %1", 8, "type"),
        ("%y = softmax", "%1 = softmax", 10, "defined twice"),
        ("return", "retrun", 12, "`return`"),
        (": latent", ": latents", 2, "expected a role"),
        ("vocabulary = 7", "words = 7", 3, "expected a role"),
        (": velocity", ": latent", 4, "expected a role"),
    ] {
        let text = EXAMPLE.replacen(from, to, 1);
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains(part), "{from} → {to}: {error}");
        assert!(error.line.abs_diff(line) <= 1, "{from} → {to}: {error}");
    }
}

#[test]
fn the_verifier_shows_every_violation_in_its_place() {
    let text = EXAMPLE
        .replace("f32[1, 4] @ \"proj\"", "f32[1, 5] @ \"proj\"")
        .replace("update \"k\" = %\"odd name\"", "update \"k\" = %x\n    update \"v\" = %x");
    let error = verify(&parse(&text).unwrap()).unwrap_err();
    let messages: Vec<&str> = error.violations.iter().map(|v| v.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "V2: `linear` has type f32[1, 4], declared f32[1, 5]",
            "V2: `softmax` has type f32[1, 5], declared f32[1, 4]",
            "V5: state `k` is f16[1, 8], updated with f32[1, 8]",
            "V5: state `v` is not declared",
        ]
    );
    let at = error.text.find("linear").unwrap();
    assert!(error.text[at..].lines().nth(1).unwrap().contains("# error: V2: `linear`"), "{}", error.text);
}

#[test]
fn an_interface_names_what_is_there_once() {
    let violations = |from: &str, to: &str| {
        let error = verify(&parse(&EXAMPLE.replacen(from, to, 1)).unwrap()).unwrap_err();
        error.violations.into_iter().map(|v| v.message).collect::<Vec<_>>()
    };
    for (from, to, message) in [
        ("input \"x\"", "input \"z\"", "V7: no function has the input `z` of the interface"),
        ("output \"y\"", "output \"x\"", "V7: no function returns `x`, a result of the interface"),
        ("milestone \"y\"", "milestone \"h\"", "V7: no value is named `h`, as a milestone of the interface is"),
        ("input \"odd name\"", "input \"x\"", "V7: the interface names `x` twice"),
    ] {
        assert_eq!(violations(from, to), [message]);
    }
}

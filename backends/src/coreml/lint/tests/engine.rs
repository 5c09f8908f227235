//! Verdicts, overrides, figures.

use super::super::report::OpVerdict;
use super::super::subject::Subject;
use super::super::{Confidence, Severity};
use super::{linted, rules, violators};

const MIXED: &str = "
input x fp16[1,64]
const m string[] = EXACT
const w_weight fp32[] = 1
blocks_1_attn1_relu_0 = relu(x=x) fp16[1,64]
blocks_1_attn1_silu_0 = silu(x=blocks_1_attn1_relu_0) fp16[1,64]
var_3 = erf(x=blocks_1_attn1_silu_0) fp16[1,64]
blocks_1_ffn_div_0 = real_div(x=var_3, y=x) fp16[1,64]
var_5 = cumsum(x=blocks_1_ffn_div_0) fp16[1,64]
y = mul(x=var_5, y=w_weight) fp16[1,64]
return y
";

#[test]
fn an_op_has_the_worst_verdict_of_its_findings() {
    let report = linted(MIXED, "");
    let verdicts: Vec<_> = report.ops.iter().map(|o| (o.name.as_str(), o.verdict)).collect();
    assert_eq!(
        verdicts,
        [
            ("blocks_1_attn1_relu_0", OpVerdict::Stays),
            ("blocks_1_attn1_silu_0", OpVerdict::Stays),
            ("var_3", OpVerdict::Stays),
            ("blocks_1_ffn_div_0", OpVerdict::Stays),
            ("var_5", OpVerdict::MayLeave),
            ("y", OpVerdict::Leaves),
        ]
    );
    assert_eq!(report.ops[1].rules, ["op-silu"]);
    let v = report.summary.verdicts;
    assert_eq!((v.stays, v.may_leave, v.leaves, v.total()), (4, 1, 1, 6));
    assert_eq!(report.summary.verdict, OpVerdict::Leaves);
}

#[test]
fn what_looks_up_by_the_callers_integers_is_ahead_of_the_engine() {
    let source = "input ids int32[64]\ninput x fp16[64]\nless = sub(x=ids, y=ids) int32[64]\nrow = cast(x=less) fp16[64]\n\
                  sum = add(x=row, y=x) fp16[64]\nback = cast(x=sum) int32[64]\nend = add(x=back, y=ids) int32[64]\n\
                  alone = add(x=ids, y=ids) int32[64]\nreturn end, alone";
    let report = linted(source, "");
    let verdicts: Vec<_> = report.ops.iter().map(|o| o.verdict).collect();
    let (ahead, stays, leaves) = (OpVerdict::Ahead, OpVerdict::Stays, OpVerdict::Leaves);
    assert_eq!(verdicts, [ahead, ahead, stays, leaves, leaves, leaves], "{:#?}", report.findings);
    let v = report.summary.verdicts;
    assert_eq!((v.ahead, v.leaves, v.total(), report.summary.verdict), (2, 3, 6, leaves));
}

#[test]
fn names_tell_where_an_op_came_from() {
    let report = linted(MIXED, "");
    let from: Vec<_> = report.ops.iter().map(|o| o.provenance.as_deref()).collect();
    let (attention, ffn) = (Some("blocks_1_attn1"), Some("blocks_1_ffn"));
    assert_eq!(from, [attention, attention, None, ffn, None, Some("w")]);
    let function = &report.summary.functions[0];
    let blocks: Vec<_> = function.blocks.iter().map(|(block, n)| (*block, *n)).collect();
    assert_eq!(blocks, [(1, 4)], "what lies between ops of a block is of the block");
    assert_eq!(function.outside_blocks, 2);
}

#[test]
fn figures_of_a_function() {
    let source = "input x fp16[1,2,3,64]\ny = reshape(x=x) fp16[6,64]\nz = reduce_sum(x=y) fp32[1,384]\nreturn z";
    let summary = linted(source, "").summary;
    let f = &summary.functions[0];
    assert_eq!((f.rank.value, f.rank.name.as_str(), f.extent.value, f.extent.name.as_str()), (4, "x", 384, "z"));
    assert_eq!(summary.dtypes.into_iter().collect::<Vec<_>>(), [("fp16".into(), 1), ("fp32".into(), 1)]);
    assert_eq!(summary.weight_limit, Some(1_000_000_000));
}

#[test]
fn findings_off_ops_count_for_the_package() {
    let source = "function main\nstate s fp16[1,32]\ny = read_state(input=s) fp16[1,32]\nreturn y\n\
                  function other\nstate s fp16[1,32]\ny = read_state(input=s) fp16[1,32]\nreturn y";
    let report = linted(source, "");
    assert_eq!(violators(&report, "state-multifunction"), ["main", "other"]);
    assert!(report.findings.iter().all(|f| f.subject == Subject::Function));
    assert_eq!((report.summary.verdicts.stays, report.summary.verdict), (2, OpVerdict::MayLeave));
}

#[test]
fn what_is_wrong_with_a_state_is_wrong_with_the_ops_on_it() {
    let source = "state s fp16[1,40]\nstate t fp16[1,32]\na = read_state(input=s) fp16[1,40]\nb = read_state(input=t) fp16[1,32]\n\
                  c = relu(x=b) fp16[1,32]\nwrite_state(input=s, data=a)\nreturn c";
    let report = linted(source, "");
    let verdicts: Vec<_> = report.ops.iter().map(|o| o.verdict).collect();
    assert_eq!(verdicts, [OpVerdict::Leaves, OpVerdict::Stays, OpVerdict::Stays, OpVerdict::Leaves]);
    assert_eq!(report.ops[3].rules, ["state-last-axis"]);
}

#[test]
fn overrides_promote_retire_and_reparameterise() {
    let retired = linted(MIXED, r#"{"rules": [{"id": "fp32-constant", "retired": true, "because": "iPhone17,1"}]}"#);
    assert_eq!(retired.summary.verdict, OpVerdict::MayLeave);
    let promoted = linted(MIXED, r#"{"rules": [{"id": "op-silu", "severity": "leaves", "confidence": "high"}]}"#);
    assert_eq!(promoted.summary.verdicts.leaves, 2);
    let other = linted(MIXED, r#"{"rules": [{"id": "op-silu", "params": {"ops": ["relu"]}}]}"#);
    assert_eq!(violators(&other, "op-silu"), ["blocks_1_attn1_relu_0"]);
}

#[test]
fn overrides_that_say_nothing_known_are_refused() {
    for (text, says) in [
        (r#"{"rules": [{"id": "op-nope", "retired": true}]}"#, "no rule `op-nope`"),
        (r#"{"rules": [{"retired": true}]}"#, "without an `id`"),
        (r#"{"rules": [{"id": "rank-5", "level": 3}]}"#, "field `level`"),
        (r#"{"rules": [{"id": "rank-5", "severity": "bad"}]}"#, "rule `rank-5`"),
        (r#"{"rules": [{"id": "rank-5", "params": {"most": 4}}]}"#, "no parameter `most`"),
        (r#"{"rules": [{"id": "rank-5", "params": {"max": "x"}}]}"#, "rule `rank-5`"),
        (r#"{"rules": [{"id": "rank-5", "params": 4}]}"#, "rule `rank-5`"),
        (r#"{"rule": []}"#, "rules"),
        ("[]", "expected"),
        ("{", "expected"),
    ] {
        let error = format!("{:#}", rules(text).expect_err(text));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn rules_can_be_kept_by_confidence() {
    let all = rules("").unwrap();
    let high = all.clone().at_least(Confidence::High);
    assert!(high.all().iter().all(|r| r.confidence == Confidence::High) && high.all().len() < all.all().len());
    assert!(all.all().iter().any(|r| r.severity == Severity::Breaks));
    assert!(all.get("op-silu").is_some() && high.get("op-silu").is_none());
}

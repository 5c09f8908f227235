//! A case a rule: programs that violate it, with who does, and programs that keep it.

use std::collections::BTreeSet;

use super::super::Format;
use super::{linted, rules, violators};

/// Rule, program, violators. The package's own violations are named `package` here.
const VIOLATE: &[(&str, &str, &[&str])] = &[
    ("rank-5", "input x fp16[1,1,1,1,1,64]\ny = relu(x=x) fp16[1,1,1,1,1,64]\nreturn y", &["x", "y", "y"]),
    ("rank-4", "input x fp16[1,1,1,1,64]\ny = reshape(x=x) fp16[1,1,1,64]\nreturn y", &["x"]),
    (
        "extent",
        "input x fp16[1,4,1,16416]\ny = reshape(x=x) fp16[1,65568,1,1]\nz = reshape(x=y) fp16[1,65536,1,1]\nreturn z",
        &["x", "y"],
    ),
    ("extent-any", "input x fp16[1,16416,1,32]\ny = relu(x=x) fp16[1,16384,1,32]\nreturn y", &["x"]),
    (
        "fp32",
        "input x fp32[64]\nconst d string[] = fp16\ny = cast(x=x, dtype=d) fp16[64]\nz = relu(x=y) fp16[64]\nreturn z",
        &["y"],
    ),
    (
        "other-dtype",
        "input x fp16[64]\nconst d string[] = int64\ny = cast(x=x, dtype=d) int64[64]\nz = relu(x=x) fp16[64]\nreturn z",
        &["y"],
    ),
    ("int32", "input x int32[64]\ny = add(x=x, y=x) int32[64]\nreturn y", &["y"]),
    (
        "bool",
        "input x fp16[64]\nb = greater(x=x, y=x) bool[64]\ny = select(cond=b, a=x, b=x) fp16[64]\nreturn y",
        &["b", "y"],
    ),
    (
        "fp32-constant",
        "input x fp16[64]\nconst k fp32[] = 2\nconst h fp16[] = 2\ny = mul(x=x, y=k) fp16[64]\nz = mul(x=x, y=h) fp16[64]\nreturn z",
        &["y"],
    ),
    (
        "fp32-epsilon",
        "input x fp16[64]\nconst e fp32[] = 1e-12\nconst h fp16[] = 1e-5\ny = rsqrt(x=x, epsilon=e) fp16[64]\nz = rsqrt(x=x, epsilon=h) fp16[64]\nreturn z",
        &["y"],
    ),
    (
        "static-shape",
        "input x fp16[1,64] flexible\ny = relu(x=x) fp16[?,64]\nz = relu(x=x) fp16[1,64]\nreturn z",
        &["x", "y"],
    ),
    (
        "last-axis",
        "input x fp16[1,64,1,48]\ny = relu(x=x) fp16[1,64,1,48]\nz = reshape(x=y) fp16[1,48,1,64]\ns = reduce_sum(x=z) fp16[1]\nreturn s",
        &["y"],
    ),
    (
        "io-last-axis",
        "input x fp16[1,64,1,32]\nstate s fp16[1,3]\ny = reduce_sum(x=x) fp16[1,64,1,1]\nreturn y",
        &["y"],
    ),
    (
        "state-last-axis",
        "input x fp16[1,40]\nstate s fp16[1,40]\nstate t fp16[40,32]\ny = relu(x=x) fp16[1,40]\nreturn y",
        &["s"],
    ),
    ("state-dtype", "state s fp32[1,32]\nstate t fp16[1,32]\ny = read_state(input=t) fp16[1,32]\nreturn y", &["s"]),
    ("state-one", "state s fp16[1,32]\nstate t fp16[1,32]\ny = read_state(input=t) fp16[1,32]\nreturn y", &["main"]),
    (
        "state-returned",
        "state s fp16[1,32]\nr = read_state(input=s) fp16[1,32]\na = relu(x=r) fp16[1,32]\ny = relu(x=a) fp16[1,32]\nwrite_state(input=s, data=y)\nreturn y, a",
        &["y"],
    ),
    (
        "state-returned-source",
        "state s fp16[1,32]\nr = read_state(input=s) fp16[1,32]\na = relu(x=r) fp16[1,32]\ny = relu(x=a) fp16[1,32]\nwrite_state(input=s, data=y)\nreturn y, a",
        &["a"],
    ),
    (
        "state-shift",
        "state s fp16[4,32]\ninput n fp16[1,32]\nr = read_state(input=s) fp16[4,32]\nk = slice_by_index(x=r) fp16[3,32]\nc = concat(values=k+n) fp16[4,32]\nd = reshape(x=c) fp16[4,32]\nwrite_state(input=s, data=d)\nreturn k",
        &[""],
    ),
    (
        "state-multifunction",
        "function main\nstate s fp16[1,32]\ny = read_state(input=s) fp16[1,32]\nreturn y\nfunction other\ninput x fp16[1,32]\ny = relu(x=x) fp16[1,32]\nreturn y",
        &["main"],
    ),
    (
        "state-palettized",
        "state s fp16[1,32]\nconst i uint4[4,4] = 0\nconst l fp16[1,1,16,1] = 0\nw = constexpr_lut_to_dense(indices=i, lut=l) fp16[4,4]\nr = read_state(input=s) fp16[1,32]\ny = linear(x=r, weight=w) fp16[1,32]\nreturn y",
        &["main"],
    ),
    (
        "runtime-offset",
        "input x fp16[4,32]\ninput at int32[2]\nconst b int32[2] = 0 0\ny = slice_by_index(x=x, begin=at) fp16[1,32]\nz = slice_by_index(x=x, begin=b) fp16[1,32]\nreturn y",
        &["y"],
    ),
    (
        "update-length",
        "input x fp16[128,32]\ninput u fp16[64,32]\ninput v fp16[32,32]\ny = slice_update(x=x, update=u) fp16[128,32]\nz = slice_update(x=x, update=v) fp16[128,32]\nw = slice_update(x=x, update=x) fp16[128,32]\nreturn w",
        &["y"],
    ),
    ("op-topk", "input x fp16[64]\ny = topk(x=x) fp16[32]\nreturn y", &["y"]),
    ("op-gather", "input x fp16[64]\nconst i int32[32] = 0\ny = gather(x=x, indices=i) fp16[32]\nreturn y", &["y"]),
    ("op-tile", "input x fp16[32]\ny = tile(x=x) fp16[64]\nreturn y", &["y"]),
    ("op-recurrent", "input x fp16[32]\ny = lstm(x=x) fp16[64]\nreturn y", &["y"]),
    (
        "op-linear",
        "input x fp16[1,64]\nconst w fp16[64,64] = 0\ny = linear(x=x, weight=w) fp16[1,64]\nreturn y",
        &["y"],
    ),
    ("op-silu", "input x fp16[64]\ny = silu(x=x) fp16[64]\nz = sigmoid(x=y) fp16[64]\nreturn z", &["y"]),
    ("op-known", "input x fp16[64]\ny = cumsum(x=x) fp16[64]\nz = relu(x=y) fp16[64]\nreturn z", &["y"]),
    (
        "conv-3d",
        "input x fp16[1,4,2,8,32]\nconst w fp16[4,4,1,1,1] = 0\ny = conv(x=x, weight=w) fp16[1,4,2,8,32]\nreturn y",
        &["y"],
    ),
    (
        "conv-dilated",
        "input x fp16[1,4,8,32]\nconst w fp16[4,4,1,1] = 0\nconst d int32[2] = 1 2\nconst o int32[2] = 1 1\ny = conv(x=x, weight=w, dilations=d) fp16[1,4,8,32]\nz = conv(x=x, weight=w, dilations=o) fp16[1,4,8,32]\nreturn z",
        &["y"],
    ),
    (
        "conv-stride",
        "input x fp16[1,4,40,40]\nconst w fp16[4,4,1,1] = 0\nconst a int32[2] = 5 1\nconst b int32[2] = 6 4\ny = conv(x=x, weight=w, strides=a) fp16[1,4,8,40]\nz = conv(x=x, weight=w, strides=b) fp16[1,4,7,10]\nreturn z",
        &["y"],
    ),
    (
        "conv-palettized-stride",
        "input x fp16[1,4,12,96]\nconst i uint6[4,4,1,1] = 0\nconst l fp16[1,1,1,1,64,1] = 0\nw = constexpr_lut_to_dense(indices=i, lut=l) fp16[4,4,1,1]\nconst a int32[2] = 3 3\nconst b int32[2] = 2 2\ny = conv(x=x, weight=w, strides=a) fp16[1,4,4,32]\nz = conv(x=x, weight=w, strides=b) fp16[1,4,6,48]\nreturn z",
        &["y"],
    ),
    (
        "pool-kernel",
        "input x fp16[1,4,32,32]\nconst a int32[2] = 14 1\nconst b int32[2] = 13 13\ny = avg_pool(x=x, kernel_sizes=a) fp16[1,4,19,32]\nz = max_pool(x=x, kernel_sizes=b) fp16[1,4,20,20]\nreturn z",
        &["y"],
    ),
    (
        "sdpa",
        "input q fp16[1,8,64,64]\ny = scaled_dot_product_attention(query=q, key=q, value=q) fp16[1,8,64,64]\nreturn y",
        &["y"],
    ),
    (
        "sdpa-small",
        "input q fp16[1,8,64,64]\ninput r fp16[1,16,4096,64]\ny = scaled_dot_product_attention(query=q, key=r, value=r) fp16[1,8,64,64]\nz = scaled_dot_product_attention(query=r, key=r, value=r) fp16[1,16,4096,64]\nreturn z",
        &["y"],
    ),
    (
        "sdpa-one",
        "input q fp16[1,8,64,64]\ny = scaled_dot_product_attention(query=q, key=q, value=q) fp16[1,8,64,64]\nz = scaled_dot_product_attention(query=y, key=y, value=y) fp16[1,8,64,64]\nreturn z",
        &["z"],
    ),
    (
        "softmax-axis",
        "input x fp16[1,64,1,64]\nconst a int32[] = -1\nconst b int32[] = 1\nconst c int32[] = -3\nw = softmax(x=x) fp16[1,64,1,64]\ny = softmax(x=x, axis=a) fp16[1,64,1,64]\nz = softmax(x=y, axis=b) fp16[1,64,1,64]\nv = softmax(x=z, axis=c) fp16[1,64,1,64]\nreturn v",
        &["w", "y"],
    ),
    (
        "query-chunk",
        "input x fp16[1,64,1,544]\ninput u fp16[1,544,1,512]\nconst b int32[] = 1\ny = softmax(x=x, axis=b) fp16[1,64,1,544]\nz = softmax(x=u, axis=b) fp16[1,544,1,512]\nreturn z",
        &["y"],
    ),
    (
        "contraction-depth",
        "input x fp16[64,16416]\ninput t fp16[16416,64]\nconst f bool[] = false\nconst g bool[] = true\ny = matmul(x=x, y=t, transpose_x=f) fp16[64,64]\nz = matmul(x=x, y=x, transpose_x=g) fp16[16416,16416]\nreturn y",
        &["y"],
    ),
    (
        "finite-mask",
        "input x fp16[1,64]\nconst a fp16[1] = -inf\nblob b fp16[2] = 0 -65000\nblob c fp32[2] = 0 -1e9\nconst d fp16[1] = -4e4\nw = add(x=x, y=a) fp16[1,64]\ny = add(x=x, y=b) fp16[1,64]\nz = add(x=x, y=c) fp16[1,64]\nv = add(x=x, y=d) fp16[1,64]\nreturn v",
        &["w", "y", "z"],
    ),
    (
        "half-square",
        "input x fp16[64]\ninput f fp32[64]\nconst k fp16[] = 2\nconst t fp16[] = 3\na = square(x=x) fp16[64]\nb = mul(x=x, y=x) fp16[64]\nc = pow(x=x, y=k) fp16[64]\nd = pow(x=x, y=t) fp16[64]\ne = square(x=f) fp32[64]\ng = mul(x=x, y=a) fp16[64]\nreturn e",
        &["a", "b", "c"],
    ),
    (
        "layer-norm",
        "input x fp16[64]\nm = reduce_mean(x=x) fp16[1]\ny = sub(x=x, y=m) fp16[64]\nn = reduce_mean(x=y) fp16[1]\nz = sub(x=x, y=n) fp16[64]\nreturn z",
        &["y"],
    ),
    (
        "explicit-input",
        "input x fp16[64]\nconst m string[] = EXACT\ny = gelu(x=x) fp16[64]\nz = gelu(x=x, mode=m) fp16[64]\nreturn z",
        &["y"],
    ),
    (
        "blockwise",
        "input x fp16[1,64]\nconst q int4[64,64] = 0\nconst s fp16[64,2] = 0\nconst c fp16[64,1] = 0\nv = constexpr_blockwise_shift_scale(data=q, scale=s) fp16[64,64]\nw = constexpr_blockwise_shift_scale(data=q, scale=c) fp16[64,64]\ny = linear(x=x, weight=v) fp16[1,64]\nz = linear(x=x, weight=w) fp16[1,64]\nreturn z",
        &["y"],
    ),
    (
        "scaled-lut",
        "input x fp16[1,64]\nconst i uint4[64,64] = 0\nconst l fp16[1,1,16,1] = 0\nconst c fp16[64,1] = 0\nt = constexpr_lut_to_dense(indices=i, lut=l) fp16[64,64]\nw = constexpr_blockwise_shift_scale(data=t, scale=c) fp16[64,64]\ny = linear(x=x, weight=w) fp16[1,64]\nz = linear(x=x, weight=t) fp16[1,64]\nreturn z",
        &["y"],
    ),
    (
        "last-axis-copy",
        "input x fp16[1,2,32,64]\nconst p int32[4] = 0 1 3 2\nconst q int32[4] = 0 2 1 -1\na = transpose(x=x, perm=p) fp16[1,2,64,32]\nb = transpose(x=x, perm=q) fp16[1,32,2,64]\nc = reshape(x=x) fp16[1,1,32,128]\nd = reshape(x=x) fp16[2,1,32,64]\nreturn d",
        &["a", "c"],
    ),
    (
        "conv-kernel",
        "input x fp16[1,4,32,64]\nconst w fp16[4,4,1,15] = 0\nconst v fp16[4,4,13,13] = 0\ny = conv(x=x, weight=w) fp16[1,4,32,64]\nz = conv(x=x, weight=v) fp16[1,4,32,64]\nreturn z",
        &["y"],
    ),
    (
        "dma-notch",
        "input x fp16[1,2048,1,32]\nconst w fp16[8192,2048,1,1] = 0\nconst v fp16[6144,2048,1,1] = 0\nconst i uint4[8192,2048,1,1] = 0\nconst l fp16[1,1,1,1,16,1] = 0\nt = constexpr_lut_to_dense(indices=i, lut=l) fp16[8192,2048,1,1]\ny = conv(x=x, weight=w) fp16[1,8192,1,32]\nz = conv(x=x, weight=v) fp16[1,6144,1,32]\nu = conv(x=x, weight=t) fp16[1,8192,1,32]\nreturn z",
        &["y"],
    ),
    (
        "half-sum",
        "input x fp16[1,2080,1,64]\ninput u fp16[1,2048,1,64]\ninput f fp32[1,2080,1,64]\na = reduce_sum(x=x) fp16[1,1,1,64]\nb = reduce_mean(x=x) fp16[1,1,1,64]\nc = reduce_sum(x=u) fp16[1,1,1,64]\nd = reduce_sum(x=f) fp32[1,1,1,64]\ne = reduce_max(x=x) fp16[1,1,1,64]\nreturn c",
        &["a", "b"],
    ),
    (
        "product-bound",
        "input x fp16[1,64]\nconst w fp16[64,64] = 0\nblob a fp16[2] = 1 -33000\nblob b fp16[2] = 1 32000\ny = linear(x=x, weight=w, bias=a) fp16[1,64]\nz = linear(x=x, weight=w, bias=b) fp16[1,64]\nu = add(x=x, y=a) fp16[1,64]\nreturn z",
        &["y"],
    ),
    (
        "slice-offset",
        "input x fp16[4,64]\nconst a int32[2] = 0 32\nconst b int32[2] = 2 0\nconst n int32[] = -1\nconst m int32[] = 0\ns = softmax(x=x) fp16[4,64]\nc = slice_by_index(x=x, begin=a) fp16[4,32]\nd = slice_by_index(x=x, begin=b) fp16[2,64]\ne = slice_by_index(x=s, begin=a) fp16[4,32]\nf = split(x=x, axis=n) fp16[4,32]\ng = split(x=x, axis=m) fp16[2,64]\nreturn c",
        &["c", "f"],
    ),
    (
        "integer-weights",
        "input x fp16[1,64]\nconst q int8[64,64] = 0\nconst c fp16[64,1] = 0\nconst i uint4[64,64] = 0\nconst l fp16[1,1,16,1] = 0\nv = constexpr_blockwise_shift_scale(data=q, scale=c) fp16[64,64]\nt = constexpr_lut_to_dense(indices=i, lut=l) fp16[64,64]\ny = linear(x=x, weight=v) fp16[1,64]\nz = linear(x=x, weight=t) fp16[1,64]\nreturn z",
        &["y"],
    ),
    (
        "signed-weights",
        "input x fp16[1,64]\nconst q int8[64,64] = 0\nconst u uint8[64,64] = 0\nconst c fp16[64,1] = 0\nconst s fp16[1,1] = 0\nv = constexpr_blockwise_shift_scale(data=q, scale=c) fp16[64,64]\nw = constexpr_blockwise_shift_scale(data=u, scale=c) fp16[64,64]\nt = constexpr_blockwise_shift_scale(data=q, scale=s) fp16[64,64]\na = linear(x=x, weight=v) fp16[1,64]\nb = linear(x=x, weight=w) fp16[1,64]\nd = linear(x=x, weight=t) fp16[1,64]\nreturn d",
        &["a"],
    ),
    (
        "int8-activations",
        "input x fp16[1,64]\nconst s fp16[] = 1\nq = quantize(input=x, scale=s) int8[1,64]\ny = dequantize(input=q, scale=s) fp16[1,64]\nz = relu(x=y) fp16[1,64]\nreturn z",
        &["q", "y"],
    ),
    (
        "functions-resident",
        "function main\ninput x fp16[32]\ny = relu(x=x) fp16[32]\nreturn y\nfunction a\ninput x fp16[32]\ny = relu(x=x) fp16[32]\nreturn y\nfunction b\ninput x fp16[32]\ny = relu(x=x) fp16[32]\nreturn y\nfunction c\ninput x fp16[32]\ny = relu(x=x) fp16[32]\nreturn y",
        &["package"],
    ),
    ("weights-1gb", "input x fp16[32]\nblob w fp16[2] = 1 2\ny = add(x=x, y=w) fp16[32]\nreturn y", &["package"]),
    ("weights-2gib", "input x fp16[32]\nblob w fp16[2] = 1 2\ny = add(x=x, y=w) fp16[32]\nreturn y", &["package"]),
];

/// A program that no rule speaks against.
const CLEAN: &str = "
input x fp16[1,64,1,512]
state s fp16[1,64,1,512]
const w fp16[64,64,1,1] = 0
const one int32[2] = 1 1
const g int32[] = 1
const p string[] = valid
const a int32[1] = 1
const e fp16[] = 1e-5
const m string[] = TANH_APPROXIMATION
const f fp16[] = 0.5
n = layer_norm(x=x, axes=a, epsilon=e) fp16[1,64,1,512]
c = conv(x=n, weight=w, strides=one, pad_type=p, dilations=one, groups=g) fp16[1,64,1,512]
k = gelu(x=c, mode=m) fp16[1,64,1,512]
t = softmax(x=k, axis=g) fp16[1,64,1,512]
r = read_state(input=s) fp16[1,64,1,512]
u = mul(x=r, y=f) fp16[1,64,1,512]
v = add(x=u, y=t) fp16[1,64,1,512]
write_state(input=s, data=v)
y = add(x=x, y=x) fp16[1,64,1,512]
return y
";

/// The weight rules with a limit that a test can reach; rules that only some devices have.
fn overrides(rule: &str) -> String {
    match rule {
        "slice-offset" => format!(r#"{{"rules": [{{"id": "{rule}", "retired": false}}]}}"#),
        _ if rule.starts_with("weights-") => format!(r#"{{"rules": [{{"id": "{rule}", "params": {{"max": 3}}}}]}}"#),
        _ => String::new(),
    }
}

#[test]
fn every_rule_finds_what_violates_it_and_nothing_else() {
    for (rule, source, expected) in VIOLATE {
        let report = linted(source, &overrides(rule));
        let mut found = violators(&report, rule);
        for name in &mut found {
            if *name == report.package {
                *name = "package".into();
            }
        }
        assert_eq!(found, *expected, "{rule}:\n{source}\n{:#?}", report.findings);
    }
}

#[test]
fn every_rule_has_a_case() {
    let rules = rules("").unwrap();
    let ids: BTreeSet<&str> = rules.all().iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids.len(), rules.all().len(), "an id twice");
    // Those of assets have theirs in tests/packages/coreai.rs.
    let of_packages = rules.all().iter().filter(|r| r.format != Some(Format::CoreAi));
    let wanted: BTreeSet<&str> = of_packages.map(|r| r.id.as_str()).collect();
    let tested: BTreeSet<&str> = VIOLATE.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(wanted, tested);
}

#[test]
fn a_program_that_keeps_the_rules_is_clean() {
    let report = linted(CLEAN, "");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.summary.verdicts.stays, 9);
}

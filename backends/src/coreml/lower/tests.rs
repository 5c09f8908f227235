//! Lowered modules against MIL's rules, from the IR's text form.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;

use prost::Message;
use s2dit_ir::{DType, Module, TensorType, WeightError, WeightSource, text, verify};

use super::super::proto::{self, DataType, Operation, TensorValues, binding, value, value_type};
use super::super::{OPSET, Options, package, write_package};

/// Every tensor there is: 0, 1, 2, … in the declared type.
struct Ramp(HashMap<String, TensorType>);

impl Ramp {
    fn of(module: &Module) -> Ramp {
        let mut tensors = HashMap::new();
        for f in &module.functions {
            for v in f.order() {
                if let s2dit_ir::Op::Load(l) = f.op(v) {
                    tensors.insert(l.tensor.clone(), f.ty(v).clone());
                }
            }
        }
        Ramp(tensors)
    }
}

impl WeightSource for Ramp {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.0.get(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let values = (0..ty.elements()).map(|i| i as f64).collect();
        Ok(s2dit_ir::Tensor::from_values(ty, values).unwrap().to_le_bytes().into())
    }
}

/// A package read back from disk.
struct Package {
    model: proto::Model,
    weights: Vec<u8>,
    summary: super::super::Summary,
    files: BTreeMap<&'static str, Vec<u8>>,
}

fn parse(source: &str) -> Module {
    let module = text::parse(&format!("module {{\n{source}\n}}\n")).unwrap();
    verify::verify(&module).unwrap_or_else(|e| panic!("{e}\n{}", e.text));
    module
}

fn try_package(source: &str) -> anyhow::Result<Package> {
    let module = parse(source);
    let dir = tempfile::tempdir()?;
    let metadata = || BTreeMap::from([("b".to_string(), "2".to_string()), ("a".to_string(), "1".to_string())]);
    let summary =
        write_package(&module, &Ramp::of(&module), &Options::default(), metadata, dir.path(), &mut |_, _| {})?;
    let mut files = BTreeMap::new();
    for file in [package::MANIFEST, package::MODEL, package::WEIGHTS] {
        if let Ok(bytes) = fs::read(dir.path().join(file)) {
            files.insert(file, bytes);
        }
    }
    let model = proto::Model::decode(&files[package::MODEL][..])?;
    assert_eq!(model.encode_to_vec(), files[package::MODEL]);
    Ok(Package { model, weights: files.get(package::WEIGHTS).cloned().unwrap_or_default(), summary, files })
}

fn package(source: &str) -> Package {
    let package = try_package(source).unwrap();
    for f in package.functions() {
        check_rules(f);
    }
    package
}

fn error(source: &str) -> String {
    match try_package(source) {
        Ok(_) => panic!("it was lowered"),
        Err(e) => format!("{e:#}"),
    }
}

impl Package {
    fn functions(&self) -> impl Iterator<Item = &proto::Function> {
        self.model.ml_program.as_ref().unwrap().functions.values()
    }

    fn main(&self) -> &proto::Function {
        &self.model.ml_program.as_ref().unwrap().functions["main"]
    }

    /// The ops of `main` without constants, as `name = type(param=value, …)`.
    fn ops(&self) -> Vec<String> {
        let operations = &self.main().block_specializations[OPSET].operations;
        let constants: HashMap<&str, String> = operations
            .iter()
            .filter(|o| o.r#type == "const")
            .map(|o| (o.outputs[0].name.as_str(), shown(&o.attributes["val"])))
            .collect();
        let argument = |a: &proto::Argument| {
            let names = names(a).map(|n| constants.get(n).cloned().unwrap_or_else(|| n.to_string()));
            names.collect::<Vec<_>>().join("+")
        };
        let op = |o: &Operation| {
            let inputs: Vec<_> = o.inputs.iter().map(|(p, a)| format!("{p}={}", argument(a))).collect();
            let name = o.outputs.first().map(|o| format!("{} = ", o.name)).unwrap_or_default();
            format!("{name}{}({})", o.r#type, inputs.join(", "))
        };
        operations.iter().filter(|o| o.r#type != "const").map(op).collect()
    }

    /// The value of a constant of `main`, whose data is in the weight file.
    fn weight(&self, name: &str) -> &[u8] {
        let operations = &self.main().block_specializations[OPSET].operations;
        let constant = operations.iter().find(|o| o.outputs[0].name == name).unwrap();
        let Some(value::Value::BlobFileValue(blob)) = &constant.attributes["val"].value else {
            panic!("`{name}` is not in the weight file")
        };
        assert_eq!(blob.file_name, "@model_path/weights/weight.bin");
        let record = &self.weights[blob.offset as usize..];
        let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
        assert_eq!(record[..4], 0xDEAD_BEEF_u32.to_le_bytes());
        &self.weights[word(16) as usize..][..word(8) as usize]
    }
}

fn names(a: &proto::Argument) -> impl Iterator<Item = &str> {
    a.arguments.iter().map(|b| match &b.binding {
        Some(binding::Binding::Name(n)) => n.as_str(),
        _ => panic!("an inline value"),
    })
}

/// A short form of small constants; `@` for those in the weight file.
fn shown(v: &proto::Value) -> String {
    let Some(value::Value::ImmediateValue(v)) = &v.value else { return "@".into() };
    match v.tensor.as_ref().unwrap().value.as_ref().unwrap() {
        TensorValues::Floats(v) => format!("{:?}f32", v.values),
        TensorValues::Ints(v) => format!("{:?}", v.values),
        TensorValues::Bools(v) => format!("{:?}", v.values),
        TensorValues::Strings(v) => v.values.join(","),
        TensorValues::Bytes(v) => {
            let halves = v.values.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b));
            format!("{:?}f16", halves.collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    }
}

/// Checks the properties that every lowered function has.
fn check_rules(f: &proto::Function) {
    assert_eq!(f.opset, OPSET);
    let block = &f.block_specializations[OPSET];
    assert!(!block.outputs.is_empty());
    let mut defined: HashMap<&str, bool> = f.inputs.iter().map(|i| (i.name.as_str(), false)).collect();
    for o in &block.operations {
        let attributes: Vec<_> = o.attributes.keys().map(String::as_str).collect();
        let expected: &[&str] = if o.r#type == "const" { &["name", "val"] } else { &["name"] };
        assert_eq!(attributes, expected, "{o:?}");
        for name in o.inputs.values().flat_map(names) {
            assert!(defined.contains_key(name), "`{name}` is used before it is defined");
        }
        for output in &o.outputs {
            let mut chars = output.name.chars();
            assert!(chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_'), "{}", output.name);
            assert!(chars.all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}", output.name);
            assert!(defined.insert(&output.name, o.r#type != "const").is_none(), "`{}` twice", output.name);
            assert_eq!(shown(&o.attributes["name"]), output.name);
            let Some(value_type::Type::TensorType(ty)) = &output.r#type.as_ref().unwrap().r#type else {
                panic!("{output:?}")
            };
            assert_eq!(ty.rank as usize, ty.dimensions.len());
            if o.r#type == "const" {
                assert_eq!(o.attributes["val"].r#type, output.r#type);
            }
        }
    }
    for output in &block.outputs {
        assert!(defined[output.as_str()], "`{output}` is an input or a constant");
    }
}

#[test]
fn every_parameter_with_a_default_is_written() {
    let p = package(
        r#"func @clip(%x: f16[1, 4, 6], %i: i32[2], %z: f16[1, 2, 3, 4, 4]) {
            %w = load {tensor = "a.to_q.weight"} : bf16[3, 6]
            %wide = cast(%w) {dtype = "f32"} : f32[3, 6]
            %900 = cast(%wide) {dtype = "f16"} : f16[3, 6]
            %b = load {tensor = "a.to_q.bias"} : f16[3]
            %0 = linear(%x, %900, %b) : f16[1, 4, 3] @ "a.to_q"
            %1 = linear(%x, %900) : f16[1, 4, 3] @ "a.to_q"
            %2 = matmul(%0, %1) {transpose_x = true, transpose_y = false} : f16[1, 3, 3] @ "a"
            %3 = softmax(%2) {axis = 2} : f16[1, 3, 3] @ "a"
            %4 = layer_norm(%3) {axes = [2], eps = 0.00001} : f16[1, 3, 3] @ "a"
            %5 = reduce_mean(%4) {axes = [1, 2], keep_dims = true} : f16[1, 1, 1] @ "a"
            %6 = neg(%5) : f16[1, 1, 1]
            %7 = gelu_tanh(%6) : f16[1, 1, 1]
            %8 = rsqrt(%7) : f16[1, 1, 1]
            %9 = gather(%4, %i) {axis = 1} : f16[1, 2, 3]
            %10 = slice(%9) {begin = [0, 0, 1], end = [1, 2, 3], stride = [1, 1, 1]} : f16[1, 2, 2]
            %11 = slice(%9) {begin = [0, 0, 0], end = [1, 2, 3], stride = [1, 1, 2]} : f16[1, 2, 2]
            %12 = concat(%10, %11) {axis = 1} : f16[1, 4, 2]
            %13 = pad(%12) {before = [0, 1, 0], after = [0, 0, 2], value = 0.5} : f16[1, 5, 4]
            %14 = transpose(%13) {perm = [0, 2, 1]} : f16[1, 4, 5]
            %15 = reshape(%14) {shape = [4, 5]} : f16[4, 5]
            %16 = broadcast_to(%15) {shape = [3, 4, 5]} : f16[3, 4, 5]
            %k = load {tensor = "conv.weight"} : f16[2, 1, 1, 2, 2]
            %17 = conv(%z, %k) {strides = [1, 2, 2], pad_before = [0, 1, 0], pad_after = [0, 0, 0], dilations = [1, 1, 1], groups = 2} : f16[1, 2, 3, 2, 2] @ "conv"
            %block0 = identity(%16) : f16[3, 4, 5]
            %18 = cast(%block0) {dtype = "f32"} : f32[3, 4, 5]
            return velocity = %18, r = %8, c = %17
        }"#,
    );
    let expected = [
        "a_to_q_linear_0 = linear(bias=[0.0, 1.0, 2.0]f16, weight=@, x=x)",
        "a_to_q_linear_1 = linear(bias=[0.0, 0.0, 0.0]f16, weight=@, x=x)",
        "a_matmul_0 = matmul(transpose_x=[true], transpose_y=[false], x=a_to_q_linear_0, y=a_to_q_linear_1)",
        "a_softmax_0 = softmax(axis=[2], x=a_matmul_0)",
        "a_layer_norm_0 = layer_norm(axes=[2], epsilon=[1.001358e-5]f16, x=a_softmax_0)",
        "gather_0 = gather(axis=[1], batch_dims=[0], indices=i, validate_indices=[false], x=a_layer_norm_0)",
        "slice_0 = slice_by_index(begin=[0, 0, 1], end=[1, 2, 3], x=gather_0)",
        "slice_1 = slice_by_index(begin=[0, 0, 0], end=[1, 2, 3], stride=[1, 1, 2], x=gather_0)",
        "concat_0 = concat(axis=[1], interleave=[false], values=slice_0+slice_1)",
        "pad_0 = pad(constant_val=[0.5]f16, mode=constant, pad=[1, 0, 0, 2], x=concat_0)",
        "transpose_0 = transpose(perm=[0, 2, 1], x=pad_0)",
        "reshape_0 = reshape(shape=[4, 5], x=transpose_0)",
        "reshape_1 = reshape(shape=[1, 4, 5], x=reshape_0)",
        "broadcast_to_0 = tile(reps=[3, 1, 1], x=reshape_1)",
        "block0 = identity(x=broadcast_to_0)",
        "velocity = cast(dtype=fp32, x=block0)",
        "a_reduce_mean_0 = reduce_mean(axes=[1, 2], keep_dims=[true], x=a_layer_norm_0)",
        "neg_0 = mul(x=a_reduce_mean_0, y=[-1.0]f16)",
        "gelu_tanh_0 = gelu(mode=TANH_APPROXIMATION, x=neg_0)",
        "r = rsqrt(epsilon=[0.0]f16, x=gelu_tanh_0)",
        "c = conv(dilations=[1, 1, 1], groups=[2], pad=[0, 0, 1, 0, 0, 0], pad_type=custom, strides=[1, 2, 2], \
         weight=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]f16, x=z)",
    ];
    assert_eq!(p.ops(), expected);
    assert_eq!(p.summary.ops, expected.len());
    let f16s: Vec<u8> = (0..18).flat_map(|i| half::f16::from_f64(f64::from(i)).to_le_bytes()).collect();
    assert_eq!(p.weight("a_to_q_weight"), f16s);
    // One record, used twice.
    assert_eq!((p.weights[0], p.weights.len()), (1, 128 + 36));
    assert_eq!((p.summary.weights, p.summary.weight_bytes), (1, 128 + 36));
    let description = p.model.description.as_ref().unwrap();
    let listed = |fs: &[proto::FeatureDescription]| fs.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    assert_eq!(listed(&description.input), ["x", "i", "z"]);
    assert_eq!(listed(&description.output), ["velocity", "r", "c"]);
    assert_eq!(description.metadata.as_ref().unwrap().user_defined["a"], "1");
    assert_eq!(p.model.specification_version, 9);
}

#[test]
fn equal_modules_give_equal_bytes() {
    let source = r#"func @main(%x: f32[2, 16]) {
        %w = load {tensor = "w"} : f32[16, 16]
        %y = linear(%x, %w) : f32[2, 16]
        return y = %y
    }"#;
    let (a, b) = (package(source), package(source));
    assert_eq!(a.files.len(), 3);
    assert_eq!(a.files, b.files);
}

#[test]
fn products_that_linear_does_not_take_become_matmuls() {
    let p = package(
        r#"func @main(%x: f32[1, 2, 3, 4], %v: f32[4], %w: f32[2, 4], %b: f32[2]) {
            %c = load {tensor = "c"} : f32[2, 4]
            %0 = linear(%x, %c, %b) : f32[1, 2, 3, 2]
            %1 = linear(%v, %w, %b) : f32[2]
            %2 = linear(%v, %w) : f32[2]
            %3 = linear(%v, %c) : f32[2]
            return a = %0, b1 = %1, c1 = %2, d = %3
        }"#,
    );
    let flags = "transpose_x=[false], transpose_y=[true]";
    let expected = [
        format!("matmul_0 = matmul({flags}, x=x, y=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]f32)"),
        "a = add(x=matmul_0, y=b)".into(),
        "reshape_0 = reshape(shape=[1, 4], x=v)".into(),
        format!("matmul_1 = matmul({flags}, x=reshape_0, y=w)"),
        "reshape_1 = reshape(shape=[2], x=matmul_1)".into(),
        "b1 = add(x=reshape_1, y=b)".into(),
        "reshape_2 = reshape(shape=[1, 4], x=v)".into(),
        format!("matmul_2 = matmul({flags}, x=reshape_2, y=w)"),
        "c1 = reshape(shape=[2], x=matmul_2)".into(),
        "d = linear(bias=[0.0, 0.0]f32, weight=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]f32, x=v)".into(),
    ];
    assert_eq!(p.ops(), expected);
}

#[test]
fn computed_affine_parameters_are_applied_by_hand() {
    let p = package(
        r#"func @main(%x: f32[1, 4, 2], %g: f32[4], %b: f32[4], %k: f32[3, 4, 1], %kb: f32[3]) {
            %0 = layer_norm(%x, %g, %b) {axes = [1], eps = 0.5} : f32[1, 4, 2]
            %1 = conv(%0, %k, %kb) {strides = [1], pad_before = [0], pad_after = [0], dilations = [1], groups = 1} : f32[1, 3, 2]
            return y = %1
        }"#,
    );
    let expected = [
        "layer_norm_1 = layer_norm(axes=[1], epsilon=[0.5]f32, x=x)",
        "reshape_0 = reshape(shape=[1, 4, 1], x=g)",
        "mul_0 = mul(x=layer_norm_1, y=reshape_0)",
        "reshape_1 = reshape(shape=[1, 4, 1], x=b)",
        "layer_norm_0 = add(x=mul_0, y=reshape_1)",
        "conv_0 = conv(dilations=[1], groups=[1], pad=[0, 0], pad_type=valid, strides=[1], weight=k, x=layer_norm_0)",
        "reshape_2 = reshape(shape=[1, 3, 1], x=kb)",
        "y = add(x=conv_0, y=reshape_2)",
    ];
    assert_eq!(p.ops(), expected);
}

#[test]
fn outputs_are_never_inputs_constants_or_each_other() {
    let p = package(
        r#"func @main(%x: f32[2]) {
            %c = literal {values = [3.0]} : f32[2]
            %0 = abs(%x) : f32[2]
            %block0 = exp(%0) : f32[2]
            return a = %x, b = %c, c1 = %0, d = %0, e = %block0, block0 = %block0
        }"#,
    );
    let expected = [
        "c1 = abs(x=x)",
        "block0 = exp(x=c1)",
        "a = identity(x=x)",
        "b = identity(x=[3.0, 3.0]f32)",
        "d = identity(x=c1)",
        "e = identity(x=block0)",
    ];
    assert_eq!(p.ops(), expected);
}

#[test]
fn states_are_read_first_and_written_last() {
    let source = r#"
        state "cache" : f16[1, 8]
        state "other" : f16[2]
        func @denoise(%x: f16[1, 8]) {
            %s = state {state = "cache"} : f16[1, 8]
            %y = add(%x, %s) : f16[1, 8]
            return y = %y
        }
        func @commit(%x: f16[1, 8]) {
            %new = mul(%x, %x) : f16[1, 8]
            %token = abs(%x) : f16[1, 8]
            update "cache" = %new
            return token = %token
        }
        func @prompt(%x: f16[1, 8]) {
            %w = load {tensor = "w"} : f16[8, 8]
            %y = linear(%x, %w) : f16[1, 8]
            return y = %y
        }
    "#;
    let p = package(source);
    let description = p.model.description.as_ref().unwrap();
    assert_eq!(description.default_function_name, "denoise");
    assert!(description.input.is_empty() && description.output.is_empty() && description.state.is_empty());
    let states: Vec<_> = description.functions.iter().map(|f| f.state.len()).collect();
    assert_eq!(states, [2, 2, 0]);
    let program = p.model.ml_program.as_ref().unwrap();
    let types = |name: &str| -> Vec<&str> {
        let operations = &program.functions[name].block_specializations[OPSET].operations;
        operations.iter().map(|o| o.r#type.as_str()).filter(|t| *t != "const").collect()
    };
    assert_eq!(types("denoise"), ["read_state", "add"]);
    assert_eq!(types("commit"), ["mul", "abs", "write_state"]);
    let inputs: Vec<_> = program.functions["commit"].inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(inputs, ["x", "cache", "other"]);
}

#[test]
fn scalars_are_not_reshaped() {
    let p = package(
        r#"func @main(%x: f16[1, 1]) {
            %0 = reshape(%x) {shape = []} : f16[]
            %1 = reshape(%0) {shape = [1, 1, 1]} : f16[1, 1, 1]
            %2 = broadcast_to(%0) {shape = [2, 3]} : f16[2, 3]
            %3 = layer_norm(%2) {axes = [1], eps = 0.00000001} : f16[2, 3]
            return y = %1, z = %3
        }"#,
    );
    let expected = [
        "reshape_0 = squeeze(axes=[0, 1], x=x)",
        "y = expand_dims(axes=[0, 1, 2], x=reshape_0)",
        "expand_dims_0 = expand_dims(axes=[0, 1], x=reshape_0)",
        "broadcast_to_0 = tile(reps=[2, 3], x=expand_dims_0)",
        // 1e-8 is 0 in fp16: the least number above it.
        "z = layer_norm(axes=[1], epsilon=[5.9604645e-8]f16, x=broadcast_to_0)",
    ];
    assert_eq!(p.ops(), expected);
}

#[test]
fn functions_share_equal_weights() {
    let function = |name: &str| {
        format!(
            r#"func @{name}(%x: f16[1, 8]) {{
                %w = load {{tensor = "w"}} : f16[8, 8]
                %y = linear(%x, %w) : f16[1, 8]
                return y = %y
            }}"#
        )
    };
    let p = package(&format!("{}\n{}", function("f"), function("g")));
    // The weight; eight zeros are not enough for the weight file.
    assert_eq!(p.summary.weights, 1);
}

#[test]
fn what_core_ml_does_not_take_is_refused_by_name() {
    let unary = |ty: &str, body: &str| format!("func @main(%x: {ty}) {{ {body} }}");
    let cases = [
        (
            unary(
                "f32[1, 2, 2, 2, 2]",
                r#"%0 = reshape(%x) {shape = [1, 1, 2, 2, 2, 2]} : f32[1, 1, 2, 2, 2, 2] @ "blocks.3.attn1"
                   %1 = reshape(%0) {shape = [16]} : f32[16]
                   return y = %1"#,
            ),
            "`reshape` of `blocks.3.attn1`: a value has type f32[1, 1, 2, 2, 2, 2]; Core ML allows 5 dimensions",
        ),
        (unary("f64[2]", "%0 = abs(%x) : f64[2]\n return y = %0"), "input `x`: expected f32, f16 or i32, found f64"),
        (
            unary("f32[2]", "%0 = cast(%x) {dtype = \"bf16\"} : bf16[2]\n %1 = cast(%0) {dtype = \"f32\"} : f32[2]\n return y = %1"),
            "found bf16",
        ),
        (
            unary("i32[2]", "%0 = pad(%x) {before = [1], after = [0], value = 0.0} : i32[3]\n return y = %0"),
            "Core ML computes it in f16, f32, found i32",
        ),
        (unary("f32[2]", "%0 = abs(%x) : f32[2]\n return a.b = %0"), "output `a.b`: expected a name of letters"),
        (unary("f32[]", "%0 = abs(%x) : f32[]\n return y = %0"), "input `x`: expected 1 to 5 dimensions"),
        (unary("f32[2]", "%0 = abs(%x) : f32[2]\n return x = %0"), "are named `x`"),
        (
            "state \"s\" : f32[2]\n func @main(%x: f32[2]) { %0 = abs(%x) : f32[2]\n update \"s\" = %x\n return y = %0 }".into(),
            "state `s`: expected f16 of 1 to 5 dimensions, found f32[2]",
        ),
        (
            "state \"s\" : f16[2]\n func @main(%x: f16[2]) { %0 = abs(%x) : f16[2]\n %1 = exp(%0) : f16[2]\n update \"s\" = %1\n return y = %0 }".into(),
            "the output `y` is written to the state `s` or goes into what is written",
        ),
        (
            "state \"s\" : f16[2]\n func @main(%x: f16[2]) { update \"s\" = %x\n return }".into(),
            "it returns nothing",
        ),
        (
            // From 65520 on, numbers round to infinity.
            unary(
                "f16[1]",
                r#"%w = load {tensor = "w"} : f32[65521]
                   %c = cast(%w) {dtype = "f16"} : f16[65521]
                   %0 = add(%x, %c) : f16[65521]
                   return y = %0"#,
            ),
            "tensor `w`: found 1 finite element(s) that f16 cannot hold",
        ),
    ];
    for (source, expected) in cases {
        let found = error(&source);
        assert!(found.contains(expected), "expected {expected}\nfound {found}");
    }
}

#[test]
fn every_dtype_has_its_place() {
    assert_eq!(super::value::data_type(DType::F16), Some(DataType::Float16));
    assert_eq!(super::value::data_type(DType::BF16), None);
    let p = package(
        r#"func @main(%x: f32[12]) {
            %i = load {tensor = "i"} : i32[12]
            %m = load {tensor = "m"} : bool[12]
            %0 = gather(%x, %i) {axis = 0} : f32[12]
            %1 = cast(%0) {dtype = "i32"} : i32[12]
            %2 = add(%1, %i) : i32[12]
            %3 = identity(%2) : i32[12]
            %4 = concat(%m, %m) {axis = 0} : bool[24]
            return y = %3
        }"#,
    );
    assert_eq!(p.weight("i").len(), 48);
}

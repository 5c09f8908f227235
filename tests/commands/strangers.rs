//! Strangers' files: endless ones, ones that would fill the memory or command the terminal, descriptions that lie, other formats.
#![cfg(unix)]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{arg, fails, golden, ok, run};
use prost::Message;
use s2dit_backends::coreml::proto as mil;
use s2dit_backends::onnx::proto as onnx;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is changed in a file, the change, and words that the error must have.
type Edit = (&'static str, fn(&mut Value), &'static [&'static str]);

const SPEC: &str = "Data/com.apple.CoreML/model.mlmodel";

fn work() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "expected `{part}` in:\n{error}");
    }
}

/// Compiles a golden's checkpoint into `out`.
fn compile(name: &str, flags: &[&str], out: &Path) {
    let (checkpoint, out) = (arg(&golden(name).join("checkpoint")), arg(out));
    ok(&[&["compile", "-q", &checkpoint, "-o", &out], flags].concat());
}

/// A clip's step of the golden `tiny`.
fn clip(target: &str, out: &Path) {
    compile("tiny", &["--target", target, "--latent", "3x8x8"], out);
}

/// The kernel of the golden `stream_tiny`.
fn kernel(target: &str, flags: &[&str], out: &Path) {
    compile("stream_tiny", &[&["--target", target, "--mode", "stream", "--latent", "8x8"], flags].concat(), out);
}

fn edit_onnx(path: &Path, edit: impl FnOnce(&mut onnx::ModelProto)) {
    let mut model = onnx::ModelProto::decode(&*fs::read(path).expect("a model")).expect("a model");
    edit(&mut model);
    fs::write(path, model.encode_to_vec()).expect("a model");
}

fn edit_package(path: &Path, edit: impl FnOnce(&mut mil::Model)) {
    let path = path.join(SPEC);
    let mut model = mil::Model::decode(&*fs::read(&path).expect("a specification")).expect("a specification");
    edit(&mut model);
    fs::write(path, model.encode_to_vec()).expect("a specification");
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a description")).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("a description");
}

/// [`fails`], in half a minute and with at most 1.5 GB of address space.
#[track_caller]
fn fails_soon(args: &[&str]) -> String {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -v 1500000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_s2ditc")])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let start = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().expect("it is killed");
            panic!("{args:?} still runs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().expect("its output");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{args:?}\n{error}");
    assert_eq!(error.matches("error: ").count(), 1, "{args:?}\n{error}");
    error
}

/// Puts something in the place of a file that is no file of its kind, and may never end.
fn endless(place: &Path, kind: &str) {
    let _ = fs::remove_file(place);
    match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(place).status().expect("mkfifo starts").success()),
        "/dev/zero" => symlink("/dev/zero", place).expect("a link"),
        _ => {
            let mut file = File::create(place).expect("a file");
            file.write_all(&[16, 0, 0, 0, 0, 0, 0, 0]).expect("a file");
            file.seek(SeekFrom::Start(200 << 30)).expect("a sparse file");
            file.write_all(b"}").expect("a sparse file");
        }
    }
}

const ENDLESS: [&str; 3] = ["pipe", "/dev/zero", "sparse"];

#[test]
fn states_and_statistics_that_never_end_are_not_read() {
    let work = work();
    let (kernel_dir, state) = (work.path().join("kernel"), work.path().join("state"));
    kernel("onnx", &[], &kernel_dir);
    for kind in ENDLESS {
        endless(&state, kind);
        says(&fails_soon(&["stream", &arg(&kernel_dir), "--state-in", &arg(&state)]), &[&arg(&state)]);
    }
    let plan = work.path().join("plan.toml");
    let checkpoint = arg(&work.path().join("checkpoint"));
    ok(&["init", "-q", "--preset", "tiny", "--set", "ffn_dim=2048", "-o", &checkpoint]);
    let quantize =
        ["quantize", "-q", &checkpoint, "--scheme", "palette4-group16", "--calibrate", "seeded", "--latent", "3x8x8"];
    ok(&[&quantize[..], &["-o", &arg(&plan)]].concat());
    let statistics = work.path().join("plan.stats.safetensors");
    assert!(statistics.is_file());
    for kind in ENDLESS {
        endless(&statistics, kind);
        let out = work.path().join("x.onnx");
        let (plan, place) = (arg(&plan), arg(&out));
        let sizes = ["--target", "onnx", "--latent", "3x8x8"];
        let compile = ["compile", &checkpoint, "--quantize", &plan, "-o", &place];
        says(&fails_soon(&[&compile[..], &sizes].concat()), &["plan.stats.safetensors"]);
        assert!(!out.exists());
    }
}

#[test]
fn small_files_do_not_fill_the_memory() {
    let work = work();
    let varint = |n: usize| {
        let mut out = Vec::new();
        prost::encoding::encode_varint(n as u64, &mut out);
        out
    };
    // A field with a length: its tag, and what it holds.
    let field =
        |tag: u32, content: &[u8]| [varint((tag << 3 | 2) as usize), varint(content.len()), content.to_vec()].concat();

    let bomb = work.path().join("bomb.onnx");
    let nodes = field(7, &[0x0a, 0].repeat(10_000_000));
    fs::write(&bomb, [vec![8, 10], nodes, field(8, &[0x10, 21])].concat()).expect("a bomb");
    says(&fails_soon(&["inspect", &arg(&bomb)]), &["bomb.onnx", "262144 ops"]);

    let package = work.path().join("bomb.mlpackage");
    clip("coreml", &package);
    let block = field(2, &[0x1a, 0].repeat(5_000_000));
    let function = field(3, &[field(1, b"CoreML8"), block].concat());
    let program = field(2, &[field(1, b"main"), field(2, &[field(2, b"CoreML8"), function].concat())].concat());
    let whole = fs::read(package.join(SPEC)).expect("a specification");
    fs::write(package.join(SPEC), [whole.clone(), field(502, &program)].concat()).expect("a bomb");
    for command in ["inspect", "lint"] {
        says(&fails_soon(&[command, &arg(&package)]), &["model.mlmodel", "262144 ops"]);
    }
    fs::write(package.join(SPEC), &whole).expect("a specification");
    ok(&["lint", &arg(&package)]);

    // 60 MB that would be 1.5 GB of JSON values.
    let nested = format!("[{}[]]", "[],".repeat(20_000_000));
    let kernel_dir = work.path().join("kernel");
    kernel("coreml", &["--functions", "separate"], &kernel_dir);
    let contract = fs::read_to_string(kernel_dir.join("contract.json")).expect("a contract");
    fs::write(kernel_dir.join("contract.json"), contract.replacen('{', &format!("{{\"x\": {nested},"), 1))
        .expect("a bomb");
    for command in ["inspect", "lint"] {
        says(&fails_soon(&[command, &arg(&kernel_dir)]), &["contract.json", "4194304"]);
    }
    let manifest = package.join("Manifest.json");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, text.replacen('{', &format!("{{\"x\": {nested},"), 1)).expect("a bomb");
    says(&fails_soon(&["inspect", &arg(&package)]), &["Manifest.json", "4194304"]);
    let header = format!("{{\"x\": {{\"dtype\": {nested}}}}}");
    let golden_file = work.path().join("golden.safetensors");
    fs::write(&golden_file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).expect("a bomb");
    fs::write(&manifest, text).expect("a manifest");
    says(
        &fails_soon(&["verify", &arg(&package), "--golden", &arg(&golden_file)]),
        &["golden.safetensors", "4194304 values"],
    );
}

/// A text that clears the screen, turns the direction of writing, and begins a line of its own.
const EVIL: &str = "x\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2066}\r\nforged: passed";

/// Runs a command; nothing that it prints may command a terminal, or be a line of the file's making. Returns what it prints.
#[track_caller]
fn prints(args: &[&str], needle: &str) {
    let out = run(args);
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(out.status.code().is_some_and(|code| code < 2), "{args:?}\n{text}");
    let evil = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2066}".contains(c);
    assert!(!text.contains(evil), "{args:?} prints {:?}", text.chars().filter(|c| evil(*c)).collect::<String>());
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{args:?}\n{text}");
    assert!(text.contains(needle), "{args:?} does not show the text:\n{text}");
}

#[test]
fn no_file_commands_the_terminal() {
    let work = work();
    let at = |name: &str| work.path().join(name);
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    let shown = "\\u{1b}[2J\\u{7f}";
    let in_json = "\\u001b[2J\\u007f";

    let model = at("evil.onnx");
    clip("onnx", &model);
    edit_onnx(&model, |model| {
        model.producer_name = EVIL.into();
        model.metadata_props.push(onnx::StringStringEntryProto { key: EVIL.into(), value: EVIL.into() });
        let graph = model.graph.as_mut().expect("a graph");
        graph.output[0].name = EVIL.into();
        graph.node[0].op_type = EVIL.into();
    });
    prints(&["inspect", &arg(&model)], shown);
    prints(&["inspect", "--json", &arg(&model)], in_json);
    prints(&["verify", &arg(&model), "--golden", &reference], shown);

    let package = at("evil.mlpackage");
    clip("coreml", &package);
    edit_package(&package, |model| {
        let description = model.description.as_mut().expect("a description");
        description.metadata.get_or_insert_default().user_defined.insert(EVIL.into(), EVIL.into());
        let program = model.ml_program.as_mut().expect("a program");
        let block = program.functions.get_mut("main").expect("main").block_specializations.values_mut().next();
        let ops = &mut block.expect("a block").operations;
        let unused = mil::Operation { r#type: EVIL.into(), ..Default::default() };
        let name = mil::NamedValueType { name: EVIL.into(), r#type: None };
        ops.push(mil::Operation { outputs: vec![name], ..unused });
    });
    prints(&["inspect", &arg(&package)], shown);
    prints(&["inspect", "--json", &arg(&package)], in_json);
    prints(&["lint", "--all", &arg(&package)], shown);
    prints(&["lint", "--json", &arg(&package)], in_json);
    prints(&["verify", &arg(&package), "--golden", &reference], shown);

    let fine = at("fine.mlpackage");
    clip("coreml", &fine);
    let rules = at("rules.json");
    let rule = json!({"rules": [{"id": "op-silu", "retired": true, "because": EVIL, "text": EVIL}]});
    fs::write(&rules, rule.to_string()).expect("rules");
    prints(&["lint", "--rules", "--rules-file", &arg(&rules)], shown);
    let unknown = json!({"rules": [{"id": EVIL}]});
    fs::write(&rules, unknown.to_string()).expect("rules");
    prints(&["lint", &arg(&fine), "--rules-file", &arg(&rules)], "\\u{1b}");

    // A golden's other tensors are listed.
    let evil_golden = at("golden.safetensors");
    let bytes = fs::read(&reference).expect("a golden");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = String::from_utf8(bytes[8..8 + n].to_vec()).expect("a header");
    let header = header.trim_end().replacen("\"block0\"", &Value::from(EVIL).to_string(), 1);
    fs::write(&evil_golden, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + n..]].concat())
        .expect("a golden");
    prints(&["verify", &arg(&fine), "--golden", &arg(&evil_golden)], "\\u{1b}");

    let kernel_dir = at("kernel");
    kernel("onnx", &[], &kernel_dir);
    let contract = kernel_dir.join("contract.json");
    let text = fs::read_to_string(&contract).expect("a contract");
    edit_json(&contract, |contract| {
        contract["compiler"] = EVIL.into();
        contract["states"][0]["meaning"] = EVIL.into();
    });
    for name in ["prompt", "denoise", "commit"] {
        // Made by hand: no artifact carries a contract.
        edit_onnx(&kernel_dir.join(name).with_extension("onnx"), |model| {
            model.metadata_props.retain(|entry| entry.key != "s2ditc.contract" && entry.key != "s2ditc.data");
        });
    }
    prints(&["inspect", &arg(&kernel_dir)], shown);
    prints(&["inspect", "--json", &arg(&kernel_dir)], in_json);
    edit_json(&contract, |contract| contract["functions"]["denoise"]["inputs"][0]["name"] = EVIL.into());
    prints(&["stream", &arg(&kernel_dir), "--prompt-seed", "1"], "\\u{1b}");
    fs::write(&contract, text).expect("a contract");

    let state = at("state");
    let header = json!({"__metadata__": {"format": EVIL, "version": EVIL}}).to_string();
    fs::write(&state, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).expect("a state");
    edit_json(&contract, |contract| contract["compiler"] = "a hand".into());
    prints(&["stream", &arg(&kernel_dir), "--state-in", &arg(&state)], "\\u{1b}");

    let checkpoint = at("checkpoint");
    fs::create_dir(&checkpoint).expect("a folder");
    fs::copy(golden("sharded").join("checkpoint/config.json"), checkpoint.join("config.json")).expect("a copy");
    let index = json!({"weight_map": {"proj_out.bias": format!("{}.safetensors", EVIL.replace('\n', " "))}});
    fs::write(checkpoint.join("diffusion_pytorch_model.safetensors.index.json"), index.to_string()).expect("an index");
    prints(&["inspect", &arg(&checkpoint)], "\\u{1b}");
}

/// Every command that opens a folder of packages or a kernel judges it alike.
#[test]
fn descriptions_that_lie_are_refused_by_every_command() {
    let work = work();
    let at = |name: &str| work.path().join(name);
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    let parts = at("parts");
    compile("tiny", &["--target", "coreml", "--latent", "3x8x8", "--partition", "2"], &parts);
    let folder = arg(&parts);
    let pipeline = parts.join("partition.json");
    let whole = fs::read_to_string(&pipeline).expect("a description");
    ok(&["verify", &folder, "--golden", &reference]);
    let edits: [Edit; 7] = [
        ("inputs left out", |v| v["parts"][1]["inputs"] = json!([]), &["part1.mlpackage", "does not declare"]),
        (
            "one output left out",
            |v| drop(v["parts"][0]["outputs"].as_array_mut().map(|list| list.remove(0))),
            &["part"],
        ),
        ("another dtype", |v| v["parts"][1]["inputs"][0]["dtype"] = "i32".into(), &["i32"]),
        ("another shape", |v| v["parts"][1]["inputs"][0]["shape"] = json!([1, 2, 3]), &["[1, 2, 3]"]),
        ("other metadata", |v| v["metadata"]["s2ditc.latent"] = "9x9x9".into(), &["s2ditc.latent", "9x9x9"]),
        ("a part twice", |v| v["parts"][1]["file"] = v["parts"][0]["file"].clone(), &["part0.mlpackage", "twice"]),
        (
            "a part elsewhere",
            |v| v["parts"][0]["file"] = "../parts/part0.mlpackage".into(),
            &["../parts", "this folder"],
        ),
    ];
    for (what, edit, expected) in edits {
        edit_json(&pipeline, edit);
        for command in [&["inspect", &folder][..], &["lint", &folder], &["verify", &folder, "--golden", &reference]] {
            let error = fails(command);
            says(&error, expected);
            assert!(error.contains("partition.json") || error.contains(".mlpackage"), "{what}: {error}");
        }
        fs::write(&pipeline, &whole).expect("a description");
    }

    let kernel_dir = at("kernel");
    kernel("coreml", &["--functions", "separate"], &kernel_dir);
    let folder = arg(&kernel_dir);
    let contract = kernel_dir.join("contract.json");
    let whole = fs::read_to_string(&contract).expect("a contract");
    for name in ["prompt", "denoise", "commit"] {
        // As another tool writes them: no artifact carries a contract, so only what the artifacts are can speak against it.
        edit_package(&kernel_dir.join(name).with_extension("mlpackage"), |model| {
            let metadata = model.description.as_mut().and_then(|d| d.metadata.as_mut()).expect("metadata");
            metadata.user_defined.remove("s2ditc.contract").expect("a contract");
        });
    }
    let by_hand = |v: &mut Value| v["compiler"] = "a hand".into();
    edit_json(&contract, by_hand);
    let stream = ["stream", "-q", &folder, "--prompt-seed", "1"];
    ok(&stream);
    ok(&["lint", &folder]);
    let edits: [Edit; 6] = [
        (
            "another input",
            |v| v["functions"]["denoise"]["inputs"][0]["name"] = "latents".into(),
            &["denoise", "latents"],
        ),
        ("inputs left out", |v| v["functions"]["prompt"]["inputs"] = json!([]), &["prompt", "does not declare"]),
        (
            "another dtype",
            |v| v["functions"]["denoise"]["outputs"][0]["dtype"] = "i32".into(),
            &["denoise", "expected i32"],
        ),
        ("another shape", |v| v["functions"]["commit"]["outputs"][0]["shape"] = json!([7]), &["commit", "[7]"]),
        (
            "an endless shape",
            |v| v["states"][0]["shape"] = json!([1u64 << 40, 1u64 << 40]),
            &["contract.json", "elements"],
        ),
        ("no such file", |v| v["functions"]["commit"]["file"] = "gone.mlpackage".into(), &["gone.mlpackage"]),
    ];
    for (what, edit, expected) in edits {
        edit_json(&contract, edit);
        for command in [&["inspect", &folder][..], &["lint", &folder], &stream] {
            let error = fails(command);
            says(&error, expected);
            assert!(!error.contains("panicked"), "{what}: {error}");
        }
        fs::write(&contract, &whole).expect("a contract");
        edit_json(&contract, by_hand);
    }
}

#[test]
fn weights_outside_a_package_are_refused() {
    let work = work();
    let package = work.path().join("x.mlpackage");
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    for (file, offset) in
        [("/etc/passwd", 64), ("@model_path/../../../../etc/passwd", 64), ("weights.bin", 64), ("", 1 << 40)]
    {
        clip("coreml", &package);
        edit_package(&package, |model| {
            let program = model.ml_program.as_mut().expect("a program");
            let blocks = program.functions.values_mut().flat_map(|f| f.block_specializations.values_mut());
            let mut values = blocks
                .flat_map(|b| &mut b.operations)
                .flat_map(|op| op.attributes.values_mut())
                .filter_map(|v| v.value.as_mut());
            let blob = values.find_map(|v| match v {
                mil::value::Value::BlobFileValue(blob) => Some(blob),
                mil::value::Value::ImmediateValue(_) => None,
            });
            let blob = blob.expect("a blob");
            blob.offset = offset;
            if !file.is_empty() {
                blob.file_name = file.into();
            }
        });
        let place = arg(&package);
        for command in [&["inspect", &place][..], &["lint", &place], &["verify", &place, "--golden", &reference]] {
            let expected = if file.is_empty() { "offset 1099511627776" } else { file };
            says(&fails(command), &["x.mlpackage", "function `main`", expected]);
        }
    }
    let kernel_dir = work.path().join("kernel");
    kernel("onnx", &[], &kernel_dir);
    let model = kernel_dir.join("denoise.onnx");
    for place in ["/etc/passwd", "../x.data"] {
        edit_onnx(&model, |model| {
            let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
            let mut entries = tensors.flat_map(|t| &mut t.external_data).filter(|e| e.key == "location");
            entries.next().expect("external data").value = place.into();
        });
        let stream = ["stream", "-q", &arg(&kernel_dir), "--prompt-seed", "1"];
        for command in [&["inspect", &arg(&model)][..], &["verify", &arg(&model), "--golden", &reference], &stream] {
            says(&fails(command), &["denoise.onnx", place, "same folder"]);
        }
    }
}

#[test]
fn files_of_other_formats_are_named() {
    let work = work();
    let at = |name: &str| work.path().join(name);
    let zip = |name: &str| [&b"PK\x03\x04"[..], &[0; 26], name.as_bytes()].concat();
    let mut neural_network = mil::Model { specification_version: 4, ..Default::default() }.encode_to_vec();
    // Field 500, `neuralNetwork`, with a layer whose name is no UTF-8 for who takes it for a string.
    neural_network.extend([0x12, 4, 0x0a, 2, 0x0a, 0, 0xa2, 0x1f, 3, 0x0a, 1, 0xff]);
    let reference = golden("tiny").join("golden.safetensors");
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        ("x.pt", zip("x/data.pkl"), &["PyTorch checkpoint", "--config"]),
        ("x.pt2", zip("x/archive_format"), &["torch.export"]),
        ("old.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), &["pickle"]),
        ("x.mlmodel", neural_network, &["no ML Program", "coremltools"]),
        ("x.gguf", b"GGUF\x03\0\0\0\0\0\0\0".to_vec(), &["GGUF", "--config"]),
        ("page.onnx", b"<!DOCTYPE html><html>".to_vec(), &["web page"]),
        ("x.safetensors", fs::read(&reference).expect("a golden"), &["safetensors"]),
    ];
    let fine = at("fine.onnx");
    clip("onnx", &fine);
    for (name, bytes, expected) in cases {
        let place = at(name);
        fs::write(&place, bytes).expect("a file");
        let place = arg(&place);
        for command in [
            &["inspect", &place][..],
            &["lint", &place],
            &["verify", &place, "--golden", &arg(&reference)],
            &["stream", &place, "--prompt-seed", "1"],
        ] {
            let error = fails(command);
            says(&error, &[name]);
            says(&error, expected);
        }
        if name != "x.safetensors" {
            let error = fails(&["verify", &arg(&fine), "--golden", &place]);
            says(&error, &[name]);
            says(&error, &expected[..1]);
        }
    }
    let package = at("gguf.mlpackage");
    fs::write(&package, b"GGUF\x03\0\0\0\0\0\0\0").expect("a file");
    says(&fails(&["lint", &arg(&package)]), &["gguf.mlpackage", "GGUF"]);
    says(&fails(&["lint", &arg(&fine)]), &["fine.onnx", "an ONNX file"]);
}

/// Errors of a run name the artifact.
#[test]
fn errors_name_the_artifact() {
    let work = work();
    let package = work.path().join("x.mlpackage");
    clip("coreml", &package);
    edit_package(&package, |model| {
        let program = model.ml_program.as_mut().expect("a program");
        program.functions.get_mut("main").expect("main").opset = "CoreML7".into();
    });
    says(&fails(&["inspect", &arg(&package)]), &["x.mlpackage", "expected a block for opset"]);

    let model = work.path().join("x.onnx");
    let checkpoint = work.path().join("checkpoint");
    ok(&[
        "init",
        "-q",
        "--preset",
        "tiny",
        "--set",
        "chunk_frames=null",
        "--set",
        "sample_steps=2",
        "-o",
        &arg(&checkpoint),
    ]);
    ok(&["compile", "-q", &arg(&checkpoint), "--target", "onnx", "--latent", "3x8x8", "-o", &arg(&model)]);
    ok(&["stream", "-q", &arg(&model), "--prompt-seed", "1"]);
    edit_onnx(&model, |model| {
        let graph = model.graph.as_mut().expect("a graph");
        let old = std::mem::replace(&mut graph.output[0].name, "speed".into());
        let outputs = graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|o| **o == old);
        outputs.for_each(|output| *output = "speed".into());
    });
    says(&fails(&["stream", "-q", &arg(&model), "--prompt-seed", "1"]), &["x.onnx", "velocity"]);
}

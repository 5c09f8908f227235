//! The index of errors: every message of the sources has a class, no class is dead, and the program names the class of what it says.

mod scan;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use assert_cmd::assert::OutputAssertExt as _;
use s2ditc::errors::{Class, classes, messages};
use scan::Message;

use crate::common::{arg, fails, golden, ok, repo, s2ditc};

/// The class of a message of the sources: by its words, else by the file that makes it.
fn class_of(message: &Message) -> Result<&'static Class, String> {
    let Message { file, text } = message;
    let mut fits: Vec<&Class> =
        classes().iter().filter(|c| c.words.iter().any(|words| text.contains(words.as_str()))).collect();
    if fits.is_empty() {
        let longest = |class: &Class| class.from.iter().filter(|from| is_below(file, from)).map(String::len).max();
        let most =
            classes().iter().filter_map(longest).max().ok_or_else(|| format!("{file}: no class for `{text}`"))?;
        fits = classes().iter().filter(|class| longest(class) == Some(most)).collect();
    }
    let beaten: Vec<&String> = fits.iter().flat_map(|class| &class.over).collect();
    let winners: Vec<&&Class> = fits.iter().filter(|class| !beaten.contains(&&class.id)).collect();
    match winners.as_slice() {
        [only] => Ok(only),
        _ => {
            let ids: Vec<&str> = fits.iter().map(|class| class.id.as_str()).collect();
            Err(format!("{file}: `{text}` is of the classes {}: say with `over` which of them wins", ids.join(", ")))
        }
    }
}

/// Whether a file is, or lies in, what a path names.
fn is_below(file: &str, path: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The text of `messages.tsv`, or what is wrong.
fn table(root: &Path) -> Result<String, Vec<String>> {
    let (mut lines, mut wrong) = (BTreeSet::new(), vec![]);
    for message in scan::messages(root) {
        match class_of(&message) {
            Ok(class) => drop(lines.insert((&class.id, message.text))),
            Err(error) => wrong.push(error),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(lines.iter().map(|(id, text)| format!("{id}\t{text}\n")).collect())
}

/// The page of the index.
fn page() -> String {
    let mut out = String::from(
        "# Errors\n\nAn error names the file, the tensor or field, what was found and what was expected. Its last line names an id, and \
         `s2ditc explain ID` prints what this page has: a cause and a cure. Below each id stand all messages that have it; `…` is a value. \
         The exit code is 1, and 2 if the command line is wrong. An error has the id of its deepest cause that this page knows.\n",
    );
    let mut area = "";
    for class in classes() {
        if class.area != area {
            area = &class.area;
            out += &format!("\n## {area}\n");
        }
        let Class { id, title, cause, cure, .. } = class;
        out += &format!("\n### {id}\n\n**{title}.** {}\n\n*Cure.* {}\n\n```text\n", linked(cause), linked(cure));
        for text in messages(class).chain(class.also.iter().map(String::as_str)) {
            out += &format!("{}\n", text.replace("{}", "…"));
        }
        out += "```\n";
    }
    out
}

/// A text in which the names of pages are links.
fn linked(text: &str) -> String {
    let mut pieces = text.split("docs/");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (page, rest) = piece.split_once(".md").expect("a page");
        out += &format!("[{page}.md]({page}.md){rest}");
    }
    out
}

/// `messages.tsv` and docs/errors.md are what the sources and the classes say. `S2DITC_BLESS=1` writes both; it takes two runs, since the
/// page shows the messages that this program was built with.
#[test]
fn every_message_has_a_class() {
    let table = table(&repo()).unwrap_or_else(|wrong| panic!("{} messages:\n{}", wrong.len(), wrong.join("\n")));
    assert!(table.lines().count() > 1000, "{} messages", table.lines().count());
    for class in classes() {
        let has_messages = table.contains(&format!("{}\t", class.id)) || !class.also.is_empty();
        assert!(has_messages, "{} is the class of no message", class.id);
    }
    for (name, made) in [("compiler/src/errors/messages.tsv", table), ("docs/errors.md", page())] {
        if std::env::var_os("S2DITC_BLESS").is_some() {
            fs::write(repo().join(name), made).expect(name);
        } else {
            let written = fs::read_to_string(repo().join(name)).expect(name);
            assert!(
                written == made,
                "{name} is not what the sources say: S2DITC_BLESS=1 cargo test -p s2ditc --all-features --test commands errors, twice"
            );
        }
    }
}

/// Ids are in order and of their area, and what a cure tells a person to type is taken by the parser.
#[test]
fn classes_are_well_formed() {
    let ids: Vec<&str> = classes().iter().map(|class| class.id.as_str()).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    let mut cli = s2ditc::cli::command();
    cli.build();
    let commands: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let flags: BTreeSet<String> = cli
        .get_subcommands()
        .flat_map(|c| c.get_arguments())
        .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
        .collect();
    for class in classes() {
        assert!(class.id.len() == 5 && class.id.starts_with('E'), "{}", class.id);
        for text in [&class.title, &class.cause, &class.cure] {
            assert!(
                !text.trim().is_empty() && text.trim() == text && text.is_ascii() || text.contains(['…', '’', '×']),
                "{}: {text}",
                class.id
            );
        }
        assert!(class.cause.ends_with('.') && class.cure.ends_with('.') && !class.title.ends_with('.'), "{}", class.id);
        for code in class
            .cause
            .split('`')
            .chain(class.cure.split('`'))
            .filter(|code| code.starts_with("s2ditc ") || code.starts_with("--"))
        {
            for word in code.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(flags.contains(word), "{}: `{word}` is no flag", class.id);
            }
            let command = code.strip_prefix("s2ditc ").and_then(|rest| rest.split_whitespace().next());
            assert!(command.is_none_or(|name| commands.contains(&name) || name == "COMMAND"), "{}: `{code}`", class.id);
        }
        for page in class
            .cure
            .split_whitespace()
            .map(|w| w.trim_matches(['(', ')', ',', '.', ';', ':']))
            .filter(|w| w.starts_with("docs/"))
        {
            assert!(repo().join(page).is_file(), "{}: {page}", class.id);
        }
        assert!(class.over.iter().all(|id| ids.contains(&id.as_str())), "{}: {:?}", class.id, class.over);
    }
}

/// Errors that were printed, each with the id that it is to name.
fn each_names_its_class(cases: &[(&str, String)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(id, said)| !said.contains(&format!("s2ditc explain {id}\n")))
        .map(|(id, said)| format!("{id}: {said}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same words, `found …, expected …`, are of the class of what was being read.
#[test]
fn errors_of_what_is_run_name_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| arg(&dir.path().join(name));
    let (model, kernel, package) = (at("tiny"), at("kernel"), at("x.mlpackage"));
    ok(&["init", "--preset", "tiny", "--seed", "1", "-o", &model]);
    ok(&["compile", "-q", &model, "--target", "onnx", "--mode", "stream", "--latent", "4x4", "-o", &kernel]);
    ok(&["compile", "-q", &model, "--target", "coreml", "--latent", "1x4x4", "-o", &package]);
    // A text of another width, in a file of any ending; and one of numbers that are none.
    let write = |name: &str, tensors: &[(&str, &[usize], f32)]| {
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = (tensors.iter())
            .map(|(name, shape, x)| (*name, shape.to_vec(), x.to_le_bytes().repeat(shape.iter().product())))
            .collect();
        let views = bytes.iter().map(|(name, shape, data)| {
            (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
        });
        fs::write(at(name), safetensors::serialize(views, None).unwrap()).unwrap();
        at(name)
    };
    let wide: &[(&str, &[usize], f32)] = &[("text", &[1, 8, 33], 0.5)];
    let (wide, wide_too) = (write("wide.safetensors", wide), write("wide.st", wide));
    let nan = write("nan.safetensors", &[("text", &[1, 8, 32], f32::NAN)]);
    let noise = write("noise.safetensors", &[("stream.noise", &[1, 1, 1], 0.5)]);
    let inputs = write("in.safetensors", &[("latent", &[1, 4, 1, 4, 5], 0.5)]);
    let stream = |more: &[&str]| fails(&[&["stream", &kernel, "-o", &at("out.safetensors")], more].concat());
    // Large enough for a plan.
    let broad = at("broad");
    ok(&["init", "--preset", "tiny", "--set", "ffn_dim=1024", "--seed", "1", "-o", &broad]);
    let damaged = at("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(dir.path().join("damaged/contract.json"), "").unwrap();
    let pipeline = at("pipeline");
    fs::create_dir(&pipeline).unwrap();
    fs::write(dir.path().join("pipeline/pipeline.json"), "[]").unwrap();
    // A configuration of another class.
    let foreign = at("foreign");
    ok(&["init", "--preset", "tiny", "--seed", "1", "-o", &foreign]);
    let config = dir.path().join("foreign/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("S2DiTTransformer3DModel", "Foo");
    fs::write(config, text).unwrap();
    let cases = [
        ("E0708", stream(&["--prompt", &wide])),
        ("E0708", stream(&["--prompt", &wide_too])),
        ("E0708", stream(&["--prompt", &nan])),
        ("E0708", stream(&["--prompt-seed", "1", "--noise", &noise])),
        ("E0707", stream(&["--state-in", &wide])),
        ("E0703", fails(&["run", &package, "--inputs", &inputs, "-o", &at("out.safetensors")])),
        ("E0801", fails(&["verify", &package, "--golden", &wide])),
        ("E0503", fails(&["quantize", &broad, "--scheme", "palette4", "--calibrate", &wide, "-o", &at("plan.toml")])),
        ("E0708", fails(&["decode", &kernel, "--latents", &wide, "-o", &at("x.gif")])),
        ("E0706", fails(&["stream", &damaged, "--prompt-seed", "1"])),
        ("E0706", fails(&["inspect", &damaged])),
        ("E0706", fails(&["lint", &damaged])),
        ("E0709", fails(&["inspect", &pipeline])),
        ("E0201", fails(&["inspect", &foreign])),
        ("E0709", fails(&["generate", &pipeline, "--prompt", "x", "-o", &at("x.gif")])),
    ];
    each_names_its_class(&cases);
}

/// Errors that the program makes name the class of what happened.
#[test]
fn errors_name_their_class() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| arg(&dir.path().join(name));
    let model = at("tiny");
    ok(&["init", "--preset", "tiny", "--seed", "1", "-o", &model]);
    fs::write(at("cut.onnx"), b"\x08\x0a\x12").unwrap();
    fs::write(at("plan.toml"), "version = ").unwrap();
    fs::write(at("other.toml"), "format = \"x\"").unwrap();
    fs::write(at("newer.toml"), "format = \"s2ditc.quantize-plan\"\nversion = 99").unwrap();
    fs::write(at("binary.toml"), b"\xff\xfe").unwrap();
    fs::write(at("kinds.toml"), "source = \"x\"\n[[kind]]\nname = \"lchb\"\nlatency_ms = 1\nmemory_mb = 2\n").unwrap();
    fs::write(at("x.dat"), "hello world\n").unwrap();
    fs::write(at("costs.toml"), "source = \"x\"\n[[kind]]\nname = \"lcha\"\nlatency_ms = 1\nmemory_mb = 2\nzoo = 3\n")
        .unwrap();
    fs::write(at("x.s2"), "module {\n  what\n}\n").unwrap();
    fs::write(at("taken.onnx"), "not ours").unwrap();
    let odd = at("odd");
    fs::create_dir(&odd).unwrap();
    let config = fs::read_to_string(dir.path().join("tiny/config.json")).unwrap();
    let weights = dir.path().join("tiny/diffusion_pytorch_model.safetensors");
    let cut = at("cut");
    fs::create_dir(&cut).unwrap();
    fs::write(dir.path().join("cut/config.json"), &config).unwrap();
    fs::write(dir.path().join("cut/diffusion_pytorch_model.safetensors"), b"\x10\0\0\0\0\0\0\0{\"a\"").unwrap();
    fs::copy(&weights, dir.path().join("odd/diffusion_pytorch_model.safetensors")).unwrap();
    fs::write(
        dir.path().join("odd/config.json"),
        config.replacen("\"num_attention_heads\": ", "\"num_attention_heads\": -", 1),
    )
    .unwrap();
    let compile =
        |from: &str, to: &str, size: &str| fails(&["compile", from, "--target", "onnx", "--latent", size, "-o", to]);
    // Weights of one model, and the configuration of another.
    let mixed = at("mixed");
    ok(&["init", "--preset", "tiny", "--set", "ffn_dim=64", "--seed", "1", "-o", &mixed]);
    fs::write(dir.path().join("mixed/config.json"), &config).unwrap();
    let program = arg(&golden("import").join("dynamic.dec.pt2"));
    let graph =
        |more: &[&str]| fails(&[&["compile", &program, "--target", "onnx", "-o", &at("x.onnx")], more].concat());
    let quantized = |plan: &str| {
        let out = at("x.onnx");
        fails(&["compile", &model, "--target", "onnx", "--latent", "1x4x4", "--quantize", &at(plan), "-o", &out])
    };
    let cases = [
        ("E0003", compile(&model, &at("taken.onnx"), "1x4x4")),
        ("E0005", compile(&model, &at("no/folder/x.onnx"), "1x4x4")),
        ("E0006", fails(&["inspect", &at("nothing")])),
        ("E0102", compile(&cut, &at("x.onnx"), "1x4x4")),
        ("E0202", compile(&odd, &at("x.onnx"), "1x4x4")),
        ("E0204", compile(&model, &at("x.onnx"), "1x5x4")),
        ("E0306", compile(&at("x.s2"), &at("x.onnx"), "1x4x4")),
        ("E0501", quantized("plan.toml")),
        ("E0501", quantized("other.toml")),
        ("E0501", quantized("newer.toml")),
        ("E0006", quantized("binary.toml")),
        ("E0006", quantized("nothing.toml")),
        ("E0006", fails(&["estimate", &model, "--device", &at("binary.toml")])),
        (
            "E0903",
            fails(&["search", "--budget-latency", "9", "--budget-memory", "9", "--blocks-table", &at("costs.toml")]),
        ),
        (
            "E0903",
            fails(&["search", "--budget-latency", "9", "--budget-memory", "9", "--blocks-table", &at("kinds.toml")]),
        ),
        ("E0603", fails(&["inspect", &at("cut.onnx")])),
        ("E0203", fails(&["inspect", &at("x.dat")])),
        ("E0904", fails(&["search", "--budget-latency", "1", "--budget-memory", "1"])),
        ("E0107", compile(&mixed, &at("x.onnx"), "1x4x4")),
        ("E0006", fails(&["run", &at("nothing")])),
        ("E0006", fails(&["stream", &at("nothing"), "--prompt-seed", "1"])),
        ("E0006", compile(&at("nothing"), &at("x.onnx"), "1x4x4")),
        ("E0206", graph(&["--bind", "s1=5", "--input", "latent=nope"])),
        ("E0303", graph(&["--bind", "s1=77"])),
        ("E0904", fails(&["search", "--budget-latency", "9", "--budget-memory", "9", "--preset", "clip-tiny"])),
    ];
    each_names_its_class(&cases);
    let explained = ok(&["explain", "E0005"]);
    assert!(
        explained.starts_with("E0005: ") && explained.contains("\nCause: ") && explained.contains("\nCure: "),
        "{explained}"
    );
    let message = cases[1].1.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert_eq!(ok(&["explain", message]), explained, "a message does as well as its id");
    assert_eq!(ok(&["explain", &cases[1].1]), explained, "all lines that were printed do, too");
    let words: Vec<&str> = ["explain"].into_iter().chain(message.split(' ')).collect();
    assert_eq!(ok(&words), explained, "an error without quotes does, too");
    let listed: serde_json::Value = serde_json::from_str(&ok(&["explain", "--json"])).unwrap();
    assert_eq!(listed["errors"].as_array().unwrap().len(), classes().len());
    s2ditc().args(["explain", "E9999"]).assert().code(2);
}

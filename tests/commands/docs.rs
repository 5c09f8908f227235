//! The pages under docs/ say what is so: the tables of flags are those of the command line, every field and metadata key of the
//! formats has its line, and no link leads nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, golden, ok, repo};
use serde_json::Value;

/// A page of the repository.
#[track_caller]
fn page(name: &str) -> String {
    fs::read_to_string(repo().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Text fit for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// What a flag or argument is called, and the values that it takes.
fn usage(flag: &clap::Arg) -> String {
    let value = flag.get_action().takes_values().then(|| {
        let names = flag.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| flag.get_id().as_str().to_uppercase(), ToString::to_string)
    });
    match (flag.get_short(), flag.get_long(), value) {
        (_, None, value) => value.unwrap_or_default(),
        (None, Some(long), None) => format!("--{long}"),
        (None, Some(long), Some(value)) if flag.is_require_equals_set() => format!("--{long}[={value}]"),
        (None, Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(short), Some(long), None) => format!("-{short}, --{long}"),
        (Some(short), Some(long), Some(value)) => format!("-{short}, --{long} {value}"),
    }
}

/// The table of a command's arguments and flags.
fn table<'a>(flags: impl Iterator<Item = &'a clap::Arg>) -> String {
    let mut out = String::from("| argument | meaning |\n|---|---|\n");
    for flag in flags {
        let mut meaning = cell(&flag.get_help().map(ToString::to_string).unwrap_or_default());
        let values: Vec<_> = flag.get_possible_values().iter().map(|v| v.get_name().to_string()).collect();
        if flag.get_action().takes_values() && !values.is_empty() {
            meaning += &format!(" [values: {}]", values.join(", "));
        }
        let defaults: Vec<_> = flag.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        if flag.get_action().takes_values() && !defaults.is_empty() {
            meaning += &format!(" [default: {}]", defaults.join(" "));
        }
        out += &format!("| `{}` | {meaning} |\n", cell(&usage(flag)));
    }
    out
}

/// `page` with what stands between the two marks of `name` replaced by `text`.
fn replaced(page: &str, name: &str, text: &str) -> String {
    let (start, end) = (format!("<!-- flags of {name} -->\n"), "<!-- end -->");
    let at =
        page.find(&start).unwrap_or_else(|| panic!("docs/commands.md has no mark `{}`", start.trim())) + start.len();
    let to = at + page[at..].find(end).expect("an end mark");
    format!("{}{text}{}", &page[..at], &page[to..])
}

/// Every command and every flag of `--help` is in docs/commands.md, in the words of `--help`. `S2DITC_BLESS=1` writes the tables.
#[test]
fn commands_and_flags() {
    let mut cli = s2ditc::cli::command();
    cli.build();
    let written = page("docs/commands.md");
    let is_listed = |flag: &&clap::Arg| !flag.is_hide_set() && !["help", "version"].contains(&flag.get_id().as_str());
    let mut made = replaced(&written, "every command", &table(cli.get_arguments().filter(is_listed)));
    let mut commands = 0;
    for command in cli.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let own = |flag: &&clap::Arg| is_listed(flag) && !flag.is_global_set();
        made = replaced(&made, command.get_name(), &table(command.get_arguments().filter(own)));
        assert!(made.contains(&format!("\n## {}\n", command.get_name())), "a section for {}", command.get_name());
        commands += 1;
    }
    assert!(commands >= 10, "{commands} commands");
    assert_eq!(written.matches("<!-- flags of ").count(), commands + 1, "tables of commands that there are not");
    if std::env::var_os("S2DITC_BLESS").is_some() {
        fs::write(repo().join("docs/commands.md"), made).expect("docs/commands.md");
    } else {
        assert!(
            made == written,
            "docs/commands.md is not what --help says: S2DITC_BLESS=1 cargo test -p s2ditc --test commands docs"
        );
    }
}

/// The commands of the first half hour and of every example are commands that the parser takes.
#[test]
fn examples_parse() {
    let mut seen = 0;
    for name in pages() {
        let text = fs::read_to_string(&name).expect("a page");
        for line in text.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).flat_map(str::lines) {
            let line = line.split(" # ").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
            let line = line.split(" || ").next().unwrap_or_default().trim();
            let line = line.split(" > ").next().unwrap_or_default();
            if !line.starts_with("s2ditc ") || line.contains('…') {
                continue;
            }
            let words = words(line);
            if let Err(error) = s2ditc::cli::command().try_get_matches_from(&words) {
                panic!("{}: `{line}`: {error}", name.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen} examples");
}

/// The words of a command line as a shell takes them: quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let (mut word, mut quote) = (None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote that does not end: {line}");
    words.extend(word);
    words
}

/// Every page for people.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![repo().join("README.md"), repo().join("CONTRIBUTING.md")];
    for folder in [
        "docs",
        "docs/models",
        "docs/tutorials",
        "examples/conformance",
        "examples/reference",
        "examples/host",
        "examples/device-report",
        "examples/search",
        "examples/swift",
        "examples/toyworld",
        "tests/fuzz",
        "tests/goldens",
    ] {
        let entries = fs::read_dir(repo().join(folder)).expect("a folder");
        found.extend(entries.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    found.sort();
    found
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Links between pages lead to files, and to headings that there are.
#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for name in pages() {
        let text = fs::read_to_string(&name).expect("a page");
        // Every other piece between fences is code.
        let prose: String = text.split("\n```").step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) =
                target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
            let to = if file.is_empty() { name.clone() } else { name.parent().unwrap_or(Path::new("")).join(file) };
            assert!(to.exists(), "{}: a link to `{target}`", name.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&to).expect("a page");
                let found = text.lines().filter(|l| l.starts_with('#')).any(|l| anchor(l) == heading);
                assert!(found, "{}: a link to `{target}`, a heading that there is not", name.display());
            }
            links += 1;
        }
    }
    assert!(links >= 30, "{links} links");
}

/// The file of a device is described whole.
#[test]
fn figures_of_a_device() {
    use s2ditc::estimate::device::{Figures, Limits};
    let names = Figures::NAMES.iter().chain(Limits::NAMES).map(|(name, _)| *name);
    all_named("docs/estimate.md", &page("docs/estimate.md"), names);
}

/// Every page is in the book, and the book has no other.
#[test]
fn the_book_has_every_page() {
    let summary = page("docs/book/SUMMARY.md");
    let listed: BTreeSet<PathBuf> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| repo().join(target))
        .collect();
    let pages: BTreeSet<PathBuf> = pages().into_iter().collect();
    let missing: Vec<_> = pages.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "not both a page and in docs/book/SUMMARY.md: {missing:?}");
}

/// `docs/llms.txt` lists every page with its first sentence, for programs that read. `S2DITC_BLESS=1` writes it.
#[test]
fn pages_for_programs() {
    let summary = page("docs/book/SUMMARY.md");
    let mut made = String::from("# s2ditc\n");
    for line in summary.lines().skip(1).filter(|line| !line.is_empty()) {
        let Some((title, target)) = line.trim_start_matches([' ', '-']).trim_matches(['[', ')']).split_once("](")
        else {
            made += &format!("\n## {}\n\n", line.trim_start_matches('#').trim());
            continue;
        };
        let text = page(target);
        // The first paragraph, up to its first full stop before a blank.
        let is_prose = |block: &&str| {
            block.starts_with(|c: char| c.is_alphanumeric() || "`*[".contains(c)) && !block.starts_with("```")
        };
        let first = text.split("\n\n").map(str::trim).skip(1).find(is_prose);
        let first = first.map(cell).unwrap_or_else(|| panic!("{target}: no first sentence"));
        let sentence = plain(&first[..first.find(". ").map_or(first.len(), |at| at + 1)]);
        match title == "s2ditc" {
            true => made += &format!("\n> {sentence}\n"),
            false => {
                let target = target.strip_prefix("docs/").map_or_else(|| format!("../{target}"), str::to_owned);
                made += &format!("- [{title}]({target}): {sentence}\n");
            }
        }
    }
    let place = repo().join("docs/llms.txt");
    if std::env::var_os("S2DITC_BLESS").is_some() {
        fs::write(place, made).expect("docs/llms.txt");
    } else {
        assert!(
            made == page("docs/llms.txt"),
            "docs/llms.txt is not of these pages: S2DITC_BLESS=1 cargo test -p s2ditc --test commands docs"
        );
    }
}

/// Markdown without the targets of its links.
fn plain(text: &str) -> String {
    let mut pieces = text.split("](");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out += piece.split_once(')').map_or(piece, |(_, rest)| rest);
    }
    out.replace(['[', ']', '*'], "")
}

/// The keys of a JSON value, at every depth.
fn keys(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                out.insert(key.clone());
                keys(value, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, out)),
        _ => {}
    }
}

#[track_caller]
fn all_named(page: &str, text: &str, names: impl IntoIterator<Item = impl AsRef<str>>) {
    let absent: Vec<String> = names
        .into_iter()
        .map(|name| name.as_ref().to_string())
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(absent.is_empty(), "{page} does not name {absent:?}");
}

#[test]
fn fields_of_the_configuration() {
    let config = page("docs/config.md");
    for family in s2dit_models::FAMILIES {
        assert!(family.fields().len() > 4);
        all_named("docs/config.md", &config, [family.class()]);
        // A family has a page of its own, or its fields are in config.md.
        let own = format!("docs/models/{}.md", family.name().to_lowercase());
        let (name, text) =
            if repo().join(&own).exists() { (&*own, page(&own)) } else { ("docs/config.md", config.clone()) };
        all_named(name, &text, family.fields());
    }
    all_named("docs/config.md", &config, s2dit_models::config::presets());
}

/// What artifacts, contracts, pipelines and plans hold, as this build writes them.
#[test]
fn keys_of_the_formats() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = |name: &str| arg(&work.path().join(name));
    let (tiny, stream) = (out("tiny"), arg(&golden("stream_tiny").join("checkpoint")));
    // Wide enough to have weights that are worth compressing.
    let sets = ["--set", "num_attention_heads=4", "--set", "attention_head_dim=32", "--set", "ffn_dim=256"];
    ok(&[&["init", "-q", "--preset", "tiny", "-o", &tiny], &sets[..]].concat());
    let plan = out("plan.toml");
    ok(&["quantize", "-q", &tiny, "--scheme", "w8a8", "--latent", "1x8x8", "-o", &plan]);
    let coreml = ["--target", "coreml", "--latent", "1x8x8"];
    ok(&[&["compile", "-q", &tiny, "-o", &out("a.mlpackage"), "--quantize", &plan], &coreml[..]].concat());
    ok(&[
        &["compile", "-q", &tiny, "-o", &out("parts"), "--partition", "2", "--timesteps", "from-config"],
        &coreml[..],
    ]
    .concat());
    ok(&["compile", "-q", &stream, "--target", "coreml", "--mode", "stream", "--latent", "8x8", "-o", &out("kernel")]);
    ok(&[
        &["compile", "-q", &stream, "--target", "coreml", "--mode", "stream", "--latent", "8x8", "-o", &out("native")]
            [..],
        &["--states", "native"],
    ]
    .concat());

    let mut names = BTreeSet::new();
    let json = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let pipeline = json(work.path().join("parts/partition.json"));
    keys(&pipeline, &mut names);
    let pair = work.path().join("pair");
    for component in ["transformer", "transformer_2"] {
        ok(&["init", "-q", "--preset", "wan-tiny", "-o", &{
            fs::create_dir_all(&pair).expect("a folder");
            arg(&pair.join(component))
        }]);
    }
    let index = r#"{"boundary_ratio": 0.9, "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": ["diffusers", "WanTransformer3DModel"]}"#;
    fs::write(pair.join("model_index.json"), index).expect("an index");
    ok(&[&["compile", "-q", &arg(&pair), "-o", &out("experts")], &coreml[..]].concat());
    keys(&json(work.path().join("experts/experts.json")), &mut names);
    let whole = arg(&golden("pipeline_wan").join("pipeline"));
    ok(&["compile", "-q", &whole, "--target", "onnx", "--size", "16x16", "--frames", "1", "-o", &out("pipeline")]);
    let mut contract = json(work.path().join("pipeline/pipeline.json"));
    // The fields of a scheduler are diffusers'.
    contract["scheduler"].as_object_mut().expect("an object").remove("config");
    keys(&contract, &mut names);
    for kernel in ["kernel", "native"] {
        let mut contract = json(work.path().join(kernel).join("contract.json"));
        // Fields of the configuration have a page of their own.
        contract.as_object_mut().expect("an object").remove("config");
        keys(&contract, &mut names);
        names.insert("config".into());
    }
    for artifact in ["a.mlpackage", "parts/part0.mlpackage", "kernel/kernel.mlpackage"] {
        let report: Value = serde_json::from_str(&ok(&["inspect", "--json", &out(artifact)])).expect("JSON");
        names.extend(report["metadata"].as_object().expect("metadata").keys().cloned());
    }
    for line in fs::read_to_string(&plan).expect("a plan").lines().filter(|line| !line.starts_with('#')) {
        // `key = value`, `[table]` or `[[table]]`.
        let key = line.split(" = ").next().unwrap_or_default().trim_matches(['[', ']']);
        names.insert(key.to_string());
    }
    names.retain(|name| !name.is_empty());
    assert!(names.len() > 50, "{names:?}");
    all_named("docs/formats.md", &page("docs/formats.md"), names);
}

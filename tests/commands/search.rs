//! `s2ditc search`: layouts under budgets, the configuration that it writes, and the scores of a supernet.

use std::fs;
use std::path::Path;

use crate::common::{arg, fails, ok};
use serde_json::Value;

fn search(args: &[&str]) -> Value {
    serde_json::from_str(&ok(&[&["search", "--json"], args].concat())).expect("JSON")
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("a file");
    arg(&path)
}

/// Table 3 of the paper: 24 blocks of LCHA take 900 ms, of SSA 258.
const PAPER: &str = "source = \"arXiv 2601.12719, Table 3\"\n\
    [[kind]]\nname = \"lcha\"\nlatency_ms = 37.5\nmemory_mb = 75\n[[kind]]\nname = \"ssa\"\nlatency_ms = 10.75\nmemory_mb = 75\n";

#[test]
fn the_papers_budget_has_ten_lcha_of_24() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = write(dir.path(), "table.toml", PAPER);
    let found = search(&["--budget-latency", "531", "--budget-memory", "1800", "--blocks-table", &table]);
    let lcha = found["counts"]["lcha"].as_u64().unwrap();
    assert!((9..=11).contains(&lcha), "{found}");
    assert_eq!(found["layout"].as_array().unwrap().len(), 24);
    assert_eq!(found["places"], "interleaved");
}

#[test]
fn a_layout_on_estimates_is_a_configuration_that_other_commands_take() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&dir.path().join(name));
    // The budget that the paper's own layout takes by this program's estimate.
    let whole: Value = serde_json::from_str(&ok(&["estimate", "--json", "--preset", "mobile"])).unwrap();
    let ms = whole["step_ms"]["likely"].as_f64().unwrap().ceil().to_string();
    let mb = (whole["peak_memory_bytes"].as_f64().unwrap() / 1e6).ceil().to_string();
    let (config, page) = (at("config.json"), at("page.html"));
    let budgets = ["--budget-latency", &ms, "--budget-memory", &mb];
    let found = search(&[&budgets[..], &["-o", &config, "--report", &page]].concat());
    let lcha = found["counts"]["lcha"].as_u64().unwrap();
    assert!((9..=11).contains(&lcha), "{}", found["counts"]);
    let cost = &found["cost"];
    assert!(cost["latency_ms"].as_f64().unwrap() <= ms.parse().unwrap());
    // What the blocks add up to is what the whole is estimated at.
    let again: Value = serde_json::from_str(&ok(&["estimate", "--json", "--config", &config])).unwrap();
    let sum = cost["latency_ms"].as_f64().unwrap() / again["step_ms"]["likely"].as_f64().unwrap();
    assert!((0.97..1.03).contains(&sum), "{sum}");
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("layout under budgets") && text.contains("rule and no measurement") && !text.contains("<script")
    );
    // Over its own file it writes; over another's it does not.
    search(&[&budgets[..], &["-o", &config]].concat());
    let mine = write(dir.path(), "mine.json", "{}");
    assert!(fails(&[&["search"], &budgets[..], &["-o", &mine]].concat()).contains("mine.json"));
}

#[test]
fn a_small_configuration_is_made_and_compiled() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&dir.path().join(name));
    let config = at("config.json");
    search(&[
        "--preset",
        "tiny",
        "--budget-latency",
        "50",
        "--budget-memory",
        "50",
        "--blocks",
        "6",
        "--latent",
        "3x8x8",
        "-o",
        &config,
    ]);
    let layout = fs::read_to_string(&config).unwrap();
    let value: Value = serde_json::from_str(&layout).unwrap();
    let set = format!("layout={}", value["layout"]);
    ok(&["init", "-q", "--preset", "tiny", "--set", &set, "-o", &at("checkpoint")]);
    fs::copy(&config, Path::new(&at("checkpoint")).join("config.json")).unwrap();
    ok(&["compile", "-q", &at("checkpoint"), "--target", "coreml", "--latent", "3x8x8", "-o", &at("step.mlpackage")]);
    ok(&["estimate", "-q", "--config", &config, "--latent", "3x8x8"]);
}

#[test]
fn scores_decide_places_and_a_change_of_stream_costs() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = |switch: f64| {
        let text = format!("{PAPER}[switch]\nlatency_ms = {switch}\nmemory_mb = 0\n");
        write(dir.path(), &format!("table{switch}.toml"), &text)
    };
    // Group by group the scores would change the stream each time.
    let groups: String = (0..8)
        .map(|i| {
            format!(
                "[[group]]\nlcha = {}\nssa = {}\n",
                if i % 2 == 0 { 1.0 } else { 0.0 },
                if i % 2 == 0 { 0.0 } else { 1.0 }
            )
        })
        .collect();
    let scores = write(dir.path(), "scores.toml", &format!("source = \"a test\"\n{groups}"));
    let found = |switch: f64, latency: &str| {
        search(&[
            "--budget-latency",
            latency,
            "--budget-memory",
            "1800",
            "--blocks-table",
            &table(switch),
            "--blocks",
            "16",
            "--group",
            "2",
            "--scores",
            &scores,
        ])
    };
    let free = found(0.0, "1000");
    let kinds: Vec<&str> = free["layout"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    assert_eq!(kinds, ["lcha", "lcha", "ssa", "ssa"].repeat(4));
    assert_eq!((free["places"].as_str(), free["quality"].as_f64()), (Some("scores"), Some(8.0)));
    assert!(!free["front"].as_array().unwrap().is_empty());
    // 400 ms would be enough for all of these blocks, and not for four changes of stream.
    let dear = found(30.0, "400");
    assert!(dear["quality"].as_f64().unwrap() < 8.0 && dear["cost"]["latency_ms"].as_f64().unwrap() <= 400.0, "{dear}");
}

#[test]
fn bad_input_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = write(dir.path(), "table.toml", PAPER);
    let twice = write(dir.path(), "twice.toml", &PAPER.replace("\"ssa\"", "\"lcha\""));
    let strange = write(dir.path(), "strange.toml", &PAPER.replace("\"lcha\"", "\"lchb\""));
    let scores = write(dir.path(), "scores.toml", "source = \"x\"\n[[group]]\nlcha = 1.0\n");
    let budgets = ["--budget-latency", "531", "--budget-memory", "1800"];
    let none = dir.path().join("none.toml");
    for (args, says) in [
        (vec!["--budget-latency", "100", "--budget-memory", "1800", "--blocks-table", &table], "at least 258 ms"),
        ([&budgets[..], &["--blocks-table", &table, "--group", "5"]].concat(), "a multiple of the group"),
        ([&budgets[..], &["--blocks-table", &twice]].concat(), "kind lcha: found twice"),
        ([&budgets[..], &["--blocks-table", &strange]].concat(), "kind: found \"lchb\""),
        ([&budgets[..], &["--blocks-table", &table, "--scores", &scores]].concat(), "found 1 groups, expected 24"),
        (
            [&budgets[..], &["--blocks-table", &table, "--blocks", "1", "--scores", &scores]].concat(),
            "a quality of ssa",
        ),
        ([&budgets[..], &["--blocks-table", &arg(&none)]].concat(), "none.toml"),
        ([&budgets[..], &["--preset", "wan2.1-1.3b"]].concat(), "layout"),
    ] {
        let error = fails(&[&["search"], &args[..]].concat());
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

//! Damaged programs: of every mutant one error or a graph that holds, never a panic, never minutes. `S2DITC_MUTANTS` says how many.

use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use s2dit_import::{Ask, import, importer_of};
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const PROGRAM: &str = "serialized_exported_program.json";

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/import")
}

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).expect("a zip file");
    (0..zip.len())
        .map(|i| {
            let mut entry = zip.by_index(i).expect("an entry");
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("its bytes");
            (entry.name().to_owned(), data)
        })
        .collect()
}

fn packed(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, data) in entries {
        zip.start_file(name.as_str(), stored).expect("an entry");
        zip.write_all(data).expect("its bytes");
    }
    zip.finish().expect("a zip file").into_inner()
}

/// Numbers that programs do not expect.
const NUMBERS: [i64; 12] = [0, 1, -1, 2, 7, -7, 64, 1 << 20, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// Changes one value somewhere in the JSON; `words` are strings of it.
fn damage(json: &mut Value, words: &[String], rng: &mut ChaCha8Rng) {
    let mut at = json;
    loop {
        let stop = rng.random_bool(0.04);
        let inner: usize = match &at {
            Value::Object(map) => map.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if inner == 0 || stop {
            break;
        }
        let index = rng.random_range(0..inner);
        at = match at {
            Value::Object(map) => map.values_mut().nth(index).expect("a value"),
            Value::Array(list) => &mut list[index],
            _ => return,
        };
    }
    match (&mut *at, rng.random_range(0..5)) {
        (Value::Array(list), 0..3) if !list.is_empty() => {
            let index = rng.random_range(0..list.len());
            match rng.random_range(0..3) {
                0 => {
                    list.remove(index);
                }
                1 => list.push(list[index].clone()),
                _ => {
                    let other = rng.random_range(0..list.len());
                    list.swap(index, other);
                }
            }
        }
        (Value::Object(map), 0..3) if !map.is_empty() => {
            let key = map.keys().nth(rng.random_range(0..map.len())).expect("a key").clone();
            map.remove(&key);
        }
        (Value::Number(_), 0..4) => *at = Value::from(*NUMBERS.choose(rng).expect("numbers")),
        (Value::String(_), 0..4) => *at = Value::from(words.choose(rng).expect("words").as_str()),
        (value, _) => {
            *value = match rng.random_range(0..6) {
                0 => Value::Null,
                1 => Value::from(*NUMBERS.choose(rng).expect("numbers")),
                2 => Value::from(words.choose(rng).expect("words").as_str()),
                3 => Value::Array(vec![value.clone(), value.clone()]),
                4 => Value::Bool(rng.random()),
                _ => Value::from(f64::from(rng.random::<f32>()) * 1e6),
            }
        }
    }
}

fn strings(json: &Value, out: &mut Vec<String>) {
    match json {
        Value::String(text) => out.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| strings(value, out)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            out.push(key.clone());
            strings(value, out);
        }),
        _ => {}
    }
}

#[test]
fn a_damaged_program_is_an_error_or_a_sound_graph() {
    let count: usize = std::env::var("S2DITC_MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mutant.pt2");
    let (mut errors, mut graphs, mut slowest) = (0, 0, Duration::ZERO);
    let names = ["clip.raw", "clip.dec", "umt5.dec", "variant_geglu.raw", "variant_l2_keys.dec", "wan.raw"];
    for round in 0..count {
        let name = names[round % names.len()];
        let bytes = std::fs::read(goldens().join(format!("{name}.pt2"))).expect("a golden");
        let mutant = if round % 4 == 0 {
            // Anything in the file: its directory, its pickles, its numbers.
            let mut bytes = bytes;
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            if rng.random_bool(0.1) {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            bytes
        } else {
            let mut entries = entries(&bytes);
            let (_, text) = entries.iter_mut().find(|(name, _)| name == PROGRAM).expect("the program");
            let mut json: Value = serde_json::from_slice(text).expect("JSON");
            let mut words = Vec::new();
            strings(&json, &mut words);
            let graph = json.pointer_mut(if rng.random_bool(0.8) { "/graph_module/graph/nodes" } else { "" });
            let graph = graph.expect("the calls");
            for _ in 0..rng.random_range(1..4) {
                damage(graph, &words, &mut rng);
            }
            *text = json.to_string().into_bytes();
            packed(&entries)
        };
        std::fs::write(&file, mutant).expect("a file");
        let start = Instant::now();
        let Some(importer) = importer_of(&file) else {
            errors += 1;
            continue;
        };
        match import(importer, &file, &Ask::default()) {
            Ok(_) => graphs += 1,
            Err(problems) => {
                let text = problems.to_string();
                assert!(text.contains("mutant.pt2"), "{name}, round {round}: {text}");
                assert!(!text.contains("defect"), "{name}, round {round}: {text}");
                errors += 1;
            }
        }
        slowest = slowest.max(start.elapsed());
        assert!(slowest < Duration::from_secs(20), "{name}, round {round}: {slowest:?}");
    }
    println!("{count} mutants: {errors} errors, {graphs} graphs, the slowest {slowest:?}");
    assert!(errors * 5 > count && graphs * 20 > count, "{errors} errors, {graphs} graphs of {count}");
}

/// A golden in which the argument `name` of some call is changed.
fn with_argument(golden: &str, name: &str, change: impl FnOnce(&mut Vec<Value>, usize)) -> String {
    let mut entries = entries(&std::fs::read(goldens().join(golden)).expect("a golden"));
    let (_, text) = entries.iter_mut().find(|(name, _)| name == PROGRAM).expect("the program");
    let mut json: Value = serde_json::from_slice(text).expect("JSON");
    let nodes = json.pointer_mut("/graph_module/graph/nodes").and_then(Value::as_array_mut).expect("the calls");
    let place = |node: &Value| node["inputs"].as_array()?.iter().position(|input| input["name"] == name);
    let (node, at) = nodes.iter_mut().find_map(|node| place(node).map(|at| (node, at))).expect("the argument");
    change(node["inputs"].as_array_mut().expect("arguments"), at);
    *text = json.to_string().into_bytes();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("changed.pt2");
    std::fs::write(&file, packed(&entries)).expect("a file");
    match import(importer_of(&file).expect("a program"), &file, &Ask::default()) {
        Ok(_) => "read".into(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn an_argument_that_is_not_understood_is_refused() {
    let golden = "variant_grouped_queries.raw.pt2";
    assert_eq!(with_argument(golden, "approximate", |_, _| ()), "read", "nothing is changed");
    let said = with_argument(golden, "approximate", |inputs, at| inputs[at]["arg"] = serde_json::json!({"as_int": 1}));
    assert!(said.contains("argument `approximate`: found as_int, expected a text"), "{said}");
    let said = with_argument(golden, "approximate", |inputs, at| inputs[at]["arg"]["as_string"] = "tahn".into());
    assert!(said.contains("approximate \"tahn\""), "{said}");
    let said = with_argument(golden, "bias", |inputs, at| inputs[at]["name"] = "biaz".into());
    assert!(said.contains("argument `biaz`: the op does not take it"), "{said}");
    let said = with_argument(golden, "weight", |inputs, at| inputs.push(inputs[at].clone()));
    assert!(said.contains("argument `weight` is there twice"), "{said}");
}

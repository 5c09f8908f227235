//! Programs of `torch.export`: what their JSON says of nodes, tensors and results is changed, or bytes of the file.

use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::path::PathBuf;

use crate::common::repo;
use serde_json::{Value as Json, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Draw, Mutant, ODD, mutants_are_read_or_refused};

/// A golden as its entries.
struct Original {
    name: String,
    bytes: Vec<u8>,
    entries: Vec<(String, Vec<u8>)>,
    program: usize,
    json: Json,
}

fn originals() -> Vec<Original> {
    let folder = repo().join("tests/goldens/import");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("goldens").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|e| e == "pt2"));
    paths.iter().map(|path| original(path)).collect()
}

fn original(path: &std::path::Path) -> Original {
    let bytes = fs::read(path).expect("a file");
    let mut zip = ZipArchive::new(Cursor::new(&bytes)).expect("an archive");
    let mut entries = Vec::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).expect("an entry");
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("its bytes");
        entries.push((entry.name().to_owned(), data));
    }
    let is_program = |name: &str| name == "serialized_exported_program.json" || name.contains("/models/");
    let program = entries.iter().position(|(name, _)| is_program(name)).expect("a program");
    // Numbers that JSON lacks stand in masks alone.
    let text = String::from_utf8(entries[program].1.clone()).expect("text");
    let text = text.replace("-Infinity", "-1e300").replace("Infinity", "1e300").replace("NaN", "0");
    let json = serde_json::from_str(&text).expect("JSON");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Original { name, bytes, entries, program, json }
}

/// How many places of JSON `good` keeps.
fn count(json: &Json, good: &dyn Fn(&Json) -> bool) -> usize {
    let below: usize = match json {
        Json::Array(list) => list.iter().map(|j| count(j, good)).sum(),
        Json::Object(map) => map.values().map(|j| count(j, good)).sum(),
        _ => 0,
    };
    usize::from(good(json)) + below
}

/// The place with this number of those that `good` keeps.
fn place<'j>(json: &'j mut Json, good: &dyn Fn(&Json) -> bool, left: &mut usize) -> Option<&'j mut Json> {
    if good(json) {
        if *left == 0 {
            return Some(json);
        }
        *left -= 1;
    }
    match json {
        Json::Array(list) => list.iter_mut().find_map(|j| place(j, good, left)),
        Json::Object(map) => map.values_mut().find_map(|j| place(j, good, left)),
        _ => None,
    }
}

/// A place by chance of those that `good` keeps.
fn any<'j>(json: &'j mut Json, good: &dyn Fn(&Json) -> bool, draw: &mut Draw) -> Option<&'j mut Json> {
    let mut left = draw.next(count(json, good).max(1));
    place(json, good, &mut left)
}

/// Changes one thing of a program.
fn change(program: &mut Json, draw: &mut Draw) {
    let graph = &mut program["graph_module"]["graph"];
    let Some(nodes) = graph["nodes"].as_array_mut() else { return };
    if nodes.is_empty() {
        return;
    }
    let (n, other) = (draw.next(nodes.len()), draw.next(nodes.len()));
    let name_of = |node: &Json| node["outputs"][0]["as_tensor"]["name"].as_str().map(str::to_owned);
    match draw.next(14) {
        0 => {
            nodes.remove(n);
        }
        1 => nodes.swap(n, other),
        2 => nodes[n]["target"] = nodes[other]["target"].clone(),
        3 => {
            // Another tensor as an argument.
            let name = name_of(&nodes[other]);
            let argument = any(&mut nodes[n]["inputs"], &|j| j.get("as_tensor").is_some(), draw);
            if let (Some(argument), Some(name)) = (argument, name) {
                *argument = json!({"as_tensor": {"name": name}});
            }
        }
        4 => {
            if let Some(inputs) = nodes[n]["inputs"].as_array_mut()
                && !inputs.is_empty()
            {
                inputs.remove(draw.next(inputs.len()));
            }
        }
        5..=7 => {
            // Another number: an axis, a size, a position.
            let number = draw.of(&ODD);
            if let Some(place) = any(&mut nodes[n]["inputs"], &Json::is_number, draw) {
                *place = if place.is_f64() { json!(number as f64 * 0.5) } else { json!(number) };
            }
        }
        8 => {
            if let Some(place) = any(&mut nodes[n]["inputs"], &Json::is_boolean, draw) {
                *place = json!(draw.next(2) == 0);
            }
        }
        9 => {
            // An argument of another kind.
            let kinds = [
                json!({"as_none": true}),
                json!({"as_int": 1}),
                json!({"as_float": 0.5}),
                json!({"as_bool": true}),
                json!({"as_ints": [1, 2]}),
                json!([]),
                json!("x"),
            ];
            let kind = kinds[draw.next(kinds.len())].clone();
            if let Some(inputs) = nodes[n]["inputs"].as_array_mut()
                && !inputs.is_empty()
            {
                let at = draw.next(inputs.len());
                inputs[at]["arg"] = kind;
            }
        }
        10 => {
            let number = draw.of(&ODD);
            if let Some(place) = any(&mut graph["tensor_values"], &Json::is_number, draw) {
                *place = json!(number);
            }
        }
        11 => {
            let swapped = draw.next(2) == 0;
            let specs = &mut program["graph_module"]["signature"][if swapped { "input_specs" } else { "output_specs" }];
            if let Some(list) = specs.as_array_mut()
                && !list.is_empty()
            {
                let (at, other) = (draw.next(list.len()), draw.next(list.len()));
                match draw.next(3) {
                    0 => {
                        list.remove(at);
                    }
                    1 => list.swap(at, other),
                    _ => list.push(list[at].clone()),
                }
            }
        }
        12 => {
            // A name that nothing has.
            if let Some(place) = any(program, &Json::is_string, draw) {
                *place = json!("nothing");
            }
        }
        _ => {
            if let Some(Json::Object(map)) = any(program, &Json::is_object, draw) {
                let key = map.keys().nth(draw.next(map.len())).cloned();
                key.map(|key| map.remove(&key));
            }
        }
    }
}

fn mutant(originals: &[Original], draw: &mut Draw) -> Mutant {
    let chosen = &originals[draw.next(originals.len())];
    if draw.next(10) == 0 {
        let mut bytes = chosen.bytes.clone();
        for _ in 0..=draw.next(4) {
            let at = draw.next(bytes.len());
            bytes[at] = draw.next(256) as u8;
        }
        if draw.next(4) == 0 {
            bytes.truncate(draw.next(bytes.len()));
        }
        return Mutant { bytes, original: chosen.name.clone(), judged: false };
    }
    let mut program = chosen.json.clone();
    for _ in 0..=draw.next(3) {
        change(&mut program, draw);
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (at, (name, data)) in chosen.entries.iter().enumerate() {
        zip.start_file(name, options).expect("an entry");
        let json = (at == chosen.program).then(|| serde_json::to_vec(&program).expect("JSON"));
        zip.write_all(json.as_ref().unwrap_or(data)).expect("its bytes");
    }
    Mutant { bytes: zip.finish().expect("an archive").into_inner(), original: chosen.name.clone(), judged: false }
}

#[test]
fn programs() {
    let originals = originals();
    mutants_are_read_or_refused("pt2", |draw| mutant(&originals, draw), |_, _| None);
}

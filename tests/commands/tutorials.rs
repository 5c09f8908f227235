//! The tutorials, run: every block of commands in a folder of its own, and what it prints is what the page shows. `…` in a page stands for
//! anything within a line, and for any lines where it is a line. `S2DITC_BLESS=1` writes what the commands print.
//!
//! Blocks of Python need PyTorch, which `S2DITC_TORCH` names the interpreter of; without it the files that they would make are those of the
//! repository that the page's comments name.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::repo;

/// A piece of a page.
struct Block<'a> {
    /// What stands behind the fence: `sh`, `text`, `python`, or nothing of prose.
    kind: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut pieces = page.split("\n```");
    let mut found = vec![Block { kind: "", text: pieces.next().unwrap_or_default() }];
    for (number, piece) in pieces.enumerate() {
        let (kind, text) = if number % 2 == 0 { piece.split_once('\n').expect("a fence") } else { ("", piece) };
        found.push(Block { kind, text });
    }
    found
}

/// Runs a page and returns it with what its commands print.
fn ran(page: &str, folder: &Path) -> String {
    let torch = std::env::var_os("S2DITC_TORCH");
    for brought in page.split("<!-- brings ").skip(1).filter_map(|rest| rest.split(" -->").next()) {
        let (from, to) = brought.split_once(" as ").expect("FROM as TO");
        fs::copy(repo().join(from), folder.join(to)).unwrap_or_else(|e| panic!("{from}: {e}"));
    }
    let program = Path::new(assert_cmd::cargo::cargo_bin!("s2ditc")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut said = None;
    let mut out = String::new();
    for block in blocks(page) {
        let mut text = block.text.to_owned();
        match block.kind {
            "sh" => {
                let mut shell = Command::new("bash");
                shell.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{text}")]).current_dir(folder);
                let done = shell.env("PATH", &path).env("HF_HUB_OFFLINE", "1").output().expect("bash starts");
                let printed = String::from_utf8(done.stdout).expect("UTF-8");
                assert!(done.status.success(), "{text}\n{printed}");
                let lines: Vec<&str> = printed.trim_end().lines().filter(|line| !is_progress(line)).collect();
                said = Some(lines.join("\n"));
            }
            "text" => {
                let said = said.take().expect("commands before a block of text");
                if !fits(&text, &said) {
                    text = said;
                }
            }
            "python" => {
                if let Some(torch) = &torch {
                    let done =
                        Command::new(torch).args(["-c", &text]).current_dir(folder).status().expect("Python starts");
                    assert!(done.success(), "{text}");
                }
            }
            _ => {}
        }
        match block.kind {
            "" if out.is_empty() => out += &text,
            "" => out += &format!("\n```{text}"),
            kind => out += &format!("\n```{kind}\n{text}"),
        }
    }
    out
}

/// Whether a line says how far a command is, which it does on a slow machine only: `chunk 1/4, about 9 s left`.
fn is_progress(line: &str) -> bool {
    let (place, left) = line.split_once(", about ").map_or((line, None), |(place, left)| (place, Some(left)));
    let is_part =
        |word: &str| word.split_once('/').is_some_and(|(a, b)| [a, b].iter().all(|n| n.parse::<u64>().is_ok()));
    left.is_some_and(|left| left.ends_with(" left")) || place.strip_prefix("chunk ").is_some_and(is_part)
}

/// Whether a text is what a page shows, in which `…` stands for anything.
fn fits(shown: &str, said: &str) -> bool {
    let (shown, said): (Vec<&str>, Vec<&str>) = (shown.lines().collect(), said.lines().collect());
    lines_fit(&shown, &said)
}

fn lines_fit(shown: &[&str], said: &[&str]) -> bool {
    match (shown.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=said.len()).any(|skipped| lines_fit(rest, &said[skipped..])),
        (Some((line, rest)), Some((other, others))) => line_fits(line, other) && lines_fit(rest, others),
        _ => false,
    }
}

fn line_fits(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn what_fits() {
    assert!(fits("a … c\n…\nz", "a b c\nd\ne\nz") && fits("a\n…", "a") && fits("…", ""));
    assert!(
        is_progress("chunk 1/4")
            && is_progress("weights: 1 MB of 2 MB, about 3 s left")
            && !is_progress("chunk of 1/4")
    );
    assert!(!fits("a", "b") && !fits("a … c", "a b d") && !fits("a\nb", "a") && !fits("a", "a\nb"));
}

#[track_caller]
fn tutorial(name: &str) {
    let place = repo().join(format!("docs/tutorials/{name}.md"));
    let page = fs::read_to_string(&place).expect("a page");
    assert!(blocks(&page).iter().filter(|block| block.kind == "sh").count() >= 3, "{name}: too few commands");
    let work = tempfile::tempdir().expect("a folder");
    let made = ran(&page, work.path());
    if std::env::var_os("S2DITC_BLESS").is_some() {
        fs::write(place, made).expect("the page");
    } else {
        assert!(made == page, "docs/tutorials/{name}.md shows something else than its commands print:\n{made}");
    }
}

#[test]
fn a_model_author() {
    tutorial("model-author");
}

#[test]
fn a_gate_in_ci() {
    tutorial("ci");
}

#[test]
fn an_app_developer() {
    tutorial("app");
}

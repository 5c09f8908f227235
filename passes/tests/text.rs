//! Runs every `tests/text/*.s2`: the first line names the passes, then IR before, a line of `---`, IR after.
//!
//! `S2DITC_BLESS=1` writes the IR after anew.

use std::path::Path;

use s2dit_ir::text::{parse, print};
use s2dit_ir::verify::verify;
use s2dit_passes::Pipeline;

#[test]
fn passes_give_the_text_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/text");
    let bless = std::env::var_os("S2DITC_BLESS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (header, body) = text.split_once('\n').unwrap();
        let passes = header.strip_prefix("# passes: ").unwrap_or_else(|| panic!("{}: no header", file.display()));
        let names: Vec<&str> = passes.split_whitespace().collect();
        let (before, after) = body.split_once("\n---\n").unwrap_or((body, ""));
        let mut module = parse(before).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        verify(&module).unwrap_or_else(|e| panic!("{}: before: {e}\n{}", file.display(), e.text));
        Pipeline::new(&names)
            .unwrap()
            .run(&mut module, |_, _| {})
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let got = print(&module);
        if bless {
            std::fs::write(&file, format!("{header}\n{}\n---\n{got}", before.trim_end())).unwrap();
        } else {
            assert_eq!(got.trim(), after.trim(), "{}", file.display());
        }
    }
}

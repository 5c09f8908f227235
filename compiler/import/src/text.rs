//! The IR's own text form, `.s2`, as `compile --emit ir` prints it: weights lie beside it in a file of safetensors of the same name.

use std::path::Path;

use s2dit_backends::input::read_text;
use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_files::{StateDict, WeightStore};
use s2dit_ir::{Op, WeightSource as _, text};

use crate::{Ask, Importer, Read};

/// The text form.
#[derive(Debug)]
pub(crate) struct Text;

const EXTENSION: &str = "s2";
/// Bytes of the largest text that is read: tables in it are printed in digits.
const LARGEST: u64 = 1 << 30;

impl Importer for Text {
    fn name(&self) -> &'static str {
        "s2"
    }

    fn reads(&self, path: &Path, head: &[u8]) -> bool {
        path.extension().is_some_and(|e| e == EXTENSION)
            && std::str::from_utf8(head).map_or_else(|e| e.valid_up_to() > 0, |_| true)
    }

    fn read(&self, path: &Path, ask: &Ask) -> Result<Read, Problems> {
        let place = path.display().to_string();
        if let Some(binding) = ask.bind.first() {
            return Err(Problems::one(
                place,
                format!("--bind {}", quoted(&binding.size)),
                "no --bind: its sizes are numbers",
            ));
        }
        let printed =
            read_text(path, LARGEST).map_err(|error| Problems::one(&place, error.to_string(), "the IR's text form"))?;
        let module = text::parse(&printed)
            .map_err(|error| Problems::one(&place, shown(&error.to_string()), "the IR's text form"))?;
        let mut loads: Vec<(&str, _)> = Vec::new();
        for f in &module.functions {
            loads.extend(f.values().into_iter().filter_map(|v| match f.op(v) {
                Op::Load(load) => Some((load.tensor.as_str(), f.ty(v))),
                _ => None,
            }));
        }
        let beside = path.with_extension("safetensors");
        if loads.is_empty() {
            return Ok(Read {
                module,
                weights: WeightStore::default(),
                format: "the IR's text form".into(),
                beside: Vec::new(),
            });
        }
        let (weights, damage) = WeightStore::open_file(&beside, StateDict::Known(&|_| true))?;
        damage.into_result()?;
        let mut problems = Problems::new();
        for (name, ty) in loads {
            let found = weights.ty(name);
            if found.as_ref() != Some(ty) {
                let found = found.map_or("no such tensor".to_owned(), |found| found.to_string());
                problems.push(
                    format!("{}: {}", beside.display(), shown(name)),
                    found,
                    format!("{ty}, which `{place}` loads"),
                );
            }
        }
        problems.into_result()?;
        Ok(Read { module, weights, format: "the IR's text form".into(), beside: vec![beside] })
    }
}

//! Reading `config.json`, collecting every problem of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use s2dit_backends::input::{LARGEST_JSON, LFS_POINTER, is_lfs_pointer, read_file};
use serde_json::Value;

use super::{BlockKind, QkNorm, RopeInKernel, S2ditConfig, SampleSteps, StateWrite};
use s2dit_files::json::{Entries, compact};
use s2dit_files::problems::{Problems, nearest, quoted};

/// Every field, in the order they are written.
pub(super) const FIELDS: [&str; 22] = [
    "in_channels",
    "out_channels",
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "ffn_dim",
    "text_dim",
    "text_len",
    "freq_dim",
    "layout",
    "ssa_stride",
    "conv_kernel",
    "rope_theta",
    "rope_in_kernel",
    "qk_norm",
    "eps",
    "chunk_frames",
    "window_frames",
    "sink_frames",
    "state_write",
    "sample_steps",
    "flow_shift",
];

/// The largest size that is read: far above any model, and low enough that no product of sizes overflows.
const LARGEST: usize = 1 << 20;
/// The ε of a norm is added to a mean square of about 1: above this the norm is none, and fp16 soon cannot hold it.
const LARGEST_EPS: f64 = 1.0;
const MOST_BLOCKS: usize = 4096;

impl S2ditConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let place = path.display().to_string();
        let unreadable = |error: std::io::Error| Problems::one(&place, error.to_string(), "a readable config.json");
        let bytes = read_file(path, LARGEST_JSON).map_err(unreadable)?;
        if is_lfs_pointer(&bytes) {
            return Err(Problems::one(&place, LFS_POINTER, "a configuration"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problems::one(&place, format!("a byte that is not UTF-8 at {at}"), "JSON text")
        })?;
        Self::parse(&text, &place)
    }

    /// Parses the text of a `config.json`; `place` names it in problems.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, place: &str) -> Result<Self, Problems> {
        let Entries(entries) = serde_json::from_str(text)
            .map_err(|error| Problems::one(place, format!("bad JSON ({error})"), "a JSON object"))?;
        Self::from_entries(entries, place)
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        check_family(&entries, place)?;
        let mut fields = Fields::new(entries, place);
        let size = 1..=LARGEST;
        let config = S2ditConfig {
            in_channels: fields.integer("in_channels", None, size.clone()),
            out_channels: fields.integer("out_channels", None, size.clone()),
            patch_size: fields.patch_size(),
            num_attention_heads: fields.integer("num_attention_heads", None, size.clone()),
            attention_head_dim: fields.head_dim(),
            ffn_dim: fields.integer("ffn_dim", None, size.clone()),
            text_dim: fields.integer("text_dim", None, size.clone()),
            text_len: fields.integer("text_len", None, size.clone()),
            freq_dim: fields.freq_dim(),
            layout: fields.layout(),
            ssa_stride: fields.integer("ssa_stride", Some(2), 1..=64),
            conv_kernel: fields.conv_kernel(),
            rope_theta: fields.positive("rope_theta", 10000.0),
            rope_in_kernel: fields.choice(
                "rope_in_kernel",
                RopeInKernel::Pre,
                &[RopeInKernel::Pre, RopeInKernel::Post].map(|mode| (mode.name(), mode)),
            ),
            qk_norm: fields.choice(
                "qk_norm",
                QkNorm::AcrossHeads,
                &[QkNorm::AcrossHeads, QkNorm::PerHead].map(|mode| (mode.name(), mode)),
            ),
            eps: fields.number("eps", 1e-6, LARGEST_EPS, "a number above 0 and at most 1"),
            chunk_frames: fields.chunk_frames(),
            window_frames: fields.integer("window_frames", Some(6), 0..=LARGEST),
            sink_frames: fields.integer("sink_frames", Some(0), 0..=LARGEST),
            state_write: fields.choice(
                "state_write",
                StateWrite::Commit,
                &[StateWrite::Commit, StateWrite::LastStep].map(|pass| (pass.name(), pass)),
            ),
            sample_steps: fields.sample_steps(),
            flow_shift: fields.positive("flow_shift", 5.0),
        };
        fields.finish()?;
        let hidden = config.hidden_size();
        if hidden > LARGEST {
            return Err(Problems::one(
                format!("{place}: num_attention_heads × attention_head_dim"),
                hidden.to_string(),
                format!("at most {LARGEST}"),
            ));
        }
        config.check_sampler(place)?;
        Ok(config)
    }

    /// Checks that the shift leaves the sampler's noise levels apart: near 0 and far above 1 they fall together, or on no number.
    fn check_sampler(&self, place: &str) -> Result<(), Problems> {
        let sigmas = self.sigmas();
        // The shift of 1 is 1 but for the last bit.
        let in_range = sigmas.iter().all(|sigma| (0.0..=1.0 + 1e-9).contains(sigma));
        if in_range && sigmas.is_sorted_by(|a, b| a > b) {
            return Ok(());
        }
        Err(Problems::one(
            format!("{place}: flow_shift"),
            format!("{:?}", self.flow_shift),
            "a shift s with which the noise levels s·σ/(1 + (s − 1)·σ) of sample_steps descend within 0 to 1",
        ))
    }
}

/// Refuses the configuration of another family of models by the name that it gives itself: its fields would only be a list of
/// problems.
fn check_family(entries: &[(String, Value)], place: &str) -> Result<(), Problems> {
    let expected = || format!("{}: no other family of models is read", quoted(S2ditConfig::CLASS_NAME));
    for (name, value) in entries {
        // diffusers writes the class; transformers (text encoders) a list of architectures.
        let other = match name.as_str() {
            "_class_name" => *value != S2ditConfig::CLASS_NAME,
            "architectures" => value.is_array(),
            _ => false,
        };
        if other {
            return Err(Problems::one(format!("{place}: {name}"), compact(value), expected()));
        }
    }
    Ok(())
}

/// The fields not read yet, and the problems so far. A field with a problem reads as a stand-in, which is
/// never seen: [`Fields::finish`] then fails.
struct Fields<'a> {
    place: &'a str,
    entries: BTreeMap<String, Value>,
    problems: Problems,
}

impl<'a> Fields<'a> {
    fn new(entries: Vec<(String, Value)>, place: &'a str) -> Self {
        let mut fields = Fields { place, entries: BTreeMap::new(), problems: Problems::new() };
        for (name, value) in entries {
            if name.starts_with('_') {
                continue;
            }
            if fields.entries.contains_key(&name) {
                fields.problem(&s2dit_files::problems::shown(&name), "the field twice", "it once");
                continue;
            }
            fields.entries.insert(name, value);
        }
        fields
    }

    fn problem(&mut self, field: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.problems.push(format!("{}: {field}", self.place), found, expected);
    }

    /// The value of a field; a missing field without a default is a problem.
    fn take(&mut self, field: &str, optional: bool, expected: &str) -> Option<Value> {
        let value = self.entries.remove(field);
        if value.is_none() && !optional {
            self.problem(field, "no such field", expected);
        }
        value
    }

    fn integer(&mut self, field: &str, default: Option<usize>, range: RangeInclusive<usize>) -> usize {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let fallback = default.unwrap_or(*range.start());
        let Some(value) = self.take(field, default.is_some(), &expected) else {
            return fallback;
        };
        as_integer(&value, &range).unwrap_or_else(|| {
            self.problem(field, compact(&value), expected);
            fallback
        })
    }

    fn positive(&mut self, field: &str, default: f64) -> f64 {
        self.number(field, default, f64::MAX, "a number above 0")
    }

    /// A number above 0 and at most `most`.
    fn number(&mut self, field: &str, default: f64, most: f64, expected: &str) -> f64 {
        let Some(value) = self.entries.remove(field) else { return default };
        match value.as_f64() {
            Some(number) if number > 0.0 && number <= most => number,
            _ => {
                self.problem(field, compact(&value), expected);
                default
            }
        }
    }

    fn choice<T: Copy>(&mut self, field: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = self.entries.remove(field) else { return default };
        let chosen = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        if let Some((_, chosen)) = chosen {
            return *chosen;
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| quoted(name)).collect();
        self.problem(field, compact(&value), names.join(" or "));
        default
    }

    fn triple(&mut self, field: &str, optional: bool) -> Option<[usize; 3]> {
        const EXPECTED: &str = "a list of 3 integers from 1 to 64";
        let value = self.take(field, optional, EXPECTED)?;
        let items: Option<Vec<usize>> =
            value.as_array().and_then(|items| items.iter().map(|item| as_integer(item, &(1..=64))).collect());
        let triple = items.and_then(|items| <[usize; 3]>::try_from(items).ok());
        if triple.is_none() {
            self.problem(field, compact(&value), EXPECTED);
        }
        triple
    }

    fn patch_size(&mut self) -> [usize; 3] {
        let patch = self.triple("patch_size", false).unwrap_or([1, 1, 1]);
        if patch[0] != 1 {
            self.problem("patch_size[0]", patch[0].to_string(), "1 (a token spans one frame)");
        }
        patch
    }

    fn conv_kernel(&mut self) -> [usize; 3] {
        let kernel = self.triple("conv_kernel", true).unwrap_or([3, 3, 3]);
        for (axis, size) in kernel.into_iter().enumerate() {
            if size % 2 == 0 {
                self.problem(&format!("conv_kernel[{axis}]"), size.to_string(), "an odd size");
            }
        }
        kernel
    }

    fn head_dim(&mut self) -> usize {
        let field = "attention_head_dim";
        let width = self.integer(field, None, 6..=4096);
        if width % 2 == 1 {
            self.problem(field, width.to_string(), "an even width (RoPE rotates pairs)");
        }
        width
    }

    fn freq_dim(&mut self) -> usize {
        let width = self.integer("freq_dim", Some(256), 2..=LARGEST);
        if width % 2 == 1 {
            self.problem("freq_dim", width.to_string(), "an even width (cosines, then sines)");
        }
        width
    }

    fn layout(&mut self) -> Vec<BlockKind> {
        let expected = format!("a list of 1 to {MOST_BLOCKS} blocks, each \"lcha\", \"ssa\" or \"full\"");
        let Some(value) = self.take("layout", false, &expected) else { return Vec::new() };
        let items = match value.as_array() {
            Some(items) if (1..=MOST_BLOCKS).contains(&items.len()) => items,
            _ => {
                self.problem("layout", compact(&value), expected);
                return Vec::new();
            }
        };
        let mut layout = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match BlockKind::ALL.into_iter().find(|kind| item.as_str() == Some(kind.name())) {
                Some(kind) => layout.push(kind),
                None => self.problem(&format!("layout[{index}]"), compact(item), "\"lcha\", \"ssa\" or \"full\""),
            }
        }
        layout
    }

    fn chunk_frames(&mut self) -> Option<usize> {
        match self.entries.get("chunk_frames") {
            Some(Value::Null) => {
                self.entries.remove("chunk_frames");
                None
            }
            Some(value) if as_integer(value, &(1..=LARGEST)).is_none() => {
                let found = compact(value);
                self.entries.remove("chunk_frames");
                self.problem("chunk_frames", found, format!("null or an integer from 1 to {LARGEST}"));
                None
            }
            _ => Some(self.integer("chunk_frames", Some(3), 1..=LARGEST)),
        }
    }

    fn sample_steps(&mut self) -> SampleSteps {
        const FIELD: &str = "sample_steps";
        let default = || SampleSteps::Timesteps(vec![1000.0, 750.0, 500.0, 250.0]);
        let Some(value) = self.entries.remove(FIELD) else { return default() };
        if let Some(count) = as_integer(&value, &(1..=100_000)) {
            return SampleSteps::Count(count);
        }
        let steps: Option<Vec<f64>> = value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect());
        match steps {
            Some(steps)
                if !steps.is_empty()
                    && steps[0] > 0.0
                    && steps.iter().all(|t| (0.0..=1000.0).contains(t))
                    && steps.is_sorted_by(|a, b| a > b) =>
            {
                SampleSteps::Timesteps(steps)
            }
            _ => {
                let expected = "a number of steps (1 to 100000), or a list of timesteps that descends within 0 to 1000 from above 0";
                self.problem(FIELD, compact(&value), expected);
                default()
            }
        }
    }

    /// Reports the fields that are left, which are unknown, with all other problems.
    fn finish(mut self) -> Result<(), Problems> {
        for name in std::mem::take(&mut self.entries).into_keys() {
            let expected = match nearest(&name, FIELDS) {
                Some(field) => format!("a known field (did you mean `{field}`?)"),
                None => "no such field (a name that starts with `_` would be ignored)".to_owned(),
            };
            self.problem(&s2dit_files::problems::shown(&name), "an unknown field", expected);
        }
        self.problems.into_result()
    }
}

fn as_integer(value: &Value, range: &RangeInclusive<usize>) -> Option<usize> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    range.contains(&number).then_some(number)
}

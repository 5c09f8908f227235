//! Devices as data: a figure for each property of an engine, with its source, its confidence and its range.
//!
//! A device is a file of `devices/` and a line in [`BUILTIN`]. Figures that it does not have are those of `engine.toml`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::coreml::lint::{Confidence, Rules};
use s2dit_backends::input::read_text;
use s2dit_files::toml_text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a text is that is read here.
const EXPECTED: &str = "a device, as docs/estimate.md has one";

/// What every device file may leave out.
const ENGINE: &str = include_str!("../devices/engine.toml");

/// The devices that come with the compiler: name on the command line, file.
pub const BUILTIN: &[(&str, &str)] = &[
    ("iphone16promax", include_str!("../devices/iphone16promax.toml")),
    ("iphone15pro", include_str!("../devices/iphone15pro.toml")),
    ("iphone17pro", include_str!("../devices/iphone17pro.toml")),
    ("m1", include_str!("../devices/m1.toml")),
    ("m4pro", include_str!("../devices/m4pro.toml")),
    ("m5", include_str!("../devices/m5.toml")),
];

/// The device that is estimated for unless another is named: the one that the paper of S2DiT measured.
pub const DEFAULT: &str = "iphone16promax";

/// Largest number of a device file that is no slip; the smallest is one part of it.
const LARGEST_FIGURE: f64 = 1e9;

/// A device file is a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// A figure of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The smallest value that has been seen or that follows from what has.
    pub low: f64,
    /// The value that an estimate takes.
    pub likely: f64,
    /// The largest value.
    pub high: f64,
    /// How well it is known.
    pub confidence: Confidence,
    /// Who says so.
    pub source: String,
}

/// A corner of what is known: every figure at its best, its likely or its worst value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// What makes times shortest.
    Best,
    /// What is likely.
    Likely,
    /// What makes times longest.
    Worst,
}

impl Case {
    /// The cases in the order of the times that they make: low, likely, high.
    pub const ALL: [Case; 3] = [Case::Best, Case::Likely, Case::Worst];
}

/// Whether a device with more of a quantity is faster.
#[derive(Clone, Copy)]
enum Way {
    Rate,
    Cost,
}

macro_rules! figures {
    ($($name:ident: $way:ident, $doc:literal;)*) => {
        /// The figures of a device, each a number at one [`Case`].
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Rates {
            $( #[doc = $doc] pub $name: f64, )*
        }

        /// The figures of a device.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Figures {
            $( #[doc = $doc] pub $name: Figure, )*
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Given {
            $( $name: Option<Figure>, )*
        }

        impl Figures {
            /// Names with what they are, in the order of a device file.
            pub const NAMES: &'static [(&'static str, &'static str)] = &[$( (stringify!($name), $doc), )*];

            fn new(given: Given, rest: Option<&Figures>) -> Result<Figures> {
                Ok(Figures {
                    $( $name: match (given.$name, rest) {
                        (Some(figure), _) => figure.checked(stringify!($name))?,
                        (None, Some(rest)) => rest.$name.clone(),
                        (None, None) => bail!(concat!("figures.", stringify!($name), ": found none, expected a figure")),
                    }, )*
                })
            }

            /// The numbers of a case.
            #[must_use]
            pub fn at(&self, case: Case) -> Rates {
                Rates { $( $name: self.$name.at(case, Way::$way), )* }
            }

            pub(crate) fn each(&self) -> Vec<(&'static str, &Figure)> {
                vec![$( (stringify!($name), &self.$name), )*]
            }

            /// A figure by its name.
            pub fn named_mut(&mut self, name: &str) -> Option<&mut Figure> {
                match name {
                    $( stringify!($name) => Some(&mut self.$name), )*
                    _ => None,
                }
            }
        }
    };
}

figures! {
    product_tflops: Rate, "Peak of large, wide fp16 products inside a program, in TFLOP/s (a multiply-add counts two).";
    int8_gain: Rate, "Speed of products of int8 weights with int8 activations, relative to fp16.";
    product_knee_gflop: Cost, "Products of fewer GFLOP do not reach the peak.";
    product_power: Cost, "Below the knee the speed is `(FLOP / knee) ^ power` of the peak.";
    narrow_channels: Cost, "Products with fewer channels (the lesser of what is summed over and what comes out) do not reach the peak.";
    narrow_power: Cost, "Below that the speed is `(channels / narrow_channels) ^ power` of the peak; the worse of both curves counts.";
    weight_gbps: Rate, "Stream of whole weights, in GB/s.";
    notch_gbps: Rate, "Stream of fp16 weights whose slice for one of 16 cores is a multiple of 1 MiB, in GB/s.";
    packed_rate: Rate, "Stream of the stored bytes of palettes, relative to whole weights.";
    resident_gbps: Rate, "Traffic of activations while an op's operands and result fit the working set, in GB/s.";
    spill_gbps: Rate, "Traffic of activations that do not fit, in GB/s.";
    working_set_mb: Rate, "The working set, in MB.";
    norm_passes: Cost, "Passes of a layer norm over its values; those after the first stay inside the engine.";
    softmax_passes: Cost, "Passes of a softmax over its values, likewise.";
    fused_share: Rate, "Part of an element-wise op that vanishes behind the product before it.";
    op_us: Cost, "Time of an op beside its work, in µs.";
    dispatch_us: Cost, "Time of a call beside its ops, in µs.";
    cut_us: Cost, "Time of going from one package of a step to the next, in µs.";
    compile_ms_per_op: Cost, "Time of the first load of an uncompiled package, in ms an op.";
}

/// A number that an engine does not go beyond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The number.
    pub value: f64,
    /// How well it is known.
    pub confidence: Confidence,
    /// Who says so.
    pub source: String,
}

macro_rules! limits {
    ($($name:ident: $doc:literal;)*) => {
        /// What values, axes and attention of a device are bounded by.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Limits {
            $( #[doc = $doc] pub $name: Limit, )*
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct GivenLimits {
            $( $name: Option<Limit>, )*
        }

        impl Limits {
            /// Names with what they are, in the order of a device file.
            pub const NAMES: &'static [(&'static str, &'static str)] = &[$( (stringify!($name), $doc), )*];

            fn new(given: GivenLimits, rest: Option<&Limits>) -> Result<Limits> {
                Ok(Limits {
                    $( $name: match (given.$name, rest) {
                        (Some(limit), _) => limit.checked(stringify!($name))?,
                        (None, Some(rest)) => rest.$name.clone(),
                        (None, None) => bail!(concat!("limits.", stringify!($name), ": found none, expected a limit")),
                    }, )*
                })
            }

            fn each(&self) -> Vec<(&'static str, &Limit)> {
                vec![$( (stringify!($name), &self.$name), )*]
            }
        }
    };
}

limits! {
    product_largest: "Largest magnitude of a product's result; more is infinite.";
    slice_largest: "Largest magnitude that a slice at an offset of the last axis keeps; 65504 where it keeps all of fp16.";
    queries: "Queries that attention looks at together, if its scores are tiled.";
}

impl Limit {
    fn checked(self, name: &str) -> Result<Limit> {
        ensure!(
            (1.0..=LARGEST_FIGURE).contains(&self.value),
            "limits.{name}: found {}, expected a number of 1 to {LARGEST_FIGURE:e}",
            self.value
        );
        Ok(self)
    }
}

impl Figure {
    fn checked(self, name: &str) -> Result<Figure> {
        let ordered = self.low <= self.likely && self.likely <= self.high;
        ensure!(
            ordered && self.low >= 0.0 && self.high.is_finite(),
            "figures.{name}: found low {}, likely {}, high {}, expected finite numbers from 0 in this order",
            self.low,
            self.likely,
            self.high
        );
        let most = if name == "fused_share" { 1.0 } else { LARGEST_FIGURE };
        for value in [self.low, self.likely, self.high] {
            ensure!(
                value == 0.0 || (1.0 / LARGEST_FIGURE..=most).contains(&value),
                "figures.{name}: found {value:e}, expected 0 or a number of {:e} to {most:e}",
                1.0 / LARGEST_FIGURE
            );
        }
        Ok(self)
    }

    fn at(&self, case: Case, way: Way) -> f64 {
        match (case, way) {
            (Case::Likely, _) => self.likely,
            (Case::Best, Way::Rate) | (Case::Worst, Way::Cost) => self.high,
            (Case::Best, Way::Cost) | (Case::Worst, Way::Rate) => self.low,
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    /// Name for people.
    pub name: String,
    /// Identifiers that the system reports, such as `iPhone17,2`.
    pub models: Vec<String>,
    /// The figures.
    pub figures: Figures,
    /// The limits.
    pub limits: Limits,
    /// Rules of `lint` that are otherwise on this device, as a rules file has them.
    pub rules: Vec<Map<String, Value>>,
}

/// What a device file says it is.
const FORMAT: &str = "s2ditc.device";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceFile {
    #[serde(default)]
    format: Option<String>,
    name: String,
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    figures: Given,
    #[serde(default)]
    limits: GivenLimits,
    #[serde(default)]
    rule: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineFile {
    figures: Given,
    limits: GivenLimits,
}

impl Device {
    /// A device by its name in [`BUILTIN`], or from a file whose name ends in `.toml`.
    ///
    /// # Errors
    /// A name that is not there; a file that cannot be read or is no device.
    pub fn open(which: &str) -> Result<Device> {
        if let Some((_, text)) = BUILTIN.iter().find(|(name, _)| *name == which) {
            return Device::parse(text).with_context(|| format!("device {which}"));
        }
        if !which.ends_with(".toml") {
            let names: Vec<&str> = BUILTIN.iter().map(|(name, _)| *name).collect();
            bail!("device: found \"{which}\", expected one of {}, or a file NAME.toml", names.join(", "));
        }
        let text = read_text(Path::new(which), LARGEST).with_context(|| format!("cannot read `{which}`"))?;
        Device::parse(&text).with_context(|| format!("`{which}`"))
    }

    /// A device from the text of its file.
    ///
    /// # Errors
    /// The first field that is unknown, missing or out of order.
    pub fn parse(text: &str) -> Result<Device> {
        let engine: EngineFile = toml::from_str(ENGINE).context("engine.toml")?;
        let limits = Limits::new(engine.limits, None).context("engine.toml")?;
        let engine = Figures::new(engine.figures, None).context("engine.toml")?;
        let file: DeviceFile = toml_text::parse(text, "", EXPECTED)?;
        if let Some(format) = file.format.filter(|format| format != FORMAT) {
            bail!("format: found \"{format}\", expected \"{FORMAT}\"");
        }
        let figures = Figures::new(file.figures, Some(&engine))?;
        let divides = [
            ("product_tflops", &figures.product_tflops),
            ("int8_gain", &figures.int8_gain),
            ("weight_gbps", &figures.weight_gbps),
            ("notch_gbps", &figures.notch_gbps),
            ("packed_rate", &figures.packed_rate),
            ("resident_gbps", &figures.resident_gbps),
            ("spill_gbps", &figures.spill_gbps),
            ("product_knee_gflop", &figures.product_knee_gflop),
            ("narrow_channels", &figures.narrow_channels),
        ];
        if let Some((name, figure)) = divides.into_iter().find(|(_, figure)| figure.low <= 0.0) {
            bail!("figures.{name}: found low {}, expected a number above 0: it is a speed", figure.low);
        }
        let limits = Limits::new(file.limits, Some(&limits))?;
        Rules::builtin()?.with_changes(file.rule.clone()).context("rule")?;
        Ok(Device { name: file.name, models: file.models, figures, limits, rules: file.rule })
    }

    /// The rules of `lint` as they are on this device.
    ///
    /// # Errors
    /// None in practice: the changes were checked when the device was read.
    pub fn rules(&self, rules: &Rules) -> Result<Rules> {
        rules.with_changes(self.rules.clone()).with_context(|| self.name.clone())
    }

    /// The text of a device file with every figure.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let models: Vec<String> = self.models.iter().map(|model| quoted(model)).collect();
        let mut text =
            format!("format = \"{FORMAT}\"\nname = {}\nmodels = [{}]\n", quoted(&self.name), models.join(", "));
        for ((name, figure), (_, doc)) in self.figures.each().into_iter().zip(Figures::NAMES) {
            let _ = write!(
                text,
                "\n# {doc}\n[figures.{name}]\nlow = {:?}\nlikely = {:?}\nhigh = {:?}\nconfidence = \"{}\"\nsource = {}\n",
                figure.low,
                figure.likely,
                figure.high,
                figure.confidence,
                quoted(&figure.source)
            );
        }
        for ((name, limit), (_, doc)) in self.limits.each().into_iter().zip(Limits::NAMES) {
            let _ = write!(
                text,
                "\n# {doc}\n[limits.{name}]\nvalue = {:?}\nconfidence = \"{}\"\nsource = {}\n",
                limit.value,
                limit.confidence,
                quoted(&limit.source)
            );
        }
        for rule in &self.rules {
            // A table of strings, numbers and tables is TOML as well.
            if let Ok(rule) = toml::to_string(rule) {
                let _ = write!(text, "\n[[rule]]\n{}", rule.replace("[params", "[rule.params"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use s2dit_backends::coreml::lint::Severity;

    use super::*;

    #[test]
    fn every_device_reads_and_says_its_sources() {
        for (name, _) in BUILTIN {
            let device = Device::open(name).unwrap();
            for (figure, value) in device.figures.each() {
                assert!(value.source.len() > 10, "{name}: {figure}: {}", value.source);
            }
            for (limit, value) in device.limits.each() {
                assert!(value.source.len() > 10, "{name}: {limit}: {}", value.source);
            }
            assert!(device.rules.iter().all(|rule| rule.contains_key("because")), "{name}");
            assert_eq!(Device::parse(&device.to_toml()).unwrap(), device);
        }
    }

    #[test]
    fn rules_are_those_of_the_device() {
        let severity = |device: &str| {
            let rules = Device::open(device).unwrap().rules(&Rules::builtin().unwrap()).unwrap();
            (rules.get("slice-offset").unwrap().retired, rules.get("int8-activations").unwrap().severity)
        };
        assert_eq!(severity("m1"), (false, Severity::Leaves));
        assert_eq!(severity("iphone16promax"), (true, Severity::Costs));
        assert_eq!(severity("iphone17pro"), (true, Severity::MayLeave));
    }

    #[test]
    fn a_bad_figure_is_named() {
        let bad = |low: f64, likely: f64| {
            let text = format!(
                "name = \"x\"\n[figures.weight_gbps]\nlow = {low:?}\nlikely = {likely:?}\nhigh = 3.0\nconfidence = \"low\"\nsource = \"none\"\n"
            );
            format!("{:#}", Device::parse(&text).unwrap_err())
        };
        assert!(bad(2.0, 1.0).contains("figures.weight_gbps: found low 2, likely 1, high 3"));
        assert!(bad(0.0, 1.0).contains("above 0"));
        let error = format!("{:#}", Device::parse("name = \"x\"\n[[rule]]\nid = \"no-such\"\n").unwrap_err());
        assert!(error.contains("no rule `no-such`"), "{error}");
        let text = "name = \"x\"\n[limits.queries]\nvalue = 0.0\nconfidence = \"low\"\nsource = \"none\"\n";
        let error = format!("{:#}", Device::parse(text).unwrap_err());
        assert!(error.contains("limits.queries: found 0, expected a number of 1"), "{error}");
        let error = format!("{:#}", Device::parse("name = \"x\"\n[figures.speed]\nlow = 1.0\n").unwrap_err());
        assert!(error.contains("speed"), "{error}");
    }
}

//! What a verification shows: its verdict, and in one sentence what a pass means and what it does not mean.

use std::collections::BTreeMap;

use serde::Serialize;

/// The outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every result reaches its bar.
    Passed,
    /// A result is below its bar, or something is NaN or infinite.
    Failed,
    /// The comparisons that were asked for cannot tell the right model from a wrong one.
    NoVerdict,
}

/// What an artifact is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// A golden alone.
    Golden,
    /// A golden, and the checkpoint's graph beside it.
    Both,
    /// The checkpoint's graph alone.
    Checkpoint,
    /// The checkpoint's graph with weights stored as the artifact's.
    Stored,
}

/// What is known of the artifact and its bar.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// What it is compared with.
    pub against: Against,
    /// How its weights are stored, if they are quantized.
    pub quantized: Option<&'a str>,
    /// Whether this compiler made it.
    pub ours: bool,
    /// The bar of the main comparison in dB; `None` if nothing says one.
    pub bar: Option<f64>,
    /// Whether the user named the bar.
    pub asked: bool,
    /// The bar of an artifact that is not quantized.
    pub usual: f64,
    /// Whether the artifact was compared with the checkpoint's graph stored alike as well.
    pub stored_alike: bool,
}

/// How the metadata of an artifact says that its weights are quantized.
#[must_use]
pub fn quantized(metadata: &BTreeMap<String, String>) -> Option<&str> {
    metadata.get("s2ditc.quantize").map(String::as_str)
}

impl Claim<'_> {
    /// Whether a wrong model could reach the bar: quantization costs so much that the bar is low, and nothing else is compared.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let low = self.bar.is_none_or(|bar| bar < self.usual) && !self.asked;
        let alone = match self.against {
            Against::Golden => true,
            // Our own graph is the right model by definition; without a bar there is nothing to pass.
            Against::Both | Against::Checkpoint => self.bar.is_none() && !self.stored_alike,
            Against::Stored => false,
        };
        self.quantized.is_some() && low && alone
    }

    /// The verdict, given whether every result that was compared reaches its bar.
    #[must_use]
    pub fn verdict(&self, reached: bool) -> Verdict {
        match (reached, self.is_weak()) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::NoVerdict,
            (true, false) => Verdict::Passed,
        }
    }

    /// What a pass shows; of a weak comparison, why there is none and what to run.
    #[must_use]
    pub fn sentence(&self) -> String {
        let how = self.quantized.unwrap_or_default();
        if self.is_weak() {
            let bar = self.bar.map_or("no bar follows from it".into(), |bar| {
                format!("the {bar:.1} dB that its plan allows cannot tell a wrong model from the error of quantization")
            });
            return match self.against {
                Against::Golden => format!(
                    "the artifact is quantized ({how}), and {bar}: add --checkpoint DIR beside --golden (and --quantize PLAN.toml \
                     for a plan), which proves the graph and the storage apart; or verify the fp16 artifact of the same \
                     checkpoint; or name a bar with --min-snr"
                ),
                _ => format!(
                    "the artifact is quantized ({how}), and {bar}: name the lowest SNR with --min-snr, or compare with the same \
                     quantization: --checkpoint DIR --quantize SCHEME|PLAN.toml"
                ),
            };
        }
        match (self.against, self.quantized) {
            (Against::Golden, None) => {
                "a pass shows that the artifact computes what the golden's author computed, on the golden's input".into()
            }
            (Against::Golden, Some(_)) => format!(
                "a pass shows that the artifact is within {:.1} dB of the golden, on the golden's input; below {:.0} dB that does \
                 not tell a wrong model from the error of quantization: --checkpoint DIR beside --golden does",
                self.bar.unwrap_or(self.usual),
                self.usual
            ),
            (Against::Both, None) => {
                "a pass shows that the checkpoint's graph as this compiler reads it is the golden's model, and that the artifact \
                 computes what the golden's author computed"
                    .into()
            }
            (Against::Both, Some(_)) if self.stored_alike => {
                "a pass shows that the checkpoint's graph as this compiler reads it is the golden's model, and that the artifact \
                 computes this graph with weights stored as it says; the SNR against the golden is what quantization costs"
                    .into()
            }
            (Against::Both, Some(_)) => {
                "a pass shows that the checkpoint's graph as this compiler reads it is the golden's model, and that the artifact \
                 is within its bar of the golden; activations in int8 have no exact reference"
                    .into()
            }
            (Against::Checkpoint, _) if !self.ours => {
                "a pass shows that the artifact, which another tool made, and this compiler's reading of the checkpoint are the \
                 same model"
                    .into()
            }
            (Against::Checkpoint, Some(_)) if self.stored_alike => {
                "a pass shows that the artifact computes this compiler's reading of the checkpoint with weights stored as it says; \
                 that the reading is your model, a golden shows (--golden), or an ONNX export of yours against the checkpoint"
                    .into()
            }
            (Against::Checkpoint, _) => {
                "a pass shows that compiling kept the numbers of this compiler's reading of the checkpoint; that the reading is \
                 your model, a golden shows (--golden), or an ONNX export of yours against the checkpoint"
                    .into()
            }
            (Against::Stored, _) => {
                "a pass shows that the artifact computes this compiler's reading of the checkpoint with weights stored as \
                 --quantize says, and nothing of what quantization costs; that the reading is your model, a golden shows (--golden)"
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(against: Against, quantized: Option<&str>, bar: Option<f64>) -> Claim<'_> {
        Claim { against, quantized, ours: true, bar, asked: false, usual: 50.0, stored_alike: false }
    }

    #[test]
    fn a_low_bar_alone_is_no_proof() {
        let plan = Some("plan blake3:00");
        assert_eq!(claim(Against::Golden, plan, Some(23.0)).verdict(true), Verdict::NoVerdict);
        assert_eq!(claim(Against::Golden, plan, Some(50.0)).verdict(true), Verdict::Passed);
        assert_eq!(claim(Against::Golden, plan, None).verdict(true), Verdict::NoVerdict);
        assert_eq!(claim(Against::Golden, None, Some(50.0)).verdict(true), Verdict::Passed);
        assert_eq!(claim(Against::Both, plan, Some(23.0)).verdict(true), Verdict::Passed);
        assert_eq!(claim(Against::Checkpoint, Some("int8"), None).verdict(true), Verdict::NoVerdict);
        let alike = Claim { stored_alike: true, ..claim(Against::Checkpoint, Some("int8"), None) };
        assert_eq!(alike.verdict(true), Verdict::Passed);
        let asked = Claim { asked: true, ..claim(Against::Golden, plan, Some(20.0)) };
        assert_eq!(asked.verdict(true), Verdict::Passed);
        for verdict in [alike, asked].map(|c| c.verdict(false)) {
            assert_eq!(verdict, Verdict::Failed);
        }
        assert!(claim(Against::Golden, plan, Some(23.0)).sentence().contains("23.0 dB"));
        assert!(asked.sentence().contains("does not tell a wrong model"), "{}", asked.sentence());
    }
}

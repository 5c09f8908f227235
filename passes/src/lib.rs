//! Graph-to-graph rewrites, and the pipelines that order them.
//!
//! A pass is a function from a module to a changed module, in a file of its own; it is registered by one line in
//! [`PASSES`]. A pass knows neither checkpoints nor files. Its tests are text: `passes/tests/text/NAME.s2` holds IR before and
//! after; `S2DITC_BLESS=1 cargo test -p s2dit-passes` writes the *after* anew.
//!
//! ```
//! let mut module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f32[2, 8]) {
//!         %0 = sigmoid(%x) : f32[2, 8]
//!         %y = mul(%x, %0) : f32[2, 8]
//!         return y = %y
//!     } }",
//! )?;
//! let fuse = s2dit_passes::pass("fuse").expect("a pass of this name");
//! let changes = (fuse.run)(&mut module)?;
//! assert!(changes > 0 && s2dit_ir::text::print(&module).contains("%y = silu(%x)"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bound;
pub mod canonicalize;
pub mod channels_first;
pub mod cse;
pub mod decompose;
pub mod fold_gate;
pub mod fuse;
pub mod pad_tokens;
pub mod partition;
pub mod pattern;
pub mod phase;
pub mod pipeline;
pub mod precision;
pub mod quantize;
pub mod regions;
pub mod split;
pub mod split_conv;
pub mod states;
pub mod timesteps;
pub mod widen;

use s2dit_ir::Module;
use s2dit_ir::compress::Scheme;
use s2dit_ir::ops::OpError;

pub use pipeline::{PassRun, Pipeline};
pub use precision::Fp16Extent;

/// A rewrite of a module.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// A line that says what holds after the pass.
    pub doc: &'static str,
    /// Rewrites the module and returns the number of changes.
    pub run: fn(&mut Module) -> Result<usize, OpError>,
}

/// Every pass.
pub const PASSES: &[Pass] = &[
    Pass { name: "canonicalize", doc: "no op that does nothing, no reshape of a reshape", run: canonicalize::run },
    Pass { name: "cse", doc: "no two live ops that compute the same", run: cse::run },
    Pass { name: "phase", doc: "sinusoids of large phases are computed to the last bits of fp32", run: phase::run },
    Pass {
        name: "timesteps-1000-to-250",
        doc: "what depends on `timestep` alone is a table of four rows",
        run: |m| timesteps::run(m, "timestep", &[1000.0, 750.0, 500.0, 250.0]),
    },
    Pass { name: "fuse", doc: "formulas with a name are one op", run: fuse::run },
    Pass { name: "decompose", doc: "no composite op: tensor ops only", run: decompose::run },
    Pass {
        name: "decompose-for-onnx21",
        doc: "no composite op but those that ONNX has, or ONNX Runtime makes of their parts",
        run: |m| decompose::run_except(m, decompose::onnx21_has),
    },
    Pass {
        name: "decompose-for-onnx23",
        doc: "the same with the ops of opset 23",
        run: |m| decompose::run_except(m, decompose::onnx23_has),
    },
    Pass { name: "fold-gate", doc: "no fusion gate over two projections", run: fold_gate::run },
    Pass {
        name: "pad-tokens",
        doc: "tokens are whole lines of the Neural Engine, padding is masked",
        run: pad_tokens::run,
    },
    Pass {
        name: "channels-first",
        doc: "tokens lie on the last axis, products with weights are 1×1 convolutions",
        run: channels_first::run,
    },
    Pass { name: "split-conv3d", doc: "no depthwise convolution over time", run: split_conv::run },
    Pass { name: "widen", doc: "every float is fp32: what an fp16 graph means", run: widen::run },
    Pass {
        name: "precision-fp16",
        doc: "fp16 everywhere but in fp32 islands that need the range or the phase",
        run: |m| precision::run(m, Fp16Extent::Fp16),
    },
    Pass {
        name: "precision-fp16-only",
        doc: "fp16 everywhere but in the phases of sinusoids",
        run: |m| precision::run(m, Fp16Extent::Fp16Only),
    },
    Pass {
        name: "precision-fp16-norms32",
        doc: "as precision-fp16, with the sums of squares in norms in fp32 too",
        run: |m| precision::run(m, Fp16Extent::Fp16Norms32),
    },
    Pass {
        name: "quantize-int8",
        doc: "large weights are int8 with a scale a channel",
        run: |m| quantize::uniform(m, Scheme::Int8),
    },
    Pass {
        name: "quantize-palette4-group16",
        doc: "large weights are 4-bit indices into palettes of 16 channels",
        run: |m| quantize::uniform(m, Scheme::Palette { bits: 4, group: Some(16) }),
    },
];

/// The pass called `name`.
pub fn pass(name: &str) -> Option<&'static Pass> {
    PASSES.iter().find(|p| p.name == name)
}

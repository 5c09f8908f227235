//! Element types of weights, by the names of the command line.

use std::fmt;
use std::str::FromStr;

use s2dit_ir::DType;

use crate::problems::{Problem, quoted};

/// The element types that a checkpoint may have, by the names of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// IEEE single precision.
    Fp32,
}

impl FloatType {
    /// Every type.
    pub const ALL: [FloatType; 3] = [FloatType::Bf16, FloatType::Fp16, FloatType::Fp32];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FloatType::Bf16 => "bf16",
            FloatType::Fp16 => "fp16",
            FloatType::Fp32 => "fp32",
        }
    }

    /// The same type in the IR.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            FloatType::Bf16 => DType::BF16,
            FloatType::Fp16 => DType::F16,
            FloatType::Fp32 => DType::F32,
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FloatType {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        FloatType::ALL.into_iter().find(|ty| ty.name() == text).ok_or_else(|| Problem {
            place: "dtype".into(),
            found: quoted(text),
            expected: "\"bf16\", \"fp16\" or \"fp32\"".into(),
        })
    }
}

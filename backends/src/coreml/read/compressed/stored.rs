//! Compressed weights as schemes of this compiler, without decoding them.

use s2dit_ir::compress::Scheme;

use super::Kind;
use crate::coreml::read::{Package, record_name};

/// A compressed weight as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWeight {
    /// The scheme of this compiler that stores a weight this way.
    pub scheme: Scheme,
    /// The weight source's name of the record with the codes: weights of two functions that share it are one.
    pub codes: String,
}

impl Package {
    /// How the weight is stored that [`crate::coreml::raise`] loads as `name`; `None` for one that is stored whole, or in no scheme of this
    /// compiler.
    #[must_use]
    pub fn stored(&self, name: &str) -> Option<StoredWeight> {
        let (function, value) = name.split_once('%')?;
        let found = self.compressed(function, value).ok()?;
        let (scheme, codes) = match &found.kind {
            Kind::Lut { indices, lut, vector_axis: None } => {
                let rank = indices.shape.len();
                let (groups, others) = lut.shape[..rank].split_first()?;
                let group = (*groups > 1).then_some(indices.shape[0] / groups);
                let bits = u8::try_from(indices.data_type.bits()?).ok()?;
                others.iter().all(|n| *n == 1).then_some((Scheme::Palette { bits, group }, indices))?
            }
            Kind::ShiftScale { data, scale, offset: None } => {
                let bits = u8::try_from(data.data_type.bits()?).ok()?;
                let inputs = *scale.shape.get(1)?;
                let by_channel = scale.shape[0] == data.shape[0] && scale.shape[2..].iter().all(|n| *n == 1);
                let scheme = match (bits, inputs) {
                    (8, 1) => Scheme::Int8,
                    (4 | 8, blocks) => Scheme::Block { bits, block: data.shape[1] / blocks },
                    _ => return None,
                };
                by_channel.then_some((scheme, data))?
            }
            _ => return None,
        };
        Some(StoredWeight { scheme, codes: record_name(codes.record?) })
    }
}

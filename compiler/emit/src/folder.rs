//! Modules as artifacts that are folders: Core ML packages and Core AI assets.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use s2dit_backends::output::Contents;
use s2dit_backends::{coreai, coreml};
use s2dit_ir::Module;

use crate::Target;
use crate::plan::Sources;

/// Ops, bytes of weights, weights that are not finite.
pub(crate) type Written = (usize, u64, Vec<(String, u64)>);

/// What all artifacts of a compile have in common.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    /// Core ML or Core AI.
    pub target: Target,
    /// The weights.
    pub source: &'a Sources<'a>,
    /// The description that Apple's tools show.
    pub about: &'a coreml::Options,
}

impl Writer<'_> {
    /// What one artifact has in it.
    pub(crate) fn contents(&self) -> Contents<'static> {
        if self.target == Target::CoreAi { coreai::CONTENTS } else { coreml::CONTENTS }
    }

    /// Writes a module into the folder `dir`, which exists and is empty. `metadata` is asked for when the weights have been written.
    ///
    /// # Errors
    /// What the target cannot express; weights that cannot be read or that the precision cannot hold; a full disk.
    pub(crate) fn write(
        &self,
        module: &Module,
        metadata: impl FnOnce() -> BTreeMap<String, String>,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written> {
        if self.target != Target::CoreAi {
            let made = coreml::write_package(module, self.source, self.about, metadata, dir, progress)?;
            return Ok((made.ops, made.weight_bytes, made.non_finite));
        }
        let about = coreai::Options {
            short_description: self.about.short_description.clone(),
            author: self.about.author.clone(),
            license: self.about.license.clone(),
        };
        let made = coreai::write_asset(module, self.source, &about, metadata, dir, progress)?;
        Ok((made.ops, made.weight_bytes, made.non_finite))
    }
}

/// Whether `rest`, the end of a path after the name of an artifact, is of a file in it: `.mlpackage/Manifest.json`.
pub(crate) fn is_inside(rest: &str) -> bool {
    rest.strip_prefix(".mlpackage/").is_some_and(coreml::package::is_part)
        || rest.strip_prefix(".aimodel/").is_some_and(coreai::asset::is_part)
}

//! Names of tensors as other programs write them: prefixes of training frameworks, and the names of a model's own repository.

use std::collections::HashSet;
use std::fmt;

use s2dit_files::WeightStore;
use s2dit_files::problems::Problems;

use crate::model::{Joined, Model, Renaming};

/// Segments at the front of names that wrappers and containers of training frameworks leave there.
const PREFIXES: &[&str] =
    &["model", "module", "diffusion_model", "transformer", "generator", "generator_ema", "base_model", "text_model"];
/// Segments anywhere in names: FSDP, `torch.compile` and activation checkpointing wrap modules inside of modules.
const WRAPPERS: &[&str] = &["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"];

/// How the names in the files became those of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Tensors of which a prefix or a wrapper's segment was left out, and the first such prefix.
    pub stripped: Option<(String, usize)>,
    /// Tensors that had the names of the model's own repository, and the family's name.
    pub original: Option<(&'static str, usize)>,
}

impl Naming {
    /// Whether the files have the names that the model calls for.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.stripped.is_none() && self.original.is_none()
    }
}

/// `825 original names of Wan read as those of diffusers, the prefix "model." left out of 825 names`
impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            return f.write_str("names of diffusers");
        }
        if let Some((family, count)) = &self.original {
            write!(f, "{count} original names of {family} read as those of diffusers")?;
        }
        if let Some((prefix, count)) = &self.stripped {
            let comma = if self.original.is_some() { ", " } else { "" };
            write!(f, "{comma}the prefix \"{prefix}\" left out of {count} names")?;
        }
        Ok(())
    }
}

/// The names of a model, and how others are read as such.
pub(super) struct Names {
    known: HashSet<String>,
    table: &'static [Renaming],
    blocks: Option<Renaming>,
    joined: &'static [Joined],
    family: &'static str,
}

impl Names {
    pub(super) fn new(model: &dyn Model) -> Names {
        Names {
            known: model.tensors().into_iter().map(|spec| spec.name).collect(),
            table: model.family().original(),
            blocks: model.family().original_blocks(),
            joined: model.family().joined(),
            family: model.family().name(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// Whether a name is one of the model, under any prefix and of either scheme.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.find(name, &|name| name.to_owned()).is_some()
            || self.find(name, &|name| self.name_of(name)).is_some()
            || self.parts_of(name).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// The name that the model has for an original name; the name itself if the table has none of its segments.
    pub(super) fn name_of(&self, name: &str) -> String {
        let name = self.in_blocks(name);
        self.table.iter().find_map(|renaming| renaming.applied(&name)).unwrap_or(name)
    }

    /// A name with the model's own lists of blocks.
    fn in_blocks(&self, name: &str) -> String {
        self.blocks.and_then(|blocks| blocks.applied(name)).unwrap_or_else(|| name.to_owned())
    }

    /// The names of the tensors of the model that one tensor of its own repository holds, one below the other.
    fn parts_of(&self, name: &str) -> Option<Vec<String>> {
        bare_forms(name).find_map(|bare| {
            let bare = self.in_blocks(&bare);
            self.joined.iter().find_map(|joined| {
                let names = joined.names.iter();
                let parts = names.map(|&name| Renaming { original: joined.original, name }.applied(&bare));
                let parts: Vec<String> = parts.collect::<Option<_>>()?;
                parts.iter().all(|part| self.has(part)).then_some(parts)
            })
        })
    }

    /// The original name of a name of the model.
    pub(super) fn original_of(&self, name: &str) -> Option<String> {
        let reversed = |renaming: &Renaming| Renaming { original: renaming.name, name: renaming.original };
        let name_there =
            self.blocks.and_then(|blocks| reversed(&blocks).applied(name)).unwrap_or_else(|| name.to_owned());
        let back = |renaming: &Renaming| reversed(renaming).applied(&name_there);
        self.table.iter().filter_map(back).find(|original| self.name_of(original) == name)
    }

    /// Gives the tensors of a store the names of the model. Which scheme of names the files have is decided for all of them together:
    /// a name that two schemes share may mean two things.
    ///
    /// # Errors
    /// Two tensors that would have one name; a tensor whose rows are not those of several.
    pub(super) fn apply(&self, weights: &mut WeightStore) -> Result<Naming, Problems> {
        let read_by =
            |scheme: &dyn Fn(&str) -> String| weights.names().filter(|name| self.find(name, scheme).is_some()).count();
        let plain = |name: &str| name.to_owned();
        let original = |name: &str| self.name_of(name);
        let as_they_are = weights.names().filter(|name| self.has(name)).count();
        let is_original = read_by(&original) > read_by(&plain);
        let scheme: &dyn Fn(&str) -> String = if is_original { &original } else { &plain };
        if read_by(scheme) == as_they_are {
            return Ok(Naming::default());
        }
        let mut naming = Naming::default();
        for name in weights.names() {
            let Some((bare, found)) = self.find(name, scheme) else { continue };
            if bare != name {
                let prefix = removed(name, &bare);
                naming.stripped.get_or_insert((prefix, 0)).1 += 1;
            }
            if found != bare {
                naming.original.get_or_insert((self.family, 0)).1 += 1;
            }
        }
        if is_original {
            let joined: Vec<(String, Vec<String>)> =
                weights.names().filter_map(|name| Some((name.to_owned(), self.parts_of(name)?))).collect();
            for (name, parts) in joined {
                weights.split(&name, &parts).map_err(Problems::from)?;
                naming.original.get_or_insert((self.family, 0)).1 += 1;
            }
        }
        // What is no tensor of the model keeps its name: that is how people know it.
        weights.rename(|name| self.find(name, scheme).map_or_else(|| name.to_owned(), |(_, found)| found))?;
        Ok(naming)
    }

    /// The first of a name's forms without prefixes that is a tensor of the model, and that tensor.
    pub(super) fn find(&self, name: &str, scheme: &dyn Fn(&str) -> String) -> Option<(String, String)> {
        bare_forms(name).find_map(|bare| {
            let found = scheme(&bare);
            self.has(&found).then_some((bare, found))
        })
    }
}

/// A name as it is, without the segments of wrappers, and then with one prefix less each time.
pub(super) fn bare_forms(name: &str) -> impl Iterator<Item = String> {
    let segments: Vec<&str> = name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect();
    let prefixes = segments.iter().take_while(|segment| PREFIXES.contains(segment)).count();
    let forms: Vec<String> = (0..=prefixes).map(|from| segments[from..].join(".")).collect();
    std::iter::once(name.to_owned()).chain(forms)
}

/// What was left out of a name: the prefix if it is one, else the segments of wrappers.
fn removed(name: &str, bare: &str) -> String {
    match name.strip_suffix(bare) {
        Some(prefix) => prefix.to_owned(),
        None => {
            let kept: HashSet<&str> = bare.split('.').collect();
            let gone: Vec<&str> = name.split('.').filter(|segment| !kept.contains(segment)).collect();
            let mut unique: Vec<&str> = Vec::new();
            for segment in gone {
                if !unique.contains(&segment) {
                    unique.push(segment);
                }
            }
            format!("{}.", unique.join("."))
        }
    }
}

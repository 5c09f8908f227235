//! The folder of a pipeline as it lies on disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{AssetFile, Contract, FILE, Part, TOKENIZER_FILE, Tokenizer};
use crate::Error;
use crate::error::refuse;
use crate::stream::contract::{Precision, Target};

/// Files up to this size are hashed whenever a folder is opened.
const SMALL: u64 = 4 << 20;

/// A pipeline's contract and the files that it names, which are there and as large as it says.
#[derive(Debug)]
pub struct Pipeline {
    dir: PathBuf,
    contract: Contract,
}

impl Pipeline {
    /// Whether a folder is that of a pipeline, whole or not.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        Contract::is_in(dir)
    }

    /// Opens the folder of a pipeline. Small files are hashed; [`Pipeline::check_hashes`] hashes all.
    ///
    /// # Errors
    /// Not the folder of a pipeline; a contract that contradicts itself; files that are missing, or are of another compile.
    pub fn open(dir: &Path) -> Result<Pipeline, Error> {
        let pipeline = Pipeline { dir: dir.into(), contract: Contract::read(dir)? };
        pipeline.check_sizes().map_err(Error::artifact)?;
        Ok(pipeline)
    }

    /// The contract.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The artifact of a part.
    ///
    /// # Errors
    /// A pipeline that was compiled without it.
    pub fn part(&self, part: Part) -> Result<PathBuf, Error> {
        match self.contract.assets.of(part) {
            Some(asset) => Ok(self.dir.join(&asset.path)),
            None => refuse!(
                Artifact,
                "`{}`: a pipeline without the asset `{}`: compile it again with that component",
                self.dir.join(FILE).display(),
                part.name()
            ),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// A pipeline without one; a tokenizer that cannot be read, or does not fit the text encoder.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        match &self.contract.assets.tokenizer {
            Some(asset) => {
                Tokenizer::open(&self.dir.join(&asset.path).join(TOKENIZER_FILE), self.contract.text.clone())
            }
            None => refuse!(
                Artifact,
                "`{}`: a pipeline without a tokenizer: compile it again with the component `text_encoder`",
                self.dir.join(FILE).display()
            ),
        }
    }

    /// Checks that rounding results to fp16, as the Neural Engine does, means something for this pipeline.
    ///
    /// # Errors
    /// A pipeline for ONNX, or one whose parts are all fp32.
    pub fn check_fp16(&self) -> Result<(), Error> {
        let shown = self.dir.display();
        if self.contract.target == Target::Onnx {
            refuse!(
                Input,
                "--fp16: `{shown}` was compiled for ONNX, whose files say the arithmetic themselves: leave --fp16 out, or compile the pipeline with --target coreml, \
                 whose results the Neural Engine rounds to fp16"
            );
        }
        if self.contract.assets.parts().all(|(_, asset)| asset.precision == Precision::Fp32) {
            refuse!(
                Input,
                "--fp16: every part of `{shown}` is fp32, so that nothing would be rounded: leave --fp16 out"
            );
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        for file in self.contract.assets.files() {
            let path = self.dir.join(&file.path);
            let shown = path.display();
            let meta = match std::fs::metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    bail!("`{shown}`: {FILE} names this file, but it is not there")
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read `{shown}`")),
            };
            if !meta.is_file() {
                bail!("`{shown}`: found something else, expected a file");
            }
            if meta.len() != file.bytes {
                bail!(
                    "`{shown}`: found {} bytes, expected {}, as {FILE} says: the file is damaged or of another compile",
                    meta.len(),
                    file.bytes
                );
            }
            if file.bytes <= SMALL {
                check_hash(&path, file)?;
            }
        }
        Ok(())
    }

    /// Hashes every file. `progress` gets bytes read and bytes in all.
    ///
    /// # Errors
    /// A file that cannot be read, or is not the one that was compiled.
    pub fn check_hashes(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        let all: u64 = self.contract.assets.files().map(|file| file.bytes).sum();
        let mut done = 0;
        for file in self.contract.assets.files() {
            check_hash(&self.dir.join(&file.path), file).map_err(Error::artifact)?;
            done += file.bytes;
            progress(done, all);
        }
        Ok(())
    }
}

fn check_hash(path: &Path, file: &AssetFile) -> Result<()> {
    let shown = path.display();
    let found = hash(path).with_context(|| format!("cannot read `{shown}`"))?;
    if found != file.blake3 {
        bail!(
            "`{shown}`: found the hash {found}, expected {}, as {FILE} says: the file is damaged or of another compile",
            file.blake3
        );
    }
    Ok(())
}

/// The blake3 of a file, in hexadecimal digits.
fn hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl AssetFile {
    /// Describes the file `path` of the folder `dir`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(dir: &Path, path: &str) -> Result<AssetFile, Error> {
        let file = dir.join(path);
        let described = || {
            let bytes = std::fs::metadata(&file)?.len();
            Ok::<_, std::io::Error>(AssetFile { path: path.into(), bytes, blake3: hash(&file)? })
        };
        described().with_context(|| format!("cannot read `{}`", file.display())).map_err(Error::artifact)
    }
}

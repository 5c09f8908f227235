//! A folder of PNGs, `00000.png` and so on: one for each frame, without loss.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use s2dit_backends::output::{Contents, Destination, Staged, made};

use super::{Format, Rgb, Spec};

/// Digits of a name, at least.
const DIGITS: usize = 5;

pub(super) struct Folder {
    staged: Staged,
    frames: usize,
}

/// The name of a frame's file.
fn name(frame: usize) -> String {
    format!("{frame:0DIGITS$}.png")
}

/// Whether a file has the name of a frame.
fn is_frame(path: &str) -> bool {
    let digits = path.strip_suffix(".png").unwrap_or_default();
    digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit())
}

impl Folder {
    pub(super) fn create(to: Destination<'_>, _: Spec) -> Result<Folder> {
        let marker = name(0);
        // Each frame: a picture of somebody else's may have such a name too.
        let ours = |path: &Path| {
            let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            files
                .filter(|file| file.file_name().and_then(OsStr::to_str).is_some_and(is_frame))
                .all(|file| made::png(&file))
        };
        let contents = Contents { kind: "frames", marker: &marker, part: &is_frame, ours: &ours };
        Ok(Folder { staged: Staged::folder(to, &contents)?, frames: 0 })
    }
}

impl Format for Folder {
    fn push(&mut self, frame: &Rgb) -> Result<()> {
        let name = name(self.frames);
        self.frames += 1;
        let write = || -> Result<()> {
            let file = BufWriter::new(File::create(self.staged.path().join(&name))?);
            let mut encoder = png::Encoder::new(file, frame.cols as u32, frame.rows as u32);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.add_text_chunk(made::SOFTWARE.into(), made::NAME.into())?;
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&frame.pixels)?;
            Ok(writer.finish()?)
        };
        write().with_context(|| format!("cannot write `{}`", self.staged.place().join(&name).display()))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(self.staged.commit()?)
    }
}
